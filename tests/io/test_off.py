"""The OFF reader: everything real files do, and an error with a line for everything they should not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from pointcentroid.errors import ReadError
from pointcentroid.io import read

from ..meshes import assert_cut_from


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def surface(path: Path) -> tuple[float, float]:
    shape = read(path)
    assert shape.faces is not None
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    return mesh.area, abs(mesh.volume)


def test_a_cube_of_quads_has_the_area_and_volume_of_a_cube(cube: Path) -> None:
    assert surface(cube) == pytest.approx((6.0, 1.0))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace("OFF\n", "OFF"),  # glued header, as in ModelNet40
        lambda t: t.replace("OFF\n", "OFF "),
        lambda t: t.replace("\n", "\r\n"),
        lambda t: t.rstrip("\n"),  # no last newline
        lambda t: t.replace("8 6 12", "8 6"),  # no count of edges
        lambda t: t.replace("OFF\n", "# made by hand\nOFF\n# counts follow\n\n"),
        lambda t: t.replace("0 0 1\n", "0 0 1 # the second vertex\n"),
        lambda t: t.replace("\n4 ", "\n\n4 "),  # blank lines between faces
        lambda t: t.replace(" 5 7 3", " 5 7 3 255 0 0"),  # a colour behind a face
        lambda t: "\ufeff" + t,  # byte order mark
        lambda t: t.replace("OFF", "off"),
        lambda t: "OFF\n" + " ".join(t.split()[1:]),  # all numbers in one line: the format is a stream
        lambda t: t.replace("4 0 1 3 2\n", "3 0 1 3\n3 0 3 2\n").replace("8 6 12", "8 7 0"),  # mixed polygons
        lambda t: t.replace("8 6 12", "8 8 0") + "2 0 1\n1 5\n",  # edges and corners among the faces
    ],
)
def test_variants_read_as_the_same_surface(cube: Path, change) -> None:
    write(cube, change(cube.read_text()))
    assert surface(cube) == pytest.approx((6.0, 1.0))


@pytest.mark.parametrize(("keyword", "extra"), [("COFF", " 255 0 0 255"), ("NOFF", " 0 0 1"), ("CNOFF", " 0 0 1 9 9 9 9")])
def test_colours_and_normals_of_vertices_are_passed_over(cube: Path, keyword: str, extra: str) -> None:
    lines = cube.read_text().splitlines()
    write(cube, "\n".join([keyword, lines[1], *(line + extra for line in lines[2:10]), *lines[10:]]))
    assert surface(cube) == pytest.approx((6.0, 1.0))


@pytest.mark.parametrize(
    ("change", "line", "says"),
    [
        (lambda t: t.replace("OFF", "OBJ"), 1, "expected the keyword OFF"),
        (lambda t: t.replace("OFF", "4OFF"), 1, "expected"),
        (lambda t: t.replace("OFF", "OFF BINARY"), 1, "binary OFF"),
        (lambda _: "OFF\n", 1, "ends before the counts"),
        (lambda t: t.replace("8 6 12", "8 six 12"), 2, "expected the counts"),
        (lambda t: t.replace("8 6 12", "-8 6 12"), 2, "expected the counts"),
        (lambda t: t.replace("8 6 12", "1000000000 6 12"), 2, "more than its"),
        (lambda t: t.replace("0 0 1\n", "0 0\n"), 4, "three coordinates"),
        (lambda t: t.replace("0 0 1\n", "0 zero 1\n"), 4, "three numbers"),
        (lambda t: t.replace("4 0 1 3 2", "4 0 1 3 8"), 11, "names vertex 8, but the vertices are 0..7"),
        (lambda t: t.replace("4 0 1 3 2", "4 0 1 3 -1"), 11, "names vertex -1"),
        (lambda t: t.replace("4 0 1 3 2", "4 0 1 3"), 11, "declares 4 corners and lists 3"),
        (lambda t: t.replace("4 0 1 3 2", "4 0 1 x 2"), 11, "vertex indices"),
        (lambda t: t[: t.index("4 0 4 5 1")], 12, "cut short: the header declares 6 faces, the file ends after 2"),
        (lambda t: t[: t.index("1 0 1\n")], 2, "declares 8 vertices and 6 faces, more than its 41 bytes can hold"),
        (lambda t: t + "4 0 1 3 2\n", 17, "goes on after the 6 faces"),
        (lambda t: t.replace("0 0 1\n", "0 0 nan\n"), 4, "finite"),
        (lambda t: t.replace("0 0 1\n", "0 0 1e200\n"), None, "damaged"),
    ],
)
def test_mistakes_are_errors_with_their_line(cube: Path, change, line: int | None, says: str) -> None:
    write(cube, change(cube.read_text()))
    with pytest.raises(ReadError, match=says) as caught:
        read(cube)
    assert caught.value.line == line
    assert str(cube) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stray", ["nan nan nan", "1e200 0 0", "1e149 0 0", "inf 0 0"])
def test_a_vertex_that_no_face_uses_is_not_part_of_the_surface(cube: Path, stray: str) -> None:
    text = cube.read_text().replace("8 6 12", "9 6 12").replace("1 1 1\n", f"1 1 1\n{stray}\n")
    assert surface(write(cube, text)) == pytest.approx((6.0, 1.0))


@pytest.mark.parametrize("behind", ["6", "5", "7 7 7", "0.5 0.5 0.5"])
@pytest.mark.parametrize("corners", [3, 4])
def test_colours_are_not_taken_for_polygons(cube: Path, corners: int, behind: str) -> None:
    """As numbers alone, some are as many polygons of other sizes."""
    head, body = cube.read_text().split("\n4 ", 1)
    quads = [[int(word) for word in line.split()[-4:]] for line in ("4 " + body).splitlines()]
    faces = quads if corners == 4 else [ring for a, b, c, d in quads for ring in ([a, b, c], [a, c, d])]
    lines = [f"{corners} {' '.join(map(str, face))} {behind}" for face in faces]
    path = write(cube, "\n".join([head.replace("8 6 12", f"8 {len(faces)} 0"), *lines]))
    assert surface(path) == pytest.approx((6.0, 1.0))


@pytest.mark.parametrize("lines", [1, 3, 8])
@pytest.mark.parametrize("header", ["OFF", "NOFF", "noff"])
def test_numbers_may_come_as_a_stream_with_comments_between(cube: Path, header: str, lines: int) -> None:
    """In however many lines the vertices stand."""
    text = cube.read_text().split("\n")
    points, faces = text[2:10], text[10:]
    points = [f"{point} 0 0 1" for point in points] if header != "OFF" else points
    words = np.array_split(" ".join(points).split(), lines)
    body = "\n".join("# some of them\n" + " ".join(some) for some in words)
    path = write(cube, f"{header}\n8 6 12\n{body}  # all\n" + "\n".join(faces))
    assert surface(path) == pytest.approx((6.0, 1.0))


def test_lines_as_on_old_macs(cube: Path) -> None:
    assert surface(write(cube, "OFF\r# a cube\r" + cube.read_text()[4:].replace("\n", "\r"))) == pytest.approx((6.0, 1.0))


def test_a_hundred_bytes_that_declare_a_billion_vertices_allocate_nothing(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="more than its"):
        read(write(tmp_path / "big.off", "OFF\n1000000000 1000000000 0\n" + "0 0 0\n" * 12))


coordinate = st.floats(-1e6, 1e6, allow_nan=False, width=32)


@given(st.lists(st.tuples(coordinate, coordinate, coordinate), min_size=4, max_size=20), st.data())
def test_round_trip_of_any_polygon_soup(tmp_path_factory, vertices, data) -> None:
    corner = st.integers(0, len(vertices) - 1)
    faces = data.draw(st.lists(st.lists(corner, min_size=3, max_size=6, unique=True), min_size=1, max_size=8))
    text = "\n".join(
        ["OFF", f"{len(vertices)} {len(faces)} 0"]
        + [" ".join(repr(float(x)) for x in v) for v in vertices]
        + [" ".join(map(str, [len(f), *f])) for f in faces]
    )
    path = write(tmp_path_factory.mktemp("soup") / "soup.off", text)
    try:
        shape = read(path)
    except ReadError as error:
        # Only a soup without extent or area may be refused.
        assert "coincide" in str(error) or "area" in str(error)  # noqa: PT017
        return
    assert shape.faces is not None
    np.testing.assert_array_equal(shape.vertices, np.array(vertices, dtype=np.float64))
    assert_cut_from(shape.vertices, shape.faces, faces)


def test_real_files_read_as_another_reader_reads_them(real_meshes: Path) -> None:
    for name in ("modelnet__chair_0890", "modelnet__toilet_0345", "modelnet__bed_0516", "derived__chair_0890_crlf"):
        path = real_meshes / f"{name}.off"
        shape = read(path)
        other = trimesh.load_mesh(path, process=False)
        np.testing.assert_array_equal(shape.vertices, other.vertices)
        np.testing.assert_array_equal(shape.faces, other.faces)


def test_a_real_file_cut_short_is_an_error_with_a_line(real_meshes: Path) -> None:
    with pytest.raises(ReadError, match="line 2267: cut short"):
        read(real_meshes / "derived__chair_0890_truncated.off")
