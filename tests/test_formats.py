"""Every other format: the same geometry comes back from each, and damage is an error."""

from __future__ import annotations

import itertools
import os
import re
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from pointcentroid import io
from pointcentroid.data.layouts import find_shapes
from pointcentroid.errors import DataError, MissingExtraError, ReadError
from pointcentroid.io import READERS, obj, read
from pointcentroid.io.ply import cloud_bytes
from pointcentroid.io.polygons import triangles

from .conftest import EXAMPLES
from .meshes import area, assert_cut_from, quantised_sphere


@pytest.mark.parametrize("suffix", [".off", ".obj", ".ply", ".stl", ".glb", ".3mf"])
def test_mesh_formats_keep_the_surface(tmp_path: Path, sphere: trimesh.Trimesh, suffix: str) -> None:
    path = tmp_path / f"sphere{suffix.upper()}"  # suffixes are read in any case
    data = sphere.export(file_type=suffix[1:])
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    assert area(path) == pytest.approx(sphere.area, rel=1e-5)


def write_points(path: Path, points: np.ndarray) -> None:
    kind = path.suffix
    if kind in (".xyz", ".txt"):
        np.savetxt(path, points)
    elif kind == ".csv":
        np.savetxt(path, points, delimiter=",", header="x,y,z", comments="")
    elif kind == ".pts":
        np.savetxt(path, points, header=str(len(points)), comments="")
    elif kind == ".npy":
        np.save(path, points)
    elif kind == ".npz":
        np.savez(path, points=points)
    elif kind == ".ply":
        trimesh.PointCloud(points).export(path)
    elif kind in (".las", ".laz"):
        import laspy

        cloud = laspy.create()
        cloud.header.scales, cloud.header.offsets = np.full(3, 1e-6), points.mean(axis=0)
        cloud.x, cloud.y, cloud.z = points.T
        cloud.write(str(path))


@pytest.mark.parametrize("suffix", [".xyz", ".txt", ".csv", ".pts", ".npy", ".npz", ".ply", ".las", ".laz"])
def test_point_formats_keep_the_points(tmp_path: Path, points: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"cloud{suffix}"
    write_points(path, points)
    shape = read(path)
    assert shape.faces is None
    np.testing.assert_allclose(shape.vertices, points, atol=1e-5)


@pytest.mark.parametrize("encoding", ["ASCII", "BINARY", "BINARY_COMPRESSED"])
def test_pcd_keeps_the_points_and_drops_missing_returns(tmp_path: Path, points: np.ndarray, encoding: str) -> None:
    from pypcd4.pypcd4 import Encoding, PointCloud

    path = tmp_path / "cloud.pcd"
    holes = points.astype(np.float32)
    holes[::7] = np.nan
    PointCloud.from_xyz_points(holes).save(path, encoding=Encoding[encoding])
    np.testing.assert_allclose(read(path).vertices, holes[~np.isnan(holes[:, 0])], rtol=1e-4)


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


def test_npz_may_hold_a_mesh(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    np.savez(tmp_path / "m.npz", vertices=sphere.vertices, faces=sphere.faces)
    assert area(tmp_path / "m.npz") == pytest.approx(sphere.area)


def test_columns_are_taken_by_name_where_there_are_names(tmp_path: Path, points: np.ndarray) -> None:
    rows = np.c_[np.arange(len(points)), points[:, ::-1]]
    np.savetxt(tmp_path / "named.csv", rows, delimiter=",", header='id,"Z",Y,x', comments="")
    np.testing.assert_allclose(read(tmp_path / "named.csv").vertices, points)


@pytest.mark.parametrize(
    "head",
    [
        '"Normals:0","Normals:1","Normals:2","Points:0","Points:1","Points:2"',  # ParaView
        "# nx ny nz x y z",  # numpy.savetxt
        "//Nx Ny Nz X Y Z",  # CloudCompare
        "a,b,c,px,py,pz",
        "a,b,c,pos_x,pos_y,pos_z",
        "a,b,c,Point.x,Point.y,Point.z",
        "a,b,c,X_COORD,Y_COORD,Z_COORD",
        "a,b,c,x_m,y_m,z_m",
        "a,b,c,Easting,Northing,Elevation",
    ],
)
def test_columns_are_named_as_programs_name_them(tmp_path: Path, points: np.ndarray, head: str) -> None:
    between = " " if head[0] in "#/" else ","
    rows = [between.join(map(repr, [7.0, 8.0, 9.0, *point])) for point in points.tolist()]
    (tmp_path / "t.csv").write_text("\n".join([head, *rows]))
    np.testing.assert_array_equal(read(tmp_path / "t.csv").vertices, points)


@pytest.mark.parametrize("between", [",", "\t", ";"])
@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("width", [3, 6])
def test_columns_that_are_only_counted_are_the_first_three(
    tmp_path: Path, points: np.ndarray, width: int, index: bool, between: str
) -> None:
    """As pandas writes a frame of an array; voxels, of whole numbers, may begin with such a row."""
    rows = np.c_[points, np.ones((len(points), width - 3))].tolist()
    lines = [between.join(map(str, range(width))), *(between.join(map(repr, row)) for row in rows)]
    if index:
        lines = [between + lines[0], *(f"{number}{between}{line}" for number, line in enumerate(lines[1:]))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    np.testing.assert_array_equal(read(tmp_path / "t.csv").vertices, points)
    voxels = [(0, 1, 2), *((-i, i * i % 7, 3) for i in range(1, 20))]
    (tmp_path / "t.csv").write_text("\n".join(between.join(map(str, row)) for row in voxels))
    np.testing.assert_array_equal(read(tmp_path / "t.csv").vertices, voxels)


def test_names_may_have_a_title_above_them(tmp_path: Path, points: np.ndarray) -> None:
    rows = [",".join(map(repr, [7.0, *point])) for point in points.tolist()]
    (tmp_path / "t.csv").write_text("\n".join(["Exported by a scanner", "", "id,X,Y,Z", *rows]))
    np.testing.assert_array_equal(read(tmp_path / "t.csv").vertices, points)
    for head in (["id,X,Y,Z", "a,b,c,d"], ["a title", "and another", "id,X,Y,Z"]):
        (tmp_path / "t.csv").write_text("\n".join([*head, *rows]))
        with pytest.raises(ReadError, match="three coordinates") as caught:
            read(tmp_path / "t.csv")
        assert caught.value.line == 2


def test_columns_whose_names_say_nothing_are_no_guess(tmp_path: Path, points: np.ndarray) -> None:
    rows = [",".join(map(repr, [1.0, *point])) for point in points.tolist()]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,d", *rows]))
    with pytest.raises(ReadError, match="its columns are a, b, c, d; none are called x, y, z"):
        read(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("\n".join(["a scan of mine", *(row[4:] for row in rows)]))  # a title
    np.testing.assert_array_equal(read(tmp_path / "t.csv").vertices, points)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_quoted_numbers_and_names_in_any_encoding(tmp_path: Path, points: np.ndarray, encoding: str) -> None:
    rows = [f'"H\u00f6he, 7","{x}","{y}","{z}"' for x, y, z in points.tolist()]
    (tmp_path / "t.csv").write_text("\n".join(['"name","x","y","z"', *rows]), encoding=encoding)
    np.testing.assert_array_equal(read(tmp_path / "t.csv").vertices, points)


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("# x y z", "{}\t\t{}\t\t{}"),
        ("# x y z i", "{}\t{}\t{} 4"),
        ("# x y z r g b", "{} {} {};4;5;6"),
        ("//X,Y,Z,R,G,B", "{} {} {},4,5,6"),
        ("# last run z y x", "{} {} {} 4 5"),
        ("Scanned by Leica RTC360 yesterday evening", "{} {} {} 4 5 6"),
        ('x,y,z,"note"', '{},{},{},"' + "n" * 150_000 + '"'),
    ],
)
def test_what_stands_above_points_does_not_keep_them_from_being_read(
    tmp_path: Path, points: np.ndarray, head: str, row: str
) -> None:
    (tmp_path / "t.txt").write_text("\n".join([head, *(row.format(*point) for point in points.tolist())]))
    np.testing.assert_array_equal(read(tmp_path / "t.txt").vertices, points)


def test_scans_one_after_the_other_in_a_pts(tmp_path: Path, points: np.ndarray) -> None:
    rows = [" ".join(map(repr, point)) + " 7 255 0 0" for point in points.tolist()]
    (tmp_path / "t.pts").write_text("\n".join(["10", *rows[:10], str(len(rows) - 10), *rows[10:]]))
    np.testing.assert_array_equal(read(tmp_path / "t.pts").vertices, points)


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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("COUNT 1 1 1\n", ""), ""),
        (lambda text: text.replace("TYPE F F F", "TYPE f f f"), ""),
        (lambda text: text.replace("POINTS 20\n", ""), ""),
        (lambda text: text.replace("FIELDS x y z", "FIELDS\tx\ty\tz"), ""),
        (lambda text: text.replace("FIELDS x y z", "COLUMNS x y z"), ""),
        (lambda text: text.replace("FIELDS x y z\n", ""), "lacks FIELDS"),
        (lambda text: text.replace("FIELDS x y z", "FIELDS i n x y z"), "5 FIELDS, 3 SIZE, 3 TYPE and 3 COUNT"),
        (lambda text: text.replace("POINTS 20\n", "").replace("WIDTH 20\n", ""), "lacks POINTS"),
        (lambda text: text.replace("TYPE F F F", "TYPE F U F").replace("4 4 4", "4 3 4"), "a TYPE U of SIZE 3"),
        (lambda text: text.replace("COUNT 1 1 1", "COUNT 1 1 2"), "several numbers of z, expected COUNT 1"),
        (lambda text: text.replace("DATA ascii", "DATA gzip"), "DATA gzip, expected ascii, binary or binary_compressed"),
    ],
)
def test_pcd_headers_may_leave_out_what_is_clear(tmp_path: Path, change: Callable[[str], str], says: str) -> None:
    points = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    head = "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 20\nHEIGHT 1\nPOINTS 20\nDATA ascii\n"
    (tmp_path / "a.pcd").write_text(change(head) + "\n".join(" ".join(map(str, point)) for point in points))
    if says:
        with pytest.raises(ReadError, match=says):
            read(tmp_path / "a.pcd")
    else:
        np.testing.assert_allclose(read(tmp_path / "a.pcd").vertices, points, rtol=1e-6)


def test_an_ascii_pcd_may_be_laid_out_in_any_way(tmp_path: Path) -> None:
    """Columns aligned with blanks or tabs, blank and surplus lines, marks of no number as Windows writes them, fields of
    several numbers; and lines that lack one, or hold a word, are named."""
    points = np.random.default_rng(0).normal(size=(20, 3)).round(5)
    head = "VERSION 0.7\nFIELDS i y x xy z\nSIZE 4 4 4 4 4\nTYPE F F F F F\nCOUNT 1 1 1 2 1\nPOINTS 20\nDATA ascii\n"
    layouts = {
        "plain": "{2} {1} {0} 0 1 {3}\n",
        "aligned": "  {2:>12}  {1:>12}  {0:>12}    0    1  {3:>12}\n",
        "tabs": "{2}\t{1}\t{0}\t0\t1\t{3}\r\n",
        "trailing": "{2} {1} {0} 0 1 {3} \n",
        "apart": "{2} {1} {0} 0 1 {3}\n\n",
        "unused": "-nan(ind) {1} {0} nan word {3}\n",
    }
    path = tmp_path / "a.pcd"
    for layout in layouts.values():
        rows = [layout.format(x, y, 0.5, z) for x, y, z in points]
        path.write_text(head + "".join(rows) + "7 7 7 7 7 7\n" * 2)
        np.testing.assert_array_equal(read(path).vertices, points)
        path.write_text(head + "".join(rows[:-1]))
        with pytest.raises(ReadError, match="cut short: the header declares 20 points, the file holds 19"):
            read(path)
        path.write_text(head + layout.format("-nan(ind)", 1, 0.5, 2) + "".join(rows[1:]))
        np.testing.assert_array_equal(read(path).vertices, points[1:])
        for broken in ("0.5 1 2 0 1\n", "0.5 1 two 0 1 3\n"):
            path.write_text(head + rows[0] + broken + "".join(rows[2:]))
            with pytest.raises(ReadError, match=r"line (9|10): expected 6 numbers, found '0.5 1 "):
                read(path)


@pytest.mark.parametrize("name", ["my vertex mesh", "vertexcloud", "Vertex1", "endsolidx", "facet normal", "", "a\tb"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_text_stl_may_have_any_name(tmp_path: Path, sphere: trimesh.Trimesh, name: str, end: str) -> None:
    text = trimesh.exchange.stl.export_stl_ascii(sphere).strip().splitlines()
    solid = [f"solid {name}", *text[1:-1], f"endsolid {name}", ""]
    (tmp_path / "a.stl").write_bytes(end.join(solid * 2).encode())
    shape = read(tmp_path / "a.stl")
    assert shape.faces is not None
    assert len(shape.faces) == 2 * len(sphere.faces)
    assert area(tmp_path / "a.stl") == pytest.approx(2 * sphere.area, rel=1e-4)


def test_a_table_that_excel_wrote_may_name_its_separator(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sep=;\nname;x;y;z\n" + "".join(f"p{i};{i};{i * i};-{i}\n" for i in range(20)))
    np.testing.assert_array_equal(read(tmp_path / "a.csv").vertices, [(i, i * i, -i) for i in range(20)])


def test_a_comma_in_a_label_hides_no_point(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"{i} {i * i} {-i} tree, big\n" for i in range(20)))
    assert len(read(tmp_path / "a.txt").vertices) == 20


def test_text_tables_may_hold_comments_blank_lines_and_more_columns(tmp_path: Path) -> None:
    rows = [f"{i} {i * i} {-i};255;0;0" for i in range(20)]
    (tmp_path / "t.txt").write_text("# scan 7\n\n// made by hand\n" + "\n".join(rows) + "\n\n")
    np.testing.assert_array_equal(read(tmp_path / "t.txt").vertices[3], (3, 9, -3))


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("point id,x,y,z,intensity", "scan 7,{0:.3f},{1:.3f},{2:.3f},9"),
        ("id;x;y;z", "7;{0:.3f};{1:.3f};{2:.3f}"),
        ("id, x, y, z", "7, {0:.3f}, {1:.3f}, {2:.3f}"),
        ("note,x,y,z", ",{0:.3f},{1:.3f},{2:.3f}"),
    ],
)
def test_cells_may_hold_blanks_or_nothing(tmp_path: Path, points: np.ndarray, head: str, row: str) -> None:
    (tmp_path / "t.csv").write_text("\n".join([head, *(row.format(*xyz) for xyz in points)]))
    np.testing.assert_allclose(read(tmp_path / "t.csv").vertices, points, atol=6e-4)


def test_a_comma_between_semicolons_is_a_decimal_point(tmp_path: Path, points: np.ndarray) -> None:
    rows = [";".join(f"{value:.3f}" for value in xyz).replace(".", ",") for xyz in points]
    (tmp_path / "t.csv").write_text("\n".join(["x;y;z", *rows]))
    np.testing.assert_allclose(read(tmp_path / "t.csv").vertices, points, atol=6e-4)


@pytest.mark.parametrize(
    ("between", "head"),
    [
        *itertools.product(["\t", " ", "   "], ["", "x{0}y{0}z\n"]),
        ("\t", "X [m]{0}Y [m]{0}Z [m]\n"),  # names with blanks between blanks mean nothing
    ],
)
def test_a_comma_in_numbers_between_blanks_is_a_decimal_point(
    tmp_path: Path, points: np.ndarray, between: str, head: str
) -> None:
    rows = [between.join(f"{value:.3f}".replace(".", ",") for value in point) for point in points]
    (tmp_path / "a.txt").write_text(head.format(between) + "\n".join(rows) + "\n")
    np.testing.assert_allclose(read(tmp_path / "a.txt").vertices, points, atol=6e-4)


def test_columns_may_be_named_with_units(tmp_path: Path, points: np.ndarray) -> None:
    rows = [f"{row},{x},{y},{z}" for row, (x, y, z) in enumerate(points.tolist())]
    (tmp_path / "a.csv").write_text("id,X [m],Y (m),z\n" + "\n".join(rows))
    np.testing.assert_array_equal(read(tmp_path / "a.csv").vertices, points)


@pytest.mark.parametrize(
    ("rows", "line", "says"),
    [
        (["id,x,y,z,intensity", "4,1,2,3,9", "5,,0.6,0.6,9"], 3, "three coordinates"),
        (["1,2,3,9"] * 4 + [",2,3,9"], 5, "three coordinates"),
        (["1 2 3"] * 20 + ["1 2"], 21, "three coordinates"),
        (["1 2 3"] * 3 + ["1 x 3"] + ["1 2 3"] * 20, 4, "three coordinates"),
        (["# nothing"], None, "no geometry"),
        (["color,x,y,z", "#ff0000,1,2,3", "#00ff00,4,5,6"], None, "begin with #, as comments do"),
        (["1 2 3"] * 30, None, "coincide"),
        (["1 2 3", "4 5 6"], None, "only 2 points"),
        (["1 2 3", "4 5 inf"] * 20, 2, "finite"),
    ],
)
def test_bad_tables_are_errors(tmp_path: Path, rows: list[str], line: int | None, says: str) -> None:
    path = tmp_path / "bad.xyz"
    path.write_text("\n".join(rows))
    with pytest.raises(ReadError, match=says) as caught:
        read(path)
    assert caught.value.line == line


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


NUMBERS = {"char": "i1", "ushort": "u2", "int32": "i4", "uint": "u4", "int64": "i8", "float": "f4", "double": "f8"}


def ply_file(order: str, elements: dict[str, tuple[list[str], list[list]]], end: str = "\n") -> bytes:
    """A PLY file of elements: the types and names of their properties, and their rows."""
    sign = {"ascii": "", "binary_big_endian": ">"}.get(order, "<")
    lines, body = ["ply", f"format {order} 1.0", "comment end_header \u00c5 is below", "obj_info made here"], []
    for name, (properties, rows) in elements.items():
        lines += [f"element {name} {len(rows)}", *(f"property {p}" for p in properties)]
        for row in rows:
            words: list[np.ndarray] = []
            for p, value in zip(properties, row, strict=True):
                *counted, kind = (np.dtype(sign + NUMBERS[word]) for word in p.split()[:-1] if word != "list")
                words += [np.array([len(value)], counted[0])] if counted else []
                words.append(np.atleast_1d(np.array(value, kind)))
            written = " ".join(str(number) for word in words for number in word.tolist())
            body.append((written + end).encode() if order == "ascii" else b"".join(word.tobytes() for word in words))
    return end.join([*lines, "end_header", ""]).encode() + b"".join(body)


@given(st.data())
def test_ply_files_however_they_are_written(tmp_path_factory, data: st.DataObject) -> None:
    """Of text and binary, polygons alike or not, elements and properties in any order, also such as nobody knows."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    order = data.draw(st.sampled_from(["ascii", "binary_little_endian", "binary_big_endian"]))
    kind = data.draw(st.sampled_from(["float", "double"]))
    vertices = rng.normal(size=(20, 3)).astype(NUMBERS[kind]).astype(np.float64)
    sizes = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=12) | st.lists(st.just(4), min_size=1, max_size=4))
    polygons = [rng.permutation(20)[:size].tolist() for size in sizes]
    counted, index = data.draw(st.sampled_from(["char", "ushort", "int64"])), data.draw(st.sampled_from(["char", "uint"]))
    axes, letters = data.draw(st.permutations([0, 1, 2])), data.draw(st.sampled_from(["xyz", "XYZ"]))
    of_vertex, points = [f"{kind} {letters[axis]}" for axis in axes], vertices[:, axes].tolist()
    if data.draw(st.booleans()):
        of_vertex, points = [*of_vertex, "list char int32 seen_by"], [[*p, list(range(n % 3))] for n, p in enumerate(points)]
    named = data.draw(st.sampled_from(["vertex_indices", "vertex_index", "vertex_list", "corners"]))
    of_face, corners = [f"list {counted} {index} {named}"], [[polygon] for polygon in polygons]
    if data.draw(st.booleans()):
        of_face, corners = ["ushort flags", *of_face, "list char float texcoord"], [[7, *c, [0.5, 2]] for c in corners]
    elements = {"vertex": (of_vertex, points), "face": (of_face, corners), "edge": (["int32 a", "char b"], [[1, 2]] * 2)}
    names = data.draw(st.permutations(["vertex", "face", "edge"]))
    content = ply_file(order, {name: elements[name] for name in names}, data.draw(st.sampled_from(["\n", "\r\n", "\r"])))
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    path.write_bytes(content)
    shape = read(path)
    np.testing.assert_array_equal(shape.vertices, vertices)
    if max(sizes) > 2:
        assert shape.faces is not None
        assert_cut_from(vertices, shape.faces, polygons)
    else:
        assert shape.faces is None
    edges = 10 if names[-1] == "edge" else 0  # bytes that nobody needs
    path.write_bytes(content.rstrip().rpartition(b" ")[0] if order == "ascii" else content[: -edges - 1])
    with pytest.raises(ReadError, match=r"cut short|expected the numbers of"):
        read(path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("4 0 1 3 2\n", "4 0 1 3\n", "line 20: expected the numbers of face 0, found '4 0 1 3'"),
        ("4 0 1 3 2\n", "4 0 1 3 x\n", "line 20: expected the numbers of face 0, found '4 0 1 3 x'"),
        ("4 0 1 3 2\n", "-1\n", "line 20: expected the numbers of face 0, found '-1'"),
        ("4 0 1 3 2\n", "nan\n", "line 20: expected the numbers of face 0, found 'nan'"),
        ("4 0 1 3 2\n", "4 0 1 3.5 2\n", "a face names vertex 3.5, which is no whole number"),
        ("4 0 1 3 2\n", "4 0 1 3 inf\n", "a face names vertex inf, which is no whole number"),
        ("4 0 1 3 2\n", "4 0 1 3 99999999999999999999\n", "names vertex 1e\\+20, but the vertices are 0..7"),
        ("4 0 1 3 2\n", "4 0 1 3 8\n", "a face names vertex 8, but the vertices are 0..7"),
        ("4 2 3 7 6\n", "", "cut short: the header declares 6 rows of face, the file ends after 5"),
        ("4 2 3 7 6\n", "4 2 3 7 6\n1 2 3\n", "line 26: goes on after what its header declares: '1 2 3'"),
        ("1.0 1.0 1.0\n", "1.0 1.0 1.0 255\n", "line 19: expected the numbers of vertex 7, found '1.0 1.0 1.0 255'"),
        ("format ascii 1.0\n", "", "line 4: expected a format, an element or a property of PLY, found 'element vertex 8'"),
        ("format ascii", "format text", "line 2: expected a format"),
        ("double x", "quadruple x", "line 6: expected a format, .* found 'property quadruple x'"),
        ("vertex 8", "vertex -8", "line 5: declares -8 rows of vertex"),
        ("double x", "double u", "expected properties x, y and z of vertices, found u y z"),
        ("list char uint vertex_index", "uint vertex_index", "expected a list vertex_indices of each face"),
        ("end_header", "end", "not a PLY file"),
    ],
)
def test_what_is_wrong_with_a_ply_of_text(tmp_path: Path, old: str, new: str, says: str) -> None:
    corners = [list(corner) for corner in itertools.product((0.0, 1.0), repeat=3)]
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [1, 5, 7, 3], [0, 2, 6, 4], [2, 3, 7, 6]]
    elements = {
        "vertex": ([f"double {axis}" for axis in "xyz"], corners),
        "face": (["list char uint vertex_index"], [[quad] for quad in quads]),
    }
    path = tmp_path / "a.ply"
    text = ply_file("ascii", elements).decode()
    path.write_text(text)
    assert area(path) == pytest.approx(6)
    path.write_text(text.replace(old, new))
    with pytest.raises(ReadError, match=says):
        read(path)


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian"])
def test_strips_of_triangles(tmp_path: Path, order: str) -> None:
    """A ring of quads as one strip, and its two ends as two more, parted by -1 and by lists; all facing outwards."""
    ring = [[np.cos(a), np.sin(a), z] for a in np.arange(12) * np.pi / 6 for z in (0.0, 1.0)]
    around = [*range(24), 0, 1]
    below, above = [0, 2, 22, 4, 20, 6, 18, 8, 16, 10, 14, 12], [3, 1, 5, 23, 7, 21, 9, 19, 11, 17, 13, 15]
    lists = [[[*around, -1, *below]], [[*above, -1]]]
    elements = {"vertex": ([f"double {a}" for a in "xyz"], ring), "tristrips": (["list int32 int32 vertex_indices"], lists)}
    (tmp_path / "a.ply").write_bytes(ply_file(order, elements))
    shape = read(tmp_path / "a.ply")
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert abs(mesh.volume) == pytest.approx(3)  # twelve sectors of sin(30 degrees) / 2


def test_a_binary_ply_of_triangles_and_quads_keeps_the_surface(tmp_path: Path) -> None:
    box = trimesh.creation.box()
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]
    header = "ply\r\nformat binary_little_endian 1.0\r\nelement vertex 8\r\n"
    header += "".join(f"property double {axis}\r\n" for axis in "xyz")
    header += "element face 8\r\nproperty list uint8 uint32 vertex_index\r\nend_header\r\n"
    corners = np.array(list(itertools.product((0, 1), repeat=3)), dtype="<f8")
    body = corners.tobytes() + b"".join(bytes([len(q)]) + np.array(q, "<u4").tobytes() for q in quads)
    (tmp_path / "box.ply").write_bytes(header.encode() + body)
    assert area(tmp_path / "box.ply") == pytest.approx(box.area)


@pytest.mark.parametrize("header", [b"OFF binary", b"ply\nof mine", b"glTF", b"LASF", b"solid facet"])
def test_headers_of_binary_stl_may_begin_with_anything(tmp_path: Path, sphere: trimesh.Trimesh, header: bytes) -> None:
    content = sphere.export(file_type="stl")
    (tmp_path / "a.stl").write_bytes(header.ljust(80) + content[80:])
    assert len(read(tmp_path / "a.stl").faces) == len(sphere.faces)


def test_text_stl_of_any_case_with_a_long_name_and_a_last_solid_that_is_cut(tmp_path: Path) -> None:
    whole = trimesh.creation.box().export(file_type="stl_ascii")
    (tmp_path / "a.stl").write_text(whole.upper())
    assert area(tmp_path / "a.stl") == pytest.approx(6)
    (tmp_path / "a.stl").write_text(
        "solid " + "x" * 3000 + whole[whole.index("\n") :] + "\n# made by facet tool " + "y" * 2000
    )
    assert area(tmp_path / "a.stl") == pytest.approx(6)
    second = whole[: whole.index("endfacet", 500)]
    (tmp_path / "a.stl").write_text(whole + "\n" + second)
    with pytest.raises(ReadError, match="cut short: its last facet does not end"):
        read(tmp_path / "a.stl")


@pytest.mark.parametrize("name", [b"binary", b"solid binary"])
def test_what_stands_behind_the_triangles_of_an_stl_is_left_out(
    tmp_path: Path, sphere: trimesh.Trimesh, name: bytes
) -> None:
    content = trimesh.exchange.stl.export_stl(sphere)
    (tmp_path / "a.stl").write_bytes(name.ljust(80, b"\0") + content[80:] + b"more")
    assert area(tmp_path / "a.stl") == pytest.approx(sphere.area, rel=1e-5)


@pytest.mark.parametrize("count", [0, 2**32 - 1])
def test_an_stl_may_leave_its_triangles_uncounted(tmp_path: Path, sphere: trimesh.Trimesh, count: int) -> None:
    content = trimesh.exchange.stl.export_stl(sphere)
    content = content[:80] + count.to_bytes(4, "little") + content[84:]
    (tmp_path / "a.stl").write_bytes(content)
    assert area(tmp_path / "a.stl") == pytest.approx(sphere.area, rel=1e-5)
    (tmp_path / "a.stl").write_bytes(content[:-1])
    with pytest.raises(ReadError, match="cut short" if count else "no geometry"):
        read(tmp_path / "a.stl")


def test_a_text_stl_may_lack_its_last_line_but_no_part_of_a_facet(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    text = trimesh.exchange.stl.export_stl_ascii(sphere)
    whole = text[: text.index("endsolid")]
    for ending in ("endsolid", "endsolid a sphere\n", "", "\n\n", "ENDSOLID"):
        (tmp_path / "a.stl").write_text(whole + ending)
        assert area(tmp_path / "a.stl") == pytest.approx(sphere.area, rel=1e-5)
    for length in (len(whole) - 3, len(whole) - 12, len(whole) // 2, 500):
        (tmp_path / "a.stl").write_text(whole[:length])
        with pytest.raises(ReadError, match="cut short: its last facet does not end"):
            read(tmp_path / "a.stl")


@pytest.mark.parametrize("corner", ["{0}", "{0}/{0}", "{0}//{1}", "{0}/{0}/{1}"])
def test_corners_of_an_obj_may_count_back_from_where_they_stand(
    tmp_path: Path, sphere: trimesh.Trimesh, corner: str
) -> None:
    """Two balls, one after the other, the second with fewer normals before it than vertices."""
    lines = ["# two balls"]
    for x in (0.0, 5.0):
        lines += [f"v {x + a} {b} {c}\nvt 0 0" for a, b, c in sphere.vertices]
        lines += ["vn 0 0 1"] * 3
        lines += ["f " + " ".join(corner.format(n - len(sphere.vertices), -1) for n in face) for face in sphere.faces]
    path = tmp_path / "balls.obj"
    path.write_text("\n".join(lines) + "\n")
    shape = read(path)
    corners = shape.vertices[shape.faces]
    expected = np.concatenate([sphere.triangles, sphere.triangles + np.array([5, 0, 0])])
    np.testing.assert_allclose(corners, expected, atol=1e-6)
    spaced = itertools.cycle(["f ", "  f\t", "f\t\t"])
    path.write_text("\n".join(next(spaced) + line[1:] if line.startswith("f") else line for line in lines) + "\n")
    np.testing.assert_allclose(read(path).vertices[read(path).faces], expected, atol=1e-6)
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 -2 -1\nv 5 0 0\nv 6 0 0\nv 5 1 0\nf 4 -2 -1\n")
    assert read(path).faces.tolist() == [[0, 1, 2], [3, 4, 5]]
    path.write_text("v 0 0 0\nf -1 -2 -3\n")
    with pytest.raises(ReadError, match="names vertex -2, but only 1 come before it"):
        read(path)


@given(st.data())
def test_obj_files_however_they_are_written(tmp_path_factory, data: st.DataObject) -> None:
    """Indented, with comments, colours, ends of lines of all systems, lines that go on, and every notation of corners."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    vertices = rng.normal(size=(data.draw(st.integers(8, 20)), 3)).round(3)
    polygons = [rng.permutation(len(vertices))[: rng.integers(0, 7)].tolist() for _ in range(data.draw(st.integers(1, 9)))]
    indent, space = (st.sampled_from(["", " ", "   ", "\t"]), st.sampled_from([" ", "  ", "\t", " \\\n "]))
    more = data.draw(st.sampled_from(["", " 1.0", " 0.5 0.5 0.5", " # corner"]))
    lines = ["# D:\\shapes\\"] if data.draw(st.booleans()) else []
    for x, y, z in vertices:
        gap = data.draw(space)
        lines.append(f"{data.draw(indent)}v{gap}{x}{gap}{y}{gap}{z}{more}")
    for number, polygon in enumerate(polygons):
        lines += [data.draw(st.sampled_from(["", "vn 0 0 1", "usemtl f", "o a", "g b # c", "#f 1 2 3", "s 1"]))]
        form = data.draw(st.sampled_from(["{}", "{}/1", "{}//2", "{}/1/2"]))
        back = data.draw(st.booleans())
        corners = [form.format(corner - len(vertices) if back else corner + 1) for corner in polygon]
        lines.append(f"{data.draw(indent)}f {' '.join(corners)}{'  # face' * (number % 2)}")
    mark = data.draw(st.sampled_from(["", "\ufeff"]))
    path = tmp_path_factory.mktemp("obj") / "a.obj"
    path.write_text(mark + data.draw(st.sampled_from(["\n", "\r\n", "\r"])).join(lines), newline="")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(obj, "_CHUNK", data.draw(st.sampled_from([1, 60, 2**20])))
        found = obj.parted(path)
    np.testing.assert_array_equal(found.vertices, vertices)
    assert_cut_from(vertices, found.faces, polygons)


def test_lines_of_an_obj_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    path.write_bytes(b"# D:\\\nv 0 0 \\\n 0\nv 1 0\x0b0\nv 0 x 0\n")
    with pytest.raises(ReadError, match="line 5: expected three coordinates, found 'v 0 x 0'"):
        read(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_obj_of_any_encoding_and_of_whole_numbers_far_away(tmp_path: Path, encoding: str) -> None:
    far = 10**11
    quad = f"v 0 0 0\nv {far} {far} 0\nv 0 {-far} 0\nv {-far} {far} 0\nf 2 3 4 1\n"
    (tmp_path / "a.obj").write_text(quad, encoding=encoding)
    shape = read(tmp_path / "a.obj")
    assert shape.vertices.dtype == np.float64
    assert area(tmp_path / "a.obj") == pytest.approx(far**2)  # a dart: fans would cover what is outside


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", ["off", "ply"])
def test_off_and_ply_of_any_encoding(tmp_path: Path, sphere: trimesh.Trimesh, kind: str, encoding: str) -> None:
    more = {"encoding": "ascii"} if kind == "ply" else {}
    made = sphere.export(file_type=kind, **more)
    text = made if isinstance(made, str) else made.decode()
    (tmp_path / f"a.{kind}").write_text(text, encoding=encoding)
    assert area(tmp_path / f"a.{kind}") == pytest.approx(sphere.area, rel=1e-4)


@pytest.mark.parametrize("mixed", [False, True])
def test_concave_polygons_of_a_binary_ply(tmp_path: Path, mixed: bool) -> None:
    """An L, alone or beside a triangle of no area."""
    ring = np.array([(1, 1, 0), (3, 1, 0), (3, 0, 0), (0, 0, 0), (0, 3, 0), (1, 3, 0)], dtype="<f4")
    faces = [list(range(6)), *[[0, 0, 0]] * mixed]
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 6\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz")
    header += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    body = b"".join(bytes([len(face)]) + np.array(face, "<i4").tobytes() for face in faces)
    (tmp_path / "a.ply").write_bytes(header.encode() + ring.tobytes() + body)
    assert area(tmp_path / "a.ply") == pytest.approx(5)


def test_polygons_of_few_corners_are_cut_many_at_once() -> None:
    """100,000 Ls, in any plane, from any corner: as one of them is cut, and in a second, not in twenty."""
    rng = np.random.default_rng(0)
    flat = np.array([(0, 0), (3, 0), (3, 1), (1, 1), (1, 3), (0, 3)], dtype=float)
    count = 100_000
    sides = np.linalg.qr(rng.normal(size=(100, 3, 2)))[0]
    rings = np.einsum("nc,pac->pna", flat, np.tile(sides, (count // 100, 1, 1)))
    order = (np.arange(6) + rng.integers(6, size=(count, 1))) % 6
    begun = time.monotonic()
    faces, of = triangles(rings.reshape(-1, 3), (order + 6 * np.arange(count)[:, None]).ravel(), np.full(count, 6))
    assert time.monotonic() - begun < 10
    a, b, c = (rings.reshape(-1, 3)[faces[:, k]] for k in range(3))
    surfaces = np.bincount(of, np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2)
    np.testing.assert_allclose(surfaces, 5, rtol=1e-9)
    assert (faces // 6 == of[:, None]).all()


def test_cutting_polygons_has_an_end() -> None:
    """Zigzags of four thousand corners, whose ears are long looked for: they stay in fans."""
    count, copies = 4000, 10
    ring = np.stack([np.arange(count) // 2, np.where(np.arange(count) % 2, 10, 1), np.zeros(count)], axis=1)
    ring[-2:] = [(count // 2, 0, 0), (0, 0, 0)]
    ring = np.roll(ring, count // 3, axis=0)
    begun = time.monotonic()
    faces, _ = triangles(ring, np.tile(np.arange(count), copies), np.full(copies, count))
    assert len(faces) == copies * (count - 2)
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("way", [1, -1])
def test_long_outlines_are_cut_whichever_way_round(way: int) -> None:
    """A ring with a gap, of two thousand corners: half of them are dents, which cost little."""
    angle = np.linspace(0, 1.9 * np.pi, 1000)
    arc = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    ring = np.concatenate([arc, 0.7 * arc[::-1]])[::way]
    faces, _ = triangles(ring, np.arange(2000), np.array([2000]))
    a, b, c = (ring[faces[:, k]] for k in range(3))
    x, y, _ = ring.T
    outline = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() == pytest.approx(outline, rel=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@given(st.integers(4, 24), st.integers(0, 2**32 - 1))
def test_polygons_are_cut_within_their_outline(axis: int, count: int, seed: int) -> None:
    """Those that do not cross themselves, here around a middle, from any corner and either way round: area is kept."""
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    flat = (rng.uniform(0.1, 1, count) * np.array([np.cos(angle), np.sin(angle)])).T
    ring = np.roll(np.insert(flat, axis, 0.3, axis=1), rng.integers(count), axis=0)[:: rng.choice([-1, 1])]
    x, y = flat.T
    widest = np.diff(np.append(angle, angle[0] + 2 * np.pi)).max()
    faces, of = triangles(ring, np.arange(count), np.array([count]))
    assert len(faces) == count - 2
    assert not of.any()
    a, b, c = (ring[faces[:, k]] for k in range(3))
    surface = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()
    outline = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())
    if widest < np.pi:  # else the middle is outside, and it may cross itself
        assert surface == pytest.approx(outline, rel=1e-6)


def test_a_text_stl_may_begin_with_blanks_or_a_mark(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    text = sphere.export(file_type="stl_ascii")
    for begin in ("", " ", "\n\n", "\ufeff"):
        (tmp_path / "a.stl").write_text(begin + text, encoding="utf-8")
        assert len(read(tmp_path / "a.stl").faces) == len(sphere.faces)


def test_headers_that_begin_as_those_of_other_formats(tmp_path: Path, sphere: trimesh.Trimesh, points: np.ndarray) -> None:
    content = sphere.export(file_type="stl")
    (tmp_path / "a.stl").write_bytes(b"ply of a converter".ljust(80) + content[80:])
    assert len(read(tmp_path / "a.stl").faces) == len(sphere.faces)
    rows = "".join(f"{x},{y},{z},1\n" for x, y, z in points)
    (tmp_path / "a.csv").write_text("x,y,z,OFFICE\n" + rows)
    np.testing.assert_allclose(read(tmp_path / "a.csv").vertices, points)
    (tmp_path / "b.csv").write_text("OFFICE,x,y,z\n" + "".join(f"1,{x},{y},{z}\n" for x, y, z in points))
    np.testing.assert_allclose(read(tmp_path / "b.csv").vertices, points)


def test_an_archive_may_hold_more_than_the_points(tmp_path: Path, points: np.ndarray) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, points=points, labels=np.array([None] * 1000, dtype=object))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readme.txt", "who made them")
    np.testing.assert_array_equal(read(path).vertices, points)


def test_fields_of_a_pcd_may_be_capitals(tmp_path: Path, points: np.ndarray) -> None:
    head = f"VERSION 0.7\nFIELDS X Y Z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH {len(points)}\nHEIGHT 1\n"
    head += f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\nDATA ascii\n"
    (tmp_path / "a.pcd").write_text(head + "".join(f"{x} {y} {z}\n" for x, y, z in points))
    np.testing.assert_allclose(read(tmp_path / "a.pcd").vertices, points, rtol=1e-6)


def test_a_laz_may_be_called_las(tmp_path: Path, points: np.ndarray) -> None:
    laspy = pytest.importorskip("laspy")
    header = laspy.LasHeader(point_format=0, version="1.2")
    header.scales = [1e-4] * 3
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = points.T
    cloud.write(tmp_path / "a.laz")
    content = (tmp_path / "a.laz").read_bytes()
    (tmp_path / "a.las").write_bytes(content)
    np.testing.assert_allclose(read(tmp_path / "a.las").vertices, points, atol=1e-4)
    start = int.from_bytes(content[96:100], "little")
    table = int.from_bytes(content[start : start + 8], "little")
    lie = content[: table + 4] + b"\xff" * 4 + content[table + 8 :] + bytes(3000)
    (tmp_path / "a.las").write_bytes(lie)  # the decoder would end the process
    with pytest.raises(ReadError, match="4294967295 chunks"):
        read(tmp_path / "a.las")


def test_obj_with_comments_and_lines_of_old_macs(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    text = trimesh.exchange.obj.export_obj(sphere, include_normals=False)
    commented = "\n".join(f"{line} # note" if line[:2] in ("f ", "v ") else line for line in text.splitlines())
    for changed in (commented, text.replace("\n", "\r"), commented.replace("\n", "\r\n")):
        (tmp_path / "a.obj").write_bytes(changed.encode())
        assert area(tmp_path / "a.obj") == pytest.approx(sphere.area, rel=1e-5)


def test_scans_are_read_where_standard_error_is_closed(tmp_path: Path, points: np.ndarray) -> None:
    write_points(tmp_path / "a.las", points)
    code = "import os, sys; os.close(2); sys.stderr = None; import pointcentroid as p; print(len(p.read('a.las').vertices))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(points)}\n"


def test_standard_error_is_as_before_after_scans_were_read_in_threads(
    tmp_path: Path, points: np.ndarray, monkeypatch
) -> None:
    laspy = pytest.importorskip("laspy")
    write_points(tmp_path / "a.las", points)
    plain, before = laspy.open, os.fstat(2)

    def slow(path: Path) -> object:
        time.sleep(0.1)
        return plain(path)

    monkeypatch.setattr(laspy, "open", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(read, tmp_path / "a.las")
        time.sleep(0.05)  # the second begins while the first is at it, and ends after it
        assert len(pool.submit(read, tmp_path / "a.las").result().vertices) == len(first.result().vertices)
    assert os.path.samestat(os.fstat(2), before)


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


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("f 1 2 1.5", "line 6: a face names vertex 1.5, which is no whole number"),
        ("f 1 2 99999999999999999999", "line 6: a face names vertex 1e+20, but there are 4"),
        ("f 1 2 nan", "line 6: a face names vertex nan, which is no whole number"),
    ],
)
def test_corners_of_an_obj_that_are_none_are_named_by_their_line(tmp_path: Path, row: str, says: str) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n" + row + "\n")
    with pytest.raises(ReadError, match=re.escape(says)):
        read(tmp_path / "a.obj")


@pytest.mark.parametrize("bad", ["vertex 0 x 0", "vertex 0 0", "vertex"])
def test_a_damaged_stl_of_text_says_where(tmp_path: Path, sphere: trimesh.Trimesh, bad: str) -> None:
    lines = sphere.export(file_type="stl_ascii").splitlines()
    lines[10] = bad  # of the second facet
    (tmp_path / "a.stl").write_text("\n".join(lines))
    with pytest.raises(ReadError, match=re.escape(f"expected a vertex of three numbers, found {bad!r}")) as caught:
        read(tmp_path / "a.stl")
    assert caught.value.line == 11


@pytest.mark.parametrize("name", ["a.npz", "a.3mf"])
def test_an_encrypted_archive_says_that_it_is(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("points.npy", b"")
    content = (tmp_path / name).read_bytes()
    place = content.rindex(b"PK\x01\x02") + 8  # its flags, in the directory at the end
    (tmp_path / name).write_bytes(content[:place] + b"\x01" + content[place + 1 :])
    with pytest.raises(ReadError, match=r"is encrypted \('points.npy'\); save it without a password"):
        read(tmp_path / name)


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("place", [100, 243])
def test_a_las_may_not_declare_more_records_than_it_holds(
    tmp_path: Path, points: np.ndarray, suffix: str, place: int
) -> None:
    """Before the points, and in version 1.4 behind them: laspy would make room for four thousand million."""
    laspy = pytest.importorskip("laspy")
    cloud = laspy.LasData(laspy.LasHeader(point_format=6, version="1.4"))
    cloud.x, cloud.y, cloud.z = points.T
    cloud.write(tmp_path / f"a{suffix}")
    content = (tmp_path / f"a{suffix}").read_bytes()
    assert read(tmp_path / f"a{suffix}").vertices.shape == points.shape
    (tmp_path / f"a{suffix}").write_bytes(content[:place] + b"\xff" * 4 + content[place + 4 :])
    start = time.process_time()
    with pytest.raises(ReadError, match="damaged LAS file: its header declares records of"):
        read(tmp_path / f"a{suffix}")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("place", "lie", "says"),
    [
        (lambda head: head + 54 + 12, b"\xfe\xff\xff\xff", "declares chunks of 4294967294 points"),
        (lambda head: head + 54 + 40 + 8 + 30 + 4, b"\xff\xff\xff\xff", "chunks of points are longer than the file"),
        (lambda head: head + 54 + 40 + 8 + 30 + 4 + 4 * 8, b"\0\0\1\0", "chunks of points are longer than the file"),
    ],
)
def test_a_laz_may_not_declare_chunks_that_it_cannot_hold(
    tmp_path: Path, points: np.ndarray, place: Callable[[int], int], lie: bytes, says: str
) -> None:
    """The decoder would make room for all that is declared; where there is none, the process ends."""
    laspy = pytest.importorskip("laspy")
    cloud = laspy.LasData(laspy.LasHeader(point_format=6, version="1.4"))
    cloud.x, cloud.y, cloud.z = points.T
    cloud.write(tmp_path / "a.laz")
    content = (tmp_path / "a.laz").read_bytes()
    at = place(int.from_bytes(content[94:96], "little"))
    (tmp_path / "a.laz").write_bytes(content[:at] + lie + content[at + 4 :])
    with pytest.raises(ReadError, match=says):
        read(tmp_path / "a.laz")


@pytest.mark.parametrize("kind", [*range(4), *range(6, 11)])
def test_laz_of_several_chunks_and_all_kinds_of_points(tmp_path: Path, kind: int) -> None:
    laspy = pytest.importorskip("laspy")
    header = laspy.LasHeader(point_format=kind, version="1.4" if kind > 5 else "1.2")
    header.add_extra_dim(laspy.ExtraBytesParams("quality", np.float64))
    cloud = laspy.LasData(header)
    places = np.random.default_rng(kind).integers(-1000, 1000, (110_000, 3)) / 100  # chunks are of 50,000
    cloud.x, cloud.y, cloud.z = places.T
    cloud.write(tmp_path / "a.laz")
    assert read(tmp_path / "a.laz").vertices == pytest.approx(places, abs=1e-6)


def test_only_corners_of_an_obj_may_have_a_slash(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1/2 0\nf 1/1 2/2 3/3\n")
    with pytest.raises(ReadError, match="line 3: expected three coordinates, found 'v 0 1/2 0'"):
        read(tmp_path / "a.obj")


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
