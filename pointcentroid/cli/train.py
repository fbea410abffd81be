"""`pointcentroid train`: from a configuration to a weights file."""

from __future__ import annotations

from typing import Annotated

import typer

from pointcentroid.cli import options


def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a shipped one.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, such as epochs=10.")
    ] = None,
    format: options.FormatOption = "table",
    output: options.Output = None,
) -> None:
    """Train a classifier, for example: train modelnet40-small data=train.npz epochs=10.

    Prints where the weights are, and their metrics on the validation shapes.
    """
    from pointcentroid.cli.output import check_writable, print_measures, write
    from pointcentroid.weights import read_card
    from pointcentroid.yaml_config import load_train_config

    check_writable(output)
    settings = load_train_config(config, overrides or [])
    try:
        from pointcentroid.train import train as run
    except ImportError as error:
        from pointcentroid.errors import MissingExtraError

        raise MissingExtraError("training", "train", error.name or "lightning") from None

    weights = run(settings)
    row = {"weights": str(weights), **read_card(weights).metrics}
    if format == "table":
        print_measures(row, output)
    else:
        write([row], list(row), format, output)
