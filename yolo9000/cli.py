"""The command `yolo9000`. Each verb imports what it needs when it runs."""

import contextlib
import json
import math
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from wordtree import WordTree, WordTreeError, __version__

# click's own, which typer carries inside itself since 0.27 and takes from click before
UsageError: type[Exception] = typer.BadParameter.__base__  # type: ignore[assignment]

app = typer.Typer(
    help="YOLO9000: box what was never boxed. `yolo9000 train --joint` needs nothing else.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Weights = Annotated[
    Path | None, typer.Option(help="A run's folder or weights file; the shipped checkpoint where left out.")
]
Cfg = Annotated[Path | None, typer.Option(help="Darknet's network file, for its .weights.")]
Look = Annotated[
    str | None,
    typer.Option(help="A classifier that names the boxes, such as torchvision/resnet50 or timm/efficientnet_lite0."),
]
LookWeights = Annotated[str, typer.Option(help="Its weights, a file, or DEFAULT for its package's own.")]
Tree = Annotated[Path | None, typer.Option(help="The tree of the classes, .tree or .json, in place of the cfg's.")]
Names = Annotated[Path | None, typer.Option(help="A .names or .data file of Darknet's.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


LISTED = "@FILE reads one a line."


@app.command()
def train(
    joint: Annotated[bool, typer.Option("--joint", help="Learn from image labels beside the boxes.")] = False,
    oracle: Annotated[
        bool, typer.Option("--oracle", help="The joint run with every box given: the upper bound.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="embedded, the set that ships and the default, or a run.yaml.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/joint where left out.")] = None,
    recipe: Annotated[str, typer.Option(help="A published network's numbers, such as yolov2-voc.")] = "",
    start: Annotated[
        str | None, typer.Option(help="Weights to begin from: a run, a .safetensors, Darknet's .weights or .conv.23.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="A step from YOLO to YOLOv2 to go without, such as passthrough; any number."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan: steps, rates, memory, hours; and train nothing.")
    ] = False,
    rate: Annotated[
        float | None, typer.Option(help="Of the plan: images a second that train elsewhere; measured here if left out.")
    ] = None,
    gpus: Annotated[str, typer.Option(help="Of the plan: on how many GPUs, such as 1,8,64.")] = "",
    detector: Annotated[
        str | None, typer.Option(help="A plug-in's, such as torchvision/retinanet_resnet50_fpn; ours where left out.")
    ] = None,
    detector_option: Annotated[
        list[str] | None, typer.Option(help="An option of that detector, such as weights=DEFAULT; any number.")
    ] = None,
    trunk: Annotated[
        str | None,
        typer.Option(help="A network in place of Darknet-19, such as timm/efficientnet_lite0."),
    ] = None,
    trunk_weights: Annotated[
        str | None, typer.Option(help="A file of the trunk's weights, or DEFAULT for its package's own.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read a run.yaml's data whole, tell what is wrong, and train nothing.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, such as steps=2000; any number.")
    ] = None,
) -> None:
    """Train, evaluate, and leave a run folder. Ctrl-C keeps a checkpoint; the same command goes on from it."""
    from .config import parse_settings
    from .hardware import is_first

    options = _settings(settings)
    embedded = (data or "embedded") == "embedded"
    if embedded and (joint or oracle):
        options["joint"] = True
    if start is not None:
        options["start"] = start
    if without:
        options["without"] = without
    if oracle:
        options["oracle"] = True
    if detector is not None:
        options["detector"] = detector
    if detector_option:
        options["detector_options"] = parse_settings(detector_option, "weights=DEFAULT")
    options |= {key: value for key, value in (("trunk", trunk), ("trunk_weights", trunk_weights)) if value is not None}
    if check:
        _check(data or "embedded", out, recipe, options)
    if dry_run:
        _plan(data, recipe, {"joint": False, **options} if embedded else options, rate, gpus)
    with _stopping():
        from .training import train as run_training

        run = run_training(data=data, out=out, recipe=recipe, **options)
    if not is_first():  # of several ranks one speaks
        return
    if run.metrics.keys() - {"seconds"}:
        typer.echo(run.table())
    files = sorted(file.name for file in run.directory.iterdir() if file.suffix in (".png", ".csv", ".safetensors"))
    typer.echo(f"run folder: {run.directory}  ({', '.join(files)})")
    if run.config.steps:
        typer.echo(f"try it:     yolo9000 detect PHOTO --weights {run.directory} --tree-threshold 0.3")
    else:
        typer.echo(f"next:       yolo9000 train --start {run.directory} --data ...")


def _settings(pairs: list[str] | None) -> dict[str, Any]:
    """The settings of `--set`, which are a run's numbers and no other argument."""
    from wordtree.errors import unknown

    from .config import FIELDS, parse_settings

    options = parse_settings(pairs or [])
    for key in options:
        if key not in FIELDS:
            raise unknown("training option", key, sorted(FIELDS))
    return options


def _plan(data: str | None, recipe: str, options: dict[str, Any], rate: float | None, gpus: str) -> NoReturn:
    """What a run would be, as tables."""
    from rich.console import Console

    from .cost import at_scale
    from .plan import ABOUT, plan_of, tables

    if not all(one.strip().isdecimal() and int(one) for one in gpus.split(",") if gpus):
        raise WordTreeError(f"gpus {gpus!r}; give whole numbers with commas between, such as 1,8,64")
    console = Console(highlight=False)
    one = plan_of(data, recipe, options, rate)
    for table in tables(one):
        console.print(table)
    console.print(ABOUT)
    if gpus:
        console.print(at_scale(one, [int(number) for number in gpus.split(",")]))
    raise typer.Exit()


def _check(data: str, out: Path | None, recipe: str, options: dict[str, Any]) -> NoReturn:
    """Read a run.yaml's data whole; exit code 1 where something is wrong."""
    from .borrowed import OWN, borrowed_of
    from .data.check import check
    from .files import write_text
    from .hardware import processes_of
    from .reports import Progress
    from .runfile import run_of

    run = run_of(data, recipe)
    config = run.config(**options)
    if config.detector != OWN:
        borrowed_of(config, run.built_tree(run.labels()))
    folder = out or Path("runs") / f"{run.path.stem}-check"
    with Progress() as bar:
        report = check(
            run, folder, processes_of(-1), lambda name, total: bar.start(f"reading {name}", total),
            lambda done: bar.advance(steps=done),
        )  # fmt: skip
    write_text(folder / "check.json", json.dumps(report.to_record(), indent=1) + "\n")
    typer.echo(str(report))
    raise typer.Exit(0 if report.sound else 1)


@app.command()
def shards(
    data: Annotated[Path, typer.Argument(help="A run.yaml.")],
    out: Annotated[Path, typer.Argument(help="The folder of the shards; each source has its own in it.")],
    per_shard: Annotated[int, typer.Option(help="Pictures a shard.")] = 1000,
) -> None:
    """Write every source of a run.yaml as WebDataset shards, which `kind: shards` reads."""
    from .data.shards import write_shards
    from .reports import Progress
    from .runfile import run_of

    run = run_of(data)
    maps = run.labels()
    tree = run.built_tree(maps)
    with Progress() as bar:
        for source, labels in zip(run.sources, maps, strict=True):
            records = source.read(labels, tree).raise_faults(source.skip)
            bar.start(f"writing {source.name}", total=len(records))
            written = write_shards(records, out / source.name, per_shard, lambda done: bar.advance(steps=done))
            typer.echo(f"{source.name}: {len(records)} images in {len(written)} shards, {out / source.name}")


@app.command()
def combine(
    imagenet: Annotated[Path, typer.Option(help="Folders by WNID, a folder of tars, or the one tar of tars.")],
    coco: Annotated[Path, typer.Option(help="COCO's instances.json.")],
    out: Annotated[Path, typer.Option(help="The folder to make: run.yaml, tree, label maps, Darknet's files.")],
    det: Annotated[
        Path | None, typer.Option(help="ImageNet DET's XML, such as Annotations/DET/val; what is tested on.")
    ] = None,
    top: Annotated[int, typer.Option(help="ImageNet's classes with the most pictures, so many.")] = 9000,
    coco_images: Annotated[Path | None, typer.Option(help="COCO's images, where they lie elsewhere.")] = None,
    det_images: Annotated[Path | None, typer.Option(help="DET's images, where they lie elsewhere.")] = None,
    rules: Annotated[str, typer.Option(help="Of the tree: paper or darknet.")] = "paper",
    darknet: Annotated[bool, typer.Option(help="Also Darknet's .data, .tree, .map, list and label files.")] = True,
) -> None:
    """The paper's combined set: ImageNet's top classes, COCO, ImageNet DET -> label maps, tree and run.yaml."""
    from .combine import combine as run_combine
    from .reports import Progress

    with Progress() as bar:
        made = run_combine(
            imagenet, coco, out, det, top, coco_images, det_images, rules, darknet,
            lambda what, total: bar.start(what, total), lambda done: bar.advance(steps=done),
        )  # fmt: skip
    typer.echo(str(made))


@app.command()
def bounds(
    out: Annotated[Path, typer.Option(help="The folder of the three runs.")] = Path("runs"),
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting for all three, such as steps=2000.")
    ] = None,
) -> None:
    """Joint training beside the two runs that bound it: detection data alone, and every box given."""
    options = _settings(settings)
    for key in ("joint", "oracle"):
        if key in options:
            raise WordTreeError(f"{key}={options[key]!r} for all three runs, which differ in it; leave it out")
    kinds: dict[str, dict[str, Any]] = {
        "boxes": {},
        "joint": {"joint": True},
        "oracle": {"joint": True, "oracle": True},
    }
    with _stopping():
        from .reports import metrics_table
        from .training import train as run_training

        runs = {name: run_training(out=out / name, **kind, **options) for name, kind in kinds.items()}
    typer.echo(metrics_table(*(run.metrics for run in runs.values()), names=list(runs)))


@app.command()
def detect(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Pictures, folders, patterns in quotes, videos, or a camera's number, 0 the first.",
        ),
    ],
    weights: Weights = None,
    cfg: Cfg = None,
    tree: Tree = None,
    names: Names = None,
    mode: Annotated[str, typer.Option(help="paper, darknet or darknet-2018.")] = "paper",
    threshold: Annotated[float | None, typer.Option(help="On the score; the mode's own where left out.")] = None,
    tree_threshold: Annotated[
        float | None, typer.Option(help="How sure each step down the tree must be; the mode's own where left out.")
    ] = None,
    level: Annotated[int | None, typer.Option(help="Name nothing deeper; 0 for the root's children.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Boxes of this node and all below, no others; any number. " + LISTED)
    ] = None,
    collapse: Annotated[
        list[str] | None, typer.Option(help="A node to sum up in, as a poodle in dog; any number. " + LISTED)
    ] = None,
    allowed: Annotated[list[str] | None, typer.Option(help="A node that may be named; any number. " + LISTED)] = None,
    look: Look = None,
    look_weights: LookWeights = "DEFAULT",
    batch: Annotated[int, typer.Option(help="Images in one pass of the network.")] = 1,
    out: Annotated[Path | None, typer.Option(help="A folder for the pictures and clips with boxes.")] = None,
    crops: Annotated[Path | None, typer.Option(help="A folder for what lies in each box.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON record an image or frame, a line each.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Box and name what is in pictures, videos or before a camera. Ctrl-C ends it; what was written stays."""
    from .detector import Detector
    from .inference import fuse
    from .loading import load_detector
    from .outputs import Outputs
    from .prediction import about, stream
    from .reports import Progress
    from .second import looking_again
    from .sources import count_of, items_of

    faults: list[WordTreeError] = []

    def keep(fault: WordTreeError) -> None:
        faults.append(fault)
        typer.echo(_one_line(fault), err=True)

    terminal = sys.stderr.isatty()
    items = items_of(list(sources))
    model: Any = load_detector(weights, cfg, tree, names, mode)
    model = fuse(model) if isinstance(model, Detector) else model  # a plug-in's is used as it is
    if weights is None:
        typer.echo(f"shipped checkpoint: {about()}", err=True)
    model = looking_again(model, look, look_weights)
    results = stream(
        items,
        model,
        threshold,
        tree_threshold,
        device,
        batch,
        level=level,
        only=_listed(only),
        collapse=_listed(collapse),
        allowed=_listed(allowed),
        on_error=keep,
    )
    shown, began, stopped = 0, time.perf_counter(), False
    try:
        with Progress(terminal) as bar, Outputs(out, crops, (item.name for item in items)) as outputs:
            bar.start("detecting", count_of(items) if terminal else None)
            for found in results:
                typer.echo(found.to_json() if as_json else str(found))
                written = outputs.add(found)
                if written is not None:
                    typer.echo(f"  -> {written}", err=True)
                shown += 1
                bar.advance()
    except KeyboardInterrupt:
        stopped = True
    seconds = time.perf_counter() - began
    if shown:
        typer.echo(f"{shown} frames in {seconds:.1f} s: {shown / seconds:.1f} frames a second", err=True)
    if stopped:
        typer.echo("stopped; what was written stays", err=True)
        raise typer.Exit(130)
    if faults:
        raise typer.Exit(2)


@app.command()
def evaluate(
    weights: Weights = None,
    data: Annotated[str, typer.Option(help="embedded, the set that ships, or a run.yaml.")] = "embedded",
    scenes: Annotated[int, typer.Option(help="Of the embedded set: test scenes a column.")] = 300,
    sizes: Annotated[str, typer.Option(help="Pixels of the input, one after the other, such as 288,352,416.")] = "",
    out: Annotated[Path, typer.Option(help="The folder of figures, result files and plots.")] = Path("runs/evaluation"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    threshold: Annotated[
        float | None, typer.Option(help="On the score, of the confusion; the model's own where left out.")
    ] = None,
    tree_threshold: Annotated[
        float | None, typer.Option(help="Of each step down the tree; the model's own where left out.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Also draw what is found in twelve unseen scenes.")] = None,
    look: Look = None,
    look_weights: LookWeights = "DEFAULT",
    cfg: Cfg = None,
    tree: Tree = None,
    names: Names = None,
    mode: Annotated[str, typer.Option(help="paper, darknet or darknet-2018.")] = "paper",
    device: Device = "auto",
) -> None:
    """Score weights on the embedded set or on the test sources of a run.yaml: figures, plots, files for servers."""
    from .evaluation import evaluate_report

    if not all(size.strip().isdecimal() for size in sizes.split(",") if sizes):
        raise WordTreeError(f"sizes {sizes!r}; give pixels with commas between, such as 288,352,416")
    report = evaluate_report(
        weights, data, scenes, device, sizes=[int(size) for size in sizes.split(",") if size], out=out, cfg=cfg,
        tree=tree, names=names, mode=mode, threshold=threshold, tree_threshold=tree_threshold,
        look=look, look_weights=look_weights, picture=picture,
    )  # fmt: skip
    if as_json:
        figures = {name: None if math.isnan(value) else value for name, value in report.metrics.items()}  # no NaN
        typer.echo(json.dumps(figures, indent=1))
    else:
        typer.echo("\n\n".join((report.table.rstrip(), *report.notes)))
        typer.echo(f"files: {out}")


@app.command()
def anchors(
    data: Annotated[
        str,
        typer.Option(
            help="embedded; a run.yaml; COCO's .json; a data .yaml; Open Images' .csv; a folder of .xml or of .txt; a "
            "Darknet list."
        ),
    ] = "embedded",
    k: Annotated[str, typer.Option("-k", "--k", help="How many priors, or a range such as 1-15.")] = "",
    size: Annotated[int | None, typer.Option(help="Pixels of the network's input; the run's, 160 or 416.")] = None,
    stride: Annotated[int | None, typer.Option(help="Pixels a cell; the run's, 16 or 32.")] = None,
    distance: Annotated[str, typer.Option(help="iou, as the paper, or squared, the Euclidean k-means.")] = "iou",
    curve: Annotated[bool, typer.Option("--curve", help="k from 1 to 15: a table, a CSV and a plot.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="The paper's Table 1: by squared error, by IoU, hand-picked.")
    ] = False,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Hand-picked priors: faster-rcnn, voc-2017, coco-2017, ..., a cfg, a text; any number."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of the CSV and the plot.")] = Path("runs/anchors"),
    seed: Annotated[int, typer.Option(help="Of the starts of k-means.")] = 0,
) -> None:
    """Dimension clusters of a data set's boxes, in cells and in pixels; their curve; against hand-picked priors."""
    from .anchors import run_anchors

    for line in run_anchors(data, k, size, stride, distance, curve, compare, tuple(against or ()), out, seed):
        typer.echo(line)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Darknet's .weights, our .safetensors, or a run's folder.")],
    out: Annotated[Path, typer.Argument(help="The file to write: .safetensors, .weights, or a part, net.conv.23.")],
    cfg: Cfg = None,
    tree: Tree = None,
    names: Names = None,
    upto: Annotated[int | None, typer.Option(help="Only the first layers, as Darknet's partial does.")] = None,
    start: Annotated[
        bool, typer.Option("--start", help="The source is a tree classifier: the detector of --cfg starts from it.")
    ] = False,
) -> None:
    """Darknet's weights to ours and back, a part of them, or a detector's start."""
    from .convert import convert as run_convert

    for path in run_convert(source, out, cfg, tree, names, upto, start):
        typer.echo(f"{path}  {path.stat().st_size:,} bytes")


@app.command()
def info(
    weights: Weights = None,
    cfg: Cfg = None,
    tree: Tree = None,
    names: Names = None,
    size: Annotated[int | None, typer.Option(help="Pixels of the input that the table is for.")] = None,
) -> None:
    """What weights are: their tree, their network layer by layer, what they know and cannot know. Or a cfg alone."""
    import torch

    from .borrowed import Borrowed
    from .loading import is_darknet, load, weights_path
    from .models import Network, from_cfg
    from .prediction import about
    from .tables import summary
    from .weights import read_header

    path = weights_path(weights)
    if weights is None and cfg is not None:
        with torch.device("meta"):  # no numbers, for the table alone
            model: Network = from_cfg(cfg, None if tree is None else WordTree.load(tree), names)
    else:
        model = load(weights, cfg, tree, names)
        if cfg is not None or is_darknet(path):
            header = read_header(path)
            version = f"{header.major}.{header.minor}.{header.revision}"
            typer.echo(f"Darknet's, version {version}, {header.seen:,} images seen, {path.stat().st_size:,} bytes")
        else:
            typer.echo(about(weights))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    typer.echo(f"tree: {model.tree}, hash {model.tree.hash[:12]}")
    network = f"network: {parameters:,} parameters, input {model.size} x {model.size}"
    if isinstance(model, Borrowed):
        typer.echo(f"{network}, {model.name}\n{model.inner}")
        return
    typer.echo(f"{network}, stride {model.trunk.stride}")
    typer.echo(str(summary(model, size)))


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="The file: .onnx, or .pt2 of torch.export.")],
    weights: Weights = None,
    cfg: Cfg = None,
    tree: Tree = None,
    names: Names = None,
    mode: Annotated[str, typer.Option(help="paper, darknet or darknet-2018.")] = "paper",
    form: Annotated[
        str, typer.Option(help="gated: detections, nothing left to do; dense: all nodes of all boxes.")
    ] = "gated",
    candidates: Annotated[int, typer.Option(help="Boxes an image that the gated form looks at.")] = 300,
    size: Annotated[int | None, typer.Option(help="Pixels of the square input; the model's own.")] = None,
    threshold: Annotated[float | None, typer.Option(help="On the score; the model's own.")] = None,
    tree_threshold: Annotated[float | None, typer.Option(help="Of each step down the tree; the model's own.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store weights as float16: half the file. ONNX only.")] = False,
) -> None:
    """Write a detector as a file that other programs run, its tree inside."""
    from .choice import check_thresholds
    from .export import export_model
    from .loading import load_detector

    check_thresholds(threshold=threshold, tree_threshold=tree_threshold)
    model = load_detector(weights, cfg, tree, names, mode)
    model.threshold = model.threshold if threshold is None else threshold
    model.tree_threshold = model.tree_threshold if tree_threshold is None else tree_threshold
    typer.echo(f"exporting {form} form, {len(model.tree)} nodes ...", err=True)
    path = export_model(model, out, form, candidates, size, half)
    typer.echo(f"{path}  {path.stat().st_size / 2**20:.1f} MiB, {form} form")


@app.command()
def benchmark(
    weights: Weights = None,
    cfg: Cfg = None,
    mode: Annotated[str, typer.Option(help="paper, darknet or darknet-2018.")] = "paper",
    source: Annotated[Path | None, typer.Option(help="An image; a scene of the embedded set where left out.")] = None,
    size: Annotated[int | None, typer.Option(help="Pixels of the square input; the model's own.")] = None,
    batch: Annotated[int, typer.Option(help="Images at once.")] = 1,
    rounds: Annotated[int, typer.Option(help="Rounds; the median counts.")] = 20,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    compile: Annotated[bool, typer.Option("--compile", help="Compile the network first.")] = False,
    device: Device = "auto",
) -> None:
    """How many images a second, whole and by stages, on this machine."""
    from .timing import machine, peak_bytes, prepare, stages

    model, images = prepare(weights, cfg, mode, source, size, batch, precision, compile, device)
    where = images[0].device
    typer.echo(machine(where))
    numbers = sum(p.numel() for p in model.parameters())
    typer.echo(f"{numbers:,} parameters, {len(model.tree)} nodes, {precision}, input {model.size}, batch {batch}")
    found = sum(len(one["labels"]) for one in model(images))
    typer.echo(f"boxes found an image: {found / batch:.1f}")
    typer.echo(f"measuring {rounds} rounds ...", err=True)
    for line in stages(model, images, rounds):
        typer.echo(f"{line.name:28} {line.seconds * 1e3:9.2f} ms {line.images:10.1f} images/s")
    typer.echo(f"peak memory above the weights: {peak_bytes(lambda: model(images), where) / 2**20:.0f} MiB")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    """Say where a stopped training stands, and how it goes on; exit code 130 after Ctrl-C, 143 after SIGTERM."""
    from .hardware import is_first
    from .stops import Stopped, stopping

    try:
        with stopping():
            yield
    except Stopped as stop:
        if is_first():  # of several ranks one speaks
            typer.echo(f"{stop}:\n  {shlex.join(['yolo9000', *sys.argv[1:]])}", err=True)
        raise typer.Exit(128 + stop.number) from None


def _listed(words: list[str] | None) -> list[str] | None:
    """Nodes of an option, those of `@FILE` from the file; None where the option was not given."""
    if not words:
        return None
    lists = [Path(word[1:]).read_text().splitlines() if word.startswith("@") else [word] for word in words]
    return [line.strip() for lines in lists for line in lines if line.strip()]


def _one_line(message: object) -> str:
    return f"error: {' '.join(str(message).split())}"


def main() -> None:
    """Run the command; an error is one line on stderr and exit code 2, or 1 where a training met a NaN."""
    code = 2
    try:
        sys.exit(app(standalone_mode=False))
    except UsageError as error:  # an unknown command or option, a value of the wrong type
        message = error.format_message()  # type: ignore[attr-defined]
    except (WordTreeError, OSError) as error:
        message, code = str(error), getattr(error, "exit_code", 2)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    print(_one_line(message), file=sys.stderr)
    sys.exit(code)
