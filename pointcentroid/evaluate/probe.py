"""What does a frozen net know of classes? A linear classifier on its features, and nothing else, is trained to find out.

Source: G. Alain, Y. Bengio, "Understanding intermediate layers using linear classifier probes", ICLR workshop 2017.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pointcentroid.data.cache import Watch
from pointcentroid.data.clouds import CloudSet
from pointcentroid.data.ordered import OrderedClouds
from pointcentroid.errors import DataError
from pointcentroid.weights import WeightsCard

DECAYS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Strengths of the penalty to choose from."""


@torch.inference_mode()
def cloud_features(net: nn.Module, clouds: OrderedClouds, watch: Watch, batch_size: int = 32) -> Tensor:
    """(S, F) features of clouds, in order, on the CPU.

    Args:
        net: one with `features`, in evaluation mode.
        clouds: what to show it.
        watch: wraps the batches, with their number, to show progress.
        batch_size: clouds at once.
    """
    device = next(net.parameters()).device
    made, batches = [], range(0, len(clouds), batch_size)
    for start in watch(batches, len(batches)):
        points, _, _ = clouds.batch(start, batch_size)
        made.append(net.features(points.to(device), ordered=True).cpu())  # type: ignore[operator]
    return torch.cat(made)


def fit_linear(features: Tensor, labels: Tensor, classes: int, decay: float) -> nn.Linear:
    """Multinomial logistic regression: the minimum of a convex cost, found by L-BFGS from zero.

    Args:
        features: (S, F), each of about unit spread.
        labels: (S,) int64.
        classes: how many.
        decay: the penalty, times the sum of squares of the weights.
    """
    linear = nn.Linear(features.shape[1], classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    optimiser = torch.optim.LBFGS(linear.parameters(), max_iter=200, history_size=10, line_search_fn="strong_wolfe")

    def cost() -> Tensor:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(linear(features), labels) + decay * linear.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(cost)  # type: ignore[arg-type]
    return linear


def chosen_linear(features: Tensor, labels: Tensor, classes: int) -> nn.Linear:
    """As `fit_linear`, with the penalty that is right most often for a fifth of the shapes, seeded, held out meanwhile.

    Args:
        features: (S, F), each of about unit spread.
        labels: (S,) int64.
        classes: how many.
    """
    held_out = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)) % 5 == 0)

    def score(decay: float) -> float:
        linear = fit_linear(features[~held_out], labels[~held_out], classes, decay)
        return float((linear(features[held_out]).argmax(dim=1) == labels[held_out]).double().mean())

    return fit_linear(features, labels, classes, max(DECAYS, key=score))


def linear_probe(features: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """Classify by a linear probe.

    Features are standardised by the training shapes' mean and spread, and cut at eight of them.

    Args:
        features: (S, F) of the training shapes.
        labels: (S,) int64.
        others: (T, F) of the shapes to classify.

    Returns:
        (T,) int64.
    """
    mean, spread = features.mean(dim=0), features.std(dim=0).clamp_min(1e-6)
    features, others = (((x - mean) / spread).clamp(-8, 8) for x in (features, others))
    return chosen_linear(features, labels, int(labels.max()) + 1)(others).argmax(dim=1)


def training_apart(clouds: CloudSet, rows: np.ndarray) -> np.ndarray:
    """The shapes that a probe is trained on: those of the training part that it is not scored on.

    Args:
        clouds: the data set.
        rows: which shapes it is scored on.

    Raises:
        DataError: there are fewer than two, of which one is held out.
    """
    training = np.setdiff1d(clouds.part("training"), rows)
    if not len(training):
        raise DataError("a probe is trained on the training part, and all of it is to be scored on; try --split validation")
    if len(training) == 1:
        raise DataError("a probe needs two shapes of the training part; there is one")
    return training


def probe(
    net: nn.Module, card: WeightsCard, clouds: CloudSet, training: np.ndarray, rows: np.ndarray, watch: Watch
) -> dict[str, Any]:
    """Train a linear probe on shapes of a data set, and score it on others.

    Args:
        net: one with `features`, in evaluation mode.
        card: of its weights.
        clouds: the data set.
        training: which shapes to train it on, see `training_apart`.
        rows: which shapes to score it on.
        watch: wraps batches, with their number, to show progress.

    Returns:
        `probe_features`, how many there are, and the accuracies `probe_overall_accuracy`, `probe_mean_class_accuracy`.
    """
    seen = card.preprocess.points
    made = [cloud_features(net, OrderedClouds(clouds, part, card.model.seeds, seen), watch) for part in (training, rows)]
    truth = clouds.labels[rows]
    right = linear_probe(made[0], torch.from_numpy(clouds.labels[training]), made[1]).numpy() == truth
    return {
        "probe_features": made[0].shape[1],
        "probe_overall_accuracy": float(right.mean()),
        "probe_mean_class_accuracy": float(np.mean([right[truth == label].mean() for label in np.unique(truth)])),
    }
