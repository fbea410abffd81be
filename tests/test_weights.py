"""Weights files: everything comes back, damage is an error, nothing is executed."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from pointcentroid.config import WHERE, ClassifierConfig, PreprocessConfig, TrainConfig, from_dict, to_dict
from pointcentroid.errors import MissingExtraError, WeightsError
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.predict.runtimes import open_net
from pointcentroid.train.settings import load_train_config, shipped_configs
from pointcentroid.weights import WeightsCard, find_weights, graph_of, load_weights, read_card, save_weights, shipped_weights

CARD = WeightsCard("toy", ClassifierConfig(classes=2), PreprocessConfig(points=64), ("a", "b"), {"m": 0.5}, {"seed": 3})


def test_round_trip(tmp_path: Path) -> None:
    tensors = {"w": torch.randn(3, 4), "b": torch.randn(4).t()}
    save_weights(tmp_path / "toy.safetensors", tensors, CARD)
    loaded, card = load_weights(tmp_path / "toy.safetensors")
    assert card == CARD == read_card(tmp_path / "toy.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[k], tensors[k]) for k in tensors)


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "toy.safetensors"
    save_weights(path, {"w": torch.zeros(1)}, CARD)

    def interrupted(_tensors, file, _metadata):
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_weights(path, {"w": torch.ones(1)}, CARD)
    assert load_weights(path)[0]["w"].item() == 0
    assert [p.name for p in tmp_path.iterdir()] == ["toy.safetensors"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(tmp_path: Path, value: float) -> None:
    save_weights(tmp_path / "toy.safetensors", {"w": torch.tensor([0, value]), "n": torch.tensor(3)}, CARD)
    with pytest.raises(WeightsError, match="its tensor w holds numbers that are not finite"):
        load_weights(tmp_path / "toy.safetensors")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_precisions_are_read_as_float32(tmp_path: Path, kind: torch.dtype) -> None:
    tensors, card = load_weights(find_weights("tiny"))
    stored = {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_weights(tmp_path / "other.safetensors", stored, card)
    loaded, _ = load_weights(tmp_path / "other.safetensors")
    assert all(torch.equal(loaded[name], stored[name].to(tensors[name].dtype)) for name in tensors)
    assert CentroidClassifier.from_tensors(card.model, loaded)(torch.randn(1, 300, 3)).isfinite().all()


def test_numbers_that_no_training_arrives_at_are_refused(tmp_path: Path) -> None:
    for tensors, says in (
        ({"norm.running_var": torch.tensor([1.0, -1e-3])}, "variances below 0"),
        ({"w": torch.zeros(2, dtype=torch.complex64)}, "is complex"),
    ):
        save_weights(tmp_path / "toy.safetensors", tensors, CARD)
        with pytest.raises(WeightsError, match=says):
            load_weights(tmp_path / "toy.safetensors")


def rewrite(path: Path, change) -> None:
    save_weights(path, {"w": torch.zeros(1)}, CARD)
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    description = json.loads(metadata["pointcentroid"])
    change(description)
    safetensors.torch.save_file({"w": torch.zeros(1)}, path, {"pointcentroid": json.dumps(description)})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(format=99), "format 99"),
        (lambda d: d.pop("classes"), "description is damaged"),
        (lambda d: d.update(classes=["a"]), "1 class names for 2 outputs"),
        (lambda d: d["model"].update(klasses=3), "did you mean 'classes'"),
        (lambda d: d.update(classes=["a", "a"]), "names of classes must differ"),
        (lambda d: d.update(classes=["a", ""]), "none be empty"),
        (lambda d: d.update(classes="ab"), "classes must be a list of names"),
        (lambda d: d.update(classes=["a", None]), "classes must be a list of names"),
        (lambda d: d.update(name=[[1]]), "description is damaged"),
        (lambda d: d.update(temperature=10**400), "description is damaged"),
        (lambda d: d.update(temperature=1e-320), "must lie in 0.001..1000"),
        (lambda d: d.update(temperature=float("inf")), "must lie in 0.001..1000"),
        (lambda d: d.update(known={"threshold": float("nan")}), "known must be finite"),
        (lambda d: d.update(provenance={"trained_on": 5}), "provenance.trained_on must be a list of names"),
        (lambda d: d.update(provenance={"config": "all"}), "provenance.config must be a mapping"),
        (lambda d: d["model"].update(hidden=2**70), "model.hidden must be at most 1048576"),
        (lambda d: d["model"].update(dropout=10**400), "too large"),
        (lambda d: d["model"]["encoder"]["stages"][0].update(local_blocks=10**9), "must be at most 1024"),
        (lambda d: d["preprocess"].update(sample=10**11), "preprocess.sample must be at most"),
    ],
)
def test_damaged_descriptions(tmp_path: Path, change, says: str) -> None:
    rewrite(tmp_path / "toy.safetensors", change)
    with pytest.raises(WeightsError, match=says):
        load_weights(tmp_path / "toy.safetensors")


def test_a_description_of_a_million_brackets(tmp_path: Path) -> None:
    path = tmp_path / "toy.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(1)}, path, {"pointcentroid": "[" * 10**6})
    with pytest.raises(WeightsError, match="description is damaged"):
        load_weights(path)


def test_names_steer_no_terminal(tmp_path: Path) -> None:
    rewrite(tmp_path / "toy.safetensors", lambda d: d.update(name="t\x1b[31m", classes=["a\nb", "\x9bc"]))
    card = read_card(tmp_path / "toy.safetensors")
    assert (card.name, card.classes) == (r"t\x1b[31m", (r"a\nb", r"\x9bc"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(WeightsError, match="no such weights file"):
        load_weights(path)
    safetensors.torch.save_file({"w": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="not a file of pointcentroid's"):
        load_weights(path)
    save_weights(path, {"w": torch.zeros(1000)}, CARD)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged"):
        load_weights(path)
    path.write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_weights(path)


def test_names_are_resolved_and_mistakes_name_the_nearest() -> None:
    assert find_weights("small").name == "small.safetensors"
    with pytest.raises(WeightsError, match="did you mean 'small'"):
        find_weights("smal")


def test_what_stands_beside_weights_says_where_they_are(tmp_path: Path) -> None:
    save_weights(tmp_path / "mine.safetensors", {"w": torch.zeros(1000)}, CARD)
    with pytest.raises(WeightsError, match=f"{tmp_path} is a folder; the weights in it are {tmp_path / 'mine.safetensors'}"):
        find_weights(tmp_path)
    (tmp_path / "last.ckpt").write_bytes(b"...")
    with pytest.raises(WeightsError, match=r"last.ckpt is of a training that goes on from it with --resume"):
        read_card(tmp_path / "last.ckpt")


def test_a_graph_of_other_weights_without_torch_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    shutil.copy(find_weights("tiny"), tmp_path / "own.safetensors")
    shutil.copy(graph_of(find_weights("small")), tmp_path / "own.onnx")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"a net without a graph of its own .* pip install 'pointcentroid"):
        open_net(tmp_path / "own.safetensors")
    assert "is of other weights" in capsys.readouterr().err
    for asked, says in (({"device": "cuda"}, "device=cuda needs"), ({"runtime": "torch"}, "runtime=torch needs")):
        with pytest.raises(MissingExtraError, match=says):
            open_net(find_weights("tiny"), **asked)


def test_shipped_weights_are_small_and_say_where_they_come_from() -> None:
    shipped = shipped_weights()
    assert set(shipped) == {"autoencoder", "parts", "small", "tiny"}
    assert sum(path.stat().st_size for path in shipped.values()) < 15e6
    assert max(path.stat().st_size for path in shipped.values()) < 8e6
    for path in shipped.values():
        card = read_card(path)
        assert {"config", "data_sha256", "versions"} <= card.provenance.keys()
        assert card.metrics
        assert "/" not in json.dumps(card.provenance), "no path of the machine it was trained on"


@pytest.mark.parametrize("name", sorted(shipped_weights()))
def test_shipped_weights_were_trained_with_a_shipped_configuration(name: str) -> None:
    # precision=auto is the machine's; a recipe that was frozen is run again with split=all.
    here = {key: getattr(TrainConfig(), key) for key in ("data", "precision", "split", "recipe", *WHERE)}
    card = read_card(find_weights(name))
    assert card.trained_on_all == ("recipe_runs" in card.metrics), "whose figures are these?"
    # Weights of 0.1.0 name no norm in the settings they were trained with; their cards are read with the norm of then.
    settings = card.provenance["config"] | {"model": to_dict(card.model)}
    settings["augment"].pop("reorient", None)  # a setting of 0.1.0, for nets that are gone

    def without_folders(config: TrainConfig) -> TrainConfig:
        named = {"start": Path(config.start).stem, "teachers": tuple(Path(name).stem for name in config.teachers)}
        return dataclasses.replace(config, **here, **named)

    configs = [without_folders(load_train_config(path, ["data=none"])) for path in shipped_configs()]
    assert without_folders(from_dict(TrainConfig, settings)) in configs


def test_the_card_is_read_without_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pointcentroid.weights import *; read_card(find_weights('small'));"
        "import pointcentroid.predict.preparing;"
        "import pointcentroid.cli.app; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("provenance", "known"),
    [
        ({"data_sha256": "a", "config": {"split": "all"}}, ("a",)),
        ({"data_sha256": "a", "config": {"split": "training"}}, ()),
        ({"data_sha256": "a", "knows_validation": True}, ("a",)),
        ({"data_sha256": "a", "knows_validation": False}, ()),
        ({"data_sha256": "a", "trained_on": ["a", "b"], "knows_validation": ["b"]}, ("b",)),
        ({}, ()),
    ],
)
def test_cards_of_every_version_say_what_they_know(provenance: dict, known: tuple[str, ...]) -> None:
    card = dataclasses.replace(read_card(find_weights("tiny")), provenance=provenance)
    assert card.knows_validation == known
