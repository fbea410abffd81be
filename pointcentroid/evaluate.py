"""How good are these weights? One pass over a data set, everything from one confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pointcentroid.data.sources import CloudSet
from pointcentroid.errors import DataError
from pointcentroid.geometry.orientation import TO_Z_UP, UP_AXES
from pointcentroid.predict import Predictor, Up
from pointcentroid.results import Prediction


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        confusion: (C, C) int64 counts, rows are true classes, columns predicted ones.
        top5: shapes whose class was among the first five.
        up_right: shapes whose up axis was found.
        classes: class names.
    """

    confusion: np.ndarray
    top5: int
    up_right: int
    classes: tuple[str, ...]

    @property
    def overall_accuracy(self) -> float:
        """Share of all shapes that got their class."""
        return float(self.confusion.trace() / self.confusion.sum())

    @property
    def per_class(self) -> dict[str, float]:
        """Share of each class's shapes that got it, for the classes that occur."""
        sizes = self.confusion.sum(axis=1)
        return {c: float(self.confusion[i, i] / sizes[i]) for i, c in enumerate(self.classes) if sizes[i]}

    @property
    def mean_class_accuracy(self) -> float:
        """Mean over classes of `per_class`."""
        return float(np.mean(list(self.per_class.values())))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        total = int(self.confusion.sum())
        return {
            "shapes": total,
            "overall_accuracy": self.overall_accuracy,
            "mean_class_accuracy": self.mean_class_accuracy,
            "top5_accuracy": self.top5 / total,
            "up_accuracy": self.up_right / total,
            "per_class": self.per_class,
        }


def evaluate(
    predictor: Predictor,
    clouds: CloudSet,
    *,
    up: Up = "z",
    turned: bool = False,
    batch_size: int = 32,
    watch: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Evaluation:
    """Classify labelled z-up clouds and count.

    Args:
        predictor: the weights under test.
        clouds: the shapes; their classes are matched by name.
        up: what the predictor is told of the up axis.
        turned: first turn every cloud into one of the 24 ways to lay its axes along the file's, drawn at random but the
            same at every call. (Turns by odd angles would be easier: they give an upright axis away.)
        batch_size: shapes the net sees at once.
        watch: wraps the results, to show progress.

    Raises:
        DataError: the data set is empty, or holds a class that the weights do not know.
    """
    if not len(clouds):
        raise DataError("the data set holds no shapes")
    for name in {clouds.classes[label] for label in np.unique(clouds.labels)}:
        if name not in predictor.classes:
            raise DataError(f"the data set has the class {name!r}, which the weights do not know")
    column = {name: number for number, name in enumerate(predictor.classes)}
    confusion = np.zeros((len(column), len(column)), dtype=np.int64)
    top5 = up_right = 0
    shapes, axes = _turned(clouds.points) if turned else (iter(clouds.points), ["z"] * len(clouds))
    results = predictor.predict(shapes, up=up, batch_size=batch_size)
    for label, axis, result in zip(clouds.labels, axes, watch(results), strict=True):
        if not isinstance(result, Prediction):
            raise DataError(f"a cloud of the data set is damaged: {result.error}")
        truth = clouds.classes[label]
        confusion[column[truth], column[result.label]] += 1
        top5 += truth in [name for name, _ in result.top[:5]]
        up_right += result.up == axis
    return Evaluation(confusion, top5, up_right, predictor.classes)


def _turned(points: np.ndarray) -> tuple[Iterator[np.ndarray], list[str]]:
    rng = np.random.default_rng(0)
    axes = [UP_AXES[i] for i in rng.integers(len(UP_AXES), size=len(points))]
    quarters = rng.integers(4, size=len(points))
    about_z = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])

    def clouds() -> Iterator[np.ndarray]:
        for cloud, axis, quarter in zip(points, axes, quarters, strict=True):
            turn = np.linalg.matrix_power(about_z, quarter)
            yield (cloud @ turn.T @ TO_Z_UP[axis]).astype(np.float32)

    return clouds(), axes
