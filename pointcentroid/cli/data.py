"""`pointcentroid data`: bring a data set into the form that training reads."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from pointcentroid.cli import options

app = typer.Typer(help="Bring data sets into the form that training reads.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `prepare` a command of its own while it is the only one."""


@app.command()
def prepare(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder or zip of class folders (ModelNet10/40, or your own files in any readable format), "
            "modelnet40_ply_hdf5_2048, modelnet40_normal_resampled, or an npz; with --download, modelnet10 or modelnet40.",
        ),
    ],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where the prepared data set goes.")],
    points: Annotated[int, typer.Option(min=1, max=1_000_000, help="Points to sample from each surface.")] = 1024,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling.")] = 0,
    up: Annotated[
        Literal["standard", "auto", "x", "-x", "y", "-y", "z", "-z"],
        typer.Option(
            help="The axis that points up in every file; standard: that of the format, else of the layout; auto: found for "
            "each file, as classify does."
        ),
    ] = "standard",
    download: Annotated[bool, typer.Option("--download", help="Download the data set of that name first.")] = False,
    mirror: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Where to download it from; may be repeated.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="What the downloaded file must hash to.")] = None,
    workers: options.Workers = None,
    format: options.FormatOption = None,
    as_json: options.Json = False,
    output: options.Output = None,
) -> None:
    """Prepare a data set for training: sample, normalise, put into farthest-point order, keep.

    Parallel and resumable: run it again after an interruption, and it goes on. Shapes that cannot be read are left out
    and listed, with reasons, in DIR/meta.json.
    """
    from pointcentroid.cli.output import (
        check_folder,
        check_writable,
        chosen_format,
        note,
        note_left_out,
        print_measures,
        told_how_to_go_on,
        tracked,
        write,
    )
    from pointcentroid.config import PreprocessConfig
    from pointcentroid.data.cache import open_cache, prepare_cache
    from pointcentroid.data.download import MIRRORS
    from pointcentroid.data.layouts import find_shapes
    from pointcentroid.data.lying import lying

    check_writable(output, read=[source])
    check_folder(to, "--to")
    kind = chosen_format(format, output, as_json)
    if source in MIRRORS and not download and not Path(source).exists():
        raise typer.BadParameter(f"no folder or file {source}; --download fetches the data set of that name")
    if not download and (mirror or sha256):
        raise typer.BadParameter("say what is downloaded; add --download", param_hint="--mirror, --sha256")
    if download:
        source = str(_downloaded(source, to, mirror or [], sha256))
    catalogue, settings = find_shapes(source), PreprocessConfig(sample=points, points=points, seed=seed)
    given = None if up == "standard" else up
    with told_how_to_go_on((to / "parts").is_dir, flag=""):
        report = prepare_cache(
            catalogue,
            to,
            settings,
            up=given,
            workers=workers,
            watch=lambda items, total: tracked(items, total, "preparing"),
        )
    row = dataclasses.asdict(report) | {"folder": str(report.folder)}
    if kind == "table":
        split = {f"of them {name}": count for name, count in report.split.items() if name}
        shown = {"folder": str(report.folder), "shapes": report.shapes, **split, "classes": len(report.classes)}
        print_measures(shown | {"left out": len(report.quarantined)}, output)
    else:
        write([row | {"classes": list(report.classes)}], list(row), kind, output)
    note_left_out(report.quarantined, str(report.folder / "meta.json"))
    if found := lying(open_cache(to, settings), given, catalogue.up):
        note(f"{found}; prepared into another folder with --up {found.axis}, they stand upright")


def _downloaded(name: str, to: Path, mirrors: list[str], sha256: str | None) -> Path:
    from pointcentroid.cli.output import byte_bar
    from pointcentroid.config import nearest_name
    from pointcentroid.data.download import MIRRORS, download
    from pointcentroid.errors import DataError

    if name not in MIRRORS and not mirrors:
        known = ", ".join(MIRRORS)
        raise DataError(
            f"no data set {name!r} to download{nearest_name(name, MIRRORS)}; known: {known}, or give --mirror URL"
        )
    path = to.absolute().parent / f"{Path(name).stem}.zip"
    with byte_bar(f"downloading {path.name}") as progress:
        return download([*mirrors, *MIRRORS.get(name, ())], path, sha256=sha256, progress=progress)
