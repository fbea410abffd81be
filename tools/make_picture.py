"""Draw the picture of the README: which centroid each point of a shape goes to, stage by stage.

python tools/make_picture.py [OUTPUT.png]
"""

from __future__ import annotations

import colorsys
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from pointcentroid.predict import load

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
SHAPES = ("chair.off", "airplane.gltf", "lamp.glb")


def colours(positions: np.ndarray) -> np.ndarray:
    """(M, 3) centroid positions -> (M, 3) colours: hue by direction around z, lightness by height, so neighbours differ
    a little and parts differ a lot."""
    order = np.argsort(np.argsort(np.arctan2(positions[:, 1], positions[:, 0])))
    height = np.argsort(np.argsort(positions[:, 2])) / max(1, len(positions) - 1)
    # The golden ratio spreads consecutive hues; alternating saturation keeps close ones apart.
    hues = (order * 0.618034) % 1
    rows = [
        colorsys.hls_to_rgb(h, 0.35 + 0.3 * z, 0.65 + 0.35 * (i % 2))
        for i, (h, z) in enumerate(zip(hues, height, strict=True))
    ]
    return np.array(rows)


def main() -> None:
    """Draw one row a shape: the cloud, then every stage."""
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "centroids.png"
    predictor = load("small", device="cpu")
    columns = 1 + len(predictor.card.model.encoder.stages)
    figure = plt.figure(figsize=(3.0 * columns, 2.9 * len(SHAPES)), dpi=110)
    for row, name in enumerate(SHAPES):
        explanation = predictor.explain(ROOT / "data" / "examples" / name)
        cloud, prediction = explanation.points, explanation.prediction
        title = f"{prediction.label} {prediction.confidence:.0%}"
        grey = np.full((len(cloud), 3), 0.55)
        panels: list[tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None, str]] = [(grey, None, title)]
        for stage in explanation.stages:
            positions, nearest = stage.positions, stage.hard
            shade = colours(positions)
            points = np.where((nearest >= 0)[:, None], shade[nearest], 0.85)
            panels.append((points, (positions, shade), f"{len(positions)} centroids"))
        for column, (points, centroids, text) in enumerate(panels):
            axes: Any = figure.add_subplot(len(SHAPES), columns, row * columns + column + 1, projection="3d")
            axes.scatter(*cloud.T, c=points, s=5, linewidths=0, depthshade=False)
            if centroids:
                positions, shade = centroids
                size = 700 / len(positions) ** 0.8
                axes.scatter(*positions.T, c=shade, s=size, edgecolors="black", linewidths=0.6, depthshade=False)
            axes.set_title(text, fontsize=11, y=0.97)
            axes.set_axis_off()
            low, high = cloud.min(axis=0), cloud.max(axis=0)
            axes.set_xlim(low[0], high[0])
            axes.set_ylim(low[1], high[1])
            axes.set_zlim(low[2], high[2])
            axes.set_box_aspect(np.maximum(high - low, 0.2), zoom=1.25)
            axes.view_init(elev=22, azim=-58)
    figure.subplots_adjust(0, 0, 1, 0.97, 0, 0.02)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output)
    print(output)


if __name__ == "__main__":
    main()
