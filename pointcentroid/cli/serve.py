"""`pointcentroid serve`: a page where files are dropped, and an API."""

from __future__ import annotations

from typing import Annotated

import typer

from pointcentroid.cli import options


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; any but the loopback is open to the network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    weights: options.Weights = "small",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Reading processes (default: one a processor, at most 8).")
    ] = None,
    device: options.Device = "auto",
    upload_mb: Annotated[int, typer.Option(min=1, help="The most that one request may send.")] = 64,
    reading_seconds: Annotated[
        float, typer.Option(min=0.01, max=3600, help="The time that reading one file may take.")
    ] = 10,
    queue: Annotated[int, typer.Option(min=1, help="Requests worked on at once; more are told to come again.")] = 256,
) -> None:
    """Serve a page where files are dropped, and an API, until Ctrl-C or SIGTERM."""
    from pointcentroid.cli.output import note
    from pointcentroid.errors import require

    if not host:
        raise typer.BadParameter("is empty; 0.0.0.0 listens on all addresses", param_hint="--host")
    require("serving", "serve", "fastapi", "uvicorn", "python_multipart")
    from pointcentroid.serve.guard import is_loopback
    from pointcentroid.serve.limits import MB, ServeSettings
    from pointcentroid.serve.run import run

    settings = ServeSettings(weights, device, workers, upload_mb * MB, reading_seconds=reading_seconds, queue=queue)
    if not is_loopback(host):
        note(f"{host} is open to the network, without password or encryption; put a proxy before it that has both")
    run(settings, host, port, started=typer.echo)
