"""A net in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime

from pointcentroid.config import ClassifierConfig
from pointcentroid.errors import WeightsError
from pointcentroid.predict.nets import Answer, Lists, list_name, neighbour_lists, searches
from pointcentroid.weights import is_of, read_card

Made = TypeVar("Made")

_AT_ONCE, _FEWEST = 8, 4
"""Clouds in one run: what they need on the way stays in the processor's cache, and memory stays small. Of fewer than the
second, each costs more."""


class OnnxNet:
    """A classifier as `pointcentroid.export.onnx` wrote it, on the CPU.

    Args:
        graph: the ONNX file.
        weights: what the card is read from: the weights file that it is of, or the graph itself.

    Raises:
        WeightsError: the graph is damaged, or not of the net that the card describes.
    """

    def __init__(self, graph: Path, weights: Path) -> None:
        self.card = read_card(weights)
        options = onnxruntime.SessionOptions()
        # The nets are small: a thread for each part of a batch does more than several threads for each operation.
        options.intra_op_num_threads = 1
        self._processors = os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(self._processors, "net")
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base but this
            hint = "" if graph == weights else "; without it, torch answers, and pointcentroid export makes it anew"
            raise WeightsError(f"{graph}: not a graph that ONNX Runtime can load ({str(error)[:120]}){hint}") from None
        # What a graph can be given beside clouds; found here, neighbours take a fifth of the time.
        self._listing = bool(self.session.get_overridable_initializers())
        if self.is_of(weights) and not self._fits():
            raise WeightsError(f"{graph}: takes or gives other things than its description says")

    def _fits(self) -> bool:
        model = self.card.model
        wanted = {
            list_name(*name): [rows, min(name[1], among or name[1])] for name, (rows, among) in searches(self.card).items()
        }
        lists = {one.name: one.shape[1:] for one in self.session.get_overridable_initializers()}
        made = [one.shape[1:] for one in self.session.get_outputs()]
        return (
            isinstance(model, ClassifierConfig)
            and [one.name for one in self.session.get_inputs()] == ["clouds"]
            and lists in ({}, wanted)
            and len(made) == 2 + model.known
            and made[0] == [model.classes]
        )

    def is_of(self, weights: Path) -> bool:
        """Whether the graph was made of the tensors that a weights file holds now; a graph given as weights always is."""
        return weights.suffix == ".onnx" or is_of(self.session.get_modelmeta().custom_metadata_map, weights)

    @property
    def feature_dim(self) -> int:
        """Channels of the global feature."""
        return self.session.get_outputs()[1].shape[1]

    def __call__(self, clouds: np.ndarray, lists: Lists | None = None) -> Answer:
        """See `pointcentroid.predict.nets.PredictingNet`."""
        clouds = np.ascontiguousarray(clouds, dtype=np.float32)

        def run(part: slice) -> list[np.ndarray]:
            feed = {"clouds": clouds[part]}
            if self._listing:
                found = neighbour_lists(clouds[part], self.card) if lists is None else lists
                given = slice(None) if lists is None else part
                feed |= {list_name(*name): values[given] for name, values in found.items()}
            return self.session.run(None, feed)  # type: ignore[return-value]

        logits, features, *known = (np.concatenate(made) for made in zip(*self._in_parts(run, len(clouds)), strict=True))
        return Answer(logits, features, known[0] if known else np.full(len(clouds), np.nan, np.float32))

    def neighbours(self, clouds: np.ndarray) -> Lists:
        """See `pointcentroid.predict.nets.PredictingNet`."""
        parts = self._in_parts(lambda part: neighbour_lists(clouds[part], self.card), len(clouds))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _in_parts(self, work: Callable[[slice], Made], count: int) -> list[Made]:
        """Do some of the clouds at a time, on all processors."""
        number = max(-(-count // _AT_ONCE), min(self._processors, count // _FEWEST))
        ends = np.linspace(0, count, number + 1).astype(int).tolist()
        parts = [slice(start, end) for start, end in pairwise(ends)]
        return [work(parts[0])] if number == 1 else list(self._threads.map(work, parts))
