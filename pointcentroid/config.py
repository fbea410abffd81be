"""Everything that can be configured, as frozen dataclasses that check themselves.

Imports neither torch nor OmegaConf, so that reading a configuration costs nothing; YAML files are read in
`pointcentroid.train.settings`. `from_dict` and `to_dict` are the round trip used inside weights files.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import os
import re
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from pointcentroid.errors import ConfigError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


_LONGEST_NAME = 200  # bytes; what a run writes is called after it, and file systems allow 255


@dataclass(frozen=True)
class PreprocessConfig:
    """How a shape becomes the cloud a net sees. Stored with the weights, used for training and prediction alike."""

    sample: int = 1024  # points drawn from a surface; point clouds are thinned, or filled up, to as many
    points: int = 1024  # how many of them, in farthest-point order, the net sees
    seed: int = 0  # of the sampling; votes use the seeds that follow

    def __post_init__(self) -> None:
        _require(self.sample >= 1, f"preprocess.sample must be at least 1, found {self.sample}")
        _require(
            1 <= self.points <= self.sample,
            f"preprocess.points must lie in 1..preprocess.sample={self.sample}, found {self.points}",
        )
        _require(self.seed >= 0, f"preprocess.seed must not be negative, found {self.seed}")


@dataclass(frozen=True)
class StageConfig:
    """One stage of the hierarchy: inputs in, `centroids` out."""

    centroids: int
    dim: int
    neighbours: int = 16  # K nearest inputs a centroid lists, or k nearest centroids an input lists (see `side`)
    heads: int = 4
    local_blocks: int = 0  # blocks among nearest centroids, `neighbours` of them, after the centroid attention
    blocks: int = 0  # self-attention blocks among the centroids, after those
    block_neighbours: int = 0  # nearest centroids each centroid attends to in those blocks; 0 for all

    def __post_init__(self) -> None:
        for name in ("centroids", "dim", "neighbours", "heads"):
            _require(getattr(self, name) >= 1, f"stage.{name} must be at least 1, found {getattr(self, name)}")
        for name in ("local_blocks", "blocks", "block_neighbours"):
            _require(getattr(self, name) >= 0, f"stage.{name} must not be negative, found {getattr(self, name)}")
        _require(self.dim % self.heads == 0, f"stage.dim={self.dim} must be a multiple of stage.heads={self.heads}")


@dataclass(frozen=True)
class EncoderConfig:
    """A hierarchical centroid-attention encoder."""

    stages: tuple[StageConfig, ...] = (
        StageConfig(256, 64),
        StageConfig(64, 128, blocks=1),
        StageConfig(16, 256, blocks=1),
    )
    embed: int = 0  # channels of the embedding of a point; 0 where the first stage needs none but relative positions
    norm: Literal["batch", "layer"] = "batch"
    tokens: Literal["points", "pairs"] = "points"  # features pass a linear layer point by point, or an MLP pair by pair
    relative: int = 32  # channels of the MLP of relative positions, with tokens=points
    drop_path: float = 0.0  # share of the clouds for which what a (local) block adds is left out in training: of one among
    # all centroids, what its feed-forward layer adds
    initialiser: Literal["fps", "random", "voxel", "kmeans++", "learned"] = "fps"
    axis: Literal["inputs", "centroids"] = "inputs"  # what the softmax runs over
    side: Literal["centroids", "inputs"] = "centroids"  # who lists its nearest neighbours on the other side
    steps: int = 1  # update steps T of a centroid attention; 0 leaves it out, a baseline that only pools
    pool: Literal["max", "none"] = "max"  # what a centroid knows before it attends: the largest values around it, or no more
    step_size: float | None = None  # eps, fixed; learnt per channel when None
    centroid_position: Literal["seed", "mean"] = "seed"  # stay at the seed, or move to the attention-weighted mean

    @property
    def seeds(self) -> int:
        """How many points of a cloud the encoder wants in farthest-point order: the seeds of its first stage."""
        return self.stages[0].centroids

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        _require(len(self.stages) >= 1, "encoder.stages must hold at least one stage")
        step = self.step_size
        _require(step is None or math.isfinite(step), f"encoder.step_size must be finite, found {step}")
        fewest = 0 if self.tokens == "points" else 1
        _require(
            self.embed >= fewest, f"encoder.embed must be at least {fewest} with tokens={self.tokens}, found {self.embed}"
        )
        _require(self.relative >= 1, f"encoder.relative must be at least 1, found {self.relative}")
        _require(0 <= self.drop_path < 1, f"encoder.drop_path must lie in [0, 1), found {self.drop_path}")
        _require(self.steps >= 0, f"encoder.steps must not be negative, found {self.steps}")
        _require(
            self.steps > 0 or self.pool != "none",
            "encoder.pool=none with encoder.steps=0 leaves nothing that looks around a centroid",
        )
        _require(
            self.steps > 0 or self.centroid_position == "seed",
            "encoder.centroid_position must be 'seed' where encoder.steps=0: without attention nothing is weighted",
        )
        counts = [stage.centroids for stage in self.stages]
        _require(
            all(a >= b for a, b in itertools.pairwise(counts)),
            f"encoder.stages must not grow: centroids {counts} should fall from stage to stage",
        )


@dataclass(frozen=True)
class ClassifierConfig:
    """A classifier: an encoder and a head on the pooled features of its last stage."""

    kind: Literal["classifier"] = "classifier"
    classes: int = 40
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    hidden: int = 256  # channels of the head's hidden layer
    dropout: float = 0.4
    known: bool = False  # one more output: is the cloud of one of the classes, and upright? Trained with `augment.foreign`

    @property
    def seeds(self) -> int:
        """See `EncoderConfig.seeds`."""
        return self.encoder.seeds

    def __post_init__(self) -> None:
        _require(self.classes >= 1, f"model.classes must be at least 1, found {self.classes}")
        _require(self.hidden >= 1, f"model.hidden must be at least 1, found {self.hidden}")
        _require(0 <= self.dropout < 1, f"model.dropout must lie in [0, 1), found {self.dropout}")


@dataclass(frozen=True)
class AutoencoderConfig:
    """An autoencoder: an encoder whose last centroids, with a short code each, are all that the decoder sees."""

    kind: Literal["autoencoder"] = "autoencoder"
    encoder: EncoderConfig = field(
        default_factory=lambda: EncoderConfig(
            embed=32,
            norm="layer",
            tokens="pairs",
            stages=(StageConfig(128, 64), StageConfig(64, 128, neighbours=12, blocks=1)),
        )
    )
    code: int = 13  # numbers that a centroid keeps of its feature; its position is three more
    hidden: int = 128  # channels of the decoder
    blocks: int = 2  # self-attention blocks of the decoder

    @property
    def seeds(self) -> int:
        """See `EncoderConfig.seeds`."""
        return self.encoder.seeds

    def __post_init__(self) -> None:
        for name in ("code", "hidden"):
            _require(getattr(self, name) >= 1, f"model.{name} must be at least 1, found {getattr(self, name)}")
        _require(self.hidden % 4 == 0, f"model.hidden must be a multiple of its 4 heads, found {self.hidden}")
        _require(self.blocks >= 0, f"model.blocks must not be negative, found {self.blocks}")


@dataclass(frozen=True)
class CapsuleAutoencoderConfig:
    """The baseline that the autoencoder is measured against, see `pointcentroid.nn.capsules`."""

    kind: Literal["capsule-autoencoder"] = "capsule-autoencoder"
    primary: int = 1024  # primary capsules
    primary_dim: int = 16
    capsules: int = 64  # latent capsules
    dim: int = 64  # numbers in each of them
    iterations: int = 3  # rounds of routing
    folds: int = 32  # folding MLPs

    @property
    def seeds(self) -> int:
        """It does not care for the order of points."""
        return 1

    def __post_init__(self) -> None:
        for name in ("primary", "primary_dim", "capsules", "iterations", "folds"):
            _require(getattr(self, name) >= 1, f"model.{name} must be at least 1, found {getattr(self, name)}")
        _require(self.dim >= 2, f"model.dim must be at least 2, found {self.dim}")


@dataclass(frozen=True)
class PartsConfig:
    """A net whose last centroids are parts, see `pointcentroid.nn.parts`."""

    kind: Literal["parts"] = "parts"
    encoder: EncoderConfig = field(
        default_factory=lambda: EncoderConfig(
            stages=(StageConfig(256, 64, local_blocks=2), StageConfig(64, 128, local_blocks=1, blocks=1)),
        )
    )
    blocks: int = 2  # local blocks of the fine centroids, once they know of the coarse ones
    embedding: int = 16  # channels of the space in which parts are clusters
    features: int = 32  # channels of what a part is recognised by
    parts: int = 16  # centroids of parts, some of which may find none
    names: int = 0  # different names of parts in the data; 0 where they have none

    @property
    def seeds(self) -> int:
        """See `EncoderConfig.seeds`."""
        return self.encoder.seeds

    def __post_init__(self) -> None:
        stages = len(self.encoder.stages)
        _require(stages == 2, f"model.encoder.stages must be two, the fine and the coarse one, found {stages}")
        for name in ("embedding", "features", "parts"):
            _require(getattr(self, name) >= 1, f"model.{name} must be at least 1, found {getattr(self, name)}")
        for name in ("blocks", "names"):
            _require(getattr(self, name) >= 0, f"model.{name} must not be negative, found {getattr(self, name)}")


ModelConfig = ClassifierConfig | AutoencoderConfig | CapsuleAutoencoderConfig | PartsConfig


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of training clouds; every one is off at its neutral value."""

    scale: float = 1.5  # each axis is scaled by a factor log-uniform in [1 / scale, scale]
    shift: float = 0.2  # each cloud is moved along each axis by up to this much
    jitter: float = 0.01  # standard deviation of the noise added to every coordinate, cut at three of them
    dropout: float = 0.0  # of each cloud a share of up to this much of its points is lost (they fall onto its first point)
    mirror: float = 0.0  # probability that a cloud is mirrored left to right
    quarter_turn: float = 0.0  # probability that a cloud is turned about the up axis by 90, 180 or 270 degrees
    turn: float = 0.0  # probability that a cloud is turned about the up axis by any angle
    warp: float = 0.0  # probability that a cloud is bent a little, by waves through space
    reseed: bool = False  # pick the farthest points, the seeds of the centroids, anew in every epoch, from a random start;
    # with `damage` and `foreign`, after which the farthest points are others, always
    mix: float = 0.0  # probability that a random share of a cloud's points is replaced by another's, labels in proportion
    damage: float = 0.0  # probability that a cloud is noisy, has strays or a hole, leans, or is seen from one side
    foreign: float = 0.25  # probability that a cloud becomes one of no class, or lies wrong; for nets with `known` alone

    def __post_init__(self) -> None:
        _require(1 <= self.scale < math.inf, f"augment.scale must be at least 1, and finite, found {self.scale}")
        for name in ("shift", "jitter"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"augment.{name} must not be negative, and finite, found {value}")
        for name in ("dropout", "mirror", "quarter_turn", "turn", "warp", "mix", "damage", "foreign"):
            _require(0 <= getattr(self, name) <= 1, f"augment.{name} must lie in [0, 1], found {getattr(self, name)}")


@dataclass(frozen=True)
class TrainConfig:
    """One training run, from data to weights."""

    name: str = "unnamed"  # the name the finished weights carry
    data: str = ""  # a data set: see `pointcentroid.data.sources`
    # What points up in raw shapes; standard: by that of the format, else z; auto: found for each, as predictions find it.
    up: Literal["standard", "auto", "x", "-x", "y", "-y", "z", "-z"] = "standard"
    split: Literal["training", "all"] = "training"  # what of it; all: validation shapes too, once the recipe is frozen
    no_class: str = ""  # a class of the data set whose shapes are of no class: `known` learns from them; "": there is none
    recipe: tuple[str, ...] = ()  # with split=all: weights of the same settings, whose validation figures stand for it
    start: str = ""  # weights to start from, by name or file; random ones if empty
    output: str = "runs"  # logs, checkpoints and weights go to {output}/{name}
    model: ModelConfig = field(default_factory=ClassifierConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    epochs: int = 50
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.05  # share of the steps in which the learning rate rises
    label_smoothing: float = 0.2
    teachers: tuple[str, ...] = ()  # weights of classifiers, by name or file, whose answers are learnt beside the labels
    teaching: float = 0.5  # share of their answers in the loss
    clip: float = 1.0  # largest norm of the gradient; 1e9 for any
    sharpness: float = (
        0.0  # radius of sharpness-aware steps, see `pointcentroid.train.sharpness`: twice the work; 0 for none
    )
    average: float = 0.999  # largest decay of the moving average of the weights, which is what is evaluated and kept
    keep: Literal["last", "best"] = "last"  # which epoch's weights: the last, or the best by validation accuracy
    seed: int = 0
    compile: bool = False
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"  # auto: bf16 where the processor or the GPU is fast at it
    accelerator: str = "auto"
    devices: int = 1  # processes on this machine; batch_size clouds are shared among all of them
    nodes: int = 1  # machines, started by torchrun or SLURM

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"epochs must be at least 1, found {self.epochs}")
        _require(
            bool(re.fullmatch(r"\w[\w .-]*", self.name)),
            f"name must be letters, digits, '_', '-', '.' or blanks, found {self.name!r}",
        )
        _require(
            len(os.fsencode(self.name)) <= _LONGEST_NAME, f"name is too long for that of a file: {self.name!r}; add name=..."
        )
        _require(
            not self.augment.mix or isinstance(self.model, ClassifierConfig),
            "augment.mix is for the training of classifiers: only labels of classes can be mixed",
        )
        known = isinstance(self.model, ClassifierConfig) and self.model.known
        classifies = isinstance(self.model, ClassifierConfig)
        _require(
            not classifies or self.preprocess.points >= self.model.seeds,  # of fewer, predictions would see repeated points
            f"preprocess.points must be at least the {self.model.seeds} centroids of the first stage, "
            f"found {self.preprocess.points}",
        )
        _require(self.preprocess.points >= 2, "preprocess.points must be at least 2, found 1: one point has no shape")
        _require(
            not (isinstance(self.model, PartsConfig) and (self.augment.damage or self.augment.reseed)),
            "augment.damage and augment.reseed are not for nets of parts, which see other points in every epoch as it is",
        )
        _require(
            not (isinstance(self.model, PartsConfig) and (self.augment.mirror or self.augment.dropout)),
            "augment.mirror and augment.dropout are not for nets of parts: left would be named right, and lost points have "
            "parts of their own",
        )
        _require(self.augment.foreign > 0 or not known, "model.known is learnt from augment.foreign: it must not be 0 then")
        _require(not (known and self.augment.mix), "model.known and augment.mix exclude each other")
        _require(known or not self.no_class, "no_class is what the output of model.known=true learns from")
        if self.teachers:
            _require(isinstance(self.model, ClassifierConfig), "teachers are for the training of classifiers")
            _require(not self.augment.mix, "teachers and augment.mix exclude each other")
        _require(0 < self.teaching <= 1, f"teaching must lie in (0, 1], found {self.teaching}")
        _require(0 <= self.seed < 2**32, f"seed must lie in [0, 2^32), found {self.seed}")
        _require(
            0 <= self.weight_decay < math.inf, f"weight_decay must not be negative, and finite, found {self.weight_decay}"
        )
        _require(
            0 < self.clip < math.inf, f"clip must be positive, and finite, found {self.clip}; 1e9 lets any gradient pass"
        )
        for name in ("batch_size", "devices", "nodes"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, found {getattr(self, name)}")
        _require(0 <= self.sharpness < math.inf, f"sharpness must not be negative, and finite, found {self.sharpness}")
        _require(0 < self.learning_rate < math.inf, f"learning_rate must be positive, found {self.learning_rate}")
        _require(0 <= self.warmup < 1, f"warmup must lie in [0, 1), found {self.warmup}")
        _require(0 <= self.label_smoothing < 1, f"label_smoothing must lie in [0, 1), found {self.label_smoothing}")
        _require(not self.recipe or self.split == "all", "recipe is for split=all; otherwise a run has figures of its own")
        _require(
            self.split == "training" or self.keep == "last",
            "keep=best with split=all would choose by shapes that were trained on",
        )
        _require(0 <= self.average < 1, f"average must lie in [0, 1), found {self.average}")


WHERE = frozenset({"output", "accelerator", "devices", "nodes"})
"""Settings of a training that say where it happens. (On several processes, batch norms see their share of a batch.)"""


def nearest_name(name: str, known: typing.Iterable[str]) -> str:
    """Say which known name was probably meant: `" (did you mean 'x'?)"`, or nothing when none is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a configuration into plain dicts, lists, strings and numbers."""
    return dataclasses.asdict(config)


_MOST = dict.fromkeys(("local_blocks", "blocks", "steps", "iterations", "folds"), 2**10) | {"seed": 2**64}
"""Bounds of what no one would ask for, so that a damaged description is told from a large net."""


def from_dict(cls: type, values: Any, place: str = "") -> Any:
    """Build a configuration from plain data, the inverse of `to_dict`.

    Args:
        cls: the dataclass to build.
        values: a dict of its fields; fields left out take their defaults.
        place: dotted path of this value, for error messages.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named), a value has the wrong type or is out of range.
    """
    _require(isinstance(values, dict), f"{place or cls.__name__} must be a mapping, found {values!r}")
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        where = f"{place}.{key}" if place else str(key)
        _require(key in names, f"unknown setting {where}{nearest_name(str(key), names)}")
    built = {key: _coerce(hints[key], value, f"{place}.{key}" if place else key) for key, value in values.items()}
    for key, value in built.items():
        if type(value) is int and value > (most := _MOST.get(key, 2**20)):
            raise ConfigError(f"{place + '.' if place else ''}{key} must be at most {most}, found {str(value)[:20]}")
    try:
        return cls(**built)
    except TypeError as error:
        raise ConfigError(f"{place or cls.__name__}: {error}") from None


def model_from_dict(values: Any, place: str = "model") -> ModelConfig:
    """Build the configuration of the model whose `kind` is named, a classifier where none is; see `from_dict`."""
    _require(isinstance(values, dict), f"{place} must be a mapping, found {values!r}")
    kinds = {choice.kind: choice for choice in typing.get_args(ModelConfig)}
    kind = values.get("kind", ClassifierConfig.kind)
    _require(
        isinstance(kind, str) and kind in kinds, f"{place}.kind must be one of {', '.join(map(repr, kinds))}, found {kind!r}"
    )
    return from_dict(kinds[kind], values, place)


def _coerce(hint: Any, value: Any, place: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, place)
    if origin is Literal:
        _require(value in arguments, f"{place} must be one of {', '.join(map(repr, arguments))}, found {value!r}")
        return value
    if origin is tuple:
        _require(isinstance(value, (list, tuple)), f"{place} must be a list, such as [{value}], found {value!r}")
        return tuple(_coerce(arguments[0], item, f"{place}[{i}]") for i, item in enumerate(value))
    if origin is types.UnionType and type(None) not in arguments:
        return model_from_dict(value, place)
    if origin is types.UnionType:
        return None if value is None else _coerce(arguments[0], value, place)
    if hint is float:
        _require(
            isinstance(value, (int, float)) and not isinstance(value, bool), f"{place} must be a number, found {value!r}"
        )
        _require(abs(value) < 2**1023 or isinstance(value, float), f"{place} is a number too large for one")
        return float(value)
    if hint is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if hint is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a name such as 2024
    exact = isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    _require(exact, f"{place} must be of type {hint.__name__}, found {value!r}")
    return value
