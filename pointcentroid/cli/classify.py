"""`pointcentroid classify`: what are these shapes?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from pointcentroid.cli import options
from pointcentroid.results import Failure, Prediction

if TYPE_CHECKING:
    from rich.table import Table

    from pointcentroid.cli.output import Row


def classify(
    paths: options.Paths,
    recursive: options.Recursive = False,
    weights: options.Weights = "small",
    top: Annotated[int, typer.Option(min=1, help="Classes to list for each shape.")] = 5,
    up: options.Up = "auto",
    votes: options.Votes = 1,
    batch_size: options.BatchSize = 32,
    workers: options.Workers = None,
    device: options.Device = "auto",
    format: options.FormatOption = "table",
    output: options.Output = None,
) -> None:
    """Say what 3D shapes are: meshes and point clouds in any readable format.

    Exit code 0: all classified; 1: some could not be; 2: wrong usage.
    """
    from pointcentroid.cli.inputs import expand, start
    from pointcentroid.cli.output import check_writable, note, print_table, tracked, write

    check_writable(output)
    files = expand(paths, recursive)
    predictor, prepared = start(files, weights, device, votes, workers)
    results = predictor.predict_prepared(prepared, up=up, top=top, batch_size=batch_size)
    counts = {"failed": 0, "uncertain": 0}
    counted = _count(tracked(results, len(files), "classifying"), counts)
    if format == "table":
        print_table(_table(list(counted)), output)
    else:
        write(map(_row, counted), ["file", "label", "confidence", "top", "up", "points", "error"], format, output)
    if counts["uncertain"]:
        note(
            f"{counts['uncertain']} of {len(files)} with low confidence: "
            "the shape may be of no known class, or lie on its side (try --up)"
        )
    if counts["failed"]:
        note(f"{counts['failed']} of {len(files)} could not be classified")
        raise typer.Exit(1)


def _count(results: Iterable[Prediction | Failure], counts: dict[str, int]) -> Iterator[Prediction | Failure]:
    for result in results:
        if isinstance(result, Failure):
            counts["failed"] += 1
        elif result.uncertain:
            counts["uncertain"] += 1
        yield result


def _row(result: Prediction | Failure) -> Row:
    if isinstance(result, Failure):
        return {"file": result.file, "error": result.error}
    return {
        "file": result.file,
        "label": result.label,
        "confidence": result.confidence,
        "top": [list(pair) for pair in result.top],
        "up": result.up,
        "points": result.points,
    }


def _table(results: list[Prediction | Failure]) -> Table:
    from rich.bar import Bar
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("file", overflow="fold")
    table.add_column("label", style="bold cyan", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("", width=12)
    table.add_column("runners-up", style="dim", overflow="fold")
    table.add_column("up", no_wrap=True)
    for result in results:
        if isinstance(result, Failure):
            table.add_row(escape(result.file), Text("error", "bold red"), "", "", Text(result.error, "red"), "")
            continue
        colour = "yellow" if result.uncertain else "green"
        percent = Text(f"{result.confidence:.0%}", colour)
        bar = Bar(1, 0, result.confidence, width=12, color=colour)
        others = "  ".join(f"{label} {p:.0%}" for label, p in result.top[1:3] if p >= 0.005)
        table.add_row(escape(result.file), result.label, percent, bar, others, result.up)
    return table
