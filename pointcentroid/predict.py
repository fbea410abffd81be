"""A file or an array in, a prediction out. The predictor owns preprocessing, orientation and batching."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pointcentroid.errors import ConfigError
from pointcentroid.geometry.fps import farthest_first
from pointcentroid.geometry.neighbours import gather_points
from pointcentroid.geometry.orientation import TO_Z_UP, UP_AXES
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.nn.encoder import compose
from pointcentroid.orientation import UprightNet
from pointcentroid.prepare import Prepared, Preparer, Source, prepare
from pointcentroid.results import Explanation, Failure, Prediction, StageExplanation
from pointcentroid.weights import find_weights, load_weights

Up = Literal["auto", "x", "-x", "y", "-y", "z", "-z"]

# When the most probable up axis is less probable than this, the runner-up is tried as well.
_CERTAIN_UP = 0.95


def choose_device(name: str) -> torch.device:
    """Turn `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"` ... into a device that is there.

    Raises:
        ConfigError: the device does not exist on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"no device {name!r} on this machine ({str(error).splitlines()[0]})") from None
    return device


class Predictor:
    """A trained classifier that takes shapes as people have them.

    Args:
        weights: the name of shipped weights or a weights file.
        device: `"auto"`, or a torch device.

    Raises:
        WeightsError: there are no such weights, or they are damaged.
        ConfigError: there is no such device.
    """

    def __init__(self, weights: str | Path = "small", device: str = "auto") -> None:
        self.device = choose_device(device)
        tensors, self.card = load_weights(find_weights(weights))
        self.net = CentroidClassifier.from_tensors(self.card.model, tensors).to(self.device)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the net's outputs."""
        return self.card.classes

    @cached_property
    def _upright(self) -> UprightNet:
        return UprightNet(self.device)

    def __call__(self, source: Source, *, up: Up = "auto", votes: int = 1, top: int = 5) -> Prediction:
        """Classify one shape.

        Args:
            source: a file, an (N, 3) array of points, or a `pointcentroid.io.shape.Shape`.
            up: the axis that points up in the source; `"auto"` follows the format's standard or estimates it.
            votes: independent samplings of the surface whose probabilities are averaged.
            top: how many classes to list.

        Raises:
            ReadError: the source cannot be read, or holds no usable geometry.
            MissingExtraError: the format needs an optional dependency.
        """
        _check_up(up)
        return self._classify([prepare(source, self.card.preprocess, votes)], up, top)[0]

    @torch.inference_mode()
    def explain(self, source: Source, *, up: Up = "auto") -> Explanation:
        """Classify one shape and show the centroids it was seen through.

        Args:
            source: see `__call__`.
            up: see `__call__`.

        Raises:
            ReadError: the source cannot be read, or holds no usable geometry.
            MissingExtraError: the format needs an optional dependency.
        """
        _check_up(up)
        prepared = prepare(source, self.card.preprocess)
        prediction = self._classify([prepared], up, top=5)[0]
        cloud = self._ordered(torch.from_numpy(prepared.clouds).to(self.device))
        cloud = cloud @ torch.from_numpy(TO_Z_UP[prediction.up]).to(cloud).T
        outputs = self.net.encoder(cloud, ordered=True, assignments=True)
        stages = [
            StageExplanation(*(t[0].cpu().numpy() for t in (out.positions, out.features, out.assignment, shares)))
            for out, shares in zip(outputs, compose(outputs), strict=True)
        ]
        return Explanation(prediction, cloud[0].cpu().numpy(), stages)

    def predict(
        self,
        sources: Iterable[Source],
        *,
        up: Up = "auto",
        votes: int = 1,
        top: int = 5,
        batch_size: int = 16,
        workers: int | None = 0,
    ) -> Iterator[Prediction | Failure]:
        """Classify many shapes; what cannot be read becomes a `Failure`, and the rest goes on.

        Args:
            sources: files, arrays or shapes.
            up: see `__call__`.
            votes: see `__call__`.
            top: see `__call__`.
            batch_size: shapes the net sees at once.
            workers: reading processes; 0 reads in this process, None chooses. A script that uses processes needs the
                usual `if __name__ == "__main__":`.

        Yields:
            One result per source, in order.
        """
        prepared = Preparer(self.card.preprocess, votes, workers)(sources)
        return self.predict_prepared(prepared, up=up, top=top, batch_size=batch_size)

    def predict_prepared(
        self, prepared: Iterable[Prepared | Failure], *, up: Up = "auto", top: int = 5, batch_size: int = 16
    ) -> Iterator[Prediction | Failure]:
        """Classify what `pointcentroid.prepare` made; the arguments are those of `predict`."""
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
                results.update(zip(group, self._classify(list(group.values()), up, top), strict=True))
            yield from (results[number] for number in range(len(batch)))

    @torch.inference_mode()
    def _classify(self, items: list[Prepared], up: str, top: int) -> list[Prediction]:
        """Classify items whose clouds have the same shape (V, N, 3)."""
        clouds = torch.from_numpy(np.stack([item.clouds for item in items])).to(self.device)
        batch, votes = clouds.shape[:2]
        clouds = self._ordered(clouds.flatten(0, 1)).view(batch, votes, -1, 3)
        candidates = [up if up != "auto" else item.standard_up for item in items]
        unknown = [row for row, axis in enumerate(candidates) if axis is None]
        runner_up: dict[int, tuple[str, float]] = {}
        if unknown:
            scores = self._upright.log_probabilities(clouds[unknown, 0])
            best = scores.topk(2, dim=1)
            for row, values, axes in zip(unknown, best.values.tolist(), best.indices.tolist(), strict=True):
                candidates[row] = UP_AXES[axes[0]]
                if values[0] < np.log(_CERTAIN_UP):
                    runner_up[row] = (UP_AXES[axes[1]], values[1] - values[0])
        axes_up = [axis or "z" for axis in candidates]
        probabilities, features = self._run(clouds, axes_up)
        if runner_up:
            rows = list(runner_up)
            second, second_features = self._run(clouds[rows], [runner_up[row][0] for row in rows])
            for place, row in enumerate(rows):
                gain = second[place].max().log() - probabilities[row].max().log() + runner_up[row][1]
                if gain > 0:
                    axes_up[row] = runner_up[row][0]
                    probabilities[row], features[row] = second[place], second_features[place]
        return [
            self._prediction(item, axis, probability, feature, top)
            for item, axis, probability, feature in zip(
                items, axes_up, probabilities.cpu(), features.cpu().numpy(), strict=True
            )
        ]

    def _ordered(self, clouds: Tensor) -> Tensor:
        """Put clouds in farthest-point order, as far as the net needs it, and take the points it sees."""
        seen, sample = self.card.preprocess.points, clouds.shape[1]
        first = self.card.model.encoder.stages[0].centroids
        order = farthest_first(clouds, max(first, seen) if seen < sample else first)
        return gather_points(clouds, order[:, :seen])

    def _run(self, clouds: Tensor, axes: list[str]) -> tuple[Tensor, Tensor]:
        """(B, V, N, 3) clouds with the given axes up -> (B, classes) probabilities and (B, F) features."""
        batch, votes = clouds.shape[:2]
        matrices = torch.from_numpy(np.stack([TO_Z_UP[axis] for axis in axes])).to(clouds)
        turned = torch.einsum("bij,bvnj->bvni", matrices, clouds).flatten(0, 1)
        features = self.net.features(turned, ordered=True)
        probabilities = self.net.head(features).softmax(dim=1)
        return probabilities.view(batch, votes, -1).mean(dim=1), features.view(batch, votes, -1).mean(dim=1)

    def _prediction(self, item: Prepared, up: str, probability: Tensor, feature: np.ndarray, top: int) -> Prediction:
        points = min(item.clouds.shape[1], self.card.preprocess.points)
        best = probability.topk(min(top, len(self.classes)))
        ranked = [(self.classes[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
        return Prediction(item.name, ranked[0][0], ranked[0][1], ranked, up, points, feature)


def _check_up(up: str) -> None:
    if up != "auto" and up not in UP_AXES:
        raise ConfigError(f"up must be 'auto' or one of {', '.join(UP_AXES)}, found {up!r}")


def load(weights: str | Path = "small", device: str = "auto") -> Predictor:
    """Load a predictor: `load("small")("chair.off").label`.

    Args:
        weights: the name of shipped weights or a weights file.
        device: `"auto"`, or a torch device such as `"cpu"` or `"cuda:0"`.

    Raises:
        WeightsError: there are no such weights, or they are damaged.
        ConfigError: there is no such device.
    """
    return Predictor(weights, device)
