"""WordTree: labels that form a tree.

    from wordtree import build_tree
    tree = build_tree("coco", "imagenet1k")

Importing this package imports no torch; `wordtree.nn` holds the layers and losses that do.
"""

from ._version import __version__
from .build import build_tree
from .edit import merge_trees, prune, restrict, subtree
from .errors import WordTreeError
from .graphs import read_taxonomy
from .hookspecs import hookimpl
from .labels import LabelMap, label_maps
from .tree import WordTree

__all__ = [
    "LabelMap",
    "WordTree",
    "WordTreeError",
    "__version__",
    "build_tree",
    "hookimpl",
    "label_maps",
    "merge_trees",
    "prune",
    "read_taxonomy",
    "restrict",
    "subtree",
]
