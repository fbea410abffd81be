"""The proof of scale, and its judge."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pointcentroid.cli import inputs
from pointcentroid.config import PreprocessConfig
from pointcentroid.predict.preparing import Prepared, attempt
from pointcentroid.results import Failure, Prediction
from pointcentroid.scale.answers import schema_of, table_of

from ..conftest import ROOT


def tool() -> Any:
    """tools/scale.py, which is no module of the package."""
    spec = importlib.util.spec_from_file_location("scale_tool", ROOT / "tools" / "scale.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale_tool"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


class TestTool:
    """The proof is worth what its judge is."""

    def test_folders_are_as_large_and_as_broken_as_asked(self, tmp_path: Path) -> None:
        scale = tool()
        bad = scale.folder_of(scale.sources_of(None), 120, tmp_path / "scans", 17)
        files = inputs.expand([str(tmp_path / "scans")], recursive=True)
        assert (len(files), len(bad), len(bad - set(files))) == (120, 17, 0)
        settings = PreprocessConfig(sample=64, points=64)
        sound = [file for file in files if file not in bad]
        assert all(isinstance(attempt(file, settings), Prepared) for file in sound[:20])
        assert {os.stat(file).st_nlink > 1 for file in sound} == {True}
        assert {os.stat(file).st_nlink for file in bad} == {1}

    def test_every_fault_of_answers_is_seen(self, tmp_path: Path) -> None:
        scale = tool()

        def kept(name: str, rows: list[Prediction | Failure]) -> Path:
            pq.write_table(table_of(rows, schema_of({})), tmp_path / name)
            return tmp_path / name

        def said(file: str, **changes: Any) -> Prediction:
            said = Prediction(file, "chair", 0.9, [("chair", 0.9)], "z", 64, np.zeros(1, np.float32), np.eye(3), 0.5)
            return replace(said, **changes)

        right: list[Prediction | Failure] = [said("a"), said("b"), Failure("c", "cut short")]
        plain = kept("plain", right)
        near = [said("a", confidence=0.90004), *right[1:]]
        assert scale.differences(kept("near", near), plain, {"c"}) == ([], pytest.approx(4e-5))
        faults = {
            "3 answers": [*right, right[0], right[0]],
            "b: no answer": [right[0], right[2]],
            "d: nobody asked": [*right, said("d")],
            "a: sofa, not chair": [said("a", label="sofa"), *right[1:]],
            "b: cut short, not chair": [right[0], Failure("b", "cut short"), right[2]],
            "c: chair, not cut short": [*right[:2], said("c")],
            "c: too long, not cut short": [*right[:2], Failure("c", "too long")],
            "differ by 0.001": [said("a", confidence=0.901), *right[1:]],
        }
        for says, rows in faults.items():
            (problem,) = scale.differences(kept("found", rows), plain, {"c"})[0]
            assert says in problem
        (problem,) = scale.differences(plain, plain, {"b", "c"})[0]
        assert problem == "b: broken, and called chair"

    def test_cpu_seconds_are_those_of_all_processes(self) -> None:
        scale = tool()
        burn = "import time\nwhile time.process_time() < 0.8: pass"
        both = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r} + '\\ninput()'], input=b'x')\n{burn}"
        took = scale.measured(sys.executable, "-c", both)
        assert 0.9 < took.cpu < took.seconds * (os.cpu_count() or 1)
        with pytest.raises(SystemExit, match="boom"):
            scale.measured(sys.executable, "-c", "import sys; print('boom', file=sys.stderr); sys.exit(2)")
