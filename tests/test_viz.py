"""Pictures, pages and windows, looked at as a person would: through pixels, clicks and keys."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import gzip
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageGrab

import pointcentroid as pc
from pointcentroid.errors import ConfigError, DisplayError
from pointcentroid.geometry.sampling import normalise
from pointcentroid.geometry.surface import surface_points
from pointcentroid.io import read_parts
from pointcentroid.predict.explain import Explanation
from pointcentroid.predict.naming import point_parts
from pointcentroid.predict.reconstruct import Reconstructor, panels
from pointcentroid.predict.split import centroid_names, write_split
from pointcentroid.results import Hierarchy, Prediction, StageExplanation
from pointcentroid.viz.matching import same_parts
from pointcentroid.viz.open3d_scene import import_open3d
from pointcentroid.viz.page import MOST_POINTS, write_page
from pointcentroid.viz.palette import UNASSIGNED, UNLIT, hierarchy_colours, oklch_to_rgb, soft_colours, spread, wheel
from pointcentroid.viz.panel import NO_CENTROID, ClassColours, Panel
from pointcentroid.viz.picture import _captions, stage_rows, write_picture, write_turntable

from .conftest import EXAMPLES, ROOT, watched_pages
from .test_cli import COMMAND, run, unboxed


@pytest.fixture(scope="module")
def chair() -> Explanation:
    return pc.load("small", "cpu").explain(EXAMPLES / "chair.off")


@pytest.fixture(scope="module")
def drawing() -> None:
    """What open3d needs of the system."""
    try:
        import_open3d()
    except DisplayError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four random variants of every class, with named parts."""
    folder = tmp_path_factory.mktemp("variants")
    command = [sys.executable, ROOT / "tools" / "make_examples.py", folder, "--variants", "4"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def chairs(variants: Path) -> list[tuple[Explanation, np.ndarray]]:
    """What a net saw of variants of a chair, and the name of each point's part."""
    net, found = pc.load("small", "cpu"), []
    for path in sorted((variants / "chair").glob("*.glb")):
        seen, parted = net.explain(path), read_parts(path)
        assert parted is not None
        found.append((seen, np.array(parted.names)[point_parts(seen, parted)]))
    return found


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


def clustered(points: np.ndarray, hard: np.ndarray, count: int, label: str = "chair") -> Hierarchy:
    """What a net of one stage would have seen, had it made these clusters, some of them perhaps empty."""
    points = points.astype(np.float32)
    composed = np.zeros((len(points), count), np.float32)
    composed[np.flatnonzero(hard >= 0), hard[hard >= 0]] = 1
    places = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    stage = StageExplanation(places, np.zeros((count, 1), np.float32), composed[None], composed)
    said = Prediction("x.off", label, 1.0, [(label, 1.0)], "z", len(points), np.zeros(1), np.eye(3))
    return Hierarchy(points, [stage], np.eye(4), points.astype(np.float64), None, said)


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


def saturated(image: Image.Image) -> int:
    """Number of pixels with a hue: what is coloured by a centroid, not grey, white or black."""
    values = np.asarray(image.convert("RGB")).astype(int)
    return int((values.max(axis=2) - values.min(axis=2) > 60).sum())


def rgb(colour: np.ndarray) -> str:
    """A colour as a browser gives it."""
    return f"rgb({', '.join(map(str, (255 * colour).round().astype(int)))})"


def hues(image: Image.Image) -> int:
    """How many of twelve hues are on it, where it has any."""
    hue, saturation, value = np.moveaxis(np.asarray(image.convert("HSV")).astype(int), 2, 0)
    seen = np.bincount(hue[(saturation > 60) & (value > 60)] * 12 // 256, minlength=12)
    return int((seen > 0.01 * seen.sum()).sum())


class TestPalette:
    def test_oklch_has_the_known_corners(self) -> None:
        """Red, white and black of sRGB, from the values published with OKLab."""
        red = oklch_to_rgb(np.array(0.62796), np.array(0.25768), np.array(np.deg2rad(29.234)))
        assert red == pytest.approx([1, 0, 0], abs=2e-3)
        for lightness in (0.0, 1.0):
            assert oklch_to_rgb(np.array(lightness), np.array(0.0), np.array(0.0)) == pytest.approx(
                [lightness] * 3, abs=1e-3
            )

    @given(st.integers(1, 40), st.integers(0, 5))
    def test_last_stage_colours_all_differ_and_are_colours(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        places, order = rng.normal(size=(count, 3)), rng.permutation(count)
        tints, none = wheel(count), np.full(count, -1)
        rows = spread(places, tints, none, np.arange(count))
        (colours,) = hierarchy_colours([places], [np.ones(count)], [np.ones((1, count))], tints[rows])
        assert colours.shape == (count, 3)
        assert colours.min() >= 0
        assert colours.max() <= 1
        for one, other in itertools.combinations(colours, 2):
            assert np.abs(one - other).max() > 0.01
        assert np.array_equal(spread(places[order], tints, none, np.arange(count)), rows[order])
        both = np.concatenate([tints, wheel(count, turned=True)])
        assert len(np.unique(both.round(6), axis=0)) == 2 * count

    def test_a_given_tint_is_kept_and_only_free_ones_are_chosen(self) -> None:
        places = np.random.default_rng(0).normal(size=(6, 3))
        given_rows, free = np.array([-1, 4, -1, -1, 0, -1]), np.array([1, 3, 5, 7])
        rows = spread(places, wheel(8), given_rows, free)
        assert (rows[1], rows[4]) == (4, 0)
        assert sorted(rows[[0, 2, 3, 5]]) == [1, 3, 5, 7]

    def test_children_are_shades_of_their_parents_hue(self, chair: Explanation) -> None:
        panel = Panel(chair)
        for stage in range(1, len(chair.stages)):
            shares = chair.stages[stage].assignment.mean(axis=0)
            (places, own), (later, above) = panel.centroids(stage), panel.centroids(stage + 1)
            # One that nothing is taken from is a shade of the nearest.
            nearest = np.linalg.norm(places[:, None] - later, axis=2).argmin(axis=1)
            parents = np.where(shares.sum(axis=1) > 0, shares.argmax(axis=1), nearest)
            for child, parent in enumerate(parents):
                # The order of the channels is the hue's; shades keep it, up to clipping at the ends.
                order = np.argsort(above[parent])
                assert (np.diff(own[child][order]) > -0.2).all()

    def test_grandchildren_stay_with_their_parents_shade(self) -> None:
        """One centroid, its two, and their two each, along a line: all differ, those of the darker one are the darker."""
        places = [np.array([[x, 0.0, 0.0] for x in range(count)]) for count in (4, 2, 1)]
        shares = [np.eye(4), np.repeat(np.eye(2), 2, axis=0), np.ones((2, 1))]
        finest, middle, (last,) = hierarchy_colours(
            places, [np.ones(len(p)) for p in places], shares, np.array([[0.6, 2.0]])
        )
        light, between = finest.sum(axis=1), middle.sum(axis=1)
        assert len({*light.round(3), *between.round(3), last.sum().round(3)}) == 7
        dark = between.argmin()
        assert light[2 * dark : 2 * dark + 2].max() < last.sum() < light[2 - 2 * dark : 4 - 2 * dark].min()

    def test_soft_colours_run_from_unlit_to_the_centroids(self) -> None:
        colours = soft_colours(np.array([0.0, 0.2, 0.8]), np.array([1.0, 0.0, 0.0]))
        assert colours[0] == pytest.approx(UNLIT)
        assert colours[2] == pytest.approx([1, 0, 0])
        assert UNLIT[1] > colours[1][1] > 0


class TestPanel:
    def test_hard_colours_are_those_of_the_largest_share(self, chair: Explanation) -> None:
        panel = Panel(chair)
        for number, stage in enumerate(chair.stages, 1):
            _, colours = panel.centroids(number)
            expected = np.where((stage.hard >= 0)[:, None], colours[stage.hard], UNASSIGNED)
            assert np.array_equal(panel.colours(number), expected)

    def test_heads_average_to_the_whole(self, chair: Explanation) -> None:
        panel = Panel(chair)
        for stage, composed in itertools.product(range(1, panel.stages + 1), (True, False)):
            heads = [panel.weights(stage, composed, head) for head in range(panel.heads(stage))]
            assert np.mean(heads, axis=0) == pytest.approx(panel.weights(stage, composed), abs=1e-5)
            assert len(panel.inputs(stage, composed)) == len(panel.weights(stage, composed))
        assert panel.weights(panel.stages) == pytest.approx(chair.stages[-1].composed, abs=1e-5)

    def test_the_mesh_lies_where_the_points_are(self, chair: Explanation) -> None:
        import trimesh

        mesh = Panel(chair).mesh
        assert mesh is not None
        surface = trimesh.Trimesh(*mesh, process=False)
        distance = np.linalg.norm(chair.points - trimesh.proximity.closest_point_naive(surface, chair.points)[0], axis=1)
        assert distance.max() < 1e-5

    def test_every_point_of_a_large_cloud_takes_the_share_of_its_nearest(self) -> None:
        points = np.random.default_rng(0).normal(size=(5000, 3))
        panel = Panel(pc.load("small", "cpu").explain(points, up="z"))
        assert len(panel.cloud) == 5000
        assert not panel.thinned
        seen = panel.explanation.points
        rows = np.random.default_rng(1).choice(5000, 50)
        distance = np.linalg.norm(panel.cloud[rows, None] - seen[None], axis=2)
        assert distance[np.arange(50), panel.nearest[rows]] == pytest.approx(distance.min(axis=1), abs=1e-6)
        assert Panel(panel.explanation, most=2000).thinned

    def test_a_ball_stands_on_a_point_of_its_own_colour(self, chair: Explanation) -> None:
        panel = Panel(chair)
        for stage in range(1, panel.stages + 1):
            drawn = panel.drawn(stage)
            used = [line.number for line in panel.listed(stage) if line.number != NO_CENTROID]
            assert drawn.numbers.tolist() == sorted(used), "a ball for each that is used"
            for place, colour, number in zip(drawn.balls, drawn.ball_colours, drawn.numbers, strict=True):
                here = (drawn.points == place).all(axis=1)
                assert here.sum() == 1
                assert drawn.centroids[here] == number
                assert np.array_equal(drawn.colours[here][0], colour)

    def test_the_ball_of_a_ring_stands_on_the_ring_and_among_its_own(self) -> None:
        """The middle of a ring is where other points are; a stray point of the ring there does not carry its ball."""
        angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
        ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
        core = 0.1 * np.random.default_rng(0).normal(size=(60, 3))
        points = np.concatenate([ring, core, np.zeros((1, 3))])
        panel = Panel(clustered(points, np.repeat([0, 1, 0], [120, 60, 1]), 2))
        (on_ring, in_core), _ = panel.centroids(1)
        assert np.linalg.norm(on_ring) == pytest.approx(1, abs=1e-5)
        assert np.linalg.norm(in_core) < 0.2

    def test_the_list_counts_every_point_once_and_leaves_empty_centroids_out(self) -> None:
        hard = np.random.default_rng(0).choice([-1, 0, 2, 5], 500, p=[0.1, 0.2, 0.3, 0.4])
        points = np.random.default_rng(1).normal(size=(500, 3))
        names = ["leg", "", "seat", "", "", "back"]
        panel = Panel(clustered(points, hard, 6), names=names)
        lines = panel.listed(1)
        assert [(line.number, line.size) for line in lines] == [(k, (hard == k).sum()) for k in (5, 2, 0, -1)]
        assert sum(line.share for line in lines) == pytest.approx(1)
        assert [line.name for line in lines] == ["back", "seat", "leg", "to no centroid"]
        assert np.array_equal(lines[-1].colour, UNASSIGNED)
        grey = panel.drawn(1)
        assert np.array_equal((grey.colours == UNASSIGNED).all(axis=1), hard == NO_CENTROID), (
            "grey means that, and only that"
        )
        assert grey.numbers.tolist() == [0, 2, 5], "an empty centroid has no ball"
        assert len(panel.drawn(1, hidden=[NO_CENTROID]).points) == (hard >= 0).sum()

    @given(st.floats(0.05, 2.0), st.integers(0, 10))
    def test_centroids_move_apart_whole_and_stay_in_the_frame(self, apart: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        points, hard = normalise(rng.normal(size=(200, 3)))[0], rng.integers(-1, 5, 200)
        panel = Panel(clustered(points, hard, 5))
        still, moved = panel.drawn(1), panel.drawn(1, apart=apart)
        assert np.linalg.norm(moved.points - panel.middle, axis=1).max() <= panel.reach + 1e-5
        scale = None
        for number, ball, after in zip(still.numbers, still.balls, moved.balls, strict=True):
            own, there = still.points[hard == number], moved.points[hard == number]
            size = np.linalg.norm(there - there.mean(axis=0)) / np.linalg.norm(own - own.mean(axis=0))
            scale = scale or size
            assert size == pytest.approx(scale, abs=1e-4)
            assert there - there[0] == pytest.approx(scale * (own - own[0]), abs=1e-5), (
                "what is of one centroid stays together"
            )
            expected = panel.middle + scale * (1 + apart) * (own.mean(axis=0) - panel.middle)
            assert there.mean(axis=0) == pytest.approx(expected, abs=1e-5), "by its distance from the middle"
            assert after - there[0] == pytest.approx(scale * (ball - own[0]), abs=1e-5), "its ball goes with it"
        none = moved.points[hard == NO_CENTROID] - panel.middle
        assert none == pytest.approx(scale * (still.points[hard == NO_CENTROID] - panel.middle), abs=1e-5)

    def test_what_is_hidden_is_not_drawn_and_the_rest_stays(self, chair: Explanation) -> None:
        panel = Panel(chair)
        for composed in (True, False):
            whole = panel.drawn(3, composed, apart=0.7)
            out = [line.number for line in panel.listed(3, composed)[:2]]
            rest = panel.drawn(3, composed, hidden=out, apart=0.7)
            kept = ~np.isin(whole.centroids, out)
            assert np.array_equal(rest.points, whole.points[kept])
            assert np.array_equal(rest.colours, whole.colours[kept])
            assert np.array_equal(rest.balls, whole.balls[~np.isin(whole.numbers, out)])


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


@pytest.mark.usefixtures("drawing")
class TestPicture:
    def test_stages_stand_in_columns_and_have_their_centroids_colours(self, chair: Explanation, tmp_path: Path) -> None:
        path = tmp_path / "chair.png"
        write_picture(stage_rows([Panel(chair)], mesh=True), path)
        image = Image.open(path).convert("RGB")
        columns = 2 + len(chair.stages)
        tile = image.width // columns
        assert image.width == columns * tile
        hues = [saturated(image.crop((column * tile, 60, (column + 1) * tile, image.height))) for column in range(columns)]
        assert hues[0] == 0  # the mesh is grey
        assert min(hues[1:]) > 3000
        # Every last centroid's own colour is there, unchanged but for its shading: the largest ball shows it nearly pure.
        last = np.asarray(image.crop((image.width - tile, 60, image.width, image.height))).reshape(-1, 3).astype(float)
        _, colours = Panel(chair).centroids(len(chair.stages))
        near = [np.abs(last - 255 * colour).max(axis=1).min() for colour in colours]
        used = np.unique(chair.stages[-1].hard)
        assert max(near[number] for number in used) < 12

    def test_long_titles_are_whole(self, chair: Explanation, tmp_path: Path) -> None:
        path = tmp_path / "chair.png"
        write_picture(stage_rows([Panel(chair, "chair " * 30 + "end")], [1]), path)
        title = np.asarray(Image.open(path).convert("L"))[:34]
        assert np.flatnonzero((title < 150).any(axis=0)).max() > title.shape[1] - 20

    def test_a_png_is_called_one(self, chair: Explanation, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"ends in \.png, found chair\.jpg"):
            chair.to_png(tmp_path / "chair.jpg")
        assert not list(tmp_path.iterdir())

    def test_captions_say_what_is_not_drawn(self) -> None:
        cloud = pc.load("small").explain(np.random.default_rng(0).normal(size=(5000, 3)), up="z")
        (row,) = stage_rows([Panel(cloud, most=3000)], [0], mesh=True)
        assert [_captions(tile)[0] for tile in row.tiles] == ["no mesh: a point cloud", "3,000 of 5,000 points"]

    def test_captions_count_one_centroid_and_one_point(self) -> None:
        hard = np.array([-1] + 9 * [0])
        (row,) = stage_rows([Panel(clustered(np.random.default_rng(0).normal(size=(10, 3)), hard, 1))])
        assert [_captions(tile) for tile in row.tiles] == [
            ["10 points"],
            ["stage 1: 1 centroid", "grey: 1 point to no centroid"],
        ]

    def test_views_are_rows_and_differ(self, chair: Explanation, tmp_path: Path) -> None:
        one, two = tmp_path / "one.png", tmp_path / "two.png"
        write_picture(stage_rows([Panel(chair)], [2]), one)
        write_picture(stage_rows([Panel(chair)], [2]), two, views=2)
        first, both = (Image.open(path).convert("RGB") for path in (one, two))
        assert 1.7 * (first.height - 58) < both.height - 58 < 2.3 * (first.height - 58)
        again = np.asarray(both.crop((0, both.height - first.height + 58, both.width, both.height)))
        assert (np.asarray(both.crop((0, 58, both.width, first.height))) != again).mean() > 0.02

    def test_grey_points_are_explained(self, tmp_path: Path) -> None:
        points, hard = np.random.default_rng(0).normal(size=(300, 3)), np.random.default_rng(1).integers(-1, 4, 300)
        below = []
        for name, clusters in (("some", hard), ("none", hard.clip(0))):
            path = tmp_path / f"{name}.png"
            write_picture(stage_rows([Panel(clustered(points, clusters, 4))], [1]), path)
            below.append(np.asarray(Image.open(path).convert("L"))[58:80, :150])
        assert (below[0] < 150).sum() > 100, "a second line below what is drawn"
        assert (below[1] < 150).sum() == 0

    def test_what_is_wide_and_flat_fills_its_frame(self, tmp_path: Path) -> None:
        path = tmp_path / "airplane.png"
        done = run("view", EXAMPLES / "airplane.gltf", "--stages", "0,2", "--views", 2, "--png", path)
        assert done.returncode == 0, done.stderr
        drawn = np.asarray(Image.open(path).convert("RGB"))[58:].min(axis=2) < 240
        assert drawn.shape[0] < 0.8 * drawn.shape[1]
        rows, columns = (np.flatnonzero(drawn.any(axis=axis)) for axis in (1, 0))
        assert max(rows[0], columns[0], drawn.shape[0] - rows[-1], drawn.shape[1] - columns[-1]) < 30
        # Of every tile, both ways: what is drawn reaches over at least four fifths of it, for the larger view.
        half = drawn.shape[1] // 2
        for tile in (drawn[:, :half], drawn[:, half:]):
            assert np.ptp(np.flatnonzero(tile.any(axis=0))) > 0.8 * half
            blank = ~tile.any(axis=1)
            longest = max((len(list(run)) for white, run in itertools.groupby(blank) if white), default=0)
            assert longest < 45, "no band of white between or around the views"

    def test_a_turntable_turns(self, chair: Explanation, tmp_path: Path) -> None:
        path = tmp_path / "chair.gif"
        write_turntable(stage_rows([Panel(chair)], [2]), path, frames=4, size=160)
        frames = Image.open(path)
        assert frames.n_frames == 4  # type: ignore[attr-defined]
        assert len({frames.seek(k) or frames.convert("RGB").tobytes() for k in range(4)}) == 4

    def test_rows_of_a_turntable_have_the_headings_of_the_picture(self, chair: Explanation, tmp_path: Path) -> None:
        gif, headings = tmp_path / "two.gif", []
        shown = [Panel(chair, "one shape"), Panel(chair, "another shape")]
        write_turntable(stage_rows(shown, [1, 2]), gif, frames=2, size=160)
        for panel in shown:
            png = tmp_path / "one.png"
            write_picture(stage_rows([panel], [1]), png)
            headings.append(np.asarray(Image.open(png).convert("L"))[:58, :140])  # with the caption of its first column
        frames = Image.open(gif)
        for frame in range(2):
            frames.seek(frame)
            grey = np.asarray(frames.convert("L")).astype(int)[:, :140]
            tops = range(len(grey) - 58)
            places = [min(tops, key=lambda top: np.abs(grey[top : top + 58] - text).mean()) for text in headings]
            assert places[0] == 0
            assert places[1] > 100
            assert all(np.abs(grey[y : y + 58] - text).mean() < 2 for y, text in zip(places, headings, strict=True))

    def test_colours_of_a_turntable_are_those_that_were_drawn(self, chair: Explanation, tmp_path: Path) -> None:
        path, drawn = tmp_path / "three.gif", []
        net = pc.load("small", "cpu")
        shown = [Panel(chair), *(Panel(net.explain(EXAMPLES / name)) for name in ("lamp.glb", "airplane.gltf"))]

        def watch(images: Any, count: int) -> list[Image.Image]:
            drawn.extend(images)
            assert len(drawn) == count == 3 * 2 * 4
            return drawn

        def away(colours: Any, palette: np.ndarray) -> list[int]:
            return [np.abs(palette - colour).max(axis=1).min() for colour in colours]

        write_turntable(stage_rows(shown, [1, 2]), path, frames=4, size=160, watch=watch)
        own = [255 * colour for panel in shown for colour in panel.centroids(2)[1][np.unique(panel.hard(2))]]
        frames, seen = Image.open(path), []
        for frame in range(4):
            frames.seek(frame)
            seen.append(np.unique(np.asarray(frames.convert("RGB")).reshape(-1, 3), axis=0).astype(np.int16))
            pixels = np.concatenate([np.asarray(image).reshape(-1, 3) for image in drawn[frame::4]]).astype(np.int16)
            of_pixels = away(pixels[pixels.min(axis=1) < 250][::7], seen[frame])
            assert np.mean(of_pixels) < 10
            assert np.percentile(of_pixels, 95) < 20
            assert np.mean(away(own, seen[frame])) < 16
        assert len(np.unique(np.concatenate(seen), axis=0)) <= 256, "one palette for all frames"

    def test_a_reconstruction_beside_its_original(self, tmp_path: Path) -> None:
        path = tmp_path / "made.png"
        done = run("view", EXAMPLES / "chair.off", "--weights", "autoencoder", "--png", path, "--views", 2)
        assert done.returncode == 0, done.stderr
        image = Image.open(path)
        width = image.width // 3
        tiles = [image.crop((width * k, 58, width * k + width, image.height)) for k in range(3)]
        assert min(map(saturated, tiles)) > 5000
        assert [hues(tile) > 6 for tile in tiles] == [False, True, False], "only patches are coloured by centroid"

    def test_a_stage_that_is_not_there_is_an_error(self, chair: Explanation, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no stage 7"):
            stage_rows([Panel(chair)], [7])
        assert not list(tmp_path.iterdir())


def packed(page: Path) -> dict[str, Any]:
    """The data in a page."""
    found = re.search(r'id="data"[^>]*>([^<]+)<', page.read_text(encoding="utf-8"))
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


class TestPage:
    UNLIT = f"rgb({','.join(str(round(255 * c)) for c in UNLIT)})"

    @pytest.fixture
    def opened(self, browser) -> Iterator[Callable]:
        with watched_pages(browser, ("file:", "blob:", "data:"), patience=120) as open_page:
            yield lambda path, width=1000, height=760: open_page(path.as_uri(), width, height)

    @staticmethod
    def colours(page, trace: int = 0, panel: int = 0) -> list[str]:
        colours = page.evaluate(f"document.querySelector('#panel-{panel} .plot').data[{trace}].marker.color")
        return [colour.replace("#cccccc", "rgb(204,204,204)") for colour in colours]  # points on no list

    @staticmethod
    def slide(page, stage: int) -> None:
        page.evaluate(
            "n => { const s = document.getElementById('stage'); s.value = n; s.dispatchEvent(new Event('input')); }", stage
        )

    def test_the_slider_changes_the_colours(self, chair: Explanation, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "chair.html"
        chair.to_html(path)
        assert path.stat().st_size < 6e6
        page = opened(path)
        assert page.inner_text("h1") == Panel(chair).title
        panel = Panel(chair)
        for stage in (*range(1, panel.stages + 1), 1):
            self.slide(page, stage)
            colours = self.colours(page)
            expected = [f"rgb({r},{g},{b})" for r, g, b in (255 * panel.colours(stage)).round().astype(int)]
            assert colours == expected
            hard = chair.stages[stage - 1].hard
            assert len(self.colours(page, 1)) == len(np.unique(hard[hard != NO_CENTROID]))
        self.slide(page, 0)
        assert len(set(self.colours(page))) > 100
        assert self.colours(page, 1) == []

    def test_one_centroid_is_counted_as_one(self, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "one.html"
        write_page([Panel(clustered(np.random.default_rng(0).normal(size=(10, 3)), np.zeros(10, int), 1))], path)
        page = opened(path)
        assert page.inner_text("#stage-name") == "1: 1 centroid"

    def test_a_click_lights_one_centroid_up_and_a_drag_does_not(
        self, chair: Explanation, tmp_path: Path, opened: Callable
    ) -> None:
        path = tmp_path / "chair.html"
        chair.to_html(path)
        page = opened(path)
        before = self.colours(page)
        box = page.locator("#panel-0 .plot").bounding_box()
        shot = tmp_path / "shot.png"

        def coloured_pixels() -> np.ndarray:
            page.screenshot(path=shot)
            values = np.asarray(Image.open(shot).convert("RGB")).astype(int)
            hued = values.max(axis=2) - values.min(axis=2) > 70
            hued[: int(box["y"]) + 20] = False
            # The middle of something at least nine pixels wide: a centroid.
            solid = hued.copy()
            for shift, axis in itertools.product(range(-4, 5), (0, 1)):
                solid &= np.roll(hued, shift, axis)
            return np.argwhere(solid)

        page.wait_for_timeout(1500)
        spots = coloured_pixels()
        y, x = (float(v) for v in spots[len(spots) // 2])
        page.mouse.move(x, y)
        page.wait_for_timeout(800)
        page.mouse.down()
        page.mouse.move(x + 60, y + 10, steps=4)
        page.mouse.up()
        page.wait_for_timeout(800)
        assert self.colours(page) == before, "a drag turns the shape, and picks nothing"

        spots = coloured_pixels()
        y, x = (float(v) for v in spots[len(spots) // 2])
        page.mouse.move(x, y)
        page.wait_for_timeout(800)
        page.mouse.down()
        page.wait_for_timeout(300)
        assert self.colours(page) == before, "nothing happens before the button is released"
        page.mouse.up()
        page.wait_for_function("document.getElementById('picked').value !== ''", timeout=10_000)
        picked = int(page.input_value("#picked"))
        assert self.colours(page) != before
        assert f"centroid {picked}:" in page.inner_text("#panel-0 .said")
        weights = np.rint(255 * chair.stages[-1].composed[:, picked])
        assert [colour == self.UNLIT for colour in self.colours(page)] == (weights == 0).tolist()

        page.select_option("#picked", "")
        assert self.colours(page) == before

    @staticmethod
    def points(page, trace: int = 0, panel: int = 0) -> np.ndarray:
        drawn = page.evaluate(f"(({{x, y, z}}) => [x, y, z])(document.querySelector('#panel-{panel} .plot').data[{trace}])")
        return np.array(drawn).T.reshape(-1, 3)

    def test_the_list_names_counts_hides_and_isolates(self, chair: Explanation, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "chair.html"
        names = [f"part <i>{number}" for number in range(len(chair.stages[-1].positions))]
        panel = Panel(chair, names=names)
        write_page([panel], path)
        page, lines = opened(path, 1200, 800), panel.listed(panel.stages)
        shown = page.eval_on_selector_all(
            "#panel-0 li",
            """lines => lines.map(line => [line.querySelector(".light span").textContent,
                line.querySelector("small").textContent, getComputedStyle(line.querySelector("i")).backgroundColor])""",
        )
        assert shown == [
            [
                line.name,
                line.told_share.replace("%", " %"),
                rgb(line.colour),
            ]
            for line in lines
        ]
        one, two = lines[0], lines[1]

        def assert_seen(hidden: list[int]) -> None:
            """Points, their colours, and centroids are those that `drawn` gives: the page computes them by itself."""
            expected = panel.drawn(panel.stages, hidden=hidden)
            assert self.points(page) == pytest.approx(expected.points, abs=1e-6)
            assert self.colours(page) == [rgb(colour).replace(" ", "") for colour in expected.colours]
            assert self.points(page, 1) == pytest.approx(expected.balls, abs=1e-6)

        assert_seen([])
        page.get_by_role("checkbox", name=f"show {one.name}", exact=True).uncheck()
        assert_seen([one.number])
        page.get_by_role("button", name=f"isolate {two.name}", exact=True).click()
        alone = [line.number for line in lines if line is not two]
        assert_seen(alone)
        assert page.get_by_role("checkbox", checked=True).all_text_contents() == [""], "one is left, and nothing else is on"
        page.get_by_role("button", name=f"isolate {two.name}", exact=True).click()
        assert_seen([])
        page.get_by_role("checkbox", name=f"show {two.name}", exact=True).uncheck()
        page.get_by_role("button", name="show all").click()
        assert_seen([])
        page.get_by_role("checkbox", name=f"show {two.name}", exact=True).uncheck()
        self.slide(page, 1)
        assert len(self.colours(page)) == 1024, "another stage shows all"
        assert page.locator("#panel-0 li").count() == len(panel.listed(1))

    def test_by_keyboard(self, chair: Explanation, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "chair.html"
        chair.to_html(path)
        page, panel = opened(path), Panel(chair)
        lines = panel.listed(3)
        for key, apart in (("e", 1.0), ("e", 0.0)):  # before anything has the focus
            page.keyboard.press(key)
            assert self.points(page) == pytest.approx(panel.drawn(3, apart=apart).points, abs=1e-5)
        page.get_by_role("checkbox", name=f"show {lines[0].name}", exact=True).focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Space")
        assert len(self.points(page)) == 1024 - lines[1].size, "the line below, hidden by the check box"
        page.keyboard.press("x")
        assert len(self.points(page)) == 1024
        page.keyboard.press("i")
        assert len(self.points(page)) == lines[1].size
        page.keyboard.press("v")
        page.keyboard.press("e")
        moved = panel.drawn(3, apart=1.0)
        assert self.points(page) == pytest.approx(moved.points, abs=1e-5), "apart, as Python has it"
        assert self.points(page, 1) == pytest.approx(moved.balls, abs=1e-5)
        page.get_by_role("slider", name="explode").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.getElementById('apart').value === '1.05'")
        page.wait_for_timeout(300)
        assert self.points(page) == pytest.approx(panel.drawn(3, apart=1.05).points, abs=1e-5)
        page.keyboard.press("Home")
        page.wait_for_timeout(300)
        assert self.points(page) == pytest.approx(panel.drawn(3).points, abs=1e-6)

        page.locator("#panel-0 .plot").focus()
        before = page.evaluate("document.querySelector('.plot').layout.scene.camera.eye")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("+")
        after = page.evaluate("document.querySelector('.plot').layout.scene.camera.eye")
        turned = np.arctan2(after["y"], after["x"]) - np.arctan2(before["y"], before["x"])
        assert turned == pytest.approx(0.15, abs=1e-6)
        assert np.linalg.norm(list(after.values())) == pytest.approx(0.85 * np.linalg.norm(list(before.values())))
        page.locator("#panel-0 li .light").first.focus()
        page.keyboard.press("Enter")
        assert page.input_value("#picked") == str(lines[0].number)
        assert page.inner_text("#panel-0 [role=status]").startswith(f"{lines[0].name}: {lines[0].size} of 1024")
        assert page.evaluate("document.querySelector('.plot').layout.scene.camera.eye") == after, "the view stays"

    def test_the_same_part_of_two_files_acts_together(self, chairs: list, tmp_path: Path, opened: Callable) -> None:
        path, colours = tmp_path / "two.html", ClassColours()
        one, two = (colours.lend(Panel(seen, title)) for (seen, _), title in zip(chairs, ("one", "two"), strict=False))
        write_page([one, two], path)
        page = opened(path, 1200, 800)
        for number, panel in enumerate((one, two)):
            expected = [rgb(colour).replace(" ", "") for colour in panel.colours(3)]
            assert self.colours(page, panel=number) == expected
        mine, other = one.listed(3), {part: number for number, part in enumerate(two.parts)}
        line = next(line for line in mine if other.get(line.number) in {x.number for x in two.listed(3)})
        page.locator("#panel-0").get_by_role("button", name=f"isolate {line.name}", exact=True).click()
        theirs = int((two.hard(3) == other[line.number]).sum())
        assert [len(self.points(page, panel=k)) for k in range(2)] == [line.size, theirs]
        assert {*self.colours(page)} == {*self.colours(page, panel=1)} == {rgb(line.colour).replace(" ", "")}

    def test_grey_points_are_explained_and_can_be_hidden(self, tmp_path: Path, opened: Callable) -> None:
        points, hard = np.random.default_rng(0).normal(size=(300, 3)), np.random.default_rng(1).integers(-1, 4, 300)
        path = tmp_path / "some.html"
        write_page([Panel(clustered(points, hard, 6))], path)
        page = opened(path)
        assert page.locator("#panel-0 li").count() == 5
        assert page.locator("#panel-0 li").last.inner_text().startswith("to no centroid")
        assert self.colours(page).count("rgb(204,204,204)") == (hard < 0).sum()
        page.get_by_role("checkbox", name="show to no centroid").uncheck()
        assert len(self.points(page)) == (hard >= 0).sum()

    def test_it_can_be_used_at_420_pixels(self, chair: Explanation, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "chair.html"
        chair.to_html(path)
        page = opened(path, 420, 860)
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        plot = page.locator("#panel-0 .plot").bounding_box()
        for control in page.locator(
            "#panel-0 li input, #panel-0 li button, header input, header select, header button"
        ).all():
            control.scroll_into_view_if_needed()
            box = control.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 420
        for line in page.locator("#panel-0 li").all():
            line.scroll_into_view_if_needed()
            assert line.bounding_box()["height"] >= 28, "what a finger meets"
        assert plot["width"] > 380
        lines = Panel(chair).listed(3)
        page.locator("#panel-0 li .only").nth(1).click()
        assert len(self.points(page)) == lines[1].size

    def test_it_fits_a_phone(self, chair: Explanation, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "two.html"
        write_page([Panel(chair, "one"), Panel(chair, "<b>two</b>")], path)
        page = opened(path, 390, 844)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        first, second = (page.locator(f"#panel-{k}").bounding_box() for k in range(2))
        assert second["y"] >= first["y"] + first["height"]
        assert page.inner_text("#panel-1 h1") == "<b>two</b>"

    def test_panels_side_by_side_are_seen_from_as_far(self, chair: Explanation, tmp_path: Path, opened: Callable) -> None:
        write_page([Panel(chair, name) for name in ("one", "two", "three")], tmp_path / "three.html")
        page = opened(tmp_path / "three.html", 1300, 1500)
        boxes = [page.locator(f"#panel-{k} .plot").bounding_box() for k in range(3)]
        assert [box["width"] for box in boxes] == pytest.approx([boxes[0]["width"]] * 3, abs=1)
        eyes = [page.evaluate(f"document.querySelector('#panel-{k} .plot').layout.scene.camera.eye") for k in range(3)]
        assert [eye["x"] for eye in eyes] == pytest.approx([eyes[0]["x"]] * 3, rel=0.01)

    def test_large_clouds_are_thinned_and_it_says_so(self, tmp_path: Path, opened: Callable) -> None:
        points = np.random.default_rng(0).normal(size=(100_000, 3))
        path = tmp_path / "large.html"
        pc.load("small", "cpu").explain(points, up="z").to_html(path)
        assert path.stat().st_size < 6e6
        page = opened(path)
        assert "10,000 of 100,000 points" in page.inner_text(".note")
        assert len(self.colours(page)) == MOST_POINTS
        panel = Panel(pc.load("small", "cpu").explain(points, up="z")).at_most(MOST_POINTS)
        for number, stage in enumerate(packed(path)["panels"][0]["stages"], 1):
            expected = panel.weights(number).sum(axis=0, dtype=np.float64)
            assert stage["composed"]["mass"] == pytest.approx(expected, abs=0.006), "of the points that are drawn"

    @pytest.mark.parametrize("name", ["{{PLOTLY}} {{DATA}}.off", os.fsdecode(b"caf\xe9.off"), "two\nlines.off"])
    def test_files_may_be_called_anything(self, name: str, tmp_path: Path, opened: Callable) -> None:
        shutil.copy(EXAMPLES / "chair.off", tmp_path / name)
        done = run("view", tmp_path / name, "--html", tmp_path / "x.html", "--png", tmp_path / "x.png")
        assert done.returncode == 0, done.stderr
        title = " ".join(name.split()).encode("utf-8", "replace").decode()
        assert opened(tmp_path / "x.html").title().startswith(title)

    def test_a_large_reconstruction_is_thinned_too(self, tmp_path: Path, opened: Callable) -> None:
        patches = panels(Reconstructor(device="cpu")(EXAMPLES / "chair.off", 70_000))[1]
        write_page([patches], tmp_path / "large.html")
        page = opened(tmp_path / "large.html")
        assert "10,000 of 70,000 points" in page.inner_text(".note")
        self.slide(page, 1)
        drawn = patches.at_most(MOST_POINTS)
        assert (len(drawn.cloud), drawn.nearest.max() > 65_535) == (MOST_POINTS, True)
        expected = [f"rgb({r},{g},{b})" for r, g, b in (255 * drawn.colours(1)).round().astype(int)]
        assert self.colours(page) == expected

    def test_a_reconstruction_beside_its_original(self, tmp_path: Path, opened: Callable) -> None:
        path = tmp_path / "made.html"
        done = run("view", EXAMPLES / "chair.off", "--weights", "autoencoder", "--points", 600, "--html", path)
        assert done.returncode == 0, done.stderr
        page = opened(path, 1300, 760)
        original, patches, made = panels(Reconstructor(device="cpu")(EXAMPLES / "chair.off", 600))
        patches.like = original
        assert [page.inner_text(f"#panel-{k} h1") for k in range(3)] == [original.title, "patches", made.title]
        assert np.array_equal(patches.centroids(1)[1], original.centroids(2)[1]), "a centroid and its patch have one colour"
        self.slide(page, 2)
        for number, (panel, stage) in enumerate([(original, 2), (patches, 1)]):
            expected = [f"rgb({r},{g},{b})" for r, g, b in (255 * panel.colours(stage)).round().astype(int)]
            assert self.colours(page, panel=number) == expected, "a net with fewer stages stays at its last"
        assert len(set(self.colours(page, panel=1))) == 64
        assert len(self.colours(page, panel=2)) == 600
        assert len(set(self.colours(page, panel=2))) > 100, "coloured by height"
        page.select_option("#picked", "5")
        lit = np.array([colour != self.UNLIT for colour in self.colours(page, panel=1)])
        assert np.flatnonzero(lit).tolist() == list(range(5, 600, 64)), "a patch"
        assert self.colours(page, 1, 0).count("#d2d2d6") == len(original.drawn(2).balls) - 1, "and its centroid"


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x900x24", "-nolisten", "tcp", "-noreset"]
    server = subprocess.Popen(command, pass_fds=[writer], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as said:
        yield f":{said.readline().strip()}"
    server.terminate()
    server.wait()


@pytest.mark.usefixtures("drawing")
class TestWindow:
    @pytest.fixture
    def window(self, screen: str, tmp_path: Path) -> Iterator[Callable]:
        """A running `pointcentroid view`, to send keys and clicks to and take screenshots of."""
        started: list[subprocess.Popen] = []
        environment = os.environ | {"DISPLAY": screen}

        def start(*arguments: object) -> subprocess.Popen:
            command = [sys.executable, "-m", "pointcentroid", *map(str, arguments)]
            started.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True))
            until(lambda: saturated(ImageGrab.grab(xdisplay=screen)) > 2000, "the window shows something", 180)
            return started[0]

        yield start
        for process in started:
            process.kill()
            process.wait()

    @staticmethod
    def do(screen: str, *arguments: object) -> None:
        subprocess.run(["xdotool", *map(str, arguments)], env=os.environ | {"DISPLAY": screen}, check=True)

    @staticmethod
    def place(screen: str) -> tuple[int, ...]:
        """Left, top, width and height of the window."""
        command = ["xdotool", "search", "--onlyvisible", "--name", "pointcentroid", "getwindowgeometry", "--shell"]
        said = subprocess.check_output(command, env=os.environ | {"DISPLAY": screen}, text=True)
        values = dict(line.split("=") for line in said.splitlines())
        return tuple(int(values[key]) for key in ("X", "Y", "WIDTH", "HEIGHT"))

    @classmethod
    def scene(cls, screen: str) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the scene, which is white; dark columns are to the right of it."""
        left, top, width, height = cls.place(screen)
        row = np.asarray(ImageGrab.grab(xdisplay=screen).convert("L"))[top + 3, left : left + width]
        return left, top, left + int(np.argmax(row < 100)), top + height

    @classmethod
    def listed(cls, screen: str) -> list[tuple[int, int]]:
        """Where the swatches of the list of centroids are, from top to bottom: 30 pixels left of their check boxes."""
        _, top, right, bottom = cls.scene(screen)
        column = np.asarray(ImageGrab.grab(xdisplay=screen).convert("RGB")).astype(int)[top + 90 : bottom, right + 25]
        coloured = np.flatnonzero(column.max(axis=1) - column.min(axis=1) > 40)
        runs = np.split(coloured, np.flatnonzero(np.diff(coloured) > 1) + 1)
        return [(right + 25, top + 90 + int(run.mean())) for run in runs if len(run) > 10]

    @classmethod
    def act(cls, screen: str, *action: object, until_seen: Callable[[], bool], what: str) -> None:
        """Do it, and again where the scene stays as it was: a window that draws slowly loses a key or a click."""
        scene = cls.scene(screen)
        for _ in range(3):
            as_it_was = ImageGrab.grab(xdisplay=screen).crop(scene).tobytes()
            cls.do(screen, *action)
            with contextlib.suppress(AssertionError):
                until(until_seen, what, 20)
                return
            if ImageGrab.grab(xdisplay=screen).crop(scene).tobytes() != as_it_was:
                break
        until(until_seen, what, 60)

    @staticmethod
    def clicking(x: int, y: int) -> tuple[object, ...]:
        return ("mousemove", x, y, "sleep", 1, "mousedown", 1, "sleep", 0.7, "mouseup", 1)

    @staticmethod
    def look(screen: str) -> Image.Image:
        """What is on the screen, once it has stopped changing."""
        before, after = None, ImageGrab.grab(xdisplay=screen)
        for _ in range(40):
            time.sleep(0.4)
            before, after = after, ImageGrab.grab(xdisplay=screen)
            if before.tobytes() == after.tobytes():
                break
        return after

    def test_keys_slider_click_and_quit(self, chair: Explanation, window: Callable, screen: str, tmp_path: Path) -> None:
        process = window("view", EXAMPLES / "chair.off", EXAMPLES / "airplane.gltf", "--weights", "small")
        self.do(screen, "mousemove", 1270, 890)
        last = self.look(screen)
        left, top, width, _ = self.place(screen)
        scene = self.scene(screen)
        panel = scene[2]

        def changes(*action: object, what: str) -> None:
            nonlocal last
            before = last.tobytes()
            self.act(screen, *action, until_seen=lambda: ImageGrab.grab(xdisplay=screen).tobytes() != before, what=what)
            last = self.look(screen)

        at_first = last
        coloured = saturated(at_first.crop(scene))
        changes("key", "1", what="key 1 shows stage 1")
        changes("key", "Right", what="right goes on to stage 2")
        changes("key", "a", what="a shows the stage's own inputs")
        changes("key", "a", what="a goes back")
        changes("key", "m", what="m draws the mesh underneath")
        changes("key", "m", what="m takes it away")
        self.act(
            screen,
            "key",
            len(chair.stages),
            until_seen=lambda: ImageGrab.grab(xdisplay=screen).crop(scene).tobytes() == at_first.crop(scene).tobytes(),
            what="its number shows the last stage with all heads, as at the start",
        )
        last = self.look(screen)

        # A click on a centroid: the middle of the largest coloured spot.
        values = np.asarray(at_first.convert("RGB")).astype(int)
        hued = values.max(axis=2) - values.min(axis=2) > 60
        hued[:, panel:] = False
        solid = hued.copy()
        for shift, axis in itertools.product(range(-9, 10), (0, 1)):
            solid &= np.roll(hued, shift, axis)
        y, x = np.argwhere(solid)[0]
        changes(*self.clicking(x, y), what="a click lights a centroid up")
        assert saturated(last.crop(scene)) < 0.7 * coloured, "the other centroids go grey"
        changes(*self.clicking(x, y), what="a second click takes the light away")

        # A drag turns the shape and picks nothing.
        changes(
            "mousemove", left + 20, top + 20, "sleep", 0.3, "mousedown", 1, "sleep", 0.3,
            "mousemove", left + 80, top + 30, "sleep", 0.3, "mousemove", left + 140, top + 40, "sleep", 0.3, "mouseup", 1,
            what="a drag turns",
        )  # fmt: skip
        assert saturated(last.crop(scene)) > 0.7 * coloured

        # The slider of the side panel, found by its light handle at the right end: a press at the left end is stage 0.
        column = np.asarray(last.convert("L"))[:, left + width - 50]
        handle = int(np.flatnonzero((column > 150) & (np.arange(900) > top + 110))[5])
        press = ("mousemove", left + width - 270, handle, "sleep", 0.3, "mousedown", 1, "sleep", 0.2, "mouseup", 1)
        changes(*press, what="the slider moves")

        self.do(screen, "mousemove", left + 20, top + 20, "sleep", 0.5)
        self.act(screen, "key", "s", until_seen=(tmp_path / "pointcentroid-1.png").exists, what="s saves a picture")
        assert saturated(Image.open(tmp_path / "pointcentroid-1.png")) > 1000
        changes("key", "n", what="n shows the next file")
        changes("key", "h", what="h lists the keys")
        listed = np.asarray(last.convert("L"))[top + 14 : top + 300, left + width - 291 : left + width - 20] > 130
        blank = ~listed[:, :100].any(axis=0)
        assert max(len(list(run)) for white, run in itertools.groupby(blank[10:]) if white) > 4, "in two columns"
        assert listed[:, 100:].any()
        self.do(screen, "key", "q")
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()

    def test_heads_are_shown_one_by_one(self, window: Callable, screen: str) -> None:
        process = window("view", EXAMPLES / "chair.off", "--weights", "autoencoder")
        self.do(screen, "mousemove", 1270, 890)
        at_first = self.look(screen).crop(self.scene(screen))

        def differs(before: bytes) -> bool:
            return ImageGrab.grab(xdisplay=screen).tobytes() != before

        for key, what in (("t", "t shows the first head"), ("t", "t shows the second head"), ("1", "1 shows stage 1")):
            self.act(screen, "key", key, until_seen=partial(differs, self.look(screen).tobytes()), what=what)
        self.act(
            screen,
            "key",
            "2",
            until_seen=lambda: ImageGrab.grab(xdisplay=screen).crop(self.scene(screen)).tobytes() == at_first.tobytes(),
            what="its number shows the last stage with all heads, as at the start",
        )
        self.do(screen, "key", "q")
        assert process.wait(30) == 0

    def test_the_list_hides_isolates_and_moves_apart(self, chair: Explanation, window: Callable, screen: str) -> None:
        process = window("view", EXAMPLES / "chair.off", "--weights", "small")
        self.do(screen, "mousemove", 1270, 890)
        self.look(screen)
        left, top, right, bottom = self.scene(screen)
        lines = [line for line in Panel(chair).listed(len(chair.stages)) if line.number != NO_CENTROID]
        swatches = self.listed(screen)
        assert len(swatches) == len(lines)

        def seen() -> np.ndarray:
            return np.asarray(ImageGrab.grab(xdisplay=screen).convert("RGB")).astype(int)

        def scene_now() -> np.ndarray:
            return seen()[top:bottom, left:right]

        first, second = lines[0].colour, lines[1].colour

        def drawn() -> list[int]:
            """Pixels of the scene with a hue of the first two colours, light or dark."""
            pixels = scene_now().reshape(-1, 3)
            tint = pixels / np.linalg.norm(pixels, axis=1, keepdims=True).clip(1)
            return [int((tint @ (colour / np.linalg.norm(colour)) > 0.999).sum()) for colour in (first, second)]

        for (x, y), line in zip(swatches, lines, strict=True):
            assert seen()[y, x] == pytest.approx(255 * line.colour, abs=6), "the list has the colours of the scene"
        (x, y), (_, below) = swatches[:2]
        before, at_first = drawn(), scene_now()
        assert min(before) > 200

        act = partial(self.act, screen)

        def shows(one: float, other: float) -> Callable[[], bool]:
            """More than so much of the first two centroids is seen as at first; of 0, they are gone."""
            return lambda: all(
                count > least * whole if least else count < 0.1 * whole
                for count, whole, least in zip(drawn(), before, (one, other), strict=True)
            )

        def lit(number: int) -> Callable[[], bool]:
            """All that is coloured has the hue of this one of the two, pale where little of a point is its."""

            def look() -> bool:
                pixels, colour = scene_now().reshape(-1, 3), (first, second)[number]
                chroma, own = pixels - pixels.mean(axis=1, keepdims=True), colour - colour.mean()
                size = np.linalg.norm(chroma, axis=1)
                of_it = chroma @ (own / np.linalg.norm(own)) > 0.993 * size
                coloured = size > 30
                seen_so = coloured.sum() > 0.15 * before[number] and bool(of_it[coloured].all())
                return seen_so and drawn()[number] > 0.05 * before[number] and gone(1 - number)

            return look

        def gone(number: int) -> bool:
            return drawn()[number] < 0.1 * before[number]

        def is_back() -> bool:
            return bool((scene_now() == at_first).all())

        def is_alone() -> bool:
            return saturated(Image.fromarray(scene_now().astype(np.uint8))) < 2 * before[1]

        def is_apart() -> bool:
            return bool((np.abs(scene_now() - at_first).max(axis=2) > 30).mean() > 0.02)

        act(*self.clicking(x + 30, y), until_seen=shows(0, 0.9), what="a check box hides")
        act(*self.clicking(x + 30, y), until_seen=is_back, what="and shows")
        act(*self.clicking(x + 200, below), until_seen=shows(0, 0.9), what="only the second")
        until(is_alone, "nothing else", 60)
        act(*self.clicking(x + 200, below), until_seen=is_back, what="all")
        act(*self.clicking(x, y), until_seen=lit(0), what="a swatch lights up")
        self.do(screen, "mousemove", left + 5, top + 5, "sleep", 0.5)
        act("key", "x", until_seen=shows(0, 0.9), what="x hides what is lit up")
        act("key", "v", until_seen=is_back, what="v shows all")
        act("key", "Down", until_seen=lit(0), what="down lights the first up")
        act("key", "Down", until_seen=lit(1), what="and the second")
        act("key", "i", until_seen=is_alone, what="i isolates it")
        until(shows(0, 0.9), "in its colour", 60)
        act("key", "i", until_seen=is_back, what="i shows all again")
        act("key", "e", until_seen=is_apart, what="e moves centroids apart")
        act("key", "e", until_seen=is_back, what="and together")
        slider = top + 52
        act(
            "mousemove", right + 20, slider, "sleep", 0.5, "mousedown", 1, "sleep", 0.5,
            "mousemove", right + 150, slider, "sleep", 0.5, "mousemove", right + 260, slider, "sleep", 0.5, "mouseup", 1,
            until_seen=is_apart, what="the slider does it, too",
        )  # fmt: skip
        self.look(screen)  # until the last of the drag is drawn
        self.do(screen, "mousemove", left + 5, top + 5, "sleep", 0.5)
        with contextlib.suppress(AssertionError):  # a step of the drag may come after the key, and move them apart again
            act("key", "e", until_seen=is_back, what="and e takes it back")
        if not is_back():
            act("key", "e", until_seen=is_back, what="and e takes it back")
        self.do(screen, "key", "q")
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()

    def test_a_reconstruction_beside_its_original(self, window: Callable, screen: str) -> None:
        process = window("view", EXAMPLES / "chair.off", "--weights", "autoencoder")
        self.do(screen, "mousemove", 1270, 890)
        first = self.look(screen)
        scene = left, top, _, bottom = self.scene(screen)
        third = (scene[2] - scene[0]) // 3
        parts = [first.crop((scene[0] + third * k, scene[1], scene[0] + third * (k + 1), scene[3])) for k in range(3)]
        assert [hues(part) > 6 for part in parts] == [True, True, False], "clusters, patches, and a cloud by height"
        # A click anywhere, on the panel without stages too, does no harm.
        for x in (scene[0] + 60, (scene[0] + scene[2]) // 2, scene[2] - 90):
            y = (top + bottom) // 2
            self.do(screen, "mousemove", x, y, "sleep", 0.3, "mousedown", 1, "sleep", 0.1, "mouseup", 1, "sleep", 0.5)
        self.do(screen, "mousemove", left + 20, top + 20, "sleep", 0.5)
        self.act(
            screen,
            "key",
            "0",
            until_seen=lambda: hues(ImageGrab.grab(xdisplay=screen).crop(scene)) < 6,
            what="0 shows clouds by height",
        )
        self.do(screen, "key", "q")
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()

    def test_control_c_closes_it(self, window: Callable) -> None:
        process = window("view", EXAMPLES / "chair.off", "--weights", "small")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert (process.returncode, said.splitlines()[-1]) == (130, "stopped")

    def test_a_folder_with_a_broken_file_goes_on(self, window: Callable, screen: str, tmp_path: Path) -> None:
        folder = tmp_path / "shapes"
        folder.mkdir()
        shutil.copy(EXAMPLES / "chair.off", folder / "a.off")
        (folder / "b.off").write_text("OFF\n3 1\n0 0 0\n")
        shutil.copy(EXAMPLES / "lamp.glb", folder / "c.glb")
        process = window("view", folder)
        self.look(screen)
        scene = left, top, *_ = self.scene(screen)
        self.do(screen, "mousemove", left + 100, top + 100, "sleep", 0.5)
        self.act(
            screen,
            "key",
            "n",
            until_seen=lambda: saturated(ImageGrab.grab(xdisplay=screen).crop(scene)) == 0,
            what="a broken file shows nothing",
        )
        assert self.listed(screen) == []
        self.act(
            screen,
            "key",
            "n",
            until_seen=lambda: saturated(ImageGrab.grab(xdisplay=screen).crop(scene)) > 2000,
            what="the next file is shown",
        )
        self.do(screen, "key", "q")
        _, said = process.communicate(timeout=20)
        assert process.returncode == 1
        assert "b.off" in said
        assert "1 of 3 could not be read" in said


def until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
        time.sleep(0.2)


@pytest.mark.usefixtures("drawing")
class TestCommands:
    def test_files_instead_of_a_window(self, tmp_path: Path) -> None:
        png, html, gif = (tmp_path / f"chair.{suffix}" for suffix in ("png", "html", "gif"))
        done = run("view", EXAMPLES / "chair.off", "--png", png, "--html", html, "--stages", "0,2", "--views", 2)
        assert (done.returncode, done.stdout.split()) == (0, [str(html), str(png)])
        image = Image.open(png)  # two stages, two views, trimmed alike: a chair is higher than wide
        assert image.width % 2 == 0
        assert 2 * 200 <= image.width < image.height - 58 <= 2 * 420
        done = run("view", EXAMPLES / "chair.off", "--gif", gif, "--stages", "2")
        assert (done.returncode, done.stdout.split()) == (0, [str(gif)])

    @pytest.mark.skipif(os.name != "posix", reason="pseudo terminals")
    def test_a_person_who_watches_sees_how_much_is_drawn(self, tmp_path: Path) -> None:
        import pty

        ours, theirs = pty.openpty()
        outputs = ["--png", tmp_path / "x.png", "--views", "8", "--gif", tmp_path / "x.gif", "--stages", "2"]
        command = [*COMMAND, "view", EXAMPLES / "chair.off", *outputs]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        told = b""
        with contextlib.suppress(OSError):  # the end
            while more := os.read(ours, 1 << 16):
                told += more
        os.close(ours)
        assert process.wait() == 0
        assert b"drawing" in told
        assert b"8/8" in told
        assert b"36/36" in told

    @pytest.mark.parametrize(
        ("given", "absent"),
        [
            (["--html", "x.html", "--views", 2], "--png"),
            (["--gif", "x.gif", "--views", 2], "--png"),
            (["--html", "x.html", "--stages", "2"], "--gif"),
            (["--mesh"], "--gif"),
            (["--png", "x.png", "--names", EXAMPLES / "lamp.glb"], "--html"),
            (["--html", "x.html", "--points", 77], "weights that reconstruct"),
            (["--png", "x.png", "--html", "x.html", "--stages", "9"], "stage"),
            ([EXAMPLES, "--weights", "autoencoder", "--html", "x.html"], "can show 12 shapes"),
            ([*sorted(EXAMPLES.glob("*.*"))[:5], "--weights", "autoencoder", "--html", "x.html"], "4 reconstructions"),
        ],
    )
    def test_what_only_a_picture_has_wants_one(self, tmp_path: Path, given: list[str], absent: str) -> None:
        files = [] if "autoencoder" in given else [EXAMPLES / "chair.off"]
        done = run("view", *files, *given, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert absent in unboxed(done.stderr)
        assert not list(tmp_path.iterdir())

    def test_a_folder_in_one_picture_and_one_page(self, variants: Path, tmp_path: Path) -> None:
        folder, png, html = tmp_path / "chairs", tmp_path / "chairs.png", tmp_path / "chairs.html"
        shutil.copytree(variants / "chair", folder)
        (folder / "chair_000b.off").write_text("OFF\n3 1\n0 0 0\n")
        example = variants / "chair" / "chair_000.glb"
        done = run("view", folder, "--png", png, "--html", html, "--stages", "2", "--names", example)
        assert (done.returncode, done.stdout.split()) == (1, [str(html), str(png)])
        assert "chair_000b.off" in done.stderr
        assert "1 of 5 could not be read" in done.stderr
        wide, *_ = one = Image.open(png).size
        assert one[1] > 4 * 200 > wide, "a row for each that can be read"
        page = html.read_text()
        assert all(f"chair_00{k}.glb: chair" in page for k in range(4))
        assert str(tmp_path) not in page.split("</title>")[0], "a title is a name, not a path"

        done = run("view", folder, "--html", html, "--names", EXAMPLES / "chair.off")
        assert done.returncode == 2
        assert "has no parts to lend names from" in done.stderr
        for number in range(9):
            shutil.copy(EXAMPLES / "chair.off", folder / f"{number}.off")
        done = run("view", folder, "--png", png)
        assert done.returncode == 2
        assert "can show 12 shapes, found 14" in unboxed(done.stderr)

    def test_where_nothing_can_be_read_every_file_is_named(self, tmp_path: Path) -> None:
        bad = [tmp_path / f"{number}.off" for number in range(3)]
        for path in bad:
            path.write_text("OFF\n3 1\n")
        done = run("view", *bad, "--png", tmp_path / "a.png")
        assert done.returncode == 2
        assert [line.count(str(path)) for line, path in zip(done.stderr.splitlines(), bad, strict=True)] == [1, 1, 1]
        assert done.stderr.count("error: ") == 1

    def test_without_a_screen_it_says_what_works_instead(self) -> None:
        environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
        done = run("view", EXAMPLES / "chair.off", env=environment)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "--html" in done.stderr
        done = run("view", EXAMPLES / "chair.off", env=environment | {"SSH_CONNECTION": "1 2 3 4"})
        assert "SSH" in done.stderr
        done = run("view", EXAMPLES / "chair.off", env=environment | {"DISPLAY": ":4711"})
        assert "does not answer" in done.stderr

    def test_without_a_driver_it_says_so(self, tmp_path: Path) -> None:
        environment = os.environ | {"VK_ICD_FILENAMES": "/nonexistent", "VK_DRIVER_FILES": "/nonexistent"}
        done = run("view", EXAMPLES / "chair.off", "--png", tmp_path / "x.png", env=environment)
        assert done.returncode == 2
        assert "Vulkan driver" in done.stderr
        assert "--html" in done.stderr

    @pytest.mark.parametrize("missing", ["open3d", "plotly"])
    def test_an_absent_extra_is_named(self, missing: str, tmp_path: Path) -> None:
        (tmp_path / "hide").mkdir()
        (tmp_path / "hide" / f"{missing}.py").write_text(f"raise ModuleNotFoundError('no', name='{missing}')")
        target = ["--png", tmp_path / "x.png"] if missing == "open3d" else ["--html", tmp_path / "x.html"]
        done = run("view", EXAMPLES / "chair.off", *target, env=os.environ | {"PYTHONPATH": str(tmp_path / "hide")})
        assert done.returncode == 2
        assert f"needs {missing}" in done.stderr
        assert "pip install 'pointcentroid[view]'" in done.stderr

    def test_compare_shows_two_nets(self, tmp_path: Path) -> None:
        png = tmp_path / "two.png"
        nets = ["--with", "small", "--with", "small,initialiser=random"]
        done = run("compare", EXAMPLES / "lamp.glb", *nets, "--png", png, "--stages", "2")
        assert done.returncode == 0
        image = Image.open(png).convert("RGB")
        half = image.height // 2
        page, matched, alone = (tmp_path / f"{name}.html" for name in ("page", "matched", "alone"))
        assert run("compare", EXAMPLES / "lamp.glb", *nets, "--html", page).returncode == 0
        found = [
            pc.load("small", "cpu", **change).explain(EXAMPLES / "lamp.glb") for change in ({}, {"initialiser": "random"})
        ]
        titles = [
            f"{net}: {seen.prediction.label} {seen.prediction.confidence:.0%}"
            for net, seen in zip(nets[1::2], found, strict=True)
        ]
        for path in (matched, alone):
            first, second = map(Panel, found, titles)
            second.like = first if path == matched else None
            write_page([first, second], path)
        assert page.read_text() == matched.read_text() != alone.read_text(), "the same part has the same colour"
        top, bottom = (np.asarray(image.crop((0, k * half + 60, image.width, (k + 1) * half))) for k in range(2))
        assert (top != bottom).mean() > 0.005
        done = run("compare", EXAMPLES / "lamp.glb", "--with", "small", "--with", "small,axes=centroids", "--png", png)
        assert done.returncode == 2
        assert "did you mean 'axis'" in done.stderr
        assert run("compare", EXAMPLES / "lamp.glb", "--with", "small").returncode == 2
        done = run("compare", EXAMPLES / "lamp.glb", "--with", "small", "--with", "small,device=cpu", "--png", png)
        assert done.returncode == 2
        assert "device is no setting" in done.stderr
