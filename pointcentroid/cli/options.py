"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Format = Literal["table", "json", "csv"]

Paths = Annotated[
    list[str],
    typer.Argument(metavar="PATH", help="Files, folders, quoted globs, or - for a list on standard input."),
]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Look for files in subfolders too.")]
NAMES, _NAMED = "NAME|FILE|hf://OWNER/NAME", "Shipped weights by name, a weights file, or one on a hub."
Weights = Annotated[str, typer.Option(metavar=NAMES, help=_NAMED)]
WeightsArgument = Annotated[str, typer.Argument(metavar=NAMES, help=_NAMED)]
Axis = Literal["auto", "x", "-x", "y", "-y", "z", "-z"]
Up = Annotated[
    Axis,
    typer.Option(help="The axis that points up; auto finds it, by what the net knows and how files of the format lie."),
]
Votes = Annotated[int, typer.Option(min=1, help="Independent samplings of each shape to average.")]
Points = Annotated[int, typer.Option(min=1, max=10_000_000, help="Points that an autoencoder makes of each shape.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Shapes the net sees at once.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Reading processes; 0 reads in this one (default: by need).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format", help="How to print the results; json: an object a line (default: by the suffix of -o, else table)."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the results to FILE.")]
