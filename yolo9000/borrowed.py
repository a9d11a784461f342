"""Detectors of plug-ins in yolo9000's own commands: built by name, trained, scored, saved and loaded like our own."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wordtree import WordTree, WordTreeError, plugins
from wordtree.errors import unknown

from .choice import Choice

OWN = "yolo9000"
LOSSES = ("tree", "image_label")  # by their own names; of the others those of boxes are one, and the rest objectness


class Borrowed(nn.Module):
    """A plug-in's detector, with what the commands ask of one beside the contract.

    Args:
        name: of the detector, such as "torchvision/ssdlite320_mobilenet_v3_large".
        tree: the classes.
        size: pixels of an image's side, for detectors that take one.

    Attributes, to be set at any time:
        threshold: on the score, objectness x Pr(node).
        tree_threshold: how sure each step of the descent must be.
    """

    origin = None  # of Darknet's files
    mode = "paper"

    def __init__(self, name: str, tree: WordTree, size: int) -> None:
        super().__init__()
        build = plugins.detectors()[name].build
        takes = inspect.signature(build).parameters
        sized = "size" in takes or any(one.kind is one.VAR_KEYWORD for one in takes.values())
        self.inner = build(tree, **({"size": size} if sized else {}))
        self.name, self.tree, self.size = name, tree, size
        self.options = {"network": "plug-in", "name": name, "size": size}
        self.threshold, self.tree_threshold = 0.25, 0.5

    def forward(
        self,
        images: Sequence[Tensor] | Tensor,
        targets: Sequence[dict[str, Tensor]] | None = None,
        choice: Choice | None = None,
    ) -> Any:
        """As the contract has it; losses under the names of our own: box, objectness, tree, image_label."""
        if self.training:
            return self._grouped(self.inner(list(images), targets))
        if choice is not None and choice != Choice(choice.tree_threshold):
            raise WordTreeError(
                f"level, only, collapse, allowed or node_probs of {self.name}; it takes a tree_threshold"
            )
        sure = None if choice is None else choice.tree_threshold
        return self._detect(images, self.threshold, self.tree_threshold if sure is None else sure)

    @property
    def classifier(self) -> Any:
        """What learns names before boxes: a module that shares the detector's parameters, images float [b, 3, h, w] in
        0..1 and targets {"labels" int64 [1]} -> {"image_label": loss}; None of a detector that offers none."""
        return getattr(self.inner, "classifier", None)

    @property
    def exclusive(self) -> bool:
        """Whether a label denies the siblings that its source does not know, of a detector that asks."""
        return bool(getattr(self.inner, "exclusive", False))

    @exclusive.setter
    def exclusive(self, value: bool) -> None:
        if hasattr(self.inner, "exclusive"):
            self.inner.exclusive = value

    def set_image_label(self, name: str) -> None:
        """Train on image labels by another rule, of those that the detector names in `image_labels`.

        Raises:
            WordTreeError: a rule that it does not know; one without `image_labels` has the paper's alone, "score".
        """
        offered = getattr(self.inner, "image_labels", ("score",))
        if name not in offered:
            raise unknown(f"image-label rule of {self.name}", name, offered)
        if hasattr(self.inner, "image_label"):
            self.inner.image_label = name

    @torch.no_grad()
    def score_nodes(
        self, images: Sequence[Tensor] | Tensor, nodes: Sequence[int], threshold: float
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Each image's boxes [n, 4] in its pixels, their objectness [n], and Pr of each of `nodes`, [n, nodes].

        By the detector's own `score_nodes`; of one that has none, by the likeliest path of each of its detections.
        """
        if hasattr(self.inner, "score_nodes"):
            return self.inner.score_nodes(images, nodes, threshold)  # type: ignore[no-any-return]
        place = {node: column for column, node in enumerate(nodes)}
        found = []
        for one in self._detect(images, threshold, 0.0):
            probs = torch.zeros(len(one["boxes"]), len(place))
            for row, path in enumerate(one["paths"]):
                for step, node in enumerate(path):
                    if node in place:
                        probs[row, place[node]] = one["path_probs"][row][step]
            found.append((one["boxes"], one["objectness"], probs.to(one["boxes"])))
        return found

    def _detect(self, images: Sequence[Tensor] | Tensor, threshold: float, tree_threshold: float) -> Any:
        self.inner.threshold, self.inner.tree_threshold = threshold, tree_threshold
        return self.inner(list(images))

    def _grouped(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        zero = torch.stack(list(losses.values())).sum() * 0.0
        grouped = dict.fromkeys(("box", "objectness", *LOSSES), zero)
        for name, loss in losses.items():
            kind = name if name in LOSSES else "box" if "box" in name else "objectness"
            grouped[kind] = grouped[kind] + loss
        return grouped
