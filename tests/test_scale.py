"""Folders that outgrow memory, patience or the machine: streams, Parquet that survives interruptions, Ray Data."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pointcentroid.cli import inputs
from pointcentroid.config import PreprocessConfig
from pointcentroid.errors import ConfigError, DataError
from pointcentroid.io import READERS
from pointcentroid.predict import preparing
from pointcentroid.predict.limited import LimitedProcess
from pointcentroid.predict.loading import load
from pointcentroid.predict.preparing import Prepared, Preparer, attempt
from pointcentroid.results import Failure, Prediction
from pointcentroid.scale.answers import Answers, Seen, schema_of, storable, table_of
from pointcentroid.scale.reader import Reader
from pointcentroid.scale.sources import check_source, files_of

from .conftest import EXAMPLES, ROOT
from .test_cli import COMMAND, run, unboxed

SMALL_SHARDS = [
    sys.executable,
    "-c",
    "import pointcentroid.scale.answers as a; a.SHARD_ROWS = 20; from pointcentroid.__main__ import main; main()",
]


def fill(folder: Path, total: int, sources: list[Path] | None = None) -> list[str]:
    """Make a folder with subfolders of hard links to real files, a tenth of them broken in one way or the other."""
    sources = sources or sorted(p for p in EXAMPLES.iterdir() if p.is_file())
    broken = [b"", b"OFF\n8 6 12\n0 0 zero\n", b"ply\nformat ascii 1.0\nelement vertex 9\nend_header\n"]
    for number in range(total):
        path = folder / f"{number % 3}" / f"{number:05d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 10 == 7:
            path.with_suffix(".off").write_bytes(broken[number % 3])
            continue
        source = sources[number % len(sources)]
        try:
            path.with_suffix(source.suffix).hardlink_to(source)
        except OSError:  # another file system
            path.with_suffix(source.suffix).write_bytes(source.read_bytes())
    return sorted(str(p) for p in folder.rglob("*") if p.is_file())


def by_path(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    assert Counter(row["path"] for row in rows).most_common(1)[0][1] == 1, "a file has several answers"
    return {row["path"]: row for row in rows}


def assert_answers(rows: list[dict[str, Any]], expected: dict[str, dict[str, Any]]) -> None:
    """Each file once, with the answer that the plain command prints; batches of other company round otherwise."""
    found = by_path(rows)
    assert found.keys() == expected.keys()
    for path, row in found.items():
        right = expected[path]
        for column in ("label", "up", "points", "error"):
            assert row[column] == right.get(column)
        if row["error"] is None:
            assert row["confidence"] == pytest.approx(right["confidence"], abs=1e-5)
            assert [[t["label"], pytest.approx(t["probability"], abs=1e-5)] for t in row["top"]] == right["top"]
        else:
            assert row["top"] is row["confidence"] is None


def plain(folder: Path) -> dict[str, dict[str, Any]]:
    """What the plain command prints, by file."""
    done = run("classify", folder, "-r", "--format", "json")
    assert done.returncode == 1  # some are broken
    return {row["file"]: row for row in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 files, 24 of them broken."""
    path = tmp_path_factory.mktemp("scans")
    fill(path, 240)
    return path


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, dict[str, Any]]:
    return plain(folder)


class TestStreams:
    def test_files_come_in_the_order_in_which_paths_sort(self, tmp_path: Path, monkeypatch) -> None:
        names = [
            "a.off",
            "a-b.off",
            "a/x.off",
            "a/.x.off",
            "a0/y.OBJ",
            "a/a/z.npy",
            ".h/z.off",
            "a/no.jpg",
            "é/x.off",
        ]
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "again").symlink_to(tmp_path)
        (tmp_path / "link.off").symlink_to(tmp_path / "a.off")
        (tmp_path / "nowhere.off").symlink_to(tmp_path / "none.off")
        (tmp_path / "itself.off").symlink_to(tmp_path / "itself.off")
        (tmp_path / "folder.off").mkdir()

        def wanted(path: Path) -> bool:
            hidden = any(part.startswith(".") for part in path.relative_to(tmp_path).parts)
            return path.suffix.lower() in READERS and path.is_file() and not hidden

        for recursive in (True, False):
            found = tmp_path.rglob("*") if recursive else tmp_path.glob("*")
            reference = sorted(str(p) for p in found if wanted(p))
            assert list(inputs.stream([str(tmp_path)], recursive)) == reference
            assert inputs.expand([str(tmp_path)], recursive) == reference
            assert inputs.count([str(tmp_path), str(tmp_path)], recursive) == 2 * len(reference)
        monkeypatch.chdir(tmp_path)
        assert inputs.expand(["."], False) == ["a-b.off", "a.off", "link.off"]
        assert inputs.expand(["./a/"], False) == ["a/x.off"]

    def test_text_without_points_is_left_out_of_folders(self, tmp_path: Path, capsys) -> None:
        files = {
            "LICENSE.txt": "The MIT License\n\nCopyright (c) 2020 Somebody\n",
            "names.csv": "class,file\nchair,a.off\n",
            "train.txt": "airplane_0001\nairplane_0002\n",
            "two.csv": "u,v\n1,2\n3,4\n",
            "long.txt": "no points\n" * 20_000,
            "binary.txt": b"\x00\xff\xfe" * 9,
            "cut.csv": "x,y,z,label\n" + "0.25,0.5,0.75,leaf\n" * 9_000,
            "points.TXT": "# a scan\n2\n0 0 0 255\n1 1 1 0\n",
            "decimal.csv": "x;y;z\n0,5;1;2\n",
            "bad.txt": "0 0 0\n1 1\n",
            "header.csv": "x,y,z\n",
            "damaged.csv": "x,y,z\n0.5,?,0.5\n0.25,0.5,0.75\n",
            "units.txt": "x y z\nm m m\n0 0 0\n",
            "wide.txt": "0.5 0.25 0.125\n".encode("utf-16"),
            "much_said.csv": "a,b,c\n" + "# more\n" * 20_000 + "0,0,0\n",
            "empty.txt": "",
            "prose.xyz": "nothing else is called so\n",
        }
        for name, text in files.items():
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        kept = [
            "bad.txt", "cut.csv", "damaged.csv", "decimal.csv", "empty.txt", "header.csv", "much_said.csv", "points.TXT",
            "prose.xyz", "units.txt", "wide.txt",
        ]  # fmt: skip
        assert [Path(path).name for path in inputs.stream([str(tmp_path)], False)] == kept
        left_out = "LICENSE.txt, binary.txt, long.txt, names.csv, train.txt and 1 more"
        assert capsys.readouterr().err == f"{tmp_path}: left out, for they hold no points: {left_out}\n"
        (tmp_path / "gone.off").symlink_to(tmp_path / "moved away.off")
        assert [Path(path).name for path in inputs.stream([str(tmp_path)], False)] == kept
        assert capsys.readouterr().err.splitlines()[1] == f"{tmp_path}: left out, for they lead nowhere: gone.off"
        assert inputs.count([str(tmp_path)], False) == len(kept)
        assert capsys.readouterr().err == "", "said once is enough"
        named = str(tmp_path / "LICENSE.txt")
        assert inputs.expand([named], False) == [named], "a file that is named is wanted"

    def test_a_glob_means_what_a_shell_makes_of_it(self, tmp_path: Path) -> None:
        for name in ("a.off", "b/c.off", "b/d/e.off", "b/no.jpg"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

        def listed(pattern: str, recursive: bool) -> list[str]:
            return [os.path.relpath(file, tmp_path) for file in inputs.stream([str(tmp_path / pattern)], recursive)]

        assert listed("*", True) == ["a.off", "b/c.off", "b/d/e.off"]
        assert listed("*", False) == ["a.off", "b/c.off"]
        assert listed("**/*.off", False) == ["a.off", "b/c.off", "b/d/e.off"]
        assert listed("b/*", False) == ["b/c.off", "b/d/e.off", "b/no.jpg"], "what is named by itself is wanted"
        assert listed("none*", False) == ["none*"], "which cannot be read, and is reported"

    def test_results_stay_in_their_folder(self, tmp_path: Path, monkeypatch) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        names = inputs.result_names(["../there/a.off", "a.off", "b/../a.off/../b/a.off"])
        assert list(map(str, names.values())) == ["there/a.off", "here/a.off", "here/b/a.off"]

    def test_a_folder_is_listed_when_its_turn_comes(self, tmp_path: Path, monkeypatch) -> None:
        fill(tmp_path, 30)
        listed = []
        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
        files = inputs.stream([str(tmp_path)], recursive=True)
        first = list(islice(files, 10))
        assert listed == [str(tmp_path), str(tmp_path / "0")]
        assert len(first + list(files)) == 30
        assert len(listed) == 4

    @pytest.mark.parametrize("workers", [0, 2, None])
    def test_sources_are_taken_as_places_become_free(self, workers: int | None, monkeypatch) -> None:
        monkeypatch.setattr(preparing, "_AHEAD", 16)
        taken = count()
        sources = (EXAMPLES / "chair.off" for _ in taken)  # without end
        results = Preparer(PreprocessConfig(sample=64, points=64), workers=workers)(sources)
        for number in range(1, 60):
            assert isinstance(next(results), Prepared)
            so_far = int(repr(taken)[6:-1])
            assert so_far <= number + 16 + 8
        results.close()  # type: ignore[attr-defined]

    def test_a_long_table_comes_before_its_input_ends(self, tmp_path: Path) -> None:
        names = [f"{tmp_path}/{'deep' * 20}/{number:05d}.off" for number in range(2000)]
        command = [*COMMAND, "classify", "-", "--workers", "0"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin
            assert process.stdout
            text = "\n".join(names) + "\n"
            writer = threading.Thread(target=lambda: (process.stdin.write(text), process.stdin.flush()))  # type: ignore[union-attr]
            writer.start()
            early = [process.stdout.readline() for _ in range(1900)]  # and the input is still open
            writer.join()
            process.stdin.write(f"/elsewhere/{'far' * 50}/last.off\n")
            process.stdin.close()
            lines = [line.rstrip("\n") for line in early + process.stdout.readlines()]
        head, *rows = lines
        assert head.startswith("file in ")
        assert head.split()[2].endswith("deep/")
        assert [row.split()[0] for row in rows[:2000]] == [f"{number:05d}.off" for number in range(2000)]
        assert rows[2000].startswith("…")
        assert rows[2000].split()[0].endswith("far/last.off")
        assert len(rows) == 2001
        assert {row.index(" error ") for row in rows} == {head.index(" label ")}

    def test_names_of_files_are_never_folded(self, tmp_path: Path) -> None:
        deep = tmp_path / ("x" * 100) / ("y" * 100)
        fill(deep, 10)
        table = run("classify", deep, "-r").stdout
        assert len(table.splitlines()) >= 11
        for path in deep.rglob("*.*"):
            assert f"{path.parent.name}/{path.name} " in table
        alone = run("classify", deep / "0" / "00000.gltf").stdout
        assert "yyy/0/00000.gltf " in alone


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


def wait_for(shards: Path, count: int, process: subprocess.Popen) -> None:
    """Wait until there are some shards, while the driver is at work."""
    deadline = time.monotonic() + 240
    while len(list(shards.glob("part-*"))) < count:
        assert process.poll() is None, "it ended too soon"
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray tells nobody of these tests, and its workers take their share of a busy machine."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")


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


def tool() -> Any:
    """tools/scale.py, which is no module of the package."""
    spec = importlib.util.spec_from_file_location("scale_tool", ROOT / "tools" / "scale.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale_tool"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


class TestTool:
    """The proof is worth what its judge is."""

    def test_folders_are_as_large_and_as_broken_as_asked(self, tmp_path: Path) -> None:
        scale = tool()
        bad = scale.folder_of(scale.sources_of(None), 120, tmp_path / "scans", 17)
        files = inputs.expand([str(tmp_path / "scans")], recursive=True)
        assert (len(files), len(bad), len(bad - set(files))) == (120, 17, 0)
        settings = PreprocessConfig(sample=64, points=64)
        sound = [file for file in files if file not in bad]
        assert all(isinstance(attempt(file, settings), Prepared) for file in sound[:20])
        assert {os.stat(file).st_nlink > 1 for file in sound} == {True}
        assert {os.stat(file).st_nlink for file in bad} == {1}

    def test_every_fault_of_answers_is_seen(self, tmp_path: Path) -> None:
        scale = tool()

        def kept(name: str, rows: list[Prediction | Failure]) -> Path:
            pq.write_table(table_of(rows, schema_of({})), tmp_path / name)
            return tmp_path / name

        def said(file: str, **changes: Any) -> Prediction:
            said = Prediction(file, "chair", 0.9, [("chair", 0.9)], "z", 64, np.zeros(1, np.float32), np.eye(3), 0.5)
            return replace(said, **changes)

        right: list[Prediction | Failure] = [said("a"), said("b"), Failure("c", "cut short")]
        plain = kept("plain", right)
        near = [said("a", confidence=0.90004), *right[1:]]
        assert scale.differences(kept("near", near), plain, {"c"}) == ([], pytest.approx(4e-5))
        faults = {
            "3 answers": [*right, right[0], right[0]],
            "b: no answer": [right[0], right[2]],
            "d: nobody asked": [*right, said("d")],
            "a: sofa, not chair": [said("a", label="sofa"), *right[1:]],
            "b: cut short, not chair": [right[0], Failure("b", "cut short"), right[2]],
            "c: chair, not cut short": [*right[:2], said("c")],
            "c: too long, not cut short": [*right[:2], Failure("c", "too long")],
            "differ by 0.001": [said("a", confidence=0.901), *right[1:]],
        }
        for says, rows in faults.items():
            (problem,) = scale.differences(kept("found", rows), plain, {"c"})[0]
            assert says in problem
        (problem,) = scale.differences(plain, plain, {"b", "c"})[0]
        assert problem == "b: broken, and called chair"

    def test_cpu_seconds_are_those_of_all_processes(self) -> None:
        scale = tool()
        burn = "import time\nwhile time.process_time() < 0.8: pass"
        both = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r} + '\\ninput()'], input=b'x')\n{burn}"
        took = scale.measured(sys.executable, "-c", both)
        assert 0.9 < took.cpu < took.seconds * (os.cpu_count() or 1)
        with pytest.raises(SystemExit, match="boom"):
            scale.measured(sys.executable, "-c", "import sys; print('boom', file=sys.stderr); sys.exit(2)")
