"""Assignments in numbers: do centroids find parts, and the same ones again?

All figures are of composed assignments: of the original points to the centroids of a stage. Beside each stands the same
figure of as many clusters that no net made: see `clusters`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pointcentroid.evaluate.agreement import adjusted_rand_index, normalised_mutual_information
from pointcentroid.evaluate.clusters import Clusters, clusterings
from pointcentroid.files import replacing
from pointcentroid.geometry.axes import transformed
from pointcentroid.geometry.neighbours import nearest_rows
from pointcentroid.io.ply import cloud_bytes
from pointcentroid.io.shape import Shape
from pointcentroid.predict.explain import Explanation
from pointcentroid.predict.predictor import Predictor
from pointcentroid.viz.panel import ClassColours, Panel


@dataclass(frozen=True)
class StageMeasures:
    """Figures of one way to cut a cloud into as many clusters as a stage has centroids.

    Attributes:
        stage: 1, 2 ...
        clusters: by what: `net`, `cells` or `k-means`.
        centroids: how many there are.
        used: how many are the largest share of at least one point.
        size_smallest: points of the smallest used centroid, counting each point for its largest share.
        size_median: of the used ones.
        size_largest: of the largest.
        entropy: mean entropy of a point's shares, divided by the logarithm of the number of centroids: 0 where every point
            goes to one centroid, 1 where every point is spread evenly over all.
        unassigned: share of the points that go to no centroid.
        distance: mean distance of a point to the centroids it goes to, weighted by its shares; the cloud has radius 1.
        stability: adjusted Rand index of the largest shares between two samplings of the same shape, the mean over
            samplings: 1 for the same clusters, 0 for what chance gives. None if it was not measured.
        agreement: normalised mutual information of the largest shares and the parts that the file's author modelled: 1 for
            the same. None for a file without parts.
    """

    stage: int
    clusters: str
    centroids: int
    used: float
    size_smallest: float
    size_median: float
    size_largest: float
    entropy: float
    unassigned: float
    distance: float
    stability: float | None = None
    agreement: float | None = None


def measure(
    explanation: Explanation, others: Sequence[Explanation] = (), parts: np.ndarray | None = None
) -> list[StageMeasures]:
    """Put the assignments of every stage into numbers, and those of as many cells and k-means clusters.

    Args:
        explanation: what a net saw.
        others: the same shape, sampled otherwise, for the stability.
        parts: (P,) the part of each point, for the agreement; see `naming.point_parts`.
    """
    nearest = [_nearest(explanation, other) for other in others]
    measures = []
    for stage in range(len(explanation.stages)):
        again = [clusterings(other, stage) for other in others]
        for way, clusters in enumerate(clusterings(explanation, stage)):
            same = [
                adjusted_rand_index(clusters.hard, other[way].hard[rows]) for other, rows in zip(again, nearest, strict=True)
            ]
            agreement = None if parts is None else normalised_mutual_information(clusters.hard, parts)
            figures = _figures(explanation.points, clusters)
            stability = float(np.mean(same)) if same else None
            measures.append(StageMeasures(stage + 1, clusters.by, *figures, stability=stability, agreement=agreement))
    return measures


def mean_measures(files: list[list[StageMeasures]]) -> list[StageMeasures]:
    """The mean of each figure over files, of those files that have it.

    Args:
        files: for each file, what `measure` gave; by the same net.
    """
    means = []
    for rows in zip(*files, strict=True):
        first: dict[str, Any] = dataclasses.asdict(rows[0])
        for name in first.keys() - {"stage", "clusters", "centroids"}:
            values = [value for row in rows if (value := getattr(row, name)) is not None]
            first[name] = float(np.mean(values)) if values else None
        means.append(StageMeasures(**first))
    return means


def _figures(points: np.ndarray, clusters: Clusters) -> tuple[int, int, int, float, int, float, float, float]:
    """From `centroids` to `distance`."""
    shares = clusters.shares.astype(np.float64)
    hard, count = clusters.hard, shares.shape[1]
    assigned = hard >= 0
    sizes = np.bincount(hard[assigned], minlength=count)
    used = sizes[sizes > 0]
    rows = shares[assigned] / shares[assigned].sum(axis=1, keepdims=True)
    bits = -(rows * np.log(np.where(rows > 0, rows, 1.0))).sum(axis=1)
    distance = np.linalg.norm(points[assigned][:, None] - clusters.centres[None], axis=2)
    return (
        count,
        len(used),
        int(used.min(initial=len(shares))),
        float(np.median(used)) if len(used) else 0.0,
        int(used.max(initial=0)),
        float(bits.mean() / np.log(count)) if count > 1 and len(bits) else 0.0,
        float((~assigned).mean()),
        float((rows * distance).sum(axis=1).mean()) if len(rows) else 0.0,
    )


def resampled(predictor: Predictor, explanation: Explanation, times: int) -> list[Explanation]:
    """Explain a shape again, with other points of the same surface and the same way up.

    Args:
        predictor: the one that made the explanation.
        explanation: of the shape.
        times: how often.

    Returns:
        None of them for a point file of so few points that another sampling has most of them again.
    """
    shape, settings = Shape(explanation.vertices, explanation.faces), predictor.card.preprocess
    if shape.faces is None and len(shape.vertices) < 2 * settings.sample:
        return []
    first = settings.seed + 1
    turn = explanation.prediction.turn
    return [predictor.explain(shape, up=turn, seed=first + number) for number in range(times)]


def _nearest(one: Explanation, other: Explanation) -> np.ndarray:
    """(P,) for every point of the one, the nearest point of the other sampling, in the file's frame."""
    return nearest_rows(one.points, transformed(other.points, one.transform @ np.linalg.inv(other.transform)))


def save_assignments(explanation: Explanation, folder: Path, stem: str, colours: ClassColours) -> list[Path]:
    """Write assignments for other programs: one coloured PLY cloud a stage, in the file's own frame, and one NPZ.

    The NPZ holds `points` (P, 3) in the file's frame, `transform` (4, 4) from there to the frame the net saw, and for each
    stage s `positions_s` (M, 3) in the file's frame, `assignment_s` (heads, N, M), `composed_s` (P, M) and `hard_s` (P,).

    Args:
        explanation: what to write.
        folder: where to; it is made if it is not there.
        stem: how the file names start.
        colours: of the shapes of a folder, so that the same part has the same colour in all of one class.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    panel = colours.lend(Panel(explanation, most=len(explanation.points)))
    back = np.linalg.inv(explanation.transform)
    points = transformed(explanation.points, back)

    arrays: dict[str, np.ndarray] = {"points": points, "transform": explanation.transform}
    *clouds, whole = saved_files(folder, stem, len(explanation.stages))
    for number, (stage, path) in enumerate(zip(explanation.stages, clouds, strict=True), 1):
        arrays |= {
            f"positions_{number}": transformed(stage.positions, back),
            f"assignment_{number}": stage.assignment,
            f"composed_{number}": stage.composed,
            f"hard_{number}": stage.hard,
        }
        with replacing(path) as temporary:
            temporary.write_bytes(cloud_bytes(points, panel.colours(number)))
    with replacing(whole) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return [*clouds, whole]


def saved_files(folder: Path, stem: str, stages: int) -> list[Path]:
    """The files that `save_assignments` writes.

    Args:
        folder: see `save_assignments`.
        stem: see `save_assignments`.
        stages: how many the net has.
    """
    return [*(folder / f"{stem}-stage{number}.ply" for number in range(1, stages + 1)), folder / f"{stem}.npz"]
