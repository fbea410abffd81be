"""Labelled clouds, and which of them validate."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pointcentroid.config import nearest_name
from pointcentroid.errors import DataError, one_line, printable

FOREIGN = -1
"""The label of a cloud of no class."""

VALIDATION_SHARE = 0.1
SPLITS = ("", "train", "validation", "test")
"""What a data set may say of a shape; `""` where it says nothing."""


_STEPS = 2047.5
"""Of a coordinate between -1 and 0, or 0 and 1, as an npz holds it: 12 bits."""
_ROUNDED = 2e-3
"""How far off a cloud may be that was normalised and then rounded to 16 bits, or to 12."""


@dataclass(frozen=True)
class CloudSet:
    """Labelled clouds, preprocessed: centred on the mean of their points, radius 1, z up.

    Attributes:
        points: (S, N, 3) float32, perhaps mapped from a file.
        labels: (S,) int64 indices into `classes`.
        names: S names, for reports.
        classes: class names; sorted, but for those of an npz that is taken as it is, which keep their order.
        split: S entries of `SPLITS`.
        ordered: the clouds are in farthest-point order.
        fingerprint: a hash that says which data set this is, the same however it is stored.
        left_out: names of shapes that could not be read, with reasons.
        parts: (S, N) the part of each point, where the data set knows: below the number of `part_names`, one that has that
            name; else one without a name, told apart from the shape's others.
        part_names: names of parts, as in `table: leg front left`.
    """

    points: np.ndarray
    labels: np.ndarray
    names: list[str]
    classes: tuple[str, ...]
    split: list[str]
    ordered: bool = False
    fingerprint: str = ""
    left_out: dict[str, str] = field(default_factory=dict)
    parts: np.ndarray | None = None
    part_names: tuple[str, ...] = ()

    def subset(self, index: np.ndarray) -> CloudSet:
        """The shapes at `index`, an (n,) integer array."""
        names, split = ([values[i] for i in index] for values in (self.names, self.split))
        parts = None if self.parts is None else self.parts[index]
        points, labels = self.points[index], self.labels[index]
        return replace(self, points=points, labels=labels, names=names, split=split, parts=parts)

    def __len__(self) -> int:
        return len(self.labels)

    def without_class(self, name: str) -> CloudSet:
        """The same clouds, of which those of one class are of none: their label is `FOREIGN`.

        Args:
            name: the class.

        Raises:
            DataError: there is no such class.
        """
        if name not in self.classes:
            raise DataError(f"the data set has no class {name!r} to be no_class{nearest_name(name, self.classes)}")
        number = self.classes.index(name)
        labels = np.where(self.labels == number, FOREIGN, self.labels - (self.labels > number))
        return replace(self, labels=labels, classes=tuple(other for other in self.classes if other != name))

    def labels_among(self, classes: Sequence[str]) -> np.ndarray:
        """(S,) labels as weights number their classes, which are matched by name.

        Args:
            classes: of the weights.

        Raises:
            DataError: a shape is of another class.
        """
        for name in {self.classes[label] for label in np.unique(self.labels)}:
            if name not in classes:
                raise unknown_class(name, classes)
        column = {name: number for number, name in enumerate(classes)}
        return np.array([column[self.classes[label]] for label in self.labels])

    @property
    def normalised(self) -> bool:
        """Whether all clouds are centred on the mean of their points and have radius 1, as near as an npz can say it."""
        middles = self.points.mean(axis=1)
        radii = np.sqrt(np.einsum("snd,snd->sn", self.points, self.points).max(axis=1))
        return bool(np.abs(middles).max(initial=0) < _ROUNDED and np.abs(radii - 1).max(initial=0) < _ROUNDED)

    def part(self, name: str) -> np.ndarray:
        """Indices of the shapes of one part, sorted.

        Args:
            name: `"all"`; `"test"`; `"training"` and `"validation"`, which divide everything that is not `"test"`: as the
                data set says, or by `split_validation`.
        """
        split = np.array(self.split)
        if name == "all":
            return np.arange(len(self))
        if name == "test":
            return np.flatnonzero(split == "test")
        others = np.flatnonzero(split != "test")
        if (split == "validation").any():
            chosen = split[others] == "validation"
            return others[chosen if name == "validation" else ~chosen]
        rank = np.argsort(np.argsort(self.classes))  # the same shapes in whatever order the classes stand
        training, validation = split_validation(rank[self.labels[others]])
        return others[validation if name == "validation" else training]


def unknown_class(name: str, known: Sequence[str]) -> DataError:
    """What is wrong with a data set that has a class which weights do not know."""
    return DataError(f"the data set has the class {name!r}, which the weights do not know{nearest_name(name, known)}")


def split_validation(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Set a tenth of every class aside for validation, the same tenth for everyone.

    Args:
        labels: (S,) integer labels.

    Returns:
        Indices of the training and of the validation shapes, each sorted.
    """
    rng = np.random.default_rng(0)
    held_out: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    for label in range(int(labels.max(initial=-1)) + 1):
        members = np.flatnonzero(labels == label)
        held_out.append(rng.permutation(members)[: round(VALIDATION_SHARE * len(members))])
    validation = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def npz_classes(path: str | Path) -> tuple[str, ...]:
    """The classes of a data set in one file that have shapes, without reading its clouds.

    Args:
        path: see `load_npz`.

    Raises:
        DataError: the file is absent, or no such archive.
    """
    return _labelled(Path(path), _arrays(Path(path), ("classes", "labels")))[1]


def _labelled(path: Path, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels, and the classes that they are of; classes without shapes are left out."""
    flat = [key for key in arrays if key not in ("points", "parts") and arrays[key].ndim != 1]
    if flat:
        raise DataError(f"{path}: {flat[0]} must be a list, found an array of shape {arrays[flat[0]].shape}")
    labels, classes = arrays["labels"], tuple(printable(str(name)) for name in arrays["classes"])
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: labels must be integers, found {labels.dtype}")
    labels = labels.astype(np.int64)
    strange = labels[(labels < 0) | (labels >= len(classes))]
    if len(strange):
        raise DataError(f"{path}: label {strange[0]} but only {len(classes)} classes, from 0 on")
    if len(set(classes)) < len(classes):
        raise DataError(f"{path}: two classes have the name {max(classes, key=classes.count)!r}")
    present, labels = np.unique(labels, return_inverse=True)
    classes = tuple(classes[label] for label in present)
    if "" in classes:
        raise DataError(f"{path}: a class has no name")
    return labels, classes


def _arrays(path: Path, needed: Sequence[str], others: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an archive: those that must be there, and others where they are."""
    if not path.is_file():
        raise DataError(f"{path}: no such data set; expected an npz file with points, labels, names and classes")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in (*needed, *(other for other in others if other in archive))}
    except Exception as error:  # damaged archives raise a dozen types, from zlib.error to NotImplementedError
        raise DataError(f"{path}: not a data set npz ({one_line(error)})") from None


def as_stored(points: np.ndarray) -> np.ndarray:
    """Coordinates as an npz holds them, of the same shape, uint16; `load_npz` takes them back.

    Args:
        points: in [-1, 1]; what lies outside is moved to the border.
    """
    return np.rint((points + 1) * _STEPS).clip(0, 2 * _STEPS).astype(np.uint16)


def load_npz(path: str | Path) -> CloudSet:
    """Read a data set from one file.

    Args:
        path: an npz file with `points` uint16 (S, N, 3), where xyz = points / 2047.5 - 1, `labels` (S,), `names` (S,)
            and `classes` (C,); perhaps with `split` (S,), and with `parts` uint8 (S, N) and `part_names`.

    Raises:
        DataError: the file is absent, is no such archive, or its arrays contradict each other.
    """
    path = Path(path)
    arrays = _arrays(path, ("points", "labels", "names", "classes"), ("split", "parts", "part_names"))
    points = arrays["points"]
    if points.dtype != np.uint16 or points.ndim != 3 or points.shape[2] != 3:
        raise DataError(f"{path}: points must be uint16 of shape (S, N, 3), found {points.dtype} {points.shape}")
    labels, classes = _labelled(path, arrays)
    if not len(points) == len(labels) == len(arrays["names"]):
        raise DataError(f"{path}: {len(points)} clouds, {len(labels)} labels, {len(arrays['names'])} names")
    clouds = points.astype(np.float32) / np.float32(_STEPS) - np.float32(1)
    names = [str(n) for n in arrays["names"]]
    split = [str(part) for part in arrays.get("split", np.full(len(names), ""))]
    if len(split) != len(names) or not set(split) <= set(SPLITS):
        raise DataError(f"{path}: split must say one of {', '.join(SPLITS[1:])} or nothing of each of {len(names)} shapes")
    parts, part_names = arrays.get("parts"), tuple(map(str, arrays.get("part_names", ())))
    if parts is not None and (parts.shape != points.shape[:2] or parts.dtype != np.uint8):
        raise DataError(f"{path}: parts must be uint8 {points.shape[:2]}, found {parts.dtype} {parts.shape}")
    fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
    return CloudSet(clouds, labels, names, classes, split, False, fingerprint, parts=parts, part_names=part_names)
