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
        finest: (P,) int64 the centroid of the first stage that each goes to, -1 for none.
        features: (M, C) of those centroids.
    """

    points: np.ndarray
    names: np.ndarray
    finest: np.ndarray
    features: np.ndarray


def labelled(seen: Hierarchy, parted: PartedShape) -> Labelled:
    """Give every point the name of its part.

    Args:
        seen: what a net saw of a file.
        parted: the same file, with its parts.
    """
    names = np.array(parted.names)[point_parts(seen, parted)]
    return Labelled(seen.points, names, seen.stages[0].hard, seen.stages[0].features)


def names_by_place(points: np.ndarray, example: Labelled) -> np.ndarray:
    """(P,) the names of the nearest points of an example to those of a shape, (P, 3), in its own such frame."""
    return example.names[nearest_rows(points, example.points)]


def names_by_feature(finest: np.ndarray, features: np.ndarray, example: Labelled) -> np.ndarray:
    """The names of points by the features of the centroids they go to.

    Args:
        finest: (P,) the centroid of the first stage that each goes to, -1 for none.
        features: (M, C) of those centroids.
        example: what lends names; each of its centroids has that of most of its points.

    Returns:
        (P,) text, empty for a point of no centroid.
    """
    lenders = named_centres(example.points, example.finest, example.names)
    theirs = example.features[lenders.numbers]
    away = np.linalg.norm(features[:, None] - theirs[None], axis=2)
    return np.append(lenders.names[away.argmin(axis=1)], "")[finest]


def lent_names(seen: Hierarchy, example: Labelled) -> dict[int, str]:
    """Name the centroids of the last stage by an example: each has the name that most of its points have.

    Args:
        seen: what a net saw of a shape.
        example: what lends names: by features where those tell parts, else by place.

    Returns:
        The names of the centroids that hold a point.
    """
    finest, last = seen.stages[0], seen.stages[-1]
    if seen.features_tell_parts:
        names = names_by_feature(finest.hard, finest.features, example)
    else:
        names = names_by_place(seen.points, example)
    named = named_centres(seen.points, last.hard, names)
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
