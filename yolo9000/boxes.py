"""Box arithmetic that torchvision.ops does not have: forms, shape IoU, and suppression that knows relatives.

Corner boxes (xyxy) are in pixels; centre boxes (cxcywh) are fractions of the network's input unless said otherwise.
"""

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from wordtree import WordTree
from wordtree.errors import unknown
from wordtree.nn.index import Spans, tree_index, tree_spans

SUPPRESSIONS = ("relatives", "all", "same")
PAIRS = 2**22  # of boxes, compared at a time
MANY = 4000  # boxes, more than which are not compared all at once


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """float [..., 4] centre x, y, width, height -> left, top, right, bottom, in the same unit."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """float [..., 4] left, top, right, bottom -> centre x, y, width, height, in the same unit."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def shape_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of shapes laid on one centre. a: float [n, 2] width, height; b: [m, 2]; one unit -> [n, m].

    The distance of dimension clusters (paper section 2), and the rule that gives a truth its anchor.
    """
    overlap = torch.minimum(a[:, None], b[None]).prod(-1)
    return overlap / (a.prod(-1)[:, None] + b.prod(-1)[None] - overlap)


def pair_iou(boxes: Tensor) -> Tensor:
    """IoU of each pair of xyxy boxes: float [..., n, 4] -> [..., n, n]; nan for two boxes of no area."""
    left, top, right, bottom = boxes.unbind(-1)
    area = (right - left) * (bottom - top)
    overlap = _shared(left, right).mul_(_shared(top, bottom))
    return overlap / (area[..., :, None] + area[..., None, :]).sub_(overlap)


def _shared(low: Tensor, high: Tensor) -> Tensor:
    """The length that each pair of spans shares: float [..., n], [..., n] -> [..., n, n]."""
    shared = torch.minimum(high[..., :, None], high[..., None, :])
    return shared.sub_(torch.maximum(low[..., :, None], low[..., None, :])).clamp_(min=0)


def are_relatives(nodes: Tensor, spans: Spans) -> Tensor:
    """bool [..., n, n]: nodes [..., n] that are one node, or one above the other; -1, the root, is above all."""
    enter, leave = spans.enter[nodes], spans.leave[nodes]
    below = (enter[..., :, None] <= enter[..., None, :]) & (enter[..., None, :] < leave[..., :, None])
    return below | below.mT


def suppress(
    boxes: Tensor, scores: Tensor, nodes: Tensor, image: Tensor, tree: WordTree, iou: float, among: str = "relatives"
) -> Tensor:
    """Greedy suppression in all images at once: the best box stays, and those it overlaps by more than `iou` go.

    Args:
        boxes: float [n, 4] xyxy.
        scores: float [n].
        nodes: int64 [n], -1 for the root.
        image: int64 [n], which image each is of, ascending.
        tree: the tree of the nodes.
        iou: an overlap above this suppresses.
        among: which boxes suppress each other: "relatives", see `suppress_relatives`; "all"; the "same" node's alone.

    Returns:
        int64 [kept]: what is kept, image by image, best first; the earlier of equals.

    Raises:
        WordTreeError: an unknown `among`.
    """
    if among == "relatives":
        return suppress_relatives(boxes, scores, nodes, tree, iou, image)
    if among not in SUPPRESSIONS:
        raise unknown("suppression", among, SUPPRESSIONS)
    group = image if among == "all" else image * (len(tree) + 1) + nodes + 1
    if len(boxes) <= MANY:
        kept: Tensor = nms(_apart(boxes.double(), group), scores.double(), iou)
    else:  # group by group: all with all would be too many to compare
        order = torch.argsort(group, stable=True)
        counts = torch.unique_consecutive(group[order], return_counts=True)[1].tolist()
        parts = [part[nms(boxes[part].double(), scores[part].double(), iou)] for part in order.split(counts)]
        kept = torch.cat(parts).sort().values
        kept = kept[torch.argsort(scores[kept], descending=True, stable=True)]
    return kept[torch.argsort(image[kept], stable=True)]


def suppress_relatives(
    boxes: Tensor, scores: Tensor, nodes: Tensor, tree: WordTree, iou: float = 0.45, image: Tensor | None = None
) -> Tensor:
    """Greedy suppression among relatives: "dog" and "poodle" on one animal are one detection; siblings survive.

    The higher score wins, the deeper node on a tie. Exact: the fixed point of `kept = no kept better relative overlaps`
    is reached in as many steps as the longest chain of suppressions.

    Args:
        boxes: float [n, 4] xyxy.
        scores: float [n].
        nodes: int64 [n], -1 for the root.
        tree: the tree of the nodes.
        iou: an overlap above this suppresses.
        image: int64 [n], which image each is of, ascending; one image where left out.

    Returns:
        int64 [kept]: what is kept, image by image, best first.
    """
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    image = torch.zeros_like(nodes) if image is None else image
    index = tree_index(tree, boxes.device)
    depth = (index.path_groups[index.group_of[nodes.clamp(min=0)]] >= 0).sum(1) * (nodes >= 0)
    order = torch.argsort(depth, descending=True, stable=True)
    order = order[torch.argsort(scores[order], descending=True, stable=True)]
    order = order[torch.argsort(image[order], stable=True)]
    image, place = image[order], rank(image[order])
    images, most = torch.stack((image[-1], place.max())).add(1).tolist()
    rows = order.new_full((images, most), -1)  # [images, most], each image's boxes, best first, then -1
    rows[image, place] = order
    spans = tree_spans(tree, boxes.device)
    at_a_time = max(1, PAIRS // most**2)
    kept = [_relatives_kept(boxes[part], nodes[part], part >= 0, spans, iou) for part in rows.split(at_a_time)]
    return rows[torch.cat(kept)]


def _relatives_kept(boxes: Tensor, nodes: Tensor, there: Tensor, spans: Spans, iou: float) -> Tensor:
    """bool [images, n]: what is kept of boxes [images, n, 4], best first, where they are `there`."""
    beats = (pair_iou(boxes) > iou) & are_relatives(nodes, spans)
    beats = beats.triu(1).to(boxes.dtype)  # beats[..., i, j]: i comes first and suppresses j
    kept = there
    while True:
        survivors = there & ((kept.to(boxes.dtype)[:, None] @ beats)[:, 0] == 0)
        if torch.equal(survivors, kept):
            return kept
        kept = survivors


def rank(image: Tensor) -> Tensor:
    """The place of each row among those of its image. int64 [n], ascending -> int64 [n]: 0, 1, ... in each image."""
    at = torch.arange(len(image), device=image.device)
    first = torch.where(at == 0, True, image != image.roll(1))
    return at - torch.where(first, at, 0).cummax(0).values


def best_rows(image: Tensor, scores: Tensor, most: int) -> Tensor:
    """The best `most` rows of each image. int64 [n], ascending, and float [n] -> int64 [kept], ascending."""
    order = torch.argsort(scores, descending=True, stable=True)
    order = order[torch.argsort(image[order], stable=True)]
    return order[rank(image[order]) < most].sort().values


def _apart(boxes: Tensor, group: Tensor) -> Tensor:
    """Boxes moved so that those of different groups never overlap; float64, so that they stay what they are."""
    if not len(boxes):
        return boxes
    order = torch.argsort(group, stable=True)
    new = group[order] != group[order].roll(1)
    number = torch.empty_like(group).scatter(0, order, new.cumsum(0))  # of the group, counted on
    return boxes + (number * (boxes.max() - boxes.min() + 1))[:, None]


def check_boxes(boxes: Tensor, width: int, height: int) -> str | None:
    """What is wrong with xyxy boxes [n, 4] in an image of that many pixels, in words; None where nothing is."""
    if boxes.dim() != 2 or boxes.shape[-1] != 4:
        return f"boxes of shape {tuple(boxes.shape)}; a target takes [n, 4], left, top, right, bottom in pixels"
    array = boxes.detach().cpu().numpy()
    for row, (left, top, right, bottom) in zip(*_faulty(array, width, height), strict=True):
        where = f"box {row} is {left:g}, {top:g}, {right:g}, {bottom:g}"
        return f"{where}; a box has right > left, bottom > top and lies inside its image, {width} x {height} pixels"
    return None


def _faulty(boxes: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    slack = 1e-3 * max(width, height)
    left, top, right, bottom = boxes.T if len(boxes) else np.zeros((4, 0))
    good = (right > left) & (bottom > top) & (left >= -slack) & (top >= -slack)
    good &= (right <= width + slack) & (bottom <= height + slack)  # NaN fails every comparison
    good &= (np.minimum(right, width) > np.maximum(left, 0)) & (np.minimum(bottom, height) > np.maximum(top, 0))
    return np.flatnonzero(~good), boxes[~good]
