"""Point clouds through learned centroids: classify shapes, train on your own, see what the net saw.

    import pointcentroid as pc
    pc.load("small")("chair.off").label

The names below are imported when they are first used, so that `import pointcentroid` costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime would tell its makers of every use

__version__ = "0.2.0"

if TYPE_CHECKING:
    from pointcentroid.errors import PointCentroidError as PointCentroidError
    from pointcentroid.io import read as read
    from pointcentroid.models import create_model as create_model
    from pointcentroid.models import list_models as list_models
    from pointcentroid.predict.explain import Explanation as Explanation
    from pointcentroid.predict.loading import load as load
    from pointcentroid.predict.predictor import Predictor as Predictor
    from pointcentroid.results import Failure as Failure
    from pointcentroid.results import Prediction as Prediction

_HOME = {
    "PointCentroidError": "errors",
    "read": "io",
    "create_model": "models",
    "list_models": "models",
    "Predictor": "predict.predictor",
    "load": "predict.loading",
    "Explanation": "predict.explain",
    "Failure": "results",
    "Prediction": "results",
}

__all__ = [
    "Explanation",
    "Failure",
    "PointCentroidError",
    "Prediction",
    "Predictor",
    "__version__",
    "create_model",
    "list_models",
    "load",
    "read",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
