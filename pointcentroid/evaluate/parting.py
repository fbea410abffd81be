"""How well does a net of parts find the parts that a data set knows? In numbers, beside as many Voronoi cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pointcentroid.data.cache import Watch
from pointcentroid.data.parted import PartedClouds, as_seen
from pointcentroid.evaluate.agreement import adjusted_rand_index, normalised_mutual_information
from pointcentroid.evaluate.clusters import voronoi_cells
from pointcentroid.geometry.neighbours import nearest_rows
from pointcentroid.nn.encoder import compose
from pointcentroid.nn.parts import PartsNet
from pointcentroid.results import largest_share


@dataclass(frozen=True)
class Parting:
    """Means over clouds.

    Attributes:
        shapes: how many.
        clusters: that hold a point, of `centroids`.
        centroids: that a net has for parts.
        parts: that the data set knows.
        agreement: of clusters and parts, see `pointcentroid.evaluate.agreement`.
        cells_agreement: of as many Voronoi cells as there are centroids.
        stability: adjusted Rand index of the clusters of two samplings of a shape that share no point; None where the data
            set has not as many points.
        cells_stability: the same of the cells.
    """

    shapes: int
    clusters: float
    centroids: int
    parts: float
    agreement: float
    cells_agreement: float
    stability: float | None
    cells_stability: float | None


@torch.inference_mode()
def clusters(net: PartsNet, points: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(B, N) int64, the centroid of each point; and the cell, of as many as there are centroids.

    Args:
        net: in evaluation mode.
        points: (B, N, 3) in farthest-point order.
    """
    shares = compose(net(points, ordered=True, assignments=True))[-1].cpu().numpy()
    found = np.stack([largest_share(rows) for rows in shares])
    return found, np.stack([voronoi_cells(cloud, net.config.parts).hard for cloud in points.cpu().numpy()])


def agreements(found: np.ndarray, parts: Tensor) -> list[float]:
    """The agreement of (B, N) clusters and (B, N) parts, cloud by cloud."""
    return [normalised_mutual_information(*pair) for pair in zip(found, parts.cpu().numpy(), strict=True)]


def parting(net: PartsNet, clouds: PartedClouds, seen: int, *, batch_size: int = 32, watch: Watch) -> Parting:
    """Measure a net of parts.

    Args:
        net: in evaluation mode.
        clouds: what to show it.
        seen: points of a cloud that it is shown.
        batch_size: clouds at once.
        watch: wraps the batches, with their number, to show progress.
    """
    device = next(net.parameters()).device
    rows: list[list[float]] = []
    batches = range(0, len(clouds), batch_size)
    for start in watch(batches, len(batches)):
        every, every_part, _ = clouds.batch(start, batch_size)
        every, every_part = every.to(device), every_part.to(device)
        points, parts = as_seen(every[:, :seen], every_part[:, :seen], net.config.seeds)
        found, cells = clusters(net, points)
        columns = [agreements(found, parts), agreements(cells, parts)]
        if every.shape[1] >= 2 * seen:
            rest = slice(seen, 2 * seen)
            again, _ = as_seen(every[:, rest], every_part[:, rest], net.config.seeds)
            near = [nearest_rows(*pair) for pair in zip(points.cpu().numpy(), again.cpu().numpy(), strict=True)]
            for one, other in zip((found, cells), clusters(net, again), strict=True):
                pairs = zip(one, other, near, strict=True)
                columns.append([adjusted_rand_index(own, theirs[row]) for own, theirs, row in pairs])
        columns += [[float(len(np.unique(row))) for row in table] for table in (found, parts.cpu().numpy())]
        rows += [list(row) for row in zip(*columns, strict=True)]
    agreement, cells_agreement, *stability, used, real = np.mean(rows, axis=0).tolist()
    stable, cells_stable = stability or (None, None)
    return Parting(len(rows), used, net.config.parts, real, agreement, cells_agreement, stable, cells_stable)
