"""Truths -> the cells and anchors that answer for them."""

from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import shape_iou


class Assigned(NamedTuple):
    """One row a responsible predictor; where two truths fall on one predictor the later one has it, as in Darknet."""

    image: Tensor  # int64 [assigned]
    row: Tensor  # int64 [assigned]
    column: Tensor  # int64 [assigned]
    anchor: Tensor  # int64 [assigned]
    truth: Tensor  # int64 [assigned], which of the truths given


def assign(image: Tensor, boxes: Tensor, anchors: Tensor, grid: tuple[int, int]) -> Assigned:
    """Give each truth the cell its centre lies in and the anchor whose shape is nearest by IoU (paper section 2).

    Args:
        image: int64 [truths], the image of each truth.
        boxes: float [truths, 4], centre x, y, width, height, fractions of the network's input.
        anchors: float [anchors, 2], width and height in cells.
        grid: rows and columns of cells.
    """
    rows, columns = grid
    scale = torch.tensor([columns, rows], device=boxes.device, dtype=boxes.dtype)
    cell = (boxes[:, :2] * scale).long()  # [truths, 2] column, row
    column, row = cell[:, 0].clamp(0, columns - 1), cell[:, 1].clamp(0, rows - 1)  # a centre on the far edge stays in
    anchor = shape_iou(boxes[:, 2:] * scale, anchors.to(boxes.dtype)).argmax(1)
    predictor = ((image * rows + row) * columns + column) * len(anchors) + anchor
    # the last truth of each predictor: a stable sort keeps their order, and the end of each run is the last
    ordered, order = torch.sort(predictor, stable=True)
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    truth = order[last]
    return Assigned(image[truth], row[truth], column[truth], anchor[truth], truth)
