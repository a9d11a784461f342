"""WordTree: node ids and parents, in order; frozen and checked.

A tree is a tuple of ids and a read-only int64 array of parents with `parents[node] < node`, siblings contiguous.
The root is implicit: the children of the root are one group like any other, and `len(tree)` is the number of logits.
Darknet's own 9418-node tree keeps every one of these rules. Every walk is a single loop or an indexed array.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import WordTreeError, unknown

if TYPE_CHECKING:
    import networkx

    from .build import Report

ROOT = -1  # the parent of a root child, and the node that stands for "nothing on the tree passed"


class WordTree:
    """A label tree: ids for life, names to read, parents in order.

    Args:
        ids: one id a node, unique, such as the WNID "n02084071".
        parents: int [nodes], the parent of each node, -1 for a child of the implicit root; `parents[i] < i`, and the
            children of one parent stand next to each other.
        names: one name a node for people to read, not necessarily unique; the ids where left out.
        root_name: how the implicit root is shown.
        report: what was attached, collapsed and chosen while the tree was built; None for a tree that was read.

    Raises:
        WordTreeError: the first fault found, by node.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> len(tree), tree.path(2), tree.children(0), tree.leaves.tolist()
        (4, (0, 2), (2, 3), [1, 2, 3])
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    parents: NDArray[np.int64]
    root_name: str
    report: Report | None
    hash: str  # SHA-256 of ids and parents, hex: two trees with one hash have the same nodes in the same order

    def __init__(
        self,
        ids: Iterable[str],
        parents: ArrayLike,
        names: Iterable[str] | None = None,
        *,
        root_name: str = "root",
        report: Report | None = None,
    ) -> None:
        given_ids = tuple(ids)
        given_parents = np.array(parents)
        if given_parents.size and given_parents.dtype.kind not in "iu":
            raise WordTreeError(
                f"parents of type {given_parents.dtype} given; a parent is a whole number: a node, or -1"
            )
        given_parents = given_parents.astype(np.int64, copy=False)
        given_names = given_ids if names is None else tuple(names)
        _check(given_ids, given_parents, given_names)
        given_parents.flags.writeable = False
        fields = {
            "ids": given_ids,
            "names": given_names,
            "parents": given_parents,
            "root_name": root_name,
            "report": report,
        }
        self.__dict__.update(fields)
        digest = hashlib.sha256("\n".join(given_ids).encode())
        digest.update(given_parents.astype("<i8").tobytes())
        self.__dict__["hash"] = digest.hexdigest()
        self.__dict__["_equals"] = _ALIVE.setdefault(self.hash, WeakValueDictionary())
        self.__dict__["_equals"][id(self)] = self

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a WordTree is frozen: cannot set {name!r}; build a new tree instead")

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"WordTree({len(self)} nodes, {len(self.group_start)} groups, {len(self.leaves)} leaves)"

    def _repr_html_(self) -> str:
        from . import show, web

        return web.folds(show.picture_of_tree(self))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WordTree):
            return NotImplemented
        return self.ids == other.ids and np.array_equal(self.parents, other.parents)

    def __hash__(self) -> int:
        return hash(self.hash)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.ids, self.parents, self.names, self.root_name, self.report)

    # ------------------------------------------------------------------ derived once, on first use

    @cached_property
    def depths(self) -> NDArray[np.int64]:
        """int64 [nodes]: edges from the root child above, 0 for a root child."""
        depths = np.zeros(len(self), dtype=np.int64)
        above = self.parents
        while (inside := above >= 0).any():
            depths += inside
            above = np.where(inside, self.parents[above], ROOT)
        return _frozen(depths)

    @cached_property
    def group_start(self) -> NDArray[np.int64]:
        """int64 [groups]: first node of each group of siblings, ascending; group 0 holds the root children."""
        return _frozen(np.flatnonzero(np.diff(self.parents, prepend=-2)))

    @cached_property
    def group_size(self) -> NDArray[np.int64]:
        """int64 [groups]: how many siblings each group has."""
        return _frozen(np.diff(self.group_start, append=len(self)))

    @cached_property
    def group_of(self) -> NDArray[np.int64]:
        """int64 [nodes]: the group that each node is a member of."""
        return _frozen(np.repeat(np.arange(len(self.group_start)), self.group_size))

    @cached_property
    def group_below(self) -> NDArray[np.int64]:
        """int64 [nodes]: the group of each node's children, -1 for a leaf."""
        below = np.full(len(self), -1, dtype=np.int64)
        below[self.parents[self.group_start[1:]]] = np.arange(1, len(self.group_start))
        return _frozen(below)

    @cached_property
    def leaves(self) -> NDArray[np.int64]:
        """int64 [leaves]: the nodes without children, ascending."""
        return _frozen(np.flatnonzero(self.group_below < 0))

    @cached_property
    def leaves_below(self) -> NDArray[np.int64]:
        """int64 [nodes]: how many leaves each node stands for, 1 for a leaf."""
        below = (self.group_below < 0).astype(np.int64)
        for depth in range(int(self.depths.max()), 0, -1):  # one level up at a time
            at = np.flatnonzero(self.depths == depth)
            np.add.at(below, self.parents[at], below[at])
        return _frozen(below)

    @cached_property
    def heights(self) -> NDArray[np.int64]:
        """int64 [nodes]: edges down to the deepest leaf below, 0 for a leaf."""
        heights = np.zeros(len(self), dtype=np.int64)
        for depth in range(int(self.depths.max()), 0, -1):
            at = np.flatnonzero(self.depths == depth)
            np.maximum.at(heights, self.parents[at], heights[at] + 1)
        return _frozen(heights)

    @cached_property
    def information(self) -> NDArray[np.float64]:
        """float64 [nodes]: bits that a node tells of the leaf, log2 of all leaves less log2 of those below it."""
        return _frozen(np.log2(len(self.leaves)) - np.log2(self.leaves_below))

    @cached_property
    def _node_of_id(self) -> dict[str, int]:
        return {id_: node for node, id_ in enumerate(self.ids)}

    @cached_property
    def _nodes_of_name(self) -> dict[str, list[int]]:
        nodes: dict[str, list[int]] = {}
        for node, name in enumerate(self.names):
            nodes.setdefault(_plain(name), []).append(node)
        return nodes

    # ------------------------------------------------------------------ questions

    def find(self, text: str) -> int:
        """The node that an id, a synset name (`dog.n.01`), a name or a synonym stands for.

        Raises:
            WordTreeError: nothing matches (the nearest names are given), or several nodes do (their ids are listed).

        Example:
            >>> from wordtree import build_tree
            >>> tree = build_tree(["dog.n.01", "cat.n.01"])
            >>> tree.ids[tree.find("dog")], tree.find("dog") == tree.find("n02084071") == tree.find("dog.n.01")
            ('n02084071', True)
        """
        if text in self._node_of_id:
            return self._node_of_id[text]
        nodes = self._nodes_of_name.get(_plain(text), [])
        if not nodes:
            from .wordnet import candidates  # only a name that is no node's own needs the word list

            nodes = sorted(self._node_of_id[id_] for id_ in candidates(text) if id_ in self._node_of_id)
        if len(nodes) == 1:
            return nodes[0]
        if nodes:
            listed = ", ".join(f"{self.ids[n]} ({' > '.join(self.names[p] for p in self.path(n)[-3:])})" for n in nodes)
            raise WordTreeError(f"{text!r} names {len(nodes)} nodes of this tree; give an id instead: {listed}")
        raise unknown("node", text, dict.fromkeys(self.names))

    def path(self, node: int) -> tuple[int, ...]:
        """The nodes from the root child down to `node`, itself included; empty for -1, the root.

        Raises:
            WordTreeError: a node that is not on the tree; as `children` and `is_ancestor` do.
        """
        node, steps = _checked_node(self, node), []
        while node >= 0:
            steps.append(node)
            node = int(self.parents[node])
        return tuple(reversed(steps))

    def children(self, node: int = ROOT) -> tuple[int, ...]:
        """The children of a node, ascending; of the root for -1; empty for a leaf."""
        node = _checked_node(self, node)
        group = 0 if node == ROOT else int(self.group_below[node])
        if group < 0:
            return ()
        start = int(self.group_start[group])
        return tuple(range(start, start + int(self.group_size[group])))

    @overload
    def common(self, a: int, b: int) -> int: ...
    @overload
    def common(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]: ...
    @overload
    def common(self, a: ArrayLike, b: ArrayLike) -> int | NDArray[np.int64]: ...
    def common(self, a: ArrayLike, b: ArrayLike) -> int | NDArray[np.int64]:
        """The deepest node that is `a` or above it and `b` or above it; -1 where only the root is.

        Args:
            a, b: nodes, or int [...] of them, broadcast; -1 is the root.

        Returns:
            a node for two nodes, int64 [...] for arrays.

        Raises:
            WordTreeError: a node that is not on the tree.

        Example:
            >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
            >>> tree.common(2, 3), tree.common([2, 2, 1], [3, 0, 3]).tolist()
            (0, [0, 0, -1])
        """
        one, other = np.broadcast_arrays(checked_nodes(self, a), checked_nodes(self, b))
        while (one != other).any():  # a parent stands before its child: the later of two is not above the other
            one, other = (
                np.where(one > other, self.parents[one], one),
                np.where(other > one, self.parents[other], other),
            )
        return one.copy() if one.ndim else int(one)

    def is_ancestor(self, a: ArrayLike, b: ArrayLike) -> NDArray[np.bool_]:
        """bool, broadcast over the two: `a` lies strictly above `b`."""
        upper, lower = np.broadcast_arrays(checked_nodes(self, a), checked_nodes(self, b))
        above = np.where(lower >= 0, self.parents[lower], ROOT)
        found = np.zeros(upper.shape, dtype=bool)
        while (above >= 0).any():
            found |= (above == upper) & (above >= 0)
            above = np.where(above >= 0, self.parents[above], ROOT)
        return found

    def propagate(self, nodes: ArrayLike) -> NDArray[np.bool_]:
        """Label propagation (paper section 4): each label and all above it.

        Args:
            nodes: int [...], nodes; -1 (the root) marks nothing.

        Returns:
            bool [..., nodes]: True at the node and at each of its ancestors.
        """
        at = checked_nodes(self, nodes)
        flat = at.reshape(-1)
        marks = np.zeros((flat.size, len(self)), dtype=bool)
        while (inside := flat >= 0).any():
            marks[np.flatnonzero(inside), flat[inside]] = True
            flat = np.where(inside, self.parents[flat], ROOT)
        return marks.reshape(*at.shape, len(self))

    def on_paths(self, nodes: ArrayLike) -> NDArray[np.bool_]:
        """bool [nodes]: True at those given and at all above them; `propagate` of all labels together.

        Args:
            nodes: int [...], nodes; -1 (the root) marks nothing.

        Example:
            >>> WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0]).on_paths([1, 2]).tolist()
            [True, True, True, False]
        """
        marks = np.zeros(len(self), dtype=bool)
        at = checked_nodes(self, nodes).reshape(-1)
        while (at := at[at >= 0]).size:  # one level up at a time, all nodes at once
            marks[at] = True
            at = self.parents[at]
        return marks

    # ------------------------------------------------------------------ in and out

    def to_networkx(self) -> networkx.DiGraph[str]:
        """A DiGraph on the ids, edges parent -> child, with the implicit root as a node of its own name."""
        from .formats import to_networkx

        return to_networkx(self)

    def save(self, path: str | Path) -> Path:
        """Write the tree by suffix: `.json` is our own; `.tree` is Darknet's, with `.names` beside it."""
        from .formats import write_tree

        return write_tree(self, path)

    @classmethod
    def load(cls, path: str | Path, names: str | Path | None = None) -> WordTree:
        """Read a tree by suffix: `.json` is our own; `.tree` is Darknet's, `names` its readable names."""
        from .formats import read_tree

        return read_tree(path, names)


def arrange(parent_of: Mapping[str, str | None]) -> tuple[list[str], list[int]]:
    """Ids and parents in a tree's order: groups in depth-first preorder, siblings in the order of the mapping.

    Args:
        parent_of: each id's parent id, None for a root child.

    Raises:
        WordTreeError: a parent that is no id of the mapping, or ids that stand above themselves.

    Example:
        >>> arrange({"cat": "animal", "dog": "animal", "plant": None, "animal": None})
        (['plant', 'animal', 'cat', 'dog'], [-1, -1, 1, 1])
    """
    below: dict[str | None, list[str]] = {}
    for id_, parent in parent_of.items():
        if parent is not None and parent not in parent_of:
            raise WordTreeError(f"{id_!r} stands under {parent!r}, which is no node; give {parent!r} a row of its own")
        below.setdefault(parent, []).append(id_)
    node_of: dict[str | None, int] = {None: ROOT}
    ids: list[str] = []
    parents: list[int] = []
    owners: list[str | None] = [None]
    while owners:
        owner = owners.pop()
        for id_ in (group := below.get(owner, [])):
            node_of[id_] = len(ids)
            ids.append(id_)
            parents.append(node_of[owner])
        owners.extend(id_ for id_ in reversed(group) if id_ in below)
    if len(ids) < len(parent_of):
        lost = next(id_ for id_ in parent_of if id_ not in node_of)
        raise WordTreeError(f"{lost!r} cannot be reached from the root; the parents above it run in a circle")
    return ids, parents


# By hash, the living trees of that hash by identity: equal trees stand for one another, whichever dies first. Each of
# them holds what they are kept in, so an entry goes with the last.
_ALIVE: WeakValueDictionary[str, WeakValueDictionary[int, WordTree]] = WeakValueDictionary()


def tree_of_hash(hash: str) -> WordTree:
    """A living tree by its hash: how an operator of torch, which takes text but no tree, is told which one is meant."""
    for tree in _ALIVE.get(hash, {}).values():
        return tree
    raise WordTreeError(f"no tree with the hash {hash[:12]} in this process; keep the tree you use alive")


def checked_nodes(tree: WordTree, nodes: ArrayLike, what: str = "nodes") -> NDArray[np.int64]:
    """Nodes as int64 of their own shape, -1 for the root. what: what an error calls them.

    Raises:
        WordTreeError: something that is no node of the tree.
    """
    at = np.asarray(nodes)
    if at.size and at.dtype.kind not in "iu":
        raise WordTreeError(f"{what} of type {at.dtype} given; nodes are whole numbers, 0 to {len(tree) - 1} here")
    if at.size and (at.min() < ROOT or at.max() >= len(tree)):
        raise WordTreeError(
            f"{what} from {at.min()} to {at.max()} given; this tree has nodes 0 to {len(tree) - 1}, and -1 for the root"
        )
    return at.astype(np.int64)


def _checked_node(tree: WordTree, node: int) -> int:
    """`checked_nodes` of one node, quick enough for a loop."""
    try:
        at = index(node)
    except TypeError:
        raise WordTreeError(f"node {node!r} given; a node is a whole number, 0 to {len(tree) - 1} here") from None
    if not ROOT <= at < len(tree):
        raise WordTreeError(f"node {at} given; this tree has nodes 0 to {len(tree) - 1}, and -1 for the root")
    return at


def _rebuild(
    ids: tuple[str, ...], parents: NDArray[np.int64], names: tuple[str, ...], root_name: str, report: Report | None
) -> WordTree:
    return WordTree(ids, parents, names, root_name=root_name, report=report)


def _plain(name: str) -> str:
    """A name as `find` compares it: no matter its case, and whether its words are joined by spaces or underscores."""
    return name.replace("_", " ").casefold()


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def _check(ids: Sequence[str], parents: NDArray[np.int64], names: Sequence[str]) -> None:
    """Raise on the first broken rule: lengths, unique ids, parents before children, siblings together."""
    if not ids:
        raise WordTreeError("a tree without nodes; give at least one label")
    if parents.shape != (len(ids),) or len(names) != len(ids):
        raise WordTreeError(
            f"{len(ids)} ids, parents of shape {parents.shape} and {len(names)} names; a tree takes one of each a node"
        )
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(id_ for id_ in ids if id_ in seen or seen.add(id_))  # type: ignore[func-returns-value]
        raise WordTreeError(f"id {twice!r} stands at two nodes; ids are unique, names need not be")
    bad = np.flatnonzero((parents >= np.arange(len(ids))) | (parents < ROOT))
    if bad.size:
        node = int(bad[0])
        raise WordTreeError(
            f"node {node} ({ids[node]}) has parent {parents[node]}; a parent stands before its child, -1 is the root"
        )
    starts = np.flatnonzero(np.diff(parents, prepend=-2))
    owners = parents[starts]
    if len(set(owners.tolist())) != len(owners):  # np.unique would import numpy.ma, at the price of a whole build
        order = np.argsort(owners, kind="stable")
        repeat = order[1:][np.diff(owners[order]) == 0].min()
        node = int(starts[repeat])
        raise WordTreeError(
            f"node {node} ({ids[node]}) is a child of {parents[node]} apart from its siblings; siblings stand together"
        )
