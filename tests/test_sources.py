"""What detect may be given: files, folders, patterns, videos, cameras, arrays; and what the command makes of them."""

import itertools
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import oracle
import pytest
import torch
from conftest import ALONE, arguments, command
from oracle import needs_oracle
from PIL import Image
from strategies import random_tree

import yolo9000
from wordtree import WordTreeError
from yolo9000.data import embedded
from yolo9000.detections import Detections
from yolo9000.images import as_image
from yolo9000.outputs import Outputs
from yolo9000.sources import count_of, frames_of, items_of
from yolo9000.video import VideoWriter, read_camera, read_video

CAMERA = "lavfi:testsrc=size=160x120:rate=10"  # pictures that libavdevice makes, by the way a camera's come


def write_clip(
    path: Path, pictures: list[np.ndarray], rate: int | Fraction = 10, codec: str = "libx264", turned: int | None = None
) -> Path:
    """A video of pictures uint8 [h, w, 3], its index in front, so that a part of the file can be read."""
    options = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov", ".m4v") else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if turned is not None:
            stream.set_display_rotation(turned)
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def scenes(count: int, size: int = 96) -> list[np.ndarray]:
    """Pictures of the embedded set, uint8 [h, w, 3], no square."""
    data = embedded.Pictures("unseen", count, size)
    return [np.ascontiguousarray(data[at][0].permute(1, 2, 0).numpy()[: size // 4 * 3]) for at in range(count)]


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """A slow pan over a scene: 25 pictures of 72 x 96 pixels."""
    scene = embedded.Pictures("unseen", 1, 160)[0][0].permute(1, 2, 0).numpy()
    return [np.ascontiguousarray(scene[at : at + 72, 2 * at : 2 * at + 96]) for at in range(25)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pictures: list[np.ndarray]) -> Path:
    """Two pictures, a clip, and what is neither."""
    folder = tmp_path_factory.mktemp("sources")
    Image.fromarray(pictures[0]).save(folder / "b.png")
    Image.fromarray(pictures[1]).save(folder / "a.JPG")
    write_clip(folder / "clip.mp4", pictures)
    (folder / "notes.txt").write_text("no picture")
    (folder / "deeper").mkdir()
    Image.fromarray(pictures[2]).save(folder / "deeper" / "c.png")
    return folder


@pytest.fixture(scope="module")
def model() -> yolo9000.models.Detector:
    """A detector of random weights that finds something in anything."""
    torch.manual_seed(0)
    model = yolo9000.models.yolo9000(random_tree(30), [[1.0, 1.5], [3.0, 2.0]], 32, widths=(4, 6, 8), counts=(1, 1, 1))
    with torch.no_grad():
        model.head.boxes.weight.normal_(std=0.5)
        model.head.classes.weight.normal_(std=1.5)
    return model.eval()


# ---------------------------------------------------------------------- what a source names


def named(source: object) -> list[tuple[str, str]]:
    return [(item.kind, Path(item.name).name) for item in items_of(source)]


def test_a_folder_gives_its_pictures_and_videos_by_name(folder):
    assert named(folder) == named(str(folder)) == [("image", "a.JPG"), ("image", "b.png"), ("video", "clip.mp4")]


def test_a_pattern_gives_what_fits_by_name_and_deeper_with_two_stars(folder):
    assert named(f"{folder}/*.png") == [("image", "b.png")]
    assert named(f"{folder}/*") == named(folder)
    assert named(f"{folder}/**/*.png") == [("image", "b.png"), ("image", "c.png")]
    assert named(folder / "[ab].*") == [("image", "a.JPG"), ("image", "b.png")]


def test_a_file_whose_name_looks_like_a_pattern_or_a_camera_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a[1].png", "0"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
        assert named(name) == [("image", name)]
        assert next(frames_of(items_of(name)[0])).image.shape == (3, 4, 4)


def test_cameras_have_a_number_or_a_device():
    assert named(0) == named("0") == named(np.int64(0)) == [("camera", "camera 0")]
    assert items_of(CAMERA)[0][:2] == ("camera", CAMERA)
    assert items_of(2)[0].value == 2


def test_a_list_gives_each_of_its_own_in_order(folder):
    picture = np.zeros((5, 6, 3), np.uint8)
    mixed = [picture, [folder / "b.png", 1], torch.zeros(3, 7, 8), Image.new("L", (9, 10)), (f"{folder}/clip.*",)]
    assert named(mixed) == [
        ("image", "image"), ("image", "b.png"), ("camera", "camera 1"), ("image", "image"), ("image", "image"),
        ("video", "clip.mp4"),
    ]  # fmt: skip
    shapes = [tuple(next(frames_of(item)).image.shape) for item in items_of(mixed) if item.kind == "image"]
    assert shapes == [(3, 5, 6), (3, 72, 96), (3, 7, 8), (3, 10, 9)]
    assert items_of([]) == []


def test_only_what_says_how_many_there_are_is_counted(folder):
    assert count_of(items_of(folder)) == 2 + 25
    assert count_of(items_of([folder, 0])) is None
    assert count_of([]) == 0


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("http://example.com/dog.jpg", ["address 'http://", "nothing is fetched", "give the file"]),
        (Path("https://example.com/dog.jpg"), ["address 'https:/", "nothing is fetched"]),
        ("rtsp://10.0.0.1/stream", ["address 'rtsp://", "nothing is fetched"]),
        ("file:///dog.jpg", ["address 'file:///dog.jpg'", "give the file"]),
        ("missing.jpg", ["no image or video 'missing.jpg'", "give a file that exists", ".jpg", ".mp4"]),
        (["{folder}/b.png", "missing.mkv"], ["no image or video 'missing.mkv'"]),
        ("{folder}/*.webp", ["no images in pattern", "*.webp", ".jpg"]),
        ("{folder}/nothing/*.png", ["no images in pattern"]),
        (-1, ["camera -1", "count from 0"]),
        (True, ["source of type bool", "a camera's number"]),
        (None, ["source of type NoneType", "a path"]),
        (np.zeros((4, 4)), ["shape (4, 4)", "[h, w, 3]"]),
        (torch.zeros(3, 0, 4), ["shape (3, 0, 4)", "not empty"]),
    ],
)
def test_what_is_no_source_is_refused_before_anything_is_read(source, parts, folder):
    def full(one):
        return one.format(folder=folder) if isinstance(one, str) else one

    source = [full(one) for one in source] if isinstance(source, list) else full(source)
    with pytest.raises(WordTreeError) as caught:
        items_of(source)
    for part in parts:
        assert part in str(caught.value)


# ---------------------------------------------------------------------- pictures


def test_a_picture_is_read_upright_as_its_file_says(tmp_path, pictures):
    picture = Image.fromarray(pictures[0])
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    picture.save(tmp_path / "turned.png", exif=exif)
    turned = as_image(tmp_path / "turned.png")
    assert np.array_equal(turned.permute(1, 2, 0), np.rot90(pictures[0], -1))


def test_the_first_picture_of_an_animated_gif_is_the_image(tmp_path):
    first, second = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (8, 6), "blue")
    first.save(tmp_path / "moves.gif", save_all=True, append_images=[second])
    (item,) = items_of(tmp_path / "moves.gif")
    (frame,) = frames_of(item)
    assert frame.number is None
    assert torch.equal(frame.image, as_image(first))


# ---------------------------------------------------------------------- videos


@pytest.mark.parametrize(
    ("suffix", "codec", "rate"),
    [
        (".mp4", "libx264", 10),
        (".mp4", "mpeg4", 25),
        (".m4v", "libx264", 30),
        (".mov", "libx264", Fraction(30000, 1001)),
        (".mkv", "libx264", 24),
        (".webm", "libvpx-vp9", 10),
        (".avi", "mpeg4", 12),
    ],
)
def test_a_clip_comes_back_whole_in_order_and_in_time(suffix, codec, rate, tmp_path, pictures):
    clip = write_clip(tmp_path / f"clip{suffix}", pictures, rate, codec)
    frames = list(read_video(clip))
    assert [frame.number for frame in frames] == list(range(25))
    assert {frame.source for frame in frames} == {str(clip)}
    assert {tuple(frame.image.shape) for frame in frames} == {(3, 72, 96)}
    assert {frame.image.dtype for frame in frames} == {torch.uint8}
    assert frames[0].rate == pytest.approx(float(rate), rel=1e-3)
    assert [frame.time for frame in frames] == pytest.approx([at / float(rate) for at in range(25)], abs=2e-3)
    for frame, picture in zip(frames, pictures, strict=True):
        error = np.abs(frame.image.permute(1, 2, 0).numpy().astype(float) - picture).mean(axis=(0, 1, 2))
        assert error < 12  # what the codec loses; the next picture of the pan is further away


@pytest.mark.parametrize("turned", [90, -90, 180, 0])
def test_a_clip_is_read_upright_as_its_file_says(turned, tmp_path, pictures):
    plain = next(read_video(write_clip(tmp_path / "plain.mp4", pictures[:1])))
    frame = next(read_video(write_clip(tmp_path / "turned.mp4", pictures[:1], turned=turned)))
    expected = np.rot90(plain.image.permute(1, 2, 0), turned // 90)  # counterclockwise
    assert np.array_equal(frame.image.permute(1, 2, 0), expected)


def until_error(things: Iterator[Any]) -> tuple[list[Any], str]:
    """What comes before the error, and what that says."""
    got = []
    try:
        for thing in things:
            got.append(thing)
    except WordTreeError as error:
        return got, str(error)
    pytest.fail("no error came")


def damaged(path: Path, kind: str) -> Path:
    data = bytearray(path.read_bytes())
    at = len(data) * 7 // 10
    data = data[:at] if kind == "cut" else data[:at] + os.urandom(len(data) // 20) + data[at + len(data) // 20 :]
    broken = path.with_name(f"{kind}{path.suffix}")
    broken.write_bytes(data)
    return broken


@pytest.mark.parametrize(("suffix", "kind"), [(".mp4", "cut"), (".mkv", "cut"), (".mkv", "noise")])
def test_of_a_damaged_clip_what_was_read_is_kept_and_the_error_names_file_and_frame(suffix, kind, tmp_path, pictures):
    clip = write_clip(tmp_path / f"clip{suffix}", pictures * 2)
    whole = list(read_video(clip))
    assert len(whole) == 50
    read, error = until_error(read_video(damaged(clip, kind)))
    assert 5 < len(read) < 50
    assert f"{kind}{suffix}" in error
    assert f"at frame {len(read)}" in error
    assert "give an undamaged file" in error
    for one, other in itertools.islice(zip(read, whole, strict=False), len(read) - 5):
        assert torch.equal(one.image, other.image)


@pytest.mark.parametrize("data", [b"", b"this is no video", os.urandom(5000)])
def test_a_file_that_is_no_video_says_so(data, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(data)
    with pytest.raises(WordTreeError, match=r"video .*clip\.mp4' cannot be read .*; give an undamaged file in one of"):
        list(read_video(tmp_path / "clip.mp4"))


def test_a_video_of_sound_alone_has_no_pictures(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(WordTreeError, match="has no pictures in it"):
        list(read_video(tmp_path / "sound.mp4"))


def test_without_av_the_error_says_what_would_do(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(WordTreeError, match="PyAV, which is not installed; pip install av, or give pictures"):
        list(read_video(folder / "clip.mp4"))
    assert len(yolo9000.detect(folder / "b.png")) == 1  # pictures need none


def test_a_clip_that_is_written_keeps_its_times_and_an_odd_side_grows(tmp_path):
    rate = Fraction(30000, 1001)
    with VideoWriter(tmp_path / "new" / "clip.mp4") as video:
        for at in range(12):
            video.write(Image.new("RGB", (65, 47), (20 * at, 0, 0)), at / float(rate), float(rate))
    frames = list(read_video(tmp_path / "new" / "clip.mp4"))
    assert [frame.time for frame in frames] == pytest.approx([at / float(rate) for at in range(12)], abs=1e-4)
    assert frames[0].rate == pytest.approx(float(rate))
    assert {tuple(frame.image.shape) for frame in frames} == {(3, 48, 66)}
    red = [float(frame.image[0].float().mean()) for frame in frames]
    assert red == pytest.approx([20 * at for at in range(12)], abs=4)


def test_a_clip_left_by_an_error_leaves_nothing_and_one_left_by_ctrl_c_plays(tmp_path):
    def left_by(error: type[BaseException]) -> None:
        with VideoWriter(tmp_path / f"{error.__name__}.mp4") as video:
            for at in range(3):
                video.write(Image.new("RGB", (64, 48)), at / 10, 10)
            assert not video.path.exists()
            raise error

    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            left_by(error)
    assert [file.name for file in tmp_path.iterdir()] == ["KeyboardInterrupt.mp4"]
    assert len(list(read_video(tmp_path / "KeyboardInterrupt.mp4"))) == 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_clip_whose_sound_lasts_longer_is_not_cut_off(suffix, tmp_path, pictures):
    with av.open(str(tmp_path / f"clip{suffix}"), "w") as container:
        seen, heard = container.add_stream("libx264", rate=10), container.add_stream("aac", rate=8000)
        seen.height, seen.width, seen.pix_fmt = 72, 96, "yuv420p"
        for picture in pictures[:10]:
            container.mux(seen.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * 5), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        for stream, last in ((seen, None), (heard, sound), (heard, None)):
            container.mux(stream.encode(last))
    assert len(list(read_video(tmp_path / f"clip{suffix}"))) == 10


# ---------------------------------------------------------------------- cameras


def test_a_camera_gives_frames_as_they_come():
    frames = list(itertools.islice(read_camera(CAMERA), 4))
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert {(frame.source, frame.rate, tuple(frame.image.shape)) for frame in frames} == {(CAMERA, 10.0, (3, 120, 160))}
    assert not torch.equal(frames[0].image, frames[3].image)


@pytest.mark.parametrize("camera", [99, "v4l2:/dev/video99", "lavfi:nosuch=1"])
def test_a_camera_that_is_not_there_is_named(camera):
    with pytest.raises(WordTreeError, match=r"camera .* cannot be read .*; give the number of a camera"):
        next(read_camera(camera))


# ---------------------------------------------------------------------- detect and stream


def same(one: Detections, other: Detections) -> bool:
    return (one.source, one.frame, one.ids) == (other.source, other.frame, other.ids) and torch.allclose(
        one.boxes, other.boxes, atol=1e-3
    )


@pytest.mark.parametrize("batch", [2, 4, 100])
def test_a_batch_gives_what_its_images_give_alone_in_order(batch, folder, model):
    source = [folder, np.zeros((30, 50, 3), np.uint8), f"{folder}/**/c.png"]
    alone = yolo9000.detect(source, model)
    assert [Path(found.source).name for found in alone] == ["a.JPG", "b.png", *["clip.mp4"] * 25, "image", "c.png"]
    assert [found.frame for found in alone[2:27]] == list(range(25))
    assert sum(map(len, alone)) > 50
    images = []
    hook = model.register_forward_pre_hook(lambda _, given: images.append(len(given[0])))
    together = yolo9000.detect(source, model, batch=batch)
    hook.remove()
    assert len(together) == len(alone) == 29
    assert all(same(*pair) for pair in zip(together, alone, strict=True))
    assert images == [batch] * (29 // batch) + [29 % batch] * (29 % batch > 0)


def test_a_stream_takes_no_more_than_it_is_asked_for(model):
    frames = yolo9000.stream(CAMERA, model, batch=2)
    assert [next(frames).frame for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_camera_has_no_end_and_is_refused_where_a_list_is_asked_for(model):
    with pytest.raises(WordTreeError, match=r"detect\(\) of camera 0, which has no end; .* stream\(\)"):
        yolo9000.detect(0, model)


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_what_was_found_before_the_damage_comes_before_its_error(batch, tmp_path, pictures, folder, model):
    clip = damaged(write_clip(tmp_path / "clip.mkv", pictures * 2), "cut")
    sources = [folder / "b.png", clip, folder / "a.JPG"]
    found, error = until_error(yolo9000.stream(sources, model, batch=batch))
    assert "cut.mkv" in error
    assert f"at frame {len(found) - 1}" in error
    faults: list[WordTreeError] = []
    rest = yolo9000.detect(sources, model, batch=batch, on_error=faults.append)
    assert len(rest) == len(found) + 1
    assert Path(rest[-1].source).name == "a.JPG"
    assert [str(fault) for fault in faults] == [error]


def test_what_is_set_for_one_run_stays_with_it(model):
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = model.threshold, model.tree_threshold
    loose = yolo9000.stream([image] * 3, model, threshold=0.0, tree_threshold=0.1)
    first = next(loose)
    strict = yolo9000.detect(image, model, threshold=0.9)
    assert len(strict[0]) < len(first)
    assert all(same(one, first) for one in loose)
    assert (model.threshold, model.tree_threshold) == before
    assert same(yolo9000.detect(image, model)[0], yolo9000.detect(image, model, threshold=before[0])[0])


def test_what_may_be_answered_is_chosen_for_one_run(model):
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    options = {"threshold": 0.0, "tree_threshold": 0.0}
    (found,) = yolo9000.detect(image, model, **options)
    depths = {len(path) for path in found.paths}
    assert len(depths) > 1
    assert found.node_probs is None
    (level,) = yolo9000.detect(image, model, level=0, **options)
    assert {len(path) for path in level.paths} == {1}
    (only,) = yolo9000.detect(image, model, only=model.tree.ids[1], **options)
    assert {path[0] for path in only.paths} == {1}
    (allowed,) = yolo9000.detect(image, model, allowed=[2, 3], **options)
    assert set(allowed.labels.tolist()) == {2, 3}
    (collapsed,) = yolo9000.detect(image, model, collapse=["n0"], **options)
    assert set(collapsed.labels.tolist()) == {0, -1}
    (whole,) = yolo9000.detect(image, model, node_probs=True, **options)
    assert whole.node_probs.shape == (len(whole), len(model.tree))
    rows = torch.arange(len(whole))
    torch.testing.assert_close(whole.node_probs[rows, whole.labels], torch.tensor([p[-1] for p in whole.path_probs]))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"batch": 0}, ["a batch of 0", "1 or more"]),
        ({"threshold": 1.5}, ["a threshold of 1.5", "0 to 1"]),
        ({"tree_threshold": -0.5}, ["a tree_threshold of -0.5", "0 to 1"]),
        ({"level": -1}, ["a level of -1"]),
        ({"only": "no such node"}, ["no node 'no such node'"]),
        ({"mode": "darknet"}, ["mode 'darknet'", "loaded in mode 'paper'", "load it with mode='darknet'"]),
    ],
)
def test_a_bad_option_is_refused_before_anything_is_read(options, parts, model):
    with pytest.raises(WordTreeError) as caught:
        yolo9000.stream(CAMERA, model, **options)
    for part in parts:
        assert part in str(caught.value)


# ---------------------------------------------------------------------- the command


def test_the_command_reads_a_folder_with_a_clip_and_leaves_pictures_a_clip_and_crops(folder, tiny_run, tmp_path):
    done = command(
        "detect", folder, "--weights", tiny_run.directory, "--threshold", "0.02", "--tree-threshold", "0.01", "--json",
        "--batch", "8", "--out", tmp_path / "out", "--crops", tmp_path / "crops", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(record["source"]).name for record in records] == ["a.JPG", "b.png", *["clip.mp4"] * 25]
    assert [record.get("frame") for record in records] == [None, None, *range(25)]
    assert [record["time"] for record in records[2:]] == pytest.approx([at / 10 for at in range(25)])
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"a.png", "b.png", "clip.mp4"}
    frames = list(read_video(tmp_path / "out" / "clip.mp4"))
    assert (len(frames), frames[0].rate, tuple(frames[0].image.shape)) == (25, 10.0, (3, 72, 96))
    plain = list(read_video(folder / "clip.mp4"))
    drawn = [float((a.image.float() - b.image.float()).abs().mean()) for a, b in zip(frames, plain, strict=True)]
    boxes = [len(record["detections"]) for record in records]
    assert all(boxes)
    assert min(drawn) > 3
    crops = list((tmp_path / "crops").rglob("*.png"))
    assert len(crops) == sum(boxes)
    assert len([file for file in crops if file.name.startswith("clip-0000")]) == sum(boxes[2:])
    *written, speed = done.stderr.splitlines()
    assert [line.split("/")[-1] for line in written] == ["a.png", "b.png", "clip.mp4"]
    assert speed.startswith("27 frames in ")
    assert float(speed.split(": ")[1].removesuffix(" frames a second")) > 0


def test_the_command_takes_a_pattern_and_choices_by_name(folder, tiny_run):
    (tmp := folder / "nodes.txt").write_text("domestic cat\n\nbird\n")
    loose = ("--threshold", "0", "--tree-threshold", "0", "--json", "--weights", tiny_run.directory)
    for options, wanted in (
        (["--only", "bird"], {"bird"}),
        (["--allowed", f"@{tmp}"], {"domestic cat", "bird"}),
        (["--collapse", "animal", "--level", "9"], {"animal", "physical entity"}),  # the root
    ):
        done = command("detect", f"{folder}/[ab].*", *loose, *options, "--device", "cpu")
        assert done.returncode == 0, done.stderr
        records = [json.loads(line) for line in done.stdout.splitlines()]
        names = {one["name"] for record in records for one in record["detections"]}
        assert len(records) == 2
        assert names
        if "--only" in options:
            assert all("bird" in [s["name"] for s in one["path"]] for r in records for one in r["detections"])
        else:
            assert names <= wanted


def test_a_damaged_clip_among_many_is_named_its_frames_are_kept_and_the_rest_is_done(tiny_run, tmp_path, pictures):
    write_clip(tmp_path / "clip.mkv", pictures * 2)
    broken = damaged(tmp_path / "clip.mkv", "cut")
    Image.fromarray(pictures[0]).save(tmp_path / "last.png")
    done = command(
        "detect", broken, tmp_path / "last.png", "--weights", tiny_run.directory, "--json", "--device", "cpu",
        "--batch", "4", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 2
    records = [json.loads(line) for line in done.stdout.splitlines()]
    frames = [record["frame"] for record in records if "frame" in record]
    assert frames == list(range(len(frames)))
    assert 5 < len(frames) < 50
    assert Path(records[-1]["source"]).name == "last.png"
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"cut off at frame {len(frames)}" in error
    assert len(list(read_video(tmp_path / "out" / "cut.mp4"))) == len(frames)


def test_a_camera_runs_until_ctrl_c_and_its_clip_plays(tiny_run, tmp_path):
    words = ("detect", f"{CAMERA},realtime", "--weights", tiny_run.directory, "--json", "--device", "cpu")
    process = subprocess.Popen(
        arguments(*words, "--out", tmp_path / "out"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ALONE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    lines = [process.stdout.readline() for _ in range(6)]  # it is detecting
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "stopped; what was written stays" in errors
    shown = len(lines) + len(out.splitlines())
    assert [json.loads(line)["frame"] for line in lines + out.splitlines()] == list(range(shown))
    assert f"{shown} frames in " in errors or f"{shown - 1} frames in " in errors
    (clip,) = (tmp_path / "out").iterdir()
    assert clip.suffix == ".mp4"
    assert shown - 1 <= len(list(read_video(clip))) <= shown


def test_on_a_terminal_a_bar_is_shown_and_what_is_piped_elsewhere_goes_there(tiny_run, folder):
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        arguments("detect", folder, "--weights", tiny_run.directory, "--json", "--device", "cpu"),
        stdout=subprocess.PIPE, stderr=theirs, env={**ALONE, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    shown, out = b"", b""
    begun = time.monotonic()
    while time.monotonic() - begun < 250:
        ready, _, _ = select.select([terminal, process.stdout], [], [], 1)
        if terminal in ready:
            try:
                shown += os.read(terminal, 4096)
            except OSError:  # Linux says so when the other side is closed
                break
        if process.stdout in ready:
            out += os.read(process.stdout.fileno(), 65536)
    out += process.stdout.read()
    process.stdout.close()
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    assert len([json.loads(line) for line in out.decode().splitlines()]) == 27
    assert b"detecting" in shown
    assert b"27/27" in shown
    assert b'"detections"' not in shown


# ---------------------------------------------------------------------- files that are written


def result(source: Path, frame: int | None = None) -> Detections:
    """A result without boxes."""
    (found,) = yolo9000.detect(np.full((20, 30, 3), 99, np.uint8))
    time = None if frame is None else frame / 10
    return replace(found[:0], source=str(source), frame=frame, time=time, rate=None if frame is None else 10.0)


def test_no_input_is_written_over_and_no_two_results_share_a_file(tmp_path):
    inputs = [tmp_path / "a.jpg", tmp_path / "a.png", tmp_path / "deeper" / "a.jpg", tmp_path / "a.mp4"]
    for file in inputs:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"theirs")
    with Outputs(tmp_path, None, map(str, inputs)) as outputs:
        for file in inputs[:3]:
            outputs.add(result(file))
        for frame in range(3):
            outputs.add(result(inputs[3], frame))
        outputs.add(result(inputs[3], 0))  # the same clip, given twice
    assert all(file.read_bytes() == b"theirs" for file in inputs)
    written = sorted(file.name for file in tmp_path.iterdir() if file not in inputs and file.is_file())
    assert written == ["a-2.png", "a-3.png", "a-4.png", "a-5.mp4", "a-6.mp4"]
    assert [len(list(read_video(tmp_path / f"a-{n}.mp4"))) for n in (5, 6)] == [3, 1]


# ---------------------------------------------------------------------- Darknet's files


@needs_oracle
def test_the_command_runs_darknets_weights_in_a_mode(darknet_weights):
    data, cfg = oracle.FOLDER / "data", oracle.FOLDER / "cfg" / "yolov2-tiny-voc.cfg"
    weights, photo, names = darknet_weights("yolov2-tiny-voc"), data / "dog.jpg", data / "voc.names"
    listed = {}
    for mode in ("darknet", "darknet-2018"):
        done = command(
            "detect", photo, "--weights", weights, "--cfg", cfg, "--names", names, "--mode", mode, "--threshold", "0.2",
            "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        listed[mode] = json.loads(done.stdout)["detections"]
    model = yolo9000.load(weights, cfg=cfg, names=names, mode="darknet")
    (found,) = yolo9000.detect(photo, model, threshold=0.2)
    assert len(found) > 20
    assert abs(len(listed["darknet"]) - len(found)) <= 1  # one may stand on the threshold
    for one in found[: len(found) // 2]:
        boxes = [other["box"] for other in listed["darknet"] if other["name"] == one["name"]]
        assert min(np.abs(np.array(boxes) - one["box"]).max(1)) < 0.1
    assert listed["darknet"] != listed["darknet-2018"]  # one stretches the picture, the other keeps its aspect
