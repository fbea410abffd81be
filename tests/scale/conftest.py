"""A folder of files, some of them broken, and the answers for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .folders import fill, plain


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 files, 24 of them broken."""
    path = tmp_path_factory.mktemp("scans")
    fill(path, 240)
    return path


@pytest.fixture(scope="session")
def expected(folder: Path) -> dict[str, dict[str, Any]]:
    return plain(folder)


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray tells nobody of these tests, and its workers take their share of a busy machine."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")
