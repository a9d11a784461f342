"""Trainings that are killed: processes of their own, ended with SIGKILL at any moment, and what they leave on the disk.

As a program it reads a task as JSON, imports everything once, and forks a process for each life of a run.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any


class Fork:
    """A process that begins here, with everything imported."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.pid = os.fork()
        self.returncode: int | None = None
        if not self.pid:
            code = 1
            try:
                work()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a forked process", timeout)
            time.sleep(0.002)
        assert self.returncode is not None
        return self.returncode


def children(pid: int) -> list[int]:
    """The processes that a process has begun, and those that they have."""
    try:
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [one for child in map(int, below) for one in (child, *children(child))]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def assert_gone(pids: list[int], patience: float = 10) -> None:
    """Processes end, soon."""
    deadline = time.monotonic() + patience
    while some := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < deadline, f"{some} of {pids} have outlived their parent"
        time.sleep(0.02)


def assert_readable(folder: Path) -> None:
    """Every checkpoint and every weights file in place is whole."""
    from yolo9000.checkpoints import read_tensors

    for path in folder.glob("*.safetensors"):
        tensors, header = read_tensors(path)
        assert tensors
        assert header["sha256"]


def assert_same(folder: Path, whole: Path) -> None:
    """A run that went on ended as the one that never stopped: byte for byte, but for the seconds; and no file more."""
    assert (folder / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert without_seconds(folder) == without_seconds(whole)
    names = [{str(path.relative_to(one)) for path in one.rglob("*")} for one in (folder, whole)]
    assert names[0] == names[1]
    figures = [json.loads((one / "metrics.json").read_text()) for one in (folder, whole)]
    some = [{k: v for k, v in one.items() if k != "seconds" and "per_second" not in k} for one in figures]
    assert str(some[0]) == str(some[1])


def without_seconds(folder: Path) -> list[list[str]]:
    """The rows of metrics.csv without their third column."""
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    assert rows[0][2] == "seconds"
    return [row[:2] + row[3:] for row in rows]


def kill_at_random(
    start: Callable[[Path], Any], folder: Path, whole: Path, kills: int, seconds: float, seed: int
) -> list[int]:
    """Kill a run and go on with it until it has been killed so often; a run that ends before is compared, and another
    begins.

    Args:
        start: begins or goes on with a run in a folder: a process with `pid`, `wait` and `returncode`.
        folder: where the runs go, one folder each.
        whole: the run that was never killed.
        kills: how often.
        seconds: that a whole life takes.
        seed: of the moments.

    Returns:
        the step of the checkpoint that was found after each kill, -1 where there was none yet.
    """
    from yolo9000.checkpoints import peek

    random, found, runs = Random(seed), [], 0
    home = folder / "0"
    while len(found) < kills:
        process = start(home)
        try:
            code = process.wait(timeout=random.uniform(0, seconds))
            assert code == 0
            assert_same(home, whole)
            runs += 1
            home = folder / str(runs)
        except subprocess.TimeoutExpired:
            below = children(process.pid)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert_gone(below)
            assert_readable(home)
            found.append(peek(home / "checkpoint.safetensors").get("step", -1))
    assert start(home).wait() == 0
    assert_same(home, whole)
    return found


def dying(point: int) -> Callable[[], int]:
    """Let this process end at one point of writing a checkpoint, counted from 1: before and after each of its steps,
    and in the middle of the file itself. Returns how many points have been passed."""
    import shutil

    from yolo9000 import checkpoints, files, training

    passed, inside = 0, False

    def here() -> bool:
        nonlocal passed
        passed += inside
        return inside and passed == point

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if here():
                os._exit(9)
            result = function(*args, **options)
            if here():
                os._exit(9)
            return result

        return call

    def half(tensors: Any, path: Path, metadata: Any) -> None:
        save_file(tensors, path, metadata=metadata)
        if here():
            os.truncate(path, os.path.getsize(path) // 2)
            os._exit(9)

    def saving(self: Any) -> None:
        nonlocal inside
        inside = True
        save(self)
        inside = False

    save_file, save = checkpoints.save_file, training.Trainer.save_checkpoint
    checkpoints.save_file = half
    training.Trainer.save_checkpoint = saving
    os.replace, os.fsync, shutil.rmtree = guarded(os.replace), guarded(os.fsync), guarded(shutil.rmtree)
    files.Path.mkdir = guarded(files.Path.mkdir)
    return lambda: passed


def main(task: dict[str, Any]) -> Any:
    """What the tests ask for, see `test_killed.py`."""
    import torch

    import yolo9000

    torch.set_num_threads(1)
    folder, whole = Path(task["folder"]), Path(task["whole"])

    def train(home: Path) -> None:
        yolo9000.train(out=home, progress=False, **task["train"])

    train(whole)  # here, so that what a life imports and reads is there when it begins
    began = time.monotonic()
    assert Fork(lambda: train(folder / "timed")).wait() == 0
    seconds = time.monotonic() - began
    if "kills" in task:
        start = lambda home: Fork(lambda: train(home))  # noqa: E731
        return kill_at_random(start, folder, whole, task["kills"], seconds, task["seed"])
    point, ended = 1, []
    while True:

        def life(at: int = point) -> None:
            count = dying(at)
            train(folder / "0")
            os._exit(3 if count() >= at else 0)

        code = Fork(life).wait()
        assert code in (0, 9), code
        if code == 0:
            break
        assert_readable(folder / "0")
        ended.append(point)
        point += 1
    assert_same(folder / "0", whole)
    return ended


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
