"""Box arithmetic that torchvision.ops does not have: forms, shape IoU, suppression in each reading.

Corner boxes (xyxy) are in pixels; centre boxes (cxcywh) are fractions of the network's input unless said otherwise.
"""

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from wordtree import WordTree
from wordtree.errors import unknown
from wordtree.nn.suppression import rank, suppress_relatives

SUPPRESSIONS = ("relatives", "all", "same")
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
    overlap = torch.minimum(a[:, None, 0], b[None, :, 0]) * torch.minimum(a[:, None, 1], b[None, :, 1])
    return overlap / (a.prod(-1)[:, None] + b.prod(-1)[None] - overlap)


def inside(boxes: Tensor, regions: Tensor) -> Tensor:
    """The share of each box that lies in each region: intersection by the box's own area, COCO's rule for crowds.

    float [n, 4] and [m, 4] xyxy -> [n, m]; 0 for a box without an area.
    """
    low = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return (high - low).clamp(min=0).prod(2) / area[:, None].clamp(min=torch.finfo(boxes.dtype).tiny)


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
