"""A run: what it leaves behind, that nothing of it is lost when it is stopped, and what it refuses."""

import csv
import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from conftest import ALONE, TINY, arguments, command, signal_before
from PIL import Image
from safetensors.torch import save_file

import yolo9000
from wordtree import LabelMap, WordTree, WordTreeError, build_tree
from yolo9000 import checkpoints, training
from yolo9000.checkpoints import load_model, read_tensors, save_model, save_tensors
from yolo9000.config import Config, config_of
from yolo9000.data import embedded
from yolo9000.detector import Detector
from yolo9000.files import CannotWrite

SMALL = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])


def settings(**options) -> list[str]:
    """TINY and more as --set words."""
    return [word for key, value in {**TINY, **options}.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def small_model(tree: WordTree = SMALL, seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    return yolo9000.models.yolo9000(tree, [[1.0, 1.0]], size=32, widths=(4, 8), counts=(1, 1)).eval()


# ---------------------------------------------------------------------- what is left behind


def test_a_run_leaves_the_files_that_train_names_and_no_other(tiny_run):
    assert {file.name for file in tiny_run.directory.iterdir()} == {
        "weights.safetensors",
        "config.json",
        "metrics.csv",
        "evaluation.csv",
        "metrics.json",
        "curve.png",
        "detections.png",
    }
    for picture in ("curve.png", "detections.png"):
        with Image.open(tiny_run.directory / picture) as image:
            assert min(image.size) > 200
            image.load()
    assert config_of(json.loads((tiny_run.directory / "config.json").read_text())) == tiny_run.config
    assert json.loads((tiny_run.directory / "metrics.json").read_text()).keys() == tiny_run.metrics.keys()


def test_the_metrics_hold_every_figure_of_the_table(tiny_run):
    rows = ("boxed_groups", "fine_under_boxed", "never_boxed_animals", "never_boxed_artefacts")
    figures = {
        f"{column}/{row}/{kind}" for column in ("unseen", "seen") for row in rows for kind in ("mAP50", "recall10")
    }
    assert figures | {"seconds"} == tiny_run.metrics.keys()
    assert all(0 <= tiny_run.metrics[key] <= 1 for key in figures if tiny_run.metrics[key] == tiny_run.metrics[key])
    assert tiny_run.metrics["seconds"] > 0
    table = tiny_run.table()
    for words in ("unseen design family", "boxed groups", "fine classes under a boxed group", "never-boxed artefacts"):
        assert words in table
    with (tiny_run.directory / "evaluation.csv").open(newline="") as file:
        evaluation = list(csv.DictReader(file))
    assert {f"{row['scenes']}/{row['objects']}" for row in evaluation} == {key.rpartition("/")[0] for key in figures}
    with (tiny_run.directory / "metrics.csv").open(newline="") as file:
        steps = list(csv.DictReader(file))
    assert [(row["step"], row["phase"]) for row in steps] == [("10", "boxes and names")]


def test_the_weights_load_detect_and_say_what_they_know(tiny_run):
    model = yolo9000.load(tiny_run.weights)
    assert not model.training
    assert model.tree == build_tree(embedded.label_map())
    assert model.size == 64
    assert len(model.head.anchors) == 3
    found = yolo9000.detect(torch.zeros(3, 40, 50, dtype=torch.uint8), weights=tiny_run.directory, threshold=0.0)
    assert len(found) == 1
    assert "bird" in yolo9000.prediction.about(tiny_run.weights)
    assert "no photograph" in yolo9000.prediction.about(tiny_run.weights)


def test_the_detector_starts_from_the_classifier_in_every_anchor(tmp_path, one_thread):
    trainer = training.Trainer(config_of({**TINY, "joint": True}), tmp_path)
    torch.nn.init.normal_(trainer.classifier.classes.bias)
    trainer._start_from_classifier()
    for key, value in trainer.classifier.trunk.state_dict().items():
        assert torch.equal(trainer.model.trunk.state_dict()[key], value)
    for anchor in range(3):
        assert torch.equal(trainer.model.head.classes.weight[anchor], trainer.classifier.classes.weight[0])
        assert torch.equal(trainer.model.head.classes.bias[anchor], trainer.classifier.classes.bias[0])


@pytest.mark.parametrize("options", [{}, {"joint": True, "oracle": True}])
def test_the_runs_that_bound_the_joint_one_train_too(tmp_path, options, one_thread):
    run = yolo9000.train(out=tmp_path / "run", progress=False, **{**TINY, **options})
    assert run.weights.is_file()
    assert run.config.oracle == ("oracle" in options)
    about = yolo9000.prediction.about(run.weights)
    assert ("oracle" in about) == ("oracle" in options)
    with (run.directory / "metrics.csv").open(newline="") as file:
        (phase,) = {row["phase"] for row in csv.DictReader(file)} or {"boxes"}
    assert phase == ("boxes and names" if options else "boxes")


def test_training_learns(tmp_path, one_thread):
    """A few dozen steps on one batch's worth of pictures bring what it says of them down, boxed or not."""
    options = {**TINY, "boxed_pictures": 8, "labelled_pictures": 8, "classifier_steps": 0, "steps": 60, "batch": 8}
    run = yolo9000.train(joint=True, out=tmp_path / "run", progress=False, **{**options, "sizes": (64,), "rate": 5e-3})
    with (run.directory / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for loss in ("objectness", "tree", "image_label"):
        assert float(rows[-1][loss]) < 0.7 * float(rows[0][loss]), loss


# ---------------------------------------------------------------------- nothing lost


def assert_same_weights(one: Path, other: Path) -> None:
    tensors, header = read_tensors(one)
    others, other_header = read_tensors(other)
    assert header == other_header
    assert tensors.keys() == others.keys()
    for key, value in tensors.items():
        assert torch.equal(value, others[key]), key


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(1, id="names"),
        pytest.param(4, id="between"),
        pytest.param(7, id="boxes"),
        pytest.param(10, id="end"),
    ],
)
def test_a_run_stopped_after_any_step_ends_as_if_it_had_never_stopped(
    tiny_run, tmp_path, monkeypatch, one_thread, stop
):
    signal_before(stop, signal.SIGINT, monkeypatch)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        yolo9000.train(joint=True, out=tmp_path, progress=False, **TINY)
    assert signal.getsignal(signal.SIGINT) is handler
    _, header = read_tensors(tmp_path / "checkpoint.safetensors")
    assert header["step"] == stop  # the step was finished
    monkeypatch.undo()
    run = yolo9000.train(joint=True, out=tmp_path, progress=False, **TINY)
    assert_same_weights(run.weights, tiny_run.weights)
    ours, theirs = ({k: v for k, v in one.metrics.items() if k != "seconds"} for one in (run, tiny_run))
    assert str(ours) == str(theirs)  # as text: NaN is NaN
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in tiny_run.directory.iterdir()}


def test_a_process_stopped_by_ctrl_c_says_so_keeps_a_checkpoint_and_is_gone_on_with(tiny_run, tmp_path):
    # slowed down, so that there is a middle to be stopped in; what it computes stays the same
    slow = """
import time
from yolo9000.training import Trainer
step = Trainer._step
Trainer._step = lambda self, *given: (time.sleep(0.3 * self.checkpoint.exists()), step(self, *given))[1]
"""
    words = ["train", "--joint", "--out", tmp_path, *settings()]
    process = subprocess.Popen(
        arguments(*words, code=slow), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ALONE,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "stopped; a checkpoint is kept, and the same command goes on from it" in err
    assert "Traceback" not in out + err
    _, header = read_tensors(tmp_path / "checkpoint.safetensors")
    assert 2 <= header["step"] < 10
    assert not list(tmp_path.glob("*.part"))
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert "fine classes under a boxed group" in done.stdout
    assert_same_weights(tmp_path / "weights.safetensors", tiny_run.weights)


def test_a_stopped_run_leaves_weights_that_detect(tmp_path, monkeypatch, one_thread):
    signal_before(7, signal.SIGTERM, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        yolo9000.train(joint=True, out=tmp_path, progress=False, **TINY)
    assert len(yolo9000.detect(torch.zeros(3, 40, 50, dtype=torch.uint8), weights=tmp_path)) == 1
    with pytest.raises(WordTreeError, match=r"run's checkpoint; give the weights\.safetensors beside it"):
        yolo9000.load(tmp_path / "checkpoint.safetensors")


def test_a_finished_run_is_returned_as_it_is(tiny_run, monkeypatch):
    monkeypatch.setattr(training, "Trainer", None)  # nothing is trained
    again = yolo9000.train(joint=True, out=tiny_run.directory, progress=False, **TINY)
    assert again.weights == tiny_run.weights
    assert str(again.metrics) == str(tiny_run.metrics)
    assert again.config == tiny_run.config


def test_the_same_settings_give_the_same_weights(tiny_run, tmp_path, one_thread):
    run = yolo9000.train(joint=True, out=tmp_path, progress=False, **TINY)
    assert_same_weights(run.weights, tiny_run.weights)


def test_another_seed_gives_others(tiny_run, tmp_path, one_thread):
    run = yolo9000.train(joint=True, out=tmp_path, progress=False, **{**TINY, "seed": 1})
    ours, theirs = read_tensors(run.weights)[0], read_tensors(tiny_run.weights)[0]
    assert not torch.equal(ours["head.boxes.weight"], theirs["head.boxes.weight"])


# ---------------------------------------------------------------------- what a run refuses


def test_a_folder_with_another_run_is_refused(tiny_run, tmp_path, monkeypatch, one_thread):
    before = {file.name: file.read_bytes() for file in tiny_run.directory.iterdir()}
    with pytest.raises(WordTreeError, match=r"finished run with other settings \(batch, seed\); give another folder"):
        yolo9000.train(joint=True, out=tiny_run.directory, progress=False, **{**TINY, "seed": 5, "batch": 6})
    assert {file.name: file.read_bytes() for file in tiny_run.directory.iterdir()} == before
    step = training.Trainer._step
    monkeypatch.setattr(
        training.Trainer, "_step", lambda self, *given: (signal.raise_signal(signal.SIGINT), step(self, *given))[1]
    )
    with pytest.raises(KeyboardInterrupt):
        yolo9000.train(joint=True, out=tmp_path, progress=False, **TINY)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(WordTreeError, match=r"unfinished run with other settings \(steps\); give the same settings"):
        yolo9000.train(joint=True, out=tmp_path, progress=False, **{**TINY, "steps": 7})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_folder_that_is_a_file_or_holds_something_else_is_refused(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WordTreeError, match="file"):
        yolo9000.train(joint=True, out=tmp_path / "file", progress=False, **TINY)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(WordTreeError, match="cannot be read"):
        yolo9000.train(joint=True, out=tmp_path, progress=False, **TINY)
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"stepz": 5}, ["no training option 'stepz'", "did you mean 'steps'", "batch"]),
        ({"steps": "many"}, ["steps of 'many'", "give a int"]),
        ({"steps": True}, ["steps of True"]),
        ({"steps": 0}, ["steps of 0", "run.yaml"]),
        ({"classifier_steps": -1}, ["classifier_steps of -1", "0 or more"]),
        ({"precision": "flaot32"}, ["'flaot32'", "did you mean 'float32'"]),
        ({"size": 60}, ["60 pixels", "multiples of 16"]),
        ({"sizes": (64, 70)}, ["70 pixels", "multiples of 16"]),
        ({"oracle": True, "joint": False}, ["oracle without joint"]),
        ({"joint": True, "shares": (1.0, 2.0, 3.0)}, ["shares", "give two above 0", "(1, 4)"]),
        ({"joint": True, "shares": (0.0, 0.0)}, ["shares"]),
        ({"joint": True, "shares": (1.0, -1.0)}, ["shares"]),
        ({"widths": (8, 8)}, ["widths", "counts"]),
        ({"widths": (8, "x", 8, 8, 8)}, ["widths"]),
        ({"counts": (1, 2, 1, 1, 0)}, ["counts"]),
        ({"sizes": ()}, ["sizes"]),
        ({"classifier_sizes": ()}, ["classifier_sizes"]),
        ({"boxed_pictures": 0}, ["boxed_pictures of 0"]),
        ({"labelled_pictures": 0}, ["labelled_pictures of 0"]),
        ({"classifier_pictures": -3}, ["classifier_pictures of -3"]),
        ({"size": 2048, "sizes": (2048,)}, ["2048"]),
        ({"rate": -1.0}, ["rate of -1.0"]),
        ({"seed": -1}, ["seed of -1", "from 0"]),
        ({"seed": 2**32}, ["seed of 4294967296", "below 2^32"]),
        ({"rate": float("nan")}, ["rate of nan"]),
        ({"device": "cdua"}, ["no device 'cdua'", "cpu"]),
        ({"held_out": "notoo"}, ["'notoo'", "did you mean 'noto'"]),
        ({"data": "coco"}, ["no data set 'coco'", "embedded"]),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_written(options, parts, tmp_path):
    data = {"data": options.pop("data")} if "data" in options else {}
    with pytest.raises(WordTreeError) as caught:
        yolo9000.train(**{"joint": True, "out": tmp_path / "run", "progress": False, **TINY, **options, **data})
    for part in parts:
        assert part in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_defaults_are_a_config_lists_are_tuples_and_paths_are_text():
    assert config_of({}) == Config()
    assert config_of({"widths": [8] * 5, "rate": 1}) == Config(widths=(8,) * 5, rate=1.0)
    assert config_of({"start": Path("runs") / "low", "seed": 2**32 - 1}) == Config(start="runs/low", seed=2**32 - 1)


# ---------------------------------------------------------------------- checkpoints


def test_a_model_comes_back_as_it_was(tmp_path):
    model = small_model()
    labels = LabelMap("pets", ("dog", "cat"), ("dog", "cat"))
    path = save_model(tmp_path / "deep" / "m.safetensors", model, labels, about="what it knows")
    again, header = load_model(path)
    assert again.tree == model.tree
    assert again.tree.names == model.tree.names
    assert again.options == model.options
    assert header["about"] == "what it knows"
    assert header["labels"]["labels"] == ["dog", "cat"]
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(again.region(image).raw, model.region(image).raw, rtol=0, atol=0)
    assert load_model(path, tree=SMALL)[0].tree == SMALL
    assert os.stat(path).st_mode & 0o777 == 0o644


def test_half_a_file_holds_nearly_the_same_model(tmp_path):
    model = small_model()
    whole = save_model(tmp_path / "whole.safetensors", model)
    half = save_model(tmp_path / "half.safetensors", model, half=True)
    assert half.stat().st_size < whole.stat().st_size
    again, _ = load_model(half)
    assert all(value.dtype != torch.float16 for value in again.state_dict().values())
    torch.testing.assert_close(again.head.classes.weight, model.head.classes.weight, rtol=1e-3, atol=1e-4)


def broken_files(folder: Path) -> dict[str, Path]:
    """Files that are no whole weights of ours, by what is wrong with them."""
    whole = save_model(folder / "whole.safetensors", small_model())
    files = {
        kind: folder / f"{kind}.safetensors" for kind in ("truncated", "pickle", "other", "newer", "text", "empty")
    }
    files["truncated"].write_bytes(whole.read_bytes()[:-100])
    torch.save(small_model().state_dict(), files["pickle"])
    save_file({"weight": torch.zeros(3)}, files["other"])
    save_file({"weight": torch.zeros(3)}, files["newer"], metadata={"yolo9000": '{"format": 99}'})
    files["text"].write_text("these are no weights")
    files["empty"].write_bytes(b"")
    files["missing"] = folder / "missing.safetensors"
    files["folder"] = folder / "sub"
    files["folder"].mkdir()
    return files


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("truncated", ["cannot be read", "whole safetensors file that `yolo9000 train` wrote"]),
        ("pickle", ["cannot be read", "`yolo9000 train` wrote"]),
        ("text", ["cannot be read", "`yolo9000 train` wrote"]),
        ("empty", ["cannot be read", "`yolo9000 train` wrote"]),
        ("other", ["no yolo9000 header", "`yolo9000 train` wrote"]),
        ("newer", ["of format 99", "reads up to", "upgrade"]),
        ("missing", ["no weights", "give a weights.safetensors"]),
        ("folder", ["no weights", "give a weights.safetensors"]),
    ],
)
def test_files_that_are_no_weights_are_refused_in_three_parts(tmp_path, kind, parts):
    file = broken_files(tmp_path)[kind]
    for read in (load_model, yolo9000.load):
        with pytest.raises(WordTreeError) as caught:
            read(file)
        for part in [str(file), *parts]:
            assert part in str(caught.value)


def test_a_pickle_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"weight": Evil()}, tmp_path / "evil.safetensors", pickle_protocol=2)
    with pytest.raises(WordTreeError):
        yolo9000.load(tmp_path / "evil.safetensors")
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_tree_or_another_model_are_refused(tmp_path):
    path = save_model(tmp_path / "m.safetensors", small_model())
    other = WordTree(["animal", "plant", "dog", "fox"], [-1, -1, 0, 0])
    with pytest.raises(WordTreeError, match=r"trained on a tree of 4 nodes.*given one of 4.*leave the tree out"):
        yolo9000.load(path, tree=other)
    tensors, header = read_tensors(path)
    tensors["head.boxes.bias"] = torch.zeros(7)
    save_tensors(path, tensors, {**header, "format": 1})
    with pytest.raises(WordTreeError, match=r"holds head\.boxes\.bias \(7,\), the model takes \(5,\)"):
        yolo9000.load(path)
    del tensors["head.boxes.bias"]
    save_tensors(path, tensors, {**header, "format": 1})
    with pytest.raises(WordTreeError, match=r"holds head\.boxes\.bias None"):
        yolo9000.load(path)


@pytest.mark.parametrize("options", [{"mode": "drknet"}, {"cfg": "yolo9000.cfg"}, {"names": "9k.names"}])
def test_what_our_own_weights_do_not_take_is_refused(tmp_path, options):
    path = save_model(tmp_path / "m.safetensors", small_model())
    with pytest.raises(WordTreeError):
        yolo9000.load(path, **options)


def test_a_save_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = save_model(tmp_path / "m.safetensors", small_model(seed=0))
    before = path.read_bytes()

    def failing(tensors, name, metadata):
        Path(name).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", failing)
    with pytest.raises(CannotWrite, match=r"cannot write .*m.safetensors', .* No space left on device, .* are free"):
        save_model(path, small_model(seed=1))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]
