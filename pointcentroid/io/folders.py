"""The readable files of a folder, one by one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pointcentroid.io import READERS
from pointcentroid.io.tables import may_hold_points

_NAMED = 5  # files that are named where some are left out


def readable(name: str) -> bool:
    """Whether a file of this name is of a format that can be read, and not hidden."""
    return os.path.splitext(name)[1].lower() in READERS and not name.startswith(".")


def walk(folder: str, recursive: bool, tell: Callable[[str], object] | None = None) -> Iterator[str]:
    """List the readable files of a folder as they are asked for, in the order in which their paths sort; none is hidden.

    What is held is the names in the folders above the file at hand, because names are sorted. A folder that cannot be listed
    is told of, and left out, and so are links that lead nowhere and text files that hold no points, such as a licence. Links
    to folders are not followed, for they may lead back.

    Args:
        folder: where to look.
        recursive: look into subfolders.
        tell: takes a line about what is left out; the standard error output by default.
    """
    folder = str(Path(folder))
    say = tell or sys.stderr.write  # looked up now: a progress bar may have put something else there
    names: list[str] = []
    other: list[str] = []
    lost: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_folder(entry):
                    names.append(entry.name + os.sep)  # `a/b` sorts after `a-b` and before `a0`: the separator takes part
                elif _is_readable(entry):
                    names.append(entry.name)
                elif readable(entry.name) and not os.path.exists(entry.path):
                    lost.append(entry.name)
    except OSError as error:
        say(f"{folder}: cannot be listed: {error.strerror}\n")
        return
    names.sort(reverse=True)
    lost.sort()
    while names:
        name = names.pop()
        path = name if folder == "." else os.path.join(folder, name)
        if name.endswith(os.sep):
            if recursive:
                yield from walk(path.rstrip(os.sep), recursive, tell)
        elif not may_hold_points(path):
            other.append(name)
        else:
            yield path
    for found, why in ((other, "hold no points"), (lost, "lead nowhere")):
        if found:
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            say(f"{folder}: left out, for they {why}: {', '.join(found[:_NAMED])}{more}\n")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)


def _is_readable(entry: os.DirEntry[str]) -> bool:
    return readable(entry.name) and (entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path))
