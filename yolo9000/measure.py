"""The figures of the test sources of a run.yaml: boxes scored as VOC and COCO score them, names by top-1 and top-5."""

import csv
import io
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wordtree import LabelMap, WordTree, WordTreeError, __version__

from .borrowed import Borrowed
from .charts import plot_confusion, plot_operating_points, plot_precision_recall, plot_sizes
from .confusion import MISSED, Answers, Confusion, confuse, match, operating_points, write_points
from .data.augment import AUGMENTATIONS, classifier_view, stream
from .data.records import CROWD, DIFFICULT, GROUP, Records
from .detector import Detector
from .evaluation import SCORE_THRESHOLD, Looked, Named, Report, Seen, name_boxes, score_nodes, see, way_down
from .files import write_text
from .hardware import as_worker
from .models import Network, TreeClassifier
from .official import official_maps, official_tree
from .reports import Progress, evaluate_embedded
from .runfile import RunFile, Source
from .scores import (
    Curve,
    Found,
    Split,
    Truths,
    among,
    coco_by_class,
    coco_evaluation,
    coco_figures,
    darknet_ranks,
    openimages_curve,
    ranks,
    split_by_boxes,
    voc_area,
    voc_curve,
    voc_eleven,
    worst_and_best,
    write_coco_results,
    write_imagenet_results,
    write_voc_results,
)
from .timing import machine, wait

BATCH = 16


class Scored(NamedTuple):
    """What a model said of a data set's boxes, and what is there."""

    found: Found
    truths: Truths
    answers: Answers
    seconds: float  # of the model, without reading and decoding, and without a first batch
    images: int  # in that time


@dataclass(frozen=True)
class Task:
    """What an evaluation is asked for, beside the model and the run.

    Attributes:
        out: a folder for result files, plots and the classes' figures; nothing is written where None.
        processes: how many read pictures.
        threshold, tree_threshold: of the confusion along the tree and the descent; the model's own where None.
        bar: a progress bar.
        notes: lines for a person to read are added here.
    """

    out: Path | None = None
    processes: int = 0
    threshold: float | None = None
    tree_threshold: float | None = None
    bar: Progress | None = None
    notes: list[str] = field(default_factory=list)


def evaluate_run(
    model: Network,
    run: RunFile,
    sizes: Sequence[int] = (),
    out: Path | None = None,
    processes: int = 0,
    bar: Progress | None = None,
    task: Task | None = None,
) -> dict[str, float]:
    """Every figure of the test sources of a run; docs/evaluation.md says what each is.

    Boxes: COCO's twelve figures, "voc" and "voc07" (AP at IoU .5 by area and by eleven points, mean over classes with
    truths); "expanded/AP50" where classes stand above one another; "descent/voc" and "descent/above/voc", of answers
    with ancestor credit; "openimages" where there are groups or verified image labels; "shared/AP50" and
    "never_boxed/AP50" where a training source has boxes; "images_per_second" of the model, without reading. Names:
    "top1", "top5", and the same over "leaves/" and by "darknet/". Both: "called/exact" and its kin, of the confusion.

    Args:
        model: a detector, or a classifier for sources of names; the sources' labels are on its tree.
        run: the run file.
        sizes: pixels of the input, several for a table of speed and accuracy; the model's own where left out.
        out, processes, bar: see `Task`.
        task: these and more in one.

    Returns:
        {"source/figure": value}, or "source@size/figure" of several sizes.

    Raises:
        WordTreeError: no test source, a source that does not read, labels that are not on the tree, a size that the
            model cannot take.
    """
    task = task or Task(out, processes, bar=bar)
    sources = run.used("test")
    if not sources:
        raise WordTreeError(f"{run.path} has no source to test on; give one with `use: test`")
    check_sizes(model, sizes)
    boxed = _boxed_nodes(run, model.tree)
    if not run.used("train") and model.tree == official_tree():
        boxed = sorted(set(official_maps()["coco9k"].nodes_on(model.tree).tolist()))
    metrics: dict[str, float] = {}
    own = model.size
    try:
        for source in sources:
            labels = labels_on(source, model.tree)
            records = source.read(labels, model.tree).raise_faults(source.skip)
            speeds: dict[int, tuple[float, float]] = {}
            for size in sizes or (own,):
                model.size = size
                name = source.name if len(sizes) < 2 else f"{source.name}@{size}"
                figures = _figures(model, records, labels, boxed, name, source.kind, task)
                metrics |= {f"{name}/{figure}": value for figure, value in figures.items()}
                if "voc" in figures:
                    speeds[size] = figures["images_per_second"], figures["voc"]
            if len(speeds) > 1 and task.out is not None:
                about = machine(_device(model))
                plot_sizes(task.out / f"{source.name}-speed.png", speeds, "mAP at IoU .5 (VOC)", about)
    finally:
        model.size = own
    return metrics


def check_sizes(model: Network, sizes: Sequence[int]) -> None:
    """Refuse sizes of the input that the model cannot take."""
    if sizes and isinstance(model, Borrowed):
        raise WordTreeError(
            f"sizes {list(sizes)} for {model.name}, a plug-in's, built for {model.size}; leave them out"
        )
    for size in sizes:
        if size < model.trunk.stride or size % model.trunk.stride:
            raise WordTreeError(f"a size of {size} pixels; this trunk takes multiples of {model.trunk.stride}")


def labels_on(source: Source, tree: WordTree) -> LabelMap:
    """A source's label map, on the tree of a model. Of a flat model, as Darknet's of VOC, the labels' names do as well.

    Raises:
        WordTreeError: labels that are not on the tree.
    """
    labels = source.own_labels()
    if not set(labels.ids) <= set(tree.ids) and set(labels.labels) <= set(tree.ids):
        return LabelMap(labels.name, labels.labels, labels.labels, labels.numbers)
    try:
        labels.nodes_on(tree)
    except WordTreeError as fault:
        raise WordTreeError(
            f"{source.use} source {source.name!r} with this model: {fault}; or take weights that learnt these labels"
        ) from None
    return labels


def _figures(
    model: Network, records: Records, labels: LabelMap, boxed: list[int], name: str, kind: str, task: Task
) -> dict[str, float]:
    nodes = sorted(set(labels.nodes_on(model.tree).tolist()))
    figures: dict[str, float] = {}
    named = np.flatnonzero(records.labelled)
    if len(named):
        some = records if len(named) == len(records) else records.take(named)
        figures |= _of_names(model, some, nodes, name if len(named) == len(records) else f"{name}-names", task)
    if len(named) == len(records):
        return figures
    if isinstance(model, TreeClassifier):
        raise WordTreeError(f"a classifier's weights for the boxes of {records.name!r}; give a detector's")
    some = records.take(np.flatnonzero(~records.labelled)) if len(named) else records
    return figures | _of_boxes(model, some, labels, boxed, name, kind, task)


def _of_boxes(
    model: Detector, records: Records, labels: LabelMap, boxed: list[int], name: str, kind: str, task: Task
) -> dict[str, float]:
    tree = model.tree
    nodes = sorted(set(labels.nodes_on(tree).tolist()))
    found, truths, answers, seconds, images = score_boxes(model, records, nodes, task.processes, task.bar)
    evaluation = coco_evaluation(found, truths, len(records), nodes)
    by_class = coco_by_class(evaluation)
    curves = {node: voc_curve(found, truths, node) for node in nodes}
    figures = coco_figures(evaluation)
    figures["voc"] = _mean([voc_area(curve) for curve in curves.values()])
    figures["voc07"] = _mean([voc_eleven(curve) for curve in curves.values()])
    expanded = truths.expanded(tree, nodes)
    if len(expanded.image) > len(truths.image):
        more = coco_by_class(coco_evaluation(found, expanded, len(records), nodes))
        figures["expanded/AP50"] = _mean(list(more.values()))
    if len(tree.group_start) > 1:
        figures |= _of_descent(model, answers, truths, nodes, task)
    if truths.groups.any() or records.judged is not None:
        figures["openimages"] = _open_images(records, found, expanded, nodes)
    part = split_by_boxes(nodes, boxed, tree) if boxed else None
    if part is not None:
        figures |= _of_split(part, by_class, boxed, tree, name, task)
    figures["images_per_second"] = images / seconds if seconds else math.nan
    figures |= _confused(model, answers, truths, name, task)
    if task.out is not None:
        out = _folder(task.out, name)
        _leave(out, records, labels, found, tree, kind)
        _leave_classes(out, evaluation, curves, part, tree)
        plot_precision_recall(out / "precision_recall.png", _titled(curves, tree))
    return figures


def _of_descent(model: Detector, answers: Answers, truths: Truths, nodes: list[int], task: Task) -> dict[str, float]:
    """AP of what the model answers, an answer and a truth counting for all above them too: over the data set's classes,
    and over the nodes above these."""
    tree = model.tree
    said, probs = answers.said(*_descent(model, task))
    found = Found(answers.image, answers.boxes, said, answers.objectness * probs)
    marks: np.ndarray = np.asarray(tree.propagate(np.array(nodes, dtype=np.int64)).any(0))
    marks[nodes] = False
    above = np.flatnonzero(marks).tolist()
    figures = {}
    for name, some in (("descent/voc", nodes), ("descent/above/voc", above)):
        expanded, there = found.expanded(tree, some), truths.expanded(tree, some)
        if some:
            figures[name] = _mean([voc_area(voc_curve(expanded, there, node)) for node in some])
    return figures


def _open_images(records: Records, found: Found, expanded: Truths, nodes: list[int]) -> float:
    """The mean of the Open Images challenge's AP over classes with truths."""
    curves = []
    for node in nodes:
        judged = None
        if records.judged is not None:
            starts, at = records.judged
            image = np.repeat(np.arange(len(records)), np.diff(starts))
            judged = np.isin(np.arange(len(records)), image[at == node])
        curves.append(openimages_curve(found, expanded, node, judged))
    return _mean([voc_area(curve) for curve in curves])


def _of_split(
    part: Split, by_class: dict[int, float], boxed: list[int], tree: WordTree, name: str, task: Task
) -> dict[str, float]:
    """AP of the classes that training had boxes of, and of those that it had none of, and what to say of them."""
    nodes = [*part.shared, *part.never_boxed]
    related = split_by_boxes(nodes, boxed, tree, related=True)
    figures: dict[str, float] = {}
    for kind, some in part._asdict().items():
        figures |= {f"{kind}/classes": float(len(some)), f"{kind}/AP50": _mean([by_class[node] for node in some])}
    if related.never_boxed != part.never_boxed:
        figures["no_boxed_relative/classes"] = float(len(related.never_boxed))
        figures["no_boxed_relative/AP50"] = _mean([by_class[node] for node in related.never_boxed])
    told = (
        f"{name}: {len(part.shared)} of {len(nodes)} classes had boxes in training, {len(related.shared)} with those "
        "above or below one that had"
    )
    if tree == official_tree() and set(nodes) == set(official_maps()["inet9k"].nodes_on(tree).tolist()):
        told += "; the paper says 44 shared and 156 never boxed, from a list that was not published"
    task.notes.append(told)
    lost = {node: by_class[node] for node in part.never_boxed}
    if any(not math.isnan(value) for value in lost.values()):
        task.notes.append(f"{name}, never boxed:\n" + worst_and_best(lost, tree))
    return figures


def _confused(model: Detector, answers: Answers, truths: Truths, name: str, task: Task) -> dict[str, float]:
    """The confusion of boxes along the tree, and the operating curve of the boxes that took an object."""
    tree_threshold, rule = _descent(model, task)
    threshold = model.threshold if task.threshold is None else task.threshold
    product = getattr(model, "score", "product") == "product"
    confusion = confuse(answers, truths, model.tree, threshold, tree_threshold, rule, product)
    task.notes.append(f"{name}: {confusion.summary(0 if '@' in name else 8)}")
    if task.out is not None:
        some = answers.at(answers.objectness > threshold)
        taken = match(some, some.objectness, truths).truth
        some, nodes = some.at(taken >= 0), truths.nodes[taken[taken >= 0]]
        leave_confusion(task.out, name, confusion, some, nodes, rule, f"{name}: {len(nodes)} objects with a box")
    return confusion.figures()


def leave_confusion(
    out: Path, name: str, confusion: Confusion, answers: Answers, truths: np.ndarray, rule: str, title: str
) -> None:
    """confusion.csv, .json and .png, operating_curve.csv and .png in the folder of a source."""
    folder = _folder(out, name)
    confusion.write(folder)
    plot_confusion(folder / "confusion.png", confusion, f"{name}: what truths were called")
    points = operating_points(answers, truths, confusion.tree, rule)
    write_points(folder / "operating_curve.csv", points)
    plot_operating_points(folder / "operating_curve.png", points, title, confusion.settings["tree_threshold"])


def _descent(model: Network, task: Task) -> tuple[float, str]:
    """The tree threshold and the rule; a flat model has no descent, and names its likeliest class."""
    if len(model.tree.group_start) == 1:
        return 0.0, "path"
    own = getattr(model, "tree_threshold", 0.5)
    return own if task.tree_threshold is None else task.tree_threshold, getattr(model, "rule", "path")


def score_boxes(
    model: Detector, records: Records, nodes: Sequence[int], processes: int = 0, bar: Progress | None = None
) -> Scored:
    """Run a model over a data set with boxes, each image laid on the model's input as the model lays it.

    Returns:
        detections (objectness x Pr(node) of each of `nodes`, above .005, suppressed node by node), truths, what the
        boxes would be called, and seconds.
    """
    parts: list[tuple[int, Any]] = []
    named: list[Any] = []
    rows: list[tuple[int, Any, Any, Any, Any]] = []
    seconds, timed = 0.0, 0
    for first, images in _batches(records, processes, bar, f"testing {records.name} at {model.size}"):
        batch = [image.to(_device(model)).float() / 255 for image in images]
        if not first:
            score_nodes(model, batch, nodes)  # the first pass of a network is slower, and is not counted
        began = time.monotonic()
        seen = see(model, batch)
        results = score_nodes(model, batch, nodes, seen)
        wait(_device(model))
        seconds, timed = seconds + time.monotonic() - began, timed + len(batch)
        parts += [(first + at, one) for at, one in enumerate(results)]
        named += [(first + at, one) for at, one in enumerate(name_boxes(model, batch, seen))]
        for at, image in enumerate(images, first):
            boxes, labels, flags, _ = records.record(at, image.shape[2], image.shape[1])
            span = slice(records.starts[at], records.starts[at + 1])
            areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) if records.areas is None else records.areas[span]
            rows.append((at, boxes, labels, flags, areas))
    image = np.repeat([at for at, _ in parts], [len(one.scores) for _, one in parts]).astype(np.int64)
    flags = np.concatenate([np.zeros(0, np.uint8), *(some for _, _, _, some, _ in rows)])
    return Scored(
        Found(
            image,
            np.concatenate([np.zeros((0, 4)), *(one.boxes.double().cpu().numpy() for _, one in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(one.nodes.cpu().numpy() for _, one in parts)]),
            np.concatenate([np.zeros(0), *(one.scores.double().cpu().numpy() for _, one in parts)]),
        ),
        Truths(
            np.repeat([at for at, *_ in rows], [len(some) for _, some, *_ in rows]).astype(np.int64),
            np.concatenate([np.zeros((0, 4)), *(some for _, some, *_ in rows)]),
            np.concatenate([np.zeros(0, np.int64), *(some for _, _, some, *_ in rows)]),
            (flags & CROWD) > 0,
            (flags & (DIFFICULT | GROUP)) > 0,
            np.concatenate([np.zeros(0), *(some for *_, some in rows)]),
            (flags & GROUP) > 0,
        ),
        gather(named, model.tree),
        seconds,
        timed,
    )


def gather(named: Sequence[tuple[int, Named]], tree: WordTree) -> Answers:
    """The boxes of images as one table."""
    depth = int(tree.depths.max()) + 1
    columns = [part.cpu() for _, one in named for part in one]
    boxes, objectness, path, probs = (columns[at::4] for at in range(4))
    return Answers(
        np.repeat([at for at, _ in named], [len(one) for one in boxes]).astype(np.int64),
        torch.cat([torch.zeros(0, 4), *boxes]).double().numpy(),
        torch.cat([torch.zeros(0), *objectness]).double().numpy(),
        torch.cat([torch.zeros(0, depth, dtype=torch.int64), *path]).numpy(),
        torch.cat([torch.zeros(0, depth), *probs]).double().numpy(),
    )


# ---------------------------------------------------------------------- names


def _of_names(model: Network, records: Records, nodes: list[int], name: str, task: Task) -> dict[str, float]:
    """Top-1 and top-5 over the label set's nodes and over its leaves alone, of a classifier also as Darknet has them;
    and the confusion along the tree."""
    tree = model.tree
    truths = records.nodes[records.starts[:-1]]
    columns = np.searchsorted(nodes, truths)
    leaves = np.array([node for node in nodes if tree.group_below[node] < 0], dtype=np.int64)
    leaf = tree.group_below[truths] < 0
    found: dict[str, list[np.ndarray]] = {"": [], "leaves/": [], "darknet/": []}
    parts: list[Named] = []
    for first, images in _batches(records, task.processes, task.bar, f"testing {records.name} at {model.size}"):
        at = slice(first, first + len(images))
        log_probs, named = _name_images(model, images, nodes)
        own = log_probs[:, nodes] if isinstance(model, TreeClassifier) else log_probs
        found[""].append(ranks(own, columns[at]))
        some = np.isin(nodes, leaves)
        place = np.searchsorted(leaves, truths[at][leaf[at]])
        found["leaves/"].append(ranks(own[leaf[at]][:, some], place))
        if isinstance(model, TreeClassifier):
            found["darknet/"].append(darknet_ranks(log_probs, truths[at], tree))
        parts += named
    figures: dict[str, float] = {}
    inner = len(nodes) - len(leaves)
    for kind, some_ranks in found.items():
        if some_ranks:
            figures |= {f"{kind}top{k}": value for k, value in among(np.concatenate(some_ranks)).items()}
    if inner:
        told = (
            f"{name}: {inner} of {len(nodes)} classes are inner nodes of the tree; leaves/ scores the pictures of the "
        )
        told += f"others, {int(leaf.sum())} of {len(leaf)}, among themselves"
        darknet = "; darknet/ takes no answer for an inner node" if isinstance(model, TreeClassifier) else ""
        task.notes.append(told + darknet)
    return figures | _confused_names(model, parts, truths, name, task)


@torch.no_grad()
def _name_images(model: Network, images: Sequence[Tensor], nodes: Sequence[int]) -> tuple[np.ndarray, list[Named]]:
    """log Pr of every node, float64 [images, nodes of the tree], of a classifier; of a detector of each of `nodes`,
    -inf where it found no box. And the way down of each picture: of a detector that of its surest box."""
    if isinstance(model, TreeClassifier):
        log_probs = model(_views(model, images))
        path, probs = way_down(log_probs, model.tree)
        whole = torch.zeros(1, 4), torch.ones(1)
        named = [Named(*whole, path[at : at + 1], probs[at : at + 1]) for at in range(len(images))]
        return log_probs.double().cpu().numpy(), named
    batch = [image.to(_device(model)).float() / 255 for image in images]
    seen = see(model, batch)
    with np.errstate(divide="ignore"):
        scores = np.log(_best_scores(model, batch, nodes, seen))
    return scores, [Named(*(part[:1] for part in one)) for one in name_boxes(model, batch, seen)]


def _confused_names(
    model: Network, parts: Sequence[Named], truths: np.ndarray, name: str, task: Task
) -> dict[str, float]:
    tree_threshold, rule = _descent(model, task)
    threshold = 0.0
    if not isinstance(model, TreeClassifier):
        threshold = model.threshold if task.threshold is None else task.threshold
    answers = gather(list(enumerate(parts)), model.tree)
    said, probs = answers.said(tree_threshold, rule)
    product = getattr(model, "score", "product") == "product"
    sure = answers.objectness * (probs if product else 1.0) > threshold
    called = np.full(len(truths), MISSED)
    called[answers.image[sure]] = said[sure]
    nothing = np.zeros(0, np.int64)
    settings = {"threshold": threshold, "tree_threshold": tree_threshold}
    confusion = Confusion(model.tree, truths, called, nothing, nothing, settings)
    task.notes.append(f"{name}: {confusion.summary(0 if '@' in name else 8, 'pictures')}")
    if task.out is not None:
        title = f"{name}: {len(answers.image)} pictures"
        leave_confusion(task.out, name, confusion, answers, truths[answers.image], rule, title)
    return confusion.figures()


def score_names(
    model: Network, records: Records, nodes: Sequence[int], processes: int = 0, bar: Progress | None = None
) -> np.ndarray:
    """float64 [images, len(nodes)]: Pr(node) of a classifier, which sees the middle square of the picture; of a
    detector, for each node the largest objectness x Pr(node) of an image's boxes."""
    found = []
    for _, images in _batches(records, processes, bar, f"testing {records.name} at {model.size}"):
        log_probs, _ = _name_images(model, images, nodes)
        found.append(np.exp(log_probs[:, list(nodes)] if isinstance(model, TreeClassifier) else log_probs))
    return np.concatenate(found)


def _views(model: TreeClassifier, images: Sequence[Tensor]) -> Tensor:
    """The middle squares of pictures on a classifier's input."""
    views = [classifier_view(image, model.size, AUGMENTATIONS["none"], stream(0)) for image in images]
    return torch.stack(views).to(_device(model)).float() / 255


def _best_scores(
    model: Detector | Borrowed, images: Sequence[Tensor], nodes: Sequence[int], seen: Seen | None
) -> np.ndarray:
    """float64 [images, len(nodes)]: the largest objectness x Pr(node) of each image's boxes, 0 where there is none."""
    if isinstance(model, Borrowed) or seen is None:
        theirs = model.score_nodes(images, nodes, SCORE_THRESHOLD)  # type: ignore[operator]
        none = torch.zeros(1, len(nodes), device=_device(model))  # for an image without a box
        most = [torch.cat((none, each[:, None] * probs)).amax(0) for _, each, probs in theirs]
        return torch.stack(most).double().cpu().numpy()
    region = seen.region
    objectness = region.raw[..., 4].sigmoid()
    keep = (objectness > SCORE_THRESHOLD).nonzero(as_tuple=True)
    probs = model.head.classes.log_probs_of(region.features[keep[:3]].float(), nodes, keep[3]).exp()
    scores = objectness[keep][:, None] * probs
    at = keep[0][:, None].expand_as(scores)
    best = torch.zeros(len(images), len(nodes), dtype=scores.dtype, device=scores.device)
    return best.scatter_reduce(0, at, scores, "amax").double().cpu().numpy()


# ---------------------------------------------------------------------- reading


class _Images(Dataset[Tensor]):
    def __init__(self, records: Records) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Tensor:
        return self.records.image(index)


def _batches(records: Records, processes: int, bar: Progress | None, title: str) -> Any:
    """The images of a data set, uint8 [3, h, w] each, several at a time, with the number of the first."""
    if bar is not None:
        bar.start(title, total=len(records))
    loader: DataLoader[Any] = DataLoader(
        _Images(records), BATCH, num_workers=processes, collate_fn=list, worker_init_fn=as_worker
    )
    first = 0
    for images in loader:
        yield first, images
        first += len(images)
        if bar is not None:
            bar.advance(steps=len(images))


# ---------------------------------------------------------------------- the embedded set


def evaluate_scenes(model: Detector, scenes: int, sizes: Sequence[int], task: Task) -> dict[str, float]:
    """The figures of the embedded set, `reports.evaluate_embedded`; of several sizes as "column@size/figure" with
    "column@size/images_per_second". Confusion, operating curve and precision-recall as for a run's sources."""
    metrics: dict[str, float] = {}
    speeds: dict[str, dict[int, tuple[float, float]]] = {}
    for size in sizes or (model.size,):

        def keep(column: str, looked: Looked, nodes: Sequence[int], size: int = size) -> None:
            name = column if len(sizes) < 2 else f"{column}@{size}"
            found, truths = _tables(looked, model.tree)
            answers = gather(list(enumerate(looked.named)), model.tree)
            _confused(model, answers, truths, name, task)
            curves = {node: voc_curve(found, truths.expanded(model.tree, nodes), node) for node in nodes}
            rate = looked.images / looked.seconds if looked.seconds else math.nan
            speeds.setdefault(column, {})[size] = rate, _mean([voc_area(curve) for curve in curves.values()])
            if len(sizes) > 1:
                metrics[f"{name}/images_per_second"] = rate
            if task.out is not None:
                path = _folder(task.out, name) / "precision_recall.png"
                plot_precision_recall(path, _titled(curves, model.tree))

        figures = evaluate_embedded(model, scenes, size, task.bar or Progress(False), keep=keep)
        if len(sizes) > 1:
            figures = {name.replace("/", f"@{size}/", 1): value for name, value in figures.items()}
        metrics.update(figures)
    for column, points in speeds.items():
        if len(points) > 1 and task.out is not None:
            about = machine(_device(model))
            plot_sizes(task.out / f"{column}-speed.png", points, "mAP at IoU .5 (VOC)", about)
    return metrics


def _tables(looked: Looked, tree: WordTree) -> tuple[Found, Truths]:
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


# ---------------------------------------------------------------------- what is left in the folder


def _titled(curves: dict[int, Curve], tree: WordTree) -> dict[str, Curve]:
    """Curves by name, with the id where two nodes have one."""
    names = [tree.names[node] for node in curves]
    return {
        name if names.count(name) == 1 else f"{name} {tree.ids[node]}": curve
        for name, (node, curve) in zip(names, curves.items(), strict=True)
    }


def _folder(out: Path, name: str) -> Path:
    folder = out / name.replace("@", "-")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _leave(out: Path, records: Records, labels: LabelMap, found: Found, tree: WordTree, kind: str) -> None:
    """Result files as the servers take them."""
    ids = list(records.ids)
    if all(id_.isdecimal() for id_ in ids):
        write_coco_results(out / "results.json", found, ids, records.numbers)
    if kind == "imagenet-det":
        write_imagenet_results(out / "det.txt", found, labels, tree)
    write_voc_results(out / "voc", found, [Path(id_).stem for id_ in ids], labels, tree)


def _leave_classes(out: Path, evaluation: Any, curves: dict[int, Curve], part: Split | None, tree: WordTree) -> None:
    """classes.csv, each class's figures, and worst_and_best.txt."""
    by_class = coco_by_class(evaluation)
    shared = set(part.shared) if part else set()
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["id", "name", "truths", "boxed", "AP50", "AP75", "voc", "voc07"])
    strict = coco_by_class(evaluation, 5)
    for node, value in by_class.items():
        values = (value, strict[node], voc_area(curves[node]), voc_eleven(curves[node]))
        told = ["" if math.isnan(one) else f"{one:.4f}" for one in values]
        known = "" if part is None else "yes" if node in shared else "no"
        writer.writerow([tree.ids[node], tree.names[node], curves[node].truths, known, *told])
    write_text(out / "classes.csv", table.getvalue())
    text = worst_and_best(by_class, tree)
    if part is not None and part.never_boxed:
        lost = {node: by_class[node] for node in part.never_boxed}
        text += f"\n\nof the {len(lost)} classes that training had no boxes of:\n{worst_and_best(lost, tree)}"
    write_text(out / "worst_and_best.txt", text + "\n")


BOX_KINDS = ("coco", "lvis", "voc", "imagenet-det", "yolo", "openimages", "darknet")


def _boxed_nodes(run: RunFile, tree: WordTree) -> list[int]:
    """The nodes that a training source of a kind with boxes names."""
    given: list[Source] = [source for source in run.used("train") if source.kind in BOX_KINDS]
    return sorted({int(node) for source in given for node in labels_on(source, tree).nodes_on(tree)})


def _device(model: Network | Borrowed) -> torch.device:
    return next(model.parameters()).device


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def write_report(folder: Path, report: Report, about: dict[str, str]) -> None:
    """evaluation.json: every figure, null where there is none, the notes, and what was evaluated on what."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {name: None if math.isnan(value) else value for name, value in report.metrics.items()}  # JSON has no NaN
    record = {**about, "version": __version__, "figures": figures, "notes": report.notes}
    write_text(folder / "evaluation.json", json.dumps(record, indent=1) + "\n")


def figures_table(metrics: dict[str, float]) -> str:
    """The figures as text: a row a figure, a column a source."""
    sources = list(dict.fromkeys(name.split("/", 1)[0] for name in metrics))
    rows = list(dict.fromkeys(name.split("/", 1)[1] for name in metrics if "/" in name))
    width = max(map(len, sources), default=0) + 2
    first = max(map(len, rows), default=0) + 1
    lines = [f"{'':{first}}" + "".join(f"{source:>{width}}" for source in sources)]
    for row in rows:
        cells = [metrics.get(f"{source}/{row}") for source in sources]
        digits = 0 if row.endswith("/classes") else 3
        told = ["" if cell is None else "-" if math.isnan(cell) else f"{cell:.{digits}f}" for cell in cells]
        lines.append(f"{row:{first}}" + "".join(f"{cell:>{width}}" for cell in told))
    return "\n".join(lines)
