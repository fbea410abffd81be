"""`pointcentroid classify`: what are these shapes?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pointcentroid.cli import options
from pointcentroid.cli.keeping import Output, Ray, Resume, answer_on_ray, keep, open_answers
from pointcentroid.errors import printable
from pointcentroid.results import Failure, Prediction, to_row

if TYPE_CHECKING:
    from rich.table import Table

_BAR = 12  # columns
_BARRED_FROM = 36  # columns for names and runners-up; where there are fewer, the bar gives them its own


def classify(
    paths: options.Paths,
    recursive: options.Recursive = False,
    weights: options.Weights = "small",
    top: Annotated[int, typer.Option(min=1, help="Classes to list for each shape; a table shows three at most.")] = 5,
    up: options.Up = "auto",
    votes: options.Votes = 1,
    batch_size: options.BatchSize = 32,
    workers: options.Workers = None,
    device: options.Device = "auto",
    format: options.FormatOption = None,
    as_json: options.Json = False,
    output: Output = None,
    resume: Resume = False,
    ray: Ray = None,
) -> None:
    """Say what 3D shapes are: meshes and point clouds in any readable format.

    Exit code 0: all classified; 1: some could not be; 2: wrong usage, or it could not go on.
    """
    from pointcentroid.cli.inputs import count, start, stream
    from pointcentroid.cli.output import check_writable, chosen_format, parquet_target, print_rows, tracked, write

    target = parquet_target(output, resume, format or as_json)
    path = Path(output) if output and not target else None
    check_writable(path, read=[*paths, weights], recursive=recursive)
    kind = chosen_format(format, path, as_json, ("table", "json", "csv", "parquet"))
    asked = {"up": up, "votes": votes, "top": top}
    answers = open_answers(target, weights, resume, **asked) if target else None
    if ray:
        settings = asked | {"weights": weights, "device": device, "batch_size": batch_size}
        counts = answer_on_ray(ray, paths, recursive, workers, answers, "classifying", **settings)
        _close(counts)
        return
    files: Iterable[str] = stream(paths, recursive, path)
    if answers:
        files = answers.missing(files)
    predictor, prepared = start(files, weights, device, votes, workers)
    results = predictor.predict_prepared(prepared, up=up, top=top, batch_size=batch_size)
    counts = Counter(all=answers.done, failed=answers.failed) if answers else Counter()
    counted = _count(tracked(results, lambda: count(paths, recursive), "classifying"), counts)
    if answers:
        keep(answers, answers.keeping(counted))
    elif kind == "table":
        print_rows(counted, partial(_lay_out, predictor.classes), path)
    else:
        write(map(to_row, counted), ["file", "label", "confidence", "top", "up", "points", "known", "error"], kind, path)
    _close(counts)


def _close(counts: Counter[str]) -> None:
    """Say what deserves a warning, and end."""
    from pointcentroid.cli.output import end, note

    if counts["uncertain"]:
        note(
            f"{counts['uncertain']} of {counts['all']} with low confidence: "
            "the shape may be of no known class, or lie on its side (try --up)"
        )
    if counts["unknown"]:
        note(f"{counts['unknown']} of {counts['all']} marked unknown?: unlike the shapes that the net was trained on")
    end(counts, "classified")


def _count(results: Iterable[Prediction | Failure], counts: Counter[str]) -> Iterator[Prediction | Failure]:
    for result in results:
        counts["all"] += 1
        counts["failed"] += isinstance(result, Failure)
        counts["uncertain"] += isinstance(result, Prediction) and result.uncertain
        counts["unknown"] += isinstance(result, Prediction) and result.unknown
        yield result


def _lay_out(
    classes: tuple[str, ...], first: list[Prediction | Failure], width: int
) -> Callable[[list[Prediction | Failure], bool], Table]:
    """Columns as wide as the first results ask for: runners-up and errors fold, names of files do not. Where there is little
    room, there is no bar."""
    from rich.bar import Bar
    from rich.cells import cell_len
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    from pointcentroid.cli.output import short_paths, shown_up

    label = max(map(cell_len, ("label", *classes)))
    # The rest of a row: percentage, bar, axis, and two spaces between columns.
    free = width - label - 31
    barred = free >= _BARRED_FROM
    free = free if barred else max(free + _BAR + 2, _BARRED_FROM // 2)
    asked = max((cell_len(_others(result)) for result in first), default=0)
    name, shown = short_paths([result.file for result in first], max(free - max(asked, len("runners-up")), free // 2))
    paths = max(cell_len(text) for text in (name, *(shown(result.file) for result in first)))

    def table(results: list[Prediction | Failure], named: bool) -> Table:
        table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold", show_header=named)
        table.add_column(escape(name), no_wrap=True, width=paths)
        table.add_column("label", style="bold cyan", no_wrap=True, width=label)
        table.add_column("", justify="right", no_wrap=True, width=4)
        if barred:
            table.add_column("", width=_BAR)
        table.add_column("runners-up", style="dim", overflow="fold", width=min(max(asked, len("runners-up")), free - paths))
        table.add_column("up", no_wrap=True, width=len("leans"))
        for result in results:
            file = escape(shown(result.file))
            if isinstance(result, Failure):
                bar = [""] if barred else []
                table.add_row(file, Text("error", "bold red"), "", *bar, Text(printable(result.error), "red"), "")
                continue
            colour = "yellow" if result.uncertain else "green"
            percent = Text(f"{result.confidence:.0%}", colour)
            bar = [Bar(1, 0, result.confidence, width=_BAR, color=colour)] if barred else []
            table.add_row(file, escape(result.label), percent, *bar, escape(_others(result)), shown_up(result.up))
        return table

    return table


def _others(result: Prediction | Failure) -> str:
    if isinstance(result, Failure):
        return printable(result.error)
    doubt = ["unknown?"] if result.unknown else []
    return "  ".join(doubt + [f"{label} {p:.0%}" for label, p in result.top[1:3] if p >= 0.005])
