"""A run's folder: what a training leaves behind, and how it is found again."""

import csv
import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from wordtree import WordTreeError

from .config import Config, config_of


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
        from .measure import figures_table
        from .reports import metrics_table

        figures = {name: value for name, value in self.metrics.items() if "/" in name}
        return metrics_table(figures) if "unseen/boxed_groups/mAP50" in figures else figures_table(figures)


def finished_run(directory: Path, config: Config, data: str = "") -> Run | None:
    """The run of that config, and of data of that hash, that a folder holds, if it is finished.

    Raises:
        WordTreeError: the folder holds a finished run of another config or over other data.
    """
    metrics = directory / "metrics.json"
    if not metrics.exists():
        return None
    hashes = directory / "data.json"
    try:
        stored = config_of(json.loads((directory / "config.json").read_text()))
        over = json.loads(hashes.read_text())["sha256"] if hashes.exists() else ""
    except (OSError, ValueError, KeyError) as fault:
        raise WordTreeError(f"{directory} holds a run that cannot be read ({fault}); give another folder") from None
    if stored != config:
        raise WordTreeError(
            f"{directory} holds a finished run with other settings ({differences(stored, config)}); "
            "give another folder, or delete it"
        )
    if over != data:
        raise WordTreeError(f"{directory} holds a finished run over other data; give another folder, or delete it")
    return Run(directory, directory / "weights.safetensors", json.loads(metrics.read_text()), config)


def differences(a: Config, b: Config) -> str:
    """The settings in which two configs differ, by name."""
    one, other = dataclasses.asdict(a), dataclasses.asdict(b)
    return ", ".join(sorted(key for key in one if one[key] != other[key]))


def write_atomically(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


class MetricsFile:
    """metrics.csv: a row every ten steps; rows of steps that a resumed run will repeat are dropped."""

    FIELDS = ("step", "phase", "seconds", "rate", "box", "objectness", "tree", "image_label")

    def __init__(self, path: Path, keep_to: int) -> None:
        self.path = path
        rows = []
        if path.exists() and keep_to:
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= keep_to]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def write(self, step: int, phase: str, seconds: float, rate: float, losses: dict[str, float]) -> None:
        """Append one row."""
        row = {"step": step, "phase": phase, "seconds": round(seconds, 1), "rate": f"{rate:.3g}"}
        row |= {key: f"{value:.5g}" for key, value in losses.items()}
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.FIELDS, lineterminator="\n").writerow(row)
