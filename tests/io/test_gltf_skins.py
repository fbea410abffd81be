"""glTF: meshes that follow bones or morph targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from pointcentroid.errors import ReadError
from pointcentroid.io import read
from pointcentroid.io.parts import read_gltf_parts

from ..meshes import glb
from .gltf_files import read_changed, skinned, tree_of


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
