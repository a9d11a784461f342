"""TreeLinear: a classifier over a tree that computes only the logits it is asked for.

A linear layer of 9418 outputs need not make 9418 outputs: a loss needs the groups on the labels' paths, a descent the
groups that it visits. The rows of the weight that some row of the input asks for are gathered once, multiplied once.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import WordTreeError
from ..tree import WordTree
from .descent import Walk, walk
from .index import Asked, ask_paths, restrict, tree_index
from .loss import check_arguments, path_nll, reduce, take
from .softmax import at_least_float32, segment_logsumexp, tree_log_prob


class TreeLinear(nn.Module):
    """A linear layer with one output a node, evaluated where it is asked for.

    Args:
        features: channels of the input.
        tree: one logit a node, in its order.
        copies: how many independent classifiers to hold, such as one an anchor; `copy` then says which reads a row.

    State: `weight` float [copies, nodes, features], `bias` float [copies, nodes].

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> head = TreeLinear(8, tree)
        >>> x = torch.randn(5, 8)
        >>> head(x).shape, head.loss(x, torch.tensor([2, 3, 0, 1, 2])).shape, head.descend(x, 0.5)[0].shape
        (torch.Size([5, 4]), torch.Size([]), torch.Size([5]))
    """

    def __init__(self, features: int, tree: WordTree, copies: int = 1) -> None:
        super().__init__()
        self.tree = tree
        self.features = features
        self.copies = copies
        self.weight = nn.Parameter(torch.empty(copies, len(tree), features))
        self.bias = nn.Parameter(torch.zeros(copies, len(tree)))
        nn.init.uniform_(self.weight, -1 / math.sqrt(features), 1 / math.sqrt(features))

    def extra_repr(self) -> str:
        return f"features={self.features}, tree={self.tree}, copies={self.copies}"

    def forward(self, x: Tensor) -> Tensor:
        """All logits, the dense form: float [..., features] -> [..., nodes], or [..., copies, nodes] with copies."""
        logits = nn.functional.linear(x, self.weight.flatten(0, 1), self.bias.flatten())
        return logits if self.copies == 1 else logits.unflatten(-1, (self.copies, len(self.tree)))

    def loss(
        self,
        x: Tensor,
        targets: Tensor,
        copy: Tensor | None = None,
        known: Tensor | None = None,
        weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> Tensor:
        """`tree_cross_entropy` of this layer's logits, from the columns on the targets' paths alone.

        Args:
            x: float [rows, features].
            targets: int64 [rows], any node; -1 for none.
            copy: int64 [rows], which copy reads each row; needed with more than one.
            known, weight, label_smoothing, reduction: as `tree_cross_entropy`; known is [nodes] or [rows, nodes].
        """
        if len(x) != len(targets):
            raise WordTreeError(f"{len(x)} rows of features and {len(targets)} targets; give a target a row")
        check_arguments(targets, self.tree, known, weight, label_smoothing)
        asked, members = ask_paths(tree_index(self.tree, x.device), targets)
        losses = path_nll(self.logits_at(x, asked, copy), asked, members, len(targets), known, label_smoothing)
        return reduce(losses, targets, weight, reduction)

    def descend(
        self, x: Tensor, threshold: float = 0.5, rule: str = "path", copy: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`wordtree.nn.descend` of this layer's logits, from the groups visited alone.

        Args:
            x: float [rows, features].
            threshold, rule: as `wordtree.nn.descend`.
            copy: int64 [rows], which copy reads each row.

        Returns:
            nodes int64 [rows], log_probs float [rows].
        """
        walked = self.walk(x, threshold, rule, copy)
        return walked.nodes, walked.log_probs

    def walk(self, x: Tensor, threshold: float = 0.5, rule: str = "path", copy: Tensor | None = None) -> Walk:
        """The descent with the log-probabilities passed on the way; arguments as `descend`."""
        index = tree_index(self.tree, x.device)
        return walk(lambda asked: self.logits_at(x, asked, copy), len(x), index, threshold, rule)

    def log_prob_at(self, x: Tensor, nodes: Tensor, copy: Tensor | None = None) -> Tensor:
        """log Pr(nodes[i]) at row i, from the columns on its path alone. [rows, features], [rows] -> float [rows]."""
        asked, members = ask_paths(tree_index(self.tree, x.device), nodes)
        values = at_least_float32(self.logits_at(x, asked, copy))
        taken = values[asked.place(members)] - segment_logsumexp(values, asked)
        return taken.new_zeros(len(nodes)).index_add(0, asked.segment_row, taken)

    def log_prob_grid(self, x: Tensor, nodes: Tensor) -> Tensor:
        """log Pr(nodes[i]) at every cell of row i and in every copy, from the columns on its path alone.

        Args:
            x: float [rows, cells, features].
            nodes: int64 [rows], any node; -1, the root, has log-probability 0 everywhere.

        Returns:
            float [rows, cells, copies].
        """
        rows, cells, _ = x.shape
        asked, members = ask_paths(tree_index(self.tree, x.device), nodes)
        count = torch.bincount(asked.row, minlength=rows)  # logits a row asks for
        within = torch.arange(len(asked.row), device=x.device) - (count.cumsum(0) - count)[asked.row]
        columns = asked.node.new_zeros(rows, int(count.max()) if len(asked.row) else 0)
        columns[asked.row, within] = asked.node
        weight = self.weight[:, columns].movedim(0, 1).flatten(1, 2)  # [rows, copies * columns, features]
        logits = (weight.to(x.dtype) @ x.mT).unflatten(1, (self.copies, -1))  # [rows, copies, columns, cells]
        logits = logits + self.bias[:, columns].movedim(0, 1)[..., None].to(x.dtype)
        values = at_least_float32(logits.movedim(2, 1)[asked.row, within].flatten(1))  # [asked, copies * cells]
        taken = values[asked.place(members)] - segment_logsumexp(values, asked)
        total = taken.new_zeros(rows, self.copies * cells).index_add(0, asked.segment_row, taken)
        return total.view(rows, self.copies, cells).mT

    def log_probs_of(self, x: Tensor, nodes: Sequence[int], copy: Tensor | None = None) -> Tensor:
        """log Pr of each of `nodes` at every row, from the groups on their paths alone.

        Args:
            x: float [rows, features].
            nodes: the nodes wanted, the same for every row.
            copy: int64 [rows], which copy reads each row.

        Returns:
            float [rows, len(nodes)].
        """
        self._check_copy(copy)
        columns, part, places = restrict(self.tree, tuple(nodes))
        at = torch.tensor(columns, device=x.device)
        which = torch.zeros(len(x), dtype=torch.int64, device=x.device) if copy is None else copy
        out = x.new_zeros(len(x), len(nodes), dtype=torch.promote_types(x.dtype, torch.float32))
        for one in range(self.copies):
            mine = which == one
            logits = nn.functional.linear(x[mine], self.weight[one, at].to(x.dtype), self.bias[one, at].to(x.dtype))
            out[mine] = tree_log_prob(at_least_float32(logits), part)[:, list(places)].to(out.dtype)
        return out

    def _check_copy(self, copy: Tensor | None) -> None:
        if copy is None and self.copies > 1:
            raise WordTreeError(
                f"no copy given to a head of {self.copies}; say which reads each row: copy=int64 [rows]"
            )

    def logits_at(self, x: Tensor, asked: Asked, copy: Tensor | None = None) -> Tensor:
        """The logits asked for. x: float [rows, features] -> float [asked].

        The columns that any row asks for are gathered once; the product is then one matrix multiplication.
        """
        self._check_copy(copy)
        column = asked.node if copy is None else asked.node + copy[asked.row] * len(self.tree)
        columns, place = torch.unique(column, return_inverse=True)
        weight = self.weight.flatten(0, 1).index_select(0, columns)  # [columns, features]
        bias = self.bias.flatten().index_select(0, columns)
        return take(nn.functional.linear(x, weight, bias), asked.row, place)
