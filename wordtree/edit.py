"""New trees out of old ones: a part below a node, a part without some nodes, two trees in one.

Every function takes trees first and returns the new tree with a map, int64 [old nodes]: the node of the new tree that
each old one became, -1 where it was dropped. With it the rows of a classifier, or targets, follow:
`targets = map[targets]`, and a target of -1 stands for the root, which asks for nothing.

Where no node is dropped and none is added, the tree comes back as it is. A new tree has its groups in depth-first
preorder; siblings keep the order they had.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import WordTreeError, unknown
from .tree import ROOT, WordTree, arrange, checked_nodes


def subtree(tree: WordTree, node: int) -> tuple[WordTree, NDArray[np.int64]]:
    """What stands below a node, the node itself as the implicit root.

    Args:
        tree: the tree.
        node: the new root; -1 gives the tree as it is.

    Returns:
        the tree of all below `node`, `root_name` its name; and int64 [nodes], the new node of each old one, -1 for
        `node` itself (it is the root now) and for all outside.

    Raises:
        WordTreeError: no such node, or a leaf: nothing stands below it.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat", "oak"], [-1, -1, 0, 0, 1])
        >>> animals, map = subtree(tree, tree.find("animal"))
        >>> animals.ids, animals.root_name, map.tolist()
        (('dog', 'cat'), 'animal', [-1, -1, 0, 1, -1])
    """
    at = _marks(tree, node)
    if node == ROOT:
        return tree, np.arange(len(tree), dtype=np.int64)
    if tree.group_below[node] < 0:
        raise WordTreeError(
            f"subtree of node {node} ({tree.ids[node]}), a leaf; give a node with children, such as "
            f"{tree.parents[node]}, the one above it"
        )
    return _part(tree, _below(tree, at) & ~at, tree.parents, np.arange(len(tree)), tree.names[node])


def prune(tree: WordTree, nodes: ArrayLike) -> tuple[WordTree, NDArray[np.int64]]:
    """The tree without these nodes and all below them.

    Args:
        tree: the tree.
        nodes: int [...], the nodes to drop.

    Returns:
        the tree that is left; and int64 [nodes], the new node of each old one, -1 for the dropped ones.

    Raises:
        WordTreeError: no such node, or nothing left.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> rest, map = prune(tree, [tree.find("dog")])
        >>> rest.ids, map.tolist()
        (('animal', 'plant', 'cat'), [0, 1, -1, 2])
    """
    dropped = _below(tree, _marks(tree, nodes)) | bool((np.asarray(nodes) == ROOT).any())  # all stands below the root
    return _part(tree, ~dropped, tree.parents, np.arange(len(tree)), tree.root_name)


def restrict(tree: WordTree, nodes: ArrayLike, collapse: bool = False) -> tuple[WordTree, NDArray[np.int64]]:
    """The tree of these nodes and all above them.

    Args:
        tree: the tree.
        nodes: int [...], the nodes to keep.
        collapse: also drop what was not asked for and has one child left; the child takes its place.

    Returns:
        the tree that is left; and int64 [nodes], the new node of each old one, -1 for the dropped ones.

    Raises:
        WordTreeError: no such node, or none.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat", "poodle"], [-1, -1, 0, 0, 2])
        >>> restrict(tree, [tree.find("poodle")])[0].ids
        ('animal', 'dog', 'poodle')
        >>> restrict(tree, [tree.find("poodle"), tree.find("animal")], collapse=True)[0].ids
        ('animal', 'poodle')
    """
    asked, keep = _marks(tree, nodes), tree.on_paths(nodes)
    parents, place = tree.parents, np.arange(len(tree))
    if collapse:
        inner = tree.parents[keep & (tree.parents >= 0)]
        dropped = keep & ~asked & (np.bincount(inner, minlength=len(tree)) == 1)
        keep &= ~dropped
        while (up := (parents >= 0) & dropped[parents]).any():  # [nodes] whose parent is dropped
            place = np.where(up, parents, place)  # the topmost one's place among the siblings
            parents = np.where(up, tree.parents[parents], parents)
    return _part(tree, keep, parents, place, tree.root_name)


def merge_trees(
    a: WordTree, b: WordTree, prefer: str | None = None
) -> tuple[WordTree, NDArray[np.int64], NDArray[np.int64]]:
    """One tree of the nodes of two, matched by id.

    A node that both have stands once, with the first tree's name; the children that `b` alone has follow those of `a`.
    Both trees are taken to have one root; the first gives it its name.

    Args:
        a, b: the trees.
        prefer: None, where a node with different parents in the two is an error; "first" keeps the parent in `a`.

    Returns:
        the tree; int64 [nodes of a] and int64 [nodes of b], the new node of each old one.

    Raises:
        WordTreeError: nodes with different parents in the two, listed; or another `prefer`.

    Example:
        >>> a = WordTree(["animal", "dog"], [-1, 0])
        >>> b = WordTree(["animal", "plant", "cat"], [-1, -1, 0])
        >>> tree, map_a, map_b = merge_trees(a, b)
        >>> tree.ids, map_a.tolist(), map_b.tolist()
        (('animal', 'plant', 'dog', 'cat'), [0, 2], [0, 1, 3])
    """
    if prefer not in (None, "first"):
        raise unknown("prefer", str(prefer), ["first"])
    parent_of, below_b = _parent_ids(a), _parent_ids(b)
    differ = [id_ for id_, parent in below_b.items() if id_ in parent_of and parent_of[id_] != parent]
    if differ and prefer is None:
        told = [f"{id_} ({parent_of[id_] or 'the root'} / {below_b[id_] or 'the root'})" for id_ in differ[:12]]
        more = f" and {len(differ) - 12} more" if len(differ) > 12 else ""
        raise WordTreeError(
            f"merge of a tree of {len(a)} nodes with one of {len(b)}: {len(differ)} have different parents in the two: "
            f"{', '.join(told)}{more}; prefer='first' keeps the first tree's"
        )
    new = {id_: parent for id_, parent in below_b.items() if id_ not in parent_of}
    tree = a
    if new:  # a node of `a` keeps its parent, which `a` has too: no circle can come of it
        name_of = dict(zip(b.ids + a.ids, b.names + a.names, strict=True))
        ids, parents = arrange(parent_of | new)
        tree = WordTree(ids, parents, [name_of[id_] for id_ in ids], root_name=a.root_name)
    node_of = {id_: node for node, id_ in enumerate(tree.ids)}
    map_a, map_b = (np.array([node_of[id_] for id_ in one.ids], dtype=np.int64) for one in (a, b))
    return tree, map_a, map_b


def _marks(tree: WordTree, nodes: ArrayLike) -> NDArray[np.bool_]:
    """bool [nodes]: True at those given."""
    marks = np.zeros(len(tree), dtype=bool)
    at = checked_nodes(tree, nodes)
    marks[at[at >= 0]] = True
    return marks


def _below(tree: WordTree, marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """bool [nodes]: True at the marked nodes and at all below them."""
    found, above = marks.copy(), tree.parents
    while (inside := above >= 0).any():  # every node looks one level further up, all nodes at once
        found |= inside & marks[above]
        above = np.where(inside, tree.parents[above], ROOT)
    return found


def _parent_ids(tree: WordTree) -> dict[str, str | None]:
    return {
        id_: None if parent == ROOT else tree.ids[parent]
        for id_, parent in zip(tree.ids, tree.parents.tolist(), strict=True)
    }


def _part(
    tree: WordTree, keep: NDArray[np.bool_], parents: NDArray[np.int64], place: NDArray[np.int64], root_name: str
) -> tuple[WordTree, NDArray[np.int64]]:
    """The tree of the kept nodes, and the map.

    Args:
        keep: bool [nodes].
        parents: int64 [nodes], the parent of each kept node; one that is not kept is the root.
        place: int64 [nodes], by which siblings are ordered.
    """
    if keep.all():
        return tree, np.arange(len(tree), dtype=np.int64)
    if not keep.any():
        raise WordTreeError(f"none of the {len(tree)} nodes is left; keep at least one")
    kept = np.flatnonzero(keep)
    kept = kept[np.argsort(place[kept])]
    above = parents[kept]
    above = np.where((above >= 0) & keep[above], above, ROOT)
    ids, new_parents = arrange(
        {
            tree.ids[node]: None if parent == ROOT else tree.ids[parent]
            for node, parent in zip(kept.tolist(), above.tolist(), strict=True)
        }
    )
    node_of = {id_: node for node, id_ in enumerate(tree.ids)}
    order = np.array([node_of[id_] for id_ in ids])  # [new nodes] old node
    map = np.full(len(tree), -1, dtype=np.int64)
    map[order] = np.arange(len(order))
    return WordTree(ids, new_parents, [tree.names[node] for node in order], root_name=root_name), map
