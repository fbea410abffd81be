"""The table of commands, and the one place where errors become messages and exit codes.

Exit codes: 0 all done, 1 some inputs failed, 2 wrong usage, or what kept it from going on (a full disk; nothing to show,
of `view`), 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import gc
import inspect
import os
import re
import sys
from typing import Annotated

import typer

import pointcentroid
from pointcentroid.cli.assignments import assignments
from pointcentroid.cli.classify import classify
from pointcentroid.cli.data import app as data
from pointcentroid.cli.embed import embed
from pointcentroid.cli.encoding import accept_all_text
from pointcentroid.cli.evaluate import calibrate, evaluate
from pointcentroid.cli.export import export
from pointcentroid.cli.keeping import RayCommand
from pointcentroid.cli.models import models
from pointcentroid.cli.push import push
from pointcentroid.cli.reconstruct import reconstruct
from pointcentroid.cli.serve import serve
from pointcentroid.cli.train import SettingsCommand, train
from pointcentroid.cli.view import compare, view
from pointcentroid.errors import PointCentroidError, printable
from pointcentroid.predict.allocator import keep_freed_memory

app = typer.Typer(
    help="Point clouds through learned centroids: classify 3D shapes, train on your own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_LOOKING = (view, compare, assignments, reconstruct, serve)
_TRAINING = (train, evaluate, calibrate, export, push, models)
_OF_ITS_OWN = {classify: RayCommand, embed: RayCommand, train: SettingsCommand}
for command in (classify, embed, *_LOOKING, *_TRAINING):
    app.command(cls=_OF_ITS_OWN.get(command))(command)
app.add_typer(data, name="data")
for one in (*app.registered_commands, *data.registered_commands):  # typer would keep the line breaks of docstrings
    one.help = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(one.callback.__doc__ or "")) if one.callback else one.help


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pointcentroid {pointcentroid.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line, and let no traceback through.

    Raises:
        KeyboardInterrupt: stopped by Ctrl-C.
        SystemExit: in every other case, with the exit code.
    """
    # What importing torch allocates stays to the end; having the garbage collector go through it again and again, and once
    # more at exit, is a quarter of the time of a short command.
    gc.set_threshold(100_000)
    keep_freed_memory()
    accept_all_text()
    try:
        app()
    except PointCentroidError as error:
        lines = map(printable, str(error).split("\n"))
        typer.secho("error: " + "\n".join(lines), fg="red", err=True)
        sys.exit(2)
    except BrokenPipeError:
        # The reader of our output has left (`| head`). Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == 130:  # typer has turned Ctrl-C into its exit code
            raise KeyboardInterrupt from None
        raise
    except OSError as error:
        typer.secho(f"error: {error.filename or 'output'}: {error.strerror or error}", fg="red", err=True)
        sys.exit(2)
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # while a compiled library was loading
            raise KeyboardInterrupt from None
        if os.environ.get("POINTCENTROID_DEBUG"):
            raise
        reason = f"{type(error).__name__}: {error}"
        typer.secho(f"internal error: {reason} (POINTCENTROID_DEBUG=1 shows where; please report it)", fg="red", err=True)
        sys.exit(2)
    finally:
        gc.freeze()
