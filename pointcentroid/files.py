"""Outputs are written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_UMASK = os.umask(0)  # it can only be read by setting it, for all threads; so once, before there are any
os.umask(_UMASK)

_STREAM = re.compile(r"/dev/(?:std(out|err)|fd/([0-9]+))")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

TEMPORARY = ".pointcentroid-"
"""How the names of outputs begin while they are written."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Offer a temporary name beside `path`, and rename it to `path` when the block ends without an error.

    Args:
        path: the file to write or replace; its folder is made if need be. Of a link, the file that it leads to is replaced;
            what is no file, such as `/dev/null` or a pipe, or belongs to a process, such as `/dev/stdout`, is written to at
            the end.

    Yields:
        The temporary path to write to. After an error, or Ctrl-C, it is removed and `path` is as it was.
    """
    path = Path(path)
    descriptor = _STREAM.fullmatch(os.path.abspath(path))
    if path.exists() and (descriptor or not path.is_file()) and not path.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / path.name
            yield temporary
            # Opened by its name, a file that a shell appends to would begin anew.
            device = os.fdopen(os.dup(_number(descriptor)), "wb") if descriptor else path.open("wb")
            with temporary.open("rb") as written, device:
                shutil.copyfileobj(written, device)
        return
    path = Path(os.path.realpath(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o777 if path.is_file() else 0o666 & ~_UMASK
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # not the name of the temporary file
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(mode)  # mkstemp makes private files; outputs keep theirs, or get the modes any new file gets
        temporary.replace(path)
    except OSError as error:
        # Writing does not say which file it was, and renaming that of the temporary one.
        if (error.filename is None and error.errno in _FULL) or error.filename == str(temporary):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, otherwise: Exception) -> Iterator[None]:
    """Keep other processes that lock a folder out of it until the block ends, or the process does.

    On Windows, and on a file system without locks, no one is kept out.

    Args:
        folder: made if need be, and then, where it is still empty in the end, removed.
        otherwise: the error to raise where another process has locked it.
    """
    there = folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY) if fcntl else None
    try:
        if fcntl and handle is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise otherwise from None
            except OSError:
                pass
        yield
    finally:
        with suppress(OSError):  # it is not empty
            if not there:
                folder.rmdir()
        if handle is not None:
            os.close(handle)


def _number(descriptor: re.Match[str]) -> int:
    return {"out": 1, "err": 2}[descriptor[1]] if descriptor[1] else int(descriptor[2])
