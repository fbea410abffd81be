"""Data sets as people have them, brought into one form: labelled clouds."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointcentroid.errors import DataError

VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class CloudSet:
    """Labelled clouds, preprocessed: centred on the mean of their points, radius 1, z up.

    Attributes:
        points: (S, N, 3) float32.
        labels: (S,) int64 indices into `classes`.
        names: S names, for reports.
        classes: class names, sorted.
    """

    points: np.ndarray
    labels: np.ndarray
    names: list[str]
    classes: tuple[str, ...]

    def subset(self, index: np.ndarray) -> CloudSet:
        """The shapes at `index`, an (n,) integer array."""
        return CloudSet(self.points[index], self.labels[index], [self.names[i] for i in index], self.classes)

    def __len__(self) -> int:
        return len(self.labels)


def load_clouds(path: str | Path) -> CloudSet:
    """Read a data set.

    Args:
        path: an npz file with `points` uint16 (S, N, 3), where xyz = points / 2047.5 - 1, `labels` (S,), `names` (S,)
            and `classes` (C,).

    Raises:
        DataError: the file is absent, is no such archive, or its arrays contradict each other.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such data set; expected an npz file with points, labels, names and classes")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in ("points", "labels", "names", "classes")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a data set npz ({error})") from None
    points, labels = arrays["points"], arrays["labels"].astype(np.int64)
    if points.dtype != np.uint16 or points.ndim != 3 or points.shape[2] != 3:
        raise DataError(f"{path}: points must be uint16 of shape (S, N, 3), found {points.dtype} {points.shape}")
    if not len(points) == len(labels) == len(arrays["names"]):
        raise DataError(f"{path}: {len(points)} clouds, {len(labels)} labels, {len(arrays['names'])} names")
    classes = tuple(map(str, arrays["classes"]))
    if len(labels) and labels.max() >= len(classes):
        raise DataError(f"{path}: label {labels.max()} but only {len(classes)} classes")
    clouds = points.astype(np.float32) / np.float32(2047.5) - np.float32(1)
    return CloudSet(clouds, labels, [str(n) for n in arrays["names"]], classes)


def split_validation(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Set a tenth of every class aside for validation, the same tenth for everyone.

    Args:
        labels: (S,) integer labels.

    Returns:
        Indices of the training and of the validation shapes, each sorted.
    """
    rng = np.random.default_rng(0)
    held_out: list[np.ndarray] = []
    for label in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == label)
        held_out.append(rng.permutation(members)[: round(VALIDATION_SHARE * len(members))])
    validation = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), validation), validation
