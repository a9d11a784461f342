"""The command `yolo9000`: what it prints, and that bad input is one line, an exit code and nothing written.

What only a process shows (its streams, its exit code, what it loads) is shown by processes; the long tables of bad
input call the same `main` in this one, as each process would load torch again.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import command
from PIL import Image

from wordtree import WordTreeError, __version__
from yolo9000 import training


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a photograph in two formats, and files that only look like one."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.RandomState(0)
    image = Image.fromarray(random.randint(0, 256, (60, 90, 3), dtype=np.uint8))
    image.save(folder / "dog.jpg")
    image.convert("RGBA").save(folder / "grey.png")
    broken = folder / "broken"
    broken.mkdir()
    image.resize((400, 400)).save(broken / "cut.jpg")
    (broken / "cut.jpg").write_bytes((broken / "cut.jpg").read_bytes()[:-20000])
    (broken / "text.jpg").write_text("this is no picture")
    (folder / "empty").mkdir()
    return folder


def detect(*words: str | Path, run: Path):
    return command("detect", *words, "--weights", run, "--device", "cpu")


def test_detect_prints_a_line_a_box_and_writes_pictures_that_open(tiny_run, pictures, tmp_path):
    done = detect(
        pictures, "--threshold", "0.05", "--tree-threshold", "0.01", "--out", tmp_path / "new", run=tiny_run.directory
    )
    assert done.returncode == 0, done.stderr
    assert f"{pictures / 'dog.jpg'}: " in done.stdout
    assert f"{pictures / 'grey.png'}: " in done.stdout
    boxes = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert boxes
    assert all("[" in line and " > " in line for line in boxes)
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"dog.png", "grey.png"}
    for file in (tmp_path / "new").iterdir():
        with Image.open(file) as picture:
            assert picture.size == (480, 320)
            picture.load()


def test_detect_prints_json_that_parses_in_the_order_given(tiny_run, pictures):
    sources = [pictures / "grey.png", pictures / "dog.jpg"]
    done = detect(*sources, "--json", "--threshold", "0.05", run=tiny_run.weights)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["source"] for record in records] == [str(source) for source in sources]
    for record in records:
        assert (record["width"], record["height"]) == (90, 60)
        for one in record["detections"]:
            assert one.keys() == {"box", "score", "objectness", "id", "name", "path"}
            assert 0.05 <= one["score"] <= 1
            left, top, right, bottom = one["box"]
            assert 0 <= left <= right <= 90
            assert 0 <= top <= bottom <= 60
            assert [step.keys() for step in one["path"]] == [{"id", "name", "prob"}] * len(one["path"])
            assert not one["path"] or one["path"][-1]["id"] == one["id"]


def test_a_damaged_picture_among_many_is_named_and_the_rest_is_done(tiny_run, pictures, tmp_path):
    sources = [pictures / "dog.jpg", pictures / "broken" / "cut.jpg", pictures / "grey.png"]
    done = detect(*sources, "--json", "--out", tmp_path / "out", run=tiny_run.directory)
    assert done.returncode == 2
    assert [json.loads(line)["source"] for line in done.stdout.splitlines()] == [str(sources[0]), str(sources[2])]
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "cut.jpg" in error
    assert "cannot be read whole" in error
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"dog.png", "grey.png"}


def test_a_process_given_a_damaged_picture_says_so_in_one_line(tiny_run, pictures, tmp_path):
    done = detect(pictures / "broken" / "cut.jpg", "--out", tmp_path / "out", run=tiny_run.directory)
    assert_refused(done, ["cut.jpg", "cannot be read whole", "undamaged"])
    assert not (tmp_path / "out").exists()


def assert_refused(done, parts: list[str]) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["{pictures}/missing.jpg"], ["no image", "missing.jpg", "give a file that exists"]),
        (["{pictures}/broken/cut.jpg"], ["cut.jpg", "cannot be read whole", "undamaged"]),
        (["{pictures}/broken/text.jpg"], ["text.jpg", "no known format", ".png"]),
        (["{pictures}/dog.jpg", "{pictures}/missing.jpg"], ["no image", "missing.jpg"]),
        (["{pictures}/*.webp"], ["no images in pattern", "*.webp", ".jpg"]),
        (["https://example.com/dog.jpg"], ["address 'https://example.com/dog.jpg'", "nothing is fetched", "the file"]),
        (["77"], ["camera 77", "cannot be read", "such as 0"]),
        (["{pictures}/dog.jpg", "--batch", "0"], ["a batch of 0", "1 or more"]),
        (["{pictures}/empty"], ["no images in folder", "empty", ".jpg"]),
        (["{pictures}/dog.jpg", "--threshold", "2"], ["a threshold of 2.0", "0 to 1"]),
        (["{pictures}/dog.jpg", "--tree-threshold", "-0.1"], ["a tree_threshold of -0.1", "0 to 1"]),
        (["{pictures}/dog.jpg", "--device", "tpu"], ["no device 'tpu'", "give auto"]),
        (["{pictures}/dog.jpg", "--weights", "{pictures}/no-run"], ["no weights", "no-run", "`yolo9000 train`"]),
        (["{pictures}/dog.jpg", "--weights", "{pictures}/empty"], ["no weights", "weights.safetensors"]),
        (["{pictures}/dog.jpg", "--weights", "{pictures}/dog.jpg"], ["dog.jpg", "cannot be read"]),
    ],
)
def test_bad_input_is_one_line_an_exit_code_and_nothing_written(tiny_run, pictures, tmp_path, here, words, parts):
    words = [word.format(pictures=pictures) for word in words]
    if "--weights" not in words:
        words += ["--weights", tiny_run.directory]
    assert_refused(here("detect", *words, "--out", tmp_path / "out"), parts)
    assert not (tmp_path / "out").exists()


UNKNOWN = (["detect", "x.jpg", "--treshold", "0.5"], ["--treshold", "--threshold"])


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        UNKNOWN,
        (["detcet", "x.jpg"], ["'detcet'", "detect"]),
        (["detect"], ["sources"]),
        (["detect", "x.jpg", "--threshold", "high"], ["--threshold", "number"]),
        (["train", "--set", "stepz=3"], ["no training option 'stepz'", "did you mean 'steps'"]),
        (["train", "--set", "steps"], ["setting 'steps'", "key=value"]),
        (["train", "--set", "data=run.yaml"], ["no training option 'data'"]),
        (["train", "--set", "progress=false"], ["no training option 'progress'"]),
        (["train", "--set", "seed=-1"], ["seed of -1", "from 0"]),
        (["bounds", "--set", "joint=true"], ["joint=True for all three runs", "leave it out"]),
        (["bounds", "--set", "oracle=true"], ["oracle=True for all three runs", "leave it out"]),
        (["bounds", "--set", "out=here"], ["no training option 'out'"]),
        (["export", "net.onnx", "--threshold", "5"], ["a threshold of 5.0", "0 to 1"]),
        (["export", "net.onnx", "--tree-threshold", "-1"], ["a tree_threshold of -1.0", "0 to 1"]),
        (["train", "--set", "steps=lots"], ["steps of 'lots'", "give a int"]),
        (["train", "--data", "coco"], ["no data set 'coco'", "embedded"]),
        (["bounds", "--set", "size=61"], ["61 pixels", "multiples of 16"]),
        (["evaluate", "--data", "coco"], ["no data set 'coco'", "embedded"]),
        (["evaluate", "--scenes", "0"], ["0 scenes", "1 or more"]),
        (["anchors", "-k", "0"], ["0 anchors"]),
        (["anchors", "--size", "9"], ["9 pixels"]),
        (["info", "--weights", "nowhere"], ["no weights 'nowhere'", "weights.safetensors"]),
    ],
)
def test_every_command_refuses_in_one_line_what_it_does_not_know(words, parts, tmp_path, here, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(here(*words), parts)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "joint"),
    [
        ([], False),
        (["--joint"], True),
        (["--oracle"], True),
        (["--set", "joint=true"], True),
        (["--set", "joint=false"], False),
        (["--recipe", "yolov2-voc", "--data", "embedded"], False),
        (["--recipe", "yolov2-voc", "--data", "embedded", "--set", "joint=true"], True),
        (["--recipe", "yolov2-voc", "--data", "embedded", "--joint"], True),
    ],
)
def test_a_training_is_joint_where_it_is_asked_to_be(words, joint, tmp_path, here, monkeypatch):
    given = []

    def stand_in(run, directory, config, *more):
        given.append(config)
        raise WordTreeError("enough")

    monkeypatch.setattr(training, "_train", stand_in)
    assert "enough" in here("train", *words).stderr
    assert [config.joint for config in given] == [joint]
    plan = here("train", *words, "--dry-run", "--rate", "50")
    assert plan.returncode == 0
    if "--recipe" not in words:  # of a recipe's own data
        assert ("pictures with a name" in plan.stdout) == joint


def test_a_process_given_an_unknown_option_says_so_in_one_line(tmp_path):
    words, parts = UNKNOWN
    assert_refused(command(*words, cwd=tmp_path), parts)


def test_info_says_what_a_checkpoint_is(tiny_run, here):
    done = here("info", "--weights", tiny_run.directory)
    assert done.returncode == 0, done.stderr
    assert "no photograph of an object" in done.stdout
    assert "input 64 x 64, stride 16" in done.stdout
    assert "tree: WordTree(" in done.stdout


def test_evaluate_prints_the_figures_as_json(tiny_run, here, tmp_path):
    words = ("--weights", tiny_run.directory, "--scenes", "3", "--json", "--device", "cpu", "--out", tmp_path / "out")
    done = here("evaluate", *words)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert figures.keys() == tiny_run.metrics.keys() - {"seconds"}


def test_every_command_has_help_and_no_help_loads_torch(here):
    code = """
import sys, atexit
atexit.register(lambda: print("TORCH" if "torch" in sys.modules else "no heavy import", file=sys.stderr))
"""
    whole = command("--help", code=code)
    assert whole.returncode == 0
    assert whole.stderr.strip() == "no heavy import"
    for verb in ("train", "bounds", "detect", "evaluate", "anchors", "convert", "info"):
        assert verb in whole.stdout
        done = here(verb, "--help")
        assert done.returncode == 0
        assert "Usage" in done.stdout
    assert command("detect", "--help", code=code).stderr.strip() == "no heavy import"
    assert here("--version").stdout.strip() == __version__
