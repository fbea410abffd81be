"""What Lightning needs to know of a net: its loss, its metrics, its optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.utilities import dim_zero_cat

from pointcentroid.config import ClassifierConfig, TrainConfig, to_dict
from pointcentroid.data.augment import CounterRandom
from pointcentroid.data.clouds import FOREIGN
from pointcentroid.data.ordered import Batch
from pointcentroid.errors import TrainingError
from pointcentroid.evaluate.fidelity import half_distances, halves
from pointcentroid.geometry.chamfer import chamfer_distance
from pointcentroid.models import net_class
from pointcentroid.nn.autoencoder import CentroidAutoencoder
from pointcentroid.nn.capsules import CapsuleAutoencoder
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.nn.initialisers import LearnedSeeds
from pointcentroid.train.recipe import Heritage, heritage
from pointcentroid.train.sharpness import SharpnessAware

_CHECK_EVERY = 20  # steps between two looks at whether the loss is a number; each look waits for the device


class NetTraining(lightning.LightningModule):
    """What all trainings share.

    Args:
        config: the run.

    Attributes:
        inherited: what the weights that it begins with or learns from have seen.
    """

    headline: ClassVar[str]  # the measure that says which epoch is best
    better: ClassVar[str]  # "max" or "min"

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config, self.net = config, net_class(config.model)(config.model)
        self.inherited: Heritage = heritage([])
        self._compiled: Callable[..., Any] | None = None

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """A checkpoint says which run it belongs to."""
        checkpoint["config"], checkpoint["inherited"] = to_dict(self.config), self.inherited
        checkpoint["data"] = self.trainer.datamodule.fingerprint  # type: ignore[attr-defined]

    def on_train_start(self) -> None:
        """Compile only now: the averaged copy of the net is made before, and a compiled net cannot be copied."""
        self._compiled = torch.compile(self.called, dynamic=False) if self.config.compile else None

    @property
    def called(self) -> Callable[..., Any]:
        """What a training step asks of the net."""
        return self.net

    def on_train_epoch_end(self) -> None:
        """Look at the loss once more.

        Raises:
            TrainingError: it is no longer a number.
        """
        self._check_number(self.trainer.callback_metrics["train_loss"])

    def _check_number(self, loss: Tensor) -> None:
        if not loss.isfinite():
            raise TrainingError(
                f"the loss is {loss.item()} in epoch {self.current_epoch + 1}: lower learning_rate "
                f"(now {self.config.learning_rate}), or use precision=32-true"
            )

    def run_net(self, *arguments: object, size: int, **options: object) -> Any:
        """Call the net; a compiled one is made for full batches, the odd last batch must not make it compile again."""
        compiled = self._compiled is not None and size == self.config.batch_size // self.trainer.world_size
        return (self._compiled if compiled else self.called)(*arguments, **options)  # type: ignore[misc]

    def seed_layers(self, number: int) -> None:
        """Fix what layers draw (dropout, random seeds) in a step: a resumed run draws the same."""
        key = (self.config.seed, self.current_epoch, number, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))

    def checked(self, loss: Tensor, size: int, number: int) -> Tensor:
        """The loss of a step, weighted by the share of the batch that it is of.

        Processes' gradients are averaged; where shares of the last batch differ in size, each must count by its size.

        Raises:
            TrainingError: it is no longer a number.
        """
        if number % _CHECK_EVERY == 0:
            self._check_number(loss)
        data = self.trainer.datamodule.training  # type: ignore[attr-defined]
        batch = min(self.config.batch_size, len(data) - number * self.config.batch_size)
        return loss * (size * self.trainer.world_size / batch)

    def configure_optimizers(self):
        """AdamW without decay on vectors (biases, norms, step sizes); linear warm-up, then a cosine to zero."""
        config, groups = self.config, decayed(self.net, self.config.weight_decay)
        if config.sharpness:
            optimiser = SharpnessAware(groups, config.learning_rate, self.net, config.sharpness)
        else:
            optimiser = torch.optim.AdamW(groups, lr=config.learning_rate)
        factor = warm_cosine(int(self.trainer.estimated_stepping_batches), config.warmup)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def decayed(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of an optimiser: matrices decay; vectors (biases, norms, step sizes) and learnt positions do not."""
    places = {id(seeds.positions) for seeds in net.modules() if isinstance(seeds, LearnedSeeds)}
    matrices = [p for p in net.parameters() if p.ndim >= 2 and id(p) not in places]
    others = [p for p in net.parameters() if p.ndim < 2 or id(p) in places]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def warm_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    """The factor of the learning rate at each of `steps` steps: up a line for a share `warmup` of them, down a cosine."""
    rising = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return factor


class MeanClassAccuracy(MulticlassAccuracy):
    """The mean over the classes that occur, as `evaluate` reports it: that of torchmetrics counts a class that does not, but
    was answered, as one that is always wrong."""

    def compute(self) -> Tensor:
        """The mean so far."""
        right, wrong = dim_zero_cat(self.tp), dim_zero_cat(self.fn)
        return (right / (right + wrong))[right + wrong > 0].mean()


class ClassifierTraining(NetTraining):
    """A classifier in training: cross entropy with smoothed labels, and of `known` where the net has that output.

    With teachers, part of the loss is the cross entropy with the mean of their answers to the same varied cloud (after
    L. Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022).

    Args:
        config: the run; its `model` is a `ClassifierConfig`.
        teachers: trained nets that tell the same classes apart, in evaluation mode.
    """

    headline, better = "validation_overall", "max"
    net: CentroidClassifier

    def __init__(self, config: TrainConfig, teachers: Sequence[CentroidClassifier] = ()) -> None:
        assert isinstance(config.model, ClassifierConfig)
        super().__init__(config)
        self.teachers = tuple(teachers)  # in a tuple they are no part of this module: they are neither trained nor saved
        self.loss = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing, ignore_index=FOREIGN, reduction="none")
        self.overall = MulticlassAccuracy(config.model.classes, average="micro")
        self.mean_class = MeanClassAccuracy(config.model.classes, average="macro")

    @property
    def called(self) -> Callable[..., Any]:
        """See `NetTraining.called`."""
        return self.net.scores

    def on_train_start(self) -> None:
        """Teachers go where the net is."""
        super().on_train_start()
        for teacher in self.teachers:
            teacher.to(self.device)

    @torch.no_grad()
    def taught(self, points: Tensor) -> Tensor:
        """(B, N, 3) clouds in farthest-point order -> (B, C), the mean of the teachers' probabilities."""
        seeds = self.net.config.seeds
        answers = [teacher(points, ordered=teacher.config.seeds <= seeds) for teacher in self.teachers]
        return torch.stack([answer.float().softmax(dim=1) for answer in answers]).mean(dim=0)

    def class_loss(self, logits: Tensor, labels: Tensor, points: Tensor) -> Tensor:
        """Mean over the batch of what the classes cost, 0 for a cloud of none.

        Args:
            logits: (B, C).
            labels: (B,) int64, `FOREIGN` where a cloud is of no class; or (B, C) probabilities.
            points: (B, N, 3) the clouds, in farthest-point order, for the teachers.
        """
        loss = self.loss(logits, labels)
        if self.teachers:
            share, inside = self.config.teaching, labels != FOREIGN
            taught = nn.functional.cross_entropy(logits, self.taught(points), reduction="none")
            loss = (1 - share) * loss + share * inside * taught
        return loss.mean()

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """Loss on one batch, or on one process's share of it."""
        points, labels, _samples = batch
        self.seed_layers(number)
        logits, known, _ = self.run_net(points, ordered=True, size=len(labels))
        loss = self.class_loss(logits, labels, points)
        most = labels.argmax(dim=1) if labels.ndim == 2 else labels  # of a mixed cloud, the class it has most of
        right = logits.argmax(dim=1) == most
        if known is not None:
            loss = loss + nn.functional.binary_cross_entropy_with_logits(known, (most != FOREIGN).to(known))
            right |= (most == FOREIGN) & (known < 0)
        accuracy = right.float().mean()
        values = {"train_loss": loss, "train_accuracy": accuracy}
        self.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(labels))
        return self.checked(loss, len(labels), number)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Metrics on one batch, accumulated over the validation set; in full precision, as `evaluate` measures."""
        points, labels, _samples = batch
        with torch.autocast(points.device.type, enabled=False):
            logits = self.net(points, ordered=True)
        self.overall(logits, labels)
        self.mean_class(logits, labels)
        self.log("validation_loss", self.loss(logits, labels).mean(), batch_size=len(labels), sync_dist=True)
        self.log("validation_overall", self.overall)
        self.log("validation_mean_class", self.mean_class)


class AutoencoderTraining(NetTraining):
    """An autoencoder in training: it sees a random half of each cloud and is scored against all of it.

    So it has to find the surface, not the points. The validation figures are those of `pointcentroid.evaluate.fidelity`.

    Args:
        config: the run; its `model` is an `AutoencoderConfig` or a `CapsuleAutoencoderConfig`.
    """

    headline, better = "validation_chamfer", "min"
    net: CentroidAutoencoder | CapsuleAutoencoder

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """Loss on one batch, or on one process's share of it."""
        points, _labels, samples = batch
        self.seed_layers(number)
        seen, _ = halves(points, CounterRandom(self.config.seed + 1, self.current_epoch, samples), self.net.config.seeds)
        made = self.run_net(seen, points.shape[1] // 2, ordered=True, size=len(points))
        loss = chamfer_distance(made, points).mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(points))
        return self.checked(loss, len(points), number)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Metrics on one batch, accumulated over the validation set; in full precision, as `evaluate` measures."""
        points, _labels, samples = batch
        with torch.autocast(points.device.type, enabled=False):
            distance, oracle = half_distances(self.net, points, samples)
        values = {"validation_chamfer": distance.mean(), "validation_oracle": oracle.mean()}
        self.log_dict(values, batch_size=len(points), sync_dist=True)
