"""Hierarchical scores: each equals its slow form on sets of path nodes; partial truths are judged as far as they go."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import trees

from wordtree import WordTree, WordTreeError
from wordtree.metrics import (
    RELATIONS,
    calibration,
    expand_detections,
    hierarchical_scores,
    operating_curve,
    relations,
)

#      animal  plant
#     /  |        \
#  dog  cat       oak
#   |
# poodle
SMALL = WordTree(["animal", "plant", "dog", "cat", "oak", "poodle"], [-1, -1, 0, 0, 1, 2])
ONE = WordTree(["only"], [-1])

seeds = st.integers(0, 2**31 - 1)


# ---------------------------------------------------------------------- the slow forms, one row at a time


def path(node: int, tree: WordTree) -> list[int]:
    return [] if node == -1 else [*path(int(tree.parents[node]), tree), node]


def leaves_below(node: int, tree: WordTree) -> list[int]:
    leaves = [leaf for leaf in range(len(tree)) if leaf not in tree.parents]
    return [leaf for leaf in leaves if node == -1 or node in path(leaf, tree)]


def bits(node: int, tree: WordTree) -> float:
    return math.log2(len(leaves_below(-1, tree)) / len(leaves_below(node, tree)))


def height(node: int, tree: WordTree) -> int:
    return max(len(path(leaf, tree)) for leaf in leaves_below(node, tree)) - len(path(node, tree))


def lca(a: int, b: int, tree: WordTree) -> int:
    return max(set(path(a, tree)) & set(path(b, tree)), key=lambda node: len(path(node, tree)), default=-1)


def judged(nodes: list[int], truths: list[int], tree: WordTree, partial: bool) -> list[tuple[int, int]]:
    """(answer, truth) of each row that counts, the answer taken back to its truth where it says more."""
    if not partial:
        return list(zip(nodes, truths, strict=True))
    pairs = [(a, t) for a, t in zip(nodes, truths, strict=True) if t != -1]
    return [(t if t in path(a, tree) else a, t) for a, t in pairs]


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def slow_scores(pairs: list[tuple[int, int]], tree: WordTree) -> dict[str, object]:
    sets = [(set(path(a, tree)), set(path(t, tree))) for a, t in pairs]
    shared, said, true = (sum(len(one) for one in part) for part in zip(*[(a & t, a, t) for a, t in sets], strict=True))
    rise = [height(lca(a, t, tree), tree) - height(t, tree) for a, t in pairs]
    wrong = [a not in (-1, *path(t, tree)) for a, t in pairs]
    deepest = max(len(path(node, tree)) for node in range(len(tree)))
    return {
        "rows": len(pairs),
        "exact": mean([a == t for a, t in pairs]),
        "correct": mean([not one for one in wrong]),
        "precision": ratio(shared, said),
        "recall": ratio(shared, true),
        "f1": ratio(2 * shared, said + true),
        "lca_height": mean(rise),
        "mistake_height": mean([one for one, bad in zip(rise, wrong, strict=True) if bad]),
        "distance": mean([len(a ^ t) for a, t in sets]),
        "depth_excess": mean([len(a - t) for a, t in sets]),
        "depth_shortfall": mean([len(t - a) for a, t in sets]),
        "information_excess": mean([bits(a, tree) - bits(lca(a, t, tree), tree) for a, t in pairs]),
        "information_shortfall": mean([bits(t, tree) - bits(lca(a, t, tree), tree) for a, t in pairs]),
        "accuracy_at_depth": [
            mean(
                [
                    path(a, tree)[depth : depth + 1] == [path(t, tree)[depth]]
                    for a, t in pairs
                    if len(path(t, tree)) > depth
                ]
            )
            for depth in range(deepest)
        ],
    }


def answers(tree: WordTree, seed: int, rows: int = 8) -> tuple[list[int], list[int]]:
    random = np.random.RandomState(seed)
    return random.randint(-1, len(tree), rows).tolist(), random.randint(-1, len(tree), rows).tolist()


@given(trees(), seeds, st.booleans())
@settings(deadline=None, max_examples=100)
def test_every_score_equals_its_form_on_sets_of_path_nodes(tree, seed, partial):
    nodes, truths = answers(tree, seed)
    pairs = judged(nodes, truths, tree, partial)
    if not pairs:
        return
    found = hierarchical_scores(nodes, truths, tree, partial=partial)
    for name, wanted in slow_scores(pairs, tree).items():
        assert np.asarray(getattr(found, name)) == pytest.approx(np.asarray(wanted), nan_ok=True), name


@given(trees())
@settings(deadline=None, max_examples=50)
def test_leaves_heights_and_information_of_a_tree_equal_the_search_over_its_leaves(tree):
    for node in range(len(tree)):
        assert tree.leaves_below[node] == len(leaves_below(node, tree))
        assert tree.heights[node] == height(node, tree)
        assert tree.information[node] == pytest.approx(bits(node, tree))
    for table in (tree.leaves_below, tree.heights, tree.information):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 1


def test_precision_recall_and_f1_are_hiclass_own_values():
    """The cases of hiclass' tests/test_metrics.py: rows of path nodes 1, 2, ... with their expected figures."""
    tree = WordTree(["1", "2", "3", "5", "4", "6"], [-1, 0, 1, 1, 2, 3])
    four, six, two = tree.find("4"), tree.find("6"), tree.find("2")
    crossed = hierarchical_scores([six, four], [four, six], tree, partial=False)
    assert (crossed.precision, crossed.recall, crossed.f1) == (0.5, 0.5, 0.5)
    assert hierarchical_scores([four, six], [four, six], tree, partial=False).precision == 1
    assert hierarchical_scores([six, four], [two, two], tree, partial=False).recall == 1
    assert hierarchical_scores([two, two], [six, four], tree, partial=False).recall == 0.5
    assert hierarchical_scores([six, four], [two, two], tree, partial=False).precision == 0.5


def test_below_a_partial_truth_nothing_is_known():
    poodle, dog, cat, root = SMALL.find("poodle"), SMALL.find("dog"), SMALL.find("cat"), -1
    known = hierarchical_scores([poodle, poodle, cat], [dog, dog, root], SMALL)
    assert (known.rows, known.exact, known.precision, known.recall, known.distance) == (2, 1.0, 1.0, 1.0, 0.0)
    whole = hierarchical_scores([poodle, poodle, cat], [dog, dog, root], SMALL, partial=False)
    assert (whole.rows, whole.exact, whole.correct) == (3, 0.0, 0.0)
    assert whole.depth_excess == pytest.approx((1 + 1 + 2) / 3)
    assert hierarchical_scores([root, cat], [root, root], SMALL, partial=False).exact == 0.5
    assert hierarchical_scores([dog], [dog], SMALL).lca_height == 0.0  # though dog itself has a height of 1


@given(trees(), seeds)
@settings(deadline=None, max_examples=50)
def test_leaf_truths_are_the_same_partial_or_not_and_distance_is_excess_and_shortfall(tree, seed):
    random = np.random.RandomState(seed)
    nodes, truths = random.randint(-1, len(tree), 9), random.choice(tree.leaves, 9)
    one, other = (hierarchical_scores(nodes, truths, tree, partial=partial) for partial in (True, False))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_equal(a, b)
    assert one.distance == pytest.approx(one.depth_excess + one.depth_shortfall)
    assert hierarchical_scores(truths, truths, tree)[1:6] == (1.0,) * 5


def test_scores_of_nothing_are_nan_and_of_no_answer_are_vague_not_wrong():
    none = hierarchical_scores([], [], SMALL)
    assert none.rows == 0
    assert all(math.isnan(value) for value in none[1:-1])
    assert np.isnan(none.accuracy_at_depth).tolist() == [True, True, True]
    silent = hierarchical_scores([-1, -1], [5, 3], SMALL)
    assert (silent.correct, silent.exact, silent.recall, silent.f1) == (1.0, 0.0, 0.0, 0.0)
    assert math.isnan(silent.precision)
    assert math.isnan(silent.mistake_height)
    assert hierarchical_scores([0], [0], ONE).exact == 1.0


@given(trees(), seeds)
@settings(deadline=None, max_examples=80)
def test_relations_are_those_of_the_paths(tree, seed):
    random = np.random.RandomState(seed)
    nodes, truths = random.randint(-1, len(tree), 9), random.randint(0, len(tree), 9)
    found = relations(nodes, truths, tree)
    for row, (a, t) in enumerate(zip(nodes.tolist(), truths.tolist(), strict=True)):
        above, below, both = path(a, tree), path(t, tree), lca(a, t, tree)
        assert found.common[row] == both
        assert found.up[row] == len(set(below) - set(above))
        assert found.down[row] == len(set(above) - set(below))
        kind = RELATIONS[found.kind[row]]
        assert (kind == "exact") == (a == t)
        assert (kind == "ancestor") == (a in below[:-1])
        assert (kind == "descendant") == (t in above[:-1])
        assert (kind == "unnamed") == (a == -1)
        apart = a != -1 and a not in below and t not in above
        assert (kind == "unrelated") == (apart and both == -1)
        same_parent = tree.parents[a] == tree.parents[t]
        assert (kind == "sibling") == (apart and both != -1 and same_parent)
        assert (kind == "cousin") == (apart and both != -1 and not same_parent)


# ---------------------------------------------------------------------- curves


def sequences(tree: WordTree, seed: int, rows: int = 5, steps: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers whose scores fall along each row, with ties between rows and short rows; and truths."""
    random = np.random.RandomState(seed)
    scores = -np.sort(-random.randint(1, 9, (rows, steps)) / 8, axis=1)
    short = np.arange(steps) >= random.randint(0, steps + 1, rows)[:, None]
    nodes = np.where(short, -1, random.randint(-1, len(tree), (rows, steps)))
    return nodes, np.where(short, -np.inf, scores), random.randint(-1, len(tree), rows)


def answer_at(threshold: float, nodes: np.ndarray, scores: np.ndarray) -> list[int]:
    return [
        ([-1] + [node for node, score in zip(row, row_scores, strict=True) if score >= threshold])[-1]
        for row, row_scores in zip(nodes.tolist(), scores.tolist(), strict=True)
    ]


@given(trees(), seeds, st.booleans())
@settings(deadline=None, max_examples=80)
def test_each_point_of_a_curve_is_the_scores_of_the_answers_at_its_threshold(tree, seed, partial):
    nodes, scores, truths = sequences(tree, seed)
    curve = operating_curve(nodes, scores, truths, tree, partial=partial)
    assert curve.threshold.tolist() == [
        np.inf,
        *sorted({*scores[(truths >= 0) | (not partial)].flatten()} - {-np.inf})[::-1],
    ]
    for at, threshold in enumerate(curve.threshold):
        given = answer_at(threshold, nodes, scores)
        pairs = judged(given, truths.tolist(), tree, partial)
        if not pairs:
            assert np.isnan(curve.correct).all()
            continue
        slow = slow_scores(pairs, tree)
        assert curve.correct[at] == pytest.approx(slow["correct"])
        assert curve.recall[at] == pytest.approx(slow["recall"], nan_ok=True)
        told = sum(bits(lca(a, t, tree), tree) for a, t in pairs)
        assert curve.information[at] == pytest.approx(ratio(told, sum(bits(t, tree) for _, t in pairs)), nan_ok=True)
        claimed = [bits(a, tree) for a, t in zip(given, truths, strict=True) if t != -1 or not partial]
        assert curve.coverage[at] == pytest.approx(ratio(mean(claimed), math.log2(len(tree.leaves))), nan_ok=True)


@given(trees(), seeds)
@settings(deadline=None, max_examples=60)
def test_the_areas_are_the_integrals_of_their_steps_and_trapezoids(tree, seed):
    nodes, scores, truths = sequences(tree, seed)
    curve = operating_curve(nodes, scores, truths, tree)
    if np.isnan(curve.recall).any() or np.isnan(curve.coverage).any():
        return
    grid = (np.arange(20000) + 0.5) / 20000
    best = [
        max((c for c, r in zip(curve.correct, curve.recall, strict=True) if r >= x), default=0.0) for x in grid[::40]
    ]
    assert curve.area == pytest.approx(mean(best), abs=0.02)
    points = sorted(zip(curve.coverage, range(len(curve.coverage)), 1 - curve.correct, strict=True))
    slow = sum((b[0] - a[0]) * (a[2] + b[2]) / 2 for a, b in itertools.pairwise(points))
    assert curve.risk_area == pytest.approx(slow)


def test_a_perfect_answerer_has_area_one_and_no_risk_and_a_silent_one_has_none():
    truths = np.array([5, 3, 4])
    perfect = operating_curve(truths, [0.9, 0.8, 0.7], truths, SMALL)
    assert (perfect.area, perfect.risk_area) == (1.0, 0.0)
    assert perfect.coverage[-1] == perfect.information[-1] == pytest.approx(1.0)
    silent = operating_curve([-1, -1, -1], [1, 1, 1], truths, SMALL)
    assert (silent.area, silent.risk_area) == (0.0, 0.0)
    wrong = operating_curve([4, 4, 3], [1, 1, 1], truths, SMALL)
    assert (wrong.area, wrong.risk_area) == (0.0, pytest.approx(0.5))


def test_one_answer_a_row_is_a_sequence_of_one_and_short_rows_are_filled():
    nodes, scores, truths = [5, 4], [0.9, 0.4], [2, 3]
    flat = operating_curve(nodes, scores, truths, SMALL)
    filled = operating_curve([[5, -1], [4, -1]], [[0.9, -np.inf], [0.4, -np.inf]], truths, SMALL)
    for one, other in zip(flat, filled, strict=True):
        assert one.tolist() == other.tolist()
    assert flat.threshold.tolist() == [np.inf, 0.9, 0.4]
    assert flat.correct.tolist() == [1.0, 1.0, 0.5]
    empty = operating_curve(np.zeros((0, 3), dtype=int), np.zeros((0, 3)), [], SMALL)
    assert empty.threshold.tolist() == [np.inf]
    assert np.isnan(empty.correct).all()


# ---------------------------------------------------------------------- calibration


@given(trees(), seeds, st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_calibration_equals_the_loop_over_rows_and_bins(tree, seed, bins):
    random = np.random.RandomState(seed)
    probs, truths = random.randint(0, 65, (12, len(tree))) / 64, random.randint(-1, len(tree), 12)
    found = calibration(probs, truths, tree, bins)
    for depth in range(len(found.error)):
        at_depth = [node for node in range(len(tree)) if len(path(node, tree)) == depth + 1]
        rows = []
        for prob, truth in zip(probs, truths.tolist(), strict=True):
            if truth != -1 and (len(path(truth, tree)) > depth or truth in tree.leaves):
                best = max(at_depth, key=lambda node: prob[node])
                rows.append((prob[best], best in path(truth, tree)))
        assert found.rows[depth] == len(rows)
        assert found.confidence[depth] == pytest.approx(mean([sure for sure, _ in rows]), nan_ok=True)
        assert found.accuracy[depth] == pytest.approx(mean([right for _, right in rows]), nan_ok=True)
        gap = 0.0
        for low in range(bins):
            inside = [
                (sure, right)
                for sure, right in rows
                if low / bins < sure <= (low + 1) / bins or (low == 0 and sure == 0)
            ]
            gap += abs(sum(sure for sure, _ in inside) - sum(right for _, right in inside))
        assert found.error[depth] == pytest.approx(ratio(gap, len(rows)), nan_ok=True)


def test_truths_drawn_from_the_probabilities_themselves_are_calibrated_at_every_depth():
    random = np.random.RandomState(0)
    tree = WordTree(["rock", "animal", "dog", "cat", "pug", "poodle"], [-1, -1, 1, 1, 2, 2])  # a leaf at every depth
    odds = random.dirichlet([1.0] * 4, 40000)  # of rock, cat, pug, poodle
    probs = np.stack([odds[:, 0], odds[:, 1:].sum(1), odds[:, 2:].sum(1), odds[:, 1], odds[:, 2], odds[:, 3]], axis=1)
    truths = np.array([0, 3, 4, 5])[(odds.cumsum(1) > random.rand(40000, 1)).argmax(1)]
    found = calibration(probs, truths, tree)
    assert found.rows.tolist() == [40000] * 3
    assert (found.error < 0.02).all()
    assert (calibration(probs**0.3, truths, tree).error > 0.1).all()


# ---------------------------------------------------------------------- detection


@given(trees(), seeds, st.booleans())
@settings(deadline=None, max_examples=60)
def test_expanded_rows_are_each_node_and_all_above_it(tree, seed, some):
    nodes, _ = answers(tree, seed)
    evaluated = np.random.RandomState(seed).rand(len(tree)) < 0.5 if some else None
    rows, found = expand_detections(nodes, tree, evaluated)
    wanted = [
        (row, step)
        for row, node in enumerate(nodes)
        for step in reversed(path(node, tree))
        if evaluated is None or evaluated[step]
    ]
    assert list(zip(rows.tolist(), found.tolist(), strict=True)) == wanted
    assert rows.dtype == found.dtype == np.int64


def test_expanding_nothing_and_roots_gives_nothing():
    for nodes in ([], [-1, -1]):
        rows, found = expand_detections(nodes, SMALL)
        assert rows.shape == found.shape == (0,)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: hierarchical_scores([0, 1], [0], SMALL), ["(1,)", "(2,)", "one a row"]),
        (lambda: hierarchical_scores([[0]], [0], SMALL), ["(1, 1)", "[rows]"]),
        (lambda: hierarchical_scores([6], [0], SMALL), ["nodes", "6", "0 to 5", "-1"]),
        (lambda: hierarchical_scores([0], [-2], SMALL), ["truths from -2", "0 to 5", "-1 for the root"]),
        (lambda: hierarchical_scores([0.5], [0], SMALL), ["nodes of type float64", "0 to 5"]),
        (lambda: operating_curve([[0, 1]], [0.5], [0], SMALL), ["(1, 2)", "(1,)", "[rows, steps]"]),
        (lambda: operating_curve([[0, 1]], [[0.5, 0.6]], [0], SMALL), ["rise along a row", "surest"]),
        (lambda: operating_curve([0], [math.nan], [0], SMALL), ["NaN"]),
        (lambda: operating_curve([0, 1], [0.5, 0.5], [0], SMALL), ["(1,)", "(2, 1)", "one a row"]),
        (lambda: calibration(np.zeros((2, 6)), [0], SMALL), ["(2, 6)", "(1,)", "[rows, 6]"]),
        (lambda: calibration(np.full((1, 6), -0.5), [0], SMALL), ["-0.5", "0 to 1", "exp()"]),
        (lambda: calibration(np.full((1, 6), math.nan), [0], SMALL), ["nan", "0 to 1"]),
        (lambda: calibration(np.zeros((1, 6)), [0], SMALL, bins=0), ["0 bins", "at least one"]),
        (lambda: relations([0, 1], [0], SMALL), ["(1,)", "(2,)", "give both as [rows]"]),
        (lambda: relations([0], [-1], SMALL), ["1 truths at the root", "truths that are nodes"]),
        (lambda: expand_detections([0], SMALL, [True]), ["(1,)", "bool [6]"]),
        (lambda: expand_detections([9], SMALL), ["9", "0 to 5"]),
    ],
)
def test_errors_say_what_was_asked_what_was_given_and_what_would_do(call, parts):
    with pytest.raises(WordTreeError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)
