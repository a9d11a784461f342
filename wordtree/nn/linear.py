"""TreeLinear: a classifier over a tree that computes only the logits it is asked for.

A linear layer of 9418 outputs need not make 9418 outputs: a loss needs the groups on the labels' paths, a descent the
groups that it visits. The rows of the weight that some row of the input asks for are gathered once, multiplied once.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import WordTreeError
from ..tree import WordTree
from .descent import Scope, Walk, walk
from .index import Asked, ask_paths, restrict, tree_index
from .loss import check_arguments, path_nll, reduce, take
from .softmax import at_least_float32, segment_logsumexp, tree_log_prob

SPARSE_BELOW = 0.2  # of rows x columns: where fewer products are asked for, they are computed one by one
Reader = Callable[[Tensor | None], None]  # told of the rows of a weight that are about to be read
FEW = 16  # a layer's rows to each logit asked for: above it, sorting what is asked beats marking the rows


class TreeLinear(nn.Module):
    """A linear layer with one output a node, evaluated where it is asked for.

    Args:
        features: channels of the input.
        tree: one logit a node, in its order.
        copies: how many independent classifiers to hold, such as one an anchor; `copy` then says which reads a row.
        sparse: whether the loss gives the weight a sparse gradient, of the rows it read alone, as `nn.Embedding` does;
            for optimisers that take one (SGD, SparseAdam), and vocabularies of which a batch meets little.

    State: `weight` float [copies, nodes, features], `bias` float [copies, nodes].

    Attributes:
        before_read: called before rows of the weight are read, with int64 [n], rows of the weight as [copies * nodes,
            features], or None for all: for an optimiser that brings rows up to date when they are needed.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> head = TreeLinear(8, tree)
        >>> x = torch.randn(5, 8)
        >>> head(x).shape, head.loss(x, torch.tensor([2, 3, 0, 1, 2])).shape, head.descend(x, 0.5)[0].shape
        (torch.Size([5, 4]), torch.Size([]), torch.Size([5]))
    """

    def __init__(self, features: int, tree: WordTree, copies: int = 1, sparse: bool = False) -> None:
        super().__init__()
        self.sparse = sparse
        self.before_read: Reader | None = None
        self.tree = tree
        self.features = features
        self.copies = copies
        self.weight = nn.Parameter(torch.empty(copies, len(tree), features))
        self.bias = nn.Parameter(torch.zeros(copies, len(tree)))
        nn.init.uniform_(self.weight, -1 / math.sqrt(features), 1 / math.sqrt(features))

    def extra_repr(self) -> str:
        return f"features={self.features}, tree={self.tree}, copies={self.copies}"

    def refresh(self, rows: Tensor | None) -> None:
        """Tell `before_read` of rows, int64 [n], or of all; done by all that reads the weight through this module."""
        if self.before_read is not None:
            self.before_read(rows)

    def _save_to_state_dict(self, *arguments: Any) -> None:
        self.refresh(None)
        super()._save_to_state_dict(*arguments)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self.refresh(None)
        super()._load_from_state_dict(*arguments)

    def forward(self, x: Tensor) -> Tensor:
        """All logits, the dense form: float [..., features] -> [..., nodes], or [..., copies, nodes] with copies."""
        if x.dtype != self.weight.dtype and not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.weight.dtype)  # of a network in half precision
        self.refresh(None)
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
        focal: float = 0.0,
    ) -> Tensor:
        """`tree_cross_entropy` of this layer's logits, from the columns on the targets' paths alone.

        Args:
            x: float [rows, features].
            targets: int64 [rows], any node; -1 for none.
            copy: int64 [rows], which copy reads each row; needed with more than one.
            known, weight, label_smoothing, reduction, focal: as `tree_cross_entropy`; known is [nodes] or
                [rows, nodes].
        """
        if len(x) != len(targets):
            raise WordTreeError(f"{len(x)} rows of features and {len(targets)} targets; give a target a row")
        check_arguments(targets, self.tree, known, weight, label_smoothing, focal)
        self._check_copy(copy)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if torch.compiler.is_compiling():
            losses = torch.ops.wordtree.head_loss(
                x, self.weight, self.bias, targets, copy, known, self.tree.hash, label_smoothing, focal
            )
        else:
            losses = _HeadLoss.apply(
                x,
                self.weight,
                self.bias,
                targets,
                copy,
                known,
                self.tree,
                label_smoothing,
                focal,
                self.sparse,
                self.before_read,
            )
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
        self._check_copy(copy)
        if torch.compiler.is_compiling():
            return torch.ops.wordtree.head_descend(  # type: ignore[no-any-return]
                x.detach(), self.weight.detach(), self.bias.detach(), copy, self.tree.hash, threshold, rule
            )
        walked = self.walk(x, threshold, rule, copy)
        return walked.nodes, walked.log_probs

    def walk(
        self,
        x: Tensor,
        threshold: float = 0.5,
        rule: str = "path",
        copy: Tensor | None = None,
        scope: Scope | None = None,
    ) -> Walk:
        """The descent with the log-probabilities passed on the way; arguments as `descend`, and what it may answer."""
        index = tree_index(self.tree, x.device)
        return walk(lambda asked: self.logits_at(x, asked, copy), len(x), index, threshold, rule, scope)

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
        if self.before_read is not None:
            self.refresh(self._in_every_copy(asked.node.unique()[None]).flatten())
        places = self._in_every_copy(columns)  # [rows, copies * columns]
        weight = self.weight.flatten(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape)
        logits = (weight.to(x.dtype) @ x.mT).unflatten(1, (self.copies, -1))  # [rows, copies, columns, cells]
        logits = logits + self.bias[:, columns].movedim(0, 1)[..., None].to(x.dtype)
        values = at_least_float32(logits.movedim(2, 1)[asked.row, within].flatten(1))  # [asked, copies * cells]
        taken = values[asked.place(members)] - segment_logsumexp(values, asked)
        total = taken.new_zeros(rows, self.copies * cells).index_add(0, asked.segment_row, taken)
        return total.view(rows, self.copies, cells).mT

    def _in_every_copy(self, nodes: Tensor) -> Tensor:
        """Where nodes stand in the weight as [copies * nodes, features]. int64 [rows, n] -> [rows, copies * n]."""
        first = torch.arange(self.copies, device=nodes.device)[:, None] * len(self.tree)
        return (first + nodes[:, None]).flatten(1)

    def log_probs(self, x: Tensor, copy: Tensor | None = None) -> Tensor:
        """log Pr of every node at every row. x: float [rows, features], copy: int64 [rows] -> float [rows, nodes]."""
        self._check_copy(copy)
        logits = self(x.to(self.weight.dtype))
        if copy is not None and self.copies > 1:
            logits = logits[torch.arange(len(x), device=x.device), copy]
        return tree_log_prob(at_least_float32(logits), self.tree)

    def log_probs_of(self, x: Tensor, nodes: Sequence[int], copy: Tensor | None = None) -> Tensor:
        """log Pr of each of `nodes` at every row, from the groups on their paths alone.

        Args:
            x: float [rows, features].
            nodes: the nodes wanted, the same for every row; -1, the root, has log-probability 0.
            copy: int64 [rows], which copy reads each row.

        Returns:
            float [rows, len(nodes)].

        Raises:
            WordTreeError: a node that is not on the tree.
        """
        self._check_copy(copy)
        columns, part, places = restrict(self.tree, tuple(nodes))
        at = torch.tensor(columns, device=x.device)
        which = torch.zeros(len(x), dtype=torch.int64, device=x.device) if copy is None else copy
        out = x.new_zeros(len(x), len(nodes), dtype=torch.promote_types(x.dtype, torch.float32))
        for one in range(self.copies):
            self.refresh(at + one * len(self.tree))
            mine = which == one
            logits = nn.functional.linear(x[mine], self.weight[one, at].to(x.dtype), self.bias[one, at].to(x.dtype))
            found = nn.functional.pad(tree_log_prob(at_least_float32(logits), part), (0, 1))  # the root last, at -1
            out[mine] = found[:, list(places)].to(out.dtype)
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
        return logits_of(x, self.weight, self.bias, asked, copy, self.before_read)


def logits_of(
    x: Tensor, weight: Tensor, bias: Tensor, asked: Asked, copy: Tensor | None, before_read: Reader | None = None
) -> Tensor:
    """The logits asked for, of a layer given as its weight [copies, nodes, features] and bias [copies, nodes]."""
    columns, place = _union(asked, copy, weight.shape)
    if before_read is not None:
        before_read(columns)
    part = weight.flatten(0, 1).index_select(0, columns)  # [columns, features]
    logits = nn.functional.linear(x.to(part.dtype), part, bias.flatten().index_select(0, columns))
    return take(logits, asked.row, place)


def head_descend(
    x: Tensor, weight: Tensor, bias: Tensor, copy: Tensor | None, tree: WordTree, threshold: float, rule: str
) -> tuple[Tensor, Tensor]:
    """The descent of such a layer: nodes int64 [rows], log_probs float64 [rows]."""
    index = tree_index(tree, x.device)
    walked = walk(lambda asked: logits_of(x, weight, bias, asked, copy), len(x), index, threshold, rule)
    return walked.nodes, walked.log_probs


class Read(NamedTuple):
    """What a loss read of the head, kept for its backward pass."""

    columns: Tensor  # int64 [columns], rows of the weight, copies one after another, ascending
    row: Tensor  # int64 [asked]
    place: Tensor  # int64 [asked], which of the columns
    derivative: Tensor  # float [asked]


def head_loss(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    copy: Tensor | None,
    known: Tensor | None,
    tree: WordTree,
    label_smoothing: float,
    focal: float,
    slope: bool,
    before_read: Reader | None = None,
) -> tuple[Tensor, Read]:
    """Losses [rows] of the layer, and what the backward pass needs."""
    asked, members = ask_paths(tree_index(tree, x.device), targets)
    columns, place = _union(asked, copy, weight.shape)
    if before_read is not None:
        before_read(columns)
    whole = weight.flatten(0, 1)  # [copies * nodes, features]
    if _one_by_one(x, whole, asked.row, columns):
        values = _products(x, whole, asked.row, columns[place])
    else:
        values = (x @ whole.index_select(0, columns).to(x.dtype).T)[asked.row, place]
    values = at_least_float32(values + bias.flatten()[columns[place]].to(values.dtype))
    if known is not None:
        known = known[asked.node] if known.dim() == 1 else known[asked.row, asked.node]
    losses, derivative = path_nll(values, asked, members, known, label_smoothing, focal, slope)
    total = losses.new_zeros(len(targets)).index_add_(0, asked.segment_row, losses)
    return total, Read(columns, asked.row, place, derivative)


def head_loss_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, read: Read, sparse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias."""
    columns, row, place, derivative = read
    outer = (grad[row] * derivative).to(x.dtype)  # [asked]
    whole = weight.flatten(0, 1)
    if _one_by_one(x, whole, row, columns):
        turned = torch.argsort(place, stable=True)
        of_x = _weighted_sums(whole, columns[place], row, len(x), outer)
        of_part = _weighted_sums(x, row[turned], place[turned], len(columns), outer[turned])
    else:
        spread = x.new_zeros(len(x), len(columns))
        spread[row, place] = outer
        of_x, of_part = spread @ whole.index_select(0, columns).to(x.dtype), spread.T @ x
    of_bias = torch.zeros_like(bias)
    of_bias.view(-1).index_add_(0, columns[place], outer.to(bias.dtype))
    of_part = of_part.to(weight.dtype)
    if sparse:
        at = torch.stack((columns // weight.shape[1], columns % weight.shape[1]))
        return (
            of_x,
            torch.sparse_coo_tensor(at, of_part, weight.shape, is_coalesced=True, check_invariants=False),
            of_bias,
        )
    of_weight = torch.zeros_like(weight)
    of_weight.view(-1, weight.shape[-1])[columns] = of_part
    return of_x, of_weight, of_bias


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> Tensor:
        targets, copy, known, tree, label_smoothing, focal, ctx.sparse, before_read = rest
        slope = any(ctx.needs_input_grad)
        losses, read = head_loss(
            x, weight, bias, targets, copy, known, tree, label_smoothing, focal, slope, before_read
        )
        ctx.save_for_backward(x, weight, bias, *read)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, *read = ctx.saved_tensors
        return *head_loss_backward(grad, x, weight, bias, Read(*read), ctx.sparse), *[None] * 8


def _union(asked: Asked, copy: Tensor | None, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """The rows of the weight that anything asks for, ascending; and which of them each logit is."""
    column = asked.node if copy is None else asked.node + copy[asked.row] * shape[1]
    if len(column) * FEW < shape[0] * shape[1]:  # fewer to sort than rows to mark
        columns, place = torch.unique(column, return_inverse=True)
        return columns, place
    wanted = torch.zeros(shape[0] * shape[1], dtype=torch.bool, device=column.device)
    wanted[column] = True
    return wanted.nonzero()[:, 0], (wanted.cumsum(0) - 1)[column]


def _one_by_one(x: Tensor, whole: Tensor, row: Tensor, columns: Tensor) -> bool:
    """Whether so few products are asked for that computing them one by one beats the whole rows x columns."""
    able = x.device.type == "cpu" and x.dtype == whole.dtype and x.dtype in (torch.float32, torch.float64)
    return able and torch.backends.mkl.is_available() and len(row) < SPARSE_BELOW * len(x) * len(columns)


def _products(x: Tensor, whole: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """x[row] . whole[column] for pairs sorted by row and, inside a row, by column; nothing of either is copied."""
    starts = torch.zeros(len(x) + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(row, minlength=len(x)), 0, out=starts[1:])
    with warnings.catch_warnings():  # torch calls the format beta, once a process
        warnings.simplefilter("ignore", UserWarning)
        pattern = torch.sparse_csr_tensor(
            starts, column, x.new_zeros(len(column)), (len(x), len(whole)), check_invariants=False
        )
    values: Tensor = torch.sparse.sampled_addmm(pattern, x, whole.T, beta=0.0).values()
    return values


def _weighted_sums(table: Tensor, index: Tensor, owner: Tensor, owners: int, weight: Tensor) -> Tensor:
    """float [owners, features]: each owner's sum of weight * table[index]; entries sorted by owner."""
    count = torch.bincount(owner, minlength=owners)
    starts = count.cumsum(0) - count
    return nn.functional.embedding_bag(index, table, starts, mode="sum", per_sample_weights=weight)
