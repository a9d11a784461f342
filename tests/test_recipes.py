"""Recipes by name: their networks, their rates, what they refuse, and a shrunk copy of each that trains."""

from pathlib import Path

import numpy as np
import oracle
import pytest
import small_data
import torch
import yaml

import yolo9000
from wordtree import WordTreeError
from yolo9000 import models
from yolo9000.cfg import Cfg
from yolo9000.checkpoints import load_model, save_model
from yolo9000.config import config_of
from yolo9000.convert import convert
from yolo9000.data.augment import AUGMENTATIONS
from yolo9000.feeds import Phase, RecordsFeed
from yolo9000.inference import fuse
from yolo9000.loss import RULES
from yolo9000.recipes import ABLATIONS, recipe, recipes, switched
from yolo9000.reports import Progress
from yolo9000.runfile import read_run, shares
from yolo9000.schedule import learning_rate, rate_of
from yolo9000.training import Trainer
from yolo9000.weights import load_weights

# recipe: learnable numbers and billions of operations at its size, as counted from the official cfgs; and its cfg
KNOWN = {
    "darknet19-imagenet-224": (20_842_376, 5.582, None),
    "darknet19-imagenet-448": (20_842_376, 22.328, None),
    "darknet19-imagenet-2016": (20_842_376, 5.582, None),
    "darknet19-imagenet-2017": (20_842_376, 7.291, "darknet19"),
    "darknet19-imagenet-448-2016": (20_842_376, 22.328, "darknet19_448"),
    "darknet9000-2017-04": (29_470_826, 25.707, "darknet9000"),
    "yolov2-voc": (67_137_565, 59.678, None),
    "yolov2-coco": (67_445_065, 59.855, None),
    "yolov2-voc-2016": (67_137_565, 34.898, "yolo-voc_2016"),
    "yolov2-coco-2016": (67_445_065, 35.002, "yolo_2016"),
    "yolov2-voc-2017": (50_655_389, 29.360, "yolov2-voc"),
    "yolov2-coco-2017": (50_962_889, 62.938, "yolov2"),
    "yolo9000": (48_793_101, 28.690, None),
    "yolo9000-2017-01": (48_793_101, 28.690, "yolo9000_2016"),
    "yolo9000-2017-04": (48_793_101, 49.062, "yolo9000"),
}
# a network of the same form that trains in a moment
SHRUNK = {
    "widths": [4, 4, 4, 4, 4, 8], "counts": [1, 1, 3, 1, 1, 3], "workers": 0, "precision": "float32", "device": "cpu",
    "checkpoint_every": 100,
}  # fmt: skip


def network(name: str, **options):
    from yolo9000.tables import summary

    one = recipe(name)
    config, tree = one.config(**options), one.built_tree()
    with torch.device("meta"):
        if not config.steps:
            model = models.darknet19(tree, config.size, config.widths, config.counts)
        else:
            model = models.of_config(config, tree, models.priors_of(config.priors) if config.priors else [[1, 1]] * 5)
    return model, summary(model)


# ---------------------------------------------------------------------- what they say


def test_every_recipe_says_where_it_comes_from_and_what_was_published():
    assert {*KNOWN} < {*recipes()}
    for name in recipes():
        one = recipe(name)
        assert ("paper section" in one.source) != ("release" in one.source)
        assert "%" in one.figure or one.figure.startswith("none published")
        assert one.augment in AUGMENTATIONS
        assert not one.begins or one.begins in recipes()
        assert one.config().optimizer == "sgd"
        assert (one.config().momentum, one.config().decay, one.config().average) == (0.9, 0.0005, 0.0)


@pytest.mark.parametrize("name", KNOWN)
def test_every_network_has_the_numbers_of_the_official_one(name):
    _, table = network(name)
    learnable, billions, _ = KNOWN[name]
    assert table.learnable == learnable
    assert round(table.flops / 1e9, 3) == pytest.approx(billions, abs=0.0011)


def test_the_tree_of_wordtree1k_is_that_of_the_paper_in_size():
    for name in ("darknet19-imagenet-224-wordtree", "darknet19-imagenet-448-wordtree"):
        assert len(recipe(name).built_tree()) == 1369


@pytest.mark.parametrize("name", [name for name, (*_, cfg) in KNOWN.items() if cfg])
def test_every_released_rate_is_its_cfgs_update_by_update(name):
    file = oracle.FOLDER / "cfg" / f"{KNOWN[name][2]}.cfg"
    if not file.is_file():
        pytest.skip("waits for Darknet's cfgs, in ../shared/oracle beside the project")
    cfg, config = Cfg.read(file), recipe(name).config()
    classify = not config.steps
    steps = config.classifier_steps if classify else config.steps
    assert steps == cfg.net.whole("max_batches")
    mode = "darknet" if name.endswith(("2016", "2017-01")) else "darknet-2018"
    marks = {1, 2, 500, 999, 1000, 1001, steps - 1, steps, *config.steps_at, *(one - 1 for one in config.steps_at)}
    for update in sorted(one for one in {*marks, *np.linspace(1, steps, 200).astype(int).tolist()} if one > 0):
        wanted = learning_rate(cfg.net, update, mode)
        assert rate_of(config, update - 1, steps, classify) == pytest.approx(wanted, rel=1e-12), update
    assert config.momentum == cfg.net.number("momentum", 0)
    assert config.decay == cfg.net.number("decay", 0)
    assert config.size == cfg.net.whole("width")
    if classify:
        return
    region, how = cfg.sections[-1], AUGMENTATIONS[recipe(name).augment]
    assert models.priors_of(config.priors) == np.reshape(region.numbers("anchors"), (-1, 2)).tolist()
    assert (len(config.sizes) > 1) == bool(region.whole("random"))
    assert how.jitter == region.number("jitter", 0)
    assert (how.hue, how.saturation) == (cfg.net.number("hue", 0), cfg.net.number("saturation", 0))


def test_the_papers_rates_change_at_its_epochs():
    config = recipe("yolov2-voc").config()
    epoch = 16551 / config.batch
    rates = [rate_of(config, int(at * epoch), config.steps) for at in (0, 59, 61, 89, 91, 159)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    config = recipe("darknet19-imagenet-224").config()
    assert config.classifier_steps * config.classifier_batch == pytest.approx(160 * 1281167, rel=1e-6)
    middle = rate_of(config, config.classifier_steps // 2, config.classifier_steps, True)
    assert middle == pytest.approx(0.1 * 0.5**4, rel=1e-4)


def test_sizes_take_turns_every_ten_updates_from_320_to_608():
    config = recipe("yolo9000").config()
    phase = Phase("", config.steps, config.batch, config.sizes)
    sizes = [phase.size_at(step, 0) for step in range(2000)]
    assert {*sizes} == {*range(320, 609, 32)}
    assert all(sizes[at] == sizes[at - at % 10] for at in range(2000))


def test_an_unknown_recipe_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(WordTreeError, match=r"no recipe 'yolo9001'.*did you mean 'yolo9000'"):
        recipe("yolo9001")
    with pytest.raises(WordTreeError, match=r"recipe 'yolov2-voc' and no data; it is for VOC 2007"):
        yolo9000.train(recipe="yolov2-voc", out=tmp_path / "run")


# ---------------------------------------------------------------------- a run.yaml that names one


def written(folder: Path, sources: list[dict], **settings) -> Path:
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump({"sources": sources, **settings}, sort_keys=False))
    return file


def boxes(folder: Path, kind: str = "coco") -> dict:
    small_data.PETS.save(folder / "pets.csv")
    if kind == "voc":
        small_data.voc(folder)
        return {"kind": "voc", "path": "VOC2007", "labels": "pets.csv"}
    small_data.coco(folder)
    return {"kind": "coco", "path": "instances.json", "images": "images", "labels": "pets.csv"}


def names(folder: Path) -> dict:
    small_data.PETS.save(folder / "pets.csv")
    small_data.folders(folder, each=4)
    return {"kind": "folder", "path": "names", "labels": "pets.csv"}


def test_a_run_file_wins_over_its_recipe_and_an_option_over_both(tmp_path):
    run = read_run(written(tmp_path, [boxes(tmp_path)], recipe="yolov2-voc-2017", rate=0.5, momentum=0.8))
    config = run.config(momentum=0.7)
    assert (config.steps, config.rate, config.momentum) == (80200, 0.5, 0.7)
    assert (run.augment, run.tree, run.recipe) == ("yolov2-2017", ("flat",), "yolov2-voc-2017")
    tree = run.built_tree(run.labels())
    assert tree.ids == small_data.PETS.ids
    assert tree.names == small_data.PETS.labels
    assert not (tree.parents >= 0).any()
    other = read_run(run.path, "yolov2-coco-2016")
    assert other.config().steps == 120000
    assert other.augment == "yolov2-2016"
    plain = read_run(written(tmp_path, [boxes(tmp_path)], recipe="yolov2-voc-2017", augment="none", tree="pets.csv"))
    assert plain.augment == "none"
    assert plain.built_tree(plain.labels()).parents.max() >= -1
    with pytest.raises(WordTreeError, match=r"no recipe 'yolov2-vox'.*yolov2-voc"):
        read_run(written(tmp_path, [boxes(tmp_path)], recipe="yolov2-vox"))


def test_a_joint_recipe_draws_four_names_to_a_box_where_the_file_does_not_say(tmp_path):
    given = [boxes(tmp_path), names(tmp_path), {**names(tmp_path), "name": "more"}]
    run = read_run(written(tmp_path, given, recipe="yolo9000"))
    assert [float(part) for part in shares(run.used("train"))] == pytest.approx([0.2, 0.4, 0.4])
    given[1]["ratio"] = 1
    run = read_run(written(tmp_path, given, recipe="yolo9000"))
    assert [float(part) for part in shares(run.used("train"))] == pytest.approx([1 / 3] * 3)
    with pytest.raises(WordTreeError, match=r"may hold boxes or names.*give each source a ratio"):
        read_run(written(tmp_path, [boxes(tmp_path), {"kind": "shards", "path": "s"}], recipe="yolo9000"))


@pytest.mark.parametrize("name", recipes())
def test_a_shrunk_copy_of_every_recipe_trains(name, tmp_path, one_thread):
    one = recipe(name)
    settings = dict(SHRUNK)
    classify = one.settings["steps"] == 0
    if classify:
        settings |= {"classifier_steps": 2, "classifier_batch": 4, "classifier_sizes": [64], "sizes": [64], "size": 64}
        sources = [names(tmp_path)]
    else:
        settings |= {"steps": 2, "batch": 5, "size": 64, "sizes": [64]}
        sources = [boxes(tmp_path, "voc" if "voc" in name else "coco")]
        if one.ratio:
            sources.append(names(tmp_path))
        if not one.settings.get("priors"):
            settings["anchors"] = 1
    settings["accumulate"] = 1
    if one.tree == ("imagenet1k",):
        settings["tree"] = ["imagenet1k", "pets.csv"]
    run = yolo9000.train(data=written(tmp_path, sources, recipe=name, **settings), out=tmp_path / "run", progress=False)
    model, _ = load_model(run.weights)
    kept = one.config()
    assert (run.config.optimizer, run.config.policy, run.config.rate) == ("sgd", kept.policy, kept.rate)
    if classify:
        assert isinstance(model, models.TreeClassifier)
    else:
        assert isinstance(model.neck, models.Passthrough) == (kept.network == "yolov2")
        assert len(model.head.anchors) == (len(models.priors_of(kept.priors)) if kept.priors else 1)
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


def test_a_release_pulls_boxes_to_their_priors_by_the_images_that_the_run_has_seen(tmp_path, one_thread):
    seen = []

    class Watched(Trainer):
        def _step(self, *given):
            seen.append(self.model.seen)
            return super()._step(*given)

    run = read_run(written(tmp_path, [boxes(tmp_path)], recipe="yolov2-voc-2016", **SHRUNK))
    config = run.config(steps=3, batch=4, size=64, sizes=[64], accumulate=1)
    trainer = Watched(config, tmp_path / "run", RecordsFeed(run, tmp_path / "run", config))
    with Progress(enabled=False) as bar:
        trainer.train(bar, lambda: False)
    assert seen == [4, 8, 12]
    assert trainer.model.loss_rules is RULES["darknet"]
    assert trainer.model.loss_rules.prior_images == 12800


def test_a_recipe_may_be_tried_on_the_embedded_set(tmp_path, one_thread):
    tiny = {**SHRUNK, "steps": 2, "batch": 4, "size": 64, "sizes": [64], "accumulate": 1, "boxed_pictures": 4}
    run = yolo9000.train(
        recipe="yolov2-voc-2017", data="embedded", out=tmp_path / "run", progress=False, test_scenes=2, **tiny
    )
    assert run.config.burn_in == 1000
    assert isinstance(load_model(run.weights)[0].neck, models.Passthrough)


# ---------------------------------------------------------------------- the steps from YOLO to YOLOv2

TINY = {"widths": [4, 4, 8], "counts": [1, 1, 3], "size": 64, "sizes": [32, 64], "network": "yolov2", "anchors": 3}


def small(**settings):
    torch.manual_seed(0)
    config = config_of(switched({**TINY, **settings}, settings.pop("without", ())))
    if config.location == "image":
        anchors = [[1.0, 1.0]] * config.anchors
    else:
        anchors = models.priors_of(config.priors) if config.priors else [[1.0, 1.0], [2.0, 3.0], [3.0, 2.0]]
    return config, models.of_config(config, small_data.SMALL, anchors)


NETWORK_STEPS = [name for name in ABLATIONS if name not in ("high-resolution-classifier", "multi-scale")]


@pytest.mark.parametrize("name", NETWORK_STEPS)
def test_a_network_without_a_step_is_another_learns_and_is_read_back_as_it_was(name, tmp_path):
    extra = {"widths": [4, 4, 4, 4, 8, 16], "counts": [1] * 6} if name == "new-network" else {}
    _, usual = small(**extra)
    config, model = small(without=[name], **extra)
    assert config.without == (name,)
    batch = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    targets = [
        {"boxes": torch.tensor([[8.0, 10, 40, 50]]), "labels": torch.tensor([3])},
        {"labels": torch.tensor([4])},
    ]
    kinds = [{key: value.shape for key, value in one.state_dict().items()} for one in (usual, model)]
    if name in ("location-prediction", "high-resolution-detector"):  # the same weights, read in another way
        assert kinds[0] == kinds[1]
        raw = usual.eval().region(batch).raw
        assert (usual.head.location, usual.size) != (model.head.location, model.size)
        assert torch.equal(raw, model.eval().region(batch).raw)
    else:
        assert kinds[0] != kinds[1] or name == "dimension-priors"
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = torch.stack(list(model(batch, targets).values())).sum()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    again, header = load_model(save_model(tmp_path / "net.safetensors", model))
    assert header["model"] == model.options
    one, other = model.eval().region(batch), again.region(batch)
    assert torch.equal(one.raw, other.raw)
    model.threshold = again.threshold = 0.0
    found, wanted = again(batch), model(batch)
    assert torch.equal(found[0]["boxes"], wanted[0]["boxes"])
    assert again.head.location == model.head.location
    assert again.scales == model.scales


def test_boxes_told_as_offsets_or_of_the_image_are_those_that_the_loss_wants():
    from yolo9000.region import LOCATIONS, decode, encode

    generator = torch.Generator().manual_seed(0)
    wanted = torch.rand(50, 4, generator=generator) * 0.8 + 0.1
    grid, anchors = torch.tensor([7.0, 5.0]), torch.rand(50, 2, generator=generator) + 0.5
    cells = (wanted[:, :2] * grid).floor()
    for location in LOCATIONS:
        aims = encode(wanted, cells, anchors, grid, location)
        if location == "direct":
            aims[:, :2] = aims[:, :2].logit()
        for row, aim in enumerate(aims):
            raw = torch.zeros(1, 5, 7, 1, 5)
            column, line = cells[row].long().tolist()
            raw[0, line, column, 0, :4] = aim
            found = decode(raw, anchors[row][None], location)[0, line, column, 0]
            torch.testing.assert_close(found, wanted[row], rtol=1e-4, atol=1e-5)


def test_an_offset_may_leave_its_cell_and_a_direct_centre_may_not():
    from yolo9000.region import decode

    raw = torch.full((1, 2, 2, 1, 5), 30.0)
    direct, offset = (decode(raw, torch.ones(1, 2), location)[0, 0, 0, 0] for location in ("direct", "offset"))
    assert direct[:2].tolist() == pytest.approx([0.5, 0.5])
    assert offset[:2].tolist() == pytest.approx([15.25, 15.25])


@pytest.mark.parametrize("name", ["batch-norm", "location-prediction", "anchors", "passthrough"])
def test_a_network_without_a_step_detects_fused_as_it_does_whole_and_no_cfg_lies_about_it(name, tmp_path):
    _, model = small(without=[name])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    model.eval().threshold = 0.0
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    file = save_model(tmp_path / "net.safetensors", model)
    whole = model([image])[0]
    fused = fuse(load_model(file)[0])
    fused.threshold = 0.0
    torch.testing.assert_close(fused([image])[0]["boxes"], whole["boxes"], rtol=1e-3, atol=1e-2)
    if name in ("location-prediction", "anchors"):
        with pytest.raises(WordTreeError, match="which no cfg can say"):
            convert(file, tmp_path / "net.weights")
        assert not (tmp_path / "net.weights").exists()
    else:
        convert(file, tmp_path / "net.weights")
        again = models.from_cfg(tmp_path / "net.cfg")
        load_weights(again, tmp_path / "net.weights")
        torch.testing.assert_close(again.eval().raw(image[None]), model.raw(image[None]), rtol=1e-4, atol=1e-5)


def test_without_priors_the_nearest_shape_predicted_answers():
    _, usual = small()
    config, model = small(without="anchors")
    assert usual.scales.bias_match
    assert not model.scales.bias_match
    assert len(model.head.anchors) == 2
    assert config.location == "image"


def test_the_schedules_steps_change_the_schedule():
    config, _ = small(without=["multi-scale"])
    assert config.sizes == (64,)
    config, _ = small(without=["multi-scale", "high-resolution-detector"])
    assert (config.size, config.sizes) == (48, (48,))
    config, _ = small(without=["high-resolution-classifier"], classifier_sizes=[32, 64])
    assert config.classifier_sizes == (32,)
    settings = recipe("yolov2-voc").settings
    lowest = switched(settings, ["passthrough", "multi-scale", "high-resolution-detector", "location-prediction"])
    assert (lowest["size"], lowest["sizes"], lowest["passthrough"]) == (416, [416], False)


def test_the_network_before_darknet19_has_the_numbers_of_extraction():
    from yolo9000.tables import summary

    with torch.device("meta"):
        model = models.darknet19(1000, 224, trunk="extraction")
    table = summary(model)
    assert (table.learnable, round(table.flops / 1e9, 3)) == (23_437_224, 8.519)


def test_without_the_high_resolution_classifier_the_start_is_one_of_224(tmp_path):
    from yolo9000.start import begin

    _, model = small(without=["high-resolution-classifier"], classifier_steps=0)
    low = models.darknet19(small_data.SMALL, 224, TINY["widths"], TINY["counts"])
    high = models.darknet19(small_data.SMALL, 448, TINY["widths"], TINY["counts"])
    begin(model, save_model(tmp_path / "low.safetensors", low), low=True)
    with pytest.raises(WordTreeError, match="is of 448 pixels; give the weights of a classifier at 224"):
        begin(model, save_model(tmp_path / "high.safetensors", high), low=True)
    file = written(tmp_path, [boxes(tmp_path)], recipe="yolov2-voc", without=["high-resolution-classifier"])
    with pytest.raises(WordTreeError, match="without high-resolution-classifier and no start"):
        yolo9000.train(data=file, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("without", "settings", "message"),
    [
        (["pass-through"], {}, "no step to go without 'pass-through'.*passthrough"),
        (["passthrough"], {"network": "yolo9000"}, "this network has none"),
        (["multi-scale"], {"sizes": [64]}, "without multi-scale changes nothing here"),
        (["batch-norm"], {"normalized": False}, "without batch-norm changes nothing here"),
        (["high-resolution-classifier"], {"classifier_sizes": [64]}, "changes nothing here"),
        (["passthrough"], {"steps": 0}, "without passthrough in a run of a classifier"),
        (["anchors", "dimension-priors"], {}, "without anchors there are none of these"),
    ],
)
def test_what_cannot_be_switched_off_is_refused(without, settings, message):
    with pytest.raises(WordTreeError, match=message):
        small(without=without, **settings)


def test_a_run_without_a_step_trains_and_its_weights_are_read_back(tmp_path, one_thread):
    small_run = {**SHRUNK, "steps": 2, "batch": 3, "size": 64, "sizes": [32, 64], "accumulate": 1, "anchors": 1}
    file = written(
        tmp_path, [boxes(tmp_path)], recipe="yolov2-voc", without=["passthrough", "batch-norm", "location-prediction"],
        **small_run,
    )  # fmt: skip
    run = yolo9000.train(data=file, out=tmp_path / "run", progress=False)
    assert run.config.without == ("passthrough", "batch-norm", "location-prediction")
    model, _ = load_model(run.weights)
    assert not isinstance(model.neck, models.Passthrough)
    assert not any("running_mean" in key for key in model.state_dict())
    assert model.head.location == "offset"
    again = yolo9000.train(data=file, out=tmp_path / "run", progress=False)  # finished: the same settings
    assert again.weights == run.weights


def test_the_page_of_recipes_names_every_recipe_and_every_step():
    page = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text()
    for name in (*recipes(), *ABLATIONS):
        assert f"`{name}`" in page, name
