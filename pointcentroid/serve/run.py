"""An application on a socket, until it is told to end."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn

from pointcentroid.errors import ConfigError, one_line
from pointcentroid.serve.app import create_app
from pointcentroid.serve.guard import is_loopback
from pointcentroid.serve.limits import ServeSettings
from pointcentroid.serve.patience import patient_protocol


def run(settings: ServeSettings, host: str, port: int, started: Callable[[str], object]) -> None:
    """Serve until SIGTERM or Ctrl-C, which finish what was accepted.

    Args:
        settings: what to serve, and the limits.
        host: the address to listen on.
        port: 0 takes a free one.
        started: called with a line that holds the address, when requests are answered.

    Raises:
        ConfigError: the address cannot be listened on.
        WeightsError: there are no such weights, or they do not classify.
        KeyboardInterrupt: it was ended by Ctrl-C.
        SystemExit: it was ended by SIGTERM, with 0.
    """
    app = create_app(settings, is_loopback(host))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.getaddrinfo(host, port, family)
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError(f"there is no address {host} ({one_line(error)}); choose another --host") from None
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}; choose another --port") from None
    shown = f"[{host}]" if ":" in host else host
    line = f"serving {settings.weights} at http://{shown}:{listening.getsockname()[1]}/  (Ctrl-C ends it)"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                started(line)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            if self.force_exit:  # the second time: what is cut off then need not be told of
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)

    config = uvicorn.Config(
        app,
        http=patient_protocol(settings),
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.idle_seconds,
        timeout_graceful_shutdown=int(settings.waiting_seconds + settings.reading_seconds + settings.explaining_seconds),
    )
    # uvicorn raises the signal that ended it once more when all is done.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Server(config).run(sockets=[listening])
