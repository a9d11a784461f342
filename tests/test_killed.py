"""Kill -9 loses nothing: whatever the moment, the run goes on and ends with the bytes of one that was never killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ALONE, TINY, arguments
from killed import assert_gone, assert_readable, assert_same, children, kill_at_random
from test_runfile import joint

LIFE = {**TINY, "joint": True, "steps": 8, "test_scenes": 2}


def lives(task: dict[str, Any]) -> Any:
    """The answer of `killed.py`, in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "killed.py"), json.dumps(task)],
        capture_output=True, text=True, timeout=1800, env=ALONE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(tmp_path):
    found = lives({"folder": str(tmp_path), "whole": str(tmp_path / "whole"), "train": LIFE, "kills": 4, "seed": 1})
    assert len(found) == 4


@pytest.mark.slow
def test_a_run_with_worker_processes_killed_at_random_moments_ends_with_the_same_bytes_and_leaves_no_orphan(tmp_path):
    run = joint(tmp_path, steps=8, workers=2)
    task = {"folder": str(tmp_path / "out"), "whole": str(tmp_path / "whole"), "train": {"data": str(run)}}
    assert len(lives({**task, "kills": 3, "seed": 2})) == 3


def test_a_process_that_ends_at_any_step_of_writing_a_checkpoint_loses_nothing(tmp_path):
    small = {**LIFE, "boxed_pictures": 8, "labelled_pictures": 8, "classifier_pictures": 8, "checkpoint_every": 1}
    ended = lives({"folder": str(tmp_path / "out"), "whole": str(tmp_path / "whole"), "train": small})
    assert ended == list(range(1, len(ended) + 1))
    assert len(ended) > 10  # before and after: the folder made, the file synced, moved, the folder synced, removed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["embedded", "run.yaml"])
def test_a_command_killed_at_twenty_random_moments_of_its_life_ends_with_the_same_bytes(tmp_path, kind):
    if kind == "embedded":
        given = ["--joint"]
        settings = {**TINY, "classifier_steps": 10, "steps": 30, "boxed_pictures": 200, "workers": 2}
    else:
        given = ["--data", str(joint(tmp_path, classifier_steps=10, steps=30, workers=2))]
        settings = {}
    words = [*given, *(word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}"))]

    def start(home: Path) -> "subprocess.Popen[bytes]":
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen(arguments("train", "--out", home, *words), stdout=log, stderr=log, env=ALONE)

    began = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0, (tmp_path / "log").read_text()
    found = kill_at_random(start, tmp_path / "runs", tmp_path / "whole", 20, time.monotonic() - began, seed=3)
    assert len(found) == 20


def test_processes_that_make_pictures_end_with_a_parent_that_is_killed(tmp_path):
    words = ["--set", "boxed_pictures=5000", "--set", "workers=2", "--set", "size=320"]
    process = subprocess.Popen(
        arguments("train", "--out", tmp_path / "out", *words),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=ALONE,
    )
    deadline = time.monotonic() + 120
    while len(below := children(process.pid)) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)  # none of them keeps its parent's output open
    assert_gone(below)


def test_the_checks_of_these_tests_can_fail(tmp_path, tiny_run):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", tiny_run.directory, copy], check=True)
    assert_same(copy, tiny_run.directory)
    assert_readable(copy)
    (copy / "checkpoint.safetensors.part").mkdir()
    with pytest.raises(AssertionError):
        assert_same(copy, tiny_run.directory)
    weights = copy / "weights.safetensors"
    whole = bytearray(weights.read_bytes())
    whole[-1] ^= 1
    weights.write_bytes(whole)
    with pytest.raises(Exception, match="checksum"):
        assert_readable(copy)
    sleeper = subprocess.Popen(["sleep", "60"])
    with pytest.raises(AssertionError, match="outlived"):
        assert_gone([sleeper.pid], patience=0.1)
    sleeper.kill()
    sleeper.wait()
