"""Ctrl-C and SIGTERM at every stage of a run: said, with where the checkpoint lies; and the run goes on."""

import json
import os
import signal
import subprocess
import time
from typing import Any

import pytest
from conftest import ALONE, TINY, arguments
from killed import assert_gone, children

import yolo9000
from yolo9000 import feeds, training
from yolo9000.checkpoints import peek
from yolo9000.stops import Stopped, stopping

SHORT: dict[str, Any] = {**TINY, "joint": True, "classifier_steps": 2, "steps": 3, "test_scenes": 2, "progress": False}


def test_a_signal_is_kept_inside_and_raised_outside_and_handlers_come_back():
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with stopping() as stops:
        asked = []
        with pytest.raises(Stopped) as caught, stops.later() as stopped:
            asked += [stopped(), signal.raise_signal(signal.SIGTERM), stopped()]
        assert asked == [False, None, True]
        assert caught.value.number == signal.SIGTERM
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)  # a second one, and outside
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def at(place: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise a signal at a stage of a run."""

    def before(owner: Any, name: str, when: Any = lambda *given: True) -> None:
        function = getattr(owner, name)

        def signalled(*given: Any, **options: Any) -> Any:
            if when(*given):
                signal.raise_signal(number)
            return function(*given, **options)

        monkeypatch.setattr(owner, name, signalled)

    if place == "reading":
        before(feeds.EmbeddedFeed, "anchors")
    elif place == "first pictures":
        before(feeds.EmbeddedFeed, "_pictures")
    elif place == "names":
        before(training.Trainer, "_step", lambda self, *given: self.step == 1)
    elif place == "pictures between":
        before(feeds.EmbeddedFeed, "_pictures", lambda self, split, *given: split == "boxed")
    elif place == "boxes":
        before(training.Trainer, "_step", lambda self, *given: self.step == 3)
    else:
        before(feeds, "evaluate_and_report")


@pytest.mark.parametrize(
    ("place", "number", "kept"),
    [
        ("reading", signal.SIGTERM, None),
        ("first pictures", signal.SIGINT, None),
        ("names", signal.SIGTERM, 2),
        ("pictures between", signal.SIGTERM, 2),
        ("boxes", signal.SIGINT, 4),
        ("evaluation", signal.SIGTERM, 5),
    ],
)
def test_a_signal_at_any_stage_says_where_the_checkpoint_lies_and_the_run_goes_on(
    tmp_path, monkeypatch, one_thread, place, number, kept
):
    with monkeypatch.context() as patch:
        at(place, number, patch)
        with pytest.raises(Stopped) as caught:
            yolo9000.train(out=tmp_path, **SHORT)
    assert caught.value.number == number
    path = tmp_path / "checkpoint.safetensors"
    if kept is None:
        assert str(caught.value) == f"stopped before the first checkpoint in {tmp_path}; the same command begins again"
    else:
        assert f"and the same command goes on from it ({path}, after step {kept})" in str(caught.value)
        assert peek(path)["step"] == kept
    if place == "boxes":
        assert yolo9000.train(out=tmp_path, **SHORT).weights.is_file()


def test_a_whole_group_of_processes_told_to_end_while_pictures_are_made_ends_and_says_so(tmp_path):
    """As a cluster does it: SIGTERM to the parent and to the processes that make its pictures."""
    options = {**TINY, "boxed_pictures": 4000, "workers": 2, "size": 320}
    words = [word for key, value in options.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    process = subprocess.Popen(
        arguments("train", "--joint", "--out", tmp_path / "out", *words),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ALONE, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while len(below := children(process.pid)) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "Traceback" not in out + err
    assert "stopped" in err
    assert f"yolo9000 train --joint --out {tmp_path / 'out'} --set" in err
    assert_gone(below)
