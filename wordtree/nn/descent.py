"""Thresholded descent: from the root to the likeliest child for as long as the tree is sure enough.

Only the groups that a row visits are read, one step a depth, all rows at once.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import WordTreeError, unknown
from ..tree import ROOT, WordTree
from .index import Asked, TreeIndex, ask_groups, tree_index
from .softmax import at_least_float32, check_nodes, segment_log_softmax

RULES = ("path", "darknet", "darknet-2018")


class Walk(NamedTuple):
    """Where each row's descent ended and what it passed on the way."""

    nodes: Tensor  # int64 [rows], -1 where no root child passed
    log_probs: Tensor  # float [rows], log Pr(node), 0 at the root
    path_log_probs: Tensor  # float [rows, depth], log Pr(node) at each step taken, NaN after the last


class Scope(NamedTuple):
    """What a descent may answer: `scope` makes it."""

    group_below: Tensor  # int64 [nodes], -1 where nothing below may be answered
    open: Tensor | None  # bool [nodes], where a step may be taken; None for anywhere
    answer: Tensor  # int64 [nodes + 1], the answer where a descent ends at each node, at the root last


@lru_cache(maxsize=32)
def scope(
    tree: WordTree,
    device: torch.device,
    level: int | None = None,
    only: tuple[int, ...] | None = None,
    collapse: tuple[int, ...] | None = None,
    allowed: tuple[int, ...] | None = None,
) -> Scope:
    """Narrow what a descent may answer; it is then the deepest node on its path that may be, or the root.

    Probabilities stay what they are: none is handed on from a node that may not be answered.

    Args:
        level: the deepest depth to answer at, as in `tree.depths`.
        only: nodes; an answer is one of them or lies below one. Steps lead there alone.
        collapse: the nodes to answer with, however much deeper the descent goes.
        allowed: the nodes that may be answered. Steps lead there alone, past likelier siblings.

    Raises:
        WordTreeError: what is asked leaves no node to answer.
    """
    levels = [np.flatnonzero(tree.depths == depth) for depth in range(int(tree.depths.max()) + 1)]
    may = np.ones(len(tree), dtype=bool)  # a step may end here
    if level is not None:
        may &= tree.depths <= level
    if only is not None:
        inside = _marks(tree, only)
        for at in levels[1:]:
            inside[at] |= inside[tree.parents[at]]
        may &= inside
    if allowed is not None:
        may &= _marks(tree, allowed)
    said = may if collapse is None else may & _marks(tree, collapse)
    if not said.any():
        asked = {"level": level, "only": only, "collapse": collapse, "allowed": allowed}
        given = ", ".join(f"{name}={value}" for name, value in asked.items() if value is not None)
        raise WordTreeError(f"nothing is left to answer with {given}; ask for nodes that lie on one another's paths")
    answer = np.where(said, np.arange(len(tree)), ROOT)
    for at in levels[1:]:
        answer[at] = np.where(said[at], at, answer[tree.parents[at]])
    leads, worth = may.copy(), np.zeros(len(tree), dtype=bool)
    for at in levels[:0:-1]:  # from the deepest up
        above = tree.parents[at]
        leads[above[leads[at]]] = True
        worth[above[said[at] | worth[at]]] = True
    steered = only is not None or allowed is not None
    return Scope(
        torch.tensor(np.where(worth, tree.group_below, -1), device=device),
        torch.tensor(leads, device=device) if steered else None,
        torch.tensor(np.append(answer, ROOT), device=device),
    )


def _marks(tree: WordTree, nodes: tuple[int, ...]) -> NDArray[np.bool_]:
    marks = np.zeros(len(tree), dtype=bool)
    marks[list(nodes)] = True
    return marks


def descend(
    logits: Tensor, tree: WordTree, threshold: float = 0.5, rule: str = "path", *, dim: int = -1
) -> tuple[Tensor, Tensor]:
    """The deepest node that the logits are sure enough of.

    Args:
        logits: float [..., nodes]; log-probabilities of all nodes (`tree_log_prob`, of either form) do as well.
        tree: its order is the order of the logits.
        threshold: in 0..1; a step is taken while the measure named by `rule` stays above it.
        rule: "path": Pr(node), the product of conditionals (paper section 4). "darknet": the released code of 2017-01,
            which multiplies absolute probabilities again (the product of Pr over the path), and gives -1 where no root
            child passes. "darknet-2018": the same, but the likeliest root child where none passes.
        dim: where the nodes are, such as 1 for [batch, nodes, h, w].

    Returns:
        nodes int64 [...], -1 for the root where nothing passed; log_probs float [...], log Pr(node), 0 at the root.
        Where the logits of a group hold NaN or inf, or are all -inf, nothing in it passes: the answer stands above it.

    Raises:
        WordTreeError: an unknown rule, a threshold outside 0..1, logits that do not fit the tree.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> nodes, log_probs = descend(torch.tensor([3.0, 0.0, 0.1, 0.0]), tree, threshold=0.6)
        >>> tree.names[int(nodes)], round(float(log_probs.exp()), 2)
        ('animal', 0.95)
    """
    if torch.compiler.is_compiling():
        return torch.ops.wordtree.descend(logits.detach(), tree.hash, threshold, rule, dim)  # type: ignore[no-any-return]
    check_nodes(logits, len(tree), dim)
    shape = list(logits.shape)
    del shape[dim]
    flat = logits.reshape(-1)
    index = tree_index(tree, logits.device)
    walked = walk(lambda asked: flat[asked.flat(logits.shape, dim)], prod(shape), index, threshold, rule)
    return walked.nodes.reshape(shape), walked.log_probs.reshape(shape)


@torch.no_grad()
def walk(
    answer: Callable[[Asked], Tensor],
    rows: int,
    index: TreeIndex,
    threshold: float = 0.5,
    rule: str = "path",
    scope: Scope | None = None,
) -> Walk:
    """Descend `rows` rows at once; `answer` gives the logits [asked] of the groups that the rows stand before.

    With a scope whose steps are steered, "darknet-2018" keeps no root child that did not pass.
    """
    if rule not in RULES:
        raise unknown("descent rule", rule, RULES)
    if not 0.0 <= threshold <= 1.0:
        raise WordTreeError(f"a tree threshold of {threshold}; it is a probability, 0 to 1")
    device = index.start.device
    group_below, open_ = (index.group_below, None) if scope is None else scope[:2]
    limit = math.log(threshold) if threshold > 0 else -math.inf
    depth = index.path_groups.shape[1]
    row = torch.arange(rows, device=device)
    group = torch.zeros(rows, dtype=torch.int64, device=device)
    nodes = torch.full((rows,), ROOT, device=device)
    log_probs = torch.zeros(rows, dtype=torch.float64, device=device)
    measure = torch.zeros_like(log_probs)
    path = torch.full((rows, depth), math.nan, dtype=torch.float64, device=device)
    for step in range(depth):
        if not len(row):
            break
        asked = ask_groups(index, row, group)
        conditional = segment_log_softmax(at_least_float32(answer(asked)), asked)
        if open_ is not None:
            conditional = conditional.masked_fill(~open_[asked.node], -torch.inf)
        best, member = _segment_max(conditional, asked)
        absolute = log_probs[row] + best
        score = absolute if rule == "path" else measure[row] + absolute
        passed = told = score > limit
        if step == 0 and rule == "darknet-2018" and open_ is None:  # the likeliest root child is kept, passed or not
            told = torch.ones_like(passed)
        nodes[row], log_probs[row] = torch.where(told, member, nodes[row]), torch.where(told, absolute, log_probs[row])
        measure[row], path[row, step] = score, torch.where(told, absolute, math.nan)
        group = group_below[member]
        on = (passed & (group >= 0)).nonzero()[:, 0]
        row, group = row[on], group[on]
    if scope is None:
        return Walk(nodes, log_probs, path)
    return _lifted(scope.answer[nodes], path, index)


def _lifted(nodes: Tensor, path: Tensor, index: TreeIndex) -> Walk:
    """The walk that ends at `nodes`, each on its row's path."""
    steps = (index.path_groups[index.group_of[nodes.clamp(min=0)]] >= 0).sum(1) * (nodes >= 0)
    beyond = torch.arange(path.shape[1], device=path.device) >= steps[:, None]
    path = path.masked_fill(beyond, math.nan)
    last = path.gather(1, (steps - 1).clamp(min=0)[:, None])[:, 0]
    return Walk(nodes, torch.where(nodes >= 0, last, 0.0), path)


def _segment_max(values: Tensor, asked: Asked) -> tuple[Tensor, Tensor]:
    """The largest value of each segment and its node, the lowest on ties. -> float [segments], int64 [segments].

    NaN, which a softmax makes of NaN, inf or nothing but -inf, is taken for -inf: it equals nothing, itself included.
    """
    values = values.masked_fill(values.isnan(), -torch.inf)
    segments = len(asked.segment_row)
    best = values.new_full((segments,), -torch.inf)
    best = best.scatter_reduce(0, asked.segment, values, "amax", include_self=False)
    node = torch.where(values == best[asked.segment], asked.node, torch.iinfo(torch.int64).max)
    first = torch.full((segments,), torch.iinfo(torch.int64).max, device=values.device)
    return best, first.scatter_reduce(0, asked.segment, node, "amin", include_self=False)
