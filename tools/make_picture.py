"""Draw the picture of the README: which centroid each point of a shape goes to, stage by stage.

    python tools/make_picture.py [OUTPUT.png]

Every last centroid has a hue of its own; the centroids of earlier stages are shades of the one that they end in.
"""

from __future__ import annotations

import colorsys
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from pointcentroid.predict import load
from pointcentroid.results import Explanation

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
SHAPES = ("chair.off", "airplane.gltf", "lamp.glb")


def colours(explanation: Explanation) -> list[np.ndarray]:
    """For every stage, (M, 3) colours of its centroids."""
    last = explanation.stages[-1]
    count = len(last.positions)
    # Neighbours in height and direction get hues far apart: the golden ratio spreads consecutive ones.
    order = np.lexsort((np.arctan2(last.positions[:, 1], last.positions[:, 0]), np.round(last.positions[:, 2], 1)))
    hue = np.empty(count)
    hue[order] = (np.arange(count) * 0.618034) % 1
    shades: list[np.ndarray] = []
    down = np.eye(count)
    for stage in reversed(explanation.stages):
        parent = down.argmax(axis=1)
        rng = np.random.default_rng(0)
        lightness = 0.5 + (rng.uniform(-0.17, 0.17, len(parent)) if shades else 0)
        rows = zip(hue[parent], np.broadcast_to(lightness, len(parent)), strict=True)
        shades.insert(0, np.array([colorsys.hls_to_rgb(h, light, 0.8) for h, light in rows]))
        down = stage.assignment.mean(axis=0) @ down
    return shades


def main() -> None:
    """Draw one row a shape: the cloud, then every stage."""
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "centroids.png"
    predictor = load("small", device="cpu")
    columns = 1 + len(predictor.card.model.encoder.stages)
    figure = plt.figure(figsize=(2.6 * columns, 2.6 * len(SHAPES)), dpi=110)
    for row, name in enumerate(SHAPES):
        explanation = predictor.explain(ROOT / "data" / "examples" / name)
        cloud, prediction = explanation.points, explanation.prediction
        grey = np.full((len(cloud), 3), 0.55)
        panels: list[tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None, str]] = [
            (grey, None, f"{prediction.label} {prediction.confidence:.0%}")
        ]
        for stage, shade in zip(explanation.stages, colours(explanation), strict=True):
            points = np.where((stage.hard >= 0)[:, None], shade[stage.hard], 0.85)
            panels.append((points, (stage.positions, shade), f"{len(stage.positions)} centroids"))
        for column, (points, centroids, text) in enumerate(panels):
            axes: Any = figure.add_subplot(len(SHAPES), columns, row * columns + column + 1, projection="3d")
            axes.scatter(*cloud.T, c=points, s=4, linewidths=0, depthshade=False)
            if centroids:
                positions, shade = centroids
                size = 450 / len(positions) ** 0.75
                axes.scatter(*positions.T, c=shade, s=size, edgecolors="black", linewidths=0.5, depthshade=False)
            axes.text2D(0.5, 0.98, text, transform=axes.transAxes, ha="center", va="top", fontsize=10)
            axes.set_axis_off()
            low, high = cloud.min(axis=0), cloud.max(axis=0)
            middle, reach = (low + high) / 2, (high - low).max() / 2
            for k, set_limits in enumerate((axes.set_xlim, axes.set_ylim, axes.set_zlim)):
                set_limits(middle[k] - reach, middle[k] + reach)
            axes.set_box_aspect((1, 1, 1), zoom=1.2)
            axes.view_init(elev=22, azim=-58)
    figure.subplots_adjust(0, 0, 1, 1, 0, 0)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output)
    print(output)


if __name__ == "__main__":
    main()
