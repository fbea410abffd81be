"""PLY: vertices, and faces or strips of triangles; and clouds in double precision.

Ours, because trimesh, as good a reader as there is, cuts polygons into fans; does not read binary faces of different numbers
of corners, strips, or coordinates called X, Y and Z; and believes headers that lie. Text is taken as the rows of a binary
file whose numbers are all doubles. Colours, normals and textures are not read.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pointcentroid.errors import ReadError
from pointcentroid.io.numbers import first_broken, reals, utf8, whole
from pointcentroid.io.polygons import strips, triangles
from pointcentroid.io.shape import Shape, checked

_HEADER = re.compile(rb"(?s)ply[ \t]*(\r\n|\n|\r)(?:.*?[\r\n])??end_header[ \t]*(?:\1|\r\n|\n|\r|\Z)")
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4", "double": "f8",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "int64": "i8", "uint64": "u8",
    "float16": "f2", "float32": "f4", "float64": "f8",
}  # fmt: skip
_STRUCT: dict[str, str] = {
    "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip
_TOO_FEW = ValueError, OverflowError, struct.error  # what reading rows that are not there raises
_CORNERS = ("vertex_indices", "vertex_index", "vertex_list")


class _Property(NamedTuple):
    name: str
    kind: np.dtype
    counted: np.dtype | None  # of a list: the type of the number that says how long it is


class _Element(NamedTuple):
    name: str
    count: int
    properties: list[_Property]


class _Lists(NamedTuple):
    """One list of each row; a list of one, where the property is a number.

    Attributes:
        values: (K,) list after list.
        sizes: (R,) how many each row has.
    """

    values: np.ndarray
    sizes: np.ndarray


def read_ply(path: Path) -> Shape:
    """Read a PLY file, text or binary.

    Args:
        path: the file.

    Raises:
        ReadError: it is no PLY file, holds less or other than it declares, or no geometry.
    """
    content = utf8(path.read_bytes())
    header = _HEADER.match(content)
    if header is None:
        raise ReadError(path, "not a PLY file: it should start with 'ply' and have a line 'end_header'")
    order, elements = _declared(path, header[0], len(content) - header.end())
    used = {element.name: element for element in elements if element.count}
    vertex, face = used.get("vertex"), used.get("face") or used.get("tristrips")
    if vertex is None:
        return checked(path, np.empty((0, 3)))
    wanted = {"vertex": _axes(path, vertex), **({face.name: [_corners(path, face)]} if face else {})}
    body, line = memoryview(content)[header.end() :], len(header[0].splitlines()) + 1
    if order:
        try:
            found, _ = _read(elements, body, wanted)
        except _TOO_FEW:
            raise ReadError(path, "cut short or damaged: it holds less than its header declares") from None
    else:
        found = _read_text(path, elements, bytes(body), wanted, line)
    vertices = np.stack([axis.values for axis in found["vertex"]], axis=1).astype(np.float64)

    def line_of(row: int) -> int | None:
        above = sum(element.count for element in elements[: elements.index(vertex)])
        lines = [] if order else _lines(bytes(body), line)
        return lines[above + row][0] if len(lines) == sum(element.count for element in elements) else None

    if face is None:
        return checked(path, vertices, None, line_of)
    named, sizes = found[face.name][0]
    corners = whole(named)
    if corners is None:
        wrong = named[first_broken(named)]
        held = f"but the vertices are 0..{len(vertices) - 1}" if wrong % 1 == 0 else "which is no whole number"
        raise ReadError(path, f"a face names vertex {wrong:.17g}, {held}")
    if face.name == "tristrips":
        return checked(path, vertices, strips(np.insert(corners, sizes.cumsum()[:-1], -1)), line_of)
    wrong = corners[(corners < 0) | (corners >= len(vertices))]
    if len(wrong):
        raise ReadError(path, f"a face names vertex {wrong[0]}, but the vertices are 0..{len(vertices) - 1}")
    return checked(path, vertices, triangles(vertices, corners, sizes)[0], line_of)


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


def _declared(path: Path, header: bytes, held: int) -> tuple[str, list[_Element]]:
    """What a header says.

    Args:
        path: named in errors.
        header: all of it.
        held: bytes behind it.

    Returns:
        The order of bytes, empty for text, all of whose numbers are doubles here; and the elements.
    """
    order, elements = None, []
    for number, line in enumerate((line.decode("latin-1") for line in header.splitlines()), 1):
        match line.split():
            case ["format", word, *_] if word in _ORDERS:
                order = _ORDERS[word]
            case ["element", name, count] if order is not None and count.removeprefix("-").isdecimal():
                if len(count) > 18 or not 0 <= int(count) <= held:
                    raise ReadError(path, f"declares {count[:24]} rows of {name} in {held} bytes of data", number)
                elements.append(_Element(name, int(count), []))
            case ["property", "list", counted, kind, name] if elements and {counted, kind} <= _TYPES.keys():
                elements[-1].properties.append(_Property(name.lower(), _type(kind, order), _type(counted, order)))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].properties.append(_Property(name.lower(), _type(kind, order), None))
            case ["format" | "element" | "property", *_]:
                raise ReadError(path, f"expected a format, an element or a property of PLY, found {line[:60]!r}", number)
    if order is None:
        raise ReadError(path, "its header has no line 'format'")
    return order, [element for element in elements if element.properties]


def _type(word: str, order: str | None) -> np.dtype:
    return np.dtype(order + _TYPES[word] if order else "f8")


def _axes(path: Path, vertex: _Element) -> list[int]:
    """Which properties are x, y and z."""
    names = [p.name if p.counted is None else "" for p in vertex.properties]
    if not {"x", "y", "z"} <= set(names):
        raise ReadError(path, f"expected properties x, y and z of vertices, found {' '.join(filter(None, names)) or 'none'}")
    return [names.index(axis) for axis in "xyz"]


def _corners(path: Path, face: _Element) -> int:
    """Which property lists corners: by its name, or else the first list."""
    lists = [place for place, p in enumerate(face.properties) if p.counted is not None]
    if not lists:
        raise ReadError(path, f"expected a list vertex_indices of each {face.name}, its header declares none")
    return next((place for place in lists if face.properties[place].name in _CORNERS), lists[0])


def _read_text(
    path: Path, elements: list[_Element], body: bytes, wanted: dict[str, list[int]], line: int
) -> dict[str, list[_Lists]]:
    """Take the rows of a text; see `_read`.

    Args:
        line: the first of the body.

    Raises:
        ReadError: with the line, where it does not hold exactly what is declared.
    """
    found = _stream(elements, body, wanted)
    if found and not any(np.ptp(lists.sizes) for columns in found.values() for lists in columns if len(lists.sizes)):
        return found
    # Lists of different lengths may fit the numbers by chance. But a row may also stand in several lines.
    lines = _lines(body, line)
    if not found or len(lines) == sum(element.count for element in elements):
        _check(path, elements, lines, numbers=found is not None)
    if not found:
        raise ReadError(path, "holds other numbers than its header declares")
    return found


def _lines(body: bytes, line: int) -> list[tuple[int, bytes]]:
    """The lines of a text that hold anything, with their numbers, counted from `line`."""
    return [(number, text) for number, text in enumerate(body.splitlines(), line) if text.strip()]


def _stream(elements: list[_Element], body: bytes, wanted: dict[str, list[int]]) -> dict[str, list[_Lists]] | None:
    """Take the numbers of a text as they come; None unless they are exactly what is declared."""
    numbers = reals(body)
    if numbers is None:
        return None
    try:
        every = {element.name: wanted.get(element.name, []) for element in elements}
        found, end = _read(elements, numbers.data.cast("B"), every)
    except _TOO_FEW:
        return None
    return found if end == numbers.nbytes else None


def _check(path: Path, elements: list[_Element], lines: list[tuple[int, bytes]], numbers: bool) -> None:
    """Say in which line of a text a row is not what it should be, if one is.

    Args:
        path: named in errors.
        elements: what the header declares.
        lines: with their numbers.
        numbers: whether all words are known to be numbers.
    """
    rows = ((element, row) for element in elements for row in range(element.count))
    for number, line in lines:
        element, row = next(rows, (None, 0))
        words = line.split()
        if element is not None and len(words) == _length(element, words) and (numbers or reals(line) is not None):
            continue
        shown = repr(b" ".join(words).decode("utf-8", "replace")[:60])
        if element is None:
            raise ReadError(path, f"goes on after what its header declares: {shown}", number)
        raise ReadError(path, f"expected the numbers of {element.name} {row}, found {shown}", number)
    element, row = next(rows, (None, 0))
    if element is not None:
        declared = f"the header declares {element.count} rows of {element.name}"
        raise ReadError(path, f"cut short: {declared}, the file ends after {row}")


def _length(element: _Element, words: list[bytes]) -> int:
    """How many numbers a line of an element should hold, by those that it begins with; -1 where these say nothing."""
    length = 0
    for _, _, counted in element.properties:
        try:
            length += 1 if counted is None else 1 + int(float(words[length]))
        except (ValueError, OverflowError, IndexError):
            return -1
    return length


def _read(elements: list[_Element], body: memoryview, wanted: dict[str, list[int]]) -> tuple[dict[str, list[_Lists]], int]:
    """Take the rows of elements, up to the last that is wanted.

    Args:
        elements: in the order of the file.
        body: all rows.
        wanted: which properties of which elements.

    Returns:
        Them, and the place behind the last row.

    Raises:
        ValueError, OverflowError, struct.error: there are fewer.
    """
    found: dict[str, list[_Lists]] = {}
    position = 0
    for element in elements:
        if not wanted.keys() <= found.keys():
            found[element.name], position = _columns(element, body, position, wanted.get(element.name, []))
    return found, position


def _columns(element: _Element, body: memoryview, position: int, wanted: list[int]) -> tuple[list[_Lists], int]:
    """Some properties of an element, whose first row begins at a position, and the one behind its last row."""
    rows = _alike(element, body, position)
    if rows is not None:
        columns = [rows[f"values {number}"].reshape(len(rows), -1) for number in wanted]
        return [_Lists(c.reshape(-1), np.full(len(c), c.shape[1])) for c in columns], position + rows.nbytes
    counts = [
        None if p.counted is None else struct.Struct(p.counted.str[0].replace("|", "=") + _STRUCT[p.counted.str[1:]])
        for p in element.properties
    ]
    places: list[list[tuple[int, int]]] = [[] for _ in element.properties]
    for _ in range(element.count):
        for count, (_, kind, _), place in zip(counts, element.properties, places, strict=True):
            length = 1
            if count is not None:
                length = int(count.unpack_from(body, position)[0])
                position += count.size
            if length < 0:
                raise ValueError
            place.append((position, length))
            position += length * kind.itemsize
    if position > len(body):
        raise ValueError
    return [_gathered(body, element.properties[number].kind, np.array(places[number])) for number in wanted], position


def _alike(element: _Element, body: memoryview, position: int) -> np.ndarray | None:
    """The rows of an element, if all are as long as the first, lists and all."""
    fields: list[tuple[str, np.dtype, tuple[int, ...]]] = []
    place = position
    for number, (_, kind, counted) in enumerate(element.properties):
        shape: tuple[int, ...] = ()
        if counted is not None:
            shape = (int(np.frombuffer(body, counted, 1, place)[0]),) if element.count else (0,)
            fields.append((f"count {number}", counted, ()))
            place += counted.itemsize
        fields.append((f"values {number}", kind, shape))
        place += kind.itemsize * (shape[0] if shape else 1)
    row = np.dtype(fields)
    if position + element.count * row.itemsize > len(body):
        if all(p.counted is None for p in element.properties):
            raise ValueError
        return None
    rows = np.ndarray((element.count,), row, body, position)
    counts = [rows[name] for name in row.names or () if name.startswith("count")]
    return rows if all((count == count[:1]).all() for count in counts) else None


def _gathered(body: memoryview, kind: np.dtype, places: np.ndarray) -> _Lists:
    """Lists that stand anywhere: (R, 2) where they begin, and how long they are."""
    starts, sizes = places.T
    within = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
    anywhere = np.ndarray((max(len(body) - kind.itemsize + 1, 0),), kind, body, strides=(1,))
    return _Lists(anywhere[np.repeat(starts, sizes) + within * kind.itemsize], sizes)


READERS = {".ply": read_ply}
