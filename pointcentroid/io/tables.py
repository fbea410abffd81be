"""Points as tables: text (XYZ, TXT, CSV, PTS) and numpy arrays (NPY, NPZ)."""

from __future__ import annotations

import math
import re
import zipfile
from pathlib import Path

import numpy as np

from pointcentroid.errors import ReadError
from pointcentroid.io.shape import MAX_ELEMENTS, Shape, checked

_SEPARATOR = re.compile(r"[\s,;]+")
_COMMENT = ("#", "//")


def read_text(path: Path) -> Shape:
    """Read a point a line: x, y, z, then anything, separated by white space, commas or semicolons.

    Blank lines, lines that start with `#` or `//`, one line of column names and one line that holds only the number of
    points (PTS) are passed over. Where column names include x, y and z, they say which columns to take.

    Args:
        path: the file.

    Raises:
        ReadError: with the line, where it does not hold three numbers.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ReadError(path, f"not a text file: byte {error.start} is {error.object[error.start]:#04x}") from None
    first, columns = _skip_head(path, lines)
    delimiter = next((mark for mark in ",;" if mark in lines[first]), None) if first < len(lines) else None
    try:
        # The fast way; where it stumbles, the lines are read again one by one to find out why.
        rows = [text for text in lines[first:] if text.strip()]
        points = np.loadtxt(rows, delimiter=delimiter, comments=list(_COMMENT), usecols=columns, ndmin=2) if rows else []
    except (ValueError, IndexError):
        points = [_row(path, number, text, columns) for number, text in _numbered(lines, first)]
    return checked(path, np.asarray(points, dtype=np.float64))


def _numbered(lines: list[str], first: int) -> list[tuple[int, str]]:
    rows = [(number, text.strip()) for number, text in enumerate(lines[first:], first + 1)]
    return [(number, text) for number, text in rows if text and not text.startswith(_COMMENT)]


def _skip_head(path: Path, lines: list[str]) -> tuple[int, tuple[int, int, int]]:
    """Index of the first line of data, and the columns of x, y and z."""
    columns = (0, 1, 2)
    named = counted = False
    for number, text in _numbered(lines, 0):
        cells = _SEPARATOR.split(text.strip(",; \t"))
        if len(cells) == 1 and cells[0].isdigit() and not counted:
            counted = True
        elif not named and not any(map(_is_number, cells)):
            named = True
            names = [cell.strip("\"'").lower() for cell in cells]
            if {"x", "y", "z"} <= set(names):
                columns = (names.index("x"), names.index("y"), names.index("z"))
        else:
            return number - 1, columns
    raise ReadError(path, "holds no geometry: no line with three numbers")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _row(path: Path, number: int, text: str, columns: tuple[int, int, int]) -> list[float]:
    cells = _SEPARATOR.split(text.strip(",; \t"))
    try:
        return [float(cells[column]) for column in columns]
    except (ValueError, IndexError):
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise ReadError(path, f"expected three coordinates, found {shown!r}", number) from None


def read_npy(path: Path) -> Shape:
    """Read an array of points, (N, 3) or wider; the first three columns are x, y, z. Objects are never unpickled.

    Args:
        path: the file.

    Raises:
        ReadError: it is no such array.
    """
    try:
        # A memory map is refused where the file is shorter than its header says; a plain read would allocate first.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, TypeError, SyntaxError, OverflowError) as error:
        raise ReadError(path, f"not a readable NPY file ({_one_line(error)})") from None
    if not isinstance(array, np.ndarray):
        raise ReadError(path, "an NPZ archive named .npy; rename it to .npz")
    return checked(path, _columns(path, "the array", array))


def read_npz(path: Path) -> Shape:
    """Read an archive of arrays: `vertices` and `faces`, or `points` (or `xyz`, `pos`, or the only array there is).

    Args:
        path: the file.

    Raises:
        ReadError: it is no such archive, or a member would unpack to an absurd size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            guard_archive(path, archive)
            for member in archive.infolist():
                _guard_member(path, archive, member)
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays.files)
            wanted = next((n for n in ("vertices", "points", "xyz", "pos") if n in names), None)
            if wanted is None:
                if len(names) != 1:
                    raise ReadError(path, f"expected an array named points or vertices, found {', '.join(names) or 'none'}")
                wanted = names[0]
            points = _columns(path, wanted, arrays[wanted])
            faces = arrays["faces"] if wanted == "vertices" and "faces" in names else None
    except ReadError:
        raise
    except Exception as error:  # damaged archives raise a dozen types, from zlib.error to NotImplementedError
        raise ReadError(path, f"not a readable NPZ archive ({_one_line(error)})") from None
    if faces is not None and (faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu"):
        raise ReadError(path, f"faces must be integers of shape (F, 3), found {faces.dtype} {faces.shape}")
    return checked(path, points, faces)


def guard_archive(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse a zip archive whose members would unpack to far more than a shape can need.

    Raises:
        ReadError: they add up to more than 1 GiB.
    """
    total = sum(member.file_size for member in archive.infolist())
    if total > 2**30:
        raise ReadError(path, f"would unpack to {total / 2**30:.1f} GiB; at most 1 GiB is read from an archive")


def _guard_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Compare the shape that an array declares with the bytes it has; numpy would make room for it first."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
    if math.prod(shape) * dtype.itemsize > member.file_size:
        raise ReadError(path, f"{member.filename} declares the shape {shape}, more than its {member.file_size} bytes hold")


def _columns(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "fiu":
        raise ReadError(path, f"{name} must hold numbers of shape (N, 3) or wider, found {array.dtype} {array.shape}")
    if len(array) > MAX_ELEMENTS:
        raise ReadError(path, f"{name} holds {len(array)} points; at most {MAX_ELEMENTS} are read")
    return np.array(array[:, :3], dtype=np.float64)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


READERS = {
    ".xyz": read_text,
    ".txt": read_text,
    ".csv": read_text,
    ".pts": read_text,
    ".npy": read_npy,
    ".npz": read_npz,
}
