"""Results as a table for people, JSON lines or CSV for machines; on standard output, or whole into a file."""

from __future__ import annotations

import csv
import glob
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import typer
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pointcentroid.errors import printable, require
from pointcentroid.files import replacing
from pointcentroid.io.folders import readable
from pointcentroid.io.tables import may_hold_points

Row = dict[str, Any]

_LAID_OUT_BY = 1000  # rows that decide how wide columns are, and are printed as one table if there are no more
_AT_ONCE = 32  # rows printed together after those: about what the net answers at once
_PIPE_WIDTH = 140
_SUFFIXES = {".json": "json", ".jsonl": "json", ".csv": "csv", ".npz": "npz", ".parquet": "parquet"}
_TEXT = ("", ".txt", ".md", ".log")  # suffixes of files that a table is written to
_ESCAPED = "surrogateescape"  # bytes of names of files that are no UTF-8 are written as they are


def check_writable(path: Path | None, option: str = "-o", read: Iterable[str] = (), recursive: bool = True) -> None:
    """Refuse an output path that cannot or must not be written, before any work is done for it.

    Args:
        path: the path, or None.
        option: what it was given to.
        read: files, folders and globs that the command reads.
        recursive: whether it looks into subfolders.

    Raises:
        typer.BadParameter: it is a folder, its folder is not there or is write-protected, or it is one of the files read.
    """
    if path is None:
        return
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; name a file", param_hint=option)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise typer.BadParameter(f"the folder {folder} does not exist", param_hint=option)
    if not os.access(folder, os.W_OK) and (path.is_file() or not path.exists()):  # not of a pipe or /dev/null
        raise typer.BadParameter(f"nothing can be written to the folder {folder}", param_hint=option)
    if path.is_file() and any(_reads(one, path, recursive) for one in read):
        raise is_read(path, option)


def is_read(path: Path, option: str = "-o") -> typer.BadParameter:
    """What is wrong with an output that is an input, too."""
    return typer.BadParameter(f"{path} is among what is read, which stays; name another file", param_hint=option)


def _reads(source: str, path: Path, recursive: bool) -> bool:
    """Whether a file, folder or glob that a person named takes in a file."""
    if os.path.isdir(source):
        above = path.resolve().parents if recursive else path.resolve().parents[:1]
        return Path(source).resolve() in above and readable(path.name) and may_hold_points(str(path))
    return any(os.path.exists(name) and path.samefile(name) for name in [source, *glob.iglob(source, recursive=True)])


def check_apart(files: list[str], results: Iterable[Path], option: str) -> None:
    """Refuse to write over a shape that is read.

    Args:
        files: the shapes.
        results: what is to be written.
        option: what named the folder of these.

    Raises:
        typer.BadParameter: a result is one of the shapes.
    """
    given = {Path(file).resolve() for file in files}
    if own := next((result for result in results if result.resolve() in given), None):
        raise typer.BadParameter(f"{own} is one of the shapes, which stay; name another folder", param_hint=option)


def check_folder(path: Path | None, option: str) -> None:
    """Refuse a path that cannot become a folder, before any work is done for it.

    Args:
        path: the path, or None.
        option: what it was given to.

    Raises:
        typer.BadParameter: it is, or lies in, what is no folder, or one that is write-protected.
    """
    there = None if path is None else next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    if there and not there.is_dir():
        raise typer.BadParameter(f"{there} is a file; name a folder", param_hint=option)
    if there and not os.access(there, os.W_OK):
        raise typer.BadParameter(f"nothing can be written to the folder {there}", param_hint=option)


@contextmanager
def told_how_to_go_on(kept: Callable[[], bool], flag: str = "--resume", or_else: str = "") -> Iterator[None]:
    """Where work that can be gone on with is stopped by Ctrl-C, say how.

    Args:
        kept: whether anything is.
        flag: what to add to the same command; nothing where it goes on by itself.
        or_else: what may be done instead.
    """
    try:
        yield
    except KeyboardInterrupt:
        if kept():
            words = [word for word in sys.argv[1:] if word not in ("--resume", "--finish", "--overwrite")]
            again = shlex.join([*words, flag] if flag else words)
            note(f"what is finished is kept; to go on: pointcentroid {again}")
            if or_else:
                note(or_else)
        raise


def chosen_format(
    format: str | None,
    output: str | Path | None,
    as_json: bool,
    formats: tuple[str, ...] = ("table", "json", "csv"),
) -> str:
    """The format that was asked for, else the one that the output file is named after, else the first.

    Args:
        format: what was given to `--format`, if anything.
        output: what was given to `-o`, if anything.
        as_json: whether `--json` was given.
        formats: what the command can write.

    Raises:
        typer.BadParameter: the file is named after a format that the command cannot write, or after one that no one can;
            or two formats were asked for.
    """
    if as_json and format not in (None, "json"):
        raise typer.BadParameter(f"is another format than --format {format}; choose one", param_hint="--json")
    format = "json" if as_json else format
    suffix = Path(output or "").suffix.lower()
    named = _SUFFIXES.get(suffix)
    if str(output) == "-":
        raise typer.BadParameter("names a file; without it, results are printed", param_hint="-o")
    if format is None and named is None and suffix not in (_TEXT if formats[0] == "table" else ("",)):
        raise typer.BadParameter(
            f"{suffix} says none of the formats {', '.join(formats)}; add --format, or name a file otherwise",
            param_hint="-o",
        )
    if format is None and named is not None and named not in formats:
        raise typer.BadParameter(f"{named} cannot be written here; expected {', '.join(formats)}", param_hint="-o")
    return format or named or formats[0]


def parquet_target(output: str | None, resume: bool, other: str | bool | None) -> tuple[Path, bool] | None:
    """Whether the answers go to Parquet: to `-o NAME.parquet`, or as shards to a folder, `-o FOLDER/`.

    Args:
        output: what was given to `-o`.
        resume: whether `--resume` was given, which only Parquet can.
        other: the format that was asked for by an option, if any.

    Returns:
        The file or folder, and whether it is a file; None if the output is of another kind.

    Raises:
        typer.BadParameter: its folder is not there, there is nothing to resume, or another format was asked for.
        MissingExtraError: pyarrow is not installed.
    """
    if output == "":
        raise typer.BadParameter("is empty; name a file", param_hint="-o")
    path = Path(output or "")
    whole = not (output or "").endswith(("/", os.sep)) and not path.is_dir()
    if output is None or (whole and path.suffix.lower() != ".parquet"):
        if resume:
            raise typer.BadParameter("only Parquet can be resumed: add -o NAME.parquet or -o FOLDER/", param_hint="--resume")
        return None
    if other:
        raise typer.BadParameter(f"{output} is written as Parquet; name a file that ends otherwise", param_hint="--format")
    require("writing Parquet", "scale", "pyarrow")
    if whole:
        check_writable(path)
    else:
        check_folder(path, "-o")
    return path, whole


def write(rows: Iterable[Row], columns: list[str], kind: str, path: Path | None) -> None:
    """Print rows as JSON lines or CSV as they come, or write them to a file when all are there.

    Args:
        rows: results.
        columns: the CSV columns; a row may lack some.
        kind: `"json"` or `"csv"`.
        path: the file, or None for standard output.
    """
    if path is None:
        _write_to(sys.stdout, rows, columns, kind)
        return
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors=_ESCAPED, newline="") as file:
        _write_to(file, rows, columns, kind)


def _write_to(file: TextIO, rows: Iterable[Row], columns: list[str], kind: str) -> None:
    if kind == "json":
        for row in rows:
            file.write(json.dumps(row) + "\n")
            file.flush()
        return
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _flat(value) for key, value in row.items()})
        file.flush()


def _flat(value: Any) -> Any:
    """One CSV cell; a ranking becomes `chair:0.9712 sofa:0.0101`, counts become `training:90 validation:10`."""
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list):
        return " ".join(_flat_pair(*each) if isinstance(each, (list, tuple)) else str(each) for each in value)
    return value


def _flat_pair(label: Any, value: Any) -> str:
    label = json.dumps(label, ensure_ascii=False) if any(each.isspace() for each in str(label)) else label
    return f"{label}:{value:.4f}" if isinstance(value, float) else f"{label}:{value}"


def print_table(table: RenderableType, path: Path | None) -> None:
    """Print a table, or write it to a file as plain text."""
    with _console(path) as console:
        console.print(table)


def print_rows(
    rows: Iterable[Any], lay_out: Callable[[list[Any], int], Callable[[list[Any], bool], RenderableType]], path: Path | None
) -> None:
    """Print rows as a table: as one where there are few, else as they come, in columns as wide as the first rows asked for.

    Args:
        rows: what each row is made of.
        lay_out: called once, with the first rows and the width there is, gives what makes a table of some rows, with or
            without the names of the columns.
        path: the file to write, as plain text, or None for standard output.
    """
    rows = iter(rows)
    with _console(path) as console:
        first = list(islice(rows, _LAID_OUT_BY))
        table = lay_out(first, console.width)
        console.print(table(first, True))
        while more := list(islice(rows, _AT_ONCE)):
            console.print(table(more, False))


@contextmanager
def _console(path: Path | None) -> Iterator[Console]:
    if path is None:
        # A pipe has no width; a narrow guess would cut file names short. While a progress bar is shown it takes what is
        # written to the terminal, which must not happen to a pipe.
        yield Console() if sys.stdout.isatty() else Console(file=sys.stdout, width=_PIPE_WIDTH)
        return
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors=_ESCAPED) as file:
        yield Console(file=file, width=_PIPE_WIDTH)


def short_paths(files: list[str], room: int) -> tuple[str, Callable[[str], str]]:
    """How to show paths in a column: whole where they fit, else below the folder they share, else their ends.

    Args:
        files: what decides.
        room: columns of the terminal a path may take.

    Returns:
        The name of the column, which names that folder, and the function from path to text.
    """
    shared = ""
    if (
        len(files) > 1
        and max(map(cell_len, map(printable, files))) > room
        and len({os.path.isabs(file) for file in files}) == 1
    ):
        folder = os.path.commonpath([os.path.dirname(file) for file in files])
        shared = os.path.join(folder, "") if folder else ""

    def shown(file: str) -> str:
        return _ending(printable(file.removeprefix(shared)), room)

    return f"file in {_ending(printable(shared), room - 8)}" if shared else "file", shown


def _ending(text: str, room: int) -> str:
    if cell_len(text) <= room:
        return text
    kept = max(room - 1, 0)  # as many characters as would fit if none were wide
    end = text[len(text) - kept :]
    while cell_len(end) > kept:
        end = end[1:]
    return "…" + end


def shown_up(up: str) -> str:
    """What a table says of what points up: an axis, or that the shape leans.

    Args:
        up: of a prediction.
    """
    from pointcentroid.geometry.axes import UP_AXES

    return up if up in UP_AXES else "leans"


def print_measures(measures: Row | list[tuple[str, Any]], path: Path | None) -> None:
    """Print names and values, one pair a line, as `print_table` does."""
    table = Table("measure", "value", box=None, header_style="bold")
    for name, value in measures.items() if isinstance(measures, dict) else measures:
        table.add_row(escape(name), _number(value) if isinstance(value, float) else escape(str(value)))
    print_table(table, path)


def _number(value: float) -> str:
    """Four digits: after the point for shares and larger ones, in all for small ones."""
    return f"{value:.4f}" if abs(value) >= 0.1 else f"{value:.4g}"


def tracked(items: Iterable[Any], total: int | Callable[[], int | None] | None, what: str) -> Generator[Any, None, None]:
    """Pass items through, with a progress bar on standard error when a person is watching and there are many.

    Args:
        items: what to pass.
        total: how many there are; None where nobody knows; where finding out takes time, a function, which is only called if
            a person is watching.
        what: what is done.
    """
    console = Console(stderr=True)
    if callable(total):
        total = total() if console.is_terminal else None
    shown = console.is_terminal and (total is None or total >= 8)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        yield from progress.track(items, total=total, description=what)


@contextmanager
def byte_bar(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar that counts bytes: call what it gives with bytes done, and in all if that is known."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def note_left_out(reasons: dict[str, str], where: str = "") -> None:
    """Name the first few shapes that were left out, with reasons.

    Args:
        reasons: by name.
        where: where all of them are listed.
    """
    for name, reason in list(reasons.items())[:5]:
        note(f"left out: {name}: {reason}")
    if len(reasons) > 5:
        note(f"and {len(reasons) - 5} more{where and f', see {where}'}")


def end(counts: Counter[str], done: str) -> None:
    """End a command: with exit code 1, and why, where some of `all` have `failed`."""
    if counts["failed"]:
        note(f"{counts['failed']} of {counts['all']} could not be {done}")
        raise typer.Exit(1)


def note(message: str) -> None:
    """Tell a person something, on standard error."""
    typer.secho(printable(message), fg="yellow", err=True)
