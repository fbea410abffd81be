"""Where the nodes of a glTF tree stand, and at rest the vertices of a skinned mesh, which follow some of them."""

from __future__ import annotations

import numpy as np

_BLOCK = 2**16
"""Vertices moved at once: one matrix of 96 bytes for each."""


def world_transforms(nodes: list[dict]) -> np.ndarray:
    """Where every node of a glTF tree stands.

    Args:
        nodes: of the tree.

    Returns:
        (N, 4, 4) float64, from each node's own coordinates to the world's.

    Raises:
        IndexError: a node has a child that is not there.
        ValueError: a node is below itself, or has two parents or a negative child.
    """
    parents = np.full(len(nodes), -1)
    for number, node in enumerate(nodes):
        for child in node.get("children", ()):
            if child < 0:
                raise ValueError(f"node {number} has the child {child}")
            if parents[child] != -1:
                raise ValueError(f"node {child} has two parents")
            parents[child] = number
    world = np.empty((len(nodes), 4, 4))
    below = [int(number) for number in np.flatnonzero(parents == -1)]
    reached = 0
    while below:
        number = below.pop()
        reached += 1
        own = _local_transform(nodes[number])
        world[number] = own if parents[number] == -1 else world[parents[number]] @ own
        below.extend(nodes[number].get("children", ()))
    if reached < len(nodes):
        raise ValueError("a node is below itself")
    return world


def posed(positions: np.ndarray, joints: np.ndarray, weights: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """Linear blend skinning (glTF 2.0, section 3.7.3.3).

    Args:
        positions: (V, 3) vertices as the mesh holds them.
        joints: (V, K) the bones that each follows.
        weights: (V, K) how much. They are made to sum to one; a vertex that follows none follows the first.
        bones: (J, 4, 4) from the mesh's coordinates to the world's, for a vertex that follows this bone alone.

    Returns:
        (V, 3) float64, where the vertices stand in the world.

    Raises:
        IndexError: a vertex follows a bone that is not there.
    """
    if joints.size and not 0 <= joints.min() <= joints.max() < len(bones):
        raise IndexError(f"a vertex follows bone {joints.max()} of {len(bones)}")
    weights = weights.astype(np.float64)
    weights[weights.sum(axis=1) <= 0, 0] = 1
    weights /= weights.sum(axis=1, keepdims=True)
    moved = np.zeros((len(positions), 3))
    for start in range(0, len(positions), _BLOCK):
        block = slice(start, start + _BLOCK)
        for joint, weight in zip(joints[block].T, weights[block].T, strict=True):
            matrices = bones[joint, :3]
            turned = np.einsum("vij,vj->vi", matrices[:, :, :3], positions[block])
            moved[block] += weight[:, None] * (turned + matrices[:, :, 3])
    return moved


def transforms(moves: np.ndarray | None, turns: np.ndarray | None, sizes: np.ndarray | None) -> np.ndarray:
    """Scale first, then turn, then move, as nodes of glTF do.

    Args:
        moves: (I, 3); None for none.
        turns: (I, 4) quaternions (x, y, z, w); None for none.
        sizes: (I, 3) factors; None for none. One of the three must be there.

    Returns:
        (I, 4, 4) float64.
    """
    from trimesh.transformations import quaternion_matrix

    count = next(len(given) for given in (moves, turns, sizes) if given is not None)
    made = np.tile(np.eye(4), (count, 1, 1))
    if turns is not None:
        made = quaternion_matrix(turns[:, [3, 0, 1, 2]]).reshape(-1, 4, 4)
    if sizes is not None:
        made[:, :3, :3] *= sizes[:, None]
    if moves is not None:
        made[:, :3, 3] = moves
    return made


def _local_transform(node: dict) -> np.ndarray:
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T  # the file has it column by column
    keys = {"translation": (0, 0, 0), "rotation": (0, 0, 0, 1), "scale": (1, 1, 1)}
    return transforms(*(np.array([node.get(key, default)], dtype=np.float64) for key, default in keys.items()))[0]
