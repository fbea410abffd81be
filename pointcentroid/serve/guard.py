"""What stands before the routes: headers that every answer carries, hosts that are answered, patience with connections."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from typing import Any

import h11
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer; pages bring a policy of their own. None allows other sites anything: there is no CORS."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host that is listened on."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Adds `HEADERS`, and refuses what a page of another site has a visitor's browser send.

    Args:
        app: the routes.
        loopback: whether the server listens on the loopback only. It then answers to the names of the loopback alone: a
            foreign name that was made to lead here ("DNS rebinding") would be another site's way in.
    """

    def __init__(self, app: ASGIApp, loopback: bool) -> None:
        self.app, self.loopback = app, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if problem := self._problem(Headers(scope=scope)):
            body = json.dumps({"error": problem}).encode()
            head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await with_headers({"type": "http.response.start", "status": 403, "headers": head})
            await with_headers({"type": "http.response.body", "body": body})
            return
        await self.app(scope, receive, with_headers)

    def _problem(self, headers: Headers) -> str | None:
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self.loopback and not is_loopback(name.strip("[]")):
            return "this server answers to localhost only"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return "other sites may not use this server"
        return None


def patient_protocol(grace: float) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 that waits only so long for the head of a request, and for a client to read its answer.

    Args:
        grace: seconds.
    """

    class PatientProtocol(H11Protocol):
        _late: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def _watch(self) -> None:
            if self.conn.their_state is not h11.IDLE:
                self._late = _cancelled(self._late)
            elif self._late is None:
                self._late = self.loop.call_later(grace, self._close_late)

        def _close_late(self) -> None:
            self._late = None
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.abort()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stuck = self.loop.call_later(3 * grace, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stuck = _cancelled(self._stuck)

        def connection_lost(self, exc: Exception | None) -> None:
            self._late, self._stuck = _cancelled(self._late), _cancelled(self._stuck)
            super().connection_lost(exc)

    return PatientProtocol


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
