"""Downloads from a server of our own."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pointcentroid.data.download import download, part_of
from pointcentroid.errors import DataError

from ..test_cli import run
from .prepared import prepare, zipped


class Server:
    """An HTTP server on the loopback that serves one content, with ranges if asked to, and may break off."""

    def __init__(self, content: bytes) -> None:
        self.content, self.ranges, self.stop_after = content, True, -1
        self.requests: list[str | None] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                outer.requests.append(asked)
                if self.path != "/it.zip":
                    self.send_error(404)
                    return
                start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and outer.ranges else 0
                if start >= len(outer.content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(outer.content)}")
                    self.end_headers()
                    return
                body = outer.content[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if outer.stop_after < 0 else body[: outer.stop_after])

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/it.zip"


@pytest.fixture
def server(tree: Path, tmp_path: Path) -> Iterator[Server]:
    served = Server(zipped(tree, tmp_path / "served.zip").read_bytes())
    yield served
    served.server.shutdown()


class TestDownload:
    def test_the_command_downloads_and_prepares(self, server: Server, tmp_path: Path) -> None:
        digest = hashlib.sha256(server.content).hexdigest()
        dead = server.url.replace("it.zip", "gone.zip")
        more = ["--download", "--mirror", dead, "--mirror", server.url, "--sha256", digest]
        assert prepare("mynet", tmp_path / "data", *more)["shapes"] == 15
        assert (tmp_path / "mynet.zip").read_bytes() == server.content

    def test_a_broken_connection_is_resumed(self, server: Server, tmp_path: Path) -> None:
        server.stop_after = 1000
        with pytest.raises(DataError, match="ended after 1,000 of"):
            download([server.url], tmp_path / "it.zip")
        assert not (tmp_path / "it.zip").exists()
        server.stop_after = -1
        assert download([server.url], tmp_path / "it.zip").read_bytes() == server.content
        assert server.requests == [None, "bytes=1000-"]

    def test_a_server_without_ranges_sends_all_of_it_again(self, server: Server, tmp_path: Path) -> None:
        part_of(tmp_path / "it.zip", server.url).write_bytes(server.content[:500])
        server.ranges = False
        assert download([server.url], tmp_path / "it.zip").read_bytes() == server.content

    def test_a_part_that_is_whole_is_recognised(self, server: Server, tmp_path: Path) -> None:
        part_of(tmp_path / "it.zip", server.url).write_bytes(server.content)
        assert download([server.url], tmp_path / "it.zip").read_bytes() == server.content
        part_of(tmp_path / "too_long.zip", server.url).write_bytes(server.content + b"x")
        assert download([server.url], tmp_path / "too_long.zip").read_bytes() == server.content

    def test_what_is_there_is_checked_too(self, server: Server, tmp_path: Path) -> None:
        digest = hashlib.sha256(server.content).hexdigest()
        (tmp_path / "it.zip").write_bytes(server.content)
        assert download([server.url], tmp_path / "it.zip", sha256=digest.upper()).read_bytes() == server.content
        with pytest.raises(DataError, match=f"is there, and its sha256 is {digest}"):
            download([server.url], tmp_path / "it.zip", sha256="0" * 64)
        assert (tmp_path / "it.zip").read_bytes() == server.content, "somebody's file"
        assert server.requests == []

    def test_one_mirror_does_not_go_on_with_what_another_began(self, server: Server, tmp_path: Path) -> None:
        other = server.url.replace("it.zip", "gone.zip")
        part_of(tmp_path / "it.zip", other).write_bytes(b"x" * 500)
        assert download([other, server.url], tmp_path / "it.zip").read_bytes() == server.content
        assert server.requests[-1] is None, "all of it was asked for"
        assert [path.name for path in tmp_path.glob("it.zip*")] == ["it.zip"]

    def test_an_archive_that_is_damaged_is_thrown_away(self, server: Server, tmp_path: Path) -> None:
        middle = len(server.content) // 2
        server.content = server.content[:middle] + bytes([server.content[middle] ^ 255]) + server.content[middle + 1 :]
        with pytest.raises(DataError, match="the archive that came is damaged"):
            download([server.url], tmp_path / "it.zip")
        assert list(tmp_path.glob("it.zip*")) == []

    @pytest.mark.parametrize("address", ["not-an-address", "http://a..b/x.zip", "ftp://"])
    def test_what_is_no_address_is_one_line(self, address: str, tmp_path: Path) -> None:
        done = run("data", "prepare", "mine", "--to", tmp_path / "x", "--download", "--mirror", address)
        assert done.returncode == 2
        assert done.stderr.startswith("error: no mirror delivered mine.zip")

    def test_the_wrong_content_is_refused_and_thrown_away(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="its sha256 is"):
            download([server.url], tmp_path / "it.zip", sha256="0" * 64)
        server.content = b"<html>moved</html>"
        with pytest.raises(DataError, match="no zip archive, it begins with b'<html>"):
            download([server.url], tmp_path / "it.zip")
        assert list(tmp_path.glob("it.zip*")) == []

    def test_an_unknown_name_needs_a_mirror(self, tmp_path: Path) -> None:
        done = run("data", "prepare", "modelnet4", "--to", tmp_path / "x", "--download")
        assert done.returncode == 2
        assert "did you mean 'modelnet4" in done.stderr
