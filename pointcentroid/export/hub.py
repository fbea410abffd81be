"""Weights on a Hugging Face hub, with a model card written from what they say of themselves.

Only a server on the same machine was tested, through `HF_ENDPOINT`; the calls are huggingface_hub's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pointcentroid.errors import WeightsError, one_line, require
from pointcentroid.weights import HUB_FILES, WeightsCard, graph_metadata, graph_of, is_of, read_card


def push(weights: Path, repository: str, *, private: bool = False, revision: str | None = None) -> str:
    """Put weights on a hub: the tensors, their graph if it stands beside them, and a model card.

    Args:
        weights: a weights file.
        repository: `owner/name`; made if it is not there.
        private: whether a new repository is private.
        revision: the branch to write to; the main one if None.

    Returns:
        The address of the commit.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        WeightsError: the weights are damaged, or the hub refuses or cannot be reached.
    """
    require("putting weights on a hub", "hub", "huggingface_hub")
    import huggingface_hub
    from huggingface_hub import errors

    if not re.fullmatch(r"[^/:]+/[^/:]+", repository):
        raise WeightsError(f"expected OWNER/NAME, found {repository!r}")
    if huggingface_hub.get_token() is None:
        raise WeightsError(f"{repository}: you are not logged in; hf auth login, or HF_TOKEN=... before it")
    card = read_card(weights)
    content: list[tuple[str, Any]] = [(HUB_FILES[0], str(weights)), ("README.md", model_card(card, repository).encode())]
    graph = graph_of(weights)
    if graph.is_file() and is_of(graph_metadata(graph), weights):
        content.append((HUB_FILES[1], str(graph)))
    operations: list[Any] = [huggingface_hub.CommitOperationAdd(name, what) for name, what in content]
    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        graph_stays = HUB_FILES[1] not in dict(content) and hub.file_exists(repository, HUB_FILES[1], revision=revision)
        if graph_stays:  # it is of other weights
            operations.append(huggingface_hub.CommitOperationDelete(HUB_FILES[1]))
        made = hub.create_commit(repository, operations, commit_message=f"Weights {card.name}", revision=revision)
    # A KeyError, where an answer is not as huggingface_hub expects it.
    except (errors.HfHubHTTPError, errors.HTTPError, OSError, ValueError, KeyError) as error:  # type: ignore[reportPrivateImportUsage]
        reason = getattr(error, "server_message", None) or one_line(error)
        raise WeightsError(f"{repository}: the hub did not take the weights ({reason})") from None
    return str(made.commit_url)


def model_card(card: WeightsCard, repository: str) -> str:
    """A model card in Markdown, of what a weights file says of itself and nothing else.

    Args:
        card: of the weights.
        repository: where they will be.
    """
    settings = card.provenance.get("config", {})
    header = ["---", "library_name: pointcentroid", "tags:", "- point-cloud", f"- {card.model.kind}", "---", ""]
    use = [
        f"# {card.name}",
        "",
        f"A {card.model.kind} on learned centroids, for [pointcentroid](https://pypi.org/project/pointcentroid/).",
        "",
        "    pip install 'pointcentroid[hub]'",
        f"    pointcentroid {_USES.get(card.model.kind, 'reconstruct chair.off -o out/')} --weights hf://{repository}",
        "",
        "## What it sees",
        "",
        f"{card.preprocess.points} of {card.preprocess.sample} points, sampled uniformly by area, centred on their mean, "
        "radius 1, z up, in farthest-point order.",
        "",
    ]
    classes = ["## Classes", "", ", ".join(card.classes), ""] if card.classes else []
    measured = [
        "## Measured",
        "",
        "| | |",
        "|---|---|",
        *(f"| {k} | {v:.4g} |" for k, v in sorted(card.figures.items()) if isinstance(v, (int, float))),
        "",
    ]
    if card.trained_on_all:
        measured += [
            "These weights were trained on the validation shapes too. Figures on these are those of weights of their recipe",
            "that were not.",
            "",
        ]
    elif card.knows_validation:
        measured += [
            "Weights that these began with, or learnt from, were trained on validation shapes too. Figures on those say",
            "nothing of other shapes.",
            "",
        ]
    if card.temperature != 1:
        measured += [f"Logits are divided by the temperature {card.temperature:.4g}.", ""]
    licence = [
        "## Licence",
        "",
        "Whoever put these weights here says what they may be used for; the data they were trained on may set limits too",
        "(ModelNet40 is for academic use).",
        "",
    ]
    made = ["## Made by", "", *(f"- {key}: {value}" for key, value in sorted(_made_by(card, settings).items())), ""]
    return "\n".join([*header, *use, *classes, *measured, *made, *licence])


_USES = {"classifier": "classify chair.off", "parts": "view chair.off"}
"""What weights are for, by their kind; others reconstruct."""


def _made_by(card: WeightsCard, settings: dict[str, Any]) -> dict[str, Any]:
    kept = ("epochs", "batch_size", "learning_rate", "weight_decay", "label_smoothing", "seed", "split", "data", "precision")
    found = {key: settings[key] for key in kept if key in settings}
    return (
        found
        | {f"version of {key}": value for key, value in card.provenance.get("versions", {}).items()}
        | ({"SHA-256 of the data": card.provenance["data_sha256"]} if "data_sha256" in card.provenance else {})
    )
