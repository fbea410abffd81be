"""The arrays of a glTF file: buffers, their views, and the accessors that say what the bytes are.

They may be compressed (EXT_meshopt_compression, KHR_draco_mesh_compression), quantised (KHR_mesh_quantization) or sparse.
"""

from __future__ import annotations

import base64
import binascii
import os
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pointcentroid.errors import MissingExtraError, ReadError, one_line, shortened
from pointcentroid.io.polygons import strips
from pointcentroid.io.shape import MAX_ELEMENTS, MAX_UNPACKED

MESHOPT = "EXT_meshopt_compression", "KHR_meshopt_compression"
DRACO = "KHR_draco_mesh_compression"
POINTS, TRIANGLES = 0, 4
_LINES = 1, 2, 3
_STRIP, _FAN = 5, 6
_TYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Primitive(NamedTuple):
    """What a primitive is made of.

    Attributes:
        mode: `POINTS` or `TRIANGLES`, as glTF numbers them.
        attributes: (V, width) each, by name.
        corners: (C,) numbers of vertices, None where they come in their own order. Of the triangles; what is left over makes
            none.
    """

    mode: int
    attributes: dict[str, np.ndarray]
    corners: np.ndarray | None


class GltfArrays:
    """Reads the arrays of one glTF tree.

    Args:
        path: of the file, named in errors. Buffers that it names are looked for in its own folder and nowhere else.
        tree: its JSON.
        binary: the buffer within a GLB.
        size: of the file, in bytes.
    """

    def __init__(self, path: Path, tree: dict[str, Any], binary: bytes, size: int) -> None:
        self.path, self.tree, self.binary, self.size = path, tree, binary, size
        # Many accessors may share a view, many views a buffer, and many buffers a file; each is decoded once.
        self._buffers: dict[int, memoryview] = {}
        self._files: dict[Path, bytes] = {}
        self._decoded: dict[int, memoryview] = {}
        self._unpacked = 0

    def charge(self, size: int) -> None:
        """Count bytes that something has become, or is about to.

        Args:
            size: how many.

        Raises:
            ReadError: with those before, they are more than is read.
        """
        self._unpacked += size
        if self._unpacked > MAX_UNPACKED:
            raise ReadError(self.path, f"would unpack to more than {MAX_UNPACKED >> 30} GiB of geometry")

    def primitive(self, primitive: dict, names: Iterable[str]) -> Primitive:
        """Read what a primitive is made of.

        Args:
            primitive: of the tree, Draco-compressed or not.
            names: of the attributes to read: POSITION, and JOINTS and WEIGHTS of any set.

        Raises:
            MissingExtraError: it is compressed and the decoder is not installed.
            ReadError: it is damaged, cut short, or holds less than it declares.
        """
        numbers = primitive["attributes"]
        packed = primitive.get("extensions", {}).get(DRACO)
        if packed is None:
            attributes = {name: self.values(numbers[name], _type_of(name)) for name in names}
            corners = self.values(primitive["indices"], "SCALAR")[:, 0] if "indices" in primitive else None
            if corners is not None and corners.dtype.kind != "u":
                raise ReadError(self.path, f"its indices are of type {corners.dtype}, expected unsigned integers")
            mode = primitive.get("mode", TRIANGLES)
            if mode in _LINES:  # their ends are points, as in other formats
                return Primitive(POINTS, attributes, corners)
            if mode in (_STRIP, _FAN):
                if corners is None:
                    corners = np.arange(self._count(self.tree["accessors"][numbers["POSITION"]]))
                return Primitive(TRIANGLES, attributes, (strips if mode == _STRIP else _fan)(corners).reshape(-1))
            if mode not in (POINTS, TRIANGLES):
                raise ReadError(self.path, f"has a primitive of mode {mode}; the modes of glTF are 0 to 6")
            return Primitive(mode, attributes, corners)
        mesh = self._from_draco(self._view(packed["bufferView"]), self.tree["accessors"][numbers["POSITION"]])
        attributes = {}
        for name in names:
            if name not in packed["attributes"]:
                attributes[name] = self.values(numbers[name], _type_of(name))
                continue
            values = np.asarray(mesh.get_attribute_by_unique_id(packed["attributes"][name])["data"])
            if values.shape != (len(mesh.points), _WIDTHS[_type_of(name)]):
                raise ReadError(self.path, f"damaged Draco data: {name} has the shape {values.shape}")
            attributes[name] = _as_numbers(values, self.tree["accessors"][numbers[name]])
        return Primitive(TRIANGLES, attributes, np.asarray(mesh.faces).reshape(-1))

    def values(self, number: int, kind: str) -> np.ndarray:
        """The (count, width) values of an accessor; normalised integers become the numbers they stand for.

        Args:
            number: of the accessor in the tree.
            kind: its type, such as VEC3.

        Raises:
            MissingExtraError: they are compressed and the decoder is not installed.
            ReadError: they are of another type, cut short, or fewer than declared.
        """
        accessor = self.tree["accessors"][number]
        if accessor["type"] != kind:
            raise ReadError(self.path, f"its accessor {number} is of type {accessor['type']}, expected {kind}")
        count, width, dtype = self._count(accessor), _WIDTHS[kind], _dtype(accessor["componentType"])
        if "bufferView" in accessor:
            values = self._rows(accessor, count, width, dtype)
        elif kind == "VEC3" and count <= max(self.size, 2**20):  # zeros, of which a sparse accessor changes some
            values = np.zeros((count, width), dtype)
        else:
            raise ReadError(self.path, f"its accessor {number} of {count} elements says nowhere where they are")
        if sparse := accessor.get("sparse"):
            changed = int(sparse["count"])
            if not 0 <= changed <= count:
                raise ReadError(self.path, f"changes {changed} of {count} elements")
            where = self._rows(sparse["indices"], changed, 1, _dtype(sparse["indices"]["componentType"]))[:, 0]
            values = values.copy()
            values[where] = self._rows(sparse["values"], changed, width, dtype)
        return _as_numbers(values, accessor)

    def _from_draco(self, data: memoryview, positions: dict) -> Any:
        draco = _require("DracoPy", "Draco-compressed glTF files")
        count = self._count(positions)
        if count > 1000 * len(data):  # compression gains less than that, so a larger promise is a lie
            raise ReadError(self.path, f"declares {count} elements in {len(data)} compressed bytes")
        try:
            return draco.decode(bytes(data))
        except MemoryError:
            raise
        except Exception as error:  # what a damaged file raises inside a decoder is anybody's guess
            raise ReadError(self.path, f"damaged Draco data ({type(error).__name__}: {one_line(error, 120)})") from None

    def _count(self, accessor: dict) -> int:
        count = int(accessor["count"])
        if not 0 <= count <= MAX_ELEMENTS:
            raise ReadError(self.path, f"declares {count} elements; at most {MAX_ELEMENTS} are read")
        return count

    def _rows(self, place: dict, count: int, width: int, dtype: np.dtype) -> np.ndarray:
        """(count, width) elements as they lie in a buffer view."""
        data = self._view(place["bufferView"])
        start, row = place.get("byteOffset", 0), width * dtype.itemsize
        stride = self.tree["bufferViews"][place["bufferView"]].get("byteStride", row)
        end = start + (count - 1) * stride + row if count else start
        if stride < row:
            raise ReadError(self.path, f"has elements of {row} bytes, {stride} bytes apart")
        if start < 0 or end > len(data):
            raise ReadError(self.path, f"cut short: {count} elements declared in {len(data)} bytes of data")
        block = np.frombuffer(data, np.uint8)
        rows = np.lib.stride_tricks.as_strided(block[start:end], (count, row), (stride, 1), writeable=False)
        return np.ascontiguousarray(rows).view(dtype).reshape(count, width)

    def _view(self, number: int) -> memoryview:
        view = self.tree["bufferViews"][number]
        packed = next((view["extensions"][name] for name in MESHOPT if name in view.get("extensions", {})), None)
        if packed is None:
            return self._slice(view)
        if number not in self._decoded:
            self.charge(int(packed["count"]) * int(packed["byteStride"]))
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
        if uri[:5].lower() == "data:":
            packed = b"".join(urllib.parse.unquote_to_bytes(uri.partition(",")[2]).split())
            try:
                return base64.b64decode(packed, validate=True)
            except binascii.Error:
                raise ReadError(self.path, "an embedded buffer is not valid base64") from None
        folder = Path(os.path.abspath(self.path.parent))
        # By its name: caches of downloads keep files elsewhere, and link them into the folder.
        file = Path(os.path.normpath(folder / urllib.parse.unquote(uri)))
        if not file.is_relative_to(folder) or "://" in uri:
            raise ReadError(self.path, f"names the buffer {shortened(uri)!r} outside its own folder, which is not opened")
        try:
            if file not in self._files:
                self._files[file] = file.read_bytes()
            return self._files[file]
        except OSError as error:
            raise ReadError(self.path, f"its buffer {shortened(uri)!r} cannot be read: {error.strerror or error}") from None


def _fan(corners: np.ndarray) -> np.ndarray:
    """(F, 3) the corners of a fan's triangles."""
    around = max(len(corners) - 2, 0)
    return np.stack([np.broadcast_to(corners[:1], around), corners[1 : around + 1], corners[2:]], axis=1)


def _dtype(kind: int) -> np.dtype:
    return np.dtype(_TYPES[kind]).newbyteorder("<")


def _type_of(name: str) -> str:
    return "VEC3" if name == "POSITION" else "VEC4"


def _as_numbers(values: np.ndarray, accessor: dict) -> np.ndarray:
    if accessor.get("normalized") and values.dtype.kind in "iu":
        return np.maximum(values / np.float32(np.iinfo(values.dtype).max), np.float32(-1))
    return values


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
    match packed.get("filter", "NONE"):
        case "EXPONENTIAL":
            raw = meshoptimizer.decode_filter_exp(raw, count, stride)
        case "QUATERNION":
            raw = meshoptimizer.decode_filter_quat(raw, count, stride)
        case "NONE" | "OCTAHEDRAL" | "COLOR":  # the latter two are of normals and colours, which are not read
            pass
        case other:
            raise ReadError(path, f"unknown meshopt filter {other!r}")
    return raw.tobytes()[: count * stride]


def _require(module: str, what: str) -> Any:
    try:
        return __import__(module)
    except ImportError:
        raise MissingExtraError(f"reading {what}", "gltf", module) from None
