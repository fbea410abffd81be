"""The server answers as the command does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pointcentroid.io import READERS
from pointcentroid.serve.pages import examples
from pointcentroid.serve.uploads import clean_name

from ..conftest import EXAMPLES
from ..test_cli import run
from .client import CHAIR, Server, form

FILES = sorted(path for path in EXAMPLES.rglob("*") if path.suffix in READERS)


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
