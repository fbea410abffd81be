"""How do the shapes of a data set lie? Most formats do not say which axis is up, and z is believed; what a standard says is
believed, and some programs do not keep to it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pointcentroid.data.clouds import CloudSet
from pointcentroid.geometry.axes import TO_Z_UP, up_name
from pointcentroid.io import STANDARD_UP
from pointcentroid.predict.nets import ordered
from pointcentroid.predict.runtimes import open_net
from pointcentroid.predict.up import UpFinder
from pointcentroid.weights import STAND_IN, find_weights

_LOOKED_AT = 64  # shapes; they take less than a second


def stand_in_finder() -> UpFinder:
    """What finds how shapes stand where there are no weights yet that could, as predictions of such weights do."""
    return UpFinder(open_net(find_weights(STAND_IN)))


class Lying(NamedTuple):
    """How a data set lies.

    Attributes:
        axis: the one that seems to be up in its files.
        believed: the one that was taken for it.
        count: shapes of which this is so.
        looked_at: of so many.
    """

    axis: str
    believed: str
    count: int
    looked_at: int

    def __str__(self) -> str:
        return f"{self.count} of {self.looked_at} shapes look as if {self.axis} were up, but {self.believed} was believed"


def lying(clouds: CloudSet, up: str | None, layout: str) -> Lying | None:
    """Find out whether most shapes seem to have another axis up than was believed, to the net that finds axes.

    Args:
        clouds: a prepared data set.
        up: what it was prepared with, see `pointcentroid.data.cache.prepare_cache`.
        layout: the axis that its layout puts up; one other than z is known to.
    """
    if up == "auto" or (up is None and layout != "z"):
        return None
    rows = np.unique(np.linspace(0, len(clouds) - 1, _LOOKED_AT).round().astype(int))
    finder = stand_in_finder()
    turns = finder(ordered(np.ascontiguousarray(clouds.points[rows]), finder.net.card)).turns
    believed = [up or STANDARD_UP.get(Path(clouds.names[row]).suffix.lower(), "z") for row in rows]
    pairs = Counter((up_name(turn @ TO_Z_UP[axis]), axis) for turn, axis in zip(turns, believed, strict=True))
    (axis, taken), count = pairs.most_common(1)[0]
    return Lying(axis, taken, count, len(rows)) if axis != taken and axis in TO_Z_UP and 2 * count > len(rows) else None
