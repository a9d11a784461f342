"""The slow obvious form of each formula: loops over nodes, cells and truths, from parents and numbers alone.

Nothing here is shared with the library: a tree is read through `tree.parents`, and every loop is written out. The
functions of logits take one row as a float64 tensor and are differentiable, so they stand for gradients too.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from wordtree import WordTree


def path(node: int, tree: WordTree) -> list[int]:
    """The nodes from the root child down to `node`."""
    steps = []
    while node != -1:
        steps.insert(0, node)
        node = int(tree.parents[node])
    return steps


def siblings(node: int, tree: WordTree) -> list[int]:
    """The group of a node, itself included."""
    return [other for other in range(len(tree)) if tree.parents[other] == tree.parents[node]]


def children(node: int, tree: WordTree) -> list[int]:
    """The children of a node; of the root for -1."""
    return [other for other in range(len(tree)) if tree.parents[other] == node]


def log_conditional(logits: Tensor, node: int, tree: WordTree) -> Tensor:
    """log Pr(node | parent)."""
    return logits[node] - torch.logsumexp(torch.stack([logits[other] for other in siblings(node, tree)]), 0)


def log_prob(logits: Tensor, node: int, tree: WordTree) -> Tensor:
    """log Pr(node): conditionals summed over the path."""
    total = logits.new_zeros(())
    for step in path(node, tree):
        total = total + log_conditional(logits, step, tree)
    return total


def cross_entropy(
    logits: Tensor, target: int, tree: WordTree, known: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """The loss of one row: in each group on the path, cross-entropy with a target spread by `smoothing`."""
    total = logits.new_zeros(())
    for step in path(target, tree):
        group = [other for other in siblings(step, tree) if known is None or other == step or bool(known[other])]
        denominator = torch.logsumexp(torch.stack([logits[other] for other in group]), 0)
        for other in group:
            wanted = smoothing / len(group) + (1 - smoothing) * (other == step)
            total = total - wanted * (logits[other] - denominator)
    return total


def descend(logits: Tensor, tree: WordTree, threshold: float, rule: str) -> tuple[int, float, list[float]]:
    """(node, log Pr(node), what was held against the threshold at each step tried)."""
    limit = math.log(threshold) if threshold else -math.inf
    at, log_at, measure, tried = -1, 0.0, 0.0, []
    while group := children(at, tree):
        best = max(group, key=lambda node: float(logits[node]))  # the first of equals
        log_best = log_at + float(log_conditional(logits, best, tree))
        held = log_best if rule == "path" else measure + log_best
        tried.append(held)
        if held <= limit:
            if at == -1 and rule == "darknet-2018":
                return best, log_best, tried
            break
        at, log_at, measure = best, log_best, held
    return at, log_at, tried


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """IoU of two xyxy boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def relatives(a: int, b: int, tree: WordTree) -> bool:
    """One node, or one above the other; the root (-1) is above all."""
    return a == -1 or b == -1 or a in path(b, tree) or b in path(a, tree)


def suppress(
    boxes: Sequence[Sequence[float]], scores: Sequence[float], nodes: Sequence[int], tree: WordTree, limit: float
) -> list[int]:
    """Greedy: from the best down, keep what no kept relative overlaps; the deeper node first on a tie of scores."""
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], -len(path(nodes[i], tree)), i))
    kept: list[int] = []
    for one in order:
        if not any(relatives(nodes[one], nodes[k], tree) and iou(boxes[one], boxes[k]) > limit for k in kept):
            kept.append(one)
    return kept


def suppress_among(
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float],
    nodes: Sequence[int],
    images: Sequence[int],
    limit: float,
    among: str,
) -> list[int]:
    """Greedy in each image, image by image: the best first, the earlier of equals; among "all" or the "same" node."""
    kept: list[int] = []
    for one in sorted(range(len(boxes)), key=lambda i: (images[i], -scores[i], i)):
        rivals = [k for k in kept if images[k] == images[one] and (among == "all" or nodes[k] == nodes[one])]
        if not any(iou(boxes[one], boxes[k]) > limit for k in rivals):
            kept.append(one)
    return kept


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def decode(
    raw: Sequence[float], row: int, column: int, rows: int, columns: int, anchor: Sequence[float]
) -> list[float]:
    """One predictor's tx, ty, tw, th -> xyxy in fractions of the input."""
    x, y = (column + sigmoid(raw[0])) / columns, (row + sigmoid(raw[1])) / rows
    width, height = math.exp(raw[2]) * anchor[0] / columns, math.exp(raw[3]) * anchor[1] / rows
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def share_inside(box: Sequence[float], region: Sequence[float]) -> float:
    """How much of a box lies in a region, as a share of the box."""
    width = min(box[2], region[2]) - max(box[0], region[0])
    height = min(box[3], region[3]) - max(box[1], region[1])
    return max(0.0, width) * max(0.0, height) / ((box[2] - box[0]) * (box[3] - box[1]))


def region_loss(
    raw: Tensor,
    logits: Tensor,
    targets: Sequence[dict[str, Tensor]],
    anchors: Tensor,
    tree: WordTree,
    image_label: str = "score",
) -> dict[str, Tensor]:
    """The paper's losses of one batch by loops over images, cells, anchors and truths.

    image_label: the rule by which an image label finds its box: "score", "area", "objectness" or "darknet".

    raw: float64 [b, h, w, anchors, 5]; logits: float64 [b, h, w, anchors, nodes]; targets as for `region_losses`.
    Aims (IoU, .3) and choices (who is responsible) are numbers; the rest is differentiable in raw and logits.
    """
    b, h, w, a, _ = raw.shape
    box = objectness = tree_loss = named = raw.new_zeros(())
    for i, target in enumerate(targets):
        predictors = [(row, column, anchor) for row in range(h) for column in range(w) for anchor in range(a)]
        if "boxes" not in target:
            label = int(target["labels"][0])
            odds = [
                (torch.nn.functional.logsigmoid(raw[i][at][4]) + log_prob(logits[i][at], label, tree)).item()
                for at in predictors
            ]
            at = predictors[odds.index(max(odds))]
            if image_label == "area":
                areas = {}
                for at in predictors:
                    found = decode(raw[i][at].tolist(), at[0], at[1], h, w, anchors[at[2]].tolist())
                    left, top, right, bottom = (min(1.0, max(0.0, edge)) for edge in found)
                    areas[at] = (right - left) * (bottom - top)
                order = sorted(range(len(predictors)), key=[-raw[i][at][4].item() for at in predictors].__getitem__)
                likeliest = [predictors[place] for place in order[:128]]
                at = max(likeliest, key=areas.__getitem__)  # the first, which is the likeliest, of equals
            if image_label == "objectness":
                at = max(predictors, key=lambda place: raw[i][place][4].item())
            named = named + cross_entropy(logits[i][at], label, tree, target.get("known"))
            for other in predictors:
                if image_label == "darknet" and other != at:
                    named = named + 0.5 * raw[i][other][4].sigmoid() ** 2
            confidence = raw[i][at][4].sigmoid()
            if confidence < 0.3:
                named = named + 0.5 * 5 * (confidence - 0.3) ** 2
            continue
        truths = target["boxes"].tolist()
        holder: dict[tuple[int, int, int], int] = {}
        for number, (left, top, right, bottom) in enumerate(truths):
            column, row = min(int((left + right) / 2 * w), w - 1), min(int((top + bottom) / 2 * h), h - 1)
            width, height = (right - left) * w, (bottom - top) * h
            shapes = [
                min(width, aw) * min(height, ah) / (width * height + aw * ah - min(width, aw) * min(height, ah))
                for aw, ah in anchors.tolist()
            ]
            holder[row, column, shapes.index(max(shapes))] = number  # a later truth takes its place
        for at in predictors:
            row, column, anchor = at
            found = decode(raw[i][at].tolist(), row, column, h, w, anchors[anchor].tolist())
            confidence = raw[i][at][4].sigmoid()
            if at not in holder:
                if max((share_inside(found, region) for region in target.get("ignored", ())), default=0.0) > 0.5:
                    continue
                if max((iou(found, truth) for truth in truths), default=0.0) <= 0.6:
                    share = known_share(raw[i][at], logits[i][at], target.get("known"), tree)
                    objectness = objectness + 0.5 * share * confidence**2
                continue
            left, top, right, bottom = truths[holder[at]]
            objectness = objectness + 0.5 * 5 * (confidence - iou(found, truths[holder[at]])) ** 2
            wanted_x, wanted_y = (left + right) / 2 * w - column, (top + bottom) / 2 * h - row
            wanted_w = math.log((right - left) * w / float(anchors[anchor, 0]))
            wanted_h = math.log((bottom - top) * h / float(anchors[anchor, 1]))
            box = (
                box + 0.5 * (raw[i][at][0].sigmoid() - wanted_x) ** 2 + 0.5 * (raw[i][at][1].sigmoid() - wanted_y) ** 2
            )
            box = box + 0.5 * (raw[i][at][2] - wanted_w) ** 2 + 0.5 * (raw[i][at][3] - wanted_h) ** 2
            label = int(target["labels"][holder[at]])
            tree_loss = tree_loss + cross_entropy(logits[i][at], label, tree, target.get("known"))
    parts = {"box": box, "objectness": objectness, "tree": tree_loss, "image_label": named}
    return {name: value / b for name, value in parts.items()}


def known_share(raw: Tensor, logits: Tensor, known: Tensor | None, tree: WordTree) -> float:
    """The probability that the class is one the source knows, a number; 1 where all is known or objectness is tiny."""
    if known is None or bool(known.all()) or raw[4].sigmoid().item() <= 0.01:
        return 1.0
    deepest = [
        node for node in range(len(tree)) if known[node] and not any(known[child] for child in children(node, tree))
    ]
    return sum(log_prob(logits, node, tree).exp().item() for node in deepest)
