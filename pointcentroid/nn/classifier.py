"""A classifier on a centroid encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pointcentroid.config import ClassifierConfig
from pointcentroid.nn.encoder import CentroidEncoder
from pointcentroid.nn.net import Net
from pointcentroid.nn.norm import normed_linear


class Scores(NamedTuple):
    """What a classifier makes of clouds.

    Attributes:
        logits: (B, classes).
        known: (B,) logit of being upright and of one of the classes; None where the net has no such output.
        features: (B, feature_dim) global features.
    """

    logits: Tensor
    known: Tensor | None
    features: Tensor


class CentroidClassifier(Net[ClassifierConfig]):
    """Encode a cloud into centroids, pool the last stage, and score the classes.

    Args:
        config: sizes and options.
    """

    configured_by = ClassifierConfig

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__(config)
        self.encoder = CentroidEncoder(config.encoder)
        pooled = self.feature_dim
        norm = config.encoder.norm
        self.head = nn.Sequential(
            *([nn.LayerNorm(pooled)] if norm == "layer" else []),
            normed_linear(norm, pooled, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.classes + config.known),
        )

    @property
    def feature_dim(self) -> int:
        """Channels of the global feature."""
        return 2 * self.encoder.dim

    def features(
        self, points: Tensor, *, ordered: bool = False, lists: Mapping[tuple[int, int], Tensor] | None = None
    ) -> Tensor:
        """Global feature of each cloud: the maximum and the mean over the last stage's centroids.

        Args:
            points: (B, N, 3) preprocessed clouds.
            ordered: the clouds are in farthest-point order, see `CentroidEncoder.forward`.
            lists: of neighbours, see `CentroidEncoder.forward`.

        Returns:
            (B, feature_dim).
        """
        last = self.encoder(points, ordered=ordered, lists=lists)[-1].features
        return torch.cat([last.amax(dim=1), last.mean(dim=1)], dim=1)

    @property
    def last(self) -> str:
        """How the names of the tensors of the last layer begin, which knows the classes."""
        return f"head.{len(self.head) - 1}."

    def scores(
        self, points: Tensor, *, ordered: bool = False, lists: Mapping[tuple[int, int], Tensor] | None = None
    ) -> Scores:
        """Score the classes, and whether the cloud is of any.

        Args:
            points: (B, N, 3) preprocessed clouds.
            ordered: the clouds are in farthest-point order, see `CentroidEncoder.forward`.
            lists: of neighbours, see `CentroidEncoder.forward`.
        """
        features = self.features(points, ordered=ordered, lists=lists)
        outputs = self.head(features)
        classes = self.config.classes
        return Scores(outputs[:, :classes], outputs[:, classes] if self.config.known else None, features)

    def forward(self, points: Tensor, *, ordered: bool = False) -> Tensor:
        """The logits of `scores` alone, (B, classes)."""
        return self.scores(points, ordered=ordered).logits
