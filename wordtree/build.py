"""Graph -> tree: the rule of the YOLO9000 paper (section 4), and what the released tree shows beyond it.

    labels -> ids -> what stands above them -> one parent a node -> nodes that say nothing removed -> a WordTree

The paper: labels with a single path to the root go in first; each other label then takes the path that adds the
fewest new nodes. It does not say that a node which is no label and has one child is removed, but the count that it
prints (1369 for ImageNet-1k) and every row of its own tree need that. Ties are left open there and fixed here; the
report names them all.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import WordTreeError, unknown
from .labels import LabelMap, label_maps
from .taxonomy import Taxonomy, find_taxonomy
from .tree import ROOT, WordTree, arrange

if TYPE_CHECKING:
    import networkx

TOP = ""  # the implicit root, while the tree is being built
WIDE = 100  # so many root children are no kinds of the root any more but a flat list


@dataclass(frozen=True)
class Rules:
    """Where trees of one taxonomy may differ.

    Attributes:
        tie: between paths that add equally many new nodes: the "shorter" one, then the smaller ids from the root down;
            or the one "by name", alphabetically first from the label up.
        collapse: a node that is no label and has one child is removed.
        hoist: a leaf that is the only child of a label becomes its sibling.
        parents: id -> the parents it has instead of the taxonomy's; a preset's are written in WordNet 3.0's ids.
    """

    tie: str
    collapse: bool = True
    hoist: bool = False
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


TIES = ("by name", "shorter")
RULES = {
    "paper": Rules(tie="shorter"),
    # Read off Darknet's 9k.tree, whose makers left no program: these give 99.1 % of its parents back.
    "darknet": Rules(
        tie="by name",
        hoist=True,
        parents={
            "n06791372": ("n03183080",),  # signal -> device
            "n06793231": ("n06791372",),  # sign -> signal
            "n09229709": ("n03964744",),  # bubble -> plaything
        },
    ),
}


@dataclass(frozen=True)
class Choice:
    """The parent that a node was given where others were left: the node, the one taken, the others, and why.

    A parent is left for another that adds fewer nodes or comes first, because no path leads from it to the root, or
    because the rules name another. `parent` is "" for the root.
    """

    id: str
    parent: str
    others: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Report:
    """What happened while a tree was built; `print(tree.report)` tells it in words.

    Attributes:
        taxonomy, rules, root: what it was built from; `rules` with the parts that were given, such as "paper,
            hoist=True"; `root` is an id, or "" where the root has none.
        labels: how many different ids the labels came to.
        attached: labels without a path to the root, made children of the root.
        collapsed: nodes removed because they are no labels and had one child.
        hoisted: leaves moved up beside the label whose only child they were.
        dropped: labels that are no nodes because they are the root itself.
        choices: nodes that left a parent or more, labels with no path to the root among them, and the one taken.
        warning: what Python's warning said, where the root has so many children that they are a flat list; or "".
        names: id -> name, for all that is told here.
    """

    taxonomy: str
    rules: str
    root: str
    labels: int
    attached: tuple[str, ...]
    collapsed: tuple[str, ...]
    hoisted: tuple[str, ...]
    dropped: tuple[str, ...]
    choices: tuple[Choice, ...]
    warning: str
    names: Mapping[str, str] = field(repr=False, compare=False)

    def name(self, id_: str) -> str:
        return f"{self.names[id_]} ({id_})" if id_ else "the root"

    def __str__(self) -> str:
        root = f", root {self.name(self.root)}" if self.root else ""
        lines = [f"{self.labels} labels, taxonomy {self.taxonomy!r}, rules {self.rules!r}{root}"]
        if self.warning:
            lines.append(f"warning: {self.warning}")
        attached = set(self.attached)
        apart = {choice.id: self._left(choice, "not under") for choice in self.choices if choice.id in attached}
        for what, ids in (
            ("dropped: is the root itself", self.dropped),
            ("attached to the root: no path to it", self.attached),
            ("collapsed: no label, one child", self.collapsed),
            ("hoisted beside the label above", self.hoisted),
        ):
            if ids:
                lines.append(f"{what}: {len(ids)}")
                lines += [f"  {self.name(id_)}{apart.get(id_, '')}" for id_ in ids]
        taken = [choice for choice in self.choices if choice.id not in apart]
        if taken:
            lines.append(f"several parents, one taken: {len(taken)}")
            for choice in taken:
                parents = f"{self.name(choice.parent)}{self._left(choice, 'not')}"
                lines.append(f"  {self.name(choice.id)}: {parents}: {choice.why}")
        return "\n".join(lines)

    def _left(self, choice: Choice, how: str) -> str:
        return f", {how} {', '.join(map(self.name, choice.others))}"


def build_tree(
    *labels: str | LabelMap | Iterable[str],
    taxonomy: str | Path | Taxonomy | networkx.DiGraph[Any] | Any = "wordnet",
    rules: str = "paper",
    root: str | None = None,
    instances: bool = True,
    tie: str | None = None,
    collapse: bool | None = None,
    hoist: bool | None = None,
    parents: Mapping[str, str | Iterable[str]] | None = None,
) -> WordTree:
    """A WordTree over the labels of one or more data sets.

    Args:
        labels: each the name of a registered label map, a LabelMap, or an iterable of ids, synset names or words.
            Several are merged; a label given twice counts once.
        taxonomy: the name of a registered one, a file that `read_taxonomy` reads, a Taxonomy, a networkx.DiGraph with
            edges parent -> child, or your own copy of WordNet 3.0: a path to its files or an nltk corpus reader, as
            `taxonomy.wordnet_from` takes them.
        rules: "paper", or "darknet" for what the released YOLO9000 tree shows. `Rules` says what each part does; a part
            given here stands instead of the preset's.
        root: a label of the taxonomy, the tree's implicit root; the taxonomy's own where left out.
        instances: whether an instance (the Sun) stands under what it is an instance of (star), as it does in Darknet's
            tree; without, it is a child of the root. For taxonomies that tell instances from kinds.
        tie: of paths that add equally many nodes, the "shorter" one or the first "by name".
        collapse: whether a node that is no label and has one child is removed.
        hoist: whether a leaf that is the only child of a label becomes its sibling.
        parents: label -> the label or labels that it stands under, whatever the taxonomy says.

    Returns:
        The tree, nodes in depth-first preorder of groups, siblings by id, with `tree.report`. A label without a path to
        the root is a child of the root; a warning tells where they make it a group of a hundred or more.

    Raises:
        WordTreeError: an unknown label map, taxonomy, rule or label; a word of several senses (they are listed); no
            labels; a taxonomy that runs in a circle.

    Example:
        >>> tree = build_tree("imagenet1k")
        >>> len(tree)
        1369
        >>> tree = build_tree(["zebra", "giraffe", "bicycle.n.01"])
        >>> [tree.names[node] for node in tree.path(tree.find("zebra"))]
        ['whole', 'ungulate', 'zebra']
        >>> tree = build_tree(["zebra", "street sign", "bicycle.n.01"], parents={"street sign": "artifact"})
        >>> [tree.names[node] for node in tree.path(tree.find("street sign"))]
        ['whole', 'artifact', 'street sign']

    Source: Redmon and Farhadi, YOLO9000: Better, Faster, Stronger (2017), section 4.
    """
    if rules not in RULES:
        raise unknown("rules", rules, sorted(RULES))
    kinds = find_taxonomy(taxonomy)
    rule, told_rules = _rule(rules, kinds, tie=tie, collapse=collapse, hoist=hoist, parents=parents)
    wanted = _ids_of(labels, kinds)
    top = kinds.root if root is None else kinds.resolve(root)
    # A root that was asked for is implicit even where a label names it. One that was not must not cost a label.
    dropped = [top] if root is not None and top in wanted else []
    keep_top = root is None and top in wanted
    order = sorted(wanted - set(dropped))
    if not order:
        raise WordTreeError(f"the only label is the root itself, {top}; give a label below it, or a higher root")

    above, aside = _above(order, kinds, rule, top, keep_top, instances)
    paths = _count_paths(above, kinds.name)
    attached = [id_ for id_ in order if not paths[id_]]
    parent_of, choices = _one_parent_each(order, above, aside, paths, rule, kinds)
    parent_of, collapsed = _collapse(parent_of, set(order)) if rule.collapse else (parent_of, [])
    hoisted = _hoist(parent_of) if rule.hoist else []

    ids, places = arrange({id_: parent_of[id_] or None for id_ in sorted(parent_of)})
    told = {*ids, *attached, *collapsed, *hoisted, *dropped, *((top and [top]) or [])}
    told |= {id_ for choice in choices for id_ in (choice.parent, *choice.others) if id_}
    names = {id_: kinds.name_of(id_) for id_ in sorted(told)}
    warning = _too_wide(places.count(ROOT), len(attached), kinds, top)
    if warning:
        warnings.warn(warning, stacklevel=2)
    report = Report(
        taxonomy=kinds.name,
        rules=told_rules,
        root="" if keep_top else top or "",
        labels=len(wanted),
        attached=tuple(attached),
        collapsed=tuple(collapsed),
        hoisted=tuple(hoisted),
        dropped=tuple(dropped),
        choices=tuple(choices),
        warning=warning,
        names=names,
    )
    root_name = kinds.name_of(top) if top and not keep_top else "root"
    return WordTree(ids, places, [names[id_] for id_ in ids], root_name=root_name, report=report)


def _rule(preset: str, kinds: Taxonomy, **parts: Any) -> tuple[Rules, str]:
    """A preset with the parts that were given, and how the report writes it."""
    given = {part: value for part, value in parts.items() if value is not None}
    told = [f"{part}={f'{len(value)} given' if part == 'parents' else value}" for part, value in given.items()]
    if given.get("tie", "shorter") not in TIES:
        raise unknown("tie", given["tie"], TIES)
    if "parents" in given:
        several = {label: [above] if isinstance(above, str) else above for label, above in given["parents"].items()}
        given["parents"] = {
            kinds.resolve(label): tuple(kinds.resolve(one) for one in above) for label, above in several.items()
        }
    elif kinds.name != "wordnet":
        given["parents"] = {}
    return replace(RULES[preset], **given), ", ".join([preset, *told])


def _too_wide(width: int, attached: int, kinds: Taxonomy, top: str | None) -> str:
    """The warning for a root whose children are a flat list; empty where they are not."""
    if width < WIDE:
        return ""
    root = kinds.name_of(top) if top else "the root"
    return (
        f"{width} nodes stand directly under {root}, {attached} of them labels without a path to it, and share one "
        "softmax; give a root= that stands above them (all of WordNet is under 'entity'), or parents= for them"
    )


def _ids_of(labels: tuple[str | LabelMap | Iterable[str], ...], kinds: Taxonomy) -> set[str]:
    """The different ids that all labels come to."""
    found: set[str] = set()
    for given in labels:
        if isinstance(given, str):
            try:
                given = label_maps()[given]
            except WordTreeError as error:
                raise WordTreeError(f"{error}; words, synset names and ids are given in a list: [{given!r}]") from None
        elif isinstance(given, Mapping):
            raise WordTreeError(
                f"labels as a {type(given).__name__}; give LabelMap(name, labels, ids), or a list of ids"
            )
        if not isinstance(given, LabelMap):
            found.update(kinds.resolve(str(text)) for text in given)
            continue
        for label, id_ in zip(given.labels, given.ids, strict=True):
            try:
                found.add(kinds.resolve(id_))
            except WordTreeError as error:
                other = (
                    "; or, if the map's ids are of another taxonomy, that: taxonomy=" if kinds.name == "wordnet" else ""
                )
                raise WordTreeError(f"label {label!r} of {given.name!r}: {error}{other}") from None
    if not found:
        raise WordTreeError(f"no labels in {labels!r}; give a label map's name or at least one label")
    return found


def _above(
    wanted: list[str], kinds: Taxonomy, rule: Rules, top: str | None, keep_top: bool, instances: bool
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Each label's and each ancestor's parents, up to the root, which is written TOP; and those that were set aside,
    because the rules give others or because an instance is not to stand under its kind."""
    above: dict[str, tuple[str, ...]] = {}
    aside: dict[str, tuple[str, ...]] = {}
    renamed = {} if keep_top else {top: TOP}
    todo = list(wanted)
    while todo:
        id_ = todo.pop()
        if id_ in above:
            continue
        if id_ == top:  # only where it is kept as a node
            above[id_] = (TOP,)
            continue
        parents = kinds.above(id_, instances)
        left = [] if instances else kinds.above(id_)[len(parents) :]
        if id_ in rule.parents:
            parents, left = list(rule.parents[id_]), parents + left
        if top is None and not parents:
            parents = [TOP]
        above[id_] = tuple(dict.fromkeys(renamed.get(parent, parent) for parent in parents))
        if left:
            aside[id_] = tuple(renamed.get(parent, parent) for parent in left)
        todo += [parent for parent in above[id_] if parent != TOP]
    return above, aside


def _count_paths(above: Mapping[str, tuple[str, ...]], name: str) -> dict[str, int]:
    """Each id's number of paths to the root, ancestors first; 0 where there is none."""
    try:
        order = list(TopologicalSorter(above).static_order())
    except CycleError as error:
        circle = " > ".join(reversed(error.args[1]))
        raise WordTreeError(
            f"taxonomy {name!r} runs in a circle: {circle}; a thing cannot stand above itself"
        ) from None
    paths: dict[str, int] = {}
    for id_ in order:
        paths[id_] = 1 if id_ == TOP else sum(paths[parent] for parent in above.get(id_, ()))
    return paths


def _one_parent_each(
    wanted: list[str],
    above: Mapping[str, tuple[str, ...]],
    aside: Mapping[str, tuple[str, ...]],
    paths: Mapping[str, int],
    rule: Rules,
    kinds: Taxonomy,
) -> tuple[dict[str, str], list[Choice]]:
    """Place the labels one by one, in order of id: id -> its one parent, and the choices made on the way.

    A node that is placed keeps its parent: a later label's path ends where it meets the tree.
    """
    rank = {id_: at for at, id_ in enumerate(paths)}  # ancestors first
    sort_name = kinds.sort_name or kinds.name_of
    parent_of: dict[str, str] = {}
    path_to: dict[str, tuple[str, ...]] = {TOP: ()}  # the placed nodes' paths, root side first
    choices: list[Choice] = []

    def place(id_: str, parent: str) -> None:
        parent_of[id_] = parent
        path_to[id_] = (*path_to[parent], id_)

    def note(id_: str, parent: str, others: Iterable[str], why: str) -> None:
        if left := tuple(other for other in dict.fromkeys(others) if other != parent):
            choices.append(Choice(id_, parent, left, "given by the rules" if id_ in rule.parents else why))

    for label in wanted:
        if not paths[label]:
            place(label, TOP)
            note(label, TOP, (*above[label], *aside.get(label, ())), "no path to the root")
    for single in (True, False):
        for label in wanted:
            if label in path_to or (paths[label] == 1) is not single:
                continue
            # The nodes not yet on the tree that a path of this label may add, ancestors first.
            new, todo = set(), [label]
            while todo:
                id_ = todo.pop()
                if id_ not in path_to and id_ not in new:
                    new.add(id_)
                    todo += [parent for parent in above[id_] if paths[parent]]
            # Best way to each of them: (new nodes, path). What is best through a parent is best for that parent.
            best: dict[str, tuple[int, tuple[str, ...]]] = {}
            taken: dict[str, list[tuple[tuple[Any, ...], str]]] = {}
            for id_ in sorted(new, key=rank.__getitem__):
                ways = []
                for parent in above[id_]:
                    if paths[parent]:
                        added, path = best.get(parent) or (0, path_to[parent])
                        tie: tuple[Any, ...] = (len(path), path)
                        if rule.tie == "by name":
                            tie = (sort_name(parent) if parent else "", parent)
                        ways.append(((added, *tie), parent))
                taken[id_] = sorted(ways)
                added, path = best.get(taken[id_][0][1]) or (0, path_to[taken[id_][0][1]])
                best[id_] = added + 1, (*path, id_)
            for id_ in best[label][1]:
                if id_ not in path_to:
                    ways = taken[id_]
                    place(id_, ways[0][1])
                    if len(above[id_]) > 1 or id_ in aside:
                        others = (*(way[1] for way in ways[1:]), *above[id_], *aside.get(id_, ()))
                        note(id_, ways[0][1], others, _why(ways, rule))
    return parent_of, choices


def _why(ways: list[tuple[tuple[Any, ...], str]], rule: Rules) -> str:
    """In words, what set the best way apart from the next."""
    if len(ways) == 1:
        return "the only way to the root"
    first, second = ways[0][0], ways[1][0]
    if first[0] != second[0]:
        return f"new nodes above it {first[0]}, not {second[0]}"
    if rule.tie == "by name":
        return "first by name"
    if first[1] != second[1]:
        return f"nodes above it {first[1]}, not {second[1]}"
    return "as short; smaller ids from the root down"


def _collapse(parent_of: Mapping[str, str], labels: set[str]) -> tuple[dict[str, str], list[str]]:
    """Remove the nodes that are no labels and have one child; what stood below moves up."""
    children: dict[str, int] = {}
    for parent in parent_of.values():
        children[parent] = children.get(parent, 0) + 1
    collapsed = {id_ for id_ in parent_of if id_ not in labels and children.get(id_) == 1}
    kept: dict[str, str] = {}
    for id_, parent in parent_of.items():
        while parent in collapsed:
            parent = parent_of[parent]
        if id_ not in collapsed:
            kept[id_] = parent
    return kept, sorted(collapsed)


def _hoist(parent_of: dict[str, str]) -> list[str]:
    """Move, in place, every leaf that is an only child up beside its parent, as Darknet's cheeseburger was moved."""
    children: dict[str, list[str]] = {}
    for id_, parent in parent_of.items():
        children.setdefault(parent, []).append(id_)
    hoisted = sorted(
        group[0] for parent, group in children.items() if len(group) == 1 and parent and group[0] not in children
    )
    for id_ in hoisted:
        parent_of[id_] = parent_of[parent_of[id_]]
    return hoisted
