"""Suppression that knows relatives: "dog" and "poodle" on one animal are one detection; siblings survive."""

import torch
from torch import Tensor

from ..tree import WordTree
from .index import Spans, tree_index, tree_spans
from .softmax import at_least_float32

PAIRS = 2**22  # of boxes, compared at a time


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
        image: int64 [n], which image each is of, any numbers; one image where left out.

    Returns:
        int64 [kept]: what is kept, image by image in ascending order, best first.

    Example:
        >>> tree = WordTree(["dog", "cat", "poodle"], [-1, -1, 0])
        >>> boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 10, 10], [0, 0, 10, 9]])
        >>> suppress_relatives(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 2]), tree).tolist()
        [0, 1]
    """
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    image = torch.zeros_like(nodes) if image is None else image
    index = tree_index(tree, boxes.device)
    depth = (index.path_groups[index.group_of[nodes.clamp(min=0)]] >= 0).sum(1) * (nodes >= 0)
    order = torch.argsort(depth, descending=True, stable=True)
    order = order[torch.argsort(scores[order], descending=True, stable=True)]
    order = order[torch.argsort(image[order], stable=True)]
    image = image[order].unique_consecutive(return_inverse=True)[1]  # 0, 1, ...: a table has a row an image
    place = rank(image)
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


def pair_iou(boxes: Tensor) -> Tensor:
    """IoU of each pair of xyxy boxes: float [..., n, 4] -> [..., n, n]; nan for two boxes of no area.

    Half precision, in which a box of 256 x 256 is too large, gives float32.
    """
    left, top, right, bottom = at_least_float32(boxes).unbind(-1)
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


def rank(image: Tensor) -> Tensor:
    """The place of each row among those of its image. int64 [n], ascending -> int64 [n]: 0, 1, ... in each image."""
    at = torch.arange(len(image), device=image.device)
    first = torch.where(at == 0, True, image != image.roll(1))
    return at - torch.where(first, at, 0).cummax(0).values
