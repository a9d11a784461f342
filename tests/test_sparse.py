"""Rows that catch up when they are read: the weights, losses and running means of dense SGD, step by step."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wordtree import WordTree, WordTreeError
from wordtree.nn import TreeLinear
from yolo9000 import models, sparse
from yolo9000.checkpoints import read_tensors
from yolo9000.config import config_of
from yolo9000.reports import Progress
from yolo9000.sparse import LazyRows, RowSGD
from yolo9000.training import Trainer

SMALL = WordTree([f"n{node}" for node in range(10)], [-1, -1, -1, 0, 0, 2, 2, 2, 5, 5])
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def rates(steps: int) -> list[float]:
    """Burn-in, then steps, as Darknet's schedules."""
    return [0.1 * min(1.0, (step + 1) / 10) ** 4 * (0.1 if step > 35 else 1.0) for step in range(steps)]


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE[theirs.dtype])


def sgd(module: nn.Module, momentum: float = 0.9, decay: float = 5e-4) -> torch.optim.SGD:
    return torch.optim.SGD(module.parameters(), lr=0.1, momentum=momentum, weight_decay=decay)


# ---------------------------------------------------------------------- a matrix


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("window", [4, 7, sparse.WINDOW])
@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 5e-4), (0.9, 0.0), (0.0, 5e-4), (0.0, 0.0), (0.95, 0.05)])
def test_rows_met_rarely_are_dense_sgds_at_every_reading_and_after_a_flush(dtype, window, momentum, decay, monkeypatch):
    monkeypatch.setattr(sparse, "WINDOW", window)
    monkeypatch.setattr(sparse, "CHUNK", 7)
    random = torch.Generator().manual_seed(1)
    dense = nn.Parameter(torch.randn(3, 8, 5, generator=random, dtype=dtype) / 10)  # as large as weights are
    optimizer = torch.optim.SGD([dense], momentum=momentum, weight_decay=decay)
    lazy = dense.detach().clone()
    rows = LazyRows(lazy, torch.zeros_like(lazy) if momentum else None)
    mean, lazy_mean = dense.detach().clone(), lazy.clone()
    for number, rate in enumerate(rates(50)):
        read = torch.randperm(24, generator=random)[: int(torch.randint(4, (1,), generator=random))]
        rows.read(read)
        close(lazy.view(24, 5)[read], dense.detach().view(24, 5)[read])
        values = torch.randn(len(read), 5, generator=random, dtype=dtype) / 10
        dense.grad = torch.zeros_like(dense)
        dense.grad.view(24, 5)[read] = values
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        at = torch.stack((read // 8, read % 8))
        rows.step(torch.sparse_coo_tensor(at, values, dense.shape, check_invariants=True), rate, momentum, decay)
        keep = min(0.95, (1 + number) / (10 + number))
        mean.lerp_(dense.detach(), 1 - keep)
        rows.average(lazy_mean, keep)
    rows.flush()
    close(lazy, dense.detach())
    close(lazy_mean, mean)
    if momentum:
        close(rows.parts[sparse.MOMENTUM], optimizer.state[dense]["momentum_buffer"])


def test_without_momentum_and_decay_nothing_is_left_to_catch_up_and_bits_are_dense_sgds():
    dense = nn.Parameter(torch.randn(6, 4))
    lazy, optimizer = dense.detach().clone(), torch.optim.SGD([dense], lr=0.3)
    rows, grad = LazyRows(lazy), torch.zeros(6, 4)
    grad[2] = torch.randn(4)
    for _ in range(5):
        dense.grad = grad.clone()
        optimizer.step()
        rows.step(grad.to_sparse(1), 0.3, 0.0, 0.0)
        assert rows.count == 0
        assert torch.equal(lazy, dense.detach())


def test_rows_nobody_asked_for_are_not_written_to():
    lazy = torch.randn(6, 4)
    rows, before = LazyRows(lazy, torch.ones(6, 4)), lazy.clone()
    for _ in range(3):
        rows.step(torch.ones(1, 4).new_zeros(6, 4).index_fill(0, torch.tensor([1]), 1.0).to_sparse(1), 0.1, 0.9, 0.1)
    rows.read(torch.tensor([4]))
    changed = (lazy != before).any(1).tolist()
    assert changed == [False, True, False, False, True, False]
    rows.flush()
    assert (lazy != before).all()


# ---------------------------------------------------------------------- a head


def heads(copies: int, dtype: torch.dtype, seed: int = 0) -> tuple[TreeLinear, TreeLinear]:
    torch.manual_seed(seed)
    dense = TreeLinear(6, SMALL, copies).to(dtype)
    return dense, copy.deepcopy(dense)


READINGS = ["loss", "descend", "log_prob_at", "log_prob_grid", "log_probs_of", "log_probs", "forward", "state"]


@pytest.mark.parametrize("method", READINGS)
def test_whichever_way_a_head_is_read_it_is_up_to_date(method):
    dense, lazy = heads(2, torch.float64)
    optimizers = sgd(dense, decay=0.05), RowSGD(sgd(lazy, decay=0.05), lazy)
    for number, rate in enumerate(rates(12)):
        random = torch.Generator().manual_seed(number)
        x = torch.randn(2, 6, generator=random, dtype=torch.float64)
        nodes, which = (torch.randint(most, (2,), generator=random) for most in (10, 2))
        for head, optimizer in zip((dense, lazy), optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            head.loss(x, nodes, which).backward()
            assert head.weight.grad is not None
            assert head.weight.grad.is_sparse == (head is lazy)
            optimizer.step()
    assert float((lazy.weight - dense.weight).detach().abs().max()) > 1e-4  # rows are behind
    told, wanted = (every_reading(head, method) for head in (lazy, dense))
    close(told, wanted)


def every_reading(head: TreeLinear, method: str) -> Tensor:
    """What one method says of an input, and it alone."""
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    which, nodes = torch.tensor([0, 1, 0, 1]), torch.tensor([8, 1, 4, 6])
    readings: dict[str, Callable[[], Tensor]] = {
        "loss": lambda: head.loss(x, nodes, which, reduction="none"),
        "descend": lambda: head.descend(x, 0.01, copy=which)[1],
        "log_prob_at": lambda: head.log_prob_at(x, nodes, which),
        "log_prob_grid": lambda: head.log_prob_grid(x[:, None], nodes),
        "log_probs_of": lambda: head.log_probs_of(x, [8, 3], which),
        "log_probs": lambda: head.log_probs(x, which),
        "forward": lambda: head(x),
        "state": lambda: head.state_dict()["weight"],
    }
    assert list(readings) == READINGS
    with torch.no_grad():
        return readings[method]()


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=10)
def test_accumulated_gradients_and_a_gradient_of_all_rows_are_taken_as_dense_sgd_takes_them(seed, everything):
    dense, lazy = heads(2, torch.float64, seed)
    optimizers = sgd(dense), RowSGD(sgd(lazy), lazy)
    for number in range(6):
        random = torch.Generator().manual_seed(seed + number)
        x = torch.randn(3, 6, generator=random, dtype=torch.float64)
        nodes, which = (torch.randint(most, (3,), generator=random) for most in (10, 2))
        for head, optimizer in zip((dense, lazy), optimizers, strict=True):
            optimizer.zero_grad()
            for part in range(3):
                head.loss(x[part:], nodes[part:], which[part:]).backward()
            if everything:
                head(x).logsumexp((1, 2)).sum().backward()
            sparse.clip_gradients(head.parameters(), 0.5)
            optimizer.step()
    close(lazy.state_dict()["weight"], dense.weight.detach())
    close(lazy.bias.detach(), dense.bias.detach())


def test_two_forward_passes_before_a_backward_pass_leave_each_others_rows_alone():
    dense, lazy = heads(1, torch.float64)
    optimizers = sgd(dense), RowSGD(sgd(lazy), lazy)
    x = torch.ones(1, 6, dtype=torch.float64)
    for node in (3, 8, 1, 9, 4):
        for head, optimizer in zip((dense, lazy), optimizers, strict=True):
            optimizer.zero_grad()
            first, second = head.loss(x, torch.tensor([node])), head.loss(x, torch.tensor([9 - node]))
            (first + 2 * second).backward()
            optimizer.step()
    optimizers[1].flush()
    close(lazy.weight.detach(), dense.weight.detach())


def test_what_is_loaded_is_what_counts_and_the_optimisers_state_is_up_to_date():
    dense, lazy = heads(1, torch.float64)
    optimizers = sgd(dense), RowSGD(sgd(lazy), lazy)
    x = torch.ones(1, 6, dtype=torch.float64)
    for node, (head, optimizer) in itertools.product((3, 8, 1), zip((dense, lazy), optimizers, strict=True)):
        optimizer.zero_grad()
        head.loss(x, torch.tensor([node])).backward()
        optimizer.step()
        if node == 8:
            head.load_state_dict({key: value * 2 for key, value in head.state_dict().items()})
    ours, theirs = (one.state_dict()["state"][0]["momentum_buffer"] for one in reversed(optimizers))
    close(ours, theirs)
    close(lazy.weight.detach(), dense.weight.detach())


# ---------------------------------------------------------------------- a detector


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_detector_learns_the_same_boxes_and_names(dtype):
    torch.manual_seed(0)
    dense = models.yolo9000(SMALL, [[1.0, 1.0], [2.0, 2.0]], 32, (4, 8, 8), (1, 1, 1)).to(dtype).train()
    lazy = copy.deepcopy(dense)
    optimizers = sgd(dense, decay=5e-2), RowSGD(sgd(lazy, decay=5e-2), lazy)
    boxes = torch.tensor([[2.0, 2, 12, 14]])
    for number in range(8):
        random = torch.Generator().manual_seed(number)
        images = torch.rand(3, 3, 32, 32, generator=random, dtype=dtype)
        nodes = torch.randint(10, (3, 1), generator=random)
        known = torch.rand(10, generator=random) < 0.7
        targets = [{"boxes": boxes, "labels": nodes[0], "known": known}, {"labels": nodes[1]}, {"labels": nodes[2]}]
        sums = []
        for model, optimizer in zip((dense, lazy), optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = rates(8)[number]
            optimizer.zero_grad()
            losses = model(images, targets)
            sums.append(torch.stack(list(losses.values())))
            sums[-1].sum().backward()
            optimizer.step()
        torch.testing.assert_close(sums[1], sums[0], rtol=2e-5, atol=1e-6)
    for key, value in dense.state_dict().items():
        torch.testing.assert_close(
            lazy.state_dict()[key], value, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12
        )


# ---------------------------------------------------------------------- a run

BY_ROWS = {**TINY, "optimizer": "sgd", "sparse_head": True, "decay": 0.05, "rate": 0.02, "classifier_rate": 0.02}


def weights_of(folder: Path, **options: Any) -> dict[str, Tensor]:
    """Both phases of a tiny run: what its last checkpoint holds, and what it saves."""
    trainer = Trainer(config_of({**BY_ROWS, **options}), folder)
    with Progress(enabled=False) as bar:
        trainer.train(bar, lambda: False)
    kept, _ = read_tensors(trainer.checkpoint)
    saved, _ = read_tensors(trainer.save_weights())
    return {**kept, **{f"saved.{key}": value for key, value in saved.items()}}


@pytest.fixture(scope="module")
def by_rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    weights = weights_of(tmp_path_factory.mktemp("rows"))
    torch.set_num_threads(before)
    return weights


def test_a_run_by_rows_is_the_dense_run(by_rows, tmp_path, one_thread):
    dense = weights_of(tmp_path, sparse_head=False)
    assert dense.keys() == by_rows.keys()
    assert any("momentum_buffer" in key for key in dense)
    for key, value in dense.items():
        torch.testing.assert_close(by_rows[key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("steps", [3, 7])
def test_a_run_by_rows_that_was_killed_ends_as_if_it_had_not_been(by_rows, tmp_path, monkeypatch, one_thread, steps):
    step = Trainer._step

    def killed(self: Trainer, *given: Any) -> Any:
        if self.step == steps:
            raise MemoryError  # nothing is saved on the way out
        return step(self, *given)

    monkeypatch.setattr(Trainer, "_step", killed)
    with pytest.raises(MemoryError):
        weights_of(tmp_path)
    monkeypatch.undo()
    again = weights_of(tmp_path)
    assert again.keys() == by_rows.keys()
    assert all(torch.equal(value, by_rows[key]) for key, value in again.items())


def test_a_run_by_rows_with_another_optimiser_is_refused():
    with pytest.raises(WordTreeError, match=r"sparse_head with optimizer adamw.*give optimizer sgd"):
        config_of({"sparse_head": True})


# ---------------------------------------------------------------------- what it is not for


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda head: torch.optim.AdamW(head.parameters()), "AdamW"),
        (lambda head: torch.optim.SGD(head.parameters(), momentum=0.9, nesterov=True), "nesterov"),
        (lambda head: torch.optim.SGD(head.parameters(), dampening=0.1), "dampening"),
    ],
)
def test_another_rule_than_plain_sgd_is_refused_by_name(make, named):
    head = TreeLinear(4, SMALL)
    with pytest.raises(WordTreeError, match=named):
        RowSGD(make(head), head)
    assert not head.sparse


def test_a_module_without_a_tree_classifier_is_refused():
    layer = nn.Linear(3, 3)
    with pytest.raises(WordTreeError, match="Linear, which has no TreeLinear"):
        RowSGD(sgd(layer), layer)
