"""Shapes -> clouds, kept in a folder: prepared once, opened in no time.

    points.npy   (S, N, 3) float32, preprocessed, z up, in farthest-point order; mapped into memory when opened
    index.npz    labels (S,), names (S,), split (S,)
    meta.json    version, source and its fingerprint, classes, settings, counts, and the shapes left out with reasons

meta.json is written last: a folder without it is not finished, and preparing again goes on from `parts/`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pointcentroid.config import PreprocessConfig
from pointcentroid.data.clouds import CloudSet
from pointcentroid.data.layouts import Catalogue, Entry, FolderCatalogue
from pointcentroid.data.lying import stand_in_finder
from pointcentroid.errors import DataError, one_line
from pointcentroid.files import locked, replacing
from pointcentroid.geometry.axes import TO_Z_UP, UP_AXES
from pointcentroid.geometry.farthest import farthest_first
from pointcentroid.predict.preparing import Preparer, Source, source_name, standard_up
from pointcentroid.results import Failure

VERSION = 1
_PART = 128  # shapes between two saves

Watch = Callable[[Iterable[Any], int], Iterable[Any]]
_TurnOf = Callable[[np.ndarray, Source], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Report:
    """What preparing a data set came to.

    Attributes:
        folder: the prepared data set.
        shapes: how many clouds it holds.
        classes: their classes.
        split: number of shapes of each part that the data set names.
        quarantined: name and reason of each shape left out.
    """

    folder: Path
    shapes: int
    classes: tuple[str, ...]
    split: dict[str, int]
    quarantined: dict[str, str]


def is_cache(folder: Path) -> bool:
    """Whether a folder is a prepared data set, or the beginning of one."""
    if (folder / "parts" / "request.json").is_file():
        return True
    # A folder of shapes may hold a file of that name, which is not ours.
    return (folder / "meta.json").is_file() and ((folder / "points.npy").is_file() or _is_ours(folder / "meta.json"))


def _is_ours(meta: Path) -> bool:
    """Whether a file describes a prepared data set."""
    try:
        return {"version", "settings"} <= json.loads(meta.read_text(encoding="utf-8")).keys()
    except (OSError, ValueError, AttributeError):
        return False


def is_of(folder: Path, catalogue: Catalogue, settings: PreprocessConfig, up: str | None = None) -> bool:
    """Whether a folder holds, or begins to hold, these shapes prepared in this way."""
    kept = folder / ("meta.json" if (folder / "meta.json").is_file() else "parts/request.json")
    request = _request(catalogue, settings, up)
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        return {key: found.get(key) for key in request} == request
    except (OSError, ValueError, AttributeError):
        return False


def prepare_cache(
    catalogue: Catalogue,
    folder: str | Path,
    settings: PreprocessConfig,
    *,
    up: str | None = None,
    workers: int | None = None,
    watch: Watch = lambda items, _total: items,
) -> Report:
    """Prepare a data set into a folder, or go on where an earlier attempt stopped.

    Args:
        catalogue: the shapes.
        folder: where to; made if it is not there.
        settings: the preprocessing.
        up: the axis that points up in every file; `"auto"` finds it for each, as predictions do; None follows the format's
            standard, then the layout's.
        workers: reading processes; None chooses.
        watch: wraps the shapes as they are prepared, with their number, to show progress.

    Raises:
        DataError: the folder holds another data set, or the same one prepared otherwise, lies among the shapes, or another
            command is at it; a class came out empty; or shapes need an extra that is not installed.
    """
    folder = Path(folder)
    if isinstance(catalogue, FolderCatalogue) and folder.resolve().is_relative_to(catalogue.folder.resolve()):
        raise DataError(f"{folder} lies in {catalogue.folder}, among the shapes, as if it were a class; name one elsewhere")
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; name a folder")
    with locked(folder, DataError(f"another command is preparing {folder}; name another folder, or wait for it")):
        return _prepare(catalogue, folder, settings, up, workers, watch)


def _prepare(
    catalogue: Catalogue, folder: Path, settings: PreprocessConfig, up: str | None, workers: int | None, watch: Watch
) -> Report:
    request = _request(catalogue, settings, up)
    if (folder / "meta.json").is_file():
        if not is_of(folder, catalogue, settings, up):
            raise DataError(
                f"{folder} holds another data set, or this one prepared otherwise; name another folder, or delete it"
            )
        return _report(folder, _read_meta(folder))
    parts = folder / "parts"
    kept = parts / "request.json"
    if kept.is_file() and not is_of(folder, catalogue, settings, up):
        raise DataError(f"{folder} holds the beginning of another preparation; name another folder, or delete it")
    if not kept.is_file() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty and not a prepared data set; name another folder")
    with replacing(kept) as temporary:
        temporary.write_text(json.dumps(request))
    files = list(_write_parts(catalogue, parts, settings, _standing(catalogue, up), workers, watch))
    meta = request | {"source": str(catalogue.source)}
    _assemble(folder, files, meta, catalogue, settings)
    shutil.rmtree(parts)
    return _report(folder, _read_meta(folder))


def prepared_clouds(
    catalogue: Catalogue, settings: PreprocessConfig, *, up: str | None = None, workers: int | None = None, watch: Watch
) -> CloudSet:
    """Prepare a data set in memory; the arguments are those of `prepare_cache`.

    Raises:
        DataError: no shape of a class could be read, or shapes need an extra that is not installed.
    """
    if not catalogue.entries:
        raise DataError(f"{catalogue.source} holds no shapes")
    kept: list[Entry] = []
    clouds, failures, turn_of = [], {}, _standing(catalogue, up)
    for entry, cloud in watch(_clouds(catalogue, catalogue.entries, settings, turn_of, workers), len(catalogue.entries)):
        if isinstance(cloud, Failure):
            failures[entry.name] = cloud.error
        else:
            kept.append(entry)
            clouds.append(cloud)
    _check_classes(catalogue, {entry.category for entry in kept}, failures)
    labels = np.array([catalogue.classes.index(entry.category) for entry in kept])
    return CloudSet(
        _in_order(np.stack(clouds)),
        labels,
        [entry.name for entry in kept],
        catalogue.classes,
        [entry.split for entry in kept],
        ordered=True,
        fingerprint=_fingerprint(catalogue.fingerprint, up),
        left_out=failures,
    )


def open_cache(folder: str | Path, settings: PreprocessConfig) -> CloudSet:
    """Open a prepared data set; its clouds stay on disk until they are used.

    Args:
        folder: made by `prepare_cache`.
        settings: the preprocessing of the net that will see the clouds.

    Raises:
        DataError: the folder is unfinished, damaged, of another version, or prepared with other settings.
    """
    folder = Path(folder)
    meta = _read_meta(folder)
    up = f" --up {meta['up']}" if meta.get("up") else ""
    again = f"prepare it again: pointcentroid data prepare {shlex.quote(str(meta.get('source')))} --to ANOTHER_FOLDER{up}"
    if meta.get("version") != VERSION:
        raise DataError(f"{folder}: prepared by another version of pointcentroid; {again}")
    wanted, found = _settings(settings), meta.get("settings")
    if found != wanted:
        more = f" --seed {settings.seed}" if settings.seed else ""
        raise DataError(
            f"{folder}: prepared with {found}, but the net needs {wanted}; {again} --points {settings.sample}{more}"
        )
    try:
        points = np.load(folder / "points.npy", mmap_mode="r", allow_pickle=False)
        with np.load(folder / "index.npz", allow_pickle=False) as index:
            labels, names, split = (index[key] for key in ("labels", "names", "split"))
    except Exception as error:  # damaged archives raise a dozen types
        raise DataError(f"{folder}: damaged ({one_line(error)}); delete it, and {again}") from None
    whole = points.shape == (len(labels), settings.sample, 3) and points.dtype == np.float32
    if not whole or not len(labels) == len(names) == len(split):
        found = f"points {points.shape} of {points.dtype}, {len(labels)} labels"
        raise DataError(f"{folder}: damaged ({found}); delete it, and {again}")
    if not (labels.dtype.kind in "iu" and np.isin(labels, range(len(meta["classes"]))).all()):
        raise DataError(f"{folder}: damaged (labels that are of no class); delete it, and {again}")
    return CloudSet(
        points,
        labels.astype(np.int64),
        names.tolist(),
        tuple(meta["classes"]),
        split.tolist(),
        ordered=True,
        fingerprint=_fingerprint(meta["fingerprint"], meta.get("up")),
        left_out=meta["quarantined"],
    )


def fingerprint_among(catalogue: Catalogue, known: Sequence[str]) -> str | None:
    """That of known fingerprints which is of these shapes, whatever was taken to point up in them; None where none is."""
    return next((of for up in (None, "auto", *UP_AXES) if (of := _fingerprint(catalogue.fingerprint, up)) in known), None)


def cached_classes(folder: str | Path) -> tuple[str, ...]:
    """Classes of a prepared data set."""
    return tuple(_read_meta(Path(folder))["classes"])


def _request(catalogue: Catalogue, settings: PreprocessConfig, up: str | None) -> dict[str, Any]:
    return {"version": VERSION, "fingerprint": catalogue.fingerprint, "settings": _settings(settings), "up": up}


def _fingerprint(shapes: str, up: str | None) -> str:
    """That of the shapes; of shapes that a person turned, another one: they are other clouds."""
    return shapes if up is None else hashlib.sha256(f"{shapes} with {up} up".encode()).hexdigest()


def _settings(settings: PreprocessConfig) -> dict[str, int]:
    """What of the settings the clouds on disk depend on; how many of their points are used does not matter."""
    return {"sample": settings.sample, "seed": settings.seed}


_META = {"version": int, "classes": list, "fingerprint": str, "quarantined": dict, "shapes": int, "split": dict}


def _read_meta(folder: Path) -> dict[str, Any]:
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        for key, kind in _META.items():
            if not isinstance(meta[key], kind):
                raise TypeError(key)
    except OSError:
        raise DataError(
            f"{folder}: preparing this data set was interrupted; run the same `data prepare` again, it goes on"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{folder}: its meta.json is damaged; delete the folder, and prepare it again") from None
    return meta


def _report(folder: Path, meta: dict[str, Any]) -> Report:
    return Report(folder, meta["shapes"], tuple(meta["classes"]), meta["split"], meta["quarantined"])


def _clouds(
    catalogue: Catalogue, entries: list[Entry], settings: PreprocessConfig, turn_of: _TurnOf, workers: int | None
) -> Iterator[tuple[Entry, np.ndarray | Failure]]:
    """Preprocess entries in order: (sample, 3) clouds, z up."""
    with tempfile.TemporaryDirectory(prefix="pointcentroid-") as scratch:
        sources = catalogue.fetch(entries, Path(scratch))
        results = Preparer(settings, workers=workers)(sources)
        for entry, source, result in zip(entries, sources, results, strict=True):
            if isinstance(result, Failure):
                if result.needs_extra:  # left out, it would stay so once the extra is there
                    raise DataError(f"{catalogue.source}: {entry.name}: {result.error}; then prepare again, it goes on")
                yield entry, result
                continue
            (cloud,) = result.clouds
            yield entry, cloud @ turn_of(cloud, source).T.astype(np.float32)


def _standing(catalogue: Catalogue, up: str | None) -> _TurnOf:
    """What turns a cloud, made of a source, z up; see `prepare_cache` for `up`."""
    if up == "auto":
        finder = stand_in_finder()
        return lambda cloud, source: finder.turn_of(cloud, source_name(source))
    return lambda _, source: TO_Z_UP[up or standard_up(source) or catalogue.up]


def _write_parts(
    catalogue: Catalogue, folder: Path, settings: PreprocessConfig, turn_of: _TurnOf, workers: int | None, watch: Watch
) -> Iterator[Path]:
    """Prepare a part at a time, and keep each one at once; parts that are there are not made again."""

    def results() -> Iterator[Any]:
        for start in range(0, len(catalogue.entries), _PART):
            entries = catalogue.entries[start : start + _PART]
            path = folder / f"{start // _PART:05d}.npz"
            if not _is_whole(path):
                clouds, failures = np.zeros((len(entries), settings.sample, 3), np.float32), {}
                rows = []
                for row, (_, cloud) in enumerate(_clouds(catalogue, entries, settings, turn_of, workers)):
                    if isinstance(cloud, Failure):
                        failures[str(row)] = cloud.error
                    else:
                        clouds[row] = cloud
                        rows.append(row)
                    yield None
                _save_part(path, _in_order(clouds[rows]), rows, failures)
            else:
                yield from entries
            finished.append(path)

    finished: list[Path] = []
    for _ in watch(results(), len(catalogue.entries)):
        pass
    yield from finished


def _is_whole(path: Path) -> bool:
    """Whether a part is there, and as it was written: a machine that died may have left less."""
    try:
        with np.load(path, allow_pickle=False) as part:
            return all(len(part[key]) == len(part["rows"]) for key in ("clouds", "rows")) and bool(str(part["failures"]))
    except Exception:  # damaged archives raise a dozen types
        return False


def _save_part(path: Path, clouds: np.ndarray, rows: list[int], failures: dict[str, str]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, clouds=clouds, rows=np.array(rows, dtype=np.int64), failures=json.dumps(failures))


def _in_order(clouds: np.ndarray) -> np.ndarray:
    """(S, N, 3) clouds with their points in farthest-point order, all of them."""
    chunks = (clouds[start : start + 64] for start in range(0, len(clouds), 64))
    return np.concatenate([farthest_first(chunk, chunk.shape[1]) for chunk in chunks]) if len(clouds) else clouds


def _assemble(
    folder: Path, parts: list[Path], meta: dict[str, Any], catalogue: Catalogue, settings: PreprocessConfig
) -> None:
    loaded = []
    for path in parts:
        with np.load(path, allow_pickle=False) as part:
            loaded.append((part["rows"], json.loads(str(part["failures"]))))
    kept = [number * _PART + int(row) for number, (rows, _) in enumerate(loaded) for row in rows]
    quarantined = {
        catalogue.entries[number * _PART + int(row)].name: reason
        for number, (_, failures) in enumerate(loaded)
        for row, reason in failures.items()
    }
    entries = [catalogue.entries[number] for number in kept]
    _check_classes(catalogue, {entry.category for entry in entries}, quarantined)
    with replacing(folder / "points.npy") as temporary:
        points = np.lib.format.open_memmap(temporary, "w+", np.float32, (len(kept), settings.sample, 3))
        start = 0
        for path, (rows, _) in zip(parts, loaded, strict=True):
            with np.load(path, allow_pickle=False) as part:
                points[start : start + len(rows)] = part["clouds"]
            start += len(rows)
        points.flush()
        del points
    with replacing(folder / "index.npz") as temporary, temporary.open("wb") as file:
        labels = np.array([catalogue.classes.index(entry.category) for entry in entries])
        names, split = ([getattr(entry, key) for entry in entries] for key in ("name", "split"))
        np.savez(file, labels=labels, names=np.array(names), split=np.array(split))
    counts = {name: sum(entry.split == name for entry in entries) for name in sorted({e.split for e in entries})}
    meta = meta | {
        "classes": list(catalogue.classes),
        "shapes": len(entries),
        "split": counts,
        "quarantined": quarantined,
    }
    with replacing(folder / "meta.json") as temporary:
        temporary.write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _check_classes(catalogue: Catalogue, found: set[str], failures: dict[str, str]) -> None:
    empty = [name for name in catalogue.classes if name not in found]
    if empty:
        own = {entry.name for entry in catalogue.entries if entry.category == empty[0]}
        name, reason = next(item for item in failures.items() if item[0] in own)
        raise DataError(
            f"{catalogue.source}: no shape of the class {empty[0]!r} could be read; the first failure: {name} {reason}"
        )
