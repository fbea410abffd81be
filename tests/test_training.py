"""Training: deterministic, from data set to usable weights, through the public command."""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import math
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pointcentroid as pc
from pointcentroid.config import (
    AugmentConfig,
    AutoencoderConfig,
    ClassifierConfig,
    EncoderConfig,
    PartsConfig,
    StageConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from pointcentroid.data.augment import CounterRandom, augment, mix, reseed
from pointcentroid.data.clouds import load_npz, split_validation
from pointcentroid.data.foreign import FOREIGN
from pointcentroid.errors import ConfigError, DataError
from pointcentroid.evaluate.plots import plot_confusion
from pointcentroid.geometry.fps import farthest_first, farthest_point_sampling
from pointcentroid.models import model_config
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.nn.norm import BatchNorm
from pointcentroid.nn.parts import PartsNet
from pointcentroid.train.callbacks import History, moving_average
from pointcentroid.train.module import ClassifierTraining, MeanClassAccuracy, decayed
from pointcentroid.train.run import train as run_training
from pointcentroid.train.settings import load_train_config
from pointcentroid.train.sharpness import SharpnessAware
from pointcentroid.train.starting import start_from
from pointcentroid.weights import KnownScale, load_weights, read_card, save_weights, tensors_hash

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
    assert not numbers["trained_on_these"]
    for split, says in (("all", "trained on some of it too"), ("training", "trained on it too")):
        done = run("evaluate", trained, "--data", toy, "--split", split, "--format", "csv")
        assert says in done.stderr
        rows = dict(csv.reader(done.stdout.splitlines()))
        assert rows["trained_on_these"] == "True"
        assert int(rows["shapes of rod"]) + int(rows["shapes of plate"]) == int(rows["shapes"])
        assert float(rows["ece_interval_low"]) <= float(rows["ece"]) <= float(rows["ece_interval_high"])


def test_the_same_seed_gives_the_same_weights_bit_for_bit(toy: Path, tmp_path: Path) -> None:
    a, b, c = (train(toy, tmp_path / n, "epochs=2", f"seed={s}") for n, s in (("a", 1), ("b", 1), ("c", 2)))
    first, second, third = (load_weights(path)[0] for path in (a, b, c))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not all(torch.equal(first[k], third[k]) for k in first)


def test_weights_of_all_shapes_carry_the_figures_of_their_recipe(toy: Path, tmp_path: Path) -> None:
    seeds = [train(toy, tmp_path / str(seed), "epochs=1", f"seed={seed}") for seed in (0, 1)]
    # Eight shapes are too few to fit `known` on.
    for path, scale in zip(seeds, (KnownScale(0.5, 1.0), KnownScale(0.25, 3.0)), strict=True):
        tensors, fitted = load_weights(path)
        save_weights(path, tensors, dataclasses.replace(fitted, known=scale))
    recipe = f"recipe=[{','.join(map(str, seeds))}]"
    settings = ("train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", *SMALL)
    whole = run(*settings, "name=all", "epochs=1", "split=all", recipe)
    assert whole.returncode == 0, whole.stderr
    card, others = read_card(tmp_path / "all" / "all.safetensors"), [read_card(path) for path in seeds]
    for name in ("validation_overall", "validation_mean_class", "validation_loss"):
        assert card.metrics[name] == pytest.approx(np.mean([other.metrics[name] for other in others]))
    assert card.metrics["recipe_runs"] == 2
    assert card.temperature == pytest.approx(np.mean([other.temperature for other in others]))
    assert card.known == KnownScale(0.375, 2.0)
    assert card.trained_on_all
    assert not others[0].trained_on_all
    said = run("evaluate", tmp_path / "all" / "all.safetensors", "--data", toy).stderr
    assert "these weights were trained on it too" in said
    # 80 shapes, 8 of them set aside for validation elsewhere, in batches of 8.
    steps = torch.load(tmp_path / "all" / "last.ckpt", weights_only=True)["global_step"]
    assert (steps, torch.load(tmp_path / "0" / "toy" / "last.ckpt", weights_only=True)["global_step"]) == (10, 9)

    # What goes on from these weights, or learns from them, knows the validation shapes too.
    knows = tmp_path / "all" / "all.safetensors"
    for name, setting in (("start", f"start={knows}"), ("taught", f"teachers=[{knows}]")):
        done = run(*settings, f"name={name}", "epochs=1", setting)
        assert "begins with, or learns from, knows the validation shapes" in done.stderr
        of = read_card(tmp_path / name / f"{name}.safetensors")
        assert of.knows_validation == card.knows_validation == card.trained_on
        assert not of.trained_on_all
        assert (of.temperature, "validation_ece" in of.metrics) == (1, False), "calibrated on shapes that it knows"
    # Weights that make no mistakes are not calibrated, and say no error.
    tensors, fitted = load_weights(seeds[0])
    metrics = fitted.metrics | {"validation_ece": 0.1}
    save_weights(seeds[0], tensors, dataclasses.replace(fitted, metrics=metrics, temperature=1.5))
    mixed = run(*settings, "name=mixed", "epochs=1", "split=all", recipe)
    assert mixed.returncode == 0, mixed.stderr
    card = read_card(tmp_path / "mixed" / "mixed.safetensors")
    assert (card.temperature, "validation_ece" in card.metrics) == (1.5, False)
    foreign = dataclasses.replace(fitted, provenance=fitted.provenance | {"data_sha256": "another"})
    save_weights(tmp_path / "foreign.safetensors", tensors, foreign)
    other = run(*settings, "name=x", "epochs=1", "split=all", f"recipe=[{tmp_path / 'foreign.safetensors'}]")
    assert "was trained on another data set" in other.stderr

    other = run(*settings, "name=x", "split=all", recipe)
    assert other.returncode == 2
    assert "is of another recipe: epochs=1, here 8" in other.stderr
    own = run(*settings, "name=x", recipe)
    assert "recipe is for split=all" in own.stderr


def test_auto_precision_is_said_and_kept(toy: Path, tmp_path: Path) -> None:
    done = run("train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, "epochs=1")
    used = read_card(tmp_path / "toy" / "toy.safetensors").provenance["config"]["precision"]
    assert used in ("bf16-mixed", "32-true")
    assert f"training in {used}" in done.stderr


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


class TestInterrupted:
    SETTINGS = (
        "epochs=5",
        "average=0.9",
        "model.dropout=0.3",
        "augment.mirror=0.5",
        "augment.reseed=true",
        "sharpness=0.05",
    )

    def start(self, toy: Path, output: Path, *more: str) -> tuple[list[str], subprocess.Popen]:
        settings = [f"data={toy}", f"output={output}", "name=toy", *SMALL, *self.SETTINGS, *more]
        command = [sys.executable, "-m", "pointcentroid", "train", "modelnet40-small", *settings]
        return settings, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    @staticmethod
    def wait_for_epoch(folder: Path, number: int, process: subprocess.Popen) -> None:
        metrics, end = folder / "toy" / "metrics.csv", time.monotonic() + 120
        while not metrics.exists() or len(metrics.read_text().splitlines()) <= number:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.01)

    @pytest.fixture(scope="class")
    @classmethod
    def uninterrupted(cls, toy: Path, tmp_path_factory) -> Path:
        return train(toy, tmp_path_factory.mktemp("whole"), *cls.SETTINGS)

    @staticmethod
    def assert_equal(one: Path, other: Path) -> None:
        first, second = load_weights(one)[0], load_weights(other)[0]
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_killed_in_the_middle_of_an_epoch(self, toy: Path, tmp_path: Path, uninterrupted: Path) -> None:
        _, process = self.start(toy, tmp_path)
        assert process.stderr
        told = next((line for line in process.stderr if line.startswith("epoch 2/5")), "")
        process.kill()
        process.wait()
        assert "validation accuracy" in told
        assert torch.load(tmp_path / "toy" / "last.ckpt", weights_only=True)["epoch"] >= 1, "what is told of is kept"
        assert not (tmp_path / "toy" / "toy.safetensors").exists()
        resumed = train(toy, tmp_path, *self.SETTINGS, "--resume")
        self.assert_equal(resumed, uninterrupted)
        rows = [(p.parent / "metrics.csv").read_text().splitlines() for p in (resumed, uninterrupted)]
        columns = rows[0][0].split(",")
        assert len(rows[0]) == len(rows[1]) == 6
        for ours, theirs in zip(*rows, strict=True):
            cells = zip(columns, ours.split(","), theirs.split(","), strict=True)
            assert all(a == b for column, a, b in cells if column != "seconds")

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_what_stops_it_says_how_to_go_on(
        self, toy: Path, tmp_path: Path, uninterrupted: Path, how: signal.Signals
    ) -> None:
        _, process = self.start(toy, tmp_path)
        self.wait_for_epoch(tmp_path, 1, process)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "to go on: pointcentroid train modelnet40-small" in said
        assert "--resume" in said
        assert "Traceback" not in said
        again = run("train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, *self.SETTINGS)
        assert again.returncode == 2
        assert "holds an unfinished run" in again.stderr
        other = run(
            "train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, "epochs=9", "--resume"
        )
        assert other.returncode == 2
        assert "was trained with" in other.stderr
        self.assert_equal(train(toy, tmp_path, *self.SETTINGS, "--resume"), uninterrupted)

    def test_what_it_has_reached_can_be_used_before_its_end(self, toy: Path, tmp_path: Path, uninterrupted: Path) -> None:
        command = ("train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, *self.SETTINGS)
        assert "nothing to resume" in run(*command, "--finish").stderr
        _, process = self.start(toy, tmp_path)
        self.wait_for_epoch(tmp_path, 2, process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert "--finish" in said
        checkpoint = torch.load(tmp_path / "toy" / "last.ckpt", weights_only=True)
        epoch = checkpoint["epoch"] + 1
        assert epoch < 5
        done = run(*command, "--finish")
        assert done.returncode == 0, done.stderr
        assert f"weights as they were after epoch {epoch} of 5; --resume goes on" in done.stderr
        path = tmp_path / "toy" / "toy.safetensors"
        tensors, card = load_weights(path)
        assert all(torch.equal(tensor, checkpoint["state_dict"][f"net.{name}"]) for name, tensor in tensors.items())
        assert (card.metrics["epoch"], card.provenance["stopped_after"]) == (epoch, epoch)
        rows = list(csv.DictReader((tmp_path / "toy" / "metrics.csv").open()))
        measured = json.loads(run("evaluate", path, "--data", toy, "--json").stdout)
        assert measured["overall_accuracy"] == pytest.approx(float(rows[epoch - 1]["validation_overall"]))
        assert "holds an unfinished run" in run(*command).stderr
        refused = run(*command, "name=all", "split=all", f"recipe=[{path}]")
        assert f"was stopped after epoch {epoch} of 5" in refused.stderr
        self.assert_equal(train(toy, tmp_path, *self.SETTINGS, "--resume"), uninterrupted)
        assert "stopped_after" not in read_card(path).provenance
        done = run(*command, "--finish")
        assert "weights as they were after epoch 5 of 5\n" in done.stderr
        self.assert_equal(path, uninterrupted)

    def test_one_command_at_a_time_trains_in_a_folder(self, toy: Path, tmp_path: Path, uninterrupted: Path) -> None:
        settings, process = self.start(toy, tmp_path)
        self.wait_for_epoch(tmp_path, 2, process)  # the first is kept
        process.send_signal(signal.SIGSTOP)
        for how in ((), ("--resume",), ("--overwrite",)):
            refused = run("train", "modelnet40-small", *settings, *how)
            assert refused.returncode == 2
            assert f"another command is training in {tmp_path / 'toy'}" in refused.stderr
        done = run("train", "modelnet40-small", *settings, "--finish")  # that looks, and changes nothing of the run
        assert done.returncode == 0, done.stderr
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=120)
        assert process.returncode == 0
        self.assert_equal(tmp_path / "toy" / "toy.safetensors", uninterrupted)

    @pytest.mark.parametrize("other", ["--resume", "--overwrite"])
    def test_it_is_either_finished_or_something_else(self, other: str, toy: Path) -> None:
        done = run("train", "modelnet40-small", f"data={toy}", "--finish", other)
        assert done.returncode == 2
        assert "choose one" in done.stderr

    def test_resuming_a_finished_run_changes_nothing(self, toy: Path, tmp_path: Path, uninterrupted: Path) -> None:
        shutil.copytree(uninterrupted.parent, tmp_path / "toy")
        again = train(toy, tmp_path, *self.SETTINGS, "--resume")
        self.assert_equal(again, uninterrupted)
        last = tmp_path / "toy" / "last.ckpt"
        checkpoint = torch.load(last, weights_only=True)
        del checkpoint["config"]["keep"]  # as if it had begun before there was such a setting
        torch.save(checkpoint, last)
        (tmp_path / "toy" / "toy.safetensors").unlink()  # and had been stopped between the last epoch and this file
        self.assert_equal(train(toy, tmp_path, *self.SETTINGS, "--resume"), uninterrupted)

    def test_other_data_cannot_be_resumed_on(self, toy: Path, tmp_path: Path, uninterrupted: Path) -> None:
        shutil.copytree(uninterrupted.parent, tmp_path / "toy")
        copy = tmp_path / "toy.npz"
        with np.load(toy) as arrays:
            np.savez(copy, **{k: v if k == "classes" else v[:70] for k, v in arrays.items()})
        checkpoint = torch.load(tmp_path / "toy" / "last.ckpt", weights_only=True)
        checkpoint["config"]["data"] = str(copy)
        torch.save(checkpoint, tmp_path / "toy" / "last.ckpt")
        settings = [f"data={copy}", f"output={tmp_path}", "name=toy", *SMALL, *self.SETTINGS, "--resume"]
        done = run("train", "modelnet40-small", *settings)
        assert done.returncode == 2
        assert "it has changed since" in done.stderr

    def test_checkpoints_hold_plain_data(self, uninterrupted: Path) -> None:
        for name in ("last", "best"):
            checkpoint = torch.load(uninterrupted.with_name(f"{name}.ckpt"), weights_only=True)
            assert checkpoint["config"]["epochs"] == 5

    def test_a_finished_run_is_not_overwritten_by_accident(self, toy: Path, tmp_path: Path) -> None:
        train(toy, tmp_path, "epochs=1")
        settings = [f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, "epochs=1"]
        done = run("train", "modelnet40-small", *settings)
        assert done.returncode == 2
        assert "holds a finished run" in done.stderr
        for wrong in ("model.classes=3", "accelerator=gpu", "data=nowhere", "devices=3"):
            assert run("train", "modelnet40-small", *settings, wrong, "--overwrite").returncode == 2
            assert (tmp_path / "toy" / "toy.safetensors").exists(), "what is wrong is said before anything is thrown away"
        train(toy, tmp_path, "epochs=1", "--overwrite")
        done = run("train", "modelnet40-small", *settings, "name=other", "--resume")
        assert done.returncode == 2
        assert "nothing to resume" in done.stderr


def test_two_processes_match_one(toy: Path, tmp_path: Path) -> None:
    # 72 shapes: the last batch is a small one. Batch norms see each process's share, and half precision rounds it otherwise.
    settings = (
        "epochs=2",
        "model.dropout=0",
        "model.encoder.drop_path=0",
        "batch_size=10",
        "model.encoder.norm=layer",
        "precision=32-true",
    )
    one = load_weights(train(toy, tmp_path / "one", *settings))
    two = load_weights(train(toy, tmp_path / "two", *settings, "devices=2"))
    for name, tensor in one[0].items():
        torch.testing.assert_close(two[0][name], tensor, rtol=1e-3, atol=1e-4)
    assert one[1].metrics["validation_overall"] == two[1].metrics["validation_overall"]
    assert one[1].metrics["validation_loss"] == pytest.approx(two[1].metrics["validation_loss"], abs=1e-4)
    done = run(
        "train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", "name=odd", *SMALL, "batch_size=9", "devices=2"
    )
    assert done.returncode == 2
    assert "batch_size=9 must be a multiple of the 2 processes" in done.stderr


def test_two_processes_train_with_batch_norm(toy: Path, tmp_path: Path) -> None:
    """Each normalises by its own share; the net that comes out is one, and as good."""
    tensors, card = load_weights(train(toy, tmp_path, "epochs=6", "devices=2"))
    assert card.metrics["validation_overall"] == 1
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    counted = [int(tensor) for name, tensor in tensors.items() if name.endswith("num_batches_tracked")]
    assert set(counted) == {6 * 9}


def test_a_folder_of_shapes_fine_tunes_the_shipped_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for category, size in (("plate", (1, 1, 0.05)), ("rod", (0.05, 0.05, 1)), ("ball", (1, 1, 1))):
        (tmp_path / "my shapes" / category).mkdir(parents=True)
        for number in range(10):
            np.save(tmp_path / "my shapes" / category / f"{number}.npy", rng.uniform(-1, 1, size=(600, 3)) * size)
    settings = ["epochs=3", f"output={tmp_path}", "augment.shift=0.1"]
    done = run("train", tmp_path / "my shapes", *settings, "--format", "json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["weights"] == str(tmp_path / "my-shapes" / "my-shapes.safetensors")
    assert row["validation_overall"] == 1
    predictor = pc.load(row["weights"], "cpu")
    assert predictor.classes == ("ball", "plate", "rod")
    assert predictor(rng.uniform(-1, 1, size=(900, 3)) * (0.1, 0.1, 2), up="z").label == "rod"
    done = run("evaluate", row["weights"], "--data", tmp_path / "my shapes", "--format", "json")
    numbers = json.loads(done.stdout)
    # Found to be the same data set, for what points up in it was found as in training.
    assert (numbers["split"], numbers["shapes"], numbers["overall_accuracy"]) == ("validation", 3, 1)
    done = run("evaluate", row["weights"], "--data", tmp_path / "my shapes", "--up", "z", "--format", "json")
    numbers = json.loads(done.stdout)
    assert (numbers["split"], numbers["shapes"]) == ("validation", 3), "the same shapes, however they lie"
    config = read_card(Path(row["weights"])).provenance["config"]
    assert config["up"] == "auto"
    done = run("train", tmp_path / "my shapes", *settings, "--from", "smal", "name=x")
    assert done.returncode == 2
    assert "did you mean 'small'" in done.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _: np.where(np.arange(80) == 0, 0, 1), "training shapes of the class 'rod'; at least 2"),
        (lambda labels: np.ones_like(labels), "1 class; at least 2 are needed"),
    ],
)
def test_a_class_with_too_few_shapes_is_an_error(toy: Path, tmp_path: Path, change: Callable, says: str) -> None:
    with np.load(toy) as arrays:
        content = dict(arrays)
    np.savez(tmp_path / "few.npz", **{**content, "labels": change(content["labels"]).astype(np.uint8)})
    done = run("train", "modelnet40-small", f"data={tmp_path / 'few.npz'}", f"output={tmp_path}", *SMALL)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_loss_that_is_no_number_is_an_error(toy: Path, tmp_path: Path) -> None:
    settings = [f"data={toy}", f"output={tmp_path}", *SMALL, "batch_size=64", "learning_rate=1e30", "warmup=0"]
    done = run("train", "modelnet40-small", *settings)
    assert done.returncode == 2
    assert "lower learning_rate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_an_error_and_what_was_written_stays_whole(toy: Path, tmp_path: Path) -> None:
    train(toy, tmp_path, "epochs=1")
    before = {p.name: p.read_bytes() for p in (tmp_path / "toy").iterdir() if p.is_file()}
    size = (tmp_path / "toy" / "last.ckpt").stat().st_size * 2 // 3

    def limit() -> None:  # the largest file that may be written: as if the disk were full in the middle of one
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    settings = [f"data={toy}", f"output={tmp_path}", "name=full", *SMALL, "epochs=1"]
    command = [sys.executable, "-m", "pointcentroid", "train", "modelnet40-small", *settings]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {tmp_path / 'full'}")
    assert "Traceback" not in done.stderr
    # The first checkpoint, without the optimiser's state, is small enough; the next one is not, and leaves it as it was.
    assert torch.load(tmp_path / "full" / "last.ckpt", weights_only=True)["global_step"] == 0
    assert not list((tmp_path / "full").glob(".*"))
    assert {p.name: p.read_bytes() for p in (tmp_path / "toy").iterdir() if p.is_file()} == before


def test_a_run_does_not_throw_away_what_it_needs(toy: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent, tmp_path / "toy")
    weights = tmp_path / "toy" / trained.name
    settings = ("train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, "--overwrite")
    for needs in (f"start={weights}", f"teachers=[{weights}]"):
        done = run(*settings, needs)
        assert done.returncode == 2
        assert "--overwrite would throw away" in done.stderr
    assert weights.read_bytes() == trained.read_bytes()


def test_a_net_of_as_many_points_as_centroids_predicts_as_it_was_trained(toy: Path, tmp_path: Path) -> None:
    weights = train(toy, tmp_path, "epochs=2", "preprocess.points=16", "precision=32-true")
    card = read_card(weights)
    measured = json.loads(run("evaluate", weights, "--data", toy, "--format", "json").stdout)
    assert measured["overall_accuracy"] == card.metrics["validation_overall"]
    clouds = load_npz(toy)
    points = torch.from_numpy(clouds.points[:8])
    net = CentroidClassifier.from_tensors(card.model, load_weights(weights)[0])
    expected = net(farthest_first(points, 16)[:, :16], ordered=True).detach()
    found = pc.load(weights)
    answers = found.net(found.ordered(points.numpy())).logits
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    done = run("export", weights, "-o", tmp_path / "a.onnx")
    assert "no graph can be made" in " ".join(done.stderr.split())


def test_what_weights_have_seen_is_passed_on(toy: Path, tmp_path: Path) -> None:
    """From the first, which knows all shapes, by way of weights trained on other shapes, to the third."""
    shapes = dict(np.load(toy))
    np.savez(tmp_path / "other.npz", **(shapes | {"points": shapes["points"][:, ::-1]}))
    settings = ("train", "modelnet40-small", f"output={tmp_path}", *SMALL, "epochs=1")
    first, second, third = (tmp_path / name / f"{name}.safetensors" for name in "abc")
    assert run(*settings, f"data={toy}", "name=a", "split=all").returncode == 0
    assert run(*settings, f"data={tmp_path / 'other.npz'}", "name=b", f"start={first}").returncode == 0
    done = run(*settings, f"data={toy}", "name=c", f"start={second}")
    assert "knows the validation shapes" in done.stderr
    data = load_npz(toy).fingerprint
    for weights, seen in ((first, 1), (second, 2), (third, 2)):
        card = read_card(weights)
        assert card.knows_validation == (data,)
        assert len(card.trained_on) == seen
    said = run("evaluate", second, "--data", toy).stderr
    assert "these weights were trained on it too" in said
    (tmp_path / "a").rename(tmp_path / "gone")  # a run that goes on does not ask for it again
    (tmp_path / "c" / "c.safetensors").unlink()
    resumed = run(*settings, f"data={toy}", "name=c", f"start={second}", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert read_card(third).knows_validation == (data,)


@pytest.mark.parametrize("stopped", [0, 2, 4])
def test_a_moved_run_remembers_its_best_epoch(
    stopped: int, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = dict(np.load(toy))
    labels = np.random.default_rng(0).permutation(shapes["labels"])  # there is nothing to learn: any epoch may be the best
    np.savez(tmp_path / "toy.npz", **(shapes | {"labels": labels}))
    changes = ("keep=best", "average=0", "warmup=0", "epochs=6")
    whole = train(tmp_path / "toy.npz", tmp_path / "whole", *changes)

    def stop(_: History, trainer: lightning.Trainer, __: object) -> None:
        if trainer.current_epoch == stopped:
            raise RuntimeError("stopped")

    settings = [f"data={tmp_path / 'toy.npz'}", f"output={tmp_path / 'before'}", "name=toy", *SMALL, *changes]
    config = load_train_config("modelnet40-small", settings)
    monkeypatch.setattr(History, "on_train_epoch_start", stop)
    with pytest.raises(RuntimeError, match="stopped"):
        run_training(config)
    (tmp_path / "before").rename(tmp_path / "after")
    resumed = train(tmp_path / "toy.npz", tmp_path / "after", *changes, "--resume")
    rows = list(csv.DictReader((resumed.parent / "metrics.csv").open()))
    best = max(rows, key=lambda row: float(row["validation_overall"]))
    assert read_card(resumed).metrics["epoch"] == read_card(whole).metrics["epoch"] == int(best["epoch"])
    tensors, expected = load_weights(resumed)[0], load_weights(whole)[0]
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("checkpoint", "says"),
    [
        (b"", "is damaged"),
        ([1], "is damaged"),
        ({"config": {"augment": {"scale": 2.0}}, "data": ""}, "was trained with augment.damage=0.0, not 0.2"),
        ({"config": {"augment": {"wrap": 2.0}}, "data": ""}, "cannot be gone on with: unknown setting augment.wrap"),
    ],
)
def test_what_cannot_be_resumed_says_why(checkpoint: Any, says: str, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    if isinstance(checkpoint, bytes):
        (tmp_path / "toy" / "last.ckpt").write_bytes(checkpoint)
    else:
        torch.save(checkpoint, tmp_path / "toy" / "last.ckpt")
    settings = (f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, "augment.foreign=0.1", "--resume")
    done = run("train", "modelnet40-small", *settings)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.mark.parametrize("words", ["modelnet40-reconstruct model=tiny", "modelnet40-tiny model=autoencoder"])
def test_a_model_that_is_named_takes_the_place_of_another(words: str) -> None:
    name, change = words.split()
    assert load_train_config(name, ["data=x.npz", change]).model == model_config(change.partition("=")[2])


def test_only_classifiers_are_fine_tuned_on_classes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "own" / name).mkdir(parents=True)
        (tmp_path / "own" / name / "x.xyz").write_text("0 0 0\n1 0 0\n0 1 0\n")
    done = run("train", tmp_path / "own", "--from", "autoencoder")
    assert done.returncode == 2
    assert "autoencoder does not classify" in done.stderr


def test_the_best_epoch_can_be_kept(toy: Path, tmp_path: Path) -> None:
    weights, card = load_weights(train(toy, tmp_path, "keep=best", "epochs=4"))
    rows = list(csv.DictReader((tmp_path / "toy" / "metrics.csv").open()))
    best = max(rows, key=lambda row: float(row["validation_overall"]))
    assert card.metrics["epoch"] == int(best["epoch"])
    kept = torch.load(tmp_path / "toy" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(kept[f"net.{name}"], tensor) for name, tensor in weights.items())


def test_a_best_epoch_that_died_before_it_was_the_last_is_finished_too(toy: Path, tmp_path: Path) -> None:
    path = train(toy, tmp_path, "keep=best", "epochs=3")
    last = path.with_name("last.ckpt")
    shutil.copy(last, path.with_name("best.ckpt"))
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["callbacks"]["History"]["rows"].pop()
    torch.save(checkpoint, last)
    settings = (f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, "keep=best", "epochs=3")
    done = run("train", "modelnet40-small", *settings, "--finish", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["weights"] == str(path)
    assert "weights as they were after epoch 3 of 3\n" in done.stderr, "not after the second"
    assert read_card(path).metrics["epoch"] == 3


@pytest.mark.parametrize("text", ["my set #2", "&a", "*a", "[x", "%x", "007", "2024_05_01", "a: b", "it's", "yes", "-"])
def test_texts_are_taken_as_they_are(text: str) -> None:
    assert load_train_config("modelnet40-small", [f"data={text}"]).data == text
    assert load_train_config("modelnet40-small", [f"data='{text}'"]).data == text


@pytest.mark.parametrize("text", ["", "null", "~", '""'])
def test_a_text_may_be_nothing(text: str) -> None:
    assert load_train_config("modelnet40-small", ["data=x", f"start={text}"]).start == ""


def test_a_name_is_as_long_as_names_of_files_may_be() -> None:
    assert TrainConfig(name="n" * 200).name
    with pytest.raises(ConfigError, match="too long"):
        TrainConfig(name="n" * 201)
    with pytest.raises(ConfigError, match="too long"):
        TrainConfig(name="語" * 67)


def test_a_class_of_any_name_is_trained_on_and_evaluated(toy: Path, tmp_path: Path) -> None:
    """With characters that steer a terminal, that are no text, or that no font of plots has; one without a name is not."""
    with np.load(toy) as arrays:
        content = dict(arrays)
    np.savez(tmp_path / "odd.npz", **(content | {"classes": ["a\tb", "日本 語"]}))
    path = train(tmp_path / "odd.npz", tmp_path, "epochs=1")
    assert read_card(path).classes == ("a\\tb", "日本 語")
    done = run("evaluate", path, "--data", tmp_path / "odd.npz", "--plots", tmp_path / "plots", "--json")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert (tmp_path / "plots" / "confusion.png").stat().st_size > 1000
    plot_confusion(np.eye(2, dtype=int), ["caf\udce9", "b"], tmp_path / "bytes.png")
    np.savez(tmp_path / "odd.npz", **(content | {"classes": ["", "b"]}))
    done = run("train", "modelnet40-small", f"data={tmp_path / 'odd.npz'}", f"output={tmp_path}", *SMALL)
    assert done.returncode == 2
    assert "a class has no name" in done.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [({"classes": np.array("chair")}, "classes must be a list"), ({"labels": ["rod"] * 80}, "labels must be integers")],
)
def test_a_data_set_is_checked_before_its_classes_are_counted(change: dict, says: str, toy: Path, tmp_path: Path) -> None:
    with np.load(toy) as arrays:
        np.savez(tmp_path / "bad.npz", **(dict(arrays) | change))
    done = run("train", tmp_path / "bad.npz", f"output={tmp_path}")
    assert done.returncode == 2
    assert says in done.stderr


class TestTeachers:
    def test_answers_alone_teach_where_every_label_is_wrong(self, toy: Path, trained: Path, tmp_path: Path) -> None:
        shapes = dict(np.load(toy))
        np.savez(tmp_path / "wrong.npz", **(shapes | {"labels": 1 - shapes["labels"]}))
        taught = train(tmp_path / "wrong.npz", tmp_path, f"teachers=[{trained},{trained}]", "teaching=1", "epochs=16")
        numbers = json.loads(run("evaluate", taught, "--data", toy, "--split", "all", "--format", "json").stdout)
        assert numbers["overall_accuracy"] == 1

        card = read_card(taught)
        assert card.metrics["validation_overall"] == 0
        assert card.provenance["config"]["teachers"] == ["toy.safetensors", "toy.safetensors"]
        assert card.provenance["teachers_sha256"] == [tensors_hash(trained)] * 2
        kept, alone = (
            torch.load(weights.with_name("last.ckpt"), weights_only=True)["state_dict"] for weights in (taught, trained)
        )
        assert kept.keys() == alone.keys(), "teachers are not saved"

    def test_others_of_their_name_are_noticed(self, toy: Path, trained: Path, tmp_path: Path) -> None:
        teacher = tmp_path / "teacher.safetensors"
        shutil.copyfile(trained, teacher)
        changes = f"teachers=[{teacher}]", "epochs=1"
        taught = train(toy, tmp_path, *changes)
        assert train(toy, tmp_path, *changes, "--resume") == taught
        tensors, card = load_weights(teacher)
        save_weights(teacher, tensors, dataclasses.replace(card, temperature=2.0))  # other words about the same weights
        assert train(toy, tmp_path, *changes, "--resume") == taught
        save_weights(teacher, {name: tensor * 1.01 for name, tensor in tensors.items()}, card)
        settings = f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, *changes
        done = run("train", "modelnet40-small", *settings, "--resume")
        assert done.returncode == 2
        assert "the teachers hold other weights than those that" in done.stderr

    def test_their_share_of_the_loss(self, trained: Path) -> None:
        tensors, card = load_weights(trained)
        config = from_dict(TrainConfig, card.provenance["config"] | {"model": to_dict(card.model), "teaching": 0.25})
        teacher = CentroidClassifier.from_tensors(card.model, tensors)
        module = ClassifierTraining(config, [teacher, teacher])
        points = torch.randn(6, 128, 3, generator=torch.Generator().manual_seed(0))
        labels = torch.tensor([0, 1, FOREIGN, 1, FOREIGN, 0])
        logits = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
        answers = teacher(points, ordered=True).softmax(dim=1).detach()
        truth = torch.full((6, 2), config.label_smoothing / 2)
        expected = 0.0
        for row in range(6):
            if labels[row] != FOREIGN:
                truth[row, labels[row]] += 1 - config.label_smoothing
                aim = 0.75 * truth[row] + 0.25 * answers[row]
                expected -= float((aim * logits[row].log_softmax(dim=0)).sum()) / 6
        assert float(module.class_loss(logits, labels, points)) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            (["teachers=[small]"], "small cannot teach: it tells other classes apart than the data set has"),
            (["teachers=[autoencoder]"], "autoencoder cannot teach: it tells other classes apart"),
            (["teachers=[absent.safetensors]"], "absent.safetensors"),
            (["teachers=[small]", "augment.mix=0.5", "model.known=false"], "teachers and augment.mix exclude each other"),
            (["teachers=[small]", "teaching=0"], "teaching must lie in (0, 1], found 0.0"),
        ],
    )
    def test_what_cannot_teach_is_an_error(self, settings: list[str], says: str, toy: Path, tmp_path: Path) -> None:
        done = run("train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", *SMALL, *settings)
        assert done.returncode == 2
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_classes_need_not_be_counted(toy: Path, tmp_path: Path) -> None:
    settings = [word for word in SMALL if not word.startswith("model.classes")]
    done = run("train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", "name=counted", *settings, "epochs=1")
    assert done.returncode == 0, done.stderr
    assert "from random weights; 72 shapes of 2 classes to train on, 8 to validate" in done.stderr
    path = tmp_path / "counted" / "counted.safetensors"
    assert f"to use them: pointcentroid classify FILES --weights {path}\n" in done.stderr
    assert f"after: pointcentroid export {path} -o {path.with_suffix('.onnx')}\n" in done.stderr
    assert "confidence is not calibrated: " in done.stderr
    assert read_card(tmp_path / "counted" / "counted.safetensors").classes == ("rod", "plate")


def test_prepared_clouds_are_not_turned(toy: Path, tmp_path: Path) -> None:
    done = run("train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", *SMALL, "up=y")
    assert done.returncode == 2
    assert "up=y is for raw shapes; those of" in done.stderr


def test_a_setting_that_is_given_as_an_option_says_how_it_is_given(toy: Path) -> None:
    for option, setting in (
        ("--epochs=3", "epochs=VALUE"),
        ("--augment.jitter", "augment.jitter=VALUE"),
        ("--up", "up=VALUE"),
    ):
        done = run("train", "modelnet40-small", f"data={toy}", option)
        assert done.returncode == 2
        assert f"is a setting, not an option: {setting}" in " ".join(done.stderr.replace("│", "").split())
    done = run("train", "modelnet40-small", "--epoch", 3)
    assert "No such option" in done.stderr


def test_mismatched_classes_are_an_error(toy: Path, tmp_path: Path) -> None:
    done = run("train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", *SMALL, "model.classes=3")
    assert done.returncode == 2
    assert "2 classes, but model.classes=3" in done.stderr
    done = run("evaluate", "small", "--data", toy)
    assert done.returncode == 2
    assert "which the weights do not know" in done.stderr


class TestSources:
    def test_the_split_is_the_published_one(self, modelnet: Path) -> None:
        clouds = load_npz(modelnet)
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
            load_npz(tmp_path / "bad.npz")


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


def test_geometric_data_train_as_the_same_clouds_do(toy: Path, trained: Path, tmp_path: Path) -> None:
    from torch_geometric.data import Batch, Data

    from pointcentroid.train.run import train as run_training
    from pointcentroid.train.settings import load_train_config

    clouds = load_npz(toy)
    items: Any = [
        Data(pos=torch.from_numpy(points.copy()), y=torch.tensor([int(label)]))
        for points, label in zip(clouds.points, clouds.labels, strict=True)
    ]
    config = load_train_config("modelnet40-small", ["data=toys", "name=toy", *SMALL])
    config = dataclasses.replace(config, output=tmp_path)  # a path, as people give it in Python
    weights = run_training(config, Batch.from_data_list(items), classes=clouds.classes)
    assert weights is not None
    _, card = load_weights(weights)
    _, reference = load_weights(trained)
    assert sorted(card.classes) == sorted(reference.classes)
    assert card.metrics["validation_overall"] == reference.metrics["validation_overall"] == 1
    assert card.metrics["validation_loss"] == pytest.approx(reference.metrics["validation_loss"], rel=0.2)
    with pytest.raises(DataError, match="no pos, or no y"):
        run_training(dataclasses.replace(config, name="other"), [Data(pos=torch.zeros(4, 3))])
    again = run_training(config, items, classes=clouds.classes[::-1], overwrite=True)  # the names were wrong
    assert again is not None
    assert pc.load(again)(clouds.points[0], up="z").label != clouds.classes[clouds.labels[0]]


@given(st.integers(1, 3000), st.sampled_from([0.0, 0.5, 0.99, 0.999]))
def test_the_moving_average_forgets_the_start_of_short_runs(steps: int, decay: float) -> None:
    average, value = moving_average(decay), torch.zeros((), dtype=torch.float64)
    for step in range(1, steps + 1):  # a weight that grows by one a step
        value = average(value, torch.tensor(float(step), dtype=torch.float64), torch.tensor(step))
    lag = steps - float(value)
    assert -1e-9 <= lag <= min(1 / (1 - decay), 1 + steps / 8)
    assert decay or lag == 0
    assert torch.equal(average(torch.tensor(3), torch.tensor(8), torch.tensor(5)), torch.tensor(8))


AUTOENCODERS = {
    "reconstruct": [
        "model.encoder.embed=8", "model.code=4", "model.hidden=16", "model.blocks=1",
        "model.encoder.stages=[{centroids: 16, dim: 16, neighbours: 8}, {centroids: 8, dim: 16, neighbours: 8}]",
    ],
    "capsules": ["model.primary=16", "model.primary_dim=4", "model.capsules=8", "model.dim=7", "model.folds=4"],
}  # fmt: skip


@pytest.mark.parametrize("kind", AUTOENCODERS)
def test_an_autoencoder_learns_and_is_evaluated_as_it_was_validated(kind: str, toy: Path, tmp_path: Path) -> None:
    settings = [f"data={toy}", f"output={tmp_path}", "name=toy", *AUTOENCODERS[kind], "accelerator=cpu", "average=0.9"]
    settings += ["epochs=12", "batch_size=8", "preprocess.sample=128", "preprocess.points=128", "learning_rate=0.005"]
    done = run("train", f"modelnet40-{kind}", *settings, "--format", "json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    history = [float(line["validation_chamfer"]) for line in csv.DictReader((tmp_path / "toy" / "metrics.csv").open())]
    assert history[-1] < 0.5 * history[0]
    assert row["validation_oracle"] < row["validation_chamfer"] == pytest.approx(history[-1], rel=1e-5)

    done = run("evaluate", row["weights"], "--data", toy, "--probe", "--format", "json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["split"], found["shapes"], found["latent_size"]) == ("validation", 8, 56)
    assert found["chamfer"] == pytest.approx(row["validation_chamfer"], rel=1e-5)
    assert found["oracle"] == pytest.approx(row["validation_oracle"], rel=1e-5)
    assert 0 < found["input_output"] < 2 * found["chamfer"]
    assert found["probe_overall_accuracy"] == 1, "rods and plates"

    done = run("evaluate", row["weights"], "--data", toy, "--votes", 2)
    assert done.returncode == 2
    assert "that classify" in done.stderr
    done = run("evaluate", row["weights"], "--data", toy, "--probe", "--split", "all")
    assert (done.returncode, "a probe is trained on the training part" in done.stderr) == (2, True), done.stderr


BOTH = (
    "model.encoder={embed: 8, norm: batch, tokens: points, steps: 0, relative: 16, drop_path: 0.0, "
    "stages: [{centroids: 16, dim: 16, neighbours: 8}, {centroids: 8, dim: 16, neighbours: 8}]}"
)


@pytest.fixture(scope="module")
def autoencoder(toy: Path, tmp_path_factory) -> Path:
    """One whose encoder a classifier may have, too."""
    settings = [f"data={toy}", "name=both", *AUTOENCODERS["reconstruct"], BOTH, "preprocess.sample=128"]
    settings += [f"output={tmp_path_factory.mktemp('runs')}", "epochs=1", "preprocess.points=128", "accelerator=cpu"]
    done = run("train", "modelnet40-reconstruct", *settings, "--format", "json")
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["weights"])


class TestStartFromAnAutoencoder:
    def test_its_encoder_is_taken_and_the_head_is_random(self, autoencoder: Path) -> None:
        tensors, card = load_weights(autoencoder)
        assert isinstance(card.model, AutoencoderConfig)
        encoder = dataclasses.replace(card.model.encoder, drop_path=0.2)
        config = TrainConfig(start=str(autoencoder), model=ClassifierConfig(classes=2, hidden=16, encoder=encoder))
        net = CentroidClassifier(config.model)  # type: ignore[arg-type]
        before = copy.deepcopy(net.state_dict())
        start_from(net, config, ("rod", "plate"))
        for name, tensor in net.state_dict().items():
            assert torch.equal(tensor, (tensors if name.startswith("encoder.") else before)[name]), name
        moved = [name for name in before if not torch.equal(before[name], net.state_dict()[name])]
        assert moved, "the encoder was trained"

    def test_through_the_command(self, autoencoder: Path, toy: Path, tmp_path: Path) -> None:
        card = read_card(train(toy, tmp_path, BOTH, f"start={autoencoder}", "epochs=1"))
        assert card.provenance["config"]["start"] == "both.safetensors"
        settings = [f"data={toy}", f"output={tmp_path}", *SMALL, "model.encoder.steps=0", f"start={autoencoder}"]
        done = run("train", "modelnet40-small", *settings)
        assert done.returncode == 2
        assert "holds another architecture than model" in done.stderr

    def test_a_net_of_parts_takes_it_too(self, autoencoder: Path) -> None:
        tensors, card = load_weights(autoencoder)
        assert isinstance(card.model, AutoencoderConfig)
        net = PartsNet(PartsConfig(encoder=card.model.encoder, names=3))
        start_from(net, TrainConfig(start=str(autoencoder), model=net.config), ())
        assert all(torch.equal(net.state_dict()[name], tensors[name]) for name in tensors if name.startswith("encoder."))


def test_the_mean_over_classes_is_over_those_that_occur() -> None:
    """As `evaluate` has it: class 2 was answered once, but does not occur."""
    metric = MeanClassAccuracy(4, average="macro")
    metric.update(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]))
    metric.update(torch.tensor([2]), torch.tensor([1]))
    assert float(metric.compute()) == 0.75


def test_what_is_no_recipe_or_accelerator_is_one_line(trained: Path, toy: Path, tmp_path: Path) -> None:
    tensors, card = load_weights(trained)
    save_weights(tmp_path / "bare.safetensors", tensors, dataclasses.replace(card, provenance={}))
    for settings, says in [
        (["split=all", f"recipe=[{tmp_path / 'bare.safetensors'}]"], "does not say how it was trained"),
        (["accelerator=foo"], "accelerator"),
    ]:
        done = run("train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", *SMALL, *settings)
        assert done.returncode == 2
        assert says in done.stderr
        assert "internal error" not in done.stderr


def test_classes_in_another_order_keep_their_rows(trained: Path) -> None:
    tensors, card = load_weights(trained)
    assert card.model.known  # type: ignore[union-attr]
    points = torch.randn(4, 128, 3, generator=torch.Generator().manual_seed(0))
    net = CentroidClassifier(card.model).eval()  # type: ignore[arg-type]
    net.load_state_dict(tensors)
    before = net.scores(points)
    start_from(net, TrainConfig(start=str(trained), model=card.model), card.classes[::-1])
    after = net.scores(points)
    assert torch.equal(after.logits, before.logits.flip(1))
    assert torch.equal(after.known, before.known)  # type: ignore[arg-type]
    start_from(net, TrainConfig(start=str(trained), model=card.model), ("rod", "ball"))
    assert torch.equal(net.scores(points).logits, after.logits), "the last layer is left as it was"


def test_matrices_decay_and_nothing_else() -> None:
    """Learnt seeds are places, which nothing should draw to the middle."""
    stages = StageConfig(8, 8, 4, 2), StageConfig(4, 8, 4, 2)
    net = CentroidClassifier(ClassifierConfig(classes=3, encoder=EncoderConfig(stages, initialiser="learned")))
    named = {id(parameter): name for name, parameter in net.named_parameters()}
    matrices, others = ({named[id(p)] for p in group["params"]} for group in decayed(net, 0.1))
    assert matrices | others == set(named.values())
    assert not matrices & others
    assert {f"encoder.stages.{stage}.initialiser.positions" for stage in (0, 1)} <= others
    assert all(name.endswith("weight") for name in matrices)
