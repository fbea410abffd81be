"""Which way is up? What `--up auto` does.

glTF, 3MF, LAS and LAZ fix the axis by standard. For every other format the classifier itself is asked: beside the classes it
has an output, `known`, that says whether a cloud is an upright shape of one of them, trained on clouds that lie wrong. It
looks at the cloud as it lies; where it knows that, one look is enough. Else it looks with y up, the other custom, and where
that is no clear answer either, with each of the remaining four. The most probable look wins: what the net says of it,
together with a prior, which holds what the formats' users do (z first, then y). docs/orientation.md says how the constants
were chosen, and what each of them brings.
"""

from __future__ import annotations

import numpy as np

from pointcentroid.geometry.axes import TO_Z_UP, UP_AXES
from pointcentroid.predict.nets import Answer, PredictingNet, log_softmax

FINDER = "small"
"""The weights that find the axis for nets that have no output for it."""

PRIOR: dict[str, float] = {"z": 0.8, "y": 0.15, "-y": 0.0125, "-z": 0.0125, "x": 0.0125, "-x": 0.0125}
"""Probability of each axis before the cloud is seen."""

CERTAIN: dict[str, float] = {"z": 2.0, "y": 3.0}
"""The axes that are looked at first, one after the other; the others follow all at once. Where `known`, a logit, of the best
look so far is larger than this, it was the last. The first look is at the cloud as it lies."""

PRIOR_WEIGHT = 1.0
CONFIDENCE_WEIGHT = 2.0
"""The look wins with the largest known + PRIOR_WEIGHT * log prior + CONFIDENCE_WEIGHT * log(highest class probability)."""


class UpFinder:
    """Finds the axis that points up in clouds in their files' own frames.

    Args:
        net: a classifier with the output `known`.
    """

    def __init__(self, net: PredictingNet) -> None:
        self.net = net

    def __call__(self, clouds: np.ndarray) -> tuple[list[str], Answer, int]:
        """Look until an axis is found.

        Args:
            clouds: (B, N, 3) preprocessed clouds, in the order that the net wants.

        Returns:
            For each cloud an entry of `UP_AXES`; what the net says of it with that axis up; and how many looks all took.
        """
        lists = self.net.neighbours(clouds)
        rest = [up for up in UP_AXES if up not in CERTAIN]
        found = [""] * len(clouds)
        answers: list[list[np.ndarray]] = [[]] * len(clouds)
        best, known = np.full((2, len(clouds)), -np.inf)
        pending, taken = np.arange(len(clouds)), 0
        for axes, certain in [*(([axis], least) for axis, least in CERTAIN.items()), (rest, np.inf)]:
            rows = np.repeat(pending, len(axes))
            taken += len(rows)
            seen = self.net(turned(clouds[rows], axes * len(pending)), {name: list_[rows] for name, list_ in lists.items()})
            score = scores(seen, axes * len(pending)).reshape(len(pending), len(axes))
            for number, cloud in enumerate(pending):
                look = int(score[number].argmax())
                if score[number, look] > best[cloud]:
                    answer = [output[number * len(axes) + look] for output in seen]
                    found[cloud], answers[cloud], best[cloud] = axes[look], answer, score[number, look]
                    known[cloud] = answer[-1]
            pending = pending[known[pending] <= certain]
            if not len(pending):
                break
        return found, Answer(*map(np.stack, zip(*answers, strict=True))), taken


def scores(looks: Answer, axes: list[str]) -> np.ndarray:
    """How probable each look is.

    Args:
        looks: what the net says of clouds, (..., A, ...).
        axes: the A that were up.

    Returns:
        (..., A) log-probabilities, up to a constant of each cloud.
    """
    prior = np.log([PRIOR[axis] for axis in axes])
    return looks.known + PRIOR_WEIGHT * prior + CONFIDENCE_WEIGHT * log_softmax(looks.logits).max(axis=-1)


def turned(clouds: np.ndarray, axes: list[str]) -> np.ndarray:
    """(B, N, 3) clouds, or (B, V, N, 3) with V votes each, turned so that the given axis of each points up."""
    if all(axis == "z" for axis in axes):
        return clouds
    matrices = np.stack([TO_Z_UP[axis].T for axis in axes]).astype(clouds.dtype)
    return clouds @ (matrices if clouds.ndim == 3 else matrices[:, None])
