"""Do the shapes of a data set lie on their sides? Most formats do not say which axis is up, and z is believed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pointcentroid.data.clouds import CloudSet
from pointcentroid.geometry.axes import UP_AXES
from pointcentroid.io import STANDARD_UP
from pointcentroid.predict.nets import ordered
from pointcentroid.predict.runtimes import open_net
from pointcentroid.predict.up import UpFinder
from pointcentroid.weights import STAND_IN, find_weights

_LOOKED_AT = 64  # shapes; they take less than a second


class Lying(NamedTuple):
    """How a data set lies.

    Attributes:
        axis: the one that seems to be up, not z.
        count: shapes of which it is.
        looked_at: of so many.
    """

    axis: str
    count: int
    looked_at: int

    def __str__(self) -> str:
        return f"{self.count} of {self.looked_at} shapes look as if {self.axis} were up, but z was believed"


def lying(clouds: CloudSet) -> Lying | None:
    """Find out whether most shapes seem to have another axis up than z, to the net that finds axes.

    Args:
        clouds: a data set, of which nobody has said which axis is up. Files whose format's standard does are not looked at.
    """
    silent = [row for row, name in enumerate(clouds.names) if Path(name).suffix.lower() not in STANDARD_UP]
    if not silent:
        return None
    rows = np.unique(np.linspace(0, len(silent) - 1, _LOOKED_AT).round().astype(int))
    net = open_net(find_weights(STAND_IN))
    found = UpFinder(net)(ordered(np.ascontiguousarray(clouds.points[np.array(silent)[rows]]), net.card))
    counts = np.bincount(found.chosen, minlength=len(UP_AXES))[: len(UP_AXES)]  # without those that lean
    axis, count = UP_AXES[counts.argmax()], int(counts.max())
    return Lying(axis, count, len(rows)) if axis != "z" and 2 * count > len(rows) else None
