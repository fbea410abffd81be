"""Batch norms: what they are in training, and that they vanish from trained nets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pointcentroid.geometry.neighbours import gather_points
from pointcentroid.models import create_model
from pointcentroid.nn.encoder import SelfAttentionBlock
from pointcentroid.nn.local import DropPath, LocalBlock, neighbour_max
from pointcentroid.nn.norm import BatchNorm, LinearNorm, fold


def trained(net: nn.Module) -> nn.Module:
    """A net whose norms have seen something, with scales of both signs, and whose step sizes are not zero."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in net.named_parameters():
        if "norm" in name or "step_size" in name or "inner" in name:
            nn.init.normal_(parameter, generator=generator)
    net.train()
    for _ in range(3):
        net(torch.randn(8, 200, 3, generator=generator) * 0.5)
    return net.eval()


@pytest.mark.parametrize("name", ["small", "tiny"])
def test_a_folded_net_computes_the_same_and_holds_no_batch_norm(name: str) -> None:
    net = trained(create_model(name))
    clouds = torch.randn(4, 300, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = net(clouds)
        fold(net)
        after = net(clouds)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5 * float(before.abs().max()))
    assert not [m for m in net.modules() if isinstance(m, (nn.BatchNorm1d, LinearNorm))]


def test_normalises_over_everything_but_the_last_dimension() -> None:
    x = torch.randn(3, 5, 7, 4) * 3 + 2
    made = BatchNorm(4).train()(x).flatten(0, 2)
    torch.testing.assert_close(made.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(made.std(dim=0, correction=0), torch.ones(4), atol=1e-4, rtol=0)


def test_a_single_value_is_normalised_as_in_evaluation_and_not_remembered() -> None:
    norm = BatchNorm(4).train()
    norm(torch.randn(100, 4) * 2 + 1)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    x = torch.randn(1, 4)
    made = norm(x)
    assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())
    assert torch.equal(made, norm.eval()(x))


def test_a_batch_of_one_cloud_of_one_point_can_be_trained_on() -> None:
    net = create_model("tiny").train()
    loss = net(torch.zeros(1, 1, 3)).sum()
    loss.backward()
    assert loss.isfinite()


@given(st.data())
def test_largest_neighbours_and_their_gradients_are_those_of_the_plain_way(data: st.DataObject) -> None:
    batch, rows, listed, count, channels = (data.draw(st.integers(1, 6)) for _ in range(5))
    kind = data.draw(st.sampled_from([torch.float32, torch.bfloat16]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    scale = data.draw(st.sampled_from([1e-38, 1.0, 1e30]))
    # All values of a channel differ, so that the largest one is one row; rows may be listed twice.
    values = torch.randn(batch, rows, channels, generator=generator).to(kind) * scale
    index = torch.randint(rows, (batch, count, listed), generator=generator)
    ours, plain = values.clone().requires_grad_(), values.clone().requires_grad_()
    made, expected = neighbour_max(ours, index), gather_points(plain, index).max(dim=2).values
    assert torch.equal(made, expected)
    assert torch.equal(neighbour_max(values, index), expected)
    exact = values.double().requires_grad_()
    assert neighbour_max(exact, index).dtype == torch.float64, "doubles are not rounded"
    weights = torch.randn(made.shape, generator=generator).to(kind)
    made.backward(weights)
    expected.backward(weights)
    distinct = all(len(set(v.tolist())) == rows for v in values.transpose(1, 2).flatten(0, 1).float())
    if distinct:
        torch.testing.assert_close(ours.grad, plain.grad)
    assert ours.grad.isfinite().all()


def test_a_dropped_branch_keeps_its_mean_and_is_there_in_evaluation() -> None:
    torch.manual_seed(0)
    drop, branch = DropPath(0.25), torch.ones(4000, 1, 1)
    kept = drop.train()(branch)
    torch.testing.assert_close(kept.unique(), torch.tensor([0.0, 4 / 3]))
    assert abs(float(kept.mean()) - 1) < 0.05
    assert torch.equal(drop.eval()(branch), branch)


def test_each_branch_of_a_block_is_left_out_by_itself() -> None:
    torch.manual_seed(0)
    clouds, centroids, dim = 400, 6, 8
    features, index = torch.randn(clouds, centroids, dim), torch.randint(centroids, (clouds, centroids, 3))
    block = LocalBlock(dim, "layer", 0.5).train()  # what is kept counts twice
    with torch.no_grad():
        made, seen = block(features, index), block.linear(features)
        heard = block.norm(gather_points(seen, index).amax(dim=2) - seen)
        ways = [after + twice * block.feed_forward(after) for after in (features, features + 2 * heard) for twice in (0, 2)]
        taken = torch.stack([torch.isclose(made, way, atol=1e-5).flatten(1).all(dim=1) for way in ways])
    assert (taken.sum(dim=0) == 1).all()
    assert (taken.sum(dim=1) - clouds / 4).abs().max() < 5 * (clouds * 3 / 16) ** 0.5

    attentive = SelfAttentionBlock(dim, 2, 0, "layer", 0.5).train()
    with torch.no_grad():
        made = attentive(torch.randn(clouds, centroids, 3), features)
        after, _ = attentive.attention(features, attentive.norm(features))
        ways = [after + twice * attentive.feed_forward(after) for twice in (0, 2)]
        taken = torch.stack([torch.isclose(made, way, atol=1e-5).flatten(1).all(dim=1) for way in ways])
    assert (taken.sum(dim=0) == 1).all()
    assert (taken.sum(dim=1) - clouds / 2).abs().max() < 5 * (clouds / 4) ** 0.5


@pytest.mark.parametrize(("kind", "expected"), [("float32", (0, 0, 1)), ("bfloat16", (0, 0, 1)), ("float64", (0.5, 0, 0.5))])
def test_where_the_gradient_of_equal_neighbours_goes(kind: str, expected: tuple[float, ...]) -> None:
    values = torch.tensor([[[2.0], [1.0], [2.0]]], dtype=getattr(torch, kind), requires_grad=True)
    neighbour_max(values, torch.tensor([[[2, 1, 0]]])).sum().backward()
    assert values.grad.flatten().tolist() == list(expected)
