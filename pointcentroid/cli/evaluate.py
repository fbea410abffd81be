"""`pointcentroid evaluate`: how good are these weights? `calibrate`: make their confidence mean what it says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pointcentroid.cli import options

if TYPE_CHECKING:
    import numpy as np

    from pointcentroid.data.clouds import CloudSet
    from pointcentroid.evaluate.accuracy import Evaluation
    from pointcentroid.predict.predictor import Predictor
    from pointcentroid.weights import WeightsCard

Data = Annotated[
    str,
    typer.Option(
        metavar="PATH",
        help="Labelled shapes: a prepared data set, an npz, a folder or zip of class folders, see `data prepare`.",
    ),
]

Up = Annotated[
    options.Axis | None,
    typer.Option(
        help="The axis that points up; auto finds it. (Default: z; of shapes in files, what their format says, or what the "
        "weights were trained with.)",
    ),
]


def evaluate(
    weights: options.WeightsArgument,
    data: Data,
    split: Annotated[
        Literal["auto", "test", "validation", "training", "all"],
        typer.Option(
            help="Which shapes; auto: the test part if the data set names one, the validation part if the weights were "
            "trained on the rest of it, else all."
        ),
    ] = "auto",
    up: Up = None,
    turned: Annotated[bool, typer.Option("--turned", help="Turn every shape first, so that any axis points up.")] = False,
    votes: Annotated[int, typer.Option(min=1, help="Report beside it what averaging so many scaled copies gives.")] = 1,
    corruptions: Annotated[
        bool,
        typer.Option("--corruptions", help="Measure errors under 12 kinds of damage and from 12 sides, z up given."),
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Report too what a linear classifier reaches on the frozen net's features.")
    ] = False,
    skip_unknown: Annotated[
        bool,
        typer.Option(
            "--skip-unknown", help="Leave out shapes of classes the weights do not know; say how many are flagged."
        ),
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many shapes, evenly spread.")] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw the confusion matrix and the reliability there.")
    ] = None,
    batch_size: options.BatchSize = 32,
    workers: options.Workers = None,
    device: options.Device = "auto",
    format: options.FormatOption = None,
    as_json: options.Json = False,
    output: options.Output = None,
) -> None:
    """Measure accuracy and calibration on labelled shapes, how well an autoencoder remembers them, or a net finds parts.

    Overall and mean-class accuracy come from one confusion matrix, top-5 and expected calibration error from the same pass.
    Of an autoencoder: Chamfer distances, squared, both directions added, for shapes of radius 1.
    """
    from pointcentroid.cli.output import (
        check_folder,
        check_writable,
        chosen_format,
        note,
        note_left_out,
        print_measures,
        write,
    )
    from pointcentroid.errors import require

    require("evaluating", "torch", "torch")
    from pointcentroid.data.sources import is_prepared
    from pointcentroid.evaluate.accuracy import choose_part
    from pointcentroid.evaluate.probe import training_apart
    from pointcentroid.predict.loading import load
    from pointcentroid.weights import find_weights, read_card

    check_writable(output, read=[data, weights])
    check_folder(plots, "--plots")
    raw = not is_prepared(data)
    told = "auto" if up == "auto" else "z" if raw else up or "z"  # shapes in files are turned as they are read
    if corruptions and (told != "z" or turned):
        raise typer.BadParameter(
            "is measured on clouds whose z is up; leave --up and --turned out", param_hint="--corruptions"
        )
    kind = chosen_format(format, output, as_json)
    path = find_weights(weights)
    card = read_card(path)
    classifies = card.model.kind == "classifier"
    if plots:
        require("drawing plots", "train", "matplotlib")
    if probe and path.suffix == ".onnx":
        raise typer.BadParameter("needs the weights that the graph is of", param_hint="--probe")
    if card.model.kind == "parts" and probe:
        raise typer.BadParameter("is for weights that classify or reconstruct", param_hint="--probe")
    if not classifies and (told != "z" or turned or votes > 1 or corruptions or plots):
        raise typer.BadParameter("--up, --turned, --votes, --corruptions and --plots are for weights that classify")
    clouds = _open(data, card, workers, None if up == "auto" else up or card.up, believed=told == "z")
    note_left_out(clouds.left_out)
    chosen = split == "auto"
    if chosen:
        split = choose_part(clouds, card)  # type: ignore[assignment]
    trained_on_these = clouds.fingerprint in _trained_on(card, split)
    if trained_on_these:
        note(
            f"the {split} part: these weights were trained on {'it' if split != 'all' else 'some of it'} too; of other "
            "shapes this says nothing"
        )
    elif chosen:
        note("the validation part: these weights were trained on the rest" if split == "validation" else f"split: {split}")
    rows = _rows_of(data, clouds, split)
    others = rows[:0]
    if classifies:
        rows, others = _of_known_classes(clouds, rows, card.classes, skip_unknown)
    if limit is not None and limit < len(rows):
        rows = rows[[round(i * (len(rows) - 1) / max(1, limit - 1)) for i in range(limit)]]
    training = training_apart(clouds, rows) if probe else None  # before the work: there may be none
    result = None
    numbers: dict[str, Any] = {
        "split": split,
        "trained_on_these": trained_on_these,
        "left_out": len(clouds.left_out),
    }
    if classifies:
        predictor = load(weights, device)
        found, result = _classifier(predictor, clouds.subset(rows), told, turned, votes, corruptions, batch_size)
        numbers |= found
        if raw:
            numbers.pop("up_accuracy", None)  # what is up in files is not known
        if len(others) and result.known is not None and not turned:
            numbers["others"] = _others(predictor, clouds.subset(others), result.known, told, batch_size)
    elif card.model.kind == "parts":
        numbers |= _parts(weights, device, clouds.subset(rows), batch_size)
    else:
        numbers |= _autoencoder(weights, device, clouds, rows, batch_size)
    if training is not None:
        numbers |= _probe(weights, device, clouds, training, rows)
    if kind == "json":
        write([numbers], [], "json", output)
    elif kind == "csv":
        measures = _flat(numbers).items()
        write([{"measure": key, "value": value} for key, value in measures], ["measure", "value"], "csv", output)
    else:
        print_measures(_for_people(numbers), output)
    if plots and result is not None:  # last: what was measured is not lost where they cannot be written
        from pointcentroid.evaluate.plots import plot_confusion, plot_reliability

        plot_confusion(result.confusion, result.classes, plots / "confusion.png")
        plot_reliability(result.confidence, result.correct, plots / "reliability.png")


def _of_known_classes(clouds: CloudSet, rows: Any, known: tuple[str, ...], skip: bool) -> tuple[Any, Any]:
    """Those rows whose classes weights know, and the others; where these are not to be skipped, there must be none."""
    import numpy as np

    from pointcentroid.cli.output import note
    from pointcentroid.data.clouds import unknown_class
    from pointcentroid.errors import DataError

    names = np.array(clouds.classes)[clouds.labels[rows]]
    others = ~np.isin(names, known)
    if not others.any():
        return rows, rows[:0]
    if not skip:
        raise DataError(f"{unknown_class(str(np.unique(names[others])[0]), known)}; --skip-unknown leaves its shapes out")
    note(f"skipped: {others.sum()} of {len(rows)} shapes, whose classes the weights do not know")
    if others.all():
        raise DataError("the weights know no class of the data set")
    return rows[~others], rows[others]


def _others(predictor: Predictor, clouds: CloudSet, own: np.ndarray, up: Any, batch_size: int) -> dict[str, Any]:
    """How well shapes of classes that the weights do not know are told from those, of which this much is known."""
    import numpy as np

    from pointcentroid.cli.output import tracked
    from pointcentroid.evaluate.accuracy import auroc, flagged, known_of

    known = known_of(
        predictor, clouds, up=up, batch_size=batch_size, watch=lambda answers: tracked(answers, len(clouds), "the others")
    )
    apart = auroc(np.concatenate([own, known]), np.arange(len(own) + len(known)) < len(own))
    return {"shapes": len(clouds), "flagged": flagged(known), "auroc": apart}


def _trained_on(card: WeightsCard, split: str) -> tuple[str, ...]:
    """Fingerprints of the data sets of which these weights know that part."""
    return card.knows_validation if split == "validation" else card.trained_on if split != "test" else ()


def _trained_net(weights: str, device: str) -> tuple[Any, WeightsCard]:
    from pointcentroid.models import net_class
    from pointcentroid.predict.torch_net import choose_device
    from pointcentroid.weights import find_weights, load_weights

    where = choose_device(device)
    tensors, card = load_weights(find_weights(weights))
    return net_class(card.model).from_tensors(card.model, tensors).to(where), card


def _autoencoder(weights: str, device: str, clouds: CloudSet, rows: Any, batch_size: int) -> dict[str, Any]:
    """What there is to say of an autoencoder."""
    from pointcentroid.cli.output import tracked
    from pointcentroid.data.ordered import OrderedClouds
    from pointcentroid.evaluate.fidelity import fidelity

    net, card = _trained_net(weights, device)
    ordered = OrderedClouds(clouds, rows, card.model.seeds, card.preprocess.points)
    measured = fidelity(net, ordered, batch_size=batch_size, watch=lambda i, total: tracked(i, total, "evaluating"))
    return vars(measured) | {"parameters": sum(p.numel() for p in net.parameters()), "latent_size": net.latent_size}


def _parts(weights: str, device: str, clouds: CloudSet, batch_size: int) -> dict[str, Any]:
    """What there is to say of a net of parts."""
    from pointcentroid.cli.output import tracked
    from pointcentroid.data.parted import PartedClouds
    from pointcentroid.errors import DataError
    from pointcentroid.evaluate.parting import parting

    if clouds.parts is None:
        raise DataError("the data set knows no parts; expected an npz file with `parts`, as tools/make_parts.py writes it")
    net, card = _trained_net(weights, device)
    parted = PartedClouds(clouds, clouds.part("all"))
    seen = card.preprocess.points
    found = parting(net, parted, seen, batch_size=batch_size, watch=lambda i, total: tracked(i, total, "evaluating"))
    return vars(found) | {"parameters": sum(p.numel() for p in net.parameters())}


def _probe(weights: str, device: str, clouds: CloudSet, training: Any, rows: Any) -> dict[str, Any]:
    """What a linear classifier makes of a net's features."""
    from pointcentroid.cli.output import tracked
    from pointcentroid.evaluate.probe import probe

    net, card = _trained_net(weights, device)
    return probe(net, card, clouds, training, rows, lambda items, total: tracked(items, total, "probing"))


def _classifier(
    predictor: Predictor,
    clouds: CloudSet,
    up: Any,
    turned: bool,
    votes: int,
    corruptions: bool,
    batch_size: int,
) -> tuple[dict[str, Any], Evaluation]:
    """What there is to say of a classifier, and what it said."""
    from pointcentroid.cli.output import tracked
    from pointcentroid.evaluate.accuracy import evaluate as run
    from pointcentroid.evaluate.accuracy import robustness

    def measured(count: int):
        def watch(results):
            return tracked(results, len(clouds) * count, "evaluating")

        return run(predictor, clouds, up=up, turned=turned, votes=count, batch_size=batch_size, watch=watch)

    result = measured(1)
    numbers = result.to_dict()
    if votes > 1:
        voted = measured(votes)
        numbers["votes"] = {
            "votes": votes,
            "overall_accuracy": voted.overall_accuracy,
            "mean_class_accuracy": voted.mean_class_accuracy,
        }
    if corruptions:

        def steps(items, total):
            return tracked(items, total, "corrupting")

        numbers |= robustness(predictor, clouds, batch_size=batch_size, watch=steps).to_dict()
    return numbers, result


def calibrate(
    weights: options.WeightsArgument,
    data: Data,
    split: Annotated[
        Literal["validation", "test", "training", "all"], typer.Option(help="Which shapes; such as were not trained on.")
    ] = "validation",
    up: Up = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where the calibrated weights go; a weights file of your own may be replaced without."
        ),
    ] = None,
    format: options.FormatOption = None,
    as_json: options.Json = False,
    output: options.Output = None,
) -> None:
    """Fit the temperature of weights on validation shapes, so that confidence means what it says.

    Training does this by itself; shapes that the weights were trained on are refused. Labels never change. The calibration
    error that is printed is cross-fitted: every shape is scored with a temperature fitted on others.
    """
    from pointcentroid.cli.output import check_writable, chosen_format, print_measures, write
    from pointcentroid.errors import DataError, require

    require("calibrating", "torch", "torch")
    from pointcentroid.data.ordered import OrderedClouds
    from pointcentroid.data.sources import is_prepared
    from pointcentroid.evaluate.calibration import FEWEST, calibrated
    from pointcentroid.nn.classifier import CentroidClassifier
    from pointcentroid.weights import HUB, find_weights, load_weights, save_weights, shipped_weights

    check_writable(to, "--to", [data])
    check_writable(output, read=[data, weights])
    kind = chosen_format(format, output, as_json)
    if to is not None and to.suffix != ".safetensors":
        raise typer.BadParameter(f"expected a name that ends in .safetensors, found {to.name}", param_hint="--to")
    path = find_weights(weights)
    shipped = {own.resolve() for own in shipped_weights().values()}
    if to is None and (path.resolve() in shipped or weights.startswith(HUB)):
        where = "from a hub" if weights.startswith(HUB) else "with the package"
        raise typer.BadParameter(
            f"{weights} came {where} and stays as it is; say where the new weights go", param_hint="--to"
        )
    if up and is_prepared(data):
        raise typer.BadParameter(f"is for raw shapes; those of {data} are prepared already, with z up", param_hint="--up")
    tensors, card = load_weights(path)
    clouds = _open(data, card, None, up or card.up)
    if clouds.fingerprint in _trained_on(card, split):
        which = "shapes" if split == "all" else f"{split} shapes"
        raise DataError(
            f"{weights} knows the {which} of {data}, and is surer of them than of others; only other shapes can tell a "
            "better temperature"
        )
    rows = _rows_of(data, clouds, split)
    if split == "validation" and len(rows) < FEWEST and clouds.fingerprint not in card.trained_on:
        raise DataError(
            f"{data} has {len(rows)} validation shapes; at least {FEWEST} are needed. --split all takes all of it, which is "
            "right where the weights were trained on none of it"
        )
    ordered = OrderedClouds(clouds, rows, card.model.seeds, card.preprocess.points)
    card = calibrated(CentroidClassifier.from_tensors(card.model, tensors), card, clouds.classes, ordered)
    save_weights(to or path, tensors, card)
    low, high = interval = card.metrics["validation_ece_interval"]
    row = {
        "temperature": card.temperature,
        "ece": card.metrics["validation_ece"],
        "ece_interval": interval,
        "weights": str(to or path),
    }
    if kind != "table":
        write([row], list(row), kind, output)
        return
    print_measures(
        {
            "temperature": row["temperature"],
            "cross-fitted calibration error": row["ece"],
            "over resamplings": f"{low:.4f} to {high:.4f}",
            "weights": row["weights"],
        },
        output,
    )


def _open(data: str, card: WeightsCard, workers: int | None, up: str | None, *, believed: bool = True) -> CloudSet:
    """Open a data set; of raw shapes, `up` points up, and it is said where most look otherwise than is believed."""
    from pointcentroid.cli.output import note, tracked
    from pointcentroid.data.cache import fingerprint_among
    from pointcentroid.data.layouts import find_shapes
    from pointcentroid.data.lying import lying
    from pointcentroid.data.sources import is_prepared, open_data

    def watch(items, total):
        return tracked(items, total, "preparing")

    if is_prepared(data):
        return open_data(data, card.preprocess, parts=card.model.kind == "parts", watch=watch)
    catalogue = find_shapes(data, card.classes)
    clouds = open_data(catalogue, card.preprocess, up=up, workers=workers, watch=watch)
    if believed and (found := lying(clouds, up, catalogue.up)):
        note(f"{found}; --up {found.axis} turns them all, --up auto each as it lies")
    # The same shapes, however they were turned when the weights were trained on them.
    known = fingerprint_among(catalogue, card.trained_on)
    return clouds if known is None else dataclasses.replace(clouds, fingerprint=known)


def _rows_of(data: str, clouds: CloudSet, split: str) -> np.ndarray:
    """Indices of the shapes of one part, of which there must be some."""
    from pointcentroid.errors import DataError

    rows = clouds.part(split)
    if not len(rows):
        raise DataError(f"{data} has no {split} part" if len(clouds) else f"{data} holds no shapes")
    return rows


def _flat(numbers: dict[str, Any]) -> dict[str, Any]:
    """One line a measure."""
    flat = {key: value for key, value in numbers.items() if not isinstance(value, (dict, list))}
    if "ece_interval" in numbers:
        flat["ece_interval_low"], flat["ece_interval_high"] = numbers["ece_interval"]
    for key, value in numbers.get("votes", {}).items():
        flat[f"{key} with votes" if key != "votes" else "votes"] = value
    flat |= {f"{key} of other classes": value for key, value in numbers.get("others", {}).items()}
    for name, errors in numbers.get("corruptions", {}).items():
        flat[f"error under {name}"] = " ".join(f"{error:.3f}" for error in errors)
    flat |= {f"accuracy of {name}": value for name, value in numbers.get("per_class", {}).items()}
    if "per_class" in numbers:
        flat |= {f"shapes of {name}": count for name, count in numbers["per_class_shapes"].items()}
    return flat


_SHARES = {
    "overall_accuracy": "overall accuracy",
    "mean_class_accuracy": "mean class accuracy",
    "official_mix_accuracy": "accuracy at the test's class mix",
    "top5_accuracy": "within the first five",
    "ece": "calibration error",
    "up_accuracy": "up axis found",
    "flagged": "flagged as unknown",
    "flagged of other classes": "flagged of other classes",
    "clean_error": "error on undamaged shapes",
    "mean_corruption_error": "mean corruption error",
    "mean_one_sided_error": "mean error from one side",
}


def _for_people(numbers: dict[str, Any]) -> list[tuple[str, str | float]]:
    """As `_flat`, in percent and in words; of how many shapes beside the accuracy of each class."""
    apart = {"ece_interval", "per_class", "trained_on_these", "chamfer", "oracle", "input_output"}
    shown: dict[str, str | float] = {
        _SHARES.get(key, key.replace("_", " ")): f"{value:.1%}" if key in _SHARES or "accuracy" in key else value
        for key, value in _flat({key: value for key, value in numbers.items() if key not in apart}).items()
    }
    if "chamfer" in numbers:
        for name, key in (("Chamfer", "chamfer"), ("oracle", "oracle"), ("input to output", "input_output")):
            shown[f"{name} x 1000"] = f"{1000 * numbers[key]:.2f}"
        shown["Chamfer by oracle"] = f"{numbers['chamfer'] / numbers['oracle']:.3f}"
    if "ece_interval" in numbers:
        low, high = numbers["ece_interval"]
        shown["calibration error"] = f"{shown['calibration error']}, over resamplings {low:.1%} to {high:.1%}"
    counts = numbers.get("per_class_shapes", {})
    # A class may be called like a measure.
    classes = [(name, f"{share:.1%} of {counts[name]}") for name, share in numbers.get("per_class", {}).items()]
    return [*shown.items(), *classes]
