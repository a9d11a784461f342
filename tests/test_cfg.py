"""Darknet's text files: what they say, what the shapes are, and each fault by file and line."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import needs_oracle

import yolo9000
from wordtree import WordTree, WordTreeError
from yolo9000.cfg import Cfg
from yolo9000.classes import Data, flat_tree, names_of, read_names

NET = "[net]\nheight=64\nwidth=64\nchannels=3\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=1\npad=1\nactivation=leaky\n"
POOL = "[maxpool]\nsize=2\nstride=2\n"
LAST = "[convolutional]\nfilters=14\nsize=1\nactivation=linear\n"
REGION = "[region]\nanchors=1,1, 2,2.5\nclasses=2\nnum=2\n"
SMALL = NET + CONV + POOL + LAST + REGION


def test_spaces_comments_and_keys_given_twice_are_read_as_darknet_reads_them():
    text = "# a comment\n; another\n [ net ] \n height = 3 2\r\n\twidth=32\nheight=99\nchannels= 3 \n\n#######\n"
    cfg = Cfg(text + "[conv]\nfilters=4\nactivation=linear")
    assert cfg.net.values == {"height": "32", "width": "32", "channels": "3"}
    assert (cfg.net.line, cfg.net.lines["height"]) == (3, 4)
    (layer,) = cfg.layers()
    assert (layer.kind, layer.channels, layer.size, layer.stride, layer.padding) == ("convolutional", 4, 1, 1, 0)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 4), st.integers(0, 3))
def test_shapes_are_those_of_the_arithmetic_of_2017(side, size, stride, padding):
    net = f"[net]\nheight={side}\nwidth={side + 3}\nchannels=3\n"
    window = f"size={size}\nstride={stride}\npadding={padding}\n"
    conv = Cfg(net + f"[convolutional]\nactivation=linear\n{window}")
    pool = Cfg(net + f"[maxpool]\n{window}")
    wide = (side + 3 + 2 * padding - size) // stride + 1, (side + 3 + 2 * padding) // stride
    high = (side + 2 * padding - size) // stride + 1, (side + 2 * padding) // stride
    last = [(count - 1) * stride - padding for count in (high[1], wide[1])]  # where the last window begins
    outside = padding >= size or last[0] >= side or last[1] >= side + 3
    for cfg, width, height in zip((conv, pool), wide, high, strict=True):
        if min(width, height) < 1 or (cfg is pool and outside):
            with pytest.raises(WordTreeError, match="leaves nothing" if min(width, height) < 1 else "outside the map"):
                cfg.layers()
        else:
            (layer,) = cfg.layers()
            assert (layer.width, layer.height) == (width, height)


def test_routes_reorg_and_the_sums_of_a_network():
    more = "[route]\nlayers=-2\n[conv]\nfilters=4\nactivation=leaky\n[reorg]\nstride=2\n[route]\nlayers=-1,-4\n"
    layers = Cfg(NET + CONV + POOL + more).layers()
    assert [(layer.kind, layer.sources, layer.channels, layer.width) for layer in layers] == [
        ("convolutional", (-1,), 8, 64), ("maxpool", (0,), 8, 32), ("route", (0,), 8, 64),
        ("convolutional", (2,), 4, 64), ("reorg", (3,), 16, 32), ("route", (4, 1), 24, 32),
    ]  # fmt: skip
    first = layers[0]
    assert (first.matrix, first.learnable, first.floats, first.flops) == (216, 232, 248, 2 * 216 * 64 * 64)
    assert (layers[3].learnable, layers[3].floats, layers[1].floats, layers[1].flops) == (36, 36, 0, 0)
    assert Cfg(NET + CONV + POOL).layers(32, 96)[-1].width == 48


@needs_oracle
@pytest.mark.parametrize("path", sorted((oracle.FOLDER / "cfg").glob("*.cfg")), ids=lambda path: path.stem)
def test_every_cfg_of_the_original_is_read_without_a_warning(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cfg = Cfg.read(path)
        assert cfg.layers()[-1].number == len(cfg.sections) - 1
        assert len(cfg.tree()) == cfg.classes


FAULTS = [
    ("", ["no [section]", "begins with [net]"]),
    ("height=3\n", ["line 1", "height=3 before any [section]"]),
    (CONV, ["line 1", "[convolutional] comes first", "begins with [net]"]),
    (NET, ["line 1", "no layer", "[convolutional]"]),
    ("<!DOCTYPE html>\n<html>", ["line 1", "<!DOCTYPE html>", "key=value"]),
    (NET + CONV + "filters", ["line 12", "'filters'", "key=value"]),
    (NET + "[convolutionl]\n", ["line 5", "no layer 'convolutionl'", "did you mean 'convolutional'"]),
    (NET + "[yolo]\n", ["line 5", "[yolo] is a layer of Darknet's", "known: convolutional, maxpool"]),
    (NET + "[connected]\noutput=9\n", ["line 5", "[connected]", "YOLOv2's family has not"]),
    (NET + CONV + "groups=2\n", ["line 12", "groups=2", "groups=1"]),
    (NET + CONV + "xnor=1\n", ["line 12", "xnor=1", "no other is built"]),
    (SMALL.replace("filters=8", "filters=eight"), ["line 7", "filters=eight", "a whole number"]),
    (SMALL.replace("filters=8", "filters=0"), ["line 7", "filters=0", "1 or more"]),
    (SMALL.replace("stride=2", "stride=-2"), ["line 14", "stride=-2", "1 or more"]),
    (SMALL.replace("height=64", "heigth=64"), ["line 1", "[net] has no height", "height=1"]),
    (SMALL.replace("channels=3", "channels=1"), ["line 4", "channels=1", "red green blue"]),
    (SMALL.replace("leaky", "leeky"), ["line 11", "no activation 'leeky'", "'leaky'"]),
    (SMALL.replace("size=3", "size=99").replace("pad=1", ""), ["line 5", "window of 99", "64 x 64", "larger input"]),
    (SMALL.replace("filters=14", "filters=15"), ["line 19", "2 anchors and 2 classes on 15", "filters=14"]),
    (SMALL.replace("1,1, 2,2.5", "1,1,2"), ["line 20", "3 anchor numbers and num=2", "a width and a height"]),
    (SMALL.replace("1,1, 2,2.5", "1,1,2,nan"), ["line 20", "numbers parted by commas"]),
    (SMALL.replace("1,1, 2,2.5", "1,1,2,-2"), ["line 20", "above 0"]),
    (SMALL + "coords=8\n", ["line 23", "coords=8", "coords=4"]),
    (SMALL.replace("anchors", "anchers"), ["line 19", "[region] has no anchors", "anchors=1"]),
    (SMALL + CONV, ["line 19", "[region] is layer 3 of 5", "the last"]),
    (NET + CONV + "[route]\nlayers=-2\n", ["line 13", "route to layer -2", "reads 0 to 0"]),
    (NET + CONV + "[route]\nlayers=1\n", ["line 13", "route to layer 1", "this is layer 1"]),
    (NET + CONV + "[route]\nlayers=a\n", ["line 13", "numbers parted by commas"]),
    (NET + CONV + "[route]\n", ["line 12", "no layers"]),
    (NET + CONV + POOL + "[route]\nlayers=0,1\n", ["line 16", "layer 0 is 64 x 64, layer 1 is 32 x 32", "one size"]),
    (NET + CONV + "[reorg]\nstride=3\n", ["line 13", "reorg of stride 3 on 64 x 64 x 8", "9 divides"]),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*says nothing")
@pytest.mark.parametrize(("text", "parts"), FAULTS, ids=[f"{parts[-1]}-{row}" for row, (_, parts) in enumerate(FAULTS)])
def test_each_fault_of_a_cfg_is_named_by_file_and_line(text, parts, tmp_path):
    path = tmp_path / "net.cfg"
    path.write_text(text)
    with pytest.raises(WordTreeError) as caught:
        Cfg.read(path).layers()
    assert str(path) in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_a_key_that_says_nothing_is_warned_of():
    with pytest.warns(
        UserWarning, match=r"line 12: fliters=9 says nothing in \[convolutional\]; did you mean 'filters'"
    ):
        Cfg(NET + CONV + "fliters=9\n")


@pytest.mark.parametrize("name", ["yolo9000.weights", "photo.jpg", "voc.names"])
def test_another_kind_of_file_given_as_a_cfg_is_refused(name):
    with pytest.raises(WordTreeError, match=f"{name} given as a cfg; give a network file"):
        Cfg.read(name)


def test_comments_in_any_encoding_are_comments(tmp_path):
    (tmp_path / "net.cfg").write_bytes(
        b"\xef\xbb\xbf[net]\n# \xc4\xe3\xba\xc3\nheight=32\nwidth=32\n[maxpool]\nstride=2\n"
    )
    assert Cfg.read(tmp_path / "net.cfg").layers()[0].width == 16
    (tmp_path / "x.names").write_bytes(b"\xef\xbb\xbfcat\n\xc4\xe3\n")
    with pytest.raises(WordTreeError, match="no text; a names file is text in UTF-8"):
        read_names(tmp_path / "x.names")
    (tmp_path / "x.names").write_bytes(b"\xef\xbb\xbfcat\n")
    assert read_names(tmp_path / "x.names") == ["cat"]


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path):
    (tmp_path / "net.cfg").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WordTreeError, match=r"net\.cfg: bytes that are no text"):
        Cfg.read(tmp_path / "net.cfg")
    for read in (Cfg.read, Data.read, read_names):
        with pytest.raises(FileNotFoundError, match="give one that exists"):
            read(tmp_path / "none")


# ---------------------------------------------------------------------- .data, .names, and the files they name


def test_names_and_data_files_are_read(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "cfg").mkdir()
    (tmp_path / "data" / "pets.names").write_text("cat\r\nguinea pig\r\n\r\n")
    (tmp_path / "cfg" / "pets.data").write_text("classes= 2\n#valid = x\nnames = data/pets.names\nnames=other\n")
    data = Data.read(tmp_path / "cfg" / "pets.data")
    assert data.values == {"classes": "2", "names": "data/pets.names"}
    assert data.names() == ["cat", "guinea pig"]
    assert data.label_nodes() is None


def test_the_released_data_file_finds_what_is_packaged(tmp_path):
    path = tmp_path / "combine9k.data"
    path.write_text("classes=9418\nlabels=data/9k.labels\nnames=data/9k.names\nmap=data/inet9k.map\n")
    tree = yolo9000.official_tree()
    assert Data.read(path).names() == list(tree.names)
    assert np.array_equal(Data.read(path).label_nodes(), yolo9000.official_maps()["inet9k"].nodes_on(tree))


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("x.data", "", ["nothing in it", "names=data/voc.names"]),
        ("x.data", "[net]\n", ["line 1", "[net] in a .data file"]),
        ("x.data", "classes=3\n", ["no names= in it", ".names file"]),
        ("x.data", "\nnames=gone.names\n", ["line 2", "names=gone.names is not there"]),
        ("x.names", "", ["no names in it", "a name a line"]),
        ("x.names", "cat\n\ndog\n", ["line 2", "an empty name"]),
    ],
)
def test_each_fault_of_data_and_names_is_named(name, text, parts, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(WordTreeError) as caught:
        Data.read(path).names() if name == "x.data" else read_names(path)
    for part in [str(path), *parts]:
        assert part in str(caught.value)


TREE = "animal -1\nplant -1\ndog 0\n"
ON_TREE = SMALL.replace("filters=14", "filters=16").replace("classes=2", "classes=3") + "tree = data/my.tree\n"


@pytest.mark.parametrize("place", ["data/my.tree", "cfg/data/my.tree", "cfg/my.tree"])
def test_a_tree_is_found_beside_its_cfg_and_in_the_folder_above(place, tmp_path):
    for folder in ("cfg", "data", "cfg/data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "cfg" / "my.cfg").write_text(ON_TREE)
    (tmp_path / place).write_text(TREE)
    assert Cfg.read(tmp_path / "cfg" / "my.cfg").tree().ids == ("animal", "plant", "dog")


def test_a_path_as_it_is_written_comes_first(tmp_path, monkeypatch):
    (tmp_path / "cfg" / "data").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "cfg" / "my.cfg").write_text(ON_TREE)
    (tmp_path / "cfg" / "data" / "my.tree").write_text(TREE)
    (tmp_path / "data" / "my.tree").write_text(TREE.replace("dog", "cat"))
    (tmp_path / "data" / "my.names").write_text("Animal\nPlant\nCat\n")
    monkeypatch.chdir(tmp_path)
    cfg = Cfg.read(tmp_path / "cfg" / "my.cfg")
    assert cfg.tree().ids == ("animal", "plant", "cat")
    assert cfg.tree().names == ("Animal", "Plant", "Cat")
    assert cfg.tree(["a", "p", "c"]).names == ("a", "p", "c")


def test_the_released_tree_and_map_need_no_file():
    text = SMALL.replace("filters=14", f"filters={2 * 9423}").replace("classes=2", "classes=9418")
    cfg = Cfg(text + "tree=data/9k.tree\nmap=data/coco9k.map\n", "somewhere/yolo9000.cfg")
    tree = cfg.tree()
    assert tree == yolo9000.official_tree()
    assert tree.names == yolo9000.official_tree().names
    assert tree.names[cfg.label_nodes()[0]] == "person"
    assert Cfg(SMALL).label_nodes() is None


def test_flat_classes_are_a_flat_tree():
    cfg = Cfg(SMALL)
    assert cfg.tree().ids == ("class_0", "class_1")
    tree = cfg.tree(["cat", "dog"])
    assert (tree.ids, tree.parents.tolist()) == (("cat", "dog"), [-1, -1])
    assert flat_tree(["cat", "cat"]) == WordTree(["class_0", "class_1"], [-1, -1])
    assert flat_tree(["cat", "cat"]).names == ("cat", "cat")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (ON_TREE, ["line 23", "tree=data/my.tree is not there", "put it at"]),
        (SMALL + "map=my.map\n", ["line 23", "map=my.map is not there"]),
        (SMALL + "tree=9k.tree\n", ["line 23", "9418 nodes", "2 classes"]),
        (NET + CONV, ["no [region] or [softmax]"]),
    ],
)
def test_classes_that_cannot_be_had_are_named(text, parts):
    cfg = Cfg(text, "my.cfg")
    with pytest.raises(WordTreeError) as caught:
        cfg.tree(), cfg.label_nodes()
    for part in ["my.cfg", *parts]:
        assert part in str(caught.value)


def test_a_cfg_is_read_without_torch():
    code = f"import sys; from yolo9000.cfg import Cfg; Cfg({SMALL!r}).layers(); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


@needs_oracle
def test_the_originals_data_files_are_read():
    files = [path for path in (oracle.FOLDER / "cfg").iterdir() if path.suffix in (".data", ".dataset")]
    names = {path.name.split(".")[0]: names_of(path) for path in files}
    counts = {"coco": 80, "voc": 20, "combine9k": 9418, "imagenet9k": 9418}
    assert {name: len(listed) for name, listed in names.items()} == counts
    assert Path(oracle.FOLDER / "data" / "coco.names").read_text().split("\n")[0] == names["coco"][0] == "person"


LINES = SMALL.splitlines() + [
    "[route]", "layers=-1,0", "[reorg]", "stride=2", "[avgpool]", "[softmax]", "[cost]", "size=", "=3", "[", "[]",
    "layers=1e9", "filters=1_0", "anchors=,", "pad=1.5", "tree=none.tree", "#", "\x00",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@given(st.lists(st.sampled_from(LINES), max_size=12), st.lists(st.integers(0, 22), max_size=4))
def test_any_text_is_a_network_or_a_named_fault(more, dropped):
    kept = [line for number, line in enumerate(SMALL.splitlines()) if number not in dropped]
    try:
        cfg = Cfg("\n".join([*kept, *more]), "my.cfg")
        layers = cfg.layers()
        classes = cfg.tree() if cfg.head is not None else []
    except WordTreeError as fault:
        assert "my.cfg" in str(fault)  # noqa: PT017
    else:
        assert all(min(layer.channels, layer.height, layer.width) >= 1 for layer in layers)
        assert cfg.head is None or len(classes) == cfg.classes
