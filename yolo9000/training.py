"""One training loop, on the detector contract: first names, then boxes and names together.

A step depends on the config and its own number alone, so a run stopped anywhere goes on as if it had never stopped.
Under torchrun each rank runs this loop on its part of every batch; `engine` has what they say to each other.
"""

import copy
import dataclasses
import json
import math
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wordtree import WordTreeError

from . import models
from .borrowed import OWN, borrowed_of
from .checkpoints import load_state, peek, read_tensors, save_model, save_tensors, versions
from .classifier import TreeClassifier
from .config import Config, config_of
from .engine import ALONE, Ranks, exchange, ranked
from .faults import Faults, Kept, Moment, NotFinite, Unsound, explained, finite, unsound, unsound_after
from .feeds import Batch, EmbeddedFeed, Feed, Phase, RecordsFeed
from .files import FULL, named, sync, write_text
from .hardware import autocast_of
from .journal import Journal, board_writer
from .loading import load
from .ready import ready_batch
from .recipes import HIGH_CLASSIFIER, switched
from .recipes import recipe as find_recipe
from .reports import Progress
from .runfile import RunFile, run_of
from .runs import CHECKPOINT, FREE, Run, differences, finished_run, tidy
from .schedule import optimizer_of, rate_of
from .sparse import RowSGD, clip_gradients
from .start import begin, with_hash
from .stops import Stopped, Stops, stopping
from .trunks import load_trunk


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
    metrics.json, curve.png, detections.png; while it runs, checkpoint.safetensors. Under torchrun every rank makes this
    call and gets the run; rank 0 writes it.

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
        WordTreeError: an unknown option or data set; a folder that holds something else; a full disk (`CannotWrite`),
            NaN or infinity (`NotFinite`): the last checkpoint stands, and the same call goes on from it.
        KeyboardInterrupt: after Ctrl-C or SIGTERM (`Stopped`), once a checkpoint is written; the same call goes on.
    """
    run, config = settled(data, recipe, joint, options)
    config = with_hash(config)
    if run is None and not config.steps:
        raise WordTreeError("steps of 0 on the embedded set; a classifier alone learns from the sources of a run.yaml")
    name = "oracle" if config.oracle else "joint" if config.joint else "boxes"
    directory = Path(out) if out is not None else Path("runs") / (name if run is None else run.path.stem)
    with stopping() as stops:
        try:
            with ranked(config.device) as ranks:
                return _train(run, directory, config, progress, stops, ranks)
        except KeyboardInterrupt:
            raise Stopped(_kept(directory), stops.number or signal.SIGINT) from None
        except OSError as fault:
            raise (named(fault, fault.filename or directory) if fault.errno in FULL else fault) from None
        except RuntimeError as fault:
            raise explained(fault) from None


def _train(run: RunFile | None, directory: Path, config: Config, progress: bool, stops: Stops, ranks: Ranks) -> Run:
    if run is None and (finished := _finished(ranks, directory, config)) is not None:
        return finished
    feed: Feed = EmbeddedFeed(config) if run is None else RecordsFeed(run, directory, config)
    if run is not None and (finished := _finished(ranks, directory, config, feed.fingerprint)) is not None:
        return finished
    trainer = Trainer(config, directory, feed, ranks)
    with Progress(enabled=progress and ranks.first) as bar:
        with stops.later() as stopped:
            trainer.train(bar, stopped)
        metrics = ranks.tell(_report(trainer, bar) if ranks.first else None)
    return Run(directory, directory / "weights.safetensors", metrics, config)


def _finished(ranks: Ranks, directory: Path, config: Config, data: str = "") -> Run | None:
    """The finished run that rank 0 finds in the folder."""
    run = finished_run(directory, config, data) if ranks.first else None
    metrics = ranks.tell(None if run is None else run.metrics)
    return None if metrics is None else Run(directory, directory / "weights.safetensors", metrics, config)


def _report(trainer: "Trainer", bar: Progress) -> dict[str, float]:
    """Score what was trained, and leave the folder as a finished run's."""
    feed, directory = trainer.feed, trainer.directory
    model = load(trainer.save_weights())
    metrics = feed.report(model.to(trainer.device), directory, bar)
    metrics["seconds"] = trainer.seconds
    if trainer.faults.skipped:
        metrics["skipped_steps"] = len(trainer.faults.skipped)
    write_text(directory / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    trainer.checkpoint.unlink(missing_ok=True)
    for told in (trainer.faults.summary(), feed.summary()):
        if told:
            warnings.warn(told, stacklevel=4)
    return metrics


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


def _kept(directory: Path) -> str:
    """What a stopped run has left."""
    checkpoint = directory / CHECKPOINT
    if not checkpoint.is_file():
        return f"stopped before the first checkpoint in {directory}; the same command begins again"
    step = peek(checkpoint).get("step")
    return f"stopped; a checkpoint is kept, and the same command goes on from it ({checkpoint}, after step {step})"


class Trainer:
    """The state of one run and its two phases, in one process or in each of several ranks."""

    def __init__(self, config: Config, directory: Path, feed: Feed | None = None, ranks: Ranks = ALONE) -> None:
        self.config = config
        self.directory = directory
        self.ranks = ranks
        self.device = ranks.device(config.device)
        self.autocast = autocast_of(config.precision, self.device, config.detector == OWN)
        self.feed = feed or EmbeddedFeed(config)
        self.labels, self.tree = self.feed.labels, self.feed.tree
        self.step = 0  # of both phases together
        self.seconds = 0.0  # spent training, over all sittings
        torch.manual_seed(config.seed)
        self.classifier, self.model = (one.to(self.device) for one in self._networks())
        self._check()
        if "/" in config.trunk:
            self._start_trunks()
        # convolutions are faster with channels last
        self.classifier = self.classifier.to(memory_format=torch.channels_last)
        self.model = self.model.to(memory_format=torch.channels_last)
        if config.compile:  # in place: the weights keep their names
            self.classifier.trunk.compile()
            if self.model is not self.classifier:
                self.model.features = torch.compile(self.model.features)
        self.average: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}  # as they lie in the detector: what it is the average of
        self.optimizer: torch.optim.Optimizer | None = None
        self.faults = Faults(directory, config)
        if ranks.first:
            self._make_directory()
        self._resume()

    def _check(self) -> None:
        """Refuse what the whole run could not do, before anything is written."""
        config, ranks = self.config, self.ranks
        batches = {"batch": config.batch} if config.steps else {}
        if self.classifier_steps:
            batches["classifier_batch"] = config.classifier_batch
        for name, batch in batches.items():
            if batch % (parts := ranks.count * config.accumulate):
                raise WordTreeError(
                    f"{name} of {batch} in {parts} equal parts ({ranks.count} ranks, accumulate {config.accumulate}); "
                    f"give a multiple of {parts}"
                )
        if config.sparse_head and ranks.count > 1:
            raise WordTreeError(f"sparse_head with {ranks.count} ranks, which exchange whole gradients; leave it out")
        if config.compile and config.detector != OWN:
            raise WordTreeError(f"compile with {config.detector}; it is for our own detectors: leave it out")
        if config.tensorboard:
            board_writer()
        ranks.agree({**dataclasses.asdict(config), "tree": self.tree.hash, "data": self.feed.fingerprint})

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise WordTreeError(f"{self.directory} is a file; give a folder for the run") from None
        except OSError as fault:
            raise named(fault, self.directory) from None
        tidy(self.directory)

    def _networks(self) -> tuple[Any, Any]:
        """The classifier that learns names first, and the detector; one network twice where there is one alone."""
        config, size = self.config, max(self.config.classifier_sizes)
        if config.detector != OWN:
            borrowed = borrowed_of(config, self.tree, peek(self.checkpoint).get("detector"))
            trunk = copy.deepcopy(borrowed.trunk)
            return (borrowed if trunk is None else TreeClassifier(trunk, self.tree, size)), borrowed
        looks: Any = {"widths": config.widths, "counts": config.counts, "trunk": config.whole_trunk}
        classifier = models.darknet19(self.tree, size, normalized=config.normalized, **looks)
        return classifier, self._detector() if config.steps else classifier

    def _detector(self) -> Any:
        config = self.config
        if config.location == "image":
            anchors = [[1.0, 1.0]] * config.anchors  # boxes without priors
        else:
            anchors = models.priors_of(config.priors) if config.priors else self.feed.anchors(config.stride)
        return models.of_config(config, self.tree, anchors)

    def _start_trunks(self) -> None:
        """Trunks by name: weights of their own where asked for, and whether they stay."""
        first, other = self.classifier.trunk, self.model.trunk
        if self.config.trunk_weights and not self.checkpoint.exists():  # which has them
            load_trunk(first, self.config.trunk_weights)
            other.load_state_dict(first.state_dict())
        if self.config.trunk_frozen:
            first.freeze()
            other.freeze()

    @property
    def classifier_steps(self) -> int:
        """Steps of the first phase; none without image labels, or of a plug-in's detector that offers no trunk."""
        first = self.classifier is not self.model or not self.config.steps
        return self.config.classifier_steps if self.feed.labelled and first else 0

    def train(self, bar: Progress, stopped: Callable[[], bool]) -> None:
        """Run what is left of both phases."""
        config, part = self.config, (self.ranks.rank, self.ranks.count)
        if self.ranks.first:
            write_text(self.directory / "config.json", json.dumps(dataclasses.asdict(config), indent=1) + "\n")
            if self.feed.fingerprint:
                write_text(self.directory / "data.json", json.dumps({"sha256": self.feed.fingerprint}) + "\n")
        last = self.classifier_steps + config.steps
        if config.start and not self.step:
            low = HIGH_CLASSIFIER in config.without and not self.classifier_steps
            bar.note(begin(self.classifier if self.classifier_steps else self.model, config.start, low))
        if self.step < self.classifier_steps:
            sizes = config.classifier_sizes
            names = Phase("names", config.classifier_steps, config.classifier_batch, sizes, True, *part)
            self._run(names, self.classifier, 0, bar, stopped)
        if self.step == self.classifier_steps and config.steps:
            self._start_from_classifier()
        if self.step == last:  # stopped while it was being evaluated
            return
        title = "boxes and names" if self.feed.labelled else "boxes"
        phase = Phase(title, config.steps, config.batch, config.sizes, False, *part)
        self._run(phase, self.model, self.classifier_steps, bar, stopped)

    def save_weights(self) -> Path:
        """Write the averaged weights as a model that `yolo9000.load` reads."""
        state = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.model.load_state_dict({**state, **self.average})
        try:
            return save_model(
                self.directory / "weights.safetensors", self.model, self.labels, self.feed.about(), more=self._origin()
            )
        finally:
            self.model.load_state_dict(state)

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
        self.kept = Kept(module)
        batches = self.feed.batches(phase, self.step - first, bar, stopped)
        module.train()
        # what is no network of ours may leave parameters without a gradient
        parallel = self.ranks.parallel(module, unused=config.detector != OWN or "/" in config.trunk)
        bar.start(phase.title, total=phase.steps, done=self.step - first)
        kept = (self.directory, phase.title, phase.batch, self.step, self.seconds, config.tensorboard)
        journal = Journal(*kept) if self.ranks.first else None
        began, before = time.monotonic(), self.seconds
        for images, targets in batches:
            within = self.step - first
            rate = rate_of(config, within, phase.steps, phase.classify)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            if module is self.model:
                module.seen = (within + 1) * phase.batch
            size = phase.size_at(within, config.seed)
            try:
                losses = self._step(parallel, images, targets, size)
            except Unsound as fault:
                losses = self._leave_out(fault, phase, size, (images, targets), within, module)
            self.step += 1
            self.seconds = before + time.monotonic() - began
            sound = self.step not in self.faults.skipped[-1:]
            if sound:
                self._average(module)
            values = self.ranks.mean(losses) if self.step % 10 == 0 else {}
            if journal is not None and self.step % 10 == 0:
                journal.write(self.step, self.seconds, rate, size, values)
            bar.advance(sum(values.values()) if values and sound else None)
            if self._any_stopped(stopped):
                self.save_checkpoint()
                if module is self.model and self.ranks.first:
                    self.save_weights()
                self.ranks.any(False)  # all say what rank 0 has written by then
                raise KeyboardInterrupt
            if self.step % config.checkpoint_every == 0 or within + 1 == phase.steps:
                self.save_checkpoint()

    def _step(
        self, module: nn.Module, images: Tensor, targets: list[dict[str, Tensor]], size: int
    ) -> dict[str, Tensor]:
        """One update; images uint8 [b, 3, h, w], this rank's of the batch, boxes in their pixels.

        The gradient is that of the mean over the whole batch, all parts and ranks, and the same in every rank.

        Raises:
            Unsound: a NaN or an infinity in any rank; there is no update in any.
        """
        assert self.optimizer is not None
        config, ranks = self.config, self.ranks
        if ranks.any(bool(what := unsound(images, targets)))[0]:
            raise Unsound(what, {})
        self.kept.look()
        self.optimizer.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = {}
        for part in range(config.accumulate):
            some = slice(part, None, config.accumulate)
            at = (ranks.rank + ranks.count * part, ranks.count * config.accumulate)  # its place in the whole batch
            batch, ready = ready_batch(images[some], targets[some], self.step, size, config.seed, self.device, *at)
            with exchange(module, part + 1 == config.accumulate):
                with self.autocast():
                    of_part: dict[str, Tensor] = module(batch, ready)
                (torch.stack(list(of_part.values())).sum() / config.accumulate).backward()
            for key, value in of_part.items():
                losses[key] = losses.get(key, 0.0) + value.detach() / config.accumulate
        norm = clip_gradients(module.parameters(), config.clip or math.inf)
        if ranks.any(bool(what := unsound_after(losses, norm, module)))[0]:
            self.kept.put_back()
            raise Unsound(what, losses)
        self.optimizer.step()
        return losses

    def _any_stopped(self, stopped: Callable[[], bool]) -> bool:
        """Whether any rank was asked to stop. On the way rank 0 is told of images that others could not use."""
        damaged = self.feed.damaged
        stop, news = self.ranks.any(stopped(), damaged is not None and bool(damaged.news))
        if news and damaged is not None:
            told = self.ranks.gather(damaged.news)
            damaged.news.clear()
            for source, bad in (one for some in told for one in some if self.ranks.first):
                damaged.note(source, bad)
        return stop

    def _leave_out(
        self, fault: Unsound, phase: Phase, size: int, batch: Batch, within: int, module: Any
    ) -> dict[str, Tensor]:
        """A step that is not finite: written out by the first rank that had it; the run stops, or goes on."""
        assert self.optimizer is not None
        whats = self.ranks.gather(fault.what)
        teller = next(rank for rank, what in enumerate(whats) if what)
        fault.what = whats[teller]
        rate = self.optimizer.param_groups[0]["lr"]
        seen = getattr(module, "seen", 0)
        moment = Moment(self.step + 1, phase.title, size, rate, self.ranks.rank, self.ranks.count, seen)
        files = self.feed.pictures(within)
        self.faults.note(fault, moment, batch, files, module, tells=teller == self.ranks.rank)
        return fault.losses

    def _average(self, module: nn.Module) -> None:
        """A running mean of the detector's weights, short at first; rank 0 keeps it."""
        if module is not self.model or not self.ranks.first:
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
        """The trunk as it is, and in a head of ours the classifier in every anchor (Darknet 2017-01, `oneoff`)."""
        self.average = {}
        if self.classifier_steps:
            self.model.trunk.load_state_dict(self.classifier.trunk.state_dict())
            if self.config.detector == OWN:
                self.model.head.start_from(self.classifier.classes)

    # ------------------------------------------------------------------ nothing lost

    @property
    def checkpoint(self) -> Path:
        """Where the unfinished run lies."""
        return self.directory / CHECKPOINT

    def save_checkpoint(self) -> None:
        """Everything that the next step needs; rank 0 writes it for all.

        Raises:
            NotFinite: weights that are not finite take the place of no checkpoint.
        """
        assert self.optimizer is not None
        if not self.ranks.first:
            return
        if not finite([*self.classifier.parameters(), *self.model.parameters(), *self.average.values()]):
            raise NotFinite(
                f"weights of {self.directory} after step {self.step} are not finite; the last checkpoint is kept: "
                f"begin again with a lower rate than {self.optimizer.param_groups[0]['lr']:.3g} in another folder"
            )
        sync(self.directory / "metrics.csv")  # its rows are not written again
        tensors = {
            f"{part}.{key}": value
            for part, network in self._parts().items()
            for key, value in network.state_dict().items()
        }
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
            "versions": {**versions(), "ranks": self.ranks.count},
            "skipped": self.faults.skipped,
            "feed": self.feed.state(),
            "detector": self.model.options,
        }
        save_tensors(self.checkpoint, tensors, header)

    def _parts(self) -> dict[str, nn.Module]:
        """The networks that a checkpoint holds, each once."""
        alone = self.model is self.classifier
        return {"classifier": self.classifier} if alone else {"classifier": self.classifier, "model": self.model}

    def _origin(self) -> dict[str, Any]:
        """What weights say of their training, the same wherever and however fast it was computed."""
        config = {key: value for key, value in dataclasses.asdict(self.config).items() if key not in FREE}
        own = {key: value for key, value in versions().items() if key not in ("threads", "processor")}
        return {"config": config, "versions": own}

    def _resume(self) -> None:
        self._loaded: dict[str, Tensor] = {}
        if not self.ranks.tell(self.checkpoint.exists()):
            return
        tensors, header = self.ranks.share(read_checkpoint(self.checkpoint) if self.ranks.first else None)
        stored = config_of(header["config"])
        if different := differences(stored, self.config):
            raise WordTreeError(
                f"{self.directory} holds an unfinished run with other settings ({different}); "
                "give the same settings, another folder, or delete it"
            )
        if header["tree"] != self.tree.hash:
            raise WordTreeError(
                f"{self.directory} holds a run over another tree ({header['tree'][:12]}, given {self.tree.hash[:12]}); "
                "give that tree, another folder, or delete it"
            )
        data = header.get("data", "")
        if data != self.feed.fingerprint:
            was, given = (one[:12] or "the embedded set" for one in (data, self.feed.fingerprint))
            raise WordTreeError(
                f"{self.directory} holds a run over data that has changed since ({was}, given {given}); "
                "give the data as it was, another folder, or delete it"
            )
        then = header.get("versions", {"torch": header.get("torch")})
        now = {**versions(), "ranks": self.ranks.count}
        if stored.device != self.config.device:
            then, now = {**then, "device": stored.device}, {**now, "device": self.config.device}
        changed = [f"{key} {now[key]} (was {was})" for key, was in then.items() if now.get(key, was) != was]
        if changed and self.ranks.first:
            warnings.warn(
                f"{self.directory} goes on with {', '.join(changed)}; its weights will not be equal bit for bit to "
                "those of a run that never stopped",
                stacklevel=2,
            )
        self.faults.skipped = list(header.get("skipped", ()))
        self.feed.resume(header.get("feed", {}))
        parts: dict[str, dict[str, Tensor]] = {"classifier": {}, "model": {}, "average": {}, "optimizer": {}}
        for key, value in tensors.items():
            part, rest = key.split(".", 1)
            parts[part][rest] = value
        for part, network in self._parts().items():
            load_state(network, parts[part], str(self.checkpoint))
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
                    key: torch.empty_like(parameter).copy_(value)
                    if value.shape == parameter.shape
                    else value.to(parameter.device)
                    for key, value in state.items()
                }
        self._loaded = {}


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of an unfinished run.

    Raises:
        WordTreeError: a damaged file, or one that is no checkpoint.
    """
    try:
        tensors, header = read_tensors(path)
    except WordTreeError as fault:
        raise WordTreeError(f"{path.parent} cannot go on: {fault}; or delete the file to begin again") from None
    if "step" not in header:
        raise WordTreeError(
            f"{path.parent} cannot go on: {path.name} holds a model's weights and no run's state; put the checkpoint "
            "back, or delete the file to begin again"
        )
    return tensors, header
