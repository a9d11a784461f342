"""The detector, in the order that an image meets it: place, trunk, neck, head, keep, descend, suppress, place back.

A model is a function with defaults: every number of a network stands here, by keyword.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wordtree import WordTree, WordTreeError

from .boxes import check_boxes, suppress_relatives
from .darknet19 import COUNTS, WIDTHS, ConvBlock, Darknet19
from .head import Region, RegionHead
from .images import Placement, place, place_back, place_boxes
from .loss import LossScales, Target, region_losses
from .region import decode_xyxy

Detection = dict[str, Any]

# anchors in cells of stride 32, Darknet's yolo9000.cfg and yolo-voc.cfg
YOLO9000_ANCHORS = ((0.77871, 1.14074), (3.00525, 4.31277), (9.22725, 9.61974))
YOLOV2_ANCHORS = ((1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892), (9.47112, 4.84053), (11.2364, 10.0071))
TINY_ANCHORS = ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52))


class Detector(nn.Module):
    """A region detector over a tree, on torchvision's contract.

    Training, `model(images, targets) -> {name: loss}`: targets are {"boxes" float [n, 4] xyxy pixels, "labels" int64
    [n] nodes} for an image with boxes, {"labels" int64 [1]} for an image label; optionally "known", bool [nodes].
    Evaluation, `model(images) -> [{boxes, labels, scores, ...}]`, pixels of each image as it was given.

    Args:
        trunk: images -> features, with `channels` and `stride`.
        neck: features -> features [b, channels, h, w].
        head: the region head.
        size: pixels of the square input.

    Attributes, to be set at any time:
        threshold: on the score, objectness x Pr(node).
        tree_threshold: how sure each step of the descent must be.
        iou: the overlap above which relatives are suppressed.
        rule: of the descent, see `wordtree.nn.descend`.
        letterbox: keep the aspect of images instead of stretching them.
        detections: at most so many an image, the best.
        options: the numbers it was built with, which its weights file keeps.
    """

    def __init__(self, trunk: Darknet19, neck: nn.Module, head: RegionHead, size: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = neck
        self.head = head
        self.size = size
        self.options: dict[str, Any] = {}
        self.threshold = 0.25
        self.tree_threshold = 0.5
        self.iou = 0.45
        self.rule = "path"
        self.letterbox = False
        self.detections = 100
        self.scales = LossScales()

    @property
    def tree(self) -> WordTree:
        """The classes."""
        return self.head.classes.tree

    def forward(
        self, images: Sequence[Tensor] | Tensor, targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[Detection]:
        """images: float [3, h, w] in 0..1 each, or [b, 3, h, w]. See the class for targets and results."""
        if self.training:
            if targets is None:
                raise WordTreeError("no targets given to a model in training; give one a image, or call model.eval()")
            batch, placed = self.place(images)
            return region_losses(self.head, self.region(batch), self._fractions(targets, placed), self.scales)
        batch, placed = self.place(images)
        return self.detect(self.region(batch), placed)

    def place(self, images: Sequence[Tensor] | Tensor) -> tuple[Tensor, list[Placement]]:
        """Lay images on the input: float [b, 3, size, size] and where each lies.

        A stacked batch whose sides are multiples of the stride keeps its own size: that is multi-scale training.
        """
        if (
            isinstance(images, Tensor)
            and images.dim() == 4
            and not any(s % self.trunk.stride for s in images.shape[2:])
        ):
            _, _, height, width = images.shape
            return images, [Placement(0.0, 0.0, 1.0, 1.0, width, height)] * len(images)
        if not len(images):
            raise WordTreeError("no images given to the model; give at least one, float [3, h, w] in 0..1")
        laid = [place(image, self.size, self.letterbox) for image in images]
        return torch.stack([image for image, _ in laid]), [placement for _, placement in laid]

    def region(self, batch: Tensor) -> Region:
        """float [b, 3, h, w] -> what the head gives. (A trunk with a passthrough reads its last two stages.)"""
        if isinstance(self.neck, Passthrough):
            return self.head(self.neck(*self.trunk.forward_both(batch)))  # type: ignore[no-any-return]
        return self.head(self.neck(self.trunk(batch)))  # type: ignore[no-any-return]

    @torch.no_grad()
    def detect(self, region: Region, placed: Sequence[Placement]) -> list[Detection]:
        """Keep what objectness lets through, descend there, suppress relatives, place back.

        Returns:
            one an image: boxes float [n, 4] xyxy pixels, labels int64 [n] nodes (-1: the root), scores float [n] =
            objectness x Pr(node), objectness float [n], paths a tuple of nodes each, path_probs float [n, depth] beside
            them, NaN past the end.
        """
        objectness = region.raw[..., 4].sigmoid()
        keep = (objectness > self.threshold).nonzero(as_tuple=True)  # image, row, column, anchor
        boxes = decode_xyxy(region.raw, self.head.anchors)[keep]
        walked = self.head.classes.walk(region.features[keep[:3]], self.tree_threshold, self.rule, keep[3])
        kept_objectness = objectness[keep]
        scores = kept_objectness * walked.log_probs.exp().to(kept_objectness.dtype)
        found = []
        for image, placement in enumerate(placed):  # a loop over images, each step whole tensors
            mine = ((keep[0] == image) & (scores > self.threshold)).nonzero()[:, 0]
            placed_boxes = place_back(boxes[mine], placement)
            best = suppress_relatives(placed_boxes, scores[mine], walked.nodes[mine], self.tree, self.iou)
            best = best[: self.detections]
            mine = mine[best]
            found.append(
                {
                    "boxes": placed_boxes[best],
                    "labels": walked.nodes[mine],
                    "scores": scores[mine],
                    "objectness": kept_objectness[mine],
                    "paths": [self.tree.path(node) for node in walked.nodes[mine].tolist()],
                    "path_probs": walked.path_log_probs[mine].exp(),
                }
            )
        return found

    def _fractions(self, targets: Sequence[Target], placed: Sequence[Placement]) -> list[Target]:
        """Targets checked, their boxes in fractions of the input."""
        if len(targets) != len(placed):
            raise WordTreeError(f"{len(placed)} images and {len(targets)} targets; give one target a image")
        ready = []
        for number, (target, placement) in enumerate(zip(targets, placed, strict=True)):
            if "labels" not in target:
                raise WordTreeError(f"target {number} has {sorted(target)}; it takes labels, and boxes where known")
            target = dict(target)
            labels, known, nodes = target["labels"], target.get("known"), len(self.tree)
            # on the CPU alone: elsewhere a look would wait for the device
            if labels.device.type == "cpu" and bool(((labels < 0) | (labels >= nodes)).any()):
                raise WordTreeError(f"target {number} has labels {labels.tolist()}; nodes are 0 to {nodes - 1}")
            if known is not None and known.shape != (nodes,):
                raise WordTreeError(f"target {number} has known of shape {tuple(known.shape)}; give bool [{nodes}]")
            if "boxes" in target:
                fault = check_boxes(target["boxes"], placement.image_width, placement.image_height)
                if fault:
                    raise WordTreeError(f"target {number}: {fault}")
                if len(target["boxes"]) != len(target["labels"]):
                    raise WordTreeError(
                        f"target {number} has {len(target['boxes'])} boxes and {len(target['labels'])} labels; "
                        "a label a box"
                    )
                target["boxes"] = place_boxes(target["boxes"].float(), placement).clamp(0.0, 1.0)
            elif not target["labels"].numel():
                raise WordTreeError(f"target {number} has no boxes and no label; give one of them")
            ready.append(target)
        return ready


class Passthrough(nn.Module):
    """YOLOv2's passthrough (paper section 2, "Fine-Grained Features"): the finer map, folded, beside the coarse one.

    Args:
        fine, coarse: channels of the trunk's last two stages.
        squeeze: 1x1 channels before folding (64 in Darknet's later cfgs, 0 for none as in the paper: 2048 + 1024).
        width: channels of the 3x3 convolutions.
    """

    def __init__(self, fine: int, coarse: int, squeeze: int, width: int) -> None:
        super().__init__()
        self.deep = nn.Sequential(ConvBlock(coarse, width, 3), ConvBlock(width, width, 3))
        self.squeeze = ConvBlock(fine, squeeze, 1) if squeeze else nn.Identity()
        self.join = ConvBlock(4 * (squeeze or fine) + width, width, 3)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """[b, fine, 2h, 2w] and [b, coarse, h, w] -> [b, width, h, w]."""
        folded = darknet_reorg(self.squeeze(fine))
        return self.join(torch.cat((folded, self.deep(coarse)), dim=1))  # type: ignore[no-any-return]


def darknet_reorg(x: Tensor, stride: int = 2) -> Tensor:
    """Darknet's `reorg`: [b, c, h, w] -> [b, c * s^2, h / s, w / s]. Not space-to-depth; trained weights need it.

    The input is read as [c / s^2, h * s, w * s], folded there, and the result is read as [c * s^2, h / s, w / s].
    """
    b, c, h, w = x.shape
    s = stride
    view = x.reshape(b, c // s**2, h, s, w, s).permute(0, 3, 5, 1, 2, 4)
    return view.reshape(b, c * s * s, h // s, w // s)


def classifier(tree: WordTree, trunk: Darknet19 | None = None) -> "TreeClassifier":
    """A tree classifier on a trunk: what the trunk learns from before it detects (paper section 3)."""
    return TreeClassifier(trunk or Darknet19(), tree)


class TreeClassifier(nn.Module):
    """Trunk, mean over cells, TreeLinear. The mean before the 1x1 layer equals Darknet-19's mean after it.

    Training, `model(images, targets) -> {"image_label": loss}`; evaluation, `model(images)` -> log Pr(node) [b, nodes].
    """

    def __init__(self, trunk: Darknet19, tree: WordTree) -> None:
        super().__init__()
        from wordtree.nn import TreeLinear

        self.trunk = trunk
        self.classes = TreeLinear(trunk.channels, tree)

    def forward(self, images: Tensor, targets: Sequence[Target] | None = None) -> dict[str, Tensor] | Tensor:
        """images: float [b, 3, h, w] in 0..1; targets: {"labels" int64 [1]} each."""
        from wordtree.nn import tree_log_prob

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
