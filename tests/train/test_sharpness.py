"""Sharpness-aware steps."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from pointcentroid.nn.norm import BatchNorm
from pointcentroid.train.module import decayed
from pointcentroid.train.sharpness import SharpnessAware
from pointcentroid.weights import load_weights

from .small import train


class TestSharpness:
    @staticmethod
    def problem() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(3, 8, bias=False), BatchNorm(8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        return net, torch.randn(16, 3), torch.randn(16, 1)

    def test_a_step_takes_the_gradient_of_where_the_loss_is_higher(self) -> None:
        net, points, truth = self.problem()
        reference = copy.deepcopy(net)
        optimiser = SharpnessAware(decayed(net, 0.1), 0.01, net, 0.3)

        def closure() -> torch.Tensor:
            net.zero_grad()
            loss = (net(points) - truth).square().mean()
            loss.backward()
            return loss

        for _ in range(3):
            said = optimiser.step(closure)

        plain = torch.optim.AdamW(decayed(reference, 0.1), lr=0.01)
        for _ in range(3):
            weights = list(reference.parameters())
            here = (reference(points) - truth).square().mean()
            slopes = torch.autograd.grad(here, weights)
            length = sum(float(slope.square().sum()) for slope in slopes) ** 0.5
            away = copy.deepcopy(reference)
            for weight, slope in zip(away.parameters(), slopes, strict=True):
                weight.data += 0.3 / length * slope
            there = (away(points) - truth).square().mean()
            for weight, slope in zip(weights, torch.autograd.grad(there, list(away.parameters())), strict=True):
                weight.grad = slope
            plain.step()
            assert float(there) > float(here)
        assert float(said) == pytest.approx(float(here))
        expected = reference.state_dict()
        for name, value in net.state_dict().items():
            if "tracked" not in name:  # also the running statistics, of batches that the weights themselves have seen
                torch.testing.assert_close(value, expected[name])

    def test_it_is_used_when_it_is_asked_for(self, toy: Path, tmp_path: Path) -> None:
        sharp, flat = (train(toy, tmp_path / str(r), "epochs=1", f"sharpness={r}") for r in (0.1, 0))
        first, second = load_weights(sharp)[0], load_weights(flat)[0]
        assert not any(torch.equal(first[name], second[name]) for name in first if first[name].ndim > 1)
