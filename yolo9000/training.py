"""One training loop, on the detector contract: first names, then boxes and names together.

A step depends on the config and its own number alone, so a run stopped anywhere goes on as if it had never stopped.
"""

import contextlib
import dataclasses
import json
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wordtree import WordTreeError

from . import models
from .borrowed import OWN, Borrowed
from .checkpoints import load_state, read_tensors, save_model, save_tensors
from .config import Config, config_of
from .data.augment import recoloured
from .feeds import EmbeddedFeed, Feed, Phase, RecordsFeed
from .hardware import autocast_of, device_of
from .loading import load
from .recipes import HIGH_CLASSIFIER, switched
from .recipes import recipe as find_recipe
from .reports import Progress
from .runfile import RunFile, run_of
from .runs import MetricsFile, Run, differences, finished_run, write_atomically
from .schedule import optimizer_of, rate_of
from .sparse import RowSGD
from .start import begin, with_hash


def train(
    joint: bool = False,
    data: str | Path | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    recipe: str = "",
    **options: Any,
) -> Run:
    """Train a detector over a tree, evaluate it, and leave a run folder.

    The folder holds weights.safetensors, config.json, metrics.csv (a row every ten steps), evaluation.csv,
    metrics.json, curve.png, detections.png; while it runs, checkpoint.safetensors.

    Args:
        joint: learn from image labels beside the boxes (paper section 4); of a run.yaml, its sources say whether.
        data: "embedded", the set that ships, or a run.yaml, which has its own settings; options win over them.
            A recipe needs one of them; without a recipe it is "embedded" where left out.
        out: the run's folder; runs/joint, runs/boxes, runs/oracle, or runs/ and the run.yaml's name where left out. An
            unfinished run of the same config that it holds is gone on with; a finished one is returned as it is.
        progress: show a progress bar.
        recipe: a published network's numbers by name, see `yolo9000.recipes`; a run.yaml's and options win over them.
        options: any field of `yolo9000.config.Config`.

    Returns:
        Run: `.weights`, `.metrics` (such as "unseen/fine_under_boxed/mAP50"), `.directory`.

    Raises:
        WordTreeError: an unknown option or data set; a folder that holds something else.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written; the same call goes on from there.
    """
    run, config = settled(data, recipe, joint, options)
    config = with_hash(config)
    if run is None and not config.steps:
        raise WordTreeError("steps of 0 on the embedded set; a classifier alone learns from the sources of a run.yaml")
    name = "oracle" if config.oracle else "joint" if config.joint else "boxes"
    directory = Path(out) if out is not None else Path("runs") / (name if run is None else run.path.stem)
    if run is None and (finished := finished_run(directory, config)) is not None:
        return finished
    feed = EmbeddedFeed(config) if run is None else RecordsFeed(run, directory, config)
    if run is not None and (finished := finished_run(directory, config, feed.fingerprint)) is not None:
        return finished
    trainer = Trainer(config, directory, feed)
    with Progress(enabled=progress) as bar:
        with _interruptible() as stopped:
            trainer.train(bar, stopped)
        weights = trainer.save_weights()
        model = load(weights)
        metrics = feed.report(model.to(trainer.device), directory, bar)
    metrics["seconds"] = trainer.seconds
    write_atomically(directory / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    trainer.checkpoint.unlink(missing_ok=True)
    if isinstance(feed, RecordsFeed) and feed.damaged is not None and feed.damaged.found:
        warnings.warn(feed.damaged.summary(), stacklevel=2)
    return Run(directory, weights, metrics, config)


def settled(
    data: str | Path | None, recipe: str, joint: bool, options: dict[str, Any]
) -> tuple[RunFile | None, Config]:
    """The run.yaml, None for the embedded set, and the numbers of a run: recipe, run.yaml, options, the last wins."""
    if data is None and recipe:
        what = find_recipe(recipe).data
        raise WordTreeError(
            f"recipe {recipe!r} and no data; it is for {what}: give a run.yaml, or embedded for a trial"
        )
    if data is not None and str(data) != "embedded":
        run = run_of(data, recipe)
        return run, run.config(**options)
    given = {"joint": joint, **(find_recipe(recipe).settings if recipe else {}), **options}
    return None, config_of(switched(given, given.get("without", ())))


class Trainer:
    """The state of one run and its two phases."""

    def __init__(self, config: Config, directory: Path, feed: Feed | None = None) -> None:
        self.config = config
        self.directory = directory
        self.device = device_of(config.device)
        self.autocast = autocast_of(config.precision, self.device)
        self.feed = feed or EmbeddedFeed(config)
        self.labels, self.tree = self.feed.labels, self.feed.tree
        self.step = 0  # of both phases together
        self.seconds = 0.0  # spent training, over all sittings
        torch.manual_seed(config.seed)
        looks = {"widths": config.widths, "counts": config.counts, "trunk": config.trunk}
        size = max(config.classifier_sizes)
        classifier = models.darknet19(self.tree, size, normalized=config.normalized, **looks)  # type: ignore[arg-type]
        self.classifier = classifier.to(self.device)
        self.model: Any = self._detector().to(self.device) if config.steps else self.classifier
        if self.device.type == "cpu":  # convolutions on the CPU are faster with channels last
            self.classifier = self.classifier.to(memory_format=torch.channels_last)
            self.model = self.model.to(memory_format=torch.channels_last)
        self.average: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}  # as they lie in the detector: what it is the average of
        self.optimizer: torch.optim.Optimizer | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise WordTreeError(f"{directory} is a file; give a folder for the run") from None
        self._resume()

    def _detector(self) -> Any:
        config = self.config
        if config.detector != OWN:
            return Borrowed(config.detector, self.tree, config.size)
        stride = 2 ** (len(config.widths) - 1)
        if config.location == "image":
            anchors = [[1.0, 1.0]] * config.anchors  # boxes without priors
        else:
            anchors = models.priors_of(config.priors) if config.priors else self.feed.anchors(stride)
        return models.of_config(config, self.tree, anchors)

    @property
    def classifier_steps(self) -> int:
        """Steps of the first phase; none without image labels, or for a plug-in's detector."""
        return self.config.classifier_steps if self.feed.labelled and self.config.detector == OWN else 0

    def train(self, bar: Progress, stopped: Callable[[], bool]) -> None:
        """Run what is left of both phases."""
        config = self.config
        write_atomically(self.directory / "config.json", json.dumps(dataclasses.asdict(config), indent=1) + "\n")
        if self.feed.fingerprint:
            write_atomically(self.directory / "data.json", json.dumps({"sha256": self.feed.fingerprint}) + "\n")
        last = self.classifier_steps + config.steps
        if config.start and not self.step:
            low = HIGH_CLASSIFIER in config.without and not self.classifier_steps
            bar.note(begin(self.classifier if self.classifier_steps else self.model, config.start, low))
        if self.step < self.classifier_steps:
            names = Phase("names", config.classifier_steps, config.classifier_batch, config.classifier_sizes, True)
            self._run(names, self.classifier, 0, bar, stopped)
        if self.step == self.classifier_steps and config.steps:
            self._start_from_classifier()
        if self.step == last:  # stopped while it was being evaluated
            return
        title = "boxes and names" if self.feed.labelled else "boxes"
        phase = Phase(title, config.steps, config.batch, config.sizes)
        self._run(phase, self.model, self.classifier_steps, bar, stopped)

    def save_weights(self) -> Path:
        """Write the averaged weights as a model that `yolo9000.load` reads."""
        state = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.model.load_state_dict({**state, **self.average})
        path = save_model(self.directory / "weights.safetensors", self.model, self.labels, about=self.feed.about())
        self.model.load_state_dict(state)
        return path

    # ------------------------------------------------------------------ the loop

    def _run(
        self,
        phase: Phase,
        module: nn.Module,
        first: int,
        bar: Progress,
        stopped: Callable[[], bool],
    ) -> None:
        """What is left of a phase whose first step is number `first` of the run."""
        config = self.config
        self.optimizer = optimizer_of(module, config)
        if config.sparse_head:
            self.optimizer = RowSGD(self.optimizer, module)
        self._load_optimizer(module)
        self.weights = {key: value for key, value in self.model.state_dict().items() if value.is_floating_point()}
        batches = self.feed.batches(phase, self.step - first, bar, stopped)
        module.train()
        bar.start(phase.title, total=phase.steps, done=self.step - first)
        log = MetricsFile(self.directory / "metrics.csv", keep_to=self.step)
        began, before = time.monotonic(), self.seconds
        for images, targets in batches:
            within = self.step - first
            rate = rate_of(config, within, phase.steps, phase.classify)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            if module is self.model:
                module.seen = (within + 1) * phase.batch
            losses = self._step(module, images, targets, phase.size_at(within, config.seed))
            self.step += 1
            self.seconds = before + time.monotonic() - began
            self._average(module)
            if self.step % 10 == 0:
                values = {key: float(value) for key, value in losses.items()}
                if not all(map(math.isfinite, values.values())):
                    raise WordTreeError(
                        f"loss {values} at step {self.step}; the last checkpoint is kept; try a rate below {rate:g}"
                    )
                log.write(self.step, phase.title, self.seconds, self.optimizer.param_groups[0]["lr"], values)
            bar.advance(sum(losses.values()) if self.step % 10 == 0 else None)
            if stopped():
                self.save_checkpoint()
                if module is self.model:
                    self.save_weights()
                raise KeyboardInterrupt
            if self.step % config.checkpoint_every == 0 or within + 1 == phase.steps:
                self.save_checkpoint()

    def _step(
        self, module: nn.Module, images: Tensor, targets: list[dict[str, Tensor]], size: int
    ) -> dict[str, Tensor]:
        """One update; images uint8 [b, 3, h, w], boxes in their pixels."""
        assert self.optimizer is not None
        images, targets = mirrored(images, targets, seed=self.config.seed * 1_000_003 + self.step)
        batch = images.to(self.device).float() / 255
        scale = size / batch.shape[-1]
        if scale != 1:
            batch = nn.functional.interpolate(batch, (size, size), mode="bilinear", antialias=scale < 1)
        ready = [{key: value.to(self.device) for key, value in target.items()} for target in targets]
        changes = [target.pop("colours") for target in ready if "colours" in target]
        if changes:
            batch = recoloured(batch, torch.stack(changes))
        if self.device.type == "cpu":
            batch = batch.contiguous(memory_format=torch.channels_last)
        for target in ready:
            if "boxes" in target:
                target["boxes"] = target["boxes"] * scale
        with self.autocast():
            losses: dict[str, Tensor] = module(batch, ready)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 20.0)
        self.optimizer.step()
        return {key: value.detach() for key, value in losses.items()}

    def _average(self, module: nn.Module) -> None:
        """A running mean of the detector's weights, short at first."""
        if module is not self.model:
            return
        done = self.step - (self.classifier_steps if self.config.steps else 0)
        keep = min(self.config.average, (1 + done) / (10 + done))
        if not self.average:
            self.average, keep = {key: value.clone() for key, value in self.weights.items()}, 0.0
        rows = self.optimizer.rows if isinstance(self.optimizer, RowSGD) else {}
        lazy = {key: rows[one] for key, one in self.model.named_parameters() if one in rows}
        plain = [key for key in self.weights if key not in lazy]
        torch._foreach_lerp_([self.average[key] for key in plain], [self.weights[key] for key in plain], 1 - keep)
        for key, one in lazy.items():
            one.average(self.average[key], keep)

    def _start_from_classifier(self) -> None:
        """The trunk as it is, the head's classifier in every anchor (Darknet 2017-01, `oneoff`)."""
        self.average = {}
        if self.classifier_steps:
            self.model.trunk.load_state_dict(self.classifier.trunk.state_dict())
            self.model.head.start_from(self.classifier.classes)

    # ------------------------------------------------------------------ nothing lost

    @property
    def checkpoint(self) -> Path:
        """Where the unfinished run lies."""
        return self.directory / "checkpoint.safetensors"

    def save_checkpoint(self) -> None:
        """Everything that the next step needs."""
        assert self.optimizer is not None
        tensors = {f"classifier.{key}": value for key, value in self.classifier.state_dict().items()}
        if self.model is not self.classifier:
            tensors |= {f"model.{key}": value for key, value in self.model.state_dict().items()}
        tensors |= {f"average.{key}": value for key, value in self.average.items()}
        module = self.classifier if self.step < self.classifier_steps else self.model
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        for parameter, state in self.optimizer.state.items():
            tensors |= {
                f"optimizer.{names[id(parameter)]}.{key}": value
                for key, value in state.items()
                if id(parameter) in names
            }
        header = {
            "step": self.step,
            "seconds": self.seconds,
            "config": dataclasses.asdict(self.config),
            "tree": self.tree.hash,
            "data": self.feed.fingerprint,
            "torch": torch.__version__,
        }
        save_tensors(self.checkpoint, tensors, header)

    def _resume(self) -> None:
        self._loaded: dict[str, Tensor] = {}
        if not self.checkpoint.exists():
            return
        tensors, header = read_tensors(self.checkpoint)
        stored = config_of(header["config"])
        if stored != self.config:
            raise WordTreeError(
                f"{self.directory} holds an unfinished run with other settings ({differences(stored, self.config)}); "
                "give the same settings, another folder, or delete it"
            )
        if header["tree"] != self.tree.hash:
            raise WordTreeError(f"{self.directory} holds a run over another tree; give another folder, or delete it")
        if header.get("data", "") != self.feed.fingerprint:
            raise WordTreeError(
                f"{self.directory} holds a run over data that has changed since; give another folder, or delete it"
            )
        parts: dict[str, dict[str, Tensor]] = {"classifier": {}, "model": {}, "average": {}, "optimizer": {}}
        for key, value in tensors.items():
            part, rest = key.split(".", 1)
            parts[part][rest] = value
        load_state(self.classifier, parts["classifier"], str(self.checkpoint))
        if self.model is not self.classifier:
            load_state(self.model, parts["model"], str(self.checkpoint))
        self.average = {key: value.to(self.device) for key, value in parts["average"].items()}
        self._loaded = parts["optimizer"]
        self.step, self.seconds = header["step"], header["seconds"]

    def _load_optimizer(self, module: nn.Module) -> None:
        """Give the optimiser the state of a checkpoint that was taken in this phase."""
        assert self.optimizer is not None
        if not self._loaded:
            return
        for name, parameter in module.named_parameters():
            keys = [key for key in self._loaded if key.rpartition(".")[0] == name]
            if keys:
                state = {key.rpartition(".")[2]: self._loaded[key] for key in keys}
                # like the parameter, memory format included: a fused update pairs elements as they lie in memory
                self.optimizer.state[parameter] = {
                    key: value if key == "step" else torch.empty_like(parameter).copy_(value)
                    for key, value in state.items()
                }
        self._loaded = {}


def mirrored(images: Tensor, targets: list[dict[str, Tensor]], seed: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Half of the pictures left to right, chosen by the seed; boxes with them. images: [b, 3, h, w], boxes in
    pixels."""
    flip = torch.rand(len(images), generator=torch.Generator().manual_seed(seed)) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    width = images.shape[3]
    ready = []
    for target, flipped in zip(targets, flip.tolist(), strict=True):
        if flipped and "boxes" in target:
            left, top, right, bottom = target["boxes"].unbind(1)
            target = {**target, "boxes": torch.stack((width - right, top, width - left, bottom), dim=1)}
        ready.append(target)
    return images, ready


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask the loop to stop after its step; a second Ctrl-C stops at once."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = {}
    with contextlib.suppress(ValueError):  # signals belong to the main thread; elsewhere they are left alone
        for one in (signal.SIGINT, signal.SIGTERM):
            before[one] = signal.signal(one, ask)
    try:
        yield lambda: asked
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
