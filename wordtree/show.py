"""A tree, a node or a word as text and as SVG.

What is shown is first laid out as `Row`s in preorder, a row a node; text, SVG and the page of `web.py` are three ways
to draw the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from . import wordnet
from .errors import WordTreeError
from .labels import LabelMap
from .tree import ROOT, WordTree

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One node as it is drawn: the row it hangs from (-1 for the first), what is written, and whether it stands out.

    `labels` are the labels that stand on the node, each with the number of its map among the picture's `maps`.
    """

    parent: int
    name: str
    id: str = ""
    note: str = ""
    marked: bool = False
    labels: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Picture:
    """What is drawn: a title, the rows in preorder, lines below them, and the names of the label maps in it."""

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()


# ---------------------------------------------------------------------- what to draw


def picture_of_word(text: str, whole: bool = False) -> Picture:
    """A noun of WordNet: the path above its first sense, the kinds below, its other senses.

    Args:
        text: a word, a synset name or an id.
        whole: all kinds below, at any depth, not only the next.

    Raises:
        WordTreeError: no such noun.

    Example:
        >>> picture_of_word("penguin").rows[-1].name
        'rock hopper'
    """
    senses = wordnet.candidates(text) or [wordnet.id_of(text)]  # id_of knows what to say where there is none
    here = senses[0]
    path = [here]
    while above := _above(path[-1]):
        path.append(above[0])
    path.reverse()
    rows = [Row(at - 1, wordnet.name_of(id_), id_, marked=id_ == here) for at, id_ in enumerate(path)]
    if whole:
        _hang(rows, here, wordnet.hyponyms, lambda id_, parent: Row(parent, wordnet.name_of(id_), id_))
    else:
        for id_ in wordnet.hyponyms(here):
            rows.append(Row(len(path) - 1, wordnet.name_of(id_), id_, _below(wordnet.count_below(id_))))
    notes = []
    if len(words := wordnet.lemmas(here)) > 1:
        notes.append(f"also called {', '.join(words[1:])}")
    if others := _above(here)[1:]:
        notes.append(f"also under {', '.join(f'{wordnet.name_of(id_)} ({id_})' for id_ in others)}")
    if instances := wordnet.hyponyms(here, instances=True):
        some = ", ".join(wordnet.name_of(id_) for id_ in instances[:3])
        notes.append(f"instances: {len(instances)}, such as {some}" if len(instances) > 3 else f"instances: {some}")
    if len(senses) > 1:
        notes.append(f"{text!r} has {len(senses)} senses; this is the first. The others:")
        notes += [f"  {wordnet.synset_name(id_)}  {id_}  {', '.join(wordnet.lemmas(id_))}" for id_ in senses[1:]]
    return Picture(f"{wordnet.synset_name(here)}  {here}", tuple(rows), tuple(notes))


def picture_of_node(tree: WordTree, node: int) -> Picture:
    """A node of a tree: the path above and the children below, each with how many nodes it has below.

    Raises:
        WordTreeError: no such node.
    """
    if not ROOT <= node < len(tree):
        raise WordTreeError(f"no node {node}; this tree has nodes 0 to {len(tree) - 1}, and -1 for the root")
    below = _count_below(tree)
    rows = [Row(-1, tree.root_name, marked=node == ROOT)]
    for above in tree.path(node):
        rows.append(Row(len(rows) - 1, tree.names[above], tree.ids[above], marked=above == node))
    here = len(rows) - 1
    for child in tree.children(node):
        rows.append(Row(here, tree.names[child], tree.ids[child], _below(int(below[child]))))
    return Picture(_title(tree, node), tuple(rows), (summary(tree),))


def picture_of_tree(tree: WordTree, *maps: LabelMap, node: int | None = None) -> Picture:
    """A whole tree, or, with label maps, what they know of it: their labels, marked, and all above them.

    Args:
        tree: the tree.
        maps: the label maps; each node says which of them have a label there, and how it reads.
        node: a node to mark; -1 for the root.

    Raises:
        WordTreeError: labels that are not on the tree.

    Example:
        >>> from wordtree import build_tree, label_maps
        >>> coco, voc = label_maps()["coco"], label_maps()["voc"]
        >>> picture = picture_of_tree(build_tree(coco, voc), coco, voc)
        >>> [(row.name, row.labels) for row in picture.rows if row.name == "airplane"]
        [('airplane', ((0, 'airplane'), (1, 'aeroplane')))]
    """
    labels_of: dict[int, list[tuple[int, str]]] = {}
    known = np.full(len(tree), not maps)
    for number, labels in enumerate(maps):
        for label, at in zip(labels.labels, labels.nodes_on(tree).tolist(), strict=True):
            labels_of.setdefault(at, []).append((number, label))
        known |= labels.known(tree)

    def row(at: int, parent: int) -> Row:
        own = tuple(labels_of.get(at, ()))
        return Row(parent, tree.names[at], tree.ids[at], marked=bool(own) or at == node, labels=own)

    rows = [Row(-1, tree.root_name, marked=node == ROOT)]
    _hang(rows, ROOT, lambda at: [child for child in tree.children(at) if known[child]], row)
    notes = [summary(tree)]
    if len(maps) > 1:
        meet = sum(len({number for number, _ in own}) > 1 for own in labels_of.values())
        notes.append(f"nodes with labels of more than one map: {meet}")
    title = ", ".join(f"{labels.name}: {len(labels)} labels" for labels in maps) or _title(tree, node)
    return Picture(title, tuple(rows), tuple(notes), tuple(labels.name for labels in maps))


def picture_of_labels(labels: LabelMap) -> Picture:
    """A label map by itself: the tree of its labels where WordNet has them, a list where its ids are its own.

    Example:
        >>> [row.name for row in picture_of_labels(LabelMap("parts", ("nut", "bolt"), ("p1", "p2"))).rows]
        ['parts', 'nut', 'bolt']
    """
    from .build import build_tree

    try:
        return picture_of_tree(build_tree(labels), labels)
    except WordTreeError:
        rows = [Row(0, label, id_) for label, id_ in zip(labels.labels, labels.ids, strict=True)]
        return Picture(f"{labels.name}: {len(labels)} labels", (Row(-1, labels.name), *rows))


def some(picture: Picture, most: int = 200) -> Picture:
    """The picture cut to about `most` rows: from the top, whole families of siblings for as long as they fit.

    A row whose children are left out says how many rows stand below it; a first family that is too large is cut.

    Example:
        >>> picture = picture_of_node(WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0]), -1)
        >>> [row.name for row in some(picture, most=2).rows]
        ['root', 'animal']
    """
    if len(picture.rows) <= most:
        return picture
    children: list[list[int]] = [[] for _ in picture.rows]
    below = [0] * len(picture.rows)
    for at, row in enumerate(picture.rows[1:], 1):
        children[row.parent].append(at)
    for at in range(len(picture.rows) - 1, 0, -1):  # a row stands before all that hangs from it
        below[picture.rows[at].parent] += below[at] + 1
    kept, families = [0], [0]
    for family in families:
        room = most - len(kept)
        taken = children[family] if family or len(children[0]) <= room else children[0][:room]
        if len(taken) <= room:
            kept += taken
            families += [at for at in taken if children[at]]
    new = {at: place for place, at in enumerate(sorted(kept))}
    rows = []
    for at in new:
        row = picture.rows[at]
        note = _below(below[at]) if children[at] and children[at][0] not in new else row.note
        rows.append(replace(row, parent=new.get(row.parent, -1), note=note))
    return replace(
        picture, rows=tuple(rows), notes=(f"the first {len(rows)} of {len(picture.rows)} rows", *picture.notes)
    )


def _title(tree: WordTree, node: int | None) -> str:
    return tree.root_name if node in (None, ROOT) else f"{tree.names[node]}  {tree.ids[node]}  node {node}"


def _above(id_: str) -> list[str]:
    return wordnet.hypernyms(id_) + wordnet.instance_hypernyms(id_)


def _hang(rows: list[Row], start: T, children: Callable[[T], Sequence[T]], row: Callable[[T, int], Row]) -> None:
    """Append all that stands below `start`, which is the last row, in preorder; no recursion, a tree may be deep."""
    todo = [(child, len(rows) - 1) for child in reversed(children(start))]
    while todo:
        at, parent = todo.pop()
        rows.append(row(at, parent))
        todo += [(child, len(rows) - 1) for child in reversed(children(at))]


def _count_below(tree: WordTree) -> NDArray[np.int64]:
    """int64 [nodes]: how many nodes stand below each, counted level by level."""
    counts = np.zeros(len(tree), dtype=np.int64)
    above = tree.parents
    while (inside := above >= 0).any():
        np.add.at(counts, above[inside], 1)
        above = np.where(inside, tree.parents[above], ROOT)
    return counts


def _below(count: int) -> str:
    return f"{count} below" if count else ""


def summary(tree: WordTree) -> str:
    """A tree's size in one line."""
    return f"{len(tree)} nodes, {len(tree.group_start)} groups, {len(tree.leaves)} leaves, {tree.depths.max() + 1} deep"


# ---------------------------------------------------------------------- how to draw it


def text(picture: Picture, ascii_only: bool = False) -> str:
    """The picture as plain text, a line a row.

    Example:
        >>> print(text(picture_of_node(WordTree(["animal", "dog", "cat"], [-1, 0, 0]), 0)))
        animal  animal  node 0
        <BLANKLINE>
        root
        └─ animal  animal
           ├─ dog  dog
           └─ cat  cat
        <BLANKLINE>
        3 nodes, 2 groups, 2 leaves, 2 deep
    """
    lines = [
        f"{branch}{'  '.join((row.name, *beside(row, picture.maps)))}"
        for branch, row in zip(_branches(picture.rows, ascii_only), picture.rows, strict=True)
    ]
    return "\n".join([picture.title, "", *lines, *(["", *picture.notes] if picture.notes else [])])


def beside(row: Row, maps: Sequence[str]) -> list[str]:
    """What is written beside a row's name: its id, its note, its labels.

    Of one map, only a label that reads otherwise than its node is written; of several, which of them meet here.
    """
    labels_of: dict[int, list[str]] = {}
    for number, label in row.labels:
        labels_of.setdefault(number, []).extend([label] if label != row.name else [])
    said = []
    for number, own in labels_of.items():
        words = [*([maps[number]] if len(maps) > 1 else []), *([f"= {', '.join(own)}"] if own else [])]
        said.append(" ".join(words))
    return [part for part in (row.id, row.note, *said) if part]


def print_rich(picture: Picture) -> None:
    """The picture on a terminal, in colours.

    Only a terminal gets this: importing rich adds about a tenth of a second to `wordtree show dog` (0.28 s to 0.41 s on
    a quiet core), which a person does not notice and a script need not pay. In return NO_COLOR, dumb terminals and old
    consoles are rich's business.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(picture.title, style="bold"), "", sep="\n")
    for branch, row in zip(_branches(picture.rows), picture.rows, strict=True):
        line = Text(branch, style="dim")
        line.append(row.name, style="bold green" if row.marked else "default")
        for part in beside(row, picture.maps):
            line.append(f"  {part}", style="dim" if part == row.id else "cyan")
        console.print(line, soft_wrap=True)
    if picture.notes:
        console.print("", *(Text(note) for note in picture.notes), sep="\n", soft_wrap=True)


def _branches(rows: Sequence[Row], ascii_only: bool = False) -> list[str]:
    """What stands before each row: the lines that tie it to the row it hangs from."""
    last = {row.parent: at for at, row in enumerate(rows)}  # the last child of each row
    tee, corner, bar = ("|- ", "`- ", "|  ") if ascii_only else ("├─ ", "└─ ", "│  ")
    below: list[str] = []  # what the children of each row stand behind
    branches = []
    for at, row in enumerate(rows):
        if row.parent < 0:
            branches.append("")
            below.append("")
            continue
        final = last[row.parent] == at
        branches.append(below[row.parent] + (corner if final else tee))
        below.append(below[row.parent] + ("   " if final else bar))
    return branches


def svg(picture: Picture) -> str:
    """The picture as one SVG: a row a node, indented, an elbow from each to the row it hangs from."""
    line, step, margin = 22, 24, 16
    depth: list[int] = []
    for row in picture.rows:
        depth.append(0 if row.parent < 0 else depth[row.parent] + 1)
    parts: list[str] = []
    right = 8.5 * len(picture.title)
    for at, row in enumerate(picture.rows):
        x = margin + step * depth[at]
        y = margin + line * (at + 2.0)
        if row.parent >= 0:
            up = margin + line * (row.parent + 2.0) + 6
            parts.append(f'<path d="M{x - step + 6} {up}V{y - 4}H{x - 4}" fill="none" stroke="#c3c9d1"/>')
        words = "\u2002".join(beside(row, picture.maps))  # SVG would draw two spaces as one
        weight = ' font-weight="600" fill="#0b6e4f"' if row.marked else ""
        parts.append(
            f'<text x="{x}" y="{y}"><tspan{weight}>{escape(row.name)}</tspan>'
            f'<tspan dx="8" fill="#656d76" font-size="11">{escape(words)}</tspan></text>'
        )
        right = max(right, x + 8.5 * len(row.name) + 6.5 * len(words) + 8)
    for at, note in enumerate(picture.notes):
        y = margin + line * (len(picture.rows) + 2.5 + at)
        parts.append(f'<text x="{margin}" y="{y}" fill="#4b535d" font-size="12">{escape(note)}</text>')
        right = max(right, 7 * len(note))
    width, height = int(right) + 2 * margin, int(line * (len(picture.rows) + len(picture.notes) + 3)) + margin
    head = f'<text x="{margin}" y="{margin + 8}" font-weight="600" font-size="15">{escape(picture.title)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="Helvetica, Arial, DejaVu Sans, sans-serif" font-size="13" fill="#1c2128" '
        'role="img" shape-rendering="crispEdges">\n'
        f'<title>{escape(picture.title)}</title>\n<rect width="100%" height="100%" fill="#ffffff"/>\n{head}\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
