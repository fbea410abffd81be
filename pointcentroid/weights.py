"""Weights files: one safetensors file that holds everything a prediction needs, and nothing that can execute.

The tensors stand beside one metadata entry, `pointcentroid`, a JSON object:

    format       1, the version of this layout
    name         of the model
    model        a `ModelConfig` as plain data
    preprocess   `PreprocessConfig` as plain data
    classes      class names, in the order of the logits; none for an autoencoder
    metrics      what was measured, by name, with the protocol in the name
    temperature  what logits are divided by, so that confidence means what it says; 1 if absent
    known        `KnownScale` as plain data: how the output `known` becomes a number between 0 and 1
    provenance   configuration, data hash, seed and versions of the run that made it

The card can be read without torch. A graph for ONNX Runtime (`pointcentroid.export.onnx`) carries the same card in its
metadata, and under `pointcentroid_tensors` the hash of the tensors it was made of. Beside its weights, as `small.onnx`
beside `small.safetensors`, it is what predicts; the card is then that of the weights, which may have been calibrated since.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from pointcentroid.config import (
    ClassifierConfig,
    ModelConfig,
    PreprocessConfig,
    from_dict,
    model_from_dict,
    nearest_name,
    to_dict,
)
from pointcentroid.errors import ConfigError, WeightsError, one_line, printable, require
from pointcentroid.files import replacing
from pointcentroid.geometry.axes import UP_AXES

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
_BEFORE_BATCH_NORM = {"norm": "layer", "tokens": "pairs"}  # what encoders were before they said it, in 0.1.0
HUB = "hf://"
HUB_FILES = "model.safetensors", "model.onnx"
"""What a repository on a hub holds: weights, and perhaps their graph."""
STAND_IN = "small"
"""Shipped weights that find the axis for nets that have no output for it, and classify for nets of parts."""
CARD_KEY, TENSORS_KEY = "pointcentroid", "pointcentroid_tensors"


@dataclass(frozen=True)
class KnownScale:
    """How like the shapes of its classes a net finds a shape: sigmoid(known + energy_weight * energy - threshold).

    `known` is the net's output of that name, the energy log(sum(exp(logits))) (Liu et al., "Energy-based out-of-distribution
    detection", NeurIPS 2020). Fitted on validation shapes by `pointcentroid.evaluate.calibration`.
    """

    energy_weight: float = 0.0
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.energy_weight) and math.isfinite(self.threshold)):
            raise ConfigError(f"known must be finite, found {self.energy_weight} and {self.threshold}")


@dataclass(frozen=True)
class WeightsCard:
    """What a weights file says of itself; the fields stand at the top of `pointcentroid.weights`."""

    name: str
    model: ModelConfig
    preprocess: PreprocessConfig
    classes: tuple[str, ...]
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    known: KnownScale = KnownScale()

    def __post_init__(self) -> None:
        if isinstance(self.model, ClassifierConfig) and len(self.classes) != self.model.classes:
            raise WeightsError(f"{self.name}: {len(self.classes)} class names for {self.model.classes} outputs")
        if len(set(self.classes)) < len(self.classes) or "" in self.classes:
            raise WeightsError(f"{self.name}: names of classes must differ, and none be empty")
        if not 1e-3 <= self.temperature <= 1e3:
            raise WeightsError(f"{self.name}: the temperature must lie in 0.001..1000, found {self.temperature}")

    def to_json(self) -> str:
        """The metadata entry."""
        return json.dumps({"format": FORMAT, **to_dict(self)}, sort_keys=True)

    @property
    def figures(self) -> dict[str, Any]:
        """The metrics that are one number each, without intervals."""
        return {name: value for name, value in self.metrics.items() if not isinstance(value, list)}

    @property
    def trained_on_all(self) -> bool:
        """Whether validation shapes were trained on too. The metrics of such weights are those of others of the recipe."""
        return self.provenance.get("config", {}).get("split") == "all"

    @property
    def up(self) -> str | None:
        """What points up in the raw shapes that they were trained on, see `pointcentroid.data.cache.prepare_cache`."""
        said = self.provenance.get("config", {}).get("up")
        return said if said in ("auto", *UP_AXES) else None

    @property
    def trained_on(self) -> tuple[str, ...]:
        """Fingerprints of the data sets that these weights, or those they began with or learnt from, were trained on."""
        own = self.provenance.get("data_sha256")
        return tuple(self.provenance.get("trained_on", [own] if own else []))

    @property
    def knows_validation(self) -> tuple[str, ...]:
        """Those of `trained_on` of which the validation shapes were trained on too."""
        known = self.provenance.get("knows_validation", self.trained_on_all)
        if isinstance(known, bool):  # as cards said it before they named data sets
            return self.trained_on if known else ()
        return tuple(known)


def save_weights(path: str | Path, tensors: dict[str, Tensor], card: WeightsCard) -> None:
    """Write a weights file, whole or not at all.

    Args:
        path: where to; by custom ending in `.safetensors`.
        tensors: a state dict.
        card: what the file says of itself.
    """
    import safetensors.torch

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        safetensors.torch.save_file(contiguous, temporary, {CARD_KEY: card.to_json()})


def read_card(path: str | Path) -> WeightsCard:
    """Read what a weights file, or an exported graph, says of itself, without its tensors.

    Args:
        path: the file.

    Raises:
        WeightsError: the file is absent, damaged, of a later format, or not ours.
    """
    metadata = graph_metadata(path) if Path(path).suffix == ".onnx" else _open(path, "numpy").metadata()
    return _parse_card(path, metadata)


def graph_metadata(path: str | Path) -> dict[str, str]:
    """What stands beside an ONNX graph.

    Raises:
        WeightsError: the file is absent or damaged.
    """
    import onnxruntime

    if not Path(path).is_file():
        raise WeightsError(f"{path}: no such graph")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(path, options).get_modelmeta().custom_metadata_map
    except Exception as error:  # its exceptions share no base but this
        raise WeightsError(f"{path}: not an ONNX graph, or a damaged one ({str(error)[:120]})") from None


def tensors_hash(path: str | Path) -> str:
    """SHA-256 of the tensors of a weights file, whatever its card says.

    Raises:
        WeightsError: the file is absent or damaged.
    """
    _open(path, "numpy")
    content = Path(path).read_bytes()
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


def is_of(metadata: dict[str, str], weights: Path) -> bool:
    """Whether the graph that has this metadata was made of the tensors that a weights file holds now.

    Raises:
        WeightsError: the weights are absent or damaged.
    """
    return metadata.get(TENSORS_KEY) == tensors_hash(weights)


def graph_of(weights: Path) -> Path:
    """Where the graph of weights stands, if there is one: the file itself, or beside it under the same name."""
    return weights.with_suffix(".onnx")


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], WeightsCard]:
    """Read a weights file.

    Args:
        path: the file.

    Returns:
        The state dict, its floating-point tensors in float32, and what the file says of itself.

    Raises:
        WeightsError: the file is absent, damaged, of a later format, or not ours, or holds what no training can arrive at.
    """
    file = _open(path, "pt")
    card = _parse_card(path, file.metadata())
    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    for name, tensor in tensors.items():
        if tensor.is_complex():
            raise WeightsError(f"{path}: its tensor {name} is complex; expected float32")
        if tensor.is_floating_point():  # others may have stored it in fewer digits
            tensors[name] = tensor = tensor.float()
        if not tensor.isfinite().all():
            raise WeightsError(f"{path}: its tensor {name} holds numbers that are not finite; the training went astray")
        if name.endswith("running_var") and (tensor < 0).any():
            raise WeightsError(f"{path}: its tensor {name} holds variances below 0; the file is damaged")
    return tensors, card


def _open(path: str | Path, framework: str) -> Any:
    if not Path(path).is_file():
        raise WeightsError(f"{path}: no such weights file")
    if Path(path).suffix == ".onnx":
        raise WeightsError(f"{path} is a graph; expected the weights it was made of")
    if Path(path).suffix == ".ckpt":
        raise WeightsError(f"{path} is of a training that goes on from it with --resume; weights are what it ends with")
    try:
        return safetensors.safe_open(path, framework=framework)
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path}: not a safetensors file, or a damaged one ({error})") from None


def _parse_card(path: str | Path, metadata: dict[str, str] | None) -> WeightsCard:
    if not metadata or CARD_KEY not in metadata:
        raise WeightsError(f"{path}: not a file of pointcentroid's (no {CARD_KEY!r} in its metadata)")
    try:
        description = json.loads(metadata[CARD_KEY])
        version = description.pop("format")
        if version != FORMAT:
            raise WeightsError(f"{path}: format {version}, but this version reads format {FORMAT}: upgrade pointcentroid")
        if "encoder" in description["model"]:
            description["model"]["encoder"] = _BEFORE_BATCH_NORM | description["model"]["encoder"]
        return WeightsCard(
            name=printable(description["name"]),
            model=model_from_dict(description["model"], "model"),
            preprocess=from_dict(PreprocessConfig, description["preprocess"], "preprocess"),
            classes=tuple(printable(name) for name in _listed(description["classes"], "classes")),
            metrics=dict(description["metrics"]),
            provenance=_provenance(description["provenance"]),
            temperature=float(description.get("temperature", 1.0)),
            known=from_dict(KnownScale, description.get("known", {}), "known"),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, ConfigError) as error:
        raise WeightsError(f"{path}: its description is damaged ({one_line(error)})") from None


def _listed(names: Any, what: str) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{what} must be a list of names")
    return names


def _provenance(values: Any) -> dict[str, Any]:
    """What is read of it must be of the types that are read; the rest is whatever it is."""
    values = dict(values)
    if not isinstance(values.get("config", {}), dict):
        raise TypeError("provenance.config must be a mapping")
    for key in ("trained_on", "knows_validation"):
        if not isinstance(values.get(key, True), bool):  # cards said it so before they named data sets
            _listed(values[key], f"provenance.{key}")
    return values


def shipped_weights() -> dict[str, Path]:
    """Names and paths of the weights that come with the package."""
    folder = files("pointcentroid") / "checkpoints"
    return {Path(str(p)).stem: Path(str(p)) for p in folder.iterdir() if p.name.endswith(".safetensors")}


def find_weights(name_or_path: str | Path) -> Path:
    """Resolve the name of shipped weights, a path, or an address on a Hugging Face hub.

    Args:
        name_or_path: such as `small`, `runs/mine/mine.safetensors`, `hf://owner/name` or `hf://owner/name@revision`.

    Raises:
        WeightsError: it is none of these; the nearest shipped name is suggested.
        MissingExtraError: it is an address, and huggingface_hub is not installed.
    """
    if str(name_or_path).startswith(HUB):
        return _from_hub(str(name_or_path))
    shipped = shipped_weights()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.is_dir() and (found := sorted(path.glob("*.safetensors"))):
        raise WeightsError(f"{path} is a folder; the weights in it are {', '.join(map(str, found))}")
    hint = nearest_name(str(name_or_path), shipped)
    raise WeightsError(
        f"no weights named {str(name_or_path)!r}{hint}, and no such file; shipped: {', '.join(sorted(shipped))}"
    )


def find_classifier(name_or_path: str | Path) -> tuple[Path, WeightsCard]:
    """The weights that classify, and their card: those of `find_weights`, or of a net of parts those beside it.

    Args:
        name_or_path: see `find_weights`.

    Raises:
        WeightsError: see `find_weights` and `read_card`.
        MissingExtraError: see `find_weights`.
    """
    path = find_weights(name_or_path)
    card = read_card(path)
    return (path, card) if card.model.kind != "parts" else find_classifier(STAND_IN)


@cache
def _from_hub(address: str) -> Path:
    """Fetch weights, and their graph if there is one, into the cache of huggingface_hub; say which revision it is."""
    require("fetching weights from a hub", "hub", "huggingface_hub")
    import huggingface_hub
    from huggingface_hub import errors

    repository, _, revision = address.removeprefix(HUB).partition("@")
    try:
        # Tensors and a graph: neither can execute anything when it is read.
        weights = huggingface_hub.hf_hub_download(repository, HUB_FILES[0], revision=revision or None)
        with suppress(errors.EntryNotFoundError):
            huggingface_hub.hf_hub_download(repository, HUB_FILES[1], revision=revision or None)
    except errors.LocalEntryNotFoundError:
        raise WeightsError(f"{address}: the hub cannot be reached, and the weights are not in the cache") from None
    except errors.RepositoryNotFoundError:
        raise WeightsError(f"{address}: no such repository, or a private one; hf auth login shows yours") from None
    except errors.RevisionNotFoundError:
        raise WeightsError(f"{address}: the repository has no revision {revision!r}") from None
    except errors.EntryNotFoundError:
        raise WeightsError(f"{address}: the repository holds no {HUB_FILES[0]}, so no weights of pointcentroid") from None
    except errors.HFValidationError:
        raise WeightsError(f"{address}: expected hf://owner/name or hf://owner/name@revision") from None
    except (errors.HfHubHTTPError, errors.HTTPError, OSError) as error:  # type: ignore[reportPrivateImportUsage]
        raise WeightsError(f"{address}: the hub does not answer ({one_line(error)})") from None
    print(f"{address}: revision {Path(weights).parent.name}", file=sys.stderr)
    return Path(weights)
