"""Trees and taxonomies in files: what stands above what, read from lines, tables, JSON and YAML.

    .tree                        Darknet's, a node a line
    .csv .tsv                    columns parent and child; or id, parent and, if you like, name
                                 columns of ranks, kingdom to species: a Linnaean list
    .json                        our own, as `WordTree.save` writes it
    .json .yaml .yml             {animal: {dog: [poodle, beagle], cat: }}
                                 [{name, parent}], with an id of its own where names are not unique
                                 [{name, supercategory}], also under `categories`, as COCO writes it
                                 [{name, kingdom, phylum, ... genus}], likewise, as iNaturalist does
                                 {LabelName, Subcategory, Part}, Open Images' hierarchy
                                 {name, children}, as drawing programs take it
                                 a data set's YAML: `names:`, and `tree:` beside it

An id is one node wherever it stands, so that a file may give a node several parents. All of a file's faults are found
here; docs/file-formats.md shows each format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import linnaean
from .errors import WordTreeError
from .scan import DELIMITERS, Item, Source, Stopped, Table, document_of, lines_of, table_of
from .tree import ROOT, WordTree

if TYPE_CHECKING:
    import networkx

SUFFIXES = (".tree", *DELIMITERS, ".json", ".yaml", ".yml")
FORMAT, VERSION = "wordtree", 1
_INTEGER = re.compile(r"-?[0-9]{1,18}")


@dataclass
class Graph:
    """What a file says, a row a node, in the order of the file.

    Attributes:
        ids, lines: each node's id, and the line it first stands on.
        names: each node's name; None where the file gives none.
        parents: each node's parents, as rows, each with the line that says so; empty at the top.
        ordered: rows are nodes by number, as in a .tree; parents must stand before their children, siblings together.
        root: how the implicit root is shown.
        sha256: of our own .json, what the tree's hash was when it was written.
    """

    ids: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    parents: list[dict[int, int]] = field(default_factory=list)
    ordered: bool = False
    root: str = "root"
    sha256: tuple[str, int] | None = None
    row_of: dict[str, int] = field(default_factory=dict)

    def add(self, id_: str, line: int, name: str | None = None, parents: Iterable[int] = ()) -> int:
        """A new row."""
        self.row_of.setdefault(id_, len(self.ids))
        self.ids.append(id_)
        self.lines.append(line)
        self.names.append(name)
        self.parents.append(dict.fromkeys(parents, line))
        return len(self.ids) - 1

    def row(self, id_: str, line: int) -> int:
        """The row of an id, a new one where it has none."""
        return self.row_of[id_] if id_ in self.row_of else self.add(id_, line)


def read_taxonomy(path: str | Path) -> networkx.DiGraph[str]:
    """A taxonomy from a file: ids, edges parent -> child, each node with its `name`; for `build_tree(taxonomy=...)`.

    Args:
        path: .csv, .tsv, .json, .yaml, .yml or .tree; docs/file-formats.md shows what may stand in each.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: another suffix, or the first fault, with file and line; `wordtree check` tells them all.

    Example:
        >>> import pathlib, tempfile
        >>> from wordtree import build_tree
        >>> path = pathlib.Path(tempfile.mkdtemp(), "zoo.yaml")
        >>> _ = path.write_text("animal: {dog: [poodle, beagle], cat: }")
        >>> sorted(read_taxonomy(path).edges)
        [('animal', 'cat'), ('animal', 'dog'), ('dog', 'beagle'), ('dog', 'poodle')]
        >>> build_tree(["poodle", "beagle", "cat"], taxonomy=path).ids
        ('cat', 'dog', 'beagle', 'poodle')
    """
    import networkx

    source = Source(Path(path))
    graph = scan(source)
    source.raise_first()
    made: networkx.DiGraph[str] = networkx.DiGraph()
    for id_, name in zip(graph.ids, graph.names, strict=True):
        made.add_node(id_, name=name or id_)
    for id_, above in zip(graph.ids, graph.parents, strict=True):
        made.add_edges_from((graph.ids[parent], id_) for parent in above)
    return made


def scan(source: Source) -> Graph:
    """What a tree's or a taxonomy's file says; every fault is noted in `source`.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: a suffix that no tree has.
    """
    suffix = source.path.suffix
    if suffix not in SUFFIXES:
        raise WordTreeError(f"{source.path}: no tree format {suffix!r}; known: {', '.join(SUFFIXES)}")
    try:
        if suffix == ".tree":
            return scan_darknet(source)
        if suffix in DELIMITERS:
            return scan_table(source, table_of(source))
        return scan_document(source, document_of(source))
    except Stopped:
        return Graph()


# ---------------------------------------------------------------------- Darknet


def scan_darknet(source: Source) -> Graph:
    graph = Graph(ordered=True)
    lines = lines_of(source)
    damaged = {fault.line for fault in source.faults}
    for line, text in enumerate(lines, start=1):
        fields = text.split()
        if len(fields) == 2 and _INTEGER.fullmatch(fields[1]):
            parent = int(fields[1])
            graph.add(fields[0], line, parents=[] if parent == ROOT else [parent])
            continue
        graph.add("", line)  # its number is taken: the parents below count lines
        if line not in damaged:
            what = repr(text) if fields else "an empty line"
            source.fault(line, f"{what}; a line is an id and its parent's line, counted from 0, or -1")
    return _checked(source, graph)


def scan_names(source: Source, tree: Path, nodes: int | None) -> list[str]:
    """The lines of the `.names` of a tree of so many nodes; None where the tree is not at hand."""
    try:
        names = lines_of(source)
    except Stopped:
        return []
    damaged = {fault.line for fault in source.faults}
    for line, name in enumerate(names, start=1):
        if not name.strip() and line not in damaged:
            source.fault(line, "an empty line; a line is the name of a node")
    if nodes is not None and len(names) != nodes:
        line = min(len(names), nodes) + 1  # the first that is missing, or too many
        source.fault(line, f"{len(names)} names for the {nodes} nodes of {tree}; give one line a node")
    return names


# ---------------------------------------------------------------------- entries: a node and its parents


class Entry(NamedTuple):
    """What one row or one item says of a node; no parents: it stands at the top."""

    line: int
    id: str
    name: str | None
    parents: Sequence[str]


def _join(source: Source, entries: Sequence[Entry], closed: bool, once: bool = False) -> Graph:
    """The graph that entries make.

    Args:
        closed: every parent has an entry of its own; otherwise a parent is a node where it is named.
        once: an id has one entry; otherwise several, each with another parent.
    """
    graph = Graph()
    for line, id_ in [(entry.line, entry.id) for entry in entries]:
        if id_:
            graph.row(id_, line)
    for entry in () if closed else entries:
        for upper in entry.parents:
            graph.row(upper, entry.line)
    said: dict[tuple[str, str | None], int] = {}  # (id, parent) -> line
    first: dict[str, int] = {}
    for line, id_, name, parents in entries:
        if not id_:
            source.fault(line, "an empty id; give every node one")
            continue
        for text in (id_, *parents):
            if text != text.strip():
                source.fault(line, f"{text!r} begins or ends with white space; take it out")
        row, again = graph.row_of[id_], id_ in first
        first.setdefault(id_, line)
        if again and once:
            source.fault(line, f"id {id_!r} stands on line {first[id_]} already; ids stand once")
            continue
        if name and (graph.names[row] or name) != name:
            source.fault(line, f"{id_!r} is named {name!r} here and {graph.names[row]!r} before; give it one name")
        graph.names[row] = graph.names[row] or name or None
        for parent in parents or (None,):
            where = "at the top" if parent is None else f"under {parent!r}"
            if (id_, parent) in said:
                source.fault(line, f"{id_!r} stands {where} on line {said[id_, parent]} already; say so once")
            elif again and (parent is None or (id_, None) in said):
                what = f"{id_!r} stands at the top and under a parent, here and on line {first[id_]}"
                source.fault(line, f"{what}; give one of the two")
            elif parent is not None and parent not in graph.row_of:
                source.fault(line, f"{id_!r} stands under {parent!r}, which is no node; give {parent!r} an entry too")
            elif parent is not None:
                graph.parents[row].setdefault(graph.row_of[parent], line)
            said.setdefault((id_, parent), line)
    return graph


def scan_table(source: Source, table: Table) -> Graph:
    columns = {column: at for at, column in enumerate(table.columns)}
    id_at, parent_at, name_at = columns.get("id"), columns.get("parent"), columns.get("name")
    if "child" in columns:
        id_at, name_at = columns["child"], None
    if (id_at is None or parent_at is None) and linnaean.is_list(columns):
        rows = [(line, dict(zip(table.columns, cells, strict=True))) for line, cells in table.rows]
        return _checked(source, _linnaean(source, rows))
    if id_at is None or parent_at is None:
        given = ", ".join(columns) or "none"
        source.stop(1, f"columns: {given}; give parent and child, or id, parent and name, or ranks: family, genus")
    entries = []
    for line, cells in table.rows:
        name = None if name_at is None else cells[name_at]
        entries.append(Entry(line, cells[id_at], name, [cells[parent_at]] if cells[parent_at] else []))
    return _checked(source, _join(source, entries, closed="child" not in columns))


# ---------------------------------------------------------------------- JSON and YAML


def scan_document(source: Source, top: Item) -> Graph:
    """A graph by what the file looks like; see the head of this module."""
    match top.value:
        case {"format": Item(value="wordtree")}:
            graph = _own(source, top)
        case {"LabelName": _}:
            graph = _nested_records(source, [top], "LabelName", "Subcategory", "Part")
        case {"children": Item(value=list()), "name": _} | {"children": Item(value=list()), "id": _}:
            graph = _nested_records(source, [top], "id" if "id" in top.value else "name", "children")
        case {"names": Item(value=list() | dict())}:
            graph = _data_set(source, top)
        case {"categories": Item(value=list() as items)} | [*items] if any(map(_is_ranked, items)):
            graph = _linnaean(source, _ranked(source, items))
        case {"categories": Item(value=list() as items)}:
            graph = _join(source, *_categories(source, items))
        case [*items] if any(_is_category(item) for item in items):
            graph = _join(source, *_categories(source, items))
        case list() | dict():
            graph = _nested(source, top)
        case _:
            source.stop(top.line, f"{top.value!r} at the top; give a list or a mapping")
    return _checked(source, graph)


def _own(source: Source, top: Item) -> Graph:
    """Our own .json: ids, parents by number and names, a node a line."""
    version, sha256, nodes = (top.value.get(key, Item(top.line, None)) for key in ("version", "sha256", "nodes"))
    if version.value != VERSION:
        source.stop(version.line, f"version {version.value!r}; this wordtree reads version {VERSION}")
    if not isinstance(nodes.value, list):
        source.stop(nodes.line, f"nodes are {nodes.value!r}; give a list of [id, parent's number or -1, name]")
    root = top.value.get("root", Item(top.line, "root"))
    graph = Graph(ordered=True, root=_text(source, root), sha256=(str(sha256.value), sha256.line))
    for item in nodes.value:
        match item.value:
            case [Item(value=str(id_)), Item(value=int(parent)), Item(value=str(name))] if not isinstance(parent, bool):
                for text in (id_, name):
                    _text(source, Item(item.line, text))
                graph.add(id_, item.line, name, parents=[] if parent == ROOT else [parent])
            case _:
                source.fault(item.line, f"{_shown(item)}; a node is [id, parent's number or -1, name]")
                graph.add("", item.line)
    return graph


def _nested_records(source: Source, items: list[Item], id_key: str, below: str, parts: str | None = None) -> Graph:
    """Mappings that hold their children in a list. What is only a part of others stands under the first at the top."""
    graph = Graph()
    loose: dict[int, int] = {}  # the rows that stand in lists of parts -> line
    todo: list[tuple[Item, int | None, bool]] = [(item, None, False) for item in reversed(items)]
    while todo:
        item, parent, is_part = todo.pop()
        if not isinstance(item.value, dict) or id_key not in item.value:
            source.fault(item.line, f"{_shown(item)}; an entry is a mapping with {id_key!r}")
            continue
        id_ = _text(source, item.value[id_key])
        if not id_:
            continue
        row = graph.row(id_, item.line)
        if "name" in item.value:
            graph.names[row] = graph.names[row] or _text(source, item.value["name"]) or None
        if is_part:
            loose.setdefault(row, item.line)
        elif parent is not None:
            graph.parents[row].setdefault(parent, item.line)
        for key, inside in reversed(item.value.items()):
            if key in (below, parts):
                if isinstance(inside.value, list):
                    todo += [(child, row, key == parts) for child in reversed(inside.value)]
                elif inside.value is not None:
                    source.fault(inside.line, f"{key!r} is {_shown(inside)}; give a list of entries")
            elif parts is not None and key != id_key:
                source.fault(inside.line, f"key {key!r}; an entry has {id_key}, {below} and {parts}")
    for row, line in loose.items():
        if row and not graph.parents[row]:
            graph.parents[row][0] = line
    return graph


def _is_category(item: Item) -> bool:
    return isinstance(item.value, dict) and not isinstance(item.value.get("name", item).value, list | dict)


def _is_ranked(item: Item) -> bool:
    return isinstance(item.value, dict) and linnaean.is_list(item.value)


def _ranked(source: Source, items: list[Item]) -> list[tuple[int, dict[str, str]]]:
    """iNaturalist's categories as rows of a Linnaean list."""
    rows = []
    for item in items:
        if not _is_ranked(item):
            source.fault(item.line, f"{_shown(item)}; an entry is a mapping with ranks, kingdom to genus, and name")
            continue
        texts = {key: one for key, one in item.value.items() if not isinstance(one.value, list | dict)}
        rows.append((item.line, {key: "" if one.value is None else _text(source, one) for key, one in texts.items()}))
    return rows


def _linnaean(source: Source, rows: list[tuple[int, dict[str, str]]]) -> Graph:
    taxa, _ = linnaean.read(rows, source.fault)
    entries = [Entry(taxon.line, taxon.id, taxon.name, [taxon.parent] if taxon.parent else []) for taxon in taxa]
    return _join(source, entries, closed=True)


def _categories(source: Source, items: list[Item]) -> tuple[list[Entry], bool, bool]:
    """{name, parent} with or without an id, parents being ids; or {name, supercategory}, as COCO does, by name."""
    entries = []
    is_coco = any(isinstance(item.value, dict) and "supercategory" in item.value for item in items)
    for item in items:
        if not isinstance(item.value, dict) or "name" not in item.value:
            source.fault(item.line, f"{_shown(item)}; an entry is a mapping with name and parent, or supercategory")
            continue
        noted = len(source.faults)
        name = _text(source, item.value["name"])
        # A COCO category's id is the data set's own number; what its supercategory names is a name.
        id_ = name if is_coco or "id" not in item.value else _text(source, item.value["id"])
        above = item.value.get("supercategory" if is_coco else "parent", Item(item.line, None))
        given = above.value if isinstance(above.value, list) else [above]
        parents = [_text(source, one) for one in given if one.value not in (None, "")]
        if is_coco and parents == [name]:  # COCO's person is its own supercategory
            parents = []
        if len(source.faults) == noted:
            entries.append(Entry(item.line, id_, name, parents))
    return entries, not is_coco, True


def _data_set(source: Source, top: Item) -> Graph:
    """A data set's YAML: `names`, and beside it `tree`, what stands above each: an index, a name or a path."""
    if "tree" not in top.value:
        line = top.value["names"].line
        source.stop(line, "names without a tree; give `tree:` beside it, a list of what stands above each name")
    listed = _listed(source, top.value["names"], "names")
    names = [_text(source, item) for item in listed]
    above = _listed(source, top.value["tree"], "tree")
    if len(above) != len(names):
        line = top.value["tree"].line
        source.stop(line, f"{len(above)} entries of tree for {len(names)} names; give one a name, '' at the top")
    by_index = all(type(item.value) is int for item in above)
    entries, steps_above = [], []
    for given, name, item in zip(listed, names, above, strict=True):
        path = _path_above(source, item, name, names if by_index else [])
        if name or given.value == "":  # anything else is noted
            entries.append(Entry(item.line, name, name, path[-1:]))
        steps_above += [(item.line, upper, lower) for upper, lower in pairwise(path)]
    graph = _join(source, entries, closed=False, once=True)
    tops = {entry.id for entry in entries if not entry.parents}
    for line, upper, lower in steps_above:
        if lower in tops:
            source.fault(line, f"{lower!r} stands under {upper!r} here and at the top itself; give one of the two")
        graph.parents[graph.row(lower, line)].setdefault(graph.row(upper, line), line)
    return graph


def _path_above(source: Source, item: Item, name: str, names: list[str]) -> list[str]:
    """The names above one of a data set's, as its entry of `tree` says; `names` where entries are indices."""
    if item.value in (None, "", ROOT):
        return []
    if type(item.value) is int:
        if 0 <= item.value < len(names):
            return [names[item.value]]
        would_do = f"give 0 to {len(names) - 1}, or -1 for the top" if names else "give indices all through, or names"
        source.fault(item.line, f"parent {item.value} of {name!r}; {would_do}")
        return []
    path = [step.strip() for step in _text(source, item).split(">")]
    if not all(path):
        source.fault(item.line, f"path {item.value!r} of {name!r}; give names with > between, from the top down")
        return []
    return path[:-1] if path[-1] == name else path


def _listed(source: Source, item: Item, what: str) -> list[Item]:
    """The items of a list, or of a mapping from 0, 1, 2 on."""
    if isinstance(item.value, list):
        return item.value
    if not isinstance(item.value, dict) or set(item.value) != {str(at) for at in range(len(item.value))}:
        source.stop(item.line, f"{what} is {_shown(item)}; give a list, or a mapping from 0 on without gaps")
    return [item.value[str(at)] for at in range(len(item.value))]


def _nested(source: Source, top: Item) -> Graph:
    """{animal: {dog: [poodle, beagle], cat: }}: keys and list entries are ids, what a key holds stands below it."""
    graph = Graph()
    todo: list[tuple[int | None, Item]] = [(None, top)]
    while todo:
        parent, item = todo.pop()
        children: list[tuple[str, Item]] = []
        for one in item.value if isinstance(item.value, list) else [item]:
            if isinstance(one.value, dict):
                children += one.value.items()
            elif one is not item and not isinstance(one.value, list):
                id_ = _text(source, one)
                if id_ or one.value == "":  # anything else is noted
                    children.append((id_, Item(one.line, None)))
            elif one.value is not None:
                source.fault(one.line, f"{_shown(one)}; give what stands below as a list, `dog: [poodle, beagle]`")
        below = []
        for id_, inside in children:
            if not id_ or id_ != id_.strip():
                source.fault(inside.line, f"id {id_!r}; give every node one, without white space at its ends")
                continue
            row = graph.row(id_, inside.line)
            if parent is not None:
                graph.parents[row].setdefault(parent, inside.line)
            below.append((row, inside))
        todo += reversed(below)
    return graph


def _text(source: Source, item: Item) -> str:
    """An id or a name: text, or a whole number as text; anything else is noted, and comes out empty."""
    if type(item.value) is int:
        return str(item.value)
    if not isinstance(item.value, str):
        source.fault(item.line, f"{_shown(item)} for an id or a name; give text")
        return ""
    if any("\ud800" <= letter <= "\udfff" for letter in item.value):
        source.fault(item.line, f"{item.value!a} has half a character; write the whole one")
        return ""
    return item.value


def _shown(item: Item) -> str:
    """An item in few words."""
    match item.value:
        case dict():
            return f"a mapping of {', '.join(list(item.value)[:3]) or 'nothing'}"
        case [*items]:
            few = ", ".join(repr(one.value) if not isinstance(one.value, list | dict) else "..." for one in items[:4])
            return f"[{few}{', ...' if len(items) > 4 else ''}]"
        case value:
            return "nothing" if value is None else repr(value)


# ---------------------------------------------------------------------- what every graph keeps


def _checked(source: Source, graph: Graph) -> Graph:
    """Note what is wrong with the graph as a whole."""
    if not graph.ids:
        if not source.faults:
            source.fault(1, "a tree without nodes; give at least one")
        return graph
    if graph.ordered:
        try:
            WordTree(graph.ids, [next(iter(above), ROOT) for above in graph.parents])
            return graph
        except (WordTreeError, OverflowError):  # it names the first fault; all are wanted, by line
            _check_order(source, graph)
    above = [[row for row in parents if 0 <= row < len(graph.ids)] for parents in graph.parents]
    for circle in circles(above):
        line = graph.lines[circle[0]]
        if len(circle) == 1:
            source.fault(line, f"{graph.ids[circle[0]]!r} is its own parent; give it another, or none at the top")
        else:
            told = " > ".join(f"{graph.ids[row]!r} (line {graph.lines[row]})" for row in (*circle, circle[0]))
            source.fault(line, f"a circle, parent > child: {told}; give one of them another parent")
    return graph


def _check_order(source: Source, graph: Graph) -> None:
    """Ids stand once, parents are there and stand before their children, siblings stand together."""
    count, what = len(graph.ids), "lines" if source.path.suffix == ".tree" else "nodes"
    above = [[row for row in parents if 0 <= row < count] for parents in graph.parents]
    on_circle = {row for circle in circles(above) for row in circle}
    parent_of = [next(iter(above), ROOT) for above in graph.parents]
    last_of: dict[int, int] = {}  # parent -> the last of its children so far
    before = None  # the parent of the row before
    for row, (id_, line, parent) in enumerate(zip(graph.ids, graph.lines, parent_of, strict=True)):
        if not id_:  # noted already; what it says of its parent is nothing
            continue
        if graph.row_of[id_] != row:
            first = graph.lines[graph.row_of[id_]]
            source.fault(line, f"id {id_!r} stands on line {first} already; ids stand once")
        if parent < ROOT:
            source.fault(line, f"parent {parent} of {id_!r}; a parent counts from 0, -1 is the root")
        elif parent >= count:
            source.fault(line, f"parent {parent} of {id_!r}, which is not there; {what} go from 0 to {count - 1}")
        elif parent >= row and row not in on_circle:
            source.fault(line, f"parent {parent} of {id_!r} stands below it; a parent stands before its children")
        if parent != before and parent in last_of:
            where = "the root" if parent == ROOT else f"parent {parent}"
            last = graph.lines[last_of[parent]]
            source.fault(line, f"{id_!r} stands apart from its siblings under {where}; put it below line {last}")
        last_of[parent], before = row, parent


def circles(above: Sequence[Sequence[int]]) -> list[list[int]]:
    """Circles among parents, so that opening each at its first node leaves none; each from its lowest row, downwards.

    Args:
        above: each row's parents.

    Example:
        >>> circles([[], [2], [1], [2]])
        [[1, 2]]
    """
    below: list[list[int]] = [[] for _ in above]
    for row, parents in enumerate(above):
        for parent in parents:
            below[parent].append(row)
    waiting = {row: len(parents) for row, parents in enumerate(above) if parents}
    ready = [row for row, parents in enumerate(above) if not parents]
    found: list[list[int]] = []
    while True:
        while ready:  # a node whose parents are all out goes out
            for child in below[ready.pop()]:
                if child in waiting:
                    waiting[child] -= 1
                    if not waiting[child]:
                        del waiting[child]
                        ready.append(child)
        if not waiting:
            return sorted(found)
        steps: dict[int, None] = {}
        row = next(iter(waiting))
        while row not in steps:  # upwards, until a node comes again
            steps[row] = None
            row = next(parent for parent in above[row] if parent in waiting)
        circle = list(steps)[list(steps).index(row) :][::-1]
        first = circle.index(min(circle))
        found.append(circle[first:] + circle[:first])
        del waiting[found[-1][0]]
        ready.append(found[-1][0])
