"""A trained classifier as a graph: for ONNX Runtime (`.onnx`), or as a program of torch (`.pt2`).

A graph takes `clouds`, (B, N, 3) float32, preprocessed, z up, in farthest-point order at least as far as the first stage has
centroids, B and N free but N above that number, and gives `logits` (B, classes), `features` (B, F) and, where the net has
it, `known` (B,). Its metadata hold the card of the weights, as `pointcentroid.weights` describes it.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pointcentroid.errors import WeightsError, require
from pointcentroid.files import replacing
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.weights import CARD_KEY, TENSORS_KEY, load_weights, tensors_hash

TOLERANCE = 1e-4
"""Largest difference of a logit or a feature from torch's, in units of their spread, that an exported file may show."""

_MOST_POINTS = 2**20


class _Graph(nn.Module):
    def __init__(self, net: CentroidClassifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, clouds: Tensor) -> tuple[Tensor, ...]:
        logits, known, features = self.net.scores(clouds, ordered=True)
        return (logits, features) if known is None else (logits, features, known)


def export(weights: Path, to: Path) -> float:
    """Write a graph, after it has been checked against torch.

    Args:
        weights: a weights file of a classifier.
        to: the file to write, ending in `.onnx` or `.pt2`.

    Returns:
        The largest difference from torch that was seen.

    Raises:
        WeightsError: the weights are of another kind of net, or the graph does not compute what torch does.
        MissingExtraError: the exporter is not installed.
    """
    if to.suffix not in (".onnx", ".pt2"):
        raise WeightsError(f"{to}: a graph ends in .onnx or .pt2")
    tensors, card = load_weights(weights)
    graph = _Graph(CentroidClassifier.from_tensors(card.model, tensors)).eval()
    metadata = {CARD_KEY: card.to_json(), TENSORS_KEY: tensors_hash(weights)}
    seeds = card.model.seeds
    batch = torch.export.Dim("batch", min=1, max=2**16)
    points = torch.export.Dim("points", min=seeds + 1, max=_MOST_POINTS)
    # Traced on sizes that no layer has, so that none is taken for a constant.
    example = torch.rand(3, seeds + 137, 3, generator=torch.Generator().manual_seed(0))
    with _quiet(), torch.no_grad():
        program = torch.export.export(graph, (example,), dynamic_shapes=({0: batch, 1: points},), strict=False)
        if to.suffix == ".pt2":
            buffer = io.BytesIO()
            torch.export.save(program, buffer, extra_files=metadata)
            content = buffer.getvalue()
        else:
            content = _onnx(program, metadata, ["logits", "features", "known"][: 2 + graph.net.config.known])
    difference = _difference(graph, content, to.suffix, seeds)
    if not difference <= TOLERANCE:
        raise WeightsError(f"{weights}: the exported graph differs from torch by {difference:.2g}, more than {TOLERANCE:g}")
    with replacing(to) as temporary:
        temporary.write_bytes(content)
    return difference


def _onnx(program: Any, metadata: dict[str, str], outputs: list[str]) -> bytes:
    require("exporting to ONNX", "export", "onnx", "onnxscript")
    exported = torch.onnx.export(
        program,
        dynamo=True,
        optimize=False,  # its optimiser fails on these graphs; ONNX Runtime has its own
        input_names=["clouds"],
        output_names=outputs,
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    for node in model.graph.node:  # names of source files, of this machine, are no one's business
        del node.metadata_props[:]
        node.doc_string = ""
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model.SerializeToString()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on libraries that are not there."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@torch.inference_mode()
def _difference(graph: nn.Module, content: bytes, suffix: str, seeds: int) -> float:
    """Largest difference from torch over clouds of several sizes, in units of the outputs' spread."""
    if suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

        def run(clouds: Tensor) -> Any:
            return session.run(None, {"clouds": clouds.numpy()})
    else:
        program = torch.export.load(io.BytesIO(content)).module()

        def run(clouds: Tensor) -> Any:
            return [made.numpy() for made in program(clouds)]

    generator, largest = torch.Generator().manual_seed(1), 0.0
    for batch, points in ((1, 1024), (4, 1024), (2, seeds + 1), (1, 2048)):
        surface = nn.functional.normalize(torch.randn(batch, max(points, seeds + 1), 3, generator=generator), dim=2)
        for made, expected in zip(run(surface), graph(surface), strict=True):
            spread = float(expected.std(correction=0)) or 1.0
            largest = max(largest, float(np.abs(made - expected.numpy()).max()) / spread)
    return largest
