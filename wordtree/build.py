"""Graph -> tree: the rule of the YOLO9000 paper (section 4), and what the released tree shows beyond it.

    labels -> ids -> what stands above them -> one parent a node -> nodes that say nothing removed -> a WordTree

The paper: labels with a single path to the root go in first; each other label then takes the path that adds the
fewest new nodes. It does not say that a node which is no label and has one child is removed, but the count that it
prints (1369 for ImageNet-1k) and every row of its own tree need that. Ties are left open there and fixed here; the
report names them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from .errors import WordTreeError, unknown
from .labels import LabelMap, label_maps
from .taxonomy import Taxonomy, find_taxonomy
from .tree import WordTree, arrange

if TYPE_CHECKING:
    import networkx

TOP = ""  # the implicit root, while the tree is being built


@dataclass(frozen=True)
class Rules:
    """Where trees of one taxonomy may differ.

    Attributes:
        tie: between paths that add equally many new nodes: the "shorter" one, then the smaller ids from the root down;
            or the one "by name", alphabetically first from the label up.
        hoist: a leaf that is the only child of a label becomes its sibling.
        parents: id -> the parents it has instead of WordNet's.
    """

    tie: str
    hoist: bool = False
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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
    """One parent taken where the taxonomy offers several: the node, the parent taken, those left, and why."""

    id: str
    parent: str
    others: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Report:
    """What happened while a tree was built; `print(tree.report)` tells it in words.

    Attributes:
        taxonomy, rules, root: what it was built from; `root` is an id, or "" where the root has none.
        labels: how many different ids the labels came to.
        attached: labels without a path to the root, made children of the root.
        collapsed: nodes removed because they are no labels and had one child.
        hoisted: leaves moved up beside the label whose only child they were.
        dropped: labels that are no nodes because they are the root itself.
        choices: nodes with several parents, and the one taken.
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
    names: Mapping[str, str] = field(repr=False, compare=False)

    def name(self, id_: str) -> str:
        return f"{self.names[id_]} ({id_})" if id_ else "the root"

    def __str__(self) -> str:
        root = f", root {self.name(self.root)}" if self.root else ""
        lines = [f"{self.labels} labels, taxonomy {self.taxonomy!r}, rules {self.rules!r}{root}"]
        for what, ids in (
            ("dropped: is the root itself", self.dropped),
            ("attached to the root: no path to it", self.attached),
            ("collapsed: no label, one child", self.collapsed),
            ("hoisted beside the label above", self.hoisted),
        ):
            if ids:
                lines.append(f"{what}: {len(ids)}")
                lines += [f"  {self.name(id_)}" for id_ in ids]
        if self.choices:
            lines.append(f"several parents, one taken: {len(self.choices)}")
            for choice in self.choices:
                others = ", ".join(self.name(id_) for id_ in choice.others)
                lines.append(f"  {self.name(choice.id)}: {self.name(choice.parent)}, not {others}: {choice.why}")
        return "\n".join(lines)


def build_tree(
    *labels: str | LabelMap | Iterable[str],
    taxonomy: str | Taxonomy | networkx.DiGraph[Any] = "wordnet",
    rules: str = "paper",
    root: str | None = None,
    instances: bool = True,
) -> WordTree:
    """A WordTree over the labels of one or more data sets.

    Args:
        labels: each the name of a registered label map, a LabelMap, or an iterable of ids, synset names or words.
            Several are merged; a label given twice counts once.
        taxonomy: the name of a registered one, a Taxonomy, or a networkx.DiGraph with edges parent -> child.
        rules: "paper", or "darknet" for what the released YOLO9000 tree shows.
        root: a label of the taxonomy, the tree's implicit root; the taxonomy's own where left out.
        instances: whether an instance (the Sun) stands under what it is an instance of (star), as it does in Darknet's
            tree; without, it is a child of the root. For taxonomies that tell instances from kinds.

    Returns:
        The tree, nodes in depth-first preorder of groups, siblings by id, with `tree.report`.

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

    Source: Redmon and Farhadi, YOLO9000: Better, Faster, Stronger (2017), section 4.
    """
    if rules not in RULES:
        raise unknown("rules", rules, sorted(RULES))
    kinds, rule = find_taxonomy(taxonomy), RULES[rules]
    wanted = _ids_of(labels, kinds)
    top = kinds.root if root is None else kinds.resolve(root)
    # A root that was asked for is implicit even where a label names it. One that was not must not cost a label.
    dropped = [top] if root is not None and top in wanted else []
    keep_top = root is None and top in wanted
    order = sorted(wanted - set(dropped))
    if not order:
        raise WordTreeError(f"the only label is the root itself, {top}; give a label below it, or a higher root")

    above = _above(order, kinds, rule, top, keep_top, instances)
    paths = _count_paths(above, kinds.name)
    attached = [id_ for id_ in order if not paths[id_]]
    parent_of, choices = _one_parent_each(order, above, paths, rule, kinds)
    parent_of, collapsed = _collapse(parent_of, set(order))
    hoisted = _hoist(parent_of) if rule.hoist else []

    ids, parents = arrange({id_: parent_of[id_] or None for id_ in sorted(parent_of)})
    told = {*ids, *attached, *collapsed, *hoisted, *dropped, *((top and [top]) or [])}
    told |= {id_ for choice in choices for id_ in (choice.parent, *choice.others) if id_}
    names = {id_: kinds.name_of(id_) for id_ in sorted(told)}
    report = Report(
        taxonomy=kinds.name,
        rules=rules,
        root="" if keep_top else top or "",
        labels=len(wanted),
        attached=tuple(attached),
        collapsed=tuple(collapsed),
        hoisted=tuple(hoisted),
        dropped=tuple(dropped),
        choices=tuple(choices),
        names=names,
    )
    root_name = kinds.name_of(top) if top and not keep_top else "root"
    return WordTree(ids, parents, [names[id_] for id_ in ids], root_name=root_name, report=report)


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
                raise WordTreeError(f"label {label!r} of {given.name!r}: {error}") from None
    if not found:
        raise WordTreeError(f"no labels in {labels!r}; give a label map's name or at least one label")
    return found


def _above(
    wanted: list[str], kinds: Taxonomy, rule: Rules, top: str | None, keep_top: bool, instances: bool
) -> dict[str, tuple[str, ...]]:
    """Each label's and each ancestor's parents, up to the root, which is written TOP."""
    overrides = rule.parents if kinds.name == "wordnet" else {}
    above: dict[str, tuple[str, ...]] = {}
    todo = list(wanted)
    while todo:
        id_ = todo.pop()
        if id_ in above:
            continue
        if id_ == top:  # only where it is kept as a node
            above[id_] = (TOP,)
            continue
        parents = list(overrides.get(id_) or kinds.hypernyms(id_))
        if instances and kinds.instance_hypernyms is not None:
            parents += kinds.instance_hypernyms(id_)
        if top is None and not parents:
            parents = [TOP]
        elif not keep_top:
            parents = [TOP if parent == top else parent for parent in parents]
        above[id_] = tuple(dict.fromkeys(parents))
        todo += [parent for parent in above[id_] if parent != TOP]
    return above


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
    wanted: list[str], above: Mapping[str, tuple[str, ...]], paths: Mapping[str, int], rule: Rules, kinds: Taxonomy
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

    for label in wanted:
        if not paths[label]:
            place(label, TOP)
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
                    if len(ways) > 1:
                        choices.append(Choice(id_, ways[0][1], tuple(way[1] for way in ways[1:]), _why(ways, rule)))
    return parent_of, choices


def _why(ways: list[tuple[tuple[Any, ...], str]], rule: Rules) -> str:
    """In words, what set the best way apart from the next."""
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
