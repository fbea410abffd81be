"""Colours for a hierarchy of centroids, perceptually even.

Colours are made in OKLab (B. Ottosson, "A perceptual color space for image processing", 2020), where equal distances look
equally different. Every centroid of the last stage gets a tint of its own, chosen so that neighbours differ; a centroid of
an earlier stage is a shade of the tint that it ends in, so that a part keeps its hue down the hierarchy. What is chosen
depends on where centroids stand, not on how they are numbered.
"""

from __future__ import annotations

import numpy as np

UNASSIGNED = np.array([0.80, 0.80, 0.80])
"""Of points that go to no centroid."""

UNLIT = np.array([0.86, 0.86, 0.88])
"""Of points that a picked centroid does not attend to."""

_LIGHTNESS = (0.62, 0.80)  # alternate, so that neighbouring hues differ in lightness too
_CHROMA = 0.13
_SHADE = 0.11  # how far a child's lightness may lie from its parent's
_FAR = 2.0  # how much more alike tints may be at a distance of 1, the radius of a cloud


def oklch_to_rgb(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    """Convert OKLCH to sRGB, clipped to what a screen can show.

    Args:
        lightness: (...) in [0, 1].
        chroma: (...) in [0, 0.4].
        hue: (...) in radians.

    Returns:
        (..., 3) in [0, 1].
    """
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        axis=-1,
    ).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def wheel(count: int, turned: bool = False) -> np.ndarray:
    """(count, 2) tints, all different: lightness, and hue in radians; `turned`, they lie between the others."""
    return np.stack([np.resize(_LIGHTNESS, count), 2 * np.pi * (np.arange(count) + turned / 2) / max(count, 1)], axis=1)


def spread(places: np.ndarray, tints: np.ndarray, given: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Give every place a tint of its own, greedily: the free one least like those of other places, near ones above all.

    Args:
        places: (M, 3).
        tints: (T, 2), see `wheel`.
        given: (M,) int64 rows of `tints` that places have already, -1 for those that have none.
        free: int64 rows of `tints` to choose from, one at least for each place that has none.

    Returns:
        (M,) int64 rows of `tints`.
    """
    oklab = np.stack([tints[:, 0], _CHROMA * np.cos(tints[:, 1]), _CHROMA * np.sin(tints[:, 1])], axis=1)
    likeness = np.linalg.norm(oklab[:, None] - oklab[None], axis=2)
    chosen, left = given.copy(), free.tolist()
    for place in np.lexsort(places.T):  # an order that no numbering changes
        if chosen[place] >= 0:
            continue
        others = np.flatnonzero(chosen >= 0)
        apart = 1 + _FAR * np.linalg.norm(places[others] - places[place], axis=1)
        score = [(likeness[tint, chosen[others]] * apart).min(initial=np.inf) for tint in left]
        chosen[place] = left.pop(int(np.argmax(score)))
    return chosen


def hierarchy_colours(
    places: list[np.ndarray], sizes: list[np.ndarray], assignments: list[np.ndarray], tints: np.ndarray
) -> list[np.ndarray]:
    """Colour the centroids of every stage.

    Args:
        places: for each stage, (M_s, 3) where its centroids stand, finest first.
        sizes: for each stage, (M_s,) how many points are mostly theirs.
        assignments: for each stage, (M_{s-1}, M_s) shares of its inputs; that of the first stage is not used.
        tints: (M, 2) of the centroids of the last stage, see `wheel`.

    Returns:
        For each stage, (M_s, 3) sRGB colours in [0, 1].
    """
    lights, hues = [tints[:, 0]], [tints[:, 1]]
    for stage in range(len(places) - 1, 0, -1):
        parent = _parents(places[stage - 1], places[stage], assignments[stage])
        light = lights[0][parent]
        for number in np.unique(parent):
            children = np.flatnonzero(parent == number)
            # Neighbouring children alternate: ordered along their longest direction, then dealt out dark, light, dark ...
            # Of two that are as far along, coordinates and sizes decide: not rounding, nor how centroids are numbered.
            where, size = places[stage - 1][children], sizes[stage - 1][children]
            ordered = children[np.lexsort((-size, *where.T, _along(where).round(4)))]
            steps = np.linspace(-1, 1, len(children)) if len(children) > 1 else np.zeros(1)
            light[ordered] += _SHADE * np.concatenate([steps[0::2], steps[1::2]]) / (1 if stage == len(places) - 1 else 2)
        hues.insert(0, hues[0][parent])
        lights.insert(0, light)
    return [
        oklch_to_rgb(light.clip(0.35, 0.92), np.full(len(light), _CHROMA), hue)
        for light, hue in zip(lights, hues, strict=True)
    ]


def height_colours(points: np.ndarray) -> np.ndarray:
    """(N, 3) points -> (N, 3) colours by height: one hue, dark at the bottom."""
    height = points[:, 2] - points[:, 2].min()
    height = height / (height.max() or 1.0)
    return oklch_to_rgb(0.45 + 0.4 * height, np.full(len(points), 0.09), np.full(len(points), 4.4))


def soft_colours(weights: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Light up what a centroid attends to.

    Args:
        weights: (N,) shares in [0, 1].
        colour: (3,) of the centroid.

    Returns:
        (N, 3), from `UNLIT` at no share to `colour` at the largest one there is.
    """
    strength = (weights / (weights.max() or 1.0))[:, None] ** 0.5  # the eye sees small shares too
    return UNLIT + strength * (colour - UNLIT)


def _parents(places: np.ndarray, later: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(M,) which of the later centroids each one ends in: that of most of it, or the nearest where none takes anything."""
    nearest = np.linalg.norm(places[:, None] - later[None], axis=2).argmin(axis=1)
    return np.where(shares.any(axis=1), shares.argmax(axis=1), nearest)


def _along(points: np.ndarray) -> np.ndarray:
    """Coordinates of points along the direction in which they spread most, upward where it is not level."""
    centred = points - points.mean(axis=0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    return centred @ direction * np.sign(direction[np.abs(direction).round(4).argmax()])
