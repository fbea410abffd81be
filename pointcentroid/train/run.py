"""One training run: data, net, trainer, weights."""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from pointcentroid.config import (
    WHERE,
    ClassifierConfig,
    PartsConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from pointcentroid.data.cache import Watch, is_cache, is_of, prepare_cache
from pointcentroid.data.clouds import CloudSet
from pointcentroid.data.layouts import Catalogue, find_shapes
from pointcentroid.data.lying import lying
from pointcentroid.data.module import CloudData
from pointcentroid.data.parted import PartedData
from pointcentroid.data.sources import is_prepared, open_data
from pointcentroid.errors import ConfigError, DataError, TrainingError, WeightsError, one_line
from pointcentroid.evaluate.calibration import calibrated
from pointcentroid.evaluate.plots import plot_history
from pointcentroid.files import locked
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.train.callbacks import BestCheckpoint, Display, FirstCheckpoint, History, WholeCheckpoints, moving_average
from pointcentroid.train.module import AutoencoderTraining, ClassifierTraining, NetTraining
from pointcentroid.train.parts import PartsTraining
from pointcentroid.train.recipe import Heritage, heritage, provenance_of, recipe_cards, with_figures_of
from pointcentroid.train.starting import start_from
from pointcentroid.weights import WeightsCard, find_weights, graph_of, load_weights, read_card, save_weights, tensors_hash


def train(
    config: TrainConfig,
    shapes: Any = None,
    *,
    classes: Sequence[str] | None = None,
    resume: bool = False,
    finish: bool = False,
    overwrite: bool = False,
    watch: Watch = lambda items, _total: items,
) -> Path | None:
    """Train a classifier, an autoencoder, or a net of parts.

    In `{output}/{name}`: metrics.csv, curves.png, logs for TensorBoard, last.ckpt and best.ckpt, and the weights.

    Args:
        config: the run.
        shapes: what to train on in the place of `config.data`: a data set of PyTorch Geometric, a list of its `Data`, or a
            `Batch`, with `pos` (and `face`), z up, and `y`.
        classes: names of their classes, in the order of `y`.
        resume: go on from the last finished epoch; the end is the same, bit for bit, as if nothing had happened.
        finish: train no more, but make weights of what the run has reached; it can still be resumed.
        overwrite: throw an earlier run of the same name away.
        watch: wraps the shapes of a data set that must be prepared first, with their number, to show progress.

    Returns:
        Path of the finished weights, `{output}/{name}/{name}.safetensors`: the moving average of the net's weights. None
        in all but the first of several processes.

    Raises:
        DataError: the data set is absent, damaged, or does not fit the configuration.
        TrainingError: an earlier run is in the way, another command is at it, there is nothing to resume, or the loss is no
            longer a number.
        WeightsError: the weights to start from are absent or belong to another architecture.
        KeyboardInterrupt: stopped by Ctrl-C; what was reached is kept in last.ckpt.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # its remarks on hardware and its tips
    warnings.filterwarnings("ignore", module="lightning")  # on how many workers would be nice, and on its own deprecations
    config = from_dict(TrainConfig, to_dict(config))  # as it is read from a checkpoint: paths as text, lists as tuples
    if config.nodes > 1 and not {"WORLD_SIZE", "SLURM_NTASKS"} & os.environ.keys():
        raise TrainingError(f"nodes={config.nodes} is started on each machine by torchrun or SLURM (docs/training.md)")
    config = dataclasses.replace(config, precision=choose_precision(config))
    if shapes is None and not config.data:
        raise DataError("which data set is not said: add data=...")
    source = config.data if shapes is None else find_shapes(shapes, classes)
    folder = Path(config.output) / config.name
    taken = TrainingError(f"another command is training in {folder}; name=other begins a run beside it")
    alone = rank_zero_only.rank == 0 and not finish  # the other processes of a run; what a run has reached can be looked at
    with locked(folder, taken) if alone else nullcontext():
        return _train(config, source, folder, resume, finish, overwrite, watch)


def _train(
    config: TrainConfig, source: str | Catalogue, folder: Path, resume: bool, finish: bool, overwrite: bool, watch: Watch
) -> Path | None:
    last, weights = folder / "last.ckpt", folder / f"{config.name}.safetensors"
    first = rank_zero_only.rank == 0
    before = _resumable(last, config) if resume or finish else None
    if before is not None and finish and not before.rows:
        raise TrainingError(
            f"{last} holds no finished epoch yet, so that there is nothing to make weights of; --resume goes on"
        )
    if first and before is None and (last.is_file() or weights.is_file()):
        if not overwrite:
            state = "a finished run" if _is_finished(weights) else "an unfinished run: --resume goes on with it"
            raise TrainingError(f"{folder} holds {state}; name=other keeps it, --overwrite throws it away")
        needed = [find_weights(name) for name in (config.start, *config.teachers, *config.recipe) if name]
        if weights.resolve() in [path.resolve() for path in needed]:
            raise TrainingError(f"--overwrite would throw away {weights}, which this run needs; name=other keeps it")

    if first and not finish:
        print(f"training in {config.precision}", file=sys.stderr)
    lightning.seed_everything(config.seed, verbose=False)
    clouds = _open(source, config, folder, watch)
    recipe = recipe_cards(config, clouds.fingerprint)
    inherited = _inherited(config) if before is None else before.inherited
    if clouds.fingerprint in inherited["knows_validation"] and first:
        print(
            "what this run begins with, or learns from, knows the validation shapes: figures on these say nothing of others",
            file=sys.stderr,
        )
    if before is not None and before.data != clouds.fingerprint:
        raise TrainingError(
            f"{config.data} is not the data set that {last} was trained on: it has changed since; put it back to go on, or "
            "begin anew under another name="
        )
    if clouds.left_out and first:
        name, reason = next(iter(clouds.left_out.items()))
        print(f"left out, for they cannot be read: {len(clouds.left_out)} shapes, such as {name}: {reason}", file=sys.stderr)
    data = create_data(config, clouds)
    module = create_training(config, data.classes)
    module.inherited = inherited
    history = History(folder)
    if finish and before is not None:
        if not first:
            return None
        history.load_state_dict({"rows": before.rows})
        _finish(config, recipe, provenance_of(config, clouds, inherited), module, data, history, weights)
        told = f"weights as they were after epoch {history.rows[-1]['epoch']} of {config.epochs}"
        print(f"{told}; --resume goes on with the run" if not _is_finished(weights) else told, file=sys.stderr)
        return weights
    if config.start and before is None:
        start_from(module.net, config, data.classes)
    if first:
        print(_told(config, data, module), file=sys.stderr)
    try:
        trainer = _trainer(config, folder, history, module)
    except (MisconfigurationException, ValueError, ModuleNotFoundError) as error:  # there is no such accelerator
        raise TrainingError(one_line(error, 200)) from None
    data.check_shares(trainer.world_size)
    if first and before is None:
        _make_room(weights)  # only now, when all that can be known to be wrong would have been said
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last if resume else None, weights_only=True)
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    if not trainer.is_global_zero:
        return None
    _finish(config, recipe, provenance_of(config, clouds, inherited), module, data, history, weights)
    return weights


def _told(config: TrainConfig, data: CloudData, module: NetTraining) -> str:
    """What will be trained on what, in a line."""
    size = sum(parameter.numel() for parameter in module.net.parameters()) / 1e6
    classes = f" of {len(data.classes)} classes" if isinstance(config.model, ClassifierConfig) else ""
    shapes = f"{len(data.training):,} shapes{classes} to train on, {len(data.validation):,} to validate"
    return f"{config.name}: {config.model.kind}, {size:.2f} M parameters, from {config.start or 'random weights'}; {shapes}"


def choose_precision(config: TrainConfig) -> Literal["32-true", "bf16-mixed"]:
    """What `precision=auto` means on this machine: bf16 where it is computed as such, not emulated."""
    if config.precision != "auto":
        return config.precision
    if config.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif config.accelerator == "mps" or (config.accelerator == "auto" and torch.backends.mps.is_available()):
        fast = False
    else:
        fast = bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return "bf16-mixed" if fast else "32-true"


def create_training(config: TrainConfig, classes: tuple[str, ...]) -> NetTraining:
    """The training that a model needs; its net is made by `pointcentroid.models`.

    Args:
        config: the run.
        classes: what a classifier will tell apart.

    Raises:
        WeightsError: a teacher is absent, no classifier, or tells other classes apart.
    """
    if isinstance(config.model, ClassifierConfig):
        return ClassifierTraining(config, [_teacher(name, classes) for name in config.teachers])
    return (PartsTraining if isinstance(config.model, PartsConfig) else AutoencoderTraining)(config)


def _teacher(name: str, classes: tuple[str, ...]) -> CentroidClassifier:
    tensors, card = load_weights(find_weights(name))
    if card.classes != classes:
        raise WeightsError(f"{name} cannot teach: it tells other classes apart than the data set has, or in another order")
    return CentroidClassifier.from_tensors(card.model, tensors)


def create_data(config: TrainConfig, clouds: CloudSet) -> CloudData:
    """The batches that the training of a model needs; the arguments and errors are those of `CloudData` or `PartedData`."""
    return (PartedData if isinstance(config.model, PartsConfig) else CloudData)(config, clouds)


def _trainer(config: TrainConfig, folder: Path, history: History, module: NetTraining) -> lightning.Trainer:
    saved = {"dirpath": folder, "enable_version_counter": False, "save_on_train_epoch_end": True}
    return lightning.Trainer(
        default_root_dir=folder,
        max_epochs=config.epochs,
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.nodes,
        precision=choose_precision(config),
        gradient_clip_val=config.clip,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,  # the data module shares batches out itself
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=TensorBoardLogger(folder, name="", version="tensorboard"),
        plugins=[WholeCheckpoints()],
        callbacks=[
            WeightAveraging(avg_fn=moving_average(config.average)),
            history,
            Display(history, module.headline),
            FirstCheckpoint(folder / "last.ckpt"),
            BestCheckpoint(filename="best", monitor=module.headline, mode=module.better, **saved),
            ModelCheckpoint(filename="last", **saved),  # written last: when it is there, all else of its epoch is
        ],
    )


class _Before(NamedTuple):
    """What an earlier attempt says of its run.

    Attributes:
        data: fingerprint of its data set.
        inherited: see `NetTraining`.
        rows: of its finished epochs, see `History`.
    """

    data: str
    inherited: Heritage
    rows: list[dict[str, Any]]


def _inherited(config: TrainConfig) -> Heritage:
    cards = [read_card(find_weights(name)) for name in (config.start, *config.teachers) if name]
    return heritage(cards) | {"teachers": _hashes(config)}


def _hashes(config: TrainConfig) -> list[str]:
    return [tensors_hash(find_weights(name)) for name in config.teachers]


def _resumable(last: Path, config: TrainConfig) -> _Before:
    """Look at an earlier attempt, which must be of the same run."""
    if not last.is_file():
        raise TrainingError(f"there is nothing to resume: no {last}")
    try:
        checkpoint = torch.load(last, map_location="cpu", weights_only=True)
        # A setting that is newer than the run had its default.
        before, data = to_dict(from_dict(TrainConfig, checkpoint["config"])), checkpoint["data"]
    except ConfigError as error:
        raise TrainingError(f"{last} is of a run that cannot be gone on with: {error}") from None
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{last} is damaged ({one_line(error, 120)})") from None
    kept = last.with_name(f"{config.keep}.ckpt")
    if not kept.is_file() and checkpoint["global_step"]:  # before the first step, no epoch was the best
        raise TrainingError(f"there is no {kept} beside {last}; keep=best needs it to go on")
    settings, earlier = _flat(to_dict(config)), _flat(before)
    for key in sorted({*settings, *earlier}):
        if key not in WHERE | {"recipe"} and settings.get(key) != earlier.get(key):
            weights = last.with_name(f"{config.name}.safetensors")
            more = f", and may go on from the weights of this one: start={weights}" if weights.is_file() else ""
            raise TrainingError(
                f"{last} was trained with {key}={earlier.get(key)!r}, not {settings.get(key)!r}; a resumed run keeps its "
                f"settings; a new one needs another name={more}"
            )
    inherited = checkpoint.get("inherited")
    teachers = _hashes(config)
    if inherited and inherited.get("teachers", teachers) != teachers:
        raise TrainingError(f"the teachers hold other weights than those that {last} learnt from: put them back to go on")
    rows = checkpoint.get("callbacks", {}).get(History.__name__, {}).get("rows", [])
    return _Before(data, _inherited(config) if inherited is None else inherited, rows)


def _is_finished(weights: Path) -> bool:
    """Whether weights are there, and are not what an interrupted run was left with by `finish`."""
    try:
        return weights.is_file() and "stopped_after" not in read_card(weights).provenance
    except WeightsError:  # damaged since
        return True


def _flat(settings: dict[str, Any], place: str = "") -> dict[str, Any]:
    """Settings by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{place}{key}.") if isinstance(value, dict) else {place + key: value}
    return flat


def _make_room(weights: Path) -> None:
    """Throw an earlier run away, all but its prepared data."""
    for name in (weights.name, graph_of(weights).name, "last.ckpt", "best.ckpt", "metrics.csv", "curves.png"):
        weights.with_name(name).unlink(missing_ok=True)
    shutil.rmtree(weights.with_name("tensorboard"), ignore_errors=True)


def _open(source: str | Catalogue, config: TrainConfig, folder: Path, watch: Watch) -> CloudSet:
    """Open the data set; raw shapes are prepared first, into the folder of the run."""
    up = None if config.up == "standard" else config.up
    if isinstance(source, str) and is_prepared(source):
        if up not in (None, "auto"):
            raise DataError(f"up={up} is for raw shapes; those of {source} are prepared already, with z up")
        return open_data(source, config.preprocess, parts=isinstance(config.model, PartsConfig), watch=watch)
    cache = folder / "data"
    catalogue = find_shapes(source) if isinstance(source, str) else source
    if rank_zero_only.rank == 0:
        if is_cache(cache) and not is_of(cache, catalogue, config.preprocess, up):
            shutil.rmtree(cache)  # of shapes that have changed since; it was made here, and is made again
        prepare_cache(catalogue, cache, config.preprocess, up=up, watch=watch)
    # In the other processes: what lies there may be of shapes that have changed since.
    while not ((cache / "meta.json").is_file() and is_of(cache, catalogue, config.preprocess, up)):
        time.sleep(0.5)  # the first process is at it
    clouds = open_data(cache, config.preprocess)
    if rank_zero_only.rank == 0 and (found := lying(clouds, up, catalogue.up)):
        print(f"{found}; up={found.axis} turns them all, up=auto each as it lies", file=sys.stderr)
    return clouds


def _finish(
    config: TrainConfig,
    recipe: list[WeightsCard],
    provenance: dict[str, Any],
    module: NetTraining,
    data: CloudData,
    history: History,
    path: Path,
) -> None:
    """Write the weights, with all that is to be known of them, and the curves."""
    # From the checkpoint, which has the averaged ones: so they are the same after a resumption that had nothing left to do.
    kept = torch.load(path.with_name(f"{config.keep}.ckpt"), map_location="cpu", weights_only=True)
    module.load_state_dict(kept["state_dict"])
    # The best epoch may be one that last.ckpt does not have: the run died between the two.
    history.rows = max(history.rows, kept["callbacks"][History.__name__]["rows"], key=len)
    row = next(row for row in history.rows if row["epoch"] == kept["epoch"] + 1)
    metrics: dict[str, Any] = {"epoch": row["epoch"], "training_seconds": history.rows[-1]["seconds"]}
    if (done := history.rows[-1]["epoch"]) < config.epochs:
        provenance = provenance | {"stopped_after": done}
    if config.split == "training":
        metrics |= {key: row[key] for key in row if key.startswith("validation_")}
    classes = tuple(data.classes) if isinstance(config.model, ClassifierConfig) else ()
    card = WeightsCard(config.name, config.model, config.preprocess, classes, metrics, provenance)
    net = module.net.eval().cpu()
    if config.split == "all":
        card = with_figures_of(recipe, card)
    elif isinstance(net, CentroidClassifier) and provenance["data_sha256"] not in provenance["knows_validation"]:
        try:
            card = calibrated(net, card, data.classes, data.validation)
        except DataError as error:  # the temperature stays at 1
            print(f"confidence is not calibrated: {error}", file=sys.stderr)
    save_weights(path, net.state_dict(), card)
    plot_history(history.rows, module.headline, path.with_name("curves.png"))
