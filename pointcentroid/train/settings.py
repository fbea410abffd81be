"""Training configurations in YAML, changed by `key=value`."""

from __future__ import annotations

import dataclasses
from importlib.resources import files
from pathlib import Path
from typing import Any

from pointcentroid.config import ClassifierConfig, TrainConfig, from_dict, nearest_name, to_dict
from pointcentroid.errors import ConfigError, MissingExtraError, one_line
from pointcentroid.models import model_config
from pointcentroid.weights import find_weights, read_card

_TEXTS = frozenset(field.name for field in dataclasses.fields(TrainConfig) if field.type == "str")


def shipped_configs() -> dict[str, Path]:
    """Names and paths of the configurations that come with the package."""
    package = Path(str(files("pointcentroid")))
    # An installed package carries them inside; a clone has them beside the package.
    folders = [package / "configs", package.parent / "configs"]
    found = next((folder for folder in folders if folder.is_dir()), None)
    return {path.stem: path for path in sorted(found.glob("*.yaml"))} if found else {}


def load_train_config(name_or_path: str, overrides: list[str], **given: Any) -> TrainConfig:
    """Read a configuration and apply changes to it.

    A YAML file has the fields of `TrainConfig`; `model` may also be the name of an architecture. Where a file names no model
    but weights to `start` from, model and preprocessing are theirs.

    Args:
        name_or_path: a YAML file, or the name of a shipped one.
        overrides: `key=value` settings, with dots for nested keys: `augment.jitter=0`, `model=small`.
        given: settings that are no text to be understood, such as the name of a folder; `overrides` win.

    Raises:
        ConfigError: the file is absent or is no YAML, a key is unknown (the nearest known one is named), a value is of
            the wrong type or out of range.
        WeightsError: the weights to start from are absent or damaged.
        MissingExtraError: OmegaConf is not installed.
    """
    try:
        import yaml
        from omegaconf import OmegaConf
        from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
    except ImportError as error:
        raise MissingExtraError("reading configurations", "train", error.name or "omegaconf") from None

    shipped = shipped_configs()
    path = shipped.get(name_or_path, Path(name_or_path))
    if not path.is_file():
        hint = nearest_name(name_or_path, shipped)
        raise ConfigError(
            f"no configuration or folder {name_or_path!r}{hint}; shipped configurations: {', '.join(shipped) or 'none'}"
        )
    for item in overrides:
        if "=" not in item:
            raise ConfigError(f"expected KEY=VALUE, found {item!r}")
    for key, value in given.items():
        if "${" in str(value):
            raise ConfigError(f"{key}={value} holds what configurations keep for references, ${{; rename it")
    try:
        # Texts are taken as they are: YAML would read 007 as a number, and what follows # in a folder's name as a comment.
        pairs = [item.split("=", 1) for item in overrides]
        others = OmegaConf.from_dotlist(["=".join(pair) for pair in pairs if pair[0] not in _TEXTS])
        others.update({key: _unquoted(text) for key, text in pairs if key in _TEXTS})
        layers = [OmegaConf.load(path), OmegaConf.create(given), others]
        values: Any = {}
        for layer in layers:
            plain = OmegaConf.to_container(layer)
            if not isinstance(plain, dict):
                raise ConfigError(f"{path}: expected a mapping of settings, found {type(plain).__name__}")
            # A model named by a string is spelt out, so that single fields of it can be changed by a later layer.
            if isinstance(plain.get("model"), str):
                name = OmegaConf.merge(*layers, {"model": plain["model"]}).model
                plain["model"] = to_dict(model_config(name))
                values.pop("model", None)
            values = OmegaConf.to_container(OmegaConf.merge(values, plain))
        values = OmegaConf.to_container(OmegaConf.create(values), resolve=True)  # what ${...} refers to may be overridden
        if values.get("start") and "model" not in layers[0]:
            # Weights to start from say what they are; only what is changed need be named.
            card = read_card(find_weights(values["start"]))
            model = values.get("model", {})
            if "classes" in model and not isinstance(card.model, ClassifierConfig):
                raise ConfigError(f"{values['start']} does not classify; start from weights that do")
            own = {"model": to_dict(card.model), "preprocess": to_dict(card.preprocess)}
            if model.get("kind", card.model.kind) != card.model.kind:
                del own["model"]
            values = OmegaConf.to_container(OmegaConf.merge(own, values))
        OmegaConf.to_container(OmegaConf.create(values), throw_on_missing=True)  # ??? must have been given a value
    except MissingMandatoryValue as error:
        raise ConfigError(f"{path} leaves {error.full_key} to you: add {error.full_key}=...") from None
    except (OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError, TypeError, OSError) as error:
        raise ConfigError(f"{path}: {one_line(error, 200)}") from None
    return from_dict(TrainConfig, values)


def _unquoted(text: str) -> str:
    """A text that YAML would read as one, without its quotes; nothing where it says null."""
    if text in ("null", "~"):
        return ""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
