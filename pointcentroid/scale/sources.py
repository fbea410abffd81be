"""Where files for Ray come from: a folder, a list, a bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from pointcentroid.errors import DataError, one_line
from pointcentroid.io.folders import readable, walk
from pointcentroid.io.tables import may_hold_points


def check_source(source: str) -> None:
    """Refuse a source that is not there, before a cluster is started for it.

    Raises:
        DataError: it is no folder, file or address.
    """
    source = _local(source)
    if "://" not in source:
        if not os.path.exists(source):
            raise DataError(f"{source}: no such folder, file, list of files, or address such as s3://bucket/folder")
        return
    from pyarrow.fs import FileType

    try:
        found = _info(source)
    except Exception as error:  # each file system has its own
        raise DataError(f"{source}: cannot be listed: {one_line(error)}") from None
    if found.type == FileType.NotFound:
        raise DataError(f"{source}: there is nothing of this name")


def files_of(source: str, recursive: bool, folder: str = "") -> Iterator[str]:
    """The files of a source, one by one, in an order that is the same every time.

    Args:
        source: a folder; a file with a shape; any other file, which lists one path or address a line; or the address of a
            shape or folder that pyarrow or fsspec knows, such as `s3://bucket/folder`. (Tested: local ones, and S3 as moto
            serves it.)
        recursive: look into subfolders.
        folder: that names which are not whole are of; that of this process if empty.
    """
    source = _local(source)
    there = whole_name(source, folder)
    if "://" in source:
        from pyarrow.fs import FileType

        root, path = _split(source)
        system, base = _file_system(root)
        if _info(source).type == FileType.File:
            yield source
            return
        for found in _walk_remote(system, base + path, recursive):
            yield root + found.removeprefix(base)
    elif os.path.isdir(there):
        named = str(Path(source))
        for path in walk(there, recursive):
            below = os.path.relpath(path, there)
            yield below if named == "." else os.path.join(named, below)
    elif readable(os.path.basename(source)) and may_hold_points(there):
        yield source
    else:
        with open(there, encoding="utf-8-sig", errors="surrogateescape") as lines:
            yield from (_local(line.rstrip("\r\n")) for line in lines if line.strip())


def whole_name(name: str, folder: str) -> str:
    """Where a file is that is called so in a folder; addresses stay."""
    return name if "://" in name else os.path.join(folder, name)


def _local(source: str) -> str:
    """A path, where the address is of this machine."""
    return source.removeprefix("file://")


def _info(address: str) -> Any:
    """What a file system says of an address."""
    root, path = _split(address)
    system, base = _file_system(root)
    return system.get_file_info(base + path)


def _walk_remote(system: Any, folder: str, recursive: bool) -> Iterator[str]:
    """Like `walk`; one folder's list is held at a time."""
    from pyarrow.fs import FileSelector, FileType

    for info in sorted(system.get_file_info(FileSelector(folder)), key=lambda info: info.path):
        if info.type == FileType.Directory:
            if recursive and not info.base_name.startswith("."):
                yield from _walk_remote(system, info.path, recursive)
        elif readable(info.base_name) and may_hold_points(info.path, partial(_beginning, system)):
            yield info.path


def _beginning(system: Any, path: str, most: int) -> bytes:
    with system.open_input_stream(path) as file:
        return file.read(most)


def open_remote(address: str) -> Any:
    """Open a file of another file system for reading."""
    root, path = _split(address)
    system, base = _file_system(root)
    return system.open_input_stream(base + path)


def _split(address: str) -> tuple[str, str]:
    """`s3://bucket/a b.off` -> `s3://bucket` and `/a b.off`; what follows the bucket is a name, whatever is in it."""
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}", slash + path.rstrip("/")


@cache
def _file_system(root: str) -> tuple[Any, str]:
    """The file system of an address, pyarrow's own where it has one, else fsspec's; and what it calls the root."""
    import pyarrow as pa
    from pyarrow import fs

    try:
        system, base = fs.FileSystem.from_uri(root)
    except pa.ArrowInvalid:
        from fsspec.core import url_to_fs

        system, base = url_to_fs(root)
        system = fs.PyFileSystem(fs.FSSpecHandler(system))
    return system, base.rstrip("/")
