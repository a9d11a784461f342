"""Data sets as tables: where each image lies, its boxes, their nodes and flags, as numpy arrays and not as dicts.

Each reader of a file family fills one `Records`. What is wrong in the files is left out and kept in `faults`, by kind;
whoever uses the records raises it, or has said that it may be left out.
"""

import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from wordtree import LabelMap, WordTree, WordTreeError, wordnet
from wordtree.errors import unknown

CROWD, DIFFICULT, GROUP = 1, 2, 4  # flags of a box, added up
FAULTS = ("labels", "boxes", "images", "files")  # kinds of faults: unmapped, bad, missing, damaged
SLACK = 2.0  # pixels that a box may hang over its image, and is cut; annotators round
RELATIVE_SLACK = 0.01  # the same for boxes in fractions of an image


class Fault(NamedTuple):
    """Something wrong in a data set: its kind, where it stands, and what was asked, what is there, what would do."""

    kind: str  # of FAULTS
    where: str
    what: str
    rows: int = 1  # an unmapped label stands for all its boxes

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class Texts(Sequence[str]):
    """Many short texts in one block of memory, which forked loaders share without copying it.

    Example:
        >>> texts = Texts(["a.jpg", "b.jpg"])
        >>> len(texts), texts[1]
        (2, 'b.jpg')
    """

    def __init__(self, texts: Iterable[str]) -> None:
        encoded = [os.fsencode(text) for text in texts]
        self.block = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self.ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> "list[str]": ...
    def __getitem__(self, at: int | slice) -> "str | list[str]":
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(f"text {at} of {len(self)}")
        return os.fsdecode(self.block[self.ends[at] : self.ends[at + 1]].tobytes())


class Record(NamedTuple):
    """One image's rows."""

    boxes: NDArray[np.float64]  # [n, 4] xyxy pixels; [0, 4] for an image label
    nodes: NDArray[np.int64]  # [n]
    flags: NDArray[np.uint8]  # [n] CROWD, DIFFICULT, GROUP added up
    known: NDArray[np.bool_] | None  # [nodes]: what this image was checked for; None where its data set does not say


@dataclass(frozen=True)
class Records(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """A data set: images in order of the data set, each with boxes or with one label.

    Items are (uint8 [3, h, w], target) as training takes them: {"boxes" float32 [n, 4] xyxy pixels, "labels" int64 [n]
    nodes} without the boxes that carry a flag, or {"labels" int64 [1]} for an image label; "known", bool [nodes], where
    the data set says what each image was checked for; "ignored" float32 [m, 4], the boxes that carry a flag, where
    there are any. `record(index)` has all boxes with their flags.

    Attributes:
        name: of the source.
        tree: the tree of `nodes`.
        files: the image files, or the tars that hold them.
        ids: the data set's own name of each image, as result files write it.
        starts: int64 [images + 1]: image i has the rows starts[i] to starts[i + 1].
        boxes: float64 [rows, 4] xyxy, pixels or, where `relative`, fractions of the image.
        nodes: int64 [rows].
        flags: uint8 [rows].
        labelled: bool [images]: True where the rows are image labels, which have no box.
        sizes: int64 [images, 2] width and height, 0 where the annotations do not say.
        relative: boxes are fractions.
        places: int64 [images, 2] offset and length in a tar; None for plain files.
        checked: (starts int64 [images + 1], nodes int64): the nodes that each image was checked for; None where the
            data set does not say.
        numbers: node -> the data set's own number of the class, as result files write it.
        faults: what was left out, and why.
        areas: float64 [rows], pixels of each object where the data set has its outline, as COCO has; None: its box's.
        judged: as `checked`: the nodes that each image's detections are judged on, as Open Images evaluates: verified
            present and all above, verified absent and all below; None where all are.
    """

    name: str
    tree: WordTree
    files: Texts
    ids: Texts
    starts: NDArray[np.int64]
    boxes: NDArray[np.float64]
    nodes: NDArray[np.int64]
    flags: NDArray[np.uint8]
    labelled: NDArray[np.bool_]
    sizes: NDArray[np.int64]
    relative: bool = False
    places: NDArray[np.int64] | None = None
    checked: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    numbers: dict[int, int] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    areas: NDArray[np.float64] | None = None
    judged: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        image = self.image(index)
        return image, self.target(index, image.shape[2], image.shape[1])

    def image(self, index: int) -> Tensor:
        """uint8 [3, h, w], RGB.

        Raises:
            WordTreeError: an image that is missing, damaged, or of another size than its annotation says.
        """
        image = decode(self.read(index), self.where(index))
        width, height = self.sizes[index].tolist()
        if width and (height, width) != tuple(image.shape[1:]):
            raise WordTreeError(
                f"image {self.where(index)!r} is {image.shape[2]} x {image.shape[1]}, its annotation says "
                f"{width} x {height}; give the image that was annotated"
            )
        return image

    def read(self, index: int) -> bytes:
        """The bytes of an image's file."""
        file = self.files[index]
        try:
            with open(file, "rb") as opened:
                if self.places is None:
                    return opened.read()
                offset, length = self.places[index].tolist()
                opened.seek(offset)
                return opened.read(length)
        except OSError as fault:
            raise WordTreeError(
                f"image {self.where(index)!r} cannot be read ({fault.strerror}); give a file that exists"
            ) from None

    def where(self, index: int) -> str:
        """An image's name in messages: its file, or its tar and its name in it."""
        return self.files[index] if self.places is None else f"{self.files[index]}:{self.ids[index]}"

    def record(self, index: int, width: int, height: int) -> Record:
        """The rows of an image of that many pixels."""
        rows = slice(self.starts[index], self.starts[index + 1])
        boxes = self.boxes[:0] if self.labelled[index] else self.boxes[rows]
        if self.relative:
            boxes = boxes * np.array([width, height, width, height], dtype=np.float64)
        known = None
        if self.checked is not None:
            starts, nodes = self.checked
            known = np.zeros(len(self.tree), dtype=bool)
            known[nodes[starts[index] : starts[index + 1]]] = True
        return Record(boxes, self.nodes[rows], self.flags[rows], known)

    def target(self, index: int, width: int, height: int) -> dict[str, Tensor]:
        """What training takes for an image of that many pixels."""
        boxes, nodes, flags, known = self.record(index, width, height)
        target = {"labels": torch.from_numpy(nodes.copy())}
        if not self.labelled[index]:
            plain = flags == 0
            target = {
                "boxes": torch.from_numpy(boxes[plain].astype(np.float32)),
                "labels": torch.from_numpy(nodes[plain]),
            }
            if not plain.all():
                target["ignored"] = torch.from_numpy(boxes[~plain].astype(np.float32))
        if known is not None:
            target["known"] = torch.from_numpy(known)
        return target

    def counts(self) -> NDArray[np.int64]:
        """int64 [nodes]: how many boxes, or image labels, each node has."""
        return np.bincount(self.nodes, minlength=len(self.tree))

    def take(self, images: ArrayLike) -> "Records":
        """Only some images. images: int [k], in the order wanted."""
        at = np.asarray(images, dtype=np.int64)
        rows, starts = _rows_of(self.starts, at)
        checked, judged = (_pairs_of(one, at) for one in (self.checked, self.judged))
        return Records(
            self.name, self.tree, Texts(self.files[one] for one in at.tolist()),
            Texts(self.ids[one] for one in at.tolist()), starts, self.boxes[rows], self.nodes[rows], self.flags[rows],
            self.labelled[at], self.sizes[at], self.relative, None if self.places is None else self.places[at], checked,
            self.numbers, self.faults, None if self.areas is None else self.areas[rows], judged,
        )  # fmt: skip

    def unflagged(self) -> "Records":
        """Without the boxes that carry a flag: what they show is background."""
        plain = self.flags == 0
        starts = np.concatenate(([0], np.cumsum(plain)))[self.starts]
        areas = None if self.areas is None else self.areas[plain]
        return replace(
            self, starts=starts, boxes=self.boxes[plain], nodes=self.nodes[plain], flags=self.flags[plain], areas=areas
        )

    def raise_faults(self, skip: Sequence[str] = ()) -> "Records":
        """The records themselves, where every fault is of a kind that may be left out.

        Raises:
            WordTreeError: the first other fault, and how many more there are.
        """
        for kind in skip:
            if kind not in FAULTS:
                raise unknown("kind of fault to skip", kind, FAULTS)
        left = [fault for fault in self.faults if fault.kind not in skip]
        if left:
            more = f"; and {len(left) - 1} more faults, which `yolo9000 train --check` lists" if left[1:] else ""
            raise WordTreeError(f"{left[0]}; `skip: [{left[0].kind}]` leaves such out{more}")
        if not len(self):
            raise WordTreeError(f"source {self.name!r} has no image left; give one that has")
        return self


def _rows_of(starts: NDArray[np.int64], at: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of some images, one after the other, and where each image's begin among them."""
    counts = starts[at + 1] - starts[at]
    ends = np.concatenate(([0], np.cumsum(counts)))
    return np.repeat(starts[at] - ends[:-1], counts) + np.arange(ends[-1]), ends


def _pairs_of(
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]] | None, at: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """The nodes of some images, as `Records.checked` keeps them."""
    if pairs is None:
        return None
    some, starts = _rows_of(pairs[0], at)
    return starts, pairs[1][some]


def _by_image(
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]] | None, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Pairs of image and node as `Records.checked` keeps them."""
    if pairs is None:
        return None
    image, node = pairs
    starts = np.concatenate(([0], np.cumsum(np.bincount(image, minlength=count))))
    return starts, node[np.argsort(image, kind="stable")]


# ---------------------------------------------------------------------- labels


class Mapper:
    """A data set's class names -> nodes, and the names that found none.

    A name is one of the label map's labels, or one of its ids, or a synset name of one.
    """

    def __init__(self, labels: LabelMap, tree: WordTree) -> None:
        nodes = labels.nodes_on(tree).tolist()
        self.labels = labels
        self.node_of = dict(zip(labels.ids, nodes, strict=True)) | dict(zip(labels.labels, nodes, strict=True))
        self.number_of = dict(zip(nodes, labels.numbers, strict=True))

    def node(self, *names: str) -> int:
        """The node of the first name that has one; -1 where none has."""
        for name in names:
            if name in self.node_of:
                return int(self.node_of[name])
        for name in names:  # a synset name, such as dog.n.01
            for id_ in wordnet.candidates(name) if ".n." in name else ():
                if id_ in self.node_of:
                    return int(self.node_of[id_])
        return -1

    def table(self, names: Sequence[str]) -> NDArray[np.int64]:
        """int64 [names]: the node of each name, -1 where it has none."""
        return np.array([self.node(name) for name in names], dtype=np.int64)

    def unmapped(self, where: str, names: Sequence[str], at: NDArray[np.int64]) -> list[Fault]:
        """A fault for each name without a node that rows carry. at: int64 [rows], indices into `names`."""
        counts = np.bincount(at[at >= 0], minlength=len(names))
        known = ", ".join(self.labels.labels[:6])
        return [
            Fault(
                "labels", where,
                f"label {name!r} of {counts[row]} rows is not in label map {self.labels.name!r} ({known} ...); "
                "give it an id there", int(counts[row]),
            )
            for row, (name, node) in enumerate(zip(names, self.table(names).tolist(), strict=True))
            if node < 0 and counts[row]
        ]  # fmt: skip


# ---------------------------------------------------------------------- tables


@dataclass
class Table:
    """What a reader has found: the images, and rows in any order; `records` sorts, checks and counts it."""

    name: str
    tree: WordTree
    files: list[str]
    ids: list[str]
    image: NDArray[np.int64]  # [rows], index into files
    boxes: NDArray[np.float64]  # [rows, 4] xyxy
    nodes: NDArray[np.int64]  # [rows], -1: no node, left out
    where: Callable[[int], str]  # a row -> file and row, for messages
    flags: NDArray[np.uint8] | None = None
    labelled: NDArray[np.bool_] | None = None  # [images]
    sizes: NDArray[np.int64] | None = None
    relative: bool = False
    places: NDArray[np.int64] | None = None  # [images, 2] offset and length in a tar
    checked: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None  # image int64 [pairs], node int64 [pairs]
    numbers: dict[int, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    areas: NDArray[np.float64] | None = None  # [rows]
    judged: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None  # as checked

    def records(self) -> Records:
        """The finished data set: missing images and bad boxes left out and noted."""
        count = len(self.files)
        sizes = np.zeros((count, 2), np.int64) if self.sizes is None else self.sizes
        labelled = np.zeros(count, bool) if self.labelled is None else self.labelled
        flags = np.zeros(len(self.nodes), np.uint8) if self.flags is None else self.flags
        there = self._present()
        keep = self.nodes >= 0
        is_box = ~labelled[self.image]
        good, boxes = self._checked_boxes(sizes, is_box)
        keep &= good
        order = np.argsort(self.image[keep], kind="stable")
        rows = np.flatnonzero(keep)[order]
        starts = np.concatenate(([0], np.cumsum(np.bincount(self.image[rows], minlength=count))))
        there &= ~labelled | (np.diff(starts) > 0)  # an image label that has no node is no image label
        checked, judged = (_by_image(one, count) for one in (self.checked, self.judged))
        whole = Records(
            self.name, self.tree, Texts(self.files), Texts(self.ids), starts, boxes[rows], self.nodes[rows],
            flags[rows], labelled, sizes, self.relative, self.places, checked, self.numbers, tuple(self.faults),
            None if self.areas is None else self.areas[rows], judged,
        )  # fmt: skip
        return whole if there.all() else whole.take(np.flatnonzero(there))

    def _present(self) -> NDArray[np.bool_]:
        """bool [images]: whose file exists; a folder is listed once."""
        listed: dict[str, set[str]] = {}
        there = np.ones(len(self.files), dtype=bool)
        for at, file in enumerate(self.files):
            folder, name = os.path.split(file)
            if folder not in listed:
                listed[folder] = set(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else set()
            if name not in listed[folder]:
                there[at] = False
                self.faults.append(Fault("images", file, f"no such image, annotated as {self.ids[at]!r}; put it there"))
        return there

    def _checked_boxes(
        self, sizes: NDArray[np.int64], is_box: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """bool [rows]: rows without fault; and the boxes, cut where they hang over by less than the slack."""
        limit = np.ones((len(self.image), 2)) if self.relative else sizes[self.image].astype(np.float64)
        limit = np.where(limit > 0, limit, np.inf)
        slack = RELATIVE_SLACK if self.relative else SLACK
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        inside = (low >= -slack).all(1) & (high <= limit + slack).all(1)  # NaN fails every comparison
        cut = np.concatenate((np.clip(low, 0, limit), np.clip(high, 0, limit)), axis=1)
        good = inside & (cut[:, 2:] > cut[:, :2]).all(1) | ~is_box
        unit = " in fractions" if self.relative else ""
        for row in np.flatnonzero(~good & (self.nodes >= 0)).tolist():
            left, top, right, bottom = self.boxes[row].tolist()
            size = (
                "" if not np.isfinite(limit[row]).all() or self.relative else f", {limit[row, 0]:g} x {limit[row, 1]:g}"
            )
            self.faults.append(
                Fault(
                    "boxes", self.where(row),
                    f"box from {left:g}, {top:g} to {right:g}, {bottom:g}{unit}; "
                    f"a box has right > left, bottom > top and lies inside its image{size}",
                )
            )  # fmt: skip
        return good, np.where(good[:, None], cut, 0.0)


def decode(data: bytes, name: str) -> Tensor:
    """An image file's bytes as uint8 [3, h, w], RGB.

    Raises:
        WordTreeError: no image, or one that ends too soon.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return _tensor(image if image.mode == "RGB" else image.convert("RGB"))  # which would copy
    except UnidentifiedImageError:
        raise WordTreeError(f"image {name!r} is in no known format; give a JPEG or PNG") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as fault:
        raise WordTreeError(f"image {name!r} cannot be read whole ({fault}); give an undamaged file") from None


def _tensor(image: Image.Image) -> Tensor:
    """uint8 [3, h, w] of an RGB image, in the one copy that it takes out of PIL."""
    with warnings.catch_warnings():  # torch warns that bytes are not to be written to; nobody else has these
        warnings.simplefilter("ignore", UserWarning)
        pixels = torch.frombuffer(image.tobytes(), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1)


def files_under(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """Files below a folder with one of the suffixes, in order of name."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names) if name.lower().endswith(tuple(suffixes)))


def existing(path: Path, what: str) -> Path:
    """The path; an error where nothing is there."""
    if not path.exists():
        raise WordTreeError(f"no {what} {str(path)!r}; give a path that exists")
    return path


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        WordTreeError: no such file, or no JSON, with its line.
    """
    import json

    try:
        return json.loads(existing(path, "annotations").read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as fault:
        raise WordTreeError(f"{path}: not JSON ({fault}); give the whole file") from None
