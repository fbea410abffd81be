"""Settings and sources of data, and what is wrong with them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pointcentroid as pc
from pointcentroid.config import (
    TrainConfig,
)
from pointcentroid.data.clouds import load_npz, split_validation
from pointcentroid.errors import ConfigError, DataError
from pointcentroid.models import model_config
from pointcentroid.train.settings import load_train_config
from pointcentroid.weights import load_weights, read_card, save_weights

from ..test_cli import run
from .small import SMALL


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


@pytest.mark.parametrize("words", ["modelnet40-reconstruct model=tiny", "modelnet40-tiny model=autoencoder"])
def test_a_model_that_is_named_takes_the_place_of_another(words: str) -> None:
    name, change = words.split()
    assert load_train_config(name, ["data=x.npz", change]).model == model_config(change.partition("=")[2])


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


def test_shapes_of_no_class_teach_known_and_are_no_class(toy: Path, tmp_path: Path) -> None:
    """Balls beside rods and plates: as a third class, and as of none."""
    with np.load(toy) as arrays:
        held = dict(arrays)
    balls = np.random.default_rng(0).normal(size=(40, 128, 3))
    balls -= balls.mean(axis=1, keepdims=True)
    balls /= np.linalg.norm(balls, axis=2).max(axis=1)[:, None, None]
    path = tmp_path / "three.npz"
    np.savez(
        path,
        points=np.concatenate([np.round((balls + 1) * 2047.5).astype(np.uint16), held["points"]]),
        labels=np.concatenate([np.zeros(40, np.uint8), held["labels"] + 1]),
        names=[f"shape_{number:04d}" for number in range(120)],
        classes=["ball", "rod", "plate"],
    )
    changes = ["name=toy", *SMALL, "model.known=true", "augment.foreign=0.05", "augment.quarter_turn=0", "augment.turn=0"]
    nets = {}
    for none in ("", "ball"):
        arguments = [f"data={path}", f"output={tmp_path / (none or 'three')}", f"no_class={none}", *changes]
        done = run("train", "modelnet40-small", *arguments, f"model.classes={2 if none else 3}", "--format", "json")
        assert done.returncode == 0, done.stderr
        assert f"of {2 if none else 3} classes to train on, {8 if none else 12} to validate" in done.stderr
        nets[none] = pc.load(json.loads(done.stdout)["weights"])
    assert [net.classes for net in nets.values()] == [("ball", "rod", "plate"), ("rod", "plate")]
    held_out = [np.random.default_rng(seed).normal(size=(128, 3)) for seed in range(20)]
    said = {none: [net(ball, up="z").known for ball in held_out] for none, net in nets.items()}
    assert max(said["ball"]) < 0.5
    assert min(said[""]) > max(said["ball"])
    flat = np.random.default_rng(5).uniform(-1, 1, size=(128, 3)) * (1, 1, 0.05)
    assert nets["ball"](flat, up="z").known > max(said["ball"])


def test_what_is_no_class_must_be_there_and_be_learnt(toy: Path, tmp_path: Path) -> None:
    arguments = ["train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", *SMALL]
    done = run(*arguments, "no_class=rods", "model.known=true")
    assert done.returncode == 2
    assert "no class 'rods' to be no_class (did you mean 'rod'?)" in done.stderr
    done = run(*arguments, "no_class=rod", "model.known=false")
    assert done.returncode == 2
    assert "no_class is what the output of model.known=true learns from" in done.stderr


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
