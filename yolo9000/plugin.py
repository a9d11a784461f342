"""What yolo9000 offers through wordtree's hooks, by the same door as anyone: a label map and a detector. No torch here:
the plug-in is listed without it, and imports it when a detector is built."""

import csv
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from wordtree import LabelMap, WordTree, hookimpl
from wordtree.plugins import Detector


@hookimpl
def register_label_maps() -> Iterable[LabelMap]:
    """The embedded set's labels."""
    return [zoo_labels()]


@hookimpl
def register_detectors() -> Iterable[Detector]:
    """YOLO9000 over any tree."""
    return [Detector("yolo9000", _build, "YOLO9000: Darknet-19 with a tree head")]


def zoo_labels() -> LabelMap:
    """The labels of the embedded set: the fine classes, then the boxed groups that are no fine class themselves."""
    with (files("yolo9000") / "data" / "zoo" / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    ids = {row["synset"]: row["wnid"] for row in rows}
    groups = {(row["group_wnid"], row["group"]) for row in rows if row["group"]}
    for id_, group in sorted(groups):
        ids.setdefault(group, id_)
    return LabelMap("zoo", tuple(ids), tuple(ids.values()))


def _build(tree: WordTree, **options: Any) -> Any:
    from . import models

    return models.yolo9000(tree, **options)
