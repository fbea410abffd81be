"""Make confidence mean what it says: temperature scaling, and how far off it is.

Source: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural networks", ICML 2017: probabilities are
softmax(logits / T), with the one number T fitted on shapes that were not trained on. Labels never change, only confidences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pointcentroid.data.clouds import unknown_class
from pointcentroid.data.ordered import Clouds
from pointcentroid.errors import DataError
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.weights import KnownScale, WeightsCard

BINS = 15
_FOLDS = 5
FEWEST = 50
FEWEST_WRONG = 5
"""Validation shapes that a temperature can be fitted on, and how many of them the net must get wrong: one that makes no
mistakes has no reason to be less than certain."""
KNOWN_SHARE = 0.95
"""Share of the validation shapes whose `known` is above one half."""
ENERGY_WEIGHT = 4.0
"""What the energy of the logits counts beside the output `known`; docs/orientation.md says why."""


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature at which labels are most likely.

    Args:
        logits: (S, C).
        labels: (S,) int64.

    Returns:
        T in [0.05, 20], the minimum of the cross entropy (which has one, being convex in 1 / T), by golden-section search
        to 1e-4 of log T.
    """
    logits, labels = logits.double(), labels.long()

    def cost(log_temperature: float) -> float:
        return torch.nn.functional.cross_entropy(logits / np.exp(log_temperature), labels).item()

    low, high = np.log(0.05), np.log(20.0)
    ratio = (np.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if cost(left) < cost(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def fit_known(logits: Tensor, known: Tensor) -> KnownScale:
    """Add `ENERGY_WEIGHT` times the energy to the output `known`, and put the threshold where `KNOWN_SHARE` pass it.

    Args:
        logits: (S, C) of shapes of the classes.
        known: (S,) of the same shapes.
    """
    score = known.double() + ENERGY_WEIGHT * logits.double().logsumexp(dim=1)
    return KnownScale(ENERGY_WEIGHT, float(score.quantile(1 - KNOWN_SHARE)))


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """(S,) confidences in [0, 1] -> (S,) which of `BINS` bins of equal width each one falls into."""
    return np.minimum((confidence * BINS).astype(int), BINS - 1)


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error: the mean distance of confidence from accuracy, over `BINS` bins of equal width.

    Args:
        confidence: (S,) in [0, 1].
        correct: (S,) bool.
    """
    sums = np.bincount(bin_of(confidence), confidence - correct, minlength=BINS)
    return float(np.abs(sums).sum() / len(confidence))


def bootstrap_interval(confidence: np.ndarray, correct: np.ndarray, draws: int = 1000) -> tuple[float, float]:
    """Where 95 % of `calibration_error` over resampled shapes lie, seeded.

    How much it depends on the choice of shapes: as fewer make every such error larger, it holds the true one too seldom.
    """
    rng, count = np.random.default_rng(0), len(confidence)
    drawn = (rng.integers(count, size=count) for _ in range(draws))
    errors = [calibration_error(confidence[rows], correct[rows]) for rows in drawn]
    low, high = np.quantile(errors, (0.025, 0.975))
    return float(low), float(high)


def cross_fitted(logits: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of each shape under a temperature fitted on other shapes: five folds, seeded.

    Args:
        logits: (S, C).
        labels: (S,) int64.

    Returns:
        (S,) confidences and (S,) bools, whether the most probable class was right.
    """
    fold = np.random.default_rng(0).permutation(len(labels)) % _FOLDS
    confidence = np.zeros(len(labels))
    for number in range(_FOLDS):
        inside, outside = torch.from_numpy(fold == number), torch.from_numpy(fold != number)
        temperature = fit_temperature(logits[outside], labels[outside])
        confidence[fold == number] = (logits[inside].double() / temperature).softmax(dim=1).amax(dim=1).numpy()
    return confidence, (logits.argmax(dim=1) == labels).numpy()


@torch.inference_mode()
def validation_scores(net: CentroidClassifier, clouds: Clouds) -> tuple[Tensor, Tensor | None, Tensor]:
    """(S, C) logits, (S,) logits of `known` where the net has that output, and (S,) labels of clouds, in order."""
    logits, known, labels = [], [], []
    for start in range(0, len(clouds), 32):
        points, truth, _ = clouds.batch(start, 32)
        scores = net.scores(points, ordered=True)
        logits.append(scores.logits)
        known.append(scores.known)
        labels.append(truth)
    return torch.cat(logits), torch.cat(known) if net.config.known else None, torch.cat(labels)


def calibrated(net: CentroidClassifier, card: WeightsCard, classes: Sequence[str], clouds: Clouds) -> WeightsCard:
    """The card with temperature and threshold of `known` fitted on validation clouds, and the calibration error left.

    The error in the card is cross-fitted: each shape's confidence comes from a temperature fitted without it.

    Args:
        net: in evaluation mode, on the CPU.
        card: of the net.
        classes: what the labels of the clouds mean.
        clouds: validation clouds.

    Raises:
        DataError: a class of the clouds is unknown to the net, or there are too few clouds, or too few wrong answers.
    """
    if len(clouds) < FEWEST:
        raise DataError(f"{len(clouds)} validation shapes are too few to calibrate on; at least {FEWEST} are needed")
    unknown = [name for name in classes if name not in card.classes]
    if unknown:
        raise unknown_class(unknown[0], card.classes)
    logits, known, labels = validation_scores(net, clouds)
    labels = torch.tensor([card.classes.index(name) for name in classes])[labels]
    wrong = int((logits.argmax(dim=1) != labels).sum())
    if wrong < FEWEST_WRONG:
        raise DataError(f"{wrong} wrong answers are too few to calibrate on; at least {FEWEST_WRONG} are needed")
    confidence, correct = cross_fitted(logits, labels)
    metrics = card.metrics | {
        "validation_ece": calibration_error(confidence, correct),
        "validation_ece_interval": list(bootstrap_interval(confidence, correct)),
    }
    temperature, scale = fit_temperature(logits, labels), card.known if known is None else fit_known(logits, known)
    return dataclasses.replace(card, temperature=temperature, known=scale, metrics=metrics)
