"""Trees in files: Darknet's `.tree`, `.names` and `.map`, our own `.json`, tables, whatever graphs.py reads; networkx.

Every file is written beside its place and moved there when it is whole, so that a reader never meets half of one.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import WordTreeError
from .graphs import FORMAT, VERSION, Graph, scan, scan_names
from .scan import DELIMITERS, Source, Stopped, lines_of
from .tree import ROOT, WordTree, arrange

if TYPE_CHECKING:
    import networkx

_NODE = re.compile(r"[0-9]{1,18}")


def read_tree(path: str | Path, names: str | Path | None = None) -> WordTree:
    """Read a tree by suffix: `.tree` (Darknet), `.json` (ours, or nested), `.csv`, `.tsv`, `.yaml` or `.yml`.

    Rows and entries that keep a tree's order keep it, others are arranged. docs/file-formats.md shows each format.

    Args:
        path: the file.
        names: a `.names` file, a line a node. For a `.tree` the file beside it is taken where there is one.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: another suffix, a node with several parents, or the first fault, with file and line; `wordtree
            check` tells them all.
    """
    path = Path(path)
    if (whole := _read_own(path)) is not None and names is None:
        return whole
    source = Source(path)
    graph = scan(source)
    source.raise_first()
    for id_, line, above in zip(graph.ids, graph.lines, graph.parents, strict=True):
        if len(above) > 1:
            parents = ", ".join(repr(graph.ids[row]) for row in above)
            raise WordTreeError(
                f"{path}, line {line}: {id_!r} has {len(above)} parents ({parents}), a tree gives one; "
                f"build_tree(labels, taxonomy={str(path)!r}) chooses"
            )
    tree = tree_of(source, graph)
    source.raise_first()
    if names is None and path.suffix == ".tree" and path.with_suffix(".names").exists():
        names = path.with_suffix(".names")
    if names is None:
        return tree
    beside = Source(Path(names))
    lines = scan_names(beside, path, len(tree))
    beside.raise_first()
    return WordTree(tree.ids, tree.parents, lines, root_name=tree.root_name)


def _read_own(path: Path) -> WordTree | None:
    """Our own .json where it is sound, ten times as fast as `scan`; None leaves it to that, which names the faults."""
    if path.suffix != ".json" or not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=_keys_once)
        ids, parents, names = zip(*content["nodes"], strict=True)
        tree = WordTree(ids, parents, names, root_name=content["root"])
        types = [{*map(type, column)} for column in (ids, parents, names, [content["root"]])]
        head = content["format"], content["version"], content["sha256"]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return tree if types == [{str}, {int}, {str}, {str}] and head == (FORMAT, VERSION, tree.hash) else None


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) != len(dict(pairs)):
        raise ValueError
    return dict(pairs)


def tree_of(source: Source, graph: Graph) -> WordTree:
    """The tree of a graph without faults, one parent a node; a hash that is another's is noted in `source`."""
    parents = [next(iter(above), ROOT) for above in graph.parents]
    names = [id_ if name is None else name for id_, name in zip(graph.ids, graph.names, strict=True)]
    if not graph.ordered:
        above = [None if parent == ROOT else graph.ids[parent] for parent in parents]
        parent_of = dict(zip(graph.ids, above, strict=True))
        return _in_order(parent_of, dict(zip(graph.ids, names, strict=True)), graph.root)
    tree = WordTree(graph.ids, parents, names, root_name=graph.root)
    if graph.sha256 is not None and graph.sha256[0] != tree.hash:
        what = f"ids or parents were changed since it was written (sha256 is {tree.hash}); save it anew"
        source.fault(graph.sha256[1], what)
    return tree


def write_tree(tree: WordTree, path: str | Path) -> Path:
    """Write a tree by suffix: `.tree` (Darknet, `.names` beside it), `.json` (ours), `.csv`, `.tsv`; returns the path.

    The report is not written: it tells of a building, not of a tree.

    Raises:
        WordTreeError: another suffix, or ids and names that the format cannot hold.
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        raise WordTreeError(f"{path}: no tree format {path.suffix!r} to write; known: {', '.join(_WRITERS)}")
    _WRITERS[path.suffix](tree, path)
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is there whole or not at all: first beside its place, then moved there."""
    check_folder(path)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with open(temporary, "x", encoding="utf-8", newline="") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_folder(path: Path) -> None:
    """Refuse a file to write whose folder is not there."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(path.parent)!r} to write {path.name!r} into; make it first")


# ---------------------------------------------------------------------- Darknet


def _write_darknet(tree: WordTree, path: Path) -> None:
    for id_ in tree.ids:
        if len(id_.split()) != 1 or id_ != id_.strip():
            raise WordTreeError(f"id {id_!r} has white space, which a .tree cannot hold; save as .json")
    names = _names_text(tree.names)
    write_whole(path, "".join(f"{id_} {parent}\n" for id_, parent in zip(tree.ids, tree.parents.tolist(), strict=True)))
    write_whole(path.with_suffix(".names"), names)


def _names_text(names: Iterable[str]) -> str:
    names = list(names)
    for name in names:
        if "\n" in name or "\r" in name or not name.strip():
            raise WordTreeError(f"name {name!r} is empty or breaks a line, which a .names cannot hold; save as .json")
    return "".join(f"{name}\n" for name in names)


def read_map(path: str | Path) -> NDArray[np.int64]:
    """int64 [classes]: a Darknet `.map`, the node of each of a data set's classes, a number a line.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: a line that is no number, with file and line.
    """
    source = Source(Path(path))
    nodes = scan_map(source)
    source.raise_first()
    return np.array(nodes, dtype=np.int64)


def scan_map(source: Source) -> list[int]:
    """The nodes of a `.map`; lines that are none are noted in `source`."""
    nodes = []
    try:
        lines = lines_of(source)
    except Stopped:
        return []
    damaged = {fault.line for fault in source.faults}
    for line, text in enumerate(lines, start=1):
        if _NODE.fullmatch(text.strip()):
            nodes.append(int(text))
        elif line not in damaged:
            source.fault(line, f"{text!r}; a line of a .map is a node, counted from 0")
    return nodes


def write_map(nodes: ArrayLike, path: str | Path) -> Path:
    """Write a Darknet `.map`: int [classes], the node of each class; `labels.nodes_on(tree)` gives one."""
    flat = np.asarray(nodes, dtype=np.int64)
    if flat.ndim != 1 or (flat < 0).any():
        raise WordTreeError(f"nodes {flat.tolist()} for a .map; give one row of numbers from 0")
    write_whole(Path(path), "".join(f"{node}\n" for node in flat.tolist()))
    return Path(path)


# ---------------------------------------------------------------------- our own


def _write_json(tree: WordTree, path: Path) -> None:
    head = {"format": FORMAT, "version": VERSION, "root": tree.root_name, "sha256": tree.hash}
    rows = zip(tree.ids, tree.parents.tolist(), tree.names, strict=True)
    # A node a line, so that two trees can be compared with an ordinary diff.
    nodes = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    write_whole(path, json.dumps(head, ensure_ascii=False)[:-1] + f', "nodes": [\n{nodes}\n]}}\n')


# ---------------------------------------------------------------------- a table


def _write_table(tree: WordTree, path: Path) -> None:
    for id_ in tree.ids:
        if id_ != id_.strip() or not id_:
            raise WordTreeError(f"id {id_!r} is empty or ends in white space, which a table cannot hold; save as .json")
    out = io.StringIO()
    rows = csv.writer(out, delimiter=DELIMITERS[path.suffix], lineterminator="\n")
    rows.writerow(["id", "parent", "name"])
    for id_, parent, name in zip(tree.ids, tree.parents.tolist(), tree.names, strict=True):
        rows.writerow([id_, "" if parent == ROOT else tree.ids[parent], name])
    write_whole(path, out.getvalue())


def _in_order(parent_of: dict[str, str | None], names: dict[str, str], root: str) -> WordTree:
    """A tree in the order given where that is a tree's order, else arranged."""
    ids, parents = arrange(parent_of)  # finds lost parents and circles
    node_of = {id_: node for node, id_ in enumerate(parent_of)}
    given = [ROOT if parent is None else node_of[parent] for parent in parent_of.values()]
    try:
        return WordTree(parent_of, given, names.values(), root_name=root)
    except WordTreeError:
        return WordTree(ids, parents, [names[id_] for id_ in ids], root_name=root)


_WRITERS: dict[str, Callable[[WordTree, Path], None]] = {
    ".tree": _write_darknet,
    ".json": _write_json,
    **dict.fromkeys(DELIMITERS, _write_table),
}


# ---------------------------------------------------------------------- networkx


def to_networkx(tree: WordTree) -> networkx.DiGraph[str]:
    """A DiGraph on the ids, edges parent -> child, each with its `name`; the implicit root under its own name.

    `graph.graph["root"]` says which node that is.

    Raises:
        WordTreeError: a node whose id is the root's name.
    """
    import networkx

    if tree.root_name in tree.ids:
        raise WordTreeError(f"id {tree.root_name!r} is the root's name too; give the tree another root_name")
    graph: networkx.DiGraph[str] = networkx.DiGraph(root=tree.root_name)
    graph.add_node(tree.root_name, name=tree.root_name)
    for id_, name, parent in zip(tree.ids, tree.names, tree.parents.tolist(), strict=True):
        graph.add_node(id_, name=name)
        graph.add_edge(tree.root_name if parent == ROOT else tree.ids[parent], id_)
    return graph


def from_networkx(graph: networkx.DiGraph[Any]) -> WordTree:
    """The tree that a DiGraph is: edges parent -> child, one parent a node.

    The node that `graph.graph["root"]` names is the implicit root; where nothing is named, the parentless nodes are
    root children. A graph with several parents to a node is a taxonomy: `build_tree(labels, taxonomy=graph)`.

    Raises:
        WordTreeError: a node with several parents, or a graph that runs in a circle.
    """
    root = graph.graph.get("root")
    parent_of: dict[str, str | None] = {}
    names: dict[str, str] = {}
    for node in graph.nodes:
        if node == root:
            continue
        above = list(graph.predecessors(node))
        if len(above) > 1:
            raise WordTreeError(
                f"{node!r} has {len(above)} parents ({', '.join(map(repr, above))}), a tree gives one; "
                "build_tree(labels, taxonomy=graph) chooses"
            )
        parent_of[str(node)] = str(above[0]) if above and above[0] != root else None
        names[str(node)] = str(graph.nodes[node].get("name", node))
    return _in_order(parent_of, names, "root" if root is None else str(root))
