"""Pages, looked at in a browser."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pointcentroid as pc
from pointcentroid.predict.explain import Explanation
from pointcentroid.predict.reconstruct import Reconstructor, panels
from pointcentroid.viz.page import MOST_POINTS, write_page
from pointcentroid.viz.palette import UNLIT
from pointcentroid.viz.panel import NO_CENTROID, ClassColours, Panel

from ..conftest import EXAMPLES, watched_pages
from ..test_cli import run
from .looking import clustered


def rgb(colour: np.ndarray) -> str:
    """A colour as a browser gives it."""
    return f"rgb({', '.join(map(str, (255 * colour).round().astype(int)))})"


def packed(page: Path) -> dict[str, Any]:
    """The data in a page."""
    found = re.search(r'id="data"[^>]*>([^<]+)<', page.read_text(encoding="utf-8"))
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


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
            hard = chair.stages[stage - 1].hard
            assert len(self.colours(page, 1)) == len(np.unique(hard[hard != NO_CENTROID]))
        self.slide(page, 0)
        assert len(set(self.colours(page))) > 100
        assert self.colours(page, 1) == []

    def test_one_centroid_is_counted_as_one(self, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "one.html"
        write_page([Panel(clustered(np.random.default_rng(0).normal(size=(10, 3)), np.zeros(10, int), 1))], path)
        page = opened(path)
        assert page.inner_text("#stage-name") == "1: 1 centroid"

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

    @staticmethod
    def points(page, trace: int = 0, panel: int = 0) -> np.ndarray:
        drawn = page.evaluate(f"(({{x, y, z}}) => [x, y, z])(document.querySelector('#panel-{panel} .plot').data[{trace}])")
        return np.array(drawn).T.reshape(-1, 3)

    def test_the_list_names_counts_hides_and_isolates(self, chair: Explanation, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "chair.html"
        names = [f"part <i>{number}" for number in range(len(chair.stages[-1].positions))]
        panel = Panel(chair, names=names)
        write_page([panel], path)
        page, lines = opened(path, 1200, 800), panel.listed(panel.stages)
        shown = page.eval_on_selector_all(
            "#panel-0 li",
            """lines => lines.map(line => [line.querySelector(".light span").textContent,
                line.querySelector("small").textContent, getComputedStyle(line.querySelector("i")).backgroundColor])""",
        )
        assert shown == [
            [
                line.name,
                line.told_share.replace("%", " %"),
                rgb(line.colour),
            ]
            for line in lines
        ]
        one, two = lines[0], lines[1]

        def assert_seen(hidden: list[int]) -> None:
            """Points, their colours, and centroids are those that `drawn` gives: the page computes them by itself."""
            expected = panel.drawn(panel.stages, hidden=hidden)
            assert self.points(page) == pytest.approx(expected.points, abs=1e-6)
            assert self.colours(page) == [rgb(colour).replace(" ", "") for colour in expected.colours]
            assert self.points(page, 1) == pytest.approx(expected.balls, abs=1e-6)

        assert_seen([])
        page.get_by_role("checkbox", name=f"show {one.name}", exact=True).uncheck()
        assert_seen([one.number])
        page.get_by_role("button", name=f"isolate {two.name}", exact=True).click()
        alone = [line.number for line in lines if line is not two]
        assert_seen(alone)
        assert page.get_by_role("checkbox", checked=True).all_text_contents() == [""], "one is left, and nothing else is on"
        page.get_by_role("button", name=f"isolate {two.name}", exact=True).click()
        assert_seen([])
        page.get_by_role("checkbox", name=f"show {two.name}", exact=True).uncheck()
        page.get_by_role("button", name="show all").click()
        assert_seen([])
        page.get_by_role("checkbox", name=f"show {two.name}", exact=True).uncheck()
        self.slide(page, 1)
        assert len(self.colours(page)) == 1024, "another stage shows all"
        assert page.locator("#panel-0 li").count() == len(panel.listed(1))

    def test_by_keyboard(self, chair: Explanation, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "chair.html"
        chair.to_html(path)
        page, panel = opened(path), Panel(chair)
        lines = panel.listed(3)
        for key, apart in (("e", 1.0), ("e", 0.0)):  # before anything has the focus
            page.keyboard.press(key)
            assert self.points(page) == pytest.approx(panel.drawn(3, apart=apart).points, abs=1e-5)
        page.get_by_role("checkbox", name=f"show {lines[0].name}", exact=True).focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Space")
        assert len(self.points(page)) == 1024 - lines[1].size, "the line below, hidden by the check box"
        page.keyboard.press("x")
        assert len(self.points(page)) == 1024
        page.keyboard.press("i")
        assert len(self.points(page)) == lines[1].size
        page.keyboard.press("v")
        page.keyboard.press("e")
        moved = panel.drawn(3, apart=1.0)
        assert self.points(page) == pytest.approx(moved.points, abs=1e-5), "apart, as Python has it"
        assert self.points(page, 1) == pytest.approx(moved.balls, abs=1e-5)
        page.get_by_role("slider", name="explode").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.getElementById('apart').value === '1.05'")
        page.wait_for_timeout(300)
        assert self.points(page) == pytest.approx(panel.drawn(3, apart=1.05).points, abs=1e-5)
        page.keyboard.press("Home")
        page.wait_for_timeout(300)
        assert self.points(page) == pytest.approx(panel.drawn(3).points, abs=1e-6)

        page.locator("#panel-0 .plot").focus()
        before = page.evaluate("document.querySelector('.plot').layout.scene.camera.eye")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("+")
        after = page.evaluate("document.querySelector('.plot').layout.scene.camera.eye")
        turned = np.arctan2(after["y"], after["x"]) - np.arctan2(before["y"], before["x"])
        assert turned == pytest.approx(0.15, abs=1e-6)
        assert np.linalg.norm(list(after.values())) == pytest.approx(0.85 * np.linalg.norm(list(before.values())))
        page.locator("#panel-0 li .light").first.focus()
        page.keyboard.press("Enter")
        assert page.input_value("#picked") == str(lines[0].number)
        assert page.inner_text("#panel-0 [role=status]").startswith(f"{lines[0].name}: {lines[0].size} of 1024")
        assert page.evaluate("document.querySelector('.plot').layout.scene.camera.eye") == after, "the view stays"

    def test_the_same_part_of_two_files_acts_together(self, chairs: list, tmp_path: Path, opened: Callable) -> None:
        path, colours = tmp_path / "two.html", ClassColours()
        one, two = (colours.lend(Panel(seen, title)) for (seen, _), title in zip(chairs, ("one", "two"), strict=False))
        write_page([one, two], path)
        page = opened(path, 1200, 800)
        for number, panel in enumerate((one, two)):
            expected = [rgb(colour).replace(" ", "") for colour in panel.colours(3)]
            assert self.colours(page, panel=number) == expected
        mine, other = one.listed(3), {part: number for number, part in enumerate(two.parts)}
        line = next(line for line in mine if other.get(line.number) in {x.number for x in two.listed(3)})
        page.locator("#panel-0").get_by_role("button", name=f"isolate {line.name}", exact=True).click()
        theirs = int((two.hard(3) == other[line.number]).sum())
        assert [len(self.points(page, panel=k)) for k in range(2)] == [line.size, theirs]
        assert {*self.colours(page)} == {*self.colours(page, panel=1)} == {rgb(line.colour).replace(" ", "")}

    def test_grey_points_are_explained_and_can_be_hidden(self, tmp_path: Path, opened: Callable) -> None:
        points, hard = np.random.default_rng(0).normal(size=(300, 3)), np.random.default_rng(1).integers(-1, 4, 300)
        path = tmp_path / "some.html"
        write_page([Panel(clustered(points, hard, 6))], path)
        page = opened(path)
        assert page.locator("#panel-0 li").count() == 5
        assert page.locator("#panel-0 li").last.inner_text().startswith("to no centroid")
        assert self.colours(page).count("rgb(204,204,204)") == (hard < 0).sum()
        page.get_by_role("checkbox", name="show to no centroid").uncheck()
        assert len(self.points(page)) == (hard >= 0).sum()

    def test_it_can_be_used_at_420_pixels(self, chair: Explanation, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "chair.html"
        chair.to_html(path)
        page = opened(path, 420, 860)
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        plot = page.locator("#panel-0 .plot").bounding_box()
        for control in page.locator(
            "#panel-0 li input, #panel-0 li button, header input, header select, header button"
        ).all():
            control.scroll_into_view_if_needed()
            box = control.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 420
        for line in page.locator("#panel-0 li").all():
            line.scroll_into_view_if_needed()
            assert line.bounding_box()["height"] >= 28, "what a finger meets"
        assert plot["width"] > 380
        lines = Panel(chair).listed(3)
        page.locator("#panel-0 li .only").nth(1).click()
        assert len(self.points(page)) == lines[1].size

    def test_it_fits_a_phone(self, chair: Explanation, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "two.html"
        write_page([Panel(chair, "one"), Panel(chair, "<b>two</b>")], path)
        page = opened(path, 390, 844)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        first, second = (page.locator(f"#panel-{k}").bounding_box() for k in range(2))
        assert second["y"] >= first["y"] + first["height"]
        assert page.inner_text("#panel-1 h1") == "<b>two</b>"

    def test_panels_side_by_side_are_seen_from_as_far(self, chair: Explanation, tmp_path: Path, opened: Callable) -> None:
        write_page([Panel(chair, name) for name in ("one", "two", "three")], tmp_path / "three.html")
        page = opened(tmp_path / "three.html", 1300, 1500)
        boxes = [page.locator(f"#panel-{k} .plot").bounding_box() for k in range(3)]
        assert [box["width"] for box in boxes] == pytest.approx([boxes[0]["width"]] * 3, abs=1)
        eyes = [page.evaluate(f"document.querySelector('#panel-{k} .plot').layout.scene.camera.eye") for k in range(3)]
        assert [eye["x"] for eye in eyes] == pytest.approx([eyes[0]["x"]] * 3, rel=0.01)

    def test_large_clouds_are_thinned_and_it_says_so(self, tmp_path: Path, opened: Callable) -> None:
        points = np.random.default_rng(0).normal(size=(100_000, 3))
        path = tmp_path / "large.html"
        pc.load("small", "cpu").explain(points, up="z").to_html(path)
        assert path.stat().st_size < 6e6
        page = opened(path)
        assert "10,000 of 100,000 points" in page.inner_text(".note")
        assert len(self.colours(page)) == MOST_POINTS
        panel = Panel(pc.load("small", "cpu").explain(points, up="z")).at_most(MOST_POINTS)
        for number, stage in enumerate(packed(path)["panels"][0]["stages"], 1):
            expected = panel.weights(number).sum(axis=0, dtype=np.float64)
            assert stage["composed"]["mass"] == pytest.approx(expected, abs=0.006), "of the points that are drawn"

    @pytest.mark.parametrize("name", ["{{PLOTLY}} {{DATA}}.off", os.fsdecode(b"caf\xe9.off"), "two\nlines.off"])
    def test_files_may_be_called_anything(self, name: str, tmp_path: Path, opened: Callable) -> None:
        shutil.copy(EXAMPLES / "chair.off", tmp_path / name)
        done = run("view", tmp_path / name, "--html", tmp_path / "x.html", "--png", tmp_path / "x.png")
        assert done.returncode == 0, done.stderr
        title = " ".join(name.split()).encode("utf-8", "replace").decode()
        assert opened(tmp_path / "x.html").title().startswith(title)

    def test_a_large_reconstruction_is_thinned_too(self, tmp_path: Path, opened: Callable) -> None:
        patches = panels(Reconstructor(device="cpu")(EXAMPLES / "chair.off", 70_000))[1]
        write_page([patches], tmp_path / "large.html")
        page = opened(tmp_path / "large.html")
        assert "10,000 of 70,000 points" in page.inner_text(".note")
        self.slide(page, 1)
        drawn = patches.at_most(MOST_POINTS)
        assert (len(drawn.cloud), drawn.nearest.max() > 65_535) == (MOST_POINTS, True)
        expected = [f"rgb({r},{g},{b})" for r, g, b in (255 * drawn.colours(1)).round().astype(int)]
        assert self.colours(page) == expected

    def test_a_reconstruction_beside_its_original(self, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "made.html"
        done = run("view", EXAMPLES / "chair.off", "--weights", "autoencoder", "--points", 600, "--html", path)
        assert done.returncode == 0, done.stderr
        page = opened(path, 1300, 760)
        original, patches, made = panels(Reconstructor(device="cpu")(EXAMPLES / "chair.off", 600))
        patches.like = original
        assert [page.inner_text(f"#panel-{k} h1") for k in range(3)] == [original.title, "patches", made.title]
        assert np.array_equal(patches.centroids(1)[1], original.centroids(2)[1]), "a centroid and its patch have one colour"
        self.slide(page, 2)
        for number, (panel, stage) in enumerate([(original, 2), (patches, 1)]):
            expected = [f"rgb({r},{g},{b})" for r, g, b in (255 * panel.colours(stage)).round().astype(int)]
            assert self.colours(page, panel=number) == expected, "a net with fewer stages stays at its last"
        assert len(set(self.colours(page, panel=1))) == 64
        assert len(self.colours(page, panel=2)) == 600
        assert len(set(self.colours(page, panel=2))) > 100, "coloured by height"
        page.select_option("#picked", "5")
        lit = np.array([colour != self.UNLIT for colour in self.colours(page, panel=1)])
        assert np.flatnonzero(lit).tolist() == list(range(5, 600, 64)), "a patch"
        assert self.colours(page, 1, 0).count("#d2d2d6") == len(original.drawn(2).balls) - 1, "and its centroid"
