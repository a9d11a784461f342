"""Views of pictures: Darknet's arithmetic to its own values, boxes that stay on their objects, streams of their own."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import needs_oracle, values

from wordtree import WordTreeError
from yolo9000.data import augment
from yolo9000.data.augment import AUGMENTATIONS, Augmentation, classifier_view, find_augmentation, stream, view

NAMES = sorted(AUGMENTATIONS)


def photograph() -> torch.Tensor:
    """Darknet's test image as its own decoder reads it: float [3, 576, 768]."""
    return torch.from_numpy(values("dog_stb_rgb")["rgb"]).permute(2, 0, 1).float() / 255


def same(ours: torch.Tensor, theirs: np.ndarray, atol: float = 2e-5) -> None:
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=0, atol=atol)


# ---------------------------------------------------------------------- Darknet's own values


@needs_oracle
def test_resizing_is_darknets():
    same(augment.resize_image(photograph(), 64, 48), values("util")["resize_64x48"])


@needs_oracle
def test_a_crop_repeats_the_border_as_darknets_does():
    util = values("util")
    cut = augment.crop_image(photograph(), *util["crop_args"].tolist())
    same(cut, util["crop"], atol=0)
    same(cut.flip(2), util["crop_flip"], atol=0)


@needs_oracle
def test_a_turned_crop_is_darknets():
    util = values("util")
    angle, scale, width, height, dx, dy, aspect = util["rotate_crop_args"].tolist()
    turned = augment.rotate_crop_image(photograph(), angle, scale, int(width), int(height), dx, dy, aspect)
    same(turned, util["rotate_crop"], atol=2e-4)  # float32 coordinates of a picture of 768 pixels


@needs_oracle
def test_a_placed_picture_is_darknets():
    util = values("util")
    same(augment.place_image(photograph(), *util["place_image_args"].tolist(), size=64), util["place_image"], atol=2e-4)


@needs_oracle
@pytest.mark.parametrize("case", ["distort_a", "distort_b"])
def test_colours_move_as_darknets_do(case):
    util = values("util")
    picture = torch.from_numpy(util["resize_64x48"])
    same(augment.distort_image(picture, *util[f"{case}_args"].tolist()), util[case])


# ---------------------------------------------------------------------- arithmetic that needs no reference


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_colours_that_move_by_nothing_stay_and_a_whole_turn_is_none(seed):
    picture = torch.rand(3, 5, 7, generator=stream(seed))
    torch.testing.assert_close(augment.distort_image(picture, 0.0, 1.0, 1.0), picture, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        augment.distort_image(picture, 1.0, 1.0, 1.0), augment.distort_image(picture, 0.0, 1.0, 1.0), rtol=0, atol=1e-4
    )
    grey = augment.distort_image(picture, 0.3, 0.0, 1.0)
    torch.testing.assert_close(grey, picture.amax(0).expand(3, -1, -1), rtol=0, atol=1e-6)


def test_a_batch_changes_its_colours_as_each_picture_alone():
    pictures = torch.rand(4, 3, 6, 5, generator=stream(2))
    changes = torch.stack([augment.colours(AUGMENTATIONS["paper"], stream(seed)) for seed in range(4)])
    assert len(set(changes.flatten().tolist())) == 12
    together = augment.recoloured(pictures, changes)
    for picture, change, result in zip(pictures, changes.tolist(), together, strict=True):
        torch.testing.assert_close(augment.distort_image(picture, *change), result, rtol=0, atol=1e-6)
    same = augment.colours(AUGMENTATIONS["none"], stream(0))
    assert same.tolist() == [0.0, 1.0, 1.0]
    assert not AUGMENTATIONS["none"].recolours


def test_a_third_of_a_turn_takes_red_to_green():
    red = torch.zeros(3, 2, 2)
    red[0] = 0.8
    green = augment.distort_image(red, 1 / 3, 1.0, 0.5)
    torch.testing.assert_close(green[1], torch.full((2, 2), 0.4), rtol=0, atol=1e-5)
    assert float(green[[0, 2]].abs().max()) < 1e-5


# ---------------------------------------------------------------------- views


def picture_with_object(width: int, height: int, box: tuple[int, int, int, int]) -> torch.Tensor:
    """A dark picture with a bright box."""
    image = torch.full((3, height, width), 20, dtype=torch.uint8)
    left, top, right, bottom = box
    image[:, top:bottom, left:right] = 250
    return image


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10_000), width=st.integers(40, 90), height=st.integers(40, 90))
@settings(max_examples=25)
def test_boxes_stay_on_their_object(name, seed, width, height):
    box = (width // 4, height // 3, width // 4 + width // 2, height // 3 + height // 3)
    image, boxes, kept = view(
        picture_with_object(width, height, box), torch.tensor([box]).float(), 96, AUGMENTATIONS[name], stream(seed)
    )
    assert image.shape == (3, 96, 96)
    assert image.dtype == torch.uint8
    assert kept.tolist() == [0]
    left, top, right, bottom = boxes[0].tolist()
    assert 0 <= left < right <= 96
    assert 0 <= top < bottom <= 96
    bright = image.float().amax(0) > 0.5 * float(image[:, round(top + bottom) // 2, round(left + right) // 2].max())
    if AUGMENTATIONS[name].place:  # on grey, which is bright beside a dark picture
        return
    rows, columns = bright.any(1).nonzero()[:, 0], bright.any(0).nonzero()[:, 0]
    found = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
    np.testing.assert_allclose(found, boxes[0].tolist(), atol=3.0)


def test_a_box_that_the_crop_leaves_is_no_truth_and_the_others_keep_their_number():
    boxes = torch.tensor([[0.0, 0, 1, 1], [30.0, 30, 70, 70], [99.0, 99, 100, 100]])
    lost = set()
    for seed in range(40):
        _, seen, kept = view(
            torch.zeros(3, 100, 100, dtype=torch.uint8), boxes, 64, AUGMENTATIONS["paper"], stream(seed)
        )
        assert len(seen) == len(kept)
        assert 1 in kept.tolist()
        lost |= {0, 2} - set(kept.tolist())
    assert lost == {0, 2}


@pytest.mark.parametrize("name", NAMES)
def test_a_view_is_its_streams_alone(name):
    image = torch.randint(0, 256, (3, 50, 60), generator=stream(1)).to(torch.uint8)
    boxes = torch.tensor([[10.0, 10, 30, 40]])
    one, again = (view(image, boxes, 48, AUGMENTATIONS[name], stream(7, 3, 2)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    crop, same_crop = (classifier_view(image, 48, AUGMENTATIONS[name], stream(7, 3, 2)) for _ in range(2))
    assert torch.equal(crop, same_crop)
    assert crop.shape == (3, 48, 48)
    if name != "none":
        assert not torch.equal(one[0], view(image, boxes, 48, AUGMENTATIONS[name], stream(7, 3, 3))[0])
        assert not torch.equal(crop, classifier_view(image, 48, AUGMENTATIONS[name], stream(8, 3, 2)))


def test_no_augmentation_is_a_plain_resize_and_a_middle_square():
    image = torch.randint(0, 256, (3, 40, 80), generator=stream(1)).to(torch.uint8)
    assert torch.equal(
        view(image[:, :, :40], torch.zeros(0, 4), 40, AUGMENTATIONS["none"], stream(0))[0], image[:, :, :40]
    )
    middle = classifier_view(image, 40, AUGMENTATIONS["none"], stream(0))
    torch.testing.assert_close(middle.float(), image[:, :, 20:60].float(), rtol=0, atol=1)


def test_factors_are_drawn_as_darknet_draws_them():
    random = stream(5)
    drawn = np.array([augment._rand_scale(random, 0.75) for _ in range(4000)])
    assert drawn.min() >= 0.75
    assert drawn.max() <= 1 / 0.75
    below = drawn[drawn < 1]
    assert abs(len(below) / 4000 - 0.5) < 0.04
    assert abs(below.mean() - 0.875) < 0.005  # uniform from .75 to 1
    assert abs((1 / drawn[drawn > 1]).mean() - 0.875) < 0.005


def test_sides_of_a_crop_are_whole_pixels_drawn_on_their_own():
    random = stream(5)
    crops = np.array([augment._jittered(200, 100, 0.2, random) for _ in range(3000)])
    moved = crops * [1, 1, -1, -1] + [0, 0, 200, 100]
    for side, far in enumerate((40, 20, 40, 20)):
        assert np.abs(moved[:, side]).max() == far - 1  # int() of what lies below: the last pixel is never drawn
        assert abs(moved[:, side].mean()) < 0.05 * far
    assert np.abs(np.corrcoef(moved.T) - np.eye(4)).max() < 0.08


def test_a_placed_picture_lies_within_the_square_at_its_own_aspect():
    for seed in range(50):
        left, top, width, height = augment._placed(80, 60, 96, 0.2, stream(seed))
        assert max(width, height) == 96
        assert left >= 0 <= top
        assert left + width <= 96 + 1e-9
        assert top + height <= 96 + 1e-9
        assert 0.8 / 1.2 - 1e-9 <= width / height / (80 / 60) <= 1.2 / 0.8 + 1e-9
        assert math.isclose(augment._placed(80, 60, 96, 0.0, stream(seed))[3], 72)


def test_an_unknown_augmentation_is_refused_with_the_nearest():
    with pytest.raises(WordTreeError, match=r"no augmentation 'darknt'; did you mean 'darknet'\? known"):
        find_augmentation("darknt")
    assert find_augmentation("none") == Augmentation()
