"""Cross-entropy along a label's path: the groups from the root down to the label, and nothing below or beside it.

Paper section 4: a label at any level "only backpropagates loss at or above the level of the label". A label's path
meets 108 of 9418 logits on average, so the loss reads those and no others.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import WordTreeError, unknown
from ..tree import WordTree
from .index import Asked, ask_paths, tree_index
from .softmax import FORMS, at_least_float32, check_nodes, leaf_spans, propagate, tree_log_prob, tree_log_softmax

REDUCTIONS = ("mean", "sum", "none")


def tree_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    tree: WordTree,
    known: Tensor | None = None,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    *,
    focal: float = 0.0,
    dim: int = -1,
    form: str = "conditional",
) -> Tensor:
    """-log Pr(target), with targets at any depth; off-path groups and those below the target get gradient 0.

    Args:
        logits: float [..., nodes]; in the form "leaf", float [..., leaves] in the order of `tree.leaves`.
        targets: int64 [...], any node, leaf or not; -1 (the root) has no path: its row is 0 and leaves the mean.
            Or soft targets, float [..., nodes]: each node's share of the label; the loss is -sum(share * log Pr(node)).
        tree: its order is the order of the logits.
        known: bool [nodes] or [..., nodes]: siblings that a source does not know leave their group's denominator;
            the target itself always stays. (In the form "leaf": leaves, those below the target excepted.)
        weight: float [nodes], the weight of each row by its target.
        label_smoothing: in 0..1, the share of each group's target spread evenly over its (known) members; in the form
            "leaf", over the leaves.
        reduction: "mean" over rows (weighted by `weight`), "sum", or "none".
        focal: gamma of the focal loss (Lin et al. 2017): each group's term times (1 - Pr(member | parent)) ** gamma; in
            the form "leaf", the row's times (1 - Pr(target)) ** gamma.
        dim: where the nodes are in `logits` (and in `known` and soft targets), such as 1 for [batch, nodes, h, w] with
            targets [batch, h, w].
        form: "conditional", the paper's softmax a group, or "leaf", one softmax over the leaves; see `tree_log_prob`.

    Returns:
        float: a scalar, or [...] with reduction "none". Half-precision logits give a float32 loss.

    Raises:
        WordTreeError: shapes that do not fit, a target off the tree (checked on the CPU), an unknown reduction or form.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> tree_cross_entropy(torch.zeros(2, 4), torch.tensor([2, 0]), tree, reduction="none")
        tensor([1.3863, 0.6931])
        >>> tree_cross_entropy(torch.zeros(1, 4), torch.tensor([[0, 0, 0.5, 0.5]]), tree)
        tensor(1.3863)
    """
    if form not in FORMS:
        raise unknown("form", form, FORMS)
    if targets.is_floating_point():
        return _soft(logits, targets, tree, known, weight, label_smoothing, reduction, focal, dim, form)
    wanted = len(tree) if form == "conditional" else len(tree.leaves)
    fits = -logits.dim() <= dim < logits.dim() and logits.shape[dim] == wanted
    if not fits or targets.shape != torch.Size(n for at, n in enumerate(logits.shape) if at != dim % logits.dim()):
        takes = f"[..., {wanted}] and targets [...]" if dim == -1 else f"{wanted} at dim {dim}, and a target for each"
        raise WordTreeError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)}; {tree} takes logits {takes} "
            f"in the form {form!r}"
        )
    full = list(logits.shape)
    full[dim] = len(tree)
    check_arguments(targets, tree, known, weight, label_smoothing, focal, torch.Size(full))
    if form == "leaf":
        losses = _leaf_nll(logits, targets, tree, known, label_smoothing, focal, dim)
    elif torch.compiler.is_compiling():
        losses = torch.ops.wordtree.path_loss(logits, targets, known, tree.hash, dim, label_smoothing, focal)
    else:
        losses = _PathLoss.apply(logits, targets, known, tree, dim, label_smoothing, focal)
    return reduce(losses, targets.reshape(-1), weight, reduction).reshape(targets.shape if reduction == "none" else ())


def path_nll(
    values: Tensor,
    asked: Asked,
    members: Tensor,
    known: Tensor | None = None,
    label_smoothing: float = 0.0,
    focal: float = 0.0,
    slope: bool = True,
) -> tuple[Tensor, Tensor]:
    """The loss of each group visit from the ragged logits of the paths, and its derivative.

    Args:
        values: float [asked], float32 or wider.
        asked, members: the paths.
        known: bool [asked], which logits count.
        label_smoothing, focal: as `tree_cross_entropy`.
        slope: whether the derivative is wanted.

    Returns:
        losses [segments]; d loss / d value [asked], empty where it is not wanted.
    """
    on_path = asked.place(members)  # [segments]
    if known is not None:
        known = known.index_fill(0, on_path, True)
        values = values.masked_fill(~known, -torch.inf)
    segments = len(members)
    top = values.new_empty(segments).scatter_reduce_(0, asked.segment, values, "amax", include_self=False)
    shifted = values - top[asked.segment]
    share = shifted.exp()
    total = values.new_zeros(segments).index_add_(0, asked.segment, share)
    log_share = shifted[on_path] - total.log()  # log Pr(member | parent)
    losses = -log_share
    if label_smoothing:
        counted = asked.segment_size.to(values.dtype)
        sums = shifted
        if known is not None:
            counted = values.new_zeros(segments).index_add_(0, asked.segment, known.to(values.dtype))
            sums = shifted.masked_fill(~known, 0.0)
        mean = values.new_zeros(segments).index_add_(0, asked.segment, sums) / counted
        losses = (1 - label_smoothing) * losses + label_smoothing * (total.log() - mean)
    empty = values.new_zeros(0)
    if not slope:
        return (losses * (-log_share.expm1()) ** focal if focal else losses), empty
    share *= (1 / total)[asked.segment]  # Pr(node | parent), and from here on the derivative of the cross-entropy
    if focal:
        hit = log_share.exp()
        miss = -log_share.expm1()
        # d/dv of (1 - p)^g * ce, with dp/dv = p * (1[member] - share)
        turn = torch.where(miss > 0, losses * focal * miss.clamp(min=1e-30) ** (focal - 1) * hit, 0.0)  # [segments]
        through = share * turn[asked.segment]
        through[on_path] -= turn
    if label_smoothing:
        spread = (label_smoothing / counted)[asked.segment]
        share -= spread if known is None else spread.masked_fill(~known, 0.0)
    share[on_path] -= 1 - label_smoothing
    if focal:
        keep = miss**focal
        losses = losses * keep
        share = share * keep[asked.segment] + through
    return losses, share


def path_loss(
    logits: Tensor,
    targets: Tensor,
    known: Tensor | None,
    tree: WordTree,
    dim: int,
    label_smoothing: float,
    focal: float,
    slope: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Losses [rows]; and for the backward pass: the flat place of each logit asked for, its row, its derivative."""
    rows = targets.reshape(-1)
    asked, members = ask_paths(tree_index(tree, logits.device), rows)
    place = asked.flat(logits.shape, dim)
    values = at_least_float32(logits.reshape(-1)[place])
    if known is not None:
        known = known[asked.node] if known.dim() == 1 else known.reshape(-1)[place]
    losses, derivative = path_nll(values, asked, members, known, label_smoothing, focal, slope)
    total = losses.new_zeros(len(rows)).index_add_(0, asked.segment_row, losses)
    return total, place, asked.row, derivative


def path_loss_backward(grad: Tensor, place: Tensor, row: Tensor, derivative: Tensor, like: Tensor) -> Tensor:
    """The gradient of the logits: zero but at the places asked for, each of which occurs once."""
    back = torch.zeros(like.numel(), dtype=like.dtype, device=like.device)
    back[place] = (grad[row] * derivative).to(like.dtype)
    return back.view(like.shape)


class _PathLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, known: Tensor | None, tree: WordTree, *rest: Any) -> Tensor:
        dim, label_smoothing, focal = rest
        slope = ctx.needs_input_grad[0]
        losses, *saved = path_loss(logits, targets, known, tree, dim, label_smoothing, focal, slope)
        ctx.save_for_backward(*saved, logits)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return path_loss_backward(grad, *ctx.saved_tensors), *[None] * 6


def _soft(
    logits: Tensor,
    targets: Tensor,
    tree: WordTree,
    known: Tensor | None,
    weight: Tensor | None,
    label_smoothing: float,
    reduction: str,
    focal: float,
    dim: int,
    form: str,
) -> Tensor:
    """-sum over nodes of (the share of labels at or below) * log Pr(node | parent)."""
    wanted, what = (len(tree), "nodes") if form == "conditional" else (len(tree.leaves), "leaves")
    check_nodes(logits, wanted, dim, what)
    shape = list(logits.shape)
    shape[dim] = len(tree)
    if list(targets.shape) != shape:
        raise WordTreeError(
            f"soft targets {tuple(targets.shape)} for logits {tuple(logits.shape)}; give each row a share of every "
            f"node, {shape}"
        )
    _check_weight(weight, tree)
    if known is not None or label_smoothing or focal:
        raise WordTreeError("soft targets with known, label_smoothing or focal; give targets as nodes for those, int64")
    if form == "leaf":
        terms = targets * tree_log_prob(logits, tree, dim, form).masked_fill(targets == 0, 0.0)
    else:
        mass = propagate(targets.to(at_least_float32(logits).dtype), tree, dim)
        terms = mass * tree_log_softmax(at_least_float32(logits), tree, dim).masked_fill(mass == 0, 0.0)
    losses = -terms.sum(dim)
    share = targets.detach().movedim(dim, -1)
    share = (share.sum(-1) > 0).to(losses.dtype) if weight is None else (share * weight).sum(-1)
    return _reduced(losses if weight is None else losses * share, share, reduction)


def _leaf_nll(
    logits: Tensor, targets: Tensor, tree: WordTree, known: Tensor | None, smoothing: float, focal: float, dim: int
) -> Tensor:
    """-log Pr(target) [rows] where Pr is a sum over leaves."""
    rows = targets.reshape(-1)
    if torch.compiler.is_dynamo_compiling():
        spans = torch.ops.wordtree.leaf_spans(logits, tree.hash)
    else:  # an export would leave tables without values in the cache
        spans = (leaf_spans.__wrapped__ if torch.compiler.is_exporting() else leaf_spans)(tree, logits.device)
    leaves, place, first, last = spans
    flat = at_least_float32(logits).movedim(dim, -1).reshape(len(rows), len(leaves))
    at = rows.clamp(min=0)[:, None]
    mine = (place >= first[at]) & (place <= last[at])  # [rows, leaves] the leaves below each target
    if known is not None:
        seen = known[leaves] if known.dim() == 1 else known.movedim(dim, -1).reshape(len(rows), -1)[:, leaves]
        flat = flat.masked_fill(~(seen | mine), -torch.inf)
    log_share = flat.log_softmax(-1)
    hit = log_share.masked_fill(~mine, -torch.inf).logsumexp(-1)
    losses = -hit
    if smoothing:
        counted = log_share > -torch.inf
        mean = log_share.masked_fill(~counted, 0.0).sum(-1) / counted.sum(-1)
        losses = (1 - smoothing) * losses - smoothing * mean
    if focal:
        losses = losses * (-hit.clamp(max=0).expm1()) ** focal
    return losses * (rows >= 0)


def reduce(losses: Tensor, targets: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """[rows] -> a scalar or [rows]; rows without a target (-1) count for nothing; no rows at all give 0, not NaN."""
    share = (targets >= 0).to(losses.dtype)
    if weight is not None:
        share = share * weight.to(losses.dtype)[targets.clamp(min=0)]
    return _reduced(losses * share, share, reduction)


def _reduced(losses: Tensor, share: Tensor, reduction: str) -> Tensor:
    if reduction not in REDUCTIONS:
        raise unknown("reduction", reduction, REDUCTIONS)
    if reduction == "none":
        return losses
    total = losses.sum()
    return total if reduction == "sum" else total / share.sum().clamp(min=torch.finfo(losses.dtype).tiny)


def check_arguments(
    targets: Tensor,
    tree: WordTree,
    known: Tensor | None,
    weight: Tensor | None,
    label_smoothing: float,
    focal: float = 0.0,
    full: torch.Size | None = None,
) -> None:
    """Refuse what does not fit: masks and weights of other nodes, smoothing outside 0..1, targets off the tree.

    `full` is the shape of a mask with a row a target. Targets are looked at on the CPU alone, and not while a graph is
    traced: elsewhere a look would wait for the device.
    """
    nodes = (len(tree),)
    if known is not None and known.shape not in (nodes, full or (*targets.shape, *nodes)):
        raise WordTreeError(f"known of shape {tuple(known.shape)}; give bool [{len(tree)}], or one row a target")
    _check_weight(weight, tree)
    if not 0.0 <= label_smoothing <= 1.0:
        raise WordTreeError(f"label_smoothing of {label_smoothing}; it is a share, 0 to 1")
    if not focal >= 0.0:
        raise WordTreeError(f"focal of {focal}; it is an exponent, 0 or more")
    if torch.compiler.is_compiling() or targets.device.type != "cpu" or not targets.numel():
        return
    low, high = int(targets.min()), int(targets.max())
    if low < -1 or high >= len(tree):
        raise WordTreeError(f"targets from {low} to {high}; {tree} has nodes 0 to {len(tree) - 1}, and -1 for the root")


def _check_weight(weight: Tensor | None, tree: WordTree) -> None:
    if weight is not None and weight.shape != (len(tree),):
        raise WordTreeError(f"weight of shape {tuple(weight.shape)}; give one a node, float [{len(tree)}]")


class _Take(torch.autograd.Function):
    """matrix[row, column] for pairs that each occur once: the gradient is then one write, not an accumulation."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, row: Tensor, column: Tensor) -> Tensor:
        ctx.save_for_backward(row, column)
        ctx.shape = matrix.shape
        return matrix[row, column]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        row, column = ctx.saved_tensors
        full = grad.new_zeros(ctx.shape)
        full[row, column] = grad
        return full, None, None


def take(matrix: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """matrix [rows, columns] at distinct places (row [n], column [n]) -> [n]."""
    return _Take.apply(matrix, row, column)  # type: ignore[no-any-return]
