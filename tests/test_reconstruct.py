"""Chamfer distance against its definition; the autoencoder; reconstruction through the public command."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import pointcentroid as pc
from pointcentroid.config import AutoencoderConfig, CapsuleAutoencoderConfig, EncoderConfig, StageConfig
from pointcentroid.errors import ReadError, WeightsError
from pointcentroid.geometry.chamfer import chamfer_distance, f_score, nearest_distances
from pointcentroid.geometry.fps import farthest_first
from pointcentroid.geometry.sampling import normalise
from pointcentroid.nn.autoencoder import CentroidAutoencoder, square_samples
from pointcentroid.nn.capsules import CapsuleAutoencoder, PooledLinear
from pointcentroid.nn.norm import fold
from pointcentroid.predict.preparing import cloud_in_frame
from pointcentroid.predict.reconstruct import Reconstructor

from .conftest import EXAMPLES
from .meshes import direction
from .test_cli import run, unboxed


def clouds(first: int, second: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, n, 3, generator=generator, dtype=torch.float64) for n in (first, second))  # type: ignore


class TestChamfer:
    @given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 9), st.booleans())
    def test_its_definition(self, first: int, second: int, seed: int, squared: bool) -> None:
        one, other = clouds(first, second, seed)
        away = (one[:, :, None] - other[:, None]).square().sum(dim=3)
        away = away if squared else away.sqrt()
        expected = away.amin(dim=2).mean(dim=1) + away.amin(dim=1).mean(dim=1)
        torch.testing.assert_close(chamfer_distance(one, other, squared=squared), expected)
        torch.testing.assert_close(chamfer_distance(other, one, squared=squared), expected)

    @pytest.mark.parametrize("squared", [True, False])
    def test_gradients_flow_to_both(self, squared: bool) -> None:
        one, other = (cloud.requires_grad_() for cloud in clouds(5, 7))
        assert torch.autograd.gradcheck(lambda a, b: chamfer_distance(a, b, squared=squared), (one, other))

    def test_equal_sets_are_at_zero_with_finite_gradients(self) -> None:
        one, _ = clouds(20, 1)
        shuffled = one[:, torch.randperm(20)].requires_grad_()
        distance = chamfer_distance(shuffled, one, squared=False)
        assert not distance.any()
        distance.sum().backward()
        assert shuffled.grad is not None
        assert shuffled.grad.isfinite().all()

    def test_digits_survive_far_from_the_origin(self) -> None:
        one, other = (cloud.float() for cloud in clouds(200, 200))
        near = chamfer_distance(one, other)
        offset = torch.tensor([4096.0, -2048.0, 8192.0])
        rounded = ((one + offset) - offset, (other + offset) - offset)
        torch.testing.assert_close(chamfer_distance(one + offset, other + offset), chamfer_distance(*rounded))
        assert near.dtype == torch.float32

    @pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_full(self, kind: torch.dtype) -> None:
        one, other = (cloud.to(kind) for cloud in clouds(30, 40))
        expected = chamfer_distance(one.float(), other.float())
        for pair in ((one, other), (one.float(), other)):
            assert torch.equal(chamfer_distance(*pair), expected)
        assert nearest_distances(one * 1000, -one * 1000).isfinite().all(), "squares pass the largest half"

    @pytest.mark.parametrize(("first", "second"), [(0, 5), (5, 0), (0, 0)])
    def test_empty_clouds_are_errors(self, first: int, second: int) -> None:
        for measure in (chamfer_distance, lambda a, b: f_score(a, b, 0.1)):
            with pytest.raises(ValueError, match=rf"\(2, {first}, 3\) and \(2, {second}, 3\)"):
                measure(*clouds(first, second))

    def test_f_score(self) -> None:
        one = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 0, 0]]])
        other = torch.tensor([[[0.0, 0.1, 0], [1, 0.1, 0]]])
        precision, recall = 2 / 4, 2 / 2
        assert float(f_score(one, other, 0.2)) == pytest.approx(2 * precision * recall / (precision + recall))
        assert float(f_score(one, other, 0.05)) == 0
        assert nearest_distances(one, other, squared=False)[0, 3] == pytest.approx(np.hypot(8, 0.1))


class TestAutoencoder:
    CONFIG = AutoencoderConfig(
        encoder=EncoderConfig(embed=8, stages=(StageConfig(16, 16, neighbours=8), StageConfig(8, 16, neighbours=8))),
        code=5,
        hidden=16,
        blocks=1,
    )

    def test_any_number_of_points_and_the_first_ones_are_the_same(self) -> None:
        torch.manual_seed(0)
        net = CentroidAutoencoder(self.CONFIG).eval()
        points = torch.randn(3, 60, 3)
        many = net(points, 101)
        assert many.shape == (3, 101, 3)
        for count in (1, 8, 9, 64):
            torch.testing.assert_close(net(points, count), many[:, :count])
        latent = net.encode(points)
        assert sum(part[0].numel() for part in latent) == net.latent_size == 8 * (3 + 5)

    def test_each_centroid_grows_its_own_patch(self) -> None:
        torch.manual_seed(0)
        net = CentroidAutoencoder(AutoencoderConfig(self.CONFIG.kind, self.CONFIG.encoder, 5, 16, blocks=0)).eval()
        latent = net.encode(torch.randn(1, 60, 3))
        before = net.decode(latent, 80)
        latent.codes[0, 3] += 1
        moved = (net.decode(latent, 80) != before).any(dim=2)[0]
        assert moved.nonzero()[:, 0].tolist() == list(range(3, 80, 8))

    def test_a_latent_is_all_that_the_decoder_sees(self) -> None:
        torch.manual_seed(0)
        net = CentroidAutoencoder(self.CONFIG).eval()
        one, other = torch.randn(2, 60, 3)
        latents = [net.encode(cloud[None]) for cloud in (one, other)]
        together = net.encode(torch.stack([one, other]))
        for number, latent in enumerate(latents):
            torch.testing.assert_close(together.codes[number], latent.codes[0])

    def test_samples_fill_the_square(self) -> None:
        samples = square_samples(256)
        assert samples.abs().max() <= 1
        assert torch.equal(square_samples(40), samples[:40])
        cells = ((samples + 1) / 2 * 8).long().clamp(max=7)
        assert len(torch.unique(cells[:, 0] * 8 + cells[:, 1])) == 64, "one at least in each of 8 x 8 cells"


def by_agreement(votes: np.ndarray, rounds: int) -> np.ndarray:
    """(J, I, D) votes of inputs i for capsules j -> (J, D) capsules, by procedure 1 of Sabour et al., 2017."""
    count, inputs, _ = votes.shape
    agreement = np.zeros((inputs, count))
    capsules = np.zeros((count, votes.shape[2]))
    for _ in range(rounds):
        shares = [np.exp(row) / np.exp(row).sum() for row in agreement]  # each input spreads 1 over the capsules
        for j in range(count):
            capsules[j] = shortened(sum(shares[i][j] * votes[j, i] for i in range(inputs)))
            for i in range(inputs):
                agreement[i, j] += capsules[j] @ votes[j, i]
    return capsules


def shortened(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    return length**2 / (1 + length**2) * vector / length


class TestCapsules:
    @pytest.mark.parametrize("rounds", [1, 2, 3, 5])
    def test_routing_is_that_of_a_loop(self, rounds: int) -> None:
        torch.manual_seed(0)
        config = CapsuleAutoencoderConfig(primary=6, primary_dim=3, capsules=4, dim=5, iterations=rounds, folds=1)
        net = CapsuleAutoencoder(config).eval().double()
        nn.init.normal_(net.routes)  # they start so small that nothing agrees
        points = torch.randn(3, 40, 3, dtype=torch.float64)
        with torch.no_grad():
            latents, pooled = net.encode(points).numpy(), net.primary(net.points(points)).view(3, 6, 3).numpy()
        for latent, cloud in zip(latents, pooled, strict=True):
            primary = np.stack([shortened(capsule) for capsule in cloud])
            votes = np.einsum("jidp,ip->jid", net.routes.detach().numpy(), primary)
            np.testing.assert_allclose(latent, by_agreement(votes, rounds), rtol=1e-6)

    def test_folded_batch_norms_compute_the_same(self) -> None:
        torch.manual_seed(0)
        net = CapsuleAutoencoder(CapsuleAutoencoderConfig(primary=8, capsules=4, dim=5, folds=3))
        for _ in range(3):
            net(torch.randn(2, 40, 3) + 1, 30)  # statistics that are not those of the start
        points = torch.randn(2, 40, 3)
        before = net.eval()(points, 30)
        fold(net)
        assert not [m for m in net.modules() if isinstance(m, nn.BatchNorm1d)]
        torch.testing.assert_close(net(points, 30), before)

    def test_a_batch_of_one_cloud_of_one_capsule_is_trained_on(self) -> None:
        net = CapsuleAutoencoder(CapsuleAutoencoderConfig(primary=8, capsules=1, dim=5, folds=3))
        made = net(torch.randn(1, 40, 3), 3)
        made.square().sum().backward()
        assert made.isfinite().all()
        assert net.routes.grad is not None
        assert net.routes.grad.isfinite().all()

    def test_sizes_are_those_of_the_paper(self) -> None:
        with torch.device("meta"):
            net = CapsuleAutoencoder(CapsuleAutoencoderConfig())
        assert net.routes.numel() == 67_108_864
        assert sum(p.numel() for p in net.parameters()) == pytest.approx(69.5e6, rel=1e-3)
        assert net.latent_size == 64 * 64

    def test_pooling_equals_its_three_layers(self) -> None:
        torch.manual_seed(0)
        pooled, linear, norm = PooledLinear(6, 10), nn.Linear(6, 10), nn.BatchNorm1d(10)
        linear.weight, norm.weight, norm.bias = pooled.weight, pooled.gain, pooled.bias
        with torch.no_grad():
            pooled.gain.copy_(torch.randn(10))  # negative ones turn the maximum round
            pooled.bias.copy_(torch.randn(10))
        for mode in (True, True, False):
            for module in (pooled, norm):
                module.train(mode)
            x = (torch.randn(4, 30, 6) + 3).requires_grad_()
            slow = norm(linear(x).flatten(0, 1)).unflatten(0, (4, 30)).amax(dim=1)
            fast = pooled(x)
            if mode:
                torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)
                of = (x, pooled.weight, pooled.gain, pooled.bias)
                gradients = zip(*(torch.autograd.grad(y.square().sum(), of) for y in (fast, slow)), strict=True)
                for one, other in gradients:
                    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
        # Batch norm's average starts at a variance of 1, and ours at a covariance that stands for another one.
        decay = 0.9**2
        ours = (pooled.weight @ pooled.covariance * pooled.weight).sum(dim=1)
        torch.testing.assert_close(ours - decay * pooled.weight.square().sum(dim=1), norm.running_var - decay)

    def test_a_cloud_is_evaluated_alone_and_grows_any_number(self) -> None:
        torch.manual_seed(0)
        net = CapsuleAutoencoder(CapsuleAutoencoderConfig(primary=8, capsules=4, dim=5, folds=3)).eval()
        points = torch.randn(3, 40, 3)
        together = net(points, 30)
        assert together.shape == (3, 30, 3)
        torch.testing.assert_close(net(points[1:2], 30)[0], together[1])
        torch.testing.assert_close(net(points.flip(1), 30), together)
        torch.testing.assert_close(net(points, 7), together[:, :7])
        assert net.encode(points).norm(dim=2).max() < 1


class TestReconstruct:
    @pytest.fixture(scope="class")
    @classmethod
    def reconstructor(cls) -> Reconstructor:
        return Reconstructor(device="cpu")

    def test_it_resembles_the_shape(self, reconstructor: Reconstructor) -> None:
        for name in ("chair.off", "lamp.glb", "sofa_ascii.pcd"):
            made = reconstructor(EXAMPLES / name, 1500)
            assert made.points.shape == (1500, 3)
            assert made.latent.size <= 1024
            assert made.chamfer < 4 * made.oracle
            shape = pc.read(EXAMPLES / name)
            low, high = shape.vertices.min(axis=0), shape.vertices.max(axis=0)
            slack = 0.15 * (high - low).max()
            assert (made.points > low - slack).all()
            assert (made.points < high + slack).all(), "in the file's own frame and units"

    def test_units_and_place_of_the_file_come_back(self, reconstructor: Reconstructor) -> None:
        shape = pc.read(EXAMPLES / "chair.off")
        plain = reconstructor(shape, up="z")
        moved = pc.io.Shape(shape.vertices * 1000 + (5e5, -4e6, 100), shape.faces)
        other = reconstructor(moved, up="z")
        for ours, theirs in ((other.points, plain.points), (other.centroids, plain.centroids)):
            np.testing.assert_allclose((ours - (5e5, -4e6, 100)) / 1000, theirs, atol=2e-4 * np.ptp(plain.points))
        turned = pc.io.Shape(shape.vertices[:, [0, 2, 1]] * (1, 1, -1), shape.faces)  # z up -> y up
        again = reconstructor(turned, up="y")
        np.testing.assert_allclose(again.points[:, [0, 2, 1]] * (1, -1, 1), plain.points, atol=1e-4 * np.ptp(plain.points))

    @pytest.mark.parametrize("name", ["chair.off", "sofa_ascii.pcd"])
    def test_its_figures_are_of_another_sampling_than_the_net_has_seen(
        self, name: str, reconstructor: Reconstructor
    ) -> None:
        path, settings, net = EXAMPLES / name, reconstructor.card.preprocess, reconstructor.net
        shape = pc.read(path)
        (cloud, frame), (again, second) = (cloud_in_frame(path, shape, settings, settings.seed + more) for more in (0, 1))
        if shape.faces is None:  # one half of the points is shown, the other is not
            order = np.random.default_rng(settings.seed).permutation(len(cloud))
            first, inner = normalise(cloud[order[: len(cloud) // 2]])
            other = inner.entered(cloud[order[len(cloud) // 2 :]])
        else:
            first, other = cloud, frame.entered(second.left(again))
        first, other = (torch.from_numpy(np.float32(points))[None] for points in (first, other))
        with torch.inference_mode():
            scored = net(farthest_first(first, net.config.seeds), other.shape[1], ordered=True)
        made = reconstructor(path, 1500, up="z")
        for distance, score, points in (("chamfer", "f_score", scored), ("oracle", "oracle_f_score", first)):
            assert getattr(made, distance) == pytest.approx(float(chamfer_distance(points, other)), rel=1e-4)
            assert getattr(made, score) == pytest.approx(float(f_score(points, other, 0.05)), abs=2e-3)
        assert made.compression == pytest.approx(3 * len(cloud) / made.latent.size)
        distance = np.linalg.norm(made.points[:, None] - made.centroids, axis=2)
        own = distance[np.arange(1500), made.patch]
        assert own.mean() < 0.3 * distance.mean(), "patches lie around the centroids that grew them"

    def test_what_stops_it_costs_no_figure_that_was_measured(self, tmp_path: Path) -> None:
        for number in range(40):
            (tmp_path / f"{number:02d}.off").symlink_to(EXAMPLES / "chair.off")
        words = ["reconstruct", str(tmp_path), "-o", str(tmp_path / "out"), "--json"]
        command = [sys.executable, "-m", "pointcentroid", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout
            rows = [json.loads(process.stdout.readline())]
            process.send_signal(signal.SIGINT)
            rows += map(json.loads, process.stdout)
        assert process.returncode == 130
        written = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert sorted(Path(row["output"]).name for row in rows) in (written, written[:-1])
        assert len(written) < 40

    @pytest.mark.parametrize("kind", ["ply", "xyz", "npy"])
    def test_the_command(self, kind: str, tmp_path: Path, reconstructor: Reconstructor) -> None:
        (tmp_path / "bad.off").write_text("OFF\n")
        sources = [EXAMPLES / "chair.off", tmp_path / "bad.off"]
        done = run("reconstruct", *sources, "-o", tmp_path / "out", "--points", 300, "--format", kind, "--json")
        assert done.returncode == 1
        assert "bad.off" in done.stderr
        assert "Traceback" not in done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert "error" in rows[1]
        assert [path.name for path in (tmp_path / "out").iterdir()] == [f"chair.off.{kind}"]
        expected = reconstructor(EXAMPLES / "chair.off", 300)
        assert rows[0]["chamfer"] == pytest.approx(expected.chamfer, rel=1e-4)
        assert pc.read(rows[0]["output"]).vertices == pytest.approx(expected.points, abs=1e-6)

    def test_a_shape_that_leans_comes_back_as_it_leans(
        self, reconstructor: Reconstructor, leaning_chair: tuple[Path, np.ndarray]
    ) -> None:
        path, rotation = leaning_chair
        given, upright = reconstructor(path, up=rotation.T), reconstructor(EXAMPLES / "chair.off", up="z")
        np.testing.assert_allclose(given.points @ rotation, upright.points, atol=0.02 * np.ptp(upright.points))
        found = reconstructor(path)
        np.testing.assert_allclose(direction(found.up), rotation[:, 2], atol=0.03)
        assert found.chamfer < 1.5 * upright.chamfer

    def test_no_shape_is_overwritten(self, tmp_path: Path) -> None:
        for name in ("a.off", "a.off.ply"):
            shutil.copy(EXAMPLES / "chair.off", tmp_path / name)
        done = run("reconstruct", tmp_path / "a.off", tmp_path / "a.off.ply", "-o", tmp_path)
        assert done.returncode == 2
        assert "is one of the shapes" in unboxed(done.stderr)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.off", "a.off.ply"]

    def test_odd_input(self, reconstructor: Reconstructor) -> None:
        few = reconstructor(np.random.default_rng(0).normal(size=(20, 3)), 50, up="z")
        assert np.isfinite(few.points).all()
        with pytest.raises(ReadError):
            reconstructor(np.full((10, 3), np.nan))
        with pytest.raises(ValueError, match="at least 1"):
            reconstructor(EXAMPLES / "chair.off", 0)
        with pytest.raises(WeightsError, match="small is a net of the kind 'classifier', which does not reconstruct"):
            Reconstructor("small")
        with pytest.raises(WeightsError, match="of the kind 'autoencoder', which does not classify"):
            pc.load("autoencoder")
