"""The networks: as large as published, and the numbers that the original program computes with them."""

from pathlib import Path

import oracle
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from oracle import needs_oracle
from torch import Tensor, nn

from wordtree import WordTree, WordTreeError
from yolo9000 import models
from yolo9000.batchnorm import set_batchnorm
from yolo9000.cfg import Cfg
from yolo9000.darknet19 import MaxPool, darknet_reorg
from yolo9000.detector import Detector
from yolo9000.network import CfgTrunk
from yolo9000.tables import cfg_of, summary
from yolo9000.weights import load_weights, save_weights

CFGS = oracle.FOLDER / "cfg"


def nodes(count: int) -> WordTree:
    """A tree of so many nodes, in two levels."""
    return WordTree([str(node) for node in range(count)], [-1] * min(count, 100) + [0] * (count - 100))


NETWORKS = {  # the function that makes each, and its cfg
    "darknet19": (lambda size: models.darknet19(size=size), "darknet19"),
    "darknet9000": (lambda size: models.darknet19(nodes(9418), size=size), "darknet9000"),
    "yolov2-voc": (lambda size: models.yolov2(size=size), "yolov2-voc"),
    "yolov2": (lambda size: models.yolov2(80, "coco-2017", size), "yolov2"),
    "yolo-voc.2.0": (lambda size: models.yolov2(size=size, squeeze=0), "yolo-voc_2016"),
    "yolo.2.0": (lambda size: models.yolov2(80, "coco-2016", size, squeeze=0), "yolo_2016"),
    "yolov2-tiny-voc": (lambda size: models.yolov2_tiny(size=size), "yolov2-tiny-voc"),
    "yolov2-tiny": (lambda size: models.yolov2_tiny(80, "coco-2017", size, last=512), "yolov2-tiny"),
    "yolo9000": (lambda size: models.yolo9000(nodes(9418), size=size), "yolo9000"),
}
TABLE = [  # input, convolutions, output, learnable, bytes of the file, BFLOPs
    ("darknet19", 224, 19, (1, 1, 1000), 20_842_376, 83_427_120, 5.582),
    ("darknet19", 256, 19, (1, 1, 1000), 20_842_376, 83_427_120, 7.291),
    ("darknet19", 448, 19, (1, 1, 1000), 20_842_376, 83_427_120, 22.328),
    ("darknet9000", 448, 19, (1, 1, 9418), 29_470_826, 117_940_920, 25.707),
    ("yolov2-voc", 288, 23, (9, 9, 125), 50_655_389, 202_704_260, 14.07),
    ("yolov2-voc", 352, 23, (11, 11, 125), 50_655_389, 202_704_260, 21.02),
    ("yolov2-voc", 416, 23, (13, 13, 125), 50_655_389, 202_704_260, 29.36),
    ("yolov2-voc", 480, 23, (15, 15, 125), 50_655_389, 202_704_260, 39.09),
    ("yolov2-voc", 544, 23, (17, 17, 125), 50_655_389, 202_704_260, 50.21),
    ("yolov2", 416, 23, (13, 13, 425), 50_962_889, 203_934_260, 29.46),
    ("yolov2", 608, 23, (19, 19, 425), 50_962_889, 203_934_260, 62.94),
    ("yolo-voc.2.0", 416, 22, (13, 13, 125), 67_137_565, 268_632_452, 34.90),
    ("yolo-voc.2.0", 544, 22, (17, 17, 125), 67_137_565, 268_632_452, 59.68),
    ("yolo.2.0", 416, 22, (13, 13, 425), 67_445_065, 269_862_452, 35.00),
    ("yolo.2.0", 608, 22, (19, 19, 425), 67_445_065, 269_862_452, 74.77),
    ("yolov2-tiny-voc", 416, 9, (13, 13, 125), 15_861_773, 63_471_556, 6.971),
    ("yolov2-tiny", 416, 9, (13, 13, 425), 11_232_057, 44_948_596, 5.406),
    ("yolo9000", 416, 19, (13, 13, 28269), 48_793_101, 195_230_020, 28.69),
    ("yolo9000", 448, 19, (14, 14, 28269), 48_793_101, 195_230_020, 33.27),
    ("yolo9000", 544, 19, (17, 17, 28269), 48_793_101, 195_230_020, 49.06),
    ("yolo9000", 608, 19, (19, 19, 28269), 48_793_101, 195_230_020, 61.29),
]


@pytest.mark.parametrize(
    ("name", "size", "convolutions", "output", "learnable", "file_bytes", "giga"),
    TABLE,
    ids=[f"{row[0]}-{row[1]}" for row in TABLE],
)
def test_each_network_is_the_published_one(name, size, convolutions, output, learnable, file_bytes, giga):
    with torch.device("meta"):
        model = NETWORKS[name][0](size)
    table = summary(model)
    assert table.output == output
    assert sum(layer.kind == "convolutional" for layer in table.layers) == convolutions
    assert (table.learnable, table.file_bytes) == (learnable, file_bytes)
    assert (table.file_floats, summary(model, 2 * size).flops) == ((file_bytes - 16) // 4, 4 * table.flops)
    digits = len(str(giga).split(".")[1])
    assert round(table.flops / 1e9, digits) == giga
    assert sum(parameter.numel() for parameter in model.parameters()) == learnable


@pytest.mark.parametrize("name", NETWORKS)
def test_the_table_is_what_the_modules_do(name):
    with torch.device("meta"):
        model = NETWORKS[name][0](416)
    seen: list[tuple[int, ...]] = []
    flops = []

    def note(module: nn.Module, _: tuple[Tensor], out: Tensor) -> None:
        seen.append(tuple(out.shape[1:]))
        if isinstance(module, nn.Conv2d):
            flops.append(2 * module.weight.numel() * out.shape[2] * out.shape[3])

    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module is not getattr(getattr(model, "head", None), "boxes", None):
            module.register_forward_hook(note)
    whole = model.raw(torch.zeros(1, 3, 416, 416, device="meta"))
    table = summary(model, 416)
    *convolutions, last = [layer for layer in table.layers if layer.kind == "convolutional"]
    assert sorted(seen) == sorted((layer.channels, layer.height, layer.width) for layer in convolutions)
    assert sum(flops) == table.flops - last.flops
    width, height, channels = table.output
    assert whole.shape == ((1, channels) if isinstance(model, models.TreeClassifier) else (1, channels, height, width))


@needs_oracle
@pytest.mark.parametrize("name", NETWORKS)
def test_the_cfg_of_a_function_is_darknets(name):
    make, cfg = NETWORKS[name]
    theirs = Cfg.read(CFGS / f"{cfg}.cfg")
    model = make(theirs.size[0]) if name != "yolo9000" else models.yolo9000(oracle.tree_9418(), size=theirs.size[0])
    ours = Cfg(cfg_of(model))

    def shapes(cfg: Cfg) -> list[tuple[object, ...]]:
        layers = [layer for layer in cfg.layers() if layer.kind != "cost"]
        return [tuple(vars(layer)[key] for key in vars(layer) if key != "section") + (layer.kind,) for layer in layers]

    assert shapes(ours) == shapes(theirs)
    if theirs.head.kind == "region":
        assert ours.head.numbers("anchors") == theirs.head.numbers("anchors")


def test_a_table_is_printed_with_its_sums():
    with torch.device("meta"):
        text = str(summary(models.yolov2()))
    lines = text.splitlines()
    assert len(lines) == 34
    assert lines[1].split() == ["0", "convolutional", "3", "/", "1", "416", "x", "416", "x", "32", "928", "0.299"]
    assert lines[-1] == "50,655,389 learnable, 50,676,061 floats in a file of 202,704,260 bytes, 29.360 BFLOPs"


def test_a_network_that_darknet_has_not_is_named():
    model = models.yolo9000(["cat", "dog"], size=32, widths=(4, 8), counts=(1, 1))
    model.neck = nn.Sequential(nn.Dropout2d())
    with pytest.raises(WordTreeError, match="Dropout2d in the network"):
        summary(model)
    with pytest.raises(WordTreeError, match="a Linear; give a detector or a classifier"):
        cfg_of(nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: models.yolov2(anchors="voc-2018"), ["no anchors 'voc-2018'", "voc-2017"]),
        (lambda: models.yolov2(size=400), ["400 pixels", "multiples of 32"]),
        (lambda: models.build({"network": "yolov3"}, nodes(120)), ["no network 'yolov3'", "yolov2"]),
    ],
)
def test_what_no_network_can_be_is_refused(call, parts):
    with pytest.raises(WordTreeError) as caught, torch.device("meta"):
        call()
    for part in parts:
        assert part in str(caught.value)


# ---------------------------------------------------------------------- the original program's numbers

# README of the reference values: they are within 5e-5 of a float64 network; plain float32 lands within 1e-3
TOLERANCE = 1e-3


def whole(cfg: str, weights: Path) -> Detector:
    model = models.from_cfg(CFGS / f"{cfg}.cfg").eval()
    load_weights(model, weights)
    set_batchnorm(model, "darknet")
    return model


def forward(model, image) -> Tensor:
    with torch.inference_mode():
        return model.raw(torch.from_numpy(image)[None])[0]


@needs_oracle
@pytest.mark.parametrize(
    ("case", "weights"),
    [
        ("yolov2-tiny-voc", "yolov2-tiny-voc"),
        ("yolov2-voc", "yolov2-voc"),
        ("yolo_2016", "yolo_2016"),
        ("yolo9000_96", "yolo9000"),
        ("yolo9000_416", "yolo9000"),
        ("yolo9000_544", "yolo9000"),
    ],
)
def test_a_cfg_and_its_weights_give_darknets_numbers(case, weights, darknet_weights):
    expected = oracle.values(f"infer_{case}")
    model = whole(case if (CFGS / f"{case}.cfg").is_file() else weights, darknet_weights(weights))
    outputs = {}
    for number, layer in enumerate(model.trunk.layers):
        layer.register_forward_hook(lambda _, __, out, number=number: outputs.__setitem__(number, out[0].flatten()))
    raw = forward(model, expected["input"])
    anchors = len(model.head.anchors)
    split = raw.view(anchors, -1, *raw.shape[1:])
    if "rin" in expected:
        torch.testing.assert_close(raw, torch.from_numpy(expected["rin"]).view_as(raw), rtol=0, atol=TOLERANCE)
    else:
        torch.testing.assert_close(split[:, :5], torch.from_numpy(expected["rin_xywho"]), rtol=0, atol=TOLERANCE)
        anchor, row, column = torch.from_numpy(expected["sel_anchor_row_col"]).long().T
        chosen = split.movedim(1, -1)[anchor, row, column, 5:]
        torch.testing.assert_close(chosen, torch.from_numpy(expected["sel_logits"]), rtol=0, atol=TOLERANCE)
    routed = model.trunk.routes.keys()
    for number in outputs.keys() - routed:  # every layer, so that a fault is found where it begins
        samples = outputs[number][torch.from_numpy(expected["layer_sample_idx"][number]).long()]
        reference = torch.from_numpy(expected["layer_samples"][number])
        torch.testing.assert_close(samples, reference, rtol=0, atol=TOLERANCE, msg=f"layer {number}")
        assert outputs[number].mean().item() == pytest.approx(expected["layer_stats"][number][0], abs=TOLERANCE)


@needs_oracle
def test_the_classifiers_logits_are_darknets(darknet_weights):
    expected = oracle.values("infer_darknet19")
    model = whole("darknet19", darknet_weights("darknet19"))
    logits = forward(model, expected["input"])
    torch.testing.assert_close(logits, torch.from_numpy(expected["logits"]).flatten(), rtol=0, atol=1e-4)
    with torch.inference_mode():
        probabilities = model(torch.from_numpy(expected["input"])[None])[0].exp()
    torch.testing.assert_close(probabilities, torch.from_numpy(expected["prob"]).flatten(), rtol=1e-4, atol=1e-7)


@needs_oracle
@pytest.mark.parametrize(
    ("case", "weights"), [("yolov2-tiny-voc",) * 2, ("yolov2-voc",) * 2, ("yolo9000_96", "yolo9000")]
)
def test_the_last_releases_input_gives_the_last_releases_numbers(case, weights, darknet_weights):
    expected = oracle.values(f"infer_master_letterbox_{case}")
    raw = forward(whole(case, darknet_weights(weights)), expected["input"])
    reference = torch.from_numpy(expected["rin_fp32"]).view_as(raw)  # of plain float32, noise and all
    torch.testing.assert_close(raw, reference, rtol=0, atol=1e-3)


@needs_oracle
@pytest.mark.parametrize(("case", "weights"), [("yolov2-voc",) * 2, ("yolo9000_96", "yolo9000")])
def test_with_torchs_batchnorm_the_numbers_are_those_of_the_fork_that_has_its_epsilon(case, weights, darknet_weights):
    expected = oracle.values(f"infer_alexeyab_{case}")
    model = whole(case, darknet_weights(weights))
    set_batchnorm(model, "torch")
    image = expected["input"] if "input" in expected else oracle.values(f"infer_{case}")["input"]
    raw = forward(model, image)
    torch.testing.assert_close(raw, torch.from_numpy(expected["rin_fp32"]).view_as(raw), rtol=0, atol=2e-3)


@needs_oracle
@pytest.mark.parametrize(
    ("function", "cfg"),
    [
        (lambda: models.yolov2(), "yolov2-voc"),
        (lambda: models.yolov2_tiny(), "yolov2-tiny-voc"),
        (lambda: models.yolo9000(oracle.tree_9418()), "yolo9000"),
        (lambda: models.darknet19(), "darknet19"),
        (lambda: models.yolov2(80, "coco-2016", squeeze=0), "yolo_2016"),
    ],
)
def test_a_function_and_a_cfg_are_one_network(function, cfg, darknet_weights):
    weights = darknet_weights(cfg)
    ours, theirs = function().eval(), models.from_cfg(CFGS / f"{cfg}.cfg").eval()
    load_weights(ours, weights)
    load_weights(theirs, weights)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours.raw(image), theirs.raw(image))


def test_the_second_form_of_yolov2_is_its_cfg_too(tmp_path):
    torch.manual_seed(0)
    ours = models.yolov2(3, "coco-2016", size=64, squeeze=0).eval()
    file = save_weights(ours, tmp_path / "yolo.weights")
    theirs = models.from_cfg(Cfg(cfg_of(ours))).eval()
    load_weights(theirs, file)
    image = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours.raw(image), theirs.raw(image))
    torch.testing.assert_close(ours.head.anchors, theirs.head.anchors)


# ---------------------------------------------------------------------- layers


def pooled(image: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """Pooling by its definition, one window at a time."""
    channels, height, width = image.shape
    out = torch.empty(channels, (height + 2 * padding) // stride, (width + 2 * padding) // stride)
    for y in range(out.shape[1]):
        for x in range(out.shape[2]):
            top, left = y * stride - padding, x * stride - padding
            window = image[:, max(top, 0) : top + size, max(left, 0) : left + size]
            out[:, y, x] = window.amax((1, 2))
    return out


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(2, 1, 0), (2, 2, 0), (3, 2, 1), (3, 1, 0), (2, 2, 1), (5, 3, 0)]
)
def test_pooling_is_darknets(size, stride, padding):
    image = torch.randn(2, 3, 11, 8, generator=torch.Generator().manual_seed(0)) - 3
    found = MaxPool(size, stride, padding)(image)
    assert torch.equal(found, torch.stack([pooled(one, size, stride, padding) for one in image]))


@needs_oracle
def test_pooling_gives_the_original_programs_values():
    case = {key: torch.from_numpy(value) for key, value in oracle.values("util").items() if key.startswith("maxpool")}
    assert torch.equal(MaxPool(2, 1)(case["maxpool_in"][None])[0], case["maxpool_s2_st1"])
    assert torch.equal(MaxPool(2, 2)(case["maxpool_in"][None])[0], case["maxpool_s2_st2_old"])


MICRO = """[net]
height=32
width=32
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=relu
[dropout]
probability=.5
[convolutional]
filters=8
size=3
padding=1
activation=logistic
[maxpool]
size=2
stride=2
[convolutional]
batch_normalize=1
filters=5
size=1
activation=linear
[route]
layers=-3
[reorg]
stride=2
[route]
layers=-1, 4
[maxpool]
size=2
stride=1
[convolutional]
filters=14
activation=linear
[region]
anchors=1,1,2,2
classes=2
num=2
softmax=1
"""


def test_a_cfgs_layers_are_computed_one_after_another():
    torch.manual_seed(0)
    model = models.from_cfg(Cfg(MICRO)).eval()
    first, _, second, _, third, *_ = model.trunk.layers
    image = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        x = nn.functional.relu(first[1](first[0](image)))
        two = second[0](x).sigmoid()
        four = third[1](third[0](nn.functional.max_pool2d(two, 2)))
        joined = torch.cat((darknet_reorg(two), four), 1)
        expected = model.head.dense(MaxPool(2, 1)(joined))
        assert torch.equal(model.raw(image), expected)
    assert (model.size, model.trunk.stride, model.trunk.channels) == (32, 4, 37)
    assert model.head.anchors.tolist() == [[1, 1], [2, 2]]
    assert model.raw(torch.rand(1, 3, 64, 32)).shape == (1, 14, 16, 8)


CHOICES = [
    "[conv]\nfilters={n}\nsize=3\nstride={s}\npad=1\nactivation=leaky\nbatch_normalize=1\n",
    "[conv]\nfilters={n}\nsize=1\nactivation=relu\n",
    "[maxpool]\nsize=2\nstride={s}\n",
    "[maxpool]\nsize=3\nstride=2\n",
    "[reorg]\nstride=2\n",
    "[route]\nlayers=-{n}\n",
    "[route]\nlayers=-1,-{n}\n",
]


@given(
    st.lists(st.tuples(st.sampled_from(CHOICES), st.integers(1, 8), st.integers(1, 2)), min_size=1, max_size=8),
    st.integers(6, 24),
)
def test_every_layers_output_is_as_large_as_its_cfg_says(choices, side):
    text = f"[net]\nheight={side}\nwidth={side + 2}\n" + "".join(t.format(n=n, s=s) for t, n, s in choices)
    try:
        layers = Cfg(text).layers()
    except WordTreeError:
        assume(False)
    trunk = CfgTrunk(layers, side + 2).eval()
    outputs: dict[int, Tensor] = {}
    for number, layer in enumerate(trunk.layers):
        layer.register_forward_hook(lambda _, __, out, number=number: outputs.__setitem__(number, out))
    with torch.inference_mode():
        last = trunk(torch.rand(1, 3, side, side + 2))
    for number, out in outputs.items():
        assert out.shape[1:] == (layers[number].channels, layers[number].height, layers[number].width)
    assert last.shape[1:] == (layers[-1].channels, layers[-1].height, layers[-1].width)


def test_a_cfgs_network_trains_and_detects_as_any_other():
    torch.manual_seed(0)
    model = models.from_cfg(Cfg(MICRO), names=["cat", "dog"])
    target = {"boxes": torch.tensor([[2.0, 3.0, 20.0, 30.0]]), "labels": torch.tensor([1])}
    losses = model([torch.rand(3, 40, 30)], [target])
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval().threshold = 0.0
    (found,) = model([torch.rand(3, 40, 30)])
    assert len(found["boxes"])
    assert model.tree.names == ("cat", "dog")


CLASSIFIER = MICRO[: MICRO.index("[convolutional]\nfilters=14")] + "[conv]\nfilters=3\nactivation=linear\n"


def test_a_classifiers_mean_stands_before_its_last_layer_and_gives_the_same():
    torch.manual_seed(0)
    model = models.from_cfg(Cfg(CLASSIFIER + "[avgpool]\n[softmax]\n[cost]\ntype=sse\n")).eval()
    image = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        maps = nn.functional.conv2d(
            model.trunk(image), model.classes.weight[0, :, :, None, None], model.classes.bias[0]
        )
        torch.testing.assert_close(model.raw(image), maps.mean((2, 3)))
        torch.testing.assert_close(model(image), maps.mean((2, 3)).log_softmax(1))


END = MICRO[MICRO.index("[convolutional]\nfilters=14") :]
HEADLESS = MICRO[: MICRO.index("[region]")]


@pytest.mark.filterwarnings("ignore:.*says nothing")
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (HEADLESS, ["line 36", "ends in [convolutional]", "[region]"]),
        (CLASSIFIER + "[softmax]\n", ["[softmax] without [avgpool]"]),
        (
            MICRO.replace("filters=14\nactivation=linear", "filters=14\nactivation=leaky"),
            ["line 36", "leaky", "linear"],
        ),
        (MICRO.replace("filters=14", "filters=14\nbatch_normalize=1"), ["line 36", "without batch_normalize"]),
        (MICRO.replace("filters=14", "filters=14\nsize=3\npad=1"), ["line 36", "of size 3", "of size 1"]),
        (MICRO.replace("width=32", "width=64"), ["64 x 32 pixels", "squares of 4"]),
        ("[net]\nheight=33\nwidth=33\n[conv]\nsize=3\nstride=2\npad=1\n" + END, ["33 x 33 pixels", "squares of"]),
        (CLASSIFIER + "[avgpool]\n[cost]\n[softmax]\n[conv]\nfilters=3\n", ["[softmax] is layer", "the last"]),
        (HEADLESS.replace("[dropout]", "[avgpool]"), []),
    ],
)
def test_a_cfg_that_is_no_detector_and_no_classifier_is_refused_by_line(text, parts):
    with pytest.raises(WordTreeError) as caught:
        models.from_cfg(Cfg(text, "my.cfg"))
    for part in ["my.cfg", *parts]:
        assert part in str(caught.value)


def test_a_region_that_says_no_softmax_is_warned_of():
    with pytest.warns(UserWarning, match="no softmax=1"):
        models.from_cfg(Cfg(MICRO.replace("softmax=1\n", "")))


def test_a_tree_or_names_of_another_length_are_refused():
    for fault, options in (("2 classes, and 3 given", {"tree": nodes(3)}), ("names for 2", {"names": ["a"]})):
        with pytest.raises(WordTreeError, match=fault):
            models.from_cfg(Cfg(MICRO), **options)
