"""STL, through trimesh."""

from __future__ import annotations

import codecs
import io
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pointcentroid.errors import ReadError, one_line
from pointcentroid.interrupts import held_back
from pointcentroid.io.numbers import reals
from pointcentroid.io.shape import Part, Shape, joined

_NAMED = re.compile(rb"^([ \t]*(?:end)?solid)\b[^\n]*", re.MULTILINE | re.IGNORECASE)
_UNCOUNTED = 0, 2**32 - 1
logging.getLogger("trimesh").addHandler(logging.NullHandler())  # its remarks on damaged files are not for the screen


def read_stl(path: Path) -> Shape:
    """Read an STL file, text or binary.

    Args:
        path: the file.

    Raises:
        ReadError: the file is damaged or holds no geometry.
    """
    solids = _solids(path, _whole(path, path.read_bytes()))
    return joined(path, [Part("", _triples(path, "vertices", s.vertices), _triples(path, "faces", s.faces)) for s in solids])


def _solids(path: Path, content: bytes) -> list[Any]:
    """What trimesh makes of a file's content."""
    with held_back():
        import trimesh

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scene = trimesh.load_scene(io.BytesIO(content), file_type="stl", process=False)
            return list(scene.geometry.values())
    except MemoryError:
        raise
    except Exception as error:  # what a damaged file raises inside a parser is anybody's guess
        _complain(path)
        raise ReadError(path, f"damaged STL file ({type(error).__name__}: {one_line(error, 120)})") from None


def _complain(path: Path) -> None:
    """Say in which line of a text a vertex is none, if one is."""
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        words = line.split()
        if words and words[0].lower() == b"vertex" and (len(words) != 4 or reals(b" ".join(words[1:])) is None):
            raise ReadError(
                path, f"expected a vertex of three numbers, found {line.strip().decode('utf-8', 'replace')[:60]!r}", number
            )


def _triples(path: Path, what: str, values: Any) -> np.ndarray:
    """(N, 3) from what a parser made of a file, which may be anything where lines are damaged."""
    array = np.asarray(values)
    if array.size == 0:
        return np.empty((0, 3))
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        raise ReadError(path, f"damaged: its {what} do not come in threes")
    return array


def _whole(path: Path, content: bytes) -> bytes:
    """An STL as trimesh takes it.

    A binary one says how many triangles follow, 50 bytes each; what stands behind these is left out. Its header may begin
    with `solid`, as a text does; but what a text has in the place of the number is far too large. Programs that do not know
    how many there will be leave it at 0, or at all ones. A text may lack its last line, `endsolid`, but no part of a facet.
    """
    begin = content[: content.find(b"\n", 0, 2**16) + 1024].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    text = begin.startswith(b"solid") and b"facet" in begin
    if len(content) >= 84:
        declared = int.from_bytes(content[80:84], "little")
        held = (len(content) - 84) // 50
        if declared in _UNCOUNTED and held and len(content) == 84 + 50 * held:
            return content[:80] + held.to_bytes(4, "little") + content[84:]
        if declared <= held and not (text and declared == 0):
            return content[: 84 + 50 * declared]
        if not text:
            raise ReadError(path, f"cut short: the header declares {declared} triangles, the file holds {held}")
    if not text:
        return content
    content = content.removeprefix(codecs.BOM_UTF8).lstrip().replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    content = _NAMED.sub(rb"\1", content)  # trimesh looks for words that a name may hold, too
    # What stands behind the end of the last solid may be anything but the beginning of another one.
    end = content[-1024:].lower()
    end = end if b"endsolid" in end else content.lower()
    rest = end.rpartition(b"endsolid")[2].partition(b"\n")[2] if b"endsolid" in end else end
    if not re.search(rb"^[ \t]*facet\s", rest, re.MULTILINE):
        return content
    if rest.split()[-1] != b"endfacet":
        raise ReadError(path, "cut short: its last facet does not end")
    return content + b"\nendsolid\n"


READERS = {".stl": read_stl}
