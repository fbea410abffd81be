"""Pictures, pages and windows, looked at as a person would: through pixels, clicks and keys."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageGrab

import pointcentroid as pc
from pointcentroid.errors import ConfigError, DisplayError
from pointcentroid.predict.explain import Explanation
from pointcentroid.predict.reconstruct import Reconstructor, panels
from pointcentroid.viz.open3d_scene import import_open3d
from pointcentroid.viz.page import MOST_POINTS, write_page
from pointcentroid.viz.palette import UNASSIGNED, UNLIT, hierarchy_colours, oklch_to_rgb, soft_colours
from pointcentroid.viz.panel import Panel
from pointcentroid.viz.picture import stage_rows, write_picture, write_turntable

from .conftest import EXAMPLES, watched_pages
from .test_cli import run


@pytest.fixture(scope="module")
def chair() -> Explanation:
    return pc.load("small", "cpu").explain(EXAMPLES / "chair.off")


@pytest.fixture(scope="module")
def drawing() -> None:
    """What open3d needs of the system."""
    try:
        import_open3d()
    except DisplayError as error:
        pytest.skip(str(error))


def saturated(image: Image.Image) -> int:
    """Number of pixels with a hue: what is coloured by a centroid, not grey, white or black."""
    values = np.asarray(image.convert("RGB")).astype(int)
    return int((values.max(axis=2) - values.min(axis=2) > 60).sum())


def hues(image: Image.Image) -> int:
    """How many of twelve hues are on it, where it has any."""
    hue, saturation, value = np.moveaxis(np.asarray(image.convert("HSV")).astype(int), 2, 0)
    seen = np.bincount(hue[(saturation > 60) & (value > 60)] * 12 // 256, minlength=12)
    return int((seen > 0.01 * seen.sum()).sum())


class TestPalette:
    def test_oklch_has_the_known_corners(self) -> None:
        """Red, white and black of sRGB, from the values published with OKLab."""
        red = oklch_to_rgb(np.array(0.62796), np.array(0.25768), np.array(np.deg2rad(29.234)))
        assert red == pytest.approx([1, 0, 0], abs=2e-3)
        for lightness in (0.0, 1.0):
            assert oklch_to_rgb(np.array(lightness), np.array(0.0), np.array(0.0)) == pytest.approx(
                [lightness] * 3, abs=1e-3
            )

    @given(st.integers(1, 40), st.integers(0, 5))
    def test_last_stage_colours_all_differ_and_are_colours(self, count: int, seed: int) -> None:
        positions = np.random.default_rng(seed).normal(size=(count, 3))
        (colours,) = hierarchy_colours([positions], [np.ones((1, count))])
        assert colours.shape == (count, 3)
        assert colours.min() >= 0
        assert colours.max() <= 1
        for one, other in itertools.combinations(colours, 2):
            assert np.abs(one - other).max() > 0.01

    def test_children_are_shades_of_their_parents_hue(self, chair: Explanation) -> None:
        panel = Panel(chair)
        for stage in range(1, len(chair.stages)):
            parents = chair.stages[stage].assignment.mean(axis=0).argmax(axis=1)
            own, above = panel.centroids(stage)[1], panel.centroids(stage + 1)[1]
            for child, parent in enumerate(parents):
                # The order of the channels is the hue's; shades keep it, up to clipping at the ends.
                order = np.argsort(above[parent])
                assert (np.diff(own[child][order]) > -0.2).all()

    def test_soft_colours_run_from_unlit_to_the_centroids(self) -> None:
        colours = soft_colours(np.array([0.0, 0.2, 0.8]), np.array([1.0, 0.0, 0.0]))
        assert colours[0] == pytest.approx(UNLIT)
        assert colours[2] == pytest.approx([1, 0, 0])
        assert UNLIT[1] > colours[1][1] > 0


class TestPanel:
    def test_hard_colours_are_those_of_the_largest_share(self, chair: Explanation) -> None:
        panel = Panel(chair)
        for number, stage in enumerate(chair.stages, 1):
            _, colours = panel.centroids(number)
            expected = np.where((stage.hard >= 0)[:, None], colours[stage.hard], UNASSIGNED)
            assert np.array_equal(panel.colours(number), expected)

    def test_heads_average_to_the_whole(self, chair: Explanation) -> None:
        panel = Panel(chair)
        for stage, composed in itertools.product(range(1, panel.stages + 1), (True, False)):
            heads = [panel.weights(stage, composed, head) for head in range(panel.heads(stage))]
            assert np.mean(heads, axis=0) == pytest.approx(panel.weights(stage, composed), abs=1e-5)
            assert len(panel.inputs(stage, composed)) == len(panel.weights(stage, composed))
        assert panel.weights(panel.stages) == pytest.approx(chair.stages[-1].composed, abs=1e-5)

    def test_the_mesh_lies_where_the_points_are(self, chair: Explanation) -> None:
        import trimesh

        mesh = Panel(chair).mesh
        assert mesh is not None
        surface = trimesh.Trimesh(*mesh, process=False)
        distance = np.linalg.norm(chair.points - trimesh.proximity.closest_point_naive(surface, chair.points)[0], axis=1)
        assert distance.max() < 1e-5

    def test_every_point_of_a_large_cloud_takes_the_share_of_its_nearest(self) -> None:
        points = np.random.default_rng(0).normal(size=(5000, 3))
        panel = Panel(pc.load("small", "cpu").explain(points, up="z"))
        assert len(panel.cloud) == 5000
        assert not panel.thinned
        seen = panel.explanation.points
        rows = np.random.default_rng(1).choice(5000, 50)
        distance = np.linalg.norm(panel.cloud[rows, None] - seen[None], axis=2)
        assert distance[np.arange(50), panel.nearest[rows]] == pytest.approx(distance.min(axis=1), abs=1e-6)
        assert Panel(panel.explanation, most=2000).thinned


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
        assert sum(distance < 12 for distance in near) >= 12

    def test_views_are_rows_and_differ(self, chair: Explanation, tmp_path: Path) -> None:
        path = tmp_path / "chair.png"
        write_picture(stage_rows([Panel(chair)], [2]), path, views=2)
        image = Image.open(path).convert("RGB")
        tile = (image.height - 58) // 2
        first, second = (
            np.asarray(image.crop((0, 58 + row * tile, image.width, 58 + (row + 1) * tile))) for row in range(2)
        )
        assert (first != second).mean() > 0.02

    def test_what_is_wide_and_flat_fills_its_frame(self, tmp_path: Path) -> None:
        path = tmp_path / "airplane.png"
        done = run("view", EXAMPLES / "airplane.gltf", "--stages", "0,3", "--views", 2, "--png", path)
        assert done.returncode == 0, done.stderr
        drawn = np.asarray(Image.open(path).convert("RGB"))[58:].min(axis=2) < 240
        assert drawn.shape[0] < 0.8 * drawn.shape[1]
        rows, columns = (np.flatnonzero(drawn.any(axis=axis)) for axis in (1, 0))
        assert max(rows[0], columns[0], drawn.shape[0] - rows[-1], drawn.shape[1] - columns[-1]) < 60

    def test_a_turntable_turns(self, chair: Explanation, tmp_path: Path) -> None:
        path = tmp_path / "chair.gif"
        write_turntable(stage_rows([Panel(chair)], [2]), path, frames=4, size=160)
        frames = Image.open(path)
        assert frames.n_frames == 4  # type: ignore[attr-defined]
        assert len({frames.seek(k) or frames.convert("RGB").tobytes() for k in range(4)}) == 4

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


class TestPage:
    UNLIT = f"rgb({','.join(str(round(255 * c)) for c in UNLIT)})"

    @pytest.fixture
    def opened(self, browser) -> Iterator[Callable]:
        with watched_pages(browser, ("file:", "blob:", "data:"), patience=120) as open_page:
            yield lambda path, width=1000, height=760: open_page(path.as_uri(), width, height)

    @staticmethod
    def colours(page, trace: int = 0, panel: int = 0) -> list[str]:
        colours = page.evaluate(f"document.querySelector('#panel-{panel} .plot').data[{trace}].marker.color")
        return [colour.replace("#cccccc", "rgb(204,204,204)") for colour in colours]  # points on no list

    @staticmethod
    def slide(page, stage: int) -> None:
        page.evaluate(
            "n => { const s = document.getElementById('stage'); s.value = n; s.dispatchEvent(new Event('input')); }", stage
        )

    def test_the_slider_changes_the_colours(self, chair: Explanation, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "chair.html"
        chair.to_html(path)
        assert path.stat().st_size < 6e6
        page = opened(path)
        assert page.inner_text("h1") == Panel(chair).title
        panel = Panel(chair)
        for stage in (*range(1, panel.stages + 1), 1):
            self.slide(page, stage)
            colours = self.colours(page)
            expected = [f"rgb({r},{g},{b})" for r, g, b in (255 * panel.colours(stage)).round().astype(int)]
            assert colours == expected
            assert len(self.colours(page, 1)) == len(chair.stages[stage - 1].positions)
        self.slide(page, 0)
        assert len(set(self.colours(page))) > 100
        assert self.colours(page, 1) == []

    def test_a_click_lights_one_centroid_up_and_a_drag_does_not(
        self, chair: Explanation, tmp_path: Path, opened: Callable
    ) -> None:
        path = tmp_path / "chair.html"
        chair.to_html(path)
        page = opened(path)
        before = self.colours(page)
        box = page.locator("#panel-0 .plot").bounding_box()
        shot = tmp_path / "shot.png"

        def coloured_pixels() -> np.ndarray:
            page.screenshot(path=shot)
            values = np.asarray(Image.open(shot).convert("RGB")).astype(int)
            hued = values.max(axis=2) - values.min(axis=2) > 70
            hued[: int(box["y"]) + 20] = False
            # The middle of something at least nine pixels wide: a centroid.
            solid = hued.copy()
            for shift, axis in itertools.product(range(-4, 5), (0, 1)):
                solid &= np.roll(hued, shift, axis)
            return np.argwhere(solid)

        page.wait_for_timeout(1500)
        spots = coloured_pixels()
        y, x = (float(v) for v in spots[len(spots) // 2])
        page.mouse.move(x, y)
        page.wait_for_timeout(800)
        page.mouse.down()
        page.mouse.move(x + 60, y + 10, steps=4)
        page.mouse.up()
        page.wait_for_timeout(800)
        assert self.colours(page) == before, "a drag turns the shape, and picks nothing"

        spots = coloured_pixels()
        y, x = (float(v) for v in spots[len(spots) // 2])
        page.mouse.move(x, y)
        page.wait_for_timeout(800)
        page.mouse.down()
        page.wait_for_timeout(300)
        assert self.colours(page) == before, "nothing happens before the button is released"
        page.mouse.up()
        page.wait_for_function("document.getElementById('picked').value !== ''", timeout=10_000)
        picked = int(page.input_value("#picked"))
        assert self.colours(page) != before
        assert f"centroid {picked}:" in page.inner_text("#panel-0 .said")
        weights = np.rint(255 * chair.stages[-1].composed[:, picked])
        assert [colour == self.UNLIT for colour in self.colours(page)] == (weights == 0).tolist()

        page.select_option("#picked", "")
        assert self.colours(page) == before

    def test_it_fits_a_phone(self, chair: Explanation, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "two.html"
        write_page([Panel(chair, "one"), Panel(chair, "<b>two</b>")], path)
        page = opened(path, 390, 844)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        first, second = (page.locator(f"#panel-{k}").bounding_box() for k in range(2))
        assert second["y"] >= first["y"] + first["height"]
        assert page.inner_text("#panel-1 h1") == "<b>two</b>"

    def test_large_clouds_are_thinned_and_it_says_so(self, tmp_path: Path, opened: Callable) -> None:
        points = np.random.default_rng(0).normal(size=(100_000, 3))
        path = tmp_path / "large.html"
        pc.load("small", "cpu").explain(points, up="z").to_html(path)
        assert path.stat().st_size < 6e6
        page = opened(path)
        assert "10,000 of 100,000 points" in page.inner_text(".note")
        assert len(self.colours(page)) == MOST_POINTS

    def test_a_reconstruction_beside_its_original(self, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "made.html"
        done = run("view", EXAMPLES / "chair.off", "--weights", "autoencoder", "--points", 600, "--html", path)
        assert done.returncode == 0, done.stderr
        page = opened(path, 1300, 760)
        original, patches, made = panels(Reconstructor(device="cpu")(EXAMPLES / "chair.off", 600))
        assert [page.inner_text(f"#panel-{k} h1") for k in range(3)] == [original.title, "patches", made.title]
        self.slide(page, 2)
        for number, (panel, stage) in enumerate([(original, 2), (patches, 1)]):
            expected = [f"rgb({r},{g},{b})" for r, g, b in (255 * panel.colours(stage)).round().astype(int)]
            assert self.colours(page, panel=number) == expected, "a net with fewer stages stays at its last"
        assert len(set(self.colours(page, panel=1))) == 64
        assert len(self.colours(page, panel=2)) == 600
        assert len(set(self.colours(page, panel=2))) > 100, "coloured by height"
        page.select_option("#picked", "5")
        lit = np.array([colour != self.UNLIT for colour in self.colours(page, panel=1)])
        assert np.flatnonzero(lit).tolist() == list(range(5, 600, 64)), "a centroid and its patch"


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x900x24", "-nolisten", "tcp", "-noreset"]
    server = subprocess.Popen(command, pass_fds=[writer], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as said:
        yield f":{said.readline().strip()}"
    server.terminate()
    server.wait()


@pytest.mark.usefixtures("drawing")
class TestWindow:
    @pytest.fixture
    def window(self, screen: str, tmp_path: Path) -> Iterator[Callable]:
        """A running `pointcentroid view`, to send keys and clicks to and take screenshots of."""
        started: list[subprocess.Popen] = []
        environment = os.environ | {"DISPLAY": screen}

        def start(*arguments: object) -> subprocess.Popen:
            command = [sys.executable, "-m", "pointcentroid", *map(str, arguments)]
            started.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True))
            until(lambda: saturated(ImageGrab.grab(xdisplay=screen)) > 2000, "the window shows something", 90)
            return started[0]

        yield start
        for process in started:
            process.kill()
            process.wait()

    @staticmethod
    def do(screen: str, *arguments: object) -> None:
        subprocess.run(["xdotool", *map(str, arguments)], env=os.environ | {"DISPLAY": screen}, check=True)

    @staticmethod
    def place(screen: str) -> tuple[int, ...]:
        """Left, top, width and height of the window."""
        command = ["xdotool", "search", "--onlyvisible", "--name", "pointcentroid", "getwindowgeometry", "--shell"]
        said = subprocess.check_output(command, env=os.environ | {"DISPLAY": screen}, text=True)
        values = dict(line.split("=") for line in said.splitlines())
        return tuple(int(values[key]) for key in ("X", "Y", "WIDTH", "HEIGHT"))

    @staticmethod
    def look(screen: str) -> Image.Image:
        """What is on the screen, once it has stopped changing."""
        before, after = None, ImageGrab.grab(xdisplay=screen)
        for _ in range(40):
            time.sleep(0.4)
            before, after = after, ImageGrab.grab(xdisplay=screen)
            if before.tobytes() == after.tobytes():
                break
        return after

    def test_keys_slider_click_and_quit(self, chair: Explanation, window: Callable, screen: str, tmp_path: Path) -> None:
        process = window("view", EXAMPLES / "chair.off", EXAMPLES / "airplane.gltf")
        self.do(screen, "mousemove", 1270, 890)
        last = self.look(screen)
        left, top, width, height = self.place(screen)
        panel = left + width - 290

        def changed(what: str) -> None:
            nonlocal last
            before = last.tobytes()
            until(lambda: ImageGrab.grab(xdisplay=screen).tobytes() != before, what)
            last = self.look(screen)

        at_first = last
        scene = (left, top, panel, top + height)
        coloured = saturated(at_first.crop(scene))
        self.do(screen, "key", "1")
        changed("key 1 shows stage 1")
        self.do(screen, "key", "Right")
        changed("right goes on to stage 2")
        self.do(screen, "key", "a")
        changed("a shows the stage's own inputs")
        self.do(screen, "key", "a")
        changed("a goes back")
        self.do(screen, "key", "m")
        changed("m draws the mesh underneath")
        self.do(screen, "key", "m")
        changed("m takes it away")
        self.do(screen, "key", "t")
        changed("t shows a head")
        self.do(screen, "key", "1")
        changed("1 shows stage 1 again")
        self.do(screen, "key", str(len(chair.stages)))
        until(
            lambda: ImageGrab.grab(xdisplay=screen).crop(scene).tobytes() == at_first.crop(scene).tobytes(),
            "its number shows the last stage with all heads, as at the start",
        )
        last = self.look(screen)

        # A click on a centroid: the middle of the largest coloured spot.
        values = np.asarray(at_first.convert("RGB")).astype(int)
        hued = values.max(axis=2) - values.min(axis=2) > 60
        hued[:, panel:] = False
        solid = hued.copy()
        for shift, axis in itertools.product(range(-9, 10), (0, 1)):
            solid &= np.roll(hued, shift, axis)
        y, x = np.argwhere(solid)[0]
        self.do(screen, "mousemove", x, y, "sleep", 0.3, "mousedown", 1, "sleep", 0.1, "mouseup", 1)
        changed("a click lights a centroid up")
        assert saturated(last.crop(scene)) < 0.7 * coloured, "the other centroids go grey"
        self.do(screen, "mousemove", x, y, "sleep", 0.3, "mousedown", 1, "sleep", 0.1, "mouseup", 1)
        changed("a second click takes the light away")

        # A drag turns the shape and picks nothing.
        self.do(
            screen,
            "mousemove",
            left + 20,
            top + 20,
            "mousedown",
            1,
            "mousemove",
            left + 140,
            top + 40,
            "sleep",
            0.3,
            "mouseup",
            1,
        )
        changed("a drag turns")
        assert saturated(last.crop(scene)) > 0.7 * coloured

        # The slider of the side panel, found by its light handle at the right end: a press at the left end is stage 0.
        column = np.asarray(last.convert("L"))[:, left + width - 50]
        handle = int(np.flatnonzero((column > 150) & (np.arange(900) > top + 110))[5])
        self.do(screen, "mousemove", panel + 20, handle, "sleep", 0.3, "mousedown", 1, "sleep", 0.2, "mouseup", 1)
        changed("the slider moves")

        self.do(screen, "mousemove", left + 20, top + 20, "key", "s")
        until(lambda: (tmp_path / "pointcentroid-1.png").exists(), "s saves a picture")
        assert saturated(Image.open(tmp_path / "pointcentroid-1.png")) > 1000
        self.do(screen, "key", "n")
        changed("n shows the next file")
        self.do(screen, "key", "h")
        changed("h lists the keys")
        self.do(screen, "key", "q")
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()

    def test_a_reconstruction_beside_its_original(self, window: Callable, screen: str) -> None:
        process = window("view", EXAMPLES / "chair.off", "--weights", "autoencoder")
        self.do(screen, "mousemove", 1270, 890)
        first = self.look(screen)
        left, top, width, height = self.place(screen)
        scene = (left, top, left + width - 290, top + height)
        third = (scene[2] - scene[0]) // 3
        parts = [first.crop((scene[0] + third * k, scene[1], scene[0] + third * (k + 1), scene[3])) for k in range(3)]
        assert [hues(part) > 6 for part in parts] == [True, True, False], "clusters, patches, and a cloud by height"
        # A click anywhere, on the panel without stages too, does no harm.
        for x in (scene[0] + 60, (scene[0] + scene[2]) // 2, scene[2] - 90):
            y = top + height // 2
            self.do(screen, "mousemove", x, y, "sleep", 0.3, "mousedown", 1, "sleep", 0.1, "mouseup", 1, "sleep", 0.5)
        self.do(screen, "mousemove", left + 20, top + 20, "key", "0")
        until(lambda: hues(ImageGrab.grab(xdisplay=screen).crop(scene)) < 6, "0 shows clouds by height")
        self.do(screen, "key", "q")
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()

    def test_control_c_closes_it(self, window: Callable) -> None:
        process = window("view", EXAMPLES / "chair.off")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert (process.returncode, said.splitlines()[-1]) == (130, "stopped")

    def test_a_folder_with_a_broken_file_goes_on(self, window: Callable, screen: str, tmp_path: Path) -> None:
        folder = tmp_path / "shapes"
        folder.mkdir()
        shutil.copy(EXAMPLES / "chair.off", folder / "a.off")
        (folder / "b.off").write_text("OFF\n3 1\n0 0 0\n")
        shutil.copy(EXAMPLES / "lamp.glb", folder / "c.glb")
        process = window("view", folder)
        self.look(screen)
        left, top, width, height = self.place(screen)
        scene = (left, top, left + width - 290, top + height)
        self.do(screen, "mousemove", left + 100, top + 100, "key", "n")
        until(lambda: saturated(ImageGrab.grab(xdisplay=screen).crop(scene)) == 0, "a broken file shows nothing")
        self.do(screen, "key", "n")
        until(lambda: saturated(ImageGrab.grab(xdisplay=screen).crop(scene)) > 2000, "the next file is shown")
        self.do(screen, "key", "q")
        assert process.wait(timeout=20) == 0


def until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
        time.sleep(0.2)


@pytest.mark.usefixtures("drawing")
class TestCommands:
    def test_files_instead_of_a_window(self, tmp_path: Path) -> None:
        png, html, gif = (tmp_path / f"chair.{suffix}" for suffix in ("png", "html", "gif"))
        done = run("view", EXAMPLES / "chair.off", "--png", png, "--html", html, "--stages", "0,2", "--views", 2)
        assert (done.returncode, done.stdout.split()) == (0, [str(html), str(png)])
        image = Image.open(png)  # two stages, two views, trimmed alike: a chair is higher than wide
        assert image.width % 2 == image.height % 2 == 0
        assert 2 * 200 <= image.width < image.height - 58 <= 2 * 420
        done = run("view", EXAMPLES / "chair.off", "--gif", gif, "--stages", "2")
        assert (done.returncode, done.stdout.split()) == (0, [str(gif)])

    def test_without_a_screen_it_says_what_works_instead(self) -> None:
        environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
        done = run("view", EXAMPLES / "chair.off", env=environment)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "--html" in done.stderr
        done = run("view", EXAMPLES / "chair.off", env=environment | {"SSH_CONNECTION": "1 2 3 4"})
        assert "SSH" in done.stderr
        done = run("view", EXAMPLES / "chair.off", env=environment | {"DISPLAY": ":4711"})
        assert "does not answer" in done.stderr

    def test_without_a_driver_it_says_so(self, tmp_path: Path) -> None:
        environment = os.environ | {"VK_ICD_FILENAMES": "/nonexistent", "VK_DRIVER_FILES": "/nonexistent"}
        done = run("view", EXAMPLES / "chair.off", "--png", tmp_path / "x.png", env=environment)
        assert done.returncode == 2
        assert "Vulkan driver" in done.stderr
        assert "--html" in done.stderr

    @pytest.mark.parametrize("missing", ["open3d", "plotly"])
    def test_an_absent_extra_is_named(self, missing: str, tmp_path: Path) -> None:
        (tmp_path / "hide").mkdir()
        (tmp_path / "hide" / f"{missing}.py").write_text(f"raise ModuleNotFoundError('no', name='{missing}')")
        target = ["--png", tmp_path / "x.png"] if missing == "open3d" else ["--html", tmp_path / "x.html"]
        done = run("view", EXAMPLES / "chair.off", *target, env=os.environ | {"PYTHONPATH": str(tmp_path / "hide")})
        assert done.returncode == 2
        assert f"needs {missing}" in done.stderr
        assert "pip install 'pointcentroid[view]'" in done.stderr

    def test_compare_shows_two_nets(self, tmp_path: Path) -> None:
        png = tmp_path / "two.png"
        nets = ["--with", "small", "--with", "small,axis=centroids"]
        done = run("compare", EXAMPLES / "lamp.glb", *nets, "--png", png, "--stages", "2")
        assert done.returncode == 0
        image = Image.open(png).convert("RGB")
        half = image.height // 2
        top, bottom = (np.asarray(image.crop((0, k * half + 60, image.width, (k + 1) * half))) for k in range(2))
        assert (top != bottom).mean() > 0.005
        done = run("compare", EXAMPLES / "lamp.glb", "--with", "small", "--with", "small,axes=centroids", "--png", png)
        assert done.returncode == 2
        assert "did you mean 'axis'" in done.stderr
        assert run("compare", EXAMPLES / "lamp.glb", "--with", "small").returncode == 2
