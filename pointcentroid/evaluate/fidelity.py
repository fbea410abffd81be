"""How well does an autoencoder remember?

It is shown one random half of each cloud, and what it makes is scored against the other half: so it has to find the surface,
not the points. The oracle is the distance of the two halves, which is left where the surface was found exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pointcentroid.data.augment import CounterRandom
from pointcentroid.data.cache import Watch
from pointcentroid.data.ordered import Clouds
from pointcentroid.geometry.chamfer import chamfer_distance
from pointcentroid.geometry.fps import farthest_first
from pointcentroid.geometry.neighbours import gather_points
from pointcentroid.nn.autoencoder import CentroidAutoencoder
from pointcentroid.nn.capsules import CapsuleAutoencoder

Autoencoder = CentroidAutoencoder | CapsuleAutoencoder


@dataclass(frozen=True)
class Fidelity:
    """Mean Chamfer distances over clouds of radius 1, squared and both directions added.

    Attributes:
        shapes: how many.
        chamfer: of what was made from one half, to the other half.
        oracle: of the two halves.
        input_output: of what was made from a whole cloud, to that cloud.
    """

    shapes: int
    chamfer: float
    oracle: float
    input_output: float


def halves(points: Tensor, random: CounterRandom, seeds: int) -> tuple[Tensor, Tensor]:
    """Two random halves of each cloud.

    Args:
        points: (B, N, 3).
        random: source of randomness.
        seeds: how many points of the first half to put in farthest-point order.

    Returns:
        (B, N // 2, 3) and (B, N - N // 2, 3).
    """
    order = random.uniform(points.shape[1]).argsort(dim=1)
    half = points.shape[1] // 2
    return farthest_first(gather_points(points, order[:, :half]), seeds), gather_points(points, order[:, half:])


def half_distances(net: Autoencoder, points: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Chamfer distances of what a net makes of one half of each cloud to the other half, and of the halves.

    Args:
        net: the autoencoder.
        points: (B, N, 3).
        samples: (B,) their numbers in the data set, which say how they are halved: always in the same way.

    Returns:
        (B,) and (B,).
    """
    seen, other = halves(points, CounterRandom(0, -1, samples), net.config.seeds)
    made = net(seen, other.shape[1], ordered=True)
    return chamfer_distance(made, other), chamfer_distance(seen, other)


@torch.inference_mode()
def fidelity(net: Autoencoder, clouds: Clouds, *, batch_size: int = 32, watch: Watch) -> Fidelity:
    """Measure an autoencoder.

    Args:
        net: in evaluation mode.
        clouds: what to show it.
        batch_size: clouds at once.
        watch: wraps the batches, with their number, to show progress.
    """
    device = next(net.parameters()).device
    rows: list[Tensor] = []
    batches = range(0, len(clouds), batch_size)
    for start in watch(batches, len(batches)):
        points, _, samples = clouds.batch(start, batch_size)
        points = points.to(device)
        whole = chamfer_distance(net(points, points.shape[1], ordered=True), points)
        rows.append(torch.stack([*half_distances(net, points, samples.to(device)), whole], dim=1).double().cpu())
    chamfer, oracle, input_output = torch.cat(rows).mean(dim=0).tolist()
    return Fidelity(len(clouds), chamfer, oracle, input_output)
