"""One run of the smallest size, made once and read by many tests."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("patient")

# a joint run in seconds: too small to learn, large enough to have two phases, checkpoints and a table
TINY: dict[str, Any] = {
    "widths": (8, 8, 8, 8, 8),
    "counts": (1, 1, 1, 1, 1),
    "size": 64,
    "sizes": (48, 64),
    "classifier_sizes": (32,),
    "classifier_pictures": 40,
    "boxed_pictures": 40,
    "labelled_pictures": 40,
    "classifier_steps": 4,
    "classifier_batch": 8,
    "steps": 6,
    "batch": 4,
    "test_scenes": 4,
    "workers": 0,
    "checkpoint_every": 2,
    "precision": "float32",
    "device": "cpu",
}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in one order: what is compared bit for bit is computed with one thread on both sides."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished joint run of TINY, computed with one thread."""
    import torch

    import yolo9000

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    run = yolo9000.train(joint=True, out=tmp_path_factory.mktemp("tiny") / "run", progress=False, **TINY)
    torch.set_num_threads(before)
    return run


@pytest.fixture(scope="session")
def darknet_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """The random .weights file of a cfg of the reference values, made once; none is left afterwards."""
    from oracle import make_weights

    folder = tmp_path_factory.mktemp("darknet-weights")

    def file(name: str) -> Path:
        path = folder / f"{name}-random.weights"
        return path if path.exists() else make_weights(name, path)

    yield file
    for path in folder.iterdir():
        path.unlink()


class Done(NamedTuple):
    """How a command ended, as `subprocess` says it."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """`command` without the process."""
    from yolo9000.cli import main

    def run(*words: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["yolo9000", *map(str, words)])
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        assert isinstance(code, int)  # a text would be printed and be 1
        return Done(code, *capfd.readouterr())

    return run


def signal_before(step: int, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training in this process gets a signal as it begins the step of that number, from 1."""
    from yolo9000.training import Trainer

    whole = Trainer._step

    def stopping(self: Any, *given: Any) -> Any:
        if self.step + 1 == step:
            signal.raise_signal(number)
        return whole(self, *given)

    monkeypatch.setattr(Trainer, "_step", stopping)


def command(*words: str | Path, code: str = "", **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run `yolo9000 ...` as a process of its own; `code` runs in it first."""
    return subprocess.run(
        [*arguments(*words, code=code)], capture_output=True, text=True, timeout=300, env=ALONE, **options
    )


def arguments(*words: str | Path, code: str = "") -> list[str]:
    return [sys.executable, "-c", f"{code}\nfrom yolo9000.cli import main\nmain()", *map(str, words)]


ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}
