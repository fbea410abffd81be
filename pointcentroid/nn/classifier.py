"""A classifier on a centroid encoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pointcentroid.config import ClassifierConfig, ModelConfig
from pointcentroid.errors import WeightsError
from pointcentroid.nn.encoder import CentroidEncoder
from pointcentroid.nn.trained import trained


class CentroidClassifier(nn.Module):
    """Encode a cloud into centroids, pool the last stage, and score the classes.

    Args:
        config: sizes and options.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = CentroidEncoder(config.encoder)
        pooled = self.feature_dim
        self.head = nn.Sequential(
            nn.LayerNorm(pooled),
            nn.Linear(pooled, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.classes),
        )

    @classmethod
    def from_tensors(cls, config: ModelConfig, tensors: Mapping[str, Tensor]) -> CentroidClassifier:
        """Build a trained net, ready for evaluation, without spending time on random weights.

        Args:
            config: sizes and options.
            tensors: a state dict.

        Raises:
            WeightsError: the tensors are not those of this configuration, or it is not of a classifier.
        """
        if not isinstance(config, ClassifierConfig):
            raise WeightsError(f"these weights are of an {config.kind}, which does not classify")
        return trained(lambda: cls(config), tensors)

    @property
    def feature_dim(self) -> int:
        """Channels of the global feature."""
        return 2 * self.encoder.dim

    def features(self, points: Tensor, *, ordered: bool = False) -> Tensor:
        """Global feature of each cloud: the maximum and the mean over the last stage's centroids.

        Args:
            points: (B, N, 3) preprocessed clouds.
            ordered: the clouds are in farthest-point order, see `CentroidEncoder.forward`.

        Returns:
            (B, feature_dim).
        """
        last = self.encoder(points, ordered=ordered)[-1].features
        return torch.cat([last.amax(dim=1), last.mean(dim=1)], dim=1)

    def forward(self, points: Tensor, *, ordered: bool = False) -> Tensor:
        """Score the classes.

        Args:
            points: (B, N, 3) preprocessed clouds.
            ordered: the clouds are in farthest-point order, see `CentroidEncoder.forward`.

        Returns:
            (B, classes) logits.
        """
        return self.head(self.features(points, ordered=ordered))
