"""What a run says of its settings, and whose validation figures stand for one that has none of its own."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pointcentroid
from pointcentroid.config import WHERE, TrainConfig, from_dict, to_dict
from pointcentroid.data.clouds import CloudSet
from pointcentroid.errors import TrainingError
from pointcentroid.weights import KnownScale, WeightsCard, find_weights, read_card

_OF_A_RUN = frozenset({"name", "seed", "data", "split", "recipe", "precision", *WHERE})
"""Settings in which runs of one recipe may differ."""


def recipe_cards(config: TrainConfig) -> list[WeightsCard]:
    """Cards of the weights that `config.recipe` names.

    Raises:
        TrainingError: one of them was trained with other settings, or on the validation shapes too.
        WeightsError: one of them is absent or damaged.
    """
    others = [read_card(find_weights(name)) for name in config.recipe]
    for name, other in zip(config.recipe, others, strict=True):
        check_same_recipe(config, from_dict(TrainConfig, other.provenance["config"]), name)
        if other.trained_on_all:
            raise TrainingError(f"{name} was trained on the validation shapes too; a recipe's figures come from others")
    return others


def check_same_recipe(config: TrainConfig, other: TrainConfig, name: str) -> None:
    """Compare the settings of two runs, but for those in which runs of one recipe may differ.

    Raises:
        TrainingError: one differs; `name` is what the other run is called in it.
    """
    ours, theirs = _settings(config), _settings(other)
    for key in sorted(ours.keys() - _OF_A_RUN):
        if theirs[key] != ours[key]:
            raise TrainingError(f"{name} is of another recipe: {key}={theirs[key]!r}, here {ours[key]!r}")


def with_figures_of(others: list[WeightsCard], card: WeightsCard) -> WeightsCard:
    """The card with what runs that left the validation shapes out got and fitted on these, in the mean."""
    if not others:
        return card
    figures = {
        key: float(np.mean([other.metrics[key] for other in others]))
        for key, value in others[0].metrics.items()
        if key.startswith("validation_") and not isinstance(value, list)
    }
    fitted = np.mean([[other.temperature, *dataclasses.astuple(other.known)] for other in others], axis=0).tolist()
    metrics = card.metrics | figures | {"recipe_runs": len(others)}
    return dataclasses.replace(card, metrics=metrics, temperature=fitted[0], known=KnownScale(*fitted[1:]))


def _settings(config: TrainConfig) -> dict[str, Any]:
    """The settings of a run, without paths of the machine it ran on."""
    paths: dict[str, Any] = {key: Path(getattr(config, key)).name for key in ("data", "start")}
    paths |= {key: tuple(Path(name).name for name in getattr(config, key)) for key in ("teachers", "recipe")}
    return to_dict(config) | paths | {"output": ""}


def provenance_of(config: TrainConfig, clouds: CloudSet) -> dict[str, Any]:
    """What the card of weights says of the run that made them: its settings, the data's hash, versions."""
    return {
        "config": _settings(config),
        "data_sha256": clouds.fingerprint,
        "versions": {
            "pointcentroid": pointcentroid.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }
