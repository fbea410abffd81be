"""PointNet++, trained and asked as ours are."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pointcentroid.data.clouds import load_npz
from pointcentroid.geometry.fps import farthest_first
from pointcentroid.geometry.sampling import preprocess

from .conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import alike
from classic import PointNet2


@pytest.fixture(scope="module")
def boxes(tmp_path_factory) -> Path:
    """Two classes of twenty boxes, long along another axis each, of 1,024 points."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(2), 20)
    points = (rng.random((40, 1024, 3)) * 2 - 1) * np.where(np.arange(3) == labels[:, None], 1.0, 0.3)[:, None, :]
    path = tmp_path_factory.mktemp("boxes") / "boxes.npz"
    names = np.array([f"box_{number:04d}" for number in range(40)])
    made = np.rint((points + 1) * 2047.5).astype(np.uint16)
    np.savez(path, points=made, labels=labels.astype(np.uint8), names=names, classes=np.array(["x", "y"]))
    return path


def test_clouds_in_farthest_point_order_need_no_sampling() -> None:
    points = farthest_first(torch.randn(2, 600, 3, generator=torch.Generator().manual_seed(0)), PointNet2.CENTRES)
    torch.manual_seed(0)
    net = PointNet2(5).eval()
    with torch.inference_mode():
        assert torch.equal(net(points), net(points, ordered=True))


def test_trained_weights_answer_through_the_predictor_as_the_net_does(boxes: Path, tmp_path: Path) -> None:
    weights = tmp_path / "pointnet2.safetensors"
    done = CliRunner().invoke(alike.app, ["train", "--data", str(boxes), "-o", str(weights), "--epochs", "1"])
    assert done.exit_code == 0, done.output
    assert "epoch 1/1" in done.output
    predictor, clouds = alike.ClassicPredictor(weights), load_npz(boxes).points[[0, 30]]
    found = list(predictor.predict(clouds, up="z"))
    seen = np.stack([preprocess(cloud, None, 1024, 0) for cloud in clouds])
    with torch.inference_mode():
        logits = predictor.net.module(torch.from_numpy(seen))
    for answer, shares in zip(found, logits.softmax(dim=1), strict=True):
        assert dict(answer.top) == pytest.approx(dict(zip(["x", "y"], shares.tolist(), strict=True)), abs=1e-4)


def test_a_step_moves_the_weights_and_their_average_follows(boxes: Path) -> None:
    config = alike.recipe(2)
    training = alike.Training(config, 2, 10, torch.device("cpu"))
    before = [tensor.clone() for tensor in training.here]
    clouds = torch.from_numpy(load_npz(boxes).points[:4])
    training.step(farthest_first(clouds, PointNet2.CENTRES), torch.tensor([0, 0, 1, 1]))
    kept = 2 / 11  # (1 + 1) / (10 + 1), see `pointcentroid.train.callbacks.kept_share`
    assert any(not torch.equal(old, new) for old, new in zip(before, training.here, strict=True))
    for old, new, mean in zip(before, training.here, training.mean, strict=True):
        torch.testing.assert_close(mean, kept * old + (1 - kept) * new)
