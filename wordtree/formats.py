"""Trees in files: Darknet's `.tree`, `.names` and `.map`, our own `.json`, a `.csv` of id, parent and name; networkx.

Every file is written beside its place and moved there when it is whole, so that a reader never meets half of one.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import WordTreeError
from .tree import ROOT, WordTree, arrange

if TYPE_CHECKING:
    import networkx

FORMAT, VERSION = "wordtree", 1


def read_tree(path: str | Path, names: str | Path | None = None) -> WordTree:
    """Read a tree by suffix: `.tree` (Darknet), `.json` (ours) or `.csv`.

    Args:
        path: the file.
        names: a `.names` file, a line a node. For a `.tree` the file beside it is taken where there is one.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: another suffix, or the first fault, with file and line.
    """
    path = Path(path)
    tree: WordTree = _known(path, _READERS)(path)
    if names is None and path.suffix == ".tree" and path.with_suffix(".names").exists():
        names = path.with_suffix(".names")
    if names is None:
        return tree
    lines = _lines(Path(names))
    if len(lines) != len(tree):
        raise WordTreeError(f"{names}: {len(lines)} names for the {len(tree)} nodes of {path}; give one line a node")
    return WordTree(tree.ids, tree.parents, lines, root_name=tree.root_name)


def write_tree(tree: WordTree, path: str | Path) -> Path:
    """Write a tree by suffix: `.tree` (Darknet, with `.names` beside it), `.json` (ours) or `.csv`; returns the path.

    The report is not written: it tells of a building, not of a tree.

    Raises:
        WordTreeError: another suffix, or ids and names that the format cannot hold.
    """
    path = Path(path)
    _known(path, _WRITERS)(tree, path)
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is there whole or not at all: first beside its place, then moved there."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(path.parent)!r} to write {path.name!r} into")
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with open(temporary, "x", encoding="utf-8", newline="") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _known(path: Path, by_suffix: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    if path.suffix not in by_suffix:
        raise WordTreeError(f"{path}: no tree format {path.suffix!r}; known: {', '.join(by_suffix)}")
    return by_suffix[path.suffix]


def _text(path: Path) -> str:
    if not path.exists():
        raise FileNotFoundError(f"no file {str(path)!r}; give one that exists, such as what `wordtree build -o` wrote")
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise WordTreeError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def _lines(path: Path) -> list[str]:
    """The lines of a text file without their ends; Windows' ends are taken too."""
    lines = _text(path).replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _made(
    path: Path, ids: list[str], parents: list[int], names: list[str] | None = None, root: str = "root"
) -> WordTree:
    try:
        return WordTree(ids, parents, names, root_name=root)
    except WordTreeError as error:
        raise WordTreeError(f"{path}: {error}") from None


# ---------------------------------------------------------------------- Darknet


def _read_darknet(path: Path) -> WordTree:
    ids, parents = [], []
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split()
        if not fields:
            raise WordTreeError(f"{path}, line {number}: empty; a line is an id and its parent's line, counted from 0")
        try:
            id_, parent = fields[0], int(fields[1])
            if len(fields) != 2:
                raise ValueError
        except (IndexError, ValueError):
            raise WordTreeError(
                f"{path}, line {number}: {line!r}; a line is an id and its parent's line, counted from 0, or -1"
            ) from None
        if not ROOT <= parent < number - 1:
            raise WordTreeError(f"{path}, line {number}: parent {parent} of {id_!r}; a parent stands on a line above")
        ids.append(id_)
        parents.append(parent)
    return _made(path, ids, parents)


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
        if "\n" in name or "\r" in name:
            raise WordTreeError(f"name {name!r} has a line break, which a .names cannot hold; save as .json")
    return "".join(f"{name}\n" for name in names)


def read_map(path: str | Path) -> NDArray[np.int64]:
    """int64 [classes]: a Darknet `.map`, the node of each of a data set's classes, a number a line.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: a line that is no number, with file and line.
    """
    nodes = []
    for number, line in enumerate(_lines(Path(path)), start=1):
        if not line.strip().isdecimal():
            raise WordTreeError(f"{path}, line {number}: {line!r}; a line of a .map is a node, counted from 0")
        nodes.append(int(line))
    return np.array(nodes, dtype=np.int64)


def write_map(nodes: ArrayLike, path: str | Path) -> Path:
    """Write a Darknet `.map`: int [classes], the node of each class; `labels.nodes_on(tree)` gives one."""
    flat = np.asarray(nodes, dtype=np.int64)
    if flat.ndim != 1 or (flat < 0).any():
        raise WordTreeError(f"a .map takes nodes as one row of numbers from 0, not {flat.tolist()}")
    write_whole(Path(path), "".join(f"{node}\n" for node in flat.tolist()))
    return Path(path)


# ---------------------------------------------------------------------- our own


def _write_json(tree: WordTree, path: Path) -> None:
    head = {"format": FORMAT, "version": VERSION, "root": tree.root_name, "sha256": tree.hash}
    rows = zip(tree.ids, tree.parents.tolist(), tree.names, strict=True)
    # A node a line, so that two trees can be compared with an ordinary diff.
    nodes = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    write_whole(path, json.dumps(head, ensure_ascii=False)[:-1] + f', "nodes": [\n{nodes}\n]}}\n')


def _read_json(path: Path) -> WordTree:
    try:
        content = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise WordTreeError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise WordTreeError(f'{path}: no wordtree file; one says "format": "{FORMAT}" at its head')
    if content.get("version") != VERSION:
        raise WordTreeError(f"{path}: version {content.get('version')!r}; this wordtree reads version {VERSION}")
    ids, parents, names = [], [], []
    for at, row in enumerate(content.get("nodes") or ()):
        match row:
            case [str(id_), int(parent), str(name)]:
                ids.append(id_)
                parents.append(parent)
                names.append(name)
            case _:
                raise WordTreeError(f"{path}, node {at}: {row!r}; a node is [id, parent's number or -1, name]")
    tree = _made(path, ids, parents, names, str(content.get("root", "root")))
    if tree.hash != content.get("sha256"):
        raise WordTreeError(
            f"{path}: ids or parents were changed since it was written (sha256 is {tree.hash}); save it anew"
        )
    return tree


# ---------------------------------------------------------------------- a table


def _write_csv(tree: WordTree, path: Path) -> None:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["id", "parent", "name"])
    for id_, parent, name in zip(tree.ids, tree.parents.tolist(), tree.names, strict=True):
        rows.writerow([id_, "" if parent == ROOT else tree.ids[parent], name])
    write_whole(path, out.getvalue())


def _read_csv(path: Path) -> WordTree:
    """Rows in any order; those that keep a tree's order keep it, others are arranged."""
    rows = csv.DictReader(io.StringIO(_text(path).removeprefix("\ufeff"), newline=""))
    for needed in ("id", "parent"):
        if needed not in (rows.fieldnames or ()):
            columns = ", ".join(rows.fieldnames or ()) or "none"
            raise WordTreeError(f"{path}: no column {needed!r} among {columns}; give id, parent and, if you like, name")
    parent_of: dict[str, str | None] = {}
    names: dict[str, str] = {}
    for row in rows:
        id_ = row["id"]
        if not id_ or id_ in parent_of:
            raise WordTreeError(f"{path}, line {rows.line_num}: id {id_!r}; ids are not empty and stand once")
        parent_of[id_] = row["parent"] or None
        names[id_] = row.get("name") or id_
    try:
        return _in_order(parent_of, names, "root")
    except WordTreeError as error:
        raise WordTreeError(f"{path}: {error}") from None


def _in_order(parent_of: dict[str, str | None], names: dict[str, str], root: str) -> WordTree:
    """A tree in the order given where that is a tree's order, else arranged."""
    ids, parents = arrange(parent_of)  # finds lost parents and circles
    node_of = {id_: node for node, id_ in enumerate(parent_of)}
    given = [ROOT if parent is None else node_of[parent] for parent in parent_of.values()]
    try:
        return WordTree(parent_of, given, names.values(), root_name=root)
    except WordTreeError:
        return WordTree(ids, parents, [names[id_] for id_ in ids], root_name=root)


_READERS: dict[str, Callable[..., Any]] = {".tree": _read_darknet, ".json": _read_json, ".csv": _read_csv}
_WRITERS: dict[str, Callable[..., Any]] = {".tree": _write_darknet, ".json": _write_json, ".csv": _write_csv}


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
