"""Pictures from disk in batches: views made by worker processes, whichever makes them; damaged ones replaced."""

import csv
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2.functional import resize

from wordtree import WordTreeError

from ..files import whole
from ..hardware import as_worker, loaded
from .augment import Augmentation, classifier_view, colours, stream, view
from .joint import JointSampler
from .records import Records

TRIES = 16  # pictures in a row of one source that may be damaged


class Known(NamedTuple):
    """bool [nodes]: what a source knows, told with its boxes and with its image labels; None for everything."""

    boxes: Tensor | None
    labels: Tensor | None


class Key(NamedTuple):
    """One picture to be made: where it lies, the number of its view, and its size."""

    source: int
    row: int
    number: int  # of the picture in the run: its random stream
    size: int


class Made(NamedTuple):
    """One picture as a worker hands it over."""

    image: Tensor  # uint8 [3, size, size]
    target: dict[str, Tensor]
    source: int
    bad: list[tuple[str, str]]  # images left out on the way to this one, and why


class Views(Dataset[Made]):
    """Views of the pictures of several sources, by `Key`. What a view looks like depends on its key alone.

    Args:
        sources: the data sets.
        how: the augmentation.
        seed: of the views.
        sizes: pixels that each source's views are made at before they get the batch's size; 0 for the batch's.
        classify: views for a classifier: crops of pictures with a name.
    """

    def __init__(
        self, sources: Sequence[Records], how: Augmentation, seed: int, sizes: Sequence[int], classify: bool = False
    ) -> None:
        self.sources, self.how, self.seed, self.sizes, self.classify = list(sources), how, seed, list(sizes), classify

    def __getitem__(self, key: Key) -> Made:
        records = self.sources[key.source]
        bad: list[tuple[str, str]] = []
        for step in range(TRIES):  # a damaged picture gives its place to the next of its source
            index = (key.row + step) % len(records)
            try:
                image = records.image(index)
            except WordTreeError as fault:
                bad.append((records.where(index), str(fault)))
                continue
            return Made(*self._made(image, records, index, key), key.source, bad)
        return Made(torch.zeros(0), {}, key.source, bad)

    def _made(self, image: Tensor, records: Records, index: int, key: Key) -> tuple[Tensor, dict[str, Tensor]]:
        size = self.sizes[key.source] or key.size
        target = records.target(index, image.shape[2], image.shape[1])
        random = stream(self.seed, key.number)
        if self.classify:
            image = classifier_view(image, size, self.how, random)
        else:
            none = torch.zeros(0, 4)
            given = target.get("boxes", none)
            image, boxes, kept = view(image, torch.cat((given, target.get("ignored", none))), size, self.how, random)
            boxes, real = boxes * (key.size / size), kept < len(given)
            if "boxes" in target:
                target |= {"boxes": boxes[real], "labels": target["labels"][kept[real]]}
            if "ignored" in target:
                target["ignored"] = boxes[~real]
        if self.how.recolours:
            target["colours"] = colours(self.how, random)
        return image if size == key.size else resize(image, [key.size, key.size], antialias=True), target


class Keys(Sampler[list[Key]]):
    """The keys of each batch: what the joint sampler picks, at the size of the step."""

    def __init__(self, sampler: JointSampler, size_at: Callable[[int], int]) -> None:
        self.sampler, self.size_at = sampler, size_at

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[Key]]:
        for step, picked in enumerate(self.sampler, self.sampler.start):
            first = step * self.sampler.batch
            size = self.size_at(step)
            yield [
                Key(source, row, first + slot, size)
                for slot, (source, row) in zip(self.sampler.slots, picked, strict=True)
            ]


@dataclass
class Damaged:
    """The images that could not be used, each told once, counted, and written to a list.

    Attributes:
        file: the list, bad_images.csv: image, fault, times; None in a rank that is not the first, which warns of
            nothing and counts nothing: what it meets is `news`.
        limits: how many images of each source may be damaged before the run stops.
        found: image -> its fault and how often it was met.
        news: what the first rank is still to be told: a source, and what one picture met with.
    """

    file: Path | None
    limits: Sequence[int]
    found: dict[str, tuple[str, int]] = field(default_factory=dict)
    news: list[tuple[int, list[tuple[str, str]]]] = field(default_factory=list)
    sources: list[set[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sources = [set() for _ in self.limits]

    def note(self, source: int, bad: Sequence[tuple[str, str]]) -> None:
        """Add what one picture met with.

        Raises:
            WordTreeError: more than the limit of the source, or no sound picture to be found; the message has the list.
        """
        if not bad:
            return
        if self.file is None and len(bad) < TRIES:
            self.news.append((source, list(bad)))
            return
        for image, fault in bad:
            if image not in self.found:
                warnings.warn(f"left out, another takes its place: {fault}", stacklevel=2)
            self.found[image] = fault, self.found.get(image, (fault, 0))[1] + 1
            self.sources[source].add(image)
        self.write()
        count = len(self.sources[source])
        if count > self.limits[source] or len(bad) == TRIES:
            listed = "; ".join(self.found[image][0] for image in sorted(self.sources[source])[:12])
            file = self.file or "bad_images.csv"
            more = f"; and {count - 12} more in {file}" if count > 12 else f"; listed in {file}"
            raise WordTreeError(
                f"{count} damaged images in one source, {self.limits[source]} are let pass: {listed}{more}; "
                "mend them, or raise bad_share"
            )

    def write(self) -> None:
        """The list as a file; none where all were sound."""
        if self.file is None:
            return
        if not self.found:
            self.file.unlink(missing_ok=True)
            return
        with whole(self.file) as part, part.open("w", newline="") as opened:
            writer = csv.writer(opened, lineterminator="\n")
            writer.writerow(["image", "fault", "times"])
            writer.writerows([image, fault, times] for image, (fault, times) in sorted(self.found.items()))

    def summary(self) -> str:
        """What to say at the end; nothing where all were sound."""
        if not self.found:
            return ""
        listed = "\n".join(
            f"  {image} ({times} times): {fault}" for image, (fault, times) in sorted(self.found.items())
        )
        return f"{len(self.found)} damaged images were left out, each time another took its place:\n{listed}"


def listed(file: Path) -> dict[str, tuple[str, int]]:
    """The damaged images that an earlier sitting of a run has listed."""
    if not file.exists():
        return {}
    with file.open(newline="") as opened:
        return {row["image"]: (row["fault"], int(row["times"])) for row in csv.DictReader(opened)}


def limits_of(sources: Sequence[Records], share: float) -> list[int]:
    """How many damaged images each source may have: a share of its own, and one in any case where a share is given."""
    return [max(int(Fraction(str(share)) * len(one)), int(share > 0)) for one in sources]


def load_batches(
    views: Views, keys: Keys, processes: int, damaged: Damaged, known: Sequence[Known]
) -> Iterator[tuple[Tensor, list[dict[str, Tensor]]]]:
    """Batches in the order of the keys: uint8 [b, 3, size, size], channels last, and targets.

    A target has "colours", float [3], where the colours are to change: `augment.recoloured` does it.

    Args:
        views, keys: what is made, and in which order.
        processes: how many make it; 0 makes it here. The batches are the same.
        damaged: where images that cannot be used are noted.
        known: what each source knows; it yields to what an image itself was checked for.
    """
    loader: DataLoader[Any] = DataLoader(
        views, batch_sampler=keys, num_workers=processes, collate_fn=_packed, worker_init_fn=as_worker,
        prefetch_factor=4 if processes else None,
    )  # fmt: skip
    for packed in loaded(loader):
        for source, bad in zip(packed.sources, packed.bad, strict=True):
            damaged.note(source, bad)
        targets = [{key: torch.from_numpy(value) for key, value in one.items()} for one in packed.targets]
        marked = [_with_known(one, known[source]) for one, source in zip(targets, packed.sources, strict=True)]
        yield packed.images, marked


class Packed(NamedTuple):
    """A batch on its way from a worker: the pictures as one block of shared memory, the small arrays by value."""

    images: Tensor  # uint8 [b, 3, size, size], channels last
    targets: list[dict[str, np.ndarray]]
    sources: list[int]
    bad: list[list[tuple[str, str]]]


def _packed(made: list[Made]) -> Packed:
    """The pictures lie pixel by pixel, as they were made: nothing is turned round. One that could not be made is left
    out; whoever notes what was bad then stops."""
    pictures = [one.image.permute(1, 2, 0) for one in made if one.image.dim() == 3]
    images = torch.stack(pictures).permute(0, 3, 1, 2) if pictures else torch.zeros(0)
    targets = [{key: value.numpy() for key, value in one.target.items()} for one in made]
    return Packed(images, targets, [one.source for one in made], [one.bad for one in made])


def _with_known(target: dict[str, Tensor], known: Known) -> dict[str, Tensor]:
    marks = known.boxes if "boxes" in target else known.labels
    return target if marks is None or "known" in target else {**target, "known": marks}
