"""What processes of tests answer. Apart: they import the module that it is in, and should stay small and start soon."""

from __future__ import annotations

import os
import time
from collections.abc import Callable


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
