"""AP and class-agnostic recall of pictures in memory, through pycocotools.

A truth counts for its ancestors when an ancestor is evaluated; see `looking` for the scores.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from wordtree import WordTree

from .borrowed import AnyDetector
from .looking import Said, run_through
from .scores import Truths, coco_by_class, coco_counted

COUNTED = {"iouThrs": np.array([0.5]), "areaRng": [[0, 1e10]], "areaRngLbl": ["all"]}  # objects of every size


def look_through(
    model: AnyDetector,
    data: Dataset[tuple[Tensor, dict[str, Tensor]]],
    label_nodes: np.ndarray,
    nodes: Sequence[int],
    batch: int = 32,
    tick: Callable[[int], None] | None = None,
    naming: bool = False,
) -> tuple[Said, Truths]:
    """`run_through` a data set of uint8 images and targets, and what is there.

    Args:
        model, nodes, naming: as `run_through`.
        data: images uint8 [3, h, w] with boxes, float [n, 4] xyxy pixels, and labels, int64 [n].
        label_nodes: the node of each label, int64 [labels].
        batch: images at a time.
        tick: is told how many more were seen.
    """
    there: list[tuple[Tensor, Tensor]] = []

    def batches() -> Iterator[list[Tensor]]:
        for first in range(0, len(data), batch):  # type: ignore[arg-type]
            items = [data[at] for at in range(first, min(first + batch, len(data)))]  # type: ignore[arg-type]
            there.extend((target["boxes"], target["labels"]) for _, target in items)
            yield [image for image, _ in items]
            if tick is not None:
                tick(len(items))

    said = run_through(model, batches(), nodes, naming)
    return said, _truths(there, label_nodes)


def _truths(there: Sequence[tuple[Tensor, Tensor]], label_nodes: np.ndarray) -> Truths:
    boxes = torch.cat([torch.zeros(0, 4), *(boxes for boxes, _ in there)]).double().numpy()
    labels = torch.cat([torch.zeros(0, dtype=torch.int64), *(labels for _, labels in there)]).numpy()
    image = np.repeat(np.arange(len(there)), [len(labels) for _, labels in there])
    no = np.zeros(len(boxes), dtype=bool)
    return Truths(image, boxes, label_nodes[labels], no, no, (boxes[:, 2:] - boxes[:, :2]).prod(1))


def average_precision(said: Said, truths: Truths, nodes: Sequence[int], tree: WordTree) -> dict[int, float]:
    """AP at IoU .5 (COCO's 101 points) of each node, NaN where it has no truth; ancestors get credit."""
    there = truths.expanded(tree, nodes)
    return coco_by_class(coco_counted(said.found, there, said.images, nodes, maxDets=[100], **COUNTED))


def class_agnostic_recall(said: Said, truths: Truths, wanted: Iterable[int], tree: WordTree, most: int = 10) -> float:
    """The share of truths under `wanted` that one of the `most` likeliest boxes covers by IoU .5, names apart."""
    under = np.asarray(tree.propagate(truths.nodes)[:, list(wanted)].any(1))
    if not under.any():
        return float("nan")
    there = truths.at(under)
    there = replace(there, nodes=np.zeros_like(there.nodes))
    counted = coco_counted(said.places, there, said.images, [0], maxDets=[most], useCats=0, **COUNTED)
    return float(counted.eval["recall"][0, 0, 0, 0])
