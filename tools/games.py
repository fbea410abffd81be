"""Measure classifiers on files of games and robot simulators, which no part of this project was trained on.

    python tools/games.py PACKAGES small tiny               # PACKAGES: a folder where the packages below were unpacked
    python tools/games.py PACKAGES small --wrong            # and which it gets wrong

78 of the files are of ModelNet40 classes, 21 of none: OBJ, GLB and STL, most of them y up, some z up, GLB too. They are in
packages of Debian (minetest-mod-homedecor 20210327, redeclipse-data 1.6.0; unpacked by `dpkg -x`) and of PyPI (genesis-world
1.4.5, mani-skill 3.0.1, metaworld 3.1.1, pybullet 3.2.7, miniworld 2.1.0, robosuite 1.5.2, smarts 2.0.1, gymnasium-robotics
1.4.2, and the sources of duckietown-world 1.0.30; wheels are zip archives), under licences that each of them says.
`tools/games.yaml` lists them; it was written before any classifier was asked.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, cast

import typer
from furniture import Model, figures, measure, prepared
from omegaconf import OmegaConf
from rich.console import Console

from pointcentroid import load

FILES = Path(__file__).with_suffix(".yaml")


def models(folder: Path) -> tuple[list[Model], list[str]]:
    """Find the files of the list below a folder, and which axis points up in each of them.

    Raises:
        SystemExit: one of them is not there.
    """
    below: dict[str, list[str]] = {}
    for root, _, names in os.walk(folder):
        for name in names:
            below.setdefault(name, []).append(os.path.join(root, name))
    found, ups = [], []
    labels = cast("dict[str, dict[str, list[str]]]", OmegaConf.to_container(OmegaConf.load(FILES)))
    for up, classes in labels.items():
        for right, files in classes.items():
            for file in files:
                path = next((path for path in below.get(Path(file).name, []) if path.endswith(f"/{file}")), None)
                if path is None:
                    raise SystemExit(f"{folder} lacks {file}: unpack the packages that {Path(__file__).name} names into it")
                found.append(Model(Path(path), file, right.split(", ")))
                ups.append(up)
    return found, ups


def main(
    packages: Annotated[Path, typer.Argument(help="A folder of unpacked packages.", exists=True, file_okay=False)],
    weights: Annotated[list[str], typer.Argument(help="Weights by name or file.")],
    wrong: Annotated[bool, typer.Option("--wrong", help="List what is wrong with --up auto.")] = False,
) -> None:
    """Measure accuracy, calibration and `known` with z believed, with the axis found, and with it given."""
    console, table = Console(), figures()
    found, ups = models(packages)
    for name in weights:
        predictor = load(name)
        whole = prepared(predictor.card.preprocess, found)
        measure(predictor, whole, found, "z", table)
        lines = measure(predictor, whole, found, "auto", table)
        given = [dataclasses.replace(item, up=up) for item, up in zip(whole, ups, strict=True)]
        measure(predictor, given, found, "auto", table, "given")
        if wrong:
            console.print("\n".join(lines), highlight=False)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
