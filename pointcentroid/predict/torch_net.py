"""A net in torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pointcentroid.config import ClassifierConfig, EncoderConfig, from_dict, to_dict
from pointcentroid.errors import ConfigError, one_line
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.nn.encoder import StageOutput
from pointcentroid.predict.nets import Answer, Lists, neighbour_lists
from pointcentroid.weights import WeightsCard, load_weights


def choose_device(name: str) -> torch.device:
    """Turn `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"` ... into a device that is there.

    Raises:
        ConfigError: the device does not exist on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError, TypeError) as error:
        raise ConfigError(f"no device {name!r} on this machine ({one_line(error)})") from None
    return device


class Abstraction(NamedTuple):
    """A net that takes points to centroids, to be looked at.

    Attributes:
        see: (K, N, 3) samplings of a surface, on the net's device -> the stages of the first, with assignments.
        card: of the weights it is of.
        device: where it is.
        samplings: K.
    """

    see: Callable[[Tensor], list[StageOutput]]
    card: WeightsCard
    device: torch.device
    samplings: int = 1


class TorchNet:
    """A classifier of a weights file.

    Args:
        weights: the file.
        device: see `choose_device`.
        changes: fields of `EncoderConfig` to change in the trained net.

    Raises:
        WeightsError: the weights are damaged, or have no tensors for the changed net.
        ConfigError: there is no such device, or a change is unknown or out of range.
    """

    def __init__(self, weights: Path, device: str = "auto", **changes: Any) -> None:
        self.device = choose_device(device)
        tensors, self.card = load_weights(weights)
        if changes and isinstance(self.card.model, ClassifierConfig):
            encoder = from_dict(EncoderConfig, to_dict(self.card.model.encoder) | changes, "encoder")
            self.card = dataclasses.replace(self.card, model=dataclasses.replace(self.card.model, encoder=encoder))
        self.module = CentroidClassifier.from_tensors(self.card.model, tensors).to(self.device)

    @property
    def feature_dim(self) -> int:
        """Channels of the global feature."""
        return self.module.feature_dim

    @torch.inference_mode()
    def __call__(self, clouds: np.ndarray, lists: Lists | None = None) -> Answer:
        """See `pointcentroid.predict.nets.PredictingNet`."""
        given = {name: torch.from_numpy(values).to(self.device) for name, values in (lists or {}).items()}
        points = torch.from_numpy(np.ascontiguousarray(clouds)).to(self.device)
        made = self.module.scores(points, ordered=True, lists=given)
        known = np.full(len(clouds), np.nan, np.float32) if made.known is None else made.known.cpu().numpy()
        return Answer(made.logits.cpu().numpy(), made.features.cpu().numpy(), known)

    def neighbours(self, clouds: np.ndarray) -> Lists:
        """See `pointcentroid.predict.nets.PredictingNet`."""
        return neighbour_lists(clouds, self.card)
