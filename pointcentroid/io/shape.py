"""What every reader returns: a shape in its file's own frame and units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pointcentroid.errors import ReadError

MIN_POINTS = 16
"""A shape of fewer points has no recognisable form; reading it is an error."""

MAX_ELEMENTS = 100_000_000
"""No file may declare more vertices or faces than this."""

MAX_INSTANCES = 100_000
"""No file may place more parts than this."""

MAX_UNPACKED = 2**30
"""Nothing compressed may become more bytes than this."""

_LARGEST = 1e150  # squares of larger coordinates overflow
_AREA_CHUNK = 1000


@dataclass(frozen=True)
class Shape:
    """A triangle mesh or a point cloud.

    Attributes:
        vertices: (V, 3) float64 coordinates.
        faces: (F, 3) int64 vertex indices, or None for a point cloud.
    """

    vertices: np.ndarray
    faces: np.ndarray | None = None


class Part(NamedTuple):
    """Something that a scene places.

    Attributes:
        name: as in the file.
        vertices: (V, 3) float64 coordinates.
        faces: (F, 3) int64 vertex indices; none of what is only points.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray


def meshes_of(parts: list[Part]) -> list[Part]:
    """Those parts that have triangles."""
    return [part for part in parts if len(part.faces)]


def joined(path: object, parts: list[Part]) -> Shape:
    """Put all parts in one shape, in their order. Points count only where there are no triangles.

    Args:
        path: named in errors.
        parts: see `Part`.

    Raises:
        ReadError: there is no usable geometry, see `checked`.
    """
    chosen = meshes_of(parts) or parts
    if not chosen:
        return checked(path, np.empty((0, 3)))
    starts = np.cumsum([0, *(len(part.vertices) for part in chosen[:-1])])
    faces = np.concatenate([part.faces + start for part, start in zip(chosen, starts, strict=True)])
    return checked(path, np.concatenate([part.vertices for part in chosen]), faces)


def checked(
    path: object,
    vertices: np.ndarray,
    faces: np.ndarray | None = None,
    line_of: Callable[[int], int | None] | None = None,
) -> Shape:
    """Build a shape, or say why these arrays are none.

    A mesh without faces but with vertices is a point cloud. Points of three NaN are left out of it: depth cameras write them
    where nothing came back. Vertices that no face uses are left out of the checks of a mesh: they are not part of its
    surface.

    Args:
        path: named in errors.
        vertices: (V, 3) coordinates.
        faces: (F, 3) indices, or None.
        line_of: says in which line of a text a vertex stands, from 1, if that is known; asked only for an error.

    Raises:
        ReadError: there is no geometry, a coordinate is not finite or absurdly large, a face names a vertex that is not
            there, there are fewer than `MIN_POINTS` points, or everything lies in one point or has no area.
    """
    vertices = np.ascontiguousarray(vertices, dtype=np.float64)
    if len(vertices) and (vertices.ndim != 2 or vertices.shape[1] != 3):
        raise ReadError(path, f"expected three coordinates a point, found numbers of shape {vertices.shape}")
    if len(vertices) == 0:
        raise ReadError(path, "holds no geometry: no vertices and no points")
    if faces is not None and len(faces) == 0:
        faces = None
    if faces is not None:
        faces = np.ascontiguousarray(faces, dtype=np.int64)
        if faces.ndim != 2 or faces.shape[1] != 3:
            raise ReadError(path, f"expected three corners a face, found numbers of shape {faces.shape}")
        low, high = int(faces.min()), int(faces.max())
        if low < 0 or high >= len(vertices):
            wrong = low if low < 0 else high
            raise ReadError(path, f"a face names vertex {wrong}, but the vertices are 0..{len(vertices) - 1}")
        # Most meshes are sound, and then there is no need to look vertex by vertex at what the faces use.
        rows = None if np.abs(vertices).max() <= _LARGEST else faces.ravel()
    else:
        # Nearly all clouds are whole, and one column is looked through in no time.
        rows = np.flatnonzero(~np.isnan(vertices).all(axis=1)) if np.isnan(vertices[:, 0]).any() else None
        held = len(vertices) if rows is None else len(rows)
        if not held:
            raise ReadError(path, f"holds no geometry: a coordinate of each of its {len(vertices)} points is NaN, no number")
        if held < MIN_POINTS:
            raise ReadError(path, f"holds only {held} points and no faces; at least {MIN_POINTS} points are needed")
    used = vertices if rows is None else vertices[rows]
    if not np.isfinite(used).all():
        bad = int(np.flatnonzero(~np.isfinite(used).all(axis=1))[0])
        vertex = bad if rows is None else int(rows[bad])
        found = " ".join(f"{x:g}" for x in vertices[vertex])
        line = line_of(vertex) if line_of else None
        raise ReadError(path, f"vertex {vertex} is ({found}); every coordinate must be a finite number", line)
    largest = max(used.max(), -used.min())
    if largest > _LARGEST:
        raise ReadError(path, f"holds a coordinate of {largest:g}, beyond any real shape; the file is damaged")
    if not any(np.ptp(column) for column in used.T):  # column by column: a tenth of the time of used.max(axis=0)
        raise ReadError(path, f"all {len(used)} points coincide; there is no shape to see")
    if faces is not None and _has_no_area(vertices, faces):
        raise ReadError(path, "no face has an area; the surface cannot be sampled")
    return Shape(used if faces is None else vertices, faces)


def _has_no_area(vertices: np.ndarray, faces: np.ndarray) -> bool:
    for start in range(0, len(faces), _AREA_CHUNK):  # nearly always the first chunk holds a face with an area
        a, b, c = (vertices[faces[start : start + _AREA_CHUNK, k]] for k in range(3))
        first, second = b - a, c - a
        size = max(np.abs(first).max(), np.abs(second).max()) or 1.0
        if np.any(np.cross(first / size, second / size)):
            return False
    return True
