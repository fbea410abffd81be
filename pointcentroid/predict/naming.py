"""Centroids named by the parts of a labelled example: a file whose author modelled parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pointcentroid.geometry.axes import transformed
from pointcentroid.geometry.neighbours import nearest_rows
from pointcentroid.geometry.surface import surface_points
from pointcentroid.io.parts import PartedShape
from pointcentroid.results import Hierarchy

_SAMPLES = 20_000


def point_parts(seen: Hierarchy, parted: PartedShape) -> np.ndarray:
    """The part of each point that a net saw: that of the nearest of 20,000 samples, uniform by area, of the parts' surfaces.

    Args:
        seen: what the net saw of a file.
        parted: the same file, with its parts.

    Returns:
        (P,) int64 places in `parted.names`.
    """
    vertices, faces = parted.shape.vertices, parted.shape.faces
    assert faces is not None, "parts are told apart by faces"
    samples, face = surface_points(transformed(vertices, seen.transform), faces, _SAMPLES, np.random.default_rng(0))
    return parted.parts[face[nearest_rows(seen.points, samples.astype(np.float32))]]


@dataclass(frozen=True)
class Labelled:
    """A shape that lends names.

    Attributes:
        points: (P, 3) in the frame the net saw.
        names: (P,) text, of the part that each is of.
    """

    points: np.ndarray
    names: np.ndarray


def labelled(seen: Hierarchy, parted: PartedShape) -> Labelled:
    """Give every point the name of its part.

    Args:
        seen: what a net saw of a file.
        parted: the same file, with its parts.
    """
    return Labelled(seen.points, np.array(parted.names)[point_parts(seen, parted)])


def lent_names(points: np.ndarray, hard: np.ndarray, example: Labelled) -> dict[int, str]:
    """Name clusters by an example: every point has the name of the nearest point there, and a cluster that of most of its.

    Args:
        points: (P, 3) in the frame the net saw.
        hard: (P,) the cluster of each point, -1 for none.
        example: what lends names, in its own such frame.

    Returns:
        The names of the clusters that hold a point.
    """
    named = named_centres(points, hard, example.names[nearest_rows(points, example.points)])
    return dict(zip(named.numbers.tolist(), named.names.tolist(), strict=True))


@dataclass(frozen=True)
class NamedCentres:
    """What clusters of an example are called, and where they lie.

    Attributes:
        numbers: (K,) int64, those of the clusters that hold a point.
        names: (K,) text: of each, the name that most of its points have.
        centres: (K, 3) the means of their points, in the frame the net saw.
    """

    numbers: np.ndarray
    names: np.ndarray
    centres: np.ndarray

    def nearest(self, centres: np.ndarray) -> np.ndarray:
        """(C,) the names of the nearest of these to other centres, (C, 3), of another shape in its own such frame."""
        return self.names[np.linalg.norm(centres[:, None] - self.centres[None], axis=2).argmin(axis=1)]


def named_centres(points: np.ndarray, hard: np.ndarray, names: np.ndarray) -> NamedCentres:
    """Name clusters by majority.

    Args:
        points: (P, 3).
        hard: (P,) the cluster of each point, -1 for none.
        names: (P,) text, of each point.
    """
    numbers, centres = cluster_means(points, hard)
    kinds, kind = np.unique(names, return_inverse=True)
    counts = np.zeros((int(hard.max(initial=-1)) + 1, len(kinds)))
    np.add.at(counts, (hard[hard >= 0], kind[hard >= 0]), 1)
    return NamedCentres(numbers, kinds[counts[numbers].argmax(axis=1)], centres)


def cluster_means(points: np.ndarray, hard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) the clusters that hold a point, in order, and (K, 3) the means of their points; -1 is no cluster."""
    numbers = np.unique(hard[hard >= 0])
    return numbers, np.stack([points[hard == number].mean(axis=0) for number in numbers])
