"""The label maps that ship: the traps in them, one by one, and ImageNet's sets against Darknet's lists."""

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from oracle import FOLDER as ORACLE
from oracle import needs_oracle

from wordtree import LabelMap, build_tree, label_maps, wordnet

TABLES = Path(__file__).resolve().parents[1] / "plugins" / "wordtree_datasets"


def id_of(name: str, label: str) -> str:
    labels = label_maps()[name]
    return labels.ids[labels.labels.index(label)]


@pytest.mark.parametrize(
    ("name", "label", "right", "wrong"),
    [
        # a word of several senses, where the first is not the class
        ("coco", "mouse", "mouse.n.04", "mouse.n.01"),
        ("coco", "keyboard", "computer_keyboard.n.01", "keyboard.n.01"),
        ("coco", "kite", "kite.n.03", "kite.n.01"),
        ("coco", "bowl", "bowl.n.03", "bowl.n.01"),
        ("coco", "tie", "necktie.n.01", "tie.n.02"),
        ("coco", "book", "book.n.02", "book.n.01"),
        ("coco", "banana", "banana.n.02", "banana.n.01"),
        ("coco", "broccoli", "broccoli.n.02", "broccoli.n.01"),
        ("coco", "carrot", "carrot.n.03", "carrot.n.01"),
        ("coco", "hot dog", "hotdog.n.02", "hotdog.n.01"),
        ("coco", "donut", "doughnut.n.02", "doughnut.n.01"),
        ("coco", "cake", "cake.n.03", "cake.n.01"),
        ("coco", "microwave", "microwave.n.02", "microwave.n.01"),
        ("coco", "toaster", "toaster.n.02", "toaster.n.01"),
        ("coco", "toilet", "toilet.n.02", "toilet.n.01"),
        ("coco", "remote", "remote_control.n.01", "remote.n.01"),
        ("coco", "cow", "cattle.n.01", "cow.n.01"),
        ("coco", "bear", "bear.n.01", "bear.n.02"),
        ("coco", "train", "train.n.01", "train.n.02"),
        ("coco", "tv", "television_receiver.n.01", "television.n.01"),
        ("coco", "teddy bear", "teddy.n.01", "teddy.n.02"),
        # where Darknet's map says something beside the class
        ("coco", "fire hydrant", "fireplug.n.01", "plumbing_fixture.n.01"),
        ("coco", "sink", "sink.n.01", "faucet.n.01"),
        ("coco", "toilet", "toilet.n.02", "toilet_seat.n.01"),
        ("coco", "potted plant", "houseplant.n.01", "pot.n.04"),
        ("coco", "cake", "cake.n.03", "dessert.n.01"),
        ("coco", "boat", "boat.n.01", "vessel.n.02"),
        ("coco", "surfboard", "surfboard.n.01", "aquaplane.n.01"),
        ("coco", "clock", "clock.n.01", "timepiece.n.01"),
        ("coco", "cat", "cat.n.01", "domestic_cat.n.01"),
        # where automatic tables go wrong
        ("coco", "umbrella", "umbrella.n.01", "platter.n.01"),
        ("coco", "cup", "cup.n.01", "glass.n.02"),
        ("coco", "cake", "cake.n.03", "trifle.n.01"),
        # the bird and the machine, the weapon and the necktie
        ("imagenet1k", "crane.n.05", "crane.n.05", "crane.n.04"),
        ("imagenet1k", "crane.n.04", "crane.n.04", "crane.n.05"),
        ("imagenet21k", "crane.n.05", "crane.n.05", "crane.n.04"),
        ("imagenet21k", "crane.n.04", "crane.n.04", "crane.n.05"),
        ("imagenet1k", "bow", "bow.n.04", "bow_tie.n.01"),
        ("imagenet1k", "bow tie", "bow_tie.n.01", "bow.n.04"),
        ("imagenet_det", "bow", "bow.n.04", "bow_tie.n.01"),
        ("imagenet_det", "bow tie", "bow_tie.n.01", "bow.n.04"),
        ("imagenet_det", "computer mouse", "mouse.n.04", "mouse.n.01"),
        ("imagenet_det", "domestic cat", "domestic_cat.n.01", "cat.n.01"),
        ("imagenet_det", "nail", "nail.n.02", "nail.n.01"),
        ("imagenet_det", "pitcher", "pitcher.n.02", "pitcher.n.01"),
        ("imagenet_det", "ray", "ray.n.07", "beam.n.04"),
        ("imagenet_det", "seal", "seal.n.09", "seal.n.01"),
        ("imagenet_det", "tick", "tick.n.02", "tick.n.01"),
        ("imagenet_det", "cream", "cream.n.03", "cream.n.02"),
        ("imagenet_det", "trumpet", "cornet.n.01", "trumpet_vine.n.01"),
        ("imagenet_det", "tie", "windsor_tie.n.01", "necktie.n.01"),
        ("imagenet_det", "watercraft", "vessel.n.02", "boat.n.01"),
        ("voc", "tvmonitor", "display.n.06", "television_receiver.n.01"),
    ],
)
def test_a_label_that_is_easily_mistaken_is_the_right_synset(name: str, label: str, right: str, wrong: str) -> None:
    assert wordnet.synset_name(id_of(name, label)) == right
    assert right != wrong
    assert wordnet.candidates(wrong)  # the trap is a real synset


@pytest.mark.parametrize("name", ["coco", "imagenet1k", "imagenet21k", "imagenet_det", "voc"])
def test_a_table_is_what_the_reader_that_checks_every_id_reads(name: str) -> None:
    assert label_maps()[name] == LabelMap.read(TABLES / f"{name}.csv")


def test_imagenet21k_is_in_order_and_says_what_its_labels_are() -> None:
    labels = label_maps()["imagenet21k"]
    assert len(labels) == len(set(labels.ids)) == 21_841
    assert list(labels.ids) == sorted(labels.ids)
    names = [wordnet.name_of(id_) for id_ in labels.ids]
    twice = {name for name, count in Counter(names).items() if count > 1}
    for label, name, id_ in zip(labels.labels, names, labels.ids, strict=True):
        assert label == (wordnet.synset_name(id_) if name in twice else name)
    assert set(label_maps()["imagenet1k"].ids) - set(labels.ids) == {"n04399382"}  # the teddy


@needs_oracle
def test_imagenet21k_is_darknets_list_less_the_teddy() -> None:
    listed = (ORACLE / "data" / "imagenet.labels.list").read_text().split()
    assert sorted({*listed} - {"n04399382"}) == list(label_maps()["imagenet21k"].ids)


def test_imagenet_det_is_whole_and_its_ids_say_what_its_synsets_say() -> None:
    labels = label_maps()["imagenet_det"]
    assert len(labels) == len(set(labels.ids)) == 200
    with (TABLES / "imagenet_det.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["synset"] for row in rows] == [wordnet.synset_name(id_) for id_ in labels.ids]
    assert labels.labels.index("bow tie") + 1 == labels.labels.index("bow") == 28
    unlike = {
        label
        for label, id_ in zip(labels.labels, labels.ids, strict=True)
        if label.casefold() not in {word.casefold() for word in wordnet.lemmas(id_)}
    }
    assert unlike == {  # all others are words of their synsets: the table has not slipped by a row
        *("bookshelf", "cup or mug", "flower pot", "hat with a wide brim"),
        *("salt or pepper shaker", "tie", "tv or monitor"),
    }
    assert {build_tree(labels).report.names[id_] for id_ in build_tree(labels).report.attached} == {"traffic light"}


@needs_oracle
def test_imagenet_det_is_darknets_map() -> None:
    genuine = [line.split()[0] for line in (ORACLE / "data" / "9k.tree").read_text().splitlines()]
    theirs = [genuine[int(line)] for line in (ORACLE / "data" / "inet9k.map").read_text().split()]
    assert list(label_maps()["imagenet_det"].ids) == theirs


def test_offering_the_maps_reads_no_table_of_nouns() -> None:
    """All that asks for one map asks for all: the largest must not make the others wait."""
    code = "import wordtree_datasets as d; from wordtree import wordnet; d.register_label_maps()"
    code += "; print(wordnet._nouns.cache_info().currsize)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "0\n"
