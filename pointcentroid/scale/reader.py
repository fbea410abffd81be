"""What a task of Ray reads with: a limited process that also fetches from buckets."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from pointcentroid.config import PreprocessConfig
from pointcentroid.errors import one_line
from pointcentroid.predict.limited import Answer, CrashError, LimitedProcess, OverrunError
from pointcentroid.predict.preparing import Prepared, attempt, start_worker
from pointcentroid.results import Failure

SECONDS = 120.0
"""The time that reading a file may take, fetching it included."""


class Reader:
    """Reads files in a limited process.

    Args:
        settings: of the weights that will see the clouds.
        votes: samplings a file.
        seconds: time a file may take.
    """

    def __init__(self, settings: PreprocessConfig, votes: int = 1, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self.process = LimitedProcess(make_fetcher, (settings, votes))

    def __call__(self, source: str) -> Prepared | Failure:
        """Read a file.

        Args:
            source: a path, or an address that pyarrow or fsspec knows, such as `s3://bucket/key`.
        """
        try:
            return self.process.ask(source, self.seconds)
        except OverrunError:
            return Failure(source, f"reading it took longer than {self.seconds:g} s; it was given up")
        except CrashError:
            return Failure(source, "reading it crashed the reader; the file is damaged")


def make_fetcher(settings: PreprocessConfig, votes: int) -> Answer:
    """A process that turns a path or an address into what `pointcentroid.predict.preparing.attempt` makes of it.

    Args:
        settings: of the weights that will see the clouds.
        votes: samplings a file.
    """
    start_worker()

    def answer(source: str) -> Prepared | Failure:
        if "://" not in source:
            return attempt(source, settings, votes)
        from pointcentroid.scale.sources import open_remote

        with tempfile.TemporaryDirectory(prefix="pointcentroid-") as folder:
            path = Path(folder) / ("file" + Path(source).suffix)  # what a bucket calls its objects is never used as a path
            try:
                with open_remote(source) as remote, path.open("wb") as file:
                    shutil.copyfileobj(remote, file, 2**20)
            except Exception as error:  # each file system has its own
                return Failure(source, f"cannot be fetched: {one_line(error)}")
            result: Any = attempt(path, settings, votes)
        return replace(result, **{"name" if isinstance(result, Prepared) else "file": source})

    return answer
