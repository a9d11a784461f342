"""Several ranks that train as one: equal to one process that accumulates, stopped together, started again together."""

import contextlib
import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import small_data
import torch
import yaml
from conftest import ALONE, TINY
from test_runfile import joint
from test_training import settings

import yolo9000
from wordtree import WordTreeError
from wordtree.nn import TreeLinear
from yolo9000 import engine, hardware, training
from yolo9000.batchnorm import BatchNorm
from yolo9000.checkpoints import read_tensors
from yolo9000.config import config_of
from yolo9000.data.loading import TRIES, Damaged
from yolo9000.engine import Ranks
from yolo9000.faults import Kept
from yolo9000.hardware import autocast_of, processes_of


def torchrun(*words: str | Path, restarts: int = 0) -> "subprocess.CompletedProcess[str]":
    """Two ranks on this machine, as a person starts them."""
    start = ["--standalone", "--nproc_per_node", "2", "--max-restarts", str(restarts), *map(str, words)]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *start], capture_output=True, text=True, timeout=500, env=ALONE
    )


def assert_same_weights(one: Path, other: Path) -> None:
    """To the bit, and all that is said of them but how they were computed."""
    (tensors, header), (others, other_header) = read_tensors(one), read_tensors(other)
    for said in (header, other_header):
        del said["sha256"], said["config"]["accumulate"]
    assert header == other_header
    assert tensors.keys() == others.keys()
    for key, value in tensors.items():
        assert torch.equal(value, others[key]), key


def first_parts_statistics(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    """Of the parts that a batch is computed in, only the first counts for the running statistics: those of rank 0."""
    forward = BatchNorm.forward

    def only_first(self, x):
        if self.training:
            self.calls = getattr(self, "calls", -1) + 1
            self.track_running_stats = self.calls % parts == 0
        return forward(self, x)

    monkeypatch.setattr(BatchNorm, "forward", only_first)


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """One process that accumulates the two halves of every batch, with the running statistics of the first."""
    with pytest.MonkeyPatch.context() as patch:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        first_parts_statistics(patch, 2)
        folder = tmp_path_factory.mktemp("halves") / "run"
        run = yolo9000.train(joint=True, out=folder, progress=False, accumulate=2, **TINY)
        torch.set_num_threads(before)
        return run


# ---------------------------------------------------------------------- accumulation


def gradients(folder: Path, accumulate: int, frozen: bool) -> dict[str, torch.Tensor]:
    """Of the detector's first step."""
    trainer = training.Trainer(config_of({**TINY, "batch": 8, "accumulate": accumulate, "clip": 0.0}), folder)
    trainer.model.train()
    for part in trainer.model.modules():
        if isinstance(part, BatchNorm) and frozen:
            part.eval()
    trainer.kept = Kept(trainer.model)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.0)
    boxes = torch.tensor([[8.0, 8.0, 40.0, 48.0], [20.0, 4.0, 60.0, 30.0]])
    targets = [{"boxes": boxes[: 1 + n % 2], "labels": torch.tensor([n, n + 1])[: 1 + n % 2]} for n in range(4)]
    targets += [{"labels": torch.tensor([n])} for n in range(4, 8)]
    images = torch.randint(0, 256, (8, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    losses = trainer._step(trainer.model, images, targets, 64)
    assert losses.keys() == {"box", "objectness", "tree", "image_label"}
    found = {name: parameter.grad.clone() for name, parameter in trainer.model.named_parameters()}
    return found | {f"loss {name}": value for name, value in losses.items()}


def test_accumulated_gradients_are_the_whole_batchs_where_batch_norm_is_frozen(tmp_path, one_thread):
    whole = gradients(tmp_path, 1, frozen=True)
    for accumulate in (2, 4, 8):
        parts = gradients(tmp_path, accumulate, frozen=True)
        for name, value in whole.items():
            torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()), msg=name)
    first = "trunk.stages.0.0.0.weight"
    own = gradients(tmp_path, 2, frozen=False)[first]  # batch-norm by each part's own statistics
    assert not torch.allclose(own, gradients(tmp_path, 1, frozen=False)[first], rtol=1e-2)


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(WordTreeError, match=r"batch of 4 in 3 equal parts \(1 ranks, accumulate 3\); give a multiple"):
        yolo9000.train(out=tmp_path / "run", progress=False, accumulate=3, **TINY)
    with pytest.raises(WordTreeError, match=r"classifier_batch of 9 in 2 equal parts"):
        yolo9000.train(True, out=tmp_path / "run", progress=False, accumulate=2, **{**TINY, "classifier_batch": 9})
    assert not (tmp_path / "run").exists()


def test_clipping_is_by_the_norm_of_the_whole_gradient_and_can_be_left_out(tmp_path, monkeypatch, one_thread):
    norms = {}
    step = torch.optim.AdamW.step
    for clip in (0.0, 0.5):
        options = {**TINY, "steps": 1, "clip": clip}

        def measured(self, *given, clip=clip):
            grads = [p.grad for group in self.param_groups for p in group["params"]]
            norms[clip] = float(torch.nn.utils.get_total_norm(grads))
            return step(self, *given)

        monkeypatch.setattr(torch.optim.AdamW, "step", measured)
        trainer = training.Trainer(config_of({**options, "joint": False}), tmp_path / str(clip))
        trainer.train(training.Progress(enabled=False), lambda: False)
    assert norms[0.0] > 1.0
    assert norms[0.5] == pytest.approx(0.5, rel=1e-4)


def test_a_sparse_head_adds_up_and_is_clipped_as_a_dense_one(tmp_path, one_thread):
    weights = []
    for sparse in (False, True):
        options = {"optimizer": "sgd", "rate": 0.01, "decay": 5e-4, "clip": 0.5, "accumulate": 2, "sparse_head": sparse}
        config = config_of({**TINY, "joint": True, "classifier_steps": 0, "steps": 3, "checkpoint_every": 9, **options})
        trainer = training.Trainer(config, tmp_path / str(sparse))
        trainer.train(training.Progress(enabled=False), lambda: False)
        weights.append(trainer.model.state_dict())
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-5, atol=1e-6, msg=key)


# ---------------------------------------------------------------------- two ranks


def test_two_ranks_equal_one_process_that_accumulates_the_two_halves(halves, tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    (line,) = re.findall(r"^    torchrun --standalone --nproc_per_node 2 (-m .*)$", page, re.MULTILINE)
    done = torchrun(*line.replace("runs/two", str(tmp_path / "run")).split(), *settings())
    assert done.returncode == 0, done.stderr
    # halves and sums of two are exact in binary, so this is bit for bit
    assert_same_weights(tmp_path / "run" / "weights.safetensors", halves.weights)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    ours, theirs = ({k: v for k, v in one.items() if k != "seconds"} for one in (metrics, halves.metrics))
    assert str(ours) == str(theirs)  # as text: NaN is NaN
    assert {file.name for file in (tmp_path / "run").iterdir()} == {file.name for file in halves.directory.iterdir()}
    rows = []
    for folder in (tmp_path / "run", halves.directory):
        with (folder / "metrics.csv").open(newline="") as file:
            rows.append([{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)])
    assert rows[0] == rows[1]  # the losses of the whole batch
    assert done.stdout.count("fine classes under a boxed group") == 2  # one table, from one rank; two groups of rows
    assert done.stdout.count("run folder:") == 1


@pytest.mark.slow
def test_two_ranks_on_files_equal_one_process_and_list_the_images_that_either_could_not_use(
    tmp_path, monkeypatch, one_thread
):
    run = joint(tmp_path, batch=4, steps=4, bad_share=0.5)
    content = yaml.safe_load(run.read_text())
    run.write_text(yaml.safe_dump({**content, "sources": content["sources"][:2]}))  # none to be tested on
    for number in (0, 2):
        (tmp_path / "names" / small_data.DOG / f"{small_data.DOG}_{number}.JPEG").write_bytes(b"no image")
    done = torchrun("-m", "yolo9000", "train", "--data", run, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    first_parts_statistics(monkeypatch, 2)
    with pytest.warns(UserWarning, match="left out"):
        one = yolo9000.train(data=run, out=tmp_path / "one", progress=False, accumulate=2)
    assert_same_weights(tmp_path / "two" / "weights.safetensors", one.weights)
    names = {file.name for file in one.directory.iterdir()}
    assert "bad_images.csv" in names
    assert {file.name for file in (tmp_path / "two").iterdir()} == names
    for name in ("bad_images.csv", "data.json"):
        assert (tmp_path / "two" / name).read_text() == (one.directory / name).read_text()
    assert len((one.directory / "bad_images.csv").read_text().splitlines()) == 3
    assert "2 damaged images were left out" in done.stderr


# What happens to two ranks, in runs one after another: killed and started again; stopped; a NaN in one; a fault in one.
# Each rank notes how its runs ended.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import yolo9000
from wordtree import WordTreeError
from yolo9000.training import Trainer
from yolo9000.engine import Ranks

out, options = Path(sys.argv[1]), json.loads(sys.argv[2])
rank, restart = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
step, ended = Trainer._step, {}

def at(number, happens):
    def stepping(self, *given):
        if rank == 1 and self.step == number:
            happens()
        return step(self, *given)
    Trainer._step = stepping

def train(name, **more):
    try:
        return yolo9000.train(joint=True, out=out / name, progress=False, **options, **more)
    except (WordTreeError, KeyboardInterrupt) as end:
        ended[name] = f"{type(end).__name__}: {end}"
        (out / f"{name}-{rank}.json").write_text(json.dumps(ended))
        raise

def broken():
    raise WordTreeError("broken on purpose")

at(7, (lambda: os.kill(os.getpid(), signal.SIGKILL)) if restart == 0 else (lambda: None))
run = train("killed")
(out / f"killed-{rank}.json").write_text(json.dumps([str(run.weights), str(run.metrics), restart]))
at(5, lambda: signal.raise_signal(signal.SIGTERM))
try:
    train("stopped")
except KeyboardInterrupt:
    pass

def poisoned(self, module, images, targets, size):
    if rank == 1 and self.step == 5:
        targets = [{**one, "boxes": one["boxes"] * float("nan")} if "boxes" in one else one for one in targets]
    return step(self, module, images, targets, size)

Trainer._step = poisoned
run = train("poisoned", nonfinite="skip")
(out / f"poisoned-{rank}.json").write_text(json.dumps(run.metrics["skipped_steps"]))
at(3, broken)
train("broken")
"""


@dataclass
class Ended:
    """What SCRIPT left behind."""

    folder: Path
    done: "subprocess.CompletedProcess[str]"

    def told(self, name: str) -> list:
        """By each rank."""
        return [json.loads((self.folder / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "script.py").write_text(SCRIPT)
    return Ended(folder, torchrun(folder / "script.py", folder, json.dumps(TINY), restarts=1))


def test_a_run_whose_rank_was_killed_goes_on_by_itself_and_ends_as_if_nothing_had_been(ended, halves):
    assert "exitcode: -9" in ended.done.stderr, ended.done.stderr
    assert_same_weights(ended.folder / "killed" / "weights.safetensors", halves.weights)
    assert not (ended.folder / "killed" / "checkpoint.safetensors").exists()
    ours, theirs = ended.told("killed")
    assert ours == theirs == [str(ended.folder / "killed" / "weights.safetensors"), ours[1], 1]
    table = re.sub(r"'seconds': [\d.e-]+", "", ours[1])
    assert table == re.sub(r"'seconds': [\d.e-]+", "", str(halves.metrics))  # every rank is told the figures


def test_ranks_stop_together_after_the_step_and_a_checkpoint_whoever_was_asked(ended):
    for told in ended.told("stopped"):
        assert re.match(r"Stopped: .* after step 6", told["stopped"])
    assert read_tensors(ended.folder / "stopped" / "checkpoint.safetensors")[1]["step"] == 6
    assert (ended.folder / "stopped" / "weights.safetensors").exists()
    with pytest.warns(UserWarning, match=r"goes on with .*ranks 1 \(was 2\).* will not be equal bit for bit"):
        run = yolo9000.train(joint=True, out=ended.folder / "stopped", progress=False, **TINY)
    assert run.metrics["seconds"] > 0


def test_a_nan_in_one_rank_leaves_the_step_out_in_all_and_that_rank_writes_it_out(ended):
    assert ended.told("poisoned") == [1, 1]
    (folder,) = (ended.folder / "poisoned" / "nonfinite").iterdir()
    record = json.loads((folder / "fault.json").read_text())
    assert (record["what"], record["step"], record["rank"], record["ranks"]) == ("targets", 6, 1, 2)
    assert len(record["files"]) == 4  # of both ranks
    assert read_tensors(folder / "batch.safetensors")[1]["pictures"] == 2
    assert "are not finite" in ended.done.stderr


def test_a_ranks_fault_takes_the_run_down_and_is_named(ended):
    assert ended.done.returncode != 0
    other, own = ended.told("broken")
    assert own["broken"] == "WordTreeError: rank 1 of 2: broken on purpose"
    assert "rank 0 of 2 lost another, which tells its fault" in other["broken"]
    summary = ended.done.stderr[ended.done.stderr.rindex("Root Cause") :]
    assert "broken on purpose" in summary
    assert read_tensors(ended.folder / "broken" / "checkpoint.safetensors")[1]["step"] == 2


# ---------------------------------------------------------------------- one alone, and what is refused


def test_one_alone_hears_itself():
    ranks = Ranks()
    assert ranks.tell([1]) == [1]
    assert ranks.gather("a") == ["a"]
    assert ranks.any(True, False) == [True, False]
    assert ranks.mean({"box": torch.tensor(2.5)}) == {"box": 2.5}
    layer = torch.nn.Linear(2, 2)
    assert ranks.parallel(layer) is layer


def test_a_head_of_sparse_gradients_is_refused_by_name():
    head = torch.nn.Sequential(torch.nn.Identity(), TreeLinear(4, small_data.SMALL, sparse=True))
    with pytest.raises(WordTreeError, match="sparse gradients of 1 with 2 ranks; leave sparse_head out"):
        Ranks(0, 2).parallel(head)


def test_ranks_with_other_settings_or_other_data_are_refused(monkeypatch):
    ranks = Ranks(0, 3)
    monkeypatch.setattr(Ranks, "gather", lambda self, value: [value, value, {**value, "data": "other"}])
    ranks.agree({"steps": 4})
    with pytest.raises(WordTreeError, match="rank 2 has another data than rank 0; start all with the same command"):
        ranks.agree({"steps": 4, "data": "own"})


def test_ranks_of_a_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert processes_of(-1) == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert processes_of(-1) == 1
    assert processes_of(3) == 3


@pytest.mark.parametrize("computes", [True, False])
@pytest.mark.parametrize("own", [True, False])
def test_a_gpu_is_given_bfloat16_where_it_computes_in_it_whatever_the_processor_does(monkeypatch, computes, own):
    asked = []

    def supported(including_emulation=True):
        asked.append(including_emulation)
        return computes or including_emulation

    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(hardware, "_computes_bfloat16", lambda: not computes)
    gpu = torch.device("cuda", 1)
    assert (autocast_of("auto", gpu, own) is not contextlib.nullcontext) == computes
    assert asked == [False]
    assert autocast_of("bfloat16", gpu, own) is not contextlib.nullcontext  # who asks for it gets it
    assert autocast_of("float32", gpu, own) is contextlib.nullcontext


def test_damaged_images_of_another_rank_are_kept_for_the_first(tmp_path):
    first, other = Damaged(tmp_path / "bad.csv", [1]), Damaged(None, [1])
    other.note(0, [("a.jpg", "a.jpg is cut")])
    assert other.news == [(0, [("a.jpg", "a.jpg is cut")])]
    assert not other.found
    with pytest.warns(UserWarning, match=r"a\.jpg is cut"):
        first.note(*other.news[0])
    assert first.found == {"a.jpg": ("a.jpg is cut", 1)}
    with pytest.raises(WordTreeError, match="damaged images in one source"), pytest.warns(match="left out"):
        other.note(0, [(f"{number}.jpg", "cut") for number in range(TRIES)])  # no picture to go on with


def test_compile_and_tensorboard_are_refused_where_they_cannot_be(tmp_path, monkeypatch):
    options = {**TINY, "detector": "torchvision/ssdlite320_mobilenet_v3_large", "compile": True}
    with pytest.raises(WordTreeError, match="compile with torchvision/ssdlite320_mobilenet_v3_large"):
        yolo9000.train(out=tmp_path / "run", progress=False, **options)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(WordTreeError, match=r"tensorboard: true.*pip install tensorboard"):
        yolo9000.train(out=tmp_path / "run", progress=False, tensorboard=True, **TINY)
    assert not (tmp_path / "run").exists()


def test_tensorboard_holds_the_numbers_of_metrics_csv(tmp_path, one_thread):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {**TINY, "steps": 20, "test_scenes": 1, "tensorboard": True}
    run = yolo9000.train(out=tmp_path / "run", progress=False, **options)
    with (run.directory / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    events = EventAccumulator(str(run.directory / "tensorboard")).Reload()
    tags = {f"loss/{name}" for name in ("box", "objectness", "tree", "image_label")}
    assert set(events.Tags()["scalars"]) == tags | {"rate", "size", "images_per_second"}
    for tag in (*tags, "rate"):
        points = [(str(one.step), f"{one.value:.3g}") for one in events.Scalars(tag)]
        assert points == [(row["step"], f"{float(row[tag.removeprefix('loss/')]):.3g}") for row in rows]
    assert all(one.value > 0 for one in events.Scalars("images_per_second"))
    assert {one.value for one in events.Scalars("size")} <= set(TINY["sizes"])


# ---------------------------------------------------------------------- compile, GPUs


def compiled(folder: Path) -> None:
    """A compiled run is the same run, to rounding, and its files are the same."""
    options = {**TINY, "steps": 2, "classifier_steps": 2, "test_scenes": 1}
    plain = yolo9000.train(True, out=folder / "plain", progress=False, **options)
    fast = yolo9000.train(True, out=folder / "fast", progress=False, compile=True, **options)
    ours, theirs = read_tensors(fast.weights)[0], read_tensors(plain.weights)[0]
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-2, atol=2e-3, msg=key)


def test_a_compiled_run_is_the_same_run_and_its_weights_keep_their_names(tmp_path, monkeypatch, one_thread):
    whole = torch.compile
    calls = []

    def lighter(*given, **options):  # traced and cut into graphs as ever; the kernels are those there are
        calls.append(given)
        return whole(*given, **{**options, "backend": "aot_eager"})

    monkeypatch.setattr(torch, "compile", lighter)
    compiled(tmp_path)
    assert len(calls) == 2


@pytest.mark.slow
@pytest.mark.skipif(not any(Path(folder, "g++").exists() for folder in os.get_exec_path()), reason="no C++ compiler")
def test_a_run_of_compiled_kernels_is_the_same_run(tmp_path, one_thread):
    compiled(tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_run_on_a_gpu_in_bfloat16_stops_and_goes_on(tmp_path):
    options = {**TINY, "device": "cuda", "precision": "bfloat16", "accumulate": 2}
    trainer = training.Trainer(config_of({**options, "joint": True}), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(training.Progress(enabled=False), lambda: trainer.step == 7)
    run = yolo9000.train(True, out=tmp_path, progress=False, **options)
    assert all(value.isfinite().all() for value in read_tensors(run.weights)[0].values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_on_a_gpu_trains_over_nccl(tmp_path):
    """One rank, wrapped as many would be."""
    import torch.distributed as dist

    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=torch.device("cuda", 0))
    try:
        ranks = Ranks(0, 2, dist.new_group(backend="gloo"))
        layer = torch.nn.Conv2d(3, 4, 1).cuda()
        parallel = ranks.parallel(layer)
        parallel(torch.ones(1, 3, 2, 2, device="cuda")).sum().backward()
        assert layer.bias.grad.tolist() == [4.0] * 4
    finally:
        dist.destroy_process_group()


def test_a_rank_beyond_the_machines_gpus_is_refused(monkeypatch):
    monkeypatch.setattr(engine, "device_of", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Ranks(3, 4).device("cuda") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(WordTreeError, match=r"local rank 2 on a machine of 2 GPUs; start as many ranks"):
        Ranks(3, 4).device("cuda")
    with pytest.raises(WordTreeError, match="device 'cuda:1' with 4 ranks"):
        Ranks(3, 4).device("cuda:1")
    assert Ranks().device("cuda:1") == torch.device("cuda", 1)
    assert Ranks(1, 4).device("cpu") == torch.device("cpu")
