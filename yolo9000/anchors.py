"""Dimension clusters (paper section 2): k-means over box shapes with distance 1 - IoU, and what they are held against.

Shapes are shares of their image, so that boxes of images of all sizes go together: the IoU of two shapes laid on one
centre is the same in shares, pixels and cells. A prior is measured by its average IoU: the mean over all boxes of the
IoU with the best prior, as in the paper's Table 1 and Figure 2.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wordtree import WordTreeError
from wordtree.errors import unknown

from .boxes import shape_iou
from .cfg import Cfg
from .data.records import existing
from .files import whole, write_text
from .priors import ANCHORS, FASTER_RCNN
from .shapes import Shapes, read_shapes

STARTS = 8  # k-means ends in a local optimum; the best of several starts is kept
DISTANCES = ("iou", "squared")
MANY = 20_000  # shapes, more than which are told apart to 4 % only
OCTAVE = 16  # such steps in a factor of two
PART = 100_000  # shapes compared at once
PAPER = 5  # priors of YOLOv2

CELLS_416 = 32 / 416  # the cells of Darknet's cfgs, as shares of the input
RCNN_SHORT, RCNN_LONG = 600, 1000  # pixels of an image's sides in Faster R-CNN


def dimension_clusters(
    shapes: Tensor, k: int, seed: int = 0, rounds: int = 100, distance: str = "iou"
) -> tuple[Tensor, float]:
    """Find k priors.

    Of more than 20,000 shapes those that agree to 4 % in both sides count as one, at their mean; the average IoU is of
    all shapes as they are.

    Args:
        shapes: float [n, 2], width and height of each training box, in any one unit.
        k: how many priors.
        seed: of the starts, k-means++ on the same distance; the best of eight is kept.
        rounds: at most so many; it stops when no shape changes its cluster.
        distance: "iou", 1 - IoU as in the paper; or "squared", the Euclidean k-means that the paper holds against it.
            A cluster's prior is the mean of its shapes in both.

    Returns:
        float [k, 2] in the unit given, by area; and the mean IoU of the shapes with their best prior.

    Raises:
        WordTreeError: fewer different shapes than priors, a side that is not positive, or an unknown distance.

    Example:
        >>> shapes = torch.tensor([[10.0, 10.0], [11.0, 9.0], [50.0, 52.0], [49.0, 50.0]])
        >>> priors, mean_iou = dimension_clusters(shapes, k=2)
        >>> priors.round().tolist(), mean_iou > 0.9
        ([[10.0, 10.0], [50.0, 51.0]], True)
    """
    if distance not in DISTANCES:
        raise unknown("distance of box shapes", distance, DISTANCES)
    if shapes.dim() != 2 or shapes.shape[1] != 2 or not bool((shapes > 0).all()):
        raise WordTreeError(f"box shapes of shape {tuple(shapes.shape)}; give [n, 2], width and height above 0")
    shapes = shapes.double()
    few, counts = (shapes, shapes.new_ones(len(shapes))) if len(shapes) <= MANY else _condensed(shapes)
    if k < 1 or len(torch.unique(few, dim=0)) < k:
        raise WordTreeError(f"{k} anchors of {len(torch.unique(few, dim=0))} different box shapes; ask for fewer")
    generator = torch.Generator().manual_seed(seed)
    tries = [_cluster(few, counts, k, generator, rounds, distance) for _ in range(STARTS)]
    priors, _ = max(tries, key=lambda one: one[1])
    return priors.float(), average_iou(shapes, priors)


def average_iou(shapes: Tensor, priors: Tensor) -> float:
    """The mean over shapes of the IoU with the best prior. float [n, 2] and [k, 2], in one unit."""
    best = [shape_iou(part, priors.to(part)).amax(1) for part in shapes.split(PART)]
    return float(torch.cat(best).mean())


def _condensed(shapes: Tensor) -> tuple[Tensor, Tensor]:
    """Shapes that agree to 4 % as one, at their mean. float64 [n, 2] -> float64 [m, 2], and how many each is."""
    step = (shapes.log2() * OCTAVE).round().long()
    step -= step.amin(0)
    _, at, counts = torch.unique(
        step[:, 0] * (step[:, 1].max() + 1) + step[:, 1], return_inverse=True, return_counts=True
    )
    sums = shapes.new_zeros(len(counts), 2).index_add(0, at, shapes)
    return sums / counts[:, None], counts.double()


def _cluster(
    shapes: Tensor, counts: Tensor, k: int, generator: torch.Generator, rounds: int, distance: str
) -> tuple[Tensor, float]:
    """One run from one random start. float64 [n, 2] -> float64 [k, 2] by area, and the shapes' mean nearness."""
    nearest_of = 1.0 if distance == "iou" else 0.0
    priors = shapes[torch.randint(len(shapes), (1,), generator=generator)]
    while len(priors) < k:
        far = nearest_of - _nearness(shapes, priors, distance).amax(1)
        pick = torch.multinomial(far.clamp(min=1e-12) * counts, 1, generator=generator)
        priors = torch.cat((priors, shapes[pick]))
    nearest = torch.full((len(shapes),), -1)
    weighted = shapes * counts[:, None]
    for _ in range(rounds):
        now = _nearness(shapes, priors, distance).argmax(1)
        if torch.equal(now, nearest):
            break
        nearest = now
        count = torch.bincount(nearest, counts, minlength=k).clamp(min=1)[:, None]
        means = torch.zeros_like(priors).index_add(0, nearest, weighted) / count
        priors = torch.where(means > 0, means, priors)  # a prior that lost every shape stays where it was
    priors = priors[priors.prod(1).argsort()]
    near = _nearness(shapes, priors, distance).amax(1)
    return priors, float((near * counts).sum() / counts.sum())


def _nearness(shapes: Tensor, priors: Tensor, distance: str) -> Tensor:
    """float [n, 2], [k, 2] -> [n, k]: the IoU, or the squared distance below 0; the largest is the nearest."""
    if distance == "iou":
        return shape_iou(shapes, priors)
    return -((shapes[:, None, 0] - priors[None, :, 0]) ** 2 + (shapes[:, None, 1] - priors[None, :, 1]) ** 2)


# ---------------------------------------------------------------------- priors that a person chose


class HandPicked(NamedTuple):
    """Priors that were not clustered from the data at hand.

    `unit` is "shares" of the image, or "rcnn": pixels of the image as Faster R-CNN makes it, 600 on its short side and
    at most 1000 on its long one.
    """

    name: str
    priors: tuple[tuple[float, float], ...]
    unit: str = "shares"

    def average_iou(self, shapes: Shapes) -> float:
        """See `average_iou`; NaN where the unit asks for images' sizes and the data set has none."""
        sides = torch.from_numpy(shapes.sides)
        if self.unit == "rcnn":
            sizes = torch.from_numpy(shapes.sizes)
            there = sizes.isfinite().all(1)
            sizes, sides = sizes[there], sides[there]
            scale = (RCNN_SHORT / sizes.amin(1)).minimum(RCNN_LONG / sizes.amax(1))
            sides = sides * sizes * scale[:, None]
        if not len(sides):
            return math.nan
        return average_iou(sides, torch.tensor(self.priors, dtype=torch.float64))


def hand_picked(name: str, size: int = 416, stride: int = 32) -> HandPicked:
    """Priors by name, or from a file.

    Args:
        name: "faster-rcnn", the nine of the paper's Table 1; one of `priors.ANCHORS`; or a file: a cfg with its
            [region], or a text of pairs `width, height`, a line each, in cells of `stride` pixels at `size`, or, after
            a line `pixels`, in pixels at `size`.

    Raises:
        WordTreeError: neither a name nor a file, or a file without pairs of numbers above 0.

    Example:
        >>> hand_picked("yolo9000").priors[0]  # of 3
        (0.0599..., 0.0877...)
    """
    if name == "faster-rcnn":
        return HandPicked(name, FASTER_RCNN, "rcnn")
    if name in ANCHORS:
        return HandPicked(name, _scaled(ANCHORS[name], CELLS_416))
    path = Path(name)
    if not path.is_file():
        raise unknown("hand-picked priors, and no file,", name, ["faster-rcnn", *ANCHORS])
    if path.suffix == ".cfg":
        cfg = Cfg.read(path)
        if cfg.head is None or "anchors" not in cfg.head.values:
            raise WordTreeError(f"{path}: no [region] with anchors in it; give a detector's cfg, or a text of pairs")
        numbers = cfg.head.numbers("anchors")
        return HandPicked(path.name, _scaled(zip(numbers[::2], numbers[1::2], strict=False), 32 / cfg.size[1]))
    return HandPicked(path.name, _pairs(path, size, stride))


def _scaled(pairs: Iterable[Iterable[float]], factor: float) -> tuple[tuple[float, float], ...]:
    return tuple((width * factor, height * factor) for width, height in pairs)


def _pairs(path: Path, size: int, stride: int) -> tuple[tuple[float, float], ...]:
    """A text of pairs, as shares of the input."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    unit = next((line for line in lines if line), "")
    rows = [(number, line) for number, line in enumerate(lines, 1) if line and line not in ("cells", "pixels")]
    pairs = []
    for number, line in rows:
        try:
            width, height = (float(word) for word in line.replace(",", " ").split())
        except ValueError:
            width = height = math.nan
        if not (0 < width < math.inf and 0 < height < math.inf):
            raise WordTreeError(
                f"{path}, line {number}: {line!r}; give `width, height`, two numbers above 0, a line each"
            )
        pairs.append((width, height))
    if not pairs:
        raise WordTreeError(f"{path}: no priors in it; give `width, height`, a line each")
    return _scaled(pairs, (1 if unit == "pixels" else stride) / size)


# ---------------------------------------------------------------------- tables


class Row(NamedTuple):
    """One line of a table of priors: how they were found, how many, their average IoU, and themselves."""

    how: str
    k: int
    average_iou: float
    priors: np.ndarray  # float64 [k, 2], shares of the image; [0, 2] where they depend on it


def clustered(shapes: Shapes, k: int, distance: str = "iou", seed: int = 0) -> Row:
    """k priors of a data set."""
    priors, mean = dimension_clusters(torch.from_numpy(shapes.sides), k, seed, distance=distance)
    return Row(CLUSTERED[distance], k, mean, priors.double().numpy())


def picked(shapes: Shapes, priors: HandPicked) -> Row:
    """Priors of a person's on a data set."""
    own = np.array(priors.priors if priors.unit == "shares" else (), dtype=np.float64).reshape(-1, 2)
    return Row(priors.name, len(priors.priors), priors.average_iou(shapes), own)


CLUSTERED = {"iou": "clusters by IoU", "squared": "clusters by squared error"}


def curve(shapes: Shapes, ks: Iterable[int], seed: int = 0) -> list[Row]:
    """The average IoU for each k, by IoU and by squared error (the paper's Figure 2)."""
    return [clustered(shapes, k, distance, seed) for k in ks for distance in DISTANCES]


def compared(shapes: Shapes, k: int, against: Iterable[HandPicked], seed: int = 0) -> list[Row]:
    """The form of the paper's Table 1: k by squared error, k by IoU, priors of a person's, and as many by IoU."""
    theirs = [picked(shapes, one) for one in against]
    more = sorted({row.k for row in theirs} - {k})
    return [
        clustered(shapes, k, "squared", seed),
        clustered(shapes, k, "iou", seed),
        *theirs,
        *(clustered(shapes, one, "iou", seed) for one in more),
    ]


def told(row: Row, size: int, stride: int) -> str:
    """Priors in both units, and as run.yaml and a cfg take them.

    Args:
        row: the priors.
        size: pixels of the network's input, at which they are told.
        stride: pixels a cell.
    """
    cells = np.round(row.priors * (size / stride), 4)
    pairs = [f"{width:.5g},{height:.5g}" for width, height in cells.tolist()]
    lines = [
        f"{row.k} priors, {row.how}: average IoU {100 * row.average_iou:.2f} %, "
        "the mean over the boxes of the IoU with the best prior",
        f"{f'cells of {stride} at {size}':>26}{f'pixels at {size}':>22}",
    ]
    for (wide, tall), (width, height) in zip(cells.tolist(), (row.priors * size).tolist(), strict=True):
        lines.append(f"{f'{wide:.4f} x {tall:.4f}':>26}{f'{width:.1f} x {height:.1f}':>22}")
    lines.append(f"run.yaml:  priors: {', '.join(pairs)}")
    lines.append(f"cfg:       anchors = {', '.join(pairs)}\n           num={row.k}")
    return "\n".join(lines)


def table(rows: Iterable[Row]) -> str:
    """How, how many, average IoU: a line each."""
    lines = [f"{'':32}{'priors':>8}{'average IoU':>14}"]
    for row in rows:
        figure = "no sizes" if math.isnan(row.average_iou) else f"{100 * row.average_iou:.2f} %"
        lines.append(f"{row.how:32}{row.k:8}{figure:>14}")
    return "\n".join(lines)


def curve_table(rows: Iterable[Row]) -> str:
    """A line for each k, a column for each distance."""
    of = {(row.k, row.how): row.average_iou for row in rows}
    lines = [f"{'priors':>8}" + "".join(f"{how:>28}" for how in CLUSTERED.values())]
    for k in sorted({k for k, _ in of}):
        lines.append(f"{k:8}" + "".join(f"{100 * of[k, how]:26.2f} %" for how in CLUSTERED.values()))
    return "\n".join(lines)


def curve_csv(rows: Iterable[Row]) -> str:
    """The rows as a CSV: how, k, average IoU, and the priors as shares of the image."""
    lines = ["how,priors,average_iou,shares"]
    for row in rows:
        lines.append(f"{row.how},{row.k},{row.average_iou:.6f},{' '.join(f'{one:.6f}' for one in row.priors.ravel())}")
    return "\n".join(lines) + "\n"


def draw_curve(rows: Iterable[Row], against: Iterable[Row], title: str, target: Path) -> None:
    """The paper's Figure 2: average IoU by how many priors, in both distances; priors of a person's as points."""
    from matplotlib.figure import Figure

    rows = list(rows)
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    axis = figure.subplots()
    for distance, how in CLUSTERED.items():
        mine = [(row.k, 100 * row.average_iou) for row in rows if row.how == how]
        axis.plot(*zip(*mine, strict=True), "o-" if distance == "iou" else ".--", label=how)
    for row in against:
        if math.isfinite(row.average_iou):
            axis.plot([row.k], [100 * row.average_iou], "x", markersize=8, label=row.how)
    axis.set(title=title, xlabel="priors", ylabel="average IoU, %")
    axis.locator_params("x", integer=True)
    axis.grid(alpha=0.3)
    axis.legend()
    with whole(target) as part:
        figure.savefig(part, dpi=110)


def run_anchors(
    data: str,
    k: str = "",
    size: int | None = None,
    stride: int | None = None,
    distance: str = "iou",
    curved: bool = False,
    compare: bool = False,
    against: tuple[str, ...] = (),
    out: Path = Path("runs/anchors"),
    seed: int = 0,
) -> Iterator[str]:
    """What the verb `anchors` prints; see its help for the arguments. A curve leaves curve.csv and curve.png in `out`.

    Raises:
        WordTreeError: a k that is none, a size below 32 pixels or a stride below 1, priors or a data set unknown.
    """
    few, many = _span(k, curved)
    own_size, own_stride = _input_of(data)
    size, stride = own_size if size is None else size, own_stride if stride is None else stride
    if size < 32 or stride < 1:
        raise WordTreeError(f"an input of {size} pixels in cells of {stride}; give at least 32 and 1")
    if distance not in DISTANCES:
        raise unknown("distance of box shapes", distance, DISTANCES)
    theirs = [hand_picked(name, size, stride) for name in against]
    shapes = read_shapes(data)
    yield shapes.told
    if few == many and not compare:
        yield told(clustered(shapes, few, distance, seed), size, stride)
        if theirs:
            yield table([picked(shapes, one) for one in theirs])
    if few < many or curved:
        rows, points = curve(shapes, range(few, many + 1), seed), [picked(shapes, one) for one in theirs]
        yield curve_table(rows)
        if points:
            yield table(points)
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "curve.csv", curve_csv([*rows, *points]))
        draw_curve(rows, points, shapes.name, out / "curve.png")
        yield f"written: {out / 'curve.csv'}, {out / 'curve.png'}"
    if compare:
        yield table(compared(shapes, few if few == many else PAPER, theirs or [hand_picked("faster-rcnn")], seed))


def _span(k: str, curved: bool) -> tuple[int, int]:
    """The least and the most priors that are asked for."""
    text = k or ("1-15" if curved else "3")
    first, dash, last = text.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise WordTreeError(f"k of {k!r}; give how many priors, such as 5, or a range, such as 1-15")
    few, many = int(first), int(last or first)
    if not 1 <= few <= many:
        raise WordTreeError(f"{few} anchors{f' to {many}' if dash else ''}; give 1 or more, the smaller number first")
    return few, many


def _input_of(data: str) -> tuple[int, int]:
    """Pixels of the input and of a cell, where they are not given: the run's own, the demo's, Darknet's."""
    if data != "embedded" and Path(data).suffix not in (".yaml", ".yml"):
        return 416, 32
    from .config import Config
    from .runfile import read_run

    if data != "embedded" and b"sources" not in existing(Path(data), "data set").read_bytes():
        return 416, 32
    config = Config() if data == "embedded" else read_run(data).config()
    return config.size, 2 ** (len(config.widths) - 1)
