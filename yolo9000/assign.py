"""Truths, in either form they are given, and the cells and anchors that answer for them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wordtree import WordTree, WordTreeError
from wordtree.nn.index import tree_index

from .boxes import shape_iou, xyxy_to_cxcywh

Target = dict[str, Tensor]
NO_BOX = 100_000  # a row of Darknet's whose x and y are above this is an image label; its loader writes 999999


class Truths(NamedTuple):
    """What a batch is to be taught. An image is either boxed, perhaps with no box in it, or labelled."""

    image: Tensor  # int64 [truths], ascending
    boxes: Tensor  # float [truths, 4] centre x, y, width, height, fractions of the network's input
    labels: Tensor  # int64 [truths], nodes
    boxed: list[int]  # images
    labelled: list[int]  # images
    image_labels: Tensor  # int64 [labelled], nodes
    ignored: tuple[tuple[int, Tensor], ...] = ()  # a boxed image, and its regions float [regions, 4] xyxy, fractions


class Assigned(NamedTuple):
    """The predictor that answers for each truth, in the truths' order."""

    image: Tensor  # int64 [truths]
    row: Tensor  # int64 [truths]
    column: Tensor  # int64 [truths]
    anchor: Tensor  # int64 [truths]
    predictor: Tensor  # int64 [truths], the four as one number
    last: Tensor  # int64 [held]: of the truths on one predictor the last, which takes it from the others, as in Darknet

    def at(self, truths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The index of some truths' predictors. int64 [n] -> image, row, column, anchor, int64 [n] each."""
        return self.image[truths], self.row[truths], self.column[truths], self.anchor[truths]


def truths_of_targets(targets: Sequence[Target], like: Tensor) -> Truths:
    """Targets on torchvision's contract, boxes xyxy in fractions of the input, in the type of `like`."""
    boxed = [i for i, target in enumerate(targets) if "boxes" in target]
    labelled = [i for i, target in enumerate(targets) if "boxes" not in target]
    image = [torch.full((len(targets[i]["labels"]),), i, device=like.device) for i in boxed]
    none = torch.zeros(0, dtype=torch.int64, device=like.device)
    boxes = [targets[i]["boxes"].reshape(-1, 4) for i in boxed]
    return Truths(
        torch.cat([none, *image]),
        xyxy_to_cxcywh(torch.cat([like.new_zeros(0, 4), *boxes]).to(like)),
        torch.cat([none, *(targets[i]["labels"] for i in boxed)]),
        boxed,
        labelled,
        torch.cat([none, *(targets[i]["labels"].reshape(-1)[:1] for i in labelled)]),
        tuple((i, targets[i]["ignored"].reshape(-1, 4).to(like)) for i in boxed if "ignored" in targets[i]),
    )


def truths_of_rows(rows: Tensor, nodes: int, label_map: Tensor | None, ends_at_hole: bool) -> Truths:
    """Darknet's rows.

    Args:
        rows: float [b, rows, 5], centre x, y, width, height in fractions, and the class. An image that has a row of
            999999 with a class is labelled, by the first such row, and whatever else it has counts for nothing.
        nodes: how many classes there are.
        label_map: int64 [labels], the node of each class of a box; image labels are nodes already.
        ends_at_hole: whether the first row whose x is 0 ends the list, or rows of zeros are passed over.

    Raises:
        WordTreeError: a box that lies outside its image or has no area, or a class that is none.
    """
    if ends_at_hole:
        real = (rows[..., 0] != 0).cumprod(1).bool()  # [b, rows]
    else:
        real = (rows[..., :4] != 0).any(-1)
    alone = real & (rows[..., :2] > NO_BOX).all(-1)
    labelled = alone.any(1)
    image, row = (real & ~labelled[:, None]).nonzero(as_tuple=True)
    boxes, labels = rows[image, row, :4], rows[image, row, 4].long()
    good = (boxes >= 0).all(-1) & (boxes[:, :2] <= 1).all(-1) & (boxes[:, 2:] > 0).all(-1) & boxes.isfinite().all(-1)
    if not bool(good.all()):
        one = int((~good).nonzero()[0])
        raise WordTreeError(
            f"truth {int(row[one])} of image {int(image[one])} is {boxes[one].tolist()}; a box has its centre in 0..1, "
            "and a width and a height above 0"
        )
    count = nodes if label_map is None else len(label_map)
    image_labels = rows[alone & (alone.cumsum(1) == 1)][:, 4].long()
    for what, given, most in (("a box", labels, count), ("an image", image_labels, nodes)):
        wrong = given[(given < 0) | (given >= most)]
        if len(wrong):
            raise WordTreeError(f"class {int(wrong[0])} of {what}; classes are 0 to {most - 1}")
    if label_map is not None:
        labels = label_map[labels]
    boxed, named = ((~labelled).nonzero()[:, 0].tolist(), labelled.nonzero()[:, 0].tolist())
    return Truths(image, boxes, labels, boxed, named, image_labels)


def assign(
    image: Tensor, boxes: Tensor, anchors: Tensor, grid: tuple[int, int], shapes: Tensor | None = None
) -> Assigned:
    """Give each truth the cell its centre lies in and the anchor whose shape is nearest by IoU (paper section 2).

    Args:
        image: int64 [truths], the image of each truth.
        boxes: float [truths, 4], centre x, y, width, height, fractions of the network's input.
        anchors: float [anchors, 2], width and height in cells.
        grid: rows and columns of cells.
        shapes: float [b, h, w, anchors, 2], fractions: the predicted shapes, where those are to decide instead of the
            anchors' (Darknet's `bias_match=0`).
    """
    rows, columns = grid
    scale = torch.tensor([columns, rows], device=boxes.device, dtype=boxes.dtype)
    cell = (boxes[:, :2] * scale).long()  # [truths, 2] column, row
    column, row = cell[:, 0].clamp(0, columns - 1), cell[:, 1].clamp(0, rows - 1)  # a centre on the far edge stays in
    if shapes is None:
        anchor = shape_iou(boxes[:, 2:] * scale, anchors.to(boxes.dtype)).argmax(1)
    else:
        predicted = shapes[image, row, column]  # [truths, anchors, 2]
        mine = boxes[:, None, 2:].to(predicted.dtype)
        overlap = torch.minimum(predicted, mine).prod(-1)
        anchor = (overlap / (predicted.prod(-1) + mine.prod(-1) - overlap)).argmax(1)
    predictor = ((image * rows + row) * columns + column) * len(anchors) + anchor
    # the last truth of each predictor: a stable sort keeps their order, and the end of each run is the last
    ordered, order = torch.sort(predictor, stable=True)
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return Assigned(image, row, column, anchor, predictor, order[last])


def overwritten(given: Assigned, labels: Tensor, tree: WordTree) -> tuple[Tensor, Tensor]:
    """Truths that lost their predictor to later ones, but not all of their path.

    In Darknet the later truth overwrites the groups on its own path; what the earlier one wrote in other groups stays.
    A path's groups are shared from the root down, so what stays is the loss of the whole path less that of its shared
    part.

    Args:
        given: the assignment.
        labels: int64 [truths], nodes.
        tree: their tree.

    Returns:
        int64 [lost]: the truths; int64 [lost]: the nodes at which the overwritten parts of their paths end.
    """
    index = tree_index(tree, labels.device)
    same = given.predictor[:, None] == given.predictor[None]
    earlier, later = same.triu(1).nonzero(as_tuple=True)
    group = index.group_of[labels]
    paths = index.path_groups[group]  # [truths, depth] groups from the root's down, then -1
    shared = ((paths[earlier] == paths[later]) & (paths[earlier] >= 0)).sum(1)
    most = torch.zeros_like(labels).scatter_reduce(0, earlier, shared, "amax")
    lost = ((most > 0) & (most < (paths >= 0).sum(1))).nonzero()[:, 0]
    return lost, index.path_nodes[group[lost], most[lost] - 1]
