"""AP and class-agnostic recall of pictures in memory, through pycocotools.

A truth counts for its ancestors when an ancestor is evaluated; see `looking` for the scores.
"""

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torch.utils.data import Dataset

from wordtree import WordTree

from .borrowed import AnyDetector
from .hardware import home_of
from .looking import Named, Scored, name_boxes, score_nodes, see
from .scores import Found, Truths, coco_by_class, coco_counted
from .timing import wait


class Truth(NamedTuple):
    """The objects of one image."""

    boxes: Tensor  # float [n, 4] xyxy pixels
    nodes: Tensor  # int64 [n]


class Looked(NamedTuple):
    """What a model said of a data set of boxes, image by image, and what is there."""

    found: list[Scored]
    truths: list[Truth]
    named: list[Named]  # of what is asked for
    seconds: float  # of the model, without reading, and without a first batch
    images: int  # in that time


@torch.no_grad()
def look_through(
    model: AnyDetector,
    data: Dataset[tuple[Tensor, dict[str, Tensor]]],
    label_nodes: np.ndarray,
    nodes: Sequence[int],
    batch: int = 32,
    tick: object = None,
    naming: bool = False,
) -> Looked:
    """Run a model over a data set of uint8 images and boxes, whose labels `label_nodes` [labels] takes to nodes. Each
    image is laid on the model's input as the model lays it.

    naming: also say what each box would be called, `name_boxes`.
    """
    device = home_of(model)
    found: list[Scored] = []
    truths: list[Truth] = []
    named: list[Named] = []
    seconds, timed = 0.0, 0
    table = torch.as_tensor(label_nodes)
    for first in range(0, len(data), batch):  # type: ignore[arg-type]
        items = [data[at] for at in range(first, min(first + batch, len(data)))]  # type: ignore[arg-type]
        images = [image.to(device).float() / 255 for image, _ in items]  # a stack would keep its size
        if naming and not first:
            score_nodes(model, images, nodes)  # the first pass of a network is slower, and is not counted
        began = time.monotonic()
        seen = see(model, images)
        scored = score_nodes(model, images, nodes, seen)
        wait(device)
        seconds, timed = seconds + time.monotonic() - began, timed + len(items)
        found += [Scored(*(part.cpu() for part in one)) for one in scored]
        truths += [Truth(target["boxes"], table[target["labels"]]) for _, target in items]
        if naming:
            named += name_boxes(model, images, seen)
        if callable(tick):
            tick(len(items))
    return Looked(found, truths, named, seconds, timed)


def as_tables(looked: Looked) -> tuple[Found, Truths]:
    """Lists of images as tables."""
    found, truths = looked.found, looked.truths
    boxes = torch.cat([torch.zeros(0, 4), *(one.boxes for one in truths)]).double().numpy()
    no = np.zeros(len(boxes), dtype=bool)
    none = torch.zeros(0, dtype=torch.int64)
    return Found(
        np.repeat(np.arange(len(found)), [len(one.scores) for one in found]),
        torch.cat([torch.zeros(0, 4), *(one.boxes for one in found)]).double().numpy(),
        torch.cat([none, *(one.nodes for one in found)]).numpy(),
        torch.cat([torch.zeros(0), *(one.scores for one in found)]).double().numpy(),
    ), Truths(
        np.repeat(np.arange(len(truths)), [len(one.boxes) for one in truths]),
        boxes,
        torch.cat([none, *(one.nodes for one in truths)]).numpy(),
        no,
        no,
        (boxes[:, 2:] - boxes[:, :2]).prod(1),
    )


def average_precision(
    found: Sequence[Scored], truths: Sequence[Truth], nodes: Sequence[int], tree: WordTree
) -> dict[int, float]:
    """AP at IoU .5 (COCO's 101 points) of each node, NaN where it has no truth; ancestors get credit."""
    marks: np.ndarray = tree.propagate(np.arange(len(tree)))  # marks[i, j]: j is i or above it
    rows = [
        (image, box, node)
        for image, truth in enumerate(truths)
        for box, label in zip(truth.boxes.tolist(), truth.nodes.tolist(), strict=True)
        for node in nodes
        if marks[label, node]
    ]
    detections = [
        np.concatenate(
            (np.full((len(one.boxes), 1), image), _xywh(one.boxes), _column(one.scores), _column(one.nodes)), axis=1
        )
        for image, one in enumerate(found)
    ]
    return coco_by_class(_coco(rows, detections, len(found), nodes, use_categories=True, most=100))


def class_agnostic_recall(
    found: Sequence[Scored], truths: Sequence[Truth], wanted: Iterable[int], tree: WordTree, most: int = 10
) -> float:
    """The share of truths under `wanted` that one of the `most` likeliest boxes covers by IoU .5, names apart."""
    under = np.asarray(tree.propagate(np.arange(len(tree)))[:, list(wanted)].any(1))  # [nodes]
    rows = [
        (image, box, 1)
        for image, truth in enumerate(truths)
        for box, label in zip(truth.boxes.tolist(), truth.nodes.tolist(), strict=True)
        if under[label]
    ]
    detections = [
        np.concatenate(
            (
                np.full((len(one.any_boxes), 1), image),
                _xywh(one.any_boxes),
                _column(one.any_scores),
                np.ones((len(one.any_boxes), 1)),
            ),
            axis=1,
        )
        for image, one in enumerate(found)
    ]
    if not rows:
        return float("nan")
    return float(_coco(rows, detections, len(found), [1], use_categories=False, most=most).eval["recall"][0, 0, 0, 0])


def _coco(
    rows: list[tuple[int, list[float], int]],
    detections: list[np.ndarray],
    images: int,
    categories: Sequence[int],
    use_categories: bool,
    most: int,
) -> COCOeval:
    annotations = [
        {
            "image_id": image,
            "category_id": node,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "area": (box[2] - box[0]) * (box[3] - box[1]),
            "iscrowd": 0,
        }
        for image, box, node in rows
    ]
    stacked = np.concatenate(detections) if detections else np.zeros((0, 7))
    return coco_counted(
        annotations, stacked, images, categories, iouThrs=np.array([0.5]), maxDets=[most], areaRng=[[0, 1e10]],
        areaRngLbl=["all"], useCats=int(use_categories),
    )  # fmt: skip


def _xywh(boxes: Tensor) -> np.ndarray:
    return torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), dim=1).double().numpy()


def _column(values: Tensor) -> np.ndarray:
    return values.double().numpy()[:, None]
