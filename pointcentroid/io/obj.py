"""OBJ: vertices, faces, and the objects and groups that faces stand in.

Ours, because trimesh, as good a reader as there is, loses what stands indented, behind a byte-order mark, or behind a
comment that ends in a backslash; counts negative corners from the end of the file; and takes faces of different notation,
but equal length, for each other. Here it is known of every word in which line it stands, and all numbers are parsed at once.
Materials, textures, normals and curves are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pointcentroid.errors import ReadError
from pointcentroid.io.numbers import first_broken, integers, reals, utf8, whole
from pointcentroid.io.polygons import triangles
from pointcentroid.io.shape import Shape, checked

_CHUNK = 2**20  # bytes that are taken apart at once
_BLANK = np.isin(np.arange(256), list(b" \t\n\v\f"))
_COMMENT = re.compile(rb"#[^\n]*")
_GOES_ON = re.compile(rb"^(?:[^\n]*\\\n)+[^\n]*", re.MULTILINE)  # lines that end in a backslash, and the one after them


class Parted(NamedTuple):
    """What a file holds.

    Attributes:
        vertices: (V, 3) float64.
        faces: (F, 3) int64 triangles, in the order of the file.
        parts: (F,) int64 which of `names` each is of.
        names: of the objects and groups that have faces, in the order of the file.
        lines: (V,) int64 where each vertex stands, from 0.
    """

    vertices: np.ndarray
    faces: np.ndarray
    parts: np.ndarray
    names: list[str]
    lines: np.ndarray


def read_obj(path: Path) -> Shape:
    """Read an OBJ file.

    Args:
        path: the file. Materials, textures and other files it names are not opened.

    Raises:
        ReadError: with the line, where a vertex or a face is no such thing; or the file holds no geometry.
    """
    found = parted(path)
    return checked(path, found.vertices, found.faces, lambda vertex: int(found.lines[vertex]) + 1)


def parted(path: Path) -> Parted:
    """Read an OBJ file, with the object (`o`) and group (`g`) of each face.

    Args:
        path: the file.

    Raises:
        ReadError: with the line, where a vertex or a face is no such thing.
    """
    content = utf8(path.read_bytes())
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\\\n" in content:  # goes on in the next line; a comment does not
        content = _GOES_ON.sub(_in_one_line, _COMMENT.sub(b"", content))
    chunks = [_taken(path, *chunk) for chunk in _chunks(content + b"\n")]
    coordinates, counts, at = _joined(chunk.vertices for chunk in chunks)
    vertices = coordinates[(counts.cumsum() - counts)[:, None] + np.arange(3)].reshape(-1, 3)
    named, sizes, where = _joined(chunk.faces for chunk in chunks)
    corners = whole(named)
    if corners is None:
        wrong = first_broken(named)
        face = int(np.searchsorted(sizes.cumsum(), wrong, side="right"))
        held = f"but there are {len(vertices)}" if named[wrong] % 1 == 0 else "which is no whole number"
        raise ReadError(path, f"a face names vertex {named[wrong]:.17g}, {held}", int(where[face]) + 1)
    # They count from 1, or back from the last vertex above.
    rows = np.where(corners < 0, corners + np.repeat(np.searchsorted(at, where), sizes), corners - 1)
    wrong = np.flatnonzero((rows < 0) | (rows >= len(vertices)))
    if len(wrong):
        face = int(np.searchsorted(sizes.cumsum(), wrong[0], side="right"))
        vertex, above = int(corners[wrong[0]]), int(np.searchsorted(at, where[face]))
        held = f"but there are {len(vertices)}" if vertex >= 0 else f"but only {above} come before it"
        raise ReadError(path, f"a face names vertex {vertex}, {held}", int(where[face]) + 1)
    faces, of = triangles(vertices, rows, sizes)
    begin, part, names = _parts([named for chunk in chunks for named in chunk.names])
    used, parts = np.unique(part[np.searchsorted(begin, where, side="right")][of], return_inverse=True)
    return Parted(vertices, faces, parts.astype(np.int64), [names[number] for number in used], at)


Numbers = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(K,) of some lines, (L,) how many each of these holds, and (L,) the numbers of the lines, from 0."""


def _in_one_line(found: re.Match[bytes]) -> bytes:
    """Its lines in the first of them; the others stay, empty, so that those below keep their numbers."""
    return found[0].replace(b"\\\n", b" ") + b"\n" * found[0].count(b"\\\n")


def _chunks(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Pieces of a text that end with a line, and how many lines are above each."""
    start = line = 0
    while start < len(content):
        end = content.find(b"\n", start + _CHUNK) + 1 or len(content)
        yield content[start:end], line
        line += content.count(b"\n", start, end)
        start = end


def _joined(found: Iterable[Numbers]) -> Numbers:
    values, counts, where = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return values, counts, where


def _parts(named: list[tuple[int, str, str]]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Which part lines are of.

    Args:
        named: the lines that name parts: their numbers, `o` or `g`, and the names.

    Returns:
        (K,) their numbers; (K + 1,) rows of the names: of what stands before them all, and of what follows each; the names.
    """
    known: dict[tuple[str, str], int] = {("", ""): 0}
    of, part, group = [0], "", ""
    for _, kind, name in named:
        part, group = (name, group) if kind == "o" else (part, name)
        of.append(known.setdefault((part, group), len(known)))
    names = ["_".join(filter(None, pair)) or "unnamed" for pair in known]
    return np.array([line for line, _, _ in named], dtype=np.int64), np.array(of), names


class _Taken(NamedTuple):
    """What some lines hold.

    Attributes:
        vertices: their numbers.
        faces: their numbers.
        names: see `_parts`.
    """

    vertices: Numbers
    faces: Numbers
    names: list[tuple[int, str, str]]


def _taken(path: Path, content: bytes, above: int) -> _Taken:
    lines = _Lines(path, content, above)
    return _Taken(
        lines.numbers("v", "three coordinates", 3), lines.numbers("f", "the numbers of vertices", 0), lines.named()
    )


class _Lines:
    """Some lines, and their words.

    Args:
        path: named in errors.
        content: the lines; the last byte ends one.
        above: lines before them.
    """

    def __init__(self, path: Path, content: bytes, above: int) -> None:
        self.path, self.content, self.above = path, content, above
        if b"#" in content:
            content = _COMMENT.sub(lambda found: b" " * len(found[0]), content)
        self.text = text = np.frombuffer(content, np.uint8)
        ends = np.flatnonzero(text == ord("\n"))
        self.starts, self.lengths = np.concatenate([[0], ends[:-1] + 1]), np.diff(ends, prepend=-1)
        blank = _BLANK[text]
        begins = ~blank
        begins[1:] &= blank[:-1]
        self.words = np.add.reduceat(begins, self.starts, dtype=np.int64)  # of each line
        words = np.flatnonzero(begins)
        held = np.flatnonzero(self.words)
        self.first = np.zeros(len(self.starts), dtype=np.int64)  # where the first word of each line begins
        self.first[held] = words[(self.words.cumsum() - self.words)[held]]
        alone = blank[np.minimum(self.first + 1, len(text) - 1)]
        self.kinds = np.where(alone & (self.words > 0), text[self.first], 0)  # the first word, where it is one letter

    def numbers(self, kind: str, what: str, least: int) -> Numbers:
        """The numbers that lines of a kind hold behind their first words; of a word, up to a slash.

        Args:
            kind: the letter that they begin with.
            what: expected there, for errors.
            least: how many a line holds, at least.
        """
        where = np.flatnonzero(self.kinds == ord(kind))
        counts = self.words[where] - 1
        chosen = np.repeat(self.kinds == ord(kind), self.lengths)
        chosen[self.first[where]] = False
        text = self.text[chosen]
        if kind == "f" and (slash := text == ord("/")).any():
            text = text[_since(slash) <= _since(_BLANK[text])]
        values = _parsed(text.tobytes(), kind)
        if values is None or len(values) != counts.sum() or (len(counts) and counts.min() < least):
            self._complain(kind, where, what, least)
        assert values is not None
        return values, counts, where + self.above

    def _complain(self, kind: str, where: np.ndarray, what: str, least: int) -> None:
        for line in where:
            text = self.content[self.starts[line] : self.starts[line] + self.lengths[line]]
            words = text.partition(b"#")[0].split()[1:]
            words = [word.partition(b"/")[0] for word in words] if kind == "f" else words
            values = reals(b" ".join(words)) if words else np.zeros(0)
            if values is None or len(values) != len(words) or len(words) < least:
                shown = text.strip().decode("utf-8", "replace")
                raise ReadError(self.path, f"expected {what}, found {shown[:60]!r}", int(line) + self.above + 1)
        raise AssertionError("every line is sound by itself")

    def named(self) -> list[tuple[int, str, str]]:
        """The lines that name parts, see `_parts`."""
        found = []
        for line in np.flatnonzero((self.kinds == ord("o")) | (self.kinds == ord("g"))):
            name = self.content[self.first[line] + 1 : self.starts[line] + self.lengths[line]]
            found.append((int(line) + self.above, chr(self.kinds[line]), name.strip().decode("utf-8", "replace")))
        return found


def _parsed(text: bytes, kind: str) -> np.ndarray | None:
    """All numbers of a text; those of faces are whole in all but odd files."""
    if not text.strip():
        return np.zeros(0)
    found = integers(text) if kind == "f" else None
    return reals(text) if found is None else found


def _since(marks: np.ndarray) -> np.ndarray:
    """Of each place, the last marked one up to it; -1 where there is none."""
    return np.maximum.accumulate(np.where(marks, np.arange(len(marks), dtype=np.int32), np.int32(-1)))


READERS = {".obj": read_obj}
