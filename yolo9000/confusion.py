"""Confusion along the tree: how what a box or a picture is called stands to what is there.

Boxes are matched to objects by place, whatever they are called: from the best score down, each takes the free object
of its image that it overlaps most, from an IoU of .5 on. What it is called is then compared with the object's node:
exact, above it by so many steps, below it, a sibling, a cousin through their common ancestor, unrelated. Objects that
no box took are missed; boxes that took no object are background, or second boxes on an object that was taken.
"""

import csv
import io
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wordtree import WordTree
from wordtree.metrics import RELATIONS, hierarchical_scores, relations
from wordtree.tree import ROOT

from .files import write_text
from .scores import Truths, pairs

IOU = 0.5  # from which on a box lies on an object
MISSED = -2  # in the place of an answer: no box took the object
THRESHOLDS = np.linspace(0, 1, 101)
SHADES = ("exact", "ancestor", "descendant", "sibling", "cousin", "unrelated", "unnamed", "missed")


@dataclass(frozen=True)
class Answers:
    """What a network would call boxes or pictures, a row each, before a tree threshold cuts their ways off.

    image int64 [n]; boxes float64 [n, 4] xyxy, of pictures of no use; objectness float64 [n], 1 for pictures; path
    int64 [n, depth], -1 past the end; probs float64 [n, depth], Pr of each step, 0 past the end.
    """

    image: NDArray[np.int64]
    boxes: NDArray[np.float64]
    objectness: NDArray[np.float64]
    path: NDArray[np.int64]
    probs: NDArray[np.float64]

    def at(self, rows: Any) -> "Answers":
        """Some rows."""
        return Answers(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def sureness(self, rule: str = "path") -> NDArray[np.float64]:
        """float64 [n, depth]: what a tree threshold is held against at each step, falling: Pr, or in Darknet's rules
        the product of Pr over the path; of "darknet-2018" the first step is taken in any case."""
        if rule == "path":
            return self.probs
        products = self.probs.cumprod(axis=1)
        if rule == "darknet-2018":
            products[:, 0] = np.inf
        return products

    def said(self, tree_threshold: float, rule: str = "path") -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Nodes int64 [n], -1 for the root, and Pr float64 [n], 1 at the root: as `wordtree.nn.descend` answers."""
        steps = ((self.sureness(rule) > tree_threshold) & (self.path >= 0)).sum(1)
        row = np.arange(len(steps))
        last = np.maximum(steps - 1, 0)
        return np.where(steps > 0, self.path[row, last], ROOT), np.where(steps > 0, self.probs[row, last], 1.0)


class Match(NamedTuple):
    """Which object each box took."""

    truth: NDArray[np.int64]  # [boxes]: the row of its object; -1 where it took none
    again: NDArray[np.bool_]  # [boxes]: took none, and lies on an object that another box took
    aside: NDArray[np.bool_]  # [boxes]: took none, and lies on an object that does not count


def match(answers: Answers, scores: NDArray[np.float64], truths: Truths) -> Match:
    """Match boxes to objects by place. scores: float64 [boxes], the best chooses first. Ignored objects are not taken;
    of a crowd it is enough that half of the box lies in it."""
    counts = ~(truths.ignored | truths.crowd)
    row, at, overlap, inside = pairs(answers.image, answers.boxes, truths.image, truths.boxes)
    taken = np.full(len(counts), False)
    truth = np.full(len(scores), -1)
    good = np.flatnonzero((overlap >= IOU) & counts[at])
    order = good[np.lexsort((at[good], -overlap[good], row[good], -scores[row[good]]))]
    for box, wanted in zip(row[order].tolist(), at[order].tolist(), strict=True):
        if truth[box] < 0 and not taken[wanted]:
            truth[box], taken[wanted] = wanted, True
    again, aside = np.zeros((2, len(scores)), dtype=bool)
    again[row[good]] = True
    aside[row[~counts[at] & ((overlap >= IOU) | (truths.crowd[at] & (inside >= IOU)))]] = True
    free = truth < 0
    return Match(truth, again & free, aside & free & ~again)


@dataclass(frozen=True)
class Confusion:
    """Truths and what they were called, and what was called where nothing is.

    Attributes:
        tree: of the nodes.
        truths: int64 [rows].
        answers: int64 [rows]: nodes, -1 for the root, -2 for missed.
        background, second: int64 [boxes]: the nodes of boxes on no object, and of second boxes on one.
        settings: what it was made with, such as threshold and tree_threshold.
    """

    tree: WordTree
    truths: NDArray[np.int64]
    answers: NDArray[np.int64]
    background: NDArray[np.int64]
    second: NDArray[np.int64]
    settings: dict[str, float]

    @property
    def shades(self) -> NDArray[np.int64]:
        """int64 [rows]: how each answer stands to its truth, index into SHADES."""
        missed = self.answers == MISSED
        kind = np.full(len(self.truths), SHADES.index("missed"))
        found = relations(self.answers[~missed], self.truths[~missed], self.tree)
        kind[~missed] = np.array([SHADES.index(name) for name in RELATIONS])[found.kind]
        return kind

    def figures(self) -> dict[str, float]:
        """Shares of the truths: "called/exact"; "called/correct", by their node or one above; "called/missed"."""
        counts = np.bincount(self.shades, minlength=len(SHADES)) / (len(self.truths) or np.nan)
        exact, above, missed = (float(counts[SHADES.index(name)]) for name in ("exact", "ancestor", "missed"))
        return {"called/exact": exact, "called/correct": exact + above, "called/missed": missed}

    def rows(self) -> list[dict[str, Any]]:
        """Each pair of truth and answer once, with its count, the most frequent first; background and second boxes
        have no truth."""
        names, ids = self.tree.names, self.tree.ids
        counted = Counter(zip(self.truths.tolist(), self.answers.tolist(), strict=True))
        found = []
        for (truth, answer), count in counted.items():
            row = {"truth_id": ids[truth], "truth": names[truth], "answer_id": "", "answer": "", "relation": "missed",
                   "up": "", "down": "", "common_id": "", "common": "", "count": count}  # fmt: skip
            if answer != MISSED:
                stands = relations([answer], [truth], self.tree)
                row |= {
                    "relation": RELATIONS[int(stands.kind[0])],
                    "up": int(stands.up[0]),
                    "down": int(stands.down[0]),
                }
                row |= _named("answer", answer, self.tree) | _named("common", int(stands.common[0]), self.tree)
            found.append(row)
        for relation, nodes in (("background", self.background), ("second", self.second)):
            for node, count in Counter(nodes.tolist()).items():
                nothing = dict.fromkeys(("truth_id", "truth", "up", "down", "common_id", "common"), "")
                found.append(nothing | _named("answer", node, self.tree) | {"relation": relation, "count": count})
        return sorted(found, key=lambda row: (-row["count"], str(row["truth"]), str(row["answer"])))

    def to_record(self) -> dict[str, Any]:
        """The counts, for JSON: relations, ancestors by steps, cousins by common ancestor, groups."""
        tree, shades = self.tree, self.shades
        named = self.answers != MISSED
        found = relations(self.answers[named], self.truths[named], tree)

        def by(kind: str, key: NDArray[np.int64]) -> dict[str, int]:
            mine = key[found.kind == RELATIONS.index(kind)]
            return {str(one): count for one, count in sorted(Counter(mine.tolist()).items())}

        cousins = Counter(found.common[found.kind == RELATIONS.index("cousin")].tolist())
        groups, matrix = self.matrix()
        rows, columns = self.labels(groups)
        return {
            **self.settings,
            "truths": len(self.truths),
            "relations": {name: int((shades == at).sum()) for at, name in enumerate(SHADES)},
            "ancestor_by_steps": by("ancestor", found.up),
            "descendant_by_steps": by("descendant", found.down),
            "cousin_through": {f"{tree.ids[n]} {tree.names[n]}": count for n, count in cousins.most_common()},
            "background": len(self.background),
            "second": len(self.second),
            "groups": {"truths": rows, "answers": columns, "counts": matrix.tolist()},
        }

    def groups(self, most: int = 10) -> list[int]:
        """A cut through the tree where the truths part: from the root's children down, the group with most truths
        gives way to those below it, while there are no more than `most`."""
        tree = self.tree
        groups = sorted({tree.path(node)[0] for node in set(self.truths.tolist())})
        whole = set(groups)  # not yet looked into
        while whole:
            counts = np.bincount(self.group_of(self.truths, groups) + 1, minlength=len(groups) + 1)[1:]
            biggest = max(whole, key=lambda node: counts[groups.index(node)])
            whole.remove(biggest)
            mine = self.truths[self.group_of(self.truths, groups) == groups.index(biggest)]
            if (mine == biggest).any():
                continue  # truths that stand at the group itself would have no place below
            depth = int(tree.depths[biggest]) + 1
            below = sorted({tree.path(node)[depth] for node in set(mine.tolist())})
            if len(groups) - 1 + len(below) > most:
                continue
            groups = sorted({*groups, *below} - {biggest})
            whole |= set(below)
        return groups

    def group_of(self, nodes: NDArray[np.int64], groups: list[int]) -> NDArray[np.int64]:
        """int64 [rows]: the place of the group that each node is of; -1 for those above or outside."""
        place = np.full(len(self.tree) + 1, -1)  # the root's is last, at -1
        place[groups] = np.arange(len(groups))
        for _ in range(int(self.tree.depths.max())):  # one level down at a time
            place[:-1] = np.where(place[:-1] < 0, place[self.tree.parents], place[:-1])
        return place[nodes]

    def matrix(self) -> tuple[list[int], NDArray[np.int64]]:
        """The groups, and counts int64 [groups + 1, groups + 3]: truths of a group, and at the end boxes on nothing,
        against what they were called: of a group, above the groups, elsewhere, missed."""
        groups = self.groups()
        above = np.zeros(len(self.tree) + 1, dtype=bool)
        above[-1] = True
        for group in groups:
            above[list(self.tree.path(group)[:-1])] = True
        count = len(groups)
        table = np.zeros((count + 1, count + 3), dtype=np.int64)
        nothing = np.full(len(self.background), count)
        rows = np.concatenate((self.group_of(self.truths, groups), nothing))
        answers = np.concatenate((self.answers, self.background))
        named = np.maximum(answers, ROOT)
        columns = self.group_of(named, groups)
        columns = np.where(columns >= 0, columns, np.where(above[named], count, count + 1))
        np.add.at(table, (rows, np.where(answers == MISSED, count + 2, columns)), 1)
        return groups, table

    def labels(self, groups: list[int]) -> tuple[list[str], list[str]]:
        """What the matrix' rows and columns are called."""
        names = [self.tree.names[group] for group in groups]
        return [*names, "(nothing there)"], [*names, "(above these)", "(elsewhere)", "(missed)"]

    def summary(self, most: int = 8, of: str = "objects") -> str:
        """What happened, in words: the relations, and the most frequent confusions."""
        counts = {name: int((self.shades == at).sum()) for at, name in enumerate(SHADES)}
        words = {
            "exact": "named exactly", "ancestor": "by a node above", "descendant": "by one below",
            "sibling": "by a sibling", "cousin": "by a cousin", "unrelated": "by something unrelated",
            "unnamed": "not named", "missed": "missed",
        }  # fmt: skip
        told = ", ".join(f"{counts[name]} {word}" for name, word in words.items() if counts[name])
        extra = [f"boxes on nothing: {len(self.background)}"] if len(self.background) else []
        extra += [f"second boxes on an object: {len(self.second)}"] if len(self.second) else []
        lines = [f"{len(self.truths)} {of}: {told or 'none'}" + "".join(f"; {part}" for part in extra)]
        for row in [row for row in self.rows() if row["truth"] and row["relation"] not in ("exact", "missed")][:most]:
            lines.append(f"  {row['truth']} called {row['answer'] or 'nothing'}: {row['count']}  ({_told(row)})")
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """confusion.csv, a row a pair of truth and answer, and confusion.json, the counts."""
        table = io.StringIO(newline="")
        fields = ("truth_id", "truth", "answer_id", "answer", "relation", "up", "down", "common_id", "common", "count")
        writer = csv.DictWriter(table, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows())
        write_text(folder / "confusion.csv", table.getvalue())
        write_text(folder / "confusion.json", json.dumps(self.to_record(), indent=1) + "\n")


def _named(what: str, node: int, tree: WordTree) -> dict[str, str]:
    """Columns of a node; of the root, nothing."""
    return {f"{what}_id": tree.ids[node] if node >= 0 else "", what: tree.names[node] if node >= 0 else ""}


def _told(row: dict[str, Any]) -> str:
    steps = {"ancestor": row["up"], "descendant": row["down"]}
    if row["relation"] in steps:
        count = steps[row["relation"]]
        return f"{count} step{'s' * (count != 1)} {'above' if row['relation'] == 'ancestor' else 'below'}"
    return f"cousin through {row['common']}" if row["relation"] == "cousin" else str(row["relation"])


def confuse(
    answers: Answers,
    truths: Truths,
    tree: WordTree,
    threshold: float,
    tree_threshold: float,
    rule: str = "path",
    product: bool = True,
) -> Confusion:
    """The confusion of boxes.

    Args:
        answers, truths: boxes and objects of a data set.
        tree: of the nodes.
        threshold: on the score: objectness x Pr(answer), or objectness alone where not `product`.
        tree_threshold, rule: of the descent.
        product: see threshold.
    """
    nodes, probs = answers.said(tree_threshold, rule)
    scores = answers.objectness * (probs if product else 1.0)
    sure = scores > threshold
    answers, nodes, scores = answers.at(sure), nodes[sure], scores[sure]
    found = match(answers, scores, truths)
    counts = ~(truths.ignored | truths.crowd)
    said = np.full(len(counts), MISSED)
    hit = found.truth >= 0
    said[found.truth[hit]] = nodes[hit]
    free = ~(hit | found.again | found.aside)
    settings = {"threshold": threshold, "tree_threshold": tree_threshold, "iou": IOU}
    return Confusion(tree, truths.nodes[counts], said[counts], nodes[free], nodes[found.again], settings)


# ---------------------------------------------------------------------- from vague to specific


class Points(NamedTuple):
    """What answers are worth at each tree threshold; each array is float64 [thresholds]."""

    tree_threshold: NDArray[np.float64]
    correct: NDArray[np.float64]  # share of answers that are their truth or above it; the root is
    exact: NDArray[np.float64]  # share that are their truth
    depth: NDArray[np.float64]  # mean steps from the root
    recall: NDArray[np.float64]  # of the steps to the truths, the share that the answers have
    information: NDArray[np.float64]  # of the bits in the truths, the share that the answers tell
    named: NDArray[np.float64]  # share of answers that are not the root


def operating_points(
    answers: Answers, truths: NDArray[np.int64], tree: WordTree, rule: str = "path",
    thresholds: NDArray[np.float64] = THRESHOLDS,
) -> Points:  # fmt: skip
    """How deep, how right and how specific answers are as the tree threshold rises.

    Args:
        answers: one a row.
        truths: int64 [rows], nodes. Below a truth that is no leaf nothing is known: see `wordtree.metrics`.
        tree: of the nodes.
        rule: of the descent.
        thresholds: float64 [thresholds].
    """
    steps, bits = np.append(tree.depths + 1, 0), np.append(tree.information, 0.0)
    whole = bits[truths].mean() if len(truths) else np.nan
    rows = []
    for threshold in thresholds.tolist():
        nodes, _ = answers.said(threshold, rule)
        scores = hierarchical_scores(nodes, truths, tree)
        told = 1 - scores.information_shortfall / whole if whole > 0 else np.nan
        depth = steps[nodes].mean() if len(nodes) else np.nan
        named = (nodes >= 0).mean() if len(nodes) else np.nan
        rows.append((threshold, scores.correct, scores.exact, depth, scores.recall, told, named))
    return Points(*np.array(rows, dtype=np.float64).reshape(-1, 7).T)


def write_points(path: Path, points: Points) -> Path:
    """The points as CSV, a row a tree threshold."""
    lines = [",".join(Points._fields)]
    lines += [",".join("" if np.isnan(value) else f"{value:.6g}" for value in row) for row in zip(*points, strict=True)]
    write_text(path, "\n".join(lines) + "\n")
    return path
