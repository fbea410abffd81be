"""What is drawn of one explanation: positions, colours, names. Window, page and picture all draw panels.

A panel shows the *inputs* of a stage coloured by the centroid they go to. Inputs are the original points (`composed`, the
assignments of all stages multiplied), or what the stage itself was given: the points, or the centroids of the stage before.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from pointcentroid.geometry.axes import transformed
from pointcentroid.results import Hierarchy, largest_share
from pointcentroid.viz.palette import UNASSIGNED, height_colours, hierarchy_colours, soft_colours


class Panel:
    """One shape, seen through one net.

    Stages are numbered from 1; stage 0 is the cloud before any. Where the file holds many more points than the net was
    shown, all of them are drawn (up to `most`), each with the share of the nearest point that the net did see.

    Args:
        explanation: what a net saw.
        title: a heading; where there is a prediction, it may be left out: the file's name, the label and its probability.
        most: the most points to draw.

    Attributes:
        cloud: (P, 3) float32, the points that are drawn, in the frame the net saw.
        nearest: (P,) for each of them, the row of the nearest point that the net was shown.
        available: how many points there are to draw.
        top: the most probable classes with their probabilities; none where nothing was classified.
    """

    def __init__(self, explanation: Hierarchy, title: str = "", most: int = 200_000) -> None:
        self.explanation, self.title, self.top = explanation, title, []
        if (prediction := explanation.prediction) is not None:
            self.top = prediction.top
            self.title = title or f"{Path(prediction.file).name}: {prediction.label} {prediction.confidence:.0%}"
        self.cloud, self.nearest = explanation.points, np.arange(len(explanation.points))
        self.available = len(self.cloud) if explanation.faces is not None else len(explanation.vertices)
        if explanation.faces is None and len(explanation.vertices) > len(self.cloud) and most > len(self.cloud):
            points = self._in_cloud(explanation.vertices)
            if len(points) > most:
                points = points[np.sort(np.random.default_rng(0).choice(len(points), most, replace=False))]
            from pointcentroid.geometry.neighbours import nearest_rows  # torch, which few panels need

            self.nearest = nearest_rows(points, self.cloud)
            self.cloud = points

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.explanation.stages)

    @property
    def thinned(self) -> bool:
        """Whether the file holds more points than are drawn."""
        return self.available > len(self.cloud)

    @cached_property
    def mesh(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(V, 3) vertices in the frame of the cloud and (F, 3) faces; None for a point cloud."""
        if self.explanation.faces is None:
            return None
        return self._in_cloud(self.explanation.vertices), self.explanation.faces

    @cached_property
    def _colours(self) -> list[np.ndarray]:
        stages = self.explanation.stages
        combined = [stage.assignment.mean(axis=0) for stage in stages]
        return hierarchy_colours([stage.positions for stage in stages], combined)

    def centroids(self, stage: int) -> tuple[np.ndarray, np.ndarray]:
        """(M, 3) positions and (M, 3) colours of the centroids of a stage."""
        return self.explanation.stages[stage - 1].positions, self._colours[stage - 1]

    def inputs(self, stage: int, composed: bool = True) -> np.ndarray:
        """(K, 3) positions of what a stage's assignment is shown on."""
        if stage <= 1 or composed:
            return self.cloud
        return self.explanation.stages[stage - 2].positions

    def weights(self, stage: int, composed: bool = True, head: int | None = None) -> np.ndarray:
        """Shares of the inputs.

        Args:
            stage: 1, 2 ...
            composed: of the original points; else of the stage's own inputs.
            head: one head of this stage (earlier stages combined); the mean of all if None.

        Returns:
            (K, M), for the K rows of `inputs`.
        """
        stages = self.explanation.stages
        own = stages[stage - 1].assignment
        own = own.mean(axis=0) if head is None else own[head]
        if stage == 1:
            return own[self.nearest]
        return (stages[stage - 2].composed @ own)[self.nearest] if composed else own

    def heads(self, stage: int) -> int:
        """Number of attention heads of a stage."""
        return len(self.explanation.stages[stage - 1].assignment) if stage else 0

    def colours(self, stage: int, composed: bool = True, head: int | None = None, picked: int | None = None) -> np.ndarray:
        """(K, 3) colours of the inputs: by their centroid, or lit by their share in the `picked` one."""
        if stage == 0:
            return height_colours(self.cloud)
        weights = self.weights(stage, composed, head)
        own = self._colours[stage - 1]
        if picked is not None:
            return soft_colours(weights[:, picked], own[picked])
        hard = largest_share(weights)
        return np.where((hard >= 0)[:, None], own[hard], UNASSIGNED)

    def describe(self, stage: int, picked: int, composed: bool = True, head: int | None = None) -> str:
        """One line on a centroid: its number, how many inputs are mostly its, and its mass, the sum of its shares."""
        weights = self.weights(stage, composed, head)
        size = int((largest_share(weights) == picked).sum())
        what = "points" if composed or stage == 1 else "centroids"
        mass = float(weights[:, picked].sum(dtype=np.float64))
        return f"centroid {picked} of stage {stage}: {size} of {len(weights)} {what}, weight mass {mass:.1f}"

    def _in_cloud(self, points: np.ndarray) -> np.ndarray:
        return transformed(points, self.explanation.transform).astype(np.float32)
