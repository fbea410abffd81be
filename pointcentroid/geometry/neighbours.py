"""Nearest neighbours in three dimensions, exact, with bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Distances held at once, whatever the sizes of the clouds: 2**18 float32 values, 1 MiB, stay in a core's cache.
_CHUNK = 2**18
_GROUP = 8  # distances in a group that is judged by its least one


def nearest_neighbours(queries: Tensor, points: Tensor, count: int) -> Tensor:
    """For every query, find the `count` nearest points, nearest first.

    Distances are differences squared, never the expansion |q|^2 - 2qp + |p|^2, which loses all its digits on clouds
    far from the origin. Queries are handled in chunks, so that memory stays bounded however large the clouds are.

    Args:
        queries: (B, M, 3) float coordinates.
        points: (B, N, 3) float coordinates.
        count: neighbours per query; more than N counts as N.

    Returns:
        (B, M, min(count, N)) int64 indices into `points`; of equally near ones (in float32), the first come first.

    Raises:
        ValueError: the shapes do not match, or `count` is below 1.
    """
    if queries.ndim != 3 or points.ndim != 3 or queries.shape[2] != 3 or points.shape[2] != 3:
        raise ValueError(
            f"queries and points must have shape (B, *, 3), found {tuple(queries.shape)}, {tuple(points.shape)}"
        )
    if queries.shape[0] != points.shape[0]:
        raise ValueError(f"queries hold {queries.shape[0]} clouds and points {points.shape[0]}")
    if count < 1:
        raise ValueError(f"count must be at least 1, found {count}")
    queries = queries.detach()
    # One contiguous plane per coordinate: torch.cdist, exact, strides over three numbers at a time and is slower.
    planes = points.detach().movedim(2, 0).unsqueeze(2).contiguous()
    count = at_most(count, points.shape[1])
    if torch.compiler.is_exporting():
        return _nearest_exported(queries, planes, count)
    rows = max(1, _CHUNK // max(1, queries.shape[0] * points.shape[1]))
    if rows >= queries.shape[1]:
        return _nearest(queries, planes, count)
    # Into one table: small ones, made between distances, would lie where those were, and the next ones would need new room.
    found = queries.new_empty(*queries.shape[:2], count, dtype=torch.long)
    for start in range(0, queries.shape[1], rows):
        found[:, start : start + rows] = _nearest(queries[:, start : start + rows], planes, count)
    return found


def at_most(wanted: int, available: int) -> int:
    """The smaller of two sizes; while a net is exported, the one that is known, where a bound of the other says so."""
    return available if available < wanted else wanted


def _nearest(queries: Tensor, planes: Tensor, count: int) -> Tensor:
    distance = (queries[:, :, :1] - planes[0]).square_()
    for axis in (1, 2):
        distance += (queries[:, :, axis : axis + 1] - planes[axis]).square_()
    known = distance.dtype in (torch.float32, torch.float64)  # to numpy, which has no bfloat16
    if count == 1 and known and distance.device.type == "cpu" and not torch.compiler.is_compiling():
        return torch.from_numpy(distance.numpy().argmin(axis=2)).unsqueeze(2)  # several times faster than torch's
    if distance.dtype != torch.float32:
        return distance.topk(count, dim=2, largest=False).indices
    total = distance.shape[2]
    if total % _GROUP or total < 4 * _GROUP * count:
        return _least(_keys(distance), count)
    # The least of all lie in the groups whose own least ones are least: most values are looked at but once.
    groups = distance.unflatten(2, (-1, _GROUP))
    chosen = _least(_keys(groups.amin(dim=3)), count)
    kept = gather_points(groups.flatten(0, 1), chosen.flatten(0, 1)).view(*chosen.shape, _GROUP)
    numbers = (chosen * _GROUP).unsqueeze(3) + torch.arange(_GROUP, device=distance.device)
    return _least(_keys(kept, numbers).flatten(2), count)


def _keys(distance: Tensor, numbers: Tensor | None = None) -> Tensor:
    """int64 keys that sort by distance, then by number: the bits of a positive float sort as it does."""
    if numbers is None:
        numbers = torch.arange(distance.shape[-1], device=distance.device)
    return (distance.view(torch.int32).long() << 32) | numbers


def _least(keys: Tensor, count: int) -> Tensor:
    """(B, M, N) keys, which are lost -> (B, M, count) numbers of the least ones, the least first."""
    if keys.device.type != "cpu" or torch.compiler.is_compiling():
        return keys.topk(count, dim=2, largest=False).values & 0xFFFFFFFF
    table = keys.numpy()  # numpy's partition works on vectors, torch's topk, several times slower, on numbers
    if count < table.shape[2]:
        table.partition(count - 1, axis=2)
    least = table[:, :, :count].copy()
    least.sort(axis=2)
    return torch.from_numpy(least) & 0xFFFFFFFF


def _nearest_exported(queries: Tensor, planes: Tensor, count: int) -> Tensor:
    """For exported graphs, whose operators take any of equally near points: by keys in float64, of which no two are equal.

    They hold a distance in their first 24 bits, as float32 does, and the number of the point, below 2**20, after these.
    """
    x, y, z = ((queries[:, :, axis : axis + 1] - planes[axis]).square() for axis in range(3))
    number = torch.arange(planes.shape[3], device=planes.device, dtype=torch.float64)
    keys = (x + y + z).double() * (1 + number * 2**-45) + number * 2**-1000  # the last where points coincide
    return keys.topk(count, dim=2, largest=False).indices


def nearest_rows(queries: np.ndarray, points: np.ndarray) -> np.ndarray:
    """For every query, the row of the nearest point: (M, 3) and (N, 3) arrays -> (M,) int64."""
    kind = np.result_type(queries, points)
    here, there = (torch.from_numpy(cloud.astype(kind)).unsqueeze(0) for cloud in (queries, points))
    return nearest_neighbours(here, there, 1)[0, :, 0].numpy()


def gather_points(values: Tensor, index: Tensor) -> Tensor:
    """Take rows of each cloud by index: `out[b, ..., :] = values[b, index[b, ...], :]`.

    Args:
        values: (B, N, C).
        index: (B, ...) int64 indices below N.

    Returns:
        (B, ..., C).
    """
    batch, total, width = values.shape
    # index_select on one long table is several times faster on a CPU than gather with an expanded index.
    start = torch.arange(batch, device=values.device).mul_(total).view(-1, *[1] * (index.ndim - 1))
    rows = values.reshape(-1, width).index_select(0, (index + start).flatten())
    return rows.view(*index.shape, width)
