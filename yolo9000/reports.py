"""What people look at: the progress bar, the table, the curve, the picture of what was found."""

import copy
import csv
import io
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from torchvision.ops import nms

from .borrowed import AnyDetector
from .config import Config
from .data import embedded
from .files import whole
from .hardware import home_of
from .looking import Said
from .precision import average_precision, class_agnostic_recall, look_through
from .scores import Truths, mean

ROWS = {
    "boxed_groups": "boxed groups",
    "fine_under_boxed": "fine classes under a boxed group",
    "never_boxed_animals": "never-boxed animals",
    "never_boxed_artefacts": "never-boxed artefacts",
}
COLUMNS = {"unseen": "unseen design family", "seen": "seen cut-outs", "photographs": "photographs"}
TEST_SEED = 1  # no training picture uses it
PICTURE_THRESHOLD = 0.15  # what was never boxed has an objectness of about .3, which its name's probability lowers


class Progress:
    """A progress bar that says what is happening and how long is left; silent where not enabled."""

    def __init__(self, enabled: bool = True) -> None:
        self.bars = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            redirect_stdout=sys.stdout.isatty(),  # what is piped elsewhere goes there
            disable=not enabled,
        )
        self.task: Any = None
        self.mean = math.nan

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def start(self, name: str, total: int | None, done: int = 0) -> None:
        """Begin a named piece of work of `total` steps, None for nobody knows, `done` of them behind us."""
        self.mean = math.nan
        self.task = self.bars.add_task(name, total=total, completed=done, note="")

    def note(self, text: str) -> None:
        """Say something above the bar."""
        if not self.bars.disable:
            self.bars.console.print(text, highlight=False)

    def advance(self, loss: Any = None, steps: int = 1) -> None:
        """One step on; a loss, where given, joins the running mean shown."""
        if loss is not None:
            self.mean = float(loss) if math.isnan(self.mean) else 0.9 * self.mean + 0.1 * float(loss)
        note = "" if math.isnan(self.mean) else f"loss {self.mean:.2f}"
        self.bars.update(self.task, advance=steps, note=note)


def rows_of(tree_nodes: Sequence[int]) -> dict[str, list[int]]:
    """The nodes of each row of the table. tree_nodes: the node of each label of the embedded set's map."""
    node = dict(zip(embedded.label_map().ids, (int(n) for n in tree_nodes), strict=True))
    groups = list(embedded.groups().values())
    fine = embedded.classes()
    return {
        "boxed_groups": [node[wnid] for wnid in groups],
        "fine_under_boxed": [node[c.wnid] for c in fine if c.kind == "boxed" and c.wnid not in groups],
        "never_boxed_animals": [node[c.wnid] for c in fine if c.kind == "animal"],
        "never_boxed_artefacts": [node[c.wnid] for c in fine if c.kind == "artefact"],
    }


def evaluate_embedded(
    model: AnyDetector,
    scenes: int,
    size: int,
    bar: Progress,
    held_out: str | None = None,
    keep: Callable[[str, Said, Truths, Sequence[int]], None] | None = None,
) -> dict[str, float]:
    """Every figure of the table, by name: "unseen/fine_under_boxed/mAP50", "seen/boxed_groups/recall10", ...

    keep: is given each column, what was found in it, with what boxes would be called, what is there, and the nodes that
    are scored.
    """
    tree = model.tree
    labels = embedded.label_map().nodes_on(tree)
    rows = rows_of(labels.tolist())
    nodes = sorted(set(labels.tolist()))
    metrics: dict[str, float] = {}
    for column in COLUMNS:
        if not embedded.cutouts_of(column, held_out):
            continue  # no photograph of an object ships
        data = embedded.Pictures(column, scenes, size, seed=TEST_SEED, held_out=held_out)
        bar.start(f"testing: {COLUMNS[column]}", total=scenes)
        said, truths = look_through(
            model, data, labels, nodes, tick=lambda n: bar.advance(steps=n), naming=keep is not None
        )
        if keep is not None:
            keep(column, said, truths, nodes)
        precision = average_precision(said, truths, nodes, tree)
        for row, wanted in rows.items():
            metrics[f"{column}/{row}/mAP50"] = mean(precision[node] for node in wanted)
            metrics[f"{column}/{row}/recall10"] = class_agnostic_recall(said, truths, wanted, tree)
    return metrics


def evaluate_and_report(model: AnyDetector, config: Config, directory: Path, bar: Progress) -> dict[str, float]:
    """Score a finished run and leave its table, curve and picture in the folder."""
    metrics = evaluate_embedded(model, config.test_scenes, config.size, bar, config.held_out or None)
    write_table(directory / "evaluation.csv", metrics)
    plot_curve(directory / "metrics.csv", directory / "curve.png")
    draw_scenes(model, directory / "detections.png", config.size, config.held_out or None)
    return metrics


def metrics_table(*runs: dict[str, float], names: Sequence[str] = ("",)) -> str:
    """One table of one or several runs side by side, as text."""
    table = Table(title="AP at IoU .5 (mAP) and class-agnostic recall with 10 boxes an image", title_justify="left")
    table.add_column("scenes")
    table.add_column("objects")
    for name in names:
        table.add_column(f"mAP {name}".strip(), justify="right")
    for name in names:
        table.add_column(f"recall {name}".strip(), justify="right")
    for column, column_name in COLUMNS.items():
        if f"{column}/boxed_groups/mAP50" not in runs[0]:
            continue
        for row, row_name in ROWS.items():
            figures = [f"{run[f'{column}/{row}/{kind}']:.3f}" for kind in ("mAP50", "recall10") for run in runs]
            table.add_row(column_name if row == "boxed_groups" else "", row_name, *figures)
        table.add_section()
    text = io.StringIO()
    Console(width=60 + 20 * len(runs), file=text).print(table)
    return text.getvalue()


def figures_table(metrics: dict[str, float]) -> str:
    """The figures as text: a row a figure, a column a source."""
    sources = list(dict.fromkeys(name.split("/", 1)[0] for name in metrics))
    rows = list(dict.fromkeys(name.split("/", 1)[1] for name in metrics if "/" in name))
    width = max(map(len, sources), default=0) + 2
    first = max(map(len, rows), default=0) + 1
    lines = [f"{'':{first}}" + "".join(f"{source:>{width}}" for source in sources)]
    for row in rows:
        cells = [metrics.get(f"{source}/{row}") for source in sources]
        digits = 0 if row.endswith("/classes") else 3
        told = ["" if cell is None else "-" if math.isnan(cell) else f"{cell:.{digits}f}" for cell in cells]
        lines.append(f"{row:{first}}" + "".join(f"{cell:>{width}}" for cell in told))
    return "\n".join(lines)


def write_table(path: Path, metrics: dict[str, float]) -> None:
    """evaluation.csv: scenes, objects, mAP50, recall10."""
    with whole(path) as part, part.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["scenes", "objects", "mAP50", "recall10"])
        for column in COLUMNS:
            for row in ROWS:
                if f"{column}/{row}/mAP50" in metrics:
                    pair = [f"{metrics[f'{column}/{row}/{kind}']:.4f}" for kind in ("mAP50", "recall10")]
                    writer.writerow([column, row, *pair])


def plot_curve(source: Path, target: Path) -> None:
    """How it trained: each loss over the steps, the phases side by side."""
    from matplotlib.figure import Figure

    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    figure = Figure(figsize=(5 * max(1, len(phases)), 3.6), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, max(1, len(phases))))
    for axis, phase in zip(axes, phases, strict=False):
        mine = [row for row in rows if row["phase"] == phase]
        for loss in ("box", "objectness", "tree", "image_label"):
            points = [(int(row["step"]), float(row[loss])) for row in mine if math.isfinite(float(row[loss] or "nan"))]
            if points and any(value for _, value in points):
                steps, values = zip(*points, strict=True)
                axis.plot(steps, values, alpha=0.25, color=f"C{len(axis.lines) // 2}")
                axis.plot(steps, _smooth(values), label=loss.replace("_", " "), color=axis.lines[-1].get_color())
        axis.set(title=phase, xlabel="step", ylabel="loss, mean an image", yscale="log")
        axis.legend()
    with whole(target) as part:
        figure.savefig(part, dpi=110)


def draw_scenes(model: AnyDetector, target: Path, size: int, held_out: str | None = None, count: int = 12) -> None:
    """A sheet of test scenes of the unseen family with what was found: boxes and their paths.

    Where several names compete for one object (siblings survive suppression), the likeliest is drawn.
    """
    from .detections import Detections

    data = embedded.Pictures("unseen", count, size, seed=TEST_SEED, held_out=held_out)
    device = home_of(model)
    scenes = [data[index][0] for index in range(count)]
    model = copy.copy(model)  # the same parameters; the threshold is this picture's
    model.threshold = PICTURE_THRESHOLD
    with torch.no_grad():
        results = model([scene.to(device).float() / 255 for scene in scenes])
    found = [Detections.of(scene, one, model.tree, "") for scene, one in zip(scenes, results, strict=True)]
    sheets = [one.take(nms(one.boxes, one.scores, 0.5)).plot(scale=2.5) for one in found]
    width, height = sheets[0].size
    from PIL import Image

    columns = 4
    sheet = Image.new("RGB", (width * columns, height * math.ceil(count / columns)), "white")
    for number, picture in enumerate(sheets):
        sheet.paste(picture, (number % columns * width, number // columns * height))
    with whole(target) as part:
        sheet.save(part)


def _smooth(values: Sequence[float], share: float = 0.9) -> list[float]:
    mean, out = values[0], []
    for value in values:
        mean = share * mean + (1 - share) * value
        out.append(mean)
    return out
