"""transformers' detectors of the DETR family over a tree: their own code on the problem of one class."""

import doctest
import importlib
import importlib.util
import inspect
import json
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed; the dev extra has it")
pytest.importorskip("scipy", reason="scipy is not installed, with which transformers matches")

import transformers
import wordtree_transformers
from conftest import TINY
from test_torchvision import TREE, flat
from tiny_detectors import scene
from tiny_queries import KINDS, NAMES, OPTIONS, tiny
from torch import nn
from transformers import AutoModelForObjectDetection
from wordtree_torchvision.detector import log_sigmoid, pull
from wordtree_transformers import SUMMARIES, attach, build
from wordtree_transformers.detector import CLASSES, RULES
from wordtree_transformers.zoo import CONFIGS, columns_of

import yolo9000
from wordtree import WordTree, WordTreeError, build_tree, label_maps, plugins
from wordtree.nn import tree_log_prob
from yolo9000 import training

ROOT = Path(__file__).parent.parent
ONE = WordTree(["thing"], [-1])
IMAGES = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
SOFTMAX = ("detr", "yolos")


def own(kind, classes, names=None):
    """A model of transformers, not over a tree, with its last layers drawn wide so that scores differ."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, num_labels=classes, **OPTIONS[kind])
    if kind != "yolos":
        config.auxiliary_loss = True
    if names is not None:
        config.id2label = dict(enumerate(names))
    model = AutoModelForObjectDetection.from_config(config)
    with torch.no_grad():
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear) and "class" in name:
                layer.weight.normal_(std=1.0 / layer.in_features**0.5)
    return model


def truths(targets, number=0):
    """Targets as transformers takes them, of 64-pixel images."""
    ready = []
    for target in targets:
        low, high = target["boxes"][:, :2], target["boxes"][:, 2:]
        boxes = torch.cat(((low + high) / 2, high - low), dim=1) / 64
        ready.append({"boxes": boxes, "class_labels": torch.full_like(target["labels"], number)})
    return ready


# ---------------------------------------------------------------------- flat trees give the original


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scenes", [[[0, 0], [0], []], [[], []]])
def test_a_tree_of_one_node_is_transformers_detector_of_one_class(kind, scenes):
    ours = tiny(kind, ONE).train()
    ours.laying.eval()  # it draws a size, of one, and a number with it
    targets = [scene(labels) for labels in scenes]
    images = IMAGES[: len(targets)]
    batch, _ = ours.lay(images)
    torch.manual_seed(1)  # dropout, denoising
    wanted = ours.model(**ours.inputs(batch), labels=truths(targets))
    torch.manual_seed(1)
    losses = ours(images, targets)
    torch.testing.assert_close(losses["objectness"] + losses["box"], wanted.loss)
    parts = [loss for name, loss in wanted.loss_dict.items() if name.startswith(("loss_ce", "loss_vfl"))]
    torch.testing.assert_close(losses["objectness"], sum(parts))
    assert set(losses) == {"objectness", "box", "tree", "image_label"}
    assert losses["tree"] == losses["image_label"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_detections_of_a_flat_tree_are_those_of_transformers_own_processor(kind):
    """DETR's softmax over classes and no object is objectness x a softmax; a sigmoid is the objectness of one class."""
    classes = 5 if kind in SOFTMAX else 1
    model, tree = own(kind, classes), flat(classes)
    ours = attach(model, tree, list(tree.ids), size=64).eval()
    ours.threshold = 0.0
    with torch.no_grad():
        _, out, _ = ours.look(IMAGES)
    processor = transformers.DetrImageProcessor if kind in SOFTMAX else transformers.DeformableDetrImageProcessor
    words = {} if kind in SOFTMAX else {"top_k": 12}
    wanted = processor().post_process_object_detection(out, 0.0, torch.tensor([[64, 64]] * 3), **words)
    for found, one in zip(ours(IMAGES), wanted, strict=True):
        best = found["scores"].argsort(descending=True, stable=True)
        assert len(best) == 12 * classes
        table = {}  # of a box its best class
        for row in best.tolist():
            key = tuple(found["boxes"][row].tolist())
            table.setdefault(key, (float(found["scores"][row]), int(found["labels"][row])))
        for score, label, box in zip(one["scores"], one["labels"], one["boxes"].clamp(0, 64), strict=True):
            key = min(table, key=lambda other: float((torch.tensor(other) - box).abs().sum()))
            torch.testing.assert_close(torch.tensor(key), box, rtol=1e-4, atol=1e-3)
            assert table[key][0] == pytest.approx(float(score), abs=1e-4)
            assert table[key][1] == int(label)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "d_fine"])
def test_what_the_tree_reads_is_what_the_models_own_classifier_reads(kind):
    """D-FINE's adds what it thinks of the box to the logit, which is objectness too."""
    ours = tiny(kind, TREE).eval()
    with torch.no_grad():
        _, out, _ = ours.look(IMAGES)
    places = {"dab-detr": "class_embed", "deformable_detr": "class_embed.1", "detr": "class_labels_classifier"}
    places |= {"conditional_detr": "class_labels_classifier", "yolos": "class_labels_classifier"}
    layer = ours.model.get_submodule(places.get(kind, "model.decoder.class_embed.1"))
    hidden = out["last_hidden_state"][:, -out["logits"].shape[1] :]
    torch.testing.assert_close(layer(hidden), out["logits"])


# ---------------------------------------------------------------------- joint training


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", ["boxes", "label", "nothing", "both"])
def test_every_kind_of_batch_is_learned_from(kind, targets):
    ours = tiny(kind, TREE).train()
    label = {"labels": torch.tensor([5])}
    given = {"boxes": [scene([2, 5])], "label": [label], "nothing": [scene([])], "both": [scene([0]), label]}[targets]
    losses = ours(IMAGES[: len(given)], given)
    assert all(loss.isfinite() for loss in losses.values())
    assert bool(losses["tree"] > 0) == (targets in ("boxes", "both"))
    assert bool(losses["image_label"] > 0) == (targets in ("label", "both"))
    sum(losses.values()).backward()
    without = {name for name, one in ours.named_parameters() if one.requires_grad and one.grad is None}
    if targets in ("boxes", "both"):
        assert without == set()
    assert all(one.grad.isfinite().all() for one in ours.parameters() if one.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_label_teaches_its_likeliest_query_alone(kind):
    ours = tiny(
        kind, TREE, **({} if kind in ("yolos", "rt_detr", "rt_detr_v2", "d_fine") else {"dropout": 0.0})
    ).train()
    with torch.no_grad():
        ours.head.classes.weight *= 300
        batch, _ = ours.lay(IMAGES[:1])
        out = ours.model(**ours.inputs(batch))
        log_objectness = log_sigmoid(ours.objectness(out.logits))[0]
        x = ours.rows(out.last_hidden_state[0, -12:], out.logits[0])
        log_prob = tree_log_prob(ours.head.classes(x), TREE)[:, 5]
    best = int((log_objectness + log_prob).argmax())
    losses = ours(IMAGES[:1], [{"labels": torch.tensor([5])}])
    wanted = pull(log_objectness[best]) - log_prob[best]
    torch.testing.assert_close(losses["image_label"].detach(), wanted, rtol=1e-3, atol=1e-4)
    assert all(float(loss.detach()) == 0 for name, loss in losses.items() if name != "image_label")


@pytest.mark.parametrize("kind", ["detr", "rt_detr"])
def test_a_few_steps_learn_boxes_and_names(kind):
    ours = tiny(kind, TREE).train()
    optimizer = torch.optim.Adam(ours.parameters(), lr=4e-3)
    targets = [scene([5]), scene([4]), {"labels": torch.tensor([3])}]
    history = []
    for _ in range(40):
        losses = ours(IMAGES, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: float(loss.detach()) for name, loss in losses.items()})
    assert history[-1]["tree"] < history[0]["tree"] / 2
    assert history[-1]["image_label"] < history[0]["image_label"] / 2
    assert history[-1]["box"] < history[0]["box"] * 0.7
    ours.eval().threshold = 0.01
    found = ours(IMAGES)
    assert [int(one["labels"][0]) for one in found[:2]] == [5, 4]
    assert found[0]["paths"][0] == TREE.path(5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_that_knows_everything_is_one_that_says_nothing(kind):
    ours = tiny(kind, TREE).train()
    found = []
    for more in ({}, {"known": torch.ones(len(TREE), dtype=torch.bool)}):
        torch.manual_seed(1)
        found.append(ours(IMAGES[:1], [{**scene([2, 5]), **more}]))
    for name, loss in found[0].items():
        torch.testing.assert_close(found[1][name], loss)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_source_does_not_know_is_no_negative(kind):
    """Siblings it does not know leave the softmax; queries that may be of such a class are pushed down less."""
    ours = tiny(kind, TREE, **({"num_denoising": 0} if "num_denoising" in OPTIONS[kind] else {})).train()
    with torch.no_grad():  # every query looks like a plant, and the source knows only animals
        ours.head.classes.bias[0, 1] = 8.0
        for name, layer in ours.model.named_modules():
            if isinstance(layer, nn.Linear) and "class" in name and layer.out_features == 1:
                layer.bias.fill_(1.0)
    known = torch.tensor([True, False, True, False, False, False, False])
    found = []
    for more in ({}, {"known": known}):
        torch.manual_seed(1)
        found.append(ours(IMAGES[:1], [{**scene([2]), **more}]))
    plain, partial = found
    assert partial["objectness"] < 0.8 * plain["objectness"]
    torch.testing.assert_close(partial["box"], plain["box"], rtol=1e-4, atol=1e-4)  # matched as before
    assert float(partial["tree"].detach()) == pytest.approx(0.0, abs=1e-6)  # no sibling is left
    assert plain["tree"] > 0.3


@pytest.mark.parametrize("kind", ["detr", "conditional_detr", "rt_detr"])
def test_autocast_to_bfloat16_trains_and_keeps_boxes_and_scores_in_float32(kind):
    ours = tiny(kind, TREE).train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = ours(IMAGES[:2], [scene([2, 5]), {"labels": torch.tensor([3])}])
    sum(losses.values()).backward()
    assert all(one.grad.isfinite().all() for one in ours.parameters() if one.grad is not None)
    ours.eval().threshold = 0.0
    with torch.autocast("cpu", torch.bfloat16):
        found = ours(IMAGES)
    assert {one[name].dtype for one in found for name in ("boxes", "scores", "objectness")} == {torch.float32}


# ---------------------------------------------------------------------- pretrained


def test_a_models_classes_are_found_by_its_config():
    coco = label_maps()["coco"]
    ids = dict(zip(coco.labels, coco.ids, strict=True))
    tree = build_tree("coco")
    sparse = [
        "N/A",
        *(name for at, name in enumerate(coco.labels) for name in (["N/A"] if at % 8 == 7 else []) + [name]),
    ]
    found = columns_of(sparse, tree)  # as DETR's 91, which have holes
    assert [column for name, column in zip(sparse, found, strict=True) if name == "N/A"] == [None] * 11
    assert all(column == ids[name] for name, column in zip(sparse, found, strict=True) if name != "N/A")
    renamed = {"couch": "sofa", "tv": "tvmonitor", "motorcycle": "motorbike", "airplane": "aeroplane"}
    assert columns_of([renamed.get(name, name) for name in coco.labels], tree) == list(coco.ids)  # as RT-DETR's 80
    cranes = build_tree(["n02012849", "n03126707", "n02084071"])
    assert columns_of(["crane", "dog", "crane (n03126707)", "crane"], cranes) == [None, "n02084071", "n03126707", None]
    assert columns_of(["LABEL_0", "LABEL_1"], tree) == [None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_the_tree_starts_from_what_a_model_in_hand_knows(kind):
    names = ["animal", "dog", "cat", "dog", "stone", "oak"]  # "dog" twice: which is meant nobody knows
    tree = WordTree([f"n{node}" for node in range(7)], TREE.parents, TREE.ids)
    model = own(kind, len(names), names)
    before = model.loss_function
    ours = attach(model, tree, size=64)
    assert ours.model is model
    assert ours.head.knowledge.nodes.tolist() == [0, 1, 3, 4]
    with torch.no_grad():
        _, out, _ = ours.eval().look(IMAGES[:1])
        x = ours.rows(out["last_hidden_state"][0, -12:], out["logits"][0])
        prob = tree_log_prob(ours.head.classes(x), tree).exp()
    share = out["logits"][0][:, [0, 2, 5]].softmax(1)
    torch.testing.assert_close(prob[:, 1], share[:, 2], rtol=2e-2, atol=1e-4)  # a plant is an oak
    losses = ours.train()(IMAGES[:2], [scene([3]), {"labels": torch.tensor([5])}])
    sum(losses.values()).backward()
    assert model.loss_function is before  # trained by hand, it is as it was
    assert "_loss_function" not in vars(model)
    assert attach(own(kind, 3), TREE, size=64).head.knowledge is None  # LABEL_0 ... say nothing


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_is_of_the_models_type_and_where_it_is(kind):
    ours = attach(own(kind, 3, ["dog", "cat", "oak"]).double(), TREE, size=64, width=8)
    assert {value.dtype for value in ours.parameters()} == {torch.float64}
    assert ours.head.classes.features == 8 + len(ours.head.knowledge.nodes)
    images = [image.double() for image in IMAGES[:2]]
    if kind != "dab-detr":  # whose queries are float32, whatever the model is; and so are transformers' losses of boxes
        sum(ours(images, [{"labels": torch.tensor([2])}, {"labels": torch.tensor([5])}]).values()).backward()
        ours.eval().threshold = 0.0
        assert ours(images)[0]["scores"].dtype == torch.float64
    far = attach(own(kind, 3).to("meta"), TREE)
    assert {value.device.type for value in (*far.parameters(), *far.buffers())} == {"meta"}


def test_a_denoiser_of_other_classes_is_told_of_no_class():
    """Its embedding of the index after the last is zero; any other would say "person" of everything."""
    ours = attach(own("rt_detr", 4), TREE, [None] * 4, size=64).train()
    heard = []
    embed = ours.model.model.denoising_class_embed
    embed.register_forward_hook(lambda module, args, out: heard.append(args[0]))
    ours.model.config.label_noise_ratio = 0.0
    ours(IMAGES[:1], [scene([2, 5])])
    assert heard[0].unique().tolist() == [4]
    assert embed.padding_idx == 4


def test_a_folder_of_weights_is_read_with_its_own_config(tmp_path):
    model = own("detr", 3, ["dog", "cat", "oak"])
    model.save_pretrained(tmp_path / "mine")
    ours = build("detr-resnet-50", TREE, weights=tmp_path / "mine", size=64)
    for key, value in model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[key], value), key
    assert len(ours.head.knowledge.nodes) == 5
    with pytest.raises(WordTreeError, match="num_queries beside weights"):
        build("detr-resnet-50", TREE, weights=tmp_path / "mine", num_queries=5)
    with pytest.raises(WordTreeError, match="weights and a config of detr-resnet-50"):
        build("detr-resnet-50", TREE, weights=tmp_path / "mine", config={"model_type": "detr"})
    with pytest.raises(WordTreeError, match="cannot be read"):
        build("detr-resnet-50", TREE, weights=tmp_path / "nothing")
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(WordTreeError, match="cannot be read"):
        build("detr-resnet-50", TREE, weights=tmp_path / "mine")


def test_weights_of_half_precision_are_read_as_float32(tmp_path):
    own("rt_detr", 3).half().save_pretrained(tmp_path / "half")
    ours = build("rtdetr_r18vd", TREE, weights=tmp_path / "half", size=64)
    assert {value.dtype for value in ours.parameters()} == {torch.float32}
    assert sum(ours(IMAGES[:1], [scene([3])]).values()).isfinite()


@pytest.mark.parametrize("kind", KINDS)
def test_a_detectors_own_options_build_its_network_again(kind, tmp_path):
    own(kind, 3, ["dog", "cat", "oak"]).save_pretrained(tmp_path / "mine")
    for ours in (build(NAMES[kind], TREE, weights=tmp_path / "mine", size=64, width=8), tiny(kind, TREE)):
        options = json.loads(json.dumps(ours.options))
        assert options == ours.options
        again = build(NAMES[kind], TREE, size=64, **options)
        assert again.options == ours.options
        again.load_state_dict(ours.state_dict())
        for one in (ours, again):
            one.eval().threshold = 0.0
        assert len(ours(IMAGES)[0]["scores"]) > 0
        assert all(torch.equal(a["scores"], b["scores"]) for a, b in zip(ours(IMAGES), again(IMAGES), strict=True))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, "KeyError: 'model_type'"),
        ({"model_type": "detre"}, "config of detr-resnet-50: ValueError: Unrecognized"),
        ({"model_type": "bert"}, "config of detr-resnet-50: ValueError: Unrecognized"),
        ("detr", "config of detr-resnet-50: ValueError"),
    ],
)
def test_a_config_of_no_detector_is_named(config, told):
    with pytest.raises(WordTreeError, match=told):
        build("detr-resnet-50", TREE, config=config)
    with pytest.raises(WordTreeError, match="num_queries beside weights or a config of detr-resnet-50"):
        build("detr-resnet-50", TREE, config=config, num_queries=5)


def test_a_file_of_weights_is_refused_in_a_line():
    """yolo9000's commands hand over the state dict in it; which network it is of, it does not say."""
    with pytest.raises(WordTreeError, match=r"as a state dict of \d+ tensors.*; give the folder") as caught:
        build("detr-resnet-50", TREE, weights=own("detr", 3).state_dict())
    assert len(str(caught.value)) < 300


# ---------------------------------------------------------------------- the same commands


@pytest.fixture
def offered():
    """The plug-in's detectors by name, installed or not."""
    added = None if "transformers/rtdetr_r18vd" in plugins.detectors() else plugins.register(wordtree_transformers)
    yield
    if added:
        plugins.unregister(added)


def test_a_run_starts_from_a_folder_and_needs_it_at_no_other_time(offered, tmp_path, monkeypatch):
    start = own("detr", 3, ["dog", "cat", "oak"])
    start.save_pretrained(tmp_path / "mine")
    options = {
        **TINY, "steps": 4, "test_scenes": 2, "batch": 2, "boxed_pictures": 4, "labelled_pictures": 4,
        "checkpoint_every": 1, "detector": "transformers/detr-resnet-50",
        "detector_options": {"weights": str(tmp_path / "mine"), "width": 8},
    }  # fmt: skip
    step = training.Trainer._step

    def stopping(self, *given):
        if self.step == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, *given)

    monkeypatch.setattr(training.Trainer, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        yolo9000.train(joint=True, out=tmp_path / "run", progress=False, **options)
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "mine")
    run = yolo9000.train(joint=True, out=tmp_path / "run", progress=False, **options)
    model = yolo9000.load(run.weights)
    assert model.inner.model.config.id2label == {0: "dog", 1: "cat", 2: "oak"}
    kept = model.inner.model.state_dict()["bbox_predictor.layers.2.weight"]
    assert 0 < (kept - start.state_dict()["bbox_predictor.layers.2.weight"]).abs().max() < 0.1  # it did start there
    assert len(yolo9000.detect(torch.zeros(3, 64, 64, dtype=torch.uint8), weights=run.weights)) == 1


def test_the_same_loop_trains_scores_saves_and_loads_one(offered, tmp_path):
    options = {**TINY, "steps": 2, "test_scenes": 2, "batch": 2, "boxed_pictures": 4, "labelled_pictures": 4}
    name = "transformers/rtdetr_r18vd"
    run = yolo9000.train(joint=True, detector=name, out=tmp_path / "run", progress=False, **options)
    assert "unseen/fine_under_boxed/mAP50" in run.metrics
    photo = torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8)
    (found,) = yolo9000.detect(photo, weights=run.weights, threshold=0.0, tree_threshold=0.0)
    assert len(found) > 0
    assert all(found.tree.path(label) == path for label, path in zip(found.labels.tolist(), found.paths, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_dict_round_trip_gives_the_same_detections(kind):
    ours, other = tiny(kind, TREE), tiny(kind, TREE, seed=5)
    state = ours.state_dict()
    assert len({value.data_ptr() for value in state.values() if value.numel()}) == sum(
        value.numel() > 0 for value in state.values()
    )  # each has storage of its own, as safetensors wants it
    other.load_state_dict(state)
    for one in (ours, other):
        one.eval().threshold = 0.0
    assert all(torch.equal(a["scores"], b["scores"]) for a, b in zip(ours(IMAGES), other(IMAGES), strict=True))


def test_boxes_are_scored_for_nodes_without_descent():
    ours = tiny("detr", TREE).eval()
    for boxes, objectness, probs in ours.score_nodes(IMAGES, [0, 2, 3], 0.0):
        assert len(boxes) == len(objectness) == len(probs) == 12
        torch.testing.assert_close(probs[:, 1] + probs[:, 2], probs[:, 0])


# ---------------------------------------------------------------------- odd inputs


@pytest.mark.parametrize("kind", KINDS)
def test_odd_images_are_taken_and_padding_is_not_seen(kind):
    ours = tiny(kind, TREE).eval()
    ours.threshold = 0.0
    images = [torch.rand(3, 40, 100), torch.rand(3, 1500, 1000), torch.rand(3, 1, 1)]
    found = ours(images)
    for image, one in zip(images, found, strict=True):
        height, width = image.shape[1:]
        assert (one["boxes"] >= 0).all()
        assert (one["boxes"] <= torch.tensor([width, height, width, height]) + 1e-3).all()
    if ours.masked:
        (alone,) = ours(images[1:2])  # beside the wide one it was padded
        torch.testing.assert_close(alone["scores"], found[1]["scores"], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("images", "targets", "told"),
    [
        ([], [], "no images"),
        (IMAGES[:1], None, "no targets"),
        (IMAGES[:1], [{"labels": torch.tensor([7])}], "nodes are 0 to 6"),
        (IMAGES[:1], [{"boxes": torch.tensor([[9.0, 9, 9, 20]]), "labels": torch.tensor([1])}], "right > left"),
    ],
)
def test_wrong_input_is_named(images, targets, told):
    with pytest.raises(WordTreeError, match=told):
        tiny("detr", TREE).train()(images, targets)


def test_wrong_models_columns_and_options_are_named():
    with pytest.raises(WordTreeError, match="a tree on a Linear"):
        attach(nn.Linear(2, 2), TREE)
    with pytest.raises(WordTreeError, match="2 columns for a model of 4 classes"):
        attach(own("rt_detr", 4), TREE, ["dog", "cat"])
    with pytest.raises(WordTreeError, match="none is an id of"):
        attach(own("rt_detr", 2), TREE, ["hund", "katze"])
    with pytest.raises(WordTreeError, match="no transformers detector 'detr'; known: detr-resnet-50"):
        build("detr", TREE)
    with pytest.raises(WordTreeError, match="no option of detr-resnet-50 'queries'; did you mean 'num_queries'"):
        build("detr-resnet-50", TREE, queries=3)


def test_without_transformers_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(wordtree_transformers, "find_spec", lambda name: None)
    with pytest.raises(WordTreeError, match="pip install transformers scipy"):
        wordtree_transformers.build("detr-resnet-50", TREE)


# ---------------------------------------------------------------------- the record

# parameters; published are DETR 41, Conditional and DAB-DETR 44, Deformable DETR 40, RT-DETR 20 and 42, D-FINE-L 31
MILLIONS = {
    "detr-resnet-50": 41.5, "detr-resnet-101": 60.4, "conditional-detr-resnet-50": 43.4, "dab-detr-resnet-50": 43.6,
    "deformable-detr": 40.0, "rtdetr_r18vd": 20.1, "rtdetr_r50vd": 42.7, "rtdetr_v2_r18vd": 20.1,
    "rtdetr_v2_r50vd": 42.7, "dfine-large": 31.1, "yolos-tiny": 6.5,
}  # fmt: skip


@pytest.mark.parametrize("name", SUMMARIES)
def test_each_name_is_the_model_that_it_says(name):
    kind, options = CONFIGS[name]
    with torch.device("meta"):
        model = AutoModelForObjectDetection.from_config(
            transformers.AutoConfig.for_model(kind, num_labels=1, **options)
        )
    assert sum(one.numel() for one in model.parameters()) / 1e6 == pytest.approx(MILLIONS[name], abs=0.06)


def test_the_records_come_in_by_the_entry_point():
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["wordtree"]
    loaded = plugins.load([EntryPoint("transformers", table["transformers"], "wordtree")])
    offered = loaded.collect("register_detectors", "detector", plugins.Detector)
    assert (
        set(offered) == {f"transformers/{name}" for name in SUMMARIES} == {f"transformers/{name}" for name in CONFIGS}
    )
    assert set(NAMES.values()) <= set(SUMMARIES)
    model = offered["transformers/detr-resnet-50"].build(TREE, size=64, **OPTIONS["detr"])
    assert model.tree is TREE


def test_the_plug_in_is_listed_without_torch_or_transformers():
    loaded = "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    code = f"import sys, wordtree_transformers as p; p.register_detectors(); {loaded}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["__init__", "detector", "zoo"])
def test_the_examples_of_the_plug_ins_docstrings_run(name):
    module = importlib.import_module(f"wordtree_transformers.{name}" if name != "__init__" else "wordtree_transformers")
    result = doctest.testmod(module, extraglobs={"torch": torch, "WordTree": WordTree})
    assert result.failed == 0


# ---------------------------------------------------------------------- the seams

SEAMS = {
    "loss_for_object_detection.ForObjectDetectionLoss": (
        *("logits", "labels", "device", "pred_boxes", "config", "outputs_class", "outputs_coord", "kwargs"),
    ),
    "loss_deformable_detr.DeformableDetrForObjectDetectionLoss": (
        *("logits", "labels", "device", "pred_boxes", "config", "outputs_class", "outputs_coord", "kwargs"),
    ),
    "loss_rt_detr.RTDetrForObjectDetectionLoss": (
        *("logits", "labels", "device", "pred_boxes", "config", "outputs_class", "outputs_coord"),
        *("enc_topk_logits", "enc_topk_bboxes", "denoising_meta_values", "kwargs"),
    ),
    "loss_d_fine.DFineForObjectDetectionLoss": (
        *("logits", "labels", "device", "pred_boxes", "config", "outputs_class", "outputs_coord"),
        *("enc_topk_logits", "enc_topk_bboxes", "denoising_meta_values", "predicted_corners"),
        *("initial_reference_points", "kwargs"),
    ),
    "loss_for_object_detection.HungarianMatcher": ("class_cost", "bbox_cost", "giou_cost"),
    "loss_for_object_detection.HungarianMatcher.forward": ("self", "outputs", "targets"),
    "loss_deformable_detr.DeformableDetrHungarianMatcher": ("class_cost", "bbox_cost", "giou_cost"),
    "loss_deformable_detr.DeformableDetrHungarianMatcher.forward": ("self", "outputs", "targets"),
    "loss_rt_detr.RTDetrHungarianMatcher": ("config",),
    "loss_rt_detr.RTDetrHungarianMatcher.forward": ("self", "outputs", "targets"),
}


@pytest.mark.parametrize("seam", SEAMS)
def test_each_seam_of_transformers_is_where_it_was(seam):
    module, *names = seam.split(".")
    found = importlib.import_module(f"transformers.loss.{module}")
    for name in names:
        assert hasattr(found, name), f"transformers {transformers.__version__} has no {seam}"
        found = getattr(found, name)
    assert tuple(inspect.signature(found).parameters) == SEAMS[seam], f"transformers {transformers.__version__}: {seam}"


def test_a_models_loss_can_be_stood_in_for():
    assert isinstance(transformers.PreTrainedModel.loss_function, property)
    assert transformers.PreTrainedModel.loss_function.fset is not None
    assert all(name in inspect.signature(loss).parameters for loss in RULES for name in ("logits", "outputs_class"))
    assert set(CLASSES) | set(CLASSES.values()) <= set(inspect.signature(list(RULES)[-1]).parameters)


@pytest.mark.parametrize("kind", KINDS)
def test_each_part_of_a_model_is_where_it_was(kind):
    model = tiny(kind, TREE).model
    assert model.loss_function in RULES
    out = model(torch.rand(1, 3, 64, 64))
    for part in ("logits", "pred_boxes", "last_hidden_state"):
        assert part in out, f"transformers {transformers.__version__}: {kind} gives no {part}"
    assert {"num_labels", "id2label", "model_type"} <= set(dir(model.config))


PAGE = (ROOT / "docs" / "transformers.md").read_text()


def test_the_code_of_the_page_runs():
    code = re.findall(r"tests/test_transformers.py runs it[^\n]*\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(code) == 2
    added = None if "transformers/rtdetr_r18vd" in plugins.detectors() else plugins.register(wordtree_transformers)
    try:
        exec(compile("\n".join(code), "transformers.md", "exec"), {})
    finally:
        if added:
            plugins.unregister(added)


# what another model breaks at: docs/transformers.md says it of each, with file and function
OTHERS = ("lw_detr", "rf_detr", "deimv2", "grounding_dino", "mm_grounding_dino", "owlvit", "owlv2", "omdet_turbo")


def test_the_page_says_of_every_other_detector_where_it_breaks():
    folder = Path(transformers.__file__).parent / "models"
    made = {file.parent.name for file in folder.glob("*/modeling_*.py") if "ForObjectDetection(" in file.read_text()}
    named = {kind.replace("-", "_") for kind in KINDS} | set(OTHERS) | {"auto"}
    rest = {name for name in made - named if not name.startswith("pp_")}
    assert rest <= {"table_transformer", *OTHERS}
    for name in (*OTHERS, "table_transformer", "pp_doclayout"):
        assert name in PAGE, name
