"""Trees in files: what is written is read again, Darknet's files to the byte, faults by file and line."""

import csv
import json
import tempfile
from pathlib import Path

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import FOLDER as ORACLE
from oracle import needs_oracle
from strategies import trees

from wordtree import WordTree, WordTreeError, build_tree
from wordtree.formats import from_networkx, read_map, write_map, write_whole


@settings(deadline=None)
@given(trees())
def test_what_is_saved_is_loaded_again(tree: WordTree) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".json", ".tree", ".csv", ".tsv"):
            path = Path(folder) / f"tree{suffix}"
            assert tree.save(path) == path
            again = WordTree.load(path)
            assert again == tree, suffix
            assert again.names == tree.names, suffix
        assert sorted(path.name for path in Path(folder).iterdir()) == [
            *("tree.csv", "tree.json", "tree.names", "tree.tree", "tree.tsv")
        ]


@given(trees())
def test_networkx_and_back(tree: WordTree) -> None:
    graph = tree.to_networkx()
    assert networkx.is_arborescence(graph)
    again = from_networkx(graph)
    assert again == tree
    assert (again.names, again.root_name) == (tree.names, tree.root_name)


def test_json_keeps_the_roots_name_and_is_versioned(tmp_path: Path) -> None:
    tree = build_tree(["zebra", "giraffe", "bicycle.n.01"])
    content = json.loads(tree.save(tmp_path / "t.json").read_text())
    assert (content["format"], content["version"], content["sha256"]) == ("wordtree", 1, tree.hash)
    assert WordTree.load(tmp_path / "t.json").root_name == "physical entity"


def test_rows_of_a_csv_may_stand_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\ufeffname,id,parent\nhound,h,d\nanimal,a,\ndog,d,a\ncat,c,a\n", encoding="utf-8")
    tree = WordTree.load(tmp_path / "t.csv")
    assert tree.names == ("animal", "dog", "cat", "hound")
    assert tree.parents.tolist() == [-1, 0, 0, 1]


# ---------------------------------------------------------------------- Darknet


@given(trees())
def test_darknets_files_are_written_as_they_were_read(tree: WordTree) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first, again = Path(folder) / "a.tree", Path(folder) / "b.tree"
        lines = [f"{id_} {parent}\n" for id_, parent in zip(tree.ids, tree.parents, strict=True)]
        first.write_text("".join(lines), encoding="utf-8")
        first.with_suffix(".names").write_text("".join(f"{name}\n" for name in tree.names), encoding="utf-8")
        WordTree.load(first).save(again)
        for suffix in (".tree", ".names"):
            assert again.with_suffix(suffix).read_bytes() == first.with_suffix(suffix).read_bytes()


@given(st.lists(st.integers(0, 2**40)))
def test_maps_are_written_as_they_were_read(nodes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_map(nodes, Path(folder) / "a.map")
        written = path.read_bytes()
        assert written == "".join(f"{node}\n" for node in nodes).encode()
        assert read_map(path).tolist() == nodes
        assert write_map(read_map(path), path).read_bytes() == written


@needs_oracle
def test_darknets_files_to_the_byte(tmp_path: Path) -> None:
    data = ORACLE / "data"
    tree = WordTree.load(data / "9k.tree", names=data / "9k.names")
    tree.save(tmp_path / "9k.tree")
    for name in ("9k.tree", "9k.names"):
        assert (tmp_path / name).read_bytes() == (data / name).read_bytes(), name
    for name in ("coco9k.map", "inet9k.map"):
        write_map(read_map(data / name), tmp_path / name)
        assert (tmp_path / name).read_bytes() == (data / name).read_bytes(), name
    assert WordTree.load(tree.save(tmp_path / "9k.json")) == tree


def test_names_are_taken_from_beside_a_tree_or_from_where_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "t.tree").write_bytes(b"a -1\r\nb 0\r\n")
    assert WordTree.load(tmp_path / "t.tree").names == ("a", "b")
    (tmp_path / "other.names").write_text("animal\ndog\n")
    assert WordTree.load(tmp_path / "t.tree", names=tmp_path / "other.names").names == ("animal", "dog")
    (tmp_path / "t.names").write_text("plant\noak\n")
    assert WordTree.load(tmp_path / "t.tree").names == ("plant", "oak")
    (tmp_path / "t.names").write_text("plant\n")
    with pytest.raises(
        WordTreeError, match=r"t\.names, line 2: 1 names for the 2 nodes of .*t\.tree; give one line a node"
    ):
        WordTree.load(tmp_path / "t.tree")


# ---------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("t.tree", "a -1\nb\n", r"t\.tree, line 2: 'b'; a line is an id and its parent's line"),
        ("t.tree", "a -1\nb 0 c\n", r"t\.tree, line 2: 'b 0 c'"),
        ("t.tree", "a -1\nb x\n", r"t\.tree, line 2: 'b x'"),
        ("t.tree", "a -1\n\nb 0\n", r"t\.tree, line 2: an empty line; a line is an id and"),
        ("t.tree", "a -1\nb 1\n", r"t\.tree, line 2: 'b' is its own parent"),
        ("t.tree", "a -2\n", r"t\.tree, line 1: parent -2 of 'a'"),
        ("t.tree", "a -1\na -1\n", r"t\.tree, line 2: id 'a' stands on line 1 already"),
        ("t.tree", "a -1\nb -1\nc 0\nd -1\n", r"t\.tree, line 4: 'd' stands apart from its siblings under the root"),
        ("t.tree", "", r"t\.tree, line 1: a tree without nodes"),
        ("t.json", "{", r"t\.json, line 1: not JSON"),
        ("t.json", "[]", r"t\.json, line 1: a tree without nodes"),
        (
            "t.json",
            '{"format": "wordtree", "version": 2}',
            r"t\.json, line 1: version 2; this wordtree",
        ),
        (
            "t.json",
            '{"format": "wordtree", "version": 1, "nodes": [["a", "b", "c"]]}',
            r"t\.json, line 1: \['a', 'b', 'c'\]; a node is",
        ),
        ("t.csv", "id,name\na,b\n", r"t\.csv, line 1: columns: id, name; give parent and child, or id, parent"),
        ("t.csv", "id,parent\na,\na,\n", r"t\.csv, line 3: 'a' stands at the top on line 2 already"),
        ("t.csv", "id,parent\na,b\n", r"t\.csv, line 2: 'a' stands under 'b', which is no node"),
        (
            "t.csv",
            "id,parent\na,b\nb,a\n",
            r"t\.csv, line 2: a circle, parent > child: 'a' \(line 2\) > 'b' \(line 3\) > 'a'",
        ),
        ("t.txt", "a", r"t\.txt: no tree format '\.txt'; known: \.tree, \.csv, \.tsv, \.json, \.yaml"),
    ],
)
def test_a_bad_tree_is_refused_by_file_and_line(tmp_path: Path, name: str, text: str, error: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(WordTreeError, match=error):
        WordTree.load(tmp_path / name)


def test_a_changed_json_is_noticed(tmp_path: Path) -> None:
    path = WordTree(["a", "b", "c"], [-1, 0, 0]).save(tmp_path / "t.json")
    path.write_text(path.read_text().replace('["c", 0,', '["c", 1,'))
    with pytest.raises(WordTreeError, match=r"t\.json, line 1: ids or parents were changed since it was written"):
        WordTree.load(path)


@pytest.mark.parametrize("name", ["t.tree", "t.json", "t.csv", "t.map"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"no file '.*{name}'"):
        (read_map if name.endswith("map") else WordTree.load)(tmp_path / name)


def test_what_a_format_cannot_hold_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(WordTreeError, match="id 'a b' has white space"):
        WordTree(["a b"], [-1]).save(tmp_path / "t.tree")
    with pytest.raises(WordTreeError, match=r"name 'x\\ny' is empty or breaks a line"):
        WordTree(["a"], [-1], ["x\ny"]).save(tmp_path / "t.tree")
    with pytest.raises(WordTreeError, match="id ' a' is empty or ends in white space"):
        WordTree([" a"], [-1]).save(tmp_path / "t.csv")
    with pytest.raises(WordTreeError, match=r"no tree format '\.xml' to write; known: \.tree, \.json, \.csv, \.tsv"):
        WordTree(["a"], [-1]).save(tmp_path / "t.xml")
    assert list(tmp_path.iterdir()) == []
    tree = WordTree(["a b"], [-1], ["x\ny"])
    for name in ("t.json", "t.csv"):
        assert WordTree.load(tree.save(tmp_path / name)).names == tree.names


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")  # a lone surrogate fails on its way to the disk
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError, match=r"no folder '.*gone' to write 't\.json' into"):
        write_whole(tmp_path / "gone" / "t.json", "new")


def test_maps_take_nodes_from_zero(tmp_path: Path) -> None:
    assert read_map(write_map(np.array([3, 0, 3]), tmp_path / "a.map")).tolist() == [3, 0, 3]
    with pytest.raises(WordTreeError, match="numbers from 0"):
        write_map([0, -1], tmp_path / "b.map")
    (tmp_path / "c.map").write_text("1\n-1\n")
    with pytest.raises(WordTreeError, match=r"c\.map, line 2: '-1'"):
        read_map(tmp_path / "c.map")


def test_a_graph_that_is_no_tree_is_refused() -> None:
    with pytest.raises(WordTreeError, match=r"'x' has 2 parents \('a', 'b'\).*build_tree"):
        from_networkx(networkx.DiGraph([("a", "x"), ("b", "x")]))
    with pytest.raises(WordTreeError, match="id 'root' is the root's name too"):
        WordTree(["root"], [-1]).to_networkx()


def test_a_csv_is_quoted_as_others_read_it(tmp_path: Path) -> None:
    path = WordTree(["a", "b"], [-1, 0], ["x, y", 'say "z"']).save(tmp_path / "t.csv")
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [["id", "parent", "name"], ["a", "", "x, y"], ["b", "a", 'say "z"']]
