"""docs/when-it-goes-wrong.md: what it quotes is what is said."""

import errno
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import small_data
import torch
from test_disk import SHORT, damage, unfinished  # noqa: F401 - a fixture
from test_runfile import write_run

import yolo9000
from wordtree import WordTreeError
from yolo9000 import training
from yolo9000.checkpoints import read_tensors, save_tensors
from yolo9000.config import config_of
from yolo9000.data.loading import Damaged
from yolo9000.data.records import decode
from yolo9000.faults import Faults, Moment, Unsound, explained
from yolo9000.files import named

PAGE = (Path(__file__).parent.parent / "docs" / "when-it-goes-wrong.md").read_text()


def plain(text: str) -> str:
    """A message without what differs from run to run: paths, hashes, numbers and what the system says."""
    text = re.sub(r"'[^' ]*[/.][^' ]*'|[\w.-]*/[\w./-]+|\brun\.yaml", "PATH", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "HASH", text)
    text = re.sub(r"\d+(\.\d+)*(e-?\d+)?(\+\w+)?", "N", text)
    text = re.sub(r"known: .*", "known", text)
    text = re.sub(r"N (KiB|MiB|GiB|bytes)", "SIZE", text)
    return re.sub(r"embedded:\w+:N(, embedded:\w+:N)*( and N more)?", "PICTURES", text)


QUOTED = {plain(line.strip()) for line in re.findall(r"^    (?! )(.+)$", PAGE, re.MULTILINE)}


def said(work: Any, *given: Any, **options: Any) -> str:
    with pytest.raises(WordTreeError) as caught:
        work(*given, **options)
    return str(caught.value)


def messages(folder: Path, kept: Path) -> Any:
    """Every message that the page quotes, as the program says it."""
    yield training._kept(kept)
    yield training._kept(folder)
    yield str(named(OSError(errno.ENOSPC, ""), folder / "checkpoint.safetensors", 1 << 20))
    yield str(named(OSError(errno.EROFS, ""), folder / "run"))
    path = folder / "checkpoint.safetensors"
    config = config_of({key: value for key, value in SHORT.items() if key != "progress"})
    for kind in ("flipped", "tree", "data"):
        path.write_bytes((kept / path.name).read_bytes())
        damage(path, kind)
        if kind == "data":  # on both sides a hash
            feed = training.EmbeddedFeed(config)
            feed.fingerprint = "2" * 64
            yield said(training.Trainer, config, folder, feed)
        else:
            yield said(training.Trainer, config, folder)
    tensors, header = read_tensors(kept / path.name)
    yield said(training.Trainer, config_of({**config_dict(config), "batch": 8, "rate": 0.5}), kept)
    save_tensors(path, tensors, {**header, "versions": {**header["versions"], "torch": "1.0"}})
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        training.Trainer(config, folder)
    yield str(warned[-1].message)
    yield said(config_of, {"stepz": 1})
    small_data.PETS.save(folder / "pets.csv")
    small_data.folders(folder)
    run = write_run(folder, [{"kind": "folder", "path": "names", "labels": "pets.csv"}])
    yield said(yolo9000.train, data=run, out=folder / "out", progress=False)
    module = yolo9000.models.yolo9000(small_data.SMALL, [[1.0, 1.0]], 32, (4, 8), (1, 1))
    batch = torch.zeros(1, 3, 32, 32), [{}]
    moment = Moment(7, "boxes and names", 32, 1e-3)
    for choice, what, before in (("stop", "losses", ()), ("skip", "gradients", range(1, 7))):
        faults = Faults(folder, config_of({"nonfinite": choice}), [-2, -1, 0, *before])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said(faults.note, Unsound(what, {}), moment, batch, ["embedded:boxed:17"], module)
    damaged = Damaged(folder / "bad_images.csv", [2])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fault = said(decode, b"no image", "names/n02084071/3.JPEG")
        Damaged(folder / "bad_images.csv", [2]).note(0, [("a", fault)])
        yield str(warned[-1].message)
        yield said(damaged.note, 0, [(f"names/{one}.jpg", f"names/{one}.jpg: no image") for one in "abc"])
    yield str(explained(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")))
    yield str(explained(RuntimeError("DataLoader worker (pid 4127) is killed by signal: Killed. ")))


def config_dict(config: Any) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(config)


def test_every_message_that_the_page_quotes_is_one_that_is_said(tmp_path, unfinished):  # noqa: F811
    found = {plain(one.strip()) for one in messages(tmp_path, unfinished)}
    assert QUOTED - found == set()
    assert found - QUOTED == set()
