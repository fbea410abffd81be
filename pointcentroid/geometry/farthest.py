"""Farthest point sampling (Gonzalez, 1985) in numpy, for predicting; `fps` is its twin in torch, for training.

On a batch of clouds of a thousand points it is faster than torch (`tools/bench.py`): all is done along rows that stay in the
processor's cache.
"""

from __future__ import annotations

import numpy as np


def farthest_point_sampling(points: np.ndarray, count: int) -> np.ndarray:
    """Pick `count` points of each cloud, each one farthest from those before it, from the one farthest from the mean on.

    The same picks as `pointcentroid.geometry.fps.farthest_point_sampling`, apart from near ties.

    Args:
        points: (B, N, 3) float coordinates.
        count: how many to pick, 1 <= count <= N.

    Returns:
        (B, count) int64 indices into each cloud, in the order they were picked.

    Raises:
        ValueError: `count` is out of range, or `points` is not (B, N, 3) floats.
    """
    if points.ndim != 3 or points.shape[2] != 3:
        raise ValueError(f"points must have shape (B, N, 3), found {points.shape}")
    if points.dtype.kind != "f":
        raise ValueError(f"points (B, N, 3) must be floats, found {points.dtype}")
    batch, total, _ = points.shape
    if not 1 <= count <= total:
        raise ValueError(f"cannot pick {count} farthest points out of {total}")
    x, y, z = np.ascontiguousarray(points.transpose(2, 0, 1))
    rows = np.arange(batch)
    away = np.square(points - points.mean(axis=1, keepdims=True)).sum(axis=2)
    nearest = np.full((batch, total), np.inf, dtype=points.dtype)
    distance, offset = np.empty_like(nearest), np.empty_like(nearest)
    picked = np.empty((batch, count), dtype=np.int64)
    for step in range(count):
        current = picked[:, step] = away.argmax(axis=1)
        np.subtract(x, x[rows, current][:, None], out=distance)
        np.square(distance, out=distance)
        for plane in (y, z):
            np.subtract(plane, plane[rows, current][:, None], out=offset)
            np.square(offset, out=offset)
            np.add(distance, offset, out=distance)
        away = np.minimum(nearest, distance, out=nearest)
    return picked


def farthest_first(points: np.ndarray, count: int) -> np.ndarray:
    """Reorder clouds so that their first `count` points are the farthest-point picks; the others follow as they were.

    Args:
        points: (B, N, 3) float coordinates.
        count: length of the farthest-point prefix; more than N counts as N.

    Returns:
        (B, N, 3), the same points.
    """
    batch, total, _ = points.shape
    picked = farthest_point_sampling(points, min(count, total))
    rank = np.tile(np.arange(total, 2 * total), (batch, 1))
    # Of a cloud whose points coincide, one may be picked again: its first pick counts.
    np.minimum.at(rank, (np.arange(batch)[:, None], picked), np.arange(picked.shape[1]))
    return np.take_along_axis(points, rank.argsort(axis=1, kind="stable")[:, :, None], axis=1)
