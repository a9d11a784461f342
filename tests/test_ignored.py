"""Regions in which nothing is known: from a data set's flagged boxes to the objectness that is left alone."""

import numpy as np
import pytest
import reference
import small_data
import torch
from hypothesis import given
from hypothesis import strategies as st
from region_heads import DOG, EXACT, SMALL, dense_logits, random_region, random_target, small_head
from small_data import CAT, PETS, picture
from test_torchvision import IMAGES, TREE
from tiny_detectors import KINDS, scene, tiny
from wordtree_torchvision import attach

import yolo9000
from wordtree import WordTreeError, build_tree
from yolo9000 import models
from yolo9000.boxes import inside
from yolo9000.data.augment import AUGMENTATIONS
from yolo9000.data.coco import read_coco
from yolo9000.data.loading import Key, Views
from yolo9000.data.openimages import read_openimages
from yolo9000.data.shards import read_shards, write_shards
from yolo9000.data.voc import read_voc
from yolo9000.loss import region_losses
from yolo9000.lossrules import RULES
from yolo9000.ready import mirrored, ready_batch
from yolo9000.runfile import read_run

TREE_OF_PETS = build_tree(PETS)
boxes = st.lists(st.floats(0, 1), min_size=4, max_size=4).map(
    lambda x: [min(x[0], x[2]), min(x[1], x[3]), max(x[0], x[2]) + 0.01, max(x[1], x[3]) + 0.01]
)


@given(st.lists(boxes, min_size=1, max_size=4), st.lists(boxes, min_size=1, max_size=4))
def test_the_share_inside_is_the_intersection_by_the_boxs_own_area(some, regions):
    found = inside(torch.tensor(some, dtype=torch.float64), torch.tensor(regions, dtype=torch.float64))
    for row, box in zip(found.tolist(), some, strict=True):
        assert row == pytest.approx([reference.share_inside(box, region) for region in regions])


# ---------------------------------------------------------------------- the loss


def with_regions(target, random, count):
    low = random.rand(count, 2) * 0.6
    corners = np.concatenate((low, low + 0.2 + random.rand(count, 2) * 0.4), axis=1)
    return {**target, "ignored": torch.from_numpy(corners)}


@pytest.mark.parametrize("seed", range(6))
def test_the_loss_equals_the_loops_in_value_and_gradient(seed):
    random = np.random.RandomState(seed)
    targets = [random_target(SMALL, count, random) for count in (2, 0, 1, None)]
    targets[:2] = [with_regions(target, random, 2) for target in targets[:2]]
    targets[2] = {**targets[2], "ignored": torch.zeros(0, 4, dtype=torch.float64)}
    head, region = small_head(SMALL, seed=seed), random_region(4, 3, 3, 2, seed=seed)
    with torch.no_grad():
        region.raw[..., 2:4] -= 1.0  # small enough to lie in a region
    found = region_losses(head, region, targets)
    wanted = reference.region_loss(region.raw, dense_logits(head, region), targets, head.anchors, SMALL)
    for name in found:
        torch.testing.assert_close(found[name].detach(), wanted[name].detach(), **EXACT)
    ours, plain = (torch.autograd.grad(one["objectness"], region.raw)[0] for one in (found, wanted))
    torch.testing.assert_close(ours, plain, **EXACT)
    without = region_losses(head, region, [{k: v for k, v in one.items() if k != "ignored"} for one in targets])
    assert found["objectness"] < without["objectness"]
    for name in ("box", "tree", "image_label"):
        assert torch.equal(found[name], without[name])


def test_a_box_in_a_region_is_left_alone_and_one_outside_is_pushed_down():
    head, region = small_head(SMALL), random_region(1, 2, 2, 2)
    with torch.no_grad():
        region.raw[..., :2], region.raw[..., 2:4] = 0.0, -2.0
    left = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    target = {**left, "ignored": torch.tensor([[0.0, 0.0, 0.5, 1.0]], dtype=torch.float64)}
    loss = region_losses(head, region, [target])["objectness"]
    (moved,) = torch.autograd.grad(loss, region.raw)
    assert not moved[:, :, 0].any()
    assert (moved[:, :, 1, :, 4] > 0).all()


def test_a_truth_in_a_region_is_learnt_as_ever():
    head, region = small_head(SMALL), random_region(1, 2, 2, 2)
    target = {"boxes": torch.tensor([[0.1, 0.1, 0.4, 0.45]]).double(), "labels": torch.tensor([DOG])}
    everywhere = {**target, "ignored": torch.tensor([[0.0, 0.0, 1.0, 1.0]]).double()}
    plain, ignored = (region_losses(head, region, [one]) for one in (target, everywhere))
    for name in ("box", "tree"):
        assert torch.equal(plain[name], ignored[name])
    assert 0 < ignored["objectness"] <= plain["objectness"]
    (moved,) = torch.autograd.grad(ignored["objectness"], region.raw)
    assert moved[0, 0, 0, :, 4].count_nonzero() == 1  # the one that answers for the truth


@pytest.mark.parametrize("mode", ["darknet", "darknet-2018"])
def test_darknets_readings_know_no_such_regions(mode):
    head, region = small_head(SMALL), random_region(1, 2, 2, 2)
    target = random_target(SMALL, 1, np.random.RandomState(0))
    plain = region_losses(head, region, [target], rules=RULES[mode], seen=99999)
    other = region_losses(
        head, region, [{**target, "ignored": torch.tensor([[0.0, 0, 1, 1]]).double()}], rules=RULES[mode], seen=99999
    )
    for name in plain:
        assert torch.equal(plain[name], other[name])


def test_the_detector_takes_regions_in_pixels_and_names_faulty_ones():
    torch.manual_seed(0)
    model = models.yolo9000(SMALL, [[0.3, 0.3]], size=64, widths=(4, 4, 4), counts=(1, 1, 1)).train()
    image = torch.rand(3, 40, 80)
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    push = [
        float(model([image], [{**none, "ignored": torch.tensor([region])}])["objectness"].detach())
        for region in ([0.0, 0, 1, 1], [0.0, 0, 40, 40], [0.0, 0, 80, 40])
    ]
    assert push[0] > push[1] > push[2] == 0.0
    assert push[1] == pytest.approx(push[0] / 2, rel=0.2)
    for regions, told in (
        (torch.zeros(2, 3), "ignored: boxes of shape"),
        (torch.tensor([[5.0, 5, 4, 9]]), "ignored: box 0"),
    ):
        with pytest.raises(WordTreeError, match=told):
            model([image], [{**none, "ignored": regions}])


# ---------------------------------------------------------------------- from the files to the loss


def test_every_readers_flagged_boxes_are_regions_and_no_truths(tmp_path):
    coco = read_coco(small_data.coco(tmp_path / "c"), tmp_path / "c" / "images", PETS, TREE_OF_PETS)
    voc = read_voc(small_data.voc(tmp_path / "v"), None, PETS, TREE_OF_PETS)
    file, verified, names = small_data.openimages(tmp_path / "o")
    openimages = read_openimages(file, tmp_path / "o" / "images", PETS, TREE_OF_PETS, verified, names)
    wanted = {"coco": [[40.0, 20, 80, 60]], "voc": [[10.0, 5, 30, 20]], "openimages": [[25.0, 0, 50, 40]]}
    for records, name in ((coco, "coco"), (voc, "voc"), (openimages, "openimages")):
        targets = [records[index][1] for index in range(len(records))]
        flagged = [target for target in targets if "ignored" in target]
        assert len(flagged) == 1
        torch.testing.assert_close(flagged[0]["ignored"], torch.tensor(wanted[name]))
        assert flagged[0]["ignored"].dtype == torch.float32
        assert len(flagged[0]["boxes"]) == len(flagged[0]["labels"]) == 1
        plain = records.unflagged()
        assert not any("ignored" in plain[index][1] for index in range(len(plain)))
        for index, target in enumerate(targets):
            assert torch.equal(plain[index][1]["boxes"], target["boxes"])
            assert torch.equal(plain[index][1]["labels"], target["labels"])


def test_shards_keep_the_regions(tmp_path):
    records = read_coco(small_data.coco(tmp_path), tmp_path / "images", PETS, TREE_OF_PETS)
    write_shards(records, tmp_path / "shards")
    again = read_shards(tmp_path / "shards", PETS, TREE_OF_PETS)
    for index in range(len(records)):
        one, other = records[index][1], again[index][1]
        assert one.keys() == other.keys()
        for key in one:
            assert torch.equal(one[key], other[key])


@pytest.fixture
def striped(tmp_path):
    """A picture whose crowd is the whole of a coloured box, and whose truth is another."""
    picture(tmp_path / "images" / "000000000009.jpg", 80, 60, [("dog", 10, 20, 30, 50), ("cat", 45, 5, 75, 35)])
    rows = [
        {"id": 1, "image_id": 9, "category_id": 18, "bbox": [10, 20, 20, 30], "iscrowd": 0},
        {"id": 2, "image_id": 9, "category_id": 17, "bbox": [45, 5, 30, 30], "iscrowd": 1},
    ]
    images = [{"id": 9, "file_name": "000000000009.jpg", "width": 80, "height": 60}]
    file = small_data.coco(tmp_path, annotations=lambda _: rows, images=lambda _: images)
    picture(tmp_path / "images" / "000000000009.jpg", 80, 60, [("dog", 10, 20, 30, 50), ("cat", 45, 5, 75, 35)])
    return read_coco(file, tmp_path / "images", PETS, TREE_OF_PETS)


def blue(image):
    """Where a picture shows the colour of the crowd: left, top, right, bottom."""
    red, green, blue = image.float()
    rows, columns = ((blue > red + 60) & (blue > green + 60)).nonzero(as_tuple=True)
    return [float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1]


@pytest.mark.parametrize("name", ["paper", "darknet", "darknet-2018", "none"])
def test_regions_move_with_crops_and_mirrors_as_the_picture_does(striped, name):
    views = Views([striped], AUGMENTATIONS[name], seed=3, sizes=[0])
    seen = 0
    for number in range(12):
        made = views[Key(0, 0, number, 96)]
        assert made.target.keys() >= {"boxes", "labels", "ignored"}
        assert len(made.target["boxes"]) == len(made.target["labels"])
        if len(made.target["ignored"]):
            seen += 1
            assert made.target["ignored"][0].tolist() == pytest.approx(blue(made.image), abs=4)
    assert seen > 8


def test_the_training_loop_mirrors_and_scales_them_too(striped):
    image, target = striped[0]
    images = image[None, :, :, :60].repeat(6, 1, 1, 1)
    target = {**target, "ignored": torch.tensor([[20.0, 5, 50, 35]])}
    turned, targets = mirrored(images, [target] * 6, seed=1)
    flips = [not torch.equal(one, images[0]) for one in turned]
    assert True in flips
    assert False in flips
    for flipped, one in zip(flips, targets, strict=True):
        assert one["ignored"].tolist() == [[10.0, 5, 40, 35] if flipped else [20.0, 5, 50, 35]]

    target["colours"] = torch.tensor([0.0, 1.0, 1.0])
    _, ready = ready_batch(images[:1, :, :60], [target], 1, 32, 0, torch.device("cpu"))
    left, top, right, bottom = ready[0]["ignored"][0].tolist()
    assert (right - left, top, bottom) == pytest.approx((30 * 32 / 60, 5 * 32 / 60, 35 * 32 / 60))


# ---------------------------------------------------------------------- run.yaml


def run_file(tmp_path, **source):
    (tmp_path / "pets.csv").write_text(f"label,id\ndog,{small_data.DOG}\ncat,{CAT}\n")
    more = "".join(f", {key}: {value}" for key, value in source.items())
    file = tmp_path / "run.yaml"
    file.write_text(f"sources:\n- {{kind: voc, path: VOC2007, labels: pets.csv{more}}}\n")
    return file


def test_a_source_may_have_its_flagged_boxes_as_background(tmp_path, one_thread):
    small_data.voc(tmp_path)
    for way, wanted in (("ignored", [True, False, False]), ("background", [False] * 3)):
        run = read_run(run_file(tmp_path, flagged=way))
        records = run.sources[0].read(run.labels()[0], TREE_OF_PETS)
        assert ["ignored" in records[index][1] for index in range(3)] == wanted
    with pytest.raises(WordTreeError, match="no way with flagged boxes of source 1 'ignore'; did you mean 'ignored'"):
        read_run(run_file(tmp_path, flagged="ignore"))
    with pytest.raises(WordTreeError, match="flagged of source 1, a test"):
        read_run(run_file(tmp_path, flagged="background", use="test"))
    trained = yolo9000.train(
        data=run_file(tmp_path), out=tmp_path / "run", progress=False, steps=2, batch=3, size=64, sizes=[64],
        widths=[8] * 5, counts=[1] * 5, anchors=1, workers=0, precision="float32",
    )  # fmt: skip
    assert trained.weights.exists()


# ---------------------------------------------------------------------- plug-ins' detectors


@pytest.mark.parametrize("kind", KINDS)
def test_torchvisions_detectors_do_not_push_down_what_lies_in_a_region(kind):
    ours = attach(tiny(kind, 1), TREE).train()
    target = scene([2])
    losses = {}
    for name, regions in {
        "none": torch.zeros(0, 4),
        "corner": torch.tensor([[0.0, 0.0, 2.0, 2.0]]),
        "all": torch.tensor([[-200.0, -200.0, 300.0, 300.0]]),
    }.items():
        torch.manual_seed(1)
        losses[name] = ours(IMAGES[:1], [{**target, "ignored": regions}])
    torch.manual_seed(1)
    plain = ours(IMAGES[:1], [target])
    for name, loss in plain.items():
        torch.testing.assert_close(losses["none"][name], loss)
    name = "loss_classifier" if kind == "fasterrcnn" else "classification"
    assert losses["all"][name] < 0.7 * plain[name]
    ours.zero_grad()
    sum(losses["all"].values()).backward()
    if kind == "fasterrcnn":  # of its first stage too nothing is left but what pulls up
        assert float(ours.model.rpn.head.cls_logits.bias.grad.max()) <= 0
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in ours.parameters())
    with pytest.raises(WordTreeError, match=r"target 0 has ignored of shape \(2, 3\)"):
        ours(IMAGES[:1], [{**target, "ignored": torch.zeros(2, 3)}])


def test_torchvisions_detectors_lay_regions_as_they_lay_boxes():
    ours = attach(tiny("fasterrcnn", 1), TREE).train()
    target = {**scene([2]), "ignored": scene([2])["boxes"].clone()}
    _, _, (placed,) = ours.look([torch.rand(3, 50, 70)], [target])
    torch.testing.assert_close(placed["ignored"], placed["boxes"])


@pytest.mark.parametrize("kind", ["detr", "rt_detr"])
def test_transformers_detectors_do_not_push_down_what_lies_in_a_region_and_know_the_largest_box(kind):
    pytest.importorskip("transformers", reason="transformers is not installed; the dev extra has it")
    pytest.importorskip("scipy", reason="scipy is not installed, with which transformers matches")
    from tiny_queries import OPTIONS, tiny

    ours = tiny(kind, TREE, **({"num_denoising": 0} if "num_denoising" in OPTIONS[kind] else {})).train()
    with torch.no_grad():  # every query thinks that it is an object
        for name, layer in ours.model.named_modules():
            if isinstance(layer, torch.nn.Linear) and "class" in name and layer.out_features == 1:
                layer.bias.fill_(1.0)
    losses = []
    for regions in ({}, {"ignored": torch.zeros(0, 4)}, {"ignored": torch.tensor([[-200.0, -200.0, 300.0, 300.0]])}):
        torch.manual_seed(1)
        losses.append(ours(IMAGES[:1], [{**scene([2]), **regions}]))
    plain, none, everywhere = losses
    torch.testing.assert_close(none["objectness"], plain["objectness"])
    assert everywhere["objectness"] < 0.9 * plain["objectness"]
    torch.testing.assert_close(everywhere["box"], plain["box"], rtol=1e-4, atol=1e-4)
    asked = []
    ours.likeliest = lambda *args: pytest.fail("the likeliest was asked for")
    chosen = ours.chosen
    ours.chosen = lambda *args: asked.append((args[-1], chosen(*args))) or asked[-1][1]
    ours.image_label = "area"
    ours(IMAGES[:1], [{"labels": torch.tensor([5])}])
    ((boxes, best),) = asked
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    assert float(areas[best]) == float(areas.max())
