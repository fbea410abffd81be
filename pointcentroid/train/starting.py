"""What a training starts from: trained weights, for the same classes or for others."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from pointcentroid.config import CapsuleAutoencoderConfig, ClassifierConfig, ModelConfig, TrainConfig
from pointcentroid.data.ordered import Clouds
from pointcentroid.errors import WeightsError
from pointcentroid.evaluate.probe import chosen_linear
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.weights import find_weights, load_weights

_FITTED = 4096  # clouds at most that a last layer is fitted to


def start_from(net: nn.Module, config: TrainConfig, classes: tuple[str, ...], clouds: Clouds | None = None) -> None:
    """Give a net the tensors of trained weights.

    Where the classes differ, in more than their order, the last layer starts as what tells the training clouds apart best
    while all else stays (Kumar et al., "Fine-tuning can distort pretrained features and underperform out-of-distribution",
    ICLR 2022); where the weights are of another kind of net with the same encoder, such as an autoencoder for a classifier,
    everything but the encoder keeps its random start.

    Args:
        net: the net to change.
        config: the run; `start` names the weights.
        classes: what a classifier will tell apart.
        clouds: those to train on; without, a last layer for other classes keeps its random start.

    Raises:
        WeightsError: there are no such weights, or they belong to another architecture.
    """
    tensors, card = load_weights(find_weights(config.start))
    same = True
    holds, wanted = _as_trained(card.model), _as_trained(config.model)
    if holds.kind != wanted.kind and getattr(holds, "encoder", None) == getattr(wanted, "encoder", ""):
        holds, trained = wanted, {name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
        tensors = {name: own for name, own in net.state_dict().items() if not name.startswith("encoder.")} | trained
    elif isinstance(holds, ClassifierConfig) and isinstance(wanted, ClassifierConfig):
        holds = dataclasses.replace(holds, classes=wanted.classes)
        if isinstance(net, CentroidClassifier):
            same = sorted(card.classes) == sorted(classes)
            tensors |= _reordered(net, tensors, card.classes, classes) if same else _own_last(net)
    if holds != wanted:
        raise WeightsError(
            f"{config.start} holds another architecture than model: leave model out to train the one it holds"
        )
    net.load_state_dict(tensors)
    if isinstance(net, CentroidClassifier) and not same and clouds is not None:
        _fit_last(net, clouds)


def _own_last(net: CentroidClassifier) -> dict[str, Tensor]:
    """The tensors of its last layer, as they are."""
    return {name: tensor for name, tensor in net.state_dict().items() if name.startswith(net.last)}


def _reordered(
    net: CentroidClassifier, tensors: dict[str, Tensor], before: tuple[str, ...], after: tuple[str, ...]
) -> dict[str, Tensor]:
    """The trained tensors of its last layer, in the order of the new classes."""
    rows = [before.index(name) for name in after]
    return {name: torch.cat([tensors[name][rows], tensors[name][len(rows) :]]) for name in _own_last(net) if name in tensors}


def _fit_last(net: CentroidClassifier, clouds: Clouds) -> None:
    """Fit the last layer to clouds as they are, with all else of the net as it is."""
    training = net.training
    net.eval()
    count = min(len(clouds), _FITTED)
    rows = np.linspace(0, len(clouds) - 1, count).round().astype(int).tolist()
    read, labels = [], []
    with torch.no_grad():
        for start in range(0, count, 32):
            points, truth, _ = clouds.__getitems__(rows[start : start + 32])
            read.append(net.head[:-1](net.features(points, ordered=True)))
            labels.append(truth)
    inputs = torch.cat(read)
    spread = inputs.std().clamp_min(1e-6)  # one for all: what hardly differs here may differ in varied clouds
    fitted = chosen_linear(inputs / spread, torch.cat(labels), net.config.classes)
    last = net.head[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight[: net.config.classes] = fitted.weight / spread
        last.bias[: net.config.classes] = fitted.bias
    net.train(training)


def _as_trained(model: ModelConfig) -> ModelConfig:
    """A configuration without what may change from one training to the next: dropout and stochastic depth."""
    if isinstance(model, CapsuleAutoencoderConfig):
        return model
    model = dataclasses.replace(model, encoder=dataclasses.replace(model.encoder, drop_path=0.0))
    return dataclasses.replace(model, dropout=0.0) if isinstance(model, ClassifierConfig) else model
