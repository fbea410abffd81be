"""Windows, looked at and used as a person would: through pixels, clicks and keys."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageGrab

from pointcentroid.predict.explain import Explanation
from pointcentroid.viz.panel import NO_CENTROID, Panel

from ..conftest import EXAMPLES, until
from .looking import hues, saturated


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
            until(lambda: saturated(ImageGrab.grab(xdisplay=screen)) > 2000, "the window shows something", 180)
            return started[0]

        yield start
        for process in started:
            process.kill()
            process.wait()

    @staticmethod
    def do(screen: str, *arguments: object) -> None:
        subprocess.run(["xdotool", *map(str, arguments)], env=os.environ | {"DISPLAY": screen}, check=True)

    def quit(self, screen: str, process: subprocess.Popen) -> None:
        self.do(screen, "key", "q")
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()

    @staticmethod
    def place(screen: str) -> tuple[int, ...]:
        """Left, top, width and height of the window."""
        command = ["xdotool", "search", "--onlyvisible", "--name", "pointcentroid", "getwindowgeometry", "--shell"]
        said = subprocess.check_output(command, env=os.environ | {"DISPLAY": screen}, text=True)
        values = dict(line.split("=") for line in said.splitlines())
        return tuple(int(values[key]) for key in ("X", "Y", "WIDTH", "HEIGHT"))

    @classmethod
    def scene(cls, screen: str) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the scene, which is white; dark columns are to the right of it."""
        left, top, width, height = cls.place(screen)
        row = np.asarray(ImageGrab.grab(xdisplay=screen).convert("L"))[top + 3, left : left + width]
        return left, top, left + int(np.argmax(row < 100)), top + height

    @classmethod
    def listed(cls, screen: str) -> list[tuple[int, int]]:
        """Where the swatches of the list of centroids are, from top to bottom: 30 pixels left of their check boxes."""
        _, top, right, bottom = cls.scene(screen)
        column = np.asarray(ImageGrab.grab(xdisplay=screen).convert("RGB")).astype(int)[top + 90 : bottom, right + 25]
        coloured = np.flatnonzero(column.max(axis=1) - column.min(axis=1) > 40)
        runs = np.split(coloured, np.flatnonzero(np.diff(coloured) > 1) + 1)
        return [(right + 25, top + 90 + int(run.mean())) for run in runs if len(run) > 10]

    @classmethod
    def act(cls, screen: str, *action: object, until_seen: Callable[[], bool], what: str) -> None:
        """Do it, and again where the scene stays as it was: a window that draws slowly loses a key or a click."""
        scene = cls.scene(screen)
        for _ in range(3):
            as_it_was = ImageGrab.grab(xdisplay=screen).crop(scene).tobytes()
            cls.do(screen, *action)
            with contextlib.suppress(AssertionError):
                until(until_seen, what, 20)
                return
            if ImageGrab.grab(xdisplay=screen).crop(scene).tobytes() != as_it_was:
                break
        until(until_seen, what, 60)

    @staticmethod
    def clicking(x: int, y: int) -> tuple[object, ...]:
        return ("mousemove", x, y, "sleep", 1, "mousedown", 1, "sleep", 0.7, "mouseup", 1)

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
        process = window("view", EXAMPLES / "chair.off", EXAMPLES / "airplane.gltf", "--weights", "small")
        self.do(screen, "mousemove", 1270, 890)
        last = self.look(screen)
        left, top, width, _ = self.place(screen)
        scene = self.scene(screen)
        panel = scene[2]

        def changes(*action: object, what: str) -> None:
            nonlocal last
            before = last.tobytes()
            self.act(screen, *action, until_seen=lambda: ImageGrab.grab(xdisplay=screen).tobytes() != before, what=what)
            last = self.look(screen)

        at_first = last
        coloured = saturated(at_first.crop(scene))
        changes("key", "1", what="key 1 shows stage 1")
        changes("key", "Right", what="right goes on to stage 2")
        changes("key", "a", what="a shows the stage's own inputs")
        changes("key", "a", what="a goes back")
        changes("key", "m", what="m draws the mesh underneath")
        changes("key", "m", what="m takes it away")
        self.act(
            screen,
            "key",
            len(chair.stages),
            until_seen=lambda: ImageGrab.grab(xdisplay=screen).crop(scene).tobytes() == at_first.crop(scene).tobytes(),
            what="its number shows the last stage with all heads, as at the start",
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
        changes(*self.clicking(x, y), what="a click lights a centroid up")
        assert saturated(last.crop(scene)) < 0.7 * coloured, "the other centroids go grey"
        changes(*self.clicking(x, y), what="a second click takes the light away")

        # A drag turns the shape and picks nothing.
        changes(
            "mousemove", left + 20, top + 20, "sleep", 0.3, "mousedown", 1, "sleep", 0.3,
            "mousemove", left + 80, top + 30, "sleep", 0.3, "mousemove", left + 140, top + 40, "sleep", 0.3, "mouseup", 1,
            what="a drag turns",
        )  # fmt: skip
        assert saturated(last.crop(scene)) > 0.7 * coloured

        # The slider of the side panel, found by its light handle at the right end: a press at the left end is stage 0.
        column = np.asarray(last.convert("L"))[:, left + width - 50]
        handle = int(np.flatnonzero((column > 150) & (np.arange(900) > top + 110))[5])
        press = ("mousemove", left + width - 270, handle, "sleep", 0.3, "mousedown", 1, "sleep", 0.2, "mouseup", 1)
        changes(*press, what="the slider moves")

        self.do(screen, "mousemove", left + 20, top + 20, "sleep", 0.5)
        self.act(screen, "key", "s", until_seen=(tmp_path / "pointcentroid-1.png").exists, what="s saves a picture")
        assert saturated(Image.open(tmp_path / "pointcentroid-1.png")) > 1000
        changes("key", "n", what="n shows the next file")
        changes("key", "h", what="h lists the keys")
        listed = np.asarray(last.convert("L"))[top + 14 : top + 300, left + width - 291 : left + width - 20] > 130
        blank = ~listed[:, :100].any(axis=0)
        assert max(len(list(run)) for white, run in itertools.groupby(blank[10:]) if white) > 4, "in two columns"
        assert listed[:, 100:].any()
        self.quit(screen, process)

    def test_heads_are_shown_one_by_one(self, window: Callable, screen: str) -> None:
        process = window("view", EXAMPLES / "chair.off", "--weights", "autoencoder")
        self.do(screen, "mousemove", 1270, 890)
        at_first = self.look(screen).crop(self.scene(screen))

        def differs(before: bytes) -> bool:
            return ImageGrab.grab(xdisplay=screen).tobytes() != before

        for key, what in (("t", "t shows the first head"), ("t", "t shows the second head"), ("1", "1 shows stage 1")):
            self.act(screen, "key", key, until_seen=partial(differs, self.look(screen).tobytes()), what=what)
        self.act(
            screen,
            "key",
            "2",
            until_seen=lambda: ImageGrab.grab(xdisplay=screen).crop(self.scene(screen)).tobytes() == at_first.tobytes(),
            what="its number shows the last stage with all heads, as at the start",
        )
        self.do(screen, "key", "q")
        assert process.wait(30) == 0

    def test_the_list_hides_isolates_and_moves_apart(self, chair: Explanation, window: Callable, screen: str) -> None:
        process = window("view", EXAMPLES / "chair.off", "--weights", "small")
        self.do(screen, "mousemove", 1270, 890)
        self.look(screen)
        left, top, right, bottom = self.scene(screen)
        lines = [line for line in Panel(chair).listed(len(chair.stages)) if line.number != NO_CENTROID]
        swatches = self.listed(screen)
        assert len(swatches) == len(lines)

        def seen() -> np.ndarray:
            return np.asarray(ImageGrab.grab(xdisplay=screen).convert("RGB")).astype(int)

        def scene_now() -> np.ndarray:
            return seen()[top:bottom, left:right]

        first, second = lines[0].colour, lines[1].colour

        def drawn() -> list[int]:
            """Pixels of the scene with a hue of the first two colours, light or dark."""
            pixels = scene_now().reshape(-1, 3)
            tint = pixels / np.linalg.norm(pixels, axis=1, keepdims=True).clip(1)
            return [int((tint @ (colour / np.linalg.norm(colour)) > 0.999).sum()) for colour in (first, second)]

        for (x, y), line in zip(swatches, lines, strict=True):
            assert seen()[y, x] == pytest.approx(255 * line.colour, abs=6), "the list has the colours of the scene"
        (x, y), (_, below) = swatches[:2]
        before, at_first = drawn(), scene_now()
        assert min(before) > 200

        act = partial(self.act, screen)

        def shows(one: float, other: float) -> Callable[[], bool]:
            """More than so much of the first two centroids is seen as at first; of 0, they are gone."""
            return lambda: all(
                count > least * whole if least else count < 0.1 * whole
                for count, whole, least in zip(drawn(), before, (one, other), strict=True)
            )

        def lit(number: int) -> Callable[[], bool]:
            """All that is coloured has the hue of this one of the two, pale where little of a point is its."""

            def look() -> bool:
                pixels, colour = scene_now().reshape(-1, 3), (first, second)[number]
                chroma, own = pixels - pixels.mean(axis=1, keepdims=True), colour - colour.mean()
                size = np.linalg.norm(chroma, axis=1)
                of_it = chroma @ (own / np.linalg.norm(own)) > 0.993 * size
                coloured = size > 30
                seen_so = coloured.sum() > 0.15 * before[number] and bool(of_it[coloured].all())
                return seen_so and drawn()[number] > 0.05 * before[number] and gone(1 - number)

            return look

        def gone(number: int) -> bool:
            return drawn()[number] < 0.1 * before[number]

        def is_back() -> bool:
            return bool((scene_now() == at_first).all())

        def is_alone() -> bool:
            return saturated(Image.fromarray(scene_now().astype(np.uint8))) < 2 * before[1]

        def is_apart() -> bool:
            return bool((np.abs(scene_now() - at_first).max(axis=2) > 30).mean() > 0.02)

        act(*self.clicking(x + 30, y), until_seen=shows(0, 0.9), what="a check box hides")
        act(*self.clicking(x + 30, y), until_seen=is_back, what="and shows")
        act(*self.clicking(x + 200, below), until_seen=shows(0, 0.9), what="only the second")
        until(is_alone, "nothing else", 60)
        act(*self.clicking(x + 200, below), until_seen=is_back, what="all")
        act(*self.clicking(x, y), until_seen=lit(0), what="a swatch lights up")
        self.do(screen, "mousemove", left + 5, top + 5, "sleep", 0.5)
        act("key", "x", until_seen=shows(0, 0.9), what="x hides what is lit up")
        act("key", "v", until_seen=is_back, what="v shows all")
        act("key", "Down", until_seen=lit(0), what="down lights the first up")
        act("key", "Down", until_seen=lit(1), what="and the second")
        act("key", "i", until_seen=is_alone, what="i isolates it")
        until(shows(0, 0.9), "in its colour", 60)
        act("key", "i", until_seen=is_back, what="i shows all again")
        act("key", "e", until_seen=is_apart, what="e moves centroids apart")
        act("key", "e", until_seen=is_back, what="and together")
        slider = top + 52
        act(
            "mousemove", right + 20, slider, "sleep", 0.5, "mousedown", 1, "sleep", 0.5,
            "mousemove", right + 150, slider, "sleep", 0.5, "mousemove", right + 260, slider, "sleep", 0.5, "mouseup", 1,
            until_seen=is_apart, what="the slider does it, too",
        )  # fmt: skip
        self.look(screen)  # until the last of the drag is drawn
        self.do(screen, "mousemove", left + 5, top + 5, "sleep", 0.5)
        with contextlib.suppress(AssertionError):  # a step of the drag may come after the key, and move them apart again
            act("key", "e", until_seen=is_back, what="and e takes it back")
        if not is_back():
            act("key", "e", until_seen=is_back, what="and e takes it back")
        self.quit(screen, process)

    def test_a_reconstruction_beside_its_original(self, window: Callable, screen: str) -> None:
        process = window("view", EXAMPLES / "chair.off", "--weights", "autoencoder")
        self.do(screen, "mousemove", 1270, 890)
        first = self.look(screen)
        scene = left, top, _, bottom = self.scene(screen)
        third = (scene[2] - scene[0]) // 3
        parts = [first.crop((scene[0] + third * k, scene[1], scene[0] + third * (k + 1), scene[3])) for k in range(3)]
        assert [hues(part) > 6 for part in parts] == [True, True, False], "clusters, patches, and a cloud by height"
        # A click anywhere, on the panel without stages too, does no harm.
        for x in (scene[0] + 60, (scene[0] + scene[2]) // 2, scene[2] - 90):
            y = (top + bottom) // 2
            self.do(screen, "mousemove", x, y, "sleep", 0.3, "mousedown", 1, "sleep", 0.1, "mouseup", 1, "sleep", 0.5)
        self.do(screen, "mousemove", left + 20, top + 20, "sleep", 0.5)
        self.act(
            screen,
            "key",
            "0",
            until_seen=lambda: hues(ImageGrab.grab(xdisplay=screen).crop(scene)) < 6,
            what="0 shows clouds by height",
        )
        self.quit(screen, process)

    def test_control_c_closes_it(self, window: Callable) -> None:
        process = window("view", EXAMPLES / "chair.off", "--weights", "small")
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
        scene = left, top, *_ = self.scene(screen)
        self.do(screen, "mousemove", left + 100, top + 100, "sleep", 0.5)
        self.act(
            screen,
            "key",
            "n",
            until_seen=lambda: saturated(ImageGrab.grab(xdisplay=screen).crop(scene)) == 0,
            what="a broken file shows nothing",
        )
        assert self.listed(screen) == []
        self.act(
            screen,
            "key",
            "n",
            until_seen=lambda: saturated(ImageGrab.grab(xdisplay=screen).crop(scene)) > 2000,
            what="the next file is shown",
        )
        self.do(screen, "key", "q")
        _, said = process.communicate(timeout=20)
        assert process.returncode == 1
        assert "b.off" in said
        assert "1 of 3 could not be read" in said
