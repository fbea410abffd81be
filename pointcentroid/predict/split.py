"""A mesh cut at the centroids a net saw it through: a piece for each centroid of the last stage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pointcentroid.errors import ReadError
from pointcentroid.files import replacing
from pointcentroid.geometry.axes import TO_Z_UP, transformed
from pointcentroid.geometry.neighbours import nearest_rows
from pointcentroid.geometry.surface import face_areas, face_neighbours, face_normals, surface_points
from pointcentroid.interrupts import held_back
from pointcentroid.predict.naming import Labelled, lent_names
from pointcentroid.results import Hierarchy, Prediction
from pointcentroid.viz.panel import ClassColours, Panel

if TYPE_CHECKING:
    import trimesh

_SAMPLES = 20_000
_SMOOTHING = 4.0  # samples that the whole boundary of a face counts for
_LEAST_COSINE = 0.1  # of the angle between faces, so that a crease weighs little, but something
_ROUNDS = 5
_FAR = 100.0  # sizes from the origin at which 32-bit coordinates lose digits that can be seen


@dataclass(frozen=True)
class Piece:
    """What goes to one centroid.

    Attributes:
        name: `centroid 3`, or what the example calls it; a number tells pieces of the same name apart.
        centroid: its number.
        faces: (K,) int64 rows of the mesh's faces; there may be none.
        mesh: those faces, in the file's frame and units.
    """

    name: str
    centroid: int
    faces: np.ndarray
    mesh: trimesh.Trimesh


def face_centroids(seen: Hierarchy) -> np.ndarray:
    """The centroid of the last stage that each face goes to.

    The middle of every face, and 20,000 samples of the surface, vote for the centroid of the nearest point that the net
    saw. The neighbours of a face then count like four samples more, by the length of the edge and how smoothly the surface
    goes on there: boundaries get shorter and follow creases, lone faces join what is around them, and a face of many samples
    goes where most of them are.

    Args:
        seen: what a net saw of a mesh.

    Returns:
        (F,) int64.
    """
    assert seen.faces is not None, "only meshes have faces"
    vertices, faces = transformed(seen.vertices, seen.transform), seen.faces
    stage = seen.stages[-1]
    hard, total = stage.hard, len(stage.positions)
    drawn, drawn_on = surface_points(vertices, faces, _SAMPLES, np.random.default_rng(0))
    samples = np.concatenate([vertices[faces].mean(axis=1), drawn]).astype(np.float32)
    face = np.concatenate([np.arange(len(faces)), drawn_on])
    assigned = np.flatnonzero(hard >= 0)
    voted = hard[assigned[nearest_rows(samples, seen.points[assigned])]]
    votes = np.bincount(face * total + voted, minlength=len(faces) * total).reshape(-1, total)

    pairs, length = face_neighbours(vertices, faces)
    normals = face_normals(vertices, faces)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-300)
    cosine = np.abs((normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(axis=1))
    here, there = np.concatenate([pairs, pairs[:, ::-1]]).T
    weight = np.tile(length * np.maximum(cosine, _LEAST_COSINE), 2)
    boundary = np.bincount(here, weight, len(faces)).clip(1e-300)
    chosen = votes.argmax(axis=1)
    for _ in range(_ROUNDS):
        around = np.bincount(here * total + chosen[there], weight, len(faces) * total).reshape(-1, total)
        before, chosen = chosen, (votes + _SMOOTHING * around / boundary[:, None]).argmax(axis=1)
        if np.array_equal(before, chosen):
            break
    return chosen


def split(seen: Hierarchy, file: str, example: Labelled | None = None) -> list[Piece]:
    """Cut a mesh: every face goes to one piece, whole.

    Args:
        seen: what a net saw of the mesh.
        file: that it is of, named in errors.
        example: a shape that lends the names of its parts, each to what lies where it does.

    Returns:
        A piece for each centroid of the last stage, in their order.

    Raises:
        ReadError: it is a point cloud.
    """
    with held_back():
        import trimesh

    if seen.faces is None:
        what = "is a point cloud, without faces to cut; assignments --save writes it in colours"
        raise ReadError(file, what)
    chosen = face_centroids(seen)
    pieces: list[Piece] = []
    for centroid, name in enumerate(centroid_names(seen, example)):
        rows = np.flatnonzero(chosen == centroid)
        used, corners = np.unique(seen.faces[rows], return_inverse=True)
        mesh = trimesh.Trimesh(seen.vertices[used], corners.reshape(-1, 3), process=False)
        pieces.append(Piece(name, centroid, rows, mesh))
    return pieces


def centroid_names(seen: Hierarchy, example: Labelled | None) -> list[str]:
    """Name the centroids of the last stage.

    Args:
        seen: what a net saw of a shape.
        example: a shape that lends names; without one, and where a centroid takes no point, names are numbers.

    Returns:
        A name for each, all different: a number is added to those that come again.
    """
    stage = seen.stages[-1]
    lent = lent_names(seen, example) if example else {}
    names: list[str] = []
    for centroid in range(len(stage.positions)):
        name = lent.get(centroid, f"centroid {centroid}")
        names.append(next(n for n in chain([name], (f"{name} {k}" for k in count(2))) if n not in names))
    return names


def write_split(
    seen: Hierarchy,
    said: Prediction,
    folder: Path,
    stem: str,
    example: Labelled | None = None,
    colours: ClassColours | None = None,
) -> list[Path]:
    """Write a mesh in pieces: a GLB with a node for each that has faces, and a JSON, in the file's own frame and units.

    glTF has y up, so the nodes of the GLB turn what they hold until its up is y.

    The JSON holds, for each centroid, its name, how many faces and how many of the net's points are its, and of its piece
    the area, the box, as (least, greatest) corner, and the volume: where the piece is closed, else null.

    Args:
        seen: what a net saw of the mesh.
        said: what a net said of it.
        folder: where to; it is made if it is not there.
        stem: how the file names start.
        example: see `split`.
        colours: of the meshes of a folder, so that the same part has the same colour in all of one class; the mesh's own
            if None.

    Returns:
        The two files.

    Raises:
        ReadError: it is a point cloud, or larger than the 32-bit numbers of a GLB.
    """
    with held_back():
        import trimesh

    if (largest := np.abs(seen.vertices).max()) > np.finfo(np.float32).max:
        raise ReadError(said.file, f"holds a coordinate of {largest:g}, more than a GLB can hold; make the shape smaller")
    pieces = split(seen, said.file, example)
    used = np.concatenate([piece.mesh.vertices for piece in pieces])
    panel = (colours or ClassColours()).lend(Panel(seen, most=len(seen.points)))
    _, tints = panel.centroids(len(seen.stages))
    sizes = np.bincount(seen.stages[-1].hard[seen.stages[-1].hard >= 0], minlength=len(pieces))
    taken = {piece.name for piece in pieces}
    scene = trimesh.Scene(base_frame=next(name for n in count() if (name := "shape" + n * "_") not in taken))
    origin, upright = _origin(used), np.eye(4)
    upright[:3, :3] = TO_Z_UP["y"].T @ said.turn  # glTF has y up, whatever the file has
    place = upright @ trimesh.transformations.translation_matrix(origin)
    for piece in pieces:
        if len(piece.faces):
            mesh = trimesh.Trimesh(piece.mesh.vertices - origin, piece.mesh.faces, process=False)
            mesh.visual.vertex_colors = (255 * tints[piece.centroid]).round().astype(np.uint8)  # type: ignore[attr-defined]
            scene.add_geometry(mesh, node_name=piece.name, geom_name=piece.name, transform=place)
    told = {
        "file": said.file,
        "label": said.label,
        "confidence": said.confidence,
        "up": said.up,
        "parts": [_told(piece, int(size)) for piece, size in zip(pieces, sizes, strict=True)],
    }
    paths = split_files(folder, stem)
    with replacing(paths[0]) as glb, replacing(paths[1]) as text:
        content: Any = scene.export(file_type="glb")
        glb.write_bytes(content)
        text.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return paths


def split_files(folder: Path, stem: str) -> list[Path]:
    """The files that `write_split` writes.

    Args:
        folder: see `write_split`.
        stem: see `write_split`.
    """
    return [folder / f"{stem}-parts.glb", folder / f"{stem}-parts.json"]


def _origin(vertices: np.ndarray) -> np.ndarray:
    """Where nodes are put, so that their 32-bit coordinates keep their digits: zero, unless the mesh lies far from there."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    middle = (low + high) / 2
    return middle if np.abs(middle).max() > _FAR * (high - low).max() else np.zeros(3)


def _told(piece: Piece, points: int) -> dict[str, Any]:
    mesh = piece.mesh
    low = mesh.vertices.min(axis=0) if len(piece.faces) else np.zeros(3)
    size = float((mesh.vertices - low).max(initial=0)) or 1.0
    whole = mesh.copy()
    whole.vertices = (mesh.vertices - low) / size  # what is one vertex, trimesh tells by absolute distances
    whole.merge_vertices()  # a closed surface shares its vertices
    closed = len(piece.faces) > 0 and whole.is_watertight and whole.is_winding_consistent
    return {
        "name": piece.name,
        "centroid": piece.centroid,
        "faces": len(piece.faces),
        "points": points,
        "area": float(face_areas(mesh.vertices, mesh.faces).sum()),
        "box": mesh.bounds.tolist() if len(piece.faces) else None,
        "volume": abs(float(whole.volume)) * size**3 if closed else None,
    }
