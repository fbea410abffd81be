"""What trimesh does not see in PLY files: headers that lie, files cut short, and binary faces of several sizes; and clouds
in double precision, which it does not write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pointcentroid.errors import ReadError
from pointcentroid.io.polygons import triangles

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4", "double": "f8",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4",
    "float64": "f8",
}  # fmt: skip
_CORNERS = ("vertex_indices", "vertex_index", "vertex_list")


class _Property(NamedTuple):
    name: str
    kind: np.dtype
    counted: np.dtype | None  # of a list: the type of the number that says how long it is


class _Element(NamedTuple):
    name: str
    count: int
    properties: list[_Property]

    @property
    def plain(self) -> bool:
        """Whether its rows hold no lists, and are of the same size."""
        return all(p.counted is None for p in self.properties)

    @property
    def size(self) -> int:
        """Bytes of all its rows, where they are plain."""
        return self.count * sum(p.kind.itemsize for p in self.properties)

    @property
    def dtype(self) -> np.dtype | None:
        """Of a row; None where it is not plain."""
        return np.dtype([(p.name, p.kind) for p in self.properties]) if self.plain else None


def guard(path: Path, content: bytes) -> None:
    """Compare what a header declares with the size of the file, and refuse files cut short.

    Args:
        path: named in errors.
        content: of the file.

    Raises:
        ReadError: it is no PLY file, or it holds less than it declares.
    """
    found = re.search(rb"^end_header", content, re.MULTILINE)
    end = found.start() if found else -1
    if not content.startswith(b"ply") or end < 0:
        raise ReadError(path, "not a PLY file: it should start with 'ply' and have a line 'end_header'")
    body = len(content) - end - len("end_header\n")
    elements = re.findall(rb"^element\s+(\S+)\s+(-?\d{1,18})", content[:end], re.MULTILINE)
    for name, count in elements:
        if int(count) < 0 or int(count) > max(body, 0):
            raise ReadError(
                path, f"declares {int(count)} {name.decode('ascii', 'replace')}s in {max(body, 0)} bytes of data"
            )
    if re.search(rb"^format\s+ascii", content[:end], re.MULTILINE):  # a line each; a binary one cut short trimesh refuses
        declared = sum(int(count) for _, count in elements)
        held = sum(1 for line in content[end:].splitlines()[1:] if line.strip())
        if held < declared:
            raise ReadError(path, f"cut short: the header declares {declared} lines, the file holds {held}")


def polygon_mesh(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray] | None:
    """Read a binary file whose faces are more than triangles, which trimesh cuts into fans or, where they have different
    numbers of corners, does not read; or stand elsewhere than right behind the vertices.

    Args:
        path: named in errors.
        content: of a file that `guard` has passed.

    Returns:
        (V, 3) vertices and (F, 3) faces, polygons cut up; None where the file is of another kind.

    Raises:
        ReadError: it is cut short, or a face names a vertex that is not there.
    """
    header = re.match(rb"ply\s.*?^end_header[ \t]*\r?\n", content, re.DOTALL | re.MULTILINE)
    order = re.search(rb"^format\s+binary_(little|big)_endian", content[:512], re.MULTILINE)
    if header is None or order is None:
        return None
    elements = _elements(header[0].decode("latin-1"), "<" if order[1] == b"little" else ">")
    names = [] if elements is None else [element.name for element in elements]
    if elements is None or not {"vertex", "face"} <= set(names):
        return None
    vertex, face = (elements[names.index(name)] for name in ("vertex", "face"))
    try:
        row = vertex.dtype
        if row is None or not {"x", "y", "z"} <= set(row.names or ()):
            return None
        if names[:2] == ["vertex", "face"] and _triangles_alone(face, content, header.end() + vertex.size):
            return None
    except ValueError:  # lists of absurd lengths, columns of the same name: trimesh says what is wrong
        return None
    points, polygons, position = None, None, header.end()
    try:
        for element in elements[: max(elements.index(vertex), elements.index(face)) + 1]:
            if element is vertex:
                points = np.frombuffer(content, row, vertex.count, position)
            if element.plain:
                position += element.size
            else:
                found, position = _polygons(element, content, position)
                polygons = found if element is face else polygons
    except ValueError:
        raise ReadError(path, "cut short: it holds fewer vertices or faces than its header declares") from None
    if polygons is None or points is None:
        return None
    vertices = np.stack([points[axis] for axis in "xyz"], axis=1).astype(np.float64)
    if not 0 <= polygons[0].min(initial=0) <= polygons[0].max(initial=0) < len(vertices):
        raise ReadError(path, f"a face names a vertex that is not there; there are {len(vertices)}")
    return vertices, triangles(vertices, *polygons)[0]


def cloud_bytes(points: np.ndarray, colours: np.ndarray | None = None) -> bytes:
    """A cloud as a binary PLY. Libraries write single precision, which map coordinates do not survive.

    Args:
        points: (N, 3).
        colours: (N, 3), in [0, 1].
    """
    columns = [(axis, "<f8", "double") for axis in "xyz"]
    if colours is not None:
        columns += [(name, "u1", "uchar") for name in ("red", "green", "blue")]
    rows = np.empty(len(points), [(name, kind) for name, kind, _ in columns])
    for axis, values in zip("xyz", points.T, strict=True):
        rows[axis] = values
    if colours is not None:
        for name, values in zip(("red", "green", "blue"), colours.T, strict=True):
            rows[name] = (255 * values).round()
    properties = "".join(f"property {kind} {name}\n" for name, _, kind in columns)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{properties}end_header\n"
    return header.encode() + rows.tobytes()


def _elements(header: str, order: str) -> list[_Element] | None:
    """What a header declares; None where it says what is not understood here."""
    elements: list[_Element] = []
    for line in header.splitlines():
        match line.split():
            case ["element", name, count] if count.isdecimal():
                elements.append(_Element(name, int(count), []))
            case ["property", "list", counted, kind, name] if elements and {counted, kind} <= _TYPES.keys():
                types = (np.dtype(order + _TYPES[one]) for one in (kind, counted))
                elements[-1].properties.append(_Property(name.lower(), *types))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].properties.append(_Property(name.lower(), np.dtype(order + _TYPES[kind]), None))
            case ["element" | "property", *_]:
                return None
    return elements


def _alike(face: _Element, content: bytes, start: int) -> np.ndarray | None:
    """The rows of an element, if all are as long as the first, lists and all."""
    fields: list[tuple[str, np.dtype] | tuple[str, np.dtype, int]] = []
    position = start
    for number, (_, kind, counted) in enumerate(face.properties):
        if counted is None:
            fields.append((f"value {number}", kind))
            position += kind.itemsize
            continue
        if position + counted.itemsize > len(content):
            return None
        length = int(np.frombuffer(content, counted, 1, position)[0])
        fields += [(f"count {number}", counted), (f"list {number}", kind, (length,))]
        position += counted.itemsize + length * kind.itemsize
    row = np.dtype(fields)
    if start + face.count * row.itemsize > len(content):
        return None
    rows = np.frombuffer(content, row, face.count, start)
    counts = [rows[name] for name in row.names or () if name.startswith("count")]
    return rows if all((count == count[0]).all() for count in counts) else None


def _list_of_corners(face: _Element) -> int | None:
    """Which property lists corners."""
    places = (place for place, p in enumerate(face.properties) if p.name in _CORNERS and p.counted is not None)
    return next(places, None)


def _triangles_alone(face: _Element, content: bytes, start: int) -> bool:
    """Whether all faces are triangles, and else alike: trimesh reads these at once. What is damaged, it refuses."""
    if not face.count:
        return True
    rows, place = _alike(face, content, start), _list_of_corners(face)
    return rows is not None and (place is None or rows.dtype[f"list {place}"].shape == (3,))


def _polygons(element: _Element, content: bytes, position: int) -> tuple[tuple[np.ndarray, np.ndarray] | None, int]:
    """What rows with lists hold, from a position on.

    Returns:
        The corners of all, and how many each has; None where they have no list of corners. And the position behind the last
        row.
    """
    place = _list_of_corners(element)
    rows = _alike(element, content, position) if element.count else None
    if rows is not None:
        lists = None if place is None else rows[f"list {place}"].astype(np.int64)
        return None if lists is None else (lists.reshape(-1), np.full(*lists.shape)), position + rows.nbytes
    found, sizes = [np.zeros(0, np.int64)], []
    for _ in range(element.count):
        for number, (_, kind, counted) in enumerate(element.properties):
            length = 1
            if counted is not None:
                length = int(np.frombuffer(content, counted, 1, position)[0])
                position += counted.itemsize
                if length < 0:
                    raise ValueError
            if number == place:
                found.append(np.frombuffer(content, kind, length, position))
                sizes.append(length)
            position += length * kind.itemsize
    if position > len(content):
        raise ValueError
    return None if place is None else (np.concatenate(found).astype(np.int64), np.array(sizes, np.int64)), position
