"""What is shown of a shape."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pointcentroid as pc
from pointcentroid.geometry.sampling import normalise
from pointcentroid.predict.explain import Explanation
from pointcentroid.viz.palette import UNASSIGNED
from pointcentroid.viz.panel import NO_CENTROID, Panel

from .looking import clustered


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

    @pytest.mark.parametrize("away", [5.0, 1e6, 1e100])
    def test_a_stray_point_that_the_net_did_not_see_is_not_drawn(self, away: float) -> None:
        points = np.random.default_rng(0).normal(size=(5000, 3))
        net = pc.load("small", "cpu")
        seen = net.explain(points, up="z")
        stray = dataclasses.replace(seen, vertices=np.concatenate([seen.vertices, [[away * 10, 0, away]]]))
        panel, plain = Panel(stray), Panel(seen)
        assert np.array_equal(panel.cloud, plain.cloud)
        assert (panel.reach, panel.points_drawn) == (plain.reach, "5,000 of 5,001 points")

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
