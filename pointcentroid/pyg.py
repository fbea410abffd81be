"""Centroid pooling for PyTorch Geometric: ragged batches of clouds in, fewer centroids out, without padding.

The same layer as `pointcentroid.nn.encoder.CentroidStage`, whose parameters it holds, computed edge by edge on the bipartite
graph from inputs to centroids.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pointcentroid.config import EncoderConfig, StageConfig
from pointcentroid.errors import ConfigError, MissingExtraError
from pointcentroid.geometry.neighbours import nearest_neighbours
from pointcentroid.nn.centroid_attention import Axis, CentroidAttention
from pointcentroid.nn.encoder import CentroidStage, PairTokens
from pointcentroid.nn.norm import Norm

try:
    from torch_geometric.nn import MessagePassing
    from torch_geometric.utils import scatter, softmax
except ImportError as error:
    raise MissingExtraError("pooling in PyTorch Geometric", "pyg", error.name or "torch_geometric") from None


class Pooled(NamedTuple):
    """What a pooling layer returns, in the order in which `torch_geometric.nn.Sequential` passes it on.

    Attributes:
        x: (M, out_channels) features of all centroids.
        pos: (M, 3) their positions.
        batch: (M,) int64, the cloud of each.
        edge_index: (2, E) int64, from inputs (row 0) to the centroids (row 1) that list them.
        weight: (E,) the share of the input that goes to the centroid: the edges of an input sum to 1.
    """

    x: Tensor
    pos: Tensor
    batch: Tensor
    edge_index: Tensor
    weight: Tensor


class CentroidPooling(nn.Module):
    """Abstract each cloud of a batch into at most `centroids` centroids, with centroid attention.

    Args:
        in_channels: channels of `x`; 3 where `x` will be None, and the positions are the features.
        out_channels: channels of the centroids; a multiple of `heads`.
        centroids: of each cloud; a cloud of fewer points keeps one for each point.
        neighbours: nearest inputs that a centroid attends to.
        heads: of the attention.
        axis: what the softmax runs over, see `pointcentroid.nn.centroid_attention`.
        steps: update steps.
        norm: over all edges or centroids of a batch, or by layer; see `pointcentroid.nn.norm`.

    Raises:
        ConfigError: a size is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        centroids: int,
        *,
        neighbours: int = 16,
        heads: int = 4,
        axis: Axis = "inputs",
        steps: int = 1,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        stage = StageConfig(centroids, out_channels, neighbours=neighbours, heads=heads)
        self.in_channels, self.centroids, self.neighbours = in_channels, centroids, neighbours
        options = EncoderConfig(stages=(stage,), embed=1, axis=axis, steps=steps, norm=norm, tokens="pairs")
        self.stage = CentroidStage(in_channels, stage, options)
        if self.stage.attention is None:
            raise ConfigError(f"steps must be at least 1, found {steps}")
        self.attend = _EdgeAttention(self.stage.attention)

    def forward(self, x: Tensor | None, pos: Tensor, batch: Tensor | None = None, batch_size: int | None = None) -> Pooled:
        """Pool.

        Args:
            x: (N, in_channels) features of all points, or None.
            pos: (N, 3) positions, normalised cloud by cloud (radius 1).
            batch: (N,) int64, the cloud of each point, ascending; None for one cloud.
            batch_size: number of clouds, where the last ones may be empty.

        Returns:
            The centroids, cloud by cloud in farthest-point order; an empty cloud has none.

        Raises:
            ValueError: shapes do not match, `batch` is not ascending, or a position is not finite.
        """
        batch = pos.new_zeros(len(pos), dtype=torch.int64) if batch is None else batch
        x = pos if x is None else x
        self._check(x, pos, batch)
        sizes = batch.bincount(minlength=batch_size or 0)
        seeds = farthest_points(pos, batch, sizes, self.centroids)
        edge_index = self._edges(pos, seeds, sizes, batch)
        inputs, rows = edge_index
        where, cloud = pos[seeds], batch[seeds]

        # As `PairTokens` does, with the radius of each cloud's own size.
        pairs = self.stage.pairs
        assert isinstance(pairs, PairTokens)
        radius = (sizes.clamp(max=self.neighbours).to(pos) / sizes).sqrt()
        seen = pairs.feature(pairs.norm(x)) + pairs.position(pos / radius[batch].unsqueeze(1))
        origin = pairs.position(where / radius[cloud].unsqueeze(1))
        tokens = pairs.out(nn.functional.gelu(seen[inputs] - origin[rows]))

        count = len(seeds)
        centroids = self.stage.place(where) + scatter(tokens, rows, dim=0, dim_size=count, reduce="max")
        assert self.stage.seed is not None, "seeds are points, which have features"
        centroids, log_weights = self.attend(centroids + self.stage.seed(x[seeds]), tokens, edge_index, len(x))
        centroids = centroids + self.stage.feed_forward(centroids)
        shares = softmax(log_weights.detach(), inputs, num_nodes=len(x))
        return Pooled(centroids, where, cloud, edge_index, shares.mean(dim=1))

    def _check(self, x: Tensor, pos: Tensor, batch: Tensor) -> None:
        if pos.ndim != 2 or pos.shape[1] != 3:
            raise ValueError(f"pos must have shape (N, 3), found {tuple(pos.shape)}")
        if x.shape != (len(pos), self.in_channels) or batch.shape != (len(pos),):
            found = f"x {tuple(x.shape)}, pos {tuple(pos.shape)}, batch {tuple(batch.shape)}"
            raise ValueError(
                f"expected x of shape (N, {self.in_channels}) and batch of shape (N,) for N positions, found {found}"
            )
        if (batch.diff() < 0).any():
            raise ValueError("batch must be ascending, cloud after cloud, as PyTorch Geometric makes it")
        if not pos.isfinite().all():
            raise ValueError("pos holds numbers that are not finite")

    def _edges(self, pos: Tensor, seeds: Tensor, sizes: Tensor, batch: Tensor) -> Tensor:
        """(2, E): for each seed its nearest inputs, nearest first."""
        inputs, rows = [], []
        counts = sizes.clamp(max=self.centroids).tolist()
        start = first = 0
        for size, count in zip(sizes.tolist(), counts, strict=True):
            if size:
                own = pos[start : start + size].unsqueeze(0)
                chosen = seeds[first : first + count] - start
                near = nearest_neighbours(own[:, chosen], own, self.neighbours)[0]
                inputs.append(near.flatten() + start)
                rows.append(torch.arange(first, first + count, device=pos.device).repeat_interleave(near.shape[1]))
            start, first = start + size, first + count
        if not inputs:
            return batch.new_empty(2, 0)
        return torch.stack([torch.cat(inputs), torch.cat(rows)])

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"in_channels={self.in_channels}, centroids={self.centroids}, neighbours={self.neighbours}"


class _EdgeAttention(MessagePassing):
    """Centroid attention as message passing, with the parameters of the dense layer.

    Args:
        dense: the layer that owns them.
    """

    def __init__(self, dense: CentroidAttention) -> None:
        super().__init__(aggr="sum", flow="source_to_target")
        self.dense = [dense]  # in a list: the parameters belong to the stage, and are not to be listed twice

    def forward(self, centroids: Tensor, tokens: Tensor, edge_index: Tensor, inputs: int) -> tuple[Tensor, Tensor]:
        """(M, D) centroids and (E, D) tokens -> (M, D) updated centroids and (E, heads) logarithms of the weights."""
        (dense,) = self.dense
        log_weights = tokens.new_empty(len(tokens), dense.heads)
        for _ in range(dense.steps):
            query = self._split(dense.query(dense.norm(centroids)))
            logits = (query[edge_index[1]] * self._split(dense.key(tokens))).sum(dim=2) * dense.scale
            over = edge_index[1] if dense.axis == "inputs" else edge_index[0]
            log_weights = _log_softmax(logits, over, len(centroids) if dense.axis == "inputs" else inputs)
            weights = log_weights.exp()
            if dense.axis == "centroids":
                mass = scatter(weights, edge_index[1], dim=0, dim_size=len(centroids), reduce="sum")
                weights = weights / mass.clamp_min(torch.finfo(mass.dtype).tiny)[edge_index[1]]
            messages = self._split(dense.value(tokens)) * weights.unsqueeze(2)
            update = self.propagate(edge_index, messages=messages.flatten(1), size=(inputs, len(centroids)))
            centroids = centroids + dense.step_size * dense.out(update)
        return centroids, log_weights

    def message(self, messages: Tensor) -> Tensor:
        """Messages are made edge by edge beforehand: the tokens are."""
        return messages

    def _split(self, x: Tensor) -> Tensor:
        (dense,) = self.dense
        return x.unflatten(-1, (dense.heads, dense.dim // dense.heads))


def _log_softmax(logits: Tensor, group: Tensor, groups: int) -> Tensor:
    """(E, H) log-softmax over the edges of each group; a sharp softmax would round to zero."""
    top = scatter(logits.detach(), group, dim=0, dim_size=groups, reduce="max")[group]
    total = scatter((logits - top).exp(), group, dim=0, dim_size=groups, reduce="sum")
    return logits - top - total.log()[group]


def farthest_points(pos: Tensor, batch: Tensor, sizes: Tensor, count: int) -> Tensor:
    """Farthest point sampling of each cloud of a ragged batch, all clouds at once.

    Args:
        pos: (N, 3).
        batch: (N,) int64, ascending.
        sizes: (B,) points of each cloud.
        count: how many to pick of each; a smaller cloud gives all of its points.

    Returns:
        Indices into `pos`, cloud by cloud, min(size, count) different ones of each, in the order of
        `pointcentroid.geometry.fps.farthest_order`.
    """
    pos = pos.detach()
    clouds, most = len(sizes), int(sizes.clamp(max=count).max()) if len(sizes) else 0
    mean = scatter(pos, batch, dim=0, dim_size=clouds, reduce="sum") / sizes.clamp(min=1).unsqueeze(1)
    away = (pos - mean[batch]).square().sum(dim=1)
    nearest = torch.full_like(away, torch.inf)
    picked = batch.new_zeros(clouds, most)
    for step in range(most):
        current = _first_largest(away, batch, clouds)
        picked[:, step] = current
        offset = pos - pos[current][batch]
        away = nearest = torch.minimum(nearest, offset.square().sum(dim=1)).index_fill(0, current[sizes > 0], -1)
    chosen = torch.arange(most, device=pos.device) < sizes.unsqueeze(1)
    return picked[chosen]


def _first_largest(values: Tensor, batch: Tensor, clouds: int) -> Tensor:
    """(B,) index of the first largest value of each cloud; any valid index for an empty one."""
    top = scatter(values, batch, dim=0, dim_size=clouds, reduce="max")
    number = torch.arange(len(values), device=values.device)
    candidates = torch.where(values == top[batch], number, len(values))
    first: Any = torch.full((clouds,), len(values), device=values.device, dtype=torch.int64)
    return first.scatter_reduce(0, batch, candidates, "amin").clamp(max=max(0, len(values) - 1))
