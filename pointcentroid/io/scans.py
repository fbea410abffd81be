"""Formats of scanners: PCD (through pypcd4) and LAS / LAZ (through laspy)."""

from __future__ import annotations

import os
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pointcentroid.errors import MissingExtraError, ReadError, one_line
from pointcentroid.io.shape import MAX_ELEMENTS, Shape, checked


def read_pcd(path: Path) -> Shape:
    """Read a PCD file: ascii, binary or binary_compressed.

    Points with a NaN coordinate are left out: that is how the format marks a missing return.

    Args:
        path: the file.

    Raises:
        ReadError: the header or the data are damaged, or there are no fields x, y, z.
    """
    head = _pcd_header(path)
    from pypcd4.pypcd4 import PointCloud

    try:
        cloud = PointCloud.from_path(path)
        fields = {name.lower(): name for name in reversed(cloud.fields)}
        points = np.stack([np.asarray(cloud.pc_data[fields[axis]], dtype=np.float64) for axis in "xyz"], axis=1)
    except Exception as error:  # pydantic, numpy, struct and lzf each bring their own
        raise ReadError(path, f"damaged PCD file ({one_line(error, 120)})") from None
    declared = int(head[b"POINTS"])
    if len(points) != declared:
        raise ReadError(path, f"cut short: the header declares {declared} points, the file holds {len(points)}")
    return checked(path, points[~np.isnan(points).any(axis=1)])


def _pcd_header(path: Path) -> dict[bytes, bytes]:
    """Check what the header declares against the size of the file before anything is allocated."""
    content = path.read_bytes()
    head: dict[bytes, bytes] = {}
    position = 0
    while position < min(len(content), 65536) and b"DATA" not in head:
        end = content.find(b"\n", position)
        end = len(content) if end < 0 else end
        key, _, value = content[position:end].strip().partition(b" ")
        if key and not key.startswith(b"#"):
            head[key.upper()] = value.strip()
        position = end + 1
    missing = [k.decode() for k in (b"FIELDS", b"SIZE", b"TYPE", b"POINTS", b"DATA") if k not in head]
    if missing:
        raise ReadError(path, f"not a PCD file: its header lacks {', '.join(missing)}")
    fields = head[b"FIELDS"].lower().split()
    if not {b"x", b"y", b"z"} <= set(fields):
        raise ReadError(path, f"expected fields x, y and z, found {b' '.join(fields).decode('ascii', 'replace')}")
    try:
        points = int(head[b"POINTS"])
        sizes = [int(s) for s in head[b"SIZE"].split()]
        repeats = [int(c) for c in head.get(b"COUNT", b"").split()] or [1] * len(sizes)
        width = sum(s * c for s, c in zip(sizes, repeats, strict=True))
    except ValueError:
        raise ReadError(path, "its PCD header holds POINTS, SIZE or COUNT that are not numbers") from None
    data = len(content) - position
    if points < 0 or min(sizes, default=1) < 1 or min(repeats, default=1) < 1 or width > len(content):
        raise ReadError(path, f"damaged PCD file: {points} points of {width} bytes cannot be in a file of {len(content)}")
    kind = head[b"DATA"].lower()
    need = {b"ascii": 2 * len(fields) * points - 1, b"binary": width * points}.get(kind, 8)
    if kind == b"binary_compressed" and data >= 8:
        packed, unpacked = struct.unpack("<II", content[position : position + 8])
        # LZF turns three bytes into 264 at best, so a larger promise is a lie.
        if packed > data - 8 or unpacked > 264 * packed or unpacked != width * points:
            raise ReadError(path, f"damaged PCD file: {packed} packed bytes cannot be {points} points of {width} bytes")
    if points > MAX_ELEMENTS or data < need:
        raise ReadError(path, f"cut short: the header declares {points} points, more than its {data} bytes of data hold")
    return head


def read_las(path: Path) -> Shape:
    """Read a LAS or LAZ file.

    Args:
        path: the file.

    Raises:
        MissingExtraError: laspy is not installed.
        ReadError: the file is damaged or cut short.
    """
    try:
        import laspy
    except ImportError as error:
        raise MissingExtraError("reading LAS and LAZ files", "las", error.name or "laspy") from None
    try:
        with _silenced(), laspy.open(path) as file:
            declared = file.header.point_count
            packed = file.header.are_points_compressed  # whatever the file is called
            floor = 1 if packed else file.header.point_format.size
            # A LAZ chunk codes a point in well over a bit; anything below is a header that lies.
            if declared * floor > path.stat().st_size * (64 if floor == 1 else 1) or declared > MAX_ELEMENTS:
                raise ReadError(path, f"declares {declared} points, more than its {path.stat().st_size} bytes can hold")
            if packed:
                _guard_laz(path, file.header.offset_to_point_data)
            points = np.asarray(file.read().xyz, dtype=np.float64)
    except ReadError:
        raise
    except BaseException as error:  # lazrs raises its Rust panics as BaseException
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise ReadError(path, f"damaged LAS file ({one_line(error, 120)})") from None
    if len(points) != declared:
        raise ReadError(path, f"cut short: the header declares {declared} points, the file holds {len(points)}")
    return checked(path, points)


def _guard_laz(path: Path, start: int) -> None:
    """A LAZ file's table of chunks says how many there are; the decoder makes room for them before it looks."""
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
