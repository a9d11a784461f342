"""What a detection may answer, chosen at run time: a level, a part of the tree, a few nodes to sum it up in."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wordtree import WordTree, WordTreeError
from wordtree.nn.descent import Scope, scope

Node = int | str
Nodes = Node | Iterable[Node] | np.ndarray | Tensor


def check_thresholds(**given: float | None) -> None:
    """Refuse thresholds, by name, that are no probabilities; None is the model's own."""
    for name, value in given.items():
        if value is not None and not 0 <= value <= 1:
            raise WordTreeError(f"a {name} of {value}; it is a probability, 0 to 1")


@dataclass(frozen=True)
class Choice:
    """What a detector answers, without training it again. All may be given at once; what is left out narrows nothing.

    A node is given as an int, an id, a synset name or a name. Probabilities stay what they are: none is handed on from
    a node that may not be answered. The answer is the deepest node on a box's descent that may be; the root, node -1,
    where none may.

    Attributes:
        tree_threshold: how sure each step of the descent must be, 0..1; the detector's own where left out.
        level: no answer deeper than that depth, as in `tree.depths`: 0 for the root's children.
        only: a node or several: boxes of these and of all below them, no others. The descent goes there past likelier
            siblings, each step as sure as the tree threshold asks.
        collapse: nodes to sum up in. The descent goes on as ever and is answered with the deepest of them on its way:
            with "dog", a poodle is a dog, and an oak the root.
        allowed: nodes that may be answered, such as the species of a region: nodes, or bool [nodes]. The descent goes
            to them alone, past likelier siblings.
        node_probs: give Pr of every node for each box too, "node_probs" float [n, nodes].

    Raises:
        WordTreeError: a level below 0, no nodes where some are asked for, two answers to one question.

    Example:
        >>> Choice(only="dog", level=3).only
        ('dog',)
    """

    tree_threshold: float | None = None
    level: int | None = None
    only: Nodes | None = None
    collapse: Nodes | None = None
    allowed: Nodes | None = None
    node_probs: bool = False

    def __post_init__(self) -> None:
        check_thresholds(tree_threshold=self.tree_threshold)
        if self.level is not None and self.level < 0:
            raise WordTreeError(f"a level of {self.level}; the root's children are at depth 0, and deeper is more")
        for name in ("only", "collapse", "allowed"):
            object.__setattr__(self, name, _tuple(name, getattr(self, name)))

    def scope(self, tree: WordTree, device: torch.device) -> Scope | None:
        """What a descent of this tree may answer; None where nothing is narrowed.

        Raises:
            WordTreeError: a node that is not on the tree; nothing left to answer.
        """
        only, collapse, allowed = (_nodes(tree, name, getattr(self, name)) for name in ("only", "collapse", "allowed"))
        if self.level is None and only is None and collapse is None and allowed is None:
            return None
        return scope(tree, device, self.level, only, collapse, allowed)


def _tuple(name: str, given: Any) -> tuple[Any, ...] | None:
    """Nodes, or a mask, as something that stays what it is."""
    if given is None:
        return None
    given = given.tolist() if isinstance(given, np.ndarray | Tensor) else given
    values = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    for value in values:
        if not isinstance(value, int | str | np.integer):
            raise WordTreeError(f"{name} of {value!r}; a node is an int, an id, a synset name or a name")
    if not values or all(value is False for value in values):
        raise WordTreeError(f"{name} of no nodes; give at least one node, or leave it out")
    return values


def _nodes(tree: WordTree, name: str, given: tuple[Any, ...] | None) -> tuple[int, ...] | None:
    """Nodes of a tree, ascending, each once."""
    if given is None:
        return None
    if isinstance(given[0], bool):
        if len(given) != len(tree):
            raise WordTreeError(f"{name} of {len(given)} trues and falses; {tree} takes one a node, or nodes")
        given = tuple(np.flatnonzero(given).tolist())
    nodes = [tree.find(node) if isinstance(node, str) else int(node) for node in given]
    for node in nodes:
        if not 0 <= node < len(tree):
            raise WordTreeError(f"{name} of node {node}; this tree has nodes 0 to {len(tree) - 1}")
    return tuple(sorted(set(nodes)))


EVERYTHING = Choice()
