"""`yolo9000 convert` and `info`: every network from one kind of file to the other and back, and what they refuse."""

import os
from pathlib import Path

import pytest
import torch
from test_weights import COUNTS, PETS, WIDTHS, detector, lively, same

import yolo9000
from wordtree import WordTree, WordTreeError
from yolo9000 import models
from yolo9000.cfg import Cfg
from yolo9000.checkpoints import load_model, read_tensors, save_model, save_tensors
from yolo9000.convert import convert
from yolo9000.loss import LossScales
from yolo9000.tables import cfg_of
from yolo9000.weights import Header, save_weights

TEXT = """[net]
height=32
width=32
channels=3
[convolutional]
batch_normalize=1
filters=4
size=3
pad=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
filters={filters}
activation=linear
"""
REGION = "[region]\nanchors=1,1\nclasses=4\nsoftmax=1\nobject_scale=5\nthresh=.6\n"


@pytest.fixture
def darknet(tmp_path) -> Path:
    """A folder with a cfg and its weights, of a header before 0.2."""
    (tmp_path / "my.cfg").write_text(TEXT.format(filters=9) + REGION + "tree=pets.tree\n")
    PETS.save(tmp_path / "pets.tree")
    torch.manual_seed(0)
    model = lively(models.from_cfg(tmp_path / "my.cfg"))
    save_weights(model, tmp_path / "my.weights", header=Header(0, 1, 0, 640))
    return tmp_path


# ---------------------------------------------------------------------- one file of our own


NETWORKS = {
    "yolo9000": detector,
    "yolov2": lambda: lively(models.yolov2(["cat", "dog"], size=64)),
    "yolov2 of 2016": lambda: lively(models.yolov2(3, "coco-2016", size=64, squeeze=0)),
    "tiny": lambda: lively(models.yolov2_tiny(PETS, size=64, last=16)),
    "a classifier": lambda: lively(models.darknet19(PETS, 64, WIDTHS, COUNTS)),
    "a cfg": lambda: lively(models.from_cfg(Cfg(TEXT.format(filters=9) + REGION, "/home/me/my.cfg"), PETS)),
    "a classifier's cfg": lambda: lively(models.from_cfg(Cfg(TEXT.format(filters=2) + "[avgpool]\n[softmax]\n"))),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_any_network_is_saved_and_loaded_whole(make, tmp_path):
    torch.manual_seed(0)
    model = make()
    model.origin = Header(0, 1, 0, 7)
    path = save_model(tmp_path / "net.safetensors", model, half=False)
    again = yolo9000.load(path)
    assert type(again) is type(model)
    assert same(again, model)
    assert (again.tree, again.tree.names, again.options) == (model.tree, model.tree.names, model.options)
    assert again.origin[:3] == (0, 1, 0)
    assert "/home/me" not in str(read_tensors(path)[1])
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        # the same weights elsewhere in memory may be read by another kernel
        torch.testing.assert_close(again.raw(image), yolo9000.load(path).raw(image))
    if make is detector:
        with pytest.raises(WordTreeError, match="leave the tree out"):
            yolo9000.load(path, tree=WordTree(["a"], [-1]))


def test_a_checkpoint_of_the_first_runs_still_loads(tmp_path):
    model = detector()
    path = save_model(tmp_path / "net.safetensors", model)
    tensors, header = read_tensors(path)
    del header["origin"], header["model"]["network"]
    save_tensors(path, tensors, header)
    again, _ = load_model(path)
    assert same(again, model)
    assert again.origin is None


def test_the_numbers_of_the_loss_are_the_cfgs():
    assert models.from_cfg(Cfg(TEXT.format(filters=9) + REGION)).scales == LossScales(
        object=5, ignore_iou=0.6, rescore=False, bias_match=False
    )
    model = detector()
    model.scales = LossScales(object=2, no_object=0.5, box=3, tree=0.25, ignore_iou=0.7, rescore=False)
    assert models.from_cfg(Cfg(cfg_of(model)), PETS).scales == model.scales


# ---------------------------------------------------------------------- there and back


def test_darknets_weights_become_one_file_and_come_back_to_the_byte(darknet, here):
    own = darknet / "my.safetensors"
    code, out, err = here("convert", darknet / "my.weights", own, "--cfg", darknet / "my.cfg")
    assert (code, err) == (0, "")
    assert out == f"{own}  {own.stat().st_size:,} bytes\n"
    model = yolo9000.load(own, mode="darknet")
    assert (model.tree, model.seen, model.origin) == (PETS, 640, Header(0, 1, 0, 640))
    assert model.trunk.layers[0][1].arithmetic == "darknet"
    assert yolo9000.load(own).trunk.layers[0][1].arithmetic == "darknet"  # by the file's version
    back = darknet / "back"
    back.mkdir()
    code, out, err = here("convert", own, back / "net.weights")
    assert (code, err) == (0, "")
    assert [Path(line.split("  ")[0]).name for line in out.splitlines()] == [
        "net.weights", "net.cfg", "net.names", "net.tree",
    ]  # fmt: skip
    assert (back / "net.weights").read_bytes() == (darknet / "my.weights").read_bytes()
    again = yolo9000.load(back / "net.weights", cfg=back / "net.cfg")
    assert same(again, model)
    assert (again.tree, again.tree.names) == (PETS, PETS.names)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_every_network_goes_to_darknets_files_and_comes_back(make, tmp_path):
    torch.manual_seed(0)
    model = make()
    own = save_model(tmp_path / "net.safetensors", model)
    weights, *beside = convert(own, tmp_path / "net.weights")
    names = next((file for file in beside if file.suffix == ".names"), None)
    flat = bool((model.tree.parents < 0).all())
    again = yolo9000.load(weights, cfg=weights.with_suffix(".cfg"), names=names if flat else None)
    assert (again.tree, again.tree.names) == (model.tree, model.tree.names)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again.raw(image), model.raw(image))
    ours = convert(weights, tmp_path / "back.safetensors", cfg=weights.with_suffix(".cfg"))
    assert ours == [tmp_path / "back.safetensors"]


def test_the_official_tree_needs_no_file_beside(tmp_path):
    torch.manual_seed(0)
    model = lively(models.yolo9000(yolo9000.official_tree(), size=32, widths=(4, 8), counts=(1, 1)))
    own = save_model(tmp_path / "net.safetensors", model)
    assert [file.name for file in convert(own, tmp_path / "net.weights")] == ["net.weights", "net.cfg"]
    assert yolo9000.load(tmp_path / "net.weights", cfg=tmp_path / "net.cfg").tree == yolo9000.official_tree()


def test_a_tree_that_won_over_the_cfgs_is_named_by_the_cfg_written(darknet):
    other = WordTree(["a", "b", "c", "d"], [-1, -1, 1, 1])
    convert(darknet / "my.weights", darknet / "other.safetensors", darknet / "my.cfg", tree=other)
    convert(darknet / "other.safetensors", darknet / "other.weights")
    assert yolo9000.load(darknet / "other.weights", cfg=darknet / "other.cfg").tree == other


def test_a_part_and_a_start(darknet, here):
    part = darknet / "my.conv.2"
    assert here("convert", darknet / "my.weights", part, "--cfg", darknet / "my.cfg", "--upto", "2")[0] == 0
    whole = (darknet / "my.weights").read_bytes()
    assert part.read_bytes() == whole[:12] + bytes(4) + whole[16 : 16 + 4 * (16 + 108)]
    (darknet / "names.cfg").write_text(TEXT.format(filters=4) + "[avgpool]\n[softmax]\ntree=pets.tree\n")
    torch.manual_seed(1)
    classifier = lively(models.from_cfg(darknet / "names.cfg"))
    save_weights(classifier, darknet / "names.weights")
    code, out, _ = here(
        "convert", darknet / "names.weights", darknet / "start.weights", "--cfg", darknet / "my.cfg", "--start"
    )
    assert code == 0
    assert "start.weights" in out
    started = yolo9000.load(darknet / "start.weights", cfg=darknet / "my.cfg")
    assert torch.equal(started.head.classes.weight, classifier.classes.weight)
    assert same(started.trunk, classifier.trunk)
    assert started.seen == 0


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["my.weights", "my.pt", "--cfg", "my.cfg"], ["my.pt' to write", "give a .safetensors"]),
        (["my.weights", "my.weights", "--cfg", "my.cfg"], ["is the source", "another file"]),
        (["my.weights", "x.safetensors", "--cfg", "my.cfg", "--upto", "2"], ["upto=2", "a part is Darknet's"]),
        (["my.weights", "x.conv.9", "--cfg", "my.cfg", "--upto", "9"], ["upto=9 of a network of 4 layers"]),
        (["my.weights", "none/x.safetensors", "--cfg", "my.cfg"], ["no folder", "x.safetensors"]),
        (["my.weights", "x.safetensors"], ["no published network's", "give its cfg="]),
        (["gone.weights", "x.safetensors"], ["no weights", "gone.weights"]),
        (["my.weights", "there.weights", "--cfg", "my.cfg"], ["there.cfg' is there", "another name"]),
        (["own.safetensors", "x.weights", "--start"], ["own.safetensors' to start from", "convert it first"]),
        (["my.weights", "x.weights", "--cfg", "classifier.cfg", "--start"], ["a classifier's cfg"]),
    ],
)
def test_what_cannot_be_converted_is_one_line_and_nothing_is_written(words, parts, darknet, here, monkeypatch):
    monkeypatch.chdir(darknet)
    (darknet / "there.cfg").write_text("[net]\n")
    (darknet / "classifier.cfg").write_text(TEXT.format(filters=4) + "[avgpool]\n[softmax]\n")
    save_model(darknet / "own.safetensors", detector())
    before = sorted(os.listdir())
    code, out, err = here("convert", *words)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    for part in parts:
        assert part in line
    assert sorted(os.listdir()) == before


# ---------------------------------------------------------------------- info


def test_info_says_what_weights_are_layer_by_layer(darknet, here):
    code, out, _ = here("info", "--weights", darknet / "my.weights", "--cfg", darknet / "my.cfg")
    assert code == 0
    lines = out.splitlines()
    size = (darknet / "my.weights").stat().st_size
    assert lines[0] == f"Darknet's, version 0.1.0, 640 images seen, {size:,} bytes"
    assert lines[1].startswith("tree: WordTree(4 nodes, 2 groups, 3 leaves)")
    assert lines[2] == "network: 161 parameters, input 32 x 32, stride 2"
    assert [line.split()[:2] for line in lines[4:8]] == [
        ["0", "convolutional"], ["1", "maxpool"], ["2", "convolutional"], ["3", "region"],
    ]  # fmt: skip
    assert lines[-1] == f"161 learnable, 169 floats in a file of {size} bytes, 0.000 BFLOPs"
    own, _ = convert(darknet / "my.weights", darknet / "my.safetensors", darknet / "my.cfg"), None
    _, out, _ = here("info", "--weights", own[0])
    assert out.splitlines()[0] == "From my.weights, version 0.1.0, 640 images seen."
    assert out.splitlines()[1:] == lines[1:]


def test_info_of_a_cfg_alone_is_its_table(darknet, here):
    code, out, _ = here("info", "--cfg", darknet / "my.cfg", "--size", "64")
    assert code == 0
    assert "32 x 32 x 9" in out
    assert out.splitlines()[0].startswith("tree: WordTree(4 nodes")
