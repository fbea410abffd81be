"""3MF: a zip archive of XML models. Items place objects, and objects are meshes or place other objects, their components.

After the core specification 1.3 and the production extension 1.1 of the 3MF Consortium. Ours, as trimesh (5.2) leaves out
components that are nested often, and takes all meshes of another model file for each component that names one of them,
as slicers write it.
"""

from __future__ import annotations

import posixpath
import urllib.parse
import zipfile
from array import array
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple
from xml.parsers import expat

import numpy as np

from pointcentroid.errors import ReadError, one_line
from pointcentroid.io.shape import MAX_ELEMENTS, MAX_INSTANCES, Part, Shape, joined
from pointcentroid.io.tables import ARCHIVE_ERRORS, guard_archive

_ASIDE = ("other", "support", "solidsupport")  # types of objects that are printed with the shape, or not at all
_DEEPEST = 64  # a model's elements are nested less than ten deep
_EXTENSIONS = "/production/", "/material/", "/slice/", "/trianglesets/"
"""Parts of the names of extensions that change nothing of the meshes, or are read."""

_ROOT = "3d/3dmodel.model"  # where the model is if the archive does not say


class _Placement(NamedTuple):
    """Where an object is placed.

    Attributes:
        model: the file of the archive that holds the object.
        number: the object's id there.
        transform: (4, 4), of rows (x, y, z, 1).
        aside: whether it is said not to be printed, as slicers of the PrusaSlicer family do.
    """

    model: str
    number: str
    transform: np.ndarray
    aside: bool


class _Object(NamedTuple):
    """An object: a mesh, or components.

    Attributes:
        name: its own, or `object 3`.
        kind: its type, `model` for most.
        vertices: (V, 3) float64.
        faces: (F, 3) int64.
        components: other objects, placed in this one.
    """

    name: str
    kind: str
    vertices: np.ndarray
    faces: np.ndarray
    components: list[_Placement]


class _Placed(NamedTuple):
    """A mesh where it is built.

    Attributes:
        object: the mesh.
        transform: (4, 4), of rows (x, y, z, 1).
        aside: whether it, or what it is a component of, is no part of the shape.
    """

    object: _Object
    transform: np.ndarray
    aside: bool


def read_3mf(path: Path) -> Shape:
    """Read 3MF: everything that is built, placed and merged, without what only supports it.

    Args:
        path: the file.

    Raises:
        ReadError: the file is damaged or holds no geometry, or places more than is read.
    """
    return joined(path, placed(path))


def placed(path: Path) -> list[Part]:
    """What a 3MF file builds, where it stands.

    Args:
        path: the file.

    Returns:
        Each mesh with the name of its object, as often as it is placed; objects without triangles are points.

    Raises:
        ReadError: see `read_3mf`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            guard_archive(path, archive)
            parts = list(_Package(path, archive).placed())
    except ARCHIVE_ERRORS as error:
        raise ReadError(path, f"not a 3MF file: it is no zip archive, or a damaged one ({one_line(error, 120)})") from None
    shown = [part for part in parts if not part.aside] or parts
    return [Part(found.name, found.vertices @ at[:3, :3] + at[3, :3], found.faces) for found, at, _ in shown]


class _Package:
    """The models of an archive, each parsed when one of its objects is first asked for.

    Args:
        path: named in errors.
        archive: open; names in it are looked for in any case, as the packaging standard wants it.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self.archive = archive
        self.names = {_member(member.filename): member for member in archive.infolist()}
        self.items: dict[str, list[_Placement]] = {}  # of each model that was parsed
        self.objects: dict[tuple[str, str], _Object] = {}  # of all of these, by model and id

    def placed(self) -> Iterator[_Placed]:
        """Every mesh that is built, as often as it is.

        Raises:
            ReadError: a model is damaged or absent, an object is absent or part of itself, or too much is placed.
        """
        root = self._root()
        self._parse(root)
        waiting = [(item, np.eye(4), False, 0) for item in reversed(self.items[root])]
        if self.objects and not waiting:
            raise ReadError(self.path, f"builds none of its {len(self.objects)} objects; there is no geometry to see")
        seen = elements = 0
        while waiting:
            (model, number, transform, unprinted), outer, aside, depth = waiting.pop()
            if model not in self.items:
                self._parse(model)
            found = self.objects.get((model, number))
            seen += 1
            if found is None:
                raise ReadError(self.path, f"damaged 3MF file: it places object {number!r}, which {model} does not hold")
            if depth > len(self.objects):
                raise ReadError(self.path, "damaged 3MF file: a component is part of itself")
            inner, aside = transform @ outer, aside or unprinted or found.kind in _ASIDE
            elements += max(len(found.vertices), len(found.faces))
            waiting += [(component, inner, aside, depth + 1) for component in reversed(found.components)]
            if seen + len(waiting) > MAX_INSTANCES or elements > MAX_ELEMENTS:
                most = f"{MAX_INSTANCES} objects or {MAX_ELEMENTS} vertices or faces"
                raise ReadError(self.path, f"places more than {most}, which is more than is read")
            if len(found.vertices):
                yield _Placed(found, inner, aside)

    def _root(self) -> str:
        """The name of the model to begin with: where the archive's relations say, or else at the usual place."""
        relations = _Relations()
        if "_rels/.rels" in self.names:
            with suppress(expat.ExpatError, ValueError):
                relations.parse(self._open("_rels/.rels"))
        return relations.root or _ROOT

    def _open(self, name: str) -> IO[bytes]:
        if name not in self.names:
            raise ReadError(self.path, f"damaged 3MF file: it holds no {name}")
        return self.archive.open(self.names[name])

    def _parse(self, name: str) -> None:
        """Add the objects and items of a model."""
        model = _Model(self.path, name)
        try:
            model.parse(self._open(name))
        except (expat.ExpatError, KeyError, ValueError, OverflowError) as error:
            what = f"an element without {error}" if isinstance(error, KeyError) else one_line(error, 120)
            raise ReadError(self.path, f"damaged 3MF file ({name}: {what})") from None
        if model.needs:
            raise ReadError(self.path, f"needs the 3MF extension {model.needs}, which is not read")
        self.items[name] = model.items
        self.objects.update(((name, number), found) for number, found in model.objects.items())


class _Xml:
    """Elements of an XML file as they come: none is kept, however many there are. Names are without their namespace.

    Attributes:
        outer: tags of the elements around.
        prefixes: namespaces by what stands for them.
    """

    def __init__(self) -> None:
        self.outer: list[str] = []
        self.prefixes: dict[str, str] = {}

    def parse(self, file: IO[bytes]) -> None:
        """Read a file to its end, and close it.

        Raises:
            expat.ExpatError: it is no XML, or it is cut short.
            ValueError: it defines a type of documents, and so perhaps entities; or its elements are nested very deep.
        """
        parser = expat.ParserCreate(namespace_separator="}")

        def start(name: str, attributes: dict[str, str]) -> None:
            tag = name.rpartition("}")[2]
            if len(self.outer) == _DEEPEST:  # the parser remembers all that are open
                raise ValueError(f"its elements are nested more than {_DEEPEST} deep")
            self.start(tag, attributes)
            self.outer.append(tag)

        def end(_: str) -> None:
            self.end(self.outer.pop())

        def prefix(short: str | None, namespace: str) -> None:
            self.prefixes[short or ""] = namespace

        parser.StartElementHandler, parser.EndElementHandler = start, end
        parser.StartNamespaceDeclHandler, parser.StartDoctypeDeclHandler = prefix, self._doctype
        with file:
            parser.ParseFile(file)

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins."""

    def end(self, tag: str) -> None:
        """An element ends."""

    @staticmethod
    def _doctype(*_: object) -> None:
        raise ValueError("it holds a DOCTYPE, which no 3MF does")


class _Relations(_Xml):
    """The relations of an archive.

    Attributes:
        root: the name of its first model; empty if it names none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.root = ""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "Relationship" and not self.root and attributes.get("Type", "").endswith("/3dmodel"):
            self.root = _member(attributes.get("Target", _ROOT))


class _Model(_Xml):
    """A model of an archive.

    Args:
        path: of the archive, named in errors.
        name: its own.

    Attributes:
        items: what it builds.
        objects: by their ids.
        needs: an extension without which it cannot be read rightly, and which is not read here.
    """

    def __init__(self, path: Path, name: str) -> None:
        super().__init__()
        self.path, self.name, self.needs = path, name, ""
        self._held = 0
        self.items: list[_Placement] = []
        self.objects: dict[str, _Object] = {}
        self._object: dict[str, str] = {}  # attributes of the object that is read
        self._vertices, self._faces = array("d"), array("q")  # its numbers
        self._components: list[_Placement] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag in ("object", "component", "item"):
            self._held += 1
            if self._held > MAX_INSTANCES:
                raise ReadError(
                    self.path, f"holds more than {MAX_INSTANCES} objects, components and items, which is more than is read"
                )
        if tag == "vertex":
            if self._in_mesh("vertices"):
                self._vertices.extend((float(attributes["x"]), float(attributes["y"]), float(attributes["z"])))
        elif tag == "triangle":
            if self._in_mesh("triangles"):
                self._faces.extend((int(attributes["v1"]), int(attributes["v2"]), int(attributes["v3"])))
        elif tag == "component":
            self._components.append(_placement(attributes, self.name))
        elif tag == "item":
            self.items.append(_placement(attributes, self.name))
        elif tag == "model":
            needed = (self.prefixes.get(short, short) for short in attributes.get("requiredextensions", "").split())
            self.needs = next((name for name in needed if not any(known in name for known in _EXTENSIONS)), "")
        elif tag == "object":
            self._object = attributes
            self._vertices, self._faces, self._components = array("d"), array("q"), []

    def end(self, tag: str) -> None:
        if tag == "object":
            number, kind = self._object.get("id", ""), self._object.get("type", "model")
            vertices, faces = np.array(self._vertices).reshape(-1, 3), np.array(self._faces).reshape(-1, 3)
            if len(faces) and not 0 <= faces.min() <= faces.max() < len(vertices):
                raise ValueError(f"object {number} has {len(vertices)} vertices, a triangle names others")
            called = self._object.get("name") or f"object {number}"
            self.objects[number] = _Object(called, kind, vertices, faces, self._components)

    def _in_mesh(self, tag: str) -> bool:
        """Whether the next element is one of a mesh's own: slices have vertices, too."""
        return len(self.outer) > 1 and self.outer[-1] == tag and self.outer[-2].endswith("mesh")


def _placement(attributes: dict[str, str], model: str) -> _Placement:
    """What an item or a component of a model says."""
    transform = np.eye(4)
    if text := attributes.get("transform"):
        transform[:, :3] = np.array(text.split(), dtype=np.float64).reshape(4, 3)
    others = (value for key, value in attributes.items() if key.endswith("}path"))  # the production extension's
    unprinted = attributes.get("printable", "1").lower() in ("0", "false")
    return _Placement(_member(next(others, model)), attributes.get("objectid", ""), transform, unprinted)


def _member(address: str) -> str:
    """The name of a part of the archive, as `_Package.names` has it, of an address from its root."""
    return posixpath.normpath("/" + urllib.parse.unquote(address)).lower().lstrip("/")


READERS = {".3mf": read_3mf}
