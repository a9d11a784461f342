"""Faster R-CNN over a tree: proposals, then objectness, a box and a name for each."""

from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import remove_small_boxes

from .dense import clipped
from .detector import (
    KNOWN_OBJECTNESS,
    Kept,
    Rows,
    Target,
    TreeDetector,
    exact,
    ignored,
    left_alone,
    log_sigmoid,
    not_background,
    pull,
    softened,
)

SMALLEST = 1e-2  # pixels of a side; torchvision leaves smaller boxes out


class TreeRCNN(TreeDetector):
    """Faster R-CNN over a tree; see `TreeDetector`. A proposal gets one box: that of the detector's likeliest class."""

    def see(
        self, batch: ImageList, features: dict[str, Tensor], proposals: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The second stage at some proposals: features [n, f], columns [n, k], objectness logits [n], boxes [n, 4]."""
        heads = self.model.roi_heads
        read = heads.box_head(heads.box_roi_pool(features, proposals, batch.image_sizes)).flatten(1)
        columns, coded = heads.box_predictor(read)
        likeliest = columns[:, 1:].argmax(1) + 1  # class-agnostic boxes where there is one class
        coded = coded.view(len(coded), -1, 4)[torch.arange(len(coded), device=coded.device), likeliest]
        return read, columns, not_background(columns), coded

    def rows(self, read: Tensor, columns: Tensor) -> Tensor:
        """Rows for the tree's classifier."""
        return self.head(  # type: ignore[no-any-return]
            0, read, torch.zeros(len(read), dtype=torch.int64, device=read.device), columns
        )

    def keep(self, batch: ImageList, features: dict[str, Tensor], threshold: float) -> Kept:
        proposals, _ = self.model.rpn(batch, features)
        read, columns, logits, coded = self.see(batch, features, proposals)
        objectness = log_sigmoid(logits).exp()
        image = torch.cat([torch.full((len(part),), at, device=part.device) for at, part in enumerate(proposals)])
        boxes = clipped(self.model.roi_heads.box_coder.decode(exact(coded), proposals)[:, 0], batch, image)
        large = remove_small_boxes(boxes, SMALLEST)
        at = large[objectness[large] > threshold]
        return Kept(image[at], boxes[at], objectness[at], self.rows(read[at], columns[at]))

    # ------------------------------------------------------------------ training

    def losses(
        self, batch: ImageList, features: dict[str, Tensor], targets: list[Target], boxed: list[bool]
    ) -> dict[str, Tensor]:
        heads = self.model.roi_heads
        mine = [at for at, has in enumerate(boxed) if has]
        proposals, losses = self.propose(batch, features, targets, mine)
        # torchvision's labels have 0 for the background
        given = [{"boxes": targets[at]["boxes"], "labels": targets[at]["labels"] + 1} for at in mine]
        chosen = [proposals[at] for at in mine]
        if mine:
            chosen, _, truths, aims = heads.select_training_samples(chosen, given)
        most = heads.fg_bg_sampler.batch_size_per_image
        for at, part in zip(mine, chosen, strict=True):
            proposals[at] = part
        # an image label looks at as many proposals as a boxed image learns from
        proposals = [part if has else part[:most] for part, has in zip(proposals, boxed, strict=True)]
        read, columns, logits, coded = self.see(batch, features, proposals)
        image = torch.cat([torch.full((len(part),), at, device=part.device) for at, part in enumerate(proposals)])
        zero = logits.sum() * 0.0 + coded.sum() * 0.0
        x = self.rows(read, columns)

        here = torch.tensor(boxed, device=image.device)[image]  # rows of images with boxes
        labels = torch.cat(truths) if mine else image[:0]
        pushed = self._pushed_less(logits, x, image, here, labels, targets, proposals)
        losses["loss_classifier"], losses["loss_box_reg"] = zero, zero
        if mine:
            both = torch.stack((torch.zeros_like(pushed), pushed), dim=1)
            agnostic = coded[here].repeat(1, 2)
            losses["loss_classifier"], losses["loss_box_reg"] = fastrcnn_loss(
                both, agnostic, [labels.clamp(max=1)], aims
            )

        rows = here.nonzero()[:, 0][labels > 0]
        share = torch.full((len(rows),), 1 / max(1, len(labels)), device=x.device, dtype=zero.dtype)
        first = Rows(x[rows], labels[labels > 0] - 1, share, image[rows])
        best, given_labels = self._labelled(log_sigmoid(logits), x, image, torch.cat(proposals), targets, boxed)
        part = torch.full((len(best),), 1 / len(targets), device=x.device, dtype=zero.dtype)
        tree, label = self.tree_losses(first, Rows(x[best], given_labels, part, image[best]), targets)
        label = label + pull(log_sigmoid(logits[best])).sum() / len(targets)
        return {**losses, "tree": tree + zero, "image_label": label + zero}

    def propose(
        self, batch: ImageList, features: dict[str, Tensor], targets: list[Target], mine: list[int]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The first stage, as `RegionProposalNetwork.forward`; its losses count the images with boxes alone."""
        rpn = self.model.rpn
        maps = list(features.values())
        objectness, coded = rpn.head(maps)
        anchors = rpn.anchor_generator(batch, maps)
        levels = [part[0].numel() for part in objectness]
        objectness, coded = concat_box_prediction_layers(objectness, coded)
        boxes = rpn.box_coder.decode(coded.detach(), anchors).view(len(anchors), -1, 4)
        proposals, _ = rpn.filter_proposals(boxes, objectness, batch.image_sizes, levels)
        zero = objectness.sum() * 0.0 + coded.sum() * 0.0
        losses = {"loss_objectness": zero, "loss_rpn_box_reg": zero}
        if mine:
            own = [anchors[image] for image in mine]
            labels, matched = rpn.assign_targets_to_anchors(own, [targets[image] for image in mine])
            for image, at, part in zip(mine, own, labels, strict=True):
                part[(part == 0) & ignored(targets[image], at)] = -1.0  # as torchvision marks what counts neither way
            aims = rpn.box_coder.encode(matched, own)
            objectness = objectness.view(len(anchors), -1, 1)[mine].flatten(0, 1)
            coded = coded.view(len(anchors), -1, 4)[mine].flatten(0, 1)
            losses = dict(zip(losses, rpn.compute_loss(objectness, coded, labels, aims), strict=True))
        return proposals, losses

    @torch.no_grad()
    def _share(self, logits: Tensor, x: Tensor, known: Tensor) -> Tensor:
        share = torch.ones_like(logits)
        at = (logits.sigmoid() > KNOWN_OBJECTNESS).nonzero()[:, 0]
        share[at] = self.known_share(x[at], known).to(share)
        return share

    def _pushed_less(
        self,
        logits: Tensor,
        x: Tensor,
        image: Tensor,
        here: Tensor,
        labels: Tensor,
        targets: list[Target],
        proposals: list[Tensor],
    ) -> Tensor:
        """The logits of the sampled proposals, softened at backgrounds whose class their source may not know, and in
        ignored regions."""
        image, x, pushed = image[here], x[here], logits[here]
        for at, target in enumerate(targets):
            known: Any = target.get("known")
            rows = ((image == at) & (labels == 0)).nonzero()[:, 0]
            if "ignored" in target and len(rows):
                alone = rows[ignored(target, proposals[at])[labels[image == at] == 0]]
                pushed = pushed.index_put((alone,), left_alone(pushed[alone]))
            if known is None or bool(known.all()) or not len(rows):
                continue
            share = self._share(pushed[rows].detach(), x[rows].detach(), known)
            pushed = pushed.index_put((rows,), softened(pushed[rows], share))
        return pushed

    def _labelled(
        self,
        log_objectness: Tensor,
        x: Tensor,
        image: Tensor,
        boxes: Tensor,
        targets: list[Target],
        boxed: list[bool],
    ) -> tuple[Tensor, Tensor]:
        """Each image label's box: row, label. An image without a proposal has none."""
        best, labels = [], []
        for at in (at for at, has in enumerate(boxed) if not has):
            rows = (image == at).nonzero()[:, 0]
            if len(rows):
                label = targets[at]["labels"].reshape(-1)[:1]
                best.append(rows[self.chosen(log_objectness[rows], x[rows], label, boxes[rows])][None])
                labels.append(label)
        none = image[:0]
        return torch.cat([none, *best]), torch.cat([none, *labels])
