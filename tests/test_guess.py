"""Guessing synsets: what is sure is filled in, what is not is left to a person, and no reader takes it before."""

import csv
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wordtree import LabelMap, WordTreeError, label_maps, wordnet
from wordtree.guess import SPELLINGS, SURE, WAYS, guess, guess_file


def first(name: str, *maps: LabelMap) -> str:
    """The synset name of the best guess, without registered maps but those given."""
    (one,) = guess([name], maps)
    return wordnet.synset_name(one.ids[0])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def reviewed(path: Path, decisions: dict[str, str]) -> Path:
    """What a person does: write an id into the rows that have none."""
    given = rows(path)
    for row in given:
        row["id"] = row["id"] or decisions[row["label"]]
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, given[0])
        out.writeheader()
        out.writerows(given)
    return path


# ---------------------------------------------------------------------- one name


@pytest.mark.parametrize(
    ("name", "synset", "why"),
    [
        ("zebra", "zebra.n.01", "its only sense"),
        ("fire_hydrant", "fireplug.n.01", "its only sense"),
        ("Microwave Oven", "microwave.n.02", "its only sense"),
        ("Ping-Pong ball", "ping-pong_ball.n.01", "its only sense"),
        ("surf board", "surfboard.n.01", "its only sense of 'surfboard'"),
        ("Skis", "ski.n.01", "its only sense of 'ski'"),
        ("wild_geese_(bird)", "", "no noun found"),
        ("Stuffed Toys", "plaything.n.01", "the likeliest of several of 'toy'"),
        ("golfcart", "golfcart.n.01", "its only sense"),
        ("bananas", "banana.n.02", "the likeliest of several of 'banana'"),  # the food, not the plant
        ("knives", "knife.n.01", "the likeliest of several of 'knife'"),
        ("Moniter/TV", "television.n.01", "the likeliest of several of 'tv'"),
        ("cup or mug", "cup.n.01", "the likeliest of several of 'cup'"),
        ("time", "time.n.01", "the likeliest of several"),  # nothing that has a picture
        ("dining table", "dining_table.n.01", "its only sense"),
        ("picnic dining table", "dining_table.n.01", "its only sense of 'dining table'"),
        ("dog.n.03", "dog.n.03", "its only sense"),
        ("n02084071", "dog.n.01", "its only sense"),
        ("qwxz", "", "no noun found"),
    ],
)
def test_a_name_is_spelled_in_other_ways_until_a_noun_is_found(name: str, synset: str, why: str) -> None:
    (one,) = guess([name], maps=[])
    assert ([wordnet.synset_name(id_) for id_ in one.ids[:1]] or [""]) == [synset]
    assert one.why == why


def test_a_physical_thing_is_guessed_before_any_other() -> None:
    assert wordnet.synset_name(wordnet.candidates("racket")[0]) == "racket.n.01"  # a loud noise
    (one,) = guess(["racket"], maps=[])
    assert [wordnet.synset_name(id_) for id_ in one.ids] == ["racket.n.04", "racket.n.01", "racket.n.02", "noise.n.02"]
    assert one.why == "its only physical sense"


def test_what_other_maps_say_comes_first() -> None:
    assert first("mouse") == "mouse.n.01"
    desk = LabelMap("desk", ("Mouse", "key"), ("n03793489", "n03613294"))
    assert first("mouse", desk) == "mouse.n.04"
    (one,) = guess(["mouse"], [desk])
    assert (one.why, one.confidence) == ("as in another map", WAYS["as in another map"])
    assert first("computer mouse", desk) == "mouse.n.04"
    zoo = LabelMap("zoo", ("mouse",), ("n02330245",))
    (one,) = guess(["mouse"], [desk, zoo])  # they disagree
    assert one.confidence < SURE
    assert {wordnet.synset_name(id_) for id_ in one.ids[:2]} == {"mouse.n.01", "mouse.n.04"}
    tiny = LabelMap("tiny", ("pointer thing",), ("n03793489",))  # the sense, under another label
    (one,) = guess(["mouse"], [tiny])
    assert wordnet.synset_name(one.ids[0]) == "mouse.n.04"
    assert one.why == "its only sense in any map"
    both = LabelMap("both", ("mouse", "pointer"), ("n02330245", "n03793489"))  # it has two mice: no vote
    assert first("mouse", both) == "mouse.n.01"
    assert guess(["mouse"], [both]).guesses[0].why == "the likeliest of several"
    assert first("pottedplant", LabelMap("voc", ("pottedplant",), ("n13083023",))) == "houseplant.n.01"
    own = LabelMap("own", ("mouse",), ("Q7377",))  # of another taxonomy: of no use here
    assert first("mouse", own) == "mouse.n.01"


@given(st.lists(st.text(min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=4, unique=True))
def test_any_name_gets_a_guess_that_says_how_sure_it_is(names: list[str]) -> None:
    review = guess(names, maps=[])
    assert [one.label for one in review] == names
    for one in review:
        assert 0 <= one.confidence <= 1
        assert (one.confidence == 0) == (one.ids == ())
        assert one.id == (one.ids[0] if one.confidence >= SURE else "")
        assert len(set(one.ids)) == len(one.ids)
        assert all(wordnet.candidates(id_) == [id_] for id_ in one.ids)


def test_every_noun_of_one_sense_is_itself() -> None:
    names = [label for label in label_maps()["imagenet1k"].labels if len(wordnet.candidates(label)) == 1]
    assert len(names) > 500
    for one in guess(names, maps=[]):
        assert one.ids == tuple(wordnet.candidates(one.label))
        assert one.id == one.ids[0]


def test_what_is_spelled_otherwise_is_less_sure_and_last_words_are_never_filled_in() -> None:
    assert all(0 < left <= 1 for left in SPELLINGS.values())
    assert max(SPELLINGS["part"], SPELLINGS["last words"], SPELLINGS["apart"]) < SURE
    (one,) = guess(["picnic dining table"], maps=[])
    assert one.id == ""


@pytest.mark.parametrize("names", [[], ["dog", " "], ["dog", "cat", "dog"]])
def test_names_that_are_no_list_of_classes_are_refused(names: list[str]) -> None:
    with pytest.raises(WordTreeError, match="give at least one, none empty, each once"):
        guess(names)


# ---------------------------------------------------------------------- the review


def test_a_guess_is_read_after_a_person_decided(tmp_path: Path) -> None:
    path = guess(["zebra", "crane", "Skis", "hook, line"], maps=[]).save(tmp_path / "review.csv")
    written = rows(path)
    assert [row["label"] for row in written] == ["zebra", "crane", "Skis", "hook, line"]
    assert written[0]["id"] == "n02391049"
    assert written[0]["words"] == "zebra: equine"
    assert re.fullmatch(r"crane\.n\.0\d", written[1]["guess"])
    assert written[1]["id"] == ""
    assert (
        "crane.n.04 (crane: lifting device)"
        in f"{written[1]['guess']} ({written[1]['words']}); " + written[1]["alternatives"]
    )
    assert all(0 <= float(row["confidence"]) <= 1 for row in written)
    undecided = r"2 of 4 guesses are not reviewed, their `id` is empty: line 3 \(crane\), line 5 \(hook, line\); write"
    with pytest.raises(WordTreeError, match=undecided):
        LabelMap.read(path)
    with pytest.raises(WordTreeError, match="not reviewed"):
        LabelMap.read(path, missing="skip")
    reviewed(path, {"crane": "crane.n.04", "hook, line": "fishhook"})
    labels = LabelMap.read(path)
    assert labels.labels == ("zebra", "crane", "Skis", "hook, line")
    assert [wordnet.synset_name(id_) for id_ in labels.ids] == ["zebra.n.01", "crane.n.04", "ski.n.01", "fishhook.n.01"]


def test_what_a_person_types_in_is_looked_up(tmp_path: Path) -> None:
    def after(decision: str) -> LabelMap:
        path = tmp_path / "review.csv"
        path.unlink(missing_ok=True)
        guess(["crane"], maps=[]).save(path)
        return LabelMap.read(reviewed(path, {"crane": decision}))

    assert after("n03126707").ids == after("crane.n.04").ids == ("n03126707",)
    with pytest.raises(WordTreeError, match=r"names of several senses in WordNet, 1 of 1: mouse \(mouse\.n\.01"):
        after("mouse")
    with pytest.raises(WordTreeError, match=r"line 2: no noun 'crane\.n\.04 \(crane\)' in WordNet"):
        after("crane.n.04 (crane)")


def test_a_review_is_never_written_over(tmp_path: Path) -> None:
    review = guess(["dog"], maps=[])
    path = review.save(tmp_path / "review.csv")
    path.write_text("a person's work")
    with pytest.raises(FileExistsError, match=r"review\.csv is there already, and may be reviewed"):
        review.save(path)
    assert path.read_text() == "a person's work"
    with pytest.raises(WordTreeError, match=r"a review is a \.csv"):
        review.save(tmp_path / "review.json")


def test_an_annotation_file_keeps_its_numbers_and_its_own_synsets(tmp_path: Path) -> None:
    categories = [
        {"id": 90, "name": "mouse"},
        {"id": 7, "name": "bat_(animal)", "synset": "bat.n.01"},
        {"id": 9, "name": "stop_sign", "synset": "stop_sign.n.01"},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"annotations": [], "categories": categories}))
    review = guess_file(tmp_path / "a.json", maps=[])
    assert [one.label for one in review] == ["bat_(animal)", "stop_sign", "mouse"]
    assert review.numbers == (7, 9, 90)
    assert review.guesses[0].why == "given in the file"
    assert str(review) == "3 names: 1 filled in, 2 left for you to decide"
    path = reviewed(review.save(tmp_path / "b.csv"), {"stop_sign": "street_sign.n.01", "mouse": "mouse.n.04"})
    labels = LabelMap.read(path)
    assert labels.numbers == (7, 9, 90)
    assert labels.ids == ("n02139199", "n06794110", "n03793489")


def test_a_list_of_names_is_a_line_each(tmp_path: Path) -> None:
    for name in ("a.txt", "a.names"):
        (tmp_path / name).write_text("zebra\n\n hot dog \n", encoding="utf-8-sig")
        assert [one.label for one in guess_file(tmp_path / name, maps=[])] == ["zebra", "hot dog"]
    with pytest.raises(FileNotFoundError, match=r"no list of names '.*gone\.txt'"):
        guess_file(tmp_path / "gone.txt")
    (tmp_path / "a.xml").touch()
    with pytest.raises(WordTreeError, match=r"no reader for '\.xml'"):
        guess_file(tmp_path / "a.xml")
