"""Assignments in numbers: do centroids find parts, and the same ones again?

All figures are of composed assignments: of the original points to the centroids of a stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pointcentroid.files import replacing
from pointcentroid.geometry.axes import transformed
from pointcentroid.geometry.neighbours import nearest_rows
from pointcentroid.io.shape import Shape
from pointcentroid.predict.explain import Explanation
from pointcentroid.predict.predictor import Predictor
from pointcentroid.viz.panel import Panel


@dataclass(frozen=True)
class StageMeasures:
    """Figures of one stage.

    Attributes:
        stage: 1, 2 ...
        centroids: how many there are.
        used: how many are the largest share of at least one point.
        size_smallest: points of the smallest used centroid, counting each point for its largest share.
        size_median: of the used ones.
        size_largest: of the largest.
        entropy: mean entropy of a point's shares, divided by the logarithm of the number of centroids: 0 where every point
            goes to one centroid, 1 where every point is spread evenly over all.
        unassigned: share of the points that are on no centroid's list.
        distance: mean distance of a point to the centroids it goes to, weighted by its shares; the cloud has radius 1.
        stability: adjusted Rand index of the largest shares between two samplings of the same shape, the mean over
            samplings: 1 for the same clusters, 0 for what chance gives. None if it was not measured.
    """

    stage: int
    centroids: int
    used: int
    size_smallest: int
    size_median: float
    size_largest: int
    entropy: float
    unassigned: float
    distance: float
    stability: float | None = None


def measure(explanation: Explanation, others: list[Explanation] | None = None) -> list[StageMeasures]:
    """Put the assignments of every stage into numbers.

    Args:
        explanation: what a net saw.
        others: the same shape, sampled otherwise, for the stability.
    """
    measures = []
    for number, stage in enumerate(explanation.stages):
        shares = stage.composed.astype(np.float64)
        hard, count = stage.hard, shares.shape[1]
        assigned = hard >= 0
        sizes = np.bincount(hard[assigned], minlength=count)
        used = sizes[sizes > 0]
        rows = shares[assigned] / shares[assigned].sum(axis=1, keepdims=True)
        bits = -(rows * np.log(np.where(rows > 0, rows, 1.0))).sum(axis=1)
        distance = np.linalg.norm(explanation.points[assigned][:, None] - stage.positions[None], axis=2)
        stability = [_agreement(explanation, other, number) for other in others or []]
        measures.append(
            StageMeasures(
                stage=number + 1,
                centroids=count,
                used=len(used),
                size_smallest=int(used.min(initial=len(shares))),
                size_median=float(np.median(used)) if len(used) else 0.0,
                size_largest=int(used.max(initial=0)),
                entropy=float(bits.mean() / np.log(count)) if count > 1 and len(bits) else 0.0,
                unassigned=float((~assigned).mean()),
                distance=float((rows * distance).sum(axis=1).mean()) if len(rows) else 0.0,
                stability=float(np.mean(stability)) if stability else None,
            )
        )
    return measures


def resampled(predictor: Predictor, explanation: Explanation, times: int) -> list[Explanation]:
    """Explain a shape again, with other points of the same surface and the same axis up.

    Args:
        predictor: the one that made the explanation.
        explanation: of the shape.
        times: how often.
    """
    shape = Shape(explanation.vertices, explanation.faces)
    first = predictor.card.preprocess.seed + 1
    up: Any = explanation.prediction.up
    return [predictor.explain(shape, up=up, seed=first + number) for number in range(times)]


def _agreement(one: Explanation, other: Explanation, stage: int) -> float:
    """Adjusted Rand index: every point of the one against the nearest point of the other sampling, in the file's frame."""
    there = transformed(other.points, one.transform @ np.linalg.inv(other.transform))
    nearest = nearest_rows(one.points, there)
    return adjusted_rand_index(one.stages[stage].hard, other.stages[stage].hard[nearest])


def adjusted_rand_index(one: np.ndarray, other: np.ndarray) -> float:
    """Agreement of two clusterings, corrected for chance (Hubert and Arabie, "Comparing partitions", 1985).

    Args:
        one: (N,) integer labels.
        other: (N,) integer labels.

    Returns:
        1 where the clusters are the same up to their names, 0 on average for random labels.

    Raises:
        ValueError: the lengths differ.
    """
    if len(one) != len(other):
        raise ValueError(f"two labels for every item are needed, found {len(one)} and {len(other)}")
    rows, columns = np.unique(one, return_inverse=True)[1], np.unique(other, return_inverse=True)[1]
    table = np.zeros((rows.max(initial=0) + 1, columns.max(initial=0) + 1))
    np.add.at(table, (rows, columns), 1)

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    together, by_row, by_column = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    total = len(one) * (len(one) - 1) / 2
    expected = by_row * by_column / total if total else 0.0
    largest = (by_row + by_column) / 2
    return 1.0 if largest == expected else (together - expected) / (largest - expected)


def save_assignments(explanation: Explanation, folder: Path, stem: str) -> list[Path]:
    """Write assignments for other programs: one coloured PLY cloud a stage, in the file's own frame, and one NPZ.

    The NPZ holds `points` (P, 3) in the file's frame, `transform` (4, 4) from there to the frame the net saw, and for each
    stage s `positions_s` (M, 3) in the file's frame, `assignment_s` (heads, N, M), `composed_s` (P, M) and `hard_s` (P,).

    Args:
        explanation: what to write.
        folder: where to; it is made if it is not there.
        stem: how the file names start.

    Returns:
        The files.
    """
    import trimesh

    folder.mkdir(parents=True, exist_ok=True)
    panel = Panel(explanation, most=len(explanation.points))
    back = np.linalg.inv(explanation.transform)
    points = transformed(explanation.points, back)

    arrays: dict[str, np.ndarray] = {"points": points, "transform": explanation.transform}
    written = []
    for number, stage in enumerate(explanation.stages, 1):
        arrays |= {
            f"positions_{number}": transformed(stage.positions, back),
            f"assignment_{number}": stage.assignment,
            f"composed_{number}": stage.composed,
            f"hard_{number}": stage.hard,
        }
        cloud = trimesh.PointCloud(points, (255 * panel.colours(number)).round().astype(np.uint8))
        path = folder / f"{stem}-stage{number}.ply"
        with replacing(path) as temporary:
            content: Any = cloud.export(file_type="ply")
            temporary.write_bytes(content)
        written.append(path)
    path = folder / f"{stem}.npz"
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return [*written, path]
