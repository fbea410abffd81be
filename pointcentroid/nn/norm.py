"""Normalisation over a batch, and how it disappears from a trained net.

In evaluation a batch norm (Ioffe and Szegedy, ICML 2015) is a fixed affine map of each channel: a cloud gets the same answer
alone and in any company, and behind a linear layer the map becomes part of it. `fold` does that.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["batch", "layer"]


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over the last dimension of a tensor of any shape.

    A batch that holds one value a channel, or none, has no spread to divide by: it is normalised by the running statistics,
    as in evaluation, and leaves them as they are. On several processes the statistics of a step are of each one's share.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        rows = input.reshape(-1, self.num_features)
        if self.training and len(rows) < 2:
            made = nn.functional.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        else:
            made = super().forward(rows)
        return made.view(input.shape)

    def affine_map(self) -> tuple[Tensor, Tensor]:
        """What it does in evaluation: (C,) scale and (C,) shift."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = (self.running_var + self.eps).rsqrt() * (1 if self.weight is None else self.weight)
        shift = (0 if self.bias is None else self.bias) - self.running_mean * scale
        return scale, shift


class LinearNorm(nn.Module):
    """A linear layer and the batch norm of what it makes.

    Args:
        inputs: channels in.
        outputs: channels out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = BatchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return self.norm(self.linear(x))

    def folded(self) -> nn.Linear:
        """One linear layer that does the same in evaluation."""
        scale, shift = self.norm.affine_map()
        return _assigned(nn.Linear, self.linear.weight * scale.unsqueeze(1), shift)


class Affine(nn.Module):
    """A batch norm in evaluation that no linear layer stands directly before: y = weight x + bias, channel by channel.

    Args:
        channels: of x.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return torch.addcmul(self.bias, x, self.weight)


def _assigned(kind: type, weight: Tensor, bias: Tensor):
    with torch.device("meta"):
        layer = kind(*weight.shape[::-1])
    layer.load_state_dict({"weight": weight.detach(), "bias": bias.detach()}, assign=True)
    return layer


def fold(net: nn.Module) -> None:
    """Replace the batch norms of a trained net by what they do in evaluation; for prediction, not for training.

    Args:
        net: is changed; it computes the same numbers up to rounding.
    """
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LinearNorm):
                setattr(module, name, child.folded())
            elif isinstance(child, BatchNorm):
                setattr(module, name, _assigned(Affine, *child.affine_map()))


def create_norm(kind: Norm, channels: int) -> nn.Module:
    """A norm of the last dimension.

    Args:
        kind: over the batch, or over the channels of each vector by itself (Ba, Kiros, Hinton, 2016).
        channels: of the last dimension.
    """
    return BatchNorm(channels) if kind == "batch" else nn.LayerNorm(channels)


def normed_linear(kind: Norm, inputs: int, outputs: int) -> nn.Module:
    """A linear layer, with a norm of what it makes where that is over the batch; layer norms stand at a branch's start."""
    return LinearNorm(inputs, outputs) if kind == "batch" else nn.Linear(inputs, outputs)


class FeedForward(nn.Sequential):
    """A two-layer perceptron, `dim -> 2 dim -> dim`: pre-normed by layer norm, or post-normed by batch norm.

    Args:
        dim: channels.
        norm: which.
    """

    def __init__(self, dim: int, norm: Norm) -> None:
        first = (nn.LayerNorm(dim),) if norm == "layer" else ()
        super().__init__(*first, nn.Linear(dim, 2 * dim), nn.GELU(), normed_linear(norm, 2 * dim, dim))
