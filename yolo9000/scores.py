"""The data sets' own scores: VOC's average precision in both forms, COCO's through pycocotools, top-k of names.

All take detections and truths as tables over all images (`Found`, `Truths`), classes as nodes. Boxes are in continuous
pixels: VOC's own corners, which count from 1 and belong to the box, are one larger on the left and above.
"""

import contextlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from wordtree import LabelMap, WordTree, WordTreeError
from wordtree.metrics import expand_detections

from .files import whole, write_text

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


@dataclass(frozen=True)
class Truths:
    """Objects of a data set, a row each; `crowd` and `ignored` (difficult, or a group) are bool, `areas` pixels."""

    image: NDArray[np.int64]
    boxes: NDArray[np.float64]
    nodes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    areas: NDArray[np.float64]

    def at(self, rows: Any) -> "Truths":
        """Some rows."""
        return Truths(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def expanded(self, tree: WordTree, nodes: Sequence[int]) -> "Truths":
        """Each object once for each of `nodes` that it is or that stands above it, as Open Images evaluates."""
        evaluated = np.zeros(len(tree), dtype=bool)
        evaluated[list(nodes)] = True
        rows, at = expand_detections(self.nodes, tree, evaluated)
        some = self.at(rows)
        return Truths(some.image, some.boxes, at, some.crowd, some.ignored, some.areas)


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
    first = np.zeros(len(hit), dtype=bool)
    rows = np.flatnonzero(hit & ~aside)
    first[rows[np.unique(best[rows], return_index=True)[1]]] = True  # rows are by falling score
    right, wrong = first[~aside].cumsum(), (~first[~aside]).cumsum()
    count = int((~ignored).sum())
    recall = right / count if count else np.full(len(right), np.nan)
    return Curve(recall, right / np.maximum(right + wrong, 1), count)


def _best(found: Found, truths: Truths, iou: float) -> NDArray[np.int64]:
    """The truth of its image that each detection overlaps most, where that is `iou` or more; else -1."""
    best, most = np.full(len(found.image), -1), np.zeros(len(found.image))
    by_image = np.argsort(truths.image, kind="stable")
    starts = np.searchsorted(truths.image[by_image], found.image, side="left")
    counts = np.searchsorted(truths.image[by_image], found.image, side="right") - starts
    for step in range(int(counts.max(initial=0))):  # as many steps as an image has truths; each step all detections
        rows = np.flatnonzero(counts > step)
        at = by_image[starts[rows] + step]
        a, b = found.boxes[rows], truths.boxes[at]
        side = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
        both = side.prod(1)
        union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - both
        overlap = both / np.maximum(union, 1e-12)
        better = overlap > most[rows]
        most[rows[better]], best[rows[better]] = overlap[better], at[better]
    best[most < iou] = -1
    return best


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


# ---------------------------------------------------------------------- COCO


def coco_evaluation(found: Found, truths: Truths, images: int, nodes: Iterable[int]) -> COCOeval:
    """pycocotools' own evaluation of boxes, accumulated; its `stats` are `COCO_FIGURES`, -1 where there is no truth.

    Args:
        found, truths: detections and objects.
        images: how many images there are.
        nodes: the classes.
    """
    categories = sorted({int(node) for node in nodes})
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(images)],
        "categories": [{"id": category} for category in categories],
        "annotations": [
            {"id": number, "image_id": image, "category_id": node, "bbox": box, "area": area, "iscrowd": int(crowd),
             "ignore": int(crowd)}
            for number, (image, node, box, area, crowd) in enumerate(
                zip(
                    truths.image.tolist(), truths.nodes.tolist(), _xywh(truths.boxes).tolist(), truths.areas.tolist(),
                    (truths.crowd | truths.ignored).tolist(), strict=True,
                ), 1,
            )
        ],
    }  # fmt: skip
    rows = np.column_stack((found.image, _xywh(found.boxes), found.scores, found.nodes)).astype(np.float64)
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
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
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


def top_k(scores: ArrayLike, truths: ArrayLike, nodes: Sequence[int], ks: Sequence[int] = (1, 5)) -> dict[int, float]:
    """The share of rows whose truth is among the k likeliest of the label set's nodes, as a flat classifier is scored.

    A tree has more nodes than the label set has classes, and some classes may be inner nodes of it (119 of ImageNet's
    1000): ranked are the label set's nodes, by Pr(node), whether leaves or not.

    Args:
        scores: float [rows, nodes of the tree], Pr(node) or its logarithm.
        truths: int [rows], nodes.
        nodes: the label set's.
        ks: which k.

    Raises:
        WordTreeError: truths that are not among the nodes.

    Example:
        >>> top_k([[0.9, 0.5, 0.4], [0.9, 0.2, 0.7]], [1, 1], nodes=[1, 2], ks=(1, 2))
        {1: 0.5, 2: 1.0}
    """
    wanted = np.unique(np.asarray(nodes, dtype=np.int64))
    given, truth = np.asarray(scores)[:, wanted], np.asarray(truths)
    if not np.isin(truth, wanted).all():
        lost = sorted(set(truth.tolist()) - set(wanted.tolist()))
        raise WordTreeError(
            f"truths {lost[:12]} are none of the {len(wanted)} nodes ranked; give the truths' label set"
        )
    own = given[np.arange(len(truth)), np.searchsorted(wanted, truth)][:, None]
    above = (given > own).sum(1)  # of a tie the truth counts as the first, as in torch.topk of one of them
    return {k: float((above < k).mean()) if len(truth) else math.nan for k in ks}


# ---------------------------------------------------------------------- files that servers take, and plots


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
    folder: Path, found: Found, ids: Sequence[str], labels: LabelMap, tree: WordTree, split: str = "test"
) -> list[Path]:
    """Detections as VOC's server takes them: comp4_det_test_CLASS.txt, a row `image score left top right bottom`.

    Corners count from 1, as VOC's own.

    Args:
        folder: where the files go.
        found: the detections.
        ids: the name of each image.
        labels: the classes; one file each, empty where nothing was found.
        tree: the tree of the nodes.
        split: in the files' names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for label, node in zip(labels.labels, labels.nodes_on(tree).tolist(), strict=True):
        mine = found.at(found.nodes == node)
        corners = mine.boxes + [1.0, 1.0, 0.0, 0.0]
        rows = [
            f"{ids[image]} {score:.6f} {' '.join(f'{side:.6f}' for side in box)}\n"
            for image, score, box in zip(mine.image.tolist(), mine.scores.tolist(), corners.tolist(), strict=True)
        ]
        write_text(folder / f"comp4_det_{split}_{label}.txt", "".join(rows))
        written.append(folder / f"comp4_det_{split}_{label}.txt")
    return written


def plot_precision_recall(path: Path, curves: Mapping[str, Curve]) -> Path:
    """Precision over recall at IoU .5, a line a class, the ten best and worst named; the mean on top."""
    from matplotlib.figure import Figure

    shown = {name: curve for name, curve in curves.items() if curve.truths}
    ranked = sorted(shown, key=lambda name: -voc_area(shown[name]))
    named = {*ranked[:5], *ranked[-5:]}
    grid = np.linspace(0, 1, 101)
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    best = []
    for name in ranked:
        curve = shown[name]
        falling = [curve.precision[curve.recall >= point].max(initial=0.0) for point in grid]
        best.append(falling)
        label = f"{name} {voc_area(curve):.2f}" if name in named else None
        axes.plot(grid, falling, alpha=0.7 if name in named else 0.15, linewidth=1, label=label)
    if best:
        axes.plot(grid, np.mean(best, axis=0), color="black", linewidth=2, label=f"mean of {len(best)}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="precision over recall, IoU .5")
    if best:
        axes.legend(fontsize="small", loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        figure.savefig(part, dpi=110)
    return path
