"""Are centroids the same part of every shape? Names that one example gives, and how much of others is then named rightly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pointcentroid.evaluate.clusters import Clusters, clusterings
from pointcentroid.io.parts import PartedShape
from pointcentroid.predict.explain import Explanation
from pointcentroid.predict.naming import Labelled, cluster_means, labelled, named_centres, names_by_feature, names_by_place

_NONE = ""  # the name of what has none; no part has it


@dataclass(frozen=True)
class NamedShape(Labelled):
    """A shape whose points have names.

    Attributes:
        clusters: of the last stage, see `clusterings`.
    """

    clusters: list[Clusters]


@dataclass(frozen=True)
class Correspondence:
    """How much is named rightly in one way.

    Attributes:
        clusters: what was named: `net`, `cells`, `k-means`; or `points`, `nothing`.
        matched: how a cluster finds its name. `number`: it has that of the cluster of the same number. `position`: of the
            one whose mean is nearest. `points`: the one that most of its points get from the nearest points of the example.
            `feature`: the one that most of its points get from those centroids of the example's first stage whose features
            are nearest. For `points`, `position`: each point keeps that. For `nothing`, `majority`: all points get the most
            common name; `possible`: those whose name the example has, theirs.
        rightly: share of the points with their right name, the mean over pairs of an example and another shape.
        lowest: of the pair where it is lowest.
        complete: the mean over the pairs of one example, the one with the most different names; the first of several.
        pairs: how many.
    """

    clusters: str
    matched: str
    rightly: float
    lowest: float
    complete: float
    pairs: int


def named_shape(explanation: Explanation, parted: PartedShape) -> NamedShape:
    """Give every point the name of its part.

    Args:
        explanation: what a net saw of a file.
        parted: the same file, with its parts.
    """
    shape = labelled(explanation, parted)
    return NamedShape(shape.points, shape.names, shape.finest, shape.features, clusterings(explanation, -1))


def correspondence(examples: list[NamedShape], shapes: list[NamedShape]) -> list[Correspondence]:
    """Name the clusters of each example by majority, and with those names the clusters of every other shape.

    Args:
        examples: what lends names.
        shapes: what is named; of these, an example names all but itself.
    """
    found: dict[tuple[str, str], list[float]] = {}
    lenders: list[int] = []
    for number, example in enumerate(examples):
        for shape in shapes:
            if shape is not example:
                lenders.append(number)
                for way, names in _ways(example, shape):
                    found.setdefault(way, []).append(float((names == shape.names).mean()))
    names = [len(np.unique(example.names)) for example in examples]
    complete = np.array(lenders) == names.index(max(names))
    rows = []
    for way, shares in found.items():
        rightly = np.array(shares)
        figures = rightly.mean(), rightly.min(), rightly[complete].mean()
        rows.append(Correspondence(*way, *map(float, figures), pairs=len(rightly)))
    return rows


def mean_correspondence(folders: list[list[Correspondence]]) -> list[Correspondence]:
    """The mean of each way over folders, each of which counts alike; the lowest is that of all.

    Args:
        folders: for each folder, what `correspondence` gave.
    """
    means = []
    for rows in zip(*(rows for rows in folders if rows), strict=True):
        rightly, complete = (float(np.mean([getattr(row, key) for row in rows])) for key in ("rightly", "complete"))
        lowest, pairs = min(row.lowest for row in rows), sum(row.pairs for row in rows)
        means.append(Correspondence(rows[0].clusters, rows[0].matched, rightly, lowest, complete, pairs))
    return means


def _ways(example: NamedShape, shape: NamedShape) -> list[tuple[tuple[str, str], np.ndarray]]:
    """What every way calls the points of a shape: ((clusters, matched), (P,) text)."""
    ways: list[tuple[tuple[str, str], np.ndarray]] = []
    nearest = names_by_place(shape.points, example)
    alike = names_by_feature(shape.finest, shape.features, example)
    for theirs, own in zip(example.clusters, shape.clusters, strict=True):
        named = named_centres(example.points, theirs.hard, example.names)
        by_number = dict(zip(named.numbers.tolist(), named.names, strict=True))
        numbers, centres = cluster_means(shape.points, own.hard)
        ways.append(((own.by, "number"), _spread(own.hard, numbers, lambda n, of=by_number: of.get(n, _NONE))))
        by_position = dict(zip(numbers.tolist(), named.nearest(centres), strict=True))
        ways.append(((own.by, "position"), _spread(own.hard, numbers, by_position.__getitem__)))
        for matched, points in (("points", nearest), ("feature", alike)):
            if own.by == "net" or matched == "points":
                by_points = dict(zip(numbers.tolist(), named_centres(shape.points, own.hard, points).names, strict=True))
                ways.append(((own.by, matched), _spread(own.hard, numbers, by_points.__getitem__)))
    ways.append((("points", "position"), nearest))
    kinds, counts = np.unique(example.names, return_counts=True)
    ways.append((("nothing", "majority"), np.full(len(shape.names), kinds[counts.argmax()])))
    ways.append((("nothing", "possible"), np.where(np.isin(shape.names, kinds), shape.names, _NONE)))
    return ways


def _spread(hard: np.ndarray, numbers: np.ndarray, name: Callable[[int], str]) -> np.ndarray:
    """(P,) names of points from those of their clusters; points of no cluster have none."""
    table = np.array([*(name(number) for number in numbers.tolist()), _NONE])
    return table[np.where(hard >= 0, np.searchsorted(numbers, hard), len(numbers))]
