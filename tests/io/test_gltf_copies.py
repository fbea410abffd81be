"""glTF: copies of a mesh, each with a place of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pointcentroid.errors import ReadError
from pointcentroid.io import read

from ..meshes import glb


def placed_copies(rng: np.random.Generator, names: tuple[str, ...], small: bool, mode: int) -> tuple[dict, dict, bytes]:
    """Two trees of the same five copies of a mesh, by EXT_mesh_gpu_instancing and node by node, and the buffer of both."""
    positions, corners = rng.normal(size=(30, 3)).astype("<f4"), rng.integers(30, size=24).astype("<u2")
    turns = rng.normal(size=(5, 4))
    turns /= np.linalg.norm(turns, axis=1, keepdims=True)
    turns = np.rint(turns * 127).astype("<i1") if small else turns.astype("<f4")
    given = {
        "TRANSLATION": 5 * rng.normal(size=(5, 3)).astype("<f4"),
        "ROTATION": turns,
        "SCALE": rng.uniform(0.5, 2, size=(5, 3)).astype("<f4"),
    }
    arrays = {"POSITION": positions, "corners": corners} | {name: given[name] for name in names}
    views, accessors, binary = [], [], b""
    codes = {"<f4": 5126, "|i1": 5120, "<u2": 5123}
    for name, array in arrays.items():
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": array.nbytes})
        kind = "SCALAR" if array.ndim == 1 else f"VEC{array.shape[1]}"
        accessor = {"bufferView": len(accessors), "componentType": codes[array.dtype.str], "type": kind, "count": len(array)}
        accessors.append(accessor | ({"normalized": True} if name == "ROTATION" and small else {}))
        binary += array.tobytes() + b"\0" * (-array.nbytes % 4)
    where = {"translation": [1, 2, 3], "rotation": [0.5, 0.5, 0.5, 0.5], "scale": [2, 2, 2]}
    mesh = {"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "mode": mode}, {"attributes": {"POSITION": 0}}]}
    shared = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "meshes": [mesh],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    numbers = {name: 2 + number for number, name in enumerate(names)}
    copies = {"mesh": 0, "extensions": {"EXT_mesh_gpu_instancing": {"attributes": numbers | {"_ID": 0}}}} | where
    single = [
        {"mesh": 0}
        | {name.lower(): (given[name][row] / (127 if name == "ROTATION" and small else 1)).tolist() for name in names}
        for row in range(5)
    ]
    return shared | {"nodes": [copies]}, shared | {"nodes": [{"children": [1, 2, 3, 4, 5]} | where, *single]}, binary


@pytest.mark.parametrize("mode", [4, 5, 6])
@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("names", [("TRANSLATION", "ROTATION", "SCALE"), ("TRANSLATION",), ("ROTATION",), ("SCALE",)])
def test_copies_of_a_mesh_are_where_nodes_would_put_them(
    tmp_path: Path, names: tuple[str, ...], small: bool, mode: int
) -> None:
    """The same triangles, corner by corner, in the order of their copies or of their primitives."""
    copies, single, binary = placed_copies(np.random.default_rng(0), names, small, mode)
    triangles = []
    for tree in (copies, single):
        (tmp_path / "a.glb").write_bytes(glb(tree, binary))
        shape = read(tmp_path / "a.glb")
        corners = shape.vertices[shape.faces].reshape(-1, 9)
        triangles.append(corners[np.lexsort(np.round(corners, 3).T)])
    np.testing.assert_allclose(*triangles, atol=2e-5)


def test_rotations_that_meshopt_has_filtered_are_those_of_the_copies(tmp_path: Path) -> None:
    """Stored without their largest component, as gltfpack stores them."""
    import meshoptimizer

    rng = np.random.default_rng(1)
    tree, _, binary = placed_copies(rng, ("ROTATION",), False, 4)
    turns = rng.normal(size=(5, 4))
    turns /= np.linalg.norm(turns, axis=1, keepdims=True)
    largest = np.abs(turns).argmax(axis=1)
    positive = turns * np.sign(np.take_along_axis(turns, largest[:, None], 1))
    rest = np.take_along_axis(positive, (largest[:, None] + [1, 2, 3]) % 4, 1)
    encoded = np.concatenate([np.round(rest * np.sqrt(2) * 32767), (32767 & ~3) + largest[:, None]], axis=1).astype("<i2")
    packed = bytes(meshoptimizer.encode_vertex_buffer(encoded, 5, 8))
    tree["accessors"][2] |= {"componentType": 5122, "normalized": True}
    found = []
    for mode in ("NONE", "QUATERNION"):
        data = packed if mode == "QUATERNION" else np.round(turns * 32767).astype("<i2").tobytes()
        view = {"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)}
        extension = view | {"mode": "ATTRIBUTES", "filter": mode, "count": 5, "byteStride": 8}
        tree["bufferViews"][2] = view | ({"extensions": {"EXT_meshopt_compression": extension}} if mode != "NONE" else {})
        tree["buffers"][0]["byteLength"] = len(binary) + len(data)
        (tmp_path / "a.glb").write_bytes(glb(tree, binary + data))
        found.append(read(tmp_path / "a.glb").vertices)
    np.testing.assert_allclose(*found, atol=1e-3)
    tree["bufferViews"][2]["extensions"]["EXT_meshopt_compression"]["filter"] = "OTHER"
    (tmp_path / "a.glb").write_bytes(glb(tree, binary + packed))
    with pytest.raises(ReadError, match="unknown meshopt filter 'OTHER'"):
        read(tmp_path / "a.glb")


def test_copies_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.glb"

    def attributes_of(tree: dict) -> dict:
        return tree["nodes"][0]["extensions"]["EXT_mesh_gpu_instancing"]["attributes"]

    for change, says in [
        (lambda tree: attributes_of(tree).update(SCALE=0), "not as many of each"),
        (lambda tree: attributes_of(tree).update(SCALE=1), "accessor 1 is of type SCALAR, expected VEC3"),
        (lambda tree: tree["accessors"][0].update(count=20), "a face names vertex 29, but there are 20"),
        (
            lambda tree: tree["nodes"].extend(tree["nodes"] * 30_000) or tree["scenes"][0].update(nodes=[*range(30_001)]),
            "copies",
        ),
    ]:
        tree, _, binary = placed_copies(np.random.default_rng(0), ("TRANSLATION", "ROTATION", "SCALE"), False, 4)
        change(tree)
        path.write_bytes(glb(tree, binary))
        with pytest.raises(ReadError, match=says):
            read(path)
    # Many primitives of no vertices, in many copies; and vertices that are said to be, but nowhere.
    tree, _, binary = placed_copies(np.random.default_rng(0), ("TRANSLATION",), False, 4)
    tree["accessors"].append({"componentType": 5126, "count": 0, "type": "VEC3"})
    tree["meshes"] = [{"primitives": [{"attributes": {"POSITION": len(tree["accessors"]) - 1}}] * 30_000}]
    path.write_bytes(glb(tree, binary))
    with pytest.raises(ReadError, match="copies"):
        read(path)
    tree["accessors"][-1]["count"] = 10_000_000
    path.write_bytes(glb(tree, binary))
    with pytest.raises(ReadError, match="copies"):
        read(path)
    tree, _, binary = placed_copies(np.random.default_rng(0), ("TRANSLATION",), False, 4)
    attributes_of(tree).clear()
    path.write_bytes(glb(tree, binary))
    assert len(read(path).faces) == 18
