"""Clouds that a classifier should not know: what `known`, its output beside the classes, is trained against.

Half of them are shapes with the wrong axis up; the others are things of no class, made of a shape: two of it at once, a
piece of it, the shape warped, tilted, or cut into slabs that change places.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pointcentroid.data.augment import CounterRandom, about_z
from pointcentroid.geometry.axes import TO_Z_UP, UP_AXES

FOREIGN = -1
"""The label of a cloud of no class."""


def make_foreign(points: Tensor, random: CounterRandom, probability: float) -> tuple[Tensor, Tensor]:
    """Replace some clouds by what is of no class, or by themselves with the wrong axis up.

    Args:
        points: (B, N, 3) clouds, z up, of radius 1.
        random: source of randomness.
        probability: that a cloud is replaced.

    Returns:
        (B, N, 3) clouds, and (B,) whether each is foreign.
    """
    kind = random.uniform(1)[:, 0] / max(probability, 1e-9)
    draws = random.uniform(24)
    noise = random.uniform(points.shape[1])
    foreign = kind < 1
    made = points.clone()
    first = 0.0
    for share, make in ((0.5, _wrong_axis), (0.1, _tilted), (0.1, _pair), (0.1, _piece), (0.1, _warped), (0.1, _slabs)):
        rows = ((kind >= first) & (kind < first + share) & foreign).nonzero()[:, 0]
        first = first + share if make is not _slabs else 1.0
        if len(rows):
            made[rows] = normalised(make(points[rows], draws[rows], noise[rows]))
    return made, foreign


def normalised(points: Tensor) -> Tensor:
    """(B, N, 3) clouds with their mean at the origin and radius 1, as `geometry.sampling.normalise` leaves them."""
    points = points - points.mean(dim=1, keepdim=True)
    return points / points.norm(dim=2).amax(dim=1).clamp_min(1e-9).view(-1, 1, 1)


def _wrong_axis(points: Tensor, draws: Tensor, _: Tensor) -> Tensor:
    """One of the five other axes up, after a quarter turn, or one in four by any angle."""
    turns = 4 * draws[:, 0]
    turned = points @ about_z(torch.where(draws[:, 1] < 0.75, turns.floor(), turns) * math.pi / 2).transpose(1, 2)
    wrong = [torch.from_numpy(TO_Z_UP[up]) for up in UP_AXES if up != "z"]
    return turned @ torch.stack(wrong).to(points)[(draws[:, 2] * len(wrong)).long()]


def _tilted(points: Tensor, draws: Tensor, _: Tensor) -> Tensor:
    """A turn by 30 to 90 degrees about a level axis of any direction."""
    heading = about_z(draws[:, 0] * 2 * math.pi)
    angle = math.pi * (1 + 2 * draws[:, 1]) / 6
    return points @ heading @ about_x(angle) @ heading.transpose(1, 2)


def _pair(points: Tensor, draws: Tensor, noise: Tensor) -> Tensor:
    """The shape and itself in another size and with another axis up, in each other or side by side."""
    others = _wrong_axis(points, draws[:, 6:], noise)
    size = 0.5 + draws[:, 0]
    away = 2.5 * (2 * draws[:, 1:4] - 1) * draws[:, 4:5]
    moved = others * size.view(-1, 1, 1) + away.unsqueeze(1)
    share = 0.3 + 0.4 * draws[:, 5:6]
    return torch.where((noise < share).unsqueeze(2), moved, points)


def _piece(points: Tensor, draws: Tensor, noise: Tensor) -> Tensor:
    """What lies beyond a plane: a tenth to three tenths of the points."""
    count = points.shape[1]
    side = torch.nn.functional.normalize(2 * draws[:, :3] - 1 + 1e-6, dim=1)
    order = (points @ side.unsqueeze(2)).squeeze(2).argsort(dim=1)
    kept = (count * (0.1 + 0.2 * draws[:, 3])).long().clamp_min(1)
    return refilled(points, order, kept, noise, 0.02)


def _warped(points: Tensor, draws: Tensor, _: Tensor) -> Tensor:
    """Space bent by three waves."""
    bent = points
    for wave in range(3):
        d = draws[:, 6 * wave : 6 * wave + 6]
        along = torch.nn.functional.normalize(2 * d[:, :3] - 1 + 1e-6, dim=1)
        push = torch.nn.functional.normalize(2 * d[:, 3:] - 1 + 1e-6, dim=1)
        phase = 4 * (points @ along.unsqueeze(2)) + 2 * math.pi * draws[:, 18 + wave].view(-1, 1, 1)
        bent = bent + (0.25 + 0.25 * draws[:, 21 + wave]).view(-1, 1, 1) * phase.sin() * push.unsqueeze(1)
    return bent


def _slabs(points: Tensor, draws: Tensor, _: Tensor) -> Tensor:
    """Cut across an axis into three slabs, each turned about the up axis, moved, and set down elsewhere."""
    axis = (draws[:, 0] * 3).long().view(-1, 1, 1).expand(-1, points.shape[1], 1)
    place = points.gather(2, axis)[:, :, 0]
    low, high = place.amin(dim=1, keepdim=True), place.amax(dim=1, keepdim=True)
    slab = (3 * (place - low) / (high - low).clamp_min(1e-9)).floor().clamp_max(2).long()
    angle = (draws[:, 1:4] * 4).floor() * math.pi / 2
    turned = torch.stack([points @ about_z(angle[:, number]) for number in range(3)], dim=1)
    chosen = turned.gather(1, slab.view(len(points), 1, -1, 1).expand(-1, 1, -1, 3))[:, 0]
    moves = 1.2 * (2 * draws[:, 4:13].view(-1, 3, 3) - 1)
    return chosen + moves.gather(1, slab.unsqueeze(2).expand(-1, -1, 3))


def refilled(points: Tensor, order: Tensor, kept: Tensor, noise: Tensor, spread: float) -> Tensor:
    """Keep some points of each cloud; in the places of the others stand copies of those, a little way off.

    Args:
        points: (B, N, 3).
        order: (B, N) rows of points, those to keep first.
        kept: (B,) how many to keep, at least 1.
        noise: (B, N) random numbers in [0, 1).
        spread: largest distance of a copy from its original along each axis.

    Returns:
        (B, N, 3); points that are kept stay where they stood in `points`.
    """
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    source = order.gather(1, (noise * kept.unsqueeze(1)).long())
    digits = torch.stack([(noise * scale) % 1 for scale in (2.0**7, 2.0**12, 2.0**16)], dim=2)
    copies = points.gather(1, source.unsqueeze(2).expand(-1, -1, 3)) + spread * (2 * digits - 1)
    return torch.where((rank < kept.unsqueeze(1)).unsqueeze(2), points, copies)


def about_x(angle: Tensor) -> Tensor:
    """(B,) radians -> (B, 3, 3) rotations about x."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
