"""Images and targets as every detector takes them: our own, torchvision's and transformers' alike."""

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import tiny_detectors
import torch
from wordtree_torchvision import attach

from wordtree import WordTree, WordTreeError
from wordtree.nn.contract import checked_target
from yolo9000 import models

TREE = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
DOG = 2
BOXES = torch.tensor([[4.0, 4.0, 30.0, 30.0]])
IMAGE = torch.rand(3, 64, 64)
NAMES = ["yolo9000", *tiny_detectors.KINDS, "detr"]
GARDEN = Path(__file__).parents[1] / "examples" / "garden" / "wordtree_garden" / "detector.py"
spec = spec_from_file_location("garden_detector", GARDEN)
garden = module_from_spec(spec)
spec.loader.exec_module(garden)


def detector(name):
    torch.manual_seed(0)
    if name == "garden":
        return garden.Tiny(TREE).train()
    if name == "yolo9000":
        return models.yolo9000(TREE, size=64, widths=(8, 16, 32), counts=(1, 1, 3)).train()
    if name == "detr":
        if not (find_spec("transformers") and find_spec("scipy")):
            pytest.skip("transformers is not installed")
        import tiny_queries

        return tiny_queries.tiny("detr", TREE).train()
    return attach(tiny_detectors.tiny(name, 1), TREE).train()


def losses(name, targets):
    model = detector(name)
    torch.manual_seed(1)
    return torch.stack(list(model([IMAGE] * len(targets), targets).values()))


@pytest.mark.parametrize("name", [*NAMES, "garden"])
def test_labels_may_be_of_any_whole_type_and_of_none_where_there_are_none(name):
    plain = [
        {"boxes": BOXES, "labels": torch.tensor([DOG])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
        {"labels": torch.tensor([DOG])},
    ]
    expected = losses(name, plain)
    assert expected.isfinite().all()
    for kind in (torch.int32, torch.uint8):
        odd = [{**target, "labels": target["labels"].to(kind)} for target in plain]
        odd[1]["labels"] = torch.tensor([])  # as it comes out of an empty list: of floats
        assert torch.equal(losses(name, odd), expected)


@pytest.mark.parametrize("name", [*NAMES, "garden"])
@pytest.mark.parametrize(
    ("target", "told"),
    [
        ({"labels": torch.tensor([2.0])}, r"target 0 has labels of shape \(1,\), float32; give int64"),
        ({"boxes": BOXES, "labels": torch.tensor([2.0])}, r"labels of shape \(1,\), float32; give int64"),
        ({"boxes": BOXES, "labels": torch.tensor([True])}, r"labels of shape \(1,\), bool; give int64"),
        ({"boxes": BOXES, "labels": torch.tensor([[DOG]])}, r"labels of shape \(1, 1\), int64; give int64 \[n\]"),
        ({"boxes": BOXES, "labels": torch.tensor(DOG)}, r"labels of shape \(\), int64; give int64 \[n\]"),
        ({"labels": torch.tensor([DOG]), "known": torch.ones(4)}, r"known of shape \(4,\), float32; give bool \[4\]"),
        ({"labels": torch.tensor([DOG]), "known": torch.tensor([1, 0, 1, 0])}, r"\(4,\), int64; give bool \[4\]"),
        ({"labels": torch.tensor([DOG]), "known": torch.ones(3).bool()}, r"known of shape \(3,\), bool; give bool"),
    ],
)
def test_targets_of_another_type_are_named(name, target, told):
    with pytest.raises(WordTreeError, match=told):
        detector(name)([IMAGE], [target])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_are_named(name, channels):
    model = detector(name).eval()
    for images in ([torch.rand(channels, 64, 64)], torch.rand(1, channels, 64, 64)):
        with pytest.raises(
            WordTreeError, match=rf"an image of shape \({channels}, 64, 64\), float32; give float \[3, h"
        ):
            model(images)


def test_a_detector_of_four_channels_takes_images_of_four():
    model = tiny_detectors.tiny("retinanet", 1)
    model.backbone.low = torch.nn.Conv2d(4, 32, 8, stride=8)
    model.transform.image_mean, model.transform.image_std = [0.5] * 4, [0.25] * 4
    ours = attach(model, TREE).eval()
    assert len(ours([torch.rand(4, 64, 64)])) == 1
    with pytest.raises(WordTreeError, match=r"give float \[4, h, w\]"):
        ours([IMAGE])


def test_a_target_keeps_what_else_it_has_and_is_not_changed():
    given = {"labels": torch.tensor([DOG], dtype=torch.int32), "image_id": torch.tensor(7)}
    ready = checked_target(given, 0, TREE)
    assert ready["image_id"] is given["image_id"]
    assert given["labels"].dtype == torch.int32


def test_a_scalar_is_an_image_label():
    assert torch.equal(checked_target({"labels": torch.tensor(DOG)}, 0, TREE)["labels"], torch.tensor(DOG))
