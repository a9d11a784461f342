"""NaN and infinity in a training: found in the step where they arise, written out with all that is needed to see why.

nonfinite/step-7/
  fault.json           what is not finite, the step, phase, size and rate, the losses, where each picture comes from
  batch.safetensors    images and targets as they came from the data
  weights.safetensors  the network before the step; where the run stops
"""

import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wordtree import WordTreeError

from .borrowed import OWN, AnyDetector, set_loss
from .checkpoints import load_model, read_tensors, save_model, save_tensors, versions
from .config import Config, config_of
from .detector import Detector
from .files import CannotWrite, whole, write_text
from .hardware import autocast_of
from .ready import ready_batch
from .runs import FAULTS

IN_A_ROW = 10  # skipped steps after which a run stops
KEPT = 20  # batches that are written out in full; of later ones the record alone
LISTED = 4  # pictures in a message


class NotFinite(WordTreeError):
    """A NaN or an infinity has stopped a run.

    Attributes:
        exit_code: of the command.
    """

    exit_code = 1


@dataclass(frozen=True)
class Moment:
    """Where a run stands: the number of the step, its phase, the pixels of its input and its learning rate; which rank
    of how many; and how many images a detector of ours has seen, those of the step included."""

    step: int
    phase: str
    size: int
    rate: float
    rank: int = 0
    ranks: int = 1
    seen: int = 0


def unsound(images: Tensor, targets: Sequence[dict[str, Tensor]]) -> str:
    """What of a batch is not finite before anything is computed: "images", "targets", or ""."""
    if images.is_floating_point() and not bool(images.isfinite().all()):
        return "images"
    given = [value.reshape(-1).cpu() for target in targets for value in target.values() if value.is_floating_point()]
    return "targets" if given and not bool(torch.cat(given).isfinite().all()) else ""


def unsound_after(losses: dict[str, Tensor], norm: Tensor, module: nn.Module) -> str:
    """What is not finite after the backward pass: "weights", "losses", "gradients", or "".

    One look at one number where all is well: the sum of the losses and the norm of the gradient.
    """
    total = torch.stack([loss.detach().float() for loss in losses.values()]).sum()
    if bool((total + norm.to(total)).isfinite()):
        return ""
    if not finite(module.state_dict().values()):
        return "weights"
    return "gradients" if bool(total.isfinite()) else "losses"


def finite(tensors: Any) -> bool:
    """Whether every number of some tensors is finite."""
    sums = [value.detach().abs().max().float() for value in tensors if value.is_floating_point() and value.numel()]
    return bool(torch.stack([one.cpu() for one in sums]).isfinite().all()) if sums else True


def explained(fault: RuntimeError) -> RuntimeError | WordTreeError:
    """Short memory as people read it; any other error of torch's as it is."""
    text = str(fault).strip().splitlines()[0].strip() if str(fault).strip() else ""
    if isinstance(fault, torch.OutOfMemoryError) or "can't allocate memory" in text:
        return WordTreeError(
            f"a step does not fit in memory ({text}); begin again in another folder with a smaller batch, accumulate=2 "
            "or more, or smaller sizes"
        )
    if "DataLoader worker" in text:
        return WordTreeError(
            f"a process that reads pictures has ended ({text}), as it does where memory is short; give fewer workers, "
            "and the run goes on from its last checkpoint"
        )
    return fault


class Kept:
    """What a forward pass changes in a network, its running statistics, as it was before the step."""

    def __init__(self, module: nn.Module) -> None:
        parameters = {id(one) for one in module.parameters()}
        self.buffers = [one for one in module.state_dict(keep_vars=True).values() if id(one) not in parameters]
        self.before: list[Tensor] = []

    def look(self) -> None:
        """Remember it as it is now."""
        self.before = [one.detach().clone() for one in self.buffers]

    def put_back(self) -> None:
        """Make it again as it was."""
        with torch.no_grad():
            for one, before in zip(self.buffers, self.before, strict=True):
                one.copy_(before)


class Unsound(Exception):
    """A step that was not taken.

    Attributes:
        what: is not finite: "images", "targets", "weights", "losses" or "gradients".
        losses: of the step, by name; {} where none were computed.
    """

    def __init__(self, what: str, losses: dict[str, Tensor]) -> None:
        super().__init__(what)
        self.what, self.losses = what, losses


class Faults:
    """The faults of one run: written out, counted, and an end to it where there are too many.

    Args:
        directory: the run's folder.
        config: its settings; `nonfinite` says whether a run stops or leaves the update out.
        skipped: the steps left out so far, as a checkpoint has them.
    """

    def __init__(self, directory: Path, config: Config, skipped: Sequence[int] = ()) -> None:
        self.directory, self.config, self.skipped = directory, config, list(skipped)

    def note(
        self,
        fault: Unsound,
        moment: Moment,
        batch: tuple[Tensor, Sequence[dict[str, Tensor]]],
        files: Sequence[str],
        module: Any,
        tells: bool = True,
    ) -> None:
        """Write a fault out, and leave the step out or stop.

        Args:
            fault: what is not finite.
            moment: where the run stands.
            batch: images and targets as they came from the data.
            files: where each picture comes from.
            module: the network as it was before the step.
            tells: whether this rank had the fault, and writes and warns; all count it.

        Raises:
            NotFinite: `nonfinite: stop`, or the tenth step in a row.
        """
        stop = self.config.nonfinite == "stop"
        folder = self.directory / FAULTS / f"step-{moment.step}"
        values = {name: _number(loss) for name, loss in fault.losses.items()}
        record = {"what": fault.what, **asdict(moment), "losses": values, "files": list(files)}
        kept = f"{folder} has the batch"
        try:
            if tells:
                self._write(folder, record, batch, module if stop else None)
        except CannotWrite as full:
            kept = f"the batch is not written out ({full})"
        some = ", ".join(files[:LISTED]) + (f" and {len(files) - LISTED} more" if len(files) > LISTED else "")
        where = f"{fault.what} of step {moment.step} ({moment.phase}, rate {moment.rate:.3g})"
        told = f"{where} are not finite; pictures: {some}"
        if stop:
            raise NotFinite(
                f"{told}; {kept}: look at it, begin again with a lower rate in another folder, or go on from the last "
                "checkpoint with nonfinite=skip, which leaves such steps out"
            )
        self.skipped.append(moment.step)
        if tells:
            warnings.warn(f"{told}; the step is left out, {kept}", stacklevel=2)
        row = range(moment.step - IN_A_ROW + 1, moment.step + 1)
        if self.skipped[-IN_A_ROW:] == list(row):
            raise NotFinite(
                f"{told}; it is the {IN_A_ROW}th step in a row that is left out, {kept}; look at it, or begin again "
                "with a lower rate in another folder"
            )

    def summary(self) -> str:
        """What to say at the end; "" where every step was sound."""
        if not self.skipped:
            return ""
        steps = ", ".join(map(str, self.skipped[:12])) + (" ..." if len(self.skipped) > 12 else "")
        return (
            f"{len(self.skipped)} steps were left out, their losses or gradients were not finite: {steps}; "
            f"{self.directory / FAULTS} has their batches"
        )

    def _write(self, folder: Path, record: dict[str, Any], batch: Any, module: Any) -> None:
        already = [one for one in folder.parent.glob("step-*/batch.safetensors") if one.parent != folder]
        if folder.exists():  # the same step again, after a resume
            shutil.rmtree(folder)
        with whole(folder) as part:
            part.mkdir()
            if len(already) < KEPT:
                images, targets = batch
                tensors = {
                    f"target.{at}.{key}": one for at, target in enumerate(targets) for key, one in target.items()
                }
                save_tensors(part / "batch.safetensors", {"images": images, **tensors}, {"pictures": len(targets)})
            if module is not None:
                save_model(part / "weights.safetensors", module)
            full = {**record, "config": asdict(self.config), "versions": versions()}
            write_text(part / "fault.json", json.dumps(full, indent=1) + "\n")


def replay(folder: str | Path, weights: str | Path | None = None) -> dict[str, Any]:
    """Compute the step of a fault again, forward and backward, on what was written out, by the run's own loss.

    Args:
        folder: such as runs/joint/nonfinite/step-7.
        weights: of the network; those of the folder where left out.

    Returns:
        {"losses": {name: value}, "gradients": names of the weights whose gradient is not finite, "files": where each
        picture comes from}

    Raises:
        WordTreeError: no such folder, or one without the batch or weights.
    """
    folder = Path(folder)
    if not (folder / "fault.json").is_file():
        raise WordTreeError(f"no fault in {str(folder)!r}; give a folder such as runs/joint/nonfinite/step-7")
    record = json.loads((folder / "fault.json").read_text())
    config = config_of(record["config"])
    tensors, header = read_tensors(folder / "batch.safetensors")
    model = load_model(weights or folder / "weights.safetensors")[0]
    if isinstance(model, AnyDetector):
        set_loss(model, config)
    if isinstance(model, Detector):
        model.seen = record.get("seen", 0)
    if config.trunk_frozen:
        model.trunk.freeze()  # type: ignore[operator]
    model.train()
    targets: list[dict[str, Tensor]] = [{} for _ in range(header["pictures"])]
    for name, value in tensors.items():
        if name != "images":
            _, at, key = name.split(".", 2)
            targets[int(at)][key] = value
    here = torch.device("cpu")
    rank, ranks, parts = record.get("rank", 0), record.get("ranks", 1), config.accumulate
    losses: dict[str, Tensor] = {}
    for part in range(parts):
        given = (tensors["images"][part::parts], targets[part::parts], record["step"] - 1, record["size"])
        batch, ready = ready_batch(*given, config.seed, here, rank + ranks * part, ranks * parts)
        with autocast_of(config.precision, here, config.detector == OWN)():
            of_part: dict[str, Tensor] = model(batch, ready)
        (torch.stack(list(of_part.values())).sum() / parts).backward()
        losses = {key: losses.get(key, 0.0) + value.detach() / parts for key, value in of_part.items()}
    wrong = [name for name, one in model.named_parameters() if one.grad is not None and not finite([one.grad])]
    return {
        "losses": {name: float(loss) for name, loss in losses.items()},
        "gradients": wrong,
        "files": record["files"],
    }


def _number(loss: Tensor) -> float | str:
    """For JSON, which has no NaN."""
    value = float(loss)
    return value if torch.tensor(value).isfinite() else str(value)
