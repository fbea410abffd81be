"""Mesh formats read through trimesh: STL, GLB / glTF."""

from __future__ import annotations

import codecs
import io
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pointcentroid.errors import ReadError, one_line
from pointcentroid.io import gltf
from pointcentroid.io.shape import MAX_ELEMENTS, MAX_INSTANCES, Shape, checked

logging.getLogger("trimesh").addHandler(logging.NullHandler())  # its remarks on damaged files are not for the screen


def read_stl(path: Path) -> Shape:
    """Read an STL file, text or binary.

    Args:
        path: the file.

    Raises:
        ReadError: the file is damaged or holds no geometry.
    """
    return joined(path, *placed(path, load_scene(path, _whole_stl(path, path.read_bytes()), "stl")))


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


def load_scene(path: Path, content: bytes, kind: str) -> Any:
    """What trimesh makes of a file's content.

    Args:
        path: named in errors.
        content: of the file.
        kind: its format, as trimesh calls it.

    Raises:
        ReadError: trimesh cannot read it.
    """
    import trimesh

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return trimesh.load_scene(io.BytesIO(content), file_type=kind, process=False)
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
    shown = [(node, *scene.graph[node]) for node in scene.graph.nodes_geometry]
    parts = [(node, transform, scene.geometry[name]) for node, transform, name in shown]
    counts = [sum(len(getattr(part, what, ())) for _, _, part in parts) for what in ("vertices", "faces")]
    if len(parts) > MAX_INSTANCES or max(counts) > MAX_ELEMENTS:
        raise ReadError(path, f"places {len(parts)} parts of {counts[0]} vertices and {counts[1]} faces, more than is read")
    for node, transform, part in parts:
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


def _whole_stl(path: Path, content: bytes) -> bytes:
    """An STL as trimesh takes it.

    A binary one says how many triangles follow, 50 bytes each; what stands behind these is left out. Its header may begin
    with `solid`, as a text does; but what a text has in the place of the number is far too large. A text may lack its last
    line, `endsolid`, but no part of a facet.
    """
    begin = content[: content.find(b"\n", 0, 2**16) + 1024].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    text = begin.startswith(b"solid") and b"facet" in begin
    if len(content) >= 84:
        declared = int.from_bytes(content[80:84], "little")
        held = (len(content) - 84) // 50
        if declared <= held and not (text and declared == 0):
            return content[: 84 + 50 * declared]
        if not text:
            raise ReadError(path, f"cut short: the header declares {declared} triangles, the file holds {held}")
    if not text:
        return content
    content = content.removeprefix(codecs.BOM_UTF8).lstrip()
    # What stands behind the end of the last solid may be anything but the beginning of another one.
    end = content[-1024:].lower()
    end = end if b"endsolid" in end else content.lower()
    rest = end.rpartition(b"endsolid")[2].partition(b"\n")[2] if b"endsolid" in end else end
    if not re.search(rb"^\s*facet\s", rest, re.MULTILINE):
        return content
    if rest.split()[-1] != b"endfacet":
        raise ReadError(path, "cut short: its last facet does not end")
    return content + b"\nendsolid\n"


READERS = {
    ".stl": read_stl,
    ".glb": read_gltf,
    ".gltf": read_gltf,
}
