"""What a network says of pictures before any figure: scores of nodes for its boxes, and what each box would be called.

The evaluator's space is the data set's labels as nodes: a box's score for a node is objectness x Pr(node), without
descent.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from wordtree import WordTree
from wordtree.nn import descend

from .borrowed import AnyDetector, Borrowed
from .confusion import Answers
from .hardware import home_of
from .head import Region
from .images import Placement, place_back
from .region import decode_xyxy

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


@torch.no_grad()
def see(model: AnyDetector, images: Tensor | Sequence[Tensor]) -> Seen | None:
    """One pass of the network, for `score_nodes` and `name_boxes`; None of a plug-in's, which passes for each."""
    if isinstance(model, Borrowed):
        return None
    batch, placed = model.place(images)
    return Seen(model.region(batch), placed)


@torch.no_grad()
def score_nodes(
    model: AnyDetector, images: Tensor | Sequence[Tensor], nodes: Sequence[int], seen: Seen | None = None
) -> list[Scored]:
    """Score every box for each of `nodes`. images: float [b, 3, h, w] in 0..1, or [3, h, w] each; seen: of them."""
    at = torch.tensor(list(nodes), device=home_of(model))
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


def _suppressed(boxes: Tensor, objectness: Tensor, scores: Tensor, nodes: Tensor) -> Scored:
    row, column = (scores > SCORE_THRESHOLD).nonzero(as_tuple=True)
    values = scores[row, column]
    kept = batched_nms(boxes[row], values, column, NMS_IOU)[:MOST]
    anything = nms(boxes, objectness, NMS_IOU)[:MOST]
    return Scored(boxes[row[kept]], nodes[column[kept]], values[kept], boxes[anything], objectness[anything])


@torch.no_grad()
def name_boxes(model: AnyDetector, images: Tensor | Sequence[Tensor], seen: Seen | None = None) -> list[Named]:
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
