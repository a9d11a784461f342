"""A run's folder: what a training leaves behind, and how it is found again."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wordtree import WordTreeError

from .config import Config, config_of
from .files import append, clean, write_text

CHECKPOINT = "checkpoint.safetensors"
FAULTS = "nonfinite"  # the folder of steps that were not finite
FILES = (
    CHECKPOINT, "weights.safetensors", "config.json", "data.json", "metrics.csv", "metrics.json", "evaluation.csv",
    "curve.png", "detections.png", "bad_images.csv",
)  # fmt: skip
# what a run may go on with otherwise than it began: where and how it is computed, not what is learned
FREE = ("device", "workers", "checkpoint_every", "nonfinite", "compile", "tensorboard")


@dataclass(frozen=True)
class Run:
    """What a training left behind.

    Attributes:
        directory: its folder.
        weights: the trained model, for `yolo9000.detect` and `yolo9000.load`.
        metrics: every figure of the table by name, such as "unseen/fine_under_boxed/mAP50"; and "seconds", of training.
        config: what it was trained with.
    """

    directory: Path
    weights: Path
    metrics: dict[str, float]
    config: Config

    def table(self) -> str:
        """The final table, as text."""
        from .reports import figures_table, metrics_table

        figures = {name: value for name, value in self.metrics.items() if "/" in name}
        return metrics_table(figures) if "unseen/boxed_groups/mAP50" in figures else figures_table(figures)


def finished_run(directory: Path, config: Config, data: str = "") -> Run | None:
    """The run of that config, and of data of that hash, that a folder holds, if it is finished.

    Raises:
        WordTreeError: the folder holds a finished run of another config or over other data.
    """
    metrics, weights = directory / "metrics.json", directory / "weights.safetensors"
    if not metrics.exists():
        return None
    hashes = directory / "data.json"
    try:
        stored = config_of(json.loads((directory / "config.json").read_text()))
        over = json.loads(hashes.read_text())["sha256"] if hashes.exists() else ""
        figures = json.loads(metrics.read_text())
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise WordTreeError(f"{directory} holds a run that cannot be read ({fault}); give another folder") from None
    if differences(stored, config):
        raise WordTreeError(
            f"{directory} holds a finished run with other settings ({differences(stored, config)}); "
            "give another folder, or delete it"
        )
    if over != data:
        raise WordTreeError(f"{directory} holds a finished run over other data; give another folder, or delete it")
    if not weights.is_file():
        raise WordTreeError(
            f"{directory} holds a finished run whose {weights.name} is gone; put it back, or delete the folder to "
            "begin again"
        )
    tidy(directory)
    (directory / CHECKPOINT).unlink(missing_ok=True)  # of a process killed between its last two steps
    return Run(directory, weights, figures, config)


def differences(a: Config, b: Config) -> str:
    """The settings in which two configs differ, by name; not those that a run may change when it goes on, `FREE`."""
    one, other = dataclasses.asdict(a), dataclasses.asdict(b)
    return ", ".join(sorted(key for key in one if one[key] != other[key] and key not in FREE))


def tidy(directory: Path) -> None:
    """Remove what a killed process has left half-written in a run's folder."""
    # a fault of a step that does not come again; evaluation writes its own files again
    faults = [part.with_suffix("") for part in (directory / FAULTS).glob("step-*.part")]
    clean([*(directory / name for name in FILES), *faults])


class MetricsFile:
    """metrics.csv: a row every ten steps; rows of steps that a resumed run will repeat are dropped."""

    FIELDS = ("step", "phase", "seconds", "rate", "box", "objectness", "tree", "image_label")

    def __init__(self, path: Path, keep_to: int) -> None:
        self.path = path
        rows = _whole_rows(path, self.FIELDS, keep_to) if path.exists() and keep_to else []
        write_text(path, _lines([dict(zip(self.FIELDS, self.FIELDS, strict=True)), *rows], self.FIELDS))

    def write(self, step: int, phase: str, seconds: float, rate: float, losses: dict[str, float]) -> None:
        """Append one row."""
        row = {"step": step, "phase": phase, "seconds": round(seconds, 1), "rate": f"{rate:.3g}"}
        row |= {key: f"{value:.5g}" for key, value in losses.items()}
        append(self.path, _lines([row], self.FIELDS))


def _whole_rows(path: Path, fields: Sequence[str], keep_to: int) -> list[dict[str, Any]]:
    """The rows up to a step; a last line that a crash has cut short is none."""
    lines = path.read_text(errors="replace").split("\n")[:-1]
    rows = list(csv.DictReader(lines))
    return [row for row in rows if row.keys() == set(fields) and None not in row.values() and _step(row) <= keep_to]


def _step(row: dict[str, Any]) -> float:
    return int(row["step"]) if row["step"].isdecimal() else math.inf


def _lines(rows: Sequence[dict[str, Any]], fields: Sequence[str]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, fields, lineterminator="\n").writerows(rows)
    return text.getvalue()
