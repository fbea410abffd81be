"""How good are these weights? Accuracies from one confusion matrix, everything else from the same pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pointcentroid.data.clouds import CloudSet
from pointcentroid.data.corruptions import CORRUPTIONS, DIRECTIONS, SEVERITIES, corrupt, seen_from
from pointcentroid.errors import DataError
from pointcentroid.evaluate.calibration import bootstrap_interval, calibration_error
from pointcentroid.geometry.axes import TO_Z_UP, UP_AXES
from pointcentroid.predict.predictor import Predictor
from pointcentroid.predict.up import Up
from pointcentroid.results import LITTLE_KNOWN, Prediction
from pointcentroid.weights import WeightsCard

OFFICIAL_TEST: dict[str, int] = {
    name: count
    for count, names in {
        100: "airplane bed bookshelf bottle car chair glass_box guitar mantel monitor piano plant range_hood sofa "
        "table toilet tv_stand vase",
        86: "desk dresser night_stand",
        50: "bathtub",
        20: "bench bowl cone cup curtain door flower_pot keyboard lamp laptop person radio sink stairs stool tent "
        "wardrobe xbox",
    }.items()
    for name in names.split()
}
"""How many shapes of each class the official test split of ModelNet40 holds; validation shapes come in another mix."""

Watch = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        confusion: (C, C) int64 counts, rows are true classes, columns predicted ones.
        top5: shapes whose class was among the first five.
        up_right: shapes whose up axis was found; None where it was given.
        confidence: (S,) probability of the predicted class.
        correct: (S,) bool, whether it was the true one.
        classes: class names.
        seconds: what the pass took, from clouds to answers.
        known: (S,) the probability that a shape is of a class that the weights know; None where they do not tell.
    """

    confusion: np.ndarray
    top5: int
    up_right: int | None
    confidence: np.ndarray
    correct: np.ndarray
    classes: tuple[str, ...]
    seconds: float
    known: np.ndarray | None = None

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

    @property
    def official_mix_accuracy(self) -> float | None:
        """Overall accuracy at the class mix of the official test split; None for other classes than ModelNet40's."""
        if self.per_class.keys() != OFFICIAL_TEST.keys():
            return None
        return sum(OFFICIAL_TEST[name] * share for name, share in self.per_class.items()) / sum(OFFICIAL_TEST.values())

    @property
    def ece(self) -> float:
        """Expected calibration error of the confidences, 15 bins."""
        return calibration_error(self.confidence, self.correct)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        total = int(self.confusion.sum())
        return {
            "shapes": total,
            "overall_accuracy": self.overall_accuracy,
            "mean_class_accuracy": self.mean_class_accuracy,
            **({} if (mix := self.official_mix_accuracy) is None else {"official_mix_accuracy": mix}),
            "top5_accuracy": self.top5 / total,
            "ece": self.ece,
            "ece_interval": list(bootstrap_interval(self.confidence, self.correct)),
            **({} if self.up_right is None else {"up_accuracy": self.up_right / total}),
            **({} if self.known is None else {"flagged": flagged(self.known)}),
            "shapes_per_second": total / self.seconds,
            "per_class": self.per_class,
            "per_class_shapes": dict(zip(self.classes, self.confusion.sum(axis=1).tolist(), strict=True)),
        }


def choose_part(clouds: CloudSet, card: WeightsCard) -> str:
    """Which part of a data set tells how good weights are.

    Args:
        clouds: the data set.
        card: of the weights.

    Returns:
        The test part if the data set names one, its validation part if the weights were trained on the rest, else all.
    """
    if "test" in clouds.split:
        return "test"
    return "validation" if clouds.fingerprint in card.trained_on else "all"


def evaluate(
    predictor: Predictor,
    clouds: CloudSet,
    *,
    up: Up = "z",
    turned: bool = False,
    votes: int = 1,
    batch_size: int = 32,
    watch: Watch = iter,
) -> Evaluation:
    """Classify labelled z-up clouds and count.

    Args:
        predictor: the weights under test.
        clouds: the shapes; their classes are matched by name.
        up: what the predictor is told of the up axis.
        turned: first turn every cloud into one of the 24 ways to lay its axes along the file's, drawn at random but the
            same at every call. (Any rotation at all: `tools/orientation.py --leaning`.)
        votes: answers to average for each shape: of the cloud, and of copies with each axis scaled by up to 1.25, seeded.
        batch_size: shapes the net sees at once.
        watch: wraps the answers, `votes` for each shape, to show progress.

    Raises:
        DataError: the data set is empty, or holds a class that the weights do not know.
    """
    if not len(clouds):
        raise DataError("the data set holds no shapes")
    truth = clouds.labels_among(predictor.classes)
    column = {name: number for number, name in enumerate(predictor.classes)}
    shares, known, up_right = np.zeros((len(clouds), len(column))), np.full(len(clouds), np.nan), 0
    axes = _axes(len(clouds)) if turned else [("z", 0)] * len(clouds)

    def shapes() -> Iterator[np.ndarray]:
        for vote in range(votes):
            for number, (cloud, (axis, quarter)) in enumerate(zip(clouds.points, axes, strict=True)):
                yield _turn(cloud * _scale(vote, number), axis, quarter)

    start = time.perf_counter()
    answers = predictor.predict(shapes(), up=up, top=len(column), batch_size=batch_size)
    for number, answer in enumerate(watch(answers)):
        if not isinstance(answer, Prediction):
            raise DataError(f"{clouds.names[number % len(clouds)]}: {answer.error}")
        row = number % len(clouds)
        for name, share in answer.top:
            shares[row, column[name]] += share / votes
        if number == row:  # the cloud itself, not a vote
            up_right += answer.up == axes[row][0]
            known[row] = np.nan if answer.known is None else answer.known
    seconds = time.perf_counter() - start

    best = shares.argmax(axis=1)
    confusion = np.zeros((len(column), len(column)), dtype=np.int64)
    np.add.at(confusion, (truth, best), 1)
    better = (shares > shares[np.arange(len(truth)), truth][:, None]).sum(axis=1)
    found = up_right if up == "auto" else None
    told = None if np.isnan(known).any() else known
    return Evaluation(
        confusion, int((better < 5).sum()), found, shares.max(axis=1), best == truth, predictor.classes, seconds, told
    )


def known_of(
    predictor: Predictor, clouds: CloudSet, *, up: Up = "z", batch_size: int = 32, watch: Watch = iter
) -> np.ndarray:
    """(S,) how probable it is that clouds, of whatever class, are of one that the weights know.

    Args:
        predictor: weights that tell.
        clouds: z up.
        up: see `evaluate`.
        batch_size: shapes the net sees at once.
        watch: wraps the answers, to show progress.
    """
    answers = predictor.predict(iter(clouds.points), up=up, top=1, batch_size=batch_size)
    return np.array([answer.known for answer in watch(answers)], dtype=np.float64)


def flagged(known: np.ndarray) -> float:
    """Share of (S,) shapes that are marked as of no class that the weights know."""
    return float((known < LITTLE_KNOWN).mean())


def auroc(score: np.ndarray, own: np.ndarray) -> float:
    """Of pairs of (S,) own shapes and others, the share in which the own one has the larger score; half of equal ones."""
    first, second = score[own][:, None], score[~own]
    return float(((first > second) + 0.5 * (first == second)).mean())


def _scale(vote: int, number: int) -> np.ndarray:
    if vote == 0:
        return np.ones(3, dtype=np.float32)
    return np.exp(np.random.default_rng((vote, number)).uniform(-1, 1, 3) * np.log(1.25)).astype(np.float32)


def _axes(count: int) -> list[tuple[str, int]]:
    rng = np.random.default_rng(0)
    axes = rng.integers(len(UP_AXES), size=count)
    return [(UP_AXES[axis], int(quarter)) for axis, quarter in zip(axes, rng.integers(4, size=count), strict=True)]


def _turn(cloud: np.ndarray, axis: str, quarter: int) -> np.ndarray:
    about_z = np.linalg.matrix_power(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), quarter)
    return (cloud @ about_z.T @ TO_Z_UP[axis]).astype(np.float32)


@dataclass(frozen=True)
class Robustness:
    """Error of weights on damaged clouds.

    Attributes:
        clean: share of the undamaged shapes that got a wrong class.
        errors: the same for each corruption, one value a severity, mildest first.
        one_sided: the same for what is seen of the shapes from each of `DIRECTIONS`.
    """

    clean: float
    errors: dict[str, list[float]]
    one_sided: list[float]

    @property
    def mean(self) -> float:
        """Mean corruption error: over all corruptions and severities, not divided by another net's."""
        return float(np.mean(list(self.errors.values())))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "clean_error": self.clean,
            "mean_corruption_error": self.mean,
            "mean_one_sided_error": float(np.mean(self.one_sided)),
            "corruptions": self.errors | {"one side, 12 directions": self.one_sided},
        }


def robustness(
    predictor: Predictor, clouds: CloudSet, *, batch_size: int = 32, watch: Callable[[Iterable[Any], int], Iterable[Any]]
) -> Robustness:
    """Measure errors under every corruption and severity, and from one side, z up given.

    Args:
        predictor: the weights under test.
        clouds: undamaged shapes.
        batch_size: shapes the net sees at once.
        watch: wraps the passes, with their number, to show progress.

    Raises:
        DataError: as `evaluate`.
    """
    measured = partial(evaluate, predictor, batch_size=batch_size)
    errors: dict[str, list[float]] = {name: [] for name in CORRUPTIONS}
    one_sided: list[float] = []
    clean = 1 - measured(clouds).overall_accuracy

    def passes() -> Iterator[None]:
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                damaged = replace(clouds, points=corrupt(clouds.points, name, severity))
                errors[name].append(1 - measured(damaged).overall_accuracy)
                yield
        for direction in DIRECTIONS:
            seen = np.empty(len(clouds), dtype=object)  # each shows as many points as it does
            seen[:] = [seen_from(cloud, *direction) for cloud in clouds.points]
            one_sided.append(1 - measured(replace(clouds, points=seen)).overall_accuracy)
            yield

    for _ in watch(passes(), len(CORRUPTIONS) * len(SEVERITIES) + len(DIRECTIONS)):
        pass
    return Robustness(clean, errors, one_sided)
