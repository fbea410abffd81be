"""Frames a second of the window while a cloud of 100,000 points is dragged, on a screen without a graphics card.

    python tools/framerate.py

Needs Xvfb, xdotool and Mesa's Vulkan drivers (Debian: xvfb, xdotool, mesa-vulkan-drivers). Frames are counted by Mesa's
overlay layer where they are handed to the screen, once a second.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def frames(display: str, folder: Path, points: int, seconds: float) -> list[float]:
    """Open the window on a display, drag, and read what the layer counted in each whole second of dragging."""
    cloud, log = folder / "cloud.npy", folder / "frames.txt"
    directions = np.random.default_rng(0).normal(size=(points, 3))
    np.save(cloud, directions / np.linalg.norm(directions, axis=1, keepdims=True))
    environment = os.environ | {
        "DISPLAY": display,
        "VK_INSTANCE_LAYERS": "VK_LAYER_MESA_overlay",
        "VK_LAYER_MESA_OVERLAY_CONFIG": f"no_display=1,fps_sampling_period=1000,output_file={log}",
    }
    command = [sys.executable, "-m", "pointcentroid", "view", str(cloud), "--up", "z"]
    window = subprocess.Popen(command, env=environment)
    try:
        xdotool = ["xdotool", "search", "--sync", "--onlyvisible", "--name", "pointcentroid"]
        said = subprocess.check_output([*xdotool, "getwindowgeometry", "--shell"], env=environment, text=True)
        place = {key: int(value) for key, value in (line.split("=") for line in said.splitlines())}
        time.sleep(8)  # drawn, and at rest
        before = len(_rates(log))
        x, y = place["X"] + place["WIDTH"] // 3, place["Y"] + place["HEIGHT"] // 2
        drag = ["xdotool", "mousemove", str(x), str(y), "mousedown", "1"]
        for step in range(int(seconds / 0.02)):
            drag += ["mousemove_relative", "--", str(4 if step // 40 % 2 == 0 else -4), str(1 if step % 2 else -1)]
            drag += ["sleep", "0.02"]
        subprocess.run([*drag, "mouseup", "1"], env=environment, check=True)
        during = _rates(log)[before:]
    finally:
        window.kill()
        window.wait()
    print(f"window of {place['WIDTH']} x {place['HEIGHT']} pixels, {points:,} points")
    return during[2:-1]  # the first and the last are no whole seconds of dragging


def _rates(log: Path) -> list[float]:
    lines = [line.split(",") for line in log.read_text().splitlines()[1:] if line.count(",") == 3]
    return [float(cells[2]) for cells in lines if cells[0].strip() == "0"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=12)
    arguments = parser.parse_args()
    reader, writer = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x900x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=[writer],
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as said, tempfile.TemporaryDirectory() as folder:
            rates = frames(f":{said.readline().strip()}", Path(folder), arguments.points, arguments.seconds)
    finally:
        server.terminate()
        server.wait()
    print(f"{statistics.median(rates):.1f} frames/s (median of seconds {min(rates):.1f} to {max(rates):.1f})")


if __name__ == "__main__":
    main()
