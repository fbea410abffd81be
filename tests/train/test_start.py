"""Trainings that start from weights, or are taught by some."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import pointcentroid as pc
from pointcentroid.config import (
    AutoencoderConfig,
    ClassifierConfig,
    PartsConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from pointcentroid.data.clouds import FOREIGN, load_npz
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.nn.parts import PartsNet
from pointcentroid.train.module import ClassifierTraining
from pointcentroid.train.starting import start_from
from pointcentroid.weights import load_weights, read_card, save_weights, tensors_hash

from ..test_cli import run
from .small import BOTH, SMALL, train


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


def test_only_classifiers_are_fine_tuned_on_classes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "own" / name).mkdir(parents=True)
        (tmp_path / "own" / name / "x.xyz").write_text("0 0 0\n1 0 0\n0 1 0\n")
    done = run("train", tmp_path / "own", "--from", "autoencoder")
    assert done.returncode == 2
    assert "autoencoder does not classify" in done.stderr


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
