"""An exported file is whole in itself: another runtime finds in it what the detector finds, for any batch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import command
from strategies import random_tree
from test_inference import images, lively_model

import yolo9000
from wordtree import WordTree, WordTreeError
from wordtree.nn import tree_log_prob
from yolo9000.checkpoints import save_model
from yolo9000.detector import Detector
from yolo9000.export import export_model, read_metadata
from yolo9000.forms import DenseForm, GatedForm
from yolo9000.region import decode_xyxy

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model() -> Detector:
    return small()


def small() -> Detector:
    return lively_model(widths=(4, 8, 16), counts=(1, 1, 1), size=32)


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("weights") / "weights.safetensors", model)


@pytest.fixture(scope="module")
def by_command(weights, tmp_path_factory) -> tuple[Path, Any]:
    """The dense form with half its bytes, written by a process of its own."""
    file = tmp_path_factory.mktemp("command") / "half.onnx"
    words = ["--weights", weights, "--form", "dense", "--half", "--tree-threshold", "0.4"]
    return file, command("export", file, *words)


@pytest.fixture(scope="module")
def files(model, tmp_path_factory) -> dict[str, Path]:
    """Each kind of export, made once."""
    folder = tmp_path_factory.mktemp("exports")
    return {
        "dense": export_model(model, folder / "dense.onnx", "dense"),
        "gated": export_model(model, folder / "gated.onnx", "gated", candidates=200),
        "program": export_model(model, folder / "gated.pt2", "gated", candidates=200),
    }


def run(file: Path, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    """What onnxruntime makes of a batch."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [out.name for out in session.get_outputs()]
    (given,) = session.get_inputs()
    assert (given.name, given.shape[1:]) == ("images", [3, 32, 32])
    values = session.run(None, {"images": batch.numpy()})
    return dict(zip(names, map(torch.from_numpy, values), strict=True))


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def assert_same_detections(out: dict[str, torch.Tensor], wanted: list[dict[str, Any]], size: int) -> None:
    """Each list with none missing and none extra, in whatever order equal scores stand."""
    for at, one in enumerate(wanted):
        kept = out["kept"][at]
        order = out["scores"][at][kept].argsort(descending=True)
        assert int(kept.sum()) == len(one["labels"])
        assert torch.equal(out["labels"][at][kept][order], one["labels"])
        assert_close(out["scores"][at][kept][order], one["scores"])
        assert_close(out["objectness"][at][kept][order], one["objectness"])
        assert_close(out["boxes"][at][kept][order], one["boxes"] / size)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_dense_form_says_everything_about_every_box_in_onnxruntime(model, files, batch):
    out = run(files["dense"], images(batch, 32))
    with torch.no_grad():
        raw, features = model.region(images(batch, 32))
        logits = model.head.classes(features)
    assert_close(out["boxes"], decode_xyxy(raw, model.head.anchors).flatten(1, 3))
    assert_close(out["objectness"], raw[..., 4].sigmoid().flatten(1))
    assert_close(out["log_probs"], tree_log_prob(logits, model.tree).flatten(1, 3))
    assert out["log_probs"].shape == (batch, 8 * 8 * 2, len(model.tree))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_gated_form_finds_in_onnxruntime_what_the_detector_finds(model, files, batch):
    wanted = model(images(batch, 32))
    assert sum(len(one["labels"]) for one in wanted) > 5 * batch
    assert_same_detections(run(files["gated"], images(batch, 32)), wanted, 32)


def test_a_picture_in_which_nothing_passes_objectness_gives_nothing(model, files):
    dark = torch.zeros(1, 3, 32, 32)
    strict = small()
    with torch.no_grad():
        strict.head.boxes.bias[4::5] = -50.0
        out = GatedForm(strict, 20)(dark)
    assert not out.kept.any()
    assert (out.labels == -1).all()


def test_torch_export_gives_the_same_program(model, files):
    program = torch.export.load(str(files["program"])).module()
    for batch in (1, 3):
        with torch.no_grad():
            out = program(images(batch, 32))
        assert_same_detections(out, model(images(batch, 32)), 32)


@pytest.mark.parametrize("mode", ["paper", "darknet", "darknet-2018"])
@pytest.mark.parametrize("reads", ["asked", "whole"])
def test_the_gated_form_follows_the_mode_and_reads_either_way(mode, reads):
    model = small().set_mode(mode)
    model.tree_threshold, model.detections = 0.1, None
    with torch.no_grad():
        out = GatedForm(model, 10_000, reads)(images(3, 32))._asdict()
    wanted = model(images(3, 32))
    assert len({label for one in wanted for label in one["labels"].tolist()}) > 3
    assert_same_detections(out, wanted, 32)


def test_candidates_are_those_that_objectness_ranks_first():
    model = small()
    with torch.no_grad():
        few, all_ = GatedForm(model, 7)(images(2, 32)), GatedForm(model, 10_000)(images(2, 32))
    assert few.boxes.shape == (2, 7, 4)
    assert all_.boxes.shape == (2, 8 * 8 * 2, 4)
    assert torch.equal(few.objectness, all_.objectness[:, :7])
    assert torch.equal(few.labels, all_.labels[:, :7])
    assert (all_.objectness.diff(dim=1) <= 0).all()


def test_a_flat_model_gives_each_box_its_likeliest_class():
    torch.manual_seed(0)
    flat = yolo9000.models.yolo9000(5, [[1.0, 1.5]], 32, widths=(4, 8, 16), counts=(1, 1, 1)).eval()
    torch.nn.init.normal_(flat.head.boxes.weight, std=0.5)
    with torch.no_grad():
        out, all_ = GatedForm(flat, 10_000)(images(1, 32)), DenseForm(flat)(images(1, 32))
    order = all_.objectness[0].argsort(descending=True, stable=True)
    passed = out.objectness[0] > flat.threshold
    assert passed.any()
    assert torch.equal(out.labels[0][passed], all_.log_probs[0].argmax(1)[order][passed])


def test_a_file_carries_its_tree_names_and_thresholds(model, files):
    for name, file in files.items():
        about = read_metadata(file)
        assert about["form"] == ("dense" if name == "dense" else "gated")
        assert (about["size"], about["threshold"], about["tree_threshold"]) == (32, 0.25, 0.2)
        assert (about["mode"], about["iou"], about["rule"]) == ("paper", 0.45, "path")
        tree = about["tree"]
        again = WordTree(tree["ids"], tree["parents"], tree["names"], root_name=tree["root_name"])
        assert again == model.tree
        assert again.hash == tree["hash"]
    session = onnxruntime.InferenceSession(str(files["gated"]), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["yolo9000"])["form"] == "gated"


def test_the_command_exports_and_half_stores_half_and_computes_in_float32(files, model, by_command):
    import onnx

    file, done = by_command
    assert done.returncode == 0, done.stderr
    assert "dense form" in done.stdout
    assert [one.name for one in file.parent.iterdir()] == ["half.onnx"]
    assert read_metadata(file)["tree_threshold"] == 0.4
    stored = onnx.load(str(file)).graph.initializer
    matrices = [one for one in stored if len(one.dims) > 1 and one.data_type in (1, 10)]
    assert matrices
    assert {one.data_type for one in matrices} == {onnx.TensorProto.FLOAT16}
    one, other = run(file, images(2, 32)), run(files["dense"], images(2, 32))
    assert one["log_probs"].dtype == torch.float32
    difference = float((one["log_probs"] - other["log_probs"]).abs().max())
    assert 0 < difference < 0.3


def test_the_model_stays_as_it_is(model, files):
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    assert model.head.classes.weight.requires_grad


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("x.onnx", {"form": "sparse"}, ["form 'sparse'", "dense, gated"]),
        ("x.tflite", {}, ["x.tflite", ".onnx, .pt2"]),
        ("x.pt2", {"half": True}, ["half", "x.pt2", ".onnx"]),
        ("x.onnx", {"size": 30}, ["30 pixels", "multiples of 4"]),
        ("x.onnx", {"candidates": 0}, ["0 candidates", "1 or more"]),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_is_written(model, tmp_path, name, options, parts):
    with pytest.raises(WordTreeError) as caught:
        export_model(model, tmp_path / name, **options)
    for part in parts:
        assert part in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_told_before_any_work(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        export_model(model, tmp_path / "none" / "x.onnx")


def test_an_export_that_fails_leaves_nothing(model, tmp_path, monkeypatch):
    def fails(_form: object, file: Path, *_: object) -> None:
        file.write_text("half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr("yolo9000.export._write", fails)
    (tmp_path / "x.onnx").write_text("what was there")
    with pytest.raises(KeyboardInterrupt):
        export_model(model, tmp_path / "x.onnx", "dense")
    assert (tmp_path / "x.onnx").read_text() == "what was there"
    assert len(list(tmp_path.iterdir())) == 1


def test_metadata_of_other_files_is_refused(tmp_path):
    import onnx

    with pytest.raises(WordTreeError, match="no file"):
        read_metadata(tmp_path / "none.onnx")
    graph = onnx.helper.make_graph([], "empty", [], [])
    onnx.save(onnx.helper.make_model(graph), str(tmp_path / "other.onnx"))
    with pytest.raises(WordTreeError, match="says nothing of a tree"):
        read_metadata(tmp_path / "other.onnx")
    (tmp_path / "text.onnx").write_text("this is no model")
    with pytest.raises(WordTreeError, match="cannot be read"):
        read_metadata(tmp_path / "text.onnx")


# ---------------------------------------------------------------------- the command


def test_the_command_benchmark_tells_images_a_second_by_stage(model, weights):
    done = command("benchmark", "--weights", weights, "--rounds", "2", "--batch", "2", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "load average" in lines[0]
    assert f"{len(random_tree(60))} nodes" in lines[1]
    for stage in ("trunk", "whole", "  place", "  network", "  decode, descend, suppress"):
        (line,) = (line for line in lines if line.startswith(f"{stage} "))
        milliseconds, images_a_second = (float(word) for word in line.split()[-4::2])
        assert np.isclose(images_a_second, 2000 / milliseconds, rtol=0.2)
    assert lines[-1].startswith("peak memory")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["export", "x.txt"], ["an export to 'x.txt'", ".onnx, .pt2"]),
        (["export", "none/x.onnx"], ["no folder", "none"]),
        (["benchmark", "--size", "30"], ["30 pixels", "multiples of 4"]),
        (["benchmark", "--batch", "0"], ["a batch of 0", "1 or more"]),
        (["benchmark", "--precision", "float8"], ["precision 'float8'", "bfloat16"]),
    ],
)
def test_bad_input_is_one_line(weights, monkeypatch, capfd, tmp_path, words, parts):
    from yolo9000.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["yolo9000", *words, "--weights", str(weights)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.splitlines()[-1].startswith("error: ")
    for part in parts:
        assert part in told.err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
