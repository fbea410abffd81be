"""What is too much is refused, and what is refused costs little."""

from __future__ import annotations

import asyncio
import http.client
import io
import resource
import socket
import stat
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pointcentroid.serve import engine as engine_module
from pointcentroid.serve.limits import ServeSettings

from ..conftest import until
from .client import CHAIR, Answer, Server, answered, form, opening

FORM = "multipart/form-data; boundary=b"


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


@pytest.mark.parametrize(("size", "listed"), [(255_000, True), (257_000, False)])
def test_long_archives_count_as_large_unopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, listed: bool
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(engine_module, "unpacked_size", lambda path: opened.append(path) or 0)
    (tmp_path / "a.3mf").write_bytes(bytes(size))
    assert asyncio.run(engine_module._is_large(tmp_path / "a.3mf")) != listed
    assert bool(opened) == listed


def test_settings_are_checked() -> None:
    from pointcentroid.errors import ConfigError

    with pytest.raises(ConfigError, match="queue must be positive"):
        ServeSettings(queue=0)
