"""Data sets read from the files that they publish. What has no place on the tree is told, never left out in silence.

LVIS names its synsets. Objects365 and Open Images have English names, placed on WordNet by hand in the tables beside
this file. V3Det's tree goes on below WordNet's nouns, and is added to them. iNaturalist has Linnaeus' system, by
itself or joined to WordNet.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from wordtree import LabelMap, WordTreeError, linnaean, read_taxonomy, wordnet
from wordtree.labels import categories_of, read_rows, read_text
from wordtree.taxonomy import WORDNET, Taxonomy, from_networkx

# WordNet 3.0 has none; the nearest above it, as in coco.csv
LVIS_WIDER = {"stop_sign.n.01": "street_sign.n.01"}
NAMELESS = "the descriptions give it no name"
ENTITY = "/m/0bl9f"  # the top of Open Images' hierarchy, which its descriptions do not name


@dataclass(frozen=True)
class Published:
    """A data set as its files have it; `print` tells what was placed, and what was not.

    Attributes:
        labels: the classes that have a place, in order of their numbers; numbers are the files' own.
        taxonomy: what `build_tree(labels, taxonomy=...)` takes for them.
        unplaced: class -> why it has no place.
        notes: class -> what is to be known of its place.
        codes: what the annotations write for a class, where it is no number -> the label.
    """

    labels: LabelMap
    taxonomy: Taxonomy
    unplaced: Mapping[str, str]
    notes: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        total = len(self.labels) + len(self.unplaced)
        lines = [f"{self.labels.name}: {total} classes, {len(self.labels)} placed on {self.taxonomy.name!r}"]
        for what, told in (("not placed", self.unplaced), ("to be known", self.notes)):
            if told:
                lines += [f"{what}: {len(told)}", *(f"  {label}: {why}" for label, why in told.items())]
        return "\n".join(lines)


def lvis(path: str | Path) -> Published:
    """LVIS from an annotation file, such as lvis_v1_val.json, by the `synset` of each category.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: no annotation file, or categories without synsets.
    """
    rows = read_rows(Path(path))
    if all(row.word for row in rows):
        raise WordTreeError(f"{path}: no category has a `synset`; give an annotation file of LVIS")
    found = _Finding("lvis", {row.label: row.number for row in rows})
    for row in rows:
        wider = LVIS_WIDER.get(row.id, row.id)
        if row.word:
            found.unplaced[row.label] = "the file gives it no synset"
        elif ids := wordnet.candidates(wider):
            found.place(row.label, ids[0], f"at {wider}: WordNet 3.0 has no {row.id}" if wider != row.id else "")
        else:
            found.unplaced[row.label] = f"WordNet 3.0 has no {row.id}"
    return found.published()


def objects365(path: str | Path) -> Published:
    """Objects365 from an annotation file of either release, such as zhiyuan_objv2_val.json, by the categories' names.

    The releases number their classes differently, and so do files of one release: classes are told by name.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: no annotation file, or one of another data set.
    """
    return _named("objects365", path, {row.label: row.number for row in read_rows(Path(path))})


def openimages(descriptions: str | Path, hierarchy: str | Path | None = None) -> Published:
    """Open Images' boxable classes from class-descriptions-boxable.csv: codes such as /m/0bt9lr, and names.

    Args:
        descriptions: the .csv of a code and a name a row, with or without a header.
        hierarchy: bbox_labels_600_hierarchy.json. With it the classes stand in Open Images' own hierarchy, their codes
            being ids; without, on WordNet.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: a file with a fault, or one of another data set.
    """
    name_of = _descriptions(Path(descriptions))
    number_of = {name: number for number, name in enumerate(name_of.values())}
    if hierarchy is None:
        return _named("openimages", descriptions, number_of, name_of)
    graph = read_taxonomy(hierarchy)
    if ENTITY in graph:
        graph.nodes[ENTITY]["name"] = "Entity"
    found = _Finding("openimages", number_of, name_of)
    for code, name in name_of.items():
        if code not in graph:
            found.unplaced[name] = f"{code} is not in {hierarchy}"
            continue
        graph.nodes[code]["name"] = name
        found.place(name, code, NAMELESS if name == code else "")
    return found.published(from_networkx(graph, "openimages"))


def v3det(path: str | Path) -> Published:
    """V3Det from v3det_2023_v1_category_tree.json. Its ids are WordNet's where WordNet has the thing.

    The rest stands below: the taxonomy is WordNet with V3Det's own nodes added, so that it merges with other data sets.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: no such tree.
    """
    content = _json(Path(path), ("categoryid2treeid", "id2name"))
    number_of = {str(id_): int(number) for number, id_ in content["categoryid2treeid"].items()}
    if len(number_of) < len(content["categoryid2treeid"]):
        raise WordTreeError(f"{path}: several categories stand for one node of the tree; give each a node of its own")
    names = {id_: str(name) for id_, name in content["id2name"].items()}
    above = _above(Path(path), content)
    fathers = {
        id_: tuple(one for one in ids if one in above or _is_noun(one))
        for id_, ids in above.items()
        if not _is_noun(id_)
    }
    ids = sorted(number_of, key=number_of.__getitem__)
    label_of = _once({id_: names.get(id_, id_) for id_ in ids})
    found = _Finding("v3det", {label_of[id_]: number_of[id_] for id_ in ids})
    for id_ in ids:
        if _is_noun(id_):
            words = {word.casefold() for word in wordnet.lemmas(id_)}
            other = names.get(id_, "").replace("_", " ").casefold() not in words
            found.place(label_of[id_], id_, f"at {id_}, which WordNet calls {wordnet.name_of(id_)}" if other else "")
        elif _reaches_wordnet(id_, fathers):
            found.place(label_of[id_], id_)
        else:
            found.unplaced[label_of[id_]] = f"nothing of WordNet stands above {id_}"
    return found.published(_beyond_wordnet("v3det", fathers, names))


def inaturalist(path: str | Path, on_wordnet: bool = False) -> Published:
    """iNaturalist, or any Linnaean list: categories with ranks in JSON, or a .csv with a column a rank.

    Args:
        path: the file.
        on_wordnet: join Linnaeus' system with WordNet, so that it merges with other data sets: a species that WordNet
            has by its scientific name stands there; any other below the lowest taxon over it that WordNet has a word
            for, as it has "bird" for Aves. Without, the system stands for itself.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: no ranks, or a fault of the list.
    """
    path = Path(path)
    labels = LabelMap.read(path, "inaturalist")
    taxa, _ = linnaean.read(_ranked(path), lambda at, what: None)  # its faults were told by the label map
    fathers = {taxon.id: (taxon.parent,) if taxon.parent else () for taxon in taxa}
    names = {taxon.id: taxon.name for taxon in taxa}
    if not on_wordnet:
        import networkx

        graph: networkx.DiGraph[str] = networkx.DiGraph((one, id_) for id_, above in fathers.items() for one in above)
        graph.add_nodes_from((id_, {"name": name}) for id_, name in names.items())
        return Published(labels, from_networkx(graph, "inaturalist"), {})
    found = _Finding("inaturalist", dict(zip(labels.labels, labels.numbers, strict=True)))
    noun_of = {taxon.id: noun for taxon in taxa if (noun := _noun_of(taxon.key))}
    joined = {
        id_: tuple(noun_of.get(one, one) for one in above) for id_, above in fathers.items() if id_ not in noun_of
    }
    for label, id_ in zip(labels.labels, labels.ids, strict=True):
        if id_ in noun_of:
            found.place(label, noun_of[id_])
        elif _reaches_wordnet(id_, joined):
            found.place(label, id_)
        else:
            found.unplaced[label] = "WordNet has a word for nothing above it"
    return found.published(_beyond_wordnet("inaturalist", joined, names))


def _ranked(path: Path) -> list[tuple[int, dict[str, str]]]:
    """A Linnaean list's rows. Of annotations the categories alone: around them may lie a gigabyte."""
    text = read_text(path)
    if path.suffix == ".json":
        rows: Iterable[Mapping[Any, Any]] = categories_of(path, text) or json.loads(text)
    else:
        table = csv.DictReader(text.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ",")
        rows = [row for row in table if any(row.values())]
    return list(enumerate({key: cell for key, cell in row.items() if isinstance(cell, str)} for row in rows))


def _noun_of(key: linnaean.Key) -> str:
    """WordNet's id of a taxon: of a species by its scientific name, of what is above by the table; or ""."""
    if key.rank != "species":
        return _nouns_of_taxa().get((key.rank, key.name), "")
    found = wordnet.candidates(key.name) if " " in key.name else []
    return found[0] if len(found) == 1 else ""


@cache
def _nouns_of_taxa() -> dict[tuple[str, str], str]:
    with Path(__file__).with_name("linnaean.csv").open(encoding="utf-8", newline="") as file:
        return {(row["rank"], row["taxon"]): row["id"] for row in csv.DictReader(file)}


# ---------------------------------------------------------------------- placing


@dataclass
class _Finding:
    """Classes on their way to a `Published`: label -> number, and what each label comes to."""

    name: str
    number_of: Mapping[str, int | None]
    codes: Mapping[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    unplaced: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def place(self, label: str, id_: str, note: str = "") -> None:
        self.ids[label] = id_
        if note:
            self.notes[label] = note

    def published(self, taxonomy: Taxonomy = WORDNET) -> Published:
        if self.unplaced:
            some = ", ".join(list(self.unplaced)[:12])
            more = f" and {len(self.unplaced) - 12} more" if len(self.unplaced) > 12 else ""
            warnings.warn(
                f"{self.name}: {len(self.unplaced)} of {len(self.number_of)} classes have no place: {some}{more}; "
                "`unplaced` says why",
                stacklevel=4,
            )
        numbers = [self.number_of[label] for label in self.ids]
        whole = tuple(number for number in numbers if number is not None)
        labels = LabelMap(self.name, tuple(self.ids), tuple(self.ids.values()), whole)
        return Published(labels, taxonomy, self.unplaced, self.notes, self.codes)


class _Placing(NamedTuple):
    """A row of a table of names: WordNet's id, the synset, and what is to be known; no id: the note says why."""

    id: str
    synset: str
    note: str


def _named(
    name: str, path: str | Path, number_of: Mapping[str, int | None], codes: Mapping[str, str] | None = None
) -> Published:
    """Place classes by their English names, from this data set's table."""
    table = _table(name)
    found = _Finding(name, number_of, codes or {})
    for label in number_of:
        placing = table.get(_plain(label))
        if placing is None and found.codes.get(label) == label:
            found.unplaced[label] = NAMELESS
        elif placing is None:
            found.unplaced[label] = f"no such name among the {len(table)} that {name} is known to have"
        elif not placing.id:
            found.unplaced[label] = placing.note
        else:
            found.place(label, placing.id, placing.note and f"at {placing.synset}, {placing.note}")
    if not found.ids:
        raise WordTreeError(f"{path}: none of its {len(number_of)} classes is of {name}; give a file of that data set")
    return found.published()


@cache
def _table(name: str) -> dict[str, _Placing]:
    with Path(__file__).with_name(f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return {_plain(row["label"]): _Placing(row["id"], row["synset"], row["note"]) for row in csv.DictReader(file)}


def _plain(label: str) -> str:
    return " ".join(label.casefold().split())


# ---------------------------------------------------------------------- files


def _descriptions(path: Path) -> dict[str, str]:
    """Open Images' codes and names, each name once; a code that has no name stands for itself."""
    if not path.exists():
        raise FileNotFoundError(f"no file {str(path)!r}; give Open Images' class-descriptions-boxable.csv")
    name_of: dict[str, str] = {}
    for line, row in enumerate(csv.reader(read_text(path).splitlines()), start=1):
        if line == 1 and row and not row[0].startswith("/"):
            continue  # a header
        if len(row) != 2 or not row[0].startswith("/"):
            raise WordTreeError(f"{path}, line {line}: {row}; a row is a code, such as /m/0bt9lr, and a name")
        if name_of.setdefault(row[0], row[1].strip() or row[0]) != (row[1].strip() or row[0]):
            raise WordTreeError(f"{path}, line {line}: {row[0]} is named {name_of[row[0]]!r} before; give it one name")
    return _once(name_of)


def _once(name_of: Mapping[str, str]) -> dict[str, str]:
    """Names that stand once: one that several have is followed by its code."""
    times = Counter(name_of.values())
    return {code: f"{name} ({code})" if times[name] > 1 else name for code, name in name_of.items()}


def _above(path: Path, content: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Id -> the ids above it, from either table of V3Det's tree or from both; one id, or a list of them."""
    pairs: dict[tuple[str, str], None] = {}
    for table, upward in (("child2father", True), ("father2child", False)):
        for id_, others in (content.get(table) or {}).items():
            for other in [others] if isinstance(others, str) else others or ():
                pairs[(id_, str(other)) if upward else (str(other), id_)] = None
    if not pairs:
        raise WordTreeError(f"{path}: no child2father and no father2child in it; give V3Det's category tree whole")
    found: dict[str, tuple[str, ...]] = {}
    for id_, one in pairs:
        found[id_] = (*found.get(id_, ()), one)
    return found


def _json(path: Path, keys: Iterable[str]) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"no file {str(path)!r}; give V3Det's v3det_2023_v1_category_tree.json")
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise WordTreeError(f"{path}, line {error.lineno}: not JSON ({error.msg}); give it whole") from None
    missing = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), dict)]
    if missing:
        raise WordTreeError(f"{path}: no {', '.join(missing)} in it; give V3Det's v3det_2023_v1_category_tree.json")
    return dict(content)


# ---------------------------------------------------------------------- beyond WordNet


def _is_noun(id_: str) -> bool:
    return wordnet.ID.fullmatch(id_) is not None and wordnet.candidates(id_) == [id_]


def _reaches_wordnet(id_: str, fathers: Mapping[str, tuple[str, ...]]) -> bool:
    todo, seen = [id_], set()
    while todo:
        at = todo.pop()
        if _is_noun(at):
            return True
        if at not in seen:
            seen.add(at)
            todo += fathers.get(at, ())
    return False


def _beyond_wordnet(name: str, fathers: Mapping[str, tuple[str, ...]], names: Mapping[str, str]) -> Taxonomy:
    """WordNet with nodes added below its own: id -> the ids above it."""
    ids_of: dict[str, list[str]] = {}
    for id_ in fathers:
        ids_of.setdefault(_plain(names.get(id_, id_)), []).append(id_)

    def resolve(text: str) -> str:
        if text in fathers:
            return text
        found = [*wordnet.candidates(text), *ids_of.get(_plain(text), ())]
        return found[0] if len(found) == 1 and found[0] in fathers else wordnet.id_of(text)

    def name_of(id_: str) -> str:
        return names.get(id_, id_) if id_ in fathers else wordnet.name_of(id_)

    return Taxonomy(
        name=name,
        root=WORDNET.root,
        resolve=resolve,
        hypernyms=lambda id_: fathers[id_] if id_ in fathers else wordnet.hypernyms(id_),
        name_of=name_of,
        instance_hypernyms=lambda id_: () if id_ in fathers else wordnet.instance_hypernyms(id_),
        sort_name=lambda id_: name_of(id_) if id_ in fathers else wordnet.synset_name(id_),
    )
