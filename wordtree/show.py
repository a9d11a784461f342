"""A tree, a node or a word as text and as SVG.

What is shown is first laid out as `Row`s in preorder, a row a node; text, SVG and the page of `web.py` are three ways
to draw the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """One node as it is drawn: the row it hangs from (-1 for the first), what is written, and whether it stands out."""

    parent: int
    name: str
    id: str = ""
    note: str = ""
    marked: bool = False


@dataclass(frozen=True)
class Picture:
    """What is drawn: a title, the rows in preorder, and lines below them."""

    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


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
    title = f"{tree.names[node]}  {tree.ids[node]}  node {node}" if node >= 0 else tree.root_name
    return Picture(title, tuple(rows), (summary(tree),))


def picture_of_tree(tree: WordTree, labels: LabelMap | None = None, node: int = ROOT) -> Picture:
    """A whole tree, or, with a label map, what the map knows of it: its labels, marked, and all above them.

    Args:
        tree: the tree.
        labels: the map; a label that reads otherwise than its node is written beside it.
        node: a node to mark.

    Raises:
        WordTreeError: labels that are not on the tree.
    """
    labels_of: dict[int, list[str]] = {}
    known = np.ones(len(tree), dtype=bool)
    title = tree.root_name
    if labels is not None:
        for label, at in zip(labels.labels, labels.nodes_on(tree).tolist(), strict=True):
            labels_of.setdefault(at, []).append(label)
        known = labels.known(tree)
        title = f"{labels.name}: {len(labels)} labels"

    def row(at: int, parent: int) -> Row:
        own = [label for label in labels_of.get(at, ()) if label != tree.names[at]]
        note = f"= {', '.join(own)}" if own else ""
        return Row(parent, tree.names[at], tree.ids[at], note, marked=at in labels_of or at == node)

    rows = [Row(-1, tree.root_name)]
    _hang(rows, ROOT, lambda at: [child for child in tree.children(at) if known[child]], row)
    return Picture(title, tuple(rows), (summary(tree),))


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
        f"{branch}{'  '.join(part for part in (row.name, row.id, row.note) if part)}"
        for branch, row in zip(_branches(picture.rows, ascii_only), picture.rows, strict=True)
    ]
    return "\n".join([picture.title, "", *lines, *(["", *picture.notes] if picture.notes else [])])


def print_rich(picture: Picture) -> None:
    """The picture on a terminal, in colours."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(picture.title, style="bold"), "", sep="\n")
    for branch, row in zip(_branches(picture.rows), picture.rows, strict=True):
        line = Text(branch, style="dim")
        line.append(row.name, style="bold green" if row.marked else "default")
        line.append(f"  {row.id}" if row.id else "", style="dim")
        line.append(f"  {row.note}" if row.note else "", style="cyan")
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
            parts.append(f'<path d="M{x - step + 6} {up}V{y - 4}H{x - 4}" fill="none" stroke="#b8bec7"/>')
        beside = "  ".join(part for part in (row.id, row.note) if part)
        weight = ' font-weight="600" fill="#0b6e4f"' if row.marked else ""
        parts.append(
            f'<text x="{x}" y="{y}"><tspan{weight}>{escape(row.name)}</tspan>'
            f'<tspan dx="8" fill="#7a828c" font-size="11">{escape(beside)}</tspan></text>'
        )
        right = max(right, x + 8.5 * len(row.name) + 6.5 * len(beside) + 8)
    for at, note in enumerate(picture.notes):
        y = margin + line * (len(picture.rows) + 2.5 + at)
        parts.append(f'<text x="{margin}" y="{y}" fill="#4b535d" font-size="12">{escape(note)}</text>')
        right = max(right, 7 * len(note))
    width, height = int(right) + 2 * margin, int(line * (len(picture.rows) + len(picture.notes) + 3)) + margin
    head = f'<text x="{margin}" y="{margin + 8}" font-weight="600" font-size="15">{escape(picture.title)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="Helvetica, Arial, DejaVu Sans, sans-serif" font-size="13" fill="#1c2128">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{head}\n' + "\n".join(parts) + "\n</svg>\n"
    )
