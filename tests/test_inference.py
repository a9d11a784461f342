"""A fused detector detects what it detected before, in whatever arithmetic its batch-norm was, and cannot train."""

import copy

import pytest
import torch
from strategies import random_tree
from torch import nn

import yolo9000
from wordtree import WordTreeError
from wordtree.nn import TreeLinear
from yolo9000.batchnorm import BatchNorm
from yolo9000.detector import Detector
from yolo9000.forms import DenseForm, GatedForm
from yolo9000.inference import FusedConv, Graphed, folded, fuse

TREE = random_tree(60)


def lively_model(size: int = 64, **options) -> Detector:
    """Statistics, gains and logits that differ from channel to channel and from cell to cell."""
    torch.manual_seed(0)
    numbers = {"widths": (8, 16, 32), "counts": (1, 3, 3), **options}
    model = yolo9000.models.yolo9000(TREE, [[1.0, 1.5], [3.0, 2.0]], size, **numbers)
    lively_norms(model)
    model.eval()
    head = model.head
    nn.init.normal_(head.boxes.weight)
    nn.init.normal_(head.classes.weight)
    with torch.no_grad():
        features = model.region(images(2, size)).features
        mean = features.flatten(0, 2).mean(0)
        head.boxes.bias -= head.boxes.weight.flatten(1) @ mean  # so that cells differ
        head.classes.bias -= head.classes.weight @ mean
        for layer, values in ((head.boxes, model.region(images(2, size)).raw), (head.classes, head.classes(features))):
            layer.weight *= 2.5 / values.std()
            layer.bias *= 2.5 / values.std()
    model.tree_threshold = 0.2
    return model


def lively_norms(module: nn.Module) -> None:
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_var, 1e-4, 0.5)  # some so small that epsilon counts
        nn.init.normal_(norm.running_mean, std=0.3)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)


def images(batch: int = 2, size: int = 64) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted.double()).abs().max() / wanted.double().abs().max())


@pytest.mark.parametrize("neck", [(), (24, 16)])
def test_a_fused_network_gives_the_same_within_a_ten_thousandth(neck):
    model = lively_model(neck=neck)
    fused = fuse(copy.deepcopy(model))
    assert not any(isinstance(m, nn.BatchNorm2d | nn.LeakyReLU) for m in fused.modules())
    with torch.no_grad():
        one, other = model.region(images()), fused.region(images())
    assert relative(other.raw, one.raw) < 1e-4
    assert relative(other.features, one.features) < 1e-4
    assert one.raw.std() > 0.5


def test_a_fused_detector_finds_the_same():
    model = lively_model()
    fused = fuse(copy.deepcopy(model))
    for one, other in zip(model(images()), fused(images()), strict=True):
        assert len(one["labels"]) > 3
        assert torch.equal(one["labels"], other["labels"])
        torch.testing.assert_close(other["boxes"], one["boxes"], rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(other["scores"], one["scores"], rtol=1e-4, atol=1e-5)


def test_a_passthrough_is_fused_too():
    torch.manual_seed(0)
    from yolo9000.darknet19 import Darknet19, Passthrough
    from yolo9000.head import RegionHead

    trunk = Darknet19((8, 16, 32), (1, 1, 1))
    neck = Passthrough(trunk.passthrough_channels, trunk.channels, 8, 16)
    model = Detector(trunk, neck, RegionHead(16, TREE, torch.tensor([[1.0, 1.5]])), 64)
    lively_norms(model)
    model.eval()
    fused = fuse(copy.deepcopy(model))
    with torch.no_grad():
        assert relative(fused.region(images()).features, model.region(images()).features) < 1e-4


@pytest.mark.parametrize("arithmetic", ["torch", "darknet"])
def test_folding_follows_the_arithmetic_of_the_batch_norm(arithmetic):
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), BatchNorm(6).eval()
    lively_norms(norm)
    nn.init.uniform_(norm.running_var, 1e-7, 1e-4)  # where the two differ
    norm.arithmetic = arithmetic
    x = torch.randn(2, 4, 9, 11)
    wanted = nn.functional.leaky_relu(norm(convolution(x)), 0.1)
    fused = FusedConv(convolution, norm, 0.1).eval()
    with torch.no_grad():
        assert relative(fused(x), wanted) < 1e-4
        other = copy.deepcopy(norm)
        other.arithmetic = "torch" if arithmetic == "darknet" else "darknet"
        assert relative(FusedConv(convolution, other, 0.1).eval()(x), wanted) > 1e-2


def test_a_network_of_a_cfg_is_fused_with_its_own_activations(tmp_path):
    text = """[net]
width=64
height=64
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=8
size=1
stride=1
pad=1
activation=relu
[convolutional]
filters=8
size=3
stride=1
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
filters=50
size=1
stride=1
pad=1
activation=linear
[region]
anchors=1,1,2,2
classes=20
num=2
coords=4
softmax=1
"""
    (tmp_path / "some.cfg").write_text(text)
    torch.manual_seed(0)
    model = yolo9000.models.from_cfg(tmp_path / "some.cfg")
    assert isinstance(model, Detector)
    lively_norms(model)
    fused = fuse(copy.deepcopy(model.eval()))
    assert [m.slope for m in fused.trunk.modules() if isinstance(m, FusedConv)] == [0.1, 0.0, 0.1]
    with torch.no_grad():
        assert relative(fused.features(images()), model.features(images())) < 1e-4


def test_a_bias_of_the_convolution_goes_through_the_batch_norm():
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5).eval()
    lively_norms(norm)
    x = torch.randn(1, 3, 4, 4)
    weight, bias = folded(convolution, norm)
    with torch.no_grad():
        assert relative(nn.functional.conv2d(x, weight, bias), norm(convolution(x))) < 1e-4


def test_one_fused_convolution_takes_maps_of_any_size_and_its_copy_packs_its_own():
    torch.manual_seed(0)
    convolution = nn.Conv2d(8, 16, 3, padding=1)
    fused = FusedConv(convolution, slope=0.1).eval()
    with torch.no_grad():
        for shape in ((1, 8, 16, 16), (3, 8, 5, 7), (1, 8, 1, 1)):
            x = torch.randn(shape)
            torch.testing.assert_close(fused(x), nn.functional.leaky_relu(convolution(x), 0.1), rtol=1e-4, atol=1e-5)
        other = copy.deepcopy(fused)
        other.weight.zero_()  # what was packed of the first is not the copy's
        assert relative(other(x), nn.functional.leaky_relu(other.bias, 0.1)[None, :, None, None]) < 1e-6
        packed = fused._packed
        assert fused.to("cpu")._packed is packed
        torch.testing.assert_close(
            fused.double()(x.double()).float(), nn.functional.leaky_relu(convolution(x), 0.1), rtol=1e-4, atol=1e-5
        )


def test_with_gradients_asked_of_its_input_it_gives_them():
    fused = FusedConv(nn.Conv2d(3, 4, 3), slope=0.1).eval()
    x = torch.randn(1, 3, 6, 6, requires_grad=True)
    fused(x).sum().backward()
    assert x.grad.any()


def test_bfloat16_finds_about_the_same_and_says_boxes_in_float32():
    model = lively_model()
    fused = fuse(copy.deepcopy(model), precision="bfloat16")
    with torch.no_grad():
        one, other = model.region(images()), fused.region(images())
    assert other.raw.dtype == torch.float32
    assert 1e-4 < relative(other.raw, one.raw) < 0.1
    assert len(fused(images())) == 2
    with torch.no_grad():
        assert relative(DenseForm(fused)(images()).log_probs, DenseForm(model)(images()).log_probs) < 0.1
        asked, whole = (GatedForm(fused, 20, reads)(images()) for reads in ("asked", "whole"))
    assert torch.equal(asked.labels, whole.labels)


def test_a_head_gives_the_same_whichever_way_it_finds_the_rows_that_are_asked_of_it(monkeypatch):
    torch.manual_seed(0)
    head = TreeLinear(8, TREE, copies=2)
    x, copy, targets = torch.randn(30, 8), torch.randint(2, (30,)), torch.randint(len(TREE), (30,))
    given = []
    for few in (0, 10**9):  # always sorted, always marked
        monkeypatch.setattr("wordtree.nn.linear.FEW", few)
        head.zero_grad()
        head.loss(x, targets, copy).backward()
        given.append((*head.walk(x, 0.1, copy=copy), head.weight.grad))
    for one, other in zip(*given, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7, equal_nan=True)


def test_captured_work_is_the_work_itself_where_there_is_no_gpu():
    form = GatedForm(fuse(lively_model()), 20, "whole")
    captured = Graphed(form, images())
    with torch.no_grad():
        for one, other in zip(captured(images()), form(images()), strict=True):
            assert torch.equal(one, other)
            assert not one.requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="waits for a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_captured_detection_gives_the_same_on_a_gpu_for_each_new_batch(precision):
    form = GatedForm(fuse(lively_model().cuda(), precision), 20, "whole")
    captured = Graphed(form, images().cuda())
    for batch in (images().cuda(), 1 - images().cuda()):
        with torch.no_grad():
            for one, other in zip(captured(batch), form(batch), strict=True):
                torch.testing.assert_close(one, other)


def test_a_compiled_detector_finds_the_same():
    model = lively_model()
    fused = fuse(copy.deepcopy(model), compile="aot_eager")
    for one, other in zip(model(images()), fused(images()), strict=True):
        assert torch.equal(one["labels"], other["labels"])


def test_a_fused_detector_refuses_to_train_and_a_precision_unknown_is_named():
    fused = fuse(lively_model())
    with pytest.raises(WordTreeError, match="fused detector asked to train"):
        fused.train()
    assert fuse(fused) is fused  # again: nothing is left to fold
    with pytest.raises(WordTreeError, match="precision 'float8'"):
        fuse(lively_model(), precision="float8")
