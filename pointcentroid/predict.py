"""A file or an array in, a prediction out. The predictor owns preprocessing, orientation and batching."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pointcentroid.config import ClassifierConfig, EncoderConfig, from_dict, to_dict
from pointcentroid.errors import ConfigError
from pointcentroid.geometry.fps import farthest_first
from pointcentroid.geometry.orientation import TO_Z_UP, UP_AXES
from pointcentroid.geometry.sampling import Frame, preprocess_in_frame
from pointcentroid.io.shape import Shape
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.nn.encoder import CentroidEncoder, compose
from pointcentroid.orientation import CONFIDENCE_WEIGHT, UPRIGHT_POINTS, UpCandidate, UprightNet
from pointcentroid.prepare import Prepared, Preparer, Source, as_shape, prepare, source_name, standard_up
from pointcentroid.results import Explanation, Failure, Hierarchy, Prediction, StageExplanation
from pointcentroid.weights import find_weights, load_weights

Up = Literal["auto", "x", "-x", "y", "-y", "z", "-z"]


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
        changes: fields of `EncoderConfig` to change in the trained net, such as `initialiser="voxel"`; for looking at what
            they do, not for accuracy.

    Raises:
        WeightsError: there are no such weights, or they are damaged, or they have no tensors for the changed net.
        ConfigError: there is no such device, or a change is unknown or out of range.
    """

    def __init__(self, weights: str | Path = "small", device: str = "auto", **changes: Any) -> None:
        self.device = choose_device(device)
        tensors, self.card = load_weights(find_weights(weights))
        if changes and isinstance(self.card.model, ClassifierConfig):
            encoder = from_dict(EncoderConfig, to_dict(self.card.model.encoder) | changes, "encoder")
            self.card = dataclasses.replace(self.card, model=dataclasses.replace(self.card.model, encoder=encoder))
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
    def explain(self, source: Source, *, up: Up = "auto", seed: int | None = None) -> Explanation:
        """Classify one shape and show the centroids it was seen through.

        Args:
            source: see `__call__`.
            up: see `__call__`.
            seed: of the sampling, to see other points of the same surface; the one of predictions if None.

        Raises:
            ReadError: the source cannot be read, or holds no usable geometry.
            MissingExtraError: the format needs an optional dependency.
        """
        _check_up(up)
        settings = self.card.preprocess if seed is None else dataclasses.replace(self.card.preprocess, seed=seed)
        shape = as_shape(source)
        points, frame = preprocess_in_frame(shape.vertices, shape.faces, settings.sample, settings.seed)
        prepared = Prepared(source_name(source), points[None], standard_up(source))
        prediction = self._classify([prepared], up, top=5)[0]
        turn = TO_Z_UP[prediction.up]
        cloud = self._ordered(torch.from_numpy(prepared.clouds).to(self.device))[:, : settings.points]
        cloud = cloud @ torch.from_numpy(turn).to(cloud).T
        seen = hierarchy(self.net.encoder, cloud, shape, frame, turn)
        return Explanation(**vars(seen), prediction=prediction)

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
        given = [up if up != "auto" else item.standard_up for item in items]
        looks = self._looks(clouds[:, 0], given)
        logits, features = self._run(clouds[[look.row for look in looks]], [look.axis for look in looks])
        scores = torch.tensor([look.log_probability for look in looks])
        scores += CONFIDENCE_WEIGHT * logits.softmax(dim=2).mean(dim=1).amax(dim=1).log().cpu()
        best: dict[int, int] = {}
        for number, look in enumerate(looks):
            if look.row not in best or scores[number] > scores[best[look.row]]:
                best[look.row] = number
        probabilities = (logits / self.card.temperature).softmax(dim=2).mean(dim=1).cpu()
        features = features.cpu().numpy()
        return [
            self._prediction(item, looks[best[row]].axis, probabilities[best[row]], features[best[row]], top)
            for row, item in enumerate(items)
        ]

    def _looks(self, clouds: Tensor, given: list[str | None]) -> list[UpCandidate]:
        """The ways to look at each cloud: one where the axis is given or certain, several where it is doubtful."""
        looks = [UpCandidate(row, axis, 0.0) for row, axis in enumerate(given) if axis is not None]
        unknown = [row for row, axis in enumerate(given) if axis is None]
        if unknown:
            found = self._upright.candidates(clouds[unknown])
            looks += [candidate._replace(row=unknown[candidate.row]) for candidate in found]
        return looks

    def _ordered(self, clouds: Tensor) -> Tensor:
        """Put clouds in farthest-point order, as far as the nets need it."""
        seen, sample = self.card.preprocess.points, clouds.shape[1]
        prefix = max(self.card.model.seeds, UPRIGHT_POINTS, seen if seen < sample else 0)
        return farthest_first(clouds, prefix)

    def _run(self, clouds: Tensor, axes: list[str]) -> tuple[Tensor, Tensor]:
        """(B, V, N, 3) clouds with the given axes up -> (B, V, classes) logits and (B, F) features."""
        batch, votes = clouds.shape[:2]
        matrices = torch.from_numpy(np.stack([TO_Z_UP[axis] for axis in axes])).to(clouds)
        seen = clouds[:, :, : self.card.preprocess.points]
        turned = torch.einsum("bij,bvnj->bvni", matrices, seen).flatten(0, 1)
        features = self.net.features(turned, ordered=True)
        logits = self.net.head(features)
        return logits.view(batch, votes, -1), features.view(batch, votes, -1).mean(dim=1)

    def _prediction(self, item: Prepared, up: str, probability: Tensor, feature: np.ndarray, top: int) -> Prediction:
        points = min(item.clouds.shape[1], self.card.preprocess.points)
        best = probability.topk(min(top, len(self.classes)))
        ranked = [(self.classes[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
        return Prediction(item.name, ranked[0][0], ranked[0][1], ranked, up, points, feature)


def hierarchy(encoder: CentroidEncoder, cloud: Tensor, shape: Shape, frame: Frame, turn: np.ndarray) -> Hierarchy:
    """The centroids an encoder sees one cloud through.

    Args:
        encoder: in evaluation mode.
        cloud: (1, N, 3) preprocessed, z up, in farthest-point order.
        shape: what it was made of.
        frame: where it lies in the shape's frame.
        turn: (3, 3) the rotation that then put z up.
    """
    outputs = encoder(cloud, ordered=True, assignments=True)
    stages = [
        StageExplanation(*(t[0].cpu().numpy() for t in (out.positions, out.features, out.assignment, shares)))
        for out, shares in zip(outputs, compose(outputs), strict=True)
    ]
    transform = np.eye(4)
    transform[:3, :3] = turn / frame.scale
    transform[:3, 3] = -transform[:3, :3] @ frame.centre
    return Hierarchy(cloud[0].cpu().numpy(), stages, transform, shape.vertices, shape.faces)


def _check_up(up: str) -> None:
    if up != "auto" and up not in UP_AXES:
        raise ConfigError(f"up must be 'auto' or one of {', '.join(UP_AXES)}, found {up!r}")


def load(weights: str | Path = "small", device: str = "auto", **changes: Any) -> Predictor:
    """Load a predictor: `load("small")("chair.off").label`.

    Args:
        weights: the name of shipped weights or a weights file.
        device: `"auto"`, or a torch device such as `"cpu"` or `"cuda:0"`.
        changes: see `Predictor`.

    Raises:
        WeightsError: there are no such weights, or they are damaged.
        ConfigError: there is no such device.
    """
    return Predictor(weights, device, **changes)
