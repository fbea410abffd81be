"""Graphs for ONNX Runtime: equal to torch, free in batch and points, with all that is to be known beside them."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import pointcentroid as pc
from pointcentroid.config import ClassifierConfig, EncoderConfig, StageConfig
from pointcentroid.data.clouds import load_npz
from pointcentroid.errors import ConfigError, WeightsError
from pointcentroid.export.onnx import export
from pointcentroid.geometry.farthest import farthest_first
from pointcentroid.models import create_model, model_config
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.predict.nets import neighbour_lists, searches
from pointcentroid.predict.onnx_net import OnnxNet
from pointcentroid.predict.torch_net import TorchNet
from pointcentroid.results import Prediction
from pointcentroid.weights import CARD_KEY, WeightsCard, read_card, save_weights, shipped_weights

from .conftest import EXAMPLES, ROOT
from .test_cli import run
from .test_norm import trained

SHIPPED = [name for name, path in shipped_weights().items() if read_card(path).model.kind == "classifier"]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a net whose attention and norms do something, and their graph beside them."""
    encoder = dataclasses.replace(model_config("tiny").encoder, steps=1)  # type: ignore[union-attr]
    net = trained(create_model("tiny", classes=3, encoder=encoder))
    path = tmp_path_factory.mktemp("own") / "own.safetensors"
    card = WeightsCard("own", net.config, read_card(shipped_weights()["tiny"]).preprocess, ("a", "b", "c"), temperature=1.5)  # type: ignore[attr-defined]
    save_weights(path, net.state_dict(), card)
    assert export(path, path.with_suffix(".onnx")) < 1e-4
    return path


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_classifier_has_the_graph_of_its_tensors(name: str) -> None:
    path = shipped_weights()[name]
    assert OnnxNet(path.with_suffix(".onnx"), path).is_of(path)


def test_shipped_files_are_small_enough() -> None:
    assert sum(p.stat().st_size for p in (ROOT / "pointcentroid" / "checkpoints").iterdir()) <= 20e6


def test_any_batch_and_any_number_of_points(own: Path) -> None:
    onnx, torch_net = OnnxNet(own.with_suffix(".onnx"), own), TorchNet(own, "cpu")
    rng = np.random.default_rng(0)
    for batch, points in ((1, 1024), (3, 700), (40, 256), (2, torch_net.card.model.seeds + 1), (1, 5000)):
        clouds = farthest_first(rng.normal(size=(batch, points, 3)).astype(np.float32), torch_net.card.model.seeds)
        clouds /= np.linalg.norm(clouds, axis=2).max(axis=1)[:, None, None]
        for made, expected in zip(onnx(clouds), torch_net(clouds), strict=True):
            assert made.shape == expected.shape
            np.testing.assert_allclose(made, expected, atol=1e-4 * expected.std(), rtol=0)


@pytest.mark.parametrize("cells", [4, 6, 10])
def test_of_equally_near_neighbours_a_graph_takes_the_first(own: Path, cells: int) -> None:
    torch_net, graph = TorchNet(own, "cpu"), OnnxNet(own.with_suffix(".onnx"), own)
    clouds = np.random.default_rng(cells).uniform(-0.5, 0.5, size=(8, 1024, 3))
    clouds = farthest_first((np.round(clouds * cells) / cells).astype(np.float32), torch_net.card.model.seeds)
    (found,) = graph.session.run(["logits"], {"clouds": clouds})
    wanted = torch_net(clouds).logits
    np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-4 * wanted.std())


def test_fewer_centroids_than_neighbours_and_some(own: Path, tmp_path: Path) -> None:
    card = read_card(own)
    for centroids, fits in ((16, True), (15, True), (14, False)):
        stages = StageConfig(centroids, 8), StageConfig(4, 8)
        model = ClassifierConfig(classes=3, hidden=8, encoder=EncoderConfig(stages=stages, steps=0))
        path = tmp_path / f"{centroids}.safetensors"
        save_weights(path, trained(CentroidClassifier(model)).state_dict(), dataclasses.replace(card, model=model))
        if fits:
            assert export(path, path.with_suffix(".pt2")) < 1e-4
            assert export(path, path.with_suffix(".onnx")) < 1e-4
            seen = np.random.default_rng(0).normal(size=(16, 3))
            made, wanted = (pc.load(path, runtime=runtime)(seen) for runtime in ("onnx", "torch"))
            np.testing.assert_allclose(made.feature, wanted.feature, atol=1e-4)
        else:
            with pytest.raises(WeightsError, match="more neighbours than there are centroids"):
                export(path, path.with_suffix(".pt2"))


def test_a_graph_that_is_not_of_its_card_is_refused(own: Path, tmp_path: Path) -> None:
    graph = Path(shutil.copy(own.with_suffix(".onnx"), tmp_path))
    card = read_card(own)
    assert isinstance(card.model, ClassifierConfig)
    encoder = dataclasses.replace(card.model.encoder, stages=(StageConfig(24, 16), StageConfig(8, 16)))
    others: list[dict[str, Any]] = [{"classes": 2}, {"known": not card.model.known}, {"encoder": encoder}]
    for changes in others:
        model = dataclasses.replace(card.model, **changes)
        other = dataclasses.replace(card, model=model, classes=card.classes[: model.classes])
        content = onnx.load(graph)
        for entry in content.metadata_props:
            if entry.key == CARD_KEY:
                entry.value = other.to_json()
        onnx.save(content, tmp_path / "other.onnx")
        with pytest.raises(WeightsError, match="takes or gives other things than its description says"):
            pc.load(tmp_path / "other.onnx")


def test_neighbours_are_found_in_the_graph_unless_they_are_given(own: Path) -> None:
    onnx, torch_net = OnnxNet(own.with_suffix(".onnx"), own), TorchNet(own, "cpu")
    clouds = np.random.default_rng(0).normal(size=(3, 600, 3)).astype(np.float32)
    clouds = farthest_first(clouds / np.linalg.norm(clouds, axis=2, keepdims=True), torch_net.card.model.seeds)
    lists = neighbour_lists(clouds, onnx.card)
    assert {f"nearest_{level}_{count}" for level, count in lists} == {
        entry.name for entry in onnx.session.get_overridable_initializers()
    }
    given, wanted = onnx(clouds, lists).logits, torch_net(clouds).logits
    np.testing.assert_allclose(given, wanted, atol=1e-4 * wanted.std())
    np.testing.assert_allclose(np.asarray(onnx.session.run(None, {"clouds": clouds})[0]), wanted, atol=1e-4 * wanted.std())
    np.testing.assert_array_equal(torch_net(clouds, lists).logits, wanted)
    assert onnx.neighbours(clouds).keys() == lists.keys()
    for name, values in lists.items():  # each list is looked at, in both runtimes
        np.testing.assert_array_equal(onnx.neighbours(clouds)[name], values)
        others = dict(lists) | {name: np.zeros_like(values)}
        for net in (onnx, torch_net):
            assert np.abs(net(clouds, others).logits - wanted).max() > 1e-2 * wanted.std()


@pytest.mark.parametrize(
    "options", [{"steps": 1, "centroid_position": "mean"}, {"side": "inputs"}, {"initialiser": "voxel"}]
)
def test_what_cannot_be_listed_before_a_net_runs_is_left_to_it(options: dict[str, Any]) -> None:
    card = read_card(shipped_weights()["tiny"])
    assert isinstance(card.model, ClassifierConfig)
    encoder = dataclasses.replace(card.model.encoder, **options)
    other = dataclasses.replace(card, model=dataclasses.replace(card.model, encoder=encoder))
    assert searches(card)
    assert not searches(other)
    assert not neighbour_lists(np.zeros((2, 300, 3), np.float32), other)


def test_a_graph_alone_classifies(own: Path, tmp_path: Path) -> None:
    graph = Path(shutil.copy(own.with_suffix(".onnx"), tmp_path))
    card = read_card(graph)
    assert (card.classes, card.temperature) == (("a", "b", "c"), 1.5)
    expected, alone = pc.load(own, runtime="torch"), pc.load(graph)
    for source in (EXAMPLES / "chair.off", EXAMPLES / "lamp.glb", np.random.default_rng(0).normal(size=(20, 3))):
        made, wanted = alone(source), expected(source)
        assert (made.label, made.up) == (wanted.label, wanted.up)
        assert made.confidence == pytest.approx(wanted.confidence, abs=1e-4)
        np.testing.assert_allclose(made.feature, wanted.feature, atol=1e-4)
    with pytest.raises(ConfigError, match="is a graph"):
        alone.explain(EXAMPLES / "chair.off")
    with pytest.raises(ConfigError, match="need torch"):
        pc.load(graph, "cuda:0")


def test_a_graph_of_other_tensors_is_not_used(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = Path(shutil.copy(own, tmp_path))
    assert isinstance(pc.load(weights).net, TorchNet)
    with pytest.raises(ConfigError, match="pointcentroid export"):
        pc.load(weights, runtime="onnx")
    shutil.copy(shipped_weights()["tiny"].with_suffix(".onnx"), weights.with_suffix(".onnx"))
    assert isinstance(pc.load(weights).net, TorchNet)
    shutil.copy(own.with_suffix(".onnx"), weights.with_suffix(".onnx"))
    assert isinstance(pc.load(weights).net, OnnxNet)
    assert isinstance(pc.load(weights, runtime="torch").net, TorchNet)
    assert "of other weights" in capsys.readouterr().err
    weights.with_suffix(".onnx").write_bytes(b"not a graph")
    with pytest.raises(WeightsError, match="not a graph"):
        pc.load(weights)


@pytest.mark.parametrize(
    ("key", "value"),
    [("initialiser", "random"), ("initialiser", "kmeans++"), ("side", "inputs"), ("centroid_position", "mean")],
)
def test_what_has_no_graph_is_told_so(key: str, value: str, tmp_path: Path) -> None:
    encoder = dataclasses.replace(model_config("tiny").encoder, steps=1, **{key: value})  # type: ignore[union-attr]
    net = create_model("tiny", classes=3, encoder=encoder)
    card = WeightsCard("own", net.config, read_card(shipped_weights()["tiny"]).preprocess, ("a", "b", "c"))  # type: ignore[attr-defined]
    save_weights(tmp_path / "own.safetensors", net.state_dict(), card)
    done = run("export", tmp_path / "own.safetensors", "-o", tmp_path / "own.onnx")
    assert done.returncode == 2
    assert f"encoder.{key}={value} no .onnx can be made" in " ".join(done.stderr.split())


def test_export_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"\.onnx or \.pt2"):
        export(shipped_weights()["tiny"], tmp_path / "tiny.tflite")
    with pytest.raises(WeightsError, match="autoencoder"):
        export(shipped_weights()["autoencoder"], tmp_path / "autoencoder.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_program_of_torch(own: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.pt2"
    command = [sys.executable, "-m", "pointcentroid", "export", own, "-o", path]
    assert "of torch" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    cards = {"pointcentroid": ""}
    program = torch.export.load(str(path), extra_files=cards)
    assert '"classes": ["a", "b", "c"]' in cards["pointcentroid"]
    clouds = torch.nn.functional.normalize(torch.randn(2, 600, 3), dim=2)
    with torch.inference_mode():
        logits, _ = program.module()(clouds)
    np.testing.assert_allclose(logits.numpy(), TorchNet(own, "cpu")(clouds.numpy())[0], atol=1e-4)


@pytest.mark.parametrize("name", ["chair.off", "airplane.gltf"])
def test_the_script_in_the_documentation_gives_the_answer_of_the_command(name: str, tmp_path: Path) -> None:
    """Ten lines with onnxruntime and numpy, and nothing of ours, of a cloud that is made as it says."""
    from pointcentroid.predict.preparing import prepare

    text = (ROOT / "docs" / "export.md").read_text()
    script = text.split("```python\n")[1].split("```")[0]
    assert len([line for line in script.splitlines() if line.strip()]) <= 10
    assert "pointcentroid import" not in script
    assert "import pointcentroid" not in script
    net, file = pc.load("small"), EXAMPLES / name
    made = re.search(r"`(np\.save\(\"cloud\.npy\", .+)`\.", text)
    assert made
    with contextlib.chdir(tmp_path):
        exec(made[1], {"np": np, "net": net, "file": file, "prepare": prepare})
    shutil.copy(shipped_weights()["small"].with_suffix(".onnx"), tmp_path / "small.onnx")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True)
    answer = net(file)
    label, share = done.stdout.split()
    assert label == answer.label
    assert float(share) == pytest.approx(answer.confidence, abs=1e-4)


@pytest.mark.parametrize("name", ["small", "tiny"])
def test_both_runtimes_say_the_same_of_all_validation_shapes(modelnet: Path, name: str) -> None:
    clouds = load_npz(modelnet)
    clouds = clouds.subset(clouds.part("validation"))
    answers = [list(pc.load(name, "cpu", runtime=r).predict(list(clouds.points), up="z")) for r in ("onnx", "torch")]  # type: ignore[arg-type]
    agree(*answers)


def test_both_runtimes_say_the_same_of_real_files(real_meshes: Path) -> None:
    files = sorted(p for p in real_meshes.iterdir() if p.suffix != ".tsv")
    answers = [list(pc.load("small", "cpu", runtime=r).predict(files, workers=0)) for r in ("onnx", "torch")]  # type: ignore[arg-type]
    agree(*answers)


def agree(one: list, other: list) -> None:
    assert len(one) == len(other) > 50
    for a, b in zip(one, other, strict=True):
        assert type(a) is type(b)
        if isinstance(a, Prediction):
            assert (a.file, a.label, a.up) == (b.file, b.label, b.up)
            assert a.confidence == pytest.approx(b.confidence, abs=1e-4)
