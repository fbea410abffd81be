"""Files by the million on a cluster: Ray Data lists, reads, classifies, and says when to wait.

    list, one task -> blocks of paths -> read and sample, a task a core -> clouds -> nets, a pool of actors -> answers

All of it streams. Each reading task has a process of its own within limits of memory and time (`scale.reader`), so that a
file that crashes, hangs or swells costs a row and no worker of Ray. Tasks whose worker or machine dies are run again, by
Ray. Answers are written by the process that asked for them, alone (`scale.answers`): nothing is written twice, whatever is
run twice. Every machine must see the files under the same names, and have pointcentroid installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here tells nobody of it

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from pointcentroid.config import PreprocessConfig
from pointcentroid.errors import ConfigError
from pointcentroid.predict.predictor import Predictor, check_options
from pointcentroid.predict.preparing import Prepared
from pointcentroid.predict.up import Up
from pointcentroid.results import Failure
from pointcentroid.scale.answers import Seen, schema_of, table_of
from pointcentroid.scale.reader import SECONDS, Reader
from pointcentroid.scale.sources import check_source, files_of, whole_name
from pointcentroid.weights import find_classifier

_BLOCK = 32  # files that a task reads


def classify(
    source: str,
    *,
    weights: str | Path = "small",
    up: Up = "auto",
    top: int = 5,
    votes: int = 1,
    device: str = "auto",
    recursive: bool = True,
    seconds: float = SECONDS,
    readers: int | None = None,
    nets: int | None = None,
    seen: Seen | None = None,
    features: bool = False,
    batch_size: int = 32,
) -> ray.data.Dataset:
    """Classify the files of a source on the cluster that this process is connected to, or on a new one on this machine.

    Nothing is done before the rows are asked for, such as by `iter_batches` or `write_parquet`.

    Args:
        source: a folder, a list of files, or an address; see `pointcentroid.scale.sources.files_of`.
        weights: the name of shipped weights, or a weights file, which is at the same path on every machine.
        up: see `Predictor.predict`.
        top: see `Predictor.predict`.
        votes: see `Predictor.predict`.
        device: of the nets; `"cuda"` asks Ray for a GPU each.
        recursive: look into subfolders.
        seconds: the time that a file may take.
        readers: tasks that read at once; Ray decides if None.
        nets: actors that hold a net; one for each machine if None.
        seen: files to leave out.
        features: add the column `feature`.
        batch_size: shapes that a net sees at once.

    Returns:
        A row a file: `path`, `label`, `confidence`, `top`, `up`, `known`, `points`, `error`, and `feature` if asked for.
        Files that cannot be read have only an error.

    Raises:
        DataError: the source is not there.
        WeightsError: there are no such weights, or they do not classify.
        ConfigError: an option is out of its range, or there is no such device.
    """
    check_options(up, votes=votes, top=top, batch_size=batch_size)
    source = os.fspath(source)
    check_source(source)
    file, card = find_classifier(weights)
    gpu = device.startswith("cuda")
    Predictor(file, "cpu" if gpu else device)  # what is wrong with it takes a line here, and pages in an actor
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    if gpu and not ray.cluster_resources().get("GPU"):  # Ray would wait for one
        raise ConfigError(f"no machine of the cluster has a GPU for device {device!r}")
    if nets is None:
        nets = sum(node["Alive"] for node in ray.nodes())
    # Ray hands a list on when it has grown to this: some thousand paths, not a million.
    ray.data.DataContext.get_current().target_max_block_size = 2**20
    folder = os.getcwd()  # which names are of; the cluster's processes are in another
    files = ray.data.read_datasource(_Files(source, recursive, seen, folder), override_num_blocks=1, num_cpus=0)
    clouds = files.repartition(target_num_rows_per_block=_BLOCK).map_batches(
        partial(_read, folder=folder, settings=card.preprocess, votes=votes, seconds=seconds),
        batch_size=_BLOCK,
        batch_format="pyarrow",
        num_cpus=1,
        concurrency=readers,
    )
    return clouds.map_batches(
        _Net,
        fn_constructor_args=(str(file.absolute()), device, up, top, features, batch_size),
        batch_size=batch_size,
        batch_format="pyarrow",
        # A net takes what readers leave, as in the plain command; asking for a core of its own would stop readers.
        num_cpus=0,
        num_gpus=1 if gpu else 0,
        compute=ray.data.ActorPoolStrategy(size=nets),
    )


def embed(source: str, **options: Any) -> ray.data.Dataset:
    """Classify, and give the global feature of every file in the column `feature`; the arguments are those of `classify`."""
    return classify(source, features=True, **options)


class _Files(Datasource):
    """The files of a source, listed by one task, which waits when what it has listed is not yet read."""

    def __init__(self, source: str, recursive: bool, seen: Seen | None, folder: str) -> None:
        super().__init__()
        self.source, self.recursive, self.folder = source, recursive, folder
        self.seen = ray.put(seen or Seen())

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        source, recursive, folder, seen = self.source, self.recursive, self.folder, self.seen

        def blocks() -> Iterator[pa.Table]:
            missing = ray.get(seen).copy()
            held: list[str] = []
            for path in files_of(source, recursive, folder):
                if missing.add(path):
                    held.append(path)
                if len(held) == _BLOCK:
                    yield _paths(held)
                    held = []
            yield _paths(held)

        return [ReadTask(blocks, BlockMetadata(None, None, None, None))]


def _paths(paths: list[str]) -> pa.Table:
    return pa.table({"path": pa.array([os.fsencode(path) for path in paths], pa.binary())})


@cache
def _reader(settings: PreprocessConfig, votes: int, seconds: float) -> Reader:
    """One process for each worker of Ray, for as long as that lives."""
    return Reader(settings, votes, seconds)


def _read(files: pa.Table, folder: str, settings: PreprocessConfig, votes: int, seconds: float) -> pa.Table:
    reader = _reader(settings, votes, seconds)
    results = [reader(whole_name(os.fsdecode(path), folder)) for path in files["path"].to_pylist()]
    rows = [
        {"path": path, "error": result.error}
        if isinstance(result, Failure)
        else {
            "path": path,
            "shape": result.clouds.shape,
            "clouds": np.ascontiguousarray(result.clouds, np.float32).tobytes(),
        }
        for path, result in zip(files["path"].to_pylist(), results, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=_CLOUDS)


_CLOUDS = pa.schema(
    [
        ("path", pa.binary()),
        ("error", pa.string()),
        ("shape", pa.list_(pa.int64())),
        ("clouds", pa.binary()),
    ]
)


class _Net:
    """An actor that holds a net."""

    def __init__(self, weights: str, device: str, up: Up, top: int, features: bool, batch_size: int) -> None:
        self.predictor, self.top, self.batch_size = Predictor(weights, device), top, batch_size
        self.up: Up = up
        self.schema = schema_of({"features": features})

    def __call__(self, rows: pa.Table) -> pa.Table:
        prepared = map(_prepared, rows.to_pylist())
        results = self.predictor.predict_prepared(prepared, up=self.up, top=self.top, batch_size=self.batch_size)
        return table_of(results, self.schema).replace_schema_metadata(None)


def _prepared(row: dict[str, Any]) -> Prepared | Failure:
    path = os.fsdecode(row["path"])
    if row["error"] is not None:
        return Failure(path, row["error"])
    return Prepared(path, np.frombuffer(row["clouds"], np.float32).reshape(row["shape"]))
