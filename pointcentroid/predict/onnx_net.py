"""A net in ONNX Runtime."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime

from pointcentroid.errors import WeightsError
from pointcentroid.predict.nets import Answer
from pointcentroid.weights import is_of, read_card

_AT_ONCE = 8
"""Clouds in one run: what they need on the way stays in the processor's cache, and memory stays small."""


class OnnxNet:
    """A classifier as `pointcentroid.export.onnx` wrote it, on the CPU.

    Args:
        graph: the ONNX file.
        weights: what the card is read from: the weights file that it is of, or the graph itself.

    Raises:
        WeightsError: the graph is damaged.
    """

    def __init__(self, graph: Path, weights: Path) -> None:
        self.card = read_card(weights)
        options = onnxruntime.SessionOptions()
        # The nets are small: a thread for each part of a batch does more than several threads for each operation.
        options.intra_op_num_threads = 1
        self._threads = ThreadPoolExecutor(os.cpu_count(), "net")
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base but this
            raise WeightsError(f"{graph}: not a graph that ONNX Runtime can load ({str(error)[:120]})") from None

    def is_of(self, weights: Path) -> bool:
        """Whether the graph was made of the tensors that a weights file holds now; a graph given as weights always is."""
        return weights.suffix == ".onnx" or is_of(self.session.get_modelmeta().custom_metadata_map, weights)

    @property
    def feature_dim(self) -> int:
        """Channels of the global feature."""
        return self.session.get_outputs()[1].shape[1]

    def __call__(self, clouds: np.ndarray) -> Answer:
        """See `pointcentroid.predict.nets.PredictingNet`."""
        clouds = np.ascontiguousarray(clouds, dtype=np.float32)
        parts = [clouds[start : start + _AT_ONCE] for start in range(0, len(clouds), _AT_ONCE)]
        run = map if len(parts) == 1 else self._threads.map
        logits, features, *known = (np.concatenate(outputs) for outputs in zip(*run(self._run, parts), strict=True))
        return Answer(logits, features, known[0] if known else np.full(len(clouds), np.nan, np.float32))

    def _run(self, clouds: np.ndarray) -> list[np.ndarray]:
        return self.session.run(None, {"clouds": clouds})  # type: ignore[return-value]
