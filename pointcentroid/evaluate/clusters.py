"""Ways to cut a cloud into as many clusters: by a net's centroids, and by two that learn nothing, to hold them against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pointcentroid.geometry.neighbours import nearest_rows
from pointcentroid.predict.explain import Explanation

_ROUNDS = 100


@dataclass(frozen=True)
class Clusters:
    """A cloud in clusters.

    Attributes:
        by: `net`, `cells` or `k-means`.
        shares: (P, M) of each point in each cluster.
        hard: (P,) the cluster with the largest share, -1 for none.
        centres: (M, 3).
    """

    by: str
    shares: np.ndarray
    hard: np.ndarray
    centres: np.ndarray


def clusterings(explanation: Explanation, stage: int) -> list[Clusters]:
    """The clusters of a stage's centroids, then as many Voronoi cells and k-means clusters of the same points.

    Args:
        explanation: what a net saw.
        stage: 0 for the first; -1 for the last.
    """
    seen = explanation.stages[stage]
    count = len(seen.positions)
    net = Clusters("net", seen.composed, seen.hard, seen.positions)
    return [net, voronoi_cells(explanation.points, count), k_means(explanation.points, count)]


def voronoi_cells(points: np.ndarray, count: int) -> Clusters:
    """Every point to the nearest of the first `count` points: no net at all, where points are in farthest-point order.

    Args:
        points: (P, 3).
        count: how many cells; more than P count as P.
    """
    centres = points[:count]
    return _whole("cells", nearest_rows(points, centres), centres)


def k_means(points: np.ndarray, count: int) -> Clusters:
    """k-means on coordinates: Lloyd's rounds until nothing changes, from the first `count` points.

    Of points in farthest-point order, those are a spread-out start, the same for every run.

    Args:
        points: (P, 3).
        count: how many clusters; more than P count as P.
    """
    points = points.astype(np.float64)
    centres = points[:count].copy()
    hard = np.full(len(points), -1)
    for _ in range(_ROUNDS):
        distance = (centres**2).sum(axis=1) - 2 * points @ centres.T  # |p|^2 is the same for all centres
        before, hard = hard, distance.argmin(axis=1)
        if np.array_equal(before, hard):
            break
        sizes = np.bincount(hard, minlength=len(centres))
        sums = np.stack([np.bincount(hard, axis, len(centres)) for axis in points.T], axis=1)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
    return _whole("k-means", hard, centres)


def _whole(by: str, hard: np.ndarray, centres: np.ndarray) -> Clusters:
    """Clusters of which each point is in one."""
    return Clusters(by, np.eye(len(centres))[hard], hard, centres)
