"""The readings of YOLO9000: each detects as its source does, to the lists that the original program prints."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from dense_head import DenseHead
from strategies import random_tree
from torch import Tensor, nn

from wordtree import WordTree, WordTreeError
from wordtree.nn import descend, tree_log_prob
from yolo9000 import models
from yolo9000.batchnorm import set_batchnorm
from yolo9000.boxes import cxcywh_to_xyxy
from yolo9000.choice import Choice
from yolo9000.detector import Detector
from yolo9000.images import PLACEMENTS, Placement, place
from yolo9000.modes import MODES, Mode
from yolo9000.region import decode
from yolo9000.weights import load_weights


def flat(nodes: int) -> WordTree:
    """A label set without a tree: every node is a root child and a leaf."""
    return WordTree([f"c{node}" for node in range(nodes)], [-1] * nodes)


def dense_detector(tree: WordTree, anchors: Tensor, mode: str) -> Detector:
    """A detector whose network's output is there already."""
    return Detector(nn.Identity(), nn.Identity(), DenseHead(tree, anchors), 416).set_mode(mode).eval()


# ---------------------------------------------------------------------- by name


def test_a_mode_sets_what_it_differs_in_and_each_stays_free_to_set():
    model = dense_detector(flat(3), torch.ones(1, 2), "paper")
    for name, mode in MODES.items():
        assert model.set_mode(name) is model
        assert model.mode == name
        for field in fields(Mode):
            if field.name != "name":
                assert getattr(model, field.name) == getattr(mode, field.name)
    model.threshold = 0.01
    assert model.threshold == 0.01
    assert MODES["darknet-2018"].threshold == 0.5
    model.set_mode(replace(MODES["darknet"], iou=0.6))
    assert (model.mode, model.iou, model.rule) == ("darknet", 0.6, "darknet")


def test_a_new_detector_reads_the_paper():
    assert models.yolo9000(flat(3), size=64, widths=(4, 4), counts=(1, 1)).mode == "paper"


def test_an_unknown_mode_is_refused_with_the_known_ones():
    with pytest.raises(WordTreeError, match=r"'darkent'.*did you mean 'darknet'"):
        dense_detector(flat(3), torch.ones(1, 2), "darkent")


@pytest.mark.parametrize(
    ("attribute", "given", "meant"),
    [
        ("score", "produkt", "product"),
        ("suppression", "realtives", "relatives"),
        ("rule", "pth", "path"),
        ("placement", "stretched", "stretch"),
    ],
)
def test_an_attribute_set_to_what_is_not_known_is_refused_with_what_is(attribute, given, meant):
    model = models.yolo9000(random_tree(9), size=64, widths=(4, 4), counts=(1, 1)).eval()
    setattr(model, attribute, given)
    with pytest.raises(WordTreeError, match=f"'{given}'.*did you mean '{meant}'"):
        model([torch.rand(3, 30, 50)])


def test_the_modes_place_an_image_as_they_say():
    model = models.yolo9000(flat(3), size=64, widths=(4, 4), counts=(1, 1))
    image = torch.rand(3, 30, 50)
    for name, mode in MODES.items():
        batch, (placement,) = model.set_mode(name).place([image])
        laid, wanted = place(image, 64, mode.placement)
        assert torch.equal(batch[0], laid)
        assert placement == wanted


# ---------------------------------------------------------------------- Darknet's lists

ANCHORS = {
    "yolov2-tiny-voc": "1.08,1.19, 3.42,4.41, 6.63,11.38, 9.42,5.11, 16.62,10.52",
    "yolov2-voc": "1.3221,1.73145, 3.19275,4.00944, 5.05587,8.09892, 9.47112,4.84053, 11.2364,10.0071",
    "yolo_2016": "0.738768,0.874946, 2.42204,2.65704, 4.30971,7.04493, 10.246,4.59428, 12.6868,11.8741",
    "yolo9000": "0.77871,1.14074, 3.00525,4.31277, 9.22725,9.61974",
}


def anchors_of(model: str) -> Tensor:
    name = "yolo9000" if model.startswith("yolo9000") else model
    return torch.tensor([float(side) for side in ANCHORS[name].split(",")]).view(-1, 2)


def cases(prefix: str) -> list[str]:
    """What stands beside the project of the cases that the README of the reference values names."""
    if not (oracle.FOLDER / "out").is_dir():
        return []
    names = sorted(file.stem for file in (oracle.FOLDER / "out").glob(f"{prefix}*.npz"))
    return [name for name in names if name.removeprefix(prefix) in ANCHORS or "yolo9000_" in name]


OLD = [name for name in cases("infer_") if "master" not in name and "alexeyab" not in name]
NEW = cases("infer_master_letterbox_")
has = {"OLD": OLD, "NEW": NEW, "ALL": OLD + NEW}


def any_case(version: str) -> pytest.MarkDecorator:
    names = has[version] or [pytest.param("none", marks=oracle.needs_oracle)]
    return pytest.mark.parametrize("name", names)


def raw_of(name: str, case: dict[str, Any]) -> tuple[Tensor, WordTree, Tensor]:
    """The network's output [1, anchors * (5 + nodes), h, w], the tree, the anchors of a case.

    Where a file holds no class logits but a few rows', the others are made to descend to the node that Darknet listed.
    """
    model = name.removeprefix("infer_").removeprefix("master_letterbox_")
    anchors = anchors_of(model)
    tree = oracle.tree_9418() if "yolo9000" in model else None
    raw = case.get("rin", case.get("rin_fp32"))
    if raw is not None:
        tree = tree or flat(raw.shape[0] // len(anchors) - 5)
        return torch.from_numpy(raw)[None], tree, anchors
    assert tree is not None
    boxes = case["rin_xywho"]  # [anchors, 5, h, w]
    a, _, h, w = boxes.shape
    logits = np.zeros((a, len(tree), h, w), dtype=np.float32)
    column = case["tree_thresholds"].tolist().index(float(case["hier_thresh"]))
    for row, col, anchor in np.ndindex(h, w, a):
        sure = tree.path(int(case["tree_top"][row, col, anchor, column]))
        logits[anchor, sure, row, col] = 30.0
    for (anchor, row, col), given in zip(case["sel_anchor_row_col"], case["sel_logits"], strict=True):
        logits[anchor, :, row, col] = given
    raw = np.concatenate((boxes, logits), axis=1).reshape(1, -1, h, w)
    return torch.from_numpy(raw), tree, anchors


def rows_of(found: dict[str, Any]) -> Iterator[tuple[int, float, list[float]]]:
    yield from zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)


def assert_same_lists(found: dict[str, Any], wanted: list[tuple[int, float, list[float]]], size: float) -> None:
    """None missing and none extra: the rows pair off by label, box (1e-4 of the image) and score (2e-3)."""
    left = list(wanted)
    for label, score, box in rows_of(found):
        near = [
            at
            for at, (one, value, place) in enumerate(left)
            if one == label and abs(value - score) < 2e-3 and np.abs(np.subtract(place, box)).max() < 1e-4 * size
        ]
        assert near, f"extra: {label} {score:.4f} {box}"
        left.pop(near[0])
    assert not left, f"missing: {left}"


def detector_of(name: str, case: dict[str, Any], mode: str) -> tuple[Detector, Tensor]:
    raw, tree, anchors = raw_of(name, case)
    model = dense_detector(tree, anchors, mode)
    model.threshold, model.tree_threshold = float(case["thresh"]), float(case["hier_thresh"])
    return model, raw


def listed(case: dict[str, Any], key: str) -> list[tuple[int, float, list[float]]]:
    """The rows of a list of Darknet's: label, score, box in pixels, cut to the image."""
    width, height = case["image_wh"].tolist()
    rows = case[key]
    boxes = rows[:, 4:] if rows.shape[1] == 8 else case["boxes"].reshape(-1, 4)[rows[:, 0].astype(int)]
    boxes = cxcywh_to_xyxy(torch.from_numpy(boxes)).clamp(0, 1) * torch.tensor([width, height] * 2)
    return [(int(row[1]), float(row[2]), box) for row, box in zip(rows, boxes.tolist(), strict=True)]


def assert_darknets(found: dict[str, Any], case: dict[str, Any], key: str) -> None:
    """The list of one image is Darknet's, index -1 of the release of 2017 apart."""
    wanted = listed(case, key)
    if key == "det_post_nms":  # it writes what is on no root child to index -1, where its suppression does not reach
        roots = [score for label, score, _ in wanted if label == -1]
        assert all(any(abs(score - one) < 2e-3 for one in roots) for label, score, _ in rows_of(found) if label == -1)
        wanted = [row for row in wanted if row[0] != -1]
        found = {name: found[name][found["labels"] != -1] for name in ("labels", "scores", "boxes")}
    assert len(wanted) > 5
    assert_same_lists(found, wanted, max(case["image_wh"].tolist()))


@any_case("OLD")
@pytest.mark.parametrize("key", ["det_pre_nms", "det_post_nms"])
def test_the_lists_of_the_release_of_2017(name, key):
    case = oracle.values(name)
    model, raw = detector_of(name, case, "darknet")
    assert model.iou == pytest.approx(float(case["nms_iou"]))
    model.iou = 1.0 if key == "det_pre_nms" else model.iou
    (found,) = model.detect(model.head(raw), [Placement(0.0, 0.0, 1.0, 1.0, *case["image_wh"].tolist())])
    assert_darknets(found, case, key)


@any_case("OLD")
def test_boxes_of_the_release_of_2017(name):
    case = oracle.values(name)
    model, raw = detector_of(name, case, "darknet")
    boxes = decode(model.head(raw).raw, model.head.anchors)[0]
    torch.testing.assert_close(boxes, torch.from_numpy(case["boxes"]), rtol=1e-4, atol=1e-5)


@any_case("OLD")
def test_descent_and_probabilities_of_the_release_of_2017(name):
    case = oracle.values(name)
    if "tree_top" not in case:
        pytest.skip(f"{name} has no tree")
    raw, tree, anchors = raw_of(name, case)
    h, w = raw.shape[2:]
    x = raw.view(len(anchors), -1, h, w)[:, 5:].permute(2, 3, 0, 1).double()  # [h, w, anchors, nodes]
    top = torch.from_numpy(case["tree_top"]).long()
    if "abs_prob" in case:
        torch.testing.assert_close(
            tree_log_prob(x, tree).exp().float(), torch.from_numpy(case["abs_prob"]), rtol=1e-3, atol=1e-6
        )
    else:  # a few rows' logits
        anchor, row, col = torch.from_numpy(case["sel_anchor_row_col"]).unbind(1)
        x, top = x[row, col, anchor], top[row, col, anchor]
        torch.testing.assert_close(
            tree_log_prob(x, tree).exp().float(), torch.from_numpy(case["sel_abs"]), rtol=1e-3, atol=1e-6
        )
    for column, threshold in enumerate(case["tree_thresholds"].tolist()):
        nodes, _ = descend(x, tree, threshold, rule="darknet")
        assert torch.equal(nodes, top[..., column]), threshold


@any_case("NEW")
@pytest.mark.parametrize("key", ["det_pre_nms", "det_post_nms"])
def test_the_lists_of_the_release_of_2018(name, key):
    case = oracle.values(name)
    model, raw = detector_of(name, case, "darknet-2018")
    assert model.iou == pytest.approx(float(case["nms_iou"]))
    model.iou = 1.0 if key == "det_pre_nms" else model.iou
    width, height = case["image_wh"].tolist()
    _, placement = place(torch.zeros(3, height, width), int(case["net_wh"][0]), "darknet-letterbox")
    (found,) = model.detect(model.head(raw), [placement])
    assert_darknets(found, case, key)


@any_case("ALL")
def test_from_the_picture_to_the_list(name, darknet_weights):
    case = oracle.values(name)
    version = "darknet-2018" if name in NEW else "darknet"
    model_name = name.removeprefix("infer_").removeprefix("master_letterbox_")
    weights = "yolo9000" if "yolo9000" in model_name else model_name
    cfg = oracle.FOLDER / "cfg" / f"{model_name}.cfg"
    model = models.from_cfg(cfg if cfg.is_file() else cfg.with_name(f"{weights}.cfg")).set_mode(version).eval()
    load_weights(model, darknet_weights(weights))
    set_batchnorm(model, "darknet")
    model.threshold, model.tree_threshold = float(case["thresh"]), float(case["hier_thresh"])
    picture = torch.from_numpy(oracle.values("dog_stb_rgb")["rgb"]).permute(2, 0, 1).float() / 255
    (found,) = model([picture])
    assert_darknets(found, case, "det_post_nms")


@any_case("OLD")
def test_the_picture_on_the_input_of_the_release_of_2017(name):
    case = oracle.values(name)
    if "input" not in case:
        pytest.skip(f"{name} holds no input")
    picture = torch.from_numpy(oracle.values("dog_stb_rgb")["rgb"]).permute(2, 0, 1).float() / 255
    laid, _ = place(picture, case["input"].shape[1], "darknet-stretch")
    torch.testing.assert_close(laid, torch.from_numpy(case["input"]), rtol=0, atol=2e-5)


@any_case("NEW")
def test_the_picture_on_the_input_of_the_release_of_2018(name):
    case = oracle.values(name)
    picture = torch.from_numpy(oracle.values("dog_stb_rgb")["rgb"]).permute(2, 0, 1).float() / 255
    laid, _ = place(picture, case["input"].shape[1], "darknet-letterbox")
    torch.testing.assert_close(laid, torch.from_numpy(case["input"]), rtol=0, atol=2e-5)


# ---------------------------------------------------------------------- GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="waits for a CUDA device")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("nodes", [random_tree(40, seed=3), flat(7)], ids=["tree", "flat"])
def test_a_gpu_detects_what_the_processor_does(mode, nodes):
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(3, 2 * (5 + len(nodes)), 6, 6, generator=generator, dtype=torch.float64) * 2
    model = dense_detector(nodes, torch.tensor([[1.0, 1.5], [3.0, 2.0]]), mode)
    placed = [place(torch.zeros(3, height, 50), 64, model.placement)[1] for height in (20, 50, 90)]
    model.threshold = 0.2
    on_cpu = model.detect(model.head(dense), placed, Choice(node_probs=True))
    model = model.cuda()
    on_gpu = model.detect(model.head(dense.cuda()), placed, Choice(node_probs=True))
    for one, other in zip(on_gpu, on_cpu, strict=True):
        assert len(other["labels"]) > 3
        assert one.pop("paths") == other.pop("paths")
        for key, value in one.items():
            assert value.is_cuda
            torch.testing.assert_close(value.cpu(), other[key], rtol=1e-5, atol=1e-5, equal_nan=True)
    for placement in PLACEMENTS:
        image = torch.rand(3, 45, 70, generator=generator)
        torch.testing.assert_close(place(image.cuda(), 64, placement)[0].cpu(), place(image, 64, placement)[0])
