"""Measure folders that outgrow memory or the machine: memory of the plain command, and files a second with and without Ray.

    python tools/scale.py memory [--files 20000]
    python tools/scale.py speed [--files 1000] [FILES...]

`memory` makes a folder of hard links to a small file and watches the main process classify it. `speed` makes a folder of
hard links to FILES, or to the shipped examples, and answers it with the plain command, and with Ray with 1 and 2 reading
tasks, in one run, because machines drift. What Ray takes to start is told apart from what it takes a file.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import typer

EXAMPLES = Path(__file__).parent.parent / "data" / "examples"
CLASSIFY = [sys.executable, "-m", "pointcentroid", "classify"]

app = typer.Typer(help=__doc__, no_args_is_help=True)


def folder_of(sources: list[Path], count: int, folder: Path) -> None:
    """Fill a folder with hard links to files, a thousand to a subfolder."""
    for number in range(count):
        source = sources[number % len(sources)]
        path = folder / f"{number // 1000:03d}" / f"{number:06d}{source.suffix}"
        path.parent.mkdir(exist_ok=True)
        if number < len(sources):
            path.write_bytes(source.read_bytes())
        else:
            path.hardlink_to(folder / "000" / f"{number % len(sources):06d}{source.suffix}")


def resident(pid: int) -> float:
    """MiB of memory that a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


@app.command()
def memory(files: int = 20_000, source: Path = EXAMPLES / "chair_binary.pcd", every: float = 0.5) -> None:
    """Memory of the plain command's main process, by quarters of its answers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "scans"
        folder.mkdir()
        folder_of([source], files, folder)
        lines = Path(name) / "lines"
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
                if row:
                    done = min(lines.stat().st_size / row / files, 0.999)
                    quarters[int(4 * done)].append(resident(process.pid) if process.poll() is None else quarters[3][-1])
        took = time.perf_counter() - start
        for number, sizes in enumerate(quarters):
            typer.echo(f"quarter {number + 1}: median {statistics.median(sizes):.0f} MiB, {len(sizes)} looks")
        ratio = statistics.median(quarters[3]) / statistics.median(quarters[0])
        typer.echo(f"last / first: {ratio:.3f};  {files / took:.1f} files/s over {files} files")


@app.command()
def speed(sources: list[Path] | None = None, files: int = 1000) -> None:
    """Files a second of whole commands, and of Ray without its start."""
    with tempfile.TemporaryDirectory() as name:
        folder, few = Path(name) / "scans", Path(name) / "few"
        for made, count in ((folder, files), (few, 1)):
            made.mkdir()
            folder_of(sources or sorted(p for p in EXAMPLES.iterdir() if p.is_file()), count, made)

        def seconds(number: int, *arguments: str) -> float:
            out = f"{name}/{number}.parquet"
            start = time.perf_counter()
            # Ray's workers are nice by default, which on a busy machine would be measured instead.
            environment = os.environ | {"RAY_worker_niceness": "0"}
            subprocess.run([*CLASSIFY, *arguments, "-r", "-o", out], stderr=subprocess.DEVNULL, check=False, env=environment)
            return time.perf_counter() - start

        ways = {"plain": []} | {f"Ray, {n} readers": ["--ray", "local", "--workers", str(n)] for n in (1, 2)}
        for number, (way, options) in enumerate(ways.items()):
            whole, start = seconds(2 * number, str(folder), *options), seconds(2 * number + 1, str(few), *options)
            typer.echo(
                f"{way}: {files / whole:.1f} files/s; {start:.1f} s for one file, then {files / (whole - start):.1f} files/s"
            )


if __name__ == "__main__":
    app()
