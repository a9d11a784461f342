"""The classifier over a tree: what a trunk learns names with before it detects."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wordtree import WordTree
from wordtree.nn import TreeLinear, tree_log_prob

from .darknet19 import Trunk
from .loss import Target


class TreeClassifier(nn.Module):
    """Trunk, mean over cells, TreeLinear. The mean before the 1x1 layer equals Darknet-19's mean after it.

    Training, `model(images, targets) -> {"image_label": loss}`; evaluation, `model(images)` -> log Pr(node) [b, nodes].

    Args:
        trunk: images -> features.
        tree: the classes.
        size: pixels of the square input that its weights were trained on; it takes any.

    Attributes:
        options: the numbers it was built with, which its weights file keeps.
        origin: the header of the .weights file that its weights came from; None for our own.
    """

    def __init__(self, trunk: Trunk, tree: WordTree, size: int = 224) -> None:
        super().__init__()
        self.trunk = trunk
        self.classes = TreeLinear(trunk.channels, tree)
        self.size = size
        self.options: dict[str, Any] = {}
        self.origin: tuple[int, ...] | None = None

    @property
    def tree(self) -> WordTree:
        """The classes."""
        return self.classes.tree

    def raw(self, images: Tensor) -> Tensor:
        """Logits. float [b, 3, h, w] in 0..1 -> [b, nodes]."""
        return self.classes(self.trunk(images).mean((2, 3)).float())  # type: ignore[no-any-return]

    def forward(self, images: Tensor, targets: Sequence[Target] | None = None) -> dict[str, Tensor] | Tensor:
        """images: float [b, 3, h, w] in 0..1; targets: {"labels" int64 [1]} each."""
        if not self.training:
            return tree_log_prob(self.raw(images), self.tree)
        features = self.trunk(images).mean((2, 3)).float()
        labels = torch.cat([target["labels"][:1] for target in targets or ()])
        return {"image_label": self.classes.loss(features, labels)}
