"""glTF as trimesh can read it: plain, uncompressed, geometry only.

Files on the web are often compressed (EXT_meshopt_compression, KHR_draco_mesh_compression) and quantised
(KHR_mesh_quantization). `unpacked` rewrites any of them, in memory, as a GLB that holds the nodes and, for every
primitive, its positions as float32 and its indices. Draco data stay as they are: trimesh decodes them.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pointcentroid.errors import MissingExtraError, ReadError, one_line
from pointcentroid.io.shape import MAX_ELEMENTS, MAX_UNPACKED

_MESHOPT = "EXT_meshopt_compression", "KHR_meshopt_compression"
_DRACO = "KHR_draco_mesh_compression"
_INTEGERS = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32}
_FLOAT = 5126
_FAN = 6  # of triangles
_INSTANCES = "EXT_mesh_gpu_instancing"
_KNOWN = {*_MESHOPT, _DRACO, "KHR_mesh_quantization"}
_LOOKS = tuple(f"{who}_{what}" for who in ("KHR", "EXT", "MSFT") for what in ("materials", "texture", "lights", "xmp"))
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
        return _Rewriter(path, *_tree(path, content), len(content)).glb()


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
    return _split_glb(path, content) if content[:4] == b"glTF" else (json.loads(content), b"")


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


class _Rewriter:
    """Copies what is needed from one glTF tree into a new one."""

    def __init__(self, path: Path, tree: dict[str, Any], binary: bytes, size: int) -> None:
        self.path, self.tree, self.binary, self.size = path, tree, binary, size
        self.data = bytearray()
        self.views: list[dict] = []
        self.accessors: list[dict] = []
        self._copied: dict[tuple[int, bool], int] = {}
        # Many accessors may share a view, and many views a buffer; each is decoded once.
        self._buffers: dict[int, memoryview] = {}
        self._decoded: dict[int, memoryview] = {}

    def glb(self) -> bytes:
        if _DRACO in self.tree.get("extensionsUsed", ()):
            _require("DracoPy", "Draco-compressed glTF files")
        for name in self.tree.get("extensionsRequired", ()):
            if name not in _KNOWN and not name.startswith(_LOOKS):
                raise ReadError(self.path, f"needs the extension {name}, which is not supported; save it without")
        if any(_INSTANCES in node.get("extensions", {}) for node in self.tree.get("nodes", ())):
            raise ReadError(self.path, f"places copies by {_INSTANCES}, which is not supported; save it without")
        meshes = [{"primitives": [self._primitive(p) for p in m["primitives"]]} for m in self.tree.get("meshes", [])]
        nodes = self.tree.get("nodes", [])
        kept = ("mesh", "children", "matrix", "translation", "rotation", "scale")
        new: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "nodes": [{key: node[key] for key in kept if key in node} for node in nodes],
            "meshes": meshes,
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.data)}],
            "scenes": [{"nodes": scene.get("nodes", [])} for scene in self._scenes()],
            "extensionsUsed": [_DRACO],
        }
        if "scene" in self.tree:
            new["scene"] = self.tree["scene"]
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

    def _scenes(self) -> list[dict]:
        """Those of the file; where there are none, one of all that hangs on nothing."""
        if scenes := self.tree.get("scenes"):
            return scenes
        nodes = self.tree.get("nodes", [])
        below = {child for node in nodes for child in node.get("children", [])}
        return [{"nodes": [number for number in range(len(nodes)) if number not in below]}]

    def _primitive(self, primitive: dict) -> dict:
        new: dict[str, Any] = {"attributes": {}, "mode": primitive.get("mode", 4)}
        if new["mode"] == _FAN:
            return self._unfolded(primitive)
        draco = primitive.get("extensions", {}).get(_DRACO)
        if draco is not None:
            view = self._add_view(self._view_bytes(draco["bufferView"]))
            attributes = {"POSITION": draco["attributes"]["POSITION"]}
            new["extensions"] = {_DRACO: {"bufferView": view, "attributes": attributes}}
        new["attributes"]["POSITION"] = self._accessor(primitive["attributes"]["POSITION"], draco is not None)
        if "indices" in primitive:
            new["indices"] = self._accessor(primitive["indices"], draco is not None)
        return new

    def _unfolded(self, primitive: dict) -> dict:
        """A fan as single triangles, for trimesh passes over fans."""
        position = primitive["attributes"]["POSITION"]
        count = int(self.tree["accessors"][position]["count"])
        if "indices" in primitive:
            old = self.tree["accessors"][primitive["indices"]]
            corners = self._array(old, int(old["count"]), 1)[:, 0].astype("<u4")
        else:
            corners = np.arange(min(count, MAX_ELEMENTS), dtype="<u4")
        triangles = np.stack([np.broadcast_to(corners[:1], max(len(corners) - 2, 0)), corners[1:-1], corners[2:]], axis=1)
        self.accessors.append(
            {
                "componentType": 5125,
                "type": "SCALAR",
                "count": triangles.size,
                "bufferView": self._add_view(triangles.tobytes()),
            }
        )
        indices = len(self.accessors) - 1
        return {"attributes": {"POSITION": self._accessor(position, empty=False)}, "mode": 4, "indices": indices}

    def _accessor(self, number: int, empty: bool) -> int:
        """Copy an accessor; with `empty`, only its declaration, for a decoder to fill in."""
        key = (number, empty)
        if key in self._copied:
            return self._copied[key]
        old = self.tree["accessors"][number]
        width = {"SCALAR": 1, "VEC3": 3}[old["type"]]
        count = int(old["count"])
        # Compression gains less than a factor of a thousand, so a larger promise is a lie.
        if not 0 <= count <= min(MAX_ELEMENTS, 1000 * self.size):
            raise ReadError(self.path, f"declares {count} elements in a file of {self.size} bytes")
        kind = old["componentType"]
        new = {"componentType": kind, "type": old["type"], "count": count}
        if not empty:
            array = self._array(old, count, width)
            if old["type"] == "VEC3":
                new["componentType"] = _FLOAT
            new["bufferView"] = self._add_view(array.tobytes())
        self._copied[key] = len(self.accessors)
        self.accessors.append(new)
        return self._copied[key]

    def _array(self, accessor: dict, count: int, width: int) -> np.ndarray:
        """The values of an accessor; normalised integers become the numbers they stand for."""
        kind = accessor["componentType"]
        dtype: Any = np.dtype(np.float32 if kind == _FLOAT else _INTEGERS[kind]).newbyteorder("<")
        if "sparse" in accessor:
            raise ReadError(self.path, "sparse accessors are not supported; save the file without them")
        view = self.tree["bufferViews"][accessor["bufferView"]]
        data = self._view_bytes(accessor["bufferView"])
        start, row = accessor.get("byteOffset", 0), width * dtype.itemsize
        stride = view.get("byteStride", row)
        end = start + (count - 1) * stride + row if count else start
        if start < 0 or stride < row or end > len(data):
            raise ReadError(self.path, f"cut short: {count} elements declared in {len(data)} bytes of data")
        block = np.frombuffer(data, np.uint8)
        rows = np.lib.stride_tricks.as_strided(block[start:end], (count, row), (stride, 1), writeable=False)
        array = np.ascontiguousarray(rows).view(dtype).reshape(count, width)
        if width == 1:
            return array
        if kind != _FLOAT and accessor.get("normalized"):
            return np.maximum(array / np.float32(np.iinfo(dtype).max), np.float32(-1)).astype("<f4")
        return array.astype("<f4")

    def _view_bytes(self, number: int) -> memoryview:
        view = self.tree["bufferViews"][number]
        packed = next((view["extensions"][name] for name in _MESHOPT if name in view.get("extensions", {})), None)
        if packed is None:
            return self._slice(view)
        if number not in self._decoded:
            self._decoded[number] = memoryview(_decode_meshopt(self.path, self._slice(packed), packed))
        return self._decoded[number]

    def _slice(self, view: dict) -> memoryview:
        number = view["buffer"]
        if number not in self._buffers:
            self._buffers[number] = memoryview(self._buffer(number))
        buffer = self._buffers[number]
        start, length = view.get("byteOffset", 0), view["byteLength"]
        if start < 0 or length < 0 or start + length > len(buffer):
            raise ReadError(self.path, f"cut short: bytes {start}..{start + length} of a buffer of {len(buffer)}")
        return buffer[start : start + length]

    def _buffer(self, number: int) -> bytes:
        uri = self.tree["buffers"][number].get("uri")
        if uri is None:
            if number != 0:
                raise ReadError(self.path, f"its buffer {number} says nowhere where it is")
            return self.binary
        if uri.startswith("data:"):
            try:
                return base64.b64decode(uri.partition(",")[2], validate=True)
            except binascii.Error:
                raise ReadError(self.path, "an embedded buffer is not valid base64") from None
        folder = self.path.parent.resolve()
        file = (folder / urllib.parse.unquote(uri)).resolve()
        if not file.is_relative_to(folder) or "://" in uri:
            raise ReadError(self.path, f"names the buffer {uri!r} outside its own folder, which is not opened")
        try:
            return file.read_bytes()
        except OSError as error:
            raise ReadError(self.path, f"its buffer {uri!r} cannot be read: {error.strerror or error}") from None

    def _add_view(self, data: bytes | memoryview) -> int:
        if len(self.data) + len(data) > MAX_UNPACKED:
            raise ReadError(self.path, f"would unpack to more than {MAX_UNPACKED >> 30} GiB of geometry")
        self.data += b"\0" * (-len(self.data) % 4)
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)})
        self.data += data
        return len(self.views) - 1


def _decode_meshopt(path: Path, data: memoryview, packed: dict) -> bytes:
    """Decode one buffer view; see the specification of EXT_meshopt_compression."""
    meshoptimizer = _require("meshoptimizer", "meshopt-compressed glTF files")
    count, stride, mode = int(packed["count"]), int(packed["byteStride"]), packed["mode"]
    if count * stride > 1000 * len(data) + 2**16:
        raise ReadError(path, f"{len(data)} compressed bytes cannot be {count} elements of {stride} bytes")
    if mode == "ATTRIBUTES":
        # The decoder writes raw bytes; the binding wants to know a type for them.
        raw = meshoptimizer.decode_vertex_buffer(count, stride, data, dtype=np.dtype((np.void, stride)))
    elif mode == "TRIANGLES":
        raw = meshoptimizer.decode_index_buffer(count, stride, data)
    elif mode == "INDICES":
        raw = meshoptimizer.decode_index_sequence(count, stride, data)
    else:
        raise ReadError(path, f"unknown meshopt mode {mode!r}")
    if packed.get("filter", "NONE") == "EXPONENTIAL":
        raw = meshoptimizer.decode_filter_exp(raw, count, stride)
    return raw.tobytes()[: count * stride]


def _require(module: str, what: str) -> Any:
    try:
        return __import__(module)
    except ImportError:
        raise MissingExtraError(f"reading {what}", "gltf", module) from None
