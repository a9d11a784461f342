"""How fast YOLO9000 detects: whole beside its trunk alone, and beside the programs that people would use instead.

    python benchmarks/detector.py                                   # all of the parts below that run on a processor
    python benchmarks/detector.py --only whole memory               # whole, nouns, memory, dense, peers, darknet, gpu
    python benchmarks/detector.py --only darknet --darknet PATH --darknet-avx2 PATH
    python benchmarks/detector.py --only gpu --device cuda
    python benchmarks/detector.py --small --rounds 1                # a toy network, to see that it runs

The network is Darknet-19 with three anchors over YOLO9000's own tree, its weights random but lively: features are
normalised as a trained network's are, the classifier is sure of itself, and objectness is set so that about 50 boxes
are kept. All of it is fused (`yolo9000.fuse`). What is compared takes turns in one process; a ratio is the median over
the rounds. Memory is of a process of its own.
"""

import argparse
import copy
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import yolo9000
from wordtree import WordTree, build_tree, wordnet
from yolo9000 import models
from yolo9000.detector import Detector
from yolo9000.export import export_model
from yolo9000.forms import DenseForm, Gated, GatedForm
from yolo9000.hardware import device_of
from yolo9000.inference import FusedConv, Graphed, fuse
from yolo9000.tables import cfg_of
from yolo9000.timing import Step, machine, peak_bytes, ratio, timed, turns
from yolo9000.weights import Header, save_weights

SIZES = (288, 352, 416, 480, 544, 608)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
PRECISIONS = ("float32", "tf32", "bfloat16")
PAPER = {416: 67.0, 544: 40.0}  # frames a second of YOLOv2 on a Titan X (paper, table 3)
BOXES = 50
GRAPH_BOXES = 300  # that the captured form looks at
SMALL = {"widths": (8, 16, 16, 32, 32, 64), "counts": (1, 1, 1, 1, 1, 1)}
PARTS = ("whole", "nouns", "memory", "dense", "peers", "darknet", "gpu")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=None, help="the parts to measure")
    parser.add_argument("--size", type=int, default=544, help="pixels of the input")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for the part gpu")
    parser.add_argument("--sizes", type=int, nargs="*", help="of the part gpu; all of the paper's where left out")
    parser.add_argument("--precisions", nargs="*", choices=PRECISIONS, help="of the part gpu; all where left out")
    parser.add_argument("--darknet", type=Path, help="the original program, built for this processor")
    parser.add_argument("--darknet-avx2", type=Path, help="its fork with AVX2")
    parser.add_argument("--small", action="store_true", help="a toy network at 96 pixels")
    parser.add_argument("--peak", nargs=2, metavar=("TREE", "STEP"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.small:
        given.size = 96
    torch.set_grad_enabled(False)
    device = device_of(given.device)
    if given.peak:
        print(json.dumps(peak(*given.peak, given)))
        return
    parts = given.only or (["gpu"] if device.type == "cuda" else [part for part in PARTS if part != "gpu"])
    print(f"{machine(device)}, {given.rounds} rounds, input {given.size}", flush=True)
    if "gpu" in parts:
        gpu(given, device)
    model = image = None
    for part in (part for part in parts if part not in ("gpu", "nouns", "memory")):
        if model is None:
            model, image = lively(yolo9000.official_tree(), given)
        {"whole": whole, "dense": dense, "peers": peers, "darknet": darknet}[part](model, image, given)
    del model
    if "nouns" in parts:
        whole(*lively(nouns(), given), given)
    if "memory" in parts:
        memory(given)


# ---------------------------------------------------------------------- the network


def lively(tree: WordTree, given: argparse.Namespace, fused: bool = True) -> tuple[Detector, Tensor]:
    """The detector over a tree, and a picture float [3, 576, 768] in which it keeps about 50 boxes."""
    torch.manual_seed(0)
    model = models.yolo9000(tree, size=given.size, **(SMALL if given.small else {}))
    image = picture()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=0.1)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    batch, placed = model.place([image])
    model.train()
    model.features(batch)  # what batch-norm met here is what it normalises by
    model.eval()
    features = model.features(batch)
    head, spread = model.head, float(features.square().sum(1).mean().sqrt())  # a cell's features are so long
    nn.init.normal_(head.boxes.weight, std=1 / spread)
    head.boxes.weight.unflatten(0, (-1, 5))[:, 2:4] *= 0.3  # boxes of about the anchors' shapes
    head.classes.weight.normal_(std=20 / spread)  # a trained classifier is sure of itself
    ranked = head(features).raw[..., 4].flatten().sort(descending=True).values
    low, high = 1, len(ranked) - 1
    while low < high:  # how many pass objectness so that so many are left
        middle = (low + high) // 2
        head.boxes.bias[4::5] = torch.tensor(model.threshold).logit() - ranked[middle]
        if len(model.detect(head(features), placed)[0]["labels"]) < BOXES:
            low = middle + 1
        else:
            high = middle
    return (fuse(model) if fused else model), image


def picture() -> Tensor:
    """A smooth random picture, as large as the original's photograph of a dog: float [3, 576, 768]."""
    coarse = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    image = nn.functional.interpolate(coarse, size=(576, 768), mode="bicubic")[0].clamp(0, 1)
    return (image * 255).round() / 255


def nouns() -> WordTree:
    """All of WordNet's nouns."""
    return build_tree(wordnet.all_ids(), root="entity", instances=True)


# ---------------------------------------------------------------------- parts


def whole(model: Detector, image: Tensor, given: argparse.Namespace) -> None:
    """A detection from the picture to the boxes, beside the trunk on a placed picture."""
    batch, placed = model.place([image])
    region = model.region(batch)
    found = model([image])[0]
    steps = {
        "trunk": lambda: model.trunk(batch),
        "whole": lambda: model([image]),
        "place": lambda: model.place([image]),
        "decode, descend, suppress": lambda: model.detect(region, placed),
    }
    times = turns(steps, given.rounds, batch.device)
    deep = statistics.mean(len(path) for path in found["paths"]) if found["paths"] else 0.0
    passed = int((region.raw[..., 4].sigmoid() > model.threshold).sum())
    print(
        f"{len(model.tree)} nodes: {passed} boxes pass objectness, {len(found['labels'])} kept, {deep:.1f} steps deep"
    )
    print(f"    whole beside its trunk alone: ratio {ratio(times, 'whole', 'trunk'):.3f}   {told(times)}", flush=True)


def dense(model: Detector, image: Tensor, given: argparse.Namespace) -> None:
    """Every logit of every box, as Darknet computes them, beside what is asked alone."""
    batch, _ = model.place([image])
    form = DenseForm(model)
    steps = {
        "whole": lambda: model([image]),
        "all logits": lambda: model.head.dense(model.features(batch)),
        "all log-probabilities": lambda: form(batch),
    }
    times = turns(steps, given.rounds, batch.device)
    print(f"all {model.head.boxes.weight.shape[0] + model.head.classes.bias.numel()} channels of the head beside ours:")
    for name in ("all logits", "all log-probabilities"):
        print(f"    {name}: ratio {ratio(times, name, 'whole'):.3f}")
    print(f"    {told(times)}", flush=True)


def memory(given: argparse.Namespace) -> None:
    """Peak memory above the loaded weights, of processes of their own."""
    for tree in ("official", "nouns"):
        peaks = {}
        for step in ("trunk", "whole"):
            words = [sys.executable, __file__, "--peak", tree, step, "--size", str(given.size)]
            words += ["--small"] if given.small else []
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            peaks[step] = json.loads(done.stdout) / 2**20
        beside = peaks["whole"] / max(peaks["trunk"], 1e-9)
        print(
            f"peak memory, {tree}: trunk {peaks['trunk']:.0f} MiB, whole {peaks['whole']:.0f} MiB, ratio {beside:.3f}"
        )


def peak(tree: str, step: str, given: argparse.Namespace) -> int:
    """Bytes above the weights. One pass goes before, in which weights are laid out."""
    model, image = lively(nouns() if tree == "nouns" else yolo9000.official_tree(), given)
    batch, _ = model.place([image])
    work: Step = (lambda: model.trunk(batch)) if step == "trunk" else (lambda: model([image]))
    work()
    return max(peak_bytes(work, batch.device) for _ in range(3))


def peers(model: Detector, image: Tensor, given: argparse.Namespace) -> None:
    """onnxruntime and OpenVINO on our own export, beside ours from the same placed picture."""
    batch, placed = model.place([image])
    array = batch.numpy()
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        file = export_model(model, Path(folder) / "gated.onnx", "gated")
        steps: dict[str, Step] = {"ours": lambda: model.detect(model.region(batch), placed)}
        for name, open_ in (("onnxruntime", in_onnxruntime), ("openvino", in_openvino)):
            try:
                steps[name] = open_(file, array, threads)
            except ImportError:
                print(f"{name}: not installed (pip install {name})")
            except Exception as fault:  # a runtime that cannot run the file is a result too
                print(f"{name}: cannot run the export: {str(fault).splitlines()[0][:100]}")
        times = turns(steps, given.rounds, batch.device)
    ours = len(model.detect(model.region(batch), placed)[0]["labels"])
    for name in list(steps)[1:]:
        kept = int(np.asarray(steps[name]()).sum())
        print(f"ours beside {name}: ratio {ratio(times, 'ours', name):.3f}   {ours} boxes kept by ours, {kept} there")
    print(f"    {told(times)}", flush=True)


def in_onnxruntime(file: Path, array: np.ndarray, threads: int) -> Step:
    """A run of the file; what is kept, bool [b, k]."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"images": array})[-1]


def in_openvino(file: Path, array: np.ndarray, threads: int) -> Step:
    """A run of the file; what is kept, bool [b, k]."""
    import openvino

    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(str(file), "CPU", options)
    return lambda: compiled([array])[compiled.outputs[-1]]


# ---------------------------------------------------------------------- the original program


def darknet(model: Detector, image: Tensor, given: argparse.Namespace) -> None:
    """The original program and its fork on the same picture and weights, a process each; the time that they print."""
    programs = {"darknet": given.darknet, "its AVX2 fork": given.darknet_avx2}
    programs = {name: path.resolve() for name, path in programs.items() if path is not None}
    if not programs:
        print("darknet: no path given (--darknet PATH, --darknet-avx2 PATH)")
        return
    original, image = lively(model.tree, given, fused=False)  # .weights hold batch-norm, which ours has folded in
    for norm in (module for module in original.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.arithmetic = "darknet"
    original.set_mode("darknet")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_darknet(original, image, folder)
        ours = fuse(original)
        times: dict[str, list[float]] = {name: [] for name in ("ours", *programs)}
        lists: dict[str, list[tuple[str, int]]] = {}
        for _ in range(min(given.rounds, 5)):
            for program, path in programs.items():
                seconds, lists[program] = run_darknet(path, folder)
                times[program].append(seconds)
            times["ours"].append(timed(lambda: ours([image]), torch.device("cpu")))
    found = ours([image])[0]
    mine = sorted(
        (model.tree.names[node], round(100 * float(score)))
        for node, score in zip(found["labels"].tolist(), found["scores"], strict=True)
        if node >= 0
    )
    for program, theirs in lists.items():
        same = len(mine) - sum(not any(near(one, other) for other in theirs) for one in mine)
        print(f"{program} beside ours: {ratio(times, program, 'ours'):.2f} times our time;", end=" ")
        print(f"ours lists {len(mine)}, it lists {len(theirs)}, {same} of ours there with the same per cent (± 1)")
    print(f"    {told(times)}", flush=True)


def near(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """One name, and per cents that rounding may part."""
    return one[0] == other[0] and abs(one[1] - other[1]) <= 1


def write_darknet(model: Detector, image: Tensor, folder: Path) -> None:
    """Everything that `darknet detector test` reads, in one folder."""
    model.tree.save(folder / "9k.tree")  # and 9k.names
    (folder / "x.cfg").write_text(cfg_of(model, tree="9k.tree"))
    (folder / "x.data").write_text(f"classes={len(model.tree)}\nnames=9k.names\n")
    letters = folder / "data" / "labels"  # it writes names into its picture, and ends where it has no letters
    letters.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "blank.png")
    blank = (folder / "blank.png").read_bytes()
    for size in range(8):
        for letter in range(32, 127):
            (letters / f"{letter}_{size}.png").write_bytes(blank)
    save_weights(model, folder / "x.weights", header=Header(0, 1, 0, 0))  # which every release reads
    array = (image * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(array).save(folder / "x.png")


def run_darknet(program: Path, folder: Path) -> tuple[float, list[tuple[str, int]]]:
    """Seconds that it says it predicted in, and what it lists: name and per cent."""
    words = [str(program), "detector", "test", "x.data", "x.cfg", "x.weights", "x.png", "-thresh", ".24", "-dont_show"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    text = done.stdout + done.stderr
    said = re.search(r"Predicted in ([0-9.]+) (milli-)?seconds", text)
    if said is None:
        raise SystemExit(f"{program} told no time; it ended with {done.returncode}: {text[-300:]}")
    listed = [(name.strip(), int(per_cent)) for name, per_cent in re.findall(r"^(.+): (\d+)%", text, re.MULTILINE)]
    return float(said[1]) / (1000 if said[2] else 1), listed


# ---------------------------------------------------------------------- a GPU


def gpu(given: argparse.Namespace, device: torch.device) -> None:
    """Images a second at each size, batch and precision, in each form, beside the floor of the matrix products."""
    on_gpu = device.type == "cuda"
    sizes = given.sizes or ((64, 96) if given.small else SIZES)
    batches = (1, 2) if given.small else BATCHES
    bandwidth = measured_bandwidth(device, given.small)
    print(f"memory bandwidth {bandwidth / 1e9:.0f} GB/s")
    peaks = {}
    for precision in given.precisions or (PRECISIONS if on_gpu else ("float32",)):
        set_tf32(precision == "tf32")
        peaks[precision] = measured_peak(dtype_of(precision), device, given.small)
        print(f"{precision}: matrix products at {peaks[precision] / 1e12:.2f} TFLOP/s", flush=True)
    for size in sizes:
        original, image = lively(
            yolo9000.official_tree(), argparse.Namespace(small=given.small, size=size), fused=False
        )
        image = image.to(device)
        for precision, peak in peaks.items():
            set_tf32(precision == "tf32")
            dtype = dtype_of(precision)
            model = fuse(copy.deepcopy(original).to(device), str(dtype).removeprefix("torch."))
            model.head.classes.to(dtype)
            floor = {batch: seconds_at_least(model, size, batch, peak, bandwidth, dtype.itemsize) for batch in batches}
            tried: tuple[int, ...] = batches
            for form in ("eager", "CUDA graph", "compiled"):
                if form == "compiled" and not on_gpu:
                    continue
                found = rates(model, image, tried, form, given.rounds)
                print_rates(size, precision, form, found, floor)
                if form == "CUDA graph":  # each batch is compiled anew: the best of the others alone
                    tried = tuple(dict.fromkeys((1, max(found, key=lambda batch: found[batch][1], default=1))))
            del model
            if on_gpu:
                torch.cuda.empty_cache()


def dtype_of(precision: str) -> torch.dtype:
    """In what a precision computes; TF32 is a way to multiply float32."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def rates(
    model: Detector, image: Tensor, batches: tuple[int, ...], form: str, rounds: int
) -> dict[int, tuple[float, float]]:
    """Images a second by batch: of the network, and whole from a picture on the device; until memory or speed ends."""
    found: dict[int, tuple[float, float]] = {}
    for batch in batches:
        try:
            times = turns(steps_of(model, image, batch, form), rounds, image.device)
        except torch.cuda.OutOfMemoryError:
            break
        network, whole_ = (statistics.median(times[name]) for name in ("network", "whole"))
        found[batch] = (batch / network, batch / whole_)
        if batch >= 16 and batch // 2 in found and found[batch][1] < 1.03 * found[batch // 2][1]:
            break
    return found


def steps_of(model: Detector, image: Tensor, images: int, form: str) -> dict[str, Step]:
    """The network alone, and whole detections whose boxes come back to the processor, in one of the forms."""
    batch, placed = model.place([image] * images)
    if form == "eager":
        return {"network": lambda: model.region(batch), "whole": lambda: model([image] * images)}
    if form == "compiled":
        torch._dynamo.reset()
        region = torch.compile(model.region, dynamic=False)
        return {
            "network": lambda: region(batch),
            "whole": lambda: model.detect(region(model.place([image] * images)[0]), placed),
        }
    form_ = GatedForm(model, GRAPH_BOXES, "whole")
    network, detection = Graphed(model.region, batch), Graphed(lambda given: packed(form_(given)), batch)
    return {
        "network": lambda: network(batch),
        "whole": lambda: detection(model.place([image] * images)[0]).cpu(),
    }


def packed(out: Gated) -> Tensor:
    """All that was found in one tensor, which comes back in one copy."""
    columns = (out.scores, out.labels, out.objectness, out.kept)
    return torch.cat((out.boxes, *(column.unsqueeze(2).float() for column in columns)), 2)


def print_rates(
    size: int, precision: str, form: str, found: dict[int, tuple[float, float]], floor: dict[int, float]
) -> None:
    """A line for batch 1 and one for the best batch."""
    best = max(found, key=lambda batch: found[batch][1], default=1)
    for batch in dict.fromkeys((1, best)):
        if batch not in found:
            print(f"    {size:4} {precision:9} {form:11} batch {batch:4}: out of memory")
            continue
        network, whole_ = found[batch]
        limit = batch / floor[batch]
        paper = f", paper {PAPER[size]:.0f}" if size in PAPER else ""
        rate = f"network {network:9.1f}, whole {whole_:9.1f} images/s"
        beside = f"floor {limit:9.1f}, network at {network / limit:.2f} of it, whole at {whole_ / limit:.2f}"
        print(
            f"    {size:4} {precision:9} {form:11} batch {batch:4}: {rate}; {beside}{paper}",
            flush=True,
        )


def set_tf32(on: bool) -> None:
    """Whether float32 products may be computed in TF32."""
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.allow_tf32 = on
    torch.backends.cudnn.benchmark = True


def measured_peak(dtype: torch.dtype, device: torch.device, small: bool) -> float:
    """FLOP/s of the best of some large square matrix products."""
    best = 0.0
    for side in (128,) if small else (4096, 8192):
        a = torch.randn(side, side, device=device, dtype=dtype)
        best = max(best, 2 * side**3 / best_time(lambda a=a: a @ a, device))  # type: ignore[misc]
    return best


def measured_bandwidth(device: torch.device, small: bool) -> float:
    """Bytes a second of copying a large tensor, read and written."""
    source = torch.ones(2**18 if small else 2**28, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_time(lambda: target.copy_(source), device)


def best_time(step: Step, device: torch.device, inner: int = 10) -> float:
    """Seconds of one step, the best of some runs of several."""

    def several() -> None:
        for _ in range(inner):
            step()

    several()
    return min(timed(several, device) for _ in range(5)) / inner


def seconds_at_least(model: Detector, size: int, batch: int, peak: float, bandwidth: float, width: int) -> float:
    """The floor of a batch: over the convolutions, the larger of FLOPs over the peak and bytes over the bandwidth.

    `width` is the bytes of a number.
    """
    total = 0.0

    def add(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        weight: Tensor = module.weight  # type: ignore[assignment]
        flops = 2 * weight[0].numel() * out.numel() * batch
        moved = (batch * (given[0].numel() + out.numel()) + weight.numel()) * width
        total += max(flops / peak, moved / bandwidth)

    hooks = [m.register_forward_hook(add) for m in model.modules() if isinstance(m, FusedConv)]
    model.region(torch.rand(1, 3, size, size, device=next(model.parameters()).device))
    for hook in hooks:
        hook.remove()
    return total


# ---------------------------------------------------------------------- telling


def told(times: dict[str, list[float]]) -> str:
    """The medians in milliseconds."""
    return ", ".join(f"{name} {statistics.median(some) * 1e3:.2f} ms" for name, some in times.items() if some)


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    print(f"({time.perf_counter() - began:.0f} s)", file=sys.stderr)
