"""What a run would be, before it is: steps, rates, sizes, memory, hours and storage, as tables. Nothing is trained."""

import dataclasses
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wordtree import WordTree, WordTreeError

from . import models
from .borrowed import OWN
from .classifier import TreeClassifier
from .config import Config, config_of
from .detector import Detector
from .hardware import autocast_of, device_of
from .recipes import HIGH_CLASSIFIER, Recipe, switched
from .recipes import recipe as find_recipe
from .runfile import EMBEDDED, run_of, shares
from .schedule import rate_of
from .tables import summary
from .trunks import NamedTrunk

BACKWARD = 3  # times the operations of a forward pass, with the gradients of inputs and of weights
STATES = {"sgd": 1, "adamw": 2}  # numbers that the optimiser keeps for each weight
GIB = 2**30
TOLD = ("joint", "start", "start_hash", "without")  # in rows of their own, or of no matter


@dataclass(frozen=True)
class Rate:
    """How fast a device trains.

    Attributes:
        images: a second, forward and backward, at `size` pixels.
        size: of those images.
        source: how that is known: measured here, or assumed.
    """

    images: float
    size: int
    source: str


@dataclass(frozen=True)
class Stage:
    """One phase of a run.

    Attributes:
        title: of the phase.
        steps, batch, accumulate: updates; images of an update, and in how many parts they are computed.
        sizes: pixels of the input, which take turns.
        rates: (update, rate) where the rate changes.
        epochs: (source, passes over it), where anybody says how many images there are.
        counts: (source, images), 0 where nobody says.
        shares: (source, images of a batch).
        parameters: numbers that are learnt.
        flops: operations of one image forward, at the mean over `sizes`, two a multiplication with its addition.
        activations: bytes that one part of a batch keeps for its backward pass, at the largest size.
    """

    title: str
    steps: int
    batch: int
    accumulate: int
    sizes: tuple[int, ...]
    rates: tuple[tuple[int, float], ...]
    epochs: tuple[tuple[str, float], ...]
    counts: tuple[tuple[str, int], ...]
    shares: tuple[tuple[str, float], ...]
    parameters: int
    flops: float
    activations: int

    @property
    def images(self) -> int:
        """Images that are seen."""
        return self.steps * self.batch

    def seconds(self, rate: Rate) -> float:
        """How long it takes at a rate; work grows with the area of the input."""
        return self.images / rate.images * self.area / rate.size**2

    @property
    def area(self) -> float:
        """Pixels of an input, the mean over sizes."""
        return statistics.fmean(size**2 for size in self.sizes)


@dataclass(frozen=True)
class Plan:
    """What a run would be.

    Attributes:
        config: its numbers.
        recipe: what it stands on; None for a run without one.
        changed: (setting, of the recipe, here) where they differ.
        tree: the classes, in words.
        stages: its phases, in order.
        rate: how fast; None where it was not measured.
        checkpoint, weights: bytes of these files.
    """

    config: Config
    recipe: Recipe | None
    changed: tuple[tuple[str, Any, Any], ...]
    tree: str
    stages: tuple[Stage, ...]
    rate: Rate | None
    checkpoint: int
    weights: int

    def hours(self, gpus: int = 1) -> float:
        """At the rate, times `gpus`; NaN without a rate."""
        return math.nan if self.rate is None else sum(one.seconds(self.rate) for one in self.stages) / 3600 / gpus

    def memory(self, stage: Stage, gpus: int = 1) -> dict[str, int]:
        """Bytes on one device, by what they are for. Each of several devices computes its part of the batch."""
        weights = 4 * stage.parameters
        average = weights if self.config.average else 0
        return {
            "weights": weights,
            "gradient": weights,
            f"{self.config.optimizer}'s state": STATES[self.config.optimizer] * weights,
            "running average": average,
            "activations": math.ceil(stage.activations / gpus),
        }


def plan(
    config: Config,
    tree: WordTree,
    recipe: Recipe | None = None,
    sources: Sequence[tuple[str, float, int, bool]] = (),
    rate: float | None = None,
) -> Plan:
    """What a run would be. Networks are built on no device, but for the measured step.

    Args:
        config: its numbers.
        tree: its classes.
        recipe: what it stands on.
        sources: of each data set its name, share of a batch, images (0: unknown), and whether it has image labels.
        rate: images a second that train at the config's size, from elsewhere; where left out it is measured on this
            machine, which takes some seconds.

    Raises:
        WordTreeError: a plug-in's detector, whose network is not ours to count; a rate that is none.
    """
    if config.detector != OWN:
        raise WordTreeError(f"a plan of {config.detector!r}, a plug-in's; leave the detector out")
    if rate is not None and not 0 < rate < math.inf:
        raise WordTreeError(f"a rate of {rate} images a second; give a number above 0")
    sources = sources or _of_recipe(recipe)
    labelled = [one for one in sources if one[3]]
    stages = []
    build: Any = partial(_classifier, config, tree)
    if config.classifier_steps and (labelled or not config.steps):
        stages.append(_stage(config, True, build, labelled))
    if config.steps:
        build = partial(_detector, config, tree)
        stages.append(_stage(config, False, build, sources))
    with torch.device("meta"):
        last, first = build(), _classifier(config, tree)
    floats = _floats(last)
    # weights, their running average and the optimiser's state, and beside a detector's the classifier's
    checkpoint = 2 * floats + STATES[config.optimizer] * stages[-1].parameters + (_floats(first) if config.steps else 0)
    size = config.size if config.steps else max(config.classifier_sizes)
    found = _measured(config, build, size) if rate is None else Rate(rate, size, "as given")
    return Plan(config, recipe, _changed(config, recipe), str(tree), tuple(stages), found, 4 * checkpoint, 4 * floats)


def _floats(model: nn.Module) -> int:
    return sum(value.numel() for value in model.state_dict().values() if value.is_floating_point())


def plan_of(data: str | None, recipe: str, options: dict[str, Any], rate: float | None = None) -> Plan:
    """The plan of what `yolo9000.train` would do with these arguments.

    Args:
        data: a run.yaml, whose sources are read and counted; None or "embedded" for the recipe's own data.
        recipe, options: as `train`.
        rate: as `plan`.
    """
    if data is not None and data != "embedded":
        run = run_of(data, recipe)
        config = run.config(**options)
        maps = dict(zip(run.sources, run.labels(), strict=True))
        tree = run.built_tree(list(maps.values()))
        given = run.used("train")
        read = [one.read(maps[one], tree) for one in given]
        sources = [
            (one.name, float(part), len(records), bool(records.labelled.all()))
            for one, part, records in zip(given, shares(given), read, strict=True)
        ]
        return plan(config, tree, find_recipe(run.recipe) if run.recipe else None, sources, rate)
    if recipe:
        one = find_recipe(recipe)
        options = {key: value for key, value in options.items() if key not in EMBEDDED}
        return plan(one.config(**options), one.built_tree(), one, rate=rate)
    from .feeds import EmbeddedFeed

    config = config_of(switched(options, options.get("without", ())))
    counts = [("scenes", config.boxed_pictures, False), ("pictures with a name", config.labelled_pictures, True)]
    parts = config.shares if config.joint else (1.0,)
    sources = [(name, part, count, named) for (name, count, named), part in zip(counts, parts, strict=False)]
    return plan(config, EmbeddedFeed(config).tree, None, sources, rate)


def _of_recipe(recipe: Recipe | None) -> list[tuple[str, float, int, bool]]:
    """The data of a recipe, as it says."""
    if recipe is None:
        return []
    if recipe.ratio:
        first, second = (part / sum(recipe.ratio) for part in recipe.ratio)
        return [("boxes", first, recipe.boxed, False), ("names", second, recipe.labelled, True)]
    if recipe.boxed:
        return [("boxes", 1.0, recipe.boxed, False)]
    return [("names", 1.0, recipe.labelled, True)]


def _classifier(config: Config, tree: WordTree) -> TreeClassifier:
    looks: dict[str, Any] = {"trunk": config.whole_trunk, "normalized": config.normalized}
    return models.darknet19(tree, max(config.classifier_sizes), config.widths, config.counts, **looks)


def _detector(config: Config, tree: WordTree) -> Detector:
    priors = models.priors_of(config.priors) if config.priors else [[1.0, 1.0]] * config.anchors
    return models.of_config(config, tree, priors)


def _stage(config: Config, classify: bool, build: Any, sources: Sequence[tuple[str, float, int, bool]]) -> Stage:
    with torch.device("meta"):
        model = build()
    steps = config.classifier_steps if classify else config.steps
    batch = config.classifier_batch if classify else config.batch
    sizes = config.classifier_sizes if classify else config.sizes
    whole = sum(part for _, part, _, _ in sources) or 1.0
    parts = [(name, batch * part / whole, count) for name, part, count, _ in sources]
    return Stage(
        "names" if classify else "boxes and names" if any(one[3] for one in sources) else "boxes",
        steps, batch, config.accumulate, sizes,
        tuple((update, rate_of(config, update - 1, steps, classify)) for update in _changes(config, steps, classify)),
        tuple((name, steps * part / count) for name, part, count in parts if count),
        tuple((name, count) for name, _, count in parts),
        tuple((name, part) for name, part, _ in parts),
        sum(parameter.numel() for parameter in model.parameters()),
        statistics.fmean(_flops(model, size) for size in sizes),
        activations(model, max(1, batch // config.accumulate), max(sizes)),
    )  # fmt: skip


def _flops(model: nn.Module, size: int) -> float:
    """Operations of one image forward: of convolutions, as Darknet counts; torch's count of a trunk by name."""
    if not isinstance(model.trunk, NamedTrunk):
        return summary(model, size).flops
    images = torch.zeros(1, 3, size, size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval().raw(images)  # type: ignore[operator]
    model.train()
    return float(counter.get_total_flops())


def _changes(config: Config, steps: int, classify: bool) -> list[int]:
    """Updates at which the rate is worth telling."""
    policy = config.classifier_policy if classify else config.policy
    marks = {1, steps}
    if policy == "one-cycle":
        marks |= {round(steps * share) + 1 for share in (0.08, 0.5)}
    else:
        marks |= {config.burn_in // 2, config.burn_in}
    if policy == "steps":
        marks |= {*config.steps_at}
    if policy == "poly":
        marks |= {round(steps * share) for share in (0.25, 0.5, 0.75)}
    return sorted(mark for mark in marks if 0 < mark <= steps)


def activations(model: nn.Module, batch: int, size: int) -> int:
    """Bytes that a forward pass in training keeps for the backward pass, in float32.

    Counted, not guessed: the pass runs on a device without memory, and every tensor that autograd keeps is counted
    once, weights left out. The loss, which reads few boxes, is not in it.

    Args:
        model: a detector or classifier of `models`, on the device "meta".
        batch: images at once.
        size: pixels of the square input.

    Example:
        >>> with torch.device("meta"):
        ...     model = models.darknet19(10, 64, widths=(8, 16), counts=(1, 1))
        >>> activations(model, 2, 64) == 2 * activations(model, 1, 64)
        False
    """
    own = {value.untyped_storage()._cdata for value in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(value: Tensor) -> Tensor:
        kept.setdefault(value.untyped_storage()._cdata, value)
        return value

    images = torch.zeros(batch, 3, size, size, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        if isinstance(model, Detector):
            out = model.head.boxes(model.features(images))
        else:
            out = TreeClassifier.raw(model, images)  # type: ignore[arg-type]
    del out
    return sum(value.untyped_storage().nbytes() for key, value in kept.items() if key not in own)


def _measured(config: Config, build: Any, size: int) -> Rate:
    """A step or two on this machine, one image at a time, with the loss and without the update."""
    device = device_of(config.device)
    autocast = autocast_of(config.precision, device)
    torch.manual_seed(0)
    model = build().to(device, memory_format=torch.channels_last).train()
    batch = 1 if device.type == "cpu" else max(1, config.batch // config.accumulate)
    images = torch.rand(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    label = torch.zeros(1, dtype=torch.int64, device=device)
    target = {"labels": label}
    if isinstance(model, Detector):
        target["boxes"] = torch.tensor([[0.2, 0.2, 0.7, 0.8]], device=device) * size
    seconds = []
    for _ in range(2 if device.type == "cpu" else 12):
        began = time.perf_counter()
        with autocast():
            losses = model(images, [target] * batch)
        torch.stack(list(losses.values())).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    what = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"this machine, {torch.get_num_threads()} threads"
    )
    return Rate(batch / min(seconds[1:]), size, f"measured on {what}")


def _changed(config: Config, recipe: Recipe | None) -> tuple[tuple[str, Any, Any], ...]:
    if recipe is None:
        return ()
    usual = recipe.config()
    return tuple(
        (field.name, getattr(usual, field.name), getattr(config, field.name))
        for field in dataclasses.fields(config)
        if getattr(usual, field.name) != getattr(config, field.name) and field.name not in TOLD
    )


# ---------------------------------------------------------------------- on paper


def tables(one: Plan) -> list[Any]:
    """The plan as tables of rich."""
    from rich.table import Table
    from rich.text import Text

    head = Table(title=f"plan: {one.recipe.title if one.recipe else 'a run'}", show_header=False, title_justify="left")
    rows: list[tuple[str, str]] = []
    if one.recipe is not None:
        begins = one.recipe.begins
        if begins and HIGH_CLASSIFIER in one.config.without:
            begins = find_recipe(begins).begins if "448" in begins else begins
        rows += [("recipe", one.recipe.name), ("source", one.recipe.source), ("published", one.recipe.figure)]
        rows += [("data", one.recipe.data), ("not said there", "; ".join(one.recipe.unsaid) or "nothing")]
        rows += [("starts from", one.config.start or (f"weights of {begins} (--start)" if begins else "nothing"))]
    rows += [("without", ", ".join(one.config.without))] if one.config.without else []
    rows += [(f"changed: {name}", f"{_short(before)} -> {_short(after)}") for name, before, after in one.changed]
    rows += [("classes", one.tree), ("optimiser", _optimizer(one.config))]
    for what, text in rows:
        head.add_row(what, Text(text))
    phases = Table(title="phases", title_justify="left")
    phases.add_column("")
    for stage in one.stages:
        phases.add_column(stage.title, overflow="fold")
    for what, cells in _phases(one).items():
        phases.add_row(what, *map(Text, cells))
    return [head, phases]


def _phases(one: Plan) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {}

    def row(what: str, cells: list[str]) -> None:
        if any(cells):
            rows[what] = cells

    stages, config = one.stages, one.config
    row("updates", [f"{stage.steps:,}" for stage in stages])
    row(
        "batch", [f"{stage.batch} in {stage.accumulate} parts of {stage.batch // stage.accumulate}" for stage in stages]
    )
    row("images of a batch", [", ".join(f"{name} {part:g}" for name, part in stage.shares) for stage in stages])
    row("epochs", [", ".join(f"{name} {passes:.1f}" for name, passes in stage.epochs) for stage in stages])
    row("rate from update", [", ".join(f"{at:,}: {rate:.3g}" for at, rate in stage.rates) for stage in stages])
    row("input sizes", [", ".join(map(str, stage.sizes)) for stage in stages])
    row("parameters", [f"{stage.parameters:,}" for stage in stages])
    row("billion operations an image, forward", [f"{stage.flops / 1e9:.2f} (mean over sizes)" for stage in stages])
    memory = [one.memory(stage) for stage in stages]
    for what in memory[0]:
        row(f"memory: {what}", [f"{parts[what] / GIB:.2f} GiB" if parts[what] else "" for parts in memory])
    row("memory: in all", [f"{sum(parts.values()) / GIB:.2f} GiB" for parts in memory])
    if one.rate is not None:
        said = f"{one.rate.images:.3g} images a second at {one.rate.size}, {one.rate.source}"
        row("trains at", [said] * len(stages))
        row("hours", [f"{stage.seconds(one.rate) / 3600:,.1f}" for stage in stages])
    row(
        "checkpoint",
        [f"{one.checkpoint / GIB:.2f} GiB, every {config.checkpoint_every:,} updates, one is kept"] * len(stages),
    )
    row("weights", [f"{one.weights / GIB:.2f} GiB"] * len(stages))
    return rows


def _optimizer(config: Config) -> str:
    clip = f", gradient to a norm of {config.clip:g}" if config.clip else ""
    average = f", running average {config.average:g}" if config.average else ""
    return (
        f"{config.optimizer}, momentum {config.momentum:g}, decay {config.decay:g}{clip}{average}; loss: {config.loss}"
    )


def _short(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


ABOUT = (
    "Memory in float32: weights, gradient and the optimiser's state by their sizes; activations counted in a forward "
    "pass of one part of a batch at the largest size on a device without memory (every tensor that autograd keeps). "
    "bfloat16 about halves them. Not in it: the loss, a library's workspace, what loaders hold. "
    "Hours: images x the mean area of the sizes, at the rate above; without loading, evaluation and checkpoints."
)
