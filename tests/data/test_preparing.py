"""Data sets are prepared once, and go on where they stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

import pointcentroid as pc
from pointcentroid.config import PreprocessConfig
from pointcentroid.data.cache import open_cache, prepare_cache
from pointcentroid.data.layouts import find_shapes
from pointcentroid.data.sources import open_data
from pointcentroid.errors import DataError
from pointcentroid.files import locked
from pointcentroid.geometry.axes import TO_Z_UP
from pointcentroid.geometry.fps import farthest_point_sampling
from pointcentroid.geometry.sampling import preprocess

from ..test_cli import EXAMPLES, run
from .prepared import SETTINGS, prepare, write_off, zipped


def test_the_tree_of_modelnet_as_folder_and_as_zip(tree: Path, tmp_path: Path) -> None:
    report = prepare(tree, tmp_path / "a")
    assert report["shapes"] == 15
    assert report["classes"] == ["slab", "tower"]
    assert report["split"] == {"test": 4, "train": 11}
    assert list(report["quarantined"]) == ["slab/train/slab_0003.off"]
    assert "line" in report["quarantined"]["slab/train/slab_0003.off"]
    assert not (tmp_path / "a" / "parts").exists()

    folder = open_cache(tmp_path / "a", SETTINGS)
    prepare(zipped(tree, tmp_path / "raw.zip"), tmp_path / "b", "--workers", 2)
    archive = open_cache(tmp_path / "b", SETTINGS)
    assert folder.points.tobytes() == archive.points.tobytes()
    assert (folder.labels.tolist(), folder.split) == (archive.labels.tolist(), archive.split)
    assert isinstance(folder.points, np.memmap)

    # The same clouds, up to the order of their points, that a prediction from the file sees.
    for row in (0, 9):
        mesh = pc.read(tree / folder.names[row])
        expected = torch.from_numpy(preprocess(mesh.vertices, mesh.faces, 64, 0))
        order = farthest_point_sampling(expected[None], 64)[0]
        assert torch.equal(torch.from_numpy(np.array(folder.points[row])), expected[order])


def test_preparing_again_goes_on_where_it_stopped(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointcentroid.data.cache._PART", 4)
    catalogue = find_shapes(tree)
    whole = prepare_cache(catalogue, tmp_path / "whole", SETTINGS, workers=0)
    seen = 0

    class StopError(Exception):
        pass

    def stop_at_ten(items, _total):
        nonlocal seen
        for item in items:
            seen += 1
            if seen == 10:
                raise StopError
            yield item

    with pytest.raises(StopError):
        prepare_cache(catalogue, tmp_path / "cut", SETTINGS, workers=0, watch=stop_at_ten)
    with pytest.raises(DataError, match="interrupted; run the same"):
        open_cache(tmp_path / "cut", SETTINGS)
    kept = sorted(path.name for path in (tmp_path / "cut" / "parts").glob("*.npz"))
    assert kept == ["00000.npz", "00001.npz"]
    with pytest.raises(DataError, match="the beginning of another"):
        prepare_cache(catalogue, tmp_path / "cut", PreprocessConfig(sample=32, points=32), workers=0)

    made: list[Path] = []
    save = "pointcentroid.data.cache._save_part"
    original = __import__("pointcentroid.data.cache", fromlist=["_save_part"])._save_part
    monkeypatch.setattr(save, lambda path, *rest: (made.append(path), original(path, *rest))[1])
    shutil.copytree(tmp_path / "cut", tmp_path / "damaged")
    again = prepare_cache(catalogue, tmp_path / "cut", SETTINGS, workers=0)
    assert [path.name for path in made] == ["00002.npz", "00003.npz"], "finished parts are not made again"
    assert (again.shapes, again.quarantined) == (whole.shapes, whole.quarantined)
    assert (tmp_path / "cut" / "points.npy").read_bytes() == (tmp_path / "whole" / "points.npy").read_bytes()

    for number, content in enumerate((b"", bytes(range(256)) * 40)):  # what a power cut may leave
        (tmp_path / "damaged" / "parts" / f"{number:05d}.npz").write_bytes(content)
    made.clear()
    prepare_cache(catalogue, tmp_path / "damaged", SETTINGS, workers=0)
    assert len(made) == 4
    assert (tmp_path / "damaged" / "points.npy").read_bytes() == (tmp_path / "whole" / "points.npy").read_bytes()


@pytest.mark.parametrize("name", ["shapes.npz", "shapes.yaml"])
def test_a_folder_may_be_called_like_a_file(name: str, tmp_path: Path) -> None:
    for number in range(8):
        write_off(tmp_path / name / "ab"[number % 2] / f"{number}.off", 1 + number)
    assert open_data(tmp_path / name, SETTINGS).classes == ("a", "b")
    done = run("train", tmp_path / name, f"output={tmp_path / 'runs'}", "epochs=1")
    assert "too few shapes to set some aside" in done.stderr, "it was opened"


def test_one_command_at_a_time_prepares_a_folder(tree: Path, tmp_path: Path) -> None:
    catalogue, refused = find_shapes(tree), 0

    def meanwhile(items, _total):
        nonlocal refused
        for number, item in enumerate(items):
            if number == 3:
                with pytest.raises(DataError, match="another command is preparing"):
                    prepare_cache(catalogue, tmp_path / "new" / "a", SETTINGS, workers=0)
                refused += 1
            yield item

    one = prepare_cache(catalogue, tmp_path / "new" / "a", SETTINGS, workers=0, watch=meanwhile)
    assert refused == 1
    assert prepare_cache(catalogue, tmp_path / "new" / "a", SETTINGS, workers=0) == one
    (tmp_path / "mine").mkdir()
    for folder in (tmp_path / "mine", tmp_path / "made"):
        taken = DataError("taken")
        with locked(folder, taken), pytest.raises(DataError, match="taken"), locked(folder, taken):
            pass
        with locked(folder, taken):  # it is free again
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "new"], "a folder that was there stays"


def test_what_was_prepared_otherwise_is_an_error_that_names_the_fix(tree: Path, tmp_path: Path) -> None:
    prepare(tree, tmp_path / "a")
    prepare(tree, tmp_path / "a")  # the same again: nothing to do
    done = run("data", "prepare", tree, "--to", tmp_path / "a", "--points", 32)
    assert done.returncode == 2
    assert "prepared otherwise" in done.stderr
    with pytest.raises(DataError, match=r"'sample': 64.*needs.*'sample': 128.*--points 128"):
        open_cache(tmp_path / "a", PreprocessConfig(sample=128, points=64))
    meta = json.loads((tmp_path / "a" / "meta.json").read_text())
    (tmp_path / "a" / "meta.json").write_text(json.dumps(meta | {"version": 0}))
    with pytest.raises(DataError, match="another version"):
        open_cache(tmp_path / "a", SETTINGS)
    for text in (
        "{",
        json.dumps({key: meta[key] for key in meta if key != "fingerprint"}),
        json.dumps(meta | {"shapes": "x"}),
    ):
        (tmp_path / "a" / "meta.json").write_text(text)
        with pytest.raises(DataError, match="damaged"):
            open_cache(tmp_path / "a", SETTINGS)
    (tmp_path / "a" / "meta.json").write_text(json.dumps(meta))
    index = dict(np.load(tmp_path / "a" / "index.npz"))
    for labels in (index["labels"] + 7, index["labels"] - 1, index["labels"] + 0.5):
        np.savez(tmp_path / "a" / "index.npz", **(index | {"labels": labels}))
        with pytest.raises(DataError, match="labels that are of no class"):
            open_cache(tmp_path / "a", SETTINGS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    done = run("data", "prepare", tree, "--to", tmp_path / "full")
    assert done.returncode == 2
    assert "not empty" in done.stderr


def test_a_folder_may_hold_a_meta_json_of_its_own(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "mine")
    (tmp_path / "mine" / "meta.json").write_text('{"author": "me"}')
    os.mkfifo(tmp_path / "mine" / "tower" / "pipe.off")
    clouds, reference = open_data(tmp_path / "mine", SETTINGS), open_data(tree, SETTINGS)
    assert clouds.points.tobytes() == reference.points.tobytes()
    assert clouds.left_out == reference.left_out


def test_a_shape_that_changed_at_the_same_size_is_another_data_set(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "raw")
    before = find_shapes(tmp_path / "raw").fingerprint
    assert before == find_shapes(tree).fingerprint  # wherever it lies
    path = tmp_path / "raw" / "tower" / "test" / "tower_0006.off"
    text = path.read_text()
    path.write_text(text[:-2] + {"0": "1"}.get(text[-2], "0") + "\n")
    assert find_shapes(tmp_path / "raw").fingerprint != before


def test_a_folder_and_an_archive_of_it_are_one_data_set(tree: Path, tmp_path: Path) -> None:
    assert find_shapes(tree).fingerprint == find_shapes(zipped(tree, tmp_path / "a.zip")).fingerprint


def test_shapes_that_a_person_turned_are_another_data_set(tree: Path, tmp_path: Path) -> None:
    for up in ("standard", "y", "x"):
        prepare(tree, tmp_path / up, "--up", up)
    found = {open_cache(tmp_path / up, SETTINGS).fingerprint for up in ("standard", "y", "x")}
    assert len(found) == 3
    assert find_shapes(tree).fingerprint in found


def test_the_axis_may_be_found_for_each_file(tmp_path: Path) -> None:
    """Files that lie in three ways, some against their standard, give the clouds that they give upright, z up."""
    for number, name in enumerate(["chair.off", "table.obj", "bottle.stl", "vase.ply", "cup.3mf", "lamp.glb"] * 3):
        shape = pc.read(EXAMPLES / name)
        upright = shape.vertices @ TO_Z_UP["y" if name == "lamp.glb" else "z"].T
        lies = "zyx"[number // 6]
        for folder, axis, suffix in (("all", lies, "glb" if number % 2 else "obj"), ("upright", "z", "off")):
            path = tmp_path / folder / name.partition(".")[0] / f"{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            trimesh.Trimesh(upright @ TO_Z_UP[axis], shape.faces, process=False).export(path)
    prepare(tmp_path / "all", tmp_path / "found", "--points", 1024, "--up", "auto")
    prepare(tmp_path / "upright", tmp_path / "z", "--points", 1024)
    found, expected = (open_cache(tmp_path / name, PreprocessConfig()) for name in ("found", "z"))
    assert len(found) == len(expected) == 18
    for one, other in zip(found.points, expected.points, strict=True):
        first, second = (np.array(sorted(cloud.tolist())) for cloud in (one, other))
        np.testing.assert_allclose(first.mean(axis=0), second.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(np.sort(one[:, 2]), np.sort(other[:, 2]), atol=0.02)
    again = open_data(tmp_path / "all", PreprocessConfig(), up="auto")
    assert again.fingerprint == found.fingerprint != open_data(tmp_path / "all", PreprocessConfig()).fingerprint
    assert again.points.tobytes() == found.points.tobytes()


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_what_ctrl_c_leaves_of_a_preparation_says_how_to_go_on(tmp_path: Path) -> None:
    clouds = np.random.default_rng(0).normal(size=(300, 500, 3))
    for number, cloud in enumerate(clouds):
        path = tmp_path / "own" / "ab"[number % 2] / f"{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, cloud)
    small_parts = "import pointcentroid.data.cache as c; c._PART = 2; from pointcentroid.__main__ import main; main()"
    arguments = ["data", "prepare", str(tmp_path / "own"), "--to", str(tmp_path / "cut"), "--workers", "0"]
    command = [sys.executable, "-c", small_parts, *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr
    while not list((tmp_path / "cut").glob("parts/*.npz")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    assert process.wait(timeout=20) in (130, -signal.SIGINT)
    assert f"what is finished is kept; to go on: pointcentroid {' '.join(arguments)}\n" in said
    done = subprocess.run(command, capture_output=True, text=True)  # as it says, with parts as large
    assert done.returncode == 0, done.stderr
    whole = open_data(tmp_path / "own", PreprocessConfig())
    assert open_cache(tmp_path / "cut", PreprocessConfig()).points.tobytes() == whole.points.tobytes()


def test_what_needs_an_extra_is_not_left_out(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would stay so once the extra is there."""
    shutil.copytree(tree, tmp_path / "raw")
    (tmp_path / "raw" / "tower" / "scan.las").write_bytes(b"LASF" + bytes(400))
    monkeypatch.setitem(sys.modules, "laspy", None)
    with pytest.raises(DataError, match=r"tower/scan.las: reading LAS .* pip install 'pointcentroid\[las\]'"):
        prepare_cache(find_shapes(tmp_path / "raw"), tmp_path / "out", SETTINGS, workers=0)


def test_a_data_set_is_not_prepared_into_itself(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "raw")
    with pytest.raises(DataError, match="among the shapes"):
        prepare_cache(find_shapes(tmp_path / "raw"), tmp_path / "raw" / "prepared", SETTINGS)
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == sorted(path.name for path in tree.iterdir())


@pytest.mark.parametrize(
    ("suffix", "axis", "up", "believed"),
    [
        (".xyz", "y", "standard", "z"),
        (".xyz", "z", "standard", ""),
        (".xyz", "y", "y", ""),
        (".xyz", "y", "-x", "-x"),
        (".glb", "y", "standard", ""),
        (".glb", "z", "standard", "y"),
        (".glb", "z", "z", ""),
    ],
)
def test_shapes_that_lie_are_remarked_on(suffix: str, axis: str, up: str, believed: str, tmp_path: Path) -> None:
    for number, name in enumerate(["chair.off", "table.obj", "stool.csv", "bed_ascii.ply", "bottle.stl", "vase.ply"]):
        points = pc.read(EXAMPLES / name).vertices @ TO_Z_UP[axis]  # z up -> `axis` up
        path = tmp_path / "own" / "ab"[number % 2] / f"{number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".xyz":
            np.savetxt(path, points)
        else:
            faces = pc.read(EXAMPLES / name).faces
            (trimesh.PointCloud(points) if faces is None else trimesh.Trimesh(points, faces)).export(path)
    done = run("data", "prepare", tmp_path / "own", "--to", tmp_path / "to", "--up", up)
    assert done.returncode == 0, done.stderr
    remark = f"[56] of 6 shapes look as if {axis} were up, but {believed} was believed; prepared .* with --up {axis}, they"
    assert bool(re.search(remark, " ".join(done.stderr.split()))) == bool(believed)
    assert ("look as if" in done.stderr) == bool(believed)
