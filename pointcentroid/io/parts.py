"""The parts that a file's author modelled: glTF nodes, OBJ objects and groups, objects that a 3MF places."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointcentroid.io import gltf, obj, threemf
from pointcentroid.io.shape import Part, Shape, checked, joined, meshes_of


@dataclass(frozen=True)
class PartedShape:
    """A mesh whose faces are told apart.

    Attributes:
        shape: the mesh, that of the ordinary reader.
        parts: (F,) int64, the part of each face.
        names: of the parts, as in the file; two may have the same.
    """

    shape: Shape
    parts: np.ndarray
    names: list[str]


def read_gltf_parts(path: Path) -> PartedShape:
    """Read GLB or glTF: a part is a node that has a mesh.

    Args:
        path: see `gltf.read_gltf`.

    Raises:
        MissingExtraError: see `gltf.read_gltf`.
        ReadError: see `gltf.read_gltf`.
    """
    return _parted(path, gltf.placed(path))


def read_obj_parts(path: Path) -> PartedShape:
    """Read OBJ: a part is what has the same object (`o`) and group (`g`).

    Args:
        path: see `obj.read_obj`.

    Raises:
        ReadError: see `obj.read_obj`.
    """
    found = obj.parted(path)
    return PartedShape(checked(path, found.vertices, found.faces), found.parts, found.names)


def read_3mf_parts(path: Path) -> PartedShape:
    """Read 3MF: a part is a mesh that is placed, as often as it is.

    Args:
        path: see `threemf.read_3mf`.

    Raises:
        ReadError: see `threemf.read_3mf`.
    """
    return _parted(path, threemf.placed(path))


def _parted(path: Path, parts: list[Part]) -> PartedShape:
    shown = meshes_of(parts)
    counts = [len(part.faces) for part in shown]
    return PartedShape(joined(path, parts), np.repeat(np.arange(len(shown)), counts), [part.name for part in shown])


READERS = {".glb": read_gltf_parts, ".gltf": read_gltf_parts, ".obj": read_obj_parts, ".3mf": read_3mf_parts}
