"""LabelMap: a data set's classes as node ids; reading and writing one, and what a data set knows.

"Knows" is what makes joint training honest: COCO marks every dog in its images and no penguin, so a penguin that COCO
left unmarked says nothing, and a dog that it left unmarked says a lot.
"""

from __future__ import annotations

import csv
import io
import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import linnaean, wordnet
from .errors import WordTreeError, unknown
from .formats import write_whole
from .plugins import Offered
from .tree import WordTree

if TYPE_CHECKING:
    from .guess import Review

WORDNET_ID = re.compile(r"n\d{8}|.+\.n\.\d{1,3}")


@dataclass(frozen=True)
class LabelMap:
    """A data set's classes, in its own order, and the node each stands for.

    Attributes:
        name: what `build_tree(name)` calls it.
        labels: the classes as the data set names them, unique.
        ids: one id a label, such as n02084071; two labels may share one.
        numbers: the data set's own number of each label, as its annotations write it; 0, 1, 2 ... where left out.
            COCO's own files count from 1 to 90 for 80 labels: `LabelMap.read` of one has those numbers, while `coco`
            counts from 0 to 79, as folders in YOLO's format do.

    Raises:
        WordTreeError: labels, ids and numbers that do not pair up, a label or number given twice, or no labels.

    Example:
        >>> pets = LabelMap("pets", ("dog", "cat"), ("n02084071", "n02121620"))
        >>> from wordtree import build_tree
        >>> tree = build_tree(pets)
        >>> [tree.names[node] for node in pets.nodes_on(tree)]
        ['dog', 'cat']
        >>> pets = LabelMap("pets", ("cat", "dog"), ("n02121620", "n02084071"), numbers=(17, 18))
        >>> node_of = dict(zip(pets.numbers, pets.nodes_on(tree).tolist()))  # an annotation's number -> node
        >>> tree.names[node_of[18]]
        'dog'
    """

    name: str
    labels: tuple[str, ...]
    ids: tuple[str, ...]
    numbers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "ids", tuple(self.ids))
        object.__setattr__(self, "numbers", tuple(self.numbers) or tuple(range(len(self.labels))))
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
        if len(self.numbers) != len(self.labels) or len(set(self.numbers)) != len(self.numbers):
            raise WordTreeError(
                f"label map {self.name!r} has {len(self.labels)} labels and {len(set(self.numbers))} different "
                "numbers; give each label a number of its own, or none of them"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def _repr_html_(self) -> str:
        from . import show, web

        return web.folds(show.picture_of_labels(self))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(f"LabelMap({self.name!r}, {len(self)} labels)")

    @classmethod
    def read(cls, path: str | Path, name: str | None = None, *, missing: str = "error") -> LabelMap:
        """Read a map from a file: a table, pairs, or the categories of an annotation file in COCO's format.

        - .csv, .tsv: the columns `label` and `id`, and `number` where the data set has numbers of its own.
        - .yaml, .json: pairs `label: id`, at the top or under `labels`, and pairs `label: number` under `numbers`.
        - .csv, .tsv with a column a rank, `.json` with iNaturalist's categories: the species, ids of the taxonomy that
          `build_tree(..., taxonomy=path)` makes of the same file.
        - .json with a list of `categories`: its own `synset` where it has one, as LVIS does; else its name, where that
          is a noun of one sense. Labels are in order of the category's id, which is the label's number. Of a large file
          the list alone is decoded.

        An id may be written as a synset name, `crane.n.05`. WordNet ids and synset names are looked up in WordNet 3.0;
        any other text is taken as an id of a taxonomy of your own.

        Args:
            path: the file.
            name: the map's name; the file's own, without suffix, where left out.
            missing: what becomes of labels that WordNet does not have: "error", or "skip", which leaves them out with a
                warning that names them. The others keep their numbers, which are their places in the file where it has
                none.

        Raises:
            FileNotFoundError: no such file.
            WordTreeError: another suffix, a missing column, a label or number given twice, labels that WordNet does not
                have, category names of several senses (all with their senses), a guess that was not reviewed.
        """
        if missing not in ("error", "skip"):
            raise unknown("way with missing labels", missing, ("error", "skip"))
        path = Path(path)
        rows = read_rows(path)
        _refuse_ambiguous(path, rows)
        ids: dict[str, str] = {}
        lost: list[tuple[Row, WordTreeError]] = []
        for row in rows:
            try:
                ids[row.label] = wordnet.id_of(row.id) if row.word or WORDNET_ID.fullmatch(row.id) else row.id
            except WordTreeError as error:
                lost.append((row, error))
        if lost and missing == "error":
            more = f"; and so for {_listed(row.label for row, _ in lost[1:])}" if len(lost) > 1 else ""
            raise WordTreeError(
                f"{path}, {lost[0][0].where}: {lost[0][1]}{more}; missing='skip' leaves out what WordNet does not have"
            )
        if lost:
            left_out = _listed(row.label if row.word else f"{row.label} ({row.id})" for row, _ in lost)
            warnings.warn(f"{path}: WordNet 3.0 does not have {left_out}: left out", stacklevel=2)
        if not ids:
            raise WordTreeError(f"{path}: no labels; give a row a label, `label,id`")
        # a label's place is counted with those left out: annotations that write no number mean the place
        numbers = tuple(at if row.number is None else row.number for at, row in enumerate(rows) if row.label in ids)
        return cls(name or path.stem, tuple(ids), tuple(ids.values()), numbers)

    @staticmethod
    def guess(names: Iterable[str]) -> Review:
        """Propose a synset for each name, with alternatives and a confidence, as a file for a person to review.

        Nothing is decided in silence: where the guess is not sure the file has no id, and `LabelMap.read` refuses it,
        naming the line, until someone has written one. See `wordtree.guess`.

        Example:
            >>> print(LabelMap.guess(["zebra", "qwerty"]))
            2 names: 1 filled in, 1 left for you to decide
        """
        from .guess import guess

        return guess(names)

    def save(self, path: str | Path) -> Path:
        """Write the map as `read` reads it, by suffix: .csv, .tsv, .yaml or .json; returns the path.

        The name is not written: a map is called as its file is. Numbers are, where they are not 0, 1, 2 ...

        Raises:
            WordTreeError: another suffix, or a label or id that the file cannot hold, as one that begins with a space.
        """
        path = Path(path)
        if path.suffix not in _WRITERS:
            raise WordTreeError(f"{path}: no label map format {path.suffix!r}; known: {', '.join(_WRITERS)}")
        text = _WRITERS[path.suffix](self)
        try:
            read = {row.label: row.id for row in _parsed(path, text)}
        except WordTreeError as error:
            raise WordTreeError(
                f"a {path.suffix} file cannot hold {self.name!r}, it would not read back: {error}; take another suffix"
            ) from None
        for label, id_ in zip(self.labels, self.ids, strict=True):
            if read.get(label) != id_:
                raise WordTreeError(
                    f"a {path.suffix} file cannot hold the label {label!r} with the id {id_!r}; take another suffix, "
                    "or other words"
                )
        write_whole(path, text)
        return path

    def nodes_on(self, tree: WordTree) -> NDArray[np.int64]:
        """int64 [labels]: the node that each label stands for.

        Raises:
            WordTreeError: labels whose id is not on the tree, or is a word of several senses, all listed.
        """
        node_of = {id_: node for node, id_ in enumerate(tree.ids)}
        nodes, missing, several = [], [], []
        for label, id_ in zip(self.labels, self.ids, strict=True):
            node = node_of.get(id_, -1)
            if node < 0:  # an id may be written as a synset name where a map was made by hand
                found = wordnet.candidates(id_)
                if len(found) > 1:  # which is meant is not for the tree to decide: it may hold the wrong one alone
                    several.append(f"{label} ({id_}: {', '.join(map(wordnet.synset_name, found))})")
                node = node_of.get(found[0], -1) if len(found) == 1 else -1
            nodes.append(node)
            if node < 0:
                missing.append(f"{label} ({id_})")
        if several:
            raise WordTreeError(
                f"{len(several)} of the {len(self)} labels of {self.name!r} have words of several senses for ids: "
                f"{_listed(several)}; give the id or the synset name that is meant"
            )
        if missing:
            raise WordTreeError(
                f"{len(missing)} of the {len(self)} labels of {self.name!r} are not on this tree of {len(tree)} nodes: "
                f"{_listed(missing)}; build the tree with this map among its labels"
            )
        return np.array(nodes, dtype=np.int64)

    def nearest_on(self, tree: WordTree, taxonomy: Any = "wordnet") -> list[str | None]:
        """The id of each label on a tree that was built of others: its own, or that of the nearest kind above it, or of
        what it is an instance of.

        Args:
            tree: any tree whose ids are the taxonomy's.
            taxonomy: as `build_tree`.

        Returns:
            an id of the tree a label, None where the tree has nothing above it.

        Raises:
            WordTreeError: an id that the taxonomy does not have, or that it may read in several ways.

        Example:
            >>> from wordtree import build_tree
            >>> pets = LabelMap("pets", ("pug", "oak"), ("n02110958", "n12268246"))
            >>> pets.nearest_on(build_tree(["dog.n.01", "cat.n.01"]))
            ['n02084071', None]
        """
        from .taxonomy import find_taxonomy

        kinds, on = find_taxonomy(taxonomy), set(tree.ids)
        found = []
        for id_ in self.ids:
            level = [id_ if id_ in on else kinds.resolve(id_)]
            seen = set(level)
            while level and not on.intersection(level):  # one step up at a time, by every way there is
                level = [up for up in dict.fromkeys(up for one in level for up in kinds.above(one)) if up not in seen]
                seen.update(level)
            found.append(next((one for one in level if one in on), None))
        return found

    def known(self, tree: WordTree) -> NDArray[np.bool_]:
        """bool [nodes]: what the data set annotates exhaustively, its labels and all above them.

        Example:
            >>> from wordtree import build_tree
            >>> pets = LabelMap("pets", ("dog", "cat"), ("n02084071", "n02121620"))
            >>> tree = build_tree(pets, ["penguin.n.01"])
            >>> [tree.names[node] for node in np.flatnonzero(~pets.known(tree))]
            ['penguin']
        """
        return tree.on_paths(self.nodes_on(tree))


def label_maps() -> Offered[LabelMap]:
    """Every label map that a plug-in offers, by name; an unknown name is a WordTreeError with the nearest one.

    Example:
        >>> label_maps()["voc"].labels[:3]
        ('aeroplane', 'bicycle', 'bird')
    """
    from . import plugins

    return plugins.label_maps()


# ---------------------------------------------------------------------- readers


class Row(NamedTuple):
    """One label as a file has it: where it stands, the id as written, its number; `word`: the id is an English noun."""

    where: str
    label: str
    id: str
    number: int | None = None
    word: bool = False


def read_rows(path: Path) -> list[Row]:
    """The labels of a file as it has them, ids not looked up; labels and numbers stand once, all or none have a number.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: another suffix, no UTF-8, or the first faulty row.
    """
    if not path.exists():
        raise FileNotFoundError(f"no label map {str(path)!r}; give a .csv, .tsv, .yaml or .json file")
    if path.suffix not in _READERS:
        raise WordTreeError(f"{path}: no reader for {path.suffix!r}; known: {', '.join(_READERS)}")
    return _parsed(path, read_text(path))


def read_text(path: Path) -> str:
    """A file's text; a WordTreeError where it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WordTreeError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None


def _parsed(path: Path, text: str) -> list[Row]:
    rows = _READERS[path.suffix](path, text)
    label_at: dict[str, str] = {}
    number_at: dict[int, str] = {}
    for row in rows:
        if not row.label or not row.id:
            raise WordTreeError(f"{path}, {row.where}: label {row.label!r} with id {row.id!r}; give both")
        if row.label in label_at:
            raise WordTreeError(
                f"{path}, {row.where}: label {row.label!r} stands in {label_at[row.label]} already; labels are unique"
            )
        label_at[row.label] = row.where
        if row.number is not None and number_at.setdefault(row.number, row.where) != row.where:
            raise WordTreeError(
                f"{path}, {row.where}: number {row.number} stands in {number_at[row.number]} already; "
                "numbers are unique"
            )
    if number_at and len(number_at) < len(rows):
        bare = next(row for row in rows if row.number is None)
        raise WordTreeError(f"{path}, {bare.where}: label {bare.label!r} has no number; give all labels one, or none")
    return rows


def _refuse_ambiguous(path: Path, rows: list[Row]) -> None:
    """Raise where words of several senses stand for ids: which is meant, a person decides."""
    senses = {row.id: wordnet.candidates(row.id) for row in rows if row.word}
    several = [f"{word} ({', '.join(map(wordnet.synset_name, ids))})" for word, ids in senses.items() if len(ids) > 1]
    if several:
        raise WordTreeError(
            f"{path}: names of several senses in WordNet, {len(several)} of {len(rows)}: {_listed(several)}; "
            f"`wordtree labels --guess {path} -o review.csv` proposes one for each; review that file and read it"
        )


def _listed(texts: Iterable[str]) -> str:
    """Up to twelve texts, and how many more."""
    given = list(texts)
    return ", ".join(given[:12]) + (f" and {len(given) - 12} more" if len(given) > 12 else "")


def _whole(path: Path, where: str, number: Any) -> int | None:
    """A label's number as a file has it; None where it has none."""
    if number is None or number == "":
        return None
    try:
        if isinstance(number, (bool, float)):
            raise ValueError
        return int(number)
    except (ValueError, TypeError):
        raise WordTreeError(f"{path}, {where}: number {number!r}; give a whole number") from None


def _read_table(path: Path, text: str, delimiter: str) -> list[Row]:
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        columns = [column.strip() for column in table.fieldnames or []]
        table.fieldnames = columns
        lines = [(table.line_num, cells) for cells in table]
    except csv.Error as error:
        at = max(1, table.line_num)
        raise WordTreeError(f"{path}, line {at}: not a table ({error}); quotes stand around a cell, in pairs") from None
    for at, cells in lines:
        if more := [cell for cell in cells.pop(None, []) if cell.strip()]:  # where DictReader puts what is over
            raise WordTreeError(
                f"{path}, line {at}: {more[0]!r} stands beyond the columns {', '.join(columns)}; give a cell each, "
                "with quotes around one that has a separator in it"
            )
    if "id" not in columns and linnaean.is_list(columns):
        return _linnaean(path, "line", [(at, cells) for at, cells in lines if any(cells.values())])
    for needed in ("label", "id"):
        if needed not in columns:
            raise WordTreeError(
                f"{path}: no column {needed!r} among {', '.join(columns) or 'none'}; give `label` and `id`"
            )
    rows, guessed = [], "confidence" in columns  # what wordtree.guess wrote: every id is of WordNet
    for at, cells in lines:
        if any((cell or "").strip() for cell in cells.values()):
            label, id_, number = ((cells.get(column) or "").strip() for column in ("label", "id", "number"))
            rows.append(Row(f"line {at}", label, id_, _whole(path, f"line {at}", number), word=guessed))
    undecided = [f"{row.where} ({row.label})" for row in rows if not row.id]
    if undecided and guessed:
        raise WordTreeError(
            f"{path}: {len(undecided)} of {len(rows)} guesses are not reviewed, their `id` is empty: "
            f"{_listed(undecided)}; write the right synset there: the `guess`, one of the `alternatives`, or another"
        )
    return rows


def _pairs(path: Path, content: Any) -> list[Row]:
    numbers: Any = {}
    if isinstance(content, Mapping) and isinstance(content.get("labels"), Mapping):
        content, numbers = content["labels"], content.get("numbers") or {}
    if not isinstance(content, Mapping) or not isinstance(numbers, Mapping):
        wrong = content if not isinstance(content, Mapping) else numbers
        raise WordTreeError(f"{path}: a {type(wrong).__name__} at the top; give pairs `label: id`")
    for label in numbers:
        if label not in content:
            raise unknown(f"label under `labels` of {path} for the number of", str(label), map(str, content))
    for at, (label, id_) in enumerate(content.items(), 1):
        if isinstance(id_, (bool, list, Mapping)):
            raise WordTreeError(f"{path}, entry {at}: label {label!r} has the id {id_!r}; give text or a number")
    return [
        Row(
            f"entry {at}",
            str(label).strip(),
            "" if id_ is None else str(id_).strip(),
            _whole(path, f"entry {at}", numbers.get(label)),
        )
        for at, (label, id_) in enumerate(content.items(), 1)
    ]


def _once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are unique: json itself would keep the last of two without a word."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise WordTreeError(f"{path}: label {key!r} stands twice; labels are unique")
        found[key] = value
    return found


def categories_of(path: Path, text: str) -> list[Any] | None:
    """The `categories` of an annotation file's text; None where it has none.

    Such a file may be half a gigabyte of boxes: the list is found in the text and decoded alone.
    """
    start = re.search(r'"categories"\s*:\s*(?=\[)', text)
    try:
        return json.JSONDecoder().raw_decode(text, start.end())[0] if start else None
    except json.JSONDecodeError as error:
        raise WordTreeError(f"{path}, line {error.lineno}: not JSON ({error.msg}); give it whole") from None


def _read_json(path: Path, text: str) -> list[Row]:
    if (categories := categories_of(path, text)) is not None:
        return _categories(path, categories)
    try:
        content = json.loads(text, object_pairs_hook=lambda pairs: _once(path, pairs))
    except json.JSONDecodeError as error:
        raise WordTreeError(f"{path}, line {error.lineno}: not JSON ({error.msg}); give pairs `label: id`") from None
    if isinstance(content, list) and any(isinstance(one, Mapping) for one in content):
        return _categories(path, content)
    return _pairs(path, content)


def _categories(path: Path, categories: list[Any]) -> list[Row]:
    """COCO's, LVIS's and iNaturalist's categories, by their id."""
    if any(isinstance(one, Mapping) and linnaean.is_list(one) for one in categories):
        return _linnaean(path, "category", [(at, _cells(path, at, one)) for at, one in enumerate(categories, 1)])
    rows = []
    for at, category in enumerate(categories, 1):
        if not isinstance(category, Mapping) or category.get("id") is None or not category.get("name"):
            raise WordTreeError(f"{path}, category {at}: {category!r}; a category has an `id` and a `name`")
        number = _whole(path, f"category {at}", category["id"])
        label = str(category["name"]).strip()
        synset = str(category.get("synset") or "").strip()
        rows.append(Row(f"category {number} ({label})", label, synset or label, number, word=not synset))
    return sorted(rows, key=lambda row: row.number or 0)


def _cells(path: Path, at: int, category: Any) -> dict[str, str]:
    """iNaturalist's category as a row of a Linnaean list; its own number under `number`."""
    if not isinstance(category, Mapping) or category.get("id") is None:
        raise WordTreeError(f"{path}, category {at}: {category!r}; a category has an `id`, ranks and a `name`")
    cells = {key: str(cell) for key, cell in category.items() if isinstance(cell, str)}
    return {**cells, "number": str(category["id"])}


def _linnaean(path: Path, place: str, rows: list[tuple[int, dict[str, str]]]) -> list[Row]:
    """The lowest taxon of each row of a Linnaean list, under its scientific name; in order of their numbers."""

    def fault(at: int, what: str) -> None:
        raise WordTreeError(f"{path}, {place} {at}: {what}")

    _, lowest = linnaean.read(
        [(at, {key: cell or "" for key, cell in cells.items()}) for at, cells in rows], fault, place
    )
    found = [
        Row(f"{place} {at}", cells.get("label") or id_, id_, _whole(path, f"{place} {at}", cells.get("number")))
        for (at, cells), id_ in zip(rows, lowest, strict=True)
    ]
    return sorted(found, key=lambda row: row.number or 0)


def _read_yaml(path: Path, text: str) -> list[Row]:
    import yaml

    class Loader(yaml.SafeLoader):
        """SafeLoader that refuses a key given twice; YAML says that it must, PyYAML keeps the last."""

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[str, Any]:
        # A key is the text as written, and so is an id: `no` and `1` are labels, not False and a number.
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                raise WordTreeError(f"{path}, line {line}: a list or a mapping as a key; give pairs `label: id`")
        return _once(path, [(key.value, _written(loader, value)) for key, value in node.value])

    def _written(loader: yaml.SafeLoader, value: yaml.Node) -> Any:
        plain = isinstance(value, yaml.ScalarNode) and value.tag != "tag:yaml.org,2002:null"
        return value.value if plain else loader.construct_object(value, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        content = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise WordTreeError(f"{path}: not YAML ({error}); give pairs `label: id`") from None
    return _pairs(path, content)


_READERS: dict[str, Callable[[Path, str], list[Row]]] = {
    ".csv": lambda path, text: _read_table(path, text, ","),
    ".tsv": lambda path, text: _read_table(path, text, "\t"),
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".json": _read_json,
}
SUFFIXES = tuple(_READERS)


# ---------------------------------------------------------------------- writers


def to_csv(labels: LabelMap, delimiter: str = ",") -> str:
    """The map as `LabelMap.read` reads it from a .csv."""
    columns: dict[str, Iterable[str | int]] = {"label": labels.labels, "id": labels.ids, **_own_numbers(labels)}
    out = io.StringIO()
    rows = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    rows.writerow(columns)
    rows.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()


def _own_numbers(labels: LabelMap) -> dict[str, tuple[int, ...]]:
    """The column of numbers; nothing where they are 0, 1, 2 ..."""
    return {} if labels.numbers == tuple(range(len(labels))) else {"number": labels.numbers}


def _content(labels: LabelMap) -> dict[str, dict[str, Any]]:
    """What a .json or .yaml holds."""
    content: dict[str, dict[str, Any]] = {"labels": dict(zip(labels.labels, labels.ids, strict=True))}
    for numbers in _own_numbers(labels).values():
        content["numbers"] = dict(zip(labels.labels, numbers, strict=True))
    return content


def _to_yaml(labels: LabelMap) -> str:
    import yaml

    text: str = yaml.safe_dump(_content(labels), allow_unicode=True, sort_keys=False)
    return text


_WRITERS: dict[str, Callable[[LabelMap], str]] = {
    ".csv": to_csv,
    ".tsv": lambda labels: to_csv(labels, "\t"),
    ".yaml": _to_yaml,
    ".yml": _to_yaml,
    ".json": lambda labels: json.dumps(_content(labels), ensure_ascii=False, indent=1) + "\n",
}
