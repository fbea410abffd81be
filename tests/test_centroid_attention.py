"""The layer against its definition: loops, torch's own attention, and what the equations promise."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from pointcentroid.nn.centroid_attention import CentroidAttention, Neighbours, assignment

AXES, SIDES = ("inputs", "centroids"), ("centroids", "inputs")


def layer(axis: str, **options) -> CentroidAttention:
    torch.manual_seed(0)
    built = CentroidAttention(8, 6, heads=2, axis=axis, **options).double()  # type: ignore[arg-type]
    if isinstance(built.step_size, torch.nn.Parameter):
        torch.nn.init.uniform_(built.step_size, 0.5, 1.5)
    return built


def lists(side: str, inputs: int, centroids: int, length: int, batch: int = 2) -> Neighbours:
    """Random lists without repetition."""
    rows, listed = (centroids, inputs) if side == "centroids" else (inputs, centroids)
    index = torch.rand(batch, rows, listed).argsort(dim=2)[:, :, :length]
    return Neighbours(index, side, inputs, centroids)  # type: ignore[arg-type]


def slow(net: CentroidAttention, u: Tensor, tokens: dict[tuple[int, int], Tensor]) -> tuple[Tensor, dict]:
    """The equations at the top of the module, pair by pair, for one cloud. `tokens` maps (i, j) to x_i as j sees it."""
    width = net.dim // net.heads
    weights: dict = {}
    for _ in range(net.steps):
        new = []
        queries = net.query(net.norm(u))
        for head in range(net.heads):
            part = slice(head * width, (head + 1) * width)
            logit = {(i, j): (queries[j, part] @ net.key(x)[part]) / width**0.5 for (i, j), x in tokens.items()}
            group = 1 if net.axis == "inputs" else 0  # the softmax runs over pairs that share this entity
            weights[head] = {
                pair: value.exp() / sum(v.exp() for p, v in logit.items() if p[group] == pair[group])
                for pair, value in logit.items()
            }
        for j in range(len(u)):
            heads = []
            for head in range(net.heads):
                part = slice(head * width, (head + 1) * width)
                mine = {i: w for (i, k), w in weights[head].items() if k == j}
                total = sum((w * net.value(tokens[i, j])[part] for i, w in mine.items()), torch.zeros(width).double())
                if net.axis == "centroids" and mine:
                    total = total / sum(mine.values())
                heads.append(total)
            new.append(u[j] + net.step_size * net.out(torch.cat(heads)))
        u = torch.stack(new)
    return u, weights


@pytest.mark.parametrize(("axis", "side", "steps"), list(itertools.product(AXES, SIDES, (1, 2))))
def test_listed_attention_equals_the_equations(axis: str, side: str, steps: int) -> None:
    net = layer(axis, steps=steps)
    neighbours = lists(side, inputs=7, centroids=4, length=3)
    pairs = torch.randn(*neighbours.index.shape, 6).double()
    u = torch.randn(2, 4, 8).double()
    found, log_weights = net(u, pairs, neighbours)
    weights = log_weights.exp()
    for b in range(2):
        tokens, place = {}, {}
        for row, entries in enumerate(neighbours.index[b].tolist()):
            for column, entry in enumerate(entries):
                pair = (entry, row) if side == "centroids" else (row, entry)
                tokens[pair], place[pair] = pairs[b, row, column], (row, column)
        expected, slow_weights = slow(net, u[b], tokens)
        torch.testing.assert_close(found[b], expected)
        for head in range(2):
            for pair, value in slow_weights[head].items():
                torch.testing.assert_close(weights[b, head][place[pair]], value)


@pytest.mark.parametrize(("axis", "steps"), list(itertools.product(AXES, (1, 3))))
def test_full_attention_equals_the_equations(axis: str, steps: int) -> None:
    net = layer(axis, steps=steps, step_size=0.3)
    x, u = torch.randn(2, 5, 6).double(), torch.randn(2, 3, 8).double()
    found, _ = net(u, x)
    for b in range(2):
        tokens = {(i, j): x[b, i] for i in range(5) for j in range(3)}
        torch.testing.assert_close(found[b], slow(net, u[b], tokens)[0])


@pytest.mark.parametrize(("axis", "side"), list(itertools.product(AXES, SIDES)))
def test_lists_of_everything_equal_full_attention(axis: str, side: str) -> None:
    net = layer(axis, steps=2)
    x, u = torch.randn(2, 7, 6).double(), torch.randn(2, 4, 8).double()
    neighbours = lists(side, inputs=7, centroids=4, length=7 if side == "centroids" else 4)
    if side == "centroids":
        pairs = torch.stack([x[b][neighbours.index[b]] for b in range(2)])
    else:
        pairs = x.unsqueeze(2).expand(-1, -1, 4, -1)
    full, full_log_weights = net(u, x)
    listed, log_weights = net(u, pairs, neighbours)
    torch.testing.assert_close(listed, full)
    torch.testing.assert_close(assignment(log_weights, neighbours), assignment(full_log_weights))


def test_is_multi_head_self_attention_where_the_method_says_so() -> None:
    """M = N, u = x, T = 1, softmax over inputs: exactly torch's multi-head attention, plus the residual."""
    torch.manual_seed(0)
    net = CentroidAttention(32, heads=4, axis="inputs", norm="none").double()
    x = torch.randn(3, 11, 32).double()
    found, log_weights = net(x, x)
    expected, expected_weights = torch.nn.functional.multi_head_attention_forward(
        *[x.transpose(0, 1)] * 3, 32, 4, None, None, None, None, False, 0.0, net.out.weight, None,
        use_separate_proj_weight=True, q_proj_weight=net.query.weight, k_proj_weight=net.key.weight,
        v_proj_weight=net.value.weight, average_attn_weights=False,
    )  # fmt: skip
    assert expected_weights is not None
    torch.testing.assert_close(found - x, expected.transpose(0, 1), rtol=0, atol=1e-14)
    torch.testing.assert_close(log_weights.exp(), expected_weights, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("axis", "side"), list(itertools.product(AXES, SIDES)))
def test_weights_hold_the_mass_that_the_axis_promises(axis: str, side: str) -> None:
    neighbours = lists(side, inputs=9, centroids=5, length=3)
    pairs = torch.randn(*neighbours.index.shape, 6).double() * 30  # sharp: the softmax must not overflow
    _, log_weights = layer(axis)(torch.randn(2, 5, 8).double() * 30, pairs, neighbours)
    weights = log_weights.exp()
    dense = torch.zeros(2, 2, *((5, 9) if side == "centroids" else (9, 5))).double()
    dense.scatter_add_(3, neighbours.index.unsqueeze(1).expand(-1, 2, -1, -1), weights)
    by_input = dense.sum(dim=2) if side == "centroids" else dense.sum(dim=3)
    by_centroid = dense.sum(dim=3) if side == "centroids" else dense.sum(dim=2)
    mass = by_centroid if axis == "inputs" else by_input
    # One unit each, none for those on no list.
    torch.testing.assert_close(mass, (mass > 0).double())
    assert mass.sum() > 0


@pytest.mark.parametrize(("axis", "side"), list(itertools.product(AXES, SIDES)))
def test_assignments_are_shares(axis: str, side: str) -> None:
    neighbours = lists(side, inputs=12, centroids=5, length=2)
    pairs = torch.randn(*neighbours.index.shape, 6).double()
    _, log_weights = layer(axis)(torch.randn(2, 5, 8).double(), pairs, neighbours)
    shares = assignment(log_weights, neighbours)
    assert shares.shape == (2, 2, 12, 5)
    assert (shares >= 0).all()
    listed = torch.ones(2, 12, dtype=torch.bool)
    if side == "centroids":
        listed = torch.zeros(2, 12, dtype=torch.bool)
        listed.scatter_(1, neighbours.index.flatten(1), True)
    torch.testing.assert_close(shares.sum(dim=3), listed.double().unsqueeze(1).expand(-1, 2, -1))


@pytest.mark.parametrize("axis", AXES)
def test_inputs_that_a_sharp_attention_ignores_are_still_assigned(axis: str) -> None:
    # float32 rounds these weights to zero; the shares of an input among centroids are defined all the same.
    neighbours = lists("centroids", inputs=12, centroids=5, length=12)
    pairs = 1e4 * torch.randn(2, 5, 12, 6)
    _, log_weights = layer(axis).float()(torch.randn(2, 5, 8), pairs, neighbours)
    assert (log_weights.exp() == 0).float().mean() > 0.5
    torch.testing.assert_close(assignment(log_weights, neighbours).sum(dim=3), torch.ones(2, 2, 12))


def test_a_centroid_that_nobody_lists_stays_where_it_is() -> None:
    net = layer("centroids")
    neighbours = Neighbours(torch.zeros(1, 6, 1, dtype=torch.int64), "inputs", inputs=6, centroids=3)
    u = torch.randn(1, 3, 8).double()
    moved, _ = net(u, torch.randn(1, 6, 1, 6).double(), neighbours)
    assert torch.equal(moved[:, 1:], u[:, 1:])
    assert not torch.equal(moved[:, 0], u[:, 0])


@pytest.mark.parametrize(("axis", "side"), list(itertools.product(AXES, SIDES)))
def test_gradients_are_right(axis: str, side: str) -> None:
    net = layer(axis)
    neighbours = lists(side, inputs=5, centroids=3, length=2, batch=1)
    pairs = torch.randn(*neighbours.index.shape, 6).double().requires_grad_()
    u = torch.randn(1, 3, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: net(a, b, neighbours)[0], (u, pairs))


@pytest.mark.parametrize("axis", AXES)
def test_the_order_of_inputs_does_not_matter(axis: str) -> None:
    net = layer(axis)
    x, u = torch.randn(1, 9, 6).double(), torch.randn(1, 4, 8).double()
    torch.testing.assert_close(net(u, x)[0], net(u, x[:, torch.randperm(9)])[0])


@pytest.mark.parametrize("options", [{"heads": 3}, {"heads": 0}, {"axis": "points"}, {"steps": 0}])
def test_bad_options_name_the_value(options) -> None:
    with pytest.raises(ValueError, match="found"):
        CentroidAttention(8, **options)
