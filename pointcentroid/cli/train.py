"""`pointcentroid train`: from a configuration, or a folder of shapes, to a weights file."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

from pointcentroid.cli import options
from pointcentroid.config import TrainConfig

_SETTINGS = frozenset(field.name for field in dataclasses.fields(TrainConfig))


class SettingsCommand(TyperCommand):
    """A command that takes settings as KEY=VALUE, and says so where one is given as an option."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """See the base class."""
        own = {option for parameter in self.params for option in parameter.opts}
        for option in [word.partition("=")[0] for word in args if word.startswith("--")]:
            name = option[2:].replace("-", "_")
            if option not in own and name.partition(".")[0] in _SETTINGS:
                raise typer.BadParameter(f"is a setting, not an option: {name}=VALUE", ctx, param_hint=option)
        return super().parse_args(ctx, args)


def train(
    what: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|SHAPES",
            help="A YAML file or the name of a shipped one; or class folders of your own, to fine-tune on.",
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings to change, such as epochs=10.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar=options.NAMES, help="Weights to start from; the same as start=..."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last finished epoch of this run.")] = False,
    finish: Annotated[
        bool,
        typer.Option("--finish", help="Train no more: make weights of what an interrupted run has reached."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Throw an earlier run of the same name away.")] = False,
    format: options.FormatOption = None,
    as_json: options.Json = False,
    output: options.Output = None,
) -> None:
    """Train a classifier, an autoencoder, or a net of parts.

    From a configuration: train modelnet40-small data=train.npz epochs=10. On shapes of your own, in class folders: train
    my_shapes/, which gives the weights `small` a new head. Ctrl-C keeps the epochs that are finished; the same command with
    --resume goes on; on a CPU, to the same end bit for bit. With --finish it makes weights of what there is.

    On several processes: devices=2; on several machines: nodes=2, under torchrun or SLURM.
    """
    from pointcentroid.cli.output import (
        check_folder,
        check_writable,
        chosen_format,
        note,
        print_measures,
        told_how_to_go_on,
        tracked,
        write,
    )
    from pointcentroid.errors import require
    from pointcentroid.weights import graph_of, read_card

    if (resume or finish) and overwrite:
        hint = "--resume" if resume else "--finish"
        raise typer.BadParameter("keeps the run that --overwrite would throw away; choose one", param_hint=hint)
    if resume and finish:
        raise typer.BadParameter("trains no more, --resume goes on; choose one", param_hint="--finish")
    if output and output.suffix == ".safetensors":
        raise typer.BadParameter("is for the figures; weights go to output=FOLDER, under name=NAME", param_hint="-o")
    kind = chosen_format(format, output, as_json)
    settings = _settings(what, overrides or [], start)
    read = [what, settings.data, settings.start, *settings.teachers, *settings.recipe]
    check_writable(output, read=[name for name in read if name])
    folder = Path(settings.output) / settings.name
    check_folder(folder, "output=")
    require("training", "train", "torch", "lightning", "torchmetrics")
    # By default, threads of torch that wait spin for so long that beside other work an epoch takes thirty times as long as
    # alone. With this it takes twice as long, and alone a fifth longer than before (docs/training.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from pointcentroid.train.run import train as run

    last = folder / "last.ckpt"
    before = last.stat().st_mtime_ns if last.is_file() and not (resume or finish) else None  # of a run that is thrown away

    def kept() -> bool:
        return last.is_file() and last.stat().st_mtime_ns != before

    with told_how_to_go_on(kept, or_else="or, for weights of what it has reached, --finish in its place"):
        weights = run(
            settings,
            resume=resume,
            finish=finish,
            overwrite=overwrite,
            watch=lambda items, total: tracked(items, total, "preparing"),
        )
    if weights is None:
        return  # the first process of this run has them, and says so
    card = read_card(weights)
    row = {"weights": str(weights), **card.figures}
    if kind == "table":
        print_measures(row, output)
        if card.model.kind == "classifier":
            path, graph = (shlex.quote(str(name)) for name in (weights, graph_of(weights)))
            note(f"to use them: pointcentroid classify FILES --weights {path}")
            note(f"faster, and without torch, after: pointcentroid export {path} -o {graph}")
    else:
        write([row], list(row), kind, output)


def _settings(what: str, overrides: list[str], start: str | None) -> TrainConfig:
    from pointcentroid.config import ClassifierConfig
    from pointcentroid.data.sources import class_names
    from pointcentroid.errors import ConfigError
    from pointcentroid.train.settings import load_train_config, shipped_configs

    if start is not None and any(word.startswith("start=") for word in overrides):
        raise typer.BadParameter("is the same as start=; give one of them", param_hint="--from")
    given = {} if start is None else {"start": start}
    path = Path(what)
    shipped = what in shipped_configs()
    if shipped or not path.exists() or (path.suffix.lower() in (".yaml", ".yml") and not path.is_dir()):
        settings = load_train_config(what, overrides, **given)
        counted = any(word.startswith(("model.classes=", "model=")) for word in overrides)
        if shipped and settings.data and isinstance(settings.model, ClassifierConfig) and not counted:
            # They are of ModelNet40, of as many classes; the data say how many there are.
            return _counted(settings)
        return settings

    if any(word.startswith("data=") for word in overrides):
        raise typer.BadParameter(f"{what} is what is trained on; leave data= out", param_hint="data=")
    name = re.sub(r"[^\w.-]+", "-", path.resolve().name if path.is_dir() else path.stem).strip("-.") or "shapes"
    given |= {"data": what, "name": name, "model": {"classes": len(class_names(path))}}
    settings = load_train_config("finetune", overrides, **given)
    if settings.no_class and not any(word.startswith("model.classes=") for word in overrides):
        settings = _counted(settings)
    if path.is_dir() and path.absolute() in (Path(settings.output).absolute() / "x").parents:
        raise ConfigError(f"output={settings.output} lies inside {what}, among the shapes; add output=elsewhere")
    return settings


def _counted(settings: TrainConfig) -> TrainConfig:
    """The same, with as many classes as the data have."""
    from pointcentroid.data.sources import class_names

    classes = sum(name != settings.no_class for name in class_names(settings.data))
    return dataclasses.replace(settings, model=dataclasses.replace(settings.model, classes=classes))
