"""glTF files made for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import trimesh

from pointcentroid.io import read

from ..meshes import glb


def tree_of(positions: np.ndarray, **primitive: object) -> tuple[dict, bytes]:
    """A glTF tree of one primitive."""
    accessor = {"bufferView": 0, "componentType": 5126, "type": "VEC3", "count": len(positions)}
    tree = {
        "asset": {"version": "2.0"},
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, **primitive}]}],
        "accessors": [accessor],
        "bufferViews": [{"buffer": 0, "byteLength": 12 * len(positions)}],
        "buffers": [{"byteLength": 12 * len(positions)}],
    }
    return tree, positions.astype("<f4").tobytes()


def skinned(rng: np.random.Generator, bones: int, small: bool) -> tuple[dict, bytes, np.ndarray]:
    """A glTF tree of 50 vertices that follow a chain of bones, its buffer, and where they stand (one by one)."""
    turn = trimesh.transformations.quaternion_matrix
    own = [turn(rng.normal(size=4)) for _ in range(bones)]
    for matrix in own:
        matrix[:3, :3] *= rng.uniform(0.5, 2, size=3)
        matrix[:3, 3] = rng.normal(size=3)
    inverse = [turn(rng.normal(size=4)) for _ in range(bones)]
    positions = rng.normal(size=(50, 3)).astype("<f4")
    joints = rng.integers(bones, size=(2, 50, 4)).astype("<u1" if small else "<u2")
    weights = rng.integers(256, size=(2, 50, 4)).astype("<u1") if small else rng.uniform(size=(2, 50, 4)).astype("<f4")
    weights[:, 7] = 0  # this one follows no bone; by custom it follows its first
    corners = np.arange(48).astype("<u2")

    world = list(np.cumsum([0] * bones))
    for number, matrix in enumerate(own):
        world[number] = matrix if number == 0 else world[number - 1] @ matrix
    stands = np.zeros((50, 3))
    for vertex in range(50):
        followed = [(int(joints[s, vertex, k]), float(weights[s, vertex, k])) for s in range(2) for k in range(4)]
        if vertex == 7:
            followed = [(int(joints[0, 7, 0]), 1.0)]
        total = sum(weight for _, weight in followed)
        for joint, weight in followed:
            there = world[joint] @ inverse[joint] @ [*positions[vertex], 1]
            stands[vertex] += weight / total * there[:3]

    inverses = np.stack(inverse).transpose(0, 2, 1).astype("<f4")  # column by column
    arrays = [positions, *joints, *weights, inverses, corners]
    views, accessors, binary = [], [], b""
    codes = {"<f4": 5126, "|u1": 5121, "<u2": 5123}
    for array, kind in zip(arrays, ["VEC3", *["VEC4"] * 4, "MAT4", "SCALAR"], strict=True):
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": array.nbytes})
        accessor = {"bufferView": len(accessors), "componentType": codes[array.dtype.str], "type": kind, "count": len(array)}
        accessors.append(accessor | ({"normalized": True} if 3 <= len(accessors) <= 4 and small else {}))
        binary += array.tobytes() + b"\0" * (-array.nbytes % 4)
    attributes = {"POSITION": 0, "JOINTS_0": 1, "JOINTS_1": 2, "WEIGHTS_0": 3, "WEIGHTS_1": 4}
    chain = [{"matrix": matrix.T.ravel().tolist(), "children": [number + 1]} for number, matrix in enumerate(own)]
    chain[-1]["children"] = [bones]  # the mesh hangs on the last bone, whose place does not count for it
    body = {"name": "body", "mesh": 0, "skin": 0, "translation": [100, 0, 0], "children": [bones + 1]}
    tree = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [*chain, body, {"name": "hat"}],
        "skins": [{"joints": list(range(bones)), "inverseBindMatrices": 5}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 6}]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    return tree, binary, stands


def read_changed(folder: Path, change: Callable[[dict], object]) -> None:
    """Read a skinned mesh after a change of its tree."""
    tree, binary, _ = skinned(np.random.default_rng(0), 3, small=False)
    change(tree)
    (folder / "a.glb").write_bytes(glb(tree, binary))
    read(folder / "a.glb")
