"""Polygons are cut into triangles within their outline."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointcentroid.io.polygons import triangles

from ..meshes import area


@pytest.mark.parametrize("mixed", [False, True])
def test_concave_polygons_of_a_binary_ply(tmp_path: Path, mixed: bool) -> None:
    """An L, alone or beside a triangle of no area."""
    ring = np.array([(1, 1, 0), (3, 1, 0), (3, 0, 0), (0, 0, 0), (0, 3, 0), (1, 3, 0)], dtype="<f4")
    faces = [list(range(6)), *[[0, 0, 0]] * mixed]
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 6\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz")
    header += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    body = b"".join(bytes([len(face)]) + np.array(face, "<i4").tobytes() for face in faces)
    (tmp_path / "a.ply").write_bytes(header.encode() + ring.tobytes() + body)
    assert area(tmp_path / "a.ply") == pytest.approx(5)


def test_polygons_of_few_corners_are_cut_many_at_once() -> None:
    """100,000 Ls, in any plane, from any corner: as one of them is cut, and in a second, not in twenty."""
    rng = np.random.default_rng(0)
    flat = np.array([(0, 0), (3, 0), (3, 1), (1, 1), (1, 3), (0, 3)], dtype=float)
    count = 100_000
    sides = np.linalg.qr(rng.normal(size=(100, 3, 2)))[0]
    rings = np.einsum("nc,pac->pna", flat, np.tile(sides, (count // 100, 1, 1)))
    order = (np.arange(6) + rng.integers(6, size=(count, 1))) % 6
    begun = time.monotonic()
    faces, of = triangles(rings.reshape(-1, 3), (order + 6 * np.arange(count)[:, None]).ravel(), np.full(count, 6))
    assert time.monotonic() - begun < 10
    a, b, c = (rings.reshape(-1, 3)[faces[:, k]] for k in range(3))
    surfaces = np.bincount(of, np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2)
    np.testing.assert_allclose(surfaces, 5, rtol=1e-9)
    assert (faces // 6 == of[:, None]).all()


def test_cutting_polygons_has_an_end() -> None:
    """Zigzags of four thousand corners, whose ears are long looked for: they stay in fans."""
    count, copies = 4000, 10
    ring = np.stack([np.arange(count) // 2, np.where(np.arange(count) % 2, 10, 1), np.zeros(count)], axis=1)
    ring[-2:] = [(count // 2, 0, 0), (0, 0, 0)]
    ring = np.roll(ring, count // 3, axis=0)
    begun = time.monotonic()
    faces, _ = triangles(ring, np.tile(np.arange(count), copies), np.full(copies, count))
    assert len(faces) == copies * (count - 2)
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("way", [1, -1])
def test_long_outlines_are_cut_whichever_way_round(way: int) -> None:
    """A ring with a gap, of two thousand corners: half of them are dents, which cost little."""
    angle = np.linspace(0, 1.9 * np.pi, 1000)
    arc = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    ring = np.concatenate([arc, 0.7 * arc[::-1]])[::way]
    faces, _ = triangles(ring, np.arange(2000), np.array([2000]))
    a, b, c = (ring[faces[:, k]] for k in range(3))
    x, y, _ = ring.T
    outline = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())
    assert np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() == pytest.approx(outline, rel=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@given(st.integers(4, 24), st.integers(0, 2**32 - 1))
def test_polygons_are_cut_within_their_outline(axis: int, count: int, seed: int) -> None:
    """Those that do not cross themselves, here around a middle, from any corner and either way round: area is kept."""
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    flat = (rng.uniform(0.1, 1, count) * np.array([np.cos(angle), np.sin(angle)])).T
    ring = np.roll(np.insert(flat, axis, 0.3, axis=1), rng.integers(count), axis=0)[:: rng.choice([-1, 1])]
    x, y = flat.T
    widest = np.diff(np.append(angle, angle[0] + 2 * np.pi)).max()
    faces, of = triangles(ring, np.arange(count), np.array([count]))
    assert len(faces) == count - 2
    assert not of.any()
    a, b, c = (ring[faces[:, k]] for k in range(3))
    surface = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()
    outline = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())
    if widest < np.pi:  # else the middle is outside, and it may cross itself
        assert surface == pytest.approx(outline, rel=1e-6)
