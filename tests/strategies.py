"""What tests draw from: random valid trees, and logits without near-ties."""

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from wordtree import WordTree


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
    return WordTree([f"n{node}" for node in range(len(parents))], parents)


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
    random = np.random.RandomState(seed)
    return torch.from_numpy(np.round(random.randn(rows, len(tree)) * scale * 8) / 8)


seeds = st.integers(0, 2**31 - 1)
