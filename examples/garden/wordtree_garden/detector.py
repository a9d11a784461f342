"""A detector over any tree, on torchvision's contract: a box, an objectness and a node for each cell of a grid."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, smooth_l1_loss
from torchvision.ops import nms

from wordtree.nn import TreeLinear
from wordtree.nn.contract import checked_target

STRIDE = 8


class Tiny(nn.Module):
    """In training `model(images, targets)` gives losses by name, in evaluation `model(images)` detections.

    A target holds `labels`, nodes of the tree, and `boxes` in pixels; an image that is only known to show something
    has one label and no boxes.
    """

    def __init__(self, tree, width=16, size=64, threshold=0.5, tree_threshold=0.5):
        super().__init__()
        self.tree, self.size = tree, size
        self.threshold, self.tree_threshold = threshold, tree_threshold
        channels = [3, width, 2 * width, 4 * width]
        blocks = [
            nn.Sequential(nn.Conv2d(a, b, 5, stride=2, padding=2), nn.GroupNorm(1, b), nn.LeakyReLU(0.1))
            for a, b in pairwise(channels)
        ]
        self.trunk = nn.Sequential(*blocks)
        self.region = nn.Linear(4 * width, 5)  # x, y, w, h and objectness
        self.classes = TreeLinear(4 * width, tree)

    def forward(self, images, targets=None):
        size = (self.size, self.size)
        batch = torch.cat([interpolate(image[None], size, mode="bilinear") for image in images])
        features = self.trunk(batch).flatten(2).transpose(1, 2)  # [batch, cells, channels]
        raw = self.region(features)  # [batch, cells, 5]
        scale = batch.new_tensor([[image.shape[-1], image.shape[-2]] * 2 for image in images])[:, None]  # w, h, w, h
        boxes, objectness = self.decode(raw[..., :4]) * scale, raw[..., 4]
        if self.training:
            return self.losses(features, boxes / scale, objectness, targets, scale)
        return [self.detect(*one) for one in zip(features, boxes, objectness)]

    def decode(self, raw):
        """[batch, cells, 4] -> xyxy in fractions of the image."""
        grid = self.size // STRIDE
        cells = torch.arange(grid * grid, device=raw.device)
        corner = torch.stack([cells % grid, cells // grid], dim=-1)
        centre, half = (corner + raw[..., :2].sigmoid()) / grid, raw[..., 2:].sigmoid() / 2
        return torch.cat([centre - half, centre + half], dim=-1)

    def losses(self, features, boxes, objectness, targets, scale):
        grid = self.size // STRIDE
        truth, images, cells, labels, wanted = torch.zeros_like(objectness), [], [], [], []
        for number, target in enumerate(targets):
            target = checked_target(target, number, self.tree)
            if "boxes" in target:
                found = target["boxes"] / scale[number]
                column, row = ((found[:, :2] + found[:, 2:]) / 2 * grid).long().clamp(0, grid - 1).unbind(1)
                at = row * grid + column
                wanted.append((boxes[number, at], found))
            else:  # the likeliest cell for what the image is said to show
                named = self.classes.log_prob_at(features[number], target["labels"].expand(grid * grid))
                at = (objectness[number].sigmoid().log() + named).argmax()[None].detach()
            truth[number, at] = 1.0
            images += [number] * len(at)
            cells.append(at)
            labels.append(target["labels"])
        rows = features[images, torch.cat(cells)]
        return {
            "box": sum((smooth_l1_loss(*pair, reduction="sum") for pair in wanted), boxes.new_zeros(())) / len(targets),
            "objectness": binary_cross_entropy_with_logits(objectness, truth, reduction="sum") / len(targets),
            "tree": self.classes.loss(rows, torch.cat(labels), reduction="sum") / len(targets),
        }

    @torch.no_grad()
    def detect(self, features, boxes, objectness):
        kept = (objectness.sigmoid() > self.threshold).nonzero()[:, 0]
        nodes, log_probs = self.classes.descend(features[kept], self.tree_threshold)
        scores = objectness[kept].sigmoid() * log_probs.exp().to(objectness)
        best = nms(boxes[kept], scores, 0.45)
        return {
            "boxes": boxes[kept][best],
            "labels": nodes[best],
            "scores": scores[best],
            "paths": [self.tree.path(node) for node in nodes[best].tolist()],
        }
