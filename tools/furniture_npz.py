"""Add the free furniture libraries of Sweet Home 3D to a data set, as something to train on.

    python tools/furniture_npz.py LIBRARIES train.npz -o both.npz
    pointcentroid train modelnet40-small-last data=both.npz no_class=none ...

Which libraries, and which names in them mean which classes: see furniture.py. Those of no class are of the class `none`. The
validation shapes stay those of the data set. (What is trained on is nothing to measure by any more.)
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import typer
from furniture import NONE, labelled, models_in, prepared

from pointcentroid import load
from pointcentroid.data.clouds import as_stored, load_npz
from pointcentroid.files import replacing
from pointcentroid.geometry.axes import TO_Z_UP
from pointcentroid.predict.up import turned
from pointcentroid.results import Prediction


def main(
    libraries: Annotated[
        Path, typer.Argument(help="A folder of furniture libraries, *.sh3f.", exists=True, file_okay=False)
    ],
    data: Annotated[Path, typer.Argument(help="The data set, an npz file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The npz file to write.")],
    copies: Annotated[int, typer.Option(min=1, help="How many samplings of each thing.")] = 3,
) -> None:
    """Sample each thing some times, by other seeds. Of several right classes, that which `small` thinks likelier counts."""
    clouds, predictor = load_npz(data), load("small")
    names = [*clouds.classes, "none"]
    points, labels = [], []
    with tempfile.TemporaryDirectory() as folder:
        found = models_in(libraries, Path(folder), labelled())
        for seed in range(copies):
            items = prepared(dataclasses.replace(predictor.card.preprocess, seed=seed), found)
            if not labels:
                said = [
                    dict(each.top) for each in cast("list[Prediction]", predictor.predict_prepared(items, up="y", top=40))
                ]
                labels = [
                    names.index("none" if model.right == NONE else max(model.right, key=lambda name: each.get(name, 0.0)))
                    for model, each in zip(found, said, strict=True)
                ]
            upright = turned(np.concatenate([item.clouds for item in items]), np.stack([TO_Z_UP["y"]] * len(items)))
            # They are of radius 1 but for rounding; what was trained on was made so, and is the same to the bit.
            upright = upright - upright.mean(axis=1, keepdims=True)
            points.append(upright / np.linalg.norm(upright, axis=2).max(axis=1)[:, None, None])
    split = np.full(len(clouds), "train", dtype="<U10")
    split[clouds.part("validation")] = "validation"
    added = copies * len(found)
    with replacing(output) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            points=as_stored(np.concatenate([clouds.points, *points])),
            labels=np.concatenate([clouds.labels, *[labels] * copies]).astype(np.uint8),
            names=[*clouds.names, *(f"{model.path.stem} {seed}" for seed in range(copies) for model in found)],
            classes=names,
            split=[*split, *["train"] * added],
        )
    print(f"{added} clouds of {len(found)} things added, {labels.count(len(names) - 1)} of these of no class")


if __name__ == "__main__":
    typer.run(main)
