"""Which way is up? What `--up auto` does.

glTF, 3MF, LAS and LAZ fix the axis by standard. For every other format the classifier itself is asked: beside the classes it
has an output, `known`, that says whether a cloud is an upright shape of one of them, trained on clouds that lie wrong. It
looks at the cloud as it lies; where it knows that, one look is enough. Else it looks with each of the other five axes up as
well, and the most probable look wins: what the net says of it, together with a prior, which holds what the formats' users do
(z first, then y). docs/orientation.md says how the constants were chosen, and what each of them brings.
"""

from __future__ import annotations

import numpy as np

from pointcentroid.geometry.axes import TO_Z_UP, UP_AXES
from pointcentroid.predict.nets import Answer, PredictingNet, log_softmax

FINDER = "small"
"""The weights that find the axis for nets that have no output for it."""

PRIOR: dict[str, float] = {"z": 0.8, "y": 0.15, "-y": 0.0125, "-z": 0.0125, "x": 0.0125, "-x": 0.0125}
"""Probability of each axis before the cloud is seen."""

FIRST = "z"
"""The axis that the first look takes to be up: the cloud as it lies."""

CERTAIN = 2.0
"""Where `known` is larger than this, a logit, at the first look, there is no other."""

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
        first = self.net(turned(clouds, [FIRST] * len(clouds)))
        axes = [FIRST] * len(clouds)
        doubtful = np.flatnonzero(first.known <= CERTAIN)
        if not len(doubtful):
            return axes, first, len(clouds)
        others = [up for up in UP_AXES if up != FIRST]
        further = self.net(turned(np.repeat(clouds[doubtful], len(others), axis=0), others * len(doubtful)))
        # Rows of looks: the first of each doubtful cloud, then its others.
        row = np.arange(len(doubtful) * len(others)).reshape(len(doubtful), len(others))
        looks = Answer(
            *(np.concatenate([a[doubtful][:, None], b[row]], axis=1) for a, b in zip(first, further, strict=True))
        )
        best = scores(looks, [FIRST, *others]).argmax(axis=1)
        for number, cloud in enumerate(doubtful):
            axes[cloud] = [FIRST, *others][best[number]]
            for whole, seen in zip(first, looks, strict=True):
                whole[cloud] = seen[number, best[number]]
        return axes, first, len(clouds) + row.size


def scores(looks: Answer, axes: list[str]) -> np.ndarray:
    """How probable each look is.

    Args:
        looks: what the net says of B clouds, (B, A, ...), with each of A axes up.
        axes: those.

    Returns:
        (B, A) log-probabilities, up to a constant of each cloud.
    """
    prior = np.log([PRIOR[axis] for axis in axes])
    return looks.known + PRIOR_WEIGHT * prior + CONFIDENCE_WEIGHT * log_softmax(looks.logits).max(axis=2)


def turned(clouds: np.ndarray, axes: list[str]) -> np.ndarray:
    """(B, N, 3) clouds, or (B, V, N, 3) with V votes each, turned so that the given axis of each points up."""
    matrices = np.stack([TO_Z_UP[axis] for axis in axes]).astype(clouds.dtype)
    return np.einsum("bij,b...nj->b...ni", matrices, clouds)
