"""The shipped examples are what the script makes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh

import pointcentroid as pc
from pointcentroid.data.clouds import load_npz
from pointcentroid.geometry.axes import TO_Z_UP
from pointcentroid.io import read

from .conftest import EXAMPLES, ROOT
from .data.prepared import balls, save_npz


def test_the_script_makes_the_shipped_examples(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "make_examples.py", tmp_path], check=True, capture_output=True)
    made = {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()}
    assert made == {p.relative_to(EXAMPLES) for p in EXAMPLES.rglob("*") if p.is_file()}
    for name in made:
        a, b = read(tmp_path / name), read(EXAMPLES / name)
        np.testing.assert_allclose(a.vertices, b.vertices, atol=1e-5)
        assert (a.faces is None) == (b.faces is None)
        assert (EXAMPLES / name).stat().st_size < 100_000


def test_the_ablation_has_a_row_for_every_variant(tmp_path: Path) -> None:
    rows = [
        {"variant": "softmax over inputs", "seed": seed, "overall": overall, "mean_class": 0.5}
        for seed, overall in enumerate((0.6, 0.7))
    ]
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = [sys.executable, ROOT / "tools" / "ablate.py", "--table", "-o", tmp_path]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    assert cells[2][:4] == ["softmax over inputs", "65.0 ± 7.1", "50.0 ± 0.0", "2"]
    assert len(cells) > 12
    for variant, overall, *_, flops, speed in cells[2:]:
        assert overall in ("65.0 ± 7.1", "not trained"), variant
        assert float(flops) > 1
        assert float(speed) > 0


def test_the_benchmark_measures_what_it_says(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "tools" / "bench.py", "--quick", "--json", tmp_path / "bench.json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows = json.loads((tmp_path / "bench.json").read_text())["results"]
    assert all(row["value"] > 0 and row["measure"] in done.stdout for row in rows)
    assert {row["unit"] for row in rows} == {"s", "x", "files/s", "MiB", "M", "MFLOP", "clouds/s", "ms"}


def test_the_pyg_example_trains_and_asks_for_shapes_to_validate_on(tmp_path: Path) -> None:
    def example(shapes: int) -> subprocess.CompletedProcess[str]:
        data = save_npz(tmp_path / "few.npz", balls(shapes, 70), np.arange(shapes) % 2, ["a", "b"])
        command = [sys.executable, ROOT / "examples" / "pyg_pooling.py", data, "--epochs", "1"]
        return subprocess.run(command, capture_output=True, text=True)

    done = example(20)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"epoch 1  validation (0|50|100)\.0%  \d+ s\n", done.stdout)
    refused = example(6)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "found 6 shapes to train on and 0 to validate on" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.fixture
def furniture(tmp_path: Path) -> Path:
    """A folder with a library: a chair, y up, the same that the catalogue calls a table, a ring, and a name that means
    nothing."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    chair = read(EXAMPLES / "chair.off")
    ring = trimesh.creation.torus(1.0, 0.1)
    meshes = {
        "Chair": trimesh.Trimesh(chair.vertices @ TO_Z_UP["y"], chair.faces),
        "Coffee table": trimesh.Trimesh(chair.vertices @ TO_Z_UP["y"], chair.faces),
        "Teapot": ring,
        "Thing": ring,
    }
    with zipfile.ZipFile(folder / "few.sh3f", "w") as library:
        catalogue = ["name=Catalogue"]
        for number, (name, mesh) in enumerate(meshes.items(), 1):
            catalogue += [f"name#{number}={name}", f"model#{number}=/models/{number}.obj"]
            library.writestr(f"models/{number}.obj", mesh.export(file_type="obj"))
        library.writestr("PluginFurnitureCatalog.properties", "\n".join(catalogue))
    return folder


def test_furniture_is_measured_by_its_catalogue(furniture: Path) -> None:
    command = [sys.executable, ROOT / "tools" / "furniture.py", furniture, "small", "--wrong"]
    wide = os.environ | {"COLUMNS": "200"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=wide).stdout.splitlines()
    assert done[0].startswith("2.obj (Coffee table): chair")
    assert done[0].endswith("y up; is table")
    rows = {line.split()[1]: line for line in done[2:]}
    assert "50.0% of 2" in rows["auto"]
    assert rows["y"].split()[-5:] == ["1.000", "0%", "100%", "of", "1"]


def test_furniture_can_be_trained_on(furniture: Path, tmp_path: Path) -> None:
    before = save_npz(tmp_path / "few.npz", balls(20, 1024), np.arange(20) % 2, ["chair", "table"])
    command = [sys.executable, ROOT / "tools" / "furniture_npz.py", furniture, before, "-o", tmp_path / "both.npz"]
    done = subprocess.run([*command, "--copies", "2"], check=True, capture_output=True, text=True)
    assert done.stdout == "6 clouds of 3 things added, 1 of these of no class\n"
    few, both = load_npz(before), load_npz(tmp_path / "both.npz")
    assert both.classes == ("chair", "table", "none")
    assert both.subset(np.arange(20, 26)).normalised
    assert np.array_equal(both.points[:20], few.points)
    assert np.array_equal(both.part("validation"), few.part("validation"))
    assert both.labels[20:].tolist() == [0, 1, 2] * 2
    assert not np.array_equal(both.points[20], both.points[23]), "another sampling"
    chair = pc.load("small", "cpu")(both.points[20], up="z")
    assert (chair.label, chair.known > 0.5) == ("chair", True)
