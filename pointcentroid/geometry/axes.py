"""Which axis points up, and the rotations that bring it to z."""

from __future__ import annotations

import numpy as np

UP_AXES = ("x", "-x", "y", "-y", "z", "-z")
"""The six axes that can point up, in the order that orientation nets score them."""

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


def transformed(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Apply a (4, 4) affine transform to (N, 3) points."""
    return points @ transform[:3, :3].T + transform[:3, 3]
