"""Two half-labelled copies of the embedded set: what each keeps and says it knows, and the smallest run."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY

from wordtree import WordTree, WordTreeError
from yolo9000.config import config_of
from yolo9000.data import embedded
from yolo9000.scores import Found, Truths

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import partial_labels

OPTIONS = {**TINY, "joint": False, "steps": 3, "boxed_pictures": 12}


def feed(kind: str) -> partial_labels.CopiesFeed:
    return partial_labels.CopiesFeed(config_of(OPTIONS), kind)


def test_each_copy_keeps_its_own_labels_and_the_two_together_have_every_box_once():
    scenes = embedded.Pictures("boxed", 13, size=64)
    first, second = feed("merged").copies(scenes)
    (full,) = feed("full").copies(scenes)
    assert len(first) == len(second) == len(full) == 13
    labels = [{int(one) for index in range(13) for one in copy[index][1]["labels"]} for copy in (first, second)]
    assert labels[0]
    assert labels[1]
    assert not labels[0] & labels[1]
    for index in range(13):
        image, whole = scenes[index]
        for copy in (first, second, full):
            assert torch.equal(copy[index][0], image)
        assert torch.equal(full[index][1]["boxes"], whole["boxes"])
        both = torch.cat((first[index][1]["boxes"], second[index][1]["boxes"]))
        assert sorted(both.tolist()) == sorted(whole["boxes"].tolist())


def test_only_the_run_that_is_told_knows_what_each_copy_knows():
    scenes = embedded.Pictures("boxed", 4, size=64)
    made = feed("known")
    known = [copy[0][1]["known"] for copy in made.copies(scenes)]
    node = dict(zip(made.labels.ids, made.nodes.tolist(), strict=True))
    for first, marks in enumerate(known):
        for place, id_ in enumerate(embedded.groups().values()):
            assert bool(marks[node[id_]]) == (place % 2 == first)
    for kind in ("merged", "full"):
        assert all("known" not in copy[0][1] for copy in feed(kind).copies(scenes))
    with pytest.raises(WordTreeError, match="no kind of labelling 'fll'; did you mean 'full'"):
        feed("fll")
    with pytest.raises(WordTreeError, match="joint=False"):
        partial_labels.CopiesFeed(config_of({**OPTIONS, "joint": True}), "known")


def test_found_are_the_objects_that_a_sure_box_of_their_node_or_one_above_overlaps():
    tree = WordTree(["animal", "plant", "dog", "cat"], [-1, -1, 0, 0])
    boxes = np.array([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [40.0, 0.0, 50.0, 10.0]])
    image, no = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=bool)
    truths = Truths(image, boxes, np.array([2, 3, 1]), no, no, np.full(3, 100.0))
    found = Found(image, boxes, np.array([0, 0, 1]), np.array([0.9, 0.4, 0.5]))
    assert partial_labels.share_found(found, truths, [0], tree) == 0.5  # the second is not sure
    assert partial_labels.share_found(found, truths, [0, 1], tree) == 0.75
    assert partial_labels.share_found(found, truths, [0, 1, 2], tree) == 0.5  # nobody said dog
    assert partial_labels.share_found(replace(found, boxes=boxes + 8), truths, [0, 1], tree) == 0.0


def test_the_three_runs_are_made_and_told(tmp_path, capsys, one_thread):
    words = [f"--set={key}={list(value) if isinstance(value, tuple) else value}" for key, value in OPTIONS.items()]
    words = [word for word in words if not word.startswith("--set=joint")]
    table = partial_labels.main(["--out", str(tmp_path), *words])
    told = capsys.readouterr().out
    assert table.keys() == {"known", "merged", "full"}
    assert all(0 <= value <= 1 for figures in table.values() for value in figures.values())
    assert "new scenes" in told
    weights = [(tmp_path / f"{kind}-0" / "weights.safetensors").read_bytes() for kind in table]
    assert len(set(weights)) == 3  # the three learn from different targets
    assert partial_labels.main(["--out", str(tmp_path), *words]) == table  # finished runs are read again
