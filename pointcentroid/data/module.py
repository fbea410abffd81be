"""The Lightning data module: clouds in memory, in farthest-point order, batched by index."""

from __future__ import annotations

from collections.abc import Sequence

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pointcentroid.config import TrainConfig
from pointcentroid.data.augment import CounterRandom, augment, reorient
from pointcentroid.data.sources import CloudSet, load_clouds, split_validation
from pointcentroid.errors import DataError
from pointcentroid.geometry.fps import farthest_first
from pointcentroid.geometry.neighbours import gather_points
from pointcentroid.geometry.orientation import UP_AXES

Batch = tuple[Tensor, Tensor, Tensor]
"""Clouds (B, N, 3), labels (B,), sample numbers (B,)."""


class OrderedClouds(Dataset[Batch]):
    """Clouds in farthest-point order, indexed a batch at a time.

    Args:
        clouds: the data set.
        prefix: how many points to put in farthest-point order.
        points: how many points, from the first, a cloud keeps.
    """

    def __init__(self, clouds: CloudSet, prefix: int, points: int) -> None:
        ordered = []
        for chunk in torch.from_numpy(clouds.points).split(64):
            order = farthest_first(chunk, prefix)[:, :points]
            ordered.append(gather_points(chunk, order))
        self.points = torch.cat(ordered)
        self.labels = torch.from_numpy(clouds.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, index: list[int]) -> Batch:
        rows = torch.tensor(index)
        return self.points[rows], self.labels[rows], rows


class CloudData(lightning.LightningDataModule):
    """Training and validation clouds of one run.

    Args:
        config: the run.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        clouds = load_clouds(config.data)
        if clouds.points.shape[1] < config.preprocess.sample:
            raise DataError(
                f"{config.data}: clouds of {clouds.points.shape[1]} points, fewer than "
                f"preprocess.sample={config.preprocess.sample}"
            )
        self.classes = UP_AXES if config.augment.reorient else clouds.classes
        if len(self.classes) != config.model.classes:
            raise DataError(f"{config.data}: {len(self.classes)} classes, but model.classes={config.model.classes}")
        first = config.model.encoder.stages[0].centroids
        seen = config.preprocess.points
        prefix = max(first, seen if seen < clouds.points.shape[1] else 0)
        training, validation = split_validation(clouds.labels)
        self.training = OrderedClouds(clouds.subset(training), prefix, seen)
        self.validation = OrderedClouds(clouds.subset(validation), prefix, seen)

    def train_dataloader(self) -> DataLoader:
        """Shuffled anew every epoch, by (seed, epoch) alone."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self.training))
        return _loader(self.training, self.config.batch_size, order.tolist())

    def val_dataloader(self) -> DataLoader:
        """In order, all of them."""
        return _loader(self.validation, 64, range(len(self.validation)))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002, the name is Lightning's
        """Vary training batches; give validation batches of an orientation net their fixed orientations."""
        points, labels, samples = batch
        training = bool(self.trainer and self.trainer.training)
        epoch = self.trainer.current_epoch if training and self.trainer else -1
        random = CounterRandom(self.config.seed if training else 0, epoch, samples)
        if training:
            points = augment(points, random, self.config.augment)
        if self.config.augment.reorient:
            points, labels = reorient(points, random)
        return points, labels, samples


def _loader(clouds: OrderedClouds, batch_size: int, order: Sequence[int]) -> DataLoader:
    # The data set returns whole batches, so there is nothing left to collate.
    return DataLoader(clouds, batch_size=batch_size, sampler=order, collate_fn=lambda batch: batch)
