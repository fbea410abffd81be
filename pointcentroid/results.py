"""What comes out of a prediction: plain data, which every room may hold and none needs to compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

LOW_CONFIDENCE = 0.75
"""Below this confidence a prediction deserves a warning."""

LITTLE_KNOWN = 0.5
"""Below this value of `known` a shape is probably of no class that the net was trained on."""


@dataclass(frozen=True)
class Prediction:
    """What a net says of one shape.

    Attributes:
        file: the file, or `"<array>"`.
        label: the most probable class.
        confidence: its probability.
        top: (class, probability) pairs, most probable first.
        up: what was taken to point up: an axis of the file's frame; or, where the shape leans, a direction in it, as
            `0.00,-0.71,0.71`.
        points: number of points the net was shown.
        feature: (F,) float32 global feature of the shape, for search and clustering.
        turn: (3, 3) float64, R; `points @ R.T` is the shape as it was taken to stand, with z up.
        known: how far the shape is like those the net was trained on, in [0, 1]: 95 of 100 shapes of the trained classes
            are above 0.5. None where the net was not trained to say.
    """

    file: str
    label: str
    confidence: float
    top: list[tuple[str, float]]
    up: str
    points: int
    feature: np.ndarray = field(repr=False)
    turn: np.ndarray = field(repr=False)
    known: float | None = None

    def _repr_html_(self) -> str:
        """The ranking as bars, in a notebook."""
        rows = "".join(
            f"<tr><td>{escape(label)}</td><td style='text-align:right'>{share:.0%}</td>"
            f"<td style='width:16em'><div style='width:{share:.1%};height:.8em;background:#2a9d8f'></div></td></tr>"
            for label, share in self.top
        )
        return f"<table><caption>{escape(self.file)}, {escape(self.up)} up</caption>{rows}</table>"

    @property
    def uncertain(self) -> bool:
        """Whether the confidence is below `LOW_CONFIDENCE`."""
        return self.confidence < LOW_CONFIDENCE

    @property
    def unknown(self) -> bool:
        """Whether `known` is below `LITTLE_KNOWN`."""
        return self.known is not None and self.known < LITTLE_KNOWN


@dataclass(frozen=True)
class Failure:
    """A shape that could not be read.

    Attributes:
        file: the file, or `"<array>"`.
        error: one line: what was found, what was expected, what to do.
        needs_extra: nothing is known to be wrong with the file, but what reads it is not installed.
    """

    file: str
    error: str
    needs_extra: bool = False


def to_row(result: Prediction | Failure) -> dict[str, Any]:
    """A result as JSON has it, without the feature."""
    if isinstance(result, Failure):
        return {"file": result.file, "error": result.error}
    return {
        "file": result.file,
        "label": result.label,
        "confidence": result.confidence,
        "top": [list(pair) for pair in result.top],
        "up": result.up,
        "points": result.points,
        "known": result.known,
    }


def largest_share(shares: np.ndarray) -> np.ndarray:
    """(N, M) shares -> (N,) int64, the column of the largest of each row; -1 where a row has none."""
    return np.where(shares.any(axis=1), shares.argmax(axis=1), -1)


@dataclass(frozen=True, repr=False)
class StageExplanation:
    """What one stage did with its inputs: the points, or the centroids of the stage before.

    Attributes:
        positions: (M, 3) float32 centroid positions, in the frame of `Explanation.points`.
        features: (M, C) float32 centroid features.
        assignment: (H, N, M) float32, per head, the share of each input that goes to each centroid. Rows sum to 1, or to
            0 for an input that goes to none.
        composed: (P, M) float32, the share of each original point that ends in each centroid: the product of the stages'
            assignments, averaged over heads, down to this one.
    """

    positions: np.ndarray
    features: np.ndarray
    assignment: np.ndarray
    composed: np.ndarray

    def __repr__(self) -> str:
        return f"<StageExplanation: {len(self.positions)} centroids, {self.features.shape[1]} channels>"

    @property
    def hard(self) -> np.ndarray:
        """(P,) int64, the centroid that takes the largest share of each original point; -1 where none takes any."""
        return largest_share(self.composed)


@dataclass(frozen=True, repr=False)
class Hierarchy:
    """The centroids a net saw a shape through.

    Attributes:
        points: (P, 3) float32, the cloud as the net saw it: normalised, z up, in farthest-point order.
        stages: one entry per stage, finest first.
        transform: (4, 4) float64, from the file's frame and units to the frame of `points`.
        vertices: (V, 3) float64 vertices of the mesh, or points of the cloud, in the file's frame.
        faces: (F, 3) int64 faces of the mesh, or None.
        prediction: what the net said of the shape, if it classifies.
        features_tell_parts: whether the net was trained to make features of the finest centroids alike where parts have one
            name.
    """

    points: np.ndarray
    stages: list[StageExplanation]
    transform: np.ndarray
    vertices: np.ndarray
    faces: np.ndarray | None
    prediction: Prediction | None = None
    features_tell_parts: bool = False

    def __repr__(self) -> str:
        centroids = " -> ".join(str(len(stage.positions)) for stage in self.stages)
        said = f", {self.prediction.label} {self.prediction.confidence:.0%}" if self.prediction else ""
        return f"<{type(self).__name__}: {len(self.points)} points -> {centroids or 'no'} centroids{said}>"
