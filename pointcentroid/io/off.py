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
from pathlib import Path
from typing import Literal

import fastnumbers
import numpy as np
import simdjson

from pointcentroid.errors import ReadError
from pointcentroid.io.polygons import fans
from pointcentroid.io.shape import MAX_ELEMENTS, Shape, checked

_AS_JSON = bytes(byte if byte in b"0123456789+-.eE" else ord("," if byte in b" \t\r\n" else "?") for byte in range(256))
_HEAD = 256  # bytes that tell how a file is laid out
_CHUNK = 2**16  # bytes that are searched for ends of lines at once
_PARSER = simdjson.Parser()  # kept, because its memory is: allocating that anew takes longer than parsing
_HEADER = re.compile(rb"(ST)?(C)?(N)?(4)?(n)?OFF", re.IGNORECASE)


def read_off(path: Path) -> Shape:
    """Read an OFF, COFF or NOFF file.

    Args:
        path: the file.

    Raises:
        ReadError: with the line, where the file is malformed or cut short.
    """
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    header, counts, body, body_line = _read_head(path, content)
    if header.upper() == b"OFF" and b"#" not in body:
        streamed = _read_stream(body, *counts)
        if streamed is not None:
            return checked(path, *streamed)
    return checked(path, *_read_lines(path, body, body_line, *counts))


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


def _read_stream(body: bytes, vertices: int, faces: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Take the numbers as they come; None unless they are exactly the declared vertices and faces."""
    # Most files hold a vertex a line: then all after those lines are integers, which parse several times faster.
    cut = _after_lines(body, vertices)
    points, rest = _reals(body[:cut]), _json_numbers(body[cut:], "i")
    if points is None or rest is None or len(points) != 3 * vertices:
        numbers = _reals(body)
        if numbers is None or len(numbers) < 3 * vertices or (numbers[3 * vertices :] % 1).any():
            return None
        points, rest = numbers[: 3 * vertices], numbers[3 * vertices :].astype(np.int64)
    if len(rest) == 4 * faces and (rest[::4] == 3).all():
        triangles = rest.reshape(-1, 4)[:, 1:]
    else:
        triangles = fans(rest, faces)
    if triangles is None:
        return None
    triangles = np.ascontiguousarray(triangles)  # several times faster to look through
    inside = len(triangles) == 0 or (triangles.min() >= 0 and triangles.max() < vertices)
    return (points.reshape(-1, 3), triangles) if inside else None


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


def _reals(text: bytes) -> np.ndarray | None:
    """All numbers of a text, or None where it holds anything else."""
    parsed = _json_numbers(text, "d")
    if parsed is not None:
        return parsed
    try:
        return fastnumbers.try_array(text.split(), dtype=np.float64)  # type: ignore[reportArgumentType]
    except ValueError:
        return None


def _json_numbers(text: bytes, kind: Literal["d", "i"]) -> np.ndarray | None:
    """All numbers of a text, reals or integers, or None where JSON would write one of them otherwise (`1.`, `+2`, `nan`).

    Between commas the text is a JSON array, and parsers of JSON are the fastest there are: a third of the time of
    fastnumbers, the same numbers.
    """
    listed = text.strip().translate(_AS_JSON)
    # Looking for what most files do not hold takes as long as parsing: the first bytes tell, and else the parser.
    if b",," not in listed[:_HEAD]:
        array = _parsed(listed, kind)
        if array is not None:
            return array
    if b"?" in listed:
        return None
    while b",," in listed:
        listed = listed.replace(b",,", b",")
    return _parsed(listed, kind)


def _parsed(listed: bytes, kind: Literal["d", "i"]) -> np.ndarray | None:
    try:
        array = _PARSER.parse(b"[" + listed + b"]")
        return np.frombuffer(array.as_buffer(of_type=kind), np.float64 if kind == "d" else np.int64)  # type: ignore[reportAttributeAccessIssue]
    except (ValueError, TypeError, RuntimeError):
        return None


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
    triangles: list[tuple[int, int, int]] = []
    for row in range(faces):
        number, tokens = next(lines, (0, []))
        if not number:
            raise ReadError(path, f"cut short: the header declares {faces} faces, the file ends after {row}", last)
        corners = _read_face(path, number, row, tokens, vertices)
        triangles += [(corners[0], corners[k], corners[k + 1]) for k in range(1, len(corners) - 1)]
    number, tokens = next(lines, (0, []))
    if number:
        raise ReadError(path, f"goes on after the {faces} faces that its header declares: {_show(tokens)!r}", number)
    return points, np.array(triangles, dtype=np.int64).reshape(-1, 3)


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
    shown = joined.decode("ascii", "replace")
    return shown if len(shown) <= 60 else shown[:57] + "..."


READERS = {".off": read_off}
