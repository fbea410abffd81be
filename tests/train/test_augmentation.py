"""Clouds are varied by seed, epoch and number alone."""

from __future__ import annotations

import math

import pytest
import torch

from pointcentroid.config import (
    AugmentConfig,
)
from pointcentroid.data.augment import CounterRandom, augment, mix, reseed
from pointcentroid.geometry.fps import farthest_point_sampling


class TestAugmentation:
    STRONG = AugmentConfig(scale=1.5, shift=0.2, jitter=0.02, mirror=0.5, quarter_turn=0.4, turn=0.3)

    def test_a_sample_gets_the_same_changes_in_any_batch(self) -> None:
        clouds, samples = torch.randn(6, 50, 3), torch.tensor([4, 9, 2, 7, 1, 100])
        together = augment(clouds, CounterRandom(1, 5, samples), self.STRONG)
        for row in (3, 0):
            alone = augment(clouds[row : row + 1], CounterRandom(1, 5, samples[row : row + 1]), self.STRONG)
            torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-6)

    @pytest.mark.parametrize("change", [(2, 5, 0), (1, 6, 0), (1, 5, 1)])
    def test_seed_epoch_and_sample_all_matter(self, change: tuple[int, int, int]) -> None:
        seed, epoch, sample = change
        base = CounterRandom(1, 5, torch.tensor([0])).uniform(100)
        assert not torch.equal(base, CounterRandom(seed, epoch, torch.tensor([sample])).uniform(100))

    def test_numbers_are_uniform_normal_and_independent(self) -> None:
        random = CounterRandom(0, 0, torch.arange(200))
        uniform, normal = random.uniform(500).double(), random.normal(500).double()
        count = uniform.numel()
        counts = torch.histc(uniform, 20, 0, 1)
        chi_square = ((counts - count / 20) ** 2 / (count / 20)).sum()
        assert chi_square < 60  # 19 degrees of freedom: beyond it with probability 4e-6
        assert abs(normal.mean()) < 5 / math.sqrt(count)
        assert abs(normal.var() - 1) < 5 * math.sqrt(2 / count)
        for pair in ((uniform[:-1], uniform[1:]), (uniform[:, :-1], uniform[:, 1:])):
            assert abs(torch.corrcoef(torch.stack([pair[0].flatten(), pair[1].flatten()]))[0, 1]) < 5 / math.sqrt(count)

    def test_neutral_settings_change_nothing(self) -> None:
        clouds = torch.randn(3, 20, 3)
        neutral = AugmentConfig(scale=1, shift=0, jitter=0)
        torch.testing.assert_close(augment(clouds, CounterRandom(0, 0, torch.arange(3)), neutral), clouds)

    def test_changes_stay_within_their_bounds(self) -> None:
        clouds = torch.eye(3).expand(500, 3, 3)
        config = AugmentConfig(scale=1.5, shift=0, jitter=0)
        factors = augment(clouds, CounterRandom(0, 0, torch.arange(500)), config).diagonal(dim1=1, dim2=2)
        assert factors.min() >= 1 / 1.5 - 1e-6
        assert factors.max() <= 1.5 + 1e-6
        assert (factors.min() < 0.7) & (factors.max() > 1.45)
        assert torch.corrcoef(factors.T).triu(1).abs().max() < 5 / math.sqrt(500), "each axis for itself"
        moved = augment(clouds, CounterRandom(0, 0, torch.arange(500)), AugmentConfig(scale=1, shift=0.2, jitter=0)) - clouds
        torch.testing.assert_close(moved, moved[:, :1].expand_as(moved))
        assert moved.abs().max() <= 0.2 + 1e-6
        assert (moved.min() < -0.19) & (moved.max() > 0.19) & (moved.mean().abs() < 0.02)
        turned = augment(clouds, CounterRandom(0, 0, torch.arange(500)), AugmentConfig(scale=1, shift=0, jitter=0, turn=1))
        torch.testing.assert_close(turned[:, 2], clouds[:, 2])
        torch.testing.assert_close(turned.norm(dim=2), torch.ones(500, 3))

    def test_dropped_points_fall_onto_the_first(self) -> None:
        clouds = torch.randn(400, 200, 3)
        config = AugmentConfig(scale=1, shift=0, jitter=0, dropout=0.6)
        dropped = augment(clouds, CounterRandom(0, 0, torch.arange(400)), config)
        kept = (dropped == clouds).all(dim=2)
        assert torch.equal(dropped[~kept], clouds[:, :1].expand_as(clouds)[~kept])
        lost = 1 - kept.float().mean(dim=1)
        assert 0.27 < lost.mean() < 0.33
        assert lost.max() < 0.7
        assert lost.min() < 0.02

    def test_new_seeds_are_farthest_points_from_a_random_start(self) -> None:
        clouds, samples = torch.randn(40, 30, 3), torch.arange(40)
        made = [reseed(clouds, CounterRandom(0, epoch, samples), 8) for epoch in (0, 1)]
        starts = []
        for before, after in zip(clouds, made[0], strict=True):
            start = int((before == after[0]).all(dim=1).nonzero())
            starts.append(start)
            picked = farthest_point_sampling(before.unsqueeze(0), 8, start=start)[0]
            assert torch.equal(after[:8], before[picked])
            assert sorted(after.tolist()) == sorted(before.tolist()), "the same points"
        assert len(set(starts)) > 10
        assert not torch.equal(*made)

    def test_labels_are_mixed_as_points_are(self) -> None:
        clouds = torch.arange(400.0).view(400, 1, 1).expand(400, 64, 3) + torch.arange(64).view(1, 64, 1) / 64
        random = [CounterRandom(0, 0, torch.arange(400)) for _ in range(2)]
        mixed, labels = mix(clouds, torch.eye(400), random[0], 0.5)
        own, following = mixed == clouds, mixed == clouds.roll(-1, dims=0)  # at the same place in the order
        assert (own ^ following).all()
        assert (own.all(dim=2) | following.all(dim=2)).all()
        share = own[:, :, 0].float().mean(dim=1)
        torch.testing.assert_close(labels, torch.diag(share) + torch.diag(1 - share).roll(1, dims=1))
        untouched = share == 1
        assert 0.4 < untouched.float().mean() < 0.6
        assert 0.4 < share[~untouched].mean() < 0.6
        assert all(
            torch.equal(a, b) for a, b in zip(mix(clouds, torch.eye(400), random[1], 0.5), (mixed, labels), strict=True)
        )
