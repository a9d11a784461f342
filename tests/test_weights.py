"""Darknet's .weights: read and written to the byte, part by part, and each way in which a file can be wrong."""

import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import needs_oracle
from torch import nn

import yolo9000
from wordtree import WordTree, WordTreeError
from yolo9000 import models, weights
from yolo9000.batchnorm import BatchNorm
from yolo9000.cfg import Cfg
from yolo9000.tables import summary
from yolo9000.weights import Header, Known, load_weights, read_header, save_weights, start_from_classifier

PETS = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
WIDTHS, COUNTS = (4, 6, 8), (1, 1, 3)


def detector(seed: int = 0, **options) -> models.Detector:
    """A small YOLO9000; its layers: 0 conv, 1 pool, 2 conv, 3 pool, 4 to 6 conv, 7 conv of the head, 8 region."""
    torch.manual_seed(seed)
    return lively(models.yolo9000(PETS, [[1, 1], [2, 3]], 32, WIDTHS, COUNTS, **options))


def lively(model):
    for norm in (module for module in model.modules() if isinstance(module, BatchNorm)):
        for values in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(values)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return model.eval()


def same(one, other) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(mine[key], theirs[key]) for key in mine if not key.endswith("tracked"))


NETWORKS = {
    "yolo9000": detector,
    "yolo9000 with a neck": lambda seed=0: detector(seed, neck=(6, 5)),
    "yolov2": lambda seed=0: lively(models.yolov2(3, size=64)),
    "yolov2 of 2016": lambda seed=0: lively(models.yolov2(3, size=64, squeeze=0)),
    "tiny": lambda seed=0: lively(models.yolov2_tiny(3, size=64, last=16)),
    "classifier": lambda seed=0: lively(models.darknet19(PETS, 64, WIDTHS, COUNTS)),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_what_is_written_is_read_back(make, tmp_path):
    torch.manual_seed(0)
    model = make()
    path = save_weights(model, tmp_path / "net.weights")
    assert path.stat().st_size == summary(model).file_bytes + 4  # a header of 0.2
    torch.manual_seed(1)
    other = make(seed=1)
    assert not same(model, other)
    assert load_weights(other, path) == Header(0, 2, 0, 0) == other.origin
    assert same(model, other)
    save_weights(other, tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == path.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["again.weights", "net.weights"]


def test_the_numbers_lie_as_darknet_lays_them(tmp_path):
    model = detector()
    path = save_weights(model, tmp_path / "net.weights", header=Header(0, 1, 0, 77))
    assert struct.unpack("<4i", path.read_bytes()[:16]) == (0, 1, 0, 77)
    values = iter(np.fromfile(path, "<f4", offset=16).tolist())

    def take(*shape: int) -> torch.Tensor:
        return torch.tensor([next(values) for _ in range(int(np.prod(shape)))]).view(shape)

    for conv, norm, _ in (module for module in model.modules() if isinstance(module, models.ConvBlock)):
        for held in (norm.bias, norm.weight, norm.running_mean, norm.running_var, conv.weight):
            assert torch.equal(take(*held.shape), held)
    bias, matrix = take(2, 9), take(2, 9, 8)  # anchor by anchor: x, y, w, h, objectness, classes
    assert torch.equal(bias[:, :5].flatten(), model.head.boxes.bias)
    assert torch.equal(bias[:, 5:], model.head.classes.bias)
    assert torch.equal(matrix[:, :5].reshape(10, 8, 1, 1), model.head.boxes.weight)
    assert torch.equal(matrix[:, 5:], model.head.classes.weight)
    assert next(values, None) is None


@pytest.mark.parametrize(
    "header", [Header(0, 1, 0, 5), Header(0, 0, 9, 2**31 - 1), Header(0, 2, 0, 2**40), Header(1, 0, 0, 3)]
)
def test_both_widths_of_the_header_are_read_and_written(header, tmp_path):
    model = detector()
    path = save_weights(model, tmp_path / "net.weights", header=header)
    assert read_header(path) == header
    assert path.stat().st_size - summary(model).file_floats * 4 == header.size == (16 if header[:2] < (0, 2) else 20)
    other = detector(1)
    load_weights(other, path)
    assert same(model, other)
    assert other.origin == header
    assert other.seen == header.seen


def test_a_count_too_large_for_the_old_header_is_refused(tmp_path):
    with pytest.raises(WordTreeError, match=r"5000000000 images seen do not fit a header of version 0\.1"):
        save_weights(detector(), tmp_path / "net.weights", header=Header(0, 1, 0, 5 * 10**9))
    with pytest.raises(FileNotFoundError, match="no folder"):
        save_weights(detector(), tmp_path / "none" / "net.weights")
    assert not list(tmp_path.iterdir())


def test_any_memory_format_and_precision_is_filled_and_written(tmp_path):
    model = detector()
    path = save_weights(model, tmp_path / "net.weights")
    last = load_into(detector(1).to(memory_format=torch.channels_last), path)
    assert same(last, model)
    assert save_weights(last, tmp_path / "last.weights").read_bytes() == path.read_bytes()
    half = load_into(detector(1).bfloat16(), path)
    assert same(half, detector().bfloat16())


def load_into(model, path, **options):
    load_weights(model, path, **options)
    return model


# ---------------------------------------------------------------------- parts of a file


def test_a_partial_file_holds_the_first_layers_and_no_images_seen(tmp_path):
    model = detector()
    model.origin, model.seen = Header(0, 1, 0, 640), 640
    part = save_weights(model, tmp_path / "net.conv.4", upto=4)  # layers 0 to 3: two convolutions
    assert read_header(part) == Header(0, 1, 0, 0)
    assert part.stat().st_size == 16 + 4 * sum(layer.floats for layer in summary(model).layers[:4])
    whole = save_weights(model, tmp_path / "net.weights")
    assert whole.read_bytes()[16 : part.stat().st_size] == part.read_bytes()[16:]
    for path in (part, whole):  # a whole file serves too
        other = detector(1)
        before = {key: value.clone() for key, value in other.state_dict().items()}
        load_weights(other, path, upto=4)
        assert other.origin is None
        for key, value in other.state_dict().items():
            read = key.startswith(("trunk.stages.0", "trunk.stages.1")) and not key.endswith("tracked")
            assert torch.equal(value, model.state_dict()[key] if read else before[key]), key


def test_darknet19s_first_23_layers_are_the_trunk(tmp_path):
    classifier = lively(models.darknet19(3, 64))
    part = save_weights(classifier, tmp_path / "darknet19_448.conv.23", upto=23)
    other = models.yolov2(3, size=64)
    load_weights(other, part, upto=23)
    assert same(other.trunk, classifier.trunk)


def test_a_part_without_a_convolution_is_a_header(tmp_path):
    model = models.from_cfg(
        Cfg(TEXT.replace("3\n[conv", "3\n[maxpool]\nstride=2\n[conv", 1).format(first="", second=""))
    )
    part = save_weights(model, tmp_path / "x.conv.1", upto=1)
    assert part.stat().st_size == 20
    assert load_weights(model, part, upto=1) == Header(0, 2, 0, 0)


@pytest.mark.parametrize("upto", [0, -1, 10])
def test_more_layers_than_there_are_are_refused(upto, tmp_path):
    with pytest.raises(WordTreeError, match=f"upto={upto} of a network of 9 layers; give 1 to 9"):
        save_weights(detector(), tmp_path / "x", upto=upto)


TEXT = """[net]
height=32
width=32
channels=3
[convolutional]
batch_normalize=1
filters=4
activation=leaky
{first}
[convolutional]
batch_normalize=1
filters=5
activation=leaky
{second}
[convolutional]
filters=9
activation=linear
[region]
anchors=1,1
classes=4
softmax=1
"""


def test_layers_that_a_cfg_does_not_load_are_not_in_the_file(tmp_path):
    plain = lively(models.from_cfg(Cfg(TEXT.format(first="", second=""))))
    whole = save_weights(plain, tmp_path / "net.weights", header=Header(0, 1, 0, 0))
    values = np.fromfile(whole, "<f4", offset=16)
    first, second = 4 * 4 + 12, 4 * 5 + 20
    head = whole.read_bytes()[:16]
    (tmp_path / "without.weights").write_bytes(head + values[first:].tobytes())
    model = models.from_cfg(Cfg(TEXT.format(first="dontload=1", second="")))
    load_weights(model, tmp_path / "without.weights")
    assert same(model.trunk.layers[1], plain.trunk.layers[1])
    assert not same(model.trunk.layers[0], plain.trunk.layers[0])
    kept = np.r_[values[: first + 5], values[first + 20 : first + second], values[first + second :]]
    (tmp_path / "scales.weights").write_bytes(head + kept.tobytes())
    model = models.from_cfg(Cfg(TEXT.format(first="", second="dontloadscales=1")))
    load_weights(model, tmp_path / "scales.weights")
    conv, norm, _ = model.trunk.layers[1]
    assert torch.equal(conv.weight, plain.trunk.layers[1][0].weight)
    assert torch.equal(norm.bias, plain.trunk.layers[1][1].bias)
    assert torch.equal(norm.weight, torch.ones(5))


# ---------------------------------------------------------------------- the head from a classifier


def test_a_detector_starts_from_a_tree_classifier_as_yolo9000_did(tmp_path):
    torch.manual_seed(0)
    classifier = lively(models.darknet19(PETS, 64, WIDTHS, COUNTS))
    path = save_weights(classifier, tmp_path / "darknet9000.weights", header=Header(0, 1, 0, 999))
    model = detector(1)
    assert start_from_classifier(model, path) == Header(0, 1, 0, 999)
    assert model.origin == Header(0, 1, 0, 0)
    assert same(model.trunk, classifier.trunk)
    for copy in range(2):
        assert torch.equal(model.head.classes.weight[copy], classifier.classes.weight[0])
        assert torch.equal(model.head.classes.bias[copy], classifier.classes.bias[0])
    rows = model.head.boxes.weight.view(2, 5, 8)
    assert torch.equal(rows[0], rows[1])  # the same in every anchor
    assert 0 < rows.abs().max() <= 0.1 * (2 / 8) ** 0.5
    assert not model.head.boxes.bias.any()
    again = detector(2)
    start_from_classifier(again, path)
    assert same(model, again)


def test_a_classifier_of_another_tree_or_a_detector_with_a_neck_is_refused(tmp_path):
    path = save_weights(lively(models.darknet19(3, 64, WIDTHS, COUNTS)), tmp_path / "flat.weights")
    with pytest.raises(WordTreeError, match=r"bytes, this network takes .* it ends in layer 7"):
        start_from_classifier(detector(), path)
    with pytest.raises(WordTreeError, match="layers between trunk and head"):
        start_from_classifier(detector(neck=(6,)), path)


# ---------------------------------------------------------------------- files that are wrong


def spoiled(kind: str, whole: bytes) -> bytes:
    at = {"weight": 16 + 4 * 30, "variance": 16 + 4 * 12}
    if kind in ("nan", "inf"):
        return whole[: at["weight"]] + struct.pack("<f", float(kind)) + whole[at["weight"] + 4 :]
    return {
        "page": b"\n<!DOCTYPE html>\n<html>" + b" " * 9000,
        "pointer": weights.POINTER + b"/v1\noid sha256:6a3d\nsize 195230020\n",
        "empty": b"",
        "header cut": whole[:12],
        "wide header cut": struct.pack("<3i", 0, 2, 0) + b"\0\0\0\0",
        "short": whole[:-4],
        "half a number": whole[:-2],
        "no layer": whole[:16],
        "whole layers": whole[: 16 + 4 * (4 * 4 + 4 * 27)],
        "trailing": whole + bytes(8),
        "transposed": struct.pack("<3i", 1000, 1001, 0) + whole[12:],
        "picture": b"\xff\xd8\xff\xe0" + bytes(99),
        "variance": whole[: at["variance"]] + struct.pack("<f", -0.5) + whole[at["variance"] + 4 :],
    }[kind]


EXPECTED = 16 + 4 * summary(detector()).file_floats


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("page", ["9,023 bytes", "is a web page, not weights", "give the file itself"]),
        ("pointer", ["Git-LFS pointer to a file of 195230020 bytes", "`git lfs pull`"]),
        ("empty", ["0 bytes", "shorter than a header of 16", "give a whole"]),
        ("header cut", ["12 bytes", "shorter than a header of 16"]),
        ("wide header cut", ["16 bytes", "shorter than its header of 20"]),
        (
            "short",
            [f"has {EXPECTED - 4:,} bytes", f"takes {EXPECTED:,}", "ends in layer 7, [convolutional] of 18 filters"],
        ),
        ("half a number", [f"has {EXPECTED - 2:,} bytes", "ends in layer 7", "give a whole file"]),
        ("no layer", ["has 16 bytes", "ends in layer 0, [convolutional] of 4 filters"]),
        ("whole layers", ["has 512 bytes", "whole layers up to 1", "upto=2 reads those"]),
        ("trailing", [f"takes {EXPECTED:,}", "8 too many", "give the cfg of this file"]),
        ("transposed", ["version 1000.1001", "transposed connected layers", "written by Darknet itself"]),
        ("picture", ["begins with version", "give a .weights file of Darknet's"]),
        ("nan", ["layer 0, [convolutional] of 4 filters", "weights that are NaN or infinite", "give a whole one"]),
        ("inf", ["layer 0", "NaN or infinite"]),
        ("variance", ["layer 0", "a variance of -0.5"]),
    ],
)
def test_a_file_that_is_wrong_is_named_and_changes_nothing(kind, parts, tmp_path):
    whole = save_weights(detector(), tmp_path / "whole.weights", header=Header(0, 1, 0, 0)).read_bytes()
    assert len(whole) == EXPECTED
    path = tmp_path / "net.weights"
    path.write_bytes(spoiled(kind, whole))
    model = detector(1)
    with pytest.raises(WordTreeError) as caught:
        load_weights(model, path)
    for part in ["net.weights", *parts]:
        assert part in str(caught.value)
    assert same(model, detector(1))
    assert model.origin is None


@settings(max_examples=40)
@given(st.integers(0, EXPECTED + 40))
def test_a_file_of_any_other_length_is_refused_and_changes_nothing(length):
    model, source = detector(1), detector()
    with tempfile.TemporaryDirectory() as folder:
        path = save_weights(source, Path(folder) / "net.weights", header=Header(0, 1, 0, 0))
        content = path.read_bytes() + bytes(40)
        path.write_bytes(content[:length])
        if length == EXPECTED:
            load_weights(model, path)
            assert same(model, source)
            return
        with pytest.raises(WordTreeError) as caught:
            load_weights(model, path)
    assert f"{length:,} bytes" in str(caught.value)
    assert same(model, detector(1))


def test_a_known_name_says_how_large_the_published_file_is(tmp_path):
    path = tmp_path / "yolo9000.weights"
    for content in (b"<html>", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(WordTreeError, match=r"published yolo9000\.weights has 195,230,020 bytes.* 6a3d93b9d0ff"):
            load_weights(detector(), path)


def test_a_known_file_of_other_content_is_warned_of(tmp_path, monkeypatch, recwarn):
    path = save_weights(detector(), tmp_path / "mine.weights", header=Header(0, 1, 0, 0))
    floats = summary(detector()).file_floats
    monkeypatch.setitem(weights.KNOWN, "mine.weights", Known(floats, "ab" * 32))
    with pytest.warns(UserWarning, match=r"published file's name and size, but other content .*published abababab"):
        weights.check_known(path)
    found = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    recwarn.clear()
    monkeypatch.setitem(weights.KNOWN, "mine.weights", Known(floats, found))
    weights.check_known(path)
    monkeypatch.setitem(weights.KNOWN, "mine.weights", Known(floats + 1, "ab" * 32))
    weights.check_known(path)  # another size is another network
    assert not recwarn.list


def test_the_known_sizes_are_those_of_the_networks():
    from yolo9000.loading import PUBLISHED

    with torch.device("meta"):
        for floats, published in PUBLISHED.items():
            assert summary(published.build(published.tree(), "")).file_floats == floats
    assert {known.floats for known in weights.KNOWN.values()} == PUBLISHED.keys()


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = save_weights(detector(), tmp_path / "net.weights")
    before = path.read_bytes()
    monkeypatch.setattr(torch, "cat", lambda *_: (_ for _ in ()).throw(OSError("no space left on device")))
    with pytest.raises(OSError, match="no space"):
        save_weights(detector(1), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["net.weights"]


def test_reading_holds_the_file_once(tmp_path):
    """The peak of a process that reads is that of one that builds the network, and the pages of the file."""
    model = models.yolo9000(
        WordTree([str(n) for n in range(1500)], [-1] * 1500), size=32, widths=(8, 2048), counts=(1, 1)
    )
    path = save_weights(model, tmp_path / "large.weights")
    size = path.stat().st_size
    assert size > 36e6
    code = f"""
import resource, sys, torch
from wordtree import WordTree
from yolo9000 import models
from yolo9000.weights import load_weights
model = models.yolo9000(WordTree([str(n) for n in range(1500)], [-1] * 1500), size=32, widths=(8, 2048), counts=(1, 1))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
load_weights(model, {str(path)!r})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / {size})
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 1.5


# ---------------------------------------------------------------------- yolo9000.load


@pytest.fixture
def files(tmp_path) -> Path:
    """A cfg in cfg/, its weights of a header before 0.2 beside, its tree in data/."""
    for folder in ("cfg", "data"):
        (tmp_path / folder).mkdir()
    PETS.save(tmp_path / "data" / "pets.tree")
    (tmp_path / "data" / "pets.names").write_text("Animal\nPlant\nDog\nCat\n")
    text = TEXT.format(first="", second="") + "tree=data/pets.tree\n"
    (tmp_path / "cfg" / "pets.cfg").write_text(text)
    torch.manual_seed(0)
    model = lively(models.from_cfg(tmp_path / "cfg" / "pets.cfg"))
    save_weights(model, tmp_path / "old.weights", header=Header(0, 1, 0, 640))
    save_weights(model, tmp_path / "new.weights", header=Header(0, 2, 0, 640))
    return tmp_path


def arithmetics(model) -> set[str]:
    return {module.arithmetic for module in model.modules() if isinstance(module, BatchNorm)}


@pytest.mark.parametrize(
    ("file", "mode", "arithmetic"),
    [
        ("old", "paper", "darknet"),
        ("new", "paper", "torch"),
        ("old", "darknet", "darknet"),
        ("new", "darknet", "darknet"),
        ("new", "darknet-2018", "darknet"),
    ],
)
def test_a_cfg_and_weights_are_loaded_in_each_mode(files, file, mode, arithmetic):
    model = yolo9000.load(files / f"{file}.weights", cfg=files / "cfg" / "pets.cfg", mode=mode)
    assert arithmetics(model) == {arithmetic}
    assert not model.training
    assert (model.tree, model.tree.names) == (PETS, ("Animal", "Plant", "Dog", "Cat"))
    assert (model.origin.seen, model.size) == (640, 32)
    assert (model.threshold, model.iou) == {"paper": (0.25, 0.45), "darknet": (0.24, 0.4)}.get(mode, (0.5, 0.45))
    assert model([torch.rand(3, 50, 40)])[0].keys() >= {"boxes", "labels", "scores"}


def test_a_tree_and_names_win_over_those_of_the_cfg(files):
    arguments = {"cfg": files / "cfg" / "pets.cfg"}
    other = WordTree(["a", "b", "c", "d"], [-1, -1, 1, 1])
    assert yolo9000.load(files / "old.weights", tree=other, **arguments).tree == other
    other.save(files / "other.json")
    assert yolo9000.load(files / "old.weights", tree=files / "other.json", **arguments).tree == other
    (files / "my.names").write_text("w\nx\ny\nz\n")
    (files / "my.data").write_text("names=my.names\n")
    for names in (files / "my.names", files / "my.data", ["w", "x", "y", "z"]):
        model = yolo9000.load(files / "old.weights", names=names, **arguments)
        assert (model.tree, model.tree.names) == (PETS, ("w", "x", "y", "z"))


@pytest.mark.parametrize(
    ("weights", "options", "parts"),
    [
        (None, {"cfg": "cfg/pets.cfg"}, ["and no weights", "from_cfg"]),
        ("cfg/pets.cfg", {}, ["given as weights", "cfg="]),
        ("cfg/pets.cfg", {"cfg": "cfg/pets.cfg"}, ["given as weights"]),
        ("gone.weights", {}, ["no weights", "gone.weights", "exists"]),
        ("old.weights", {}, ["no published network's", "give its cfg=", "195,230,020 (YOLO9000)"]),
        ("old.weights", {"cfg": "cfg/pets.cfg", "mode": "drknet"}, ["no mode 'drknet'", "'darknet'"]),
        ("old.weights", {"cfg": "cfg/pets.cfg", "names": ["a"]}, ["1 names for 4 classes"]),
        ("old.weights", {"cfg": "old.weights"}, ["given as a cfg"]),
        ("new.weights", {"cfg": "cfg/larger.cfg"}, ["this network takes", "ends in layer"]),
        ("own.safetensors", {"cfg": "cfg/pets.cfg"}, ["a file of our own", "leave them out"]),
        ("own.safetensors", {"names": ["a"]}, ["a file of our own"]),
        ("yolo9000.weights", {}, ["published yolo9000.weights has 195,230,020 bytes", "give its cfg="]),
    ],
)
def test_what_cannot_be_loaded_is_named(files, weights, options, parts):
    text = (files / "cfg" / "pets.cfg").read_text()
    (files / "cfg" / "larger.cfg").write_text(text.replace("filters=5", "filters=6"))
    (files / "yolo9000.weights").write_bytes((files / "old.weights").read_bytes())
    options = {key: files / value if key == "cfg" else value for key, value in options.items()}
    with pytest.raises(WordTreeError) as caught:
        yolo9000.load(None if weights is None else files / weights, **options)
    for part in parts:
        assert part in str(caught.value)


def sparse(path: Path, size: int) -> Path:
    """A file of zeros that takes no room: every number of it is sound, and a variance of 0 too."""
    with open(path, "wb") as file:
        file.write(struct.pack("<4i", 0, 1, 0, 0))
        file.truncate(size)
    return path


@pytest.mark.parametrize(
    ("name", "size", "options", "first", "classes", "pixels"),
    [
        ("a.weights", 63_471_556, {}, "aeroplane", 20, 416),
        ("b.backup", 44_948_600 - 4, {}, "person", 80, 416),
        ("darknet19_448.weights", 83_427_120, {}, "class_0", 1000, 448),
        ("darknet19.weights", 83_427_120, {"names": [f"n{node}" for node in range(1000)]}, "n0", 1000, 256),
        ("darknet9000.weights", 117_940_920, {}, "thing", 9418, 448),
    ],
)
def test_a_file_of_a_published_size_is_that_network(tmp_path, name, size, options, first, classes, pixels):
    model = yolo9000.load(sparse(tmp_path / name, size), **options)
    assert (model.tree.names[0], len(model.tree), model.size) == (first, classes, pixels)
    assert arithmetics(model) == {"darknet"}


def test_a_file_of_yolo9000s_size_is_yolo9000_on_its_own_tree(tmp_path):
    path = sparse(tmp_path / "y.weights", 195_230_020)
    model = yolo9000.load(path)
    assert model.tree == yolo9000.official_tree()
    assert (model.size, model.head.anchors.shape, arithmetics(model)) == (544, (3, 2), {"darknet"})
    with pytest.raises(WordTreeError, match="YOLO9000 of 9418 classes, the tree given has 4 nodes"):
        yolo9000.load(path, tree=PETS)


def test_a_classifiers_weights_have_no_boxes(tmp_path):
    from yolo9000.loading import load_detector

    path = sparse(tmp_path / "darknet19.weights", 83_427_120)
    assert isinstance(yolo9000.load(path), models.TreeClassifier)
    with pytest.raises(WordTreeError, match="a classifier's, which has no boxes; give a detector's"):
        load_detector(path)


@needs_oracle
@pytest.mark.parametrize("case", ["train_micro_voc_seen0", "train_micro_joint_seen50000"])
def test_the_originals_small_networks_are_read_and_come_back_to_the_byte(case, tmp_path):
    values = oracle.values(case)
    path = tmp_path / "micro.weights"
    path.write_bytes(struct.pack("<4i", 0, 1, 0, int(values["seen0"])) + values["weights0"].astype("<f4").tobytes())
    model = models.from_cfg(Cfg(str(values["cfg"])))
    load_weights(model, path)
    assert model.seen == int(values["seen0"])
    assert save_weights(model, tmp_path / "again.weights").read_bytes() == path.read_bytes()
