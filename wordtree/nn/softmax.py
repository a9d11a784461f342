"""Grouped log-softmax over a tree's logits, whole or ragged, and the log-probabilities of all nodes.

A group of siblings is one softmax (paper section 4, equation of Pr(node | parent)); Pr(node) is the product of the
conditionals from the root child down. Everything is a sum of logarithms, so nothing underflows.

Two parameterisations share the functions: "conditional", the paper's, has one logit a node; "leaf" has one logit a leaf
in one softmax, and a node's probability is the sum over the leaves below it (Valmadre, Hierarchical classification at
multiple operating points, NeurIPS 2022).
"""

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import WordTreeError, unknown
from ..tree import WordTree
from .index import Asked

FORMS = ("conditional", "leaf")
CACHE = 2**19  # numbers of a block that is worked on at a time: 2 MB of float32, about what a core's cache holds


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
    if torch.compiler.is_dynamo_compiling():  # asked first: in here torch 2.11 says that it is exporting too
        return torch.ops.wordtree.log_softmax(logits, tree.hash, dim)  # type: ignore[no-any-return]
    if torch.compiler.is_exporting():
        return _exported_log_softmax(logits, tree, dim)
    check_nodes(logits, len(tree), dim)
    return _LogSoftmax.apply(logits, tree, dim)  # type: ignore[no-any-return]


def tree_log_prob(logits: Tensor, tree: WordTree, dim: int = -1, form: str = "conditional") -> Tensor:
    """log Pr(node) of every node.

    Args:
        logits: float [..., nodes], or, in the form "leaf", float [..., leaves] in the order of `tree.leaves`; the nodes
            or leaves may stand at another `dim`.
        tree: its order is the order of the logits.
        dim: where the nodes are, in what is given and in what comes back.
        form: "conditional": the conditionals are summed from the root child down. "leaf": one softmax over the leaves;
            a node has the sum of the leaves below it.

    Returns:
        float [..., nodes], with the nodes at `dim`. Half precision is summed in float32 and rounded once, at the end.

    Raises:
        WordTreeError: an unknown form, or a dimension of another length.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> tree_log_prob(torch.zeros(4), tree).exp()
        tensor([0.5000, 0.5000, 0.2500, 0.2500])
        >>> tree_log_prob(torch.zeros(3), tree, form="leaf").exp()  # plant, dog, cat
        tensor([0.6667, 0.3333, 0.3333, 0.3333])
    """
    if form not in FORMS:
        raise unknown("form", form, FORMS)
    of = _leaf_log_prob if form == "leaf" else _conditional_log_prob
    return of(at_least_float32(logits), tree, dim).to(logits.dtype)


def _conditional_log_prob(logits: Tensor, tree: WordTree, dim: int) -> Tensor:
    conditional = tree_log_softmax(logits, tree, dim)
    if torch.compiler.is_dynamo_compiling():
        return torch.ops.wordtree.sum_down(conditional, tree.hash, dim)  # type: ignore[no-any-return]
    if torch.compiler.is_exporting():
        return _exported_sum_down(conditional, tree, dim)
    if not conditional.requires_grad:  # nobody else holds it
        return sum_down_(conditional, tree, dim)
    return _SumDown.apply(conditional, tree, dim)  # type: ignore[no-any-return]


def propagate(values: Tensor, tree: WordTree, dim: int = -1) -> Tensor:
    """Label propagation: each node's value added to every node above it.

    Args:
        values: bool or float [..., nodes]: labels marked, several a row if need be, or a share of a label for each.
        tree: its order is the order of the nodes.
        dim: where the nodes are.

    Returns:
        the shape and type of `values`: of a bool, whether the node or anything below it is marked; of a float, the sum.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> propagate(torch.tensor([False, False, True, False]), tree)
        tensor([ True, False,  True, False])
        >>> propagate(torch.tensor([0.0, 0.1, 0.3, 0.6]), tree)
        tensor([0.9000, 0.1000, 0.3000, 0.6000])
    """
    if not values.is_floating_point():
        return propagate(values.float(), tree, dim) > 0
    if torch.compiler.is_compiling():
        return torch.ops.wordtree.sum_up(values, tree.hash, dim)  # type: ignore[no-any-return]
    check_nodes(values, len(tree), dim)
    return _SumUp.apply(values, tree, dim)  # type: ignore[no-any-return]


# ---------------------------------------------------------------------- ragged: only the groups asked for


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


def check_nodes(logits: Tensor, wanted: int, dim: int, what: str = "nodes") -> None:
    """Refuse logits that have not one number a node (or leaf) at `dim`."""
    if not -logits.dim() <= dim < logits.dim() or logits.shape[dim] != wanted:
        found = f"{logits.shape[dim]} at dim {dim}" if -logits.dim() <= dim < logits.dim() else f"no dim {dim}"
        takes = f"[..., {wanted}]" if dim == -1 else f"{wanted}"
        raise WordTreeError(f"logits of shape {tuple(logits.shape)}, {found}; a tree of {wanted} {what} takes {takes}")


# ---------------------------------------------------------------------- all nodes, as much at a time as a cache holds


class Block(NamedTuple):
    """Groups of one size: their nodes with all first members first, so that a softmax runs along long rows."""

    nodes: Tensor  # int64 [size * groups]
    shape: tuple[int, int]  # size, groups


Owned = tuple[tuple[Block, Tensor], ...]  # groups from the deepest up, and the nodes that own them


class Level(NamedTuple):
    """Nodes of one depth and their parents."""

    nodes: Tensor
    parents: Tensor


def log_softmax(logits: Tensor, tree: WordTree, dim: int) -> Tensor:
    """The forward pass. The shape of `logits`, contiguous."""
    dim %= logits.dim()
    out = torch.empty_like(logits, memory_format=torch.contiguous_format)
    for block in _blocks_for(logits, tree, dim):
        part = logits.index_select(dim, block.nodes)
        done = part.unflatten(dim, block.shape).log_softmax(dim)
        out.index_copy_(dim, block.nodes, done.flatten(dim, dim + 1))
    return out


def log_softmax_backward(grad: Tensor, out: Tensor, tree: WordTree, dim: int) -> Tensor:
    """The gradient of the logits from that of the result: grad - softmax * (sum of grad over the group)."""
    dim %= out.dim()
    back = torch.empty_like(out)
    for block in _blocks_for(out, tree, dim):
        of_block = grad.index_select(dim, block.nodes).unflatten(dim, block.shape)
        softmax = out.index_select(dim, block.nodes).unflatten(dim, block.shape).exp()
        part = of_block - softmax.mul_(of_block.sum(dim, keepdim=True))
        back.index_copy_(dim, block.nodes, part.flatten(dim, dim + 1))
    return back


def sum_down_(values: Tensor, tree: WordTree, dim: int) -> Tensor:
    """Add to every node what its parent came to, in place, from the root down; returns `values`."""
    dim %= values.dim()
    for level in _levels_for(values, tree, dim):
        above = values.index_select(dim, level.parents)
        values.index_copy_(dim, level.nodes, above.add_(values.index_select(dim, level.nodes)))
    return values


def sum_up_(values: Tensor, tree: WordTree, dim: int) -> Tensor:
    """Add every node's sum to its parent, in place, from the deepest up; returns `values`."""
    dim %= values.dim()
    for block, owners in _owned_for(values, tree, dim):
        below = values.index_select(dim, block.nodes).unflatten(dim, block.shape).sum(dim)
        values.index_copy_(dim, owners, below.add_(values.index_select(dim, owners)))
    return values


class _LogSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, tree: WordTree, dim: int) -> Tensor:
        out = log_softmax(logits, tree, dim)
        ctx.save_for_backward(out)
        ctx.rest = tree, dim
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return log_softmax_backward(grad, *ctx.saved_tensors, *ctx.rest), None, None


class _SumDown(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, tree: WordTree, dim: int) -> Tensor:
        ctx.rest = tree, dim
        return sum_down_(values.clone(memory_format=torch.contiguous_format), tree, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _SumUp.apply(grad, *ctx.rest), None, None


class _SumUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, tree: WordTree, dim: int) -> Tensor:
        ctx.rest = tree, dim
        return sum_up_(values.clone(memory_format=torch.contiguous_format), tree, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _SumDown.apply(grad, *ctx.rest), None, None


def _blocks_for(values: Tensor, tree: WordTree, dim: int) -> tuple[Block, ...]:
    return _blocks(tree, values.device, _most(values, dim))


def _levels_for(values: Tensor, tree: WordTree, dim: int) -> tuple[Level, ...]:
    return _levels(tree, values.device, _most(values, dim))


def _owned_for(values: Tensor, tree: WordTree, dim: int) -> Owned:
    return _owned(tree, values.device, _most(values, dim))


def _most(values: Tensor, dim: int) -> int:
    """How many nodes a block may have, a power of two so that few tables are made; all of them on a GPU."""
    if values.device.type != "cpu":
        return 2**62
    each = max(1, values.numel() // max(1, values.shape[dim]))
    return 2 ** max(3, (CACHE // each).bit_length() - 1) if prod(values.shape[dim + 1 :]) > 1 else 2**62


@lru_cache(maxsize=64)
def _blocks(tree: WordTree, device: torch.device, most: int) -> tuple[Block, ...]:
    return tuple(
        Block(_members(tree, groups, device), (size, len(groups)))
        for size in np.unique(tree.group_size).tolist()
        for groups in _cut(np.flatnonzero(tree.group_size == size), most // size)
    )


@lru_cache(maxsize=64)
def _levels(tree: WordTree, device: torch.device, most: int) -> tuple[Level, ...]:
    return tuple(
        Level(torch.tensor(nodes, device=device), torch.tensor(tree.parents[nodes], device=device))
        for depth in range(1, int(tree.depths.max()) + 1)
        for nodes in _cut(np.flatnonzero(tree.depths == depth), most)
    )


@lru_cache(maxsize=64)
def _owned(tree: WordTree, device: torch.device, most: int) -> Owned:
    """The groups below each depth, deepest first, by size; with the nodes that own them."""
    owner = tree.parents[tree.group_start]
    depth = np.where(owner >= 0, tree.depths[owner], -1)
    return tuple(
        (Block(_members(tree, groups, device), (size, len(groups))), torch.tensor(owner[groups], device=device))
        for level in range(int(depth.max()), -1, -1)
        for size in np.unique(tree.group_size[depth == level]).tolist()
        for groups in _cut(np.flatnonzero((depth == level) & (tree.group_size == size)), most // size)
    )


def _members(tree: WordTree, groups: np.ndarray, device: torch.device) -> Tensor:
    """The nodes of groups of one size, all first members first."""
    size = int(tree.group_size[groups[0]])
    return torch.tensor((tree.group_start[groups] + np.arange(size)[:, None]).ravel(), device=device)


def _cut(items: np.ndarray, most: int) -> list[np.ndarray]:
    return np.split(items, range(max(1, most), len(items), max(1, most)))


# ---------------------------------------------------------------------- one softmax over the leaves


def _leaf_log_prob(logits: Tensor, tree: WordTree, dim: int) -> Tensor:
    if torch.compiler.is_dynamo_compiling():
        return torch.ops.wordtree.leaf_log_prob(logits, tree.hash, dim)  # type: ignore[no-any-return]
    check_nodes(logits, len(tree.leaves), dim, "leaves")
    if torch.compiler.is_exporting():
        return leaf_log_prob(logits, tree, dim, _owned.__wrapped__)
    return _LeafLogProb.apply(logits, tree, dim)  # type: ignore[no-any-return]


def leaf_log_prob(logits: Tensor, tree: WordTree, dim: int, owned: Callable[..., Owned]) -> Tensor:
    """The forward pass. owned: `_owned`, or what makes its table afresh: an export's would have no values to keep."""
    leaves = logits.movedim(dim, 0).log_softmax(0)  # [leaves, ...]
    nodes = leaves.new_zeros(len(tree), *leaves.shape[1:])
    nodes.index_copy_(0, torch.tensor(tree.leaves, device=logits.device), leaves)
    for block, owners in owned(tree, logits.device, 2**62):
        below = nodes.index_select(0, block.nodes).unflatten(0, block.shape).logsumexp(0)
        nodes.index_copy_(0, owners, below)
    return nodes.movedim(0, dim)


def leaf_log_prob_backward(grad: Tensor, out: Tensor, tree: WordTree, dim: int) -> Tensor:
    """The gradient of the logits: each node hands its own to its children by their share of it, then a softmax's."""
    nodes, back = out.movedim(dim, 0), grad.movedim(dim, 0).clone()
    for level in _levels(tree, out.device, 2**62):
        share = (nodes[level.nodes] - nodes[level.parents]).exp_()
        share.masked_fill_(nodes[level.parents] == -torch.inf, 0.0)  # masked leaves alone: nothing to share
        back.index_add_(0, level.nodes, share.mul_(back[level.parents]))
    leaves = torch.tensor(tree.leaves, device=out.device)
    of_leaves = back[leaves]
    return (of_leaves - nodes[leaves].exp() * of_leaves.sum(0)).movedim(0, dim)


class _LeafLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, tree: WordTree, dim: int) -> Tensor:
        out = leaf_log_prob(logits, tree, dim, _owned)
        ctx.save_for_backward(out)
        ctx.rest = tree, dim
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return leaf_log_prob_backward(grad, *ctx.saved_tensors, *ctx.rest), None, None


@lru_cache(maxsize=32)
def leaf_spans(tree: WordTree, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The leaves as a walk through the tree meets them: those below one node stand together.

    Returns:
        leaves int64 [leaves], nodes; place [leaves], where each is met; first, last [nodes], the places below each.
    """
    count = np.zeros(len(tree), dtype=np.int64)
    count[tree.leaves] = 1
    for depth in range(int(tree.depths.max()), 0, -1):
        nodes = np.flatnonzero(tree.depths == depth)
        np.add.at(count, tree.parents[nodes], count[nodes])
    before = np.cumsum(count) - count  # of all nodes in order; inside a group, of the earlier siblings
    before -= before[tree.group_start][tree.group_of]
    for depth in range(1, int(tree.depths.max()) + 1):
        nodes = np.flatnonzero(tree.depths == depth)
        before[nodes] += before[tree.parents[nodes]]
    tables = tree.leaves, before[tree.leaves], before, before + count - 1
    leaves, place, first, last = (torch.tensor(np.array(table), device=device) for table in tables)
    return leaves, place, first, last


# ---------------------------------------------------------------------- for torch.export: plain operators, no cache


def _exported_log_softmax(logits: Tensor, tree: WordTree, dim: int) -> Tensor:
    """Nodes sorted by the size of their group, one softmax a size, and sorted back."""
    dim %= logits.dim()
    order = np.argsort(tree.group_size[tree.group_of], kind="stable")
    sizes, counts = np.unique(tree.group_size, return_counts=True)
    sorted_ = logits.index_select(dim, torch.tensor(order.tolist()))
    parts = sorted_.split((sizes * counts).tolist(), dim)
    done = [
        part.unflatten(dim, (count, size)).log_softmax(dim + 1).flatten(dim, dim + 1)
        for part, size, count in zip(parts, sizes.tolist(), counts.tolist(), strict=True)
    ]
    return torch.cat(done, dim).index_select(dim, torch.tensor(np.argsort(order).tolist()))


def _exported_sum_down(values: Tensor, tree: WordTree, dim: int) -> Tensor:
    """Nodes sorted by depth, each level added to its children's, and sorted back."""
    dim %= values.dim()
    order = np.argsort(tree.depths, kind="stable")
    back = np.argsort(order, kind="stable")
    counts = np.bincount(tree.depths)
    place = back - (np.cumsum(counts) - counts)[tree.depths]  # [nodes] place within the level
    levels = list(values.index_select(dim, torch.tensor(order.tolist())).split(counts.tolist(), dim))
    for depth, nodes in enumerate(np.split(order, np.cumsum(counts)[:-1])[1:], start=1):
        above = torch.tensor(place[tree.parents[nodes]].tolist())
        levels[depth] = levels[depth] + levels[depth - 1].index_select(dim, above)
    return torch.cat(levels, dim).index_select(dim, torch.tensor(back.tolist()))
