"""`pointcentroid embed`: the global feature of every shape, for search, clustering and near-duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pointcentroid.cli import options
from pointcentroid.cli.keeping import Output, Ray, Resume, answer_on_ray, keep, open_answers
from pointcentroid.results import Failure, Prediction

if TYPE_CHECKING:
    from pointcentroid.cli.output import Row


def embed(
    paths: options.Paths,
    recursive: options.Recursive = False,
    weights: options.Weights = "small",
    up: options.Up = "auto",
    votes: options.Votes = 1,
    batch_size: options.BatchSize = 32,
    workers: options.Workers = None,
    device: options.Device = "auto",
    format: Annotated[
        Literal["npz", "json", "csv"] | None,
        typer.Option(
            "--format",
            help="npz (needs -o): arrays features (S, F), files (S,), labels (S,) (default: by the suffix of -o, else npz).",
        ),
    ] = None,
    as_json: options.Json = False,
    output: Output = None,
    resume: Resume = False,
    ray: Ray = None,
) -> None:
    """Write the global feature of every shape.

    Shapes that cannot be read are reported and left out; in Parquet they are rows with an error. For many files take
    Parquet, JSON or CSV: npz holds all features until it is written.
    Exit code 0: all done; 1: some failed; 2: wrong usage, or it could not go on.
    """
    from pointcentroid.cli.inputs import count, start, stream
    from pointcentroid.cli.output import check_writable, chosen_format, end, parquet_target, tracked, write
    from pointcentroid.files import replacing

    target = parquet_target(output, resume, format or as_json)
    path = Path(output) if output and not target else None
    kind = chosen_format(format, path, as_json, ("npz", "json", "csv", "parquet"))
    if kind == "npz" and output is None:
        raise typer.BadParameter("npz is binary and needs a file: add -o features.npz, or --json")
    check_writable(path, read=[*paths, weights], recursive=recursive)
    asked = {"up": up, "votes": votes}
    answers = open_answers(target, weights, resume, features=True, **asked) if target else None
    if ray:
        settings = asked | {"weights": weights, "device": device, "batch_size": batch_size, "features": True}
        counts = answer_on_ray(ray, paths, recursive, workers, answers, "embedding", **settings)
        end(counts, "embedded")
        return
    files: Iterable[str] = stream(paths, recursive, path)
    if answers:
        files = answers.missing(files)
    predictor, prepared = start(files, weights, device, votes, workers)

    results = predictor.predict_prepared(prepared, up=up, batch_size=batch_size)
    counts = Counter(all=answers.done, failed=answers.failed) if answers else Counter()
    counted = _report(tracked(results, lambda: count(paths, recursive), "embedding"), counts)
    if answers:
        keep(answers, answers.keeping(counted))
    elif kind == "npz" and path is not None:
        import numpy as np

        done = [result for result in counted if isinstance(result, Prediction)]
        width = predictor.feature_dim
        features = np.stack([r.feature for r in done]) if done else np.empty((0, width), np.float32)
        with replacing(path) as temporary, temporary.open("wb") as file:
            files, labels = (np.array([getattr(r, key) for r in done], dtype=str) for key in ("file", "label"))
            np.savez(file, features=features, files=files, labels=labels)
    else:
        names = [f"f{i}" for i in range(predictor.feature_dim)] if kind == "csv" else []
        rows = (_row(result, names) for result in counted if isinstance(result, Prediction))
        write(rows, ["file", "label", *names], kind, path)
    end(counts, "embedded")


def _report(results: Iterable[Prediction | Failure], counts: Counter[str]) -> Iterator[Prediction | Failure]:
    """Count results, and tell of those that failed."""
    from pointcentroid.cli.output import note

    for result in results:
        counts["all"] += 1
        if isinstance(result, Failure):
            counts["failed"] += 1
            note(f"{result.file}: {result.error}")
        yield result


def _row(result: Prediction, names: list[str]) -> Row:
    """A row for JSON, or, with names for the numbers of the feature, for CSV."""
    feature = result.feature.tolist()
    numbers = dict(zip(names, feature, strict=True)) if names else {"feature": feature}
    return {"file": result.file, "label": result.label, **numbers}
