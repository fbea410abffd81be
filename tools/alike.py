"""Train PointNet++ as `small` is trained, on the same varied clouds, and damage its validation clouds alike.

    python tools/alike.py train --data train.npz -o runs/alike/pointnet2.safetensors --epochs 46
    python tools/alike.py measure runs/alike/pointnet2.safetensors --data train.npz

Batch size, loss, optimiser, schedule and averages are those of configs/modelnet40-small.yaml, and so are the changes of
clouds, without the foreign ones: PointNet++ has no output for what it does not know.
"""

# torch._foreach_* are what its optimisers use:
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import safetensors.torch
import torch
import typer
from classic import PointNet2
from rich.progress import track
from together import recipe_settings, training_device, varied_chunks
from torch import Tensor, nn

from pointcentroid.config import ClassifierConfig, TrainConfig, from_dict, to_dict
from pointcentroid.data.clouds import load_npz
from pointcentroid.data.module import CloudData
from pointcentroid.evaluate.accuracy import Evaluation, evaluate, robustness
from pointcentroid.predict.nets import Answer, Lists
from pointcentroid.predict.predictor import Predictor
from pointcentroid.train.callbacks import kept_share
from pointcentroid.train.module import decayed, warm_cosine
from pointcentroid.weights import WeightsCard

RECIPE = Path(__file__).parent.parent / "configs" / "modelnet40-small.yaml"


def recipe(classes: int) -> TrainConfig:
    """That of `small`, but for the output `known`; clouds come with as many farthest points first as PointNet++ takes."""
    config = from_dict(TrainConfig, recipe_settings(RECIPE))
    model = config.model
    assert isinstance(model, ClassifierConfig)
    first, *others = model.encoder.stages
    stages = (dataclasses.replace(first, centroids=PointNet2.CENTRES), *others)
    encoder = dataclasses.replace(model.encoder, stages=stages)
    plain = dataclasses.replace(model, classes=classes, known=False, encoder=encoder)
    return dataclasses.replace(config, name="pointnet2", model=plain)


class Training:
    """PointNet++, its moving average, and the step that trains both.

    Args:
        config: the run.
        classes: outputs.
        steps: of the whole training.
        device: where.
    """

    def __init__(self, config: TrainConfig, classes: int, steps: int, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device, self.done = config, device, 0
        self.net = PointNet2(classes).to(device).train()
        self.averaged = copy.deepcopy(self.net).eval()
        states = (net.state_dict().values() for net in (self.net, self.averaged))
        self.here, self.mean = ([tensor for tensor in state if tensor.is_floating_point()] for state in states)
        self.factor = warm_cosine(steps, config.warmup)
        self.optimiser = torch.optim.AdamW(decayed(self.net, config.weight_decay), fused=device.type == "cuda")

    def step(self, points: Tensor, labels: Tensor) -> Tensor:
        """Learn from a batch, and return its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * self.factor(self.done)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.net(points, ordered=True)
        loss = nn.functional.cross_entropy(logits.float(), labels, label_smoothing=self.config.label_smoothing)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip, foreach=True)
        self.optimiser.step()
        self.done += 1
        kept = float(kept_share(torch.tensor(self.done), self.config.average))
        with torch.no_grad():
            torch._foreach_lerp_(self.mean, self.here, 1 - kept)
        return loss.detach()


def batches(points: Tensor, labels: Tensor, config: TrainConfig, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Varied clouds and labels of an epoch, without a last, smaller batch."""
    clouds, truth = (torch.cat(parts) for parts in zip(*varied_chunks(points, labels, config, epoch), strict=True))
    for start in range(0, len(clouds) - config.batch_size + 1, config.batch_size):
        part = slice(start, start + config.batch_size)
        yield clouds[part], truth[part]


class ClassicNet:
    """PointNet++ as a `pointcentroid.predict.nets.PredictingNet`.

    Args:
        weights: what `train` wrote.
    """

    feature_dim = 0

    def __init__(self, weights: Path) -> None:
        with safetensors.safe_open(weights, framework="pt") as file:
            about = file.metadata()
        config, classes = from_dict(TrainConfig, json.loads(about["config"])), json.loads(about["classes"])
        assert isinstance(config.model, ClassifierConfig)
        self.card = WeightsCard("pointnet2", config.model, config.preprocess, tuple(classes))
        self.module = PointNet2(len(classes)).eval()
        self.module.load_state_dict(safetensors.torch.load_file(weights))

    @torch.inference_mode()
    def __call__(self, clouds: np.ndarray, lists: Lists | None = None) -> Answer:  # noqa: ARG002, a `PredictingNet`
        """See `pointcentroid.predict.nets.PredictingNet`."""
        logits = self.module(torch.from_numpy(np.ascontiguousarray(clouds)), ordered=True).numpy()
        return Answer(logits, np.zeros((len(clouds), 0), np.float32), np.full(len(clouds), np.nan, np.float32))

    def neighbours(self, clouds: np.ndarray) -> Lists:  # noqa: ARG002, a `PredictingNet`
        """None: it has balls."""
        return {}


class ClassicPredictor(Predictor):
    """What asks it, so that clouds are preprocessed as for ours."""

    def __init__(self, weights: Path) -> None:
        self.path, self.device, self.runtime, self._knows_up = weights, "cpu", "torch", False
        self.net = ClassicNet(weights)
        self.card = self.net.card


app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)
Data = Annotated[Path, typer.Option(help="An npz file of labelled clouds.")]


@app.command()
def train(
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="The weights file.")],
    epochs: Annotated[int, typer.Option(help="How many.")] = 46,
) -> None:
    """Train it, on a GPU where there is one."""
    began, device, clouds = time.monotonic(), training_device(), load_npz(data)
    config = dataclasses.replace(recipe(len(clouds.classes)), epochs=epochs)
    source = CloudData(config, clouds)
    points, labels = (tensor.to(device) for tensor in source.training.batch(0, len(source.training))[:2])
    steps = len(source.training) // config.batch_size
    training = Training(config, len(source.classes), steps * epochs, device)
    for epoch in range(epochs):
        losses = [training.step(*batch) for batch in batches(points, labels, config, epoch)]
        if epoch % 10 == 9 or epoch == epochs - 1:
            loss, seconds = torch.stack(losses).mean(), time.monotonic() - began
            print(f"epoch {epoch + 1}/{epochs}  {seconds:.0f} s  loss {loss:.3f}", flush=True)
    about = {"config": json.dumps(to_dict(config)), "classes": json.dumps(list(source.classes))}
    output.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.cpu().contiguous() for name, tensor in training.averaged.state_dict().items()}
    safetensors.torch.save_file(state, output, about)


@app.command()
def measure(weights: Annotated[Path, typer.Argument(help="What `train` wrote.")], data: Data) -> None:
    """Measure accuracy, and errors on damaged clouds, as `pointcentroid evaluate --corruptions` does."""
    predictor, clouds = ClassicPredictor(weights), load_npz(data)
    seen = clouds.subset(clouds.part("validation"))
    whole: Evaluation = evaluate(predictor, seen)
    print(json.dumps({"overall": whole.overall_accuracy, "mean_class": whole.mean_class_accuracy}), flush=True)
    found = robustness(predictor, seen, watch=lambda passes, total: track(passes, "damaged", total)).to_dict()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    app()
