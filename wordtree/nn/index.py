"""The tree as tensors: index tables by group, made once for a tree and a device, and the ragged lists read off them.

Tables are by group, not by path: `path_groups` has a row a group, so 82,114 nodes take a few MB. They live in a cache
beside the tree rather than in a module's state, so they follow the input's device and never bloat a checkpoint.
"""

from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..tree import WordTree


class TreeIndex(NamedTuple):
    """int64 tables of one tree on one device; `depth` is that of the deepest group."""

    parents: Tensor  # [nodes] parent, -1 for a root child
    group_of: Tensor  # [nodes]
    group_below: Tensor  # [nodes] -1 for a leaf
    start: Tensor  # [groups] first node
    size: Tensor  # [groups]
    path_groups: Tensor  # [groups, depth] the groups from the root's down to this one, then -1
    path_nodes: Tensor  # [groups, depth] the member chosen in each of those above this one, then -1


class Asked(NamedTuple):
    """A ragged list of logits: which node of which row, and the group visit (segment) that each belongs to."""

    row: Tensor  # [asked] int64, ascending
    node: Tensor  # [asked] ascending inside a row
    segment: Tensor  # [asked] ascending
    segment_row: Tensor  # [segments] the row each group visit belongs to
    segment_start: Tensor  # [segments] where its logits begin in the list
    segment_size: Tensor  # [segments]

    def place(self, members: Tensor) -> Tensor:
        """Where in the list one member (a node) of each segment stands. int64 [segments] -> int64 [segments]."""
        return self.segment_start + members - self.node[self.segment_start]

    def flat(self, shape: torch.Size, dim: int) -> Tensor:
        """int64 [asked]: where each logit stands in a contiguous tensor of `shape` with the nodes at `dim`."""
        inner = prod(shape[dim % len(shape) + 1 :])
        if inner == 1:
            return self.row * shape[dim] + self.node
        outer = torch.div(self.row, inner, rounding_mode="floor")
        return (outer * (shape[dim] - 1) + self.node) * inner + self.row  # row = outer * inner + place in the inner


@lru_cache(maxsize=32)
def tree_index(tree: WordTree, device: torch.device) -> TreeIndex:
    """The tables of `tree` on `device`, made on first use."""
    groups = len(tree.group_start)
    owner = tree.parents[tree.group_start]  # [groups] the node whose children the group holds
    depth = int(tree.depths.max()) + 1
    path_groups = np.full((groups, depth), -1, dtype=np.int64)
    path_nodes = np.full((groups, depth), -1, dtype=np.int64)
    level = np.where(owner >= 0, tree.depths[owner] + 1, 0)  # [groups]
    group, member = np.arange(groups), np.full(groups, -1)
    for step in range(depth):  # from each group upwards, all groups at once
        at = np.flatnonzero(level - step >= 0)
        path_groups[at, level[at] - step] = group[at]
        path_nodes[at, level[at] - step] = member[at]
        member = owner[group]
        group = np.where(member >= 0, tree.group_of[member], group)
    tables = (
        tree.parents,
        tree.group_of,
        tree.group_below,
        tree.group_start,
        tree.group_size,
        path_groups,
        path_nodes,
    )
    return TreeIndex(*(torch.tensor(np.array(table), device=device) for table in tables))


class Spans(NamedTuple):
    """Where each node's subtree begins and ends in preorder; the root stands last, where node -1 finds it.

    Node i is j or lies above it where `enter[i] <= enter[j] < leave[i]`.
    """

    enter: Tensor  # int64 [nodes + 1]
    leave: Tensor  # int64 [nodes + 1]


@lru_cache(maxsize=32)
def tree_spans(tree: WordTree, device: torch.device) -> Spans:
    """The spans of `tree` on `device`, made on first use."""
    below = np.ones(len(tree) + 1, dtype=np.int64)  # nodes of each subtree, itself included
    levels = [np.flatnonzero(tree.depths == depth) for depth in range(int(tree.depths.max()) + 1)]
    for at in reversed(levels):
        np.add.at(below, tree.parents[at], below[at])
    before = np.cumsum(below[:-1]) - below[:-1]  # nodes of the subtrees of all earlier nodes
    before -= before[tree.group_start][tree.group_of]  # of the earlier siblings alone
    enter = np.zeros(len(tree) + 1, dtype=np.int64)
    for at in levels:
        enter[at] = enter[tree.parents[at]] + 1 + before[at]
    return Spans(torch.tensor(enter, device=device), torch.tensor(enter + below, device=device))


def ask_groups(index: TreeIndex, row: Tensor, group: Tensor) -> Asked:
    """The logits of whole groups. row, group: int64 [segments], one group visit each, rows ascending."""
    size = index.size[group]  # [segments]
    first = size.cumsum(0) - size  # [segments] where each segment starts in the list
    segment = torch.repeat_interleave(size)  # [asked]
    node = torch.arange(len(segment), device=segment.device) + (index.start[group] - first)[segment]
    return Asked(row[segment], node, segment, row, first, size)


def ask_paths(index: TreeIndex, targets: Tensor) -> tuple[Asked, Tensor]:
    """The groups on the way to each target, and no others.

    Args:
        targets: int64 [rows], nodes; -1 asks for nothing.

    Returns:
        what is asked, and int64 [segments]: the member on the path in each visited group.
    """
    inside = targets >= 0
    own_group = index.group_of[targets.clamp(min=0)]  # [rows]
    groups = index.path_groups[own_group]  # [rows, depth]
    row, level = ((groups >= 0) & inside[:, None]).nonzero(as_tuple=True)
    group = groups[row, level]
    members = torch.where(group == own_group[row], targets[row], index.path_nodes[own_group[row], level])
    return ask_groups(index, row, group), members


@lru_cache(maxsize=64)
def restrict(tree: WordTree, nodes: tuple[int, ...]) -> tuple[tuple[int, ...], WordTree, tuple[int, ...]]:
    """The part of a tree that decides the probabilities of `nodes`: every group on their paths, whole.

    Returns:
        the columns kept (nodes of `tree`, ascending), the part as a tree, and where each of `nodes` stands in it, -1
        for the root.
    """
    on_path = np.flatnonzero(tree.on_paths(nodes))
    groups = np.unique(tree.group_of[on_path]) if len(on_path) else np.zeros(1, int)
    columns = np.flatnonzero(np.isin(tree.group_of, groups))
    place = np.full(len(tree) + 1, -1, dtype=np.int64)  # the root's last, where node -1 finds it
    place[columns] = np.arange(len(columns))
    above = tree.parents[columns]
    part = WordTree((tree.ids[c] for c in columns), place[above])
    return tuple(columns.tolist()), part, tuple(place[list(nodes)].tolist())
