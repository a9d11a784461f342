"""The hooks, on one page. A plug-in writes the functions it has something for and marks each with `@hookimpl`.

    from wordtree import LabelMap, hookimpl

    @hookimpl
    def register_label_maps():
        return [LabelMap.read("birds.csv")]

and names its module in the entry-point group `wordtree`. Hooks return lists of plain records; a name offered twice is
refused, both plug-ins named. docs/plug-ins.md builds one that is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from .labels import LabelMap
    from .plugins import Detector
    from .taxonomy import Taxonomy

hookspec = pluggy.HookspecMarker("wordtree")
hookimpl = pluggy.HookimplMarker("wordtree")


@hookspec
def register_label_maps() -> list[LabelMap]:  # type: ignore[empty-body]
    """Data sets' classes as node ids: a list of `wordtree.LabelMap`, found under their names."""


@hookspec
def register_taxonomies() -> list[Taxonomy]:  # type: ignore[empty-body]
    """Graphs that trees are built from: a list of `wordtree.taxonomy.Taxonomy`, found under their names."""


@hookspec
def register_detectors() -> list[Detector]:  # type: ignore[empty-body]
    """Detectors over a tree: a list of `wordtree.plugins.Detector`, found under their names.

    The record's `build` imports what it needs when it is called: to be listed must not cost an import of torch.
    """
