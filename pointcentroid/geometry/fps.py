"""Farthest point sampling (Gonzalez, 1985), batched, exact and deterministic."""

from __future__ import annotations

from operator import index

import torch
from torch import Tensor

from pointcentroid.geometry.neighbours import gather_points


def farthest_point_sampling(
    points: Tensor,
    count: int,
    *,
    start: str | int | Tensor = "farthest",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Pick `count` points of each cloud, each one farthest from those picked before it.

    The order is nested: the first m picks are exactly what a call with `count=m` returns, so one call serves every
    stage of a hierarchy. The picks cover the cloud within twice the best possible radius (Gonzalez, 1985).

    Args:
        points: (B, N, 3) float coordinates.
        count: how many to pick, 1 <= count <= N.
        start: where to begin: `"farthest"`, the point farthest from the mean (deterministic and independent of the
            order of the points, apart from exact ties); `"random"`, drawn from `generator`; the index of a point; or (B,)
            int64 indices, one a cloud.
        generator: source of randomness for `start="random"`.

    Returns:
        (B, count) int64 indices into each cloud, in the order they were picked.

    Raises:
        ValueError: `count` or `start` is out of range, `start` is unknown, or `points` is not (B, N, 3) floats.
    """
    if points.ndim != 3 or points.shape[2] != 3:
        raise ValueError(f"points must have shape (B, N, 3), found {tuple(points.shape)}")
    if not points.is_floating_point():
        raise ValueError(f"points (B, N, 3) must be floats, found {points.dtype}")
    batch, total, _ = points.shape
    if not 1 <= count <= total:
        raise ValueError(f"cannot pick {count} farthest points out of {total}")

    points = points.detach()
    if isinstance(start, Tensor):
        if start.shape != (batch,) or start.dtype != torch.int64:
            raise ValueError(f"start must be ({batch},) int64 indices, found {tuple(start.shape)} {start.dtype}")
        if ((start < 0) | (start >= total)).any():
            raise ValueError(f"start must hold indices from 0 to {total - 1}, found {start.tolist()}")
        current = start.to(points.device)
    elif start == "farthest":
        offset = points - points.mean(dim=1, keepdim=True)
        current = offset.square().sum(dim=2).argmax(dim=1)
    elif start == "random":
        current = torch.randint(total, (batch,), generator=generator, device=points.device)
    elif not isinstance(start, str) and 0 <= index(start) < total:
        current = torch.full((batch,), index(start), dtype=torch.int64, device=points.device)
    else:
        raise ValueError(f"start must be 'farthest', 'random' or an index below {total}, found {start!r}")

    # One contiguous plane per coordinate: the inner loop then streams memory instead of striding over it.
    planes = points.movedim(2, 0).contiguous()
    picked = torch.empty((batch, count), dtype=torch.int64, device=points.device)
    picked[:, 0] = current
    nearest = torch.full((batch, total), torch.inf, dtype=points.dtype, device=points.device)
    offset = torch.empty_like(planes)
    x, y, z = offset
    for step in range(1, count):
        here = planes.gather(2, current.expand(3, batch).unsqueeze(2))
        torch.sub(planes, here, out=offset)
        distance = x.mul_(x).addcmul_(y, y).addcmul_(z, z)
        torch.minimum(nearest, distance, out=nearest)
        current = nearest.max(dim=1).indices
        picked[:, step] = current
    return picked


def farthest_first(points: Tensor, count: int, start: str | int | Tensor = "farthest") -> Tensor:
    """Reorder clouds so that their first `count` points are the farthest-point picks, in picking order.

    The remaining points follow in their original order. This is the order that data caches and predictors hand to
    the encoders, whose stages then take prefixes instead of sampling again.

    Args:
        points: (B, N, 3) float coordinates.
        count: length of the farthest-point prefix; more than N counts as N.
        start: see `farthest_point_sampling`.

    Returns:
        (B, N, 3), the same points.
    """
    return gather_points(points, farthest_order(points, count, start))


def farthest_order(points: Tensor, count: int, start: str | int | Tensor = "farthest") -> Tensor:
    """(B, N) int64, the rows of the points in the order of `farthest_first`, whose arguments these are."""
    batch, total, _ = points.shape
    picked = farthest_point_sampling(points, min(count, total), start=start)
    rank = torch.arange(total, total * 2, device=points.device).repeat(batch, 1)
    # Of a cloud whose points coincide, one may be picked again: its first pick counts.
    rank.scatter_reduce_(1, picked, torch.arange(picked.shape[1], device=points.device).expand_as(picked), "amin")
    return rank.argsort(dim=1)
