"""Wavefront OBJ."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from pointcentroid.errors import ReadError
from pointcentroid.io import obj, read

from ..meshes import area, assert_cut_from


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


def test_obj_with_comments_and_lines_of_old_macs(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    text = trimesh.exchange.obj.export_obj(sphere, include_normals=False)
    commented = "\n".join(f"{line} # note" if line[:2] in ("f ", "v ") else line for line in text.splitlines())
    for changed in (commented, text.replace("\n", "\r"), commented.replace("\n", "\r\n")):
        (tmp_path / "a.obj").write_bytes(changed.encode())
        assert area(tmp_path / "a.obj") == pytest.approx(sphere.area, rel=1e-5)


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


def test_only_corners_of_an_obj_may_have_a_slash(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1/2 0\nf 1/1 2/2 3/3\n")
    with pytest.raises(ReadError, match="line 3: expected three coordinates, found 'v 0 1/2 0'"):
        read(tmp_path / "a.obj")
