"""Outputs are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Offer a temporary name beside `path`, and rename it to `path` when the block ends without an error.

    Args:
        path: the file to write or replace; its folder is made if need be.

    Yields:
        The temporary path to write to. After an error, or Ctrl-C, it is removed and `path` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes private files; outputs get the modes any new file gets
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
