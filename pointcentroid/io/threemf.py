"""3MF: a zip archive of XML models. Items place objects, and objects are meshes or place other objects, their components.

After the core specification 1.3 and the production extension 1.1 of the 3MF Consortium. Ours, as trimesh (5.2) leaves out
components that are nested often, and takes all meshes of another model file for each component that names one of them,
as slicers write it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pointcentroid.errors import ReadError, one_line
from pointcentroid.io.meshes import joined
from pointcentroid.io.shape import MAX_ELEMENTS, MAX_INSTANCES, Shape
from pointcentroid.io.tables import ARCHIVE_ERRORS, guard_archive

_PARSING: dict[str, Any] = {"resolve_entities": False, "no_network": True, "huge_tree": True}
_ASIDE = ("other", "support", "solidsupport")  # types of objects that are printed with the shape, or not at all
_TAGS = tuple(f"{{*}}{tag}" for tag in ("vertices", "triangles", "component", "object", "item"))
_NO_VERTICES, _NO_FACES = np.empty((0, 3)), np.empty((0, 3), np.int64)
_ROOT = "3d/3dmodel.model"  # where the model is if the archive does not say


class _Placement(NamedTuple):
    """Where an object is placed.

    Attributes:
        model: the file of the archive that holds the object.
        number: the object's id there.
        transform: (4, 4), of rows (x, y, z, 1).
    """

    model: str
    number: str
    transform: np.ndarray


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


def read_3mf(path: Path) -> Shape:
    """Read 3MF: everything that is built, placed and merged, without what only supports it.

    Args:
        path: the file.

    Raises:
        ReadError: the file is damaged or holds no geometry, or places more than is read.
    """
    return joined(path, *placed(path))


def placed(path: Path) -> tuple[list[tuple[str, np.ndarray, np.ndarray]], list[np.ndarray]]:
    """What a 3MF file builds, where it stands.

    Args:
        path: the file.

    Returns:
        As of `meshes.placed`: meshes, each with the name of its object; and clouds, which are objects without triangles.

    Raises:
        ReadError: see `read_3mf`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            guard_archive(path, archive)
            parts = list(_Package(path, archive).placed())
    except ARCHIVE_ERRORS as error:
        raise ReadError(path, f"not a 3MF file: it is no zip archive, or a damaged one ({one_line(error, 120)})") from None
    shown = [part for part in parts if part[0].kind not in _ASIDE] or parts
    moved = [(part.name, part.vertices @ transform[:3, :3] + transform[3, :3], part.faces) for part, transform in shown]
    meshes = [each for each in moved if len(each[2])]
    return meshes, [vertices for _, vertices, faces in moved if not len(faces)]


class _Package:
    """The models of an archive, each parsed when one of its objects is first asked for.

    Args:
        path: named in errors.
        archive: open; names in it are looked for in any case, as the packaging standard wants it.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self.archive = archive
        self.names = {member.filename.lower().lstrip("/"): member for member in archive.infolist()}
        self.items: dict[str, list[_Placement]] = {}  # of each model that was parsed
        self.objects: dict[tuple[str, str], _Object] = {}  # of all of these, by model and id

    def placed(self) -> Iterator[tuple[_Object, np.ndarray]]:
        """Every mesh that is built, as often as it is, with its (4, 4) transform.

        Raises:
            ReadError: a model is damaged or absent, an object is absent or part of itself, or too much is placed.
        """
        root = self._root()
        self._parse(root)
        waiting = [(item, np.eye(4), 0) for item in reversed(self.items[root])]
        seen = elements = 0
        while waiting:
            (model, number, transform), outer, depth = waiting.pop()
            if model not in self.items:
                self._parse(model)
            found = self.objects.get((model, number))
            seen += 1
            if found is None:
                raise ReadError(self.path, f"damaged 3MF file: it places object {number!r}, which {model} does not hold")
            if depth > len(self.objects):
                raise ReadError(self.path, "damaged 3MF file: a component is part of itself")
            inner = transform @ outer
            elements += max(len(found.vertices), len(found.faces))
            waiting += [(component, inner, depth + 1) for component in reversed(found.components)]
            if seen + len(waiting) > MAX_INSTANCES or elements > MAX_ELEMENTS:
                most = f"{MAX_INSTANCES} objects or {MAX_ELEMENTS} vertices or faces"
                raise ReadError(self.path, f"places more than {most}, which is more than is read")
            if len(found.vertices):
                yield found, inner

    def _root(self) -> str:
        """The name of the model to begin with: where the archive's relations say, or else at the usual place."""
        from lxml import etree  # type: ignore[reportAttributeAccessIssue]

        if "_rels/.rels" in self.names:
            try:
                relations = etree.fromstring(self._content("_rels/.rels"), etree.XMLParser(**_PARSING))
            except etree.XMLSyntaxError:
                return _ROOT
            for relation in relations.iterchildren("{*}Relationship"):
                if relation.get("Type", "").endswith("/3dmodel"):
                    return relation.get("Target", _ROOT).lower().lstrip("/")
        return _ROOT

    def _content(self, name: str) -> bytes:
        if name not in self.names:
            raise ReadError(self.path, f"damaged 3MF file: it holds no {name}")
        return self.archive.read(self.names[name])

    def _parse(self, name: str) -> None:
        """Add the objects and items of a model."""
        from lxml import etree  # type: ignore[reportAttributeAccessIssue]

        items = self.items[name] = []
        vertices, faces, components = _NO_VERTICES, _NO_FACES, []
        try:
            for _, element in etree.iterparse(io.BytesIO(self._content(name)), tag=_TAGS, **_PARSING):
                tag, parent = etree.QName(element).localname, element.getparent()
                of_mesh = parent is not None and etree.QName(parent).localname.endswith("mesh")  # slices have vertices, too
                if tag == "vertices" and of_mesh:
                    vertices = _numbers(element.iterchildren("{*}vertex"), ("x", "y", "z"), np.float64)
                elif tag == "triangles" and of_mesh:
                    faces = _numbers(element.iterchildren("{*}triangle"), ("v1", "v2", "v3"), np.int64)
                elif tag == "component":
                    components.append(_placement(element, name))
                elif tag == "item":
                    items.append(_placement(element, name))
                elif tag == "object":
                    number, kind = element.get("id", ""), element.get("type", "model")
                    if len(faces) and not 0 <= faces.min() <= faces.max() < len(vertices):
                        raise ValueError(f"object {number} has {len(vertices)} vertices, a triangle names others")
                    called = element.get("name") or f"object {number}"
                    self.objects[name, number] = _Object(called, kind, vertices, faces, components)
                    vertices, faces, components = _NO_VERTICES, _NO_FACES, []
                element.clear()
        except (etree.XMLSyntaxError, TypeError, ValueError, OverflowError) as error:
            raise ReadError(self.path, f"damaged 3MF file ({name}: {one_line(error, 120)})") from None


def _numbers(elements: Iterable[Any], names: tuple[str, str, str], dtype: type) -> np.ndarray:
    """(N, 3) of three attributes of each of N elements."""
    first, second, third = names
    rows = [(element.get(first), element.get(second), element.get(third)) for element in elements]
    return np.array(rows, dtype=dtype).reshape(-1, 3)


def _placement(element: Any, model: str) -> _Placement:
    """What an item or a component of a model says."""
    transform = np.eye(4)
    if text := element.get("transform"):
        transform[:, :3] = np.array(text.split(), dtype=np.float64).reshape(4, 3)
    others = (value for key, value in element.items() if key.endswith("}path"))  # the production extension's
    return _Placement(next(others, model).lower().lstrip("/"), element.get("objectid", ""), transform)


READERS = {".3mf": read_3mf}
