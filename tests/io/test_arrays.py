"""NumPy's arrays and archives of them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pointcentroid.data.layouts import find_shapes
from pointcentroid.errors import DataError, ReadError
from pointcentroid.io import read

from ..meshes import area


def test_npz_may_hold_a_mesh(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    np.savez(tmp_path / "m.npz", vertices=sphere.vertices, faces=sphere.faces)
    assert area(tmp_path / "m.npz") == pytest.approx(sphere.area)


@pytest.mark.parametrize(("vertices", "corners"), [("points", "faces"), ("vertices", "triangles"), ("pos", "face")])
def test_npz_names_of_meshes(tmp_path: Path, sphere: trimesh.Trimesh, vertices: str, corners: str) -> None:
    faces = sphere.faces.T if corners == "face" else sphere.faces
    np.savez(tmp_path / "m.npz", **{vertices: sphere.vertices, corners: faces})
    assert area(tmp_path / "m.npz") == pytest.approx(sphere.area)


@pytest.mark.parametrize(
    "more",
    [
        {"faces": np.array([])},
        {"face": np.arange(30)},
        {"faces": np.zeros((5, 4), int)},
        {"faces": np.full((5, 3), 9999)},
        {"face": np.zeros((3, 5), int)},
    ],
)
def test_arrays_beside_points_that_are_no_faces_of_theirs(tmp_path: Path, points: np.ndarray, more: dict) -> None:
    np.savez(tmp_path / "m.npz", points=points, **more)
    assert read(tmp_path / "m.npz").faces is None


def test_an_archive_may_hold_more_than_the_points(tmp_path: Path, points: np.ndarray) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, points=points, labels=np.array([None] * 1000, dtype=object))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readme.txt", "who made them")
    np.testing.assert_array_equal(read(path).vertices, points)


def test_archives_that_unpack_to_gigabytes_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        for _ in range(2**10 + 1):
            member.write(bytes(2**20))
    with pytest.raises(ReadError, match="would unpack to"):
        read(tmp_path / "bomb.npz")


def test_an_array_of_an_archive_cannot_declare_more_than_it_has(tmp_path: Path, points: np.ndarray) -> None:
    np.save(tmp_path / "points.npy", points)
    lie = (tmp_path / "points.npy").read_bytes().replace(b"(500, 3), }      ", b"(500000000, 3), }")
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("points.npy", lie)
    with pytest.raises(ReadError, match=r"declares the shape \(500000000, 3\)"):
        read(tmp_path / "lie.npz")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "sprung",)

    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "trap.npz", points=np.array([Trap()], dtype=object))
    for name in ("trap.npy", "trap.npz"):
        with pytest.raises(ReadError):
            read(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["a.npz", "a.3mf"])
def test_an_encrypted_archive_says_that_it_is(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("points.npy", b"")
    content = (tmp_path / name).read_bytes()
    place = content.rindex(b"PK\x01\x02") + 8  # its flags, in the directory at the end
    (tmp_path / name).write_bytes(content[:place] + b"\x01" + content[place + 1 :])
    with pytest.raises(ReadError, match=r"is encrypted \('points.npy'\); save it without a password"):
        read(tmp_path / name)


def test_a_name_in_an_archive_that_is_no_text_is_a_damage(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("chäir/a.off", "OFF")
        archive.writestr("table/a.off", "OFF")
    content = (tmp_path / "a.zip").read_bytes().replace("ä".encode(), b"\xf0\x28")
    for name in ("a.zip", "a.3mf"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ReadError, match="not a 3MF file: it is no zip archive, or a damaged one"):
        read(tmp_path / "a.3mf")
    with pytest.raises(DataError, match="the archive is damaged"):
        find_shapes(tmp_path / "a.zip")


def test_fields_of_an_array_are_taken_by_name(tmp_path: Path, points: np.ndarray) -> None:
    """As readers of PLY and PCD hold points."""
    held = np.zeros(len(points), [("nx", "f4"), ("z", "f8"), ("x", "f8"), ("colour", "u1", 3), ("y", "f8")])
    for axis, values in zip("xyz", points.T, strict=True):
        held[axis] = values
    np.save(tmp_path / "a.npy", held)
    np.savez(tmp_path / "a.npz", points=held)
    for path in (tmp_path / "a.npy", tmp_path / "a.npz"):
        np.testing.assert_array_equal(read(path).vertices, points)
    for fields in ([("a", "f8"), ("b", "f8"), ("c", "f8")], [("x", "f8", 2), ("y", "f8"), ("z", "f8")]):
        np.save(tmp_path / "a.npy", np.zeros(20, fields))
        with pytest.raises(ReadError, match="must hold numbers of shape"):
            read(tmp_path / "a.npy")
