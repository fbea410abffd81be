"""Mesh formats read through trimesh: OBJ, PLY, STL, GLB / glTF, 3MF."""

from __future__ import annotations

import io
import logging
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pointcentroid.errors import ReadError, one_line
from pointcentroid.io import gltf
from pointcentroid.io.shape import MAX_ELEMENTS, Shape, checked
from pointcentroid.io.tables import guard_archive

_MAX_INSTANCES = 100_000

logging.getLogger("trimesh").addHandler(logging.NullHandler())  # its remarks on damaged files are not for the screen


def read_mesh(path: Path) -> Shape:
    """Read OBJ, PLY, STL or 3MF; parts are placed by the scene's transforms and merged.

    Args:
        path: the file. Materials, textures and other files it names are not opened.

    Raises:
        ReadError: the file is damaged or holds no geometry.
    """
    kind = path.suffix.lower()[1:]
    content = path.read_bytes()
    if kind == "ply":
        _guard_ply(path, content)
    if kind == "stl":
        _guard_stl(path, content)
    if kind == "3mf":
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                guard_archive(path, archive)
        except zipfile.BadZipFile:
            raise ReadError(path, "not a 3MF file: it is no zip archive, or one cut short") from None
    return joined(path, *placed(path, load_scene(path, content, kind)))


def read_gltf(path: Path) -> Shape:
    """Read GLB or glTF, compressed ones included; parts are placed by the scene's transforms and merged.

    Args:
        path: the file. A glTF file's buffers are looked for in its own folder.

    Raises:
        MissingExtraError: the geometry is compressed and the decoder is not installed.
        ReadError: the file is damaged or holds no geometry.
    """
    content = gltf.unpacked(path)
    return joined(path, *placed(path, load_scene(path, content, "glb")))


def load_scene(path: Path, content: bytes, kind: str, **options: Any) -> Any:
    """What trimesh makes of a file's content.

    Args:
        path: named in errors.
        content: of the file.
        kind: its format, as trimesh calls it.
        options: of trimesh's reader.

    Raises:
        ReadError: trimesh cannot read it.
    """
    import trimesh

    if kind == "obj":
        options["skip_materials"] = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return trimesh.load_scene(io.BytesIO(content), file_type=kind, process=False, **options)
    except MemoryError:
        raise
    except Exception as error:  # what a damaged file raises inside a parser is anybody's guess
        reason = f"{type(error).__name__}: {one_line(error, 120)}"
        raise ReadError(path, f"damaged {kind.upper()} file ({reason})") from None


def placed(path: Path, scene: Any) -> tuple[list[tuple[str, np.ndarray, np.ndarray]], list[np.ndarray]]:
    """Apply the transforms of a scene.

    Args:
        path: named in errors.
        scene: of trimesh.

    Returns:
        The meshes, each with the name of its node, (V, 3) vertices and (F, 3) faces; and the clouds, (N, 3) each.

    Raises:
        ReadError: it is larger than is read, or damaged.
    """
    meshes: list[tuple[str, np.ndarray, np.ndarray]] = []
    clouds: list[np.ndarray] = []
    nodes = list(scene.graph.nodes_geometry)
    total = sum(len(getattr(scene.geometry[scene.graph[node][1]], "vertices", ())) for node in nodes)
    if len(nodes) > _MAX_INSTANCES or total > MAX_ELEMENTS:
        raise ReadError(path, f"places {len(nodes)} parts with {total} vertices in all, more than is read")
    for node in nodes:
        transform, name = scene.graph[node]
        part = scene.geometry[name]
        vertices = _triples(path, "vertices", getattr(part, "vertices", ())).astype(np.float64)
        faces = _triples(path, "faces", getattr(part, "faces", ())).astype(np.int64)
        vertices = vertices @ transform[:3, :3].T + transform[:3, 3]
        if len(faces):
            meshes.append((node, vertices, faces))
        elif type(part).__name__ in ("PointCloud", "Trimesh"):
            clouds.append(vertices)
    return meshes, clouds


def joined(path: Path, meshes: list[tuple[str, np.ndarray, np.ndarray]], clouds: list[np.ndarray]) -> Shape:
    """Put all parts in one array, in their order. Points count only where there are no triangles.

    Args:
        path: named in errors.
        meshes: see `placed`.
        clouds: see `placed`.

    Raises:
        ReadError: there is no usable geometry.
    """
    if meshes:
        offsets = np.cumsum([0, *(len(vertices) for _, vertices, _ in meshes[:-1])])
        faces = np.concatenate([faces + offset for (_, _, faces), offset in zip(meshes, offsets, strict=True)])
        return checked(path, np.concatenate([vertices for _, vertices, _ in meshes]), faces)
    return checked(path, np.concatenate(clouds) if clouds else np.empty((0, 3)))


def _triples(path: Path, what: str, values: Any) -> np.ndarray:
    """(N, 3) from what a parser made of a file, which may be anything where lines are damaged."""
    array = np.asarray(values)
    if array.size == 0:
        return np.empty((0, 3))
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "fiu":
        raise ReadError(path, f"damaged: its {what} do not come in threes")
    return array


def _guard_ply(path: Path, content: bytes) -> None:
    """Compare what a PLY header declares with the size of the file, and refuse files cut short."""
    end = content.find(b"end_header")
    if not content.startswith(b"ply") or end < 0:
        raise ReadError(path, "not a PLY file: it should start with 'ply' and have a line 'end_header'")
    body = len(content) - end - len("end_header\n")
    elements = re.findall(rb"^element\s+(\S+)\s+(-?\d{1,18})", content[:end], re.MULTILINE)
    for name, count in elements:
        if int(count) < 0 or int(count) > max(body, 0):
            raise ReadError(
                path, f"declares {int(count)} {name.decode('ascii', 'replace')}s in {max(body, 0)} bytes of data"
            )
    if re.search(rb"^format\s+ascii", content[:end], re.MULTILINE):  # a line each; a binary one cut short trimesh refuses
        declared = sum(int(count) for _, count in elements)
        held = sum(1 for line in content[end:].splitlines()[1:] if line.strip())
        if held < declared:
            raise ReadError(path, f"cut short: the header declares {declared} lines, the file holds {held}")


def _guard_stl(path: Path, content: bytes) -> None:
    """A binary STL says how many triangles follow, 50 bytes each."""
    if content[:5].lower() == b"solid" or len(content) < 84:
        return
    declared = int.from_bytes(content[80:84], "little")
    held = (len(content) - 84) // 50
    if declared > held:
        raise ReadError(path, f"cut short: the header declares {declared} triangles, the file holds {held}")


READERS = {
    ".obj": read_mesh,
    ".ply": read_mesh,
    ".stl": read_mesh,
    ".3mf": read_mesh,
    ".glb": read_gltf,
    ".gltf": read_gltf,
}
