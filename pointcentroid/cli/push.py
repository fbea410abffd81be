"""`pointcentroid push`: weights for others to use."""

from __future__ import annotations

from typing import Annotated

import typer

from pointcentroid.cli import options


def push(
    weights: options.WeightsArgument,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Where to; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option(metavar="BRANCH", help="The branch to write to.")] = None,
) -> None:
    """Put weights on a Hugging Face hub, with their graph and a model card written from what they say of themselves.

    Others then use them as --weights hf://OWNER/NAME. Log in first: hf auth login, or HF_TOKEN=... in the environment.
    """
    from pointcentroid.export.hub import push as run
    from pointcentroid.weights import find_weights

    typer.echo(run(find_weights(weights), repository, private=private, revision=revision))
