"""What a training is fed with: the embedded set, or the sources of a run.yaml; labels, tree, anchors, batches."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from wordtree import LabelMap, WordTree, WordTreeError, build_tree

from .anchors import dimension_clusters
from .config import Config
from .data import embedded
from .data.augment import find_augmentation
from .data.joint import Joint, JointSampler, collate
from .data.loading import TRIES, Damaged, Keys, Known, Views, limits_of, listed, load_batches
from .data.memory import InMemory
from .data.records import Records
from .hardware import is_first, processes_of
from .measure import evaluate_run, labels_on
from .reports import Progress, evaluate_and_report, plot_curve
from .runfile import RunFile, Source, known, shares
from .task import Task

Batch = tuple[Tensor, list[dict[str, Tensor]]]
BOXES_FOR_ANCHORS = 20_000
TITLES = {
    "boxed": "scenes with boxes",
    "labelled": "pictures with a name",
    "oracle": "pictures with a name and a box",
}


@dataclass(frozen=True)
class Phase:
    """One of the two parts of a run: names alone, or boxes, with or without names; and who makes it, of several
    ranks."""

    title: str
    steps: int
    batch: int
    sizes: tuple[int, ...]
    classify: bool = False
    rank: int = 0
    ranks: int = 1

    def size_at(self, step: int, seed: int) -> int:
        """Multi-scale training: another size every 10 steps, at random, from the seed and the step alone: the same in
        every rank."""
        generator = torch.Generator().manual_seed(seed * 7919 + step // 10)
        return self.sizes[int(torch.randint(len(self.sizes), (1,), generator=generator))]


class Feed(Protocol):
    """What the training loop asks of its data."""

    labels: LabelMap
    tree: WordTree

    @property
    def damaged(self) -> Damaged | None:
        """The images that could not be used, of data that may have such."""

    @property
    def fingerprint(self) -> str:
        """A hash of the data; "" where the config says it all."""

    @property
    def labelled(self) -> bool:
        """Whether there are image labels to learn from."""

    def anchors(self, stride: int) -> list[list[float]]:
        """Priors in cells of `stride` pixels, at the config's size."""

    def batches(self, phase: Phase, start: int, bar: Progress, stopped: Callable[[], bool]) -> Iterator[Batch]:
        """The batches of a phase from step `start` on, of this rank alone; boxes in pixels of the images. Every target
        of a batch has "colours" or none: float [3], how `data.augment.recoloured` changes the picture."""

    def pictures(self, step: int) -> list[str]:
        """Where each picture of a step comes from, of all ranks, in the phase whose batches were asked for last."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, for JSON."""

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave when a checkpoint was written."""

    def summary(self) -> str:
        """What to say of the data when a run is finished; "" for nothing."""

    def about(self) -> str:
        """What weights trained on it know and cannot know, in a sentence or two."""

    def report(self, model: Any, directory: Path, bar: Progress) -> dict[str, float]:
        """Score a finished run and leave its tables and pictures in the folder."""


class EmbeddedFeed:
    """The set that ships: scenes with boxes, pictures with a name; made once, kept in memory.

    Raises:
        WordTreeError: pictures of a size that it is not made at.
    """

    fingerprint = ""
    damaged: Damaged | None = None

    def __init__(self, config: Config) -> None:
        for size in (config.size, max(config.classifier_sizes)):
            embedded.check_size(size)
        self.config = config
        self.labels = embedded.label_map()
        self.tree = build_tree(self.labels)
        self.nodes = torch.from_numpy(self.labels.nodes_on(self.tree).copy())

    @property
    def labelled(self) -> bool:
        """See `Feed`."""
        return self.config.joint

    def batches(self, phase: Phase, start: int, bar: Progress, stopped: Callable[[], bool]) -> Iterator[Batch]:
        """See `Feed`."""
        config = self.config
        parts: tuple[float, ...] = (1.0,)
        if phase.classify:
            pictures = [self._pictures("labelled", config.classifier_pictures, max(phase.sizes), bar, stopped)]
        else:
            pictures = [self._pictures("boxed", config.boxed_pictures, config.size, bar, stopped)]
            if config.joint:
                split = "oracle" if config.oracle else "labelled"
                pictures.append(self._pictures(split, config.labelled_pictures, config.size, bar, stopped))
                parts = config.shares
        joint = Joint(pictures, [self.nodes] * len(pictures))
        self.splits = [one.source.split for one in pictures]
        self.sampler = sampler = _sampler(pictures, parts, phase, start, config)
        return (collate([joint[at] for at in picked]) for picked in sampler)

    def anchors(self, stride: int) -> list[list[float]]:
        """Dimension clusters on the boxes of the first training scenes."""
        scenes = self._source("boxed", 300, self.config.size)
        boxes = torch.cat([scenes[index][1]["boxes"] for index in range(len(scenes))])
        return _priors((boxes[:, 2:] - boxes[:, :2]) / stride, self.config.anchors)

    def pictures(self, step: int) -> list[str]:
        """See `Feed`; as the split and the picture's number in it."""
        return [f"embedded:{self.splits[source]}:{row}" for source, row in self.sampler.batch_at(step)]

    def state(self) -> dict[str, Any]:
        """See `Feed`; pictures that are made have none."""
        return {}

    def resume(self, state: dict[str, Any]) -> None:
        """See `Feed`."""

    def summary(self) -> str:
        """See `Feed`."""
        return ""

    def about(self) -> str:
        """See `Feed`."""
        boxed = ", ".join(synset.split(".")[0].replace("_", " ") for synset in embedded.groups())
        if not self.config.joint:
            return f"Trained on drawings laid on photographs, with boxes for {boxed} and no other name."
        given = "with every box given (an oracle)" if self.config.oracle else "and fine names without any box"
        return (
            f"Trained on drawings laid on photographs: boxes for {boxed}, {given}, for {len(embedded.classes())} fine "
            "classes. It knows those classes and what stands above them; it has seen no photograph of an object."
        )

    def report(self, model: Any, directory: Path, bar: Progress) -> dict[str, float]:
        """See `Feed`."""
        return evaluate_and_report(model, self.config, directory, bar)

    def _source(self, split: str, count: int, size: int) -> embedded.Pictures:
        scale = (0.3, 0.9) if split != "boxed" and size == self.config.size else None
        return embedded.Pictures(split, count, size, self.config.seed, self.config.held_out or None, scale)

    def _pictures(self, split: str, count: int, size: int, bar: Progress, stopped: Callable[[], bool]) -> InMemory:
        bar.start(f"making {TITLES[split]}", total=count, done=0)
        source = self._source(split, count, size)
        return InMemory(source, processes_of(self.config.workers), lambda made: bar.advance(steps=made), stopped)


class RecordsFeed:
    """The training sources of a run.yaml, read from disk as they are needed.

    Args:
        run: the run file.
        directory: the run's folder, where damaged images are listed.
        config: the numbers of the run.

    Raises:
        WordTreeError: a source that does not read, of training or test; faults that are not skipped; no training source
            with boxes.
    """

    def __init__(self, run: RunFile, directory: Path, config: Config) -> None:
        self.run, self.directory, self.config = run, directory, config
        self.given = run.used("train")
        if not self.given:
            raise WordTreeError(f"{run.path} has no source to train on; give one with use: train")
        maps = run.labels()
        self.tree = run.built_tree(maps)
        own = dict(zip(run.sources, maps, strict=True))
        self.labels = merged(maps)
        self.records = [source.read(own[source], self.tree).raise_faults(source.skip) for source in self.given]
        self.shares = shares(self.given)
        self.known = [_known_of(source, own[source], self.tree) for source in self.given]
        if not config.steps and not self.labelled:
            raise WordTreeError(
                f"no training source of {run.path} has image labels; a classifier alone learns from them"
            )
        if config.steps and all(one.labelled.all() for one in self.records):
            raise WordTreeError(f"no training source of {run.path} has boxes; give at least one that has")
        if is_first():  # who evaluates; what is wrong in a test is told before anything is trained
            for source in run.used("test"):
                source.read(labels_on(source, self.tree), self.tree).raise_faults(source.skip)
        self.damaged = Damaged(directory / "bad_images.csv", ())
        self.met: list[list[str]] = []  # damaged images of each source so far, in the phase of a checkpoint

    @property
    def labelled(self) -> bool:
        """See `Feed`."""
        return any(bool(one.labelled.any()) for one in self.records)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that the batches depend on beside the config."""
        digest = hashlib.sha256(f"{self.tree.hash} {self.run.augment} {self.shares}".encode())
        for source, records, marks in zip(self.given, self.records, self.known, strict=True):
            digest.update(f"{source.size} {len(records)} {records.relative}".encode())
            for table in (records.starts, records.boxes, records.nodes, records.flags, records.labelled):
                digest.update(np.ascontiguousarray(table).tobytes())
            digest.update(records.ids.block.tobytes())
            for extra in records.checked or ():
                digest.update(np.ascontiguousarray(extra).tobytes())
            for some in marks:
                digest.update(b"all" if some is None else some.numpy().tobytes())
        return digest.hexdigest()

    def batches(self, phase: Phase, start: int, bar: Progress, stopped: Callable[[], bool]) -> Iterator[Batch]:
        """See `Feed`."""
        config = self.config
        used = [
            (records.take(np.flatnonzero(records.labelled)) if phase.classify else records, source, part, marks)
            for records, source, part, marks in zip(self.records, self.given, self.shares, self.known, strict=True)
            if records.labelled.any() or not phase.classify
        ]
        sources, given, parts, marks = zip(*used, strict=True)
        how = find_augmentation(self.run.augment)
        # the two phases see different views: one counts its pictures from the end of the numbers
        views = Views(sources, how, config.seed * 2 + phase.classify, [one.size for one in given], phase.classify)
        sampler = _sampler(sources, parts, phase, start, config)
        self.sources, self.sampler = sources, sampler
        keys = Keys(sampler, lambda step: phase.size_at(step, config.seed))
        file = None if phase.rank else self.damaged.file
        self.damaged = Damaged(file, limits_of(sources, self.run.bad_share), self.damaged.found)
        if start:
            self.damaged.sources = [set(images) for images in self.met] or self.damaged.sources
        self.damaged.write()
        return load_batches(views, keys, processes_of(config.workers), self.damaged, marks)

    def anchors(self, stride: int) -> list[list[float]]:
        """Dimension clusters on the boxes of the training sources, at most 20,000 of each, drawn from the seed."""
        shapes = [self._shapes(records) for records in self.records]
        return _priors(torch.from_numpy(np.concatenate(shapes)) * (self.config.size / stride), self.config.anchors)

    def _shapes(self, records: Records) -> np.ndarray:
        """float32 [n, 2]: sides of some boxes, as shares of their image."""
        image = np.repeat(np.arange(len(records)), np.diff(records.starts))
        rows = np.flatnonzero(~records.labelled[image] & (records.flags == 0))
        if len(rows) > BOXES_FOR_ANCHORS:
            rows = np.sort(np.random.RandomState(self.config.seed).choice(rows, BOXES_FOR_ANCHORS, replace=False))
        sides = records.boxes[rows, 2:] - records.boxes[rows, :2]
        if not records.relative:
            sizes = records.sizes.copy()
            for index in np.unique(image[rows][(sizes[image[rows]] == 0).any(1)]).tolist():
                sizes[index] = records.image(index).shape[:0:-1]
            sides = sides / sizes[image[rows]]
        return sides.astype(np.float32)

    def pictures(self, step: int) -> list[str]:
        """See `Feed`; of a damaged picture, the one that takes its place."""
        return [self._used(self.sources[source], row) for source, row in self.sampler.batch_at(step)]

    def _used(self, records: Records, row: int) -> str:
        names = [records.where((row + step) % len(records)) for step in range(TRIES)]
        return next((name for name in names if name not in self.damaged.found), names[0])

    def state(self) -> dict[str, Any]:
        """See `Feed`; the damaged images met so far."""
        return {"found": self.damaged.found, "met": [sorted(images) for images in self.damaged.sources]}

    def resume(self, state: dict[str, Any]) -> None:
        """See `Feed`; of an older checkpoint, the list that it left."""
        found = state.get("found", listed(self.directory / "bad_images.csv"))
        self.damaged.found = {image: (fault, times) for image, (fault, times) in found.items()}
        self.met = state.get("met", [])

    def summary(self) -> str:
        """See `Feed`."""
        return self.damaged.summary()

    def about(self) -> str:
        """See `Feed`."""
        told = []
        for source, records in zip(self.given, self.records, strict=True):
            named = int(records.labelled.sum())
            counts = {"images with boxes": len(records) - named, "image labels": named}
            said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
            told.append(f"{source.name} ({said})")
        knows = "It knows the classes of their label maps and what stands above them."
        return f"Trained on {', '.join(told)} over {self.tree}. {knows}"

    def report(self, model: Any, directory: Path, bar: Progress) -> dict[str, float]:
        """The curve, and the figures of the test sources where there are any."""
        plot_curve(directory / "metrics.csv", directory / "curve.png")
        if not self.run.used("test"):
            return {}
        return evaluate_run(model, self.run, task=Task(directory, processes_of(self.config.workers), bar=bar))


def _sampler(
    sources: Sequence[InMemory | Records], parts: Sequence[float], phase: Phase, start: int, config: Config
) -> JointSampler:
    lengths, ranks = [len(one) for one in sources], {"rank": phase.rank, "ranks": phase.ranks}
    return JointSampler(lengths, parts, phase.batch, phase.steps, start, config.seed, **ranks)


def merged(maps: Sequence[LabelMap]) -> LabelMap:
    """One label map of several: each id once, under its first label; a label that means two things says which."""
    label_of: dict[str, str] = {}
    for one in maps:
        for label, id_ in zip(one.labels, one.ids, strict=True):
            if id_ not in label_of:
                label_of[id_] = label if label not in label_of.values() else f"{label} ({id_})"
    return LabelMap("run", tuple(label_of.values()), tuple(label_of))


def _known_of(source: Source, labels: LabelMap, tree: WordTree) -> Known:
    """An image label says that the picture shows this and none of its siblings, unless the source says otherwise."""
    marks = known(source, labels, tree)
    tensor = None if marks is None else torch.from_numpy(marks)
    return Known(tensor, tensor if source.knows else None)


def _priors(shapes: Tensor, count: int) -> list[list[float]]:
    anchors, _ = dimension_clusters(shapes, count)
    return [[round(side, 4) for side in anchor] for anchor in anchors.tolist()]
