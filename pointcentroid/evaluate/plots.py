"""Pictures of numbers: the curves of a training run, the confusion matrix of an evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pointcentroid.errors import MissingExtraError, shortened
from pointcentroid.evaluate.calibration import BINS, bin_of
from pointcentroid.files import replacing

_MOST_NAMED = 120  # classes of a confusion matrix
_LARGEST = 38.0  # inches, of one side
_LONGEST = 40  # letters of a class's name


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawing plots", "train", error.name or "matplotlib") from None
    return Figure(figsize=(width, height), layout="constrained")  # no pyplot: no window system, no state


def _save(figure: Any, path: str | Path) -> None:
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is drawn as a box
        figure.savefig(temporary, format="png", dpi=110)


def plot_history(rows: Sequence[dict[str, Any]], headline: str, path: str | Path) -> None:
    """Draw every measure over epochs, and the most important one over time.

    Args:
        rows: as `pointcentroid.train.callbacks.History` keeps them.
        headline: the most important measure.
        path: the PNG to write.
    """
    groups = [
        ("loss", [name for name in rows[0] if name.endswith("_loss")]),
        ("", [name for name in rows[0] if name.startswith(("train_", "validation_")) and not name.endswith("_loss")]),
    ]
    figure = _figure(12, 3.6)
    *charts, clock = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in rows]
    for axes, (title, columns) in zip(charts, groups, strict=True):
        for column in columns:
            axes.plot(epochs, [row[column] for row in rows], label=column.replace("_", " "))
        axes.set(xlabel="epoch", ylabel=title)
        axes.legend()
    clock.plot([row["seconds"] / 60 for row in rows], [row[headline] for row in rows])
    clock.set(xlabel="minutes", ylabel=headline.replace("_", " "))
    for axes in (*charts, clock):
        axes.grid(alpha=0.3)
    _save(figure, path)


def plot_confusion(confusion: np.ndarray, classes: Sequence[str], path: str | Path) -> None:
    """Draw a confusion matrix, each row as shares of its class.

    Args:
        confusion: (C, C) counts, rows are true classes.
        classes: C names.
        path: the PNG to write.
    """
    present = np.flatnonzero(confusion.sum(axis=1) + confusion.sum(axis=0)).tolist()
    table = confusion[np.ix_(present, present)]
    # A folder's name may be no text, and leave no room for the matrix.
    names = [shortened(classes[i].encode("utf-8", "replace").decode(), _LONGEST) for i in present]
    shares = table / table.sum(axis=1, keepdims=True).clip(1)
    margin = 0.08 * max(map(len, names), default=0)
    side = min(max(4.0, 0.3 * len(names) + 2, margin + 3), _LARGEST)
    figure = _figure(side, side)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) <= _MOST_NAMED:  # of more, neither names nor numbers would have room
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
        for row, column in zip(*np.nonzero(table), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(table[row, column]), ha="center", va="center", fontsize=7, color=colour)
    _save(figure, path)


def plot_reliability(confidence: np.ndarray, correct: np.ndarray, path: str | Path) -> None:
    """Draw accuracy against confidence, and how many shapes had it.

    Args:
        confidence: (S,) in [0, 1].
        correct: (S,) bool.
        path: the PNG to write.
    """
    which = bin_of(confidence)
    counts = np.bincount(which, minlength=BINS)
    accuracy = np.bincount(which, correct, minlength=BINS) / counts.clip(1)
    middles = (np.arange(BINS) + 0.5) / BINS
    figure = _figure(4.5, 5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.bar(middles[counts > 0], accuracy[counts > 0], width=0.9 / BINS)
    above.plot([0, 1], [0, 1], color="black", linewidth=1)
    above.set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1))
    below.bar(middles, counts, width=0.9 / BINS)
    below.set(xlabel="confidence", ylabel="shapes")
    _save(figure, path)
