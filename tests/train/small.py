"""Nets that learn in seconds."""

from __future__ import annotations

import json
from pathlib import Path

from ..test_cli import run

SMALL = [
    "model.classes=2", "model.hidden=16", "model.encoder.embed=8", "preprocess.sample=128", "preprocess.points=128",
    "model.encoder.stages=[{centroids: 16, dim: 16, neighbours: 8}, {centroids: 4, dim: 16, blocks: 1}]",
    "epochs=8", "batch_size=8", "average=0.9", "learning_rate=0.005", "accelerator=cpu",
]  # fmt: skip


def train(toy: Path, output: Path, *changes: str) -> Path:
    settings = [f"data={toy}", f"output={output}", "name=toy", *SMALL, *changes]
    done = run("train", "modelnet40-small", *settings, "--format", "json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert 0 <= row["validation_overall"] <= 1
    return Path(row["weights"])


AUTOENCODERS = {
    "reconstruct": [
        "model.encoder.embed=8", "model.code=4", "model.hidden=16", "model.blocks=1",
        "model.encoder.stages=[{centroids: 16, dim: 16, neighbours: 8}, {centroids: 8, dim: 16, neighbours: 8}]",
    ],
    "capsules": ["model.primary=16", "model.primary_dim=4", "model.capsules=8", "model.dim=7", "model.folds=4"],
}  # fmt: skip

BOTH = (
    "model.encoder={embed: 8, norm: batch, tokens: points, steps: 0, relative: 16, drop_path: 0.0, "
    "stages: [{centroids: 16, dim: 16, neighbours: 8}, {centroids: 8, dim: 16, neighbours: 8}]}"
)
