"""Two classic nets, written from their papers, to measure against: DGCNN and PointNet++.

DGCNN        Y. Wang et al., "Dynamic graph CNN for learning on point clouds", ACM TOG 2019: classification, k = 20
PointNet++   C. R. Qi et al., "PointNet++: deep hierarchical feature learning on point sets in a metric space",
             NeurIPS 2017: single-scale grouping
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from pointcentroid.geometry.fps import farthest_point_sampling
from pointcentroid.geometry.neighbours import gather_points
from pointcentroid.nn.capsules import PointwiseMLP


def _head(width: int, classes: int, slope: float) -> nn.Sequential:
    return nn.Sequential(
        PointwiseMLP([width, 512], slope),
        nn.Dropout(0.5),
        PointwiseMLP([512, 256], slope),
        nn.Dropout(0.5),
        nn.Linear(256, classes),
    )


class DGCNN(nn.Module):
    """Edge convolutions on graphs of nearest neighbours in feature space, found anew in every layer.

    Args:
        classes: outputs.
        neighbours: k.
    """

    def __init__(self, classes: int = 40, neighbours: int = 20) -> None:
        super().__init__()
        self.neighbours = neighbours
        widths = [3, 64, 64, 128, 256]
        self.edges = nn.ModuleList(PointwiseMLP([2 * a, b], 0.2) for a, b in itertools.pairwise(widths))
        self.mix = PointwiseMLP([512, 1024], 0.2)
        self.head = _head(2048, classes, 0.2)

    def forward(self, points: Tensor) -> Tensor:
        """(B, N, 3) -> (B, classes)."""
        x, seen = points, []
        for edge in self.edges:
            squared = x.square().sum(dim=2)
            away = squared.unsqueeze(2) + squared.unsqueeze(1) - 2 * x @ x.transpose(1, 2)
            index = away.topk(self.neighbours, dim=2, largest=False).indices
            here = x.unsqueeze(2).expand(-1, -1, self.neighbours, -1)
            x = edge(torch.cat([gather_points(x, index) - here, here], dim=3)).amax(dim=2)
            seen.append(x)
        mixed = self.mix(torch.cat(seen, dim=2))
        return self.head(torch.cat([mixed.amax(dim=1), mixed.mean(dim=1)], dim=1))


class SetAbstraction(nn.Module):
    """Farthest points, the points in a ball around each, an MLP on them, the maximum.

    Args:
        count: how many balls.
        radius: of each.
        most: points taken from a ball; where there are fewer, the first is repeated.
        widths: of the MLP, from the input's channels (without position) on.
    """

    def __init__(self, count: int, radius: float, most: int, widths: list[int]) -> None:
        super().__init__()
        self.count, self.radius, self.most = count, radius, most
        self.mlp = PointwiseMLP([widths[0] + 3, *widths[1:]])

    def forward(self, points: Tensor, features: Tensor | None, ordered: bool) -> tuple[Tensor, Tensor]:
        """(B, N, 3) and (B, N, C) -> (B, M, 3) and (B, M, C'); `ordered`: the farthest points are the first."""
        centres = points[:, : self.count]
        if not ordered:
            centres = gather_points(points, farthest_point_sampling(points, self.count))
        away = (centres.unsqueeze(2) - points.unsqueeze(1)).square().sum(dim=3)
        # The first points in a ball by their number, as the paper's code takes them.
        numbers = torch.arange(points.shape[1], device=points.device).expand_as(away)
        inside = (
            numbers.where(away <= self.radius**2, points.shape[1]).topk(self.most, dim=2, largest=False, sorted=True).values
        )
        index = inside.where(inside < points.shape[1], inside[:, :, :1])
        local = gather_points(points, index) - centres.unsqueeze(2)
        if features is not None:
            local = torch.cat([local, gather_points(features, index)], dim=3)
        return centres, self.mlp(local).amax(dim=2)


class PointNet2(nn.Module):
    """Two set abstractions, and one of everything that is left.

    Args:
        classes: outputs.
    """

    CENTRES = 512
    """Of the first set abstraction."""

    def __init__(self, classes: int = 40) -> None:
        super().__init__()
        self.first = SetAbstraction(self.CENTRES, 0.2, 32, [0, 64, 64, 128])
        self.second = SetAbstraction(128, 0.4, 64, [128, 128, 128, 256])
        self.last = PointwiseMLP([259, 256, 512, 1024])
        self.head = _head(1024, classes, 0.0)

    def forward(self, points: Tensor, ordered: bool = False) -> Tensor:
        """(B, N, 3) -> (B, classes); `ordered`: the farthest points come first, at least 512 of them."""
        centres, features = self.first(points, None, ordered)
        centres, features = self.second(centres, features, True)  # the farthest of farthest points are the first of them
        return self.head(self.last(torch.cat([centres, features], dim=2)).amax(dim=1))


CLASSIC = {"DGCNN": DGCNN, "PointNet++": PointNet2}
