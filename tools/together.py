"""Train several classifiers at once on one GPU, each of them learning from the labels and from what the others answer.

    python tools/together.py train tools/together.yaml --data train.npz -o runs/together --minutes 9
    python tools/together.py finish runs/together --data train.npz
    python tools/together.py mean runs/a/a.safetensors runs/b/b.safetensors --data train.npz -o runs/small.safetensors

A small net asks a GPU for a thousand tiny computations a step and leaves it waiting between them. Here the nets of a group
are stacked, channels beside channels, so that one computation serves all of them; a step, with losses, gradients, optimiser
and moving averages, is one CUDA graph; and an epoch's clouds are varied at once. Data, random changes, losses, schedule and
averages are those of `pointcentroid train`; what dropout draws is not, and the last, smaller batch of an epoch is left out.

The nets of a group see the same clouds in the same steps. Those that are not `alone` learn from each other: part of their
loss is the cross entropy with the mean of the others' answers to the same cloud (Y. Zhang et al., "Deep mutual learning",
CVPR 2018). How many epochs fit into the minutes is measured first.

`train` writes tensors and a log, now and then and at the end; `finish` makes weights files of them, calibrated on the CPU.
`mean` takes the mean of weights that were trained on from the same ones (M. Wortsman et al., "Model soups", ICML 2022).
Without a GPU the same steps run slowly: for tests.
"""
# torch._foreach_* are what its optimisers use:
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import safetensors.torch
import torch
import typer
import yaml
from stacked import Stack
from torch import Tensor, nn

from pointcentroid.config import ClassifierConfig, TrainConfig, from_dict, to_dict
from pointcentroid.data.clouds import FOREIGN, CloudSet, load_npz
from pointcentroid.data.module import CloudData, varied
from pointcentroid.errors import DataError
from pointcentroid.evaluate.calibration import calibrated, validation_scores
from pointcentroid.geometry.neighbours import nearest_neighbours
from pointcentroid.models import model_config
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.predict.nets import searches
from pointcentroid.train.callbacks import kept_share
from pointcentroid.train.module import MeanClassAccuracy, decayed, warm_cosine
from pointcentroid.train.recipe import heritage, provenance_of, recipe_cards, with_figures_of
from pointcentroid.weights import KnownScale, WeightsCard, load_weights, save_weights

_CHUNK = 3000  # clouds that are varied at once
_AHEAD = 40  # steps that the GPU may be behind

Lists = dict[tuple[int, int], Tensor]


@dataclasses.dataclass(frozen=True)
class GroupConfig:
    """Nets of one architecture that see the same clouds.

    Attributes:
        name: the nets are called `{name}-{number}`.
        recipe: how they are trained; `recipe.teaching` is the share of the others' answers in the loss.
        seeds: of the random weights, one a net.
        alone: seeds of more nets, which learn from labels only, and from which nobody learns.
    """

    name: str
    recipe: TrainConfig
    seeds: tuple[int, ...]
    alone: tuple[int, ...] = ()

    @property
    def names(self) -> list[str]:
        """Of the nets."""
        return [f"{self.name}-{seed}" for seed in (*self.seeds, *self.alone)]


def read_plan(path: Path) -> list[GroupConfig]:
    """Groups from a YAML file; `config` names the file, seen from there, that holds the recipe of a group."""
    groups = []
    for group in yaml.safe_load(path.read_text()):
        groups.append(from_dict(GroupConfig, group | {"recipe": recipe_settings(path.parent / group.pop("config"))}))
    return groups


_NOT_DONE = ("start", "teachers", "sharpness", "keep", "compile")
"""Settings of `pointcentroid train` that make no difference here, and so must have their defaults."""


def check_plan(groups: list[GroupConfig]) -> None:
    """Refuse what would be ignored.

    Raises:
        SystemExit: there is no group, a setting is none of these nets', or groups do not share their data's.
    """
    if not groups:
        raise SystemExit("there is no group of that name")
    plain = TrainConfig()
    for group in groups:
        for key in _NOT_DONE:
            if getattr(group.recipe, key) != getattr(plain, key):
                raise SystemExit(f"{group.name}: {key}={getattr(group.recipe, key)!r} is for pointcentroid train alone")
        if group.recipe.augment.mix:
            raise SystemExit(f"{group.name}: augment.mix is for pointcentroid train alone")
        if any(
            getattr(group.recipe, key) != getattr(groups[0].recipe, key) for key in ("split", "preprocess", "batch_size")
        ):
            raise SystemExit("groups must share split, preprocess and batch_size: they are trained side by side")


def recipe_settings(path: Path) -> dict[str, Any]:
    """Of a training configuration, with its architecture spelt out; its data set is named elsewhere. Needs no OmegaConf."""
    settings = yaml.safe_load(path.read_text())
    model = settings["model"]
    return settings | {"data": "", "model": to_dict(model_config(model)) if isinstance(model, str) else model}


def training_device() -> torch.device:
    """The GPU, with kernels in place, or else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    import kernels

    kernels.install()
    return torch.device("cuda")


def varied_chunks(points: Tensor, labels: Tensor, config: TrainConfig, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The varied clouds of an epoch and their labels, in the order of `pointcentroid train`, chunk by chunk."""
    order = np.random.default_rng((config.seed, number)).permutation(len(points))
    for rows in torch.from_numpy(order).to(points.device).split(_CHUNK):
        yield varied((points[rows], labels[rows], rows), config, number)[:2]


class Group:
    """Nets that see the same clouds, and the step that trains them.

    Args:
        plan: which nets, and how.
        data: training and validation clouds, with farthest points enough for the nets in front.
        device: where.
    """

    def __init__(self, plan: GroupConfig, data: CloudData, device: torch.device) -> None:
        assert isinstance(plan.recipe.model, ClassifierConfig)
        self.plan, self.config, self.model, self.device = plan, plan.recipe, plan.recipe.model, device
        parts = (data.training, data.validation)
        training, validation = ([tensor.to(device) for tensor in part.batch(0, len(part))[:2]] for part in parts)
        self.points, self.labels = training
        self.validation = validation
        card = WeightsCard(plan.name, self.model, self.config.preprocess, tuple(data.classes))
        self.wanted = searches(card)
        self.seen = [self.neighbours(chunk) for chunk in validation[0].split(200)]
        nets = []
        for seed in (*plan.seeds, *plan.alone):
            torch.manual_seed(seed)
            nets.append(CentroidClassifier(self.model))
        self.single = CentroidClassifier(self.model).to(device).eval()
        self.stack = Stack(nets).to(device).train()
        self.averaged = copy.deepcopy(self.stack)  # never called: its weights are the means of the others'
        self.rate = torch.zeros((), device=device)
        on_gpu = device.type == "cuda"
        groups = decayed(self.stack, self.config.weight_decay)
        self.optimiser = torch.optim.AdamW(groups, lr=self.rate if on_gpu else 0.0, fused=on_gpu, capturable=on_gpu)
        self.state, self.mean = list(self.stack.state_dict().values()), list(self.averaged.state_dict().values())
        self.start = [tensor.clone() for tensor in self.state]
        mutual = torch.tensor([True] * len(plan.seeds) + [False] * len(plan.alone), device=device)
        self.mutual = mutual.float() if len(plan.seeds) > 1 else torch.zeros(len(mutual), device=device)
        self.steps = len(self.points) // self.config.batch_size  # of an epoch
        if not self.steps:
            raise SystemExit(f"{len(self.points)} training shapes are fewer than batch_size={self.config.batch_size}")
        self.step = torch.zeros((), dtype=torch.int64, device=device)  # since the first
        self.row = torch.zeros((), dtype=torch.int64, device=device)  # of the epoch's clouds, where the batch begins
        self.losses = torch.zeros(self.stack.count, device=device)
        self.tables = torch.zeros(2, 10**6, device=device)  # rate and average at every step; the graph knows the address
        self.epoch: list[Tensor] = []  # points, labels, and lists in the order of `self.wanted`
        self.graph: torch.cuda.CUDAGraph | None = None
        self.schedule(1)

    def schedule(self, epochs: int) -> None:
        """Fix how long the training is: the tables that a step reads its rate and its average from."""
        total = self.steps * epochs
        if total > self.tables.shape[1]:
            raise SystemExit(f"{epochs} epochs are {total:,} steps; at most {self.tables.shape[1]:,} are possible")
        factor = warm_cosine(total, self.config.warmup)
        rates = torch.tensor([self.config.learning_rate * factor(step) for step in range(total)])
        self.tables[:, :total] = torch.stack([rates, kept_share(torch.arange(1, total + 1), self.config.average)])
        self.step.zero_()

    def neighbours(self, points: Tensor) -> Lists:
        """What `CentroidEncoder.forward` takes as `lists`: the neighbours that the nets will ask for."""
        return {
            name: _nearest(points, rows, among or points.shape[1], name[1]) for name, (rows, among) in self.wanted.items()
        }

    def prepared(self, number: int) -> Iterator[list[Tensor]]:
        """An epoch's clouds in their order, chunk by chunk: points, labels, neighbours."""
        for points, labels in varied_chunks(self.points, self.labels, self.config, number):
            yield [points, labels, *self.neighbours(points).values()]

    def load(self, chunks: list[list[Tensor]]) -> None:
        """Put an epoch where steps read it, and begin at its first row."""
        made = [torch.cat(parts) for parts in zip(*chunks, strict=True)]
        if self.epoch:
            for here, new in zip(self.epoch, made, strict=True):
                here.copy_(new)
        else:
            self.epoch = made
        self.row.zero_()

    def update(self) -> None:
        """One step of all nets."""
        rows = self.row + torch.arange(self.config.batch_size, device=self.device)
        points, labels, *found = (tensor.index_select(0, rows) for tensor in self.epoch)
        rate, kept = self.tables.index_select(1, self.step.view(1))[:, 0]
        logits, known = self.stack(points, dict(zip(self.wanted, found, strict=True)))
        loss = self.loss(logits.float(), None if known is None else known.float(), labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()
        self.clip()
        self.rate.copy_(rate)
        if self.device.type == "cpu":
            for group in self.optimiser.param_groups:
                group["lr"] = float(rate)
        self.optimiser.step()
        with torch.no_grad():
            change = torch._foreach_sub(self.state, self.mean)
            torch._foreach_mul_(change, 1 - kept)
            torch._foreach_add_(self.mean, change)
            self.losses.lerp_(loss, 0.01)
            self.step += 1
            self.row += len(rows)

    def loss(self, logits: Tensor, known: Tensor | None, labels: Tensor) -> Tensor:
        """(B, S, C) logits, (B, S) logits of `known` and (B,) labels -> (S,), the loss of each net.

        Those of `pointcentroid.train.module.ClassifierTraining`, with the others as teachers.
        """
        inside = (labels != FOREIGN).float().unsqueeze(1)
        each = labels.unsqueeze(1).expand(-1, self.stack.count).flatten()
        smooth = self.config.label_smoothing
        cost = nn.functional.cross_entropy(
            logits.flatten(0, 1), each, label_smoothing=smooth, ignore_index=FOREIGN, reduction="none"
        ).view(-1, self.stack.count)
        if self.stack.count > 1:
            shares = logits.detach().softmax(dim=2) * self.mutual.view(1, -1, 1)
            others = (shares.sum(dim=1, keepdim=True) - shares) / (self.mutual.sum() - 1).clamp_min(1)
            taught = nn.functional.cross_entropy(logits.flatten(0, 1), others.flatten(0, 1), reduction="none").view_as(cost)
            share = self.config.teaching * self.mutual
            cost = (1 - share) * cost + share * inside * taught
        cost = cost.mean(dim=0)
        if known is not None:
            truth = inside.expand_as(known)
            cost = cost + nn.functional.binary_cross_entropy_with_logits(known, truth, reduction="none").mean(dim=0)
        return cost

    @torch.no_grad()
    def clip(self) -> None:
        """Each net's gradient to a norm of at most `clip`."""
        count = self.stack.count
        apart = [p.grad.view(count, -1) for p in self.stack.parameters() if p.grad is not None]
        norms = torch.stack(torch._foreach_norm([part[n] for n in range(count) for part in apart])).view(count, -1)
        factors = (self.config.clip / (norms.norm(dim=1) + 1e-6)).clamp_max(1)
        for number in range(count):
            torch._foreach_mul_([part[number] for part in apart], factors[number])

    def capture(self) -> None:
        """Make one graph of a step; on a CPU there is none."""
        if self.device.type != "cuda":
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.update()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        self.optimiser.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=side):
            self.update()
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Back to the random weights: what warmed up or was timed leaves no trace."""
        for here, mean, start in zip(self.state, self.mean, self.start, strict=True):
            here.copy_(start)
            mean.copy_(start)
        for state in self.optimiser.state.values():
            for value in state.values():
                value.zero_()
        for counter in (self.step, self.row, self.losses):
            counter.zero_()

    def advance(self) -> None:
        """One step."""
        if self.graph is None:
            self.update()
        else:
            self.graph.replay()

    @torch.no_grad()
    def validate(self) -> dict[str, tuple[float, float]]:
        """Overall and mean class accuracy of the averaged nets, in percent."""
        points, labels = self.validation
        result = {}
        for name, state in zip(self.plan.names, self.averaged.apart(), strict=True):
            self.single.load_state_dict(state)
            answers = [
                self.single.scores(chunk, ordered=True, lists=lists).logits.argmax(dim=1)
                for chunk, lists in zip(points.split(200), self.seen, strict=True)
            ]
            overall, mean_class = accuracies(torch.cat(answers), labels, self.model.classes)
            result[name] = (100 * overall, 100 * mean_class)
        return result


def accuracies(answers: Tensor, labels: Tensor, classes: int) -> tuple[float, float]:
    """Overall and mean class accuracy, as `pointcentroid.train.module.ClassifierTraining` measures them."""
    mean_class = MeanClassAccuracy(classes, average="macro").to(answers.device)
    return (answers == labels).double().mean().item(), mean_class(answers, labels).item()


def _nearest(points: Tensor, rows: int, listed: int, count: int) -> Tensor:
    if points.device.type == "cpu":
        return torch.cat([nearest_neighbours(chunk[:, :rows], chunk[:, :listed], count) for chunk in points.split(64)])
    from kernels import nearest_in_prefix

    return nearest_in_prefix(points, rows, listed, min(count, listed))


def _on(stream: Any) -> Any:
    return contextlib.nullcontext() if stream is None else torch.cuda.stream(stream)


def run(groups: list[Group], epochs: int, during: Callable[[int, float], None]) -> None:
    """Train all groups side by side; while an epoch is trained, the next one is prepared."""
    cuda = groups[0].device.type == "cuda"
    aside, *streams = [torch.cuda.Stream() if cuda else None for _ in range(len(groups) + 1)]
    first = time.monotonic()
    for group in groups:
        group.load(list(group.prepared(0)))
    steps = groups[0].steps
    every = max(1, steps // (len(groups[0].points) // _CHUNK + 2))
    for number in range(epochs):
        upcoming = [group.prepared(number + 1) for group in groups] if number + 1 < epochs else []
        ready: list[list[list[Tensor]]] = [[] for _ in upcoming]
        events: list[torch.cuda.Event] = []
        for stream in (aside, *streams):
            if stream is not None:
                stream.wait_stream(torch.cuda.current_stream())
        for step in range(steps):
            for group, stream in zip(groups, streams, strict=True):
                with _on(stream):
                    group.advance()
                    if cuda:
                        events.append(torch.cuda.Event())
                        events[-1].record()
            if len(events) > _AHEAD:
                events.pop(0).synchronize()
                events.pop(0)
            if step % every == 0:
                with _on(aside):
                    for chunks, source in zip(ready, upcoming, strict=True):
                        chunks.extend([chunk] if (chunk := next(source, None)) is not None else [])
        with _on(aside):
            for chunks, source in zip(ready, upcoming, strict=True):
                chunks.extend(source)
        if cuda:
            torch.cuda.synchronize()
        during(number + 1, time.monotonic() - first)
        for group, chunks in zip(groups, ready, strict=False):
            group.load(chunks)


app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@app.command()
def train(
    plan: Annotated[Path, typer.Argument(help="Groups of nets, a YAML file.", exists=True, dir_okay=False)],
    data: Annotated[Path, typer.Option(help="An npz file of labelled clouds.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder for tensors and log.")],
    minutes: Annotated[float, typer.Option(help="How long, all in all.")] = 9.0,
    epochs: Annotated[int, typer.Option(help="How many epochs; 0: as many as fit into the minutes.")] = 0,
    only: Annotated[str, typer.Option(help="The name of one group.")] = "",
    every: Annotated[int, typer.Option(help="Epochs between two looks at the validation shapes.")] = 20,
) -> None:
    """Train the nets of a plan."""
    began = time.monotonic()
    device = training_device()
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    output.mkdir(parents=True, exist_ok=True)
    plans = [group for group in read_plan(plan) if only in ("", group.name)]
    check_plan(plans)
    clouds = CloudData(max((group.recipe for group in plans), key=lambda config: config.model.seeds), load_npz(data))
    print(f"read after {time.monotonic() - began:.1f} s", flush=True)
    groups = [Group(group, clouds, device) for group in plans]
    for group in groups:
        group.load(list(group.prepared(0)))
        group.capture()
        print(f"captured {', '.join(group.plan.names)} after {time.monotonic() - began:.1f} s", flush=True)
    if not epochs:
        timing: list[float] = []
        run(groups, 4, lambda _number, seconds: timing.append(seconds))
        for group in groups:
            group.reset()
        seconds = (timing[2] - timing[0]) / 2
        epochs = int((60 * minutes - (time.monotonic() - began)) / (1.04 * seconds))
        print(f"{seconds:.2f} s an epoch: {epochs} epochs", flush=True)
        if epochs < 1:
            raise SystemExit(f"not one epoch fits into {minutes:g} minutes")
    for group in groups:
        group.schedule(epochs)
    log: list[dict[str, Any]] = []

    def during(number: int, seconds: float) -> None:
        late = time.monotonic() - began > 60 * minutes
        if number % every and number not in (1, 3, epochs) and not late:
            return
        losses = dict(
            zip((n for g in groups for n in g.plan.names), (x for g in groups for x in g.losses.tolist()), strict=True)
        )
        figures = {name: found for group in groups for name, found in group.validate().items()}
        log.append({"epoch": number, "seconds": round(seconds, 1), "loss": losses, "validation": figures})
        shown = "  ".join(f"{name} {losses[name]:.3f} {overall:.1f}/{each:.1f}" for name, (overall, each) in figures.items())
        print(f"epoch {number}/{epochs}  {seconds:.0f} s  {shown}", flush=True)
        if not np.isfinite(list(losses.values())).all():
            raise SystemExit("a loss is no longer a number")
        keep(groups, output, epochs, log)
        if late:
            raise SystemExit("out of time")

    run(groups, epochs, during)


def keep(groups: list[Group], output: Path, epochs: int, log: list[dict[str, Any]]) -> None:
    """Write the averaged nets and the log."""
    for group in groups:
        seeds = (*group.plan.seeds, *group.plan.alone)
        for name, seed, state in zip(group.plan.names, seeds, group.averaged.apart(), strict=True):
            others = [
                f"{group.plan.name}-{other}" for other in group.plan.seeds if other != seed and seed in group.plan.seeds
            ]
            recipe = dataclasses.replace(group.config, epochs=epochs)
            about = {"config": json.dumps(to_dict(recipe)), "weights_seed": str(seed), "together_with": json.dumps(others)}
            safetensors.torch.save_file(
                {key: value.cpu().contiguous() for key, value in state.items()}, output / f"{name}.tensors", about
            )
    (output / "log.json").write_text(json.dumps(log))


def save_measured(path: Path, tensors: dict[str, Tensor], card: WeightsCard, config: TrainConfig, clouds: CloudSet) -> None:
    """Write a weights file with its accuracies and calibration on the validation shapes, or those of its recipe."""
    if config.split == "all":
        others = [from_dict(TrainConfig, one) for one in card.provenance.get("mean_with", ())]
        save_weights(path, tensors, with_figures_of(recipe_cards(config, clouds.fingerprint, others), card))
        return
    source = CloudData(config, clouds)
    net = CentroidClassifier.from_tensors(card.model, tensors)
    logits, _, labels = validation_scores(net, source.validation)
    overall, mean_class = accuracies(logits.argmax(dim=1), labels, len(card.classes))
    figures = {"validation_overall": overall, "validation_mean_class": mean_class}
    card = dataclasses.replace(card, metrics=card.metrics | figures, temperature=1.0, known=KnownScale())
    with contextlib.suppress(DataError):  # too few validation shapes, or too few mistakes: the temperature stays at 1
        card = calibrated(net, card, source.classes, source.validation)
    save_weights(path, tensors, card)
    print(f"{path.stem}: {100 * overall:.1f} / {100 * mean_class:.1f}")


@app.command()
def finish(
    folder: Annotated[Path, typer.Argument(help="What `train` wrote.", exists=True, file_okay=False)],
    data: Annotated[Path, typer.Option(help="The same data set.")],
) -> None:
    """Make weights files of what `train` wrote, calibrated on the validation shapes."""
    clouds, log = load_npz(data), json.loads((folder / "log.json").read_text())
    for path in sorted(folder.glob("*.tensors")):
        with safetensors.safe_open(path, framework="pt") as file:
            about = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
        config = from_dict(TrainConfig, json.loads(about["config"]))
        metrics = {"epoch": log[-1]["epoch"], "training_seconds": log[-1]["seconds"]}
        provenance = provenance_of(dataclasses.replace(config, data=str(data)), clouds, heritage([]))
        provenance |= {"weights_seed": int(about["weights_seed"]), "together_with": json.loads(about["together_with"])}
        card = WeightsCard(config.name, config.model, config.preprocess, tuple(clouds.classes), metrics, provenance)
        save_measured(path.with_suffix(".safetensors"), tensors, card, config, clouds)


@app.command()
def mean(
    weights: Annotated[list[Path], typer.Argument(help="Weights files of one architecture, trained on from the same ones.")],
    data: Annotated[Path, typer.Option(help="The data set.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file of the mean.")],
    recipe: Annotated[
        list[str] | None, typer.Option(help="Of weights trained on all shapes: those whose figures stand for the mean.")
    ] = None,
) -> None:
    """Write the mean of weights, calibrated, under the name of its file; its settings are those of all."""
    loaded = [load_weights(path) for path in weights]
    (tensors, card), *others = loaded
    if any(other.model != card.model or other.classes != card.classes for _, other in others):
        raise SystemExit("the weights are of different nets")
    made = {
        name: torch.stack([held[name] for held, _ in loaded]).mean(dim=0) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    configs = [from_dict(TrainConfig, held.provenance["config"]) for _, held in loaded]
    first, *rest = [dataclasses.replace(one, name=output.stem, recipe=tuple(recipe or ())) for one in configs]
    clouds = load_npz(data)
    if clouds.classes != card.classes or any(clouds.fingerprint not in held.trained_on for _, held in loaded):
        raise SystemExit(f"{data} is not the data set that the weights were trained on")
    inherited = heritage(held for _, held in loaded)
    provenance = provenance_of(first, clouds, inherited)
    if rest:
        provenance["mean_with"] = [provenance_of(one, clouds, inherited)["config"] for one in rest]
    card = dataclasses.replace(card, name=output.stem, provenance=provenance, metrics={"epoch": card.metrics["epoch"]})
    save_measured(output, made, card, first, clouds)


if __name__ == "__main__":
    app()
