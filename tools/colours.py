"""How well pictures tell parts: do balls stand among points of their colour, and has a part one colour in all files?

    python tools/colours.py data/variants/{chair,lamp,airplane,bed,table,desk}/*_00[0-7].glb [--weights small]

Files need parts (glTF nodes), and their folder is their class; the first of each is the reference of the others.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

import pointcentroid as pc
from pointcentroid.geometry.neighbours import nearest_neighbours
from pointcentroid.io import read_parts
from pointcentroid.predict.explain import Explanation
from pointcentroid.predict.naming import point_parts
from pointcentroid.viz.panel import Panel

_AROUND = 9


def among_own(points: np.ndarray, hard: np.ndarray, places: np.ndarray) -> float:
    """Share of the used centroids around whose place most of the nine nearest points are their own."""
    import torch

    used = np.unique(hard[hard >= 0])
    queries, cloud = (torch.from_numpy(values.astype(np.float32)[None]) for values in (places[used], points))
    near = nearest_neighbours(queries, cloud, _AROUND)[0].numpy()
    return float(((hard[near] == used[:, None]).sum(axis=1) > _AROUND / 2).mean())


def in_common(one: Panel, names: np.ndarray, other: Panel, others: np.ndarray) -> float:
    """Of the points of each part that both have, the share whose colours are those of the same part of the other."""
    shares = []
    for name in set(names) & set(others):
        counts = []
        for panel, of in ((one, names), (other, others)):
            colours = panel.colours(panel.stages)[of == name]
            counts.append({colour: count / len(colours) for colour, count in Counter(map(tuple, colours)).items()})
        shares.append(sum(min(share, counts[1].get(colour, 0.0)) for colour, share in counts[0].items()))
    return float(np.mean(shares))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--weights", default="small")
    arguments = parser.parse_args()
    net = pc.load(arguments.weights, "cpu")
    balls, positions, alone, matched = [], [], [], []
    first: dict[Path, tuple[Explanation, np.ndarray]] = {}
    for path in arguments.files:
        seen, parted = net.explain(path), read_parts(path)
        if parted is None:
            parser.error(f"{path} has no parts")
        names, panel, last = np.array(parted.names)[point_parts(seen, parted)], Panel(seen), seen.stages[-1]
        balls.append(among_own(seen.points, last.hard, panel.centroids(panel.stages)[0]))
        positions.append(among_own(seen.points, last.hard, last.positions))
        if path.parent not in first:
            first[path.parent] = seen, names
            continue
        reference, theirs = first[path.parent]
        alone.append(in_common(Panel(reference), theirs, panel, names))
        matched.append(in_common(Panel(reference), theirs, Panel(seen, like=Panel(reference)), names))
    print(f"{len(balls)} files; most of the nine nearest points are a centroid's own:")
    print(f"  at its ball {np.mean(balls):.2f}, at the net's position of it {np.mean(positions):.2f}")
    print(f"{len(alone)} pairs; share of a part's points with colours in common:")
    print(f"  each file by itself {np.mean(alone):.2f}, beside the reference {np.mean(matched):.2f}")


if __name__ == "__main__":
    main()
