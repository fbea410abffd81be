"""Data sets, and the public command that prepares them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from pointcentroid.config import PreprocessConfig

from ..test_cli import run

SETTINGS = PreprocessConfig(sample=64, points=64)


def write_off(path: Path, height: float, seed: int = 0) -> None:
    """A box of some height, its corners a little displaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    corners = np.array([(x, y, z * height) for x in (0, 1) for y in (0, 1) for z in (0, 1)]) + rng.normal(
        scale=0.01, size=(8, 3)
    )
    quads = ["0 1 3 2", "4 6 7 5", "0 4 5 1", "2 3 7 6", "0 2 6 4", "1 5 7 3"]
    path.write_text(
        "\n".join(["OFF", "8 6 12", *(" ".join(map(str, c)) for c in corners), *(f"4 {q}" for q in quads)]) + "\n"
    )


def prepare(source: object, to: Path, *more: object) -> dict:
    done = run("data", "prepare", source, "--to", to, "--points", 64, "--format", "json", *more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


def save_npz(path: Path, points: np.ndarray, labels: np.ndarray, classes: list[str], **more: np.ndarray) -> Path:
    stored = np.round((points + 1) * 2047.5).astype(np.uint16)
    names = np.array([f"shape {row}" for row in range(len(points))])
    np.savez(path, points=stored, labels=labels, names=names, classes=np.array(classes), **more)
    return path


def balls(count: int, size: int) -> np.ndarray:
    """Points on spheres, (count, size, 3), inside the cube that an npz can hold."""
    points = np.random.default_rng(0).normal(size=(count, size, 3))
    return 0.9 * points / np.linalg.norm(points, axis=2, keepdims=True)
