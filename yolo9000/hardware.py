"""What this machine computes on and in: the device, the precision, the processes."""

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wordtree import WordTreeError

Autocast = Callable[[], contextlib.AbstractContextManager[Any]]


def device_of(name: str) -> torch.device:
    """The device that "auto", "cpu", "cuda" or "cuda:1" names.

    Raises:
        WordTreeError: no such device, or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise WordTreeError(f"no device {name!r}; give auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise WordTreeError(f"no device {name!r} on this machine; give auto or cpu")
    return device


def home_of(model: nn.Module) -> torch.device:
    """The device that a model's numbers are on."""
    return next(model.parameters()).device


def autocast_of(precision: str, device: torch.device, own: bool = True) -> Autocast:
    """A context for forward passes. "auto" is bfloat16 on GPUs that compute in it (NVIDIA's from Ampere on) and on
    processors with instructions for it, where it halves the time of a convolution; elsewhere float32.

    On a processor a network that is not our `own` stays in float32: there oneDNN's bfloat16 gradient of a depthwise
    convolution that strides over a single cell, as SSDlite's last ones do in small pictures, holds what lay in memory.
    """
    native = _gpu_computes_bfloat16(device) if device.type == "cuda" else own and _computes_bfloat16()
    if precision == "bfloat16" or (precision == "auto" and native):
        return lambda: torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return os.environ.get("RANK", "0") == "0"


def processes_of(wanted: int) -> int:
    """How many processes make pictures: as wanted, or one a core up to eight for -1; ranks of a machine share its
    cores."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun
    return max(1, min(8, (os.cpu_count() or 1) // ranks)) if wanted < 0 else wanted


def as_worker(number: int = 0) -> None:
    """The first thing in a process that makes pictures: one thread; Ctrl-C and SIGTERM are its parent's to answer; it
    ends with its parent, however that ends."""
    torch.set_num_threads(1)
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if sys.platform == "linux" and parent is not None:
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent.pid:  # it had ended before
            os._exit(1)


def loaded(loader: Any) -> Iterator[Any]:
    """What a loader of torch's gives. Its processes end when the last is taken, and with the one who takes, however
    that ends: they do not heed the signal by which Python would end them, and it would wait for them for ever."""
    if not loader.num_workers:
        yield from loader
        return
    rows = iter(loader)
    end = rows._shutdown_workers
    atexit.register(end)  # of a fault whose traceback keeps the loader to the last
    try:
        yield from rows
    finally:
        end()
        atexit.unregister(end)


def _gpu_computes_bfloat16(device: torch.device) -> bool:
    """Older ones take it and compute it by other means, slower than float32."""
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _computes_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:  # no Linux; float32 is right everywhere
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
