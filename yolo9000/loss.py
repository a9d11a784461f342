"""Box, objectness and tree loss for box targets; the paper's rule for an image label.

Where the paper is silent the scales are those of the released code: 5 for an object's objectness, 1 for the others,
predictions that overlap a truth by more than .6 are not pushed down. All terms are summed and divided by the images.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from wordtree import WordTree

from .assign import assign
from .boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from .head import Region, RegionHead
from .region import decode

Target = dict[str, Tensor]


@dataclass(frozen=True)
class LossScales:
    """The weights of the region loss (Darknet's v2 cfgs; the paper names only the IoU target)."""

    object: float = 5.0
    no_object: float = 1.0
    box: float = 1.0
    tree: float = 1.0
    ignore_iou: float = 0.6
    image_label_objectness: float = 0.3  # the paper's assumption of the overlap with a truth that has no box


class _Rows(NamedTuple):
    """Predictors that take the tree loss."""

    image: Tensor  # int64 [rows]
    row: Tensor
    column: Tensor
    anchor: Tensor
    labels: Tensor  # int64 [rows], nodes


def region_losses(
    head: RegionHead, region: Region, targets: list[Target], scales: LossScales = LossScales()
) -> dict[str, Tensor]:
    """The losses of one batch, images with boxes and images with a label alone.

    Args:
        head: its anchors, and its classifier where logits are asked for.
        region: its output for the batch.
        targets: one an image: {"boxes" float [n, 4] xyxy in fractions of the input, "labels" int64 [n] nodes}, or
            {"labels"} alone for an image label; optionally "known", bool [nodes].

    Returns:
        {"box", "objectness", "tree", "image_label"}: scalars, each a sum over its terms divided by the images.
        "tree" is of the boxes; "image_label" is the tree and the objectness term of the images with a label alone.
    """
    objectness = region.raw[..., 4].sigmoid()  # [b, h, w, a]
    boxed = [i for i, target in enumerate(targets) if "boxes" in target]
    labelled = [i for i, target in enumerate(targets) if "boxes" not in target]
    zero = region.raw.sum() * 0.0
    losses = {"box": zero, "objectness": zero, "tree": zero, "image_label": zero}
    parts: list[_Rows] = []
    if boxed:
        rows, losses["box"], losses["objectness"] = _boxed(head, region, objectness, targets, boxed, scales)
        parts.append(rows)
    if labelled:
        rows, losses["image_label"] = _labelled(head, region, objectness, targets, labelled, scales)
        parts.append(rows)
    # one call for both kinds: the gradient of a large classifier is then written once
    image, row, column, anchor, labels = (torch.cat(field) for field in zip(*parts, strict=True))
    known = _known_rows(targets, image)
    features = region.features[image, row, column]
    tree = scales.tree * head.classes.loss(features, labels, copy=anchor, known=known, reduction="none")
    boxes = len(parts[0].labels) if boxed else 0
    losses["tree"] = losses["tree"] + tree[:boxes].sum()
    losses["image_label"] = losses["image_label"] + tree[boxes:].sum()
    return {name: loss / len(targets) for name, loss in losses.items()}


def _boxed(
    head: RegionHead,
    region: Region,
    objectness: Tensor,
    targets: list[Target],
    boxed: list[int],
    scales: LossScales,
) -> tuple[_Rows, Tensor, Tensor]:
    """The predictors that answer for the truths, the box loss, and the objectness loss of every box."""
    b, h, w, a, _ = region.raw.shape
    device = region.raw.device
    image = torch.cat([torch.full((len(targets[i]["labels"]),), i, device=device) for i in boxed])
    truths = xyxy_to_cxcywh(torch.cat([targets[i]["boxes"] for i in boxed]).to(region.raw))  # [truths, 4]
    labels = torch.cat([targets[i]["labels"] for i in boxed])
    given = assign(image, truths, head.anchors, (h, w))
    at = (given.image, given.row, given.column, given.anchor)

    with torch.no_grad():
        predicted = decode(region.raw, head.anchors)  # [b, h, w, a, 4]
        corners = cxcywh_to_xyxy(predicted).view(b, -1, 4)
        best = torch.zeros(b, h * w * a, device=device, dtype=corners.dtype)
        for i in boxed:  # a loop over images; each step is one IoU matrix
            mine = truths[image == i]
            if len(mine):
                best[i] = box_iou(corners[i], cxcywh_to_xyxy(mine)).amax(1)
        overlap = _paired_iou(predicted[at], truths[given.truth])  # [assigned]
        aim = torch.zeros_like(objectness)
        weight = torch.zeros_like(objectness)
        weight[boxed] = scales.no_object
        weight[best.view_as(weight) > scales.ignore_iou] = 0.0
        weight *= _known_share(head, region, targets, boxed, objectness)
        aim[at] = overlap
        weight[at] = scales.object

    raw = region.raw[at]  # [assigned, 5]
    scale = torch.tensor([w, h], device=device, dtype=raw.dtype)
    wanted = truths[given.truth]
    offset = wanted[:, :2] * scale - torch.stack((given.column, given.row), dim=1)
    stretch = (wanted[:, 2:] * scale / head.anchors[given.anchor]).log()
    box = ((raw[:, :2].sigmoid() - offset) ** 2).sum() + ((raw[:, 2:4] - stretch) ** 2).sum()
    pushed = (weight * (objectness - aim) ** 2).sum()
    return _Rows(*at, labels[given.truth]), 0.5 * scales.box * box, 0.5 * pushed


def _labelled(
    head: RegionHead,
    region: Region,
    objectness: Tensor,
    targets: list[Target],
    labelled: list[int],
    scales: LossScales,
) -> tuple[_Rows, Tensor]:
    """Each image's box likeliest to hold its label, and the pull of its objectness up to .3 (paper section 4)."""
    _, h, w, a, _ = region.raw.shape
    images = torch.tensor(labelled, device=region.raw.device)
    labels = torch.cat([targets[i]["labels"].reshape(-1)[:1] for i in labelled])  # [labelled]
    with torch.no_grad():
        log_objectness = torch.nn.functional.logsigmoid(region.raw[images][..., 4]).reshape(len(images), -1)
        cells = region.features[images].reshape(len(images), h * w, -1)
        best = (log_objectness + head.classes.log_prob_grid(cells, labels).flatten(1)).argmax(1)
        anchor, cell = best % a, best // a
    at = (images, cell // w, cell % w, anchor)
    short = (scales.image_label_objectness - objectness[at]).clamp(min=0.0)
    return _Rows(*at, labels), 0.5 * scales.object * (short**2).sum()


def _paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of row i with row i. float [n, 4] cxcywh each -> [n]."""
    a, b = cxcywh_to_xyxy(a), cxcywh_to_xyxy(b)
    side = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    overlap = side.prod(1)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(1), (b[:, 2:] - b[:, :2]).prod(1)
    return overlap / (area_a + area_b - overlap)


def _known_rows(targets: list[Target], image: Tensor) -> Tensor | None:
    """bool [rows, nodes]: what each row's image knows; None where every image knows everything."""
    given = [target.get("known") for target in targets]
    first = next((known for known in given if known is not None), None)
    if first is None:
        return None
    table = torch.stack([torch.ones_like(first) if known is None else known for known in given])
    return table[image]


def _known_share(
    head: RegionHead, region: Region, targets: list[Target], boxed: list[int], objectness: Tensor
) -> Tensor:
    """How far each box without a truth may be pushed down: the probability that its class is one its source knows.

    1 everywhere for sources that know all; otherwise computed at boxes of objectness above .01, detached.
    """
    share = torch.ones_like(objectness)
    for i in boxed:
        known = targets[i].get("known")
        if known is None or bool(known.all()):
            continue
        row, column, anchor = (objectness[i] > 0.01).nonzero(as_tuple=True)
        if len(row):
            nodes = _deepest(known, head.classes.tree)
            log_probs = head.classes.log_probs_of(region.features[i, row, column], nodes, anchor)
            share[i, row, column, anchor] = log_probs.exp().sum(1).clamp(max=1.0).to(share.dtype)
    return share


def _deepest(known: Tensor, tree: WordTree) -> list[int]:
    """The known nodes without a known child: their subtrees share nothing, so their probabilities add up."""
    marks = known.cpu().numpy()
    has_known_child = np.zeros(len(tree), dtype=bool)
    inner = marks & (tree.parents >= 0)
    has_known_child[tree.parents[inner]] = True
    return np.flatnonzero(marks & ~has_known_child).tolist()
