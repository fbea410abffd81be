"""The hierarchical encoder: N points -> M1 centroids -> M2 centroids -> ...

    points ──embed──> features ──stage──> centroids ──stage──> fewer centroids ──> ...

    stage:  seeds ──neighbour lists──> tokens ──centroid attention──> feed-forward ──> local and self-attention blocks

In evaluation nothing depends on the batch: any batch size and any number of points work, and a cloud gets the same answer in
any company.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pointcentroid.config import EncoderConfig, StageConfig
from pointcentroid.geometry.neighbours import at_most, gather_points, nearest_neighbours
from pointcentroid.nn.centroid_attention import CentroidAttention, Neighbours, Side, assignment
from pointcentroid.nn.initialisers import Seeds, create_initialiser
from pointcentroid.nn.local import DropPath, LocalBlock, neighbour_max
from pointcentroid.nn.norm import Affine, FeedForward, Norm, create_norm, normed_linear


@dataclass(frozen=True)
class StageOutput:
    """What one stage made of its inputs (the points, or the centroids of the stage before).

    Attributes:
        positions: (B, M, 3) centroid positions.
        features: (B, M, C) centroid features.
        assignment: (B, H, N, M) per head, the share of each input that goes to each centroid: rows sum to 1, or to 0
            for an input that goes to no centroid. None unless asked for.
    """

    positions: Tensor
    features: Tensor
    assignment: Tensor | None = None

    @property
    def combined(self) -> Tensor:
        """(B, N, M) the assignment averaged over heads."""
        if self.assignment is None:
            raise ValueError("this stage was computed without assignments: call the encoder with assignments=True")
        return self.assignment.mean(dim=1)


def compose(stages: list[StageOutput]) -> list[Tensor]:
    """Follow assignments down the hierarchy: which share of each original point ends in each centroid.

    Args:
        stages: outputs of an encoder called with `assignments=True`.

    Returns:
        For each stage, (B, N, M_s): the matrix product of the combined assignments up to and including that stage.
    """
    composed = [stages[0].combined]
    for stage in stages[1:]:
        composed.append(composed[-1] @ stage.combined)
    return composed


Search = Callable[[int, Tensor, Tensor, int], Tensor]
"""`nearest_neighbours`, told the level of what is listed: 0 for points, s for the centroids of the s-th stage."""


class _Nested:
    """Neighbours where centroids are farthest points: every level is a prefix of the one before, so that a list that was
    found for more rows, or brought along, serves again.

    Args:
        lists: found before: (level, L) -> (B, R, L) int64, of the first R of a level the L nearest of all of it.
    """

    def __init__(self, lists: Mapping[tuple[int, int], Tensor]) -> None:
        self.lists = dict(lists)

    def __call__(self, level: int, listing: Tensor, listed: Tensor, count: int) -> Tensor:
        found = self.lists.get((level, count))
        if found is None or found.shape[1] < listing.shape[1]:
            found = self.lists[level, count] = nearest_neighbours(listing, listed, count)
        return found[:, : listing.shape[1]]


def _anew(level: int, listing: Tensor, listed: Tensor, count: int) -> Tensor:  # noqa: ARG001, a `Search`
    return nearest_neighbours(listing, listed, count)


@dataclass(frozen=True)
class Tokens:
    """What the pairs of a list look like.

    Attributes:
        pairs: (B, R, L, C) what is said of each pair by itself.
        values: (B, N, dim) what is said of each input, wherever it is listed; None for nothing.
        origin: (B, M, dim) what is taken off it, where a centroid sees it; None for nothing.
        neighbours: the pairs.
    """

    pairs: Tensor
    values: Tensor | None
    origin: Tensor | None
    neighbours: Neighbours

    def joined(self) -> Tensor:
        """(B, R, L, C + dim) tokens, one a pair."""
        if self.values is None:
            return self.pairs
        if self.neighbours.side == "centroids":
            seen = gather_points(self.values, self.neighbours.index)
            seen = seen if self.origin is None else seen - self.origin.unsqueeze(2)
        else:
            seen = self.values.unsqueeze(2).expand(-1, -1, self.pairs.shape[2], -1)
            seen = seen if self.origin is None else seen - gather_points(self.origin, self.neighbours.index)
        return torch.cat([self.pairs.to(seen), seen], dim=3)

    def won(self) -> Tensor:
        """(B, R, L) the share of the channels of each pair in which its centroid sees no larger value.

        Max-pooling is centroid attention with a weight for every channel, all of it on the largest value: with x_ic what
        centroid j sees of input i, max_i x_ic = sum_i w_ijc x_ic, where w_ijc is the softmax over i of x_ic / T as T goes
        to 0. These are the means of w_ijc over c (of equal values, each counts).
        """
        largest = torch.cat([top.to(self.pairs) for top in self.largest() if top is not None], dim=2)
        by_centroid = self.neighbours.side == "centroids"
        largest = largest.unsqueeze(2) if by_centroid else gather_points(largest, self.neighbours.index)
        return (self.joined() == largest).to(self.pairs).mean(dim=3)

    def largest(self) -> tuple[Tensor, Tensor | None]:
        """(B, M, C) and (B, M, dim), the largest over the pairs of each centroid (0 where it has none)."""
        if self.values is None:
            return _pool_max(self.pairs, self.neighbours), None
        if self.neighbours.side == "centroids":
            top = neighbour_max(self.values, self.neighbours.index)
            return _pool_max(self.pairs, self.neighbours), top if self.origin is None else top - self.origin
        pairs, values = self.pairs.shape[3], self.values.shape[2]
        largest = _pool_max(self.joined(), self.neighbours).split([pairs, values], dim=2)
        return largest[0], largest[1]


def _radius(neighbours: Neighbours) -> float:
    """The order of magnitude of the distance between the two of a pair, sqrt(K / N), on a surface of unit size."""
    per_row = neighbours.index.shape[2]
    nearest = per_row if neighbours.side == "centroids" else per_row * neighbours.inputs / neighbours.centroids
    return (nearest / neighbours.inputs) ** 0.5


def _spread(seen: Tensor, origin: Tensor, neighbours: Neighbours) -> Tensor:
    """(B, N, C) of inputs minus (B, M, C) of centroids, pair by pair: (B, R, L, C)."""
    if neighbours.side == "centroids":
        return gather_points(seen, neighbours.index).sub_(origin.unsqueeze(2))  # the largest tensor, made once
    return seen.unsqueeze(2) - gather_points(origin, neighbours.index)


class PairTokens(nn.Module):
    """Describe each listed input as its centroid sees it: an MLP of its feature and its relative position.

        e_ij = W2 gelu(W_x x_i + W_p (p_i - c_j) / r),        r = sqrt(K / N)

    The first layer is linear in p_i - c_j, so it is applied to points and centroids apart, and only its sums are formed pair
    by pair. A centroid's pool is the maximum over its pairs.

    Args:
        input_dim: channels of the inputs.
        dim: channels of the pair tokens.
        norm: of the inputs; over the batch, of the tokens too.
    """

    def __init__(self, input_dim: int, dim: int, norm: Norm) -> None:
        super().__init__()
        self.norm = create_norm(norm, input_dim)
        self.feature = nn.Linear(input_dim, dim)
        self.position = nn.Linear(3, dim, bias=False)
        self.out = normed_linear(norm, dim, dim)
        self.channels = dim

    def forward(
        self,
        positions: Tensor,
        features: Tensor,
        centroids: Tensor,
        seeds: Tensor | None,  # noqa: ARG002, `PointTokens` needs them
        neighbours: Neighbours,
    ) -> Tokens:
        """Describe the pairs of a list.

        Args:
            positions: (B, N, 3) of the inputs.
            features: (B, N, input_dim) of the inputs.
            centroids: (B, M, 3) centroid positions.
            seeds: (B, M, input_dim) features of the inputs that the centroids were taken from, or None; not used here.
            neighbours: the pairs.
        """
        radius = _radius(neighbours)
        seen = self.feature(self.norm(features)) + self.position(positions / radius)
        pairs = _spread(seen, self.position(centroids / radius), neighbours)
        return Tokens(self.out(nn.functional.gelu(pairs)), None, None, neighbours)

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, M, dim), the largest over the pairs of each centroid."""
        return tokens.largest()[0]


class PointTokens(nn.Module):
    """The same for less work: features by a linear layer point by point, a small MLP for relative positions alone.

        e_ij = W2 gelu(norm(W1 (p_i - c_j) / r)),    v_i = W x_i,    pool of centroid j: norm(P max_i e_ij + max_i v_i - v_j)

    Args:
        input_dim: channels of the inputs; 0 where they have positions alone.
        dim: channels of the values.
        relative: channels of the MLP of relative positions.
        norm: which.
        pools: whether `pool` will be called.
    """

    def __init__(self, input_dim: int, dim: int, relative: int, norm: Norm, pools: bool) -> None:
        super().__init__()
        self.position = nn.Linear(3, max(1, relative // 2), bias=False)
        self.inner = create_norm(norm, max(1, relative // 2))
        self.out = nn.Linear(max(1, relative // 2), relative)
        self.value = nn.Linear(input_dim, dim, bias=False) if input_dim else None
        if pools:
            self.mix = nn.Linear(relative, dim)
            self.norm = create_norm(norm, dim)
        self.channels = relative + (dim if input_dim else 0)

    def forward(
        self, positions: Tensor, features: Tensor, centroids: Tensor, seeds: Tensor | None, neighbours: Neighbours
    ) -> Tokens:
        """See `PairTokens.forward`."""
        radius = _radius(neighbours)
        seen, origin = positions / radius, centroids / radius
        if isinstance(self.inner, Affine):  # it is linear, so it acts on points before they are many pairs
            weight = self.position.weight * self.inner.weight.unsqueeze(1)
            seen, origin = (nn.functional.linear(places, weight) for places in (seen, origin))
            pairs = _spread(seen, origin - self.inner.bias, neighbours)
        else:
            pairs = self.inner(_spread(self.position(seen), self.position(origin), neighbours))
        pairs = self.out(nn.functional.gelu(pairs))
        if self.value is None:
            return Tokens(pairs, None, None, neighbours)
        return Tokens(pairs, self.value(features), None if seeds is None else self.value(seeds), neighbours)

    def pool(self, tokens: Tokens) -> Tensor:
        """(B, M, dim), what is largest around each centroid."""
        pairs, values = tokens.largest()
        pooled = self.mix(pairs)
        return self.norm(pooled if values is None else pooled + values)


class SelfAttentionBlock(nn.Module):
    """Self-attention among centroids: centroid attention in its special case M = N, softmax over inputs.

    Args:
        dim: channels.
        heads: attention heads.
        neighbours: nearest centroids that each one attends to; 0 for all.
        norm: which.
        drop_path: see `pointcentroid.nn.local.DropPath`.
    """

    def __init__(self, dim: int, heads: int, neighbours: int, norm: Norm = "layer", drop_path: float = 0.0) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.attention = CentroidAttention(dim, heads=heads, axis="inputs", norm=norm)
        self.norm = None if neighbours else nn.LayerNorm(dim) if norm == "layer" else nn.Identity()
        self.pairs = PairTokens(dim, dim, norm) if neighbours else None
        self.feed_forward = FeedForward(dim, norm)
        self.drop = DropPath(drop_path)

    def forward(self, positions: Tensor, features: Tensor, level: int = 0, search: Search = _anew) -> Tensor:
        """(B, M, 3) positions and (B, M, dim) features -> (B, M, dim) features."""
        if self.norm is not None:
            features, _ = self.attention(features, self.norm(features))
        elif self.pairs is not None:
            index = search(level, positions, positions, self.neighbours)
            count = positions.shape[1]
            neighbours = Neighbours(index, "centroids", inputs=count, centroids=count)
            tokens = self.pairs(positions, features, positions, None, neighbours)
            features, _ = self.attention(features, tokens.pairs, neighbours)
        return features + self.drop(self.feed_forward(features))


class CentroidStage(nn.Module):
    """N inputs to M centroids: seed, look around, attend, think.

    A centroid starts from the feature of its seed and the maximum over what is around it (`pool`), then takes the
    centroid-attention update over the same tokens.

    Args:
        input_dim: channels of the inputs; 0 where they have positions alone.
        stage: sizes of this stage.
        encoder: options shared by all stages.
    """

    def __init__(self, input_dim: int, stage: StageConfig, encoder: EncoderConfig) -> None:
        super().__init__()
        norm, dim, drop = encoder.norm, stage.dim, encoder.drop_path
        self.config, self.pooled, self.move = stage, encoder.pool == "max", encoder.centroid_position == "mean"
        self.side: Side = encoder.side
        self.initialiser = create_initialiser(encoder.initialiser, stage.centroids)
        if encoder.tokens == "points":
            self.pairs = PointTokens(input_dim, dim, encoder.relative, norm, self.pooled)
        else:
            self.pairs = PairTokens(input_dim, dim, norm)
        # Free positions were taken from no input, so there is no feature to start from.
        self.seed = nn.Linear(input_dim, dim) if input_dim and encoder.initialiser != "learned" else None
        self.place = nn.Linear(3, dim)
        self.attention = None
        if encoder.steps:
            self.attention = CentroidAttention(
                dim,
                self.pairs.channels,
                heads=stage.heads,
                axis=encoder.axis,
                steps=encoder.steps,
                step_size="learned" if encoder.step_size is None else encoder.step_size,
                norm=norm,
            )
        self.feed_forward = FeedForward(dim, norm)
        self.local = nn.ModuleList(LocalBlock(dim, norm, drop) for _ in range(stage.local_blocks))
        self.blocks = nn.ModuleList(
            SelfAttentionBlock(dim, stage.heads, stage.block_neighbours, norm, drop) for _ in range(stage.blocks)
        )

    def forward(
        self,
        positions: Tensor,
        features: Tensor,
        *,
        ordered: bool = False,
        assignments: bool = False,
        level: int = 0,
        search: Search = _anew,
    ) -> StageOutput:
        """Abstract inputs into centroids.

        Args:
            positions: (B, N, 3) of the inputs.
            features: (B, N, input_dim) of the inputs.
            ordered: the inputs are in farthest-point order, so that a prefix of them is the seeds.
            assignments: compute the assignment too.
            level: of the inputs, see `Search`.
            search: what finds neighbours.

        Returns:
            The stage's centroids, min(M, N) of them.
        """
        inputs = positions.shape[1]
        count = at_most(self.config.centroids, inputs)
        seeds = Seeds(positions[:, :count], None) if ordered else self.initialiser(positions, count)
        # What inputs list is listed by a prefix of them, the seeds, only where they are in order.
        lists = search if ordered or self.side == "centroids" else _anew
        neighbours = self._neighbours(positions, seeds.positions, level, lists)
        starts = None
        if self.seed is not None:
            starts = features[:, :count] if seeds.index is None else gather_points(features, seeds.index)
        tokens = self.pairs(positions, features, seeds.positions, starts, neighbours)

        centroids = self.place(seeds.positions)
        if self.pooled:
            centroids = centroids + self.pairs.pool(tokens)
        if self.seed is not None:
            centroids = centroids + self.seed(starts)
        shares = None
        if self.attention is not None:
            centroids, log_weights = self.attention(centroids, tokens.joined(), neighbours)
            shares = assignment(log_weights, neighbours) if assignments or self.move else None
        elif assignments:
            shares = assignment(tokens.won().log().unsqueeze(1), neighbours)
        centroids = centroids + self.feed_forward(centroids)
        where = seeds.positions
        if self.move and shares is not None:
            where = _mean_position(positions, shares.mean(dim=1), where)
        if self.local:
            nearest = search(level + 1, where, where, self.config.neighbours)
            for block in self.local:
                centroids = block(centroids, nearest)
        for block in self.blocks:
            centroids = block(where, centroids, level + 1, search)
        return StageOutput(where, centroids, shares if assignments else None)

    def _neighbours(self, positions: Tensor, seeds: Tensor, level: int, search: Search) -> Neighbours:
        if self.side == "centroids":
            index = search(level, seeds, positions, self.config.neighbours)
        else:
            index = search(level + 1, positions, seeds, self.config.neighbours)
        return Neighbours(index, self.side, inputs=positions.shape[1], centroids=seeds.shape[1])


def _pool_max(tokens: Tensor, neighbours: Neighbours) -> Tensor:
    """(B, R, L, C) pair tokens -> (B, M, C), the largest over the pairs of each centroid (0 where it has none)."""
    if neighbours.side == "centroids":
        # The same numbers: amax is three times faster forward, and max, which keeps an index, backward.
        return tokens.max(dim=2).values if torch.is_grad_enabled() else tokens.amax(dim=2)
    width = tokens.shape[3]
    index = neighbours.index.flatten(1).unsqueeze(2).expand(-1, -1, width)
    start = tokens.new_zeros(len(tokens), neighbours.centroids, width)
    return start.scatter_reduce(1, index, tokens.flatten(1, 2), "amax", include_self=False)


def _mean_position(positions: Tensor, shares: Tensor, seeds: Tensor) -> Tensor:
    """(B, M, 3) assignment-weighted means of the input positions; a centroid with no inputs stays at its seed."""
    mass = shares.sum(dim=1).unsqueeze(2)
    mean = shares.transpose(1, 2) @ positions / mass.clamp_min(torch.finfo(mass.dtype).tiny)
    return torch.where(mass > 0, mean, seeds)


class CentroidEncoder(nn.Module):
    """Embed the points, then abstract them stage by stage.

    Args:
        config: sizes and options.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = None
        if config.embed:
            layers = [normed_linear(config.norm, a, config.embed) for a in (3, config.embed)]
            self.embed = nn.Sequential(layers[0], nn.GELU(), layers[1])
        dims = [config.embed, *(stage.dim for stage in config.stages)]
        self.stages = nn.ModuleList(
            CentroidStage(dim, stage, config) for dim, stage in zip(dims, config.stages, strict=False)
        )

    @property
    def dim(self) -> int:
        """Channels of the last stage's centroids."""
        return self.config.stages[-1].dim

    def forward(
        self,
        points: Tensor,
        *,
        ordered: bool = False,
        assignments: bool = False,
        lists: Mapping[tuple[int, int], Tensor] | None = None,
    ) -> list[StageOutput]:
        """Abstract clouds into centroids.

        Args:
            points: (B, N, 3) preprocessed clouds, N >= 1.
            ordered: the clouds are in farthest-point order at least up to the first stage's number of centroids
                (`geometry.fps.farthest_first`), so that no sampling is needed.
            assignments: compute every stage's assignment too.
            lists: neighbours that were found before, where centroids are farthest points: (level, L) -> (B, R, L) int64,
                of the first R of a level (see `Search`) the L nearest of all of it. What is not there is found here.

        Returns:
            One output per stage, finest first.
        """
        positions, features = points, points if self.embed is None else self.embed(points)
        # Farthest point order is nested: once the points have been sampled, every later stage's seeds are a prefix.
        nested = self.config.initialiser == "fps" and self.config.centroid_position == "seed"
        search = _Nested(lists or {}) if nested else _anew
        stages: list[StageOutput] = []
        for number, stage in enumerate(self.stages):
            seeded = nested and (ordered or number > 0)
            output = stage(positions, features, ordered=seeded, assignments=assignments, level=number, search=search)
            stages.append(output)
            positions, features = output.positions, output.features
        return stages
