"""How many shapes of its own does a new class need? Ten classes are kept from a training, and then learnt from few shapes.

    python tools/few.py apart train.npz -o runs/thirty.npz
    pointcentroid train modelnet40-tiny data=runs/thirty.npz name=thirty epochs=25
    python tools/few.py measure runs/thirty/thirty.safetensors train.npz -o runs/few

So many shapes of each class that the weights do not know, drawn anew for every seed, are trained on as `pointcentroid train
my_shapes/` does, and all others of these classes are to be named, as they lie and turned about the up axis, each by an
angle of its own. Beside it stand what needs no such training, a linear classifier on the frozen net's features and the
nearest class mean of these, and the same training from random weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pointcentroid.config import to_dict
from pointcentroid.data.augment import about_z
from pointcentroid.data.clouds import CloudSet, as_stored, load_npz
from pointcentroid.data.ordered import OrderedClouds
from pointcentroid.evaluate.accuracy import evaluate
from pointcentroid.evaluate.probe import cloud_features, linear_probe
from pointcentroid.models import net_class
from pointcentroid.predict.loading import load
from pointcentroid.predict.predictor import Predictor
from pointcentroid.train.run import train
from pointcentroid.train.settings import load_train_config
from pointcentroid.weights import find_weights, load_weights, read_card

KEPT = ("airplane", "bathtub", "bed", "bowl", "cone", "cup", "glass_box", "laptop", "plant", "stool")
"""Drawn at random, see docs/orientation.md."""


def of_classes(clouds: CloudSet, classes: tuple[str, ...]) -> CloudSet:
    """The shapes of some classes, which are numbered anew."""
    chosen = clouds.subset(np.flatnonzero(np.isin(clouds.labels, [clouds.classes.index(name) for name in classes])))
    return CloudSet(chosen.points, chosen.labels_among(classes), chosen.names, classes, chosen.split)


def drawn(clouds: CloudSet, count: int, seed: int) -> tuple[CloudSet, CloudSet]:
    """So many shapes of each class, drawn at random; and all others."""
    random = np.random.default_rng([seed, count])
    members = [random.permutation(np.flatnonzero(clouds.labels == label)) for label in range(len(clouds.classes))]
    few = np.sort(np.concatenate([rows[:count] for rows in members]))
    return clouds.subset(few), clouds.subset(np.setdiff1d(np.arange(len(clouds)), few))


def headed(clouds: CloudSet, seed: int) -> CloudSet:
    """Clouds that face any way: each is turned about the up axis by an angle of its own."""
    angles = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(clouds))
    turns = about_z(torch.from_numpy(angles)).transpose(1, 2).numpy()
    return replace(clouds, points=(clouds.points @ turns).astype(np.float32))


def write(clouds: CloudSet, path: Path) -> None:
    """Write clouds as an npz that `pointcentroid train` takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        points=as_stored(clouds.points),
        labels=clouds.labels,
        names=np.array(clouds.names),
        classes=np.array(clouds.classes),
    )


def trained(few: CloudSet, settings: list[str], folder: Path, **given: object) -> tuple[Predictor, float]:
    """Train on few shapes: what names others, and the seconds it took."""
    write(few, folder / "few.npz")
    config = load_train_config("finetune", settings, data=folder / "few.npz", output=folder, up="standard", **given)
    start = time.perf_counter()
    weights = train(config, overwrite=True)
    seconds = time.perf_counter() - start
    assert weights is not None
    return load(weights, "cpu"), seconds


def by_features(name: str, few: CloudSet, shown: dict[str, CloudSet]) -> dict[str, float]:
    """What the frozen net's features tell apart: the share of others, shown in some ways, that is named rightly."""
    tensors, card = load_weights(find_weights(name))
    net = net_class(card.model).from_tensors(card.model, tensors)
    seeds, points = card.model.seeds, card.preprocess.points

    def features(clouds: CloudSet) -> torch.Tensor:
        ordered = OrderedClouds(clouds, np.arange(len(clouds)), seeds, points)
        return cloud_features(net, ordered, lambda batches, _: batches)

    here, labels = features(few), torch.from_numpy(few.labels)
    means = torch.stack([here[labels == label].mean(dim=0) for label in range(len(few.classes))])
    right: dict[str, float] = {}
    for how, others in shown.items():
        there = features(others)
        answers = {
            "linear classifier": linear_probe(here, labels, there),
            "nearest mean": torch.cdist(there, means).argmin(dim=1),
        }
        right |= {rule + how: float((answer.numpy() == others.labels).mean()) for rule, answer in answers.items()}
    return right


def measure(name: str, source: Path, folder: Path, counts: list[int], seeds: list[int], settings: list[str]) -> None:
    """Print one row for each number of shapes."""
    clouds, card = load_npz(source), read_card(find_weights(name))
    foreign = tuple(sorted(set(clouds.classes) - set(card.classes)))
    if not foreign:
        raise SystemExit(f"{name} knows all classes of {source}: which are to be new?")
    clouds = of_classes(clouds, foreign)
    random = {"start": "", "model": to_dict(card.model) | {"classes": len(clouds.classes)}}
    for count in counts:
        found: dict[str, list[float]] = {}
        for seed in seeds:
            few, others = drawn(clouds, count, seed)
            shown = {"": others, ", facing any way": headed(others, seed)}
            for rule, given in (
                ("fine-tuned", {"start": name, "model": {"classes": len(clouds.classes)}}),
                ("random weights", random),
            ):
                predictor, seconds = trained(few, [*settings, f"seed={seed}"], folder, **given)
                for how, clouds_shown in shown.items():
                    found.setdefault(rule + how, []).append(evaluate(predictor, clouds_shown).overall_accuracy)
                found.setdefault(f"{rule}, seconds", []).append(seconds)
            taught = few.subset(few.part("training"))  # a tenth is set aside for validation
            for rule, right in by_features(name, taught, shown).items():
                found.setdefault(rule, []).append(right)
        print(f"{count} shapes of each of {len(clouds.classes)} classes, seeds {seeds}, {len(others)} others")
        for rule, values in found.items():
            unit, scale = ("s", 1) if rule.endswith("seconds") else ("%", 100)
            each = ", ".join(f"{scale * value:.1f}" for value in values)
            print(f"    {rule}: {scale * statistics.mean(values):.1f} {unit} ({each})", flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    apart = commands.add_parser("apart", help="write the shapes of all classes but ten")
    apart.add_argument("data", type=Path, help="train.npz")
    apart.add_argument("-o", "--output", type=Path, required=True, help="the npz to write")
    measured = commands.add_parser("measure", help="learn the ten from few shapes")
    measured.add_argument("weights", help="trained on the other classes")
    measured.add_argument("data", type=Path, help="train.npz")
    measured.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    measured.add_argument("--shapes", type=int, nargs="+", default=[6, 20, 60], help="of each class")
    measured.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    measured.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the trainings")
    given = parser.parse_args()
    if given.command == "apart":
        clouds = load_npz(given.data)
        write(of_classes(clouds, tuple(name for name in clouds.classes if name not in KEPT)), given.output)
    else:
        measure(given.weights, given.data, given.output, given.shapes, given.seeds, given.set)


if __name__ == "__main__":
    main()
