"""Shared fixtures. Tests on real files are skipped, by name, where those files are absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    # As many tests at once as there are cores: each, and each command that it starts, gets one.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "data" / "examples"
SHARED = ROOT.parent / "shared" / "data"
CHROMIUM = Path("/usr/bin/chromium")

settings.register_profile("suite", deadline=None, max_examples=30)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def real_meshes() -> Path:
    """The folder of real mesh files."""
    folder = SHARED / "meshes"
    if not folder.is_dir():
        pytest.skip(f"the real mesh files are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def modelnet() -> Path:
    """The real ModelNet40 training split."""
    file = SHARED / "modelnet40" / "train.npz"
    if not file.is_file():
        pytest.skip(f"the ModelNet40 training split is not at {file}")
    return file


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, built once for all test processes."""

    def build(folder: Path) -> None:
        command = [sys.executable, "-m", "build", "--installer", "pip", "--outdir", folder, ROOT]
        subprocess.run(command, check=True, capture_output=True)

    return _made_once(tmp_path_factory, "distributions", build)


@pytest.fixture(scope="session")
def installed(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `pointcentroid`, installed from the wheel into an empty environment."""

    def install(folder: Path) -> None:
        (wheel,) = distributions.glob("*.whl")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
        subprocess.run([*pip, wheel], check=True, capture_output=True)

    return _made_once(tmp_path_factory, "installed", install) / "bin" / "pointcentroid"


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the whole run, made by the first process that wants it; the others wait."""
    shared = factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    folder, done, failed = shared / name, shared / f"{name}.done", shared / f"{name}.failed"
    try:
        (shared / f"{name}.begun").mkdir()
    except FileExistsError:
        while not done.exists():
            assert not failed.exists(), f"{name} could not be made, see the other failures"
            time.sleep(0.2)
        return folder
    try:
        make(folder)
    except BaseException:
        failed.touch()
        raise
    done.touch()
    return folder


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    """A small OFF file: a cube of six quads."""
    path = tmp_path / "cube.off"
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    quads = ["0 1 3 2", "4 6 7 5", "0 4 5 1", "2 3 7 6", "0 2 6 4", "1 5 7 3"]
    lines = ["OFF", "8 6 12", *(" ".join(map(str, c)) for c in corners), *(f"4 {q}" for q in quads)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def sphere() -> trimesh.Trimesh:
    """One of radius 1, of 320 triangles."""
    return trimesh.creation.icosphere(subdivisions=2)


@pytest.fixture
def leaning_chair(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A file of a chair that leans, and the (3, 3) rotation that it was turned by."""
    from pointcentroid import read

    chair = read(EXAMPLES / "chair.off")
    rotation = trimesh.transformations.euler_matrix(0.6, 0.7, 0.0)[:3, :3]
    trimesh.Trimesh(chair.vertices @ rotation.T, chair.faces, process=False).export(tmp_path / "leans.off")
    return tmp_path / "leans.off", rotation


@pytest.fixture
def points() -> np.ndarray:
    """(500, 3) points, with the size and place of something real."""
    return np.random.default_rng(0).normal(size=(500, 3)) * (1.0, 2.0, 3.0) + (10.0, -5.0, 100.0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser that draws in software, and reaches what the machine reaches."""
    from playwright.sync_api import sync_playwright

    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--enable-unsafe-swiftshader", "--disable-background-networking"],
        )
        yield chromium
        chromium.close()


@contextmanager
def watched_pages(browser: Any, own: tuple[str, ...], patience: float) -> Iterator[Callable[[str, int, int], Any]]:
    """What opens pages: (address, width, height) -> page. No page may complain, or ask for anything from elsewhere.

    Args:
        browser: the fixture.
        own: how addresses begin that a page may ask for.
        patience: seconds until a page must be ready.
    """
    pages: list[Any] = []
    complaints: list[str] = []

    def open_page(address: str, width: int, height: int) -> Any:
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(own) else complaints.append(request.url))
        page.goto(address)
        page.wait_for_selector("body[data-ready=yes]", timeout=1000 * patience)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []


def until(condition: Callable[[], bool], what: str = "", seconds: float = 20) -> None:
    """Wait for something to become true.

    Args:
        condition: asked again and again.
        what: it is, for the error.
        seconds: to wait at most.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
        time.sleep(0.02)


def pytest_configure() -> None:
    """A shell's background commands ignore Ctrl-C, and their children inherit that; tests of it need it to arrive."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """With POINTCENTROID_NO_SKIPS=1, a skipped test fails the run: everything it needs was said to be there."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("POINTCENTROID_NO_SKIPS") == "1" and reporter and reporter.stats.get("skipped") and not exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
