"""Measure what a user feels: start-up, files a second, clouds a second, memory.

    python tools/bench.py [--json FILE] [--quick]

Prints one table. Times are medians; everything is measured in one run, because machines differ and drift. Ratios travel,
absolute figures do not.
"""

from __future__ import annotations

import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import onnxruntime
import torch
import typer
from classic import CLASSIC
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from pointcentroid.geometry import farthest
from pointcentroid.geometry.chamfer import chamfer_distance
from pointcentroid.geometry.fps import farthest_first, farthest_point_sampling
from pointcentroid.geometry.nearest import nested_neighbours
from pointcentroid.geometry.neighbours import nearest_neighbours
from pointcentroid.models import create_model
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.predict.allocator import keep_freed_memory
from pointcentroid.predict.loading import load
from pointcentroid.predict.nets import ordered
from pointcentroid.predict.runtimes import Runtime

EXAMPLES = Path(__file__).parent.parent / "data" / "examples"
CLASSIFY = [sys.executable, "-m", "pointcentroid", "classify"]

_PEAK = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"""

Row = tuple[str, float, str]


@dataclass(frozen=True)
class Effort:
    """How long is measured.

    Attributes:
        calls: of one thing by itself, at least.
        budget: seconds for it; more calls where they fit.
        rounds: of things that are measured in turn.
        net_rounds: the same for a net in both runtimes.
        copies: files of the folder.
        compiled: measure compiled nets too.
    """

    calls: int = 3
    budget: float = 2.0
    rounds: int = 7
    net_rounds: int = 15
    copies: int = 200
    compiled: bool = True


QUICK = Effort(calls=1, budget=0.0, rounds=1, net_rounds=1, copies=12, compiled=False)


def median_time(work: Callable[[], object], least: int, budget: float = 0.0) -> float:
    """Median seconds of a call, after one to warm up, over as many as fit the budget."""
    work()
    times: list[float] = []
    while len(times) < least or sum(times) < budget:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def process_time(command: list[str], runs: int) -> float:
    """Median wall seconds of a whole process, after one to warm the disk cache."""

    def run() -> None:
        subprocess.run(command, check=True, capture_output=True)

    return median_time(run, runs)


def start_up(file: Path, runs: int) -> list[Row]:
    """One cold file against the import of torch, which training cannot avoid and classifying can, in turn."""
    imports, classifies = [], []
    for _ in range(runs):
        imports.append(process_time([sys.executable, "-c", "import torch"], 1))
        classifies.append(process_time([*CLASSIFY, str(file)], 1))
    torch_time, classify_time = statistics.median(imports), statistics.median(classifies)
    ratio = statistics.median(c / t for c, t in zip(classifies, imports, strict=True))
    return [
        ("python -c 'import torch'", torch_time, "s"),
        ("classify one OFF, cold", classify_time, "s"),
        ("classify one OFF / import torch", ratio, "x"),
    ]


def folder(sources: list[Path], effort: Effort) -> list[Row]:
    """A folder of files, whole process, with the default --up auto; and the peak memory of its largest process."""
    with tempfile.TemporaryDirectory() as name:
        for number in range(effort.copies):
            source = sources[number % len(sources)]
            shutil.copy(source, Path(name) / f"{number:04d}{source.suffix}")
        command = [*CLASSIFY, name, "--format", "json"]
        took = process_time(command, effort.calls)
        # In a small process of its own: what a child needed counts from the memory of the process that starts it.
        measured = subprocess.run([sys.executable, "-c", _PEAK, *command], check=True, capture_output=True, text=True)
        peak = int(measured.stdout) / 2**10
    return [
        (f"classify a folder of {effort.copies} files", effort.copies / took, "files/s"),
        ("peak memory of classify", peak, "MiB"),
    ]


def forward(net: CentroidClassifier, batch: int, precision: torch.dtype, compiled: bool, effort: Effort) -> float:
    """Clouds a second from raw points to logits, sampling included."""
    clouds = torch.nn.functional.normalize(torch.randn(batch, 1024, 3), dim=2)
    first = net.config.seeds
    run = torch.compile(net, dynamic=False) if compiled else net

    def work() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            run(farthest_first(clouds, first), ordered=True)

    return batch / median_time(work, effort.calls, effort.budget)


def size(net: CentroidClassifier, points: int = 1024) -> tuple[int, int]:
    """Parameters, and floating-point operations in the matrix products of one cloud."""
    with FlopCounterMode(display=False) as counter:  # it follows gradients, so they must not be switched off
        net(torch.randn(1, points, 3), ordered=True)
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops()


def model(effort: Effort) -> list[Row]:
    """Size and speed of the shipped classifier, in both runtimes."""
    predictor = load("small", device="cpu")
    net = predictor.torch_net.module
    parameters, flops = size(net)
    rows: list[Row] = [
        ("small: parameters", parameters / 1e6, "M"),
        ("small: matrix products, 1,024 points", flops / 1e6, "MFLOP"),
    ]
    for compiled in (False, True) if effort.compiled else (False,):
        for precision in (torch.float32, torch.bfloat16):
            for batch in (1, 32):
                name = f"small: {'compiled' if compiled else 'eager'}, {str(precision)[6:]}, batch {batch}"
                rows.append((name, forward(net, batch, precision, compiled, effort), "clouds/s"))
    clouds = torch.nn.functional.normalize(torch.randn(32, 1024, 3), dim=2).numpy()
    runtimes = {name: load("small", device="cpu", runtime=name).net for name in ("onnx", "torch")}  # type: ignore[arg-type]
    times = in_turn({name: partial(runtime, clouds) for name, runtime in runtimes.items()}, effort.net_rounds)
    rows += [(f"small: the net alone, {name}, batch 32", 32 / statistics.median(t), "clouds/s") for name, t in times.items()]
    ratio = statistics.median(b / a for a, b in zip(times["onnx"], times["torch"], strict=True))
    rows.append(("small: the net alone, onnx against torch", ratio, "x"))
    cloud = torch.nn.functional.normalize(torch.randn(1, 100_000, 3), dim=2)
    with torch.inference_mode():
        took = median_time(lambda: net(cloud), effort.calls, effort.budget)
    rows.append(("small: one forward on 100,000 points", took, "s"))
    large = cloud[0].numpy()
    took = median_time(lambda: predictor(large), effort.calls, effort.budget)
    rows.append(("predictor: a 100,000-point cloud", took, "s"))
    return rows


def in_turn(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of several calls, each round all of them, so that a change of the machine's speed meets all alike.

    A round calls each once, then for a fifth of a second, of which the median counts: the first call finds caches, memory
    and threads as the one before left them, which takes what needs milliseconds twice its time after what
    needs gigabytes."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            times[name].append(median_time(run, 1, budget=0.2))
    return times


def training(rounds: int) -> list[Row]:
    """One step of each autoencoder: 16 halves of 512 points in, 512 points out, scored against all 1,024, and AdamW."""
    clouds = torch.nn.functional.normalize(torch.randn(16, 1024, 3), dim=2)

    def step(name: str) -> Callable[[], object]:
        net = create_model(name)
        optimiser = torch.optim.AdamW(net.parameters())

        def run() -> None:
            seen = farthest_first(clouds[:, :512], net.config.seeds)
            loss = chamfer_distance(net(seen, 512, ordered=True), clouds).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

        return run

    times = in_turn({name: step(name) for name in ("autoencoder", "capsules")}, rounds)
    rows: list[Row] = [(f"{name}: a training step, batch 16", statistics.median(t), "s") for name, t in times.items()]
    ratio = statistics.median(b / a for a, b in zip(times["autoencoder"], times["capsules"], strict=True))
    return [*rows, ("capsules against autoencoder, time of a step", ratio, "x")]


def race(rounds: int) -> list[Row]:
    """Our nets against classic ones, from 16 raw clouds of 1,024 points to logits, in turn: ratios of the same round.

    In torch; ours and DGCNN in ONNX Runtime too, which does more for DGCNN than for ours."""
    clouds = torch.nn.functional.normalize(torch.randn(16, 1024, 3), dim=2)

    def ours(name: str, runtime: Runtime) -> Callable[[], object]:
        net = load(name, device="cpu", runtime=runtime).net
        return lambda: net(ordered(clouds.numpy(), net.card))

    classic = {name: CLASSIC[name]().eval() for name in CLASSIC}
    work = {name: ours(name, "torch") for name in ("tiny", "small")}
    work |= {name: partial(net, clouds) for name, net in classic.items()}
    work |= {f"{name}{_IN_ONNX}": ours(name, "onnx") for name in ("tiny", "small")}
    work |= {f"DGCNN{_IN_ONNX}": exported(classic["DGCNN"], clouds)}
    with torch.inference_mode():
        times = in_turn(work, rounds)
    rows: list[Row] = [
        (f"{name}, raw points to logits, batch 16", 16 / statistics.median(taken), "clouds/s")
        for name, taken in times.items()
    ]
    pairs = [("small", "DGCNN"), ("small", "PointNet++"), ("tiny", "DGCNN"), ("tiny", "small")]
    pairs += [(f"{name}{_IN_ONNX}", f"DGCNN{there}") for name in ("small", "tiny") for there in ("", _IN_ONNX)]
    for name, other in pairs:
        ratio = statistics.median(b / a for a, b in zip(times[name], times[other], strict=True))
        rows.append((f"{name} against {other}", ratio, "x"))
    return rows


_IN_ONNX = " in ONNX Runtime"


def exported(net: torch.nn.Module, clouds: torch.Tensor) -> Callable[[], object]:
    """The same net in ONNX Runtime, on the same clouds."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # the old exporter, which needs seconds where the new one needs minutes
        graph = Path(folder) / "net.onnx"
        torch.onnx.export(net, (clouds,), graph, dynamo=False)
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: clouds.numpy()}
    return lambda: session.run(None, feed)


def geometry(effort: Effort) -> list[Row]:
    """Farthest points and neighbours at three sizes."""

    def measured(work: Callable[[], object]) -> float:
        return 1e3 * median_time(work, effort.calls, effort.budget)

    rows: list[Row] = []
    for count, picks in ((1_000, 256), (10_000, 1_024), (100_000, 2_048)):
        cloud = torch.randn(1, count, 3)
        queries = cloud[:, :picks]
        sampling = measured(lambda c=cloud, m=picks: farthest_point_sampling(c, m))
        in_numpy = measured(lambda c=cloud, m=picks: farthest.farthest_point_sampling(c.numpy(), m))
        searching = measured(lambda q=queries, c=cloud: nearest_neighbours(q, c, 16))
        rows.append((f"fps {count:,} -> {picks:,}, torch", sampling, "ms"))
        rows.append((f"fps {count:,} -> {picks:,}, numpy", in_numpy, "ms"))
        rows.append((f"16 of {count:,} neighbours of {picks:,}", searching, "ms"))
    batch = torch.randn(32, 1024, 3)
    whole = measured(lambda: farthest_point_sampling(batch, 256)) / 32
    rows.append(("fps 32 x (1,024 -> 256), torch, a cloud", whole, "ms"))
    whole = measured(lambda: farthest.farthest_point_sampling(batch.numpy(), 256)) / 32
    rows.append(("fps 32 x (1,024 -> 256), numpy, a cloud", whole, "ms"))
    whole = measured(lambda: nested_neighbours(batch.numpy(), {(0, 16): (192, 1024)})) / 32
    rows.append(("16 of 1,024 neighbours of 192, numpy, a cloud", whole, "ms"))
    return rows


def main(
    files: Annotated[list[Path] | None, typer.Argument(help="Files of the folder run.  [default: the OFF example]")] = None,
    output: Annotated[Path | None, typer.Option("--json", help="Write the rows as JSON.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few repetitions, nothing compiled.")] = False,
) -> None:
    """Measure, and print one table."""
    keep_freed_memory()  # as the command line does
    sources = files or [EXAMPLES / "chair.off"]
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {versions}"
    torch.manual_seed(0)
    effort = QUICK if quick else Effort()
    rows = [
        *start_up(sources[0], effort.rounds),
        *folder(sources, effort),
        *model(effort),
        *race(effort.rounds),
        *training(effort.rounds),
        *geometry(effort),
    ]
    table = Table("measure", "value", "unit", title=machine, box=None, header_style="bold")
    for name, value, unit in rows:
        table.add_row(name, f"{value:.3g}" if value < 1000 else f"{value:,.0f}", unit)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    if output:
        results = [{"measure": name, "value": value, "unit": unit} for name, value, unit in rows]
        output.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
