"""Grouped log-softmax over a tree's logits, whole or ragged, and the log-probabilities of all nodes.

A group of siblings is one softmax (paper section 4, equation of Pr(node | parent)); Pr(node) is the product of the
conditionals from the root child down. Everything is a sum of logarithms, so nothing underflows.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..errors import WordTreeError
from ..tree import WordTree
from .index import Asked


def tree_log_softmax(logits: Tensor, tree: WordTree, dim: int = -1) -> Tensor:
    """log Pr(node | parent) of every node: one log-softmax a group of siblings.

    Args:
        logits: float [..., nodes], or with nodes at `dim`, such as [batch, nodes, h, w] and `dim=1`.
        tree: its order is the order of the logits.
        dim: where the nodes are.

    Returns:
        float, the shape of `logits`.

    Raises:
        WordTreeError: that dimension has not one logit a node.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> tree_log_softmax(torch.zeros(4), tree).exp()
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    first = _nodes_first(logits, tree, dim)  # [nodes, ...]
    order, sizes, counts, back = _blocks(tree, logits.device)
    blocks = first.index_select(0, order).split([size * count for size, count in zip(sizes, counts, strict=True)])
    done = [
        block.unflatten(0, (count, size)).log_softmax(1).flatten(0, 1)
        for block, size, count in zip(blocks, sizes, counts, strict=True)
    ]
    return torch.cat(done).index_select(0, back).movedim(0, dim)


def tree_log_prob(logits: Tensor, tree: WordTree, dim: int = -1) -> Tensor:
    """log Pr(node) of every node: the conditionals summed from the root child down to it.

    Shapes, arguments and errors as `tree_log_softmax`.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> tree_log_prob(torch.zeros(4), tree).exp()
        tensor([0.5000, 0.5000, 0.2500, 0.2500])
    """
    conditional = tree_log_softmax(logits, tree, dim).movedim(dim, 0)  # [nodes, ...]
    order, counts, parents, back = _levels(tree, logits.device)
    levels = list(conditional.index_select(0, order).split(counts))
    for depth in range(1, len(levels)):
        levels[depth] = levels[depth] + levels[depth - 1].index_select(0, parents[depth - 1])
    return torch.cat(levels).index_select(0, back).movedim(0, dim)


def segment_log_softmax(values: Tensor, asked: Asked) -> Tensor:
    """log-softmax inside each segment of a ragged list. values: float [asked, ...], the same shape back."""
    return values - segment_logsumexp(values, asked)[asked.segment]


def segment_logsumexp(values: Tensor, asked: Asked) -> Tensor:
    """log sum exp of each segment, by its own maximum: a row's maximum underflows whole groups.

    values: float [asked, ...] -> float [segments, ...].
    """
    shape = (len(asked.segment_row), *values.shape[1:])
    spread = asked.segment.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
    top = values.new_full(shape, -torch.inf).scatter_reduce(0, spread, values.detach(), "amax", include_self=False)
    total = values.new_zeros(shape).index_add(0, asked.segment, (values - top[asked.segment]).exp())
    return top + total.log()


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision raised to float32, in which sums along a path are taken; wider types as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _nodes_first(logits: Tensor, tree: WordTree, dim: int) -> Tensor:
    if logits.shape[dim] != len(tree):
        raise WordTreeError(
            f"logits of shape {tuple(logits.shape)} have {logits.shape[dim]} at dim {dim}; {tree} takes {len(tree)}"
        )
    return logits.movedim(dim, 0)


@lru_cache(maxsize=32)
def _blocks(tree: WordTree, device: torch.device) -> tuple[Tensor, list[int], list[int], Tensor]:
    """Nodes ordered so that groups of one size stand together: (order, sizes, groups of each size, way back)."""
    size_of_node = tree.group_size[tree.group_of]
    order = np.argsort(size_of_node, kind="stable")
    sizes, counts = np.unique(tree.group_size, return_counts=True)
    back = np.argsort(order, kind="stable")
    return torch.as_tensor(order, device=device), sizes.tolist(), counts.tolist(), torch.as_tensor(back, device=device)


@lru_cache(maxsize=32)
def _levels(tree: WordTree, device: torch.device) -> tuple[Tensor, list[int], list[Tensor], Tensor]:
    """Nodes ordered by depth: (order, nodes a depth, each deeper node's parent by its place in its level, way back)."""
    order = np.argsort(tree.depths, kind="stable")
    back = np.argsort(order, kind="stable")
    counts = np.bincount(tree.depths)
    place = back - (np.cumsum(counts) - counts)[tree.depths]  # [nodes] place within the level
    by_level = np.split(order, np.cumsum(counts)[:-1])
    parents = [torch.as_tensor(place[tree.parents[level]], device=device) for level in by_level[1:]]
    return torch.as_tensor(order, device=device), counts.tolist(), parents, torch.as_tensor(back, device=device)
