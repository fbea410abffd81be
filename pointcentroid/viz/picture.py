"""Pictures without a screen: stages in columns, views in rows; and a turntable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from pointcentroid.viz.panel import NO_CENTROID, Panel

if TYPE_CHECKING:
    from PIL.Image import Image

_TILE = 420  # pixels
_HEADING, _CAPTION = 34, 24
_MARGIN = 10
_TITLE_FONT, _CAPTION_FONT = 17, 15
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
        drawn = [[camera.views(tile, azimuths) for tile in row.tiles] for row in rows]
    pen = draw_module.Draw(image_module.new("RGB", (1, 1)))
    bands = [_band(row, tiles, pen) for row, tiles in zip(rows, drawn, strict=True)]
    width, height = max(band.width for band in bands), sum(band.height for band in bands)
    sheet = image_module.new("RGB", (width, height), _BACKGROUND)
    top = 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
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
        drawn = [[camera.views(tile, azimuths) for tile in row.tiles] for row in rows]
    boxes = [_shown([image for images in tiles for image in images]) for tiles in drawn]
    widths = [right - left for left, _, right, _ in boxes]
    size_of_all = max(len(t) * w for t, w in zip(drawn, widths, strict=True)), sum(box[3] - box[1] for box in boxes)
    sheets = [image_module.new("RGB", size_of_all, _BACKGROUND) for _ in azimuths]
    top = 0
    for tiles, box, width in zip(drawn, boxes, widths, strict=True):
        for column, images in enumerate(tiles):
            for sheet, image in zip(sheets, images, strict=True):
                sheet.paste(image.crop(box), (column * width, top))
        top += box[3] - box[1]
    with replacing(path) as temporary:
        first, *rest = [sheet.quantize(128) for sheet in sheets]
        first.save(temporary, format="GIF", save_all=True, append_images=rest, duration=80, loop=0)


def _band(row: Row, tiles: list[list[Image]], pen: Any) -> Image:
    """A row of a picture: its title, and in columns captions above views. A view is no higher than what it shows."""
    image_module, draw_module = _pillow()
    captions = [_captions(tile) for tile in row.tiles]
    views = list(zip(*tiles, strict=True))
    boxes = [_shown(images) for images in views]
    texts = [int(pen.textlength(text, font_size=_CAPTION_FONT)) + 2 * _MARGIN for lines in captions for text in lines]
    width = max(*(box[2] - box[0] for box in boxes), *texts)
    top = _HEADING + _CAPTION * max(len(lines) for lines in captions)
    titled = 2 * _MARGIN + int(pen.textlength(row.title, font_size=_TITLE_FONT))
    size = max(len(tiles) * width, titled), top + sum(box[3] - box[1] for box in boxes)
    band = image_module.new("RGB", size, _BACKGROUND)
    draw = draw_module.Draw(band)
    draw.text((_MARGIN, 8), row.title, fill=(20, 20, 20), font_size=_TITLE_FONT)
    for column, lines in enumerate(captions):
        for line, text in enumerate(lines):
            at = column * width + _MARGIN, _HEADING + line * _CAPTION
            draw.text(at, text, fill=(90, 90, 90), font_size=_CAPTION_FONT)
    for images, box in zip(views, boxes, strict=True):
        for column, image in enumerate(images):
            band.paste(image.crop(box), (column * width + (width - box[2] + box[0]) // 2, top))
        top += box[3] - box[1]
    return band


def _shown(images: Sequence[Image]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what any of some images shows, with a margin: the rest is white."""
    shown = np.any([np.asarray(image).min(axis=2) < _WHITE for image in images], axis=0)
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    if not len(rows):
        return 0, 0, images[0].width, images[0].height
    left, top = (max(int(found[0]) - _MARGIN, 0) for found in (columns, rows))
    return left, top, min(int(columns[-1]) + _MARGIN, images[0].width), min(int(rows[-1]) + _MARGIN, images[0].height)


def _captions(tile: Tile) -> list[str]:
    """The lines above a drawing: what is drawn, and what grey points are, where there are any."""
    panel, stage, name = tile
    if stage is None:
        return ["mesh" if panel.mesh is not None else "no mesh: a point cloud"]
    if stage > panel.stages:
        return [""]
    listed = panel.listed(stage)
    unassigned = [line for line in listed if line.number == NO_CENTROID]
    what = f"{len(listed) - len(unassigned)} centroids" if stage else panel.points_drawn
    called = name or (f"stage {stage}" if stage else "")
    lines = [f"{called}: {what}" if called else what]
    return lines + [f"grey: {line.size:,} point{'s' * (line.size > 1)} {line.name}" for line in unassigned]


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
        self._middle, self._reach = panel.middle, panel.reach

    def _geometry(self, panel: Panel, stage: int | None) -> Iterator[tuple[str, Any, Any]]:
        open3d, material = self.open3d, unlit(self.open3d)
        self.renderer.scene.clear_geometry()
        if stage is None:
            if panel.mesh is not None:
                yield "mesh", painted_surface(open3d, *panel.mesh), material
        elif stage <= panel.stages:
            radius, seen = 0.016 if stage else 0.02, panel.drawn(stage)
            yield "points", drawn_points(open3d, seen.points, seen.colours, radius), material
            if len(seen.balls):
                radius = centroid_radius(len(seen.balls))
                yield "centroids", balls(open3d, seen.balls, seen.ball_colours, radius, fine=True), material

    def _take(self, azimuth: float) -> Image:
        direction = np.array(
            [np.cos(azimuth) * np.cos(_ELEVATION), np.sin(azimuth) * np.cos(_ELEVATION), np.sin(_ELEVATION)]
        )
        distance = 1.06 * self._reach / np.sin(np.deg2rad(15))
        self.renderer.setup_camera(30.0, self._middle, self._middle + distance * direction, np.array([0.0, 0.0, 1.0]))
        return self._image.fromarray(np.asarray(self.renderer.render_to_image()))
