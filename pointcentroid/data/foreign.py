"""Clouds that a classifier should not know: what `known`, its output beside the classes, is trained against.

Half of them are shapes with the wrong axis up; the others are things of no class, made of a shape: two of it at once, a
piece of it, the shape warped, tilted, or cut into slabs that change places; or a ring or a knot, made of nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pointcentroid.data.augment import CounterRandom, about_z, bent, changed, refilled, tilted
from pointcentroid.geometry.axes import TO_Z_UP, UP_AXES


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
    draws, noise = random.uniform(24), random.uniform(points.shape[1])
    return changed(points, kind, _KINDS, draws, noise), kind < 1


def _wrong_axis(points: Tensor, draws: Tensor, _: Tensor) -> Tensor:
    """One of the five other axes up, after a quarter turn, or one in four by any angle."""
    turns = 4 * draws[:, 0]
    turned = points @ about_z(torch.where(draws[:, 1] < 0.75, turns.floor(), turns) * math.pi / 2).transpose(1, 2)
    wrong = [torch.from_numpy(TO_Z_UP[up]) for up in UP_AXES if up != "z"]
    return turned @ torch.stack(wrong).to(points)[(draws[:, 2] * len(wrong)).long()]


def _tilted(points: Tensor, draws: Tensor, _: Tensor) -> Tensor:
    """A turn by 30 to 90 degrees about a level axis of any direction."""
    return tilted(points, draws[:, 0] * 2 * math.pi, math.pi * (1 + 2 * draws[:, 1]) / 6)


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
    return refilled(points, order, kept, noise)


def _warped(points: Tensor, draws: Tensor, _: Tensor) -> Tensor:
    """Space bent by three waves."""
    return bent(points, draws, 0.25 + 0.25 * draws[:, 21:])


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


def _tube(points: Tensor, draws: Tensor, noise: Tensor) -> Tensor:
    """The surface of a tube about a closed curve: half of them rings, round or oval, the others knotted or wavy."""
    waves = torch.arange(1, 4).to(points)
    wavy = (2 * draws[:, 18:19] - 1).clamp_min(0)
    strength = torch.cat([torch.ones_like(wavy), wavy, wavy / 2], dim=1).unsqueeze(2)
    cosine, sine = (2 * draws[:, :18] - 1).view(-1, 2, 3, 3).unbind(1)
    angle = 2 * math.pi * noise.unsqueeze(2) * waves
    curve = angle.cos() @ (strength * cosine) + angle.sin() @ (strength * sine)
    along = (angle.cos() * waves) @ (strength * sine) - (angle.sin() * waves) @ (strength * cosine)
    across = torch.nn.functional.normalize(torch.linalg.cross(along, (curve + 1).roll(1, dims=2)), dim=2)
    upon = torch.nn.functional.normalize(torch.linalg.cross(along, across), dim=2)
    around = (2 * math.pi * (noise * 4096 % 1)).unsqueeze(2)  # the lower bits of a number are as random as the upper ones
    radius = (0.1 + 0.3 * draws[:, 19]).view(-1, 1, 1)
    return curve + radius * (around.cos() * across + around.sin() * upon)


_KINDS = (*[_wrong_axis] * 6, _tilted, _pair, _piece, _warped, _slabs, _tube)
