"""What scanners write: PCD, LAS and LAZ."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointcentroid.errors import ReadError
from pointcentroid.io import read
from pointcentroid.io.numbers import words_of_lines

from .points import write_points


@pytest.mark.parametrize("encoding", ["ASCII", "BINARY", "BINARY_COMPRESSED"])
def test_pcd_keeps_the_points_and_drops_missing_returns(tmp_path: Path, points: np.ndarray, encoding: str) -> None:
    from pypcd4.pypcd4 import Encoding, PointCloud

    path = tmp_path / "cloud.pcd"
    holes = points.astype(np.float32)
    holes[::7] = np.nan
    PointCloud.from_xyz_points(holes).save(path, encoding=Encoding[encoding])
    np.testing.assert_allclose(read(path).vertices, holes[~np.isnan(holes[:, 0])], rtol=1e-4)


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
        (lambda text: text.replace("SIZE 4 4 4", "SIZE 4 4"), "3 FIELDS, 2 SIZE, 3 TYPE and 3 COUNT"),
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


@pytest.mark.parametrize("form", [0, 3, 6, 10])
@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_points_that_are_deleted_or_noise_are_left_out(tmp_path: Path, points: np.ndarray, form: int, suffix: str) -> None:
    import laspy

    cloud = laspy.create(point_format=form)
    cloud.header.scales, cloud.header.offsets = np.full(3, 1e-6), points.mean(axis=0)
    cloud.x, cloud.y, cloud.z = points.T
    deleted, noise = np.arange(len(points)) % 5 == 1, np.arange(len(points)) % 5 == 2
    cloud.withheld = deleted
    cloud.classification = np.where(noise, 7, 2)
    path = tmp_path / f"a{suffix}"
    cloud.write(str(path))
    np.testing.assert_allclose(read(path).vertices, points[~deleted & ~noise], atol=1e-6)
    cloud.withheld = deleted | ~noise
    cloud.write(str(path))
    with pytest.raises(ReadError, match="all its 500 points are marked as withheld or as noise"):
        read(path)


def test_a_grid_takes_a_laz_few_bits_a_point(tmp_path: Path) -> None:
    import laspy

    cloud = laspy.create(point_format=0)
    cloud.header.scales = np.ones(3)
    cloud.x, cloud.y = (axis.ravel() for axis in np.mgrid[:1000, :1000])
    cloud.z = np.zeros(1_000_000)
    cloud.write(str(tmp_path / "a.laz"))
    assert (tmp_path / "a.laz").stat().st_size < 1_000_000 / 64
    assert len(read(tmp_path / "a.laz").vertices) == 1_000_000


def test_an_ascii_pcd_of_ragged_lines_is_not_cut_anew(tmp_path: Path) -> None:
    head = "VERSION 0.7\nFIELDS x y z i\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\nPOINTS 20\nDATA ascii\n"
    rows = ["1 2 3 4"] * 20
    rows[3:5] = ["1 2 3", "1 2 3 4 5"]
    (tmp_path / "a.pcd").write_text(head + "\n".join(rows))
    with pytest.raises(ReadError, match="expected 4 numbers, found '1 2 3'") as caught:
        read(tmp_path / "a.pcd")
    assert caught.value.line == 11


@given(st.lists(st.lists(st.sampled_from(["1", "-2.5", "word", "\t", " ", "\r"])), min_size=1))
def test_words_of_lines_are_counted(lines: list[list[str]]) -> None:
    rows = [" ".join(words) for words in lines]
    expected = [len(row.split()) for row in rows]
    assert words_of_lines("".join(f"{row}\n" for row in rows).encode()).tolist() == expected
    if rows[-1]:
        assert words_of_lines("\n".join(rows).encode()).tolist() == expected


def test_pcd_and_las_without_points_say_so(tmp_path: Path) -> None:
    head = "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH {0}\nHEIGHT 1\nPOINTS {0}\nDATA {1}\n"
    for kind in ("ascii", "binary", "binary_compressed"):
        (tmp_path / "a.pcd").write_text(head.format(0, kind))
        with pytest.raises(ReadError, match="its header declares 0 points"):
            read(tmp_path / "a.pcd")
    (tmp_path / "a.pcd").write_text(head.format(20, "ascii") + "1 nan 3\n" * 20)
    with pytest.raises(ReadError, match="a coordinate of each of its 20 points is NaN"):
        read(tmp_path / "a.pcd")
