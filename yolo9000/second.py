"""A second look: the boxes of a detector, named by a classifier that sees each of them by itself.

A detector that saw few pictures may find what it cannot name; a classifier that saw a million photographs names what it
is shown, and finds nothing. The tree is what the two have in common.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, roi_align

from wordtree import WordTree, WordTreeError
from wordtree.nn import tree_log_prob
from wordtree.nn.descent import walk
from wordtree.nn.index import tree_index

from .borrowed import AnyDetector, Borrowed
from .choice import EVERYTHING, Choice
from .looking import places
from .trunks import DEFAULT, named_classifier

TINY = 1e-30


class SecondLook(Borrowed):
    """A detector's boxes with a classifier's names, for `detect`, `stream` and `evaluate` in place of a detector.

    Boxes are found and suppressed by objectness. What lies in the `most` likeliest is cut out of the image as it was
    given, not as the detector saw it, and shown to the classifier. Its names go as far down the tree as it knows: what
    it leaves to a node itself is divided among the children by the detector, see `settle`.

    Args:
        detector: finds the boxes.
        classifier: what is in a box, float [n, 3, crop, crop] RGB in 0..1 -> log Pr of each node [n, nodes], -inf of
            nodes that it does not know: a `trunks.named_classifier`, a `wordtree.nn.Hierarchical` over the same tree,
            a `TreeClassifier`.
        crop: pixels of a side that a box's content is stretched to.
        most: so many boxes of an image are looked at.

    Attributes, to be set at any time:
        threshold: on the score, objectness x Pr(node).
        tree_threshold: how sure each step of the descent must be.

    Raises:
        WordTreeError: a classifier over another tree; asked to train.

    Example:
        >>> from yolo9000 import models
        >>> tree = WordTree(["animal", "dog"], [-1, 0])
        >>> small = {"widths": (8, 16, 32), "counts": (1, 1, 3)}
        >>> look = SecondLook(models.yolo9000(tree, size=96, **small), models.darknet19(tree, 32, **small)).eval()
        >>> sorted(look([torch.rand(3, 200, 100)])[0])
        ['boxes', 'labels', 'objectness', 'path_probs', 'paths', 'scores']
    """

    def __init__(self, detector: AnyDetector, classifier: nn.Module, crop: int = 128, most: int = 30) -> None:
        nn.Module.__init__(self)
        if getattr(classifier, "tree", detector.tree) != detector.tree:
            raise WordTreeError(
                f"a classifier over {classifier.tree} for a detector over {detector.tree}; give one over the same tree"
            )
        self.inner, self.namer, self.crop, self.most = detector, classifier, crop, most
        self.name, self.tree, self.size, self.mode = "second look", detector.tree, detector.size, detector.mode
        self.threshold, self.tree_threshold = detector.threshold, detector.tree_threshold

    def forward(self, images: Sequence[Tensor] | Tensor, targets: Any = None, choice: Choice | None = None) -> Any:
        """As `Detector` in evaluation, one answer a box."""
        if self.training:
            raise WordTreeError("a second look asked to train; train the detector, or the classifier, by itself")
        choice = choice or EVERYTHING
        sure = self.tree_threshold if choice.tree_threshold is None else choice.tree_threshold
        return [self._answered(*found, sure, choice) for found in self._looked(images, self.threshold)]

    @torch.no_grad()
    def score_nodes(
        self, images: Sequence[Tensor] | Tensor, nodes: Sequence[int], threshold: float
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Each image's boxes [n, 4] in its pixels, their objectness [n], and Pr of each of `nodes`, [n, nodes]."""
        return [
            (boxes, objectness, tree_log_prob(logits, self.tree)[:, list(nodes)].exp())
            for boxes, objectness, logits in self._looked(images, threshold)
        ]

    @torch.no_grad()
    def _looked(self, images: Sequence[Tensor] | Tensor, threshold: float) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of each image: boxes [n, 4], by falling objectness [n], and their logits [n, nodes]."""
        for image, (boxes, objectness, log_probs) in zip(
            images, places(self.inner, list(images), threshold, self.most), strict=True
        ):  # a list, since a stack would keep its size
            if len(boxes):
                seen = self.namer(cut(image, boxes, self.crop)).exp()
                log_probs = settle(log_probs.exp(), seen, self.tree).clamp(min=TINY).log()
            yield boxes, objectness, log_probs

    def _answered(
        self, boxes: Tensor, objectness: Tensor, logits: Tensor, tree_threshold: float, choice: Choice
    ) -> dict[str, Any]:
        scope = choice.scope(self.tree, logits.device)
        index = tree_index(self.tree, logits.device)
        walked = walk(lambda asked: logits[asked.row, asked.node], len(boxes), index, tree_threshold, scope=scope)
        scores = objectness * walked.log_probs.exp().to(objectness.dtype)
        passed = scores > self.threshold
        if choice.only is not None:
            passed &= walked.nodes >= 0
        best = scores.masked_fill(~passed, -1).argsort(descending=True, stable=True)[: int(passed.sum())]
        labels = walked.nodes[best]
        answer = {
            "boxes": boxes[best],
            "labels": labels,
            "scores": scores[best],
            "objectness": objectness[best],
            "path_probs": walked.path_log_probs[best].exp(),
            "paths": [self.tree.path(node) for node in labels.tolist()],
        }
        if choice.node_probs:
            answer["node_probs"] = tree_log_prob(logits[best], self.tree).exp()
        return answer


def settle(own: Tensor, seen: Tensor, tree: WordTree) -> Tensor:
    """Pr(node | parent) of two: one who is asked first, and one who divides what the first leaves open.

    What the first leaves to a node itself, Pr(node) less that of its children, goes to the children as the other has
    them. So where the first knows all, the other is not heard; where it knows nothing below a node, it is not.

    Args:
        own: Pr of each node by the other, float [n, nodes].
        seen: Pr of each node by the first, float [n, nodes], 0 of those that it does not know.
        tree: the nodes.

    Returns:
        float [n, nodes], which sum to 1 over each group of siblings where the other's do.

    Example:
        >>> tree = WordTree(["dog", "cat", "poodle", "pug"], [-1, -1, 0, 0])
        >>> own = torch.tensor([[0.5, 0.5, 0.4, 0.1]])
        >>> settle(own, torch.tensor([[0.9, 0.0, 0.0, 0.0]]), tree)  # knows dogs, and no kind of them
        tensor([[0.9500, 0.0500, 0.8000, 0.2000]])
    """
    told, left = _steps(seen, tree), _steps(own, tree)
    group = torch.from_numpy(tree.group_of.copy()).to(seen.device)
    total = told.new_zeros(len(told), len(tree.group_start)).index_add(1, group, told)
    return told + (1 - total).clamp(min=0)[:, group] * left


def _steps(probs: Tensor, tree: WordTree) -> Tensor:
    """Pr(node) -> Pr(node | parent), 0 below a node of 0."""
    parents = torch.from_numpy(tree.parents.copy()).to(probs.device)
    above = torch.where(parents >= 0, probs[:, parents.clamp(min=0)], 1.0)
    return probs / above.clamp(min=TINY)


def cut(image: Tensor, boxes: Tensor, size: int) -> Tensor:
    """What lies in boxes, stretched: float [3, h, w], float [n, 4] xyxy pixels -> [n, 3, size, size].

    A pixel of the answer is the mean of what lies under it (bilinear in smaller boxes); none lies outside the image.
    """
    cuts: Tensor = roi_align(image[None], [clip_boxes_to_image(boxes, image.shape[1:])], size, aligned=True)
    return cuts


def looking_again(model: AnyDetector, name: str | None, weights: str | Path = DEFAULT) -> AnyDetector:
    """A detector with a `named_classifier` for its second look; as it is where there is no name.

    weights: of the classifier, as `trunks.load_trunk`.
    """
    return model if name is None else SecondLook(model, named_classifier(name, model.tree, weights)).eval()
