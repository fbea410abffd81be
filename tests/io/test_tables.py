"""Tables of points, as programs and people write them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from pointcentroid.errors import ReadError
from pointcentroid.io import read


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


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("#Point,Northing,Easting,Elevation,Code", "7,{1},{0},{2},1"),
        ("# y x z", "{1} {0} {2}"),
        ("//Northing,Easting,Elevation", "{1},{0},{2}"),
        ("# x intensity y z", "{0} 9 {1} {2}"),
        ("# Intensity X Z Y", "9 {0} {2} {1}"),
        ("# nx ny nz z y x", "7 8 9 {2} {1} {0}"),
    ],
)
def test_names_in_a_comment_may_stand_in_any_order(tmp_path: Path, points: np.ndarray, head: str, row: str) -> None:
    (tmp_path / "t.txt").write_text("\n".join([head, *(row.format(*point) for point in points.tolist())]))
    np.testing.assert_array_equal(read(tmp_path / "t.txt").vertices, points)


def test_a_pts_that_is_cut_short_says_so(tmp_path: Path, points: np.ndarray) -> None:
    rows = [" ".join(map(repr, point)) for point in points.tolist()]
    for declared in ([str(len(rows)), *rows[:300]], ["10", *rows[:10], "490", *rows[10:300]]):
        (tmp_path / "t.pts").write_text("\n".join(declared))
        with pytest.raises(ReadError, match="cut short: it declares 500 points, and holds 300"):
            read(tmp_path / "t.pts")
    (tmp_path / "t.pts").write_text("\n".join(["50", *rows]))  # more than it says is no loss
    np.testing.assert_array_equal(read(tmp_path / "t.pts").vertices, points)


def test_a_semicolon_in_a_text_is_no_separator_where_names_tell(tmp_path: Path, points: np.ndarray) -> None:
    rows = [",".join(map(repr, point)) + ",a;b" for point in points.tolist()]
    (tmp_path / "t.csv").write_text("\n".join(["x,y,z,tags", *rows]))
    np.testing.assert_array_equal(read(tmp_path / "t.csv").vertices, points)


def test_whole_numbers_may_stand_above_those_with_a_decimal_comma(tmp_path: Path, points: np.ndarray) -> None:
    rows = ["\t".join(map(repr, point)).replace(".", ",") for point in points.tolist()]
    (tmp_path / "t.txt").write_text("\n".join(["0\t0\t0", *rows]))
    np.testing.assert_array_equal(read(tmp_path / "t.txt").vertices, [[0, 0, 0], *points])
