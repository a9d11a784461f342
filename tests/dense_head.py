"""A head and a classifier whose every logit is there already, so that a detection can start from the original's."""

import torch
from torch import Tensor, nn

from wordtree import WordTree
from wordtree.nn import tree_log_prob
from wordtree.nn.descent import Scope, Walk, walk
from wordtree.nn.index import Asked, tree_index
from wordtree.nn.softmax import at_least_float32
from yolo9000.head import Region


class DenseHead(nn.Module):
    """A head whose every logit is there already, as Darknet and exported networks put it out.

    Args:
        tree: the classes.
        anchors: float [anchors, 2], width and height in cells.
    """

    anchors: Tensor

    def __init__(self, tree: WordTree, anchors: Tensor) -> None:
        super().__init__()
        self.register_buffer("anchors", anchors.float().clone())
        self.location = "direct"
        self.classes = DenseClasses(tree)

    def forward(self, dense: Tensor) -> Region:
        """float [b, anchors * (5 + nodes), h, w] as `RegionHead.dense` lays it out -> Region."""
        b, _, h, w = dense.shape
        cells = dense.view(b, len(self.anchors), -1, h, w).permute(0, 3, 4, 1, 2)
        return Region(cells[..., :5].float(), cells[..., 5:])


class DenseClasses(nn.Module):
    """What a detection asks of `TreeLinear`, answered from logits [rows, copies, nodes]."""

    def __init__(self, tree: WordTree) -> None:
        super().__init__()
        self.tree = tree

    def walk(self, x: Tensor, threshold: float, rule: str, copy: Tensor, scope: Scope | None = None) -> Walk:
        """As `TreeLinear.walk`."""

        def read(asked: Asked) -> Tensor:
            return x[asked.row, copy[asked.row], asked.node]

        return walk(read, len(x), tree_index(self.tree, x.device), threshold, rule, scope)

    def log_probs(self, x: Tensor, copy: Tensor) -> Tensor:
        """As `TreeLinear.log_probs`."""
        return tree_log_prob(at_least_float32(x[torch.arange(len(x), device=x.device), copy]), self.tree)
