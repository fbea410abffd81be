"""All formats: the same geometry comes back from each, and damage is an error."""

from __future__ import annotations

import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pointcentroid import io
from pointcentroid.errors import MissingExtraError, ReadError
from pointcentroid.io import READERS, read
from pointcentroid.io.ply import cloud_bytes

from ..conftest import EXAMPLES
from ..meshes import area, quantised_sphere
from .points import write_points


@pytest.mark.parametrize("suffix", [".off", ".obj", ".ply", ".stl", ".glb", ".3mf"])
def test_mesh_formats_keep_the_surface(tmp_path: Path, sphere: trimesh.Trimesh, suffix: str) -> None:
    path = tmp_path / f"sphere{suffix.upper()}"  # suffixes are read in any case
    data = sphere.export(file_type=suffix[1:])
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    assert area(path) == pytest.approx(sphere.area, rel=1e-5)


@pytest.mark.parametrize("suffix", [".xyz", ".txt", ".csv", ".pts", ".npy", ".npz", ".ply", ".las", ".laz"])
def test_point_formats_keep_the_points(tmp_path: Path, points: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"cloud{suffix}"
    write_points(path, points)
    shape = read(path)
    assert shape.faces is None
    np.testing.assert_allclose(shape.vertices, points, atol=1e-5)


@pytest.mark.parametrize("suffix", [".npy", ".ply", ".xyz", ".csv", ".npz"])
def test_points_of_three_nan_are_missing_returns(tmp_path: Path, points: np.ndarray, suffix: str) -> None:
    holed, path = np.insert(points, [0, 7, 7, len(points)], np.nan, axis=0), tmp_path / f"a{suffix}"

    def write(rows: np.ndarray) -> None:
        if suffix == ".ply":
            path.write_bytes(cloud_bytes(rows))
        elif suffix == ".npy":
            np.save(path, rows)
        elif suffix == ".npz":
            np.savez(path, points=rows)
        else:
            np.savetxt(path, rows, delimiter="," if suffix == ".csv" else " ", fmt="%.17g")

    write(holed)
    np.testing.assert_array_equal(read(path).vertices, points)
    holed[20, 1] = np.nan
    write(holed)
    with pytest.raises(ReadError, match=r"vertex 20 is .*nan.* finite"):
        read(path)
    write(holed[:10])
    with pytest.raises(ReadError, match="holds only 7 points"):
        read(path)


@pytest.mark.parametrize(("module", "extra"), [("meshoptimizer", "gltf"), ("DracoPy", "gltf"), ("laspy", "las")])
def test_an_absent_extra_says_the_pip_line(tmp_path, sphere, points, monkeypatch, module: str, extra: str) -> None:
    path = tmp_path / ("cloud.las" if module == "laspy" else "sphere.glb")
    if module == "laspy":
        write_points(path, points)
    elif module == "DracoPy":
        path.write_bytes(trimesh.exchange.gltf.export_glb(trimesh.Scene(sphere), extension_draco=True))
    else:
        path.write_bytes(quantised_sphere(sphere, meshopt=True))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'pointcentroid\[{extra}\]'"):
        read(path)


def test_scene_transforms_place_every_copy(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    scene = trimesh.Scene()
    for x in (0.0, 10.0, 20.0):
        scene.add_geometry(sphere, transform=trimesh.transformations.translation_matrix((x, 0, 0)))
    scene.export(tmp_path / "three.glb")
    shape = read(tmp_path / "three.glb")
    assert area(tmp_path / "three.glb") == pytest.approx(3 * sphere.area, rel=1e-5)
    assert np.ptp(shape.vertices[:, 0]) == pytest.approx(22, rel=1e-3)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", ["off", "ply"])
def test_off_and_ply_of_any_encoding(tmp_path: Path, sphere: trimesh.Trimesh, kind: str, encoding: str) -> None:
    more = {"encoding": "ascii"} if kind == "ply" else {}
    made = sphere.export(file_type=kind, **more)
    text = made if isinstance(made, str) else made.decode()
    (tmp_path / f"a.{kind}").write_text(text, encoding=encoding)
    assert area(tmp_path / f"a.{kind}") == pytest.approx(sphere.area, rel=1e-4)


def test_headers_that_begin_as_those_of_other_formats(tmp_path: Path, sphere: trimesh.Trimesh, points: np.ndarray) -> None:
    content = sphere.export(file_type="stl")
    (tmp_path / "a.stl").write_bytes(b"ply of a converter".ljust(80) + content[80:])
    assert len(read(tmp_path / "a.stl").faces) == len(sphere.faces)
    rows = "".join(f"{x},{y},{z},1\n" for x, y, z in points)
    (tmp_path / "a.csv").write_text("x,y,z,OFFICE\n" + rows)
    np.testing.assert_allclose(read(tmp_path / "a.csv").vertices, points)
    (tmp_path / "b.csv").write_text("OFFICE,x,y,z\n" + "".join(f"1,{x},{y},{z}\n" for x, y, z in points))
    np.testing.assert_allclose(read(tmp_path / "b.csv").vertices, points)


PLY_LIE = b"ply\nformat binary_little_endian 1.0\nelement vertex 1000000000\nproperty float x\nproperty float y\n"

PCD_LIE = b"FIELDS x y z i\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1000000\nPOINTS 1\n"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.ply", PLY_LIE + b"property float z\nend_header\n" + b"\0" * 60, "declares 1000000000 rows of vertex"),
        ("a.stl", b"\0" * 80 + struct.pack("<I", 10**9) + b"\0" * 100, "declares 1000000000 triangles"),
        ("a.pcd", b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 1000000000\nDATA binary\n\0\0\0\0", "1000000000 points"),
        ("a.pcd", PCD_LIE + b"DATA ascii\n1 2 3\n", "damaged PCD file"),
        ("a.ply", PLY_LIE.replace(b"1000000000", b"9" * 5000) + b"property float z\nend_header\n1 2 3\n", "declares 9999"),
        (
            "a.gltf",
            b'{"nodes": [{"mesh": 0}], "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],'
            b' "accessors": [{"type": "VEC3", "count": 1e999, "componentType": 5126}]}',
            "damaged glTF file",
        ),
        ("a.npy", b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 3), }\n", "NPY"),
        ("a.npy", b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f8', 'fortran_order': False, 'shape': (20, 3),       \n", "NPY"),
        ("a.npy", b"", "empty file"),
        ("a.stl", b"solid x".ljust(80) + struct.pack("<I", 100) + b"\1" * 900, "cut short: .* 100 triangles"),
        ("a.obj", b"", "empty file"),
        ("a.tsv", b"1 2 3", "unknown format .tsv; known: .3mf"),
        ("a.obj", b"ply\nformat ascii 1.0\n", "its content is PLY; rename it"),
        ("a.xyz", bytes(range(256)), "not a text file"),
        ("a.3mf", b"PK\x03\x04 this is no archive", "3MF"),
        ("a.glb", b"glTF\x01\0\0\0\x0c\0\0\0", "version 1"),
        ("a.glb", b"glTF\x02\0\0\0\xff\0\0\0", "cut short"),
    ],
)
def test_lies_and_damage_are_one_line_errors(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ReadError, match=says) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_absent_files_and_folders_are_errors(tmp_path: Path) -> None:
    for name in ("none.off", "none"):
        with pytest.raises(ReadError, match="No such file"):
            read(tmp_path / name)
    for name in ("dir.off", "plain"):
        (tmp_path / name).mkdir()
        with pytest.raises(ReadError, match="is a folder, not a file"):
            read(tmp_path / name)


def test_a_new_format_is_one_function(tmp_path: Path, points: np.ndarray, monkeypatch) -> None:
    monkeypatch.setitem(READERS, ".new", lambda path: io.shape.checked(path, points))
    (tmp_path / "a.new").write_text("anything")
    np.testing.assert_array_equal(read(tmp_path / "a.new").vertices, points)


def test_there_is_an_example_in_every_format() -> None:
    suffixes = {path.suffix for path in EXAMPLES.rglob("*") if path.is_file()}
    assert suffixes == set(READERS)


def test_every_real_file_is_read_or_named_as_broken(real_meshes: Path) -> None:
    broken = {
        "derived__chair_0890_truncated.off", "edge__61_processed.off", "edge__empty.obj", "edge__empty.ply",
        "edge__empty_nodes.glb", "edge__obj_points.obj", "edge__obj_wireframe.obj", "edge__ply_empty_header.ply",
        "edge__ply_points_bin.ply", "edge__stl_empty_bin.stl",
    }  # fmt: skip
    refused = set()
    for path in real_meshes.iterdir():
        if path.suffix != ".tsv":
            try:
                read(path)
            except ReadError:
                refused.add(path.name)
    assert refused == broken


def test_derived_files_hold_the_surface_they_were_derived_from(real_meshes: Path) -> None:
    for source, derived in [
        ("modelnet__bed_0516.off", "derived__modelnet__bed_0516.3mf"),
        ("modelnet__monitor_0466.off", "derived__modelnet__monitor_0466_ascii.ply"),
        ("modelnet__toilet_0345.off", "derived__modelnet__toilet_0345_bin.stl"),
        ("modelnet__chair_0890.off", "derived__chair_0890_glued.off"),
    ]:
        assert area(real_meshes / derived) == pytest.approx(area(real_meshes / source), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.obj", "v 0 0 \\\n5\nusemtl " + "a" * 200_000 + "\n"),
        (
            "a.stl",
            "solid\nfacet normal 0 0 1\nouter loop\n"
            + "vertex 0 0 0\n" * 3
            + "endloop\nendfacet\nendsolid\n"
            + "\n" * 200_000,
        ),
        ("a.csv", "x" + " " * 200_000 + "q,y,z\n" + "1,2,3\n" * 20),
    ],
)
def test_time_grows_with_length_not_with_its_square(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    start = time.process_time()
    with pytest.raises(ReadError):
        read(tmp_path / name)
    assert time.process_time() - start < 5, "seconds; it took minutes"


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_coordinate_that_is_no_number_is_named_by_its_line(tmp_path: Path, sphere: trimesh.Trimesh, value: str) -> None:
    rows = [f"{x} {y} {z}" for x, y, z in sphere.vertices.tolist()]
    rows[20] = f"0 {value} 0"
    corners = sphere.faces.tolist()
    faces = [f"3 {a} {b} {c}" for a, b, c in corners]
    counts = f"element vertex {len(rows)}\nproperty float x\nproperty float y\nproperty float z\n"
    counts += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header"
    texts = {
        "a.off": (["OFF", "# from a scanner", "", f"{len(rows)} {len(faces)} 0", *rows, *faces], 25),
        "a.obj": (["o it", *(f"v {row}" for row in rows), *(f"f {a + 1} {b + 1} {c + 1}" for a, b, c in corners)], 22),
        "a.ply": (["ply", "format ascii 1.0", *counts.split("\n"), *rows, "", *faces], 30),
        "a.xyz": (["x y z", "# one a line", *rows], 23),
        "a.pts": ([str(len(rows)), *rows], 22),
    }
    for name, (lines, number) in texts.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        with pytest.raises(ReadError, match=r"vertex 20 is .* every coordinate must be a finite number") as caught:
            read(tmp_path / name)
        assert caught.value.line == number, name
        assert value in lines[number - 1]
