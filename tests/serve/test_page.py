"""The page, in a browser."""

from __future__ import annotations

import gzip
import io
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pointcentroid as pc
from pointcentroid.serve.pages import examples

from ..conftest import EXAMPLES, until, watched_pages
from ..meshes import direction
from .client import CHAIR, Server


def test_the_script_of_pages_is_packed_once(monkeypatch) -> None:
    from pointcentroid.viz import page

    page._plotly.cache_clear()
    packed = []
    compress = gzip.compress
    monkeypatch.setattr(
        gzip, "compress", lambda data, *rest, **more: packed.append(len(data)) or compress(data, *rest, **more)
    )
    assert page.page_text([]) == page.page_text([])
    assert [size > 10**6 for size in packed] == [True, False, False]


class TestPage:
    @pytest.fixture
    def opened(self, browser, server: Server) -> Iterator[Callable]:
        address = f"http://127.0.0.1:{server.port}/"
        with watched_pages(browser, (address, "blob:", "data:"), patience=60) as open_page:
            yield lambda width=1100, height=900: open_page(address, width, height)

    @staticmethod
    def drop(page, name: str, content: bytes) -> None:
        """What a browser does when a file is dropped on the field."""
        page.evaluate(
            """([name, bytes]) => {
                const dropped = new DataTransfer();
                dropped.items.add(new File([new Uint8Array(bytes)], name));
                for (const kind of ["dragover", "drop"])
                    document.getElementById("drop").dispatchEvent(
                        new DragEvent(kind, { dataTransfer: dropped, bubbles: true, cancelable: true }));
            }""",
            [name, list(content)],
        )

    def test_a_dropped_mesh_is_named_and_its_cloud_turns_and_answers_clicks(
        self, opened: Callable, confidence: float
    ) -> None:
        page = opened()
        self.drop(page, "chair <i>1.off", CHAIR)
        page.wait_for_selector("article .label", timeout=60_000)
        assert page.inner_text("article .label") == "chair"
        assert page.inner_text("article h2") == "chair <i>1.off"
        assert page.inner_text("#said") == f"chair <i>1.off: chair, {100 * confidence:.0f} %"
        frame = page.frame(name="cloud")
        frame.wait_for_selector("body[data-ready=yes]", timeout=120_000)
        assert frame.inner_text("h1") == f"chair <i>1.off: chair {confidence:.0%}"
        assert frame.evaluate("self.origin") == "null", "the frame is of no origin, and reaches neither page nor server"

        def colours() -> list[str]:
            return frame.evaluate("document.querySelector('#panel-0 .plot').data[0].marker.color")

        assert len(colours()) == 1024
        used = set(pc.load("parts").explain(EXAMPLES / "chair.off").stages[-1].hard.tolist())
        assert len(set(colours())) == len(used) > 4, "a colour for every centroid that takes most of a point"
        before = colours()
        frame.locator(".plot").scroll_into_view_if_needed()
        page.wait_for_timeout(1500)
        box = frame.locator(".plot").bounding_box()

        def spot() -> tuple[float, float, np.ndarray]:
            """The middle of something at least nine pixels wide in the plot: a centroid."""
            image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            values = np.asarray(image).astype(int)
            hued = values.max(axis=2) - values.min(axis=2) > 70
            inside = np.zeros_like(hued)
            x, y = int(box["x"]), int(box["y"])
            inside[y + 5 : y + int(box["height"]) - 5, x + 5 : x + int(box["width"]) - 5] = True
            solid = hued & inside
            for shift, axis in itertools.product(range(-4, 5), (0, 1)):
                solid &= np.roll(hued & inside, shift, axis)
            spots = np.argwhere(solid)
            row, column = spots[len(spots) // 2]
            return float(column), float(row), values

        x, y, still = spot()
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 80, y + 10, steps=4)
        page.mouse.up()
        page.wait_for_timeout(800)
        x, y, turned = spot()
        assert (np.abs(turned - still).max(axis=2) > 40).mean() > 0.01, "a drag turns the cloud"
        assert colours() == before

        def clicked() -> bool:
            """Without a graphics card, it takes a moment until the plot knows what is under the pointer."""
            page.mouse.move(x, y)
            page.mouse.move(x + 1, y)
            until(lambda: frame.locator(".hovertext").count() > 0)
            page.mouse.down()
            page.wait_for_timeout(400)
            page.mouse.up()
            page.wait_for_timeout(1000)
            return frame.input_value("#picked") != ""

        until(clicked, seconds=40)
        assert colours() != before, "a click lights one centroid up"

    def test_a_broken_file_shows_its_reason(self, opened: Callable, server: Server) -> None:
        page = opened()
        bad = b"OFF\n8 6 12\n0 0 zero\n"
        self.drop(page, "bad.off", bad)
        page.wait_for_selector("article .problem", timeout=60_000)
        assert page.inner_text("article .problem") == server.classify(("bad.off", bad)).json[0]["error"]
        assert page.inner_text("#said") == "bad.off could not be classified"
        assert page.query_selector("iframe") is None
        page.set_input_files("#files", [EXAMPLES / "chair.off", EXAMPLES / "lamp.glb"])
        until(lambda: page.locator("article .label").count() == 2, seconds=60)
        assert page.locator("article .label").all_inner_texts() == ["chair", "lamp"]
        assert page.inner_text("#said") == "2 of 2 classified"

    def test_the_cloud_of_a_shape_that_leans_is_shown(
        self, opened: Callable, leaning_chair: tuple[Path, np.ndarray]
    ) -> None:
        path, rotation = leaning_chair
        page = opened()
        self.drop(page, "leans.off", path.read_bytes())
        page.wait_for_selector("article .label", timeout=60_000)
        assert page.inner_text("article .label") == "chair"
        up = re.search(r"up: ([-0-9.,]+), 1024 points", page.inner_text("article"))[1]
        np.testing.assert_allclose(direction(up), rotation[:, 2], atol=0.03)
        page.frame(name="cloud").wait_for_selector("body[data-ready=yes]", timeout=120_000)
        assert page.frame(name="cloud").inner_text("h1") == page.inner_text("#said").replace(
            ": chair, ", ": chair "
        ).replace(" %", "%")

    def test_by_keyboard_at_420_pixels(self, opened: Callable) -> None:
        page = opened(420, 860)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "files"
        names = [button.get_attribute("aria-label") for button in page.query_selector_all("#examples button")]
        assert names == [f"Try the example {name}" for name in examples()]
        for _ in range(2):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == names[0]
        page.keyboard.press("Enter")
        page.wait_for_selector("article .label", timeout=60_000)
        assert page.inner_text("article .label") == "chair"
        assert page.get_attribute("#said", "aria-live") == "polite"
        frame = page.frame(name="cloud")
        frame.wait_for_selector("body[data-ready=yes]", timeout=120_000)
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert frame.evaluate("document.querySelector('.said').getBoundingClientRect().bottom <= innerHeight")
        controls = page.query_selector_all("input, select, button, iframe")
        named = "e => (e.labels?.length && e.labels[0].innerText.trim()) || e.ariaLabel || e.title || e.innerText"
        assert all(control.evaluate(named) for control in controls)
