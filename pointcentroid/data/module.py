"""The Lightning data module: the same batches on any number of processes."""

from __future__ import annotations

from collections.abc import Sequence

import lightning
import numpy as np
from torch import nn
from torch.utils.data import DataLoader

from pointcentroid.config import ClassifierConfig, TrainConfig
from pointcentroid.data.augment import CounterRandom, augment, mix, reseed
from pointcentroid.data.clouds import FOREIGN, CloudSet
from pointcentroid.data.damage import damage
from pointcentroid.data.foreign import make_foreign
from pointcentroid.data.ordered import Batch, Clouds, OrderedClouds
from pointcentroid.errors import ConfigError, DataError


class CloudData(lightning.LightningDataModule):
    """Training and validation clouds of one run.

    `batch_size` clouds make one step however many processes share them: process r of W takes every W-th cloud of each batch.

    Args:
        config: the run.
        clouds: the data set.

    Raises:
        DataError: the clouds do not fit the configuration, or a class has too few of them.
    """

    def __init__(self, config: TrainConfig, clouds: CloudSet) -> None:
        super().__init__()
        self.config, self.fingerprint = config, clouds.fingerprint
        sample = config.preprocess.sample
        if clouds.points.shape[1] < sample:
            found = clouds.points.shape[1]
            fewer = f"add preprocess.sample={found} preprocess.points={found}"
            raise DataError(f"{config.data}: clouds of {found} points, fewer than preprocess.sample={sample}; {fewer}")
        training, validation = clouds.part("training"), clouds.part("validation")
        if config.split == "all":
            training = np.union1d(training, validation)
        if config.no_class:
            clouds = clouds.without_class(config.no_class)
            validation = validation[clouds.labels[validation] != FOREIGN]
        self.classes = clouds.classes
        if isinstance(config.model, ClassifierConfig):
            self._check_classes(config.model.classes, clouds, training)
        if not len(training):
            raise DataError(f"{config.data}: no shapes to train on: all {len(validation)} are for validation")
        if not len(validation):
            raise DataError(
                f"{config.data}: too few shapes to set some aside for validation; at least 6 of a class are needed"
            )
        self.training, self.validation = self._chosen(clouds, training), self._chosen(clouds, validation)

    def _chosen(self, clouds: CloudSet, rows: np.ndarray) -> Clouds:
        return OrderedClouds(clouds, rows, self.config.model.seeds, self.config.preprocess.points)

    def _check_classes(self, wanted: int, clouds: CloudSet, training: np.ndarray) -> None:
        found = len(self.classes)
        if found < 2:
            raise DataError(f"{self.config.data}: {found} class; at least 2 are needed, for a net to tell them apart")
        if found != wanted:
            raise DataError(f"{self.config.data}: {found} classes, but model.classes={wanted}; add model.classes={found}")
        for number, name in enumerate(clouds.classes):
            count = int((clouds.labels[training] == number).sum())
            if count < 2:
                raise DataError(f"{self.config.data}: {count} training shapes of the class {name!r}; at least 2 are needed")

    def check_shares(self, processes: int) -> None:
        """Check that batches can be shared.

        Args:
            processes: how many will share them.

        Raises:
            ConfigError: `batch_size` is no multiple of their number, or there are more of them than shapes.
        """
        for name, clouds in (("training", self.training), ("validation", self.validation)):
            if len(clouds) < processes:
                raise ConfigError(f"{len(clouds)} {name} shapes are too few for {processes} processes")
        if self.config.batch_size % processes:
            raise ConfigError(f"batch_size={self.config.batch_size} must be a multiple of the {processes} processes")

    @property
    def _processes(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    def train_dataloader(self) -> DataLoader:
        """Shuffled anew every epoch, by (seed, epoch) alone."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self.training))
        batches = [order[start : start + self.config.batch_size] for start in range(0, len(order), self.config.batch_size)]
        if len(batches[-1]) < self._processes:
            batches.pop()  # not one cloud for each process
        return self._loader(self.training, batches)

    def val_dataloader(self) -> DataLoader:
        """In order, all of them, each one in one process."""
        rows = np.arange(len(self.validation))
        return self._loader(self.validation, [rows[start : start + 64] for start in range(0, len(rows), 64)])

    def _loader(self, clouds: Clouds, batches: list[np.ndarray]) -> DataLoader:
        rank = self.trainer.global_rank if self.trainer else 0
        shares: Sequence[list[int]] = [share.tolist() for batch in batches if len(share := batch[rank :: self._processes])]
        # The data set returns whole batches, so there is nothing left to collate.
        return DataLoader(clouds, batch_sampler=shares, collate_fn=lambda batch: batch)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002, the name is Lightning's
        """Vary training batches, see `varied`."""
        if not (self.trainer and self.trainer.training):
            return batch
        return varied(batch, self.config, self.trainer.current_epoch)


def varied(batch: Batch, config: TrainConfig, epoch: int) -> Batch:
    """Clouds as they are trained on: what each undergoes is a function of seed, epoch and its number.

    Args:
        batch: of any size, on any device.
        config: the run.
        epoch: of the run.

    Returns:
        The varied clouds, in farthest-point order as far as the net wants it. The label of a foreign cloud is `FOREIGN`.
        Where clouds are mixed, the labels become probabilities, (B, C).
    """
    points, labels, samples = batch
    random = CounterRandom(config.seed, epoch, samples)
    model, change = config.model, config.augment
    known = isinstance(model, ClassifierConfig) and model.known
    if change.damage:
        points = damage(points, random, change.damage)
    if known:
        points, foreign = make_foreign(points, random, change.foreign)
        labels = labels.masked_fill(foreign, FOREIGN)
    points = augment(points, random, change)
    if change.mix and isinstance(model, ClassifierConfig):
        labels = nn.functional.one_hot(labels, model.classes).float()
        points, labels = mix(points, labels, random, change.mix)
    if change.reseed or change.damage or known:
        points = reseed(points, random, model.seeds)
    return points, labels, samples
