"""Mesh files made for tests, and what is measured on files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import trimesh

from pointcentroid.io import read


def area(path: Path) -> float:
    shape = read(path)
    assert shape.faces is not None
    return trimesh.Trimesh(shape.vertices, shape.faces, process=False).area


def assert_cut_from(vertices: np.ndarray, faces: np.ndarray, polygons: list[list[int]]) -> None:
    """Whether triangles are those of polygons, in order: n - 2 each, of its corners, with its vector area (Newell's)."""
    assert len(faces) == sum(max(len(polygon) - 2, 0) for polygon in polygons)
    vertices, size = vertices.astype(np.float64), 1 + np.square(vertices.astype(np.float64)).max()
    start = 0
    for polygon in polygons:
        own = faces[start : start + max(len(polygon) - 2, 0)]
        start += len(own)
        if len(own):
            assert set(own.ravel()) <= set(polygon)
            ring, (a, b, c) = vertices[polygon], (vertices[own[:, k]] for k in range(3))
            whole = np.cross(ring, np.roll(ring, -1, axis=0)).sum(axis=0)
            np.testing.assert_allclose(np.cross(b - a, c - a).sum(axis=0), whole, atol=1e-9 * size * len(polygon))


def glb(tree: dict, binary: bytes) -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def quantised_sphere(sphere: trimesh.Trimesh, meshopt: bool) -> bytes:
    """A sphere of radius 1 as normalised int16, moved to x = 5 by its node; optionally meshopt-compressed."""
    import meshoptimizer

    positions = np.zeros((len(sphere.vertices), 4), dtype=np.int16)
    positions[:, :3] = np.round(sphere.vertices * 32767)
    indices = sphere.faces.ravel().astype(np.uint32)
    parts = [positions.tobytes(), indices.tobytes()]
    views: list[dict] = [{"buffer": 0, "byteLength": len(p)} for p in parts]
    views[0]["byteStride"] = 8
    if meshopt:
        packed = [
            bytes(meshoptimizer.encode_vertex_buffer(positions.view(np.float32), len(positions), 8)),
            bytes(meshoptimizer.encode_index_buffer(indices, len(indices), len(positions))),
        ]
        modes = [("ATTRIBUTES", 8, len(positions)), ("TRIANGLES", 4, len(indices))]
        for view, data, (mode, stride, count) in zip(views, packed, modes, strict=True):
            extension = {"buffer": 0, "byteLength": len(data), "mode": mode, "byteStride": stride, "count": count}
            view["buffer"], view["extensions"] = 1, {"EXT_meshopt_compression": extension}
        views[1]["extensions"]["EXT_meshopt_compression"]["byteOffset"] = len(packed[0])
        parts = packed
    else:
        views[1]["byteOffset"] = len(parts[0])
    short = {"bufferView": 0, "componentType": 5122, "normalized": True, "type": "VEC3", "count": len(positions)}
    tree = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "translation": [5, 0, 0]}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [short, {"bufferView": 1, "componentType": 5125, "type": "SCALAR", "count": len(indices)}],
        "bufferViews": views,
        "buffers": [{"byteLength": sum(map(len, parts))}, {"byteLength": 10**6}],
    }
    return glb(tree, b"".join(parts))


def direction(up: str) -> np.ndarray:
    """What points up in a shape that leans, as a prediction says it, as three numbers."""
    return np.array([float(number) for number in up.split(",")])
