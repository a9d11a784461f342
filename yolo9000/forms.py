"""The detector as one graph of fixed shapes: what is exported, and what a GPU replays without waiting for Python.

The dense form says everything about every box. The gated form takes the boxes that objectness ranks first and does all
that `Detector.detect` does with them: descent and suppression, unrolled by depth and by round.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from wordtree import WordTreeError
from wordtree.errors import unknown
from wordtree.nn import tree_log_prob
from wordtree.nn.index import Spans, tree_index, tree_spans
from wordtree.nn.suppression import are_relatives, pair_iou

from .detector import Detector
from .hardware import home_of
from .region import decode_xyxy

ROUNDS = 32  # of suppression: exact for chains of so many boxes, each kept or suppressed because of the one before
LOW = -1e30  # stands for minus infinity where a difference of two is taken
READS = ("asked", "whole")


class Dense(NamedTuple):
    """What the dense form gives; boxes are ordered row, column, anchor."""

    boxes: Tensor  # float [b, boxes, 4] xyxy, fractions of the input, not clipped
    objectness: Tensor  # float [b, boxes]
    log_probs: Tensor  # float [b, boxes, nodes] log Pr(node)


class Gated(NamedTuple):
    """What the gated form gives, the largest objectness first."""

    boxes: Tensor  # float [b, k, 4] xyxy, fractions of the input
    scores: Tensor  # float [b, k]
    labels: Tensor  # int64 [b, k] nodes, -1 for the root
    objectness: Tensor  # float [b, k]
    kept: Tensor  # bool [b, k] whether it is a detection: above the threshold and not suppressed


class DenseForm(nn.Module):
    """images float [b, 3, size, size] in 0..1 -> Dense."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Dense:
        """See the class."""
        raw, features = self.model.region(images)
        boxes = decode_xyxy(raw, self.model.head.anchors, self.model.head.location).flatten(1, 3)
        classes = self.model.head.classes
        logits = classes(features).float()  # [b, h, w, nodes], or [b, h, w, anchors, nodes]
        logits = logits.flatten(1, 3) if classes.copies > 1 else logits.flatten(1, 2)
        return Dense(boxes, raw[..., 4].sigmoid().flatten(1), tree_log_prob(logits, self.model.tree))


class GatedForm(nn.Module):
    """images float [b, 3, size, size] in 0..1 -> Gated: what `Detector.detect` finds, in fractions of the input.

    Args:
        model: a detector over a tree. In a flat model each box gets its likeliest class alone.
        candidates: boxes an image, k; all where there are fewer.
        reads: "asked": only the logits of the groups that a box above the threshold visits, whose number is known as
            the graph runs. "whole": all logits of the k boxes, every shape fixed, as a CUDA graph needs it.

    The model's thresholds and rules are those of the moment when this is made.
    """

    group_below: Tensor
    start: Tensor
    size: Tensor
    enter: Tensor
    leave: Tensor
    depth_of: Tensor

    def __init__(self, model: Detector, candidates: int = 300, reads: str = "asked") -> None:
        super().__init__()
        if candidates < 1:
            raise WordTreeError(f"{candidates} candidates asked of the gated form; give 1 or more, such as 300")
        if reads not in READS:
            raise unknown("reads", reads, READS)
        self.model = model
        self.candidates = candidates
        self.reads = reads
        self.threshold, self.iou, self.rule, self.clip = model.threshold, model.iou, model.rule, model.clip
        self.of_node = model.score == "product"
        self.among = model.suppression
        self.limit = math.log(model.tree_threshold) if model.tree_threshold > 0 else 2 * LOW
        tree, device = model.tree, home_of(model)
        if len(tree.group_start) == 1:  # flat: no step to be sure of
            self.limit, self.of_node, self.among = 2 * LOW, True, "same"
        by_depth = [tree.group_size[tree.group_of[tree.depths == depth]] for depth in range(int(tree.depths.max()) + 1)]
        self.widest = [int(sizes.max()) for sizes in by_depth]
        index, spans = tree_index(tree, device), tree_spans(tree, device)
        depth_of = torch.tensor(np.append(tree.depths, -1), device=device)  # the root's last
        tables = {**index._asdict(), **spans._asdict(), "depth_of": depth_of}
        for name in ("group_below", "start", "size", "enter", "leave", "depth_of"):
            self.register_buffer(name, tables[name].clone(), persistent=False)

    def forward(self, images: Tensor) -> Gated:
        """See the class."""
        raw, features = self.model.region(images)
        total, anchors = raw[0, ..., 0].numel(), raw.shape[3]
        objectness, at = raw[..., 4].sigmoid().flatten(1).topk(min(self.candidates, total))
        boxes = decode_xyxy(raw, self.model.head.anchors, self.model.head.location).flatten(1, 3)
        boxes = boxes.gather(1, at.unsqueeze(-1).expand(-1, -1, 4))
        cell, copy = torch.div(at, anchors, rounding_mode="floor"), at % anchors
        rows = features.flatten(1, 2)
        rows = rows.gather(1, cell.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))
        passing = objectness > self.threshold
        nodes, log_probs = self.descend(rows.flatten(0, 1), copy.flatten(), passing.flatten())
        nodes, log_probs = nodes.view_as(at), log_probs.view_as(objectness)
        scores = objectness * log_probs.exp() if self.of_node else objectness
        inside = boxes.clamp(0.0, 1.0)
        kept = self.suppress(inside if self.clip else boxes, scores, nodes, passing & (scores > self.threshold))
        return Gated(inside, scores, nodes, objectness, kept)

    def descend(self, x: Tensor, copy: Tensor, passing: Tensor) -> tuple[Tensor, Tensor]:
        """`wordtree.nn.descend` of the rows that pass, one turn a depth; -1 and 0 for the others.

        Args:
            x: float [rows, features].
            copy: int64 [rows], which classifier reads each.
            passing: bool [rows].
        """
        classes = self.model.head.classes
        whole = self._all_logits(x, copy) if self.reads == "whole" else None
        group = torch.where(passing, 0, -1)
        nodes = torch.full_like(copy, -1)
        log_probs = torch.zeros_like(x.select(1, 0), dtype=torch.float32)
        measure = log_probs
        for depth, widest in enumerate(self.widest):
            there = group >= 0
            start, size = self.start[group], self.size[group]  # of no group the last one's, which nothing reads
            member = torch.arange(widest, device=x.device)
            asked = (member < size.unsqueeze(1)) & there.unsqueeze(1)  # [rows, widest]
            if whole is None:
                row, member = asked.nonzero(as_tuple=True)
                column = start[row] + member + copy[row] * len(self.group_below)
                values = (x[row] * classes.weight.flatten(0, 1)[column]).sum(1) + classes.bias.flatten()[column]
                logits = torch.full_like(asked, LOW, dtype=torch.float32).index_put((row, member), values.float())
            else:
                column = (start.unsqueeze(1) + member).clamp(max=len(self.group_below) - 1)
                logits = torch.where(asked, whole.gather(1, column), LOW)
            best, which = logits.max(1)
            absolute = log_probs + best - logits.logsumexp(1)
            held = absolute if self.rule == "path" else measure + absolute
            passed = there & (held > self.limit)
            told = there if depth == 0 and self.rule == "darknet-2018" else passed
            nodes = torch.where(told, start + which, nodes)
            log_probs = torch.where(told, absolute, log_probs)
            measure = torch.where(passed, held, measure)
            group = torch.where(passed, self.group_below[nodes], -1)
        return nodes, log_probs

    def _all_logits(self, x: Tensor, copy: Tensor) -> Tensor:
        """float [rows, nodes], of each row's own classifier."""
        classes = self.model.head.classes
        logits: Tensor = classes(x).float()
        if classes.copies == 1:
            return logits
        return logits.gather(1, copy[:, None, None].expand(-1, 1, logits.shape[2])).squeeze(1)

    def suppress(self, boxes: Tensor, scores: Tensor, nodes: Tensor, alive: Tensor) -> Tensor:
        """`boxes.suppress` in each image. bool [b, k]: which of those alive are kept."""
        place = torch.arange(nodes.shape[1], device=nodes.device)
        one, other = scores.unsqueeze(2), scores.unsqueeze(1)
        on_tie = (place.unsqueeze(1) < place).unsqueeze(0)
        if self.among == "relatives":  # the deeper node first
            depth = self.depth_of[nodes]
            deep, other_deep = depth.unsqueeze(2), depth.unsqueeze(1)
            on_tie = (deep > other_deep) | ((deep == other_deep) & on_tie)
        beats = ((one > other) | ((one == other) & on_tie)) & (pair_iou(boxes) > self.iou)
        if self.among == "relatives":
            beats = beats & are_relatives(nodes, Spans(self.enter, self.leave))
        elif self.among == "same":
            beats = beats & (nodes.unsqueeze(2) == nodes.unsqueeze(1))
        beaten = beats.mT.float()  # beaten[j, i]: i comes first and suppresses j
        there = kept = alive.unsqueeze(2).float()
        for _ in range(ROUNDS):
            kept = torch.where(beaten @ kept > 0, 0.0, there)
        return kept.squeeze(2) > 0
