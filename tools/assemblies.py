"""Random assemblies of solids, to learn from what a part is: things of no class, which know their parts.

A body, and on it more solids: alone, in mirrored pairs, under four corners, around an axis or in rows; each copy is a part,
or all copies together are. What is learnt from them holds for shapes that no generator of ours knows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trimesh
from shapes import Mesh, block, hull
from trimesh.creation import annulus, capsule, cone, cylinder, icosphere, torus

_TURN_X = trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0))
_TURN_Y = trimesh.transformations.rotation_matrix(np.pi / 2, (0, 1, 0))
_TURNS = (np.eye(4), _TURN_X, _TURN_Y)


def assembly(rng: np.random.Generator) -> list[list[Mesh]]:
    """Make one.

    Args:
        rng: source of randomness.

    Returns:
        Its parts, each a list of closed solids, z up: 2 or more.
    """
    body = _solid(rng, np.exp(rng.uniform(-1.4, 0.0, 3)))
    parts = [[body]]
    wanted = int(rng.integers(2, 11))
    hosts = [body]
    while len(parts) < wanted:
        host = hosts[0] if rng.random() < 0.6 else hosts[int(rng.integers(len(hosts)))]
        copies = _attached(rng, host)
        hosts.append(copies[0])
        if len(copies) > 1 and rng.random() < 0.3:
            parts.append(copies)
        else:
            parts += [[copy] for copy in copies]
    return parts


def _attached(rng: np.random.Generator, host: Mesh) -> list[Mesh]:
    """One solid on a host's surface, or several that stand in some order."""
    size = host.extents * np.exp(rng.uniform(np.log(0.12), np.log(1.1), 3))
    if rng.random() < 0.4:  # thin ones: legs, boards, wings
        size[rng.integers(3)] *= rng.uniform(0.1, 0.35)
    if rng.random() < 0.3:
        size[rng.integers(3)] *= rng.uniform(1.5, 4.0)
    size = np.maximum(size, 0.03)
    where, normal = _place(rng, host)
    made = _solid(rng, size)
    if rng.random() < 0.2:
        axis = rng.normal(size=3)
        made.apply_transform(trimesh.transformations.rotation_matrix(rng.uniform(-0.6, 0.6), axis))
    depth = np.abs(normal) @ made.extents / 2
    made.apply_translation(where + normal * depth * rng.uniform(0.5, 1.0) - made.bounds.mean(axis=0))
    centre = host.bounds.mean(axis=0)
    return _ORDERS[int(rng.integers(len(_ORDERS)))](rng, made, centre)


def _place(rng: np.random.Generator, host: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """A point of a surface, or the middle of a side, with the axis that points outwards there."""
    axis, sign = int(rng.integers(3)), rng.choice([-1.0, 1.0])
    normal = np.zeros(3)
    normal[axis] = sign
    low, high = host.bounds
    spread = 0.0 if rng.random() < 0.35 else 0.9
    where = (low + high) / 2 + spread * (high - low) / 2 * rng.uniform(-1, 1, 3)
    where[axis] = high[axis] if sign > 0 else low[axis]
    return where, normal


def _alone(rng: np.random.Generator, made: Mesh, centre: np.ndarray) -> list[Mesh]:  # noqa: ARG001
    return [made]


def _pair(rng: np.random.Generator, made: Mesh, centre: np.ndarray) -> list[Mesh]:
    return _mirrored(made, centre, [int(rng.integers(2))])


def _corners(rng: np.random.Generator, made: Mesh, centre: np.ndarray) -> list[Mesh]:  # noqa: ARG001
    return _mirrored(made, centre, [0, 1])


def _mirrored(made: Mesh, centre: np.ndarray, axes: list[int]) -> list[Mesh]:
    """The solid and its images in planes through a centre; alone where an image would cover it."""
    copies = [made]
    for axis in axes:
        if abs(made.bounds.mean(axis=0)[axis] - centre[axis]) < 0.45 * made.extents[axis]:
            continue
        for copy in list(copies):
            image = copy.copy()
            image.vertices[:, axis] = 2 * centre[axis] - image.vertices[:, axis]
            image.invert()
            copies.append(image)
    return copies


def _around(rng: np.random.Generator, made: Mesh, centre: np.ndarray) -> list[Mesh]:
    count = int(rng.integers(3, 7))
    away = np.linalg.norm((made.bounds.mean(axis=0) - centre)[:2])
    if 2 * np.pi * away / count < 1.1 * made.extents[:2].max():
        return [made]
    turn = 2 * np.pi / count
    return [
        made.copy().apply_transform(trimesh.transformations.rotation_matrix(k * turn, (0, 0, 1), centre))
        for k in range(count)
    ]


def _row(rng: np.random.Generator, made: Mesh, centre: np.ndarray) -> list[Mesh]:  # noqa: ARG001
    axis = int(rng.integers(3))
    step = np.zeros(3)
    step[axis] = made.extents[axis] * rng.uniform(1.1, 2.0)
    return [made.copy().apply_translation(k * step) for k in range(int(rng.integers(2, 5)))]


_ORDERS = (_alone, _alone, _alone, _pair, _pair, _pair, _corners, _corners, _around, _row)


def _solid(rng: np.random.Generator, size: np.ndarray) -> Mesh:
    """A solid of one of several kinds, lying any of three ways, stretched to a size around the origin."""
    made = _KINDS[int(rng.integers(len(_KINDS)))](rng)
    made.apply_transform(_TURNS[int(rng.integers(3))])
    made.apply_translation(-made.bounds.mean(axis=0))
    made.apply_scale(size / made.extents)
    return made


def _box(rng: np.random.Generator) -> Mesh:  # noqa: ARG001
    return block((1, 1, 1), (0, 0, 0))


def _disc(rng: np.random.Generator) -> Mesh:  # noqa: ARG001
    return cylinder(0.5, 1.0, sections=32)


def _tapered(rng: np.random.Generator) -> Mesh:
    """A box with a smaller or shifted upper side."""
    shrink, shift = rng.uniform(0.2, 1.0, 2), rng.uniform(-0.5, 0.5, 2)
    low = [(x, y, 0.0) for x in (-0.5, 0.5) for y in (-0.5, 0.5)]
    return hull([*low, *((shrink[0] * x + shift[0], shrink[1] * y + shift[1], 1.0) for x, y, _ in low)])


def _turned(rng: np.random.Generator) -> Mesh:
    """A surface of revolution with a smooth or stepped outline."""
    steps = int(rng.integers(2, 7))
    radii = rng.uniform(0.25, 1.0, steps)
    heights = np.sort(rng.uniform(0, 1, steps))
    heights[0], heights[-1] = 0, 1
    outline = [(0.0, 0.0), *zip(radii, heights, strict=True), (0.0, 1.0)]
    return trimesh.creation.revolve(np.array(outline), sections=24)


def _ball(rng: np.random.Generator) -> Mesh:  # noqa: ARG001
    return icosphere(subdivisions=2)


def _pill(rng: np.random.Generator) -> Mesh:
    return capsule(height=rng.uniform(0.5, 4.0), radius=0.5, count=(12, 12))


def _tip(rng: np.random.Generator) -> Mesh:  # noqa: ARG001
    return cone(0.5, 1.0, sections=24)


def _ring(rng: np.random.Generator) -> Mesh:
    if rng.random() < 0.5:
        return torus(1.0, rng.uniform(0.1, 0.4), major_sections=24, minor_sections=10)
    return annulus(rng.uniform(0.3, 0.95), 1.0, rng.uniform(0.2, 2.0), sections=24)


_KINDS: tuple[Callable[[np.random.Generator], Mesh], ...] = (
    _box, _box, _box, _box, _disc, _disc, _disc, _tapered, _tapered, _turned, _ball, _pill, _tip, _ring,
)  # fmt: skip
