"""Every detector of torchvision's in yolo9000's own commands: boxes and names, partial labels, the tree threshold."""

import math

import pytest
import torch
import wordtree_torchvision
import yaml
from conftest import TINY
from test_runfile import joint
from wordtree_torchvision import SUMMARIES

import yolo9000
from wordtree import plugins
from yolo9000.borrowed import Borrowed

QUICK = "ssdlite320_mobilenet_v3_large"
NAMES = [QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SUMMARIES if name != QUICK)]


@pytest.mark.parametrize("name", NAMES)
def test_train_evaluate_and_detect_run_every_builder(name, tmp_path, monkeypatch):
    added = None if f"torchvision/{name}" in plugins.detectors() else plugins.register(wordtree_torchvision)
    seen = []
    forward = Borrowed.forward

    def looking(self, images, targets=None, choice=None):
        seen.extend(targets or ())
        return forward(self, images, targets, choice)

    monkeypatch.setattr(Borrowed, "forward", looking)
    own = ("size", "sizes", "workers", "precision", "device", "batch", "checkpoint_every")
    data = joint(tmp_path, **{key: list(TINY[key]) if key == "sizes" else TINY[key] for key in own})
    content = yaml.safe_load(data.read_text())
    content["sources"][0]["knows"] = ["dog"]  # and marks cats too, when it sees fit
    data.write_text(yaml.safe_dump(content))
    try:
        run = yolo9000.train(
            data=data, out=tmp_path / "run", progress=False, detector=f"torchvision/{name}", steps=2, batch=5,
            classifier_steps=0, detector_options={"width": 16},
        )  # fmt: skip
        assert {"boxes" in target for target in seen} == {True, False}  # image labels beside boxes
        assert any("known" in target and not target["known"].all() for target in seen)  # which know a part
        assert run.metrics.keys() - {"seconds"}
        figures = yolo9000.evaluate(
            run.weights, data=data, out=tmp_path / "out", progress=False, threshold=0.0, tree_threshold=0.9
        )
        assert figures
        assert not any(math.isinf(value) for value in figures.values())
        photo = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8)
        depths = []
        for sure in (0.0, 1.0):
            (found,) = yolo9000.detect(photo, weights=run.weights, threshold=0.0, tree_threshold=sure)
            depths.append(sum(map(len, found.paths)))
        assert depths[0] > depths[1] == 0
    finally:
        if added:
            plugins.unregister(added)
