"""The same functions as single operators, so that torch.compile keeps each whole.

What a loss or a descent reads depends on the targets, and a traced graph has no room for that. So each is one operator
with a fake kernel, by which a graph knows its shape; a tree is named by its hash. Importing this module registers them.
A backward operator works out again what the forward one read.
"""

import torch
from torch import Tensor
from torch.library import custom_op

from ..tree import tree_of_hash
from . import linear, loss, softmax
from .descent import descend
from .softmax import at_least_float32


def _losses_like(logits: Tensor, count: int) -> Tensor:
    return logits.new_empty(count, dtype=at_least_float32(logits.new_empty(0)).dtype)


# ---------------------------------------------------------------------- all nodes


@custom_op("wordtree::log_softmax", mutates_args=())
def _log_softmax(logits: Tensor, tree: str, dim: int) -> Tensor:
    softmax.check_nodes(logits, len(tree_of_hash(tree)), dim)
    return softmax.log_softmax(logits, tree_of_hash(tree), dim)


@custom_op("wordtree::log_softmax_backward", mutates_args=())
def _log_softmax_backward(grad: Tensor, out: Tensor, tree: str, dim: int) -> Tensor:
    return softmax.log_softmax_backward(grad, out, tree_of_hash(tree), dim)


@custom_op("wordtree::sum_down", mutates_args=())
def _sum_down(values: Tensor, tree: str, dim: int) -> Tensor:
    return softmax.sum_down_(values.clone(memory_format=torch.contiguous_format), tree_of_hash(tree), dim)


@custom_op("wordtree::sum_up", mutates_args=())
def _sum_up(values: Tensor, tree: str, dim: int) -> Tensor:
    return softmax.sum_up_(values.clone(memory_format=torch.contiguous_format), tree_of_hash(tree), dim)


@custom_op("wordtree::leaf_log_prob", mutates_args=())
def _leaf_log_prob(logits: Tensor, tree: str, dim: int) -> Tensor:
    own = tree_of_hash(tree)
    softmax.check_nodes(logits, len(own.leaves), dim, "leaves")
    return softmax.leaf_log_prob(logits, own, dim, softmax._owned).contiguous()


@custom_op("wordtree::leaf_log_prob_backward", mutates_args=())
def _leaf_log_prob_backward(grad: Tensor, out: Tensor, tree: str, dim: int) -> Tensor:
    return softmax.leaf_log_prob_backward(grad, out, tree_of_hash(tree), dim).contiguous()


@custom_op("wordtree::leaf_spans", mutates_args=())
def _leaf_spans(like: Tensor, tree: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    leaves, place, first, last = softmax.leaf_spans(tree_of_hash(tree), like.device)
    return leaves.clone(), place.clone(), first.clone(), last.clone()  # what a graph is given it may write over


@_log_softmax.register_fake
def _(logits: Tensor, tree: str, dim: int) -> Tensor:
    return logits.new_empty(logits.shape)


@_log_softmax_backward.register_fake
def _(grad: Tensor, out: Tensor, tree: str, dim: int) -> Tensor:
    return out.new_empty(out.shape)


@_sum_down.register_fake
@_sum_up.register_fake
def _(values: Tensor, tree: str, dim: int) -> Tensor:
    return values.new_empty(values.shape)


def _resized(values: Tensor, dim: int, count: int) -> Tensor:
    """Like `values`, contiguous, with `count` at `dim`."""
    shape = list(values.shape)
    shape[dim] = count
    return values.new_empty(shape)


@_leaf_log_prob.register_fake
def _(logits: Tensor, tree: str, dim: int) -> Tensor:
    return _resized(logits, dim, len(tree_of_hash(tree)))


@_leaf_log_prob_backward.register_fake
def _(grad: Tensor, out: Tensor, tree: str, dim: int) -> Tensor:
    return _resized(out, dim, len(tree_of_hash(tree).leaves))


@_leaf_spans.register_fake
def _(like: Tensor, tree: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    own = tree_of_hash(tree)
    leaves, nodes = like.new_empty(len(own.leaves), dtype=torch.int64), like.new_empty(len(own), dtype=torch.int64)
    return leaves, torch.empty_like(leaves), nodes, torch.empty_like(nodes)


def _keep_out(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(output)
    ctx.rest = inputs[1:]


def _keep_rest(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.rest = inputs[1:]


_log_softmax.register_autograd(
    lambda ctx, grad: (_log_softmax_backward(grad, *ctx.saved_tensors, *ctx.rest), None, None), setup_context=_keep_out
)
_leaf_log_prob.register_autograd(
    lambda ctx, grad: (_leaf_log_prob_backward(grad, *ctx.saved_tensors, *ctx.rest), None, None),
    setup_context=_keep_out,
)
_sum_down.register_autograd(lambda ctx, grad: (_sum_up(grad, *ctx.rest), None, None), setup_context=_keep_rest)
_sum_up.register_autograd(lambda ctx, grad: (_sum_down(grad, *ctx.rest), None, None), setup_context=_keep_rest)


# ---------------------------------------------------------------------- losses


@custom_op("wordtree::path_loss", mutates_args=())
def _path_loss(
    logits: Tensor, targets: Tensor, known: Tensor | None, tree: str, dim: int, label_smoothing: float, focal: float
) -> Tensor:
    return loss.path_loss(logits, targets, known, tree_of_hash(tree), dim, label_smoothing, focal, False)[0]


@custom_op("wordtree::path_loss_backward", mutates_args=())
def _path_loss_backward(
    grad: Tensor,
    logits: Tensor,
    targets: Tensor,
    known: Tensor | None,
    tree: str,
    dim: int,
    label_smoothing: float,
    focal: float,
) -> Tensor:
    own = tree_of_hash(tree)
    _, place, row, derivative = loss.path_loss(logits, targets, known, own, dim, label_smoothing, focal, True)
    return loss.path_loss_backward(grad, place, row, derivative, logits)


@_path_loss.register_fake
def _(
    logits: Tensor, targets: Tensor, known: Tensor | None, tree: str, dim: int, label_smoothing: float, focal: float
) -> Tensor:
    return _losses_like(logits, targets.numel())


@_path_loss_backward.register_fake
def _(
    grad: Tensor,
    logits: Tensor,
    targets: Tensor,
    known: Tensor | None,
    tree: str,
    dim: int,
    label_smoothing: float,
    focal: float,
) -> Tensor:
    return logits.new_empty(logits.shape)


def _keep_path(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs[:3])
    ctx.rest = inputs[3:]


_path_loss.register_autograd(
    lambda ctx, grad: (_path_loss_backward(grad, *ctx.saved_tensors, *ctx.rest), *[None] * 6),
    setup_context=_keep_path,
)


@custom_op("wordtree::head_loss", mutates_args=())
def _head_loss(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    copy: Tensor | None,
    known: Tensor | None,
    tree: str,
    label_smoothing: float,
    focal: float,
) -> Tensor:
    own = tree_of_hash(tree)
    return linear.head_loss(x, weight, bias, targets, copy, known, own, label_smoothing, focal, False)[0]


@custom_op("wordtree::head_loss_backward", mutates_args=())
def _head_loss_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    copy: Tensor | None,
    known: Tensor | None,
    tree: str,
    label_smoothing: float,
    focal: float,
) -> tuple[Tensor, Tensor, Tensor]:
    own = tree_of_hash(tree)
    _, read = linear.head_loss(x, weight, bias, targets, copy, known, own, label_smoothing, focal, True)
    return linear.head_loss_backward(grad, x, weight, bias, read, sparse=False)


@_head_loss.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    copy: Tensor | None,
    known: Tensor | None,
    tree: str,
    label_smoothing: float,
    focal: float,
) -> Tensor:
    return _losses_like(x, targets.numel())


@_head_loss_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    copy: Tensor | None,
    known: Tensor | None,
    tree: str,
    label_smoothing: float,
    focal: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)


def _keep_head(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs[:6])
    ctx.rest = inputs[6:]


_head_loss.register_autograd(
    lambda ctx, grad: (*_head_loss_backward(grad, *ctx.saved_tensors, *ctx.rest), *[None] * 6),
    setup_context=_keep_head,
)


# ---------------------------------------------------------------------- descent


@custom_op("wordtree::descend", mutates_args=())
def _descend(logits: Tensor, tree: str, threshold: float, rule: str, dim: int) -> tuple[Tensor, Tensor]:
    return descend(logits, tree_of_hash(tree), threshold, rule, dim=dim)


@_descend.register_fake
def _(logits: Tensor, tree: str, threshold: float, rule: str, dim: int) -> tuple[Tensor, Tensor]:
    shape = logits.select(dim, 0).shape
    return logits.new_empty(shape, dtype=torch.int64), logits.new_empty(shape, dtype=torch.float64)


@custom_op("wordtree::head_descend", mutates_args=())
def _head_descend(
    x: Tensor, weight: Tensor, bias: Tensor, copy: Tensor | None, tree: str, threshold: float, rule: str
) -> tuple[Tensor, Tensor]:
    return linear.head_descend(x, weight, bias, copy, tree_of_hash(tree), threshold, rule)


@_head_descend.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor, copy: Tensor | None, tree: str, threshold: float, rule: str
) -> tuple[Tensor, Tensor]:
    return x.new_empty(len(x), dtype=torch.int64), x.new_empty(len(x), dtype=torch.float64)
