"""Box, objectness and tree loss for box targets and for image labels, in the paper's reading and the released code's.

One arithmetic for all. Logits come from the head, which computes those that the loss reads (`region_losses`, for
training), or from a dense output as Darknet lays it out (`region_loss`). Where the paper is silent the scales are those
of the released code: 5 for an object's objectness, 1 for the others; predictions that overlap a truth by more than .6
are not pushed down.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision.ops import box_iou

from wordtree import LabelMap, WordTree, WordTreeError
from wordtree.nn.softmax import at_least_float32

from .assign import Assigned, Target, Truths, assign, overwritten, truths_of_rows, truths_of_targets
from .boxes import cxcywh_to_xyxy, inside
from .classes import flat_tree
from .head import Region, RegionHead
from .logits import At, ClassLogits, DenseLogits, HeadLogits
from .lossrules import RULES, SCALES, LossRules, LossScales, find_rules, scales_of
from .region import decode, encode

__all__ = ["RULES", "LossRules", "LossScales", "Target", "find_rules", "region_loss", "region_losses", "scales_of"]

PRIOR = 0.01  # Darknet's scale of the pull towards the priors at the start of training
IGNORED = 0.5  # a box is left alone where more than this share of it lies in an ignored region
LIKELIEST = 128  # boxes an image among which the largest takes an image label (Detic's WS_NUM_PROPS)


def region_losses(
    head: RegionHead,
    region: Region,
    targets: Sequence[Target],
    scales: LossScales = SCALES,
    rules: LossRules = RULES["paper"],
    seen: int = 0,
    exclusive: bool = False,
) -> dict[str, Tensor]:
    """The losses of one batch, images with boxes and images with a label alone.

    Args:
        head: its anchors, and its classifier where logits are asked for.
        region: its output for the batch.
        targets: one an image: {"boxes" float [n, 4] xyxy in fractions of the input, "labels" int64 [n] nodes}, or
            {"labels"} alone for an image label; optionally "known", bool [nodes], and beside boxes "ignored" float
            [m, 4], regions in which nothing is known: a box that lies in one by more than half, and answers for no
            truth, is not pushed down.
        scales, rules: the numbers, and the reading.
        seen: how many images the network was trained on, this batch included; rules with `prior_images` ask.
        exclusive: whether a label denies its siblings, those that its source does not know too: a dog is no cat.
            Without it they leave the softmax.

    Returns:
        {"box", "objectness", "tree", "image_label"}: scalars, each a sum over its terms divided by the images.
        "tree" is of the boxes; "image_label" is the tree and the objectness term of the images with a label alone.
    """
    classes = HeadLogits(head, region, [target.get("known") for target in targets], exclusive)
    truths = truths_of_targets(targets, region.raw)
    sums = _sums(region.raw, classes, truths, head.anchors, scales, rules, seen, head.location)
    return {name: loss / len(targets) for name, loss in sums.losses.items()}


def region_loss(
    raw: Tensor,
    truths: Tensor,
    anchors: Tensor | Sequence[Sequence[float]],
    tree: WordTree | None = None,
    mode: str = "paper",
    seen: int = 0,
    label_map: Any = None,
    rescore: bool = True,
    bias_match: bool = True,
    scales: LossScales = SCALES,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The region layer of the original program: its loss on a dense output, by a reading's rules.

    Args:
        raw: float [b, anchors * (5 + nodes), h, w], logits as Darknet lays them out: for each anchor tx, ty, tw, th,
            to and the classes.
        truths: float [b, rows, 5]: centre x, y, width, height in fractions of the input, and the class; rows of zeros
            end the list. A row of 999999 with a class is an image label: no box is known, and no other row of its
            image counts. Cells are found in the type given.
        anchors: float [anchors, 2], width and height in cells.
        tree: the classes; None for one softmax over all of them.
        mode: "paper", "darknet" (the release of 2017-01) or "darknet-2018"; see docs/modes.md.
        seen: how many images the network was trained on, this batch included: Darknet pulls boxes towards their priors
            while it is below 12,800.
        label_map: the node of each class of a box, int64 [labels], or a `LabelMap`; image labels are nodes already.
        rescore, bias_match: as a cfg's region section; see `LossScales`.
        scales: its other numbers.

    Returns:
        the loss, a scalar, summed over images as Darknet sums; its gradient with respect to `raw` is -delta.
        delta, the shape of `raw`: what Darknet adds to the weights' updates.
        parts, scalars without a gradient: the losses "box", "objectness", "tree" and "image_label", whose sum is the
        loss; and what Darknet prints: "cost" (the sum of delta squared; of 2018 before the logistic's derivative), and
        "avg_iou", "class", "obj", "no_obj", "avg_recall" and "count", means over truths, NaN where there is none.

    Raises:
        WordTreeError: shapes that do not fit, numbers that are not finite, a box outside its image, a class that is
            none, an unknown mode, or an image label where the released code knows none (a flat set of classes).

    Example:
        >>> truths = torch.tensor([[[0.5, 0.5, 0.25, 0.25, 1.0], [0.0] * 5]])  # one image, one box of class 1
        >>> raw = torch.zeros(1, 2 * (5 + 3), 4, 4, requires_grad=True)
        >>> loss, delta, parts = region_loss(raw, truths, [[1.0, 1.0], [2.0, 3.0]], mode="darknet", seen=64)
        >>> loss.backward()
        >>> bool((raw.grad == -delta).all()), float(parts["count"]), round(float(parts["class"]), 3)
        (True, 1.0, 0.333)
    """
    rules, truths = find_rules(mode), torch.as_tensor(truths)
    flat = tree is None
    priors = torch.as_tensor(anchors, device=raw.device).reshape(-1, 2)
    tree = _checked(raw, truths, len(priors), tree)
    given = truths_of_rows(truths.to(raw.device), len(tree), _map(label_map, tree, raw.device), rules.ends_at_hole)
    if flat and given.labelled and rules.push_down:
        raise WordTreeError(
            f"an image label for image {given.labelled[0]} over {len(tree)} flat classes; the released code ({mode!r}) "
            "knows image labels in a tree alone: give a tree, or mode 'paper'"
        )
    scales = replace(scales, rescore=rescore and scales.rescore, bias_match=bias_match and scales.bias_match)
    b, _, h, w = raw.shape
    with torch.enable_grad():
        cells = at_least_float32(raw.detach()).view(b, len(priors), -1, h, w).permute(0, 3, 4, 1, 2)
        cells.requires_grad_()  # [b, h, w, anchors, 5 + nodes]
        classes = DenseLogits(cells, tree)
        sums = _sums(cells[..., :5], classes, given, priors.to(cells.dtype), scales, rules, seen)
        loss = torch.stack(list(sums.losses.values())).sum()
        of_cells, of_near = torch.autograd.grad(loss, (cells, sums.near))
    parts = {name: part.detach() for name, part in sums.losses.items()}
    with torch.no_grad():
        printed = of_cells
        if not rules.logistic_cost:
            printed = torch.cat((of_near[..., :2], of_cells[..., 2:4], of_near[..., 4:], of_cells[..., 5:]), dim=-1)
        parts |= {"cost": (printed**2).sum(), **_printed(sums, classes, given)}
    delta = -of_cells.permute(0, 3, 4, 1, 2).reshape(raw.shape)
    return _Given.apply(raw, loss.detach(), delta), delta, parts


# ---------------------------------------------------------------------- the arithmetic


class _Sums(NamedTuple):
    """The losses of a batch, summed over its images, and what they were made of."""

    losses: dict[str, Tensor]
    near: Tensor  # float [b, h, w, anchors, 5], the logistic of tx, ty, tw, th, to
    given: Assigned
    overlap: Tensor  # float [truths], each truth's IoU with the box that answers for it
    chosen: At  # the box of each image label


def _sums(
    raw: Tensor,
    classes: ClassLogits,
    truths: Truths,
    anchors: Tensor,
    scales: LossScales,
    rules: LossRules,
    seen: int,
    location: str = "direct",
) -> _Sums:
    """The losses. raw: float [b, h, w, anchors, 5]; anchors: float [anchors, 2], cells."""
    near = raw.sigmoid()
    objectness = near[..., 4]
    with torch.no_grad():
        boxes = decode(raw, anchors, location)  # [b, h, w, a, 4]
        shapes = None if scales.bias_match else boxes[..., 2:]
        given = assign(truths.image, truths.boxes, anchors, (raw.shape[1], raw.shape[2]), shapes)
        wanted = truths.boxes.to(raw.dtype)
        overlap = _paired_iou(boxes[given.image, given.row, given.column, given.anchor], wanted)
        chosen = _chosen(classes, truths, boxes, objectness, rules)
        aim, weight = _objectness(boxes, objectness, classes, truths, wanted, given, overlap, chosen, scales, rules)
    box = _box(raw, near, wanted[given.last], given, anchors, scales, rules, location)
    if truths.boxed and seen < rules.prior_images and location != "image":
        box = box + _priors(raw, near, truths, given, location)
    pushed = 0.5 * (weight * (objectness - aim) ** 2).sum((1, 2, 3))  # [b]

    # one call for boxes and image labels: the gradient of a large classifier is then written once
    rows, nodes, counts = _rows(classes.tree, truths, given, chosen, rules)
    tree = scales.tree * classes.loss(rows, nodes)
    named = len(truths.labelled)
    of_boxes, of_images = tree[: len(tree) - named], tree[len(tree) - named :]
    losses = {
        "box": box,
        "objectness": pushed[truths.boxed].sum(),
        "tree": (of_boxes if counts is None else of_boxes * counts).sum(),
        "image_label": of_images.sum() + pushed[truths.labelled].sum(),
    }
    return _Sums(losses, near, given, overlap, chosen)


def _chosen(classes: ClassLogits, truths: Truths, boxes: Tensor, objectness: Tensor, rules: LossRules) -> At:
    """The box of each image label: the likeliest to be an object that the label names (paper section 4), or a large
    one."""
    images = torch.tensor(truths.labelled, dtype=torch.int64, device=truths.image.device)
    if not len(images):
        return images, images, images, images
    _, _, w, a = objectness.shape
    if rules.largest:
        best = largest(cxcywh_to_xyxy(boxes[images]).flatten(1, 3).clamp(0, 1), objectness[images].flatten(1))
        return images, best // (w * a), best // a % w, best % a
    if rules.surest:
        best = objectness[images].flatten(1).argmax(1)
        return images, best // (w * a), best // a % w, best % a
    odds = classes.log_odds(images, truths.image_labels)  # [labelled, h, w, a]
    if rules.single:
        odds = odds.double().exp().float()
    _, h, w, a = odds.shape
    if rules.anchors_first:
        best = odds.permute(0, 3, 1, 2).flatten(1).argmax(1)
        return images, best // w % h, best % w, best // (h * w)
    best = odds.flatten(1).argmax(1)
    return images, best // (w * a), best // a % w, best % a


def largest(corners: Tensor, objectness: Tensor) -> Tensor:
    """The largest of the 128 likeliest boxes of each image; on a tie the likelier, then the first.

    float [b, boxes, 4] xyxy and [b, boxes] -> int64 [b].
    """
    likeliest = objectness.argsort(dim=1, descending=True, stable=True)[:, :LIKELIEST]
    areas = (corners[..., 2:] - corners[..., :2]).prod(-1).gather(1, likeliest)
    return likeliest.gather(1, areas.argmax(1, keepdim=True))[:, 0]


def _objectness(
    boxes: Tensor,
    objectness: Tensor,
    classes: ClassLogits,
    truths: Truths,
    wanted: Tensor,
    given: Assigned,
    overlap: Tensor,
    chosen: At,
    scales: LossScales,
    rules: LossRules,
) -> tuple[Tensor, Tensor]:
    """What each box's objectness is drawn to, and how strongly: float [b, h, w, a] each."""
    b = len(boxes)
    corners = cxcywh_to_xyxy(boxes).view(b, -1, 4)
    best = corners.new_zeros(corners.shape[:2])  # IoU with the nearest truth
    for i in truths.boxed:  # a loop over images; each step is one IoU matrix
        mine = wanted[truths.image == i]
        if len(mine):
            best[i] = box_iou(corners[i], cxcywh_to_xyxy(mine)).amax(1)
    aim, weight = torch.zeros_like(objectness), torch.zeros_like(objectness)
    weight[truths.boxed] = scales.no_object
    weight[best.view_as(weight) > scales.ignore_iou] = 0.0
    for i, regions in truths.ignored if rules.ignores else ():
        if len(regions):
            weight[i].view(-1)[inside(corners[i], regions).amax(1) > IGNORED] = 0.0
    share = classes.known_share(truths.boxed, objectness)
    if share is not None:
        weight *= share
    held = given.at(given.last)
    aim[held] = overlap[given.last] if scales.rescore else 1.0
    weight[held] = scales.object
    if truths.labelled:
        if rules.push_down:
            weight[truths.labelled] = scales.no_object
        low = objectness[chosen] < scales.image_label_objectness
        aim[chosen] = scales.image_label_objectness
        weight[chosen] = low.to(weight) * (scales.object if rules.pull_up else 0.0)
    return aim, weight


def _box(
    raw: Tensor,
    near: Tensor,
    wanted: Tensor,
    given: Assigned,
    anchors: Tensor,
    scales: LossScales,
    rules: LossRules,
    location: str,
) -> Tensor:
    """Half the squared distance from the truths, in sigmoid(tx), sigmoid(ty), tw, th. wanted: float [held, 4]."""
    _, h, w, _, _ = raw.shape
    at = given.at(given.last)
    _, row, column, anchor = at
    grid = torch.tensor([w, h], device=raw.device, dtype=raw.dtype)
    aim = encode(wanted, torch.stack((column, row), dim=1), anchors[anchor], grid, location)
    centre = near if location == "direct" else raw
    distance = ((centre[at][:, :2] - aim[:, :2]) ** 2).sum(1) + ((raw[at][:, 2:4] - aim[:, 2:]) ** 2).sum(1)
    if rules.small_boxes:
        distance = distance * (2 - wanted[:, 2] * wanted[:, 3])
    return 0.5 * scales.box * distance.sum()


def _priors(raw: Tensor, near: Tensor, truths: Truths, given: Assigned, location: str) -> Tensor:
    """The pull of the boxes of boxed images that answer for no truth towards their prior in the middle of the cell."""
    free = torch.zeros(raw.shape[:-1], dtype=raw.dtype, device=raw.device)
    free[truths.boxed] = PRIOR
    free[given.at(given.last)] = 0.0
    centre = near[..., :2] - 0.5 if location == "direct" else raw[..., :2]
    return 0.5 * (free * ((centre**2).sum(-1) + (raw[..., 2:4] ** 2).sum(-1))).sum()


def _rows(
    tree: WordTree, truths: Truths, given: Assigned, chosen: At, rules: LossRules
) -> tuple[At, Tensor, Tensor | None]:
    """The boxes that take the tree loss, those of image labels last; their nodes; and how each but those counts."""
    held = given.last
    nodes, counts = truths.labels[held], None
    if rules.groups_stay:
        lost, ends = overwritten(given, truths.labels, tree)
        nodes = torch.cat((nodes, truths.labels[lost], ends))
        counts = torch.ones(len(nodes), device=nodes.device)
        counts[len(counts) - len(lost) :] = -1.0
        held = torch.cat((held, lost, lost))
    image, row, column, anchor = (torch.cat(pair) for pair in zip(given.at(held), chosen, strict=True))
    return (image, row, column, anchor), torch.cat((nodes, truths.image_labels)), counts


def _paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of row i with row i. float [n, 4] cxcywh each -> [n]."""
    a, b = cxcywh_to_xyxy(a), cxcywh_to_xyxy(b)
    side = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    overlap = side.prod(1)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(1), (b[:, 2:] - b[:, :2]).prod(1)
    return overlap / (area_a + area_b - overlap)


# ---------------------------------------------------------------------- the dense form


class _Given(torch.autograd.Function):
    """A value whose gradient was worked out with it."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, value: Tensor, delta: Tensor) -> Tensor:
        ctx.save_for_backward(delta)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (delta,) = ctx.saved_tensors
        return -grad * delta, None, None


def _printed(sums: _Sums, classes: DenseLogits, truths: Truths) -> dict[str, Tensor]:
    """Darknet's line: over all truths, those included that lost their box to a later one."""
    given, objectness = sums.given, sums.near[..., 4]
    everyone = torch.arange(len(truths.labels), device=objectness.device)
    rows = tuple(torch.cat(pair) for pair in zip(given.at(everyone), sums.chosen, strict=True))
    probs = (-classes.loss((rows[0], rows[1], rows[2], rows[3]), torch.cat((truths.labels, truths.image_labels)))).exp()
    return {
        "avg_iou": sums.overlap.mean(),
        "class": probs.mean(),
        "obj": objectness[given.at(everyone)].mean(),
        "no_obj": objectness[truths.boxed].sum() / objectness.numel(),
        "avg_recall": (sums.overlap > 0.5).to(objectness.dtype).mean(),
        "count": sums.overlap.new_tensor(len(truths.labels)),
    }


def _checked(raw: Tensor, truths: Tensor, anchors: int, tree: WordTree | None) -> WordTree:
    """The tree of the classes, n leaves where none is given; refuses what does not fit."""
    channels = raw.shape[1] if raw.dim() == 4 else 0
    each = channels // anchors if anchors and not channels % anchors else 0
    if each < 6 or (tree is not None and each != 5 + len(tree)):
        what = "5 + classes" if tree is None else f"{5 + len(tree)}"
        raise WordTreeError(
            f"a raw output of {tuple(raw.shape)} for {anchors} anchors; give [b, {anchors} * ({what}), h, w]"
        )
    if truths.dim() != 3 or truths.shape[-1] != 5 or len(truths) != len(raw):
        raise WordTreeError(f"truths of {tuple(truths.shape)} for {len(raw)} images; give [{len(raw)}, rows, 5]")
    for what, values in (("raw output", raw), ("set of truths", truths)):
        wrong = int((~values.isfinite()).sum())
        if wrong:
            raise WordTreeError(f"a {what} with {wrong} numbers that are not finite; give numbers")
    return _flat(each - 5) if tree is None else tree


@lru_cache(maxsize=8)
def _flat(classes: int) -> WordTree:
    """A flat set of classes: a tree of leaves, whose root's group is the one softmax."""
    return flat_tree([f"class_{node}" for node in range(classes)])


def _map(label_map: Any, tree: WordTree, device: torch.device) -> Tensor | None:
    """int64 [labels], nodes of the tree."""
    if label_map is None:
        return None
    nodes = torch.as_tensor(label_map.nodes_on(tree) if isinstance(label_map, LabelMap) else label_map, device=device)
    if nodes.dim() != 1 or nodes.is_floating_point() or bool(((nodes < 0) | (nodes >= len(tree))).any()):
        raise WordTreeError(
            f"a label map of {tuple(nodes.shape)}, {nodes.dtype}; give the node of each label, int64 [labels] in 0 to "
            f"{len(tree) - 1}"
        )
    return nodes.long()
