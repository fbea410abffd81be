"""What is drawn of one explanation: positions, colours, names. Window, page and picture all draw panels.

A panel shows the *inputs* of a stage coloured by the centroid they go to. Inputs are the original points (`composed`, the
assignments of all stages multiplied), or what the stage itself was given: the points, or the centroids of the stage before.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pointcentroid.geometry.axes import transformed
from pointcentroid.results import Hierarchy, largest_share
from pointcentroid.viz.matching import ball_places, cluster_middles, same_parts
from pointcentroid.viz.palette import UNASSIGNED, height_colours, hierarchy_colours, soft_colours, spread, wheel

NO_CENTROID = -1
"""Stands for the centroid of inputs that go to none."""

NO_CENTROIDS_NAME = "to no centroid"

_FAR = 2.0  # times as far from the middle as any point that the net saw
_FAINT = np.array([0.82, 0.82, 0.82])  # the balls of centroids that are not the picked one


class Listed(NamedTuple):
    """A line of the list of centroids.

    Attributes:
        number: of the centroid, or `NO_CENTROID`.
        name: what it is called.
        colour: (3,) in [0, 1].
        size: how many inputs are mostly its.
        share: of all inputs.
    """

    number: int
    name: str
    colour: np.ndarray
    size: int
    share: float

    @property
    def told_share(self) -> str:
        """Its share in whole percents."""
        return f"{self.share:.0%}" if self.share >= 0.005 else "< 1%"


class Drawn(NamedTuple):
    """What is drawn of a panel.

    Attributes:
        points: (K, 3) the inputs.
        colours: (K, 3) theirs.
        centroids: (K,) the centroid that each goes to.
        balls: (B, 3) where the centroids stand.
        ball_colours: (B, 3) theirs.
        numbers: (B,) which they are.
    """

    points: np.ndarray
    colours: np.ndarray
    centroids: np.ndarray
    balls: np.ndarray
    ball_colours: np.ndarray
    numbers: np.ndarray


class Panel:
    """One shape, seen through one net.

    Stages are numbered from 1; stage 0 is the cloud before any. Where the file holds many more points than the net was
    shown, all of them are drawn (up to `most`), each with the share of the nearest point that the net did see; but none that
    lies far from all that the net saw, beside which the shape would be a speck. Where even those that the net was shown are
    more, a random choice of them is drawn.

    Args:
        explanation: what a net saw.
        title: a heading; where there is a prediction, it may be left out: the file's name, the label and its probability.
        most: the most points to draw.
        names: of the last stage's centroids; their numbers if None.
        like: a panel that lends its colours: the same part, see `matching.same_parts`, has the same in both.

    Attributes:
        cloud: (P, 3) float32, the points that are drawn, in the frame the net saw.
        nearest: (P,) for each of them, the row of the nearest point that the net was shown.
        available: how many points there are to draw.
        top: the most probable classes with their probabilities; none where nothing was classified.
        like: see above; it may be set until something is drawn.
    """

    def __init__(
        self,
        explanation: Hierarchy,
        title: str = "",
        most: int = 200_000,
        *,
        names: Sequence[str] | None = None,
        like: Panel | None = None,
    ) -> None:
        self.explanation, self.title, self.top = explanation, title, []
        self.names, self.like = names, like
        if (prediction := explanation.prediction) is not None:
            self.top = prediction.top
            self.title = title or f"{Path(prediction.file).name}: {prediction.label} {prediction.confidence:.0%}"
        # A line, and one that can be shown, whatever a file is called.
        self.title = " ".join(self.title.split()).encode("utf-8", "replace").decode()
        self.cloud, self.nearest = explanation.points, np.arange(len(explanation.points))
        self.available = len(self.cloud)
        if explanation.faces is None:
            self.available = max(self.available, len(explanation.vertices))
        if explanation.faces is None and len(explanation.vertices) > len(self.cloud) and most > len(self.cloud):
            points = self._near(self._in_cloud(explanation.vertices))
            if len(points) > most:
                points = points[_choice(len(points), most)]
            from pointcentroid.geometry.neighbours import nearest_rows  # torch, which few panels need

            self.nearest = nearest_rows(points, self.cloud)
            self.cloud = points
        elif len(self.cloud) > most:
            self.nearest = _choice(len(self.cloud), most)
            self.cloud = self.cloud[self.nearest]
        self._hard: dict[tuple[int, bool, int | None], np.ndarray] = {}
        self._stands: dict[tuple[int, int | None], tuple[np.ndarray, np.ndarray]] = {}

    def at_most(self, most: int) -> Panel:
        """The panel itself, or one of the same, in the same colours, with as many points."""
        if len(self.cloud) <= most:
            return self
        return Panel(self.explanation, self.title, most, names=self.names, like=self.like or self)

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.explanation.stages)

    @property
    def thinned(self) -> bool:
        """Whether the file holds more points than are drawn."""
        return self.available > len(self.cloud)

    @property
    def points_drawn(self) -> str:
        """How many points are drawn, and of how many, in words."""
        told = counted(self.available, "point")
        return f"{len(self.cloud):,} of {told}" if self.thinned else told

    @cached_property
    def middle(self) -> np.ndarray:
        """(3,) of the cloud's box."""
        return _middle(self.cloud)

    @cached_property
    def reach(self) -> float:
        """Distance of the farthest point from the middle, never zero."""
        return _reach(self.cloud - self.middle) or 1.0

    @cached_property
    def mesh(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(V, 3) vertices in the frame of the cloud and (F, 3) faces; None for a point cloud."""
        if self.explanation.faces is None:
            return None
        return self._in_cloud(self.explanation.vertices), self.explanation.faces

    # Colours

    @cached_property
    def reference(self) -> Panel:
        """The panel whose colours are lent, the first one where it has borrowed them itself; this one if there is none."""
        return self.like.reference if self.like and self.stages and self.like.stages else self

    @cached_property
    def parts(self) -> np.ndarray:
        """(M,) int64 numbers of the parts that the centroids of the last stage are: where the same part is found in the
        reference, its number there; of the reference itself, those of its centroids."""
        own = np.arange(len(self.explanation.stages[-1].positions))
        if self.reference is self:
            return own
        parts = same_parts(self.explanation, self.reference.explanation)
        return np.where(parts >= 0, parts, len(self.reference.parts) + own)

    @cached_property
    def _dress(self) -> tuple[np.ndarray, np.ndarray]:
        """(T, 2) tints and (M,) which of them the centroids of the last stage have."""
        places, parts, reference = self._stand(self.stages)[0], self.parts, self.reference
        used = np.isin(np.arange(len(places)), self.hard(self.stages))
        rows = np.full(len(places), -1)
        if reference is self:
            tints = wheel(len(places))
            free = np.arange(len(tints))
        else:
            tints, theirs = reference._dress
            found = parts < len(theirs)
            rows[found] = theirs[parts[found]]
            # Parts that the reference lacks take tints that none of its parts has.
            worn = theirs[np.isin(np.arange(len(theirs)), reference.hard(reference.stages))]
            free = np.setdiff1d(np.arange(len(tints)), np.concatenate([worn, rows]))
            tints = np.concatenate([tints, wheel(len(places), turned=True)])
            if len(free) < (used & ~found).sum():
                free = np.setdiff1d(np.arange(len(tints)), np.concatenate([worn, rows]))
        rows[used] = spread(places[used], tints, rows[used], free)
        # Centroids without points last: they are seen in some views of single heads only.
        return tints, spread(places, tints, rows, np.setdiff1d(np.arange(len(tints)), rows))

    @cached_property
    def _colours(self) -> list[np.ndarray]:
        combined = [stage.assignment.mean(axis=0) for stage in self.explanation.stages]
        places = [self._stand(stage)[0] for stage in range(1, self.stages + 1)]
        hard = [self._seen_hard(stage) for stage in range(1, self.stages + 1)]
        sizes = [np.bincount(one[one >= 0], minlength=len(place)) for one, place in zip(hard, places, strict=True)]
        tints, rows = self._dress
        return hierarchy_colours(places, sizes, combined, tints[rows])

    # Centroids and inputs

    def centroids(self, stage: int) -> tuple[np.ndarray, np.ndarray]:
        """(M, 3) where the centroids of a stage stand, see `matching.ball_places`, and (M, 3) their colours."""
        return self._stand(stage)[0], self._colours[stage - 1]

    def offsets(self, stage: int, head: int | None = None) -> np.ndarray:
        """(M, 3) from the middle of the cloud to the mean of each centroid's points."""
        return self._stand(stage, head)[1] - self.middle

    def inputs(self, stage: int, composed: bool = True) -> np.ndarray:
        """(K, 3) where that stands on which a stage's assignment is shown."""
        return self.cloud if stage <= 1 or composed else self._stand(stage - 1)[0]

    def weights(self, stage: int, composed: bool = True, head: int | None = None) -> np.ndarray:
        """Shares of the inputs.

        Args:
            stage: 1, 2 ...
            composed: of the original points; else of the stage's own inputs.
            head: one head of this stage (earlier stages combined); the mean of all if None.

        Returns:
            (K, M), for the K rows of `inputs`.
        """
        weights = self._weights(stage, composed, head)
        return weights[self.nearest] if composed or stage == 1 else weights

    def hard(self, stage: int, composed: bool = True, head: int | None = None) -> np.ndarray:
        """(K,) int64 the centroid that takes most of each input, `NO_CENTROID` where none takes any; see `weights`."""
        hard = self._seen_hard(stage, composed, head)
        return hard[self.nearest] if composed or stage == 1 else hard

    def heads(self, stage: int) -> int:
        """Number of attention heads of a stage."""
        return len(self.explanation.stages[stage - 1].assignment) if stage else 0

    def name(self, stage: int, number: int) -> str:
        """What a centroid is called."""
        if number == NO_CENTROID:
            return NO_CENTROIDS_NAME
        return self.names[number] if self.names and stage == self.stages else f"centroid {number}"

    def listed(self, stage: int, composed: bool = True, head: int | None = None) -> list[Listed]:
        """The centroids that take most of some input, the largest first, and at the end what goes to none."""
        if not stage:
            return []
        hard = self.hard(stage, composed, head)
        numbers, sizes = np.unique(hard, return_counts=True)
        colours = [UNASSIGNED if number == NO_CENTROID else self._colours[stage - 1][number] for number in numbers]
        lines = [
            Listed(number, self.name(stage, number), colour, size, size / len(hard))
            for number, colour, size in zip(numbers.tolist(), colours, sizes.tolist(), strict=True)
        ]
        return sorted(lines, key=lambda line: (line.number == NO_CENTROID, -line.size))

    def colours(self, stage: int, composed: bool = True, head: int | None = None, picked: int | None = None) -> np.ndarray:
        """(K, 3) colours of the inputs: by their centroid, or lit by their share in the `picked` one."""
        if stage == 0:
            return height_colours(self.cloud)
        own = self._colours[stage - 1]
        if picked is not None:
            return soft_colours(self.weights(stage, composed, head)[:, picked], own[picked])
        hard = self.hard(stage, composed, head)
        return np.where((hard >= 0)[:, None], own[hard], UNASSIGNED)

    def drawn(
        self,
        stage: int,
        composed: bool = True,
        head: int | None = None,
        *,
        picked: int | None = None,
        hidden: Collection[int] = (),
        apart: float = 0.0,
    ) -> Drawn:
        """What is drawn of a stage.

        Args:
            stage: 1, 2 ...; 0 for the cloud.
            composed: see `weights`.
            head: see `weights`.
            picked: light this centroid up: its ball alone has a colour.
            hidden: numbers of centroids that are left out, with what goes to them; `NO_CENTROID` may be one.
            apart: so many times its distance from the middle is a centroid moved outward, with all that goes to it; what is
                drawn shrinks as far as it must to reach as far as before.
        """
        colours = self.colours(stage, composed, head, picked)
        if not stage:
            nothing = np.zeros((0, 3))
            return Drawn(self.cloud, colours, np.full(len(self.cloud), NO_CENTROID), nothing, nothing, np.zeros(0, np.int64))
        hard, inputs = self.hard(stage, composed, head), self.inputs(stage, composed)
        used = np.unique(hard[hard >= 0])
        balls = self._stand(stage, head)[0][used]
        if apart:
            middle = self.middle
            moves = apart * np.concatenate([self.offsets(stage, head), np.zeros((1, 3))])  # the last for no centroid
            moved = inputs + moves[hard] - middle
            shrunk = min(1.0, self.reach / (_reach(moved) or 1.0))
            inputs, balls = middle + shrunk * moved, middle + shrunk * (balls + moves[used] - middle)
        tints = self._colours[stage - 1][used]
        if picked is not None:
            tints = np.where((used == picked)[:, None], tints, _FAINT)
        left_out = list(hidden)
        shown, stands = ~np.isin(hard, left_out), ~np.isin(used, left_out)
        return Drawn(inputs[shown], colours[shown], hard[shown], balls[stands], tints[stands], used[stands])

    def describe(self, stage: int, picked: int, composed: bool = True, head: int | None = None) -> str:
        """One line on a centroid: its name, how many inputs are mostly its, and its mass, the sum of its shares."""
        hard = self.hard(stage, composed, head)
        what = "points" if composed or stage == 1 else "centroids"
        mass = float(self.weights(stage, composed, head)[:, picked].sum(dtype=np.float64))
        name, number = self.name(stage, picked), f"centroid {picked}"
        called = f"{number} of stage {stage}" + (f", {name}" if name != number else "")
        return f"{called}: {int((hard == picked).sum())} of {len(hard)} {what}, weight mass {mass:.1f}"

    def _weights(self, stage: int, composed: bool, head: int | None) -> np.ndarray:
        """As `weights`, but of the points that the net saw."""
        stages = self.explanation.stages
        if head is None and (composed or stage == 1):
            return stages[stage - 1].composed
        own = stages[stage - 1].assignment
        own = own.mean(axis=0) if head is None else own[head]
        return stages[stage - 2].composed @ own if composed and stage > 1 else own

    def _seen_hard(self, stage: int, composed: bool = True, head: int | None = None) -> np.ndarray:
        """As `hard`, but of the points that the net saw."""
        key = stage, composed or stage == 1, head
        if key not in self._hard:
            self._hard[key] = largest_share(self._weights(*key))
        return self._hard[key]

    def _stand(self, stage: int, head: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(M, 3) where the balls of a stage stand, and (M, 3) the means of the points that are mostly theirs."""
        if (stage, head) not in self._stands:
            points, hard = self.explanation.points, self._seen_hard(stage, head=head)
            middles = cluster_middles(points, hard, self.explanation.stages[stage - 1].positions)
            self._stands[stage, head] = ball_places(points, hard, middles), middles
        return self._stands[stage, head]

    def _in_cloud(self, points: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # infinity is far enough
            return transformed(points, self.explanation.transform).astype(np.float32)

    def _near(self, points: np.ndarray) -> np.ndarray:
        """Those of (P, 3) points in the frame of the cloud that are not far from it."""
        middle = _middle(self.cloud)
        away = np.linalg.norm((points - middle).astype(np.float64), axis=1)
        return points[away <= _FAR * (_reach(self.cloud - middle) or 1.0)]


class ClassColours:
    """Lends every panel the colours of the first one of its predicted class, so that a part has one colour in a folder."""

    def __init__(self) -> None:
        self._first: dict[str, Panel] = {}

    def lend(self, panel: Panel) -> Panel:
        """Say whose colours a panel has, before it is drawn.

        Args:
            panel: it becomes the first of its class, if there is none yet.

        Returns:
            The same panel.
        """
        if (said := panel.explanation.prediction) is not None:
            first = self._first.setdefault(said.label, panel)
            panel.like = None if first is panel else first
        return panel


def counted(count: int, what: str) -> str:
    """How many there are of what, in words: `1 centroid`, `2,000 points`."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def _choice(count: int, most: int) -> np.ndarray:
    """(most,) of the first `count` numbers, in order, always the same."""
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def _middle(points: np.ndarray) -> np.ndarray:
    return (points.min(axis=0) + points.max(axis=0)) / 2


def _reach(points: np.ndarray) -> float:
    return float(np.linalg.norm(points, axis=1).max())
