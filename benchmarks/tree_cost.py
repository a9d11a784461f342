"""What a vocabulary of 9418 nodes costs beside 20 flat classes: a training step of the demo's network, and detection.

    python benchmarks/tree_cost.py                            # with YOLO9000's own tree
    python benchmarks/tree_cost.py --tree other.json          # with another
    python benchmarks/tree_cost.py --batch 64 --rounds 30 --device cuda

A step is forward, backward, clipping and AdamW, as `yolo9000 train --joint` takes it, on a batch half of boxed scenes
and half of image labels, 160 pixels. Steps of the two networks take turns, so that a busy machine is busy for both; the
ratio is the median over pairs. Peak memory is of a process for each network (of the device on a GPU).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import yolo9000
from wordtree import WordTree
from yolo9000 import models
from yolo9000.config import Config
from yolo9000.hardware import autocast_of, device_of
from yolo9000.schedule import optimizer_of
from yolo9000.timing import turns

ANCHORS = [[1.5, 1.6], [3.2, 3.0], [5.2, 5.4]]  # about what the dimension clusters of the demo's scenes are
BOXES = 3  # a scene


def described(tree: WordTree) -> str:
    """The statistics that decide the cost."""
    met = np.zeros(len(tree), dtype=int)
    for node in range(len(tree)):
        above = tree.parents[node]
        met[node] = tree.group_size[tree.group_of[node]] + (met[above] if above >= 0 else 0)
    return (
        f"{len(tree)} nodes, {len(tree.group_start)} groups, {int(tree.depths.max()) + 1} deep; a label's path meets "
        f"{met.mean():.0f} logits on average, {met.max()} at most"
    )


class Bench:
    """The demo's network over one tree, with a batch."""

    def __init__(self, tree: WordTree, batch: int, device: torch.device) -> None:
        config = Config()
        torch.manual_seed(0)
        self.tree, self.device = tree, device
        self.model = models.yolo9000(tree, ANCHORS, config.size, config.widths, config.counts).to(device)
        self.images = torch.rand(batch, 3, config.size, config.size, device=device)
        if device.type == "cpu":
            self.model = self.model.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.optimizer = optimizer_of(self.model, config)
        self.autocast = autocast_of(config.precision, device)
        random = np.random.RandomState(1)
        self.targets = [self.target(random, boxed=at < batch // 2) for at in range(batch)]

    def target(self, random: np.random.RandomState, boxed: bool) -> dict[str, Tensor]:
        """Leaves of the tree, so that paths are as long as they get."""
        count = BOXES if boxed else 1
        target = {"labels": torch.from_numpy(random.choice(self.tree.leaves, count))}
        if boxed:
            low = random.rand(count, 2) * 90
            boxes = np.concatenate((low, low + 25 + random.rand(count, 2) * 45), axis=1)
            target["boxes"] = torch.from_numpy(boxes).float()
        return {key: value.to(self.device) for key, value in target.items()}

    def train(self) -> None:
        """One update."""
        self.model.train()
        with self.autocast():
            losses = self.model(self.images, self.targets)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 20.0)
        self.optimizer.step()

    @torch.no_grad()
    def look_trained(self, boxes: float = 5.0) -> None:
        """Let about that many boxes an image pass objectness, as after training; make the classifier sure of them."""
        self.model.eval()
        head = self.model.head
        head.boxes.weight[4::5] *= 500
        head.classes.weight *= 500
        objectness = self.model.region(self.images).raw[..., 4].flatten()
        wanted = objectness.kthvalue(round(len(objectness) - boxes * len(self.images))).values
        head.boxes.bias[4::5] -= wanted - torch.tensor(self.model.threshold).logit()

    @torch.no_grad()
    def detect(self) -> int:
        """One batch; how many boxes were found."""
        self.model.eval()
        with self.autocast():
            return sum(len(found["boxes"]) for found in self.model(self.images))


def compare(
    name: str, flat: Callable[[], object], tree: Callable[[], object], rounds: int, device: torch.device
) -> None:
    """Print the medians of two pieces of work that take turns, and the median of their ratios."""
    for _ in range(2):
        flat(), tree()
    times = turns({"flat": flat, "tree": tree}, rounds, device)
    ratios = sorted(b / a for a, b in zip(times["flat"], times["tree"], strict=True))
    quarter = len(ratios) // 4
    print(
        f"{name:<10} 20 flat classes {statistics.median(times['flat']) * 1000:8.1f} ms   tree "
        f"{statistics.median(times['tree']) * 1000:8.1f} ms   ratio {statistics.median(ratios):.3f} "
        f"(middle half {ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f})"
    )


def peak_mebibytes(only: str, given: argparse.Namespace) -> float:
    """Peak memory of a process of its own that takes three training steps."""
    words = [sys.executable, __file__, "--only", only, "--batch", str(given.batch), "--device", given.device]
    words += ["--tree", given.tree] if given.tree else []
    return float(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", help="Darknet's .tree, or a .json of ours; YOLO9000's own where left out")
    parser.add_argument("--batch", type=int, default=32, help="pictures a step, half with boxes")
    parser.add_argument("--rounds", type=int, default=20, help="pairs of steps")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--only", choices=("flat", "tree"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = device_of(given.device)
    flat_tree = WordTree([f"class {n}" for n in range(20)], [-1] * 20)
    tree = WordTree.load(given.tree) if given.tree else yolo9000.official_tree()
    if given.only:
        bench = Bench(flat_tree if given.only == "flat" else tree, given.batch, device)
        for _ in range(3):
            bench.train()
        on_gpu = device.type == "cuda"
        print(torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else peak_of_this_process())
        return

    flat, vast = Bench(flat_tree, given.batch, device), Bench(tree, given.batch, device)
    print(
        f"torch {torch.__version__}, {torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'}, "
        f"{torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.2f}, batch {given.batch}, "
        f"{given.rounds} rounds"
    )
    print(f"tree: {given.tree or 'that of YOLO9000'}, {described(tree)}")
    compare("training", flat.train, vast.train, given.rounds, device)
    flat.look_trained(), vast.look_trained()
    print(f"boxes found an image: {flat.detect() / given.batch:.1f} flat, {vast.detect() / given.batch:.1f} tree")
    compare("detection", flat.detect, vast.detect, given.rounds, device)
    one, other = peak_mebibytes("flat", given), peak_mebibytes("tree", given)
    print(f"peak memory of training: {one:.0f} MiB flat, {other:.0f} MiB tree, ratio {other / one:.3f}")


def peak_of_this_process() -> float:
    """The most that was resident, in MiB. Where there is /proc: elsewhere a process counts what its parent had too."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 2**10
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()
