"""Data sets in every layout that people have them in."""

from __future__ import annotations

import csv
import math
import shutil
import zipfile
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import pointcentroid as pc
from pointcentroid.data.cache import open_cache, prepare_cache
from pointcentroid.data.layouts import find_shapes
from pointcentroid.data.sources import open_data
from pointcentroid.errors import DataError
from pointcentroid.geometry.sampling import preprocess

from ..conftest import EXAMPLES
from ..test_cli import run
from .prepared import SETTINGS, prepare, write_off, zipped


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
    glb = EXAMPLES / "lamp.glb"
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
