"""What the window and the pictures share: open3d itself, and panels as open3d geometry."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from pointcentroid.errors import DisplayError, MissingExtraError
from pointcentroid.interrupts import held_back
from pointcentroid.viz.panel import Panel

SPACING = 2.3
"""Distance between the middles of panels that stand side by side; each is a unit ball at most."""

LIGHT = np.array([0.35, -0.45, 0.82])
"""Where painted light comes from."""

_PACKAGES = "libusb-1.0-0 libgl1 libegl1 libgomp1 libx11-6 libvulkan1 mesa-vulkan-drivers"
_MANY = 6_000  # more points than this are drawn as squares of some pixels, not as balls


def import_open3d() -> Any:
    """Import open3d, or say in one line what is missing for it to draw.

    Raises:
        MissingExtraError: the package is not installed.
        DisplayError: a system library that it needs is not, or there is no Vulkan driver.
    """
    try:
        with held_back():
            import open3d
            from open3d.visualization import gui, rendering  # noqa: F401, the parts that need the libraries
    except ModuleNotFoundError as error:
        raise MissingExtraError("drawing in 3D", "view", error.name or "open3d") from None
    except (ImportError, OSError) as error:
        library = str(error).split(":")[0]
        hint = f"; on Debian: apt-get install {_PACKAGES}" if sys.platform.startswith("linux") else ""
        raise DisplayError(f"open3d cannot load {library}{hint}. A page needs none of it: --html") from None
    _need_vulkan()
    open3d.utility.set_verbosity_level(open3d.utility.VerbosityLevel.Error)
    return open3d


class _InstanceInfo(ctypes.Structure):
    """VkInstanceCreateInfo, from the Vulkan specification."""

    _fields_ = (
        ("sType", ctypes.c_uint32),
        ("pNext", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("pApplicationInfo", ctypes.c_void_p),
        ("enabledLayerCount", ctypes.c_uint32),
        ("ppEnabledLayerNames", ctypes.c_void_p),
        ("enabledExtensionCount", ctypes.c_uint32),
        ("ppEnabledExtensionNames", ctypes.c_void_p),
    )


def _need_vulkan() -> None:
    """Check that there is a Vulkan driver, without which open3d would end the process on Linux."""
    if not sys.platform.startswith("linux"):
        return
    hint = "on Debian: apt-get install libvulkan1 mesa-vulkan-drivers. A page needs none of it: --html"
    try:
        vulkan = ctypes.CDLL("libvulkan.so.1")
    except OSError:
        raise DisplayError(f"open3d needs the library libvulkan.so.1; {hint}") from None
    with _instance(vulkan) as instance:
        if not instance:
            raise DisplayError(f"open3d needs a Vulkan driver, and there is none; {hint}")


@contextmanager
def _instance(vulkan: Any) -> Iterator[ctypes.c_void_p]:
    """A Vulkan instance, null where there is no driver."""
    instance = ctypes.c_void_p()
    vulkan.vkCreateInstance(ctypes.byref(_InstanceInfo(sType=1)), None, ctypes.byref(instance))
    try:
        yield instance
    finally:
        if instance:
            vulkan.vkDestroyInstance(instance, None)


def draws_on_cpu() -> bool:
    """Whether every Vulkan device is a processor that plays graphics card; every pixel is then dear."""
    if not sys.platform.startswith("linux"):
        return False
    vulkan = ctypes.CDLL("libvulkan.so.1")
    kinds = set()
    with _instance(vulkan) as instance:
        count = ctypes.c_uint32()
        vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
        devices = (ctypes.c_void_p * count.value)()
        vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), devices)
        for device in devices:
            # VkPhysicalDeviceProperties is 824 bytes; deviceType is its fifth 32-bit field, and 4 says a CPU.
            properties = (ctypes.c_uint32 * 512)()
            vulkan.vkGetPhysicalDeviceProperties(ctypes.c_void_p(device), properties)
            kinds.add(properties[4])
    return kinds == {4}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the renderer's remarks on its drivers, written by compiled code, off standard output and error."""
    _flush()
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        _flush()  # remarks that wait in the C library's buffer would come out later
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform != "win32":
        ctypes.CDLL(None).fflush(None)


def offsets(panels: list[Panel]) -> list[np.ndarray]:
    """(3,) shift of every panel: side by side, the middle one in the middle."""
    middle = (len(panels) - 1) / 2
    return [np.array([SPACING * (number - middle), 0.0, 0.0]) for number in range(len(panels))]


def eye_to_fit(points: np.ndarray, middle: np.ndarray, direction: np.ndarray, angle: float, aspect: float) -> np.ndarray:
    """The nearest place to see all points from.

    Args:
        points: (N, 3).
        middle: (3,) what is looked at.
        direction: (3,) from there to the eye; not straight up.
        angle: of the view, from top to bottom, in radians.
        aspect: its width by its height.
    """
    toward = direction / np.linalg.norm(direction)
    right = np.cross([0.0, 0.0, 1.0], toward)
    right /= np.linalg.norm(right)
    tall = 0.88 * np.tan(angle / 2)  # with a margin, for balls
    away = points - middle
    beside = np.maximum(np.abs(away @ right) / (tall * aspect), np.abs(away @ np.cross(toward, right)) / tall)
    return middle + toward * (away @ toward + beside).max()


def drawn_points(open3d: Any, points: np.ndarray, colours: np.ndarray, radius: float) -> Any:
    """Points as open3d geometry: little balls, or a point cloud where they are many."""
    if len(points) > _MANY:
        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points.astype(np.float64)))
        cloud.colors = open3d.utility.Vector3dVector(colours.astype(np.float64))
        return cloud
    return balls(open3d, points, colours, radius)


def balls(open3d: Any, points: np.ndarray, colours: np.ndarray, radius: float, fine: bool = False) -> Any:
    """Points as one mesh of shaded balls, their light painted on, so that colours come out as they were chosen.

    Args:
        open3d: the module.
        points: (N, 3).
        colours: (N, 3) in [0, 1].
        radius: of each ball.
        fine: round balls, for a few large ones.
    """
    sphere, triangles = _sphere(2 if fine else 1)
    light = 0.74 + 0.26 * (sphere @ LIGHT).clip(-0.6, 1)
    vertices = (points[:, None] + radius * sphere).reshape(-1, 3)
    painted = (colours[:, None] * light[:, None]).reshape(-1, 3)
    faces = (triangles + len(sphere) * np.arange(len(points))[:, None, None]).reshape(-1, 3)
    return triangle_mesh(open3d, vertices, faces, painted, np.tile(sphere, (len(points), 1)))


def centroid_radius(count: int) -> float:
    """Radius of the balls that stand for so many centroids: larger where there are fewer."""
    return 0.13 / count**0.3


def painted_surface(open3d: Any, vertices: np.ndarray, faces: np.ndarray) -> Any:
    """A mesh with flat, painted shading that is the same whichever way its faces are wound."""
    corners = vertices[faces].astype(np.float64)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-12)
    shade = (0.5 + 0.42 * np.abs(normal @ LIGHT))[:, None] * np.array([0.93, 0.95, 1.0])
    both = np.concatenate([corners, corners[:, ::-1]]).reshape(-1, 3)
    order = np.arange(len(both)).reshape(-1, 3)
    shades, normals = (np.tile(np.repeat(values, 3, axis=0), (2, 1)) for values in (shade, normal))
    return triangle_mesh(open3d, both, order, shades, normals)


def triangle_mesh(open3d: Any, vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray, normals: np.ndarray) -> Any:
    """A mesh as an open3d tensor geometry.

    The older geometry, and a mesh without normals, take a software renderer minutes for some thousand triangles.
    """
    mesh = open3d.t.geometry.TriangleMesh()
    mesh.vertex.positions = open3d.core.Tensor(np.ascontiguousarray(vertices, dtype=np.float32))
    mesh.vertex.colors = open3d.core.Tensor(np.ascontiguousarray(colours, dtype=np.float32))
    mesh.vertex.normals = open3d.core.Tensor(np.ascontiguousarray(normals, dtype=np.float32))
    mesh.triangle.indices = open3d.core.Tensor(np.ascontiguousarray(faces, dtype=np.int32))
    return mesh


def unlit(open3d: Any, pixels: float = 3.0) -> Any:
    """The material of what carries its own colours; points are squares of so many pixels."""
    material = open3d.visualization.rendering.MaterialRecord()
    material.shader = "defaultUnlit"
    material.point_size = pixels
    return material


@cache
def _sphere(divisions: int) -> tuple[np.ndarray, np.ndarray]:
    """A unit ball by dividing an icosahedron: (V, 3) vertices, (F, 3) triangles."""
    with held_back():
        import trimesh

    sphere = trimesh.creation.icosphere(subdivisions=divisions)
    return np.asarray(sphere.vertices), np.asarray(sphere.faces)
