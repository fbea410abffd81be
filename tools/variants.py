"""Random variants of parametric objects that know their parts; `make_examples.py --variants` writes them as files.

A variant is a dict from the name of a part to the closed solids it is made of, z up, facing -y. The variants of a class
differ in proportions, in which parts they have, and in how those are built; a part has the same name in all of them, and
sides are told apart: the front left leg of one chair is the front left leg of every other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import trimesh
from shapes import Mesh, block, hull, profile, rod
from trimesh.creation import capsule, cylinder

Parts = dict[str, list[Mesh]]

_SIDES = ((-1, "left"), (1, "right"))
_CORNERS = tuple((x, y, f"{end} {side}") for y, end in ((-1, "front"), (1, "back")) for x, side in _SIDES)


def variants(count: int, seed: int = 0) -> Iterator[tuple[str, int, Parts]]:
    """Make so many variants of every class.

    Args:
        count: of each class.
        seed: of the randomness. A variant depends on it, its class and its number alone.

    Yields:
        The class, the number of the variant, and its parts, in the order of `PART_NAMES`.
    """
    for kind, (name, make) in enumerate(MAKERS.items()):
        for number in range(count):
            parts = make(np.random.default_rng([seed, kind, number]))
            yield name, number, {part: parts[part] for part in PART_NAMES[name] if part in parts}


def _legs(rng: np.random.Generator, width: float, depth: float, height: float, *, round_ones: float = 0.5) -> Parts:
    """Four legs under the corners of a rectangle: square or round, upright or splayed."""
    thick = rng.uniform(0.03, 0.08)
    square = rng.random() > round_ones
    splay = 0.0 if square else rng.choice([0.0, rng.uniform(0.02, 0.12)])
    legs: Parts = {}
    for x, y, where in _CORNERS:
        at = (x * (width - thick) / 2, y * (depth - thick) / 2)
        if square:
            legs[f"leg {where}"] = [block((thick, thick, height), (*at, height / 2))]
        else:
            end = (at[0] + x * splay, at[1] + y * splay, 0.0)
            legs[f"leg {where}"] = [rod(thick / 2, end, (*at, height))]
    return legs


def _board_or_disc(rng: np.random.Generator, width: float, depth: float, thick: float, z: float, discs: float) -> Mesh:
    """A board; with a probability, a disc, stretched to the board's size."""
    if rng.random() > discs:
        return block((width, depth, thick), (0, 0, z))
    disc = cylinder(0.5, thick, sections=40)
    disc.apply_scale([width, depth, 1])
    disc.apply_translation((0, 0, z))
    return disc


def chair(rng: np.random.Generator) -> Parts:
    """Seat and back; four legs, or a stem on a foot; arms, or none."""
    width, depth, seat = rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.55), rng.uniform(0.38, 0.5)
    thick, tall = rng.uniform(0.03, 0.1), rng.uniform(0.3, 0.7)
    parts: Parts = {"seat": [_board_or_disc(rng, width, depth, thick, seat, 0.2)]}
    lean = rng.uniform(0.0, 0.12)
    y, top = depth / 2 - 0.02, seat + tall
    if rng.random() < 0.5:
        parts["back"] = [hull([(x * width / 2, y + d, seat) for x in (-1, 1) for d in (0, 0.03)]
                              + [(x * width / 2, y + lean + d, top) for x in (-1, 1) for d in (0, 0.03)])]  # fmt: skip
    else:
        posts = [rod(0.018, (x * width * 0.45, y, seat), (x * width * 0.45, y + lean, top)) for x in (-1, 1)]
        slats = [
            block((0.9 * width, 0.02, 0.05), (0, y + lean * t, seat + t * tall))
            for t in np.linspace(0.35, 0.95, rng.integers(2, 5))
        ]
        parts["back"] = [*posts, *slats]
    if rng.random() < 0.2:
        parts["stem"] = [rod(0.03, (0, 0, 0.05), (0, 0, seat))]
        angles = np.linspace(0, 2 * np.pi, 5, endpoint=False)
        reach = rng.uniform(0.22, 0.32)
        parts["foot"] = [rod(0.02, (0, 0, 0.05), (reach * np.cos(a), reach * np.sin(a), 0.03)) for a in angles]
    else:
        parts |= _legs(rng, width, depth, seat)
    if rng.random() < 0.5:
        rise, front = rng.uniform(0.15, 0.25), rng.uniform(-0.45, -0.2) * depth
        for side, name in _SIDES:
            x = side * (width / 2 + 0.01)
            rest = block((0.05, y - front, 0.03), (x, (y + front) / 2, seat + rise))
            parts[f"arm {name}"] = [rest, block((0.04, 0.04, rise), (x, front + 0.04, seat + rise / 2))]
    return parts


def stool(rng: np.random.Generator) -> Parts:
    """A seat on four legs, with a ring of rungs, or none."""
    size, height = rng.uniform(0.3, 0.45), rng.uniform(0.4, 0.8)
    parts = {"seat": [_board_or_disc(rng, size, size, rng.uniform(0.03, 0.1), height, 0.6)]}
    parts |= _legs(rng, 0.7 * size, 0.7 * size, height, round_ones=0.7)
    if rng.random() < 0.6:
        z, half = rng.uniform(0.25, 0.45) * height, 0.35 * size
        ends = [(-half, -half), (half, -half), (half, half), (-half, half)]
        parts["rungs"] = [rod(0.012, (*ends[k - 1], z), (*ends[k], z)) for k in range(4)]
    return parts


def table(rng: np.random.Generator) -> Parts:
    """A top on four legs, or on a column with a foot; a shelf below, or none."""
    width, depth, height = rng.uniform(0.8, 2.0), rng.uniform(0.6, 1.1), rng.uniform(0.4, 0.8)
    parts: Parts = {"top": [_board_or_disc(rng, width, depth, rng.uniform(0.03, 0.08), height, 0.25)]}
    if rng.random() < 0.2:
        parts["column"] = [rod(rng.uniform(0.04, 0.09), (0, 0, 0), (0, 0, height))]
        parts["foot"] = [_board_or_disc(rng, 0.5 * width, 0.5 * depth, 0.04, 0.02, 0.7)]
        return parts
    inset = rng.uniform(0.75, 0.95)
    parts |= _legs(rng, inset * width, inset * depth, height, round_ones=0.3)
    if rng.random() < 0.35:
        z = rng.uniform(0.2, 0.5) * height
        parts["shelf"] = [block((0.9 * inset * width, 0.9 * inset * depth, 0.03), (0, 0, z))]
    return parts


def desk(rng: np.random.Generator) -> Parts:
    """A top, a side panel or a cabinet with drawers on each side, a panel at the back, or none."""
    width, depth, height = rng.uniform(1.1, 1.8), rng.uniform(0.55, 0.8), rng.uniform(0.7, 0.78)
    parts: Parts = {"top": [block((width, depth, 0.04), (0, 0, height))]}
    with_drawers = rng.choice(["left", "right", "both"])
    for side, name in _SIDES:
        if with_drawers in (name, "both"):
            wide = rng.uniform(0.3, 0.45)
            x = side * (width - wide) / 2
            parts[f"cabinet {name}"] = [block((wide, 0.95 * depth, 0.9 * height), (x, 0, 0.55 * height))]
            number = int(rng.integers(2, 5))
            high = 0.8 * height / number
            levels = [0.15 * height + high * (k + 0.5) for k in range(number)]
            fronts = [block((0.85 * wide, 0.03, 0.8 * high), (x, -0.49 * depth, z)) for z in levels]
            knobs = [block((0.08, 0.03, 0.02), (x, -0.52 * depth, z)) for z in levels]
            parts[f"drawers {name}"] = [*fronts, *knobs]
        else:
            parts[f"side {name}"] = [block((0.04, 0.95 * depth, height), (side * (width / 2 - 0.04), 0, height / 2))]
    if rng.random() < 0.5:
        high = rng.uniform(0.3, 0.8) * height
        parts["back"] = [block((0.95 * width, 0.02, high), (0, 0.45 * depth, height - high / 2))]
    return parts


def lamp(rng: np.random.Generator) -> Parts:
    """Foot, pole, shade; the pole straight, or bent to an arm that holds the shade."""
    height, spread = rng.uniform(0.5, 1.8), rng.uniform(0.12, 0.3)
    foot = _board_or_disc(rng, 2 * spread, 2 * spread, rng.uniform(0.02, 0.06), 0.02, 0.7)
    radius, high = rng.uniform(0.12, 0.35), rng.uniform(0.15, 0.4)
    small = radius * rng.uniform(0.4, 1.0)
    shade = profile((radius, 0), (small, high), (0.95 * small, high), (0.95 * radius, 0), (radius, 0))
    thick = rng.uniform(0.01, 0.03)
    parts: Parts = {"foot": [foot], "pole": [rod(thick, (0, 0, 0), (0, 0, height))]}
    reach = 0.0
    if rng.random() < 0.35:
        reach = rng.uniform(0.3, 0.7)
        parts["arm"] = [rod(thick, (0, 0, height), (0, -reach, height + 0.15))]
    shade.apply_translation((0, -reach, height - 0.3 * high))
    return parts | {"shade": [shade]}


def airplane(rng: np.random.Generator) -> Parts:
    """Fuselage, wings, tail, fin; engines under the wings or at the back, or none."""
    length, radius = rng.uniform(3.5, 5.5), rng.uniform(0.2, 0.35)
    body = capsule(height=length - 2 * radius, radius=radius, count=(20, 20))
    body.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
    body.apply_translation((0, -body.bounds.mean(axis=0)[1], 0))
    nose, end = -length / 2, length / 2
    span, chord, sweep = rng.uniform(1.6, 3.0), rng.uniform(0.6, 1.2), rng.uniform(0.0, 1.2)
    at, low = rng.uniform(-0.1, 0.1) * length, rng.choice([-0.5, 0.7]) * radius
    parts: Parts = {"fuselage": [body]}
    small = rng.uniform(0.3, 0.45)
    high = rng.uniform(0.5, 1.1)
    tail_height = high if rng.random() < 0.3 else 0.0  # a T-tail, or one on the fuselage
    for side, name in _SIDES:
        parts[f"wing {name}"] = [_plate(side * span, chord, sweep, at, low, rng.uniform(0.0, 0.2))]
        back = end - 0.25 - small * chord / 2
        parts[f"tail {name}"] = [_plate(side * small * span, small * chord * 1.2, small * sweep, back, tail_height, 0.0)]
    fin = [(x, y, z) for x in (-0.03, 0.03) for y, z in ((end - 0.9, radius / 2), (end - 0.2, radius / 2))]
    parts["fin"] = [hull([*fin, *((x, y, high) for x in (-0.03, 0.03) for y in (end - 0.45, end - 0.05))])]
    mounted = rng.choice(["wings", "back", "none"], p=[0.5, 0.25, 0.25])
    long, wide = rng.uniform(0.4, 0.9), rng.uniform(0.1, 0.18)
    for side, name in _SIDES:
        if mounted == "wings":
            x, y, z = side * 0.4 * span, at + 0.4 * sweep - 0.4 * chord, low - 1.1 * wide
        else:
            x, y, z = side * (radius + wide), end - 0.35 * length, radius / 2
        if mounted != "none":
            parts[f"engine {name}"] = [rod(wide, (x, y - long / 2, z), (x, y + long / 2, z))]
    if nose + 0.1 < at - chord and rng.random() < 0.3:
        parts["propeller"] = [block((rng.uniform(0.6, 1.0), 0.04, 0.08), (0, nose - 0.02, 0))]
    return parts


def _plate(span: float, chord: float, sweep: float, at: float, z: float, rise: float) -> Mesh:
    """A thin tapered plate from the fuselage outwards, swept back and rising."""
    root = [(0.0, y, z) for y in (at - chord / 2, at + chord / 2)]
    tip = [(span, at + sweep + y, z + rise) for y in (-chord / 5, chord / 5)]
    return hull([(x, y, height + d) for x, y, height in root + tip for d in (-0.03, 0.03)])


def bed(rng: np.random.Generator) -> Parts:
    """Frame, mattress, headboard, pillows; a footboard and legs, or none."""
    width, length, low = rng.uniform(0.9, 1.9), rng.uniform(1.9, 2.2), rng.uniform(0.1, 0.3)
    deep, soft = rng.uniform(0.12, 0.3), rng.uniform(0.15, 0.3)
    parts: Parts = {
        "frame": [block((width, length, deep), (0, 0, low + deep / 2))],
        "mattress": [block((0.96 * width, 0.96 * length, soft), (0, 0, low + deep + soft / 2))],
        "headboard": [block((1.03 * width, 0.07, high := rng.uniform(0.7, 1.4)), (0, length / 2, high / 2))],
    }
    top = low + deep + soft
    places = [0.0] if width < 1.2 else [-0.24 * width, 0.24 * width]
    parts["pillows"] = [block((0.36 * width, 0.36, 0.12), (x, 0.36 * length, top + 0.05)) for x in places]
    if rng.random() < 0.5:
        parts["footboard"] = [block((1.03 * width, 0.06, high := rng.uniform(0.4, 0.8)), (0, -length / 2, high / 2))]
    return parts | _legs(rng, width, length, low) if rng.random() < 0.6 else parts


def monitor(rng: np.random.Generator) -> Parts:
    """Screen, neck, foot; a flat back or the box of a tube."""
    width, low = rng.uniform(0.4, 0.75), rng.uniform(0.1, 0.2)
    high = width * rng.uniform(0.5, 0.8)
    middle = low + high / 2
    parts: Parts = {"screen": [block((width, 0.04, high), (0, 0, middle))]}
    tube = rng.random() < 0.4
    deep = rng.uniform(0.2, 0.4) if tube else rng.uniform(0.03, 0.06)
    back = [(x * width * s / 2, y, middle + z * high * s / 2) for x in (-1, 1) for z in (-1, 1)
            for s, y in ((0.95, 0.02), (0.6, 0.02 + deep))]  # fmt: skip
    parts["housing"] = [hull(back)]
    y = 0.02 + deep / 2
    parts["neck"] = [rod(rng.uniform(0.02, 0.05), (0, y, 0.01), (0, y, middle if not tube else low + 0.2 * high))]
    parts["foot"] = [_board_or_disc(rng, rng.uniform(0.2, 0.35), rng.uniform(0.15, 0.25), 0.02, 0.01, 0.5)]
    parts["foot"][0].apply_translation((0, y, 0))
    return parts


def sofa(rng: np.random.Generator) -> Parts:
    """Base, back, arms, cushions; legs, or none."""
    width, depth, low = rng.uniform(1.2, 2.4), rng.uniform(0.75, 1.0), rng.uniform(0.05, 0.18)
    base, thick = rng.uniform(0.2, 0.3), rng.uniform(0.12, 0.25)
    top = low + base
    parts: Parts = {
        "base": [block((width, depth, base), (0, 0, low + base / 2))],
        "back": [block((width, 0.2, high := rng.uniform(0.35, 0.55)), (0, depth / 2 - 0.1, top + high / 2))],
    }
    number = int(rng.integers(1, 4))
    wide = width / number
    parts["cushions"] = [
        block((0.97 * wide, 0.78 * depth, thick), ((k + 0.5) * wide - width / 2, -0.1 * depth, top + thick / 2))
        for k in range(number)
    ]
    if rng.random() < 0.8:
        thick_arm, high = rng.uniform(0.12, 0.25), top + rng.uniform(0.2, 0.4)
        for side, name in _SIDES:
            x = side * (width + thick_arm) / 2
            parts[f"arm {name}"] = [block((thick_arm, depth, high - low), (x, 0, (high + low) / 2))]
    return parts | _legs(rng, width, depth, low) if rng.random() < 0.6 else parts


def bookshelf(rng: np.random.Generator) -> Parts:
    """Sides, top, bottom, shelves; a back, drawers at the bottom, or none."""
    width, depth, height = rng.uniform(0.6, 1.2), rng.uniform(0.25, 0.4), rng.uniform(1.0, 2.2)
    levels = np.linspace(0, height, int(rng.integers(4, 8)))[1:-1]
    parts: Parts = {
        "top": [block((width, depth, 0.03), (0, 0, height))],
        "bottom": [block((width, depth, 0.06), (0, 0, 0.03))],
        "shelves": [block((width, depth, 0.025), (0, 0, float(z))) for z in levels],
    }
    for side, name in _SIDES:
        parts[f"side {name}"] = [block((0.03, depth, height), (side * width / 2, 0, height / 2))]
    if rng.random() < 0.7:
        parts["back"] = [block((width, 0.015, height), (0, depth / 2, height / 2))]
    if rng.random() < 0.4:
        high = float(levels[0])
        fronts = [block((0.47 * width, 0.03, 0.85 * high), (x * width / 4, -depth / 2, high / 2)) for x in (-1, 1)]
        parts["drawers"] = fronts
    return parts


MAKERS: dict[str, Callable[[np.random.Generator], Parts]] = {
    maker.__name__: maker for maker in (chair, stool, table, desk, lamp, airplane, bed, monitor, sofa, bookshelf)
}

_LEGS = [f"leg {where}" for _, _, where in _CORNERS]


def _both(what: str) -> list[str]:
    return [f"{what} {side}" for _, side in _SIDES]


PART_NAMES: dict[str, list[str]] = {
    "chair": ["seat", "back", *_LEGS, *_both("arm"), "stem", "foot"],
    "stool": ["seat", *_LEGS, "rungs"],
    "table": ["top", *_LEGS, "shelf", "column", "foot"],
    "desk": ["top", *_both("side"), *_both("cabinet"), *_both("drawers"), "back"],
    "lamp": ["foot", "pole", "arm", "shade"],
    "airplane": ["fuselage", *_both("wing"), *_both("tail"), "fin", *_both("engine"), "propeller"],
    "bed": ["frame", "mattress", "headboard", "pillows", "footboard", *_LEGS],
    "monitor": ["screen", "housing", "neck", "foot"],
    "sofa": ["base", "back", "cushions", *_both("arm"), *_LEGS],
    "bookshelf": ["top", "bottom", "shelves", *_both("side"), "back", "drawers"],
}
"""The parts that variants of a class can have; the number of a part is its place here."""
