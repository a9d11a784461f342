"""Linnaean lists: a row a species and a column a rank, as museums, GBIF and iNaturalist write them.

Zoologists and botanists name things without asking each other: `Morus` is a gannet and a mulberry. So a taxon is a
name at a rank in a kingdom. Within a kingdom a name has one place, and a list that gives it two has a fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

RANKS = (
    *("domain", "kingdom", "subkingdom", "phylum", "subphylum", "superclass", "class", "subclass", "infraclass"),
    *("superorder", "order", "suborder", "infraorder", "superfamily", "family", "subfamily", "tribe", "subtribe"),
    *("genus", "subgenus", "species", "subspecies"),
)
_COMMON = ("commonname", "vernacularname")
_EPITHET = "specificepithet"


class Key(NamedTuple):
    kingdom: str
    rank: str
    name: str


class Taxon(NamedTuple):
    """A kind of a list: its first line, its id, what people call it, the id above it; its kingdom, rank and name."""

    line: int
    id: str
    name: str
    parent: str | None
    key: Key


def is_list(columns: Iterable[str]) -> bool:
    """Whether columns, or the keys of a record, are those of a Linnaean list: two ranks or more.

    Example:
        >>> is_list(["Genus", "species", "common_name"]), is_list(["id", "parent", "order"])
        (True, False)
    """
    return len({_plain(column) for column in columns} & set(RANKS)) > 1


def read(
    rows: Iterable[tuple[int, Mapping[str, str]]], fault: Callable[[int, str], object], place: str = "line"
) -> tuple[list[Taxon], list[str]]:
    """The taxa of a list, those above before those below, and the id of the lowest one of each row.

    An id is the taxon's name; where two taxa share one, `Morus (genus, Animalia)`. A cell may be empty. A species may
    be written whole or without its genus. Its common name, where there is one, is what people read.

    Args:
        rows: each row's line, and its cells by column: ranks, `common_name` or `vernacularName`, `specificEpithet`.
        fault: called with the line and the words for whatever is wrong.
        place: what the rows are counted by, "line" or "category".

    Example:
        >>> rows = [(2, {"family": "Felidae", "genus": "Lynx", "species": "lynx", "common_name": "Eurasian lynx"})]
        >>> for taxon in read(rows, print)[0]:
        ...     print(taxon.id, "|", taxon.name, "|", taxon.parent)
        Felidae | Felidae | None
        Lynx | Lynx | Felidae
        Lynx lynx | Eurasian lynx | Lynx
    """
    above: dict[Key, tuple[Key | None, int]] = {}
    common: dict[Key, str] = {}
    lowest: list[Key] = []
    of_kingdom: dict[bool, int] = {}  # whether a row names its kingdom -> the first line that does, or does not
    for line, cells in rows:
        given = {_plain(column): " ".join(cell.split()) for column, cell in cells.items()}
        lineage = _lineage(given)
        if not lineage:
            fault(line, "no rank is filled in; give at least the species, or take the row out")
            continue
        other = of_kingdom.get(not lineage[-1].kingdom)
        if of_kingdom.setdefault(bool(lineage[-1].kingdom), line) == line and other is not None:
            fault(line, f"a kingdom stands here or on {place} {other}, not on both; give all rows one, or none")
        for upper, key in zip([None, *lineage], lineage, strict=False):
            before, first = above.setdefault(key, (upper, line))
            if before != upper:
                where = f"under {_told(upper)} here and under {_told(before)} on {place} {first}"
                fault(line, f"{_told(key)} stands {where}; give it one place")
        lowest.append(lineage[-1])
        name = next((given[column] for column in _COMMON if given.get(column)), "")
        if name and common.setdefault(lineage[-1], name) != name:
            fault(line, f"{_told(lineage[-1])} is {name!r} here and {common[lineage[-1]]!r} before; give one name")
    times = Counter(key.name for key in above)

    def id_of(key: Key) -> str:
        return key.name if times[key.name] == 1 else f"{key.name} ({', '.join(filter(None, (key.rank, key.kingdom)))})"

    taxa = [
        Taxon(line, id_of(key), common.get(key, key.name), None if upper is None else id_of(upper), key)
        for key, (upper, line) in above.items()
    ]
    return taxa, [id_of(key) for key in lowest]


def _lineage(given: Mapping[str, str]) -> list[Key]:
    """A row's taxa from the top down."""
    names = {rank: given[rank] for rank in RANKS if given.get(rank)}
    if "species" not in names and (whole := given.get("name", "")) not in ("", *names.values()):
        names["species"] = whole  # iNaturalist's categories
    elif "species" not in names and given.get(_EPITHET):
        names["species"] = given[_EPITHET]
    for upper, rank in (("genus", "species"), ("species", "subspecies")):
        if rank in names and upper in names and " " not in names[rank]:
            names[rank] = f"{names[upper]} {names[rank]}"
    kingdom = names.get("kingdom", "")
    return [Key(kingdom, rank, names[rank]) for rank in RANKS if rank in names]


def _plain(column: str) -> str:
    return column.strip().lower().replace("_", "").replace(" ", "")


def _told(key: Key | None) -> str:
    return f"{key.rank} {key.name!r}" if key else "nothing"
