"""glTF: scenes, buffers and arrays."""

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

from ..meshes import area, glb, quantised_sphere
from .gltf_files import read_changed, skinned, tree_of


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


def test_what_makes_no_triangle_is_passed_over(tmp_path: Path) -> None:
    positions = np.random.default_rng(0).normal(size=(32, 3))
    tree, binary = tree_of(positions)
    tree["meshes"][0]["primitives"].append({"attributes": {}})  # as the standard allows
    (tmp_path / "a.glb").write_bytes(glb(tree, binary))
    assert len(read(tmp_path / "a.glb").faces) == 10


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
