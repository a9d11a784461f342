"""What classes a network has, by Darknet's `.data`, `.names`, `.tree` and `.map` files or by names. No torch here.

Files that another names are looked for as written, beside it, and in the folder above it; those of the released
YOLO9000 are packaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wordtree import WordTree, WordTreeError
from wordtree.formats import read_map

from .official import official_maps, official_tree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Data:
    """A `.data` file: the values as written; `names`, `map` and `tree` name files."""

    file: str
    values: dict[str, str]
    lines: dict[str, int]

    @classmethod
    def read(cls, path: str | Path) -> Data:
        """Read a file.

        Raises:
            FileNotFoundError: no such file.
            WordTreeError: a line that is no key=value, by file and line.

        Example:
            >>> Data.read("voc.data").names()[:2]  # doctest: +SKIP
            ['aeroplane', 'bicycle']
        """
        values: dict[str, str] = {}
        lines: dict[str, int] = {}
        for number, key, value in pairs_of(text_of(path, "data"), str(path)):
            if value is None:
                what = f"[{key}] in a .data file; its lines are key=value, such as names=data/voc.names"
                raise WordTreeError(f"{path}, line {number}: {what}")
            if key not in values:
                values[key], lines[key] = value, number
        if not values:
            raise WordTreeError(f"{path}: nothing in it; a .data file has lines such as names=data/voc.names")
        return cls(str(path), values, lines)

    def names(self) -> list[str]:
        """The names that its `names=` (or `labels=`) file lists."""
        key = "names" if "names" in self.values else "labels"
        if key not in self.values:
            raise WordTreeError(f"{self.file}: no names= in it; give the .names file itself")
        found = find_file(self.values[key], self.file)
        if found is not None:
            return read_names(found)
        packaged = {"9k.names": official_tree().names, "9k.labels": official_tree().ids}
        if (name := Path(self.values[key]).name) in packaged:
            return list(packaged[name])
        raise _lost(key, self.values[key], self.file, self.lines[key])

    def label_nodes(self) -> NDArray[np.int64] | None:
        """int64 [labels]: its `map=`, the node of each class that is evaluated; None without."""
        return map_of(self.values["map"], self.file, self.lines["map"]) if "map" in self.values else None


def read_names(path: str | Path) -> list[str]:
    """A `.names` file: a name a line.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: no names in it, or an empty line between them, by file and line.
    """
    lines = [line.strip() for line in text_of(path, "names").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise WordTreeError(f"{path}: no names in it; a .names file has a name a line")
    if "" in lines:
        raise WordTreeError(f"{path}, line {lines.index('') + 1}: an empty name; a .names file has a name a line")
    return lines


def names_of(names: str | Path | Sequence[str], file: str | Path = "") -> list[str]:
    """Names from a .names or .data file, or as they are."""
    if not isinstance(names, str | Path):
        return list(names)
    found = find_file(str(names), file) or Path(names)
    return Data.read(found).names() if found.suffix in (".data", ".dataset") else read_names(found)


def named(tree: WordTree, names: Sequence[str]) -> WordTree:
    """The same tree under other names, one a node."""
    if len(names) != len(tree):
        raise WordTreeError(f"{len(names)} names for {len(tree)} classes; give a name a class")
    if (tree.parents < 0).all():
        return flat_tree(names)
    return WordTree(tree.ids, tree.parents, names, root_name=tree.root_name)


def flat_tree(names: Sequence[str]) -> WordTree:
    """Flat classes as a tree of leaves; the names are the ids too where no two are the same.

    Example:
        >>> flat_tree(["cat", "dog"]).ids, flat_tree(["cat", "cat"]).ids
        (('cat', 'dog'), ('class_0', 'class_1'))
    """
    ids = names if len({*names}) == len(names) else [f"class_{node}" for node in range(len(names))]
    return WordTree(ids, [-1] * len(names), names)


# ---------------------------------------------------------------------- files that a file names


def find_file(written: str, file: str | Path) -> Path | None:
    """The file that a cfg or .data names: as written, beside it, in its parent folder; None where there is none."""
    folder = Path(file).resolve().parent
    tries = [Path(written), folder / written, folder / Path(written).name, folder.parent / written]
    return next((path for path in tries if path.is_file()), None)


def tree_of(written: str, file: str | Path, names: Sequence[str] | None = None, line: int = 1) -> WordTree:
    """The tree that a cfg names; `9k.tree` is packaged. `names`, one a node, replace those beside it."""
    found = find_file(written, file)
    if found is None and Path(written).name != "9k.tree":
        raise _lost("tree", written, file, line)
    tree = official_tree() if found is None else WordTree.load(found)
    if tree.names == tree.ids and tree == official_tree():  # no .names beside it
        tree = official_tree()
    return tree if names is None else named(tree, names)


def map_of(written: str, file: str | Path, line: int = 1) -> NDArray[np.int64]:
    """int64 [labels]: the map that a file names; Darknet's `coco9k.map` and `inet9k.map` are packaged."""
    found = find_file(written, file)
    if found is not None:
        return read_map(found)
    packaged = {f"{name}.map": labels for name, labels in official_maps().items()}
    if Path(written).name not in packaged:
        raise _lost("map", written, file, line)
    return packaged[Path(written).name].nodes_on(official_tree())


def _lost(key: str, written: str, file: str | Path, line: int) -> WordTreeError:
    return WordTreeError(
        f"{file}, line {line}: {key}={written} is not there, not beside the file and not in the folder above it; "
        f"put it at one of them"
    )


# ---------------------------------------------------------------------- reading


def text_of(path: str | Path, what: str) -> str:
    """The text of a small file; what is none is refused."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no {what} file {str(path)!r}; give one that exists")
    content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        # comments of a cfg are in any language and encoding; names are to be read as they were meant
        return content.decode("utf-8", errors="replace" if what == "cfg" and 0 not in content else "strict")
    except UnicodeDecodeError:
        raise WordTreeError(f"{path}: bytes that are no text; a {what} file is text in UTF-8") from None


def pairs_of(text: str, file: str) -> Iterator[tuple[int, str, str | None]]:
    """Number, key and value of each line that says something; None for the value of a `[section]` line."""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = "".join(raw.split())
        if not line or line[0] in "#;":
            continue
        key, equals, value = line.partition("=")
        if line[0] == "[" and line[-1] == "]":
            yield number, line[1:-1], None
        elif equals and key and line[0] not in "[<{":
            yield number, key, value
        else:
            raise WordTreeError(f"{file}, line {number}: {raw.strip()[:60]!r}; a line is [section], key=value or # ...")
