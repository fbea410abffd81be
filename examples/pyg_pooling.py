"""Train a small PyTorch Geometric net with centroid pooling on real clouds of different sizes.

    pip install 'pointcentroid[pyg]'
    python examples/pyg_pooling.py train.npz --epochs 3

The data set is an npz file of labelled clouds (docs/training.md). To show that batches may be ragged, every cloud keeps a
random number of its points, between 256 and all of them.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import Sequential, global_max_pool

from pointcentroid.data.clouds import CloudSet, load_npz
from pointcentroid.pyg import CentroidPooling


def graphs(clouds: CloudSet, part: str, generator: torch.Generator) -> list[Data]:
    """One part of a data set as ragged clouds."""
    found = []
    for row in clouds.part(part):
        points = torch.from_numpy(clouds.points[row])
        size = int(torch.randint(min(256, len(points)), len(points) + 1, (), generator=generator))
        kept = torch.randperm(len(points), generator=generator)[:size]
        found.append(Data(pos=points[kept], y=torch.tensor([int(clouds.labels[row])])))
    return found


def build(classes: int) -> nn.Module:
    """Points -> 64 centroids -> 16 centroids -> classes."""
    return Sequential(
        "x, pos, batch",
        [
            (CentroidPooling(3, 48, 64), "x, pos, batch -> x, pos, batch, edge_index, weight"),
            (CentroidPooling(48, 96, 16), "x, pos, batch -> x, pos, batch, edge_index, weight"),
            (global_max_pool, "x, batch -> x"),
            nn.Linear(96, classes),
        ],
    )


def main() -> None:
    """Train, and print the accuracy on validation shapes after every epoch."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", help="an npz file of labelled clouds")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    clouds = load_npz(arguments.data)
    generator = torch.Generator().manual_seed(arguments.seed)
    training, validation = (graphs(clouds, part, generator) for part in ("training", "validation"))
    if not training or not validation:
        raise SystemExit(
            f"{arguments.data}: found {len(training)} shapes to train on and {len(validation)} to validate on; "
            "at least one of each is needed (a tenth of every class validates, or those that its `split` names)"
        )
    net = build(len(clouds.classes))
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3)
    loader = DataLoader(training, batch_size=32, shuffle=True)
    for epoch in range(arguments.epochs):
        start = time.perf_counter()
        net.train()
        for batch in loader:
            loss = nn.functional.cross_entropy(net(None, batch.pos, batch.batch), batch.y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        net.eval()
        right = 0
        with torch.inference_mode():
            for batch in DataLoader(validation, batch_size=64):
                right += int((net(None, batch.pos, batch.batch).argmax(dim=1) == batch.y).sum())
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}  validation {right / len(validation):.1%}  {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
