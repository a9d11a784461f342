"""Make the checkpoint that ships: the demo's run with more time, its weights in half precision.

    python tools/make_checkpoint.py             trains runs/checkpoint, writes yolo9000/zoo.safetensors and zoo.json
    python tools/make_checkpoint.py --oracle    trains runs/checkpoint-oracle, the same with every box given

Hours on two cores, minutes on a GPU; Ctrl-C keeps a checkpoint and the same command goes on from it.
"""

import argparse
import dataclasses
import json
import platform
from pathlib import Path
from typing import Any

import torch

import yolo9000
from yolo9000.checkpoints import load_model, save_model
from yolo9000.data.embedded import label_map

PACKAGE = Path(yolo9000.__file__).parent

# What differs from the demo's run (yolo9000/config.py).
MORE: dict[str, Any] = {
    "classifier_pictures": 24000,
    "boxed_pictures": 6000,
    "labelled_pictures": 12000,
    "classifier_steps": 3000,
    "steps": 6000,
    "checkpoint_every": 1000,
}


def main() -> None:
    """Train, and put the result in the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", action="store_true", help="the run that bounds it; nothing is put in the package")
    oracle = parser.parse_args().oracle
    run = yolo9000.train(
        joint=True, oracle=oracle, out=Path("runs") / ("checkpoint-oracle" if oracle else "checkpoint"), **MORE
    )
    print(run.table())
    if oracle:
        return
    model, header = load_model(run.weights)
    save_model(PACKAGE / "zoo.safetensors", model, label_map(), header["about"], half=True)
    record = {
        "made_by": "python tools/make_checkpoint.py",
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "config": dataclasses.asdict(run.config),
        "metrics": run.metrics,
    }
    (PACKAGE / "zoo.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
