"""A predictor by the name of its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pointcentroid.predict.parts import PartsPredictor
from pointcentroid.predict.predictor import Predictor
from pointcentroid.predict.runtimes import Runtime
from pointcentroid.weights import find_weights, read_card


def load(weights: str | Path = "small", device: str = "auto", *, runtime: Runtime = "auto", **changes: Any) -> Predictor:
    """Load a predictor: `load("small")("chair.off").label`, `load("parts").explain("chair.off")`.

    Args:
        weights: the name of shipped weights or a weights file; of a classifier, or of a net of parts, beside which `small`
            classifies.
        device: `"auto"`, or a torch device such as `"cpu"` or `"cuda:0"`.
        runtime: see `Predictor`.
        changes: see `Predictor`.

    Raises:
        WeightsError: there are no such weights, or they are damaged.
        ConfigError: there is no such device.
    """
    if read_card(find_weights(weights)).model.kind == "parts":
        return PartsPredictor(weights, device, runtime=runtime, **changes)
    return Predictor(weights, device, runtime=runtime, **changes)
