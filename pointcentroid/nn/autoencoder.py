"""A cloud through few centroids and back: each one, a position and a code, grows a patch of the surface."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pointcentroid.config import AutoencoderConfig
from pointcentroid.nn.encoder import CentroidEncoder, SelfAttentionBlock
from pointcentroid.nn.net import Net

_AT_ONCE = 4096  # samples of all patches that are grown together: of more, memory would grow with them
_REACH = 0.25  # how far from its centroid a patch reaches, about, before training


class Latent(NamedTuple):
    """What is left of a cloud.

    Attributes:
        positions: (B, M, 3) of the centroids.
        codes: (B, M, code) of their surroundings.
    """

    positions: Tensor
    codes: Tensor


class CentroidAutoencoder(Net[AutoencoderConfig]):
    """Encoder, codes, decoder.

    The decoder lets centroids exchange what they know (self-attention among near ones), and unrolls a square on each: a
    sample s of the square becomes the point c_j + W3 gelu(W2 gelu(A norm(h_j) + B s)) / 4. Folding is due to FoldingNet
    (Yang et al., CVPR 2018), which folds one square into a whole shape.

    Args:
        config: sizes and options.
    """

    configured_by = AutoencoderConfig

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config)
        self.encoder = CentroidEncoder(config.encoder)
        self.squeeze = nn.Sequential(nn.LayerNorm(self.encoder.dim), nn.Linear(self.encoder.dim, config.code))
        self.expand = nn.Linear(config.code, config.hidden)
        self.place = nn.Linear(3, config.hidden)
        self.blocks = nn.ModuleList(SelfAttentionBlock(config.hidden, 4, 8) for _ in range(config.blocks))
        self.centre = nn.Sequential(nn.LayerNorm(config.hidden), nn.Linear(config.hidden, config.hidden))
        self.square = nn.Linear(2, config.hidden, bias=False)
        self.fold = nn.Sequential(nn.GELU(), nn.Linear(config.hidden, config.hidden), nn.GELU(), nn.Linear(config.hidden, 3))

    @property
    def latent_size(self) -> int:
        """Numbers in the latent of one cloud, positions included."""
        return self.config.encoder.stages[-1].centroids * (3 + self.config.code)

    def encode(self, points: Tensor, *, ordered: bool = False) -> Latent:
        """Abstract clouds.

        Args:
            points: (B, N, 3) preprocessed clouds.
            ordered: they are in farthest-point order, see `CentroidEncoder.forward`.
        """
        last = self.encoder(points, ordered=ordered)[-1]
        return Latent(last.positions, self.squeeze(last.features))

    def decode(self, latent: Latent, count: int) -> Tensor:
        """Grow points.

        Args:
            latent: of B clouds.
            count: how many points, any number; the patches take turns.

        Returns:
            (B, count, 3); the k-th point belongs to centroid k modulo M.
        """
        positions, features = latent.positions, self._expanded(latent)
        centroids = positions.shape[1]
        samples = square_samples(-(-count // centroids)).to(positions)
        centres = self.centre(features).unsqueeze(1)
        grown = [self.fold(centres + self.square(some)[:, None]) for some in samples.split(_AT_ONCE)]  # B, samples, M, 3
        return (positions.unsqueeze(1) + _REACH * torch.cat(grown, dim=1)).flatten(1, 2)[:, :count]

    def _expanded(self, latent: Latent) -> Tensor:
        """(B, M, hidden): what centroids know after they have exchanged it."""
        features = self.expand(latent.codes) + self.place(latent.positions)
        for block in self.blocks:
            features = block(latent.positions, features)
        return features

    def features(self, points: Tensor, *, ordered: bool = False) -> Tensor:
        """One vector for each cloud, made of its latent alone.

        Of what the decoder's centroids know: largest, smallest, mean and spread over centroids, and means weighted by
        x, y, z, their squares and their sizes, which say where on the shape a feature is found.

        Args:
            points: (B, N, 3) preprocessed clouds.
            ordered: they are in farthest-point order, see `CentroidEncoder.forward`.

        Returns:
            (B, 13 hidden).
        """
        latent = self.encode(points, ordered=ordered)
        known, where = self._expanded(latent), latent.positions
        spread = known.std(dim=1, correction=0)
        places = torch.cat([where, where.square(), where.abs()], dim=2)
        placed = torch.einsum("bmp,bmc->bpc", places, known).flatten(1) / known.shape[1]
        return torch.cat([known.amax(dim=1), known.amin(dim=1), known.mean(dim=1), spread, placed], dim=1)

    def forward(self, points: Tensor, count: int, *, ordered: bool = False) -> Tensor:
        """(B, N, 3) preprocessed clouds -> (B, count, 3)."""
        return self.decode(self.encode(points, ordered=ordered), count)


def square_samples(count: int) -> Tensor:
    """(count, 2) well-spread samples of [-1, 1]^2: the first ones of a fixed sequence, whatever the count.

    Source: M. Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018: multiples of (1/g, 1/g^2) modulo 1,
    g the plastic number.
    """
    step = torch.tensor([0.7548776662466927, 0.5698402909980532], dtype=torch.float64)
    return ((0.5 + step * torch.arange(count, dtype=torch.float64).unsqueeze(1)) % 1 * 2 - 1).float()
