"""Train variants of one configuration, over seeds, and print a table: what is worth its cost?

    python tools/ablate.py --data train.npz -o runs/ablation

Every run is scored on the validation shapes after its last epoch. Finished runs are kept in results.jsonl and not repeated,
so an ablation can be stopped and continued, and the table printed at any time (--table). What a variant costs is measured
when the table is printed, all of them in turn on the same machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from bench import in_turn, size

from pointcentroid.config import ClassifierConfig, to_dict
from pointcentroid.nn.classifier import CentroidClassifier
from pointcentroid.train.run import train
from pointcentroid.train.settings import load_train_config
from pointcentroid.weights import read_card

STAGES = "[{centroids: %d, dim: 48, neighbours: %d}, {centroids: %d, dim: 96, neighbours: %d, blocks: 1}]"
VARIANTS: dict[str, list[str]] = {
    "softmax over inputs": [],
    "softmax over centroids": ["model.encoder.axis=centroids"],
    "each centroid lists 8 inputs": [f"model.encoder.stages={STAGES % (64, 8, 16, 8)}"],
    "each centroid lists 32 inputs": [f"model.encoder.stages={STAGES % (64, 32, 16, 16)}"],
    "128 and 32 centroids": [f"model.encoder.stages={STAGES % (128, 16, 32, 16)}"],
    "32 and 8 centroids": [f"model.encoder.stages={STAGES % (32, 16, 8, 16)}"],
    "no max-pooling: attention alone": ["model.encoder.pool=none"],
    "no attention: farthest points and max-pooling": ["model.encoder.steps=0"],
    "slot-style: softmax over centroids, 3 update steps": ["model.encoder.axis=centroids", "model.encoder.steps=3"],
    "2 update steps": ["model.encoder.steps=2"],
    "3 update steps": ["model.encoder.steps=3"],
    "centroids move to the mean": ["model.encoder.centroid_position=mean"],
    "random seeds": ["model.encoder.initialiser=random"],
    "voxel seeds": ["model.encoder.initialiser=voxel"],
    "k-means++ seeds": ["model.encoder.initialiser=kmeans++"],
    "learnt seeds": ["model.encoder.initialiser=learned"],
    "batch norm": ["model.encoder.norm=batch"],
    "batch norm, no attention": ["model.encoder.norm=batch", "model.encoder.steps=0"],
    "batch norm, tokens by points": ["model.encoder.norm=batch", "model.encoder.tokens=points", "model.encoder.embed=0"],
    "batch norm, tokens by points, no attention": [
        "model.encoder.norm=batch",
        "model.encoder.tokens=points",
        "model.encoder.embed=0",
        "model.encoder.steps=0",
    ],
    "256 points: 64 and 16 centroids": ["preprocess.points=256"],
    "256 points: softmax over centroids, each input lists 4": [
        "preprocess.points=256",
        "model.encoder.axis=centroids",
        "model.encoder.side=inputs",
        f"model.encoder.stages={STAGES % (64, 4, 16, 4)}",
    ],
    "256 points, no abstraction: each attends to 16": [
        "preprocess.points=256",  # 1,024 of them would take days
        "model.encoder.stages=[{centroids: 256, dim: 48, neighbours: 16},"
        "{centroids: 256, dim: 96, neighbours: 16, blocks: 1, block_neighbours: 16}]",
    ],
}
"""Changes to tools/ablation.yaml, the first one none."""


def costs(config: str) -> dict[str, tuple[int, float, float]]:
    """Parameters, FLOPs of a cloud, and clouds per second on the CPU, of every variant, untrained, in batches of 8."""
    clouds = torch.randn(8, 1024, 3, generator=torch.Generator().manual_seed(0))
    sizes: dict[str, tuple[int, int]] = {}
    passes: dict[str, Callable[[], object]] = {}
    for variant, changes in VARIANTS.items():
        settings = load_train_config(config, ["data=none", *changes])
        assert isinstance(settings.model, ClassifierConfig)
        net = CentroidClassifier(settings.model).eval()
        sizes[variant] = size(net, settings.preprocess.points)
        passes[variant] = partial(net, clouds[:, : settings.preprocess.points], ordered=True)
    with torch.inference_mode():
        times = in_turn(passes, rounds=5)
    return {variant: (*sizes[variant], len(clouds) / statistics.median(times[variant])) for variant in VARIANTS}


def table(results: list[dict], config: str) -> str:
    """A Markdown table, one row a variant, mean and standard deviation over seeds."""
    lines = ["| variant | overall % | mean class % | seeds | parameters | MFLOP | clouds/s |", "|" + "---|" * 7]
    for variant, (parameters, flops, speed) in costs(config).items():
        rows = [row for row in results if row["variant"] == variant]
        cells = []
        for key in ("overall", "mean_class"):
            values = [100 * row[key] for row in rows]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}" if values else "not trained")
        cells += [str(len(rows)), f"{parameters / 1e6:.2f} M", f"{flops / 1e6:.0f}", f"{speed:.0f}"]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what has not been run, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="the data set, an npz file of labelled clouds")
    parser.add_argument("--config", default=str(Path(__file__).with_name("ablation.yaml")), help="the configuration to vary")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), metavar="VARIANT", help="some of the variants")
    parser.add_argument("--table", action="store_true", help="only print what there is")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/ablation"))
    arguments = parser.parse_args()
    log = arguments.output / "results.jsonl"
    results = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    if not arguments.table:
        if not arguments.data:
            parser.error("--data is needed to train")
        if not Path(arguments.data).is_file():
            parser.error(f"--data {arguments.data}: no such file; expected an npz of labelled clouds")
        arguments.output.mkdir(parents=True, exist_ok=True)
        done = {(row["variant"], row["seed"]): row.get("run") for row in results}
        data = hashlib.sha256(Path(arguments.data).read_bytes()).hexdigest()
        # Seeds outside, variants inside: a table is whole as early as it can be.
        for seed in range(arguments.seeds):
            for variant in arguments.only or VARIANTS:
                settings = [f"data={arguments.data}", f"output={arguments.output}", f"seed={seed}", *VARIANTS[variant]]
                config = load_train_config(arguments.config, settings)
                what = to_dict(config) | {"data": data, "output": ""}
                run = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
                if (variant, seed) in done:
                    if done[variant, seed] != run:
                        parser.error(f"{log} holds a {variant!r} of other data or settings; name another -o")
                    continue
                start = time.perf_counter()
                weights = train(config, overwrite=True)
                assert weights is not None, "ablations run in one process"
                metrics = read_card(weights).metrics
                row = {
                    "variant": variant,
                    "seed": seed,
                    "run": run,
                    "overall": metrics["validation_overall"],
                    "mean_class": metrics["validation_mean_class"],
                    "seconds": time.perf_counter() - start,
                }
                results.append(row)
                with log.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print(table(results, arguments.config))


if __name__ == "__main__":
    main()
