"""Measure and prove what is said of folders that outgrow memory or the machine. Linux only: processes are read from /proc.

    python tools/scale.py proof [FOLDER...] [--files 5000] [--broken 500] [--json FILE]
    python tools/scale.py speed [FOLDER...] [--files 2000] [--rounds 3] [--json FILE]
    python tools/scale.py memory [FILE] [--files 20000]

Each fills a folder with hard links to the files of FOLDERs, or to the shipped examples, and lets the command answer it.

`proof`: a Ray cluster of two nodes on this machine. On the way a reading worker and a net are killed, then a node, then the
command itself, which is then resumed. Each file must stand there once, with the answer of the plain command; files that were
broken on purpose must be errors.

`speed`: the plain command, and Ray with 1 and 2 reading tasks, in turn, because machines drift; with and without the start,
which is what one file takes. CPU seconds are those of all processes, and hardly depend on what else the machine does.

`memory`: the main process of the plain command, by quarters of its answers.

Exit code 1: something is not as it must be.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import typer

from pointcentroid.io.folders import readable

EXAMPLES = Path(__file__).parent.parent / "data" / "examples"
MAIN = "from pointcentroid.__main__ import main; main()"
CLASSIFY = [sys.executable, "-c", MAIN, "classify"]
_DECLARED = (
    ".off",
    ".ply",
    ".glb",
    ".npy",
    ".npz",
    ".3mf",
)  # formats that say how much there is: cut short, they are broken
_LINKS = 30_000  # to one copy: file systems allow some 65,000
_PATIENCE = 1800.0  # seconds until a run that does not go on is given up
_LOOK = 0.25  # seconds between looks at processes

# Ray's workers are nice by default, which on a busy machine would be measured instead; and it tells nobody of these runs.
os.environ |= {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}

app = typer.Typer(help=__doc__, no_args_is_help=True)
Folders = Annotated[list[Path] | None, typer.Argument(help="Folders of files to link to.  [default: the examples]")]
Json = Annotated[Path | None, typer.Option("--json", help="Write what was measured to this file as well.")]


def sources_of(folders: list[Path] | None) -> list[Path]:
    """The readable files that lie in folders."""
    return [path for folder in folders or [EXAMPLES] for path in sorted(folder.iterdir()) if readable(path.name)]


def folder_of(sources: list[Path], count: int, folder: Path, broken: int = 0) -> set[str]:
    """Fill a folder with hard links to files, a thousand to a subfolder, and broken files among them.

    Args:
        sources: the files.
        count: files in all.
        folder: where; it is made.
        broken: how many of them are broken.

    Returns:
        The broken ones.
    """
    copies, bad = folder.with_name(f"{folder.name}-copies"), set()
    copies.mkdir(parents=True)
    ours: list[Path] = []
    for again in range(1 + count // (_LINKS * len(sources))):  # the links need copies on the same file system
        for number, source in enumerate(sources):
            ours.append(copies / f"{again}-{number}{source.suffix}")
            ours[-1].write_bytes(source.read_bytes())
    for number in range(count):
        place = folder / f"{number // 1000:03d}" / f"{number:06d}"
        place.parent.mkdir(exist_ok=True, parents=True)
        if (number + 1) * broken // count > number * broken // count:
            suffix, content = broken_file(ours, random.Random(number), len(bad))
            place.with_suffix(suffix).write_bytes(content)
            bad.add(str(place.with_suffix(suffix)))
        else:
            source = ours[number % len(ours)]
            place.with_suffix(source.suffix).hardlink_to(source)
    return bad


def broken_file(sources: list[Path], rng: random.Random, kind: int) -> tuple[str, bytes]:
    """A suffix, and what a file that has it should not hold; there are five kinds."""
    source = rng.choice([path for path in sources if path.suffix.lower() in _DECLARED])
    suffix, content = source.suffix.lower(), source.read_bytes()
    match kind % 5:
        case 0:
            return suffix, b""
        case 1:
            return suffix, rng.randbytes(2000)
        case 2:
            return suffix, content[: rng.randrange(1, len(content) * 2 // 3)]
        case 3:
            return rng.choice([other for other in _DECLARED if other != suffix]), content
        case _:
            return ".off", b"OFF\n8 6 12\n0 0 zero\n"


def differences(found: Path, right: Path, broken: set[str]) -> tuple[list[str], float]:
    """What is wrong with answers.

    Args:
        found: Parquet, a file or a folder of shards.
        right: Parquet with the answers that are right.
        broken: files whose answer must be an error.

    Returns:
        Problems in words, and the largest difference of a confidence.
    """
    rows, wanted = pq.read_table(found).to_pylist(), {row["path"]: row for row in pq.read_table(right).to_pylist()}
    times = Counter(row["path"] for row in rows)
    problems = [f"{path}: {count} answers" for path, count in times.items() if count > 1]
    problems += [f"{path}: no answer" for path in wanted.keys() - times.keys()]
    problems += [f"{path}: nobody asked" for path in times.keys() - wanted.keys()]
    problems += [f"{path}: broken, and called {wanted[path]['label']}" for path in broken if not wanted[path]["error"]]
    furthest = 0.0
    for row in rows:
        other = wanted.get(row["path"], row)
        if any(row[name] != other[name] for name in ("label", "up", "error")):
            problems.append(f"{row['path']}: {row['label'] or row['error']}, not {other['label'] or other['error']}")
        elif row["label"]:
            furthest = max(furthest, abs(row["confidence"] - other["confidence"]))
    if furthest > 1e-4:
        problems.append(f"confidences differ by {furthest:.2g}")
    return problems, furthest


@dataclass(frozen=True)
class Took:
    """What a command took: seconds on the clock, and CPU seconds of all its processes."""

    seconds: float
    cpu: float


def family(parent: int) -> dict[int, tuple[str, float]]:
    """Name and CPU seconds of a process and of all that come from it, by their numbers."""
    parents, found = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            values = (folder / "stat").read_text().rpartition(") ")[2].split()
            name = (folder / "cmdline").read_text().replace("\0", " ")
            parents[int(folder.name)] = int(values[1])
            found[int(folder.name)] = name, (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
    members = {parent}
    while more := {child for child, of in parents.items() if of in members and child not in members}:
        members |= more
    return {member: found[member] for member in members if member in found}


def measured(*command: object) -> Took:
    """Run a command to its end.

    Raises:
        SystemExit: it failed, other than on files.
    """
    start, used = time.perf_counter(), {}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(list(map(str, command)), stdout=said, stderr=said)
        while process.poll() is None:
            used |= family(process.pid)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK)
        took = time.perf_counter() - start
        said.seek(0)
        if process.returncode not in (0, 1):
            raise SystemExit(said.read())
    return Took(took, sum(cpu for _, cpu in used.values()))


def close(values: dict[str, Any], problems: list[str], json_file: Path | None) -> None:
    """Say what was measured, and end."""
    for name, value in values.items():
        typer.echo(f"{name}: {value}")
    for problem in problems[:10]:
        typer.secho(problem, fg="red", err=True)
    if json_file:
        json_file.write_text(json.dumps(values | {"problems": problems}, indent=1))
    raise typer.Exit(bool(problems))


@app.command()
def proof(folders: Folders = None, files: int = 5000, broken: int = 500, json_file: Json = None) -> None:
    """Workers, a node and the command die; each file is answered once, as the plain command answers it."""
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as name:
        scans, out, plain = Path(name) / "scans", Path(name) / "out", Path(name) / "plain.parquet"
        bad = folder_of(sources_of(folders), files, scans, broken)
        values: dict[str, Any] = {"files": files, "broken": len(bad)}
        values["seconds of the plain command"] = round(measured(*CLASSIFY, scans, "-r", "-o", plain).seconds, 1)

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            nodes = [cluster.head_node, cluster.add_node(num_cpus=1)]
            raylets = [node.all_processes["raylet"][0].process.pid for node in nodes if node]
            # Shards of a tenth, so that deaths can be told apart at any size.
            small = f"import pointcentroid.scale.answers as answers; answers.SHARD_ROWS = {max(files // 10, 1)}; {MAIN}"
            arguments = ["classify", scans, "-r", "--ray", cluster.address, "-o", f"{out}/"]
            command = [sys.executable, "-c", small, *map(str, arguments)]
            start = time.perf_counter()
            with (Path(name) / "said").open("w") as said:
                process = subprocess.Popen(command, stdout=said, stderr=said)
            try:
                for shards, deadly in enumerate((kill_workers, kill_node, kill_command), 1):
                    wait_for(out, shards, process)
                    values[f"killed after {time.perf_counter() - start:.0f} s"] = deadly(raylets, process)
            finally:
                process.kill()
            process.wait()
            kept = len(pq.read_table(out))
            values["answers kept when the command died"] = kept
            values["seconds until it died"] = round(time.perf_counter() - start, 1)
            resumed = measured(*command, "--resume")
            values["seconds of resuming, on the node that is left"] = round(resumed.seconds, 1)
        finally:
            cluster.shutdown()
        problems, furthest = differences(out, plain, bad)
        rows = pq.read_table(out, columns=["path", "error"])
    if not 0 < kept < files:
        problems.append(f"{kept} answers were there when the command died: it was no interruption")
    values["rows"], values["files with a row"] = len(rows), len(set(rows["path"].to_pylist()))
    values["rows with an error"] = len(rows) - rows["error"].null_count
    values["largest difference of a confidence"] = float(f"{furthest:.2g}")
    if len(rows) != files:
        problems.append(f"{len(rows)} rows of {files} files")
    close(values, problems, json_file)


def wait_for(shards: Path, count: int, process: subprocess.Popen) -> None:
    """Wait until there are some shards, while the command is at work."""
    end = time.monotonic() + _PATIENCE
    while len(list(shards.glob("part-*"))) < count:
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"it ended, or stood still, before there were {count} shards")
        time.sleep(0.02)


def kill_workers(raylets: list[int], _: subprocess.Popen) -> str:
    """Kill a worker that reads, and one that holds a net."""
    end = time.monotonic() + 60
    for kind in ("ray::MapBatches(_read)", "ray::MapWorker(MapBatches(_Net))"):
        busy: list[int] = []
        while not busy:  # a reading worker is called so only while it reads
            if time.monotonic() > end:
                raise SystemExit(f"there is no {kind}")
            busy = [pid for raylet in raylets for pid, (name, _) in family(raylet).items() if name.startswith(kind)]
        os.kill(busy[-1], signal.SIGKILL)
    return "a reading worker and a net"


def kill_node(raylets: list[int], _: subprocess.Popen) -> str:
    """Kill the raylet that is not the head's."""
    os.kill(raylets[-1], signal.SIGKILL)
    return "a raylet, of two"


def kill_command(_: list[int], process: subprocess.Popen) -> str:
    """Kill the driver."""
    process.kill()
    return "the command"


@app.command()
def speed(
    folders: Folders = None,
    files: int = 2000,
    rounds: int = 3,
    least: Annotated[
        float, typer.Option(help="Exit code 1 where Ray, with its start, has less of the plain files/s.")
    ] = 0.0,
    json_file: Json = None,
) -> None:
    """Files a second of the plain command and of Ray, in turn, and of Ray without its start."""
    ways = {"plain": []} | {f"Ray, {n} reading": ["--ray", "local", "--workers", str(n)] for n in (1, 2)}
    runs: dict[str, list[tuple[Took, Took]]] = defaultdict(list)
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        many, one = Path(name) / "scans", Path(name) / "one"
        folder_of(sources_of(folders), files, many)
        folder_of(sources_of(folders), 1, one)
        for number in range(rounds):
            for way, options in ways.items():
                outs = [Path(name) / f"{way} {number} {folder.name}.parquet" for folder in (many, one)]
                whole = measured(*CLASSIFY, many, "-r", "-o", outs[0], *options)
                runs[way].append((whole, measured(*CLASSIFY, one, "-r", "-o", outs[1], *options)))
                problems += differences(outs[0], Path(name) / f"plain {number} scans.parquet", set())[0]

    values: dict[str, Any] = {"files": files, "rounds": rounds}
    measures = {
        "files/s": lambda whole, _: files / whole.seconds,
        "files/s without the start": lambda whole, start: (files - 1) / (whole.seconds - start.seconds),
        "files a CPU second": lambda whole, _: files / whole.cpu,
        "files a CPU second without the start": lambda whole, start: (files - 1) / (whole.cpu - start.cpu),
    }
    for way, pairs in runs.items():
        starts = [statistics.median(getattr(start, kind) for _, start in pairs) for kind in ("seconds", "cpu")]
        values[f"{way}, one file, seconds and CPU seconds"] = [round(value, 1) for value in starts]
        for measure, rate in measures.items():
            rates = [rate(*pair) for pair in pairs]
            values[f"{way}, {measure}"] = round(statistics.median(rates), 1)
            if way != "plain":
                ratios = [own / rate(*plain) for own, plain in zip(rates, runs["plain"], strict=True)]
                values[f"{way}, {measure}, of the plain command's"] = [round(ratio, 2) for ratio in sorted(ratios)]
    best = max(statistics.median(values[f"{way}, files/s, of the plain command's"]) for way in ways if way != "plain")
    if best < least:
        problems.append(f"Ray has {best:.2f} of the plain command's files/s, less than {least:g}")
    close(values, problems, json_file)


def resident(pid: int) -> float:
    """MiB of memory that a process holds; 0 if it has ended and nobody has waited for it yet."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0) / 1024


@app.command()
def memory(source: Path = EXAMPLES / "chair_binary.pcd", files: int = 20_000, every: float = 0.5) -> None:
    """Memory of the plain command's main process, which must not change by a tenth from the first to the last quarter."""
    with tempfile.TemporaryDirectory() as name:
        folder, lines = Path(name) / "scans", Path(name) / "lines"
        folder_of([source], files, folder)
        start = time.perf_counter()
        with (
            lines.open("wb") as out,
            subprocess.Popen([*CLASSIFY, str(folder), "-r", "--format", "json"], stdout=out) as process,
        ):
            quarters: list[list[float]] = [[], [], [], []]
            row = 0
            while process.poll() is None:
                time.sleep(every)
                row = row or (len(lines.read_bytes().splitlines()[0]) + 1 if lines.stat().st_size else 0)
                if row and (held := resident(process.pid)):
                    done = min(lines.stat().st_size / row / files, 0.999)
                    quarters[int(4 * done)].append(held)
        took = time.perf_counter() - start
        for number, sizes in enumerate(quarters):
            typer.echo(f"quarter {number + 1}: median {statistics.median(sizes):.0f} MiB, {len(sizes)} looks")
        ratio = statistics.median(quarters[3]) / statistics.median(quarters[0])
        typer.echo(f"last / first: {ratio:.3f};  {files / took:.1f} files/s over {files} files")
    raise typer.Exit(not 0.9 < ratio < 1.1)


if __name__ == "__main__":
    app()
