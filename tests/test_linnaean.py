"""Linnaean lists: a row a species, a column a rank; the traps of names that people gave without asking each other."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wordtree import LabelMap, WordTree, WordTreeError, build_tree, linnaean, read_taxonomy
from wordtree.check import check

HEAD = "kingdom,phylum,class,order,family,genus,species,common_name\n"
LIST = f"""{HEAD}Animalia,Chordata,Aves,Suliformes,Sulidae,Morus,Morus bassanus,northern gannet
Animalia,Chordata,Aves,Passeriformes,Corvidae,Corvus,Corvus corax,common raven
Animalia,Chordata,Aves,Passeriformes,Corvidae,Corvus,Corvus corone,carrion crow
Plantae,Tracheophyta,Magnoliopsida,Rosales,Moraceae,Morus,Morus nigra,black mulberry
Plantae,Tracheophyta,Magnoliopsida,Rosales,Moraceae,Ficus,Ficus carica,
"""


def written(folder: Path, text: str, name: str = "list.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_list_is_a_taxonomy_and_its_own_label_map(tmp_path: Path) -> None:
    path = written(tmp_path, LIST)
    labels = LabelMap.read(path)
    assert labels.labels == ("Morus bassanus", "Corvus corax", "Corvus corone", "Morus nigra", "Ficus carica")
    tree = build_tree(labels, taxonomy=path)
    assert {tree.ids[leaf] for leaf in tree.leaves} == set(labels.ids)
    assert tree.report is not None
    assert tree.report.attached == ()
    raven = tree.find("common raven")
    assert [tree.names[node] for node in tree.path(raven)] == ["Aves", "Corvus", "common raven"]
    assert tree.ids[tree.path(raven)[-2]] == "Corvus"
    whole = WordTree.load(path)
    assert [whole.ids[node] for node in whole.path(whole.find("Ficus carica"))] == [
        *("Plantae", "Tracheophyta", "Magnoliopsida", "Rosales", "Moraceae", "Ficus", "Ficus carica"),
    ]


def test_a_map_without_its_taxonomy_is_refused_with_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(
        WordTreeError, match=r"'Morus bassanus' of 'list': no noun .*; or, if the map's ids are of another t"
    ):
        build_tree(LabelMap.read(written(tmp_path, LIST)))


def test_a_name_in_two_kingdoms_is_two_taxa(tmp_path: Path) -> None:
    """The gannets and the mulberries are both Morus, and both names are right."""
    graph = read_taxonomy(written(tmp_path, LIST))
    assert list(graph.predecessors("Morus nigra")) == ["Morus (genus, Plantae)"]
    assert list(graph.predecessors("Morus bassanus")) == ["Morus (genus, Animalia)"]
    assert "Morus" not in graph
    with pytest.raises(WordTreeError, match=r"'Morus' names 2 nodes .* Morus \(genus, Animalia\), Morus \(genus, Pl"):
        build_tree(["Morus"], taxonomy=tmp_path / "list.csv")


def test_a_name_at_two_ranks_is_two_taxa(tmp_path: Path) -> None:
    path = written(
        tmp_path, "family,genus,subgenus,species\nCanidae,Canis,Canis,Canis lupus\nCanidae,Canis,,Canis aureus\n"
    )
    graph = read_taxonomy(path)
    assert set(graph.predecessors("Canis lupus")) == {"Canis (subgenus)"}
    assert set(graph.predecessors("Canis aureus")) == {"Canis (genus)"}


@pytest.mark.parametrize(
    ("columns", "row", "species"),
    [
        ("genus,species", "Lynx,lynx", "Lynx lynx"),
        ("genus,species", "Lynx,Lynx lynx", "Lynx lynx"),
        ("Genus,Species", "Lynx, Lynx  lynx ", "Lynx lynx"),
        ("family,genus,specificEpithet", "Felidae,Lynx,lynx", "Lynx lynx"),  # Darwin Core
        ("species,genus", "lynx,Lynx", "Lynx lynx"),  # the ranks' order is known, whatever the columns'
        ("genus,species,subspecies", "Lynx,lynx,carpathicus", "Lynx lynx carpathicus"),
        ("family,genus,species", "Felidae,Lynx,", "Lynx"),  # known to its genus
    ],
)
def test_a_species_is_written_in_many_ways(columns: str, row: str, species: str, tmp_path: Path) -> None:
    assert LabelMap.read(written(tmp_path, f"{columns}\n{row}\n")).labels == (species,)


def test_an_epithet_alone_is_no_name(tmp_path: Path) -> None:
    """Half of all genera have a `vulgaris`."""
    path = written(tmp_path, "family,genus,species\nLamiaceae,Thymus,vulgaris\nOleaceae,Syringa,vulgaris\n")
    assert LabelMap.read(path).ids == ("Thymus vulgaris", "Syringa vulgaris")
    assert build_tree(LabelMap.read(path), taxonomy=path).ids == ("Syringa vulgaris", "Thymus vulgaris")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("Animalia,Felidae,Lynx,lynx\nAnimalia,Felidae,Lynx,rufus\nAnimalia,Canidae,Lynx,pardinus\n", (4, "family")),
        ("Animalia,Felidae,Lynx,lynx\nAnimalia,,Lynx,rufus\n", (3, "kingdom 'Animalia' here and under family")),
        ("Animalia,Felidae,Lynx,lynx\n,Felidae,Lynx,rufus\n", (3, "a kingdom stands here or on line 2, not on both")),
        ("Animalia,Felidae,Lynx,lynx\n,,,\n , , ,\n", (4, "no rank is filled in")),
    ],
)
def test_a_fault_is_told_with_its_line(rows: str, told: tuple[int, str], tmp_path: Path) -> None:
    path = written(tmp_path, f"kingdom,family,genus,species\n{rows}")
    faults, _ = check(path)
    assert any(fault.line == told[0] and told[1] in fault.what for fault in faults)
    for reader in (LabelMap.read, read_taxonomy):
        with pytest.raises(WordTreeError, match=f"line {told[0]}: "):
            reader(path)


def test_a_species_given_twice_is_no_label_map_but_a_taxonomy(tmp_path: Path) -> None:
    """A list of sightings has a species as often as it was seen."""
    path = written(tmp_path, "genus,species\nLynx,lynx\nLynx,rufus\nLynx,lynx\n")
    assert set(read_taxonomy(path)) == {"Lynx", "Lynx lynx", "Lynx rufus"}
    with pytest.raises(WordTreeError, match="line 4: label 'Lynx lynx' stands in line 2 already"):
        LabelMap.read(path)


KEYS = ("id", "name", "common_name", "supercategory", "kingdom", "phylum", "class", "order", "family", "genus")
RANKS = {
    7: "Morus nigra,black mulberry,Plants,Plantae,Tracheophyta,Magnoliopsida,Rosales,Moraceae,Morus",
    3: "Morus bassanus,Northern Gannet,Birds,Animalia,Chordata,Aves,Suliformes,Sulidae,Morus",
}
CATEGORIES = [
    {**dict(zip(KEYS, (number, *cells.split(",")), strict=True)), "specific_epithet": cells.split(",")[0].split()[1]}
    for number, cells in RANKS.items()
]


@pytest.mark.parametrize("whole", [True, False])
def test_inaturalists_categories_are_a_taxonomy_and_a_label_map(whole: bool, tmp_path: Path) -> None:
    content = {"images": [], "categories": CATEGORIES, "annotations": []} if whole else CATEGORIES
    path = written(tmp_path, json.dumps(content), "categories.json")
    labels = LabelMap.read(path, "inat")
    assert (labels.labels, labels.numbers) == (("Morus bassanus", "Morus nigra"), (3, 7))
    tree = build_tree(labels, taxonomy=path, collapse=False)
    names = [tree.names[node] for node in tree.path(tree.find("Morus nigra"))]
    assert names[:3] == ["Plantae", "Tracheophyta", "Magnoliopsida"]  # not its supercategory, Plants
    assert names[-1] == "black mulberry"
    assert "Plants" not in tree.names
    assert check(path)[0] == []


def test_a_category_among_inaturalists_that_has_no_ranks_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps([*CATEGORIES, {"name": "lichen"}]), "categories.json")
    with pytest.raises(WordTreeError, match="a mapping of name; an entry is a mapping with ranks"):
        read_taxonomy(path)
    with pytest.raises(WordTreeError, match=r"category 3: .*lichen"):
        LabelMap.read(path)


WORDS = st.sampled_from(["Alba", "Rosa", "Felis", "Morus", "Ficus"])


@given(st.lists(st.tuples(st.sampled_from(["Animalia", "Plantae"]), WORDS, WORDS, WORDS), min_size=1, max_size=12))
def test_every_row_that_is_read_comes_back_from_its_path(rows: list[tuple[str, ...]]) -> None:
    """The slow way: a row's names, from the top, are the names on the path of its lowest taxon."""
    columns = ("kingdom", "order", "family", "genus")
    faults: list[str] = []
    cells = [(at, dict(zip(columns, row, strict=True))) for at, row in enumerate(rows)]
    taxa, lowest = linnaean.read(cells, lambda line, what: faults.append(what))
    places = {(row[0], rank): row[: 1 + rank] for row in rows for rank in range(1, 4)}
    assert len({taxon.id for taxon in taxa}) == len(taxa)
    if faults:
        clash = {(row[0], rank, row[rank], row[rank - 1]) for row in rows for rank in range(1, 4)}
        assert len(clash) > len({one[:3] for one in clash})  # some name has two parents
        return
    assert places
    by_id = {taxon.id: taxon for taxon in taxa}
    for row, id_ in zip(rows, lowest, strict=True):
        path: list[str] = []
        at: str | None = id_
        while at is not None:
            path.append(by_id[at].name)
            at = by_id[at].parent
        assert tuple(reversed(path)) == row
