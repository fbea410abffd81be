"""What Lightning needs to know of a classifier: its loss, its metrics, its optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from pointcentroid.config import TrainConfig, to_dict
from pointcentroid.data.ordered import Batch
from pointcentroid.errors import TrainingError
from pointcentroid.nn.classifier import CentroidClassifier

_CHECK_EVERY = 20  # steps between two looks at whether the loss is a number; each look waits for the device


class ClassifierTraining(lightning.LightningModule):
    """A classifier in training.

    Args:
        config: the run.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.net = CentroidClassifier(config.model)
        self.loss = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
        self.overall = MulticlassAccuracy(config.model.classes, average="micro")
        self.mean_class = MulticlassAccuracy(config.model.classes, average="macro")
        self._compiled: Callable[..., Tensor] | None = None

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """A checkpoint says which run it belongs to."""
        checkpoint["config"] = to_dict(self.config)

    def on_train_start(self) -> None:
        """Compile only now: the averaged copy of the net is made before, and a compiled net cannot be copied."""
        self._compiled = torch.compile(self.net, dynamic=False) if self.config.compile else None

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """Loss on one batch, or on one process's share of it."""
        points, labels, _samples = batch
        # What layers draw (dropout, random seeds) comes from here, too: a resumed run draws the same.
        key = (self.config.seed, self.current_epoch, number, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))
        # A compiled net is made for full batches; the odd last batch of an epoch must not make it compile again.
        net = self._compiled if self._compiled is not None and len(labels) == self._share else self.net
        logits = net(points, ordered=True)
        loss = self.loss(logits, labels)
        if number % _CHECK_EVERY == 0 and not loss.isfinite():
            raise TrainingError(
                f"the loss is {loss.item()} in epoch {self.current_epoch + 1}: lower learning_rate "
                f"(now {self.config.learning_rate}), or use precision=32-true"
            )
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        values = {"train_loss": loss, "train_accuracy": accuracy}
        self.log_dict(values, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(labels))
        return loss * self._weight(len(labels), number)

    @property
    def _share(self) -> int:
        return self.config.batch_size // self.trainer.world_size

    def _weight(self, size: int, number: int) -> float:
        """Processes' gradients are averaged; where shares of the last batch differ in size, each counts by its size."""
        data = self.trainer.datamodule.training  # type: ignore[attr-defined]
        batch = min(self.config.batch_size, len(data) - number * self.config.batch_size)
        return size * self.trainer.world_size / batch

    def validation_step(self, batch: Batch, _: int) -> None:
        """Metrics on one batch, accumulated over the whole validation set."""
        points, labels, _samples = batch
        logits = self.net(points, ordered=True)
        self.overall(logits, labels)
        self.mean_class(logits, labels)
        self.log("validation_loss", self.loss(logits, labels), batch_size=len(labels), sync_dist=True)
        self.log("validation_overall", self.overall, prog_bar=True)
        self.log("validation_mean_class", self.mean_class)

    def configure_optimizers(self):
        """AdamW without decay on vectors (biases, norms, step sizes); linear warm-up, then a cosine to zero."""
        config = self.config
        decayed = [p for p in self.net.parameters() if p.ndim >= 2]
        others = [p for p in self.net.parameters() if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=config.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, round(config.warmup * steps))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
