"""From what a person types to a list of files."""

from __future__ import annotations

import glob
import sys
from pathlib import Path

import typer

from pointcentroid.io import READERS


def expand(paths: list[str], recursive: bool) -> list[str]:
    """Turn arguments into files, in a stable order.

    Args:
        paths: files, folders (their readable files), globs, or `-` for one path a line on standard input.
        recursive: look into subfolders of folders.

    Returns:
        Files. A path that is not there is kept, so that it is reported like any other file that cannot be read.

    Raises:
        typer.BadParameter: nothing at all was found.
    """
    files: list[str] = []
    for path in paths:
        if path == "-":
            files += [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
        elif Path(path).is_dir():
            inside = Path(path).rglob("*") if recursive else Path(path).glob("*")
            files += sorted(str(p) for p in inside if p.suffix.lower() in READERS and p.is_file())
        elif glob.has_magic(path) and not Path(path).exists():
            files += sorted(glob.glob(path, recursive=True)) or [path]
        else:
            files.append(path)
    if not files:
        hint = "" if recursive else "; --recursive looks into subfolders"
        raise typer.BadParameter(f"no readable files in {' '.join(paths)}{hint}")
    return files
