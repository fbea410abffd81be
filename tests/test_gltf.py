"""glTF: compressed, quantised and sparse arrays, fans, and vertices that follow skeletons."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pointcentroid.errors import ReadError
from pointcentroid.io import read
from pointcentroid.io.parts import read_gltf_parts

from .meshes import area, glb, quantised_sphere


@pytest.mark.parametrize("meshopt", [False, True])
def test_quantised_and_meshopt_compressed_gltf(tmp_path: Path, sphere: trimesh.Trimesh, meshopt: bool) -> None:
    path = tmp_path / "sphere.glb"
    path.write_bytes(quantised_sphere(sphere, meshopt))
    assert area(path) == pytest.approx(sphere.area, rel=1e-3)
    np.testing.assert_allclose(read(path).vertices.mean(axis=0), (5, 0, 0), atol=1e-3)


def test_draco_compressed_gltf(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    path = tmp_path / "sphere.glb"
    path.write_bytes(trimesh.exchange.gltf.export_glb(trimesh.Scene(sphere), extension_draco=True))
    assert b"KHR_draco_mesh_compression" in path.read_bytes()
    assert area(path) == pytest.approx(sphere.area, rel=1e-3)


def test_gltf_reads_its_buffers_from_its_own_folder_only(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    (tmp_path / "in").mkdir()
    for name, data in trimesh.exchange.gltf.export_gltf(trimesh.Scene(sphere)).items():
        (tmp_path / "in" / name).write_bytes(data)
    path = tmp_path / "in" / "model.gltf"
    assert area(path) == pytest.approx(sphere.area, rel=1e-5)
    (tmp_path / "cached").mkdir()  # as downloads are kept: a folder of links
    for name in [file.name for file in path.parent.iterdir()]:
        (tmp_path / "in" / name).rename(tmp_path / f"blob of {name}")
        for folder in ("in", "cached"):
            (tmp_path / folder / name).symlink_to(tmp_path / f"blob of {name}")
    assert area(tmp_path / "cached" / "model.gltf") == pytest.approx(sphere.area, rel=1e-5)
    tree = json.loads(path.read_text())
    tree["buffers"][0]["uri"] = "../" + tree["buffers"][0]["uri"]
    path.write_text(json.dumps(tree))
    with pytest.raises(ReadError, match="outside its own folder"):
        read(path)


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


def test_a_fan_of_gltf_is_its_triangles(tmp_path: Path) -> None:
    turns = np.linspace(0, 2 * np.pi, 41)
    positions = np.concatenate([[[0, 0, 0]], np.stack([np.cos(turns), np.sin(turns), 0 * turns], axis=1)])
    tree, binary = tree_of(positions, mode=6)
    (tmp_path / "fan.glb").write_bytes(glb(tree, binary))
    assert area(tmp_path / "fan.glb") == pytest.approx(20 * np.sin(2 * np.pi / 40), rel=1e-5)
    order = np.arange(len(positions))[::-1].astype("<u2")
    tree, binary = tree_of(positions[::-1], mode=6, indices=1)
    tree["accessors"].append({"bufferView": 1, "componentType": 5123, "type": "SCALAR", "count": len(order)})
    tree["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": order.nbytes})
    tree["buffers"][0]["byteLength"] += order.nbytes
    (tmp_path / "fan.glb").write_bytes(glb(tree, binary + order.tobytes()))
    assert area(tmp_path / "fan.glb") == pytest.approx(20 * np.sin(2 * np.pi / 40), rel=1e-5)


def test_a_strip_of_gltf_is_its_triangles_all_the_same_way_round(tmp_path: Path) -> None:
    """A tube of 40 faces, as a strip of two rings."""
    turns = np.repeat(np.linspace(0, 2 * np.pi, 21), 2)
    positions = np.stack([np.cos(turns), np.sin(turns), np.tile([0.0, 3.0], 21)], axis=1)
    tree, binary = tree_of(positions, mode=5)
    (tmp_path / "tube.glb").write_bytes(glb(tree, binary))
    shape = read(tmp_path / "tube.glb")
    a, b, c = shape.vertices[shape.faces].transpose(1, 0, 2)
    normals = np.cross(b - a, c - a)
    assert len(shape.faces) == 40
    assert np.linalg.norm(normals, axis=1).sum() / 2 == pytest.approx(20 * 3 * 2 * np.sin(np.pi / 20), rel=1e-5)
    outwards = (normals * (a + b + c)[:, [0, 1]].repeat([1, 2], axis=1) * [1, 1, 0]).sum(axis=1)
    assert (outwards > 0).all() or (outwards < 0).all()


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


def test_what_makes_no_triangle_is_passed_over(tmp_path: Path) -> None:
    positions = np.random.default_rng(0).normal(size=(32, 3))
    tree, binary = tree_of(positions)
    tree["meshes"][0]["primitives"].append({"attributes": {}})  # as the standard allows
    (tmp_path / "a.glb").write_bytes(glb(tree, binary))
    assert len(read(tmp_path / "a.glb").faces) == 10


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


def test_a_deep_tree_takes_no_longer_than_a_wide_one(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    """2,000 nodes below each other took minutes, node by node down from the root."""
    tree, binary = tree_of(sphere.vertices[sphere.faces].reshape(-1, 3)[:3])
    tree["nodes"] = [{"mesh": 0, "translation": [1, 0, 0], "children": [number + 1]} for number in range(2000)] + [
        {"mesh": 0}
    ]
    tree["scenes"] = [{"nodes": [0]}]
    (tmp_path / "a.glb").write_bytes(glb(tree, binary))
    vertices = read(tmp_path / "a.glb").vertices.reshape(-1, 3, 3)
    steps = np.sort(vertices[:, 0, 0] - vertices[:, 0, 0].min())
    np.testing.assert_allclose(steps, [*range(2000), 1999], atol=1e-3)


def test_gltf_that_asks_for_what_is_not_done_is_refused(tmp_path: Path) -> None:
    positions = np.random.default_rng(0).normal(size=(30, 3))
    path = tmp_path / "a.glb"

    def changed(change: Callable[[dict], object]) -> Path:
        tree, binary = tree_of(positions)
        change(tree)
        path.write_bytes(glb(tree, binary))
        return path

    for change, says in [
        (lambda tree: tree.update(extensionsRequired=["EXT_new_geometry"]), "needs the extension EXT_new_geometry"),
        (
            lambda tree: (tree["buffers"].append({"byteLength": 360}), tree["bufferViews"][0].update(buffer=1)),
            "its buffer 1",
        ),
    ]:
        with pytest.raises(ReadError, match=says):
            read(changed(change))
    plain = read(changed(lambda _: None))
    for same in (
        lambda tree: tree.update(
            extensionsRequired=["KHR_texture_transform", "KHR_materials_unlit", "KHR_mesh_quantization"]
        ),
        lambda tree: tree.pop("scenes"),
    ):
        assert area(changed(same)) == trimesh.Trimesh(plain.vertices, plain.faces, process=False).area


def test_an_embedded_buffer_is_decoded_once_however_many_parts_share_it(
    tmp_path: Path, sphere: trimesh.Trimesh, monkeypatch
) -> None:
    scene = trimesh.Scene([sphere.copy().apply_translation((x, 0, 0)) for x in range(8)])
    files = trimesh.exchange.gltf.export_gltf(scene, merge_buffers=True)
    tree = json.loads(files["model.gltf"])
    (buffer,) = tree["buffers"]
    buffer["uri"] = "data:application/octet-stream;base64," + base64.b64encode(files[buffer["uri"]]).decode()
    (tmp_path / "a.gltf").write_text(json.dumps(tree))
    decoded = []
    plain = base64.b64decode
    monkeypatch.setattr(base64, "b64decode", lambda text, **how: decoded.append(len(text)) or plain(text, **how))
    assert area(tmp_path / "a.gltf") == pytest.approx(8 * sphere.area, rel=1e-5)
    assert len(decoded) == 1


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


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_vertices_follow_their_bones(tmp_path: Path, seed: int, small: bool) -> None:
    rng = np.random.default_rng(seed)
    tree, binary, stands = skinned(rng, int(rng.integers(1, 6)), small)
    (tmp_path / "a.glb").write_bytes(glb(tree, binary))
    np.testing.assert_allclose(read(tmp_path / "a.glb").vertices, stands, atol=1e-4 * np.abs(stands).max())


def test_what_hangs_on_a_skinned_mesh_stays_with_its_bones(tmp_path: Path) -> None:
    tree, binary, stands = skinned(np.random.default_rng(0), 2, small=False)
    plain = {"attributes": {"POSITION": 0}, "indices": 6}
    tree["meshes"].append({"primitives": [plain, plain]})
    tree["nodes"][3]["mesh"] = 1
    path = tmp_path / "a.glb"
    path.write_bytes(glb(tree, binary))
    own = [np.reshape(node["matrix"], (4, 4)).T for node in tree["nodes"][:2]]
    world = own[0] @ own[1] @ trimesh.transformations.translation_matrix((100, 0, 0))
    hat = np.frombuffer(binary, "<f4", 150).reshape(50, 3) @ world[:3, :3].T + world[:3, 3]
    parted = read_gltf_parts(path)
    assert sorted(parted.names) == ["body", "hat"]
    for name, there, faces in (("body", stands, 16), ("hat", hat, 32)):
        chosen = parted.shape.faces[parted.parts == parted.names.index(name)]
        assert len(chosen) == faces
        expected = there[:48].reshape(16, 3, 3)
        np.testing.assert_allclose(parted.shape.vertices[chosen[:16]], expected, atol=1e-4 * np.abs(expected).max())


def test_skeletons_that_cannot_be_are_one_line_errors(tmp_path: Path) -> None:
    for change, says in [
        (lambda tree: tree["nodes"][2].update(children=[0, 3]), "a node is below itself"),
        (lambda tree: tree["nodes"][4].update(children=[2]), "node 2 has two parents"),
        (lambda tree: tree["skins"][0].update(joints=[0]), "damaged glTF file .IndexError"),
        (lambda tree: tree["skins"][0].update(joints=[9, 1, 2]), "damaged glTF file .IndexError"),
        (lambda tree: tree["skins"][0].update(joints=[0, 1, -1]), "names a node -1"),
        (lambda tree: tree["nodes"][4].update(children=[-1]), "names an entry -1"),
        (lambda tree: tree["nodes"].append({"children": [-1]}), r"node \d has the child -1"),
        (lambda tree: tree["accessors"][5].update(count=2), "3 joints and 2 inverse bind matrices"),
        (lambda tree: tree["accessors"][5].update(count=1), "3 joints and 1 inverse bind matrices"),
        (lambda tree: tree["accessors"][3].update(count=49), "damaged glTF file .ValueError"),
        (lambda tree: tree["meshes"][0]["primitives"][0]["attributes"].pop("WEIGHTS_1"), "damaged glTF file .KeyError"),
    ]:
        with pytest.raises(ReadError, match=says):
            read_changed(tmp_path, change)


def test_primitives_that_share_vertices_follow_their_own_weights(tmp_path: Path) -> None:
    tree, binary, stands = skinned(np.random.default_rng(0), 3, small=False)
    (first,) = tree["meshes"][0]["primitives"]
    swapped = first["attributes"] | {"WEIGHTS_0": 4, "WEIGHTS_1": 3}
    tree["meshes"][0]["primitives"] = [first, {"attributes": swapped, "indices": 6}, first]
    (tmp_path / "a.glb").write_bytes(glb(tree, binary))
    shape = read(tmp_path / "a.glb")
    one, other, again = shape.vertices[shape.faces].reshape(3, 48, 3)
    np.testing.assert_allclose(one, stands[:48], atol=1e-4 * np.abs(stands).max())
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1


def test_figures_far_from_the_middle_of_the_world_keep_their_digits(tmp_path: Path) -> None:
    tree, binary, stands = skinned(np.random.default_rng(0), 3, small=False)
    far = np.array([4e6, -5e6, 1e6])
    tree["nodes"].append({"translation": far.tolist(), "children": [0]})
    tree["scenes"][0]["nodes"] = [len(tree["nodes"]) - 1]
    (tmp_path / "a.glb").write_bytes(glb(tree, binary))
    np.testing.assert_allclose(read(tmp_path / "a.glb").vertices - far, stands, atol=1e-4 * np.abs(stands).max())


def test_the_scene_that_is_shown_is_read(tmp_path: Path) -> None:
    tree, binary, _ = skinned(np.random.default_rng(0), 2, small=False)
    tree["nodes"].append({"mesh": 0})
    tree["scenes"].append({"nodes": [4]})
    (tmp_path / "a.glb").write_bytes(glb(tree | {"scene": 1}, binary))
    unposed = np.frombuffer(binary, "<f4", 150).reshape(50, 3)
    np.testing.assert_array_equal(read(tmp_path / "a.glb").vertices, unposed)
    tree["scenes"].append({"name": "left empty"})
    (tmp_path / "a.glb").write_bytes(glb(tree | {"scene": 2}, binary))
    assert len(read(tmp_path / "a.glb").vertices) >= len(unposed), "what there is, where the scene shows nothing"


def test_what_is_hidden_hides_all_below_it(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 3)).astype("<f4")
    tree, binary = tree_of(rows)
    hidden = {"extensions": {"KHR_node_visibility": {"visible": False}}}
    shown = {"extensions": {"KHR_node_visibility": {"visible": True}}}
    tree["nodes"] = [{"mesh": 0, **shown}, {"children": [2], **hidden}, {"mesh": 0, "translation": [9, 0, 0]}]
    tree["scenes"] = [{"nodes": [0, 1]}]
    (tmp_path / "a.glb").write_bytes(glb(tree | {"extensionsRequired": ["KHR_node_visibility"]}, binary))
    np.testing.assert_array_equal(read(tmp_path / "a.glb").vertices, rows)


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree.update(scene=-1),
        lambda tree: tree["scenes"][0].update(nodes=[-1]),
        lambda tree: tree["nodes"][0].update(mesh=-1),
        lambda tree: tree["meshes"][0]["primitives"][0]["attributes"].update(POSITION=-1),
        lambda tree: tree["accessors"][0].update(bufferView=-1),
        lambda tree: tree["bufferViews"][0].update(buffer=-1),
    ],
)
def test_numbers_of_entries_do_not_count_from_the_end(tmp_path: Path, change: Callable[[dict], object]) -> None:
    tree, binary = tree_of(np.random.default_rng(0).normal(size=(30, 3)))
    change(tree)
    (tmp_path / "a.glb").write_bytes(glb(tree, binary))
    with pytest.raises(ReadError, match=r"damaged glTF file .*-1"):
        read(tmp_path / "a.glb")


def test_embedded_buffers_may_be_broken_into_lines_and_named_in_capitals(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 3)).astype("<f4")
    tree, _ = tree_of(rows)
    text = base64.encodebytes(rows.tobytes()).decode()
    assert "\n" in text.strip()
    tree["buffers"][0]["uri"] = "DATA:application/octet-stream;base64," + text
    (tmp_path / "a.gltf").write_text(json.dumps(tree))
    np.testing.assert_array_equal(read(tmp_path / "a.gltf").vertices, rows)
    for begin in ("", "http://host/"):
        tree["buffers"][0]["uri"] = begin + "x" * 10_000
        (tmp_path / "a.gltf").write_text(json.dumps(tree))
        with pytest.raises(ReadError) as caught:
            read(tmp_path / "a.gltf")
        assert len(str(caught.value)) < 300


def test_trees_that_would_take_for_ever_or_fill_memory_are_refused(tmp_path: Path) -> None:
    def many_parts(tree: dict) -> None:
        (primitive,) = tree["meshes"][0]["primitives"]
        tree["meshes"][0]["primitives"] = [primitive] * 1000
        tree["nodes"] += [{"mesh": 0}] * 1000
        tree["scenes"][0]["nodes"] = list(range(5, 1005))

    def many_bones(tree: dict) -> None:
        attributes = tree["meshes"][0]["primitives"][0]["attributes"]
        attributes |= {f"{name}_{n}": number for n in range(500) for name, number in (("JOINTS", 1), ("WEIGHTS", 3))}

    def of_zeros(tree: dict) -> None:
        nothing = {"type": "VEC3", "componentType": 5126, "count": 2**20}
        tree["meshes"][0]["primitives"] = [{"attributes": {"POSITION": len(tree["accessors"]) + n}} for n in range(200)]
        tree["accessors"] += [nothing] * 200

    def of_the_same_corners(tree: dict) -> None:
        tree["meshes"][0]["primitives"] = [{"attributes": {"POSITION": 0}, "indices": len(tree["accessors"])}] * 4000
        tree["accessors"].append({"type": "SCALAR", "componentType": 5121, "count": 45_000, "bufferView": 7})
        tree["bufferViews"].append({"buffer": 1, "byteLength": 45_000})
        uri = "data:application/octet-stream;base64," + base64.b64encode(bytes(45_000)).decode()
        tree["buffers"].append({"byteLength": 45_000, "uri": uri})

    def of_one_move_many_times(tree: dict) -> None:
        nothing = {"type": "VEC3", "componentType": 5126, "count": 2**20}
        where = {"POSITION": len(tree["accessors"])}
        tree["accessors"].append(nothing)
        tree["meshes"][0] = {"primitives": [{"attributes": where, "targets": [where] * 10_000}], "weights": [1] * 10_000}

    absent = {"type": "MAT4", "componentType": 5122, "normalized": True, "count": 90_000_000}
    start = time.process_time()
    for change, says in [
        (many_parts, "places 1000000 parts"),
        (of_zeros, "would unpack to more than 1 GiB"),
        (of_the_same_corners, "would unpack to more than 1 GiB"),
        (of_one_move_many_times, "would unpack to more than 1 GiB"),
        (many_bones, "follow 2000 bones each"),
        (lambda tree: tree["accessors"].__setitem__(5, absent), "accessor 5 of 90000000 elements says nowhere"),
        (lambda tree: tree["accessors"].__setitem__(0, {**absent, "type": "VEC3"}), "accessor 0 of 90000000 elements"),
        (lambda tree: tree["accessors"][0].update(count=10**9), "declares 1000000000 elements"),
    ]:
        with pytest.raises(ReadError, match=says):
            read_changed(tmp_path, change)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("number", "changes", "says"),
    [
        (0, {"type": "VEC4", "count": 37}, "accessor 0 is of type VEC4, expected VEC3"),
        (1, {"type": "VEC3"}, "accessor 1 is of type VEC3, expected VEC4"),
        (5, {"type": "VEC4"}, "accessor 5 is of type VEC4, expected MAT4"),
        (6, {"type": "VEC3", "count": 16}, "accessor 6 is of type VEC3, expected SCALAR"),
        (6, {"componentType": 5126, "count": 24}, "indices are of type float32"),
        (6, {"componentType": 5122}, "indices are of type int16"),
    ],
)
def test_arrays_of_other_types_than_they_must_be_are_errors(tmp_path: Path, number: int, changes: dict, says: str) -> None:
    with pytest.raises(ReadError, match=says):
        read_changed(tmp_path, lambda tree: tree["accessors"][number].update(changes))


def test_elements_may_not_lie_in_each_other(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="elements of 12 bytes, 4 bytes apart"):
        read_changed(tmp_path, lambda tree: tree["bufferViews"][0].update(byteStride=4))


def test_a_short_text_may_name_a_long_buffer(tmp_path: Path) -> None:
    positions = np.random.default_rng(0).normal(size=(900_000, 3))
    tree, binary = tree_of(positions)
    tree["buffers"][0]["uri"] = "a.bin"
    (tmp_path / "a.bin").write_bytes(binary)
    (tmp_path / "a.gltf").write_text(json.dumps(tree))
    assert len(read(tmp_path / "a.gltf").faces) == 300_000


def draco_skinned(left_plain: tuple[str, ...] = ()) -> tuple[dict, bytes, np.ndarray, bytes]:
    """`skinned`, Draco-compressed but for some attributes; and the compressed bytes, the last of the buffer."""
    draco = pytest.importorskip("DracoPy")
    tree, binary, stands = skinned(np.random.default_rng(0), 3, small=False)
    positions, generic = np.frombuffer(binary, "<f4", 150).reshape(50, 3), {}
    for number, dtype in ((1, "<u2"), (2, "<u2"), (3, "<f4"), (4, "<f4")):
        start = tree["bufferViews"][number]["byteOffset"]
        generic[number] = np.ascontiguousarray(np.frombuffer(binary, dtype, 200, start).reshape(50, 4))
    packed = draco.encode(
        positions, np.arange(48).reshape(16, 3), quantization_bits=20, preserve_order=True, generic_attributes=generic
    )
    stored = draco.decode(packed).attributes
    first = next(one["unique_id"] for one in stored if one["attribute_type"] == draco.AttributeType.POSITION)
    ids = {"POSITION": first, "JOINTS_0": 1, "JOINTS_1": 2, "WEIGHTS_0": 3, "WEIGHTS_1": 4}
    tree["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(packed)})
    compressed = {name: number for name, number in ids.items() if name not in left_plain}
    (primitive,) = tree["meshes"][0]["primitives"]
    primitive["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 7, "attributes": compressed}}
    for name in compressed:
        del tree["accessors"][primitive["attributes"][name]]["bufferView"]
    del tree["accessors"][6]["bufferView"]
    return tree, binary, stands, packed


@pytest.mark.parametrize("left_plain", [(), ("WEIGHTS_0", "JOINTS_1")])
def test_draco_compressed_vertices_follow_their_bones(tmp_path: Path, left_plain: tuple[str, ...]) -> None:
    tree, binary, stands, packed = draco_skinned(left_plain)
    (tmp_path / "a.glb").write_bytes(glb(tree, binary + packed))
    shape = read(tmp_path / "a.glb")
    there = stands[:48].reshape(16, 3, 3)
    np.testing.assert_allclose(shape.vertices[shape.faces], there, atol=1e-4 * np.abs(there).max())


def test_damaged_draco_data_are_one_line_errors(tmp_path: Path) -> None:
    tree, binary, _, packed = draco_skinned()
    path = tmp_path / "a.glb"
    path.write_bytes(glb(tree, binary + b"\0" * len(packed)))
    with pytest.raises(ReadError, match="damaged Draco data"):
        read(path)
    path.write_bytes(glb(tree, binary + packed[: len(packed) // 2] + bytes(len(packed) - len(packed) // 2)))
    with pytest.raises(ReadError):
        read(path)
    compressed = tree["meshes"][0]["primitives"][0]["extensions"]["KHR_draco_mesh_compression"]["attributes"]
    compressed["JOINTS_0"] = compressed["POSITION"]
    path.write_bytes(glb(tree, binary + packed))
    with pytest.raises(ReadError, match="JOINTS_0 has the shape"):
        read(path)
    tree["accessors"][0]["count"] = 10**7
    path.write_bytes(glb(tree, binary + packed))
    with pytest.raises(ReadError, match="declares 10000000 elements in"):
        read(path)


def test_meshes_stand_as_their_morph_targets_say_at_rest(tmp_path: Path) -> None:
    """By the weights of the mesh, or the node's own, which another node of the same mesh does not share."""
    rest, first, second = arrays = np.random.default_rng(0).normal(size=(3, 30, 3)).astype("<f4")
    tree, _ = tree_of(rest, targets=[{"NORMAL": 0}, {"POSITION": 1}, {"POSITION": 2}])
    for number in (1, 2):
        tree["accessors"].append(tree["accessors"][0] | {"bufferView": number})
        tree["bufferViews"].append({"buffer": 0, "byteOffset": 360 * number, "byteLength": 360})
    tree["nodes"] = [{"mesh": 0}, {"mesh": 0, "weights": [1, 0, 2]}, {"mesh": 0, "weights": [0, 0, 0]}]
    tree["scenes"] = [{"nodes": [0, 1, 2]}]
    tree["meshes"][0]["weights"] = [1, 0.5, 0]
    path = tmp_path / "a.glb"
    path.write_bytes(glb(tree, arrays.tobytes()))
    expected = [rest + first / 2, rest + 2 * second, rest]
    parted = read_gltf_parts(path)
    for number, there in enumerate(expected):
        faces = parted.shape.faces[parted.parts == number]
        np.testing.assert_allclose(parted.shape.vertices[faces.ravel()], there, atol=1e-6)
    tree["accessors"][1]["count"] = 1
    path.write_bytes(glb(tree, arrays.tobytes()))
    with pytest.raises(ReadError, match="a morph target of 1 vertices, expected 30"):
        read(path)


@pytest.mark.parametrize("base", [True, False])
def test_sparse_positions_of_gltf_are_those_written_out(tmp_path: Path, base: bool) -> None:
    positions = np.random.default_rng(0).normal(size=(30, 3)).astype("<f4")
    changed = np.array([3, 5, 4]).astype("<u2")
    values = np.float32([[1, 2, 3], [4, 5, 6], [7, 8, 0]])
    tree, binary = tree_of(positions)
    tree["bufferViews"] += [
        {"buffer": 0, "byteOffset": 360, "byteLength": 6},
        {"buffer": 0, "byteOffset": 368, "byteLength": 36},
    ]
    accessor = tree["accessors"][0]
    accessor["sparse"] = {
        "count": 3,
        "indices": {"bufferView": 1, "componentType": 5123},
        "values": {"bufferView": 2},
    }
    expected = positions.copy() if base else np.zeros((30, 3), np.float32)
    if not base:
        del accessor["bufferView"]
    expected[changed] = values
    (tmp_path / "a.glb").write_bytes(glb(tree, binary + changed.tobytes() + b"\0\0" + values.tobytes()))
    np.testing.assert_array_equal(read(tmp_path / "a.glb").vertices, expected)
    for lie in ({"count": 31}, {"count": -1}, {"indices": {"bufferView": 2, "componentType": 5125}}):
        accessor["sparse"] |= lie
        (tmp_path / "a.glb").write_bytes(glb(tree, binary + changed.tobytes() + b"\0\0" + values.tobytes()))
        with pytest.raises(ReadError):
            read(tmp_path / "a.glb")
        accessor["sparse"] |= {"count": 3, "indices": {"bufferView": 1, "componentType": 5123}}


def test_vertices_that_many_primitives_of_gltf_share_are_kept_once(tmp_path: Path, sphere: trimesh.Trimesh) -> None:
    tree, binary = tree_of(np.asarray(sphere.vertices))
    corners = sphere.faces.astype("<u4")
    primitives = []
    for number in range(len(corners) // 8):
        tree["bufferViews"].append({"buffer": 0, "byteOffset": len(binary) + 96 * number, "byteLength": 96})
        tree["accessors"].append({"bufferView": number + 1, "componentType": 5125, "type": "SCALAR", "count": 24})
        primitives.append({"attributes": {"POSITION": 0}, "indices": number + 1})
    tree["meshes"][0]["primitives"] = primitives
    (tmp_path / "a.glb").write_bytes(glb(tree, binary + corners.tobytes()))
    assert area(tmp_path / "a.glb") == pytest.approx(sphere.area, rel=1e-5)
    assert len(read(tmp_path / "a.glb").vertices) == len(sphere.vertices)


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_points_and_lines_of_gltf_are_points_and_count_only_without_triangles(tmp_path: Path, mode: int) -> None:
    positions = np.random.default_rng(0).normal(size=(30, 3)).astype("<f4")
    tree, binary = tree_of(positions, mode=mode)
    (tmp_path / "a.glb").write_bytes(glb(tree, binary))
    shape = read(tmp_path / "a.glb")
    assert shape.faces is None
    np.testing.assert_array_equal(shape.vertices, positions)
    ends = np.array([*range(18), *range(17), 999], dtype="<u2")  # a vertex that is not there shows nothing
    tree["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": ends.nbytes})
    tree["accessors"].append({"bufferView": 1, "componentType": 5123, "type": "SCALAR", "count": len(ends)})
    tree["meshes"][0]["primitives"][0]["indices"] = 1
    tree["buffers"][0]["byteLength"] += ends.nbytes
    (tmp_path / "a.glb").write_bytes(glb(tree, binary + ends.tobytes()))
    np.testing.assert_array_equal(read(tmp_path / "a.glb").vertices, positions[:18])  # only those that are shown
    del tree["meshes"][0]["primitives"][0]["indices"]
    tree["meshes"][0]["primitives"].append({"attributes": {"POSITION": 0}})
    (tmp_path / "a.glb").write_bytes(glb(tree, binary))
    assert len(read(tmp_path / "a.glb").faces) == 10


@pytest.mark.parametrize("version", ["1.0", "1", 1])
def test_gltf_of_the_first_version_is_said_to_be_that(tmp_path: Path, version: object) -> None:
    first = {"asset": {"version": version}, "meshes": {"a": {"primitives": []}}, "nodes": {"b": {"meshes": ["a"]}}}
    (tmp_path / "a.gltf").write_text(json.dumps(first))
    with pytest.raises(ReadError, match=r"glTF version 1(.0)? is not supported; expected version 2"):
        read(tmp_path / "a.gltf")


def test_compressed_views_may_not_fill_memory_together(tmp_path: Path) -> None:
    """Each is far from what is read at most; all are of the same compressed bytes."""
    import meshoptimizer

    rows = np.zeros((2**20, 3), np.float32)
    packed = bytes(meshoptimizer.encode_vertex_buffer(rows, len(rows), 12))
    extension = {"buffer": 0, "byteLength": len(packed), "mode": "ATTRIBUTES", "byteStride": 12, "count": len(rows)}
    tree, _ = tree_of(rows[:3])
    view = {"buffer": 0, "byteLength": rows.nbytes, "extensions": {"EXT_meshopt_compression": extension}}
    tree["bufferViews"] = [view] * 100
    tree["accessors"] = [tree["accessors"][0] | {"bufferView": number} for number in range(100)]
    tree["meshes"][0]["primitives"] = [{"attributes": {"POSITION": number}} for number in range(100)]
    (tmp_path / "a.glb").write_bytes(glb(tree, packed))
    with pytest.raises(ReadError, match="would unpack to more than 1 GiB"):
        read(tmp_path / "a.glb")


def test_many_buffers_may_name_one_file_and_escape_what_they_embed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 3)).astype("<f4")
    tree, _ = tree_of(rows)
    embedded = base64.b64encode(rows.tobytes()).decode()
    assert set("+/=") & set(embedded)
    escaped = embedded.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    uris = ["a.bin"] * 20 + [f"data:application/octet-stream;base64,{text}" for text in (embedded, escaped)]
    tree["buffers"] = [{"byteLength": rows.nbytes, "uri": uri} for uri in uris]
    tree["bufferViews"] = [{"buffer": number, "byteLength": rows.nbytes} for number in range(len(uris))]
    tree["accessors"] = [tree["accessors"][0] | {"bufferView": number} for number in range(len(uris))]
    tree["meshes"][0]["primitives"] = [{"attributes": {"POSITION": number}} for number in range(len(uris))]
    (tmp_path / "a.bin").write_bytes(rows.tobytes())
    (tmp_path / "a.gltf").write_text(json.dumps(tree))
    opened: list[str] = []
    content = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path.name) or content(path))
    shape = read(tmp_path / "a.gltf")
    np.testing.assert_array_equal(shape.vertices, np.tile(rows, (len(uris), 1)))
    assert opened.count("a.bin") == 1
