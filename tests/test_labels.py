"""Label maps: the shipped tables against WordNet and Darknet's lists, reading, merging, what a data set knows."""

import csv
from pathlib import Path

import numpy as np
import pytest
import wordtree_datasets
from hypothesis import given
from hypothesis import strategies as st
from oracle import FOLDER as ORACLE
from oracle import needs_oracle
from random_trees import trees

from wordtree import LabelMap, WordTree, WordTreeError, build_tree, label_maps, wordnet
from wordtree.labels import to_csv
from wordtree.merging import merge

TABLES = Path(wordtree_datasets.__file__).parent

# Where our COCO table leaves Darknet's coco9k.map, and for what: each is argued in the tables' README.
UNLIKE_DARKNET = {
    "boat": "boat.n.01",
    "fire hydrant": "fireplug.n.01",
    "suitcase": "bag.n.06",
    "kite": "kite.n.03",
    "surfboard": "surfboard.n.01",
    "fork": "fork.n.01",
    "knife": "knife.n.01",
    "cake": "cake.n.03",
    "potted plant": "houseplant.n.01",
    "toilet": "toilet.n.02",
    "tv": "television_receiver.n.01",
    "sink": "sink.n.01",
    "book": "book.n.02",
    "clock": "clock.n.01",
}


# ---------------------------------------------------------------------- the shipped tables


@pytest.mark.parametrize(("name", "count"), [("coco", 80), ("voc", 20), ("imagenet1k", 1000)])
def test_a_table_is_whole_and_its_ids_say_what_its_synsets_say(name: str, count: int) -> None:
    labels = label_maps()[name]
    assert (labels.name, len(labels), len(set(labels.ids))) == (name, count, count)
    with (TABLES / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list(labels.ids)
    assert [row["synset"] for row in rows] == [wordnet.synset_name(id_) for id_ in labels.ids]


def test_a_label_is_a_word_of_its_synset_or_argued() -> None:
    """The table cannot slip by a row: of 80 COCO labels all but these are words of their synset."""
    argued = {
        *("stop sign", "skis", "sports ball", "potted plant", "cow", "keyboard"),  # no such noun, plural, wider, ...
    }
    coco = label_maps()["coco"]
    unlike = {
        label
        for label, id_ in zip(coco.labels, coco.ids, strict=True)
        if label.casefold().replace(" ", "")
        not in {word.casefold().replace(" ", "").replace("-", "") for word in wordnet.lemmas(id_)}
    }
    assert unlike == argued


@pytest.mark.parametrize("name", ["coco", "voc"])
def test_every_class_but_signs_is_a_physical_thing(name: str) -> None:
    tree = build_tree(name)
    assert {tree.report.names[id_] for id_ in tree.report.attached} <= {"street sign", "traffic light"}


@needs_oracle
def test_the_tables_against_darknets_lists() -> None:
    data = ORACLE / "data"
    assert list(label_maps()["voc"].labels) == (data / "voc.names").read_text().split("\n")[:-1]
    imagenet = label_maps()["imagenet1k"].ids
    assert sorted((data / "imagenet.labels.list").read_text().split()[:1000]) == list(imagenet)
    genuine = [line.split()[0] for line in (data / "9k.tree").read_text().splitlines()]
    theirs = [genuine[int(line)] for line in (data / "coco9k.map").read_text().split()]
    coco = label_maps()["coco"]
    unlike = {
        label: wordnet.synset_name(id_)
        for label, id_, other in zip(coco.labels, coco.ids, theirs, strict=True)
        if id_ != other
    }
    assert unlike == UNLIKE_DARKNET


def test_the_cranes_of_imagenet_are_a_bird_and_a_machine() -> None:
    labels = label_maps()["imagenet1k"]
    assert labels.ids[labels.labels.index("crane.n.05")] == "n02012849"
    assert labels.ids[labels.labels.index("crane.n.04")] == "n03126707"
    assert labels.ids.index("n02012849") == 134
    assert labels.ids.index("n03126707") == 517


def test_an_unknown_map_is_refused_with_the_nearest() -> None:
    with pytest.raises(WordTreeError, match=r"^no label map 'coc'; did you mean 'coco'\? known: coco, imagenet1k, voc"):
        label_maps()["coc"]


# ---------------------------------------------------------------------- nodes, and what is known


@given(trees(), st.data())
def test_nodes_and_known_agree_with_slow_ones(tree: WordTree, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.sampled_from(tree.ids), min_size=1, max_size=6))
    labels = LabelMap("some", tuple(f"label {at}" for at in range(len(ids))), tuple(ids))
    nodes = labels.nodes_on(tree)
    assert nodes.dtype == np.int64
    assert [tree.ids[node] for node in nodes] == ids
    known = {above for node in nodes for above in tree.path(node)}
    assert np.flatnonzero(labels.known(tree)).tolist() == sorted(known)


def test_labels_that_are_not_on_the_tree_are_all_named() -> None:
    labels = LabelMap("pets", ("dog", "cat", "carp"), ("n02084071", "n02121620", "n02517442"))
    tree = build_tree(["n02084071", "zebra"])
    with pytest.raises(
        WordTreeError, match=r"2 of the 3 labels of 'pets' .*: cat \(n02121620\), carp \(n02517442\); build"
    ):
        labels.nodes_on(tree)


def test_ids_may_be_synset_names() -> None:
    labels = LabelMap("pets", ("dog", "cat"), ("dog.n.01", "cat.n.01"))
    tree = build_tree(labels)
    assert [tree.ids[node] for node in labels.nodes_on(tree)] == ["n02084071", "n02121620"]


@pytest.mark.parametrize(
    ("labels", "ids", "text"),
    [
        (("a", "b"), ("x",), "'m' has 2 labels and 1 ids"),
        ((), (), "'m' has no labels"),
        (("a", "b", "a"), ("x", "y", "z"), "'m' has the label 'a' twice"),
    ],
)
def test_a_broken_map_is_refused(labels: tuple[str, ...], ids: tuple[str, ...], text: str) -> None:
    with pytest.raises(WordTreeError, match=text):
        LabelMap("m", labels, ids)


def test_merging_keeps_order_and_names_what_differs() -> None:
    zoo = LabelMap("zoo", ("crane", "dog"), ("n02012849", "n02084071"))
    site = LabelMap("site", ("crane", "dog", "bulldozer"), ("n03126707", "n02084071", "n02916179"))
    both = merge([zoo, site])
    assert both.name == "zoo+site"
    assert both.labels == ("crane", "dog", "site/crane", "bulldozer")
    assert both.ids == ("n02012849", "n02084071", "n03126707", "n02916179")
    assert build_tree(both) == build_tree(zoo, site)


# ---------------------------------------------------------------------- reading

FILES = {
    "a.csv": 'label,id,more\ndog,n02084071,x\n\n"crane, bird",crane.n.05,\n',
    "a.tsv": "id\tlabel\nn02084071\tdog\ncrane.n.05\tcrane, bird\n",
    "a.yaml": "dog: n02084071\n'crane, bird': crane.n.05\n",
    "a.yml": "labels:\n  dog: n02084071\n  crane, bird: crane.n.05\n",
    "a.json": '{"labels": {"dog": "n02084071", "crane, bird": "crane.n.05"}}',
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_reads_the_same(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FILES[name])
    assert LabelMap.read(tmp_path / name) == LabelMap("a", ("dog", "crane, bird"), ("n02084071", "n02012849"))
    assert LabelMap.read(tmp_path / name, name="b").name == "b"


def test_ids_of_another_taxonomy_are_taken_as_written(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("no: /m/01g317\n7: Q146\n")
    assert LabelMap.read(tmp_path / "a.yaml") == LabelMap("a", ("no", "7"), ("/m/01g317", "Q146"))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    labels = LabelMap("a", ("x, y", 'say "z"', "été"), ("n02084071", "n02121620", "Q7"))
    (tmp_path / "a.csv").write_text(to_csv(labels), encoding="utf-8")
    assert LabelMap.read(tmp_path / "a.csv") == labels


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("a.csv", "name,id\ndog,n02084071\n", r"a\.csv: no column 'label' among name, id; give `label` and `id`"),
        ("a.csv", "label\ndog\n", r"a\.csv: no column 'id' among label"),
        ("a.csv", "", r"a\.csv: no column 'label' among none"),
        ("a.csv", "label,id\n", r"a\.csv: no labels"),
        ("a.csv", "label,id\ndog,\n", r"a\.csv, line 2: label 'dog' with id ''; give both"),
        ("a.csv", "label,id\ndog,n02084071\ndog,n02084071\n", r"a\.csv, line 3: label 'dog' stands in line 2 already"),
        ("a.csv", "label,id\ndog,n02084072\n", r"a\.csv, line 2: no noun 'n02084072' in WordNet 3\.0"),
        ("a.tsv", "label\tid\ndog\tdog.n.99\n", r"a\.tsv, line 2: no sense 99 of 'dog'"),
        ("a.json", '{"dog": "n02084071"', r"a\.json, line 1: not JSON"),
        ("a.json", '{"dog": "x", "dog": "y"}', r"a\.json: label 'dog' stands twice"),
        ("a.json", "[1]", r"a\.json: a list at the top; give pairs"),
        ("a.yaml", "dog: x\ndog: y\n", r"a\.yaml: label 'dog' stands twice"),
        ("a.yaml", "{dog", r"a\.yaml: not YAML"),
        ("a.txt", "dog", r"a\.txt: no reader for '\.txt'; known: \.csv, \.tsv"),
    ],
)
def test_a_bad_file_is_refused_by_line(tmp_path: Path, name: str, text: str, error: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(WordTreeError, match=error):
        LabelMap.read(tmp_path / name)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no label map '.*gone\.csv'; give a \.csv"):
        LabelMap.read(tmp_path / "gone.csv")
    (tmp_path / "a.csv").write_bytes(b"label,id\nd\xff\n")
    with pytest.raises(WordTreeError, match=r"a\.csv: not UTF-8"):
        LabelMap.read(tmp_path / "a.csv")
