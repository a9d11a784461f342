"""What a joint training step costs with a vocabulary of 9418 or 82,114 nodes, beside 20 flat classes.

    python benchmarks/joint_step.py
    python benchmarks/joint_step.py --batch 16 --rounds 8 --only 82114-rows memory
    python benchmarks/joint_step.py --device cuda --batch 64 --rounds 30
    python benchmarks/joint_step.py --small --rounds 2          # on a toy network, to see that it works

A step is the training loop's own: a batch of boxed pictures and image labels (1:4), colours, forward, backward,
clipping, SGD with momentum and decay, the weights' running mean. The network is YOLO9000's, at 416. Steps of the
networks take turns in one process, so that a busy machine is busy for all; a ratio is the median over the rounds.

Peak memory is of a process for each network: the most that steps hold above what the process held before there was a
network; less the head's own weight, gradient and momentum as dense SGD has them (and, a line below, less its running
mean as well).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tree_cost import described, peak_of_this_process

import yolo9000
from wordtree import LabelMap, WordTree, build_tree, wordnet
from yolo9000.config import Config
from yolo9000.darknet19 import COUNTS, WIDTHS
from yolo9000.hardware import device_of
from yolo9000.models import YOLO9000_ANCHORS
from yolo9000.reports import Progress
from yolo9000.timing import machine, ratio, turns, wait
from yolo9000.training import Trainer

BOXES = 4  # a boxed picture
FLAT = "20"
NETWORKS = (FLAT, "9418", "9418-rows", "82114", "82114-rows")
BARS = {"9418": 1.10, "9418-rows": 1.10, "82114-rows": 1.25}


@lru_cache
def tree_of(network: str) -> WordTree:
    """The vocabulary that a network's name begins with."""
    nodes = network.partition("-")[0]
    if nodes == FLAT:
        return WordTree([f"class {node}" for node in range(20)], [-1] * 20)
    return yolo9000.official_tree() if nodes == "9418" else build_tree(wordnet.all_ids(), root="entity", instances=True)


class Stopped(Exception):
    """The end of a run that is timed: nothing is to be saved."""


class Fed:
    """A training run that takes one step when it is told to: its loop waits, in a thread of its own, for each batch.

    Args:
        network: one of `NETWORKS`.
        given: the command line.
    """

    fingerprint, labelled, damaged = "", True, None

    def __init__(self, network: str, given: argparse.Namespace) -> None:
        self.tree = tree_of(network)
        self.labels = LabelMap("nodes", self.tree.names[:1], self.tree.ids[:1])  # nothing is read by label
        side = 96 if given.small else 416
        widths, counts = ((4, 8, 8, 16, 16, 32), COUNTS) if given.small else (WIDTHS, COUNTS)
        config = Config(
            optimizer="sgd", sparse_head=network.endswith("rows"), rate=1e-4, decay=5e-4, classifier_steps=0,
            steps=10**9, batch=given.batch, size=side, sizes=(side,), widths=widths, counts=counts,
            precision=given.precision, device=given.device, checkpoint_every=10**9,
        )  # fmt: skip
        random = np.random.RandomState(1)
        self.images = torch.from_numpy(random.randint(0, 256, (given.batch, 3, side, side), dtype=np.uint8))
        boxed = max(1, round(given.batch / 5))
        self.targets = [self._target(random, side, at < boxed) for at in range(given.batch)]
        self.folder = tempfile.TemporaryDirectory()
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.stop = False
        self.trainer = Trainer(config, Path(self.folder.name), self)
        self.trainer.classifier = torch.nn.Identity()  # of a phase that this run has not
        self.thread = threading.Thread(target=self._train, daemon=True)
        self.thread.start()
        self.done.acquire()

    def anchors(self, stride: int) -> list[list[float]]:
        """Those of YOLO9000."""
        return [list(pair) for pair in YOLO9000_ANCHORS]

    def batches(self, *_: Any) -> Iterator[tuple[Tensor, list[dict[str, Tensor]]]]:
        """The same batch, each time when told to; by the next one a step is done."""
        while True:
            self.done.release()
            self.go.acquire()
            if self.stop:
                raise Stopped
            yield self.images, [dict(target) for target in self.targets]

    def about(self) -> str:
        """Nothing: nothing is saved."""
        return ""

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def resume(self, state: dict[str, Any]) -> None:
        """Nothing was kept."""

    def pictures(self, step: int) -> list[str]:
        """Of no file."""
        return []

    def summary(self) -> str:
        """Nothing."""
        return ""

    def report(self, *_: Any) -> dict[str, float]:
        """Nothing."""
        return {}

    def step(self) -> None:
        """One step of the training loop."""
        self.go.release()
        self.done.acquire()
        if not self.thread.is_alive():
            raise SystemExit("the run has ended; see above")

    def close(self) -> None:
        """End the run."""
        self.stop = True
        self.go.release()
        self.thread.join()
        self.folder.cleanup()

    def head_bytes(self) -> int:
        """Of the classifier's weight."""
        weight = self.trainer.model.head.classes.weight
        return weight.numel() * weight.element_size()

    def _train(self) -> None:
        torch.set_num_threads(THREADS)
        try:
            with Progress(enabled=False) as bar:
                self.trainer.train(bar, lambda: False)
        except Stopped:
            pass
        finally:
            self.done.release()

    def _target(self, random: np.random.RandomState, side: int, boxed: bool) -> dict[str, Tensor]:
        """Leaves, so that paths are as long as they get."""
        count = BOXES if boxed else 1
        target = {"labels": torch.from_numpy(random.choice(self.tree.leaves, count)), "colours": torch.ones(3)}
        if boxed:
            low = random.rand(count, 2) * 0.5
            boxes = np.concatenate((low, low + 0.1 + random.rand(count, 2) * 0.4), axis=1)
            target["boxes"] = torch.from_numpy(boxes * side).float()
        return target


THREADS = torch.get_num_threads()


def resident(device: torch.device) -> float:
    """MiB held now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 2**10


def memory(network: str, given: argparse.Namespace) -> dict[str, float]:
    """Of this process, MiB: the most that four steps hold, above what was held before; and the head's weight."""
    device = device_of(given.device)
    tree_of(network)  # the tree is no memory of a step
    before = resident(device)
    run = Fed(network, given)
    for _ in range(4):
        run.step()
    most = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_of_this_process()
    run.close()
    return {"most": most - before, "head": run.head_bytes() / 2**20}


def report_memory(networks: Sequence[str], given: argparse.Namespace) -> None:
    """A process for each."""
    told: dict[str, dict[str, float]] = {}
    for network in networks:
        words = [sys.executable, __file__, "--measure", network, "--batch", str(given.batch), "--device", given.device]
        words += ["--precision", given.precision, *(["--small"] if given.small else [])]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        told[network] = json.loads(done.stdout.splitlines()[-1])
    for network, one in told.items():
        beyond = {kept: one["most"] - kept * one["head"] for kept in (3, 4)}
        flat = {kept: told[FLAT]["most"] - kept * told[FLAT]["head"] for kept in (3, 4)}
        print(
            f"memory   {network:<11} {one['most']:7.0f} MiB at most, of which the head's weight {one['head']:6.0f}; "
            f"beyond its weight, gradient, momentum {beyond[3]:6.0f}, ratio {beyond[3] / flat[3]:.3f}; "
            f"and its running mean {beyond[4]:6.0f}, ratio {beyond[4] / flat[4]:.3f}"
        )


def report_time(networks: Sequence[str], given: argparse.Namespace) -> None:
    """Steps that take turns."""
    device = device_of(given.device)
    runs = {network: Fed(network, given) for network in networks}
    for run in runs.values():  # what is made on first use
        run.step(), run.step()
    times = turns({network: run.step for network, run in runs.items()}, given.rounds, device)
    for network, seconds in times.items():
        median = statistics.median(seconds)
        beside = ratio(times, network, FLAT)
        bar = f"   aim {BARS[network]:.2f}" if network in BARS else ""
        print(
            f"step     {network:<11} {median * 1000:8.1f} ms   {given.batch / median:7.1f} images a second   "
            f"ratio to 20 flat classes {beside:.3f}{bar}"
        )
    report_floor(runs, times, given, device)
    for run in runs.values():
        run.close()


def report_floor(
    runs: dict[str, Fed], times: dict[str, list[float]], given: argparse.Namespace, device: torch.device
) -> None:
    """Forward and backward of the trunk alone on the same pictures; and the head with every logit made."""
    trainer = next(iter(runs.values())).trainer
    trunk = trainer.model.trunk
    images = next(iter(runs.values())).images.to(device).float() / 255
    if device.type == "cpu":
        images = images.contiguous(memory_format=torch.channels_last)

    def floor() -> None:
        with trainer.autocast():
            features = trunk(images)
        features.float().sum().backward()
        trunk.zero_grad(set_to_none=True)

    floors = turns({"trunk": floor}, max(2, given.rounds // 2), device)["trunk"]
    alone = statistics.median(floors)
    print(
        f"floor    {'trunk':<11} {alone * 1000:8.1f} ms   {given.batch / alone:7.1f} images a second, forward and back"
    )
    for network, seconds in times.items():
        print(f"share    {network:<11} {alone / statistics.median(seconds):8.3f} of the floor's images a second")
    for network, run in runs.items():
        if network in given.dense:
            report_dense(network, run, given, device)


def report_dense(network: str, run: Fed, given: argparse.Namespace, device: torch.device) -> None:
    """Forward and backward of the head: by the loss that reads paths, and by all logits of every cell."""
    head = run.trainer.model.head.classes
    side = run.images.shape[-1] // 32
    cells = torch.randn(given.batch, side, side, head.features, device=device)
    labels = torch.cat([target["labels"] for target in run.targets]).to(device)
    picked = torch.arange(len(labels), device=device) % (given.batch * side * side)

    def lean() -> None:
        with run.trainer.autocast():
            head.loss(cells.flatten(0, 2)[picked], labels, copy=picked % head.copies).backward()
        head.zero_grad(set_to_none=True)

    def dense() -> None:
        with run.trainer.autocast():
            logits = head(cells).flatten(0, 2)[picked, picked % head.copies].float()
        torch.nn.functional.cross_entropy(logits, labels).backward()
        head.zero_grad(set_to_none=True)

    times = turns({"lean": lean, "dense": dense}, max(2, given.rounds // 2), device)
    print(
        f"head     {network:<11} {statistics.median(times['lean']) * 1000:8.1f} ms   every logit, one softmax "
        f"{statistics.median(times['dense']) * 1000:8.1f} ms   ratio {ratio(times, 'dense', 'lean'):.1f}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = (*NETWORKS[1:], "memory")
    parser.add_argument("--only", nargs="+", choices=what, default=["9418", "9418-rows", "82114-rows", "memory"])
    parser.add_argument(
        "--dense", nargs="+", choices=NETWORKS[1:], default=[], help="time the head with every logit too"
    )
    parser.add_argument("--batch", type=int, default=10, help="pictures a step, one in five with boxes")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--small", action="store_true", help="a toy network at 96 pixels")
    parser.add_argument("--measure", choices=NETWORKS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(memory(given.measure, given)))
        return
    device = device_of(given.device)
    print(f"{machine(device)}, batch {given.batch}, precision {given.precision}, {given.rounds} rounds")
    networks = [network for network in NETWORKS if network in (FLAT, *given.only)]
    for nodes in sorted({network.partition("-")[0] for network in networks[1:]}, key=int):
        print(f"tree     {described(tree_of(nodes))}")
    if len(networks) > 1:
        report_time(networks, given)
    wait(device)
    if "memory" in given.only:
        report_memory(networks if len(networks) > 1 else (FLAT, "9418", "9418-rows", "82114-rows"), given)


if __name__ == "__main__":
    main()
