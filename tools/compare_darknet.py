"""How far our raw logits are from the original program's: the table of docs/darknet-files.md.

    python tools/compare_darknet.py ../shared/oracle

The folder holds the program's values, cfgs, and the maker of the random weights that they were computed with.
"""

import runpy
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from yolo9000 import models
from yolo9000.batchnorm import set_batchnorm
from yolo9000.weights import load_weights

SEEDS = {"yolov2-tiny-voc": 11, "yolov2-voc": 12, "yolo_2016": 13, "yolo9000": 14, "darknet19": 15}


def main() -> None:
    """Print a line for each network whose values are there."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    generate = runpy.run_path(str(folder / "make_weights.py"))["generate"]
    print("network, input, largest difference, standard deviation of the logits")
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted((folder / "out").glob("infer_*.npz")):
            case = path.stem.removeprefix("infer_")
            name = "yolo9000" if case.startswith("yolo9000_") else case
            if name not in SEEDS or not (folder / "calib" / f"{name}.npz").is_file():
                continue
            weights = Path(scratch) / f"{name}.weights"
            if not weights.exists():
                generate(folder / "cfg" / f"{name}.cfg", weights, SEEDS[name], folder / "calib" / f"{name}.npz")
            model = models.from_cfg(folder / "cfg" / f"{name}.cfg").eval()
            load_weights(model, weights)
            set_batchnorm(model, "darknet")
            with np.load(path) as values, torch.inference_mode():
                raw = model.raw(torch.from_numpy(values["input"])[None])[0].numpy()
                given, ours = _comparable(dict(values), raw)
                print(f"{case}, {values['input'].shape[1]}, {abs(ours - given).max():.1e}, {given.std():.1f}")


def _comparable(values: dict[str, np.ndarray], raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The program's logits and ours, [n] each: all where all are stored, else those of the selected predictors."""
    if "logits" in values or "rin" in values:
        return values["logits" if "logits" in values else "rin"].ravel(), raw.ravel()
    split = raw.reshape(values["rin_xywho"].shape[0], -1, *raw.shape[1:])
    anchor, row, column = values["sel_anchor_row_col"].T
    ours = np.concatenate([split[:, :5].ravel(), split[anchor, 5:, row, column].ravel()])
    return np.concatenate([values["rin_xywho"].ravel(), values["sel_logits"].ravel()]), ours


if __name__ == "__main__":
    main()
