"""Decisions over a tree: each rule equals its slow form, node by node, and keeps within what the caller allows."""

import itertools
import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import logits, random_tree, seeds, trees
from torch import Tensor
from torch.nn import functional

from wordtree import WordTree, WordTreeError
from wordtree.nn import (
    climb,
    descend,
    expected_cost,
    hedge,
    hedge_weight,
    majority,
    most_information,
    pareto,
    propagate,
    tree_log_prob,
    why,
)

#      animal  plant
#     /  |        \
#  dog  cat       oak
#   |
# poodle
SMALL = WordTree(["animal", "plant", "dog", "cat", "oak", "poodle"], [-1, -1, 0, 0, 1, 2])
ONE = WordTree(["only"], [-1])
CHAIN = WordTree(["a", "b", "c"], [-1, 0, 1])

CONFIDENCES = [0.0, 0.2, 0.5, 0.7, 0.95, 1.0]
RULES = {
    "majority": majority,
    "most_information": lambda log_probs, tree, **controls: most_information(log_probs, tree, 0.3, **controls),
    "climb": lambda log_probs, tree, **controls: climb(log_probs, tree, 0.6, **controls),
    "distance": expected_cost,
    "height": lambda log_probs, tree, **controls: expected_cost(log_probs, tree, "height", **controls),
    "hedge": lambda log_probs, tree, **controls: hedge(log_probs, tree, 1.5, **controls),
}


# ---------------------------------------------------------------------- the slow forms, one row at a time


def leaves_below(node: int, tree: WordTree) -> list[int]:
    leaves = [leaf for leaf in range(len(tree)) if leaf not in tree.parents]
    return [leaf for leaf in leaves if node == -1 or node in reference.path(leaf, tree)]


def information(node: int, tree: WordTree) -> float:
    return math.log2(len(leaves_below(-1, tree))) - math.log2(len(leaves_below(node, tree)))


def log_prob_of(node: int, row: list[float]) -> float:
    return 0.0 if node == -1 else row[node]


def most_specific(nodes: list[int], row: list[float], tree: WordTree) -> int:
    """Most information, then likeliest, then deepest, then lowest."""
    return min(
        nodes,
        key=lambda node: (
            len(leaves_below(node, tree)),
            -log_prob_of(node, row),
            -len(reference.path(node, tree)),
            node,
        ),
    )


def height(node: int, tree: WordTree) -> int:
    return max(len(reference.path(leaf, tree)) for leaf in leaves_below(node, tree)) - len(reference.path(node, tree))


def cost(name: str, truth: int, node: int, tree: WordTree) -> int:
    above, other = reference.path(truth, tree), reference.path(node, tree)
    common = [step for step in above if step in other]
    if name == "distance":
        return len(above) + len(other) - 2 * len(common)
    return height(common[-1] if common else -1, tree)


def own(node: int, row: list[float], tree: WordTree) -> float:
    """What a node or the root has to itself: Pr less that of its children."""
    below = sum(math.exp(row[child]) for child in reference.children(node, tree))
    return math.exp(log_prob_of(node, row)) - below


def expected(name: str, node: int, row: list[float], tree: WordTree) -> float:
    return sum(own(truth, row, tree) * cost(name, truth, node, tree) for truth in range(-1, len(tree)))


def held(row: list[float], tree: WordTree, controls: dict[str, object], at: int) -> list[int]:
    """The nodes that the controls leave, and the root. `at`: which row of controls that have rows."""

    def of(name: str, node: int) -> object:
        table = np.asarray(controls[name])
        return table[node] if table.ndim == 1 else table[at, node]

    nodes = [-1]
    for node in range(len(tree)):
        if "thresholds" in controls and row[node] < math.log(of("thresholds", node)):
            continue
        if "allowed" in controls and not of("allowed", node):
            continue
        if "level" in controls and len(reference.path(node, tree)) - 1 > controls["level"]:
            continue
        nodes.append(node)
    return nodes


def drawn(tree: WordTree, seed: int, coherent: bool, rows: int = 3) -> Tensor:
    """float64 [rows, nodes], log Pr: of a tree's softmax, or of any head, children and parents at odds."""
    if coherent:
        return tree_log_prob(logits(rows, tree, seed, scale=2.0), tree)
    random = np.random.RandomState(seed)
    return torch.from_numpy(random.randint(1, 17, (rows, len(tree))) / 16).log()


def controls_of(tree: WordTree, seed: int, kind: str, rows: int = 3) -> dict[str, object]:
    random = np.random.RandomState(seed)
    shape = (rows, len(tree)) if kind == "by row" else (len(tree),)
    if kind == "none":
        return {}
    return {
        "thresholds": random.choice([0.01, 0.3, 0.55], shape),
        "allowed": random.rand(*shape) < 0.7,
        "level": random.randint(0, 4),
    }


kinds = st.sampled_from(["none", "shared", "by row"])


@given(trees(), seeds, st.booleans(), kinds, st.sampled_from(CONFIDENCES))
@settings(deadline=None, max_examples=80)
def test_the_rules_of_information_equal_the_search_over_all_nodes(tree, seed, coherent, kind, confidence):
    log_probs, controls = drawn(tree, seed, coherent), controls_of(tree, seed, kind)
    major, most = majority(log_probs, tree, **controls), most_information(log_probs, tree, confidence, **controls)
    for at, row in enumerate(log_probs.tolist()):
        nodes = held(row, tree, controls, at)
        likelier = [node for node in nodes if log_prob_of(node, row) > math.log(0.5)]
        assert major.nodes[at] == most_specific(likelier, row, tree)
        limit = math.log(confidence) if confidence else -math.inf
        sure = [node for node in nodes if log_prob_of(node, row) >= limit]
        assert most.nodes[at] == most_specific(sure, row, tree)
        for found in (major, most):
            assert found.log_probs[at] == log_prob_of(int(found.nodes[at]), row)


@given(trees(), seeds, st.booleans(), kinds, st.sampled_from(CONFIDENCES))
@settings(deadline=None, max_examples=50)
def test_a_climb_equals_the_walk_up_from_the_node_that_has_most_to_itself(tree, seed, coherent, kind, confidence):
    log_probs, controls = drawn(tree, seed, coherent), controls_of(tree, seed, kind)
    found = climb(log_probs, tree, confidence, **controls)
    limit = math.log(confidence) if confidence else -math.inf
    for at, row in enumerate(log_probs.tolist()):
        nodes = held(row, tree, controls, at)
        shares = [own(node, row, tree) for node in range(len(tree))]
        starts = [node for node, share in enumerate(shares) if share > max(shares) - 1e-9]
        assert not coherent or set(starts) <= set(tree.leaves.tolist())
        if coherent:  # leaves are compared as they are given
            starts = [max(starts, key=lambda leaf: row[leaf])]
        ends = set()
        for node in starts:
            while node != -1 and (node not in nodes or row[node] < limit):
                node = int(tree.parents[node])
            ends.add(node)
        assert int(found.nodes[at]) in ends
        assert found.log_probs[at] == log_prob_of(int(found.nodes[at]), row)


@given(trees(), seeds, st.booleans(), kinds, st.sampled_from(["distance", "height"]))
@settings(deadline=None, max_examples=60)
def test_expected_cost_equals_the_sum_over_all_truths_for_every_node(tree, seed, coherent, kind, name):
    log_probs, controls = drawn(tree, seed, coherent), controls_of(tree, seed, kind)
    found = expected_cost(log_probs, tree, name, **controls)
    for at, row in enumerate(log_probs.tolist()):
        costs = {node: expected(name, node, row, tree) for node in held(row, tree, controls, at)}
        best = min(costs.values())
        node = int(found.nodes[at])
        assert costs[node] == pytest.approx(best, abs=1e-9)
        if len([value for value in costs.values() if value < best + 1e-9]) == 1:
            assert node == min(costs, key=costs.__getitem__)
        assert found.log_probs[at] == log_prob_of(node, row)


@given(trees(), seeds, st.booleans(), kinds, st.sampled_from([0.0, 0.1, 1.5, 40.0]))
@settings(deadline=None, max_examples=60)
def test_hedge_equals_the_search_over_all_nodes(tree, seed, coherent, kind, weight):
    log_probs, controls = drawn(tree, seed, coherent), controls_of(tree, seed, kind)
    found = hedge(log_probs, tree, weight, **controls)
    for at, row in enumerate(log_probs.tolist()):
        gains = {
            node: (information(node, tree) + weight) * math.exp(log_prob_of(node, row))
            for node in held(row, tree, controls, at)
        }
        node = int(found.nodes[at])
        assert gains[node] == pytest.approx(max(gains.values()), abs=1e-9)
        assert found.log_probs[at] == log_prob_of(node, row)


@given(trees(), seeds, st.booleans(), kinds)
@settings(deadline=None, max_examples=60)
def test_the_pareto_sequence_holds_the_answer_at_every_confidence(tree, seed, coherent, kind):
    log_probs, controls = drawn(tree, seed, coherent), controls_of(tree, seed, kind)
    found = pareto(log_probs, tree, **controls)
    confidences = sorted({*log_probs.exp().flatten().tolist(), 1e-9, 0.5, 1.0})
    for at in range(len(log_probs)):
        filled = list(zip(found.nodes[at].tolist(), found.log_probs[at].tolist()))
        steps = list(dict.fromkeys(filled))
        assert filled == steps + steps[-1:] * (len(filled) - len(steps))  # short rows repeat their last
        probs, bits = [p for _, p in steps], [information(node, tree) for node, _ in steps]
        assert all(a > b for a, b in itertools.pairwise(probs))
        assert all(a < b for a, b in itertools.pairwise(bits))
        row_controls = {k: v if np.ndim(v) < 2 else v[at] for k, v in controls.items()}
        for confidence in confidences:
            one = most_information(log_probs[at], tree, confidence, **row_controls)
            assert [step for step in steps if step[1] >= math.log(confidence)][-1] == (int(one.nodes), one.log_probs)
    assert found.nodes.shape[1] == max(len(set(row)) for row in found.log_probs.tolist())


# ---------------------------------------------------------------------- what the rules are to each other


@given(trees(), seeds)
@settings(deadline=None, max_examples=50)
def test_the_least_expected_distance_is_the_majoritys_answer(tree, seed):
    log_probs = drawn(tree, seed, coherent=True, rows=5)
    clear = ((log_probs.exp() - 0.5).abs() > 1e-9).all(-1)  # at one half both a node and its parent cost the same
    assert torch.equal(expected_cost(log_probs, tree).nodes[clear], majority(log_probs, tree).nodes[clear])


@given(trees(), seeds)
@settings(deadline=None, max_examples=50)
def test_above_one_half_descent_climb_and_majority_agree_on_a_trees_softmax(tree, seed):
    x = logits(5, tree, seed)
    log_probs = tree_log_prob(x, tree)
    for confidence in (0.55, 0.8):  # above one half all that qualify lie on one path
        nodes = most_information(log_probs, tree, confidence).nodes
        assert torch.equal(nodes, descend(x, tree, confidence)[0])
    on_the_way = [
        int(node) in (-1, *tree.path(int(leaf))) for node, leaf in zip(nodes, climb(log_probs, tree, 0.0).nodes)
    ]
    up = climb(log_probs, tree, 0.8).nodes
    assert all(int(a) == int(b) for a, b, same in zip(nodes, up, on_the_way) if same)


@given(trees(), seeds)
@settings(deadline=None, max_examples=30)
def test_the_least_expected_height_is_a_leaf_and_the_surer_the_less_is_said(tree, seed):
    log_probs = drawn(tree, seed, coherent=True)
    bits = np.append(tree.information, 0.0)
    assert np.isin(expected_cost(log_probs, tree, "height").nodes.numpy(), tree.leaves).all()
    for rule, asked in (
        (most_information, [0.0, 0.3, 0.6, 0.9]),
        (climb, [0.0, 0.3, 0.6, 0.9]),
        (hedge, [0, 1, 5, 99]),
    ):
        told = [bits[rule(log_probs, tree, one).nodes.numpy()] for one in asked]
        assert all((a >= b - 1e-6).all() for a, b in itertools.pairwise(told))


@pytest.mark.parametrize("accuracy", [0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_hedge_weight_is_the_least_that_reaches_the_accuracy(seed, accuracy):
    tree = random_tree(40, seed, most_children=4)
    random = np.random.RandomState(seed)
    targets = torch.from_numpy(random.randint(-1, len(tree), (8, 25)))
    x = logits(8 * 25, tree, seed, scale=1.0).reshape(8, 25, -1)
    for node in tree.path(int(tree.leaves[0])):
        x[..., node] += 1.0
    log_probs = tree_log_prob(x, tree)
    weight = hedge_weight(log_probs, targets, tree, accuracy)

    def share(weight: float) -> float:
        nodes = hedge(log_probs, tree, weight).nodes[targets >= 0].tolist()
        pairs = list(zip(nodes, targets[targets >= 0].tolist()))
        return sum(reference.relatives(node, target, tree) for node, target in pairs) / len(pairs)

    assert share(weight * (1 + 1e-9)) >= accuracy
    assert weight > 0.0
    assert share(weight * (1 - 1e-5)) < accuracy


def test_a_hedge_weight_is_zero_where_nothing_is_wrong_and_refused_where_nothing_helps():
    log_probs = torch.tensor([[0.9, 0.1, 0.8, 0.1, 0.1, 0.8], [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]]).log()
    assert hedge_weight(log_probs, torch.tensor([5, 0]), SMALL, 1.0) == 0.0  # below "animal" nothing is known
    with pytest.raises(WordTreeError, match=r"accuracy of 0\.9 on 2 rows: some are wrong with Pr 1"):
        hedge_weight(log_probs, torch.tensor([5, 4]), SMALL, 0.9)
    assert hedge_weight(log_probs, torch.tensor([5, 4]), SMALL, 0.5) == 0.0
    with pytest.raises(WordTreeError, match="no target among 2 rows"):
        hedge_weight(log_probs, torch.tensor([-1, -1]), SMALL, 0.9)
    with pytest.raises(WordTreeError, match=r"targets of shape \(1,\)"):
        hedge_weight(log_probs, torch.tensor([5]), SMALL, 0.9)


# ---------------------------------------------------------------------- controls


@given(trees(), seeds, st.sampled_from(sorted(RULES)), kinds)
@settings(deadline=None, max_examples=60)
def test_every_answer_is_a_node_that_the_controls_leave_or_the_root(tree, seed, rule, kind):
    log_probs, controls = drawn(tree, seed, coherent=True), controls_of(tree, seed, kind)
    for at, node in enumerate(RULES[rule](log_probs, tree, **controls).nodes.tolist()):
        assert node in held(log_probs[at].tolist(), tree, controls, at)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_controls_of_nothing_change_nothing_and_of_everything_leave_the_root(rule):
    tree = random_tree(60, seed=4)
    log_probs = drawn(tree, 5, coherent=True, rows=20)
    plain = RULES[rule](log_probs, tree)
    wide = RULES[rule](
        log_probs, tree, thresholds=torch.zeros(len(tree)), allowed=np.ones(len(tree), dtype=bool), level=99
    )
    assert torch.equal(plain.nodes, wide.nodes)
    assert (RULES[rule](log_probs, tree, allowed=torch.zeros(len(tree), dtype=torch.bool)).nodes == -1).all()
    assert (RULES[rule](log_probs, tree, thresholds=[1.0] * len(tree)).nodes == -1).all()


def test_level_zero_and_confidence_zero_are_asked_for_not_left_out():
    log_probs = torch.tensor([0.9, 0.1, 0.8, 0.1, 0.1, 0.8]).log()
    assert majority(log_probs, SMALL, level=0).nodes == 0
    assert most_information(log_probs, SMALL, 0.0).nodes == 5
    assert most_information(log_probs, SMALL, 1.0).nodes == -1


def test_a_hedgehog_that_may_not_live_here_is_answered_by_what_stands_above_it():
    log_probs = torch.tensor([0.9, 0.1, 0.8, 0.1, 0.1, 0.8]).log()
    abroad = torch.tensor([True, True, True, True, True, False])
    rows = majority(log_probs.expand(2, -1), SMALL, allowed=torch.stack([abroad, ~abroad]))
    assert rows.nodes.tolist() == [2, 5]
    assert climb(log_probs, SMALL, 0.5, allowed=abroad & (torch.arange(6) != 2)).nodes == 0


@pytest.mark.parametrize("rule", sorted(RULES))
def test_what_cannot_be_is_never_answered(rule):
    log_probs = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]).log()
    assert RULES[rule](log_probs, SMALL).nodes == 3
    only = torch.tensor([False, True, True, False, True, True])  # nothing that has any probability
    assert RULES[rule](log_probs, SMALL, allowed=only).nodes == -1
    assert (
        most_information(log_probs, SMALL, 0.0, allowed=only).nodes
        == hedge(log_probs, SMALL, 0.0, allowed=only).nodes
        == -1
    )
    assert pareto(log_probs, SMALL, allowed=only).nodes.tolist() == [-1]


# ---------------------------------------------------------------------- outputs that are inner nodes


def test_an_inner_node_that_keeps_its_own_is_answered_as_a_leaf_is():
    log_probs = torch.tensor([0.95, 0.05, 0.0, 0.0, 0.05, 0.0]).log()  # animal itself, and oak
    assert {name: int(rule(log_probs, SMALL).nodes) for name, rule in RULES.items() if name != "hedge"} == {
        "majority": 0,
        "most_information": 0,
        "climb": 0,
        "distance": 0,
        "height": 0,
    }
    partly = torch.tensor([0.9, 0.1, 0.4, 0.05, 0.1, 0.4]).log()  # .45 animal itself, .4 poodle
    assert [climb(partly, SMALL, at).nodes.tolist() for at in (0.0, 0.5, 0.95)] == [0, 0, -1]
    assert expected_cost(partly, SMALL).nodes == majority(partly, SMALL).nodes == 0
    nothing = torch.tensor([0.2, 0.1, 0.2, 0.0, 0.1, 0.2]).log()  # .7 stays at the root
    assert expected_cost(nothing, SMALL).nodes == majority(nothing, SMALL).nodes == -1


@given(trees(), seeds)
@settings(deadline=None, max_examples=30)
def test_the_least_expected_distance_ends_the_path_that_is_likelier_than_not_whatever_nodes_have_outputs(tree, seed):
    random = np.random.RandomState(seed)
    shares = torch.from_numpy(random.dirichlet(np.full(len(tree) + 1, 0.3), size=5))[:, 1:]  # the first stays above
    probs = propagate(shares, tree)
    for node, row in zip(expected_cost(probs.log(), tree).nodes.tolist(), probs.tolist(), strict=True):
        if min(abs(prob - 0.5) for prob in row) > 1e-9:  # at one half a node and its parent cost the same
            likelier = [one for one in range(len(tree)) if row[one] > 0.5]
            assert node == max(likelier, key=lambda one: tree.depths[one], default=-1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rounding_gives_no_inner_node_anything_of_its_own(dtype):
    tree = random_tree(3000, seed=2, most_children=20)
    log_probs = tree_log_prob(torch.zeros(1, len(tree)), tree).to(dtype)  # the likeliest leaf has little
    assert np.isin(climb(log_probs, tree, 0.0).nodes.numpy(), tree.leaves).all()


# ---------------------------------------------------------------------- shapes, types, odd trees


@pytest.mark.parametrize("rule", [*sorted(RULES), "pareto"])
def test_batches_of_any_shape_and_none_are_rows_each_on_its_own(rule):
    function = {**RULES, "pareto": pareto}[rule]
    log_probs = drawn(SMALL, 7, coherent=True, rows=12)
    whole = function(log_probs, SMALL)
    grid = function(log_probs.reshape(3, 4, -1), SMALL)
    assert torch.equal(grid.nodes.flatten(0, 1), whole.nodes)
    assert torch.equal(grid.log_probs.flatten(0, 1), whole.log_probs)
    for at, row in enumerate(log_probs):
        one = function(row, SMALL)
        assert one.nodes.shape == (() if rule != "pareto" else one.nodes.shape[-1:])
        assert torch.equal(one.nodes, whole.nodes[at] if rule != "pareto" else whole.nodes[at, : len(one.nodes)])
    for shape in ((0,), (2, 0)):
        none = function(torch.zeros(*shape, len(SMALL)), SMALL)
        assert none.nodes.shape[: len(shape)] == none.log_probs.shape[: len(shape)] == shape
        assert none.nodes.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rule", [*sorted(RULES), "pareto"])
def test_half_precision_is_decided_as_float32(rule, dtype):
    function = {**RULES, "pareto": pareto}[rule]
    tree = random_tree(50, seed=1)
    half = drawn(tree, 3, coherent=True, rows=20).to(dtype)
    low, full = function(half, tree), function(half.float(), tree)
    assert torch.equal(low.nodes, full.nodes)
    assert low.log_probs.dtype == torch.float32
    assert torch.equal(low.log_probs, full.log_probs)
    assert function(half.double(), tree).log_probs.dtype == torch.float64


def test_a_sum_that_rounding_took_past_one_is_one():
    log_probs = torch.tensor([0.004, -9.0, 0.003, -9.0, -9.0, 0.002])
    assert majority(log_probs, SMALL) == (5, 0.0)
    assert pareto(log_probs, SMALL).log_probs.tolist() == [0.0]


@pytest.mark.parametrize("rule", sorted(RULES))
def test_only_children_and_one_node_trees_are_answered(rule):
    # a single child is as sure as its parent, and says as much: the child is given
    assert RULES[rule](torch.zeros(1, 3), CHAIN).nodes.tolist() == [2]
    assert RULES[rule](torch.zeros(1, 1), ONE).nodes.tolist() == [0]
    assert pareto(torch.zeros(3), CHAIN).nodes.tolist() == [2]


def test_an_only_childs_threshold_is_its_own_probability():
    tree = WordTree(["a", "b", "a1", "x", "y"], [-1, -1, 0, 1, 1])  # b's children have nothing to say to a1
    log_probs = torch.tensor([0.993, 0.007, 0.993, 0.125 * 0.007, 0.875 * 0.007]).log()
    assert majority(log_probs, tree).nodes == 2


def test_leaves_high_up_in_a_ragged_tree_are_answered():
    tree = WordTree(["rock", "animal", "dog", "cat"], [-1, -1, 1, 1])
    log_probs = torch.tensor([0.7, 0.3, 0.2, 0.1]).log()
    assert {rule: int(function(log_probs, tree).nodes) for rule, function in RULES.items()} == dict.fromkeys(RULES, 0)


def test_of_equal_answers_the_lowest_node_is_given():
    even = torch.tensor([0.5, 0.5, 0.25, 0.25, 0.5, 0.25]).log()
    assert majority(even, SMALL).nodes == -1  # one half is no majority
    assert most_information(even, SMALL, 0.25).nodes == 4  # the likeliest of those that tell the same
    assert most_information(even, SMALL, 0.5).nodes == 4
    flat = torch.full((6,), 1 / 6).log()
    tree = WordTree(list("abcdef"), [-1] * 6)
    assert [int(RULES[rule](flat, tree).nodes) for rule in ("height", "most_information")] == [0, -1]
    assert most_information(flat, tree, 0.1).nodes == 0


def test_no_gradient_is_kept():
    log_probs = tree_log_prob(torch.zeros(2, 6, requires_grad=True), SMALL)
    assert not any(function(log_probs, SMALL).log_probs.requires_grad for function in (*RULES.values(), pareto))


def test_a_large_tree_equals_the_matrix_of_leaves_by_nodes():
    tree = random_tree(400, seed=8, most_children=20)
    log_probs = drawn(tree, 9, coherent=True, rows=4)
    marks = torch.from_numpy(tree.propagate(np.arange(len(tree)))).double()  # [nodes, nodes], row: itself and above
    depth = marks.sum(1)
    leaves = torch.from_numpy(np.array(tree.leaves))
    distance = depth[leaves, None] + depth - 2 * marks[leaves] @ marks.T  # [leaves, nodes]
    distance = torch.cat([depth[leaves, None], distance], dim=1)  # the root first
    above = torch.from_numpy(np.append(tree.heights.max() + 1, tree.heights)).double()
    lowest = torch.where(marks[leaves][:, None].bool() & marks.bool(), above[1:], above[0]).amin(-1)  # [leaves, nodes]
    lowest = torch.cat([above[:1].expand(len(leaves), 1), lowest], dim=1)
    may = torch.from_numpy(np.random.RandomState(0).rand(len(tree)) < 0.1)
    for name, matrix in (("distance", distance), ("height", lowest)):
        for allowed in (torch.ones_like(may), may):
            costs = (log_probs[:, leaves].exp() @ matrix)[:, functional.pad(allowed, (1, 0), value=True)]
            nodes = functional.pad(allowed.nonzero()[:, 0], (1, 0), value=-1)[costs.argmin(1)]
            assert torch.equal(expected_cost(log_probs, tree, name, allowed=allowed).nodes, nodes)


# ---------------------------------------------------------------------- why


def test_why_says_what_the_next_best_lacked():
    log_probs = torch.tensor([0.9, 0.1, 0.81, 0.09, 0.1, 0.34]).log()
    (below,) = why(log_probs, SMALL, majority(log_probs, SMALL).nodes)
    assert str(below) == "stopped at dog (0.81): next best poodle 0.34 is below 0.5"
    assert [(name, round(prob, 3)) for name, prob in below.path] == [("animal", 0.9), ("dog", 0.81)]
    assert (below.node, below.next_node, below.cause, below.limit) == (2, 5, "below", 0.5)

    (level,) = why(log_probs, SMALL, 0, level=0)
    assert str(level) == "stopped at animal (0.9): next best dog 0.81 is deeper than asked"
    (own,) = why(log_probs, SMALL, 0, thresholds=[0.5, 0.5, 0.85, 0.5, 0.5, 0.5])
    assert str(own) == "stopped at animal (0.9): next best dog 0.81 is below 0.85"
    (banned,) = why(log_probs, SMALL, 0, allowed=[True, True, False, True, True, True])
    assert str(banned) == "stopped at animal (0.9): next best dog 0.81 is not allowed"
    (leaf,) = why(log_probs, SMALL, 5)
    assert str(leaf) == "stopped at poodle (0.34): nothing is below it"
    (root,) = why(log_probs, SMALL, -1, 0.95)
    assert str(root) == "stopped at root (1): next best animal 0.9 is below 0.95"
    assert root.path == ()
    (hedged,) = why(log_probs, SMALL, 0, 0.0)
    assert str(hedged) == "stopped at animal (0.9): next best dog 0.81 would do, but the rule prefers animal"
    assert why(log_probs, SMALL, 0, 0.0, level=1)[0].cause == "preferred"  # dog is no deeper than that


def test_why_of_one_half_says_that_it_is_no_majority():
    log_probs = torch.tensor([0.5, 0.5, 0.25, 0.25, 0.5, 0.25], dtype=torch.float64).log()
    (reason,) = why(log_probs, SMALL, majority(log_probs, SMALL).nodes)
    assert str(reason) == "stopped at root (1): next best animal 0.5 is not above 0.5"


@given(trees(), seeds, st.sampled_from([0.2, 0.5, 0.8]))
@settings(deadline=None, max_examples=40)
def test_why_gives_the_cause_that_the_rule_had(tree, seed, confidence):
    log_probs, controls = drawn(tree, seed, coherent=True), controls_of(tree, seed, "by row")
    found = most_information(log_probs, tree, confidence, **controls)
    for at, reason in enumerate(why(log_probs, tree, found.nodes, confidence, **controls)):
        assert reason.node == found.nodes[at]
        assert reason.name in str(reason)
        if reason.next_node is None:
            assert reason.node in tree.leaves
            continue
        row, child = log_probs[at].tolist(), reason.next_node
        assert row[child] == max(row[other] for other in reference.children(reason.node, tree))
        free = child in held(row, tree, controls, at) and row[child] > math.log(confidence)
        assert free == (reason.cause == "preferred")
        if free:  # another node that tells more was taken, or as much
            assert len(leaves_below(child, tree)) >= len(leaves_below(reason.node, tree))


# ---------------------------------------------------------------------- errors


GOOD = torch.zeros(2, 6)


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: majority(torch.zeros(2, 5), SMALL), ["(2, 5)", "[..., 6]"]),
        (lambda: majority(torch.zeros(2, 6).long(), SMALL), ["int64", "floats"]),
        (lambda: majority(torch.full((6,), math.nan), SMALL), ["nan", "never NaN", "tree_log_prob"]),
        (lambda: pareto(torch.tensor([0, 0, math.nan, 0, 0, 0]), SMALL), ["nan", "tree_log_prob"]),
        (lambda: climb(torch.full((6,), 3.0), SMALL, 0.5), ["up to 3", "at most 0", "tree_log_prob"]),
        (lambda: most_information(GOOD, SMALL, 1.5), ["confidence of 1.5", "0 to 1"]),
        (lambda: climb(GOOD, SMALL, math.nan), ["confidence of nan", "0 to 1"]),
        (lambda: hedge(GOOD, SMALL, -1.0), ["-1.0", "0 or more"]),
        (lambda: hedge(GOOD, SMALL, math.inf), ["inf", "0 or more"]),
        (lambda: hedge_weight(GOOD, torch.zeros(2).long(), SMALL, 95), ["95", "0 to 1"]),
        (lambda: hedge_weight(GOOD, torch.tensor([0, 6]), SMALL, 0.9), ["up to 6", "0 to 5", "-1"]),
        (lambda: expected_cost(GOOD, SMALL, "distnce"), ["'distnce'", "did you mean 'distance'", "height"]),
        (lambda: majority(GOOD, SMALL, level=-1), ["level of -1", "depth 0"]),
        (lambda: majority(GOOD, SMALL, thresholds=[0.5]), ["thresholds of shape (1,)", "(2, 6)", "[6]"]),
        (lambda: majority(GOOD, SMALL, thresholds=[50.0] * 6), ["to 50", "0 to 1"]),
        (lambda: majority(GOOD, SMALL, allowed=torch.ones(3, 6).bool()), ["allowed of shape (3, 6)", "(2, 6)"]),
        (lambda: majority(GOOD, SMALL, allowed=[0, 1, 2, 3, 4, 5]), ["allowed of torch.int64", "true or false"]),
        (lambda: majority(GOOD, SMALL, thresholds=[True] * 6), ["thresholds of torch.bool", "a number a node"]),
        (lambda: why(GOOD, SMALL, [1, 6]), ["1 to 6", "0 to 5", "-1"]),
        (lambda: why(GOOD, SMALL, 1), ["shape ()", "(2, 6)", "one a row"]),
    ],
)
def test_errors_say_what_was_asked_what_was_given_and_what_would_do(call, parts):
    with pytest.raises(WordTreeError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="waits for a CUDA device")
@pytest.mark.parametrize("rule", [*sorted(RULES), "pareto"])
def test_decisions_on_a_gpu_equal_those_on_the_cpu(rule):
    function = {**RULES, "pareto": pareto}[rule]
    tree = random_tree(2000, seed=14)
    log_probs = drawn(tree, 15, coherent=True, rows=50)
    here, there = function(log_probs, tree, level=6), function(log_probs.cuda(), tree, level=6)
    assert torch.equal(here.nodes, there.nodes.cpu())
    torch.testing.assert_close(here.log_probs, there.log_probs.cpu())
