"""glTF: the triangles and points of the scene that is shown, where its nodes place them.

Files on the web are often compressed (EXT_meshopt_compression, KHR_draco_mesh_compression) and quantised
(KHR_mesh_quantization), and their people and animals follow skeletons and are blends of several.
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
from pointcentroid.io.gltf_arrays import DRACO, MESHOPT, TRIANGLES, GltfArrays
from pointcentroid.io.gltf_nodes import posed, transforms, world_transforms
from pointcentroid.io.shape import MAX_ELEMENTS, MAX_INSTANCES, Part, Shape, joined

_MOST_SETS = 4  # of four bones each; players must know one
_INSTANCES = "EXT_mesh_gpu_instancing"
_PLACES = {"TRANSLATION": "VEC3", "ROTATION": "VEC4", "SCALE": "VEC3"}
_VISIBILITY = "KHR_node_visibility"
_KNOWN = {*MESHOPT, DRACO, _INSTANCES, _VISIBILITY, "KHR_mesh_quantization"}
_LOOKS = tuple(
    f"{who}_{what}" for who in ("KHR", "EXT", "MSFT") for what in ("materials", "texture", "technique", "lights", "xmp")
)
"""How extensions begin that say how things look, not where they are."""


def read_gltf(path: Path) -> Shape:
    """Read GLB or glTF.

    Args:
        path: the file. A glTF file's buffers are looked for in its own folder and nowhere else.

    Raises:
        MissingExtraError: the geometry is compressed and the decoder is not installed.
        ReadError: the file is damaged, cut short, names a buffer outside its folder, or holds no geometry.
    """
    return joined(path, placed(path))


def placed(path: Path) -> list[Part]:
    """What the nodes of a GLB or glTF file show: of each node its triangles, and its points.

    A node is called by its own name, else by that of its mesh, else `node 3`.

    Args:
        path: see `read_gltf`.

    Raises:
        MissingExtraError: see `read_gltf`.
        ReadError: see `read_gltf`.
    """
    with _told_of_damage(path):
        content = path.read_bytes()
        tree, binary = _tree(path, content)
        return list(_Scene(path, tree, GltfArrays(path, tree, binary, len(content))).parts())


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
    said, binary = _split_glb(path, content) if content[:4] == b"glTF" else (json.loads(content), b"")
    version = said.get("asset", {}).get("version", "2.0")
    if str(version).startswith("1"):
        raise ReadError(path, f"glTF version {version} is not supported; expected version 2")
    return {name: _Entries(value) if isinstance(value, list) else value for name, value in said.items()}, binary


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


class _Entries(list[Any]):
    """What a tree names by numbers, of which none is counted from the end."""

    def __getitem__(self, number: Any) -> Any:
        if not isinstance(number, slice) and number < 0:
            raise IndexError(f"it names an entry {number}")
        return super().__getitem__(number)


class _Pose(NamedTuple):
    """What moves the vertices of a mesh at rest.

    Attributes:
        skin: the skeleton that they follow, by its number; None for none.
        weights: how much of each morph target is added to their positions.
    """

    skin: int | None
    weights: tuple[float, ...]


class _Mesh(NamedTuple):
    """All primitives of a mesh, posed.

    Attributes:
        vertices: (V, 3) float64.
        faces: (F, 3) int64.
        points: (N, 3) float64 of what has no triangles.
    """

    vertices: np.ndarray
    faces: np.ndarray
    points: np.ndarray


class _Scene:
    """The scene of a glTF tree.

    Args:
        path: named in errors.
        tree: the JSON.
        arrays: of the same tree.
    """

    def __init__(self, path: Path, tree: dict[str, Any], arrays: GltfArrays) -> None:
        self.path, self.tree, self.arrays = path, tree, arrays
        self._meshes: dict[tuple[int, _Pose], _Mesh] = {}
        self._shared: dict[tuple, np.ndarray] = {}
        self._skins: dict[int, np.ndarray] = {}
        self._matrices: dict[int, np.ndarray] = {}
        self._copies = self._elements = 0

    def parts(self) -> Iterator[Part]:
        """See `placed`.

        Where a node shows a skinned mesh, its own transform and its parents' do not count (glTF 2.0, section 3.7.3.3).
        """
        for name in self.tree.get("extensionsRequired", ()):
            if name not in _KNOWN and not name.startswith(_LOOKS):
                raise ReadError(self.path, f"needs the extension {name}, which is not supported; save it without")
        for number in self._with_mesh(self._roots()) or self._with_mesh(self._tops()):  # a scene may be empty
            node = self.tree["nodes"][number]
            whole = self.tree["meshes"][node["mesh"]]
            skinned = "skin" in node and self._is_skinned[node["mesh"]]
            weights = node.get("weights", whole.get("weights", ()))
            mesh = self._mesh(node["mesh"], _Pose(node["skin"] if skinned else None, tuple(weights)))
            places = np.eye(4)[None] if skinned else self._world[number] @ self._places(node)
            self._elements += len(places) * max(len(mesh.vertices), len(mesh.faces), len(mesh.points))
            if self._elements > MAX_ELEMENTS:
                raise ReadError(self.path, f"places more than {MAX_ELEMENTS} vertices or faces, more than is read")
            name = str(node.get("name") or whole.get("name") or f"node {number}")
            if len(mesh.faces):
                starts = len(mesh.vertices) * np.arange(len(places))
                yield Part(name, _moved(mesh.vertices, places), (mesh.faces + starts[:, None, None]).reshape(-1, 3))
            if len(mesh.points):
                yield Part(name, _moved(mesh.points, places), mesh.faces[:0])

    def _roots(self) -> list[int]:
        """The nodes that the scene to be shown begins with; where there are no scenes, all that hang on nothing."""
        scenes = self.tree.get("scenes")
        return scenes[self.tree.get("scene", 0)].get("nodes", []) if scenes else self._tops()

    def _tops(self) -> list[int]:
        """The nodes that hang on nothing."""
        nodes = self.tree.get("nodes", [])
        below = {child for node in nodes for child in node.get("children", [])}
        return [number for number in range(len(nodes)) if number not in below]

    def _with_mesh(self, roots: list[int]) -> list[int]:
        """The nodes under some roots that show a mesh, in the order of their numbers; what is hidden hides all below it."""
        reached: set[int] = set()
        below = list(roots)
        while below:
            number = below.pop()
            node = self.tree["nodes"][number]
            if number not in reached and node.get("extensions", {}).get(_VISIBILITY, {}).get("visible", True):
                reached.add(number)
                below.extend(node.get("children", ()))
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

    def _bones(self, number: int) -> np.ndarray:
        """Of a skin: for each joint (4, 4), from the mesh's coordinates to the world's."""
        if number not in self._skins:
            skin = self.tree["skins"][number]
            joints = np.array(skin["joints"], dtype=np.int64)
            if joints.min() < 0:
                raise ReadError(self.path, f"its skin {number} names a node {joints.min()}")
            self._skins[number] = self._world[joints]
            if "inverseBindMatrices" in skin:
                self._skins[number] = self._world[joints] @ self._inverses(skin["inverseBindMatrices"], len(joints))
        return self._skins[number]

    def _inverses(self, number: int, count: int) -> np.ndarray:
        """(count, 4, 4), the first matrices of an accessor."""
        if number not in self._matrices:
            self._matrices[number] = self.arrays.values(number, "MAT4")
        matrices = self._matrices[number]
        if len(matrices) < count:
            raise ReadError(self.path, f"its skin has {count} joints and {len(matrices)} inverse bind matrices")
        return matrices[:count].reshape(-1, 4, 4).transpose(0, 2, 1).astype(np.float64)

    def _mesh(self, number: int, pose: _Pose) -> _Mesh:
        """A mesh as it is posed."""
        if (number, pose) not in self._meshes:
            # Those without positions the standard lets readers pass over.
            shown = [p for p in self.tree["meshes"][number]["primitives"] if "POSITION" in p["attributes"]]
            self._meshes[number, pose] = _merged([self._primitive(primitive, pose) for primitive in shown])
        return self._meshes[number, pose]

    def _places(self, node: dict) -> np.ndarray:
        """(I, 4, 4) where copies of its mesh stand in a node: those of EXT_mesh_gpu_instancing, or else the one."""
        numbers = node.get("extensions", {}).get(_INSTANCES, {}).get("attributes", {})
        given = {name: self.arrays.values(numbers[name], kind) for name, kind in _PLACES.items() if name in numbers}
        if not given:
            return np.eye(4)[None]
        counts = {name: len(values) for name, values in given.items()}
        if len(set(counts.values())) > 1:
            raise ReadError(self.path, f"places copies of a mesh, but not as many of each: {counts}")
        self._copies += max(counts.values()) * len(self.tree["meshes"][node["mesh"]]["primitives"])
        if self._copies > MAX_INSTANCES:
            raise ReadError(self.path, f"places more than {MAX_INSTANCES} copies of its meshes, more than is read")
        return transforms(given.get("TRANSLATION"), given.get("ROTATION"), given.get("SCALE"))

    def _primitive(self, primitive: dict, pose: _Pose) -> tuple[int, np.ndarray, np.ndarray | None]:
        """A primitive's mode, the (V, 3) places of its vertices, and its corners."""
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
        known = None if own else self._shared.get(key)
        mode, attributes, corners = self.arrays.primitive(primitive, names if known is None else [])
        positions = self._posed(attributes, morphs, sets, pose) if known is None else known
        if not own:
            self._shared[key] = positions
        self.arrays.charge(0 if known is not None else positions.nbytes)
        self.arrays.charge(8 * len(positions if corners is None else corners))
        if corners is not None and mode != TRIANGLES:  # a point or the end of a line that is not there shows nothing
            corners = corners[corners < len(positions)]
        elif corners is not None and (corners >= len(positions)).any():  # in a whole, it could be another part's
            raise ReadError(self.path, f"a face names vertex {corners.max()}, but there are {len(positions)}")
        return mode, positions, corners

    def _posed(
        self, attributes: dict[str, np.ndarray], morphs: list[tuple[int, float]], sets: list[int], pose: _Pose
    ) -> np.ndarray:
        """(V, 3) float64 places of vertices: blended, and moved by their bones."""
        positions = attributes["POSITION"].astype(np.float64)
        for target, weight in morphs:
            moves = self.arrays.values(target, "VEC3")
            self.arrays.charge(moves.nbytes)
            if len(moves) != len(positions):
                raise ReadError(self.path, f"has a morph target of {len(moves)} vertices, expected {len(positions)}")
            positions = positions + weight * moves
        if pose.skin is None:
            return positions
        joints, weights = (
            np.concatenate([attributes[f"{name}_{n}"] for n in sets], axis=1) for name in ("JOINTS", "WEIGHTS")
        )
        return posed(positions, joints.astype(np.int64), weights, self._bones(pose.skin))


def _merged(primitives: list[tuple[int, np.ndarray, np.ndarray | None]]) -> _Mesh:
    """Primitives as one mesh: their modes, places of vertices, which several may share, and corners."""
    vertices, faces, points = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], [np.zeros((0, 3))]
    starts: dict[int, int] = {}
    total = 0
    for mode, positions, corners in primitives:
        if mode != TRIANGLES:
            points.append(positions if corners is None else positions[np.unique(corners)])
            continue
        if id(positions) not in starts:
            starts[id(positions)] = total
            vertices.append(positions)
            total += len(positions)
        corners = np.arange(len(positions)) if corners is None else corners.astype(np.int64)
        faces.append(starts[id(positions)] + corners[: len(corners) // 3 * 3].reshape(-1, 3))
    return _Mesh(np.concatenate(vertices), np.concatenate(faces), np.concatenate(points))


def _moved(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(I * V, 3): copies of (V, 3) points, where (I, 4, 4) transforms place them."""
    return np.concatenate([points @ place[:3, :3].T + place[:3, 3] for place in places])


READERS = {".glb": read_gltf, ".gltf": read_gltf}
