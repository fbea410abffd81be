"""Where a centroid's ball stands, and which centroid of one shape is the same part as one of another."""

from __future__ import annotations

import numpy as np

from pointcentroid.results import Hierarchy

_AROUND = 8  # points around a point that say how well it lies among its own
_CANDIDATES = 32  # points of a cluster that may carry its ball


def cluster_middles(points: np.ndarray, hard: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The mean of each cluster's points.

    Args:
        points: (P, 3).
        hard: (P,) the cluster of each point, -1 for none.
        positions: (M, 3) what to give for clusters without points.

    Returns:
        (M, 3).
    """
    held, total = hard >= 0, len(positions)
    sizes = np.bincount(hard[held], minlength=total)[:, None]
    sums = np.stack([np.bincount(hard[held], points[held, axis], total) for axis in range(3)], axis=1)
    return np.where(sizes > 0, sums / sizes.clip(1), positions)


def ball_places(points: np.ndarray, hard: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """Where the ball of each cluster stands: on the point of it that most of its own surround, of equals the most central.

    A centroid's own position need not lie among the points that go to it, nor need their mean: that of a ring is in the
    middle, where other points may be.

    Args:
        points: (P, 3).
        hard: (P,) the cluster of each point, -1 for none.
        middles: (M, 3) the means of the clusters, see `cluster_middles`; clusters without points stand there.

    Returns:
        (M, 3).
    """
    import torch

    from pointcentroid.geometry.neighbours import nearest_neighbours

    held = np.flatnonzero(hard >= 0)
    away = np.linalg.norm(points[held] - middles[hard[held]], axis=1)
    held = held[np.lexsort((*points[held].T, away, hard[held]))]  # cluster by cluster, the most central first
    numbers, first = np.unique(hard[held], return_index=True)
    place = np.arange(len(held)) - np.repeat(first, np.diff(np.append(first, len(held))))
    rows = held[place < _CANDIDATES]
    queries, cloud = torch.from_numpy(points[None, rows]), torch.from_numpy(points[None])
    near = nearest_neighbours(queries, cloud, _AROUND + 1)[0].numpy()
    own = (hard[near] == hard[rows, None]).sum(axis=1)
    best = rows[np.lexsort((place[place < _CANDIDATES], -own, hard[rows]))]
    chosen = middles.copy()
    chosen[numbers] = points[best[np.unique(hard[best], return_index=True)[1]]]
    return chosen


def same_parts(seen: Hierarchy, other: Hierarchy) -> np.ndarray:
    """Find the centroid of another shape that is the same part, for the centroids of the last stage.

    Both shapes lie in their normalised frames, facing the same way. Two centroids have in common the points of either
    cluster whose nearest point of the other shape is of the other; the pair with most in common is made first, and each
    centroid is in one pair. That compares places and sizes; positions alone find fewer parts, and features fewer still.

    Args:
        seen: what a net saw of a shape.
        other: what it, or another net, saw of another.

    Returns:
        (M,) int64 numbers of the other's centroids, -1 for what has none.
    """
    from pointcentroid.geometry.neighbours import nearest_rows

    here, there = seen.stages[-1], other.stages[-1]
    if here.positions is there.positions:  # the very same centroids, such as those of an original and of its patches
        return np.arange(len(here.positions))
    hard, others = here.hard, there.hard
    pairs = np.concatenate(
        [
            np.stack([hard, others[nearest_rows(seen.points, other.points)]], axis=1),
            np.stack([hard[nearest_rows(other.points, seen.points)], others], axis=1),
        ]
    )
    common = np.zeros((len(here.positions), len(there.positions)))
    np.add.at(common, tuple(pairs[(pairs >= 0).all(axis=1)].T), 1)
    middles, centres = (
        cluster_middles(shape.points, of, stage.positions)
        for shape, of, stage in ((seen, hard, here), (other, others, there))
    )
    # Of pairs with as many points in common the nearer one, whatever their numbers are.
    distance = np.linalg.norm(middles[:, None] - centres[None], axis=2)
    common = np.where(common > 0, common - distance / (1 + distance), 0)
    found = np.full(len(common), -1)
    while common.any():
        one, another = np.unravel_index(common.argmax(), common.shape)
        found[one] = another
        common[one], common[:, another] = 0, 0
    return found
