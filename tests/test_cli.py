"""The command line as people and machines use it: real processes, their output and exit codes."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from rich.text import Text

import pointcentroid as pc
from pointcentroid.cli.app import app
from pointcentroid.cli.output import check_folder, check_writable
from pointcentroid.config import PreprocessConfig
from pointcentroid.weights import find_weights, load_weights, save_weights

from .conftest import EXAMPLES
from .meshes import direction

COMMAND = [sys.executable, "-m", "pointcentroid"]


def unboxed(told: str) -> str:
    """What an error says, without the box around it and the line breaks that the box makes."""
    return " ".join(told.replace("│", " ").split())


def run(*arguments: object, stdin: str = "", **options) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False, **options
    )
    assert "Traceback" not in done.stderr + done.stdout
    return done


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.off"
    path.write_text("OFF\n8 6 12\n0 0 zero\n")
    return path


def test_help_breaks_lines_where_the_terminal_ends() -> None:
    for command in (["data", "prepare"], ["train"], ["assignments"], ["evaluate"]):
        done = run(*command, "--help", env=os.environ | {"COLUMNS": "60", "TERM": "dumb"})
        lines = re.split(r"\n *\n", done.stdout.partition("╭")[0], maxsplit=2)[-1].splitlines()  # below the usage
        pairs = [(one, two) for one, two in itertools.pairwise(lines) if one.strip() and two.strip()]
        assert pairs
        assert all(len(one.strip()) + len(two.split()[0]) + 1 > 58 for one, two in pairs), "no line ends early"


class TestClassify:
    def test_the_table_names_the_file_and_the_label(self) -> None:
        done = run("classify", EXAMPLES / "chair.off")
        assert done.returncode == 0
        assert "chair.off" in done.stdout
        assert "%" in done.stdout

    def test_a_shape_that_leans(self, leaning_chair: tuple[Path, np.ndarray]) -> None:
        path, rotation = leaning_chair
        assert run("classify", path).stdout.split()[-1] == "leans"
        (row,) = map(json.loads, run("classify", path, "--format", "json").stdout.splitlines())
        assert row["label"] == "chair"
        np.testing.assert_allclose(direction(row["up"]), rotation[:, 2], atol=0.03)

    def test_json_is_one_object_a_line_and_nothing_else(self, bad: Path) -> None:
        done = run("classify", EXAMPLES / "chair.off", bad, EXAMPLES / "table.obj", "--format", "json", "--top", 3)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == 1
        assert [set(row) for row in rows] == [
            {"file", "label", "confidence", "top", "up", "points", "known"},
            {"file", "error"},
            {"file", "label", "confidence", "top", "up", "points", "known"},
        ]
        assert rows[0]["top"][0] == [rows[0]["label"], rows[0]["confidence"]]
        assert len(rows[0]["top"]) == 3
        assert "line 3" in rows[1]["error"] or "cut short" in rows[1]["error"] or "more than" in rows[1]["error"]

    def test_csv(self, bad: Path) -> None:
        done = run("classify", EXAMPLES / "chair.off", bad, "--format", "csv")
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert [row["label"] for row in rows] == ["chair", ""]
        assert rows[0]["top"].startswith("chair:0.")
        assert rows[1]["error"]

    def test_the_same_command_gives_the_same_bytes(self) -> None:
        first, second = (run("classify", EXAMPLES, "--format", "json").stdout for _ in range(2))
        assert first == second
        assert len(first.splitlines()) == len([p for p in EXAMPLES.iterdir() if p.is_file()])

    def test_batches_and_workers_change_nothing_but_rounding(self) -> None:
        reference = run("classify", EXAMPLES, "-r", "--format", "json", "--workers", 0, "--batch-size", 1).stdout
        other = run("classify", EXAMPLES, "-r", "--format", "json", "--workers", 2, "--batch-size", 8).stdout
        for a, b in zip(map(json.loads, reference.splitlines()), map(json.loads, other.splitlines()), strict=True):
            assert (a["file"], a["label"], a["up"]) == (b["file"], b["label"], b["up"])
            assert abs(a["confidence"] - b["confidence"]) < 1e-5

    def test_output_goes_whole_to_a_file(self, tmp_path: Path) -> None:
        for kind in ("json", "csv", "table"):
            target = tmp_path / f"out.{kind}"
            done = run("classify", EXAMPLES / "chair.off", "--format", kind, "-o", target)
            assert (done.returncode, done.stdout) == (0, "")
            assert "chair" in target.read_text()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "out.json", "out.table"]

    def test_inputs_may_be_folders_globs_and_a_list(self) -> None:
        def files(*arguments: object, stdin: str = "") -> set[str]:
            done = run("classify", *arguments, "--format", "json", stdin=stdin)
            return {Path(json.loads(line)["file"]).name for line in done.stdout.splitlines()}

        assert files(EXAMPLES / "las") == {"bed.las", "table.laz"}
        assert "table.laz" not in files(EXAMPLES)
        assert "table.laz" in files(EXAMPLES, "--recursive")
        assert files(f"{EXAMPLES}/*.off") == {"chair.off"}
        for end in ("\n", "\n\n", "\0"):
            assert files("-", stdin=f"{EXAMPLES}/chair.off{end}{EXAMPLES}/table.obj{end}") == {"chair.off", "table.obj"}

    def test_no_word_of_a_file_steers_the_terminal(self, tmp_path: Path) -> None:
        asset = {"asset": {"version": "2.0"}, "extensionsRequired": ["\x1b[31mX\x1b]0;gone\x07"], "nodes": [], "scenes": []}
        (tmp_path / "a.gltf").write_text(json.dumps(asset))
        done = run("classify", tmp_path / "a.gltf")
        assert done.returncode == 1
        assert "needs the extension" in done.stdout
        assert not {"\x1b", "\x07"} & set(done.stdout + done.stderr)

    @pytest.mark.parametrize("target", ["/dev/stdout", "/dev/fd/1"])
    def test_a_stream_that_is_appended_to_keeps_what_it_held(self, tmp_path: Path, target: str) -> None:
        (tmp_path / "log.jsonl").write_text("precious\n")
        with (tmp_path / "log.jsonl").open("a") as log:
            command = [
                sys.executable,
                "-m",
                "pointcentroid",
                "classify",
                str(EXAMPLES / "chair.off"),
                "--json",
                "-o",
                target,
            ]
            assert subprocess.run(command, stdout=log, check=False).returncode == 0
        first, second = (tmp_path / "log.jsonl").read_text().splitlines()
        assert (first, json.loads(second)["label"]) == ("precious", "chair")
        assert os.listdir(tmp_path) == ["log.jsonl"]

    def test_up_and_votes_are_obeyed(self) -> None:
        row = json.loads(run("classify", EXAMPLES / "chair.off", "--up", "-x", "--votes", 2, "--format", "json").stdout)
        assert row["up"] == "-x"
        one, two = (pc.load("small")(EXAMPLES / "chair.off", up="-x", votes=votes).confidence for votes in (1, 2))
        assert row["confidence"] == two != one

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["classify"], "Missing argument"),
            (["classify", "x.off", "--up", "w"], "--up"),
            (["classify", "x.off", "--weights", "smal"], "did you mean 'small'"),
            (["classify", "x.off", "--device", "warp"], "no device 'warp'"),
            (["classify", "x.off", "--batch-size", "0"], "--batch-size"),
            (["classify", "x.off", "-o", "no/such/folder/out.json"], "does not exist"),
            (["classify", "-"], "no readable files"),
            (["clasify", "x.off"], "clasify"),
            (["embed", "x.off"], "-o features.npz"),
            (["train", "modelnet40-smal"], "did you mean 'modelnet40-small'"),
            (["train", "modelnet40-small", "data=x", "epoch=3"], "did you mean 'epochs'"),
            (["train", "modelnet40-small", "data=none.npz"], "no such data set"),
            (["evaluate", "small", "--data", "none.npz"], "no such data set"),
        ],
    )
    def test_wrong_usage_is_exit_code_2_and_a_hint(self, arguments: list[str], says: str) -> None:
        done = run(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        # The hint may be wrapped in a box.
        assert says in unboxed(done.stderr)

    def test_an_absent_file_is_an_error_of_that_file(self) -> None:
        done = run("classify", "none.off", EXAMPLES / "chair.off", "--format", "json")
        assert done.returncode == 1
        assert [("error" in json.loads(line)) for line in done.stdout.splitlines()] == [True, False]

    def test_a_closed_pipe_is_no_error_message(self) -> None:
        script = f"{' '.join(COMMAND)} classify {EXAMPLES} --format json --batch-size 1 | head -1"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
        assert json.loads(done.stdout)["file"]
        assert done.stderr == ""

    @pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
    def test_any_encoding_and_any_name_of_a_file(self, encoding: str, tmp_path: Path) -> None:
        name = os.fsencode(tmp_path) + b"/caf\xe9.off"  # no UTF-8
        Path(os.fsdecode(name)).write_bytes((EXAMPLES / "chair.off").read_bytes())
        environment = os.environ | {"PYTHONIOENCODING": encoding}

        def output(*arguments: str, listed: bytes = b"") -> bytes:
            done = subprocess.run([*COMMAND, *arguments], input=listed, capture_output=True, env=environment, check=True)
            assert done.stderr == b""
            return done.stdout

        for table in (output("classify", str(tmp_path)), output("classify", "-", listed=name + b"\n")):
            assert name in table
            assert b"chair" in table
        assert name in output("classify", str(tmp_path), "--format", "csv")
        output("classify", str(tmp_path), "-o", str(tmp_path / "out.csv"))
        assert name in (tmp_path / "out.csv").read_bytes()

    @pytest.mark.skipif(os.name != "posix", reason="a terminal of POSIX")
    @pytest.mark.parametrize("width", [140, 80, 60, 40])
    def test_a_terminal_may_be_narrow_and_names_may_be_wide(self, tmp_path: Path, width: int) -> None:
        import fcntl
        import pty
        import struct
        import termios

        shutil.copy(EXAMPLES / "chair.off", tmp_path / "椅子.off")
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"} | {"TERM": "xterm"}
        files = [str(tmp_path / "椅子.off"), str(EXAMPLES / "chair.off")]
        subprocess.run([*COMMAND, "classify", *files], stdout=theirs, env=environment, check=True)
        os.close(theirs)
        told = b""
        with contextlib.suppress(OSError):  # the end of a terminal is an error on Linux
            while some := os.read(ours, 1 << 16):
                told += some
        os.close(ours)
        lines = [Text.from_ansi(line) for line in told.decode().splitlines()]
        assert all(line.cell_len <= width for line in lines)
        rows = [line.plain for line in lines if "chair " in line.plain and "%" in line.plain]
        assert len(rows) == 2
        confidence = next(iter(pc.load("small").predict([EXAMPLES / "chair.off"]))).confidence
        assert all(f" {confidence:.0%} " in row for row in rows), "whole, however little room there is"
        assert all(("█" in row) == (width >= 80) for row in rows)
        assert width < 60 or "椅子.off" in rows[0]

    def test_a_person_sees_a_progress_bar_and_a_machine_does_not(self) -> None:
        import pty

        ours, theirs = pty.openpty()
        command = [*COMMAND, "classify", str(EXAMPLES), "--format", "json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
        os.close(theirs)
        assert b"classifying" in os.read(ours, 1 << 16)
        os.close(ours)
        assert all(json.loads(line) for line in done.stdout.splitlines())
        assert "classifying" not in run("classify", EXAMPLES, "--format", "json").stderr

    @pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
    @pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP"])
    def test_what_stops_it_leaves_nothing_behind(self, tmp_path: Path, how: str) -> None:
        target = tmp_path / "out.json"
        target.write_text("as it was")
        command = [*COMMAND, "classify", "-", "--format", "json", "-o", str(target), "--workers", "2"]
        # A minute of work, in a file: a pipe would be written only as fast as it is read. As in a terminal, the whole group
        # gets the signal.
        with tempfile.TemporaryFile("w+") as many:
            many.write(f"{EXAMPLES / 'bottle.stl'}\n" * 50_000)
            many.seek(0)
            process = subprocess.Popen(command, stdin=many, stderr=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stderr
        end = time.monotonic() + 60
        while not list(tmp_path.glob(".pointcentroid-*")):
            assert time.monotonic() < end
            time.sleep(0.1)
        time.sleep(1)
        os.killpg(process.pid, getattr(signal, how))
        errors = process.stderr.read()
        # A shell calls both 130. The second is `python -m`'s own doing, after ours, if the interrupt has passed through
        # Python code that a compiled library ran.
        assert process.wait(timeout=20) in (130, -signal.SIGINT)
        assert errors == "stopped\n"
        assert target.read_text() == "as it was"
        assert [p.name for p in tmp_path.iterdir()] == ["out.json"]

    def test_ctrl_c_while_it_starts(self) -> None:
        interrupting = """
            import sys, importlib.abc
            class Interrupting(importlib.abc.MetaPathFinder):
                def find_spec(self, name, path, target=None):
                    if name == "pointcentroid.cli.classify":
                        raise KeyboardInterrupt
            sys.meta_path.insert(0, Interrupting())
            from pointcentroid.__main__ import main
            main()
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(interrupting)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (130, "stopped\n")


class TestOutput:
    def test_the_name_of_the_file_says_the_format(self, tmp_path: Path) -> None:
        chair = EXAMPLES / "chair.off"
        for arguments, name in (
            (("classify", chair), "a.csv"),
            (("embed", chair), "b.csv"),
            (("models",), "c.csv"),
            (("assignments", chair, "--resamplings", 0), "d.csv"),
        ):
            assert run(*arguments, "-o", tmp_path / name).returncode == 0
            (first, *_) = csv.DictReader(io.StringIO((tmp_path / name).read_text()))
            assert len(first) > 3
        assert run("classify", chair, "-o", tmp_path / "a.json").returncode == 0
        assert json.loads((tmp_path / "a.json").read_text())["label"] == "chair"
        assert run("classify", chair, "-o", tmp_path / "a.txt").returncode == 0
        assert "chair" in (tmp_path / "a.txt").read_text()
        assert run("classify", chair, "-o", tmp_path / "b.txt", "--format", "json").returncode == 0
        assert json.loads((tmp_path / "b.txt").read_text())["label"] == "chair"

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (("models", "-o", "{}/m.parquet"), "parquet cannot be written here"),
            (("classify", EXAMPLES / "chair.off", "-o", "{}/m.parquet", "--format", "csv"), "is written as Parquet"),
            (("view", EXAMPLES / "chair.off", "--png", "{}/a.jpg"), "ends in .png"),
            (("view", EXAMPLES / "chair.off", "--html", "{}/none/a.html"), "Invalid value for --html"),
        ],
    )
    def test_names_that_contradict_are_refused(self, arguments: tuple, says: str, tmp_path: Path) -> None:
        done = run(*(str(argument).format(tmp_path) for argument in arguments))
        assert done.returncode == 2
        assert says in unboxed(done.stderr)
        assert not list(tmp_path.iterdir())

    @pytest.mark.skipif(os.name != "posix", reason="links and pipes")
    def test_links_are_followed_and_pipes_written_to(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "m.csv").write_text("as it was")
        (tmp_path / "link.csv").symlink_to("real/m.csv")
        assert run("models", "-o", tmp_path / "link.csv").returncode == 0
        assert (tmp_path / "link.csv").is_symlink()
        assert (tmp_path / "real" / "m.csv").read_text().startswith("name,")
        os.mkfifo(tmp_path / "pipe.csv")
        reader = subprocess.Popen(["cat", tmp_path / "pipe.csv"], stdout=subprocess.PIPE, text=True)
        assert run("models", "-o", tmp_path / "pipe.csv").returncode == 0
        assert reader.communicate(timeout=20)[0] == (tmp_path / "real" / "m.csv").read_text()
        assert (tmp_path / "pipe.csv").is_fifo()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["link.csv", "pipe.csv", "real"]


class TestOtherCommands:
    def test_embed_writes_the_features_that_python_sees(self, tmp_path: Path, bad: Path) -> None:
        import pointcentroid as pc

        done = run("embed", EXAMPLES / "chair.off", bad, EXAMPLES / "table.obj", "-o", tmp_path / "f.npz")
        assert done.returncode == 1
        assert "bad.off" in done.stderr
        with np.load(tmp_path / "f.npz") as arrays:
            assert [Path(f).name for f in arrays["files"]] == ["chair.off", "table.obj"]
            expected = pc.load("small")(EXAMPLES / "chair.off").feature
            np.testing.assert_allclose(arrays["features"][0], expected, atol=1e-4)
            assert arrays["features"].dtype == np.float32

    def test_embed_as_json_and_csv(self) -> None:
        row = json.loads(run("embed", EXAMPLES / "chair.off", "--format", "json").stdout)
        table = list(csv.reader(io.StringIO(run("embed", EXAMPLES / "chair.off", "--format", "csv").stdout)))
        assert [float(x) for x in table[1][2:]] == row["feature"]

    def test_models_lists_the_shipped_weights(self) -> None:
        rows = [json.loads(line) for line in run("models", "--format", "json").stdout.splitlines()]
        assert {row["name"] for row in rows} == {"autoencoder", "parts", "small", "tiny"}
        table = run("models")
        for row in rows:
            assert row["name"] in table.stdout
            # Of weights that were trained on the validation shapes too the figures are those of others.
            assert (row["name"] in table.stderr) == ("recipe_runs" in row)

    @pytest.mark.parametrize("command", ["classify", "embed", "train", "evaluate", "models"])
    def test_help_of_every_command(self, command: str) -> None:
        done = run(command, "--help")
        assert done.returncode == 0
        assert "--help" in done.stdout

    def test_json_is_short_for_a_format(self, tmp_path: Path) -> None:
        for command in (["classify", EXAMPLES / "chair.off"], ["embed", EXAMPLES / "chair.off"], ["models"]):
            short, long = run(*command, "--json"), run(*command, "--format", "json")
            assert short.returncode == 0, short.stderr
            assert short.stdout == long.stdout
            assert all(json.loads(line) for line in short.stdout.splitlines())
        both = run("classify", EXAMPLES / "chair.off", "--json", "--format", "csv")
        assert both.returncode == 2
        assert "choose one" in both.stderr
        parquet = run("classify", EXAMPLES / "chair.off", "--json", "-o", tmp_path / "x.parquet")
        assert (parquet.returncode, list(tmp_path.iterdir())) == (2, [])

    def test_every_command_that_prints_results_prints_json(self) -> None:
        (group,) = [typer.main.get_command(app)]
        commands = dict(group.commands)  # type: ignore[attr-defined]
        for name, command in list(commands.items()):
            commands |= {f"{name} {below}": one for below, one in getattr(command, "commands", {}).items()}
        options = {name: {option for p in command.params for option in p.opts} for name, command in commands.items()}
        assert {name for name, own in options.items() if "--format" in own} == {
            name for name, own in options.items() if "--json" in own
        }

    def test_no_word_of_help_is_taken_for_markup(self) -> None:
        """Rich drops `[default: by need]`."""
        commands = [typer.main.get_command(app)]
        for command in commands:
            commands += getattr(command, "commands", {}).values()
            for text in [command.help or "", *(getattr(parameter, "help", None) or "" for parameter in command.params)]:
                assert Text.from_markup(text).plain == text
        assert len(commands) > 15

    def test_version(self) -> None:
        import pointcentroid as pc

        assert run("--version").stdout.strip() == f"pointcentroid {pc.__version__}"


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["reconstruct", EXAMPLES / "chair.off", "-o", "taken"], "-o"),
        (["reconstruct", EXAMPLES / "chair.off", "-o", "taken/deeper"], "-o"),
        (["assignments", EXAMPLES / "chair.off", "--save", "taken"], "--save"),
        (["assignments", EXAMPLES / "chair.off", "--split", "taken/x"], "--split"),
        (["evaluate", "small", "--data", "x.npz", "--plots", "taken"], "--plots"),
    ],
)
def test_a_file_is_no_folder_for_outputs(tmp_path: Path, arguments: list, option: str) -> None:
    (tmp_path / "taken").write_text("precious")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert f"Invalid value for {option}" in unboxed(done.stderr)
    assert "is a file; name a folder" in unboxed(done.stderr)
    assert (tmp_path / "taken").read_text() == "precious"


class TestOutputs:
    """What a command writes replaces nothing that it reads."""

    def test_a_shape_that_is_read_is_not_written_over(self, tmp_path: Path) -> None:
        shape, table = tmp_path / "chair.off", tmp_path / "points.csv"
        content = (EXAMPLES / "chair.off").read_bytes()
        for ending in ("", ".npz", "-stage2.ply", "-parts.glb"):
            shape.with_name(f"chair.off{ending}").write_bytes(content)
        table.write_text("x,y,z\n1,2,3\n")
        named = str(tmp_path / "ch*.off")
        for arguments in (
            ("classify", shape, "-o", shape),
            ("classify", tmp_path, "-o", table),
            ("classify", named, "-o", shape, "--format", "csv"),
            ("embed", shape, "-o", shape, "--format", "npz"),
            ("assignments", shape, "-o", shape),
            ("assignments", shape, tmp_path / "chair.off.npz", "--save", tmp_path),
            ("assignments", shape, tmp_path / "chair.off-stage2.ply", "--save", tmp_path),
            ("assignments", shape, tmp_path / "chair.off-parts.glb", "--split", tmp_path),
        ):
            done = run(*arguments)
            assert done.returncode == 2, arguments
            assert "stay" in unboxed(done.stderr)
        listed = run("classify", "-", "-o", shape, "--format", "csv", stdin=f"{EXAMPLES / 'lamp.glb'}\n{shape}\n")
        assert (listed.returncode, "which stays" in unboxed(listed.stderr)) == (2, True)
        assert shape.read_bytes() == content
        weights = tmp_path / "tiny.safetensors"
        weights.write_bytes(find_weights("tiny").read_bytes())
        before = weights.read_bytes()
        for arguments in (
            ("models", weights, "-o", weights),
            ("classify", shape, "--weights", weights, "-o", weights),
            ("evaluate", weights, "--data", tmp_path / "x.npz", "-o", weights),
        ):
            assert run(*arguments).returncode == 2
            assert weights.read_bytes() == before
        (tmp_path / "below").mkdir()
        points = tmp_path / "below" / "points.csv"  # which is not read without --recursive
        points.write_text("x,y,z\n1,2,3\n")
        assert run("classify", tmp_path, "-o", points).returncode == 1
        assert "label" in points.read_text()
        alone = tmp_path / "alone"
        alone.mkdir()
        shutil.copy(EXAMPLES / "chair.off", alone)
        for _ in range(2):  # the second time beside its own results, which are no shapes
            assert run("embed", alone, "-o", alone / "features.npz").returncode == 0
        table.write_text("file,label\nchair.off,chair\n")  # answers of before, which nobody reads
        assert run("classify", tmp_path, "-o", table).returncode == 1
        assert "chair.off" in table.read_text()

    def test_shapes_to_train_on_and_examples_stay(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / "shapes" / name).mkdir(parents=True)
            shutil.copy(EXAMPLES / "chair.off", tmp_path / "shapes" / name / "chair.off")
        shape, example = tmp_path / "shapes" / "a" / "chair.off", tmp_path / "named" / "chair.off-parts.glb"
        example.parent.mkdir()
        shutil.copy(EXAMPLES / "lamp.glb", example)
        names, to = ("--names", example), tmp_path / "named"
        for arguments, stays in (
            (("train", tmp_path / "shapes", "-o", shape, "--format", "csv"), shape),
            (("data", "prepare", tmp_path / "shapes", "--to", tmp_path / "to", "-o", shape, "--format", "csv"), shape),
            (("assignments", shape, "--split", tmp_path, *names, "-o", example, "--format", "csv"), example),
            (("assignments", EXAMPLES / "chair.off", "--split", to, *names), example),
        ):
            before = stays.read_bytes()
            done = run(*arguments)
            assert (done.returncode, stays.read_bytes()) == (2, before), done.stderr
            assert "stay" in unboxed(done.stderr)

    def test_a_file_keeps_its_modes(self, tmp_path: Path) -> None:
        path = tmp_path / "secret.csv"
        path.touch(0o600)
        assert run("classify", EXAMPLES / "chair.off", "-o", path).returncode == 0
        assert path.stat().st_mode & 0o777 == 0o600
        assert "chair" in path.read_text()

    def test_a_name_may_be_as_long_as_names_may_be(self, tmp_path: Path) -> None:
        path = tmp_path / ("n" * 250 + ".csv")
        assert run("classify", EXAMPLES / "chair.off", "-o", path).returncode == 0
        assert path.is_file()

    def test_a_folder_that_is_write_protected_is_told_of_first(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)  # for root, none is
        for check in (lambda: check_writable(tmp_path / "a.csv"), lambda: check_folder(tmp_path / "a" / "b", "--save")):
            with pytest.raises(typer.BadParameter, match="nothing can be written to the folder"):
                check()
        check_writable(Path(os.devnull))

    def test_one_that_cannot_be_written_costs_no_other(self, tmp_path: Path) -> None:
        files = [tmp_path / "a.off", tmp_path / ("y" * 250 + ".off"), tmp_path / "b.off"]
        for file in files:
            file.write_bytes((EXAMPLES / "chair.off").read_bytes())
        for command in (["assignments", "--resamplings", 0, "--format", "json", "--save"], ["reconstruct", "--json", "-o"]):
            done = run(command[0], *files, *command[1:], tmp_path / "out")
            rows = list(map(json.loads, done.stdout.splitlines()))
            assert done.returncode == 1
            assert {Path(row["file"]).name[0] for row in rows if "error" not in row} >= {"a", "b"}
            assert [row["error"] for row in rows if "error" in row] == ["File name too long"]

    def test_a_cloud_costs_only_the_cut_mesh(self, tmp_path: Path) -> None:
        cloud = next(EXAMPLES.glob("*.csv"))
        done = run("assignments", cloud, "--split", tmp_path / "cut", "--save", tmp_path / "saved", "--format", "json")
        rows = list(map(json.loads, done.stdout.splitlines()))
        assert done.returncode == 1
        assert "without faces" in rows[-1]["error"]
        assert all("error" not in row for row in rows[:-1])
        assert len(rows) > 1
        assert list((tmp_path / "saved").iterdir())


class TestSmallThings:
    def test_beside_a_net_of_parts_shapes_are_classified_as_they_are_without(self, tmp_path: Path) -> None:
        """Whatever that net wants to see of them."""
        tensors, card = load_weights(find_weights("parts"))
        other = dataclasses.replace(card, preprocess=PreprocessConfig(sample=256, points=256))
        save_weights(tmp_path / "parts.safetensors", tensors, other)
        files = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".off", ".obj", ".ply"))
        answers = [
            run("classify", *files, "--format", "json", "--weights", weights).stdout
            for weights in ("small", tmp_path / "parts.safetensors")
        ]
        assert answers[0] == answers[1]

    def test_nothing_is_told_to_others(self, tmp_path: Path) -> None:
        """ONNX Runtime keeps what it wants to send in the home of its user."""
        home = tmp_path / "home"
        home.mkdir()
        files = [EXAMPLES / "chair.off"] * 20
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "XDG_"))}
        done = run("classify", *files, env=environment | {"HOME": str(home), "TMPDIR": str(tmp_path)})
        assert done.returncode == 0
        assert list(home.rglob("*")) == []
        assert sorted(tmp_path.iterdir()) == [home]

    @pytest.mark.parametrize("closed", ["stdout", "stdin", "stderr"])
    def test_streams_may_be_closed(self, closed: str) -> None:
        number = {"stdin": "<", "stdout": ">", "stderr": "2>"}[closed]
        command = f'"$@" {number}&-'
        what = "-" if closed == "stdin" else str(EXAMPLES / "chair.off")
        done = subprocess.run(
            ["sh", "-c", command, "sh", *COMMAND, "classify", what], capture_output=True, text=True, check=False
        )
        assert done.returncode == (2 if closed == "stdin" else 0)
        assert "internal error" not in done.stderr

    def test_names_do_not_steer_the_terminal(self, tmp_path: Path) -> None:
        path = tmp_path / "a\x1b[31m.off"
        path.write_bytes((EXAMPLES / "chair.off").read_bytes())
        absent = tmp_path / "b\x1b[31m.off"
        done = run("classify", path, absent)
        assert "\x1b" not in done.stdout
        assert "a\\x1b[31m.off" in done.stdout
        assert json.loads(run("classify", path, "--format", "json").stdout)["file"] == str(path)

    def test_models_of_one_name_its_classes(self) -> None:
        (row,) = map(json.loads, run("models", "tiny", "--format", "json").stdout.splitlines())
        assert row["kind"] == "classifier"
        assert row["class_names"] == list(pc.load("tiny").classes)
        assert row["classes"] == 40
        assert "night_stand" in run("models", "tiny").stdout

    def test_a_list_may_begin_with_a_mark(self) -> None:
        done = run("classify", "-", "--format", "json", stdin=f"\ufeff{EXAMPLES / 'chair.off'}\r\n")
        assert json.loads(done.stdout)["label"] == "chair"

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["classify", ""], "a path is empty"),
            (["classify", "a.off", "-o", ""], "is empty; name a file"),
            (["calibrate", "small", "--data", "x", "--to", "a.onnx"], "expected a name that ends in .safetensors"),
            (["data", "prepare", "x", "--to", "y", "--sha256", "abc"], "add --download"),
            (["train", "x", "--from", "small", "start=tiny"], "is the same as start="),
            (["train", str(EXAMPLES), "data=other"], "leave data= out"),
            (["serve", "--host", ""], "is empty; 0.0.0.0 listens on all addresses"),
            (["serve", "--host", "no.such.host.invalid", "--port", "0"], "choose another --host"),
            (["serve", "--host", "a..b", "--port", "0"], "choose another --host"),
            (["classify", "a.off", "-o", "a.xlsx"], ".xlsx says none of the formats table, json, csv, parquet"),
            (["classify", "a.off", "-o", "-"], "without it, results are printed"),
            (["embed", "a.off", "-o", "f.npy"], ".npy says none of the formats npz, json, csv, parquet"),
            (["reconstruct", "a.off", "-o", "new.xyz"], "expected a folder"),
            (["train", "modelnet40-small", "-o", "model.safetensors"], "weights go to output=FOLDER"),
            (["evaluate", "small", "--data", "a.npz", "--corruptions", "--up", "y"], "leave --up and --turned out"),
            (["assignments", "a.off", "--correspondence", "--resamplings", "7"], "measures no stability"),
            (["classify", "a.off", "--weights", "small", "--device", "meta"], "no device 'meta'"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, arguments: list[str], says: str) -> None:
        done = run(*arguments)
        assert done.returncode == 2
        assert says in unboxed(done.stderr)


def test_columns_of_assignments_are_those_that_any_row_has(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where it comes after the rows that a table is laid out by."""
    from pointcentroid.cli.assignments import _print

    rows = [{"file": f"{number:04d}.off", "stage": 1, "agreement": None, "stability": None} for number in range(1500)]
    rows[-1]["agreement"] = 0.25
    _print(rows, ["file", "stage", "agreement", "stability"], None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "stage", "agreement"]
    assert lines[-1].split() == ["1499.off", "1", "0.25"]
