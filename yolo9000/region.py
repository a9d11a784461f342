"""Direct location prediction (paper section 2): what the network puts out -> boxes; and the two that it replaced.

"direct": the centre is the logistic of t_x within its cell, the shape a prior times e^t_w.
"offset": as a region proposal network's, the centre is t_x prior widths from the middle of the cell, wherever that is.
(The paper prints x = t_x w_a - x_a; the sign is taken for a misprint.)
"image": as in YOLO, no priors: the centre is t_x cells from the corner of the cell, the width t_w^2 of the image.

Cells are ordered row, column, anchor, as Darknet's releases index them; that order decides ties.
"""

import torch
from torch import Tensor

from .boxes import cxcywh_to_xyxy


def split_raw(raw: Tensor, anchors: int) -> Tensor:
    """float [b, anchors * 5, h, w] -> [b, h, w, anchors, 5]: tx, ty, tw, th, to."""
    b, _, h, w = raw.shape
    return raw.view(b, anchors, 5, h, w).permute(0, 3, 4, 1, 2)


LOCATIONS = ("direct", "offset", "image")


def decode(raw: Tensor, anchors: Tensor, location: str = "direct") -> Tensor:
    """b_x = (c_x + sigmoid(t_x)) / w, b_w = p_w e^{t_w} / w, and likewise y and h (paper equation in section 2).

    Args:
        raw: float [b, h, w, anchors, 5], as `split_raw` gives it.
        anchors: float [anchors, 2], width and height in cells.
        location: how a box is told, one of `LOCATIONS`; the equation is that of "direct".

    Returns:
        float [b, h, w, anchors, 4]: centre x, y, width, height, fractions of the network's input.
    """
    h, w = raw.shape[1:3]
    column = torch.arange(w, device=raw.device, dtype=raw.dtype)
    row = torch.arange(h, device=raw.device, dtype=raw.dtype)
    corner = torch.stack(torch.meshgrid(column, row, indexing="xy"), dim=-1)[:, :, None]  # [h, w, 1, 2]
    grid = torch.cat((raw.new_full((1,), w), raw.new_full((1,), h)))  # made on the device: a CUDA graph copies nothing
    if location == "image":
        return torch.cat(((corner + raw[..., :2]) / grid, raw[..., 2:4].clamp(0, 1) ** 2), dim=-1)
    if location == "offset":
        centre = (corner + 0.5 + raw[..., :2] * anchors.to(raw.dtype)) / grid
    else:
        centre = (corner + raw[..., :2].sigmoid()) / grid
    # e^80 and more is infinite in float32; no real box is e^10 anchors wide
    shape = raw[..., 2:4].clamp(max=10).exp() * anchors.to(raw.dtype) / grid
    return torch.cat((centre, shape), dim=-1)


def encode(wanted: Tensor, cells: Tensor, anchors: Tensor, grid: Tensor, location: str = "direct") -> Tensor:
    """What the network has to put out for boxes: float [n, 4]. Of "direct" the first two are the logistic's values.

    Args:
        wanted: float [n, 4], centre x, y, width, height, fractions of the input.
        cells: [n, 2], column and row that each box's centre lies in.
        anchors: float [n, 2], each box's prior.
        grid: float [2], columns and rows.
        location: as `decode`.
    """
    offset = wanted[:, :2] * grid - cells
    if location == "image":
        return torch.cat((offset, wanted[:, 2:].sqrt()), dim=1)
    stretch = (wanted[:, 2:] * grid / anchors).log()
    return torch.cat(((offset - 0.5) / anchors if location == "offset" else offset, stretch), dim=1)


def decode_xyxy(raw: Tensor, anchors: Tensor, location: str = "direct") -> Tensor:
    """`decode`, as left, top, right, bottom in fractions of the network's input, not clipped."""
    return cxcywh_to_xyxy(decode(raw, anchors, location))
