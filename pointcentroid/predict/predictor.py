"""A file or an array in, a prediction out: preprocessing, orientation, batching and votes, in numpy, around a net."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pointcentroid.errors import ConfigError, WeightsError, require
from pointcentroid.geometry.axes import TO_Z_UP, UP_AXES
from pointcentroid.geometry.farthest import farthest_first
from pointcentroid.predict.nets import Runtime, at_least, log_softmax, open_net
from pointcentroid.predict.preparing import Prepared, Preparer, Source, prepare
from pointcentroid.predict.up import CONFIDENCE_WEIGHT, UPRIGHT_POINTS, UpCandidate, UprightNet
from pointcentroid.results import Failure, Prediction
from pointcentroid.weights import find_weights

if TYPE_CHECKING:
    from pointcentroid.predict.explain import Explanation
    from pointcentroid.predict.torch_net import TorchNet

Up = Literal["auto", "x", "-x", "y", "-y", "z", "-z"]


class Predictor:
    """A trained classifier that takes shapes as people have them.

    Args:
        weights: the name of shipped weights, a weights file, or an exported graph.
        device: `"auto"`, or a torch device.
        runtime: `"onnx"`, `"torch"`, or `"auto"`, see `pointcentroid.predict.nets`.
        changes: fields of `EncoderConfig` to change in the trained net, such as `initialiser="voxel"`; for looking at what
            they do, not for accuracy.

    Raises:
        WeightsError: there are no such weights, they are damaged or no classifier's, or they have no tensors for the changed
            net.
        ConfigError: there is no such device, or a change is unknown or out of range.
        MissingExtraError: the net needs torch, which is not installed.
    """

    def __init__(
        self, weights: str | Path = "small", device: str = "auto", *, runtime: Runtime = "auto", **changes: Any
    ) -> None:
        self.path, self.device = find_weights(weights), device
        self.runtime: Runtime = runtime
        self.net = open_net(self.path, device, runtime, **changes)
        self.card = self.net.card
        if self.card.model.kind != "classifier":
            raise WeightsError(f"{weights} is a net of the kind {self.card.model.kind!r}, which does not classify")

    @property
    def feature_dim(self) -> int:
        """Length of the global feature of a prediction."""
        return self.net.feature_dim

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the net's outputs."""
        return self.card.classes

    @cached_property
    def _upright(self) -> UprightNet:
        return UprightNet(self.device, self.runtime)

    @cached_property
    def torch_net(self) -> TorchNet:
        """The net in torch, which alone shows its assignments.

        Raises:
            ConfigError: the predictor runs an exported graph without the weights that it is of.
            MissingExtraError: torch is not installed.
        """
        require("explaining", "torch", "torch")
        from pointcentroid.predict.torch_net import TorchNet

        if isinstance(self.net, TorchNet):
            return self.net
        if self.path.suffix == ".onnx":
            raise ConfigError(f"{self.path} is a graph, which classifies; to explain, load the weights that it is of")
        return TorchNet(self.path, self.device)

    def __call__(self, source: Source, *, up: Up = "auto", votes: int = 1, top: int = 5) -> Prediction:
        """Classify one shape.

        Args:
            source: a file; an (N, 3) array of points; a `pointcentroid.io.shape.Shape`; a mesh, cloud or scene of trimesh; a
                mesh or cloud of open3d; or `Data` of PyTorch Geometric.
            up: the axis that points up in the source; `"auto"` follows the format's standard or estimates it.
            votes: independent samplings of the surface whose probabilities are averaged.
            top: how many classes to list.

        Raises:
            ReadError: the source cannot be read, or holds no usable geometry.
            MissingExtraError: the format needs an optional dependency.
        """
        _check_up(up)
        return self.classify([prepare(source, self.card.preprocess, votes)], up, top)[0]

    def explain(self, source: Source, *, up: Up = "auto", seed: int | None = None) -> Explanation:
        """Classify one shape and show the centroids it was seen through.

        Args:
            source: see `__call__`.
            up: see `__call__`.
            seed: of the sampling, to see other points of the same surface; the one of predictions if None.

        Raises:
            ReadError: the source cannot be read, or holds no usable geometry.
            ConfigError: the predictor runs an exported graph without the weights that it is of.
            MissingExtraError: torch is not installed, or the format needs an optional dependency.
        """
        _check_up(up)
        require("explaining", "torch", "torch")
        from pointcentroid.predict.explain import explain

        return explain(self, source, up, seed)

    def predict(
        self,
        sources: Iterable[Source],
        *,
        up: Up = "auto",
        votes: int = 1,
        top: int = 5,
        batch_size: int = 32,
        workers: int | None = 0,
    ) -> Iterator[Prediction | Failure]:
        """Classify many shapes; what cannot be read becomes a `Failure`, and the rest goes on.

        Args:
            sources: files, arrays, shapes or `Data`; or a `Batch` of them.
            up: see `__call__`.
            votes: see `__call__`.
            top: see `__call__`.
            batch_size: shapes the net sees at once.
            workers: reading processes; 0 reads in this process, None chooses. A script that uses processes needs the
                usual `if __name__ == "__main__":`.

        Yields:
            One result per source, in order.
        """
        split = getattr(sources, "to_data_list", None)  # a `Batch` of PyTorch Geometric
        prepared = Preparer(self.card.preprocess, votes, workers)(split() if split else sources)
        return self.predict_prepared(prepared, up=up, top=top, batch_size=batch_size)

    def predict_prepared(
        self, prepared: Iterable[Prepared | Failure], *, up: Up = "auto", top: int = 5, batch_size: int = 32
    ) -> Iterator[Prediction | Failure]:
        """Classify what `pointcentroid.predict.preparing` made; the arguments are those of `predict`."""
        _check_up(up)
        items = iter(prepared)
        while batch := list(islice(items, batch_size)):
            results: dict[int, Prediction | Failure] = {}
            groups: dict[tuple[int, ...], dict[int, Prepared]] = {}
            for number, item in enumerate(batch):
                if isinstance(item, Failure):
                    results[number] = item
                else:
                    groups.setdefault(item.clouds.shape, {})[number] = item
            for group in groups.values():
                results.update(zip(group, self.classify(list(group.values()), up, top), strict=True))
            yield from (results[number] for number in range(len(batch)))

    def classify(self, items: list[Prepared], up: str, top: int) -> list[Prediction]:
        """Classify prepared shapes whose clouds have the same shape (V, N, 3)."""
        clouds = np.stack([item.clouds for item in items])
        batch, votes, points = clouds.shape[:3]
        clouds = self.ordered(clouds.reshape(batch * votes, points, 3))
        clouds = clouds.reshape(batch, votes, -1, 3)
        given = [up if up != "auto" else item.standard_up for item in items]
        looks = self._looks(clouds[:, 0], given)
        logits, features = self._run(clouds[[look.row for look in looks]], [look.axis for look in looks])
        confidence = np.exp(log_softmax(logits)).mean(axis=1).max(axis=1)
        scores = np.array([look.log_probability for look in looks]) + CONFIDENCE_WEIGHT * np.log(confidence)
        best: dict[int, int] = {}
        for number, look in enumerate(looks):
            if look.row not in best or scores[number] > scores[best[look.row]]:
                best[look.row] = number
        probabilities = np.exp(log_softmax(logits / self.card.temperature)).mean(axis=1)
        return [
            self._prediction(item, looks[best[row]].axis, probabilities[best[row]], features[best[row]], top)
            for row, item in enumerate(items)
        ]

    def _looks(self, clouds: np.ndarray, given: list[str | None]) -> list[UpCandidate]:
        """The ways to look at each cloud: one where the axis is given or certain, several where it is doubtful."""
        looks = [UpCandidate(row, axis, 0.0) for row, axis in enumerate(given) if axis is not None]
        unknown = [row for row, axis in enumerate(given) if axis is None]
        if unknown:
            found = self._upright.candidates(clouds[unknown])
            looks += [candidate._replace(row=unknown[candidate.row]) for candidate in found]
        return looks

    def ordered(self, clouds: np.ndarray) -> np.ndarray:
        """Put (B, N, 3) clouds in farthest-point order, as far as the nets need it; more than `card.model.seeds` points."""
        seen, sample = self.card.preprocess.points, clouds.shape[1]
        prefix = max(self.card.model.seeds, UPRIGHT_POINTS, seen if seen < sample else 0)
        return at_least(farthest_first(clouds, prefix), self.card.model.seeds + 1)

    def _run(self, clouds: np.ndarray, axes: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(B, V, N, 3) clouds with the given axes up -> (B, V, classes) logits and (B, F) features."""
        batch, votes = clouds.shape[:2]
        matrices = np.stack([TO_Z_UP[axis] for axis in axes]).astype(clouds.dtype)
        seen = clouds[:, :, : max(self.card.preprocess.points, self.card.model.seeds + 1)]
        turned = np.einsum("bij,bvnj->bvni", matrices, seen)
        logits, features = self.net(turned.reshape(batch * votes, -1, 3))
        return logits.reshape(batch, votes, -1), features.reshape(batch, votes, -1).mean(axis=1)

    def _prediction(self, item: Prepared, up: str, probability: np.ndarray, feature: np.ndarray, top: int) -> Prediction:
        points = min(item.clouds.shape[1], self.card.preprocess.points)
        order = np.argsort(-probability, kind="stable")[:top]
        ranked = [(self.classes[i], float(probability[i])) for i in order]
        return Prediction(item.name, ranked[0][0], ranked[0][1], ranked, up, points, feature)


def _check_up(up: str) -> None:
    if up != "auto" and up not in UP_AXES:
        raise ConfigError(f"up must be 'auto' or one of {', '.join(UP_AXES)}, found {up!r}")


def load(weights: str | Path = "small", device: str = "auto", *, runtime: Runtime = "auto", **changes: Any) -> Predictor:
    """Load a predictor: `load("small")("chair.off").label`.

    Args:
        weights: the name of shipped weights or a weights file.
        device: `"auto"`, or a torch device such as `"cpu"` or `"cuda:0"`.
        runtime: see `Predictor`.
        changes: see `Predictor`.

    Raises:
        WeightsError: there are no such weights, or they are damaged.
        ConfigError: there is no such device.
    """
    return Predictor(weights, device, runtime=runtime, **changes)
