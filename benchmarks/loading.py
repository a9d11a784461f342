"""What a loader makes on one core, beside decoding and resizing alone: pictures a second by augmentation.

    python benchmarks/loading.py
    python benchmarks/loading.py --width 1280 --height 960 --size 608

The pictures are JPEGs made of the embedded set's backgrounds. Both sides take turns on one thread, so that a busy
machine is busy for both; the figures are medians. Colours change by the batch where the network is, not in a loader.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, resize

from wordtree import LabelMap, build_tree
from yolo9000.data.augment import AUGMENTATIONS
from yolo9000.data.embedded import pack
from yolo9000.data.joint import JointSampler
from yolo9000.data.loading import Damaged, Key, Keys, Known, Views, load_batches
from yolo9000.data.records import Records, Table

DOG = "n02084071"


def pictures(folder: Path, count: int, width: int, height: int) -> Records:
    """JPEGs of that size with four boxes each."""
    labels = LabelMap("dogs", ("dog",), (DOG,))
    tree = build_tree(labels)
    files = []
    for number, pixels in zip(range(count), [*pack().backgrounds.values()] * count, strict=False):
        files.append(str(folder / f"{number}.jpg"))
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(files[-1], quality=90)
    boxes = np.tile([width * 0.2, height * 0.3, width * 0.6, height * 0.7], (4 * count, 1))
    return Table(
        "pictures", tree, files, files, np.repeat(np.arange(count), 4), boxes, np.zeros(4 * count, np.int64),
        lambda row: files[row // 4],
    ).records()  # fmt: skip


def plain(file: str, size: int) -> Tensor:
    """Decode and resize as torchvision's own data sets do it."""
    with open(file, "rb") as opened:
        return resize(pil_to_tensor(Image.open(opened).convert("RGB")), [size, size], antialias=True)


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        records = pictures(Path(folder), 24, given.width, given.height)
        rows = range(len(records))
        loaders = {name: Views([records], how, 0, [0]) for name, how in AUGMENTATIONS.items()}
        taken: dict[str, list[float]] = {name: [] for name in ("decode, resize", *loaders, "paper, batched")}
        damaged, known = Damaged(Path(folder) / "bad.csv", [0]), [Known(None, None)]
        sampler = JointSampler([len(rows)], [1.0], 8, len(rows) // 8)

        def batches(size: int) -> Keys:
            return Keys(sampler, lambda step: size)

        for _ in range(given.rounds + 1):  # the first warms up
            for row in rows:
                taken["decode, resize"].append(
                    seconds(lambda: plain(records.files[row], given.size))  # noqa: B023
                )
                for name, views in loaders.items():
                    taken[name].append(seconds(lambda: views[Key(0, row, row, given.size)]))  # noqa: B023
            whole = seconds(lambda: list(load_batches(loaders["paper"], batches(given.size), 0, damaged, known)))
            taken["paper, batched"] += [whole / len(rows)] * len(rows)
    alone = statistics.median(taken["decode, resize"][len(rows) :])
    print(f"{given.width} x {given.height} JPEG -> {given.size}, one core, load average {os.getloadavg()[0]:.1f}")
    for name, values in taken.items():
        middle = statistics.median(values[len(rows) :])
        print(f"{name:16} {1 / middle:7.0f} pictures a second   {alone / middle:5.2f} of decode, resize")


if __name__ == "__main__":
    main()
