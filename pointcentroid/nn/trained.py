"""Trained nets, built without spending time on random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from pointcentroid.errors import WeightsError

Net = TypeVar("Net", bound=nn.Module)


def trained(build: Callable[[], Net], tensors: Mapping[str, Tensor]) -> Net:
    """Build a net around a state dict, ready for evaluation.

    Args:
        build: makes the net, with whatever weights.
        tensors: its state dict.

    Raises:
        WeightsError: the tensors are not those of such a net.
    """
    with torch.device("meta"):
        net = build()
    try:
        net.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"the tensors do not fit the model: {' '.join(str(error).split())[:200]}") from None
    return net.eval()
