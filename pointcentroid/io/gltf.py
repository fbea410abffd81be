"""glTF as trimesh can read it: plain, uncompressed, geometry only.

Files on the web are often compressed (EXT_meshopt_compression, KHR_draco_mesh_compression) and quantised
(KHR_mesh_quantization), and their people and animals follow skeletons and are blends of several. `unpacked` rewrites any of
them, in memory, as a GLB that holds the nodes and, for every primitive, its positions as float32 and its indices.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pointcentroid.errors import ReadError, one_line
from pointcentroid.io.gltf_arrays import DRACO, FLOAT, MESHOPT, TRIANGLES, UNSIGNED_INT, GltfArrays
from pointcentroid.io.gltf_nodes import posed, transforms, world_transforms
from pointcentroid.io.shape import MAX_INSTANCES, MAX_UNPACKED

_MOST_SETS = 4  # of four bones each; players must know one
_INSTANCES = "EXT_mesh_gpu_instancing"
_PLACES = {"TRANSLATION": "VEC3", "ROTATION": "VEC4", "SCALE": "VEC3"}
_KNOWN = {*MESHOPT, DRACO, _INSTANCES, "KHR_mesh_quantization"}
_LOOKS = tuple(
    f"{who}_{what}" for who in ("KHR", "EXT", "MSFT") for what in ("materials", "texture", "technique", "lights", "xmp")
)
"""How extensions begin that say how things look, not where they are."""


def unpacked(path: Path) -> bytes:
    """Rewrite a GLB or glTF file as a plain GLB.

    Args:
        path: the file. Buffers that it names are looked for in its own folder and nowhere else.

    Returns:
        The bytes of a GLB with nodes, positions and indices, and nothing else.

    Raises:
        MissingExtraError: the geometry is compressed and the decoder is not installed.
        ReadError: the file is damaged, cut short, or names a buffer outside its folder.
    """
    with _told_of_damage(path):
        content = path.read_bytes()
        tree, binary = _tree(path, content)
        return _Rewriter(path, tree, GltfArrays(path, tree, binary, len(content))).glb()


def node_names(path: Path) -> list[str]:
    """The name of every node: its own, else that of its mesh, else `node 3`.

    Args:
        path: a GLB or glTF file.

    Raises:
        ReadError: the file is damaged.
    """
    with _told_of_damage(path):
        tree, _ = _tree(path, path.read_bytes())
        names = []
        for number, node in enumerate(tree.get("nodes", [])):
            mesh = tree["meshes"][node["mesh"]] if "mesh" in node else {}
            names.append(str(node.get("name") or mesh.get("name") or f"node {number}"))
        return names


@contextmanager
def _told_of_damage(path: Path) -> Iterator[None]:
    """What a damaged tree leads to becomes a `ReadError`."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, struct.error, RuntimeError) as error:
        reason = f"{type(error).__name__}: {one_line(error, 120)}"
        raise ReadError(path, f"damaged glTF file ({reason})") from None


def _tree(path: Path, content: bytes) -> tuple[dict, bytes]:
    """The JSON of a file, and the buffer within it."""
    tree, binary = _split_glb(path, content) if content[:4] == b"glTF" else (json.loads(content), b"")
    version = tree.get("asset", {}).get("version", "2.0")
    if str(version).startswith("1"):
        raise ReadError(path, f"glTF version {version} is not supported; expected version 2")
    return tree, binary


def _split_glb(path: Path, content: bytes) -> tuple[dict, bytes]:
    _, version, length = struct.unpack("<4sII", content[:12])
    if version != 2:
        raise ReadError(path, f"glTF version {version} is not supported; expected version 2")
    if length > len(content):
        raise ReadError(path, f"cut short: declares {length} bytes, holds {len(content)}")
    chunks: dict[bytes, bytes] = {}
    position = 12
    while position + 8 <= length:
        size, kind = struct.unpack("<I4s", content[position : position + 8])
        chunks.setdefault(kind, content[position + 8 : position + 8 + size])
        position += 8 + size
    return json.loads(chunks[b"JSON"]), chunks.get(b"BIN\0", b"")


class _Pose(NamedTuple):
    """What moves the vertices of a mesh at rest.

    Attributes:
        skin: the skeleton that they follow, by its number; None for none.
        weights: how much of each morph target is added to their positions.
    """

    skin: int | None
    weights: tuple[float, ...]


class _Rewriter:
    """Copies what is needed from one glTF tree into a new one."""

    def __init__(self, path: Path, tree: dict[str, Any], arrays: GltfArrays) -> None:
        self.path, self.tree, self.arrays = path, tree, arrays
        self.data = bytearray()
        self.views: list[dict] = []
        self.accessors: list[dict] = []
        self.meshes: list[dict] = []
        self._copied: dict[tuple[int, _Pose], int] = {}
        self._shared: dict[tuple, int] = {}
        self._skins: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._matrices: dict[int, np.ndarray] = {}
        self._placings = 0

    def glb(self) -> bytes:
        for name in self.tree.get("extensionsRequired", ()):
            if name not in _KNOWN and not name.startswith(_LOOKS):
                raise ReadError(self.path, f"needs the extension {name}, which is not supported; save it without")
        nodes = self._placed()
        new: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": list(range(len(nodes)))}],
            "nodes": nodes,
            "meshes": self.meshes,
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.data)}],
        }
        text = json.dumps(new).encode()
        text += b" " * (-len(text) % 4)
        data = bytes(self.data) + b"\0" * (-len(self.data) % 4)
        total = 12 + 8 + len(text) + 8 + len(data)
        return b"".join(
            [
                struct.pack("<4sII", b"glTF", 2, total),
                struct.pack("<I4s", len(text), b"JSON"),
                text,
                struct.pack("<I4s", len(data), b"BIN\0"),
                data,
            ]
        )

    def _placed(self) -> list[dict]:
        """The nodes of the new tree, each placed in the world by itself and called by the number of the old one.

        Readers of trees take a time that grows with their depth for every node. Where a node shows a skinned mesh, its own
        transform and its parents' do not count (glTF 2.0, section 3.7.3.3).
        """
        nodes: list[dict] = []
        for number in self._with_mesh(self._roots()):
            node = self.tree["nodes"][number]
            skinned = "skin" in node and self._is_skinned[node["mesh"]]
            weights = node.get("weights", self.tree["meshes"][node["mesh"]].get("weights", ()))
            mesh = self._mesh(node["mesh"], _Pose(node["skin"] if skinned else None, tuple(weights)))
            if skinned:
                _, origin = self._bones(node["skin"])
                nodes.append({"name": str(number), "mesh": mesh, "translation": origin.tolist()})
                continue
            for place in self._places(node):
                matrix = (self._world[number] @ place).T.ravel().tolist()
                nodes.append({"name": str(number), "mesh": mesh, "matrix": matrix})
        return nodes

    def _roots(self) -> list[int]:
        """The nodes that the scene to be shown begins with; where there are no scenes, all that hang on nothing."""
        if scenes := self.tree.get("scenes"):
            return scenes[self.tree.get("scene", 0)].get("nodes", [])
        nodes = self.tree.get("nodes", [])
        below = {child for node in nodes for child in node.get("children", [])}
        return [number for number in range(len(nodes)) if number not in below]

    def _with_mesh(self, roots: list[int]) -> list[int]:
        """The nodes under some roots that show a mesh, in the order of their numbers."""
        reached: set[int] = set()
        below = list(roots)
        while below:
            number = below.pop()
            if number not in reached:
                reached.add(number)
                below.extend(self.tree["nodes"][number].get("children", ()))
        shown = [number for number in sorted(reached) if "mesh" in self.tree["nodes"][number]]
        parts = sum(len(self.tree["meshes"][self.tree["nodes"][number]["mesh"]]["primitives"]) for number in shown)
        if parts > MAX_INSTANCES:
            raise ReadError(self.path, f"places {parts} parts, more than is read")
        return shown

    @cached_property
    def _is_skinned(self) -> list[bool]:
        """Of every mesh, whether all of it can follow bones."""
        needed = {"JOINTS_0", "WEIGHTS_0"}
        return [all(needed <= set(p["attributes"]) for p in mesh["primitives"]) for mesh in self.tree["meshes"]]

    @cached_property
    def _world(self) -> np.ndarray:
        return world_transforms(self.tree["nodes"])

    def _bones(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Of a skin: for each joint (4, 4), from the mesh's coordinates to the world's less an origin; and that (3,) origin.

        The origin is where the first joint stands. Without it, vertices far from the world's keep their digits in float32.
        """
        if number not in self._skins:
            skin = self.tree["skins"][number]
            joints = np.array(skin["joints"], dtype=np.int64)
            if joints.min() < 0:
                raise ReadError(self.path, f"its skin {number} names a node {joints.min()}")
            bones, origin = self._world[joints], self._world[joints[0], :3, 3]
            if "inverseBindMatrices" in skin:
                bones = bones @ self._inverses(skin["inverseBindMatrices"], len(joints))
            bones[:, :3, 3] -= origin
            self._skins[number] = bones, origin
        return self._skins[number]

    def _inverses(self, number: int, count: int) -> np.ndarray:
        """(count, 4, 4), the first matrices of an accessor."""
        if number not in self._matrices:
            self._matrices[number] = self.arrays.values(number, "MAT4")
        matrices = self._matrices[number]
        if len(matrices) < count:
            raise ReadError(self.path, f"its skin has {count} joints and {len(matrices)} inverse bind matrices")
        return matrices[:count].reshape(-1, 4, 4).transpose(0, 2, 1).astype(np.float64)

    def _mesh(self, number: int, pose: _Pose) -> int:
        """Copy a mesh as it is posed."""
        if (number, pose) not in self._copied:
            # Those without positions the standard lets readers pass over.
            shown = [p for p in self.tree["meshes"][number]["primitives"] if "POSITION" in p["attributes"]]
            mesh = {"primitives": [self._primitive(p, pose) for p in shown]}
            self._copied[number, pose] = len(self.meshes)
            self.meshes.append(mesh)
        return self._copied[number, pose]

    def _places(self, node: dict) -> np.ndarray:
        """(I, 4, 4) where copies of its mesh stand in a node: those of EXT_mesh_gpu_instancing, or else the one."""
        numbers = node.get("extensions", {}).get(_INSTANCES, {}).get("attributes", {})
        given = {name: self.arrays.values(numbers[name], kind) for name, kind in _PLACES.items() if name in numbers}
        if not given:
            return np.eye(4)[None]
        counts = {name: len(values) for name, values in given.items()}
        if len(set(counts.values())) > 1:
            raise ReadError(self.path, f"places copies of a mesh, but not as many of each: {counts}")
        self._placings += max(counts.values()) * len(self.tree["meshes"][node["mesh"]]["primitives"])
        if self._placings > MAX_INSTANCES:
            raise ReadError(self.path, f"places more than {MAX_INSTANCES} copies of its meshes, more than is read")
        return transforms(given.get("TRANSLATION"), given.get("ROTATION"), given.get("SCALE"))

    def _primitive(self, primitive: dict, pose: _Pose) -> dict:
        mode, positions, corners = self._positions(primitive, pose)
        count = self.accessors[positions]["count"]
        if corners is not None and mode == TRIANGLES and (corners >= count).any():  # in a whole, it could be another part's
            raise ReadError(self.path, f"a face names vertex {corners.max()}, but there are {count}")
        new: dict[str, Any] = {"attributes": {"POSITION": positions}, "mode": mode}
        if corners is not None:
            new["indices"] = self._add_accessor(corners.astype("<u4"))
        return new

    def _positions(self, primitive: dict, pose: _Pose) -> tuple[int, int, np.ndarray | None]:
        """A primitive's mode, the accessor of its positions in the new tree, and its corners."""
        numbers = primitive["attributes"]
        names = ["POSITION"]
        sets = [n for n in range(len(numbers)) if f"JOINTS_{n}" in numbers] if pose.skin is not None else []
        if len(sets) > _MOST_SETS:
            raise ReadError(self.path, f"its vertices follow {4 * len(sets)} bones each; at most {4 * _MOST_SETS} are read")
        names += [f"{name}_{n}" for name in ("JOINTS", "WEIGHTS") for n in sets]
        targets = zip(primitive.get("targets", ()), pose.weights, strict=False)
        morphs = [(target["POSITION"], weight) for target, weight in targets if weight and "POSITION" in target]
        # One array of vertices may serve many primitives, each with its own corners.
        key = pose.skin, *morphs, *(numbers[name] for name in names)
        own = DRACO in primitive.get("extensions", {})
        if not own and key in self._shared:
            mode, _, corners = self.arrays.primitive(primitive, [])
            return mode, self._shared[key], corners
        mode, attributes, corners = self.arrays.primitive(primitive, names)
        positions = attributes["POSITION"]
        for target, weight in morphs:
            moves = self.arrays.values(target, "VEC3")
            if len(moves) != len(positions):
                raise ReadError(self.path, f"has a morph target of {len(moves)} vertices, expected {len(positions)}")
            positions = positions + weight * moves
        if pose.skin is not None:
            joints, weights = (
                np.concatenate([attributes[f"{name}_{n}"] for n in sets], axis=1) for name in ("JOINTS", "WEIGHTS")
            )
            positions = posed(positions, joints.astype(np.int64), weights, self._bones(pose.skin)[0])
        accessor = self._add_accessor(positions.astype("<f4"))
        if not own:
            self._shared[key] = accessor
        return mode, accessor, corners

    def _add_accessor(self, array: np.ndarray) -> int:
        kind, shape = (FLOAT, "VEC3") if array.ndim == 2 else (UNSIGNED_INT, "SCALAR")
        view = self._add_view(array.tobytes())
        self.accessors.append({"componentType": kind, "type": shape, "count": len(array), "bufferView": view})
        return len(self.accessors) - 1

    def _add_view(self, data: bytes | memoryview) -> int:
        if len(self.data) + len(data) > MAX_UNPACKED:
            raise ReadError(self.path, f"would unpack to more than {MAX_UNPACKED >> 30} GiB of geometry")
        self.data += b"\0" * (-len(self.data) % 4)
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)})
        self.data += data
        return len(self.views) - 1
