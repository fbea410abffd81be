"""Names of architectures: `create_model("small")` builds a net without weights.

An architecture is an entry of `MODELS`; the YAML files under `configs/` refer to these names, so that a model is defined
once. Trained weights carry their own configuration and do not depend on this table.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pointcentroid.config import (
    AutoencoderConfig,
    CapsuleAutoencoderConfig,
    ClassifierConfig,
    EncoderConfig,
    ModelConfig,
    PartsConfig,
    StageConfig,
    nearest_name,
)
from pointcentroid.errors import ConfigError

MODELS: dict[str, ModelConfig] = {
    "small": ClassifierConfig(
        dropout=0.5,
        known=True,
        encoder=EncoderConfig(
            steps=0,
            drop_path=0.1,
            stages=(
                StageConfig(256, 64, local_blocks=3),
                StageConfig(64, 128, local_blocks=3),
                StageConfig(16, 256, local_blocks=2),
            ),
        ),
    ),
    "tiny": ClassifierConfig(
        hidden=128,
        dropout=0.4,
        encoder=EncoderConfig(
            steps=0,
            relative=16,
            stages=(
                StageConfig(160, 32, local_blocks=2),
                StageConfig(40, 64, local_blocks=2),
                StageConfig(10, 128, local_blocks=1),
            ),
        ),
    ),
    "autoencoder": AutoencoderConfig(),
    "capsules": CapsuleAutoencoderConfig(dim=16),
    "parts": PartsConfig(names=74),
}
"""`tiny` and `small` classify; `autoencoder` reconstructs, as does `capsules`, its baseline, from as many numbers; `parts`
cuts shapes into parts, and has as many names for them as `tools/make_parts.py` gives."""


def list_models() -> list[str]:
    """Names that `create_model` knows, sorted."""
    return sorted(MODELS)


def model_config(name: str) -> ModelConfig:
    """Look a configuration up by name.

    Raises:
        ConfigError: the name is unknown; the nearest known one is suggested.
    """
    if name not in MODELS:
        raise ConfigError(f"unknown model {name!r}{nearest_name(name, MODELS)}; known: {', '.join(list_models())}")
    return MODELS[name]


def net_class(config: ModelConfig) -> Any:
    """The net that a configuration is of: one entry here for each kind."""
    from pointcentroid.nn.autoencoder import CentroidAutoencoder
    from pointcentroid.nn.capsules import CapsuleAutoencoder
    from pointcentroid.nn.classifier import CentroidClassifier
    from pointcentroid.nn.parts import PartsNet

    nets = (CentroidClassifier, CentroidAutoencoder, CapsuleAutoencoder, PartsNet)
    return next(net for net in nets if net.configured_by is type(config))


def create_model(name: str, **changes: Any):
    """Build a net with fresh weights.

    Args:
        name: one of `list_models()`.
        changes: fields of its configuration to replace, such as `classes=10`.

    Returns:
        A `pointcentroid.nn.classifier.CentroidClassifier`, (B, N, 3) clouds in, (B, classes) logits out; or a
        `pointcentroid.nn.autoencoder.CentroidAutoencoder`; or a `pointcentroid.nn.capsules.CapsuleAutoencoder`;
        or a `pointcentroid.nn.parts.PartsNet`.

    Raises:
        ConfigError: the name or a field is unknown, or a value is out of range.
    """
    config: Any = model_config(name)
    known = [field.name for field in dataclasses.fields(config) if field.name != "kind"]
    for key in changes:
        if key not in known:
            raise ConfigError(f"unknown model setting {key!r}{nearest_name(key, known)}")
    config = dataclasses.replace(config, **changes)
    return net_class(config)(config)
