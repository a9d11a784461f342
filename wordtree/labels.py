"""LabelMap: a data set's classes as node ids; reading one, merging several, and what a data set knows.

"Knows" is what makes joint training honest: COCO marks every dog in its images and no penguin, so a penguin that COCO
left unmarked says nothing, and a dog that it left unmarked says a lot.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import wordnet
from .errors import WordTreeError
from .plugins import Offered
from .tree import WordTree

_WORDNET_ID = re.compile(r"n\d{8}|.+\.n\.\d{1,3}")


@dataclass(frozen=True)
class LabelMap:
    """A data set's classes, in its own order, and the node each stands for.

    Attributes:
        name: what `build_tree(name)` calls it.
        labels: the classes as the data set names them, unique.
        ids: one id a label, such as n02084071; two labels may share one.

    Raises:
        WordTreeError: labels and ids that do not pair up, a label given twice, or none.

    Example:
        >>> pets = LabelMap("pets", ("dog", "cat"), ("n02084071", "n02121620"))
        >>> from wordtree import build_tree
        >>> tree = build_tree(pets)
        >>> [tree.names[node] for node in pets.nodes_on(tree)]
        ['dog', 'cat']
    """

    name: str
    labels: tuple[str, ...]
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "ids", tuple(self.ids))
        if len(self.labels) != len(self.ids):
            raise WordTreeError(
                f"label map {self.name!r} has {len(self.labels)} labels and {len(self.ids)} ids; give one id a label"
            )
        if not self.labels:
            raise WordTreeError(f"label map {self.name!r} has no labels; give at least one")
        if len(set(self.labels)) != len(self.labels):
            twice = next(label for at, label in enumerate(self.labels) if label in self.labels[:at])
            raise WordTreeError(
                f"label map {self.name!r} has the label {twice!r} twice; labels are unique, ids need not be"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def _repr_html_(self) -> str:
        from . import show, web

        return web.folds(show.picture_of_labels(self))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(f"LabelMap({self.name!r}, {len(self)} labels)")

    @classmethod
    def read(cls, path: str | Path, name: str | None = None) -> LabelMap:
        """Read a map from a file: .csv or .tsv with the columns `label` and `id`, .yaml or .json with pairs.

        The pairs of a .yaml or .json are `label: id`, at the top or under `labels`.
        An id may be written as a synset name, `crane.n.05`. WordNet ids and synset names are looked up in WordNet 3.0;
        any other text is taken as an id of a taxonomy of your own.

        Args:
            path: the file.
            name: the map's name; the file's own, without suffix, where left out.

        Raises:
            FileNotFoundError: no such file.
            WordTreeError: another suffix, a missing column, a label given twice, a WordNet id that does not exist.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"no label map {str(path)!r}; give a .csv, .tsv, .yaml or .json file")
        if path.suffix not in _READERS:
            raise WordTreeError(f"{path}: no reader for {path.suffix!r}; known: {', '.join(_READERS)}")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise WordTreeError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
        rows = _READERS[path.suffix](path, text)
        line_of: dict[str, str] = {}
        ids = []
        for where, label, id_ in rows:
            if not label or not id_:
                raise WordTreeError(f"{path}, {where}: label {label!r} with id {id_!r}; give both")
            if label in line_of:
                raise WordTreeError(
                    f"{path}, {where}: label {label!r} stands in {line_of[label]} already; labels are unique"
                )
            line_of[label] = where
            try:
                ids.append(wordnet.id_of(id_) if _WORDNET_ID.fullmatch(id_) else id_)
            except WordTreeError as error:
                raise WordTreeError(f"{path}, {where}: {error}") from None
        if not ids:
            raise WordTreeError(f"{path}: no labels; give a row a label, `label,id`")
        return cls(name or path.stem, tuple(line_of), tuple(ids))

    def nodes_on(self, tree: WordTree) -> NDArray[np.int64]:
        """int64 [labels]: the node that each label stands for.

        Raises:
            WordTreeError: labels whose id is not on the tree, all listed.
        """
        node_of = {id_: node for node, id_ in enumerate(tree.ids)}
        nodes, missing = [], []
        for label, id_ in zip(self.labels, self.ids, strict=True):
            node = node_of.get(id_, -1)
            if node < 0:  # an id may be written as a synset name where a map was made by hand
                found = [node_of[one] for one in wordnet.candidates(id_) if one in node_of]
                node = found[0] if len(found) == 1 else -1
            nodes.append(node)
            if node < 0:
                missing.append(f"{label} ({id_})")
        if missing:
            shown = ", ".join(missing[:12]) + (f" and {len(missing) - 12} more" if len(missing) > 12 else "")
            raise WordTreeError(
                f"{len(missing)} of the {len(self)} labels of {self.name!r} are not on this tree of {len(tree)} nodes: "
                f"{shown}; build the tree with this map among its labels"
            )
        return np.array(nodes, dtype=np.int64)

    def known(self, tree: WordTree) -> NDArray[np.bool_]:
        """bool [nodes]: what the data set annotates exhaustively, its labels and all above them.

        Example:
            >>> from wordtree import build_tree
            >>> pets = LabelMap("pets", ("dog", "cat"), ("n02084071", "n02121620"))
            >>> tree = build_tree(pets, ["penguin.n.01"])
            >>> [tree.names[node] for node in np.flatnonzero(~pets.known(tree))]
            ['penguin']
        """
        marks = np.zeros(len(tree), dtype=bool)
        at = self.nodes_on(tree)
        while at.size:  # one level up at a time, all labels at once
            marks[at] = True
            at = tree.parents[at]
            at = at[at >= 0]
        return marks


def merge(maps: Iterable[LabelMap], name: str | None = None) -> LabelMap:
    """One map of all labels of several, in order.

    A label that two maps give to one id stands once; where they mean different things by it, the later one is written
    `map/label`.

    Example:
        >>> zoo = LabelMap("zoo", ("crane", "dog"), ("n02012849", "n02084071"))
        >>> site = LabelMap("site", ("crane", "dog"), ("n03126707", "n02084071"))
        >>> merge([zoo, site]).labels
        ('crane', 'dog', 'site/crane')
    """
    maps = list(maps)
    id_of: dict[str, str] = {}
    for one in maps:
        for label, id_ in zip(one.labels, one.ids, strict=True):
            if id_of.setdefault(label, id_) != id_:
                id_of[f"{one.name}/{label}"] = id_
    return LabelMap(name or "+".join(one.name for one in maps), tuple(id_of), tuple(id_of.values()))


def label_maps() -> Offered[LabelMap]:
    """Every label map that a plug-in offers, by name; an unknown name is a WordTreeError with the nearest one.

    Example:
        >>> label_maps()["voc"].labels[:3]
        ('aeroplane', 'bicycle', 'bird')
    """
    from . import plugins

    return plugins.label_maps()


def to_csv(labels: LabelMap) -> str:
    """The map as `LabelMap.read` reads it from a .csv."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["label", "id"])
    rows.writerows(zip(labels.labels, labels.ids, strict=True))
    return out.getvalue()


def looks_like_labels(path: Path) -> bool:
    """Whether a file is to be read as a label map: its suffix is a map's alone, or it does not begin as a tree does."""
    if path.suffix in (".csv", ".json"):
        head = path.read_text(encoding="utf-8-sig", errors="replace")[:4096]
        if path.suffix == ".csv":
            return "parent" not in head.split("\n", 1)[0]
        return '"format": "wordtree"' not in head
    return path.suffix in _READERS


# ---------------------------------------------------------------------- readers: (where, label, id) a row


def _read_table(path: Path, text: str, delimiter: str) -> list[tuple[str, str, str]]:
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter)
    columns = [column.strip() for column in rows.fieldnames or []]
    rows.fieldnames = columns
    for needed in ("label", "id"):
        if needed not in columns:
            raise WordTreeError(
                f"{path}: no column {needed!r} among {', '.join(columns) or 'none'}; give `label` and `id`"
            )
    return [
        (f"line {rows.line_num}", (row["label"] or "").strip(), (row["id"] or "").strip())
        for row in rows
        if any(isinstance(cell, str) and cell.strip() for cell in row.values())
    ]


def _pairs(path: Path, content: Any) -> list[tuple[str, str, str]]:
    if isinstance(content, Mapping) and isinstance(content.get("labels"), Mapping):
        content = content["labels"]
    if not isinstance(content, Mapping):
        raise WordTreeError(f"{path}: a {type(content).__name__} at the top; give pairs `label: id`")
    return [(f"entry {at}", str(label).strip(), str(id_).strip()) for at, (label, id_) in enumerate(content.items(), 1)]


def _once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are unique: json itself would keep the last of two without a word."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise WordTreeError(f"{path}: label {key!r} stands twice; labels are unique")
        found[key] = value
    return found


def _read_json(path: Path, text: str) -> list[tuple[str, str, str]]:
    try:
        content = json.loads(text, object_pairs_hook=lambda pairs: _once(path, pairs))
    except json.JSONDecodeError as error:
        raise WordTreeError(f"{path}, line {error.lineno}: not JSON ({error.msg}); give pairs `label: id`") from None
    return _pairs(path, content)


def _read_yaml(path: Path, text: str) -> list[tuple[str, str, str]]:
    import yaml

    class Loader(yaml.SafeLoader):
        """SafeLoader that refuses a key given twice; YAML says that it must, PyYAML keeps the last."""

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[str, Any]:
        # A key is the text as written: `no` and `1` are labels, not False and a number.
        return _once(path, [(key.value, loader.construct_object(value, deep=True)) for key, value in node.value])

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        content = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise WordTreeError(f"{path}: not YAML ({error}); give pairs `label: id`") from None
    return _pairs(path, content)


_READERS: dict[str, Callable[[Path, str], list[tuple[str, str, str]]]] = {
    ".csv": lambda path, text: _read_table(path, text, ","),
    ".tsv": lambda path, text: _read_table(path, text, "\t"),
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".json": _read_json,
}
SUFFIXES = tuple(_READERS)
