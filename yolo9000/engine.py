"""Several processes that train one model, each on its part of every batch: `torchrun ... -m yolo9000 train`.

Each is a rank. Rank 0 keeps the run: its checkpoints, files, averages and evaluation; the others wait for it. Without
torchrun there is one process, `ALONE`, and nothing here talks to anyone.
"""

import atexit
import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from wordtree import WordTreeError
from wordtree.nn import TreeLinear

from .hardware import device_of

PATIENCE = timedelta(days=30)  # how long a rank waits for another's evaluation; a dead one is noticed at once


class Ranks:
    """This process among those that train together.

    Args:
        rank: its number; 0 keeps the run.
        count: how many there are.
        group: of torch.distributed, on the CPU, for what is said beside the gradients.
    """

    def __init__(self, rank: int = 0, count: int = 1, group: Any = None) -> None:
        self.rank, self.count, self.group = rank, count, group

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this rank: with several on a machine, the GPU of its LOCAL_RANK.

        Raises:
            WordTreeError: no such device, or fewer GPUs than ranks on this machine.
        """
        device = device_of(name)
        if self.count == 1 or device.type != "cuda":
            return device
        if device.index is not None:
            raise WordTreeError(
                f"device {name!r} with {self.count} ranks; give cuda: each takes that of its LOCAL_RANK"
            )
        local, here = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= here:
            raise WordTreeError(
                f"local rank {local} on a machine of {here} GPUs; start as many ranks (--nproc_per_node {here}), "
                "or give device=cpu"
            )
        return torch.device("cuda", local)

    # ------------------------------------------------------------------ what is said

    def tell(self, value: Any) -> Any:
        """What rank 0 gives, in every rank: numbers, text, lists and dictionaries, as JSON has them."""
        if self.count == 1:
            return value
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        size = torch.tensor([len(text)])
        dist.broadcast(size, 0, group=self.group)
        if not self.first:
            text = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(text, 0, group=self.group)
        return json.loads(bytes(text.tolist()))

    def gather(self, value: Any) -> list[Any]:
        """What each rank gives, by rank, in every rank; as `tell`."""
        if self.count == 1:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        dist.all_gather(sizes, torch.tensor([len(text)]), group=self.group)
        longest = max(int(size) for size in sizes)
        texts = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.count)]
        dist.all_gather(texts, nn.functional.pad(text, (0, longest - len(text))), group=self.group)
        return [json.loads(bytes(text[:size].tolist())) for text, size in zip(texts, map(int, sizes), strict=True)]

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is up in any rank."""
        if self.count == 1:
            return list(flags)
        up = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(up, dist.ReduceOp.MAX, group=self.group)
        return [bool(flag) for flag in up]

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Each scalar's mean over the ranks, in every rank."""
        if not values:
            return {}
        means = torch.stack([value.detach().float().cpu() for value in values.values()])
        if self.count > 1:
            dist.all_reduce(means, group=self.group)
            means /= self.count
        return dict(zip(values, means.tolist(), strict=True))

    def share(self, found: tuple[dict[str, Tensor], Any] | None) -> tuple[dict[str, Tensor], Any]:
        """Tensors and a header that rank 0 read, in every rank: a run's folder need not be on every machine."""
        tensors, header = found or ({}, None)
        if self.count == 1:
            return tensors, header
        kinds = [[key, str(value.dtype).removeprefix("torch."), list(value.shape)] for key, value in tensors.items()]
        kinds, header = self.tell([kinds, header])
        shared = {}
        for key, dtype, shape in kinds:
            value = tensors[key].contiguous() if self.first else torch.empty(shape, dtype=getattr(torch, dtype))
            dist.broadcast(value.view(-1).view(torch.uint8), 0, group=self.group)
            shared[key] = value
        return shared, header

    def agree(self, what: Mapping[str, Any]) -> None:
        """Refuse what is not the same in every rank.

        Raises:
            WordTreeError: the first thing in which a rank differs from rank 0.
        """
        told = self.gather(dict(what))
        for rank, other in enumerate(told):
            for name, value in told[0].items():
                if other[name] != value:
                    raise WordTreeError(
                        f"rank {rank} has another {name} than rank 0; start all with the same command and data"
                    )

    # ------------------------------------------------------------------ the gradients

    def parallel(self, module: nn.Module, unused: bool = False) -> nn.Module:
        """The module with its gradients averaged over the ranks in each backward pass; it starts as rank 0's.

        Each part of a batch is normalised by its own statistics; the running statistics are those of rank 0, which
        every forward pass starts from.

        Args:
            module: on this rank's device.
            unused: whether a pass may leave parameters without a gradient, as plug-ins' detectors do.

        Raises:
            WordTreeError: a head with sparse gradients.
        """
        if self.count == 1:
            return module
        for name, part in module.named_modules():
            if isinstance(part, TreeLinear) and part.sparse:
                raise WordTreeError(
                    f"sparse gradients of {name} with {self.count} ranks; leave sparse_head out, or train with one"
                )
        self.any(False)  # some make their pictures sooner
        return DistributedDataParallel(module, find_unused_parameters=unused)


ALONE = Ranks()


def exchange(module: nn.Module, now: bool) -> contextlib.AbstractContextManager[Any]:
    """A backward pass after which the ranks exchange gradients, or one whose gradients only add up for later."""
    if now or not isinstance(module, DistributedDataParallel):
        return contextlib.nullcontext()
    return module.no_sync()


@contextlib.contextmanager
def ranked(device: str) -> Iterator[Ranks]:
    """The ranks that torchrun started, connected; or `ALONE`. A fault inside is told with its rank.

    Args:
        device: what the ranks compute on: nccl carries the gradients between GPUs, gloo all else.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if count == 1:
        yield ALONE
        return
    ranks = Ranks(rank, count)
    try:
        own = ranks.device(device)
        if not dist.is_initialized():
            if own.type == "cuda":
                torch.cuda.set_device(own)
            # torchrun's store outlives a restart: what the ranks before left in it would be taken for the new ones'
            store, _, _ = next(rendezvous("env://", rank, count))
            store = PrefixStore(f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')} of {count}", store)
            backend = "nccl" if own.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=count)
            atexit.register(dist.destroy_process_group)
        ranks.group = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield ranks
    except Exception as fault:
        if isinstance(fault, RuntimeError) and ("gloo" in str(fault) or isinstance(fault, dist.DistError)):
            raise WordTreeError(
                f"rank {rank} of {count} lost another, which tells its fault, or was killed; the run goes on from its "
                "last checkpoint"
            ) from fault
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        if "TORCHELASTIC_ERROR_FILE" in os.environ:
            get_error_handler().record_exception(fault)  # for torchrun's own report
        if isinstance(fault, WordTreeError):
            fault.args = (f"rank {rank} of {count}: {fault}",)
        raise
