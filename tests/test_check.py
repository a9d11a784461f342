"""`wordtree check`: every fault by its line, through the program itself; and what it passes is read."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import FOLDER as ORACLE
from oracle import needs_oracle
from strategies import trees

from wordtree import LabelMap, WordTree, WordTreeError, build_tree, read_taxonomy
from wordtree.check import check
from wordtree.formats import read_map


def process(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("wordtree")
    return subprocess.run([program, "check", *arguments], capture_output=True, text=True, encoding="utf-8", **options)


# (file, content, [(line, a part of what is said)]): all that is said, in order
BROKEN: list[tuple[str, bytes, list[tuple[int, str]]]] = [
    # .tree
    ("t.tree", b"", [(1, "a tree without nodes; give at least one")]),
    ("t.tree", b"a -1\nb\nc 0 1\n", [(2, "'b'; a line is an id and its parent's line"), (3, "'c 0 1'; a line is")]),
    ("t.tree", b"a -1\nb x\nc 1.5\nd \xd9\xa3\n", [(2, "'b x'"), (3, "'c 1.5'"), (4, "'d ٣'")]),
    ("t.tree", b"a -1\n\nb 0\n  \nc 0\n", [(2, "an empty line"), (4, "an empty line")]),
    ("t.tree", b"a -1\nb 0\n\n", [(3, "an empty line")]),
    ("t.tree", b"a -1\nb 0\na 1\nb 2\n", [(3, "id 'a' stands on line 1 already"), (4, "id 'b' stands on line 2")]),
    ("t.tree", b"a -1\nb 4\nc -2\n", [(2, "parent 4 of 'b', which is not there"), (3, "parent -2 of 'c'; a parent")]),
    (
        "t.tree",
        b"c 2\na -1\nd -1\nb 4\ne 2\n",
        [(1, "parent 2 of 'c' stands below it"), (4, "parent 4 of 'b'"), (5, "'e' stands apart from its siblings")],
    ),
    ("t.tree", b"a 0\nb -1\nc 2\n", [(1, "'a' is its own parent; give it another"), (3, "'c' is its own parent")]),
    (
        "t.tree",
        b"a -1\nb 3\nc 1\nd 2\ne 5\nf 4\n",
        [(2, "'b' (line 2) > 'c' (line 3) > 'd' (line 4) > 'b'"), (5, "'e' (line 5) > 'f' (line 6) > 'e' (line 5)")],
    ),
    (
        "t.tree",
        b"a -1\nb -1\nc 0\nd 1\ne 0\nf -1\n",
        [(5, "'e' stands apart from its siblings under parent 0; put it below line 3"), (6, "under the root")],
    ),
    ("t.tree", b"\xef\xbb\xbfa -1\nb 0\n", [(1, "a byte-order mark before the text")]),
    ("t.tree", b"a -1\n\xe9t\xe9 0\nb 0\n\xff 0\n", [(2, "not UTF-8 text; save it as UTF-8"), (4, "not UTF-8 text")]),
    ("t.tree", b"a -1\n\0\0\0\0\nb 0\n", [(2, "4 NUL bytes; the file is damaged")]),
    ("t.tree", "a -1\n".encode("utf-16"), [(1, "UTF-16 text; save it as UTF-8")]),
    # .names and .map
    ("t.names", b"dog\n\n \ncat\n", [(2, "an empty line; a line is the name of a node"), (3, "an empty line")]),
    ("t.map", b"3\n-1\n\nx\n4\n1 2\n", [(2, "'-1'; a line of a .map is a node"), (3, "''"), (4, "'x'"), (6, "'1 2'")]),
    # our own .json
    ("t.json", b'{"format": "wordtree",\n"version": 2}', [(2, "version 2; this wordtree reads version 1")]),
    ("t.json", b'{"format": "wordtree", "version": 1}', [(1, "nodes are None; give a list")]),
    (
        "t.json",
        b'{"format": "wordtree", "version": 1, "nodes": [\n'
        b'["a", -1, "x"],\n["b", 2, "y"],\n["a", 9, "x"],\n["c", true, "z"]]}',
        [
            (3, "parent 2 of 'b' stands below it"),
            (4, "id 'a' stands on line 2 already"),
            (4, "parent 9 of 'a', which is not there; nodes go from 0 to 3"),
            (5, "['c', True, 'z']; a node is [id, parent's number or -1, name]"),
        ],
    ),
    (
        "t.json",
        b'{"format": "wordtree", "version": 1, "root": "root",\n"sha256": "0",\n"nodes": [["a", -1, "x"]]}',
        [(2, "ids or parents were changed since it was written")],
    ),
    ("t.json", b'{"format": "wordtree", "version": 1, "nodes": [["a", 1e3, 5]]}', [(1, "['a', 1000.0, 5]; a node is")]),
    # tables
    ("t.csv", b"id,name\na,b\n", [(1, "columns: id, name; give parent and child, or id, parent")]),
    ("t.csv", b"id,parent,id\na,,b\n", [(1, "column 'id' stands twice")]),
    ("t.csv", b"", [(1, "columns: none; give parent and child")]),
    ("t.csv", b"id,parent\n", [(1, "a tree without nodes")]),
    (
        "t.csv",
        b"id,parent,name\na,,A\n,a,B\nc,x,C\nd,y\na,,A\ne, a,E\n",
        [
            (3, "an empty id; give every node one"),
            (4, "'c' stands under 'x', which is no node"),
            (5, "2 cells for the columns id, parent, name"),
            (6, "'a' stands at the top on line 2 already"),
            (7, "' a' begins or ends with white space"),
            (7, "'e' stands under ' a', which is no node"),
        ],
    ),
    (
        "t.tsv",
        b"parent\tchild\n\ta\na\tb\n\nb\tc\nc\tb\nb\ta\na\tb\n",
        [
            (4, "an empty line; take it out"),
            (7, "'a' stands at the top and under a parent, here and on line 2"),
            (8, "'b' stands under 'a' on line 3 already"),
            (3, "'b' (line 3) > 'c' (line 5) > 'b'"),
        ],
    ),
    ("t.csv", b"id,parent,name\na,,x\nb,a,y\nb,c,z\nc,,x\n", [(4, "'b' is named 'z' here and 'y' before")]),
    ("t.csv", b'id,parent\na,\n"b"x,a\n', [(3, "not a table")]),
    ("t.csv", b"id,parent\na,\n\xe9,a\n", [(3, "not UTF-8 text")]),
    ("t.csv", b"id,parent\na,\nb\0,a\n", [(3, "1 NUL bytes")]),
    ("t.csv", b"\xef\xbb\xbfid,parent\r\na,\r\n", [(1, "a byte-order mark")]),
    # nested JSON and YAML
    ("t.json", b'{"a": ["b",\n}', [(2, "not JSON")]),
    ("t.json", b'{"a": {"b": null,\n"c": null,\n"b": ["d"]},\n"a": []}', [(3, "'b' stands on line 1"), (4, "key 'a'")]),
    (
        "t.json",
        b'{"a": ["b", 1.5,\n["c"],\ntrue,\n"\\ud800",\n"", " x"]}',
        [
            (1, "1.5 for an id or a name; give text"),
            (2, "['c']; give what stands below as a list"),
            (3, "True for an id"),
            (4, "has half a character"),
            (5, "id ''; give every node one"),
            (5, "id ' x'"),
        ],
    ),
    ("t.json", b"3", [(1, "3 at the top; give a list or a mapping")]),
    ("t.yaml", b"", [(1, "nothing in the file")]),
    ("t.yaml", b"a:\n  b: [c\nd: 3\n", [(3, "not YAML")]),
    (
        "t.yaml",
        b"a:\n  - b\nc: d\na: [x]\n",
        [(3, "'d'; give what stands below as a list"), (4, "key 'a' stands on line 1")],
    ),
    ("t.yaml", b"a: [b]\nb:\n  c: [a]\n", [(1, "'a' (line 1) > 'b' (line 2) > 'c' (line 3) > 'a' (line 1)")]),
    ("t.yaml", b"a: &x [b]\nc: *x\n", [(2, "an alias, *x; write out")]),
    ("t.yaml", b"a: [b]\n? [c]\n: d\n", [(2, "a list or a mapping as a key")]),
    ("t.yaml", b"a: [b]\n---\nc: [d]\n", [(2, "a second document")]),
    ("t.yaml", b"a: !!python/object/apply:os.system ['echo']\n", [(1, "a tag, tag:yaml.org,2002:python/object/apply")]),
    ("t.yaml", b"a: [b]\nc: [\x01]\n", [(2, "a control character")]),
    ("t.yaml", b"a: [b]\n\xe9: [c]\n", [(2, "not UTF-8 text")]),
    # lists of names and parents, COCO, Open Images, a data set's YAML
    (
        "t.yaml",
        b"- {name: a}\n- {name: b, parent: c}\n- {nam: d}\n- {name: a, parent: b}\n- {name: [x]}\n",
        [
            (2, "'b' stands under 'c', which is no node"),
            (3, "a mapping of nam"),
            (4, "id 'a' stands on line 1"),
            (5, "['x'] for an id or a name"),
        ],
    ),
    (
        "t.json",
        b'[{"name": "a", "supercategory": "x"},\n{"name": "a", "supercategory": "y"}]',
        [(2, "id 'a' stands on line 1 already")],
    ),
    (
        "t.json",
        b'{"LabelName": "e", "Subcategory": [\n{"LabelName": "a", "Subcategories": []},\n{"Label": "b"},\n'
        b'{"LabelName": "c", "Subcategory": [{"LabelName": "e"}]}]}',
        [(1, "'e' (line 1) > 'c' (line 4) > 'e'"), (2, "key 'Subcategories'"), (3, "a mapping of Label; an entry is")],
    ),
    ("t.yaml", b"nc: 2\nnames: [a, b]\n", [(2, "names without a tree; give `tree:`")]),
    ("t.yaml", b"names: [a, b]\ntree: [-1]\n", [(2, "1 entries of tree for 2 names")]),
    ("t.yaml", b"names: {0: a, 2: b}\ntree: [-1, 0]\n", [(1, "names is a mapping of 0, 2; give a list, or")]),
    (
        "t.yaml",
        b"names: [a, b, a]\ntree:\n- -1\n- 5\n- 0\n",
        [(4, "parent 5 of 'b'; give 0 to 2"), (5, "id 'a' stands")],
    ),
    ("t.yaml", b"names: [a, ~, '']\ntree: ['', a, a]\n", [(1, "nothing for an id or a name"), (2, "an empty id")]),
    (
        "t.yaml",
        b"names: [a, b]\ntree:\n- x > > a\n- 0\n",
        [(3, "path 'x > > a' of 'a'"), (4, "give indices all through")],
    ),
    ("t.yaml", b"names: [a, b]\ntree:\n- ''\n- c > a\n", [(4, "'a' stands under 'c' here and at the top itself")]),
    # label maps
    (
        "m.csv",
        b"label,id\na,n02084071\n,x\na,n99999999\n\nb,zzz.n.01\n",
        [
            (3, "label '' with id 'x'; give both"),
            (4, "label 'a' stands on line 2 already"),
            (4, "no noun 'n99999999'"),
            (5, "an empty line"),
            (6, "no noun 'zzz.n.01'"),
        ],
    ),
    (
        "m.yaml",
        b"dog: n02084071\ncat:\nno: n99999999\ndog: x\n",
        [(2, "label 'cat' with id ''"), (3, "n99999999"), (4, "'dog'")],
    ),
    ("m.json", b'{"labels": {"dog": "n02084071",\n"cat": ""}}', [(2, "label 'cat' with id ''")]),
]


@pytest.mark.parametrize(("name", "content", "faults"), BROKEN, ids=range(len(BROKEN)))
def test_every_fault_is_told_by_its_line(
    name: str, content: bytes, faults: list[tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    found, _ = check(tmp_path / name)
    assert [fault.line for fault in found] == sorted(line for line, _ in faults), [*map(str, found)]
    for line, text in faults:
        assert any(fault.line == line and text in fault.what for fault in found), (line, text, [*map(str, found)])
    for fault in found:
        assert str(fault).startswith(f"{tmp_path / name}:{fault.line}: ")
        assert "\n" not in str(fault)
        assert "; " in fault.what


@pytest.mark.parametrize(("name", "content", "faults"), BROKEN, ids=range(len(BROKEN)))
def test_what_check_refuses_the_reader_refuses_at_the_same_line(
    name: str, content: bytes, faults: list[tuple[int, str]], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    found = [fault for fault in check(path)[0] if not fault.mild]
    if not found or name.startswith("m.") or name == "t.names":
        return
    with pytest.raises(WordTreeError) as error:
        (read_map if name == "t.map" else WordTree.load)(path)
    assert str(error.value) == f"{path}, line {found[0].line}: {found[0].what}"


# ---------------------------------------------------------------------- the program


def test_faults_are_lines_a_summary_and_exit_code_one(tmp_path: Path) -> None:
    (tmp_path / "t.tree").write_text("animal -1\ndog 0\noak 9\ndog 0\n")
    (tmp_path / "t.names").write_text("animal\ndog\n\n")
    run = process("t.tree", cwd=tmp_path)
    assert run.returncode == 1
    assert run.stderr == ""
    assert run.stdout.splitlines() == [
        "t.tree:3: parent 9 of 'oak', which is not there; lines go from 0 to 3",
        "t.tree:4: id 'dog' stands on line 2 already; ids stand once",
        "t.tree:4: 'dog' stands apart from its siblings under parent 0; put it below line 2",
        "t.names:3: an empty line; a line is the name of a node",
        "t.names:4: 3 names for the 4 nodes of t.tree; give one line a node",
        "t.tree: 5 faults",
    ]
    assert process("t.names", cwd=tmp_path).stdout.splitlines()[-1] == "t.names: 2 faults"


def test_names_beside_a_tree_that_is_no_text_are_told_of_it(tmp_path: Path) -> None:
    (tmp_path / "t.names").write_text("animal\ndog\n")
    (tmp_path / "t.tree").write_text("animal -1\ndog 0\n", encoding="utf-16")
    run = process("t.names", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (1, "")
    assert run.stdout.splitlines() == ["t.tree:1: UTF-16 text; save it as UTF-8", "t.names: 1 fault"]


def test_a_sound_file_is_told_in_short_with_exit_code_zero(tmp_path: Path) -> None:
    tree = build_tree("coco")
    for name in ("t.tree", "t.json", "t.csv", "t.tsv"):
        run = process(tree.save(tmp_path / name))
        assert (run.returncode, run.stderr) == (0, "")
        assert run.stdout.startswith(f"{tmp_path / name}: a tree of {len(tree)} nodes, ")
    (tmp_path / "t.tree").write_bytes((tmp_path / "t.tree").read_bytes().replace(b"\n", b"\r\n"))
    assert process(tmp_path / "t.tree").returncode == 0
    (tmp_path / "t.yaml").write_text("animal: [dog]\npet: [dog]\n")
    run = process(tmp_path / "t.yaml")
    assert run.returncode == 0
    assert "a taxonomy of 3 nodes, 1 with several parents; build_tree(labels, taxonomy='t.yaml')" in run.stdout
    (tmp_path / "m.yaml").write_text("dog: n02084071\n")
    assert "a label map of 1 labels" in process(tmp_path / "m.yaml").stdout
    (tmp_path / "m.map").write_text("1\n2\n")
    assert "a map of 2 classes" in process(tmp_path / "m.map").stdout


def test_what_cannot_be_checked_is_exit_code_two(tmp_path: Path) -> None:
    for name, text in (("gone.tree", "no file 'gone.tree'"), ("t.xml", "no check for '.xml'; known: .tree, .csv")):
        run = process(name, cwd=tmp_path)
        assert (run.returncode, run.stdout) == (2, "")
        assert text in run.stderr


def test_a_terminal_without_the_letters_gets_them_escaped(tmp_path: Path) -> None:
    (tmp_path / "t.tree").write_text("été -1\nété -1\n", encoding="utf-8")
    run = process(tmp_path / "t.tree", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert run.returncode == 1
    assert r"id '\xe9t\xe9' stands on line 1 already" in run.stdout


def test_build_takes_a_taxonomy_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "zoo.yaml").write_text("thing:\n  animal:\n    dog: [poodle, beagle]\n    cat:\n  plant: [oak]\n")
    program = Path(sys.executable).with_name("wordtree")
    words = [program, "build", "poodle", "beagle", "oak", "--taxonomy", "zoo.yaml", "-o", "t.csv"]
    run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    rows = ["id,parent,name", "dog,,dog", "oak,,oak", "beagle,dog,beagle", "poodle,dog,poodle"]
    assert (tmp_path / "t.csv").read_text().splitlines() == rows
    words[2] = "poodel"
    run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 2
    assert "no node 'poodel'; did you mean 'poodle'" in run.stderr
    (tmp_path / "zoo.yaml").write_text("thing: [animal]\nanimal: [thing]\n")
    run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 2
    assert "zoo.yaml, line 1: a circle" in run.stderr


# ---------------------------------------------------------------------- what passes is read, what is read passes


@needs_oracle
@pytest.mark.parametrize("name", ["9k.tree", "9k.names", "coco9k.map", "inet9k.map"])
def test_darknets_own_files_are_sound(name: str) -> None:
    assert check(ORACLE / "data" / name)[0] == []


@settings(deadline=None)
@given(trees(), st.data())
def test_a_tree_that_is_broken_somewhere_is_refused_by_both_or_by_none(tree: WordTree, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = tree.save(Path(folder) / data.draw(st.sampled_from(["t.tree", "t.json", "t.csv", "t.tsv"])))
        assert check(path)[0] == []
        text = path.read_text(encoding="utf-8")
        at = data.draw(st.integers(0, len(text)))
        new = data.draw(st.sampled_from(["", "0", "1", "-", "n", "\n", " ", ",", '"', "\t", "[", "\0"]))
        path.write_text(text[:at] + new + text[at + 1 :], encoding="utf-8", newline="")
        faults = [fault for fault in check(path)[0] if not fault.mild]
        try:
            WordTree.load(path)
            refused = False
        except WordTreeError as error:
            refused = "parents" not in str(error) or "a tree gives one" not in str(error)
        assert refused == bool(faults), [*map(str, faults)]


@settings(deadline=None)
@given(st.binary(max_size=60), st.sampled_from([".tree", ".csv", ".tsv", ".json", ".yaml", ".map", ".names"]))
def test_any_bytes_are_told_by_lines_and_never_a_traceback(content: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t{suffix}"
        path.write_bytes(content)
        faults, told = check(path)
        assert faults or told
        if not faults and suffix not in (".map", ".names"):
            assert len(LabelMap.read(path) if "label map" in told[0] else read_taxonomy(path))
        lines = content.count(b"\n") + content.count(b"\r") + 2
        assert all(1 <= fault.line <= lines for fault in faults)
