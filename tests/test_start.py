"""Runs of a classifier alone, and runs that begin from weights: what is taken, what is fresh, what is refused."""

import json

import pytest
import small_data
import torch
from small_data import SMALL
from test_runfile import joint, train, write_run

import yolo9000
from wordtree import WordTree, WordTreeError
from yolo9000 import models
from yolo9000.checkpoints import load_model, save_model
from yolo9000.classifier import TreeClassifier
from yolo9000.start import begin
from yolo9000.weights import save_weights

LOOKS = {"widths": (4, 8), "counts": (1, 3)}
OTHER = WordTree([*SMALL.ids[:4], "n04004475"], [-1, -1, 0, 0, 1], [*SMALL.names[:4], "printer"])


def classifier(tree=SMALL, seed=1, **options) -> TreeClassifier:
    torch.manual_seed(seed)
    model = models.darknet19(tree, 32, **{**LOOKS, **options})
    torch.nn.init.normal_(model.classes.bias)
    return model


def detector(tree=SMALL, seed=2, anchors=2, **options):
    torch.manual_seed(seed)
    return models.yolo9000(tree, [[1.0, 1.0]] * anchors, 32, **{**LOOKS, **options})


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def saved(model, folder, name="start.safetensors"):
    return save_model(folder / name, model)


# ---------------------------------------------------------------------- what is taken


def test_a_tree_classifier_starts_every_anchor_where_nodes_agree_by_id(tmp_path):
    source, model = classifier(OTHER), detector()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    told = begin(model, saved(source, tmp_path))
    assert same(model.trunk, source.trunk)
    agreed = {SMALL.ids.index(id_): OTHER.ids.index(id_) for id_ in SMALL.ids if id_ in OTHER.ids}
    assert len(agreed) == 4
    for node in range(len(SMALL)):
        for anchor in range(2):
            if node in agreed:
                assert torch.equal(model.head.classes.weight[anchor, node], source.classes.weight[0, agreed[node]])
                assert torch.equal(model.head.classes.bias[anchor, node], source.classes.bias[0, agreed[node]])
            else:
                assert torch.equal(model.head.classes.weight[anchor, node], before["head.classes.weight"][anchor, node])
    assert torch.equal(model.head.boxes.weight, before["head.boxes.weight"])
    assert told == ("start start.safetensors: trunk, classes of 4 of 6 nodes; fresh: boxes, classes of 2 nodes")


def test_a_detector_of_the_same_form_is_taken_whole_and_another_as_far_as_it_fits(tmp_path):
    source = detector(seed=5, neck=[8])
    file = saved(source, tmp_path)
    model = detector(neck=[8])
    assert begin(model, file).endswith("trunk, neck, boxes, classes of 6 of 6 nodes; fresh: nothing")
    assert same(model, source)
    fewer = detector(neck=[8], anchors=3)
    told = begin(fewer, file)
    assert told.endswith("trunk, neck; fresh: boxes, classes of 6 of 6 nodes")
    assert same(fewer.trunk, source.trunk)
    assert same(fewer.neck, source.neck)
    plain, untouched = detector(), detector()
    assert begin(plain, file).endswith("trunk; fresh: boxes, classes of 6 of 6 nodes")
    assert same(plain.trunk, source.trunk)
    assert same(plain.head, untouched.head)


def test_layers_between_trunk_and_head_leave_the_classes_fresh(tmp_path):
    model, untouched = detector(neck=[8]), detector(neck=[8])
    assert begin(model, saved(classifier(), tmp_path)).endswith("fresh: neck, boxes, classes of 6 of 6 nodes")
    assert same(model.head, untouched.head)


def test_a_classifier_starts_a_classifier(tmp_path):
    source, model = classifier(seed=8), classifier(seed=9)
    assert begin(model, saved(source, tmp_path)).endswith("trunk, classes of 6 of 6 nodes; fresh: nothing")
    assert same(model, source)
    with pytest.raises(WordTreeError, match="is a detector's, for a classifier"):
        begin(model, saved(detector(), tmp_path))


def test_darknets_files_start_a_run_whole_or_in_part(tmp_path):
    source, model = classifier(seed=8), detector()
    file = save_weights(source, tmp_path / "names.weights")
    told = begin(model, file)
    assert told.endswith("trunk, classes of 6 of 6 nodes; fresh: boxes")
    assert same(model.trunk, source.trunk)
    assert torch.equal(model.head.classes.weight, source.classes.weight.expand_as(model.head.classes.weight))
    part, fresh = save_weights(source, tmp_path / "names.conv.3", upto=3), detector()
    assert begin(fresh, part) == "start names.conv.3: layers 0 to 2; all others fresh"
    assert same(fresh.trunk.stages[0], source.trunk.stages[0])
    assert not same(fresh.trunk, source.trunk)
    whole = detector(seed=11)
    again = detector(seed=12)
    begin(again, save_weights(whole, tmp_path / "net.weights"))
    assert same(again, whole)


def test_another_trunk_is_named(tmp_path):
    with pytest.raises(WordTreeError, match=r"has a trunk with stages\.0\.0\.0\.weight \(6, 3, 3, 3\).*\(4, 3, 3, 3\)"):
        begin(detector(), saved(classifier(widths=(6, 8)), tmp_path))
    with pytest.raises(WordTreeError, match=r"no weights .*gone\.safetensors"):
        begin(detector(), tmp_path / "gone.safetensors")


# ---------------------------------------------------------------------- runs


def names_run(folder, **settings):
    """A run of names alone."""
    small_data.PETS.save(folder / "pets.csv")
    small_data.folders(folder, each=4)
    source = {"kind": "folder", "path": "names", "labels": "pets.csv"}
    return write_run(folder, [source, {**source, "use": "test", "name": "held"}], **{"steps": 0, **settings})


def test_a_run_may_be_of_a_classifier_alone_and_start_the_next(tmp_path, one_thread):
    file = names_run(tmp_path)
    first = train(file, tmp_path / "low")
    assert {"seconds", "held/top1", "held/top5"} <= set(first.metrics)
    model = yolo9000.load(first.weights)
    assert isinstance(model, TreeClassifier)
    assert model.size == 32
    assert yolo9000.evaluate(first.weights, file)["held/top1"] == first.metrics["held/top1"]
    second = train(file, tmp_path / "high", start=first.directory, classifier_sizes=[64], classifier_rate=1e-9)
    tuned = yolo9000.load(second.weights)
    assert tuned.size == 64
    assert torch.allclose(tuned.classes.weight, model.classes.weight, atol=1e-6)
    boxes = tmp_path / "boxes"
    boxes.mkdir()
    run = train(joint(boxes), tmp_path / "detector", start=str(second.weights), classifier_steps=0, rate=1e-9)
    detector = yolo9000.load(run.weights)
    for anchor in range(2):
        assert torch.allclose(detector.head.classes.weight[anchor], tuned.classes.weight[0], atol=1e-6)
    assert torch.allclose(detector.trunk.stages[0][0][0].weight, tuned.trunk.stages[0][0][0].weight, atol=1e-6)


def test_a_stopped_classifier_goes_on_and_another_start_is_refused(tmp_path, one_thread):
    file = names_run(tmp_path, classifier_steps=4)
    start, other = (
        saved(models.darknet19(tree_of(file), 32, [8] * 5, [1] * 5), tmp_path, f"{n}.safetensors") for n in "ab"
    )
    whole = train(file, tmp_path / "whole", start=str(start))

    from yolo9000.config import Config
    from yolo9000.feeds import RecordsFeed
    from yolo9000.reports import Progress
    from yolo9000.runfile import read_run
    from yolo9000.start import with_hash
    from yolo9000.training import Trainer

    run, cut = read_run(file), tmp_path / "cut"
    config = with_hash(run.config(start=str(start)))
    assert isinstance(config, Config)
    trainer = Trainer(config, cut, RecordsFeed(run, cut, config))
    with pytest.raises(KeyboardInterrupt), Progress(enabled=False) as bar:
        trainer.train(bar, lambda: trainer.step >= 2)
    with pytest.raises(WordTreeError, match="other settings \\(start, start_hash\\)"):
        train(file, cut, start=str(other))
    kept = start.read_bytes()
    start.write_bytes(other.read_bytes())
    with pytest.raises(WordTreeError, match="other settings \\(start_hash\\)"):
        train(file, cut, start=str(start))
    start.write_bytes(kept)
    again = train(file, cut, start=str(start))
    for one, two in zip(
        load_model(whole.weights)[0].parameters(), load_model(again.weights)[0].parameters(), strict=True
    ):
        assert torch.equal(one, two)
    assert json.loads((cut / "config.json").read_text())["start_hash"] == config.start_hash
    with pytest.raises(WordTreeError, match="asked for was abc"):
        train(file, tmp_path / "new", start=str(start), start_hash="abc")


def tree_of(file):
    from yolo9000.runfile import read_run

    run = read_run(file)
    return run.built_tree(run.labels())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classifier_steps": 0}, "steps of 0, and 0 classifier_steps"),
        ({"start": "gone.weights"}, r"no weights 'gone\.weights' to start from"),
        ({"start_hash": "abc"}, "start_hash abc and no start"),
    ],
)
def test_what_is_no_run_is_refused_before_it_starts(tmp_path, settings, message):
    file = names_run(tmp_path)
    with pytest.raises(WordTreeError, match=message):
        train(file, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_the_embedded_set_has_no_run_of_a_classifier_alone(tmp_path):
    with pytest.raises(WordTreeError, match="steps of 0 on the embedded set"):
        yolo9000.train(joint=True, out=tmp_path / "run", progress=False, steps=0)
