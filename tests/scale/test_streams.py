"""Folders that outgrow memory."""

from __future__ import annotations

import os
import subprocess
import threading
from itertools import count, islice
from pathlib import Path

import pytest

from pointcentroid.cli import inputs
from pointcentroid.config import PreprocessConfig
from pointcentroid.io import READERS
from pointcentroid.predict import preparing
from pointcentroid.predict.preparing import Prepared, Preparer

from ..conftest import EXAMPLES
from ..test_cli import COMMAND, run
from .folders import fill


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
