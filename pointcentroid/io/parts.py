"""The parts that a file's author modelled: glTF nodes, OBJ objects and groups, objects that a 3MF places."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointcentroid.io import gltf, meshes, obj, threemf
from pointcentroid.io.shape import Shape, checked


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
        path: see `meshes.read_gltf`.

    Raises:
        MissingExtraError: see `meshes.read_gltf`.
        ReadError: see `meshes.read_gltf`.
    """
    named = gltf.node_names(path)
    placed, clouds = meshes.placed(path, meshes.load_scene(path, gltf.unpacked(path), "glb"))
    # A rewritten file has no names. Its reader calls a node by its number, and adds `_` and more for each primitive
    # of a mesh of several.
    nodes = np.array([int(frame.partition("_")[0]) for frame, _, _ in placed], dtype=np.int64)
    used, part = np.unique(nodes, return_inverse=True)
    return _parted(meshes.joined(path, placed, clouds), placed, part, [named[node] for node in used])


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
    placed, clouds = threemf.placed(path)
    return _parted(meshes.joined(path, placed, clouds), placed, np.arange(len(placed)), [name for name, _, _ in placed])


def _parted(
    shape: Shape, placed: list[tuple[str, np.ndarray, np.ndarray]], part: np.ndarray, names: list[str]
) -> PartedShape:
    counts = [len(faces) for _, _, faces in placed]
    return PartedShape(shape, np.repeat(part.astype(np.int64), counts), names)


READERS = {".glb": read_gltf_parts, ".gltf": read_gltf_parts, ".obj": read_obj_parts, ".3mf": read_3mf_parts}
