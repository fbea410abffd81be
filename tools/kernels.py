"""What tools/together.py computes on a GPU in Triton: each kernel does at once what takes torch many launches.

They give what `pointcentroid.geometry` and `pointcentroid.nn.local` do, but that of equal values another may be picked.
"""
# A kernel is launched by kernel[grid](...):
# pyright: reportIndexIssue=false

from __future__ import annotations

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

import pointcentroid.geometry.fps
import pointcentroid.nn.encoder
import pointcentroid.nn.local
from pointcentroid.geometry.neighbours import gather_points, nearest_neighbours


@triton.jit
def _farthest(points, start, picked, total, count, BLOCK: tl.constexpr):  # noqa: N803
    cloud = tl.program_id(0)
    number = tl.arange(0, BLOCK)
    inside = number < total
    here = points + cloud * total * 3
    x = tl.load(here + number * 3, mask=inside, other=0.0)
    y = tl.load(here + number * 3 + 1, mask=inside, other=0.0)
    z = tl.load(here + number * 3 + 2, mask=inside, other=0.0)
    nearest = tl.where(inside, float("inf"), -1.0)
    current = tl.load(start + cloud).to(tl.int32)
    for step in range(count):
        tl.store(picked + cloud * count + step, current)
        a = x - tl.load(here + current * 3)
        b = y - tl.load(here + current * 3 + 1)
        c = z - tl.load(here + current * 3 + 2)
        nearest = tl.minimum(nearest, a * a + b * b + c * c)
        current = tl.argmax(nearest, axis=0).to(tl.int32)


@triton.jit
def _nearest(points, found, total, rows, listed, COUNT: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    row, cloud = tl.program_id(0), tl.program_id(1)
    number = tl.arange(0, BLOCK)
    inside = number < listed
    here = points + cloud * total * 3
    a = tl.load(here + number * 3, mask=inside, other=0.0) - tl.load(here + row * 3)
    b = tl.load(here + number * 3 + 1, mask=inside, other=0.0) - tl.load(here + row * 3 + 1)
    c = tl.load(here + number * 3 + 2, mask=inside, other=0.0) - tl.load(here + row * 3 + 2)
    distance = tl.where(inside, a * a + b * b + c * c, float("inf"))
    for place in range(COUNT):
        least = tl.argmin(distance, axis=0).to(tl.int32)
        tl.store(found + (cloud * rows + row) * COUNT + place, least)
        distance = tl.where(number == least, float("inf"), distance)


@triton.jit
def _largest(values, index, top, source, total, rows, channels, COUNT: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    row, cloud = tl.program_id(0), tl.program_id(1)
    channel = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    asking = cloud * rows + row
    best = tl.full((BLOCK,), float("-inf"), tl.float32)
    winner = tl.zeros((BLOCK,), tl.int64)
    for place in range(COUNT):
        number = tl.load(index + asking * COUNT + place)
        value = tl.load(values + (cloud * total + number) * channels + channel, mask=inside, other=float("-inf"))
        value = value.to(tl.float32)
        winner = tl.where(value > best, number, winner)
        best = tl.maximum(value, best)
    tl.store(top + asking * channels + channel, best, mask=inside)
    tl.store(source + asking * channels + channel, winner, mask=inside)


_in_torch = pointcentroid.geometry.fps.farthest_point_sampling


def farthest_point_sampling(points: Tensor, count: int, *, start: str | int | Tensor) -> Tensor:
    """As `pointcentroid.geometry.fps.farthest_point_sampling`; by the kernel, where points to start from are given."""
    if not isinstance(start, Tensor):
        return _in_torch(points, count, start=start)
    batch, total, _ = points.shape
    picked = torch.empty(batch, count, dtype=torch.int64, device=points.device)
    block = triton.next_power_of_2(total)
    _farthest[(batch,)](points.contiguous(), start.contiguous(), picked, total, count, BLOCK=block, num_warps=4)
    return picked


def nearest_in_prefix(points: Tensor, rows: int, listed: int, count: int) -> Tensor:
    """(B, N, 3) -> (B, rows, count) int64: for each of the first points the nearest of the first `listed`."""
    found = torch.empty(len(points), rows, count, dtype=torch.int64, device=points.device)
    block = triton.next_power_of_2(listed)
    grid = (rows, len(points))
    _nearest[grid](points.contiguous(), found, points.shape[1], rows, listed, COUNT=count, BLOCK=block, num_warps=1)
    return found


class _Largest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor) -> Tensor:  # type: ignore[override]
        values, index = values.contiguous(), index.contiguous()
        batch, total, channels = values.shape
        rows, count = index.shape[1:]
        top = values.new_empty(batch, rows, channels)
        source = torch.empty(batch, rows, channels, dtype=torch.int64, device=values.device)
        block = min(256, triton.next_power_of_2(channels))
        grid = (rows, batch, triton.cdiv(channels, block))
        _largest[grid](
            values, index, top, source, total, rows, channels, COUNT=count, BLOCK=block, num_warps=max(1, block // 64)
        )
        ctx.save_for_backward(source)
        ctx.total = total
        return top

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (source,) = ctx.saved_tensors
        batch, _, channels = gradient.shape
        return gradient.new_zeros(batch, ctx.total, channels).scatter_add_(1, source, gradient), None


def neighbour_max(values: Tensor, index: Tensor) -> Tensor:
    """As `pointcentroid.nn.local.neighbour_max`."""
    return _Largest.apply(values, index)  # type: ignore[no-any-return]


def install() -> None:
    """Put these in the places of what they stand for, in this process, once they have been seen to do the same.

    Raises:
        RuntimeError: they do not.
    """
    points, values = (torch.randn(2, 100, width, device="cuda") for width in (3, 70))
    start = torch.tensor([3, 99], device="cuda")
    index = nearest_in_prefix(points, 20, 100, 16)
    same = (
        torch.equal(farthest_point_sampling(points, 20, start=start), _in_torch(points, 20, start=start)),
        torch.equal(index, nearest_neighbours(points[:, :20], points, 16)),
        torch.equal(neighbour_max(values, index), gather_points(values, index).amax(dim=2)),
    )
    if not all(same):
        raise RuntimeError(f"kernels that do what they stand for: {same}")
    pointcentroid.geometry.fps.farthest_point_sampling = farthest_point_sampling
    pointcentroid.nn.local.neighbour_max = neighbour_max
    pointcentroid.nn.encoder.neighbour_max = neighbour_max
