"""One training loop, on the detector contract: first names, then boxes and names together.

A step depends on the config and its own number alone, so a run stopped anywhere goes on as if it had never stopped.
"""

import contextlib
import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wordtree import WordTreeError, build_tree

from . import models
from .anchors import dimension_clusters
from .checkpoints import load_model, load_state, read_tensors, save_model, save_tensors
from .config import Config, config_of
from .darknet19 import Darknet19
from .data import embedded
from .data.joint import Joint, JointSampler, collate
from .data.memory import InMemory
from .hardware import autocast_of, device_of, processes_of
from .reports import Progress, evaluate_and_report
from .runs import MetricsFile, Run, differences, finished_run, write_atomically


def train(
    joint: bool = False,
    data: str = "embedded",
    out: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Run:
    """Train a detector over a tree, evaluate it, and leave a run folder.

    The folder holds weights.safetensors, config.json, metrics.csv (a row every ten steps), evaluation.csv,
    metrics.json, curve.png, detections.png; while it runs, checkpoint.safetensors.

    Args:
        joint: learn from image labels beside the boxes (paper section 4).
        data: "embedded", the set that ships.
        out: the run's folder; runs/joint, runs/boxes or runs/oracle where left out. An unfinished run of the same
            config that it holds is gone on with; a finished one is returned as it is.
        progress: show a progress bar.
        options: any field of `yolo9000.config.Config`.

    Returns:
        Run: `.weights`, `.metrics` (such as "unseen/fine_under_boxed/mAP50"), `.directory`.

    Raises:
        WordTreeError: an unknown option or data set; a folder that holds something else.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is written; the same call goes on from there.
    """
    config = config_of({"joint": joint, **options})
    if data != "embedded":
        raise WordTreeError(f"no data set {data!r}; known: embedded")
    name = "oracle" if config.oracle else "joint" if config.joint else "boxes"
    directory = Path(out) if out is not None else Path("runs") / name
    finished = finished_run(directory, config)
    if finished is not None:
        return finished
    trainer = Trainer(config, directory)
    with Progress(enabled=progress) as bar:
        with _interruptible() as stopped:
            trainer.train(bar, stopped)
        weights = trainer.save_weights()
        model, _ = load_model(weights)
        metrics = evaluate_and_report(model.to(trainer.device), config, directory, bar)
    metrics["seconds"] = trainer.seconds
    write_atomically(directory / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    trainer.checkpoint.unlink(missing_ok=True)
    return Run(directory, weights, metrics, config)


class Trainer:
    """The state of one run and its two phases."""

    def __init__(self, config: Config, directory: Path) -> None:
        self.config = config
        self.directory = directory
        self.device = device_of(config.device)
        self.autocast = autocast_of(config.precision, self.device)
        self.labels = embedded.label_map()
        self.tree = build_tree(self.labels)
        self.nodes = torch.from_numpy(self.labels.nodes_on(self.tree).copy())
        self.step = 0  # of both phases together
        self.seconds = 0.0  # spent training, over all sittings
        torch.manual_seed(config.seed)
        trunk = Darknet19(config.widths, config.counts)
        self.classifier = models.classifier(self.tree, trunk).to(self.device)
        self.model = models.yolo9000(self.tree, self._anchors(), config.size, config.widths, config.counts).to(
            self.device
        )
        if self.device.type == "cpu":  # convolutions on the CPU are faster with channels last
            self.classifier = self.classifier.to(memory_format=torch.channels_last)
            self.model = self.model.to(memory_format=torch.channels_last)
        self.average: dict[str, Tensor] = {}
        self.optimizer: torch.optim.Optimizer | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise WordTreeError(f"{directory} is a file; give a folder for the run") from None
        self._resume()

    @property
    def classifier_steps(self) -> int:
        """Steps of the first phase; none without image labels."""
        return self.config.classifier_steps if self.config.joint else 0

    def train(self, bar: Progress, stopped: Callable[[], bool]) -> None:
        """Run what is left of both phases."""
        config = self.config
        write_atomically(self.directory / "config.json", json.dumps(dataclasses.asdict(config), indent=1) + "\n")
        last = self.classifier_steps + config.steps
        if self.step < self.classifier_steps:
            names = Phase("names", config.classifier_steps, config.classifier_batch, (1.0,), config.classifier_sizes)
            labelled = self._pictures("labelled", config.classifier_pictures, max(names.sizes), bar, stopped)
            self._run(names, self.classifier, [labelled], 0, config.classifier_rate, bar, stopped)
            del labelled
        if self.step == self.classifier_steps:
            self._start_from_classifier()
        if self.step == last:  # stopped while it was being evaluated
            return
        pictures = [self._pictures("boxed", config.boxed_pictures, config.size, bar, stopped)]
        shares: tuple[float, ...] = (1.0,)
        title = "boxes"
        if config.joint:
            split = "oracle" if config.oracle else "labelled"
            pictures.append(self._pictures(split, config.labelled_pictures, config.size, bar, stopped))
            shares, title = config.shares, "boxes and names"
        phase = Phase(title, config.steps, config.batch, shares, config.sizes)
        self._run(phase, self.model, pictures, self.classifier_steps, config.rate, bar, stopped)

    def save_weights(self) -> Path:
        """Write the averaged weights as a model that `yolo9000.load` reads."""
        state = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.model.load_state_dict({**state, **self.average})
        path = save_model(self.directory / "weights.safetensors", self.model, self.labels, about=self.about())
        self.model.load_state_dict(state)
        return path

    def about(self) -> str:
        """What the weights know and cannot know, in a sentence or two."""
        boxed = ", ".join(synset.split(".")[0].replace("_", " ") for synset in embedded.groups())
        if not self.config.joint:
            return f"Trained on drawings laid on photographs, with boxes for {boxed} and no other name."
        given = "with every box given (an oracle)" if self.config.oracle else "and fine names without any box"
        return (
            f"Trained on drawings laid on photographs: boxes for {boxed}, {given}, for {len(embedded.classes())} fine "
            "classes. It knows those classes and what stands above them; it has seen no photograph of an object."
        )

    # ------------------------------------------------------------------ the loop

    def _run(
        self,
        phase: "Phase",
        module: nn.Module,
        pictures: Sequence[InMemory],
        first: int,
        rate: float,
        bar: Progress,
        stopped: Callable[[], bool],
    ) -> None:
        """What is left of a phase whose first step is number `first` of the run."""
        config = self.config
        self.optimizer = _optimizer(module, config)
        self._load_optimizer(module)
        joint = Joint(pictures, [self.nodes] * len(pictures))
        sampler = JointSampler(
            [len(one) for one in pictures], phase.shares, phase.batch, phase.steps, self.step - first, config.seed
        )
        module.train()
        bar.start(phase.title, total=phase.steps, done=self.step - first)
        log = MetricsFile(self.directory / "metrics.csv", keep_to=self.step)
        began, before = time.monotonic(), self.seconds
        for picked in sampler:
            within = self.step - first
            for group in self.optimizer.param_groups:
                group["lr"] = rate * one_cycle(within / phase.steps)
            images, targets = collate([joint[at] for at in picked])
            losses = self._step(module, images, targets, phase.size_at(within, config.seed))
            self.step += 1
            self.seconds = before + time.monotonic() - began
            self._average(module)
            if self.step % 10 == 0:
                values = {key: float(value) for key, value in losses.items()}
                if not all(map(math.isfinite, values.values())):
                    raise WordTreeError(
                        f"loss {values} at step {self.step}; the last checkpoint is kept: try a lower rate than {rate}"
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
        if self.device.type == "cpu":
            batch = batch.contiguous(memory_format=torch.channels_last)
        ready = [{key: value.to(self.device) for key, value in target.items()} for target in targets]
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
        done = self.step - self.classifier_steps
        keep = min(self.config.average, (1 + done) / (10 + done))
        with torch.no_grad():
            for key, value in self.model.state_dict().items():
                if not value.is_floating_point():
                    continue
                if key in self.average:
                    self.average[key].lerp_(value, 1 - keep)
                else:
                    self.average[key] = value.clone()

    def _start_from_classifier(self) -> None:
        """The trunk as it is, the head's classifier in every anchor (Darknet 2017-01, `oneoff`)."""
        self.average = {}
        if self.classifier_steps:
            self.model.trunk.load_state_dict(self.classifier.trunk.state_dict())
            self.model.head.start_from(self.classifier.classes)

    # ------------------------------------------------------------------ data

    def _source(self, split: str, count: int, size: int) -> embedded.Pictures:
        scale = (0.3, 0.9) if split != "boxed" and size == self.config.size else None
        return embedded.Pictures(split, count, size, self.config.seed, self.config.held_out or None, scale)

    def _pictures(self, split: str, count: int, size: int, bar: Progress, stopped: Callable[[], bool]) -> InMemory:
        bar.start(f"making {PICTURES[split]}", total=count, done=0)
        source = self._source(split, count, size)
        return InMemory(source, processes_of(self.config.workers), lambda made: bar.advance(steps=made), stopped)

    def _anchors(self) -> list[list[float]]:
        """Dimension clusters on the boxes of the first training scenes, in cells."""
        scenes = self._source("boxed", 300, self.config.size)
        boxes = torch.cat([scenes[index][1]["boxes"] for index in range(len(scenes))])
        stride = 2 ** (len(self.config.widths) - 1)
        anchors, _ = dimension_clusters((boxes[:, 2:] - boxes[:, :2]) / stride, self.config.anchors)
        return [[round(side, 4) for side in anchor] for anchor in anchors.tolist()]

    # ------------------------------------------------------------------ nothing lost

    @property
    def checkpoint(self) -> Path:
        """Where the unfinished run lies."""
        return self.directory / "checkpoint.safetensors"

    def save_checkpoint(self) -> None:
        """Everything that the next step needs."""
        assert self.optimizer is not None
        tensors = {f"classifier.{key}": value for key, value in self.classifier.state_dict().items()}
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
        parts: dict[str, dict[str, Tensor]] = {"classifier": {}, "model": {}, "average": {}, "optimizer": {}}
        for key, value in tensors.items():
            part, rest = key.split(".", 1)
            parts[part][rest] = value
        load_state(self.classifier, parts["classifier"], str(self.checkpoint))
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


PICTURES = {
    "boxed": "scenes with boxes",
    "labelled": "pictures with a name",
    "oracle": "pictures with a name and a box",
}


@dataclass(frozen=True)
class Phase:
    """One of the two parts of a run."""

    title: str
    steps: int
    batch: int
    shares: tuple[float, ...]
    sizes: tuple[int, ...]

    def size_at(self, step: int, seed: int) -> int:
        """Multi-scale training: another size every 10 steps, at random, from the seed and the step alone."""
        generator = torch.Generator().manual_seed(seed * 7919 + step // 10)
        return self.sizes[int(torch.randint(len(self.sizes), (1,), generator=generator))]


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


def one_cycle(done: float, warm: float = 0.08) -> float:
    """The share of the peak rate when `done` of the steps are done: up in a line, down in a half cosine."""
    if done < warm:
        return 0.05 + 0.95 * done / warm
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))


def _optimizer(module: nn.Module, config: Config) -> torch.optim.Optimizer:
    """AdamW, decay on convolution and classifier weights only."""
    decayed = [p for p in module.parameters() if p.dim() > 1]
    plain = [p for p in module.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": config.decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.rate, betas=(config.momentum, 0.99), fused=True)


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
