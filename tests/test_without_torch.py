"""The base install: an environment that holds what `pip install pointcentroid` brings, and nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from .conftest import EXAMPLES, ROOT

EXTRAS = {  # command -> the extra it must name
    "view chair.off --png x.png": "view",
    "compare chair.off --with small --with tiny": "view",
    "assignments chair.off": "torch",
    "reconstruct chair.off -o x": "torch",
    "evaluate small --data x.npz": "torch",
    "calibrate small --data x.npz --to y.safetensors": "torch",
    "train modelnet40-tiny data=x.npz": "train",
    "export small -o x.onnx": "export",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links to the distributions that pointcentroid requires, and to those that they require."""
    folder, site = tmp_path_factory.mktemp("base"), Path(sysconfig.get_paths()["purelib"])
    waiting, seen = ["pointcentroid"], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        distribution = importlib.metadata.distribution(name)
        for requirement in distribution.requires or []:
            if "extra ==" not in requirement and not re.search(
                r"(sys_platform|platform_system) == .(win32|Windows)", requirement
            ):
                waiting.append(re.split(r"[^\w.-]", requirement)[0])
        for file in distribution.files or []:
            top = file.parts[0]
            if top != ".." and (site / top).exists() and not (folder / top).exists():
                (folder / top).symlink_to(site / top)
    for name in ("torch", "lightning", "open3d", "omegaconf"):
        (folder / name).unlink(missing_ok=True)
        assert name not in seen
    for editable in folder.glob("*pointcentroid*"):
        editable.unlink()
    return folder


def run(base: Path, *words: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # -S: no site-packages but those of the folder.
    command = [sys.executable, "-S", "-m", "pointcentroid", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(base), str(ROOT)])}
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True)


def test_it_has_no_torch(base: Path) -> None:
    done = subprocess.run([sys.executable, "-S", "-c", "import torch"], env={"PYTHONPATH": str(base)}, capture_output=True)
    assert done.returncode


def test_it_classifies_every_example(base: Path) -> None:
    done = run(base, "classify", EXAMPLES, "--format", "json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) >= 18
    assert {Path(r["file"]).name: r.get("label") for r in rows} == {
        Path(r["file"]).name: Path(r["file"]).stem.split("_")[0] for r in rows
    }


def test_it_embeds_and_lists_models(base: Path, tmp_path: Path) -> None:
    assert run(base, "embed", EXAMPLES / "chair.off", "-o", tmp_path / "f.npz").returncode == 0
    assert (tmp_path / "f.npz").is_file()
    done = run(base, "models", "--format", "json")
    assert {json.loads(line)["name"] for line in done.stdout.splitlines()} >= {"small", "tiny", "autoencoder"}


@pytest.mark.parametrize(("command", "extra"), EXTRAS.items())
def test_what_needs_more_says_the_line_that_brings_it(base: Path, tmp_path: Path, command: str, extra: str) -> None:
    words = [str(EXAMPLES / word) if word == "chair.off" else word for word in command.split()]
    done = run(base, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert f"pip install 'pointcentroid[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
