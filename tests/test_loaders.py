"""Processes that read pictures: an error in one of them is told in a line, and nothing waits for them afterwards."""

import subprocess
import sys
from pathlib import Path

import pytest
import small_data
import torch
from conftest import ALONE, command
from small_data import CAT, PETS, SMALL
from test_runfile import write_run
from torch.utils.data import DataLoader

from wordtree import WordTreeError
from yolo9000 import models
from yolo9000.checkpoints import save_model
from yolo9000.data.folders import read_folder
from yolo9000.hardware import as_worker, loaded
from yolo9000.task import batches


def names(folder: Path) -> Path:
    """Four pictures by name, one of them damaged."""
    home = small_data.folders(folder)
    (home / CAT / f"{CAT}_1.JPEG").write_bytes(b"no picture")
    return home


@pytest.mark.parametrize("processes", [0, 2])
def test_a_damaged_test_picture_is_the_same_line_from_any_number_of_processes(tmp_path, processes):
    records = read_folder(names(tmp_path), PETS, SMALL, "names")
    with pytest.raises(WordTreeError) as caught:
        list(batches(records, processes, None, "looking"))
    with pytest.raises(WordTreeError) as alone:
        records.image([records.where(at).endswith(f"{CAT}_1.JPEG") for at in range(4)].index(True))
    assert str(caught.value) == str(alone.value)
    assert type(caught.value) is WordTreeError


def test_an_evaluation_that_meets_a_damaged_picture_says_so_in_a_line_and_ends(tmp_path):
    names(tmp_path)
    small_data.PETS.save(tmp_path / "pets.csv")
    run = write_run(tmp_path, [{"kind": "folder", "path": "names", "labels": "pets.csv", "use": "test"}])
    model = models.darknet19(SMALL, 32, widths=(8, 8), counts=(1, 1))
    save_model(tmp_path / "model.safetensors", model)
    done = command("evaluate", "--weights", tmp_path / "model.safetensors", "--data", run, "--out", tmp_path / "out")
    assert done.returncode == 2
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("error:")]
    assert f"{CAT}_1.JPEG" in line
    assert "Traceback" not in done.stderr


SCRIPT = """
import sys, torch
from torch.utils.data import DataLoader, Dataset
from yolo9000.hardware import as_worker, loaded

class Rows(Dataset):
    def __len__(self): return 40
    def __getitem__(self, at):
        if at == 9 and sys.argv[1] == "worker": raise MemoryError("no room")
        return at

def work(rows):
    for number, row in enumerate(rows):
        if number == 3 and sys.argv[1] == "reader": raise ValueError("of the one who reads")
        if number == 3 and sys.argv[1] == "left": return

if __name__ == "__main__":
    loader = DataLoader(Rows(), num_workers=2, worker_init_fn=as_worker)
    rows = loaded(loader)
    kept = [loader, rows]  # as a traceback keeps them
    work(rows)
"""


@pytest.mark.parametrize(("how", "told"), [("worker", "no room"), ("reader", "who reads"), ("left", ""), ("none", "")])
def test_a_program_ends_with_its_own_error_whoever_had_it_and_waits_for_no_process(tmp_path, how, told):
    (tmp_path / "work.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "work.py", how], capture_output=True, text=True, timeout=100, env=ALONE
    )
    assert done.returncode == (1 if told else 0), done.stderr
    assert told in done.stderr


def test_a_loader_without_processes_gives_the_same():
    rows = [
        [one.tolist() for one in loaded(DataLoader(torch.arange(10), 3, num_workers=some, worker_init_fn=as_worker))]
        for some in (0, 2)
    ]
    assert rows[0] == rows[1] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
