"""Nearest neighbours in three dimensions, exact, with bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Distances held at once, whatever the sizes of the clouds: 2**18 float32 values, 1 MiB, stay in a core's cache.
_CHUNK = 2**18


def nearest_neighbours(queries: Tensor, points: Tensor, count: int) -> Tensor:
    """For every query, find the `count` nearest points, nearest first.

    Distances are differences squared, never the expansion |q|^2 - 2qp + |p|^2, which loses all its digits on clouds
    far from the origin. Queries are handled in chunks, so that memory stays bounded however large the clouds are.

    Args:
        queries: (B, M, 3) float coordinates.
        points: (B, N, 3) float coordinates.
        count: neighbours per query; more than N counts as N.

    Returns:
        (B, M, min(count, N)) int64 indices into `points`.

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
    count = min(count, points.shape[1])
    rows = max(1, _CHUNK // max(1, queries.shape[0] * points.shape[1]))
    found = [_nearest(chunk, planes, count) for chunk in queries.split(rows, dim=1)]
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def _nearest(queries: Tensor, planes: Tensor, count: int) -> Tensor:
    distance = (queries[:, :, :1] - planes[0]).square_()
    for axis in (1, 2):
        offset = queries[:, :, axis : axis + 1] - planes[axis]
        distance.addcmul_(offset, offset)
    return distance.topk(count, dim=2, largest=False).indices


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
    rows = values.reshape(batch * total, width).index_select(0, (index + start).flatten())
    return rows.view(*index.shape, width)
