"""From what a person types to files, and to shapes prepared for a net."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pointcentroid.io.folders import walk

if TYPE_CHECKING:
    from pointcentroid.io.parts import PartedShape
    from pointcentroid.predict.explain import Explanation
    from pointcentroid.predict.predictor import Predictor
    from pointcentroid.predict.preparing import Prepared
    from pointcentroid.results import Failure, Prediction


def expand(paths: list[str], recursive: bool) -> list[str]:
    """Turn arguments into files, all of them: for commands that do little with each of few.

    Args:
        paths: files, folders (their readable files), globs, or `-` for one path a line on standard input.
        recursive: look into subfolders of folders.

    Returns:
        Files, in a stable order. A path that is not there is kept, so that it is reported like any other file that cannot
        be read.

    Raises:
        typer.BadParameter: nothing at all was found.
    """
    return list(stream(paths, recursive))


def stream(paths: list[str], recursive: bool, output: Path | None = None) -> Iterator[str]:
    """Turn arguments into files, one by one, in the order of `expand`: folders are walked as files are asked for.

    Args:
        paths: see `expand`.
        recursive: see `expand`.
        output: a file to be written, which a list on standard input must not name.

    Raises:
        typer.BadParameter: nothing at all was found; at once, not at the first file. Or, later, the list names `output`.
    """
    if "" in paths:
        raise typer.BadParameter("a path is empty; name files, folders, or - for a list on standard input")
    files = chain.from_iterable(_files(path, recursive) for path in paths)
    first = list(islice(files, 1))
    if not first:
        hint = "" if recursive else "; --recursive looks into subfolders"
        where = "the list on standard input" if paths == ["-"] else " ".join(paths) + hint
        raise typer.BadParameter(f"no readable files in {where}")
    files = chain(first, files)
    return _apart(files, output) if "-" in paths and output is not None and output.is_file() else files


def _apart(files: Iterator[str], output: Path) -> Iterator[str]:
    from pointcentroid.cli.output import is_read

    for file in files:
        if os.path.exists(file) and output.samefile(file):
            raise is_read(output)
        yield file


def count(paths: list[str], recursive: bool) -> int | None:
    """How many files `stream` gives; None where only reading a list to its end would say."""
    return None if "-" in paths else sum(1 for path in paths for _ in _files(path, recursive, tell=lambda _: None))


def _files(path: str, recursive: bool, tell: Callable[[str], object] | None = None) -> Iterable[str]:
    if path == "-":
        lines = (line.removeprefix("\ufeff").rstrip("\r\n") for line in sys.stdin)  # editors of Windows begin texts with it
        # `find -print0` ends names by a zero byte.
        return (name for line in lines for name in line.split("\0") if name.strip())
    if os.path.isdir(path):
        return walk(path, recursive, tell)
    if glob.has_magic(path) and not os.path.exists(path):
        return _matches(path, recursive, tell)
    return [path]


def _matches(pattern: str, recursive: bool, tell: Callable[[str], object] | None) -> Iterator[str]:
    """The files that a glob means; of folders, theirs, as if a shell had named them."""
    found = sorted(glob.iglob(pattern, recursive=True))
    for path in found or [pattern]:
        if not os.path.isdir(path):
            yield path
        elif "**" not in pattern:  # which finds what is in its folders itself
            yield from walk(path, recursive, tell)


def result_names(files: list[str]) -> dict[str, Path]:
    """Where in a folder the results of each file go: its name, with its folders where two files have the same name."""
    names = {file: Path(Path(file).name) for file in files}
    if len(set(names.values())) == len(names):
        return names
    whole = {file: os.path.abspath(file) for file in files}  # without `..`, which would lead out of the folder
    top = os.path.commonpath([os.path.dirname(path) for path in whole.values()])
    return {file: Path(path).relative_to(top) for file, path in whole.items()}


def parted_example(predictor: Predictor, file: str, up: Any) -> tuple[Explanation, PartedShape]:
    """A file that lends the names of its parts: what a net sees of it, and the parts.

    Raises:
        ReadError: it cannot be read, or has no parts.
    """
    from pointcentroid.errors import ReadError
    from pointcentroid.io import read_parts

    if (parted := read_parts(file)) is None:
        raise ReadError(file, "has no parts to lend names from: glTF nodes, objects of OBJ or 3MF, two at least")
    return predictor.explain(file, up=up), parted


def remark_on_kinds(example: Prediction, said: Prediction) -> None:
    """Say where an example lends the names of its parts to what the net takes for something else."""
    from pointcentroid.cli.output import note

    if said.label != example.label:
        note(f"{said.file}: {said.label}; names are lent by {example.file}: {example.label}, and may mean nothing here")


def start(
    files: Iterable[str], weights: str, device: str, votes: int, workers: int | None
) -> tuple[Predictor, Iterator[Prepared | Failure]]:
    """Start reading, then load the net: reading processes are at work meanwhile.

    Returns:
        A predictor, and an iterator over what is being prepared for it.
    """
    from pointcentroid.cli.output import note
    from pointcentroid.predict.preparing import Preparer
    from pointcentroid.weights import STAND_IN, find_classifier, find_weights

    classifier, card = find_classifier(weights)
    if classifier != find_weights(weights):
        note(f"{weights} finds parts; what classifies is {STAND_IN}")
    prepared = Preparer(card.preprocess, votes, workers)(files)

    # Readers and net share the cores: a thread of torch that waits should sleep, not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from pointcentroid.predict.loading import load

    try:
        return load(weights, device), prepared
    except BaseException:
        prepared.close()
        raise
