"""Folders of real files, and what is right for them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ..conftest import EXAMPLES
from ..test_cli import run

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
