"""`pointcentroid train`: from a configuration to a weights file."""

from __future__ import annotations

from typing import Annotated

import typer


def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a shipped one.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, such as epochs=10.")
    ] = None,
) -> None:
    """Train a classifier, for example: train modelnet40-small data=train.npz epochs=10."""
    from pointcentroid.yaml_config import load_train_config

    settings = load_train_config(config, overrides or [])
    try:
        from pointcentroid.train import train as run
    except ImportError as error:
        from pointcentroid.errors import MissingExtraError

        raise MissingExtraError("training", "train", error.name or "lightning") from None

    typer.echo(run(settings))
