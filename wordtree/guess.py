"""A first guess at the synset of each class name, written as a table for a person to review.

A class name is an English word, and a word has many senses. What is guessed, in this order: the sense that other
registered label maps give to the same name; a sense that some registered map has (`imagenet21k`, where it is there,
has most things that were ever photographed); a physical thing; a food before the plant that it grows on; WordNet's
first sense. `benchmarks/guess.py` measures how often that is right, and each confidence below.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from . import wordnet
from .errors import WordTreeError
from .formats import write_whole
from .labels import LabelMap, label_maps, read_rows, read_text

SURE = 0.9  # from this confidence on a guess is filled in; below, its id is left empty for a person
MOST_SHOWN = 8  # alternatives a row

# How a sense was picked -> about the share of such guesses that are right.
WAYS = {
    "given in the file": 1.0,
    "its only sense": 0.98,
    "as in another map": 0.87,
    "its only physical sense": 0.85,
    "its only sense in any map": 0.7,
    "the likeliest of several": 0.55,
    "no noun found": 0.0,
}
# How the name was spelled to find a noun -> what that leaves of the confidence.
SPELLINGS = {"": 1.0, "spelled": 0.97, "singular": 0.97, "apart": 0.6, "part": 0.3, "last words": 0.3}

FOOD, PLANT = ("n00021265", "n07555863"), "n00017222"
LISTS = (".txt", ".names")  # a name a line

_ENDINGS = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man"), ("es", ""), ("s", ""))


@dataclass(frozen=True)
class Guess:
    """What one name may stand for.

    Attributes:
        label: the name.
        ids: WordNet ids, likeliest first; empty where no noun was found.
        confidence: 0 to 1, how likely the first id is the right one.
        why: how it was picked, in words.
    """

    label: str
    ids: tuple[str, ...]
    confidence: float
    why: str

    @property
    def id(self) -> str:
        """The id that is filled in; "" where a person has to choose."""
        return self.ids[0] if self.confidence >= SURE else ""


@dataclass(frozen=True)
class Review:
    """Guesses at the names of a data set, to be read by a person.

    Attributes:
        guesses: one a name, in the order given.
        numbers: the data set's own number of each name; empty where it has none.
    """

    guesses: tuple[Guess, ...]
    numbers: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[Guess]:
        return iter(self.guesses)

    def __len__(self) -> int:
        return len(self.guesses)

    def __str__(self) -> str:
        left = sum(not guess.id for guess in self)
        return f"{len(self)} names: {len(self) - left} filled in, {left} left for you to decide"

    def to_csv(self) -> str:
        """The table: label, id (empty where unsure), the guess, confidence, why, the guess in words, alternatives."""
        out = io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        head = ["label", "id", "guess", "confidence", "why", "words", "alternatives"]
        rows.writerow([*head, "number"] if self.numbers else head)
        for at, guess in enumerate(self):
            names = [wordnet.synset_name(id_) for id_ in guess.ids[: MOST_SHOWN + 1]] or [""]
            words = [_words(id_) for id_ in guess.ids[: MOST_SHOWN + 1]] or [""]
            others = "; ".join(f"{name} ({told})" for name, told in zip(names[1:], words[1:], strict=True))
            row = [guess.label, guess.id, names[0], f"{guess.confidence:.2f}", guess.why, words[0], others]
            rows.writerow([*row, self.numbers[at]] if self.numbers else row)
        return out.getvalue()

    def save(self, path: str | Path) -> Path:
        """Write the table to a new .csv; `LabelMap.read` takes it once no `id` is empty. Returns the path.

        Raises:
            FileExistsError: the file is there already: it may hold someone's decisions.
            WordTreeError: another suffix.
        """
        path = Path(path)
        if path.suffix != ".csv":
            raise WordTreeError(f"{path}: a review is a .csv; give a name that ends so")
        if path.exists():
            raise FileExistsError(f"{path} is there already, and may be reviewed; remove it or give another name")
        write_whole(path, self.to_csv())
        return path


def guess(names: Iterable[str], maps: Iterable[LabelMap] | None = None) -> Review:
    """Propose a synset for each name.

    Args:
        names: class names as a data set writes them: "hot dog", "hot_dog", "Sneakers", "Monitor/TV", "bat (animal)".
        maps: the label maps that are asked what they call so; all registered ones where left out.

    Raises:
        WordTreeError: no names, an empty one, or one given twice.

    Example:
        >>> for one in guess(["zebra", "Skis", "mouse"], maps=[]):
        ...     print(one.label, one.confidence, one.why, [wordnet.synset_name(id_) for id_ in one.ids[:2]])
        zebra 0.98 its only sense ['zebra.n.01']
        Skis 0.95 its only sense of 'ski' ['ski.n.01']
        mouse 0.55 the likeliest of several ['mouse.n.01', 'mouse.n.03']
    """
    asked = list(names)
    if not asked or not all(name.strip() for name in asked) or len(set(asked)) != len(asked):
        wrong = next((name for at, name in enumerate(asked) if not name.strip() or name in asked[:at]), None)
        raise WordTreeError(f"names {asked[:3]!r}... with {wrong!r}; give at least one, none empty, each once")
    given = _Given.of(label_maps().values() if maps is None else maps)
    return Review(tuple(_guess(name, given) for name in asked))


def guess_file(path: str | Path, maps: Iterable[LabelMap] | None = None) -> Review:
    """Propose a synset for each name of a file: a .txt or .names with a name a line, or any file of a label map.

    An annotation file keeps its categories' numbers, and a label that has a WordNet id already keeps that.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: what `LabelMap.read` raises for a fault of the file, and `guess` for one of the names.
    """
    path = Path(path)
    if path.suffix in LISTS:
        if not path.exists():
            raise FileNotFoundError(f"no list of names {str(path)!r}; give a .txt with a name a line")
        return guess([line.strip() for line in read_text(path).splitlines() if line.strip()], maps)
    rows = read_rows(path)
    review = guess([row.label for row in rows], maps)
    guesses = []
    for row, one in zip(rows, review, strict=True):
        ids = () if row.id == row.label else tuple(wordnet.candidates(row.id))
        known = Guess(row.label, ids, WAYS["given in the file"], "given in the file")
        guesses.append(known if len(ids) == 1 else one)
    return Review(tuple(guesses), tuple(row.number for row in rows if row.number is not None))


# ---------------------------------------------------------------------- one name


@dataclass(frozen=True)
class _Given:
    """What registered maps say: the ids of each, its id of each name, and all ids of any."""

    maps: list[tuple[frozenset[str], dict[str, str]]]
    members: frozenset[str]

    @classmethod
    def of(cls, maps: Iterable[LabelMap]) -> _Given:
        given = [
            (frozenset(one.ids), {_plain(label): id_ for label, id_ in zip(one.labels, one.ids, strict=True)})
            for one in maps
        ]
        return cls(given, frozenset().union(*(ids for ids, _ in given)))

    def votes(self, name: str, senses: list[str]) -> Counter[str]:
        """How many maps give the name each WordNet id. A map that has several senses of a word, as one of all ImageNet
        has, tells them apart by other labels and not by this one: it has no vote."""
        return Counter(
            id_of[name]
            for ids, id_of in self.maps
            if name in id_of and len(ids.intersection(senses)) <= 1 and wordnet.candidates(id_of[name]) == [id_of[name]]
        )


def _guess(name: str, given: _Given) -> Guess:
    senses, spelling, word = _senses(name)
    votes = given.votes(_plain(name), senses)
    senses += [id_ for id_ in votes if id_ not in senses]
    if not senses:
        return Guess(name, (), 0.0, "no noun found")
    food = any(_is_under(id_, *FOOD) for id_ in senses)

    def unlikely(id_: str) -> tuple[int, bool, bool, bool]:
        return (
            -votes[id_],
            id_ not in given.members,
            not _is_under(id_, wordnet.PHYSICAL_ENTITY),
            food and _is_under(id_, PLANT),
        )

    ranked = tuple(sorted(senses, key=unlikely))  # stable: WordNet's order where nothing tells two apart
    physical = [id_ for id_ in ranked if _is_under(id_, wordnet.PHYSICAL_ENTITY)]
    if len(ranked) == 1:
        way = "its only sense"
    elif physical == [ranked[0]]:
        way = "its only physical sense"
    elif [id_ for id_ in physical if id_ in given.members] == [ranked[0]]:
        way = "its only sense in any map"
    else:
        way = "the likeliest of several"
    confidence = round(WAYS[way] * SPELLINGS[spelling], 2)
    if len(votes) == 1 and (confidence < WAYS["as in another map"] or not word):
        return Guess(name, ranked, WAYS["as in another map"], "as in another map")
    return Guess(name, ranked, confidence, f"{way} of {word!r}" if spelling else way)


def _senses(name: str) -> tuple[list[str], str, str]:
    """The ids that a name may stand for in WordNet's order, which of SPELLINGS found them, and the word so spelled."""
    whole = _plain(name)
    words = whole.split()
    joined = whole.replace(" ", "")
    halves = [f"{joined[:at]} {joined[at:]}" for at in range(2, len(joined) - 1)]
    parts = [_plain(part) for part in re.split(r"/|&|,|\bor\b|\band\b|_or_|_and_", name.lower()) if part.strip()]
    ends = [" ".join(words[at:]) for at in range(1, len(words))]
    tries = {
        "": [name, _plain(name, hyphen="-")],
        "spelled": [whole, "-".join(words), joined],
        "singular": [*_singulars(whole), *_singulars(joined)],
        "apart": halves if len(words) == 1 else [],
        "part": [form for part in parts if len(parts) > 1 for form in (part, *_singulars(part))],
        "last words": [form for end in ends for form in (end, *_singulars(end))],
    }
    for spelling, forms in tries.items():
        for form in forms:
            if found := wordnet.candidates(form):
                return found, spelling, form
    return [], "", ""


def _plain(name: str, hyphen: str = " ") -> str:
    """Lower case, spaces alone between words, nothing in brackets: "Mouse_(computer)" is "mouse"."""
    return " ".join(re.sub(r"\(.*?\)", " ", name).replace("_", " ").replace("-", hyphen).lower().split())


def _singulars(word: str) -> list[str]:
    """What a plural may be the plural of."""
    return [
        word.removesuffix(end) + instead for end, instead in _ENDINGS if word.endswith(end) and len(word) > len(end) + 1
    ]


@cache
def _above(id_: str) -> frozenset[str]:
    """A synset and all above it."""
    over = (*wordnet.hypernyms(id_), *wordnet.instance_hypernyms(id_))
    return frozenset({id_}).union(*map(_above, over))


def _is_under(id_: str, *tops: str) -> bool:
    return not _above(id_).isdisjoint(tops)


def _words(id_: str) -> str:
    """A synset's words, and what it is a kind of: "mouse, computer mouse: electronic device"."""
    over = wordnet.hypernyms(id_) or wordnet.instance_hypernyms(id_)
    return ", ".join(wordnet.lemmas(id_)) + (f": {wordnet.name_of(over[0])}" if over else "")
