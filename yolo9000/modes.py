"""The readings of YOLO9000 by name: what the paper says, and what two releases of the original program do.

Where they agree nothing stands here; where they differ, each difference is one field.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from wordtree.errors import unknown

SCORES = ("product", "objectness")


@dataclass(frozen=True)
class Mode:
    """How a detector of one reading detects.

    Attributes:
        name: "paper", "darknet" (the release of 2017-01 that YOLO9000 came with), "darknet-2018" (the last one).
        threshold: on the score.
        tree_threshold: of the descent.
        iou: the overlap above which a lesser box is suppressed.
        rule: of the descent, see `wordtree.nn.descend`.
        placement: how an image is laid on the input, see `images.place`.
        score: "product", objectness x Pr(node); or "objectness", which Darknet reports alone with a tree.
        suppression: with a tree, a box suppresses lesser ones among its "relatives", of "all" nodes, or of the "same"
            node. A flat model's boxes suppress those of the same class in every reading.
        clip: boxes are cut to the image before they are compared, as a person sees them; Darknet compares whole boxes.
        candidates: boxes an image that are looked at, the likeliest; None: all above the threshold.
        detections: boxes an image that are given, the best; None: all.
    """

    name: str
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


MODES = {
    mode.name: mode
    for mode in (
        Mode("paper", 0.25, 0.5, 0.45, "path", "stretch", "product", "relatives", True, 1000, 100),
        Mode("darknet", 0.24, 0.5, 0.4, "darknet", "darknet-stretch", "objectness", "all", False, None, None),
        Mode(
            "darknet-2018", 0.5, 0.5, 0.45, "darknet-2018", "darknet-letterbox", "objectness", "same", False, None, None
        ),
    )
}


def find_mode(name: str) -> Mode:
    """The mode of a name.

    Raises:
        WordTreeError: an unknown name; it lists the known ones.
    """
    if name not in MODES:
        raise unknown("mode", name, MODES)
    return MODES[name]


def batchnorm_of(mode: Mode, origin: Sequence[int] | None) -> str:
    """The batch-norm arithmetic of weights, see `yolo9000.batchnorm`: "torch" for our own; for Darknet's the original
    program's in its modes; in the paper's by the file's version, as the epsilon moved under the root with 0.2.

    Args:
        mode: the reading.
        origin: major and minor version of the .weights file, and more; None for weights of our own.
    """
    if origin is None:
        return "torch"
    return "darknet" if mode.name != "paper" or tuple(origin[:2]) < (0, 2) else "torch"
