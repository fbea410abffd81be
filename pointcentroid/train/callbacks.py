"""What happens around a training run: its history is written down, and a person is told how it goes."""
# ruff: noqa: ARG002, Lightning calls its hooks with more than each one needs

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from pointcentroid.files import replacing


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """An exponential moving average of weights whose memory grows with the run, to about a ninth of the steps so far.

    A constant decay of 0.999 would remember the random start of a run of few thousand steps: an autoencoder's Chamfer
    distance was 15 % larger for it.

    Args:
        decay: the most that is kept at a step; 0 for no average.

    Returns:
        What `torch.optim.swa_utils.AveragedModel` takes: (averaged, present, how many steps were averaged) -> averaged.
    """

    def average(averaged: Tensor, present: Tensor, steps: Tensor) -> Tensor:
        if not averaged.is_floating_point():
            return present  # a counter of batch norm
        return present.lerp(averaged, kept_share(steps, decay).to(averaged))

    return average


def kept_share(steps: Tensor, decay: float) -> Tensor:
    """How much of a moving average is kept after so many steps, see `moving_average`."""
    return ((1 + steps) / (10 + steps)).clamp(max=decay)


class History(Callback):
    """One row an epoch, in metrics.csv; its learning rate is that of the next step.

    It belongs to the checkpoint, so that a resumed run has its whole history.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self._start = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from rows of an earlier attempt."""
        self.rows = list(state_dict["rows"])

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Count seconds on from the last attempt."""
        self._start = time.monotonic() - (self.rows[-1]["seconds"] if self.rows else 0.0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the epoch down."""
        measured = trainer.callback_metrics.items()
        values = {name: float(value) for name, value in measured if name.startswith(("train_", "validation_"))}
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "seconds": round(time.monotonic() - self._start, 2),
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                **values,
            }
        )
        if not trainer.is_global_zero:
            return
        with replacing(self.folder / "metrics.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


class Display(Callback):
    """One line an epoch on standard error, and below it, where a person is watching, a bar with the time left.

    Args:
        history: where the figures are.
        headline: the measure to show beside the loss.
    """

    def __init__(self, history: History, headline: str) -> None:
        self.history, self.headline = history, headline
        console = Console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}")
        left = TimeRemainingColumn(), TextColumn("left")
        self.bar = Progress(*columns, *left, console=console, transient=True, disable=not console.is_terminal)
        self._task: TaskID | None = None
        self._line = ""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Begin the bar: all steps of the run, those before a resumption done."""
        if trainer.is_global_zero:
            total = int(trainer.estimated_stepping_batches)
            self._task = self.bar.add_task("training", total=total, completed=trainer.global_step, figures="")
            self.bar.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the bar on."""
        if self._task is not None:
            self.bar.update(self._task, completed=trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Compose the line of the epoch; it is printed when its checkpoint is written, which is later."""
        if self._task is None:
            return
        row = self.history.rows[-1]
        left = row["seconds"] / row["epoch"] * ((trainer.max_epochs or 0) - row["epoch"])
        measure = {"validation_overall": "validation_accuracy"}.get(self.headline, self.headline)
        validation = f"{measure.replace('_', ' ')} {row[self.headline]:.4g}"
        self.bar.update(self._task, figures=f"loss {row['train_loss']:.4g}  {validation}")
        accuracy = f"accuracy {row['train_accuracy']:.4g}  " if "train_accuracy" in row else ""
        figures = f"loss {row['train_loss']:.4g}  {accuracy}{validation}"
        time_left = f"{left / 60:.0f} min" if left >= 60 else f"{left:.0f} s"
        self._line = f"epoch {row['epoch']}/{trainer.max_epochs}  {figures}  {time_left} left"

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Print the epoch before."""
        self._print()

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Print the last epoch, and take the bar away."""
        self._print()
        self.bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Take the bar away: the cursor comes back."""
        self.bar.stop()

    def _print(self) -> None:
        if self._line:
            self.bar.console.print(self._line, highlight=False, soft_wrap=True)
        self._line = ""


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole or not at all: a full disk, or the end of the process, leaves the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside it, then rename."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with replacing(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())


class BestCheckpoint(ModelCheckpoint):
    """The best epoch's. A resumed run knows which that was also where its folder has been moved or copied."""

    @property
    def state_key(self) -> str:
        """That of its base class, under which earlier versions kept it."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from an earlier attempt."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath), Path(path).name)) if path else path

        paths = {key: here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        scores = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": scores})


class FirstCheckpoint(Callback):
    """A checkpoint before the first step, so that a run that is stopped at any time can be resumed.

    Args:
        path: where to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Save it, unless there is a later one."""
        if trainer.global_step == 0:
            trainer.save_checkpoint(self.path)
