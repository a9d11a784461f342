"""Label maps of well-known data sets, a table each: `coco`, `voc`, `imagenet1k`. README.md says where each comes from.

They come in by the same hook that a stranger's plug-in would use.
"""

from functools import cache
from pathlib import Path

from wordtree import LabelMap, hookimpl

NAMES = ("coco", "imagenet1k", "voc")


@hookimpl
def register_label_maps() -> list[LabelMap]:
    return [_read(name) for name in NAMES]


@cache
def _read(name: str) -> LabelMap:
    """One table of this folder; read once a process."""
    return LabelMap.read(Path(__file__).with_name(f"{name}.csv"))
