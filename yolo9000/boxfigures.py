"""The figures of a source with boxes: as VOC, COCO and Open Images score them, of the descent, and of the confusion."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from wordtree import LabelMap, WordTree

from .borrowed import AnyDetector
from .charts import plot_precision_recall
from .confusion import Answers, confuse, match
from .data.records import CROWD, DIFFICULT, GROUP, Records
from .looking import Said, run_through
from .official import official_maps, official_tree
from .reports import Progress
from .resultfiles import folder_of, leave_classes, leave_confusion, leave_results, titled
from .scores import (
    Found,
    Split,
    Truths,
    coco_by_class,
    coco_evaluation,
    coco_figures,
    mean,
    openimages_curve,
    split_by_boxes,
    voc_area,
    voc_curve,
    voc_eleven,
    worst_and_best,
)
from .task import Task, batches, descent_of


def figures_of_boxes(
    model: AnyDetector, records: Records, labels: LabelMap, boxed: list[int], name: str, kind: str, task: Task
) -> dict[str, float]:
    """Every figure of a source with boxes, by name, and its files; docs/evaluation.md says what each is.

    Args:
        model, records: the detector, and the source's pictures that have boxes.
        labels: the source's label map.
        boxed: nodes that a training source has boxes of, for the split; none for no split.
        name, kind: of the source.
        task: where files and plots go, thresholds, and the bar.
    """
    tree = model.tree
    nodes = sorted(set(labels.nodes_on(tree).tolist()))
    (found, _, answers, images, seconds), truths = score_boxes(model, records, nodes, task.processes, task.bar)
    evaluation = coco_evaluation(found, truths, len(records), nodes)
    by_class = coco_by_class(evaluation)
    curves = {node: voc_curve(found, truths, node) for node in nodes}
    figures = coco_figures(evaluation)
    figures["voc"] = mean([voc_area(curve) for curve in curves.values()])
    figures["voc07"] = mean([voc_eleven(curve) for curve in curves.values()])
    expanded = truths.expanded(tree, nodes)
    if len(expanded.image) > len(truths.image):
        more = coco_by_class(coco_evaluation(found, expanded, len(records), nodes))
        figures["expanded/AP50"] = mean(list(more.values()))
    if len(tree.group_start) > 1:
        figures |= _of_descent(model, answers, truths, nodes, task)
    if truths.groups.any() or records.judged is not None:
        figures["openimages"] = _open_images(records, found, expanded, nodes)
    part = split_by_boxes(nodes, boxed, tree) if boxed else None
    if part is not None:
        figures |= _of_split(part, by_class, boxed, tree, name, task)
    figures["images_per_second"] = images / seconds if seconds else math.nan
    figures |= confused(model, answers, truths, name, task)
    if task.out is not None:
        out = folder_of(task.out, name)
        leave_results(out, records, labels, found, tree, kind)
        leave_classes(out, evaluation, curves, part, tree)
        plot_precision_recall(out / "precision_recall.png", titled(curves, tree))
    return figures


def _of_descent(model: AnyDetector, answers: Answers, truths: Truths, nodes: list[int], task: Task) -> dict[str, float]:
    """AP of what the model answers, an answer and a truth counting for all above them too: over the data set's classes,
    and over the nodes above these."""
    tree = model.tree
    said, probs = answers.said(*descent_of(model, task))
    found = Found(answers.image, answers.boxes, said, answers.objectness * probs)
    marks: np.ndarray = np.asarray(tree.propagate(np.array(nodes, dtype=np.int64)).any(0))
    marks[nodes] = False
    above = np.flatnonzero(marks).tolist()
    figures = {}
    for name, some in (("descent/voc", nodes), ("descent/above/voc", above)):
        expanded, there = found.expanded(tree, some), truths.expanded(tree, some)
        if some:
            figures[name] = mean([voc_area(voc_curve(expanded, there, node)) for node in some])
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
    return mean([voc_area(curve) for curve in curves])


def _of_split(
    part: Split, by_class: dict[int, float], boxed: list[int], tree: WordTree, name: str, task: Task
) -> dict[str, float]:
    """AP of the classes that training had boxes of, and of those that it had none of, and what to say of them."""
    nodes = [*part.shared, *part.never_boxed]
    related = split_by_boxes(nodes, boxed, tree, related=True)
    figures: dict[str, float] = {}
    for kind, some in part._asdict().items():
        figures |= {f"{kind}/classes": float(len(some)), f"{kind}/AP50": mean([by_class[node] for node in some])}
    if related.never_boxed != part.never_boxed:
        figures["no_boxed_relative/classes"] = float(len(related.never_boxed))
        figures["no_boxed_relative/AP50"] = mean([by_class[node] for node in related.never_boxed])
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


def confused(model: AnyDetector, answers: Answers, truths: Truths, name: str, task: Task) -> dict[str, float]:
    """The confusion of boxes along the tree, and the operating curve of the boxes that took an object."""
    tree_threshold, rule = descent_of(model, task)
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


def score_boxes(
    model: AnyDetector, records: Records, nodes: Sequence[int], processes: int = 0, bar: Progress | None = None
) -> tuple[Said, Truths]:
    """`run_through` a data set with boxes, and what is there. nodes, processes, bar: as `run_through` and `Task`."""
    sizes: list[tuple[int, int]] = []  # width and height of each

    def shown() -> Iterator[list[Tensor]]:
        for _, images in batches(records, processes, bar, f"testing {records.name} at {model.size}"):
            sizes.extend((image.shape[2], image.shape[1]) for image in images)
            yield images

    said = run_through(model, shown(), nodes)
    return said, _truths(records, sizes)


def _truths(records: Records, sizes: Sequence[tuple[int, int]]) -> Truths:
    rows: list[tuple[Any, Any, Any, Any]] = []
    for at, size in enumerate(sizes):
        boxes, labels, flags, _ = records.record(at, *size)
        span = slice(records.starts[at], records.starts[at + 1])
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) if records.areas is None else records.areas[span]
        rows.append((boxes, labels, flags, areas))
    flags = np.concatenate([np.zeros(0, np.uint8), *(some for _, _, some, _ in rows)])
    return Truths(
        np.repeat(np.arange(len(rows)), [len(some) for some, *_ in rows]),
        np.concatenate([np.zeros((0, 4)), *(some for some, *_ in rows)]),
        np.concatenate([np.zeros(0, np.int64), *(some for _, some, *_ in rows)]),
        (flags & CROWD) > 0,
        (flags & (DIFFICULT | GROUP)) > 0,
        np.concatenate([np.zeros(0), *(some for *_, some in rows)]),
        (flags & GROUP) > 0,
    )
