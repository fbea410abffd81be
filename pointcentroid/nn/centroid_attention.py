r"""Centroid attention: N inputs in, M <= N centroids out.

Source: L. Wu, X. Liu, Q. Liu, "Centroid Transformers: Learning to Abstract with Attention", arXiv 2102.08606 (2021).

Soft k-means minimises E(u) = -(1/a) sum_i log sum_j exp(a s(x_i, u_j)) over centroids u_j. One step of gradient descent
is u_j <- u_j + eps sum_i w_ij grad_u s(x_i, u_j), where w_ij is a softmax of the similarities s. With a bilinear
similarity this is an attention step; *learning* the maps instead of deriving them gives the layer in this file:

    u_j <- u_j + eps * O concat_l( sum_i w_ij^l V_l x_i ),      t = 1..T

    symbol   here              meaning
    x_i      inputs            N tokens, or one token per (centroid, neighbour) pair when attention is restricted
    u_j      centroids         M tokens, started by an initialiser
    l        heads             Q_l, K_l, V_l map to dim / heads channels each
    s_ij^l   logits            (Q_l norm(u_j)) . (K_l x_i) / sqrt(dim / heads)
    w_ij^l   weights           softmax of the logits along `axis`
    T        steps             update steps, weights shared between them
    eps      step_size         learnt per channel, or a fixed number

`axis` is the one decision that matters:

    "inputs"      softmax over the inputs of each centroid: every centroid spreads one unit of attention. With M = N,
                  u = x and T = 1 this *is* multi-head self-attention.
    "centroids"   softmax over the centroids of each input, as the clustering derivation has it: every input spreads one
                  unit, a soft cluster assignment. Each centroid then takes the weighted *mean* of its inputs.

Attention is full, or restricted to the pairs of a `Neighbours` list, which either side may write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pointcentroid.nn.norm import LinearNorm, Norm

Axis = Literal["inputs", "centroids"]
Side = Literal["centroids", "inputs"]


@dataclass(frozen=True)
class Neighbours:
    """The (input, centroid) pairs that attention is restricted to.

    Attributes:
        index: (B, R, L) int64. With `side="centroids"` the R = M rows are centroids, each listing L inputs; with
            `side="inputs"` the R = N rows are inputs, each listing L centroids.
        side: whose rows they are.
        inputs: N.
        centroids: M.
    """

    index: Tensor
    side: Side
    inputs: int
    centroids: int

    @property
    def listed(self) -> int:
        """How many entities the entries of `index` choose from."""
        return self.inputs if self.side == "centroids" else self.centroids


class CentroidAttention(nn.Module):
    """Multi-head centroid attention; the equations stand at the top of this file.

    Args:
        dim: channels of the centroids; a multiple of `heads`.
        input_dim: channels of the inputs; `dim` if None.
        heads: number of heads.
        axis: what the softmax runs over, `"inputs"` or `"centroids"`.
        steps: number T of update steps, with shared weights.
        step_size: `"learned"` (one value per channel) or a fixed number.
        norm: `"layer"`, of the centroids before they become queries; `"batch"`, of what attention adds to them, with a
            learned step size that starts at 0; or `"none"`.

    Raises:
        ValueError: a size is not positive, `dim` is no multiple of `heads`, or an option is unknown.
    """

    def __init__(
        self,
        dim: int,
        input_dim: int | None = None,
        *,
        heads: int = 4,
        axis: Axis = "inputs",
        steps: int = 1,
        step_size: Literal["learned"] | float = "learned",
        norm: Norm | Literal["none"] = "layer",
    ) -> None:
        super().__init__()
        if heads < 1 or dim < 1 or dim % heads:
            raise ValueError(f"dim must be a positive multiple of heads, found dim={dim}, heads={heads}")
        if axis not in ("inputs", "centroids"):
            raise ValueError(f"axis must be 'inputs' or 'centroids', found {axis!r}")
        if steps < 1:
            raise ValueError(f"steps must be at least 1, found {steps}")
        input_dim = dim if input_dim is None else input_dim
        self.dim, self.heads, self.axis, self.steps = dim, heads, axis, steps
        self.scale = (dim // heads) ** -0.5
        self.norm = nn.LayerNorm(dim) if norm == "layer" else nn.Identity()
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(input_dim, dim, bias=False)
        self.value = nn.Linear(input_dim, dim, bias=False)
        self.out = LinearNorm(dim, dim) if norm == "batch" else nn.Linear(dim, dim, bias=False)
        if step_size == "learned":
            self.step_size: nn.Parameter | float = nn.Parameter(torch.zeros(dim) if norm == "batch" else torch.ones(dim))
        else:
            self.step_size = float(step_size)

    def forward(self, centroids: Tensor, inputs: Tensor, neighbours: Neighbours | None = None) -> tuple[Tensor, Tensor]:
        """Update the centroids.

        Args:
            centroids: (B, M, dim) starting values u^0.
            inputs: (B, N, input_dim) for full attention; (B, R, L, input_dim), one token per listed pair, when
                `neighbours` is given (what an input looks like may then depend on the centroid that sees it).
            neighbours: the pairs to attend to; None for all of them.

        Returns:
            The updated centroids, (B, M, dim), and log w of the last step: (B, heads, M, N) for full attention,
            (B, heads, R, L) for listed pairs. Logarithms, because a sharp softmax rounds most weights to zero.
        """
        log_weights = inputs.new_empty(0)
        for _ in range(self.steps):
            queries = self.norm(centroids)
            if neighbours is None:
                update, log_weights = self._attend_full(queries, inputs)
            else:
                update, log_weights = self._attend_listed(queries, inputs, neighbours)
            centroids = centroids + self.step_size * self.out(update)
        return centroids, log_weights

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.dim // self.heads))

    def _attend_full(self, centroids: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        query = self._split(self.query(centroids)).transpose(1, 2)  # B H M d
        key = self._split(self.key(inputs)).transpose(1, 2)  # B H N d
        value = self._split(self.value(inputs)).transpose(1, 2)
        logits = query @ key.transpose(2, 3) * self.scale
        log_weights = logits.log_softmax(dim=3 if self.axis == "inputs" else 2)
        weights = log_weights.exp()
        pooled = weights if self.axis == "inputs" else weights / _positive(weights.sum(dim=3, keepdim=True))
        return (pooled @ value).transpose(1, 2).flatten(2), log_weights

    def _attend_listed(self, centroids: Tensor, pairs: Tensor, neighbours: Neighbours) -> tuple[Tensor, Tensor]:
        by_centroid = neighbours.side == "centroids"
        if by_centroid:
            logits = self._logits_by_centroid(centroids, pairs)
        else:
            logits = self._logits_by_input(centroids, pairs, neighbours)
        # The softmax runs along the lists when it is over the other side's entities, and across them otherwise.
        if by_centroid == (self.axis == "inputs"):
            log_weights = logits.log_softmax(dim=3)
        else:
            log_weights = _log_softmax_across_lists(logits, neighbours)
        weights = log_weights.exp()
        if by_centroid:
            return self._pool_by_centroid(weights, pairs), log_weights
        return self._pool_by_input(weights, pairs, neighbours), log_weights

    # Rows are centroids. K and V act on M * L pair tokens, many more than there are queries, so they are moved to the
    # other side of the products: q . (K e) = (K^T q) . e, and sum_i w_i (V e_i) = V (sum_i w_i e_i). Same numbers up to
    # rounding, an order of magnitude less work.

    def _logits_by_centroid(self, centroids: Tensor, pairs: Tensor) -> Tensor:
        query = self._split(self.query(centroids))  # B M H d
        key = self.key.weight.unflatten(0, (self.heads, -1))  # H d C
        absorbed = torch.einsum("bmhd,hdc->bmhc", query, key) * self.scale
        return (pairs @ absorbed.transpose(2, 3)).permute(0, 3, 1, 2)  # B H M L

    def _pool_by_centroid(self, weights: Tensor, pairs: Tensor) -> Tensor:
        if self.axis == "centroids":
            weights = weights / _positive(weights.sum(dim=3, keepdim=True))
        pooled = weights.transpose(1, 2) @ pairs  # B M H C
        value = self.value.weight.unflatten(0, (self.heads, -1))  # H d C
        return torch.einsum("bmhc,hdc->bmhd", pooled, value).flatten(2)

    # Rows are inputs.

    def _logits_by_input(self, centroids: Tensor, pairs: Tensor, neighbours: Neighbours) -> Tensor:
        batch, rows, length, _ = pairs.shape
        flat = neighbours.index.reshape(batch, -1, 1).expand(-1, -1, self.dim)
        query = self._split(self.query(centroids).gather(1, flat).view(batch, rows, length, self.dim))
        return (query * self._split(self.key(pairs))).sum(dim=4).movedim(3, 1) * self.scale  # B H N L

    def _pool_by_input(self, weights: Tensor, pairs: Tensor, neighbours: Neighbours) -> Tensor:
        batch, rows, length, _ = pairs.shape
        value = self._split(self.value(pairs)) * weights.movedim(1, 3).unsqueeze(4)  # B N L H d
        flat = neighbours.index.reshape(batch, -1, 1)
        total = value.new_zeros(batch, neighbours.centroids, self.dim)
        total = total.scatter_add(1, flat.expand(-1, -1, self.dim), value.reshape(batch, rows * length, self.dim))
        if self.axis == "inputs":
            return total
        mass = weights.new_zeros(batch, neighbours.centroids, self.heads)
        mass = mass.scatter_add(1, flat.expand(-1, -1, self.heads), weights.movedim(1, 3).flatten(1, 2))
        return (self._split(total) / _positive(mass).unsqueeze(3)).flatten(2)


def _positive(mass: Tensor) -> Tensor:
    """Keep a divisor away from zero; a centroid on no list then takes an update of exactly zero."""
    return mass.clamp_min(torch.finfo(mass.dtype).tiny)


def _log_softmax_across_lists(logits: Tensor, neighbours: Neighbours) -> Tensor:
    """Log-softmax over all pairs that share a listed entity, wherever in the lists they stand. (B, H, R, L) both ways."""
    flat = logits.flatten(2)
    index = neighbours.index.flatten(1).unsqueeze(1).expand_as(flat)
    shape = (*flat.shape[:2], neighbours.listed)
    # A softmax does not change when a constant is subtracted; the largest logit of each group keeps exp() in range.
    top = flat.new_full(shape, -torch.inf).scatter_reduce(2, index, flat.detach(), "amax")
    shifted = flat - top.gather(2, index)
    total = flat.new_zeros(shape).scatter_add(2, index, shifted.exp())
    return (shifted - total.gather(2, index).log()).view_as(logits)


def assignment(log_weights: Tensor, neighbours: Neighbours | None = None) -> Tensor:
    """Turn attention weights into soft cluster assignments, whichever axis the softmax ran over.

    Per head, a_ij = w_ij / sum_k w_ik over the centroids k. An input on no centroid's list keeps a row of zeros.

    Args:
        log_weights: as `CentroidAttention` returns them, (B, H, M, N), or (B, H, R, L) with `neighbours`.
        neighbours: the list the weights belong to; None for full attention.

    Returns:
        (B, H, N, M); every row sums to 1, or to 0 where the input is unassigned.
    """
    log_weights = log_weights.detach()
    if neighbours is None:
        return log_weights.transpose(2, 3).softmax(dim=3)
    batch, heads = log_weights.shape[:2]
    by_centroid = neighbours.side == "centroids"
    rows = neighbours.centroids if by_centroid else neighbours.inputs
    index = neighbours.index.unsqueeze(1).expand(-1, heads, -1, -1)
    dense = log_weights.new_full((batch, heads, rows, neighbours.listed), -torch.inf).scatter(3, index, log_weights)
    # A row of nothing but -inf, an input on no list, comes out of the softmax as NaN.
    return (dense.transpose(2, 3) if by_centroid else dense).softmax(dim=3).nan_to_num(0.0)
