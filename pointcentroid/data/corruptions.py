"""Damage that scanners and people do to clouds, at five severities, computed on the fly: how robust is a net?

The kinds follow those of ModelNet40-C (Sun et al., "Benchmarking robustness of 3D point cloud recognition against common
corruptions", 2022); the code and the strengths are our own, so figures are not comparable with published ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SEVERITIES = (1, 2, 3, 4, 5)

Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
"""(N, 3) cloud of radius 1, severity 1..5, randomness -> (N', 3), N' the same for all clouds of N points."""


def corrupt(clouds: np.ndarray, name: str, severity: int) -> np.ndarray:
    """Damage clouds, the same way at every call.

    Args:
        clouds: (S, N, 3), radius 1, z up.
        name: a key of `CORRUPTIONS`.
        severity: 1..5.

    Returns:
        (S, N', 3) float32.

    Raises:
        ValueError: the name or the severity is unknown.
    """
    if name not in CORRUPTIONS or severity not in SEVERITIES:
        raise ValueError(f"no corruption {name!r} of severity {severity}; known: {', '.join(CORRUPTIONS)}, 1 to 5")
    kind = list(CORRUPTIONS).index(name)
    damaged = [
        CORRUPTIONS[name](cloud.astype(np.float64), severity, np.random.default_rng((kind, severity, number)))
        for number, cloud in enumerate(clouds)
    ]
    return np.stack(damaged).astype(np.float32)


def _jitter(cloud: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Noise on every coordinate."""
    return cloud + rng.normal(scale=0.01 * severity, size=cloud.shape)


def _impulse(cloud: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A share of the points is thrown off by a large, fixed amount along each axis."""
    count = len(cloud) * severity // 40
    cloud = cloud.copy()
    chosen = rng.choice(len(cloud), count, replace=False)
    cloud[chosen] += rng.choice([-0.15, 0.15], size=(count, 3))
    return cloud


def _background(cloud: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Points strewn over the box around the shape."""
    extra = rng.uniform(cloud.min(axis=0), cloud.max(axis=0), size=(len(cloud) * severity // 50, 3))
    return np.concatenate([cloud, extra])


def _density_up(cloud: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Some neighbourhoods get twice their points, at the cost of all others."""
    near = _neighbourhoods(cloud, severity, len(cloud) // 10, rng)
    extra = cloud[near] + rng.normal(scale=0.005, size=(len(near), 3))
    kept = rng.choice(len(cloud), len(cloud) - len(extra), replace=False)
    return np.concatenate([cloud[np.sort(kept)], extra])


def _density_down(cloud: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Some neighbourhoods lose three quarters of their points."""
    return _without(cloud, severity, len(cloud) // 10, 0.75, rng)


def _cutout(cloud: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Some neighbourhoods lose all their points."""
    return _without(cloud, severity, len(cloud) // 16, 1.0, rng)


def _occlusion(cloud: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """The farther part of the points, seen from a random side, is out of sight: more of it each time."""
    depth = cloud @ _view(rng)
    return cloud[np.sort(np.argsort(depth)[len(cloud) * severity // 10 :])]


def _lidar(cloud: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Points lie on rings of equal height, fewer each time, and more of the far side is out of sight."""
    visible = cloud[np.sort(np.argsort(cloud @ _view(rng))[len(cloud) * severity // 16 :])]
    rings = 40 - 6 * severity
    low, high = visible[:, 2].min(), visible[:, 2].max()
    step = max(high - low, 1e-9) / rings
    ringed = visible.copy()
    ringed[:, 2] = low + (np.floor((visible[:, 2] - low) / step).clip(0, rings - 1) + 0.5) * step
    return ringed


def _shear(cloud: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Horizontal axes lean."""
    matrix = np.eye(3)
    matrix[0, 1:], matrix[1, [0, 2]] = (rng.choice([-1, 1], 2) * 0.1 * severity for _ in range(2))
    return cloud @ matrix.T


def _rotation(cloud: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A turn about a random axis by 4 to 6 degrees times the severity."""
    axis = rng.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = np.radians(rng.uniform(4, 6) * severity)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues' formula
    return cloud @ turn.T


def _free_form(cloud: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A lattice of 5 x 5 x 5 control points is shaken, the space between follows (Sederberg and Parry, 1986)."""
    low, high = cloud.min(axis=0), cloud.max(axis=0)
    place = (cloud - low) / np.maximum(high - low, 1e-9)
    shifts = rng.uniform(-1, 1, size=(5, 5, 5, 3)) * 0.12 * severity
    weights = [np.array([1, 4, 6, 4, 1]) * t**k * (1 - t) ** (4 - k) for t in place.T[:, :, None] for k in [np.arange(5)]]
    return cloud + np.einsum("ni,nj,nk,ijkc->nc", *weights, shifts, optimize=True)


def _radial(cloud: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Bumps: shifts at random places, fading as a Gaussian."""
    centres = rng.uniform(-1, 1, size=(10, 3))
    shifts = rng.normal(size=(10, 3)) * 0.05 * severity
    squared = ((cloud[:, None] - centres) ** 2).sum(axis=2)
    return cloud + np.exp(-squared / (2 * 0.4**2)) @ shifts


def _neighbourhoods(cloud: np.ndarray, count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of `count` neighbourhoods of `size` points each that do not overlap."""
    free = np.ones(len(cloud), dtype=bool)
    chosen = []
    for _ in range(count):
        centre = cloud[rng.choice(np.flatnonzero(free))]
        away = np.where(free, ((cloud - centre) ** 2).sum(axis=1), np.inf)
        near = np.argsort(away, kind="stable")[:size]
        free[near] = False
        chosen.append(near)
    return np.concatenate(chosen)


def _without(cloud: np.ndarray, count: int, size: int, share: float, rng: np.random.Generator) -> np.ndarray:
    near = rng.permutation(_neighbourhoods(cloud, count, size, rng))
    return np.delete(cloud, near[: round(share * len(near))], axis=0)


DIRECTIONS = tuple((30.0 * number, (0.0, 30.0)[number % 2]) for number in range(12))
"""Azimuth and elevation, in degrees, of the twelve sides that `seen_from` is measured from."""

_REACH, _DEEPER = 0.08, 0.2


def seen_from(cloud: np.ndarray, azimuth: float, elevation: float) -> np.ndarray:
    """What a sensor far away sees of a cloud: points behind others are gone.

    A point is hidden where another one lies nearer to the eye, by more than 0.2, within 0.08 of its line of sight: about the
    distance of neighbours among a thousand points, so that few of the far side are seen between those of the near one.

    Args:
        cloud: (N, 3), radius 1, z up.
        azimuth: of the eye, in degrees.
        elevation: of the eye, in degrees.

    Returns:
        (N', 3), N' <= N.
    """
    eye = _towards(np.radians(azimuth), np.radians(elevation))
    right = np.cross([0.0, 0.0, 1.0], eye)
    right /= np.linalg.norm(right)
    seen = cloud @ np.stack([right, np.cross(eye, right), eye], axis=1)
    order = np.argsort(seen[:, 0], kind="stable")
    u, v, depth = seen[order].T
    hidden = np.zeros(len(cloud), dtype=bool)
    for step in range(1, len(cloud)):  # to the right, until no pair is near enough
        across = u[step:] - u[:-step]
        if across.min() >= _REACH:
            break
        near = across**2 + (v[step:] - v[:-step]) ** 2 < _REACH**2
        deeper = depth[step:] - depth[:-step]
        hidden[:-step] |= near & (deeper > _DEEPER)
        hidden[step:] |= near & (-deeper > _DEEPER)
    return cloud[np.sort(order[~hidden])]


def _view(rng: np.random.Generator) -> np.ndarray:
    """Where one looks from: any side, up to 45 degrees above."""
    return _towards(rng.uniform(0, 2 * np.pi), rng.uniform(0, np.pi / 4))


def _towards(azimuth: float, elevation: float) -> np.ndarray:
    return np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])


CORRUPTIONS: dict[str, Corruption] = {
    "jitter": _jitter,
    "impulse": _impulse,
    "background": _background,
    "density up": _density_up,
    "density down": _density_down,
    "cutout": _cutout,
    "occlusion": _occlusion,
    "lidar": _lidar,
    "shear": _shear,
    "rotation": _rotation,
    "free-form distortion": _free_form,
    "radial distortion": _radial,
}
"""To add one, write a function of that shape and name it here, last: a corruption's place seeds its randomness."""
