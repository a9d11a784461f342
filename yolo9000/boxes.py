"""Box arithmetic that torchvision.ops does not have: forms, shape IoU, and suppression that knows relatives.

Corner boxes (xyxy) are in pixels; centre boxes (cxcywh) are fractions of the network's input unless said otherwise.
"""

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from wordtree import WordTree
from wordtree.nn.index import TreeIndex, tree_index


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


def are_relatives(nodes: Tensor, index: TreeIndex) -> Tensor:
    """bool [n, n]: nodes [n] that are one node, or one above the other; -1, the root, is above all."""
    inside = nodes >= 0
    lineage = index.path_nodes[index.group_of[nodes.clamp(min=0)]]  # [n, depth] what lies above each, then -1
    same = nodes[:, None] == nodes[None, :]
    above = torch.zeros_like(same)  # above[i, j]: j lies above i
    for step in lineage.unbind(1):  # by depth, so that nothing larger than [n, n] is made
        above |= (step[:, None] == nodes[None, :]) & (step >= 0)[:, None]
    return above | above.T | same | ~inside[:, None] | ~inside[None, :]


def suppress_relatives(boxes: Tensor, scores: Tensor, nodes: Tensor, tree: WordTree, iou: float = 0.45) -> Tensor:
    """Greedy suppression among relatives: "dog" and "poodle" on one animal are one detection; siblings survive.

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
    """
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    index = tree_index(tree, boxes.device)
    depth = (index.path_groups[index.group_of[nodes.clamp(min=0)]] >= 0).sum(1) * (nodes >= 0)
    order = torch.argsort(depth, descending=True, stable=True)
    order = order[torch.argsort(scores[order], descending=True, stable=True)]
    beats = (box_iou(boxes[order], boxes[order]) > iou) & are_relatives(nodes[order], index)
    beats = beats.triu(1).float()  # beats[i, j]: i comes first and suppresses j
    kept = torch.ones(len(order), device=boxes.device)
    while True:
        survivors = (kept @ beats == 0).float()
        if torch.equal(survivors, kept):
            return order[kept.bool()]
        kept = survivors


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
