"""Make the clouds that `parts` is trained on: half variants of ten classes, half assemblies of no class.

    python tools/make_parts.py parts.npz [--shapes 16400] [--validate 400] [--seed 1]

Every shape has 2,048 points of its surface, each with its part. The last ones validate. With seed 0 the variants would
be those that `make_examples.py --variants` writes, which measure what was learnt from others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from assemblies import assembly
from shapes import Mesh
from variants import MAKERS, PART_NAMES

from pointcentroid.data.clouds import as_stored
from pointcentroid.files import replacing
from pointcentroid.geometry.sampling import normalise, sample_faces

POINTS = 2048
NAMES = [f"{kind}: {part}" for kind, parts in PART_NAMES.items() for part in parts]
CLASSES = sorted([*MAKERS, "assembly"])


def shape(number: int, seed: int) -> tuple[str, list[tuple[int, list[Mesh]]]]:
    """The class of a shape, and its parts: number and solids."""
    if number % 2:
        parts = assembly(np.random.default_rng([seed, len(MAKERS), number]))
        return "assembly", [(len(NAMES) + place, solids) for place, solids in enumerate(parts)]
    kind = list(MAKERS)[number // 2 % len(MAKERS)]
    parts = MAKERS[kind](np.random.default_rng([seed, list(MAKERS).index(kind), number]))
    return kind, [(NAMES.index(f"{kind}: {part}"), solids) for part, solids in parts.items()]


def cloud(parts: list[tuple[int, list[Mesh]]], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(P, 3) points of the surfaces of all parts, normalised, and (P,) their parts."""
    solids = [(part, solid) for part, all_of_it in parts for solid in all_of_it]
    starts = np.cumsum([0, *(len(solid.vertices) for _, solid in solids)])
    vertices = np.concatenate([solid.vertices for _, solid in solids])
    faces = np.concatenate([solid.faces + start for (_, solid), start in zip(solids, starts[:-1], strict=True)])
    part_of = np.concatenate([np.full(len(solid.faces), part) for part, solid in solids])
    points, face, _ = sample_faces(vertices, faces, POINTS, np.random.default_rng(seed))
    return normalise(points)[0], part_of[face]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--shapes", type=int, default=16_400)
    parser.add_argument("--validate", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    points = np.zeros((options.shapes, POINTS, 3), np.uint16)
    parts = np.zeros((options.shapes, POINTS), np.uint8)
    kinds = []
    for number in range(options.shapes):
        kind, made = shape(number, options.seed)
        kinds.append(kind)
        where, parts[number] = cloud(made, number)
        points[number] = as_stored(where)
    split = np.full(options.shapes, "train", dtype="U10")
    split[options.shapes - options.validate :] = "validation"
    with replacing(options.output) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            points=points,
            labels=np.array([CLASSES.index(kind) for kind in kinds], np.uint8),
            names=np.array([f"{kind}_{number:05}" for number, kind in enumerate(kinds)]),
            classes=np.array(CLASSES),
            split=split,
            parts=parts,
            part_names=np.array(NAMES),
        )
    print(f"{options.output}: {options.shapes} shapes, {len(NAMES)} names of parts")


if __name__ == "__main__":
    main()
