"""The one training loop: Lightning underneath, a classifier from configuration to weights file."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import platform
from collections.abc import Callable
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
)
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

import pointcentroid
from pointcentroid.config import TrainConfig, to_dict
from pointcentroid.data.module import Batch, CloudData
from pointcentroid.errors import WeightsError
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.weights import WeightsCard, find_weights, load_weights, save_weights


class ClassifierTraining(lightning.LightningModule):
    """What Lightning needs to know of a classifier: its loss, its metrics, its optimiser.

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

    def on_train_start(self) -> None:
        """Compile only now: the averaged copy of the net is made before, and a compiled net cannot be copied."""
        self._compiled = torch.compile(self.net, dynamic=False) if self.config.compile else None

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss on one batch."""
        points, labels, _samples = batch
        # A compiled net is made for full batches; the odd last batch of an epoch must not make it compile again.
        net = self._compiled if self._compiled is not None and len(labels) == self.config.batch_size else self.net
        logits = net(points, ordered=True)
        loss = self.loss(logits, labels)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.log_dict({"train_loss": loss, "train_accuracy": accuracy}, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Metrics on one batch, accumulated over the whole validation set."""
        points, labels, _samples = batch
        logits = self.net(points, ordered=True)
        self.overall(logits, labels)
        self.mean_class(logits, labels)
        self.log("validation_loss", self.loss(logits, labels), batch_size=len(labels))
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


def train(config: TrainConfig) -> Path:
    """Train a classifier.

    Args:
        config: the run.

    Returns:
        Path of the finished weights, `{output}/{name}/{name}.safetensors`: the moving average after the last epoch.

    Raises:
        DataError: the data set is absent, damaged, or does not fit the configuration.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its remarks on hardware and its tips
    lightning.seed_everything(config.seed, verbose=False)
    folder = Path(config.output) / config.name
    data = CloudData(config)
    module = ClassifierTraining(config)
    if config.start:
        start_from(module.net, config.start, data.classes)
    trainer = lightning.Trainer(
        default_root_dir=folder,
        max_epochs=config.epochs,
        accelerator=config.accelerator,
        devices=config.devices,
        precision=config.precision,
        gradient_clip_val=config.clip,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        logger=CSVLogger(folder, name="", version="logs"),
        callbacks=[
            EMAWeightAveraging(decay=config.average),
            LearningRateMonitor("epoch"),
            ModelCheckpoint(folder, filename="last", enable_version_counter=False),
            RichProgressBar(console_kwargs={"stderr": True}),
        ],
    )
    trainer.fit(module, datamodule=data)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("validation_")}
    path = folder / f"{config.name}.safetensors"
    save_weights(
        path,
        module.net.state_dict(),
        WeightsCard(config.name, config.model, config.preprocess, tuple(data.classes), metrics, _provenance(config)),
    )
    return path


def start_from(net: CentroidClassifier, weights: str, classes: tuple[str, ...]) -> None:
    """Give a net the tensors of trained weights; where the classes differ, the last layer keeps its random start.

    Args:
        net: the net to change.
        weights: shipped weights by name, or a weights file.
        classes: what the net will tell apart.

    Raises:
        WeightsError: there are no such weights, or they belong to another architecture.
    """
    tensors, card = load_weights(find_weights(weights))
    if card.classes != classes:
        tensors |= {name: tensor for name, tensor in net.state_dict().items() if name.startswith("head.4.")}
    if dataclasses.replace(card.model, classes=len(classes), dropout=0.0) != dataclasses.replace(net.config, dropout=0.0):
        raise WeightsError(f"{weights} holds another architecture than the one to train: say model={weights} or alike")
    net.load_state_dict(tensors)


def _provenance(config: TrainConfig) -> dict:
    digest = hashlib.sha256(Path(config.data).read_bytes()).hexdigest()
    settings = to_dict(config) | {"data": Path(config.data).name, "output": ""}  # no path of the machine it ran on
    return {
        "config": settings,
        "data_sha256": digest,
        "versions": {
            "pointcentroid": pointcentroid.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }
