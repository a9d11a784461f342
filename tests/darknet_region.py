"""Darknet's region layer by loops in float64, written from its description: what it adds to each logit, cell by cell.

Nothing here is shared with the library. The rules that differ by reading stand as `if` where they apply.
"""

import math
from collections.abc import Sequence

import numpy as np

Box = tuple[float, float, float, float]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def iou(a: Box, b: Box) -> float:
    """Of two boxes, centre x, y, width, height."""
    sides = []
    for centre, side in ((0, 2), (1, 3)):
        low = max(a[centre] - a[side] / 2, b[centre] - b[side] / 2)
        high = min(a[centre] + a[side] / 2, b[centre] + b[side] / 2)
        if high < low:
            return 0.0
        sides.append(high - low)
    overlap = sides[0] * sides[1]
    return overlap / (a[2] * a[3] + b[2] * b[3] - overlap)


class Layer:
    """The layer over one batch. `parents` of the classes, or None for a flat set."""

    def __init__(
        self,
        raw: np.ndarray,
        anchors: Sequence[Sequence[float]],
        parents: Sequence[int] | None,
        mode: str,
        seen: int,
        label_map: Sequence[int] | None,
        rescore: bool,
        bias_match: bool,
    ) -> None:
        b, channels, self.h, self.w = raw.shape
        self.anchors, self.mode, self.seen, self.label_map = anchors, mode, seen, label_map
        self.rescore, self.bias_match = rescore, bias_match
        self.classes = channels // len(anchors) - 5
        self.tree = parents is not None
        self.parents = parents if parents is not None else [-1] * self.classes
        self.raw = raw.reshape(b, len(anchors), -1, self.h, self.w)
        self.delta = np.zeros_like(self.raw)

    def run(self, truths: np.ndarray) -> np.ndarray:
        for image, rows in enumerate(truths.tolist()):
            listed = []
            for row in rows:
                if self.mode != "paper" and row[0] == 0:
                    break
                if any(row[:4]):
                    listed.append(row)
            named = [row for row in listed if row[0] > 100000 and row[1] > 100000]
            if named:
                self.image_label(image, int(named[0][4]))
            else:
                self.boxed(image, listed)
        return self.delta.reshape(len(self.raw), -1, self.h, self.w)

    def everywhere(self) -> list[tuple[int, int, int]]:
        """anchor, row, column of all predictors, in the order that the reading looks through them."""
        rows, columns, anchors = range(self.h), range(self.w), range(len(self.anchors))
        if self.mode == "darknet-2018":
            return [(n, j, i) for n in anchors for j in rows for i in columns]
        return [(n, j, i) for j in rows for i in columns for n in anchors]

    def box(self, image: int, n: int, j: int, i: int) -> Box:
        x, y, w, h = self.raw[image, n, :4, j, i].tolist()
        wide, high = self.anchors[n]
        return (
            (i + sigmoid(x)) / self.w,
            (j + sigmoid(y)) / self.h,
            math.exp(w) * wide / self.w,
            math.exp(h) * high / self.h,
        )

    def group(self, node: int) -> list[int]:
        return [other for other in range(self.classes) if self.parents[other] == self.parents[node]]

    def conditional(self, image: int, n: int, j: int, i: int, node: int) -> float:
        logits = self.raw[image, n, 5:, j, i]
        top = max(logits[other] for other in self.group(node))
        return math.exp(logits[node] - top) / sum(math.exp(logits[other] - top) for other in self.group(node))

    def set_objectness(self, image: int, n: int, j: int, i: int, aim: float, scale: float) -> None:
        o = sigmoid(self.raw[image, n, 4, j, i])
        self.delta[image, n, 4, j, i] = scale * (aim - o) * o * (1 - o)

    def set_box(self, image: int, n: int, j: int, i: int, aims: Sequence[float], scale: float) -> None:
        for entry, aim in enumerate(aims):
            value = self.raw[image, n, entry, j, i]
            if entry < 2:
                s = sigmoid(value)
                self.delta[image, n, entry, j, i] = scale * (aim - s) * s * (1 - s)
            else:
                self.delta[image, n, entry, j, i] = scale * (aim - value)

    def set_class(self, image: int, n: int, j: int, i: int, label: int) -> None:
        if self.mode == "paper":
            self.delta[image, n, 5:, j, i] = 0  # the whole class loss is the later truth's
        node = label
        while node != -1:
            for other in self.group(node):
                p = self.conditional(image, n, j, i, other)
                self.delta[image, n, 5 + other, j, i] = (other == node) - p
            node = self.parents[node]

    def image_label(self, image: int, label: int) -> None:
        best, chosen = 0.0, self.everywhere()[0]
        for at in self.everywhere():
            if self.mode != "paper":
                self.set_objectness(image, *at, 0.0, 1.0)
            odds, node = (1.0 if self.mode == "paper" else np.float32(1)), label
            while node != -1:
                p = self.conditional(image, *at, node)
                odds = odds * (p if self.mode == "paper" else np.float32(p))
                node = self.parents[node]
            o = sigmoid(self.raw[image, at[0], 4, at[1], at[2]])
            odds = odds * (o if self.mode == "paper" else np.float32(o))
            if odds > best:
                best, chosen = odds, at
        self.set_class(image, *chosen, label)
        low = sigmoid(self.raw[image, chosen[0], 4, chosen[1], chosen[2]]) < 0.3
        pulled = low and self.mode != "darknet-2018"
        self.set_objectness(image, *chosen, 0.3, 5.0 if pulled else 0.0)

    def boxed(self, image: int, truths: list[list[float]]) -> None:
        for n, j, i in self.everywhere():
            found = self.box(image, n, j, i)
            best = max((iou(found, tuple(truth[:4])) for truth in truths), default=0.0)
            self.set_objectness(image, n, j, i, 0.0, 0.0 if best > 0.6 else 1.0)
            if self.mode != "paper" and self.seen < 12800:
                self.set_box(image, n, j, i, (0.5, 0.5, 0.0, 0.0), 0.01)
        for x, y, w, h, label in truths:
            i, j = min(int(x * self.w), self.w - 1), min(int(y * self.h), self.h - 1)
            best, n = 0.0, 0
            for anchor, (wide, high) in enumerate(self.anchors):
                _, _, pw, ph = self.box(image, anchor, j, i)
                if self.bias_match:
                    pw, ph = wide / self.w, high / self.h
                same = iou((0, 0, pw, ph), (0, 0, w, h))
                if same > best:
                    best, n = same, anchor
            wide, high = self.anchors[n]
            aims = (x * self.w - i, y * self.h - j, math.log(w * self.w / wide), math.log(h * self.h / high))
            self.set_box(image, n, j, i, aims, 2 - w * h if self.mode == "darknet-2018" else 1.0)
            aim = iou(self.box(image, n, j, i), (x, y, w, h)) if self.rescore else 1.0
            self.set_objectness(image, n, j, i, aim, 5.0)
            label = int(label)
            self.set_class(image, n, j, i, label if self.label_map is None else self.label_map[label])
