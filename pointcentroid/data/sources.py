"""Open a data set, however it is stored: an npz file, a prepared folder, or raw shapes that are prepared on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pointcentroid.config import PreprocessConfig
from pointcentroid.data.cache import cached_classes, is_cache, open_cache, prepared_clouds
from pointcentroid.data.clouds import CloudSet, load_npz, npz_classes
from pointcentroid.data.layouts import Catalogue, find_shapes, of_clouds


def is_prepared(path: str | Path) -> bool:
    """Whether a data set holds clouds, z up, not shapes in files."""
    return _is_npz(path) or (Path(path).is_dir() and is_cache(Path(path)))


def _is_npz(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".npz" and not Path(path).is_dir()


def open_data(
    source: str | Path | Catalogue,
    settings: PreprocessConfig,
    *,
    parts: bool = False,
    up: str | None = None,
    workers: int | None = None,
    watch: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, _total: items,
) -> CloudSet:
    """Open a data set.

    Args:
        source: an npz file, a folder made by `pointcentroid data prepare`, or anything `find_shapes` knows, or found. Raw
            shapes, and npz clouds that are not as `settings` prepare them, are prepared in memory; what cannot be read is
            left out.
        settings: the preprocessing of the net that will see the clouds.
        parts: it is one of parts, which chooses among all points of the clouds of an npz itself, anew in every epoch.
        up: what points up in raw shapes, see `pointcentroid.data.cache.prepare_cache`.
        workers: reading processes; None chooses.
        watch: wraps the shapes as they are prepared, with their number, to show progress.

    Raises:
        DataError: it is not there, of no known layout, damaged, or was prepared otherwise than `settings` say.
    """
    if isinstance(source, Catalogue):
        catalogue = source
    elif _is_npz(source):
        clouds = load_npz(source)
        if (parts and clouds.parts is not None) or (clouds.points.shape[1] == settings.sample and clouds.normalised):
            return clouds
        catalogue = of_clouds(str(source), clouds)
    elif is_prepared(source):
        return open_cache(source, settings)
    else:
        catalogue = find_shapes(source)
    return prepared_clouds(catalogue, settings, up=up, workers=workers, watch=watch)


def class_names(path: str | Path) -> tuple[str, ...]:
    """The classes of a data set, without preparing its shapes.

    Raises:
        DataError: it is not there, or of no known layout.
    """
    if _is_npz(path):
        return npz_classes(path)
    return cached_classes(path) if is_prepared(path) else find_shapes(path).classes
