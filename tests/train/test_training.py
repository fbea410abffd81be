"""Training: deterministic, from data set to usable weights, through the public command."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pointcentroid as pc
from pointcentroid.config import (
    ClassifierConfig,
    EncoderConfig,
    StageConfig,
)
from pointcentroid.data.clouds import load_npz
from pointcentroid.errors import DataError
from pointcentroid.evaluate.plots import plot_confusion
from pointcentroid.geometry.fps import farthest_first
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.train.callbacks import moving_average
from pointcentroid.train.module import MeanClassAccuracy, decayed
from pointcentroid.train.run import train as run_training
from pointcentroid.train.settings import load_train_config
from pointcentroid.weights import KnownScale, load_weights, read_card, save_weights

from ..test_cli import run
from .small import AUTOENCODERS, SMALL, train


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


def test_a_loss_that_is_no_number_is_an_error(toy: Path, tmp_path: Path) -> None:
    settings = [f"data={toy}", f"output={tmp_path}", *SMALL, "batch_size=64", "learning_rate=1e30", "warmup=0"]
    done = run("train", "modelnet40-small", *settings)
    assert done.returncode == 2
    assert "lower learning_rate" in done.stderr
    assert "Traceback" not in done.stderr


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


def test_geometric_data_train_as_the_same_clouds_do(toy: Path, trained: Path, tmp_path: Path) -> None:
    from torch_geometric.data import Batch, Data

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


def test_the_mean_over_classes_is_over_those_that_occur() -> None:
    """As `evaluate` has it: class 2 was answered once, but does not occur."""
    metric = MeanClassAccuracy(4, average="macro")
    metric.update(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]))
    metric.update(torch.tensor([2]), torch.tensor([1]))
    assert float(metric.compute()) == 0.75


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
