"""What the evaluation of a source leaves in its folder: files for the servers, each class's figures, plots."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from wordtree import LabelMap, WordTree

from .charts import plot_confusion, plot_operating_points
from .confusion import Answers, Confusion, operating_points, write_points
from .data.records import Records
from .files import write_text
from .scores import (
    Curve,
    Found,
    Split,
    coco_by_class,
    voc_area,
    voc_eleven,
    worst_and_best,
    write_coco_results,
    write_imagenet_results,
    write_voc_results,
)


def folder_of(out: Path, name: str) -> Path:
    """The folder of a source, made; `name` may have a size after an @."""
    folder = out / name.replace("@", "-")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def leave_results(out: Path, records: Records, labels: LabelMap, found: Found, tree: WordTree, kind: str) -> None:
    """Result files as the servers take them."""
    ids = list(records.ids)
    if all(id_.isdecimal() for id_ in ids):
        write_coco_results(out / "results.json", found, ids, records.numbers)
    if kind == "imagenet-det":
        write_imagenet_results(out / "det.txt", found, labels, tree)
    write_voc_results(out / "voc", found, [Path(id_).stem for id_ in ids], labels, tree)


def leave_classes(out: Path, evaluation: Any, curves: dict[int, Curve], part: Split | None, tree: WordTree) -> None:
    """classes.csv, each class's figures, and worst_and_best.txt."""
    by_class = coco_by_class(evaluation)
    shared = set(part.shared) if part else set()
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["id", "name", "truths", "boxed", "AP50", "AP75", "voc", "voc07"])
    strict = coco_by_class(evaluation, 5)
    for node, value in by_class.items():
        values = (value, strict[node], voc_area(curves[node]), voc_eleven(curves[node]))
        told = ["" if math.isnan(one) else f"{one:.4f}" for one in values]
        known = "" if part is None else "yes" if node in shared else "no"
        writer.writerow([tree.ids[node], tree.names[node], curves[node].truths, known, *told])
    write_text(out / "classes.csv", table.getvalue())
    text = worst_and_best(by_class, tree)
    if part is not None and part.never_boxed:
        lost = {node: by_class[node] for node in part.never_boxed}
        text += f"\n\nof the {len(lost)} classes that training had no boxes of:\n{worst_and_best(lost, tree)}"
    write_text(out / "worst_and_best.txt", text + "\n")


def leave_confusion(
    out: Path, name: str, confusion: Confusion, answers: Answers, truths: np.ndarray, rule: str, title: str
) -> None:
    """confusion.csv, .json and .png, operating_curve.csv and .png in the folder of a source."""
    folder = folder_of(out, name)
    confusion.write(folder)
    plot_confusion(folder / "confusion.png", confusion, f"{name}: what truths were called")
    points = operating_points(answers, truths, confusion.tree, rule)
    write_points(folder / "operating_curve.csv", points)
    plot_operating_points(folder / "operating_curve.png", points, title, confusion.settings["tree_threshold"])


def titled(curves: dict[int, Curve], tree: WordTree) -> dict[str, Curve]:
    """Curves by name, with the id where two nodes have one."""
    names = [tree.names[node] for node in curves]
    return {
        name if names.count(name) == 1 else f"{name} {tree.ids[node]}": curve
        for name, (node, curve) in zip(names, curves.items(), strict=True)
    }
