"""A text file a picture, a row a box: class, centre, width and height in fractions; and Darknet's lists of pictures."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wordtree import LabelMap, WordTree, WordTreeError

from ..images import SUFFIXES
from .records import Fault, Mapper, Records, Table, existing, files_under


def read_yolo(path: Path, labels: LabelMap, tree: WordTree, split: str = "train", name: str = "yolo") -> Records:
    """Boxes of a data YAML: `path`, `train`, `val`, `names`.

    A split is a folder of images, a .txt list of images, or several of them. An image's rows stand in labels/ where it
    stands in images/, as .txt; an image without such a file has no object.

    Args:
        path: the data YAML.
        labels: the label map, in which the YAML's `names` are found.
        tree: a tree that has the labels.
        split: a key of the YAML.
        name: of the source.

    Raises:
        WordTreeError: no such file, no YAML, no such split or no names. Damaged label files are in `faults`.
    """
    import yaml

    try:
        content: Any = yaml.safe_load(existing(path, "data YAML").read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise WordTreeError(f"{path}: not YAML ({fault}); give path, train, val and names") from None
    if not isinstance(content, dict) or split not in content or "names" not in content:
        have = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise WordTreeError(f"{path}: no {split!r} with `names` among {have}; give path, {split} and names")
    names = content["names"]
    if isinstance(names, dict):
        numbers = {int(number): str(one) for number, one in names.items()}
    else:
        numbers = {number: str(one) for number, one in enumerate(names)}
    home = path.parent / str(content.get("path", ""))
    given = content[split] if isinstance(content[split], list) else [content[split]]
    images = [file for one in given for file in _images(home, str(one))]
    table = [numbers.get(number, "") for number in range(max(numbers, default=-1) + 1)]
    return _read(images, label_file, False, Mapper(labels, tree), table, None, tree, name, str(path))


def read_darknet(path: Path, labels: LabelMap, tree: WordTree, name: str = "darknet") -> Records:
    """A list of image paths, a line each, of pictures with boxes and of pictures with a label alone.

    A label file's row is `class x y w h` with the class in the order of the label map (COCO's, in the joint list of
    YOLO9000), or `node 0 0 0 0`: an image label, which counts in nodes of the tree. Every listed picture has a file.

    Args:
        path: the list, such as combine9k.train.list; relative paths are looked for from here, then beside the list.
        labels, tree: the label map of the boxes' classes, and the tree of the image labels.
        name: of the source.
    """
    lines = [line.strip() for line in existing(path, "list of images").read_text().splitlines()]
    images = [
        line if os.path.isabs(line) or os.path.exists(line) else str(path.parent / line) for line in lines if line
    ]
    return _read(
        images, darknet_label_file, True, Mapper(labels, tree), list(labels.labels), len(tree), tree, name, str(path)
    )


def label_file(image: str) -> str:
    """The label file of an image: the last folder `images` is `labels`, the suffix .txt.

    Example:
        >>> label_file("coco/images/train2017/9.jpg")
        'coco/labels/train2017/9.txt'
    """
    head, found, tail = image.rpartition(f"{os.sep}images{os.sep}")
    if not found and image.startswith(f"images{os.sep}"):
        return os.path.splitext("labels" + image.removeprefix("images"))[0] + ".txt"
    return os.path.splitext(f"{head}{os.sep}labels{os.sep}{tail}" if found else image)[0] + ".txt"


def darknet_label_file(image: str) -> str:
    """The label file of an image as Darknet finds it: the first `images`, then the first `JPEGImages`, is `labels`.

    Example:
        >>> darknet_label_file("VOC2007/JPEGImages/000005.jpg")
        'VOC2007/labels/000005.txt'
    """
    image = image.replace("images", "labels", 1).replace("JPEGImages", "labels", 1)
    return os.path.splitext(image)[0] + ".txt"


def _images(home: Path, given: str) -> list[str]:
    """The images that one entry of a split names."""
    at = existing(home / given, "split")
    if at.is_dir():
        return [str(file) for file in files_under(at, SUFFIXES)]
    lines = [line.strip() for line in at.read_text().splitlines() if line.strip()]
    return [os.path.normpath(at.parent / line if line.startswith("./") else home / line) for line in lines]


def _read(
    images: list[str],
    label_of: Callable[[str], str],
    needed: bool,
    mapper: Mapper,
    names: list[str],
    image_labels: int | None,
    tree: WordTree,
    name: str,
    where_from: str,
) -> Records:
    """image_labels: how many nodes an image label `node 0 0 0 0` may name; None where such a row is a bad box."""
    faults: list[Fault] = []
    found = [(image, _rows(label_of(image), needed, faults)) for image in images]
    images, parts = (
        [image for image, some in found if some is not None],
        [some for _, some in found if some is not None],
    )
    counts = [len(some) for some in parts]
    rows = np.concatenate([np.zeros((0, 5)), *parts])
    image_at = np.repeat(np.arange(len(images)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) if len(rows) else np.zeros(0, int)
    centre, half = rows[:, 1:3], rows[:, 3:] / 2
    boxes = np.concatenate((centre - half, centre + half), axis=1)
    alone = (rows[:, 1:] == 0).all(1) & (image_labels is not None)
    number = rows[:, 0].astype(np.int64)
    table = mapper.table(names)
    limit = np.where(alone, image_labels or 0, len(table))
    lost = (number != rows[:, 0]) | (number < 0) | (number >= limit)
    nodes = np.where(alone, number, np.append(table, -1)[np.clip(number, 0, len(table))])
    nodes[lost] = -1

    def where(row: int) -> str:
        return f"{label_of(images[image_at[row]])}, row {within[row] + 1}"

    for row in np.flatnonzero(lost).tolist():
        what = "node" if alone[row] else "class"
        faults.append(Fault("labels", where(row), f"{what} {rows[row, 0]:g}; they go from 0 to {limit[row] - 1}"))
    plain = ~lost & ~alone
    faults += mapper.unmapped(where_from, names, np.where(plain, number, -1))
    labelled = np.zeros(len(images), dtype=bool)
    labelled[image_at[alone]] = True
    mixed = labelled[image_at] & ~alone  # a box beside an image label: one of them would be lost
    for row in np.flatnonzero(mixed & ~lost).tolist():
        faults.append(Fault("files", where(row), "a box beside an image label `node 0 0 0 0`; give one or the other"))
    nodes[mixed] = -1
    return Table(
        name, tree, images, [Path(image).stem for image in images], image_at, boxes, nodes, where,
        labelled=labelled, relative=True, numbers=mapper.number_of, faults=faults,
    ).records()  # fmt: skip


def _rows(file: str, needed: bool, faults: list[Fault]) -> np.ndarray | None:
    """float64 [rows, 5] of a label file; rows that are none are noted. None where the picture cannot be used."""
    try:
        with open(file) as opened:
            lines = [line.split() for line in opened]
    except FileNotFoundError:
        if not needed:
            return np.zeros((0, 5))
        faults.append(Fault("files", file, "no such label file; write one, empty where nothing is to be seen"))
        return None
    except UnicodeDecodeError:
        faults.append(Fault("files", file, "not text; give rows of class, x, y, width, height"))
        return None
    good = []
    for number, words in enumerate(lines, 1):
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) == 5 and np.isfinite(row).all():
            good.append(row)
        else:
            text = " ".join(words)[:60]
            faults.append(Fault("files", f"{file}, line {number}", f"{text!r}; a row is class, x, y, width, height"))
    return np.array(good, dtype=np.float64).reshape(-1, 5)
