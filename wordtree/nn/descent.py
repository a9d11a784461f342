"""Thresholded descent: from the root to the likeliest child for as long as the tree is sure enough.

Only the groups that a row visits are read, one step a depth, all rows at once.
"""

import math
from collections.abc import Callable
from math import prod
from typing import NamedTuple

import torch
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
    answer: Callable[[Asked], Tensor], rows: int, index: TreeIndex, threshold: float = 0.5, rule: str = "path"
) -> Walk:
    """Descend `rows` rows at once; `answer` gives the logits [asked] of the groups that the rows stand before."""
    if rule not in RULES:
        raise unknown("descent rule", rule, RULES)
    if not 0.0 <= threshold <= 1.0:
        raise WordTreeError(f"a tree threshold of {threshold}; it is a probability, 0 to 1")
    device = index.start.device
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
        best, member = _segment_max(segment_log_softmax(at_least_float32(answer(asked)), asked), asked)
        absolute = log_probs[row] + best
        score = absolute if rule == "path" else measure[row] + absolute
        passed = score > limit
        if step == 0 and rule == "darknet-2018":  # the likeliest root child is kept even where it does not pass
            nodes[row], log_probs[row], path[row, 0] = member, absolute, absolute
        row, member, absolute, score = row[passed], member[passed], absolute[passed], score[passed]
        nodes[row], log_probs[row], measure[row], path[row, step] = member, absolute, score, absolute
        group = index.group_below[member]
        row, group = row[group >= 0], group[group >= 0]
    return Walk(nodes, log_probs, path)


def _segment_max(values: Tensor, asked: Asked) -> tuple[Tensor, Tensor]:
    """The largest value of each segment and its node, the lowest on ties. -> float [segments], int64 [segments]."""
    segments = len(asked.segment_row)
    best = values.new_full((segments,), -torch.inf)
    best = best.scatter_reduce(0, asked.segment, values, "amax", include_self=False)
    node = torch.where(values == best[asked.segment], asked.node, torch.iinfo(torch.int64).max)
    first = torch.full((segments,), torch.iinfo(torch.int64).max, device=values.device)
    return best, first.scatter_reduce(0, asked.segment, node, "amin", include_self=False)
