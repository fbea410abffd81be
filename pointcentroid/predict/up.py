"""Which way is up? What `--up auto` does.

The classifier itself is asked: beside the classes it has an output, `known`, that says whether a cloud is an upright shape
of one of them, trained on clouds that lie wrong. It looks at the cloud as it lies by the standard of its format, or by
custom where there is none; where it knows that, one look is enough. Else it looks with the other of z and y up, and where
that is no clear answer either, with each of the remaining four. Where both customs are as common, it looks at both at once.
What it does not know then may lean, as scans do: it looks along the six axes of the smallest box around the shape as well.
The most probable look wins: what the net says of it, together with a prior, which holds what the formats' users do. What the
shape is, is then the mean of what all looks say, each by its probability, so that a doubtful axis makes a doubtful answer.
docs/orientation.md says how the constants were chosen, and what each of them brings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from pointcentroid.errors import ConfigError
from pointcentroid.geometry.axes import TO_Z_UP, UP_AXES
from pointcentroid.geometry.box import angle, box_frame
from pointcentroid.io import STANDARD_UP
from pointcentroid.predict.nets import Answer, PredictingNet, log_softmax, ordered

Up = Literal["auto", "x", "-x", "y", "-y", "z", "-z"]


@dataclass(frozen=True, eq=False)
class Custom:
    """How files of a format lie.

    Attributes:
        first: the axes that are looked at first, some at once, one group after the other; the others follow all at once.
        prior: probability of each axis before the cloud is seen.
        leaning: that of all looks along a box together, beside those of the axes, which sum to one.
    """

    first: tuple[tuple[str, ...], ...]
    prior: dict[str, float]
    leaning: float = 0.1


Z_UP = Custom((("z",), ("y",)), {"z": 0.8, "y": 0.15} | dict.fromkeys(("-z", "-y", "x", "-x"), 0.0125))
EITHER_UP = Custom((("z", "y"),), {"z": 0.3, "y": 0.65} | dict.fromkeys(("-z", "-y", "x", "-x"), 0.0125))
_OF_STANDARDS = {
    axis: Custom(
        ((axis,), (other,)), {axis: 0.999, other: 0.0005} | dict.fromkeys(("-z", "-y", "x", "-x"), 0.000125), leaning=0.001
    )
    for axis, other in ("zy", "yz")
}
CUSTOMS = {".obj": EITHER_UP} | {suffix: _OF_STANDARDS[axis] for suffix, axis in STANDARD_UP.items()}
"""Of formats whose files do not lie as `Z_UP`. Programs that draw write OBJ with y up, others with z up. Nearly all files
keep to their format's standard, but simulators write glTF with z up, and in 3MF a shape lies as it is printed best."""

CERTAIN = 3.5
"""Where `known`, a logit, of the best look so far is larger than this, no more are taken. A net trained on more foreign
clouds than a tenth is surer that a cloud is one, and looks more often."""

PRIOR_WEIGHT = 1.0
CONFIDENCE_WEIGHT = 2.0
"""The look wins with the largest known + PRIOR_WEIGHT * log(prior) + CONFIDENCE_WEIGHT * log(highest class probability)."""

SPREAD = 2.5
"""The looks' probabilities are the softmax of those sums, divided by this."""

LEAST_ANGLE = 15.0
"""Degrees; a box that is nearer to the file's axes shows nothing new."""

_BOX = list(range(len(UP_AXES), 2 * len(UP_AXES)))
_TURNS = np.stack([TO_Z_UP[axis] for axis in UP_AXES])


def given_turn(up: str | np.ndarray) -> np.ndarray | None:
    """The rotation that a given `up` stands for.

    Args:
        up: `"auto"`, one of `UP_AXES`, or the rotation itself.

    Returns:
        (3, 3) float64; None where it is to be found.

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(up, str):
        if up != "auto" and up not in UP_AXES:
            raise ConfigError(f"up must be 'auto' or one of {', '.join(UP_AXES)}, found {up!r}")
        return TO_Z_UP.get(up)
    try:
        turn = np.asarray(up, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"up must be 'auto', an axis, or a (3, 3) rotation; found {up!r}") from None
    if turn.shape != (3, 3) or not np.allclose(turn @ turn.T, np.eye(3), atol=1e-6) or np.linalg.det(turn) < 0:
        raise ConfigError("up must be 'auto', an axis, or a (3, 3) rotation; found an array that is none")
    return turn


class Found(NamedTuple):
    """What looking at clouds found. Of the W = 12 looks, six are along `UP_AXES` and six along the axes of the box.

    Attributes:
        turns: (B, 3, 3) float64, R; `cloud @ R.T` is the cloud as the most probable look shows it.
        answer: what the net says of that look.
        chosen: (B,) int64, which one it is.
        shares: (B, W) float64 the probability of each look, 0 for those that were not taken.
        logits: (B, W, classes) what the net says of each look; 0 for those that were not taken.
        looks: how many all took.
    """

    turns: np.ndarray
    answer: Answer
    chosen: np.ndarray
    shares: np.ndarray
    logits: np.ndarray
    looks: int


class UpFinder:
    """Finds how clouds in their files' own frames stand upright.

    Args:
        net: a classifier with the output `known`.
    """

    def __init__(self, net: PredictingNet) -> None:
        self.net = net

    def __call__(self, clouds: np.ndarray, custom: Custom = Z_UP) -> Found:
        """Look until a shape is known.

        Args:
            clouds: (B, N, 3) preprocessed clouds, in the order that the net wants, B >= 1.
            custom: how clouds of their kind lie.
        """
        lists = self.net.neighbours(clouds)
        prior = np.array([*(custom.prior[axis] for axis in UP_AXES), *([custom.leaning / len(_BOX)] * len(_BOX))])
        turns = np.tile(_TURNS, (len(clouds), 2, 1, 1))
        score = np.full(turns.shape[:2], -np.inf)
        table: list[np.ndarray] = []  # of logits, features and known of all looks

        def look(pending: np.ndarray, ways: list[int]) -> np.ndarray:
            """Fill in the table for some clouds and looks; those of the clouds that are not known then."""
            nonlocal table
            if not len(pending):
                return pending
            rows, columns = np.repeat(pending, len(ways)), np.tile(ways, len(pending))
            seen = self.net(turned(clouds[rows], turns[rows, columns]), {name: list_[rows] for name, list_ in lists.items()})
            table = table or [np.zeros((*score.shape, *output.shape[1:]), output.dtype) for output in seen]
            for outputs, output in zip(table, seen, strict=True):
                outputs[rows, columns] = output
            score[rows, columns] = scores(seen, prior[columns])
            return pending[table[-1][pending, score[pending].argmax(axis=1)] <= CERTAIN]

        every = pending = np.arange(len(clouds))
        for axes in steps(custom):
            pending = look(pending, [UP_AXES.index(axis) for axis in axes])
        look(_put_in_boxes(clouds, pending, turns), _BOX)
        chosen = score.argmax(axis=1)
        answer = Answer(*(outputs[every, chosen] for outputs in table))
        return Found(turns[every, chosen], answer, chosen, shares_of(score), table[0], int(np.isfinite(score).sum()))

    def turn_of(self, cloud: np.ndarray, name: str) -> np.ndarray:
        """(3, 3) R, with which `cloud @ R.T` has z up.

        Args:
            cloud: (N, 3), preprocessed, in the frame of its file.
            name: of the file, whose format has a custom.
        """
        return self(ordered(np.ascontiguousarray(cloud[None], np.float32), self.net.card), custom_of(name)).turns[0]


def _put_in_boxes(clouds: np.ndarray, rows: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Set the last six turns of some clouds to those along their boxes; the rows of those that differ from the axes."""
    leaning = []
    for row in rows:
        frame = box_frame(clouds[row])
        if angle(frame) >= LEAST_ANGLE:
            turns[row, _BOX] = _TURNS @ frame
            leaning.append(row)
    return np.array(leaning, dtype=rows.dtype)


def shares_of(score: np.ndarray) -> np.ndarray:
    """(..., W) `scores` of looks, -inf where none was taken -> (..., W) their probabilities."""
    return np.exp(log_softmax(score / SPREAD))


def steps(custom: Custom) -> list[list[str]]:
    """The axes that are looked at at once, one list after the other, all of them in the end."""
    first = [axis for axes in custom.first for axis in axes]
    return [*map(list, custom.first), [axis for axis in UP_AXES if axis not in first]]


def custom_of(name: str) -> Custom:
    """How files of such a name lie."""
    return CUSTOMS.get(Path(name).suffix.lower(), Z_UP)


def scores(looks: Answer, prior: np.ndarray) -> np.ndarray:
    """How much speaks for each look.

    Args:
        looks: what the net says of clouds, (..., W, ...).
        prior: (W,) the probability of each before the cloud is seen.

    Returns:
        (..., W) sums of which the largest wins.
    """
    return looks.known + PRIOR_WEIGHT * np.log(prior) + CONFIDENCE_WEIGHT * log_softmax(looks.logits).max(axis=-1)


def turned(clouds: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Turn clouds.

    Args:
        clouds: (B, N, 3), or (B, V, N, 3) with V votes each.
        turns: (B, 3, 3) rotations; `cloud @ R.T` is the cloud turned.
    """
    if (turns == np.eye(3)).all():
        return clouds
    matrices = turns.transpose(0, 2, 1).astype(clouds.dtype)
    return clouds @ (matrices if clouds.ndim == 3 else matrices[:, None])
