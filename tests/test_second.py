"""A second look: a detector's boxes, named by a classifier over the same tree, in the same commands."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model

import yolo9000
from wordtree import LabelMap, WordTree, WordTreeError, build_tree, label_maps, wordnet
from wordtree.nn import Hierarchical
from yolo9000 import SecondLook, models
from yolo9000.choice import Choice
from yolo9000.cli import main
from yolo9000.data.embedded import Pictures, classes
from yolo9000.looking import name_boxes, score_nodes
from yolo9000.second import cut, looking_again, settle
from yolo9000.trunks import named_classifier

TREE = WordTree(["animal", "plant", "dog", "cat", "poodle", "pug"], [-1, -1, 0, 0, 2, 2])
MOBILE = "torchvision/mobilenet_v3_small"
SMALL = {"widths": (8, 16, 32), "counts": (1, 1, 3)}


class Says(nn.Module):
    """A classifier that says one thing of whatever it is shown, and keeps what that was."""

    def __init__(self, tree: WordTree, probs: list[float]) -> None:
        super().__init__()
        self.tree, self.probs, self.shown = tree, torch.tensor(probs), []

    def forward(self, images):
        self.shown.append(images)
        return self.probs.log().expand(len(images), -1)


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    model = models.yolo9000(TREE, [[1.0, 1.0], [2.0, 2.0]], size=64, **SMALL).eval()
    nn.init.normal_(model.head.boxes.weight, std=0.3)
    return model


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 120, 90, generator=generator), torch.rand(3, 64, 64, generator=generator)]


DOG = [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]  # a dog for certain, and no kind of it known


# ---------------------------------------------------------------------- whose word counts


def test_a_classifier_that_knows_all_is_believed_and_one_that_knows_nothing_is_not():
    own = torch.tensor([[0.6, 0.4, 0.5, 0.1, 0.2, 0.3]])
    seen = torch.tensor([[0.9, 0.1, 0.3, 0.6, 0.1, 0.2]])
    steps = torch.tensor([[0.9, 0.1, 0.3 / 0.9, 0.6 / 0.9, 0.1 / 0.3, 0.2 / 0.3]])
    torch.testing.assert_close(settle(own, seen, TREE), steps)
    steps = torch.tensor([[0.6, 0.4, 0.5 / 0.6, 0.1 / 0.6, 0.4, 0.6]])
    torch.testing.assert_close(settle(own, torch.zeros_like(own), TREE), steps)


def test_what_is_left_to_a_node_itself_is_divided_as_the_detector_has_it():
    own = torch.rand(50, 6)
    own = torch.stack([own[:, :2].softmax(1), own[:, 2:4].softmax(1), own[:, 4:].softmax(1)], 1).flatten(1)
    own[:, 2:4] *= own[:, :1]
    own[:, 4:] *= own[:, 2:3]
    seen = torch.tensor([[0.5, 0.2, 0.3, 0.0, 0.3 * 0.75, 0.0]]).expand(50, -1)
    left = own / torch.cat((torch.ones(50, 2), own[:, [0, 0, 2, 2]]), 1)
    for row, told in enumerate(settle(own, seen, TREE)):  # slowly: each group by itself
        assert torch.allclose(told[:2], torch.tensor([0.5, 0.2]) + 0.3 * left[row, :2])
        assert torch.allclose(told[2:4], torch.tensor([0.6, 0.0]) + 0.4 * left[row, 2:4])
        assert torch.allclose(told[4:], torch.tensor([0.75, 0.0]) + 0.25 * left[row, 4:])
        assert torch.allclose(told.view(3, 2).sum(1), torch.ones(3))


def test_boxes_are_the_detectors_by_objectness_and_names_the_classifiers(detector, images):
    look = SecondLook(detector, Says(TREE, DOG), crop=32).eval()
    look.threshold, look.tree_threshold = 0.5, 0.99
    by_objectness = name_boxes(detector, images)  # the evaluator's way to the same boxes
    for one, named in zip(look(images), by_objectness, strict=True):
        sure = named.objectness > 0.5
        assert sure.sum() > 2
        torch.testing.assert_close(one["objectness"].sort(descending=True)[0], named.objectness[sure][:30])
        assert set(one["paths"]) == {(0, 2)}
        assert (one["scores"] > 0.5).all()
        assert (one["scores"].diff() <= 0).all()


def test_it_is_shown_each_box_as_it_lies_in_the_image_given():
    image = torch.zeros(3, 60, 80)
    image[0, 10:30, 20:60] = 1.0
    shown = cut(image, torch.tensor([[20.0, 10.0, 60.0, 30.0], [0.0, 0.0, 40.0, 60.0], [79.9, -5.0, 90.0, 0.2]]), 16)
    assert shown.shape == (3, 3, 16, 16)
    torch.testing.assert_close(shown[0, 0, 1:-1, 1:-1], torch.ones(14, 14))  # at its edge with what is beside it
    assert shown[0, 0].min() > 0.8
    assert shown[1, 0].mean() == pytest.approx(20 * 20 / (40 * 60), abs=0.02)
    assert (shown[2] == 0).all()


def test_no_more_boxes_are_looked_at_than_asked_and_none_at_all_is_no_fault(detector, images):
    says = Says(TREE, DOG)
    look = SecondLook(detector, says, crop=32, most=2).eval()
    look.threshold = 0.1
    assert [len(one["boxes"]) for one in look(images)] == [2, 2]
    assert [shown.shape for shown in says.shown] == [(2, 3, 32, 32)] * 2
    look.threshold = 1.0
    empty = look(images, choice=Choice(node_probs=True))[0]
    assert empty["boxes"].shape == (0, 4)
    assert empty["node_probs"].shape == (0, 6)
    assert empty["paths"] == []


def test_a_choice_narrows_its_answers_as_a_detectors(detector, images):
    look = SecondLook(detector, Says(TREE, [0.9, 0.1, 0.7, 0.2, 0.6, 0.1]), crop=32).eval()
    look.threshold = 0.05

    def answers(**choice):
        return {label for one in look(images, choice=Choice(**choice)) for label in one["labels"].tolist()}

    assert answers(tree_threshold=0.5) == {TREE.find("poodle")}
    assert answers(tree_threshold=0.65) == {TREE.find("dog")}
    assert answers(level=0) == {TREE.find("animal")}
    assert answers(only="cat", tree_threshold=0.1) == {TREE.find("cat")}
    one = look(images, choice=Choice(node_probs=True))[0]
    torch.testing.assert_close(one["node_probs"][0], torch.tensor([0.9, 0.1, 0.7, 0.2, 0.6, 0.1]))


def test_it_is_scored_and_named_like_a_detector_and_takes_a_second_look_itself(detector, images):
    look = SecondLook(detector, Says(TREE, DOG), crop=32).eval()
    for one in score_nodes(look, images, [TREE.find("dog"), TREE.find("cat"), TREE.find("pug")]):
        assert len(one.nodes)
        assert TREE.find("cat") not in one.nodes
    again = SecondLook(look, Says(TREE, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]), crop=32).eval()
    again.threshold = 0.3
    assert {label for one in again(images) for label in one["labels"].tolist()} == {TREE.find("plant")}


def test_our_own_classifier_over_the_tree_is_one(detector, images):
    classifier = models.darknet19(TREE, 32, **SMALL).eval()
    look = SecondLook(detector, classifier, crop=32).eval()
    look.threshold = 0.01
    one = look(images, choice=Choice(tree_threshold=0.0, node_probs=True))[0]
    assert len(one["boxes"])
    with torch.no_grad():
        wanted = classifier(cut(images[0], one["boxes"], 32)).exp()
    torch.testing.assert_close(one["node_probs"], wanted)


def test_another_tree_and_training_are_refused(detector, images):
    with pytest.raises(WordTreeError, match="give one over the same tree"):
        SecondLook(detector, Says(WordTree(["rock"], [-1]), [1.0]))
    with pytest.raises(WordTreeError, match="train the detector, or the classifier, by itself"):
        SecondLook(detector, Says(TREE, DOG)).train()(images, [])


# ---------------------------------------------------------------------- by name


def test_a_label_stands_for_the_nearest_kind_above_it_on_the_tree():
    tree = build_tree(["dog.n.01", "bird.n.01", "carnivore.n.01"])
    ids = [wordnet.id_of(f"{name}.01") for name in ("pug.n", "dog.n", "hen.n", "oak.n")] + ["n02129604"]  # a tiger
    dog, bird, carnivore = (wordnet.id_of(f"{name}.n.01") for name in ("dog", "bird", "carnivore"))
    assert LabelMap("some", tuple("abcde"), tuple(ids)).nearest_on(tree) == [dog, dog, bird, None, carnivore]
    imagenet = label_maps()["imagenet1k"]
    assert imagenet.nearest_on(build_tree("imagenet1k")) == list(imagenet.ids)


@pytest.mark.parametrize("name", [MOBILE, pytest.param("timm/test_efficientnet", marks=pytest.mark.slow)])
def test_a_classifier_by_name_says_what_the_network_itself_says(tmp_path, name):
    package, own = name.split("/")
    torch.manual_seed(0)
    if package == "timm":
        network = pytest.importorskip("timm", reason="timm is not installed").create_model(own).eval()
        mean, std = (torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    else:
        network = get_model(own, weights=None).eval()
        mean, std = (torch.tensor(one).view(3, 1, 1) for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    save_file(network.state_dict(), tmp_path / "whole.safetensors")
    tree = build_tree("imagenet1k")
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        wanted = Hierarchical(None, tree)(network((images - mean) / std))
    torch.testing.assert_close(named_classifier(name, tree, tmp_path / "whole.safetensors")(images), wanted)


def test_on_the_embedded_sets_tree_it_knows_most_classes_and_leaves_the_others(tmp_path):
    save_file(get_model("mobilenet_v3_small", weights=None).state_dict(), tmp_path / "whole.safetensors")
    tree = yolo9000.load().tree
    classifier = named_classifier(MOBILE, tree, tmp_path / "whole.safetensors")
    knows = (classifier(torch.rand(1, 3, 32, 32)).exp() > 0)[0]
    fine = [tree.find(one.wnid) for one in classes()]
    assert knows[fine].sum() == 59
    assert not knows[tree.find("giraffe.n.01")]


def test_what_is_no_classifier_by_name_is_refused(tmp_path):
    with pytest.raises(WordTreeError, match="mobilenet_v3_small"):
        named_classifier("resnet50", TREE)
    with pytest.raises(WordTreeError, match="network of torchvision"):
        named_classifier("torchvision/mobilenet_v3_smal", TREE)
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WordTreeError, match="do not fit"):
        named_classifier(MOBILE, TREE, tmp_path / "other.safetensors")
    save_file(get_model("mobilenet_v3_small", weights=None).state_dict(), tmp_path / "whole.safetensors")
    with pytest.raises(WordTreeError, match="no class of ImageNet"):
        named_classifier(MOBILE, TREE, tmp_path / "whole.safetensors")


@pytest.fixture
def lion(tmp_path):
    """Weights of a classifier that takes whatever it sees for a lion."""
    network = get_model("mobilenet_v3_small", weights=None)
    nn.init.zeros_(network.classifier[3].weight)
    nn.init.constant_(network.classifier[3].bias, -20.0)
    network.classifier[3].bias.data[291] = 20.0
    weights = tmp_path / "lion.safetensors"
    save_file(network.state_dict(), weights)
    return weights


def test_the_command_and_the_call_take_it(tmp_path, lion, capsys, monkeypatch):
    scene = Pictures("unseen", count=3, seed=1)[2][0]
    Image.fromarray(scene.permute(1, 2, 0).numpy()).save(tmp_path / "scene.png")
    command = ["detect", str(tmp_path / "scene.png"), "--json", "--threshold", "0.1", "--look", MOBILE]
    monkeypatch.setattr("sys.argv", ["yolo9000", *command, "--look-weights", str(lion)])
    with pytest.raises(SystemExit):
        main()
    told = json.loads(capsys.readouterr().out)
    model = yolo9000.load()
    look = SecondLook(yolo9000.fuse(model), named_classifier(MOBILE, model.tree, lion))
    (found,) = yolo9000.detect(tmp_path / "scene.png", weights=look, threshold=0.1)
    assert set(found.names) == {"lion"}
    assert [one["name"] for one in told["detections"]] == list(found.names)


def test_an_evaluation_takes_it_by_name_and_in_hand(tmp_path, lion, capsys, monkeypatch):
    command = ["evaluate", "--scenes", "4", "--out", str(tmp_path / "out"), "--json", "--look", MOBILE]
    monkeypatch.setattr("sys.argv", ["yolo9000", *command, "--look-weights", str(lion)])
    with pytest.raises(SystemExit):
        main()
    told = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["look"] == MOBILE
    look = looking_again(yolo9000.load(), MOBILE, lion)
    in_hand = yolo9000.evaluate(look, scenes=4, progress=False, out=tmp_path / "hand", picture=tmp_path / "sheet.png")
    assert {name: None if value != value else value for name, value in in_hand.items()} == told
    assert json.loads((tmp_path / "hand" / "evaluation.json").read_text())["weights"] == "SecondLook"
    assert Image.open(tmp_path / "sheet.png").size == (1600, 1200)
    plain = yolo9000.evaluate(scenes=4, progress=False)
    assert plain["unseen/never_boxed_animals/mAP50"] != in_hand["unseen/never_boxed_animals/mAP50"]
    assert yolo9000.evaluate(yolo9000.load(), scenes=4, progress=False) == pytest.approx(plain, nan_ok=True)
    with pytest.raises(WordTreeError, match=r"sizes \[128, 192\] for second look, built for 160; leave them out"):
        yolo9000.evaluate(look, scenes=4, sizes=(128, 192), progress=False)


def test_the_boxes_of_a_flat_detector_are_found_by_objectness_too(images):
    flat = WordTree(["dog", "cat", "bird", "fish"], [-1] * 4)
    torch.manual_seed(0)
    model = models.yolo9000(flat, [[1.0, 1.0], [2.0, 2.0]], size=64, **SMALL).eval()
    nn.init.normal_(model.head.boxes.weight, std=0.3)
    look = SecondLook(model, Says(flat, [0.0, 1.0, 0.0, 0.0]), crop=32).eval()
    look.threshold = 0.5
    for one, named in zip(look(images), name_boxes(model, images), strict=True):
        assert len(one["boxes"]) == min(30, int((named.objectness > 0.5).sum())) > 0  # no class of its own is at .5
        assert set(one["labels"].tolist()) == {1}
