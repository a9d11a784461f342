"""torch.compile keeps each function whole, torch.export and ONNX take a head with its probabilities."""

import copy
import gc
import subprocess
import sys

import pytest
import torch
from strategies import random_tree

from wordtree import WordTree
from wordtree.nn import TreeLinear, descend, propagate, tree_cross_entropy, tree_log_prob, tree_log_softmax

TREE = random_tree(60)
TARGETS = torch.tensor([1, 5, -1, 7, 40, 3])
WEIGHT = torch.linspace(0.5, 2.0, len(TREE))
LEAVES = torch.tensor(TREE.leaves)
KNOWN = torch.arange(len(TREE)) % 3 > 0
SHARES = torch.rand(6, len(TREE), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def fresh():
    torch.manual_seed(0)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: tree_log_softmax(x, TREE), id="log_softmax"),
        pytest.param(lambda x: tree_log_prob(x, TREE), id="log_prob"),
        pytest.param(lambda x: tree_log_prob(x.T, TREE, dim=0), id="log_prob, channels first"),
        pytest.param(lambda x: tree_cross_entropy(x, TARGETS, TREE, reduction="none"), id="loss"),
        pytest.param(
            lambda x: tree_cross_entropy(x, TARGETS, TREE, label_smoothing=0.1, focal=2.0, weight=WEIGHT),
            id="loss, every option",
        ),
        pytest.param(lambda x: tree_cross_entropy(x.T, TARGETS, TREE, dim=0), id="loss, channels first"),
        pytest.param(lambda x: tree_log_prob(x[:, LEAVES], TREE, form="leaf"), id="leaf log_prob"),
        pytest.param(lambda x: tree_log_prob(x[:, LEAVES].T, TREE, dim=0, form="leaf"), id="leaf log_prob, first"),
        pytest.param(
            lambda x: tree_cross_entropy(
                x[:, LEAVES], TARGETS, TREE, KNOWN, label_smoothing=0.1, focal=2.0, weight=WEIGHT, form="leaf"
            ),
            id="leaf loss, every option",
        ),
        pytest.param(
            lambda x: tree_cross_entropy(x[:, LEAVES], SHARES, TREE, form="leaf", reduction="none"),
            id="leaf loss, soft",
        ),
        pytest.param(lambda x: tree_cross_entropy(x, SHARES, TREE, weight=WEIGHT), id="loss, soft"),
    ],
)
def test_a_compiled_function_is_one_graph_with_the_same_values_and_gradients(function):
    x = torch.randn(6, len(TREE), requires_grad=True)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    one, other = function(x), compiled(x)
    torch.testing.assert_close(other, one)
    weights = torch.rand_like(one)
    torch.testing.assert_close(
        torch.autograd.grad((other * weights).sum(), x), torch.autograd.grad((one * weights).sum(), x)
    )


def test_a_compiled_head_is_one_graph_with_the_same_values_and_gradients():
    head = TreeLinear(8, TREE, copies=2)
    x, copy = torch.randn(6, 8, requires_grad=True), torch.tensor([0, 1, 0, 1, 1, 0])

    def function(x):
        return head.loss(x, TARGETS, copy=copy, known=torch.ones(len(TREE), dtype=torch.bool))

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    leaves = [x, head.weight, head.bias]
    one, other = function(x), compiled(x)
    torch.testing.assert_close(other, one)
    torch.testing.assert_close(torch.autograd.grad(other, leaves), torch.autograd.grad(one, leaves))
    walk = torch.compile(lambda x: head.descend(x, 0.2, copy=copy), fullgraph=True, backend="aot_eager")
    assert torch.equal(walk(x)[0], head.descend(x, 0.2, copy=copy)[0])


def test_a_compiled_descent_is_one_graph():
    x = torch.randn(6, len(TREE), requires_grad=True)
    compiled = torch.compile(lambda x: descend(x, TREE, 0.2), fullgraph=True, backend="aot_eager")
    nodes, log_probs = compiled(x)
    wanted = descend(x, TREE, 0.2)
    assert torch.equal(nodes, wanted[0])
    torch.testing.assert_close(log_probs, wanted[1])


@pytest.mark.slow
def test_the_default_compiler_takes_a_training_step_whole():
    head = TreeLinear(8, TREE)
    x = torch.randn(6, 8)

    def step(x):
        logits = head(x)
        leaves = logits[:, LEAVES]
        told = tree_log_prob(logits, TREE).exp() + tree_log_prob(leaves, TREE, form="leaf").exp()
        return head.loss(x * 2, TARGETS) + told.mean() + tree_cross_entropy(leaves, TARGETS, TREE, form="leaf")

    compiled = torch.compile(step, fullgraph=True)
    one = torch.autograd.grad(step(x), list(head.parameters()))
    other = torch.autograd.grad(compiled(x), list(head.parameters()))
    torch.testing.assert_close(other, one)


class Whole(torch.nn.Module):
    """A head and the probabilities of all its nodes."""

    def __init__(self, tree: WordTree) -> None:
        super().__init__()
        self.head = TreeLinear(8, tree)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return tree_log_prob(self.head(x), self.head.tree)


def test_an_exported_head_gives_the_same_for_any_number_of_rows():
    module = Whole(TREE).eval()
    program = torch.export.export(module, (torch.randn(6, 8),), dynamic_shapes={"x": {0: torch.export.Dim("rows")}})
    for rows in (2, 6, 31):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(program.module()(x), module(x))
    assert set(module.state_dict()) == {"head.weight", "head.bias"}


class Leafy(torch.nn.Module):
    """A layer of leaves, and the probabilities of all nodes or a loss."""

    def __init__(self, tree: WordTree, loss: bool) -> None:
        super().__init__()
        self.tree, self.loss, self.layer = tree, loss, torch.nn.Linear(8, len(tree.leaves))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.layer(x)
        if self.loss:
            return tree_cross_entropy(logits, TARGETS, self.tree, form="leaf", reduction="none")
        return tree_log_prob(logits, self.tree, form="leaf")


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("loss", [False, True])
def test_the_leaf_form_is_exported_and_leaves_the_tree_as_it_was_for_all_others(strict, loss):
    tree = random_tree(50 + 2 * loss + strict, seed=9)  # one that nothing else asked for tables of
    module = Leafy(tree, loss).eval()
    rows = None if loss else {"x": {0: torch.export.Dim("rows")}}
    program = torch.export.export(module, (torch.randn(6, 8),), dynamic_shapes=rows, strict=strict)
    x = torch.randn(6 if loss else 3, 8)
    found = module(x)
    assert type(found) is torch.Tensor  # not the stand-in that an export computes with
    torch.testing.assert_close(program.module()(x), found)


@pytest.mark.parametrize("module", [Whole(TREE), Leafy(TREE, loss=False)], ids=["conditional", "leaf"])
def test_onnxruntime_agrees_to_a_hundred_thousandth(tmp_path, module):
    import onnxruntime

    module.eval()
    file = tmp_path / "head.onnx"
    x = torch.randn(5, 8)
    torch.onnx.export(
        module, (x,), str(file), dynamo=True, dynamic_shapes={"x": {0: torch.export.Dim("rows")}}, verbose=False
    )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for rows in (1, 5, 12):
        x = torch.randn(rows, 8)
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), module(x).detach(), rtol=0, atol=1e-5)


def test_a_pickled_tree_is_still_the_tree_that_operators_find():
    code = """
import pickle, sys, torch
from wordtree import WordTree
from wordtree.nn import tree_log_softmax
tree = pickle.loads(pickle.dumps(WordTree(["a", "b"], [-1, -1])))
f = torch.compile(lambda x: tree_log_softmax(x, tree), fullgraph=True, backend="aot_eager")
print(f(torch.zeros(2)).exp().tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "[0.5, 0.5]", done.stderr


def test_a_compiled_function_outlives_an_equal_copy_of_its_tree():
    tree = random_tree(30, seed=3)
    x = torch.randn(2, len(tree))
    compiled = torch.compile(lambda x: tree_log_prob(x, tree), fullgraph=True, backend="eager")
    before = compiled(x)
    twin = copy.deepcopy(tree)
    del twin
    gc.collect()
    assert torch.equal(compiled(x), before)


def test_propagation_compiles_into_one_graph():
    x = torch.rand(3, len(TREE))
    compiled = torch.compile(lambda x: propagate(x, TREE), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), propagate(x, TREE))
