"""Trainings that are interrupted go on to the same weights, and nothing is lost."""

from __future__ import annotations

import csv
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch

from pointcentroid.train.callbacks import History
from pointcentroid.train.run import train as run_training
from pointcentroid.train.settings import load_train_config
from pointcentroid.weights import load_weights, read_card

from ..test_cli import run
from .small import SMALL, train


class TestInterrupted:
    SETTINGS = (
        "epochs=5",
        "average=0.9",
        "model.dropout=0.3",
        "augment.mirror=0.5",
        "augment.reseed=true",
        "sharpness=0.05",
    )

    def start(self, toy: Path, output: Path, *more: str) -> tuple[list[str], subprocess.Popen]:
        settings = [f"data={toy}", f"output={output}", "name=toy", *SMALL, *self.SETTINGS, *more]
        command = [sys.executable, "-m", "pointcentroid", "train", "modelnet40-small", *settings]
        return settings, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    @staticmethod
    def wait_for_epoch(folder: Path, number: int, process: subprocess.Popen) -> None:
        metrics, end = folder / "toy" / "metrics.csv", time.monotonic() + 120
        while not metrics.exists() or len(metrics.read_text().splitlines()) <= number:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.01)

    @pytest.fixture(scope="class")
    @classmethod
    def uninterrupted(cls, toy: Path, tmp_path_factory) -> Path:
        return train(toy, tmp_path_factory.mktemp("whole"), *cls.SETTINGS)

    @staticmethod
    def assert_equal(one: Path, other: Path) -> None:
        first, second = load_weights(one)[0], load_weights(other)[0]
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_killed_in_the_middle_of_an_epoch(self, toy: Path, tmp_path: Path, uninterrupted: Path) -> None:
        _, process = self.start(toy, tmp_path)
        assert process.stderr
        told = next((line for line in process.stderr if line.startswith("epoch 2/5")), "")
        process.kill()
        process.wait()
        assert "validation accuracy" in told
        assert torch.load(tmp_path / "toy" / "last.ckpt", weights_only=True)["epoch"] >= 1, "what is told of is kept"
        assert not (tmp_path / "toy" / "toy.safetensors").exists()
        resumed = train(toy, tmp_path, *self.SETTINGS, "--resume")
        self.assert_equal(resumed, uninterrupted)
        rows = [(p.parent / "metrics.csv").read_text().splitlines() for p in (resumed, uninterrupted)]
        columns = rows[0][0].split(",")
        assert len(rows[0]) == len(rows[1]) == 6
        for ours, theirs in zip(*rows, strict=True):
            cells = zip(columns, ours.split(","), theirs.split(","), strict=True)
            assert all(a == b for column, a, b in cells if column != "seconds")

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_what_stops_it_says_how_to_go_on(
        self, toy: Path, tmp_path: Path, uninterrupted: Path, how: signal.Signals
    ) -> None:
        _, process = self.start(toy, tmp_path)
        self.wait_for_epoch(tmp_path, 1, process)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "to go on: pointcentroid train modelnet40-small" in said
        assert "--resume" in said
        assert "Traceback" not in said
        again = run("train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, *self.SETTINGS)
        assert again.returncode == 2
        assert "holds an unfinished run" in again.stderr
        other = run(
            "train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, "epochs=9", "--resume"
        )
        assert other.returncode == 2
        assert "was trained with" in other.stderr
        self.assert_equal(train(toy, tmp_path, *self.SETTINGS, "--resume"), uninterrupted)

    def test_what_it_has_reached_can_be_used_before_its_end(self, toy: Path, tmp_path: Path, uninterrupted: Path) -> None:
        command = ("train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, *self.SETTINGS)
        assert "nothing to resume" in run(*command, "--finish").stderr
        _, process = self.start(toy, tmp_path)
        self.wait_for_epoch(tmp_path, 2, process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert "--finish" in said
        checkpoint = torch.load(tmp_path / "toy" / "last.ckpt", weights_only=True)
        epoch = checkpoint["epoch"] + 1
        assert epoch < 5
        done = run(*command, "--finish")
        assert done.returncode == 0, done.stderr
        assert f"weights as they were after epoch {epoch} of 5; --resume goes on" in done.stderr
        path = tmp_path / "toy" / "toy.safetensors"
        tensors, card = load_weights(path)
        assert all(torch.equal(tensor, checkpoint["state_dict"][f"net.{name}"]) for name, tensor in tensors.items())
        assert (card.metrics["epoch"], card.provenance["stopped_after"]) == (epoch, epoch)
        rows = list(csv.DictReader((tmp_path / "toy" / "metrics.csv").open()))
        measured = json.loads(run("evaluate", path, "--data", toy, "--json").stdout)
        assert measured["overall_accuracy"] == pytest.approx(float(rows[epoch - 1]["validation_overall"]))
        assert "holds an unfinished run" in run(*command).stderr
        refused = run(*command, "name=all", "split=all", f"recipe=[{path}]")
        assert f"was stopped after epoch {epoch} of 5" in refused.stderr
        self.assert_equal(train(toy, tmp_path, *self.SETTINGS, "--resume"), uninterrupted)
        assert "stopped_after" not in read_card(path).provenance
        done = run(*command, "--finish")
        assert "weights as they were after epoch 5 of 5\n" in done.stderr
        self.assert_equal(path, uninterrupted)

    def test_one_command_at_a_time_trains_in_a_folder(self, toy: Path, tmp_path: Path, uninterrupted: Path) -> None:
        settings, process = self.start(toy, tmp_path)
        self.wait_for_epoch(tmp_path, 2, process)  # the first is kept
        process.send_signal(signal.SIGSTOP)
        for how in ((), ("--resume",), ("--overwrite",)):
            refused = run("train", "modelnet40-small", *settings, *how)
            assert refused.returncode == 2
            assert f"another command is training in {tmp_path / 'toy'}" in refused.stderr
        done = run("train", "modelnet40-small", *settings, "--finish")  # that looks, and changes nothing of the run
        assert done.returncode == 0, done.stderr
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=120)
        assert process.returncode == 0
        self.assert_equal(tmp_path / "toy" / "toy.safetensors", uninterrupted)

    @pytest.mark.parametrize("other", ["--resume", "--overwrite"])
    def test_it_is_either_finished_or_something_else(self, other: str, toy: Path) -> None:
        done = run("train", "modelnet40-small", f"data={toy}", "--finish", other)
        assert done.returncode == 2
        assert "choose one" in done.stderr

    def test_resuming_a_finished_run_changes_nothing(self, toy: Path, tmp_path: Path, uninterrupted: Path) -> None:
        shutil.copytree(uninterrupted.parent, tmp_path / "toy")
        again = train(toy, tmp_path, *self.SETTINGS, "--resume")
        self.assert_equal(again, uninterrupted)
        last = tmp_path / "toy" / "last.ckpt"
        checkpoint = torch.load(last, weights_only=True)
        del checkpoint["config"]["keep"]  # as if it had begun before there was such a setting
        torch.save(checkpoint, last)
        (tmp_path / "toy" / "toy.safetensors").unlink()  # and had been stopped between the last epoch and this file
        self.assert_equal(train(toy, tmp_path, *self.SETTINGS, "--resume"), uninterrupted)

    def test_other_data_cannot_be_resumed_on(self, toy: Path, tmp_path: Path, uninterrupted: Path) -> None:
        shutil.copytree(uninterrupted.parent, tmp_path / "toy")
        copy = tmp_path / "toy.npz"
        with np.load(toy) as arrays:
            np.savez(copy, **{k: v if k == "classes" else v[:70] for k, v in arrays.items()})
        checkpoint = torch.load(tmp_path / "toy" / "last.ckpt", weights_only=True)
        checkpoint["config"]["data"] = str(copy)
        torch.save(checkpoint, tmp_path / "toy" / "last.ckpt")
        settings = [f"data={copy}", f"output={tmp_path}", "name=toy", *SMALL, *self.SETTINGS, "--resume"]
        done = run("train", "modelnet40-small", *settings)
        assert done.returncode == 2
        assert "it has changed since" in done.stderr

    def test_checkpoints_hold_plain_data(self, uninterrupted: Path) -> None:
        for name in ("last", "best"):
            checkpoint = torch.load(uninterrupted.with_name(f"{name}.ckpt"), weights_only=True)
            assert checkpoint["config"]["epochs"] == 5

    def test_a_finished_run_is_not_overwritten_by_accident(self, toy: Path, tmp_path: Path) -> None:
        train(toy, tmp_path, "epochs=1")
        settings = [f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, "epochs=1"]
        done = run("train", "modelnet40-small", *settings)
        assert done.returncode == 2
        assert "holds a finished run" in done.stderr
        for wrong in ("model.classes=3", "accelerator=gpu", "data=nowhere", "devices=3"):
            assert run("train", "modelnet40-small", *settings, wrong, "--overwrite").returncode == 2
            assert (tmp_path / "toy" / "toy.safetensors").exists(), "what is wrong is said before anything is thrown away"
        train(toy, tmp_path, "epochs=1", "--overwrite")
        done = run("train", "modelnet40-small", *settings, "name=other", "--resume")
        assert done.returncode == 2
        assert "nothing to resume" in done.stderr


def test_a_full_disk_is_an_error_and_what_was_written_stays_whole(toy: Path, tmp_path: Path) -> None:
    train(toy, tmp_path, "epochs=1")
    before = {p.name: p.read_bytes() for p in (tmp_path / "toy").iterdir() if p.is_file()}
    size = (tmp_path / "toy" / "last.ckpt").stat().st_size * 2 // 3

    def limit() -> None:  # the largest file that may be written: as if the disk were full in the middle of one
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    settings = [f"data={toy}", f"output={tmp_path}", "name=full", *SMALL, "epochs=1"]
    command = [sys.executable, "-m", "pointcentroid", "train", "modelnet40-small", *settings]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {tmp_path / 'full'}")
    assert "Traceback" not in done.stderr
    # The first checkpoint, without the optimiser's state, is small enough; the next one is not, and leaves it as it was.
    assert torch.load(tmp_path / "full" / "last.ckpt", weights_only=True)["global_step"] == 0
    assert not list((tmp_path / "full").glob(".*"))
    assert {p.name: p.read_bytes() for p in (tmp_path / "toy").iterdir() if p.is_file()} == before


def test_a_run_does_not_throw_away_what_it_needs(toy: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent, tmp_path / "toy")
    weights = tmp_path / "toy" / trained.name
    settings = ("train", "modelnet40-small", f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, "--overwrite")
    for needs in (f"start={weights}", f"teachers=[{weights}]"):
        done = run(*settings, needs)
        assert done.returncode == 2
        assert "--overwrite would throw away" in done.stderr
    assert weights.read_bytes() == trained.read_bytes()


@pytest.mark.parametrize("stopped", [0, 2, 4])
def test_a_moved_run_remembers_its_best_epoch(
    stopped: int, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = dict(np.load(toy))
    labels = np.random.default_rng(0).permutation(shapes["labels"])  # there is nothing to learn: any epoch may be the best
    np.savez(tmp_path / "toy.npz", **(shapes | {"labels": labels}))
    changes = ("keep=best", "average=0", "warmup=0", "epochs=6")
    whole = train(tmp_path / "toy.npz", tmp_path / "whole", *changes)

    def stop(_: History, trainer: lightning.Trainer, __: object) -> None:
        if trainer.current_epoch == stopped:
            raise RuntimeError("stopped")

    settings = [f"data={tmp_path / 'toy.npz'}", f"output={tmp_path / 'before'}", "name=toy", *SMALL, *changes]
    config = load_train_config("modelnet40-small", settings)
    monkeypatch.setattr(History, "on_train_epoch_start", stop)
    with pytest.raises(RuntimeError, match="stopped"):
        run_training(config)
    (tmp_path / "before").rename(tmp_path / "after")
    resumed = train(tmp_path / "toy.npz", tmp_path / "after", *changes, "--resume")
    rows = list(csv.DictReader((resumed.parent / "metrics.csv").open()))
    best = max(rows, key=lambda row: float(row["validation_overall"]))
    assert read_card(resumed).metrics["epoch"] == read_card(whole).metrics["epoch"] == int(best["epoch"])
    tensors, expected = load_weights(resumed)[0], load_weights(whole)[0]
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("checkpoint", "says"),
    [
        (b"", "is damaged"),
        ([1], "is damaged"),
        ({"config": {"augment": {"scale": 2.0}}, "data": ""}, "was trained with augment.damage=0.0, not 0.2"),
        ({"config": {"augment": {"wrap": 2.0}}, "data": ""}, "cannot be gone on with: unknown setting augment.wrap"),
    ],
)
def test_what_cannot_be_resumed_says_why(checkpoint: Any, says: str, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    if isinstance(checkpoint, bytes):
        (tmp_path / "toy" / "last.ckpt").write_bytes(checkpoint)
    else:
        torch.save(checkpoint, tmp_path / "toy" / "last.ckpt")
    settings = (f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, "augment.foreign=0.1", "--resume")
    done = run("train", "modelnet40-small", *settings)
    assert done.returncode == 2
    assert says in done.stderr


def test_the_best_epoch_can_be_kept(toy: Path, tmp_path: Path) -> None:
    weights, card = load_weights(train(toy, tmp_path, "keep=best", "epochs=4"))
    rows = list(csv.DictReader((tmp_path / "toy" / "metrics.csv").open()))
    best = max(rows, key=lambda row: float(row["validation_overall"]))
    assert card.metrics["epoch"] == int(best["epoch"])
    kept = torch.load(tmp_path / "toy" / "best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(kept[f"net.{name}"], tensor) for name, tensor in weights.items())


def test_a_best_epoch_that_died_before_it_was_the_last_is_finished_too(toy: Path, tmp_path: Path) -> None:
    path = train(toy, tmp_path, "keep=best", "epochs=3")
    last = path.with_name("last.ckpt")
    shutil.copy(last, path.with_name("best.ckpt"))
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["callbacks"]["History"]["rows"].pop()
    torch.save(checkpoint, last)
    settings = (f"data={toy}", f"output={tmp_path}", "name=toy", *SMALL, "keep=best", "epochs=3")
    done = run("train", "modelnet40-small", *settings, "--finish", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["weights"] == str(path)
    assert "weights as they were after epoch 3 of 3\n" in done.stderr, "not after the second"
    assert read_card(path).metrics["epoch"] == 3
