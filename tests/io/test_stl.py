"""STL, of text and binary."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trimesh

from pointcentroid.errors import ReadError
from pointcentroid.io import read

from ..meshes import area


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


def test_a_text_stl_may_begin_with_blanks_or_a_mark(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    text = sphere.export(file_type="stl_ascii")
    for begin in ("", " ", "\n\n", "\ufeff"):
        (tmp_path / "a.stl").write_text(begin + text, encoding="utf-8")
        assert len(read(tmp_path / "a.stl").faces) == len(sphere.faces)


@pytest.mark.parametrize("bad", ["vertex 0 x 0", "vertex 0 0", "vertex"])
def test_a_damaged_stl_of_text_says_where(tmp_path: Path, sphere: trimesh.Trimesh, bad: str) -> None:
    lines = sphere.export(file_type="stl_ascii").splitlines()
    lines[10] = bad  # of the second facet
    (tmp_path / "a.stl").write_text("\n".join(lines))
    with pytest.raises(ReadError, match=re.escape(f"expected a vertex of three numbers, found {bad!r}")) as caught:
        read(tmp_path / "a.stl")
    assert caught.value.line == 11
