"""WordNet's own files, written from the embedded table: as Princeton's in every way but the glosses.

A line stands at the byte that its id says, as nltk's reader needs it; the gloss is padding. wndb(5WN) describes them.
"""

from pathlib import Path

import numpy as np

from wordtree import wordnet

NOTICE = (wordnet.TABLE.parent / "LICENSE-WordNet-3.0").read_text().splitlines()
POINTERS = {False: "@", True: "@i"}


def notice(version: str = "3.0") -> str:
    lines = (line.replace("WordNet 3.0 Copyright", f"WordNet {version} Copyright") for line in NOTICE)
    return "".join(f"  {number} {line}  \n" for number, line in enumerate(lines, start=1))


def data_noun(version: str = "3.0") -> str:
    nouns = wordnet._nouns()
    lines = [notice(version)]
    for row, number in enumerate(nouns.numbers):
        words = nouns.texts[row].split(" ")
        edges = range(nouns.parent_starts[row], nouns.parent_starts[row + 1])
        fields = [f"{number:08d} 03 n {len(words):02x}", *(f"{word} 0" for word in words), f"{len(edges):03d}"]
        for edge in edges:
            above = nouns.numbers[nouns.parents[edge]]
            fields.append(f"{POINTERS[bool(nouns.instance[edge])]} {above:08d} n 0000")
        line = " ".join([*fields, "| "])
        end = nouns.numbers[row + 1] if row + 1 < len(nouns.numbers) else number + len(line) + 2
        lines.append(line.ljust(end - number - 1, ".") + "\n")
    return "".join(lines)


def index_noun(version: str = "3.0") -> str:
    nouns = wordnet._nouns()
    rows = np.repeat(np.arange(len(nouns.numbers)), np.diff(nouns.sense_starts))
    ids_of: dict[str, dict[int, int]] = {}
    for word, sense, row in zip(" ".join(nouns.texts).lower().split(" "), nouns.senses.tolist(), rows, strict=True):
        ids_of.setdefault(word, {})[sense] = nouns.numbers[row]
    lines = [notice(version)]
    for word in sorted(ids_of):
        ids = [f"{ids_of[word][sense]:08d}" for sense in sorted(ids_of[word])]
        lines.append(f"{word} n {len(ids)} 1 @ {len(ids)} 0 {' '.join(ids)}  \n")
    return "".join(lines)


def write(folder: Path, version: str = "3.0") -> Path:
    """data.noun and index.noun, all 82,115 nouns."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.noun").write_bytes(data_noun(version).encode())
    (folder / "index.noun").write_bytes(index_noun(version).encode())
    return folder


def write_rest(folder: Path, version: str = "3.0") -> None:
    """What nltk's reader wants beside the nouns: the other parts of speech without a word."""
    for suffix in ("adj", "adv", "verb"):
        (folder / f"data.{suffix}").write_text(notice(version))
        (folder / f"index.{suffix}").write_text(notice(version))
    for suffix in ("adj", "adv", "verb", "noun"):
        (folder / f"{suffix}.exc").write_text("dogs dog\n" if suffix == "noun" else "")
    (folder / "lexnames").write_text("".join(f"{number:02d}\tnoun.{number}\t1\n" for number in range(45)))
    (folder / "index.sense").write_text("")
    (folder / "cntlist.rev").write_text("")
