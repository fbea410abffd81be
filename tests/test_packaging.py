"""What people install: weights and configurations are in the wheel; importing is cheap."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .conftest import ROOT


def test_the_wheel_holds_weights_and_configurations(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"pointcentroid/configs/{p.name}" for p in (ROOT / "configs").glob("*.yaml")}
    expected |= {
        f"pointcentroid/checkpoints/{p.name}" for p in (ROOT / "pointcentroid" / "checkpoints").glob("*.safetensors")
    }
    assert len(expected) >= 4
    assert expected <= names
    assert not [name for name in names if name.startswith(("tests/", "tools/", "data/"))]


HEAVY = ["torch", "lightning", "torch_geometric", "open3d", "omegaconf", "trimesh", "scipy", "matplotlib"]


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import pointcentroid", [*HEAVY, "numpy", "rich"]),
        ("import pointcentroid.config", [*HEAVY, "numpy"]),
        ("import pointcentroid.io, pointcentroid.predict.preparing", [*HEAVY, "onnxruntime"]),
        ("import pointcentroid.cli.app", HEAVY),
        (
            "import numpy, pointcentroid as pc; pc.load('small')(numpy.ones((50, 3)).cumsum(0) % 7)",
            [h for h in HEAVY if h != "trimesh"],
        ),
    ],
)
def test_imports_bring_no_more_than_they_need(statement: str, absent: list[str]) -> None:
    code = f"{statement}; import sys; print([m for m in {absent} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_no_room_imports_a_later_one() -> None:
    """The arrows of docs/how-it-works.md."""
    order = [
        {"errors", "files", "results"},
        {"config"},
        {"io", "geometry"},
        {"nn"},
        {"models", "weights", "pyg", "viz"},
        {"predict"},
        {"data"},
        {"evaluate"},
        {"train", "export"},
        {"cli"},
    ]
    rank = {room: number for number, rooms in enumerate(order) for room in rooms}
    package = ROOT / "pointcentroid"
    for file in package.rglob("*.py"):
        room = file.relative_to(package).parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue
        for line in file.read_text().splitlines():
            if line.strip().startswith("from pointcentroid."):
                imported = line.split()[1].split(".")[1]
                assert imported == room or rank[imported] < rank[room], f"{file.name}: {line.strip()}"
