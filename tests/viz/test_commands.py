"""The commands that show something."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pointcentroid as pc
from pointcentroid.viz.page import write_page
from pointcentroid.viz.panel import Panel

from ..conftest import EXAMPLES
from ..test_cli import COMMAND, run, unboxed


@pytest.mark.usefixtures("drawing")
class TestCommands:
    def test_files_instead_of_a_window(self, tmp_path: Path) -> None:
        png, html, gif = (tmp_path / f"chair.{suffix}" for suffix in ("png", "html", "gif"))
        done = run("view", EXAMPLES / "chair.off", "--png", png, "--html", html, "--stages", "0,2", "--views", 2)
        assert (done.returncode, done.stdout.split()) == (0, [str(html), str(png)])
        image = Image.open(png)  # two stages, two views, trimmed alike: a chair is higher than wide
        assert image.width % 2 == 0
        assert 2 * 200 <= image.width < image.height - 58 <= 2 * 420
        done = run("view", EXAMPLES / "chair.off", "--gif", gif, "--stages", "2")
        assert (done.returncode, done.stdout.split()) == (0, [str(gif)])

    @pytest.mark.skipif(os.name != "posix", reason="pseudo terminals")
    def test_a_person_who_watches_sees_how_much_is_drawn(self, tmp_path: Path) -> None:
        import pty

        ours, theirs = pty.openpty()
        outputs = ["--png", tmp_path / "x.png", "--views", "8", "--gif", tmp_path / "x.gif", "--stages", "2"]
        command = [*COMMAND, "view", EXAMPLES / "chair.off", *outputs]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        told = b""
        with contextlib.suppress(OSError):  # the end
            while more := os.read(ours, 1 << 16):
                told += more
        os.close(ours)
        assert process.wait() == 0
        assert b"drawing" in told
        assert b"8/8" in told
        assert b"36/36" in told

    @pytest.mark.parametrize(
        ("given", "absent"),
        [
            (["--html", "x.html", "--views", 2], "--png"),
            (["--gif", "x.gif", "--views", 2], "--png"),
            (["--html", "x.html", "--stages", "2"], "--gif"),
            (["--mesh"], "--gif"),
            (["--png", "x.png", "--names", EXAMPLES / "lamp.glb"], "--html"),
            (["--html", "x.html", "--points", 77], "weights that reconstruct"),
            (["--png", "x.png", "--html", "x.html", "--stages", "9"], "stage"),
            ([EXAMPLES, "--weights", "autoencoder", "--html", "x.html"], "can show 12 shapes"),
            ([*sorted(EXAMPLES.glob("*.*"))[:5], "--weights", "autoencoder", "--html", "x.html"], "4 reconstructions"),
        ],
    )
    def test_what_only_a_picture_has_wants_one(self, tmp_path: Path, given: list[str], absent: str) -> None:
        files = [] if "autoencoder" in given else [EXAMPLES / "chair.off"]
        done = run("view", *files, *given, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert absent in unboxed(done.stderr)
        assert not list(tmp_path.iterdir())

    def test_a_folder_in_one_picture_and_one_page(self, variants: Path, tmp_path: Path) -> None:
        folder, png, html = tmp_path / "chairs", tmp_path / "chairs.png", tmp_path / "chairs.html"
        shutil.copytree(variants / "chair", folder)
        (folder / "chair_000b.off").write_text("OFF\n3 1\n0 0 0\n")
        example = variants / "chair" / "chair_000.glb"
        done = run("view", folder, "--png", png, "--html", html, "--stages", "2", "--names", example)
        assert (done.returncode, done.stdout.split()) == (1, [str(html), str(png)])
        assert "chair_000b.off" in done.stderr
        assert "1 of 5 could not be read" in done.stderr
        wide, *_ = one = Image.open(png).size
        assert one[1] > 4 * 200 > wide, "a row for each that can be read"
        page = html.read_text()
        assert all(f"chair_00{k}.glb: chair" in page for k in range(4))
        assert str(tmp_path) not in page.split("</title>")[0], "a title is a name, not a path"

        done = run("view", folder, "--html", html, "--names", EXAMPLES / "chair.off")
        assert done.returncode == 2
        assert "has no parts to lend names from" in done.stderr
        for number in range(9):
            shutil.copy(EXAMPLES / "chair.off", folder / f"{number}.off")
        done = run("view", folder, "--png", png)
        assert done.returncode == 2
        assert "can show 12 shapes, found 14" in unboxed(done.stderr)

    def test_where_nothing_can_be_read_every_file_is_named(self, tmp_path: Path) -> None:
        bad = [tmp_path / f"{number}.off" for number in range(3)]
        for path in bad:
            path.write_text("OFF\n3 1\n")
        done = run("view", *bad, "--png", tmp_path / "a.png")
        assert done.returncode == 2
        assert [line.count(str(path)) for line, path in zip(done.stderr.splitlines(), bad, strict=True)] == [1, 1, 1]
        assert done.stderr.count("error: ") == 1

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

    @pytest.mark.parametrize("library", ["open3d", "trimesh"])
    def test_ctrl_c_while_a_library_loads_arrives(self, library: str, tmp_path: Path) -> None:
        """Trimesh swallows whatever is raised while it looks for other libraries; of open3d, half would be loaded."""
        (tmp_path / "spy").mkdir()
        (tmp_path / "spy" / "sitecustomize.py").write_text(
            "import builtins, os, signal\n"
            "whole = builtins.__import__\n"
            "def spied(name, *arguments, **more):\n"
            "    by = arguments[0].get('__name__', '') if arguments and arguments[0] else ''\n"
            f"    if name == 'numpy' and by.startswith('{library}.'):\n"
            "        builtins.__import__ = whole\n"
            "        try:\n"
            "            os.kill(os.getpid(), signal.SIGINT)\n"
            "        except BaseException:\n"
            "            pass  # as trimesh does\n"
            "    return whole(name, *arguments, **more)\n"
            "builtins.__import__ = spied\n"
        )
        png = tmp_path / "x.png"
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "spy")}
        done = run("view", EXAMPLES / "chair.off", "--png", png, env=environment)
        assert (done.returncode, done.stderr.split()) == (130, ["stopped"])
        assert not png.exists()

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
        nets = ["--with", "small", "--with", "small,initialiser=random"]
        done = run("compare", EXAMPLES / "lamp.glb", *nets, "--png", png, "--stages", "2")
        assert done.returncode == 0
        image = Image.open(png).convert("RGB")
        half = image.height // 2
        page, matched, alone = (tmp_path / f"{name}.html" for name in ("page", "matched", "alone"))
        assert run("compare", EXAMPLES / "lamp.glb", *nets, "--html", page).returncode == 0
        found = [
            pc.load("small", "cpu", **change).explain(EXAMPLES / "lamp.glb") for change in ({}, {"initialiser": "random"})
        ]
        titles = [
            f"{net}: {seen.prediction.label} {seen.prediction.confidence:.0%}"
            for net, seen in zip(nets[1::2], found, strict=True)
        ]
        for path in (matched, alone):
            first, second = map(Panel, found, titles)
            second.like = first if path == matched else None
            write_page([first, second], path)
        assert page.read_text() == matched.read_text() != alone.read_text(), "the same part has the same colour"
        top, bottom = (np.asarray(image.crop((0, k * half + 60, image.width, (k + 1) * half))) for k in range(2))
        assert (top != bottom).mean() > 0.005
        done = run("compare", EXAMPLES / "lamp.glb", "--with", "small", "--with", "small,axes=centroids", "--png", png)
        assert done.returncode == 2
        assert "did you mean 'axis'" in done.stderr
        assert run("compare", EXAMPLES / "lamp.glb", "--with", "small").returncode == 2
        done = run("compare", EXAMPLES / "lamp.glb", "--with", "small", "--with", "small,device=cpu", "--png", png)
        assert done.returncode == 2
        assert "device is no setting" in done.stderr
