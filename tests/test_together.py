"""Nets that are trained together: each as if it were by itself, but for what it learns from the others."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from pointcentroid import load
from pointcentroid.config import ClassifierConfig, EncoderConfig, StageConfig, TrainConfig, to_dict
from pointcentroid.data.clouds import load_npz
from pointcentroid.data.module import CloudData
from pointcentroid.geometry.fps import farthest_first
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.train.callbacks import moving_average
from pointcentroid.train.module import ClassifierTraining, decayed, warm_cosine
from pointcentroid.weights import WeightsCard, load_weights, read_card, save_weights

from .conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from stacked import Stack
from together import Group, GroupConfig, check_plan, read_plan

CPU = torch.device("cpu")
STAGES = (StageConfig(24, 16, neighbours=8, local_blocks=1), StageConfig(6, 32, neighbours=8, local_blocks=1))
MODEL = ClassifierConfig(
    classes=3, hidden=16, dropout=0.0, known=True, encoder=EncoderConfig(stages=STAGES, steps=0, relative=8)
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """Three classes of forty boxes, long along another axis each, of 64 points."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    points = rng.random((120, 64, 3)) * 2 - 1
    points *= np.where(np.arange(3) == labels[:, None], 1.0, 0.3)[:, None, :]
    path = tmp_path_factory.mktemp("toy") / "toy.npz"
    names = np.array([f"box_{number:04d}" for number in range(120)])
    made = np.rint((points + 1) * 2047.5).astype(np.uint16)
    np.savez(path, points=made, labels=labels.astype(np.uint8), names=names, classes=np.array(["x", "y", "z"]))
    return path


def group(toy: Path, model: ClassifierConfig, seeds: tuple[int, ...], alone: tuple[int, ...] = ()) -> Group:
    recipe = TrainConfig(model=model, preprocess=TrainConfig().preprocess, batch_size=16, clip=0.5, learning_rate=1e-3)
    recipe = dataclasses.replace(recipe, preprocess=dataclasses.replace(recipe.preprocess, sample=64, points=64))
    made = Group(GroupConfig("toy", recipe, seeds, alone), CloudData(recipe, load_npz(toy)), CPU)
    made.schedule(2)
    made.load(list(made.prepared(0)))
    return made


@pytest.mark.parametrize("known", [True, False])
def test_a_step_of_nets_together_is_a_step_of_each_with_the_others_as_teachers(toy: Path, known: bool) -> None:
    model = dataclasses.replace(MODEL, known=known)
    together = group(toy, model, (1, 2, 3), (4,))
    config = together.config
    nets, averaged, optimisers = [], [], []
    for seed in (1, 2, 3, 4):
        torch.manual_seed(seed)
        nets.append(CentroidClassifier(model).train())
        averaged.append(
            torch.optim.swa_utils.AveragedModel(nets[-1], avg_fn=moving_average(config.average), use_buffers=True)
        )
        averaged[-1].update_parameters(nets[-1])
        optimisers.append(torch.optim.AdamW(decayed(nets[-1], config.weight_decay), lr=1.0, eps=1e-3))
    for settings in together.optimiser.param_groups:
        settings["eps"] = 1e-3  # so that a gradient of nothing but rounding moves nothing
    factor, loss = warm_cosine(2 * together.steps, config.warmup), ClassifierTraining(config)
    for step in range(4):
        points, labels = (tensor[16 * step : 16 * step + 16] for tensor in together.epoch[:2])
        scores = [net.scores(points, ordered=True) for net in nets]
        answers = [score.logits.detach().softmax(dim=1) for score in scores]
        for number, (net, score) in enumerate(zip(nets, scores, strict=True)):
            cost = loss.loss(score.logits, labels)
            if number < 3:
                taught = torch.stack([answers[other] for other in range(3) if other != number]).mean(dim=0)
                taught_cost = nn.functional.cross_entropy(score.logits, taught, reduction="none")
                cost = (1 - config.teaching) * cost + config.teaching * (labels >= 0) * taught_cost
            cost = cost.mean()
            if score.known is not None:
                cost = cost + nn.functional.binary_cross_entropy_with_logits(score.known, (labels >= 0).float())
            optimisers[number].zero_grad()
            cost.backward()
            nn.utils.clip_grad_norm_(net.parameters(), config.clip)
            for settings in optimisers[number].param_groups:
                settings["lr"] = config.learning_rate * factor(step)
            optimisers[number].step()
            averaged[number].update_parameters(net)
        together.update()
    for net, mean, made, made_mean in zip(nets, averaged, together.stack.apart(), together.averaged.apart(), strict=True):
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                torch.testing.assert_close(made[name], tensor, atol=2e-5, rtol=1e-4)
                torch.testing.assert_close(made_mean[name], mean.module.state_dict()[name], atol=2e-5, rtol=1e-4)


def test_what_is_taken_apart_answers_as_the_stack(toy: Path) -> None:
    model = dataclasses.replace(MODEL, encoder=dataclasses.replace(MODEL.encoder, drop_path=0.3))
    together = group(toy, model, (1, 2))
    together.update()
    points, _, *found = (tensor[:5] for tensor in together.epoch)
    lists = dict(zip(together.wanted, found, strict=True))
    stack = copy.deepcopy(together.stack).eval()
    stack.config = dataclasses.replace(model, encoder=dataclasses.replace(model.encoder, drop_path=0.0))
    logits, known = stack(points, lists)
    assert known is not None
    for number, state in enumerate(together.stack.apart()):
        single = CentroidClassifier(model).eval()
        single.load_state_dict(state)
        scores = single.scores(points, ordered=True)
        torch.testing.assert_close(logits[:, number], scores.logits, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(known[:, number], scores.known, atol=1e-5, rtol=1e-4)


def test_a_head_as_wide_as_what_is_pooled_is_stacked_right() -> None:
    """By its width alone, its last layer looks like its first."""
    torch.manual_seed(0)
    model = dataclasses.replace(MODEL, hidden=2 * MODEL.encoder.stages[-1].dim)
    nets = [CentroidClassifier(model).eval() for _ in range(2)]
    points = farthest_first(torch.randn(3, 60, 3), model.seeds)
    logits, _ = Stack(nets).eval()(points, {})
    for number, net in enumerate(nets):
        torch.testing.assert_close(logits[:, number], net(points, ordered=True), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"start": "a.safetensors"}, "start='a.safetensors' is for pointcentroid train alone"),
        ({"sharpness": 0.05}, "sharpness=0.05 is for"),
        ({"batch_size": 8}, "must share split, preprocess and batch_size"),
    ],
)
def test_a_plan_holds_nothing_that_would_be_ignored(change: dict[str, Any], says: str) -> None:
    groups = read_plan(ROOT / "tools" / "together.yaml")
    check_plan(groups)
    changed = dataclasses.replace(groups[1], recipe=dataclasses.replace(groups[1].recipe, **change))
    with pytest.raises(SystemExit, match=says):
        check_plan([groups[0], changed])
    with pytest.raises(SystemExit, match="no group"):
        check_plan([])


def test_nets_that_attend_are_not_stacked() -> None:
    attending = dataclasses.replace(MODEL, encoder=dataclasses.replace(MODEL.encoder, steps=1))
    with pytest.raises(ValueError, match="without attention"):
        Stack([CentroidClassifier(attending)])


def test_the_plan_is_of_the_shipped_configurations() -> None:
    small, tiny = read_plan(ROOT / "tools" / "together.yaml")
    assert (small.names, tiny.names) == ([f"small-{n}" for n in range(1, 6)], [f"tiny-{n}" for n in range(1, 6)])
    assert (small.recipe.name, tiny.recipe.name) == ("small", "tiny")


def test_it_makes_weights_that_predict(toy: Path, tmp_path: Path) -> None:
    cloud = {"sample": 64, "points": 64}
    recipe = {"name": "toy", "model": to_dict(MODEL), "preprocess": cloud, "batch_size": 16, "learning_rate": 0.01}
    (tmp_path / "toy.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    groups = [{"name": "toy", "config": "toy.yaml", "seeds": [1, 2], "alone": [3]}]
    (tmp_path / "plan.yaml").write_text(json.dumps(groups))
    script = [sys.executable, ROOT / "tools" / "together.py"]
    train = [*script, "train", tmp_path / "plan.yaml", "--data", toy, "-o", tmp_path, "--epochs", "30"]
    done = subprocess.run(train, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([*script, "finish", tmp_path, "--data", toy], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    logged = json.loads((tmp_path / "log.json").read_text())[-1]["validation"]
    clouds = load_npz(toy)
    held_out = clouds.subset(clouds.part("validation"))
    for number, others in ((1, ["toy-2"]), (2, ["toy-1"]), (3, [])):
        path = tmp_path / f"toy-{number}.safetensors"
        card = read_card(path)
        assert card.provenance["together_with"] == others
        measured = 100 * card.metrics["validation_overall"], 100 * card.metrics["validation_mean_class"]
        assert measured == pytest.approx(logged[f"toy-{number}"], abs=1e-3)
        assert measured[0] > 80
        assert load_weights(path)[0].keys() == CentroidClassifier(MODEL).state_dict().keys()
        said = load(path).predict(list(held_out.points), up="z")
        right = np.mean([one.label == clouds.classes[label] for one, label in zip(said, held_out.labels, strict=True)])
        assert 100 * right == pytest.approx(measured[0], abs=1e-3)


def test_the_mean_of_weights(toy: Path, tmp_path: Path) -> None:
    recipe = TrainConfig(name="a", model=MODEL)
    recipe = dataclasses.replace(recipe, preprocess=dataclasses.replace(recipe.preprocess, sample=64, points=64))
    rates = (0.01, 0.02)
    seen = {"data_sha256": load_npz(toy).fingerprint}

    def weights_of(split: Literal["training", "all"]) -> tuple[list[Path], list[dict[str, Any]]]:
        paths, states = [], []
        for number, rate in enumerate(rates):
            torch.manual_seed(number)
            states.append(CentroidClassifier(MODEL).state_dict())
            config = to_dict(dataclasses.replace(recipe, name=f"{split}{number}", learning_rate=rate, split=split))
            card = WeightsCard(
                f"{split}{number}", MODEL, recipe.preprocess, ("x", "y", "z"), {"epoch": 1}, seen | {"config": config}
            )
            paths.append(tmp_path / f"{split}{number}.safetensors")
            save_weights(paths[-1], states[-1], card)
        return paths, states

    def mean(*words: object, data: Path = toy) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, ROOT / "tools" / "together.py", "mean", *words, "--data", data]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True)

    files, states = weights_of("training")
    shapes = dict(np.load(toy))
    np.savez(tmp_path / "other.npz", **(shapes | {"points": shapes["points"][:, ::-1]}))
    other = mean(*files, "-o", tmp_path / "c.safetensors", data=tmp_path / "other.npz")
    assert "is not the data set that the weights were trained on" in other.stderr
    assert mean(*files, "-o", tmp_path / "c.safetensors").returncode == 0
    made, card = load_weights(tmp_path / "c.safetensors")
    assert card.name == "c"
    settings = [card.provenance["config"], *card.provenance["mean_with"]]
    assert [one["learning_rate"] for one in settings] == list(rates)
    for name, tensor in made.items():
        torch.testing.assert_close(tensor, (states[0][name] + states[1][name]) / 2 if tensor.is_floating_point() else tensor)

    # Of weights trained on all shapes no shape is left to measure: the figures are those of the recipe.
    files, _ = weights_of("all")
    of_recipe = ("--recipe", tmp_path / "c.safetensors", "-o", tmp_path / "e.safetensors")
    assert mean(*files, *of_recipe).returncode == 0
    all_shapes = load_weights(tmp_path / "e.safetensors")[1]
    assert all_shapes.metrics == card.metrics | {"recipe_runs": 1}
    assert (all_shapes.temperature, all_shapes.known) == (card.temperature, card.known)
    assert all_shapes.trained_on_all
    assert all_shapes.knows_validation == all_shapes.trained_on
    assert all_shapes.provenance["config"]["recipe"] == ["c.safetensors"]
    assert "is of another recipe: learning_rate" in mean(*reversed(files), *of_recipe).stderr
    assert "is the mean of 2 weights, here are 1" in mean(files[0], *of_recipe).stderr
