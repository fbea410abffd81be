"""What a run says of its settings, and whose validation figures stand for one that has none of its own."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
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


def recipe_cards(config: TrainConfig, mean_with: Sequence[TrainConfig] = ()) -> list[WeightsCard]:
    """Cards of the weights that `config.recipe` names.

    Args:
        config: the run whose recipe it is.
        mean_with: the other runs, where the weights are a mean.

    Raises:
        TrainingError: one of them was trained with other settings, is the mean of more or fewer weights, or was trained on
            the validation shapes too.
        WeightsError: one of them is absent or damaged.
    """
    others = [read_card(find_weights(name)) for name in config.recipe]
    ours = [_settings(one) for one in (config, *mean_with)]
    for name, other in zip(config.recipe, others, strict=True):
        of = other.provenance
        if "config" not in of:
            raise TrainingError(f"{name} does not say how it was trained")
        theirs = [to_dict(from_dict(TrainConfig, one)) for one in (of["config"], *of.get("mean_with", ()))]
        if len(theirs) != len(ours):
            raise TrainingError(f"{name} is the mean of {len(theirs)} weights, here are {len(ours)}")
        for here, there in zip(ours, theirs, strict=True):
            for key in sorted(here.keys() - _OF_A_RUN):
                if there[key] != here[key]:
                    raise TrainingError(f"{name} is of another recipe: {key}={there[key]!r}, here {here[key]!r}")
        if other.trained_on_all:
            raise TrainingError(f"{name} was trained on the validation shapes too; a recipe's figures come from others")
    return others


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
