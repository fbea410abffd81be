"""Nearest neighbours in numpy, for predicting; `neighbours` is its twin in torch, for training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_HELD = 2**18  # distances held at once, however large the clouds are: 1 MiB
_CHUNK = 2**16  # distances made at once, 256 KiB
_GROUPS = 8  # values, far apart in a row, that are judged by their least one

_NUMBER = 0xFFFFFFFF


def nested_neighbours(
    points: np.ndarray, wanted: Mapping[tuple[int, int], tuple[int, int]]
) -> dict[tuple[int, int], np.ndarray]:
    """Neighbours among prefixes of clouds, from distances that are computed once.

    Args:
        points: (B, N, 3) float32 coordinates.
        wanted: by a name of one's own, (level, K): how many rows R and columns C. Each of the first R points lists the K
            nearest of the first C; more than there are counts as all.

    Returns:
        For each name (B, R, min(K, C)) int64, nearest first; of equally near ones (in float32) the first come first: what
        `neighbours.nearest_neighbours` finds.
    """
    total = points.shape[1]
    sizes = {name: (min(rows, total), min(columns, total)) for name, (rows, columns) in wanted.items()}
    found = {name: np.empty((len(points), rows, min(name[1], columns)), np.int64) for name, (rows, columns) in sizes.items()}
    most = max((rows for rows, _ in sizes.values()), default=0)
    together = max(1, _HELD // total)
    for number, cloud in enumerate(points):
        for start in range(0, most, together):
            distance = _distances(cloud[start : min(start + together, most)], cloud)
            for name, (_, columns) in sizes.items():
                part = found[name][number, start : start + len(distance)]
                part[:] = nearest_columns(distance[: len(part), :columns], part.shape[1])
    return found


def nearest_columns(distance: np.ndarray, count: int) -> np.ndarray:
    """Where the least values of each row are.

    Args:
        distance: (R, C) float32, none negative.
        count: how many, at most C.

    Returns:
        (R, count) int64 columns, the least value first; of equal ones the first come first.
    """
    columns = distance.shape[1]
    if columns % _GROUPS or columns < 4 * _GROUPS * count:
        return _least(_keys(distance), count)
    # The least of all lie in the groups whose own least ones are least: most values are looked at but once.
    width = columns // _GROUPS
    least = distance.reshape(len(distance), _GROUPS, width).min(axis=1)
    keys = _keys(least)
    keys.partition(count - 1, axis=1)
    chosen, bound = keys[:, :count] & _NUMBER, keys[:, count - 1 : count] >> 32
    numbers = (chosen[:, None] + width * np.arange(_GROUPS)[:, None]).reshape(len(distance), -1)
    kept = distance.ravel().take(numbers + columns * np.arange(len(distance))[:, None])
    found = _least(_keys(kept, numbers), count)
    # Of groups that are equally near, another may hold the first of equally near points.
    tied = np.flatnonzero((least.view(np.int32) <= bound.astype(np.int32)).sum(axis=1) > count)
    if len(tied):
        found[tied] = _least(_keys(distance[tied]), count)
    return found


def _distances(queries: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(R, 3) and (N, 3) -> (R, N) squared distances, rounded as in `neighbours`."""
    planes = np.ascontiguousarray(points.T)
    made = np.empty((len(queries), len(points)), points.dtype)
    rows = max(1, _CHUNK // len(points))
    offset = np.empty((rows, len(points)), points.dtype)
    for start in range(0, len(queries), rows):
        part = made[start : start + rows]
        for axis, plane in enumerate(planes):
            to = part if axis == 0 else offset[: len(part)]
            np.subtract(queries[start : start + rows, axis : axis + 1], plane, out=to)
            np.multiply(to, to, out=to)
            if axis:
                np.add(part, to, out=part)
    return made


def _keys(distance: np.ndarray, numbers: np.ndarray | None = None) -> np.ndarray:
    """int64 keys that sort by distance, then by number: the bits of a positive float sort as it does."""
    keys = distance.view(np.int32).astype(np.int64)
    keys <<= 32
    keys |= np.arange(distance.shape[1]) if numbers is None else numbers
    return keys


def _least(keys: np.ndarray, count: int) -> np.ndarray:
    """(R, C) keys, which are lost -> (R, count) numbers of the least ones, the least first."""
    if count < keys.shape[1]:
        keys.partition(count - 1, axis=1)
    least = keys[:, :count].copy()
    least.sort(axis=1)
    least &= _NUMBER
    return least
