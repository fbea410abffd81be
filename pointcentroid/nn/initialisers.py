"""Where centroids start: the maps I_j of `u_j^0 = I_j(x_1..x_N)`.

Every initialiser with positions is a module that answers one question, `forward(points, count) -> Seeds`: where do
`count` centroids begin in these clouds? `INITIALISERS` names them; a new one is a class in this file and a line there.
`mean_pool_tokens` starts centroids of sequences without positions (words, image patches).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pointcentroid.geometry.fps import farthest_order, farthest_point_sampling
from pointcentroid.geometry.neighbours import gather_points


@dataclass(frozen=True)
class Seeds:
    """Starting positions of centroids.

    Attributes:
        positions: (B, M, 3).
        index: (B, M) int64, the points the seeds were taken from, or None when they are free positions.
    """

    positions: Tensor
    index: Tensor | None


def _subset(points: Tensor, index: Tensor) -> Seeds:
    return Seeds(gather_points(points, index), index)


class FarthestPoints(nn.Module):
    """Farthest point sampling, deterministic. Sees no points beyond `points` and needs no training."""

    def forward(self, points: Tensor, count: int) -> Seeds:
        """(B, N, 3) -> seeds of shape (B, count, 3), the farthest-point prefix; where points coincide, different ones."""
        return _subset(points, farthest_order(points, count)[:, :count])


class _Random(nn.Module):
    """Random choices that are fresh in training and fixed at evaluation.

    At evaluation the numbers come from a generator seeded anew at every call and are shared by all clouds of a batch:
    a cloud gets the same seeds alone and in any company.
    """

    def _uniform(self, batch: int, count: int, like: Tensor) -> Tensor:
        if self.training:
            return torch.rand(batch, count, device=like.device)
        fixed = torch.rand(1, count, generator=torch.Generator().manual_seed(0))
        return fixed.to(like.device).expand(batch, count)


class RandomPoints(_Random):
    """A uniformly random subset of the points, without replacement."""

    def forward(self, points: Tensor, count: int) -> Seeds:
        """(B, N, 3) -> seeds of shape (B, count, 3)."""
        order = self._uniform(*points.shape[:2], like=points).argsort(dim=1, stable=True)
        return _subset(points, order[:, :count])


class KMeansPlusPlus(_Random):
    """Seeds drawn with probability proportional to the squared distance to those already drawn.

    Source: D. Arthur, S. Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
    """

    def forward(self, points: Tensor, count: int) -> Seeds:
        """(B, N, 3) -> seeds of shape (B, count, 3)."""
        batch, total, _ = points.shape
        points_fixed = points.detach()
        draws = self._uniform(batch, count, like=points)
        nearest = points_fixed.new_ones(batch, total)
        picked = []
        for step in range(count):
            # Inverse transform sampling. Points already drawn, and their exact twins, have no mass; where nothing
            # else is left every point is allowed again.
            mass = torch.where((nearest > 0).any(dim=1, keepdim=True), nearest, torch.ones_like(nearest))
            cumulative = mass.double().cumsum(dim=1)
            target = draws[:, step : step + 1].double() * cumulative[:, -1:]
            current = torch.searchsorted(cumulative, target, right=True).clamp_max(total - 1)
            picked.append(current)
            distance = (points_fixed - gather_points(points_fixed, current)).square().sum(dim=2)
            nearest = distance if step == 0 else torch.minimum(nearest, distance)
        return _subset(points, torch.cat(picked, dim=1))


class VoxelGrid(nn.Module):
    """One seed in each occupied cell of a regular grid, as fine as gives at least `count` occupied cells.

    The seed of a cell is its point nearest to the cell's centre. When more cells are occupied than seeds are wanted,
    farthest point sampling thins them out.
    """

    finest: int = 64

    def forward(self, points: Tensor, count: int) -> Seeds:
        """(B, N, 3) -> seeds of shape (B, count, 3)."""
        index = torch.stack([self._one(cloud, count) for cloud in points.detach()])
        return _subset(points, index)

    def _one(self, cloud: Tensor, count: int) -> Tensor:
        low = cloud.amin(dim=0)
        size = (cloud.amax(dim=0) - low).amax().clamp_min(torch.finfo(cloud.dtype).tiny)
        representatives = torch.arange(len(cloud), device=cloud.device)
        cells = max(1, round(count ** (1 / 3)))
        while cells <= self.finest:
            scaled = (cloud - low) / size * cells
            corner = scaled.floor().clamp_max(cells - 1)
            key = ((corner[:, 0] * cells + corner[:, 1]) * cells + corner[:, 2]).long()
            off_centre = (scaled - corner - 0.5).square().sum(dim=1)
            # Sort by cell, then by distance to its centre; the first of each run is the cell's representative.
            order = off_centre.argsort(stable=True)
            order = order[key[order].argsort(stable=True)]
            first = torch.ones(len(order), dtype=torch.bool, device=cloud.device)
            first[1:] = key[order][1:] != key[order][:-1]
            if int(first.sum()) >= count:
                representatives = order[first]
                break
            cells *= 2
        kept = farthest_point_sampling(cloud[representatives].unsqueeze(0), count)[0]
        return representatives[kept]


class LearnedSeeds(nn.Module):
    """Free positions, the same for every cloud and trained with the rest of the net.

    Args:
        count: how many positions are stored; a call may ask for fewer and gets the first of them.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        directions = nn.functional.normalize(torch.randn(count, 3), dim=1)
        self.positions = nn.Parameter(directions * torch.rand(count, 1) ** (1 / 3))

    def forward(self, points: Tensor, count: int) -> Seeds:
        """(B, N, 3) -> seeds of shape (B, count, 3) with no index."""
        return Seeds(self.positions[:count].expand(len(points), -1, -1), None)


INITIALISERS: dict[str, type[nn.Module]] = {
    "fps": FarthestPoints,
    "random": RandomPoints,
    "voxel": VoxelGrid,
    "kmeans++": KMeansPlusPlus,
    "learned": LearnedSeeds,
}


def create_initialiser(name: str, count: int) -> nn.Module:
    """Build an initialiser by name.

    Args:
        name: a key of `INITIALISERS`.
        count: the most seeds it will be asked for.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in INITIALISERS:
        raise ValueError(f"unknown initialiser {name!r}; known: {', '.join(INITIALISERS)}")
    return LearnedSeeds(count) if name == "learned" else INITIALISERS[name]()


def mean_pool_tokens(tokens: Tensor, count: int) -> Tensor:
    """Start centroids of a sequence without positions: means over `count` runs of consecutive tokens.

    Args:
        tokens: (B, N, C).
        count: number of centroids, 1 <= count <= N. Runs differ in length by at most one when N is no multiple.

    Returns:
        (B, count, C).

    Raises:
        ValueError: `count` is out of range.
    """
    total = tokens.shape[1]
    if not 1 <= count <= total:
        raise ValueError(f"cannot pool {total} tokens into {count}")
    run = torch.arange(total, device=tokens.device) * count // total
    size = torch.bincount(run, minlength=count).to(tokens.dtype)
    summed = tokens.new_zeros(tokens.shape[0], count, tokens.shape[2]).index_add(1, run, tokens)
    return summed / size.unsqueeze(1)
