"""Centroid pooling for PyTorch Geometric: equal to the dense layer, cloud by cloud, whatever else is in the batch."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import Sequential, global_max_pool

import pointcentroid as pc
from pointcentroid.geometry.fps import farthest_point_sampling
from pointcentroid.pyg import CentroidPooling, Pooled, farthest_points

from .conftest import EXAMPLES
from .test_encoder import step_sizes_of_one


def ragged(sizes: list[int], channels: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(sizes), channels, generator=generator, dtype=torch.float64)
    pos = torch.randn(sum(sizes), 3, generator=generator, dtype=torch.float64)
    return x, pos, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def layer(axis: str = "inputs", steps: int = 1, norm: str = "batch") -> CentroidPooling:
    torch.manual_seed(0)
    options: Any = {"axis": axis, "steps": steps, "norm": norm}
    return step_sizes_of_one(CentroidPooling(5, 12, 8, neighbours=6, heads=2, **options)).double()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize(("axis", "steps"), list(itertools.product(("inputs", "centroids"), (1, 2))))
def test_equal_clouds_give_what_the_dense_layer_gives(axis: str, steps: int, norm: str, training: bool) -> None:
    pool = layer(axis, steps, norm).train(training)
    x, pos, batch = ragged([40, 40, 40])
    out = pool(x, pos, batch)
    dense = pool.stage(pos.view(3, 40, 3), x.view(3, 40, 5), assignments=True)
    torch.testing.assert_close(out.x.view(3, 8, 12), dense.features)
    torch.testing.assert_close(out.pos.view(3, 8, 3), dense.positions)
    assert out.batch.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    matrix = torch.zeros(120, 24, dtype=torch.float64)
    matrix[out.edge_index[0], out.edge_index[1]] = out.weight
    for number in range(3):
        block = matrix[40 * number : 40 * number + 40, 8 * number : 8 * number + 8]
        torch.testing.assert_close(block, dense.combined[number])
    assert matrix.sum() == pytest.approx(float(dense.combined.sum())), "no edge leaves its cloud"


@given(st.integers(1, 20), st.sampled_from([1, 6, 16]), st.integers(0, 5))
def test_clouds_of_fewer_points_than_are_listed_give_what_the_dense_layer_gives(
    size: int, neighbours: int, seed: int
) -> None:
    torch.manual_seed(seed)
    pool = step_sizes_of_one(CentroidPooling(5, 12, 8, neighbours=neighbours, heads=2)).double().eval()
    x, pos, batch = ragged([size, size], seed=seed)
    out, dense = pool(x, pos, batch), pool.stage(pos.view(2, size, 3), x.view(2, size, 5))
    torch.testing.assert_close(out.x.view(dense.features.shape), dense.features)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(0, 5))
def test_a_cloud_is_pooled_the_same_in_any_company(sizes: list[int], seed: int) -> None:
    pool = layer().eval()
    x, pos, batch = ragged(sizes, seed=seed)
    together = pool(x, pos, batch, batch_size=len(sizes))
    assert torch.bincount(together.batch, minlength=len(sizes)).tolist() == [min(8, size) for size in sizes]
    for number in range(len(sizes)):
        mine = batch == number
        alone = pool(x[mine], pos[mine])
        here = together.batch == number
        torch.testing.assert_close(together.x[here], alone.x)
        assert torch.equal(together.pos[here], alone.pos)
    for given_to in range(len(x)):
        edges = together.edge_index[0] == given_to
        if edges.any():
            assert float(together.weight[edges].sum()) == pytest.approx(1)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 50), st.integers(0, 5))
def test_ragged_farthest_points_are_those_of_each_cloud(sizes: list[int], count: int, seed: int) -> None:
    _, pos, batch = ragged(sizes, seed=seed)
    picked = farthest_points(pos, batch, torch.tensor(sizes), count)
    start, expected = 0, []
    for size in sizes:
        own = farthest_point_sampling(pos[start : start + size].unsqueeze(0), min(count, size))[0]
        expected += (own + start).tolist()
        start += size
    assert picked.tolist() == expected


def test_farthest_points_differ_where_points_coincide() -> None:
    batch = torch.tensor([0] * 4 + [1] * 3)
    picked = farthest_points(torch.ones(7, 3), batch, torch.tensor([4, 3]), 4)
    assert sorted(picked.tolist()) == list(range(7))


def test_odd_input_has_a_defined_result_or_a_clear_error() -> None:
    pool = layer()
    x, pos, batch = ragged([1, 20])
    out = pool(x, pos, batch, batch_size=4)
    assert torch.bincount(out.batch, minlength=4).tolist() == [1, 8, 0, 0]
    assert out.x.isfinite().all()
    empty = pool(x[:0], pos[:0], batch[:0], batch_size=3)
    assert (len(empty.x), empty.edge_index.shape) == (0, (2, 0))
    with pytest.raises(ValueError, match="not finite"):
        pool(x, pos.where(pos < pos.max(), torch.nan), batch)
    with pytest.raises(ValueError, match="ascending"):
        pool(x, pos, batch.flip(0))
    with pytest.raises(ValueError, match=r"x of shape \(N, 5\)"):
        pool(x[:, :4], pos, batch)
    with pytest.raises(pc.PointCentroidError, match="multiple"):
        CentroidPooling(5, 13, 8)


def test_it_works_in_sequential_and_learns_every_parameter() -> None:
    torch.manual_seed(0)
    net = Sequential(
        "x, pos, batch",
        [
            (CentroidPooling(3, 16, 32), "x, pos, batch -> x, pos, batch, edges, weight"),
            (CentroidPooling(16, 32, 8, axis="centroids"), "x, pos, batch -> x, pos, batch, edges, weight"),
            (global_max_pool, "x, batch -> x"),
            nn.Linear(32, 4),
        ],
    )
    step_sizes_of_one(net)
    batch = Batch.from_data_list([Data(pos=torch.randn(n, 3)) for n in (50, 3, 80)])
    out = net(None, batch.pos, batch.batch)
    assert out.shape == (3, 4)
    out.square().sum().backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []
    names = [name for name, _ in net.named_parameters()]
    assert len(names) == len(set(names)) == len({id(p) for p in net.parameters()})
    assert isinstance(CentroidPooling(3, 16, 4)(None, torch.randn(9, 3)), Pooled)


def test_the_predictor_takes_batches() -> None:
    predictor = pc.load("small", "cpu")
    shapes = [pc.read(EXAMPLES / name) for name in ("chair.off", "lamp.glb")]
    items = [Data(pos=torch.from_numpy(s.vertices), face=torch.from_numpy(s.faces.T.copy())) for s in shapes]
    expected = [predictor(s, up="z").confidence for s in shapes]
    assert [p.confidence for p in predictor.predict(items, up="z")] == pytest.approx(expected, abs=1e-5)
    clouds = Batch.from_data_list([Data(pos=torch.from_numpy(s.vertices)) for s in shapes])
    labels = [p.label for p in predictor.predict(clouds, up="z")]
    assert labels == [predictor(s.vertices, up="z").label for s in shapes]
