"""A tree, a node, a word: as text, as SVG, as a page."""

import base64
import hashlib
import json
import re
import xml.etree.ElementTree as xml
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import trees

from wordtree import LabelMap, WordTree, WordTreeError, build_tree, label_maps, wordnet
from wordtree.cli import main
from wordtree.show import Picture, _count_below, picture_of_node, picture_of_tree, picture_of_word, some, svg, text
from wordtree.web import folds, page

SVG = "{http://www.w3.org/2000/svg}"
PETS = WordTree(["a", "p", "d", "c", "h"], [-1, -1, 0, 0, 2], ["animal", "plant", "dog", "cat", "hound"])


def test_a_word_shows_its_path_its_kinds_and_its_other_senses() -> None:
    shown = text(picture_of_word("dog"))
    assert shown.startswith("dog.n.01  n02084071\n\nentity  n00001740\n└─ physical entity  n00001930\n")
    assert "└─ canine  n02083346\n" in shown
    assert "├─ hunting dog  n02087122  101 below\n" in shown
    assert "also called domestic dog, Canis familiaris" in shown
    assert "also under domestic animal (n01317541)" in shown
    assert "'dog' has 7 senses; this is the first. The others:\n  frump.n.01  n10114209  frump, dog\n" in shown
    assert "senses" not in text(picture_of_word("zebra"))
    with pytest.raises(WordTreeError, match="no noun 'dgo'"):
        picture_of_word("dgo")


def test_a_whole_word_shows_every_kind_below() -> None:
    rows = picture_of_word("dog", whole=True).rows
    below = {row.id for row in rows[14:]}
    assert len(below) == wordnet.count_below("n02084071") == 189
    assert "n02085620" in below  # Chihuahua, two levels down


def test_instances_are_told_and_have_a_path() -> None:
    assert "instances: " in text(picture_of_word("star.n.01"))
    assert [row.name for row in picture_of_word("sun.n.01").rows][-2:] == ["star", "sun"]


def test_a_node_shows_its_path_and_children_with_counts() -> None:
    assert text(picture_of_node(PETS, 0)).splitlines() == [
        "animal  a  node 0",
        "",
        "root",
        "└─ animal  a",
        "   ├─ dog  d  1 below",
        "   └─ cat  c",
        "",
        "5 nodes, 3 groups, 3 leaves, 3 deep",
    ]
    assert [row.note for row in picture_of_node(PETS, -1).rows] == ["", "3 below", ""]
    with pytest.raises(WordTreeError, match="no node 5; this tree has nodes 0 to 4"):
        picture_of_node(PETS, 5)


def test_a_map_shows_what_it_knows_of_a_tree() -> None:
    labels = LabelMap("mine", ("pup", "plant"), ("h", "p"))
    assert text(picture_of_tree(PETS, labels), ascii_only=True).splitlines()[2:-2] == [
        "root",
        "|- animal  a",
        "|  `- dog  d",
        "|     `- hound  h  = pup",
        "`- plant  p",
    ]
    marked = [row.name for row in picture_of_tree(PETS, labels).rows if row.marked]
    assert marked == ["hound", "plant"]


@given(trees())
def test_every_node_is_drawn_once_under_its_parent(tree: WordTree) -> None:
    picture = picture_of_tree(tree)
    rows = picture.rows
    assert sorted(row.id for row in rows[1:]) == sorted(tree.ids)
    for row in rows[1:]:
        parent = tree.parents[tree.ids.index(row.id)]
        assert rows[row.parent].id == ("" if parent < 0 else tree.ids[parent])
    shown = text(picture, ascii_only=True).splitlines()[2 : 2 + len(rows)]
    for line, row in zip(shown[1:], rows[1:], strict=True):
        depth = int(tree.depths[tree.ids.index(row.id)])
        assert line.index(row.name) == 3 * (depth + 1)
    drawn = xml.fromstring(svg(picture))
    names = [part.text or "" for label in drawn.iter(f"{SVG}text") for part in list(label)[:1]]
    assert names == [row.name for row in rows]
    assert len(list(drawn.iter(f"{SVG}path"))) == len(tree)


def test_several_maps_say_where_their_labels_meet() -> None:
    one, two = LabelMap("one", ("pup", "plant"), ("h", "p")), LabelMap("two", ("hound", "cat"), ("h", "c"))
    picture = picture_of_tree(PETS, one, two)
    assert text(picture).splitlines() == [
        "one: 2 labels, two: 2 labels",
        "",
        "root",
        "├─ animal  a",
        "│  ├─ dog  d",
        "│  │  └─ hound  h  one = pup  two",
        "│  └─ cat  c  two",
        "└─ plant  p  one",
        "",
        "5 nodes, 3 groups, 3 leaves, 3 deep",
        "nodes with labels of more than one map: 1",
    ]
    assert "two" in svg(picture)
    assert [row.name for row in picture_of_tree(PETS, two).rows] == ["root", "animal", "dog", "hound", "cat"]


def test_the_command_shows_several_maps_and_a_whole_tree(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["show", "coco", "voc"])
    assert "airplane  n02691156  coco  voc = aeroplane\n" in capsys.readouterr().out
    PETS.save(tmp_path / "pets.json")
    main(["show", "--tree", str(tmp_path / "pets.json")])
    assert capsys.readouterr().out.startswith("pets.json\n\nroot\n├─ animal  a\n")
    main(["show", "dog", "--tree", str(tmp_path / "pets.json"), "--format", "html"])
    asked = content(capsys.readouterr().out)
    assert asked["names"][asked["start"]] == "dog"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show"], "nothing to show; give a word, label maps, or a tree: --tree FILE"),
        (["show", "coco", "dog"], "no label map 'dog'; known: coco"),
        (["show", "coco", "voc", "--tree", "pets.json"], "of the 80 labels of 'coco' are not on this tree of 5 nodes"),
    ],
)
def test_what_cannot_be_shown_is_told_in_one_line(
    words: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    PETS.save("pets.json")
    with pytest.raises(SystemExit):
        main(words)
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert told in error


def content(made: str) -> dict[str, Any]:
    """What a page's script is given."""
    (inside,) = re.findall(r'<script type="application/json" id="rows">(.*?)</script>', made, re.DOTALL)
    found: dict[str, Any] = json.loads(inside)
    return found


@given(trees())
def test_the_page_holds_every_row_and_fetches_nothing(tree: WordTree) -> None:
    picture = picture_of_tree(tree)
    made = page(picture)
    given = content(made)
    assert given["names"] == [row.name for row in picture.rows]
    assert given["ids"] == [row.id for row in picture.rows]
    assert given["parents"] == [row.parent for row in picture.rows]
    assert not re.search(
        r"http|//[a-z]|\b(src|href)=|@import|url\(", made.replace("http-equiv", "").replace(" // ", "")
    )


def test_the_page_allows_its_own_script_and_style_and_nothing_else() -> None:
    made = page(picture_of_tree(PETS))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', made)
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed.pop("default-src") == allowed.pop("base-uri") == allowed.pop("form-action") == "'none'"
    for kind in ("style", "script"):
        (inside,) = re.findall(rf"<{kind}>(.*?)</{kind}>", made, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert allowed.pop(f"{kind}-src") == f"'sha256-{digest}'"
    assert allowed == {}


def test_the_page_knows_the_labels_of_every_node_and_the_one_asked_for() -> None:
    coco, voc = label_maps()["coco"], label_maps()["voc"]
    tree = build_tree(coco, voc)
    given = content(page(picture_of_tree(tree, coco, voc)))
    assert (given["maps"], given["start"]) == (["coco", "voc"], -1)
    at = given["ids"].index(tree.ids[tree.find("airplane")])
    assert given["labels"][str(at)] == [[0, "airplane"], [1, "aeroplane"]]
    assert sum(len(labels) for labels in given["labels"].values()) == len(coco) + len(voc)
    asked = content(page(picture_of_tree(tree, node=tree.find("zebra"))))
    assert asked["names"][asked["start"]] == "zebra"
    assert asked["labels"] == {}


def test_text_from_outside_is_escaped() -> None:
    hostile = '</script><script>alert("&")</script>{{rows}}'
    tree = WordTree(["a<b"], [-1], [hostile])
    picture = Picture("<&>", picture_of_tree(tree).rows, ("<&>",))
    made = page(picture)
    assert "<script>alert" not in made
    assert content(made)["names"][1] == hostile
    assert "<script>" not in folds(picture)
    for shown in (picture, picture_of_tree(tree)):
        xml.fromstring(svg(shown))


# ---------------------------------------------------------------------- notebooks


class Folds(HTMLParser):
    """Reads nested folds: each row's text with how deep it is folded, and whether every tag is closed."""

    def __init__(self, made: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[tuple[int, str]] = []
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.feed(made)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}
        row = self.open[-2:] == ["details", "summary"] or (tag == "div" and ("style", "padding-left:1em") in attrs)
        if row:
            self.rows.append((self.open[:-1].count("details") - (tag == "summary"), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.rows and "small" not in self.open:
            depth, before = self.rows[-1]
            self.rows[-1] = (depth, before + data.strip("\u2002"))


@given(trees())
def test_a_notebook_folds_as_the_tree_does_without_script_ids_or_classes(tree: WordTree) -> None:
    shown = Folds(tree._repr_html_())
    depth = dict(zip(tree.ids, tree.depths.tolist(), strict=True))
    rows = picture_of_tree(tree).rows
    assert shown.rows == [(depth[row.id] + 1 if row.id else 0, row.name) for row in rows]
    assert shown.tags <= {"div", "details", "summary", "small", "b"}
    assert shown.names <= {"style", "open"}  # so two trees on one page cannot meet


@given(trees(), st.integers(1, 30))
def test_a_cut_picture_keeps_whole_families_from_the_top(tree: WordTree, most: int) -> None:
    picture = picture_of_tree(tree)
    cut = some(picture, most)
    assert len(cut.rows) <= max(most, 1)
    ids = [row.id for row in cut.rows]
    assert ids == [row.id for row in picture.rows if row.id in ids]  # in the same order
    below = _count_below(tree)
    for at, row in enumerate(cut.rows[1:], 1):
        node = tree.ids.index(row.id)
        parent = int(tree.parents[node])
        assert cut.rows[row.parent].id == ("" if parent < 0 else tree.ids[parent])
        family = [one.id for one in cut.rows if one.parent == at]
        assert family in ([], [tree.ids[child] for child in tree.children(node)])
        assert row.note == (f"{below[node]} below" if tree.children(node) and not family else "")
    assert (cut == picture) == (len(picture.rows) <= most)


def test_a_large_tree_is_cut_in_a_notebook_and_says_so() -> None:
    tree = build_tree("imagenet1k")
    shown = tree._repr_html_()
    assert len(Folds(shown).rows) <= 200
    assert re.search(r"the first \d+ of 1370 rows", shown)
    flat = WordTree([f"c{node}" for node in range(500)], [-1] * 500)
    assert len(Folds(flat._repr_html_()).rows) == 200


def test_a_label_map_shows_itself_as_the_tree_of_its_labels() -> None:
    coco = label_maps()["coco"]
    shown = coco._repr_html_()
    assert [name for _, name in Folds(shown).rows if name == "zebra"] == ["zebra"]
    assert shown.startswith('<div style="line-height:1.5"><div><b>coco: 80 labels</b></div>')
    assert "= cow" in shown
    own = LabelMap("parts", ("nut", "bolt"), ("p1", "p2"))
    assert Folds(own._repr_html_()).rows == [(0, "parts"), (1, "nut"), (1, "bolt")]


def test_a_label_map_is_one_line_where_a_notebook_prints_text() -> None:
    printed: list[str] = []

    class Printer:
        def text(self, words: str) -> None:
            printed.append(words)

    label_maps()["imagenet1k"]._repr_pretty_(Printer(), False)
    assert printed == ["LabelMap('imagenet1k', 1000 labels)"]
