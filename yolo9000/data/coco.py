"""COCO's and LVIS's JSON: categories by name, ids with holes, images without annotations, crowds.

LVIS says of each image which categories it was checked for: those annotated, but for `not_exhaustive_category_ids`, and
`neg_category_ids`, of which there is none.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wordtree import LabelMap, WordTree, WordTreeError

from .records import CROWD, Fault, Mapper, Records, Table, existing, read_json


def read_coco(path: Path, images: Path | None, labels: LabelMap, tree: WordTree, name: str = "coco") -> Records:
    """Boxes from a JSON file of COCO's or LVIS's form.

    Args:
        path: instances_train2017.json, lvis_v1_train.json.
        images: the folder of the images; that of the file where left out.
        labels: the label map; a category is found in it by name, by its `synset`, or, where the map has numbers of its
            own, by its id.
        tree: a tree that has the labels.
        name: of the source.

    Raises:
        WordTreeError: no such file or folder, no JSON, or a JSON without images, annotations and categories. Anything
            smaller is in `faults`.
    """
    content = read_json(path)
    folder = existing(images or path.parent, "folder of images")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise WordTreeError(
                f"{path}: no list of {key!r}; give a file of COCO's form: images, annotations, categories"
            )
    mapper = Mapper(labels, tree)
    faults: list[Fault] = []
    pictures = _sound(path, "image", content["images"], ("id",), faults)
    names = [_file_of(one) for one in pictures]
    image_ids = np.array([one["id"] for one in pictures], dtype=np.int64)
    sizes = np.array([(one.get("width") or 0, one.get("height") or 0) for one in pictures], np.int64).reshape(-1, 2)

    categories = _sound(path, "category", content["categories"], ("id", "name"), faults)
    numbers = np.array([one["id"] for one in categories], dtype=np.int64)
    nodes = np.array([_node(mapper, one) for one in categories], dtype=np.int64)

    rows = _sound(path, "annotation", content["annotations"], ("image_id", "category_id", "bbox"), faults)
    image = _position(image_ids, np.array([row["image_id"] for row in rows], dtype=np.int64))
    category = _position(numbers, np.array([row["category_id"] for row in rows], dtype=np.int64))
    boxes = _boxes(rows)
    areas = np.array([row.get("area", np.nan) for row in rows], dtype=np.float64)
    areas = np.where(np.isnan(areas), (boxes[:, 2:] - boxes[:, :2]).prod(1), areas)
    crowd = np.array([row.get("iscrowd", 0) for row in rows], dtype=np.uint8) * np.uint8(CROWD)

    def where(row: int) -> str:
        return f"{path}, annotation {rows[row].get('id', row)} of image {rows[row]['image_id']}"

    for row in np.flatnonzero((image < 0) | (category < 0)).tolist():
        what = "image_id" if image[row] < 0 else "category_id"
        faults.append(
            Fault("files", where(row), f"{what} {rows[row][what]} is not in the file; give annotations of its own")
        )
    known = np.where(category >= 0, nodes[category], -1)
    known[image < 0] = -1
    faults += mapper.unmapped(str(path), [one["name"] for one in categories], category)
    own = {int(node): int(number) for node, number in zip(nodes[::-1], numbers[::-1], strict=True) if node >= 0}
    return Table(
        name, tree, [os.path.join(folder, one) for one in names], [str(one) for one in image_ids.tolist()],
        np.maximum(image, 0), boxes, known, where, crowd, sizes=sizes, numbers=own, faults=faults, areas=areas,
        checked=_checked(pictures, image, category, numbers, nodes, tree),
    ).records()  # fmt: skip


def _file_of(image: dict[str, Any]) -> str:
    """The file of an image: its name, or for LVIS the end of its address, such as train2017/000000391895.jpg."""
    if "file_name" in image:
        return str(image["file_name"])
    return "/".join(str(image.get("coco_url", f"{image['id']:012}.jpg")).split("/")[-2:])


def _node(mapper: Mapper, category: dict[str, Any]) -> int:
    """The node of a category: by name, by synset, by a number of the map's own."""
    node = mapper.node(str(category["name"]), str(category.get("synset", "")))
    labels = mapper.labels
    if node < 0 and labels.numbers != tuple(range(len(labels))) and category["id"] in labels.numbers:
        return mapper.node(labels.labels[labels.numbers.index(category["id"])])
    return node


def _sound(path: Path, kind: str, rows: list[Any], keys: tuple[str, ...], faults: list[Fault]) -> list[dict[str, Any]]:
    """The entries that have what they need."""
    good = [row for row in rows if isinstance(row, dict) and all(key in row for key in keys)]
    if len(good) < len(rows):
        for at, row in enumerate(rows):
            lacking = [key for key in keys if not isinstance(row, dict) or key not in row]
            if lacking:
                faults.append(Fault("files", f"{path}, {kind} {at}", f"no {lacking[0]!r}; give each {kind} one"))
    return good


def _position(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each wanted id stands among `ids`, which may have holes and any order; -1 where it does not."""
    if not len(ids):
        return np.full(len(wanted), -1)
    order = np.argsort(ids, kind="stable")
    at = order[np.minimum(np.searchsorted(ids[order], wanted), len(ids) - 1)]
    return np.where(ids[at] == wanted, at, -1)


def _boxes(rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    """float64 [rows, 4] xyxy from left, top, width, height; NaN, which is no box, where there are no four numbers."""
    try:
        boxes = np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(len(rows), 4)
    except (ValueError, TypeError):
        boxes = np.full((len(rows), 4), np.nan)
        for at, row in enumerate(rows):
            try:
                boxes[at] = np.array(row["bbox"], dtype=np.float64).reshape(4)
            except (ValueError, TypeError):
                continue  # NaN: told as a bad box
    return np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)


def _checked(
    pictures: list[dict[str, Any]],
    image: NDArray[np.int64],
    category: NDArray[np.int64],
    numbers: NDArray[np.int64],
    nodes: NDArray[np.int64],
    tree: WordTree,
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """What each image of LVIS was checked for, as pairs of image and node; None for COCO, which checked all."""
    if not any("neg_category_ids" in one for one in pictures):
        return None

    def pairs(key: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        given = [one.get(key, ()) for one in pictures]
        flat = np.array([number for some in given for number in some], dtype=np.int64)
        return np.repeat(np.arange(len(given)), [len(some) for some in given]), _position(numbers, flat)

    absent, partly = pairs("neg_category_ids"), pairs("not_exhaustive_category_ids")
    width = len(numbers) + 1
    here = (image >= 0) & (category >= 0)
    present = np.unique(image[here] * width + category[here])
    present = present[~np.isin(present, partly[0] * width + partly[1])]
    at = np.concatenate((present // width, absent[0]))
    node = np.concatenate((nodes[present % width], _nodes_at(nodes, absent[1])))
    return marked(at[node >= 0], node[node >= 0], tree)


def _nodes_at(nodes: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(at >= 0, nodes[at], -1) if len(nodes) else np.full(len(at), -1)


def marked(
    image: NDArray[np.int64], node: NDArray[np.int64], tree: WordTree
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of image and node, each once, with all above each node, as `LabelMap.known` marks them."""
    found = []
    while len(node):  # one level up at a time, all pairs at once
        found.append(image * len(tree) + node)
        node = tree.parents[node]
        image, node = image[node >= 0], node[node >= 0]
    pairs = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    return pairs // len(tree), pairs % len(tree)
