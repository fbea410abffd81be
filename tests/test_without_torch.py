"""The base install: the wheel, in an empty environment, outside the clone; it needs no torch."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .conftest import EXAMPLES

EXTRAS = {  # command -> the extra it must name
    "view chair.off --png x.png": "view",
    "compare chair.off --with small --with tiny": "view",
    "assignments chair.off": "torch",
    "reconstruct chair.off -o x": "torch",
    "evaluate small --data x.npz": "torch",
    "calibrate small --data x.npz --to y.safetensors": "torch",
    "train modelnet40-tiny data=x.npz": "train",
    "export small -o x.onnx": "export",
    "push small me/net": "hub",
    "classify chair.off --weights hf://me/net": "hub",
}


def run(command: Path, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([command, *map(str, words)], cwd=cwd, capture_output=True, text=True)


def test_it_has_no_torch_and_little_else(installed: Path) -> None:
    python = installed.with_name("python")
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], check=True, capture_output=True, text=True)
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert {"numpy", "onnxruntime", "pointcentroid"} <= names
    assert len(names) < 35


def test_it_classifies_every_example(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "classify", EXAMPLES, "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) >= 18
    assert [r.get("label") for r in rows] == [Path(r["file"]).stem.split("_")[0] for r in rows]


def test_it_embeds_and_lists_models(installed: Path, tmp_path: Path) -> None:
    assert run(installed, "embed", EXAMPLES / "chair.off", "-o", "f.npz", cwd=tmp_path).returncode == 0
    assert (tmp_path / "f.npz").is_file()
    done = run(installed, "models", "--format", "json", cwd=tmp_path)
    assert {json.loads(line)["name"] for line in done.stdout.splitlines()} >= {"small", "tiny", "autoencoder"}


@pytest.mark.parametrize(("command", "extra"), EXTRAS.items())
def test_what_needs_more_says_the_line_that_brings_it(installed: Path, tmp_path: Path, command: str, extra: str) -> None:
    words = [str(EXAMPLES / word) if word == "chair.off" else word for word in command.split()]
    done = run(installed, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert f"pip install 'pointcentroid[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
