"""The server as clients meet it: a real process on a free port of the loopback, spoken to by plain HTTP and by a browser."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import io
import itertools
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import EXAMPLES, watched_pages
from .doubles import make_double
from .meshes import direction
from .test_cli import COMMAND, run

pytest.importorskip("fastapi")
import uvicorn

import pointcentroid as pc
from pointcentroid.io import READERS
from pointcentroid.predict.limited import CrashError, LimitedProcess, OverrunError
from pointcentroid.serve import engine as engine_module
from pointcentroid.serve.limits import RefusalError, ServeSettings
from pointcentroid.serve.pages import examples
from pointcentroid.serve.patience import Body, patient_protocol
from pointcentroid.serve.uploads import clean_name
from pointcentroid.serve.workers import WorkerPool

SERVE = [*COMMAND, "serve"]
FILES = sorted(path for path in EXAMPLES.rglob("*") if path.suffix in READERS)


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


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.02)


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


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("serve"), "--workers", 2)
    yield server
    server.settle()
    code, said = server.end()
    assert (code, said) == (0, "")
    assert list(server.folder.glob("pointcentroid-*")) == []


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers = []

    def start(*options: object) -> Server:
        servers.append(Server(tmp_path, "--workers", 1, *options))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


@pytest.fixture(scope="module")
def expected() -> dict[str, dict]:
    """The command's rows for the examples, by file name."""
    done = run("classify", *FILES, "--format", "json", "--top", 3)
    assert done.returncode == 0, done.stderr
    return {(row := json.loads(line) | {}).pop("file").rpartition("/")[2]: row for line in done.stdout.splitlines()}


def same(row: dict, command: dict) -> bool:
    """Whether a row is the command's, up to the rounding of another batch."""
    exact = [key for key in command if key not in ("confidence", "top", "known")]
    return (
        [row[key] for key in exact] == [command[key] for key in exact]
        and row["known"] == pytest.approx(command["known"], abs=1e-3)
        and row["confidence"] == pytest.approx(command["confidence"], abs=1e-4)
        and dict(row["top"][:1]) == pytest.approx(dict(command["top"][:1]), abs=1e-4)
        and len(row["top"]) == len(command["top"])
    )


@pytest.fixture(scope="module")
def large() -> bytes:
    """A cloud that takes seconds to read."""
    rng = np.random.default_rng(0)
    lines = [f"{x:.5f} {y:.5f} {z:.5f}" for x, y, z in rng.normal(size=(20_000, 3))]
    return ("\n".join(lines) + "\n").encode() * 100


CHAIR = (EXAMPLES / "chair.off").read_bytes()
FORM = "multipart/form-data; boundary=b"


class TestClassify:
    def test_every_example_gets_the_commands_answer(self, server: Server, expected: dict[str, dict]) -> None:
        """All in one request, and each in one of its own."""
        assert len(expected) == len(FILES) >= 17
        answer = server.classify(*((path.name, path.read_bytes()) for path in FILES), query="?top=3")
        assert answer.status == 200
        assert [row["file"] for row in answer.json] == [path.name for path in FILES]
        for path, row in zip(FILES, answer.json, strict=True):
            assert set(row) == {"file", *expected[path.name]}
            assert same(row, expected[path.name]), path.name
        for path in FILES[:5]:
            (row,) = server.classify((path.name, path.read_bytes()), query="?top=3").json
            assert same(row, expected[path.name])

    def test_queries_mean_what_the_options_mean(self, server: Server) -> None:
        command = json.loads(
            run("classify", EXAMPLES / "chair.off", "--up", "x", "--votes", 3, "--top", 2, "--format", "json").stdout
        )
        (row,) = server.classify(("chair.off", CHAIR), query="?up=x&votes=3&top=2").json
        assert same(row, command | {"file": "chair.off"})
        for query in ("up=w", "votes=11", "votes=0", "top=0", "top=41", "top=x"):
            answer = server.classify(("chair.off", CHAIR), query=f"?{query}")
            assert answer.status == 422
            assert answer.json["error"].startswith(query.partition("=")[0])
        answer = server.classify(("chair.off", CHAIR), query="?tops=3")
        says = "no parameter 'tops' (did you mean 'top'?); there are up, top, votes"
        assert (answer.status, answer.json) == (422, {"error": says})
        assert server.ask("GET", "/?from=elsewhere").status == 200, "a link to the page may carry anything"

    def test_a_broken_file_is_a_row_with_the_commands_reason(self, server: Server, tmp_path: Path) -> None:
        broken = {
            "bad.off": b"OFF\n8 6 12\n0 0 zero\n",
            "cut.ply": (EXAMPLES / "vase.ply").read_bytes()[:1000],
            "empty.obj": b"",
            "wrong.stl": CHAIR,
            "no.xyz2": CHAIR,
            "outside.gltf": json.dumps(
                {
                    "asset": {"version": "2.0"},
                    "buffers": [{"uri": "../../../../etc/passwd", "byteLength": 9}],
                    "bufferViews": [{"buffer": 0, "byteLength": 9}],
                    "accessors": [{"bufferView": 0, "componentType": 5126, "count": 1, "type": "VEC3"}],
                    "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
                    "nodes": [{"mesh": 0}],
                }
            ).encode(),
        }
        for name, content in broken.items():
            (tmp_path / name).write_bytes(content)
        done = run("classify", *(tmp_path / name for name in broken), "--format", "json")
        reasons = [json.loads(line)["error"] for line in done.stdout.splitlines()]
        answer = server.classify(*broken.items(), ("chair.off", CHAIR))
        assert answer.status == 200
        assert answer.json[:-1] == [{"file": name, "error": reason} for name, reason in zip(broken, reasons, strict=True)]
        assert "outside its own folder" in reasons[-1]
        assert answer.json[-1]["label"] == "chair"
        assert str(server.folder) not in answer.body.decode()

    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ("../../../tmp/evil.off", "evil.off"),
            ("/etc/passwd.off", "passwd.off"),
            ("C:\\temp\\evil.off", "evil.off"),
            ("a\u202eb\x07.off", "ab.off"),
            ("<img src=x onerror=alert(1)>.off", "<img src=x onerror=alert(1)>.off"),
            ("größe 1.off", "größe 1.off"),
            ("x" * 3000 + ".off", "x" * 116 + ".off"),
        ],
    )
    def test_names_are_never_paths(self, server: Server, given: str, shown: str) -> None:
        answer = server.classify((given, CHAIR))
        assert answer.headers["Content-Type"] == "application/json"
        assert (answer.json[0]["file"], answer.json[0]["label"]) == (shown, "chair")
        assert not list(server.folder.rglob(f"*{shown[-6:]}"))
        assert not Path("/tmp/evil.off").exists()

    def test_a_name_of_nothing_is_unnamed(self) -> None:
        assert [clean_name(name) for name in ("", "..", "a/..", "/", "\n")] == ["unnamed"] * 5

    def test_concurrent_clients_get_their_own_answers(self, server: Server, expected: dict[str, dict]) -> None:
        def client(number: int) -> None:
            rng = np.random.default_rng(number)
            for turn in range(6):
                path = FILES[rng.integers(len(FILES))]
                name = f"{number}-{turn}{path.suffix}"
                (row,) = server.classify((name, path.read_bytes()), query="?top=3").json
                assert row["file"] == name
                assert same(row, expected[path.name])

        with ThreadPoolExecutor(12) as clients:
            list(clients.map(client, range(12)))
        server.settle()


@pytest.fixture(scope="module")
def confidence() -> float:
    """How sure the predictor is of the example that is sent."""
    return pc.load("small", "cpu")(EXAMPLES / "chair.off").confidence


class TestExplain:
    def test_it_is_the_page_of_view(self, server: Server, confidence: float, tmp_path: Path) -> None:
        path = tmp_path / "chair.html"
        assert run("view", EXAMPLES / "chair.off", "--html", path).returncode == 0
        answer = server.ask("POST", "/explain", *form(("<b>chair.off", CHAIR)))
        assert answer.status == 200
        assert "sandbox allow-scripts" in answer.headers["Content-Security-Policy"]
        assert "allow-same-origin" not in answer.headers["Content-Security-Policy"]
        text = answer.body.decode()
        assert f"<title>&lt;b&gt;chair.off: chair {confidence:.0%}</title>" in text
        # The scripts are the same; so is the data but for the title.
        assert text[text.index('<script id="plotly"') :] == path.read_text()[path.read_text().index('<script id="plotly"') :]

    def test_what_cannot_be_read_is_said(self, server: Server) -> None:
        answer = server.ask("POST", "/explain", *form(("bad.off", b"OFF\n8 6 12\n0 0 zero\n")))
        assert (answer.status, set(answer.json)) == (422, {"file", "error"})
        body, headers = form(("<b>.off", b""))
        answer = server.ask("POST", "/explain", body, headers | {"Accept": "text/html"})
        assert b"empty file" in answer.body
        assert b"<b>" not in answer.body
        answer = server.ask("POST", "/explain", *form(("a.off", CHAIR), ("b.off", CHAIR)))
        assert (answer.status, answer.json) == (413, {"error": "more than 1 file; send fewer at once"})

    def test_without_torch_it_says_what_to_install(
        self, another: Callable[..., Server], tmp_path: Path, monkeypatch
    ) -> None:
        """The server itself needs none."""
        hide = tmp_path / "hide"
        hide.mkdir()
        (hide / "sitecustomize.py").write_text("import sys; sys.modules['torch'] = None; sys.modules['plotly'] = None")
        monkeypatch.setenv("PYTHONPATH", str(hide))
        server = another()
        assert server.classify(("chair.off", CHAIR)).json[0]["label"] == "chair"
        assert not server.health()["explains"]
        answer = server.ask("POST", "/explain", *form(("chair.off", CHAIR)))
        assert answer.status == 501
        assert "pip install 'pointcentroid[view]'" in answer.json["error"]


class TestLimits:
    def test_more_than_the_upload_limit_is_413(self, another: Callable[..., Server]) -> None:
        server = another("--upload-mb", 1)
        most = CHAIR + b"#" * (999_000 - len(CHAIR))
        assert server.classify(("chair.off", most)).json[0]["label"] == "chair"
        body, headers = form(("chair.off", CHAIR + b"#" * 1_000_000))
        answer = server.ask("POST", "/classify", body, headers)
        assert (answer.status, answer.json) == (413, {"error": "more than 1 MB; send less at once"})
        # Chunked, it declares no length: it is counted as it comes.
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        chunks = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
        connection.request("POST", "/classify", chunks, headers, encode_chunked=True)
        assert Answer(connection.getresponse()).status == 413
        server.settle()
        assert server.health()["held_bytes"] == 0

    @pytest.mark.parametrize("size", [1, 5_000_000])
    def test_a_refusal_arrives_however_much_is_sent(self, server: Server, size: int) -> None:
        answer = server.ask("POST", "/classify", bytes(size), {"Content-Type": "application/octet-stream"})
        assert answer.status == 415
        answer = server.ask("POST", "/classify", bytes(size), {"Content-Type": "multipart/form-data; boundary=b"})
        assert answer.status == 400

    def test_who_asks_first_gets_the_refusal_too(self, server: Server) -> None:
        """As curl does: the head, then a wait, then 3 MB of too many files."""
        body, headers = form(*[("a.off", CHAIR + b"#" * 30_000)] * 110)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.settimeout(30)
            connection.sendall(opening(body, headers | {"Expect": "100-continue"}))
            assert connection.recv(4096).startswith(b"HTTP/1.1 100")
            connection.sendall(body)
            answer = answered(connection)
        assert (answer.status, "more than 100 files" in answer.json["error"]) == (413, True)

    def test_a_full_disk_is_503(self, another: Callable[..., Server]) -> None:
        """A limit on the size of files stands for the disk."""
        server = another()
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
        for size in (60_000, 3_000_000):  # more than a buffer holds, or less
            answer = server.classify(("chair.off", CHAIR + b"#" * size))
            assert answer.status == 503
            assert "cannot keep the file" in answer.json["error"]
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert server.classify(("chair.off", CHAIR)).json[0]["label"] == "chair"
        server.settle()
        assert server.health()["held_bytes"] == 0

    def test_a_folder_that_is_gone_or_full_costs_no_place(self, another: Callable[..., Server]) -> None:
        server = another("--queue", 2)
        (private,) = server.folder.glob("pointcentroid-*")
        private.rmdir()
        assert server.classify(("chair.off", CHAIR)).json[0]["label"] == "chair"
        server.settle()
        (private,) = server.folder.glob("pointcentroid-*")
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        private.rmdir()
        private.touch()  # no folder can be made in it
        for _ in range(4):
            answer = server.classify(("chair.off", CHAIR))
            assert answer.status == 503
            assert "cannot keep the file" in answer.json["error"]
        private.unlink()
        assert server.classify(("chair.off", CHAIR)).json[0]["label"] == "chair"

    @pytest.mark.parametrize(
        ("sent", "name"),
        [
            (b"filename*=UTF-8''ch%C3%A4ir.off", "chäir.off"),
            (b"filename*=iso-8859-1'en'ch%E4ir.off", "chäir.off"),
            (b"filename*=no-such''ch%E4ir.off", "chäir.off"),
            (b"filename*=undefined''ch%E4ir.off", "chäir.off"),
            (b"filename*=\"utf-8''chair.off\"", "unnamed"),
            (b'filename="6%22 100%25.off"', '6" 100%25.off'),
        ],
    )
    def test_a_name_may_be_encoded(self, server: Server, sent: bytes, name: str) -> None:
        body, headers = form(("chair.off", CHAIR))
        (row,) = server.ask("POST", "/classify", body.replace(b'filename="chair.off"', sent), headers).json
        assert row["file"] == name
        assert row.get("label") == ("chair" if name.endswith(".off") else None)

    def test_a_field_is_no_file_whatever_it_is_called(self, server: Server) -> None:
        body, headers = form(("chair.off", CHAIR))
        field = b"form-data; name=\"; filename*=utf-8''evil.off\""
        answer = server.ask(
            "POST", "/classify", body.replace(b'form-data; name="files"; filename="chair.off"', field), headers
        )
        assert (answer.status, "holds no file" in answer.json["error"]) == (400, True)

    def test_too_many_files_or_fields(self, server: Server) -> None:
        assert server.classify(*[("a.off", CHAIR)] * 101).status == 413
        fields = b"".join(b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n' for _ in range(30)) + b"--b--\r\n"
        answer = server.ask("POST", "/classify", fields, {"Content-Type": "multipart/form-data; boundary=b"})
        assert (answer.status, "fields" in answer.json["error"]) == (400, True)

    def test_reading_that_takes_too_long_is_504_and_nobody_elses_trouble(
        self, another: Callable[..., Server], large: bytes
    ) -> None:
        server = another("--reading-seconds", 0.8)
        with ThreadPoolExecutor(3) as clients:
            slow = clients.submit(server.classify, ("slow.xyz", large))
            time.sleep(0.5)
            others = [clients.submit(server.classify, (f"{n}.off", CHAIR)) for n in range(2)]
            assert [other.result().json[0]["label"] for other in others] == ["chair"] * 2
            answer = slow.result()
        assert (answer.status, answer.json) == (504, {"error": "reading slow.xyz took more than 0.8 s"})
        assert server.classify(("chair.off", CHAIR)).json[0]["label"] == "chair"
        server.settle()
        assert server.end() == (0, "")

    def test_a_full_queue_is_503_with_a_time_to_come_again(self, another: Callable[..., Server]) -> None:
        server = another("--queue", 1)
        body, headers = form(("chair.off", CHAIR))
        with socket.create_connection(("127.0.0.1", server.port)) as first:
            first.sendall(opening(body, headers))
            first.sendall(body[:100])
            until(lambda: server.health()["requests"] == 1)
            answer = server.classify(("chair.off", CHAIR))
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            first.sendall(body[100:])
            assert answered(first).json[0]["label"] == "chair"
        server.settle()
        assert server.classify(("chair.off", CHAIR)).status == 200

    def test_slow_and_cut_connections_hold_nothing(self, server: Server) -> None:
        body, headers = form(("chair.off", CHAIR))
        head = opening(body, headers)
        with socket.create_connection(("127.0.0.1", server.port)) as cut:
            cut.sendall(head + body[: len(body) // 2])
        start = time.monotonic()
        with (
            socket.create_connection(("127.0.0.1", server.port)) as slow_body,
            socket.create_connection(("127.0.0.1", server.port)) as slow_head,
            socket.create_connection(("127.0.0.1", server.port)) as unused,
            socket.create_connection(("127.0.0.1", server.port)) as used,
            socket.create_connection(("127.0.0.1", server.port)) as used_slow_head,
        ):
            for connection in (used, used_slow_head):
                connection.sendall(head + body)
                assert answered(connection).status == 200
            used_slow_head.sendall(head[:20])
            slow_body.sendall(head + body[:10])
            slow_head.sendall(head[:20])
            for connection in (slow_body, slow_head, used_slow_head):
                connection.settimeout(30)
            assert answered(slow_body).status == 408
            assert slow_head.recv(4096) == used_slow_head.recv(4096) == b""
            assert 8 < time.monotonic() - start < 30
            # On which nothing was sent all the while: its client may be as slow as this machine.
            for connection in (unused, used):
                connection.sendall(head + body)
                assert answered(connection).json[0]["label"] == "chair"
        server.settle()

    @pytest.mark.parametrize(
        ("body", "kind", "status"),
        [
            (b"", FORM, 400),
            (b"--b--\r\n", FORM, 400),
            (b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.off"\r\n\r\nOFF', FORM, 400),
            (b'--b\r\nContent-Disposition: form-data; name="f"; filename=""\r\n\r\n\r\n--b--\r\n', FORM, 400),
            (b"garbage", FORM, 400),
            (b"--b\r\n" + b"X: y\r\n" * 100 + b"\r\n\r\n--b--\r\n", FORM, 400),
            (CHAIR, "application/octet-stream", 415),
            (CHAIR, "multipart/form-data", 415),
            (CHAIR, "multipart/form-data; boundary=" + "b" * 5000, 400),
        ],
    )
    def test_what_is_no_form_is_refused(self, server: Server, body: bytes, kind: str, status: int) -> None:
        answer = server.ask("POST", "/classify", body, {"Content-Type": kind})
        assert (answer.status, set(answer.json)) == (status, {"error"})
        assert len(answer.json["error"].splitlines()) == 1

    def test_a_bomb_of_3mf_is_a_row(self, server: Server) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("3D/3dmodel.model", "w") as file:
            file.write(b'<model><resources><object id="1"><mesh><vertices>')
            for _ in range(1100):
                file.write(b"<vertex x='0' y='0' z='0'/>      " * 32768)
        (row,) = server.classify(("bomb.3mf", packed.getvalue())).json
        assert row["error"] == "would unpack to 1189 MB; a server reads at most 128 MB of an archive"

    def test_other_sites_are_refused(self, server: Server) -> None:
        body, headers = form(("chair.off", CHAIR))
        for extra in (
            {"Host": "evil.example"},
            {"Host": ""},
            {"Sec-Fetch-Site": "cross-site"},
            {"Origin": "http://evil.example"},  # all that browsers say to other machines over plain http
            {"Origin": "null"},
        ):
            assert server.ask("POST", "/classify", body, headers | extra).status == 403
        for extra in (
            {"Origin": "http://localhost"},
            {"Origin": "http://LOCALHOST"},
            {"Origin": "https://a.proxy", "Sec-Fetch-Site": "same-origin"},
        ):
            assert server.ask("POST", "/classify", body, headers | {"Host": "localhost"} | extra).status == 200
        for host in ("localhost", "LOCALHOST", "localhost.", f"127.0.0.1:{server.port}", "[::1]:80"):
            assert server.ask("POST", "/classify", body, headers | {"Host": host}).status == 200

    def test_its_folder_is_private(self, server: Server) -> None:
        (folder,) = server.folder.glob("pointcentroid-*")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


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


class TestOtherRoutes:
    def test_models_and_health(self, server: Server) -> None:
        models = {row["name"]: row for row in server.ask("GET", "/models").json}
        assert [name for name, row in models.items() if row["serving"]] == ["small"]
        assert len(models["small"]["classes"]) == 40
        assert server.health()["status"] == "ok"

    def test_the_api_is_described_without_foreign_scripts(self, server: Server) -> None:
        schema = server.ask("GET", "/openapi.json").json
        assert {"/classify", "/explain", "/models", "/health"} <= set(schema["paths"])
        for path in ("/", "/docs"):
            answer = server.ask("GET", path)
            assert answer.status == 200
            assert not re.search(rb"(src|href)=.?(https?:)?//", answer.body)
        assert "unsafe" not in server.ask("GET", "/").headers["Content-Security-Policy"]
        for path in ("/health", "/models", "/examples", "/examples/chair.off", "/docs"):
            head = server.ask("HEAD", path)
            assert (head.status, head.body) == (200, b"")
        assert server.ask("HEAD", "/classify").status == 405
        assert (server.ask("HEAD", "/").status, server.ask("POST", "/health").headers["Allow"]) == (200, "GET")
        assert b"<script" not in server.ask("GET", "/docs").body

    def test_examples_are_those_of_the_clone(self, server: Server) -> None:
        assert server.ask("GET", "/examples").json == list(examples())
        for name, content in examples().items():
            assert server.ask("GET", f"/examples/{name}").body == content == (EXAMPLES / name).read_bytes()
        for path in ("/examples/..%2fpage.html", "/examples/x", "/nothing"):
            assert server.ask("GET", path).status == 404
        assert server.ask("GET", "/classify").status == 405


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


async def both(pool: WorkerPool) -> set[int]:
    """The numbers of its two processes, when both are there."""
    while len(members := set(await asyncio.gather(pool.ask("rest"), pool.ask("rest")))) < 2:
        pass
    return members


def test_a_worker_that_hangs_or_dies_is_replaced() -> None:
    async def main() -> None:
        pool = WorkerPool(make_double, (), 2, seconds=1.5, waiting=60)
        await pool.start()
        try:
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
        finally:
            pool.stop()

    asyncio.run(main())


def test_large_questions_leave_a_worker_free_and_swollen_ones_end() -> None:
    async def main() -> None:
        pool = WorkerPool(make_double, (), 2, seconds=30, waiting=30)
        await pool.start()
        try:
            large = [asyncio.create_task(pool.ask("doze", large=True)) for _ in range(2)]
            await asyncio.sleep(0.2)
            assert [await pool.ask(n) for n in range(20)] == [2 * n for n in range(20)]
            assert not large[1].done(), "one after the other they take ten seconds"
            await asyncio.gather(*large)
            members = await both(pool)
            swollen = await pool.ask("swell")
            assert swollen in members
            assert swollen not in await both(pool)
        finally:
            pool.stop()

    asyncio.run(main())


def test_large_questions_that_nobody_waits_for_cost_no_place() -> None:
    async def main() -> None:
        pool = WorkerPool(make_double, (), 2, seconds=30, waiting=30)
        await pool.start()
        try:
            resting = [asyncio.create_task(pool.ask("doze")) for _ in range(2)]
            await asyncio.sleep(0.2)
            for _ in range(3):  # all processes are busy; who asks leaves before one is idle
                leaving = asyncio.create_task(pool.ask(1, large=True))
                await asyncio.sleep(0.1)
                leaving.cancel()
            await asyncio.gather(*resting)
            pool.waiting = 5
            assert await pool.ask(21, large=True) == 42
        finally:
            pool.stop()

    asyncio.run(main())


@pytest.mark.parametrize(("size", "listed"), [(255_000, True), (257_000, False)])
def test_long_archives_count_as_large_unopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, listed: bool
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(engine_module, "unpacked_size", lambda path: opened.append(path) or 0)
    (tmp_path / "a.3mf").write_bytes(bytes(size))
    assert asyncio.run(engine_module._is_large(tmp_path / "a.3mf")) != listed
    assert bool(opened) == listed


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


def test_the_script_of_pages_is_packed_once(monkeypatch) -> None:
    from pointcentroid.viz import page

    page._plotly.cache_clear()
    packed = []
    compress = gzip.compress
    monkeypatch.setattr(
        gzip, "compress", lambda data, *rest, **more: packed.append(len(data)) or compress(data, *rest, **more)
    )
    assert page.page_text([]) == page.page_text([])
    assert [size > 10**6 for size in packed] == [True, False, False]


def test_settings_are_checked() -> None:
    from pointcentroid.errors import ConfigError

    with pytest.raises(ConfigError, match="queue must be positive"):
        ServeSettings(queue=0)


class TestPage:
    @pytest.fixture
    def opened(self, browser, server: Server) -> Iterator[Callable]:
        address = f"http://127.0.0.1:{server.port}/"
        with watched_pages(browser, (address, "blob:", "data:"), patience=60) as open_page:
            yield lambda width=1100, height=900: open_page(address, width, height)

    @staticmethod
    def drop(page, name: str, content: bytes) -> None:
        """What a browser does when a file is dropped on the field."""
        page.evaluate(
            """([name, bytes]) => {
                const dropped = new DataTransfer();
                dropped.items.add(new File([new Uint8Array(bytes)], name));
                for (const kind of ["dragover", "drop"])
                    document.getElementById("drop").dispatchEvent(
                        new DragEvent(kind, { dataTransfer: dropped, bubbles: true, cancelable: true }));
            }""",
            [name, list(content)],
        )

    def test_a_dropped_mesh_is_named_and_its_cloud_turns_and_answers_clicks(
        self, opened: Callable, confidence: float
    ) -> None:
        page = opened()
        self.drop(page, "chair <i>1.off", CHAIR)
        page.wait_for_selector("article .label", timeout=60_000)
        assert page.inner_text("article .label") == "chair"
        assert page.inner_text("article h2") == "chair <i>1.off"
        assert page.inner_text("#said") == f"chair <i>1.off: chair, {100 * confidence:.0f} %"
        frame = page.frame(name="cloud")
        frame.wait_for_selector("body[data-ready=yes]", timeout=120_000)
        assert frame.inner_text("h1") == f"chair <i>1.off: chair {confidence:.0%}"
        assert frame.evaluate("self.origin") == "null", "the frame is of no origin, and reaches neither page nor server"

        def colours() -> list[str]:
            return frame.evaluate("document.querySelector('#panel-0 .plot').data[0].marker.color")

        assert len(colours()) == 1024
        used = set(pc.load("parts").explain(EXAMPLES / "chair.off").stages[-1].hard.tolist())
        assert len(set(colours())) == len(used) > 4, "a colour for every centroid that takes most of a point"
        before = colours()
        frame.locator(".plot").scroll_into_view_if_needed()
        page.wait_for_timeout(1500)
        box = frame.locator(".plot").bounding_box()

        def spot() -> tuple[float, float, np.ndarray]:
            """The middle of something at least nine pixels wide in the plot: a centroid."""
            image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            values = np.asarray(image).astype(int)
            hued = values.max(axis=2) - values.min(axis=2) > 70
            inside = np.zeros_like(hued)
            x, y = int(box["x"]), int(box["y"])
            inside[y + 5 : y + int(box["height"]) - 5, x + 5 : x + int(box["width"]) - 5] = True
            solid = hued & inside
            for shift, axis in itertools.product(range(-4, 5), (0, 1)):
                solid &= np.roll(hued & inside, shift, axis)
            spots = np.argwhere(solid)
            row, column = spots[len(spots) // 2]
            return float(column), float(row), values

        x, y, still = spot()
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 80, y + 10, steps=4)
        page.mouse.up()
        page.wait_for_timeout(800)
        x, y, turned = spot()
        assert (np.abs(turned - still).max(axis=2) > 40).mean() > 0.01, "a drag turns the cloud"
        assert colours() == before

        def clicked() -> bool:
            """Without a graphics card, it takes a moment until the plot knows what is under the pointer."""
            page.mouse.move(x, y)
            page.mouse.move(x + 1, y)
            until(lambda: frame.locator(".hovertext").count() > 0)
            page.mouse.down()
            page.wait_for_timeout(400)
            page.mouse.up()
            page.wait_for_timeout(1000)
            return frame.input_value("#picked") != ""

        until(clicked, 40)
        assert colours() != before, "a click lights one centroid up"

    def test_a_broken_file_shows_its_reason(self, opened: Callable, server: Server) -> None:
        page = opened()
        bad = b"OFF\n8 6 12\n0 0 zero\n"
        self.drop(page, "bad.off", bad)
        page.wait_for_selector("article .problem", timeout=60_000)
        assert page.inner_text("article .problem") == server.classify(("bad.off", bad)).json[0]["error"]
        assert page.inner_text("#said") == "bad.off could not be classified"
        assert page.query_selector("iframe") is None
        page.set_input_files("#files", [EXAMPLES / "chair.off", EXAMPLES / "lamp.glb"])
        until(lambda: page.locator("article .label").count() == 2, 60)
        assert page.locator("article .label").all_inner_texts() == ["chair", "lamp"]
        assert page.inner_text("#said") == "2 of 2 classified"

    def test_the_cloud_of_a_shape_that_leans_is_shown(
        self, opened: Callable, leaning_chair: tuple[Path, np.ndarray]
    ) -> None:
        path, rotation = leaning_chair
        page = opened()
        self.drop(page, "leans.off", path.read_bytes())
        page.wait_for_selector("article .label", timeout=60_000)
        assert page.inner_text("article .label") == "chair"
        up = re.search(r"up: ([-0-9.,]+), 1024 points", page.inner_text("article"))[1]
        np.testing.assert_allclose(direction(up), rotation[:, 2], atol=0.03)
        page.frame(name="cloud").wait_for_selector("body[data-ready=yes]", timeout=120_000)
        assert page.frame(name="cloud").inner_text("h1") == page.inner_text("#said").replace(
            ": chair, ", ": chair "
        ).replace(" %", "%")

    def test_by_keyboard_at_420_pixels(self, opened: Callable) -> None:
        page = opened(420, 860)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "files"
        names = [button.get_attribute("aria-label") for button in page.query_selector_all("#examples button")]
        assert names == [f"Try the example {name}" for name in examples()]
        for _ in range(2):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == names[0]
        page.keyboard.press("Enter")
        page.wait_for_selector("article .label", timeout=60_000)
        assert page.inner_text("article .label") == "chair"
        assert page.get_attribute("#said", "aria-live") == "polite"
        frame = page.frame(name="cloud")
        frame.wait_for_selector("body[data-ready=yes]", timeout=120_000)
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert frame.evaluate("document.querySelector('.said').getBoundingClientRect().bottom <= innerHeight")
        controls = page.query_selector_all("input, select, button, iframe")
        named = "e => (e.labels?.length && e.labels[0].innerText.trim()) || e.ariaLabel || e.title || e.innerText"
        assert all(control.evaluate(named) for control in controls)
