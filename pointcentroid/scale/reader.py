"""A process of its own that reads one file after the other, within limits of memory and time.

The process is started by a command, not forked from a worker of Ray, which has threads; and it ends when its standard input
does, so that it does not outlive a worker that is killed.
"""

from __future__ import annotations

import os
import pickle
import select
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from pointcentroid.config import PreprocessConfig
from pointcentroid.predict.preparing import Prepared, attempt, start_worker
from pointcentroid.results import Failure

SECONDS = 120.0
"""The time that reading a file may take, fetching it included."""

_STARTING = 120.0  # a machine that starts as many as it has cores, from a disk that is asked for the first time


class Reader:
    """Reads files in a process of its own, which is replaced when it dies or takes too long.

    Args:
        settings: of the weights that will see the clouds.
        votes: samplings a file.
        seconds: time a file may take.
    """

    def __init__(self, settings: PreprocessConfig, votes: int = 1, seconds: float = SECONDS) -> None:
        self.settings, self.votes, self.seconds = settings, votes, seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, source: str) -> Prepared | Failure:
        """Read a file.

        Args:
            source: a path, or an address that pyarrow or fsspec knows, such as `s3://bucket/key`.
        """
        process = self._process or self._start()
        assert process.stdin
        assert process.stdout
        try:
            pickle.dump((source, self.settings, self.votes), process.stdin)
            process.stdin.flush()
            if not select.select([process.stdout], [], [], self.seconds)[0]:
                self.close()
                return Failure(source, f"reading it took longer than {self.seconds:g} s; it was given up")
            return pickle.load(process.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            self.close()
            return Failure(source, "reading it crashed the reader; the file is damaged")

    def _start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        command = [sys.executable, "-m", "pointcentroid.scale.reader"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self._process = process
        assert process.stdout
        if not select.select([process.stdout], [], [], _STARTING)[0] or process.stdout.read(1) != b"+":
            self.close()
            raise RuntimeError("a reading process could not be started")
        return process

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _fetched(source: str, settings: PreprocessConfig, votes: int) -> Prepared | Failure:
    if "://" not in source:
        return attempt(source, settings, votes)
    from pointcentroid.scale.sources import open_remote

    with tempfile.TemporaryDirectory(prefix="pointcentroid-") as folder:
        path = Path(folder) / ("file" + Path(source).suffix)  # what a bucket calls its objects is never used as a path
        try:
            with open_remote(source) as remote, path.open("wb") as file:
                shutil.copyfileobj(remote, file, 2**20)
        except Exception as error:  # each file system has its own
            return Failure(source, f"cannot be fetched: {' '.join(str(error).split())[:160]}")
        result: Any = attempt(path, settings, votes)
    return replace(result, **{"name" if isinstance(result, Prepared) else "file": source})


def main() -> None:
    """Answer until standard input ends."""
    start_worker()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between answers
    answers.write(b"+")
    answers.flush()
    while True:
        try:
            question = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(_fetched(*question), answers)
        answers.flush()


if __name__ == "__main__":
    main()
