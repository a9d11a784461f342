"""The figures of the test sources of a run.yaml: boxes scored as VOC and COCO score them, names by top-1 and top-5."""

import csv
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wordtree import LabelMap, WordTree, WordTreeError

from .borrowed import Borrowed
from .data.augment import AUGMENTATIONS, classifier_view, stream
from .data.records import CROWD, DIFFICULT, GROUP, Records
from .detector import Detector
from .evaluation import SCORE_THRESHOLD, score_nodes
from .files import whole, write_text
from .hardware import as_worker
from .models import Network, TreeClassifier
from .reports import Progress
from .runfile import RunFile, Source
from .scores import (
    Found,
    Truths,
    coco_by_class,
    coco_evaluation,
    coco_figures,
    plot_precision_recall,
    split_by_boxes,
    top_k,
    voc_area,
    voc_curve,
    voc_eleven,
    worst_and_best,
    write_coco_results,
    write_voc_results,
)

BATCH = 16


class Scored(NamedTuple):
    """What a model said of a data set's boxes, and what is there."""

    found: Found
    truths: Truths
    seconds: float  # of the model, without reading and decoding


def evaluate_run(
    model: Network,
    run: RunFile,
    sizes: Sequence[int] = (),
    out: Path | None = None,
    processes: int = 0,
    bar: Progress | None = None,
) -> dict[str, float]:
    """Every figure of the test sources of a run.

    Boxes: COCO's twelve figures, "voc" and "voc07" (AP at IoU .5 by area and by eleven points, mean over classes with
    truths), "expanded/AP50" where classes stand above one another, and "shared/AP50" and "never_boxed/AP50" where a
    training source has boxes. Names: "top1", "top5". And "images_per_second" of the model, without reading.

    Args:
        model: a detector, or a classifier for sources of names; the sources' labels are on its tree.
        run: the run file.
        sizes: pixels of the input, several for a table of speed and accuracy; the model's own where left out.
        out: a folder for result files, plots and the classes' figures.
        processes: how many read pictures.
        bar: a progress bar.

    Returns:
        {"source/figure": value}, or "source@size/figure" of several sizes.

    Raises:
        WordTreeError: no test source, a source that does not read, labels that are not on the tree, a size that the
            model cannot take.
    """
    sources = run.used("test")
    if not sources:
        raise WordTreeError(f"{run.path} has no source to test on; give one with `use: test`")
    if sizes and isinstance(model, Borrowed):
        raise WordTreeError(
            f"sizes {list(sizes)} for {model.name}, a plug-in's, built for {model.size}; leave them out"
        )
    for size in sizes:
        if size < model.trunk.stride or size % model.trunk.stride:
            raise WordTreeError(f"a size of {size} pixels; this trunk takes multiples of {model.trunk.stride}")
    boxed = _boxed_nodes(run, model.tree)
    metrics: dict[str, float] = {}
    own = model.size
    try:
        for source in sources:
            labels = source.own_labels()
            records = source.read(labels, model.tree).raise_faults(source.skip)
            for size in sizes or (own,):
                model.size = size
                name = source.name if len(sizes) < 2 else f"{source.name}@{size}"
                figures = _figures(model, records, labels, boxed, out and out / name.replace("@", "-"), processes, bar)
                metrics |= {f"{name}/{figure}": value for figure, value in figures.items()}
    finally:
        model.size = own
    return metrics


def _figures(
    model: Network,
    records: Records,
    labels: LabelMap,
    boxed: list[int],
    out: Path | None,
    processes: int,
    bar: Progress | None,
) -> dict[str, float]:
    tree = model.tree
    nodes = sorted(set(labels.nodes_on(tree).tolist()))
    figures: dict[str, float] = {}
    named = np.flatnonzero(records.labelled)
    if len(named):
        some = records.take(named)
        scores = score_names(model, some, nodes, processes, bar)
        whole = np.zeros((len(some), len(tree)))
        whole[:, nodes] = scores
        figures |= {f"top{k}": value for k, value in top_k(whole, some.nodes[some.starts[:-1]], nodes).items()}
    if len(named) == len(records):
        return figures
    if isinstance(model, TreeClassifier):
        raise WordTreeError(f"a classifier's weights for the boxes of {records.name!r}; give a detector's")
    some = records.take(np.flatnonzero(~records.labelled)) if len(named) else records
    found, truths, seconds = score_boxes(model, some, nodes, processes, bar)
    evaluation = coco_evaluation(found, truths, len(some), nodes)
    by_class = coco_by_class(evaluation)
    curves = {node: voc_curve(found, truths, node) for node in nodes}
    figures |= coco_figures(evaluation)
    figures["voc"] = _mean([voc_area(curve) for curve in curves.values()])
    figures["voc07"] = _mean([voc_eleven(curve) for curve in curves.values()])
    expanded = truths.expanded(tree, nodes)
    if len(expanded.image) > len(truths.image):
        more = coco_by_class(coco_evaluation(found, expanded, len(some), nodes))
        figures["expanded/AP50"] = _mean(list(more.values()))
    if boxed:
        split = split_by_boxes(nodes, boxed, tree)
        for name, part in zip(("shared", "never_boxed"), split, strict=True):
            figures[f"{name}/AP50"] = _mean([by_class[node] for node in part])
    figures["images_per_second"] = len(some) / seconds if seconds else math.nan
    if out is not None:
        _leave(out, some, labels, found, by_class, tree)
        plot_precision_recall(
            out / "precision_recall.png", {f"{tree.names[node]} {node}": curve for node, curve in curves.items()}
        )
    return figures


def score_boxes(
    model: Detector, records: Records, nodes: Sequence[int], processes: int = 0, bar: Progress | None = None
) -> Scored:
    """Run a model over a data set with boxes, each image laid on the model's input as the model lays it.

    Returns:
        detections (objectness x Pr(node) of each of `nodes`, above .005, suppressed node by node), truths, and seconds.
    """
    parts: list[tuple[int, Any]] = []
    rows: list[tuple[int, Any, Any, Any, Any]] = []
    seconds = 0.0
    for first, images in _batches(records, processes, bar, f"testing {records.name} at {model.size}"):
        began = time.monotonic()
        results = score_nodes(model, [image.to(_device(model)).float() / 255 for image in images], nodes)
        parts += [(first + at, one) for at, one in enumerate(results)]
        seconds += time.monotonic() - began
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
        ),
        seconds,
    )


@torch.no_grad()
def score_names(
    model: Network, records: Records, nodes: Sequence[int], processes: int = 0, bar: Progress | None = None
) -> np.ndarray:
    """float64 [images, len(nodes)]: Pr(node) of a classifier, which sees the middle square of the picture; of a
    detector, for each node the largest objectness x Pr(node) of an image's boxes."""
    found = []
    for _, images in _batches(records, processes, bar, f"testing {records.name} at {model.size}"):
        if isinstance(model, TreeClassifier):
            views = [classifier_view(image, model.size, AUGMENTATIONS["none"], stream(0)) for image in images]
            log_probs = model(torch.stack(views).to(_device(model)).float() / 255)
            found.append(log_probs[:, list(nodes)].exp().double().cpu().numpy())
            continue
        placed = [image.to(_device(model)).float() / 255 for image in images]
        if isinstance(model, Borrowed):
            theirs = model.score_nodes(placed, nodes, SCORE_THRESHOLD)
            none = torch.zeros(1, len(nodes), device=_device(model))  # for an image without a box
            most = [torch.cat((none, each[:, None] * probs)).amax(0) for _, each, probs in theirs]
            found.append(torch.stack(most).double().cpu().numpy())
            continue
        batch, _ = model.place(placed)
        region = model.region(batch)
        objectness = region.raw[..., 4].sigmoid()
        keep = (objectness > SCORE_THRESHOLD).nonzero(as_tuple=True)
        probs = model.head.classes.log_probs_of(region.features[keep[:3]].float(), nodes, keep[3]).exp()
        scores = objectness[keep][:, None] * probs
        at = keep[0][:, None].expand_as(scores)
        best = torch.zeros(len(images), len(nodes), dtype=scores.dtype, device=scores.device)
        found.append(best.scatter_reduce(0, at, scores, "amax").double().cpu().numpy())
    return np.concatenate(found)


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


def _leave(
    out: Path, records: Records, labels: LabelMap, found: Found, by_class: dict[int, float], tree: WordTree
) -> None:
    """Result files as the servers take them, and each class's figure."""
    out.mkdir(parents=True, exist_ok=True)
    ids = list(records.ids)
    if all(id_.isdecimal() for id_ in ids):
        write_coco_results(out / "results.json", found, ids, records.numbers)
    write_voc_results(out / "voc", found, [Path(id_).stem for id_ in ids], labels, tree)
    with whole(out / "classes.csv") as part, part.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "name", "AP50"])
        writer.writerows([tree.ids[node], tree.names[node], f"{value:.4f}"] for node, value in by_class.items())
    write_text(out / "worst_and_best.txt", worst_and_best(by_class, tree) + "\n")


BOX_KINDS = ("coco", "lvis", "voc", "imagenet-det", "yolo", "openimages", "darknet")


def _boxed_nodes(run: RunFile, tree: WordTree) -> list[int]:
    """The nodes that a training source of a kind with boxes names."""
    given: list[Source] = [source for source in run.used("train") if source.kind in BOX_KINDS]
    return sorted({int(node) for source in given for node in source.own_labels().nodes_on(tree)})


def _device(model: Network) -> torch.device:
    return next(model.parameters()).device


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def figures_table(metrics: dict[str, float]) -> str:
    """The figures as text: a row a figure, a column a source."""
    sources = list(dict.fromkeys(name.split("/", 1)[0] for name in metrics))
    rows = list(dict.fromkeys(name.split("/", 1)[1] for name in metrics if "/" in name))
    width = max(map(len, sources), default=0) + 2
    lines = [f"{'':20}" + "".join(f"{source:>{width}}" for source in sources)]
    for row in rows:
        cells = [metrics.get(f"{source}/{row}") for source in sources]
        told = ["" if cell is None else "-" if math.isnan(cell) else f"{cell:.3f}" for cell in cells]
        lines.append(f"{row:20}" + "".join(f"{cell:>{width}}" for cell in told))
    return "\n".join(lines)
