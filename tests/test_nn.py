"""The hierarchy in torch: functions equal the loop over groups and paths, lean forms equal the dense one."""

import functools
import tracemalloc

import numpy as np
import oracle
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import needs_oracle
from strategies import logits, random_tree, seeds, trees
from torch.nn import functional

from wordtree import WordTree, WordTreeError
from wordtree.nn import TreeLinear, descend, tree_cross_entropy, tree_log_prob, tree_log_softmax
from wordtree.nn.index import ask_paths, restrict, tree_index
from wordtree.nn.softmax import segment_logsumexp

EXACT = {"rtol": 1e-10, "atol": 1e-10}  # float64 by two routes

#      animal  plant
#     /  |        \
#  dog  cat       oak
#   |
# poodle
SMALL = WordTree(["animal", "plant", "dog", "cat", "oak", "poodle"], [-1, -1, 0, 0, 1, 2])
FLAT = WordTree([f"class{n}" for n in range(5)], [-1] * 5)
ONE = WordTree(["only"], [-1])
CHAIN = WordTree(["a", "b", "c"], [-1, 0, 1])


# ---------------------------------------------------------------------- softmax


@given(trees(), seeds)
@settings(deadline=None, max_examples=50)
def test_log_softmax_and_log_prob_equal_the_walk_over_groups_and_parents(tree, seed):
    x = logits(2, tree, seed)
    conditional, absolute = tree_log_softmax(x, tree), tree_log_prob(x, tree)
    for row in range(2):
        for node in range(len(tree)):
            torch.testing.assert_close(conditional[row, node], reference.log_conditional(x[row], node, tree), **EXACT)
            torch.testing.assert_close(absolute[row, node], reference.log_prob(x[row], node, tree), **EXACT)


@given(trees(), seeds)
@settings(deadline=None, max_examples=30)
def test_each_group_sums_to_one_and_children_sum_to_their_parent(tree, seed):
    x = logits(1, tree, seed)
    conditional, absolute = tree_log_softmax(x, tree)[0].exp(), tree_log_prob(x, tree)[0].exp()
    for node in range(-1, len(tree)):
        below = list(tree.children(node))
        if below:
            assert float(conditional[below].sum()) == pytest.approx(1)
            assert float(absolute[below].sum()) == pytest.approx(1 if node == -1 else float(absolute[node]))


@pytest.mark.parametrize("function", [tree_log_softmax, tree_log_prob])
def test_nodes_may_stand_in_any_dimension(function):
    x = logits(2 * 3 * 4, SMALL, seed=1).reshape(2, 3, 4, len(SMALL))
    last = function(x, SMALL)
    assert torch.equal(function(x.movedim(-1, 1), SMALL, dim=1), last.movedim(-1, 1))
    assert torch.equal(function(x.movedim(-1, 0), SMALL, dim=0), last.movedim(-1, 0))
    assert torch.equal(function(x, SMALL, dim=3), last)


@pytest.mark.parametrize("function", [tree_log_softmax, tree_log_prob])
def test_softmax_of_no_rows_is_no_rows(function):
    assert function(torch.zeros(0, len(SMALL)), SMALL).shape == (0, len(SMALL))
    assert function(torch.zeros(2, 0, len(SMALL)), SMALL).shape == (2, 0, len(SMALL))


def test_single_children_are_certain_and_one_node_trees_work():
    assert tree_log_softmax(torch.tensor([123.0]), ONE).tolist() == [0.0]
    assert tree_log_prob(torch.tensor([-7.0, 50.0, 3.0]), CHAIN).tolist() == [0.0, 0.0, 0.0]
    assert float(tree_cross_entropy(torch.tensor([[5.0, 1.0, -9.0]]), torch.tensor([2]), CHAIN)) == 0.0
    assert descend(torch.tensor([5.0, 1.0, -9.0]), CHAIN)[0] == 2


@pytest.mark.parametrize("function", [tree_log_softmax, tree_log_prob])
@pytest.mark.parametrize("seed", range(3))
def test_softmax_gradients_are_right(function, seed):
    tree = random_tree(12, seed, most_children=4)
    x = logits(2, tree, seed, scale=1.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: function(v, tree), x)


def test_softmax_of_a_large_tree_equals_a_softmax_a_group():
    tree = random_tree(3000, most_children=40)
    x = logits(3, tree, seed=2)
    expected = torch.cat([group.log_softmax(1) for group in x.split(tree.group_size.tolist(), dim=1)], dim=1)
    torch.testing.assert_close(tree_log_softmax(x, tree), expected, **EXACT)


# ---------------------------------------------------------------------- loss


@given(trees(), seeds, st.sampled_from([0.0, 0.1, 0.7, 1.0]), st.sampled_from([None, "shared", "by row"]))
@settings(deadline=None, max_examples=60)
def test_cross_entropy_equals_the_walk_over_the_path(tree, seed, smoothing, known_kind):
    random = np.random.RandomState(seed)
    x = logits(4, tree, seed)
    targets = torch.from_numpy(random.randint(-1, len(tree), 4))
    known = None if known_kind is None else torch.from_numpy(random.rand(4, len(tree)) < 0.6)
    given_known = known[0] if known_kind == "shared" else known
    rows = [
        reference.cross_entropy(
            x[i],
            int(targets[i]),
            tree,
            None if known is None else known[0 if known_kind == "shared" else i],
            smoothing,
        )
        for i in range(4)
    ]
    loss = tree_cross_entropy(x, targets, tree, given_known, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(loss, torch.stack(rows), **EXACT)
    # one loss equals another computed from log-probabilities where nothing is smoothed or hidden
    if smoothing == 0.0 and known is None and int(targets[0]) >= 0:
        torch.testing.assert_close(loss[0], -tree_log_prob(x, tree)[0, targets[0]], **EXACT)


@given(trees(), seeds)
@settings(deadline=None, max_examples=30)
def test_weights_and_reductions_are_sums_over_the_rows_that_have_a_target(tree, seed):
    random = np.random.RandomState(seed)
    x = logits(5, tree, seed)
    targets = torch.from_numpy(random.randint(-1, len(tree), 5))
    weight = torch.from_numpy(random.rand(len(tree)) + 0.1)
    rows = [reference.cross_entropy(x[i], int(targets[i]), tree) for i in range(5)]
    shares = [float(weight[targets[i]]) if targets[i] >= 0 else 0.0 for i in range(5)]
    total = sum(share * float(row) for share, row in zip(shares, rows, strict=True))
    by = functools.partial(tree_cross_entropy, x, targets, tree, weight=weight)
    assert float(by(reduction="sum")) == pytest.approx(total)
    assert float(by(reduction="mean")) == pytest.approx(total / sum(shares) if sum(shares) else 0.0)
    assert by(reduction="none").tolist() == pytest.approx([s * float(r) for s, r in zip(shares, rows, strict=True)])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.2}, {"weight": torch.tensor([0.5, 1, 2, 3, 4.0]).double()}]
)
def test_a_flat_tree_is_torchs_own_cross_entropy(options, reduction):
    x, targets = logits(7, FLAT, seed=3), torch.tensor([0, 4, 2, 2, 1, 3, 0])
    ours = tree_cross_entropy(x, targets, FLAT, reduction=reduction, **options)
    torch.testing.assert_close(ours, functional.cross_entropy(x, targets, reduction=reduction, **options), **EXACT)


def test_targets_may_have_any_shape():
    x, targets = logits(6, SMALL, seed=4), torch.tensor([5, 0, -1, 3, 4, 2])
    flat = tree_cross_entropy(x, targets, SMALL, reduction="none")
    folded = tree_cross_entropy(x.view(2, 3, -1), targets.view(2, 3), SMALL, reduction="none")
    assert torch.equal(folded, flat.view(2, 3))
    single = tree_cross_entropy(x[0], targets[0], SMALL, reduction="none")
    torch.testing.assert_close(single, flat[0], **EXACT)
    assert float(flat[2]) == 0.0


@pytest.mark.parametrize("seed", range(4))
def test_loss_gradients_are_right(seed):
    tree = random_tree(14, seed, most_children=4)
    random = np.random.RandomState(seed)
    x = logits(3, tree, seed, scale=1.0).requires_grad_()
    targets = torch.from_numpy(random.randint(-1, len(tree), 3))
    known = torch.from_numpy(random.rand(len(tree)) < 0.7)
    assert torch.autograd.gradcheck(lambda v: tree_cross_entropy(v, targets, tree, known, label_smoothing=0.1), x)


@given(trees(), seeds)
@settings(deadline=None, max_examples=40)
def test_a_label_leaves_everything_below_and_beside_its_path_alone(tree, seed):
    random = np.random.RandomState(seed)
    target = random.randint(len(tree))
    x = logits(1, tree, seed).requires_grad_()
    tree_cross_entropy(x, torch.tensor([target]), tree, label_smoothing=0.1).backward()
    asked = {other for step in reference.path(target, tree) for other in reference.siblings(step, tree)}
    for node in set(range(len(tree))) - asked:
        assert float(x.grad[0, node]) == 0.0  # exactly
    for step in reference.path(target, tree):
        if len(group := reference.siblings(step, tree)) > 1:
            assert float(x.grad[0, group].abs().sum()) > 0


def test_an_unknown_sibling_gets_no_gradient_and_the_target_always_stays():
    x = logits(1, SMALL, seed=5).requires_grad_()
    known = torch.tensor([False, True, True, True, True, True])  # "animal" itself is not known, "plant" is
    loss = tree_cross_entropy(x, torch.tensor([0]), SMALL, known=known)
    torch.testing.assert_close(loss, functional.cross_entropy(x[:, :2], torch.tensor([0])), **EXACT)
    nothing = torch.zeros(len(SMALL), dtype=torch.bool)
    alone = tree_cross_entropy(x, torch.tensor([3]), SMALL, known=nothing)
    assert alone.item() == 0.0
    alone.backward()
    assert not x.grad.any()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("targets", [[], [-1, -1]])
def test_batches_without_a_target_cost_nothing_and_never_nan(targets, reduction):
    x = torch.randn(len(targets), len(SMALL), requires_grad=True)
    weight = torch.ones(len(SMALL))
    for options in ({}, {"weight": weight}, {"label_smoothing": 0.1}):
        loss = tree_cross_entropy(x, torch.tensor(targets, dtype=torch.int64), SMALL, reduction=reduction, **options)
        assert loss.item() == 0.0
        (gradient,) = torch.autograd.grad(loss, x)
        assert not gradient.any()  # NaN would be true


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_large_logits_stay_finite_in_every_precision(dtype):
    tree = random_tree(60, seed=6)
    x = (torch.randn(8, len(tree), generator=torch.Generator().manual_seed(0)) * 40).to(dtype).requires_grad_()
    loss = tree_cross_entropy(x, torch.arange(8) + 40, tree)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(tree_log_prob(x, tree)).all()
    nodes, log_probs = descend(x, tree, 0.3)
    assert torch.isfinite(log_probs).all()
    wide_nodes, wide_log_probs = descend(x.float(), tree, 0.3)
    assert torch.equal(nodes, wide_nodes)
    torch.testing.assert_close(log_probs, wide_log_probs)


def test_a_group_far_below_the_rows_largest_logit_keeps_its_own_softmax():
    x = torch.tensor([[500.0, 499.0, -500.0, -501.0, 0.0, 0.0]], requires_grad=True)  # dog and cat far below animal
    tree_cross_entropy(x, torch.tensor([3]), SMALL).backward()
    expected = torch.tensor([-500.0, -501.0]).softmax(0)
    torch.testing.assert_close(x.grad[0, 2:4], torch.stack((expected[0], expected[1] - 1)))


# ---------------------------------------------------------------------- descent


@given(
    trees(), seeds, st.sampled_from([0.0, 0.03, 0.2, 0.51, 0.9]), st.sampled_from(["path", "darknet", "darknet-2018"])
)
@settings(deadline=None, max_examples=100)
def test_descent_equals_the_walk_from_the_root_under_each_rule(tree, seed, threshold, rule):
    x = logits(3, tree, seed)
    nodes, log_probs = descend(x, tree, threshold, rule)
    for row in range(3):
        node, log_prob, tried = reference.descend(x[row], tree, threshold, rule)
        if any(threshold and abs(held - np.log(threshold)) < 1e-9 for held in tried):
            continue  # on the threshold itself, rounding decides
        assert int(nodes[row]) == node
        assert float(log_probs[row]) == pytest.approx(log_prob, abs=1e-9)


def test_the_three_rules_differ_where_the_released_code_differs_from_the_paper():
    probable = torch.tensor([2.0, 0.0, 1.0, 0.0, 0.0, 0.0])  # Pr(animal) .88, Pr(dog) .64, Pr(poodle) .64
    assert int(descend(probable, SMALL, 0.6)[0]) == 5
    assert int(descend(probable, SMALL, 0.6, rule="darknet")[0]) == 0  # .88 x .64 is not above .6
    unsure = torch.zeros(6)
    assert [int(descend(unsure, SMALL, 0.6, rule=rule)[0]) for rule in ("path", "darknet", "darknet-2018")] == [
        -1,
        -1,
        0,
    ]


def test_a_step_is_taken_above_the_threshold_not_on_it():
    nodes, log_probs = descend(torch.zeros(6, dtype=torch.float64), SMALL, threshold=0.5)
    assert (int(nodes), float(log_probs)) == (-1, 0.0)
    assert int(descend(torch.zeros(3), CHAIN, threshold=1.0)[0]) == -1  # Pr is 1, exactly
    assert int(descend(torch.zeros(6), SMALL, threshold=0.49)[0]) == 0
    assert int(descend(torch.zeros(6), SMALL, threshold=0.0)[0]) == 5
    assert int(descend(torch.zeros(6), SMALL, threshold=1.0)[0]) == -1


def test_ties_go_to_the_lowest_node():
    assert int(descend(torch.zeros(5), FLAT, threshold=0.1)[0]) == 0
    assert int(descend(torch.tensor([0.0, 2.0, 1.0, 2.0, 0.0]), FLAT, threshold=0.1)[0]) == 1


@pytest.mark.parametrize("rule", ["path", "darknet", "darknet-2018"])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_a_descent_stops_above_a_group_whose_logits_say_nothing(rule, threshold):
    nan, inf = float("nan"), float("inf")
    first = 0 if rule == "darknet-2018" else -1  # its own rule for where no root child passes
    sure = [9.0, 0.0]  # of "animal"
    rows = {
        (nan,) * 6: first,
        (inf, 0.0, 0.0, 0.0, 0.0, 0.0): first,
        (-inf, -inf, 0.0, 0.0, 0.0, 0.0): first,
        (0.0, nan, 9.0, 0.0, 0.0, 0.0): first,
        (*sure, nan, 0.0, 0.0, 0.0): 0,
        (*sure, -inf, -inf, 0.0, 0.0): 0,
        (*sure, 9.0, 0.0, nan, nan): 2,
        (*sure, 9.0, 0.0, nan, 0.0): 5,  # plant's child is never met
    }
    nodes, log_probs = descend(torch.tensor(list(rows)), SMALL, threshold, rule)
    assert nodes.tolist() == list(rows.values())
    assert not log_probs.isnan().any()
    head = TreeLinear(3, SMALL)
    nodes, log_probs = head.descend(torch.full((2, 3), nan), threshold, rule)
    assert nodes.tolist() == [first, first]
    assert not log_probs.isnan().any()


def test_descent_keeps_the_shape_of_its_rows():
    x = logits(6, SMALL, seed=8).float()
    nodes, log_probs = descend(x.view(2, 3, -1), SMALL, 0.2)
    assert nodes.shape == log_probs.shape == (2, 3)
    assert torch.equal(nodes.flatten(), descend(x, SMALL, 0.2)[0])
    assert descend(x[:0], SMALL)[0].shape == (0,)


# ---------------------------------------------------------------------- TreeLinear


def heads(tree: WordTree, copies: int, features: int = 5, seed: int = 0) -> TreeLinear:
    torch.manual_seed(seed)
    head = TreeLinear(features, tree, copies).double()
    torch.nn.init.normal_(head.bias)
    return head


def big_trees() -> list:
    return [
        pytest.param(lambda: random_tree(400, seed=9), id="random-400"),
        pytest.param(oracle.tree_9418, id="yolo9000-9418", marks=needs_oracle),
    ]


def assert_lean_equals_dense(tree: WordTree, copies: int, rows: int, seed: int, **options) -> None:
    """One loss by the lean form and by the dense one: value and every gradient."""
    head = heads(tree, copies, seed=seed)
    random = np.random.RandomState(seed)
    x = torch.from_numpy(random.randn(rows, 5)).requires_grad_()
    targets = torch.from_numpy(random.randint(-1, len(tree), rows))
    copy = torch.from_numpy(random.randint(copies, size=rows)) if copies > 1 else None
    results = []
    for form in ("lean", "dense"):
        if form == "lean":
            loss = head.loss(x, targets, copy=copy, **options)
        else:
            dense = head(x) if copies == 1 else head(x)[torch.arange(rows), copy]
            loss = tree_cross_entropy(dense, targets, tree, **options)
        gradients = torch.autograd.grad(loss.sum(), (x, head.weight, head.bias))
        results.append((loss.detach(), *gradients))
    for lean, dense in zip(*results, strict=True):
        torch.testing.assert_close(lean, dense, **EXACT)


@given(trees(), st.integers(1, 3), st.integers(0, 6), seeds)
@settings(deadline=None, max_examples=40)
def test_lean_loss_equals_dense_loss_in_value_and_gradient(tree, copies, rows, seed):
    random = np.random.RandomState(seed)
    known = torch.from_numpy(random.rand(len(tree)) < 0.6)
    by_row = torch.from_numpy(random.rand(rows, len(tree)) < 0.6)
    weight = torch.from_numpy(random.rand(len(tree)) + 0.1)
    for options in (
        {},
        {"known": known},
        {"known": by_row, "reduction": "none"},
        {"weight": weight, "label_smoothing": 0.1},
        {"weight": weight, "known": by_row, "label_smoothing": 0.3, "reduction": "sum"},
    ):
        assert_lean_equals_dense(tree, copies, rows, seed, **options)


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("make", big_trees())
def test_lean_loss_equals_dense_loss_on_a_large_tree(make, copies):
    assert_lean_equals_dense(make(), copies, rows=40, seed=10, label_smoothing=0.05)


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("make", big_trees())
def test_lean_descent_equals_dense_descent(make, copies):
    tree = make()
    head = heads(tree, copies)
    with torch.no_grad():
        head.weight *= 3  # surer, so that the walks go deep
    x = torch.from_numpy(np.random.RandomState(11).randn(60, 5))
    copy = torch.arange(60) % copies if copies > 1 else None
    dense = head(x) if copies == 1 else head(x)[torch.arange(60), copy]
    for threshold, rule in ((0.0, "path"), (0.2, "path"), (0.6, "path"), (0.2, "darknet"), (0.5, "darknet-2018")):
        nodes, log_probs = head.descend(x, threshold, rule, copy)
        wanted, wanted_log_probs = descend(dense, tree, threshold, rule)
        assert torch.equal(nodes, wanted)
        torch.testing.assert_close(log_probs, wanted_log_probs, **EXACT)
    assert len(nodes.unique()) > 3


@pytest.mark.parametrize("make", big_trees())
def test_a_walk_passes_every_node_of_its_path_with_its_probability(make):
    tree = make()
    head = heads(tree, 2)
    x = torch.from_numpy(np.random.RandomState(12).randn(30, 5))
    copy = torch.arange(30) % 2
    walk = head.walk(x, 0.05, copy=copy)
    absolute = tree_log_prob(head(x)[torch.arange(30), copy], tree)
    for row in range(30):
        path = tree.path(int(walk.nodes[row]))
        steps = walk.path_log_probs[row]
        torch.testing.assert_close(steps[: len(path)], absolute[row, list(path)], **EXACT)
        assert steps[len(path) :].isnan().all()
        if path:
            assert float(walk.log_probs[row]) == float(steps[len(path) - 1])


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("make", big_trees())
def test_log_probabilities_where_asked_equal_the_dense_ones_with_gradients(make, copies):
    tree = make()
    head = heads(tree, copies)
    random = np.random.RandomState(13)
    x = torch.from_numpy(random.randn(12, 5)).requires_grad_()
    nodes = torch.from_numpy(random.randint(-1, len(tree), 12))
    nodes[0] = -1
    copy = torch.from_numpy(random.randint(copies, size=12)) if copies > 1 else None
    dense = tree_log_prob(head(x).view(12, copies, -1), tree)  # [rows, copies, nodes]
    mine = dense[torch.arange(12), 0 if copy is None else copy]  # [rows, nodes]

    def agree(lean, wanted):
        torch.testing.assert_close(lean, wanted, **EXACT)
        seed = torch.from_numpy(random.randn(*lean.shape))
        for a, b in zip(
            torch.autograd.grad((lean * seed).sum(), (x, head.weight, head.bias), retain_graph=True),
            torch.autograd.grad((wanted * seed).sum(), (x, head.weight, head.bias), retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(a, b, **EXACT)

    at_root = (nodes >= 0).double()
    agree(head.log_prob_at(x, nodes, copy), mine.gather(1, nodes.clamp(min=0)[:, None])[:, 0] * at_root)

    some = random.choice(len(tree), size=20, replace=True).tolist()  # twice the same node is allowed
    agree(head.log_probs_of(x, some, copy), mine[:, some])
    with_root = torch.cat((mine, torch.zeros_like(mine[:, :1])), 1)  # at -1, the root
    agree(head.log_probs_of(x, [-1, *some, -1], copy), with_root[:, [-1, *some, -1]])

    cells = x.view(3, 4, 5)
    wanted = dense.view(3, 4, copies, -1).gather(3, nodes[:3].clamp(min=0).view(3, 1, 1, 1).expand(3, 4, copies, 1))
    agree(head.log_prob_grid(cells, nodes[:3]), wanted[..., 0] * at_root[:3, None, None])


@given(trees(), st.integers(1, 2), seeds)
@settings(deadline=None, max_examples=30)
def test_weight_rows_off_the_asked_paths_get_a_gradient_of_exactly_zero(tree, copies, seed):
    random = np.random.RandomState(seed)
    head = heads(tree, copies)
    targets = torch.from_numpy(random.randint(-1, len(tree), 3))
    copy = torch.from_numpy(random.randint(copies, size=3))
    head.loss(torch.from_numpy(random.randn(3, 5)), targets, copy=copy, reduction="sum").backward()
    asked = {
        (int(copy[row]), other)
        for row in range(3)
        for step in reference.path(int(targets[row]), tree)
        for other in reference.siblings(step, tree)
    }
    for which in range(copies):
        for node in range(len(tree)):
            if (which, node) not in asked:
                assert not head.weight.grad[which, node].any()
                assert float(head.bias.grad[which, node]) == 0.0


def test_only_the_groups_on_the_path_are_asked_for():
    asked, members = ask_paths(tree_index(SMALL, torch.device("cpu")), torch.tensor([5, -1, 1]))
    assert list(zip(asked.row.tolist(), asked.node.tolist(), strict=True)) == [
        (0, 0), (0, 1), (0, 2), (0, 3), (0, 5), (2, 0), (2, 1),
    ]  # fmt: skip
    assert members.tolist() == [0, 2, 5, 1]
    assert segment_logsumexp(torch.zeros(7), asked).exp().tolist() == pytest.approx([2, 2, 1, 2])


def test_the_part_of_a_tree_that_decides_all_nodes_is_found_in_little_memory():
    tree = random_tree(4000, seed=5)
    every = tuple(range(len(tree)))
    restrict.cache_clear()
    tracemalloc.start()
    columns, part, places = restrict(tree, every)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert columns == places == every
    assert part == tree
    assert peak < len(tree) ** 2 / 4  # a flag for each pair of nodes would be four times that


def test_a_head_without_rows_gives_nothing_and_a_loss_of_zero():
    head = TreeLinear(5, SMALL, copies=2)
    x, none = torch.zeros(0, 5, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    loss = head.loss(x, none, copy=none)
    loss.backward()
    assert loss.item() == 0.0
    assert head.descend(x, copy=none)[0].shape == (0,)
    assert head.log_prob_at(x, none, copy=none).shape == (0,)
    assert head.log_prob_grid(torch.zeros(0, 4, 5), none).shape == (0, 4, 2)
    assert head.log_probs_of(x, [1, 2], copy=none).shape == (0, 2)
    assert head.log_probs_of(torch.zeros(3, 5), [], copy=torch.zeros(3, dtype=torch.int64)).shape == (3, 0)


def test_the_state_of_a_head_is_its_weight_and_bias_alone():
    head = TreeLinear(5, SMALL, copies=3)
    head.loss(torch.randn(2, 5), torch.tensor([5, 4]), copy=torch.tensor([0, 2]))
    assert {key: tuple(value.shape) for key, value in head.state_dict().items()} == {
        "weight": (3, len(SMALL), 5),
        "bias": (3, len(SMALL)),
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_head_under_autocast_agrees_with_full_precision(dtype):
    torch.manual_seed(0)
    head = TreeLinear(16, SMALL, copies=2)
    x, targets, copy = torch.randn(6, 16), torch.tensor([5, 3, 4, 0, 1, 2]), torch.tensor([0, 1] * 3)
    loss = head.loss(x, targets, copy=copy)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        low = x.to(dtype)
        half = head.loss(low, targets, copy=copy)
        grid = head.log_prob_grid(low.view(2, 3, 16), targets[:2])
        of = head.log_probs_of(low, [2, 5], copy=copy)
        head.walk(low, 0.2, copy=copy)
    assert half.dtype == grid.dtype == of.dtype == torch.float32
    torch.testing.assert_close(half, loss, rtol=0.03, atol=0.03)  # bfloat16 keeps 8 bits
    torch.testing.assert_close(of, head.log_probs_of(x, [2, 5], copy=copy), rtol=0.03, atol=0.05)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: tree_log_softmax(torch.zeros(2, 5), SMALL), ["(2, 5)", "5 at dim -1", "takes [..., 6]"]),
        (lambda: tree_log_prob(torch.zeros(6, 2), SMALL, dim=1), ["(6, 2)", "2 at dim 1", "takes 6"]),
        (lambda: tree_cross_entropy(torch.zeros(2, 6), torch.tensor([0]), SMALL), ["(2, 6)", "(1,)", "[..., 6]"]),
        (lambda: tree_cross_entropy(torch.zeros(1, 6), torch.tensor([6]), SMALL), ["to 6", "0 to 5", "-1"]),
        (lambda: tree_cross_entropy(torch.zeros(1, 6), torch.tensor([-2]), SMALL), ["from -2", "0 to 5"]),
        (
            lambda: tree_cross_entropy(torch.zeros(1, 6), torch.tensor([1]), SMALL, reduction="meen"),
            ["'meen'", "did you mean 'mean'", "mean, sum, none"],
        ),
        (lambda: descend(torch.zeros(2, 7), SMALL), ["(2, 7)", "[..., 6]"]),
        (lambda: descend(torch.zeros(6), SMALL, threshold=1.5), ["1.5", "0 to 1"]),
        (lambda: descend(torch.zeros(6), SMALL, rule="drknet"), ["'drknet'", "did you mean 'darknet'", "path"]),
        (lambda: TreeLinear(3, SMALL).loss(torch.zeros(1, 3), torch.tensor([9])), ["9", "0 to 5"]),
        (lambda: TreeLinear(3, SMALL).log_probs_of(torch.zeros(1, 3), [1, 6]), ["1 to 6", "0 to 5"]),
        (lambda: TreeLinear(3, SMALL).log_probs_of(torch.zeros(1, 3), [-2]), ["-2", "0 to 5"]),
        (lambda: TreeLinear(3, SMALL, copies=2).loss(torch.zeros(1, 3), torch.tensor([1])), ["no copy", "2", "copy="]),
    ],
)
def test_errors_say_what_was_asked_what_was_given_and_what_would_do(call, parts):
    with pytest.raises(WordTreeError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(
            lambda: tree_cross_entropy(torch.zeros(1, 6), torch.tensor([1]), SMALL, known=torch.ones(9).bool()),
            id="known of more nodes",
        ),
        pytest.param(
            lambda: tree_cross_entropy(torch.zeros(1, 6), torch.tensor([5]), SMALL, known=torch.ones(3).bool()),
            id="known of fewer nodes",
        ),
        pytest.param(
            lambda: tree_cross_entropy(torch.zeros(1, 6), torch.tensor([1]), SMALL, weight=torch.ones(4)),
            id="weight of fewer nodes",
        ),
        pytest.param(
            lambda: tree_cross_entropy(torch.zeros(1, 6), torch.tensor([1]), SMALL, label_smoothing=1.5),
            id="smoothing above 1",
        ),
        pytest.param(
            lambda: TreeLinear(3, SMALL).loss(torch.zeros(3, 3), torch.tensor([1, 2])), id="fewer targets than rows"
        ),
        pytest.param(
            lambda: TreeLinear(3, SMALL).loss(torch.zeros(1, 3), torch.tensor([1, 2])), id="more targets than rows"
        ),
        pytest.param(lambda: TreeLinear(3, SMALL, copies=2).log_probs_of(torch.zeros(2, 3), [1]), id="no copy given"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_not_broadcast(call):
    with pytest.raises(WordTreeError):
        call()


# ---------------------------------------------------------------------- Darknet


@needs_oracle
def test_softmax_and_probabilities_equal_darknets():
    case, tree = oracle.values("tree_softmax_classifier"), oracle.tree_9418()
    x = torch.from_numpy(case["logits"]).double()
    conditional, absolute = tree_log_softmax(x, tree).exp(), tree_log_prob(x, tree).exp()
    torch.testing.assert_close(conditional.float(), torch.from_numpy(case["cond"]), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(absolute.float(), torch.from_numpy(case["absolute"]), rtol=2e-5, atol=1e-7)
    rows = torch.arange(8)
    classes = torch.from_numpy(case["cls"])
    torch.testing.assert_close(
        absolute[rows, classes].float(), torch.from_numpy(case["hier_prob"]), rtol=2e-5, atol=1e-8
    )


@needs_oracle
def test_loss_gradient_equals_darknets_masked_cost():
    case, tree = oracle.values("tree_softmax_classifier"), oracle.tree_9418()
    x = torch.from_numpy(case["logits"]).requires_grad_()
    tree_cross_entropy(x, torch.from_numpy(case["cls"]), tree, reduction="sum").backward()
    wanted = -torch.from_numpy(case["delta_masked_cost"])
    torch.testing.assert_close(x.grad, wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(x.grad != 0, wanted != 0)


@needs_oracle
@pytest.mark.parametrize(("rule", "key"), [("path", "top_on_conditional"), ("darknet", "top_on_absolute")])
def test_descent_equals_darknets_on_conditional_and_on_absolute_probabilities(rule, key):
    case, tree = oracle.values("tree_softmax_classifier"), oracle.tree_9418()
    x = torch.from_numpy(case["logits"])
    for column, threshold in enumerate(case["thresholds"].tolist()):
        nodes, _ = descend(x, tree, threshold, rule)
        assert nodes.tolist() == case[key][:, column].tolist()


@needs_oracle
def test_descent_equals_darknets_on_a_whole_network_output():
    case, tree = oracle.values("infer_yolo9000_96"), oracle.tree_9418()
    x = torch.from_numpy(case["rin"]).view(3, 5 + len(tree), 3, 3)[:, 5:].permute(2, 3, 0, 1)  # [h, w, a, nodes]
    torch.testing.assert_close(
        tree_log_prob(x.double(), tree).exp().float(), torch.from_numpy(case["abs_prob"]), rtol=1e-4, atol=1e-7
    )
    for column, threshold in enumerate(case["tree_thresholds"].tolist()):
        nodes, _ = descend(x, tree, threshold, rule="darknet")
        assert torch.equal(nodes, torch.from_numpy(case["tree_top"][..., column]).long())


# ---------------------------------------------------------------------- GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="waits for a CUDA device")
@pytest.mark.parametrize("copies", [1, 3])
def test_lean_equals_dense_on_a_gpu(copies):
    tree = random_tree(2000, seed=14)
    head = heads(tree, copies).cuda()
    x = torch.randn(50, 5, dtype=torch.float64, device="cuda", requires_grad=True)
    targets = torch.randint(-1, len(tree), (50,), device="cuda")
    copy = torch.randint(copies, (50,), device="cuda")
    dense = head(x).view(50, copies, -1)[torch.arange(50), copy]
    lean_loss, dense_loss = head.loss(x, targets, copy=copy), tree_cross_entropy(dense, targets, tree)
    torch.testing.assert_close(lean_loss, dense_loss, **EXACT)
    for lean, full in zip(
        torch.autograd.grad(lean_loss, (x, head.weight)), torch.autograd.grad(dense_loss, (x, head.weight)), strict=True
    ):
        torch.testing.assert_close(lean, full, **EXACT)
    assert torch.equal(head.descend(x, 0.1, copy=copy)[0], descend(dense, tree, 0.1)[0])
