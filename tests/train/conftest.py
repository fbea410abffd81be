"""A data set that is learnt in seconds, and weights that learnt it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ..test_cli import run
from .small import AUTOENCODERS, BOTH, train


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    """Two classes that a small net tells apart at once: flat plates and long rods, 40 shapes each."""
    rng = np.random.default_rng(0)
    shapes = []
    for number in range(80):
        cloud = rng.uniform(-1, 1, size=(128, 3)) * ((1, 1, 0.05) if number % 2 else (0.05, 0.05, 1))
        cloud -= cloud.mean(axis=0)
        shapes.append(cloud / np.linalg.norm(cloud, axis=1).max())
    path = tmp_path_factory.mktemp("toy") / "toy.npz"
    np.savez(
        path,
        points=np.round((np.array(shapes) + 1) * 2047.5).astype(np.uint16),
        labels=np.arange(80, dtype=np.uint8) % 2,
        names=[f"shape_{i:04d}" for i in range(80)],
        classes=["rod", "plate"][:2],
    )
    return path


@pytest.fixture(scope="session")
def trained(toy: Path, tmp_path_factory) -> Path:
    return train(toy, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def autoencoder(toy: Path, tmp_path_factory) -> Path:
    """One whose encoder a classifier may have, too."""
    settings = [f"data={toy}", "name=both", *AUTOENCODERS["reconstruct"], BOTH, "preprocess.sample=128"]
    settings += [f"output={tmp_path_factory.mktemp('runs')}", "epochs=1", "preprocess.points=128", "accelerator=cpu"]
    done = run("train", "modelnet40-reconstruct", *settings, "--format", "json")
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["weights"])
