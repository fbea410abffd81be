"""The command `pointcentroid`, which is also `python -m pointcentroid`.

Here, before anything that takes time is imported, because Ctrl-C may come at any time.
"""

import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it with `stopped` and exit code 130, as do SIGTERM and a terminal that closes."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, signal.default_int_handler)
    try:
        from pointcentroid.cli.app import main as run

        run()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # it is ending; once more ends it without waiting for readers
        import typer

        typer.secho("stopped", fg="yellow", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
