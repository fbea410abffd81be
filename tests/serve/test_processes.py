"""Processes of the server: how they end, and what becomes of those that hang, swell or die."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from pointcentroid.predict.limited import CrashError, LimitedProcess, OverrunError
from pointcentroid.serve.limits import RefusalError
from pointcentroid.serve.workers import WorkerPool

from ..conftest import until
from ..doubles import make_double
from .client import CHAIR, SERVE, Server, answered, form, opening


@asynccontextmanager
async def pool_of_two(seconds: float, waiting: float) -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(make_double, (), 2, seconds=seconds, waiting=waiting)
    await pool.start()
    try:
        yield pool
    finally:
        pool.stop()


async def both(pool: WorkerPool) -> set[int]:
    """The numbers of its two processes, when both are there."""
    while len(members := set(await asyncio.gather(pool.ask("rest"), pool.ask("rest")))) < 2:
        pass
    return members


class TestEnd:
    @pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
    def test_what_was_accepted_is_finished(self, another: Callable[..., Server], large: bytes, how: int, code: int) -> None:
        """Of a file that is being read, of one that waits for the reader, and of one that is still being sent."""
        server = another()
        body, headers = form(("late.off", CHAIR))
        with ThreadPoolExecutor(2) as clients, socket.create_connection(("127.0.0.1", server.port)) as late:
            late.sendall(opening(body, headers))
            late.sendall(body[:200])
            reading = clients.submit(server.classify, ("slow.xyz", large[: len(large) // 3]))
            until(lambda: server.health()["held_bytes"] > len(large) // 3)
            time.sleep(0.2)
            waiting = clients.submit(server.classify, ("chair.off", CHAIR))
            until(lambda: server.health()["requests"] == 3)
            server.process.send_signal(how)
            time.sleep(0.3)
            late.sendall(body[200:])
            assert "label" in reading.result().json[0]
            assert waiting.result().json[0]["label"] == "chair"
            assert answered(late).json[0]["label"] == "chair"
        _, said = server.process.communicate(timeout=30)
        assert (server.process.returncode, said) == (code, "" if code == 0 else "stopped\n")
        assert list(server.folder.glob("pointcentroid-*")) == []

    def test_a_second_interrupt_ends_it_at_once_and_quietly(self, another: Callable[..., Server]) -> None:
        server = another()
        body, headers = form(("a.xyz", b"1 2 3\n" * 100))
        with socket.create_connection(("127.0.0.1", server.port)) as sender:
            sender.sendall(opening(body, headers) + body[:50])  # and no more
            until(lambda: server.health()["requests"])
            server.process.send_signal(signal.SIGINT)
            time.sleep(1)
            _, said = server.end(signal.SIGINT)
        assert "Traceback" not in said
        assert list(server.folder.glob("pointcentroid-*")) == []

    def test_what_cannot_be_served_is_one_line(self, server: Server) -> None:
        for options in (["--port", server.port], ["--weights", "autoencoder"], ["--weights", "nothing"]):
            done = subprocess.run([*SERVE, *map(str, options)], capture_output=True, text=True, check=False, timeout=60)
            assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


def test_a_worker_that_hangs_or_dies_is_replaced() -> None:
    async def main() -> None:
        async with pool_of_two(seconds=1.5, waiting=60) as pool:
            for _ in range(3):
                with pytest.raises(CrashError):
                    await pool.ask("crash")
                assert await pool.ask(21) == 42
            await both(pool)
            pool.waiting = 0.5
            hanging = [asyncio.create_task(pool.ask("hang")) for _ in range(2)]
            await asyncio.sleep(0.1)
            with pytest.raises(RefusalError, match="no reader was free"):
                await pool.ask(1)
            pool.waiting = 60
            hanging[0].cancel()  # a client that left; its worker is busy all the same
            with pytest.raises(OverrunError):
                await hanging[1]
            assert await asyncio.gather(*(pool.ask(n) for n in range(8))) == [2 * n for n in range(8)]

    asyncio.run(main())


def test_large_questions_leave_a_worker_free_and_swollen_ones_end() -> None:
    async def main() -> None:
        async with pool_of_two(seconds=30, waiting=30) as pool:
            large = [asyncio.create_task(pool.ask("doze", large=True)) for _ in range(2)]
            await asyncio.sleep(0.2)
            assert [await pool.ask(n) for n in range(20)] == [2 * n for n in range(20)]
            assert not large[1].done(), "one after the other they take ten seconds"
            await asyncio.gather(*large)
            members = await both(pool)
            swollen = await pool.ask("swell")
            assert swollen in members
            assert swollen not in await both(pool)

    asyncio.run(main())


def test_large_questions_that_nobody_waits_for_cost_no_place() -> None:
    async def main() -> None:
        async with pool_of_two(seconds=30, waiting=30) as pool:
            resting = [asyncio.create_task(pool.ask("doze")) for _ in range(2)]
            await asyncio.sleep(0.2)
            for _ in range(3):  # all processes are busy; who asks leaves before one is idle
                leaving = asyncio.create_task(pool.ask(1, large=True))
                await asyncio.sleep(0.1)
                leaving.cancel()
            await asyncio.gather(*resting)
            pool.waiting = 5
            assert await pool.ask(21, large=True) == 42

    asyncio.run(main())


def test_a_process_is_not_charged_with_the_memory_of_the_one_that_started_it() -> None:
    held = bytearray(400_000_000)
    held[::4096] = b"x" * len(held[::4096])
    process = LimitedProcess(make_double, (), most_mb=300)
    try:
        first = process.ask("rest", 30)
        assert process.ask("rest", 30) == first == process.pid
        assert process.ask("swell", 30) == first
        assert process.pid is None, "it grew itself, and is replaced"
    finally:
        process.close()
    assert len(held) == 400_000_000
