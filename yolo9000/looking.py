"""What a model says of pictures before any figure: scores of nodes for its boxes, and what each box would be called.

The evaluator's space is the data set's labels as nodes: a box's score for a node is objectness x Pr(node), without
descent.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from wordtree import WordTree
from wordtree.nn import descend

from .borrowed import AnyDetector, Borrowed
from .confusion import Answers
from .detector import Detector
from .hardware import home_of
from .head import Region
from .images import Placement, place_back
from .region import decode_xyxy
from .scores import Found
from .timing import wait

SCORE_THRESHOLD = 0.005  # Darknet's validation threshold
NMS_IOU = 0.45
MOST = 300  # boxes an image that are scored
PLACES = 100  # boxes an image that are named
AT_ONCE = 32768  # nodes of all images that a plug-in's detector is asked about at once


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
    """What a model says of images, read more than once."""

    told: list[tuple[Tensor, Tensor, Tensor]]  # boxes [n, 4] in pixels, objectness [n], Pr of nodes asked [n, asked]
    name: Callable[[], list[Named]]


class Said(NamedTuple):
    """What a model said of a data set, as tables."""

    found: Found  # scored node by node
    places: Found  # boxes by objectness alone, all of node 0
    answers: Answers  # what the boxes would be called; none where it was not asked
    images: int
    seconds: float  # of the model, without reading and decoding, and without a first batch


@torch.no_grad()
def run_through(
    model: AnyDetector, batches: Iterable[Sequence[Tensor]], nodes: Sequence[int], naming: bool = True
) -> Said:
    """Run a model over a data set, each image laid on the model's input as the model lays it.

    Args:
        model: the detector.
        batches: images uint8 [3, h, w], some at a time, in the order of their numbers.
        nodes: each box is scored for all of these, objectness x Pr(node), above .005 and suppressed node by node.
        naming: also say what each box would be called.
    """
    device = home_of(model)
    found: list[Scored] = []
    named: list[Named] = []
    seconds = 0.0
    for batch in batches:
        images = [image.to(device).float() / 255 for image in batch]  # a stack would keep its size
        if not found:
            see(model, images, nodes, naming)  # the first pass of a network is slower, and is not counted
        began = time.monotonic()
        seen = see(model, images, nodes, naming)
        scored = suppressed(seen, nodes)
        wait(device)
        seconds += time.monotonic() - began
        found += [Scored(*(part.cpu() for part in one)) for one in scored]
        named += [Named(*(part.cpu() for part in one)) for one in seen.name()] if naming else []
    none = [torch.zeros(len(one.any_scores), dtype=torch.int64) for one in found]
    return Said(
        _table([one.boxes for one in found], [one.nodes for one in found], [one.scores for one in found]),
        _table([one.any_boxes for one in found], none, [one.any_scores for one in found]),
        gather(named, model.tree),
        len(found),
        seconds,
    )


@torch.no_grad()
def see(model: AnyDetector, images: Tensor | Sequence[Tensor], nodes: Sequence[int], naming: bool = False) -> Seen:
    """One pass of the network: Pr of each of `nodes` for every box above .005, and what the boxes are called.

    images: float [b, 3, h, w] in 0..1, or [3, h, w] each; naming: whether `name` will be asked of a plug-in's detector.
    """
    if isinstance(model, Borrowed):
        if not naming:
            return Seen(model.score_nodes(images, nodes, SCORE_THRESHOLD), lambda: name_boxes(model, images))
        told, named = [], []
        for boxes, objectness, probs in _wholly(model, images, SCORE_THRESHOLD):
            told.append((boxes, objectness, probs[:, list(nodes)]))
            named.append(_named(*_kept(boxes, objectness, probs, PLACES), model.tree))
        return Seen(told, lambda: named)
    batch, placed = model.place(images)
    region = model.region(batch)
    at, boxes, objectness = _passed(model, region, SCORE_THRESHOLD)
    probs = model.head.classes.log_probs_of(region.features[at[:3]].float(), nodes, at[3]).exp()
    told = [
        (place_back(boxes[mine], placement), objectness[mine], probs[mine])
        for mine, placement in ((at[0] == image, placement) for image, placement in enumerate(placed))
    ]
    return Seen(
        told, lambda: [_named(*one, model.tree) for one in _places(model, region, placed, SCORE_THRESHOLD, PLACES)]
    )


def suppressed(seen: Seen, nodes: Sequence[int]) -> list[Scored]:
    """The boxes of images scored for each of the nodes that `seen` was asked, suppressed node by node."""
    scored = []
    for boxes, objectness, probs in seen.told:
        scores = objectness[:, None] * probs
        row, column = (scores > SCORE_THRESHOLD).nonzero(as_tuple=True)
        values = scores[row, column]
        kept = batched_nms(boxes[row], values, column, NMS_IOU)[:MOST]
        anything = nms(boxes, objectness, NMS_IOU)[:MOST]
        at = torch.tensor(list(nodes), device=boxes.device)[column[kept]]
        scored.append(Scored(boxes[row[kept]], at, values[kept], boxes[anything], objectness[anything]))
    return scored


def score_nodes(model: AnyDetector, images: Tensor | Sequence[Tensor], nodes: Sequence[int]) -> list[Scored]:
    """Score every box for each of `nodes`. images: float [b, 3, h, w] in 0..1, or [3, h, w] each."""
    return suppressed(see(model, images, nodes), nodes)


def name_boxes(model: AnyDetector, images: Tensor | Sequence[Tensor]) -> list[Named]:
    """The boxes of images, suppressed by objectness alone so that no name decides whether a box is there; and their
    ways down the tree, of which a tree threshold cuts the end off."""
    return [_named(*one, model.tree) for one in places(model, images, SCORE_THRESHOLD, PLACES)]


@torch.no_grad()
def places(
    model: AnyDetector, images: Tensor | Sequence[Tensor], threshold: float, most: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of each image the boxes above a threshold of objectness, suppressed by it alone, the likeliest `most` of them.

    Returns:
        boxes float [n, 4] xyxy pixels, objectness float [n], falling, and log Pr of each node [n, nodes].
    """
    if isinstance(model, Borrowed):
        return [_kept(*one, most) for one in _wholly(model, images, threshold)]
    batch, placed = model.place(images)
    return list(_places(model, model.region(batch), placed, threshold, most))


def _wholly(
    model: Borrowed, images: Tensor | Sequence[Tensor], threshold: float
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of each image boxes, objectness and Pr of every node, as a plug-in's detector has them; few images at a time."""
    some = max(1, AT_ONCE // len(model.tree))
    for first in range(0, len(images), some):
        yield from model.score_nodes(images[first : first + some], range(len(model.tree)), threshold)


def _kept(boxes: Tensor, objectness: Tensor, probs: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    kept = nms(boxes, objectness, NMS_IOU)[:most]
    return boxes[kept], objectness[kept], probs[kept].log()


def _passed(model: Detector, region: Region, threshold: float) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Our predictors above a threshold of objectness: where they are, int64 [n] of image, row, column and anchor; boxes
    [n, 4] in fractions of the input; objectness [n]."""
    objectness = region.raw[..., 4].sigmoid()
    at = (objectness > threshold).nonzero(as_tuple=True)
    return at, decode_xyxy(region.raw, model.head.anchors, model.head.location)[at], objectness[at]


def _places(
    model: Detector, region: Region, placed: Sequence[Placement], threshold: float, most: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """`places` of what our network gave; the nodes are read where a box is kept alone."""
    at, boxes, objectness = _passed(model, region, threshold)
    for image, placement in enumerate(placed):
        mine = (at[0] == image).nonzero()[:, 0]
        there = place_back(boxes[mine], placement)
        kept = nms(there, objectness[mine], NMS_IOU)[:most]
        mine = mine[kept]
        cells = region.features[at[0][mine], at[1][mine], at[2][mine]]
        yield there[kept], objectness[mine], model.head.classes.log_probs(cells, at[3][mine])


def _named(boxes: Tensor, objectness: Tensor, log_probs: Tensor, tree: WordTree) -> Named:
    return Named(boxes, objectness, *way_down(log_probs, tree))


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


def gather(named: Sequence[Named], tree: WordTree) -> Answers:
    """The boxes of images 0, 1, ... as one table."""
    depth = int(tree.depths.max()) + 1
    columns = [part.cpu() for one in named for part in one]
    boxes, objectness, path, probs = (columns[at::4] for at in range(4))
    return Answers(
        np.repeat(np.arange(len(boxes)), [len(one) for one in boxes]),
        torch.cat([torch.zeros(0, 4), *boxes]).double().numpy(),
        torch.cat([torch.zeros(0), *objectness]).double().numpy(),
        torch.cat([torch.zeros(0, depth, dtype=torch.int64), *path]).numpy(),
        torch.cat([torch.zeros(0, depth), *probs]).double().numpy(),
    )


def _table(boxes: Sequence[Tensor], nodes: Sequence[Tensor], scores: Sequence[Tensor]) -> Found:
    return Found(
        np.repeat(np.arange(len(boxes)), [len(one) for one in boxes]),
        torch.cat([torch.zeros(0, 4), *boxes]).double().numpy(),
        torch.cat([torch.zeros(0, dtype=torch.int64), *nodes]).numpy(),
        torch.cat([torch.zeros(0), *scores]).double().numpy(),
    )
