"""torchvision's detectors over a tree: Faster R-CNN, RetinaNet, FCOS, SSD and SSDlite.

    wordtree.plugins.detectors()["torchvision/retinanet_resnet50_fpn"].build(tree)
    wordtree_torchvision.attach(model, tree)  # a torchvision detector in hand

No torch here: the plug-in is listed without it, and imports it when a detector is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from wordtree import WordTree, hookimpl
from wordtree.plugins import Detector

if TYPE_CHECKING:
    from torch import nn

    from .detector import TreeDetector

SUMMARIES = {
    "fasterrcnn_resnet50_fpn": "Faster R-CNN, ResNet-50 with a feature pyramid",
    "fasterrcnn_resnet50_fpn_v2": "Faster R-CNN, the improved recipe",
    "fasterrcnn_mobilenet_v3_large_fpn": "Faster R-CNN, MobileNet v3",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "Faster R-CNN, MobileNet v3, small images",
    "fcos_resnet50_fpn": "FCOS, ResNet-50 with a feature pyramid",
    "retinanet_resnet50_fpn": "RetinaNet, ResNet-50 with a feature pyramid",
    "retinanet_resnet50_fpn_v2": "RetinaNet, the improved recipe",
    "ssd300_vgg16": "SSD, 300 pixels, VGG-16",
    "ssdlite320_mobilenet_v3_large": "SSDlite, 320 pixels, MobileNet v3",
}


@hookimpl
def register_detectors() -> list[Detector]:
    """One for each of torchvision's builders."""
    return [
        Detector(f"torchvision/{name}", partial(build, name), f"{summary}, over a tree")
        for name, summary in SUMMARIES.items()
    ]


def build(name: str, tree: WordTree, **options: Any) -> TreeDetector:
    """One of torchvision's detectors over a tree; see `wordtree_torchvision.zoo.build` for the options."""
    from . import zoo

    return zoo.build(name, tree, **options)


def attach(
    model: nn.Module, tree: WordTree, columns: Sequence[str | None] | None = None, width: int = 256
) -> TreeDetector:
    """A tree on a torchvision detector in hand; see `wordtree_torchvision.zoo.attach`."""
    from . import zoo

    return zoo.attach(model, tree, columns, width)
