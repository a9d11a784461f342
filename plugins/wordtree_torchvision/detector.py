"""A torchvision detector over a tree: torchvision's own detector finds objects and boxes, the tree names them.

The detector's own classifier is left in place, with one class where it starts afresh and with its own where it is
pretrained, and its best class is the objectness. Matching, box losses and the loss of the objectness are torchvision's
own code, given the problem of one class; what is new is the tree's loss at matched boxes, and its descent at kept ones.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms

from wordtree import WordTree, WordTreeError
from wordtree.errors import unknown
from wordtree.nn import suppress_relatives
from wordtree.nn.contract import check_image, checked_target

from .head import TreeHead

Target = dict[str, Tensor]
Detection = dict[str, Any]

IMAGE_LABEL_OBJECTNESS = 0.3  # the paper's assumption of the overlap with a truth that has no box
LIKELIEST = 128  # boxes an image among which the largest takes an image label, where that is the rule
IGNORED = 0.5  # what lies in an ignored region by more than this share of itself is no background
COARSE = 32  # pixels a cell, of the map that names are learned on
KNOWN_OBJECTNESS = 0.01  # above it, a box that no truth claims is asked whether its source knows its class


class Kept(NamedTuple):
    """Boxes of a batch that are to be named, images ascending."""

    image: Tensor  # int64 [kept]
    boxes: Tensor  # float [kept, 4] xyxy, pixels of the image as the network sees it
    objectness: Tensor  # float [kept]
    x: Tensor  # float [kept, features], rows for the tree's classifier


class Rows(NamedTuple):
    """Boxes that take the tree loss."""

    x: Tensor  # float [rows, features]
    labels: Tensor  # int64 [rows], nodes
    share: Tensor  # float [rows], of the sum that makes the loss
    image: Tensor  # int64 [rows]


class TreeDetector(nn.Module):
    """A torchvision detector over a tree, on torchvision's contract.

    Training, `model(images, targets) -> {name: loss}`: targets are {"boxes" float [n, 4] xyxy pixels, "labels" int64
    [n] nodes} for an image with boxes, {"labels" int64 [1]} for an image label; optionally "known", bool [nodes], and
    beside boxes "ignored" float [m, 4], regions in which nothing is known: anchors and proposals that lie in one by
    more than half, and answer for no truth, are no background.
    The losses are torchvision's own, for one class, with "tree" and "image_label" beside them.
    Evaluation, `model(images) -> [{boxes, labels, scores, objectness, paths, path_probs}]`, pixels of each image as it
    was given. Over a flat tree a box is listed once for each class above the threshold, as torchvision does.

    Args:
        model: torchvision's detector; it is kept as it is, and shared.
        head: the tree's classifier.

    Attributes, to be set at any time; at first the detector's own, else .05, no suppression, and 100 detections:
        threshold: on the score, objectness x Pr(node).
        tree_threshold: how sure each step of the descent must be.
        iou: the overlap above which relatives are suppressed.
        rule: of the descent, see `wordtree.nn.descend`.
        detections: at most so many an image, the best.
        image_label: which box takes an image label: "score", the likeliest (the paper), "area", the largest of the
            128 of highest objectness, or "objectness", the one of highest objectness.
        exclusive: whether a label denies the siblings that its source does not know; without it they leave the softmax.
        candidates: of each level the boxes of highest objectness that are looked at; all where there are no levels.
        options: of the builder that made it, those that make the same network again and read no weights, all but
            `size`; None for one that was in hand.
    """

    options: dict[str, Any] | None = None
    image_labels = ("score", "area", "objectness")

    def __init__(self, model: Any, head: TreeHead) -> None:
        super().__init__()
        self.model = model
        self.image_label = "score"
        self.exclusive = False
        self.head = head
        numbers = getattr(model, "roi_heads", model)
        self.threshold: float = getattr(numbers, "score_thresh", 0.05)
        self.tree_threshold = 0.5
        self.iou: float = getattr(numbers, "nms_thresh", 1.0)
        self.rule = "path"
        self.detections: int = getattr(numbers, "detections_per_img", 100)
        self.candidates: int = getattr(model, "topk_candidates", 2**62)

    @property
    def tree(self) -> WordTree:
        """The classes."""
        return self.head.classes.tree

    @property
    def image_trunk(self) -> "Backbone | None":
        """What can learn names from whole images before the detector is trained; None where it was pretrained, or
        takes no images much smaller than the detector's own (SSD300)."""
        if self.head.knowledge is not None:
            return None
        try:
            return Backbone(self.model)
        except RuntimeError:  # the last layers of SSD300 find nothing left to read
            return None

    @property
    def transform(self) -> Any:
        """What lays images on the input, and boxes back on the images: torchvision's `GeneralizedRCNNTransform`."""
        return self.model.transform

    def forward(
        self, images: Sequence[Tensor] | Tensor, targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[Detection]:
        """images: float [3, h, w] in 0..1 each, or [b, 3, h, w]. See the class for targets and results."""
        if not len(images):
            raise WordTreeError("no images given to the model; give at least one, float [3, h, w] in 0..1")
        if not self.training:
            return self.detect(images)
        if targets is None:
            raise WordTreeError("no targets given to a model in training; give one a image, or call model.eval()")
        return self.learn(images, checked(targets, images, self.tree), ["boxes" in target for target in targets])

    def learn(self, images: Sequence[Tensor] | Tensor, targets: list[Target], boxed: list[bool]) -> dict[str, Tensor]:
        """The losses of images that are `boxed`, or have a label alone."""
        batch, features, placed = self.look(images, targets)
        return self.losses(batch, features, placed, boxed)

    def look(
        self, images: Sequence[Tensor] | Tensor, targets: list[Target] | None = None
    ) -> tuple[ImageList, dict[str, Tensor], list[Target]]:
        """Lay images on the input and run the trunk: the batch, its features by level, the targets laid alike."""
        batch, placed = self.lay(images, targets)
        features = self.model.backbone(batch.tensors)
        return batch, {"0": features} if isinstance(features, Tensor) else features, placed

    def lay(
        self, images: Sequence[Tensor] | Tensor, targets: list[Target] | None = None
    ) -> tuple[ImageList, list[Target]]:
        """Lay images on the input: the batch, and the targets laid alike."""
        transform = self.transform
        for image in images:
            check_image(image, len(transform.image_mean))
            low, high = sorted(image.shape[-2:])
            scale = min(transform.min_size[0] / low, transform.max_size / high)
            if transform.fixed_size is None and low * scale < 1:
                raise WordTreeError(
                    f"an image of {image.shape[-1]} x {image.shape[-2]} pixels is too thin: with max_size "
                    f"{transform.max_size} nothing is left of its height or width; give a larger max_size, or cut it"
                )
        batch, placed = transform(list(images), targets)
        for target, image, (height, width) in zip(placed or (), images, batch.image_sizes, strict=False):
            if "ignored" in target:  # torchvision lays boxes alone
                scale = target["ignored"].new_tensor([width / image.shape[-1], height / image.shape[-2]] * 2)
                target["ignored"] = target["ignored"] * scale
        return batch, placed

    def keep(self, batch: ImageList, features: dict[str, Tensor], threshold: float) -> Kept:
        """The boxes whose objectness is above a threshold."""
        raise NotImplementedError

    def losses(
        self, batch: ImageList, features: dict[str, Tensor], targets: list[Target], boxed: list[bool]
    ) -> dict[str, Tensor]:
        """The losses of a batch whose images are `boxed`, or have a label alone."""
        raise NotImplementedError

    # ------------------------------------------------------------------ detection

    @torch.no_grad()
    def detect(self, images: Sequence[Tensor] | Tensor) -> list[Detection]:
        """Look, keep what objectness lets through, name it, place it back on the images as they were given."""
        batch, features, _ = self.look(images)
        found = self.name(self.keep(batch, features, self.threshold), len(images))
        sizes = [tuple(image.shape[-2:]) for image in images]
        return self.transform.postprocess(found, batch.image_sizes, sizes)  # type: ignore[no-any-return]

    @torch.no_grad()
    def score_nodes(
        self, images: Sequence[Tensor] | Tensor, nodes: Sequence[int], threshold: float
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Without a descent, of every box whose objectness is above a threshold: what some nodes are worth.

        Args:
            images: as for `forward`.
            nodes: the nodes wanted.
            threshold: on the objectness.

        Returns:
            one an image: boxes float [n, 4] in its pixels, objectness float [n], Pr(node) float [n, nodes].
        """
        batch, features, _ = self.look(images)
        kept = self.keep(batch, features, threshold)
        probs = self.head.classes.log_probs_of(kept.x, nodes).exp()
        rows = [(kept.image == image).nonzero()[:, 0] for image in range(len(images))]
        sizes = [tuple(image.shape[-2:]) for image in images]
        placed = self.transform.postprocess([{"boxes": kept.boxes[at]} for at in rows], batch.image_sizes, sizes)
        return [(one["boxes"], kept.objectness[at], probs[at]) for one, at in zip(placed, rows, strict=True)]

    def name(self, kept: Kept, images: int) -> list[Detection]:
        """Descend at the boxes that are kept, and suppress relatives; boxes stay where they are."""
        if len(self.tree.group_start) == 1:
            row, nodes, log_probs = self._all_classes(kept)
            path_log_probs = log_probs[:, None]
        else:
            walked = self.head.classes.walk(kept.x, self.tree_threshold, self.rule)
            row = torch.arange(len(kept.x), device=kept.x.device)
            nodes, log_probs, path_log_probs = walked.nodes, walked.log_probs, walked.path_log_probs
        scores = kept.objectness[row] * log_probs.exp().to(kept.objectness.dtype)
        found = []
        for image in range(images):  # a loop over images, each step whole tensors
            mine = ((kept.image[row] == image) & (scores > self.threshold)).nonzero()[:, 0]
            boxes = kept.boxes[row[mine]]
            if len(self.tree.group_start) == 1:
                best = batched_nms(boxes, scores[mine], nodes[mine], self.iou)
            else:
                best = suppress_relatives(boxes, scores[mine], nodes[mine], self.tree, self.iou)
            best = best[: self.detections]
            mine = mine[best]
            found.append(
                {
                    "boxes": boxes[best],
                    "labels": nodes[mine],
                    "scores": scores[mine],
                    "objectness": kept.objectness[row[mine]],
                    "paths": [self.tree.path(node) for node in nodes[mine].tolist()],
                    "path_probs": path_log_probs[mine].exp(),
                }
            )
        return found

    def _all_classes(self, kept: Kept) -> tuple[Tensor, Tensor, Tensor]:
        """Of a flat tree: each box and class above the threshold. -> row, node, log Pr(node), [listed] each."""
        log_probs = exact(self.head.classes(kept.x)).log_softmax(1)  # [kept, nodes]
        row, node = (kept.objectness[:, None] * log_probs.exp() > self.threshold).nonzero(as_tuple=True)
        return row, node, log_probs[row, node]

    # ------------------------------------------------------------------ training

    @torch.no_grad()
    def known_share(self, x: Tensor, known: Tensor) -> Tensor:
        """The probability that a box's class is one that its source knows. x: float [rows, features] -> [rows]."""
        return self.head.classes.log_probs_of(x, deepest(known, self.tree)).exp().sum(1).clamp(max=1.0)

    @torch.no_grad()
    def chosen(self, log_objectness: Tensor, x: Tensor, label: Tensor, boxes: Tensor) -> Tensor:
        """Which box of an image takes its label, by the rule. boxes: float [rows, 4] xyxy -> int64 []."""
        if self.image_label == "score":
            return self.likeliest(log_objectness, x, label)
        if self.image_label not in self.image_labels:
            raise unknown("image-label rule", self.image_label, self.image_labels)
        if self.image_label == "objectness":
            return log_objectness.argmax()
        order = log_objectness.argsort(descending=True, stable=True)[:LIKELIEST]
        return order[(boxes[order, 2:] - boxes[order, :2]).prod(1).argmax()]

    @torch.no_grad()
    def likeliest(self, log_objectness: Tensor, x: Tensor, label: Tensor) -> Tensor:
        """Which box of an image is likeliest to hold its label, the first of equals (paper section 4). -> int64 []."""
        total = log_objectness + self.head.classes.log_prob_at(x, label.expand(len(x))).to(log_objectness)
        total = total.nan_to_num(nan=-torch.inf)  # a network that went astray is the training loop's to tell of
        place = torch.arange(len(total), device=total.device)
        return torch.where(total == total.max(), place, len(total)).min()

    def tree_losses(self, boxed: Rows, labelled: Rows, targets: list[Target]) -> tuple[Tensor, Tensor]:
        """The tree loss of both kinds, in one call: the gradient of a large classifier is then written once."""
        rows = Rows(*(torch.cat(pair) for pair in zip(boxed, labelled, strict=True)))
        known = None if self.exclusive else known_rows(targets, rows.image)
        losses = self.head.classes.loss(rows.x, rows.labels, known=known, reduction="none")
        losses = losses * rows.share
        return losses[: len(boxed.labels)].sum(), losses[len(boxed.labels) :].sum()


class Backbone(nn.Module):
    """A detector's own trunk as a classifier reads it: the coarsest of its maps whose cells are 32 pixels at most.

    Args:
        model: torchvision's detector; its `backbone` is shared.

    Attributes:
        channels: of the map.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.backbone = model.backbone
        device = next(model.parameters()).device
        for name, value in (("mean", model.transform.image_mean), ("std", model.transform.image_std)):
            self.register_buffer(name, torch.tensor(value, device=device).view(3, 1, 1), persistent=False)
        training = self.backbone.training
        with torch.no_grad():
            maps = self.backbone.eval()(torch.zeros(1, 3, 2 * COARSE, 2 * COARSE).to(next(model.parameters())))
        self.backbone.train(training)
        self.level = max((i for i, one in enumerate(levels_of(maps)) if one.shape[-1] >= 2), default=0)
        self.channels: int = levels_of(maps)[self.level].shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """float [b, 3, h, w], RGB in 0..1 -> [b, channels, h', w']."""
        return levels_of(self.backbone((images - self.mean) / self.std))[self.level]


def levels_of(maps: Tensor | dict[str, Tensor]) -> list[Tensor]:
    """The maps that a backbone gives, finest first, of one that gives one alone too."""
    return [maps] if isinstance(maps, Tensor) else list(maps.values())


def checked(targets: Sequence[Target], images: Sequence[Tensor] | Tensor, tree: WordTree) -> list[Target]:
    """Targets that torchvision's transform takes: those of an image label get no boxes. Faults are named."""
    if len(targets) != len(images):
        raise WordTreeError(f"{len(images)} images and {len(targets)} targets; give one target a image")
    ready = []
    for number, target in enumerate(targets):
        target = checked_target(target, number, tree)
        labels, boxes = target["labels"], target.get("boxes")
        if boxes is None:
            boxes = torch.zeros(0, 4, device=labels.device)
        else:
            if boxes.dim() != 2 or boxes.shape[-1] != 4:
                raise WordTreeError(
                    f"target {number} has boxes of shape {tuple(boxes.shape)}; give [n, 4], xyxy in pixels"
                )
            if len(boxes) != len(labels):
                raise WordTreeError(
                    f"target {number} has {len(boxes)} boxes and {len(labels)} labels; give a label a box"
                )
            boxes = boxes.float()
            wrong = ~((boxes[:, 2:] > boxes[:, :2]) & boxes.isfinite().all(1, keepdim=True)).all(1)
            if boxes.device.type == "cpu" and bool(wrong.any()):
                raise WordTreeError(
                    f"target {number} has a box {boxes[wrong][0].tolist()}; a box has right > left and bottom > top"
                )
        ready.append({**target, "boxes": boxes})
        if "ignored" in target:
            regions = target["ignored"]
            if regions.dim() != 2 or regions.shape[-1] != 4:
                raise WordTreeError(
                    f"target {number} has ignored of shape {tuple(regions.shape)}; give [m, 4], xyxy in pixels"
                )
            ready[-1]["ignored"] = regions.float()
    return ready


def ignored(target: Target, boxes: Tensor) -> Tensor:
    """bool [rows]: which boxes lie in an ignored region of their image by more than half of themselves.

    boxes: float [rows, 4] xyxy.
    """
    regions = target.get("ignored")
    if regions is None or not len(regions):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    low = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return ((high - low).clamp(min=0).prod(2) > IGNORED * area[:, None]).any(1)


def known_rows(targets: list[Target], image: Tensor) -> Tensor | None:
    """bool [rows, nodes]: what each row's image knows; None where every image knows everything."""
    given = [target.get("known") for target in targets]
    first = next((known for known in given if known is not None), None)
    if first is None:
        return None
    return torch.stack([torch.ones_like(first) if known is None else known for known in given])[image]


def deepest(known: Tensor, tree: WordTree) -> list[int]:
    """The known nodes without a known child: their subtrees share nothing, so their probabilities add up."""
    marks = known.cpu().numpy()
    has_known_child = np.zeros(len(tree), dtype=bool)
    has_known_child[tree.parents[marks & (tree.parents >= 0)]] = True
    return np.flatnonzero(marks & ~has_known_child).tolist()


def softened(objectness: Tensor, share: Tensor) -> Tensor:
    """Logits whose cost as background, log(1 + e^o), is `share` of what it was: a loss that reads them pushes less.

    Below -30 there is no cost to speak of, and no slope: it would be lost in what the logarithm is taken of.
    """
    cost = softplus(objectness.clamp(min=-30)) * share.clamp(min=1e-4)
    return cost + (-(-cost).expm1()).log()


def left_alone(objectness: Tensor) -> Tensor:
    """Logits whose cost as background is next to nothing: see `softened`. Below -14 there is none to speak of."""
    return softened(objectness.clamp(min=-14), torch.zeros_like(objectness))


def pull(log_objectness: Tensor) -> Tensor:
    """The cost of an image label's box for being less of an object than the paper assumes: 0 from .3 on.

    The cross-entropy between .3 and the objectness, less its least value.
    """
    log_rest = (-log_objectness.clamp(max=math.log(IMAGE_LABEL_OBJECTNESS)).expm1()).log()
    aim = IMAGE_LABEL_OBJECTNESS
    least = -aim * math.log(aim) - (1 - aim) * math.log(1 - aim)
    cost = -aim * log_objectness - (1 - aim) * log_rest - least
    return torch.where(log_objectness < math.log(aim), cost, torch.zeros_like(cost))


def exact(values: Tensor) -> Tensor:
    """At least float32: what autocast made shorter is too coarse for pixels and for small probabilities."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def best_class(columns: Tensor) -> Tensor:
    """Of independent sigmoids: the logit of the likeliest class."""
    return exact(columns.amax(-1))


def not_background(columns: Tensor) -> Tensor:
    """Of a softmax whose first column is the background: the logit of all others together."""
    columns = exact(columns)
    return columns[..., 1:].logsumexp(-1) - columns[..., 0]


def log_sigmoid(objectness: Tensor) -> Tensor:
    """log of the objectness, from its logit."""
    return logsigmoid(exact(objectness))
