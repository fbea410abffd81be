"""Damaged and foreign training clouds: what is changed, what is not, and that company changes nothing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pointcentroid.config import AugmentConfig, ClassifierConfig, PreprocessConfig, TrainConfig
from pointcentroid.data.augment import CounterRandom, augment, bent, normalised, refilled
from pointcentroid.data.clouds import CloudSet
from pointcentroid.data.corruptions import DIRECTIONS, seen_from
from pointcentroid.data.damage import _hole, _leaning, damage, visible
from pointcentroid.data.foreign import _piece, make_foreign
from pointcentroid.data.module import CloudData, varied
from pointcentroid.errors import ConfigError
from pointcentroid.geometry.axes import TO_Z_UP, UP_AXES
from pointcentroid.geometry.fps import farthest_first


def clouds(count: int, points: int = 256, seed: int = 0) -> Tensor:
    return normalised(torch.randn(count, points, 3, generator=torch.Generator().manual_seed(seed)))


def damaged(points: Tensor, rows: list[int], probability: float = 1.0) -> Tensor:
    return damage(points[rows], CounterRandom(3, 7, torch.tensor(rows)), probability)


def test_every_epoch_varies_clouds_and_their_order_anew() -> None:
    config = TrainConfig(data="it", model=ClassifierConfig(classes=2), preprocess=PreprocessConfig(256, 256))
    batch = clouds(8), torch.zeros(8, dtype=torch.int64), torch.arange(8)
    first, again, next_one = (varied(batch, config, epoch)[0] for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first != next_one).flatten(1).any(dim=1).all()
    data = CloudData(
        config, CloudSet(clouds(40).numpy(), np.arange(40) % 2, [str(i) for i in range(40)], ("a", "b"), [""] * 40)
    )
    orders = []
    for epoch in (0, 0, 1):
        data.trainer = SimpleNamespace(current_epoch=epoch, world_size=1, global_rank=0, training=True)  # type: ignore[assignment]
        orders.append([row for batch in data.train_dataloader() for row in batch[2].tolist()])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


@pytest.mark.parametrize("change", [{"damage": 0.5}, {"reseed": True}, {"foreign": 0.5}])
def test_what_the_net_is_told_to_be_in_farthest_point_order_is(change: dict) -> None:
    model = ClassifierConfig(classes=2, known="foreign" in change)
    still = {"scale": 1.0, "shift": 0.0, "jitter": 0.0, "mirror": 0.0, "reseed": False}
    config = TrainConfig(
        data="it", model=model, preprocess=PreprocessConfig(256, 256), augment=AugmentConfig(**(still | change))
    )
    batch = farthest_first(clouds(16), 256), torch.zeros(16, dtype=torch.int64), torch.arange(16)
    made = varied(batch, config, 0)[0]
    first = (made[:, :1] - made).square().sum(dim=2)
    assert (first[:, 1:].amin(dim=1) > 0).all()
    assert torch.equal(made, farthest_first(made, model.seeds, torch.zeros(16, dtype=torch.int64)))


STILL = {"scale": 1.0, "shift": 0.0, "jitter": 0.0, "mirror": 0.0, "quarter_turn": 0.0, "turn": 0.0, "dropout": 0.0}


def changed_by(points: Tensor, **change: float) -> Tensor:
    return augment(points, CounterRandom(0, 0, torch.arange(len(points))), AugmentConfig(**(STILL | change)))


def test_a_mirror_changes_left_and_right_alone() -> None:
    points = clouds(4)
    assert torch.equal(changed_by(points), points)
    torch.testing.assert_close(changed_by(points, mirror=1.0), points * torch.tensor([-1.0, 1, 1]))


def test_quarter_turns_are_by_one_two_or_three_quarters_alike_often() -> None:
    points = torch.tensor([[[1.0, 0, 0], [0, 0, 1]]]).expand(600, 2, 3)
    made = changed_by(points, quarter_turn=1.0)
    torch.testing.assert_close(made[:, 1], points[:, 1])
    to = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    hits = (made[:, 0].unsqueeze(1) - to).norm(dim=2) < 1e-6
    assert (hits.sum(dim=1) == 1).all(), "none stays as it is"
    assert (hits.sum(dim=0) > 150).all()


def test_jitter_is_normal_and_cut_at_three_deviations() -> None:
    points = torch.zeros(40, 1000, 3)
    noise = changed_by(points, jitter=0.01)
    assert noise.std() == pytest.approx(0.01, rel=0.03)
    assert noise.abs().max() == pytest.approx(0.03)


def test_damage_is_a_function_of_the_sample_and_not_of_its_company() -> None:
    points = clouds(64)
    together = damaged(points, list(range(64)))
    assert (together != points).flatten(1).any(dim=1).all()
    for row in range(64):
        assert torch.allclose(damaged(points, [row])[0], together[row], atol=1e-6)
    some = damaged(points, list(range(64)), 0.3)
    untouched = (some == points).flatten(1).all(dim=1)
    assert 30 < int(untouched.sum()) < 60
    assert torch.equal(damaged(points, list(range(64)), 0.0), points)


def test_what_is_damaged_or_foreign_lies_as_the_predictor_would_lay_it() -> None:
    points = clouds(300)
    for made in (damaged(points, list(range(300))), make_foreign(points, CounterRandom(0, 0, torch.arange(300)), 1.0)[0]):
        assert made.isfinite().all()
        torch.testing.assert_close(made.mean(dim=1), torch.zeros(300, 3), atol=1e-5, rtol=0)
        torch.testing.assert_close(made.norm(dim=2).amax(dim=1), torch.ones(300), atol=1e-5, rtol=0)


def test_foreign_clouds_are_marked_and_the_others_are_left_alone() -> None:
    points = clouds(2000, 32)
    made, foreign = make_foreign(points, CounterRandom(0, 0, torch.arange(2000)), 0.25)
    assert torch.equal(made[~foreign], points[~foreign])
    assert (made[foreign] != points[foreign]).flatten(1).any(dim=1).all()
    assert 0.22 < float(foreign.float().mean()) < 0.28


def test_half_of_the_foreign_have_a_wrong_axis_up_and_none_has_the_right_one() -> None:
    """A cloud whose points are told apart by their distance from the middle shows how it was turned."""
    axes = torch.diag(torch.tensor([0.2, 0.5, 1.0])).repeat_interleave(2, dim=0)
    cloud = axes * torch.tensor([1.0, -1.0] * 3).unsqueeze(1)
    cloud = cloud.repeat(20, 1)
    points = cloud.repeat(1000, 1, 1)
    made, _ = make_foreign(points, CounterRandom(1, 0, torch.arange(1000)), 1.0)
    top = made[:, 4]  # where z went
    turned = ((made.norm(dim=2) - cloud.norm(dim=1)).abs() < 1e-5).all(dim=1)
    ups = [float(((top - torch.from_numpy(TO_Z_UP[up][2]).float()).norm(dim=1) < 1e-5).float().mean()) for up in UP_AXES]
    assert turned.float().mean() > 0.5  # tilted ones are rigid too
    assert ups[UP_AXES.index("z")] == 0
    assert 0.45 < sum(ups) < 0.55
    assert min(share for up, share in zip(UP_AXES, ups, strict=True) if up != "z") > 0.06


def test_damage_and_pieces_are_as_large_as_they_say() -> None:
    points = clouds(500, 64)
    draws, noise = torch.rand(500, 22, generator=torch.Generator().manual_seed(1)), torch.rand(500, 64)
    with pytest.MonkeyPatch.context() as patch:
        kept = []
        for module in ("damage", "foreign"):
            patch.setattr(f"pointcentroid.data.{module}.refilled", lambda p, _, count, __: (kept.append(count), p)[1])
        _hole(points, draws, noise, points)
        _piece(points, draws, noise)
    for count, low, high in ((kept[0], 0.5, 1.0), (kept[1], 0.1, 0.3)):
        share = count / 64
        assert low - 1 / 64 <= share.min() < low + 0.02
        assert high - 0.03 < share.max() <= high
    upright = torch.eye(3).expand(500, 3, 3)
    draws[:, 2:4] = 0.5  # no shear
    up = _leaning(upright, draws, noise, upright)[:, 2]
    angle = torch.rad2deg(torch.acos(up[:, 2].clamp(-1, 1)))
    assert 19.5 < angle.max() < 20.01
    assert angle.min() < 0.5


def test_a_share_of_the_clouds_is_bent_and_gently() -> None:
    points, samples = clouds(400), torch.arange(400)
    still = AugmentConfig(scale=1, shift=0, jitter=0, warp=0.3)
    made = augment(points, CounterRandom(5, 2, samples), still)
    away = (made - points).norm(dim=2)
    assert 0.22 < float((away > 0).any(dim=1).float().mean()) < 0.38
    assert float(away.max()) <= 0.3  # three waves of at most a tenth
    some = torch.tensor([7, 99, 250])
    torch.testing.assert_close(augment(points[some], CounterRandom(5, 2, some), still), made[some], atol=1e-6, rtol=0)
    assert torch.equal(bent(points, torch.rand(400, 21), torch.zeros(400, 3)), points)


@given(st.integers(0, 10_000))
def test_the_near_side_of_a_ball_is_seen_and_the_far_side_is_not(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ball = torch.nn.functional.normalize(torch.randn(1, 2048, 3, generator=generator), dim=2)
    eye = torch.nn.functional.normalize(torch.randn(1, 3, generator=generator), dim=1)
    height = (ball @ eye.unsqueeze(2))[0, :, 0]
    seen = visible(ball, eye)[0]
    assert seen[height > 0.5].all()
    assert seen[height < -0.5].float().mean() < 0.1


@given(st.integers(1, 40), st.integers(0, 1000))
def test_a_refilled_cloud_holds_what_was_kept_and_points_between_neighbours(kept: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.normal(size=(2, 40, 3)).astype(np.float32))
    order = torch.from_numpy(np.stack([rng.permutation(40) for _ in range(2)]))
    noise = torch.from_numpy(rng.random((2, 40), dtype=np.float32))
    made = refilled(points, order, torch.tensor([kept, 40]), noise)
    assert torch.equal(made[1], points[1])
    stay = order[0, :kept]
    assert torch.equal(made[0, stay], points[0, stay])
    # Each lies between one that was kept and one of the seven nearest to that: the way over it is no detour.
    distance = torch.cdist(points[0, stay].double(), points[0, stay].double(), compute_mode="donot_use_mm_for_euclid_dist")
    near = distance <= distance.kthvalue(min(7, kept), dim=1, keepdim=True).values
    way = (made[0].double().unsqueeze(1) - points[0, stay]).norm(dim=2)
    detour = way.unsqueeze(2) + way.unsqueeze(1) - distance
    assert float(detour[:, near].amin(dim=1).max()) < 1e-5


@pytest.mark.parametrize(
    ("known", "augment", "says"),
    [
        (True, AugmentConfig(foreign=0), "model.known is learnt from augment.foreign"),
        (True, AugmentConfig(mix=0.5), "exclude each other"),
    ],
)
def test_settings_that_do_not_fit_each_other_say_so(known: bool, augment: AugmentConfig, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        TrainConfig(model=ClassifierConfig(known=known), augment=augment)


@given(st.integers(1, 60), st.sampled_from(DIRECTIONS), st.integers(0, 999))
def test_what_a_sensor_sees_is_what_nothing_hides(count: int, direction: tuple[float, float], seed: int) -> None:
    """Against a plain loop over pairs of points, along the line of sight."""
    cloud = np.random.default_rng(seed).uniform(-0.3, 0.3, size=(count, 3))
    azimuth, elevation = np.radians(direction)
    eye = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])

    def hides(other: np.ndarray, point: np.ndarray) -> bool:
        ahead = (other - point) @ eye
        aside = np.linalg.norm(other - point - ahead * eye)
        return bool(ahead > 0.2 and aside < 0.08)

    expected = [point for point in cloud if not any(hides(other, point) for other in cloud)]
    np.testing.assert_array_equal(seen_from(cloud, *direction), np.array(expected).reshape(-1, 3))
