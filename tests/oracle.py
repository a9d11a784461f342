"""Values that the original C program computes, where they stand beside the project; elsewhere their tests skip."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from wordtree import WordTree

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "oracle"

needs_oracle = pytest.mark.skipif(
    not (FOLDER / "out").is_dir(), reason="waits for Darknet's reference values, in ../shared/oracle beside the project"
)
WEIGHTS = {  # cfg and seed of random weights, and the SHA-256 of what they make
    "yolov2-tiny-voc": (11, "1e229a766584970a28ae1cb4d9bca3803acd91348c12243191c32174c005a9ff"),
    "yolov2-voc": (12, "b3badc84f9dc35ed45984b820e19f0789ac5ded0d20d3071e8365d5ed4d6e241"),
    "yolo_2016": (13, "522290927904edb8724e398e16a814e38b6ffa91b158fc36ee1f7bace59a558b"),
    "yolo9000": (14, "fd22447af62d83ef3370d78f96d1aa1c1208a478b45e4340873fbb5170ef03fe"),
    "darknet19": (15, "cd73237674a93c10e404d5275da09ee1fd4d8b6a403d4b28653cdbf15a6d21f2"),
}


def values(name: str) -> dict[str, np.ndarray]:
    """The arrays of one case; without them the test that asks skips."""
    path = FOLDER / "out" / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"waits for Darknet's reference values of {name}, in ../shared/oracle beside the project")
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


def make_weights(name: str, path: Path) -> Path:
    """Write the random weights of a cfg; the bytes are those that the reference values were computed with."""
    seed, sha256 = WEIGHTS[name]
    calibration = FOLDER / "calib" / f"{name}.npz"
    if not calibration.is_file():
        pytest.skip(f"waits for the statistics of {name}, in ../shared/oracle beside the project")
    generate = runpy.run_path(str(FOLDER / "make_weights.py"))["generate"]
    assert generate(FOLDER / "cfg" / f"{name}.cfg", path, seed, calibration) == sha256
    return path


def tree_9418() -> WordTree:
    """The released YOLO9000 tree."""
    return WordTree.load(FOLDER / "data" / "9k.tree")
