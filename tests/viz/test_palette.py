"""Colours of centroids."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointcentroid.predict.explain import Explanation
from pointcentroid.viz.palette import UNLIT, hierarchy_colours, oklch_to_rgb, soft_colours, spread, wheel
from pointcentroid.viz.panel import Panel


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
