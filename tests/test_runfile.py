"""run.yaml: what it says and refuses, what a check of it finds, and training and testing on it."""

import csv
import dataclasses
import json
import shutil
import signal
from collections import Counter
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small_data
import torch
import yaml
from conftest import signal_before
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_data import CAT, DOG, PETS, SMALL
from test_training import assert_same_weights

import yolo9000
from wordtree import LabelMap, WordTreeError, build_tree
from yolo9000 import cli, feeds, training
from yolo9000.checkpoints import read_tensors
from yolo9000.data.augment import AUGMENTATIONS, classifier_view, stream
from yolo9000.data.check import check
from yolo9000.data.folders import read_folder
from yolo9000.data.joint import JointSampler
from yolo9000.data.loading import TRIES, Damaged, Keys, Known, Views, limits_of, load_batches
from yolo9000.measure import evaluate_run
from yolo9000.prediction import about
from yolo9000.runfile import RUN_KEYS, Source, known, read_run, shares

# seconds, not minutes: too small to learn anything
TINY = {
    "widths": [8, 8, 8, 8, 8], "counts": [1, 1, 1, 1, 1], "size": 64, "sizes": [48, 64], "classifier_sizes": [32],
    "classifier_steps": 2, "classifier_batch": 4, "steps": 5, "batch": 5, "workers": 0, "checkpoint_every": 2,
    "precision": "float32", "device": "cpu", "anchors": 2,
}  # fmt: skip


def write_run(folder: Path, sources: list[dict], **settings) -> Path:
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump({"sources": sources, **TINY, **settings}, sort_keys=False))
    return file


def joint(folder: Path, **settings) -> Path:
    """Boxes from a COCO file and a folder of names, 1 : 4, tested on VOC and on the names."""
    small_data.PETS.save(folder / "pets.csv")
    colours = {9: "dog", 31: "cat", 500: "cat"}
    small_data.coco(
        folder,
        annotations=[
            {"id": 1, "image_id": 9, "category_id": 18, "bbox": [10, 5, 40, 40], "area": 1600, "iscrowd": 0},
            {"id": 2, "image_id": 31, "category_id": 17, "bbox": [4, 20, 50, 30], "area": 1500, "iscrowd": 0},
            {"id": 3, "image_id": 500, "category_id": 17, "bbox": [0, 0, 20, 60], "area": 1200, "iscrowd": 0},
        ],
    )
    for number, name in colours.items():
        size = {9: (80, 60), 31: (64, 64), 500: (50, 70)}[number]
        small_data.picture(folder / "images" / f"{number:012}.jpg", *size, [(name, 10, 5, 50, 45)], number)
    small_data.folders(folder, each=4)
    small_data.voc(folder)
    return write_run(
        folder,
        [
            {"kind": "coco", "path": "instances.json", "images": "images", "labels": "pets.csv", "ratio": 1},
            {"kind": "folder", "path": "names", "labels": "pets.csv", "ratio": 4},
            {"kind": "voc", "path": "VOC2007", "labels": "pets.csv", "use": "test"},
            {"kind": "folder", "path": "names", "labels": "pets.csv", "use": "test", "name": "held", "limit": 3},
        ],
        **settings,
    )


@pytest.fixture
def command(capsys, monkeypatch):
    """`yolo9000 ...` in this process: its exit code and what it wrote."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["yolo9000", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=ended.value.code or 0, stdout=out, stderr=err)

    return run


def train(run: Path, out: Path, **options):
    return yolo9000.train(data=run, out=out, progress=False, **options)


# ---------------------------------------------------------------------- the file


def test_a_run_file_says_what_it_says(tmp_path):
    run = read_run(joint(tmp_path, augment="darknet", bad_share=0.2))
    assert [source.name for source in run.sources] == ["coco", "folder", "voc", "held"]
    assert [source.use for source in run.sources] == ["train", "train", "test", "test"]
    assert run.sources[0].path == tmp_path / "instances.json"
    assert shares(run.used("train")) == [Fraction(1, 5), Fraction(4, 5)]
    config = run.config(steps=7)
    assert (config.steps, config.batch, config.sizes) == (7, 5, (48, 64))
    with pytest.raises(WordTreeError, match="oracle in a run of"):
        run.config(oracle=True)
    assert (run.augment, run.bad_share) == ("darknet", 0.2)
    assert run.built_tree(run.labels()) == build_tree(PETS)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"stepz": 5}, ["no key of run.yaml 'stepz'", "did you mean 'steps'"]),
        ({"source": []}, ["no key of run.yaml 'source'", "did you mean 'sources'"]),
        ({"steps": "many"}, ["steps of 'many'"]),
        ({"boxed_pictures": 5}, ["boxed_pictures in a run of", "the sources say it"]),
        ({"model": "yolo900"}, ["no model 'yolo900'", "did you mean 'yolo9000'"]),
        ({"augment": "papr"}, ["no augmentation 'papr'", "did you mean 'paper'"]),
        ({"bad_share": 2}, ["bad_share is 2", "from 0 to 1"]),
        ({"sources": []}, ["no list of `sources`"]),
        ({"sources": [3]}, ["source 1 is 3"]),
        ({"sources": [{"kind": "coco"}]}, ["source 1 has kind and no 'path'"]),
        ({"sources": [{"kind": "cocoo", "path": "x"}]}, ["no kind of source 1 'cocoo'", "did you mean 'coco'"]),
        ({"sources": [{"kind": "coco", "path": "x", "lables": "pets"}]}, ["no key of source 1 'lables'", "'labels'"]),
        ({"sources": [{"kind": "coco", "path": "x", "ratio": -1}]}, ["ratio of source 1 is -1", "from 0 up"]),
        ({"sources": [{"kind": "coco", "path": "x", "limit": 1.5}]}, ["limit of source 1 is 1.5"]),
        ({"sources": [{"kind": "coco", "path": "x", "use": "tset"}]}, ["no use of source 1 'tset'", "'test'"]),
        ({"sources": [{"kind": "coco", "path": "x", "skip": "box"}]}, ["no kind of fault to skip 'box'", "'boxes'"]),
        ({"sources": [{"kind": "coco", "path": "x", "knows": "some"}]}, ["source 1 knows 'some'", "all"]),
        ({"sources": [{"kind": "coco", "path": "x", "ratio": 1, "share": 0.5}]}, ["a ratio and a share"]),
    ],
)
def test_what_a_run_file_cannot_say_is_refused_with_what_would_do(tmp_path, change, parts):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"sources": [{"kind": "coco", "path": "x"}], **change}))
    with pytest.raises(WordTreeError) as caught:
        read_run(file)
    for part in parts:
        assert part in str(caught.value)


def test_a_file_that_is_no_run_file_is_refused(tmp_path):
    (tmp_path / "run.yaml").write_text("sources: [")
    with pytest.raises(WordTreeError, match="not YAML"):
        read_run(tmp_path / "run.yaml")
    with pytest.raises(FileNotFoundError, match="no run file"):
        read_run(tmp_path / "other.yaml")
    with pytest.raises(WordTreeError, match="no data set 'coco'; known: embedded, or"):
        yolo9000.train(data="coco", out=tmp_path / "out", progress=False)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=5))
@settings(max_examples=60)
def test_shares_come_first_and_ratios_divide_the_rest(given_parts):
    sources = [Source("coco", Path("x"), ratio=ratio, share=part / 16) for ratio, part in given_parts]
    if all(source.share for source in sources):
        with pytest.raises(WordTreeError, match="batch shares"):
            shares(sources)
        return
    found = shares(sources)
    assert sum(found) == 1
    rest = [part / source.ratio for part, source in zip(found, sources, strict=True) if not source.share]
    assert len(set(rest)) == 1
    for part, source in zip(found, sources, strict=True):
        assert not source.share or part == Fraction(source.share)


def test_what_a_source_knows_is_its_labels_all_or_a_list():
    tree = SMALL
    assert known(Source("coco", Path("x")), PETS, tree).tolist() == [True, False, True, True, False, False]
    assert known(Source("coco", Path("x"), knows="all"), PETS, tree) is None
    nested = LabelMap("nested", ("animal", "cat"), (tree.ids[0], tree.ids[2]))  # all animals, and which are cats
    assert known(Source("coco", Path("x")), nested, tree).tolist() == [True, False, True, True, True, True]
    some = known(Source("coco", Path("x"), knows=("poodle", "car")), PETS, tree)
    assert some.tolist() == [True, True, False, True, False, True]


# ---------------------------------------------------------------------- batches


def views_of(folder, how="paper"):
    records = read_folder(small_data.folders(folder, each=5), PETS, SMALL)
    return Views([records, records], AUGMENTATIONS[how], 3, [0, 40])


def batches(views, processes, damaged, start=0, steps=6):
    sampler = JointSampler([len(one) for one in views.sources], [1, 4], 5, steps, start, 0)
    keys = Keys(sampler, lambda step: (32, 48)[step % 2])
    return list(load_batches(views, keys, processes, damaged, [Known(None, None), Known(None, torch.ones(6).bool())]))


def test_batches_are_the_same_under_any_number_of_workers_and_from_any_step_on(tmp_path):
    views = views_of(tmp_path)
    whole, by_two, tail = (
        batches(views, processes, Damaged(tmp_path / "bad.csv", [0, 0]), start)
        for processes, start in ((0, 0), (2, 0), (2, 4))
    )
    assert [tuple(images.shape[2:]) for images, _ in whole] == [(32, 32), (48, 48)] * 3
    for ours, theirs in [*zip(whole, by_two, strict=True), *zip(whole[4:], tail, strict=True)]:
        assert torch.equal(ours[0], theirs[0])
        for one, other in zip(ours[1], theirs[1], strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)
    for _, targets in whole:
        assert Counter("known" in target for target in targets) == {False: 1, True: 4}
    pictures = {image.numpy().tobytes() for images, _ in whole for image in images}
    assert len(pictures) == 30  # the same file again is another view


@pytest.mark.parametrize("processes", [0, 2])
def test_a_damaged_image_is_told_once_counted_replaced_and_listed(tmp_path, processes):
    views = views_of(tmp_path)
    bad = views.sources[0].files[2]
    Path(bad).write_bytes(b"no image")
    damaged = Damaged(tmp_path / "bad.csv", [1, 1])
    with pytest.warns(UserWarning, match="left out, another takes its place") as warned:
        made = batches(views, processes, damaged, steps=12)
    assert len(warned) == 1
    assert bad in str(warned[0].message)
    assert all(len(images) == 5 for images, _ in made)
    with (tmp_path / "bad.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["image"] == bad
    assert int(row["times"]) == damaged.found[bad][1] >= 2
    assert "no known format" in row["fault"]
    assert bad in damaged.summary()


def test_too_many_damaged_images_stop_the_run_with_the_list(tmp_path):
    views = views_of(tmp_path)
    for file in views.sources[0].files[:3]:
        Path(file).write_bytes(b"no image")
    damaged = Damaged(tmp_path / "bad.csv", [2, 2])
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(
            WordTreeError, match=r"3 damaged images in one source, 2 are let pass.*raise bad_share"
        ) as caught,
    ):
        batches(views, 0, damaged, steps=40)
    assert all(file in str(caught.value) for file in views.sources[0].files[:3])
    assert len((tmp_path / "bad.csv").read_text().splitlines()) == 4


def test_a_source_without_a_sound_image_stops_at_once(tmp_path):
    views = views_of(tmp_path)
    for file in views.sources[0].files:
        Path(file).write_bytes(b"no image")
    damaged = Damaged(tmp_path / "bad.csv", [1000, 1000])
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(WordTreeError, match="damaged images in one source"),
    ):
        batches(views, 0, damaged)
    assert len(views.sources[0]) < TRIES


def test_a_share_of_a_source_may_be_damaged_and_always_one(tmp_path):
    records = read_folder(small_data.folders(tmp_path, each=5), PETS, SMALL)
    assert limits_of([records], 0.01) == [1]
    assert limits_of([records], 0.3) == [3]
    assert limits_of([records], 0) == [0]


# ---------------------------------------------------------------------- a check


def test_a_check_of_sound_data_counts_it_and_draws_samples(tmp_path):
    report = check(read_run(joint(tmp_path)), tmp_path / "out")
    assert report.sound
    told = report.to_record()["sources"]
    assert [one["name"] for one in told] == ["coco", "folder", "voc", "held"]
    assert told[0]["counts"] == {DOG: 1, CAT: 2}
    assert (told[1]["image_labels"], told[1]["boxes"]) == (8, 0)
    assert (told[2]["boxes"], told[2]["flagged"], told[3]["images"]) == (3, 1, 3)
    with Image.open(report.sheet) as sheet:
        assert len(np.unique(np.asarray(sheet))) > 100
    assert "coco: 3 images, 3 boxes (0 flagged), 0 image labels" in str(report)


@pytest.mark.parametrize("processes", [0, 2])
def test_a_check_tells_every_fault_and_reads_on(tmp_path, processes):
    run = joint(tmp_path)
    content = json.loads((tmp_path / "instances.json").read_text())
    content["annotations"][0]["bbox"] = [10, 5, -4, 40]
    content["categories"][1]["name"] = "wolpertinger"
    (tmp_path / "instances.json").write_text(json.dumps(content))
    (tmp_path / "names" / DOG / f"{DOG}_1.JPEG").write_bytes(b"no image")
    (tmp_path / "VOC2007" / "Annotations" / "000009.xml").write_text("<annotation>")
    ticks: list[int] = []
    report = check(read_run(run), tmp_path / "out", processes, tick=ticks.append)
    assert not report.sound
    assert sum(ticks) == sum(len(records) for records in report.sources)
    assert [sorted(fault.kind for fault in faults) for faults in report.faults] == [
        ["boxes", "labels"], ["images"], ["files"], ["images"],
    ]  # fmt: skip
    text = str(report)
    for part in ("1 unmapped labels", "wolpertinger", "1 bad boxes", "annotation 1 of image 9", "no known format"):
        assert part in text


def test_the_command_checks_and_says_by_its_exit_code_whether_all_is_sound(tmp_path, command):
    run = joint(tmp_path)
    done = command("train", "--data", run, "--check", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "dog (n02084071)" in done.stdout
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"check.json", "samples.png"}
    (tmp_path / "names" / DOG / f"{DOG}_0.JPEG").unlink()
    (tmp_path / "names" / DOG / f"{DOG}_1.JPEG").write_bytes(b"")
    again = command("train", "--data", run, "--check", "--out", tmp_path / "out")
    assert again.returncode == 1, again.stderr
    assert "bad images" in again.stdout


# ---------------------------------------------------------------------- training and testing


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on the small joint data."""
    folder = tmp_path_factory.mktemp("joint")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    run = train(joint(folder), folder / "out")
    torch.set_num_threads(before)
    return folder, run


def test_a_run_trains_on_its_sources_and_scores_its_tests(trained):
    _, run = trained
    assert {file.name for file in run.directory.iterdir()} == {
        "weights.safetensors", "config.json", "data.json", "metrics.csv", "metrics.json", "curve.png", "voc", "held",
    }  # fmt: skip
    assert {
        "voc/AP",
        "voc/AP50",
        "voc/voc",
        "voc/voc07",
        "voc/shared/AP50",
        "held/top1",
        "held/top5",
    } < run.metrics.keys()
    assert 0 <= run.metrics["held/top1"] <= run.metrics["held/top5"] == 1.0  # of two names
    assert "AP50" in run.table()
    model = yolo9000.load(run.weights)
    assert model.tree == build_tree(PETS)
    assert len(model.head.anchors) == 2
    assert "coco (3 images with boxes), folder (8 image labels)" in about(run.weights)
    files = {file.name for file in (run.directory / "voc").iterdir()}
    names = {"confusion.csv", "confusion.json", "confusion.png", "operating_curve.csv", "operating_curve.png"}
    assert files == {"results.json", "classes.csv", "voc", "worst_and_best.txt", "precision_recall.png", *names}
    assert {file.name for file in (run.directory / "held").iterdir()} == names
    again = train(trained[0] / "run.yaml", run.directory)
    assert str(again.metrics) == str(run.metrics)  # a finished run is returned as it is; as text: NaN is NaN


@pytest.mark.parametrize(("stop", "workers"), [(1, 0), (4, 2)])
def test_a_run_stopped_in_the_middle_of_an_epoch_ends_as_if_it_had_never_stopped(
    trained, tmp_path, monkeypatch, one_thread, stop, workers
):
    folder, whole = trained
    signal_before(stop, signal.SIGINT, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(folder / "run.yaml", tmp_path / "out", workers=workers)
    assert read_tensors(tmp_path / "out" / "checkpoint.safetensors")[1]["step"] == stop
    monkeypatch.undo()
    run = train(folder / "run.yaml", tmp_path / "out", workers=workers)
    assert_same_weights(run.weights, whole.weights)


def test_changed_data_is_named_by_an_unfinished_run_and_by_a_finished_one(trained, tmp_path, monkeypatch):
    folder, run = trained
    shutil.copytree(folder, tmp_path / "copy")
    content = json.loads((tmp_path / "copy" / "instances.json").read_text())
    content["annotations"][0]["bbox"][0] += 1
    (tmp_path / "copy" / "instances.json").write_text(json.dumps(content))
    with pytest.raises(WordTreeError, match="finished run over other data"):
        train(tmp_path / "copy" / "run.yaml", run.directory)

    def stopping(self, *given):
        raise WordTreeError("stopped")

    monkeypatch.setattr(training.Trainer, "save_weights", stopping)
    with pytest.raises(WordTreeError, match="stopped"):
        train(folder / "run.yaml", tmp_path / "out")
    with pytest.raises(WordTreeError, match="over data that has changed since"):
        train(tmp_path / "copy" / "run.yaml", tmp_path / "out")


def test_faults_stop_a_training_before_it_begins_unless_they_may_be_left_out(tmp_path):
    run = joint(tmp_path)
    content = json.loads((tmp_path / "instances.json").read_text())
    content["annotations"][0]["bbox"] = [10, 5, 0, 40]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    with pytest.raises(WordTreeError, match=r"annotation 1 of image 9: box from 10, 5 to 10, 45.*skip: \[boxes\]"):
        train(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    content = yaml.safe_load(run.read_text())
    content["sources"][0]["skip"] = ["boxes"]
    content["sources"] = content["sources"][:2]
    run.write_text(yaml.safe_dump(content))
    done = train(run, tmp_path / "out", steps=1, classifier_steps=1)
    assert done.metrics.keys() == {"seconds"}


@pytest.mark.parametrize(
    ("sources", "part"),
    [
        ([{"kind": "folder", "path": "names", "labels": "pets.csv"}], "no training source of .* has boxes"),
        ([{"kind": "folder", "path": "names", "labels": "pets.csv", "use": "test"}], "no source to train on"),
        ([{"kind": "csv", "path": "labels.csv"}], "has no labels; give `labels:`"),
        ([{"kind": "coco", "path": "instances.json", "labels": "pats"}], "no label map 'pats'"),
    ],
)
def test_sources_that_cannot_be_trained_on_are_refused(tmp_path, sources, part):
    joint(tmp_path)
    small_data.table(tmp_path)
    with pytest.raises(WordTreeError, match=part):
        train(write_run(tmp_path, sources), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("test", "part"),
    [
        ({"kind": "coco", "path": "typo.json", "labels": "pets.csv"}, "no annotations '.*typo.json'"),
        ({"kind": "coco", "path": "wrong/instances.json", "images": "wrong/images", "labels": "pets.csv"},
         r"annotation 4 .*`skip: \[boxes\]`"),
        ({"kind": "folder", "path": "more/names", "name": "cars"}, "test source 'cars' .*n02958343"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_test_source_is_told_before_anything_is_trained(tmp_path, test, part):
    run = joint(tmp_path, tree="pets.csv")
    small_data.folders(tmp_path / "more", (small_data.CAR,))
    wrong = {"id": 4, "image_id": 9, "category_id": 18, "bbox": [10, 5, 0, 40], "area": 0, "iscrowd": 0}
    small_data.coco(tmp_path / "wrong", annotations=[wrong])
    content = yaml.safe_load(run.read_text())
    run.write_text(yaml.safe_dump({**content, "sources": [*content["sources"][:2], {**test, "use": "test"}]}))
    with pytest.raises(WordTreeError, match=part):
        train(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_runs_data_is_hashed_once(tmp_path, monkeypatch, one_thread):
    run = joint(tmp_path)
    hashed = []
    once = feeds.RecordsFeed.fingerprint.func
    watched = cached_property(lambda self: hashed.append(once(self)) or hashed[-1])
    watched.__set_name__(feeds.RecordsFeed, "fingerprint")
    monkeypatch.setattr(feeds.RecordsFeed, "fingerprint", watched)
    done = train(run, tmp_path / "out")
    assert len(hashed) == 1
    assert json.loads((done.directory / "data.json").read_text()) == {"sha256": hashed[0]}


def test_boxes_alone_train_without_a_classifier_and_data_sets_may_bring_their_labels(tmp_path, one_thread):
    small_data.coco(tmp_path)
    annotated = [{"id": 1, "image_id": 9, "category_id": 18, "bbox": [10, 5, 40, 40]},
                 {"id": 2, "image_id": 31, "category_id": 17, "bbox": [4, 20, 50, 30]}]  # fmt: skip
    cars = lambda rows: [{"id": 18, "name": "zebra"}, {"id": 17, "name": "giraffe"}]  # noqa: E731 - nouns of one sense
    small_data.coco(tmp_path, annotations=annotated, categories=cars)
    small_data.folders(tmp_path)
    run = write_run(tmp_path, [{"kind": "coco", "path": "instances.json", "images": "images", "size": 32}], steps=2)
    done = train(run, tmp_path / "out")
    with (done.directory / "metrics.csv").open(newline="") as file:
        assert [row["phase"] for row in csv.DictReader(file)] in ([], ["boxes"])
    assert set(yolo9000.load(done.weights).tree.names) >= {"zebra", "giraffe"}
    assert Source("folder", tmp_path / "names", name="names").own_labels().ids == (DOG, CAT)


def test_the_command_evaluates_at_several_sizes_and_writes_json(trained, command):
    folder, run = trained
    words = ["evaluate", "--weights", run.directory, "--data", folder / "run.yaml", "--sizes", "48,64"]
    done = command(*words, "--json", "--out", folder / "results")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert {name.split("/")[0] for name in figures} == {"voc@48", "voc@64", "held@48", "held@64"}
    assert figures["voc@64/images_per_second"] > 0
    assert figures["voc@64/AP50"] == run.metrics["voc/AP50"]
    assert (folder / "results" / "voc-speed.png").is_file()
    assert json.loads((folder / "results" / "evaluation.json").read_text())["figures"] == figures
    assert (folder / "results" / "voc-64" / "precision_recall.png").is_file()
    table = command(*words[:-2], "--out", folder / "more")
    assert "images_per_second" in table.stdout
    assert "3 pictures: " in table.stdout
    assert "load average" in table.stdout
    assert f"files: {folder / 'more'}" in table.stdout
    wrong = command(*words[:-1], "50", "--out", folder / "none")
    assert not (folder / "none").exists()
    assert wrong.returncode == 2
    assert "a size of 50 pixels" in wrong.stderr


def test_a_classifiers_names_are_scored_as_it_says_them_and_its_boxes_refused(trained, tmp_path):
    folder, _ = trained
    run = read_run(folder / "run.yaml")
    tree = build_tree(PETS)
    torch.manual_seed(0)
    model = yolo9000.models.darknet19(tree, 32, (8, 16), (1, 1)).eval()
    names = dataclasses.replace(run, sources=run.sources[3:])
    records = names.sources[0].read(PETS, tree)
    nodes = PETS.nodes_on(tree).tolist()
    right = 0
    for index in range(len(records)):
        image, target = records[index]
        view = classifier_view(image, 32, AUGMENTATIONS["none"], stream(0))
        with torch.no_grad():
            probs = model(view[None].float() / 255)[0]
        right += max(nodes, key=lambda node: float(probs[node])) == int(target["labels"])
    figures = evaluate_run(model, names)
    assert {name: figures[f"held/{name}"] for name in ("top1", "top5")} == {"top1": right / len(records), "top5": 1.0}
    assert figures["held/leaves/top1"] == figures["held/top1"]  # dog and cat are leaves here
    with pytest.raises(WordTreeError, match="a classifier's weights for the boxes of 'voc'; give a detector's"):
        evaluate_run(model, run)


def test_the_command_writes_shards_that_train_the_same(trained, tmp_path, one_thread, command):
    folder, whole = trained
    done = command("shards", folder / "run.yaml", tmp_path / "shards", "--per-shard", "2")
    assert done.returncode == 0, done.stderr
    assert "coco: 3 images in 2 shards" in done.stdout
    content = yaml.safe_load((folder / "run.yaml").read_text())
    for source in content["sources"][:2]:
        source |= {"path": f"shards/{source['kind']}", "name": source["kind"], "kind": "shards", "labels": "pets.csv"}
        source.pop("images", None)
    content["sources"] = content["sources"][:2]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    PETS.save(tmp_path / "pets.csv")
    run = train(tmp_path / "run.yaml", tmp_path / "out")
    assert_same_weights(run.weights, whole.weights)


def test_every_key_of_a_run_file_is_told_in_the_docs():
    page = (Path(__file__).parent.parent / "docs" / "data.md").read_text()
    for key in (*RUN_KEYS, *Source.__dataclass_fields__):
        assert f"`{key}`" in page, key
