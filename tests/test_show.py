"""A tree, a node, a word: as text, as SVG, as a page."""

import xml.etree.ElementTree as xml
from html.parser import HTMLParser

import pytest
from hypothesis import given
from random_trees import trees

from wordtree import LabelMap, WordTree, WordTreeError, build_tree, label_maps, wordnet
from wordtree.show import Picture, picture_of_node, picture_of_tree, picture_of_word, svg, text
from wordtree.web import page

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


class Folds(HTMLParser):
    """Reads a page: each row's text with how deep it is folded, and whether every tag is closed."""

    VOID = ("meta", "input", "!doctype")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[tuple[int, str]] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "span":
            self.rows.append((self.open.count("li") - 1, data))


@given(trees())
def test_the_page_folds_as_the_tree_does_and_fetches_nothing(tree: WordTree) -> None:
    reader = Folds()
    made = page(picture_of_tree(tree))
    reader.feed(made)
    assert reader.open == []
    depth = dict(zip(tree.ids, tree.depths.tolist(), strict=True))
    rows = picture_of_tree(tree).rows
    assert reader.rows == [(depth[row.id] + 1 if row.id else 0, row.name) for row in rows]
    assert reader.loads == []
    assert "http" not in made


def test_text_from_outside_is_escaped() -> None:
    tree = WordTree(["a<b"], [-1], ['<script>alert("&")</script>'])
    assert "<script>alert" not in page(picture_of_tree(tree))
    xml.fromstring(svg(picture_of_tree(tree)))
    xml.fromstring(svg(Picture("<&>", picture_of_tree(tree).rows, ("<&>",))))


def test_the_way_to_the_one_marked_node_is_open() -> None:
    tree = build_tree("coco")
    made = page(picture_of_tree(tree, node=tree.find("zebra")))
    assert made.count("<details open>") > page(picture_of_tree(tree, label_maps()["coco"])).count("<details open>")
