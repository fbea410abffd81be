"""Parquet that survives interruptions."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pointcentroid.errors import DataError
from pointcentroid.results import Failure
from pointcentroid.scale.answers import Answers, Seen, schema_of, storable, table_of

from ..conftest import EXAMPLES
from ..test_cli import COMMAND, run, unboxed
from .folders import SMALL_SHARDS, assert_answers, by_path


class TestParquet:
    def test_a_row_a_file_equal_to_the_json(self, folder: Path, expected: dict, tmp_path: Path) -> None:
        done = run("classify", folder, folder / "0", "-r", "-o", tmp_path / "out.parquet")  # a third of them twice
        assert done.returncode == 1
        assert "24 of 240 could not be classified" in done.stderr
        assert_answers(pq.read_table(tmp_path / "out.parquet").to_pylist(), expected)
        assert os.listdir(tmp_path) == ["out.parquet"]

    @pytest.mark.parametrize("name", ["out.parquet", "out/"])
    def test_killed_and_resumed_each_file_stands_once(self, folder: Path, expected: dict, tmp_path: Path, name: str) -> None:
        target = f"{tmp_path}/{name}"
        shards = tmp_path / (".out.parquet.parts" if name == "out.parquet" else "out")
        arguments = ["classify", str(folder), "-r", "-o", target]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([*SMALL_SHARDS, *arguments], env=environment, start_new_session=True)
        while len(list(shards.glob("part-*"))) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kept = [p.read_bytes() for p in sorted(shards.glob("part-*"))]
        assert 2 <= len(kept) < 12
        assert not (tmp_path / "out.parquet").exists()
        stale = shards / ".pointcentroid-abc"  # as `replacing` calls what is not whole
        stale.write_text("what was being written")
        for left in shards.glob(".pointcentroid-*"):  # the process may have been killed just before one got its name
            os.utime(left, (0, 0))

        refused = run(*arguments)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
        assert "--resume" in refused.stderr
        other = run(*arguments, "--resume", "--up", "y")
        assert (other.returncode, len(other.stderr.splitlines())) == (2, 1)
        assert "other weights, settings" in other.stderr

        others = shards / ".pointcentroid-def"  # of a command that is at work
        if name == "out/":
            others.write_text("what is being written")
        done = run(*arguments, "--resume")
        assert done.returncode == 1
        assert "24 of 240 could not be classified" in done.stderr
        if name == "out/":
            others.unlink()
        assert_answers(pq.read_table(target).to_pylist(), expected)
        if name == "out/":  # what was there was not done again
            assert [p.read_bytes() for p in sorted(shards.iterdir())[: len(kept)]] == kept
            assert not list(shards.glob(".*"))
        else:
            assert os.listdir(tmp_path) == ["out.parquet"]

    @pytest.mark.parametrize("command", ["classify", "embed"])
    def test_what_ctrl_c_leaves_says_how_to_go_on(self, folder: Path, tmp_path: Path, command: str) -> None:
        arguments = [command, str(folder), "-r", "-o", str(tmp_path / "out")]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*SMALL_SHARDS, *arguments[:-1], f"{arguments[-1]}/"], env=environment, start_new_session=True,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr
        while not list((tmp_path / "out").glob("part-*")):
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(timeout=20) in (130, -signal.SIGINT)
        again = f"pointcentroid {' '.join(arguments)}/ --resume"
        assert f"what is finished is kept; to go on: {again}\n" in said
        done = run(*again.split()[1:])
        assert "24 of 240 could not be" in done.stderr
        assert pq.read_table(tmp_path / "out").num_rows == 240

    @pytest.mark.parametrize("how", ["closed", "stopped"])
    @pytest.mark.parametrize("whole", [False, True])
    def test_what_is_answered_is_kept_though_no_shard_is_full(self, tmp_path: Path, whole: bool, how: str) -> None:
        def results() -> Iterator[Failure]:
            yield from (Failure(f"{number}.off", "damaged") for number in range(7))
            raise KeyboardInterrupt

        answers = Answers(tmp_path / "out.parquet", whole, {"weights": "w"}, resume=False)
        keeping = answers.keeping(results())
        if how == "closed":
            assert [next(keeping).file for _ in range(7)] == [f"{number}.off" for number in range(7)]
            keeping.close()
        else:
            with pytest.raises(KeyboardInterrupt):
                list(keeping)
        again = Answers(tmp_path / "out.parquet", whole, {"weights": "w"}, resume=True)
        assert (again.done, again.failed) == (7, 7)
        assert list(again.missing(["3.off", "7.off"])) == ["7.off"]
        assert not (tmp_path / "out.parquet").is_file(), "it is whole, or not there"

    def test_a_full_disk_costs_nothing_that_was_kept(self, folder: Path, tmp_path: Path) -> None:
        """A limit on the size of files stands for the disk: shards fit, the whole does not."""
        target = tmp_path / "features.parquet"
        arguments = ["embed", str(folder / "0"), "-o", str(target)]

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

        done = subprocess.run([*SMALL_SHARDS, *arguments], capture_output=True, text=True, preexec_fn=limit)
        assert done.returncode == 2
        assert "error: " in done.stderr.splitlines()[-1]
        assert os.listdir(tmp_path) == [".features.parquet.parts"]
        assert len(list((tmp_path / ".features.parquet.parts").glob("part-*"))) == 4
        again = run(*arguments, "--resume", "--workers", 0)
        assert "8 of 80 could not be embedded" in again.stderr
        assert len(again.stderr.splitlines()) == 1  # nothing was read again
        rows = pq.read_table(target).to_pylist()
        assert len(by_path(rows)) == 80
        reference = [json.loads(line) for line in run("embed", folder / "0", "--format", "json").stdout.splitlines()]
        features = {row["file"]: row["feature"] for row in reference}
        for row in rows:
            assert (row["feature"] is None) == (row["error"] is not None)
            assert row["error"] or row["feature"] == pytest.approx(features[row["path"]], abs=1e-4)

    def test_two_commands_may_fill_one_folder(self, tmp_path: Path) -> None:
        """Begun at once, each with files of its own."""
        both = [Answers(tmp_path, False, {"weights": "w"}, resume=True) for _ in range(2)]
        named = [[Failure(f"{name} {number}", "broken") for number in range(5)] for name in "ab"]
        for _ in zip(both[0].keeping(named[0]), both[1].keeping(named[1]), strict=True):
            pass
        whole = Answers(tmp_path, False, {"weights": "w"}, resume=True)
        assert whole.done == len(pq.read_table(tmp_path)) == 10

    def test_a_shard_waits_neither_for_long_nor_for_many(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, limit, value, kept in (
            ("a", "SHARD_SECONDS", -1.0, 1),
            ("b", "SHARD_ROWS", 1, 1),
            ("c", "SHARD_ROWS", 2, 0),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(f"pointcentroid.scale.answers.{limit}", value)
                answers = Answers(tmp_path / name, False, {"weights": "w"}, resume=False)
                going = answers.keeping(Failure(str(number), "broken") for number in range(3))
                next(going)
                assert len(answers.parts()) == kept
                going.close()

    def test_no_path_of_many_is_answered_twice(self) -> None:
        seen, paths = Seen(), [f"{number}.off" for number in range(40_000)]
        assert all(seen.add(path) for path in paths)
        assert not any(seen.add(path) for path in paths)

    def test_one_command_at_a_time_writes_a_file(self, tmp_path: Path) -> None:
        def begun(resume: bool) -> tuple[Answers, Iterator[Any]]:
            answers = Answers(tmp_path / "x.parquet", True, {"weights": "w"}, resume)
            return answers, answers.keeping(Failure(file, "broken") for file in answers.missing("abcd"))

        first, second, third = begun(resume=False), begun(resume=False), begun(resume=False)
        next(first[1])
        with pytest.raises(DataError, match="another command is writing to"):
            next(second[1])
        list(first[1])
        with pytest.raises(DataError, match="has written to"):  # it looked before there was anything
            list(third[1])
        assert pq.read_table(tmp_path / "x.parquet")["path"].to_pylist() == list("abcd")
        assert list(begun(resume=True)[1]) == []
        assert len(list(begun(resume=False)[1])) == 4
        assert os.listdir(tmp_path) == ["x.parquet"]

    def test_a_death_between_merging_and_deleting_doubles_nothing(self, tmp_path: Path) -> None:
        def keep(files: list[str], resume: bool) -> Answers:
            answers = Answers(tmp_path / "x.parquet", True, {"weights": "w"}, resume)
            for _ in answers.keeping(Failure(file, "broken") for file in answers.missing(files)):
                saved.update({p: p.read_bytes() for p in answers.parts()})
            return answers

        saved: dict[Path, bytes] = {}
        keep(["a", "b"], resume=False)
        merged = pq.read_table(tmp_path / "x.parquet")
        parts = tmp_path / ".x.parquet.parts"
        parts.mkdir()
        pq.write_table(merged, parts / "part-00000.parquet")
        answers = keep(["a", "b", "c", "c"], resume=True)
        assert (answers.done, answers.failed) == (2, 2)
        assert pq.read_table(tmp_path / "x.parquet")["path"].to_pylist() == ["a", "b", "c"]
        parts.mkdir()
        (parts / "part-00000.parquet").write_bytes(b"PAR1 no more")
        with pytest.raises(DataError, match="delete it, and --resume"):
            keep(["d"], resume=True)

    def test_a_run_anew_is_resumed_without_what_an_earlier_one_answered(self, tmp_path: Path) -> None:
        def answers(said: str, most: int, resume: bool) -> Answers:
            kept = Answers(tmp_path / "link.parquet", True, {"weights": "w"}, resume)
            results = kept.keeping(Failure(file, said) for file in kept.missing("abcd"))
            taken = list(islice(results, most))
            if len(taken) < 4 and not resume:
                kept._keep(table_of(taken, kept.schema))  # and then it died
            else:
                list(results)
            return kept

        (tmp_path / "link.parquet").symlink_to(tmp_path / "x.parquet")
        answers("old", 4, resume=False)
        answers("new", 2, resume=False)
        assert set(pq.read_table(tmp_path / "x.parquet")["error"].to_pylist()) == {"old"}
        assert answers("newer", 4, resume=True).done == 2
        rows = pq.read_table(tmp_path / "x.parquet")
        assert rows["path"].to_pylist() == list("abcd")
        assert rows["error"].to_pylist() == ["new", "new", "newer", "newer"]
        assert answers("newest", 4, resume=True).done == 4, "nothing is left to do"
        assert sorted(os.listdir(tmp_path)) == ["link.parquet", "x.parquet"]
        assert (tmp_path / "link.parquet").is_symlink()

    def test_what_reads_ends_with_a_command_that_is_killed(self, tmp_path: Path) -> None:
        command = [*COMMAND, "classify", "-", "--workers", "3", "-o", str(tmp_path / "x.json")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdin
        process.stdin.write(f"{EXAMPLES / 'chair.off'}\n".encode())
        process.stdin.flush()  # the list never ends
        deadline = time.monotonic() + 60
        while len(readers := children_of(process.pid)) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.wait()
        while any(Path(f"/proc/{reader}").exists() for reader in readers):
            assert time.monotonic() < deadline, "they outlive it"
            time.sleep(0.05)

    def test_seen_is_a_set(self) -> None:
        names = [f"/a/{number * number % 50_021}" for number in range(80_000)]
        seen, reference = Seen(), set()
        for name in names:
            assert seen.add(name) == (name not in reference)
            reference.add(name)

    def test_one_file_has_one_name(self) -> None:
        seen = Seen()
        assert seen.add("a.off")
        assert not seen.add("./a.off")
        assert seen.add("b/../a.off"), "where b is a link, that is another file"
        assert seen.add("s3://bucket/a//b.off")
        assert seen.add("s3://bucket/a/b.off"), "two keys"

    def test_answers_of_other_columns_are_not_gone_on_with(self, tmp_path: Path) -> None:
        """As those of an earlier version."""
        schema = schema_of({})
        rows = [Failure("a.off", "a.off is bad")]
        before = table_of(rows, schema).drop_columns(["points"])
        request = json.loads(schema.metadata[b"pointcentroid"])
        request["columns"].remove("points")
        (tmp_path / "o").mkdir()
        pq.write_table(
            before.replace_schema_metadata({"pointcentroid": json.dumps(request, sort_keys=True)}),
            tmp_path / "o" / "part-0.parquet",
        )
        with pytest.raises(DataError, match="version; name another output"):
            Answers(tmp_path / "o", False, {}, True)

    def test_a_name_that_is_no_text_can_be_kept(self, tmp_path: Path) -> None:
        name = os.fsdecode(b"\xff.off")
        answers = Answers(tmp_path / "o", False, {}, False)
        list(answers.keeping([Failure(name, f"{name} is bad")]))
        assert pq.read_table(tmp_path / "o")["path"].to_pylist() == [storable(name)] == ["\\udcff.off"]
        again = Answers(tmp_path / "o", False, {}, True)
        assert list(again.missing([name, "x"])) == ["x"]

    def test_resuming_what_cannot_be_resumed_is_wrong_usage(self) -> None:
        done = run("classify", "x.off", "--resume", "-o", "x.json")
        assert done.returncode == 2
        assert "only Parquet can be resumed" in unboxed(done.stderr)


def children_of(process: int) -> list[int]:
    """Process numbers of what a process has started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in listed.stdout.split()]
