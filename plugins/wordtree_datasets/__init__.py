"""Label maps of well-known data sets, a table each: `coco`, `voc`, `imagenet1k`, `imagenet21k`, `imagenet_det`.

README.md says where each comes from. They come in by the same hook that a stranger's plug-in would use.
`wordtree_datasets.published` reads more data sets from their own files.
"""

import csv
from functools import cache
from pathlib import Path

from wordtree import LabelMap, hookimpl

NAMES = ("coco", "imagenet1k", "imagenet21k", "imagenet_det", "voc")


@hookimpl
def register_label_maps() -> list[LabelMap]:
    return [_read(name) for name in NAMES]


@cache
def _read(name: str) -> LabelMap:
    """One table of this folder; read once a process.

    `LabelMap.read` gives the same and looks every id up in WordNet, which a test does for these tables instead: all
    that list label maps would wait for it.
    """
    with Path(__file__).with_name(f"{name}.csv").open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    return LabelMap(name, tuple(row[0] for row in rows), tuple(row[1] for row in rows))
