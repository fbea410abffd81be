"""Configurations: checked when built, the same after a round trip, helpful about mistakes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pointcentroid.config import (
    AugmentConfig,
    AutoencoderConfig,
    CapsuleAutoencoderConfig,
    ClassifierConfig,
    EncoderConfig,
    PartsConfig,
    PreprocessConfig,
    StageConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from pointcentroid.errors import ConfigError
from pointcentroid.models import MODELS
from pointcentroid.train.settings import load_train_config, shipped_configs


@pytest.mark.parametrize("config", [TrainConfig(), ClassifierConfig(), *MODELS.values()])
def test_round_trip(config) -> None:
    assert from_dict(type(config), to_dict(config)) == config


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: StageConfig(0, 8), "stage.centroids must be at least 1, found 0"),
        (lambda: StageConfig(4, 10, heads=4), "stage.dim=10 must be a multiple of stage.heads=4"),
        (lambda: EncoderConfig(stages=(StageConfig(4, 8), StageConfig(8, 8))), r"must not grow: centroids \[4, 8\]"),
        (lambda: EncoderConfig(stages=()), "at least one stage"),
        (lambda: EncoderConfig(steps=0, pool="none"), "leaves nothing that looks around"),
        (lambda: TrainConfig(epochs=0), "epochs must be at least 1"),
        (lambda: TrainConfig(seed=2**32), "seed must lie in"),
        (lambda: TrainConfig(weight_decay=-1.0), "weight_decay must not be negative"),
        (lambda: TrainConfig(clip=-1.0), "clip must be positive"),
        (lambda: TrainConfig(clip=float("inf")), "1e9 lets any gradient pass"),
        (lambda: AugmentConfig(scale=float("inf")), "augment.scale must be at least 1, and finite"),
        (lambda: AugmentConfig(shift=float("inf")), "augment.shift must not be negative, and finite"),
        (lambda: TrainConfig(learning_rate=float("nan")), "learning_rate must be positive"),
        (lambda: TrainConfig(preprocess=PreprocessConfig(64, 64)), "preprocess.points must be at least the 256 centroids"),
        (
            lambda: TrainConfig(model=CapsuleAutoencoderConfig(), preprocess=PreprocessConfig(1, 1)),
            "preprocess.points must be at least 2, found 1",
        ),
        (lambda: TrainConfig(model=PartsConfig(), augment=AugmentConfig(damage=0.1)), "not for nets of parts"),
        (lambda: TrainConfig(model=PartsConfig(), augment=AugmentConfig(mirror=0.5)), "left would be named right"),
        (lambda: TrainConfig(sharpness=float("inf")), "sharpness must not be negative, and finite"),
        (lambda: EncoderConfig(step_size=float("nan")), "encoder.step_size must be finite"),
        (lambda: from_dict(TrainConfig, {"epoch": 3}), "unknown setting epoch .did you mean 'epochs'"),
        (lambda: TrainConfig(model=AutoencoderConfig(), augment=AugmentConfig(mix=0.5)), "augment.mix is for the training"),
        (lambda: from_dict(TrainConfig, {"augment": {"jiter": 0}}), "augment.jiter .did you mean 'jitter'"),
        (lambda: from_dict(TrainConfig, {"epochs": "3"}), "epochs must be of type int, found '3'"),
        (lambda: from_dict(TrainConfig, {"epochs": True}), "epochs must be of type int"),
        (lambda: from_dict(TrainConfig, {"learning_rate": "fast"}), "learning_rate must be a number"),
        (lambda: from_dict(TrainConfig, {"model": {"encoder": {"axis": "points"}}}), "axis must be one of 'inputs'"),
        (lambda: from_dict(TrainConfig, {"model": {"encoder": {"stages": 3}}}), "stages must be a list"),
        (lambda: from_dict(TrainConfig, {"model": {"encoder": {"stages": [{"dim": 8}]}}}), "centroids"),
        (lambda: from_dict(TrainConfig, [1]), "must be a mapping"),
    ],
)
def test_mistakes_name_the_setting(build, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build()


class TestYaml:
    @pytest.mark.parametrize("name", shipped_configs())
    def test_shipped_configurations_are_valid(self, name: str) -> None:
        assert load_train_config(name, ["data=some.npz"]).data == "some.npz"

    def test_there_is_a_configuration_for_every_model(self) -> None:
        names = {load_train_config(name, ["data=x"]).name for name in shipped_configs()}
        assert names - {"finetuned"} == set(MODELS)

    def test_a_model_may_be_a_name_and_be_changed(self, tmp_path: Path) -> None:
        path = tmp_path / "run.yaml"
        path.write_text("model: small\nepochs: 3\n")
        config = load_train_config(str(path), ["model.classes=7", "epochs=4", "augment.jitter=0"])
        assert config.model.encoder == MODELS["small"].encoder
        assert (config.model.classes, config.epochs, config.augment.jitter) == (7, 4, 0)
        assert load_train_config(str(path), ["model=tiny"]).model == MODELS["tiny"]

    @pytest.mark.parametrize(
        ("text", "overrides", "says"),
        [
            ("epochs: [", [], "run.yaml"),
            ("- 1", [], "expected a mapping"),
            ("epochs: 3", ["epochs"], "expected KEY=VALUE"),
            ("data: ???", [], "data"),
            ("model: smal", [], "did you mean 'small'"),
            ("epochs: 3\nleraning_rate: 1", [], "did you mean 'learning_rate'"),
            ("5", [], "run.yaml"),
            ("model: small", ["model.encoder.stages[0].dim=32"], "run.yaml"),
            ("epochs: 3", ["model=[1]"], "model must be a mapping"),
            ("epochs: 3", ["model.kind={a: b}"], "model.kind must be one of"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, text: str, overrides: list[str], says: str) -> None:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError, match=says):
            load_train_config(str(path), overrides)

    @pytest.mark.parametrize("name", ["2024", "on", "a: b", "[new] shapes", "null", "1e5", "~"])
    def test_what_is_given_is_taken_as_it_is(self, name: str) -> None:
        given = load_train_config("finetune", ["epochs=2"], data=name, name="x", model={"classes": 3})
        assert (given.data, given.epochs, given.model.classes) == (name, 2, 3)  # type: ignore[union-attr]
        assert given.model.encoder == MODELS["small"].encoder  # type: ignore[union-attr]
        with pytest.raises(ConfigError, match="rename it"):
            load_train_config("finetune", [], data="a${b}")

    def test_a_number_may_be_a_name(self) -> None:
        for name in ("2024", "007", "2024_05_01", "12:30", "on", "1e5"):
            given = load_train_config("finetune", [f"data={name}", "name=x", "model.classes=3", "start=small"])
            assert given.data == name
        assert load_train_config("modelnet40-small", ["data=x", "name=007", "start="]).name == "007"

    def test_references_mean_what_holds_in_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "run.yaml"
        path.write_text(
            "{name: tiny, model: '${name}', epochs: 7, seed: '${epochs}', augment: {jitter: 0}, "
            "output: 'r-${seed}-${augment.jitter}'}"
        )
        config = load_train_config(str(path), ["data=x", "epochs=9", "augment.jitter=0.02"])
        assert (config.seed, config.output, config.model) == (9, "r-9-0.02", MODELS["tiny"])
        assert load_train_config(str(path), ["data=x", "name=small", "seed=3"]).model == MODELS["small"]
        part = load_train_config(str(path), ["data=x", "model.classes=7"]).model
        assert part == dataclasses.replace(MODELS["tiny"], classes=7)

    def test_an_unknown_configuration_names_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 'modelnet40-small'"):
            load_train_config("modelnet40-smal", [])
