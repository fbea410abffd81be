"""Several classifiers of one architecture as one net, channels beside channels: one computation serves all of them.

What acts on each channel by itself, or on whole rows (norms, pooling, neighbours), does so whatever net a channel belongs
to. Only linear layers, and what is drawn for a net as a whole, must know of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pointcentroid.config import ClassifierConfig
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.nn.local import DropPath
from pointcentroid.nn.norm import BatchNorm


class StackedLinear(nn.Module):
    """Linear layers of S nets, whose channels lie beside each other, net by net.

    Args:
        layers: one a net.
        parts: the input consists of so many parts, in each of which the nets lie beside each other.
    """

    def __init__(self, layers: list[nn.Linear], parts: int = 1) -> None:
        super().__init__()
        self.count, self.parts = len(layers), parts
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        biased = layers[0].bias is not None
        self.bias = nn.Parameter(torch.cat([layer.bias.detach() for layer in layers])) if biased else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., S C) -> (..., S C')."""
        rows = x.reshape(-1, self.parts, self.count, self.weight.shape[2] // self.parts)
        rows = rows.permute(2, 0, 1, 3).flatten(2)  # S rows C
        if self.bias is None:
            made = torch.bmm(rows, self.weight.transpose(1, 2))
        else:
            made = torch.baddbmm(self.bias.view(self.count, 1, -1), rows, self.weight.transpose(1, 2))
        return made.transpose(0, 1).reshape(*x.shape[:-1], -1)


class SharedDrop(nn.Module):
    """`DropPath` for S nets, by random numbers that are drawn once a step for all blocks.

    Args:
        masks: holds (blocks, B, S) factors.
        number: of the block.
    """

    def __init__(self, masks: list[Tensor], number: int) -> None:
        super().__init__()
        self.masks, self.number = masks, number

    def forward(self, branch: Tensor) -> Tensor:
        """(B, M, S C) -> (B, M, S C)."""
        factor = self.masks[0][self.number].unsqueeze(1).unsqueeze(3)
        return (branch.unflatten(2, (factor.shape[2], -1)) * factor).flatten(2)


class Stack(nn.Module):
    """S nets of one architecture, without attention, as one; for training.

    Args:
        nets: freshly made.

    Raises:
        ValueError: they attend: heads and queries would have to know of the nets too.
    """

    def __init__(self, nets: list[CentroidClassifier]) -> None:
        super().__init__()
        self.count, self.config = len(nets), nets[0].config
        encoder = self.config.encoder
        if encoder.steps or encoder.norm != "batch" or any(stage.blocks for stage in encoder.stages):
            raise ValueError("only nets without attention, with batch norms, can be stacked")
        self.template = CentroidClassifier(_times(self.config, self.count))
        self.masks: list[Tensor] = []
        self.blocks = 0
        first = next(
            name for name, part in self.template.named_modules() if name.startswith("head") and isinstance(part, nn.Linear)
        )
        for name, module in list(self.template.named_modules()):
            own = [net.get_submodule(name) for net in nets]
            if isinstance(module, nn.Linear) and module.in_features != 3:
                layers = [layer for layer in own if isinstance(layer, nn.Linear)]
                halves = name == first  # it sees the largest and the mean
                self._replace(name, StackedLinear(layers, 2 if halves else 1))
            elif isinstance(module, nn.Linear | BatchNorm):  # coordinates are the same for all nets
                for key, _ in module.named_parameters(recurse=False):
                    setattr(module, key, nn.Parameter(torch.cat([getattr(other, key).detach() for other in own])))
                if isinstance(module, BatchNorm):
                    module.num_batches_tracked = None  # nothing needs it, and it is a kernel a layer
            elif isinstance(module, DropPath):
                self._replace(name, SharedDrop(self.masks, self.blocks))
                self.blocks += 1

    def _replace(self, name: str, module: nn.Module) -> None:
        parent, _, child = name.rpartition(".")
        setattr(self.template.get_submodule(parent), child, module)

    def forward(self, points: Tensor, lists: Mapping[tuple[int, int], Tensor]) -> tuple[Tensor, Tensor | None]:
        """Score the classes, net by net.

        Args:
            points: (B, N, 3) clouds in farthest-point order.
            lists: of neighbours, see `pointcentroid.nn.encoder.CentroidEncoder.forward`.

        Returns:
            (B, S, classes) logits, and (B, S) logits of `known` where the nets have that output.
        """
        share = self.config.encoder.drop_path
        kept = torch.rand(max(1, self.blocks), len(points), self.count, device=points.device) >= share
        self.masks[:] = [kept.float() / (1 - share)]
        features = self.template.features(points, ordered=True, lists=lists)
        scores = self.template.head(features).view(len(points), self.count, -1)
        classes = self.config.classes
        return scores[:, :, :classes], scores[:, :, classes] if self.config.known else None

    def apart(self) -> list[dict[str, Tensor]]:
        """State dicts of the nets, of the present weights."""
        like, held = CentroidClassifier(self.config).state_dict(), self.template.state_dict()
        return [
            {
                name: held[name].view(self.count, *tensor.shape)[number].clone() if name in held else tensor
                for name, tensor in like.items()
            }
            for number in range(self.count)
        ]


def _times(config: ClassifierConfig, count: int) -> ClassifierConfig:
    """So many times as wide."""
    encoder = config.encoder
    stages = tuple(dataclasses.replace(stage, dim=count * stage.dim) for stage in encoder.stages)
    wide = dataclasses.replace(encoder, stages=stages, relative=count * encoder.relative, embed=count * encoder.embed)
    return dataclasses.replace(config, encoder=wide, hidden=count * config.hidden)
