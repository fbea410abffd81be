"""Steps from where the loss is highest nearby, towards weights around which it is low everywhere.

Sharpness-aware minimisation, after P. Foret et al., "Sharpness-aware minimization for efficiently improving generalization",
ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class SharpnessAware(torch.optim.AdamW):
    """AdamW whose gradient is that of the point, within a radius of the weights, where the loss seems highest.

    A step computes the loss of its batch twice; what is logged of it is the mean of both.

    Args:
        groups: parameters, as for AdamW.
        learning_rate: of the step.
        net: whose they are; its layers with moving averages, such as batch norms, count only what the weights themselves
            have seen.
        radius: of the neighbourhood, in the norm of all weights together.
    """

    def __init__(self, groups: list[dict[str, Any]], learning_rate: float, net: nn.Module, radius: float) -> None:
        super().__init__(groups, lr=learning_rate)
        self.radius = radius
        self._norms: list[Any] = [module for module in net.modules() if hasattr(module, "momentum")]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Learn.

        Args:
            closure: computes the loss and its gradient, and returns the loss.
        """
        assert closure is not None, "the gradient is asked for twice"
        evaluated = torch.enable_grad()(closure)
        loss = evaluated()
        weights = [weight for group in self.param_groups for weight in group["params"] if weight.grad is not None]
        norm = torch.stack([weight.grad.norm() for weight in weights]).norm()
        moves = [weight.grad * (self.radius / (norm + 1e-12)) for weight in weights]
        for weight, move in zip(weights, moves, strict=True):
            weight.add_(move)
        momenta = [module.momentum for module in self._norms]
        for module in self._norms:
            module.momentum = 0.0
        evaluated()
        for module, momentum in zip(self._norms, momenta, strict=True):
            module.momentum = momentum
        for weight, move in zip(weights, moves, strict=True):
            weight.sub_(move)
        super().step()
        return loss
