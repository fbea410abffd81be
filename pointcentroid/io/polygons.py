"""Polygons and strips as triangles."""

from __future__ import annotations

import itertools

import numpy as np

_MOST_STEPS = 20_000_000  # of cutting polygons at their ears, some seconds; what is left over then stays in fans
_MOST_FANS = 16  # corners of polygons around all of which fans are tried, of many polygons at once
_TRIED = 50  # steps that it costs to see whether a corner is an ear, beside one for each that is left


def triangles(vertices: np.ndarray, corners: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut polygons into triangles: into fans around their first corners, or another one where that would reach outside, and
    at their ears where no fan fits.

    Args:
        vertices: (V, 3), of which all corners are.
        corners: (C,) int64, polygon after polygon.
        sizes: (P,) int64 how many corners each has; those of fewer than three have no triangles.

    Returns:
        (F, 3) corners of triangles, and (F,) the polygon of each, in their order.
    """
    extra = np.maximum(sizes - 2, 0)
    starts, places = sizes.cumsum() - sizes, extra.cumsum() - extra
    first = np.repeat(starts, extra)
    step = np.arange(extra.sum()) - np.repeat(places, extra) + 1
    made = np.stack([corners[first], corners[first + step], corners[first + step + 1]], axis=1)
    of = np.repeat(np.arange(len(sizes)), extra)
    steps, bent = _MOST_STEPS, _bent_inwards(vertices, made, of, sizes)
    for size in np.unique(sizes[bent]):
        alike = bent[sizes[bent] == size]
        if size <= _MOST_FANS:
            rings, rows = starts[alike, None] + np.arange(size), places[alike, None] + np.arange(size - 2)
            fanned, made[rows] = _fans(vertices, corners[rings], made[rows])
            bent = np.setdiff1d(bent, alike[fanned])
    for polygon in bent:
        own = corners[starts[polygon] : starts[polygon] + sizes[polygon]]
        here = slice(places[polygon], places[polygon] + extra[polygon])
        ears, steps = _ears(vertices[own], steps)
        # Of a polygon that lies in no plane, either may be what is meant; the smaller surface is the likelier.
        if ears is not None and _area(vertices[own[ears]]) < _area(vertices[made[here]]):
            made[here] = own[ears]
    return made, of


def strips(corners: np.ndarray) -> np.ndarray:
    """The triangles of strips: each corner makes one with the two before it, and every second one goes round the other way.

    Args:
        corners: (C,) whole numbers. One of -1 ends a strip.

    Returns:
        (F, 3) corners of triangles.
    """
    made = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    ended = np.maximum.accumulate(np.where(corners == -1, np.arange(len(corners)), -1))[: len(made)]
    second = (np.arange(len(made)) - ended) % 2 == 0
    made[second] = made[second, ::-1]
    return made[(made != -1).all(axis=1)]


def _bent_inwards(vertices: np.ndarray, made: np.ndarray, of: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Those polygons of which a triangle of the fan faces the other way than all of it."""
    several = sizes[of] > 3
    if not several.any():
        return np.zeros(0, dtype=np.int64)
    rows = np.flatnonzero(several)
    normals = _normals(vertices[made[rows]])
    whole = np.stack([np.bincount(of[rows], normals[:, axis], minlength=len(sizes)) for axis in range(3)], axis=1)
    against = (normals * whole[of[rows]]).sum(axis=1) < -1e-9 * (whole**2).sum(axis=1)[of[rows]]
    return np.unique(of[rows][against])


def _fans(vertices: np.ndarray, rings: np.ndarray, made: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut polygons of one size into fans around the first corner from which all of it can be seen.

    Args:
        vertices: (V, 3).
        rings: (P, n) their corners.
        made: (P, n - 2, 3) corners of the triangles that they are cut into so far.

    Returns:
        (P,) which are cut now, and (P, n - 2, 3) the triangles of all; of those that lie in no plane, whichever are smaller.
    """
    before, made, cut = _area(vertices[made]), made.copy(), np.zeros(len(rings), dtype=bool)
    for corner in range(1, rings.shape[1]):
        turned = np.roll(rings, -corner, axis=1)
        fan = np.stack([np.broadcast_to(turned[:, :1], made.shape[:2]), turned[:, 1:-1], turned[:, 2:]], axis=2)
        normals = _normals(vertices[fan])
        whole = normals.sum(axis=1, keepdims=True)
        fits = ((normals * whole).sum(axis=2) >= -1e-9 * (whole**2).sum(axis=2)).all(axis=1) & ~cut
        smaller = fits & (_area(vertices[fan]) < before)
        made[smaller] = fan[smaller]
        cut |= fits
    return cut, made


def _ears(ring: np.ndarray, steps: int = _MOST_STEPS) -> tuple[np.ndarray | None, int]:
    """Cut a polygon by taking one ear after the other (G. H. Meisters, "Polygons have ears", 1975).

    Args:
        ring: (n, 3) its corners, about in a plane.
        steps: how much work it may be.

    Returns:
        (n - 2, 3) numbers of corners; None where it crosses itself, or that is not enough. And how many steps are left.
    """
    ring = ring - ring[0]
    normal = np.cross(ring, np.roll(ring, -1, axis=0)).sum(axis=0)
    axis = int(np.abs(normal).argmax())
    flat = np.delete(ring, axis, axis=1) * ((1, 1) if (normal[axis] > 0) == (axis != 1) else (-1, 1))
    little = -1e-9 * abs(normal[axis])
    left, found = list(range(len(ring))), []

    def dent(place: int) -> bool:
        """Whether the outline turns outwards there, so that it is no ear."""
        return bool(_turn(flat[left[place - 1]], flat[left[place]], flat[left[(place + 1) % len(left)]]) < 0)

    dents = list(map(dent, left))
    while len(left) > 3:
        for place, corner in enumerate(left):
            steps -= 1
            if dents[corner]:
                continue
            before, after = left[place - 1], left[(place + 1) % len(left)]
            a, b, c = flat[before], flat[corner], flat[after]
            steps -= _TRIED + len(left)
            if steps < 0:
                return None, 0
            others = flat[[one for one in left if one not in (before, corner, after)]]
            inside = np.logical_and.reduce([_turn(p, q, others) >= little for p, q in itertools.pairwise((a, b, c, a))])
            if all((other == (a, b, c)).all(axis=1).any() for other in others[inside]):  # a hole may touch, by a seam
                break
        else:
            return None, steps
        found.append((before, corner, after))
        del left[place]
        for beside in (place - 1, place % len(left)):  # their neighbours are others now
            dents[left[beside]] = dent(beside)
    return np.array([*found, left]), steps


def _area(corners: np.ndarray) -> np.ndarray:
    """(...) twice that of (..., F, 3, 3) triangles together."""
    return np.linalg.norm(_normals(corners), axis=-1).sum(axis=-1)


def _normals(corners: np.ndarray) -> np.ndarray:
    """(..., 3) of (..., 3, 3) triangles, each twice as long as its area is large."""
    a, b, c = (corners[..., k, :] for k in range(3))
    return np.cross(b - a, c - a)


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Twice the area of triangles a, b, c in the plane; negative where they go clockwise. `c` may be many points."""
    return (b[0] - a[0]) * (c[..., 1] - a[1]) - (b[1] - a[1]) * (c[..., 0] - a[0])
