"""The hierarchy in torch: grouped softmax, path losses, descent, and a classifier that computes only what is asked."""

from .descent import descend
from .linear import TreeLinear
from .loss import tree_cross_entropy
from .softmax import tree_log_prob, tree_log_softmax

__all__ = ["TreeLinear", "descend", "tree_cross_entropy", "tree_log_prob", "tree_log_softmax"]
