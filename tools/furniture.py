"""Measure classifiers on the free furniture libraries of Sweet Home 3D, which nothing that ships was trained on.

    python tools/furniture.py LIBRARIES small tiny          # LIBRARIES: a folder of *.sh3f
    python tools/furniture.py LIBRARIES small --wrong       # and which it gets wrong
    python tools/furniture.py LIBRARIES small --foreign     # and what tells the others from things of no class

The libraries are 820 OBJ files, y up, by several authors, under Creative Commons and GNU licences, from sweethome3d.com;
Debian has them in the package sweethome3d-furniture (version 1.8 was measured). `tools/furniture.yaml` says which names in
their catalogues mean which ModelNet40 classes, and which are of no class.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated, NamedTuple, cast

import numpy as np
import typer
from omegaconf import OmegaConf
from orientation import answers, compare
from rich.console import Console
from rich.table import Table

from pointcentroid import load
from pointcentroid.config import PreprocessConfig
from pointcentroid.evaluate.accuracy import auroc
from pointcentroid.evaluate.calibration import calibration_error
from pointcentroid.geometry.axes import TO_Z_UP
from pointcentroid.predict.predictor import Predictor
from pointcentroid.predict.preparing import Prepared, Preparer
from pointcentroid.predict.up import Up, turned
from pointcentroid.results import LITTLE_KNOWN, Failure, Prediction

NAMES = Path(__file__).with_suffix(".yaml")
NONE = ["none"]
UPS: tuple[Up, ...] = "z", "auto", "y"


class Model(NamedTuple):
    """A file whose answer is known.

    Attributes:
        path: of the OBJ file.
        name: in the catalogue.
        right: classes that are right answers, or `NONE`.
    """

    path: Path
    name: str
    right: list[str]


def models(library: Path, folder: Path, classes: dict[str, list[str]]) -> list[Model]:
    """Unpack a library, and list those of its models whose names are among the keys of `classes`."""
    with zipfile.ZipFile(library) as archive:
        archive.extractall(folder)
    catalogue: dict[str, dict[str, str]] = {}
    text = (folder / "PluginFurnitureCatalog.properties").read_text(encoding="latin-1")
    for field, number, value in re.findall(r"^(name|model)#(\d+)=(.*)$", text, flags=re.MULTILINE):
        catalogue.setdefault(number, {})[field] = value.strip()
    return [
        Model(folder / entry["model"].lstrip("/"), entry["name"], classes[entry["name"].lower()])
        for entry in catalogue.values()
        if entry["name"].lower() in classes
    ]


def labelled() -> dict[str, list[str]]:
    """The classes that are right answers, or `NONE`, by name in a catalogue."""
    labels = cast("dict[str, list[str]]", OmegaConf.to_container(OmegaConf.load(NAMES)))
    return {name: right.split(", ") for right, names in labels.items() for name in names}


def models_in(libraries: Path, folder: Path, classes: dict[str, list[str]]) -> list[Model]:
    """The models of all libraries in a folder, see `models`.

    Raises:
        BadParameter: there are none.
    """
    found = [model for path in sorted(libraries.glob("*.sh3f")) for model in models(path, folder / path.stem, classes)]
    if not found:
        raise typer.BadParameter(f"{libraries} holds no furniture library, *.sh3f")
    return found


def prepared(settings: PreprocessConfig, found: list[Model]) -> list[Prepared]:
    """Files as a net wants them.

    Raises:
        SystemExit: one of them cannot be read.
    """
    items = list(Preparer(settings)(model.path for model in found))
    broken = [item for item in items if isinstance(item, Failure)]
    if broken:
        raise SystemExit(f"could not be read: {broken[0]}")
    return cast("list[Prepared]", items)


def figures() -> Table:
    """The table that `measure` fills."""
    names = ("right", "in top 3", "mean class", "ECE", "AUROC of known", "own flagged", "foreign flagged")
    return Table("weights", "up", *names, box=None)


def measure(
    predictor: Predictor, items: list[Prepared], found: list[Model], up: Up, table: Table, shown: str = ""
) -> list[str]:
    """Add a row to the table; say what is wrong, a line a file.

    Args:
        predictor: the weights.
        items: the files.
        found: the same, and what they are.
        up: what the predictor is told.
        table: of `figures`.
        shown: what the table calls that.
    """
    said = cast("list[Prediction]", list(predictor.predict_prepared(items, up=up, top=3)))
    own = np.array([model.right != NONE for model in found])
    pairs = [(answer, model) for answer, model in zip(said, found, strict=True) if model.right != NONE]
    right = np.array([answer.label in model.right for answer, model in pairs])
    third = np.mean([any(label in model.right for label, _ in answer.top) for answer, model in pairs])
    first = np.array([model.right[0] for _, model in pairs])
    mean_class = np.mean([right[first == label].mean() for label in np.unique(first)])
    error = calibration_error(np.array([answer.confidence for answer, _ in pairs]), right)
    row = [f"{right.mean():.1%} of {own.sum()}", f"{third:.1%}", f"{mean_class:.1%}", f"{error:.1%}"]
    if said[0].known is not None:
        known = np.array([answer.known for answer in said])
        flagged = known < LITTLE_KNOWN
        of_none = f"{flagged[~own].mean():.0%} of {(~own).sum()}"
        row += [f"{auroc(known, own):.3f}", f"{flagged[own].mean():.0%}", of_none]
    table.add_row(predictor.card.name, shown or up, *row)
    return [
        f"{model.path.name} ({model.name}): {answer.label} {answer.confidence:.0%}, {answer.up} up; "
        f"is {' or '.join(model.right)}"
        for (answer, model), fine in zip(pairs, right, strict=True)
        if not fine
    ]


def foreign(predictor: Predictor, items: list[Prepared], found: list[Model], console: Console) -> None:
    """Compare what tells things of no class from the others, with y given."""
    clouds = np.concatenate([item.clouds for item in items])
    seen = answers(predictor.net, turned(clouds, np.stack([TO_Z_UP["y"]] * len(clouds))), "models")
    compare(seen, np.array([model.right != NONE for model in found]), console)


def main(
    libraries: Annotated[
        Path, typer.Argument(help="A folder of furniture libraries, *.sh3f.", exists=True, file_okay=False)
    ],
    weights: Annotated[list[str], typer.Argument(help="Weights by name or file.")],
    wrong: Annotated[bool, typer.Option("--wrong", help="List what is wrong with --up auto.")] = False,
    others: Annotated[bool, typer.Option("--foreign", help="Measure what `known` is made of instead.")] = False,
) -> None:
    """Measure accuracy, calibration and `known` with z believed, with the axis found, and with it given."""
    console = Console()
    table = figures()
    with tempfile.TemporaryDirectory() as folder:
        found = models_in(libraries, Path(folder), labelled())
        for name in weights:
            predictor = load(name)
            items = prepared(predictor.card.preprocess, found)
            if others:
                foreign(predictor, items, found, console)
                continue
            for up in UPS:
                lines = measure(predictor, items, found, up, table)
                if wrong and up == "auto":
                    console.print("\n".join(lines), highlight=False)
    if not others:
        console.print(table)


if __name__ == "__main__":
    typer.run(main)
