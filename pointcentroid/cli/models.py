"""`pointcentroid models`: which weights come with the package, and what they say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pointcentroid.cli import options

if TYPE_CHECKING:
    from pathlib import Path

    from pointcentroid.weights import WeightsCard


def models(
    weights: Annotated[
        str | None, typer.Argument(metavar=options.NAMES, help="Say more of these: which classes they know.")
    ] = None,
    format: options.FormatOption = None,
    as_json: options.Json = False,
    output: options.Output = None,
) -> None:
    """List the shipped weights, or say what one weights file says of itself."""
    from rich.table import Table

    from pointcentroid.cli.output import check_writable, chosen_format, note, print_measures, print_table, write
    from pointcentroid.weights import find_weights, read_card, shipped_weights

    check_writable(output, read=[weights] if weights else [])
    kind = chosen_format(format, output, as_json)
    if weights is not None:
        path = find_weights(weights)
        card = read_card(path)
        row = _row(card.name, card, path)
        if kind == "table":
            print_measures(row | {"class names": ", ".join(card.classes) or "none"}, output)
        else:
            write([row | {"class_names": list(card.classes)}], [*row, "class_names"], kind, output)
        return
    rows = [_row(name, read_card(path), path) for name, path in sorted(shipped_weights().items())]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if kind != "table":
        write(rows, columns, kind, output)
        return
    table = Table("name", "kind", "classes", "points", "MB", "on validation shapes", box=None, header_style="bold")
    for row in rows:
        shown = [str(row[key]) for key in ("name", "kind", "classes", "points", "megabytes")]
        table.add_row(*shown, ", ".join(f"{text} {value(row[key])}" for key, text, value in _FIGURES if key in row))
    print_table(table, output)
    if whole := [row["name"] for row in rows if "recipe_runs" in row]:
        note(f"{', '.join(whole)}: trained on these shapes too; the figures are those of their recipe without them")


def _row(name: str, card: WeightsCard, path: Path) -> dict[str, Any]:
    return {
        "name": name,
        "kind": card.model.kind,
        "classes": len(card.classes),
        "points": card.preprocess.points,
        "megabytes": round(path.stat().st_size / 1e6, 2),
        **card.figures,
    }


def _percent(share: float) -> str:
    return f"{share:.1%}"


_FIGURES = (
    ("validation_overall", "overall", _percent),
    ("validation_mean_class", "mean class", _percent),
    ("validation_ece", "calibration error", _percent),
    ("validation_agreement", "agreement with parts", lambda share: f"{share:.3f}"),
    ("validation_chamfer", "Chamfer x 1000", lambda distance: f"{1000 * distance:.2f}"),
)
