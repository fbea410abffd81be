"""What a run says of its settings, and whose validation figures stand for one that has none of its own."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Iterable, Sequence
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


def recipe_cards(config: TrainConfig, fingerprint: str, mean_with: Sequence[TrainConfig] = ()) -> list[WeightsCard]:
    """Cards of the weights that `config.recipe` names.

    Args:
        config: the run whose recipe it is.
        fingerprint: of its data set.
        mean_with: the other runs, where the weights are a mean.

    Raises:
        TrainingError: one of them was trained with other settings or on another data set, is the mean of more or fewer
            weights, was stopped before its end, or was trained on the validation shapes too.
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
        if "stopped_after" in of:
            raise TrainingError(f"{name} was stopped after epoch {of['stopped_after']} of {config.epochs}: --resume ends it")
        if of.get("data_sha256") != fingerprint:
            raise TrainingError(f"{name} was trained on another data set than {config.data}")
        if fingerprint in other.knows_validation:
            raise TrainingError(f"{name} was trained on the validation shapes too; a recipe's figures come from others")
    return others


def with_figures_of(others: list[WeightsCard], card: WeightsCard) -> WeightsCard:
    """The card with what runs that left the validation shapes out got and fitted on these, in the mean."""
    if not others:
        return card
    common = set.intersection(*(set(other.figures) for other in others))  # those too often right could not be calibrated
    figures = {
        key: float(np.mean([other.metrics[key] for other in others]))
        for key in sorted(common)
        if key.startswith("validation_")
    }
    calibrated = [other for other in others if "validation_ece" in other.metrics] or others
    fitted = np.mean([[other.temperature, *dataclasses.astuple(other.known)] for other in calibrated], axis=0).tolist()
    metrics = card.metrics | figures | {"recipe_runs": len(others)}
    return dataclasses.replace(card, metrics=metrics, temperature=fitted[0], known=KnownScale(*fitted[1:]))


def _settings(config: TrainConfig) -> dict[str, Any]:
    """The settings of a run, without paths of the machine it ran on."""
    paths: dict[str, Any] = {key: Path(getattr(config, key)).name for key in ("data", "start")}
    paths |= {key: tuple(Path(name).name for name in getattr(config, key)) for key in ("teachers", "recipe")}
    return to_dict(config) | paths | {"output": ""}


Heritage = dict[str, list[str]]
"""Fingerprints of data sets: `trained_on` and `knows_validation` of `WeightsCard`; `teachers`: hashes of their tensors."""


def heritage(cards: Iterable[WeightsCard]) -> Heritage:
    """What weights have seen, all together.

    Args:
        cards: of the weights that a run begins with or learns from.
    """
    cards = list(cards)
    return {
        "trained_on": sorted({data for card in cards for data in card.trained_on}),
        "knows_validation": sorted({data for card in cards for data in card.knows_validation}),
        "teachers": [],
    }


def provenance_of(config: TrainConfig, clouds: CloudSet, inherited: Heritage) -> dict[str, Any]:
    """What the card of weights says of the run that made them: its settings, hashes of data, versions.

    Args:
        config: the run.
        clouds: its data set.
        inherited: of the weights that it began with or learnt from.
    """
    own = clouds.fingerprint
    return {
        "config": _settings(config),
        "data_sha256": own,
        "trained_on": sorted({own, *inherited["trained_on"]} - {""}),
        "knows_validation": sorted({own if config.split == "all" else "", *inherited["knows_validation"]} - {""}),
        "teachers_sha256": inherited.get("teachers", []),  # absent from checkpoints of before they were
        "versions": {
            "pointcentroid": pointcentroid.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }
