"""Data sets as people have them: where their shapes lie, what class and which part each one belongs to.

    folder or zip of class folders     class/*.obj, class/train/*.off, train/class/*.ply ... (ModelNet10/40, your own)
    modelnet40_ply_hdf5_2048           *.h5 with `data` and `label`, shape_names.txt
    modelnet40_normal_resampled        class/*.txt, lists of names for each part
    npz                                points, labels, names and classes
    PyTorch Geometric                  a data set or a list of `Data` with `pos` (and `face`) and `y`

`find_shapes` looks at a source and returns a `Catalogue`: entries, and a way to fetch some of them. Another layout is
another subclass here, and a line in `find_shapes`.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pointcentroid.data.clouds import CloudSet, load_npz
from pointcentroid.errors import DataError, MissingExtraError, ReadError, printable
from pointcentroid.io import READERS
from pointcentroid.io.shape import MAX_UNPACKED
from pointcentroid.io.tables import ARCHIVE_ERRORS, may_hold_points
from pointcentroid.predict.preparing import Source, as_array, as_shape

_SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Entry:
    """One shape of a data set.

    Attributes:
        name: its path in the source, or what else identifies it.
        category: its class.
        split: one of `pointcentroid.data.clouds.SPLITS`.
        key: what `Catalogue.fetch` needs to find it.
    """

    name: str
    category: str
    split: str
    key: Any


class Catalogue(ABC):
    """The shapes of one source.

    Args:
        source: what a person called it.
        entries: its shapes, in a stable order.
        up: the axis that points up unless a file's format or a person says otherwise.

    Attributes:
        classes: of the entries, sorted. The arguments are attributes, too.
    """

    def __init__(self, source: str, entries: list[Entry], up: str) -> None:
        if nameless := next((entry.name for entry in entries if not entry.category), None):
            raise DataError(f"{source}: {nameless} is of a class that has no name")
        self.source, self.up = source, up
        # As weights keep them: names of classes are printed without end.
        self.entries = [replace(entry, category=printable(entry.category)) for entry in entries]
        self.classes = tuple(sorted({entry.category for entry in self.entries}))

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of what is there, the same for a folder and an archive of it."""

    @abstractmethod
    def fetch(self, entries: Sequence[Entry], scratch: Path) -> list[Source]:
        """Make shapes readable.

        Args:
            entries: some of `self.entries`.
            scratch: an empty folder that may be filled.

        Returns:
            One source for `pointcentroid.predict.preparing` an entry.
        """


class FolderCatalogue(Catalogue):
    """Files in class folders; files are read for the fingerprint when it is first asked for."""

    def __init__(self, folder: Path, entries: list[Entry], up: str = "z") -> None:
        self.folder = folder
        super().__init__(str(folder), entries, up)

    @cached_property
    def fingerprint(self) -> str:
        """See `Catalogue.fingerprint`."""
        return _fingerprint(self.entries, (_content(self.folder / entry.key) for entry in self.entries))

    def fetch(self, entries: Sequence[Entry], scratch: Path) -> list[Source]:  # noqa: ARG002
        """Paths; nothing is copied, and `scratch` not used."""
        return [self.folder / entry.key for entry in entries]


def _fingerprint(entries: Sequence[Entry], contents: Iterable[str]) -> str:
    """A hash of files in class folders: their names without the folders, classes, parts, and what they hold."""
    digest = hashlib.sha256()
    for entry, content in zip(entries, contents, strict=True):
        line = f"{PurePosixPath(entry.name).name}\t{entry.category}\t{entry.split}\t{content}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _content(path: Path) -> str:
    """Checksum and size of a file, as a zip archive keeps them; of one that cannot be read, which is left out later with
    the reason, what it stands for here."""
    checksum = size = 0
    try:
        with path.open("rb") as file:
            while block := file.read(2**20):
                checksum, size = zlib.crc32(block, checksum), size + len(block)
    except OSError:
        return "cannot be read"
    return f"{checksum:08x} {size}"


class _Archive(zipfile.ZipFile):
    """A zip archive whose names have slashes; some programs of Windows write backslashes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for member in self.infolist():
            member.filename = member.filename.replace("\\", "/")
        self.NameToInfo = {member.filename: member for member in self.infolist()}


class ZipCatalogue(Catalogue):
    """Files in class folders in a zip archive, unpacked a few at a time."""

    def __init__(self, path: Path, entries: list[Entry], up: str = "z") -> None:
        self.path = path
        super().__init__(str(path), entries, up)
        with _Archive(path) as archive:
            self._members = [archive.getinfo(entry.key) for entry in entries]
        for member in self._members:
            if member.file_size > MAX_UNPACKED:
                size, most = member.file_size / 2**30, f"at most {MAX_UNPACKED >> 30} GiB is read"
                raise DataError(f"{path}: {member.filename} in it would unpack to {size:.1f} GiB; {most}")

    @cached_property
    def fingerprint(self) -> str:
        """See `Catalogue.fingerprint`."""
        return _fingerprint(self.entries, (f"{member.CRC:08x} {member.file_size}" for member in self._members))

    def fetch(self, entries: Sequence[Entry], scratch: Path) -> list[Source]:
        """Unpack into `scratch`, under names of our own: what an archive calls its members is never used as a path."""
        paths: list[Source] = []
        with _Archive(self.path) as archive:
            for number, entry in enumerate(entries):
                path = scratch / f"{number}{PurePosixPath(entry.key).suffix.lower()}"
                try:
                    with archive.open(entry.key) as packed, path.open("wb") as file:
                        shutil.copyfileobj(packed, file)
                except ARCHIVE_ERRORS:
                    path.write_bytes(b"")  # damaged or encrypted: read as an empty file, and quarantined as such
                paths.append(path)
        return paths


class ArrayCatalogue(Catalogue):
    """Shapes that are in memory already."""

    def __init__(self, source: str, entries: list[Entry], shapes: Any, fingerprint: str, up: str = "z") -> None:
        super().__init__(source, entries, up)
        self.shapes, self._fingerprint = shapes, fingerprint

    @property
    def fingerprint(self) -> str:
        """Of what the shapes were taken from."""
        return self._fingerprint

    def fetch(self, entries: Sequence[Entry], scratch: Path) -> list[Source]:  # noqa: ARG002
        """Shapes; `scratch` is not used."""
        return [_without_torch(self.shapes[entry.key]) for entry in entries]


def _without_torch(source: Source) -> Source:
    """`Data` as a shape: reading processes then need not import torch to receive it."""
    if isinstance(source, np.ndarray):
        return source
    try:
        return as_shape(source)
    except ReadError:
        return source  # it fails again, there where failures are counted


def find_shapes(source: Any, classes: Sequence[str] | None = None) -> Catalogue:
    """Look at a data set.

    Args:
        source: a folder, a zip or npz file, or a PyTorch Geometric data set (any sequence of `Data`, or a `Batch`).
        classes: names of the classes of a PyTorch Geometric data set, in the order of `y`. Of files, those that a lone class
            folder may be called; otherwise there must be two.

    Raises:
        DataError: it is not there, or no known layout; what was found and what was expected.
        MissingExtraError: HDF5 files, and h5py is not installed.
    """
    if not isinstance(source, (str, Path)) and not hasattr(source, "__len__"):
        raise DataError(f"expected a path or a sequence of Data, found {type(source).__name__}")
    if not isinstance(source, (str, Path)):
        return _of_geometric(source, classes)
    path = Path(source)
    if path.is_dir() and (path / "points.npy").is_file() and (path / "meta.json").is_file():
        raise DataError(f"{path} is a prepared data set already")
    if path.is_dir():
        names = sorted(_files(path))

        def read_file(name: str, most: int = -1) -> bytes:
            with (path / name).open("rb") as file:
                return file.read(most)

        return _of_files(path, names, read_file, FolderCatalogue, classes or ())
    if not path.is_file():
        raise DataError(f"{path}: no such data set; expected a folder of class folders, a zip of one, or an npz file")
    if path.suffix.lower() == ".npz":
        return of_clouds(str(path), load_npz(path))
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: neither a folder of class folders, a zip of one, nor an npz file")
    try:
        archive = _Archive(path)
    except ARCHIVE_ERRORS as error:
        raise DataError(f"{path}: the archive is damaged ({error})") from None
    with archive:
        names = sorted(info.filename for info in archive.infolist() if not info.is_dir())

        def read(name: str, most: int = -1) -> bytes:
            try:
                with archive.open(name) as file:
                    return file.read(most)
            except ARCHIVE_ERRORS as error:
                raise DataError(f"{path}: {name} in it is damaged ({error})") from None

        return _of_files(path, names, read, ZipCatalogue, classes or ())


def _files(root: Path) -> Iterator[str]:
    """Every file below a folder, relative to it, through links too, but each folder once."""
    top = os.path.realpath(root)
    seen = {top}
    for folder, below, files in os.walk(root, followlinks=True, onerror=_unlisted):
        for name in files:
            path = Path(folder) / name
            if path.is_file() or not path.exists():  # no pipe, which a reader would wait for
                yield path.relative_to(root).as_posix()
        for name in list(below):
            path = os.path.join(folder, name)
            real = os.path.realpath(path)
            # What a link to a folder of this data set shows is met where it lies, too.
            if real in seen or (os.path.islink(path) and os.path.commonpath((top, real)) == top):
                below.remove(name)
            seen.add(real)


def _unlisted(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be listed: {error.strerror}")


def _of_files(
    path: Path,
    names: list[str],
    read: Callable[..., bytes],
    catalogue: type[FolderCatalogue | ZipCatalogue],
    known: Sequence[str],
) -> Catalogue:
    names = [name for name in names if not any(p.startswith((".", "__MACOSX")) for p in PurePosixPath(name).parts)]
    lists = {PurePosixPath(name).name: name for name in names if name.endswith(".txt")}
    if any(name.endswith(".h5") for name in names) and "shape_names.txt" in lists:
        return _of_hdf5(path, names, read, lists["shape_names.txt"])
    for family in ("modelnet40", "modelnet10"):  # where the lists of both lie, the one are among the other
        if parts := [(part, lists[f"{family}_{part}.txt"]) for part in ("train", "test") if f"{family}_{part}.txt" in lists]:
            return catalogue(path, _resampled_entries(path, names, read, parts), up="y")
    shapes = [name for name in names if may_hold_points(name, read)]
    entries = _class_folder_entries(shapes)
    if len({entry.category for entry in entries}) < 2 and not (entries := _class_folder_entries(shapes, known)):
        readable = sum(PurePosixPath(name).suffix.lower() in READERS for name in names)
        found = f"{len(names)} files, of them {readable} in a readable format, and no two class folders among their folders"
        raise DataError(
            f"{path}: expected at least two class folders with shapes in them, such as chair/a.off and table/b.obj; "
            f"found {found}"
        )
    return catalogue(path, entries)


def _class_folder_entries(names: list[str], known: Sequence[str] = ()) -> list[Entry]:
    """Files in class folders; where there may be a single one, it is known what it can be called."""
    files = [PurePosixPath(name) for name in names if PurePosixPath(name).suffix.lower() in READERS]
    folders = [file.parent.parts for file in files]
    # Folders above the class folders, such as that of the archive, are shared by all.
    levels = zip(*(parts for parts in folders if parts), strict=False)
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1 and level[0] not in known, levels))
    owns = [parts[shared:] for parts in folders if parts[shared:]]
    # A folder called train holds trains where it stands beside other classes, and no such folder above one.
    beside = any(not _is_split(own[0]) for own in owns)
    above_one = any(_is_split(own[0]) and not all(map(_is_split, own)) for own in owns)
    entries = []
    for file, parts in zip(files, folders, strict=True):
        above, own = parts[:shared], parts[shared:]
        category = next((part for part in own if not _is_split(part)), None)
        if category is None and own and own[0].lower() == "train" and beside and not above_one:
            category, own = own[0], own[1:]
        if category:
            split = next((_SPLIT_FOLDERS[part.lower()] for part in (*own, *reversed(above)) if _is_split(part)), "")
            entries.append(Entry(file.as_posix(), category, split, file.as_posix()))
    return sorted(entries, key=lambda entry: (entry.category, entry.split, _natural(entry.name)))


def _is_split(folder: str) -> bool:
    return folder.lower() in _SPLIT_FOLDERS


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts chair_9 before chair_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _resampled_entries(
    path: Path, names: list[str], read: Callable[[str], bytes], lists: list[tuple[str, str]]
) -> list[Entry]:
    by_stem = {PurePosixPath(name).stem: name for name in names}
    entries = []
    for split, listed in lists:
        for shape in read(listed).decode("utf-8", "replace").split():
            category = shape.rpartition("_")[0]
            if shape not in by_stem:
                raise DataError(f"{path}: {listed} names {shape}, but there is no {category}/{shape}.txt; unpack it again")
            entries.append(Entry(shape, category, split, by_stem[shape]))
    return entries


def _of_hdf5(path: Path, names: list[str], read: Callable[[str], bytes], class_list: str) -> Catalogue:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("reading HDF5 data sets", "train", error.name or "h5py") from None
    lines = read(class_list).decode("utf-8", "replace").splitlines()
    classes = [line.strip() for line in lines if line.strip()]
    entries, shapes, digest = [], [], hashlib.sha256()
    for name in sorted((n for n in names if n.endswith(".h5")), key=lambda n: (_named_split(n) == "test", n)):
        content = read(name)
        digest.update(hashlib.sha256(content).digest())
        split = _named_split(name)
        try:
            with h5py.File(io.BytesIO(content)) as file:
                points: Any = file["data"]
                labels: Any = file["label"]
                points, labels = np.asarray(points[:], dtype=np.float32), np.asarray(labels[:], dtype=np.int64).reshape(-1)
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path}: {name} is damaged, or has no `data` and `label` ({error})") from None
        known = len(labels) == 0 or 0 <= labels.min() <= labels.max() < len(classes)
        if points.ndim != 3 or points.shape[2] != 3 or len(points) != len(labels) or not known:
            raise DataError(f"{path}: {name} holds data {points.shape} and {len(labels)} labels of {len(classes)} classes")
        for row, label in enumerate(labels):
            entries.append(Entry(f"{PurePosixPath(name).stem}[{row}]", classes[label], split, len(shapes)))
            shapes.append(points[row])
    _digest(entries, digest)
    return ArrayCatalogue(str(path), entries, shapes, digest.hexdigest(), up="y")


def _named_split(name: str) -> str:
    """What a file such as ply_data_test0.h5 holds."""
    words = re.findall(r"[a-z]+", PurePosixPath(name).stem.lower())
    return next((_SPLIT_FOLDERS[word] for word in words if word in _SPLIT_FOLDERS), "train")


def _digest(entries: list[Entry], digest: Any) -> None:
    """Shapes with other classes, or of another part, are another data set."""
    for entry in entries:
        digest.update(f"{entry.category}\0{entry.split}\0".encode(errors="surrogateescape"))


def of_clouds(source: str, clouds: CloudSet) -> Catalogue:
    """Labelled clouds as shapes of a data set, to be prepared once more.

    Args:
        source: what a person called it.
        clouds: its clouds.
    """
    entries = [
        Entry(name, clouds.classes[label], split, row)
        for row, (name, label, split) in enumerate(zip(clouds.names, clouds.labels, clouds.split, strict=True))
    ]
    return ArrayCatalogue(source, entries, clouds.points, clouds.fingerprint)


def _of_geometric(dataset: Any, classes: Sequence[str] | None) -> Catalogue:
    split = getattr(dataset, "to_data_list", None)
    dataset = split() if split else dataset
    digest, labels = hashlib.sha256(), []
    for row in range(len(dataset)):
        data = dataset[row]
        y = getattr(data, "y", None)
        label = None if y is None else as_array(f"item {row}", y).reshape(-1)
        if getattr(data, "pos", None) is None or label is None or len(label) != 1:
            raise DataError(f"item {row} of the data set has no pos, or no y that says its class")
        whole = label.dtype.kind in "biuf" and np.isfinite(label[0]) and label[0] == np.floor(label[0]) and label[0] >= 0
        if not whole:
            raise DataError(f"item {row} of the data set has the label {label[0]}; expected a whole number, 0 or more")
        labels.append(int(label[0]))
        for values in (data.pos, getattr(data, "face", None), data.y):
            digest.update(b"-" if values is None else as_array(f"item {row}", values).tobytes())
    if classes is not None and len(set(classes)) < len(classes):
        raise DataError(f"two classes have the name {max(classes, key=list(classes).count)!r}")
    if not labels:
        raise DataError("the data set is empty")
    width = len(str(max(labels)))
    given = None if classes is None else dict(enumerate(map(str, classes)))
    names = {label: f"class_{label:0{width}d}" for label in labels} if given is None else given
    if max(labels) not in names:
        raise DataError(f"the data set has the label {max(labels)}, but only {len(names)} class names were given")
    entries = [Entry(f"item {row}", names[label], "", row) for row, label in enumerate(labels)]
    _digest(entries, digest)
    return ArrayCatalogue(type(dataset).__name__, entries, dataset, digest.hexdigest())
