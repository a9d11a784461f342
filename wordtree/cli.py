"""The command `wordtree`: show, build, merge, check, labels, plugins.

The parser is argparse's, so that a word is shown in less than half a second; what a command needs is imported when it
runs. A WordTreeError or an OSError is told in one line on stderr, with exit code 2.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ._version import __version__
from .errors import WordTreeError

if TYPE_CHECKING:
    from .labels import LabelMap


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; the entry point `wordtree`.

    Args:
        arguments: the words after `wordtree`; the process's own where left out.
    """
    given = parser().parse_args(arguments)
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        given.run(given)
        sys.stdout.flush()
    except BrokenPipeError:  # `wordtree show coco | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (WordTreeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    finally:
        warnings.formatwarning = before


def parser() -> argparse.ArgumentParser:
    """The whole command line, a function a command."""
    top = argparse.ArgumentParser(prog="wordtree", description="Labels that form a tree.")
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    maps = "a label map's name or file (.csv, .tsv, .yaml, .json)"

    show = commands.add_parser("show", help="show a word, a node of a tree, or what label maps know of one")
    what = f"a word, a synset name (dog.n.01), an id, or {maps}; several maps share one tree"
    show.add_argument("what", metavar="WORD_OR_MAP", nargs="*", help=what)
    show.add_argument("--tree", metavar="FILE", type=Path, help="a tree: .json, .csv or Darknet's .tree")
    show.add_argument("--taxonomy", default="wordnet", metavar="NAME_OR_FILE", help="where label maps have their ids")
    show.add_argument("--format", choices=("text", "svg", "html"), default="text", help="default: text")
    show.set_defaults(run=_show)

    build = commands.add_parser("build", help="build one tree from the labels of one or more data sets")
    build.add_argument("labels", metavar="LABELS", nargs="+", help=f"{maps}; or a word, synset name or id")
    build.add_argument("--rules", default="paper", help="paper (default) or darknet")
    build.add_argument("--tie", help="a part of the rules: shorter, or by name")
    for part, what in (
        ("collapse", "remove what is no label and has one child"),
        ("hoist", "move a label's only leaf up beside it"),
        ("instances", "the Sun stands under star (default)"),
    ):
        build.add_argument(f"--{part}", action=argparse.BooleanOptionalAction, default=None, help=what)
    taxonomy = "a registered taxonomy, a file, or your own copy of WordNet 3.0 (default: wordnet)"
    build.add_argument("--taxonomy", default="wordnet", metavar="NAME_OR_FILE", help=taxonomy)
    build.add_argument("--root", metavar="LABEL", help="the root, as a word, synset name or id of the taxonomy")
    build.add_argument(
        "--report",
        action="store_true",
        help="print what was attached, collapsed and chosen; of several maps, what they share",
    )
    build.set_defaults(run=_build)

    merge = commands.add_parser("merge", help="merge label maps into one; report where they meet")
    merge.add_argument("labels", metavar="LABELS", nargs="+", help=maps)
    merge.add_argument("--report", action="store_true", help="print what the maps share, where one holds another")
    merge.set_defaults(run=_merge)

    check = commands.add_parser("check", help="check a file: every fault by line, or what is in it")
    check.add_argument("file", metavar="FILE", type=Path, help="a tree, a taxonomy or a label map; .names or .map")
    check.set_defaults(run=_check)

    labels = commands.add_parser("labels", help="list the label maps on offer, or the labels of one; guess synsets")
    labels.add_argument("name", metavar="NAME", nargs="?", help=maps)
    labels.add_argument(
        "--guess",
        metavar="FILE",
        type=Path,
        help="propose a synset for each name of a .txt (a name a line) or COCO-style annotation file, for review",
    )
    labels.set_defaults(run=_labels)

    plugins = commands.add_parser(
        "plugins", help="list the plug-ins, where they are from, what they offer, and what failed"
    )
    plugins.set_defaults(run=_plugins)

    for command in (show, build, merge, labels):
        command.add_argument("-o", "--out", metavar="FILE", type=Path, help="file to write")
    return top


# ---------------------------------------------------------------------- the commands


def _show(given: argparse.Namespace) -> None:
    import dataclasses

    from . import show
    from .tree import WordTree

    tree = WordTree.load(given.tree) if given.tree else None
    maps = [found for text in given.what if (found := _label_map(text)) is not None]
    if len(maps) < len(given.what) and len(given.what) > 1:
        from .labels import label_maps

        maps = [_label_map(text) or label_maps()[text] for text in given.what]  # says which of them is no map
    if maps:
        from .build import build_tree

        picture = show.picture_of_tree(tree if tree is not None else build_tree(*maps, taxonomy=given.taxonomy), *maps)
    elif tree is not None and given.what:
        node = tree.find(given.what[0])
        whole = given.format == "html"
        picture = show.picture_of_tree(tree, node=node) if whole else show.picture_of_node(tree, node)
    elif tree is not None:
        picture = dataclasses.replace(show.picture_of_tree(tree), title=given.tree.name)
    elif given.what:
        _known_word(given.what[0])
        picture = show.picture_of_word(given.what[0], whole=given.format == "html")
    else:
        raise WordTreeError("nothing to show; give a word, label maps, or a tree: --tree FILE")

    if given.format == "html":
        from .web import page

        _put(page(picture), given.out)
    elif given.format == "svg":
        _put(show.svg(picture), given.out)
    elif given.out is None and sys.stdout.isatty():
        show.print_rich(picture)
    else:
        plain = given.out is None and not _speaks_unicode()
        _put(show.text(picture, ascii_only=plain) + "\n", given.out)


def _build(given: argparse.Namespace) -> None:
    from .build import build_tree
    from .show import summary

    maps = {text: _label_map(text) for text in given.labels}
    words = [text for text, found in maps.items() if found is None]
    if given.taxonomy == "wordnet":
        for word in words:
            _known_word(word)
    labels: list[LabelMap | list[str]] = [found for found in maps.values() if found is not None]
    labels += [words] if words else []
    tree = build_tree(
        *labels,
        taxonomy=given.taxonomy,
        rules=given.rules,
        root=given.root,
        tie=given.tie,
        collapse=given.collapse,
        hoist=given.hoist,
        instances=given.instances is not False,
    )
    if given.report:
        print(tree.report)
        several = [found for found in maps.values() if found is not None]
        if len(several) > 1:
            from .merging import compare

            print(f"\n{compare(several, tree)}")
    if given.out is None:
        print(f"{summary(tree)}; -o FILE writes it")
    else:
        print(f"{tree.save(given.out)}: {summary(tree)}")


def _merge(given: argparse.Namespace) -> None:
    from .labels import label_maps, to_csv
    from .merging import compare, merge

    maps = [_label_map(text) or label_maps()[text] for text in given.labels]
    merged = merge(maps)
    if given.report:
        print(compare(maps))
    if given.out is not None:
        print(f"{merged.save(given.out)}: {len(merged)} labels, {len(set(merged.ids))} different ids")
    elif not given.report:
        _put(to_csv(merged), None)


def _check(given: argparse.Namespace) -> None:
    from .check import check

    faults, told = check(given.file)
    if not faults:
        print(_printable("\n".join([f"{given.file}: {told[0]}", *told[1:]])))
        return
    for fault in faults:
        print(_printable(str(fault)))
    print(_printable(f"{given.file}: {len(faults)} fault{'s' * (len(faults) > 1)}"))
    sys.exit(1)


def _labels(given: argparse.Namespace) -> None:
    from .labels import label_maps, to_csv

    if given.guess is not None:
        from .guess import guess_file

        if given.name is not None:
            raise WordTreeError(f"{given.name!r} and --guess {str(given.guess)!r}; give one of the two")
        review = guess_file(given.guess)
        if given.out is None:
            _put(review.to_csv(), None)
        else:
            print(f"{review.save(given.out)}: {review}")
    elif given.name is not None:
        labels = _label_map(given.name) or label_maps()[given.name]
        if given.out is None:
            _put(to_csv(labels), None)
        else:
            print(f"{labels.save(given.out)}: {len(labels)} labels")
    else:
        listing = (f"{name:<16}{len(labels):>7} labels\n" for name, labels in sorted(label_maps().items()))
        _put("".join(listing), given.out)


def _plugins(given: argparse.Namespace) -> None:
    from . import plugins

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each fault is in the list
        listing = plugins.listing()
        offers = {
            "label maps": sorted(plugins.label_maps()),
            "taxonomies": sorted(plugins.taxonomies()),
            "detectors": sorted(plugins.detectors()),
        }
    for plugin in listing:
        told = [", ".join(plugin.hooks), f"FAULT: {plugin.fault}" if plugin.fault else ""]
        print(_printable(f"{plugin.name:<16}{plugin.source:<28}{'; '.join(filter(None, told))}"))
    for kind, names in offers.items():
        print(f"{kind}: {', '.join(names) or 'none'}")


# ---------------------------------------------------------------------- what they share


def _label_map(text: str) -> LabelMap | None:
    """The label map of a file or of a registered name; None where it is neither. Plug-ins are asked for a name only."""
    from .labels import SUFFIXES, WORDNET_ID, LabelMap, label_maps

    if Path(text).suffix in SUFFIXES:
        return LabelMap.read(text)
    if WORDNET_ID.fullmatch(text):
        return None
    maps = label_maps()
    return maps[text] if text in maps or text in maps.refused else None


def _known_word(text: str) -> None:
    """Raise where a text is neither a label map nor a noun, saying what is near in both."""
    from . import wordnet
    from .labels import label_maps

    if not wordnet.candidates(text):
        try:
            label_maps()[text]
        except WordTreeError as error:
            try:
                wordnet.id_of(text)
            except WordTreeError as other:
                raise WordTreeError(f"{error}; and {other}") from None


def _speaks_unicode() -> bool:
    try:
        "└─".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _printable(text: str) -> str:
    """Text that stdout can take: what it has no letters for is written as Python would escape it."""
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _put(text: str, out: Path | None) -> None:
    from .formats import write_whole

    if out is None:
        sys.stdout.write(text)
    else:
        write_whole(out, text)
