"""Options of a plug-in's detector: by command, run.yaml and API, to its builder and into its weights."""

import json
import pickle
import signal
import sys
from pathlib import Path

import pytest
import torch
import torchvision
import wordtree_torchvision
from conftest import TINY
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from wordtree_torchvision import SUMMARIES
from wordtree_torchvision.pretrained import TRUNKS, blank, trunk_weights_of
from wordtree_torchvision.zoo import build

import yolo9000
from wordtree import WordTree, WordTreeError, hookimpl, plugins
from wordtree.plugins import Detector
from yolo9000 import cli, training
from yolo9000.borrowed import Borrowed
from yolo9000.checkpoints import load_model, read_tensors, save_model
from yolo9000.config import config_of
from yolo9000.runfile import read_run

SSD = "torchvision/ssdlite320_mobilenet_v3_large"
RCNN = "fasterrcnn_mobilenet_v3_large_320_fpn"
PETS = WordTree(["n00015388", "n02084071", "n02121620"], [-1, 0, 0], ["animal", "dog", "cat"])


class Sized(nn.Module):
    """One box an image; how wide it is inside is an option, and the state dict that it starts from another."""

    def __init__(self, tree, weights=None, width=2, rates=(1.0,), size=64):
        super().__init__()
        self.tree, self.threshold, self.tree_threshold = tree, 0.5, 0.5
        self.inside = nn.Linear(3, width)
        READ.append(weights)
        if weights is not None:
            self.load_state_dict(weights)

    def forward(self, images, targets=None):
        seen = self.inside(torch.stack([image.mean((1, 2)) for image in images]))
        if self.training:
            return {"my_boxes": functional.softplus(seen).mean()}
        one = {"boxes": torch.tensor([[1.0, 2, 30, 40]]), "labels": torch.tensor([0]), "scores": torch.tensor([0.5])}
        more = {"objectness": torch.tensor([0.9]), "paths": [(0,)], "path_probs": torch.tensor([[0.6]])}
        return [{**one, **more}] * len(images)


class Grown(Sized):
    """Its weights say how wide it is, and it does not tell."""

    def __init__(self, tree, weights=None):
        super().__init__(tree, weights, width=2 if weights is None else len(weights["inside.weight"]))


READ: list = []


@hookimpl
def register_detectors():
    return [Detector("sized", Sized), Detector("grown", Grown)]


@pytest.fixture(scope="module", autouse=True)
def _offered():
    added = [plugins.register(sys.modules[__name__])]
    if SSD not in plugins.detectors():
        added.append(plugins.register(wordtree_torchvision))
    yield
    for name in added:
        plugins.unregister(name)


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(5)
    torch.save(Sized(PETS, width=3).state_dict(), tmp_path / "three.pth")
    READ.clear()
    return tmp_path / "three.pth"


def architecture(model):
    """Names and shapes, what is trained, and of which kind each layer is."""
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    trained = {key: value.requires_grad for key, value in model.named_parameters()}
    return shapes, trained, [(type(one), getattr(one, "eps", None)) for one in model.modules()]


# ---------------------------------------------------------------------- through a run


def test_a_run_starts_from_a_file_of_weights_and_needs_it_at_no_other_time(file, tmp_path, monkeypatch):
    options = {**TINY, "steps": 4, "test_scenes": 2, "checkpoint_every": 1, "detector": "sized"}
    options["detector_options"] = {"weights": str(file), "width": 3}
    step = training.Trainer._step

    def stopping(self, *given):
        if self.step == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, *given)

    monkeypatch.setattr(training.Trainer, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        yolo9000.train(joint=True, out=tmp_path / "run", progress=False, **options)
    monkeypatch.undo()
    start = torch.load(file, weights_only=True)["inside.weight"]
    assert [one is not None for one in READ] == [True, False]  # and once to see that it can do without
    assert torch.equal(READ[0]["inside.weight"], start)
    tensors, _ = read_tensors(tmp_path / "run" / "checkpoint.safetensors")
    kept = next(one for name, one in tensors.items() if name.split(".", 1)[1] == "inner.inside.weight")
    assert (kept - start).abs().max() < 0.1  # it did start there
    file.unlink()
    READ.clear()
    with pytest.raises(WordTreeError, match=r"other settings \(detector_options\)"):
        yolo9000.train(
            joint=True, out=tmp_path / "run", progress=False, **{**options, "detector_options": {"width": 3}}
        )
    run = yolo9000.train(joint=True, out=tmp_path / "run", progress=False, **options)
    model = yolo9000.load(run.weights)
    assert model.options["options"] == {"width": 3}
    assert all(one is None for one in READ)
    assert len(yolo9000.detect(torch.zeros(3, 64, 64, dtype=torch.uint8), weights=run.weights)) == 1
    stored = json.loads((run.directory / "config.json").read_text())
    assert stored["detector_options"] == {"weights": str(file), "width": 3}


def test_saved_weights_build_a_pretrained_detector_again_without_its_start(tmp_path):
    own = torchvision.models.get_model(SSD.partition("/")[2], weights=None, weights_backbone=None)
    save_file(own.state_dict(), tmp_path / "coco.safetensors")
    model = Borrowed(SSD, PETS, 96, {"weights": str(tmp_path / "coco.safetensors"), "width": 8}).eval()
    assert len(model.inner.head.knowledge.nodes) == 3  # 91 columns know a dog, a cat, and so an animal
    for key, value in own.state_dict().items():
        assert torch.equal(model.inner.model.state_dict()[key], value), key
    (tmp_path / "coco.safetensors").unlink()
    other, _ = load_model(save_model(tmp_path / "saved.safetensors", model))
    assert architecture(other) == architecture(model)
    assert other.options == model.options
    images = torch.rand(1, 3, 96, 96)
    model.threshold = other.threshold = 0.0
    (one,), (two,) = model(images), other(images)
    assert len(one["scores"]) > 0
    assert torch.equal(one["scores"], two["scores"])


# ---------------------------------------------------------------------- to torchvision's builders


def fetched(monkeypatch, name):
    """torchvision's weights by name, without a download: random ones for a detector, or for a trunk."""

    def state(self, *args, **options):
        detector = type(self).__name__.lower().startswith(name.partition("_")[0])
        more = {"weights_backbone": None, "num_classes": 91} if detector else {}
        made = name if detector else next(trunk for trunk in TRUNKS if trunk in name)
        return dict(blank(made, **more))

    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", state)


def starts(name):
    """What a detector of torchvision's may start from, as options of its builder."""
    own = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    trunk = next(trunk for trunk in TRUNKS if trunk in name)
    five = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=5)
    return {
        "nothing": {},
        "name": {"weights": "DEFAULT"},
        "state": {"weights": own.state_dict()},
        "classes": {"weights": five.state_dict(), "num_classes": 5},
        "trunk": {"trunk_weights": "DEFAULT", "trainable_backbone_layers": 2},
        "classifier": {"trunk_weights": torchvision.models.get_model(trunk, weights=None).state_dict()},
        "backbone": {"trunk_weights": own.backbone.state_dict()},
    }


slow = [pytest.param(name, marks=pytest.mark.slow) for name in SUMMARIES if name != RCNN]


@pytest.mark.filterwarnings("ignore:The parameter 'num_classes':UserWarning")
@pytest.mark.parametrize("name", [RCNN, *slow])
def test_a_detectors_own_options_build_its_network_again_and_read_nothing(name, monkeypatch):
    fetched(monkeypatch, name)
    given = starts(name)
    made = {kind: build(name, PETS, width=8, **options) for kind, options in given.items()}
    for kind, part in (("state", "weights"), ("classes", "weights"), ("backbone", "trunk_weights")):
        inside = made[kind].model.backbone if part == "trunk_weights" else made[kind].model
        for key, value in inside.state_dict().items():
            assert torch.equal(value, given[kind][part][key]), key

    def never(self, *args, **options):
        raise AssertionError("weights were read again")

    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", never)
    for kind, model in made.items():
        assert model.options == json.loads(json.dumps(model.options)), kind
        assert architecture(build(name, PETS, **model.options)) == architecture(model), kind
    assert architecture(made["name"]) == architecture(made["state"])  # a file is read as the download would be
    assert architecture(made["trunk"])[0] == architecture(made["classifier"])[0]


def test_the_trunk_of_ssd300_starts_from_weights_for_its_own_range_of_pixels():
    """Its images are 0 to 255 less their mean, not of a deviation of 1."""
    assert str(trunk_weights_of("ssd300_vgg16", "DEFAULT")) == "VGG16_Weights.IMAGENET1K_FEATURES"
    assert trunk_weights_of("ssd300_vgg16", "IMAGENET1K_V1") == "IMAGENET1K_V1"
    assert str(trunk_weights_of(RCNN, "DEFAULT")) == "MobileNet_V3_Large_Weights.IMAGENET1K_V2"


def test_a_side_that_is_asked_for_wins_over_the_size_of_the_run():
    assert build(RCNN, PETS, size=100).transform.max_size == 166
    transform = Borrowed(f"torchvision/{RCNN}", PETS, 100, {"min_size": 64, "max_size": 96}).inner.transform
    assert (transform.min_size, transform.max_size) == ((64,), 96)


# ---------------------------------------------------------------------- from a run.yaml and the command line


def test_a_run_yaml_has_them_its_files_relative_to_it_and_those_given_win(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "sources: [{kind: coco, path: a.json}]\ndetector: sized\n"
        "detector_options: {weights: ../three.pth, width: 3, rates: [0.5, 1]}\n"
    )
    run = read_run(path)
    placed = str(tmp_path / "../three.pth")
    assert run.config().detector_options == {"weights": placed, "width": 3, "rates": [0.5, 1]}
    over = run.config(detector_options={"weights": "here.pth", "width": 5}).detector_options
    assert over == {"weights": "here.pth", "width": 5, "rates": [0.5, 1]}
    assert run.config(detector="grown").detector_options == {}  # another detector has its own
    assert run.config(detector="grown", detector_options={"width": 1}).detector_options == {"width": 1}
    for asked, placed in (
        ("DEFAULT", "DEFAULT"),
        ("facebook/detr-resnet-50", "facebook/detr-resnet-50"),  # a name
        ("./mine", str(tmp_path / "mine")),  # a folder, whether it is there yet or not
        ("../mine", str(tmp_path / "../mine")),
    ):
        path.write_text(
            f"sources: [{{kind: coco, path: a.json}}]\ndetector: sized\ndetector_options: {{weights: {asked}}}\n"
        )
        assert read_run(path).config().detector_options == {"weights": placed}
    path.write_text("sources: [{kind: coco, path: a.json}]\ndetector: sized\ndetector_options: weights\n")
    with pytest.raises(WordTreeError, match=r"detector_options of 'weights'; give a dict, such as \{'weights'"):
        read_run(path)


def test_trunk_weights_of_a_run_yaml_are_relative_to_it(tmp_path):
    path = tmp_path / "run.yaml"
    trunk = "sources: [{kind: coco, path: a.json}]\ntrunk: torchvision/mobilenet_v3_small\n"
    path.write_text(trunk + "trunk_weights: ../trunk.pth\n")
    run = read_run(path)
    assert run.config().trunk_weights == str(tmp_path / "../trunk.pth")
    assert run.config(trunk_weights="here.pth").trunk_weights == "here.pth"
    path.write_text(trunk + "trunk_weights: DEFAULT\n")
    assert read_run(path).config().trunk_weights == "DEFAULT"
    path.write_text(trunk)
    assert read_run(path).config().trunk_weights == ""


def test_the_command_line_says_them_one_by_one(monkeypatch, capsys):
    asked = {}

    def run(**options):
        asked.update(options)
        raise WordTreeError("enough")

    monkeypatch.setattr(training, "train", run)
    words = ["weights=DEFAULT", "trainable_backbone_layers=2", "image_mean=[0.5,0.5,0.5]"]
    told = [word for one in words for word in ("--detector-option", one)]
    monkeypatch.setattr(sys, "argv", ["yolo9000", "train", "--detector", SSD, *told])
    with pytest.raises(SystemExit):
        cli.main()
    assert asked["detector_options"] == {
        "weights": "DEFAULT", "trainable_backbone_layers": 2, "image_mean": [0.5, 0.5, 0.5],
    }  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["yolo9000", "train", "--detector", SSD, "--detector-option", "weights"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "setting 'weights'; give key=value, such as weights=DEFAULT" in capsys.readouterr().err


def test_a_check_builds_the_detector_too(tmp_path, monkeypatch, capsys):
    (tmp_path / "names" / "n02084071").mkdir(parents=True)
    run = tmp_path / "run.yaml"
    run.write_text("sources: [{kind: folder, path: names}]\nsize: 64\nsizes: [64]\n")
    for words, told in (
        (["--detector", "sizd"], "no detector 'sizd'; did you mean 'sized'"),
        (["--detector", "sized", "--detector-option", "widht=3"], "no option of sized 'widht'; did you mean 'width'"),
    ):
        monkeypatch.setattr(sys, "argv", ["yolo9000", "train", "--data", str(run), "--check", *words])
        with pytest.raises(SystemExit, match="2"):
            cli.main()
        assert told in capsys.readouterr().err


# ---------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("sized", {"widht": 3}, "no option of sized 'widht'; did you mean 'width'"),
        ("sized", {"width": "three"}, "sized with width: .*; give options that its builder takes"),
        ("sized", {"size": 96}, "size=96 as an option of sized; give it as the run's size"),
        ("sized", {"weights": "none.pth"}, "no weights of sized 'none.pth'; give a state dict's file, or DEFAULT"),
        (SSD, {"trainable_layers": 3}, "'trainable_layers'; did you mean 'trainable_backbone_layers'"),
        (SSD, {"weights": "COCO_V9"}, "no weights of ssdlite320_.*known: DEFAULT, COCO_V1"),
        (SSD, {"trunk_weights": "IMAGENET"}, "no trunk_weights of ssdlite320_.*known: DEFAULT, IMAGENET1K_V1"),
        (SSD, {"weights": "DEFAULT", "num_classes": 5}, "'num_classes' expected value 91 but got 5"),
        (SSD, {"trunk_weights": "DEFAULT", "trainable_backbone_layers": 9}, r"range \[0,6\], got 9"),
        (SSD, {"anchor_generator": 3}, "multiple values for argument 'anchor_generator'; give what torchvision"),
        (SSD, {"width": "wide"}, "with width: "),
    ],
)
def test_options_that_a_builder_does_not_take_are_named(name, options, told, monkeypatch):
    monkeypatch.setattr(
        torchvision.models._api.WeightsEnum, "get_state_dict", lambda self, **_: blank("mobilenet_v3_large")
    )
    with pytest.raises(WordTreeError, match=told):
        Borrowed(name, PETS, 64, options)


def test_weights_with_which_a_detector_is_another_are_refused_before_it_is_trained(file):
    with pytest.raises(WordTreeError, match=r"inside.weight \(3, 3\), without \(2, 3\)"):
        Borrowed("grown", PETS, 64, {"weights": str(file)})


class Trap:
    def __reduce__(self):
        return print, ("a pickle was run",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_a_file_is_never_run(tmp_path, capsys):
    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(WordTreeError, match=r"weights of sized '.*trap.pth' cannot be read without running code"):
        Borrowed("sized", PETS, 64, {"weights": str(tmp_path / "trap.pth")})
    assert "a pickle was run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"detector_options": {"width": 3}}, r"detector_options \{'width': 3\} for 'yolo9000'; they are for a plug-in"),
        ({"detector_options": ["width"]}, r"detector_options of \['width'\]; give a dict"),
        ({"detector": SSD, "detector_options": {"weights": Path("x.pth")}}, "give text, a number, true or false"),
        ({"detector": SSD, "detector_options": {"weights": {"a": 1}}}, "give text, a number, true or false"),
        ({"detector": SSD, "detector_options": {3: 1}}, "3=1 of detector_options"),
    ],
)
def test_options_that_no_file_could_say_are_refused(options, told):
    with pytest.raises(WordTreeError, match=told):
        config_of(options)
