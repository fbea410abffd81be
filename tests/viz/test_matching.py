"""The same part has the same colour on every shape."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import pointcentroid as pc
from pointcentroid.geometry.sampling import normalise
from pointcentroid.geometry.surface import surface_points
from pointcentroid.io import read_parts
from pointcentroid.predict.explain import Explanation
from pointcentroid.predict.split import centroid_names, write_split
from pointcentroid.results import Hierarchy, StageExplanation
from pointcentroid.viz.matching import same_parts
from pointcentroid.viz.panel import ClassColours, Panel

from ..conftest import EXAMPLES
from .looking import clustered


def untied(seen: Explanation) -> Explanation:
    """The same without equal shares, which go to the lower number."""
    rng = np.random.default_rng(0)

    def changed(shares: np.ndarray) -> np.ndarray:
        return shares * rng.uniform(1, 1 + 1e-2, shares.shape).astype(np.float32)

    stages = [
        dataclasses.replace(stage, assignment=changed(stage.assignment), composed=changed(stage.composed))
        for stage in seen.stages
    ]
    return dataclasses.replace(seen, stages=stages)


def renumbered(seen: Hierarchy, rng: np.random.Generator) -> Hierarchy:
    """The same centroids of every stage, numbered anew."""
    stages, before = [], None
    for stage in seen.stages:
        order = rng.permutation(len(stage.positions))
        own = stage.assignment if before is None else stage.assignment[:, before]
        stages.append(
            StageExplanation(stage.positions[order], stage.features[order], own[:, :, order], stage.composed[:, order])
        )
        before = order
    return dataclasses.replace(seen, stages=stages)


class TestSameColours:
    """The same part has the same colour in all files of a class."""

    @settings(max_examples=8)
    @given(seed=st.integers(0, 1000))
    def test_numbering_changes_no_colour(self, chair: Explanation, seed: int) -> None:
        """Alone, and beside another: of the same file, of another file, and where the other is numbered anew."""
        one = untied(chair)
        anew = renumbered(one, np.random.default_rng(seed))
        panel, other = Panel(one), Panel(anew)
        beside = Panel(anew, like=panel)
        for stage in range(1, panel.stages + 1):
            assert np.array_equal(other.colours(stage), panel.colours(stage))
            assert np.array_equal(beside.colours(stage), panel.colours(stage))

    def test_another_file_has_the_same_colours_however_either_is_numbered(self, chairs: list) -> None:
        one, two = (untied(seen) for seen, _ in chairs[:2])
        expected = Panel(two, like=Panel(one)).colours(3)
        for seed in range(5):
            rng = np.random.default_rng(seed)
            assert np.array_equal(Panel(renumbered(two, rng), like=Panel(renumbered(one, rng))).colours(3), expected)

    def test_a_file_twice_has_its_colours_twice_and_another_class_its_own(self, chair: Explanation) -> None:
        colours = ClassColours()
        first, again, other = (
            colours.lend(Panel(seen)) for seen in (chair, chair, pc.load("small", "cpu").explain(EXAMPLES / "lamp.glb"))
        )
        for stage in range(1, first.stages + 1):
            assert np.array_equal(first.colours(stage), again.colours(stage))
        assert again.reference is first
        assert other.reference is other
        assert np.array_equal(other.colours(3), Panel(other.explanation).colours(3))

    def test_parts_that_are_clusters_keep_their_colour_over_all_variants(self, variants: Path) -> None:
        """Where clusters are the modelled parts, numbered at random, names keep colours, and new ones take no other's."""
        kept, new = [], []
        for kind in ("chair", "airplane", "bed", "table", "lamp", "desk", "sofa"):
            colours, first = ClassColours(), {}
            for number, path in enumerate(sorted((variants / kind).glob("*.glb"))):
                parted = read_parts(path)
                assert parted is not None
                rng = np.random.default_rng(number)
                points, face = surface_points(parted.shape.vertices, parted.shape.faces, 1024, rng)
                part, order = parted.parts[face], rng.permutation(16)
                panel = colours.lend(Panel(clustered(normalise(points)[0], order[part], 16, kind)))
                tints = {parted.names[k]: tuple(panel.centroids(1)[1][order[k]]) for k in np.unique(part)}
                assert len(set(tints.values())) == len(tints), "no colour twice in one file"
                first = first or tints
                kept += [tints[name] == tint for name, tint in first.items() if name in tints and tints is not first]
                both = {first[name] for name in tints if name in first}
                new += [tint not in both for name, tint in tints.items() if name not in first]
        assert len(kept) > 80
        assert np.mean(kept) > 0.9
        assert len(new) > 10
        assert np.mean(new) > 0.9

    def test_named_parts_share_colours_more_often_than_unmatched(self, chairs: list) -> None:
        """Of two files, the share of a part's points that have a colour in common, mean over parts and pairs."""

        def common(one: Panel, names: np.ndarray, other: Panel, others: np.ndarray) -> float:
            shares = []
            for name in set(names) & set(others):
                counts = [{} for _ in range(2)]
                for count, panel, of in ((counts[0], one, names), (counts[1], other, others)):
                    for colour in map(tuple, panel.colours(panel.stages)[of == name]):
                        count[colour] = count.get(colour, 0) + 1 / (of == name).sum()
                shares.append(sum(min(share, counts[1].get(colour, 0)) for colour, share in counts[0].items()))
            return float(np.mean(shares))

        for (one, _), (other, _) in itertools.permutations(chairs, 2):
            there, back = same_parts(one, other), same_parts(other, one)
            paired = np.flatnonzero(there >= 0)
            assert np.array_equal(back[there[paired]], paired), "whichever of the two is asked"
        first, names = chairs[0]
        alone = [common(Panel(first), names, Panel(seen), of) for seen, of in chairs[1:]]
        matched = [common(Panel(first), names, Panel(seen, like=Panel(first)), of) for seen, of in chairs[1:]]
        assert all(after > before for before, after in zip(alone, matched, strict=True))
        assert np.mean(matched) > 1.5 * np.mean(alone)

    def test_another_net_borrows_what_it_can_and_no_colour_comes_twice(self, chair: Explanation) -> None:
        """Of a net with more centroids than the one it is compared with."""
        rng = np.random.default_rng(0)
        more = clustered(chair.points, rng.integers(0, 40, len(chair.points)), 40)
        few = clustered(chair.points, rng.integers(0, 5, len(chair.points)), 5)
        for one, other in ((few, more), (more, few)):
            panel = Panel(other, like=Panel(one))
            _, colours = panel.centroids(1)
            assert len(np.unique(colours.round(4), axis=0)) == len(colours)
            assert len({*map(tuple, colours)} & {*map(tuple, Panel(one).centroids(1)[1])}) >= 4

    def test_pieces_of_a_cut_mesh_share_colours_too(self, chairs: list, tmp_path: Path) -> None:
        import trimesh

        colours = ClassColours()
        for number, (seen, _) in enumerate([chairs[0], chairs[1], chairs[0]]):
            write_split(seen, seen.prediction, tmp_path, str(number), colours=colours)
        scenes = [trimesh.load_scene(tmp_path / f"{number}-parts.glb") for number in range(3)]
        tints = [
            {name: tuple(mesh.visual.vertex_colors[0, :3]) for name, mesh in scene.geometry.items()} for scene in scenes
        ]
        assert tints[0] == tints[2]
        panel = Panel(chairs[1][0], like=Panel(chairs[0][0]))
        for name, tint in tints[1].items():
            expected = (255 * panel.centroids(panel.stages)[1][int(name.split()[1])]).round()
            assert tint == tuple(expected.astype(int))
        assert len(set(centroid_names(chairs[0][0], None))) == len(chairs[0][0].stages[-1].positions)
