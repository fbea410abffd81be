"""From shapes to clouds: the one preprocessing, for files, arrays and data sets alike."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pointcentroid.geometry.nearest import nested_neighbours

NEAR = 7
"""Of a point, itself among them: between it and those others are put."""


class Frame(NamedTuple):
    """How a preprocessed cloud lies in its file: `cloud = (point - centre) / scale`.

    Attributes:
        centre: (3,) float64, in the file's units.
        scale: the file's units in one unit of the cloud.
    """

    centre: np.ndarray
    scale: float

    def entered(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) points of the file in the frame of the cloud."""
        return (points - self.centre) / self.scale

    def left(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) points in the frame of the cloud, in the file's frame and units."""
        return points * self.scale + self.centre


def sample_surface(vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw points uniformly by area from a triangle mesh.

    Areas are computed in float64, after centring and scaling: coordinates of 1e11, which occur in ModelNet40, keep their
    digits. The point of a triangle is (1 - sqrt(r)) a + sqrt(r) (1 - s) b + sqrt(r) s c for uniform r and s (Osada et
    al., "Shape distributions", 2002).

    Args:
        vertices: (V, 3) coordinates.
        faces: (F, 3) indices of vertices.
        count: how many points to draw.
        rng: source of randomness.

    Returns:
        (count, 3) float64, centred and scaled but otherwise in the frame of `vertices`.

    Raises:
        ValueError: no triangle has an area.
    """
    return sample_faces(vertices, faces, count, rng)[0]


def sample_faces(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, Frame]:
    """What `sample_surface` draws, (count,) int64 rows of the faces that the points lie on, and where the points lay.

    Args:
        vertices: see `sample_surface`.
        faces: see `sample_surface`.
        count: see `sample_surface`.
        rng: see `sample_surface`.

    Raises:
        ValueError: no triangle has an area.
    """
    if not len(faces):
        raise ValueError("no triangle has an area: there are no triangles")
    # One row per axis: long contiguous rows are several times faster than columns of three. Vertices that no face uses
    # may lie anywhere, and never meet the others.
    planes = np.array(np.asarray(vertices).T, dtype=np.float64, order="C")
    box = _box(planes, faces)
    with np.errstate(over="ignore", invalid="ignore"):
        planes -= box.centre[:, None]
        planes /= box.scale
    x, y, z = planes
    a, b, c = faces.T
    xa, ya, za = x[a], y[a], z[a]
    x1, y1, z1 = x[b] - xa, y[b] - ya, z[b] - za
    x2, y2, z2 = x[c] - xa, y[c] - ya, z[c] - za
    area = np.sqrt((y1 * z2 - z1 * y2) ** 2 + (z1 * x2 - x1 * z2) ** 2 + (x1 * y2 - y1 * x2) ** 2)
    cumulative = area.cumsum()
    if not cumulative[-1] > 0:
        raise ValueError("no triangle has an area")
    # Divided by the total, the last entry is 1 and every draw in [0, 1) falls into a triangle that has an area.
    chosen = np.searchsorted(cumulative / cumulative[-1], rng.random(count), side="right")
    root, along = np.sqrt(rng.random(count)), rng.random(count)
    origin, second, third = (planes[:, faces[chosen, corner]] for corner in range(3))
    points = origin + root * (1 - along) * (second - origin) + root * along * (third - origin)
    return np.ascontiguousarray(points.T), chosen, box


def _box(planes: np.ndarray, faces: np.ndarray) -> Frame:
    """Middle and largest side of the box around the vertices, (3, V), that faces use."""
    used = np.zeros(planes.shape[1], dtype=bool)
    used[faces] = True
    low, high = planes.min(axis=1, where=used, initial=np.inf), planes.max(axis=1, where=used, initial=-np.inf)
    return Frame((low + high) / 2, float((high - low).max()) or 1.0)


def thin(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Take a uniformly random subset of a point cloud; smaller clouds are returned as they are.

    Args:
        points: (N, 3).
        count: the most points to keep.
        rng: source of randomness.

    Returns:
        (min(N, count), 3), in their original order.
    """
    if len(points) <= count:
        return points
    return points[np.sort(rng.choice(len(points), count, replace=False))]


def filled(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Add points to a small cloud, each somewhere between one of its points and a near neighbour of that.

    A net looks at a number of nearest neighbours: of few points they reach across what it learnt to see apart.

    Args:
        points: (N, 3).
        count: how many there shall be.
        rng: source of randomness.

    Returns:
        (max(N, count), 3), those that were there first.
    """
    missing = count - len(points)
    if missing <= 0:
        return points
    centred, frame = normalise(points)
    index = nested_neighbours(centred[None].astype(np.float32), {(0, NEAR): (len(points), len(points))})[0, NEAR][0]
    one = rng.integers(len(points), size=missing)
    other = index[one, rng.integers(index.shape[1], size=missing)]
    share = rng.random((missing, 1))
    return np.concatenate([points, frame.left((1 - share) * centred[one] + share * centred[other])])


def normalise(points: np.ndarray) -> tuple[np.ndarray, Frame]:
    """Centre a cloud on the mean of its points and scale it to radius 1.

    Args:
        points: (N, 3).

    Returns:
        (N, 3) float64 with zero mean and a largest norm of 1 (of 0, where all points coincide), and where it lay.
    """
    mean = points.mean(axis=0, dtype=np.float64)
    centred = points.astype(np.float64) - mean
    # The largest coordinate goes first, so that squares neither overflow nor vanish.
    largest = np.abs(centred).max() or 1.0
    centred /= largest
    radius = np.linalg.norm(centred, axis=1).max() or 1.0
    return centred / radius, Frame(mean, float(largest * radius))


def preprocess(vertices: np.ndarray, faces: np.ndarray | None, count: int, seed: int) -> np.ndarray:
    """Turn a shape into the cloud a net sees: sample, thin or fill, then normalise. The same input gives the same cloud.

    Args:
        vertices: (V, 3) coordinates.
        faces: (F, 3) indices of vertices, or None for a point cloud.
        count: points to sample from a mesh, to keep of a cloud, or to fill it up to.
        seed: of the randomness.

    Returns:
        (count, 3) float32; zero mean and radius 1, in the frame of the input.
    """
    return normalise(_drawn(vertices, faces, count, seed))[0].astype(np.float32)


def preprocess_in_frame(vertices: np.ndarray, faces: np.ndarray | None, count: int, seed: int) -> tuple[np.ndarray, Frame]:
    """What `preprocess` makes of the same arguments, and where it lies in the frame of the vertices."""
    cloud, inner = normalise(_drawn(vertices, faces, count, seed))
    outer = Frame(np.zeros(3), 1.0) if faces is None else _box(np.asarray(vertices, dtype=np.float64).T, faces)
    return cloud.astype(np.float32), Frame(outer.left(inner.centre), outer.scale * inner.scale)


def _drawn(vertices: np.ndarray, faces: np.ndarray | None, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return filled(thin(vertices, count, rng), count, rng) if faces is None else sample_surface(vertices, faces, count, rng)
