"""The solids that examples and variants are built of."""

from __future__ import annotations

import numpy as np
import trimesh
from trimesh.creation import box, cylinder, revolve

Mesh = trimesh.Trimesh
Place = tuple[float, float, float]


def block(size: Place, at: Place) -> Mesh:
    """A box of a size, centred at a place."""
    part = box(size)
    part.apply_translation(at)
    return part


def rod(radius: float, start: Place, end: Place) -> Mesh:
    """A round bar between two places."""
    return cylinder(radius, segment=[start, end], sections=24)


def profile(*points: tuple[float, float]) -> Mesh:
    """A surface of revolution about z from (radius, height) pairs."""
    return revolve(np.array(points, dtype=float), sections=48)


def hull(corners: list[Place]) -> Mesh:
    """The convex hull of some places."""
    return trimesh.convex.convex_hull(np.array(corners))
