"""Pictures without a screen: stages in columns, views in rows; and a turntable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pointcentroid.errors import ConfigError, MissingExtraError
from pointcentroid.files import replacing
from pointcentroid.viz.open3d_scene import (
    balls,
    centroid_radius,
    drawn_points,
    import_open3d,
    painted_surface,
    quiet,
    unlit,
)
from pointcentroid.viz.panel import Panel

if TYPE_CHECKING:
    from PIL.Image import Image

_TILE = 420  # pixels
_HEADING = 34
_ELEVATION = np.deg2rad(20)
_BACKGROUND = (255, 255, 255)


def write_picture(
    panels: list[Panel], path: str | Path, *, views: int = 1, stages: list[int] | None = None, mesh: bool = False
) -> None:
    """Draw panels, each in as many rows as there are views, with stages in columns.

    Args:
        panels: what to draw.
        path: a PNG file.
        views: directions to look from, evenly around the up axis.
        stages: which stages, 0 for the cloud before any; None for all.
        mesh: draw the mesh of the shape in a column of its own, before the others.

    Raises:
        MissingExtraError: the extra `view` is not installed.
        DisplayError: a system library is missing.
        ConfigError: a stage does not exist.
    """
    image_module, draw_module = _pillow()
    chosen = _chosen(panels, stages)
    columns = len(chosen) + mesh
    sheet = image_module.new("RGB", (columns * _TILE, len(panels) * (views * _TILE + _HEADING)), _BACKGROUND)
    draw = draw_module.Draw(sheet)
    with _Camera(_TILE) as camera:
        for row, panel in enumerate(panels):
            top = row * (views * _TILE + _HEADING)
            draw.text((10, top + 8), panel.title, fill=(20, 20, 20), font_size=17)
            for column, stage in enumerate(([None] if mesh else []) + list(chosen)):
                camera.show(panel, stage)
                name = _name(panel, stage)
                for view in range(views):
                    tile = camera.take(-0.9 + 2 * np.pi * view / views)
                    sheet.paste(tile, (column * _TILE, top + _HEADING + view * _TILE))
                draw.text((column * _TILE + 10, top + _HEADING + 6), name, fill=(90, 90, 90), font_size=15)
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def write_turntable(
    panels: list[Panel], path: str | Path, *, stages: list[int] | None = None, frames: int = 36, size: int = 360
) -> None:
    """Draw panels turning about their up axis, with stages in columns, as an endless GIF.

    Args:
        panels: what to draw, in rows.
        path: a GIF file.
        stages: which stages, 0 for the cloud before any; None for all.
        frames: of one turn.
        size: pixels of a tile.

    Raises:
        MissingExtraError: the extra `view` is not installed.
        DisplayError: a system library is missing.
        ConfigError: a stage does not exist.
    """
    image_module, _ = _pillow()
    chosen = _chosen(panels, stages)
    sheets = [image_module.new("RGB", (len(chosen) * size, len(panels) * size), _BACKGROUND) for _ in range(frames)]
    with _Camera(size) as camera:
        for row, panel in enumerate(panels):
            for column, stage in enumerate(chosen):
                camera.show(panel, stage)
                for number, sheet in enumerate(sheets):
                    sheet.paste(camera.take(2 * np.pi * number / frames), (column * size, row * size))
    with replacing(path) as temporary:
        first, *rest = [sheet.quantize(128) for sheet in sheets]
        first.save(temporary, format="GIF", save_all=True, append_images=rest, duration=80, loop=0)


def _chosen(panels: list[Panel], stages: list[int] | None) -> list[int]:
    most = max(panel.stages for panel in panels)
    for stage in stages or []:
        if not 0 <= stage <= most:
            raise ConfigError(f"no stage {stage}: this net has stages 1..{most}, and 0 is the cloud before them")
    return list(range(most + 1)) if stages is None else stages


def _name(panel: Panel, stage: int | None) -> str:
    if stage is None:
        return "mesh"
    if stage > panel.stages:
        return ""
    return f"stage {stage}: {len(panel.centroids(stage)[0])} centroids" if stage else f"{len(panel.cloud):,} points"


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise MissingExtraError("drawing pictures", "view", error.name or "pillow") from None
    return Image, ImageDraw


class _Camera:
    """An offscreen renderer that looks at one panel at a time. A context manager; open3d allows one at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.open3d = import_open3d()
        self._image, _ = _pillow()

    def __enter__(self) -> _Camera:
        with quiet():
            self.renderer = self.open3d.visualization.rendering.OffscreenRenderer(self.size, self.size)
        self.renderer.scene.view.set_post_processing(False)  # tone mapping would change the colours
        self.renderer.scene.set_background([1.0, 1.0, 1.0, 1.0])
        return self

    def __exit__(self, *_: object) -> None:
        self.renderer.scene.clear_geometry()
        del self.renderer

    def show(self, panel: Panel, stage: int | None) -> None:
        """Put a panel at a stage before the camera; None for its mesh."""
        for name, geometry, material in self._geometry(panel, stage):
            self.renderer.scene.add_geometry(name, geometry, material)
        cloud = panel.cloud
        self._middle = (cloud.min(axis=0) + cloud.max(axis=0)) / 2
        self._reach = float(np.linalg.norm(cloud - self._middle, axis=1).max()) or 1.0

    def _geometry(self, panel: Panel, stage: int | None) -> Iterator[tuple[str, Any, Any]]:
        open3d, material = self.open3d, unlit(self.open3d)
        self.renderer.scene.clear_geometry()
        if stage is None:
            if panel.mesh is not None:
                yield "mesh", painted_surface(open3d, *panel.mesh), material
        elif stage <= panel.stages:
            radius = 0.016 if stage else 0.02
            yield "points", drawn_points(open3d, panel.cloud, panel.colours(stage), radius), material
            if stage:
                positions, colours = panel.centroids(stage)
                radius = centroid_radius(len(positions))
                yield "centroids", balls(open3d, positions, colours, radius, fine=True), material

    def take(self, azimuth: float) -> Image:
        """Look from an azimuth, in radians."""
        direction = np.array(
            [np.cos(azimuth) * np.cos(_ELEVATION), np.sin(azimuth) * np.cos(_ELEVATION), np.sin(_ELEVATION)]
        )
        distance = 1.06 * self._reach / np.sin(np.deg2rad(15))
        self.renderer.setup_camera(30.0, self._middle, self._middle + distance * direction, np.array([0.0, 0.0, 1.0]))
        return self._image.fromarray(np.asarray(self.renderer.render_to_image()))
