"""Cross-entropy along a label's path: the groups from the root down to the label, and nothing below or beside it.

Paper section 4: a label at any level "only backpropagates loss at or above the level of the label". A label's path
meets 108 of 9418 logits on average, so the loss reads those and no others.
"""

import torch
from torch import Tensor

from ..errors import WordTreeError, unknown
from ..tree import WordTree
from .index import Asked, ask_paths, tree_index
from .softmax import at_least_float32, segment_logsumexp

REDUCTIONS = ("mean", "sum", "none")


def tree_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    tree: WordTree,
    known: Tensor | None = None,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """-log Pr(target), with targets at any depth; off-path groups and those below the target get gradient 0.

    Args:
        logits: float [..., nodes].
        targets: int64 [...], any node, leaf or not; -1 (the root) has no path: its row is 0 and leaves the mean.
        tree: its order is the order of the logits.
        known: bool [nodes] or [..., nodes]: siblings that a source does not know leave their group's denominator;
            the target itself always stays.
        weight: float [nodes], the weight of each row by its target.
        label_smoothing: in 0..1, the share of each group's target spread evenly over its (known) members.
        reduction: "mean" over rows (weighted by `weight`), "sum", or "none".

    Returns:
        float: a scalar, or [...] with reduction "none". Half-precision logits give a float32 loss.

    Raises:
        WordTreeError: shapes that do not fit, a target off the tree (checked on the CPU), an unknown reduction.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> tree_cross_entropy(torch.zeros(2, 4), torch.tensor([2, 0]), tree, reduction="none")
        tensor([1.3863, 0.6931])
    """
    if logits.shape[-1] != len(tree) or logits.shape[:-1] != targets.shape:
        raise WordTreeError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)}; {tree} takes logits [..., {len(tree)}] "
            "and targets [...]"
        )
    check_arguments(targets, tree, known, weight, label_smoothing)
    flat = logits.reshape(-1, len(tree))
    rows = targets.reshape(-1)
    asked, members = ask_paths(tree_index(tree, logits.device), rows)
    values = take(flat, asked.row, asked.node)
    masked = known if known is None or known.dim() == 1 else known.reshape(-1, len(tree))
    losses = path_nll(values, asked, members, len(rows), masked, label_smoothing)
    return reduce(losses, rows, weight, reduction).reshape(targets.shape if reduction == "none" else ())


def path_nll(
    values: Tensor,
    asked: Asked,
    members: Tensor,
    rows: int,
    known: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The loss of each row from the ragged logits of its path. values [asked], members [segments] -> [rows]."""
    values = at_least_float32(values)
    on_path = asked.place(members)  # [segments]
    counted = torch.ones_like(values, dtype=torch.bool)
    if known is not None:
        counted = known[asked.node] if known.dim() == 1 else known[asked.row, asked.node]
        counted = counted.index_fill(0, on_path, True)
        values = values.masked_fill(~counted, -torch.inf)
    hit = values[on_path]  # [segments]
    loss = segment_logsumexp(values, asked) - hit
    if label_smoothing:
        zero = torch.zeros_like(hit)
        members_counted = zero.index_add(0, asked.segment, counted.to(values.dtype))
        total = zero.index_add(0, asked.segment, values.masked_fill(~counted, 0.0))
        loss = loss + label_smoothing * (hit - total / members_counted)
    return torch.zeros(rows, dtype=values.dtype, device=values.device).index_add(0, asked.segment_row, loss)


def reduce(losses: Tensor, targets: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """[rows] -> a scalar or [rows]; rows without a target (-1) count for nothing; no rows at all give 0, not NaN."""
    if reduction not in REDUCTIONS:
        raise unknown("reduction", reduction, REDUCTIONS)
    share = (targets >= 0).to(losses.dtype)
    if weight is not None:
        share = share * weight.to(losses.dtype)[targets.clamp(min=0)]
    losses = losses * share
    if reduction == "none":
        return losses
    total = losses.sum()
    return total if reduction == "sum" else total / share.sum().clamp(min=torch.finfo(losses.dtype).tiny)


def check_arguments(
    targets: Tensor, tree: WordTree, known: Tensor | None, weight: Tensor | None, label_smoothing: float
) -> None:
    """Refuse what does not fit: masks and weights of other nodes, smoothing outside 0..1, targets off the tree.

    Targets are looked at on the CPU alone: elsewhere a look would wait for the device.
    """
    nodes = (len(tree),)
    if known is not None and known.shape not in (nodes, (*targets.shape, *nodes)):
        raise WordTreeError(f"known of shape {tuple(known.shape)}; give bool [{len(tree)}], or one row a target")
    if weight is not None and weight.shape != nodes:
        raise WordTreeError(f"weight of shape {tuple(weight.shape)}; give one a node, float [{len(tree)}]")
    if not 0.0 <= label_smoothing <= 1.0:
        raise WordTreeError(f"label_smoothing of {label_smoothing}; it is a share, 0 to 1")
    if targets.device.type != "cpu" or not targets.numel():
        return
    low, high = int(targets.min()), int(targets.max())
    if low < -1 or high >= len(tree):
        raise WordTreeError(f"targets from {low} to {high}; {tree} has nodes 0 to {len(tree) - 1}, and -1 for the root")


class _Take(torch.autograd.Function):
    """matrix[row, column] for pairs that each occur once: the gradient is then one write, not an accumulation."""

    @staticmethod
    def forward(ctx, matrix: Tensor, row: Tensor, column: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(row, column)
        ctx.shape = matrix.shape
        return matrix[row, column]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        row, column = ctx.saved_tensors
        full = grad.new_zeros(ctx.shape)
        full[row, column] = grad
        return full, None, None


def take(matrix: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """matrix [rows, columns] at distinct places (row [n], column [n]) -> [n]."""
    return _Take.apply(matrix, row, column)  # type: ignore[no-any-return]
