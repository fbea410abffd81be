"""PLY, of text and binary."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from pointcentroid.errors import ReadError
from pointcentroid.io import read

from ..meshes import area, assert_cut_from

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
