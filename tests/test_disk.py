"""A full disk and a folder that cannot be written: said in three parts, the last checkpoint kept, nothing by halves."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import small_data
import torch
from conftest import ALONE, TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from small_data import PETS, SMALL

from wordtree import WordTreeError
from yolo9000 import checkpoints, files, training
from yolo9000.checkpoints import read_tensors, save_tensors, versions
from yolo9000.data.folders import read_folder
from yolo9000.data.loading import Damaged
from yolo9000.data.shards import write_shards
from yolo9000.files import CannotWrite, append, clean, part_of, whole, write_text
from yolo9000.runs import MetricsFile, tidy

SHORT: dict[str, Any] = {**TINY, "joint": True, "test_scenes": 2, "progress": False}
PARTS = (r"cannot write '.*checkpoint\.safetensors', .* KiB: ", "free there; make room, and the same command goes on")


def no_room(*given: Any, **options: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# ---------------------------------------------------------------------- files


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "notes.txt"
    write_text(path, "first")
    with pytest.raises(TypeError), whole(path) as part:
        part.write_bytes(["half of"])  # type: ignore[arg-type]
    assert path.read_text() == "first"
    part_of(path).mkdir()
    (part_of(path) / "notes.txt").write_text("of a killed process")
    write_text(path, "second")
    assert path.read_text() == "second"
    assert [one.name for one in path.parent.iterdir()] == ["notes.txt"]
    part_of(path).mkdir()
    other = path.parent / "film.mp4.part"  # somebody else's
    other.write_text("")
    clean([path])
    assert {one.name for one in path.parent.iterdir()} == {"notes.txt", "film.mp4.part"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_full_disk_is_named_with_what_was_to_be_written_and_what_is_free(tmp_path, monkeypatch, number, place):
    path = tmp_path / "notes.txt"
    write_text(path, "first")

    def full(*given: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, place, full)
    with pytest.raises(CannotWrite) as caught:
        write_text(path, "second" * 1000)
    for part in (repr(str(path)), "5.86 KiB", os.strerror(number), "are free there", "make room"):
        assert part in str(caught.value)
    assert path.read_text() == "first"
    assert [one.name for one in tmp_path.iterdir()] == ["notes.txt"]


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), whole(tmp_path / "a") as part:
        part.with_name("other").read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_line_is_added_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    write_text(path, "head\n")
    append(path, "one\n")
    full = Path("/dev/full")
    if full.exists():  # a device that has no room, ever
        with pytest.raises(CannotWrite, match="No space left on device"):
            append(full, "two\n")
    opened = Path.open

    class Half:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *given: Any) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            self.file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", lambda self, *given, **options: Half(opened(self, *given, **options)))
    with pytest.raises(CannotWrite, match=r"metrics\.csv', 4 bytes: No space"):
        append(path, "two\n")
    monkeypatch.undo()
    assert path.read_text() == "head\none\n"


@pytest.mark.parametrize("cut", [1, 5, 12, 20])
def test_a_torn_last_line_of_the_metrics_is_dropped_and_no_other(tmp_path, cut):
    path = tmp_path / "metrics.csv"
    log = MetricsFile(path, keep_to=0)
    for step in (10, 20, 100):
        log.write(step, "boxes", 1.0, 1e-3, {"box": 1.0, "objectness": 2.0, "tree": 3.0, "image_label": 0.0})
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines)[:-cut])
    MetricsFile(path, keep_to=100)
    assert path.read_text() == "".join(lines[:3])
    MetricsFile(path, keep_to=10)
    assert path.read_text() == "".join(lines[:2])


def test_shards_and_the_list_of_damaged_images_are_never_half_there(tmp_path, monkeypatch):
    records = read_folder(small_data.folders(tmp_path, each=3), PETS, SMALL)
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(CannotWrite, match=r"cannot write .*-000000\.tar"):
        write_shards(records, tmp_path / "shards")
    assert list((tmp_path / "shards").iterdir()) == []
    damaged = Damaged(tmp_path / "bad_images.csv", [5])
    with pytest.warns(UserWarning, match="left out"), pytest.raises(CannotWrite, match=r"bad_images\.csv"):
        damaged.note(0, [("a.jpg", "no image")])
    assert not (tmp_path / "bad_images.csv").exists()


# ---------------------------------------------------------------------- checkpoints


def checkpoint(folder: Path) -> Path:
    tensors = {"model.weight": torch.arange(6.0).reshape(2, 3), "average.step": torch.tensor(3)}
    return save_tensors(folder / "checkpoint.safetensors", tensors, {"step": 3, "config": {}, "note": "Käse"})


@given(st.integers(0, 10_000), st.integers(0, 7))
@settings(max_examples=120)
def test_any_bit_flipped_and_any_cut_is_found(place, bit):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint(Path(folder))
        data = bytearray(path.read_bytes())
        place %= len(data)
        path.write_bytes(data[:place])
        with pytest.raises(WordTreeError, match="cannot be read"):
            read_tensors(path)
        data[place] ^= 1 << bit
        path.write_bytes(data)
        with pytest.raises(WordTreeError):
            read_tensors(path)


def test_the_next_start_removes_what_a_killed_one_was_writing_and_nothing_else(tmp_path):
    parts = [part_of(tmp_path / name) for name in ("checkpoint.safetensors", "nonfinite/step-7", "mine.txt")]
    for part in parts:
        (part / "half").mkdir(parents=True)
    (tmp_path / "nonfinite" / "step-3").mkdir()
    tidy(tmp_path)
    assert [part.exists() for part in parts] == [False, False, True]
    assert (tmp_path / "nonfinite" / "step-3").is_dir()


def test_tensors_that_share_memory_are_each_written_whole(tmp_path):
    tied = torch.nn.ModuleDict({"one": torch.nn.Linear(3, 3), "other": torch.nn.Linear(3, 3)})
    tied["other"].weight = tied["one"].weight
    rows = torch.arange(6.0).view(2, 3)
    given = {**tied.state_dict(), "first": rows[0], "all": rows, "none": rows[:0], "nothing": torch.zeros(0)}
    tensors, _ = read_tensors(save_tensors(tmp_path / "tied.safetensors", given, {}))
    assert tensors.keys() == given.keys()
    assert all(torch.equal(value, given[key]) for key, value in tensors.items())


def test_a_file_of_before_there_were_checksums_is_read(tmp_path):
    path = tmp_path / "old.safetensors"
    save_file({"weight": torch.ones(2)}, path, metadata={"yolo9000": json.dumps({"format": 1, "step": 3})})
    tensors, header = read_tensors(path)
    assert (tensors["weight"].tolist(), header["step"]) == ([1.0, 1.0], 3)


def stopped(folder: Path) -> Path:
    """A run with a checkpoint after two steps."""
    step = training.Trainer._step

    def stopping(self: Any, *given: Any) -> Any:
        if self.step == 2:
            raise KeyboardInterrupt
        return step(self, *given)

    training.Trainer._step = stopping  # type: ignore[method-assign]
    try:
        training.train(out=folder, **SHORT)
    except KeyboardInterrupt:
        pass
    finally:
        training.Trainer._step = step  # type: ignore[method-assign]
    return folder / "checkpoint.safetensors"


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unfinished")
    torch.set_num_threads(1)
    stopped(folder)
    return folder


def test_a_checkpoint_says_what_its_run_depends_on(unfinished):
    _, header = read_tensors(unfinished / "checkpoint.safetensors")
    assert versions().items() <= header["versions"].items()
    assert {"torch", "torchvision", "yolo9000", "python", "threads"} <= header["versions"].keys()
    assert header["config"]["steps"] == SHORT["steps"]
    assert len(header["tree"]) == 64
    assert header["step"] == 2


def damage(path: Path, kind: str) -> None:
    tensors, header = read_tensors(path)
    if kind == "flipped":
        data = bytearray(path.read_bytes())
        data[-9] ^= 4
        path.write_bytes(data)
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif kind == "pickle":
        torch.save(tensors, path)
    elif kind == "weights":
        save_tensors(path, tensors, {"model": {}})
    elif kind == "tree":
        save_tensors(path, tensors, {**header, "tree": "0" * 64})
    elif kind == "data":
        save_tensors(path, tensors, {**header, "data": "1" * 64})
    elif kind == "newer":
        checkpoints.FORMAT += 1
        save_tensors(path, tensors, header)
        checkpoints.FORMAT -= 1


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("flipped", ["cannot go on", "checksum", "delete the file to begin again"]),
        ("cut", ["cannot go on", "cannot be read", "delete the file to begin again"]),
        ("pickle", ["cannot go on", "cannot be read", "delete the file to begin again"]),
        ("weights", ["cannot go on", "a model's weights and no run's state", "put the checkpoint back"]),
        ("tree", ["a run over another tree (000000000000, given ", "give that tree, another folder, or delete it"]),
        (
            "data",
            ["data that has changed since (111111111111, given the embedded", "another folder, or delete it"],
        ),
        ("newer", ["of format 3", "reads up to 2: upgrade it"]),
    ],
)
def test_a_checkpoint_that_cannot_be_gone_on_with_is_named_in_three_parts(unfinished, tmp_path, kind, parts):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes((unfinished / path.name).read_bytes())
    damage(path, kind)
    before = path.read_bytes()
    with pytest.raises(WordTreeError) as caught:
        training.Trainer(training.config_of({k: v for k, v in SHORT.items() if k != "progress"}), tmp_path)
    for part in parts:
        assert part in str(caught.value)
    assert path.read_bytes() == before


def test_a_run_goes_on_under_other_versions_and_says_that_it_is_not_the_same_to_the_bit(unfinished, tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    tensors, header = read_tensors(unfinished / path.name)
    config = training.config_of({k: v for k, v in SHORT.items() if k != "progress"})
    save_tensors(path, tensors, {**header, "versions": {**header["versions"], "torch": "1.0", "threads": 96}})
    with pytest.warns(UserWarning, match=r"goes on with torch .* \(was 1.0\), threads .* \(was 96\).*not be equal bit"):
        assert training.Trainer(config, tmp_path).step == 2
    old = {key: header[key] for key in ("step", "seconds", "config", "tree", "data")}
    save_tensors(path, tensors, {**old, "torch": header["versions"]["torch"]})
    assert training.Trainer(config, tmp_path).step == 2


# ---------------------------------------------------------------------- a run


@pytest.mark.parametrize("name", ["weights.safetensors", "metrics.csv", "curve.png", "evaluation.csv", "metrics.json"])
def test_no_room_for_any_file_of_a_run_leaves_its_checkpoint_and_no_half_of_a_file(tmp_path, monkeypatch, name):
    """As the disk fills while this one file is written; the run then goes on."""
    replace = os.replace

    def filling(source: Any, target: Any) -> None:
        if Path(target).name == name and full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    full = True
    monkeypatch.setattr(os, "replace", filling)
    with pytest.raises(CannotWrite, match=rf"cannot write '.*{name}'.* No space left on device"):
        training.train(out=tmp_path, **{**SHORT, "classifier_steps": 1, "steps": 2})
    assert not (tmp_path / name).exists()
    assert not list(tmp_path.glob("*.part"))
    if name != "metrics.csv":  # which is begun before the first step
        assert read_tensors(tmp_path / "checkpoint.safetensors")[1]["step"] == 3
    full = False
    assert training.train(out=tmp_path, **{**SHORT, "classifier_steps": 1, "steps": 2}).weights.is_file()


FULL_DISK = """
import json, sys
from pathlib import Path
import torch, yolo9000
from yolo9000.checkpoints import read_tensors
torch.set_num_threads(1)
folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
from yolo9000 import training
import resource, shutil
save, count = training.Trainer.save_checkpoint, []
def saving(self):
    save(self)
    count.append(1)
    if len(count) == 1 and sys.argv[3] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
    if len(count) == 1 and sys.argv[3] == "full":
        (folder / "filler").write_bytes(bytes(shutil.disk_usage(folder).free - 30000))
training.Trainer.save_checkpoint = saving
try:
    yolo9000.train(out=folder, **options)
    said = ""
except yolo9000.files.CannotWrite as fault:
    said = str(fault)
if sys.argv[3] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
kept = read_tensors(folder / "checkpoint.safetensors")[1]["step"] if (folder / "checkpoint.safetensors").exists() else 0
files = sorted(file.name for file in folder.iterdir())
done = False
if sys.argv[3] != "closed":
    (folder / "filler").unlink(missing_ok=True)
    done = yolo9000.train(out=folder, **options).weights.is_file()
print(json.dumps({"said": said, "kept": kept, "files": files, "done": done}))
"""


def outcome(folder: Path, kind: str, before: str = "") -> Any:
    """What a run in a process of its own met; `before`, shell commands in a mount namespace of its own."""
    code = f"import yolo9000.files\n{FULL_DISK}"
    options = {**SHORT, "steps": 12, "checkpoint_every": 2}
    words = [sys.executable, "-c", code, str(folder), json.dumps(options), kind]
    if before:
        words = ["unshare", "--mount", "sh", "-c", f'{before} && exec "$@"', "sh", *words]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, env=ALONE)
    if before and "Operation not permitted" in done.stderr:
        pytest.skip("no mount is permitted here")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_disk_that_is_really_full_leaves_the_last_checkpoint_and_the_run_goes_on_when_there_is_room(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    found = outcome(disk, "full", f"mount -t tmpfs -o size=3m tmpfs {disk}")
    assert "No space left on device" in found["said"]
    assert "KiB are free there" in found["said"] or "bytes are free there" in found["said"]
    assert not [name for name in found["files"] if name.endswith(".part")]
    assert found["kept"] == 2
    assert found["done"]


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_met_like_a_full_disk(tmp_path):
    found = outcome(tmp_path, "limit")
    assert "checkpoint.safetensors" in found["said"]
    assert "File too large" in found["said"]
    assert found["kept"] == 2
    assert not [name for name in found["files"] if name.endswith(".part")]
    assert found["done"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    found = outcome(disk, "closed", f"mount -t tmpfs -o ro tmpfs {disk}")
    assert "cannot write" in found["said"]
    assert "Read-only file system; give a folder that may be written, out=" in found["said"]
    assert found["files"] == []


def test_the_read_of_a_folder_that_is_closed_is_no_fault_of_writing():
    assert files.named(FileNotFoundError(errno.ENOENT, "no such file"), "x").args[0] == errno.ENOENT
