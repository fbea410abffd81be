"""Results as a table for people, JSON lines or CSV for machines; on standard output, or whole into a file."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pointcentroid.files import replacing

Row = dict[str, Any]


def check_writable(path: Path | None, option: str = "-o") -> None:
    """Refuse an output path that cannot be written, before any work is done for it.

    Args:
        path: the path, or None.
        option: what it was given to.

    Raises:
        typer.BadParameter: it is a folder, or its folder is not there.
    """
    if path is None:
        return
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; name a file", param_hint=option)
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"the folder {path.absolute().parent} does not exist", param_hint=option)


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
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
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
    """One CSV cell; a ranking becomes `chair:0.9712 sofa:0.0101`."""
    if isinstance(value, list):
        return " ".join(f"{label}:{number:.4f}" for label, number in value)
    return value


def print_table(table: RenderableType, path: Path | None) -> None:
    """Print a table, or write it to a file as plain text."""
    if path is None:
        # A pipe has no width; a narrow guess would cut file names short.
        console = Console() if sys.stdout.isatty() else Console(width=140)
        console.print(table)
        return
    buffer = io.StringIO()
    Console(file=buffer, width=140).print(table)
    with replacing(path) as temporary:
        temporary.write_text(buffer.getvalue(), encoding="utf-8")


def print_measures(measures: Row, path: Path | None) -> None:
    """Print names and values, one pair a line, as `print_table` does."""
    table = Table("measure", "value", box=None, header_style="bold")
    for name, value in measures.items():
        table.add_row(name, _number(value) if isinstance(value, float) else str(value))
    print_table(table, path)


def _number(value: float) -> str:
    """Four digits: after the point for shares and larger ones, in all for small ones."""
    return f"{value:.4f}" if abs(value) >= 0.1 else f"{value:.4g}"


def tracked(items: Iterable[Any], total: int, what: str) -> Iterator[Any]:
    """Pass items through, with a progress bar on standard error when a person is watching and there are many."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=total < 8 or not console.is_terminal) as progress:
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


def note(message: str) -> None:
    """Tell a person something, on standard error."""
    typer.secho(message, fg="yellow", err=True)
