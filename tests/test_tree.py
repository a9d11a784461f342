"""WordTree: its order, its walks against slow ones, its errors."""

import copy
import doctest
import gc
import importlib
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import FOLDER as ORACLE
from oracle import needs_oracle
from strategies import trees

from wordtree import WordTree, WordTreeError, build_tree
from wordtree.tree import _ALIVE, arrange, tree_of_hash

MODULES = [
    *("build", "check", "edit", "errors", "formats", "graphs", "labels", "plugins"),
    *("show", "taxonomy", "tree", "web", "wordnet"),
]


def slow_path(tree: WordTree, node: int) -> list[int]:
    return [*slow_path(tree, int(tree.parents[node])), node] if node >= 0 else []


@given(trees())
def test_walks_agree_with_the_parents(tree: WordTree) -> None:
    for node in range(len(tree)):
        assert tree.path(node) == tuple(slow_path(tree, node))
        assert tree.depths[node] == len(slow_path(tree, node)) - 1
    for node in range(-1, len(tree)):
        assert tree.children(node) == tuple(np.flatnonzero(tree.parents == node))
    assert tree.leaves.tolist() == [node for node in range(len(tree)) if node not in tree.parents]


@given(trees(), st.data())
def test_propagate_marks_the_path(tree: WordTree, data: st.DataObject) -> None:
    nodes = data.draw(st.lists(st.integers(-1, len(tree) - 1), min_size=2, max_size=6))
    marks = tree.propagate(nodes)
    assert marks.shape == (len(nodes), len(tree))
    for row, node in zip(marks, nodes, strict=True):
        assert np.flatnonzero(row).tolist() == sorted(slow_path(tree, node))
    assert np.array_equal(tree.propagate(np.array(nodes)[None, :, None]), marks[None, :, None])
    assert np.array_equal(tree.on_paths(nodes), marks.any(0))
    assert np.array_equal(tree.on_paths(np.array(nodes)[None, :, None]), marks.any(0))
    assert not tree.on_paths([]).any()


@given(trees(), st.data())
def test_common_and_is_ancestor_agree_with_the_paths(tree: WordTree, data: st.DataObject) -> None:
    a, b = (data.draw(st.integers(-1, len(tree) - 1)) for _ in range(2))
    both = set(slow_path(tree, a)) & set(slow_path(tree, b))
    assert tree.common(a, b) == max(both, key=lambda node: tree.depths[node], default=-1)
    assert bool(tree.is_ancestor(a, b)) == (a in slow_path(tree, b)[:-1])


@given(trees(), st.data())
def test_common_of_arrays_is_that_of_each_pair(tree: WordTree, data: st.DataObject) -> None:
    nodes = st.integers(-1, len(tree) - 1)
    pairs = np.array(data.draw(st.lists(st.tuples(nodes, nodes), max_size=8)), dtype=np.int64).reshape(-1, 2)
    both = tree.common(pairs[:, 0], pairs[:, 1])
    assert both.dtype == np.int64
    assert both.tolist() == [tree.common(a, b) for a, b in pairs.tolist()]
    every = np.arange(-1, len(tree))
    square = tree.common(every[:, None], every)
    assert square.shape == (len(every), len(every))
    assert np.array_equal(square, square.T)
    assert np.array_equal(np.diag(square), every)


@given(trees())
def test_groups_are_the_siblings(tree: WordTree) -> None:
    groups = [range(start, start + size) for start, size in zip(tree.group_start, tree.group_size, strict=True)]
    assert [node for group in groups for node in group] == list(range(len(tree)))
    for number, group in enumerate(groups):
        assert len({int(tree.parents[node]) for node in group}) == 1
        assert all(tree.group_of[node] == number for node in group)
        owner = int(tree.parents[group[0]])
        assert owner < 0 or tree.group_below[owner] == number
    assert set(np.flatnonzero(tree.group_below < 0)) == set(tree.leaves)


@given(trees())
def test_a_tree_survives_pickle_and_cannot_be_changed(tree: WordTree) -> None:
    again = pickle.loads(pickle.dumps(tree))
    assert again == tree
    assert hash(again) == hash(tree)
    assert again.names == tree.names
    with pytest.raises(AttributeError, match="frozen"):
        tree.ids = ()
    with pytest.raises(ValueError, match="read-only"):
        tree.parents[0] = -1


@pytest.mark.parametrize("which", ["original", "copy", "middle"])
def test_a_hash_finds_a_tree_for_as_long_as_one_of_its_equals_lives(which: str) -> None:
    one = WordTree(["a", "b", which], [-1, -1, 0])
    hash_ = one.hash
    family = {"original": one, "copy": copy.deepcopy(one), "middle": pickle.loads(pickle.dumps(one))}
    del one
    for name in (which, *(set(family) - {which})):
        assert tree_of_hash(hash_) in family.values()
        del family[name]
        gc.collect()
    with pytest.raises(WordTreeError, match=f"no tree with the hash {hash_[:12]}"):
        tree_of_hash(hash_)
    assert hash_ not in _ALIVE


@given(trees())
def test_the_hash_knows_ids_and_parents(tree: WordTree) -> None:
    renamed = WordTree(tree.ids, tree.parents, ["other"] * len(tree))
    assert renamed == tree
    assert renamed.hash == tree.hash
    assert WordTree([f"x{id_}" for id_ in tree.ids], tree.parents) != tree
    if tree.depths.max() == 0 and len(tree) > 1:
        below = WordTree(tree.ids, [-1, *([0] * (len(tree) - 1))])
        assert below.hash != tree.hash


@pytest.mark.parametrize(
    ("ids", "parents", "text"),
    [
        ([], [], "without nodes; give at least one label"),
        (["a"], [-1, 0], "1 ids, parents of shape"),
        (["a", "b"], [-1, 0.9], "parents of type float64 given; a parent is a whole number"),
        (["a", "b"], [None, "a"], "parents of type object given; a parent is a whole number"),
        (["a", "a"], [-1, -1], "id 'a' stands at two nodes"),
        (["a", "b"], [1, -1], "node 0 .a. has parent 1; a parent stands before its child"),
        (["a", "b"], [-1, -2], "node 1 .b. has parent -2"),
        (["a", "b", "c", "d"], [-1, -1, 0, -1], "node 3 .d. is a child of -1 apart from its siblings"),
        (["a", "b", "c", "d", "e"], [-1, -1, 0, 1, 0], "node 4 .e. is a child of 0 apart from its siblings"),
    ],
)
def test_a_broken_tree_is_refused_by_node(ids: list[str], parents: list[int], text: str) -> None:
    with pytest.raises(WordTreeError, match=text):
        WordTree(ids, parents)


def test_arrange_names_what_is_lost() -> None:
    with pytest.raises(WordTreeError, match="'dog' stands under 'animal', which is no node"):
        arrange({"dog": "animal"})
    with pytest.raises(WordTreeError, match="'a' cannot be reached from the root"):
        arrange({"top": None, "a": "b", "b": "a"})


def test_find_takes_id_name_synonym_and_synset_name() -> None:
    tree = build_tree(["dog.n.01", "cat.n.01", "crane.n.04", "crane.n.05"])
    dog = tree.ids.index("n02084071")
    for text in ("n02084071", "dog", "DOG", "domestic dog", "domestic_dog", "dog.n.01", "Canis familiaris"):
        assert tree.find(text) == dog, text
    assert tree.find("crane.n.05") == tree.ids.index("n02012849")
    with pytest.raises(WordTreeError, match=r"'crane' names 2 nodes of this tree; give an id.*n03126707.*n02012849"):
        tree.find("crane")
    with pytest.raises(WordTreeError, match="no node 'dgo'; did you mean 'dog'"):
        tree.find("dgo")
    with pytest.raises(WordTreeError, match="no node 'penguin'"):
        tree.find("penguin")  # a noun, but none of this tree


def test_find_takes_spaces_and_underscores_for_one_another() -> None:
    tree = WordTree(["n1", "n2", "n3"], [-1, -1, -1], ["stop_sign", "traffic light", "Fire_hydrant"])
    for node, name in enumerate(["stop sign", "traffic light", "fire hydrant"]):
        assert tree.find(name) == tree.find(name.replace(" ", "_")) == tree.find(name.upper()) == node


def test_walks_refuse_nodes_that_are_not_there() -> None:
    tree = WordTree(["a", "b"], [-1, 0])
    with pytest.raises(WordTreeError, match="nodes from 0 to 2 given; this tree has nodes 0 to 1"):
        tree.propagate([0, 2])
    with pytest.raises(WordTreeError, match="nodes from 0 to 2 given; this tree has nodes 0 to 1"):
        tree.on_paths([0, 2])
    with pytest.raises(WordTreeError, match="nodes from -2 to -2 given"):
        tree.common([0, 1], -2)
    for node in (-2, 2, np.int64(99)):
        for ask in (tree.path, tree.children):
            with pytest.raises(WordTreeError, match=rf"node {node} given; this tree has nodes 0 to 1, and -1 for the"):
                ask(node)
        for a, b in ((node, 1), (1, node), ([0, node], [1, 1])):
            with pytest.raises(WordTreeError, match=rf"nodes from .*{node}.* given; this tree has nodes 0 to 1"):
                tree.is_ancestor(a, b)
    with pytest.raises(WordTreeError, match=r"node 0\.5 given; a node is a whole number, 0 to 1 here"):
        tree.path(0.5)
    assert tree.path(np.int32(1)) == tree.path(np.array(1)) == (0, 1)
    with pytest.raises(WordTreeError, match="nodes of type float64 given; nodes are whole numbers, 0 to 1 here"):
        tree.common(0.5, 1)


@needs_oracle
def test_darknets_own_tree_keeps_every_rule() -> None:
    tree = WordTree.load(ORACLE / "data" / "9k.tree")
    assert (len(tree), len(tree.group_start), len(tree.leaves)) == (9418, 1846, 7573)
    assert tree.group_size.max() == 149
    assert (tree.group_size == 1).sum() == 46
    assert np.bincount(tree.depths).tolist() == [
        *(4, 18, 60, 161, 480, 1027, 1613, 1708, 1231, 918, 734, 580, 402, 228, 183, 61, 10)
    ]
    assert [tree.names[node] for node in tree.children()] == ["thing", "matter", "object", "atmospheric phenomenon"]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_the_docstrings_hold(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"wordtree.{module}"))
    assert failed == 0
    assert tried > 0 or module in ("formats",)
