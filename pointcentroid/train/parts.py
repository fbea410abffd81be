"""Training to find parts: which points are of one part, and what a part is called."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pointcentroid.config import PartsConfig, TrainConfig
from pointcentroid.data.ordered import Batch
from pointcentroid.evaluate.parting import agreements, clusters
from pointcentroid.nn.parts import PartsNet, squared_distances
from pointcentroid.train.module import NetTraining

_PAIRED = 256  # points of each cloud whose pairs are compared in a step
_NAMED = 0.3  # weight of the names
_SCALE = 6.0  # of the cosine between a feature and what stands for a name
_FARTHEST = 8.0  # squared distance from which two points of one part pull no more


class PartsTraining(NetTraining):
    """A net of parts in training.

    Two points are of one part with the probability exp(-|z_i - z_j|^2): the loss is minus the mean logarithm of it over the
    pairs that are, and of the opposite over those that are not, cloud by cloud. Features are told apart by the names of
    the parts, where those have any: cross entropy of cosines, as in face recognition (Wang et al., "NormFace", 2017).

    The validation figures are the agreement with the parts (see `pointcentroid.evaluate.agreement`), and that of as many
    Voronoi cells.

    Args:
        config: the run; its `model` is a `PartsConfig`.
    """

    headline, better = "validation_agreement", "max"
    net: PartsNet

    def __init__(self, config: TrainConfig) -> None:
        assert isinstance(config.model, PartsConfig)
        super().__init__(config)

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """Loss on one batch, or on one process's share of it."""
        points, parts, _samples = batch
        self.seed_layers(number)
        rows = torch.randperm(points.shape[1])[:_PAIRED].to(points.device)
        parts = parts[:, rows]
        seen = self.run_net(points, ordered=True, size=len(points))
        with torch.autocast(points.device.type, enabled=False):
            loss = pair_loss(seen.at(seen.z, rows), parts)
            if self.net.names is not None:
                scores = self.net.names(_SCALE * nn.functional.normalize(seen.at(seen.features, rows), dim=2))
                named = parts < scores.shape[2]
                # Where nothing is named, the layer takes part all the same: other processes wait for its gradient.
                named_loss = (
                    nn.functional.cross_entropy(scores[named], parts[named], label_smoothing=0.1)
                    if named.any()
                    else scores.sum() * 0
                )
                loss = loss + _NAMED * named_loss
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(points))
        return self.checked(loss, len(points), number)

    @property
    def called(self):
        """See `NetTraining.called`."""
        return self.net.embed

    def validation_step(self, batch: Batch, _: int) -> None:
        """Metrics on one batch, accumulated over the validation set; in full precision."""
        points, parts, _samples = batch
        with torch.autocast(points.device.type, enabled=False):
            found, cells = clusters(self.net, points)
        values = {
            "validation_agreement": float(np.mean(agreements(found, parts))),
            "validation_cells": float(np.mean(agreements(cells, parts))),
        }
        self.log_dict(values, batch_size=len(points), sync_dist=True)


def pair_loss(z: Tensor, parts: Tensor) -> Tensor:
    """How badly exp(-|z_i - z_j|^2) says which points are of one part.

    Args:
        z: (B, R, Z) embedded points.
        parts: (B, R) int64, the part of each.

    Returns:
        A scalar: the mean over clouds of the two means, over pairs of one part and over pairs of two.
    """
    apart = squared_distances(z, z)
    same = parts.unsqueeze(2) == parts.unsqueeze(1)
    other = ~same
    same = same & ~torch.eye(parts.shape[1], dtype=torch.bool, device=parts.device)
    pull = (apart.clamp_max(_FARTHEST) * same).sum(dim=(1, 2)) / same.sum(dim=(1, 2)).clamp_min(1)
    far = -torch.log1p(-(-apart.clamp_min(1e-3)).exp())
    push = (far * other).sum(dim=(1, 2)) / other.sum(dim=(1, 2)).clamp_min(1)
    return (pull + push).mean()
