"""Damaged copies of good files: every one ends in an answer or a one-line error, soon and within bounds of memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pointcentroid.io import READERS

from .conftest import EXAMPLES, SHARED

COPIES = 400
_MEASURED = """import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)"""  # in a process of its own: what others here have needed does not count


def damage(content: bytes, how: int, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    kind = how % 5
    if kind == 0:  # cut short
        return bytes(data[: int(rng.integers(0, len(data)))])
    if kind == 1:  # bits flipped
        for place in rng.integers(0, len(data), size=int(rng.integers(1, 30))):
            data[place] ^= 1 << int(rng.integers(8))
        return bytes(data)
    if kind == 2:  # lines swapped
        lines = content.split(b"\n")
        for _ in range(5):
            a, b = rng.integers(0, len(lines), size=2)
            lines[a], lines[b] = lines[b], lines[a]
        return b"\n".join(lines)
    if kind == 3:  # absurd numbers, early, where counts stand
        absurd = [b"999999999999", b"-1", b"1e308", b"nan", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"2147483647"]
        for _ in range(3):
            place = int(rng.integers(0, min(len(data), 400)))
            text = absurd[int(rng.integers(len(absurd)))]
            data[place : place + len(text)] = text
        return bytes(data)
    # a block from elsewhere
    a, b, size = (int(x) for x in rng.integers(0, len(data), size=3))
    return bytes(data[:a] + data[b : b + size] + data[a:])


def make_copies(folder: Path) -> list[Path]:
    rng = np.random.default_rng(2026)
    sources = sorted(p for p in EXAMPLES.rglob("*") if p.is_file())
    if (SHARED / "meshes").is_dir():
        sources += sorted(p for p in (SHARED / "meshes").iterdir() if p.suffix.lower() in READERS)
    suffixes = sorted(READERS)
    made = []
    for number in range(COPIES):
        source = sources[number % len(sources)]
        suffix = source.suffix if number % 11 else suffixes[number % len(suffixes)]  # some under a wrong name
        path = folder / f"{number:03d}_{source.stem}{suffix}"
        path.write_bytes(damage(source.read_bytes(), number, rng))
        made.append(path)
    return made


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> list[Path]:
    return make_copies(tmp_path_factory.mktemp("damaged"))


def test_damaged_copies_in_one_command(copies: list[Path]) -> None:
    listing = "\n".join(map(str, copies))
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, sys.executable, "-m", "pointcentroid", "classify", "-", "--format", "json"],
        input=listing, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    took = time.monotonic() - start
    peak = int(done.stderr.splitlines()[-1]) / 2**20
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["file"] for row in rows] == list(map(str, copies))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for row in rows:
        if "error" in row:
            assert row["error"]
            assert "\n" not in row["error"]
            assert not row["error"].startswith("unexpected"), row
        else:
            assert 0 < row["confidence"] <= 1
    # Both outcomes occur, or the damage was none or total.
    failed = sum("error" in row for row in rows)
    assert COPIES * 0.2 < failed < COPIES * 0.95
    assert took < 300, "400 small files took minutes: one of them hangs"
    assert peak < 3, "GiB"


def test_no_damaged_copy_takes_long_to_read(copies: list[Path]) -> None:
    from pointcentroid.config import PreprocessConfig
    from pointcentroid.predict.preparing import attempt

    slow = {}
    for path in copies:
        start = time.monotonic()
        attempt(path, PreprocessConfig())
        took = time.monotonic() - start
        if took > 10:
            slow[path.name] = took
    assert not slow
