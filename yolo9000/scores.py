"""The data sets' own scores: VOC's average precision in both forms, COCO's through pycocotools, top-k of names.

All take detections and truths as tables over all images (`Found`, `Truths`), classes as nodes. Boxes are in continuous
pixels: VOC's own corners, which count from 1 and belong to the box, are one larger on the left and above.
"""

import contextlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from wordtree import LabelMap, WordTree, WordTreeError
from wordtree.errors import unknown
from wordtree.metrics import expand_detections

from .files import write_text

COCO_FIGURES = (
    "AP", "AP50", "AP75", "APsmall", "APmedium", "APlarge", "AR1", "AR10", "AR100", "ARsmall", "ARmedium", "ARlarge",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Detections of a data set, a row each: image int64, boxes float64 [n, 4] xyxy, nodes int64, scores float64."""

    image: NDArray[np.int64]
    boxes: NDArray[np.float64]
    nodes: NDArray[np.int64]
    scores: NDArray[np.float64]

    def at(self, rows: Any) -> "Found":
        """Some rows."""
        return Found(self.image[rows], self.boxes[rows], self.nodes[rows], self.scores[rows])

    def expanded(self, tree: WordTree, nodes: Sequence[int]) -> "Found":
        """Each detection once for each of `nodes` that it is or that stands above it."""
        rows, at = expand_detections(self.nodes, tree, _marked(nodes, tree))
        return replace(self.at(rows), nodes=at)


@dataclass(frozen=True)
class Truths:
    """Objects of a data set, a row each; `crowd` and `ignored` (difficult, or a group) are bool, `areas` pixels.
    `groups` says which of the ignored are groups: none where left out."""

    image: NDArray[np.int64]
    boxes: NDArray[np.float64]
    nodes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    areas: NDArray[np.float64]
    groups: NDArray[np.bool_] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.groups is None:
            object.__setattr__(self, "groups", np.zeros(len(self.image), dtype=bool))

    def at(self, rows: Any) -> "Truths":
        """Some rows."""
        return Truths(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def expanded(self, tree: WordTree, nodes: Sequence[int]) -> "Truths":
        """Each object once for each of `nodes` that it is or that stands above it, as Open Images evaluates."""
        rows, at = expand_detections(self.nodes, tree, _marked(nodes, tree))
        some = self.at(rows)
        return replace(some, nodes=at)


def _marked(nodes: Sequence[int], tree: WordTree) -> NDArray[np.bool_]:
    marks = np.zeros(len(tree), dtype=bool)
    marks[list(nodes)] = True
    return marks


# ---------------------------------------------------------------------- VOC


class Curve(NamedTuple):
    """Precision over recall of one class as its threshold falls, and how many truths it has."""

    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    truths: int


def voc_curve(found: Found, truths: Truths, node: int, iou: float = 0.5) -> Curve:
    """Precision and recall of one class, as VOC's development kit counts them.

    A detection belongs to the object of its class and image that it overlaps most, whether taken or not. From an
    overlap of `iou` on, the likeliest detection of an object is right, every other is wrong; one that belongs to an
    ignored object is neither. All other detections are wrong. Crowds are ignored.
    """
    mine = found.at(found.nodes == node)
    mine = mine.at(np.argsort(-mine.scores, kind="stable"))
    there = truths.at(truths.nodes == node)
    ignored = there.ignored | there.crowd
    best = _best(mine, there, iou)
    hit = best >= 0
    aside = hit & ignored[best] if len(ignored) else np.zeros(len(hit), dtype=bool)
    first = _first(best, hit & ~aside)
    right, wrong = first[~aside].cumsum(), (~first[~aside]).cumsum()
    count = int((~ignored).sum())
    recall = right / count if count else np.full(len(right), np.nan)
    return Curve(recall, right / np.maximum(right + wrong, 1), count)


def _best(found: Found, truths: Truths, iou: float) -> NDArray[np.int64]:
    """The truth of its image that each detection overlaps most, the first on a tie, where that is `iou` or more; else
    -1."""
    best = np.full(len(found.image), -1)
    row, at, overlap, _ = pairs(found.image, found.boxes, truths.image, truths.boxes)
    order = np.lexsort((-at, overlap, row))  # of each row the largest comes last
    best[row[order]] = np.where(overlap[order] >= iou, at[order], -1)
    return best


def pairs(
    image: NDArray[np.int64], boxes: NDArray[np.float64], other_image: NDArray[np.int64], others: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Every pair of a box and another of the same image that have a part in common.

    Returns:
        rows of the boxes, int64 [pairs], ascending; rows of the others, int64 [pairs]; their IoU, float64 [pairs]; and
        the share of the box that lies in the other, float64 [pairs].
    """
    by_image = np.argsort(other_image, kind="stable")
    starts = np.searchsorted(other_image[by_image], image, side="left")
    counts = np.searchsorted(other_image[by_image], image, side="right") - starts
    row = np.repeat(np.arange(len(image)), counts)
    within = np.arange(len(row)) - np.repeat(counts.cumsum() - counts, counts)
    at = by_image[starts[row] + within]
    a, b = boxes[row], others[at]
    both = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None).prod(1)
    area, other_area = (a[:, 2:] - a[:, :2]).prod(1), (b[:, 2:] - b[:, :2]).prod(1)
    touch = both > 0
    overlap = both[touch] / np.maximum(area + other_area - both, 1e-12)[touch]
    return row[touch], at[touch], overlap, both[touch] / np.maximum(area[touch], 1e-12)


def voc_area(curve: Curve) -> float:
    """Area under precision made to fall, over recall (VOC since 2010); NaN without truths."""
    if not curve.truths:
        return math.nan
    recall = np.concatenate(([0.0], curve.recall, [1.0]))
    precision = np.concatenate(([0.0], curve.precision, [0.0]))
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall) * falling[1:]).sum())


def voc_eleven(curve: Curve) -> float:
    """Mean of the best precision from each of the recalls 0, .1 ... 1 on (VOC 2007); NaN without truths."""
    if not curve.truths:
        return math.nan
    best = [curve.precision[curve.recall >= point].max(initial=0.0) for point in np.arange(0.0, 1.1, 0.1)]
    return float(np.mean(best))


def mean(values: Iterable[float]) -> float:
    """Of the figures that there are; NaN of none."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


# ---------------------------------------------------------------------- COCO


def coco_evaluation(found: Found, truths: Truths, images: int, nodes: Iterable[int]) -> COCOeval:
    """pycocotools' own evaluation of boxes, accumulated; its `stats` are `COCO_FIGURES`, -1 where there is no truth.

    Args:
        found, truths: detections and objects.
        images: how many images there are.
        nodes: the classes.
    """
    evaluation = coco_counted(found, truths, images, nodes)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    return evaluation


def coco_counted(found: Found, truths: Truths, images: int, nodes: Iterable[int], **params: Any) -> COCOeval:
    """`coco_evaluation` without its `stats`. params: of `COCOeval.params` those that are not as usual."""
    there = [
        {"image_id": image, "category_id": node, "bbox": box, "area": area, "iscrowd": int(crowd), "ignore": int(crowd)}
        for image, node, box, area, crowd in zip(
            truths.image.tolist(), truths.nodes.tolist(), _xywh(truths.boxes).tolist(), truths.areas.tolist(),
            (truths.crowd | truths.ignored).tolist(), strict=True,
        )
    ]  # fmt: skip
    rows = np.column_stack((found.image, _xywh(found.boxes), found.scores, found.nodes)).astype(np.float64)
    categories = sorted({int(node) for node in nodes})
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(images)],
        "categories": [{"id": category} for category in categories],
        "annotations": [{"id": number, **truth} for number, truth in enumerate(there, 1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
        coco.createIndex()
        if len(rows):
            results = coco.loadRes(rows)
        else:
            results = COCO()
            results.dataset = {**coco.dataset, "annotations": []}
            results.createIndex()
        evaluation = COCOeval(coco, results, "bbox")
        evaluation.params.catIds = categories
        for name, value in params.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def coco_figures(evaluation: COCOeval) -> dict[str, float]:
    """The twelve figures by name; NaN where pycocotools says -1."""
    return {name: math.nan if value < 0 else float(value) for name, value in zip(COCO_FIGURES, evaluation.stats)}


def coco_by_class(evaluation: COCOeval, iou: int = 0) -> dict[int, float]:
    """AP of each class at one IoU: 0 is .5, 5 is .75; NaN where it has no truth."""
    precision = evaluation.eval["precision"][iou, :, :, 0, -1]  # [recall points, classes]
    values = zip(evaluation.params.catIds, precision.T, strict=True)
    return {int(node): float(value.mean()) if (value > -1).any() else math.nan for node, value in values}


def _xywh(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)


# ---------------------------------------------------------------------- ImageNet


class Split(NamedTuple):
    """Classes of a test set by whether a box of them was ever learnt from."""

    shared: tuple[int, ...]
    never_boxed: tuple[int, ...]


def split_by_boxes(nodes: Iterable[int], boxed: Iterable[int], tree: WordTree, related: bool = False) -> Split:
    """Split a test set's classes by the nodes that training had boxes of.

    With the released tree and maps, 38 of ImageNet DET's 200 nodes are nodes of COCO, and 57 with `related`, where one
    that lies above or below a node of COCO counts too. The paper says 44, from a list of its own that was not
    published: neither number is that one.

    Args:
        nodes: the classes of the test set.
        boxed: the classes that training had boxes of.
        tree: the tree.
        related: count those above and below a boxed node as shared.

    Example:
        >>> from yolo9000 import official_maps, official_tree
        >>> tree, maps = official_tree(), official_maps()
        >>> det, coco = (maps[name].nodes_on(tree).tolist() for name in ("inet9k", "coco9k"))
        >>> [len(part) for part in split_by_boxes(det, coco, tree)], len(split_by_boxes(det, coco, tree, True).shared)
        ([38, 162], 57)
    """
    wanted, given = sorted(set(map(int, nodes))), sorted(set(map(int, boxed)))
    near = set(given)
    if related:
        above = np.atleast_1d(tree.propagate(np.array(given, dtype=np.int64)).any(0))
        inside = np.array([bool(set(tree.path(node)) & near) for node in wanted])
        near |= {node for node, below in zip(wanted, inside, strict=True) if below or above[node]}
    return Split(tuple(node for node in wanted if node in near), tuple(node for node in wanted if node not in near))


def worst_and_best(by_class: Mapping[int, float], tree: WordTree, count: int = 5) -> str:
    """The paper's table 7: the worst and the best classes with their AP, as text."""
    ranked = sorted((value, tree.names[node]) for node, value in by_class.items() if not math.isnan(value))
    worst, best = ranked[:count], ranked[len(ranked) - min(count, len(ranked)) :]
    rows = [
        f"{low[1]:24} {100 * low[0]:5.1f}   {high[1]:24} {100 * high[0]:5.1f}"
        for low, high in zip(worst, best, strict=True)
    ]
    return "\n".join((f"{'worst':24} {'AP':>5}   {'best':24} {'AP':>5}", *rows))


def ranks(scores: NDArray[Any], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many columns stand before the truth's in each row: int64 [rows]. Of a tie the lower column is the first, so
    that a constant answer is right by chance alone. A truth of score -inf or NaN was not answered, and is in no top k.

    Args:
        scores: float [rows, columns].
        columns: int64 [rows], the truth's.

    Example:
        >>> ranks(np.array([[0.2, 0.5, 0.2], [0.2, 0.2, 0.2]]), np.array([2, 0])).tolist()
        [2, 0]
    """
    own = scores[np.arange(len(columns)), columns][:, None]
    before = np.arange(scores.shape[1]) < columns[:, None]
    rank = ((scores > own) | ((scores == own) & before)).sum(1)
    return np.where(own[:, 0] > -np.inf, rank, np.iinfo(np.int64).max)


def darknet_ranks(log_probs: NDArray[Any], truths: NDArray[np.int64], tree: WordTree) -> NDArray[np.int64]:
    """`ranks` as Darknet's `classifier valid` has them of a tree: its leaves, of the label set or not, by absolute
    probability, and all inner nodes behind them (`hierarchy_predictions` with only_leaves). A truth that is an inner
    node is never right.

    Args:
        log_probs: float [rows, nodes], log Pr(node).
        truths: int64 [rows].
        tree: of the nodes.
    """
    leaf = tree.group_below < 0
    return ranks(np.where(leaf, log_probs, np.finfo(log_probs.dtype).min), truths)


def among(found: NDArray[np.int64], ks: Sequence[int] = (1, 5)) -> dict[int, float]:
    """The share of ranks below each k; NaN of no rows."""
    return {k: float((found < k).mean()) if len(found) else math.nan for k in ks}


# ---------------------------------------------------------------------- Open Images


def openimages_curve(
    found: Found, truths: Truths, node: int, judged: NDArray[np.bool_] | None = None, iou: float = 0.5
) -> Curve:
    """Precision and recall of one class, as the Open Images challenge counts them.

    Detections are matched to single objects as VOC's are. One that finds none, and half of which lies in a group of its
    class, belongs to the group that holds most of it: the likeliest of a group is right, the others count neither way.
    A group is one truth. In an image that was not verified for the class a detection counts neither way. Give expanded
    truths and, for descents, expanded detections: `Truths.expanded`, `Found.expanded`.

    Args:
        found, truths: detections and objects; `truths.groups` says which are groups.
        node: the class.
        judged: bool [images]: which images were verified for it, present or absent; all where left out.
        iou: from which on a detection belongs to an object, and the share of it that has to lie in a group.
    """
    mine = found.at(found.nodes == node)
    if judged is not None:
        mine = mine.at(judged[mine.image])
    mine = mine.at(np.argsort(-mine.scores, kind="stable"))
    there = truths.at((truths.nodes == node) & (~truths.ignored | truths.groups))
    single, groups = there.at(~there.groups), there.at(there.groups)
    best = _best(mine, single, iou)
    first = _first(best, best >= 0)
    row, at, _, inside = pairs(mine.image, mine.boxes, groups.image, groups.boxes)
    most = np.full(len(best), -1)
    order = np.lexsort((-at, inside, row))
    most[row[order]] = np.where(inside[order] >= iou, at[order], -1)
    grouped = (most >= 0) & (best < 0)
    first_of_group = _first(most, grouped)
    counted = ~grouped | first_of_group
    right = (first | first_of_group)[counted]
    hits, misses = right.cumsum(), (~right).cumsum()
    count = len(single.image) + len(groups.image)
    recall = hits / count if count else np.full(len(hits), np.nan)
    return Curve(recall, hits / np.maximum(hits + misses, 1), count)


def _first(owner: NDArray[np.int64], rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """bool: the first of the rows that each owner has; rows are by falling score."""
    first = np.zeros(len(owner), dtype=bool)
    some = np.flatnonzero(rows)
    first[some[np.unique(owner[some], return_index=True)[1]]] = True
    return first


# ---------------------------------------------------------------------- files that servers take


def write_coco_results(path: Path, found: Found, ids: Sequence[str], numbers: Mapping[int, int]) -> Path:
    """Detections as COCO's server takes them: image_id, category_id, bbox as left, top, width, height, score.

    Args:
        path: the .json.
        found: the detections.
        ids: the data set's own id of each image.
        numbers: node -> the data set's own category id.

    Raises:
        WordTreeError: an image id that is no number, or a node that has none.
    """
    lost = sorted(set(found.nodes.tolist()) - set(numbers))
    if lost or not all(ids[image].isdecimal() for image in np.unique(found.image).tolist()):
        raise WordTreeError(
            f"no COCO ids for nodes {lost[:12]} or images such as {next(iter(ids), '')!r}; give COCO's own"
        )
    rows = [
        {"image_id": int(ids[image]), "category_id": numbers[node], "bbox": box, "score": score}
        for image, node, box, score in zip(
            found.image.tolist(), found.nodes.tolist(), _xywh(found.boxes).round(3).tolist(),
            found.scores.round(6).tolist(), strict=True,
        )
    ]  # fmt: skip
    write_text(path, json.dumps(rows))
    return path


def write_voc_results(
    folder: Path,
    found: Found,
    ids: Sequence[str],
    labels: LabelMap,
    tree: WordTree,
    split: str = "test",
    competition: str = "comp4",
) -> list[Path]:
    """Detections as VOC's server takes them: comp4_det_test_CLASS.txt, a row `image score left top right bottom`.

    Corners count from 1 and belong to the box, as VOC's own.

    Args:
        folder: where the files go.
        found: the detections.
        ids: the name of each image.
        labels: the classes; one file each, empty where nothing was found.
        tree: the tree of the nodes.
        split: in the files' names.
        competition: "comp4", trained on any data, ImageNet among it; "comp3", on VOC's alone.

    Raises:
        WordTreeError: another competition.
    """
    if competition not in ("comp3", "comp4"):
        raise unknown("competition of VOC's detection", competition, ("comp3", "comp4"))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for label, node in zip(labels.labels, labels.nodes_on(tree).tolist(), strict=True):
        mine = found.at(found.nodes == node)
        corners = mine.boxes + [1.0, 1.0, 0.0, 0.0]
        rows = [
            f"{ids[image]} {score:.6f} {' '.join(f'{side:.6f}' for side in box)}\n"
            for image, score, box in zip(mine.image.tolist(), mine.scores.tolist(), corners.tolist(), strict=True)
        ]
        written.append(folder / f"{competition}_det_{split}_{label}.txt")
        write_text(written[-1], "".join(rows))
    return written


def write_imagenet_results(path: Path, found: Found, labels: LabelMap, tree: WordTree) -> Path:
    """Detections as ImageNet DET's server takes them: a row `image class score xmin ymin xmax ymax`.

    Images and classes are numbers from 1: an image's place in the data set, which has to be the whole list in its
    order, and a class's place in the label map (`imagenet_det` and `inet9k` are in the order of the challenge).

    Args:
        path: the .txt.
        found: the detections.
        labels: the classes in the challenge's order.
        tree: the tree of the nodes.
    """
    number = {node: at for at, node in enumerate(labels.nodes_on(tree).tolist(), 1)}
    rows = [
        f"{image + 1} {number[node]} {score:.6f} {' '.join(f'{side:.2f}' for side in box)}\n"
        for image, node, score, box in zip(
            found.image.tolist(), found.nodes.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True
        )
        if node in number
    ]
    write_text(path, "".join(rows))
    return path
