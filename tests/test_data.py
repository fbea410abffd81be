"""Data sets in every layout people have them, prepared through the public command; downloads from a server of our own."""

from __future__ import annotations

import csv
import hashlib
import http.server
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

import pointcentroid as pc
from pointcentroid.config import PreprocessConfig
from pointcentroid.data.cache import open_cache, prepare_cache
from pointcentroid.data.clouds import CloudSet, load_npz, npz_classes
from pointcentroid.data.download import download, part_of
from pointcentroid.data.layouts import find_shapes
from pointcentroid.data.sources import open_data
from pointcentroid.errors import DataError
from pointcentroid.files import locked
from pointcentroid.geometry.axes import TO_Z_UP
from pointcentroid.geometry.fps import farthest_point_sampling
from pointcentroid.geometry.sampling import preprocess

from .test_cli import EXAMPLES, run

SETTINGS = PreprocessConfig(sample=64, points=64)


def write_off(path: Path, height: float, seed: int = 0) -> None:
    """A box of some height, its corners a little displaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    corners = np.array([(x, y, z * height) for x in (0, 1) for y in (0, 1) for z in (0, 1)]) + rng.normal(
        scale=0.01, size=(8, 3)
    )
    quads = ["0 1 3 2", "4 6 7 5", "0 4 5 1", "2 3 7 6", "0 2 6 4", "1 5 7 3"]
    path.write_text(
        "\n".join(["OFF", "8 6 12", *(" ".join(map(str, c)) for c in corners), *(f"4 {q}" for q in quads)]) + "\n"
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """The tree of ModelNet: class/train/*.off and class/test/*.off, with a broken file in it."""
    root = tmp_path_factory.mktemp("raw") / "ModelNet2"
    for category, height in (("tower", 4.0), ("slab", 0.2)):
        for number in range(6):
            write_off(root / category / "train" / f"{category}_{number:04d}.off", height, number)
        for number in (6, 7):
            write_off(root / category / "test" / f"{category}_{number:04d}.off", height, number)
    (root / "slab" / "train" / "slab_0003.off").write_text("OFF\n8 6 12\n0 0 0\n")
    (root / "README.txt").write_text("not a shape\n")
    return root


def prepare(source: object, to: Path, *more: object) -> dict:
    done = run("data", "prepare", source, "--to", to, "--points", 64, "--format", "json", *more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


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


@pytest.mark.parametrize("layout", ["{c}/{n}.off", "{s}/{c}/{n}.off", "top/{c}/{s}/{n}.off", "top/{c}/scan_{n}/mesh.off"])
def test_class_folders_in_every_nesting(layout: str, tmp_path: Path) -> None:
    for category in ("a", "b"):
        for number, split in enumerate(("train", "train", "test")):
            write_off(tmp_path / "my" / layout.format(c=category, s=split, n=number), 1 + number)
    catalogue = find_shapes(tmp_path / "my")
    assert catalogue.classes == ("a", "b")
    assert len(catalogue.entries) == 6
    expected = {"test": 2, "train": 4} if "{s}" in layout else {"": 6}
    splits = [entry.split for entry in catalogue.entries]
    assert {name: splits.count(name) for name in set(splits)} == expected


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_part_alone_is_that_part(tmp_path: Path, as_zip: bool) -> None:
    for category in ("a", "b"):
        write_off(tmp_path / "my" / "test" / category / "0.off", 1)
    catalogue = find_shapes(zipped(tmp_path / "my", tmp_path / "my.zip") if as_zip else tmp_path / "my")
    assert [(entry.category, entry.split) for entry in catalogue.entries] == [("a", "test"), ("b", "test")]


@pytest.mark.parametrize("layout", ["{c}/{n}.off", "{c}/{s}/{n}.off", "top/{c}/{s}/{n}.off"])
def test_trains_are_a_class(layout: str, tmp_path: Path) -> None:
    for category in ("car", "train"):
        for number, split in enumerate(("train", "test")):
            write_off(tmp_path / "my" / layout.format(c=category, s=split, n=number), 1)
    entries = [(entry.category, entry.split) for entry in find_shapes(tmp_path / "my").entries]
    splits = ("test", "train") if "{s}" in layout else ("", "")
    assert entries == [(category, split) for category in ("car", "train") for split in splits]


def test_shapes_without_a_class_are_no_class(tmp_path: Path) -> None:
    for name in ("train/a/0.off", "train/b/0.off", "test/0.off", "0.off"):
        write_off(tmp_path / "my" / name, 1)
    assert [entry.name for entry in find_shapes(tmp_path / "my").entries] == ["train/a/0.off", "train/b/0.off"]
    for name in ("train/0.off", "test/0.off"):
        write_off(tmp_path / "flat" / name, 1)
    with pytest.raises(DataError, match="at least two class folders"):
        find_shapes(tmp_path / "flat")


def test_a_bomb_in_an_archive_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "my.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/0.off", "OFF")
        with archive.open("b/0.off", "w", force_zip64=True) as member:
            for _ in range(1025):
                member.write(bytes(2**20))
    with pytest.raises(DataError, match=r"b/0.off in it would unpack to 1.0 GiB; at most 1 GiB"):
        find_shapes(path)


def test_names_in_an_archive_may_have_backslashes(tree: Path, tmp_path: Path) -> None:
    """As programs of Windows have written them."""
    path = zipped(tree, tmp_path / "raw.zip")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        for member in archive.infolist():
            other.writestr(zipfile.ZipInfo(member.filename.replace("/", "\\")), archive.read(member))
    one, two = find_shapes(path), find_shapes(tmp_path / "other.zip")
    assert one.entries == two.entries
    fetched = [[file.read_bytes() for file in found.fetch(found.entries, tmp_path)] for found in (one, two)]
    assert fetched[0] == fetched[1]


def test_own_validation_folders_are_respected_and_formats_mix(tmp_path: Path) -> None:
    for category in ("a", "b"):
        for number in range(3):
            write_off(tmp_path / "my" / "train" / category / f"{number}.off", 1)
        write_off(tmp_path / "my" / "val" / category / "9.off", 1)
    rng = np.random.default_rng(0)
    np.savetxt(tmp_path / "my" / "train" / "a" / "scan.xyz", rng.normal(size=(30, 3)))  # fewer points than asked for
    glb = Path(__file__).parent.parent / "data" / "examples" / "lamp.glb"
    shutil.copy(glb, tmp_path / "my" / "train" / "b")
    prepare(tmp_path / "my", tmp_path / "out")
    clouds = open_cache(tmp_path / "out", SETTINGS)
    assert sorted(clouds.names[i] for i in clouds.part("validation")) == ["val/a/9.off", "val/b/9.off"]
    assert len(clouds.part("training")) == 8
    lamp = clouds.points[clouds.names.index("train/b/lamp.glb")]
    mesh = pc.read(glb)
    y_up = preprocess(mesh.vertices, mesh.faces, 64, 0)
    turned = np.c_[y_up[:, 0], -y_up[:, 2], y_up[:, 1]]
    assert sorted(map(tuple, lamp.tolist())) == sorted(map(tuple, turned.tolist()))


def test_hdf5_and_resampled_text_are_y_up(tmp_path: Path) -> None:
    import h5py

    rng = np.random.default_rng(0)
    shapes = rng.normal(size=(6, 64, 3)).astype(np.float32) * (1, 3, 1)
    labels = np.array([1, 0, 1, 0, 1, 0])
    folder = tmp_path / "modelnet40_ply_hdf5_2048"
    folder.mkdir()
    (folder / "shape_names.txt").write_text("tower\nslab\n")  # not sorted: labels must follow the names
    for name, part in (("train0", slice(0, 4)), ("test0", slice(4, 6))):
        with h5py.File(folder / f"ply_data_{name}.h5", "w") as file:
            file["data"], file["label"] = shapes[part], labels[part, None].astype(np.uint8)
    prepare(folder, tmp_path / "a")
    prepare(zipped(folder, tmp_path / "h5.zip"), tmp_path / "b")

    text = tmp_path / "modelnet40_normal_resampled"
    names = {"train": [], "test": []}
    for row in range(6):
        category = ("tower", "slab")[labels[row]]
        names["train" if row < 4 else "test"].append(f"{category}_{row:04d}")
        (text / category).mkdir(parents=True, exist_ok=True)
        np.savetxt(text / category / f"{category}_{row:04d}.txt", np.c_[shapes[row], shapes[row]], delimiter=",", fmt="%.9g")
    for split, listed in names.items():
        (text / f"modelnet40_{split}.txt").write_text("\n".join(listed) + "\n")
    (text / "modelnet40_shape_names.txt").write_text("slab\ntower\n")
    prepare(text, tmp_path / "c")
    prepare(zipped(text, tmp_path / "text.zip"), tmp_path / "d")

    for name in "abcd":
        clouds = open_cache(tmp_path / name, SETTINGS)
        assert clouds.classes == ("slab", "tower")
        assert [clouds.classes[label] for label in clouds.labels] == [("tower", "slab")[label] for label in labels]
        assert clouds.split == ["train"] * 4 + ["test"] * 2
        for cloud, shape in zip(clouds.points, shapes, strict=True):
            centred = shape - shape.mean(axis=0)
            centred /= np.linalg.norm(centred, axis=1).max()
            expected = np.c_[centred[:, 0], -centred[:, 2], centred[:, 1]]
            ours, theirs = (a[np.lexsort(a.round(4).T)] for a in (np.array(cloud), expected))
            np.testing.assert_allclose(ours, theirs, atol=1e-5)

    (text / "slab" / "slab_0000.txt").unlink()
    with pytest.raises(DataError, match="names slab_0000, but there is no"):
        find_shapes(text)


def test_what_hdf5_files_are_called(tmp_path: Path) -> None:
    import h5py

    (tmp_path / "shape_names.txt").write_text("night stand\r\nsofa\n\n")
    for name in ("train0", "val0", "latest0", "test0"):
        with h5py.File(tmp_path / f"ply_data_{name}.h5", "w") as file:
            file["data"], file["label"] = np.zeros((1, 64, 3), np.float32), np.zeros((1, 1), np.uint8)
    catalogue = find_shapes(tmp_path)
    assert {entry.name: (entry.category, entry.split) for entry in catalogue.entries} == {
        "ply_data_train0[0]": ("night stand", "train"),
        "ply_data_latest0[0]": ("night stand", "train"),
        "ply_data_val0[0]": ("night stand", "validation"),
        "ply_data_test0[0]": ("night stand", "test"),
    }
    (tmp_path / "shape_names.txt").write_text("sofa\nnight stand\n")
    assert find_shapes(tmp_path).fingerprint != catalogue.fingerprint, "the same clouds, called otherwise"


def test_a_folder_may_hold_a_meta_json_of_its_own(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "mine")
    (tmp_path / "mine" / "meta.json").write_text('{"author": "me"}')
    os.mkfifo(tmp_path / "mine" / "tower" / "pipe.off")
    clouds, reference = open_data(tmp_path / "mine", SETTINGS), open_data(tree, SETTINGS)
    assert clouds.points.tobytes() == reference.points.tobytes()
    assert clouds.left_out == reference.left_out


def test_an_npz_may_name_classes_without_shapes(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    labels = np.array([2, 0, 2])
    np.savez(path, points=np.zeros((3, 64, 3), np.uint16), labels=labels, names=["a", "b", "c"], classes=["x", "y", "z"])
    assert npz_classes(path) == load_npz(path).classes == ("x", "z")
    none = tmp_path / "none.npz"
    np.savez(none, points=np.zeros((0, 60, 3), np.uint16), labels=labels[:0], names=labels[:0].astype(str), classes=["x"])
    with pytest.raises(DataError, match="holds no shapes"):
        open_data(none, SETTINGS)


def test_geometric_data_are_accepted(tree: Path, tmp_path: Path) -> None:
    from torch_geometric.data import Data

    files = sorted(tree.glob("*/test/*.off"))
    items = []
    for file in files:
        mesh = pc.read(file)
        assert mesh.faces is not None
        pos, face = torch.from_numpy(mesh.vertices), torch.from_numpy(mesh.faces.T.copy())
        items.append(Data(pos=pos, face=face, y=torch.tensor([int("tower" in str(file))])))
    prepare_cache(find_shapes(items, ["slab", "tower"]), tmp_path / "a", SETTINGS)
    clouds = open_cache(tmp_path / "a", SETTINGS)
    assert [clouds.classes[label] for label in clouds.labels] == ["slab", "slab", "tower", "tower"]
    reference = open_data(tree, SETTINGS)
    assert clouds.points.tobytes() == reference.subset(reference.part("test")).points.tobytes()
    assert pc.load("small", "cpu")(items[0], up="z").label == pc.load("small", "cpu")(files[0], up="z").label
    with pytest.raises(DataError, match="no pos, or no y"):
        find_shapes([Data(pos=torch.zeros(3, 3))])
    with pytest.raises(DataError, match="label 1, but only 1"):
        find_shapes(items, ["slab"])
    with pytest.raises(DataError, match="two classes have the name 'slab'"):
        find_shapes(items, ["slab", "slab"])
    for label in (torch.tensor([1.5]), torch.tensor([-1]), torch.tensor([math.nan]), torch.tensor([math.inf])):
        with pytest.raises(DataError, match=f"label {label.numpy()[0]}; expected a whole number"):
            find_shapes([Data(pos=torch.zeros(3, 3), y=label)])
    with pytest.raises(DataError, match="label chair; expected a whole number"):
        find_shapes([SimpleNamespace(pos=torch.zeros(3, 3), y="chair")])
    far = [SimpleNamespace(pos=torch.rand(20, 3), y=label) for label in (3001627, 4379243)]
    assert find_shapes(far).classes == ("class_3001627", "class_4379243"), "only what occurs has a name"


def test_the_modelnet_of_geometric_is_accepted(tmp_path: Path) -> None:
    from torch_geometric.datasets import ModelNet

    names = ["bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table", "toilet"]
    for number, name in enumerate(names):
        for split in ("train", "test"):
            write_off(tmp_path / "net" / "raw" / name / split / f"{name}_{split}.off", 1 + number, number)
    dataset = ModelNet(str(tmp_path / "net"), "10", train=True)  # finds its raw files there, and processes them
    prepare_cache(find_shapes(dataset, names), tmp_path / "a", SETTINGS)
    prepare(tmp_path / "net", tmp_path / "b")  # its folder, too
    from_dataset, from_folder = open_cache(tmp_path / "a", SETTINGS), open_cache(tmp_path / "b", SETTINGS)
    train = from_folder.subset(np.flatnonzero(np.array(from_folder.split) == "train"))
    assert (from_folder.split.count("test"), len(train)) == (10, 10)
    assert from_dataset.classes == train.classes == tuple(names)
    assert from_dataset.labels.tolist() == train.labels.tolist()
    # Triangles come in another order, so that other points of the same surfaces are drawn.
    np.testing.assert_allclose(from_dataset.points.std(axis=1), train.points.std(axis=1), atol=0.1)


def test_an_npz_keeps_its_fingerprint_in_a_cache(modelnet: Path, tmp_path: Path) -> None:
    clouds = load_npz(modelnet)
    few = tmp_path / "few.npz"
    with np.load(modelnet) as arrays:
        np.savez(few, **{k: v if k == "classes" else v[::100] for k, v in arrays.items()})
    missing = set(range(40)) - set(clouds.labels[::100].tolist())
    if missing:  # classes without shapes are an error, and this stride may leave some out
        with np.load(few) as arrays:
            np.savez(few, **{**arrays, "classes": np.array([clouds.classes[i] for i in range(40)])})
    report = prepare_cache(find_shapes(few), tmp_path / "cache", PreprocessConfig(), workers=0)
    cached = open_cache(report.folder, PreprocessConfig())
    assert cached.fingerprint == load_npz(few).fingerprint
    assert cached.names == load_npz(few).names


def test_every_shape_is_in_one_part() -> None:
    labels = np.repeat(np.arange(3), 20)
    split = ["test" if i % 5 == 0 else "train" for i in range(60)]
    clouds = CloudSet(np.zeros((60, 1, 3), np.float32), labels, [str(i) for i in range(60)], ("a", "b", "c"), split)
    parts = [clouds.part(name) for name in ("training", "validation", "test")]
    assert sorted(np.concatenate(parts)) == list(range(60)) == clouds.part("all").tolist()
    assert [len(part) for part in parts] == [42, 6, 12]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda _: None, "no such data set"),
        (lambda p: p.mkdir(), "at least two class folders"),
        (lambda p: p.write_text("x"), "neither a folder of class folders, a zip of one, nor an npz"),
        (lambda p: write_off(p / "only" / "a.off", 1), "1 in a readable format, and no two class folders"),
        (
            lambda p: [(p / c).mkdir(parents=True) or (p / c / "a.off").write_text("OFF\n") for c in "ab"],
            "no shape of the class",
        ),
    ],
)
def test_what_is_no_data_set_says_so(make: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    make(tmp_path / "it")
    done = run("data", "prepare", tmp_path / "it", "--to", tmp_path / "out")
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_an_archive_cannot_write_outside(tmp_path: Path) -> None:
    write_off(tmp_path / "a.off", 1)
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for name in ("../../escaped/a/1.off", "/tmp/escaped/b/1.off", "a/2.off", "b/2.off"):
            archive.write(tmp_path / "a.off", name)
    before = sorted(path for path in tmp_path.rglob("*"))
    run("data", "prepare", tmp_path / "evil.zip", "--to", tmp_path / "out")
    after = sorted(path for path in tmp_path.rglob("*") if tmp_path / "out" not in (path, *path.parents))
    assert after == before
    assert not Path("/tmp/escaped").exists()


def test_damaged_archives_are_told_and_what_is_sound_in_them_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a/1.xyz", "a/2.xyz", "b/1.xyz", "b/2.xyz"):
        (tmp_path / "it" / name).parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(tmp_path / "it" / name, rng.normal(size=(64, 3)))
    path = tmp_path / "it.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((tmp_path / "it").rglob("*.xyz")):
            archive.write(file, file.relative_to(tmp_path).as_posix())
    whole = path.read_bytes()
    broken = bytearray(whole)
    broken[45:85] = b"\xff" * 40  # behind the header of the first
    path.write_bytes(broken)
    done = run("data", "prepare", path, "--to", tmp_path / "out", "--points", "64", "--format", "csv")
    (row,) = csv.DictReader(StringIO(done.stdout))
    assert (row["shapes"], row["classes"]) == ("3", "a b")
    assert row["quarantined"].startswith("it/a/1.xyz:")
    path.write_bytes(whole.replace(b"PK\x01\x02", b"XXXX"))
    done = run("data", "prepare", path, "--to", tmp_path / "other")
    assert done.returncode == 2
    assert "the archive is damaged" in done.stderr


class Server:
    """An HTTP server on the loopback that serves one content, with ranges if asked to, and may break off."""

    def __init__(self, content: bytes) -> None:
        self.content, self.ranges, self.stop_after = content, True, -1
        self.requests: list[str | None] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                outer.requests.append(asked)
                if self.path != "/it.zip":
                    self.send_error(404)
                    return
                start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and outer.ranges else 0
                if start >= len(outer.content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(outer.content)}")
                    self.end_headers()
                    return
                body = outer.content[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if outer.stop_after < 0 else body[: outer.stop_after])

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/it.zip"


@pytest.fixture
def server(tree: Path, tmp_path: Path) -> Iterator[Server]:
    served = Server(zipped(tree, tmp_path / "served.zip").read_bytes())
    yield served
    served.server.shutdown()


class TestDownload:
    def test_the_command_downloads_and_prepares(self, server: Server, tmp_path: Path) -> None:
        digest = hashlib.sha256(server.content).hexdigest()
        dead = server.url.replace("it.zip", "gone.zip")
        more = ["--download", "--mirror", dead, "--mirror", server.url, "--sha256", digest]
        assert prepare("mynet", tmp_path / "data", *more)["shapes"] == 15
        assert (tmp_path / "mynet.zip").read_bytes() == server.content

    def test_a_broken_connection_is_resumed(self, server: Server, tmp_path: Path) -> None:
        server.stop_after = 1000
        with pytest.raises(DataError, match="ended after 1,000 of"):
            download([server.url], tmp_path / "it.zip")
        assert not (tmp_path / "it.zip").exists()
        server.stop_after = -1
        assert download([server.url], tmp_path / "it.zip").read_bytes() == server.content
        assert server.requests == [None, "bytes=1000-"]

    def test_a_server_without_ranges_sends_all_of_it_again(self, server: Server, tmp_path: Path) -> None:
        part_of(tmp_path / "it.zip", server.url).write_bytes(server.content[:500])
        server.ranges = False
        assert download([server.url], tmp_path / "it.zip").read_bytes() == server.content

    def test_a_part_that_is_whole_is_recognised(self, server: Server, tmp_path: Path) -> None:
        part_of(tmp_path / "it.zip", server.url).write_bytes(server.content)
        assert download([server.url], tmp_path / "it.zip").read_bytes() == server.content
        part_of(tmp_path / "too_long.zip", server.url).write_bytes(server.content + b"x")
        assert download([server.url], tmp_path / "too_long.zip").read_bytes() == server.content

    def test_what_is_there_is_checked_too(self, server: Server, tmp_path: Path) -> None:
        digest = hashlib.sha256(server.content).hexdigest()
        (tmp_path / "it.zip").write_bytes(server.content)
        assert download([server.url], tmp_path / "it.zip", sha256=digest.upper()).read_bytes() == server.content
        with pytest.raises(DataError, match=f"is there, and its sha256 is {digest}"):
            download([server.url], tmp_path / "it.zip", sha256="0" * 64)
        assert (tmp_path / "it.zip").read_bytes() == server.content, "somebody's file"
        assert server.requests == []

    def test_one_mirror_does_not_go_on_with_what_another_began(self, server: Server, tmp_path: Path) -> None:
        other = server.url.replace("it.zip", "gone.zip")
        part_of(tmp_path / "it.zip", other).write_bytes(b"x" * 500)
        assert download([other, server.url], tmp_path / "it.zip").read_bytes() == server.content
        assert server.requests[-1] is None, "all of it was asked for"
        assert [path.name for path in tmp_path.glob("it.zip*")] == ["it.zip"]

    def test_an_archive_that_is_damaged_is_thrown_away(self, server: Server, tmp_path: Path) -> None:
        middle = len(server.content) // 2
        server.content = server.content[:middle] + bytes([server.content[middle] ^ 255]) + server.content[middle + 1 :]
        with pytest.raises(DataError, match="the archive that came is damaged"):
            download([server.url], tmp_path / "it.zip")
        assert list(tmp_path.glob("it.zip*")) == []

    @pytest.mark.parametrize("address", ["not-an-address", "http://a..b/x.zip", "ftp://"])
    def test_what_is_no_address_is_one_line(self, address: str, tmp_path: Path) -> None:
        done = run("data", "prepare", "mine", "--to", tmp_path / "x", "--download", "--mirror", address)
        assert done.returncode == 2
        assert done.stderr.startswith("error: no mirror delivered mine.zip")

    def test_the_wrong_content_is_refused_and_thrown_away(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="its sha256 is"):
            download([server.url], tmp_path / "it.zip", sha256="0" * 64)
        server.content = b"<html>moved</html>"
        with pytest.raises(DataError, match="no zip archive, it begins with b'<html>"):
            download([server.url], tmp_path / "it.zip")
        assert list(tmp_path.glob("it.zip*")) == []

    def test_an_unknown_name_needs_a_mirror(self, tmp_path: Path) -> None:
        done = run("data", "prepare", "modelnet4", "--to", tmp_path / "x", "--download")
        assert done.returncode == 2
        assert "did you mean 'modelnet4" in done.stderr


def save_npz(path: Path, points: np.ndarray, labels: np.ndarray, classes: list[str], **more: np.ndarray) -> Path:
    stored = np.round((points + 1) * 2047.5).astype(np.uint16)
    names = np.array([f"shape {row}" for row in range(len(points))])
    np.savez(path, points=stored, labels=labels, names=names, classes=np.array(classes), **more)
    return path


def balls(count: int, size: int) -> np.ndarray:
    """Points on spheres, (count, size, 3), inside the cube that an npz can hold."""
    points = np.random.default_rng(0).normal(size=(count, size, 3))
    return 0.9 * points / np.linalg.norm(points, axis=2, keepdims=True)


def test_classes_of_an_npz_keep_their_order_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    clouds = load_npz(save_npz(tmp_path / "a.npz", balls(4, 32), np.array([0, 2, 2, 0]), ["table", "unused", "chair"]))
    assert clouds.classes == ("table", "chair")
    assert clouds.labels.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.array([0, -1, 1]), "label -1 but only 2 classes, from 0 on"),
        (np.array([0, 2, 1]), "label 2 but only 2 classes"),
        (np.array([0.0, 1.0, 1.0]), "labels must be integers"),
        (np.array([[0], [1], [1]]), "labels must be a list"),
        (np.array(0), "labels must be a list"),
    ],
)
def test_labels_of_an_npz_that_mean_no_class_are_errors(tmp_path: Path, labels: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_npz(save_npz(tmp_path / "a.npz", balls(3, 32), labels, ["chair", "table"]))


def test_damaged_npz_files_are_one_line_errors(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz", balls(3, 32), np.zeros(3, int), ["chair"])
    whole = path.read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "packed.npz", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    broken = bytearray((tmp_path / "packed.npz").read_bytes())
    broken[60:90] = b"\xff" * 30
    for content in (b"", (tmp_path / "array.npy").read_bytes(), whole[: len(whole) // 2], bytes(broken)):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a data set npz") as caught:
            load_npz(path)
        assert "\n" not in str(caught.value)


def test_an_npz_of_more_points_than_the_net_samples_is_thinned_as_for_a_prediction(tmp_path: Path) -> None:
    split = np.array(["train", "test"] * 2)
    path = save_npz(tmp_path / "a.npz", balls(4, 256), np.array([0, 0, 1, 1]), ["chair", "table"], split=split)
    clouds, stored = open_data(path, SETTINGS), load_npz(path)
    assert clouds.fingerprint == stored.fingerprint
    assert clouds.split == stored.split == ["train", "test", "train", "test"]
    for cloud, points in zip(clouds.points, stored.points, strict=True):
        expected = preprocess(points, None, 64, SETTINGS.seed)
        np.testing.assert_array_equal(*(np.sort(a, axis=0) for a in (np.array(cloud), expected)))


def test_a_shape_that_changed_at_the_same_size_is_another_data_set(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "raw")
    before = find_shapes(tmp_path / "raw").fingerprint
    assert before == find_shapes(tree).fingerprint  # wherever it lies
    path = tmp_path / "raw" / "tower" / "test" / "tower_0006.off"
    text = path.read_text()
    path.write_text(text[:-2] + {"0": "1"}.get(text[-2], "0") + "\n")
    assert find_shapes(tmp_path / "raw").fingerprint != before


def test_links_of_a_data_set_are_followed_once_and_dangling_ones_left_out(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree / "tower", tmp_path / "elsewhere" / "tower")
    shutil.copytree(tree / "slab", tmp_path / "raw" / "slab")
    (tmp_path / "raw" / "tower").symlink_to(tmp_path / "elsewhere" / "tower")
    (tmp_path / "raw" / "slab" / "again").symlink_to(tmp_path / "raw")  # a loop
    (tmp_path / "elsewhere" / "tower" / "back").symlink_to(tmp_path)  # and one through a folder outside
    (tmp_path / "raw" / "slab" / "train" / "gone.off").symlink_to(tmp_path / "nowhere.off")
    found = find_shapes(tmp_path / "raw")
    gone = "slab/train/gone.off"
    assert [e.name for e in found.entries if e.name != gone] == [e.name for e in find_shapes(tree).entries]
    report = prepare_cache(found, tmp_path / "cache", SETTINGS, workers=0)
    assert gone in report.quarantined


def test_a_shape_of_both_lists_of_the_resampled_set_is_one_shape(tmp_path: Path) -> None:
    """As the archive has it: ModelNet10 is part of ModelNet40."""
    names = [f"{category}_{number:04d}" for category in ("chair", "night_stand") for number in range(1, 4)]
    for name in names:
        write_points(tmp_path / name.rpartition("_")[0] / f"{name}.txt")
    for family in ("modelnet10", "modelnet40"):
        (tmp_path / f"{family}_train.txt").write_text("\n".join(names[:4]))
        (tmp_path / f"{family}_test.txt").write_text("\n".join(names[4:]))
    catalogue = find_shapes(tmp_path)
    assert sorted(entry.name for entry in catalogue.entries) == names
    assert catalogue.up == "y"


def write_points(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    np.savetxt(path, np.random.default_rng(0).normal(size=(30, 3)), delimiter=",")


def test_the_order_of_classes_does_not_matter_to_what_validates(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels, held_out = rng.integers(3, size=90), []
    for order in ((0, 1, 2), (2, 0, 1)):
        classes = np.array(["bed", "chair", "sofa"])[np.argsort(order)]
        path = save_npz(tmp_path / "a.npz", balls(90, 64), np.array(order)[labels], list(classes))
        held_out.append(load_npz(path).part("validation").tolist())
    assert held_out[0] == held_out[1]


@pytest.mark.parametrize("points", [40, 64])
def test_an_npz_that_is_not_as_a_prediction_prepares_it_is_prepared(tmp_path: Path, points: int) -> None:
    """Clouds of too few points, and some that are not centred or of another size."""
    stored = (balls(4, points) + np.array((1, 0, 0))) / 3
    path = save_npz(tmp_path / "a.npz", stored, np.array([0, 0, 1, 1]), ["chair", "table"])
    for cloud, raw in zip(open_data(path, SETTINGS).points, load_npz(path).points, strict=True):
        expected = preprocess(raw, None, 64, SETTINGS.seed)
        np.testing.assert_array_equal(*(np.sort(a, axis=0) for a in (np.array(cloud), expected)))


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


def test_classes_of_one_name_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two classes have the name 'chair'"):
        load_npz(save_npz(tmp_path / "a.npz", balls(3, 32), np.array([0, 1, 2]), ["chair", "table", "chair"]))


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


@pytest.mark.parametrize("as_zip", [False, True])
def test_text_among_shapes_is_no_shape(as_zip: bool, tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "own")
    classes = find_shapes(tmp_path / "own").classes
    (tmp_path / "own" / "licences").mkdir()
    (tmp_path / "own" / "licences" / "LICENSE.txt").write_text("Do as you like.\n")
    (tmp_path / "own" / classes[0] / "README.txt").write_text("Made by hand.\n")
    source = zipped(tmp_path / "own", tmp_path / "own.zip") if as_zip else tmp_path / "own"
    catalogue = find_shapes(source)
    assert catalogue.classes == classes
    assert not [entry.name for entry in catalogue.entries if entry.name.endswith(".txt")]


def test_what_is_no_data_set_of_geometric_says_so() -> None:
    for source, says in (([], "is empty"), (3, "expected a path or a sequence of Data, found int"), (["a"], "item 0")):
        with pytest.raises(DataError, match=says):
            find_shapes(source)
    learnt = torch.rand(20, 3, requires_grad=True)
    items = [SimpleNamespace(pos=learnt, y=0), SimpleNamespace(pos=torch.rand(20, 3).bfloat16(), y=torch.tensor([1]))]
    assert find_shapes(items).classes == ("class_0", "class_1")
