"""The detector, in the order that an image meets it: place, trunk, neck, head, keep, descend, suppress, place back."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from wordtree import WordTree, WordTreeError
from wordtree.errors import unknown
from wordtree.nn.contract import check_image, checked_target
from wordtree.nn.suppression import rank

from .batchnorm import set_batchnorm
from .boxes import best_rows, check_boxes, suppress
from .choice import EVERYTHING, Choice
from .darknet19 import Passthrough, Staged, Trunk
from .head import Region, RegionHead
from .images import Placement, clip, place, place_boxes, unplace
from .loss import RULES, LossScales, Target, region_losses
from .lossrules import with_image_label
from .modes import SCORES, Mode, batchnorm_of, find_mode
from .region import decode_xyxy
from .trunks import NamedTrunk

Detection = dict[str, Any]


class Found(NamedTuple):
    """Boxes on their way to detections, one a row, image by image."""

    image: Tensor  # int64 [n]
    place: Tensor  # int64 [n], among the image's predictors: (row * w + column) * anchors + anchor
    boxes: Tensor  # float [n, 4] xyxy
    objectness: Tensor  # float [n]
    scores: Tensor  # float [n]
    nodes: Tensor  # int64 [n], -1 for the root
    path_log_probs: Tensor  # float [n, depth], NaN past the end

    def take(self, rows: Tensor) -> "Found":
        """Only some rows, int64 [k]."""
        return Found(*(column[rows] for column in self))


class Detector(nn.Module):
    """A region detector over a tree, on torchvision's contract.

    Training, `model(images, targets) -> {name: loss}`: targets are {"boxes" float [n, 4] xyxy pixels, "labels" int64
    [n] nodes} for an image with boxes, {"labels" int64 [1]} for an image label; optionally "known", bool [nodes], and
    beside boxes "ignored" float [m, 4], regions in which nothing is known, see `region_losses`.
    Evaluation, `model(images) -> [{boxes, labels, scores, ...}]`, pixels of each image as it was given;
    `model(images, choice=Choice(only="dog"))` narrows what is answered, see `Choice`; `detect` says what is in it.

    Args:
        trunk: images -> features, with `channels` and `stride`.
        neck: features -> features [b, channels, h, w].
        head: the region head.
        size: pixels of the square input.

    Attributes, to be set at any time; `set_mode` sets all but the last five:
        threshold, tree_threshold, iou, rule, placement, score, suppression, clip, candidates, detections: what readings
            of YOLO9000 differ in, see `modes.Mode`.
        mode: the name of the reading that was set, see `modes`.
        loss_rules: the reading of the loss, one of `loss.RULES`.
        seen: images trained on, the batch at hand included, for readings whose loss asks; whoever trains counts.
        scales: the numbers of the loss.
        exclusive: whether a label denies the siblings that its source does not know, see `region_losses`.
        options: the numbers it was built with, which its weights file keeps.
        origin: the header of the .weights file that its weights came from; None for our own.
    """

    threshold: float
    tree_threshold: float
    iou: float
    rule: str
    placement: str
    score: str
    suppression: str
    clip: bool
    candidates: int | None
    detections: int | None

    def __init__(self, trunk: Trunk, neck: nn.Module, head: RegionHead, size: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.neck = neck
        self.head = head
        self.size = size
        self.options: dict[str, Any] = {}
        self.origin: tuple[int, ...] | None = None
        self.scales = LossScales()
        self.exclusive = False
        self.seen = 0
        self.set_mode("paper")

    def set_mode(self, mode: str | Mode) -> "Detector":
        """Detect and train as one reading of YOLO9000 does: "paper", "darknet" or "darknet-2018". Returns the detector.

        A `Mode` made from one of them with `dataclasses.replace` does as well.

        Raises:
            WordTreeError: an unknown name; it lists the known ones.
        """
        mode = find_mode(mode) if isinstance(mode, str) else mode
        self.mode = mode.name
        for field in fields(mode):
            if field.name != "name":
                setattr(self, field.name, getattr(mode, field.name))
        self.loss_rules = RULES[mode.name]
        if self.origin is not None:  # Darknet's weights: batch-norm as this reading has it
            set_batchnorm(self, batchnorm_of(mode, self.origin))
        return self

    def set_image_label(self, name: str) -> "Detector":
        """Train on image labels by another rule, "score", "area" or "darknet", see `lossrules.with_image_label`.

        Returns the detector. `set_mode` sets the mode's own again.
        """
        self.loss_rules = with_image_label(self.loss_rules, name)
        return self

    @property
    def tree(self) -> WordTree:
        """The classes."""
        return self.head.classes.tree

    def forward(
        self,
        images: Sequence[Tensor] | Tensor,
        targets: Sequence[Target] | None = None,
        choice: Choice = EVERYTHING,
    ) -> dict[str, Tensor] | list[Detection]:
        """images: float [3, h, w] in 0..1 each, or [b, 3, h, w]; choice: what to answer. See the class for the rest."""
        if self.training:
            if targets is None:
                raise WordTreeError("no targets given to a model in training; give one a image, or call model.eval()")
            batch, placed = self.place(images)
            ready = self._fractions(targets, placed)
            return region_losses(
                self.head, self.region(batch), ready, self.scales, self.loss_rules, self.seen, self.exclusive
            )
        batch, placed = self.place(images)
        return self.detect(self.region(batch), placed, choice)

    def place(self, images: Sequence[Tensor] | Tensor) -> tuple[Tensor, list[Placement]]:
        """Lay images on the input: float [b, 3, size, size] and where each lies.

        A stacked batch whose sides are multiples of the stride keeps its own size: that is multi-scale training.
        """
        if isinstance(images, Tensor) and images.dim() == 4:  # of one size: all in one pass
            for image in images[:1]:
                check_image(image)
            height, width = images.shape[2:]
            if not (height % self.trunk.stride or width % self.trunk.stride):
                return images, [Placement(0.0, 0.0, 1.0, 1.0, width, height)] * len(images)
        if not len(images):
            raise WordTreeError("no images given to the model; give at least one, float [3, h, w] in 0..1")
        if isinstance(images, Tensor) and images.dim() == 4:
            batch, placement = place(images, self.size, self.placement)
            return batch, [placement] * len(batch)
        for image in images:
            check_image(image)
        laid = [place(image, self.size, self.placement) for image in images]
        return torch.stack([image for image, _ in laid]), [placement for _, placement in laid]

    def region(self, batch: Tensor) -> Region:
        """float [b, 3, h, w] -> what the head gives. (A trunk with a passthrough reads its last two stages.)"""
        return self.head(self.features(batch))  # type: ignore[no-any-return]

    def features(self, batch: Tensor) -> Tensor:
        """float [b, 3, h, w] -> what the head reads, [b, channels, h/stride, w/stride]."""
        if isinstance(self.neck, Passthrough) and isinstance(self.trunk, Staged | NamedTrunk):
            return self.neck(*self.trunk.forward_both(batch))  # type: ignore[no-any-return]
        return self.neck(self.trunk(batch))  # type: ignore[no-any-return]

    def raw(self, batch: Tensor) -> Tensor:
        """Every logit as Darknet lays them out: float [b, 3, h, w] -> [b, anchors * (5 + nodes), h, w], of each anchor
        tx, ty, tw, th, to, then the classes. Detection makes no such tensor; this is for a look from outside."""
        return self.head.dense(self.features(batch))

    @torch.no_grad()
    def detect(self, region: Region, placed: Sequence[Placement], choice: Choice = EVERYTHING) -> list[Detection]:
        """Keep what objectness lets through, descend there, suppress the lesser, place back.

        With a tree a box is answered once. In a flat model, a tree of leaves alone, there is no descent: a box is
        listed once for each class above the threshold, and suppressed class by class.

        Returns:
            one an image, best first: boxes float [n, 4] xyxy pixels, labels int64 [n] nodes (-1: the root), scores
            float [n], objectness float [n], paths a tuple of nodes each, path_probs float [n, depth] beside them, NaN
            past the end: the last before it is Pr(node). Where the choice asks for it, node_probs float [n, nodes].
        """
        found = (self._listed if self._flat else self._answered)(region, self._passed(region), choice)
        placements = torch.tensor(placed, dtype=torch.float64).to(region.raw)[found.image]
        boxes = unplace(found.boxes, placements)
        found = found._replace(boxes=clip(boxes, placements) if self.clip else boxes)
        among = "same" if self._flat else self.suppression
        kept = suppress(found.boxes, found.scores, found.nodes, found.image, self.tree, self.iou, among)
        if self.detections is not None:
            kept = kept[rank(found.image[kept]) < self.detections]
        found, placements = found.take(kept), placements[kept]
        return self._by_image(region, found._replace(boxes=clip(found.boxes, placements)), len(placed), choice)

    @property
    def _flat(self) -> bool:
        """Whether every node is a root child and a leaf."""
        return len(self.tree.group_start) == 1

    def _passed(self, region: Region) -> tuple[Tensor, Tensor]:
        """Which predictors objectness lets through: int64 [n], the image and the place in it, ascending."""
        objectness = region.raw[..., 4].sigmoid().flatten(1)  # [b, predictors]
        passed = objectness > self.threshold
        if self.candidates is not None and self.candidates < passed.shape[1]:
            likeliest = objectness.topk(self.candidates, sorted=False).indices
            passed &= torch.zeros_like(passed).scatter(1, likeliest, True)
        image, place = passed.nonzero(as_tuple=True)
        return image, place

    def _answered(self, region: Region, at: tuple[Tensor, Tensor], choice: Choice) -> Found:
        """The answers at predictors above the threshold, one each: where the descent ends."""
        boxes, objectness, cell, anchor = self._read(region, at)
        tree_threshold = self.tree_threshold if choice.tree_threshold is None else choice.tree_threshold
        scope = choice.scope(self.tree, anchor.device)
        walked = self.head.classes.walk(cell, tree_threshold, self.rule, anchor, scope)
        if self.score not in SCORES:
            raise unknown("score", self.score, SCORES)
        scores = objectness
        if self.score == "product":
            scores = objectness * walked.log_probs.exp().to(objectness.dtype)
        passed = scores > self.threshold
        if choice.only is not None:
            passed &= walked.nodes >= 0
        return Found(*at, boxes, objectness, scores, walked.nodes, walked.path_log_probs).take(passed.nonzero()[:, 0])

    def _listed(self, region: Region, at: tuple[Tensor, Tensor], choice: Choice) -> Found:
        """The classes of a flat model at predictors, one row for each above the threshold."""
        boxes, objectness, cell, anchor = self._read(region, at)
        log_probs = self.head.classes.log_probs(cell, anchor)  # [n, classes]
        scores = objectness[:, None] * log_probs.exp()
        scope = choice.scope(self.tree, anchor.device)
        if scope is not None:
            scores = scores.masked_fill(scope.answer[:-1] < 0, 0.0)
        row, nodes = (scores > self.threshold).nonzero(as_tuple=True)
        image, place = at
        of_box = (image[row], place[row], boxes[row], objectness[row])
        found = Found(*of_box, scores[row, nodes], nodes, log_probs[row, nodes, None])
        if self.candidates is None:
            return found
        return found.take(best_rows(found.image, found.scores, self.candidates))

    def _read(self, region: Region, at: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of predictors: boxes float [n, 4] xyxy in fractions of the input, objectness float [n], `_classes_at`."""
        boxes = decode_xyxy(region.raw, self.head.anchors, self.head.location).flatten(1, 3)[at]
        return boxes, region.raw[..., 4].flatten(1)[at].sigmoid(), *self._classes_at(region, at)

    def _classes_at(self, region: Region, at: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """What the classes of predictors are read from, float [n, ...], and the anchor of each, int64 [n]."""
        image, place = at
        anchors = len(self.head.anchors)
        return region.features.flatten(1, 2)[image, place // anchors], place % anchors

    def _by_image(self, region: Region, found: Found, images: int, choice: Choice) -> list[Detection]:
        """One record an image, of rows that stand image by image."""
        image, nodes = torch.stack((found.image, found.nodes)).cpu().numpy()
        counts = np.bincount(image, minlength=images).tolist()
        columns = {
            "boxes": found.boxes,
            "labels": found.nodes,
            "scores": found.scores,
            "objectness": found.objectness,
            "path_probs": found.path_log_probs.exp(),
        }
        if choice.node_probs:
            log_probs = self.head.classes.log_probs(*self._classes_at(region, (found.image, found.place)))
            columns["node_probs"] = log_probs.exp()
        parts = {name: column.split(counts) for name, column in columns.items()}
        paths = iter([self.tree.path(node) for node in nodes.tolist()])
        return [
            {**{name: part[at] for name, part in parts.items()}, "paths": [next(paths) for _ in range(count)]}
            for at, count in enumerate(counts)
        ]

    def _fractions(self, targets: Sequence[Target], placed: Sequence[Placement]) -> list[Target]:
        """Targets checked, their boxes in fractions of the input."""
        if len(targets) != len(placed):
            raise WordTreeError(f"{len(placed)} images and {len(targets)} targets; give one target a image")
        ready = []
        for number, (target, placement) in enumerate(zip(targets, placed, strict=True)):
            target = checked_target(target, number, self.tree)
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
                if "ignored" in target:
                    fault = check_boxes(target["ignored"], placement.image_width, placement.image_height)
                    if fault:
                        raise WordTreeError(f"target {number}, ignored: {fault}")
                    target["ignored"] = place_boxes(target["ignored"].float(), placement).clamp(0.0, 1.0)
            ready.append(target)
        return ready
