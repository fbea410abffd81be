"""Random changes of training clouds: batched, on the device of the batch, and a function of (seed, epoch, sample).

Random numbers come from a counter, not from a stream: a sample gets the same changes in whatever batch, order, process
or device it is met. That is what makes resumed and distributed runs equal to plain ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pointcentroid.config import AugmentConfig
from pointcentroid.geometry.fps import farthest_first
from pointcentroid.geometry.neighbours import gather_points, nearest_neighbours
from pointcentroid.geometry.sampling import NEAR

_WARP = 0.1  # the largest wave of a cloud that is bent


def _mix(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014), on int64 tensors that wrap around."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


class CounterRandom:
    """Random numbers addressed by (seed, epoch, sample, draw).

    Args:
        seed: of the run.
        epoch: of the run.
        samples: (B,) int64 sample numbers in the data set.
    """

    def __init__(self, seed: int, epoch: int, samples: Tensor) -> None:
        self._state = _mix(_mix(_mix(torch.full_like(samples, seed + 1)) + epoch) + samples)
        self._draws = 0

    def uniform(self, count: int) -> Tensor:
        """(B, count) float32 in [0, 1), fresh at every call."""
        self._draws += 1
        counter = torch.arange(count, device=self._state.device)
        bits = _mix(_mix(self._state + self._draws).unsqueeze(1) + counter * -0x61C8864680B583EB)
        return ((bits >> 40) & 0xFFFFFF).float() * 2.0**-24

    def normal(self, count: int) -> Tensor:
        """(B, count) float32 standard normal, by the transform of Box and Muller (1958)."""
        radius = (-2 * torch.log1p(-self.uniform(count))).sqrt()
        return radius * (2 * math.pi * self.uniform(count)).cos()


def augment(points: Tensor, random: CounterRandom, config: AugmentConfig) -> Tensor:
    """Vary z-up clouds for training. Their order of points, and so their farthest-point order, is kept.

    Args:
        points: (B, N, 3).
        random: source of randomness.
        config: which changes, how strong.

    Returns:
        (B, N, 3).
    """
    return augmented(points, random, config)[0]


def augmented(points: Tensor, random: CounterRandom, config: AugmentConfig) -> tuple[Tensor, Tensor]:
    """As `augment`; and (B,) the angles that clouds were turned by about the up axis, in radians, 0 for most."""
    batch, count, _ = points.shape
    chance = random.uniform(3)
    angle = torch.where(chance[:, 0] < config.quarter_turn, (1 + (random.uniform(1)[:, 0] * 3).floor()) * math.pi / 2, 0.0)
    angle = torch.where(chance[:, 1] < config.turn, random.uniform(1)[:, 0] * 2 * math.pi, angle)
    factor = torch.exp((2 * random.uniform(3) - 1) * math.log(config.scale))
    mirror = torch.where(chance[:, 2] < config.mirror, -1.0, 1.0)
    factor = torch.stack([factor[:, 0] * mirror, factor[:, 1], factor[:, 2]], dim=1)
    if config.warp:
        size = torch.where(random.uniform(1)[:, 0] < config.warp, _WARP, 0.0).unsqueeze(1) * random.uniform(3)
        points = bent(points, random.uniform(21), size)
    points = (points * factor.unsqueeze(1)) @ about_z(angle).transpose(1, 2)
    if config.dropout:
        lost = random.uniform(count) < config.dropout * random.uniform(1)
        points = torch.where(lost.unsqueeze(2), points[:, :1], points)
    if config.jitter:
        noise = random.normal(3 * count).view(batch, count, 3).clamp(-3, 3)
        points = points + config.jitter * noise
    return points + config.shift * (2 * random.uniform(3) - 1).unsqueeze(1), angle


def bent(points: Tensor, draws: Tensor, size: Tensor) -> Tensor:
    """Bend space by three waves; gently bent, a shape is another of its kind.

    After S. Kim et al., "Point cloud augmentation with weighted local transformations", ICCV 2021, who move the surroundings
    of a few points and blend between them.

    Args:
        points: (B, N, 3).
        draws: (B, 21) random numbers in [0, 1): where each wave goes, where it pushes, and where it begins.
        size: (B, 3) of each wave.

    Returns:
        (B, N, 3).
    """
    moved = points
    for wave in range(3):
        d = draws[:, 6 * wave : 6 * wave + 6]
        along = nn.functional.normalize(2 * d[:, :3] - 1 + 1e-6, dim=1)
        push = nn.functional.normalize(2 * d[:, 3:] - 1 + 1e-6, dim=1)
        phase = 4 * (points @ along.unsqueeze(2)) + 2 * math.pi * draws[:, 18 + wave].view(-1, 1, 1)
        moved = moved + size[:, wave].view(-1, 1, 1) * phase.sin() * push.unsqueeze(1)
    return moved


def reseed(points: Tensor, random: CounterRandom, seeds: int) -> Tensor:
    """Put clouds in farthest-point order anew, from a random point on: the net sees them through other centroids.

    Args:
        points: (B, N, 3).
        random: source of randomness.
        seeds: how many points to order.

    Returns:
        (B, N, 3), the same points.
    """
    start = (random.uniform(1)[:, 0] * points.shape[1]).long()
    return farthest_first(points, seeds, start)


def mix(points: Tensor, labels: Tensor, random: CounterRandom, probability: float) -> tuple[Tensor, Tensor]:
    """Replace a random share of the points of some clouds by those of the next cloud of the batch; labels follow.

    PointCutMix-R (Zhang et al., arXiv 2101.01461) without its assignment of points: the point that comes in has the
    place of the one that goes, so that the mixed cloud begins, as both did, with points that lie far apart. Unlike the
    other changes, this one depends on the company that a cloud is in.

    Args:
        points: (B, N, 3) in farthest-point order.
        labels: (B, C) probabilities of the classes.
        random: source of randomness.
        probability: that a cloud is mixed; the share that it loses is uniform in [0, 1].

    Returns:
        (B, N, 3) and (B, C).
    """
    chance = random.uniform(2)
    share = torch.where(chance[:, 0] < probability, chance[:, 1], 0.0)
    foreign = random.uniform(points.shape[1]) < share.unsqueeze(1)
    kept = 1 - foreign.float().mean(dim=1, keepdim=True)
    points = torch.where(foreign.unsqueeze(2), points.roll(-1, dims=0), points)
    return points, kept * labels + (1 - kept) * labels.roll(-1, dims=0)


def changed(points: Tensor, kind: Tensor, kinds: Sequence[Callable[..., Tensor]], *given: Tensor) -> Tensor:
    """Change some clouds, each in one of several equally likely ways.

    Args:
        points: (B, N, 3).
        kind: (B,) in [0, 1), which way; a cloud of 1 or more stays as it is.
        kinds: the ways; one that stands there twice is twice as likely. Each takes clouds, and of `given` what is theirs.
        given: (B, ...) random numbers.

    Returns:
        (B, N, 3); those that were changed with their mean at the origin and radius 1.
    """
    number = (kind * len(kinds)).floor()
    made = points.clone()
    for make in dict.fromkeys(kinds):
        places = torch.tensor([place for place, other in enumerate(kinds) if other is make]).to(number)
        rows = torch.isin(number, places).nonzero()[:, 0]
        if len(rows):
            made[rows] = normalised(make(points[rows], *(numbers[rows] for numbers in given)))
    return made


def normalised(points: Tensor) -> Tensor:
    """(B, N, 3) clouds with their mean at the origin and radius 1, as `geometry.sampling.normalise` leaves them."""
    points = points - points.mean(dim=1, keepdim=True)
    return points / points.norm(dim=2).amax(dim=1).clamp_min(1e-9).view(-1, 1, 1)


def refilled(points: Tensor, order: Tensor, kept: Tensor, noise: Tensor) -> Tensor:
    """Keep some points of each cloud; in the places of the others stand points between those that are kept.

    As `geometry.sampling.filled` fills up small clouds: each is between one that is kept and a near neighbour of it.

    Args:
        points: (B, N, 3).
        order: (B, N) rows of points, those to keep first.
        kept: (B,) how many to keep, at least 1.
        noise: (B, N) random numbers in [0, 1).

    Returns:
        (B, N, 3); points that are kept stay where they stood in `points`.
    """
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    left = (rank < kept.unsqueeze(1)).unsqueeze(2)
    one = gather_points(points, order.gather(1, (noise * kept.unsqueeze(1)).long()))
    near = nearest_neighbours(one, torch.where(left, points, torch.inf), NEAR)
    # The lower bits of a number are as random as the upper ones.
    number = ((noise * 2.0**10 % 1) * kept.clamp_max(near.shape[2]).unsqueeze(1)).long()
    other = gather_points(points, near.gather(2, number.unsqueeze(2))[:, :, 0])
    share = (noise * 2.0**14 % 1).unsqueeze(2)
    return torch.where(left, points, (1 - share) * one + share * other)


def tilted(points: Tensor, heading: Tensor, angle: Tensor) -> Tensor:
    """(B, N, 3) clouds turned by (B,) angles about level axes, (B,) headings from the x axis; all in radians."""
    turn, cos, sin = about_z(heading), angle.cos(), angle.sin()
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    about_x = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
    return points @ turn @ about_x @ turn.transpose(1, 2)


def about_z(angle: Tensor) -> Tensor:
    """(B,) radians -> (B, 3, 3) rotations about z."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1).view(-1, 3, 3)
