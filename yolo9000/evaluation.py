"""How well it boxes and names: AP and class-agnostic recall through pycocotools, and the table that a run prints.

The evaluator's space is the data set's labels as nodes: a box's score for a node is objectness x Pr(node), without
descent; a truth counts for its ancestors when an ancestor is evaluated.
"""

import contextlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.ops import batched_nms, nms

from wordtree import WordTree, WordTreeError

from .borrowed import Borrowed
from .detector import Detector
from .images import place_back
from .region import decode_xyxy

SCORE_THRESHOLD = 0.005  # Darknet's validation threshold
NMS_IOU = 0.45
MOST = 300  # boxes an image that are scored


class Scored(NamedTuple):
    """The boxes of one image in the evaluator's space: for named AP, and by objectness alone for recall."""

    boxes: Tensor  # float [n, 4] xyxy pixels
    nodes: Tensor  # int64 [n]
    scores: Tensor  # float [n]
    any_boxes: Tensor  # float [m, 4] after suppression whatever the class
    any_scores: Tensor  # float [m]


class Truth(NamedTuple):
    """The objects of one image."""

    boxes: Tensor  # float [n, 4] xyxy pixels
    nodes: Tensor  # int64 [n]


@torch.no_grad()
def score_nodes(model: Detector | Borrowed, images: Tensor | Sequence[Tensor], nodes: Sequence[int]) -> list[Scored]:
    """Score every box for each of `nodes`. images: float [b, 3, h, w] in 0..1, or [3, h, w] each."""
    at = torch.tensor(list(nodes), device=_device(model))
    if isinstance(model, Borrowed):
        theirs = model.score_nodes(images, nodes, SCORE_THRESHOLD)
        return [_suppressed(boxes, objectness, objectness[:, None] * probs, at) for boxes, objectness, probs in theirs]
    batch, placed = model.place(images)
    region = model.region(batch)
    objectness = region.raw[..., 4].sigmoid()
    keep = (objectness > SCORE_THRESHOLD).nonzero(as_tuple=True)
    boxes = decode_xyxy(region.raw, model.head.anchors, model.head.location)[keep]
    probs = model.head.classes.log_probs_of(region.features[keep[:3]].float(), nodes, keep[3]).exp()
    scores = objectness[keep][:, None] * probs  # [kept, nodes]
    return [
        _suppressed(place_back(boxes[mine], placement), objectness[keep][mine], scores[mine], at)
        for mine, placement in ((keep[0] == image, placement) for image, placement in enumerate(placed))
    ]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _suppressed(boxes: Tensor, objectness: Tensor, scores: Tensor, nodes: Tensor) -> Scored:
    row, column = (scores > SCORE_THRESHOLD).nonzero(as_tuple=True)
    values = scores[row, column]
    kept = batched_nms(boxes[row], values, column, NMS_IOU)[:MOST]
    anything = nms(boxes, objectness, NMS_IOU)[:MOST]
    return Scored(boxes[row[kept]], nodes[column[kept]], values[kept], boxes[anything], objectness[anything])


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
    result = _coco(rows, detections, len(found), list(nodes), use_categories=True, most=100)
    precision = result.eval["precision"][0, :, :, 0, 0]  # [recall points, nodes]
    order = sorted(nodes)
    values = [precision[:, column] for column in range(len(order))]
    return {
        node: float(value.mean()) if (value > -1).any() else float("nan")
        for node, value in zip(order, values, strict=True)
    }


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


@torch.no_grad()
def score_data(
    model: Detector,
    data: Dataset[tuple[Tensor, dict[str, Tensor]]],
    label_nodes: np.ndarray,
    nodes: Sequence[int],
    batch: int = 32,
    tick: object = None,
) -> tuple[list[Scored], list[Truth]]:
    """Run a model over a data set of uint8 images and boxes, whose labels `label_nodes` [labels] takes to nodes."""
    device = _device(model)
    found: list[Scored] = []
    truths: list[Truth] = []
    table = torch.as_tensor(label_nodes)
    for first in range(0, len(data), batch):  # type: ignore[arg-type]
        items = [data[at] for at in range(first, min(first + batch, len(data)))]  # type: ignore[arg-type]
        images = torch.stack([image for image, _ in items]).to(device).float() / 255
        found += [Scored(*(part.cpu() for part in one)) for one in score_nodes(model, images, nodes)]
        truths += [Truth(target["boxes"], table[target["labels"]]) for _, target in items]
        if callable(tick):
            tick(len(items))
    return found, truths


def evaluate(
    weights: str | Path | None = None,
    data: str | Path = "embedded",
    scenes: int = 300,
    device: str = "auto",
    progress: bool = True,
    sizes: Sequence[int] = (),
    out: str | Path | None = None,
) -> dict[str, float]:
    """Every figure of the table for one set of weights: "unseen/fine_under_boxed/mAP50", ..., or "source/AP50", ...

    Args:
        weights: a run's folder or weights file; the shipped checkpoint where left out.
        data: "embedded", the set that ships, or a run.yaml, whose test sources are scored (`measure.evaluate_run`).
        scenes: a column of the table of the embedded set.
        device: "auto", "cpu" or "cuda".
        progress: show a progress bar.
        sizes: of a run.yaml, pixels of the input, one after the other; the model's own where left out.
        out: of a run.yaml, a folder for result files and plots.

    Raises:
        WordTreeError: weights that do not load or know another tree; an unknown data set.
    """
    from .hardware import device_of, processes_of
    from .loading import load, load_detector
    from .measure import evaluate_run
    from .reports import Progress, evaluate_embedded
    from .runfile import run_of

    if str(data) != "embedded":
        run = run_of(data)
        network = load(weights).to(device_of(device)).eval()
        with Progress(enabled=progress) as bar:
            return evaluate_run(network, run, sizes, None if out is None else Path(out), processes_of(-1), bar)
    if sizes or out is not None:
        raise WordTreeError("sizes or a folder for the embedded set; they are for the test sources of a run.yaml")
    if scenes < 1:
        raise WordTreeError(f"{scenes} scenes; an evaluation takes 1 or more")
    model = load_detector(weights).to(device_of(device))
    with Progress(enabled=progress) as bar:
        return evaluate_embedded(model, scenes, model.size, bar)


def _coco(
    rows: list[tuple[int, list[float], int]],
    detections: list[np.ndarray],
    images: int,
    categories: list[int],
    use_categories: bool,
    most: int,
) -> COCOeval:
    truth = COCO()
    truth.dataset = {
        "images": [{"id": image} for image in range(images)],
        "categories": [{"id": category} for category in categories],
        "annotations": [
            {
                "id": number + 1,
                "image_id": image,
                "category_id": node,
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "area": (box[2] - box[0]) * (box[3] - box[1]),
                "iscrowd": 0,
            }
            for number, (image, box, node) in enumerate(rows)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
        truth.createIndex()
        stacked = np.concatenate(detections) if detections else np.zeros((0, 7))
        if len(stacked):
            result = truth.loadRes(stacked)
        else:
            result = COCO()
            result.dataset = {**truth.dataset, "annotations": []}
            result.createIndex()
        evaluation = COCOeval(truth, result, "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.maxDets = [most]
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.params.catIds = sorted(categories)
        evaluation.params.useCats = int(use_categories)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _xywh(boxes: Tensor) -> np.ndarray:
    return torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), dim=1).double().numpy()


def _column(values: Tensor) -> np.ndarray:
    return values.double().numpy()[:, None]
