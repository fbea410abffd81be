"""Limited processes that answer a server: readers, and one that explains."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pointcentroid.config import PreprocessConfig
from pointcentroid.errors import PointCentroidError
from pointcentroid.predict.limited import Answer, LimitedProcess
from pointcentroid.predict.preparing import Prepared, attempt, start_worker
from pointcentroid.results import Failure
from pointcentroid.serve.limits import MB, RefusalError

_EXPLAINER_MEMORY = 8 * 2**30  # torch reserves address space that it never touches
_READER_KEEPS, EXPLAINER_KEEPS = 500, 2000  # MB


class WorkerPool:
    """Processes that answer questions, each one at a time.

    Args:
        make: called in each process with `arguments`, limits what the process may take, and returns what answers questions.
        arguments: of `make`.
        count: how many processes.
        seconds: the time that an answer may take.
        waiting: the time that a question may wait for a process.
        most_mb: a process that has needed more memory than this is replaced, for it would keep it.
    """

    def __init__(
        self,
        make: Callable[..., Answer],
        arguments: tuple,
        count: int,
        seconds: float,
        waiting: float,
        most_mb: int = _READER_KEEPS,
    ) -> None:
        self.seconds, self.waiting, self._stopped = seconds, waiting, False
        self._workers = [LimitedProcess(make, arguments, most_mb) for _ in range(count)]
        self._large = asyncio.Semaphore(max(count - 1, 1))
        self._threads = ThreadPoolExecutor(count, "worker")
        self._idle: asyncio.Queue[LimitedProcess] = asyncio.Queue()
        for worker in self._workers:
            self._idle.put_nowait(worker)

    async def start(self) -> None:
        """Start all processes, and wait until they are ready."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self._threads, worker.start) for worker in self._workers))

    async def ask(self, question: Any, large: bool = False) -> Any:
        """Let the next idle process answer.

        Args:
            question: what it is asked.
            large: whether the answer may take long. One process is kept from such questions, where there are two, so that
                the others need not wait so long.

        Raises:
            OverrunError: it took too long; the process was killed.
            CrashError: the process died.
            PointCentroidError: the process could not start.
            RefusalError: none was idle in time.
        """
        try:
            async with asyncio.timeout(self.waiting):
                worker = await self._worker(large)
        except TimeoutError:
            raise RefusalError(503, f"no reader was free within {self.waiting:g} s; try again later", 10) from None
        answer = asyncio.get_running_loop().run_in_executor(self._threads, worker.ask, question, self.seconds)
        answer.add_done_callback(lambda done: self._freed(worker, large, done))
        return await asyncio.shield(answer)  # whoever asked may leave; the process is idle when it is done, not before

    async def _worker(self, large: bool) -> LimitedProcess:
        if not large:
            return await self._idle.get()
        await self._large.acquire()
        try:
            return await self._idle.get()
        except asyncio.CancelledError:
            self._large.release()
            raise

    def _freed(self, worker: LimitedProcess, large: bool, done: asyncio.Future) -> None:
        problem = done.exception()  # nobody else may look at it
        if large:
            self._large.release()
        if worker.pid is not None or self._stopped or isinstance(problem, PointCentroidError):
            self._idle.put_nowait(worker)
            return
        # It was killed, or grew: a new one starts before it is given a question, which could go to another meanwhile.
        starting = asyncio.get_running_loop().run_in_executor(self._threads, worker.start)
        starting.add_done_callback(lambda done: (done.exception(), self._idle.put_nowait(worker)))

    def stop(self) -> None:
        """End all processes, at once."""
        self._stopped = True
        for worker in self._workers:
            worker.close()
        self._threads.shutdown()


def make_reader(settings: PreprocessConfig, unpacked: int) -> Answer:
    """A process that turns (file, votes) into what `pointcentroid.predict.preparing.attempt` makes of them.

    Args:
        settings: of the weights that will see the clouds.
        unpacked: the most bytes that an archive may unpack to.
    """
    start_worker()

    def answer(question: tuple[str, int]) -> Prepared | Failure:
        file, votes = question
        size = unpacked_size(file)
        if size > unpacked:
            return Failure(
                file, f"would unpack to {size // MB} MB; a server reads at most {unpacked // MB} MB of an archive"
            )
        return attempt(file, settings, votes)

    return answer


def unpacked_size(file: str) -> int:
    """What an archive says that it unpacks to, which is also the most that is read of it; 0 where it is none."""
    if not zipfile.is_zipfile(file):
        return 0
    try:
        with zipfile.ZipFile(file) as archive:
            return sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):  # the reader says what is wrong with it
        return 0


def make_explainer(weights: str, device: str) -> Answer:
    """A process that turns (file, what it is called, axis that points up) into the page of `view --html`.

    The centroids are those of the weights `parts`.
    """
    from pointcentroid.predict.parts import PartsPredictor
    from pointcentroid.viz.page import page_text
    from pointcentroid.viz.panel import Panel

    start_worker(_EXPLAINER_MEMORY)
    predictor = PartsPredictor(device=device, classifier=weights)
    _ = predictor.abstraction  # loaded now, before the time of a question runs

    def answer(question: tuple[str, str, Any]) -> str:
        file, name, up = question
        explanation = predictor.explain(file, up=up)
        said = explanation.prediction
        return page_text([Panel(explanation, f"{name}: {said.label} {said.confidence:.0%}")])

    return answer
