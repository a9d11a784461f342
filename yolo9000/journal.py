"""What a run takes down as it goes: metrics.csv always, TensorBoard's event file where it is asked for."""

from pathlib import Path
from typing import Any

from wordtree import WordTreeError

from .runs import MetricsFile


class Journal:
    """Of one phase, kept by rank 0.

    Args:
        directory: the run's folder.
        phase: its title.
        batch: pictures a step.
        step, seconds: where the run stands; what was written of later steps is dropped.
        tensorboard: whether to write scalars to `tensorboard/` too.
    """

    def __init__(
        self, directory: Path, phase: str, batch: int, step: int, seconds: float, tensorboard: bool = False
    ) -> None:
        self.file = MetricsFile(directory / "metrics.csv", keep_to=step)
        self.phase, self.batch, self.step, self.seconds = phase, batch, step, seconds
        self.board: Any = None
        if tensorboard:
            self.board = board_writer()(str(directory / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, step: int, seconds: float, rate: float, size: int, losses: dict[str, float]) -> None:
        """One row, and one point of each scalar; on disk when this returns."""
        self.file.write(step, self.phase, seconds, rate, losses)
        if self.board is not None:
            scalars = {f"loss/{name}": value for name, value in losses.items()} | {"rate": rate, "size": size}
            if seconds > self.seconds:
                scalars["images_per_second"] = (step - self.step) * self.batch / (seconds - self.seconds)
            for name, value in scalars.items():
                self.board.add_scalar(name, value, step)
            self.board.flush()
        self.step, self.seconds = step, seconds


def board_writer() -> Any:
    """Torch's class that writes TensorBoard's event files.

    Raises:
        WordTreeError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # type: ignore[attr-defined, unused-ignore]
    except ImportError as fault:
        raise WordTreeError(
            f"tensorboard: true, and it cannot be loaded ({fault}); `pip install tensorboard`, or leave it out: "
            "metrics.csv has the same numbers"
        ) from None
    return SummaryWriter
