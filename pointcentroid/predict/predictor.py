"""A file or an array in, a prediction out: preprocessing, orientation, batching and votes, in numpy, around a net."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pointcentroid.config import ClassifierConfig
from pointcentroid.errors import ConfigError, WeightsError, require
from pointcentroid.geometry.axes import up_name
from pointcentroid.predict.nets import Answer, familiarity, log_softmax, ordered
from pointcentroid.predict.preparing import Prepared, Preparer, Source, prepare
from pointcentroid.predict.runtimes import Runtime, open_net
from pointcentroid.predict.up import Custom, Up, UpFinder, custom_of, given_turn, turned
from pointcentroid.results import Failure, Prediction
from pointcentroid.weights import STAND_IN, find_weights, read_card

if TYPE_CHECKING:
    from pointcentroid.predict.explain import Explanation
    from pointcentroid.predict.torch_net import Abstraction, TorchNet


class Predictor:
    """A trained classifier that takes shapes as people have them.

    Args:
        weights: the name of shipped weights, a weights file, or an exported graph.
        device: `"auto"`, or a torch device.
        runtime: `"onnx"`, `"torch"`, or `"auto"`, see `pointcentroid.predict.runtimes`.
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
        if (kind := read_card(self.path).model.kind) != ClassifierConfig.kind:
            other = (
                "; `pointcentroid reconstruct` and predict.reconstruct are for it" if kind.endswith("autoencoder") else ""
            )
            raise WeightsError(f"{weights} is a net of the kind {kind!r}, which does not classify{other}")
        self.runtime: Runtime = runtime
        self.net = open_net(self.path, device, runtime, **changes)
        self.card = self.net.card
        self._knows_up = isinstance(self.card.model, ClassifierConfig) and self.card.model.known

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.card.name}: {len(self.classes)} classes>"

    @property
    def feature_dim(self) -> int:
        """Length of the global feature of a prediction."""
        return self.net.feature_dim

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the net's outputs."""
        return self.card.classes

    @cached_property
    def _finder(self) -> UpFinder:
        return UpFinder(self.net if self._knows_up else open_net(find_weights(STAND_IN), self.device, self.runtime))

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

    @cached_property
    def abstraction(self) -> Abstraction:
        """The net whose centroids `explain` shows; its errors are those of `torch_net`."""
        from pointcentroid.predict.torch_net import Abstraction

        net = self.torch_net
        return Abstraction(partial(net.module.encoder, ordered=True, assignments=True), net.card, net.device)

    def __call__(self, source: Source, *, up: Up | np.ndarray = "auto", votes: int = 1, top: int = 5) -> Prediction:
        """Classify one shape.

        Args:
            source: a file; an (N, 3) array of points; a `pointcentroid.io.shape.Shape`; a mesh, cloud or scene of trimesh; a
                mesh or cloud of open3d; or `Data` of PyTorch Geometric.
            up: the axis that points up in the source; `"auto"` finds it, see `pointcentroid.predict.up`; or the (3, 3)
                rotation R with which `points @ R.T` has z up.
            votes: independent samplings of the surface whose probabilities are averaged.
            top: how many classes to list.

        Raises:
            ReadError: the source cannot be read, or holds no usable geometry.
            MissingExtraError: the format needs an optional dependency.
            ConfigError: `up` is no axis and no rotation, or `votes` or `top` is not positive.
        """
        check_options(up, votes=votes, top=top)
        return self.classify([prepare(source, self.card.preprocess, votes)], up, top)[0]

    def explain(self, source: Source, *, up: Up | np.ndarray = "auto", seed: int | None = None) -> Explanation:
        """Classify one shape and show the centroids it was seen through.

        Args:
            source: see `__call__`.
            up: see `__call__`.
            seed: of the sampling, to see other points of the same surface; the one of predictions if None.

        Raises:
            ReadError: the source cannot be read, or holds no usable geometry.
            ConfigError: the predictor runs an exported graph without the weights that it is of, `up` is no axis and no
                rotation, or `seed` is negative.
            MissingExtraError: torch is not installed, or the format needs an optional dependency.
        """
        check_options(up)
        if seed is not None and seed < 0:
            raise ConfigError(f"seed must not be negative, found {seed}")
        require("explaining", "torch", "torch")
        from pointcentroid.predict.explain import explain

        return explain(source, self.card, self.abstraction, lambda prepared: self.classify([prepared], up, top=5)[0], seed)

    def predict(
        self,
        sources: Iterable[Source],
        *,
        up: Up | np.ndarray = "auto",
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

        Returns:
            An iterator: one result per source, in order.

        Raises:
            ConfigError: see `__call__`.
        """
        check_options(up, votes=votes, top=top, batch_size=batch_size)
        if isinstance(sources, (str, Path)) or getattr(sources, "ndim", 3) == 2 or not hasattr(sources, "__iter__"):
            raise ConfigError("expected several shapes, found one; a predictor is called with one: predictor(shape)")
        if workers is not None and workers < 0:
            raise ConfigError(f"workers must not be negative, found {workers}")
        split = getattr(sources, "to_data_list", None)  # a `Batch` of PyTorch Geometric
        prepared = Preparer(self.card.preprocess, votes, workers)(split() if split else sources)
        return self.predict_prepared(prepared, up=up, top=top, batch_size=batch_size)

    def predict_prepared(
        self, prepared: Iterable[Prepared | Failure], *, up: Up | np.ndarray = "auto", top: int = 5, batch_size: int = 32
    ) -> Iterator[Prediction | Failure]:
        """Classify what `pointcentroid.predict.preparing` made; arguments and errors are those of `predict`."""
        check_options(up, top=top, batch_size=batch_size)
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

    def classify(self, items: list[Prepared], up: Up | np.ndarray, top: int) -> list[Prediction]:
        """Classify prepared shapes whose clouds have the same shape (V, N, 3)."""
        clouds = np.stack([item.clouds for item in items])
        batch, votes, points = clouds.shape[:3]
        clouds = self.ordered(clouds.reshape(batch * votes, points, 3)).reshape(batch, votes, -1, 3)
        given = [given_turn(item.up if isinstance(up, str) and up == "auto" else up) for item in items]
        turns, first, others = self._look(clouds[:, 0], given, [custom_of(item.name) for item in items])
        answers = [first, *(self.net(turned(clouds[:, vote], turns)) for vote in range(1, votes))]
        probabilities = np.mean([self._probabilities(answer.logits) for answer in answers], axis=0)
        probabilities = (1 - others.sum(axis=1, keepdims=True)) * probabilities + others
        features = np.mean([answer.features for answer in answers], axis=0)
        known = np.mean([familiarity(answer, self.card.known) for answer in answers], axis=0)
        return [
            self._prediction(item, turns[row], probabilities[row], features[row], float(known[row]), top)
            for row, item in enumerate(items)
        ]

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        return np.exp(log_softmax(logits / self.card.temperature))

    def _look(
        self, clouds: np.ndarray, given: list[np.ndarray | None], customs: list[Custom]
    ) -> tuple[np.ndarray, Answer, np.ndarray]:
        """Look at (B, N, 3) clouds as they stand, which is found where it is not given.

        Returns:
            (B, 3, 3) the turns that put them upright; what the net says of them then; and (B, classes) what it says of the
            other looks, by their probability.
        """
        turns = np.stack([np.eye(3) if turn is None else turn for turn in given])
        others = np.zeros((len(clouds), len(self.classes)))
        answers: list[tuple[list[int], Answer]] = []
        unseen = [row for row, turn in enumerate(given) if turn is not None]
        unknown = [row for row, turn in enumerate(given) if turn is None]
        own = self._knows_up
        for custom in dict.fromkeys(customs[row] for row in unknown):
            rows = [row for row in unknown if customs[row] is custom]
            found = self._finder(clouds[rows] if own else ordered(clouds[rows], self._finder.net.card), custom)
            turns[rows] = found.turns
            if own:
                answers.append((rows, found.answer))
                shares = found.shares.copy()
                shares[np.arange(len(rows)), found.chosen] = 0
                others[rows] = (shares[:, :, None] * self._probabilities(found.logits)).sum(axis=1)
            else:
                unseen += rows
        if unseen:
            answers.append((unseen, self.net(turned(clouds[unseen], turns[unseen]))))
        order = np.argsort(np.concatenate([rows for rows, _ in answers]))
        outputs = zip(*(answer for _, answer in answers), strict=True)
        return turns, Answer(*(np.concatenate(parts)[order] for parts in outputs)), others

    def ordered(self, clouds: np.ndarray) -> np.ndarray:
        """(B, N, 3) clouds as the net wants them, see `pointcentroid.predict.nets.ordered`."""
        return ordered(clouds, self.card)

    def _prediction(
        self, item: Prepared, turn: np.ndarray, probability: np.ndarray, feature: np.ndarray, known: float, top: int
    ) -> Prediction:
        points = min(item.clouds.shape[1], self.card.preprocess.points)
        order = np.argsort(-probability, kind="stable")[:top]
        ranked = [(self.classes[i], float(probability[i])) for i in order]
        return Prediction(
            file=item.name,
            label=ranked[0][0],
            confidence=ranked[0][1],
            top=ranked,
            up=up_name(turn),
            points=points,
            feature=feature,
            turn=turn,
            known=None if np.isnan(known) else known,
        )


def check_options(up: Up | np.ndarray, **counts: int) -> None:
    """Check what a prediction is asked for.

    Args:
        up: see `Predictor.__call__`.
        counts: other numbers, by their names.

    Raises:
        ConfigError: `up` is no axis and no rotation, or a number is no whole one, or not positive.
    """
    given_turn(up)
    for name, value in counts.items():
        if not isinstance(value, Integral) or value < 1:
            raise ConfigError(f"{name} must be a whole number, at least 1; found {value!r}")
