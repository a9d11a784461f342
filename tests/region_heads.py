"""Small region heads, their outputs and targets, in float64."""

import numpy as np
import torch
from torch import Tensor, nn

from wordtree import WordTree
from yolo9000.head import Region, RegionHead

EXACT = {"rtol": 1e-9, "atol": 1e-9}
ANCHORS = torch.tensor([[0.8, 0.7], [1.4, 1.1]], dtype=torch.float64)
#      animal  plant
#     /  |        \
#  dog  cat       oak
#   |
# poodle
SMALL = WordTree(["animal", "plant", "dog", "cat", "oak", "poodle"], [-1, -1, 0, 0, 1, 2])
ANIMAL, PLANT, DOG, CAT, OAK, POODLE = range(6)


def small_head(tree: WordTree, channels: int = 4, anchors: Tensor = ANCHORS, seed: int = 0) -> RegionHead:
    torch.manual_seed(seed)
    head = RegionHead(channels, tree, anchors).double()
    head.anchors = anchors  # the buffer was rounded to float32
    nn.init.normal_(head.classes.bias)
    return head


def random_region(b: int, h: int, w: int, a: int, channels: int = 4, seed: int = 0) -> Region:
    random = np.random.RandomState(seed)
    raw = torch.from_numpy(random.randn(b, h, w, a, 5)).requires_grad_()
    return Region(raw, torch.from_numpy(random.randn(b, h, w, channels)).requires_grad_())


def random_target(tree: WordTree, boxes: int | None, random: np.random.RandomState) -> dict[str, Tensor]:
    """A target in fractions of the input: `boxes` boxes, or an image label where None."""
    if boxes is None:
        return {"labels": torch.from_numpy(random.randint(0, len(tree), 1))}
    low = random.rand(boxes, 2) * 0.7
    high = low + 0.05 + random.rand(boxes, 2) * 0.25
    corners = torch.from_numpy(np.concatenate((low, high), axis=1))
    return {"boxes": corners, "labels": torch.from_numpy(random.randint(0, len(tree), boxes))}


def dense_logits(head: RegionHead, region: Region) -> Tensor:
    """[b, h, w, anchors, nodes]"""
    return head.classes(region.features).view(*region.raw.shape[:-1], -1)
