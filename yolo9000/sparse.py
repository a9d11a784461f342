"""SGD that touches only the rows of a classifier that a step has read; the others catch up when they are read.

A batch meets a few thousand of the 246,342 rows that three anchors over 82,114 nodes have. Dense SGD changes all of
them in every step: momentum runs on, decay pulls. What it does to a row that has no gradient is linear in the row
(p the weight, m its momentum, a its running mean over the steps):

    m' = momentum m + decay p,   p' = p - rate m',   a' = keep a + (1 - keep) p'

so any number of missed steps, at whatever rates, is one 3 x 3 matrix. Each row remembers the step it is at; before it
is read, the product of the steps since then is applied. The weights are then those of dense SGD but for rounding.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from wordtree import WordTreeError
from wordtree.nn import TreeLinear

WINDOW = 2048  # changes of all rows that are kept apart, two a step; then every row is brought up to date
CHUNK = 1024  # rows at a time that are
WEIGHT, MOMENTUM, MEAN = range(3)


def clip_gradients(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """`nn.utils.clip_grad_norm_`, gradients by rows among them, whose norm torch 2.11 does not compute.

    Args:
        parameters: with their gradients, which are made smaller in place.
        most: the largest norm of all together.

    Returns:
        The norm that it was, float [].
    """
    some = list(parameters)
    grads = [one.grad for one in some if one.grad is not None]
    norm = nn.utils.get_total_norm([one.coalesce().values() if one.is_sparse else one for one in grads])
    nn.utils.clip_grads_with_norm_(some, most, norm)
    return norm


class LazyRows:
    """A matrix with its momentum and its running mean, each row of them as of a step of its own.

    Args:
        weight: float [..., features], contiguous; written to, as are the others.
        momentum: like it; None for none.
    """

    def __init__(self, weight: Tensor, momentum: Tensor | None = None) -> None:
        self.parts: dict[int, Tensor] = {WEIGHT: weight}
        if momentum is not None:
            self.parts[MOMENTUM] = momentum
        device = weight.device
        self.count = 0  # changes since every row was up to date
        self.last = torch.zeros(weight[..., 0].numel(), dtype=torch.int64, device=device)  # [rows] how many it has
        self.after = torch.eye(3, dtype=torch.float64, device=device).repeat(WINDOW + 1, 1, 1)  # what those then miss

    @torch.no_grad()
    def read(self, rows: Tensor | None) -> None:
        """Bring rows up to date. int64 [n], each once, of the matrix as [rows, features]; None: all of them."""
        if rows is None:
            self.flush()
        elif self.count:
            rows = rows[self.last[rows] < self.count]
            if len(rows):
                parts = {part: self._table(part).index_select(0, rows) for part in self.parts}
                for part, values in self._caught_up(parts, rows).items():
                    self._table(part).index_copy_(0, rows, values)
                self.last[rows] = self.count

    @torch.no_grad()
    def flush(self) -> None:
        """Bring every row up to date."""
        if not self.count:
            return
        for start in range(0, len(self.last), CHUNK):
            some = slice(start, start + CHUNK)
            now = self._caught_up({part: self._table(part)[some] for part in self.parts}, some)
            for part, values in now.items():
                self._table(part)[some] = values
        self.last.zero_()
        self.count = 0
        self.after[0] = torch.eye(3)

    @torch.no_grad()
    def step(self, grad: Tensor, rate: float, momentum: float, decay: float) -> None:
        """One step of SGD. grad: of the shape of the matrix; where it is sparse, its rows alone are touched."""
        rows, slope = _rows_of(grad)
        self.read(rows)
        weight = self._table(WEIGHT).index_select(0, rows)
        slope = slope.to(weight.dtype).add(weight, alpha=decay)
        change = [[1 - rate * decay, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
        if MOMENTUM in self.parts:
            slope = self._table(MOMENTUM).index_select(0, rows).mul_(momentum).add_(slope)
            self._table(MOMENTUM).index_copy_(0, rows, slope)
            change[:2] = [[1 - rate * decay, -rate * momentum, 0.0], [decay, momentum, 0.0]]
        self._table(WEIGHT).index_copy_(0, rows, weight.add_(slope, alpha=-rate))
        self._happened(change, rows)

    @torch.no_grad()
    def average(self, mean: Tensor, keep: float) -> None:
        """Draw a running mean after the weight: mean <- keep mean + (1 - keep) weight.

        Args:
            mean: float, like the weight, up to date after `flush`; the same tensor in every call.
            keep: from 0 to 1.
        """
        if self.parts.get(MEAN, mean) is not mean:
            self.flush()
        self.parts[MEAN] = mean  # of the changes before, none was its own
        self._happened([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1 - keep, 0.0, keep]])

    def _table(self, part: int) -> Tensor:
        """float [rows, features]. As data: rows that a graph has read since the last step are not written to."""
        whole = self.parts[part].data
        return whole.view(-1, whole.shape[-1])

    def _happened(self, change: list[list[float]], done: Tensor | None = None) -> None:
        """A linear change of every row. done: int64 [n], the rows that have been through it already."""
        matrix = torch.tensor(change, dtype=torch.float64)
        if MEAN not in self.parts and MOMENTUM not in self.parts and change[0][0] == 1.0:
            return  # nothing changes but where there is a gradient
        self.after[: self.count + 1] = matrix.to(self.after.device) @ self.after[: self.count + 1]
        self.count += 1
        self.after[self.count] = torch.eye(3)
        if done is not None:
            self.last[done] = self.count
        if self.count == WINDOW:
            self.flush()

    def _caught_up(self, parts: dict[int, Tensor], rows: Tensor | slice) -> dict[int, Tensor]:
        """The parts of some rows, float [n, features] each, after the changes that they miss."""
        factor = self.after[self.last[rows]].to(parts[WEIGHT].dtype)[..., None]  # [n, into, from, 1]
        now = {into: factor[:, into, WEIGHT] * parts[WEIGHT] for into in parts}
        for into, values in now.items():
            if MOMENTUM in parts:
                values.addcmul_(factor[:, into, MOMENTUM], parts[MOMENTUM])
            if into == MEAN:
                values.addcmul_(factor[:, into, MEAN], parts[MEAN])
        return now


class RowSGD(torch.optim.SGD):
    """SGD of a module in which the weights of tree classifiers are `LazyRows`; all else is torch's own.

    A reading of such a weight by any method of its `TreeLinear`, and its `state_dict`, finds it up to date; before
    anything else reads it, or the momentum, or the mean, call `flush`. `grad` of those weights is sparse.

    Args:
        optimizer: SGD over the module's parameters, before its first step; its groups are taken over.
        module: the module.

    Raises:
        WordTreeError: another optimiser, Nesterov's momentum or dampening, or a module without `TreeLinear`.

    Example:
        >>> from wordtree import WordTree
        >>> head = TreeLinear(8, WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0]))
        >>> optimizer = RowSGD(torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4), head)
        >>> head.loss(torch.randn(2, 8), torch.tensor([0, 1])).backward()
        >>> optimizer.step()
        >>> head.weight.grad.coalesce().indices().tolist()  # copies, nodes
        [[0, 0], [0, 1]]
    """

    def __init__(self, optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
        if not isinstance(optimizer, torch.optim.SGD):
            raise WordTreeError(
                f"row-sparse updates by {type(optimizer).__name__}, in which a row without a gradient does not change "
                "by a rule that is linear in it; give SGD"
            )
        if any(group["nesterov"] or group["dampening"] or group["maximize"] for group in optimizer.param_groups):
            raise WordTreeError("row-sparse updates by SGD with nesterov, dampening or maximize; give SGD without")
        heads = [one for one in module.modules() if isinstance(one, TreeLinear)]
        if not heads:
            raise WordTreeError(
                f"row-sparse updates of {type(module).__name__}, which has no TreeLinear; give one with"
            )
        if (
            torch.distributed.is_available()
            and torch.distributed.is_initialized()
            and torch.distributed.get_world_size() > 1
        ):
            raise WordTreeError(
                f"row-sparse updates in {torch.distributed.get_world_size()} processes, which would read rows of their "
                "own; give sparse_head false, or one process"
            )
        super().__init__(optimizer.param_groups)
        self.rows = {head.weight: LazyRows(head.weight) for head in heads}
        for head in heads:
            head.refresh(None)
            head.sparse, head.before_read = True, self.rows[head.weight].read
        for parameter, group in self._own():
            if group["momentum"]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """As SGD's."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        kept = {}
        for parameter, group in self._own():
            if parameter.grad is None:
                continue
            rows = self.rows[parameter]
            if group["momentum"]:
                rows.parts[MOMENTUM] = self.state[parameter]["momentum_buffer"]
            rows.step(parameter.grad, float(group["lr"]), group["momentum"], group["weight_decay"])
            kept[parameter], parameter.grad = parameter.grad, None
        super().step()
        for parameter, grad in kept.items():
            parameter.grad = grad
        return loss

    def flush(self) -> None:
        """Bring every row up to date: of weights, momentum and running means."""
        for rows in self.rows.values():
            rows.flush()

    def state_dict(self) -> dict[str, Any]:
        """As SGD's."""
        self.flush()
        return super().state_dict()

    def _own(self) -> list[tuple[nn.Parameter, dict[str, Any]]]:
        return [(one, group) for group in self.param_groups for one in group["params"] if one in self.rows]


def _rows_of(grad: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that a gradient has, int64 [n], each once, of the matrix as [rows, features]; float [n, features]."""
    if not grad.is_sparse:
        whole = grad.reshape(-1, grad.shape[-1])
        return torch.arange(len(whole), device=grad.device), whole
    grad = grad.coalesce()
    rows = torch.zeros_like(grad.indices()[0])
    for at, size in zip(grad.indices(), grad.shape, strict=False):  # indices of all dimensions but the last
        rows = rows * size + at
    return rows, grad.values()
