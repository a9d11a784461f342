"""Direct location prediction (paper section 2): what the network puts out -> boxes.

Cells are ordered row, column, anchor, as Darknet's releases index them; that order decides ties.
"""

import torch
from torch import Tensor

from .boxes import cxcywh_to_xyxy


def split_raw(raw: Tensor, anchors: int) -> Tensor:
    """float [b, anchors * 5, h, w] -> [b, h, w, anchors, 5]: tx, ty, tw, th, to."""
    b, _, h, w = raw.shape
    return raw.view(b, anchors, 5, h, w).permute(0, 3, 4, 1, 2)


def decode(raw: Tensor, anchors: Tensor) -> Tensor:
    """b_x = (c_x + sigmoid(t_x)) / w, b_w = p_w e^{t_w} / w, and likewise y and h (paper equation in section 2).

    Args:
        raw: float [b, h, w, anchors, 5], as `split_raw` gives it.
        anchors: float [anchors, 2], width and height in cells.

    Returns:
        float [b, h, w, anchors, 4]: centre x, y, width, height, fractions of the network's input.
    """
    h, w = raw.shape[1:3]
    column = torch.arange(w, device=raw.device, dtype=raw.dtype)
    row = torch.arange(h, device=raw.device, dtype=raw.dtype)
    corner = torch.stack(torch.meshgrid(column, row, indexing="xy"), dim=-1)[:, :, None]  # [h, w, 1, 2]
    grid = torch.cat((raw.new_full((1,), w), raw.new_full((1,), h)))  # made on the device: a CUDA graph copies nothing
    centre = (corner + raw[..., :2].sigmoid()) / grid
    # e^80 and more is infinite in float32; no real box is e^10 anchors wide
    shape = raw[..., 2:4].clamp(max=10).exp() * anchors.to(raw.dtype) / grid
    return torch.cat((centre, shape), dim=-1)


def decode_xyxy(raw: Tensor, anchors: Tensor) -> Tensor:
    """`decode`, as left, top, right, bottom in fractions of the network's input, not clipped."""
    return cxcywh_to_xyxy(decode(raw, anchors))
