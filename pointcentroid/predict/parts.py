"""Shapes seen as parts: one net finds them, another says what the shape is and which way is up."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pointcentroid.errors import ConfigError
from pointcentroid.predict.predictor import Predictor
from pointcentroid.predict.runtimes import Runtime
from pointcentroid.weights import STAND_IN, find_weights

if TYPE_CHECKING:
    from torch import Tensor

    from pointcentroid.nn.encoder import StageOutput
    from pointcentroid.predict.torch_net import Abstraction

_SAMPLINGS = 6  # of a surface that parts are found in


class PartsPredictor(Predictor):
    """A classifier whose explanations show the centroids of a net of parts, see `pointcentroid.nn.parts`.

    Args:
        weights: the name of shipped weights of parts, or a file of them.
        device: see `Predictor`; of both nets.
        runtime: see `Predictor`; of the classifier.
        classifier: the name of its shipped weights, or a file of them.
        changes: none can be made.

    Raises:
        WeightsError: there are no such weights, or they are damaged.
        ConfigError: there is no such device, or there are changes.
    """

    def __init__(
        self,
        weights: str | Path = "parts",
        device: str = "auto",
        *,
        runtime: Runtime = "auto",
        classifier: str | Path = STAND_IN,
        **changes: Any,
    ) -> None:
        if changes:
            raise ConfigError(f"the encoder of {weights} cannot be changed: {next(iter(changes))} is for classifiers")
        super().__init__(classifier, device, runtime=runtime)
        self._parts = find_weights(weights)

    @cached_property
    def abstraction(self) -> Abstraction:
        """See `Predictor.abstraction`."""
        from pointcentroid.nn.parts import PartsNet
        from pointcentroid.predict.torch_net import Abstraction, choose_device
        from pointcentroid.weights import load_weights

        tensors, card = load_weights(self._parts)
        device = choose_device(self.device)
        net = PartsNet.from_tensors(card.model, tensors).to(device)

        def see(clouds: Tensor) -> list[StageOutput]:
            first, *others = clouds.split(1)
            return net(first, ordered=True, assignments=True, others=others)

        return Abstraction(see, card, device, _SAMPLINGS)
