"""`pointcentroid assignments`: do the centroids find parts? In numbers, and as files for other programs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pointcentroid.cli import options

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pointcentroid.cli.output import Row
    from pointcentroid.evaluate.assignments import StageMeasures
    from pointcentroid.evaluate.correspondence import NamedShape

_RESAMPLINGS = 3
_PATH_WIDTH = 20  # with less than this for the names of files, the headings of other columns are cut short


def assignments(
    paths: options.Paths,
    recursive: options.Recursive = False,
    weights: options.Weights = "parts",
    up: options.Up = "auto",
    resamplings: Annotated[
        int, typer.Option(min=0, help="Other samplings of each shape, for the stability; 0 leaves it out.")
    ] = _RESAMPLINGS,
    mean: Annotated[
        bool, typer.Option("--mean", help="Only the means over all files; with --correspondence, over all folders.")
    ] = False,
    correspondence: Annotated[
        bool, typer.Option("--correspondence", help="Name the parts of one file by another's, folder by folder, instead.")
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the points that the net saw there too: a coloured PLY a stage, and an NPZ."),
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write meshes there too, cut at the last centroids: GLB and JSON."),
    ] = None,
    names: Annotated[
        str | None, typer.Option(metavar="FILE", help="A file with parts, whose names --split or --correspondence lends.")
    ] = None,
    device: options.Device = "auto",
    format: options.FormatOption = None,
    as_json: options.Json = False,
    output: options.Output = None,
) -> None:
    """Measure the assignments of shapes, stage by stage, beside those of as many Voronoi cells and k-means clusters.

    Sizes of the clusters, entropy of a point's shares (0 sharp, 1 even), share of points that go to no centroid, mean
    distance to the centroid, stability: the adjusted Rand index against other samplings of the same shape; and, for files
    with parts (glTF nodes, OBJ groups, 3MF objects), agreement: the normalised mutual information with those.
    Exit code 0: all done; 1: some files failed; 2: wrong usage, or it could not go on.
    """
    from pointcentroid.cli.inputs import expand, parted_example, remark_on_kinds, result_names
    from pointcentroid.cli.output import check_apart, check_folder, check_writable, chosen_format, end, note, tracked
    from pointcentroid.errors import MissingExtraError, ReadError, reason_of, require

    require("measuring assignments", "torch", "torch")
    from pointcentroid.evaluate.assignments import (
        StageMeasures,
        measure,
        resampled,
        save_assignments,
        saved_files,
    )
    from pointcentroid.evaluate.correspondence import Correspondence, named_shape
    from pointcentroid.io import read_parts
    from pointcentroid.predict.loading import load
    from pointcentroid.predict.naming import point_parts
    from pointcentroid.predict.split import split_files, write_split
    from pointcentroid.viz.panel import ClassColours

    if names and not (split or correspondence):
        raise typer.BadParameter("lends names to --split or --correspondence; add one of them", param_hint="--names")
    if correspondence and resamplings != _RESAMPLINGS:
        raise typer.BadParameter("--correspondence measures no stability; leave it out", param_hint="--resamplings")
    check_writable(output, read=[*paths, weights, *([names] if names else [])], recursive=recursive)
    check_folder(save, "--save")
    check_folder(split, "--split")
    written = chosen_format(format, output, as_json)
    files = expand(paths, recursive)
    read = [*files, *([names] if names else [])]
    places, colours = result_names(files), ClassColours()
    predictor = load(weights, device)
    if save:
        stages = len(predictor.abstraction.card.model.encoder.stages)  # type: ignore[union-attr], it has one: it explains
        saved = (saved_files(save / where.parent, where.name, stages) for where in places.values())
        check_apart(read, chain.from_iterable(saved), "--save")
    if split:
        cut = (split_files(split / where.parent, where.name) for where in places.values())
        check_apart(read, chain.from_iterable(cut), "--split")
    lender = parted_example(predictor, names, up) if names else None
    example = named_shape(*lender) if lender else None
    measured: list[list[StageMeasures]] = []
    named: dict[str, list[NamedShape]] = {}
    counts = Counter(all=len(files))

    def rows_of(file: str) -> Iterator[Row]:
        explanation = predictor.explain(file, up=up)
        if lender:
            remark_on_kinds(lender[0].prediction, explanation.prediction)
        parted = read_parts(file)
        if correspondence:
            if parted is None:
                raise ReadError(file, "has no parts: glTF nodes, objects of OBJ or 3MF, two at least")
            itself = example if names and Path(file).samefile(names) else None
            named.setdefault(str(Path(file).parent), []).append(itself or named_shape(explanation, parted))
        else:
            parts = None if parted is None else point_parts(explanation, parted)
            measured.append(measure(explanation, resampled(predictor, explanation, resamplings), parts))
            label = explanation.prediction.label
            yield from ({"file": file, "label": label, **dataclasses.asdict(m)} for m in measured[-1])
        where = places[file]
        if save:
            save_assignments(explanation, save / where.parent, where.name, colours)
        if split:
            write_split(explanation, explanation.prediction, split / where.parent, where.name, example, colours)

    def results() -> Iterator[Row]:
        for file in tracked(files, len(files), "measuring"):
            try:
                yield from rows_of(file)
            except (ReadError, MissingExtraError, OSError) as error:
                reason = reason_of(error)
                note(f"{file}: {reason}")
                counts["failed"] += 1
                yield {"file": file, "error": reason}

    if correspondence or mean:
        rows = list(results())
        failures = [row for row in rows if "error" in row]
        if correspondence:
            kind, lead, rows = Correspondence, "folders" if mean else "folder", _corresponding(named, example, mean)
        else:
            kind, lead, rows = StageMeasures, "files", _means(measured)
        _show([*rows, *failures], (lead,), kind, written, output)
        if correspondence and not rows and not failures:
            note("nothing to compare: a folder needs two files with parts, or --names an example")
    else:
        _show(results(), ("file", "label"), StageMeasures, written, output)
    end(counts, "measured, or written")


def _corresponding(named: dict[str, list[NamedShape]], example: NamedShape | None, mean: bool) -> list[dict[str, Any]]:
    """A row for each folder and way, or, of all folders, for each way; without an example, every shape is one in turn."""
    from pointcentroid.evaluate.correspondence import correspondence, mean_correspondence

    found = {folder: correspondence([example] if example else shapes, shapes) for folder, shapes in named.items()}
    if mean:
        return [{"folders": len(found), **dataclasses.asdict(row)} for row in mean_correspondence(list(found.values()))]
    return [{"folder": folder, **dataclasses.asdict(row)} for folder, rows in found.items() for row in rows]


def _means(measured: list[list[StageMeasures]]) -> list[Row]:
    """A row a stage."""
    from pointcentroid.cli.output import note
    from pointcentroid.evaluate.assignments import mean_measures

    for name in ("stability", "agreement"):
        having = sum(getattr(stages[0], name) is not None for stages in measured)
        if 0 < having < len(measured):
            note(f"{name} is the mean of the {having} of {len(measured)} files that have it")
    return [{"files": len(measured), **dataclasses.asdict(m)} for m in mean_measures(measured)] if measured else []


def _show(rows: Iterable[Row], lead: tuple[str, ...], kind: type, format: str, output: Path | None) -> None:
    """Write rows as they come; a table when they have ended, as all decide its columns; Ctrl-C leaves what there is."""
    from pointcentroid.cli.output import write

    columns = [*lead, *(field.name for field in dataclasses.fields(kind))]
    if format != "table":
        write(rows, list(dict.fromkeys([*columns, "file", "error"])), format, output)
        return
    shown: list[Row] = []
    try:
        shown.extend(row for row in rows if "error" not in row)
    except KeyboardInterrupt:
        if output is None:
            _print(shown, columns, None)
        raise
    _print(shown, columns, output)


def _print(rows: list[Row], columns: list[str], output: Path | None) -> None:
    from pointcentroid.cli.output import print_rows

    if rows or output:
        given = [name for name in columns if name != "file" and any(row[name] is not None for row in rows)]
        print_rows(rows, partial(_lay_out, given), output)


def _lay_out(others: list[str], rows: list[Row], width: int) -> Callable[[list[Row], bool], RenderableType]:
    """Names of files take what is left; of other columns headings may be cut short, and numbers in narrow terminals."""
    from rich.cells import cell_len
    from rich.markup import escape
    from rich.table import Table

    from pointcentroid.cli.output import short_paths

    numbers = {name: max(3, *(len(_cell(row[name])) for row in rows)) for name in others}
    words = {name: max(numbers[name], *map(len, name.split("_"))) for name in others}
    files = [row["file"] for row in rows if "file" in row]
    gaps = len(others) + bool(files)
    widths = words if width - sum(words.values()) - gaps >= _PATH_WIDTH else numbers
    room = width - sum(widths.values()) - gaps
    heading, shown = short_paths(files, max(room, _PATH_WIDTH))
    longest = max((cell_len(shown(file)) for file in files), default=0)
    if cell_len(heading) > max(room, longest):
        heading = "file"

    def table(some: list[Row], named: bool) -> RenderableType:
        table = Table(
            box=None, padding=(0, 1), pad_edge=False, collapse_padding=True, header_style="bold", show_header=named
        )
        if files:
            table.add_column(escape(heading), width=max(cell_len(heading), longest))
        for name in others:
            table.add_column(name.replace("_", " "), width=widths[name])
        for row in some:
            file = [escape(shown(row["file"]))] if files else []
            table.add_row(*file, *(_cell(row[name]) for name in others))
        return table

    return table


def _cell(value: object) -> str:
    if value is None:
        return ""
    return format(value, ".3g" if abs(value) < 1000 else ".0f") if isinstance(value, float) else str(value)
