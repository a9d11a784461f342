"""Class logits for the region loss, from the head that computes those it is asked for or from a dense output."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wordtree import WordTree
from wordtree.nn import tree_cross_entropy
from wordtree.nn.index import ask_paths, tree_index
from wordtree.nn.softmax import segment_logsumexp

from .head import Region, RegionHead

At = tuple[Tensor, Tensor, Tensor, Tensor]  # image, row, column, anchor: int64 [rows] each


class ClassLogits(Protocol):
    """What the region loss asks of the classes."""

    tree: WordTree

    def loss(self, at: At, labels: Tensor) -> Tensor:
        """-log Pr(label) of some predictors. labels: int64 [rows], nodes -> float [rows]."""

    def log_odds(self, images: Tensor, labels: Tensor) -> Tensor:
        """log objectness + log Pr(labels[i]) all over image i. int64 [n] each -> float [n, h, w, anchors]."""

    def known_share(self, images: Sequence[int], objectness: Tensor) -> Tensor | None:
        """The probability that a box's class is one its image's source knows. objectness and the result: float
        [b, h, w, anchors]; None where all is known."""


class HeadLogits:
    """Of a region head: only the columns asked for.

    Args:
        head: its classifier.
        region: its output.
        known: one an image: bool [nodes], or None for everything.
        exclusive: whether a label denies its siblings, those that its source does not know too.
    """

    def __init__(
        self, head: RegionHead, region: Region, known: Sequence[Tensor | None], exclusive: bool = False
    ) -> None:
        self.classes, self.region, self.tree = head.classes, region, head.classes.tree
        self.known, self.exclusive = known, exclusive
        first = next((one for one in known if one is not None), None)
        self.table = None  # bool [b, nodes]
        if first is not None:
            self.table = torch.stack([torch.ones_like(first) if one is None else one for one in known])

    def loss(self, at: At, labels: Tensor) -> Tensor:
        image, row, column, anchor = at
        known = None if self.table is None or self.exclusive else self.table[image]
        features = self.region.features[image, row, column]
        return self.classes.loss(features, labels, copy=anchor, known=known, reduction="none")

    def log_odds(self, images: Tensor, labels: Tensor) -> Tensor:
        objectness = functional.logsigmoid(self.region.raw[images][..., 4])
        cells = self.region.features[images].flatten(1, 2)
        return objectness + self.classes.log_prob_grid(cells, labels).view_as(objectness)

    def known_share(self, images: Sequence[int], objectness: Tensor) -> Tensor | None:
        """Computed at boxes of objectness above .01; 1 at the others."""
        if self.table is None:
            return None
        share = torch.ones_like(objectness)
        for i in images:
            known = self.known[i]
            if known is None or bool(known.all()):
                continue
            row, column, anchor = (objectness[i] > 0.01).nonzero(as_tuple=True)
            if len(row):
                nodes = _deepest(known, self.tree)
                log_probs = self.classes.log_probs_of(self.region.features[i, row, column], nodes, anchor)
                share[i, row, column, anchor] = log_probs.exp().sum(1).clamp(max=1.0).to(share.dtype)
        return share


class DenseLogits:
    """Of a dense output.

    Args:
        raw: float [b, h, w, anchors, 5 + nodes]: tx, ty, tw, th, to and the class logits.
        tree: of the classes.
    """

    def __init__(self, raw: Tensor, tree: WordTree) -> None:
        self.raw, self.tree = raw, tree

    def loss(self, at: At, labels: Tensor) -> Tensor:
        return tree_cross_entropy(self.raw[at][:, 5:], labels, self.tree, reduction="none")

    def log_odds(self, images: Tensor, labels: Tensor) -> Tensor:
        """In float64: what falls below float32's range is told apart by who needs it."""
        asked, members = ask_paths(tree_index(self.tree, labels.device), labels)
        image = images[asked.row]
        values = self.raw.movedim(-1, 1)[image, 5 + asked.node].double()  # [asked, h, w, anchors]
        taken = values[asked.place(members)] - segment_logsumexp(values, asked)
        return functional.logsigmoid(self.raw[images][..., 4].double()).index_add(0, asked.segment_row, taken)

    def known_share(self, images: Sequence[int], objectness: Tensor) -> None:
        return None


def _deepest(known: Tensor, tree: WordTree) -> list[int]:
    """The known nodes without a known child: their subtrees share nothing, so their probabilities add up."""
    marks = known.cpu().numpy()
    has_known_child = np.zeros(len(tree), dtype=bool)
    inner = marks & (tree.parents >= 0)
    has_known_child[tree.parents[inner]] = True
    return np.flatnonzero(marks & ~has_known_child).tolist()
