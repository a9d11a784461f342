"""The detector, in the order that an image meets it: place, trunk, neck, head, keep, descend, suppress, place back."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wordtree import WordTree, WordTreeError

from .boxes import check_boxes, suppress_relatives
from .darknet19 import Darknet19, Passthrough, Trunk
from .head import Region, RegionHead
from .images import Placement, place, place_back, place_boxes
from .loss import LossScales, Target, region_losses
from .region import decode_xyxy

Detection = dict[str, Any]


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
        origin: the header of the .weights file that its weights came from; None for our own.
    """

    def __init__(self, trunk: Trunk, neck: nn.Module, head: RegionHead, size: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = neck
        self.head = head
        self.size = size
        self.options: dict[str, Any] = {}
        self.origin: tuple[int, ...] | None = None
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
        return self.head(self.features(batch))  # type: ignore[no-any-return]

    def features(self, batch: Tensor) -> Tensor:
        """float [b, 3, h, w] -> what the head reads, [b, channels, h/stride, w/stride]."""
        if isinstance(self.neck, Passthrough) and isinstance(self.trunk, Darknet19):
            return self.neck(*self.trunk.forward_both(batch))  # type: ignore[no-any-return]
        return self.neck(self.trunk(batch))  # type: ignore[no-any-return]

    def raw(self, batch: Tensor) -> Tensor:
        """Every logit as Darknet lays them out: float [b, 3, h, w] -> [b, anchors * (5 + nodes), h, w], of each anchor
        tx, ty, tw, th, to, then the classes. Detection makes no such tensor; this is for a look from outside."""
        return self.head.dense(self.features(batch))

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
