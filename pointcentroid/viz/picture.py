"""Pictures without a screen: stages in columns, views in rows; and a turntable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
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
from pointcentroid.viz.panel import NO_CENTROID, Panel, counted

if TYPE_CHECKING:
    from PIL.Image import Image

_TILE = 420  # pixels
_HEADING, _CAPTION = 34, 24
_MARGIN = 10
_TITLE_FONT, _CAPTION_FONT = 17, 15
_FONT = "resources/Roboto-Medium.ttf"  # of open3d
_WHITE = 250  # what is darker than this is no background
_ELEVATION = np.deg2rad(20)
_BACKGROUND = (255, 255, 255)
_SAMPLED = 100_000  # pixels, at most, that choose the colours of a GIF

Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a part of an image."""

Watch = Callable[[Iterable[Any], int], Iterable[Any]]
"""Wraps drawings, given with their number, to show progress."""


def _unwatched(items: Iterable[Any], _: int) -> Iterable[Any]:
    return items


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


def write_picture(rows: list[Row], path: str | Path, *, views: int = 1, watch: Watch = _unwatched) -> None:
    """Draw rows of tiles, each in as many rows as there are views.

    Args:
        rows: what to draw.
        path: a PNG file.
        views: directions to look from, evenly around the up axis.
        watch: see `Watch`.

    Raises:
        ConfigError: the file is called something else.
        MissingExtraError: the extra `view` is not installed.
        DisplayError: a system library is missing.
    """
    if Path(path).suffix.lower() != ".png":
        raise ConfigError(f"expected a name that ends in .png, found {Path(path).name}")
    azimuths = [-0.9 + 2 * np.pi * view / views for view in range(views)]
    drawn = [list(zip(*tiles, strict=True)) for tiles in _draw(rows, azimuths, _TILE, watch)]
    bands = [_Band(row, list(map(_shown, looks))) for row, looks in zip(rows, drawn, strict=True)]
    sheet = _stacked([band.filled(looks) for band, looks in zip(bands, drawn, strict=True)])
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def write_turntable(
    rows: list[Row], path: str | Path, *, frames: int = 36, size: int = 360, watch: Watch = _unwatched
) -> None:
    """Draw rows of tiles turning about their up axis, as an endless GIF.

    Args:
        rows: what to draw.
        path: a GIF file.
        frames: of one turn.
        size: pixels of a tile.
        watch: see `Watch`.

    Raises:
        MissingExtraError: the extra `view` is not installed.
        DisplayError: a system library is missing.
    """
    drawn = _draw(rows, [2 * np.pi * frame / frames for frame in range(frames)], size, watch)
    boxes = [_shown([image for images in tiles for image in images]) for tiles in drawn]
    bands = [_Band(row, [box]) for row, box in zip(rows, boxes, strict=True)]
    looks = [list(zip(*tiles, strict=True)) for tiles in drawn]
    sheets = [
        _stacked([band.filled([look[frame]]) for band, look in zip(bands, looks, strict=True)]) for frame in range(frames)
    ]
    first, *rest = _few_colours(sheets)
    with replacing(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=rest, duration=80, loop=0)


def _draw(rows: list[Row], azimuths: list[float], size: int, watch: Watch) -> list[list[list[Image]]]:
    """What each tile of each row looks like from each azimuth, in squares of so many pixels."""
    with _Camera(size) as camera:
        tiles = [tile for row in rows for tile in row.tiles]
        images = iter(list(watch(camera.views(tiles, azimuths), len(tiles) * len(azimuths))))
    return [[list(islice(images, len(azimuths))) for _ in row.tiles] for row in rows]


class _Band:
    """A row of a sheet: its title, and in columns captions above views. A view is no higher than what it shows.

    Args:
        row: what stands there.
        boxes: for each view, the part of its images that is shown.
    """

    def __init__(self, row: Row, boxes: list[Box]) -> None:
        image_module, draw_module = _pillow()
        self.boxes, captions = boxes, [_captions(tile) for tile in row.tiles]
        pen = draw_module.Draw(image_module.new("RGB", (1, 1)))
        texts = [pen.textlength(text, font=_font(_CAPTION_FONT)) for lines in captions for text in lines]
        self.width = max(*(box[2] - box[0] for box in boxes), *(int(text) + 2 * _MARGIN for text in texts))
        self.top = _HEADING + _CAPTION * max(len(lines) for lines in captions)
        titled = 2 * _MARGIN + int(pen.textlength(row.title, font=_font(_TITLE_FONT)))
        size = max(len(captions) * self.width, titled), self.top + sum(box[3] - box[1] for box in boxes)
        self.blank: Image = image_module.new("RGB", size, _BACKGROUND)
        draw = draw_module.Draw(self.blank)
        draw.text((_MARGIN, 8), row.title, fill=(20, 20, 20), font=_font(_TITLE_FONT))
        for column, lines in enumerate(captions):
            for line, text in enumerate(lines):
                at = column * self.width + _MARGIN, _HEADING + line * _CAPTION
                draw.text(at, text, fill=(90, 90, 90), font=_font(_CAPTION_FONT))

    def filled(self, views: Sequence[Sequence[Image]]) -> Image:
        """The row with its images, those of each view from left to right."""
        band, top = self.blank.copy(), self.top
        for images, box in zip(views, self.boxes, strict=True):
            for column, image in enumerate(images):
                band.paste(image.crop(box), (column * self.width + (self.width - box[2] + box[0]) // 2, top))
            top += box[3] - box[1]
        return band


def _stacked(bands: list[Image]) -> Image:
    """Rows of a sheet, one below the other."""
    size = max(band.width for band in bands), sum(band.height for band in bands)
    sheet, top = _pillow()[0].new("RGB", size, _BACKGROUND), 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    return sheet


def _few_colours(sheets: list[Image]) -> list[Image]:
    """Frames in 256 colours, the same in all: a palette for each would let colours flicker.

    The background is one of them, however much of the frames it fills; the others cover what hues there are, and then move
    to where most pixels are. Not dithered: what has one colour keeps one.
    """
    image_module, _ = _pillow()
    every = [np.asarray(sheet).reshape(-1, 3) for sheet in sheets[:: max(1, len(sheets) // 9)]]
    pixels = np.concatenate([one[one.min(axis=1) < _WHITE] for one in every])
    some = image_module.fromarray(pixels[None, :: 1 + len(pixels) // _SAMPLED])
    chosen = some.quantize(255, method=image_module.Quantize.MAXCOVERAGE, kmeans=1).getpalette()
    palette = image_module.new("P", (1, 1))
    palette.putpalette([*_BACKGROUND, *chosen[: 3 * 255]])
    return [sheet.quantize(palette=palette, dither=image_module.Dither.NONE) for sheet in sheets]


def _shown(images: Sequence[Image]) -> Box:
    """The part where any of some images shows something, with a margin: the rest is white."""
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
    what = counted(len(listed) - len(unassigned), "centroid") if stage else panel.points_drawn
    called = name or (f"stage {stage}" if stage else "")
    lines = [f"{called}: {what}" if called else what]
    return lines + [f"grey: {counted(line.size, 'point')} {line.name}" for line in unassigned]


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise MissingExtraError("drawing pictures", "view", error.name or "pillow") from None
    return Image, ImageDraw


@cache
def _font(size: int) -> Any:
    """A font of some size: that which open3d brings, as Pillow's own has few letters beside those of English."""
    from PIL import ImageFont

    path = Path(import_open3d().__file__).parent / _FONT
    return ImageFont.truetype(path, size) if path.is_file() else ImageFont.load_default(size)


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

    def views(self, tiles: list[Tile], azimuths: list[float]) -> Iterator[Image]:
        """Look at one tile after the other, at each from all azimuths, in radians."""
        for tile in tiles:
            self._show(tile.panel, tile.stage)
            yield from map(self._take, azimuths)

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
