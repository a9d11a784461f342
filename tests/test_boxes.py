"""Box arithmetic: forms and placements round-trip, decoding is the paper's equation, suppression is the greedy loop."""

from unittest.mock import patch

import numpy as np
import oracle
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import needs_oracle
from strategies import seeds, trees

from wordtree import WordTree, WordTreeError
from wordtree.nn.index import tree_spans
from wordtree.nn.suppression import are_relatives, pair_iou, rank, suppress_relatives
from yolo9000.anchors import dimension_clusters
from yolo9000.assign import assign
from yolo9000.boxes import (
    SUPPRESSIONS,
    best_rows,
    check_boxes,
    cxcywh_to_xyxy,
    shape_iou,
    suppress,
    xyxy_to_cxcywh,
)
from yolo9000.images import PLACEMENTS, place, place_back, place_boxes
from yolo9000.region import decode, decode_xyxy, split_raw

#      animal  plant
#     /  |        \
#  dog  cat       oak
#   |
# poodle
SMALL = WordTree(["animal", "plant", "dog", "cat", "oak", "poodle"], [-1, -1, 0, 0, 1, 2])
ANIMAL, PLANT, DOG, CAT, OAK, POODLE = range(6)


def random_boxes(random: np.random.RandomState, count: int, side: float = 100.0) -> torch.Tensor:
    """float64 [count, 4] xyxy inside a square, on a grid of eighths, none empty."""
    low = np.floor(random.rand(count, 2) * side * 4) / 8
    high = low + np.ceil(random.rand(count, 2) * side * 4) / 8
    return torch.from_numpy(np.concatenate((low, high), axis=1))


# ---------------------------------------------------------------------- forms


@given(st.integers(0, 5), seeds)
def test_forms_round_trip(count, seed):
    boxes = random_boxes(np.random.RandomState(seed), count)
    assert torch.equal(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)


def test_forms_are_what_their_names_say():
    assert xyxy_to_cxcywh(torch.tensor([10.0, 20.0, 30.0, 60.0])).tolist() == [20, 40, 20, 40]
    assert cxcywh_to_xyxy(torch.tensor([20.0, 40.0, 20.0, 40.0])).tolist() == [10, 20, 30, 60]


@given(st.integers(1, 4), st.integers(1, 4), seeds)
def test_shape_iou_is_the_iou_of_boxes_on_one_centre(n, m, seed):
    random = np.random.RandomState(seed)
    a, b = torch.from_numpy(random.rand(n, 2) + 0.01), torch.from_numpy(random.rand(m, 2) + 0.01)
    found = shape_iou(a, b)
    for i in range(n):
        for j in range(m):
            one = [-a[i, 0] / 2, -a[i, 1] / 2, a[i, 0] / 2, a[i, 1] / 2]
            other = [-b[j, 0] / 2, -b[j, 1] / 2, b[j, 0] / 2, b[j, 1] / 2]
            assert float(found[i, j]) == pytest.approx(float(reference.iou(one, other)))


# ---------------------------------------------------------------------- suppression


@given(trees(), st.integers(0, 14), st.sampled_from([0.0, 0.3, 0.45, 0.7]), seeds)
@settings(deadline=None, max_examples=150)
def test_suppression_of_relatives_equals_the_greedy_loop(tree, count, limit, seed):
    random = np.random.RandomState(seed)
    boxes = random_boxes(random, count, side=12.0)  # crowded
    scores = torch.from_numpy(random.randint(1, 6, count) / 8)  # ties
    nodes = torch.from_numpy(random.randint(-1, len(tree), count))
    kept = suppress_relatives(boxes, scores, nodes, tree, limit)
    expected = reference.suppress(boxes.tolist(), scores.tolist(), nodes.tolist(), tree, limit)
    assert kept.tolist() == expected


@given(trees(), st.integers(0, 16), st.sampled_from(["relatives", "all", "same"]), st.sampled_from([0, 4000]), seeds)
@settings(deadline=None, max_examples=200)
def test_suppression_in_all_images_at_once_is_each_images_own(tree, count, among, many, seed):
    random = np.random.RandomState(seed)
    boxes = random_boxes(random, count, side=12.0) - 3  # crowded, and partly left of the image
    scores = torch.from_numpy(random.randint(1, 6, count) / 8)
    nodes = torch.from_numpy(random.randint(-1, len(tree), count))
    images = torch.from_numpy(np.sort(random.randint(0, 4, count)))
    with patch("yolo9000.boxes.MANY", many):
        kept = suppress(boxes, scores, nodes, images, tree, 0.45, among)
    given_as = boxes.tolist(), scores.tolist(), nodes.tolist()
    if among != "relatives":
        assert kept.tolist() == reference.suppress_among(*given_as, images.tolist(), 0.45, among)
        return
    alone = []
    for image in range(4):
        mine = (images == image).nonzero()[:, 0]
        part = (boxes[mine].tolist(), scores[mine].tolist(), nodes[mine].tolist())
        alone += mine[reference.suppress(*part, tree, 0.45)].tolist()
    assert kept.tolist() == alone


def test_suppression_is_by_an_overlap_strictly_above_the_limit():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])  # IoU .5
    scores, nodes, image = torch.tensor([0.9, 0.8]), torch.tensor([DOG, DOG]), torch.zeros(2).long()
    for among in SUPPRESSIONS:
        assert suppress(boxes, scores, nodes, image, SMALL, 0.5, among).tolist() == [0, 1]
        assert suppress(boxes, scores, nodes, image, SMALL, 0.499, among).tolist() == [0]


def test_suppression_stays_exact_far_from_the_origin_and_with_many_nodes():
    tree = WordTree([str(node) for node in range(3000)], [-1] * 3000)
    spread = torch.arange(3000)
    boxes = torch.tensor([[900.0, 900, 910, 910], [900, 900, 910, 904.49]]).repeat(1500, 1)  # IoU .449 in each pair
    for among, left in (("same", 3000), ("all", 2)):
        nodes = spread // 2
        kept = suppress(boxes, -spread.float(), nodes, torch.zeros_like(nodes), tree, 0.45, among)
        assert len(kept) == left
    assert len(suppress(boxes, -spread.float(), spread // 2, torch.zeros_like(spread), tree, 0.448, "same")) == 1500


def test_an_unknown_suppression_is_refused_with_the_known_ones():
    nothing = torch.zeros(0).long()
    with pytest.raises(WordTreeError, match=r"'sane'.*did you mean 'same'"):
        suppress(torch.zeros(0, 4), torch.zeros(0), nothing, nothing, SMALL, 0.5, "sane")


@given(st.lists(st.integers(0, 3)), st.integers(0, 4), seeds)
def test_the_best_rows_of_each_image_are_its_own_and_stay_in_order(images, most, seed):
    images = sorted(images)
    scores = torch.from_numpy(np.random.RandomState(seed).randint(0, 5, len(images)))  # ties
    assert rank(torch.tensor(images).long()).tolist() == [at - images.index(image) for at, image in enumerate(images)]
    best = []
    for image in sorted(set(images)):
        mine = [row for row, one in enumerate(images) if one == image]
        best += sorted(sorted(mine, key=lambda row: -int(scores[row]))[:most])
    assert best_rows(torch.tensor(images).long(), scores, most).tolist() == best


@given(trees(), seeds)
def test_relatives_are_those_on_one_path(tree, seed):
    nodes = torch.from_numpy(np.random.RandomState(seed).randint(-1, len(tree), 9))
    found = are_relatives(nodes, tree_spans(tree, nodes.device))
    for i, one in enumerate(nodes.tolist()):
        assert found[i].tolist() == [reference.relatives(one, other, tree) for other in nodes.tolist()]


@given(st.integers(0, 6), seeds)
def test_the_iou_of_pairs_is_the_iou_of_each(count, seed):
    boxes = random_boxes(np.random.RandomState(seed), count, side=9.0)
    wanted = [[reference.iou(one, other) for other in boxes.tolist()] for one in boxes.tolist()]
    torch.testing.assert_close(pair_iou(boxes), torch.tensor(wanted, dtype=torch.float64).view(count, count))


def test_a_dog_and_a_poodle_on_one_animal_are_one_detection_and_siblings_are_two():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11]])
    scores = torch.tensor([0.6, 0.9])
    assert suppress_relatives(boxes, scores, torch.tensor([DOG, POODLE]), SMALL).tolist() == [1]
    assert suppress_relatives(boxes, scores, torch.tensor([ANIMAL, POODLE]), SMALL).tolist() == [1]
    assert suppress_relatives(boxes, scores, torch.tensor([DOG, DOG]), SMALL).tolist() == [1]
    assert suppress_relatives(boxes, scores, torch.tensor([DOG, CAT]), SMALL).tolist() == [1, 0]
    assert suppress_relatives(boxes, scores, torch.tensor([POODLE, CAT]), SMALL).tolist() == [1, 0]
    assert suppress_relatives(boxes, scores, torch.tensor([-1, OAK]), SMALL).tolist() == [1]  # the root is above all


def test_on_a_tie_of_scores_the_deeper_node_wins():
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 3)
    nodes = torch.tensor([DOG, ANIMAL, POODLE])
    assert suppress_relatives(boxes, torch.full((3,), 0.5), nodes, SMALL).tolist() == [2]


def test_what_is_suppressed_suppresses_nothing():
    boxes = torch.tensor(
        [[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]]
    )  # each overlaps the next by .43, not the last
    kept = suppress_relatives(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([DOG] * 3), SMALL, iou=0.4)
    assert kept.tolist() == [0, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_boxes_too_large_for_half_precision_still_suppress(dtype):
    boxes = torch.tensor([[0.0, 0, 400, 400], [0, 0, 400, 400]], dtype=dtype)
    assert suppress_relatives(boxes, torch.tensor([0.9, 0.8]), torch.tensor([DOG, POODLE]), SMALL).tolist() == [0]


def test_images_may_have_any_numbers_in_any_order():
    random = np.random.RandomState(0)
    boxes = torch.from_numpy(random.rand(40, 4)).cumsum(1)
    scores, nodes = torch.from_numpy(random.rand(40)), torch.from_numpy(random.randint(0, len(SMALL), 40))
    place = torch.from_numpy(random.randint(0, 3, 40))
    few = suppress_relatives(boxes, scores, nodes, SMALL, image=place)
    many = suppress_relatives(boxes, scores, nodes, SMALL, image=torch.tensor([-7, 580_000, 2**60])[place])
    assert few.tolist() == many.tolist()  # and no row for each number between
    assert len(few) < 40


def test_suppression_of_nothing_is_nothing():
    assert suppress_relatives(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), SMALL).tolist() == []


# ---------------------------------------------------------------------- placement


@pytest.mark.parametrize("way", PLACEMENTS)
@pytest.mark.parametrize(("height", "width"), [(40, 60), (90, 30), (64, 64), (7, 200), (1, 1)])
def test_boxes_return_to_the_image_they_came_from(height, width, way):
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    laid, placement = place(image, 64, way)
    assert laid.shape == (3, 64, 64)
    boxes = torch.tensor([[0.0, 0, width, height], [width / 4, height / 3, width / 2, height]])
    fractions = place_boxes(boxes, placement)
    assert bool((fractions >= -1e-6).all())
    assert bool((fractions <= 1 + 1e-6).all())
    torch.testing.assert_close(place_back(fractions, placement), boxes)


def test_stretching_fills_the_input_and_letterboxing_keeps_the_aspect_on_grey():
    image = torch.ones(3, 32, 64)
    stretched, _ = place(image, 64)
    assert bool((stretched == 1).all())
    boxed, placement = place(image, 64, "darknet-letterbox")
    assert bool((boxed[:, 16:48] == 1).all())
    assert bool((boxed[:, :16] == 0.5).all())
    assert bool((boxed[:, 48:] == 0.5).all())
    assert placement[:4] == (0.0, 0.25, 1.0, 0.5)
    assert place_boxes(torch.tensor([[0.0, 0, 64, 32]]), placement).tolist() == [[0.0, 0.25, 1.0, 0.75]]


def test_boxes_placed_back_are_clipped_to_the_image():
    _, placement = place(torch.zeros(3, 20, 50), 64)
    assert place_back(torch.tensor([[-0.5, -0.1, 1.5, 0.5]]), placement).tolist() == [[0.0, 0.0, 50.0, 10.0]]


@needs_oracle
def test_letterboxing_puts_a_picture_where_darknet_does():
    picture = torch.from_numpy(oracle.values("dog_stb_rgb")["rgb"]).permute(2, 0, 1).float() / 255
    laid, _ = place(picture, 64, "darknet-letterbox")
    wanted = torch.from_numpy(oracle.values("util")["letterbox_64x64"])
    torch.testing.assert_close(laid, wanted, rtol=0, atol=2e-7)
    stretched = torch.from_numpy(oracle.values("util")["resize_64x48"])
    torch.testing.assert_close(laid[:, 8:56], stretched, rtol=0, atol=2e-7)


@pytest.mark.parametrize(("height", "width", "tall", "wide"), [(30, 50, 38, 64), (50, 30, 64, 38), (9, 200, 2, 64)])
def test_a_letterbox_is_rounded_down_and_boxes_come_back_from_half_of_what_is_left_over(height, width, tall, wide):
    laid, placement = place(torch.ones(3, height, width), 64, "darknet-letterbox")
    assert int((laid == 1).all(0).any(1).sum()), int((laid == 1).all(0).any(0).sum()) == (tall, wide)
    assert placement == ((64 - wide) / 128, (64 - tall) / 128, wide / 64, tall / 64, width, height)


@given(st.integers(2, 9), st.integers(2, 9), st.integers(2, 12), seeds)
def test_darknets_resize_is_bilinear_between_the_corner_pixels(height, width, size, seed):
    image = torch.from_numpy(np.random.RandomState(seed).rand(3, height, width))
    laid, _ = place(image, size, "darknet-stretch")
    for row in range(size):
        for column in range(size):
            y, x = row * (height - 1) / (size - 1), column * (width - 1) / (size - 1)
            top, left = min(int(y), height - 2), min(int(x), width - 2)
            down, right = y - top, x - left
            upper = (1 - right) * image[:, top, left] + right * image[:, top, left + 1]
            lower = (1 - right) * image[:, top + 1, left] + right * image[:, top + 1, left + 1]
            torch.testing.assert_close(laid[:, row, column], (1 - down) * upper + down * lower)


def test_an_unknown_placement_is_refused_with_the_known_ones():
    with pytest.raises(WordTreeError, match=r"'strech'.*did you mean 'stretch'"):
        place(torch.ones(3, 4, 4), 64, "strech")


# ---------------------------------------------------------------------- decoding


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), seeds)
@settings(deadline=None, max_examples=30)
def test_decoding_equals_the_equation_cell_by_cell(b, h, w, a, seed):
    random = np.random.RandomState(seed)
    raw = torch.from_numpy(random.randn(b, h, w, a, 5))
    anchors = torch.from_numpy(random.rand(a, 2) * 3 + 0.1)
    boxes = decode_xyxy(raw, anchors)
    for i in range(b):
        for row in range(h):
            for column in range(w):
                for k in range(a):
                    wanted = reference.decode(raw[i, row, column, k].tolist(), row, column, h, w, anchors[k].tolist())
                    assert boxes[i, row, column, k].tolist() == pytest.approx(wanted)


def test_the_heads_channels_are_anchor_by_anchor():
    flat = torch.arange(2 * 10 * 3 * 4).float().view(2, 10, 3, 4)
    raw = split_raw(flat, 2)
    assert raw.shape == (2, 3, 4, 2, 5)
    assert raw[1, 2, 3, 1].tolist() == flat[1, 5:, 2, 3].tolist()


def test_a_wild_exponent_stays_finite():
    raw = torch.full((1, 1, 1, 1, 5), 1000.0)
    assert bool(torch.isfinite(decode(raw, torch.ones(1, 2))).all())


@needs_oracle
@pytest.mark.parametrize(
    ("name", "anchors"), [("yolov2-tiny-voc", "TINY_ANCHORS"), ("yolo9000_96", "YOLO9000_ANCHORS")]
)
def test_decoding_equals_darknets(name, anchors):
    from yolo9000 import models

    case = oracle.values(f"infer_{name}")
    priors = torch.tensor(getattr(models, anchors), dtype=torch.float64)
    rin = torch.from_numpy(case["rin"]).double()
    raw = rin.view(1, len(priors), -1, *rin.shape[1:])[:, :, :5].permute(0, 3, 4, 1, 2)
    torch.testing.assert_close(decode(raw, priors)[0].float(), torch.from_numpy(case["boxes"]), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------- assignment


def test_a_truth_goes_to_the_cell_of_its_centre_and_the_anchor_of_its_shape():
    anchors = torch.tensor([[1.0, 1.0], [3.0, 1.0], [1.0, 3.0]])
    boxes = torch.tensor([[0.5, 0.3, 0.7, 0.2], [0.1, 0.9, 0.2, 0.7]])  # wide; tall
    given = assign(torch.tensor([0, 1]), boxes, anchors, (4, 5))
    assert list(zip(*(part.tolist() for part in given[:4]), strict=True)) == [(0, 1, 2, 1), (1, 3, 0, 2)]


def test_of_two_truths_on_one_predictor_the_later_has_it():
    anchors = torch.tensor([[1.0, 1.0]])
    boxes = torch.tensor([[0.6, 0.6, 0.2, 0.2], [0.1, 0.1, 0.2, 0.2], [0.7, 0.7, 0.2, 0.3]])
    given = assign(torch.tensor([0, 0, 0]), boxes, anchors, (2, 2))
    assert sorted(given.last.tolist()) == [1, 2]
    other_images = assign(torch.tensor([0, 0, 1]), boxes, anchors, (2, 2))
    assert sorted(other_images.last.tolist()) == [0, 1, 2]


def test_a_centre_on_the_far_edge_stays_in_the_last_cell():
    given = assign(torch.tensor([0]), torch.tensor([[1.0, 1.0, 0.5, 0.5]]), torch.tensor([[1.0, 1.0]]), (3, 4))
    assert (given.row.tolist(), given.column.tolist()) == ([2], [3])


def test_assignment_of_no_truths_is_empty():
    given = assign(torch.zeros(0).long(), torch.zeros(0, 4), torch.ones(2, 2), (3, 3))
    assert [len(part) for part in given] == [0] * 6


# ---------------------------------------------------------------------- anchors


def planted(noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    centres = torch.tensor([[10.0, 12.0], [40.0, 20.0], [60.0, 90.0]])
    jitter = 1 + noise * torch.randn(3, 60, 2, generator=torch.Generator().manual_seed(seed))
    return centres, (centres[:, None] * jitter).reshape(-1, 2)


@pytest.mark.parametrize("seed", range(5))
def test_dimension_clusters_find_planted_shapes(seed):
    centres, shapes = planted(noise=0.03)
    priors, mean_iou = dimension_clusters(shapes, k=3, seed=seed)
    torch.testing.assert_close(priors, centres, rtol=0.02, atol=0.0)  # ordered by area
    assert mean_iou > 0.93
    assert mean_iou == pytest.approx(float(shape_iou(shapes, priors).amax(1).mean()), rel=1e-5)


def test_dimension_clusters_are_the_same_every_time_and_no_more_than_the_shapes():
    _, shapes = planted(noise=0.5)
    shapes = shapes.abs() + 1
    first, again = dimension_clusters(shapes, k=5), dimension_clusters(shapes, k=5)
    assert torch.equal(first[0], again[0])
    assert first[1] == again[1]
    assert dimension_clusters(shapes, k=9)[1] > first[1] > dimension_clusters(shapes, k=1)[1]
    exact, one = dimension_clusters(torch.tensor([[2.0, 3.0], [5.0, 4.0], [2.0, 3.0]]), k=2)
    assert exact.tolist() == [[2.0, 3.0], [5.0, 4.0]]
    assert one == 1.0


@pytest.mark.parametrize(
    ("shapes", "k", "part"),
    [
        (torch.tensor([[1.0, 1.0], [1.0, 1.0]]), 2, "2 anchors of 1 different"),
        (torch.tensor([[1.0, 1.0]]), 0, "0 anchors"),
        (torch.zeros(0, 2), 1, "1 anchors of 0"),
        (torch.tensor([[1.0, 0.0]]), 1, "above 0"),
        (torch.tensor([[1.0, float("nan")]]), 1, "above 0"),
        (torch.ones(4, 4), 1, "(4, 4)"),
    ],
)
def test_dimension_clusters_refuse_what_has_no_clusters(shapes, k, part):
    with pytest.raises(WordTreeError) as caught:
        dimension_clusters(shapes, k)
    assert part in str(caught.value)


# ---------------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("boxes", "part"),
    [
        ([[0.0, 0, 5, 5], [5, 5, 5, 9]], "box 1 is 5, 5, 5, 9"),
        ([[0.0, 0, 21, 5]], "20 x 10 pixels"),
        ([[-1.0, 0, 5, 5]], "box 0"),
        ([[0.0, 0, 5, 10.5]], "inside its image"),
        ([[0.0, 0, float("nan"), 5]], "nan"),
        ([[0.0, 0, float("inf"), 5]], "inf"),
        ([[5.0, 5, 1, 9]], "right > left"),
    ],
)
def test_a_bad_box_is_named_with_what_a_good_one_is(boxes, part):
    fault = check_boxes(torch.tensor(boxes), width=20, height=10)
    assert fault is not None
    assert part in fault


def test_good_boxes_have_no_fault():
    assert check_boxes(torch.tensor([[0.0, 0, 20, 10], [1, 1, 2, 2]]), 20, 10) is None
    assert check_boxes(torch.zeros(0, 4), 20, 10) is None
    assert "(3,)" in check_boxes(torch.zeros(3), 20, 10)
    assert "(2, 5)" in check_boxes(torch.zeros(2, 5), 20, 10)
