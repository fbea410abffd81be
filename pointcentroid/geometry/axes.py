"""Which way points up, and the rotations that bring it to z."""

from __future__ import annotations

import numpy as np

_ALONG = float(np.cos(np.deg2rad(2)))

UP_AXES = ("x", "-x", "y", "-y", "z", "-z")
"""The six axes that can point up."""

TO_Z_UP: dict[str, np.ndarray] = {
    "x": np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]], dtype=np.float64),
    "-x": np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], dtype=np.float64),
    "y": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=np.float64),
    "-y": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=np.float64),
    "z": np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float64),
    "-z": np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]], dtype=np.float64),
}
"""For each axis, the proper rotation R with R @ axis = z; `points @ R.T` is the cloud with z up.

The rotations are permutations with signs, so no digit is lost: y-up data become (x, -z, y).
"""


def rotations(quaternions: np.ndarray) -> np.ndarray:
    """(R, 4) quaternions (x, y, z, w), of any length but zero -> (R, 3, 3) rotations."""
    x, y, z, w = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)


def up_name(turn: np.ndarray) -> str:
    """What a rotation brings to z: an entry of `UP_AXES`, where it is within two degrees of one; else as `0.00,-0.71,0.71`.

    Args:
        turn: (3, 3), R; `points @ R.T` is the cloud with z up.
    """
    for name in UP_AXES:
        if TO_Z_UP[name][2] @ turn[2] > _ALONG:
            return name
    return ",".join(f"{round(number, 2) + 0.0:.2f}" for number in turn[2].tolist())


def transformed(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Apply a (4, 4) affine transform to (N, 3) points."""
    return points @ transform[:3, :3].T + transform[:3, 3]
