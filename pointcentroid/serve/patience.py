"""Patience with senders: enough for a client on a slow machine, and an end for one that is slow on purpose.

A connection on which nothing was sent costs next to nothing and may stand for long; who has begun a request must go on with
it. Time in which this machine itself was held up counts against nobody.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from pointcentroid.serve.guard import Guard
from pointcentroid.serve.limits import RefusalError, ServeSettings

_STEP = 0.5
"""Seconds. A wait that took longer than it was asked to counts as what was asked for: we were late, not the client."""


class Body:
    """The body of a request, as it comes.

    Args:
        receive: see ASGI.
        settings: the patience.

    Attributes:
        received: bytes so far.
    """

    def __init__(self, receive: Receive, settings: ServeSettings) -> None:
        self.settings, self.received = settings, 0
        self._receive, self._waited, self._more = receive, 0.0, True

    async def next(self) -> bytes | None:
        """Some more bytes; None at the end.

        Raises:
            RefusalError: they came too slowly, or the connection was cut.
        """
        if not self._more:
            return None
        waiting = asyncio.ensure_future(self._receive())
        try:
            while not waiting.done():
                left = self.settings.grace_seconds + self.received / self.settings.least_rate - self._waited
                if left <= 0:
                    raise RefusalError(408, f"the request came too slowly; {self.received} bytes came")
                step, start = min(left, _STEP), time.monotonic()
                await asyncio.wait([waiting], timeout=step)
                self._waited += min(time.monotonic() - start, step)
        finally:
            waiting.cancel()
        message = waiting.result()
        if message["type"] == "http.disconnect":
            raise RefusalError(400, "the connection was cut")
        data = message.get("body", b"")
        self.received += len(data)
        self._more = message.get("more_body", False)
        return data

    async def drain(self) -> None:
        """Throw away what still comes: a sender whose connection is closed meanwhile loses the answer."""
        most = 2 * self.settings.upload_bytes
        try:
            while self.received < most and await self.next() is not None:
                pass
        except RefusalError:
            pass


def patient_protocol(settings: ServeSettings) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 that bounds how long a head may take, how long an answer may be left unread, and how many connect.

    Where more connect than may, the one that has been idle for longest is closed; where none has been for long, the newest
    is told to come again.

    Args:
        settings: the patience. (How long a connection may be idle is `timeout_keep_alive` of uvicorn's.)
    """

    async def busy(_: Scope, receive: Receive, send: Send) -> None:
        await Body(receive, settings).drain()
        body = b'{"error": "too many connections are open; try again later"}'
        head = {b"content-type": b"application/json", b"content-length": b"%d" % len(body), b"retry-after": b"5"}
        headers = [*head.items(), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    refusing = Guard(busy, loopback=False)
    idle: dict[H11Protocol, float] = {}  # since when nothing of a request has come; the longest so comes first

    class PatientProtocol(H11Protocol):
        _late: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > settings.connections:
                oldest, since = next(iter(idle.items()), (self, self.loop.time()))
                if self.loop.time() - since > settings.grace_seconds:  # not one whose request is on its way
                    del idle[oldest]
                    oldest.timeout_keep_alive_handler()
                else:
                    self.app = refusing
            self._rest()

        def data_received(self, data: bytes) -> None:
            idle.pop(self, None)
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self.transport.is_closing():
                self._watch()

        def _rest(self) -> None:
            """Nothing is being sent or answered: start uvicorn's timer, also for a new connection, and queue up."""
            idle[self] = self.loop.time()
            if self.timeout_keep_alive_task is None:
                self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

        def _watch(self) -> None:
            between = self.conn.their_state is h11.IDLE
            # Of a request that was answered before its body had come, nobody waits for the rest.
            unread = self.conn.their_state is h11.SEND_BODY and self.cycle is not None and self.cycle.response_complete
            if unread or (between and self.conn.trailing_data[0]):  # or part of a head
                if self._late is None:
                    self._late = self.loop.call_later(settings.grace_seconds, self._close_late)
                return
            self._late = _cancelled(self._late)
            if between:
                self._rest()

        def _close_late(self) -> None:
            self._late = None
            if not self.transport.is_closing():
                self.transport.abort()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stuck = self.loop.call_later(3 * settings.grace_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stuck = _cancelled(self._stuck)

        def connection_lost(self, exc: Exception | None) -> None:
            idle.pop(self, None)
            self._late, self._stuck = _cancelled(self._late), _cancelled(self._stuck)
            self._unset_keepalive_if_required()
            super().connection_lost(exc)

    return PatientProtocol


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
