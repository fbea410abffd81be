"""OFF, the format of ModelNet: `OFF`, counts, vertices, polygons.

Ours, because the readers at hand return empty or partial meshes for files that are glued (`OFF490 518 0`), mixed
(pentagons and triangles), commented or cut short. This one reads all of these but the last, which is an error with a line
number.

The format is a stream of numbers, but colours at the end of lines break that. So a file is first taken as a stream, in a
few array operations; when the stream does not come out exactly right, it is read again line by line, which understands
colours and knows the line of every mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np

from pointcentroid.errors import ReadError, shortened
from pointcentroid.io.numbers import integers, reals, utf8, whole
from pointcentroid.io.polygons import triangles
from pointcentroid.io.shape import MAX_ELEMENTS, Shape, checked

_CHUNK = 2**16  # bytes that are searched for ends of lines at once
_COMMENT = re.compile(rb"#[^\n]*")
_STREAMED = {b"OFF": 3, b"NOFF": 6}  # how many numbers a vertex has; where there are colours, nobody knows
_HEADER = re.compile(rb"(ST)?(C)?(N)?(4)?(n)?OFF", re.IGNORECASE)


def read_off(path: Path) -> Shape:
    """Read an OFF, COFF or NOFF file.

    Args:
        path: the file.

    Raises:
        ReadError: with the line, where the file is malformed or cut short.
    """
    content = utf8(path.read_bytes())
    if b"\n" not in content:
        content = content.replace(b"\r", b"\n")  # lines as on old Macs
    header, counts, body, body_line = _read_head(path, content)
    found = None
    if width := _STREAMED.get(header.upper()):
        found = _read_stream(_COMMENT.sub(b"", body) if b"#" in body else body, *counts, width)
    if found is None:
        found = _read_lines(path, body, body_line, *counts)
    return checked(path, *found, lambda vertex: _line_of(vertex, found[0], body, body_line))


def _line_of(vertex: int, points: np.ndarray, body: bytes, line: int) -> int | None:
    """The number of the line of a vertex; None where not every vertex before it has one of its own."""
    number, tokens = next(islice(_content_lines(body, line), vertex, None), (None, []))
    with suppress(ValueError):
        if np.array_equal([float(token) for token in tokens[:3]], points[vertex], equal_nan=True):
            return number
    return None


def _read_head(path: Path, content: bytes) -> tuple[bytes, tuple[int, int], bytes, int]:
    """Split off the keyword and the counts: (keyword, (vertices, faces), everything after, its first line number)."""
    position, line, found = 0, 0, b""
    keyword: bytes | None = None
    while position < len(content):
        end = content.find(b"\n", position)
        end = len(content) if end < 0 else end
        line += 1
        text = content[position:end].split(b"#")[0].strip()
        position = end + 1
        if keyword is None and text:
            match = _HEADER.match(text)
            if match is None:
                found = text[:40]
                break
            keyword = match.group()
            if match.group(4) or match.group(5):
                raise ReadError(path, f"{_show(keyword)} holds points of four or more dimensions; expected three", line)
            text = text[match.end() :].strip()
            if text.upper().startswith(b"BINARY"):
                raise ReadError(path, "binary OFF is not supported; save it as ascii OFF, PLY or STL", line)
        if keyword is not None and text:
            # What stands behind three counts in the same line is data already: the format is a stream.
            tokens = text.split()
            counts = _read_counts(path, tokens[:3], line, len(content))
            if len(tokens) > 3:
                return keyword, counts, b" ".join(tokens[3:]) + b"\n" + content[position:], line
            return keyword, counts, content[position:], line + 1
    if keyword is None:
        raise ReadError(path, f"expected the keyword OFF at the start, found {_show(found) or 'nothing'!r}", max(line, 1))
    raise ReadError(path, "ends before the counts of vertices and faces", max(line, 1))


def _read_counts(path: Path, tokens: list[bytes], line: int, size: int) -> tuple[int, int]:
    try:
        numbers = [int(token) for token in tokens]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or min(numbers) < 0:
        raise ReadError(path, f"expected the counts of vertices, faces and perhaps edges, found {_show(tokens)!r}", line)
    vertices, faces = numbers[:2]
    # Each vertex takes at least "0 0 0\n", each face "0\n".
    if 6 * vertices + 2 * faces > size + 1 or max(vertices, faces) > MAX_ELEMENTS:
        raise ReadError(path, f"declares {vertices} vertices and {faces} faces, more than its {size} bytes can hold", line)
    return vertices, faces


def _read_stream(body: bytes, vertices: int, faces: int, width: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Take the numbers as they come; None unless they are exactly the declared vertices, of `width` numbers, and faces."""
    # Most files hold a vertex a line: then all after those lines are integers, which parse several times faster.
    cut = _after_lines(body, vertices)
    points, rest = reals(body[:cut]), integers(body[cut:])
    if points is None or rest is None or len(points) != width * vertices:
        numbers = reals(body)
        if numbers is None or len(numbers) < width * vertices or (rest := whole(numbers[width * vertices :])) is None:
            return None
        points, cut = numbers[: width * vertices], 0
    points = points.reshape(-1, width)[:, :3]
    if len(rest) == 4 * faces and (rest[::4] == 3).all():
        made = np.ascontiguousarray(rest.reshape(-1, 4)[:, 1:])  # several times faster to look through
        return (points, made) if _inside(made, vertices) else None
    found = _polygons(rest, faces)
    if found is None or not _a_line_each(body[cut:] if cut else body, found[1], 0 if cut else vertices):
        return None
    corners, sizes = found
    return (points, triangles(points, corners, sizes)[0]) if _inside(corners, vertices) else None


def _polygons(numbers: np.ndarray, faces: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Take polygons from a stream of numbers: of each polygon how many corners it has, and then these.

    Returns:
        (C,) corners of all, and (faces,) how many each has; None where the numbers do not end with the last polygon.
    """
    sizes, position = [], 0
    for _ in range(faces):
        if position >= len(numbers):
            return None
        size = int(numbers[position])
        if not 0 <= size <= len(numbers):
            return None
        sizes.append(size)
        position += 1 + size
    if position != len(numbers):
        return None
    counts = np.array(sizes, dtype=np.int64)
    heads = np.zeros(len(numbers), dtype=bool)
    heads[(counts + 1).cumsum() - counts - 1] = True
    return numbers[~heads], counts


def _inside(corners: np.ndarray, vertices: int) -> bool:
    return corners.size == 0 or (corners.min() >= 0 and corners.max() < vertices)


def _a_line_each(text: bytes, sizes: np.ndarray, before: int) -> bool:
    """Whether polygons of these sizes are what lines hold, where each has a line.

    Colours behind them can be taken for polygons, of which as many numbers are just as many polygons.

    Args:
        text: what holds the polygons.
        sizes: how many corners each has.
        before: lines of it that hold vertices.
    """
    words = [len(line.split()) for line in text.splitlines() if not line.isspace() and line]
    return len(words) != before + len(sizes) or words[before:] == (sizes + 1).tolist()


def _after_lines(text: bytes, count: int) -> int:
    """Where the first lines end; 0 where there are fewer."""
    whole = np.frombuffer(text, np.uint8)
    for start in range(0, len(whole), _CHUNK):
        ends = whole[start : start + _CHUNK] == ord("\n")
        here = int(np.count_nonzero(ends))
        if 0 < count <= here:
            return start + int(np.flatnonzero(ends)[count - 1]) + 1
        count -= here
    return 0


def _read_lines(path: Path, body: bytes, line: int, vertices: int, faces: int) -> tuple[np.ndarray, np.ndarray]:
    """One vertex or face a line, whatever follows their numbers: the strict way, with line numbers in its errors."""
    lines = _content_lines(body, line)
    last = line + body.rstrip().count(b"\n")
    points = np.empty((vertices, 3))
    for row in range(vertices):
        number, tokens = next(lines, (0, []))
        if not number:
            raise ReadError(path, f"cut short: the header declares {vertices} vertices, the file ends after {row}", last)
        if len(tokens) < 3:
            raise ReadError(path, f"expected vertex {row} as three coordinates, found {_show(tokens)!r}", number)
        try:
            points[row] = [float(token) for token in tokens[:3]]
        except ValueError:
            raise ReadError(path, f"expected vertex {row} as three numbers, found {_show(tokens)!r}", number) from None
    corners: list[int] = []
    sizes: list[int] = []
    for row in range(faces):
        number, tokens = next(lines, (0, []))
        if not number:
            raise ReadError(path, f"cut short: the header declares {faces} faces, the file ends after {row}", last)
        face = _read_face(path, number, row, tokens, vertices)
        corners += face
        sizes.append(len(face))
    number, tokens = next(lines, (0, []))
    if number:
        raise ReadError(path, f"goes on after the {faces} faces that its header declares: {_show(tokens)!r}", number)
    return points, triangles(points, np.array(corners, np.int64), np.array(sizes, np.int64))[0]


def _read_face(path: Path, line: int, row: int, tokens: list[bytes], vertices: int) -> list[int]:
    try:
        size = int(tokens[0])
        corners = [int(token) for token in tokens[1 : 1 + max(size, 0)]]
    except ValueError:
        raise ReadError(path, f"expected face {row} as a count and vertex indices, found {_show(tokens)!r}", line) from None
    if size < 0 or len(corners) < size:
        raise ReadError(path, f"face {row} declares {size} corners and lists {len(corners)}", line)
    for corner in corners:
        if not 0 <= corner < vertices:
            raise ReadError(path, f"face {row} names vertex {corner}, but the vertices are 0..{vertices - 1}", line)
    return corners


def _content_lines(body: bytes, line: int) -> Iterator[tuple[int, list[bytes]]]:
    """Lines that hold something besides comments: their numbers and their tokens."""
    for number, text in enumerate(body.split(b"\n"), line):
        tokens = text.split(b"#")[0].split()
        if tokens:
            yield number, tokens


def _show(text: bytes | list[bytes]) -> str:
    joined = b" ".join(text) if isinstance(text, list) else text
    return shortened(joined.decode("ascii", "replace"))


READERS = {".off": read_off}
