"""The embedded data set: the same bytes everywhere, splits by source, and only pictures that may ship."""

import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wordtree import WordTreeError, build_tree, wordnet
from yolo9000.data import compose, embedded
from yolo9000.data.embedded import Pictures

# SHA-256 of the first three pictures and targets of each split. After a change to the composer or the pack, renew with
#     .venv/bin/python tests/test_embedded.py
EXPECTED = {
    "boxed": "470a60648fbafe34a3c39b7decb25fce674863c40fa17a5561d0232a9bbbfded",
    "labelled": "52db45c920358562a682245a3edc24997c0b9c5b4d0f1a15495762deed11b205",
    "oracle": "0eef20990dc001a7438d324d77afce829f3b438fd53a15faee8e6d4c37219821",
    "seen": "621c4ba114f51d7fbb7768031b85316c5cc982e00acb55ff647ba92ad205a362",
    "unseen": "61ecb22378c0d5582bb9b2acecd2baea2ba3db8ef5052e7bcd6f1585341fa03c",
}

ZOO = Path(embedded.__file__).with_name("zoo")
TRAINING = ("boxed", "labelled", "oracle")
TESTING = ("seen", "unseen")
LICENCES = re.compile(r"Apache-2\.0|MIT|CC0-1\.0|CC-BY-[234]\.[05]|public domain")


def fingerprint(split: str, backwards: bool = False) -> str:
    """The first three pictures of a split with their targets, as one hash."""
    pictures = Pictures(split, count=3)
    items = {index: pictures[index] for index in (range(3)[::-1] if backwards else range(3))}
    digest = hashlib.sha256()
    for index in range(3):
        image, target = items[index]
        digest.update(image.numpy().tobytes())
        for key in sorted(target):
            digest.update(key.encode() + str(target[key].tolist()).encode())
    return digest.hexdigest()


def rows() -> list[dict[str, str]]:
    with (ZOO / "pictures.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def families(files: list[str]) -> set[str]:
    family = {row["file"]: row["family"] for row in rows()}
    return {family[file] for file in files}


def pool_files(pictures: Pictures) -> list[str]:
    return [file for files in pictures.pool.values() for file in files]


# ---------------------------------------------------------------------- the same bytes


@pytest.mark.parametrize("split", [*TRAINING, *TESTING])
def test_pictures_are_the_same_bytes_as_ever(split):
    assert fingerprint(split) == EXPECTED[split]


@pytest.mark.parametrize("simd", [True, False])
def test_a_fresh_process_makes_the_same_bytes_in_any_order_and_without_vector_instructions(simd):
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    if not simd:
        used = np._core._multiarray_umath
        off = [name for name in used.__cpu_dispatch__ if used.__cpu_features__.get(name)]
        environment["NPY_DISABLE_CPU_FEATURES"] = " ".join(off)
    done = subprocess.run(
        [sys.executable, __file__, "backwards"], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {split: fingerprint(split) for split in (*TRAINING, *TESTING)}


def test_another_seed_index_or_split_is_another_picture():
    def digest(split, seed, index):
        return hashlib.sha256(Pictures(split, 9, seed=seed)[index][0].numpy().tobytes()).hexdigest()

    digests = [
        digest(split, seed, index) for split in ("boxed", "labelled", "seen") for seed in (0, 1) for index in (0, 8)
    ]
    assert len(set(digests)) == len(digests)


def test_pictures_do_not_depend_on_how_many_there_are():
    assert torch.equal(Pictures("boxed", 4)[3][0], Pictures("boxed", 4000)[3][0])


# ---------------------------------------------------------------------- targets


@pytest.mark.parametrize("size", [64, 160])
@pytest.mark.parametrize("split", [*TRAINING, *TESTING])
def test_pictures_and_targets_have_their_form_and_boxes_lie_inside(split, size):
    pictures = Pictures(split, 40, size)
    labels = len(embedded.label_map())
    for index in range(len(pictures)):
        image, target = pictures[index]
        assert image.shape == (3, size, size)
        assert image.dtype == torch.uint8
        assert target["labels"].dtype == torch.int64
        assert bool(((target["labels"] >= 0) & (target["labels"] < labels)).all())
        assert 1 <= len(target["labels"]) <= 5
        if "boxes" in target:
            left, top, right, bottom = target["boxes"].T
            assert target["boxes"].shape == (len(target["labels"]), 4)
            assert bool((left >= 0).all() and (top >= 0).all() and (right <= size).all() and (bottom <= size).all())
            assert bool((right - left >= 4).all() and (bottom - top >= 4).all())
    with pytest.raises(IndexError):
        pictures[40]


def test_boxed_scenes_know_the_seven_groups_and_nothing_finer():
    names = embedded.label_map().labels
    scenes = Pictures("boxed", 150)
    seen = {names[label] for index in range(150) for label in scenes[index][1]["labels"].tolist()}
    assert seen == set(embedded.groups())


def test_labelled_pictures_have_one_fine_name_and_no_box():
    fine = {one.synset for one in embedded.classes()}
    names = embedded.label_map().labels
    for size in (32, 64, 160):
        pictures = Pictures("labelled", 60, size, scale=(0.3, 0.9) if size == 160 else None)
        for index in range(60):
            target = pictures[index][1]
            assert set(target) == {"labels"}
            assert len(target["labels"]) == 1
            assert names[int(target["labels"][0])] in fine


def test_the_oracle_sees_the_labelled_pictures_bit_for_bit_with_their_box():
    for scale in (None, (0.3, 0.9)):
        labelled, oracle = Pictures("labelled", 30, scale=scale), Pictures("oracle", 30, scale=scale)
        for index in range(30):
            (image, target), (same, with_box) = labelled[index], oracle[index]
            assert torch.equal(image, same)
            assert torch.equal(target["labels"], with_box["labels"])
            assert with_box["boxes"].shape == (1, 4)


@pytest.mark.parametrize("look", [compose.TEST_LOOK, compose.TRAIN_LOOK])
def test_a_box_is_where_its_object_was_pasted(look):
    size, names = 160, sorted(embedded.pack().cutouts)
    for index in range(40):
        random = compose.stream(77, index)
        one = compose.warp(embedded.pack().cutouts[names[random.randint(len(names))]], 70.0, look, random)
        canvas = np.full((size, size, 3), 1000.0, dtype=np.float32)  # darkened wherever anything is laid
        left, top = compose.spots([one], size, random)[0]
        compose.paste(canvas, one, left, top, random)
        changed = (canvas < 600).any(2)  # more than half covered; a shadow is far lighter
        found = np.flatnonzero(changed.any(0)), np.flatnonzero(changed.any(1))
        box = (left + one.left, top + one.top, left + one.right, top + one.bottom)
        assert (found[0][0], found[1][0], found[0][-1] + 1, found[1][-1] + 1) == pytest.approx(box, abs=3)


# ---------------------------------------------------------------------- splits by source


def test_boxed_scenes_and_labelled_pictures_share_no_cutout():
    boxed, labelled = Pictures("boxed", 1), Pictures("labelled", 1)
    assert not set(pool_files(boxed)) & set(pool_files(labelled))
    for synset in boxed.pool.keys() & labelled.pool.keys():  # nor a design of one class
        assert not families(list(boxed.pool[synset])) & families(list(labelled.pool[synset]))
    with zipfile.ZipFile(ZOO / "pictures.zip") as archive:  # nor the same picture under two names
        pixels = {
            split: {
                hashlib.sha256(Image.open(io.BytesIO(archive.read(file))).tobytes()).hexdigest()
                for file in pool_files(one)
            }
            for split, one in (("boxed", boxed), ("labelled", labelled), ("unseen", Pictures("unseen", 1)))
        }
    assert not pixels["boxed"] & pixels["labelled"]
    assert not pixels["unseen"] & (pixels["boxed"] | pixels["labelled"])


@pytest.mark.parametrize("split", [*TRAINING, "seen"])
def test_no_training_picture_draws_on_the_unseen_family_or_on_photographs(split):
    pictures = Pictures(split, 1)
    unseen = {embedded.UNSEEN_FAMILY, embedded.PHOTOGRAPHS}
    assert not families([*pool_files(pictures), *pictures.distractors]) & unseen
    assert families([*pool_files(Pictures("unseen", 1)), *Pictures("unseen", 1).distractors]) == {
        embedded.UNSEEN_FAMILY
    }


@pytest.mark.parametrize("split", [*TRAINING, *TESTING])
def test_what_a_picture_is_made_of_comes_from_its_splits_pools_and_nowhere_else(split, monkeypatch):
    used: set[str] = set()

    class Recorded(dict):
        def __getitem__(self, file):
            used.add(file)
            return super().__getitem__(file)

    real = embedded.pack()
    pack = real._replace(cutouts=Recorded(real.cutouts), backgrounds=Recorded(real.backgrounds))
    monkeypatch.setattr(embedded, "pack", lambda: pack)
    pictures = Pictures(split, 40)
    for index in range(40):
        pictures[index]
    assert used & set(pool_files(pictures))
    assert used & set(pictures.backgrounds)
    assert used <= {*pool_files(pictures), *pictures.distractors, *pictures.backgrounds}


def test_every_class_is_labelled_and_every_boxed_class_is_boxed_and_each_is_tested():
    fine = {one.synset for one in embedded.classes()}
    assert set(Pictures("labelled", 1).pool) == set(Pictures("seen", 1).pool) == set(Pictures("unseen", 1).pool) == fine
    boxed = {one.synset for one in embedded.classes() if one.group}
    assert set(Pictures("boxed", 1).pool) == boxed


def test_test_backgrounds_are_places_that_no_training_picture_shows():
    train, test = embedded.backgrounds_of(train=True), embedded.backgrounds_of(train=False)
    assert train
    assert test
    assert sorted(train + test) == sorted(row["file"] for row in rows() if row["kind"] == "background")

    def places(files):
        return {re.sub(r"(@\w+)?\.webp$", "", file) for file in files}

    assert not places(train) & places(test)
    source = {row["file"]: row["source"] for row in rows()}  # nor two crops of one original under two names
    assert not {source[file] for file in train} & {source[file] for file in test}
    for split in TRAINING:
        assert set(Pictures(split, 1).backgrounds) == set(train)
    for split in TESTING:
        assert set(Pictures(split, 1).backgrounds) == set(test)


def test_a_family_held_out_of_training_is_what_is_tested_on():
    for split in (*TRAINING, "seen"):
        pictures = Pictures(split, 1, held_out="noto")
        assert not families([*pool_files(pictures), *pictures.distractors]) & {"noto", embedded.UNSEEN_FAMILY}
    unseen = Pictures("unseen", 1, held_out="noto")
    assert families([*pool_files(unseen), *unseen.distractors]) == {"noto"}


def test_objects_without_a_name_stand_in_every_kind_of_picture():
    for split in (*TRAINING, *TESTING):
        assert len(Pictures(split, 1).distractors) >= 20


# ---------------------------------------------------------------------- classes


def test_the_classes_are_forty_below_a_boxed_group_two_groups_themselves_and_thirty_never_boxed():
    classes, groups = embedded.classes(), embedded.groups()
    assert len(classes) == len({one.synset for one in classes}) == len({one.wnid for one in classes}) == 72
    assert len(groups) == 7
    themselves = {one.synset for one in classes if one.synset in groups}
    assert themselves == {"dog.n.01", "domestic_cat.n.01"}
    assert sum(one.kind == "boxed" and one.synset not in groups for one in classes) == 40
    assert Counter(one.kind for one in classes if not one.group).keys() == {"animal", "artefact"}
    assert sum(not one.group for one in classes) == 30
    assert all(bool(one.group) == (one.kind == "boxed") for one in classes)


def test_wnids_are_wordnets_and_the_groups_stand_above_what_they_should():
    tree = build_tree(embedded.label_map())
    groups = [tree.find(wnid) for wnid in embedded.groups().values()]
    for one in embedded.classes():
        assert wordnet.id_of(one.synset) == one.wnid
        path = tree.path(tree.find(one.wnid))
        above = [group for group in groups if group in path]
        assert above == ([tree.find(wordnet.id_of(one.group))] if one.group else [])
    for synset, wnid in embedded.groups().items():
        assert wordnet.id_of(synset) == wnid


def test_the_label_map_has_the_classes_then_the_groups_that_are_no_class():
    labels = embedded.label_map()
    assert len(labels) == 77
    assert labels.labels[:72] == tuple(one.synset for one in embedded.classes())
    assert set(labels.labels[72:]) == embedded.groups().keys() - {"dog.n.01", "domestic_cat.n.01"}


# ---------------------------------------------------------------------- what ships


def test_the_pack_and_its_list_agree():
    with zipfile.ZipFile(ZOO / "pictures.zip") as archive:
        assert archive.testzip() is None
        listed = [row["file"] for row in rows()]
        assert sorted(archive.namelist()) == sorted(listed)
    assert len(set(listed)) == len(listed)
    wnid_of = {one.synset: one.wnid for one in embedded.classes()}
    for row in rows():
        assert row["kind"] in ("cutout", "photo", "distractor", "background")
        if row["kind"] in ("cutout", "photo"):
            assert row["wnid"] == wnid_of[row["synset"]]


def test_every_picture_may_ship_and_says_whose_it_is():
    notice = (ZOO / "LICENSES" / "NOTICE.md").read_text()
    for row in rows():
        assert LICENCES.fullmatch(row["licence"]), row
        assert row["author"], row
        assert row["source"], row
        text = ZOO / "LICENSES" / f"{row['licence']}.txt"
        assert text.is_file() or re.search(rf"{row['licence']}, https://creativecommons\.org/", notice), row
        known_as = row["family"] or re.sub(r"^backgrounds/([\w-]+)(@\w+)?\.webp$", r"\1", row["file"])
        assert re.search(rf"^\| `{known_as}(@\*)?` \|.*{row['licence']}", notice, re.MULTILINE), row


@pytest.mark.parametrize("licence", ["GPL-2.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "GFDL-1.3", "unknown", "", "MITx"])
def test_the_allow_list_can_refuse(licence):
    assert not LICENCES.fullmatch(licence)


def test_the_pack_is_a_few_megabytes():
    assert (ZOO / "pictures.zip").stat().st_size < 6_000_000


# ---------------------------------------------------------------------- errors


def test_what_does_not_exist_is_refused_with_what_does():
    with pytest.raises(WordTreeError, match="did you mean 'labelled'"):
        Pictures("labeled", 1)
    with pytest.raises(WordTreeError, match="did you mean 'noto'"):
        Pictures("boxed", 1, held_out="not")


@pytest.mark.skipif(
    any(row["kind"] == "photo" for row in rows()),
    reason="the pack has photographs of objects, so the split is not empty",
)
def test_a_split_without_pictures_is_refused():
    with pytest.raises(WordTreeError, match="photographs"):
        Pictures("photographs", 1)[0]


@pytest.mark.parametrize("size", [0, 4, 5000])
def test_a_size_that_cannot_be_made_is_refused(size):
    with pytest.raises(WordTreeError, match=str(size)):
        Pictures("boxed", 1, size=size)[0]


if __name__ == "__main__":
    backwards = sys.argv[1:] == ["backwards"]
    found = {split: fingerprint(split, backwards) for split in (*TRAINING, *TESTING)}
    print(json.dumps(found, indent=4))
