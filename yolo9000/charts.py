"""Charts of an evaluation, as PNG: precision and recall, confusion along the tree, operating curves, speed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .confusion import SHADES, Confusion, Points
from .files import whole
from .scores import Curve, voc_area

COLOURS = {  # a ramp from right to wrong that the colour-blind can tell; missed is grey
    "exact": "#1a6e2e", "1 step above": "#5cb85c", "2 steps above": "#a3d9a5", "3 or more above": "#d9f0d9",
    "below": "#3f7fbf", "sibling": "#f5c542", "cousin": "#e08e2b", "unrelated": "#b8321f", "not named": "#b39cc9",
    "missed": "#c4c4c4",
}  # fmt: skip
LONGEST = 22  # letters of a name on an axis


def plot_precision_recall(path: Path, curves: Mapping[str, Curve]) -> Path:
    """Precision over recall at IoU .5, a line a class, the five best and worst named; the mean on top."""
    shown = {name: curve for name, curve in curves.items() if curve.truths}
    ranked = sorted(shown, key=lambda name: -voc_area(shown[name]))
    named = list(dict.fromkeys((*ranked[:5], *ranked[-5:])))
    grid = np.linspace(0, 1, 101)
    figure = _figure(8.5, 5)
    axes = figure.subplots()
    best = []
    for name in ranked:
        curve = shown[name]
        falling = [curve.precision[curve.recall >= point].max(initial=0.0) for point in grid]
        best.append(falling)
        if name not in named:
            axes.plot(grid, falling, color="grey", alpha=0.2, linewidth=1)
    for name in named:
        falling, label = best[ranked.index(name)], f"{_short(name)} {voc_area(shown[name]):.2f}"
        axes.plot(grid, falling, color=f"C{named.index(name)}", linewidth=1.4, label=label)
    if best:
        axes.plot(grid, np.mean(best, axis=0), color="black", linewidth=2.5, label=f"mean of {len(best)}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="precision over recall, IoU .5")
    axes.grid(alpha=0.3)
    if best:
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5), title="class and AP")
    return _saved(figure, path)


def plot_confusion(path: Path, confusion: Confusion, title: str) -> Path:
    """Left: of each group of truths, the shares that were named exactly, above, below, beside, not at all. Right: what
    the groups were called."""
    groups, matrix = confusion.matrix()
    rows, columns = confusion.labels(groups)
    count = len(groups)
    figure = _figure(7.2 + 0.42 * (count + 3) + 1.5, max(3.8, 1.9 + 0.42 * (count + 1)))
    bars, table = figure.subplots(1, 2, width_ratios=(1.05, 0.25 + 0.075 * (count + 3)))
    of_group, shade = confusion.group_of(confusion.truths, groups), _shades(confusion)
    totals = np.bincount(of_group, minlength=count)[:count] if len(of_group) else np.zeros(count, np.int64)
    left = np.zeros(count + 1)
    everything = max(1, len(shade))
    for name, colour in COLOURS.items():
        mine = shade == list(COLOURS).index(name)
        shares = np.bincount(of_group[mine], minlength=count) / np.maximum(totals, 1)
        shares = np.append(mine.sum() / everything, shares)  # the first bar is of all
        if shares.any():
            bars.barh(np.arange(count + 1), shares, left=left, color=colour, label=name, height=0.75)
        left += shares
    ticks = [f"all ({len(shade)})", *(f"{_short(rows[at])} ({totals[at]})" for at in range(count))]
    bars.set(xlim=(0, 1), xlabel="share of the truths", title=title)
    bars.set_yticks(np.arange(count + 1), ticks)
    bars.invert_yaxis()
    if len(shade):
        bars.legend(fontsize="small", ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.62 / figure.get_figheight()))
    _matrix(table, matrix, [_short(name) for name in rows], [_short(name) for name in columns])
    return _saved(figure, path)


def _shades(confusion: Confusion) -> NDArray[np.int64]:
    """int64 [rows]: index into COLOURS, where ancestors are told apart by their steps."""
    places = {"exact": "exact", "descendant": "below", "unnamed": "not named"}
    shade = np.array([list(COLOURS).index(places.get(name, name)) if name != "ancestor" else 1 for name in SHADES])
    found = shade[confusion.shades]
    above = confusion.shades == SHADES.index("ancestor")
    depths = confusion.tree.depths
    steps = depths[confusion.truths[above]] - depths[confusion.answers[above]]
    found[above] = np.minimum(steps, 3)  # exact is 0, one step above 1
    return found


def _matrix(axes: Any, counts: NDArray[np.int64], rows: Sequence[str], columns: Sequence[str]) -> None:
    """Counts with their share of the row as shade."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in zip(*np.nonzero(counts), strict=True):
        ink = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize="small", color=ink)
    axes.set_xticks(np.arange(len(columns)), columns, rotation=55, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(len(rows)), rows)
    axes.set(title="counts; shade is the share of the row", xlabel="what it was called", ylabel="what is there")


def plot_operating_points(path: Path, points: Points, title: str, at: float | None = None) -> Path:
    """Left: how deep, how right and how specific answers are at each tree threshold. Right: right against specific.

    at: the tree threshold in use, marked.
    """
    figure = _figure(10, 4.2)
    axes, told = figure.subplots(1, 2)
    lines = {
        "correct": "correct: the truth, or above it", "exact": "exact: the truth",
        "information": "information told, of the truth's bits", "recall": "depth, of the truth's steps",
    }  # fmt: skip
    for name, label in lines.items():
        axes.plot(points.tree_threshold, getattr(points, name), label=label)
    if at is not None:
        axes.axvline(at, color="grey", linewidth=1, linestyle=":")
    axes.set(xlabel="tree threshold", ylabel="share", xlim=(0, 1), ylim=(0, 1.02), title=title)
    axes.legend(fontsize="small", loc="lower left", framealpha=0.9)
    axes.grid(alpha=0.3)
    draw_told(told, {"": (points.information, points.correct)})
    told.set(title="right against specific", ylabel="share of answers that are correct")
    last = (np.inf, np.inf)
    for wanted in (0.9, 0.75, 0.5, 0.25, 0.0):
        place = int(np.abs(points.tree_threshold - wanted).argmin())
        here = (points.information[place], points.correct[place])
        if np.isnan(here).any() or np.hypot(here[0] - last[0], here[1] - last[1]) < 0.06:
            continue  # it would be written over the last
        last = here
        told.plot(*here, "o", color="C0", markersize=4)
        told.annotate(
            f"{wanted:g}", here, xytext=(-4, -4), textcoords="offset points", fontsize="small", ha="right", va="top"
        )
    if np.isfinite(last[0]):
        told.plot([], [], "o", color="C0", markersize=4, label="at these tree thresholds")
        told.legend(fontsize="small", loc="lower left")
    return _saved(figure, path)


def draw_told(axes: Any, curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> None:
    """The share of correct answers over the information that they tell, a line a name."""
    for name, (information, correct) in curves.items():
        order = np.argsort(information, kind="stable")
        axes.plot(information[order], correct[order], label=name or None)
    axes.set(xlabel="information told, share of the truth's bits", ylim=(0, 1.02))
    axes.grid(alpha=0.3)


def plot_sizes(path: Path, sizes: Mapping[int, tuple[float, float]], figure_name: str, about: str) -> Path:
    """Accuracy against speed, a point an input size. sizes: size -> (images a second, accuracy in 0..1)."""
    figure = _figure(6.5, 4.4)
    axes = figure.subplots()
    rows = sorted(sizes.items())
    axes.plot([speed for _, (speed, _) in rows], [100 * value for _, (_, value) in rows], "o-")
    for size, (speed, value) in rows:
        axes.annotate(f"{size}", (speed, 100 * value), xytext=(6, 4), textcoords="offset points", fontsize="small")
    axes.set(xlabel="images a second", ylabel=f"{figure_name}, %", title="accuracy and speed by input size")
    axes.margins(0.12, 0.15)
    axes.grid(alpha=0.3)
    figure.supxlabel(about, fontsize="x-small", color="dimgrey")
    return _saved(figure, path)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _saved(figure: Any, path: Path) -> Path:
    with whole(path) as part:
        figure.savefig(part, dpi=110)
    return path


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
