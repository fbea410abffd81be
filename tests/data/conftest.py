"""A data set in the tree of ModelNet."""

from __future__ import annotations

from pathlib import Path

import pytest

from .prepared import write_off


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    """The tree of ModelNet: class/train/*.off and class/test/*.off, with a broken file in it."""
    root = tmp_path_factory.mktemp("raw") / "ModelNet2"
    for category, height in (("tower", 4.0), ("slab", 0.2)):
        for number in range(6):
            write_off(root / category / "train" / f"{category}_{number:04d}.off", height, number)
        for number in (6, 7):
            write_off(root / category / "test" / f"{category}_{number:04d}.off", height, number)
    (root / "slab" / "train" / "slab_0003.off").write_text("OFF\n8 6 12\n0 0 0\n")
    (root / "README.txt").write_text("not a shape\n")
    return root
