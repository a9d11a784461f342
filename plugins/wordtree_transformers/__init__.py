"""transformers' detectors of the DETR family over a tree: DETR, its conditional, deformable and DAB kin, RT-DETR, ...

    wordtree.plugins.detectors()["transformers/detr-resnet-50"].build(tree)
    wordtree_transformers.attach(model, tree)  # a model of transformers in hand

Neither torch nor transformers here: the plug-in is listed without them, and imports them when a detector is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from wordtree import WordTree, WordTreeError, hookimpl
from wordtree.plugins import Detector

if TYPE_CHECKING:
    from torch import nn

    from .detector import TreeQueries

SUMMARIES = {
    "detr-resnet-50": "DETR, ResNet-50",
    "detr-resnet-101": "DETR, ResNet-101",
    "conditional-detr-resnet-50": "Conditional DETR, ResNet-50",
    "dab-detr-resnet-50": "DAB-DETR, ResNet-50",
    "deformable-detr": "Deformable DETR, ResNet-50, four levels",
    "rtdetr_r18vd": "RT-DETR, ResNet-18",
    "rtdetr_r50vd": "RT-DETR, ResNet-50",
    "rtdetr_v2_r18vd": "RT-DETR v2, ResNet-18",
    "rtdetr_v2_r50vd": "RT-DETR v2, ResNet-50",
    "dfine-large": "D-FINE, HGNet v2",
    "yolos-tiny": "YOLOS, a plain vision transformer",
}
NEEDED = ("transformers", "scipy")  # transformers matches with scipy


@hookimpl
def register_detectors() -> list[Detector]:
    """One for each of the configurations that are known by name."""
    return [
        Detector(f"transformers/{name}", partial(build, name), f"{summary}, over a tree")
        for name, summary in SUMMARIES.items()
    ]


def build(name: str, tree: WordTree, **options: Any) -> TreeQueries:
    """One of transformers' detectors over a tree; see `wordtree_transformers.zoo.build` for the options."""
    _check()
    from . import zoo

    return zoo.build(name, tree, **options)


def attach(
    model: nn.Module,
    tree: WordTree,
    columns: Sequence[str | None] | None = None,
    size: int | None = None,
    width: int = 256,
) -> TreeQueries:
    """A tree on a detector of transformers in hand; see `wordtree_transformers.zoo.attach`."""
    _check()
    from . import zoo

    return zoo.attach(model, tree, columns, size, width)


def _check() -> None:
    missing = [package for package in NEEDED if find_spec(package) is None]
    if missing:
        raise WordTreeError(
            f"a detector of transformers, without {' and '.join(missing)}; install it: pip install {' '.join(missing)}"
        )
