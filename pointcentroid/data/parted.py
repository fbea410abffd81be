"""Clouds that know their parts, for nets that learn to find them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pointcentroid.config import PartsConfig, TrainConfig
from pointcentroid.data.augment import CounterRandom, augmented, normalised
from pointcentroid.data.clouds import CloudSet
from pointcentroid.data.module import CloudData
from pointcentroid.data.ordered import Batch, Clouds
from pointcentroid.errors import DataError
from pointcentroid.geometry.fps import farthest_order
from pointcentroid.geometry.neighbours import gather_points

NAMELESS = 256
"""Added to the number of a part whose name no longer holds: no part of a data set has a number as large."""


class PartedClouds(Clouds):
    """Clouds with the part of each point in the place of labels.

    Args:
        clouds: the data set; it knows parts.
        rows: which of its clouds, (S,).
    """

    def __init__(self, clouds: CloudSet, rows: np.ndarray) -> None:
        assert clouds.parts is not None
        self.points, self.parts = clouds.points[rows], clouds.parts[rows]

    def __len__(self) -> int:
        return len(self.points)

    def __getitems__(self, index: list[int]) -> Batch:
        parts = torch.from_numpy(self.parts[index].astype(np.int64))
        return torch.from_numpy(self.points[index]), parts, torch.tensor(index, dtype=torch.int64)


class PartedData(CloudData):
    """As `CloudData`; batches have (B, N) parts of points in the place of labels.

    A training cloud is a random choice of `preprocess.points` of the points that the data set has of its shape. A cloud that
    is turned loses the names of its parts, but not the parts: what is left of a chair is at the back of another.

    Args:
        config: the run; its `model` is a `PartsConfig`.
        clouds: the data set.

    Raises:
        DataError: the clouds know no parts, or others than the model has names for; or see `CloudData`.
    """

    def __init__(self, config: TrainConfig, clouds: CloudSet) -> None:
        assert isinstance(config.model, PartsConfig)
        if clouds.parts is None:
            raise DataError(
                f"{config.data}: no parts of points; expected an npz file with `parts`, as tools/make_parts.py writes it"
            )
        if len(clouds.part_names) != config.model.names:
            found = len(clouds.part_names)
            raise DataError(f"{config.data}: {found} names of parts, but model.names={config.model.names}; make it {found}")
        super().__init__(config, clouds)

    def _chosen(self, clouds: CloudSet, rows: np.ndarray) -> Clouds:
        return PartedClouds(clouds, rows)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002, the name is Lightning's
        """Vary training batches; put all of them in farthest-point order."""
        points, parts, samples = batch
        seen, seeds = self.config.preprocess.points, self.config.model.seeds
        if not (self.trainer and self.trainer.training):
            return *as_seen(points[:, :seen], parts[:, :seen], seeds), samples
        random = CounterRandom(self.config.seed, self.trainer.current_epoch, samples)
        chosen = random.uniform(points.shape[1]).argsort(dim=1)[:, :seen]
        points, angle = augmented(gather_points(points, chosen), random, self.config.augment)
        parts = parts.gather(1, chosen) + NAMELESS * (angle != 0).unsqueeze(1)
        return *as_seen(points, parts, seeds, (random.uniform(1)[:, 0] * seen).long()), samples


def as_seen(points: Tensor, parts: Tensor, seeds: int, start: str | Tensor = "farthest") -> tuple[Tensor, Tensor]:
    """Clouds as a net sees them, with their parts: normalised, in farthest-point order.

    Args:
        points: (B, N, 3).
        parts: (B, N).
        seeds: how many points to put in that order.
        start: see `farthest_point_sampling`.
    """
    points = normalised(points)
    order = farthest_order(points, seeds, start)
    return gather_points(points, order), parts.gather(1, order)
