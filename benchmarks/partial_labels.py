"""Two half-labelled copies of the embedded set: trained with what each knows, merged naively, and with all labels.

    python benchmarks/partial_labels.py                       # three runs; the figures are means over --seeds
    python benchmarks/partial_labels.py --set steps=200       # shorter

In one copy of the boxed scenes only every other group of classes keeps its boxes, in the other only the rest; every
scene shows objects of both. `known` trains on both copies and tells the loss what each knows, `merged` does not tell
it, `full` has all boxes in one copy. All are shown every box equally often: the two copies take twice the steps of the
one. Scored on new scenes of the same cut-outs, and on a design family that no training scene shows: AP at IoU .5, and
what a person who asks for a score of .5 is shown, the share of the objects found; each the mean over the groups.
"""

import argparse
import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from wordtree import LabelMap, WordTree, WordTreeError
from wordtree.errors import unknown
from yolo9000.checkpoints import load_model
from yolo9000.config import Config, config_of, parse_settings
from yolo9000.data import embedded
from yolo9000.data.joint import Joint, JointSampler, collate
from yolo9000.feeds import Batch, EmbeddedFeed, Phase
from yolo9000.precision import average_precision, look_through
from yolo9000.reports import TEST_SEED, Progress
from yolo9000.scores import Found, Truths, pairs
from yolo9000.training import Trainer

KINDS = ("known", "merged", "full")
Item = tuple[Tensor, dict[str, Tensor]]


class Copy(Dataset[Item]):
    """The scenes with the boxes of some labels alone, and what that means for the others.

    Args:
        scenes: the data set.
        labels: the labels whose boxes stay.
        known: bool [nodes], told with every scene; None tells nothing.
    """

    def __init__(self, scenes: Dataset[Item], labels: Sequence[int], known: Tensor | None) -> None:
        self.scenes, self.labels, self.known = scenes, torch.tensor(list(labels)), known

    def __len__(self) -> int:
        return len(self.scenes)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Item:
        image, target = self.scenes[index]
        stays = torch.isin(target["labels"], self.labels)
        target = {"boxes": target["boxes"][stays], "labels": target["labels"][stays]}
        return image, target if self.known is None else {**target, "known": self.known}


class CopiesFeed(EmbeddedFeed):
    """The boxed scenes in two copies, each labelled in part; or in one, labelled whole.

    Args:
        config: the numbers of the run.
        kind: "known", "merged" or "full".
    """

    def __init__(self, config: Config, kind: str) -> None:
        if kind not in KINDS:
            raise unknown("kind of labelling", kind, KINDS)
        if config.joint:
            raise WordTreeError("image labels in a run of two half-labelled copies; it is about boxes: joint=False")
        super().__init__(config)
        self.kind = kind
        self.fingerprint = f"copies {kind}"
        self.groups = tuple(embedded.groups().values())

    def copies(self, scenes: Dataset[Item]) -> list[Copy]:
        """The training sets."""
        found = []
        for ids in (self.groups,) if self.kind == "full" else (self.groups[0::2], self.groups[1::2]):
            labels = [label for label, id_ in enumerate(self.labels.ids) if id_ in ids]
            known = torch.from_numpy(LabelMap("copy", ids, ids).known(self.tree)) if self.kind == "known" else None
            found.append(Copy(scenes, labels, known))
        return found

    def batches(self, phase: Phase, start: int, bar: Progress, stopped: Callable[[], bool]) -> Iterator[Batch]:
        """See `yolo9000.feeds.Feed`."""
        copies = self.copies(self._pictures("boxed", self.config.boxed_pictures, self.config.size, bar, stopped))
        joint = Joint(copies, [self.nodes] * len(copies))
        lengths = [len(copy) for copy in copies]
        ranks = {"rank": phase.rank, "ranks": phase.ranks}
        sampler = JointSampler(lengths, [1] * len(copies), phase.batch, phase.steps, start, self.config.seed, **ranks)
        return (collate([joint[at] for at in picked]) for picked in sampler)


def run(kind: str, config: Config, directory: Path, progress: bool = True) -> dict[str, float]:
    """Train one of the three and score it; a finished one is read again, an unfinished one gone on with."""
    metrics = directory / "metrics.json"
    if metrics.exists():
        return dict(json.loads(metrics.read_text()))
    trainer = Trainer(config, directory, CopiesFeed(config, kind))
    with Progress(enabled=progress) as bar:
        trainer.train(bar, lambda: False)
        model, _ = load_model(trainer.save_weights())
        model = model.to(trainer.device)
        labels = trainer.labels.nodes_on(trainer.tree)
        node_of = dict(zip(trainer.labels.ids, labels.tolist(), strict=True))
        nodes = [node_of[id_] for id_ in embedded.groups().values()]
        figures = {}
        for name, split in (("new scenes", "boxed"), ("unseen family", "unseen")):
            bar.start(f"testing: {name}", total=config.test_scenes)
            data = embedded.Pictures(split, config.test_scenes, config.size, TEST_SEED)
            said, truths = look_through(model, data, labels, nodes, tick=lambda n: bar.advance(steps=n))
            values = average_precision(said, truths, nodes, trainer.tree).values()
            figures[name] = sum(known := [value for value in values if not math.isnan(value)]) / max(1, len(known))
            figures[f"{name}, found"] = share_found(said.found, truths, nodes, trainer.tree)
    metrics.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def share_found(found: Found, truths: Truths, nodes: Sequence[int], tree: WordTree, score: float = 0.5) -> float:
    """The share of a node's objects that a box of that node, of that score or more, overlaps by half; the mean."""
    sure = found.at(found.scores >= score)
    there = truths.expanded(tree, nodes)
    row, at, overlap, _ = pairs(there.image, there.boxes, sure.image, sure.boxes)
    met = np.zeros(len(there.image), dtype=bool)
    met[row[(overlap > 0.5) & (there.nodes[row] == sure.nodes[at])]] = True
    shares = [float(met[there.nodes == node].mean()) for node in nodes if (there.nodes == node).any()]
    return sum(shares) / max(1, len(shares))


def main(words: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Run all three for every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/partial-labels"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="settings", help="a setting, such as steps=200")
    given = parser.parse_args(words)
    table: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        options = {**parse_settings(given.settings), "joint": False}
        configs = [config_of({**options, "seed": seed}) for seed in range(given.seeds)]
        if kind != "full":  # each box as often
            configs = [dataclasses.replace(config, steps=2 * config.steps) for config in configs]
        runs = [run(kind, config, given.out / f"{kind}-{config.seed}") for config in configs]
        table[kind] = {name: sum(one[name] for one in runs) / len(runs) for name in runs[0]}
    print(f"load average {os.getloadavg()[0]:.1f}; mean over {given.seeds} seed{'s' * (given.seeds > 1)}")
    print(f"{'':8}" + "".join(f"{name:>22}" for name in table["full"]) + "   of full")
    for kind, figures in table.items():
        of_full = [(value, table["full"][name]) for name, value in figures.items()]
        share = " ".join(f"{value / full:.2f}" if full else "-" for value, full in of_full)
        print(f"{kind:8}" + "".join(f"{value:22.3f}" for value in figures.values()) + f"   {share}")
    return table


if __name__ == "__main__":
    main()
