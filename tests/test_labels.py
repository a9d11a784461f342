"""Label maps: the shipped tables against WordNet and Darknet's lists, reading, merging, what a data set knows."""

import csv
import json
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
import wordtree_datasets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import FOLDER as ORACLE
from oracle import needs_oracle
from strategies import trees

from wordtree import LabelMap, WordTree, WordTreeError, build_tree, label_maps, wordnet
from wordtree.labels import to_csv

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
    with pytest.raises(
        WordTreeError, match=r"^no label map 'coc'; did you mean 'coco'\? known: coco, imagenet1k, .*voc"
    ):
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


def test_a_word_of_several_senses_is_not_taken_for_the_one_on_the_tree() -> None:
    tree = build_tree("coco")  # which has the computer's mouse, and no other
    mice = LabelMap("zoo", ("mouse", "zebra"), ("mouse", "zebra"))
    told = r"1 of the 2 labels of 'zoo' have .*: mouse \(mouse: mouse\.n\.01, shiner\.n\.01, .*\); give the id or"
    with pytest.raises(WordTreeError, match=told):
        mice.nodes_on(tree)
    with pytest.raises(WordTreeError, match="has 4 senses"):
        build_tree(mice)
    one = LabelMap("zoo", ("mouse", "zebra"), ("mouse.n.04", "zebra"))
    assert [tree.names[node] for node in one.nodes_on(tree)] == ["mouse", "zebra"]


# ---------------------------------------------------------------------- the nearest that a tree has


def test_the_nearest_node_is_found_from_synset_names_words_and_instances() -> None:
    tree = build_tree(["dog.n.01", "star.n.01", "bird.n.01"])
    some = LabelMap("some", tuple("abcd"), ("poodle.n.01", "sun.n.01", "king penguin", "thought.n.01"))
    assert some.nearest_on(tree) == ["n02084071", wordnet.id_of("star.n.01"), wordnet.id_of("bird.n.01"), None]
    with pytest.raises(WordTreeError, match="'mouse' has 4 senses"):
        LabelMap("some", ("mouse",), ("mouse",)).nearest_on(tree)
    with pytest.raises(WordTreeError, match="no noun 'pengiun'"):
        LabelMap("some", ("bird",), ("pengiun",)).nearest_on(tree)


def test_a_taxonomy_in_a_circle_has_an_end() -> None:
    graph = networkx.DiGraph([("a", "b"), ("b", "c"), ("c", "a"), ("top", "b")])
    tree = WordTree(["top", "other"], [-1, -1])
    assert LabelMap("some", ("c", "top"), ("c", "top")).nearest_on(tree, graph) == ["top", "top"]
    assert LabelMap("some", ("c",), ("c",)).nearest_on(WordTree(["other"], [-1]), graph) == [None]


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


def test_maps_are_equal_by_what_they_hold() -> None:
    labels = LabelMap("pets", ["dog", "cat"], ["n02084071", "n02121620"])  # type: ignore[arg-type]
    same = LabelMap("pets", ("dog", "cat"), ("n02084071", "n02121620"), (0, 1))
    assert labels == same
    assert len({labels, same, pickle.loads(pickle.dumps(labels))}) == 1
    for other in (
        LabelMap("pet", ("dog", "cat"), ("n02084071", "n02121620")),
        LabelMap("pets", ("cat", "dog"), ("n02121620", "n02084071")),
        LabelMap("pets", ("dog", "cat"), ("n02084071", "n02121620"), (1, 2)),
    ):
        assert labels != other


# ---------------------------------------------------------------------- writing

IDS = st.sampled_from(["n02084071", "Q7", "7", "no", "/m/01", "a b"])
EXACT = st.text(min_size=1, max_size=8).map(str.strip).filter(bool) | st.sampled_from(
    ["no", "7", "a, b", '"', "labels"]
)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".yaml", ".yml", ".json"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_written_is_read_again_or_refused(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    names = data.draw(
        st.lists(EXACT | st.sampled_from(["no", "7", "a, b", '"', "été", "labels"]), min_size=1, unique=True)
    )
    ids = data.draw(
        st.lists(
            st.sampled_from(["n02084071", "Q7", "7", "no", "/m/01", "a b"]), min_size=len(names), max_size=len(names)
        )
    )
    numbers = data.draw(st.just(()) | st.permutations(range(3, 3 + len(names))).map(tuple))
    labels = LabelMap("a", tuple(names), tuple(ids), numbers)
    path = tmp_path / f"a{suffix}"
    path.unlink(missing_ok=True)
    if all(name.isprintable() for name in names):
        labels.save(path)
    else:  # a format may refuse a control character; it may not change one
        with suppress(WordTreeError):
            labels.save(path)
    assert not path.exists() or LabelMap.read(path) == labels


def test_every_shipped_map_survives_every_format(tmp_path: Path) -> None:
    for name, labels in label_maps().items():
        for suffix in (".csv", ".tsv", ".json"):
            assert LabelMap.read(labels.save(tmp_path / f"{name}{suffix}")) == labels
    coco = label_maps()["coco"]
    assert LabelMap.read(coco.save(tmp_path / "coco.yaml")) == coco
    assert to_csv(coco) == (tmp_path / "coco.csv").read_text()


@pytest.mark.parametrize(
    ("labels", "name", "error"),
    [
        (LabelMap("a", ("dog",), ("x",)), "a.xml", r"no label map format '\.xml'; known: \.csv, \.tsv"),
        (LabelMap("a", (" dog",), ("x",)), "a.csv", r"a \.csv file cannot hold the label ' dog' with the id 'x'"),
        (LabelMap("a", ("dog",), ("x ",)), "a.yaml", r"a \.yaml file cannot hold the label 'dog' with the id 'x '"),
        (LabelMap("a", ("dog", ""), ("x", "y")), "a.json", r"label '' with id 'y'; give both"),
    ],
)
def test_what_a_file_cannot_hold_is_not_written(labels: LabelMap, name: str, error: str, tmp_path: Path) -> None:
    with pytest.raises(WordTreeError, match=error):
        labels.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- annotation files


def annotations(path: Path, categories: list[Any]) -> Path:
    """A file in COCO's format: images and boxes first, as COCO has them."""
    box = {"id": 7, "image_id": 1, "category_id": 90, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}
    image = {"id": 1, "file_name": "1.jpg", "height": 9, "width": 9}
    path.write_text(json.dumps({"info": {}, "images": [image], "annotations": [box] * 3, "categories": categories}))
    return path


def test_an_annotation_file_gives_its_categories_by_number(tmp_path: Path) -> None:
    path = annotations(
        tmp_path / "instances.json",
        [
            {"supercategory": "sports", "id": 36, "name": "snowboard"},
            {"supercategory": "animal", "id": 25, "name": "giraffe"},
            {"supercategory": "outdoor", "id": 14, "name": "parking meter"},
        ],
    )
    labels = LabelMap.read(path)
    assert labels.name == "instances"
    assert labels.labels == ("parking meter", "giraffe", "snowboard")
    assert labels.numbers == (14, 25, 36)
    coco = label_maps()["coco"]
    assert labels.ids == tuple(coco.ids[coco.labels.index(label)] for label in labels.labels)
    tree = build_tree(labels)
    node_of = dict(zip(labels.numbers, labels.nodes_on(tree).tolist(), strict=True))
    assert tree.names[node_of[25]] == "giraffe"
    assert LabelMap.read(labels.save(tmp_path / "mine.csv"), name="instances") == labels


def test_the_boxes_of_an_annotation_file_are_not_decoded(tmp_path: Path) -> None:
    """What stands before and after the categories is not read: a file that breaks off later still has its labels."""
    path = annotations(tmp_path / "a.json", [{"id": 1, "name": "zebra"}])
    path.write_text(path.read_text().replace('"bbox"', "bbox").removesuffix("}"))
    assert LabelMap.read(path).labels == ("zebra",)


LVIS = [
    {
        "id": 1,
        "name": "aerosol_can",
        "synset": "aerosol.n.02",
        "synonyms": ["aerosol_can", "spray_can"],
        "frequency": "c",
    },
    {"id": 1026, "name": "stop_sign", "synset": "stop_sign.n.01", "frequency": "f"},
    {"id": 64, "name": "bat_(animal)", "synset": "bat.n.01", "frequency": "c"},
]


def test_an_lvis_file_gives_its_own_synsets(tmp_path: Path) -> None:
    path = annotations(tmp_path / "lvis.json", LVIS)
    with pytest.raises(WordTreeError, match=r"category 1026 \(stop_sign\): no noun 'stop_sign\.n\.01' .*='skip'"):
        LabelMap.read(path)
    with pytest.warns(UserWarning, match=r"WordNet 3\.0 does not have stop_sign \(stop_sign\.n\.01\): left out"):
        labels = LabelMap.read(path, missing="skip")
    assert labels.labels == ("aerosol_can", "bat_(animal)")
    assert labels.numbers == (1, 64)
    assert [wordnet.synset_name(id_) for id_ in labels.ids] == ["aerosol.n.02", "bat.n.01"]
    with pytest.raises(WordTreeError, match="no way with missing labels 'skp'; did you mean 'skip'"):
        LabelMap.read(path, missing="skp")


def test_every_label_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("label,id\na,n00000000\nb,n02084071\nc,quark.n.77\nd,dog.n.99\n")
    with pytest.raises(WordTreeError, match=r"a\.csv, line 2: no noun 'n00000000' .*; and so for c, d; missing='skip'"):
        LabelMap.read(tmp_path / "a.csv")
    with pytest.warns(UserWarning, match=r"does not have a \(n00000000\), c \(quark\.n\.77\), d \(dog\.n\.99\): left"):
        assert LabelMap.read(tmp_path / "a.csv", missing="skip").labels == ("b",)


def test_labels_behind_a_gap_keep_their_numbers(tmp_path: Path) -> None:
    """What annotations call class 2 is class 2, whether WordNet has a word for class 1 or not."""
    (tmp_path / "a.csv").write_text("label,id\ndog,n02084071\nunicorn,unicorn.n.9\n\ncat,n02121620\n")
    (tmp_path / "a.yaml").write_text("dog: n02084071\nunicorn: unicorn.n.9\ncat: n02121620\n")
    for file in ("a.csv", "a.yaml"):
        with pytest.warns(UserWarning, match="unicorn"):
            labels = LabelMap.read(tmp_path / file, missing="skip")
        assert dict(zip(labels.labels, labels.numbers, strict=True)) == {"dog": 0, "cat": 2}
        assert LabelMap.read(labels.save(tmp_path / f"b{file[1:]}"), "a") == labels


def test_an_id_of_yaml_is_the_text_as_written(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "labels: {a: no, b: 0123, c: 1.10, d: 2001-01-01}\nnumbers: {a: 3, b: 1, c: 2, d: 9}\n"
    )
    labels = LabelMap.read(tmp_path / "a.yaml")
    assert (labels.ids, labels.numbers) == (("no", "0123", "1.10", "2001-01-01"), (3, 1, 2, 9))
    assert LabelMap.read(labels.save(tmp_path / "b.yaml"), "a") == labels


def test_category_names_of_several_senses_are_listed_with_them(tmp_path: Path) -> None:
    categories = [{"id": at, "name": name} for at, name in enumerate(["mouse", "zebra", "tie", "stop sign"])]
    path = annotations(tmp_path / "a.json", categories)
    for missing in ("error", "skip"):
        with pytest.raises(WordTreeError) as caught:
            LabelMap.read(path, missing=missing)
        told = str(caught.value)
        assert (
            "names of several senses in WordNet, 2 of 4: mouse (mouse.n.01, shiner.n.01, mouse.n.03, mouse.n.04)"
            in told
        )
        assert "tie (necktie.n.01, " in told
        assert f"wordtree labels --guess {path}" in told
    path = annotations(tmp_path / "b.json", categories[1::2])
    with pytest.raises(WordTreeError, match=r"category 3 \(stop sign\): no noun 'stop sign' in WordNet"):
        LabelMap.read(path)
    with pytest.warns(UserWarning, match=r"does not have stop sign: left out"):
        assert LabelMap.read(path, missing="skip").numbers == (1,)


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
        ("a.csv", "label,id,number\ndog,x,1\ncat,y,\n", r"a\.csv, line 3: label 'cat' has no number; give all"),
        ("a.csv", "label,id,number\ndog,x,1\ncat,y,1\n", r"line 3: number 1 stands in line 2 already"),
        ("a.csv", "label,id,number\ndog,x,1.5\n", r"line 2: number '1\.5'; give a whole number"),
        ("a.json", '{"labels": {"dog": "x"}, "numbers": {"dg": 1}}', r"of 'dg'; did you mean|'dg'; did you mean 'dog'"),
        ("a.json", '{"labels": {"dog": "x"}, "numbers": {"dog": true}}', r"entry 1: number True; give a whole number"),
        ("a.json", '{"categories": [{"id": 1}]}', r"category 1: \{'id': 1\}; a category has an `id` and a `name`"),
        ("a.json", '{"categories": [{"id": 1, "name": "zebra"}, {"id": 1, "name": "ox"}]}', r"number 1 stands in"),
        ("a.json", '{"categories": [{"id": 1, "name": "zebra"}', r"a\.json, line 1: not JSON"),
        ("a.json", '{"categories": []}', r"a\.json: no labels"),
        ("a.yaml", "? [a, b]\n: c\n", r"a\.yaml, line 1: a list or a mapping as a key; give pairs `label: id`"),
        ("a.yaml", "cat: x\ndog:\n", r"a\.yaml, entry 2: label 'dog' with id ''; give both"),
        ("a.yaml", "dog: [a, b]\n", r"a\.yaml, entry 1: label 'dog' has the id \['a', 'b'\]; give text or a number"),
        ("a.yaml", "dog: {a: b}\n", r"a\.yaml, entry 1: label 'dog' has the id \{'a': 'b'\}; give text"),
        ("a.json", '{"dog": null}', r"a\.json, entry 1: label 'dog' with id ''; give both"),
        ("a.json", '{"dog": true}', r"a\.json, entry 1: label 'dog' has the id True; give text or a number"),
        ("a.csv", "family,species\nFelidae,Lynx lynx,3\n", r"a\.csv, line 2: '3' stands beyond the columns family, sp"),
        ("a.csv", "label,id\nx,y\ncrane, the,n02012849\n", r"a\.csv, line 3: 'n02012849' stands beyond the columns"),
        ("a.csv", f"label,id\ndog,{'n' * 140_000}\n", r"a\.csv, line \d: not a table \(field larger than field limit"),
        ("a.csv", f"{'n' * 140_000}\n", r"a\.csv, line 1: not a table \(field larger"),
        ("a.txt", "dog", r"a\.txt: no reader for '\.txt'; known: \.csv, \.tsv"),
    ],
)
def test_a_bad_file_is_refused_by_line(tmp_path: Path, name: str, text: str, error: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(WordTreeError, match=error):
        LabelMap.read(tmp_path / name)


def test_a_comma_too_many_is_no_cell(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("label,id\ndog,n02084071,\ncat,n02121620, ,\n")
    assert LabelMap.read(tmp_path / "a.csv").labels == ("dog", "cat")


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no label map '.*gone\.csv'; give a \.csv"):
        LabelMap.read(tmp_path / "gone.csv")
    (tmp_path / "a.csv").write_bytes(b"label,id\nd\xff\n")
    with pytest.raises(WordTreeError, match=r"a\.csv: not UTF-8"):
        LabelMap.read(tmp_path / "a.csv")


@pytest.mark.parametrize("numbers", [(1, 1), (1,), (1, 2, 3)])
def test_numbers_that_do_not_fit_are_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises(WordTreeError, match=r"'m' has 2 labels and \d different numbers; give each"):
        LabelMap("m", ("a", "b"), ("x", "y"), numbers)
