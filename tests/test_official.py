"""YOLO9000's own tree: the shipped facts are Darknet's, to the byte."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracle import FOLDER as ORACLE
from oracle import needs_oracle

import yolo9000
from wordtree import WordTree, label_maps, wordnet
from wordtree.formats import read_map, write_map
from yolo9000.official import FOLDER

ROOT = Path(__file__).resolve().parents[1]
DARKNETS = {  # sha256 of Darknet's files
    "9k.tree": "124b05033e928707069995e1b61823c80f10fc14d82f84c9cd5575443b61be54",
    "9k.names": "ec9d79f248c0faff73e84b1980eb0b0ef56ad46005ba0b61bf8ab1d7f844f038",
    "9k.labels": "2bd6c1881c7f14b1a01b091584fa66c982f0f72e574ce861ccef5a9402219fac",
    "coco9k.map": "c0c1dad8d73734d881d21ec3237788b5f1033ec690f42839a3587752f9b637bb",
    "inet9k.map": "065b8f891b22cc2f4530abc47da3f01c775338a92c361400f7a2668d0a7ecce9",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official tree and maps as Darknet's files."""
    folder = tmp_path_factory.mktemp("darknet")
    tree = yolo9000.official_tree()
    tree.save(folder / "9k.tree")
    (folder / "9k.labels").write_text("".join(f"{id_}\n" for id_ in tree.ids))
    for name, labels in yolo9000.official_maps().items():
        write_map(labels.nodes_on(tree), folder / f"{name}.map")
    return folder


@pytest.mark.parametrize("name", DARKNETS)
def test_what_is_saved_is_darknets_file_to_the_byte(name: str, written: Path) -> None:
    assert hashlib.sha256((written / name).read_bytes()).hexdigest() == DARKNETS[name]


@needs_oracle
def test_it_is_the_tree_that_darknet_publishes() -> None:
    theirs = WordTree.load(ORACLE / "data" / "9k.tree", names=ORACLE / "data" / "9k.names")
    tree = yolo9000.official_tree()
    assert tree == theirs
    assert tree.names == theirs.names
    assert list(tree.ids) == (ORACLE / "data" / "9k.labels").read_text().split()
    for name, labels in yolo9000.official_maps().items():
        assert np.array_equal(labels.nodes_on(tree), read_map(ORACLE / "data" / f"{name}.map"))


def test_the_figures_of_the_tree() -> None:
    tree = yolo9000.official_tree()
    assert (len(tree), len(tree.leaves), len(tree.group_start), int(tree.depths.max())) == (9418, 7573, 1846, 16)
    assert [tree.names[node] for node in tree.children()] == ["thing", "matter", "object", "atmospheric phenomenon"]
    assert tree.root_name == "physical entity"
    assert set(label_maps()["imagenet1k"].ids) <= set(tree.ids)
    unlike = {name for name, id_ in zip(tree.names, tree.ids, strict=True) if name != wordnet.name_of(id_)}
    assert unlike == {"surfboard", "springbok antelope", "herpes simplex"}


def test_its_maps_say_which_label_became_which_node() -> None:
    maps, tree = yolo9000.official_maps(), yolo9000.official_tree()
    assert maps["coco9k"].labels == label_maps()["coco"].labels
    assert maps["inet9k"].labels == label_maps()["imagenet_det"].labels
    assert maps["inet9k"].ids == label_maps()["imagenet_det"].ids
    node_of = dict(zip(maps["coco9k"].labels, maps["coco9k"].nodes_on(tree), strict=True))
    assert tree.names[node_of["sink"]] == "faucet"
    assert tree.names[node_of["fire hydrant"]] == "plumbing fixture"


def test_it_is_had_without_torch() -> None:
    code = "import sys, yolo9000; print(len(yolo9000.official_tree()), *({'torch', 'PIL', 'nltk'} & {*sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "9418\n"


def test_the_licence_and_the_source_stand_beside_it() -> None:
    licence = " ".join((FOLDER / "LICENSE-Darknet").read_text().split())
    assert "Darknet is public domain." in licence
    assert "Copyright: 2018 Joseph Redmon" in licence
    assert "shall be included in all copies or substantial portions of the Software" in licence
    about = (FOLDER / "README.md").read_text()
    assert all(file.name in about for file in FOLDER.iterdir() if file.suffix in (".npz", ".csv"))


MAKER = ROOT / "tools" / "make_darknet.py"


@needs_oracle
def test_the_maker_gives_the_shipped_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, MAKER, ORACLE / "data", "--out", tmp_path], check=True, capture_output=True)
    shipped = {path.name: path for path in [*FOLDER.iterdir(), *(ROOT / "plugins" / "wordtree_datasets").iterdir()]}
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["9k.npz", "coco9k.csv", "imagenet21k.csv", "inet9k.csv"]
    for name in made:
        assert (tmp_path / name).read_bytes() == shipped[name].read_bytes(), name


def test_the_maker_refuses_other_bytes(tmp_path: Path) -> None:
    (tmp_path / "9k.tree").write_text("n00002452 -1\n")
    run = subprocess.run([sys.executable, MAKER, tmp_path, "--out", tmp_path / "out"], capture_output=True, text=True)
    assert run.returncode != 0
    assert "is not Darknet's 124b0503" in run.stderr
    assert not (tmp_path / "out").exists()
