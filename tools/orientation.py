"""Measure what `--up auto` and `known` are worth, on the validation shapes.

    python tools/orientation.py small DATA.npz              # every one of the 24 ways to lie, and what each rule makes of it
    python tools/orientation.py WEIGHTS DATA.npz --foreign  # of weights that were trained without some of the data's
                                                            # classes: are shapes of those known as foreign?

The constants of `pointcentroid.predict.up` were chosen by the first, among those of its grid.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pointcentroid.data.clouds import CloudSet, load_npz
from pointcentroid.geometry.axes import TO_Z_UP, UP_AXES
from pointcentroid.predict import up as rule
from pointcentroid.predict.nets import Answer, PredictingNet, energy, log_softmax, open_net, ordered
from pointcentroid.weights import find_weights

Z = UP_AXES.index("z")
UPRIGHT = 4 * Z  # of the 24 ways: the z axis up, not turned about it

GRID = (0.0, 1.0, 2.0, 3.0, 4.0), (2.0, 3.0, 4.0, np.inf), (0.5, 1.0, 1.5), (0.0, 1.0, 2.0, 3.0)
"""CERTAIN of z and of y, PRIOR_WEIGHT, CONFIDENCE_WEIGHT."""


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
        self.right = self.seen.logits.argmax(axis=2) == clouds.labels[:, None]

    def chosen(self, way: int, certain: dict[str, float]) -> tuple[float, float, float]:
        """Share of right answers, share of right axes and looks a shape, by the rule, for shapes that lie in one way."""
        looks = self.looks[way]
        seen = Answer(*(output[:, looks] for output in self.seen))
        score, rows = rule.scores(seen, list(UP_AXES)), np.arange(len(self.right))
        best, taken = score.argmax(axis=1), np.full(len(rows), len(UP_AXES))
        for number in range(len(certain), 0, -1):
            first = [UP_AXES.index(axis) for axis in list(certain)[:number]]
            so_far = np.array(first)[score[:, first].argmax(axis=1)]
            enough = seen.known[rows, so_far] > list(certain.values())[number - 1]
            best, taken = np.where(enough, so_far, best), np.where(enough, number, taken)
        shown = looks[best]
        return float(self.right[rows, shown].mean()), float((shown // 4 == Z).mean()), float(taken.mean())

    def measured(self, certain: dict[str, float], prior: float, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """`chosen` with other constants: for upright shapes, and on average over all 24 ways."""
        rule.PRIOR_WEIGHT, rule.CONFIDENCE_WEIGHT = prior, confidence
        results = np.array([self.chosen(way, certain) for way in range(24)])
        return results[UPRIGHT], results.mean(axis=0)


def axes(net: PredictingNet, clouds: CloudSet, console: Console) -> None:
    """Compare rules, then constants."""
    shipped = rule.CERTAIN, rule.PRIOR_WEIGHT, rule.CONFIDENCE_WEIGHT
    lying = Lying(net, clouds)
    upright = lying.right[:, UPRIGHT].mean()
    headings = lying.right[:, UPRIGHT : UPRIGHT + 4].mean()
    table = Table("rule", "upright", "24 ways", "axis found", "looks", "looks, 24 ways", box=None)

    def row(name: str, first: np.ndarray, all_ways: np.ndarray) -> None:
        table.add_row(
            name, f"{first[0]:.1%}", f"{all_ways[0]:.1%}", f"{all_ways[1]:.1%}", f"{first[2]:.2f}", f"{all_ways[2]:.2f}"
        )

    table.add_row("the axis is given", f"{upright:.1%}", f"{headings:.1%}", "", "1", "1")
    table.add_row("z is believed", f"{upright:.1%}", f"{lying.right.mean():.1%}", f"{1 / 6:.1%}", "1", "1")
    row("all six looks, confidence alone", *lying.measured({}, 0, 1e9))
    row("all six looks, known alone", *lying.measured({}, 0, 0))
    row("all six looks, known and prior", *lying.measured({}, 1, 0))
    row("z, then all others", *lying.measured({"z": rule.CERTAIN["z"]}, *shipped[1:]))
    row("as it ships: z, then y, then the others", *lying.measured(*shipped))
    console.print(table)
    console.print("\nthe best of the grid that cost upright shapes at most 0.5 points, and 1.6 looks:")
    grid = [
        (constants, *lying.measured({"z": constants[0], "y": constants[1]}, *constants[2:])) for constants in product(*GRID)
    ]
    fine = [entry for entry in grid if entry[1][0] >= upright - 0.005 and entry[1][2] <= 1.6]
    for constants, first, all_ways in sorted(fine, key=lambda entry: -entry[2][0])[:5]:
        console.print(f"{constants}: upright {first[0]:.1%}, {first[2]:.2f} looks; 24 ways {all_ways[0]:.1%}")


def foreign(net: PredictingNet, clouds: CloudSet, training: CloudSet, console: Console) -> None:
    """Compare what tells shapes of other classes from those of the net's."""
    own = np.array([clouds.classes[label] in net.card.classes for label in clouds.labels])
    seen, learnt = answers(net, clouds.points, "shapes"), answers(net, training.points, "training shapes")
    means = np.stack([learnt.features[training.labels == label].mean(axis=0) for label in np.unique(training.labels)])
    centred = learnt.features - means[np.unique(training.labels, return_inverse=True)[1]]
    inverse = np.linalg.inv(np.cov(centred.T) + 1e-3 * np.eye(means.shape[1]) * centred.var())
    offset = seen.features[:, None] - means
    scores = {
        "known": seen.known,
        "highest class probability": log_softmax(seen.logits).max(axis=1),
        "energy: log of the sum of exp(logits)": energy(seen.logits),
        "distance of the features to the nearest class mean (Mahalanobis)": -np.einsum(
            "smf,fg,smg->sm", offset, inverse, offset, optimize=True
        ).min(axis=1),
    }
    standard = {name: (score - score[own].mean()) / score[own].std() for name, score in scores.items()}
    scores["known + energy, as it ships"] = standard["known"] + list(standard.values())[2]
    scores["known + distance"] = standard["known"] + list(standard.values())[3]
    table = Table("score", "AUROC", f"{(~own).sum()} foreign shapes flagged, of {own.sum()} own ones 5 %", box=None)
    for name, score in scores.items():
        rank = score.argsort().argsort()
        auroc = (rank[own].sum() - own.sum() * (own.sum() - 1) / 2) / (own.sum() * (~own).sum())
        table.add_row(name, f"{auroc:.3f}", f"{(score[~own] < np.quantile(score[own], 0.05)).mean():.1%}")
    console.print(table)


def main(
    weights: Annotated[str, typer.Argument(help="Weights with the output `known`.")],
    data: Annotated[Path, typer.Argument(help="An npz data set.")],
    others: Annotated[
        bool, typer.Option("--foreign", help="Measure `known` on classes that the weights do not know.")
    ] = False,
) -> None:
    """Measure how the up axis is found, or how foreign shapes are."""
    net, clouds = open_net(find_weights(weights)), load_npz(data)
    validation = clouds.subset(clouds.part("validation"))
    if not others:
        return axes(net, validation, Console())
    rows = clouds.part("training")
    own = [clouds.classes[label] in net.card.classes for label in clouds.labels[rows]]
    return foreign(net, validation, clouds.subset(rows[own]), Console())


if __name__ == "__main__":
    typer.run(main)
