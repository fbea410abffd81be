"""Folders that outgrow the machine: Ray Data."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pointcentroid.config import PreprocessConfig
from pointcentroid.errors import ConfigError, DataError
from pointcentroid.predict.limited import LimitedProcess
from pointcentroid.predict.loading import load
from pointcentroid.predict.preparing import Prepared, attempt
from pointcentroid.results import Failure
from pointcentroid.scale.reader import Reader
from pointcentroid.scale.sources import check_source, files_of

from ..conftest import EXAMPLES
from ..test_cli import run, unboxed
from .folders import SMALL_SHARDS, assert_answers


def wait_for(shards: Path, count: int, process: subprocess.Popen) -> None:
    """Wait until there are some shards, while the driver is at work."""
    deadline = time.monotonic() + 240
    while len(list(shards.glob("part-*"))) < count:
        assert process.poll() is None, "it ended too soon"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def workers_of(raylet: int) -> list[int]:
    """Process numbers of the workers of a node that are at work."""
    lines = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line.split(None, 2) for line in lines[1:]]
    return [int(pid) for pid, parent, name in rows if int(parent) == raylet and name.startswith("ray::Map")]


class TestReader:
    """The process that reads for a task of Ray."""

    SETTINGS = PreprocessConfig(sample=64, points=64)

    def test_it_reads_what_this_process_reads(self, tmp_path: Path) -> None:
        (tmp_path / "bad.off").write_text("OFF\n8 6 12\n0 0 zero\n")
        reader = Reader(self.SETTINGS)
        for file in [str(EXAMPLES / "chair.off"), str(tmp_path / "bad.off"), str(EXAMPLES / "lamp.glb")]:
            here, there = attempt(file, self.SETTINGS), reader(file)
            if isinstance(here, Prepared):
                assert isinstance(there, Prepared)
                assert there.clouds.tobytes() == here.clouds.tobytes()
                assert there.name == here.name
            else:
                assert there == here
        reader.process.close()

    def test_a_file_that_takes_too_long_or_kills_its_reader_is_a_failure_and_the_next_is_read(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "never.off")  # opening it waits for a writer
        reader = Reader(self.SETTINGS)
        assert isinstance(reader(str(EXAMPLES / "chair.off")), Prepared)
        reader.seconds = 1.0
        slow = reader(str(tmp_path / "never.off"))
        assert isinstance(slow, Failure)
        assert "longer than 1 s" in slow.error
        reader.seconds = 60
        assert isinstance(reader(str(EXAMPLES / "chair.off")), Prepared)
        dead = reader.process.pid
        assert dead is not None
        os.kill(dead, signal.SIGKILL)  # while it is idle: that is no file's fault
        assert isinstance(reader(str(EXAMPLES / "chair.off")), Prepared)
        assert reader.process.pid != dead
        with ThreadPoolExecutor(1) as thread:
            hanging = thread.submit(reader, str(tmp_path / "never.off"))
            time.sleep(0.3)
            os.kill(reader.process.pid, signal.SIGKILL)  # type: ignore[arg-type], it is at work
            crashed = hanging.result()
        assert isinstance(crashed, Failure)
        assert "crashed the reader" in crashed.error
        assert isinstance(reader(str(EXAMPLES / "chair.off")), Prepared)
        reader.process.close()

    @pytest.mark.parametrize("file", ["chair.off", "never.off"])
    def test_it_has_a_limit_of_memory_and_ends_with_whoever_started_it(self, file: str, tmp_path: Path) -> None:
        """Idle, and at work on what never ends."""
        os.mkfifo(tmp_path / "never.off")
        (tmp_path / "chair.off").symlink_to(EXAMPLES / "chair.off")
        code = f"""
from pointcentroid.config import PreprocessConfig
from pointcentroid.scale.reader import Reader
import os, resource, signal, threading, time
reader = Reader(PreprocessConfig(sample=64, points=64))
reader.process.start()
print(reader.process.pid, resource.prlimit(reader.process.pid, resource.RLIMIT_AS)[0], flush=True)
threading.Thread(target=reader, args=({str(tmp_path / file)!r},), daemon=True).start()
time.sleep(0.5)
os.kill(os.getpid(), signal.SIGKILL)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        pid, limit = map(int, done.stdout.split())
        assert limit == 3 * 2**30
        for _ in range(200):
            if not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes():
                return
            time.sleep(0.05)
        pytest.fail("the reader is still there")

    def test_what_cannot_start_is_no_file_s_fault(self) -> None:
        process = LimitedProcess(os._exit, (3,))
        with pytest.raises(RuntimeError, match="could not be started"):
            process.ask("x", 60)
        refusing = LimitedProcess(check_source, ("none/",))  # type: ignore[arg-type], it never answers
        with pytest.raises(DataError, match="no such folder"):
            refusing.ask("x", 60)


class TestRay:
    def test_worker_machine_and_driver_die_and_each_file_is_answered_once(
        self, folder: Path, expected: dict, tmp_path: Path
    ) -> None:
        """Two nodes; on the way a worker is killed, then a node, then the driver; the same command goes on."""
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            second = cluster.add_node(num_cpus=1)
            arguments = ["classify", str(folder), "-r", "--ray", cluster.address, "-o", f"{tmp_path}/out/"]
            with (tmp_path / "said").open("w") as said:
                process = subprocess.Popen([*SMALL_SHARDS, *arguments], stderr=said)
            wait_for(tmp_path / "out", 1, process)
            raylets = [node.all_processes["raylet"][0].process.pid for node in (cluster.head_node, second) if node]
            busy = [pid for raylet in raylets for pid in workers_of(raylet)]
            assert busy
            os.kill(busy[0], signal.SIGKILL)
            wait_for(tmp_path / "out", 2, process)
            os.kill(raylets[1], signal.SIGKILL)
            wait_for(tmp_path / "out", 4, process)
            process.kill()
            process.wait()
            kept = pq.read_table(tmp_path / "out")
            assert 80 <= len(kept) < 240
            done = run(*arguments, "--resume")
            assert "24 of 240 could not be classified" in done.stderr
            assert done.returncode == 1
        finally:
            cluster.shutdown()
        assert_answers(pq.read_table(tmp_path / "out").to_pylist(), expected)

    @pytest.mark.parametrize(
        ("more", "says"),
        [
            (("--weights", "autoencoder"), "which does not classify"),
            (("--device", "cuda"), "no machine of the cluster has a GPU"),
            (("--device", "nonsense"), "no device 'nonsense'"),
        ],
    )
    def test_what_a_net_cannot_do_is_one_line(
        self, more: tuple[str, str], says: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        done = run("classify", folder, "--ray", "local", "-o", f"{tmp_path}/out/", *more)
        assert done.returncode == 2
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1

    @pytest.mark.parametrize("options", [{"votes": 0}, {"top": 0}, {"up": "bogus"}, {"batch_size": 0}])
    def test_options_are_checked_before_a_file_is_blamed(self, options: dict[str, Any], folder: Path) -> None:
        from pointcentroid.scale import classify

        with pytest.raises(ConfigError):
            classify(folder, **options)

    def test_a_bucket_on_the_loopback(self, folder: Path, expected: dict, tmp_path: Path, monkeypatch) -> None:
        """S3 as moto serves it, with names that an address would have to escape; features too."""
        import boto3
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        try:
            address = "http://{}:{}".format(*server.get_host_and_port())
            keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
            for name, value in (keys | {"AWS_ENDPOINT_URL": address}).items():
                monkeypatch.setenv(name, value)
            client = boto3.client("s3")
            client.create_bucket(Bucket="scans")
            answers = {}
            for file in sorted(folder.glob("1/*"))[:20]:
                key = f"in/a b/50% of #1? {file.name}"
                client.upload_file(str(file), "scans", key)
                answers[f"s3://scans/{key}"] = expected[str(file)]
            done = run("embed", "s3://scans/in", "-r", "--ray", "--batch-size", 3, "-o", tmp_path / "out.parquet")
            assert "2 of 20 could not be embedded" in done.stderr
        finally:
            server.stop()
        rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
        assert_answers(rows, answers)
        assert {len(row["feature"] or []) for row in rows} == {0, load("small").feature_dim}

    def test_an_address_without_a_cluster_is_one_line_soon(self, tmp_path: Path) -> None:
        """Nobody listens; who listens says nothing, or is no Ray; and no address at all."""
        silent, chatty, closed = (socket.create_server(("127.0.0.1", 0)) for _ in range(3))

        def chat() -> None:
            with suppress(OSError):
                chatty.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=chat, daemon=True).start()
        address = {name: f"127.0.0.1:{s.getsockname()[1]}" for name, s in [("silent", silent), ("chatty", chatty)]}
        nobody = f"ray://127.0.0.1:{closed.getsockname()[1]}"
        closed.close()
        source = tmp_path / "list"
        source.write_text(f"{EXAMPLES / 'chair.off'}\n")
        ways = [
            (nobody, "Connection refused"),
            (address["silent"], "timed out"),
            (address["chatty"], "is no Ray"),
            ("here", "is no address"),
        ]
        for way, says in ways:
            start = time.monotonic()
            done = run("classify", source, "--ray", way, "-o", tmp_path / "x.parquet")
            assert time.monotonic() - start < 25  # ten seconds of waiting, and Python's start on a busy machine
            assert done.returncode == 2
            assert says in unboxed(done.stderr)
            assert "Traceback" not in done.stderr
            assert len(done.stderr.splitlines()) == 1
        silent.close()
        chatty.close()

    def test_a_table_of_points_is_a_shape_and_no_list(self, tmp_path: Path) -> None:
        assert list(files_of(str(EXAMPLES / "stool.csv"), False)) == [str(EXAMPLES / "stool.csv")]
        (tmp_path / "list.txt").write_text("a.off\nb.off\n")
        assert list(files_of(str(tmp_path / "list.txt"), False)) == ["a.off", "b.off"]

    def test_an_address_is_listed_as_a_folder_is(self, tmp_path: Path) -> None:
        """By fsspec's name for local files; a licence and a list are left out, and one file is one file."""
        for name in ("chair.off", "stool.csv"):
            shutil.copy(EXAMPLES / name, tmp_path)
        (tmp_path / "LICENSE.txt").write_text("Do as you like.\n")
        (tmp_path / "list.csv").write_text("name,class\na,chair\n")
        local = [Path(file).name for file in files_of(str(tmp_path), False)]
        remote = [Path(file).name for file in files_of(f"local://{tmp_path}", False)]
        assert remote == local == ["chair.off", "stool.csv"]
        assert list(files_of(f"local://{tmp_path}/chair.off", False)) == [f"local://{tmp_path}/chair.off"]

    def test_names_are_of_the_folder_of_who_asks(self, tmp_path: Path, monkeypatch) -> None:
        """Processes of a cluster are in another one."""
        there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
        (there / "in" / "more").mkdir(parents=True)
        elsewhere.mkdir()
        for name in ("in/b.off", "in/more/a.off", "c.off"):
            (there / name).touch()
        (there / "list").write_text("in/b.off\n")
        monkeypatch.chdir(there)
        sources = [("in", True), ("in/", False), (".", True), ("./in", False), ("list", False), ("c.off", False)]
        expected = [list(files_of(*source)) for source in sources]
        assert expected[0] == ["in/b.off", "in/more/a.off"]
        monkeypatch.chdir(elsewhere)
        assert [list(files_of(*source, str(there))) for source in sources] == expected

    def test_wrong_usage_is_one_line(self, tmp_path: Path) -> None:
        for arguments, says in [
            ([tmp_path, "--ray"], "expected one source"),
            ([tmp_path, tmp_path, "--ray", "local", "-o", tmp_path / "x.parquet"], "expected one source"),
            (["none/", "--ray", "local", "-o", tmp_path / "x.parquet"], "no such folder"),
            (["file:///none", "--ray", "local", "-o", tmp_path / "x.parquet"], "no such folder"),
            (["memory://none/x", "--ray", "local", "-o", tmp_path / "x.parquet"], "there is nothing of this name"),
            (["nosuch://none", "--ray", "local", "-o", tmp_path / "x.parquet"], "nosuch://none: cannot be listed"),
        ]:
            done = run("classify", *arguments)
            assert done.returncode == 2
            assert says in unboxed(done.stderr)
            assert "Traceback" not in done.stderr
        assert not os.listdir(tmp_path), "nothing is left of what was refused"
