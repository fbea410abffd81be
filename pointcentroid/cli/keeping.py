"""What commands that keep answers in Parquet share: their options, and the answers that are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from pointcentroid.scale.answers import Answers

Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE|DIR/",
        help="Write the results to FILE, as Parquet if it ends in .parquet; or to DIR/, as shards of Parquet.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[local|auto|HOST:PORT]",
        help="Work on a Ray cluster: local starts one on this machine, as does --ray alone, before another option or at the "
        "end; auto joins the one that this machine is part of. PATH is then one folder, list of files, or address such as "
        "s3://bucket/folder, and -o is Parquet.",
    ),
]


class RayCommand(TyperCommand):
    """A command whose `--ray` may stand alone."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """See the base class."""
        alone = (place for place, (one, after) in enumerate(pairwise([*args, "--"])) if one == "--ray" and after[:1] == "-")
        if (place := next(alone, None)) is not None:
            args = [*args[: place + 1], "local", *args[place + 1 :]]
        return super().parse_args(ctx, args)


Resume = Annotated[bool, typer.Option("--resume", help="Go on with Parquet that an interrupted run left behind.")]


def open_answers(target: tuple[Path, bool], weights: str, resume: bool, **settings: Any) -> Answers:
    """Open Parquet for answers.

    Args:
        target: see `pointcentroid.cli.output.parquet_target`.
        weights: what was given to `--weights`.
        resume: keep what is there.
        settings: what answers depend on, beside files and weights.

    Raises:
        DataError: see `Answers`.
        WeightsError: there are no such weights.
    """
    from pointcentroid.scale.answers import Answers, request_of
    from pointcentroid.weights import find_weights

    return Answers(*target, request_of(find_weights(weights), **settings), resume)


def keep(answers: Answers, results: Generator[Any, None, None]) -> None:
    """Go through answers that are kept as they come; stopped by Ctrl-C, say how to go on."""
    from pointcentroid.cli.output import told_how_to_go_on

    with told_how_to_go_on(lambda: bool(answers.parts())), closing(results):  # which keeps what is answered
        for _ in results:
            pass


def answer_on_ray(
    address: str, paths: list[str], recursive: bool, workers: int | None, answers: Answers | None, what: str, **options: Any
) -> Counter[str]:
    """Answer the files of one source on a Ray cluster, those that have no answer yet.

    Args:
        address: of the cluster, or `local`.
        paths: the source, alone.
        recursive: look into subfolders.
        workers: reading tasks at once.
        answers: where answers are kept.
        what: what is done, for the progress bar.
        options: of `pointcentroid.scale.ray_data.classify`.

    Returns:
        How many answers there are now of `all`, `failed`, `uncertain` and `unknown`.

    Raises:
        MissingExtraError: Ray is not installed.
        DataError: the source, the cluster or answers are not there.
    """
    from pointcentroid.errors import DataError, require

    if len(paths) != 1 or answers is None:
        raise typer.BadParameter("expected one source, and -o NAME.parquet or -o FOLDER/", param_hint="--ray")
    require("working on a cluster", "ray", "ray")
    import logging
    import os

    from pointcentroid.scale.cluster import check_cluster

    check_cluster(address)
    if address == "local":  # a cluster for this command alone is as urgent as the command; Ray's workers are nice otherwise
        os.environ.setdefault("RAY_worker_niceness", "0")

    from pointcentroid.cli.output import tracked
    from pointcentroid.results import LITTLE_KNOWN, LOW_CONFIDENCE
    from pointcentroid.scale.ray_data import classify, ray
    from pointcentroid.scale.sources import check_source, files_of

    check_source(paths[0])
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        told = "--ray HOST:PORT names one, --ray local starts one here"
        raise DataError(f"no Ray cluster answers at {address}; {told}") from None
    except ValueError as error:
        raise DataError(f"no Ray cluster at {address} ({str(error).splitlines()[0]}); local starts one here") from None
    rows = classify(paths[0], recursive=recursive, readers=workers, seen=answers.seen, **options)
    counts = Counter(all=answers.done, failed=answers.failed)

    def counted() -> Iterator[None]:
        for table in answers.keeping_tables(rows.iter_batches(batch_size=None, batch_format="pyarrow")):
            counts["all"] += len(table)
            counts["failed"] += len(table) - table["error"].null_count
            for name, column, least in (("uncertain", "confidence", LOW_CONFIDENCE), ("unknown", "known", LITTLE_KNOWN)):
                counts[name] += sum(value is not None and value < least for value in table[column].to_pylist())
            yield from [None] * len(table)

    keep(answers, tracked(counted(), lambda: sum(1 for _ in files_of(paths[0], recursive)), what))
    if not counts["all"]:
        raise DataError(f"no readable files in {paths[0]}")
    if missing := sum(answers.seen.add(file) for file in files_of(paths[0], recursive)):
        raise DataError(f"{missing} files have no answer yet, new ones among them; --resume answers them")
    return counts
