"""Which way is up? What `--up auto` does.

glTF, 3MF, LAS and LAZ fix the axis by standard. For every other format the classifier itself is asked: beside the classes it
has an output, `known`, that says whether a cloud is an upright shape of one of them, trained on clouds that lie wrong. It
looks at the cloud as it lies; where it knows that, one look is enough. Else it looks with y up, the other custom, and where
that is no clear answer either, with each of the remaining four. Where both customs are as common, it looks at both at once.
The most probable look wins: what the net says of it, together with a prior, which holds what the formats' users do. What the
shape is, is then the mean of what all looks say, each by its probability, so that a doubtful axis makes a doubtful answer.
docs/orientation.md says how the constants were chosen, and what each of them brings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pointcentroid.errors import ConfigError
from pointcentroid.geometry.axes import TO_Z_UP, UP_AXES
from pointcentroid.predict.nets import Answer, PredictingNet, log_softmax

FINDER = "small"
"""The weights that find the axis for nets that have no output for it."""


@dataclass(frozen=True, eq=False)
class Custom:
    """How files of a format lie.

    Attributes:
        first: the axes that are looked at first, some at once, one group after the other; the others follow all at once.
        prior: probability of each axis before the cloud is seen.
    """

    first: tuple[tuple[str, ...], ...]
    prior: dict[str, float]


Z_UP = Custom((("z",), ("y",)), {"z": 0.8, "y": 0.15} | dict.fromkeys(("-z", "-y", "x", "-x"), 0.0125))
EITHER_UP = Custom((("z", "y"),), {"z": 0.3, "y": 0.65} | dict.fromkeys(("-z", "-y", "x", "-x"), 0.0125))
CUSTOMS = {".obj": EITHER_UP}
"""Of formats whose files do not lie as `Z_UP`. Programs that draw write OBJ with y up, others with z up."""

CERTAIN = 3.5
"""Where `known`, a logit, of the best look so far is larger than this, no more are taken. A net trained on more foreign
clouds than a tenth is surer that a cloud is one, and looks more often."""

PRIOR_WEIGHT = 1.0
CONFIDENCE_WEIGHT = 2.0
"""The look wins with the largest known + PRIOR_WEIGHT * log(prior) + CONFIDENCE_WEIGHT * log(highest class probability)."""

SPREAD = 2.5
"""The looks' probabilities are the softmax of those sums, divided by this."""


def check_up(up: str) -> None:
    """Refuse what is no axis.

    Raises:
        ConfigError: it is neither `"auto"` nor one of `UP_AXES`.
    """
    if up != "auto" and up not in UP_AXES:
        raise ConfigError(f"up must be 'auto' or one of {', '.join(UP_AXES)}, found {up!r}")


class Found(NamedTuple):
    """What looking at clouds along their axes found.

    Attributes:
        axes: for each cloud the most probable entry of `UP_AXES`.
        answer: what the net says of it with that axis up.
        shares: (B, A) float64 the probability of each of `UP_AXES`, 0 for those that were not tried.
        logits: (B, A, classes) what the net says of each look; 0 for those that were not taken.
        looks: how many all took.
    """

    axes: list[str]
    answer: Answer
    shares: np.ndarray
    logits: np.ndarray
    looks: int


class UpFinder:
    """Finds the axis that points up in clouds in their files' own frames.

    Args:
        net: a classifier with the output `known`.
    """

    def __init__(self, net: PredictingNet) -> None:
        self.net = net

    def __call__(self, clouds: np.ndarray, custom: Custom = Z_UP) -> Found:
        """Look until an axis is found.

        Args:
            clouds: (B, N, 3) preprocessed clouds, in the order that the net wants, B >= 1.
            custom: how clouds of their kind lie.
        """
        lists = self.net.neighbours(clouds)
        score = np.full((len(clouds), len(UP_AXES)), -np.inf)
        table: list[np.ndarray] = []  # of logits, features and known of all looks
        every, pending, looks = np.arange(len(clouds)), np.arange(len(clouds)), 0
        for axes in steps(custom):
            rows = np.repeat(pending, len(axes))
            looks += len(rows)
            seen = self.net(turned(clouds[rows], axes * len(pending)), {name: list_[rows] for name, list_ in lists.items()})
            table = table or [np.zeros((*score.shape, *output.shape[1:]), output.dtype) for output in seen]
            places = rows, np.tile([UP_AXES.index(axis) for axis in axes], len(pending))
            for outputs, output in zip(table, seen, strict=True):
                outputs[places] = output
            score[places] = scores(seen, axes * len(pending), custom.prior)
            pending = pending[table[-1][pending, score[pending].argmax(axis=1)] <= CERTAIN]
            if not len(pending):
                break
        best = score.argmax(axis=1)
        answer = Answer(*(outputs[every, best] for outputs in table))
        return Found([UP_AXES[axis] for axis in best], answer, shares_of(score), table[0], looks)


def shares_of(score: np.ndarray) -> np.ndarray:
    """(..., A) `scores` of looks, -inf where none was taken -> (..., A) their probabilities."""
    return np.exp(log_softmax(score / SPREAD))


def steps(custom: Custom) -> list[list[str]]:
    """The axes that are looked at at once, one list after the other, all of them in the end."""
    first = [axis for axes in custom.first for axis in axes]
    return [*map(list, custom.first), [axis for axis in UP_AXES if axis not in first]]


def custom_of(name: str) -> Custom:
    """How files of such a name lie."""
    return CUSTOMS.get(Path(name).suffix.lower(), Z_UP)


def scores(looks: Answer, axes: list[str], prior: dict[str, float]) -> np.ndarray:
    """How much speaks for each look.

    Args:
        looks: what the net says of clouds, (..., A, ...).
        axes: the A that were up.
        prior: see `Custom`.

    Returns:
        (..., A) sums of which the largest wins.
    """
    before = np.log([prior[axis] for axis in axes])
    return looks.known + PRIOR_WEIGHT * before + CONFIDENCE_WEIGHT * log_softmax(looks.logits).max(axis=-1)


def turned(clouds: np.ndarray, axes: list[str]) -> np.ndarray:
    """(B, N, 3) clouds, or (B, V, N, 3) with V votes each, turned so that the given axis of each points up."""
    if all(axis == "z" for axis in axes):
        return clouds
    matrices = np.stack([TO_Z_UP[axis].T for axis in axes]).astype(clouds.dtype)
    return clouds @ (matrices if clouds.ndim == 3 else matrices[:, None])
