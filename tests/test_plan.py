"""A plan before a run: counted, not guessed; and its cost on several GPUs on paper."""

import math
import sys

import pytest
import torch
from test_recipes import SHRUNK, boxes, names, written

from wordtree import WordTreeError
from yolo9000 import cli, models
from yolo9000.checkpoints import read_tensors
from yolo9000.config import Config
from yolo9000.cost import ASSUMED, cost
from yolo9000.feeds import RecordsFeed
from yolo9000.plan import activations, plan, plan_of
from yolo9000.recipes import recipe, recipes
from yolo9000.reports import Progress
from yolo9000.runfile import read_run
from yolo9000.training import Trainer


def of(name: str, rate: float | None = 10.0, **options):
    return plan_of(None, name, options, rate)


@pytest.fixture
def told(capsys, monkeypatch):
    """`yolo9000 train --dry-run ...` in this process, its words with single spaces."""

    def run(*words: str) -> str:
        monkeypatch.setenv("COLUMNS", "160")
        monkeypatch.setattr("sys.argv", ["yolo9000", "train", "--dry-run", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert not ended.value.code, err
        return " ".join(out.replace("│", " ").split())

    return run


def test_a_plan_of_the_released_yolo9000_has_its_numbers():
    one = of("yolo9000-2017-01")
    (stage,) = one.stages
    assert (stage.steps, stage.batch, stage.parameters) == (242200, 64, 48_793_101)
    assert stage.shares == (("boxes", 12.8), ("names", 51.2))
    assert dict(stage.rates)[500] == pytest.approx(1e-4)
    assert [rate for _, rate in stage.rates] == pytest.approx([1e-5, 1e-4, 1e-5, 1e-6, 1e-6])
    memory = one.memory(stage)
    assert memory["weights"] == memory["gradient"] == memory["sgd's state"] == 4 * 48_793_101
    assert memory["running average"] == 0
    assert one.weights == pytest.approx(4 * 48_807_501, rel=1e-5)
    area = sum(size**2 for size in range(320, 609, 32)) / 10
    assert one.hours() == pytest.approx(242200 * 64 / 10 / 3600 * area / 416**2)
    assert one.hours(8) == pytest.approx(one.hours() / 8)


def test_epochs_are_those_of_the_paper():
    (stage,) = of("yolov2-voc").stages
    assert dict(stage.epochs)["boxes"] == pytest.approx(160, abs=0.01)
    (stage,) = of("darknet19-imagenet-224").stages
    assert dict(stage.epochs)["names"] == pytest.approx(160, abs=0.01)
    (stage,) = of("darknet19-imagenet-448").stages
    assert dict(stage.epochs)["names"] == pytest.approx(10, abs=0.01)


def test_activations_on_no_device_are_those_that_a_real_pass_keeps():
    def build():
        return models.darknet19(7, 64, widths=(8, 16), counts=(1, 3))

    with torch.device("meta"):
        counted = activations(build(), 3, 64)
    model, kept = build().train(), {}
    own = {value.data_ptr() for value in (*model.parameters(), *model.buffers())}

    def pack(value):
        kept[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        model.raw(torch.rand(3, 3, 64, 64))
    assert counted == sum(one.untyped_storage().nbytes() for at, one in kept.items() if at not in own)


def test_activations_grow_with_images_and_area():
    with torch.device("meta"):
        model = models.yolov2(20, widths=(4, 4, 4, 4, 4, 8), counts=(1,) * 6)
    few, many, large = (activations(model, *given) for given in ((1, 64), (4, 64), (1, 128)))
    assert many / few == pytest.approx(4, rel=0.05)
    assert large / few == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_has_a_plan(name):
    one = of(name)
    assert one.hours() > 0
    assert len(one.stages) == 1
    assert one.stages[0].activations > 2**20
    assert one.changed == ()


def test_a_plan_is_measured_here_where_no_rate_is_given():
    one = of("yolov2-voc-2017", None, **{**SHRUNK, "size": 64, "sizes": [64]})
    assert one.rate is not None
    assert one.rate.source.startswith("measured on this machine")
    assert 0 < one.hours() < math.inf


def test_the_command_prints_the_plan_and_trains_nothing(told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = told("--recipe", "yolov2-voc", "--rate", "100", "--gpus", "1,8,64")
    for words in (
        "paper sections 2 and 3", "VOC 2007 test mAP 78.6 % at 544", "41,378", "64 in 8 parts of 8", "boxes 160.0",
        "15,517: 0.0001", "23,275: 1e-05", "67,137,565", "100 images a second at 544, as given", "weights of "
        "darknet19-imagenet-448 (--start)", "320, 352, 384", "GPU hours", "what limits", "assumed: 110 kB a JPEG",
    ):  # fmt: skip
        assert words in out
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_an_ablation_changed(told):
    out = told(
        "--recipe", "yolov2-voc", "--without", "passthrough", "--without", "multi-scale", "--rate", "1",
        "--without", "high-resolution-classifier", "--set", "rate=0.002",
    )  # fmt: skip
    assert "without passthrough, multi-scale, high-resolution-classifier" in out
    assert "changed: passthrough True -> False" in out
    assert "changed: sizes 320, 352, 384, 416, 448, 480, 512, 544, 576, 608 -> 544" in out
    assert "changed: rate 0.001 -> 0.002" in out
    assert "weights of darknet19-imagenet-224 (--start)" in out


def test_a_plan_with_data_counts_it(told, tmp_path):
    shrunk = {**SHRUNK, "steps": 6, "batch": 5, "accumulate": 1}
    run = written(tmp_path, [boxes(tmp_path), names(tmp_path)], recipe="yolo9000", **shrunk)
    out = told("--data", str(run), "--rate", "5")
    assert "coco 1, folder 4" in out
    assert "coco 2.0" in out  # 6 updates of one image, of three
    assert "recipe yolo9000" in out
    assert "changed: steps 242200 -> 6" in out
    with pytest.raises(WordTreeError, match="a rate of 0"):
        plan_of(str(run), "", {}, 0)


def test_the_demo_has_a_plan_too(told):
    out = told("--joint", "--rate", "50")
    assert "names" in out
    assert "adamw" in out
    assert "80: 0.003" not in out
    assert "121: 0.003" in out  # the peak of the first phase


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_checkpoint_is_as_large_as_the_plan_says(tmp_path, one_thread, optimizer):
    run = read_run(written(tmp_path, [boxes(tmp_path)], recipe="yolov2-voc-2017", **SHRUNK, optimizer=optimizer))
    config = run.config(size=64, sizes=[64], batch=2, accumulate=1)
    feed = RecordsFeed(run, tmp_path / "run", config)
    trainer = Trainer(config, tmp_path / "run", feed)
    with pytest.raises(KeyboardInterrupt), Progress(enabled=False) as bar:
        trainer.train(bar, lambda: True)
    one = plan(config, feed.tree, rate=1.0)
    tensors, _ = read_tensors(trainer.checkpoint)
    numbers = sum(value.numel() for value in tensors.values() if value.dim())  # without counters
    assert 4 * numbers == one.checkpoint


def test_a_trunk_by_name_has_a_plan_too():
    trunk = "torchvision/mobilenet_v3_small"
    one = plan_of(None, "", {"trunk": trunk, "size": 64, "sizes": [64], "classifier_steps": 0}, 5.0)
    (stage,) = one.stages
    assert stage.flops > 1e6
    assert stage.activations > 1e5


def test_a_plug_ins_network_is_not_ours_to_count():
    with pytest.raises(WordTreeError, match="a plan of 'torchvision/x', a plug-in's"):
        plan(Config(detector="torchvision/x"), recipe("yolov2-voc").built_tree())


def test_on_paper_more_gpus_take_less_time_and_more_of_everything_else():
    one = of("yolo9000", 100.0)
    single, eight, many = (cost(one, gpus) for gpus in (1, 8, 64))
    assert single.hours > eight.hours > many.hours
    assert single.hours == pytest.approx(one.hours())
    assert eight.hours > single.hours / 8
    assert single.share == single.exchanged == 0
    assert eight.read == pytest.approx(eight.images * ASSUMED.image)
    assert many.each == 1
    assert "too few" in many.limit
    assert many.memory < single.memory
    assert cost(one, 128).limit == "the batch: 64 images for 128 GPUs"


def test_an_assumed_rate_is_said_to_be_one(told):
    words = ("--recipe", "yolo9000-2017-01", "--gpus", "8", *(x for key, value in {
        "widths": [4, 4, 4, 4, 4, 8], "counts": [1] * 6, "size": 64, "sizes": [64], "device": "cpu",
    }.items() for x in ("--set", f"{key}={value}".replace("=cpu", '="cpu"'))))  # fmt: skip
    out = told(*words)
    assert "ASSUMED: 100e12 operations a second of one GPU, no GPU was measured" in out
    assert "measured on this machine" in out
    assert sys.argv[1] == "train"
