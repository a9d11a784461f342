"""A result a person can use: rows, forms of boxes, names, coarser names, text, pictures, and other libraries' forms."""

import io
import json
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strategies import random_tree, seeds, trees
from torchvision.ops import box_iou

import yolo9000
from wordtree import WordTree, WordTreeError
from wordtree.nn import suppress_relatives
from yolo9000.detections import Detections, file_name, unique_names
from yolo9000.plots import Label, colour_of, ink_on, layout, sure_step

TREE = WordTree(
    ["n1", "n2", "n3", "n4", "n5", "n6"],
    [-1, -1, 0, 0, 1, 2],
    ["animal", "machine", "dog", "crane", "crane", "poodle"],
)


def detections(rows: int, tree: WordTree = TREE, seed: int = 0, width: int = 90, height: int = 60) -> Detections:
    """Random boxes with random nodes, the root among them; probabilities fall down each path."""
    random = np.random.RandomState(seed)
    corners = np.sort(random.rand(rows, 2, 2), axis=1) * [width, height]
    nodes = random.randint(-1, len(tree), rows)
    paths = tuple(tree.path(node) for node in nodes)
    probs = tuple(tuple(np.cumprod(0.5 + 0.5 * random.rand(len(path))).astype(np.float32).tolist()) for path in paths)
    objectness = torch.from_numpy(random.rand(rows).astype(np.float32))
    scores = objectness * torch.tensor([row[-1] if row else 1.0 for row in probs])
    found = Detections(
        boxes=torch.from_numpy(corners.reshape(rows, 4).astype(np.float32)),
        scores=scores,
        labels=torch.from_numpy(nodes.astype(np.int64)),
        objectness=objectness,
        paths=paths,
        path_probs=probs,
        tree=tree,
        image=torch.from_numpy(random.randint(0, 256, (3, height, width)).astype(np.uint8)),
        source="photos/scene.jpg",
        node_probs=torch.from_numpy(random.rand(rows, len(tree)).astype(np.float32)),
    )
    return found.take(torch.argsort(scores, descending=True))


def assert_same(one: Detections, other: Detections) -> None:
    for name in ("boxes", "scores", "labels", "objectness", "node_probs", "image"):
        assert type(getattr(one, name)) is type(getattr(other, name)), name
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert (one.paths, one.path_probs, one.source) == (other.paths, other.path_probs, other.source)
    assert one.ids == other.ids


rows = st.integers(0, 7)

# ---------------------------------------------------------------------- rows


@given(rows, seeds, st.data())
def test_an_index_is_those_rows_of_everything(count, seed, data):
    found = detections(count, seed=seed)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=bool)
    at = np.flatnonzero(mask)
    whole = [found.take(torch.tensor([int(row)])) for row in at]
    for index in (mask, torch.from_numpy(mask), mask.tolist(), at, torch.from_numpy(at), at.tolist()):
        some = found[index]
        assert len(some) == len(at) == len(some.names) == len(some.paths) == len(some.node_probs)
        for row, one in enumerate(whole):
            assert_same(some[row], one)
            assert_same(some[row - len(at)], one)
    cut = data.draw(st.slices(count))
    assert found[cut].scores.tolist() == found.scores.tolist()[cut]
    assert found[cut].paths == found.paths[cut]
    assert [record["id"] for record in found[cut]] == list(found.ids[cut])


def test_rows_come_in_the_order_asked_for_and_may_come_twice():
    found = detections(4)
    assert found[[2, 0, 2]].scores.tolist() == found.scores[[2, 0, 2]].tolist()
    assert len(found[found.scores > 2]) == 0
    assert found[torch.tensor(1)].names == found.names[1:2]


@pytest.mark.parametrize("index", [4, -5, [0, 4], [True], np.zeros(5, dtype=bool), 0.5, "dog", (0, 1), [[0, 1]]])
def test_a_row_that_is_not_there_is_an_index_error_that_says_how_many_there_are(index):
    with pytest.raises(IndexError, match="4 detections"):
        detections(4)[index]


@given(rows, seeds)
def test_arrays_are_the_same_numbers_and_come_back_as_tensors(count, seed):
    found = detections(count, seed=seed)
    plain = found.numpy()
    assert all(isinstance(getattr(plain, name), np.ndarray) for name in ("boxes", "labels", "xywh", "xyxyn", "image"))
    assert (plain.boxes.dtype, plain.labels.dtype, plain.image.shape) == (np.float32, np.int64, (3, 60, 90))
    assert_same(plain.cpu(), found)
    assert_same(plain.numpy(), plain)
    assert_same(plain[::-1].to("cpu"), found[::-1])
    assert plain.to_json() == found.to_json()
    assert str(plain) == str(found)
    assert np.array_equal(plain.xywhn, found.xywhn)
    assert_same(plain.level(0).cpu(), found.level(0))


@given(rows, seeds)
def test_the_names_of_other_libraries_are_the_same_boxes(count, seed):
    found = detections(count, seed=seed)
    assert found.xyxy is found.boxes
    assert found.conf is found.scores
    assert found.cls is found.labels
    x, y, width, height = found.xywh.T
    rebuilt = torch.stack((x - width / 2, y - height / 2, x + width / 2, y + height / 2), dim=1)
    torch.testing.assert_close(rebuilt, found.boxes, rtol=0, atol=1e-4)
    sides = torch.tensor([90.0, 60.0, 90.0, 60.0])
    torch.testing.assert_close(found.xyxyn * sides, found.xyxy)
    torch.testing.assert_close(found.xywhn * sides, found.xywh)
    assert bool((found.xyxyn <= 1).all())


# ---------------------------------------------------------------------- names


def test_every_node_of_the_official_tree_has_a_name_of_its_own():
    tree = yolo9000.official_tree()
    names = replace(detections(0), tree=tree).id2label
    assert len(names) == len(tree) == 9418
    assert len(set(names.values())) == 9418
    often = Counter(tree.names)
    repeated = [node for node, name in enumerate(tree.names) if often[name] > 1]
    assert len({tree.names[node] for node in repeated}) > 100
    for node, name in names.items():
        assert name == tree.names[node] if often[tree.names[node]] == 1 else name.startswith(f"{tree.names[node]} (")
    assert {names[node] for node in repeated if tree.names[node] == "crane"} == {
        "crane (lifting device)",
        "crane (wading bird)",
    }


def test_two_namesakes_below_one_parent_are_told_apart_by_their_ids():
    tree = WordTree(["a", "b", "c", "d"], [-1, 0, 0, 0], ["bird", "crane", "crane", "crane (bird)"])
    assert list(unique_names(tree).values()) == ["bird", "crane (b)", "crane (c)", "crane (bird)"]


@given(trees(), st.data())
def test_names_are_unique_on_any_tree_however_its_nodes_are_called(tree, data):
    hostile = ["a", "b", "a (b)", "a (n0)", "a (n1)", "a (n1) (n1)", "root", "a (root)"]
    names = data.draw(st.lists(st.sampled_from(hostile), min_size=len(tree), max_size=len(tree)))
    unique = unique_names(WordTree(tree.ids, tree.parents, names))
    assert list(unique) == list(range(len(tree)))
    assert len(set(unique.values())) == len(tree)
    assert all(unique[node].startswith(name) for node, name in enumerate(names))


# ---------------------------------------------------------------------- coarser names


def lifted(found: Detections, lengths: list[int]) -> list[tuple[int, float]]:
    """Node and score of each row with its path cut to a length, one by one."""
    answers = []
    for objectness, path, probs, length in zip(
        found.objectness.tolist(), found.paths, found.path_probs, lengths, strict=True
    ):
        answers.append((path[length - 1], objectness * probs[length - 1]) if length else (-1, objectness))
    return answers


def assert_lifted(view: Detections, found: Detections, lengths: list[int]) -> None:
    answers = lifted(found, lengths)
    if lengths == [len(path) for path in found.paths]:
        assert view is found
        return
    nodes = torch.tensor([node for node, _ in answers], dtype=torch.int64)
    scores = torch.tensor([score for _, score in answers])
    kept = suppress_relatives(found.boxes, scores, nodes, found.tree)
    assert view.labels.tolist() == nodes[kept].tolist()
    torch.testing.assert_close(view.scores, scores[kept])
    assert torch.equal(view.boxes, found.boxes[kept])
    assert torch.equal(view.objectness, found.objectness[kept])
    for node, path, probs, row in zip(view.labels.tolist(), view.paths, view.path_probs, kept.tolist(), strict=True):
        assert path == found.tree.path(node)
        assert probs == found.path_probs[row][: len(path)]


@given(trees(), rows, seeds, st.floats(0, 1))
def test_a_higher_tree_threshold_lifts_each_box_up_its_path(tree, count, seed, threshold):
    found = detections(count, tree, seed)
    lengths = []
    for probs in found.path_probs:
        length = 0
        while length < len(probs) and probs[length] > threshold:
            length += 1
        lengths.append(length)
    assert_lifted(found.at(threshold), found, lengths)


@given(trees(), rows, seeds, st.integers(0, 5))
def test_a_level_lifts_each_box_to_that_depth(tree, count, seed, level):
    found = detections(count, tree, seed)
    view = found.level(level)
    assert_lifted(view, found, [min(level + 1, len(path)) for path in found.paths])
    assert all(tree.depths[node] <= level for node in view.labels.tolist() if node >= 0)


def test_relatives_that_come_to_share_an_object_are_one_detection():
    found = detections(2)
    one = torch.tensor([[0.0, 0, 20, 20], [1, 1, 21, 21]])
    found = replace(
        found, boxes=one, labels=torch.tensor([5, 3]), paths=((0, 2, 5), (0, 3)),
        path_probs=((0.9, 0.8, 0.5), (0.9, 0.6)), objectness=torch.tensor([0.8, 0.8]), scores=torch.tensor([0.4, 0.48]),
    )  # fmt: skip
    assert found.at(0.55).names == ("dog", "crane")
    assert found.level(0).names == ("animal",)
    assert float(found.level(0).scores[0]) == pytest.approx(0.72)


def test_darknets_score_which_is_objectness_stays_what_it_is():
    found = detections(6, random_tree(40), seed=3)
    darknet = replace(found, scores=found.objectness)
    view = darknet.level(0)
    assert view.scores.tolist() == view.objectness.tolist()


def test_lifting_names_the_boxes_as_another_run_does():
    torch.manual_seed(0)
    tree = random_tree(60, seed=2)
    model = yolo9000.models.yolo9000(tree, [[1.0, 1.5], [3.0, 2.0]], 32, widths=(4, 6, 8), counts=(1, 1, 1))
    with torch.no_grad():
        model.head.boxes.weight.normal_(std=0.5)
        model.head.classes.weight.normal_(std=2.0)
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    (low,) = yolo9000.detect(image, model, threshold=0.0, tree_threshold=0.05)
    (high,) = yolo9000.detect(image, model, threshold=0.0, tree_threshold=0.4)
    assert sum(len(path) for path in low.paths) > sum(len(path) for path in high.paths)
    both = {tuple(box): row for row, box in enumerate(high.boxes.tolist())}
    view = low.at(0.4)
    pairs = [(row, both[tuple(box)]) for row, box in enumerate(view.boxes.tolist()) if tuple(box) in both]
    assert len(pairs) > 5
    for mine, theirs in pairs:
        assert view.paths[mine] == high.paths[theirs]
        assert float(view.scores[mine]) == pytest.approx(float(high.scores[theirs]))


def test_a_level_above_the_root_is_refused():
    with pytest.raises(WordTreeError, match="level of -1; the root's children"):
        detections(1).level(-1)


# ---------------------------------------------------------------------- text


@given(rows, seeds)
def test_json_reads_back_as_the_same_numbers(count, seed):
    found = detections(count, seed=seed)
    record = json.loads(found.to_json())
    assert (record["source"], record["width"], record["height"]) == ("photos/scene.jpg", 90, 60)
    assert record.keys() == {"source", "width", "height", "detections"}
    listed = record["detections"]
    assert np.array_equal(np.array([one["box"] for one in listed], np.float32).reshape(-1, 4), found.boxes)
    for name, field in (("score", "scores"), ("objectness", "objectness")):
        assert np.array_equal(np.array([one[name] for one in listed], np.float32), getattr(found, field)), name
    assert [one["id"] for one in listed] == list(found.ids)
    assert [one["name"] for one in listed] == list(found.names)
    assert [tuple(np.float32(step["prob"]) for step in one["path"]) for one in listed] == list(found.path_probs)
    assert [[step["id"] for step in one["path"]] for one in listed] == [
        [TREE.ids[node] for node in path] for path in found.paths
    ]


def test_a_frame_of_a_video_says_which():
    frame = replace(detections(1), source="clip.mp4", frame=7, time=0.28)
    record = json.loads(frame.to_json())
    assert (record["frame"], record["time"]) == (7, 0.28)
    assert str(frame).startswith("clip.mp4 frame 7: 1 found\n")
    assert str(frame[:0]) == "clip.mp4 frame 7: nothing found"


def test_a_short_text_stands_for_many_boxes():
    found = detections(9)
    assert repr(found).startswith(f"Detections('photos/scene.jpg', 9 found: {found.names[0]} ")
    assert repr(found).endswith(", 4 more)")
    assert repr(found[:0]) == "Detections('photos/scene.jpg', 0 found)"


def test_notebooks_show_the_picture_and_names_as_text_not_as_markup():
    tree = WordTree(["a"], [-1], ["<b>&"])
    found = detections(3, tree, seed=1)
    with Image.open(io.BytesIO(found._repr_png_())) as picture:
        assert picture.size == found.plot().size
    page = found._repr_html_()
    assert "&lt;b&gt;&amp;" in page
    assert "<b>" not in page


# ---------------------------------------------------------------------- pictures


def test_a_plot_enlarges_a_small_picture_and_keeps_a_large_one():
    assert detections(1).plot().size == (480, 320)
    assert detections(1, width=600, height=40).plot().size == (600, 40)
    assert detections(1, width=30, height=3000).plot().size == (30, 3000)
    assert detections(1).plot(scale=1).size == (90, 60)


def test_a_plot_draws_on_a_copy_and_puts_the_boxs_colour_on_its_sides():
    found = replace(detections(1, width=640, height=480), boxes=torch.tensor([[200.0, 200, 400, 300]]))
    before = found.image.clone()
    drawn = np.asarray(found.plot())
    assert torch.equal(found.image, before)
    colour = colour_of(int(found.labels[0]))
    for y, x in ((250, 200), (250, 400), (200, 390), (300, 210)):
        assert tuple(drawn[y, x]) == colour
    assert np.array_equal(drawn[205:295, 205:395], before.permute(1, 2, 0)[205:295, 205:395])  # the object is seen


@given(seeds, st.integers(0, 30), st.integers(1, 400), st.integers(1, 400))
def test_anything_can_be_drawn(seed, count, width, height):
    found = detections(count, seed=seed, width=width, height=height)
    found.boxes[::3, 2:] = found.boxes[::3, :2]  # boxes without an area
    scale = min(1.0, 100 / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    assert found.plot(scale).size == size


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), seeds)
def test_labels_lie_in_the_picture_and_none_covers_another_where_there_is_room(lengths, seed):
    random = np.random.RandomState(seed)
    labels = []
    for length in lengths:
        left, top = random.rand(2) * [900, 700]
        labels.append(Label((left, top, left + 90, top + 90), "n" * (length + 1), "above 0.99 >", length))
    tags = layout(labels, (1000, 800))
    boxes = torch.tensor([tag.box for tag in tags], dtype=torch.float64)
    assert bool((boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= torch.tensor([1000, 800])).all())
    assert float((box_iou(boxes, boxes) - torch.eye(len(boxes))).max()) == 0
    for label, tag in zip(labels, tags, strict=True):  # each at its own box
        apart = max(tag.box[0] - label.box[2], label.box[0] - tag.box[2], tag.box[1] - label.box[3])
        assert apart <= 6 * (tag.box[3] - tag.box[1])
        assert tag.lines[-1][0] == label.text


def test_in_a_crowd_only_names_are_written_and_a_name_too_long_loses_its_middle():
    label = Label((10.0, 50.0, 60.0, 90.0), "computerized axial tomography scanner 0.65", "... whole 0.64 >", 3)
    (alone,) = layout([label], (1000, 800))
    assert [text for text, _ in alone.lines] == [label.above, label.text]
    crowd = layout([label] * 60, (500, 375))
    assert all([text for text, _ in tag.lines] == [label.text] for tag in crowd)
    (narrow,) = layout([label], (120, 400))
    shown = narrow.lines[-1][0]
    assert shown.startswith("comp")
    assert "..." in shown
    assert shown.endswith("0.65")
    assert narrow.box[2] <= 120


def test_letters_grow_with_the_picture():
    label = Label((1.0, 1.0, 9.0, 9.0), "dog", "", 3)
    sizes = [layout([label], (side, side))[0].lines[0][1] for side in (64, 500, 1000, 4000)]
    assert sizes == sorted(sizes)
    assert sizes[0] >= 12
    assert sizes[-1] > 90


@given(st.integers(-1, 10**6))
def test_letters_stand_out_from_the_colour_of_any_node(node):
    def luminance(colour):
        linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return np.dot([0.2126, 0.7152, 0.0722], linear)

    colour = colour_of(node)
    assert colour == colour_of(node)
    ink = {"black": 0.0, "white": 1.0}[ink_on(colour)]
    light, dark = sorted((luminance(colour), ink), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG's AA


def test_neighbours_in_the_tree_have_colours_a_person_can_tell_apart():
    colours = np.array([colour_of(node) for node in range(60)], dtype=float)
    for node in range(60):
        near = np.abs(colours[node] - colours[node + 1 : node + 6]).sum(1)
        assert (near > 60).all()


def test_the_last_sure_step_stands_above_the_name():
    names = ["animal", "dog", "poodle"]
    assert sure_step(names, [0.99, 0.92, 0.31]) == "... dog 0.92 >"
    assert sure_step(names, [0.99, 0.42, 0.31]) == "animal 0.99 >"
    assert sure_step(names, [0.42, 0.40, 0.31]) == ""
    assert sure_step(names[:1], [0.9]) == ""
    assert sure_step([], []) == ""


@given(seeds, rows)
def test_a_crop_is_what_lies_in_its_box(seed, count):
    found = detections(count, seed=seed)
    whole = found.image.permute(1, 2, 0).numpy()
    for crop, (left, top, right, bottom) in zip(found.crops(), found.boxes.tolist(), strict=True):
        pixels = np.asarray(crop)
        x, y = int(left), int(top)
        assert np.array_equal(pixels, whole[y : y + pixels.shape[0], x : x + pixels.shape[1]])
        assert 0 <= x + pixels.shape[1] - right < 1
        assert 0 <= y + pixels.shape[0] - bottom < 1


def test_a_box_without_an_area_still_has_a_crop_of_a_pixel():
    found = replace(detections(2), boxes=torch.tensor([[90.0, 60, 90, 60], [5, 5, 5, 5]]))
    assert [crop.size for crop in found.crops()] == [(1, 1), (1, 1)]


def test_crops_are_kept_in_a_folder_a_name(tmp_path):
    found = detections(3)[[0, 1]]
    found = replace(found, labels=torch.tensor([3, -1]), paths=((0, 3), ()), path_probs=((0.9, 0.8), ()))
    files = found.save_crops(tmp_path / "crops")
    assert [str(file.relative_to(tmp_path)) for file in files] == [
        "crops/crane (animal)/scene-0.png",
        "crops/root/scene-1.png",
    ]
    for file, crop in zip(files, found.crops(), strict=True):
        with Image.open(file) as saved:
            assert np.array_equal(np.asarray(saved), np.asarray(crop))
    frame = replace(found[:1], source="clips/a.b.mp4", frame=12)
    assert frame.save_crops(tmp_path)[0].name == "a.b-000012-0.png"


@pytest.mark.parametrize("name", ["a/b", "..", "", "c:\\d", "nul\0", " x. "])
def test_any_name_becomes_a_file_name_of_its_folder(name, tmp_path):
    file = tmp_path / file_name(name)
    file.write_text("")
    assert [one.name for one in tmp_path.iterdir()] == [file_name(name)]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff", ".PNG"])
def test_a_plot_is_saved_in_the_format_of_its_suffix(suffix, tmp_path):
    found = detections(2)
    path = found.save(tmp_path / "new" / f"out{suffix}")
    with Image.open(path) as picture:
        assert picture.size == (480, 320)
        if suffix == ".png":
            assert np.array_equal(np.asarray(picture), np.asarray(found.plot()))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["out.xyz", "out", "out.mp4"])
def test_a_suffix_of_no_picture_is_refused_and_nothing_written(name, tmp_path):
    with pytest.raises(WordTreeError, match=r"no picture format for .*give a suffix such as \.png"):
        detections(1).save(tmp_path / "new" / name)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- other libraries


@given(seeds, rows)
def test_supervision_gets_the_same_numbers(seed, count):
    supervision = pytest.importorskip("supervision")
    found = detections(count, seed=seed)
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert len(theirs) == count
    assert np.array_equal(theirs.xyxy, found.boxes)
    assert np.array_equal(theirs.confidence, found.scores)
    assert np.array_equal(theirs.class_id, found.labels)
    assert theirs.data["class_name"].tolist() == list(found.names)
    assert np.array_equal(theirs[theirs.confidence > 0.3].xyxy, found[found.scores > 0.3].boxes)
    assert theirs[theirs.confidence > 0.3].data["id"].tolist() == list(found[found.scores > 0.3].ids)


def test_without_supervision_the_error_says_what_would_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(WordTreeError, match=r"not installed; pip install supervision, or use numpy\(\)"):
        detections(1).to_supervision()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="waits for a CUDA device")
def test_a_result_moves_to_a_gpu_and_back():
    found = detections(5)
    moved = found.to("cuda")
    assert moved.boxes.is_cuda
    assert moved[moved.scores > 0.1].xywhn.is_cuda
    assert_same(moved.cpu(), found)
    assert_same(moved.numpy(), found.numpy())
    assert moved.to_json() == found.to_json()
