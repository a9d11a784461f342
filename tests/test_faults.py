"""NaN and infinity: found in the step where they arise, written out whole, never gone on with unnoticed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, command
from safetensors.torch import load_file
from small_data import SMALL
from test_runfile import joint
from torch import nn

import yolo9000
from yolo9000 import faults, feeds, training
from yolo9000.checkpoints import read_tensors
from yolo9000.faults import Kept, NotFinite, Unsound, finite, replay, unsound, unsound_after

SHORT: dict[str, Any] = {**TINY, "joint": True, "classifier_steps": 2, "steps": 6, "test_scenes": 2, "progress": False}
NAN, INF = float("nan"), float("inf")


def spoil(monkeypatch: pytest.MonkeyPatch, steps: Any, change: Any) -> None:
    """Let the data of the second phase be wrong in some of its steps, counted from 0. change: of images, targets."""
    batches = feeds.EmbeddedFeed.batches

    def spoilt(self: Any, phase: Any, start: int, bar: Any, stopped: Any) -> Any:
        for step, (images, targets) in enumerate(batches(self, phase, start, bar, stopped), start):
            yield change(images, targets) if step in steps and not phase.classify else (images, targets)

    monkeypatch.setattr(feeds.EmbeddedFeed, "batches", spoilt)


def nan_image(images: Any, targets: Any) -> Any:
    images = images.float()
    images[1, 0, 3, 4] = NAN
    return images, targets


def nan_box(images: Any, targets: Any) -> Any:
    return images, [
        {**one, "boxes": one["boxes"] * NAN} if "boxes" in one and not at else one for at, one in enumerate(targets)
    ]


# ---------------------------------------------------------------------- what is looked at


def test_batches_losses_gradients_and_weights_are_told_apart():
    images = torch.zeros(2, 3, 4, 4)
    assert unsound(images, [{"boxes": torch.zeros(1, 4), "labels": torch.tensor([1])}, {}]) == ""
    assert unsound(images.to(torch.uint8), []) == ""
    assert unsound(images.fill_(INF), []) == "images"
    assert unsound(images.zero_(), [{"boxes": torch.tensor([[0.0, 1.0, NAN, 2.0]])}]) == "targets"
    module, one, zero = nn.Linear(2, 1), torch.tensor(1.0), torch.tensor(0.0)
    assert unsound_after({"box": one, "tree": zero}, one, module) == ""
    assert unsound_after({"box": one, "tree": torch.tensor(NAN)}, one, module) == "losses"
    assert unsound_after({"box": one}, torch.tensor(INF), module) == "gradients"
    with torch.no_grad():
        module.weight[0, 1] = NAN
    assert unsound_after({"box": torch.tensor(NAN)}, one, module) == "weights"
    assert finite([torch.zeros(3), torch.zeros(0), torch.tensor([1])])
    assert not finite([torch.zeros(3), torch.tensor([0.0, -INF])])


def test_running_statistics_come_back_as_they_were_before_a_step():
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).train()
    module(torch.randn(2, 1, 3, 3))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    kept = Kept(module)
    kept.look()
    module(torch.full((2, 1, 3, 3), NAN))
    assert module[1].running_mean.isnan().any()
    kept.put_back()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


# ---------------------------------------------------------------------- a run that stops


@pytest.mark.parametrize(("change", "what"), [(nan_image, "images"), (nan_box, "targets")])
def test_a_batch_that_is_not_finite_stops_the_run_is_written_out_and_can_be_replayed(
    tmp_path, monkeypatch, one_thread, change, what
):
    spoil(monkeypatch, [3], change)
    with pytest.raises(NotFinite) as caught:
        yolo9000.train(out=tmp_path, **SHORT)
    folder = tmp_path / "nonfinite" / "step-6"  # the sixth of the run, the fourth of its phase
    for part in (f"{what} of step 6 (boxes and names, rate", "embedded:boxed:", str(folder), "nonfinite=skip"):
        assert part in str(caught.value)
    assert read_tensors(tmp_path / "checkpoint.safetensors")[1]["step"] == 4
    record = json.loads((folder / "fault.json").read_text())
    assert record["what"] == what
    assert (record["step"], record["phase"], record["losses"]) == (6, "boxes and names", {})
    assert record["size"] in SHORT["sizes"]
    assert record["rate"] > 0
    assert len(record["files"]) == SHORT["batch"]
    assert all(re.fullmatch(r"embedded:(boxed|labelled):\d+", one) for one in record["files"])
    tensors = load_file(folder / "batch.safetensors")
    assert len(tensors["images"]) == SHORT["batch"]
    assert finite([tensors["images"]]) == (what != "images")
    if what == "images":  # what cannot be found in the labels of the step can be computed again
        assert not torch.tensor(list(replay(folder)["losses"].values())).isfinite().all()


def test_a_rate_that_blows_up_stops_the_run_with_the_losses_and_the_batch(tmp_path, one_thread):
    with pytest.raises(NotFinite, match=r"of step \d+ .* are not finite|after step \d+ are not finite") as caught:
        yolo9000.train(out=tmp_path, **{**SHORT, "rate": 1e30, "classifier_rate": 1e30})
    if (tmp_path / "checkpoint.safetensors").exists():
        tensors, _ = read_tensors(tmp_path / "checkpoint.safetensors")
        assert finite(tensors.values())
    found = list((tmp_path / "nonfinite").glob("step-*")) if (tmp_path / "nonfinite").exists() else []
    for folder in found:
        record = json.loads((folder / "fault.json").read_text())
        assert record["what"] in ("weights", "losses", "gradients")
        again = replay(folder)
        assert {name for name, loss in again["losses"].items() if loss != loss or abs(loss) == INF} == {
            name for name, loss in record["losses"].items() if isinstance(loss, str)
        }
    assert found or "after step" in str(caught.value)


def test_the_command_says_it_in_a_line_and_ends_with_exit_code_1(tmp_path):
    spoilt = """
from yolo9000 import training
step = training.Trainer._step
def broken(self, module, images, targets, size):
    return step(self, module, images.float() * float("nan") if self.step == 3 else images, targets, size)
training.Trainer._step = broken
"""
    words = [w for k, v in SHORT.items() if k not in ("joint", "progress") for w in ("--set", f"{k}={json.dumps(v)}")]
    done = command("train", "--joint", "--out", tmp_path / "out", *words, code=spoilt)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("error:")]
    assert "images of step 4" in line


def test_the_files_of_a_run_yaml_are_named_by_their_paths(tmp_path, monkeypatch, one_thread):
    run = joint(tmp_path)
    step = training.Trainer._step

    def broken(self: Any, module: Any, images: Any, targets: Any, size: int) -> Any:
        if self.step == 3:
            raise Unsound("losses", {"box": torch.tensor(NAN)})
        return step(self, module, images, targets, size)

    monkeypatch.setattr(training.Trainer, "_step", broken)
    with pytest.raises(NotFinite, match="losses of step 4"):
        yolo9000.train(data=run, out=tmp_path / "out", progress=False)
    record = json.loads((tmp_path / "out" / "nonfinite" / "step-4" / "fault.json").read_text())
    assert record["losses"] == {"box": "nan"}
    assert len(record["files"]) == 5
    assert all(Path(file).is_file() for file in record["files"])


def partial(folder: Path, **settings: Any) -> Path:
    """A run.yaml whose sources know a part of the tree each: all targets of a source tell of the same nodes."""
    run = joint(folder, tree="small.json", batch=6, **settings)
    SMALL.save(folder / "small.json")
    text = run.read_text().replace("ratio: 1\n", "ratio: 1\n  knows: [dog]\n").replace("ratio: 4\n", "ratio: 1\n")
    run.write_text(text)
    return run


def unsound_in(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses of a step, counted from 1, are said not to be finite, whatever they are."""
    calls = iter(range(1, 100))
    monkeypatch.setattr(training, "unsound_after", lambda *given: "losses" if next(calls) == step else "")


@pytest.mark.parametrize("nonfinite", ["stop", "skip"])
def test_a_batch_whose_targets_share_what_their_source_knows_is_written_out(
    tmp_path, monkeypatch, one_thread, nonfinite
):
    run = partial(tmp_path, nonfinite=nonfinite)
    unsound_in(4, monkeypatch)
    if nonfinite == "stop":
        with pytest.raises(NotFinite, match="losses of step 4"):
            yolo9000.train(data=run, out=tmp_path / "out", progress=False)
    else:
        with pytest.warns(UserWarning, match="losses of step 4"):
            yolo9000.train(data=run, out=tmp_path / "out", progress=False)
    tensors = load_file(tmp_path / "out" / "nonfinite" / "step-4" / "batch.safetensors")
    marks = [value for key, value in tensors.items() if key.endswith(".known")]
    assert len(marks) == 3
    for one in marks:
        assert torch.equal(one, marks[0])
        assert 0 < int(one.sum()) < len(SMALL)


@pytest.mark.parametrize(
    "settings",
    [{}, {"exclusive": False}, {"image_label": "area"}, {"loss": "darknet"}, {"loss": "darknet-2018", "accumulate": 2}],
)
def test_a_replay_computes_the_losses_that_the_run_computed(tmp_path, monkeypatch, one_thread, settings):
    run = partial(tmp_path, **settings)
    unsound_in(5, monkeypatch)
    with pytest.raises(NotFinite, match="losses of step 5"):
        yolo9000.train(data=run, out=tmp_path / "out", progress=False)
    folder = tmp_path / "out" / "nonfinite" / "step-5"
    record = json.loads((folder / "fault.json").read_text())
    assert record["seen"] == 3 * 6  # images of the phase, those of the step included
    losses = replay(folder)["losses"]
    assert losses == pytest.approx(record["losses"], rel=1e-5)
    assert all(losses.values())


def test_a_replay_keeps_a_frozen_trunk_as_it_is(tmp_path, monkeypatch, one_thread):
    run = partial(tmp_path, trunk="torchvision/mobilenet_v3_small@16", trunk_frozen=True)
    unsound_in(5, monkeypatch)
    with pytest.raises(NotFinite):
        yolo9000.train(data=run, out=tmp_path / "out", progress=False)
    folder = tmp_path / "out" / "nonfinite" / "step-5"
    record = json.loads((folder / "fault.json").read_text())
    assert replay(folder)["losses"] == pytest.approx(record["losses"], rel=1e-5)


# ---------------------------------------------------------------------- a run that goes on


def test_a_step_left_out_changes_no_weight_no_mean_and_no_statistic_and_is_told_at_the_end(
    tmp_path, monkeypatch, one_thread
):
    seen: list[tuple[dict[str, Any], dict[str, Any]]] = []
    step = training.Trainer._step

    def watched(self: Any, module: Any, *given: Any) -> Any:
        inner = getattr(module, "module", module)
        look = lambda: {**inner.state_dict(), **{f"mean.{k}": v for k, v in self.average.items()}}  # noqa: E731
        before = {key: value.clone() for key, value in look().items()}
        try:
            return step(self, module, *given)
        except Unsound:
            seen.append((before, {key: value.clone() for key, value in look().items()}))
            raise

    norm = faults.unsound_after
    monkeypatch.setattr(training.Trainer, "_step", watched)
    calls: list[int] = []

    def unsound_sometimes(*given: Any) -> str:
        calls.append(1)
        return "gradients" if len(calls) in (4, 6) else norm(*given)

    monkeypatch.setattr(training, "unsound_after", unsound_sometimes)
    with pytest.warns(UserWarning, match="left out") as warned:
        run = yolo9000.train(out=tmp_path, **{**SHORT, "nonfinite": "skip"})
    told = [str(one.message) for one in warned]
    assert sum("the step is left out" in one for one in told) == 2
    assert any("2 steps were left out, their losses or gradients were not finite: 4, 6" in one for one in told)
    assert run.metrics["skipped_steps"] == 2
    assert len(seen) == 2
    for before, after in seen:
        assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert {one.name for one in (tmp_path / "nonfinite").iterdir()} == {"step-4", "step-6"}
    assert not (tmp_path / "nonfinite" / "step-4" / "weights.safetensors").exists()


def test_a_run_that_leaves_steps_out_goes_on_to_the_same_bytes(tmp_path, monkeypatch, one_thread):
    options = {**SHORT, "nonfinite": "skip", "checkpoint_every": 1}
    spoil(monkeypatch, [1, 3], nan_image)
    with pytest.warns(UserWarning, match="left out"):
        whole = yolo9000.train(out=tmp_path / "whole", **options)
    step = training.Trainer._step

    def stopping(self: Any, *given: Any) -> Any:
        if self.step == 4:
            raise KeyboardInterrupt
        return step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "_step", stopping)
        with pytest.warns(UserWarning, match="left out"), pytest.raises(KeyboardInterrupt):
            yolo9000.train(out=tmp_path / "again", **options)
    with pytest.warns(UserWarning, match="2 steps were left out"):
        again = yolo9000.train(out=tmp_path / "again", **options)
    assert again.weights.read_bytes() == whole.weights.read_bytes()


def test_a_run_that_was_stopped_by_a_nan_may_go_on_without_it(tmp_path, monkeypatch, one_thread):
    spoil(monkeypatch, [3], nan_image)
    with pytest.raises(NotFinite):
        yolo9000.train(out=tmp_path, **SHORT)
    with pytest.warns(UserWarning, match="images of step 6"):
        run = yolo9000.train(out=tmp_path, **{**SHORT, "nonfinite": "skip"})
    assert run.metrics["skipped_steps"] == 1


def test_ten_steps_in_a_row_stop_a_run_that_leaves_them_out(tmp_path, monkeypatch, one_thread):
    spoil(monkeypatch, range(1, 20), nan_image)
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(NotFinite, match=r"images of step 13 .* the 10th step in a row"),
    ):
        yolo9000.train(out=tmp_path, **{**SHORT, "steps": 20, "nonfinite": "skip"})


def test_a_replay_of_nothing_is_refused(tmp_path):
    with pytest.raises(yolo9000.faults.WordTreeError, match=r"no fault in .*; give a folder such as"):
        replay(tmp_path)
