"""Merging data sets: one map of all their labels, and what is to be known before they train one network.

Two data sets that are merged by hand go wrong in the same four ways: one class under two names, one name for two
classes, a class of one that holds classes of the other, and a class that one data set left unmarked. The tree takes
the first and the third; `compare` reports all four; `known` is the fourth's cure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .build import build_tree
from .errors import WordTreeError
from .labels import LabelMap
from .tree import WordTree


def merge(maps: Iterable[LabelMap], name: str | None = None) -> LabelMap:
    """One map of all labels of several, in order.

    A label that two maps give to one id stands once; where they mean different things by it, the later one is written
    `map/label`. Numbers start anew: each data set's annotations keep their own.

    Raises:
        WordTreeError: a `map/label` that would stand for two ids, as where two maps are called alike.

    Example:
        >>> zoo = LabelMap("zoo", ("crane", "dog"), ("n02012849", "n02084071"))
        >>> site = LabelMap("site", ("crane", "dog"), ("n03126707", "n02084071"))
        >>> merge([zoo, site]).labels
        ('crane', 'dog', 'site/crane')
    """
    maps = list(maps)
    id_of: dict[str, str] = {}
    for one in maps:
        for label, id_ in zip(one.labels, one.ids, strict=True):
            if id_of.setdefault(label, id_) != id_:
                renamed = f"{one.name}/{label}"
                if id_of.setdefault(renamed, id_) != id_:
                    raise WordTreeError(
                        f"label {renamed!r} would stand for {id_of[renamed]} and for {id_}; give the map "
                        f"{one.name!r} another name"
                    )
    return LabelMap(name or "+".join(one.name for one in maps), tuple(id_of), tuple(id_of.values()))


class Label(NamedTuple):
    """A label and the map that it is of."""

    map: str
    label: str

    def __str__(self) -> str:
        return f"{self.map}/{self.label}"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What several label maps have to do with each other on one tree; `print(...)` tells it in words.

    Attributes:
        maps: the maps compared.
        tree: the tree that they were compared on.
        nodes: int64 [labels] a map, the node of each of its labels.
        known: bool [maps, nodes], the nodes that each map annotates exhaustively.
        shared: node -> the labels that stand on it, where they are of two maps or more.
        doubled: node -> the labels that stand on it, where they are of one map.
        nested: (a label, a label of another map on a node below it).
        conflicts: label text -> (map, id) where one text stands on several nodes; maps that agree stand together.
    """

    maps: tuple[LabelMap, ...]
    tree: WordTree
    nodes: tuple[NDArray[np.int64], ...] = field(repr=False)
    known: NDArray[np.bool_] = field(repr=False)
    shared: dict[int, tuple[Label, ...]] = field(repr=False)
    doubled: dict[int, tuple[Label, ...]] = field(repr=False)
    nested: tuple[tuple[Label, Label], ...] = field(repr=False)
    conflicts: dict[str, tuple[tuple[str, str], ...]] = field(repr=False)

    def __str__(self) -> str:
        lines = [
            f"{one.name}: {len(one)} labels on {len(np.unique(nodes))} nodes, knows {known} of the tree's "
            f"{len(self.tree)} nodes"
            for one, nodes, known in zip(self.maps, self.nodes, self.known.sum(1), strict=True)
        ]

        def part(what: str, told: list[str]) -> None:
            lines.append(f"{what}: {len(told) or 'none'}")
            lines.extend(f"  {line}" for line in told)

        part("nodes with labels of several maps", [self._on(node, of) for node, of in self.shared.items()])
        below: dict[tuple[Label, str], list[str]] = {}
        for upper, lower in self.nested:
            below.setdefault((upper, lower.map), []).append(lower.label)
        part(
            "labels above labels of another map",
            [f"{upper} above {len(under)} of {map_}: {_some(under)}" for (upper, map_), under in below.items()],
        )
        part("nodes with several labels of one map", [self._on(node, of) for node, of in self.doubled.items()])
        part(
            "labels that mean different things",
            [
                f"{label}: {', '.join(f'{self._place(id_)} in {map_}' for map_, id_ in of)}"
                for label, of in self.conflicts.items()
            ],
        )
        return "\n".join(lines)

    def _place(self, id_: str) -> str:
        """An id with the last two names of its path, which tell the bird from the toy: `n01608432 (hawk > kite)`."""
        path = self.tree.path(self.tree.find(id_))
        return f"{id_} ({' > '.join(self.tree.names[node] for node in path[-2:])})"

    def _on(self, node: int, labels: tuple[Label, ...]) -> str:
        return f"{self.tree.names[node]} ({self.tree.ids[node]}): {', '.join(map(str, labels))}"


def compare(maps: Iterable[LabelMap], tree: WordTree | None = None) -> Comparison:
    """Where label maps meet: labels on one node, labels above others, one text for two things, what each map knows.

    Args:
        maps: two maps or more, of different names.
        tree: a tree with all their labels; built from them where left out. What stands above what is read off this
            tree, where a node has one parent.

    Raises:
        WordTreeError: fewer than two maps, two of one name, or labels that are not on the tree.

    Example:
        >>> from wordtree import label_maps
        >>> found = compare([label_maps()["voc"], label_maps()["imagenet1k"]])
        >>> sum(upper.label == "dog" for upper, lower in found.nested)  # ImageNet's breeds, below VOC's dog
        118
    """
    maps = tuple(maps)
    names = [one.name for one in maps]
    if len(maps) < 2 or len(set(names)) < len(names):
        given = ", ".join(names) or "none"
        raise WordTreeError(f"label maps to compare: {given}; give two or more, each with a name of its own")
    if tree is None:
        tree = build_tree(*maps)
    nodes = tuple(one.nodes_on(tree) for one in maps)
    labels = [Label(one.name, label) for one in maps for label in one.labels]
    owner = np.repeat(np.arange(len(maps)), [len(one) for one in maps])  # [labels] the map of each
    at = np.concatenate(nodes)

    # Labels sorted by node: those of one node are a run of `order`, from `first` of the node to `first` of the next.
    order = np.argsort(at, kind="stable")
    first = np.searchsorted(at[order], np.arange(len(tree) + 1))
    shared: dict[int, tuple[Label, ...]] = {}
    doubled: dict[int, tuple[Label, ...]] = {}
    for node in np.flatnonzero(np.diff(first) > 1).tolist():
        run = order[first[node] : first[node + 1]].tolist()
        by_map: dict[str, list[Label]] = {}
        for row in run:
            by_map.setdefault(labels[row].map, []).append(labels[row])
        if len(by_map) > 1:
            shared[node] = tuple(labels[row] for row in run)
        for own in by_map.values():
            if len(own) > 1:
                doubled[node] = (*doubled.get(node, ()), *own)

    texts: dict[str, dict[int, list[tuple[str, str]]]] = {}  # label -> node -> maps and their ids
    for (map_, label), id_, node in zip(labels, [id_ for one in maps for id_ in one.ids], at.tolist(), strict=True):
        texts.setdefault(label, {}).setdefault(node, []).append((map_, id_))
    return Comparison(
        maps=maps,
        tree=tree,
        nodes=nodes,
        known=np.stack([one.known(tree) for one in maps]),
        shared=shared,
        doubled=doubled,
        nested=tuple((labels[upper], labels[lower]) for upper, lower in _nested(tree, at, owner, order, first)),
        conflicts={label: tuple(chain(*by_node.values())) for label, by_node in texts.items() if len(by_node) > 1},
    )


def _nested(
    tree: WordTree,
    at: NDArray[np.int64],
    owner: NDArray[np.int64],
    order: NDArray[np.int64],
    first: NDArray[np.int64],
) -> list[tuple[int, int]]:
    """Pairs of label rows of different maps, the first above the second, by row: all labels climb a level at a time."""
    uppers, lowers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    row = np.arange(len(at))
    above = tree.parents[at]
    while (inside := above >= 0).any():
        row, above = row[inside], above[inside]
        count = first[above + 1] - first[above]  # the labels that stand on the node above
        start = np.repeat(first[above] - (np.cumsum(count) - count), count)
        upper = order[start + np.arange(count.sum())]
        lower = np.repeat(row, count)
        differ = owner[upper] != owner[lower]
        uppers.append(upper[differ])
        lowers.append(lower[differ])
        above = tree.parents[above]
    pairs = np.stack([np.concatenate(uppers), np.concatenate(lowers)], axis=1)
    ordered: list[list[int]] = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].tolist()
    return [(upper, lower) for upper, lower in ordered]


def _some(labels: list[str]) -> str:
    """Up to six labels, and that there are more."""
    return ", ".join(labels[:6]) + (" ..." if len(labels) > 6 else "")
