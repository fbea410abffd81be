"""What all nets share: a configuration, and how they are built around trained tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from pointcentroid.config import ModelConfig
from pointcentroid.errors import WeightsError, one_line
from pointcentroid.nn.norm import fold

Config = TypeVar("Config", bound=ModelConfig)


class Net(nn.Module, Generic[Config]):
    """A net that is built from a configuration.

    Args:
        config: sizes and options.
    """

    configured_by: ClassVar[type]
    """The configurations that it is built from."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_tensors(cls, config: ModelConfig, tensors: Mapping[str, Tensor]) -> Self:
        """Build a trained net, ready for evaluation, without spending time on random weights.

        Batch norms are folded.

        Args:
            config: sizes and options.
            tensors: a state dict.

        Raises:
            WeightsError: the tensors are not those of this configuration, or it is of another kind of net.
        """
        if not isinstance(config, cls.configured_by):
            raise WeightsError(f"these weights are of the kind {config.kind!r}, not {cls.configured_by.kind!r}")
        try:
            with torch.device("meta"):
                net = cls(config)  # type: ignore[arg-type]
            net.load_state_dict(tensors, assign=True)
        except (RuntimeError, ValueError) as error:
            raise WeightsError(f"the tensors do not fit the model: {one_line(error, 200)}") from None
        fold(net)
        return net.eval()
