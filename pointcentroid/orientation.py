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
import torch
from torch import Tensor

from pointcentroid.geometry.orientation import TO_Z_UP, UP_AXES
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.weights import find_weights, load_weights

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
def _rotations() -> tuple[Tensor, Tensor]:
    """The six rotations, (6, 3, 3), and where each sends the axes: `moved[r, a]` is the index of R_r's image of axis a."""
    matrices = np.stack([TO_Z_UP[up] for up in UP_AXES])
    axes = np.stack([TO_Z_UP[up].T @ np.array([0.0, 0.0, 1.0]) for up in UP_AXES])
    images = np.einsum("rij,aj->rai", matrices, axes)
    moved = (images @ axes.T).argmax(axis=2)
    return torch.from_numpy(matrices).float(), torch.from_numpy(moved)


class UprightNet:
    """Scores the six axes of clouds in their files' own frames.

    Args:
        device: where to run.
    """

    def __init__(self, device: torch.device) -> None:
        tensors, card = load_weights(find_weights("upright"))
        self.device = device
        self.net = CentroidClassifier.from_tensors(card.model, tensors).to(device)

    @torch.inference_mode()
    def log_probabilities(self, clouds: Tensor) -> Tensor:
        """Log-probability of each axis, prior included.

        Args:
            clouds: (B, N, 3) preprocessed clouds, in farthest-point order for their first `UPRIGHT_POINTS` points.

        Returns:
            (B, 6), in the order of `UP_AXES`.
        """
        first = self._scores(clouds, _FIRST_LOOK)
        result = _with_prior(first)
        doubtful = result.amax(dim=1) < math.log(CERTAIN_AT_ONCE)
        if doubtful.any():
            further = self._scores(clouds[doubtful], _FURTHER_LOOKS)
            result[doubtful] = _with_prior(torch.cat([first[doubtful], further], dim=1))
        return result

    def _scores(self, clouds: Tensor, looks: list[str]) -> Tensor:
        """(B, looks, 6) log-probabilities of the net, for the cloud turned so that each of some axes lies up."""
        seen = clouds[:, :UPRIGHT_POINTS].to(self.device)
        chosen = [UP_AXES.index(look) for look in looks]
        rotations, moved = (tensor[chosen].to(self.device) for tensor in _rotations())
        turned = torch.einsum("rij,bnj->brni", rotations, seen).flatten(0, 1)
        logits = self.net(turned, ordered=True).view(len(seen), len(looks), len(UP_AXES))
        # The score that rotation r gives to the image of axis a belongs to axis a.
        return logits.log_softmax(dim=2).gather(2, moved.expand(len(seen), -1, -1))

    def candidates(self, clouds: Tensor) -> list[UpCandidate]:
        """The axes worth looking at: for each cloud the best one, or the best few unless that one is certain.

        Args:
            clouds: as for `log_probabilities`.

        Returns:
            One or `CANDIDATES` entries for each cloud, the most probable first.
        """
        best = self.log_probabilities(clouds).topk(CANDIDATES, dim=1)
        found = []
        for row, (values, axes) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            count = 1 if values[0] > math.log(CERTAIN) else CANDIDATES
            found += [UpCandidate(row, UP_AXES[axes[k]], values[k]) for k in range(count)]
        return found


def _with_prior(scores: Tensor) -> Tensor:
    """(B, looks, 6) scores -> (B, 6) log-probabilities."""
    prior = scores.new_tensor([PRIOR[up] for up in UP_AXES]).log()
    return (scores.mean(dim=1) + prior).log_softmax(dim=1)
