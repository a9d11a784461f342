"""What a run costs on several GPUs, on paper: hours, storage, bandwidth, and what limits.

Every number that is not counted from the run is here by name. No GPU was at hand: its rate is an assumption.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .plan import BACKWARD, Plan, Stage


@dataclass(frozen=True)
class Assumed:
    """What is assumed of machines and files.

    Attributes:
        flops: operations a second of one GPU that a training reaches, in bfloat16. An H100's data sheet has 989e12 for
            dense matrices; a tenth of it is taken for a network of convolutions and batch-norm.
        image: bytes of a JPEG on disk.
        decoded: images that one processor core decodes and augments a second.
        links: bytes a second between GPUs of one machine (NVLink) and, above eight, between machines (400 Gbit/s).
        memory: bytes of one GPU.
    """

    flops: float = 100e12
    image: float = 110e3
    decoded: float = 100.0
    links: tuple[float, float] = (400e9, 50e9)
    memory: float = 80 * 2**30


ASSUMED = Assumed()


@dataclass(frozen=True)
class Cost:
    """A run on so many GPUs.

    Attributes:
        gpus: how many.
        hours: of the whole run.
        images: a second, of the last phase at the mean of its sizes, the exchange of gradients waited for.
        each: images that one GPU computes of a batch.
        read: bytes a second from disk.
        cores: that decode and augment as fast.
        exchanged: bytes a second that each GPU sends, for the gradients.
        share: of a step that the exchange takes; where it is hidden behind the backward pass, that much is won back.
        memory: bytes on each GPU.
        limit: what limits, in words.
    """

    gpus: int
    hours: float
    images: float
    each: float
    read: float
    cores: float
    exchanged: float
    share: float
    memory: float
    limit: str


def cost(one: Plan, gpus: int, assumed: Assumed = ASSUMED) -> Cost:
    """A plan on so many GPUs; at the rate of the plan where one was given, else at the assumed operations a second."""
    given = one.rate is not None and one.rate.source == "as given"

    def rate(stage: Stage) -> float:  # images a second of one GPU, at the mean of the sizes
        if given:
            assert one.rate is not None
            return one.rate.images * one.rate.size**2 / stage.area
        return assumed.flops / (BACKWARD * stage.flops)

    def waits(stage: Stage) -> tuple[float, float, float]:  # seconds of an update to compute, to exchange; bytes
        used = min(gpus, stage.batch)
        sent = 4.0 * stage.parameters * 2 * (used - 1) / used  # a ring sends the gradient about twice
        return stage.batch / rate(stage) / used, sent / assumed.links[used > 8], sent

    seconds = sum(stage.steps * sum(waits(stage)[:2]) for stage in one.stages)
    last = one.stages[-1]
    used = min(gpus, last.batch)
    computing, waiting, sent = waits(last)
    step = computing + waiting
    images, share, each = last.batch / step, waiting / step, last.batch / used
    memory = float(sum(one.memory(last, max(1, used // last.accumulate)).values()))
    cores = images / assumed.decoded
    return Cost(
        gpus, seconds / 3600, images, each, images * assumed.image, cores, sent / step, share, memory,
        _limit(gpus, last, each, cores / used, share, memory, assumed),
    )  # fmt: skip


def _limit(gpus: int, stage: Stage, each: float, cores: float, share: float, memory: float, assumed: Assumed) -> str:
    if gpus > stage.batch:
        return f"the batch: {stage.batch} images for {gpus} GPUs"
    if memory > assumed.memory:
        return "memory: more parts of a batch"
    found = []
    if cores > 16:
        found.append(f"decoding: {cores:.0f} cores a GPU")
    if share > 0.1:
        found.append("the exchange of gradients")
    if each < 8:
        found.append(f"{each:g} images a GPU at once, too few to fill it, and for batch-norm's statistics")
    return "; ".join(found) or "the GPU's arithmetic"


def _disk(stage: Stage, assumed: Assumed) -> str:
    """How much the images of each source are."""
    told = [
        f"{name} {count * assumed.image / 1e9:,.1f} GB" if count else f"{name}: not said"
        for name, count in stage.counts
    ]
    return ", ".join(told)


def at_scale(one: Plan, gpus: Sequence[int], assumed: Assumed = ASSUMED) -> Any:
    """The costs on several numbers of GPUs, as a table of rich."""
    from rich.table import Table

    given = one.rate is not None and one.rate.source == "as given"
    how = (
        f"at {one.rate.images:g} images a second of one GPU at {one.rate.size}, as given"  # type: ignore[union-attr]
        if given
        else f"ASSUMED: {assumed.flops / 1e12:g}e12 operations a second of one GPU, no GPU was measured"
    )
    table = Table(title=f"on paper, {how}", title_justify="left")
    costs = [cost(one, number, assumed) for number in gpus]
    for column in ("", *(f"{number} GPU{'s' * (number > 1)}" for number in gpus)):
        table.add_column(column, overflow="fold")
    rows = {
        "hours": [f"{each.hours:,.1f}" for each in costs],
        "GPU hours": [f"{each.hours * each.gpus:,.0f}" for each in costs],
        "images a second": [f"{each.images:,.0f}" for each in costs],
        "images a GPU of a batch": [f"{each.each:g}" for each in costs],
        "memory a GPU, GiB": [f"{each.memory / 2**30:.1f}" for each in costs],
        "data on disk": [_disk(one.stages[-1], assumed)] * len(costs),
        "read from disk, MB/s": [f"{each.read / 1e6:,.0f}" for each in costs],
        "cores that decode": [f"{each.cores:,.0f}" for each in costs],
        "gradients sent a GPU, GB/s": [f"{each.exchanged / 1e9:.1f}" for each in costs],
        "of a step, not hidden": [f"{each.share:.0%}" for each in costs],
        "what limits": [each.limit for each in costs],
    }
    for what, cells in rows.items():
        table.add_row(what, *cells)
    table.caption = (
        f"assumed: {assumed.image / 1e3:g} kB a JPEG, {assumed.decoded:g} images a second and core decoded and "
        f"augmented, {assumed.links[0] / 1e9:g} GB/s between GPUs of a machine of 8 and {assumed.links[1] / 1e9:g} "
        f"between machines, {assumed.memory / 2**30:g} GiB a GPU"
    )
    return table
