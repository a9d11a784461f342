"""What tests draw from: random valid trees with names, random taxonomies, and logits without near-ties."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from wordtree import WordTree

if TYPE_CHECKING:
    from torch import Tensor

# A busy machine is no fault of the code: no example has a time to keep.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

NAMES = ["dog", "Cat", "a, b", 'say "x"', "été", "x"]


@st.composite
def trees(draw: st.DrawFn, most_groups: int = 7, most_children: int = 4) -> WordTree:
    """Any valid tree: forests, chains, single children, one node; groups in any order that keeps parents first."""
    parents = [-1] * draw(st.integers(1, most_children))
    free = list(range(len(parents)))  # nodes without children
    for _ in range(draw(st.integers(0, most_groups - 1))):
        owner = free.pop(draw(st.integers(0, len(free) - 1)))
        size = draw(st.integers(1, most_children))
        free += range(len(parents), len(parents) + size)
        parents += [owner] * size
    names = draw(st.lists(st.sampled_from(NAMES), min_size=len(parents), max_size=len(parents)))
    return WordTree([f"n{node}" for node in range(len(parents))], parents, names)


@st.composite
def taxonomies(draw: st.DrawFn, most: int = 12) -> tuple[networkx.DiGraph, list[str]]:
    """A directed graph without circles, some nodes with several parents, some cut off from `top`; and labels of it."""
    count = draw(st.integers(2, most))
    keys = [f"{key:02d}" for key in draw(st.permutations(range(count)))]
    graph = networkx.DiGraph()
    graph.add_node("top")
    for at, key in enumerate(keys):
        graph.add_node(key)
        parents = draw(st.lists(st.sampled_from(["top", *keys[:at]]), max_size=3, unique=True))
        graph.add_edges_from((parent, key) for parent in parents)
    labels = draw(st.lists(st.sampled_from(keys), min_size=1, unique=True))
    return graph, labels


def random_tree(nodes: int, seed: int = 0, most_children: int = 9) -> WordTree:
    """A tree of about `nodes` nodes, without hypothesis: groups of 1 to `most_children` below random leaves."""
    random = np.random.RandomState(seed)
    parents = [-1] * 4
    free = list(range(4))
    while len(parents) < nodes:
        owner = free.pop(random.randint(len(free)))
        size = random.randint(1, most_children + 1)
        free += range(len(parents), len(parents) + size)
        parents += [owner] * size
    return WordTree([f"n{node}" for node in range(len(parents))], parents)


def logits(rows: int, tree: WordTree, seed: int, scale: float = 3.0) -> Tensor:
    """float64 [rows, nodes], multiples of 1/8: sums are exact enough that two that differ never tie by rounding."""
    import torch  # the tests of the torch-free floor draw from here too

    random = np.random.RandomState(seed)
    return torch.from_numpy(np.round(random.randn(rows, len(tree)) * scale * 8) / 8)


seeds = st.integers(0, 2**31 - 1)
