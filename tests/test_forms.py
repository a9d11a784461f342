"""More of the losses, each by its formula: focal, soft targets, channels first, the leaf form, propagation."""

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import logits, random_tree, seeds, trees
from torch.nn import functional

from wordtree import WordTree, WordTreeError
from wordtree.nn import (
    TreeLinear,
    descend,
    propagate,
    tree_cross_entropy,
    tree_log_prob,
    tree_log_softmax,
)
from wordtree.nn.softmax import CACHE, leaf_spans, sum_up_

EXACT = {"rtol": 1e-10, "atol": 1e-10}
SMALL = WordTree(["animal", "plant", "dog", "cat", "oak", "poodle"], [-1, -1, 0, 0, 1, 2])
FLAT = WordTree([f"class{n}" for n in range(5)], [-1] * 5)


def drawn_targets(tree: WordTree, rows: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(seed).randint(-1, len(tree), size=rows))


# ---------------------------------------------------------------------- focal


@given(trees(), seeds, st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.0, 0.1]))
@settings(deadline=None, max_examples=40)
def test_focal_weighs_each_step_of_the_path_by_how_far_it_was_missed(tree, seed, gamma, smoothing):
    x, targets = logits(3, tree, seed), drawn_targets(tree, 3, seed)
    found = tree_cross_entropy(x, targets, tree, focal=gamma, label_smoothing=smoothing, reduction="none")
    for row, target in enumerate(targets.tolist()):
        wanted = torch.zeros((), dtype=torch.float64)
        for node in tree.path(target):
            group = list(tree.children(int(tree.parents[node])))
            log_share = x[row, group].log_softmax(0)
            hit = log_share[group.index(node)]
            term = -(1 - smoothing) * hit - smoothing * log_share.mean()
            wanted += (1 - hit.exp()).clamp(min=0) ** gamma * term
        torch.testing.assert_close(found[row], wanted, **EXACT)


def test_focal_on_a_flat_tree_is_the_published_focal_loss_and_zero_is_cross_entropy():
    x, targets = logits(6, FLAT, 1), torch.tensor([0, 1, 2, 3, 4, 0])
    share = x.softmax(-1).gather(1, targets[:, None])[:, 0]
    wanted = (-((1 - share) ** 2) * share.log()).mean()
    torch.testing.assert_close(tree_cross_entropy(x, targets, FLAT, focal=2.0), wanted, **EXACT)
    torch.testing.assert_close(
        tree_cross_entropy(x, targets, FLAT, focal=0.0), functional.cross_entropy(x, targets), **EXACT
    )


@pytest.mark.parametrize("options", [{"focal": 2.0}, {"focal": 1.5, "label_smoothing": 0.2}, {"label_smoothing": 0.2}])
@pytest.mark.parametrize("masked", [False, True])
def test_derivatives_are_right_with_every_option(options, masked):
    x = logits(4, SMALL, 3, scale=1.0).requires_grad_()
    targets = torch.tensor([5, 3, 0, -1])
    known = torch.tensor([True, True, True, False, True, True]) if masked else None
    assert torch.autograd.gradcheck(lambda x: tree_cross_entropy(x, targets, SMALL, known=known, **options), [x])
    head = TreeLinear(3, SMALL).double()
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def of(z, weight, bias):
        head_loss = functional.linear(z, weight[0], bias[0])
        return tree_cross_entropy(head_loss, targets, SMALL, known=known, **options)

    dense = torch.autograd.grad(of(z, head.weight, head.bias), [z, head.weight, head.bias])
    lean = torch.autograd.grad(head.loss(z, targets, known=known, **options), [z, head.weight, head.bias])
    for one, other in zip(lean, dense, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def test_a_certain_focal_step_has_a_finite_gradient():
    x = torch.tensor([[100.0, -100.0, 100.0, -100.0, 0.0, 0.0]], requires_grad=True)
    tree_cross_entropy(x, torch.tensor([2]), SMALL, focal=0.5).backward()
    assert bool(x.grad.isfinite().all())


# ---------------------------------------------------------------------- soft targets and propagation


@given(trees(), seeds)
@settings(deadline=None, max_examples=40)
def test_soft_targets_are_the_mean_of_the_losses_of_their_nodes(tree, seed):
    random = np.random.RandomState(seed)
    x = logits(3, tree, seed)
    share = torch.from_numpy(random.dirichlet(np.ones(len(tree)), 3) * (random.rand(3, len(tree)) < 0.6))
    found = tree_cross_entropy(x, share, tree, reduction="none")
    for row in range(3):
        wanted = sum(-share[row, node] * reference.log_prob(x[row], node, tree) for node in range(len(tree)))
        torch.testing.assert_close(found[row], torch.as_tensor(wanted, dtype=torch.float64), **EXACT)


def test_soft_targets_of_one_node_are_that_node_weights_and_reductions_too():
    x, targets = logits(4, SMALL, 2), torch.tensor([5, 3, 0, 1])
    share = functional.one_hot(targets, len(SMALL)).double()
    weight = torch.arange(1.0, 7.0, dtype=torch.float64)
    for options in ({}, {"weight": weight}):
        for reduction in ("mean", "sum", "none"):
            torch.testing.assert_close(
                tree_cross_entropy(x, share, SMALL, reduction=reduction, **options),
                tree_cross_entropy(x, targets, SMALL, reduction=reduction, **options),
                **EXACT,
            )


def test_soft_targets_leave_logits_that_were_masked_away_alone():
    x = logits(1, SMALL, 2)
    x[0, 4] = -torch.inf  # oak, an only child; and a sibling without any share
    x[0, 3] = -torch.inf
    share = torch.tensor([[0.0, 0.5, 0.0, 0.0, 0.0, 0.5]], dtype=torch.float64)
    x.requires_grad_()
    loss = tree_cross_entropy(x, share, SMALL)
    assert bool(loss.isfinite())


@given(trees(), seeds)
@settings(deadline=None, max_examples=40)
def test_propagate_adds_each_nodes_value_to_all_above_it(tree, seed):
    random = np.random.RandomState(seed)
    values = torch.from_numpy(random.rand(2, len(tree)))
    marks = torch.from_numpy(random.rand(2, len(tree)) < 0.3)
    above = torch.from_numpy(tree.propagate(np.arange(len(tree))))  # [i, j]: j is i or above it
    torch.testing.assert_close(propagate(values, tree), values @ above.double(), **EXACT)
    assert torch.equal(propagate(marks, tree), (marks[:, :, None] & above).any(1))
    assert torch.equal(propagate(values.T, tree, dim=0), propagate(values, tree).T)
    weights = torch.from_numpy(random.rand(2, len(tree)))
    values.requires_grad_()
    (grad,) = torch.autograd.grad((propagate(values, tree) * weights).sum(), values)
    torch.testing.assert_close(grad, weights @ above.double().T, **EXACT)


# ---------------------------------------------------------------------- channels first


@given(trees(), seeds, st.sampled_from([{}, {"focal": 2.0}, {"label_smoothing": 0.1}, {"known": True}]))
@settings(deadline=None, max_examples=40)
def test_nodes_in_the_middle_give_the_loss_and_gradient_of_nodes_at_the_end(tree, seed, options):
    x = logits(2 * 3 * 2, tree, seed).reshape(2, 3, 2, len(tree))
    targets = drawn_targets(tree, 12, seed).reshape(2, 3, 2)
    known = torch.from_numpy(np.random.RandomState(seed).rand(*x.shape) < 0.7) if "known" in options else None
    rest = {key: value for key, value in options.items() if key != "known"}
    last = x.clone().requires_grad_()
    first = x.movedim(-1, 1).contiguous().requires_grad_()
    one = tree_cross_entropy(last, targets, tree, known=known, reduction="none", **rest)
    at_one = None if known is None else known.movedim(-1, 1)
    other = tree_cross_entropy(first, targets, tree, known=at_one, reduction="none", dim=1, **rest)
    torch.testing.assert_close(other, one, **EXACT)
    weights = torch.rand_like(one)
    (of_last,) = torch.autograd.grad((one * weights).sum(), last)
    (of_first,) = torch.autograd.grad((other * weights).sum(), first)
    torch.testing.assert_close(of_first.movedim(1, -1), of_last, **EXACT)
    nodes, log_probs = descend(x, tree, 0.4)
    again = descend(first.detach(), tree, 0.4, dim=1)
    assert torch.equal(again[0], nodes)
    torch.testing.assert_close(again[1], log_probs, **EXACT)


@pytest.mark.parametrize("rows", [1, 2000])
def test_blocks_that_fill_the_cache_and_blocks_that_do_not_agree(rows):
    tree = random_tree(3 * CACHE // 2000)
    assert rows == 1 or len(tree) * rows > 2 * CACHE
    x = torch.randn(len(tree), rows, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(len(tree), rows, dtype=torch.float64)
    for function in (tree_log_softmax, tree_log_prob):
        one = function(x, tree, dim=0)
        other = function(x.T, tree)
        torch.testing.assert_close(one, other.T, **EXACT)
        (of_one,) = torch.autograd.grad((one * weights).sum(), x)
        (of_other,) = torch.autograd.grad((other * weights.T).sum(), x)
        torch.testing.assert_close(of_one, of_other, **EXACT)


def test_the_result_leaves_what_it_was_computed_from_alone():
    x = logits(3, SMALL, 1)
    before = x.clone()
    with torch.no_grad():
        conditional = tree_log_softmax(x, SMALL)
        kept = conditional.clone()
        tree_log_prob(x, SMALL)
        propagate(x, SMALL)
    assert torch.equal(x, before)
    assert torch.equal(conditional, kept)


# ---------------------------------------------------------------------- one softmax over the leaves


@given(trees(), seeds)
@settings(deadline=None, max_examples=40)
def test_in_the_leaf_form_a_node_has_the_sum_of_the_leaves_below_it(tree, seed):
    x = logits(2, WordTree([str(n) for n in range(len(tree.leaves))], [-1] * len(tree.leaves)), seed)
    share = torch.zeros(2, len(tree), dtype=torch.float64)
    share[:, torch.from_numpy(tree.leaves.copy())] = x.softmax(-1)
    wanted = sum_up_(share, tree, -1)
    found = tree_log_prob(x, tree, form="leaf")
    torch.testing.assert_close(found.exp(), wanted, **EXACT)
    torch.testing.assert_close(tree_log_prob(x.T, tree, dim=0, form="leaf"), found.T, **EXACT)
    targets = drawn_targets(tree, 2, seed)
    losses = tree_cross_entropy(x, targets, tree, reduction="none", form="leaf")
    for row, target in enumerate(targets.tolist()):
        nothing = torch.zeros((), dtype=torch.float64)
        torch.testing.assert_close(losses[row], -found[row, target] if target >= 0 else nothing, **EXACT)


@given(trees(), seeds)
@settings(deadline=None, max_examples=30)
def test_leaf_spans_hold_the_leaves_below_each_node_and_no_others(tree, seed):
    leaves, place, first, last = leaf_spans(tree, torch.device("cpu"))
    assert sorted(place.tolist()) == list(range(len(leaves)))
    above = tree.propagate(leaves.numpy())
    for node in range(len(tree)):
        inside = (place >= first[node]) & (place <= last[node])
        assert inside.tolist() == above[:, node].tolist()


def test_the_leaf_form_on_a_flat_tree_is_torchs_own_cross_entropy():
    x, targets = logits(6, FLAT, 1), torch.tensor([0, 1, 2, 3, 4, 0])
    for smoothing in (0.0, 0.1):
        torch.testing.assert_close(
            tree_cross_entropy(x, targets, FLAT, form="leaf", label_smoothing=smoothing),
            functional.cross_entropy(x, targets, label_smoothing=smoothing),
            **EXACT,
        )
    torch.testing.assert_close(
        tree_cross_entropy(x, targets, FLAT, form="leaf", focal=2.0),
        tree_cross_entropy(x, targets, FLAT, focal=2.0),
        **EXACT,
    )


def test_in_the_leaf_form_unknown_leaves_leave_the_denominator_but_those_below_the_target_stay():
    x = logits(2, FLAT, 1)[:, : len(SMALL.leaves)].clone().requires_grad_()  # plant's oak, cat, poodle by node order
    names = [SMALL.names[node] for node in SMALL.leaves]
    known = torch.ones(len(SMALL), dtype=torch.bool)
    known[SMALL.find("cat")] = known[SMALL.find("poodle")] = False
    losses = tree_cross_entropy(
        x, torch.tensor([SMALL.find("dog"), SMALL.find("oak")]), SMALL, known=known, form="leaf", reduction="none"
    )
    oak, poodle = names.index("oak"), names.index("poodle")
    torch.testing.assert_close(losses[0], -x[0, [oak, poodle]].log_softmax(0)[1], **EXACT)
    assert float(losses[1]) == 0.0
    (grad,) = torch.autograd.grad(losses.sum(), x)
    assert float(grad[0, names.index("cat")]) == 0.0


@given(trees(), seeds, st.floats(0.05, 0.95))
@settings(deadline=None, max_examples=40)
def test_a_descent_takes_log_probabilities_of_either_form(tree, seed, threshold):
    x = logits(3, tree, seed)
    nodes, log_probs = descend(x, tree, threshold)
    again, their = descend(tree_log_prob(x, tree), tree, threshold)
    assert torch.equal(nodes, again)
    torch.testing.assert_close(log_probs, their, **EXACT)
    leaf = x[:, : len(tree.leaves)]
    absolute = tree_log_prob(leaf, tree, form="leaf")
    nodes, log_probs = descend(absolute, tree, threshold)
    for row, node in enumerate(nodes.tolist()):
        if node >= 0:
            torch.testing.assert_close(log_probs[row], absolute[row, node], rtol=1e-8, atol=1e-8)


@given(trees(), seeds)
@settings(deadline=None, max_examples=25)
def test_gradients_in_the_leaf_form_are_right_with_leaves_masked_away_too(tree, seed):
    random = np.random.RandomState(seed)
    x = torch.from_numpy(random.randn(2, len(tree.leaves)))
    weights = torch.from_numpy(random.randn(2, len(tree)))
    assert torch.autograd.gradcheck(lambda x: tree_log_prob(x, tree, form="leaf"), x.requires_grad_())
    gone = torch.from_numpy(random.rand(len(tree.leaves)) < 0.4)
    if gone.all():
        return
    masked = x.detach().masked_fill(gone, -torch.inf).requires_grad_()
    probs = tree_log_prob(masked, tree, form="leaf").exp()  # a sum of a softmax's, by torch's own rules
    leaves = torch.from_numpy(tree.leaves.copy())
    slow = masked.softmax(-1) @ torch.from_numpy(tree.propagate(leaves.numpy())).double()
    one, other = (torch.autograd.grad((values * weights).sum(), masked)[0] for values in (probs, slow))
    torch.testing.assert_close(probs, slow, **EXACT)
    torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("form", ["conditional", "leaf"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32_and_rounded_once(form, dtype):
    tree = random_tree(600, seed=1)
    wide = torch.randn(20, len(tree) if form == "conditional" else len(tree.leaves)) * 5
    half = wide.to(dtype).requires_grad_()
    found = tree_log_prob(half, tree, form=form)
    assert torch.equal(found, tree_log_prob(half.detach().float(), tree, form=form).to(dtype))
    (gradient,) = torch.autograd.grad(found.float().sum(), half)
    assert gradient.dtype == dtype
    assert torch.isfinite(gradient).all()


def test_leaf_probabilities_far_below_a_float_do_not_underflow():
    x = torch.tensor([[0.0, -500.0, -900.0]])  # cat, oak, poodle
    found = tree_log_prob(x, SMALL, form="leaf")[0]
    assert found.tolist() == [0.0, -500.0, -900.0, 0.0, -500.0, -900.0]


# ---------------------------------------------------------------------- a sparse gradient


@pytest.mark.parametrize("copies", [1, 3])
def test_a_sparse_gradient_is_the_dense_one_at_the_rows_that_were_read(copies):
    tree = random_tree(300)
    torch.manual_seed(0)
    dense, lean = TreeLinear(6, tree, copies), TreeLinear(6, tree, copies, sparse=True)
    lean.load_state_dict(dense.state_dict())
    x, targets = torch.randn(9, 6), drawn_targets(tree, 9, 0)
    copy = torch.arange(9) % copies if copies > 1 else None
    for head in (dense, lean):
        head.loss(x, targets, copy=copy).backward()
    assert lean.weight.grad.is_sparse
    read = lean.weight.grad.coalesce().indices().shape[1]
    assert 0 < read < copies * len(tree) / 2
    torch.testing.assert_close(lean.weight.grad.to_dense(), dense.weight.grad)
    torch.testing.assert_close(lean.bias.grad, dense.bias.grad)
    before = lean.weight.detach().clone()
    torch.optim.SparseAdam([lean.weight], lr=0.1).step()
    changed = (lean.weight != before).any(-1).sum()
    assert 0 < int(changed) <= read


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_one_by_one_and_the_whole_matrix_agree(dtype, monkeypatch):
    from wordtree.nn import linear

    tree = random_tree(2000)
    torch.manual_seed(0)
    head = TreeLinear(16, tree, copies=2).to(dtype)
    x, targets = torch.randn(40, 16, dtype=dtype, requires_grad=True), drawn_targets(tree, 40, 0)
    copy = torch.arange(40) % 2
    found = {}
    for share in (0.0, 2.0):  # never, always
        monkeypatch.setattr(linear, "SPARSE_BELOW", share)
        loss = head.loss(x, targets, copy=copy)
        found[share] = loss, *torch.autograd.grad(loss, [x, head.weight, head.bias])
    for one, other in zip(found[0.0], found[2.0], strict=True):
        torch.testing.assert_close(one, other)


# ---------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: tree_log_prob(torch.zeros(2, 6), SMALL, form="leef"), ["'leef'", "did you mean 'leaf'"]),
        (lambda: tree_log_prob(torch.zeros(2, 6), SMALL, form="leaf"), ["(2, 6)", "3 leaves", "[..., 3]"]),
        (lambda: tree_cross_entropy(torch.zeros(1, 6), torch.tensor([1]), SMALL, focal=-1.0), ["-1.0", "0 or more"]),
        (lambda: tree_cross_entropy(torch.zeros(1, 6), torch.tensor([1]), SMALL, form="lef"), ["'lef'", "leaf"]),
        (
            lambda: tree_cross_entropy(torch.zeros(1, 6), torch.zeros(1, 6), SMALL, label_smoothing=0.1),
            ["soft targets", "label_smoothing", "int64"],
        ),
        (lambda: tree_cross_entropy(torch.zeros(1, 6), torch.zeros(1, 5), SMALL), ["(1, 5)", "6"]),
        (lambda: tree_cross_entropy(torch.zeros(8, 6), torch.zeros(6), SMALL), ["(6,)", "(8, 6)", "[8, 6]"]),
        (lambda: tree_cross_entropy(torch.zeros(1, 6), torch.zeros(8, 6), SMALL), ["(8, 6)", "(1, 6)", "[1, 6]"]),
        (lambda: tree_cross_entropy(torch.zeros(8, 6), torch.zeros(1, 6), SMALL), ["(1, 6)", "(8, 6)", "[8, 6]"]),
        (
            lambda: tree_cross_entropy(torch.zeros(8, 3), torch.zeros(1, 6), SMALL, form="leaf"),
            ["(1, 6)", "(8, 3)", "[8, 6]"],
        ),
        (lambda: tree_cross_entropy(torch.zeros(8, 6), torch.zeros(8, 6), SMALL, form="leaf"), ["(8, 6)", "3 leaves"]),
        (
            lambda: tree_cross_entropy(torch.zeros(2, 6, 4), torch.zeros(2, 6, 1), SMALL, dim=1),
            ["(2, 6, 1)", "[2, 6, 4]"],
        ),
        (
            lambda: tree_cross_entropy(torch.zeros(1, 6), torch.zeros(1, 6), SMALL, weight=torch.ones(1)),
            ["weight of shape (1,)", "[6]"],
        ),
        (lambda: propagate(torch.zeros(5), SMALL), ["(5,)", "6"]),
        (lambda: tree_cross_entropy(torch.zeros(6, 4), torch.zeros(6, dtype=torch.int64), SMALL, dim=0), ["(6, 4)"]),
    ],
)
def test_errors_name_what_was_given_and_what_would_do(call, parts):
    with pytest.raises(WordTreeError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value)
