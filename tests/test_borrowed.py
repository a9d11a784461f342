"""A plug-in's detector in yolo9000's own commands: trained, scored, saved, loaded, and used."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import wordtree_torchvision
from conftest import TINY, command
from PIL import Image
from test_runfile import joint
from tiny_detectors import tiny
from torch import nn

import yolo9000
from wordtree import WordTree, WordTreeError, hookimpl, plugins
from wordtree.plugins import Detector
from yolo9000.borrowed import Borrowed
from yolo9000.choice import Choice
from yolo9000.cli import main
from yolo9000.config import config_of
from yolo9000.hardware import autocast_of
from yolo9000.looking import score_nodes
from yolo9000.namefigures import name_images
from yolo9000.reports import Progress
from yolo9000.training import Trainer

NAME = "torchvision/ssdlite320_mobilenet_v3_large"
TREE = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])


OPTIONS = {**TINY, "steps": 4, "test_scenes": 2}


@pytest.fixture(scope="module", autouse=True)
def _offered():
    """The plug-in, where the installed distribution is older than its entry point."""
    added = None if NAME in plugins.detectors() else plugins.register(wordtree_torchvision)
    yield
    if added:
        plugins.unregister(added)


@pytest.fixture(scope="module")
def run(_offered, tmp_path_factory):
    return yolo9000.train(joint=True, detector=NAME, out=tmp_path_factory.mktemp("run"), progress=False, **OPTIONS)


def test_a_run_of_a_plug_ins_detector_leaves_the_folder_of_any_run(run):
    made = {file.name for file in run.directory.iterdir()}
    assert {"weights.safetensors", "config.json", "metrics.csv", "evaluation.csv", "metrics.json"} <= made
    assert "unseen/fine_under_boxed/mAP50" in run.metrics
    written = run.weights.stat().st_mtime_ns
    again = yolo9000.train(joint=True, detector=NAME, out=run.directory, progress=False, **OPTIONS)
    assert again.weights.stat().st_mtime_ns == written  # it is finished
    with pytest.raises(WordTreeError, match="detector"):
        yolo9000.train(joint=True, out=run.directory, progress=False, **OPTIONS)


def test_its_weights_load_and_detect_like_our_own(run):
    model = yolo9000.load(run.weights)
    assert isinstance(model, Borrowed)
    assert model.name == NAME
    photo = torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8)
    (found,) = yolo9000.detect(photo, weights=run.weights, threshold=0.0, tree_threshold=0.0)
    assert len(found) > 0
    assert found.tree == model.tree
    assert all(found.tree.path(label) == path for label, path in zip(found.labels.tolist(), found.paths, strict=True))
    (again,) = yolo9000.detect(photo, weights=model, threshold=0.0, tree_threshold=0.0)
    assert torch.equal(found.scores, again.scores)
    with pytest.raises(WordTreeError, match="it takes a tree_threshold"):
        yolo9000.detect(photo, weights=model, level=1)


def test_the_commands_that_do_not_train_take_it_or_say_why_not(run, tmp_path, monkeypatch, capsys):
    def told(*words):
        monkeypatch.setattr(sys, "argv", ["yolo9000", *map(str, words), "--weights", str(run.directory)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    Image.new("RGB", (90, 60), "grey").save(tmp_path / "grey.png")
    code, out, _ = told("detect", tmp_path / "grey.png", "--threshold", "0", "--json")
    assert not code
    assert json.loads(out)["detections"]
    code, out, _ = told("info")
    assert not code
    assert f"input 64 x 64, {NAME}\n" in out
    for words in (("export", tmp_path / "x.onnx"), ("benchmark", "--rounds", "1")):
        code, _, fault = told(*words)
        assert code == 2
        assert re.search(
            rf"error: an? {words[0]}[ a-z]* of {NAME}, which is no detector of ours; .*the module inside", fault
        )
    assert not (tmp_path / "x.onnx").exists()


def test_the_command_takes_a_detector_by_name(tmp_path):
    done = command("train", "--detector", "torchvision/ssdlite", "--out", tmp_path / "x", "--set", "steps=1")
    assert done.returncode != 0
    assert "no detector 'torchvision/ssdlite'" in done.stderr
    assert "torchvision/ssdlite320_mobilenet_v3_large" in done.stderr


def test_a_detector_trains_at_the_sizes_that_it_was_made_for(tmp_path, monkeypatch):
    seen = []
    forward = Trainer._step

    def looking(self, module, images, targets, size):
        seen.append((images.shape[2], size))
        return forward(self, module, images, targets, size)

    monkeypatch.setattr(Trainer, "_step", looking)
    options = {"detector": NAME, "size": 75, "sizes": [50, 75], "classifier_sizes": [33], "steps": 11}
    run = yolo9000.train(data=joint(tmp_path, **options), out=tmp_path / "out", progress=False)
    assert set(seen[:2]) == {(33, 33)}  # names first
    assert {size for _, size in seen[2:]} == {50, 75}
    assert all(made == size for made, size in seen)
    assert yolo9000.load(run.weights).size == 75
    for name, size in (("fasterrcnn_resnet50_fpn", 800), ("ssd300_vgg16", 300)):
        assert config_of({"detector": f"torchvision/{name}", "size": size, "sizes": [size]}).sizes == (size,)
    with pytest.raises(WordTreeError, match="size of 0; give 1 or more"):
        config_of({"detector": NAME, "size": 0})


def test_the_embedded_set_says_what_it_is_made_at_before_anything_is_trained(tmp_path):
    with pytest.raises(WordTreeError, match="pictures of 800 pixels; the embedded set is made at 16 to 640"):
        yolo9000.train(joint=True, out=tmp_path / "out", **{**OPTIONS, "detector": NAME, "size": 800})
    assert not (tmp_path / "out").exists()


def test_boxes_are_scored_for_nodes_without_descent():
    model = Borrowed(NAME, TREE, 96).eval()
    images = torch.rand(2, 3, 96, 96)
    for boxes, objectness, probs in model.score_nodes(images, [0, 2, 3], 0.005):
        assert len(boxes) == len(objectness) == len(probs) > 0
        torch.testing.assert_close(probs[:, 1] + probs[:, 2], probs[:, 0])  # dog and cat are all animals there are
        assert (objectness > 0.005).all()
        assert (boxes >= 0).all()
        assert (boxes <= 96).all()
    scored = score_nodes(model, images, [2])
    assert all((one.nodes == 2).all() and len(one.boxes) for one in scored)


def test_the_names_of_an_image_are_those_of_its_best_boxes():
    model = Borrowed(NAME, TREE, 96).eval()
    images = [torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8) for _ in range(2)]
    log_probs, _ = name_images(model, images, [2, 3])
    scored = model.score_nodes([image.float() / 255 for image in images], [2, 3], 0.005)
    for row, (_, objectness, probs) in zip(np.exp(log_probs), scored, strict=True):
        np.testing.assert_allclose(row, (objectness[:, None] * probs).amax(0).numpy(), rtol=1e-5)


@pytest.fixture
def little():
    """RetinaNet on two convolutions, offered by name."""
    one = Detector("little", lambda tree: wordtree_torchvision.attach(tiny("retinanet", 1), tree))
    added = plugins.register(SimpleNamespace(register_detectors=hookimpl(lambda: [one])))
    yield "little"
    plugins.unregister(added)


def weights_of(trainer, bar, stopped=lambda: False):
    trainer.train(bar, stopped)
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def test_its_trunk_learns_names_before_boxes(little, tmp_path):
    config = config_of({**OPTIONS, "joint": True, "detector": little, "size": 64, "sizes": [64]})
    trainer = Trainer(config, tmp_path)
    phases, start = [], trainer._start_from_classifier
    drawn = [value.clone() for value in trainer.model.trunk.parameters()]

    def note():
        phases.append(trainer.step)
        assert all(map(torch.equal, drawn, trainer.model.trunk.parameters()))  # as it was drawn until now
        learned = [value.clone() for value in trainer.classifier.trunk.parameters()]
        start()
        assert all(map(torch.equal, learned, trainer.model.trunk.parameters()))
        assert not any(map(torch.equal, drawn, learned))

    trainer._start_from_classifier = note
    with Progress(enabled=False) as bar:
        trainer.train(bar, lambda: False)
    assert phases == [TINY["classifier_steps"]]
    assert trainer.step == TINY["classifier_steps"] + OPTIONS["steps"]


@pytest.mark.parametrize("at", [2, 6])
def test_a_run_of_it_that_was_stopped_in_either_phase_goes_on_as_if_it_never_had(at, little, tmp_path):
    config = config_of({**OPTIONS, "joint": True, "detector": little, "size": 64, "sizes": [64]})
    with Progress(enabled=False) as bar:
        whole = weights_of(Trainer(config, tmp_path / "whole"), bar)
        first = Trainer(config, tmp_path / "parts")
        with pytest.raises(KeyboardInterrupt):
            first.train(bar, lambda: first.step >= at)
        second = Trainer(config, tmp_path / "parts")
        assert second.step == at
        parts = weights_of(second, bar)
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


class Stranger(nn.Module):
    """One box for every image, a dog by .6 of an animal; the contract, and nothing else."""

    def __init__(self, tree):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.threshold = self.tree_threshold = 0.5

    def forward(self, images, targets=None):
        if self.training:
            return {"my_boxes": self.weight, "tree": 2 * self.weight, "sureness": 3 * self.weight, "more": self.weight}
        self.asked = (self.threshold, self.tree_threshold)
        one = {
            "boxes": torch.tensor([[1.0, 2, 30, 40]]),
            "labels": torch.tensor([2]),
            "scores": torch.tensor([0.5]),
            "objectness": torch.tensor([0.9]),
            "paths": [(0, 2)],
            "path_probs": torch.tensor([[0.8, 0.6]]),
        }
        return [one] * len(images)


@hookimpl
def register_detectors():
    return [Detector("stranger", Stranger)]


def test_a_detector_that_has_the_contract_alone_is_scored_by_its_paths(tmp_path):
    name = plugins.register(sys.modules[__name__])
    try:
        model = Borrowed("stranger", TREE, 96)
        trainer = Trainer(config_of({**OPTIONS, "joint": True, "detector": "stranger"}), tmp_path)
    finally:
        plugins.unregister(name)
    assert model.trunk is None
    assert trainer.classifier_steps == 0  # there is nothing that could learn names alone
    losses = model.train()(torch.rand(1, 3, 9, 9), [{}])
    assert {key: float(loss.detach()) for key, loss in losses.items()} == {
        "box": 1.0, "objectness": 4.0, "tree": 2.0, "image_label": 0.0,
    }  # fmt: skip
    ((boxes, _, probs),) = model.eval().score_nodes(torch.rand(1, 3, 64, 64), [2, 0, 1], 0.01)
    torch.testing.assert_close(probs, torch.tensor([[0.6, 0.8, 0.0]]))
    assert boxes.tolist() == [[1.0, 2.0, 30.0, 40.0]]
    assert model.inner.asked == (0.01, 0.0)
    model(torch.rand(1, 3, 64, 64), choice=Choice(0.7))
    assert model.inner.asked == (0.25, 0.7)
    assert (model.inner.threshold, model.inner.tree_threshold) == (0.5, 0.5)  # its own, as they were


def test_on_a_processor_it_is_trained_in_float32_unless_asked_otherwise():
    here = torch.device("cpu")
    with autocast_of("auto", here, own=False)():
        assert not torch.is_autocast_enabled("cpu")
    with autocast_of("bfloat16", here, own=False)():
        assert torch.is_autocast_enabled("cpu")


def test_a_detection_of_boxes_labels_and_scores_alone_is_made_whole():
    """Its score is its objectness, and stands for every step of the label's path; -1 is the root."""
    name = plugins.register(sys.modules[__name__])
    try:
        model = Borrowed("stranger", TREE, 96).eval()
    finally:
        plugins.unregister(name)
    bare = {"boxes": torch.rand(3, 4), "labels": torch.tensor([2, -1, 1]), "scores": torch.tensor([0.5, 0.4, 0.3])}
    with_objectness = {**bare, "objectness": torch.tensor([0.5, 0.8, 0.6])}
    none = {key: value[:0] for key, value in bare.items()}
    model.inner.forward = lambda images: [bare, with_objectness, none]
    images = [torch.zeros(3, 8, 8)] * 3
    one, other, empty = model(images)
    assert one["paths"] == other["paths"] == [(0, 2), (), (1,)]
    assert torch.equal(one["objectness"], bare["scores"])
    assert one["path_probs"][0].tolist() == [1.0, 1.0]
    torch.testing.assert_close(other["path_probs"][2], torch.tensor([0.5, 0.5]))
    assert (empty["paths"], empty["path_probs"].shape) == ([], (0, 0))
    scores = [objectness[:, None] * probs for _, objectness, probs in model.score_nodes(images, [0, 2, 1], 0.1)]
    for table in scores[:2]:
        torch.testing.assert_close(table, torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.3]]))


def test_the_example_of_a_trunk_of_ones_own_trains_on_boxes_and_on_names(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "examples")
    import fcos

    added = plugins.register(fcos.Plugin())
    try:
        model = Borrowed(fcos.NAME, TREE, 64)
    finally:
        plugins.unregister(added)
    images = torch.rand(2, 3, 64, 64)
    targets = [{"boxes": torch.tensor([[8.0, 8, 50, 60]]), "labels": torch.tensor([2])}, {"labels": torch.tensor([3])}]
    losses = model.train()(images, targets)
    sum(losses.values()).backward()
    assert {name for name, loss in losses.items() if loss > 0} == {"box", "objectness", "tree", "image_label"}
    assert all(one.grad is not None for one in model.parameters())
    assert model.trunk(images).shape == (2, model.trunk.channels, 4, 4)  # names are learned first
