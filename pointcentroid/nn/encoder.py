"""The hierarchical encoder: N points -> M1 centroids -> M2 centroids -> ...

    points ──embed──> features ──stage──> centroids ──stage──> fewer centroids ──> ...

    stage:  seeds ──neighbour lists──> pair tokens ──centroid attention──> feed-forward ──> self-attention blocks

Everything is normalised by LayerNorm, never across a batch, so any batch size and any number of points work, and a cloud
gets the same answer in any company.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pointcentroid.config import EncoderConfig, StageConfig
from pointcentroid.geometry.neighbours import gather_points, nearest_neighbours
from pointcentroid.nn.centroid_attention import CentroidAttention, Neighbours, Side, assignment
from pointcentroid.nn.initialisers import Seeds, create_initialiser


@dataclass(frozen=True)
class StageOutput:
    """What one stage made of its inputs (the points, or the centroids of the stage before).

    Attributes:
        positions: (B, M, 3) centroid positions.
        features: (B, M, C) centroid features.
        assignment: (B, H, N, M) per head, the share of each input that goes to each centroid: rows sum to 1, or to 0
            for an input on no centroid's list. None unless asked for.
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


class PairEncoder(nn.Module):
    """Describe each listed input as its centroid sees it: an MLP of its feature and its relative position.

        e_ij = W2 gelu(W_x x_i + W_p (p_i - c_j) / r),        r = sqrt(K / N)

    r is the order of magnitude of the distance to the K-th of N neighbours on a surface of unit size. The first layer is
    linear in p_i - c_j, so it is applied to points and centroids apart, and only its sums are formed pair by pair.

    Args:
        input_dim: channels of the inputs.
        dim: channels of the pair tokens.
    """

    def __init__(self, input_dim: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(input_dim)
        self.feature = nn.Linear(input_dim, dim)
        self.position = nn.Linear(3, dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, positions: Tensor, features: Tensor, centroids: Tensor, neighbours: Neighbours) -> Tensor:
        """Encode the pairs of a list.

        Args:
            positions: (B, N, 3) of the inputs.
            features: (B, N, input_dim) of the inputs.
            centroids: (B, M, 3) centroid positions.
            neighbours: the pairs.

        Returns:
            (B, R, L, dim), one token per listed pair.
        """
        per_row = neighbours.index.shape[2]
        nearest = per_row if neighbours.side == "centroids" else per_row * neighbours.inputs / neighbours.centroids
        radius = (nearest / neighbours.inputs) ** 0.5
        seen = self.feature(self.norm(features)) + self.position(positions / radius)
        origin = self.position(-centroids / radius)
        if neighbours.side == "centroids":
            pairs = gather_points(seen, neighbours.index).add_(origin.unsqueeze(2))  # the largest tensor, made once
        else:
            pairs = seen.unsqueeze(2) + gather_points(origin, neighbours.index)
        return self.out(nn.functional.gelu(pairs))


class FeedForward(nn.Sequential):
    """Pre-norm two-layer perceptron, `dim -> 2 dim -> dim`."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))


class SelfAttentionBlock(nn.Module):
    """Self-attention among centroids: centroid attention in its special case M = N, softmax over inputs.

    Args:
        dim: channels.
        heads: attention heads.
        neighbours: nearest centroids that each one attends to; 0 for all.
    """

    def __init__(self, dim: int, heads: int, neighbours: int) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.attention = CentroidAttention(dim, heads=heads, axis="inputs")
        self.norm = None if neighbours else nn.LayerNorm(dim)
        self.pairs = PairEncoder(dim, dim) if neighbours else None
        self.feed_forward = FeedForward(dim)

    def forward(self, positions: Tensor, features: Tensor) -> Tensor:
        """(B, M, 3) positions and (B, M, dim) features -> (B, M, dim) features."""
        if self.norm is not None:
            features, _ = self.attention(features, self.norm(features))
        elif self.pairs is not None:
            index = nearest_neighbours(positions, positions, self.neighbours)
            count = positions.shape[1]
            neighbours = Neighbours(index, "centroids", inputs=count, centroids=count)
            tokens = self.pairs(positions, features, positions, neighbours)
            features, _ = self.attention(features, tokens, neighbours)
        return features + self.feed_forward(features)


class CentroidStage(nn.Module):
    """N inputs to M centroids: seed, look around, attend, think.

    A centroid starts from the feature of its seed and the maximum over the pair tokens around it (`pool`), then takes
    the centroid-attention update over the same tokens.

    Args:
        input_dim: channels of the inputs.
        stage: sizes of this stage.
        encoder: options shared by all stages.
    """

    def __init__(self, input_dim: int, stage: StageConfig, encoder: EncoderConfig) -> None:
        super().__init__()
        self.config, self.pool, self.move = stage, encoder.pool == "max", encoder.centroid_position == "mean"
        self.side: Side = encoder.side
        self.initialiser = create_initialiser(encoder.initialiser, stage.centroids)
        self.pairs = PairEncoder(input_dim, stage.dim)
        # Free positions were taken from no input, so there is no feature to start from.
        self.seed = None if encoder.initialiser == "learned" else nn.Linear(input_dim, stage.dim)
        self.place = nn.Linear(3, stage.dim)
        self.attention = None
        if encoder.steps:
            self.attention = CentroidAttention(
                stage.dim,
                heads=stage.heads,
                axis=encoder.axis,
                steps=encoder.steps,
                step_size="learned" if encoder.step_size is None else encoder.step_size,
            )
        self.feed_forward = FeedForward(stage.dim)
        self.blocks = nn.ModuleList(
            SelfAttentionBlock(stage.dim, stage.heads, stage.block_neighbours) for _ in range(stage.blocks)
        )

    def forward(
        self, positions: Tensor, features: Tensor, *, ordered: bool = False, assignments: bool = False
    ) -> StageOutput:
        """Abstract inputs into centroids.

        Args:
            positions: (B, N, 3) of the inputs.
            features: (B, N, input_dim) of the inputs.
            ordered: the inputs are in farthest-point order, so that a prefix of them is the seeds.
            assignments: compute the assignment too.

        Returns:
            The stage's centroids, min(M, N) of them.

        Raises:
            ValueError: assignments are asked of a net that was built without attention.
        """
        if assignments and self.attention is None:
            raise ValueError("a net without attention (steps=0) assigns nothing")
        inputs = positions.shape[1]
        count = min(self.config.centroids, inputs)
        seeds = Seeds(positions[:, :count], None) if ordered else self.initialiser(positions, count)
        neighbours = self._neighbours(positions, seeds.positions)
        tokens = self.pairs(positions, features, seeds.positions, neighbours)

        centroids = self.place(seeds.positions)
        if self.pool:
            centroids = centroids + _pool_max(tokens, neighbours)
        if self.seed is not None:
            start = features[:, :count] if seeds.index is None else gather_points(features, seeds.index)
            centroids = centroids + self.seed(start)
        shares = None
        if self.attention is not None:
            centroids, log_weights = self.attention(centroids, tokens, neighbours)
            shares = assignment(log_weights, neighbours) if assignments or self.move else None
        centroids = centroids + self.feed_forward(centroids)
        where = seeds.positions
        if self.move and shares is not None:
            where = _mean_position(positions, shares.mean(dim=1), where)
        for block in self.blocks:
            centroids = block(where, centroids)
        return StageOutput(where, centroids, shares if assignments else None)

    def _neighbours(self, positions: Tensor, seeds: Tensor) -> Neighbours:
        listing, listed = (seeds, positions) if self.side == "centroids" else (positions, seeds)
        index = nearest_neighbours(listing, listed, self.config.neighbours)
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
        self.embed = nn.Sequential(nn.Linear(3, config.embed), nn.GELU(), nn.Linear(config.embed, config.embed))
        dims = [config.embed, *(stage.dim for stage in config.stages)]
        self.stages = nn.ModuleList(
            CentroidStage(dim, stage, config) for dim, stage in zip(dims, config.stages, strict=False)
        )

    @property
    def dim(self) -> int:
        """Channels of the last stage's centroids."""
        return self.config.stages[-1].dim

    def forward(self, points: Tensor, *, ordered: bool = False, assignments: bool = False) -> list[StageOutput]:
        """Abstract clouds into centroids.

        Args:
            points: (B, N, 3) preprocessed clouds, N >= 1.
            ordered: the clouds are in farthest-point order at least up to the first stage's number of centroids
                (`geometry.fps.farthest_first`), so that no sampling is needed.
            assignments: compute every stage's assignment too.

        Returns:
            One output per stage, finest first.
        """
        positions, features = points, self.embed(points)
        # Farthest point order is nested: once the points have been sampled, every later stage's seeds are a prefix.
        nested = self.config.initialiser == "fps" and self.config.centroid_position == "seed"
        stages: list[StageOutput] = []
        for number, stage in enumerate(self.stages):
            output = stage(positions, features, ordered=nested and (ordered or number > 0), assignments=assignments)
            stages.append(output)
            positions, features = output.positions, output.features
        return stages
