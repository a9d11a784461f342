"""The embedded set: scenes with boxes and coarse names, pictures with a fine name and no box, all made of cut-outs.

Splits are by source, never by image. A design family is one lineage of drawings; `twemoji` and every photograph of an
object appear in no training picture. The boxed scenes and the labelled pictures share no cut-out.
"""

import csv
import io
import zipfile
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from wordtree import LabelMap, WordTreeError
from wordtree.errors import unknown

from ..plugin import zoo_labels
from .compose import (
    TEST_LOOK,
    TRAIN_LOOK,
    Levels,
    Look,
    Pasted,
    Pixels,
    background,
    finish,
    paste,
    pyramid,
    spots,
    stream,
    warp,
)

UNSEEN_FAMILY = "twemoji"
PHOTOGRAPHS = "photo"
DISTRACTORS = (0, 2)  # unlabelled objects a picture, at most
SIZES = (16, 640)  # pixels of a side
SPLITS = ("boxed", "labelled", "oracle", "seen", "unseen", "photographs")


class Row(NamedTuple):
    """One picture of the pack, as `zoo/pictures.csv` lists it."""

    file: str
    kind: str
    family: str
    synset: str
    wnid: str


class Fine(NamedTuple):
    """One fine class: its synset, and the boxed group above it or the kind of thing it is where no box ever was."""

    synset: str
    wnid: str
    group: str  # synset of a boxed group, "" where never boxed
    kind: str  # "boxed", "animal" or "artefact"
    group_wnid: str


class Pack(NamedTuple):
    """The pack in memory: each cut-out as a pyramid, each photograph as pixels."""

    rows: tuple[Row, ...]
    cutouts: dict[str, Levels]
    backgrounds: dict[str, Pixels]


@cache
def classes() -> tuple[Fine, ...]:
    """The 72 fine classes with their boxed groups, from `zoo/classes.csv`, in its order."""
    with (files(__package__) / "zoo" / "classes.csv").open() as file:
        return tuple(Fine(**row) for row in csv.DictReader(file))


@cache
def groups() -> dict[str, str]:
    """The boxed groups: synset -> WNID, sorted by WNID."""
    return dict(sorted({(c.group, c.group_wnid) for c in classes() if c.group}, key=lambda pair: pair[1]))


@cache
def label_map() -> LabelMap:
    """The labels of the set: the fine classes, then the boxed groups that are no fine class themselves."""
    return zoo_labels()


@cache
def pack() -> Pack:
    """Read the pack once a process.

    Raises:
        WordTreeError: a picture that the list names is missing from the pack.
    """
    folder = files(__package__) / "zoo"
    with (folder / "pictures.csv").open() as file:
        rows = tuple(Row(*(row[field] for field in Row._fields)) for row in csv.DictReader(file))
    cutouts, backgrounds = {}, {}
    with zipfile.ZipFile(io.BytesIO((folder / "pictures.zip").read_bytes())) as archive:
        for row in rows:
            if row.file not in archive.namelist():
                raise WordTreeError(f"no picture {row.file!r} in zoo/pictures.zip; the pack and its list differ")
            with Image.open(io.BytesIO(archive.read(row.file))) as image:
                if row.kind == "background":
                    backgrounds[row.file] = np.array(image.convert("RGB"))
                else:
                    cutouts[row.file] = pyramid(np.array(image.convert("RGBA")))
    return Pack(rows, cutouts, backgrounds)


def check_size(size: int) -> None:
    """Refuse pictures of a size that the set is not made at."""
    if not SIZES[0] <= size <= SIZES[1]:
        raise WordTreeError(f"pictures of {size} pixels; the embedded set is made at {SIZES[0]} to {SIZES[1]}")


class Pictures(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """One split of the embedded set: any number of pictures, each made from the seed and its index alone.

    Args:
        split: "boxed" (scenes; boxes with their group's label), "labelled" (one object; its fine label, no box),
            "oracle" (the pictures of "labelled", with the box given), "seen" and "unseen" (test scenes, boxes with fine
            labels), "photographs" (test scenes of photographed objects).
        count: how many pictures.
        size: pixels of the square picture.
        seed: another seed, other pictures.
        held_out: a training family to leave out of training and to use as "unseen", for choosing settings without
            looking at the test family.
        scale: shortest and longest share of the side that an object's longer side takes; None for the split's own.

    Items: uint8 [3, size, size] and {"boxes" float [n, 4] xyxy pixels, "labels" int64 [n] indices into `label_map()`},
    or {"labels" int64 [1]} alone.

    Example:
        >>> image, target = Pictures("boxed", count=1)[0]
        >>> image.shape, sorted(target)
        (torch.Size([3, 160, 160]), ['boxes', 'labels'])
    """

    def __init__(
        self,
        split: str,
        count: int,
        size: int = 160,
        seed: int = 0,
        held_out: str | None = None,
        scale: tuple[float, float] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise unknown("split of the embedded set", split, SPLITS)
        check_size(size)
        if count < 0:
            raise WordTreeError(f"{count} pictures of the embedded set; give 0 or more")
        self.split = split
        self.count = count
        self.size = size
        self.seed = seed
        single = split in ("labelled", "oracle")
        self.objects = (1, 1) if single else (1, 5)
        self.scale = scale or ((0.5, 0.95) if single else (0.2, 0.6))
        self.look: Look = TRAIN_LOOK if single or split == "boxed" else TEST_LOOK
        # "labelled" and "oracle" draw from one stream, so their pictures are the same
        self.stream = {"boxed": 1, "labelled": 2, "oracle": 2, "seen": 3, "unseen": 4, "photographs": 5}[split]
        self.pool = cutouts_of(split, held_out)
        if not self.pool:
            known = ", ".join(one for one in SPLITS if cutouts_of(one))
            raise WordTreeError(f"no pictures for split {split!r}: none ships (zoo/AUDIT.md); known: {known}")
        family = (held_out or UNSEEN_FAMILY) if split == "unseen" else None
        self.distractors = distractors_of(family, held_out)
        self.backgrounds = backgrounds_of(train=self.look is TRAIN_LOOK)
        self.names = sorted(self.pool)
        self.labels = {synset: label for label, synset in enumerate(label_map().labels)}
        self.group_of = {c.synset: c.group for c in classes()}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        if not 0 <= index < self.count:
            raise IndexError(f"picture {index} of {self.count}")
        random = stream(self.seed, self.stream, index)
        photos = pack().backgrounds
        canvas = background(photos[self.backgrounds[random.randint(len(self.backgrounds))]], self.size, random)
        wanted = [self.names[random.randint(len(self.names))] for _ in range(random.randint(*self._between()))]
        objects = [self._object(self.pool[name], self.scale, random) for name in wanted]
        clutter = [
            self._object(self.distractors, (0.15, 0.4), random)
            for _ in range(random.randint(DISTRACTORS[0], DISTRACTORS[1] + 1) if self.distractors else 0)
        ]
        places = spots([*objects, *clutter], self.size, random)
        boxes, labels = [], []
        for number, (one, spot) in enumerate(zip([*objects, *clutter], places, strict=True)):
            if spot is None:
                continue
            left, top = spot
            paste(canvas, one, left, top, random)
            if number < len(wanted):
                boxes.append([left + one.left, top + one.top, left + one.right, top + one.bottom])
                labels.append(self._label(wanted[number]))
        image = torch.from_numpy(finish(canvas, self.look, random)).permute(2, 0, 1)
        target = {"labels": torch.tensor(labels, dtype=torch.int64)}
        if self.split != "labelled":
            target["boxes"] = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        return image, target

    def _between(self) -> tuple[int, int]:
        return self.objects[0], self.objects[1] + 1

    def _label(self, synset: str) -> int:
        return self.labels[self.group_of[synset] if self.split == "boxed" else synset]

    def _object(self, pool: Sequence[str], scale: tuple[float, float], random: np.random.RandomState) -> Pasted:
        """One of the pool, at a size that surely fits: turned corners are pulled in."""
        file = pool[random.randint(len(pool))]
        longest = self.size * (scale[0] + (scale[1] - scale[0]) * random.random_sample())
        one = warp(pack().cutouts[file], longest, self.look, random)
        over = max(one.right - one.left, one.bottom - one.top) / self.size
        if over > 1:
            one = warp(pack().cutouts[file], longest / over * 0.97, Look(0, 0, 0, 0, 0), random)
        return one


@cache
def cutouts_of(split: str, held_out: str | None = None) -> dict[str, tuple[str, ...]]:
    """The cut-outs that a split may paste: synset -> files. Boxed and labelled training share none.

    Of the training families, in alphabetical order, class number k gives its (k mod n)-th family to the boxed scenes
    (if a boxed group stands above it) and the others to the labelled pictures.
    """
    rows = [row for row in pack().rows if row.kind in ("cutout", "photo")]
    train = sorted({row.family for row in rows} - {UNSEEN_FAMILY, PHOTOGRAPHS, held_out})
    if held_out is not None and held_out not in {row.family for row in rows}:
        raise unknown("design family", held_out, sorted({row.family for row in rows}))
    pool: dict[str, tuple[str, ...]] = {}
    for number, fine in enumerate(classes()):
        mine = [row for row in rows if row.synset == fine.synset]
        have = [family for family in train if any(row.family == family for row in mine)]
        for_boxes = {have[number % len(have)]} if fine.group and len(have) > 1 else set()
        wanted = {
            "boxed": for_boxes,
            "labelled": set(have) - for_boxes,
            "oracle": set(have) - for_boxes,
            "seen": set(have) - for_boxes,
            "unseen": {held_out or UNSEEN_FAMILY},
            "photographs": {PHOTOGRAPHS},
        }[split]
        chosen = tuple(row.file for row in mine if row.family in wanted)
        if chosen:
            pool[fine.synset] = chosen
    return pool


@cache
def distractors_of(family: str | None, held_out: str | None = None) -> tuple[str, ...]:
    """Unlabelled clutter of one family, or of all training families."""
    rows = [row for row in pack().rows if row.kind == "distractor"]
    if family is not None:
        return tuple(row.file for row in rows if row.family == family)
    return tuple(row.file for row in rows if row.family not in (UNSEEN_FAMILY, held_out))


@cache
def backgrounds_of(train: bool) -> tuple[str, ...]:
    """Two thirds of the photographs for training, the rest for tests; crops of one photograph stay on one side."""
    scenes = sorted(row.file for row in pack().rows if row.kind == "background")
    photographs = sorted({file.split("@")[0].removesuffix(".webp") for file in scenes})
    testing = set(photographs[::3])
    return tuple(file for file in scenes if (file.split("@")[0].removesuffix(".webp") not in testing) == train)
