"""What a server allows, and how it says no."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pointcentroid.errors import ConfigError

MB = 10**6


@dataclass(frozen=True)
class ServeSettings:
    """What a server serves, and its limits.

    Attributes:
        weights: the name of shipped weights, or a weights file.
        device: `"auto"`, or a torch device.
        workers: reading processes; None: one a processor, at most 8.
        upload_bytes: the most that one request may send.
        unpacked_bytes: the most that an archive (3MF, NPZ) may unpack to; the readers' own limit is for one's own files.
        files: the most files in one request.
        reading_seconds: the time that reading one file may take.
        explaining_seconds: the time that one page of centroids may take, once its file is read.
        queue: requests that are received or worked on at once; one more is sent away.
        waiting_seconds: how long an accepted file may wait for a reading process.
        held_bytes: the most that all uploads together may take in the temporary folder; one has room in any case.
        grace_seconds: the time that a sender has for the head of a request, and for the body beside what `least_rate` gives.
        least_rate: bytes a second that a sender must average after that.
        idle_seconds: how long a connection may stand open on which nothing is sent; as long as browsers keep theirs.
        connections: open connections at once; then the one that was idle for longest is closed.
        batch: shapes that the net sees at once.
        batch_seconds: how long the net waits for the first batch to fill.
    """

    weights: str = "small"
    device: str = "auto"
    workers: int | None = None
    upload_bytes: int = 64 * MB
    unpacked_bytes: int = 128 * MB
    files: int = 100
    reading_seconds: float = 10.0
    explaining_seconds: float = 60.0
    queue: int = 256
    waiting_seconds: float = 30.0
    held_bytes: int = 1000 * MB
    grace_seconds: float = 10.0
    least_rate: int = 32_768
    idle_seconds: int = 75
    connections: int = 512
    batch: int = 32
    batch_seconds: float = 0.005

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float) and value <= 0:
                raise ConfigError(f"{name} must be positive, found {value}")
        object.__setattr__(self, "held_bytes", max(self.held_bytes, self.upload_bytes))

    @property
    def readers(self) -> int:
        """How many reading processes there are."""
        return self.workers or min(os.cpu_count() or 1, 8)


class RefusalError(Exception):
    """A request that is not answered with a result.

    Args:
        status: of HTTP.
        message: one line for the client.
        retry_after: seconds after which trying again makes sense.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        self.status, self.message, self.retry_after = status, message, retry_after
        super().__init__(message)


@contextmanager
def room() -> Iterator[None]:
    """What a full disk leads to becomes a `RefusalError`."""
    try:
        yield
    except OSError as error:
        raise RefusalError(503, f"the server cannot keep the file: {error.strerror}", retry_after=5) from None
