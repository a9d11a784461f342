"""The joint sampler: exact ratios over batches, full batches, the same for a step whatever came before it."""

from collections import Counter
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wordtree import WordTreeError
from yolo9000.data.embedded import Pictures
from yolo9000.data.joint import Joint, JointSampler, collate
from yolo9000.data.memory import InMemory
from yolo9000.ready import mirrored

shares = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@given(shares, st.integers(1, 40), st.integers(1, 60))
@settings(deadline=None, max_examples=150)
def test_every_batch_is_full_and_the_ratio_holds_over_batches(parts, batch, steps):
    sampler = JointSampler([1000] * len(parts), parts, batch, steps)
    drawn: Counter[int] = Counter()
    for step, picked in enumerate(sampler):
        assert len(picked) == batch
        drawn.update(source for source, _ in picked)
        for source, part in enumerate(parts):
            share = Fraction(batch * part * (step + 1), sum(parts))
            assert abs(drawn[source] - share) < (1 if len(parts) < 3 else 1.5)
            if batch * (step + 1) % sum(parts) == 0:
                assert drawn[source] == share  # exact wherever it divides
    assert step == steps - 1
    assert len(sampler) == steps


@pytest.mark.parametrize(
    ("parts", "batch", "counts"), [((1, 4), 10, (2, 8)), ((1, 2), 32, (10.5, 21.5)), ((4, 1), 5, (4, 1))]
)
def test_a_batch_is_the_ratio_as_nearly_as_it_divides(parts, batch, counts):
    for picked in JointSampler([500, 900], parts, batch, steps=20):
        found = Counter(source for source, _ in picked)
        for source, count in enumerate(counts):
            assert abs(found[source] - count) <= 0.5


@given(shares, st.integers(1, 12), st.integers(1, 30), st.integers(0, 30), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_a_sampler_that_starts_later_is_the_tail_of_one_that_starts_first(parts, batch, steps, start, seed):
    start = min(start, steps)
    lengths = [7 + source for source in range(len(parts))]
    whole = list(JointSampler(lengths, parts, batch, steps, seed=seed))
    tail = JointSampler(lengths, parts, batch, steps, start=start, seed=seed)
    assert len(tail) == steps - start
    assert list(tail) == whole[start:]
    assert list(tail) == whole[start:]  # and again
    assert JointSampler(lengths, parts, batch, steps, seed=seed).batch_at(steps - 1) == whole[-1]


@given(shares, st.integers(1, 6), st.integers(1, 6), st.integers(0, 12), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_the_ranks_together_make_the_batch_each_its_part_in_the_batchs_ratio(parts, ranks, each, start, seed):
    lengths, batch = [7 + source for source in range(len(parts))], ranks * each
    whole = JointSampler(lengths, parts, batch, 12, start, seed)
    made = [JointSampler(lengths, parts, batch, 12, start, seed, rank, ranks) for rank in range(ranks)]
    assert sorted(slot for one in made for slot in one.slots) == list(range(batch))
    for picked, *own in zip(whole, *made, strict=True):
        for one, some in zip(made, own, strict=True):
            assert some == [picked[slot] for slot in one.slots]
        for source in range(len(parts)):
            counts = [sum(which == source for which, _ in some) for some in own]
            assert max(counts) - min(counts) <= 1


def test_the_flips_of_a_picture_are_those_of_its_place_in_the_whole_batch():
    images = torch.arange(8 * 3 * 2 * 2, dtype=torch.uint8).view(8, 3, 2, 2)
    targets = [{"labels": torch.tensor([number])} for number in range(8)]
    whole, _ = mirrored(images, targets, seed=3)
    for part in range(4):
        some, _ = mirrored(images[part::4], targets[part::4], 3, part, 4)
        assert torch.equal(some, whole[part::4])
    assert not torch.equal(whole, images)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(2, 16))
@settings(deadline=None, max_examples=40)
def test_each_source_is_walked_through_whole_before_any_picture_comes_again(first, second, batch):
    lengths = [13, 29]
    seen: list[list[int]] = [[], []]
    for picked in JointSampler(lengths, [first, second], batch, steps=60):
        for source, index in picked:
            seen[source].append(index)
    for source, length in enumerate(lengths):
        for start in range(0, len(seen[source]) - length + 1, length):
            assert sorted(seen[source][start : start + length]) == list(range(length))


def test_the_order_changes_with_the_seed_the_source_and_the_epoch():
    def orders(seed):
        picked = [one for batch in JointSampler([20, 20], [1, 1], 20, steps=4, seed=seed) for one in batch]
        return [[index for source, index in picked if source == which] for which in (0, 1)]

    zero, one = orders(0), orders(1)
    epochs = [*(order[:20] for order in zero), *(order[20:] for order in zero), *(order[:20] for order in one)]
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    assert orders(0) == zero


@pytest.mark.parametrize(
    ("lengths", "parts"), [([0, 5], [1, 1]), ([5, 5], [1]), ([], []), ([5], [0]), ([5, 5], [1, -1]), ([5, 5], [0, 0])]
)
def test_an_empty_source_and_shares_that_do_not_fit_are_refused(lengths, parts):
    with pytest.raises(WordTreeError) as caught:
        JointSampler(lengths, parts, batch=4, steps=3)
    assert str(lengths) in str(caught.value)


def test_labels_of_each_source_become_nodes():
    def source(name):
        return [(torch.full((3, 2, 2), name, dtype=torch.uint8), {"labels": torch.tensor([0, 1])})]

    joint = Joint([source(5), source(6)], [torch.tensor([30, 31]), torch.tensor([40, 41])])
    images, targets = collate([joint[1, 0], joint[0, 0]])
    assert images[:, 0, 0, 0].tolist() == [6, 5]
    assert [target["labels"].tolist() for target in targets] == [[40, 41], [30, 31]]


# ---------------------------------------------------------------------- what the loop does with them


@pytest.mark.parametrize("processes", [0, 2])
def test_pictures_kept_in_memory_are_the_pictures_made(processes):
    pictures = Pictures("boxed", 70, size=48)
    ticks: list[int] = []
    kept = InMemory(pictures, processes, tick=ticks.append)
    assert len(kept) == sum(ticks) == 70
    for index in (0, 33, 69):
        (image, target), (same, same_target) = kept[index], pictures[index]
        assert torch.equal(image, same)
        assert target.keys() == same_target.keys()
        assert all(torch.equal(target[key], same_target[key]) for key in target)


def test_making_pictures_stops_when_asked():
    made: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        InMemory(Pictures("labelled", 500, size=32), tick=made.append, stopped=lambda: len(made) >= 2)
    assert sum(made) < 100


def test_a_data_set_of_no_pictures_is_kept_as_such_and_refused_by_the_sampler():
    none = InMemory(Pictures("boxed", 0))
    assert len(none) == 0
    with pytest.raises(WordTreeError, match=r"sources of \[70, 0\] pictures"):
        JointSampler([70, len(none)], [1, 1], batch=4, steps=2)


def test_mirroring_turns_half_of_the_pictures_with_their_boxes():
    images = torch.zeros(200, 3, 8, 10, dtype=torch.uint8)
    images[:, :, 2:5, 1:4] = 255  # an object on the left
    target = {"boxes": torch.tensor([[1.0, 2.0, 4.0, 5.0]]), "labels": torch.tensor([3])}
    turned, targets = mirrored(images, [target] * 199 + [{"labels": torch.tensor([3])}], seed=5)
    flipped = 0
    for image, one in zip(turned[:199], targets, strict=False):
        left, top, right, bottom = (int(side) for side in one["boxes"][0])
        assert bool((image[:, top:bottom, left:right] == 255).all())
        assert int((image == 255).sum()) == 3 * 3 * 3
        flipped += left == 6
    assert 70 < flipped < 130
    assert targets[-1].keys() == {"labels"}
    again, _ = mirrored(images, [target] * 200, seed=5)
    other, _ = mirrored(images, [target] * 200, seed=6)
    assert torch.equal(again[:199], turned[:199])
    assert not torch.equal(other, again)
