"""What is around a centroid, at the price of a linear layer per point: no layer runs pair by pair.

After DeLA (B. Chen et al., "Decoupled local aggregation for point cloud learning", arXiv 2308.16532): features go through a
linear layer where they stand, and a neighbourhood is summed up by the largest difference in each channel,

    a_j = max_i (W x_i) - W x_j        over the neighbours i of j.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pointcentroid.geometry.neighbours import gather_points
from pointcentroid.nn.norm import FeedForward, Norm, create_norm


def neighbour_max(values: Tensor, index: Tensor) -> Tensor:
    """The largest value of each channel among listed rows: `out[b, m, c] = max_k values[b, index[b, m, k], c]`.

    Args:
        values: (B, N, C).
        index: (B, M, K) int64 rows below N.

    Returns:
        (B, M, C). Of several equal ones, the gradient goes to the last in float32 and bfloat16, of at most 65,536 rows; else
        it is shared among them.
    """
    exact = values.dtype in (torch.float32, torch.bfloat16)  # others would be rounded
    if torch.is_grad_enabled() and values.requires_grad and values.shape[1] <= 2**16 and exact:
        return _NeighbourMax.apply(values, index)  # type: ignore[no-any-return]
    return gather_points(values, index).amax(dim=2)


class _NeighbourMax(torch.autograd.Function):
    """The maximum and its row in one reduction over integers: the bits of a value, in an order that integers share, above
    the number of its row. Autograd's own way keeps all pairs, finds the place of each maximum at a tenth of the speed, and
    hands zeros back to every other pair."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor) -> Tensor:  # type: ignore[override]
        half = values.dtype == torch.bfloat16
        bits = values.view(torch.int16).int() if half else values.view(torch.int32).long()
        shift, sign = (16, 31) if half else (32, 63)
        magnitude = (1 << (shift - 1)) - 1
        rows = torch.arange(values.shape[1], dtype=bits.dtype, device=values.device).unsqueeze(1)
        top = gather_points(((bits ^ ((bits >> sign) & magnitude)) << shift) | rows, index).amax(dim=2)
        ctx.save_for_backward((top & 0xFFFF).long())
        ctx.rows = values.shape[1]
        ordered = top >> shift
        bits = ordered ^ ((ordered >> sign) & magnitude)
        return bits.to(torch.int16).view(torch.bfloat16) if half else bits.int().view(torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (rows,) = ctx.saved_tensors
        batch, _, channels = gradient.shape
        return gradient.new_zeros(batch, ctx.rows, channels).scatter_add_(1, rows, gradient), None


class DropPath(nn.Module):
    """Leaves a residual branch out for a random share of the clouds in training (Huang et al., ECCV 2016).

    Args:
        share: of the clouds.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, branch: Tensor) -> Tensor:
        """(B, M, C) -> (B, M, C)."""
        if not self.training or not self.share:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.share
        return branch * (kept / (1 - self.share)).to(branch)


class LocalBlock(nn.Module):
    """Centroids look at their nearest ones, then think: x + norm(max_i W x_i - W x_j), then a feed-forward layer.

    Args:
        dim: channels.
        norm: which.
        drop_path: see `DropPath`.
    """

    def __init__(self, dim: int, norm: Norm, drop_path: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim, bias=False)
        self.norm = create_norm(norm, dim)
        self.feed_forward = FeedForward(dim, norm)
        self.drop = DropPath(drop_path)

    def forward(self, features: Tensor, index: Tensor) -> Tensor:
        """(B, M, dim) features and (B, M, K) nearest centroids -> (B, M, dim)."""
        seen = self.linear(features)
        features = features + self.drop(self.norm(neighbour_max(seen, index) - seen))
        return features + self.drop(self.feed_forward(features))
