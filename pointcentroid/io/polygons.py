"""Polygons as triangles."""

from __future__ import annotations

import numpy as np


def fans(numbers: np.ndarray, faces: int) -> np.ndarray | None:
    """Split polygons into triangles around each one's first corner.

    Args:
        numbers: (K,) int64, of each polygon how many corners it has, and then these.
        faces: how many polygons there are.

    Returns:
        (F, 3) corners of triangles; None where the numbers do not end with the last polygon.
    """
    sizes, starts, position = [], [], 0
    for _ in range(faces):
        if position >= len(numbers):
            return None
        size = int(numbers[position])
        if not 0 <= size <= len(numbers):
            return None
        sizes.append(size)
        starts.append(position + 1)
        position += 1 + size
    if position != len(numbers):
        return None
    extra = np.maximum(np.array(sizes, dtype=np.int64) - 2, 0)  # corners and edges declared as faces have no triangles
    first = np.repeat(np.array(starts, dtype=np.int64), extra)
    step = np.arange(extra.sum()) - np.repeat(extra.cumsum() - extra, extra) + 1
    return np.stack([numbers[first], numbers[first + step], numbers[first + step + 1]], axis=1)
