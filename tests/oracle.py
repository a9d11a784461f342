"""Values that the original C program computes, where they stand beside the project; elsewhere their tests skip."""

from pathlib import Path

import numpy as np
import pytest

from wordtree import WordTree

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "oracle"

needs_oracle = pytest.mark.skipif(
    not (FOLDER / "out").is_dir(), reason="waits for Darknet's reference values, in ../shared/oracle beside the project"
)


def values(name: str) -> dict[str, np.ndarray]:
    """The arrays of one case."""
    with np.load(FOLDER / "out" / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def tree_9418() -> WordTree:
    """The released YOLO9000 tree."""
    return WordTree.load(FOLDER / "data" / "9k.tree")
