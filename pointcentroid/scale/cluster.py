"""Is there a Ray cluster at an address? Ray itself asks for minutes, and tells of its attempts line by line."""

from __future__ import annotations

import os
import socket

from pointcentroid.errors import DataError

_SECONDS = 10.0
# The head of a cluster speaks gRPC, which is HTTP/2: each side begins with its settings.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
_FRAME, _SETTINGS = 9, 4  # bytes of a frame's head, and the kind of frame that its fourth byte says


def check_cluster(address: str) -> None:
    """Refuse an address at which there can be no cluster, within some seconds.

    Args:
        address: `HOST:PORT`, `ray://HOST:PORT`; `local`, which starts a cluster; or `auto`, which Ray looks for, unless
            `RAY_ADDRESS` says it.

    Raises:
        DataError: it is no address, nobody listens there, or who does is no Ray.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    if address in ("auto", "local"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise DataError(
            f"{address!r} is no address of a Ray cluster: expected HOST:PORT, auto, or local, which starts one here"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _SECONDS) as connection:
            connection.settimeout(_SECONDS)
            connection.sendall(_HELLO)
            answer = connection.recv(_FRAME)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"no Ray cluster at {address} ({reason}); auto looks for one, local starts one here") from None
    if len(answer) < _FRAME or answer[3] != _SETTINGS:
        raise DataError(f"what listens at {address} is no Ray; auto looks for a cluster, local starts one here")
