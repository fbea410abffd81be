r"""A net whose last centroids are parts: centroid attention as the derivation has it, on what a net has learnt to see.

    points ──encoder──> fine centroids, with features ──embedding──> z ──mean shift──> z ──soft k-means──> parts
       └───────shares of the nearest fine centroids──────────────────────────────────────────────┘

With the similarity s(x, u) = -beta |x - u|^2, the step of `pointcentroid.nn.centroid_attention` is soft k-means itself:
every input spreads one unit over the centroids, and each centroid moves to the mean of what attends to it. What is learnt is
the space where that happens: k(i, j) = exp(-|z_i - z_j|^2) is trained to be the probability that two points are of one part,
and k-means runs in the space whose inner product is k (kernel k-means: Schölkopf, Smola, Müller, 1998). So probabilities
of several samplings of one surface can be averaged before.

The parts are found in it, not fixed: the first centroid starts where most is near, each further one where the probability
of being one part with those before it is least, and none where that is large everywhere. So a shape of five parts has five,
whatever the largest number is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pointcentroid.config import PartsConfig
from pointcentroid.geometry.neighbours import gather_points, nearest_neighbours
from pointcentroid.nn.centroid_attention import Neighbours, assignment
from pointcentroid.nn.encoder import CentroidEncoder, StageOutput
from pointcentroid.nn.local import LocalBlock
from pointcentroid.nn.net import Net
from pointcentroid.nn.norm import LinearNorm

_LISTED = 4  # fine centroids that a point may belong to
_COARSE = 3  # coarse centroids that a fine one hears from
_SHIFTS = 2  # steps of mean shift
_STEPS = 2  # steps of soft k-means
_SHARPNESS = 8.0  # beta
_ONE = 0.27  # the probability of being one part with a centroid at which no new one starts
_CROWD = 2.5  # fewer neighbours than this, itself among them, make no start: what lies between parts is near to none
_PAIR = 32  # channels of what a point sees of a fine centroid


class Embedding(NamedTuple):
    """What a net sees before it counts parts.

    Attributes:
        positions: (B, S, 3) of the fine centroids.
        z: (B, S, Z) float32, where they are in the learnt space.
        features: (B, S, F) float32 of length 1, alike where parts have one name.
        log_shares: (B, 1, N, L) float32, of each point to the fine centroids it lists.
        neighbours: which those are.
    """

    positions: Tensor
    z: Tensor
    features: Tensor
    log_shares: Tensor
    neighbours: Neighbours

    def at(self, values: Tensor, rows: Tensor) -> Tensor:
        """Values of fine centroids at some points.

        Args:
            values: (B, S, C).
            rows: (R,) int64, which points.

        Returns:
            (B, R, C), the means of the fine centroids that each point lists, by its shares.
        """
        shares = self.log_shares[:, 0, rows].exp().unsqueeze(3)
        return (gather_points(values, self.neighbours.index[:, rows]) * shares).sum(dim=2)


class PartsNet(Net[PartsConfig]):
    """Cut clouds into parts.

    Args:
        config: sizes and options.
    """

    configured_by = PartsConfig

    def __init__(self, config: PartsConfig) -> None:
        super().__init__(config)
        self.encoder = CentroidEncoder(config.encoder)
        fine, coarse = (stage.dim for stage in config.encoder.stages)
        self.joined = LinearNorm(fine + coarse, fine)
        self.whole = nn.Linear(coarse, fine, bias=False)
        self.local = nn.ModuleList(LocalBlock(fine, "batch") for _ in range(config.blocks))
        self.embedding = nn.Linear(fine, config.embedding)
        self.feature = nn.Linear(fine, config.features)
        self.place = nn.Linear(3, _PAIR)
        self.seen = nn.Linear(fine, _PAIR, bias=False)
        self.score = nn.Linear(_PAIR, 1)
        self.nearness = nn.Parameter(torch.zeros(()))
        self.names = nn.Linear(config.features, config.names, bias=False) if config.names else None

    def embed(self, points: Tensor, *, ordered: bool = False) -> Embedding:
        """See clouds, without counting parts: what is trained.

        Args:
            points: (B, N, 3) preprocessed clouds, N >= 1.
            ordered: they are in farthest-point order, see `CentroidEncoder.forward`.
        """
        fine, coarse = self.encoder(points, ordered=ordered)
        nearest = self.config.encoder.stages[0].neighbours
        heard = _heard(fine, coarse)
        whole = self.whole(coarse.features.amax(dim=1, keepdim=True))
        joined = self.joined(torch.cat([fine.features, heard.to(fine.features)], dim=2))
        features = fine.features + nn.functional.gelu(joined + whole)
        index = nearest_neighbours(fine.positions, fine.positions, nearest)
        for block in self.local:
            features = block(features, index)
        listed = nearest_neighbours(points, fine.positions, _LISTED)
        away = points.unsqueeze(2) - gather_points(fine.positions, listed)
        away = away * (nearest / points.shape[1]) ** -0.5
        pair = nn.functional.gelu(self.place(away) + gather_points(self.seen(features), listed))
        with torch.autocast(points.device.type, enabled=False):
            near = self.score(pair.float()).squeeze(3) - away.float().square().sum(dim=3) * self.nearness.exp()
            z = self.embedding(features.float())
            for _ in range(_SHIFTS):
                weights = _together(z)
                z = weights @ z / weights.sum(dim=2, keepdim=True)
            named = nn.functional.normalize(self.feature(features.float()), dim=2)
        neighbours = Neighbours(listed, "inputs", inputs=points.shape[1], centroids=fine.positions.shape[1])
        return Embedding(fine.positions, z, named, near.log_softmax(dim=2).unsqueeze(1), neighbours)

    def forward(
        self, points: Tensor, *, ordered: bool = False, assignments: bool = False, others: Sequence[Tensor] = ()
    ) -> list[StageOutput]:
        """Cut clouds into parts.

        Args:
            points: (B, N, 3) preprocessed clouds.
            ordered: they are in farthest-point order, see `CentroidEncoder.forward`.
            assignments: give the assignments too.
            others: further samplings of the same surfaces, each like `points`. The probability that two fine centroids are
                of one part is then the mean over all samplings: less of what is found hangs on which points were drawn.

        Returns:
            Two stages: the fine centroids, and `config.parts` centroids of parts. Those that no part was found for have no
            share of anything. Every point spreads one unit over the others.
        """
        seen = self.embed(points, ordered=ordered)
        together = _together(seen.z)
        for other in others:
            again = self.embed(other, ordered=ordered)
            nearest = nearest_neighbours(seen.positions, again.positions, 1)[:, :, 0]
            together = together + _together(gather_points(again.z, nearest))
        shares = soft_k_means(together / (1 + len(others)), self.config.parts)
        mass = shares.sum(dim=1).unsqueeze(2).clamp_min(torch.finfo(shares.dtype).tiny)
        positions, features = (shares.transpose(1, 2) @ values / mass for values in (seen.positions, seen.features))
        fine = assignment(seen.log_shares, seen.neighbours) if assignments else None
        return [
            StageOutput(seen.positions, seen.features, fine),
            StageOutput(positions, features, shares.unsqueeze(1) if assignments else None),
        ]


def _heard(fine: StageOutput, coarse: StageOutput) -> Tensor:
    """(B, S, C) features of the nearest coarse centroids, by 1 / distance squared, as in PointNet++ (Qi et al., 2017)."""
    near = nearest_neighbours(fine.positions, coarse.positions, _COARSE)
    away = (gather_points(coarse.positions, near) - fine.positions.unsqueeze(2)).square().sum(dim=3, keepdim=True)
    weights = 1 / (away + 1e-4)
    return (gather_points(coarse.features, near) * (weights / weights.sum(dim=2, keepdim=True)).to(coarse.features)).sum(
        dim=2
    )


def squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """(B, M, C) and (B, N, C) -> (B, M, N), never negative."""
    lengths = one.square().sum(dim=2, keepdim=True) + other.square().sum(dim=2).unsqueeze(1)
    return (lengths - 2 * one @ other.transpose(1, 2)).clamp_min(0)


def _together(z: Tensor) -> Tensor:
    """(B, S, Z) -> (B, S, S), the probability that two are of one part."""
    return (-squared_distances(z, z)).exp()


def soft_k_means(kernel: Tensor, most: int) -> Tensor:
    """Find clusters by how alike their members are.

    Args:
        kernel: (B, S, S) inner products, of a space where all have length 1.
        most: how many clusters at most.

    Returns:
        (B, S, most): the share of each input in each cluster. Rows sum to 1; columns past the clusters found are 0.
    """
    crowd = kernel.sum(dim=2)
    found, alive = [crowd.argmax(dim=1)], [torch.ones(len(kernel), dtype=torch.bool, device=kernel.device)]
    nearest = torch.zeros_like(crowd)
    for _ in range(1, most):
        nearest = torch.maximum(
            nearest, kernel.gather(1, found[-1].view(-1, 1, 1).expand(-1, 1, kernel.shape[1])).squeeze(1)
        )
        farthest = torch.where(crowd > _CROWD, nearest, 1.0).min(dim=1)
        found.append(farthest.indices)
        alive.append(alive[-1] & (farthest.values < _ONE))
    dead = ~torch.stack(alive, dim=1)
    shares = nn.functional.one_hot(torch.stack(found, dim=1), kernel.shape[1]).transpose(1, 2).to(kernel)
    for _ in range(_STEPS + 1):
        # |x_i - u_j|^2 = k(i, i) - 2 <x_i, u_j> + <u_j, u_j>, where u_j is the mean of its members
        means = shares / shares.sum(dim=1, keepdim=True).clamp_min(torch.finfo(kernel.dtype).tiny)
        products = kernel @ means
        apart = 1 - 2 * products + (means * products).sum(dim=1, keepdim=True)
        shares = (-_SHARPNESS * apart).masked_fill(dead.unsqueeze(1), -torch.inf).softmax(dim=2)
    return shares
