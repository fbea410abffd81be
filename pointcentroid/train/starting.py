"""What a training starts from: trained weights, for the same classes or for others."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from pointcentroid.config import CapsuleAutoencoderConfig, ClassifierConfig, ModelConfig, TrainConfig
from pointcentroid.errors import WeightsError
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.weights import find_weights, load_weights


def start_from(net: nn.Module, config: TrainConfig, classes: tuple[str, ...]) -> None:
    """Give a net the tensors of trained weights.

    Where the classes differ, in more than their order, the last layer keeps its random start (fitting it, or the whole head,
    to the shapes first made the end no better: docs/ablations.md); where the weights are of another kind of net with the
    same encoder, such as an autoencoder for a classifier, everything but the encoder does.

    Args:
        net: the net to change.
        config: the run; `start` names the weights.
        classes: what a classifier will tell apart.

    Raises:
        WeightsError: there are no such weights, or they belong to another architecture.
    """
    tensors, card = load_weights(find_weights(config.start))
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


def _own_last(net: CentroidClassifier) -> dict[str, Tensor]:
    """The tensors of its last layer, as they are."""
    return {name: tensor for name, tensor in net.state_dict().items() if name.startswith(net.last)}


def _reordered(
    net: CentroidClassifier, tensors: dict[str, Tensor], before: tuple[str, ...], after: tuple[str, ...]
) -> dict[str, Tensor]:
    """The trained tensors of its last layer, in the order of the new classes."""
    rows = [before.index(name) for name in after]
    return {name: torch.cat([tensors[name][rows], tensors[name][len(rows) :]]) for name in _own_last(net) if name in tensors}


def _as_trained(model: ModelConfig) -> ModelConfig:
    """A configuration without what may change from one training to the next: dropout and stochastic depth."""
    if isinstance(model, CapsuleAutoencoderConfig):
        return model
    model = dataclasses.replace(model, encoder=dataclasses.replace(model.encoder, drop_path=0.0))
    return dataclasses.replace(model, dropout=0.0) if isinstance(model, ClassifierConfig) else model
