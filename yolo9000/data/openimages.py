"""Open Images' CSVs: boxes in fractions with groups, and image labels that a person has verified, present or absent."""

import os
from pathlib import Path

import numpy as np

from wordtree import LabelMap, WordTree, WordTreeError

from .coco import marked
from .records import GROUP, Fault, Mapper, Records, Table, existing

BOXES = {"ImageID": "U40", "LabelName": "U40", "XMin": "f8", "XMax": "f8", "YMin": "f8", "YMax": "f8"}
LABELS = {"ImageID": "U40", "LabelName": "U40", "Confidence": "f8"}


def read_openimages(
    path: Path,
    images: Path | None,
    labels: LabelMap,
    tree: WordTree,
    verified: Path | None = None,
    names: Path | None = None,
    name: str = "openimages",
) -> Records:
    """Boxes of Open Images; each image knows only what it was verified for.

    A label that is present is known with all above it, one that is absent with all above and all below it. A group
    (IsGroupOf) is flagged.

    Args:
        path: the boxes, such as train-annotations-bbox.csv.
        images: the folder of the images, ImageID.jpg; that of the file where left out.
        labels: the label map, by the names or by the LabelName (/m/0bt9lr).
        tree: a tree that has the labels.
        verified: the verified image labels, such as train-annotations-human-imagelabels.csv; where left out an image
            knows the labels of its boxes alone.
        names: the class descriptions, LabelName,name, where the label map has names.
        name: of the source.

    Raises:
        WordTreeError: no such file, or a CSV without the columns or with a damaged row.
    """
    folder = existing(images or path.parent, "folder of images")
    rows = _table(path, BOXES)
    group = _column(path, "IsGroupOf") if _has(path, "IsGroupOf") else np.zeros(len(rows))
    checks = _table(verified, LABELS) if verified is not None else np.zeros(0, [*LABELS.items()])
    stems, at = np.unique(np.concatenate((rows["ImageID"], checks["ImageID"])), return_inverse=True)
    kinds, kind = np.unique(np.concatenate((rows["LabelName"], checks["LabelName"])), return_inverse=True)
    texts = kinds.tolist()
    if names is not None:
        said = dict(
            line.split(",", 1) for line in existing(names, "class descriptions").read_text().splitlines() if line
        )
        texts = [said.get(one, one).strip().strip('"') for one in texts]
    mapper = Mapper(labels, tree)
    table = np.where((by_id := mapper.table(kinds.tolist())) >= 0, by_id, mapper.table(texts))
    image, check_image = at[: len(rows)], at[len(rows) :]
    nodes, check_nodes = table[kind][: len(rows)], table[kind][len(rows) :]
    present = checks["Confidence"] > 0
    known_image = np.concatenate((image, check_image))
    known_node = np.concatenate((nodes, check_nodes))
    absent_image, absent_node = _below(check_image[~present], check_nodes[~present], tree)
    known_image, known_node = np.append(known_image, absent_image), np.append(known_node, absent_node)
    inside = known_node >= 0
    stated = np.concatenate((np.ones(len(nodes), bool), present)) & (np.concatenate((nodes, check_nodes)) >= 0)
    above = marked(np.concatenate((image, check_image))[stated], np.concatenate((nodes, check_nodes))[stated], tree)
    judged = np.append(above[0], absent_image), np.append(above[1], absent_node)
    boxes = np.stack([rows[column] for column in ("XMin", "YMin", "XMax", "YMax")], axis=1)
    faults: list[Fault] = mapper.unmapped(
        str(path), texts, np.where(table[kind[: len(rows)]] < 0, kind[: len(rows)], -1)
    )
    return Table(
        name, tree, [os.path.join(folder, f"{stem}.jpg") for stem in stems.tolist()], stems.tolist(), image, boxes,
        nodes, lambda row: f"{path}, line {row + 2}", (group > 0).astype(np.uint8) * np.uint8(GROUP), relative=True,
        checked=marked(known_image[inside], known_node[inside], tree), numbers=mapper.number_of, faults=faults,
        judged=None if verified is None else judged,
    ).records()  # fmt: skip


def _below(image: np.ndarray, node: np.ndarray, tree: WordTree) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of image and node, with all below each node: where no animal is, no dog is."""
    image, node = image[node >= 0], node[node >= 0]
    of: dict[int, np.ndarray] = {}
    for one in np.unique(node).tolist():
        inside = np.arange(len(tree)) == one
        for _ in range(int(tree.depths.max())):  # one level down at a time, all nodes at once
            inside |= inside[tree.parents] & (tree.parents >= 0)
        of[one] = np.flatnonzero(inside)
    if not len(node):
        return image, node
    under = [of[one] for one in node.tolist()]
    return np.repeat(image, [len(some) for some in under]), np.concatenate(under)


def _header(path: Path) -> list[str]:
    with open(existing(path, "CSV"), encoding="utf-8-sig") as file:
        return file.readline().strip().split(",")


def _has(path: Path, column: str) -> bool:
    return column in _header(path)


def _column(path: Path, column: str) -> np.ndarray:
    found: np.ndarray = _table(path, {column: "f8"})[column]
    return found


def _table(path: Path, columns: dict[str, str]) -> np.ndarray:
    """Some columns of a CSV as a structured array [rows]."""
    header = _header(path)
    for column in columns:
        if column not in header:
            raise WordTreeError(f"{path}: no column {column!r} among {', '.join(header)}; give Open Images' own CSV")
    try:
        return np.loadtxt(
            path, [*columns.items()], delimiter=",", skiprows=1, usecols=[header.index(one) for one in columns],
            ndmin=1, encoding="utf-8-sig",
        )  # fmt: skip
    except (ValueError, UnicodeDecodeError) as fault:
        raise WordTreeError(f"{path}: a damaged row ({fault}); give the whole CSV") from None
