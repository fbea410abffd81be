"""Data sets in one file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from pointcentroid.config import PreprocessConfig
from pointcentroid.data.cache import open_cache, prepare_cache
from pointcentroid.data.clouds import CloudSet, load_npz, npz_classes
from pointcentroid.data.layouts import find_shapes
from pointcentroid.data.sources import open_data
from pointcentroid.errors import DataError
from pointcentroid.geometry.sampling import preprocess

from .prepared import SETTINGS, balls, save_npz


def test_an_npz_may_name_classes_without_shapes(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    labels = np.array([2, 0, 2])
    np.savez(path, points=np.zeros((3, 64, 3), np.uint16), labels=labels, names=["a", "b", "c"], classes=["x", "y", "z"])
    assert npz_classes(path) == load_npz(path).classes == ("x", "z")
    none = tmp_path / "none.npz"
    np.savez(none, points=np.zeros((0, 60, 3), np.uint16), labels=labels[:0], names=labels[:0].astype(str), classes=["x"])
    with pytest.raises(DataError, match="holds no shapes"):
        open_data(none, SETTINGS)


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


def test_classes_of_one_name_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two classes have the name 'chair'"):
        load_npz(save_npz(tmp_path / "a.npz", balls(3, 32), np.array([0, 1, 2]), ["chair", "table", "chair"]))
