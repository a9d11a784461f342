"""Score weights on the embedded set or on the test sources of a run.yaml: figures, notes, a table, files."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from wordtree import WordTreeError, __version__

from .choice import check_thresholds
from .files import write_text
from .hardware import device_of, home_of, processes_of
from .loading import in_hand, load, load_detector
from .measure import check_sizes, evaluate_run, evaluate_scenes
from .models import Network, TreeClassifier
from .reports import Progress, draw_scenes, figures_table, metrics_table
from .runfile import run_of
from .second import looking_again
from .task import Task
from .timing import machine
from .trunks import DEFAULT


class Report(NamedTuple):
    """An evaluation: every figure by name, lines for a person to read, and the table as text."""

    metrics: dict[str, float]
    notes: list[str]
    table: str


def evaluate(
    weights: str | Path | Network | None = None,
    data: str | Path = "embedded",
    scenes: int = 300,
    device: str = "auto",
    progress: bool = True,
    sizes: Sequence[int] = (),
    out: str | Path | None = None,
    **options: Any,
) -> dict[str, float]:
    """Every figure of the table for one set of weights: "unseen/fine_under_boxed/mAP50", ..., or "source/AP50", ...

    Args:
        weights: a run's folder or weights file, Darknet's .weights, or a network in hand; the shipped checkpoint where
            left out.
        data: "embedded", the set that ships, or a run.yaml, whose test sources are scored (`measure.evaluate_run`).
        scenes: a column of the table of the embedded set.
        device: "auto", "cpu" or "cuda".
        progress: show a progress bar.
        sizes: pixels of the input, one after the other; the model's own where left out.
        out: a folder for the figures, result files and plots; nothing is written where left out.
        options: of `evaluate_report`.

    Raises:
        WordTreeError: weights that do not load or know another tree; an unknown data set; no test source; a size that
            the model does not take.
    """
    return evaluate_report(weights, data, scenes, device, progress, sizes, out, **options).metrics


def evaluate_report(
    weights: str | Path | Network | None = None,
    data: str | Path = "embedded",
    scenes: int = 300,
    device: str = "auto",
    progress: bool = True,
    sizes: Sequence[int] = (),
    out: str | Path | None = None,
    *,
    cfg: str | Path | None = None,
    tree: str | Path | None = None,
    names: str | Path | None = None,
    mode: str | None = None,
    threshold: float | None = None,
    tree_threshold: float | None = None,
    look: str | None = None,
    look_weights: str | Path = DEFAULT,
    picture: str | Path | None = None,
) -> Report:
    """`evaluate`, with what a person should read beside the figures; docs/evaluation.md tells all of it.

    Args:
        weights, data, scenes, device, progress, sizes, out: as `evaluate`.
        cfg, tree, names, mode: as `yolo9000.load`; of a network in hand, which is moved to the device and set to
            evaluation, none of them.
        threshold, tree_threshold: of the confusion along the tree and of the descent; the model's own where left out.
        look, look_weights: a classifier by name that names a detector's boxes, and its weights: `second.looking_again`.
        picture: a file for what is found in twelve unseen scenes of the embedded set.
    """
    check_thresholds(threshold=threshold, tree_threshold=tree_threshold)
    folder = None if out is None else Path(out)
    run = None if str(data) == "embedded" else run_of(data)
    if run is None and scenes < 1:
        raise WordTreeError(f"{scenes} scenes; an evaluation takes 1 or more")
    boxes = run is None or look is not None or picture is not None  # or are names alone enough
    network: Any
    if not isinstance(weights, nn.Module):
        network = (load_detector if boxes else load)(weights, cfg, tree, names, mode or "paper")
    else:
        network = weights if isinstance(weights, TreeClassifier) and not boxes else in_hand(weights)
        for name, given in (("cfg", cfg), ("tree", tree), ("names", names), ("mode", mode)):
            if given is not None:
                raise WordTreeError(f"{name}={str(given)!r} for a network in hand, which has its own; leave it out")
    network = looking_again(network, look, look_weights).to(device_of(device)).eval()
    with Progress(enabled=progress) as bar:
        task = Task(folder, processes_of(-1), threshold, tree_threshold, bar)
        if run is None:
            check_sizes(network, sizes)
            metrics = evaluate_scenes(network, scenes, sizes, task)
        else:
            metrics = evaluate_run(network, run, sizes, task=task)
    text = metrics_table(metrics) if run is None and len(sizes) < 2 else figures_table(metrics)
    task.notes.append(machine(home_of(network)))
    report = Report(metrics, task.notes, text)
    if folder is not None:
        about = {"weights": _told(weights), "data": str(data), "mode": getattr(network, "mode", mode or "paper")}
        write_report(folder, report, about if look is None else {**about, "look": look})
    if picture is not None:
        draw_scenes(network, Path(picture), network.size)
    return report


def _told(weights: object) -> str:
    """What was scored, in words."""
    return type(weights).__name__ if isinstance(weights, nn.Module) else str(weights or "shipped")


def write_report(folder: Path, report: Report, about: dict[str, str]) -> None:
    """evaluation.json: every figure, null where there is none, the notes, and what was evaluated on what."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {name: None if math.isnan(value) else value for name, value in report.metrics.items()}  # JSON has no NaN
    record = {**about, "version": __version__, "figures": figures, "notes": report.notes}
    write_text(folder / "evaluation.json", json.dumps(record, indent=1) + "\n")
