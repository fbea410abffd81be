"""Folders that outgrow memory, patience or the machine: Parquet that an interruption leaves whole, and Ray Data.

`pointcentroid.scale.classify` and `embed` are `ray_data`'s; importing the room alone, for Parquet, brings no Ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pointcentroid.scale.ray_data import classify as classify
    from pointcentroid.scale.ray_data import embed as embed

__all__ = ["classify", "embed"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pointcentroid.errors import require

    require("working on a cluster", "ray", "ray")
    from pointcentroid.scale import ray_data

    return getattr(ray_data, name)
