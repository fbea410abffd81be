"""What a predictor asks of a net, and what nets in both runtimes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

from pointcentroid.config import ClassifierConfig
from pointcentroid.geometry.farthest import farthest_first
from pointcentroid.geometry.nearest import nested_neighbours
from pointcentroid.weights import KnownScale, WeightsCard

Lists = Mapping[tuple[int, int], np.ndarray]
"""Neighbours by the names of `searches`, (B, R, K) int64 each."""


class Answer(NamedTuple):
    """What a net says of clouds.

    Attributes:
        logits: (B, classes) float32.
        features: (B, F) float32 global features.
        known: (B,) float32 logit of being upright and of one of the classes; NaN where the net has no such output.
    """

    logits: np.ndarray
    features: np.ndarray
    known: np.ndarray


class PredictingNet(Protocol):
    """A trained classifier, ready to be asked."""

    card: WeightsCard

    @property
    def feature_dim(self) -> int:
        """Channels of the global feature."""
        ...

    def __call__(self, clouds: np.ndarray, lists: Lists | None = None) -> Answer:
        """Score clouds.

        Args:
            clouds: (B, N, 3) float32, preprocessed, z up, in farthest-point order; N > `card.model.seeds`.
            lists: what `neighbours` found in them, however they lay; without, they are found in each look anew.
        """
        ...

    def neighbours(self, clouds: np.ndarray) -> Lists:
        """Find what the net would search in clouds, see `neighbour_lists`."""
        ...


def at_least(clouds: np.ndarray, count: int) -> np.ndarray:
    """Repeat the points of (B, N, 3) clouds until there are `count`; larger clouds are returned as they are.

    Exported graphs know no clouds of fewer points than a net has centroids. In farthest-point order the repeated points come
    last, so that centroids are different points as long as there are any.
    """
    total = clouds.shape[1]
    return clouds if total >= count else np.tile(clouds, (1, -(-count // total), 1))[:, :count]


def ordered(clouds: np.ndarray, card: WeightsCard) -> np.ndarray:
    """Put clouds in farthest-point order, as far as a net needs it, and keep the points that it sees.

    Args:
        clouds: (B, N, 3) preprocessed.
        card: of the net.

    Returns:
        (B, N', 3), more points than `card.model.seeds`; as many where the net sees no more.
    """
    seeds, seen = card.model.seeds, card.preprocess.points
    first = farthest_first(clouds, max(seeds, seen if seen < clouds.shape[1] else 0))
    if seen == seeds <= clouds.shape[1]:  # every point is a centroid
        return first[:, :seen]
    return at_least(first[:, : max(seen, seeds + 1)], seeds + 1)


def searches(card: WeightsCard) -> dict[tuple[int, int], tuple[int, int | None]]:
    """The neighbours that a classifier asks for, where that is known before it runs: centroids are farthest points and list.

    Args:
        card: of the net.

    Returns:
        (level, K) -> (R, C): of the first R points, the K nearest of the first C, of all where that is None. Level 0 are the
        points, level s the centroids of the s-th stage.
    """
    if not isinstance(card.model, ClassifierConfig):
        return {}
    encoder = card.model.encoder
    if encoder.initialiser != "fps" or encoder.centroid_position != "seed" or encoder.side != "centroids":
        return {}
    wanted: dict[tuple[int, int], tuple[int, int | None]] = {}
    columns: int | None = None
    for level, stage in enumerate(encoder.stages):
        asked = [(level, stage.neighbours, columns)]
        asked += [(level + 1, stage.neighbours, stage.centroids)] * (stage.local_blocks > 0)
        asked += [(level + 1, stage.block_neighbours, stage.centroids)] * (stage.blocks > 0 and stage.block_neighbours > 0)
        for where, count, among in asked:
            rows, _ = wanted.get((where, count), (0, None))
            wanted[where, count] = max(rows, stage.centroids), among
        columns = stage.centroids
    # A cloud has more points than seeds; where that is not enough for the first lists, their length is unknown.
    return wanted if encoder.stages[0].neighbours <= encoder.seeds + 1 else {}


def neighbour_lists(clouds: np.ndarray, card: WeightsCard) -> Lists:
    """What a net would search in clouds, found once for all looks at them: however they are turned, neighbours stay so.

    Args:
        clouds: (B, N, 3) in farthest-point order, N > `card.model.seeds`.
        card: of the net.
    """
    total = clouds.shape[1]
    return nested_neighbours(clouds, {name: (rows, among or total) for name, (rows, among) in searches(card).items()})


def list_name(level: int, count: int) -> str:
    """What an exported graph calls the list of `searches`."""
    return f"nearest_{level}_{count}"


def familiarity(answer: Answer, scale: KnownScale) -> np.ndarray:
    """(B,) how like the shapes of its classes a net finds clouds, in [0, 1]; NaN where it does not say."""
    return 1 / (1 + np.exp(scale.threshold - answer.known - scale.energy_weight * energy(answer.logits)))


def energy(logits: np.ndarray) -> np.ndarray:
    """(B, C) logits -> (B,) float64 log(sum(exp(logits)))."""
    return logits.max(axis=1).astype(np.float64) - log_softmax(logits).max(axis=1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """(..., C) logits -> (..., C) float64 logarithms of probabilities."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
