"""A trained classifier as a graph: for ONNX Runtime (`.onnx`), or as a program of torch (`.pt2`).

A graph takes `clouds`, (B, N, 3) float32, preprocessed, z up, in farthest-point order at least as far as the first stage has
centroids, B and N free but N above that number, and gives `logits` (B, classes), `features` (B, F) and, where the net has
it, `known` (B,). Its metadata hold the card of the weights, as `pointcentroid.weights` describes it.
"""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pointcentroid.config import ClassifierConfig
from pointcentroid.errors import WeightsError, require
from pointcentroid.files import replacing
from pointcentroid.geometry.neighbours import nearest_neighbours
from pointcentroid.nn.centroid_attention import CentroidAttention
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.predict.nets import list_name, neighbour_lists, searches
from pointcentroid.weights import CARD_KEY, TENSORS_KEY, WeightsCard, load_weights, tensors_hash

TOLERANCE = 1e-4
"""Largest difference of a logit or a feature from torch's, in units of their spread, that an exported file may show."""

_MOST_POINTS = 2**20
_EXAMPLES = 3

Wanted = dict[tuple[int, int], tuple[int, int | None]]
"""What `searches` returns."""


class _Graph(nn.Module):
    """A net with its neighbours beside the clouds, by the names of `searches`."""

    def __init__(self, net: CentroidClassifier, names: Iterable[tuple[int, int]]) -> None:
        super().__init__()
        self.net, self.names = net, list(names)

    def forward(self, clouds: Tensor, *lists: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.names, lists, strict=False))
        logits, known, features = self.net.scores(clouds, ordered=True, lists=given)
        return (logits, features) if known is None else (logits, features, known)


class _Attention(nn.Module):
    """What `CentroidAttention` does over the lists of centroids, in the order in which ONNX Runtime is fastest.

    Args:
        of: with `axis="inputs"`.
    """

    def __init__(self, of: CentroidAttention) -> None:
        super().__init__()
        self.of = of
        key, value = (layer.weight.detach().unflatten(0, (of.heads, -1)) for layer in (of.key, of.value))  # H d C
        self.key, self.value = nn.Parameter(key * of.scale), nn.Parameter(value.transpose(1, 2).contiguous())

    def forward(self, centroids: Tensor, pairs: Tensor, _positions: object) -> tuple[Tensor, None]:
        for _ in range(self.of.steps):
            queries = self.of.query(self.of.norm(centroids))
            weights = (self._by_head(queries.unflatten(2, (self.of.heads, -1)), self.key) @ pairs.transpose(2, 3)).softmax(3)
            update = self._by_head(weights @ pairs, self.value).flatten(2)
            centroids = centroids + self.of.step_size * self.of.out(update)
        return centroids, None

    @staticmethod
    def _by_head(values: Tensor, maps: Tensor) -> Tensor:
        """(B, M, H, I) and (H, I, O) -> (B, M, H, O)."""
        made = values.permute(2, 0, 1, 3).flatten(1, 2) @ maps
        return made.unflatten(1, values.shape[:2]).permute(1, 2, 0, 3)


def _reorder(net: CentroidClassifier) -> None:
    for stage in net.encoder.stages:
        attention = stage.attention
        # Where centroids move, the weights are asked for too.
        if (
            isinstance(attention, CentroidAttention)
            and attention.axis == "inputs"
            and stage.side == "centroids"
            and not stage.move
        ):
            stage.attention = _Attention(attention)


class _Search(nn.Module):
    """The neighbours themselves."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__()
        self.wanted = wanted

    def forward(self, clouds: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            nearest_neighbours(clouds[:, :rows], clouds[:, :columns], count)
            for (_, count), (rows, columns) in self.wanted.items()
        )


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
    _check(weights, card, to.suffix)
    wanted = searches(card)
    net, own = (CentroidClassifier.from_tensors(card.model, tensors) for _ in range(2))
    graph = _Graph(net, wanted).eval()
    metadata = {CARD_KEY: card.to_json(), TENSORS_KEY: tensors_hash(weights)}
    with _quiet(), torch.no_grad():
        if to.suffix == ".pt2":
            buffer = io.BytesIO()
            torch.export.save(_traced(graph, card.model.seeds), buffer, extra_files=metadata)
            content = buffer.getvalue()
        else:
            _reorder(net)
            content = _onnx(graph, card.model.seeds, wanted, metadata)
    difference = _difference(_Graph(own, wanted), content, to.suffix, card)
    if not difference <= TOLERANCE:
        raise WeightsError(f"{weights}: the exported graph differs from torch by {difference:.2g}, more than {TOLERANCE:g}")
    with replacing(to) as temporary:
        temporary.write_bytes(content)
    return difference


def _check(weights: Path, card: WeightsCard, suffix: str) -> None:
    """Refuse what no graph can be made of: what depends on chance or data in ways that cannot be traced."""
    if card.preprocess.points <= card.model.seeds:
        raise WeightsError(
            f"{weights}: of a net whose centroids are all points that it sees no graph can be made; torch runs it"
        )
    if isinstance(card.model, ClassifierConfig) and (first := card.model.encoder.stages[0]).neighbours > first.centroids + 1:
        raise WeightsError(
            f"{weights}: of a net whose first centroids have more neighbours than there are centroids no graph can be made; "
            "torch runs it"
        )
    fixed = {"initialiser": "fps", "side": "centroids"} | ({"centroid_position": "seed"} if suffix == ".onnx" else {})
    for key, value in fixed.items():
        if isinstance(card.model, ClassifierConfig) and (found := getattr(card.model.encoder, key)) != value:
            raise WeightsError(f"{weights}: of a net with encoder.{key}={found} no {suffix} can be made; torch runs it")


def _traced(module: nn.Module, seeds: int, lists: Iterable[Tensor] = ()) -> torch.export.ExportedProgram:
    """A program for any number of clouds, of any number of points above that of the seeds."""
    batch = torch.export.Dim("batch", min=1, max=2**16)
    points = torch.export.Dim("points", min=seeds + 1, max=_MOST_POINTS)
    # Traced on sizes that no layer has, so that none is taken for a constant.
    example = torch.rand(_EXAMPLES, seeds + 137, 3, generator=torch.Generator().manual_seed(0))
    lists = tuple(lists)
    shapes: list[Any] = [{0: batch, 1: points}]
    if lists:
        shapes.append(tuple({0: batch} for _ in lists))
    return torch.export.export(module, (example, *lists), dynamic_shapes=tuple(shapes), strict=False)


def _onnx(graph: _Graph, seeds: int, wanted: Wanted, metadata: dict[str, str]) -> bytes:
    require("exporting to ONNX", "export", "onnx", "onnxscript")
    lengths = {name: min(name[1], among or name[1]) for name, (_, among) in wanted.items()}
    lists = {
        list_name(*name): torch.zeros(_EXAMPLES, rows, lengths[name], dtype=torch.int64)
        for name, (rows, _) in wanted.items()
    }
    outputs = ["logits", "features", "known"][: 2 + graph.net.config.known]
    model = _converted(_traced(graph, seeds, lists.values()), ["clouds", *lists], outputs)
    if lists:
        finder = _converted(_traced(_Search(wanted), seeds), ["clouds"], [f"{name}_found" for name in lists])
        _find_unless_given(model, finder, {name: list(example.shape[1:]) for name, example in lists.items()})
    model = _simplified(model)
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model.SerializeToString()


def _converted(program: torch.export.ExportedProgram, inputs: list[str], outputs: list[str]) -> Any:
    exported = torch.onnx.export(
        program,
        dynamo=True,
        optimize=False,  # its optimiser fails on these graphs; ONNX Runtime has its own
        input_names=inputs,
        output_names=outputs,
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    for node in model.graph.node:  # names of source files, of this machine, are no one's business
        del node.metadata_props[:]
        node.doc_string = ""
    return model


def _simplified(model: Any) -> Any:
    """The same in fewer operators, of the standard: what ONNX Runtime would do whenever it loads the graph, done once."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simple.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        simple = onnx.load(path)
    standard = [entry for entry in simple.opset_import if not entry.domain]
    del simple.opset_import[:]
    simple.opset_import.extend(standard)
    return simple


def _find_unless_given(model: Any, finder: Any, lists: dict[str, list[int]]) -> None:
    """Make lists inputs that may be left out, as ONNX has it with an initial value: an empty one, for which they are found.

    Args:
        model: a graph with the inputs `clouds` and lists; is changed.
        finder: a graph of `clouds`, whose outputs are the lists, found.
        lists: (R, K) by name.
    """
    from onnx import TensorProto, compose, helper

    finder = compose.add_prefix(finder, "search_", rename_inputs=False, rename_outputs=False)
    graph = model.graph
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in lists:
                node.input[place] = f"{name}_used"
    for name, shape in lists.items():
        graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [0, *shape], []))
    typed = {
        end: [
            helper.make_tensor_value_info(f"{name}_{end}", TensorProto.INT64, ["batch", *shape])
            for name, shape in lists.items()
        ]
        for end in ("found", "given")
    }
    found = helper.make_graph(finder.graph.node, "found", [], typed["found"], finder.graph.initializer)
    taken = [helper.make_node("Identity", [name], [f"{name}_given"]) for name in lists]
    given = helper.make_graph(taken, "given", [], typed["given"])
    first = next(iter(lists))
    graph.initializer.append(helper.make_tensor("nothing", TensorProto.INT64, [], [0]))
    nodes = [
        helper.make_node("Size", [first], ["size"]),
        helper.make_node("Equal", ["size", "nothing"], ["missing"]),
        helper.make_node("If", ["missing"], [f"{name}_used" for name in lists], then_branch=found, else_branch=given),
        *graph.node,
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    known = {(function.domain, function.name) for function in model.functions}
    model.functions.extend(f for f in finder.functions if (f.domain, f.name) not in known)


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
def _difference(graph: _Graph, content: bytes, suffix: str, card: WeightsCard) -> float:
    """Largest difference from torch over clouds of several sizes, in units of the outputs' spread."""
    if suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns of inputs that may be left out
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

        def runs(clouds: Tensor) -> Iterator[Any]:
            feed = {"clouds": clouds.numpy()}
            yield session.run(None, feed)
            lists = neighbour_lists(clouds.numpy(), card)
            yield session.run(None, feed | {list_name(*name): values for name, values in lists.items()})
    else:
        program = torch.export.load(io.BytesIO(content)).module()

        def runs(clouds: Tensor) -> Iterator[Any]:
            yield [made.numpy() for made in program(clouds)]

    generator, largest, seeds = torch.Generator().manual_seed(1), 0.0, card.model.seeds
    for batch, points in ((1, 1024), (4, 1024), (2, seeds + 1), (1, 2048)):
        surface = nn.functional.normalize(torch.randn(batch, max(points, seeds + 1), 3, generator=generator), dim=2)
        if batch == 4:
            surface[:2] = (surface[:2] * 8).round() / 8  # voxels, of which many are equally near
        for run in runs(surface):
            for made, expected in zip(run, graph(surface), strict=True):
                spread = float(expected.std(correction=0)) or 1.0
                largest = max(largest, float(np.abs(made - expected.numpy()).max()) / spread)
    return largest
