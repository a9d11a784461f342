"""The hierarchy in torch: grouped softmax, path losses, descent, and a classifier that computes only what is asked."""

from . import ops as ops  # registers the operators that torch.compile keeps whole
from .descent import descend
from .linear import TreeLinear
from .loss import tree_cross_entropy
from .softmax import propagate, tree_log_prob, tree_log_softmax

__all__ = ["TreeLinear", "descend", "propagate", "tree_cross_entropy", "tree_log_prob", "tree_log_softmax"]
