"""`pointcentroid assignments`: do the centroids find parts? In numbers, and as files for other programs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from pointcentroid.cli import options


def assignments(
    paths: options.Paths,
    recursive: options.Recursive = False,
    weights: options.Weights = "small",
    up: options.Up = "auto",
    resamplings: Annotated[
        int, typer.Option(min=0, help="Other samplings of each shape, for the stability; 0 leaves it out.")
    ] = 3,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write assignments there too: a coloured PLY a stage, and an NPZ.")
    ] = None,
    device: options.Device = "auto",
    format: options.FormatOption = "table",
    output: options.Output = None,
) -> None:
    """Measure the assignments of shapes, stage by stage.

    Sizes of the clusters, entropy of a point's shares (0 sharp, 1 even), share of points on no centroid's list, mean
    distance to the centroid, and stability: the adjusted Rand index against other samplings of the same shape.
    Exit code 0: all done; 1: some files failed; 2: wrong usage.
    """
    from pointcentroid.cli.inputs import expand, result_names
    from pointcentroid.cli.output import check_writable, note, print_table, tracked, write
    from pointcentroid.errors import ReadError, require

    require("measuring assignments", "torch", "torch")
    from pointcentroid.evaluate.assignments import StageMeasures, measure, resampled, save_assignments
    from pointcentroid.predict.predictor import load

    check_writable(output)
    files = expand(paths, recursive)
    predictor = load(weights, device)
    places = result_names(files)
    rows, failed = [], 0
    for file in tracked(files, len(files), "measuring"):
        try:
            explanation = predictor.explain(file, up=up)
            others = resampled(predictor, explanation, resamplings)
        except ReadError as error:
            failed += 1
            note(str(error))
            if format != "table":
                rows.append({"file": file, "error": error.reason})
            continue
        label = explanation.prediction.label
        rows += [{"file": file, "label": label, **dataclasses.asdict(m)} for m in measure(explanation, others)]
        if save:
            save_assignments(explanation, save / places[file].parent, places[file].name)
    columns = ["file", "label", *(field.name for field in dataclasses.fields(StageMeasures))]
    if format == "table":
        from rich.table import Table

        table = Table(*(name.replace("_", " ") for name in columns), box=None, header_style="bold")
        for row in rows:
            table.add_row(*(_cell(row[name]) for name in columns))
        print_table(table, output)
    else:
        write(rows, [*columns, "error"], format, output)
    if failed:
        note(f"{failed} of {len(files)} could not be read")
        raise typer.Exit(1)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
