"""Every fault of a file, by line: trees, taxonomies, label maps, and Darknet's `.names` and `.map`.

The rules are those by which the files are read (scan.py, graphs.py, formats.py); a reader raises the first fault, this
lists them all.
"""

from __future__ import annotations

from pathlib import Path

from . import wordnet
from .errors import WordTreeError
from .formats import scan_map, tree_of
from .graphs import SUFFIXES, Graph, scan_darknet, scan_document, scan_names, scan_table
from .labels import WORDNET_ID, LabelMap
from .scan import DELIMITERS, Fault, Item, Source, Stopped, Table, document_of, lines_of, table_of
from .show import summary


def check(path: str | Path) -> tuple[list[Fault], list[str]]:
    """The faults of a file by line, and what is in it, a sentence a line.

    A `.tree` is checked with the `.names` beside it, a `.names` against the count of the `.tree` beside it.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: a suffix of none of the files that can be checked.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "zoo.tree")
        >>> _ = path.write_text("animal -1\\nplant -1\\ndog 0\\noak 1\\ncat 0\\ndog 9\\n")
        >>> for fault in check(path)[0]:
        ...     print(f"line {fault.line}: {fault.what}")
        line 5: 'cat' stands apart from its siblings under parent 0; put it below line 3
        line 6: id 'dog' stands on line 3 already; ids stand once
        line 6: parent 9 of 'dog', which is not there; lines go from 0 to 5
    """
    path = Path(path)
    known = (*SUFFIXES, ".names", ".map")
    if path.suffix not in known:
        raise WordTreeError(f"{path}: no check for {path.suffix!r}; known: {', '.join(known)}")
    beside = Source(path.with_suffix(".tree" if path.suffix == ".names" else ".names"))
    source, told = Source(path), []
    try:
        if path.suffix == ".map":
            told = [f"a map of {len(scan_map(source))} classes"]
        elif path.suffix == ".names":
            told = _names(source, beside)
        elif path.suffix == ".tree":
            graph = scan_darknet(source)
            told = _of_graph(source, graph)
            if beside.path.exists():
                scan_names(beside, path, len(graph.ids))
        elif path.suffix in DELIMITERS:
            table = table_of(source)
            is_map = {"label", "id"} <= set(table.columns) and "parent" not in table.columns
            told = _labels(source, _pairs_of(table)) if is_map else _of_graph(source, scan_table(source, table))
        else:
            top = document_of(source)
            pairs = _pairs_in(top)
            told = _labels(source, pairs) if pairs else _of_graph(source, scan_document(source, top))
    except Stopped:
        pass
    by_line = [sorted(one.faults, key=lambda fault: fault.line) for one in (source, beside)]
    return by_line[0] + by_line[1], told


# ---------------------------------------------------------------------- what is in it


def _of_graph(source: Source, graph: Graph) -> list[str]:
    """What a graph without faults is."""
    if any(not fault.mild for fault in source.faults):
        return []
    if several := sum(len(above) > 1 for above in graph.parents):
        return [
            f"a taxonomy of {len(graph.ids)} nodes, {several} with several parents; "
            f"build_tree(labels, taxonomy={source.path.name!r}) takes one each"
        ]
    tree = tree_of(source, graph)
    told = [f"a tree of {summary(tree)}"]
    if alone := int((tree.group_size == 1).sum()):
        told.append(f"groups of one node, always certain: {alone}")
    if repeated := len(tree) - len({name.casefold() for name in tree.names}):
        told.append(f"nodes whose name an earlier node has too: {repeated}; ask for those by id")
    return told


def _names(source: Source, tree: Source) -> list[str]:
    """A `.names`, against the `.tree` beside it where there is one."""
    nodes = len(lines_of(tree)) if tree.path.exists() else None
    return [f"{len(scan_names(source, tree.path, nodes))} names"]


# ---------------------------------------------------------------------- label maps


def _pairs_of(table: Table) -> list[tuple[int, str, str]]:
    """(line, label, id) a row."""
    label, id_ = table.columns.index("label"), table.columns.index("id")
    return [(line, cells[label].strip(), cells[id_].strip()) for line, cells in table.rows]


def _pairs_in(top: Item) -> list[tuple[int, str, str]]:
    """The pairs `label: id` at the top or under `labels`; none where the file is no label map."""
    pairs = top.value
    if isinstance(pairs, dict) and isinstance(getattr(pairs.get("labels"), "value", None), dict):
        pairs = pairs["labels"].value
    if not isinstance(pairs, dict) or "format" in pairs:
        return []
    values = [item.value for item in pairs.values()]
    if any(isinstance(value, list | dict) for value in values) or all(value is None for value in values):
        return []
    return [
        (item.line, label.strip(), "" if item.value is None else str(item.value).strip())
        for label, item in pairs.items()
    ]


def _labels(source: Source, pairs: list[tuple[int, str, str]]) -> list[str]:
    """Note what is wrong with a label map's rows."""
    line_of: dict[str, int] = {}
    for line, label, id_ in pairs:
        if not label or not id_:
            source.fault(line, f"label {label!r} with id {id_!r}; give both")
        elif line_of.setdefault(label, line) != line:
            source.fault(line, f"label {label!r} stands on line {line_of[label]} already; labels are unique")
        if WORDNET_ID.fullmatch(id_):
            try:
                wordnet.id_of(id_)
            except WordTreeError as error:
                source.fault(line, str(error))
    if any(not fault.mild for fault in source.faults):
        return []
    try:
        labels = LabelMap.read(source.path)
    except WordTreeError as error:  # a rule that only the reader knows
        source.fault(1, str(error).removeprefix(f"{source.path}: "))
        return []
    return [f"a label map of {len(labels)} labels, {len(set(labels.ids))} different ids"]
