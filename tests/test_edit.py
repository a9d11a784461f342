"""New trees out of old ones: paths are kept by id, what is dropped is dropped, and the maps say where things went."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from oracle import needs_oracle, tree_9418
from strategies import trees

from wordtree import WordTree, WordTreeError, build_tree, merge_trees, prune, restrict, subtree
from wordtree.tree import arrange

ANIMALS = WordTree(
    ["animal", "plant", "dog", "cat", "oak", "poodle", "beagle"], [-1, -1, 0, 0, 1, 2, 2], root_name="thing"
)


def path_ids(tree: WordTree, node: int) -> list[str]:
    return [tree.ids[step] for step in tree.path(node)]


def is_in_preorder(tree: WordTree) -> bool:
    parent_of = {id_: tree.ids[p] if p >= 0 else None for id_, p in zip(tree.ids, tree.parents.tolist(), strict=True)}
    return arrange(parent_of)[0] == list(tree.ids)


def holds_together(old: WordTree, new: WordTree, map: np.ndarray) -> None:
    """What every edit keeps: ids and names follow the map, siblings keep their order, groups are in preorder."""
    assert (map.dtype, map.shape) == (np.int64, (len(old),))
    kept = np.flatnonzero(map >= 0)
    assert sorted(map[kept].tolist()) == list(range(len(new)))
    assert [new.ids[node] for node in map[kept]] == [old.ids[node] for node in kept]
    assert [new.names[node] for node in map[kept]] == [old.names[node] for node in kept]
    assert new is old or is_in_preorder(new)
    came_from = np.argsort(np.where(map >= 0, map, len(old)), kind="stable")[: len(new)]
    for node in range(-1, len(new)):
        siblings = [came_from[child] for child in new.children(node)]
        if len({int(old.parents[one]) for one in siblings}) == 1:
            assert siblings == sorted(siblings)


@st.composite
def trees_with_nodes(draw: st.DrawFn) -> tuple[WordTree, list[int]]:
    tree = draw(trees())
    return tree, draw(st.lists(st.integers(0, len(tree) - 1), min_size=1, max_size=5))


# ---------------------------------------------------------------------- subtree


@given(trees())
def test_the_subtree_of_the_root_is_the_tree(tree: WordTree) -> None:
    same, map = subtree(tree, -1)
    assert same is tree
    assert map.tolist() == list(range(len(tree)))


@given(trees_with_nodes())
def test_a_subtree_keeps_the_rest_of_every_path(drawn: tuple[WordTree, list[int]]) -> None:
    tree, (node, *_) = drawn
    assume(tree.children(node))
    below, map = subtree(tree, node)
    holds_together(tree, below, map)
    assert below.root_name == tree.names[node]
    assert np.array_equal(map >= 0, tree.is_ancestor(node, np.arange(len(tree))))
    for old in np.flatnonzero(map >= 0):
        assert path_ids(tree, node) + path_ids(below, map[old]) == path_ids(tree, old)


def test_a_subtree_wants_a_node_with_children() -> None:
    with pytest.raises(
        WordTreeError, match=r"subtree of node 5 \(poodle\), a leaf; give a node with children, such as"
    ):
        subtree(ANIMALS, 5)
    with pytest.raises(WordTreeError, match="nodes from 7 to 7 given; this tree has nodes 0 to 6"):
        subtree(ANIMALS, 7)


# ---------------------------------------------------------------------- prune and restrict


@given(trees_with_nodes())
def test_prune_drops_the_nodes_and_all_below_and_nothing_else(drawn: tuple[WordTree, list[int]]) -> None:
    tree, nodes = drawn
    dropped = tree.propagate(np.arange(len(tree)))[:, nodes].any(1)  # [nodes] one of `nodes` on the path
    if dropped.all():
        with pytest.raises(WordTreeError, match=r"none of the .* nodes is left"):
            prune(tree, nodes)
        return
    rest, map = prune(tree, nodes)
    holds_together(tree, rest, map)
    assert np.array_equal(map < 0, dropped)
    for old in np.flatnonzero(map >= 0):
        assert path_ids(rest, map[old]) == path_ids(tree, old)


@given(trees_with_nodes())
def test_restrict_keeps_the_nodes_and_all_above_and_nothing_else(drawn: tuple[WordTree, list[int]]) -> None:
    tree, nodes = drawn
    part, map = restrict(tree, nodes)
    holds_together(tree, part, map)
    assert np.array_equal(map >= 0, tree.propagate(nodes).any(0))
    for old in np.flatnonzero(map >= 0):
        assert path_ids(part, map[old]) == path_ids(tree, old)


@given(trees())
def test_the_leaves_and_all_above_them_are_the_tree(tree: WordTree) -> None:
    assert restrict(tree, tree.leaves)[0] is tree
    assert restrict(tree, np.arange(len(tree)), collapse=True)[0] is tree
    assert prune(tree, [])[0] is tree


@given(trees_with_nodes())
def test_collapsing_leaves_out_what_was_not_asked_for_and_has_one_child(drawn: tuple[WordTree, list[int]]) -> None:
    tree, nodes = drawn
    plain, _ = restrict(tree, nodes)
    part, map = restrict(tree, nodes, collapse=True)
    holds_together(tree, part, map)
    asked = {tree.ids[node] for node in nodes}
    gone = {plain.ids[n] for n in range(len(plain)) if len(plain.children(n)) == 1} - asked
    assert {tree.ids[node] for node in np.flatnonzero(map >= 0)} == set(plain.ids) - gone
    for old in np.flatnonzero(map >= 0):
        assert path_ids(part, map[old]) == [id_ for id_ in path_ids(tree, old) if id_ not in gone]
    again, _ = restrict(part, [part.ids.index(id_) for id_ in asked], collapse=True)
    assert again is part


@given(trees_with_nodes())
def test_pruning_is_restricting_to_what_is_left(drawn: tuple[WordTree, list[int]]) -> None:
    tree, nodes = drawn
    part, map = restrict(tree, nodes)
    if (map < 0).any():
        again, _ = prune(tree, np.flatnonzero(map < 0))
        assert again == part


def test_a_child_takes_the_place_of_what_was_collapsed_above_it() -> None:
    tree = WordTree(["a", "b", "c", "a1", "a11", "c1"], [-1, -1, -1, 0, 3, 2])
    part, map = restrict(tree, [1, 4, 5], collapse=True)
    assert part.ids == ("a11", "b", "c1")
    assert map.tolist() == [-1, 1, -1, -1, 0, 2]


def test_nothing_is_no_tree() -> None:
    for call in (lambda: restrict(ANIMALS, []), lambda: prune(ANIMALS, [0, 1]), lambda: prune(ANIMALS, [-1])):
        with pytest.raises(WordTreeError, match="none of the 7 nodes is left; keep at least one"):
            call()


# ---------------------------------------------------------------------- merge


@given(trees())
def test_a_tree_merged_with_itself_is_itself(tree: WordTree) -> None:
    merged, map_a, map_b = merge_trees(tree, tree)
    assert merged is tree
    assert map_a.tolist() == map_b.tolist() == list(range(len(tree)))


@given(trees_with_nodes(), st.data())
def test_two_parts_of_a_tree_merge_to_the_part_of_both(drawn: tuple[WordTree, list[int]], data: st.DataObject) -> None:
    tree, nodes = drawn
    others = data.draw(st.lists(st.integers(0, len(tree) - 1), min_size=1, max_size=5))
    a, b = restrict(tree, nodes)[0], restrict(tree, others)[0]
    merged, map_a, map_b = merge_trees(a, b)
    assert set(merged.ids) == set(restrict(tree, nodes + others)[0].ids)
    for one, map in ((a, map_a), (b, map_b)):
        for node in range(len(one)):
            assert path_ids(merged, map[node]) == path_ids(one, node)
    assert merged is a or is_in_preorder(merged)


@given(trees(), trees())
def test_the_first_tree_wins_where_it_is_preferred(a: WordTree, b: WordTree) -> None:
    merged, map_a, map_b = merge_trees(a, b, prefer="first")
    assert set(merged.ids) == {*a.ids, *b.ids}
    for node in range(len(a)):
        assert path_ids(merged, map_a[node]) == path_ids(a, node)
        assert merged.names[map_a[node]] == a.names[node]
    for node in range(len(b)):
        if b.ids[node] not in a.ids and b.parents[node] >= 0:
            assert merged.parents[map_b[node]] == map_b[b.parents[node]]
    assert merged.root_name == a.root_name


def test_different_parents_are_listed_and_the_first_can_be_preferred() -> None:
    other = WordTree(["pet", "fern", "dog", "animal"], [-1, -1, 0, 0])
    with pytest.raises(
        WordTreeError,
        match=r"7 nodes with one of 4: 2 have different parents in the two: dog \(animal / pet\), "
        r"animal \(the root / pet\); prefer='first' keeps the first tree's",
    ):
        merge_trees(ANIMALS, other)
    merged, _, map_other = merge_trees(ANIMALS, other, prefer="first")
    assert merged.ids == ("animal", "plant", "pet", "fern", "dog", "cat", "poodle", "beagle", "oak")
    assert map_other.tolist() == [2, 3, 4, 0]
    with pytest.raises(WordTreeError, match="no prefer 'last'; known: first"):
        merge_trees(ANIMALS, other, prefer="last")


# ---------------------------------------------------------------------- on real trees


def test_the_map_carries_labels_over() -> None:
    tree = build_tree("coco")
    dog, animal = tree.find("dog"), tree.find("animal")
    below, map = subtree(tree, animal)
    assert below.names[map[dog]] == "dog"
    assert below.root_name == "animal"
    assert map[tree.find("bicycle")] == -1


@needs_oracle
def test_darknets_tree_without_its_plants_and_put_together_again() -> None:
    tree = tree_9418()
    plants = tree.find("n00017222")
    below, _ = subtree(tree, plants)
    rest, _ = prune(tree, [plants])
    assert len(below) + 1 + len(rest) == len(tree)
    only, _ = restrict(tree, np.flatnonzero(tree.is_ancestor(plants, np.arange(len(tree)))))
    merged, map_rest, map_only = merge_trees(rest, only)
    assert set(merged.ids) == set(tree.ids)
    assert all(path_ids(merged, map_rest[n]) == path_ids(rest, n) for n in range(0, len(rest), 50))
    assert all(path_ids(merged, map_only[n]) == path_ids(only, n) for n in range(0, len(only), 50))
