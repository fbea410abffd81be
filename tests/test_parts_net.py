"""The net whose last centroids are parts: how it clusters, what it learns from, and what the shipped one finds."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pointcentroid as pc
from pointcentroid.config import PartsConfig, TrainConfig
from pointcentroid.data.clouds import CloudSet, load_npz
from pointcentroid.data.parted import NAMELESS, PartedData
from pointcentroid.errors import ConfigError, DataError
from pointcentroid.evaluate.agreement import adjusted_rand_index
from pointcentroid.evaluate.assignments import mean_measures, measure, resampled
from pointcentroid.geometry.sampling import preprocess
from pointcentroid.io import read, read_parts
from pointcentroid.models import create_model
from pointcentroid.nn.encoder import StageOutput, compose
from pointcentroid.nn.parts import PartsNet, _heard, soft_k_means
from pointcentroid.predict.naming import labelled, lent_names, names_by_place, point_parts
from pointcentroid.predict.predictor import Predictor
from pointcentroid.train.parts import pair_loss
from pointcentroid.weights import find_weights, load_weights

from .conftest import EXAMPLES, ROOT
from .test_cli import run


@pytest.fixture(scope="module")
def net() -> PartsNet:
    torch.manual_seed(0)
    return create_model("parts").eval()


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return pc.load("parts", "cpu")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of shapes that know their parts, as the tool makes it."""
    path = tmp_path_factory.mktemp("parts") / "parts.npz"
    command = [sys.executable, ROOT / "tools" / "make_parts.py", path, "--shapes", "100", "--validate", "20"]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variants of every class, of a seed that the training did not have."""
    folder = tmp_path_factory.mktemp("fresh")
    command = [sys.executable, ROOT / "tools" / "make_examples.py", folder, "--variants", "2", "--seed", "5"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def groups(rng: np.random.Generator, count: int, channels: int = 5) -> tuple[torch.Tensor, np.ndarray]:
    """(1, S, S) kernel of points close to `count` places that are far apart, and the place of each; ten or more a place."""
    places = np.concatenate([6 * np.eye(channels), -6 * np.eye(channels)])[:count]
    place = rng.permutation(np.repeat(np.arange(count), rng.integers(10, 40, count)))
    z = torch.from_numpy(places[place] + rng.normal(0, 0.1, (len(place), channels))).float()
    return (-torch.cdist(z, z).square()).exp()[None], place


class TestSoftKMeans:
    @given(st.integers(0, 10**6), st.integers(1, 10))
    def test_finds_what_lies_apart_and_no_more(self, seed: int, count: int) -> None:
        kernel, place = groups(np.random.default_rng(seed), count)
        shares = soft_k_means(kernel, 16)[0].numpy()
        assert shares.sum(axis=1) == pytest.approx(1, abs=1e-5)
        assert (shares.sum(axis=0) > 0).sum() == count
        assert adjusted_rand_index(shares.argmax(axis=1), place) == 1
        assert shares.max(axis=1).min() > 0.99

    @given(st.integers(0, 10**6))
    def test_is_of_the_set_not_of_its_order_nor_of_the_company(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        kernel, _ = groups(rng, 6)
        order = rng.permutation(kernel.shape[1])
        turned = torch.cat([kernel.flip(1, 2), kernel[:, order][:, :, order]])
        one, other = soft_k_means(kernel, 16)[0], soft_k_means(turned, 16)[1]
        assert adjusted_rand_index(one.argmax(1)[order].numpy(), other.argmax(1).numpy()) == 1

    def test_is_that_of_points_where_the_kernel_is_of_points(self) -> None:
        """Kernel k-means is k-means: of points of length 1, and the kernel of their products."""
        rng = np.random.default_rng(0)
        points = np.concatenate([rng.normal(corner, 0.3, (20, 4)) for corner in 3 * np.eye(4)])
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        shares = soft_k_means(torch.from_numpy(points @ points.T)[None], 16)[0].numpy()
        shares = shares[:, shares.sum(axis=0) > 0]
        assert shares.shape[1] == 4
        for _ in range(20):  # where soft k-means comes to rest, near where two steps end
            means = shares.T @ points / shares.sum(axis=0)[:, None]
            logits = -8 * ((points[:, None] - means) ** 2).sum(axis=2)
            again = np.exp(logits - logits.max(axis=1, keepdims=True))
            again /= again.sum(axis=1, keepdims=True)
            assert again == pytest.approx(shares, abs=0.02)
            shares = again

    @pytest.mark.parametrize(("company", "clusters"), [(1, 4), (2, 4), (3, 5), (5, 5)])
    def test_what_lies_alone_or_in_pairs_starts_no_cluster(self, company: int, clusters: int) -> None:
        few = torch.block_diag(groups(np.random.default_rng(0), 4)[0][0], torch.full((company, company), 0.99))[None]
        shares = soft_k_means(few, 16)[0]
        assert int((shares.sum(dim=0) > 0).sum()) == clusters
        assert shares.sum(dim=1).numpy() == pytest.approx(1, abs=1e-5)

    def test_never_finds_more_than_asked_for(self) -> None:
        kernel, place = groups(np.random.default_rng(0), 10)
        shares = soft_k_means(kernel, 4)[0]
        assert shares.shape == (len(place), 4)
        assert (shares.sum(dim=0) > 1).all()


@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 8))
def test_fine_centroids_hear_the_nearest_coarse_ones_by_distance_squared(seed: int, fine: int, coarse: int) -> None:
    rng = np.random.default_rng(seed)
    places, others, features = rng.normal(size=(fine, 3)), rng.normal(size=(coarse, 3)), rng.normal(size=(coarse, 4))
    places[0] = others[0]
    stages = [
        StageOutput(torch.from_numpy(where)[None], torch.from_numpy(what)[None])
        for where, what in ((places, places), (others, features))
    ]
    heard = _heard(*stages)[0].numpy()
    for place, found in zip(places, heard, strict=True):
        away = ((others - place) ** 2).sum(axis=1)
        near = np.argsort(away)[:3]
        weights = 1 / (away[near] + 1e-4)
        assert found == pytest.approx(weights @ features[near] / weights.sum())


class TestNet:
    @given(st.integers(0, 10**6), st.integers(1, 400))
    def test_every_point_spreads_one_unit(self, net: PartsNet, seed: int, count: int) -> None:
        """Of any cloud: of one point, of many that lie in one place."""
        cloud = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, count, 3))).float()
        cloud[1] = cloud[1, :1]
        with torch.inference_mode():
            outputs = net(cloud, assignments=True)
            composed = compose(outputs)[-1]
            alone = compose(net(cloud[:1], assignments=True))[-1]
        assert composed.shape == (2, count, net.config.parts)
        assert composed.sum(dim=2).numpy() == pytest.approx(1, abs=1e-5)
        assert outputs[-1].positions.isfinite().all()
        assert alone.numpy() == pytest.approx(composed[:1].numpy(), abs=5e-3)

    def test_the_centroids_lie_amid_their_points(self, net: PartsNet) -> None:
        cloud = torch.rand(1, 1024, 3)
        with torch.inference_mode():
            fine, parts = net(cloud, assignments=True)
        shares = parts.combined[0]
        for number in shares.sum(dim=0).nonzero()[:, 0]:
            mean = (shares[:, number, None] * fine.positions[0]).sum(dim=0) / shares[:, number].sum()
            assert parts.positions[0, number].numpy() == pytest.approx(mean.numpy(), abs=1e-4)

    def test_further_samplings_count_alike(self, fresh: Path) -> None:
        """The same sampling again changes nothing; others do, in whatever order they come."""
        tensors, card = load_weights(find_weights("parts"))
        net, shape = PartsNet.from_tensors(card.model, tensors), read(fresh / "chair" / "chair_000.glb")
        seen = [torch.from_numpy(preprocess(shape.vertices, shape.faces, 1024, seed))[None].float() for seed in range(3)]
        with torch.inference_mode():
            ways = [(), (seen[0],) * 3, (seen[1], seen[2]), (seen[2], seen[1])]
            alone, again, one, other = (net(seen[0], assignments=True, others=way)[-1].combined for way in ways)
        torch.testing.assert_close(again, alone, atol=1e-3, rtol=0)
        torch.testing.assert_close(other, one, atol=1e-3, rtol=0)
        assert (one - alone).abs().max() > 0.01

    def test_other_stages_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="must be two"):
            PartsConfig(encoder=pc.create_model("small").config.encoder)


class TestLearning:
    @given(st.integers(0, 10**6))
    def test_the_loss_is_that_of_a_loop(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        z, parts = torch.from_numpy(rng.normal(size=(2, 9, 3))).float(), torch.from_numpy(rng.integers(0, 3, (2, 9)))
        total = []
        for cloud, own in zip(z.double(), parts, strict=True):
            of_one, of_two = [], []
            for i in range(9):
                for j in range(9):
                    apart = float((cloud[i] - cloud[j]).square().sum())
                    if i != j and own[i] == own[j]:
                        of_one.append(min(apart, 8.0))
                    elif i != j:
                        of_two.append(-np.log1p(-np.exp(-max(apart, 1e-3))))
            total.append(np.mean(of_one or [0]) + np.mean(of_two or [0]))
        assert float(pair_loss(z, parts)) == pytest.approx(np.mean(total), rel=1e-3)

    def test_what_is_seen_right_costs_nothing_and_what_is_seen_wrong_much(self) -> None:
        z, place = groups(np.random.default_rng(0), 5)
        right, wrong = torch.from_numpy(place)[None], torch.from_numpy(np.roll(place, 1))[None]
        assert pair_loss(z, right) < 0.2 < 3 < pair_loss(z, wrong)

    def test_the_tool_makes_what_the_loader_reads(self, shapes: Path) -> None:
        clouds = load_npz(shapes)
        assert clouds.parts is not None
        names = len(clouds.part_names)
        assert len(clouds.part("validation")) == 20
        for label, parts in zip(clouds.labels, clouds.parts, strict=True):
            used = np.unique(parts)
            kind = clouds.classes[label]
            assert (used >= names).all() if kind == "assembly" else len(used) >= 2
            assert all(clouds.part_names[part].startswith(f"{kind}: ") for part in used if part < names)
        assert np.linalg.norm(clouds.points, axis=2).max(axis=1) == pytest.approx(1, abs=2e-3)

    def test_a_turned_cloud_keeps_its_parts_and_loses_their_names(self, shapes: Path) -> None:
        clouds = load_npz(shapes)
        config = TrainConfig(data="it", model=PartsConfig(names=len(clouds.part_names)))
        data = PartedData(config, clouds)

        class Training:
            training, current_epoch, world_size = True, 0, 1

        data.trainer = Training()  # type: ignore[assignment]
        for turn in (0.0, 1.0):
            object.__setattr__(config.augment, "turn", turn)
            points, parts, _ = data.on_after_batch_transfer(data.training.__getitems__(list(range(16))), 0)
            assert points.shape == (16, 1024, 3)
            assert (parts >= NAMELESS).all() if turn else (parts < NAMELESS).all()
            for row in range(16):
                # Parts moved with their points: the parts of a cloud are as many, and as large, as those of its shape.
                own = np.bincount(data.training.__getitems__([row])[1][0].numpy(), minlength=256) / 2048
                seen = np.bincount(parts[row].numpy() % NAMELESS, minlength=256) / 1024
                assert np.abs(own - seen).max() < 0.06

    def test_data_that_does_not_fit_is_refused(self, shapes: Path) -> None:
        clouds = load_npz(shapes)
        plain = CloudSet(clouds.points, clouds.labels, clouds.names, clouds.classes, clouds.split)
        for found, names, reason in ((plain, 74, "no parts of points"), (clouds, 3, "make it 74")):
            with pytest.raises(DataError, match=reason):
                PartedData(TrainConfig(data="it", model=PartsConfig(names=names)), found)

    def test_a_share_without_names_keeps_no_other_process_waiting(self, shapes: Path, tmp_path: Path) -> None:
        small = "model.encoder.stages=[{centroids: 64, dim: 16}, {centroids: 8, dim: 16}]"
        settings = ["epochs=1", "batch_size=20", small, "precision=32-true", "augment.turn=1", "devices=2"]
        done = run("train", "parts", f"data={shapes}", f"output={tmp_path}", *settings)
        assert done.returncode == 0, done.stderr

    def test_a_resumed_training_ends_as_one_that_was_not_interrupted(self, shapes: Path, tmp_path: Path) -> None:
        small = "model.encoder.stages=[{centroids: 64, dim: 16}, {centroids: 8, dim: 16}]"
        settings = ["train", "parts", f"data={shapes}", "epochs=4", "batch_size=20", small, "precision=32-true"]
        whole, halves = (tmp_path / name / "parts" for name in ("whole", "halves"))
        done = run(*settings, f"output={whole.parent}", "--format", "json")
        assert done.returncode == 0, done.stderr
        row = json.loads(done.stdout)
        assert 0 <= row["validation_agreement"] <= 1
        assert 0.1 < row["validation_cells"] < 0.9
        evaluated = run("evaluate", whole / "parts.safetensors", "--data", shapes, "--format", "json")
        assert evaluated.returncode == 0, evaluated.stderr
        figures = json.loads(evaluated.stdout)
        assert (figures["split"], figures["shapes"], figures["centroids"]) == ("validation", 20, 16)
        clouds = load_npz(shapes)
        assert clouds.parts is not None
        parts = [len(np.unique(row[:1024])) for row in clouds.parts[clouds.part("validation")]]
        assert figures["parts"] == pytest.approx(np.mean(parts)) != pytest.approx(figures["clusters"])
        assert figures["agreement"] == pytest.approx(row["validation_agreement"], abs=0.02)
        assert figures["cells_agreement"] == pytest.approx(row["validation_cells"], abs=1e-6)
        assert 0.2 < figures["cells_stability"] < 0.9
        command = [sys.executable, "-m", "pointcentroid", *settings, f"output={halves.parent}"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while not (halves / "metrics.csv").exists() or len((halves / "metrics.csv").read_text().splitlines()) < 3:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert not (halves / "parts.safetensors").exists()
        resumed = run(*settings, f"output={halves.parent}", "--resume")
        assert resumed.returncode == 0, resumed.stderr
        first, second = (load_weights(folder / "parts.safetensors")[0] for folder in (whole, halves))
        assert all(torch.equal(first[name], second[name]) for name in first)


class TestShipped:
    def test_parts_are_found_in_six_samplings_of_a_surface(
        self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        net, given = predictor.abstraction, []
        watched = net._replace(see=lambda clouds: given.append(clouds) or net.see(clouds))
        monkeypatch.setitem(predictor.__dict__, "abstraction", watched)
        predictor.explain(EXAMPLES / "chair.off")
        (clouds,) = given
        assert len(clouds) == 6
        assert len(torch.unique(clouds, dim=0)) == 6, "no two are the same"

    def test_finds_parts_that_cells_do_not(self, predictor: Predictor, fresh: Path) -> None:
        """Agreement, stability, and nothing unassigned."""
        measured = []
        for path in sorted(fresh.glob("*/*.glb")):
            seen, parted = predictor.explain(path), read_parts(path)
            assert parted is not None
            measured.append(measure(seen, resampled(predictor, seen, 2), point_parts(seen, parted)))
        rows = {(row.stage, row.clusters): row for row in mean_measures(measured)}
        last = max(stage for stage, _ in rows)
        net, cells = rows[last, "net"], rows[last, "cells"]
        assert net.centroids == 16
        assert net.unassigned == 0
        assert net.agreement is not None
        assert cells.agreement is not None
        assert net.stability is not None
        assert net.agreement >= 1.3 * cells.agreement
        assert net.stability >= 0.7

    def test_features_lend_names_better_than_places(self, predictor: Predictor, fresh: Path) -> None:
        rightly: dict[str, list[float]] = {"feature": [], "points": []}
        for folder in fresh.glob("*/"):
            shapes = []
            for path in sorted(folder.iterdir()):
                seen, parted = predictor.explain(path), read_parts(path)
                assert parted is not None
                shapes.append((seen, labelled(seen, parted)))
            (_, example), (seen, right) = shapes
            lent = lent_names(seen, example)
            names = np.array([lent[centroid] for centroid in seen.stages[-1].hard.tolist()])
            rightly["feature"].append((names == right.names).mean())
            rightly["points"].append((names_by_place(seen.points, example) == right.names).mean())
        assert np.mean(rightly["feature"]) > np.mean(rightly["points"]) + 0.05

    def test_says_what_the_classifier_says(self, predictor: Predictor) -> None:
        for up in ("auto", "y"):
            seen, said = (
                predictor.explain(EXAMPLES / "chair.off", up=up),
                pc.load("small", "cpu")(EXAMPLES / "chair.off", up=up),
            )
            assert (seen.prediction.label, seen.prediction.up) == (said.label, said.up)
            assert seen.prediction.confidence == pytest.approx(said.confidence, abs=1e-4)

    def test_takes_no_changes(self) -> None:
        with pytest.raises(ConfigError, match="cannot be changed"):
            pc.load("parts", "cpu", initialiser="voxel")
