"""`pointcentroid embed`: the global feature of every shape, for search, clustering and near-duplicates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pointcentroid.cli import options
from pointcentroid.results import Prediction


def embed(
    paths: options.Paths,
    recursive: options.Recursive = False,
    weights: options.Weights = "small",
    up: options.Up = "auto",
    votes: options.Votes = 1,
    batch_size: options.BatchSize = 32,
    workers: options.Workers = None,
    device: options.Device = "auto",
    format: Annotated[
        Literal["npz", "json", "csv"],
        typer.Option("--format", help="npz (needs -o): arrays features (S, F), files (S,), labels (S,)."),
    ] = "npz",
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to FILE.")] = None,
) -> None:
    """Write the global feature of every shape.

    Shapes that cannot be read are reported and left out. Exit code 0: all done; 1: some failed; 2: wrong usage.
    """
    from pointcentroid.cli.inputs import expand, start
    from pointcentroid.cli.output import check_writable, note, tracked, write
    from pointcentroid.files import replacing

    if format == "npz" and output is None:
        raise typer.BadParameter("npz is binary and needs a file: add -o features.npz, or --format json")
    check_writable(output)
    files = expand(paths, recursive)
    predictor, prepared = start(files, weights, device, votes, workers)

    done: list[Prediction] = []
    failed = 0
    for result in tracked(predictor.predict_prepared(prepared, up=up, batch_size=batch_size), len(files), "embedding"):
        if isinstance(result, Prediction):
            done.append(result)
        else:
            failed += 1
            note(f"{result.file}: {result.error}")

    if format == "npz" and output is not None:
        import numpy as np

        width = predictor.feature_dim
        features = np.stack([r.feature for r in done]) if done else np.empty((0, width), np.float32)
        with replacing(output) as temporary, temporary.open("wb") as file:
            np.savez(file, features=features, files=[r.file for r in done], labels=[r.label for r in done])
    else:
        rows = [{"file": r.file, "label": r.label, "feature": r.feature.tolist()} for r in done]
        if format == "csv":
            names = [f"f{i}" for i in range(predictor.feature_dim)]
            rows = [{"file": r["file"], "label": r["label"], **dict(zip(names, r["feature"], strict=True))} for r in rows]
            write(rows, ["file", "label", *names], "csv", output)
        else:
            write(rows, [], "json", output)
    if failed:
        note(f"{failed} of {len(files)} could not be embedded")
        raise typer.Exit(1)
