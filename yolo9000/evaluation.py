"""How well it boxes and names: AP and class-agnostic recall through pycocotools, and the table that a run prints.

The evaluator's space is the data set's labels as nodes: a box's score for a node is objectness x Pr(node), without
descent; a truth counts for its ancestors when an ancestor is evaluated.
"""

import contextlib
import io
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.ops import batched_nms, nms

from wordtree import WordTree, WordTreeError
from wordtree.nn import descend

from .borrowed import Borrowed
from .detector import Detector
from .head import Region
from .images import Placement, place_back
from .region import decode_xyxy
from .timing import machine, wait

SCORE_THRESHOLD = 0.005  # Darknet's validation threshold
NMS_IOU = 0.45
MOST = 300  # boxes an image that are scored
PLACES = 100  # boxes an image that are named


class Scored(NamedTuple):
    """The boxes of one image in the evaluator's space: for named AP, and by objectness alone for recall."""

    boxes: Tensor  # float [n, 4] xyxy pixels
    nodes: Tensor  # int64 [n]
    scores: Tensor  # float [n]
    any_boxes: Tensor  # float [m, 4] after suppression whatever the class
    any_scores: Tensor  # float [m]


class Named(NamedTuple):
    """The boxes of one image, one a place whatever they are called, and the way down the tree of each."""

    boxes: Tensor  # float [n, 4] xyxy pixels, by falling objectness
    objectness: Tensor  # float [n]
    path: Tensor  # int64 [n, depth]: the likeliest child at each step, down to a leaf; -1 past the end
    probs: Tensor  # float [n, depth]: Pr of each step; 0 past the end


class Seen(NamedTuple):
    """What the network says of a batch, read more than once."""

    region: Region
    placed: list[Placement]


class Truth(NamedTuple):
    """The objects of one image."""

    boxes: Tensor  # float [n, 4] xyxy pixels
    nodes: Tensor  # int64 [n]


@torch.no_grad()
def see(model: Detector | Borrowed, images: Tensor | Sequence[Tensor]) -> Seen | None:
    """One pass of the network, for `score_nodes` and `name_boxes`; None of a plug-in's, which passes for each."""
    if isinstance(model, Borrowed):
        return None
    batch, placed = model.place(images)
    return Seen(model.region(batch), placed)


@torch.no_grad()
def score_nodes(
    model: Detector | Borrowed, images: Tensor | Sequence[Tensor], nodes: Sequence[int], seen: Seen | None = None
) -> list[Scored]:
    """Score every box for each of `nodes`. images: float [b, 3, h, w] in 0..1, or [3, h, w] each; seen: of them."""
    at = torch.tensor(list(nodes), device=_device(model))
    if isinstance(model, Borrowed):
        theirs = model.score_nodes(images, nodes, SCORE_THRESHOLD)
        return [_suppressed(boxes, objectness, objectness[:, None] * probs, at) for boxes, objectness, probs in theirs]
    region, placed = seen or cast(Seen, see(model, images))
    objectness = region.raw[..., 4].sigmoid()
    keep = (objectness > SCORE_THRESHOLD).nonzero(as_tuple=True)
    boxes = decode_xyxy(region.raw, model.head.anchors, model.head.location)[keep]
    probs = model.head.classes.log_probs_of(region.features[keep[:3]].float(), nodes, keep[3]).exp()
    scores = objectness[keep][:, None] * probs  # [kept, nodes]
    return [
        _suppressed(place_back(boxes[mine], placement), objectness[keep][mine], scores[mine], at)
        for mine, placement in ((keep[0] == image, placement) for image, placement in enumerate(placed))
    ]


@torch.no_grad()
def name_boxes(model: Detector | Borrowed, images: Tensor | Sequence[Tensor], seen: Seen | None = None) -> list[Named]:
    """The boxes of images, suppressed by objectness alone so that no name decides whether a box is there; and their
    ways down the tree, of which a tree threshold cuts the end off."""
    if isinstance(model, Borrowed):
        named = []
        for image in images:  # one at a time: Pr of every node of every box
            ((boxes, objectness, probs),) = model.score_nodes([image], range(len(model.tree)), SCORE_THRESHOLD)
            kept = nms(boxes, objectness, NMS_IOU)[:PLACES]
            named.append(Named(boxes[kept], objectness[kept], *way_down(probs[kept].log(), model.tree)))
        return named
    region, placed = seen or cast(Seen, see(model, images))
    sure = region.raw[..., 4].sigmoid()
    keep = (sure > SCORE_THRESHOLD).nonzero(as_tuple=True)
    boxes = decode_xyxy(region.raw, model.head.anchors, model.head.location)[keep]
    objectness = sure[keep]
    named = []
    for image, placement in enumerate(placed):
        mine = (keep[0] == image).nonzero()[:, 0]
        there = place_back(boxes[mine], placement)
        kept = nms(there, objectness[mine], NMS_IOU)[:PLACES]
        at = mine[kept]
        cells = region.features[keep[0][at], keep[1][at], keep[2][at]]
        log_probs = model.head.classes.log_probs(cells, keep[3][at])
        named.append(Named(there[kept], objectness[at], *way_down(log_probs, model.tree)))
    return named


def way_down(log_probs: Tensor, tree: WordTree) -> tuple[Tensor, Tensor]:
    """The likeliest child at each step from the root, and Pr of each: log Pr, float [n, nodes] -> int64 [n, depth],
    -1 past the end, and float [n, depth], 0 there."""
    ends, _ = descend(log_probs.clamp(min=-1e4), tree, 0.0)  # finite where a detector tells one path alone
    depths, parents = (torch.from_numpy(column.copy()).to(ends.device) for column in (tree.depths, tree.parents))
    path = ends.new_full((len(ends), int(tree.depths.max()) + 1), -1)
    row = torch.arange(len(ends), device=ends.device)
    while len(row):  # one step up at a time
        path[row, depths[ends]] = ends
        ends = parents[ends]
        row, ends = row[ends >= 0], ends[ends >= 0]
    probs = log_probs.gather(1, path.clamp(min=0)).exp().masked_fill(path < 0, 0.0)
    return path.masked_fill(probs == 0, -1), probs


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


class Looked(NamedTuple):
    """What a model said of a data set of boxes, image by image, and what is there."""

    found: list[Scored]
    truths: list[Truth]
    named: list[Named]  # of what is asked for
    seconds: float  # of the model, without reading, and without a first batch
    images: int  # in that time


@torch.no_grad()
def look_through(
    model: Detector | Borrowed,
    data: Dataset[tuple[Tensor, dict[str, Tensor]]],
    label_nodes: np.ndarray,
    nodes: Sequence[int],
    batch: int = 32,
    tick: object = None,
    naming: bool = False,
) -> Looked:
    """Run a model over a data set of uint8 images and boxes, whose labels `label_nodes` [labels] takes to nodes.

    naming: also say what each box would be called, `name_boxes`.
    """
    device = _device(model)
    found: list[Scored] = []
    truths: list[Truth] = []
    named: list[Named] = []
    seconds, timed = 0.0, 0
    table = torch.as_tensor(label_nodes)
    for first in range(0, len(data), batch):  # type: ignore[arg-type]
        items = [data[at] for at in range(first, min(first + batch, len(data)))]  # type: ignore[arg-type]
        images = torch.stack([image for image, _ in items]).to(device).float() / 255
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


def score_data(
    model: Detector | Borrowed,
    data: Dataset[tuple[Tensor, dict[str, Tensor]]],
    label_nodes: np.ndarray,
    nodes: Sequence[int],
    batch: int = 32,
    tick: object = None,
) -> tuple[list[Scored], list[Truth]]:
    """What `look_through` found and what is there."""
    looked = look_through(model, data, label_nodes, nodes, batch, tick)
    return looked.found, looked.truths


class Report(NamedTuple):
    """An evaluation: every figure by name, lines for a person to read, and the table as text."""

    metrics: dict[str, float]
    notes: list[str]
    table: str


def evaluate(
    weights: str | Path | None = None,
    data: str | Path = "embedded",
    scenes: int = 300,
    device: str = "auto",
    progress: bool = True,
    sizes: Sequence[int] = (),
    out: str | Path | None = None,
    **options: Any,
) -> dict[str, float]:
    """Every figure of the table for one set of weights: "unseen/fine_under_boxed/mAP50", ..., or "source/AP50", ...

    Args:
        weights: a run's folder or weights file, Darknet's .weights; the shipped checkpoint where left out.
        data: "embedded", the set that ships, or a run.yaml, whose test sources are scored (`measure.evaluate_run`).
        scenes: a column of the table of the embedded set.
        device: "auto", "cpu" or "cuda".
        progress: show a progress bar.
        sizes: pixels of the input, one after the other; the model's own where left out.
        out: a folder for the figures, result files and plots; nothing is written where left out.
        options: of `evaluate_report`.

    Raises:
        WordTreeError: weights that do not load or know another tree; an unknown data set; no test source; a size that
            the model does not take.
    """
    return evaluate_report(weights, data, scenes, device, progress, sizes, out, **options).metrics


def evaluate_report(
    weights: str | Path | None = None,
    data: str | Path = "embedded",
    scenes: int = 300,
    device: str = "auto",
    progress: bool = True,
    sizes: Sequence[int] = (),
    out: str | Path | None = None,
    *,
    cfg: str | Path | None = None,
    tree: str | Path | None = None,
    names: str | Path | None = None,
    mode: str = "paper",
    threshold: float | None = None,
    tree_threshold: float | None = None,
) -> Report:
    """`evaluate`, with what a person should read beside the figures; docs/evaluation.md tells all of it.

    Args:
        weights, data, scenes, device, progress, sizes, out: as `evaluate`.
        cfg, tree, names, mode: as `yolo9000.load`.
        threshold, tree_threshold: of the confusion along the tree and of the descent; the model's own where left out.
    """
    from .hardware import device_of, processes_of
    from .loading import load, load_detector
    from .measure import Task, check_sizes, evaluate_run, evaluate_scenes, figures_table, write_report
    from .reports import Progress, metrics_table
    from .runfile import run_of

    for name, value in (("threshold", threshold), ("tree_threshold", tree_threshold)):
        if value is not None and not 0 <= value <= 1:
            raise WordTreeError(f"a {name} of {value}; it is a probability, 0 to 1")
    folder = None if out is None else Path(out)
    run = None if str(data) == "embedded" else run_of(data)
    if run is None and scenes < 1:
        raise WordTreeError(f"{scenes} scenes; an evaluation takes 1 or more")
    given = (weights, cfg, tree, names, mode)
    network = (load_detector if run is None else load)(*given).to(device_of(device)).eval()
    with Progress(enabled=progress) as bar:
        task = Task(folder, processes_of(-1), threshold, tree_threshold, bar)
        if run is None:
            check_sizes(network, sizes)
            metrics = evaluate_scenes(network, scenes, sizes, task)  # type: ignore[arg-type]
        else:
            metrics = evaluate_run(network, run, sizes, task=task)
    text = metrics_table(metrics) if run is None and len(sizes) < 2 else figures_table(metrics)
    task.notes.append(machine(_device(network)))
    report = Report(metrics, task.notes, text)
    if folder is not None:
        write_report(folder, report, {"weights": str(weights or "shipped"), "data": str(data), "mode": mode})
    return report


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
