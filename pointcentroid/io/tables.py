"""Points as tables: text (XYZ, TXT, CSV, PTS) and numpy arrays (NPY, NPZ)."""

from __future__ import annotations

import csv
import itertools
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pointcentroid.errors import PointCentroidError, ReadError, one_line, shortened
from pointcentroid.io.numbers import utf8
from pointcentroid.io.shape import MAX_ELEMENTS, MAX_UNPACKED, Shape, checked

_COMMENT = ("#", "//")
_DECIMAL = re.compile(r"[-+]?\d+(,\d+)?([eE][-+]?\d+)?")  # a number as half of the world writes it
_HEAD = 1 << 16  # bytes in which `may_hold_points` looks for a point
_OFTEN_NO_POINTS = (".txt", ".csv")  # suffixes under which all kinds of text are found beside shapes


class _Cells(NamedTuple):
    """How a line is cut into cells: some characters are replaced by another one, then it is split."""

    delimiter: str | None
    replaced: str = ""
    by: str = ""

    def cleaned(self, line: str) -> str:
        for mark in self.replaced:
            line = line.replace(mark, self.by)
        return line

    def of(self, line: str) -> list[str]:
        line = self.cleaned(line)
        if self.delimiter and '"' in line:
            with suppress(csv.Error):  # a cell of more than 128 KiB
                return next(csv.reader([line.strip()], delimiter=self.delimiter, skipinitialspace=True))
        return [cell.strip('"') for cell in line.split(self.delimiter)]


def read_text(path: Path) -> Shape:
    """Read a point a line: x, y, z, then anything, separated by semicolons, else by commas, else by white space.

    Blank lines, lines that start with `#` or `//`, one line of column names and lines that hold only the number of points
    are passed over; names may have a title above them. A PTS may not hold fewer points than it says. Column names, in a line
    of their own or, where it cannot be prose, in the last comment above the points, say which columns to take: x, y and z,
    as such or as programs write them (`pos_x`, `Points:0`, `X [m]`, easting), or the first three where they are called 0, 1,
    2 and so on, as pandas writes them. Between semicolons, and in numbers that white space separates, a comma is a decimal
    point.

    Args:
        path: the file.

    Raises:
        ReadError: with the line, where it does not hold three numbers; or of more than three columns with names none is x;
            or a PTS is cut short.
    """
    lines = _text(path, path.read_bytes()).splitlines()
    if lines and _SEPARATOR.fullmatch(lines[0]):
        lines[0] = ""
    first, columns, names = _skip_head(path, lines)
    cells = _cells_below(names, lines, first)
    wanted = columns or (0, 1, 2)
    try:
        # The fast way; where it stumbles, the lines are read again one by one to find out why.
        rows = [text for text in lines[first:] if text.strip()]
        if cells.replaced:
            rows = list(map(cells.cleaned, rows))
        how = {"delimiter": cells.delimiter, "comments": list(_COMMENT), "quotechar": '"' if '"' in rows[0] else None}
        points = np.loadtxt(rows, usecols=wanted, ndmin=2, **how)
        counts = lines[:first]  # no line below is one, or it would have stumbled
    except (ValueError, IndexError):
        counts = lines
        points = [_row(path, number, text, cells, wanted) for number, text in _rows(path, lines, first)]

    def line_of(vertex: int) -> int | None:
        return next((number for number, _ in islice(_rows(path, lines, first), vertex, None)), None)

    if path.suffix.lower() == ".pts":
        declared = sum(int(text) for _, text in _numbered(counts, 0) if _is_count(text))
        if declared > len(points):
            raise ReadError(path, f"cut short: it declares {declared} points, and holds {len(points)}")
    return checked(path, np.asarray(points, dtype=np.float64), None, line_of)


def _rows(path: Path, lines: list[str], first: int) -> Iterator[tuple[int, str]]:
    """The lines that hold points, with their numbers. A PTS of several scans has the number of its points above each."""
    counted = path.suffix.lower() == ".pts"
    return ((number, text) for number, text in _numbered(lines, first) if not (counted and _is_count(text)))


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) < 16


def _text(path: Path, content: bytes) -> str:
    """What bytes say, in whichever encoding programs write tables."""
    content = utf8(content)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        if b"\0" not in content:  # a name or a comment in Latin letters; numbers are the same in all
            return content.decode("latin-1")
        raise ReadError(path, f"not a text file: byte {error.start} is {error.object[error.start]:#04x}") from None


def _beginning(path: str, most: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(most)


def may_hold_points(path: str, read: Callable[[str, int], bytes] = _beginning) -> bool:
    """Whether a file may be a shape, whole or damaged; a licence, a list of names or features of `embed` are none.

    It is for files that nobody named, but that lie in a folder. A line that begins with three numbers, or names x, y and z,
    is enough; what is wrong with a file that is empty, or cannot be opened, is for its reader to say.

    Args:
        path: a file; of tables that often hold no points, the first 64 KiB are looked at.
        read: what reads the beginning of a file, by its path and a number of bytes.
    """
    if path.lower().endswith(".npz") and os.path.isfile(path):
        return not _embedded(path)
    if not path.lower().endswith(_OFTEN_NO_POINTS):
        return True
    try:
        head = read(path, _HEAD)
    except (OSError, PointCentroidError):
        return True
    lines = utf8(head).decode(errors="replace").splitlines()
    cut = len(head) == _HEAD
    if cut:
        del lines[-1]
    rows = list(_numbered(lines, 0))
    return len(rows) < 1 + cut or any(_like_points(text) for _, text in rows)


def _embedded(path: str) -> bool:
    """Whether `pointcentroid embed` has written a file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"features.npy", "files.npy", "labels.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _like_points(line: str) -> bool:
    cells = [cell.strip() for cell in _cells(line, mixed=True).of(line)]
    return _places(cells) is not None or (len(cells) >= 3 and all(map(_is_number, cells[:3])))


def _numbered(lines: list[str], first: int) -> Iterator[tuple[int, str]]:
    rows = ((number + 1, lines[number].strip()) for number in range(first, len(lines)))
    return ((number, text) for number, text in rows if text and not text.startswith(_COMMENT))


def _cells(line: str, mixed: bool = False) -> _Cells:
    """The cells of all lines, by one of them; `mixed`: separators of two kinds in a line (`x y z;r;g;b`) will do."""
    tokens = line.split()
    if len(tokens) >= 3 and "," in line and all(map(_DECIMAL.fullmatch, tokens[:3])):
        return _Cells(None, replaced=",", by=".")  # `1,5 2,5 3,5`
    delimiter = next((mark for mark in ";," if mark in line), None)
    if mixed and any(len(cell.split()) > 1 for cell in line.split(delimiter)):
        return _Cells(None, replaced=",;", by=" ")
    return _Cells(";", replaced=",", by=".") if delimiter == ";" else _Cells(delimiter)


def _cells_below(names: list[str], lines: list[str], first: int) -> _Cells:
    """The cells of all lines of data, which begin at a line, below the names of columns, if there are any."""
    line = lines[first]
    cells = _cells(line, mixed=not names)
    if names and cells.delimiter is None and "\t" in line:
        return cells._replace(delimiter="\t")
    if names and len(cells.of(line)) != len(names) == len(_Cells(",").of(line)):
        return _Cells(",")  # `a;b` is a text in a cell
    if not any(mark in line for mark in ",;"):  # `0 0 0` may stand above `1,5 2,5 3,5`
        later = next((text for text in lines[first:] if "," in text), "").split()[:3]
        if len(later) == 3 and all(map(_DECIMAL.fullmatch, later)) and any("," in word for word in later):
            return cells._replace(replaced=",", by=".")
    return cells


def _skip_head(path: Path, lines: list[str]) -> tuple[int, tuple[int, int, int] | None, list[str]]:
    """Index of the first line of data, the columns of x, y and z where their names say, and the names that say so in a line
    of their own."""
    names: list[str] = []
    named = counted = apart = False
    for (number, text), (_, below) in itertools.pairwise(itertools.chain(_numbered(lines, 0), [(0, "")])):
        cells = _cells(text).of(text)
        wordy = not any(map(_is_number, [*cells, *_cells(text, mixed=True).of(text)]))
        if len(cells) == 1 and _is_count(cells[0].strip()) and not counted:
            counted = True
        elif not named and (columns := _counted_columns(cells, below)):
            return number, columns, cells
        elif wordy and (not named or (_places(names) is None and _places(cells) is not None)):
            named = True
            names = text.split("\t") if "\t" in text else cells  # names may hold blanks
            apart = any(mark in text for mark in ",;\t")  # else it may be a title
        else:
            held = len(_cells(text, mixed=True).of(text))
            columns = _places(names)
            if columns is None and len(names) == held > 3 and apart:
                raise ReadError(path, f"its columns are {', '.join(names)[:80]}; none are called x, y, z", number)
            return number - 1, columns or _commented(lines[: number - 1], held), names if columns else []
    if named and any(line.lstrip().startswith("#") for line in lines):
        raise ReadError(path, "holds no geometry: its lines begin with #, as comments do, and count as such")
    raise ReadError(path, "holds no geometry: no line with three numbers")


def _counted_columns(cells: list[str], below: str) -> tuple[int, int, int] | None:
    """The first three columns, where a line only counts them, from 0, as pandas writes names that nobody gave; a column
    without a name is that of the rows' own numbers."""
    counts = [cell.strip() for cell in cells if cell.strip()]
    held = [cell.strip() for cell in _cells(below).of(below)]
    first = len(held) - len(counts)
    if counts != [str(number) for number in range(len(counts))] or first not in (0, 1):
        return None
    return None if all(cell.lstrip("+-").isdigit() for cell in held) else (first, first + 1, first + 2)


def _commented(above: list[str], held: int) -> tuple[int, int, int] | None:
    """The columns that the last comment above the points names, if it names as many as there are."""
    comments = [line.strip().lstrip("#/").strip() for line in above if line.strip().startswith(_COMMENT)]
    cells = _cells(comments[-1]) if comments else _Cells(None)
    names = cells.of(comments[-1]) if comments else []
    found = _places(names) if len(names) == held else None
    if found is None or cells.delimiter or "\t" in comments[-1]:
        return found
    others = {name.lower() for place, name in enumerate(names) if place not in found}
    prose = found != (found[0], found[0] + 1, found[0] + 2) and not others <= _ATTRIBUTES
    return None if prose else found


_ATTRIBUTES = {"i", "a", "r", "g", "b", "rgb", "red", "green", "blue", "alpha", "nx", "ny", "nz"} | {
    "intensity", "reflectance", "class", "classification", "label", "id", "time", "timestamp"
}  # fmt: skip
"""What columns beside x, y and z are called."""


_SEPARATOR = re.compile(r"""["']?sep=.["']?\s*""", re.IGNORECASE)  # the first line of a table that Excel wrote
_PLACE = r"(?:points?|pos|position|coords?|coordinates?)"
_AXIS = re.compile(rf"(?:(?:{_PLACE}|p|vertex)[ _.:]?)?([xyz])(?:[ _.:]?(?:{_PLACE}|mm|cm|m))?")
_NUMBERED = re.compile(rf"{_PLACE}(?:\w*:|[ _.:]?)([012])")
_WORDS = {
    "east": "x",
    "north": "y",
    "up": "z",
    "easting": "x",
    "northing": "y",
    "elevation": "z",
    "altitude": "z",
    "height": "z",
}


def _places(names: list[str]) -> tuple[int, int, int] | None:
    """The columns of x, y and z among names: as such, or as programs write them; None where they are not there."""
    plain = [_name(name) for name in names]
    for called in (lambda name: name, _axis):
        found = [called(name) for name in plain]
        if {"x", "y", "z"} <= set(found):
            return found.index("x"), found.index("y"), found.index("z")
    return None


def _axis(name: str) -> str:
    """`x` of `pos_x`, `x_m`, `points:0` or `easting`; nothing of other names."""
    if match := _AXIS.fullmatch(name):
        return match[1]
    if match := _NUMBERED.fullmatch(name):
        return "xyz"[int(match[1])]
    return _WORDS.get(name, "")


def _name(cell: str) -> str:
    """What a column is called, without a unit: `X [m]` is `x`."""
    return re.split(r"[\[(]", cell.strip().strip("\"'").lower(), maxsplit=1)[0].rstrip()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _row(path: Path, number: int, text: str, cells: _Cells, columns: tuple[int, int, int]) -> list[float]:
    try:
        found = cells.of(text)
        return [float(found[column]) for column in columns]
    except (ValueError, IndexError):
        raise ReadError(path, f"expected three coordinates, found {shortened(text)!r}", number) from None


def read_npy(path: Path) -> Shape:
    """Read an array of points, (N, 3) or wider, whose first three columns are x, y, z; or one with fields of these names.
    Objects are never unpickled.

    Args:
        path: the file.

    Raises:
        ReadError: it is no such array.
    """
    try:
        # A memory map is refused where the file is shorter than its header says; a plain read would allocate first.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:  # also where there is no room for the map
        raise
    except Exception as error:  # damaged headers raise a dozen types, from TokenError to OverflowError
        raise ReadError(path, f"not a readable NPY file ({one_line(error)})") from None
    if not isinstance(array, np.ndarray):
        raise ReadError(path, "an NPZ archive named .npy; rename it to .npz")
    return checked(path, _columns(path, "the array", array))


def read_npz(path: Path) -> Shape:
    """Read an archive of arrays: `vertices` (or `points`, `xyz`, `pos`, or the only array there is), and where there are
    any, `faces` (or `triangles`, or `face`, (3, F) as of PyTorch Geometric).

    Args:
        path: the file.

    Raises:
        ReadError: it is no such archive, or a member would unpack to an absurd size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            guard_archive(path, archive)
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            names = [name for name, member in members.items() if member.filename.endswith(".npy")]
            wanted = next((n for n in ("vertices", "points", "xyz", "pos") if n in names), None)
            if wanted is None:
                if len(names) != 1:
                    raise ReadError(path, f"expected an array named points or vertices, found {', '.join(names) or 'none'}")
                wanted = names[0]
            corners = next((n for n in ("faces", "triangles") if n in names), None)
            corners = "face" if corners is None and wanted == "pos" and "face" in names else corners
            for name in filter(None, (wanted, corners)):
                _guard_member(path, archive, members[name])
        with np.load(path, allow_pickle=False) as arrays:
            points = _columns(path, wanted, arrays[wanted])
            faces = arrays[corners] if corners else None
    except ReadError:
        raise
    except Exception as error:  # damaged archives raise a dozen types, from zlib.error to NotImplementedError
        raise ReadError(path, f"not a readable NPZ archive ({one_line(error)})") from None
    if faces is None or faces.size == 0:
        return checked(path, points)
    faces = faces.T if corners == "face" else faces  # that of PyTorch Geometric is (3, F)
    fits = faces.ndim == 2 and faces.shape[1] == 3 and faces.dtype.kind in "iu"
    if wanted == "vertices":
        if not fits:
            raise ReadError(path, f"{corners} must be integers of shape (F, 3), found {faces.dtype} {faces.shape}")
    elif not fits or faces.max() >= len(points):  # labels, or of other vertices
        return checked(path, points)
    return checked(path, points, faces)


ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError)
"""What `zipfile` raises where an archive is damaged, encrypted, or packed in a way of its own."""


def guard_archive(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse a zip archive whose members would unpack to far more than a shape can need, or want a password.

    Raises:
        ReadError: they add up to more than 1 GiB, or one is encrypted.
    """
    if locked := next((member.filename for member in archive.infolist() if member.flag_bits & 1), None):
        raise ReadError(path, f"is encrypted ({locked[:60]!r}); save it without a password")
    total = sum(member.file_size for member in archive.infolist())
    if total > MAX_UNPACKED:
        most = f"at most {MAX_UNPACKED >> 30} GiB is read from an archive"
        raise ReadError(path, f"would unpack to {total / 2**30:.1f} GiB; {most}")


def _guard_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Compare the shape that an array declares with the bytes it has; numpy would make room for it first."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
    if math.prod(shape) * dtype.itemsize > member.file_size:
        raise ReadError(path, f"{member.filename} declares the shape {shape}, more than its {member.file_size} bytes hold")


def _columns(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """(N, 3) the points of an array."""
    if array.ndim and len(array) > MAX_ELEMENTS:
        raise ReadError(path, f"{name} holds {len(array)} points; at most {MAX_ELEMENTS} are read")
    fields = array.dtype.names
    if fields and array.ndim == 1 and (places := _places(list(fields))):
        chosen = [fields[place] for place in places]
        if all(array.dtype[field].kind in "fiu" for field in chosen):
            array = np.stack([array[field] for field in chosen], axis=1)
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        found = f"{shortened(str(array.dtype))} {array.shape}"
        raise ReadError(path, f"{name} must hold numbers of shape (N, 3) or wider, found {found}")
    return np.array(array[:, :3], dtype=np.float64)


READERS = {
    ".xyz": read_text,
    ".txt": read_text,
    ".csv": read_text,
    ".pts": read_text,
    ".npy": read_npy,
    ".npz": read_npz,
}
