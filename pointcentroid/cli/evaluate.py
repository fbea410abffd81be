"""`pointcentroid evaluate`: how good are these weights?"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pointcentroid.cli import options


def evaluate(
    weights: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Shipped weights by name, or a weights file.")],
    data: Annotated[str, typer.Option(help="The data set: an npz file of labelled clouds.")],
    split: Annotated[
        Literal["validation", "training", "all"], typer.Option(help="Which shapes: the held-out tenth, the rest, or all.")
    ] = "validation",
    up: options.Up = "z",
    turned: Annotated[bool, typer.Option("--turned", help="Turn every shape first, so that any axis points up.")] = False,
    batch_size: options.BatchSize = 32,
    device: options.Device = "auto",
    format: options.FormatOption = "table",
    output: options.Output = None,
) -> None:
    """Measure accuracy on labelled shapes."""
    from pointcentroid.cli.output import check_writable, print_measures, tracked, write
    from pointcentroid.data.sources import load_clouds, split_validation
    from pointcentroid.evaluate import evaluate as run
    from pointcentroid.predict import load

    check_writable(output)
    clouds = load_clouds(data)
    if split != "all":
        training, validation = split_validation(clouds.labels)
        clouds = clouds.subset(training if split == "training" else validation)

    def watch(results):
        return tracked(results, len(clouds), "evaluating")

    result = run(load(weights, device), clouds, up=up, turned=turned, batch_size=batch_size, watch=watch)
    numbers = result.to_dict()
    if format == "json":
        write([numbers], [], "json", output)
        return
    measures = {key: value for key, value in numbers.items() if key != "per_class"}
    measures |= {f"accuracy of {name}": value for name, value in numbers["per_class"].items()}
    if format == "csv":
        write([{"measure": key, "value": value} for key, value in measures.items()], ["measure", "value"], "csv", output)
    else:
        print_measures(measures, output)
