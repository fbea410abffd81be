"""From what a person types to files, and to shapes prepared for a net."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pointcentroid.io import READERS

if TYPE_CHECKING:
    from pointcentroid.predict.predictor import Predictor
    from pointcentroid.predict.preparing import Prepared
    from pointcentroid.results import Failure


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
            files += sorted(str(p) for p in inside if _wanted(p))
        elif glob.has_magic(path) and not Path(path).exists():
            files += sorted(glob.glob(path, recursive=True)) or [path]
        else:
            files.append(path)
    if not files:
        hint = "" if recursive else "; --recursive looks into subfolders"
        raise typer.BadParameter(f"no readable files in {' '.join(paths)}{hint}")
    return files


def _wanted(path: Path) -> bool:
    return path.suffix.lower() in READERS and path.is_file() and not path.name.startswith(".")


def result_names(files: list[str]) -> dict[str, Path]:
    """Where in a folder the results of each file go: its name, with its folders where two files have the same name."""
    names = {file: Path(Path(file).name) for file in files}
    if len(set(names.values())) == len(names):
        return names
    top = os.path.commonpath([Path(file).absolute().parent for file in files])
    return {file: Path(file).absolute().relative_to(top) for file in files}


def start(
    files: list[str], weights: str, device: str, votes: int, workers: int | None
) -> tuple[Predictor, Iterator[Prepared | Failure]]:
    """Start reading, then load the net: reading processes are at work meanwhile.

    Returns:
        A predictor, and an iterator over what is being prepared for it.
    """
    from pointcentroid.predict.preparing import Preparer
    from pointcentroid.weights import find_weights, read_card

    card = read_card(find_weights(weights))
    prepared = Preparer(card.preprocess, votes, workers)(files)

    # Readers and net share the cores: a thread of torch that waits should sleep, not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from pointcentroid.predict.predictor import load

    return load(weights, device), prepared
