"""Merging data sets: where their labels meet, against a slow reference; what one does not know is no negative."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import trees

from wordtree import LabelMap, WordTree, WordTreeError, build_tree, label_maps
from wordtree.merging import Comparison, Label, compare, merge
from wordtree.nn import TreeLinear, tree_cross_entropy


@pytest.fixture(scope="module")
def three() -> Comparison:
    """COCO, VOC and ImageNet-1k on their common tree."""
    return compare([label_maps()[name] for name in ("coco", "voc", "imagenet1k")])


@st.composite
def maps_on(draw: st.DrawFn, tree: WordTree) -> list[LabelMap]:
    """Two to four maps on a tree; few texts, so that they meet."""
    maps = []
    for at in range(draw(st.integers(2, 4))):
        labels = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True))
        ids = draw(st.lists(st.sampled_from(tree.ids), min_size=len(labels), max_size=len(labels)))
        maps.append(LabelMap(f"map {at}", tuple(labels), tuple(ids)))
    return maps


@given(trees(), st.data())
def test_a_comparison_agrees_with_a_slow_one(tree: WordTree, data: st.DataObject) -> None:
    maps = data.draw(maps_on(tree))
    found = compare(maps, tree)
    everything = [
        (Label(one.name, label), tree.ids.index(id_))
        for one in maps
        for label, id_ in zip(one.labels, one.ids, strict=True)
    ]
    shared, doubled = {}, {}
    for node in range(len(tree)):
        here = [label for label, at in everything if at == node]
        own = [label for label in here if sum(other.map == label.map for other in here) > 1]
        if len({label.map for label in here}) > 1:
            shared[node] = tuple(here)
        if own:
            doubled[node] = tuple(own)
    nested = tuple(
        (upper, lower)
        for (upper, a), (lower, b) in product(everything, everything)
        if upper.map != lower.map and a != b and a in tree.path(b)
    )
    conflicts = {}
    for text in "abcdefgh":
        ids = [(one.name, one.ids[one.labels.index(text)]) for one in maps if text in one.labels]
        different = list(dict.fromkeys(id_ for _, id_ in ids))
        if len(different) > 1:
            conflicts[text] = tuple(sorted(ids, key=lambda pair: different.index(pair[1])))
    assert found.shared == shared
    assert found.doubled == doubled
    assert found.nested == nested
    assert found.conflicts == conflicts
    for row, one in zip(found.known, maps, strict=True):
        assert np.array_equal(row, one.known(tree))
    for nodes, one in zip(found.nodes, maps, strict=True):
        assert np.array_equal(nodes, one.nodes_on(tree))
    text = str(found)
    for label in {label for pair in nested for label in pair[:1]}:
        assert f"  {label} above " in text


@given(trees(), st.data())
def test_a_merged_map_keeps_every_label_of_every_map(tree: WordTree, data: st.DataObject) -> None:
    maps = data.draw(maps_on(tree))
    both = merge(maps)
    id_of = dict(zip(both.labels, both.ids, strict=True))
    for one in maps:
        for label, id_ in zip(one.labels, one.ids, strict=True):
            assert id_ in (id_of[label], id_of.get(f"{one.name}/{label}"))


def test_merging_keeps_order_and_names_what_differs() -> None:
    zoo = LabelMap("zoo", ("crane", "dog"), ("n02012849", "n02084071"))
    site = LabelMap("site", ("crane", "dog", "bulldozer"), ("n03126707", "n02084071", "n02916179"))
    both = merge([zoo, site])
    assert both.name == "zoo+site"
    assert both.labels == ("crane", "dog", "site/crane", "bulldozer")
    assert both.ids == ("n02012849", "n02084071", "n03126707", "n02916179")
    assert build_tree(both) == build_tree(zoo, site)


def test_a_label_that_would_stand_for_two_ids_is_refused_and_not_lost() -> None:
    zoo = LabelMap("zoo", ("crane", "site/crane"), ("a", "b"))
    site = LabelMap("site", ("crane",), ("c",))
    with pytest.raises(WordTreeError, match=r"label 'site/crane' would stand for b and for c; give the map 'site' an"):
        merge([zoo, site])
    with pytest.raises(WordTreeError, match=r"label 'site/crane' would stand for b and for c"):
        merge([LabelMap("zoo", ("crane",), ("a",)), LabelMap("site", ("crane",), ("b",)), site])
    assert merge([site, zoo]).ids == ("c", "a", "b")
    assert merge([zoo, LabelMap("yard", ("crane",), ("c",)), zoo]).ids == ("a", "b", "c")


def test_what_coco_voc_and_imagenet_share(three: Comparison) -> None:
    tree = three.tree
    assert tree == build_tree("coco", "voc", "imagenet1k")
    dog, table = tree.find("n02084071"), tree.find("dining_table.n.01")
    assert three.shared[dog] == (("coco", "dog"), ("voc", "dog"))
    assert [label.label for label in three.shared[table]] == ["dining table", "diningtable", "dining table"]
    # VOC's twenty classes are among COCO's, but that its monitors are computers' too
    assert {label for _, label in (of[1] for of in three.shared.values() if of[1].map == "voc")} == {
        label for label in label_maps()["voc"].labels if label != "tvmonitor"
    }
    below = {lower.label for upper, lower in three.nested if upper == ("coco", "dog")}
    assert len(below) == 118
    assert {"Chihuahua", "African hunting dog"} & below == {"Chihuahua"}  # a wild dog is no dog.n.01
    assert three.doubled == {}
    text = str(three)
    assert "\n  dog (n02084071): coco/dog, voc/dog\n" in text
    assert "\n  coco/dog above 118 of imagenet1k: Chihuahua, " in text
    assert three.conflicts.keys() == {"kite", "cup"}  # a toy and a bird, a vessel and a punch
    assert "labels that mean different things: 2\n  kite: n03621473 (" in text
    assert "nodes with several labels of one map: none\n" in text
    counts = [f"{len(one)} labels on {len(one)} nodes, knows {one.known(tree).sum()} " for one in three.maps]
    assert [count in line for count, line in zip(counts, text.splitlines(), strict=False)] == [True] * 3


def test_one_text_for_two_things_and_two_texts_for_one() -> None:
    zoo = LabelMap("zoo", ("crane", "dog", "hound"), ("n02012849", "n02084071", "n02084071"))
    site = LabelMap("site", ("crane", "animal", "dog"), ("n03126707", "animal.n.01", "dog.n.01"))
    found = compare([zoo, site])
    assert found.conflicts == {"crane": (("zoo", "n02012849"), ("site", "n03126707"))}
    dog = found.tree.find("dog")
    assert found.doubled == {dog: (("zoo", "dog"), ("zoo", "hound"))}
    assert found.shared == {dog: (("zoo", "dog"), ("zoo", "hound"), ("site", "dog"))}
    assert [f"{upper}>{lower}" for upper, lower in found.nested] == [
        f"site/animal>zoo/{label}" for label in ("crane", "dog", "hound")
    ]
    text = str(found)
    assert "crane: n02012849 (animal > crane) in zoo, n03126707 (whole > crane) in site" in text
    assert "dog (n02084071): zoo/dog, zoo/hound" in text


def test_what_cannot_be_compared_is_refused() -> None:
    coco = label_maps()["coco"]
    with pytest.raises(WordTreeError, match=r"compare: coco; give two or more"):
        compare([coco])
    with pytest.raises(WordTreeError, match=r"compare: coco, coco; give two or more, each with a name of its own"):
        compare([coco, coco])
    with pytest.raises(WordTreeError, match=r"labels of 'coco' are not on this tree"):
        compare([coco, label_maps()["voc"]], build_tree("voc"))


# ---------------------------------------------------------------------- known


def test_an_unknown_node_is_no_negative(three: Comparison) -> None:
    """Of every label of COCO: gradient exactly 0 at what COCO does not know, not 0 at its known siblings."""
    tree, coco, nodes = three.tree, three.known[0], three.nodes[0]
    torch.manual_seed(0)
    logits = torch.randn(len(nodes), len(tree), dtype=torch.float64, requires_grad=True)
    loss = tree_cross_entropy(logits, torch.from_numpy(nodes), tree, known=torch.from_numpy(coco), reduction="sum")
    (grad,) = torch.autograd.grad(loss, logits)
    assert (grad[:, ~coco] == 0).all()
    groups = [set(tree.group_of[list(tree.path(int(node)))].tolist()) for node in nodes]
    on_path = np.stack([np.isin(tree.group_of, list(group)) for group in groups])
    many = np.bincount(tree.group_of[coco], minlength=len(tree.group_start))[tree.group_of] > 1
    assert (grad.numpy()[on_path & coco & many] != 0).all()
    # the test can fail: without `known`, a sibling that COCO never marks is pushed down
    (grad,) = torch.autograd.grad(tree_cross_entropy(logits, torch.from_numpy(nodes), tree, reduction="sum"), logits)
    assert (grad[:, ~coco] > 0).any()


def test_training_on_one_data_set_leaves_what_only_another_knows_alone() -> None:
    """A head that learns VOC by `known` keeps its columns for ImageNet's other classes, bit for bit."""
    maps = [label_maps()["voc"], label_maps()["imagenet1k"]]
    found = compare(maps)
    known, nodes = torch.from_numpy(found.known[0]), torch.from_numpy(found.nodes[0])
    group = torch.tensor(found.tree.group_of)
    rivals = (known & (group == group[nodes, None])).sum(1) > 1  # the classes with a sibling that VOC knows
    assert rivals.sum() > 5
    torch.manual_seed(0)
    head = TreeLinear(8, found.tree)
    before = [parameter.detach().clone() for parameter in head.parameters()]
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
    features = torch.randn(len(nodes), 8)
    losses = []
    for _ in range(20):
        loss = tree_cross_entropy(head(features), nodes, found.tree, known=known)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    for old, new in zip(before, head.parameters(), strict=True):
        at = new.shape.index(len(found.tree))
        changed = (old != new).movedim(at, 0).flatten(1).any(1) if new.dim() > 1 else old != new
        assert not changed[~known].any()
        assert changed[nodes[rivals]].all()
