"""The hierarchy in torch: grouped softmax, path losses, decisions, and a classifier that computes what is asked."""

from . import ops as ops  # registers the operators that torch.compile keeps whole
from .adapt import Adapted, Hierarchical, adapt
from .decisions import (
    Decisions,
    Reason,
    climb,
    expected_cost,
    hedge,
    hedge_weight,
    majority,
    most_information,
    pareto,
    why,
)
from .descent import descend
from .linear import TreeLinear
from .loss import tree_cross_entropy
from .softmax import propagate, tree_log_prob, tree_log_softmax
from .suppression import suppress_relatives

__all__ = [
    "Adapted",
    "Decisions",
    "Hierarchical",
    "Reason",
    "TreeLinear",
    "adapt",
    "climb",
    "descend",
    "expected_cost",
    "hedge",
    "hedge_weight",
    "majority",
    "most_information",
    "pareto",
    "propagate",
    "suppress_relatives",
    "tree_cross_entropy",
    "tree_log_prob",
    "tree_log_softmax",
    "why",
]
