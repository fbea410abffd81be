"""Slow senders keep nobody waiting."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
import uvicorn

from pointcentroid.serve.limits import RefusalError, ServeSettings
from pointcentroid.serve.patience import Body, patient_protocol


class TestPatience:
    """The protocol and the body alone, with patience that runs out soon."""

    def test_what_the_machine_was_late_counts_against_nobody(self) -> None:
        async def main() -> None:
            messages: asyncio.Queue = asyncio.Queue()
            body = Body(messages.get, ServeSettings(grace_seconds=1.0))
            loop = asyncio.get_running_loop()
            loop.call_later(0.1, time.sleep, 2.5)  # the machine does something else
            loop.call_later(2.9, messages.put_nowait, {"type": "http.request", "body": b"late", "more_body": True})
            assert await body.next() == b"late"
            start = time.monotonic()
            with pytest.raises(RefusalError, match="too slowly; 4 bytes came"):
                await body.next()
            assert time.monotonic() - start < 5

        asyncio.run(main())

    def test_a_refused_sender_is_listened_to(self) -> None:
        async def main() -> None:
            sent = iter([(0.0, True), (2.5, True), (0.0, False)])  # its pauses; no answer is sent before its end

            async def receive() -> dict:
                pause, more = next(sent)
                await asyncio.sleep(pause)
                return {"type": "http.request", "body": b"x" * 100_000, "more_body": more}

            body = Body(receive, ServeSettings())
            await body.drain()
            assert body.received == 300_000
            await body.drain()  # nothing comes after the end, and nothing is waited for
            endless = Body(
                lambda: asyncio.sleep(0, {"type": "http.request", "body": b"x" * 10**6, "more_body": True}), body.settings
            )
            await endless.drain()
            assert endless.received == 2 * body.settings.upload_bytes

        asyncio.run(main())

    def test_too_many_connections(self) -> None:
        """The one that is idle for longest makes room; where all are busy, the newest is told to come again."""
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

        async def app(_: object, receive: Callable, send: Callable) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})

        async def main() -> None:
            settings = ServeSettings(connections=3, grace_seconds=1.0)
            listening = socket.create_server(("127.0.0.1", 0))
            config = uvicorn.Config(app, http=patient_protocol(settings), lifespan="off", log_level="error")
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve([listening]))
            opened = []

            async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
                opened.append(await asyncio.open_connection(*listening.getsockname()))
                return opened[-1]

            async def asked(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
                connection[1].write(request)
                return await asyncio.wait_for(connection[0].readuntil(b"ok"), 5)

            first, second, third = [await connect() for _ in range(3)]
            assert (await asked(first)).startswith(b"HTTP/1.1 200")  # `second` is now idle for longest
            await asyncio.sleep(1.2)
            fourth = await connect()
            assert await asyncio.wait_for(second[0].read(), 5) == b""
            for connection in (first, third, fourth):
                assert (await asked(connection)).startswith(b"HTTP/1.1 200")
            for connection in (first, third, fourth):
                connection[1].write(request[:20])
            await asyncio.sleep(0.1)
            fifth = await connect()
            fifth[1].write(request)
            answer = (await asyncio.wait_for(fifth[0].read(), 5)).lower()
            assert answer.startswith(b"http/1.1 503")
            assert b"\r\nretry-after: 5\r\n" in answer
            assert b"\r\nx-content-type-options: nosniff\r\n" in answer
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"].startswith("too many connections")
            for _, writer in opened:
                writer.close()
            server.should_exit = True
            await serving

        asyncio.run(main())

    def test_an_answered_sender_does_not_stay(self) -> None:
        """Who announces a body that nobody reads, and sends a byte of it after the answer, is closed as a late one is."""

        async def app(_scope: object, _receive: Callable, send: Callable) -> None:
            await send({"type": "http.response.start", "status": 405, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"no"})

        async def main() -> None:
            listening = socket.create_server(("127.0.0.1", 0))
            protocol = patient_protocol(ServeSettings(grace_seconds=1.0))
            server = uvicorn.Server(uvicorn.Config(app, http=protocol, lifespan="off", log_level="error"))
            serving = asyncio.create_task(server.serve([listening]))
            head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
            slow, whole = [await asyncio.open_connection(*listening.getsockname()) for _ in range(2)]
            for reader, writer in (slow, whole):
                writer.write(head)
                assert (await asyncio.wait_for(reader.readuntil(b"no"), 5)).startswith(b"HTTP/1.1 405")
            whole[1].write(b"abc")
            slow[1].write(b"a")
            with suppress(ConnectionError):
                assert await asyncio.wait_for(slow[0].read(), 5) == b""
            whole[1].write(head)  # it has kept its word, and its connection
            assert (await asyncio.wait_for(whole[0].readuntil(b"no"), 5)).startswith(b"HTTP/1.1 405")
            for _, writer in (slow, whole):
                writer.close()
            server.should_exit = True
            await serving

        asyncio.run(main())

    def test_who_does_not_read_an_answer_does_not_stay(self) -> None:
        gone = asyncio.Event()

        async def app(_scope: object, _receive: Callable, send: Callable) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while not gone.is_set():  # more than the pipes between hold
                await send({"type": "http.response.body", "body": b"x" * 2**20, "more_body": True})
                await asyncio.sleep(0)  # to one who has gone, nothing is sent, and that at once

        async def main() -> None:
            listening = socket.create_server(("127.0.0.1", 0))
            protocol = patient_protocol(ServeSettings(grace_seconds=0.3))
            server = uvicorn.Server(uvicorn.Config(app, http=protocol, lifespan="off", log_level="critical"))
            serving = asyncio.create_task(server.serve([listening]))
            client = socket.create_connection(listening.getsockname())
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while not server.server_state.connections:
                await asyncio.sleep(0.01)
            start = time.monotonic()
            while server.server_state.connections and time.monotonic() - start < 10:
                await asyncio.sleep(0.05)
            gone.set()
            assert not server.server_state.connections, "closed"
            client.close()
            server.should_exit = True
            await serving

        asyncio.run(main())
