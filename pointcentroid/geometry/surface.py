"""Triangles one by one: points that know their face, and which faces lie beside each other."""

from __future__ import annotations

import numpy as np

from pointcentroid.geometry.sampling import sample_faces


def surface_points(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw points as `sampling.sample_surface` does, in the frame of the vertices, and say which face each lies on.

    Args:
        vertices: (V, 3) float64 coordinates.
        faces: (F, 3) indices of vertices.
        count: how many points to draw.
        rng: source of randomness.

    Returns:
        (count, 3) float64 points in the frame of `vertices`, and (count,) int64 rows of `faces`.

    Raises:
        ValueError: no triangle has an area.
    """
    points, face, frame = sample_faces(vertices, faces, count, rng)
    return frame.left(points), face


def face_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F,) areas of triangles."""
    return np.linalg.norm(face_normals(vertices, faces), axis=1) / 2


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F, 3) normals of triangles, twice as long as their area is large."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return np.cross(b - a, c - a)


def face_neighbours(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of faces that share an edge; vertices at the same place are one vertex here, whatever their numbers.

    Where more than two faces meet at an edge, they are chained, so that all of them are connected.

    Args:
        vertices: (V, 3) coordinates.
        faces: (F, 3) indices of vertices.

    Returns:
        (E, 2) int64 pairs of rows of `faces`, and (E,) lengths of the edges that they share.
    """
    corner = _places(vertices)[faces]
    edges = np.sort(corner[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    owner = np.repeat(np.arange(len(faces)), 3)
    real = edges[:, 0] != edges[:, 1]
    edges, owner = edges[real], owner[real]
    order = np.lexsort((owner, edges[:, 1], edges[:, 0]))
    edges, owner = edges[order], owner[order]
    same = (edges[1:] == edges[:-1]).all(axis=1) & (owner[1:] != owner[:-1])
    pairs = np.stack([owner[:-1][same], owner[1:][same]], axis=1)
    return pairs, np.linalg.norm(np.subtract(*vertices[edges[1:][same]].transpose(1, 0, 2)), axis=1)


def _places(vertices: np.ndarray) -> np.ndarray:
    """(V,) for each vertex, the number of one vertex at its place, the same for all that are there."""
    order = np.lexsort(vertices.T)
    ordered = vertices[order]
    first = np.ones(len(vertices), dtype=bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    places = np.empty(len(vertices), dtype=np.int64)
    places[order] = order[first][np.cumsum(first) - 1]
    return places
