"""What processes of tests answer and unpickle. Apart: they import the module that it is in, and should stay small."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def make_double() -> Callable:
    """Twice a number; and words that mean trouble."""

    def answer(question: object) -> object:
        if question == "hang":
            time.sleep(60)
        if question == "crash":
            os._exit(1)
        if question == "swell":
            bytearray(600_000_000)[::4096] = b"x" * 146_485
            return os.getpid()
        if question == "doze":
            time.sleep(5)
            return None
        if question == "rest":
            time.sleep(0.5)
            return os.getpid()
        return question * 2  # type: ignore[operator]

    return answer


def counted(path: Path, log: Path) -> Path:
    """A path; a mark in the log says that somebody has received it."""
    with log.open("a") as file:
        file.write("x")
    return path


def telling(log: Path, path: Path) -> Path:
    """A path; the log says in which group the process is that has received it."""
    log.write_text(str(os.getpgrp()))
    return path
