"""Paths -> preprocessed clouds, in this process or in several, while the net works on earlier ones.

Imports no torch: a reading process starts in the time numpy takes.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from pointcentroid import io
from pointcentroid.config import PreprocessConfig
from pointcentroid.errors import (
    TOO_LARGE,
    ConfigError,
    MissingExtraError,
    PointCentroidError,
    ReadError,
    one_line,
    unforeseen,
)
from pointcentroid.geometry.sampling import Frame, preprocess, preprocess_in_frame
from pointcentroid.io.shape import Shape, checked
from pointcentroid.predict.allocator import keep_freed_memory
from pointcentroid.results import Failure

_WORTH_PROCESSES = 8  # with fewer files than this, starting processes takes longer than reading
_AHEAD = 512  # files read ahead of the net, a few MB of clouds: enough to read all the while torch is imported
ONE_THREAD: dict[str, str] = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Variables of the environment of a process that reads: there are as many of them as processors."""

_WORKER_MEMORY = 3 * 2**30  # a reader that wants more address space than this gets a MemoryError
_OF_FREE_MEMORY = 0.5  # that a reader may take alone, for a file that needs more; others go on reading meanwhile

Source = str | Path | np.ndarray | Shape | Any
"""What can be predicted: a file, an (N, 3) array of points, a shape; a mesh, cloud or scene of trimesh, a mesh or cloud of
open3d, `Data` of PyTorch Geometric with `pos`: known by their attributes, none of those libraries is imported."""


@dataclass(frozen=True)
class Prepared:
    """A shape on its way to the net.

    Attributes:
        name: the file, or `"<array>"`.
        clouds: (V, N, 3) float32, one cloud a vote, in the shape's own frame.
        up: the axis that points up, as who handed it in says; `"auto"` where nobody does.
    """

    name: str
    clouds: np.ndarray
    up: str = "auto"


def prepare(source: Source, settings: PreprocessConfig, votes: int = 1) -> Prepared:
    """Read one source and turn it into clouds, the same ones every time.

    Args:
        source: a file, an (N, 3) array, or a shape.
        settings: of the weights that will see the clouds.
        votes: how many independent samplings to take.

    Raises:
        ReadError: the source cannot be read, or holds no usable geometry.
        MissingExtraError: the format needs an optional dependency.
    """
    shape = as_shape(source)
    seeds = range(settings.seed, settings.seed + votes)
    with _sampling(source):
        clouds = np.stack([preprocess(shape.vertices, shape.faces, settings.sample, seed) for seed in seeds])
    return Prepared(source_name(source), clouds)


def cloud_in_frame(source: Source, shape: Shape, settings: PreprocessConfig, seed: int) -> tuple[np.ndarray, Frame]:
    """What a net sees of a shape, see `preprocess`, and where it lies in the shape's frame.

    Args:
        source: what the shape was read from.
        shape: the shape.
        settings: of the weights that will see the cloud.
        seed: of the sampling.

    Raises:
        ReadError: its surface cannot be sampled.
    """
    with _sampling(source):
        return preprocess_in_frame(shape.vertices, shape.faces, settings.sample, seed)


@contextmanager
def _sampling(source: Source) -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # areas that vanish beside the size of the shape, or overflow
        raise ReadError(source_name(source), f"{error}; the surface cannot be sampled") from None


def standard_up(source: Source) -> str | None:
    """The axis that the standard of a file's format puts up, or None."""
    return io.STANDARD_UP.get(Path(source).suffix.lower()) if isinstance(source, (str, Path)) else None


def attempt(source: Source, settings: PreprocessConfig, votes: int = 1) -> Prepared | Failure:
    """Like `prepare`, but what cannot be read becomes a `Failure`: the way of batches, which go on."""
    try:
        return prepare(source, settings, votes)
    except PointCentroidError as error:
        return Failure(source_name(source), error.reason, isinstance(error, MissingExtraError))
    except Exception as error:  # whatever a library makes of a damaged file
        return Failure(source_name(source), unforeseen(error))


def source_name(source: Source) -> str:
    """What a source is called in results: a file by its path."""
    if isinstance(source, (str, Path)):
        return str(source)
    return "<array>" if isinstance(source, np.ndarray) else f"<{type(source).__name__}>"


def as_shape(source: Source) -> Shape:
    """Read a source.

    Args:
        source: a file, an (N, 3) array, or a shape.

    Raises:
        ReadError: the source cannot be read, or holds no usable geometry.
        MissingExtraError: the format needs an optional dependency.
    """
    if isinstance(source, Shape):
        return checked("<shape>", source.vertices, source.faces)
    if isinstance(source, (str, Path)):
        return io.read(source)
    if not isinstance(source, np.ndarray) and (shape := _foreign_shape(source)) is not None:
        return shape
    array = as_array("<array>", source)
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        found = f"{array.dtype} {array.shape}" if array.dtype.kind != "O" else type(source).__name__
        raise ReadError("<array>", f"expected a file, a mesh or an array of numbers of shape (N, 3), found {found}")
    return checked("<array>", array)


def _foreign_shape(source: Any) -> Shape | None:
    """What other libraries call a shape."""
    name = f"<{type(source).__name__}>"
    source = source.to_legacy() if hasattr(source, "to_legacy") else source  # of open3d, made of tensors
    if hasattr(source, "pos"):  # PyTorch Geometric: pos (N, 3) and perhaps face (3, F)
        face = getattr(source, "face", None)
        if source.pos is None:
            raise ReadError(name, "has no pos")
        return checked(name, as_array(name, source.pos), None if face is None else as_array(name, face).T)
    if hasattr(source, "to_mesh") and hasattr(source, "geometry"):  # a scene of trimesh, with the transforms of its nodes
        parts = [p for p in source.dump() if hasattr(p, "vertices")]
        meshes = [p for p in parts if getattr(p, "faces", None) is not None] or parts
        if not meshes:
            raise ReadError(name, "holds no geometry: no vertices and no points")
        starts = np.cumsum([0, *(len(p.vertices) for p in meshes)])
        faces = [np.asarray(p.faces) + start for p, start in zip(meshes, starts, strict=False) if hasattr(p, "faces")]
        return checked(name, np.concatenate([p.vertices for p in meshes]), np.concatenate(faces) if faces else None)
    for vertices, faces in (("vertices", "faces"), ("vertices", "triangles")):  # meshes of trimesh and of open3d
        if hasattr(source, vertices) and hasattr(source, faces):
            return checked(name, np.asarray(getattr(source, vertices)), np.asarray(getattr(source, faces)))
    for points in ("vertices", "points"):  # their clouds
        if hasattr(source, points):
            return checked(name, np.asarray(getattr(source, points)))
    return None


def as_array(name: str, values: Any) -> np.ndarray:
    """What arrays, lists and tensors hold; the latter may be anywhere, half as precise, and have a gradient.

    Args:
        name: of what holds them, for errors.
        values: the array, or what numpy makes one of.

    Raises:
        ReadError: they are no array.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() and values.element_size() < 4 else values
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ReadError(name, f"is no array of numbers ({one_line(error)})") from None


class Preparer:
    """Prepares many sources in order, reading ahead; never more than a bounded number of them are held.

    Args:
        settings: of the weights that will see the clouds.
        votes: samplings a source.
        workers: reading processes; 0 reads in this process; None decides by the number of files and processors.

    Raises:
        ConfigError: on the way, where processes cannot start.
    """

    def __init__(self, settings: PreprocessConfig, votes: int = 1, workers: int | None = None) -> None:
        self.settings, self.votes, self.workers = settings, votes, workers

    def __call__(self, sources: Iterable[Source]) -> Generator[Prepared | Failure]:
        """Prepare sources, in the order given.

        Processes start working at once, before the first result is asked for, and end with the generator: `close` it where
        it is not read to its end.

        Args:
            sources: taken one by one, as places to read ahead become free; a generator may go on for ever.
        """
        waiting = iter(sources)
        workers = self.workers
        if workers is None:
            first = list(islice(waiting, _WORTH_PROCESSES))
            waiting = chain(first, waiting)
            files = all(isinstance(source, (str, Path)) for source in first)  # the rest is in memory here already
            workers = min(os.cpu_count() or 1, 8) if files and len(first) == _WORTH_PROCESSES else 0
        if not workers:
            return (attempt(source, self.settings, self.votes) for source in waiting)
        return self._in_processes(waiting, workers)

    def _in_processes(self, waiting: Iterator[Source], workers: int) -> Generator[Prepared | Failure]:
        ahead: deque[_Ahead] = deque()  # in the order given
        lacking: deque[_Ahead] = deque()  # those of them that are to be submitted
        pool = _start_pool(workers)

        def fill() -> None:
            while True:
                while lacking:
                    lacking[0].future = pool.submit(attempt, lacking[0].source, self.settings, self.votes)
                    lacking.popleft()
                more = [_Ahead(source) for source in islice(waiting, len(ahead) < _AHEAD)]
                if not more:
                    return
                ahead.extend(more)
                lacking.extend(more)

        def results() -> Generator[Prepared | Failure | None]:
            nonlocal pool
            try:
                with suppress(BrokenProcessPool):  # seen to below
                    fill()
                yield None
                while True:
                    try:
                        fill()
                        if not ahead:
                            return
                        result = ahead[0].future.result()
                    except BrokenProcessPool:
                        # A reader died, and the pool with it. Whose file it was nobody says, so the oldest that has no
                        # answer is read again, alone; the others go to a new pool.
                        pool.shutdown(cancel_futures=True)
                        lacking.clear()
                        lacking.extend(each for each in ahead if not each.answered)
                        oldest = lacking.popleft()
                        oldest.future = concurrent.futures.Future()
                        oldest.future.set_result(self._alone(oldest.source))
                        pool = _start_pool(workers)
                        continue
                    source = ahead.popleft().source
                    if isinstance(result, Failure) and result.error == TOO_LARGE:
                        memory = int(_OF_FREE_MEMORY * _free_memory())
                        result = self._alone(source, memory) if memory > _WORKER_MEMORY else result
                    yield result
            finally:
                # Waited for: a pool that is still ending while Python does so itself would complain of closed pipes.
                pool.shutdown(cancel_futures=True)

        started = results()
        next(started)  # readers are at work, and where this is dropped, they are stopped
        return cast("Generator[Prepared | Failure]", started)

    def _alone(self, source: Source, memory: int = 0) -> Prepared | Failure:
        with _start_pool(1, memory) as pool:
            try:
                pool.submit(int).result()
            except BrokenProcessPool:
                raise ConfigError(
                    "processes that read files end as soon as they start; in a script, what it does must stand below "
                    "if __name__ == '__main__':"
                ) from None
            try:
                return pool.submit(attempt, source, self.settings, self.votes).result()
            except BrokenProcessPool:
                return Failure(source_name(source), "reading it crashed the reader; the file is damaged")


class _Ahead:
    """A source that is read ahead of its turn."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.future: concurrent.futures.Future[Prepared | Failure] = concurrent.futures.Future()

    @property
    def answered(self) -> bool:
        return self.future.done() and not self.future.cancelled() and self.future.exception() is None


def _start_pool(workers: int, memory: int = 0) -> concurrent.futures.ProcessPoolExecutor:
    # A fork starts at once, with numpy loaded, but a forked child of a process with torch's threads in it may deadlock.
    # The command line starts reading before it imports torch.
    forking = "torch" not in sys.modules and "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"
    with _environment(ONE_THREAD):
        context = multiprocessing.get_context("fork" if forking else "spawn")
        pool = concurrent.futures.ProcessPoolExecutor(
            workers, context, initializer=_start_reader, initargs=(max(memory, _WORKER_MEMORY),)
        )
        # Processes start when work arrives; give each some, while the environment is right.
        for _ in range(workers):
            pool.submit(int)
        return pool


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables of the environment, for the processes that are started meanwhile."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def _start_reader(memory: int) -> None:
    """Begin a process of a pool. It ends with its parent, even one that is killed: the queue that it waits on would not,
    for its siblings hold the other end."""
    if (parent := multiprocessing.parent_process()) is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
    if hasattr(os, "setsid"):
        # SIGTERM to the group is for the parent. A reader that it ends at an answer leaves half of it in the pipe, for the
        # rest of which the pool waits for ever.
        os.setsid()
    start_worker(memory + _mapped())  # what a fork inherits, such as somebody's large array, is not its own


def _mapped() -> int:
    """Bytes of address space that this process has; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _free_memory() -> int:
    """Bytes that are free, or would be if files were not kept in memory; 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 0
    with suppress(OSError, ValueError):  # in a container, of which the line above knows nothing
        most, taken = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, most - taken)
    return free


def start_worker(memory: int = _WORKER_MEMORY) -> None:
    """Begin a process that works on files: what stops it is its parent's to handle, and memory is limited where that can be.

    Args:
        memory: bytes of address space; who wants more gets a `MemoryError`.
    """
    import signal

    keep_freed_memory()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork has its parent's handler
    for name in ("SIGINT", "SIGHUP"):  # a terminal sends them to all: they are the main process's to handle
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        import resource
    except ImportError:  # not on Windows
        return
    hard: Any = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
