"""Suppression that knows relatives: "dog" and "poodle" on one animal are one detection; siblings survive."""

import torch
from torch import Tensor

from ..tree import WordTree
from .index import TreeIndex, tree_index

PAIRS = 2**22  # of boxes, compared at a time


def suppress_relatives(boxes: Tensor, scores: Tensor, nodes: Tensor, tree: WordTree, iou: float = 0.45) -> Tensor:
    """Greedy suppression among boxes of one node, or of two nodes one above the other; -1, the root, is above all.

    The higher score wins, the deeper node on a tie. Exact: the fixed point of `kept = no kept better relative overlaps`
    is reached in as many steps as the longest chain of suppressions.

    Args:
        boxes: float [n, 4] xyxy.
        scores: float [n].
        nodes: int64 [n], -1 for the root.
        tree: the tree of the nodes.
        iou: an overlap above this suppresses.

    Returns:
        int64 [kept]: what is kept, best first.

    Example:
        >>> tree = WordTree(["dog", "cat", "poodle"], [-1, -1, 0])
        >>> boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 10, 10], [0, 0, 10, 9]])
        >>> suppress_relatives(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 2]), tree).tolist()
        [0, 1]
    """
    index = tree_index(tree, boxes.device)
    depth = (index.path_groups[index.group_of[nodes.clamp(min=0)]] >= 0).sum(1) * (nodes >= 0)
    order = torch.argsort(depth, descending=True, stable=True)
    order = order[torch.argsort(scores[order], descending=True, stable=True)]
    better, worse = _overlapping(boxes[order], iou)
    related = _are_relatives(nodes[order][better], nodes[order][worse], index)
    better, worse = better[related], worse[related]
    kept = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    while True:
        survivors = torch.ones_like(kept)
        survivors[worse[kept[better]]] = False
        if torch.equal(survivors, kept):
            return order[kept]
        kept = survivors


def _overlapping(boxes: Tensor, iou: float) -> tuple[Tensor, Tensor]:
    """The pairs i < j of boxes [n, 4] that overlap by more than `iou`. -> int64 [pairs], int64 [pairs]."""
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    better, worse = [], []
    for first in range(0, len(boxes), max(1, PAIRS // max(1, len(boxes)))):
        part = slice(first, first + max(1, PAIRS // len(boxes)))
        low = torch.maximum(boxes[part, None, :2], boxes[None, :, :2])
        high = torch.minimum(boxes[part, None, 2:], boxes[None, :, 2:])
        shared = (high - low).clamp(min=0).prod(2)
        over = shared / (area[part, None] + area[None] - shared) > iou  # two boxes of no area: NaN, no overlap
        i, j = over.triu(first + 1).nonzero(as_tuple=True)
        better.append(i + first)
        worse.append(j)
    none = torch.zeros(0, dtype=torch.int64, device=boxes.device)
    return torch.cat([none, *better]), torch.cat([none, *worse])


def _are_relatives(a: Tensor, b: Tensor, index: TreeIndex) -> Tensor:
    """bool [pairs]: nodes a[i] and b[i] are one, or one lies above the other."""

    def below(node: Tensor, other: Tensor) -> Tensor:
        lineage = index.path_nodes[index.group_of[node.clamp(min=0)]]  # [pairs, depth] what lies above, then -1
        return (lineage == other[:, None]).any(1)

    return below(a, b) | below(b, a) | (a == b) | (a < 0) | (b < 0)
