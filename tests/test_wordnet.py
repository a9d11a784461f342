"""The embedded nouns: complete, WordNet 3.0's own numbering, and what words stand for."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wordtree import WordTreeError, wordnet

ROOT = Path(__file__).parents[1]


def maker():
    """tools/make_wordnet.py as a module."""
    spec = importlib.util.spec_from_file_location("make_wordnet", ROOT / "tools" / "make_wordnet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_whole() -> None:
    """Counted in Princeton's data.noun."""
    nouns = wordnet._nouns()
    assert len(nouns.numbers) == 82_115
    assert len(nouns.senses) == 146_347
    assert int(nouns.senses.max()) == 33
    assert (len(nouns.parents), int(nouns.instance.sum())) == (84_427, 8_577)
    parentless = np.flatnonzero(np.diff(nouns.parent_starts) == 0)
    assert [nouns.id(row) for row in parentless] == ["n00001740"]
    kinds = np.bincount(np.repeat(np.arange(82_115), np.diff(nouns.parent_starts))[~nouns.instance], minlength=82_115)
    assert kinds.max() <= 6


def test_every_synset_name_leads_back_to_its_synset() -> None:
    nouns = wordnet._nouns()
    ids = [nouns.id(row) for row in range(len(nouns.numbers))]
    assert [id_ for id_ in ids if wordnet.candidates(wordnet.synset_name(id_)) != [id_]] == []
    assert len({wordnet.synset_name(id_) for id_ in ids}) == len(ids)


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("dog.n.01", "n02084071"),
        ("crane.n.04", "n03126707"),
        ("crane.n.05", "n02012849"),
        ("bow.n.04", "n02879718"),
        ("mouse.n.04", "n03793489"),
        ("sink.n.01", "n04223580"),
        ("fireplug.n.01", "n03346898"),
        ("physical_entity.n.01", "n00001930"),
    ],
)
def test_synset_names_are_wordnets(name: str, id_: str) -> None:
    assert wordnet.id_of(name) == id_
    assert wordnet.synset_name(id_) == name


def test_a_word_gives_its_senses_in_order() -> None:
    found = wordnet.candidates("dog")
    assert [wordnet.synset_name(id_) for id_ in found] == [
        *("dog.n.01", "frump.n.01", "dog.n.03", "cad.n.01", "frank.n.02", "pawl.n.01", "andiron.n.01")
    ]
    assert wordnet.candidates("hot dog") == wordnet.candidates("Hot_Dog") != []
    assert wordnet.candidates("Earth").count("n09270894") == 1  # Earth and earth are two spellings in one synset
    assert wordnet.candidates("fire hydrant") == ["n03346898"]
    assert wordnet.candidates("") == wordnet.candidates("n99999999") == wordnet.candidates("dog.n.99") == []


def test_what_stands_above_and_below() -> None:
    assert wordnet.hypernyms("n02084071") == ["n02083346", "n01317541"]
    assert wordnet.hypernyms("n00001740") == []
    assert wordnet.hypernyms("n09450163") == []
    assert wordnet.instance_hypernyms("n09450163") == ["n09444100"]  # the Sun is a star
    assert "n09450163" in wordnet.hyponyms("n09444100", instances=True)
    assert "n09450163" not in wordnet.hyponyms("n09444100")
    nouns = wordnet._nouns()
    for row in range(0, len(nouns.numbers), 997):
        id_ = nouns.id(row)
        assert all(id_ in wordnet.hyponyms(above) for above in wordnet.hypernyms(id_))
        assert all(id_ in wordnet.hypernyms(below) for below in wordnet.hyponyms(id_))


def test_words_that_do_not_stand_for_one_synset_are_refused() -> None:
    with pytest.raises(WordTreeError, match=r"'crane' has 5 senses.*crane\.n\.04 = n03126707 \(crane\).*n02012849"):
        wordnet.id_of("crane")
    with pytest.raises(WordTreeError, match=r"no noun 'zebraa' in WordNet 3\.0; did you mean 'zebra'"):
        wordnet.id_of("zebraa")
    with pytest.raises(WordTreeError, match=r"no sense 99 of 'dog' in WordNet 3.0; it has senses 1 to 7"):
        wordnet.id_of("dog.n.99")
    for ask in (wordnet.lemmas, wordnet.name_of, wordnet.synset_name, wordnet.hypernyms, wordnet.hyponyms):
        with pytest.raises(WordTreeError, match="no noun with the id 'n00000001'"):
            ask("n00000001")


def test_the_licence_stands_beside_the_table() -> None:
    text = (wordnet.TABLE.parent / "LICENSE-WordNet-3.0").read_text()
    for part in (
        "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved.",
        "the same appear on ALL copies of the software, database and",
        'THIS SOFTWARE AND DATABASE IS PROVIDED "AS IS"',
        "Princeton University and LICENSEE agrees to preserve same.",
    ):
        assert part in text


def test_the_maker_refuses_other_bytes(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text("  1 This is no WordNet\n")
    run = subprocess.run(
        [sys.executable, ROOT / "tools" / "make_wordnet.py", tmp_path / "data.noun", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0
    assert "is not WordNet 3.0's 489f145e" in run.stderr
    assert not (tmp_path / "out").exists()


def test_the_makers_archive_has_no_clock_and_its_table_holds_what_a_line_says() -> None:
    make = maker()
    data = [
        "  1 a notice",
        "00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | all",
        "00001930 03 n 02 Thing 0 big_thing 0 001 @ 00001740 n 0000 | some",
        "00002000 03 n 01 thing 1 002 @i 00001930 n 0000 @ 00001740 n 0000 | one",
    ]
    index = [
        "entity n 1 1 ~ 1 1 00001740  ",
        "thing n 2 1 @ 2 1 00001930 00002000  ",
        "big_thing n 1 1 @ 1 0 00001930  ",
    ]
    table = make.table(data, index)
    assert table["id_steps"].tolist() == [1740, 190, 70]
    assert table["lemmas"].tobytes() == b"entity\nThing big_thing\nthing"
    assert table["senses"].tolist() == [1, 1, 1, 2]
    assert table["parent_counts"].tolist() == [0, 1, 2]
    assert table["parent_steps"].tolist() == [1, 1, 2]
    assert np.unpackbits(table["instance"])[:3].tolist() == [0, 1, 0]
    assert make.archive(table) == make.archive(table)
    assert b"\x00\x00\x21\x00" in make.archive(table)  # 1 January 1980, the zip format's zero
    assert make.licence(data) == "a notice\n"
