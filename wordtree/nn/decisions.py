"""Decisions: which node to answer, given log Pr of every node.

Every rule takes `log_probs`, float [..., nodes], log Pr(node) as `tree_log_prob` gives it or any other head whose
children sum to their parent, and gives `Decisions`. The root, node -1 with Pr 1, is always a candidate, so there is
always an answer; a node of Pr 0 never is. Of equal answers the lowest node is given, and an only child before its
parent where a rule weighs information, since the two tell the same. Half precision is raised to float32; no gradient is
kept.

Three controls narrow the candidates of every rule; the rule then chooses among those that are left and the root:

- `thresholds`: float [nodes] or [..., nodes], in 0..1: a node is a candidate where its Pr reaches its own threshold.
- `allowed`: bool [nodes] or [..., nodes]: the nodes that may be answered, such as the species of a region. What
  probability the others have is not handed on: it stays with the nodes above them.
- `level`: the deepest depth to answer at, as in `tree.depths`: 0 for the root's children.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import WordTreeError, unknown
from ..tree import ROOT, WordTree
from .softmax import at_least_float32

COSTS = ("distance", "height")
_ROUNDING = 1e-2  # a sum of half-precision probabilities may be off by this much in log


class Decisions(NamedTuple):
    """The answer to each row, or a sequence of answers along the last dimension (`pareto`)."""

    nodes: Tensor  # int64 [...], -1 for the root
    log_probs: Tensor  # float [...], log Pr(node), 0 at the root


@torch.no_grad()
def majority(
    log_probs: Tensor, tree: WordTree, *, thresholds: Any = None, allowed: Any = None, level: int | None = None
) -> Decisions:
    """The most specific node that is likelier than not: Pr(node) > 0.5.

    Such nodes lie on one path, so the answer is its end. Controls and ties: see the module.

    Raises:
        WordTreeError: log_probs that do not fit the tree, hold NaN or are no logarithms of probabilities; controls
            that do not fit.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> log_probs = torch.tensor([0.9, 0.1, 0.6, 0.3]).log()
        >>> int(majority(log_probs, tree).nodes), int(majority(log_probs, tree, level=0).nodes)
        (2, 0)
    """
    values, candidates = _candidates(log_probs, tree, thresholds, allowed, level)
    return _most_specific(values, candidates & (values > math.log(0.5)), tree)


@torch.no_grad()
def most_information(
    log_probs: Tensor,
    tree: WordTree,
    confidence: float,
    *,
    thresholds: Any = None,
    allowed: Any = None,
    level: int | None = None,
) -> Decisions:
    """The node that tells most among those with Pr(node) >= confidence.

    Information is `tree.information`: log2 of all leaves less log2 of the leaves below the node. Of nodes that tell
    the same the likeliest is given (Valmadre, NeurIPS 2022). Controls and errors as `majority`.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> log_probs = torch.tensor([0.9, 0.1, 0.6, 0.3]).log()
        >>> [int(most_information(log_probs, tree, confidence).nodes) for confidence in (0.5, 0.8, 0.95)]
        [2, 0, -1]
    """
    values, candidates = _candidates(log_probs, tree, thresholds, allowed, level)
    return _most_specific(values, candidates & (values >= _log(confidence)), tree)


@torch.no_grad()
def climb(
    log_probs: Tensor,
    tree: WordTree,
    confidence: float,
    *,
    thresholds: Any = None,
    allowed: Any = None,
    level: int | None = None,
) -> Decisions:
    """From the likeliest leaf upwards to the first candidate with Pr(node) >= confidence.

    The answer is always the likeliest leaf or above it (Goren et al., NeurIPS 2024, "climbing"). An inner node that
    keeps something to itself (`Hierarchical`) counts as a leaf with what its children do not share. Controls and errors
    as `majority`; the node that the climb starts from need not be a candidate itself.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> log_probs = torch.tensor([0.6, 0.4, 0.3, 0.3]).log()
        >>> climb(log_probs, tree, 0.35).nodes, climb(log_probs, tree, 0.5).nodes  # plant is the likeliest leaf
        (tensor(1), tensor(-1))
    """
    values, candidates = _candidates(log_probs, tree, thresholds, allowed, level)
    passed = candidates & (values >= _log(confidence))
    tables = _tables(tree, values.device)
    column = _own(values, tables)[..., 1:].argmax(-1) + 1  # [...]
    for _ in range(int(tree.depths.max()) + 1):
        column = torch.where(_at(passed, column), column, tables.parent_columns[column])
    return Decisions(column - 1, _at(values, column))


@torch.no_grad()
def expected_cost(
    log_probs: Tensor,
    tree: WordTree,
    cost: str = "distance",
    *,
    thresholds: Any = None,
    allowed: Any = None,
    level: int | None = None,
) -> Decisions:
    """The node of least expected cost: argmin over nodes of the sum over leaves of Pr(leaf) x D(leaf, node).

    Conditional risk minimisation (Karthik et al., ICLR 2021), over all nodes rather than leaves alone. What an inner
    node or the root keeps to itself (`Hierarchical`) counts there, as a leaf's does. A cost is a sum of terms down the
    node's path, each read off that step's Pr, so a row takes O(nodes) and no matrix of leaves by leaves is made.
    Controls and errors as `majority`.

    Args:
        cost: D. "distance": edges between leaf and node; unless controlled its answer is the majority's. "height": the
            height of their lowest common ancestor (edges down to its deepest leaf), which a deeper node never raises,
            so it answers as far down as there is any Pr unless controlled: the leaf whose mistakes are mildest.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> log_probs = torch.tensor([0.6, 0.4, 0.3, 0.3]).log()
        >>> int(expected_cost(log_probs, tree).nodes), int(expected_cost(log_probs, tree, "height").nodes)
        (0, 2)
    """
    if cost not in COSTS:
        raise unknown("cost", cost, COSTS)
    values, candidates = _candidates(log_probs, tree, thresholds, allowed, level)
    tables = _tables(tree, values.device)
    mass = values[..., 1:].reshape(-1, len(tree)).T.exp()  # [nodes, rows]
    # What each step down adds to the expected cost, relative to the root's.
    if cost == "distance":  # one edge more to what is elsewhere, one less to what is at the node or below
        step = 1 - 2 * mass
    else:  # the common ancestor with what is at the node or below comes down to this node
        step = -tables.drop.to(mass.dtype)[:, None] * mass
    for at, above in tables.levels[1:]:
        step.index_add_(0, at, step[above])
    costs = functional.pad(step.T, (1, 0)).reshape(values.shape)  # 0 at the root
    return _take(values, _choose(candidates, -costs))


@torch.no_grad()
def hedge(
    log_probs: Tensor,
    tree: WordTree,
    weight: float,
    *,
    thresholds: Any = None,
    allowed: Any = None,
    level: int | None = None,
) -> Decisions:
    """argmax over nodes of (information + weight) x Pr(node): Deng et al., "Hedging your bets", CVPR 2012.

    Args:
        weight: lambda, 0 or more, in bits: the larger, the safer and the vaguer; `hedge_weight` finds the one that
            reaches an accuracy on held-out data.

    Controls and errors as `majority`.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> log_probs = torch.tensor([0.9, 0.1, 0.6, 0.3]).log()
        >>> [int(hedge(log_probs, tree, weight).nodes) for weight in (0.0, 2.0, 9.0)]
        [2, 0, -1]
    """
    if not 0.0 <= weight < math.inf:
        raise WordTreeError(f"a hedge weight of {weight}; it is a number of bits, 0 or more")
    values, candidates = _candidates(log_probs, tree, thresholds, allowed, level)
    tables = _tables(tree, values.device)
    gain = _hedged(_information(tables, values.dtype), values, weight)
    return _take(values, _choose(candidates, gain, tables.depths))


@torch.no_grad()
def hedge_weight(
    log_probs: Tensor,
    targets: Tensor,
    tree: WordTree,
    accuracy: float,
    *,
    thresholds: Any = None,
    allowed: Any = None,
    level: int | None = None,
) -> float:
    """The weight with which `hedge` reaches an accuracy on held-out data, by bisection (DARTS).

    An answer is correct where it is the target or above it. Below a target that is no leaf nothing is known: such an
    answer counts as correct. Accuracy rises with the weight where the probabilities are calibrated; where it does not
    throughout, the weight is one at which it crosses the wanted accuracy.

    Args:
        log_probs: float [..., nodes], of data that the network was not trained on.
        targets: int64 [...], nodes; rows with -1 are left out.
        accuracy: the share of correct answers wanted, 0 to 1.

    Returns:
        the weight, 0.0 where the wanted accuracy is had without one, to a relative 1e-6.

    Raises:
        WordTreeError: as `majority`; no row with a target; or wrong answers of Pr 1, which no weight takes back.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> log_probs = torch.tensor([[0.9, 0.1, 0.6, 0.3], [0.9, 0.1, 0.5, 0.4]]).log()
        >>> weight = hedge_weight(log_probs, torch.tensor([2, 3]), tree, accuracy=1.0)
        >>> round(weight, 3), hedge(log_probs, tree, weight).nodes
        (0.665, tensor([2, 0]))
    """
    if not 0.0 <= accuracy <= 1.0:
        raise WordTreeError(f"an accuracy of {accuracy}; it is a share, 0 to 1")
    if targets.shape != log_probs.shape[:-1]:
        raise WordTreeError(
            f"targets of shape {tuple(targets.shape)} for log_probs of {tuple(log_probs.shape)}; give one a row"
        )
    if targets.numel() and targets.max() >= len(tree):
        raise WordTreeError(
            f"targets up to {targets.max()}; {tree} has nodes 0 to {len(tree) - 1}, -1 leaves a row out"
        )
    wanted = (targets >= 0).to(log_probs.device)
    if not wanted.any():
        raise WordTreeError(f"no target among {wanted.numel()} rows; a weight is found on rows whose target is a node")
    # What hedges best is on the pareto sequence, whatever the weight.
    found = pareto(log_probs, tree, thresholds=thresholds, allowed=allowed, level=level)
    nodes, values = found.nodes[wanted], found.log_probs[wanted]  # [rows, steps]
    tables = _tables(tree, values.device)
    information, depths = _information(tables, values.dtype)[nodes + 1], tables.depths[nodes + 1]
    target, answer = targets.cpu()[wanted.cpu()].numpy()[:, None], nodes.cpu().numpy()
    related = (
        (answer == ROOT) | (answer == target) | tree.is_ancestor(answer, target) | tree.is_ancestor(target, answer)
    )
    correct = torch.as_tensor(related, device=values.device)

    def reached(weight: float) -> bool:
        place = _choose(torch.ones_like(correct), _hedged(information, values, weight), depths)
        return float(_at(correct, place).double().mean()) >= accuracy

    if reached(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while not reached(high):
        low, high = high, 2 * high
        if high > 2.0**40:
            raise WordTreeError(
                f"no weight reaches an accuracy of {accuracy} on {len(values)} rows: some are wrong with Pr 1; "
                f"soften the probabilities, such as tree_log_prob(logits / 2, tree), or ask for less"
            )
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


@torch.no_grad()
def pareto(
    log_probs: Tensor, tree: WordTree, *, thresholds: Any = None, allowed: Any = None, level: int | None = None
) -> Decisions:
    """Every answer that `most_information` gives as the confidence falls from 1 to just above 0, in one pass.

    These are the nodes that no other beats in both information and Pr; the answer at a confidence is the last one with
    Pr >= confidence. Controls and errors as `majority`.

    Returns:
        nodes int64 [..., steps] and log_probs float [..., steps], Pr falling and information rising along the last
        dimension; rows with fewer steps than the longest repeat their last.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> pareto(torch.tensor([[0.9, 0.1, 0.6, 0.3], [0.4, 0.6, 0.3, 0.1]]).log(), tree).nodes
        tensor([[-1,  0,  2],
                [-1,  1,  1]])
    """
    values, candidates = _candidates(log_probs, tree, thresholds, allowed, level)
    tables = _tables(tree, values.device)
    values = torch.where(candidates, values, -torch.inf).index_select(-1, tables.by_information)
    bits = tables.bits.expand_as(values)  # which step of information each column is
    # The best column at each step, the deepest and lowest of equals: [..., bits]
    best = values.new_full((*values.shape[:-1], tables.steps), -torch.inf).scatter_reduce(-1, bits, values, "amax")
    place = torch.arange(values.shape[-1], device=values.device)
    place = torch.where(values == best.gather(-1, bits), place, values.shape[-1])
    first = torch.full(best.shape, values.shape[-1], device=values.device).scatter_reduce(-1, bits, place, "amin")
    nodes = tables.by_information[first] - 1
    from_here = best.flip(-1).cummax(-1).values.flip(-1)
    kept = best > functional.pad(from_here[..., 1:], (0, 1), value=-torch.inf)  # nothing that tells more is as likely
    steps = kept.sum(-1, keepdim=True)  # [..., 1]
    longest = int(steps.max()) if steps.numel() else 1
    order = (~kept).to(torch.uint8).argsort(stable=True)  # the steps kept, then the others
    order = order.gather(-1, torch.arange(longest, device=order.device).minimum(steps - 1))
    return Decisions(nodes.gather(-1, order), best.gather(-1, order))


class Reason(NamedTuple):
    """Why a row was answered as it was; `str` reads it out."""

    node: int  # the answer, -1 for the root
    name: str
    prob: float
    path: tuple[tuple[str, float], ...]  # name and Pr of each node from the root child down to the answer
    next_node: int | None  # its likeliest child, None for a leaf
    next_name: str
    next_prob: float
    limit: float  # what the child had to reach
    cause: (
        str  # "leaf", "below" the limit, "level", "not allowed", or "preferred" by the rule though the child would do
    )

    def __str__(self) -> str:
        stopped = f"stopped at {self.name} ({self.prob:.3g}): "
        if self.next_node is None:
            return stopped + "nothing is below it"
        below = f"is {'below' if self.next_prob < self.limit else 'not above'} {self.limit:.3g}"
        told = {
            "below": below,
            "level": "is deeper than asked",
            "not allowed": "is not allowed",
            "preferred": f"would do, but the rule prefers {self.name}",
        }
        return f"{stopped}next best {self.next_name} {self.next_prob:.3g} {told[self.cause]}"


@torch.no_grad()
def why(
    log_probs: Tensor,
    tree: WordTree,
    nodes: Tensor | Sequence[int] | int,
    confidence: float = 0.5,
    *,
    thresholds: Any = None,
    allowed: Any = None,
    level: int | None = None,
) -> list[Reason]:
    """Why each row stopped where it did: what its likeliest child lacked.

    For people to read, a few rows at a time. Give it what the rule was given.

    Args:
        log_probs: float [..., nodes].
        nodes: int64 [...], the answers.
        confidence: what the rule asked of every node; 0.0 for `hedge` and `expected_cost`, which ask nothing.

    Returns:
        one `Reason` a row, rows in order.

    Raises:
        WordTreeError: as `majority`; nodes that do not fit the rows or the tree.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> log_probs = torch.tensor([0.9, 0.1, 0.46, 0.44]).log()
        >>> for reason in why(log_probs, tree, majority(log_probs, tree).nodes):
        ...     print(reason)
        stopped at animal (0.9): next best dog 0.46 is below 0.5
    """
    values, _ = _candidates(log_probs, tree, thresholds, allowed, level)
    answers = torch.as_tensor(nodes, device="cpu")
    if answers.shape != log_probs.shape[:-1]:
        raise WordTreeError(
            f"nodes of shape {tuple(answers.shape)} for log_probs of {tuple(log_probs.shape)}; give one a row"
        )
    if answers.numel() and not (answers >= ROOT).logical_and(answers < len(tree)).all():
        raise WordTreeError(
            f"nodes from {answers.min()} to {answers.max()}; {tree} has 0 to {len(tree) - 1}, -1 the root"
        )
    asked = torch.full((len(tree),), confidence, dtype=torch.float64)
    if thresholds is not None:
        asked = asked.maximum(_control("thresholds", thresholds, torch.float64, log_probs).cpu())
    may = torch.ones(len(tree), dtype=torch.bool)
    if allowed is not None:
        may = _control("allowed", allowed, torch.bool, log_probs).cpu()
    by_row = [
        table.expand(log_probs.shape).reshape(-1, len(tree)) for table in (values[..., 1:].exp().cpu(), asked, may)
    ]
    return [
        _reason(tree, int(node), prob, limit, may, level)
        for node, prob, limit, may in zip(answers.reshape(-1), *by_row, strict=True)
    ]


def _reason(tree: WordTree, node: int, prob: Tensor, limit: Tensor, may: Tensor, level: int | None) -> Reason:
    """The reason of one row. prob, limit: float [nodes]; may: bool [nodes]."""
    path = tuple((tree.names[step], float(prob[step])) for step in tree.path(node))
    name, own = path[-1] if path else (tree.root_name, 1.0)
    children = tree.children(node)
    if not children:
        return Reason(node, name, own, path, None, "", math.nan, math.nan, "leaf")
    child = max(children, key=lambda one: float(prob[one]))  # the lowest of equals
    if prob[child] < limit[child]:
        cause = "below"
    elif level is not None and tree.depths[child] > level:
        cause = "level"
    elif not may[child]:
        cause = "not allowed"
    else:  # majority asks for more than its limit
        cause = "below" if prob[child] == limit[child] else "preferred"
    return Reason(node, name, own, path, child, tree.names[child], float(prob[child]), float(limit[child]), cause)


# ---------------------------------------------------------------------- shared by the rules


class _Tables(NamedTuple):
    """One tree on one device. A column is a node plus one: column 0 is the root."""

    leaves_below: Tensor  # int32 [1 + nodes]
    depths: Tensor  # int32 [1 + nodes], -1 for the root
    parent_columns: Tensor  # int64 [1 + nodes], the root its own
    drop: Tensor  # int64 [nodes], the height of the parent less one's own
    levels: list[tuple[Tensor, Tensor]]  # by depth: its nodes and their parents, int64
    by_information: Tensor  # int64 [1 + nodes], columns from the least information up; of equals the deepest first
    bits: Tensor  # int64 [1 + nodes], which of the steps of information each of those is
    steps: int


@lru_cache(maxsize=32)
def _tables(tree: WordTree, device: torch.device) -> _Tables:
    leaves_below = np.append(len(tree.leaves), tree.leaves_below)
    depths = np.append(-1, tree.depths)
    heights = np.append(tree.heights, tree.heights.max() + 1)  # the root's last, where parent -1 finds it
    order = np.lexsort((np.arange(len(depths)), -depths, -leaves_below))
    counts, bits = np.unique(-leaves_below[order], return_inverse=True)

    def put(table: Any, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.as_tensor(np.array(table), dtype=dtype, device=device)

    by_depth = [np.flatnonzero(tree.depths == depth) for depth in range(int(tree.depths.max()) + 1)]
    return _Tables(
        put(leaves_below, torch.int32),
        put(depths, torch.int32),
        put(np.append(0, tree.parents + 1)),
        put(heights[tree.parents] - tree.heights),
        [(put(nodes), put(tree.parents[nodes])) for nodes in by_depth],
        put(order),
        put(bits),
        len(counts),
    )


def _candidates(
    log_probs: Tensor, tree: WordTree, thresholds: Any, allowed: Any, level: int | None
) -> tuple[Tensor, Tensor]:
    """log Pr and which columns may be answered: float and bool [..., 1 + nodes], the root first and always open."""
    if log_probs.shape[-1:] != (len(tree),) or not log_probs.is_floating_point():
        raise WordTreeError(
            f"log_probs of {log_probs.dtype} and shape {tuple(log_probs.shape)}; {tree} takes floats [..., {len(tree)}]"
        )
    if log_probs.numel() and not log_probs.max() <= _ROUNDING:  # NaN is not below anything
        raise WordTreeError(
            f"log_probs up to {float(log_probs.max()):.4g}; a logarithm of a probability is at most 0 and never NaN: "
            f"give what tree_log_prob(logits, tree) gives"
        )
    values = at_least_float32(log_probs).clamp(max=0)
    candidates = values > -torch.inf
    if thresholds is not None:
        limits = _control("thresholds", thresholds, torch.float64, log_probs)
        if not ((limits >= 0) & (limits <= 1)).all():
            raise WordTreeError(
                f"thresholds from {float(limits.min()):.4g} to {float(limits.max()):.4g}; each is a probability, 0 to 1"
            )
        candidates = candidates & (values >= limits.log().to(values.dtype))
    if allowed is not None:
        candidates = candidates & _control("allowed", allowed, torch.bool, log_probs)
    if level is not None:
        if level < 0:
            raise WordTreeError(
                f"a level of {level}; the root's children are at depth 0, and the root is always a candidate"
            )
        candidates = candidates & (_tables(tree, values.device).depths[1:] <= level)
    return functional.pad(values, (1, 0)), functional.pad(candidates, (1, 0), value=True)


def _control(name: str, given: Any, dtype: torch.dtype, log_probs: Tensor) -> Tensor:
    """A control as a tensor that broadcasts to log_probs without making it larger."""
    control = torch.as_tensor(given, device=log_probs.device)
    shape, rows = control.shape, log_probs.shape
    fits = shape[-1:] == rows[-1:] and len(shape) <= len(rows)
    if not fits or any(mine not in (1, theirs) for mine, theirs in zip(shape[::-1], rows[::-1], strict=False)):
        raise WordTreeError(
            f"{name} of shape {tuple(shape)} for log_probs of {tuple(rows)}; "
            f"give one a node, [{rows[-1]}], or rows of them"
        )
    if (control.dtype == torch.bool) != (dtype == torch.bool):
        raise WordTreeError(
            f"{name} of {control.dtype}; give {'true or false' if dtype == torch.bool else 'a number'} a node"
        )
    return control.to(dtype)


def _log(confidence: float) -> float:
    if not 0.0 <= confidence <= 1.0:
        raise WordTreeError(f"a confidence of {confidence}; it is a probability, 0 to 1")
    return math.log(confidence) if confidence > 0 else -math.inf


def _information(tables: _Tables, dtype: torch.dtype) -> Tensor:
    """float [1 + nodes]: `tree.information`, 0 at the root."""
    leaves = tables.leaves_below.to(dtype).log2()
    return leaves[0] - leaves


def _hedged(information: Tensor, values: Tensor, weight: float) -> Tensor:
    """(information + weight) x Pr, less the weight: the same order, and exact near Pr 1 whatever the weight."""
    return information * values.exp() + weight * values.expm1()


def _own(values: Tensor, tables: _Tables) -> Tensor:
    """float [..., 1 + nodes]: log of what each has to itself, Pr less its children's; -inf where that is rounding."""
    probs = values.exp()
    below = torch.zeros_like(probs).index_add_(-1, tables.parent_columns[1:], probs[..., 1:])
    share = 1 - below / probs  # 1 for a leaf, so that leaves are compared as they were given
    return torch.where(share > _ROUNDING, values + share.log(), -torch.inf)


def _most_specific(values: Tensor, candidates: Tensor, tree: WordTree) -> Decisions:
    tables = _tables(tree, values.device)
    return _take(values, _choose(candidates, -tables.leaves_below, values, tables.depths))


def _choose(candidates: Tensor, *keys: Tensor) -> Tensor:
    """int64 [...]: the candidate column whose keys are largest, compared in turn; the first of equals."""
    for key in keys:
        lowest = -torch.inf if key.is_floating_point() else torch.iinfo(key.dtype).min
        held = torch.where(candidates, key, lowest)
        candidates = candidates & (held == held.amax(-1, keepdim=True))
    return candidates.to(torch.uint8).argmax(-1)


def _at(table: Tensor, column: Tensor) -> Tensor:
    return table.gather(-1, column[..., None])[..., 0]


def _take(values: Tensor, column: Tensor) -> Decisions:
    return Decisions(column - 1, _at(values, column))
