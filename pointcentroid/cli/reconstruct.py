"""`pointcentroid reconstruct`: a shape through few centroids and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pointcentroid.cli import options


def reconstruct(
    paths: options.Paths,
    to: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the reconstructions go.")],
    recursive: options.Recursive = False,
    points: options.Points = 2048,
    kind: Annotated[Literal["ply", "xyz", "npy"], typer.Option("--format", help="Of the files to write.")] = "ply",
    weights: Annotated[str, typer.Option(metavar=options.NAMES, help="Weights of an autoencoder.")] = "autoencoder",
    up: options.Up = "auto",
    device: options.Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON lines.")] = False,
) -> None:
    """Write what a shape's few latent centroids remember of it, in the file's own frame and units.

    Beside it the Chamfer distance (for a shape of radius 1; squared, both directions added; in tables times 1,000) and the
    F-score within 0.05, each with its oracle: that of two independent samplings of the surface, or of the halves of a point
    file.
    Exit code 0: all done; 1: some files failed; 2: wrong usage, or it could not go on.
    """
    from pointcentroid.cli.inputs import expand, result_names
    from pointcentroid.cli.output import check_apart, check_folder, end, note, print_table, tracked, write
    from pointcentroid.errors import MissingExtraError, ReadError, reason_of, require

    require("reconstructing", "torch", "torch")
    from pointcentroid.predict.reconstruct import Reconstructor

    if to.suffix.lower() in (".ply", ".xyz", ".npy") and not to.is_dir():
        raise typer.BadParameter(f"expected a folder, found the name of a file, {to.name}", param_hint="-o")
    check_folder(to, "-o")
    files = expand(paths, recursive)
    targets = {file: to / name.with_name(f"{name.name}.{kind}") for file, name in result_names(files).items()}
    check_apart(files, targets.values(), "-o")
    reconstructor = Reconstructor(weights, device)
    counts = Counter(all=len(files))

    def measured() -> Iterator[dict[str, Any]]:
        for file in tracked(files, len(files), "reconstructing"):
            try:
                made = reconstructor(file, points, up=up)
                _write(made.points, targets[file], kind)
            except (ReadError, MissingExtraError, OSError) as error:
                reason = reason_of(error)
                counts["failed"] += 1
                note(f"{file}: {reason}")
                yield {"file": file, "error": reason}
                continue
            measures = {
                key: getattr(made, key) for key in ("chamfer", "oracle", "f_score", "oracle_f_score", "compression", "up")
            }
            yield {"file": file, "output": str(targets[file]), **measures}

    if as_json:
        write(measured(), [], "json", None)
    else:
        rows = []
        try:
            rows.extend(row for row in measured() if "error" not in row)
        finally:  # also where Ctrl-C has ended it
            if rows:
                print_table(_table(rows), None)
    end(counts, "read")


def _write(points: Any, path: Path, kind: str) -> None:
    import numpy as np

    from pointcentroid.files import replacing
    from pointcentroid.io.ply import cloud_bytes

    with replacing(path) as temporary, temporary.open("wb") as file:
        if kind == "npy":
            np.save(file, points)
        elif kind == "xyz":
            np.savetxt(file, points, fmt="%.17g")
        else:
            file.write(cloud_bytes(points))


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    from pointcentroid.cli.output import shown_up

    table = Table(box=None, header_style="bold")
    for name in ("file", "Chamfer x 1000", "oracle", "F-score", "oracle", "compression", "up", "written"):
        table.add_column(name, overflow="fold")
    for row in rows:
        distances = (f"{1000 * row[key]:.2f}" for key in ("chamfer", "oracle"))
        scores = (f"{row[key]:.1%}" for key in ("f_score", "oracle_f_score"))
        table.add_row(
            escape(row["file"]),
            *distances,
            *scores,
            f"{row['compression']:.1f} x",
            shown_up(row["up"]),
            escape(row["output"]),
        )
    return table
