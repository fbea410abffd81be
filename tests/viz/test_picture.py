"""Pictures in files."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pointcentroid as pc
from pointcentroid.errors import ConfigError
from pointcentroid.predict.explain import Explanation
from pointcentroid.viz.panel import Panel
from pointcentroid.viz.picture import _captions, _font, stage_rows, write_picture, write_turntable

from ..conftest import EXAMPLES
from ..test_cli import run
from .looking import clustered, hues, saturated


@pytest.mark.usefixtures("drawing")
class TestPicture:
    def test_stages_stand_in_columns_and_have_their_centroids_colours(self, chair: Explanation, tmp_path: Path) -> None:
        path = tmp_path / "chair.png"
        write_picture(stage_rows([Panel(chair)], mesh=True), path)
        image = Image.open(path).convert("RGB")
        columns = 2 + len(chair.stages)
        tile = image.width // columns
        assert image.width == columns * tile
        hues = [saturated(image.crop((column * tile, 60, (column + 1) * tile, image.height))) for column in range(columns)]
        assert hues[0] == 0  # the mesh is grey
        assert min(hues[1:]) > 3000
        # Every last centroid's own colour is there, unchanged but for its shading: the largest ball shows it nearly pure.
        last = np.asarray(image.crop((image.width - tile, 60, image.width, image.height))).reshape(-1, 3).astype(float)
        _, colours = Panel(chair).centroids(len(chair.stages))
        near = [np.abs(last - 255 * colour).max(axis=1).min() for colour in colours]
        used = np.unique(chair.stages[-1].hard)
        assert max(near[number] for number in used) < 12

    def test_long_titles_are_whole(self, chair: Explanation, tmp_path: Path) -> None:
        path = tmp_path / "chair.png"
        write_picture(stage_rows([Panel(chair, "chair " * 30 + "end")], [1]), path)
        title = np.asarray(Image.open(path).convert("L"))[:34]
        assert np.flatnonzero((title < 150).any(axis=0)).max() > title.shape[1] - 20

    def test_a_png_is_called_one(self, chair: Explanation, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"ends in \.png, found chair\.jpg"):
            chair.to_png(tmp_path / "chair.jpg")
        assert not list(tmp_path.iterdir())

    def test_captions_say_what_is_not_drawn(self) -> None:
        cloud = pc.load("small").explain(np.random.default_rng(0).normal(size=(5000, 3)), up="z")
        (row,) = stage_rows([Panel(cloud, most=3000)], [0], mesh=True)
        assert [_captions(tile)[0] for tile in row.tiles] == ["no mesh: a point cloud", "3,000 of 5,000 points"]

    def test_captions_count_one_centroid_and_one_point(self) -> None:
        hard = np.array([-1] + 9 * [0])
        (row,) = stage_rows([Panel(clustered(np.random.default_rng(0).normal(size=(10, 3)), hard, 1))])
        assert [_captions(tile) for tile in row.tiles] == [
            ["10 points"],
            ["stage 1: 1 centroid", "grey: 1 point to no centroid"],
        ]

    def test_letters_of_europe_are_drawn(self) -> None:
        """Each differs from what stands for one that a font lacks."""
        drawn = {letter: _font(40).getmask(letter) for letter in "\u0378éüßøłčŘ№жΩ"}
        lacking = drawn.pop("\u0378")
        assert all(bytes(mask) != bytes(lacking) for mask in drawn.values())

    def test_views_are_rows_and_differ(self, chair: Explanation, tmp_path: Path) -> None:
        one, two = tmp_path / "one.png", tmp_path / "two.png"
        write_picture(stage_rows([Panel(chair)], [2]), one)
        write_picture(stage_rows([Panel(chair)], [2]), two, views=2)
        first, both = (Image.open(path).convert("RGB") for path in (one, two))
        assert 1.7 * (first.height - 58) < both.height - 58 < 2.3 * (first.height - 58)
        again = np.asarray(both.crop((0, both.height - first.height + 58, both.width, both.height)))
        assert (np.asarray(both.crop((0, 58, both.width, first.height))) != again).mean() > 0.02

    def test_grey_points_are_explained(self, tmp_path: Path) -> None:
        points, hard = np.random.default_rng(0).normal(size=(300, 3)), np.random.default_rng(1).integers(-1, 4, 300)
        below = []
        for name, clusters in (("some", hard), ("none", hard.clip(0))):
            path = tmp_path / f"{name}.png"
            write_picture(stage_rows([Panel(clustered(points, clusters, 4))], [1]), path)
            below.append(np.asarray(Image.open(path).convert("L"))[58:80, :150])
        assert (below[0] < 150).sum() > 100, "a second line below what is drawn"
        assert (below[1] < 150).sum() == 0

    def test_what_is_wide_and_flat_fills_its_frame(self, tmp_path: Path) -> None:
        path = tmp_path / "airplane.png"
        done = run("view", EXAMPLES / "airplane.gltf", "--stages", "0,2", "--views", 2, "--png", path)
        assert done.returncode == 0, done.stderr
        drawn = np.asarray(Image.open(path).convert("RGB"))[58:].min(axis=2) < 240
        assert drawn.shape[0] < 0.8 * drawn.shape[1]
        rows, columns = (np.flatnonzero(drawn.any(axis=axis)) for axis in (1, 0))
        assert max(rows[0], columns[0], drawn.shape[0] - rows[-1], drawn.shape[1] - columns[-1]) < 30
        # Of every tile, both ways: what is drawn reaches over at least four fifths of it, for the larger view.
        half = drawn.shape[1] // 2
        for tile in (drawn[:, :half], drawn[:, half:]):
            assert np.ptp(np.flatnonzero(tile.any(axis=0))) > 0.8 * half
            blank = ~tile.any(axis=1)
            longest = max((len(list(run)) for white, run in itertools.groupby(blank) if white), default=0)
            assert longest < 45, "no band of white between or around the views"

    def test_a_turntable_turns(self, chair: Explanation, tmp_path: Path) -> None:
        path = tmp_path / "chair.gif"
        write_turntable(stage_rows([Panel(chair)], [2]), path, frames=4, size=160)
        frames = Image.open(path)
        assert frames.n_frames == 4  # type: ignore[attr-defined]
        assert len({frames.seek(k) or frames.convert("RGB").tobytes() for k in range(4)}) == 4

    def test_rows_of_a_turntable_have_the_headings_of_the_picture(self, chair: Explanation, tmp_path: Path) -> None:
        gif, headings = tmp_path / "two.gif", []
        shown = [Panel(chair, "one shape"), Panel(chair, "another shape")]
        write_turntable(stage_rows(shown, [1, 2]), gif, frames=2, size=160)
        for panel in shown:
            png = tmp_path / "one.png"
            write_picture(stage_rows([panel], [1]), png)
            headings.append(np.asarray(Image.open(png).convert("L"))[:58, :140])  # with the caption of its first column
        frames = Image.open(gif)
        for frame in range(2):
            frames.seek(frame)
            grey = np.asarray(frames.convert("L")).astype(int)[:, :140]
            tops = range(len(grey) - 58)
            places = [min(tops, key=lambda top: np.abs(grey[top : top + 58] - text).mean()) for text in headings]
            assert places[0] == 0
            assert places[1] > 100
            assert all(np.abs(grey[y : y + 58] - text).mean() < 2 for y, text in zip(places, headings, strict=True))

    def test_colours_of_a_turntable_are_those_that_were_drawn(self, chair: Explanation, tmp_path: Path) -> None:
        path, drawn = tmp_path / "three.gif", []
        net = pc.load("small", "cpu")
        shown = [Panel(chair), *(Panel(net.explain(EXAMPLES / name)) for name in ("lamp.glb", "airplane.gltf"))]

        def watch(images: Any, count: int) -> list[Image.Image]:
            drawn.extend(images)
            assert len(drawn) == count == 3 * 2 * 4
            return drawn

        def away(colours: Any, palette: np.ndarray) -> list[int]:
            return [np.abs(palette - colour).max(axis=1).min() for colour in colours]

        write_turntable(stage_rows(shown, [1, 2]), path, frames=4, size=160, watch=watch)
        own = [255 * colour for panel in shown for colour in panel.centroids(2)[1][np.unique(panel.hard(2))]]
        frames, seen = Image.open(path), []
        for frame in range(4):
            frames.seek(frame)
            seen.append(np.unique(np.asarray(frames.convert("RGB")).reshape(-1, 3), axis=0).astype(np.int16))
            pixels = np.concatenate([np.asarray(image).reshape(-1, 3) for image in drawn[frame::4]]).astype(np.int16)
            of_pixels = away(pixels[pixels.min(axis=1) < 250][::7], seen[frame])
            assert np.mean(of_pixels) < 10
            assert np.percentile(of_pixels, 95) < 20
            assert np.mean(away(own, seen[frame])) < 16
        assert len(np.unique(np.concatenate(seen), axis=0)) <= 256, "one palette for all frames"

    def test_a_reconstruction_beside_its_original(self, tmp_path: Path) -> None:
        path = tmp_path / "made.png"
        done = run("view", EXAMPLES / "chair.off", "--weights", "autoencoder", "--png", path, "--views", 2)
        assert done.returncode == 0, done.stderr
        image = Image.open(path)
        width = image.width // 3
        tiles = [image.crop((width * k, 58, width * k + width, image.height)) for k in range(3)]
        assert min(map(saturated, tiles)) > 5000
        assert [hues(tile) > 6 for tile in tiles] == [False, True, False], "only patches are coloured by centroid"

    def test_a_stage_that_is_not_there_is_an_error(self, chair: Explanation, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no stage 7"):
            stage_rows([Panel(chair)], [7])
        assert not list(tmp_path.iterdir())
