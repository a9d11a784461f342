"""Every figure of a run's test sources, and of the embedded set: which are boxes, which are names, at which sizes."""

import math
from collections.abc import Sequence

import numpy as np

from wordtree import LabelMap, WordTree, WordTreeError

from .borrowed import AnyDetector, Borrowed
from .boxfigures import confused, figures_of_boxes
from .charts import plot_precision_recall, plot_sizes
from .data.records import Records
from .hardware import home_of
from .looking import Said
from .models import Network, TreeClassifier
from .namefigures import figures_of_names
from .official import official_maps, official_tree
from .reports import Progress, evaluate_embedded
from .resultfiles import folder_of, titled
from .runfile import RunFile, Source
from .scores import Truths, mean, voc_area, voc_curve
from .task import Task
from .timing import machine

BOX_KINDS = ("coco", "lvis", "voc", "imagenet-det", "yolo", "openimages")
EITHER = ("darknet", "shards")  # kinds with boxes or image labels


def evaluate_run(
    model: Network,
    run: RunFile,
    sizes: Sequence[int] = (),
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
        task: a folder for files, a progress bar and more; nothing is written where left out.

    Returns:
        {"source/figure": value}, or "source@size/figure" of several sizes.

    Raises:
        WordTreeError: no test source, a source that does not read, labels that are not on the tree, a size that the
            model cannot take.
    """
    task = task or Task()
    sources = run.used("test")
    if not sources:
        raise WordTreeError(f"{run.path} has no source to test on; give one with `use: test`")
    check_sizes(model, sizes)
    boxed = _boxed_nodes(run, model.tree, task)
    if not run.used("train") and model.tree == official_tree():
        boxed = sorted(set(official_maps()["coco9k"].nodes_on(model.tree).tolist()))
    metrics: dict[str, float] = {}
    maps = [labels_on(source, model.tree) for source in sources]  # what is wrong is told before anything is written
    read = [
        source.read(labels, model.tree).raise_faults(source.skip) for source, labels in zip(sources, maps, strict=True)
    ]
    own = model.size
    try:
        for source, labels, records in zip(sources, maps, read, strict=True):
            speeds: dict[int, tuple[float, float]] = {}
            for size in sizes or (own,):
                model.size = size
                name = source.name if len(sizes) < 2 else f"{source.name}@{size}"
                figures = _figures(model, records, labels, boxed, name, source.kind, task)
                metrics |= {f"{name}/{figure}": value for figure, value in figures.items()}
                if "voc" in figures:
                    speeds[size] = figures["images_per_second"], figures["voc"]
            if len(speeds) > 1 and task.out is not None:
                about = machine(home_of(model))
                plot_sizes(task.out / f"{source.name}-speed.png", speeds, "mAP at IoU .5 (VOC)", about)
    finally:
        model.size = own
    return metrics


def check_sizes(model: Network, sizes: Sequence[int]) -> None:
    """Refuse sizes of the input that the model cannot take."""
    if sizes and isinstance(model, Borrowed):
        raise WordTreeError(f"sizes {list(sizes)} for {model.name}, built for {model.size}; leave them out")
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
        figures |= figures_of_names(model, some, nodes, name if len(named) == len(records) else f"{name}-names", task)
    if len(named) == len(records):
        return figures
    if isinstance(model, TreeClassifier):
        raise WordTreeError(f"a classifier's weights for the boxes of {records.name!r}; give a detector's")
    some = records.take(np.flatnonzero(~records.labelled)) if len(named) else records
    return figures | figures_of_boxes(model, some, labels, boxed, name, kind, task)


def _boxed_nodes(run: RunFile, tree: WordTree, task: Task) -> list[int]:
    """The nodes that a training source names and has boxes of.

    One of a kind that may hold either boxes or image labels is read. A source that is not there, or whose labels are
    not on the tree, is left out with a note.
    """
    given: set[int] = set()
    for source in run.used("train"):
        try:
            labels = labels_on(source, tree)
            if source.kind in BOX_KINDS:
                given.update(labels.nodes_on(tree).tolist())
            elif source.kind in EITHER:
                records = source.read(labels, tree)
                given.update(records.nodes[np.repeat(~records.labelled, np.diff(records.starts))].tolist())
        except (WordTreeError, OSError) as fault:
            task.notes.append(f"{source.name}: not counted among the sources with boxes ({fault})")
    return sorted(given)


def evaluate_scenes(model: AnyDetector, scenes: int, sizes: Sequence[int], task: Task) -> dict[str, float]:
    """The figures of the embedded set, `reports.evaluate_embedded`; of several sizes as "column@size/figure" with
    "column@size/images_per_second". Confusion, operating curve and precision-recall as for a run's sources."""
    metrics: dict[str, float] = {}
    speeds: dict[str, dict[int, tuple[float, float]]] = {}
    own = model.size
    for size in sizes or (own,):

        def keep(column: str, said: Said, truths: Truths, nodes: Sequence[int], size: int = size) -> None:
            name = column if len(sizes) < 2 else f"{column}@{size}"
            confused(model, said.answers, truths, name, task)
            curves = {node: voc_curve(said.found, truths.expanded(model.tree, nodes), node) for node in nodes}
            rate = said.images / said.seconds if said.seconds else math.nan
            speeds.setdefault(column, {})[size] = rate, mean([voc_area(curve) for curve in curves.values()])
            if len(sizes) > 1:
                metrics[f"{name}/images_per_second"] = rate
            if task.out is not None:
                path = folder_of(task.out, name) / "precision_recall.png"
                plot_precision_recall(path, titled(curves, model.tree))

        try:
            model.size = size
            figures = evaluate_embedded(model, scenes, size, task.bar or Progress(False), keep=keep)
        finally:
            model.size = own
        if len(sizes) > 1:
            figures = {name.replace("/", f"@{size}/", 1): value for name, value in figures.items()}
        metrics.update(figures)
    for column, points in speeds.items():
        if len(points) > 1 and task.out is not None:
            about = machine(home_of(model))
            plot_sizes(task.out / f"{column}-speed.png", points, "mAP at IoU .5 (VOC)", about)
    return metrics
