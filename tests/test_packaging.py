"""What people install: weights and configurations are in the wheel; importing is cheap."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pointcentroid

from .conftest import ROOT


def test_the_wheel_holds_weights_and_configurations(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"pointcentroid/configs/{p.name}" for p in (ROOT / "configs").glob("*.yaml")}
    expected |= {f"pointcentroid/checkpoints/{p.name}" for p in (ROOT / "pointcentroid" / "checkpoints").iterdir()}
    assert len(expected) >= 4
    assert expected <= names
    assert not [name for name in names if name.startswith(("tests/", "tools/", "data/"))]


def test_what_would_be_published_is_sound(distributions: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *distributions.iterdir()], capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode()
    assert sorted(path.suffix for path in distributions.iterdir()) == [".gz", ".whl"]


def test_one_version_everywhere(distributions: Path) -> None:
    version = pointcentroid.__version__
    assert all(f"pointcentroid-{version}" in path.name for path in distributions.iterdir())
    assert (ROOT / "CHANGELOG.md").read_text().splitlines()[2].startswith(f"## {version}")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


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
        {"errors", "files", "interrupts", "results"},
        {"config"},
        {"io", "geometry"},
        {"nn"},
        {"models", "weights", "pyg", "viz"},
        {"predict"},
        {"data", "serve", "scale"},
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
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if names == ["pointcentroid"] and isinstance(node, ast.ImportFrom):
                names = [f"pointcentroid.{alias.name}" for alias in node.names]
            for name in names:
                top, _, rest = name.partition(".")
                if top == "pointcentroid" and rest:
                    imported = rest.split(".")[0]
                    assert imported == room or rank[imported] < rank[room], f"{file.name}: {name}"


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Not even in a function, or for its types alone."""
    files = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in (ROOT / "pointcentroid").rglob("*.py")
    }
    needs: dict[str, set[str]] = {}
    for module, file in files.items():
        found = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom) and node.module]
        named = {(node.module, f"{node.module}.{name.name}") for node in found for name in node.names}
        needs[module] = {within if within in files else home for home, within in named} & files.keys()
    order = list(graphlib.TopologicalSorter(needs).static_order())
    assert order.index("pointcentroid.errors") < order.index("pointcentroid.cli.app")


def test_what_the_documentation_imports_is_there() -> None:
    texts = [path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    found = [line for line in lines if re.match(r"(from pointcentroid[\w.]* import|import pointcentroid)\b", line)]
    assert len(found) > 5
    for line in found:
        exec(line, {})
