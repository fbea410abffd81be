"""A server as clients meet it: a real process on a free port of the loopback, spoken to by plain HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

from ..conftest import EXAMPLES, until
from ..test_cli import COMMAND

SERVE = [*COMMAND, "serve"]


def form(*files: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """A body and its headers."""
    boundary = "a-boundary-that-is-in-no-file"
    parts = [
        b'--%b\r\nContent-Disposition: form-data; name="files"; filename="%b"\r\n\r\n%b\r\n'
        % (boundary.encode(), name.encode().replace(b'"', b'\\"'), content)
        for name, content in files
    ]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def opening(body: bytes, headers: dict[str, str]) -> bytes:
    """The head of a request whose body follows."""
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    return f"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode()


class Answer:
    """A response, with what holds for every one of them checked."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()
        assert self.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in self.headers["Content-Security-Policy"]
        assert not [name for name in self.headers if name.lower().startswith("access-control")]
        assert b"Traceback" not in self.body

    @property
    def json(self):
        return json.loads(self.body)


def answered(connection: socket.socket) -> Answer:
    """What comes back on a connection that a request was written to by hand."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return Answer(response)


class Server:
    """A server process with a temporary folder of its own."""

    def __init__(self, folder: Path, *options: object) -> None:
        self.folder = folder
        environment = os.environ | {"TMPDIR": str(folder)}
        self.process = subprocess.Popen(
            [*SERVE, "--port", "0", *map(str, options)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, line + self.process.communicate()[1]
        self.port = int(found[1])

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def classify(self, *files: tuple[str, bytes], query: str = "") -> Answer:
        return self.ask("POST", f"/classify{query}", *form(*files))

    def health(self) -> dict:
        return self.ask("GET", "/health").json

    def held(self) -> list[Path]:
        """What lies in its private folders; those of Python's own processes aside."""
        return [path for top in self.folder.glob("pointcentroid-*") for path in top.rglob("*")]

    def settle(self) -> None:
        """Wait until nothing is being worked on."""
        until(lambda: not self.health()["requests"] and not self.held())

    def end(self, how: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(how)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


CHAIR = (EXAMPLES / "chair.off").read_bytes()
