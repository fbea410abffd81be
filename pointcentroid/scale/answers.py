"""Answers in Parquet: a row a file, each file once, whatever interrupts the run.

While a run is going on, its answers are shards in a folder, each written under another name and renamed when it is whole: an
answer is kept or is not, and what shards hold is the only record of what is done. SIGKILL, or a full disk, costs the answers
since the last shard, at most `SHARD_ROWS` of them or those of `SHARD_SECONDS`. The folder is what was asked for (`-o OUT/`),
or stands beside it (`-o out.parquet`: `.out.parquet.parts/`) until the run is through; then its shards become the row groups
of one file, which is renamed when it is whole.

One command at a time writes to a file: a lock, which ends with its process, refuses a second one. (Several may fill a folder
of shards, each with files of its own.) Files that could not be read are answers too, and are not read again. Every shard
carries the request it answers, so that answers of other weights are never mixed with these. (Renaming holds against the
death of a process; against that of the machine as far as its file system does, and a shard that lost its content is an error
that names it.)
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pointcentroid.errors import DataError
from pointcentroid.files import TEMPORARY, locked, replacing
from pointcentroid.results import Failure, Prediction

SHARD_ROWS = 1000
"""Answers in a shard, at most."""

SHARD_SECONDS = 60.0
"""Time after which a shard is written even if it is smaller."""

_REQUEST = b"pointcentroid"
_STALE_SECONDS = 600.0

_ANEW = ".anew"
"""Stands among the shards of a run that answers every file, whatever an earlier one left in `target`."""


def request_of(weights: Path, **settings: Any) -> dict[str, Any]:
    """What answers depend on, beside the files: the content of the weights, and settings.

    Args:
        weights: the weights file.
        settings: such as `up="auto"`.
    """
    return {"weights": hashlib.sha256(weights.read_bytes()).hexdigest(), **settings}


def schema_of(request: dict[str, Any]) -> pa.Schema:
    """The columns of answers; `feature` only where the request says `features=True`.

    Args:
        request: what the answers depend on; shards carry it.
    """
    ranking = pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float64())]))
    columns = [
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("confidence", pa.float64()),
        pa.field("top", ranking),
        pa.field("up", pa.string()),
        pa.field("points", pa.int32()),
        pa.field("known", pa.float64()),
        pa.field("error", pa.string()),
    ]
    if request.get("features"):
        columns.append(pa.field("feature", pa.list_(pa.float32())))
    # With their names: answers of another version may have other columns.
    whole = {**request, "columns": [field.name for field in columns]}
    return pa.schema(columns, metadata={_REQUEST: json.dumps(whole, sort_keys=True)})


def table_of(results: Iterable[Prediction | Failure], schema: pa.Schema) -> pa.Table:
    """Answers as a table.

    Args:
        results: the answers.
        schema: one of `schema_of`.
    """
    return pa.Table.from_pylist([_row(result) for result in results], schema=schema)


def _row(result: Prediction | Failure) -> dict[str, Any]:
    if isinstance(result, Failure):
        return {"path": storable(result.file), "error": storable(result.error)}
    return {
        "path": storable(result.file),
        "label": result.label,
        "confidence": result.confidence,
        "top": [{"label": label, "probability": share} for label, share in result.top],
        "up": result.up,
        "points": result.points,
        "known": result.known,
        "feature": result.feature,  # left out where the schema has none
    }


def storable(text: str) -> str:
    r"""Text that Parquet can hold: bytes of a file's name that are no UTF-8 become `\udc..`."""
    return text.encode("utf-8", "backslashreplace").decode()


class Seen:
    """A set of paths that takes 16 bytes each; `./a.off` and `a.off` are one."""

    def __init__(self) -> None:
        self._old = np.empty(0, dtype="S16")  # sorted
        self._new: set[bytes] = set()

    def add(self, path: str) -> bool:
        """Add a path; whether it was not there before."""
        name = storable(path) if "://" in path else str(PurePath(storable(path)))
        key = hashlib.blake2b(name.encode(), digest_size=16).digest().rstrip(b"\0")  # as numpy compares them
        if key in self._new or key in self:
            return False
        self._new.add(key)
        if len(self._new) >= 2**15:
            self._old = np.sort(np.concatenate([self._old, np.array(list(self._new), dtype="S16")]))
            self._new = set()
        return True

    def copy(self) -> Seen:
        """A set of its own with the same paths."""
        other = Seen()
        other._old, other._new = self._old, self._new.copy()
        return other

    def __contains__(self, key: bytes) -> bool:
        at = int(np.searchsorted(self._old, np.bytes_(key)))
        return at < len(self._old) and bytes(self._old[at]) == key


class Answers:
    """The answers of a run, kept in Parquet as they come.

    Args:
        target: the file to be, or a folder for shards.
        whole: whether the shards become one file, `target`, in the end.
        request: what the answers depend on.
        resume: go on where a run with the same target stopped; what is there is kept.

    Attributes:
        done: answers that were there.
        failed: how many of them are of files that could not be read.

    Raises:
        DataError: `resume` is False and there are shards; or what is there is damaged, or answers another request.
    """

    def __init__(self, target: Path, whole: bool, request: dict[str, Any], resume: bool) -> None:
        target = Path(os.path.realpath(target)) if whole else target  # a link stays one
        self.target, self.whole, self.schema = target, whole, schema_of(request)
        self.folder = target.with_name(f".{target.name}.parts") if whole else target
        self.seen, self.done, self.failed = Seen(), 0, 0
        if self.parts() and not resume:
            raise DataError(
                f"{self.folder} holds answers of a run that was interrupted or is done: --resume goes on, or delete them"
            )
        self._found = self._state()
        self._anew = not resume or (self.folder / _ANEW).is_file()
        if whole and not self._anew and target.is_file():
            self._take(target)
        for part in self.parts():
            if not self._take(part):
                part.unlink()
                self._found = [state for state in self._found if state[0] != part.name]
        numbers = (part.stem.split("-")[1] for part in self.parts())
        self._own = secrets.token_hex(4)  # another command may write to the same folder
        self._number = 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)

    def parts(self) -> list[Path]:
        """The shards, in the order of their names."""
        return sorted(self.folder.glob("part-*.parquet"))

    def missing(self, files: Iterable[str]) -> Iterator[str]:
        """Those of some files that have no answer yet, each once."""
        return (file for file in files if self.seen.add(file))

    def keeping(self, results: Iterable[Prediction | Failure]) -> Generator[Prediction | Failure, None, None]:
        """Pass answers on, and keep them; when they end, all are kept, and `target` is whole. Closed before that, it keeps
        those that there are."""
        return self._keeping(results, len, lambda held: table_of(held, self.schema))

    def keeping_tables(self, tables: Iterable[pa.Table]) -> Generator[pa.Table, None, None]:
        """Like `keeping`, for tables of answers; rows of files that have an answer are left out."""

        def new() -> Iterator[pa.Table]:
            for table in tables:
                kept = table.filter([self.seen.add(path) for path in table["path"].to_pylist()])
                if len(kept):
                    yield kept.cast(self.schema)

        return self._keeping(new(), lambda held: sum(map(len, held)), pa.concat_tables)

    def _keeping(
        self, items: Iterable[Any], size: Callable[[list], int], table: Callable[[list], pa.Table]
    ) -> Generator[Any, None, None]:
        self.folder.mkdir(parents=True, exist_ok=True)  # now, not when the first shard is full: it may not be allowed
        for stale in self.folder.glob(f"{TEMPORARY}*"):  # what a killed process was writing, and no other one still is
            with suppress(FileNotFoundError):  # another command has finished it
                if time.time() - stale.stat().st_mtime > _STALE_SECONDS:
                    stale.unlink()
        with self._alone() if self.whole else nullcontext():
            yield from self._kept(items, size, table)

    def _state(self) -> list[tuple[str, int, int]]:
        """What another command that writes to the same file would change."""
        files = [*self.parts(), *([self.target] if self.target.is_file() else [])]
        return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other commands out, and see to it that none was here since this one looked at what there is."""
        taken = DataError(f"another command is writing to {self.target}; name another output, or wait for it")
        with locked(self.folder, taken):
            if self._state() != self._found:
                raise DataError(f"another command has written to {self.target} meanwhile; see what it holds, and run again")
            yield

    def _kept(self, items: Iterable[Any], size: Callable[[list], int], table: Callable[[list], pa.Table]) -> Iterator[Any]:
        if self.whole and self._anew:
            (self.folder / _ANEW).touch()
        held, since = [], time.monotonic()
        try:
            for item in items:
                held.append(item)
                if size(held) >= SHARD_ROWS or time.monotonic() - since > SHARD_SECONDS:
                    self._keep(table(held))
                    held, since = [], time.monotonic()
                yield item
        finally:  # also where Ctrl-C has ended it
            if held:
                self._keep(table(held))
        if self.whole and self.parts():
            self._merge()
        if self.whole:
            (self.folder / _ANEW).unlink(missing_ok=True)  # first: from now on, shards that remain are known to `target`
            shutil.rmtree(self.folder)

    def _keep(self, table: pa.Table) -> None:
        with replacing(self.folder / f"part-{self._number:05d}-{self._own}.parquet") as temporary:
            pq.write_table(table, temporary)
        self._number += 1

    def _take(self, part: Path) -> bool:
        """Note what a file holds; False where all of it is known: it was merged, and the run died before deleting it."""
        rows = failed = 0
        for batch in read(part, self.schema, ["path", "error"]):
            new = [self.seen.add(path) for path in batch.column("path").to_pylist()]
            if not all(new):
                if any(new) or rows:
                    raise DataError(f"{part}: answers files that {self.folder} answers elsewhere; delete one of the two")
                return False
            rows, failed = rows + len(new), failed + len(new) - batch.column("error").null_count
        self.done, self.failed = self.done + rows, self.failed + failed
        return True

    def _merge(self) -> None:
        before = [self.target] if not self._anew and self.target.is_file() else []
        temporary = self.folder / ".part-whole"
        with pq.ParquetWriter(temporary, self.schema) as writer:
            for part in [*before, *self.parts()]:
                for batch in read(part, self.schema, self.schema.names):
                    writer.write_batch(batch)
        temporary.replace(self.target)


def read(part: Path, schema: pa.Schema, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Read a file of answers, a row group at a time.

    Args:
        part: the file.
        schema: what it must have, its request included.
        columns: those wanted.

    Raises:
        DataError: it is damaged, or answers another request.
    """
    try:
        with pq.ParquetFile(part) as file:
            if (file.schema_arrow.metadata or {}).get(_REQUEST) != schema.metadata[_REQUEST]:
                raise DataError(
                    f"{part} holds answers of other weights, settings, another command or version; name another output"
                )
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, columns, use_threads=False).to_batches()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:120]
        raise DataError(f"{part} cannot be read ({reason}); delete it, and --resume answers its files again") from None
