"""Load a server on the loopback, with hostile senders among the clients, and check every answer.

    python tools/load.py [--clients 200] [--seconds 60] [--hostile 500] [--files FOLDER] [--json FILE]

Starts `pointcentroid serve` itself. First the plain command classifies the files over and over, which gives the answers that
are expected and the files a second to compare with; then the clients send them, each on a connection of its own, one file a
request; then the server is told to end while it is at work, and the command classifies once more, for machines drift. The
clients run on the same cores. Linux only: memory is read from /proc.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pointcentroid.io import READERS

EXAMPLES = Path(__file__).parent.parent / "data" / "examples"
COMMAND = [sys.executable, "-m", "pointcentroid"]
_BOUNDARY = b"a-boundary-that-is-in-no-file"
_LARGEST = 300_000  # bytes of a "small" file
_PIECE = 2**16
_GROWTH = 1.15  # memory of the server's process, last quarter to second, at most: in the first it is still warming up
_PATIENCE = 120.0  # seconds that a client waits for an answer


@dataclass
class Tally:
    """What happened.

    Attributes:
        seconds: of each request that was answered with a row, in the order of the answers.
        again: requests that were told to come again later (503 with Retry-After), and came again.
        resent: requests on a connection that had been answered before and was closed before a byte of the next answer came;
            they were sent once more on a new one, as browsers do, for a server may close what is idle at any time.
        wrong: what should not have happened, in words.
        hostile: what hostile senders were answered, by kind.
        memory: (seconds since the start, MB of the server's own process, MB of all its processes).
        ended_at: requests that were being worked on when the server was told to end.
    """

    seconds: list[float] = field(default_factory=list)
    again: int = 0
    resent: int = 0
    wrong: list[str] = field(default_factory=list)
    hostile: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, float, float]] = field(default_factory=list)
    ended_at: int = 0


def form(name: str, content: bytes) -> bytes:
    """The body of a request with one file."""
    head = b'--%b\r\nContent-Disposition: form-data; name="files"; filename="%b"\r\n\r\n' % (_BOUNDARY, name.encode())
    return head + content + b"\r\n--%b--\r\n" % _BOUNDARY


def head(length: int) -> bytes:
    """The head of a request whose body has so many bytes."""
    return (
        b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=%b\r\n"
        b"Content-Length: %d\r\n\r\n" % (_BOUNDARY, length)
    )


class ClosedError(ConnectionError):
    """The connection was closed before a byte of the answer came."""


async def response(reader: asyncio.StreamReader) -> tuple[int, Any]:
    """The status and the JSON of one answer."""
    try:
        top = await reader.readuntil(b"\r\n\r\n")
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        if getattr(error, "partial", b""):
            raise
        raise ClosedError("closed without an answer") from None
    found = re.search(rb"content-length: (\d+)", top, re.IGNORECASE)
    if found is None:
        raise ConnectionError(f"no length: {top[:60]!r}")
    status = int(top.split(b" ", 2)[1])
    if status == 503 and b"\r\nretry-after: " not in top.lower():
        raise ConnectionError(f"503 without a time to come again: {top[:60]!r}")
    return status, json.loads(await reader.readexactly(int(found[1])))


async def working(port: int) -> int:
    """How many requests the server is working on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    try:
        return (await response(reader))[1]["requests"]
    finally:
        writer.close()


async def exchange(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], *parts: bytes) -> tuple[int, Any]:
    """Send a request, in pieces, so that a large one keeps no other client waiting; read the answer meanwhile."""
    reader, writer = connection
    answer = asyncio.create_task(response(reader))
    try:
        for part in parts:
            for start in range(0, len(part), _PIECE):
                writer.write(memoryview(part)[start : start + _PIECE])
                await writer.drain()
    except ConnectionError:
        pass  # whoever is refused early finds the answer there all the same, or does not, which is then the error
    return await asyncio.wait_for(answer, _PATIENCE)


class Load:
    """Clients of one server.

    Args:
        port: of the server.
        files: what honest clients send.
        expected: the row that the command gives each of them.
        tally: where to count.
    """

    def __init__(self, port: int, files: list[Path], expected: dict[Path, dict], tally: Tally) -> None:
        self.port, self.expected, self.tally = port, expected, tally
        self.contents = {path: path.read_bytes() for path in files}
        # Made before the clients start, whom this would keep waiting.
        self.bombs = bomb(100), bomb(1000)
        self.large = form("large.off", b"OFF\n" + b"#" * 65 * 10**6)

    async def client(self, number: int, end: float) -> None:
        """Send one file after the other until a time, and check that each answer is that of the file."""
        rng = random.Random(number)
        connection, used = None, False
        turn = 0
        while time.perf_counter() < end:
            path = rng.choice(list(self.contents))
            name = f"{number}-{turn}{path.suffix}"
            body = form(name, self.contents[path])
            start = time.perf_counter()
            while True:
                try:
                    if connection is None:
                        connection, used = await asyncio.open_connection("127.0.0.1", self.port), False
                    status, rows = await exchange(connection, head(len(body)), body)
                    break
                except (OSError, EOFError, TimeoutError, ValueError) as error:
                    status, rows = 0, f"{type(error).__name__}: {error}"
                    if connection is not None:
                        connection[1].close()
                        connection = None
                    if not (used and isinstance(error, ClosedError)):
                        break
                    self.tally.resent += 1
            if not status:
                self.tally.wrong.append(f"{name}: {rows}")
                continue
            used = True
            if status == 503:
                self.tally.again += 1
                if connection is not None:  # the server closes it
                    connection[1].close()
                    connection = None
                await asyncio.sleep(rng.uniform(0.5, 2))
                continue
            self.tally.seconds.append(time.perf_counter() - start)
            turn += 1
            self._check(name, path, status, rows)
        if connection is not None:
            connection[1].close()

    def _check(self, name: str, path: Path, status: int, rows: Any) -> None:
        wanted = self.expected[path]
        if status != 200 or len(rows) != 1 or rows[0].get("file") != name:
            self.tally.wrong.append(f"{name} ({path.name}): {status} {str(rows)[:160]}")
        elif rows[0].get("error") != wanted.get("error") or rows[0].get("label") != wanted.get("label"):
            self.tally.wrong.append(f"{name} ({path.name}): expected {wanted.get('label')}, found {str(rows[0])[:160]}")
        elif abs(rows[0].get("confidence", 0) - wanted.get("confidence", 0)) > 1e-3:
            self.tally.wrong.append(f"{name} ({path.name}): expected {wanted['confidence']}, found {rows[0]['confidence']}")

    async def end(self, server: subprocess.Popen, count: int = 64) -> None:
        """Tell the server to end while it is at work; what it had accepted must be answered all the same."""

        async def once(number: int) -> None:
            path = list(self.contents)[number % len(self.contents)]
            name, content = f"last-{number}{path.suffix}", form(f"last-{number}{path.suffix}", self.contents[path])
            try:
                connection = await asyncio.open_connection("127.0.0.1", self.port)
                self._check(name, path, *await exchange(connection, head(len(content)), content))
                connection[1].close()
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self.tally.wrong.append(f"{name}, when it ended: {type(error).__name__}: {error}")

        while not self.tally.ended_at:
            asked = [asyncio.create_task(once(number)) for number in range(count)]
            while not all(request.done() for request in asked):
                answered = sum(request.done() for request in asked)  # counted first: none is counted twice
                at_work = await working(self.port)
                if at_work and answered + at_work == count:  # all have been accepted
                    server.terminate()
                    self.tally.ended_at = at_work
                    break
            await asyncio.gather(*asked)

    async def hostile(self, number: int) -> None:
        """One hostile sender; which kind, its number says. What it may be answered is checked."""
        kinds = {
            "mutated": self._mutated,
            "wrong suffix": self._wrong_suffix,
            "3MF bomb": self._bomb,
            "65 MB": self._too_large,
            "slow": self._slow,
            "cut": self._cut,
        }
        kind = list(kinds)[number % len(kinds)]
        try:
            answer, allowed = await asyncio.wait_for(kinds[kind](random.Random(1000 + number)), 180)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            answer, allowed = type(error).__name__, ()
        if answer not in (*allowed, "503"):  # 503: there was no room for it, which is an answer too
            self.tally.wrong.append(f"hostile, {kind}: {answer}")
        self.tally.hostile[f"{kind}: {answer}"] += 1

    async def _send(self, name: str, body: bytes) -> str:
        connection = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            status, rows = await exchange(connection, head(len(body)), body)
        finally:
            connection[1].close()
        if status == 200 and rows[0]["file"] != name.rpartition("/")[2]:
            return "somebody else's row"
        return "row" if status == 200 and "label" in rows[0] else "error row" if status == 200 else str(status)

    async def _post(self, name: str, content: bytes) -> str:
        return await self._send(name, form(name, content))

    async def _mutated(self, rng: random.Random) -> tuple[str, tuple[str, ...]]:
        path = rng.choice(list(self.contents))
        data = bytearray(self.contents[path])
        for _ in range(rng.randint(1, 40)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.5:
            del data[rng.randrange(len(data)) :]
        return await self._post(f"mutated{path.suffix}", bytes(data)), ("row", "error row", "504")

    async def _wrong_suffix(self, rng: random.Random) -> tuple[str, tuple[str, ...]]:
        path = rng.choice(list(self.contents))
        suffix = rng.choice([*READERS, ".exe", "", ".off/../../x"])
        return await self._post(f"wrong{suffix}", self.contents[path]), ("row", "error row", "504")

    async def _bomb(self, rng: random.Random) -> tuple[str, tuple[str, ...]]:
        return await self._post("bomb.3mf", self.bombs[rng.random() < 0.5]), ("error row", "504")

    async def _too_large(self, _: random.Random) -> tuple[str, tuple[str, ...]]:
        return await self._send("large.off", self.large), ("413",)

    async def _slow(self, rng: random.Random) -> tuple[str, tuple[str, ...]]:
        """A byte now and then, of the head or of the body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        sent = head(5000) if rng.random() < 0.5 else b""
        body = form("slow.off", b"OFF")
        writer.write(sent or b"POST /cl")
        answer = asyncio.create_task(response(reader) if sent else reader.read())
        try:
            for place in range(len(body)):
                if answer.done():
                    break
                writer.write(body[place : place + 1] if sent else b"a")
                await asyncio.wait([answer], timeout=1)
            result = await answer
            return (str(result[0]) if sent else "closed"), ("408", "closed")
        except (OSError, EOFError):
            return "closed", ("closed",)
        finally:
            writer.close()

    async def _cut(self, rng: random.Random) -> tuple[str, tuple[str, ...]]:
        body = form("cut.off", self.contents[rng.choice(list(self.contents))])
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write((head(len(body)) + body)[: rng.randrange(len(body))])
        await asyncio.sleep(rng.random() / 2)
        writer.transport.abort()
        return "cut", ("cut",)


def bomb(megabytes: int) -> bytes:
    """A small archive that unpacks to so many MB of a 3MF model that never ends."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        with archive.open("3D/3dmodel.model", "w") as file:
            file.write(b'<model><resources><object id="1"><mesh><vertices>')
            block = b"<vertex x='0' y='0' z='0'/>" * 37_037
            for _ in range(megabytes):
                file.write(block)
    return packed.getvalue()


def plain(files: list[Path], seconds: float) -> tuple[dict[Path, dict], float]:
    """The command over the files again and again, for some seconds at least: its rows, and files a second."""

    def classify(listing: list[Path]) -> tuple[list[dict], float]:
        start = time.perf_counter()
        done = subprocess.run(
            [*COMMAND, "classify", "-", "--format", "json"],
            input="\n".join(map(str, listing)), capture_output=True, text=True, check=False,
        )  # fmt: skip
        return [json.loads(line) for line in done.stdout.splitlines()], time.perf_counter() - start

    rows, took = classify(files)
    times = 1
    while took < seconds:  # until starting up is a small part of it
        times = max(2 * times, round(1.2 * times * seconds / took))
        took = classify(files * times)[1]
    return dict(zip(files, rows, strict=True)), len(files) * times / took


def memory(parent: int) -> tuple[float, float]:
    """Resident MB of a process, and of it with all that come from it."""
    parents: dict[int, int] = {}
    resident: dict[int, float] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            values = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:  # it has ended meanwhile
            continue
        number = int(values["Pid"])
        parents[number] = int(values["PPid"])
        resident[number] = int(values.get("VmRSS", "0 kB").split()[0]) / 1000
    family = {parent}
    while more := {child for child, of in parents.items() if of in family and child not in family}:
        family |= more
    return resident.get(parent, 0.0), sum(resident.get(member, 0.0) for member in family)


async def storm(load: Load, clients: int, seconds: float, hostile: int, server: int) -> float:
    """Clients and hostile senders at once; the seconds that the clients took."""
    start = time.perf_counter()

    async def watch() -> None:
        while True:
            load.tally.memory.append((time.perf_counter() - start, *await asyncio.to_thread(memory, server)))
            await asyncio.sleep(1)

    async def attack() -> None:
        async def later(number: int) -> None:
            await asyncio.sleep(seconds * number / max(hostile, 1))
            await load.hostile(number)

        await asyncio.gather(*map(later, range(hostile)))

    watching = asyncio.create_task(watch())
    attacking = asyncio.create_task(attack())
    await asyncio.gather(*(load.client(number, start + seconds) for number in range(clients)))
    took = time.perf_counter() - start
    await attacking
    watching.cancel()
    return took


def report(tally: Tally, took: float, plain_rate: float) -> dict[str, Any]:
    """Names and values."""
    centiles = statistics.quantiles(tally.seconds, n=100)
    quarter = max(1, len(tally.memory) // 4)
    own, all_of_it = ([entry[k] for entry in tally.memory] for k in (1, 2))

    def quarters(sizes: list[float]) -> list[int]:
        return [round(statistics.mean(sizes[start : start + quarter])) for start in range(0, 4 * quarter, quarter)]

    rate = len(tally.seconds) / took
    return {
        "requests answered": len(tally.seconds),
        "requests a second": round(rate, 1),
        "files a second of the plain command": round(plain_rate, 1),
        "ratio": round(rate / plain_rate, 2),
        **{f"p{p}, s": round(centiles[p - 1], 3) for p in (50, 95, 99)},
        "told to come again (503)": tally.again,
        "sent again, an idle connection was closed": tally.resent,
        "wrong": len(tally.wrong),
        "MB of the server, by quarters of the time": quarters(own),
        "MB with its readers, by quarters of the time": quarters(all_of_it),
        "MB at most, of the server and with its readers": [round(max(own)), round(max(all_of_it))],
        "worked on when it was told to end, and answered": tally.ended_at,
        **{f"hostile, {kind}": count for kind, count in sorted(tally.hostile.items())},
    }


def main(
    clients: Annotated[int, typer.Option(min=1)] = 200,
    seconds: Annotated[float, typer.Option(min=1)] = 60,
    hostile: Annotated[int, typer.Option(min=0)] = 500,
    files: Annotated[Path, typer.Option(help="A folder; its files of less than 300 kB are sent.")] = EXAMPLES,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Exit code 1: something was lost, mixed up or wrong, or the server did not end well."""
    small = [path for path in sorted(files.iterdir()) if path.suffix.lower() in READERS and path.stat().st_size < _LARGEST]
    expected, before = plain(small, seconds / 4)
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [*COMMAND, "serve", "--port", "0"],
            env=os.environ | {"TMPDIR": folder}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert server.stdout is not None
        found = re.search(r":(\d+)/", server.stdout.readline())
        if found is None:
            raise SystemExit(server.communicate()[1])

        async def whole() -> float:
            load = Load(int(found[1]), small, expected, tally)
            took = await storm(load, clients, seconds, hostile, server.pid)
            await load.end(server)
            return took

        used = time.process_time()
        took = asyncio.run(whole())
        used = time.process_time() - used
        said = server.communicate(timeout=120)[1]
        left = [str(path) for path in Path(folder).glob("pointcentroid-*")]
    after = plain(small, seconds / 4)[1]
    values = report(tally, took, (before + after) / 2) | {
        "files a second of the plain command, before and after": [round(before, 1), round(after, 1)],
        "CPU seconds of the clients": round(used, 1),
    }
    table = Table(f"{clients} clients, {seconds:g} s, {len(small)} files", "", box=None)
    for name, value in values.items():
        table.add_row(name, str(value))
    Console().print(table)
    if server.returncode or said or left:
        tally.wrong.append(f"it ended with {server.returncode}, {said!r}, and left {left}")
    own = values["MB of the server, by quarters of the time"]
    if own[3] > _GROWTH * own[1]:
        tally.wrong.append(f"its memory grew: {own} MB")
    for problem in tally.wrong[:10]:
        typer.secho(problem, fg="red", err=True)
    if json_file:
        json_file.write_text(json.dumps(values, indent=1))
    raise typer.Exit(bool(tally.wrong))


if __name__ == "__main__":
    typer.run(main)
