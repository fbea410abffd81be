"""`pointcentroid export`: trained weights as a graph for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointcentroid.cli import options


def export(
    weights: options.WeightsArgument,
    to: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The graph: .onnx for ONNX Runtime, .pt2 for torch.")
    ],
) -> None:
    """Write a classifier as a graph, which runs without pointcentroid.

    Clouds (B, N, 3) in, logits, features and, where the net has it, known out. The file is checked against torch before it
    is written. An .onnx beside the weights it was made of, under the same name, is what classify runs from then on.
    """
    from pointcentroid.cli.output import check_writable
    from pointcentroid.errors import require
    from pointcentroid.weights import find_weights

    check_writable(to)
    require("exporting", "export", "torch")
    from pointcentroid.export.onnx import export as write

    difference = write(find_weights(weights), to)
    typer.echo(f"{to}: {to.stat().st_size / 1e6:.1f} MB, within {difference:.1g} of torch")
