"""WordNet 3.0's nouns: 82,115 synsets, their words and what stands above each; embedded, no download.

An id is a WNID, `n` and eight digits, as ImageNet writes it: n02084071 is the dog. A synset name is WordNet's and
nltk's: first lemma, `n`, sense number of that lemma: dog.n.01. The table is read on first use, from
`data/wordnet-3.0-nouns.npz` (tools/make_wordnet.py makes it); words are indexed when the first word is asked for.
`read` makes the same table from a WordNet's own files.
"""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import WordTreeError

TABLE = Path(__file__).with_name("data") / "wordnet-3.0-nouns.npz"
PHYSICAL_ENTITY = "n00001930"
NAME = "WordNet 3.0"

ID = re.compile(r"n\d{8}")
SYNSET_NAME = re.compile(r"(.+)\.n\.(\d{1,3})")


# ---------------------------------------------------------------------- questions


def candidates(text: str) -> list[str]:
    """The ids that an id, a synset name or a word may stand for, likeliest sense first; empty where nothing matches.

    Case does not matter, and a space is as good as an underscore.

    Example:
        >>> candidates("domestic dog"), candidates("dog.n.01"), candidates("n02084071"), candidates("no such noun")
        (['n02084071'], ['n02084071'], ['n02084071'], [])
        >>> candidates("dog")[:3]
        ['n02084071', 'n10114209', 'n10023039']
    """
    return _nouns().candidates(text)


def id_of(text: str) -> str:
    """The one id that an id, a synset name or a word of a single sense stands for.

    Raises:
        WordTreeError: no such noun (near words are given), or a word of several senses (all are listed).

    Example:
        >>> id_of("domestic dog"), id_of("crane.n.04")
        ('n02084071', 'n03126707')
        >>> id_of("crane.n.4") == id_of("crane.n.04")
        True
    """
    return _nouns().id_of(text)


def lemmas(id_: str) -> list[str]:
    """The words of a synset, spaces for underscores, in WordNet's order.

    Example:
        >>> lemmas("n02084071")
        ['dog', 'domestic dog', 'Canis familiaris']
    """
    return _nouns().lemmas(id_)


def name_of(id_: str) -> str:
    """The first word of a synset.

    Example:
        >>> name_of("n02056570")
        'king penguin'
    """
    return _nouns().name_of(id_)


def synset_name(id_: str) -> str:
    """First lemma in lower case, `n`, two-digit sense number, as nltk names a synset.

    Example:
        >>> synset_name("n02084071"), synset_name("n03126707")
        ('dog.n.01', 'crane.n.04')
    """
    return _nouns().synset_name(id_)


def hypernyms(id_: str) -> list[str]:
    """What the synset is a kind of, directly above it, in WordNet's order; empty for entity and for instances.

    Example:
        >>> [name_of(above) for above in hypernyms("n02084071")]
        ['canine', 'domestic animal']
    """
    return _nouns().hypernyms(id_)


def instance_hypernyms(id_: str) -> list[str]:
    """What the synset is an instance of, as the Sun is of star, in WordNet's order.

    Example:
        >>> [name_of(above) for above in instance_hypernyms(id_of("sun.n.01"))]
        ['star']
    """
    return _nouns().instance_hypernyms(id_)


def hyponyms(id_: str, instances: bool = False) -> list[str]:
    """The kinds of it directly below, by id; its instances instead where asked for.

    Example:
        >>> [name_of(below) for below in hyponyms("n02055803")]  # of penguin
        ['Adelie', 'king penguin', 'emperor penguin', 'jackass penguin', 'rock hopper']
    """
    nouns = _nouns()
    return [nouns.id(row) for row in nouns.below(nouns.known_row(id_), instances)]


def count_below(id_: str) -> int:
    """How many different kinds stand below, at any depth; instances are not counted.

    Example:
        >>> count_below("n02055803"), count_below("n02056570")  # penguin, king penguin
        (5, 0)
    """
    nouns = _nouns()
    seen: set[int] = set()
    todo = [nouns.known_row(id_)]
    while todo:
        new = [below for below in nouns.below(todo.pop(), instance=False) if below not in seen]
        seen.update(new)
        todo += new
    return len(seen)


def all_ids() -> list[str]:
    """Every noun's id, ascending: 82,115 of them.

    Example:
        >>> len(all_ids()), all_ids()[0]
        (82115, 'n00001740')
    """
    nouns = _nouns()
    return [nouns.id(row) for row in range(len(nouns.numbers))]


# ---------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Nouns:
    """A WordNet's nouns as a table, a row a synset, ascending by id; the functions above ask the embedded one."""

    name: str  # such as "WordNet 3.0"
    numbers: list[int]  # [rows] ids without their n
    texts: list[str]  # [rows] lemmas with a space between, spelled as WordNet does
    senses: NDArray[np.integer]  # [lemmas] the sense number of each lemma of each row
    sense_starts: NDArray[np.int64]  # [rows + 1] where each row's lemmas begin
    parents: NDArray[np.int64]  # [edges] rows above, in WordNet's order
    instance: NDArray[np.bool_]  # [edges] True: is an instance of; False: is a kind of
    parent_starts: list[int]  # [rows + 1]

    def candidates(self, text: str) -> list[str]:
        if ID.fullmatch(text):
            return [text] if self.row(text) >= 0 else []
        word = "_".join(text.lower().split())
        named = SYNSET_NAME.fullmatch(word)
        if named:
            return [self.id(row) for sense, row in self.rows_of(named[1]) if sense == int(named[2])]
        return [self.id(row) for _, row in self.rows_of(word)]

    def id_of(self, text: str) -> str:
        found = self.candidates(text)
        if len(found) == 1:
            return found[0]
        if found:
            raise several_senses(text, [(self.synset_name(id_), id_, self.lemmas(id_)) for id_ in found])
        named = SYNSET_NAME.fullmatch(text)
        if named and (senses := self.candidates(named[1])):
            raise WordTreeError(f"no sense {named[2]} of {named[1]!r} in {self.name}; it has senses 1 to {len(senses)}")
        raise no_noun(text, self.name, self.near(text))

    def lemmas(self, id_: str) -> list[str]:
        return [word.replace("_", " ") for word in self.texts[self.known_row(id_)].split(" ")]

    def name_of(self, id_: str) -> str:
        return self.texts[self.known_row(id_)].split(" ", 1)[0].replace("_", " ")

    def synset_name(self, id_: str) -> str:
        row = self.known_row(id_)
        return f"{self.texts[row].split(' ', 1)[0].lower()}.n.{self.senses[self.sense_starts[row]]:02d}"

    def hypernyms(self, id_: str) -> list[str]:
        return self.above(self.known_row(id_), instance=False)

    def instance_hypernyms(self, id_: str) -> list[str]:
        return self.above(self.known_row(id_), instance=True)

    def near(self, text: str) -> list[str]:
        """Up to three words spelled nearly so. Only words of the same first letter and about the same length are
        compared: all 117,798 would take seconds."""
        word = "_".join(text.lower().split())
        alike = [w for w in self.first_of_word if w[:1] == word[:1] and abs(len(w) - len(word)) <= 2]
        return [w.replace("_", " ") for w in difflib.get_close_matches(word, alike, n=3, cutoff=0.75)]

    def row(self, id_: str) -> int:
        """The row of an id; -1 where there is no such noun."""
        if not ID.fullmatch(id_):
            return -1
        number = int(id_[1:])
        row = bisect_left(self.numbers, number)
        return row if row < len(self.numbers) and self.numbers[row] == number else -1

    def known_row(self, id_: str) -> int:
        row = self.row(id_)
        if row < 0:
            raise WordTreeError(f"no noun with the id {id_!r} in {self.name}; ids look like n02084071 (dog)")
        return row

    def id(self, row: int) -> str:
        return f"n{self.numbers[row]:08d}"

    def above(self, row: int, instance: bool) -> list[str]:
        edges = range(self.parent_starts[row], self.parent_starts[row + 1])
        return [self.id(self.parent_list[edge]) for edge in edges if self.instance_list[edge] is instance]

    def below(self, row: int, instance: bool) -> list[int]:
        rows, starts = self.rows_below[instance]
        return rows[starts[row] : starts[row + 1]]

    def rows_of(self, word: str) -> list[tuple[int, int]]:
        """(sense number, row) of a lower-case lemma, by sense. Two spellings in one synset (Earth, earth) are one."""
        if word not in self.first_of_word:
            return []
        codes = {self.first_of_word[word], *self.rest_of_word.get(word, ())}
        return [divmod(code, len(self.numbers)) for code in sorted(codes)]

    # Single edges are read from lists: indexing a numpy array costs ten times as much.
    @cached_property
    def parent_list(self) -> list[int]:
        parents: list[int] = self.parents.tolist()
        return parents

    @cached_property
    def instance_list(self) -> list[bool]:
        instance: list[bool] = self.instance.tolist()
        return instance

    @cached_property
    def rows_below(self) -> list[tuple[list[int], list[int]]]:
        """For kinds and for instances: rows sorted by the row above, and [rows + 1] where each one's begin."""
        below = np.repeat(np.arange(len(self.numbers)), np.diff(self.parent_starts))
        sorted_below = []
        for kind in (False, True):
            edges = np.flatnonzero(self.instance == kind)
            edges = edges[np.argsort(self.parents[edges], kind="stable")]
            starts = np.searchsorted(self.parents[edges], np.arange(len(self.numbers) + 1))
            sorted_below.append((below[edges].tolist(), starts.tolist()))
        return sorted_below

    # Four words in five have one sense. Two dictionaries, the second small, are built three times as fast as one of
    # lists; a code is sense number x rows + row, so that codes sort by sense.
    @property
    def first_of_word(self) -> dict[str, int]:
        return self._words[0]

    @property
    def rest_of_word(self) -> dict[str, list[int]]:
        return self._words[1]

    @cached_property
    def _words(self) -> tuple[dict[str, int], dict[str, list[int]]]:
        rows = np.repeat(np.arange(len(self.numbers)), np.diff(self.sense_starts))
        codes = (self.senses.astype(np.int64) * len(self.numbers) + rows).tolist()
        first: dict[str, int] = {}
        rest: dict[str, list[int]] = {}
        for word, code in zip(" ".join(self.texts).lower().split(" "), codes, strict=True):
            if word in first:
                rest.setdefault(word, []).append(code)
            else:
                first[word] = code
        return first, rest


def several_senses(text: str, senses: Iterable[tuple[str, str, Sequence[str]]]) -> WordTreeError:
    """The error for a word that stands for several synsets: (synset name, id, lemmas) of each are listed."""
    told = [f"{synset} = {id_} ({', '.join(words)})" for synset, id_, words in senses]
    return WordTreeError(f"{text!r} has {len(told)} senses in WordNet; give one of them: {'; '.join(told)}")


def no_noun(text: str, name: str, near: Sequence[str] = ()) -> WordTreeError:
    """The error for a text that stands for no synset."""
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return WordTreeError(
        f"no noun {text!r} in {name}; {hint}give a word, a synset name such as dog.n.01 or an id such as n02084071"
    )


@lru_cache(maxsize=1)
def _nouns() -> Nouns:
    with np.load(TABLE, allow_pickle=False) as file:
        table = {name: file[name] for name in file.files}
    counts = table["parent_counts"].astype(np.int64)
    row_of_edge = np.repeat(np.arange(len(counts)), counts)
    return _table(
        NAME,
        np.cumsum(table["id_steps"], dtype=np.int64).tolist(),
        table["lemmas"].tobytes().decode("ascii").split("\n"),
        table["senses"],
        counts,
        row_of_edge - table["parent_steps"],
        np.unpackbits(table["instance"], count=len(row_of_edge)).astype(bool),
    )


def _table(
    name: str,
    numbers: list[int],
    texts: list[str],
    senses: NDArray[np.integer],
    parent_counts: NDArray[np.int64],
    parents: NDArray[np.int64],
    instance: NDArray[np.bool_],
) -> Nouns:
    return Nouns(
        name=name,
        numbers=numbers,
        texts=texts,
        senses=senses,
        sense_starts=np.cumsum([0, *(text.count(" ") + 1 for text in texts)]),
        parents=parents,
        instance=instance,
        parent_starts=np.cumsum([0, *parent_counts.tolist()]).tolist(),
    )


# ---------------------------------------------------------------------- a WordNet's own files


def version_of(data: str) -> str:
    """The version that the notice at the head of a data.noun names, such as 3.0; empty where it names none.

    Example:
        >>> version_of("  1 WordNet 3.0 Copyright 2006 by Princeton University.\\n00001740 03 n 01 entity ...")
        '3.0'
    """
    notice = data[: data.find("\n0")]
    found = re.search(r"Word[nN]et (\d[\d.]*\+?) Copyright", notice)
    return found[1] if found else ""


def read(data: str, index: str, name: str = NAME) -> Nouns:
    """The table of a `data.noun` and its `index.noun`, as wndb(5WN) describes them; Windows' line ends are taken too.

    A synset is known by the eight digits that begin its line, not by where the line stands in the file: Debian's are
    Princeton's with other lengths.

    Args:
        data: the text of data.noun: a synset a line, its words and its pointers.
        index: the text of index.noun, which alone knows the sense numbers.
        name: what errors call it.

    Raises:
        WordTreeError: a line that is no synset, a word without a sense number, a hypernym without a line.
    """
    sense_of: dict[tuple[str, str], int] = {}
    for number, line in enumerate(index.split("\n"), start=1):
        fields = line.split()
        if not fields or line.startswith(" "):  # the notice
            continue
        try:
            ids = fields[-int(fields[2]) :]
        except (IndexError, ValueError):
            raise _no_line("index.noun", number, line) from None
        for sense, id_ in enumerate(ids, start=1):
            sense_of[fields[0], id_] = sense

    synsets: dict[
        str, tuple[list[str], list[tuple[str, bool]]]
    ] = {}  # id -> words, (hypernym, is it an instance edge?)
    for number, line in enumerate(data.split("\n"), start=1):
        fields = line.split(" | ", 1)[0].split()
        if not fields or line.startswith(" "):
            continue
        try:
            end = 4 + 2 * int(fields[3], 16)
            kinds = fields[end + 1 : end + 1 + 4 * int(fields[end]) : 4]
            above = [(fields[end + 2 + 4 * at], kind == "@i") for at, kind in enumerate(kinds) if kind in ("@", "@i")]
            if not (len(fields[0]) == 8 and fields[0].isdecimal() and end > 4):
                raise ValueError
        except (IndexError, ValueError):
            raise _no_line("data.noun", number, line) from None
        synsets[fields[0]] = fields[4:end:2], above

    ids = sorted(synsets)
    row_of = {id_: row for row, id_ in enumerate(ids)}
    try:
        senses = [sense_of[word.lower(), id_] for id_ in ids for word in synsets[id_][0]]
    except KeyError as error:
        word, id_ = error.args[0]
        raise WordTreeError(
            f"index.noun has no sense {id_} of {word!r}, which data.noun has; give two files of one WordNet"
        ) from None
    try:
        parents = [row_of[above] for id_ in ids for above, _ in synsets[id_][1]]
    except KeyError as error:
        raise WordTreeError(
            f"data.noun has no line for {error.args[0]}, which stands above another; give the whole file"
        ) from None
    return _table(
        name,
        [int(id_) for id_ in ids],
        [" ".join(synsets[id_][0]) for id_ in ids],
        np.array(senses, dtype=np.int64),
        np.array([len(synsets[id_][1]) for id_ in ids], dtype=np.int64),
        np.array(parents, dtype=np.int64),
        np.array([instance for id_ in ids for _, instance in synsets[id_][1]], dtype=bool),
    )


def _no_line(file: str, number: int, line: str) -> WordTreeError:
    return WordTreeError(f"{file}, line {number}: {line[:60]!r} is no line of WordNet's; wndb(5WN) says what one holds")
