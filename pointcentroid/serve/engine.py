"""What stands behind the routes: reading processes, one net that sees requests in batches, and a private folder."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointcentroid.errors import require
from pointcentroid.io import READERS, unknown_format
from pointcentroid.predict.limited import CrashError, OverrunError
from pointcentroid.predict.predictor import Predictor
from pointcentroid.predict.preparing import Prepared, attempt
from pointcentroid.predict.up import Up
from pointcentroid.results import Failure, Prediction
from pointcentroid.serve.limits import MB, RefusalError, ServeSettings, room
from pointcentroid.serve.workers import (
    EXPLAINER_KEEPS,
    WorkerPool,
    make_explainer,
    make_reader,
    unpacked_size,
)

_LARGE = 4 * MB  # reading more than this may take a second
_ARCHIVES = (".3mf", ".npz")
_QUICK_TO_LIST = 256_000  # bytes of an archive whose directory is looked at here; a larger one counts as large


@dataclass(frozen=True)
class Upload:
    """A file that a client sent.

    Attributes:
        name: what the client calls it, cleaned; never a path.
        path: where it lies, under a name of ours; None where no reader knows its suffix.
    """

    name: str
    path: Path | None


class Engine:
    """Classifies and explains uploads.

    Args:
        settings: what to serve, and the limits.

    Raises:
        WeightsError: there are no such weights, or they do not classify.
        ConfigError: there is no such device.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.predictor = Predictor(settings.weights, settings.device)
        self.requests, self.held = 0, 0
        self._net = ThreadPoolExecutor(1, "net")
        reader = make_reader, (self.predictor.card.preprocess, settings.unpacked_bytes), settings.readers
        self._readers = WorkerPool(*reader, settings.reading_seconds, settings.waiting_seconds)
        explainer = make_explainer, (str(self.predictor.path), settings.device), 1
        self._explainer = WorkerPool(*explainer, settings.explaining_seconds, settings.waiting_seconds, EXPLAINER_KEEPS)
        self._folder: Path | None = None
        self._prepared: asyncio.Queue[tuple[Prepared, asyncio.Future[Prediction]]] = asyncio.Queue()
        self._batching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start reading processes and the net; the first answer is then as fast as the next."""
        self._folder = _private_folder()
        await self._readers.start()
        self._batching = asyncio.create_task(self._batches())
        points = np.random.default_rng(0).normal(size=(64, 3))
        await self._asked(attempt(points, self.predictor.card.preprocess))  # type: ignore[arg-type], points can be read

    async def stop(self) -> None:
        """End the processes and remove the folder, when the server has waited for what was accepted."""
        if self._batching is not None:
            self._batching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._batching
        self._readers.stop()
        self._explainer.stop()
        self._net.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[Path]:
        """Take a request in, with an empty private folder for its files, which is removed with it.

        Raises:
            RefusalError: there are as many requests as are allowed at once, or the disk is full.
        """
        if self.requests >= self.settings.queue:
            raise RefusalError(
                503, f"{self.requests} requests are being worked on, as many as are taken; try again later", 2
            )
        with room():
            try:
                folder = Path(tempfile.mkdtemp(dir=self._folder))
            except FileNotFoundError:  # whoever tidies temporary folders has taken it; another name, which nobody knows
                self._folder = _private_folder()
                folder = Path(tempfile.mkdtemp(dir=self._folder))
        self.requests += 1
        try:
            yield folder
        finally:
            self.requests -= 1
            shutil.rmtree(folder, ignore_errors=True)

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[Held]:
        """Count the bytes that a request keeps in the folder."""
        held = Held(self)
        try:
            yield held
        finally:
            self.held -= held.bytes

    async def classify(self, upload: Upload, up: Up = "auto", votes: int = 1) -> Prediction | Failure:
        """Classify one upload, with the probabilities of all classes.

        Args:
            upload: the file.
            up: the axis that points up, or `"auto"`.
            votes: independent samplings to average.

        Raises:
            RefusalError: reading took too long, or no reader was free.
        """
        prepared = await self._read(upload, votes)
        if isinstance(prepared, Failure):
            return prepared
        if up != "auto":  # so that shapes with and without a given axis share a batch
            prepared = dataclasses.replace(prepared, up=up)
        return dataclasses.replace(await self._asked(prepared), file=upload.name)

    async def explain(self, upload: Upload, up: Up = "auto") -> str | Failure:
        """The page of `view --html` for one upload.

        Args:
            upload: the file.
            up: the axis that points up, or `"auto"`.

        Raises:
            MissingExtraError: torch or plotly is not installed.
            RefusalError: it took too long, or no process was free.
        """
        require_explaining()
        prepared = await self._read(upload, 1)  # what is damaged goes no further than a reader
        if isinstance(prepared, Failure):
            return prepared
        try:
            return await self._explainer.ask((str(upload.path), upload.name, up))
        except OverrunError:
            seconds = self.settings.explaining_seconds
            raise RefusalError(504, f"explaining {upload.name} took more than {seconds:g} s") from None
        except CrashError:
            return Failure(upload.name, "explaining it needs more memory than there is")

    async def _read(self, upload: Upload, votes: int) -> Prepared | Failure:
        if upload.path is None:
            return Failure(upload.name, unknown_format(upload.name).reason)
        try:
            result = await self._readers.ask((str(upload.path), votes), await _is_large(upload.path))
        except OverrunError:
            seconds = self.settings.reading_seconds
            raise RefusalError(504, f"reading {upload.name} took more than {seconds:g} s") from None
        except CrashError:
            return Failure(upload.name, "reading it crashed the reader; the file is damaged")
        if isinstance(result, Failure):
            return Failure(upload.name, result.error.replace(str(upload.path), upload.name))
        return result

    async def _asked(self, prepared: Prepared) -> Prediction:
        answer: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        self._prepared.put_nowait((prepared, answer))
        return await answer

    async def _batches(self) -> None:
        """Ask the net, of all that has come meanwhile; wait a moment for more where little has."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._prepared.get()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.batch_seconds):
                    while len(batch) < self.settings.batch:
                        batch.append(await self._prepared.get())
            try:
                results = await loop.run_in_executor(self._net, self._predict, [prepared for prepared, _ in batch])
            except Exception as error:  # the others go on
                results = [error] * len(batch)
            for (_, answer), result in zip(batch, results, strict=True):
                if answer.done():  # whoever asked has left
                    continue
                if isinstance(result, Exception):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)

    def _predict(self, items: list[Prepared]) -> list:
        return list(self.predictor.predict_prepared(items, top=len(self.predictor.classes), batch_size=len(items)))


def _private_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="pointcentroid-"))  # mode 0700


class Held:
    """The bytes that one request keeps in the folder of an engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.bytes = engine, 0

    def add(self, count: int) -> None:
        """Keep more.

        Raises:
            RefusalError: all uploads together would take more than is allowed.
        """
        if self.engine.held + count > self.engine.settings.held_bytes:
            raise RefusalError(503, "too many large files are being worked on; try again later", 5)
        self.engine.held += count
        self.bytes += count


async def _is_large(path: Path) -> bool:
    size = path.stat().st_size
    if path.suffix in _ARCHIVES:
        return size > _QUICK_TO_LIST or await asyncio.to_thread(unpacked_size, str(path)) > _LARGE
    return size > _LARGE


def known_suffix(name: str) -> str | None:
    """The suffix of a name, as the readers write it; None where no reader knows it."""
    suffix = Path(name).suffix.lower()
    return suffix if suffix in READERS else None


def require_explaining() -> None:
    """Check that what explaining needs is installed.

    Raises:
        MissingExtraError: torch or plotly is not.
    """
    require("explaining", "view", "torch", "plotly")
