"""Taxonomies in files: every format says the same graph, real formats are read as their data sets write them."""

import json
import tempfile
from pathlib import Path
from typing import Any

import networkx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import FOLDER as ORACLE
from oracle import needs_oracle
from strategies import taxonomies, trees

from wordtree import WordTree, WordTreeError, build_tree, read_taxonomy
from wordtree.graphs import circles

# dog stands under animal and under pet; ids are names
EDGES = [("animal", "dog"), ("animal", "cat"), ("pet", "dog"), ("dog", "poodle"), ("dog", "beagle")]
PETS: dict[str, str] = {
    "edges.csv": "parent,child\nanimal,dog\nanimal,cat\npet,dog\ndog,poodle\ndog,beagle\n",
    "edges.tsv": "child\tparent\ndog\tanimal\ncat\tanimal\ndog\tpet\npoodle\tdog\nbeagle\tdog\n",
    "rows.csv": "id,parent,name\nanimal,,\ndog,animal,\ndog,pet,\npet,,\ncat,animal,\npoodle,dog,\nbeagle,dog,\n",
    "nested.yaml": "animal:\n  dog: [poodle, beagle]\n  cat:\npet: [dog]\n",
    "nested.json": '{"animal": {"dog": ["poodle", "beagle"], "cat": null}, "pet": ["dog"]}',
    "list.yml": "- animal:\n  - dog: [poodle]\n  - cat\n- pet:\n    dog: [beagle]\n",
    "parents.yaml": """
- {name: animal}
- {name: pet, parent: }
- {name: dog, parent: [animal, pet]}
- {name: cat, parent: animal}
- {name: poodle, parent: dog}
- {name: beagle, parent: dog}
""",
    "records.json": json.dumps(
        [
            {"name": "dog", "supercategory": ["animal", "pet"], "id": 18},
            {"name": "cat", "supercategory": "animal", "id": 17},
            {"name": "poodle", "supercategory": "dog", "id": 1},
            {"name": "beagle", "supercategory": "dog", "id": 2},
        ]
    ),
}


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# ---------------------------------------------------------------------- every format says the same


@pytest.mark.parametrize("name", PETS)
def test_one_taxonomy_in_every_format(name: str, tmp_path: Path) -> None:
    graph = read_taxonomy(written(tmp_path, name, PETS[name]))
    assert isinstance(graph, networkx.DiGraph)
    assert set(graph.edges) == set(EDGES)
    assert all(graph.nodes[id_]["name"] == id_ for id_ in graph)
    tree = build_tree(["poodle", "beagle", "cat"], taxonomy=tmp_path / name)
    assert tree == build_tree(["poodle", "beagle", "cat"], taxonomy=networkx.DiGraph(EDGES))
    with pytest.raises(WordTreeError, match=r"'dog' has 2 parents \('animal', 'pet'\), a tree gives one; build_tree"):
        WordTree.load(tmp_path / name)


def nested(graph: networkx.DiGraph, at: str) -> Any:
    return {child: nested(graph, child) for child in graph.successors(at)} or None


@settings(deadline=None)
@given(taxonomies())
def test_any_taxonomy_survives_being_written(drawn: tuple[networkx.DiGraph, list[str]]) -> None:
    graph, _ = drawn
    tops = [node for node in graph if graph.in_degree(node) == 0]
    rows = [(node, parent) for node in graph for parent in (list(graph.predecessors(node)) or [""])]
    whole = {top: nested(graph, top) for top in tops}
    texts = {
        "a.csv": "\n".join(["id,parent", *(f"{node},{parent}" for node, parent in rows)]),
        "b.tsv": "\n".join(["parent\tchild", *(f"{parent}\t{node}" for node, parent in rows)]),
        "c.json": json.dumps(whole, indent=1),
        "d.yaml": yaml.safe_dump(whole),
        "e.json": json.dumps([{"name": node, "parent": list(graph.predecessors(node))} for node in graph]),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            again = read_taxonomy(written(Path(folder), name, text))
            assert set(again) == set(graph), name
            assert set(again.edges) == set(graph.edges), name


@settings(deadline=None)
@given(trees())
def test_a_tree_that_is_nested_is_loaded_as_it_is_arranged(tree: WordTree) -> None:
    graph = tree.to_networkx()
    with tempfile.TemporaryDirectory() as folder:
        whole = nested(graph, "root")
        for name, text in (("t.json", json.dumps(whole)), ("t.yaml", yaml.safe_dump(whole, sort_keys=False))):
            again = WordTree.load(written(Path(folder), name, text))
            assert set(again.ids) == set(tree.ids)
            for node in range(len(tree)):
                path = [tree.ids[step] for step in tree.path(node)]
                assert [again.ids[step] for step in again.path(again.ids.index(tree.ids[node]))] == path
            for node in range(-1, len(tree)):
                at = again.ids.index(tree.ids[node]) if node >= 0 else -1
                assert [again.ids[c] for c in again.children(at)] == [tree.ids[c] for c in tree.children(node)]
            assert WordTree.load(again.save(Path(folder) / "again.csv")) == again


def test_a_tree_file_is_a_taxonomy_too(tmp_path: Path) -> None:
    tree = build_tree(["zebra", "giraffe", "bicycle.n.01"])
    for name in ("t.json", "t.csv", "t.tsv", "t.tree"):
        graph = read_taxonomy(tree.save(tmp_path / name))
        assert set(graph) == set(tree.ids)
        assert {(tree.ids[p], tree.ids[n]) for n, p in enumerate(tree.parents) if p >= 0} == set(graph.edges)
    assert [read_taxonomy(tmp_path / "t.json").nodes[id_]["name"] for id_ in tree.ids] == list(tree.names)


@needs_oracle
def test_labels_are_built_on_darknets_own_tree() -> None:
    tree = build_tree(["n02085620", "n02123045"], taxonomy=ORACLE / "data" / "9k.tree")
    assert {"n02085620", "n02123045"} <= set(tree.ids)


# ---------------------------------------------------------------------- as data sets write it

OPEN_IMAGES = {  # as in bbox_labels_600_hierarchy.json: nodes stand in several places, with all that is below them
    "LabelName": "/m/0bl9f",
    "Subcategory": [
        {
            "LabelName": "/m/0138tl",
            "Subcategory": [
                {"LabelName": "/m/0167gd"},
                {"LabelName": "/m/0kmg4", "Subcategory": [{"LabelName": "/m/x"}]},
            ],
        },
        {
            "LabelName": "/m/01g317",
            "Subcategory": [{"LabelName": "/m/04yx4"}, {"LabelName": "/m/03bt1vf"}],
            "Part": [{"LabelName": "/m/02p0tk3", "Part": [{"LabelName": "/m/014sv8"}, {"LabelName": "/m/0167gd"}]}],
        },
        {"LabelName": "/m/02p16m6", "Subcategory": [{"LabelName": "/m/0kmg4", "Subcategory": [{"LabelName": "/m/x"}]}]},
    ],
}


def test_open_images_hierarchy_without_its_parts(tmp_path: Path) -> None:
    for indent in (None, 2):
        path = written(tmp_path, "bbox_labels_600_hierarchy.json", json.dumps(OPEN_IMAGES, indent=indent))
        graph = read_taxonomy(path)
        assert set(graph.predecessors("/m/0kmg4")) == {"/m/0138tl", "/m/02p16m6"}
        assert set(graph.predecessors("/m/0167gd")) == {"/m/0138tl"}  # also a part, which says nothing
        # What is a part and nothing else is a thing of its own: it stands under the top, not under the whole.
        assert set(graph.predecessors("/m/02p0tk3")) == set(graph.predecessors("/m/014sv8")) == {"/m/0bl9f"}
        assert [node for node in graph if graph.in_degree(node) == 0] == ["/m/0bl9f"]
        assert graph.number_of_edges() == 11
        tree = build_tree(["/m/x", "/m/04yx4", "/m/014sv8"], taxonomy=str(path))
        assert tree.root_name == "/m/0bl9f"
        assert set(tree.ids) == {"/m/x", "/m/04yx4", "/m/014sv8"}


def test_coco_categories_stand_under_their_supercategories(tmp_path: Path) -> None:
    categories = [
        {"supercategory": "person", "id": 1, "name": "person"},  # COCO's person is its own
        {"supercategory": "animal", "id": 17, "name": "cat"},
        {"supercategory": "animal", "id": 18, "name": "dog", "keypoints": ["nose"], "skeleton": [[1, 2]]},
    ]
    for content in (categories, {"info": {}, "images": [{"id": 1}], "categories": categories}):
        graph = read_taxonomy(written(tmp_path, "instances.json", json.dumps(content)))
        assert set(graph.edges) == {("animal", "cat"), ("animal", "dog")}
        assert set(graph) == {"person", "animal", "cat", "dog"}


def test_ids_of_a_category_tree_are_what_parents_name(tmp_path: Path) -> None:
    entries = ["id: 1, name: animal, parent: ", "id: 2, name: crane, parent: 1", "id: 3, name: crane, parent: 4"]
    text = "".join(f"- {{{entry}}}\n" for entry in [*entries, "id: 4, name: machine"])
    tree = WordTree.load(written(tmp_path, "t.yaml", text))
    assert {tree.ids[n]: tree.ids[p] for n, p in enumerate(tree.parents) if p >= 0} == {"2": "1", "3": "4"}
    assert sorted(tree.names) == ["animal", "crane", "crane", "machine"]


def test_name_and_children(tmp_path: Path) -> None:
    below = [{"name": "a", "children": [{"name": "b", "size": 3}]}, {"name": "c"}]
    text = json.dumps({"name": "flare", "children": below})
    assert set(read_taxonomy(written(tmp_path, "t.json", text)).edges) == {("flare", "a"), ("a", "b"), ("flare", "c")}


@pytest.mark.parametrize(
    "tree",
    [
        "[3, 3, -1, -1]",
        "[animal, animal, '', '']",
        "[animal, animal, ~, -1]",
        "{0: animal, 1: animal, 2: -1, 3: }",
        "[animal > dog, animal>cat, car, animal]",  # whole paths
    ],
)
def test_a_data_sets_yaml_with_a_tree_beside_its_names(tree: str, tmp_path: Path) -> None:
    for names in ("[dog, cat, car, animal]", "{0: dog, 1: cat, 2: car, 3: animal}"):
        path = written(tmp_path, "data.yaml", f"path: /data\ntrain: images\nnc: 4\nnames: {names}\ntree: {tree}\n")
        loaded = WordTree.load(path)
        assert loaded.ids == ("car", "animal", "dog", "cat")
        assert loaded.parents.tolist() == [-1, -1, 1, 1]


def test_paths_beside_names_make_the_nodes_on_the_way(tmp_path: Path) -> None:
    text = "names: [dog, cat, car]\ntree:\n  - animal > canine > dog\n  - animal > feline\n  - ''\n"
    tree = WordTree.load(written(tmp_path, "data.yaml", text))
    assert [tree.ids[step] for step in tree.path(tree.find("dog"))] == ["animal", "canine", "dog"]
    assert [tree.ids[step] for step in tree.path(tree.find("cat"))] == ["animal", "feline", "cat"]
    assert tree.path(tree.find("car")) == (tree.find("car"),)


def test_words_that_yaml_takes_for_something_else_stay_words(tmp_path: Path) -> None:
    graph = read_taxonomy(written(tmp_path, "t.yaml", "no: [yes, 'null', 007, 1.50, 12]\n"))
    assert set(graph.successors("no")) == {"yes", "null", "007", "1.50", "12"}


def test_a_name_is_kept_and_finds_its_node(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "\ufeffid,parent,name\r\nn1,,animal\r\nn2,n1,dog\r\nn3,n1,cat\r\n")
    tree = build_tree(["dog", "n3"], taxonomy=path)
    assert (tree.ids, tree.names, tree.root_name) == (("n2", "n3"), ("dog", "cat"), "animal")
    assert tree.report is not None
    assert tree.report.taxonomy == str(path)


def test_nesting_may_go_deep(tmp_path: Path) -> None:
    lines = [f"{' ' * depth}n{depth}:" for depth in range(800)]
    tree = WordTree.load(written(tmp_path, "deep.yaml", "\n".join(lines)))
    assert len(tree) == 800
    assert tree.depths.max() == 799


def test_a_file_that_is_not_there_or_of_another_kind() -> None:
    with pytest.raises(FileNotFoundError, match=r"no file 'gone\.yaml'"):
        build_tree(["dog"], taxonomy="gone.yaml")
    with pytest.raises(WordTreeError, match=r"t\.xml: no tree format '\.xml'; known: \.tree, \.csv"):
        read_taxonomy("t.xml")


# ---------------------------------------------------------------------- circles


@given(st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=8, max_size=8))
def test_circles_are_circles_and_opening_each_leaves_none(above: list[list[int]]) -> None:
    graph = networkx.DiGraph([(parent, row) for row, parents in enumerate(above) for parent in parents])
    graph.add_nodes_from(range(8))
    found = circles(above)
    for circle in found:
        assert all(graph.has_edge(a, b) for a, b in zip(circle, circle[1:] + circle[:1], strict=True))
        assert circle[0] == min(circle)
        assert len(set(circle)) == len(circle)
    graph.remove_edges_from([edge for circle in found for edge in list(graph.in_edges(circle[0]))])
    assert networkx.is_directed_acyclic_graph(graph)
    assert bool(found) != networkx.is_directed_acyclic_graph(
        networkx.DiGraph([(parent, row) for row, parents in enumerate(above) for parent in parents])
    )
