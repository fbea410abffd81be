"""A process of its own that works on files of strangers: limited in memory and time, replaced when it overruns or dies.

It is started by a command: not forked, for whoever starts it may have threads, as a server and a worker of Ray do, nor by
`multiprocessing`, which would first run the main module of the process that asks. It ends when its standard input does, at
work or idle, so that it does not outlive a process that is killed.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pointcentroid.errors import PointCentroidError
from pointcentroid.predict.preparing import ONE_THREAD

Answer = Callable[[Any], Any]
"""What a process does with each question."""

_START_SECONDS = 120.0  # importing torch on a busy machine, from a disk that is asked for the first time
_TAKEN = b"+"
_COMMAND = "import sys; sys.path[:] = sys.argv[1:]; from pointcentroid.predict.limited import work; work()"


class OverrunError(Exception):
    """A process took longer than it may, and was killed."""


class CrashError(Exception):
    """A process died at work."""


class _IdleError(CrashError):
    """It had died before: it did not take the question."""


class LimitedProcess:
    """One process that answers questions, one at a time; started when it is first needed, and again after its end.

    Blocks; for one thread at a time, but for `close`.

    Args:
        make: called in the process with `arguments`; limits what it may take (`preparing.start_worker`), and returns what
            answers questions. A function of a module.
        arguments: of `make`.
        most_mb: a process that has needed more memory than this is replaced, for it would keep it.
    """

    def __init__(self, make: Callable[..., Answer], arguments: tuple, most_mb: float = float("inf")) -> None:
        self.made_by = make, arguments, most_mb
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The number of the process, None where there is none now."""
        return self._process and self._process.pid

    def start(self) -> subprocess.Popen[bytes]:
        """Start the process if there is none, and wait until it is ready.

        Raises:
            PointCentroidError: `make` raised it.
            RuntimeError: it died, or is not ready in two minutes.
        """
        if self._process is not None:
            return self._process
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", "-c", _COMMAND, *sys.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | ONE_THREAD,
            start_new_session=True,  # Ctrl-C, or SIGTERM to the group, is for whoever asks: what was accepted is finished
        )  # fmt: skip
        try:
            problem = self._asked(process, self.made_by, _START_SECONDS)
        except (OverrunError, CrashError):  # no file's fault
            raise RuntimeError("a limited process could not be started") from None
        if problem is not None:
            self.close()
            raise problem
        return process

    def ask(self, question: Any, seconds: float) -> Any:
        """Ask the process.

        Args:
            question: what pickles.
            seconds: the time that the answer may take, once the process is ready.

        Raises:
            OverrunError: it took too long; the process was killed.
            CrashError: the process died of it.
            PointCentroidError, RuntimeError: the process could not start, see `start`.
        """
        try:
            return self._asked(self.start(), question, seconds)
        except _IdleError:
            return self._asked(self.start(), question, seconds)

    def _asked(self, process: subprocess.Popen[bytes], question: Any, seconds: float) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        overrun = threading.Event()

        def give_up() -> None:
            overrun.set()
            process.kill()

        timer = threading.Timer(seconds, give_up)
        timer.start()
        taken = False
        try:
            pickle.dump(question, process.stdin)
            process.stdin.flush()
            taken = process.stdout.read(1) == _TAKEN
            answer, keep = pickle.load(process.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):  # ValueError: `close` was called meanwhile
            self.close()
            raise (OverrunError if overrun.is_set() else CrashError if taken else _IdleError) from None
        finally:
            timer.cancel()
            timer.join()
        if not keep or overrun.is_set():
            self.close()
        return answer

    def close(self) -> None:
        """End the process, at once."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr], both are there


def work() -> None:
    """What a process does: answer until its standard input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between answers
    questions: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, questions), daemon=True).start()

    def next_question() -> Any:
        question = questions.get()
        answers.write(_TAKEN)
        answers.flush()
        return question

    make, arguments, most_mb = next_question()
    try:
        answer = make(*arguments)
    except PointCentroidError as error:
        _say(answers, error, False)
        return
    _say(answers, None, True)
    while True:
        result = answer(next_question())
        _say(answers, result, _peak_mb() < most_mb)


def _listen(pipe: IO[bytes], questions: queue.SimpleQueue) -> None:
    with suppress(EOFError):
        while True:
            questions.put(pickle.load(pipe))
    os._exit(0)  # whoever asked is no more


def _say(answers: IO[bytes], answer: Any, keep: bool) -> None:
    pickle.dump((answer, keep), answers, pickle.HIGHEST_PROTOCOL)
    answers.flush()


def _peak_mb() -> float:
    """The most memory that this process has needed; 0 where that cannot be known."""
    # Not ru_maxrss: on Linux that of a new process begins with what the process needed that started it.
    with suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return next((int(line.split()[1]) / 1e3 for line in status.splitlines() if line.startswith("VmHWM:")), 0.0)
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
