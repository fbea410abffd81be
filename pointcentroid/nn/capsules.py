"""The baseline for autoencoders: point capsules, whose few latent capsules agree on their inputs by dynamic routing.

Source: Y. Zhao, T. Birdal, H. Deng, F. Tombari, "3D point capsule networks", CVPR 2019. The sizes are theirs; so is batch
normalisation, which makes a cloud's training step depend on its company, but not its evaluation.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from pointcentroid.config import CapsuleAutoencoderConfig
from pointcentroid.nn.autoencoder import square_samples
from pointcentroid.nn.net import Net
from pointcentroid.nn.norm import BatchNorm


class PointwiseMLP(nn.Sequential):
    """Linear, batch norm and activation, repeated; acts on the last axis of tensors of any shape.

    Args:
        widths: channels, from the input's on.
        slope: of the leaky rectifier for negative values.
    """

    def __init__(self, widths: list[int], slope: float = 0.0) -> None:
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after, bias=False), BatchNorm(after), nn.LeakyReLU(slope)]
        super().__init__(*layers)


class PooledLinear(nn.Module):
    """A linear layer, batch norm, and the maximum over points, without keeping a value for every point and channel.

    Equal to the three layers in a row. What batch norm needs of w.x over all points, its mean w.m and its variance w'Sw,
    follows from mean m and covariance S of the inputs. The largest point of a channel is found without gradients, and
    only its value is computed with them.

    Args:
        inputs: channels of a point.
        outputs: channels of a cloud.
        momentum: of the moving averages of mean and covariance.
    """

    mean: Tensor
    covariance: Tensor

    def __init__(self, inputs: int, outputs: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.Linear(inputs, outputs).weight.detach())
        self.gain = nn.Parameter(torch.ones(outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("covariance", torch.eye(inputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, inputs) -> (B, outputs), in full precision: variances of half a precision are none."""
        with torch.autocast(x.device.type, enabled=False):
            return self._pooled(x.to(self.weight.dtype))

    def _pooled(self, x: Tensor) -> Tensor:
        mean, covariance = self.mean, self.covariance
        if self.training:
            rows = x.flatten(0, 1)
            mean = rows.mean(dim=0)
            covariance = (rows - mean).T @ (rows - mean) / len(rows)
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.covariance.lerp_(covariance * (len(rows) / (len(rows) - 1)), self.momentum)
        deviation = ((self.weight @ covariance * self.weight).sum(dim=1) + 1e-5).sqrt()
        weight = self.weight * (self.gain / deviation).unsqueeze(1)
        with torch.no_grad():
            largest = torch.stack([(weight @ cloud.T).max(dim=1).indices for cloud in x])
        picked = torch.stack([cloud[rows] for cloud, rows in zip(x, largest, strict=True)])  # B, outputs, inputs
        return (picked * weight).sum(dim=2) + self.bias - weight @ mean


def squash(x: Tensor) -> Tensor:
    """Shorten vectors (..., C) to below 1, small ones to nearly 0. Source: Sabour et al., NeurIPS 2017."""
    squared = x.square().sum(dim=-1, keepdim=True)
    return x * squared / ((1 + squared) * (squared + 1e-12).sqrt())


class CapsuleAutoencoder(Net[CapsuleAutoencoderConfig]):
    """Primary capsules pooled from points, latent capsules by routing, and folding: a capsule and a sample of a square in,
    a point out.

    Args:
        config: sizes.
    """

    configured_by = CapsuleAutoencoderConfig

    def __init__(self, config: CapsuleAutoencoderConfig) -> None:
        super().__init__(config)
        self.points = PointwiseMLP([3, 64, 128])
        self.primary = PooledLinear(128, config.primary * config.primary_dim)
        shape = (config.capsules, config.primary, config.dim, config.primary_dim)
        self.routes = nn.Parameter(0.01 * torch.randn(shape))
        width = config.dim + 2
        self.folds = nn.ModuleList(
            nn.Sequential(PointwiseMLP([width, width, width // 2, width // 4]), nn.Linear(width // 4, 3), nn.Tanh())
            for _ in range(config.folds)
        )

    @property
    def latent_size(self) -> int:
        """Numbers in the latent of one cloud."""
        return self.config.capsules * self.config.dim

    def encode(self, points: Tensor, *, ordered: bool = False) -> Tensor:  # noqa: ARG002, any order will do
        """(B, N, 3) preprocessed clouds -> (B, capsules, dim)."""
        config = self.config
        primary = squash(self.primary(self.points(points)).unflatten(1, (config.primary, config.primary_dim)))
        votes = torch.einsum("bpi,cpdi->bcpd", primary, self.routes)
        # As in the paper's code, gradients flow through the last round of routing only.
        agreement, still = torch.zeros_like(votes[..., 0]), votes.detach()
        for _ in range(config.iterations - 1):
            capsules = squash(torch.einsum("bcp,bcpd->bcd", agreement.softmax(dim=1), still))
            agreement = agreement + torch.einsum("bcd,bcpd->bcp", capsules, still)
        return squash(torch.einsum("bcp,bcpd->bcd", agreement.softmax(dim=1), votes))

    def features(self, points: Tensor, *, ordered: bool = False) -> Tensor:
        """(B, N, 3) preprocessed clouds -> (B, capsules dim), the latent capsules in their order."""
        return self.encode(points, ordered=ordered).flatten(1)

    def decode(self, capsules: Tensor, count: int) -> Tensor:
        """Fold points.

        Args:
            capsules: (B, capsules, dim).
            count: how many points, any number.

        Returns:
            (B, count, 3); the k-th point belongs to capsule k modulo their number. Folds take turns; in training, when a
            cloud needs fewer than there are, at random.
        """
        batch, number, _ = capsules.shape
        rounds = -(-count // number)
        folds = torch.arange(rounds) % self.config.folds
        square = square_samples(rounds * number).view(rounds, 1, number, 2).expand(-1, batch, -1, -1).to(capsules)
        if self.training:
            folds = torch.cat([torch.randperm(self.config.folds) for _ in range(-(-rounds // self.config.folds))])[:rounds]
            square = torch.rand_like(square) * 2 - 1
        made = [self.folds[fold](torch.cat([capsules, square[k]], dim=2)) for k, fold in enumerate(folds.tolist())]
        return torch.cat(made, dim=1)[:, :count]

    def forward(self, points: Tensor, count: int, *, ordered: bool = False) -> Tensor:
        """(B, N, 3) preprocessed clouds -> (B, count, 3)."""
        return self.decode(self.encode(points, ordered=ordered), count)
