"""Weights that travel: to a hub and back, against a server on this machine that speaks what huggingface_hub asks."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import pointcentroid as pc
from pointcentroid.export.hub import model_card
from pointcentroid.weights import read_card, shipped_weights

from .conftest import EXAMPLES


class Hub(BaseHTTPRequestHandler):
    """A hub that holds repositories in memory: {name: [{file: content}, ...]}, a dict for each commit."""

    repositories: dict[str, list[dict[str, bytes]]]
    address: str

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        owner, name, *rest = self.path.split("?")[0].strip("/").split("/")
        commits = self.repositories.get(f"{owner}/{name}")
        if commits is None:
            return self.answer(404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        _, revision, file = rest
        numbers = {"main": len(commits) - 1} | {commit_id(n): n for n in range(len(commits))}
        if revision not in numbers:
            return self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        content = commits[numbers[revision]].get(file)
        commit = commit_id(numbers[revision])
        if content is None:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found", X_Repo_Commit=commit)
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return self.answer(200, content, ETag=etag, X_Repo_Commit=commit, Content_Length=str(len(content)))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":  # of a model card
            return self.answer(200, b'{"errors": [], "warnings": []}')
        if self.headers.get("Authorization") != "Bearer secret":
            return self.answer(401, b'{"error": "Invalid username or password."}')
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            repository = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.repositories.setdefault(
                repository, [{".private": b""} if asked.get("private") or asked.get("visibility") == "private" else {}]
            )
            return self.answer(200, json.dumps({"url": f"{self.address}/{repository}"}).encode())
        repository = "/".join(parts[2:4])
        if parts[4] == "preupload":
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]
            return self.answer(200, json.dumps({"files": files}).encode())
        lines = [json.loads(line) for line in body.decode().splitlines()]
        made = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"}
        gone = {line["value"]["path"] for line in lines if line["key"] == "deletedFile"}
        held = self.repositories[repository][-1]
        if gone - held.keys():
            return self.answer(400, b'{"error": "A file to delete is not there."}')
        before = {name: content for name, content in held.items() if name not in gone}
        self.repositories[repository].append(before | made | {".revision": parts[5].encode()})
        number = commit_id(len(self.repositories[repository]) - 1)
        url = f"{self.address}/{repository}/commit/{number}"
        reply = {"success": True, "commitOid": number, "commitUrl": url, "hookOutput": ""}
        return self.answer(200, json.dumps(reply).encode())


def commit_id(number: int) -> str:
    return f"{number:040x}"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[dict[str, list[dict[str, bytes]]], dict[str, str]]]:
    """Repositories, and the environment of a person who uses them."""
    handler = type("Own", (Hub,), {"repositories": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    handler.address = address = f"http://127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    more = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "secret", "HF_HUB_DISABLE_XET": "1"}
    yield handler.repositories, {**os.environ, **more}  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def run(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pointcentroid", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_weights_travel_to_a_hub_and_back(hub) -> None:
    repositories, environment = hub
    done = run(environment, "push", "tiny", "me/net")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{environment['HF_ENDPOINT']}/me/net/commit/{commit_id(1)}"
    held = repositories["me/net"][-1]
    path = shipped_weights()["tiny"]
    assert held["model.safetensors"] == path.read_bytes()
    assert held["model.onnx"] == path.with_suffix(".onnx").read_bytes()
    assert held["README.md"].decode() == model_card(read_card(path), "me/net")

    expected = pc.load("tiny")(EXAMPLES / "chair.off")
    for address, commit in (("hf://me/net", 1), (f"hf://me/net@{commit_id(1)}", 1)):
        done = run(environment, "classify", EXAMPLES / "chair.off", "--weights", address, "--format", "json")
        assert done.returncode == 0, done.stderr
        row = json.loads(done.stdout)
        assert (row["label"], row["confidence"]) == (expected.label, expected.confidence)
        assert done.stderr.count(f"{address}: revision {commit_id(commit)}") == 1


def test_a_repository_is_private_and_a_branch_is_written_to_where_that_is_asked_for(hub) -> None:
    repositories, environment = hub
    for more, private, branch in ((("--private", "--revision", "v2"), True, b"v2"), ((), False, b"main")):
        name = f"me/{branch.decode()}"
        done = run(environment, "push", "tiny", name, *more)
        assert done.returncode == 0, done.stderr
        assert (".private" in repositories[name][-1], repositories[name][-1][".revision"]) == (private, branch)


def test_what_cannot_be_put_on_a_hub_makes_nothing_there(hub) -> None:
    repositories, environment = hub
    for name in ("net", "hf://me/net", "a/b/c", "me/"):
        done = run(environment, "push", "tiny", name)
        assert done.returncode == 2
        assert f"expected OWNER/NAME, found {name!r}" in done.stderr
    without = {key: value for key, value in environment.items() if key != "HF_TOKEN"}
    assert "you are not logged in" in run(without, "push", "tiny", "me/net").stderr
    assert not repositories


def test_no_graph_of_other_weights_stays(hub, tmp_path: Path) -> None:
    repositories, environment = hub
    own = tmp_path / "own.safetensors"
    own.write_bytes(shipped_weights()["tiny"].read_bytes())
    for weights, held in (("tiny", True), (own, False), (own, False)):
        done = run(environment, "push", weights, "me/net")
        assert done.returncode == 0, done.stderr
        assert ("model.onnx" in repositories["me/net"][-1]) == held
    own.with_suffix(".onnx").write_bytes(shipped_weights()["small"].with_suffix(".onnx").read_bytes())
    run(environment, "push", own, "me/net")
    assert "model.onnx" not in repositories["me/net"][-1], "nor does one come that only stands beside the weights"

    address = f"hf://me/net@{commit_id(1)}"
    done = run(environment, "classify", EXAMPLES / "chair.off", "--weights", address)
    assert done.returncode == 0, done.stderr
    fetched = {path.name for path in (tmp_path / "hf").glob(f"**/snapshots/{commit_id(1)}/*")}
    assert fetched == {"model.safetensors", "model.onnx"}, "the graph is of the revision that was asked for"


def test_a_model_card_says_what_the_weights_say() -> None:
    card = read_card(shipped_weights()["tiny"])
    odd = dataclasses.replace(card, metrics=card.metrics | {"nothing": None, "words": "x"})
    text = model_card(odd, "me/net")
    assert text.startswith("---\nlibrary_name: pointcentroid\n")
    assert "hf://me/net" in text
    assert ", ".join(card.classes) in text
    assert f"| validation_overall | {card.metrics['validation_overall']:.4g} |" in text
    assert card.provenance["data_sha256"] in text
    assert "These weights were trained on the validation shapes too" in text
    for known, said in ((["some data"], True), ([], False)):
        told = {"config": card.provenance["config"] | {"split": "training"}, "knows_validation": known}
        began = dataclasses.replace(card, provenance=card.provenance | told)
        assert ("Weights that these began with, or learnt from" in model_card(began, "me/net")) == said


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("hf://me/none", "no such repository"),
        ("hf://me/net@v9", "no revision 'v9'"),
        ("hf://me/empty", "holds no model.safetensors"),
        ("hf://one/two/three", "owner/name"),
    ],
)
def test_what_is_not_on_the_hub_is_one_line(hub, address: str, reason: str) -> None:
    repositories, environment = hub
    repositories |= {"me/net": [{"model.safetensors": b""}], "me/empty": [{}]}
    done = run(environment, "classify", EXAMPLES / "chair.off", "--weights", address)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {address}")
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_damaged_weights_a_foreign_token_and_no_hub_at_all(hub) -> None:
    repositories, environment = hub
    repositories["me/net"] = [{"model.safetensors": b"\x80\x04 a pickle"}]
    done = run(environment, "classify", EXAMPLES / "chair.off", "--weights", "hf://me/net")
    assert done.returncode == 2
    assert "not a safetensors file" in done.stderr
    done = run(environment | {"HF_TOKEN": "foreign"}, "push", "tiny", "me/net")
    assert done.returncode == 2
    assert "the hub did not take the weights" in done.stderr
    done = run(
        environment | {"HF_ENDPOINT": "http://127.0.0.1:9"}, "classify", EXAMPLES / "chair.off", "--weights", "hf://a/b"
    )
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
