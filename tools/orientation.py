"""Measure what `--up auto` and `known` are worth, on the validation shapes.

    python tools/orientation.py small DATA.npz              # every one of the 24 ways to lie, and what each rule makes of it
    python tools/orientation.py WEIGHTS DATA.npz --foreign  # of weights that were trained without some of the data's
                                                            # classes: are shapes of those known as foreign?
    python tools/orientation.py small DATA.npz --headings   # are several looks about the up axis worth their price?
    python tools/orientation.py small DATA.npz --leaning    # shapes turned by any rotation at all

The constants of `pointcentroid.predict.up` were chosen by the first, which leaves the box out, among those of its grid; the
two of the box by the last, from a few.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Annotated, NamedTuple, cast

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pointcentroid import load
from pointcentroid.data.augment import about_z
from pointcentroid.data.clouds import CloudSet, load_npz
from pointcentroid.evaluate.accuracy import auroc
from pointcentroid.evaluate.calibration import calibration_error
from pointcentroid.geometry.axes import TO_Z_UP, UP_AXES, rotations
from pointcentroid.predict import up as rule
from pointcentroid.predict.nets import Answer, PredictingNet, energy, log_softmax, ordered
from pointcentroid.predict.runtimes import open_net
from pointcentroid.results import Failure, Prediction
from pointcentroid.weights import find_weights

Z = UP_AXES.index("z")
UPRIGHT = 4 * Z  # of the 24 ways: the z axis up, not turned about it

Y_UP = 4 * UP_AXES.index("y")  # the y axis up
Constants = tuple[float, float, float]
"""CERTAIN, PRIOR_WEIGHT, CONFIDENCE_WEIGHT."""
GRID = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), (0.5, 1.0, 1.5), (0.0, 1.0, 2.0, 3.0)  # of each of `Constants`
ALL_AT_ONCE = rule.Custom((), rule.Z_UP.prior)


def answers(net: PredictingNet, clouds: np.ndarray, say: str) -> Answer:
    """What a net says of (S, N, 3) clouds, as they lie."""
    parts = [net(ordered(clouds[start : start + 64], net.card)) for start in track(range(0, len(clouds), 64), say)]
    return Answer(*(np.concatenate(output) for output in zip(*parts, strict=True)))


def ways() -> tuple[np.ndarray, np.ndarray]:
    """The 24 ways to lie, (24, 3, 3) matrices for rows of coordinates, and (24, 6) the way that each look then shows."""
    quarter = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    matrices = [np.linalg.matrix_power(quarter, turns) @ TO_Z_UP[axis] for axis in UP_AXES for turns in range(4)]
    numbers = {tuple(np.rint(matrix).astype(int).ravel()): number for number, matrix in enumerate(matrices)}
    looks = [
        [numbers[tuple(np.rint(matrix @ TO_Z_UP[axis].T).astype(int).ravel())] for axis in UP_AXES] for matrix in matrices
    ]
    return np.stack(matrices), np.array(looks)


class Figures(NamedTuple):
    """What a rule makes of shapes.

    Attributes:
        right: share of right answers.
        axis: share of right axes.
        looks: a shape.
        error: expected calibration error.
    """

    right: float
    axis: float
    looks: float
    error: float


class Lying:
    """What a net says of shapes in all 24 ways to lie.

    Args:
        net: the classifier.
        clouds: labelled shapes, z up.
    """

    def __init__(self, net: PredictingNet, clouds: CloudSet) -> None:
        matrices, self.looks = ways()
        seen = [answers(net, (clouds.points @ m).astype(np.float32), f"way {n + 1}") for n, m in enumerate(matrices)]
        self.seen = Answer(*(np.stack(output, axis=1) for output in zip(*seen, strict=True)))
        self.said = np.exp(log_softmax(self.seen.logits / net.card.temperature))
        self.labels = clouds.labels_among(net.card.classes)
        self.right = self.said.argmax(axis=2) == self.labels[:, None]

    def chosen(self, way: int, custom: rule.Custom, mean: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(S, classes) probabilities, (S,) whether the axis is right, and (S,) looks, for shapes that lie in one way.

        Args:
            way: 0 to 23.
            custom: how shapes are said to lie.
            mean: the probabilities are the mean over all looks, not those of the one that wins.
        """
        looks = self.looks[way]
        seen = Answer(*(output[:, looks] for output in self.seen))
        score, rows = rule.scores(seen, np.array([custom.prior[axis] for axis in UP_AXES])), np.arange(len(self.labels))
        tried, pending = np.zeros(score.shape, bool), np.ones(len(rows), bool)
        for axes in rule.steps(custom):
            tried |= pending[:, None] & np.isin(UP_AXES, axes)
            best = np.where(tried, score, -np.inf).argmax(axis=1)
            pending &= seen.known[rows, best] <= rule.CERTAIN
        score = np.where(tried, score, -np.inf)
        if mean:
            said = np.einsum("sa,sac->sc", rule.shares_of(score), self.said[:, looks])
        else:
            said = self.said[rows, looks[best]]
        return said, looks[best] // 4 == Z, tried.sum(axis=1)

    def measured(self, constants: Constants, custom: rule.Custom, mean: bool = True) -> tuple[Figures, Figures, Figures]:
        """Figures of upright shapes, of those with y up, and of all 24 ways together."""
        rule.CERTAIN, rule.PRIOR_WEIGHT, rule.CONFIDENCE_WEIGHT = constants
        results = [self.chosen(way, custom, mean) for way in range(24)]
        return self._figures([results[UPRIGHT]]), self._figures([results[Y_UP]]), self._figures(results)

    def _figures(self, results: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Figures:
        said, axis, looks = (np.stack(values) for values in zip(*results, strict=True))
        right = said.argmax(axis=2) == self.labels
        error = calibration_error(said.max(axis=2).ravel(), right.ravel())
        return Figures(float(right.mean()), float(axis.mean()), float(looks.mean()), error)


def axes(net: PredictingNet, clouds: CloudSet, console: Console) -> None:
    """Compare rules, then constants."""
    shipped = rule.CERTAIN, rule.PRIOR_WEIGHT, rule.CONFIDENCE_WEIGHT
    lying = Lying(net, clouds)
    upright = lying.right[:, UPRIGHT].mean()
    headings = lying.right[:, UPRIGHT : UPRIGHT + 4].mean()
    table = Table("rule", "upright", "y up", "24 ways", "axis found", "looks", "y up", "24 ways", "ECE", "24 ways", box=None)

    def row(name: str, constants: Constants, custom: rule.Custom, mean: bool) -> None:
        figures = first, _, every = lying.measured(constants, custom, mean)
        table.add_row(
            name,
            *(f"{one.right:.1%}" for one in figures),
            f"{every.axis:.1%}",
            *(f"{one.looks:.2f}" for one in figures),
            f"{first.error:.1%}",
            f"{every.error:.1%}",
        )

    table.add_row("the axis is given", f"{upright:.1%}", f"{upright:.1%}", f"{headings:.1%}", "", "1", "1", "1")
    as_it_lies = lying.right[:, Y_UP].mean()
    table.add_row(
        "z is believed", f"{upright:.1%}", f"{as_it_lies:.1%}", f"{lying.right.mean():.1%}", f"{1 / 6:.1%}", *"111"
    )
    row("all six looks, confidence alone", (np.inf, 0, 1e9), ALL_AT_ONCE, mean=False)
    row("all six looks, known alone", (np.inf, 0, 0), ALL_AT_ONCE, mean=False)
    row("all six looks, known and prior", (np.inf, 1, 0), ALL_AT_ONCE, mean=False)
    row("z, then all others", shipped, rule.Custom((("z",),), rule.Z_UP.prior), mean=False)
    row("z, then y, then the others", shipped, rule.Z_UP, mean=False)
    row("so, and the mean over looks, as it ships", shipped, rule.Z_UP, mean=True)
    row("of OBJ: z and y, then the others, the mean, as it ships", shipped, rule.EITHER_UP, mean=True)
    row("of glTF: y, then z, then the others, the mean, as it ships", shipped, rule.CUSTOMS[".glb"], mean=True)
    console.print(table)
    console.print("\nthe best of the grid that cost upright shapes at most 0.5 points, and 1.6 looks:")
    grid = [(constants, *lying.measured(constants, rule.Z_UP)) for constants in product(*GRID)]
    fine = [entry for entry in grid if entry[1].right >= upright - 0.005 and entry[1].looks <= 1.6]
    for constants, first, lain, every in sorted(fine, key=lambda entry: -entry[3].right)[:5]:
        console.print(
            f"{constants}: upright {first.right:.1%}, {first.looks:.2f} looks; y up {lain.right:.1%}; "
            f"24 ways {every.right:.1%}"
        )
    console.print("\nSPREAD, with the constants that ship:")
    for rule.SPREAD in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0):
        first, _, every = lying.measured(shipped, rule.Z_UP)
        console.print(
            f"{rule.SPREAD}: upright {first.right:.1%}, calibration error {first.error:.1%}; "
            f"24 ways {every.right:.1%}, {every.error:.1%}"
        )


def headings(net: PredictingNet, clouds: CloudSet, console: Console) -> None:
    """Compare one look with means over 4 and 8 headings, for shapes as they are and turned at random, z up."""
    labels = clouds.labels_among(net.card.classes)
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, len(clouds.points))
    table = Table("shapes", "looks again where", "one look", "mean over 4", "mean over 8", "looks of 8", box=None)
    for name, start in (("as they are", 0 * angles), ("turned at random", angles)):
        said = []
        for eighth in range(8):
            turns = about_z(torch.from_numpy(-start - eighth * np.pi / 4)).numpy()
            turned = (clouds.points @ turns).astype(np.float32)
            said.append(np.exp(log_softmax(answers(net, turned, f"heading {eighth + 1}").logits / net.card.temperature)))
        one, four, eight = said[0], np.mean(said[::2], axis=0), np.mean(said, axis=0)
        for least in (0.75, 0.9, 1.1):
            again = one.max(axis=1) < least
            row = [np.where(again[:, None], mean, one).argmax(axis=1) == labels for mean in (one, four, eight)]
            where = f"below {least:.0%}" if least < 1 else "always"
            table.add_row(name, where, *(f"{right.mean():.1%}" for right in row), f"{1 + 7 * again.mean():.1f}")
    console.print(table)


def leaning(weights: str, clouds: CloudSet, console: Console) -> None:
    """Compare what to make of shapes that are turned by rotations drawn evenly, each by its own."""
    predictor = load(weights)
    labels = [clouds.classes[label] for label in clouds.labels]
    w, *xyz = np.random.default_rng(0).normal(size=(len(labels), 4)).T
    drawn = rotations(np.stack([*xyz, w], axis=1))
    turned = [(points @ rotation.T).astype(np.float32) for points, rotation in zip(clouds.points, drawn, strict=True)]
    table = Table("rule", "right", "up within 15 degrees", "ECE", box=None)

    def row(name: str, answers: Iterable[Prediction | Failure]) -> None:
        said = cast("list[Prediction]", list(track(answers, name, len(labels))))
        right = np.array([answer.label == label for answer, label in zip(said, labels, strict=True)])
        cosines = [answer.turn[2] @ rotation[:, 2] for answer, rotation in zip(said, drawn, strict=True)]
        error = calibration_error(np.array([answer.confidence for answer in said]), right)
        upright = np.mean(np.array(cosines) > np.cos(np.deg2rad(15)))
        table.add_row(name, f"{right.mean():.1%}", f"{upright:.1%}", f"{error:.1%}")

    pairs = zip(turned, drawn, strict=True)
    row("the rotation is given", (predictor(points, up=rotation.T) for points, rotation in pairs))
    row("z is believed", predictor.predict(turned, up="z"))
    frame, least = rule.box_frame, rule.LEAST_ANGLE
    rule.LEAST_ANGLE = np.inf
    row("the file's axes alone", predictor.predict(turned))
    rule.LEAST_ANGLE, rule.box_frame = least, principal_axes
    row("as it ships, but principal axes in the place of the box", predictor.predict(turned))
    rule.box_frame = frame
    row("as it ships", predictor.predict(turned))
    console.print(table)
    for name, shapes in (("do not lean", clouds.points), ("are turned", np.stack(turned))):
        batches = [predictor.ordered(shapes[start : start + 64]) for start in range(0, len(shapes), 64)]
        looks = sum(rule.UpFinder(predictor.net)(batch).looks for batch in track(batches, f"looks of shapes that {name}"))
        console.print(f"looks a shape, of those that {name}: {looks / len(shapes):.2f}")


def principal_axes(cloud: np.ndarray) -> np.ndarray:
    """(3, 3) the rotation that turns an (N, 3) cloud into its principal axes."""
    axes = np.linalg.svd(cloud - cloud.mean(axis=0), full_matrices=False)[2].astype(np.float64)
    return axes * np.sign(np.linalg.det(axes))


def foreign(net: PredictingNet, clouds: CloudSet, training: CloudSet, console: Console) -> None:
    """Compare what tells shapes of other classes from those of the net's."""
    own = np.array([clouds.classes[label] in net.card.classes for label in clouds.labels])
    seen, learnt = answers(net, clouds.points, "shapes"), answers(net, training.points, "training shapes")
    means = np.stack([learnt.features[training.labels == label].mean(axis=0) for label in np.unique(training.labels)])
    centred = learnt.features - means[np.unique(training.labels, return_inverse=True)[1]]
    inverse = np.linalg.inv(np.cov(centred.T) + 1e-3 * np.eye(means.shape[1]) * centred.var())
    offset = seen.features[:, None] - means
    distance = -np.einsum("smf,fg,smg->sm", offset, inverse, offset, optimize=True).min(axis=1)
    compare(seen, own, console, {"distance of the features to the nearest class mean (Mahalanobis)": distance})


def compare(seen: Answer, own: np.ndarray, console: Console, others: dict[str, np.ndarray] | None = None) -> None:
    """Print how well scores tell shapes of the net's classes from others.

    Args:
        seen: what the net says of S shapes.
        own: (S,) whether each is of its classes.
        console: where to.
        others: (S,) scores beside those that are made of what the net says; each is tried together with `known`, too.
    """
    known, energies = seen.known, energy(seen.logits)
    others = {"energy: log of the sum of exp(logits)": energies} | (others or {})
    scores = {"known": known, "highest class probability": log_softmax(seen.logits).max(axis=1)} | others
    scores |= {f"known + {weight:g} energy": known + weight * energies for weight in (0.5, 1.0, 2.0, 4.0)}
    for name, other in others.items():
        spread = known[own].std() / other[own].std()
        scores[f"known + {spread:.2g} {name.partition(' ')[0].strip(':')}, by their spread"] = known + spread * other
    table = Table("score", "AUROC", f"{(~own).sum()} foreign shapes flagged, of {own.sum()} own ones 5 %", box=None)
    for name, score in scores.items():
        table.add_row(name, f"{auroc(score, own):.3f}", f"{(score[~own] < np.quantile(score[own], 0.05)).mean():.1%}")
    console.print(table)


def main(
    weights: Annotated[str, typer.Argument(help="Weights with the output `known`.")],
    data: Annotated[Path, typer.Argument(help="An npz data set.")],
    others: Annotated[
        bool, typer.Option("--foreign", help="Measure `known` on classes that the weights do not know.")
    ] = False,
    about: Annotated[bool, typer.Option("--headings", help="Measure what looks at several headings bring.")] = False,
    any_way: Annotated[bool, typer.Option("--leaning", help="Measure on shapes turned by any rotation.")] = False,
) -> None:
    """Measure how the up axis is found, how foreign shapes are, or what headings bring."""
    net, clouds = open_net(find_weights(weights)), load_npz(data)
    validation = clouds.subset(clouds.part("validation"))
    if any_way:
        return leaning(weights, validation, Console())
    if about:
        return headings(net, validation, Console())
    if not others:
        return axes(net, validation, Console())
    if all(name in net.card.classes for name in clouds.classes):
        raise SystemExit(f"{weights} knows all classes of {data}; leave some out of its training")
    rows = clouds.part("training")
    own = [clouds.classes[label] in net.card.classes for label in clouds.labels[rows]]
    return foreign(net, validation, clouds.subset(rows[own]), Console())


if __name__ == "__main__":
    typer.run(main)
