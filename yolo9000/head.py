"""The region head: boxes and objectness for every cell and anchor, class logits only where they are asked for.

A dense YOLO9000 output has anchors x (5 + 9418) channels a cell. This head keeps the features instead: the five
channels of each anchor are a small convolution, and the tree's classifier (one copy an anchor) reads single cells.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from wordtree import WordTree
from wordtree.errors import unknown
from wordtree.nn import TreeLinear

from .region import LOCATIONS, split_raw


class Region(NamedTuple):
    """What the head gives, cell by cell."""

    raw: Tensor  # float [b, h, w, anchors, 5]: tx, ty, tw, th, to
    features: Tensor  # float [b, h, w, ...] what the classes are read from: channels, or [anchors, nodes] of logits


class RegionHead(nn.Module):
    """Boxes, objectness and the tree.

    Args:
        channels: of the features.
        tree: the classes.
        anchors: float [anchors, 2], width and height in cells.
        location: how a box is told, see `region.decode`.
    """

    anchors: Tensor

    def __init__(self, channels: int, tree: WordTree, anchors: Tensor, location: str = "direct") -> None:
        super().__init__()
        if location not in LOCATIONS:
            raise unknown("location", location, LOCATIONS)
        self.location = location
        self.register_buffer("anchors", anchors.float().clone())
        self.boxes = nn.Conv2d(channels, len(anchors) * 5, 1)
        self.classes = TreeLinear(channels, tree, copies=len(anchors))
        nn.init.normal_(self.boxes.weight, std=0.01)
        nn.init.constant_(self.boxes.bias, 0.0)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Region:
        """float [b, channels, h, w] -> Region."""
        raw = split_raw(self.boxes(features).float(), len(self.anchors))
        return Region(raw, features.permute(0, 2, 3, 1))

    def dense(self, features: Tensor) -> Tensor:
        """Every logit, [b, anchors * (5 + nodes), h, w] as Darknet lays them out: for tests and a look from outside."""
        raw, cells = self(features)
        logits = self.classes(cells).view(*raw.shape[:-1], -1)  # [b, h, w, anchors, nodes]
        whole = torch.cat((raw, logits.to(raw.dtype)), dim=-1)
        return whole.permute(0, 3, 4, 1, 2).flatten(1, 2)

    @torch.no_grad()
    def start_from(self, classifier: TreeLinear) -> None:
        """Copy a tree classifier to every anchor, as the released YOLO9000 was started (Darknet 2017-01, `oneoff`)."""
        for classes in (classifier, self.classes):
            classes.refresh(None)
        self.classes.weight.copy_(classifier.weight.expand_as(self.classes.weight))
        self.classes.bias.copy_(classifier.bias.expand_as(self.classes.bias))
