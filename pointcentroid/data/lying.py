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
from pointcentroid.predict.preparing import Source, source_name
from pointcentroid.predict.runtimes import open_net
from pointcentroid.predict.up import UpFinder, custom_of
from pointcentroid.weights import STAND_IN, find_weights

_LOOKED_AT = 64  # shapes; they take less than a second


class AxisFinder:
    """Finds how single clouds stand upright, as predictions with weights that cannot do so themselves find it."""

    def __init__(self) -> None:
        net = open_net(find_weights(STAND_IN))
        self._card, self._find = net.card, UpFinder(net)

    def __call__(self, cloud: np.ndarray, source: Source) -> np.ndarray:
        """(3, 3) R, with which `cloud @ R.T` has z up.

        Args:
            cloud: (N, 3), preprocessed, in the frame of its file.
            source: what it was made of, whose format has a custom.
        """
        clouds = ordered(np.ascontiguousarray(cloud[None], np.float32), self._card)
        return self._find(clouds, custom_of(source_name(source))).turns[0]


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


def lying(clouds: CloudSet, up: str | None = None) -> Lying | None:
    """Find out whether most shapes seem to have another axis up than was believed, to the net that finds axes.

    Args:
        clouds: a prepared data set.
        up: the axis that was said to be up in all files; None where it was that of each format's standard, or z.
    """
    rows = np.unique(np.linspace(0, len(clouds) - 1, _LOOKED_AT).round().astype(int))
    net = open_net(find_weights(STAND_IN))
    turns = UpFinder(net)(ordered(np.ascontiguousarray(clouds.points[rows]), net.card)).turns
    believed = [up or STANDARD_UP.get(Path(clouds.names[row]).suffix.lower(), "z") for row in rows]
    pairs = Counter((up_name(turn @ TO_Z_UP[axis]), axis) for turn, axis in zip(turns, believed, strict=True))
    (axis, taken), count = pairs.most_common(1)[0]
    return Lying(axis, taken, count, len(rows)) if axis != taken and axis in TO_Z_UP and 2 * count > len(rows) else None
