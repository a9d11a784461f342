"""The numbers of the region loss, and its rules by reading: what the paper says, and what two releases do."""

from dataclasses import dataclass, replace
from typing import Any

from wordtree.errors import unknown

from .cfg import Section


@dataclass(frozen=True)
class LossScales:
    """The numbers of a cfg's region section (Darknet's v2 cfgs; the paper names only the IoU target)."""

    object: float = 5.0
    no_object: float = 1.0
    box: float = 1.0
    tree: float = 1.0
    ignore_iou: float = 0.6
    image_label_objectness: float = 0.3  # the paper's assumption of the overlap with a truth that has no box
    rescore: bool = True  # the aim of a truth's objectness is its box's IoU; otherwise 1
    bias_match: bool = True  # a truth's anchor is found by the anchors' shapes; otherwise by those predicted


SCALES = LossScales()


@dataclass(frozen=True)
class LossRules:
    """What a reading of YOLO9000 does in the region loss, where the readings differ.

    Attributes:
        name: as in `yolo9000.modes`.
        prior_images: how many images of training first pull every box of a boxed image towards its prior.
        small_boxes: whether a truth's box loss is weighted by 2 - width x height.
        push_down: whether an image label pushes down the objectness of the boxes it does not choose.
        pull_up: whether it pulls the chosen box's objectness up to .3.
        anchors_first: whether boxes are looked through by anchor, row, column rather than row, column, anchor, which
            decides ties.
        single: whether objectness x Pr(label) is a float32, in which the first box is chosen where all underflow.
        largest: whether an image label goes to the largest of the likeliest objects, whatever they are.
        surest: whether it goes to the likeliest object, whatever that is.
        ignores: whether the objectness in a target's "ignored" regions is left alone; Darknet knows no such regions.
        groups_stay: whether a truth that loses its predictor keeps the groups of its path that the later one has not.
        ends_at_hole: whether the first of Darknet's rows whose x is 0 ends an image's truths.
        logistic_cost: whether the printed cost has the derivative of the logistic in it.
    """

    name: str
    prior_images: int = 0
    small_boxes: bool = False
    push_down: bool = False
    pull_up: bool = True
    anchors_first: bool = False
    single: bool = False
    largest: bool = False
    surest: bool = False
    ignores: bool = True
    groups_stay: bool = False
    ends_at_hole: bool = False
    logistic_cost: bool = True


_RELEASED: dict[str, Any] = {
    "prior_images": 12800,
    "push_down": True,
    "single": True,
    "ignores": False,
    "groups_stay": True,
    "ends_at_hole": True,
}
RULES = {
    rules.name: rules
    for rules in (
        LossRules("paper"),
        LossRules("darknet", **_RELEASED),
        LossRules(
            "darknet-2018", **_RELEASED, small_boxes=True, pull_up=False, anchors_first=True, logistic_cost=False
        ),
    )
}


# which box takes an image label, and what becomes of the others' objectness; the rest of a reading stays as it is
_SCORE: dict[str, Any] = {
    "push_down": False,
    "pull_up": True,
    "anchors_first": False,
    "single": False,
    "largest": False,
    "surest": False,
}
IMAGE_LABELS: dict[str, dict[str, Any]] = {
    "score": _SCORE,
    "area": _SCORE | {"largest": True},
    "objectness": _SCORE | {"surest": True},
    "darknet": _SCORE | {"push_down": True, "single": True},
}


def with_image_label(rules: LossRules, name: str) -> LossRules:
    """A reading's rules with another rule for image labels.

    - "score", the paper: the box of largest objectness x Pr(label); the others' objectness is left alone.
    - "area": the largest box, cut at the image's edge, of the 128 of highest objectness; the higher objectness on a
      tie. Detic's "max-size", which takes the largest of 128 proposals and asks no classifier (Zhou et al. 2022).
    - "objectness": the box of highest objectness, whatever it is named: for images of one object each, where a detector
      of many boxes would otherwise teach the name to whichever of them came near it by chance.
    - "darknet", the release of 2017-01: as "score", in float32, and the objectness of all others is pushed down.

    In each the chosen box takes the tree loss, and its objectness is pulled up to .3 where it is below.

    Raises:
        WordTreeError: an unknown name.

    Example:
        >>> with_image_label(RULES["paper"], "score") == RULES["paper"]
        True
        >>> with_image_label(RULES["paper"], "darknet").push_down
        True
    """
    if name not in IMAGE_LABELS:
        raise unknown("image-label rule", name, IMAGE_LABELS)
    return replace(rules, **IMAGE_LABELS[name])


def scales_of(region: Section) -> LossScales:
    """The numbers of a cfg's `[region]`; what it leaves out has Darknet's defaults."""
    return LossScales(
        object=region.number("object_scale", 1),
        no_object=region.number("noobject_scale", 1),
        box=region.number("coord_scale", 1),
        tree=region.number("class_scale", 1),
        ignore_iou=region.number("thresh", 0.5),
        rescore=region.whole("rescore", 0) > 0,
        bias_match=region.whole("bias_match", 0) > 0,
    )


def find_rules(mode: str) -> LossRules:
    """The rules of a mode.

    Raises:
        WordTreeError: an unknown name; it lists the known ones.
    """
    if mode not in RULES:
        raise unknown("mode", mode, RULES)
    return RULES[mode]
