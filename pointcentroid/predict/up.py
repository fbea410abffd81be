"""Which way is up? What `--up auto` does.

glTF, 3MF, LAS and LAZ fix the axis by standard. For every other format it is estimated: a small net, trained on clouds
turned every way, scores the six axes; its scores are added to a prior, which holds what the formats' users do (z first,
then y), and the six sums become probabilities. One look at the cloud as it lies is enough where that makes an axis all but
certain; elsewhere the net is averaged over the six ways to turn the cloud, so that turning the file turns the scores with
it. docs/orientation.md says how the prior and the thresholds were chosen.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from pointcentroid.geometry.axes import TO_Z_UP, UP_AXES
from pointcentroid.predict.nets import Runtime, at_least, log_softmax, open_net
from pointcentroid.weights import find_weights

PRIOR: dict[str, float] = {"z": 0.8, "y": 0.15, "-y": 0.0125, "-z": 0.0125, "x": 0.0125, "-x": 0.0125}
"""Probability of each axis before the cloud is seen."""

CERTAIN_AT_ONCE = 0.95
"""Where the best axis is less probable than this after one look, the cloud is looked at in all six ways."""

CERTAIN = 0.9
"""Where the best axis then is less probable than this, the classifier looks at the best `CANDIDATES`."""

CANDIDATES = 3
"""How many axes are looked at where none is certain."""

CONFIDENCE_WEIGHT = 3.0
"""Among candidates, the largest log p(axis) + CONFIDENCE_WEIGHT * log(highest class probability) wins."""

UPRIGHT_POINTS = 256
"""Points the net sees: the first ones in farthest-point order."""


_FIRST_LOOK = ["z"]  # the cloud as it lies
_FURTHER_LOOKS = [up for up in UP_AXES if up not in _FIRST_LOOK]


class UpCandidate(NamedTuple):
    """An axis that may point up in one of a batch of clouds.

    Attributes:
        row: which cloud.
        axis: one of `UP_AXES`.
        log_probability: prior included.
    """

    row: int
    axis: str
    log_probability: float


@cache
def _rotations() -> tuple[np.ndarray, np.ndarray]:
    """The six rotations, (6, 3, 3), and where each sends the axes: `moved[r, a]` is the index of R_r's image of axis a."""
    matrices = np.stack([TO_Z_UP[up] for up in UP_AXES])
    axes = np.stack([TO_Z_UP[up].T @ np.array([0.0, 0.0, 1.0]) for up in UP_AXES])
    images = np.einsum("rij,aj->rai", matrices, axes)
    moved = (images @ axes.T).argmax(axis=2)
    return matrices.astype(np.float32), moved


class UprightNet:
    """Scores the six axes of clouds in their files' own frames.

    Args:
        device: where to run.
        runtime: see `pointcentroid.predict.nets.open_net`.
    """

    def __init__(self, device: str = "auto", runtime: Runtime = "auto") -> None:
        self.net = open_net(find_weights("upright"), device, runtime)

    def log_probabilities(self, clouds: np.ndarray) -> np.ndarray:
        """Log-probability of each axis, prior included.

        Args:
            clouds: (B, N, 3) preprocessed clouds, in farthest-point order for their first `UPRIGHT_POINTS` points.

        Returns:
            (B, 6), in the order of `UP_AXES`.
        """
        first = self._scores(clouds, _FIRST_LOOK)
        result = _with_prior(first)
        doubtful = result.max(axis=1) < math.log(CERTAIN_AT_ONCE)
        if doubtful.any():
            further = self._scores(clouds[doubtful], _FURTHER_LOOKS)
            result[doubtful] = _with_prior(np.concatenate([first[doubtful], further], axis=1))
        return result

    def _scores(self, clouds: np.ndarray, looks: list[str]) -> np.ndarray:
        """(B, looks, 6) log-probabilities of the net, for the cloud turned so that each of some axes lies up."""
        seen = at_least(clouds[:, :UPRIGHT_POINTS], UPRIGHT_POINTS)
        chosen = [UP_AXES.index(look) for look in looks]
        rotations, moved = (table[chosen] for table in _rotations())
        turned = np.einsum("rij,bnj->brni", rotations, seen).reshape(-1, *seen.shape[1:])
        logits = self.net(turned)[0].reshape(len(seen), len(looks), len(UP_AXES))
        # The score that rotation r gives to the image of axis a belongs to axis a.
        return np.take_along_axis(log_softmax(logits), moved[None], axis=2)

    def candidates(self, clouds: np.ndarray) -> list[UpCandidate]:
        """The axes worth looking at: for each cloud the best one, or the best few unless that one is certain.

        Args:
            clouds: as for `log_probabilities`.

        Returns:
            One or `CANDIDATES` entries for each cloud, the most probable first.
        """
        found = []
        for row, values in enumerate(self.log_probabilities(clouds)):
            order = np.argsort(-values, kind="stable")
            count = 1 if values[order[0]] > math.log(CERTAIN) else CANDIDATES
            found += [UpCandidate(row, UP_AXES[axis], float(values[axis])) for axis in order[:count]]
        return found


def _with_prior(scores: np.ndarray) -> np.ndarray:
    """(B, looks, 6) scores -> (B, 6) log-probabilities."""
    return log_softmax(scores.mean(axis=1) + np.log([PRIOR[up] for up in UP_AXES]))
