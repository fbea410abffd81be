"""Training: deterministic, from data set to usable weights, through the public command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import pointcentroid as pc
from pointcentroid.config import AugmentConfig
from pointcentroid.data.augment import CounterRandom, augment, reorient
from pointcentroid.data.sources import load_clouds, split_validation
from pointcentroid.errors import DataError
from pointcentroid.geometry.orientation import TO_Z_UP, UP_AXES
from pointcentroid.weights import load_weights

from .test_cli import run


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """Two classes that a small net tells apart at once: flat plates and long rods, 40 shapes each."""
    rng = np.random.default_rng(0)
    shapes = []
    for number in range(80):
        cloud = rng.uniform(-1, 1, size=(128, 3)) * ((1, 1, 0.05) if number % 2 else (0.05, 0.05, 1))
        cloud -= cloud.mean(axis=0)
        shapes.append(cloud / np.linalg.norm(cloud, axis=1).max())
    path = tmp_path_factory.mktemp("toy") / "toy.npz"
    np.savez(
        path,
        points=np.round((np.array(shapes) + 1) * 2047.5).astype(np.uint16),
        labels=np.arange(80, dtype=np.uint8) % 2,
        names=[f"shape_{i:04d}" for i in range(80)],
        classes=["rod", "plate"][:2],
    )
    return path


SMALL = [
    "model.classes=2", "model.hidden=16", "model.encoder.embed=8", "preprocess.sample=128", "preprocess.points=128",
    "model.encoder.stages=[{centroids: 16, dim: 16, neighbours: 8}, {centroids: 4, dim: 16, blocks: 1}]",
    "epochs=8", "batch_size=8", "average=0.9", "learning_rate=0.005", "accelerator=cpu",
]  # fmt: skip


def train(toy: Path, output: Path, *changes: str) -> Path:
    settings = [f"data={toy}", f"output={output}", "name=toy", *SMALL, *changes]
    done = run("train", "modelnet40-small", *settings, "--format", "json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert 0 <= row["validation_overall"] <= 1
    return Path(row["weights"])


@pytest.fixture(scope="module")
def trained(toy: Path, tmp_path_factory) -> Path:
    return train(toy, tmp_path_factory.mktemp("runs"))


def test_training_learns_and_its_weights_predict(trained: Path, toy: Path) -> None:
    predictor = pc.load(trained)
    assert predictor.classes == ("rod", "plate")
    assert predictor.card.metrics["validation_overall"] == 1
    rng = np.random.default_rng(5)
    assert predictor(rng.uniform(-1, 1, size=(900, 3)) * (7, 7, 0.1), up="z").label == "plate"
    done = run("evaluate", trained, "--data", toy, "--format", "json")
    numbers = json.loads(done.stdout)
    assert numbers["overall_accuracy"] == numbers["mean_class_accuracy"] == 1
    assert numbers["shapes"] == 8
    assert numbers["per_class"] == {"rod": 1, "plate": 1}


def test_the_same_seed_gives_the_same_weights_bit_for_bit(toy: Path, tmp_path: Path) -> None:
    a, b, c = (train(toy, tmp_path / n, "epochs=2", f"seed={s}") for n, s in (("a", 1), ("b", 1), ("c", 2)))
    first, second, third = (load_weights(path)[0] for path in (a, b, c))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not all(torch.equal(first[k], third[k]) for k in first)


def test_mismatched_classes_are_an_error(toy: Path, tmp_path: Path) -> None:
    done = run("train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", *SMALL, "model.classes=3")
    assert done.returncode == 2
    assert "2 classes, but model.classes=3" in done.stderr
    done = run("evaluate", "small", "--data", toy)
    assert done.returncode == 2
    assert "which the weights do not know" in done.stderr


class TestSources:
    def test_the_split_is_the_published_one(self, modelnet: Path) -> None:
        clouds = load_clouds(modelnet)
        training, validation = split_validation(clouds.labels)
        rng, expected = np.random.default_rng(0), []
        for label in range(40):
            members = np.flatnonzero(clouds.labels == label)
            expected += rng.permutation(members)[: round(0.1 * len(members))].tolist()
        assert sorted(expected) == validation.tolist()
        assert len(validation) == 985
        assert sorted([*training, *validation]) == list(range(9843))
        assert np.abs(clouds.points.mean(axis=1)).max() < 1e-2
        np.testing.assert_allclose(np.linalg.norm(clouds.points, axis=2).max(axis=1), 1, atol=2e-3)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda a: a.pop("labels"), "not a data set npz"),
            (lambda a: a.update(points=a["points"].astype(float)), "points must be uint16"),
            (lambda a: a.update(names=a["names"][:3]), "3 names"),
            (lambda a: a.update(classes=a["classes"][:1]), "only 1 classes"),
        ],
    )
    def test_bad_data_sets_are_errors(self, toy: Path, tmp_path: Path, change, says: str) -> None:
        with np.load(toy) as arrays:
            content = dict(arrays)
        change(content)
        np.savez(tmp_path / "bad.npz", **content)
        with pytest.raises(DataError, match=says):
            load_clouds(tmp_path / "bad.npz")


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
        turned = augment(clouds, CounterRandom(0, 0, torch.arange(500)), AugmentConfig(scale=1, shift=0, jitter=0, turn=1))
        torch.testing.assert_close(turned[:, 2], clouds[:, 2])
        torch.testing.assert_close(turned.norm(dim=2), torch.ones(500, 3))

    def test_reorienting_puts_the_labelled_axis_up(self) -> None:
        pole = torch.tensor([[0.0, 0, 1]]).expand(300, 1, 3)
        turned, labels = reorient(pole, CounterRandom(0, 0, torch.arange(300)))
        assert set(labels.tolist()) == set(range(6))
        for cloud, label in zip(turned, labels, strict=True):
            back = cloud.double().numpy() @ TO_Z_UP[UP_AXES[label]].T
            np.testing.assert_allclose(back, [[0, 0, 1]], atol=1e-6)
