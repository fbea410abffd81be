"""Servers, and what they are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import pointcentroid as pc

from ..conftest import EXAMPLES
from .client import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("serve"), "--workers", 2)
    yield server
    server.settle()
    code, said = server.end()
    assert (code, said) == (0, "")
    assert list(server.folder.glob("pointcentroid-*")) == []


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers = []

    def start(*options: object) -> Server:
        servers.append(Server(tmp_path, "--workers", 1, *options))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


@pytest.fixture(scope="session")
def large() -> bytes:
    """A cloud that takes seconds to read."""
    rng = np.random.default_rng(0)
    lines = [f"{x:.5f} {y:.5f} {z:.5f}" for x, y, z in rng.normal(size=(20_000, 3))]
    return ("\n".join(lines) + "\n").encode() * 100


@pytest.fixture(scope="session")
def confidence() -> float:
    """How sure the predictor is of the example that is sent."""
    return pc.load("small", "cpu")(EXAMPLES / "chair.off").confidence
