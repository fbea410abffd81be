"""What comes out of a prediction. Imports no torch, so that the command line can print without it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LOW_CONFIDENCE = 0.4
"""Below this confidence a prediction deserves a warning."""


@dataclass(frozen=True)
class Prediction:
    """What a net says of one shape.

    Attributes:
        file: the file, or `"<array>"`.
        label: the most probable class.
        confidence: its probability.
        top: (class, probability) pairs, most probable first.
        up: the axis of the file's frame that was taken to point up.
        points: number of points the net was shown.
        feature: (F,) float32 global feature of the shape, for search and clustering.
    """

    file: str
    label: str
    confidence: float
    top: list[tuple[str, float]]
    up: str
    points: int
    feature: np.ndarray

    @property
    def uncertain(self) -> bool:
        """Whether the confidence is below `LOW_CONFIDENCE`."""
        return self.confidence < LOW_CONFIDENCE


@dataclass(frozen=True)
class Failure:
    """A shape that could not be read.

    Attributes:
        file: the file, or `"<array>"`.
        error: one line: what was found, what was expected, what to do.
    """

    file: str
    error: str
