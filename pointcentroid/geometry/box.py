"""The smallest box around a cloud, whose axes are those of many things that people make."""

from __future__ import annotations

from functools import cache
from itertools import permutations, product

import numpy as np

from pointcentroid.geometry.axes import rotations

_SAMPLES = 600
_STEPS = np.deg2rad((12.0, 4.0, 1.3, 0.4))
_STARTS = 4
_POINTS = 512


def box_frame(cloud: np.ndarray) -> np.ndarray:
    """The rotation that turns a cloud into the axes of the box of least surface around it.

    Of the 24 that do, it is the one by the smallest angle. The box is found by trying rotations that cover all boxes evenly,
    and then finer and finer ones about the best of these, so it is not certainly the smallest.

    Args:
        cloud: (N, 3) points. Of more than 512, the first are looked at.

    Returns:
        (3, 3) float64, R; `cloud @ R.T` is the cloud in the axes of its box.
    """
    points = np.asarray(cloud[:_POINTS], dtype=np.float64)
    rough = _rough()
    surfaces = _surfaces(points, rough)
    found: list[tuple[float, np.ndarray]] = []
    for start in np.argsort(surfaces, kind="stable")[:_STARTS]:
        frame = rough[start]
        for steps in _fine():
            tried = steps @ frame
            surfaces = _surfaces(points, tried)
            frame = tried[surfaces.argmin()]
        found.append((float(surfaces.min()), frame))
    return _nearest_to_identity(min(found, key=lambda entry: entry[0])[1][None])[0]


def angle(rotation: np.ndarray) -> float:
    """By how many degrees a (3, 3) rotation turns."""
    return float(np.rad2deg(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


def _surfaces(points: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """(R,) half the surface of the box around (N, 3) points in the axes of each of (R, 3, 3) rotations."""
    along = points @ frames.reshape(-1, 3).T
    x, y, z = (along.max(axis=0) - along.min(axis=0)).reshape(-1, 3).T
    return x * y + y * z + x * z


@cache
def _rough() -> np.ndarray:
    """(R, 3, 3) rotations that cover all boxes evenly; the first is the identity."""
    # Super-Fibonacci spirals (Alexa 2022, "Super-Fibonacci Spirals: Fast, Low-Discrepancy Sampling of SO(3)").
    golden, other = np.sqrt(2), 1.533751168755204288118041
    s = np.arange(_SAMPLES) + 0.5
    inner, outer = np.sqrt(s / _SAMPLES), np.sqrt(1 - s / _SAMPLES)
    alpha, beta = 2 * np.pi * s / golden, 2 * np.pi * s / other
    quaternions = np.stack(
        [inner * np.sin(alpha), inner * np.cos(alpha), outer * np.sin(beta), outer * np.cos(beta)], axis=1
    )
    return np.concatenate([np.eye(3)[None], _nearest_to_identity(rotations(quaternions))])


@cache
def _fine() -> list[np.ndarray]:
    """For each of `_STEPS`, (125, 3, 3) rotations with up to so much about each axis, the least first: the identity."""
    # Of equal boxes the first is taken: that of the least turn.
    grid = np.array(sorted(product((-1, -0.5, 0, 0.5, 1), repeat=3), key=lambda turn: sum(x * x for x in turn)))
    halves = [grid * step / 2 for step in _STEPS]
    return [rotations(np.concatenate([half, np.ones((len(half), 1))], axis=1)) for half in halves]


@cache
def _of_the_cube() -> np.ndarray:
    """(24, 3, 3), the rotations that only change the order and the signs of coordinates."""
    every = [np.eye(3)[list(order)] * signs for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]
    return np.stack([matrix for matrix in every if np.linalg.det(matrix) > 0])


def _nearest_to_identity(frames: np.ndarray) -> np.ndarray:
    """(R, 3, 3) rotations -> of the 24 that lead to the same box, those by the smallest angles."""
    cube = _of_the_cube()
    best = np.einsum("cij,rji->rc", cube, frames).argmax(axis=1)  # the largest trace is the smallest angle
    return cube[best] @ frames
