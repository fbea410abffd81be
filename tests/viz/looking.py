"""What is looked for on pictures, and what nets might have seen."""

from __future__ import annotations

import numpy as np
from PIL import Image

from pointcentroid.results import Hierarchy, Prediction, StageExplanation


def clustered(points: np.ndarray, hard: np.ndarray, count: int, label: str = "chair") -> Hierarchy:
    """What a net of one stage would have seen, had it made these clusters, some of them perhaps empty."""
    points = points.astype(np.float32)
    composed = np.zeros((len(points), count), np.float32)
    composed[np.flatnonzero(hard >= 0), hard[hard >= 0]] = 1
    places = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    stage = StageExplanation(places, np.zeros((count, 1), np.float32), composed[None], composed)
    said = Prediction("x.off", label, 1.0, [(label, 1.0)], "z", len(points), np.zeros(1), np.eye(3))
    return Hierarchy(points, [stage], np.eye(4), points.astype(np.float64), None, said)


def saturated(image: Image.Image) -> int:
    """Number of pixels with a hue: what is coloured by a centroid, not grey, white or black."""
    values = np.asarray(image.convert("RGB")).astype(int)
    return int((values.max(axis=2) - values.min(axis=2) > 60).sum())


def hues(image: Image.Image) -> int:
    """How many of twelve hues are on it, where it has any."""
    hue, saturation, value = np.moveaxis(np.asarray(image.convert("HSV")).astype(int), 2, 0)
    seen = np.bincount(hue[(saturation > 60) & (value > 60)] * 12 // 256, minlength=12)
    return int((seen > 0.01 * seen.sum()).sum())
