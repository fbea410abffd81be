"""Pictures without a screen: stages in columns, views in rows; and a turntable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
_HEADING, _CAPTION = 34, 24
_MARGIN = 10
_NARROWEST = 200  # a tile, so that its caption fits
_WHITE = 250  # what is darker than this is no background
_ELEVATION = np.deg2rad(20)
_BACKGROUND = (255, 255, 255)


class Tile(NamedTuple):
    """One drawing of a picture.

    Attributes:
        panel: what is drawn.
        stage: at which stage: 0 for the cloud before any, None for the mesh.
        name: what it is called; it may be left out where the number of the stage says enough.
    """

    panel: Panel
    stage: int | None
    name: str = ""


class Row(NamedTuple):
    """What stands side by side in a picture.

    Attributes:
        title: above it.
        tiles: from left to right.
    """

    title: str
    tiles: list[Tile]


def stage_rows(panels: list[Panel], stages: list[int] | None = None, mesh: bool = False) -> list[Row]:
    """A row for each panel, with its stages in columns.

    Args:
        panels: what to draw.
        stages: which stages, 0 for the cloud before any; None for all.
        mesh: begin with the mesh of the shape.

    Raises:
        ConfigError: a stage does not exist.
    """
    most = max(panel.stages for panel in panels)
    for stage in stages or []:
        if not 0 <= stage <= most:
            raise ConfigError(f"no stage {stage}: this net has stages 1..{most}, and 0 is the cloud before them")
    columns = [*([None] if mesh else []), *(range(most + 1) if stages is None else stages)]
    return [Row(panel.title, [Tile(panel, stage) for stage in columns]) for panel in panels]


def write_picture(rows: list[Row], path: str | Path, *, views: int = 1) -> None:
    """Draw rows of tiles, each in as many rows as there are views.

    Args:
        rows: what to draw.
        path: a PNG file.
        views: directions to look from, evenly around the up axis.

    Raises:
        MissingExtraError: the extra `view` is not installed.
        DisplayError: a system library is missing.
    """
    image_module, draw_module = _pillow()
    with _Camera(_TILE) as camera:
        azimuths = [-0.9 + 2 * np.pi * view / views for view in range(views)]
        drawn = [_trimmed([camera.views(tile, azimuths) for tile in row.tiles]) for row in rows]
    sizes = [(len(tiles) * tiles[0][0].width, _HEADING + _CAPTION + views * tiles[0][0].height) for tiles in drawn]
    sheet = image_module.new("RGB", (max(width for width, _ in sizes), sum(height for _, height in sizes)), _BACKGROUND)
    draw, top = draw_module.Draw(sheet), 0
    for row, tiles, (_, height) in zip(rows, drawn, sizes, strict=True):
        draw.text((10, top + 8), row.title, fill=(20, 20, 20), font_size=17)
        for column, (tile, images) in enumerate(zip(row.tiles, tiles, strict=True)):
            left = column * images[0].width
            draw.text((left + 10, top + _HEADING), _caption(tile), fill=(90, 90, 90), font_size=15)
            for view, image in enumerate(images):
                sheet.paste(image, (left, top + _HEADING + _CAPTION + view * image.height))
        top += height
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def write_turntable(rows: list[Row], path: str | Path, *, frames: int = 36, size: int = 360) -> None:
    """Draw rows of tiles turning about their up axis, as an endless GIF.

    Args:
        rows: what to draw.
        path: a GIF file.
        frames: of one turn.
        size: pixels of a tile.

    Raises:
        MissingExtraError: the extra `view` is not installed.
        DisplayError: a system library is missing.
    """
    image_module, _ = _pillow()
    with _Camera(size) as camera:
        azimuths = [2 * np.pi * frame / frames for frame in range(frames)]
        drawn = [_trimmed([camera.views(tile, azimuths) for tile in row.tiles]) for row in rows]
    width = max(len(tiles) * tiles[0][0].width for tiles in drawn)
    sheets = [image_module.new("RGB", (width, sum(tiles[0][0].height for tiles in drawn)), _BACKGROUND) for _ in azimuths]
    top = 0
    for tiles in drawn:
        for column, images in enumerate(tiles):
            for sheet, image in zip(sheets, images, strict=True):
                sheet.paste(image, (column * image.width, top))
        top += tiles[0][0].height
    with replacing(path) as temporary:
        first, *rest = [sheet.quantize(128) for sheet in sheets]
        first.save(temporary, format="GIF", save_all=True, append_images=rest, duration=80, loop=0)


def _trimmed(tiles: list[list[Image]]) -> list[list[Image]]:
    """Images without the white around what any of them shows, all of one size, wide enough for a caption."""
    shown = np.any([np.asarray(image).min(axis=2) < _WHITE for images in tiles for image in images], axis=0)
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    if not len(rows):
        return tiles
    size = shown.shape[1]
    left, right = max(columns[0] - _MARGIN, 0), min(columns[-1] + _MARGIN, size)
    spare = max(_NARROWEST - (right - left), 0)
    left, right = max(left - spare // 2, 0), min(right + spare - spare // 2, size)
    box = int(left), int(max(rows[0] - _MARGIN, 0)), int(right), int(min(rows[-1] + _MARGIN, len(shown)))
    return [[image.crop(box) for image in images] for images in tiles]


def _caption(tile: Tile) -> str:
    panel, stage, name = tile
    if stage is None:
        return "mesh"
    if stage > panel.stages:
        return ""
    what = f"{len(panel.centroids(stage)[0])} centroids" if stage else f"{len(panel.cloud):,} points"
    if name:
        return f"{name}: {what}"
    return f"stage {stage}: {what}" if stage else what


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

    def views(self, tile: Tile, azimuths: list[float]) -> list[Image]:
        """Look at a tile from some azimuths, in radians."""
        self._show(tile.panel, tile.stage)
        return [self._take(azimuth) for azimuth in azimuths]

    def _show(self, panel: Panel, stage: int | None) -> None:
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

    def _take(self, azimuth: float) -> Image:
        direction = np.array(
            [np.cos(azimuth) * np.cos(_ELEVATION), np.sin(azimuth) * np.cos(_ELEVATION), np.sin(_ELEVATION)]
        )
        distance = 1.06 * self._reach / np.sin(np.deg2rad(15))
        self.renderer.setup_camera(30.0, self._middle, self._middle + distance * direction, np.array([0.0, 0.0, 1.0]))
        return self._image.fromarray(np.asarray(self.renderer.render_to_image()))
