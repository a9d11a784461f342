"""Data sets read from their own files: small ones in the real formats, with the traps of the real ones."""

import csv
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import wordtree_datasets.published as published
from hypothesis import given
from hypothesis import strategies as st

from wordtree import WordTreeError, build_tree, label_maps, linnaean, wordnet
from wordtree.cli import main

ROOT = Path(__file__).parent.parent
TABLES = ROOT / "plugins" / "wordtree_datasets"


def annotations(folder: Path, categories: list[dict[str, Any]], name: str = "val.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({"images": [{"id": 1}], "annotations": [], "categories": categories}))
    return path


def names(*given: str) -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for number, name in enumerate(given, start=1)]


def quietly(read: Any, *files: Path) -> published.Published:
    """What a reader returns, and that its warning names each class without a place, or is not there."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found: published.Published = read(*files)
    assert len(caught) == bool(found.unplaced)
    assert all(label in str(caught[0].message) for label in list(found.unplaced)[:12])
    return found


def placed(found: published.Published) -> dict[str, str]:
    return {label: wordnet.synset_name(id_) for label, id_ in zip(found.labels.labels, found.labels.ids, strict=True)}


# ---------------------------------------------------------------------- LVIS


def test_lvis_is_read_by_its_synsets_and_not_by_its_names(tmp_path: Path) -> None:
    """Of 1203 categories one is no noun of WordNet 3.0."""
    rows = [
        {"id": 2, "name": "mouse_(computer_equipment)", "synset": "mouse.n.04", "frequency": "f"},
        {"id": 1, "name": "crow", "synset": "crow.n.01", "frequency": "c"},
        {"id": 9, "name": "stop_sign", "synset": "stop_sign.n.01", "frequency": "f"},
    ]
    found = quietly(published.lvis, annotations(tmp_path, rows))
    assert placed(found) == {
        "crow": "crow.n.01",
        "mouse_(computer_equipment)": "mouse.n.04",
        "stop_sign": "street_sign.n.01",
    }
    assert found.labels.numbers == (1, 2, 9)
    assert found.notes == {"stop_sign": "at street_sign.n.01: WordNet 3.0 has no stop_sign.n.01"}
    tree, coco = build_tree("coco", found.labels), label_maps()["coco"]
    assert found.labels.nodes_on(tree)[2] == coco.nodes_on(tree)[coco.labels.index("stop sign")]


def test_what_lvis_names_and_wordnet_has_not_is_told(tmp_path: Path) -> None:
    rows = [{"id": 1, "name": "crow", "synset": "crow.n.01"}, {"id": 2, "name": "smartwatch", "synset": "smart.n.99"}]
    found = quietly(published.lvis, annotations(tmp_path, [*rows, {"id": 3, "name": "thing"}]))
    assert found.unplaced == {
        "smartwatch": "WordNet 3.0 has no smart.n.99",
        "thing": "the file gives it no synset",
    }
    assert str(found).startswith("lvis: 3 classes, 1 placed on 'wordnet'\nnot placed: 2\n  smartwatch: WordNet")
    with pytest.raises(WordTreeError, match="no category has a `synset`; give an annotation file of LVIS"):
        published.lvis(annotations(tmp_path, names("crow", "person")))


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["objects365", "openimages"])
def test_a_table_of_names_is_sound(name: str) -> None:
    with (TABLES / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({published._plain(row["label"]) for row in rows}) == len(rows)
    for row in rows:
        if row["id"]:
            assert wordnet.synset_name(row["id"]) == row["synset"]
            assert row["note"] in ("", "wider", "the first of two")
        else:
            assert row["synset"] == ""
            assert row["note"] in (
                *("two kinds in one class", "WordNet 3.0 has no such thing", "it is not plain which sense"),
            )


@pytest.mark.parametrize(
    ("name", "label", "right"),
    [
        # one word, two data sets, two things
        ("objects365", "Mouse", "mouse.n.04"),
        ("openimages", "Mouse", "mouse.n.01"),
        ("openimages", "Balloon", "balloon.n.02"),
        ("objects365", "Crane", "crane.n.04"),
        # a word that is not what it says
        ("objects365", "French", "french_horn.n.01"),
        ("objects365", "Tennis", "tennis_ball.n.01"),
        ("objects365", "Soccer", "soccer_ball.n.01"),
        ("objects365", "Canned", "can.n.01"),
        ("objects365", "Skiboard", "ski.n.01"),
        ("objects365", "Formula 1 ", "racer.n.02"),
        ("openimages", "Cream", "cream.n.03"),
        ("openimages", "Honeycomb", "honeycomb.n.01"),
        ("openimages", "Hedgehog", "hedgehog.n.02"),
        ("openimages", "Seahorse", "seahorse.n.02"),
        ("openimages", "Tart", "tart.n.02"),
        ("openimages", "Bust", "bust.n.03"),
        ("openimages", "Plant", "plant.n.02"),
        # a word as the data set spells it
        ("objects365", "Bakset", "basket.n.01"),
        ("objects365", "Campel", "camel.n.01"),
        ("objects365", "Moniter/TV", "display.n.06"),
        ("objects365", "Extention Cord", "extension_cord.n.01"),
        ("objects365", "Table Teniis paddle", "table-tennis_racquet.n.01"),
        # the first sense is another
        ("objects365", "Plate", "plate.n.04"),
        ("objects365", "Dolphin", "dolphin.n.02"),
        ("objects365", "Ring", "ring.n.08"),
        ("objects365", "Kite", "kite.n.03"),
        ("objects365", "Radiator", "radiator.n.02"),
        ("openimages", "Man", "man.n.01"),
        ("openimages", "Boy", "male_child.n.01"),
        ("openimages", "Rays and skates", "ray.n.07"),
        ("openimages", "Salt and pepper shakers", "shaker.n.03"),
    ],
)
def test_a_name_that_is_easily_mistaken_is_the_right_synset(name: str, label: str, right: str, tmp_path: Path) -> None:
    if name == "objects365":
        found = published.objects365(annotations(tmp_path, names(label)))
    else:
        (tmp_path / "classes.csv").write_text(f"/m/01,{label}\n")
        found = published.openimages(tmp_path / "classes.csv")
    assert list(placed(found).values()) == [right]


def test_a_class_and_the_class_above_it_stand_so_in_open_images_too(tmp_path: Path) -> None:
    """What Open Images' own hierarchy says of these pairs, the synsets say too."""
    pairs = [("Footwear", "Boot"), ("Fruit", "Common fig"), ("Drink", "Beer"), ("Musical instrument", "Organ")]
    pairs += [("Toy", "Balloon"), ("Fish", "Rays and skates"), ("Plant", "Rose"), ("Bird", "Chicken")]
    pairs += [("Insect", "Moths and butterflies"), ("Baked goods", "Pastry"), ("Furniture", "Infant bed")]
    lines = dict.fromkeys(name for pair in pairs for name in pair)
    (tmp_path / "classes.csv").write_text("".join(f"/m/{at},{name}\n" for at, name in enumerate(lines)))
    labels = quietly(published.openimages, tmp_path / "classes.csv").labels
    tree = build_tree(labels)
    node_of = dict(zip(labels.labels, labels.nodes_on(tree).tolist(), strict=True))
    for upper, lower in pairs:
        assert node_of[upper] in tree.path(node_of[lower]), (upper, lower)


def test_objects365_is_told_by_name_since_its_releases_number_differently(tmp_path: Path) -> None:
    first = names("person", "sneakers", "chair", "hat", "pine apple", "router/modem")
    second = names("Person", "Sneakers", "Chair", "Other Shoes", "Hat", "Pineapple", "Scooter", "Quokka")
    old = quietly(published.objects365, annotations(tmp_path, first))
    new = quietly(published.objects365, annotations(tmp_path, second))
    assert old.labels.numbers == (1, 2, 3, 4, 5)
    assert new.labels.numbers == (1, 2, 3, 4, 5, 6)
    assert placed(old)["hat"] == placed(new)["Hat"] == "hat.n.01"
    assert placed(old)["pine apple"] == placed(new)["Pineapple"] == "pineapple.n.02"
    assert old.unplaced == {"router/modem": "two kinds in one class"}
    assert set(new.unplaced) == {"Scooter", "Quokka"}
    assert "no such name among" in new.unplaced["Quokka"]
    right = quietly(published.objects365, annotations(tmp_path, names("Monitor/TV", "Hot air balloon", "Hami melon")))
    spelled = quietly(published.objects365, annotations(tmp_path, names("Moniter/TV", "Hotair ballon", "Hamimelon")))
    assert right.labels.ids == spelled.labels.ids
    assert list(right.unplaced.values()) == list(spelled.unplaced.values()) == ["WordNet 3.0 has no such thing"]
    with pytest.raises(WordTreeError, match="none of its 2 classes is of objects365"):
        published.objects365(annotations(tmp_path, names("Quokka", "Numbat")))


def test_all_of_objects365_is_in_the_table() -> None:
    with (TABLES / "objects365.csv").open() as file:
        rows = list(csv.DictReader(file))[:365]
    assert (rows[0]["label"], rows[-1]["label"]) == ("Person", "Table Tennis")
    assert sum(bool(row["id"]) for row in rows) == 341
    page = (ROOT / "docs" / "data-sets.md").read_text()
    assert "second release 341 have a place, of Open Images' 601 all but 36" in page
    with (TABLES / "openimages.csv").open() as file:
        assert [bool(row["id"]) for row in csv.DictReader(file)].count(False) == 36


# ---------------------------------------------------------------------- Open Images

CLASSES = "/m/0jbk,Animal\n/m/0fbdv,Shellfish\n/m/0cjq5,Lobster\n/m/03hl4l9,Marine invertebrates\n/m/012n7d,\n"
HIERARCHY = {
    "LabelName": "/m/0bl9f",
    "Subcategory": [
        {
            "LabelName": "/m/0jbk",
            "Subcategory": [
                {"LabelName": "/m/0fbdv", "Subcategory": [{"LabelName": "/m/0cjq5"}]},
                {"LabelName": "/m/03hl4l9", "Subcategory": [{"LabelName": "/m/0cjq5"}]},
            ],
        }
    ],
}


@pytest.mark.parametrize("header", ["", "LabelName,DisplayName\n", "id,name\n"])
def test_open_images_is_read_with_a_header_and_without(header: str, tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text(header + CLASSES)
    found = quietly(published.openimages, tmp_path / "classes.csv")
    assert placed(found) == {"Animal": "animal.n.01", "Lobster": "lobster.n.02"}
    assert found.unplaced["/m/012n7d"] == "the descriptions give it no name"
    assert set(found.unplaced) == {"Shellfish", "Marine invertebrates", "/m/012n7d"}
    assert found.codes["/m/0cjq5"] == "Lobster"


def test_open_images_own_hierarchy_gives_each_class_a_place(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text(CLASSES)
    (tmp_path / "hierarchy.json").write_text(json.dumps(HIERARCHY))
    found = quietly(published.openimages, tmp_path / "classes.csv", tmp_path / "hierarchy.json")
    assert found.unplaced == {"/m/012n7d": f"/m/012n7d is not in {tmp_path / 'hierarchy.json'}"}
    tree = build_tree(found.labels, taxonomy=found.taxonomy)
    assert tree.root_name == "Entity"
    lobster = tree.find("Lobster")
    assert tree.ids[lobster] == "/m/0cjq5"
    assert [tree.names[node] for node in tree.path(lobster)] == ["Animal", "Marine invertebrates", "Lobster"]
    assert tree.report is not None
    (choice,) = tree.report.choices  # the other place is told
    assert (choice.id, choice.others) == ("/m/0cjq5", ("/m/0fbdv",))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/m/01,Cat\n/m/01,Dog\n", "line 2: /m/01 is named 'Cat' before"),
        ("/m/01,Cat\nDog\n", "line 2: .'Dog'.; a row is a code"),
        ("/m/01,Cat,extra\n", "line 1: "),
        ("/m/01,Quokka\n", "none of its 1 classes is of openimages"),
    ],
)
def test_descriptions_with_a_fault_are_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(WordTreeError, match=told):
        published.openimages(tmp_path / "classes.csv")


def test_a_name_that_two_codes_have_is_two_labels(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("/m/01,Cat\n/m/02,Dog\n/m/03,Cat\n")
    found = quietly(published.openimages, tmp_path / "classes.csv")
    assert set(found.unplaced) == {"Cat (/m/01)", "Cat (/m/03)"}
    assert found.codes == {"/m/01": "Cat (/m/01)", "/m/02": "Dog", "/m/03": "Cat (/m/03)"}


# ---------------------------------------------------------------------- V3Det

NODES = """n00001740 entity; n02084071 dog; n03126707 crane; n02012849 crane; q100 shiba inu; q200 smartwatch;
q300 lost thing; q400 wearable"""
ABOVE = """n02084071 n02083346 n01317541; q100 n02084071; q200 q400 n04555897 q900; q400 n03183080; q300 q500;
n03126707 n03665924; n02012849 n02011460"""
V3DET: dict[str, Any] = {
    "categoryid2treeid": {"2": "n02084071", "10": "q200", "1": "q100", "3": "q300", "4": "n03126707", "5": "n02012849"},
    "id2name": dict(node.split(None, 1) for node in NODES.split(";")),
    "child2father": {node.split()[0]: node.split()[1:] for node in ABOVE.split(";")},
    "father2child": {},
    **{f"id2{what}": {} for what in ("name_zh", "desc", "desc_zh", "synonym_list", "center_synonym")},
    "ancestor2descendant": {"n00001740": ["n02084071", "q100"]},
    "descendant2ancestor": {"q100": ["n00001740", "n02084071"]},
}


def test_v3dets_own_nodes_stand_below_wordnets(tmp_path: Path) -> None:
    (tmp_path / "tree.json").write_text(json.dumps(V3DET))
    found = quietly(published.v3det, tmp_path / "tree.json")
    assert found.labels.labels == ("shiba inu", "dog", "crane (n03126707)", "crane (n02012849)", "smartwatch")
    assert found.labels.numbers == (1, 2, 4, 5, 10)  # by number: as text, 10 would come before 2
    assert found.unplaced == {"lost thing": "nothing of WordNet stands above q300"}
    tree = build_tree("coco", found.labels, taxonomy=found.taxonomy)
    dog = tree.find("n02084071")
    assert tree.parents[tree.find("shiba inu")] == dog  # COCO's dog is V3Det's
    assert tree.report is not None
    assert ("q200", "q400", ("n04555897",)) in [(one.id, one.parent, one.others) for one in tree.report.choices]
    assert build_tree(["shiba inu", "poodle", "n02084071"], taxonomy=found.taxonomy).names[0] == "dog"


def test_v3dets_tree_is_read_from_either_of_its_tables(tmp_path: Path) -> None:
    """Its file was not at hand: a father may be written alone or in a list, and the tables say the same twice."""
    (tmp_path / "tree.json").write_text(json.dumps(V3DET))
    wanted = quietly(published.v3det, tmp_path / "tree.json")
    downward: dict[str, list[str]] = {}
    for id_, above in V3DET["child2father"].items():
        for one in above:
            downward.setdefault(one, []).append(id_)
    alone = {id_: above[0] if len(above) == 1 else above for id_, above in V3DET["child2father"].items()}
    for tables in (
        {"child2father": {}, "father2child": downward},
        {"child2father": alone, "father2child": None},
        {"child2father": V3DET["child2father"], "father2child": downward},
    ):
        (tmp_path / "tree.json").write_text(json.dumps({**V3DET, **tables}))
        found = quietly(published.v3det, tmp_path / "tree.json")
        assert (found.labels, found.unplaced) == (wanted.labels, wanted.unplaced)
        one, other = (build_tree(each.labels, taxonomy=each.taxonomy) for each in (found, wanted))
        assert one == other
    (tmp_path / "tree.json").write_text(json.dumps({**V3DET, "child2father": {}}))
    with pytest.raises(WordTreeError, match="no child2father and no father2child"):
        published.v3det(tmp_path / "tree.json")


def test_two_categories_on_one_node_of_v3dets_tree_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tree.json").write_text(json.dumps({**V3DET, "categoryid2treeid": {"1": "q100", "2": "q100"}}))
    with pytest.raises(WordTreeError, match="several categories stand for one node of the tree; give each"):
        published.v3det(tmp_path / "tree.json")


def test_a_circle_in_v3dets_tree_is_no_way_to_wordnet(tmp_path: Path) -> None:
    circle = {**V3DET["child2father"], "q300": ["q500"], "q500": ["q300"]}
    (tmp_path / "tree.json").write_text(json.dumps({**V3DET, "child2father": circle}))
    assert list(quietly(published.v3det, tmp_path / "tree.json").unplaced) == ["lost thing"]


@pytest.mark.parametrize("missing", ["categoryid2treeid", "id2name"])
def test_a_file_that_is_not_v3dets_tree_is_refused(missing: str, tmp_path: Path) -> None:
    (tmp_path / "tree.json").write_text(json.dumps({key: value for key, value in V3DET.items() if key != missing}))
    with pytest.raises(WordTreeError, match=f"no {missing} in it; give V3Det's"):
        published.v3det(tmp_path / "tree.json")
    (tmp_path / "tree.json").write_text("[1, 2")
    with pytest.raises(WordTreeError, match="not JSON"):
        published.v3det(tmp_path / "tree.json")


# ---------------------------------------------------------------------- iNaturalist


@pytest.mark.parametrize("whole", [True, False])
def test_inaturalist_is_a_taxonomy_of_its_own(whole: bool, tmp_path: Path) -> None:
    ranks = ("kingdom", "order", "family", "genus", "name")
    rows = [("Animalia", "Passeriformes", "Prunellidae", "Prunella", "Prunella modularis")]
    rows += [("Plantae", "Lamiales", "Lamiaceae", "Prunella", "Prunella vulgaris")]
    categories = [{"id": at, **dict(zip(ranks, row, strict=True))} for at, row in enumerate(rows, start=5)]
    path = annotations(tmp_path, categories)
    if not whole:
        path.write_text(json.dumps(categories))
    found = quietly(published.inaturalist, path)
    assert found.labels.numbers == (5, 6)
    tree = build_tree(found.labels, taxonomy=found.taxonomy, collapse=False)
    assert len(tree.children(tree.find("Prunella (genus, Plantae)"))) == 1
    assert tree.find("Animalia") in tree.path(tree.find("Prunella modularis"))


SPECIES = """kingdom,class,order,family,genus,species,common_name
Animalia,Aves,Passeriformes,Turdidae,Turdus,Turdus merula,common blackbird
Animalia,Aves,Passeriformes,Paridae,Parus,Parus major,great tit
Animalia,Aves,Passeriformes,Paridae,Parus,Parus cinereus,cinereous tit
Animalia,Aves,Caprimulgiformes,Nyctibiidae,Nyctibius,Nyctibius griseus,common potoo
Plantae,Magnoliopsida,Rosales,Moraceae,Morus,Morus quercina,no such mulberry
Chromista,Phaeophyceae,Laminariales,Alariaceae,Alaria,Alaria esculenta,winged kelp
"""


def test_a_linnaean_list_is_joined_to_wordnet_so_that_it_merges(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(SPECIES)
    with pytest.warns(UserWarning, match="1 of 6 classes have no place: Alaria esculenta"):
        found = published.inaturalist(tmp_path / "list.csv", on_wordnet=True)
    assert found.unplaced == {"Alaria esculenta": "WordNet has a word for nothing above it"}
    assert found.labels.numbers == (0, 1, 2, 3, 4)
    tree = build_tree("coco", "imagenet1k", found.labels, taxonomy=found.taxonomy)
    node_of = dict(zip(found.labels.labels, found.labels.nodes_on(tree).tolist(), strict=True))
    bird = label_maps()["coco"].nodes_on(tree)[14]
    assert tree.names[bird] == "bird"
    for species in ("Turdus merula", "Parus major", "Parus cinereus", "Nyctibius griseus"):
        assert bird in tree.path(node_of[species])
    assert bird not in tree.path(node_of["Morus quercina"])
    assert tree.ids[node_of["Turdus merula"]] == "n01558594"  # WordNet's blackbird.n.02, Turdus merula
    assert [tree.names[node] for node in tree.path(node_of["Parus major"])][-2:] == ["Parus", "great tit"]
    assert tree.find("Parus") in tree.path(node_of["Parus cinereus"])


def test_wordnets_words_for_taxa_are_sound_and_stand_as_the_taxa_do() -> None:
    with (TABLES / "linnaean.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(wordnet.synset_name(row["id"]) == row["synset"] and row["rank"] in linnaean.RANKS for row in rows)
    assert len({(row["rank"], row["taxon"]) for row in rows}) == len(rows) == len({row["id"] for row in rows})
    synset = {row["taxon"]: row["id"] for row in rows}
    lineages = ["Animalia Chordata Mammalia Carnivora Canidae", "Animalia Chordata Aves Passeriformes Corvidae"]
    lineages += ["Animalia Arthropoda Insecta Coleoptera Coccinellidae", "Animalia Chordata Amphibia Anura"]
    lineages += ["Animalia Arthropoda Malacostraca", "Animalia Mollusca Bivalvia", "Plantae Orchidaceae"]
    lineages += ["Animalia Chordata Chondrichthyes Elasmobranchii", "Animalia Arthropoda Arachnida Araneae"]
    lineages += ["Animalia Chordata Aves Columbiformes Columbidae", "Animalia Chordata Reptilia Testudines"]
    tree = build_tree(set(synset.values()), collapse=False)
    for lineage in lineages:
        nodes = [tree.find(synset[taxon]) for taxon in lineage.split()]
        assert set(nodes) <= set(tree.path(nodes[-1])), lineage


# ---------------------------------------------------------------------- the command, and the page


def test_the_command_writes_a_map_and_a_tree_and_tells_what_is_left(tmp_path: Path) -> None:
    annotations(tmp_path, names("Person", "Scooter", "Dog"))
    words = ["objects365", "val.json", "-o", "labels.csv", "--tree", "tree.json"]
    done = subprocess.run(
        [sys.executable, "-m", "wordtree_datasets", *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "not placed: 1\n  Scooter: it is not plain which sense\n" in done.stdout
    assert (tmp_path / "labels.csv").read_text() == "label,id,number\nPerson,n00007846,1\nDog,n02084071,3\n"
    assert (tmp_path / "tree.json").exists()
    words[1] = "gone.json"
    done = subprocess.run(
        [sys.executable, "-m", "wordtree_datasets", *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no label map 'gone.json'")


def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main(["build", "coco", "voc", "imagenet_det", "--report"])
    printed = capsys.readouterr().out.splitlines()
    page = (ROOT / "docs" / "data-sets.md").read_text()
    (shown,) = re.findall(r"\$ wordtree build coco voc imagenet_det --report\n(.*?)```", page, re.DOTALL)
    lines = [line for line in shown.splitlines() if line != "..."]
    assert len(lines) == 9
    assert set(lines) <= set(printed)


@given(st.dictionaries(st.text("ab", max_size=3), st.sampled_from(["dog", "cat", "oak"])))
def test_a_name_that_several_codes_have_is_followed_by_its_code(name_of: dict[str, str]) -> None:
    names = list(name_of.values())
    expected = {code: name if names.count(name) == 1 else f"{name} ({code})" for code, name in name_of.items()}
    assert published._once(name_of) == expected
