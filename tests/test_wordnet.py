"""The embedded nouns: complete, WordNet 3.0's own numbering, and what words stand for."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import princeton
import pytest

from wordtree import WordTree, WordTreeError, build_tree, wordnet
from wordtree.taxonomy import wordnet_from

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


DATA = """\
  1 a notice
00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | all
00001930 03 n 02 Thing 0 big_thing 0 001 @ 00001740 n 0000 | some | of it
00002000 03 n 01 thing 1 003 @i 00001930 n 0000 @ 00001740 n 0000 + 00001740 v 0101 | one
"""
INDEX = """\
  1 a notice
big_thing n 1 1 @ 1 0 00001930
entity n 1 1 ~ 1 1 00001740
thing n 2 1 @ 2 1 00001930 00002000
"""


def test_the_makers_archive_has_no_clock_and_its_table_holds_what_a_line_says() -> None:
    make = maker()
    table = make.table(wordnet.read(DATA, INDEX))
    assert table["id_steps"].tolist() == [1740, 190, 70]
    assert table["lemmas"].tobytes() == b"entity\nThing big_thing\nthing"
    assert table["senses"].tolist() == [1, 1, 1, 2]
    assert table["parent_counts"].tolist() == [0, 1, 2]
    assert table["parent_steps"].tolist() == [1, 1, 2]
    assert np.unpackbits(table["instance"])[:3].tolist() == [0, 1, 0]
    assert make.archive(table) == make.archive(table)
    assert b"\x00\x00\x21\x00" in make.archive(table)  # 1 January 1980, the zip format's zero
    assert make.licence(DATA) == "a notice\n"


# ---------------------------------------------------------------------- a copy of one's own


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of nltk's kind, corpora/wordnet, complete: 82,115 nouns at their true places."""
    folder = princeton.write(tmp_path_factory.mktemp("nltk_data") / "corpora" / "wordnet")
    princeton.write_rest(folder)
    return folder


def zipped(folder: Path, path: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name in ("data.noun", "index.noun"):
            file.write(folder / name, f"{inside}{name}")
    return path


def same_table(one: wordnet.Nouns, other: wordnet.Nouns) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))


def test_princetons_files_give_the_embedded_table(copy: Path) -> None:
    data, index = (copy / "data.noun").read_text(), (copy / "index.noun").read_text()
    for number in wordnet._nouns().numbers[::997]:
        assert data[number:].startswith(f"{number:08d} ")  # nltk's reader looks there
    read = wordnet.read(data, index)
    assert same_table(read, wordnet._nouns())
    make = maker()
    assert make.archive(make.table(read)) == wordnet.TABLE.read_bytes()


def test_where_a_line_stands_and_how_it_ends_does_not_matter(copy: Path) -> None:
    """Debian's files are rebuilt, others have Windows' line ends: an id is what a line says, not its place."""
    data, index = (copy / "data.noun").read_text(), (copy / "index.noun").read_text()
    head, synsets = data[:1740], data[1740:].splitlines()
    moved = head + "\r\n".join([*(line.rstrip(".") for line in reversed(synsets)), ""])
    assert same_table(wordnet.read(moved, index.replace("\n", "\r\n")), wordnet._nouns())


@pytest.fixture(scope="module")
def forms(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The forms in which people have WordNet 3.0."""
    home = tmp_path_factory.mktemp("forms")
    made = {"folder": copy, "data.noun": copy / "data.noun", "nltk_data": copy.parents[1]}
    for name, below in (("princeton", "WordNet-3.0/dict"), ("crlf", "")):
        (home / name / below).mkdir(parents=True)
        for file in ("data.noun", "index.noun"):
            text = (copy / file).read_bytes()
            crlf = text.replace(b"\n", b"\r\n")
            (home / name / below / file).write_bytes(crlf if name == "crlf" else text)
    made |= {"princeton": home / "princeton" / "WordNet-3.0", "crlf": home / "crlf"}
    made["zip"] = zipped(copy, home / "any.zip")
    (home / "packed" / "corpora").mkdir(parents=True)
    zipped(copy, home / "packed" / "corpora" / "wordnet.zip", "wordnet/")
    made["nltk_data zip"] = home / "packed"
    return made


@pytest.mark.parametrize("form", ["folder", "data.noun", "nltk_data", "princeton", "crlf", "zip", "nltk_data zip"])
def test_every_form_of_a_copy_gives_the_same_tree(form: str, forms: dict[str, Path]) -> None:
    kinds = wordnet_from(forms[form])
    assert (kinds.name, kinds.root) == ("wordnet", wordnet.PHYSICAL_ENTITY)
    for rules in ("paper", "darknet"):
        tree = build_tree("coco", "imagenet1k", ["dog.n.01", "domestic dog"], taxonomy=kinds, rules=rules)
        assert tree == build_tree("coco", "imagenet1k", rules=rules)
        assert tree.names == build_tree("coco", "imagenet1k", rules=rules).names


def test_a_path_is_a_taxonomy(forms: dict[str, Path]) -> None:
    assert build_tree("coco", taxonomy=str(forms["zip"])) == build_tree("coco")
    assert build_tree("coco", taxonomy=forms["folder"]) == build_tree("coco")


def test_the_command_line_takes_a_path(forms: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    code = "from wordtree.cli import main; main()"
    command = [sys.executable, "-c", code, "build", "coco", "--taxonomy", str(forms["zip"]), "-o", str(out)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert WordTree.load(out) == build_tree("coco")


NLTK = """
import os, warnings
warnings.simplefilter("error")
import nltk.corpus
from wordtree import build_tree
from wordtree.taxonomy import wordnet_from
kinds = [nltk.corpus.wordnet, wordnet_from(os.environ["NLTK_DATA"])]
trees = [build_tree("coco", "imagenet1k", taxonomy=one, rules=rules) for one in kinds for rules in ("paper", "darknet")]
print(*(tree.hash for tree in trees))
kinds = wordnet_from(nltk.corpus.wordnet)
print(*kinds.hypernyms("n02084071"), *kinds.instance_hypernyms("n09450163"), kinds.name_of("n02056570"))
print(*map(kinds.resolve, ("Domestic Dog", "crane.n.4", "domestic_dog.n.01")), kinds.sort_name("n02084071"))
for text in ("crane", "dogs", "crane.n.99", "n00000001"):
    try:
        kinds.resolve(text)
    except ValueError as error:
        print(error)
print([one.name() for one in nltk.corpus.wordnet.synset("dog.n.01").hypernyms()])
"""


def test_nltks_reader_and_its_files_give_the_same_tree_in_every_process(copy: Path) -> None:
    """nltk keeps hypernyms in a set, in an order that PYTHONHASHSEED decides; nothing here may depend on it."""
    told, orders = set(), set()
    for seed in ("0", "1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "NLTK_DATA": str(copy.parents[1])}
        run = subprocess.run([sys.executable, "-c", NLTK], env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        *lines, order = run.stdout.splitlines()
        told.add("\n".join(lines))
        orders.add(order)
    assert len(orders) == 2  # the trap is there
    (lines,) = (one.split("\n") for one in told)
    assert (
        lines[0].split() == [build_tree("coco", "imagenet1k", rules=rules).hash for rules in ("paper", "darknet")] * 2
    )
    assert lines[1] == "n01317541 n02083346 n09444100 king penguin"
    assert lines[2] == "n02084071 n03126707 n02084071 dog.n.01"
    assert lines[3].startswith("'crane' has 5 senses in WordNet; give one of them: crane.n.01 = n")
    assert lines[4].startswith("no noun 'dogs' in WordNet 3.0; give a word")
    assert lines[5].startswith("no noun 'crane.n.99' in WordNet 3.0; give a word")
    assert lines[6].startswith("no noun with the id 'n00000001' in WordNet 3.0")


class Synset:
    """A synset as nltk's reader gives one."""

    def __init__(self, offset: int, words: list[str], above: list["Synset"], instance_of: list["Synset"] = []) -> None:  # noqa: B006
        self.fields = offset, words, above, instance_of

    def offset(self) -> int:
        return self.fields[0]

    def lemma_names(self) -> list[str]:
        return self.fields[1]

    def name(self) -> str:
        return f"{self.fields[1][0].lower()}.n.01"

    def hypernyms(self) -> list["Synset"]:
        return self.fields[2]

    def instance_hypernyms(self) -> list["Synset"]:
        return self.fields[3]


class Reader:
    """Another WordNet's reader, of five nouns."""

    def __init__(self, version: str | None) -> None:
        self.version = version
        top = Synset(5, ["physical_entity"], [])
        star, body = Synset(40, ["star"], [top]), Synset(30, ["body"], [top])
        self.synsets_ = [top, star, body, Synset(20, ["Sun", "sun"], [], [star]), Synset(10, ["dog"], [star, body])]

    def get_version(self) -> str | None:
        return self.version

    def synsets(self, word: str, pos: str) -> list[Synset]:
        return [one for one in self.synsets_ if word in (name.lower() for name in one.lemma_names())]

    def synset_from_pos_and_offset(self, pos: str, offset: int) -> Synset | None:
        return next((one for one in self.synsets_ if one.offset() == offset), None)


def test_another_wordnets_reader_is_taken_where_it_is_asked_for() -> None:
    kinds = wordnet_from(Reader("2024"), version="2024")
    assert (kinds.name, kinds.root) == ("wordnet-2024", "n00000005")
    tree = build_tree(["dog", "sun", "body", "star"], taxonomy=kinds)
    assert dict(zip(tree.names, tree.parents.tolist(), strict=True)) == {"body": -1, "star": -1, "dog": 0, "Sun": 1}
    assert wordnet_from(Reader(None), version=None).name == "wordnet-other"
    for version in ("2024", None):
        with pytest.raises(
            WordTreeError, match=r"WordNet 3\.0 was asked for, this is .*first dog is n00000010.*version="
        ):
            wordnet_from(Reader(version))
        with pytest.raises(WordTreeError, match=r"WordNet 3\.0 was asked for"):
            build_tree(["dog"], taxonomy=Reader(version))
    with pytest.raises(WordTreeError, match=r"first dog is n00000010; WordNet 3\.0's is n02084071"):
        wordnet_from(Reader("3.0"))


# ---------------------------------------------------------------------- the wrong copy


def small(folder: Path, version: str, data: str = DATA, index: str = INDEX) -> Path:
    folder.mkdir()
    (folder / "data.noun").write_text(princeton.notice(version) + data.split("\n", 1)[1])
    (folder / "index.noun").write_text(index)
    return folder


def test_another_version_is_refused_by_name_and_taken_when_asked_for(tmp_path: Path) -> None:
    folder = small(tmp_path / "wn", "3.1")
    told = (
        r"wn: WordNet 3\.0 was asked for, this is WordNet 3\.1 \(3 nouns, n02084071 is no noun\).*give a copy of 3\.0.*"
    )
    with pytest.raises(WordTreeError, match=told + r"version='3\.1'"):
        wordnet_from(folder)
    with pytest.raises(WordTreeError, match=told):
        build_tree(["entity"], taxonomy=folder)
    for version in ("3.1", None):
        kinds = wordnet_from(folder, version=version)
        assert (kinds.name, kinds.root) == ("wordnet-3.1", None)
        assert list(kinds.hypernyms("n00002000")) == ["n00001740"]
        assert list(kinds.instance_hypernyms("n00002000")) == ["n00001930"]
        with pytest.raises(WordTreeError, match=r"no noun 'thin' in WordNet 3\.1; did you mean 'thing'"):
            kinds.resolve("thin")
    with pytest.raises(WordTreeError, match=r"WordNet 2\.1 was asked for, this is WordNet 3\.1"):
        wordnet_from(folder, version="2.1")


def test_a_copy_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WordTreeError, match=r"3 nouns, n02084071 is no noun; WordNet 3\.0 has 82115 and the dog"):
        wordnet_from(small(tmp_path / "cut", "3.0"))


@pytest.mark.parametrize(
    ("data", "index", "text"),
    [
        (DATA + "00002100 03 n 01\n", INDEX, r"data\.noun, line 5: '00002100 03 n 01' is no line of WordNet's"),
        (DATA + "no synset at all\n", INDEX, r"data\.noun, line 5: 'no synset at all'"),
        (DATA.replace("@ 00001740", "@ 00001741"), INDEX, "data.noun has no line for 00001741, which stands above"),
        (DATA, INDEX + "word n\n", r"index\.noun, line 5: 'word n' is no line"),
        (DATA, INDEX.replace("big_thing", "large_thing"), "index.noun has no sense 00001930 of 'big_thing'"),
    ],
)
def test_a_line_that_is_not_wordnets_is_named(data: str, index: str, text: str) -> None:
    with pytest.raises(WordTreeError, match=text):
        wordnet.read(data, index)


def test_what_is_no_copy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "data.noun").write_text(DATA)
    (tmp_path / "some.txt").write_text("text")
    (tmp_path / "latin").mkdir()
    (tmp_path / "latin" / "data.noun").write_bytes(b"caf\xe9")
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as file:
        file.writestr("readme", "nothing")
    with zipfile.ZipFile(tmp_path / "half.zip", "w") as file:
        file.writestr("wordnet/data.noun", DATA)
    for name, kind, text in [
        ("empty", WordTreeError, "empty: no data.noun in it; give WordNet's folder"),
        ("half", FileNotFoundError, "no file .*index.noun'; WordNet's index.noun lies beside its data.noun"),
        ("some.txt", WordTreeError, "some.txt: neither a folder nor a .zip"),
        ("latin", WordTreeError, "data.noun: not UTF-8"),
        ("none.zip", WordTreeError, "none.zip: no data.noun in it; give a .zip"),
        ("half.zip", WordTreeError, "half.zip: wordnet/index.noun is not in it"),
        ("nowhere", FileNotFoundError, "no folder or file .*nowhere'; give one that holds WordNet's data.noun"),
    ]:
        with pytest.raises(kind, match=text):
            wordnet_from(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        build_tree(["dog.n.01"], taxonomy=str(tmp_path / "nowhere"))
    with pytest.raises(WordTreeError, match=r"object.* is no WordNet; give a folder"):
        wordnet_from(object())


def test_a_corpus_that_nltk_has_not_is_told_in_a_line(tmp_path: Path) -> None:
    code = "import nltk.corpus, wordtree\nwordtree.build_tree(['dog.n.01'], taxonomy=nltk.corpus.wordnet31)"
    environment = {**os.environ, "NLTK_DATA": str(tmp_path), "HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "nltk finds no such corpus; nltk.download('wordnet') gets it" in run.stderr.splitlines()[-1]
