"""A classifier on a centroid encoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pointcentroid.config import ClassifierConfig
from pointcentroid.errors import WeightsError
from pointcentroid.nn.encoder import CentroidEncoder


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
    def from_tensors(cls, config: ClassifierConfig, tensors: Mapping[str, Tensor]) -> CentroidClassifier:
        """Build a trained net, ready for evaluation, without spending time on random weights.

        Args:
            config: sizes and options.
            tensors: a state dict.

        Raises:
            WeightsError: the tensors are not those of this configuration.
        """
        with torch.device("meta"):
            net = cls(config)
        try:
            net.load_state_dict(tensors, assign=True)
        except RuntimeError as error:
            raise WeightsError(f"the tensors do not fit the model: {' '.join(str(error).split())[:200]}") from None
        return net.eval()

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
