"""What a net saw a shape through, and how to look at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pointcentroid.config import PartsConfig, PreprocessConfig
from pointcentroid.errors import MissingExtraError
from pointcentroid.geometry.sampling import Frame
from pointcentroid.io.shape import Shape
from pointcentroid.nn.encoder import StageOutput, compose
from pointcentroid.predict.nets import ordered
from pointcentroid.predict.preparing import Prepared, Source, as_shape, cloud_in_frame, source_name
from pointcentroid.predict.torch_net import Abstraction
from pointcentroid.results import Hierarchy, Prediction, StageExplanation
from pointcentroid.viz.panel import Panel
from pointcentroid.weights import WeightsCard

if TYPE_CHECKING:
    import trimesh

    from pointcentroid.predict.naming import Labelled

_SEEDS_APART = 1000  # between further samplings of a surface, so that explanations with other seeds share none


@dataclass(frozen=True, repr=False)
class Explanation(Hierarchy):
    """The centroids a net saw a shape through, and what it said."""

    prediction: Prediction  # type: ignore[assignment], it is always there

    def show(self) -> None:
        """Open the interactive window and wait until it is closed.

        Raises:
            MissingExtraError: the extra `view` is not installed.
            DisplayError: there is no screen, or a system library is missing.
        """
        from pointcentroid.viz.window import show

        show([lambda: [Panel(self)]])

    def _repr_html_(self) -> str:
        """The interactive page, in a notebook; what was said, where the extra `view` is not installed."""
        from pointcentroid.viz.page import page_text

        try:
            page = page_text([Panel(self)])
        except MissingExtraError:
            return self.prediction._repr_html_()
        return f'<iframe srcdoc="{escape(page)}" style="width:100%;height:640px;border:0"></iframe>'

    def to_html(self, path: str | Path) -> None:
        """Write the interactive page: one file that needs no network.

        Args:
            path: where to.

        Raises:
            MissingExtraError: the extra `view` is not installed.
        """
        from pointcentroid.viz.page import write_page

        write_page([Panel(self)], path)

    def to_png(self, path: str | Path, views: int = 1) -> None:
        """Draw the stages, in columns, without a screen.

        Args:
            path: where to, a PNG file.
            views: directions to look from, in rows.

        Raises:
            ConfigError: the file is called something else.
            MissingExtraError: the extra `view` is not installed.
            DisplayError: a system library is missing.
        """
        from pointcentroid.viz.picture import stage_rows, write_picture

        write_picture(stage_rows([Panel(self)]), path, views=views)

    def split(self, example: Labelled | None = None) -> dict[str, trimesh.Trimesh]:
        """Cut the mesh at the centroids of the last stage, in the file's frame and units; every face goes to one piece.

        Args:
            example: a shape that lends names, made by `naming.labelled`; without one, pieces are called `centroid 3`.

        Returns:
            The pieces that have faces, by name.

        Raises:
            ReadError: it is a point cloud.
        """
        from pointcentroid.predict.split import split

        return {piece.name: piece.mesh for piece in split(self, self.prediction.file, example) if len(piece.faces)}


@torch.inference_mode()
def explain(
    source: Source, card: WeightsCard, net: Abstraction, classify: Callable[[Prepared], Prediction], seed: int | None
) -> Explanation:
    """Classify one shape and show the centroids it was seen through; see `Predictor.explain`.

    Args:
        source: the shape.
        card: of the net that classifies.
        net: whose centroids are shown.
        classify: says what a prepared shape is, and how it stands.
        seed: of the sampling; the one of predictions if None.
    """
    shape = as_shape(source)

    @cache  # where both nets want the same sampling
    def sampled(settings: PreprocessConfig, number: int) -> tuple[np.ndarray, Frame]:
        first = settings.seed if seed is None else seed
        return cloud_in_frame(source, shape, settings, first + _SEEDS_APART * number)

    points, _ = sampled(card.preprocess, 0)
    prediction = classify(Prepared(source_name(source), points[None]))
    samplings, frames = zip(*(sampled(net.card.preprocess, number) for number in range(net.samplings)), strict=True)
    turn = prediction.turn
    clouds = torch.from_numpy(ordered(np.stack(samplings), net.card) @ turn.T.astype(np.float32)).to(net.device)
    seen = hierarchy(net.see(clouds), clouds[:1], shape, frames[0], turn)
    named = isinstance(net.card.model, PartsConfig) and net.card.model.names > 0
    return Explanation(seen.points, seen.stages, seen.transform, seen.vertices, seen.faces, prediction, named)


def hierarchy(outputs: list[StageOutput], cloud: Tensor, shape: Shape, frame: Frame, turn: np.ndarray) -> Hierarchy:
    """The centroids a net saw one cloud through.

    Args:
        outputs: of the net's stages, with assignments.
        cloud: (1, N, 3) preprocessed, z up, in farthest-point order.
        shape: what it was made of.
        frame: where it lies in the shape's frame.
        turn: (3, 3) the rotation that then put z up.
    """
    stages = []
    for out, shares in zip(outputs, compose(outputs), strict=True):
        assert out.assignment is not None, "asked for"
        tensors = (out.positions, out.features, out.assignment, shares)
        stages.append(StageExplanation(*(tensor[0].cpu().numpy() for tensor in tensors)))
    transform = np.eye(4)
    transform[:3, :3] = turn / frame.scale
    transform[:3, 3] = -transform[:3, :3] @ frame.centre
    return Hierarchy(cloud[0].cpu().numpy(), stages, transform, shape.vertices, shape.faces)
