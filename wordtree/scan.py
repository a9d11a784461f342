"""Text files of lines, tables, JSON and YAML, each piece with its line; what is wrong is noted, not raised.

A reader raises the first fault; `wordtree check` tells them all. JSON and YAML are read as one thing: text, numbers,
lists and mappings, each an `Item`. Nothing in a file is constructed, called or followed: a tag, an alias or a key given
twice is a fault.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from .errors import WordTreeError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
_TOKEN = re.compile(r'\n|"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|[^\s:,{}\[\]"]+')
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")


@dataclass(frozen=True)
class Fault:
    """Something wrong in a file.

    Attributes:
        path, line: where; lines count from 1.
        what: what is wrong, and what would do.
        mild: read all the same, though others may stumble over it.
    """

    path: Path
    line: int
    what: str
    mild: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


class Stopped(Exception):
    """What follows in the file means nothing; the fault is noted."""


@dataclass
class Source:
    """A file, and the faults found in it so far."""

    path: Path
    faults: list[Fault] = field(default_factory=list)

    def fault(self, line: int, what: str, mild: bool = False) -> None:
        self.faults.append(Fault(self.path, line, " ".join(what.splitlines()), mild))

    def stop(self, line: int, what: str) -> NoReturn:
        self.fault(line, what)
        raise Stopped

    def raise_first(self) -> None:
        """Raise the first fault that is not mild, by line."""
        for fault in sorted(self.faults, key=lambda fault: fault.line):
            if not fault.mild:
                raise WordTreeError(f"{fault.path}, line {fault.line}: {fault.what}")


class Item(NamedTuple):
    """A piece of JSON or YAML.

    Attributes:
        line: where it stands; for the value of a key, the key's line.
        value: text, a number, a truth, None, a list of items, or a dict of text -> item.
    """

    line: int
    value: Any


class Table(NamedTuple):
    """The header's columns, and the rows, each (line, one cell a column)."""

    columns: list[str]
    rows: list[tuple[int, list[str]]]


# ---------------------------------------------------------------------- text and lines


def text_of(source: Source) -> str:
    """The file as text. Bytes that are not UTF-8 come out as U+FFFD, NUL bytes stay, each noted by line.

    Raises:
        FileNotFoundError: no such file.
    """
    path = source.path
    if not path.exists():
        raise FileNotFoundError(f"no file {str(path)!r}; give one that exists, such as what `wordtree build -o` wrote")
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        source.stop(1, "UTF-16 text; save it as UTF-8")
    if content.startswith(codecs.BOM_UTF8):
        content = content.removeprefix(codecs.BOM_UTF8)
        read_by_all = path.suffix in (*DELIMITERS, ".yaml", ".yml")  # spreadsheets write one; Darknet takes it as text
        source.fault(1, "a byte-order mark before the text; save it as UTF-8 without one", mild=read_by_all)
    if b"\0" in content or not _is_utf8(content):
        for line, part in enumerate(content.split(b"\n"), start=1):
            if b"\0" in part:
                source.fault(line, f"{part.count(0)} NUL bytes; the file is damaged, take it from its source again")
            elif not _is_utf8(part):
                source.fault(line, "not UTF-8 text; save it as UTF-8")
    return content.decode("utf-8", errors="replace")


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def lines_of(source: Source) -> list[str]:
    """The lines of a text file without their ends; Windows' ends are taken too."""
    lines = text_of(source).replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


# ---------------------------------------------------------------------- tables


def table_of(source: Source) -> Table:
    """A .csv or .tsv with a header; rows of another width are noted and left out."""
    text = text_of(source)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=DELIMITERS[source.path.suffix], strict=True)
    columns: list[str] = []
    found: list[tuple[int, list[str]]] = []
    blank: list[int] = []
    line = 1
    try:
        for cells in rows:
            at, line = line, rows.line_num + 1
            if not any(cells):
                blank.append(at)
                continue
            for number in blank:
                source.fault(number, "an empty line; take it out", mild=True)
            blank = []
            if not columns:
                columns = [cell.strip() for cell in cells]
                twice = next((column for column in columns if columns.count(column) > 1), None)
                if twice is not None:
                    source.stop(at, f"column {twice!r} stands twice; give a column a name of its own")
            elif len(cells) != len(columns):
                source.fault(at, f"{len(cells)} cells for the columns {', '.join(columns)}; give one each")
            else:
                found.append((at, cells))
    except csv.Error as error:
        source.stop(max(rows.line_num, 1), f"not a table ({error}); quotes stand around a whole cell, in pairs")
    return Table(columns, found)


# ---------------------------------------------------------------------- JSON and YAML


def document_of(source: Source) -> Item:
    """A .json, .yaml or .yml as items.

    Plain whole numbers are ints, an empty value is None; all else that YAML leaves unquoted is text as written: `no` is
    a word. A key given twice keeps its first value.
    """
    text = text_of(source)
    if any(not fault.mild for fault in source.faults):
        raise Stopped
    parse = _json if source.path.suffix == ".json" else _yaml
    return _items(source, parse(source, text))


class _Event(NamedTuple):
    """One step through a document: "{" or "[" opens, "end" closes, "" is a scalar."""

    kind: str
    value: Any
    line: int
    plain: bool = False  # a scalar of YAML without quotes


def _items(source: Source, events: Iterable[_Event]) -> Item:
    """Put events together, without recursion: a file may nest as deep as it likes."""
    top = Item(1, [])
    holders: list[Item] = [top]
    keys: list[_Event | None] = [None]  # of each open mapping, the key that waits for its value
    for event in events:
        if event.kind == "end":
            holders.pop()
            keys.pop()
            continue
        holder, key = holders[-1].value, keys[-1]
        if isinstance(holder, dict) and key is None:
            if event.kind:
                source.stop(event.line, "a list or a mapping as a key; a key is text")
            keys[-1] = event
            continue
        value: Any = event.value
        if event.kind:
            value = {} if event.kind == "{" else []
        elif event.plain:
            value = _plain(value)
        item = Item(event.line if key is None else key.line, value)
        if key is None:
            holder.append(item)
        elif key.value in holder:
            before = holder[key.value].line
            source.fault(key.line, f"key {key.value!r} stands on line {before} already; keys stand once in a mapping")
        else:
            holder[key.value] = item
        keys[-1] = None
        if event.kind:
            holders.append(item)
            keys.append(None)
    if not top.value:
        source.stop(1, "nothing in the file; give a list or a mapping")
    document: Item = top.value[0]
    return document


def _plain(text: str) -> str | int | None:
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    return int(text) if _INTEGER.fullmatch(text) and len(text) < 19 else text


def _json(source: Source, text: str) -> Iterator[_Event]:
    try:
        json.loads(text)  # says what is wrong; the tokens below are those of a sound document
    except json.JSONDecodeError as error:
        source.stop(error.lineno, f"not JSON ({error.msg}); mend the text there or just before")
    except (RecursionError, ValueError):
        source.stop(1, "nested too deep, or a number too long; no tree needs either")
    line = 1
    for token in _TOKEN.findall(text):
        if token == "\n":
            line += 1
        elif token in "{[":
            yield _Event(token, None, line)
        elif token in "}]":
            yield _Event("end", None, line)
        else:
            yield _Event("", json.loads(token), line)


def _yaml(source: Source, text: str) -> Iterator[_Event]:
    import yaml

    documents = 0
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    source.stop(line, "a second document; give each a file of its own")
            elif isinstance(event, yaml.AliasEvent):
                source.stop(line, f"an alias, *{event.anchor}; write out what it stands for")
            elif isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) is not None:
                source.stop(line, f"a tag, {event.tag}; give plain text, lists and mappings")  # type: ignore[attr-defined]
            elif isinstance(event, yaml.ScalarEvent):
                yield _Event("", event.value, line, plain=not event.style)
            elif isinstance(event, yaml.MappingStartEvent):
                yield _Event("{", None, line)
            elif isinstance(event, yaml.SequenceStartEvent):
                yield _Event("[", None, line)
            elif isinstance(event, yaml.CollectionEndEvent):
                yield _Event("end", None, line)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        source.stop(mark.line + 1 if mark else 1, f"not YAML ({error.problem}); mend the text there or just before")
    except yaml.YAMLError as error:  # a character that YAML does not allow
        line = text.encode()[: getattr(error, "position", 0)].count(b"\n") + 1
        source.stop(line, "not YAML (a control character); take it out")
