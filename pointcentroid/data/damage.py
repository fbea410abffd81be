"""Clouds as scanners give them: noisy, with strays and holes, leaning, or seen from one side only.

Like `pointcentroid.data.augment`: batched, on the device of the batch, and a function of (seed, epoch, sample). What it is
good for is measured on `pointcentroid.data.corruptions`, which are of similar kinds, made otherwise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pointcentroid.data.augment import CounterRandom, changed, refilled, tilted

_CELLS = 16  # of the picture that decides what is hidden, along each side
_THICKNESS = 0.2  # what lies deeper than this behind the foremost point of its cell is hidden


def damage(points: Tensor, random: CounterRandom, probability: float) -> Tensor:
    """Damage some clouds, a third of them by leaving what one side shows.

    Args:
        points: (B, N, 3) clouds, z up, of radius 1.
        random: source of randomness.
        probability: that a cloud is damaged.

    Returns:
        (B, N, 3).
    """
    kind = random.uniform(1)[:, 0] / max(probability, 1e-9)
    draws, noise = random.uniform(8), random.uniform(points.shape[1])
    jitter = random.normal(3 * points.shape[1]).view(points.shape).clamp(-3, 3)
    return changed(points, kind, _KINDS, draws, noise, jitter)


def visible(points: Tensor, directions: Tensor) -> Tensor:
    """Which points are seen from far away.

    Points fall into the cells of a coarse picture; those far behind the foremost one of their cell are hidden. Points have
    no surface between them that hides, so the cells must be wider than the gaps: thin things behind an edge show.

    Args:
        points: (B, N, 3) clouds of radius 1.
        directions: (B, 3) unit vectors towards the eye.

    Returns:
        (B, N) bool.
    """
    depth = (points @ directions.unsqueeze(2)).squeeze(2)
    helper = torch.where((directions[:, 2:].abs() < 0.9), torch.eye(3).to(points)[2], torch.eye(3).to(points)[0])
    right = torch.nn.functional.normalize(torch.linalg.cross(helper, directions), dim=1)
    above = torch.linalg.cross(directions, right)
    cells = [
        (((points @ side.unsqueeze(2)).squeeze(2) + 1) * (_CELLS / 2)).floor().clamp(0, _CELLS - 1).long()
        for side in (right, above)
    ]
    cell = cells[0] * _CELLS + cells[1]
    foremost = depth.new_full((len(points), _CELLS**2), -torch.inf).scatter_reduce(1, cell, depth, "amax")
    return depth >= foremost.gather(1, cell) - _THICKNESS


def _noisy(points: Tensor, draws: Tensor, _: Tensor, jitter: Tensor) -> Tensor:
    """Noise on every coordinate, of a standard deviation up to 0.03."""
    return points + 0.03 * draws[:, :1].unsqueeze(2) * jitter


def _strays(points: Tensor, draws: Tensor, noise: Tensor, jitter: Tensor) -> Tensor:
    """Up to a sixth of the points are elsewhere: thrown off, or strewn over the ball."""
    away = torch.where(draws[:, :1].unsqueeze(2) < 0.7, points, 0.0) + (0.05 + 0.25 * draws[:, 1:2]).unsqueeze(2) * jitter
    strewn = torch.where(draws[:, :1].unsqueeze(2) < 0.7, away, 0.5 * jitter)
    return torch.where((noise < draws[:, 2:3] / 6).unsqueeze(2), strewn, points)


def _hole(points: Tensor, draws: Tensor, noise: Tensor, _: Tensor) -> Tensor:
    """Up to half of the points, around one of them, are lost."""
    count = points.shape[1]
    centre = points.gather(1, (draws[:, :1] * count).long().unsqueeze(2).expand(-1, -1, 3))
    order = (points - centre).square().sum(dim=2).argsort(dim=1, descending=True)
    return refilled(points, order, (count * (1 - 0.5 * draws[:, 1])).long().clamp_min(1), noise)


def _leaning(points: Tensor, draws: Tensor, _: Tensor, __: Tensor) -> Tensor:
    """Up to 20 degrees about a level axis, and a shear."""
    shear = torch.eye(3).to(points).repeat(len(points), 1, 1)
    shear[:, 2, :2] = 0.8 * draws[:, 2:4] - 0.4
    return tilted(points, draws[:, 0] * 2 * math.pi, draws[:, 1] * math.pi / 9) @ shear


def _one_sided(points: Tensor, draws: Tensor, noise: Tensor, jitter: Tensor) -> Tensor:
    """What is seen from one side, from 20 degrees below to 60 above, with noise."""
    azimuth, elevation = draws[:, 0] * 2 * math.pi, (80 * draws[:, 1] - 20) * math.pi / 180
    directions = torch.stack([azimuth.cos() * elevation.cos(), azimuth.sin() * elevation.cos(), elevation.sin()], dim=1)
    seen = visible(points, directions)
    order = seen.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    filled = refilled(points, order, seen.sum(dim=1).clamp_min(1), noise)
    return filled + 0.01 * draws[:, 2:3].unsqueeze(2) * jitter


_KINDS = (_noisy, _strays, _hole, _leaning, _one_sided, _one_sided)
