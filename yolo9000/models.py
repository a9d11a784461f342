"""Networks: a model is a function with defaults, every number by keyword."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wordtree import WordTree, WordTreeError
from wordtree.nn import TreeLinear, tree_log_prob

from .darknet19 import COUNTS, WIDTHS, ConvBlock, Darknet19, Passthrough
from .detector import Detector
from .head import RegionHead
from .loss import Target

# anchors in cells of stride 32, Darknet's yolo9000.cfg and yolo-voc.cfg
YOLO9000_ANCHORS = ((0.77871, 1.14074), (3.00525, 4.31277), (9.22725, 9.61974))
YOLOV2_ANCHORS = ((1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892), (9.47112, 4.84053), (11.2364, 10.0071))
TINY_ANCHORS = ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52))


def classifier(tree: WordTree, trunk: Darknet19 | None = None) -> "TreeClassifier":
    """A tree classifier on a trunk: what the trunk learns from before it detects (paper section 3)."""
    return TreeClassifier(trunk or Darknet19(), tree)


class TreeClassifier(nn.Module):
    """Trunk, mean over cells, TreeLinear. The mean before the 1x1 layer equals Darknet-19's mean after it.

    Training, `model(images, targets) -> {"image_label": loss}`; evaluation, `model(images)` -> log Pr(node) [b, nodes].
    """

    def __init__(self, trunk: Darknet19, tree: WordTree) -> None:
        super().__init__()
        self.trunk = trunk
        self.classes = TreeLinear(trunk.channels, tree)

    def forward(self, images: Tensor, targets: Sequence[Target] | None = None) -> dict[str, Tensor] | Tensor:
        """images: float [b, 3, h, w] in 0..1; targets: {"labels" int64 [1]} each."""
        features = self.trunk(images).mean((2, 3)).float()
        if not self.training:
            return tree_log_prob(self.classes(features), self.classes.tree)
        labels = torch.cat([target["labels"][:1] for target in targets or ()])
        return {"image_label": self.classes.loss(features, labels)}


def yolo9000(
    tree: WordTree,
    anchors: Sequence[Sequence[float]] = YOLO9000_ANCHORS,
    size: int = 416,
    widths: Sequence[int] = WIDTHS,
    counts: Sequence[int] = COUNTS,
    neck: Sequence[int] = (),
) -> Detector:
    """YOLO9000 (paper section 4): Darknet-19, three priors, a tree. The released network has nothing between.

    Args:
        tree: the classes.
        anchors: width and height of each prior, in cells.
        size: pixels of the square input, a multiple of the stride.
        widths, counts: the trunk's stages, see `Darknet19`.
        neck: channels of 3x3 convolutions between trunk and head.

    Example:
        >>> model = yolo9000(WordTree(["animal", "dog"], [-1, 0]), size=96, widths=(8, 16, 32), counts=(1, 1, 3))
        >>> sorted(model([torch.rand(3, 96, 96)], [{"labels": torch.tensor([1])}]))
        ['box', 'image_label', 'objectness', 'tree']
    """
    trunk = Darknet19(widths, counts)
    blocks, channels = [], trunk.channels
    for width in neck:
        blocks.append(ConvBlock(channels, width, 3))
        channels = width
    priors = torch.as_tensor(anchors, dtype=torch.float32)
    model = Detector(trunk, nn.Sequential(*blocks), RegionHead(channels, tree, priors), _checked(size, trunk))
    model.options = {
        "anchors": priors.tolist(),
        "size": size,
        "widths": list(widths),
        "counts": list(counts),
        "neck": list(neck),
    }
    return model


def yolov2(
    tree: WordTree, anchors: Sequence[Sequence[float]] = YOLOV2_ANCHORS, size: int = 416, squeeze: int = 64
) -> Detector:
    """YOLOv2 (paper section 2) over a tree; a flat label set is a tree of n leaves.

    Args:
        tree: the classes.
        anchors: width and height of each prior, in cells.
        size: pixels of the square input, a multiple of 32.
        squeeze: 64 as Darknet's cfgs since 2017; 0 for the paper's 26 x 26 x 512 -> 13 x 13 x 2048.
    """
    trunk = Darknet19()
    neck = Passthrough(trunk.passthrough_channels, trunk.channels, squeeze, 1024)
    return Detector(trunk, neck, RegionHead(1024, tree, torch.tensor(anchors)), _checked(size, trunk))


def yolov2_tiny(tree: WordTree, anchors: Sequence[Sequence[float]] = TINY_ANCHORS, size: int = 416) -> Detector:
    """A small trunk of six plain 3x3 stages and two wide convolutions (Darknet's yolov2-tiny-voc but for its seventh,
    stride-1 pooling)."""
    return yolo9000(tree, anchors, size, (16, 32, 64, 128, 256, 512), (1,) * 6, neck=(1024, 1024))


def darknet19(tree: WordTree) -> TreeClassifier:
    """Darknet-19 as a classifier over a tree (paper section 3 and 4)."""
    return classifier(tree)


def _checked(size: int, trunk: Darknet19) -> int:
    if size <= 0 or size % trunk.stride:
        raise WordTreeError(f"an input of {size} pixels; this trunk takes multiples of {trunk.stride}")
    return size
