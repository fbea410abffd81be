"""One self-contained page: the stages of a shape in any browser, without a network.

The page holds plotly.js and the data, both compressed; `page.html` is its text, and all that moves is there.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from pointcentroid.errors import MissingExtraError
from pointcentroid.files import replacing
from pointcentroid.results import largest_share
from pointcentroid.viz.palette import UNASSIGNED, UNLIT
from pointcentroid.viz.panel import NO_CENTROIDS_NAME, Panel

MOST_POINTS = 10_000
"""Points that a page draws of one shape."""

_MOST_FACES = 20_000  # a finer mesh is left out: the page is to be mailed


def write_page(panels: list[Panel], path: str | Path) -> None:
    """Write the page.

    Args:
        panels: see `page_text`.
        path: where to.

    Raises:
        MissingExtraError: the extra `view` is not installed.
    """
    page = page_text(panels)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def page_text(panels: list[Panel]) -> str:
    """The page.

    Args:
        panels: what to show, side by side, one below the other on a narrow screen. Panels of more than `MOST_POINTS` points
            are thinned to a random choice of as many, and the page says so.

    Raises:
        MissingExtraError: the extra `view` is not installed.
    """
    plotly = _plotly()
    data = {
        "panels": [_panel(panel, panels) for panel in panels],
        "unassigned": _css(UNASSIGNED[None])[0],
        "unlit": (255 * UNLIT).round().astype(int).tolist(),
        "none": NO_CENTROIDS_NAME,
    }
    page = (files("pointcentroid.viz") / "page.html").read_text(encoding="utf-8")
    values = {
        "TITLE": html.escape(", ".join(panel.title for panel in panels)),
        "DATA": _pack(json.dumps(data)),
        "PLOTLY": plotly,
    }
    # All at once: a title may hold what looks like a place for another.
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda place: values[place[1]], page)


@cache
def _plotly() -> str:
    """The script, packed: the same for every page, and half a second of work."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("writing pages", "view", error.name or "plotly") from None
    return _pack(get_plotlyjs())


def _panel(whole: Panel, panels: list[Panel]) -> dict[str, Any]:
    panel = whole.at_most(MOST_POINTS)
    notes = []
    if panel.thinned:
        notes.append(f"{panel.points_drawn} are drawn")
    mesh = panel.mesh
    if mesh is not None and len(mesh[1]) > _MOST_FACES:
        notes.append(f"its mesh of {len(mesh[1]):,} faces is left out")
        mesh = None
    # Of the points the net saw, those that what is drawn refers to: no more of them than are drawn.
    seen, nearest = np.unique(panel.nearest, return_inverse=True)
    # Centroids that are the same part, in panels of one reference, are lit up and hidden together: their keys are the same.
    first = next((number for number, other in enumerate(panels) if other.reference is whole.reference), 0)
    return {
        "title": panel.title,
        "top": panel.top,
        "notes": notes,
        "points": _array(panel.cloud, np.float32),
        "middle": panel.middle.tolist(),
        "nearest": _array(nearest, np.uint16),
        "height": _css(panel.colours(0)),
        "mesh": mesh and {"vertices": _array(mesh[0], np.float32), "faces": _array(mesh[1], np.uint32)},
        "keys": [first, whole.parts.tolist()] if panel.stages else None,
        "names": panel.names and list(panel.names),
        "stages": [_stage(panel, stage, seen) for stage in range(1, panel.stages + 1)],
    }


def _stage(panel: Panel, stage: int, seen: np.ndarray) -> dict[str, Any]:
    places, colours = panel.centroids(stage)
    composed, own = panel.explanation.stages[stage - 1].composed, panel.weights(stage, composed=False)
    times = np.bincount(panel.nearest, minlength=len(composed))  # that each point which the net saw stands for one drawn
    return {
        "positions": _array(places, np.float32),
        "offsets": _array(panel.offsets(stage), np.float32),
        "colours": (255 * colours).round().astype(int).tolist(),
        "composed": _shares(composed, seen, times),
        "own": None if stage == 1 else _shares(own, np.arange(len(own)), np.ones(len(own))),
    }


def _shares(weights: np.ndarray, rows: np.ndarray, times: np.ndarray) -> dict[str, Any]:
    """Shares of rows in 255 steps, with what rounding would lose: the largest of each, and the mass over all rows, each
    counted so many times."""
    hard = largest_share(weights[rows]).astype(np.uint16)  # -1 becomes 65535
    return {
        "weights": _array(np.rint(255 * weights[rows]), np.uint8),
        "hard": _array(hard, np.uint16),
        "mass": [round(float(mass), 2) for mass in times @ weights.astype(np.float64)],
    }


def _array(values: np.ndarray, dtype: type) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode("ascii")


def _pack(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 9, mtime=0)).decode("ascii")


def _css(colours: np.ndarray) -> list[str]:
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (255 * colours).round().astype(int)]
