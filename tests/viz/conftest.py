"""What the tests of pictures, pages and windows share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pointcentroid as pc
from pointcentroid.errors import DisplayError
from pointcentroid.io import read_parts
from pointcentroid.predict.explain import Explanation
from pointcentroid.predict.naming import point_parts
from pointcentroid.viz.open3d_scene import import_open3d

from ..conftest import EXAMPLES, ROOT


@pytest.fixture(scope="session")
def chair() -> Explanation:
    return pc.load("small", "cpu").explain(EXAMPLES / "chair.off")


@pytest.fixture(scope="session")
def drawing() -> None:
    """What open3d needs of the system."""
    try:
        import_open3d()
    except DisplayError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four random variants of every class, with named parts."""
    folder = tmp_path_factory.mktemp("variants")
    command = [sys.executable, ROOT / "tools" / "make_examples.py", folder, "--variants", "4"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def chairs(variants: Path) -> list[tuple[Explanation, np.ndarray]]:
    """What a net saw of variants of a chair, and the name of each point's part."""
    net, found = pc.load("small", "cpu"), []
    for path in sorted((variants / "chair").glob("*.glb")):
        seen, parted = net.explain(path), read_parts(path)
        assert parted is not None
        found.append((seen, np.array(parted.names)[point_parts(seen, parted)]))
    return found


@pytest.fixture(scope="session")
def screen() -> Iterator[str]:
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x900x24", "-nolisten", "tcp", "-noreset"]
    server = subprocess.Popen(command, pass_fds=[writer], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as said:
        yield f":{said.readline().strip()}"
    server.terminate()
    server.wait()
