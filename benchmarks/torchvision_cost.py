"""What 9418 nodes cost on torchvision's detectors, beside each one's own 91 classes: a training step, and detection.

    python benchmarks/torchvision_cost.py                                     # every detector, 320 pixels
    python benchmarks/torchvision_cost.py retinanet_resnet50_fpn --size 800   # one of them, at its own size
    python benchmarks/torchvision_cost.py --device cuda --size 800 --batch 8 --pretrained
    python benchmarks/torchvision_cost.py --rounds 0 --no-memory              # the sizes alone

A step is forward, backward and SGD with momentum. Steps of the two models take turns, so that a busy machine is busy
for both; the ratio is the median over pairs. Peak memory is of a process for each model (of the device on a GPU). In
detection the thresholds are set so that as many boxes an image are looked at by both, and the tree is sure, so that it
descends. The last columns are what a head of a column a node and anchor would be, by arithmetic: its parameters, and
the logits of one image at the detector's own size.

With --pretrained the tree stands beside the detector's own 91 classes, as it does on pretrained weights; without, in
their place.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from wordtree_torchvision import SUMMARIES, attach, build
from wordtree_torchvision.dense import layers_of

import yolo9000
from wordtree import WordTree
from yolo9000.timing import ratio, turns

sys.path.insert(0, str(Path(__file__).parent))
from tree_cost import peak_of_this_process

OWN = 91  # torchvision's classes for COCO
BOXES = 5  # an image


def stock(name: str, size: int) -> Any:
    """torchvision's own detector."""
    options = {} if name.startswith("ssd") else {"min_size": size, "max_size": size * 5 // 3}
    return torchvision.models.get_model(name, weights=None, weights_backbone=None, **options)


def ours(name: str, size: int, tree: WordTree, pretrained: bool) -> Any:
    """The same over a tree."""
    if pretrained:
        return attach(stock(name, size), tree)
    options = {} if name.startswith("ssd") else {"min_size": size, "max_size": size * 5 // 3}
    return build(name, tree, **options)


class Bench:
    """A model and a batch."""

    def __init__(self, model: Any, labels: int, batch: int, size: int, device: torch.device) -> None:
        self.model, self.device = model.to(device), device
        if device.type == "cpu":
            self.model = self.model.to(memory_format=torch.channels_last)
        random = torch.Generator().manual_seed(0)
        self.images = [torch.rand(3, size, size, generator=random).to(device) for _ in range(batch)]
        self.targets = []
        for _ in range(batch):
            low = torch.rand(BOXES, 2, generator=random) * size * 0.5
            high = low + size * (0.1 + 0.4 * torch.rand(BOXES, 2, generator=random))
            nodes = torch.randint(1, labels, (BOXES,), generator=random)
            self.targets.append({"boxes": torch.cat((low, high), 1).to(device), "labels": nodes.to(device)})
        self.optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-6, momentum=0.9)

    def train(self) -> None:
        """One update."""
        self.model.train()
        losses = self.model(self.images, self.targets)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()

    @torch.no_grad()
    def detect(self) -> int:
        """One batch; how many boxes were found."""
        self.model.eval()
        return sum(len(found["boxes"]) for found in self.model(self.images))

    @torch.no_grad()
    def look_trained(self, boxes: int) -> None:
        """Set the threshold where about that many scores an image are above it; make the tree sure of its answers."""
        self.model.eval()
        inner = getattr(self.model, "model", self.model)
        if inner is not self.model:
            self.model.head.classes.weight *= 200
            batch, features, _ = self.model.look(self.images)
            scores = self.model.keep(batch, features, -1.0).objectness
            self.model.threshold = 0.0  # of the score too: the descent is part of what is measured
            wanted = float(scores.sort(descending=True).values[min(len(scores) - 1, boxes * len(self.images))])
            keep = self.model.keep
            self.model.keep = lambda batch, features, threshold: keep(batch, features, wanted)
            return
        numbers = getattr(inner, "roi_heads", inner)
        numbers.score_thresh = 0.0
        read: list[Tensor] = []
        scored = getattr(numbers, "box_predictor", None) or inner.head
        hook = scored.register_forward_hook(lambda module, args, out: read.append(out))
        limits = numbers.detections_per_img, getattr(inner, "topk_candidates", 0)
        numbers.detections_per_img = inner.topk_candidates = 1
        self.model(self.images)
        hook.remove()
        numbers.detections_per_img, inner.topk_candidates = limits
        (out,) = read
        if isinstance(out, tuple):
            scores = out[0].softmax(-1)[:, 1:]
        elif hasattr(inner.head.classification_head, "num_columns"):  # SSD
            scores = out["cls_logits"].softmax(-1)[..., 1:]
        else:
            scores = out["cls_logits"].sigmoid()
            if "bbox_ctrness" in out:
                scores = (scores * out["bbox_ctrness"].sigmoid()).sqrt()
        kept = scores.flatten().topk(boxes * len(self.images)).values
        numbers.score_thresh = float(kept[-1])


def compare(
    one: Callable[[], object], other: Callable[[], object], rounds: int, device: torch.device
) -> tuple[float, float, float]:
    """Median seconds of two pieces of work that take turns, and the median of their ratios."""
    if not rounds:
        return (math.nan,) * 3
    times = turns({"one": one, "other": other}, rounds, device)
    return statistics.median(times["one"]), statistics.median(times["other"]), ratio(times, "other", "one")


def peak_mebibytes(name: str, which: str, given: argparse.Namespace) -> float:
    """Peak memory of a process of its own: two training steps, or two detections."""
    words = [sys.executable, __file__, name, "--only", which, "--batch", str(given.batch), "--size", str(given.size)]
    words += ["--device", given.device, *(["--pretrained"] if given.pretrained else [])]
    return float(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))


def naive(name: str, nodes: int) -> tuple[float, float]:
    """A head of a column a node and anchor: millions of parameters; gigabytes of float32 logits of one image."""
    with torch.device("meta"):
        model = stock(name, 800).eval()
        width, height = (1344, 800) if not name.startswith("ssd") else model.transform.fixed_size
        if name.startswith("fasterrcnn"):
            features = model.roi_heads.box_predictor.cls_score.in_features
            proposals = model.rpn._post_nms_top_n["testing"]
            columns = 5 * (nodes + 1)  # a score and a box each, and the background's
            return columns * (features + 1) / 1e6, proposals * columns * 4 / 1e9
        layers, count = layers_of(model)
        maps = list(model.backbone(torch.empty(1, 3, height, width)).values())
        each = [layers[min(level, len(layers) - 1)][1] for level in range(len(maps))]
        background = int(name.startswith("ssd"))
        parameters = sum(
            last.out_channels // count * (nodes + background) * (last.weight[0].numel() + 1)
            for last in dict.fromkeys(each)
        )
        cells = sum(one.shape[2] * one.shape[3] * (last.out_channels // count) for one, last in zip(maps, each))
        return parameters / 1e6, cells * (nodes + background) * 4 / 1e9


def millions(model: nn.Module) -> float:
    """Parameters."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="detectors, by torchvision's names; all where left out")
    parser.add_argument("--size", type=int, default=320, help="pixels of an image's side; SSD has its own")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--boxes", type=int, default=50, help="an image that detection looks at")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of steps")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--pretrained", action="store_true", help="beside the detector's own classes")
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = torch.device(given.device)
    tree = yolo9000.official_tree()

    def bench(name: str, of_tree: bool) -> Bench:
        torch.manual_seed(0)
        model = ours(name, given.size, tree, given.pretrained) if of_tree else stock(name, given.size)
        return Bench(model, len(tree) if of_tree else OWN, given.batch, given.size, device)

    if given.only:
        one = bench(given.names[0], given.only.startswith("tree"))
        if given.only.endswith("detection"):
            one.look_trained(given.boxes)
        for _ in range(2):
            one.detect() if given.only.endswith("detection") else one.train()
        print(torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_of_this_process())
        return
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, {device}, "
        f"{torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.2f}, batch {given.batch}, "
        f"{given.size} pixels, {given.rounds} rounds; {len(tree)} nodes "
        f"{'beside' if given.pretrained else 'in place of'} {OWN} classes; times in ms, memory in MiB"
    )
    print(
        f"{'':38}{'step: own':>11}{'tree':>8}{'ratio':>7}{'detect: own':>13}{'tree':>8}{'ratio':>7}"
        f"{'memory of step':>17}{'ratio':>7}{'of detection':>15}{'ratio':>7}{'parameters':>13}{'naive head':>19}"
    )
    for name in given.names or SUMMARIES:
        began = time.perf_counter()
        flat, vast = bench(name, False), bench(name, True)
        step = compare(flat.train, vast.train, given.rounds, device)
        for one in (flat, vast) if given.rounds else ():
            one.look_trained(given.boxes)
        detect = compare(flat.detect, vast.detect, given.rounds, device)
        parameters = f"{millions(flat.model):.1f}, {millions(vast.model):.1f} M"
        del flat, vast
        memory = [[math.nan, math.nan]] * 2
        if not given.no_memory:
            memory = [[peak_mebibytes(name, f"{which} {what}", given) for which in ("flat", "tree")]
                      for what in ("training", "detection")]  # fmt: skip
        share = [other / one for one, other in memory]
        head, logits = naive(name, len(tree))
        print(
            f"{name:38}{step[0] * 1e3:>11.0f}{step[1] * 1e3:>8.0f}{step[2]:>7.2f}"
            f"{detect[0] * 1e3:>13.0f}{detect[1] * 1e3:>8.0f}{detect[2]:>7.2f}"
            f"{memory[0][0]:>8.0f},{memory[0][1]:>8.0f}{share[0]:>7.2f}{memory[1][0]:>7.0f},{memory[1][1]:>7.0f}"
            f"{share[1]:>7.2f}{parameters:>17}{head:>9.0f} M,{logits:>5.2f} GB   ({time.perf_counter() - began:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
