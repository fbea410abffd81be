"""How far are two clouds apart? Chamfer distance and F-score, exact, in bounded memory, differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from pointcentroid.geometry.neighbours import gather_points, nearest_neighbours


def nearest_distances(points: Tensor, others: Tensor, *, squared: bool = True) -> Tensor:
    """Distance of every point to the nearest of the others.

    The nearest is found without gradients, in chunks; the distance to it is then computed anew, so that gradients flow to
    both clouds. Differences are squared, never expanded to |a|^2 - 2ab + |b|^2, which loses its digits far from the origin.

    Args:
        points: (B, N, 3).
        others: (B, M, 3).
        squared: squared distances; else plain ones, whose gradient is taken to be zero where they are.

    Returns:
        (B, N), float32 for clouds in half precision: they are computed in it.

    Raises:
        ValueError: a cloud is empty, or the shapes do not match.
    """
    if not points.shape[1:].numel() or not others.shape[1:].numel():
        raise ValueError(f"clouds must hold points, found shapes {tuple(points.shape)} and {tuple(others.shape)}")
    kind = torch.promote_types(torch.promote_types(points.dtype, others.dtype), torch.float32)
    points, others = points.to(kind), others.to(kind)
    nearest = nearest_neighbours(points, others, 1)[:, :, 0]
    away = (points - gather_points(others, nearest)).square().sum(dim=2)
    if squared:
        return away
    positive = away > 0
    return torch.where(positive, away.where(positive, 1.0).sqrt(), 0.0)


def chamfer_distance(one: Tensor, other: Tensor, *, squared: bool = True) -> Tensor:
    """Mean distance to the nearest point of the other cloud, both directions added. Symmetric; 0 for equal sets.

    Source: H. Fan, H. Su, L. Guibas, "A point set generation network for 3D object reconstruction from a single image",
    CVPR 2017.

    Args:
        one: (B, N, 3).
        other: (B, M, 3).
        squared: of squared distances, or of plain ones.

    Returns:
        (B,).
    """
    there = nearest_distances(one, other, squared=squared).mean(dim=1)
    return there + nearest_distances(other, one, squared=squared).mean(dim=1)


def f_score(one: Tensor, other: Tensor, threshold: float) -> Tensor:
    """Harmonic mean of the shares of each cloud that lie within a threshold of the other.

    Source: A. Knapitsch et al., "Tanks and temples", ACM TOG 2017.

    Args:
        one: (B, N, 3).
        other: (B, M, 3).
        threshold: a distance.

    Returns:
        (B,) in [0, 1].
    """
    precision = (nearest_distances(one, other, squared=False) <= threshold).double().mean(dim=1)
    recall = (nearest_distances(other, one, squared=False) <= threshold).double().mean(dim=1)
    return 2 * precision * recall / (precision + recall).clamp(min=torch.finfo(torch.float64).tiny)
