"""A file -> vertices and faces, in the file's own frame and units. Knows nothing of torch.

`READERS` is the table from suffix to reader. To add a format, write `read_x(path) -> Shape` in a file of this folder that
ends in its own `READERS = {".x": read_x}`, and merge that here; everything else, from the command line to folders of
training data, asks this table. `STANDARD_UP` holds the axis that a format's standard puts up, for those whose standard
says so.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from pointcentroid.errors import TOO_LARGE, PointCentroidError, ReadError, unforeseen
from pointcentroid.io import gltf, obj, off, parts, ply, scans, stl, tables, threemf
from pointcentroid.io.parts import PartedShape
from pointcentroid.io.shape import Shape

_Read = TypeVar("_Read")

READERS: dict[str, Callable[[Path], Shape]] = {
    **off.READERS,
    **obj.READERS,
    **ply.READERS,
    **stl.READERS,
    **gltf.READERS,
    **threemf.READERS,
    **tables.READERS,
    **scans.READERS,
}

STANDARD_UP: dict[str, str] = {".glb": "y", ".gltf": "y", ".3mf": "z", ".las": "z", ".laz": "z"}

# How files of each format begin, to recognise one that carries another's suffix. (.npz and .3mf are both zip archives.)
_MAGIC = {
    b"OFF": (".off",),
    b"COFF": (".off",),
    b"NOFF": (".off",),
    b"ply\n": (".ply",),
    b"ply\r": (".ply",),
    b"glTF": (".glb", ".gltf"),
    b"PK\x03\x04": (".3mf", ".npz"),
    b"# .PCD": (".pcd",),
    b"\x93NUMPY": (".npy",),
    b"LASF": (".las", ".laz"),
}


def read(path: str | Path) -> Shape:
    """Read a shape from a file.

    Args:
        path: a file whose suffix is a key of `READERS`, in any case.

    Returns:
        Its geometry: parts placed and merged, polygons cut into triangles.

    Raises:
        ReadError: the file is absent, of no known format, damaged, or holds no usable geometry.
        MissingExtraError: its format needs an optional dependency.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None and path.is_dir():
        raise _folder(path)
    if reader is None:
        if not os.path.exists(path):
            raise ReadError(path, "cannot be read: No such file or directory")
        raise unknown_format(path)
    return _guarded(path, reader)


def unknown_format(path: str | Path) -> ReadError:
    """What is wrong with a file whose suffix is no key of `READERS`, by its name alone."""
    return ReadError(path, f"unknown format {Path(path).suffix or '(no suffix)'}; known: {' '.join(sorted(READERS))}")


def read_parts(path: str | Path) -> PartedShape | None:
    """Read a mesh with the parts its author modelled: glTF nodes, OBJ objects and groups, 3MF objects.

    Args:
        path: a file of any format.

    Returns:
        None where the format has no parts, or the file fewer than two.

    Raises:
        ReadError: see `read`.
        MissingExtraError: see `read`.
    """
    path = Path(path)
    reader = parts.READERS.get(path.suffix.lower())
    parted = None if reader is None else _guarded(path, reader)
    return None if parted is None or len(parted.names) < 2 else parted


def _guarded(path: Path, reader: Callable[[Path], _Read]) -> _Read:
    """What a reader makes of a file that is there and holds what its name says."""
    try:
        if path.is_dir():
            raise _folder(path)
        with path.open("rb") as file:
            head = file.read(84)
        if not head:
            raise ReadError(path, "is an empty file")
        _check_magic(path, head)
        with np.errstate(all="ignore"):  # overflow and NaN are looked for by `checked`, not warned about on the way
            return reader(path)
    except OSError as error:
        reason = TOO_LARGE if error.errno == errno.ENOMEM else f"cannot be read: {error.strerror or error}"
        raise ReadError(path, reason) from None
    except MemoryError:
        raise ReadError(path, TOO_LARGE) from None
    except PointCentroidError:
        raise
    except Exception as error:  # whatever a library makes of a damaged file
        raise ReadError(path, unforeseen(error)) from error


def _folder(path: Path) -> ReadError:
    return ReadError(path, "is a folder, not a file")


def _check_magic(path: Path, head: bytes) -> None:
    stl = 84 + 50 * int.from_bytes(head[80:], "little")
    if path.suffix.lower() == ".stl" and len(head) == 84 and path.stat().st_size == stl:
        return  # a binary one, whose header may begin with anything
    for magic, suffixes in _MAGIC.items():
        word = magic.isalpha() and head[len(magic) : len(magic) + 1].isalpha()  # such as OFFICE
        if head.startswith(magic) and not word and path.suffix.lower() not in suffixes:
            if magic == b"PK\x03\x04":
                raise ReadError(path, "its content is a zip archive: unpack it, or rename what is 3MF or NPZ")
            raise ReadError(path, f"its content is {suffixes[0][1:].upper()}; rename it to end in {' or '.join(suffixes)}")
