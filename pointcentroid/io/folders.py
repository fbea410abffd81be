"""The readable files of a folder, one by one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pointcentroid.io import READERS


def readable(name: str) -> bool:
    """Whether a file of this name is of a format that can be read, and not hidden."""
    return os.path.splitext(name)[1].lower() in READERS and not name.startswith(".")


def walk(folder: str, recursive: bool, tell: Callable[[str], object] = sys.stderr.write) -> Iterator[str]:
    """List the readable files of a folder as they are asked for, in the order in which their paths sort.

    What is held is the names in the folders above the file at hand, because names are sorted. A folder that cannot be listed
    is told of, and left out; links to folders are not followed, for they may lead back.

    Args:
        folder: where to look.
        recursive: look into subfolders.
        tell: takes a line about a folder that is left out.
    """
    folder = str(Path(folder))
    try:
        with os.scandir(folder) as entries:
            # `a/b` sorts after `a-b` and before `a0`: the separator takes part.
            names = sorted(e.name + os.sep if _is_folder(e) else e.name for e in entries if _is_folder(e) or _wanted(e))
    except OSError as error:
        tell(f"{folder}: cannot be listed: {error.strerror}\n")
        return
    names.reverse()
    while names:
        name = names.pop()
        path = name if folder == "." else os.path.join(folder, name)
        if not name.endswith(os.sep):
            yield path
        elif recursive:
            yield from walk(path.rstrip(os.sep), recursive, tell)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _wanted(entry: os.DirEntry[str]) -> bool:
    return readable(entry.name) and (entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path))
