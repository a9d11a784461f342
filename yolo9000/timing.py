"""How fast a detector is here: pieces of work that take turns, so that a busy machine is busy for all of them."""

import contextlib
import ctypes
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wordtree import WordTreeError

from .detector import Detector
from .images import as_image
from .inference import fuse, own

Step = Callable[[], object]


class Line(NamedTuple):
    """One stage of a detection."""

    name: str
    seconds: float  # the median of a batch
    images: float  # a second


def turns(steps: Mapping[str, Step], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each piece of work in each round; a first round is not counted, and who begins takes turns too."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for round_ in range(rounds + 1):
        shift = round_ % len(names)
        for name in names[shift:] + names[:shift]:
            seconds = timed(steps[name], device)
            if round_:
                times[name].append(seconds)
    return times


def timed(step: Step, device: torch.device) -> float:
    """Seconds of one piece of work, to its end."""
    wait(device)
    began = time.perf_counter()
    step()
    wait(device)
    return time.perf_counter() - began


def wait(device: torch.device) -> None:
    """Until the device is done; a processor always is."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratio(times: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    """The median over rounds of one beside the other."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def prepare(
    weights: str | Path | None = None,
    cfg: str | Path | None = None,
    mode: str = "paper",
    source: str | Path | None = None,
    size: int | None = None,
    batch: int = 1,
    precision: str = "float32",
    compile: bool = False,
    device: str = "auto",
) -> tuple[Detector, list[Tensor]]:
    """A fused detector and a batch of one picture, float [3, h, w] each, on a device.

    Args:
        weights, cfg, mode: as `yolo9000.load`.
        source: an image; a scene of the embedded set where left out.
        size: pixels of the square input; the model's own where left out.

    Raises:
        WordTreeError: a plug-in's detector; a size, batch or precision that does not fit; no such weights, image or
            device.
    """
    from .hardware import device_of
    from .loading import load_detector

    if batch < 1:
        raise WordTreeError(f"a batch of {batch} images; give 1 or more")
    where = device_of(device)
    model = own(load_detector(weights, cfg, mode=mode), "a benchmark by stages").to(where)
    if size is not None:
        if size <= 0 or size % model.trunk.stride:
            raise WordTreeError(f"an input of {size} pixels; this network takes multiples of {model.trunk.stride}")
        model.size = size
    if source is not None:
        image = as_image(source)
    else:
        from .data.embedded import Pictures

        image = Pictures("seen", 1, max(32, model.size))[0][0]
    return fuse(model, precision, compile), [image.to(where).float() / 255] * batch


@torch.no_grad()
def stages(model: Detector, images: Sequence[Tensor], rounds: int) -> Iterator[Line]:
    """Time a detection whole and by stages, on a batch of images float [3, h, w] on the model's device.

    Yields:
        trunk; whole; and of the whole: place, network, then decode, descend and suppress.
    """
    device = images[0].device
    batch, placed = model.place(images)
    region = model.region(batch)
    steps: dict[str, Step] = {
        "trunk": lambda: model.trunk(batch),
        "whole": lambda: model(images),
        "  place": lambda: model.place(images),
        "  network": lambda: model.region(batch),
        "  decode, descend, suppress": lambda: model.detect(region, placed),
    }
    for name, seconds in turns(steps, rounds, device).items():
        median = statistics.median(seconds)
        yield Line(name, median, len(images) / median)


def machine(device: torch.device) -> str:
    """What computes, and how busy it is."""
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        where = f"CPU, {torch.get_num_threads()} threads"
    return f"torch {torch.__version__}, {where}, load average {os.getloadavg()[0]:.2f}"


def peak_bytes(step: Step, device: torch.device) -> int:
    """The most that a piece of work holds at once above what was held before it.

    On a GPU of the allocator; on a processor of the process, where the kernel lets its peak be reset, and else by the
    profiler's count of tensors.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        timed(step, device)
        return torch.cuda.max_memory_allocated(device) - before
    _give_back()
    before = _resident("VmRSS")
    if not _reset_peak():
        return tensor_bytes(step)
    step()
    return _resident("VmHWM") - before


def tensor_bytes(step: Step) -> int:
    """The most bytes of tensors that a step holds at once, by what torch's allocator gave and took back."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    held = most = 0
    kineto: Any = profile.profiler
    for event in kineto.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def _resident(what: str) -> int:
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(what))
    except (OSError, StopIteration):  # no Linux
        return 0


def _give_back() -> None:
    """Return what was freed to the kernel, so that it counts when it is taken again."""
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def _reset_peak() -> bool:
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True
