"""Clouds in farthest-point order, indexed a batch at a time."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pointcentroid.data.clouds import CloudSet
from pointcentroid.geometry.fps import farthest_first

Batch = tuple[Tensor, Tensor, Tensor]
"""Clouds (B, N, 3), labels (B,), sample numbers (B,)."""


class Clouds(Dataset[Batch]):
    """Clouds, indexed a batch at a time."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitems__(self, index: list[int]) -> Batch: ...

    def batch(self, start: int, size: int) -> Batch:
        """The clouds from one on, in order; fewer than `size` at the end."""
        return self.__getitems__(list(range(start, min(start + size, len(self)))))


class OrderedClouds(Clouds):
    """Clouds in farthest-point order, indexed a batch at a time.

    Args:
        clouds: the data set.
        rows: which of its clouds, (S,).
        seeds: how many points to put in farthest-point order, where they are not in it already.
        points: how many points a cloud keeps; of more, the farthest.
    """

    def __init__(self, clouds: CloudSet, rows: np.ndarray, seeds: int, points: int) -> None:
        self.labels = torch.from_numpy(clouds.labels[rows])
        self.rows: np.ndarray | None = None
        if clouds.ordered:
            # They may be mapped from a file: only those of a batch are read, when it is made.
            self.points, self.rows = clouds.points[:, :points], rows
            return
        prefix = max(seeds, points if points < clouds.points.shape[1] else 0)  # as `pointcentroid.predict.nets.ordered`
        ordered = []
        for chunk in torch.from_numpy(clouds.points[rows]).split(64):
            ordered.append(farthest_first(chunk, prefix)[:, :points])
        self.points = torch.cat(ordered).numpy() if ordered else clouds.points[rows]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, index: list[int]) -> Batch:
        rows = torch.tensor(index, dtype=torch.int64)
        clouds = self.points[index if self.rows is None else self.rows[index]]
        return torch.from_numpy(np.ascontiguousarray(clouds)), self.labels[rows], rows
