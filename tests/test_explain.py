"""Assignments in numbers and as files."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.functional.clustering import adjusted_rand_score

import pointcentroid as pc
from pointcentroid.evaluate.agreement import adjusted_rand_index
from pointcentroid.evaluate.assignments import measure, resampled
from pointcentroid.predict.explain import Explanation
from pointcentroid.predict.predictor import Predictor

from .conftest import EXAMPLES
from .test_cli import run

LABELS = arrays(np.int64, 30, elements=st.integers(-1, 4))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return pc.load("small", "cpu")


@pytest.fixture(scope="module")
def chair(predictor: Predictor) -> Explanation:
    return predictor.explain(EXAMPLES / "chair.off")


@given(LABELS, LABELS)
def test_the_rand_index_is_that_of_another_implementation(one: np.ndarray, other: np.ndarray) -> None:
    expected = float(adjusted_rand_score(torch.from_numpy(one + 1), torch.from_numpy(other + 1)))
    assert adjusted_rand_index(one, other) == pytest.approx(expected, abs=1e-5)
    renamed = np.array([7, 3, 9, 1, 0, 5])[one + 1]
    assert adjusted_rand_index(one, renamed) == 1


def test_the_transform_takes_the_file_to_the_cloud(predictor: Predictor) -> None:
    """A cloud of as many points as the net takes is neither thinned nor filled: moved, its points are what the net saw."""
    points = np.random.default_rng(0).normal(size=(1024, 3)) * (1, 2, 3) + (50, -20, 7)
    for up in ("z", "y", "-x"):
        shown = predictor.explain(points, up=up)  # type: ignore[arg-type]
        moved = points @ shown.transform[:3, :3].T + shown.transform[:3, 3]
        order, expected = np.lexsort(moved.T), np.lexsort(shown.points.T.astype(np.float64))
        assert moved[order] == pytest.approx(shown.points[expected], abs=1e-5)


def test_measures_keep_their_bounds_and_agree_with_slow_counts(chair: Explanation) -> None:
    of_the_net = [figures for figures in measure(chair) if figures.clusters == "net"]
    for figures, stage in zip(of_the_net, chair.stages, strict=True):
        sizes = [int((stage.hard == j).sum()) for j in range(len(stage.positions))]
        used = [size for size in sizes if size]
        assert (figures.centroids, figures.used) == (len(sizes), len(used))
        assert (figures.size_smallest, figures.size_largest) == (min(used), max(used))
        assert figures.size_median == np.median(used)
        assert 0 <= figures.entropy <= 1
        assert figures.unassigned == np.mean([not row.any() for row in stage.composed])
        assert figures.stability is None
        expected = []
        for point, row in zip(chair.points, stage.composed, strict=True):
            if row.any():
                expected.append((row * np.linalg.norm(stage.positions - point, axis=1)).sum() / row.sum())
        assert figures.distance == pytest.approx(np.mean(expected), rel=1e-4)


def test_stability_is_one_against_itself_and_less_against_others(predictor: Predictor, chair: Explanation) -> None:
    assert all(figures.stability == 1 for figures in measure(chair, [chair]))
    others = resampled(predictor, chair, 2)
    assert not np.array_equal(others[0].points, others[1].points)
    assert all(0 < (figures.stability or 0) < 1 for figures in measure(chair, others))


def test_stability_is_measured_in_the_frame_of_the_file(chair: Explanation) -> None:
    """Another sampling may be moved and scaled otherwise."""
    moved = np.diag([2.0, 2.0, 2.0, 1.0])
    moved[:3, 3] = (1, -2, 0.5)
    points = (chair.points @ moved[:3, :3] + moved[:3, 3]).astype(np.float32)
    other = dataclasses.replace(chair, points=points, transform=moved @ chair.transform)
    assert all(figures.stability == 1 for figures in measure(chair, [other]))


@pytest.mark.parametrize(("points", "times"), [(2047, 0), (2048, 1)])
def test_points_that_any_sampling_has_say_nothing_of_stability(predictor: Predictor, points: int, times: int) -> None:
    seen = predictor.explain(np.random.default_rng(0).normal(size=(points, 3)), up="z")
    assert len(resampled(predictor, seen, 1)) == times


def test_the_command_writes_figures_and_files(tmp_path: Path, chair: Explanation) -> None:
    bad = tmp_path / "bad.off"
    bad.write_text("OFF\n")
    done = run(
        "assignments", EXAMPLES / "chair.off", bad, "--weights", "small", "--format", "json", "--save", tmp_path / "out"
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    stages = range(1, len(chair.stages) + 1)
    expected = [(stage, clusters) for stage in stages for clusters in ("net", "cells", "k-means")]
    assert [(row.get("stage"), row.get("clusters")) for row in rows] == [*expected, (None, None)]
    assert "error" in rows[-1]
    assert all(0 < row["stability"] < 1 and row["agreement"] is None for row in rows[:-1])
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [*(f"chair.off-stage{stage}.ply" for stage in stages), "chair.off.npz"]

    with np.load(tmp_path / "out" / "chair.off.npz") as saved:
        assert np.array_equal(saved["hard_2"], chair.stages[1].hard)
        seen, made = (len(stage.positions) for stage in chair.stages[:2])
        assert saved["assignment_2"].shape == (1, seen, made)
        mesh = pc.read(EXAMPLES / "chair.off")
        points = saved["points"]
    # In the file's own frame and units: within its box, and filling it.
    assert (points >= mesh.vertices.min(axis=0) - 1e-6).all()
    assert (points <= mesh.vertices.max(axis=0) + 1e-6).all()
    assert np.ptp(points, axis=0) == pytest.approx(np.ptp(mesh.vertices, axis=0), rel=0.1)
    cloud = pc.read(tmp_path / "out" / "chair.off-stage2.ply")
    assert cloud.vertices == pytest.approx(points, abs=1e-4)


@pytest.mark.parametrize("format", ["json", "csv", "table"])
def test_what_stops_the_command_costs_no_figure_that_was_measured(tmp_path: Path, format: str) -> None:
    for number in range(60):
        (tmp_path / f"{number:02d}.off").symlink_to(EXAMPLES / "chair.off")
    saved = tmp_path / "out"
    words = ["assignments", str(tmp_path), "--resamplings", "0", "--save", str(saved), "--format", format]
    command = [sys.executable, "-m", "pointcentroid", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        while process.poll() is None and not list(saved.glob("*.npz")):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.stdout
        told = re.findall(r"\d\d\.off", process.stdout.read())
    assert process.returncode == 130
    done = sorted(path.stem for path in saved.glob("*.npz"))
    assert 1 <= len(done) < 60
    assert sorted(set(told)) in (done, sorted(path.name for path in tmp_path.glob("*.off"))[: len(done) + 1])


def test_files_of_the_same_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for folder, name in (("a", "chair.off"), ("b", "cup.3mf")):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / f"shape{Path(name).suffix}").write_bytes((EXAMPLES / name).read_bytes())
    shutil.copy(tmp_path / "in" / "a" / "shape.off", tmp_path / "in" / "b")
    done = run("assignments", tmp_path / "in", "-r", "--save", tmp_path / "out", "--resamplings", 0)
    assert done.returncode == 0, done.stderr
    saved = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.npz"))
    assert saved == ["a/shape.off.npz", "b/shape.3mf.npz", "b/shape.off.npz"]


def test_changes_to_the_net_change_what_is_seen(chair: Explanation) -> None:
    other = pc.load("small", "cpu", initialiser="voxel").explain(EXAMPLES / "chair.off")
    assert not np.array_equal(other.stages[0].positions, chair.stages[0].positions)
    with pytest.raises(pc.PointCentroidError, match="did you mean 'initialiser'"):
        pc.load("small", "cpu", initializer="voxel")
