"""Reading in processes: in order, whatever happens to a reader."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pointcentroid.config import PreprocessConfig
from pointcentroid.errors import ReadError
from pointcentroid.predict import preparing
from pointcentroid.predict.preparing import Prepared, Preparer, attempt, prepare
from pointcentroid.results import Failure

from .conftest import EXAMPLES
from .doubles import counted, telling

SETTINGS = PreprocessConfig(sample=64, points=64)


class Deadly:
    """A source that ends the process which receives it, as a crash in compiled code does."""

    def __reduce__(self) -> tuple:
        return os._exit, (3,)


def test_processes_return_what_one_process_returns_in_order() -> None:
    files = sorted(p for p in EXAMPLES.iterdir() if p.is_file()) * 6  # more than are read ahead
    alone = list(Preparer(SETTINGS, votes=2, workers=0)(files))
    together = list(Preparer(SETTINGS, votes=2, workers=2)(files))
    assert [p.name for p in together] == [str(f) for f in files]
    for a, b in zip(alone, together, strict=True):
        assert isinstance(a, Prepared)
        assert isinstance(b, Prepared)
        assert a.clouds.tobytes() == b.clouds.tobytes()
        assert a.clouds.shape == (2, 64, 3)


def test_a_crash_costs_the_file_that_crashed_and_no_other() -> None:
    files: list = [EXAMPLES / "chair.off"] * 5
    files[2:2] = [Deadly()]
    files.append(Deadly())
    results = list(Preparer(SETTINGS, workers=2)(files))
    assert [isinstance(r, Failure) for r in results] == [False, False, True, False, False, False, True]
    assert isinstance(results[2], Failure)
    assert "crashed the reader" in results[2].error


class Counted:
    """A file; who receives it leaves a mark."""

    def __init__(self, path: Path, log: Path) -> None:
        self.path, self.log = path, log

    def __reduce__(self) -> tuple:
        return counted, (self.path, self.log)


def test_a_crash_leaves_the_answers_that_are_there(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    files: list = [Counted(EXAMPLES / "chair.off", log) for _ in range(60)]
    files.insert(50, Deadly())
    results = Preparer(SETTINGS, workers=2)(files)
    until = time.monotonic() + 60
    while log.stat().st_size < 48 and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.2)
    assert [isinstance(result, Failure) for result in results] == [number == 50 for number in range(61)]
    assert log.stat().st_size <= 60 + 12  # what the readers had at hand or before them


def test_a_file_that_needs_more_memory_than_a_reader_has_is_read_alone(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(preparing, "_WORKER_MEMORY", 2**26)
    points = np.random.default_rng(0).normal(size=(3_000_000, 3))
    np.save(tmp_path / "large.npy", points)
    files = [EXAMPLES / "chair.off"] * 8 + [tmp_path / "large.npy"]
    alone = prepare(files[-1], SETTINGS)
    *_, large = Preparer(SETTINGS, workers=1)(files)
    assert isinstance(large, Prepared), large
    np.testing.assert_array_equal(large.clouds, alone.clouds)
    monkeypatch.setattr(preparing, "_free_memory", lambda: 0)
    *chairs, large = Preparer(SETTINGS, workers=1)(files)
    assert all(isinstance(chair, Prepared) for chair in chairs)
    assert isinstance(large, Failure)
    assert "more memory than there is" in large.error


@pytest.mark.skipif(not hasattr(os, "setsid"), reason="POSIX process groups")
def test_signals_to_the_group_do_not_reach_readers(tmp_path: Path) -> None:
    class Telling:
        def __reduce__(self) -> tuple:
            return telling, (tmp_path / "group", EXAMPLES / "chair.off")

    (result,) = Preparer(SETTINGS, workers=1)([Telling()])
    assert isinstance(result, Prepared)
    assert int((tmp_path / "group").read_text()) != os.getpgrp()


def test_an_iterator_left_early_stops_its_processes() -> None:
    before = threading.enumerate()
    results = Preparer(SETTINGS, workers=2)([EXAMPLES / "chair.off"] * 30)
    assert isinstance(next(results), Prepared)
    results.close()
    with pytest.raises(StopIteration):
        next(results)
    assert multiprocessing.active_children() == []
    assert threading.enumerate() == before  # none that still closes pipes while Python ends


def test_an_iterator_never_asked_stops_its_processes_too() -> None:
    before = threading.enumerate()
    Preparer(SETTINGS, workers=2)([EXAMPLES / "chair.off"] * 600).close()
    assert multiprocessing.active_children() == []
    assert threading.enumerate() == before


def test_a_crash_while_a_slow_source_is_still_filling_costs_one_file() -> None:
    def slow():
        yield EXAMPLES / "chair.off"
        yield Deadly()
        for _ in range(3):
            time.sleep(1.0)  # the pool breaks meanwhile, before the first result is asked for
            yield EXAMPLES / "chair.off"

    results = list(Preparer(SETTINGS, workers=2)(slow()))
    assert [isinstance(result, Failure) for result in results] == [False, True, False, False, False]


def test_a_script_that_processes_cannot_be_started_from_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(f"""
import torch  # with its threads around, processes are started anew, and run the script
from pointcentroid.config import PreprocessConfig
from pointcentroid.predict.preparing import Preparer
print(len(list(Preparer(PreprocessConfig(), workers=2)([{str(EXAMPLES / "chair.off")!r}] * 20))))
""")
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "in a script, what it does must stand below if __name__" in done.stderr.splitlines()[-1]


def test_a_large_process_may_start_others() -> None:
    """What readers inherit from it is not counted against their own limit of memory."""
    code = (
        "import numpy as np; from pointcentroid.config import PreprocessConfig; "
        "from pointcentroid.predict.preparing import Preparer; large = np.empty(5 * 2**30, np.uint8); "
        f"print(list(Preparer(PreprocessConfig(64, 64), workers=1)([{str(EXAMPLES / 'chair.off')!r}]))[0].clouds.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "(1, 64, 3)\n", done.stderr


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (SimpleNamespace(pos=torch.rand(48, 2)), "expected three coordinates a point"),
        (SimpleNamespace(pos=torch.rand(48, 6)), "expected three coordinates a point"),
        (SimpleNamespace(pos=None), "has no pos"),
        (SimpleNamespace(pos=[[1, 2, 3], [4, 5]]), "is no array of numbers"),
    ],
)
def test_what_has_no_three_coordinates_is_refused(source: SimpleNamespace, says: str) -> None:
    with pytest.raises(ReadError, match=says):
        prepare(source, SETTINGS)


def test_tensors_may_have_gradients_and_be_half_as_precise() -> None:
    points = torch.rand(48, 3).bfloat16()
    plain = prepare(points.float().numpy(), SETTINGS).clouds
    for pos in (points, points.float().requires_grad_()):
        assert np.array_equal(prepare(SimpleNamespace(pos=pos), SETTINGS).clouds, plain)


def test_one_source_raises_and_a_batch_goes_on(tmp_path: Path) -> None:
    with pytest.raises(ReadError):
        prepare(tmp_path / "none.off", SETTINGS)
    failure = attempt(tmp_path / "none.off", SETTINGS)
    assert isinstance(failure, Failure)
    assert failure.file == str(tmp_path / "none.off")
    assert failure.file not in failure.error


def test_an_unforeseen_error_is_reported_not_raised(monkeypatch) -> None:
    def broken(_):
        raise ZeroDivisionError("somewhere\ndeep")

    monkeypatch.setattr("pointcentroid.predict.preparing.io.read", broken)
    failure = attempt("x.off", SETTINGS)
    assert isinstance(failure, Failure)
    assert failure.error == "unexpected ZeroDivisionError: somewhere deep; if the file is sound, please report this"


def test_votes_are_different_samplings_of_the_same_shape() -> None:
    clouds = prepare(EXAMPLES / "chair.off", SETTINGS, votes=3).clouds
    assert clouds.shape == (3, 64, 3)
    assert len({c.tobytes() for c in clouds}) == 3
    first = prepare(EXAMPLES / "chair.off", SETTINGS).clouds
    np.testing.assert_array_equal(clouds[:1], first)
