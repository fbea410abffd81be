"""Ctrl-C and its like, while something must not be interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """Hold Ctrl-C, SIGTERM and SIGHUP back until the block ends, where they arrive as if they had come then.

    For the import of libraries that swallow whatever is raised while they look for others, or that are left half loaded.
    Elsewhere than in the main thread, where Python never raises them, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    there = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]  # Windows has no SIGHUP
    numbers = [number for number in there if number is not None and signal.getsignal(number) is not None]
    kept = {number: signal.signal(number, lambda number, _: arrived.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)
