"""Formats of scanners: PCD (through pypcd4) and LAS / LAZ (through laspy)."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pointcentroid.errors import MissingExtraError, ReadError, one_line
from pointcentroid.io.numbers import reals, words_of_lines
from pointcentroid.io.shape import MAX_ELEMENTS, MAX_UNPACKED, Shape, checked

_PCD_TYPES = {("F", 4), ("F", 8), *((kind, size) for kind in "IU" for size in (1, 2, 4, 8))}


def read_pcd(path: Path) -> Shape:
    """Read a PCD file: ascii, binary or binary_compressed.

    Points with a NaN coordinate are left out: that is how the format marks a missing return.

    Args:
        path: the file.

    Raises:
        ReadError: the header or the data are damaged, or there are no fields x, y, z.
    """
    content = path.read_bytes()
    head, data = _pcd_header(path, content)
    if head.kind == "ascii":
        points = _pcd_text(path, head, content[data:].splitlines(), content[:data].count(b"\n") + 1)
    else:
        points = _pcd_binary(path, head, content[data:])
    if len(points) != head.points:
        raise ReadError(path, f"cut short: the header declares {head.points} points, the file holds {len(points)}")
    points[np.isnan(points).any(axis=1)] = np.nan  # one is enough here
    return checked(path, points)


def _pcd_text(path: Path, head: _Header, lines: list[bytes], first: int) -> np.ndarray:
    """(N, 3) the points of an ascii PCD: its numbers may stand in columns, and only those of x, y and z are looked at.

    Args:
        path: named in errors.
        head: what its header says.
        lines: of its data; what stands behind the last point is left out.
        first: the number of the first of these lines.
    """
    rows = [(number, line) for number, line in enumerate(lines, first) if line.strip()][: head.points]
    width = sum(head.counts)
    names = [name.lower() for name in head.fields]
    columns = [sum(head.counts[: names.index(axis)]) for axis in "xyz"]
    text = b"\n".join(line for _, line in rows)
    numbers = reals(text) if (words_of_lines(text) == width).all() else None
    if numbers is not None:
        return numbers.reshape(-1, width)[:, columns]
    points = np.empty((len(rows), 3))
    for point, (number, line) in zip(points, rows, strict=True):
        words = line.split()
        try:
            if len(words) != width:
                raise ValueError
            # C++ on Windows writes what is no number as -nan(ind).
            point[:] = [np.nan if b"nan" in words[column].lower() else float(words[column]) for column in columns]
        except ValueError:
            shown = line.strip().decode("utf-8", "replace")[:60]
            raise ReadError(path, f"expected {width} numbers, found {shown!r}", number) from None
    return points


def _pcd_binary(path: Path, head: _Header, content: bytes) -> np.ndarray:
    """(N, 3) the points of a binary PCD, compressed or not, by pypcd4."""
    from pypcd4.pypcd4 import PointCloud

    try:
        cloud = PointCloud.from_fileobj(io.BytesIO(head.text() + content))  # type: ignore[reportArgumentType]
        fields = {name.lower(): name for name in reversed(cloud.fields)}
        return np.stack([np.asarray(cloud.pc_data[fields[axis]], dtype=np.float64) for axis in "xyz"], axis=1)
    except Exception as error:  # pydantic, numpy, struct and lzf each bring their own
        raise ReadError(path, f"damaged PCD file ({one_line(error, 120)})") from None


class _Header(NamedTuple):
    """What a PCD header says."""

    fields: list[str]
    sizes: list[int]
    types: list[str]
    counts: list[int]
    points: int
    kind: str

    @property
    def width(self) -> int:
        """Bytes of a point, where they are binary."""
        return sum(size * count for size, count in zip(self.sizes, self.counts, strict=True))

    def text(self) -> bytes:
        """A header that leaves nothing out, as pypcd4 wants it."""
        columns = {"FIELDS": self.fields, "SIZE": self.sizes, "TYPE": self.types, "COUNT": self.counts}
        lines = ["VERSION 0.7", *(f"{key} {' '.join(map(str, values))}" for key, values in columns.items())]
        lines += [
            f"WIDTH {self.points}",
            "HEIGHT 1",
            "VIEWPOINT 0 0 0 1 0 0 0",
            f"POINTS {self.points}",
            f"DATA {self.kind}",
        ]
        return "\n".join(lines).encode() + b"\n"


def _pcd_header(path: Path, content: bytes) -> tuple[_Header, int]:
    """Read the header, and check what it declares against the size of the file before anything is allocated.

    Returns:
        It, and where the data begin.
    """
    head: dict[str, list[str]] = {}
    position = 0
    while position < min(len(content), 65536) and "DATA" not in head:
        end = content.find(b"\n", position)
        end = len(content) if end < 0 else end
        key, *values = content[position:end].decode("utf-8", "replace").split() or [""]
        if key and not key.startswith("#"):
            head[key.upper()] = values
        position = end + 1
    head.setdefault("FIELDS", head.get("COLUMNS", []))  # as early versions called them
    missing = [key for key in ("FIELDS", "SIZE", "TYPE", "DATA") if not head.get(key)]
    if "POINTS" not in head and not {"WIDTH", "HEIGHT"} <= head.keys():
        missing.append("POINTS")
    if missing:
        raise ReadError(path, f"not a PCD file: its header lacks {', '.join(missing)}")
    fields, kind = head["FIELDS"], " ".join(head["DATA"]).lower()
    if not {"x", "y", "z"} <= {name.lower() for name in fields}:
        raise ReadError(path, f"expected fields x, y and z, found {' '.join(fields)}")
    try:
        numbers = {
            key: [int(value) for value in head.get(key, ())] for key in ("SIZE", "COUNT", "POINTS", "WIDTH", "HEIGHT")
        }
        points = numbers["POINTS"][0] if numbers["POINTS"] else numbers["WIDTH"][0] * numbers["HEIGHT"][0]
        counts = numbers["COUNT"] or [1] * len(fields)
        types = [name.upper() for name in head["TYPE"]]
        found = _Header(fields, numbers["SIZE"], types, counts, points, kind)
    except (ValueError, IndexError):
        raise ReadError(path, "its PCD header holds POINTS, SIZE or COUNT that are not numbers") from None
    wrong = next((word for word in zip(types, found.sizes, strict=False) if word not in _PCD_TYPES), None)
    if wrong:
        raise ReadError(
            path, f"its PCD header holds a TYPE {wrong[0]} of SIZE {wrong[1]}; there are F of 4 and 8, I and U of 1 to 8"
        )
    if not len(fields) == len(found.sizes) == len(types) == len(counts):
        lengths = f"{len(fields)} FIELDS, {len(found.sizes)} SIZE, {len(types)} TYPE and {len(counts)} COUNT"
        raise ReadError(path, f"damaged PCD file: its header holds {lengths}; they must be as many")
    if points == 0:
        raise ReadError(path, "holds no geometry: its header declares 0 points")
    if kind not in ("ascii", "binary", "binary_compressed"):
        raise ReadError(path, f"its PCD header holds DATA {kind[:40]}, expected ascii, binary or binary_compressed")
    axes = [(name, count) for name, count in zip(fields, counts, strict=True) if name.lower() in ("x", "y", "z")]
    if several := [name for name, count in axes if count != 1]:
        raise ReadError(path, f"its PCD header counts several numbers of {several[0]}, expected COUNT 1")
    data, width = len(content) - position, found.width
    if points < 0 or min(found.sizes, default=1) < 1 or min(counts, default=1) < 1 or width > len(content):
        raise ReadError(path, f"damaged PCD file: {points} points of {width} bytes cannot be in a file of {len(content)}")
    need = {"ascii": 2 * len(fields) * points - 1, "binary": width * points}.get(kind, 8)
    if kind == "binary_compressed" and data >= 8:
        packed, unpacked = struct.unpack("<II", content[position : position + 8])
        # LZF turns three bytes into 264 at best, so a larger promise is a lie.
        if packed > data - 8 or unpacked > 264 * packed or unpacked != width * points:
            raise ReadError(path, f"damaged PCD file: {packed} packed bytes cannot be {points} points of {width} bytes")
    if points > MAX_ELEMENTS or data < need:
        raise ReadError(path, f"cut short: the header declares {points} points, more than its {data} bytes of data hold")
    return found, position


def read_las(path: Path) -> Shape:
    """Read a LAS or LAZ file.

    Points that are marked as withheld, which means deleted, or as noise are left out.

    Args:
        path: the file.

    Raises:
        MissingExtraError: laspy is not installed.
        ReadError: the file is damaged or cut short, or every point in it is withheld or noise.
    """
    try:
        import laspy
    except ImportError as error:
        raise MissingExtraError("reading LAS and LAZ files", "las", error.name or "laspy") from None
    _guard_las(path)
    try:
        with _silenced(), laspy.open(path) as file:
            declared = file.header.point_count
            packed = file.header.are_points_compressed  # whatever the file is called
            floor = 1 if packed else file.header.point_format.size
            room = path.stat().st_size * (_LAZ_POINTS_A_BYTE if packed else 1)
            if declared * floor > room or declared > MAX_ELEMENTS:
                raise ReadError(path, f"declares {declared} points, more than its {path.stat().st_size} bytes can hold")
            if packed:
                _guard_laz(path, file.header)
            else:
                fit = max(path.stat().st_size - file.header.offset_to_point_data, 0) // file.header.point_format.size
                if fit < declared:
                    raise ReadError(path, f"cut short: the header declares {declared} points, the file holds {fit}")
            held = file.read()
            points = np.asarray(held.xyz, dtype=np.float64)
            unwanted = np.asarray(held.withheld, dtype=bool) | np.isin(np.asarray(held.classification), _NOISE)
    except ReadError:
        raise
    except BaseException as error:  # lazrs raises its Rust panics as BaseException
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise ReadError(path, f"damaged LAS file ({one_line(error, 120)})") from None
    if len(points) != declared:
        raise ReadError(path, f"cut short: the header declares {declared} points, the file holds {len(points)}")
    if len(points) and unwanted.all():
        raise ReadError(path, f"holds no geometry: all its {len(points)} points are marked as withheld or as noise")
    return checked(path, points[~unwanted] if unwanted.any() else points)


def _guard_las(path: Path) -> None:
    """A header says how many records stand before and behind the points; laspy makes room for each before it looks."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(_LAS_HEAD)
    if not head.startswith(b"LASF"):
        return  # laspy says so
    records = int.from_bytes(head[100:104], "little") * _LAS_RECORD
    if head[25:26] >= b"\4":  # of version 1.4
        records += int.from_bytes(head[243:247], "little") * _LAS_LATER_RECORD
    if records > size:
        raise ReadError(path, f"damaged LAS file: its header declares records of {records} bytes in a file of {size}")


def _guard_laz(path: Path, header: Any) -> None:
    """A LAZ file says how many chunks there are, and of how many points; the decoder makes room for them before it looks."""
    start, width = header.offset_to_point_data, header.point_format.size
    said = bytes(next((vlr.record_data for vlr in header.vlrs if vlr.record_id == _LASZIP), b""))
    points = int.from_bytes(said[12:16], "little")
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(start)
        table = int.from_bytes(file.read(8), "little", signed=True)
        file.seek(size - 8 if table == -1 else min(max(table, 0), size))
        if table == -1:  # written by a program that could not go back: the place stands at the end
            file.seek(min(max(int.from_bytes(file.read(8), "little", signed=True), 0), size))
        chunks = int.from_bytes(file.read(8)[4:], "little")
    if chunks > size:
        raise ReadError(path, f"declares {chunks} chunks of points in {size} bytes; the file is damaged")
    if points < _ANY and points * width > MAX_UNPACKED:
        raise ReadError(path, f"declares chunks of {points} points, more than is read; the file is damaged")
    if said[:2] == _LAYERED:
        _guard_layers(path, start + 8, chunks, width, said)


def _guard_layers(path: Path, place: int, chunks: int, width: int, said: bytes) -> None:
    """A chunk in layers begins with a point as it is, the number of points, and how long each layer is."""
    kinds = np.frombuffer(said[34:], dtype="<u2", count=3 * int.from_bytes(said[32:34], "little")).reshape(-1, 3)
    layers = sum(_LAYERS.get(int(kind), int(size)) for kind, size, _ in kinds)
    with path.open("rb") as file:
        size = file.seek(0, 2)
        for _ in range(chunks):
            file.seek(place + width)
            lengths = np.frombuffer(file.read(4 + 4 * layers)[4:], dtype="<u4").astype(np.int64)
            place = file.tell() + int(lengths.sum())
            if len(lengths) < layers or place > size:
                raise ReadError(path, "cut short: its chunks of points are longer than the file")


_LAS_HEAD = 375  # bytes, of the longest header there is
_LAS_RECORD, _LAS_LATER_RECORD = 54, 60  # bytes that a record takes at least
_LAZ_POINTS_A_BYTE = 256  # more are a header that lies; a grid of a million points was seen to take 0.1 bits a point
_NOISE = (7, 18)  # classes of the specification: low and high noise
_LASZIP = 22204  # the record that says how points are packed
_LAYERED = b"\3\0"
_LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}  # of the kinds of items, of LASzip 1.4; of extra bytes, one a byte
_ANY = 2**32 - 1  # points of a chunk, where chunks differ
_one_at_a_time = threading.Lock()
"""Of two threads that keep standard error aside at once, the second would put back what the first had put in its place."""


@contextmanager
def _silenced() -> Iterator[None]:
    """Keep what compiled code prints to standard error from the screen; its errors arrive as exceptions as well."""
    with _one_at_a_time:
        try:
            kept = os.dup(2)
        except OSError:  # it is closed: nothing can be seen
            yield
            return
        if sys.stderr is not None:
            sys.stderr.flush()
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


READERS = {".pcd": read_pcd, ".las": read_las, ".laz": read_las}
