"""Hierarchical scores on plain arrays: how right, how specific and how honest answers on a tree are.

Answers and truths are int arrays of nodes, -1 for the root: "nothing on the tree", or "no idea".

A truth may stand above the leaves: "dog", breed not said. What is right below it is then unknown, so with
`partial=True`, the default, an answer below its truth is scored as if it had stopped at the truth, and rows whose truth
is the root, which say nothing, are left out. With `partial=False` a truth is all there is to say: an answer below it
says too much, and a truth at the root means that nothing on the tree is right. Published hierarchical precision is of
the second kind; where all truths are leaves the two are one.

What cannot be said, such as the precision of no answer, is NaN.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import WordTreeError
from .tree import WordTree, checked_nodes


class Scores(NamedTuple):
    """Means over rows, but for precision, recall and f1, which are sums over sums. See `hierarchical_scores`."""

    rows: int  # how many rows were scored
    exact: float  # share of answers that are their truth
    correct: float  # share of answers that are their truth or above it; the root is always correct
    precision: float  # of all nodes on the answers' paths, the share that is on the truths'
    recall: float  # of all nodes on the truths' paths, the share that is on the answers'
    f1: float  # harmonic mean of the two
    lca_height: float  # edges that the common ancestor stands above the truth's own height, over all rows
    mistake_height: float  # the same over the answers that are not correct: how bad a mistake is
    distance: float  # edges between answer and truth: depth_excess + depth_shortfall
    depth_excess: float  # levels of the answer that are wrong
    depth_shortfall: float  # levels of the truth that the answer does not have
    information_excess: float  # the same two in bits
    information_shortfall: float
    accuracy_at_depth: NDArray[np.float64]  # [depths] of truths at least so deep, the share whose answer is right there


def hierarchical_scores(nodes: ArrayLike, truths: ArrayLike, tree: WordTree, *, partial: bool = True) -> Scores:
    """All scores of one answer a row.

    Precision, recall and F1 are Kiritchenko's (2006), micro: with each node stand those above it, the root left out,
    and counts are summed over rows. The height of the common ancestor is Bertinetto's "hierarchical distance of a
    mistake" (CVPR 2020); for a truth that is no leaf its own height is taken off, so that an exact answer costs
    nothing. Information is `tree.information`.

    Args:
        nodes: int [rows], the answers.
        truths: int [rows].
        partial: what truths above the leaves mean, see the module.

    Raises:
        WordTreeError: arrays of different length, or nodes that are not on the tree.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> found = hierarchical_scores([2, 3, 0, 1], [2, 2, 2, 2], tree)  # right, nearly, vague, wrong
        >>> found.exact, found.correct, found.precision, found.recall, found.mistake_height
        (0.25, 0.5, 0.6666666666666666, 0.5, 1.5)
        >>> found.accuracy_at_depth.tolist()
        [0.75, 0.25]
    """
    answer, truth, kept = _scored(nodes, truths, tree, partial)
    if answer.ndim != 1:
        raise WordTreeError(f"nodes of shape {answer.shape}; give [rows], one answer a row")
    answer, truth = answer[kept], truth[kept]
    both = tree.common(answer, truth)
    steps = np.append(tree.depths + 1, 0)  # nodes on the path; the root's is last, at -1
    heights = np.append(tree.heights, tree.heights.max() + 1)
    bits = np.append(tree.information, 0.0)
    height = heights[both] - heights[truth]
    right = both == answer
    return Scores(
        rows=len(answer),
        exact=_share((answer == truth).sum(), len(answer)),
        correct=_share(right.sum(), len(answer)),
        precision=_share(steps[both].sum(), steps[answer].sum()),
        recall=_share(steps[both].sum(), steps[truth].sum()),
        f1=_share(2 * steps[both].sum(), steps[answer].sum() + steps[truth].sum()),
        lca_height=_share(height.sum(), len(answer)),
        mistake_height=_share(height[~right].sum(), (~right).sum()),
        distance=_share((steps[answer] + steps[truth] - 2 * steps[both]).sum(), len(answer)),
        depth_excess=_share((steps[answer] - steps[both]).sum(), len(answer)),
        depth_shortfall=_share((steps[truth] - steps[both]).sum(), len(answer)),
        information_excess=_share((bits[answer] - bits[both]).sum(), len(answer)),
        information_shortfall=_share((bits[truth] - bits[both]).sum(), len(answer)),
        accuracy_at_depth=_shares(_at_least(steps[both], tree), _at_least(steps[truth], tree)),
    )


RELATIONS = ("exact", "ancestor", "descendant", "sibling", "cousin", "unrelated", "unnamed")


class Relations(NamedTuple):
    """How each answer stands to its truth; each array is int64 [rows]. See `relations`."""

    kind: NDArray[np.int64]  # index into RELATIONS
    up: NDArray[np.int64]  # steps from the truth up to the common node
    down: NDArray[np.int64]  # steps from there down to the answer
    common: NDArray[np.int64]  # the deepest node that is both or above both; -1 where only the root is


def relations(nodes: ArrayLike, truths: ArrayLike, tree: WordTree) -> Relations:
    """How answers stand to truths: where a confusion happens on the tree.

    "exact"; "ancestor", the answer stands above the truth by `up` steps; "descendant", below it by `down` steps;
    "sibling", they share a parent; "cousin", they meet in a node further up; "unrelated", they meet in the root alone,
    and so do two children of the root; "unnamed", the answer is the root.

    Args:
        nodes: int [rows], the answers; -1 for the root.
        truths: int [rows], nodes; the root is no truth.

    Raises:
        WordTreeError: arrays of different shape, nodes not on the tree, a truth at the root.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat", "pug"], [-1, -1, 0, 0, 2])
        >>> found = relations([4, 0, 2, 3, 1, -1], [4, 4, 4, 2, 4, 4], tree)
        >>> [RELATIONS[kind] for kind in found.kind]
        ['exact', 'ancestor', 'ancestor', 'sibling', 'unrelated', 'unnamed']
        >>> found.up.tolist(), found.down.tolist()
        ([0, 2, 1, 1, 3, 3], [0, 0, 0, 1, 1, 0])
    """
    answer, truth = checked_nodes(tree, nodes), checked_nodes(tree, truths, "truths")
    if answer.shape != truth.shape or truth.ndim != 1 or (truth < 0).any():
        raise WordTreeError(
            f"truths of shape {truth.shape} for nodes of {answer.shape}, {int((truth < 0).sum())} truths at the root; "
            "give both as [rows], and truths that are nodes"
        )
    both = tree.common(answer, truth)
    steps = np.append(tree.depths + 1, 0)  # of a path; the root's is last, at -1
    up, down = steps[truth] - steps[both], steps[answer] - steps[both]
    order = (answer < 0, (up == 0) & (down == 0), down == 0, up == 0, both < 0, (up == 1) & (down == 1))
    names = ("unnamed", "exact", "ancestor", "descendant", "unrelated", "sibling")
    kind = np.select(order, [RELATIONS.index(name) for name in names], RELATIONS.index("cousin"))
    return Relations(kind.astype(np.int64), up, down, both)


# ---------------------------------------------------------------------- curves


class Curve(NamedTuple):
    """How answers change as a threshold falls; each array is float64 [points], the first point answers the root."""

    threshold: NDArray[np.float64]  # falling; inf, then each score at which an answer changes
    correct: NDArray[np.float64]  # share of answers that are their truth or above it
    recall: NDArray[np.float64]  # hierarchical recall
    information: NDArray[np.float64]  # of the bits in the truths, the share that the answers give
    coverage: NDArray[np.float64]  # of the bits in a leaf, the mean share that an answer claims, right or wrong

    @property
    def area(self) -> float:
        """Area under the best `correct` that is to be had at a recall or above it; 0 where no recall reaches."""
        order = np.argsort(self.recall, kind="stable")
        best = np.maximum.accumulate(self.correct[order][::-1])[::-1]
        return float((np.diff(self.recall[order], prepend=0.0) * best).sum())

    @property
    def risk_area(self) -> float:
        """hAURC (Goren et al., NeurIPS 2024): area under 1 - correct over coverage, by trapezoids; less is better."""
        order = np.argsort(self.coverage, kind="stable")
        coverage, risk = self.coverage[order], 1 - self.correct[order]
        return float((np.diff(coverage) * (risk[1:] + risk[:-1]) / 2).sum())


def operating_curve(
    nodes: ArrayLike, scores: ArrayLike, truths: ArrayLike, tree: WordTree, *, partial: bool = True
) -> Curve:
    """What a falling threshold buys: recall, information and coverage against the share of correct answers.

    At a threshold a row's answer is its last node whose score reaches it, the root where none does (Valmadre,
    NeurIPS 2022). All thresholds are computed in one pass.

    Args:
        nodes: int [rows, steps], each row's answers from vague to specific, as `wordtree.nn.pareto` gives them; or
            int [rows], one answer a row.
        scores: float, of the same shape, falling along a row: probabilities or their logarithms. Short rows repeat
            their last step, or are filled with scores of -inf, which no threshold reaches.
        truths: int [rows].
        partial: what truths above the leaves mean, see the module.

    Raises:
        WordTreeError: shapes that do not fit, nodes not on the tree, scores that are NaN or rise along a row.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> curve = operating_curve([[-1, 0, 2], [-1, 0, 3]], [[1, 0.9, 0.6], [1, 0.9, 0.5]], [2, 2], tree)
        >>> curve.threshold.tolist(), curve.correct.tolist(), curve.recall.tolist()
        ([inf, 1.0, 0.9, 0.6, 0.5], [1.0, 1.0, 1.0, 1.0, 0.5], [0.0, 0.0, 0.5, 0.75, 0.75])
        >>> curve.area, round(curve.risk_area, 3)
        (0.75, 0.079)
    """
    given, score = checked_nodes(tree, nodes), np.asarray(scores, dtype=np.float64)
    if given.shape != score.shape or given.ndim not in (1, 2):
        raise WordTreeError(
            f"nodes of shape {given.shape} with scores of {score.shape}; give both as [rows] or as [rows, steps]"
        )
    if given.ndim == 1:
        given, score = given[:, None], score[:, None]
    if np.isnan(score).any() or (score[:, 1:] > score[:, :-1]).any():
        raise WordTreeError("scores that are NaN or rise along a row; give each row's answers from the surest on")
    answer, truth, kept = _scored(given, truths, tree, partial)
    claimed, answer, truth, score = given[kept], answer[kept], truth[kept], score[kept]
    steps, bits = np.append(tree.depths + 1, 0), np.append(tree.information, 0.0)
    both = tree.common(answer, truth[:, None])
    told = score > -np.inf
    order = np.argsort(-score[told], kind="stable")
    last = np.flatnonzero(np.diff(score[told][order], append=-np.inf))  # the last change at each distinct score

    def total(of_step: NDArray[np.float64], at_root: float) -> NDArray[np.float64]:
        """Summed over rows at each threshold: the root's to begin with, then each step's change."""
        change = np.diff(of_step, axis=1, prepend=at_root)[told][order]
        return at_root * len(answer) + np.append(0.0, change.cumsum()[last])

    everything = np.log2(len(tree.leaves))
    return Curve(
        threshold=np.append(np.inf, score[told][order][last]),
        correct=_shares(total((both == answer).astype(float), 1.0), len(answer)),
        recall=_shares(total(steps[both].astype(float), 0.0), steps[truth].sum()),
        information=_shares(total(bits[both], 0.0), bits[truth].sum()),
        coverage=_shares(total(bits[claimed], 0.0), everything * len(answer)),
    )


# ---------------------------------------------------------------------- calibration


class Calibration(NamedTuple):
    """How honest the likeliest node at each depth is; each array has one entry a depth, NaN where there is no row."""

    error: NDArray[np.float64]  # expected calibration error, 0..1
    confidence: NDArray[np.float64]  # mean Pr of the likeliest node; above accuracy: too sure
    accuracy: NDArray[np.float64]  # share of rows where it is the truth or above it
    rows: NDArray[np.int64]


def calibration(probs: ArrayLike, truths: ArrayLike, tree: WordTree, bins: int = 15) -> Calibration:
    """Expected calibration error at each depth (Guo et al., ICML 2017, a depth at a time).

    At a depth, a row's confidence is that of the likeliest node there, and it is right where that node is on the
    truth's path. A row counts at the depths down to its truth; a truth that is a leaf counts below it too, where every
    node is known to be wrong. Below a truth that is no leaf nothing is known, and the row is left out; where that
    befalls some classes more than others, what is left is no fair draw, and the error there is no longer to be trusted.

    Args:
        probs: float [rows, nodes], Pr(node), such as `tree_log_prob(logits, tree).exp()`.
        truths: int [rows], nodes; rows with -1 are left out.
        bins: how many bins of equal width confidence is sorted into.

    Raises:
        WordTreeError: shapes that do not fit, truths not on the tree, probs outside 0..1.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> probs = np.array([[0.9, 0.1, 0.6, 0.3]] * 2)
        >>> found = calibration(probs, [2, 3], tree)  # animal is right twice, dog once
        >>> found.error.round(2).tolist(), found.accuracy.tolist(), found.rows.tolist()
        ([0.1, 0.1], [1.0, 0.5], [2, 2])
    """
    prob, truth = np.asarray(probs, dtype=np.float64), checked_nodes(tree, truths, "truths")
    if prob.shape != (*truth.shape, len(tree)) or truth.ndim != 1:
        raise WordTreeError(
            f"probs of shape {prob.shape} for truths of {truth.shape}; give [rows, {len(tree)}] and [rows]"
        )
    if not ((prob >= 0) & (prob <= 1 + 1e-3)).all():
        raise WordTreeError(
            f"probs from {prob.min():.4g} to {prob.max():.4g}; give probabilities, 0 to 1, such as log_probs.exp()"
        )
    if bins < 1:
        raise WordTreeError(f"{bins} bins of confidence; give at least one")
    depths, leaf = np.append(tree.depths, -1), np.append(tree.group_below < 0, False)
    count = int(tree.depths.max()) + 1
    error, confidence, accuracy = np.full((3, count), np.nan)
    rows = np.zeros(count, dtype=np.int64)
    for depth in range(count):
        counts = np.flatnonzero((depths[truth] >= depth) | leaf[truth])
        rows[depth] = len(counts)
        if not len(counts):
            continue
        at_depth = np.flatnonzero(tree.depths == depth)
        place = prob[np.ix_(counts, at_depth)].argmax(1)
        sure = prob[counts, at_depth[place]]
        right = tree.common(at_depth[place], truth[counts]) == at_depth[place]
        bin_ = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
        error[depth] = np.abs(np.bincount(bin_, sure - right)).sum() / len(counts)
        confidence[depth], accuracy[depth] = sure.mean(), right.mean()
    return Calibration(error, confidence, accuracy, rows)


# ---------------------------------------------------------------------- detection


class Expanded(NamedTuple):
    """Detections or truths and their ancestors: `nodes[i]` stands for row `rows[i]` of what was given."""

    rows: NDArray[np.int64]  # ascending
    nodes: NDArray[np.int64]


def expand_detections(nodes: ArrayLike, tree: WordTree, evaluated: ArrayLike | None = None) -> Expanded:
    """Each detection, or each truth, once for its node and once for every node above it, as Open Images evaluates.

    Expand detections and truths alike, then compute AP of each node as ever: a dog found as "animal" is found, and a
    dog found as "dog" counts for both. Two boxes on one object, named "dog" and "animal", become two for "animal", of
    which one is false, as in the Open Images evaluator: suppress relatives first.

    Args:
        nodes: int [rows]; the root, -1, is no detection of anything and gives no row.
        evaluated: bool [nodes]: the classes that are evaluated; all of them where left out.

    Raises:
        WordTreeError: nodes not on the tree, or `evaluated` that is not one flag a node.

    Example:
        >>> tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
        >>> scores = np.array([0.9, 0.8])
        >>> rows, nodes = expand_detections([2, 1], tree)
        >>> nodes.tolist(), scores[rows].tolist()  # boxes[rows] and image_ids[rows] go the same way
        ([2, 0, 1], [0.9, 0.9, 0.8])
    """
    at = checked_nodes(tree, nodes)
    keep = np.ones(len(tree), dtype=bool) if evaluated is None else np.asarray(evaluated)
    if at.ndim != 1 or keep.shape != (len(tree),) or keep.dtype != bool:
        raise WordTreeError(
            f"nodes of shape {at.shape} and evaluated, {keep.dtype} of {keep.shape}; "
            f"give int [rows] and bool [{len(tree)}]"
        )
    row = np.arange(len(at))
    found_rows, found_nodes = [], []
    while (inside := at >= 0).any():  # one level up at a time
        row, at = row[inside], at[inside]
        found_rows.append(row[keep[at]])
        found_nodes.append(at[keep[at]])
        at = tree.parents[at]
    rows = np.concatenate([np.zeros(0, np.int64), *found_rows])
    order = np.argsort(rows, kind="stable")
    return Expanded(rows[order], np.concatenate([np.zeros(0, np.int64), *found_nodes])[order])


# ---------------------------------------------------------------------- shared


def _scored(
    nodes: ArrayLike, truths: ArrayLike, tree: WordTree, partial: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Answers as they are scored, truths, and bool [rows]: which rows are scored. See the module on `partial`."""
    answer, truth = checked_nodes(tree, nodes), checked_nodes(tree, truths, "truths")
    if truth.ndim != 1 or answer.shape[:1] != truth.shape:
        raise WordTreeError(f"truths of shape {truth.shape} for nodes of {answer.shape}; give one a row, [rows]")
    if not partial:
        return answer, truth, np.ones(len(truth), dtype=bool)
    aside = truth.reshape(-1, *[1] * (answer.ndim - 1))
    return np.where(tree.common(answer, aside) == aside, aside, answer), truth, truth >= 0


def _at_least(steps: NDArray[np.int64], tree: WordTree) -> NDArray[np.int64]:
    """int64 [depths]: how many paths of so many steps reach each depth."""
    return np.bincount(steps, minlength=int(tree.depths.max()) + 2)[::-1].cumsum()[::-1][1:]


def _share(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")


def _shares(parts: NDArray[Any], wholes: NDArray[Any] | float) -> NDArray[np.float64]:
    shares = np.full(parts.shape, np.nan)
    np.divide(parts, wholes, out=shares, where=np.asarray(wholes) != 0)
    return shares
