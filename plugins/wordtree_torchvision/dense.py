"""RetinaNet, FCOS, SSD and SSDlite over a tree: detectors that look at every cell of every level."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from .detector import (
    KNOWN_OBJECTNESS,
    Kept,
    Rows,
    Target,
    TreeDetector,
    best_class,
    exact,
    ignored,
    left_alone,
    log_sigmoid,
    not_background,
    pull,
    softened,
)
from .head import patches

Layers = list[tuple[nn.Module, nn.Conv2d]]


class Seen(NamedTuple):
    """What the detector's own head gives; anchors in torchvision's order: level, row, column, anchor of the cell."""

    maps: list[Tensor]  # float [b, c, h, w] a level, what the last layer of the classifier reads
    columns: Tensor  # float [b, anchors, columns]
    logits: Tensor  # float [b, anchors], of the objectness
    log_objectness: Tensor  # float [b, anchors]
    boxes: dict[str, Tensor]  # float [b, anchors, ...], torchvision's names
    anchors: Tensor  # float [b, anchors, 4] xyxy
    levels: list[int]  # anchors of each


def layers_of(model: Any) -> tuple[Layers, int]:
    """The classifier of each level, one where all share it: (what its last layer reads, the last layer); columns."""
    head = model.head.classification_head
    if not isinstance(model, SSD):
        return [(head.conv, head.cls_logits)], head.num_classes
    layers: Layers = []
    for layer in head.module_list:
        *before, last = layer if isinstance(layer, nn.Sequential) else [layer]  # SSDlite: depthwise, then 1 x 1
        assert isinstance(last, nn.Conv2d)
        layers.append((nn.Sequential(*before), last))
    return layers, head.num_columns


class DenseTreeDetector(TreeDetector):
    """RetinaNet, FCOS, SSD or SSDlite over a tree; see `TreeDetector`."""

    def see(self, batch: ImageList, features: dict[str, Tensor]) -> Seen:
        """Run the detector's own head, keeping what the last layer of its classifier reads."""
        maps, columns, levels = [], [], []
        layers, count = layers_of(self.model)
        for level, x in enumerate(features.values()):
            before, last = layers[min(level, len(layers) - 1)]
            maps.append(before(x))
            b, _, h, w = maps[-1].shape
            logits = last(maps[-1]).view(b, -1, count, h, w).permute(0, 3, 4, 1, 2)  # [b, h, w, anchors, columns]
            columns.append(logits.reshape(b, -1, count))
            levels.append(columns[-1].shape[1])
        logits = torch.cat(columns, dim=1)
        objectness = (not_background if isinstance(self.model, SSD) else best_class)(logits)
        log_objectness = log_sigmoid(objectness)
        found = self.model.head.regression_head(list(features.values()))
        boxes = {"bbox_regression": found}
        if isinstance(self.model, FCOS):
            boxes = dict(zip(("bbox_regression", "bbox_ctrness"), found, strict=True))
            log_objectness = (log_objectness + log_sigmoid(boxes["bbox_ctrness"][..., 0])) / 2
        anchors = torch.stack(self.model.anchor_generator(batch, list(features.values())))
        return Seen(maps, logits, objectness, log_objectness, boxes, anchors, levels)

    def rows(self, seen: Seen, image: Tensor, at: Tensor) -> Tensor:
        """Rows for the tree's classifier, at some anchors. image, at: int64 [rows] -> float [rows, features]."""
        layers, count = layers_of(self.model)
        x: Tensor | None = None
        first = 0
        for level, (maps, anchors) in enumerate(zip(seen.maps, seen.levels, strict=True)):
            last = layers[min(level, len(layers) - 1)][1]
            mine = ((at >= first) & (at < first + anchors)).nonzero()[:, 0]
            here, who = at[mine] - first, image[mine]
            each = last.out_channels // count  # anchors of a cell
            cell, width = here // each, maps.shape[3]
            read = patches(maps, who, cell // width, cell % width, last.kernel_size[0])
            part = self.head(level, read, here % each, seen.columns[who, at[mine]])
            x = part.new_zeros(len(at), part.shape[1]) if x is None else x
            x = x.index_copy(0, mine, part)
            first += anchors
        assert x is not None
        return x

    def best(self, log_objectness: Tensor, levels: list[int], threshold: float) -> tuple[Tensor, Tensor]:
        """Each level's candidates above a threshold, all where it is negative.

        float [b, anchors] -> image, anchor: int64 [n], ascending.
        """
        places = []
        first = 0
        for anchors in levels:
            part = log_objectness[:, first : first + anchors]
            values, at = part.topk(min(self.candidates, anchors), dim=1)
            every = torch.ones_like(values, dtype=torch.bool)  # what is no number too: the loss will tell of it
            image, rank = (values.exp() > threshold if threshold >= 0 else every).nonzero(as_tuple=True)
            places.append(image * log_objectness.shape[1] + first + at[image, rank])
            first += anchors
        place = torch.cat(places).sort().values
        return place // log_objectness.shape[1], place % log_objectness.shape[1]

    def decode(self, seen: Seen, batch: ImageList, image: Tensor, at: Tensor) -> Tensor:
        """Boxes of some anchors, cut at the edge of their images. -> float [rows, 4] xyxy."""
        coded, anchors = exact(seen.boxes["bbox_regression"][image, at]), seen.anchors[image, at]
        coder = self.model.box_coder
        boxes = coder.decode(coded, anchors) if isinstance(self.model, FCOS) else coder.decode_single(coded, anchors)
        return clipped(boxes, batch, image)

    def keep(self, batch: ImageList, features: dict[str, Tensor], threshold: float) -> Kept:
        seen = self.see(batch, features)
        image, at = self.best(seen.log_objectness, seen.levels, threshold)
        boxes = self.decode(seen, batch, image, at)
        return Kept(image, boxes, seen.log_objectness[image, at].exp(), self.rows(seen, image, at))

    # ------------------------------------------------------------------ training

    def losses(
        self, batch: ImageList, features: dict[str, Tensor], targets: list[Target], boxed: list[bool]
    ) -> dict[str, Tensor]:
        seen = self.see(batch, features)
        mine = [image for image, has in enumerate(boxed) if has]
        matched = {image: self.match(seen, image, targets[image]) for image in mine}
        zero = seen.logits.sum() * 0.0 + sum(part.sum() * 0.0 for part in seen.boxes.values())
        names = ["classification", *seen.boxes]
        losses = self.own_losses(seen, mine, matched, targets) if mine else dict.fromkeys(names, zero)
        at, images, labels, share = self._matched(matched, targets, zero)
        label_at, label_images, given = self._labelled(seen, batch, targets, boxed)
        x = self.rows(seen, torch.cat((images, label_images)), torch.cat((at, label_at)))
        first = Rows(x[: len(at)], labels, share, images)
        second = Rows(x[len(at) :], given, torch.full_like(given, 1 / len(targets), dtype=share.dtype), label_images)
        tree, label = self.tree_losses(first, second, targets)
        label = label + pull(seen.log_objectness[label_images, label_at]).sum() / len(targets)
        return {**losses, "tree": tree + zero, "image_label": label + zero}

    def match(self, seen: Seen, image: int, target: Target) -> Tensor:
        """Which truth each anchor answers for, by torchvision's rules: int64 [anchors], negative for none."""
        anchors = seen.anchors[image]
        if not len(target["boxes"]):
            return torch.full((len(anchors),), -1, device=anchors.device)
        if isinstance(self.model, FCOS):  # its rules stand in the middle of a method, which ends by asking the head
            head = SimpleNamespace(compute_loss=lambda targets, outputs, anchors, matched: matched)
            stand_in: Any = SimpleNamespace(center_sampling_radius=self.model.center_sampling_radius, head=head)
            return type(self.model).compute_loss(stand_in, [target], {}, [anchors], seen.levels)[0]  # type: ignore[no-any-return]
        return self.model.proposal_matcher(box_iou(target["boxes"], anchors))  # type: ignore[no-any-return]

    def own_losses(
        self, seen: Seen, mine: list[int], matched: dict[int, Tensor], targets: list[Target]
    ) -> dict[str, Tensor]:
        """torchvision's own losses of the images with boxes, for one class: object or not, and the box."""
        logits = seen.logits[mine]
        for place, image in enumerate(mine):
            known = targets[image].get("known")
            if known is not None and not bool(known.all()):
                logits = logits.index_put((torch.tensor(place),), self._pushed_less(seen, image, matched[image], known))
            if "ignored" in targets[image]:
                free = (matched[image] < 0) & ignored(targets[image], seen.anchors[image])
                logits = logits.index_put(
                    (torch.tensor(place),), torch.where(free, left_alone(logits[place]), logits[place])
                )
        label = 1 if isinstance(self.model, SSD) else 0
        outputs = {name: part[mine] for name, part in seen.boxes.items()}
        outputs["cls_logits"] = torch.stack((torch.zeros_like(logits), logits), -1) if label else logits[..., None]
        ones = [{**targets[image], "labels": torch.full_like(targets[image]["labels"], label)} for image in mine]
        anchors, matches = [seen.anchors[image] for image in mine], [matched[image] for image in mine]
        of = self.model if label else self.model.head
        return of.compute_loss(ones, outputs, anchors, matches)  # type: ignore[no-any-return]

    def _pushed_less(self, seen: Seen, image: int, matched: Tensor, known: Tensor) -> Tensor:
        """An image's logits, softened where nothing is matched and the class may be one that its source ignores."""
        logits = seen.logits[image]
        free = seen.log_objectness[image].detach().masked_fill(matched >= 0, -torch.inf)
        _, at = self.best(free[None], seen.levels, KNOWN_OBJECTNESS)
        with torch.no_grad():
            share = self.known_share(self.rows(seen, torch.full_like(at, image), at), known)
        return logits.index_put((at,), softened(logits[at], share.to(logits)))

    def _matched(
        self, matched: dict[int, Tensor], targets: list[Target], like: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The anchors that answer for truths: anchor, image, label, share of the loss; torchvision's normalisers."""
        at, images, labels, share = [], [], [], []
        total = sum(int((match >= 0).sum()) for match in matched.values())
        for image, match in matched.items():
            place = (match >= 0).nonzero()[:, 0]
            at.append(place)
            images.append(torch.full_like(place, image))
            labels.append(targets[image]["labels"][match[place]])
            # RetinaNet: mean over images of the mean over an image; FCOS and SSD: mean over the batch
            each = total if isinstance(self.model, (FCOS, SSD)) else len(place) * len(matched)
            share.append(torch.full((len(place),), 1 / max(1, each), device=like.device, dtype=like.dtype))
        none = torch.zeros(0, dtype=torch.int64, device=like.device)
        return (
            torch.cat([none, *at]),
            torch.cat([none, *images]),
            torch.cat([none, *labels]),
            torch.cat([like.new_zeros(0), *share]),
        )

    def _labelled(
        self, seen: Seen, batch: ImageList, targets: list[Target], boxed: list[bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each image label's box, among the candidates: anchor, image, label."""
        found = []
        for image in (image for image, has in enumerate(boxed) if not has):
            label = targets[image]["labels"].reshape(-1)[:1]
            with torch.no_grad():
                _, at = self.best(seen.log_objectness[image][None], seen.levels, -1.0)
                x = self.rows(seen, torch.full_like(at, image), at)
                boxes = self.decode(seen, batch, torch.full_like(at, image), at)
                best = self.chosen(seen.log_objectness[image, at], x, label, boxes)
            found.append(torch.stack((at[best], torch.full_like(best, image), label[0])))
        if not found:
            return (torch.zeros(0, dtype=torch.int64, device=seen.logits.device),) * 3
        at, images, labels = torch.stack(found, dim=1)
        return at, images, labels


def clipped(boxes: Tensor, batch: ImageList, image: Tensor) -> Tensor:
    """Boxes [n, 4] cut at the edges of the images that they are of."""
    height, width = torch.tensor(batch.image_sizes, device=boxes.device, dtype=boxes.dtype)[image].unbind(1)
    return boxes.clamp(min=0).minimum(torch.stack((width, height, width, height), dim=1))
