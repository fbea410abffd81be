"""Evaluation, calibration and corruptions, against slow references and through the public command."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import pointcentroid as pc
from pointcentroid.cli.output import print_measures
from pointcentroid.config import ClassifierConfig, PreprocessConfig
from pointcentroid.data.augment import CounterRandom
from pointcentroid.data.clouds import CloudSet, load_npz
from pointcentroid.data.corruptions import CORRUPTIONS, DIRECTIONS, SEVERITIES, corrupt
from pointcentroid.data.foreign import make_foreign
from pointcentroid.data.ordered import OrderedClouds
from pointcentroid.evaluate.accuracy import OFFICIAL_TEST, Evaluation, _axes, _turn, choose_part, evaluate, robustness
from pointcentroid.evaluate.calibration import (
    bootstrap_interval,
    calibration_error,
    cross_fitted,
    fit_known,
    fit_temperature,
    validation_scores,
)
from pointcentroid.evaluate.plots import plot_confusion
from pointcentroid.evaluate.probe import DECAYS, chosen_linear, fit_linear, linear_probe
from pointcentroid.geometry.axes import TO_Z_UP, UP_AXES
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.predict.nets import Answer, familiarity
from pointcentroid.weights import WeightsCard, find_weights, load_weights, save_weights

from .conftest import EXAMPLES
from .data.prepared import save_npz
from .test_cli import run


@pytest.fixture(scope="module")
def few(modelnet: Path, tmp_path_factory) -> Path:
    """Every 60th shape of ModelNet40, all classes named."""
    path = tmp_path_factory.mktemp("few") / "few.npz"
    with np.load(modelnet) as arrays:
        np.savez(path, **{key: value if key == "classes" else value[::60] for key, value in arrays.items()})
    return path


class TestCalibration:
    def test_the_temperature_that_made_the_labels_is_found(self) -> None:
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(20_000, 10, generator=generator) * 3
        for truth in (0.5, 1.0, 2.5):
            labels = torch.multinomial((logits / truth).softmax(dim=1), 1, generator=generator)[:, 0]
            assert fit_temperature(logits, labels) == pytest.approx(truth, rel=0.04)
            confidence, correct = cross_fitted(logits, labels)
            assert calibration_error(confidence, correct) < 0.012
            assert calibration_error((logits / 6).softmax(dim=1).amax(dim=1).numpy(), correct) > 0.05

    def test_confidence_of_a_shape_does_not_know_its_label(self) -> None:
        logits = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) * 4
        labels = logits.argmax(dim=1)
        before, _ = cross_fitted(logits, labels)
        for row in range(0, 60, 7):
            other = labels.clone()
            other[row] = (labels[row] + 1) % 5
            after, _ = cross_fitted(logits, other)
            assert after[row] == before[row]
            assert (after != before).sum() > 30, "of the others it does"

    def test_95_of_100_shapes_of_the_classes_are_known(self) -> None:
        """By what predicting makes of the scale that was fitted; shapes of low energy are the first that are not."""
        generator = torch.Generator().manual_seed(0)
        logits, known = torch.randn(2000, 40, generator=generator), torch.randn(2000, generator=generator)
        scale = fit_known(logits, known)
        answer = Answer(logits.numpy(), np.empty((2000, 0)), known.numpy())
        assert (familiarity(answer, scale) > 0.5).mean() == 0.95
        less = Answer(logits.numpy() - 1, np.empty((2000, 0)), known.numpy())
        assert (familiarity(less, scale) < familiarity(answer, scale)).all()

    @given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
    def test_the_error_is_its_definition(self, pairs: list[tuple[float, bool]]) -> None:
        confidence, correct = (np.array(values) for values in zip(*pairs, strict=True))
        expected = 0.0
        for number in range(15):
            low, high = number / 15, (number + 1) / 15
            inside = [(c, r) for c, r in pairs if min(int(c * 15), 14) == number]
            assert all(low - 1e-9 <= c <= high + 1e-9 for c, _ in inside)
            if inside:
                gap = np.mean([r for _, r in inside]) - np.mean([c for c, _ in inside])
                expected += len(inside) / len(pairs) * abs(gap)
        assert calibration_error(confidence, correct) == pytest.approx(expected, abs=1e-9)
        low, high = bootstrap_interval(confidence, correct, draws=50)
        assert 0 <= low <= high <= 1

    def test_the_command_stores_the_temperature(self, few: Path, tmp_path: Path, modelnet: Path) -> None:
        labels_before = [p.label for p in pc.load("small", "cpu").predict(load_npz(few).points[:20], up="z")]
        path = tmp_path / "calibrated.safetensors"
        done = run("calibrate", "small", "--data", modelnet, "--to", path)
        assert done.returncode == 2
        assert "small knows the validation shapes of" in done.stderr
        assert not path.exists()
        original, card = load_weights(find_weights("small"))
        config = card.provenance["config"] | {"split": "training"}
        pretending = dataclasses.replace(card, provenance=card.provenance | {"config": config})
        save_weights(tmp_path / "pretending.safetensors", original, pretending)
        done = run("calibrate", tmp_path / "pretending.safetensors", "--data", modelnet, "--to", path, "--json")
        assert done.returncode == 0, done.stderr
        tensors, card = load_weights(path)
        measured = {"ece": card.metrics["validation_ece"], "ece_interval": card.metrics["validation_ece_interval"]}
        assert json.loads(done.stdout) == {"temperature": card.temperature, "weights": str(path)} | measured
        assert 0.05 < card.temperature < 1, "label smoothing leaves a net too modest"
        assert card.metrics["validation_ece"] <= 0.03
        low, high = card.metrics["validation_ece_interval"]
        assert 0 <= low < high <= 0.05
        assert all(torch.equal(tensors[name], original[name]) for name in original)
        labels = [p.label for p in pc.load(path, "cpu").predict(load_npz(few).points[:20], up="z")]
        assert labels == labels_before
        done = run("calibrate", "small", "--data", few, "--to", tmp_path / "x.safetensors")
        assert done.returncode == 2
        assert "--split all takes all of it" in done.stderr
        done = run("calibrate", tmp_path / "pretending.safetensors", "--data", modelnet, "--split", "all", "--to", path)
        assert done.returncode == 2
        assert "knows the shapes of" in done.stderr
        done = run("calibrate", "small", "--data", few, "--split", "test", "--to", tmp_path / "x.safetensors")
        assert f"{few} has no test part" in done.stderr
        done = run("calibrate", "small", "--data", few, "--split", "all", "--up", "x", "--to", tmp_path / "x.safetensors")
        assert done.returncode == 2
        assert "prepared already" in " ".join(done.stderr.split())
        done = run("calibrate", "small", "--data", few, "--split", "all", "--to", tmp_path / "x.safetensors", "--json")
        assert done.returncode == 0, done.stderr
        net, clouds = CentroidClassifier.from_tensors(card.model, original), load_npz(few)
        logits, _, labels = validation_scores(net, OrderedClouds(clouds, np.arange(len(clouds)), net.config.seeds, 1024))
        assert json.loads(done.stdout)["temperature"] == pytest.approx(fit_temperature(logits, labels), rel=1e-4)


class TestEvaluate:
    def test_figures_are_those_of_single_predictions(self, few: Path) -> None:
        predictor, clouds = pc.load("small", "cpu"), load_npz(few)
        result = evaluate(predictor, clouds)
        answers = [predictor(cloud, up="z", top=40) for cloud in clouds.points]
        truth = [clouds.classes[label] for label in clouds.labels]
        right = [a.label == t for a, t in zip(answers, truth, strict=True)]
        assert result.overall_accuracy == np.mean(right)
        assert result.correct.tolist() == right
        per_class = {t: np.mean([r for r, u in zip(right, truth, strict=True) if u == t]) for t in set(truth)}
        assert result.mean_class_accuracy == pytest.approx(np.mean(list(per_class.values())))
        for labels in (clouds.labels, np.roll(clouds.labels, 7)):  # of the second, many are right among the first six
            truth = [clouds.classes[label] for label in labels]
            five, six = (
                sum(t in [name for name, _ in a.top[:most]] for a, t in zip(answers, truth, strict=True)) for most in (5, 6)
            )
            assert evaluate(predictor, dataclasses.replace(clouds, labels=labels)).top5 == five
        assert five < six
        np.testing.assert_allclose(result.confidence, [a.confidence for a in answers], atol=1e-4)
        assert result.ece == calibration_error(result.confidence, result.correct)

    def test_votes_are_the_mean_of_copies_with_each_axis_scaled(self, few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        predictor, clouds = pc.load("small", "cpu"), load_npz(few)
        clouds = clouds.subset(np.arange(0, len(clouds.points), 8))
        shown: list[np.ndarray] = []
        predict = predictor.predict

        def watched(shapes: Iterable[np.ndarray], **asked: object) -> object:
            shown.extend(shapes)
            return predict(shown, **asked)  # type: ignore[arg-type]

        monkeypatch.setattr(predictor, "predict", watched)
        result = evaluate(predictor, clouds, votes=3)
        copies = np.stack(shown).reshape(3, *clouds.points.shape)
        scales = np.linalg.norm(copies, axis=2) / np.linalg.norm(clouds.points, axis=1)
        assert np.allclose(copies, clouds.points * scales[:, :, None], atol=1e-6)
        assert (scales[0] == 1).all()
        assert ((scales > 0.79) & (scales < 1.26)).all()
        assert len(np.unique(scales[1:].round(6))) == scales[1:].size
        said = [[dict(predictor(cloud, up="z", top=40).top) for cloud in copy] for copy in copies]
        mean = np.array([[[answer[name] for name in predictor.classes] for answer in copy] for copy in said]).mean(axis=0)
        np.testing.assert_allclose(result.confidence, mean.max(axis=1), atol=1e-4)

    def test_accuracy_at_the_official_class_mix(self) -> None:
        """Every class of ten shapes, one class wrong: what is lost is that class's part of the official 2,468."""
        classes = tuple(sorted(OFFICIAL_TEST))
        assert (len(classes), sum(OFFICIAL_TEST.values())) == (40, 2468)
        for missed in ("bathtub", "sofa", "xbox"):
            confusion = 10 * np.eye(40, dtype=np.int64)
            row = classes.index(missed)
            confusion[row] = np.roll(confusion[row], 1)
            result = Evaluation(confusion, 0, 0, np.ones(400), np.ones(400, bool), classes, 1.0)
            assert result.overall_accuracy == pytest.approx(39 / 40)
            assert result.official_mix_accuracy == pytest.approx(1 - OFFICIAL_TEST[missed] / 2468)
        few = Evaluation(np.eye(2, dtype=np.int64), 0, 0, np.ones(2), np.ones(2, bool), ("chair", "sofa"), 1.0)
        assert few.official_mix_accuracy is None
        assert "official_mix_accuracy" not in few.to_dict()

    def test_classes_are_matched_by_name(self, few: Path) -> None:
        clouds = load_npz(few)
        reverse = tuple(reversed(clouds.classes))
        labels = len(reverse) - 1 - clouds.labels
        renamed = CloudSet(clouds.points, labels, clouds.names, reverse, clouds.split)
        predictor = pc.load("small", "cpu")
        assert np.array_equal(evaluate(predictor, renamed).confusion, evaluate(predictor, clouds).confusion)

    def test_the_command_prints_draws_and_votes(self, few: Path, tmp_path: Path) -> None:
        more = ["--votes", 3, "--plots", tmp_path / "plots", "--format", "json", "-o", tmp_path / "out.json"]
        done = run("evaluate", "small", "--data", few, "--limit", 60, *more)
        assert done.returncode == 0, done.stderr
        numbers = json.loads((tmp_path / "out.json").read_text())
        assert {"overall_accuracy", "mean_class_accuracy", "top5_accuracy", "ece", "per_class"} <= numbers.keys()
        assert (numbers["split"], numbers["shapes"], numbers["votes"]["votes"]) == ("all", 60, 3)
        assert abs(numbers["votes"]["overall_accuracy"] - numbers["overall_accuracy"]) < 0.1
        low, high = numbers["ece_interval"]
        assert 0 <= low <= high
        for name in ("confusion", "reliability"):
            picture = np.asarray(Image.open(tmp_path / "plots" / f"{name}.png").convert("RGB"))
            assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20

    def test_what_was_measured_is_told_where_plots_cannot_be_written(self, few: Path, tmp_path: Path) -> None:
        (tmp_path / "plots" / "confusion.png").mkdir(parents=True)
        done = run("evaluate", "small", "--data", few, "--limit", 6, "--plots", tmp_path / "plots", "--format", "json")
        assert done.returncode == 2
        assert json.loads(done.stdout)["shapes"] == 6
        assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'plots' / 'confusion.png'}: ")

    def test_long_names_leave_room_for_the_matrix(self, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
        for count, letters in ((3, 45), (50, 200)):
            path = tmp_path / f"{count}.png"
            plot_confusion(np.diag([5] * count), [f"{n:0{letters}}" for n in range(count)], path)
            dark = np.asarray(Image.open(path).convert("RGB"))[:, :, 0] < 20  # cells of the diagonal, and letters
            assert np.ptp(np.flatnonzero(dark.sum(axis=0) > 10)) > 0.3 * dark.shape[1]
        assert not recwarn.list

    def test_shapes_are_turned_in_each_of_24_ways(self) -> None:
        cloud = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
        seen = set()
        for axis in UP_AXES:
            for quarter in range(4):
                made = _turn(cloud, axis, quarter)
                turn = np.linalg.lstsq(cloud, made, rcond=None)[0].T
                np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)
                assert np.linalg.det(turn) == pytest.approx(1)
                np.testing.assert_allclose((made @ TO_Z_UP[axis].T)[:, 2], cloud[:, 2], atol=1e-6)
                seen.add(tuple(turn.round().astype(int).flatten()))
        assert len(seen) == 24
        assert len(set(_axes(985))) == 24, "all of them occur"

    def test_the_part_that_weights_were_not_trained_on_is_chosen(self) -> None:
        def clouds(split: list[str]) -> CloudSet:
            return CloudSet(np.zeros((2, 1, 3)), np.arange(2), ["a", "b"], ("a", "b"), split, fingerprint="F")

        def card(**provenance: str) -> WeightsCard:
            return WeightsCard("w", ClassifierConfig(classes=2), PreprocessConfig(), ("a", "b"), provenance=provenance)

        assert choose_part(clouds(["train", "test"]), card(data_sha256="F")) == "test"
        assert choose_part(clouds(["", ""]), card(data_sha256="F")) == "validation"
        assert choose_part(clouds(["", ""]), card(data_sha256="other")) == "all"
        assert choose_part(clouds(["", ""]), card()) == "all"
        assert choose_part(dataclasses.replace(clouds(["", ""]), fingerprint=""), card(data_sha256="")) == "all"

    def test_raw_folders_are_evaluated_as_they_are(self, tmp_path: Path, real_meshes: Path) -> None:
        manifest = [line.split("\t") for line in (real_meshes / "MANIFEST.tsv").read_text().splitlines()[1:]]
        copied = 0
        for name, expected, *_ in manifest:
            if expected in ("chair", "airplane", "lamp") and (real_meshes / name).suffix == ".off":
                (tmp_path / "mine" / expected).mkdir(parents=True, exist_ok=True)
                (tmp_path / "mine" / expected / name).write_bytes((real_meshes / name).read_bytes())
                copied += 1
        assert copied >= 2
        done = run("evaluate", "small", "--data", tmp_path / "mine", "--up", "auto", "--format", "json")
        assert done.returncode == 0, done.stderr
        numbers = json.loads(done.stdout)
        assert numbers["shapes"] + numbers["left_out"] == copied
        assert numbers["left_out"] == done.stderr.count("left out: ") < copied

    def test_raw_shapes_lie_as_is_said_and_what_looks_otherwise_is_remarked_on(self, tmp_path: Path) -> None:
        for name in ("bed_ascii.ply", "chair.off", "table.obj", "vase.ply", "bottle.stl"):
            shape = pc.read(EXAMPLES / name)
            for number in range(2):
                path = tmp_path / "lying" / name.partition(".")[0].partition("_")[0] / f"{number}.stl"
                path.parent.mkdir(parents=True, exist_ok=True)
                upright = shape.vertices * (1, 1, 1 + number / 10)
                trimesh.Trimesh(upright @ TO_Z_UP["y"], shape.faces, process=False).export(path)
        right, said = {}, {}
        for up in ("", "y", "auto"):
            more = ["--up", up] if up else []
            done = run("evaluate", "small", "--data", tmp_path / "lying", *more, "--format", "json")
            assert done.returncode == 0, done.stderr
            numbers = json.loads(done.stdout)
            assert "up_accuracy" not in numbers, "what is up in files is not known"
            right[up], said[up] = numbers["overall_accuracy"], "look as if y were up, but z was believed" in done.stderr
        assert said == {"": True, "y": False, "auto": False}
        assert right["y"] == 1
        assert right["auto"] >= 0.8 > right[""] + 0.2
        done = run("evaluate", "small", "--data", tmp_path / "lying", "--up", "y", "--corruptions", "--limit", 2, "--json")
        assert json.loads(done.stdout)["clean_error"] == 0
        done = run("evaluate", "autoencoder", "--data", tmp_path / "lying", "--up", "y", "--json")
        assert json.loads(done.stdout)["chamfer"] > 0
        (tmp_path / "lying" / "chair").rename(tmp_path / "lying" / "Chair")
        done = run("evaluate", "small", "--data", tmp_path / "lying")
        assert done.returncode == 2
        assert "the class 'Chair', which the weights do not know (did you mean 'chair'?); --skip-unknown" in done.stderr
        done = run("evaluate", "small", "--data", tmp_path / "lying", "--up", "y", "--skip-unknown", "--json")
        numbers = json.loads(done.stdout)
        assert (numbers["shapes"], numbers["overall_accuracy"], numbers["per_class_shapes"]["chair"]) == (8, 1, 0)
        assert "skipped: 2 of 10 shapes, whose classes the weights do not know" in done.stderr

    def test_shapes_of_other_classes_are_told_from_the_known(self, few: Path, tmp_path: Path) -> None:
        """Sixty shapes, and what is made of them that is of no class, as a class that the weights do not know."""
        clouds = load_npz(few).subset(np.arange(60))
        foreign, _ = make_foreign(torch.from_numpy(clouds.points), CounterRandom(0, 0, torch.arange(60)), 1.0)
        labels = np.concatenate([clouds.labels, np.full(60, len(clouds.classes))])
        points = np.concatenate([clouds.points, foreign.numpy()])
        path = save_npz(tmp_path / "both.npz", points, labels, [*clouds.classes, "knot"])
        done = run("evaluate", "small", "--data", path, "--skip-unknown", "--json")
        assert done.returncode == 0, done.stderr
        numbers = json.loads(done.stdout)
        answers = pc.load("small", "cpu").predict(iter(load_npz(path).points), up="z")
        own, others = np.array([answer.known for answer in answers]).reshape(2, 60)
        assert numbers["flagged"] == pytest.approx((own < 0.5).mean())
        assert numbers["others"]["shapes"] == 60
        assert numbers["others"]["flagged"] == pytest.approx((others < 0.5).mean())
        larger = (own[:, None] > others).mean() + 0.5 * (own[:, None] == others).mean()
        assert numbers["others"]["auroc"] == pytest.approx(larger, abs=1e-3)
        assert numbers["others"]["auroc"] > 0.8
        assert "flagged of other classes" in run("evaluate", "small", "--data", path, "--skip-unknown").stdout
        done = run("evaluate", "tiny", "--data", path, "--skip-unknown", "--json")  # it has no such output
        assert not {"flagged", "others"} & json.loads(done.stdout).keys()

    @pytest.mark.parametrize("zipped", [False, True])
    def test_a_lone_class_is_enough_where_the_weights_know_it(self, tmp_path: Path, zipped: bool) -> None:
        def evaluated(name: str, *more: str) -> subprocess.CompletedProcess[str]:
            folder = tmp_path / name / "mine" / name / "scans"
            folder.mkdir(parents=True)
            shutil.copy(EXAMPLES / "chair.off", folder)
            data = shutil.make_archive(str(tmp_path / name), "zip", tmp_path / name) if zipped else tmp_path / name
            return run("evaluate", "tiny", "--data", data, "--json", *more)

        numbers = json.loads(evaluated("chair").stdout)
        assert (numbers["shapes"], numbers["overall_accuracy"]) == (1, 1)
        assert json.loads(evaluated("sofa").stdout)["overall_accuracy"] == 0
        assert "expected at least two class folders" in evaluated("Lehnstuhl", "--skip-unknown").stderr
        for other in ("dragon", "bunny"):
            (tmp_path / "others" / other).mkdir(parents=True)
            shutil.copy(EXAMPLES / "chair.off", tmp_path / "others" / other)
        done = run("evaluate", "tiny", "--data", tmp_path / "others", "--skip-unknown")
        assert done.returncode == 2
        assert "the weights know no class of the data set" in done.stderr


class TestCorruptions:
    @pytest.fixture(scope="class")
    @classmethod
    def clouds(cls) -> np.ndarray:
        points = np.random.default_rng(0).normal(size=(3, 400, 3)) * (1, 0.6, 0.3)
        return (points / np.linalg.norm(points, axis=2).max(axis=1)[:, None, None]).astype(np.float32)

    def test_rotations_are_by_four_to_six_degrees_times_the_severity(self, clouds: np.ndarray) -> None:
        for severity in SEVERITIES:
            for cloud, made in zip(clouds, corrupt(clouds, "rotation", severity), strict=True):
                turn = np.linalg.lstsq(cloud, made, rcond=None)[0]
                angle = np.degrees(np.arccos((np.trace(turn) - 1) / 2))
                assert 4 * severity - 0.1 <= angle <= 6 * severity + 0.1

    @pytest.mark.parametrize("name", CORRUPTIONS)
    def test_the_same_every_time_and_worse_with_severity(self, name: str, clouds: np.ndarray) -> None:
        damage = []
        for severity in SEVERITIES:
            damaged = corrupt(clouds, name, severity)
            assert damaged.tobytes() == corrupt(clouds, name, severity).tobytes()
            assert damaged.tobytes() == np.concatenate([corrupt(clouds[:2], name, severity), damaged[2:]]).tobytes()
            assert np.isfinite(damaged).all()
            # Chamfer distance, from the definition.
            away = ((damaged[:, :, None] - clouds[:, None]) ** 2).sum(axis=3)
            damage.append(away.min(axis=2).mean() + away.min(axis=1).mean())
        assert damage[0] > 0
        assert damage[4] > 1.5 * damage[0]

    def test_what_each_kind_promises(self, clouds: np.ndarray) -> None:
        count = clouds.shape[1]
        assert corrupt(clouds, "density up", 3).shape == clouds.shape
        assert corrupt(clouds, "cutout", 5).shape[1] == count - 5 * (count // 16)
        assert corrupt(clouds, "background", 5).shape[1] == count + count * 5 // 50
        assert corrupt(clouds, "occlusion", 4).shape[1] == count - count * 4 // 10
        turned = corrupt(clouds, "rotation", 5)
        np.testing.assert_allclose(np.linalg.norm(turned, axis=2), np.linalg.norm(clouds, axis=2), atol=1e-5)
        assert max(len(np.unique(cloud[:, 2].round(5))) for cloud in corrupt(clouds, "lidar", 5)) <= 10
        with pytest.raises(ValueError, match="no corruption"):
            corrupt(clouds, "rust", 1)

    def test_the_report(self, few: Path) -> None:
        clouds = load_npz(few)
        clouds = clouds.subset(np.arange(0, len(clouds), 8))
        report = robustness(pc.load("small", "cpu"), clouds, watch=lambda items, _total: items)
        assert list(report.errors) == list(CORRUPTIONS)
        assert report.mean == pytest.approx(np.mean([e for errors in report.errors.values() for e in errors]))
        assert report.mean > report.clean
        assert report.to_dict()["mean_corruption_error"] == report.mean
        assert len(report.one_sided) == len(DIRECTIONS)
        assert report.to_dict()["mean_one_sided_error"] == pytest.approx(np.mean(report.one_sided))
        assert report.clean < np.mean(report.one_sided) < 1


class TestProbe:
    def test_it_finds_the_minimum(self) -> None:
        generator = torch.Generator().manual_seed(0)
        x, y = torch.randn(200, 5, generator=generator), torch.arange(200) % 3
        linear = fit_linear(x, y, 3, 1e-2)
        cost = torch.nn.functional.cross_entropy(linear(x), y) + 1e-2 * linear.weight.square().sum()
        slope = torch.autograd.grad(cost, [linear.weight, linear.bias])
        assert max(float(s.abs().max()) for s in slope) < 1e-4

    def test_classes_in_different_places_are_found_whatever_the_units(self) -> None:
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(300) % 4
        x = torch.randn(4, 6, generator=generator)[labels] * 3 + torch.randn(300, 6, generator=generator)
        answers = linear_probe(x[:200], labels[:200], x[200:])
        assert (answers == labels[200:]).double().mean() > 0.9
        units = 10.0 ** torch.arange(-3, 3)
        assert torch.equal(linear_probe(x[:200] * units + 7, labels[:200], x[200:] * units + 7), answers)

    def test_the_penalty_is_the_one_that_is_right_most_often(self) -> None:
        generator, count = torch.Generator().manual_seed(1), 600
        labels = torch.arange(count) % 3
        x = torch.randn(3, 30, generator=generator)[labels] + 2 * torch.randn(count, 30, generator=generator)
        held_out = torch.from_numpy(np.random.default_rng(0).permutation(count) % 5 == 0)
        right = {}
        for decay in DECAYS:
            linear = fit_linear(x[~held_out], labels[~held_out], 3, decay)
            right[decay] = int((linear(x[held_out]).argmax(dim=1) == labels[held_out]).sum())
        best = max(DECAYS, key=lambda decay: right[decay])
        assert right[best] > right[DECAYS[0]], "else any choice would do"
        assert torch.equal(chosen_linear(x, labels, 3).weight, fit_linear(x, labels, 3, best).weight)

    def test_noise_teaches_nothing(self) -> None:
        generator = torch.Generator().manual_seed(0)
        x, labels = torch.randn(600, 6, generator=generator), torch.randint(4, (600,), generator=generator)
        assert (linear_probe(x[:300], labels[:300], x[300:]) == labels[300:]).double().mean() < 0.4

    def test_what_an_autoencoder_knows_does_not_depend_on_the_order_of_points(self) -> None:
        net = pc.create_model("autoencoder").eval()
        points = torch.randn(2, 300, 3, generator=torch.Generator().manual_seed(0))
        features = net.features(points)
        assert features.shape == (2, 13 * net.config.hidden)
        torch.testing.assert_close(net.features(points.flip(1)), features, rtol=1e-4, atol=1e-5)

    def test_the_shipped_autoencoder_tells_classes_apart(self, few: Path) -> None:
        done = run("evaluate", "autoencoder", "--data", few, "--split", "validation", "--probe", "--format", "json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["probe_overall_accuracy"] > 0.4, "of 40 classes, from 4 shapes each"


@pytest.mark.parametrize("classes", [3, 300])
def test_confusion_is_drawn_of_any_classes(tmp_path: Path, classes: int) -> None:
    """Of any number, in bounded memory, and whatever they are called."""
    names = ["a$^$", "[/red]", "chair", *map(str, range(classes - 3))]
    plot_confusion(np.eye(classes, dtype=np.int64), names, tmp_path / "a.png")
    width, height = Image.open(tmp_path / "a.png").size
    assert 300 < width <= 4500
    assert 300 < height <= 4500


def test_names_in_a_table_are_as_they_are(tmp_path: Path) -> None:
    print_measures({"accuracy of car [old]": 0.5, "folder": "pb[/red]"}, tmp_path / "a.txt")
    text = (tmp_path / "a.txt").read_text()
    assert "accuracy of car [old]" in text
    assert "pb[/red]" in text
