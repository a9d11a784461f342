"""What may be answered is chosen at run time: each choice is the slow walk's answer, and none changes a probability."""

import math

import oracle
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import needs_oracle
from strategies import logits, random_tree, seeds, trees
from test_modes import dense_detector, flat
from torch import Tensor

from wordtree import WordTree, WordTreeError
from wordtree.nn import TreeLinear, most_information, tree_log_prob
from yolo9000.choice import Choice
from yolo9000.images import Placement

#      animal  plant
#     /  |        \
#  dog  cat       oak
#   |
# poodle
SMALL = WordTree(["animal", "plant", "dog", "cat", "oak", "poodle"], [-1, -1, 0, 0, 1, 2])
ANIMAL, PLANT, DOG, CAT, OAK, POODLE = range(6)
WHOLE = Placement(0.0, 0.0, 1.0, 1.0, 100, 100)


def walked(x: Tensor, tree: WordTree, choice: Choice, threshold: float = 0.5, rule: str = "path"):
    """The walk of logits [rows, nodes] through a layer that hands them on."""
    layer = TreeLinear(len(tree), tree).to(x.dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(len(tree))[None])
        layer.bias.zero_()
    return layer.walk(x, threshold, rule, scope=choice.scope(tree, x.device))


def slow_answer(
    x: Tensor,
    tree: WordTree,
    threshold: float,
    level: int | None,
    only: list[int] | None,
    collapse: list[int] | None,
    allowed: list[int] | None,
) -> tuple[int, bool]:
    """The answer to one row by walking node by node, and whether a held probability stood at the threshold."""

    def may(node: int) -> bool:
        path = reference.path(node, tree)
        return (
            (level is None or len(path) - 1 <= level)
            and (only is None or any(one in path for one in only))
            and (allowed is None or node in allowed)
        )

    def leads(node: int) -> bool:
        return may(node) or any(leads(child) for child in reference.children(node, tree))

    at, steps, near = -1, [], False
    while True:
        group = reference.children(at, tree)
        if only is not None or allowed is not None:
            group = [node for node in group if leads(node)]
        if not group:
            break
        at = max(group, key=lambda node: float(x[node]))
        held = float(reference.log_prob(x, at, tree).exp())
        near |= abs(held - threshold) < 1e-6
        if held <= threshold:
            break
        steps.append(at)
    said = [node for node in steps if may(node) and (collapse is None or node in collapse)]
    return (said[-1] if said else -1), near


@given(trees(), st.sampled_from([0.0, 0.05, 0.2, 0.5]), st.integers(0, 15), seeds)
def test_a_choice_is_the_slow_walks_answer(tree, threshold, which, seed):
    random = torch.Generator().manual_seed(seed)

    def some() -> list[int]:
        return torch.randperm(len(tree), generator=random)[: 1 + seed % 3].tolist()

    level = int(torch.randint(0, 4, (), generator=random)) if which & 1 else None
    only, collapse, allowed = (some() if which & bit else None for bit in (2, 4, 8))
    choice = Choice(level=level, only=only, collapse=collapse, allowed=allowed)
    x = logits(4, tree, seed)
    log_probs = tree_log_prob(x, tree)
    try:
        found = walked(x, tree, choice, threshold)
    except WordTreeError:  # nothing is left to answer
        assert all(slow_answer(row, tree, 0.0, level, only, collapse, allowed)[0] == -1 for row in x)
        return
    for row in range(4):
        wanted, near = slow_answer(x[row], tree, threshold, level, only, collapse, allowed)
        node = int(found.nodes[row])
        if near:
            continue
        assert node == wanted
        path = reference.path(node, tree)
        steps = found.path_log_probs[row]
        torch.testing.assert_close(steps[: len(path)].to(x.dtype), log_probs[row, path])  # nothing is handed on
        assert bool(steps[len(path) :].isnan().all())
        assert float(found.log_probs[row]) == (float(steps[len(path) - 1]) if path else 0.0)


@given(trees(), st.sampled_from(["path", "darknet", "darknet-2018"]), st.sampled_from([0.0, 0.3, 0.6]), seeds)
def test_a_choice_that_narrows_nothing_changes_nothing(tree, rule, threshold, seed):
    x = logits(4, tree, seed)
    plain = walked(x, tree, Choice(), threshold, rule)
    for choice in (Choice(level=99), Choice(collapse=range(len(tree)))):
        for one, other in zip(walked(x, tree, choice, threshold, rule), plain, strict=True):
            assert torch.equal(one.nan_to_num(9.0), other.nan_to_num(9.0))


@given(trees(), st.sampled_from([0.5, 0.7]), seeds)
def test_allowed_and_level_mean_what_they_mean_in_a_decision(tree, threshold, seed):
    x = logits(6, tree, seed)
    may = torch.rand(len(tree), generator=torch.Generator().manual_seed(seed)) < 0.6
    may[seed % len(tree)] = True
    level = seed % 4
    log_probs = tree_log_prob(x, tree)
    if bool(((log_probs.exp() - threshold).abs() < 1e-6).any()):
        return
    try:
        found = walked(x, tree, Choice(allowed=may, level=level), threshold)
    except WordTreeError:  # all that may be answered lies deeper
        return
    decided = most_information(log_probs, tree, threshold, allowed=may, level=level)
    # an only child tells no more than its parent: the decision weighs information, the descent goes deeper
    same = [tree.information[node] if node >= 0 else 0.0 for node in found.nodes.tolist()]
    told = [tree.information[node] if node >= 0 else 0.0 for node in decided.nodes.tolist()]
    assert same == told


def test_a_choice_reads_no_more_than_it_needs():
    tree = random_tree(400, seed=3)
    x = logits(5, tree, seed=4)
    read = []

    class Watched(TreeLinear):
        def logits_at(self, x, asked, copy=None):
            read.append(set(asked.node.tolist()))
            return x[asked.row, asked.node]

    layer = Watched(1, tree)
    leaf = int(tree.leaves[tree.depths[tree.leaves].argmax()])
    layer.walk(x, 0.0, scope=Choice(only=leaf).scope(tree, x.device))
    groups = [
        set(torch.arange(len(tree))[torch.tensor(tree.parents == tree.parents[node])].tolist())
        for node in tree.path(leaf)
    ]
    assert read == groups  # its path's groups, and no others
    read.clear()
    layer.walk(x, 0.0, scope=Choice(level=0).scope(tree, x.device))
    assert read == [set(tree.children(-1))]


# ---------------------------------------------------------------------- a detector's


def scene() -> Tensor:
    """Logits of five boxes apart from each other in a row of cells: one anchor, objectness near 1.

    Two poodles, one surer; a cat .6 beside dog .4; an oak; an animal that is hardly one.
    """
    probs: list[dict[int, float]] = [
        {ANIMAL: 1.0, DOG: 0.9, POODLE: 1.0},
        {ANIMAL: 1.0, DOG: 0.55, POODLE: 1.0},
        {ANIMAL: 1.0, DOG: 0.4, POODLE: 1.0},
        {PLANT: 0.95, OAK: 1.0},
        {ANIMAL: 0.52, DOG: 0.5, POODLE: 1.0},
    ]
    logits = torch.zeros(len(probs), len(SMALL))
    for row, of_row in enumerate(probs):
        for pair in ((ANIMAL, PLANT), (DOG, CAT)):
            for node, other in (pair, pair[::-1]):
                if node in of_row:
                    logits[row, node], logits[row, other] = _log(of_row[node]), _log(1 - of_row[node])
    boxes = torch.tensor([0.0, 0.0, -3.0, -3.0, 9.0]).expand(len(probs), 5)
    dense = torch.cat((boxes, logits), dim=1)  # [w, 5 + nodes]
    return dense.T[None, :, None, :].contiguous()


def _log(prob: float) -> float:
    return math.log(max(prob, 1e-9))


def answers(mode: str = "paper", threshold: float = 0.25, **choice: object) -> list[tuple[int, float]]:
    """The label and score of each box of the scene, by column; nothing where none is listed."""
    dense = scene()
    model = dense_detector(SMALL, torch.tensor([[1.0, 1.0]]), mode)
    model.threshold = threshold
    (found,) = model.detect(model.head(dense), [WHOLE], Choice(**choice))
    order = found["boxes"][:, 0].argsort()
    return [
        (int(label), round(float(score), 2))
        for label, score in zip(found["labels"][order], found["scores"][order], strict=True)
    ]


def test_each_choice_on_a_scene():
    assert answers() == [(POODLE, 0.9), (POODLE, 0.55), (CAT, 0.6), (OAK, 0.95), (ANIMAL, 0.52)]
    assert answers(level=0) == [(ANIMAL, 1.0), (ANIMAL, 1.0), (ANIMAL, 1.0), (PLANT, 0.95), (ANIMAL, 0.52)]
    assert answers(level=1) == [(DOG, 0.9), (DOG, 0.55), (CAT, 0.6), (OAK, 0.95), (ANIMAL, 0.52)]
    assert answers(tree_threshold=0.9999) == [(ANIMAL, 1.0), (ANIMAL, 1.0), (ANIMAL, 1.0), (-1, 1.0), (-1, 1.0)]
    assert answers(collapse="dog") == [(DOG, 0.9), (DOG, 0.55), (-1, 1.0), (-1, 1.0), (-1, 1.0)]
    assert answers(collapse=["dog", ANIMAL]) == [(DOG, 0.9), (DOG, 0.55), (ANIMAL, 1.0), (-1, 1.0), (ANIMAL, 0.52)]


def test_only_lists_a_node_and_what_is_below_it_and_nothing_above_or_beside():
    assert answers(only="dog") == [(POODLE, 0.9), (POODLE, 0.55)]
    assert answers(only="dog", level=1) == [(DOG, 0.9), (DOG, 0.55)]
    assert answers(only=["dog", "plant"]) == [(POODLE, 0.9), (POODLE, 0.55), (OAK, 0.95)]
    # past the likelier cat, where the tree threshold lets it
    assert answers(only="dog", tree_threshold=0.3) == [(POODLE, 0.9), (POODLE, 0.55), (POODLE, 0.4)]
    assert answers(only="poodle", mode="darknet") == [
        (POODLE, 1.0)
    ]  # its rule asks more of each step; objectness alone


def test_allowed_nodes_alone_are_answered_and_what_the_others_have_stays_above_them():
    assert answers(allowed=["animal", "cat", "oak"]) == [
        (ANIMAL, 1.0), (ANIMAL, 1.0), (CAT, 0.6), (OAK, 0.95), (ANIMAL, 0.52),
    ]  # fmt: skip
    mask = [node in (ANIMAL, CAT, OAK) for node in range(len(SMALL))]
    assert answers(allowed=mask) == answers(allowed=torch.tensor(mask)) == answers(allowed=["animal", "cat", "oak"])
    assert answers(allowed="cat", tree_threshold=0.4) == [(-1, 1.0), (CAT, 0.45), (CAT, 0.6), (-1, 1.0), (-1, 1.0)]


def test_all_probabilities_are_given_on_request():
    dense = scene()
    model = dense_detector(SMALL, torch.tensor([[1.0, 1.0]]), "paper")
    region = model.head(dense)
    assert "node_probs" not in model.detect(region, [WHOLE])[0]
    (found,) = model.detect(region, [WHOLE], Choice(node_probs=True))
    order = found["boxes"][:, 0].argsort()
    wanted = tree_log_prob(dense[0, 5:, 0].T, SMALL).exp()
    torch.testing.assert_close(found["node_probs"][order], wanted)


def test_a_choice_from_a_flat_label_set():
    dense, tree = torch.zeros(1, 5 + 3, 1, 1), flat(3)
    dense[0, :, 0, 0] = torch.tensor([0, 0, 0, 0, 9.0, *torch.tensor([0.5, 0.3, 0.2]).log()])
    model = dense_detector(tree, torch.ones(1, 2), "paper")
    model.threshold = 0.1
    region = model.head(dense)

    def labels(**choice: object) -> list[int]:
        return model.detect(region, [WHOLE], Choice(**choice))[0]["labels"].tolist()

    assert labels() == [0, 1, 2]
    assert labels(only=["c2", "c1"]) == labels(allowed=[1, 2]) == labels(collapse=(1, 2), level=0) == [1, 2]


@needs_oracle
def test_a_choice_on_the_released_tree():
    tree, case = oracle.tree_9418(), oracle.values("infer_yolo9000_96")
    model = dense_detector(tree, torch.tensor([[0.77871, 1.14074], [3.00525, 4.31277], [9.22725, 9.61974]]), "paper")
    model.threshold, model.iou = 0.05, 1.0
    region = model.head(torch.from_numpy(case["rin"])[None])
    (plain,) = model.detect(region, [WHOLE], Choice(tree_threshold=0.1))
    deep = max(plain["paths"], key=len)
    assert len(deep) > 3
    (part,) = model.detect(region, [WHOLE], Choice(only=tree.ids[deep[1]], tree_threshold=0.1))
    through = [path for path in plain["paths"] if deep[1] in path]
    assert all(deep[1] in path for path in part["paths"])
    assert all(path in part["paths"] for path in through)
    (high,) = model.detect(region, [WHOLE], Choice(level=2, tree_threshold=0.1))
    assert max(map(len, high["paths"])) == 3


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"level": -1}, ["level of -1", "depth 0"]),
        ({"tree_threshold": 1.5}, ["tree_threshold of 1.5", "0 to 1"]),
        ({"only": []}, ["only of no nodes", "at least one"]),
        ({"allowed": torch.zeros(6, dtype=torch.bool)}, ["allowed of no nodes"]),
        ({"only": "dgo"}, ["'dgo'", "did you mean 'dog'"]),
        ({"collapse": [6]}, ["collapse of node 6", "0 to 5"]),
        ({"allowed": [-1]}, ["allowed of node -1", "0 to 5"]),
        ({"allowed": [True, False]}, ["allowed of 2 trues and falses", "6 nodes"]),
        ({"only": "oak", "level": 0}, ["nothing is left to answer", "level=0, only=(4,)"]),
        ({"only": 1.5}, ["only of 1.5", "a node is"]),
        ({"only": [["dog"]]}, ["only of ['dog']", "a node is"]),
    ],
)
def test_a_choice_that_cannot_be_is_refused(given, parts):
    with pytest.raises(WordTreeError) as caught:
        Choice(**given).scope(SMALL, torch.device("cpu"))
    for part in parts:
        assert part in str(caught.value)
