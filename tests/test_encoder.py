"""The hierarchical encoder and every model on it: any size, any company, any option."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pointcentroid import models
from pointcentroid.config import ClassifierConfig, EncoderConfig, StageConfig
from pointcentroid.geometry.fps import farthest_first, farthest_order, farthest_point_sampling
from pointcentroid.geometry.neighbours import gather_points, nearest_neighbours
from pointcentroid.nn import encoder as encoder_module
from pointcentroid.nn.centroid_attention import Neighbours
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.nn.encoder import CentroidEncoder, CentroidStage, _mean_position, compose
from pointcentroid.nn.initialisers import INITIALISERS, create_initialiser, mean_pool_tokens
from pointcentroid.nn.norm import fold

STAGES = (
    StageConfig(24, 16, 8, 2, local_blocks=1, blocks=1, block_neighbours=5),
    StageConfig(8, 16, 8, 2, blocks=1),
    StageConfig(3, 8, 4, 2),
)


def build(**options) -> CentroidEncoder:
    torch.manual_seed(0)
    options = {"stages": STAGES, "embed": 8, **options}
    return step_sizes_of_one(CentroidEncoder(EncoderConfig(**options))).eval()


def step_sizes_of_one(net: Any) -> Any:
    for name, parameter in net.named_parameters():
        if name.endswith("step_size"):
            torch.nn.init.ones_(parameter)  # they start at zero, where attention adds nothing
    return net


@pytest.fixture
def clouds() -> torch.Tensor:
    return torch.randn(4, 60, 3, generator=torch.Generator().manual_seed(1))


OPTIONS = [
    *({"initialiser": name} for name in INITIALISERS),
    *({"axis": axis, "side": side} for axis in ("inputs", "centroids") for side in ("inputs", "centroids")),
    {"steps": 3},
    {"step_size": 0.5},
    {"steps": 0},
    {"steps": 0, "side": "inputs"},
    {"steps": 0, "tokens": "pairs"},
    {"pool": "none"},
    {"embed": 0},
    {"norm": "layer", "tokens": "pairs"},  # as the weights of 0.1.0 are
    {"norm": "layer"},
    {"tokens": "pairs"},
    {"tokens": "pairs", "side": "inputs"},
    {"drop_path": 0.2},
    {"centroid_position": "mean"},
    {"centroid_position": "mean", "side": "inputs", "axis": "centroids", "initialiser": "learned"},
]


@torch.no_grad()
@pytest.mark.parametrize("side", ["centroids", "inputs"])
@pytest.mark.parametrize(("tokens", "embed"), [("points", 0), ("points", 8), ("pairs", 8)])
def test_pooling_is_attention_without_temperature(side: str, tokens: str, embed: int, clouds: torch.Tensor) -> None:
    stage = build(steps=0, side=side, tokens=tokens, embed=embed).double().stages[0]
    assert isinstance(stage, CentroidStage)
    points = clouds.double()
    features = torch.randn(4, 60, embed or 3, generator=torch.Generator().manual_seed(2)).double()
    seeds = points[:, :24]
    neighbours = stage._neighbours(points, seeds, 0, encoder_module._anew)
    pairs = stage.pairs(points, features, seeds, features[:, :24] if embed else None, neighbours)
    found, largest = pairs.joined(), torch.cat([top for top in pairs.largest() if top is not None], dim=2)
    for cloud in range(4):
        for centroid in range(24):
            if side == "centroids":
                mine = [(centroid, place) for place in range(8)]
            else:
                mine = [tuple(pair) for pair in (neighbours.index[cloud] == centroid).nonzero().tolist()]
            if not mine:
                continue
            rows, places = zip(*mine, strict=True)
            values = found[cloud, rows, places]  # L C
            weights = (values / 1e-9).softmax(dim=0)
            torch.testing.assert_close((weights * values).sum(dim=0), largest[cloud, centroid])
            torch.testing.assert_close(pairs.won()[cloud, rows, places], weights.mean(dim=1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
class TestEveryOption:
    def test_any_number_of_points_and_any_batch(self, options: dict) -> None:
        net = build(**options)
        for batch, count in ((1, 1), (2, 2), (3, 7), (1, 24), (2, 100)):
            stages = net(torch.randn(batch, count, 3), assignments=True)
            inputs = count
            for stage, config in zip(stages, STAGES, strict=True):
                held = min(inputs, config.centroids)
                assert stage.positions.shape == (batch, held, 3)
                assert stage.features.shape == (batch, held, config.dim)
                assert stage.assignment is not None
                heads = config.heads if options.get("steps") != 0 else 1
                assert stage.assignment.shape == (batch, heads, inputs, held)
                assert stage.features.isfinite().all()
                inputs = held

    def test_a_cloud_gets_the_same_answer_in_any_company(self, options: dict, clouds: torch.Tensor) -> None:
        net = build(**options)
        together = net(clouds)[-1].features
        alone = torch.cat([net(cloud.unsqueeze(0))[-1].features for cloud in clouds])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)

    def test_the_same_input_gives_the_same_answer_bit_for_bit(self, options: dict, clouds: torch.Tensor) -> None:
        net = build(**options)
        assert torch.equal(net(clouds)[-1].features, net(clouds)[-1].features)

    def test_every_parameter_learns(self, options: dict, clouds: torch.Tensor) -> None:
        net = build(**options).train()
        features = net(clouds)[-1].features
        (features * torch.randn_like(features)).sum().backward()
        grads = {name: p.grad for name, p in net.named_parameters()}
        assert [name for name, grad in grads.items() if grad is None or not grad.isfinite().all() or not grad.any()] == []

    def test_assignments_are_shares_at_every_stage(self, options: dict, clouds: torch.Tensor) -> None:
        stages = build(**options)(clouds, assignments=True)
        for stage in stages:
            rows = stage.combined.sum(dim=2)
            assert ((rows - 1).abs() < 1e-5).logical_or(rows == 0).all()
        if options.get("side") == "inputs" and options.get("steps") != 0:  # what pools may take nothing of an input
            for shares in compose(stages):
                torch.testing.assert_close(shares.sum(dim=2), torch.ones(4, 60))


def test_composition_follows_each_point_down(clouds: torch.Tensor) -> None:
    stages = build(side="inputs")(clouds, assignments=True)
    composed = compose(stages)
    assert [c.shape for c in composed] == [(4, 60, 24), (4, 60, 8), (4, 60, 3)]
    for point, last in ((5, 0), (17, 2)):
        expected = sum(
            stages[0].combined[1, point, a] * stages[1].combined[1, a, b] * stages[2].combined[1, b, last]
            for a in range(24)
            for b in range(8)
        )
        torch.testing.assert_close(composed[-1][1, point, last], expected)


def test_assignments_cost_nothing_when_not_asked_for(clouds: torch.Tensor, monkeypatch) -> None:
    def forbidden(*_):
        raise AssertionError("an assignment was computed")

    net = build()
    monkeypatch.setattr(encoder_module, "assignment", forbidden)
    assert all(stage.assignment is None for stage in net(clouds))
    with pytest.raises(AssertionError, match="was computed"):
        net(clouds, assignments=True)


def test_asking_for_assignments_changes_no_feature(clouds: torch.Tensor) -> None:
    net = build()
    assert torch.equal(net(clouds)[-1].features, net(clouds, assignments=True)[-1].features)


def test_farthest_points_are_sampled_once_and_nested(clouds: torch.Tensor, monkeypatch) -> None:
    calls = []

    def counting(points, count, **options):
        calls.append(count)
        return farthest_order(points, count, **options)

    monkeypatch.setattr("pointcentroid.nn.initialisers.farthest_order", counting)
    stages = build()(clouds)
    assert calls == [24]
    picks = gather_points(clouds, farthest_point_sampling(clouds, 24))
    for stage, config in zip(stages, STAGES, strict=True):
        assert torch.equal(stage.positions, picks[:, : config.centroids])


FARTHEST = [options for options in OPTIONS if options.get("initialiser", "fps") == "fps"]


@pytest.mark.parametrize("options", FARTHEST, ids=str)
def test_clouds_in_farthest_point_order_need_no_sampling(options: dict, clouds: torch.Tensor, monkeypatch) -> None:
    net = build(**options)
    unordered = net(clouds)[-1].features
    ordered = farthest_first(clouds, 24)
    if options.get("centroid_position") != "mean":  # which are sampled among anew
        monkeypatch.setattr("pointcentroid.nn.initialisers.farthest_order", None)
    torch.testing.assert_close(net(ordered, ordered=True)[-1].features, unordered, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", FARTHEST, ids=str)
def test_the_order_of_points_does_not_matter(options: dict, clouds: torch.Tensor) -> None:
    net = build(**options)
    shuffled = clouds[:, torch.randperm(60)]
    torch.testing.assert_close(net(shuffled)[-1].features, net(clouds)[-1].features, rtol=1e-4, atol=1e-5)


def test_centroids_move_to_the_mean_of_their_inputs(clouds: torch.Tensor) -> None:
    stage = build(centroid_position="mean")(clouds, assignments=True)[0]
    shares = stage.combined
    expected = shares.transpose(1, 2) @ clouds / shares.sum(dim=1).unsqueeze(2)
    torch.testing.assert_close(stage.positions, expected, rtol=1e-4, atol=1e-5)


def test_a_centroid_without_inputs_stays_at_its_seed() -> None:
    positions, seeds = torch.randn(1, 5, 3), torch.randn(1, 2, 3)
    shares = torch.zeros(1, 5, 2)
    shares[..., 0] = 0.2
    moved = _mean_position(positions, shares, seeds)
    torch.testing.assert_close(moved[0, 0], positions[0].mean(dim=0))
    assert torch.equal(moved[0, 1], seeds[0, 1])


def nearest_to_middles(cloud: np.ndarray, count: int) -> list[int]:
    """Of each occupied cell of the coarsest grid that has `count`, the number of the point nearest to its middle."""
    low, cells = cloud.min(axis=0), max(1, round(count ** (1 / 3)))
    while True:
        best: dict[tuple, tuple[float, int]] = {}
        for number, place in enumerate((cloud - low) / np.ptp(cloud, axis=0).max() * cells):
            cell = tuple(np.minimum(np.floor(place), cells - 1))
            off = float(np.linalg.norm(place - cell - 0.5))
            best[cell] = min(best.get(cell, (np.inf, -1)), (off, number))
        if len(best) >= count:
            return [number for _, number in best.values()]
        cells *= 2


@pytest.mark.parametrize("side", ["centroids", "inputs"])
@pytest.mark.parametrize(("inputs", "centroids", "listed"), [(2000, 250, 16), (2000, 1000, 32), (4000, 100, 8)])
def test_the_radius_is_that_of_pairs_on_a_surface(side: Any, inputs: int, centroids: int, listed: int) -> None:
    """On a sphere of radius 1 the K nearest of N points fill a disc of area 4 pi K / N, whose points lie on average, as a
    root of squares, sqrt(2 K / N) from its middle: whichever of the two lists the other."""
    generator = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(1, inputs, 3, generator=generator), dim=2)
    points = farthest_first(points, centroids)
    seeds = points[:, :centroids]
    rows, others = (seeds, points) if side == "centroids" else (points, seeds)
    index = nearest_neighbours(rows, others, listed)
    away = (gather_points(others, index) - rows.unsqueeze(2)).square().sum(dim=3).mean().sqrt()
    radius = encoder_module._radius(Neighbours(index, side, inputs=inputs, centroids=centroids))
    assert float(away) / radius == pytest.approx(2**0.5, rel=0.1)
    assert radius**2 == pytest.approx(index.numel() / (inputs * centroids)), "the share of all pairs that are listed"


class TestInitialisers:
    @pytest.mark.parametrize("name", sorted(INITIALISERS))
    def test_seeds_have_their_count_and_place(self, name: str, clouds: torch.Tensor) -> None:
        seeds = create_initialiser(name, 10).eval()(clouds, 10)
        assert seeds.positions.shape == (4, 10, 3)
        if seeds.index is not None:
            assert torch.equal(gather_points(clouds, seeds.index), seeds.positions)
            assert all(len(set(row)) == 10 for row in seeds.index.tolist()), "a point was taken twice"

    @pytest.mark.parametrize("name", ["random", "kmeans++"])
    def test_random_seeds_are_fresh_in_training_and_fixed_at_evaluation(self, name: str, clouds: torch.Tensor) -> None:
        net = create_initialiser(name, 10)
        fresh = [net.train()(clouds, 10).index for _ in range(2)]
        fixed = [net.eval()(clouds, 10).index for _ in range(2)]
        assert not torch.equal(*fresh)
        assert torch.equal(*fixed)

    def test_kmeans_plus_plus_prefers_far_points(self) -> None:
        # Two tight clumps: after one seed, nearly all the mass is in the other clump.
        generator = torch.Generator().manual_seed(0)
        clumps = torch.randn(64, 100, 3, generator=generator) * 0.01
        clumps[:, 50:] += 10
        index = create_initialiser("kmeans++", 2).train()(clumps, 2).index
        assert ((index < 50).sum(dim=1) == 1).all()

    def test_voxel_seeds_lie_in_different_cells(self) -> None:
        lattice = torch.cartesian_prod(*[torch.arange(4.0)] * 3).unsqueeze(0)
        jittered = lattice.repeat_interleave(5, dim=1) + 0.1 * torch.rand(1, 320, 3)
        positions = create_initialiser("voxel", 64).eval()(jittered, 64).positions
        assert len({tuple(p) for p in positions[0].floor().tolist()}) == 64

    def test_kmeans_plus_plus_draws_by_squared_distance(self) -> None:
        # From the point at 0, the one at 3 is drawn nine times as often as the one at 1.
        places, draws = [0.0, 1.0, 3.0, 7.0], 40_000
        points = torch.tensor([[place, 0, 0] for place in places]).expand(draws, 4, 3)
        torch.manual_seed(0)
        drawn = Counter(map(tuple, create_initialiser("kmeans++", 3).train()(points, 3).index.tolist()))
        for first, second, third in itertools.permutations(range(4), 3):
            share = 1 / 4
            for before, now in (([first], second), ([first, second], third)):
                mass = [min((place - places[k]) ** 2 for k in before) for place in places]
                share *= mass[now] / sum(mass)
            spread = 5 * (draws * share * (1 - share)) ** 0.5  # standard deviations of a binomial count
            assert abs(drawn[first, second, third] - draws * share) < spread

    @given(st.integers(0, 10**6), st.integers(1, 40))
    def test_voxel_seeds_are_those_of_a_loop(self, seed: int, count: int) -> None:
        cloud = np.random.default_rng(seed).normal(size=(80, 3))
        kept = nearest_to_middles(cloud, count)
        seeds = create_initialiser("voxel", count)(torch.from_numpy(cloud)[None], count).positions
        among = torch.from_numpy(cloud[kept])[None]
        assert torch.equal(seeds, gather_points(among, farthest_point_sampling(among, count)))

    def test_coinciding_points_do_no_harm(self) -> None:
        for name in INITIALISERS:
            assert create_initialiser(name, 4).eval()(torch.zeros(2, 9, 3), 4).positions.isfinite().all()

    def test_unknown_names_are_errors(self) -> None:
        with pytest.raises(ValueError, match="unknown initialiser 'fsp'; known: fps"):
            create_initialiser("fsp", 4)

    def test_mean_pool_tokens(self) -> None:
        tokens = torch.arange(10.0).view(1, 10, 1)
        assert mean_pool_tokens(tokens, 5).flatten().tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]
        torch.testing.assert_close(mean_pool_tokens(tokens, 10), tokens)
        assert mean_pool_tokens(tokens, 1).item() == 4.5
        uneven = mean_pool_tokens(tokens, 3).flatten()
        assert (uneven * torch.tensor([4.0, 3, 3])).sum() == 45
        with pytest.raises(ValueError, match="into 11"):
            mean_pool_tokens(tokens, 11)

    def test_tokens_without_positions_are_abstracted_by_full_attention(self) -> None:
        from pointcentroid.nn.centroid_attention import CentroidAttention

        words = torch.randn(2, 50, 16)
        centroids, log_weights = CentroidAttention(16, axis="centroids")(mean_pool_tokens(words, 7), words)
        assert centroids.shape == (2, 7, 16)
        torch.testing.assert_close(log_weights.exp().sum(dim=2), torch.ones(2, 4, 50))


@pytest.mark.parametrize("name", models.list_models())
def test_every_registered_model_runs_forward_and_backward(name: str) -> None:
    net = models.create_model(name)
    if net.config.kind == "classifier":
        logits = net(torch.randn(2, 300, 3))
        assert logits.shape == (2, net.config.classes)
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    elif net.config.kind == "parts":
        seen = net.embed(torch.randn(2, 300, 3))
        values = torch.cat([seen.z, net.names(seen.features)], dim=2)
        seen.at(values, torch.arange(300)).square().mean().backward()
    else:
        made = net(torch.randn(2, 300, 3), 2048)  # enough to need every fold
        assert made.shape == (2, 2048, 3)
        made.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_models_are_changed_by_fields_and_mistakes_name_the_nearest() -> None:
    from pointcentroid.errors import ConfigError

    assert models.create_model("small", classes=7)(torch.randn(1, 20, 3)).shape == (1, 7)
    with pytest.raises(ConfigError, match="did you mean 'small'"):
        models.create_model("smal")
    with pytest.raises(ConfigError, match="did you mean 'classes'"):
        models.create_model("small", classses=7)


def test_meta_construction_gives_the_same_net(clouds: torch.Tensor) -> None:
    from pointcentroid.errors import WeightsError

    config = ClassifierConfig(classes=5, hidden=16, encoder=EncoderConfig(embed=8, stages=STAGES))
    net = CentroidClassifier(config).eval()
    tensors = net.state_dict()
    twin = CentroidClassifier.from_tensors(config, tensors)
    fold(net)
    assert torch.equal(net(clouds), twin(clouds))
    with pytest.raises(WeightsError, match="do not fit"):
        CentroidClassifier.from_tensors(dataclasses.replace(config, classes=6), tensors)
