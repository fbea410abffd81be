"""Fetch a file from the first mirror that has it: resumable, checked, whole or not at all."""

from __future__ import annotations

import glob
import hashlib
import http.client
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from pointcentroid.errors import DataError, one_line
from pointcentroid.io.tables import ARCHIVE_ERRORS

MIRRORS: dict[str, tuple[str, ...]] = {
    "modelnet10": (
        "http://vision.princeton.edu/projects/2014/3DShapeNets/ModelNet10.zip",
        "http://3dvision.princeton.edu/projects/2014/3DShapeNets/ModelNet10.zip",
    ),
    "modelnet40": ("http://modelnet.cs.princeton.edu/ModelNet40.zip", "https://modelnet.cs.princeton.edu/ModelNet40.zip"),
}
"""Where data sets were to be had when this was written; links to them die often."""

_CHUNK = 1 << 18
_TIMEOUT = 30.0  # seconds without a byte


def download(
    urls: Sequence[str],
    path: str | Path,
    *,
    sha256: str | None = None,
    progress: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> Path:
    """Download a file, unless it is there.

    What a broken connection left is kept beside it, under a name that ends in `.part`, one for each address, and the next
    call goes on from there.

    Args:
        urls: where it may be, in the order to try.
        path: where to.
        sha256: what its content must hash to, also if it is there already; None checks only that a zip archive is whole.
        progress: called with bytes done, and in all where the server says so.

    Raises:
        DataError: no mirror delivered it, or what came is not what was expected.
    """
    path = Path(path)
    if path.is_file():
        if sha256 and (found := _hash(path)) != sha256.lower():
            raise DataError(
                f"{path} is there, and its sha256 is {found}, expected {sha256.lower()}; delete it to fetch it anew"
            )
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in urls:
        part = part_of(path, url)
        try:
            _fetch(url, part, progress)
            _check(part, path.suffix, sha256)
        except (OSError, http.client.HTTPException, ValueError, DataError) as error:  # ValueError: it is no address
            reasons.append(f"{url}: {getattr(error, 'reason', None) or error}")
            continue
        part.replace(path)
        for left in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
            left.unlink()
        return path
    raise DataError(
        f"no mirror delivered {path.name} ({'; '.join(reasons)}); download it by other means and name the file instead"
    )


def part_of(path: Path, url: str) -> Path:
    """Where what has come of a file is kept. No mirror goes on with what another began: it may be another file."""
    return path.with_name(f"{path.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")


def _fetch(url: str, part: Path, progress: Callable[[int, int | None], None]) -> None:
    done = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not done:  # "range not satisfiable": all of it is there already, or it is another file
            raise
        with error:
            total = error.headers.get("Content-Range", "").rpartition("/")[2]
        if total == str(done):
            return
        part.unlink()
        _fetch(url, part, progress)
        return
    with answer:
        if done and answer.status != 206:
            done = 0  # the server sends all of it again
        length = answer.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if done else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    if total is not None and done < total:
        raise DataError(f"the connection ended after {done:,} of {total:,} bytes; run it again to go on")


def _check(part: Path, suffix: str, sha256: str | None) -> None:
    """Throw away what is not what was asked for: going on from it would never give the right file."""
    if sha256:
        if (found := _hash(part)) != sha256.lower():
            part.unlink()
            raise DataError(f"its sha256 is {found}, expected {sha256.lower()}")
        return
    if suffix != ".zip":
        return
    if not zipfile.is_zipfile(part):
        with part.open("rb") as file:
            begin = file.read(40)
        part.unlink()
        raise DataError(f"it is no zip archive, it begins with {begin!r}")
    try:
        with zipfile.ZipFile(part) as archive:
            damaged = archive.testzip()
    except ARCHIVE_ERRORS as error:
        damaged = one_line(error)
    if damaged is not None:
        part.unlink()
        raise DataError(f"the archive that came is damaged ({damaged})")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
