"""One flat config a run: every number of the training in one place, by keyword; unknown keys are refused."""

import dataclasses
import json
import math
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

from wordtree import WordTreeError
from wordtree.errors import unknown

from .lossrules import IMAGE_LABELS

POLICIES = ("one-cycle", "constant", "steps", "poly")
OPTIMIZERS = ("adamw", "sgd")
TRUNKS = ("darknet19", "extraction")
STRIDES = (32, 16, 8)  # of trunks by name
WEIGHT_OPTIONS = ("weights", "trunk_weights")  # of a plug-in's detector
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Config:
    """The demo's run: what `yolo9000 train --joint` does with no other argument.

    Attributes:
        detector: whose network it is: "yolo9000", or a plug-in's by its name, as `wordtree plugins` lists them; one
            without an `image_trunk` starts with boxes and names at once.
        detector_options: of a plug-in's detector, what its builder takes by name: text, numbers, true or false, and
            lists of them. A file of `weights` or `trunk_weights` (.safetensors, or a state dict that torch saved) is
            read for it.
        joint: learn from image labels beside the boxes; False is detection data only.
        oracle: the same pictures with every box given: what joint training is measured against.
        seed: of weights, order and pictures, from 0 to below 2^32.
        classifier_pictures, boxed_pictures, labelled_pictures: how many pictures of each kind are made.
        classifier_steps, classifier_batch, classifier_sizes, classifier_rate: the trunk first learns names, as a tree
            classifier on small pictures (the paper's pretraining); sizes take turns every 10 steps.
        start: weights to begin from, a file or a run's folder, see `yolo9000.start`; "" for random ones.
        start_hash: the SHA-256 of that file, which the run fills in: an unfinished run goes on from the same alone.
        steps, batch, shares, size, sizes, rate: then boxes and names together; no steps leave a classifier, and no
            detector; shares are boxed : labelled pictures of
            a batch (the paper has 1 : 4); `size` is that of the pictures and of detection, `sizes` take turns every 10
            steps (the paper's multi-scale training). Ours take multiples of their stride up to 640, a plug-in's what it
            was made for, with pictures of the embedded set up to 640.
        policy, classifier_policy: how the rate goes over the phase's steps, one of `schedule.POLICIES`: "one-cycle" (up
            in a line, down in a half cosine), or Darknet's "constant", "steps" and "poly".
        burn_in, power: of Darknet's policies, in either phase: the rate grows as (update / burn_in) ^ power while the
            update is below `burn_in`; "poly" falls as (1 - update / steps) ^ power.
        steps_at, scales: of "steps", in either phase: from update steps_at[i] on the rate is times scales[i].
        optimizer: "adamw", or "sgd" as Darknet's.
        accumulate: in how many equal parts a batch is computed, one after another, of each rank's share (Darknet's
            subdivisions); batch-norm's statistics are each part's own.
        decay, momentum: of the optimiser; decay on convolution and classifier weights only.
        sparse_head: a step of SGD touches only the rows of the classifier that it reads, the others catch up when they
            are read, see `sparse`: for vocabularies of tens of thousands of nodes.
        clip: the largest norm of a gradient, 0 for any.
        image_label: which box takes an image label: "score", the paper's, "area", "objectness" or "darknet", see
            `lossrules.with_image_label`; where left out as `loss` has it.
        exclusive: a label denies its siblings, those that its source does not know too, as a dog is no cat; False, for
            labels that overlap, leaves them out of the softmax.
        average: of the weights' running mean, which is what is saved.
        network: "yolo9000", a head right on the trunk, or "yolov2", with three convolutions and a
            passthrough before it.
        widths, counts: of its trunk's stages.
        anchors, priors: how many dimension clusters of the training boxes; or priors in their place: a name of
            `priors.ANCHORS`, or numbers in cells with commas between, as a cfg has them.
        trunk, squeeze, passthrough, normalized, location: see `models.yolov2`.
        trunk_weights: of a trunk by name: a file, or "DEFAULT" for its package's own, see `trunks.load_trunk`.
        trunk_frozen: of a trunk by name: its weights and batch-norm statistics stay as they are.
        loss: the reading of the loss: "paper", "darknet" or "darknet-2018".
        without: what a recipe's run was switched off, see `yolo9000.recipes.ABLATIONS`; the fields above say how.
        precision: "float32", "bfloat16", or "auto": bfloat16 where the GPU or the processor computes in it; on a
            processor float32 for a plug-in's detector.
        compile: whether torch.compile makes trunk and neck faster, after a minute or more at the start.
        device: "cpu", "cuda", or "auto".
        workers: processes that make pictures, 0 for none; -1 for one a core.
        test_scenes: a column of the final table.
        held_out: a training family to leave out and test on, for choosing settings without the test family.
        checkpoint_every: steps between checkpoints.
        nonfinite: what a step with a NaN or an infinity does: "stop" ends the run, "skip" leaves that update out; see
            `faults`.
        tensorboard: whether the numbers of metrics.csv go to `tensorboard/` in the run's folder too.
    """

    detector: str = "yolo9000"
    detector_options: dict[str, Any] = field(default_factory=dict)
    joint: bool = True
    oracle: bool = False
    seed: int = 0
    classifier_pictures: int = 12000
    boxed_pictures: int = 3000
    labelled_pictures: int = 6000
    classifier_steps: int = 1500
    classifier_batch: int = 64
    classifier_sizes: tuple[int, ...] = (64,)
    classifier_rate: float = 3e-3
    start: str = ""
    start_hash: str = ""
    steps: int = 1000
    batch: int = 32
    shares: tuple[float, ...] = (1.0, 2.0)
    size: int = 160
    sizes: tuple[int, ...] = (128, 160, 192)
    rate: float = 1e-3
    accumulate: int = 1
    policy: str = "one-cycle"
    classifier_policy: str = "one-cycle"
    burn_in: int = 0
    power: float = 4.0
    steps_at: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()
    optimizer: str = "adamw"
    decay: float = 5e-3
    momentum: float = 0.9
    sparse_head: bool = False
    clip: float = 20.0
    average: float = 0.998
    image_label: str = ""
    exclusive: bool = True
    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    counts: tuple[int, ...] = (1, 1, 3, 3, 5)
    network: str = "yolo9000"
    trunk: str = "darknet19"
    trunk_weights: str = ""
    trunk_frozen: bool = False
    squeeze: int = 64
    passthrough: bool = True
    normalized: bool = True
    location: str = "direct"
    anchors: int = 3
    priors: str = ""
    loss: str = "paper"
    without: tuple[str, ...] = ()
    precision: str = "auto"
    compile: bool = False
    device: str = "auto"
    workers: int = -1
    test_scenes: int = 300
    checkpoint_every: int = 200
    held_out: str = ""
    nonfinite: str = "stop"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.oracle and not self.joint:
            raise WordTreeError("an oracle without joint training; the oracle is the joint run with every box given")
        if self.sparse_head and self.optimizer != "sgd":
            raise WordTreeError(
                f"sparse_head with optimizer {self.optimizer}, which changes every row by a rule of its own; "
                "give optimizer sgd"
            )
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise WordTreeError(f"{name} of {getattr(self, name)}; give 1 or more")
        for name in ("rate", "classifier_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise WordTreeError(f"{name} of {getattr(self, name)}; give a number above 0")
        for name in ("momentum", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise WordTreeError(f"{name} of {getattr(self, name)}; give a number from 0 to below 1")
        for name in ("decay", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise WordTreeError(f"{name} of {getattr(self, name)}; give a number, 0 or more")
        for name in ("widths", "counts", "sizes", "classifier_sizes"):
            values = getattr(self, name)
            if not values or not all(type(value) is int and value > 0 for value in values):
                raise WordTreeError(f"{name} of {values}; give whole numbers above 0, such as {FIELDS[name].default}")
        if len(self.widths) != len(self.counts) or not all(count % 2 for count in self.counts):
            raise WordTreeError(f"widths {self.widths} and counts {self.counts}; give one odd count a width")
        if not 0 <= self.seed < 2**32:
            raise WordTreeError(f"seed of {self.seed}; give a whole number from 0 to below 2^32")
        for name in ("steps", "classifier_steps", "squeeze"):
            if getattr(self, name) < 0:
                raise WordTreeError(f"{name} of {getattr(self, name)}; give 0 or more")
        if not self.steps and (not self.classifier_steps or self.detector != "yolo9000"):
            raise WordTreeError(
                f"steps of 0, and {self.classifier_steps} classifier_steps of {self.detector!r}; give steps, or "
                "classifier_steps for a classifier of ours"
            )
        if self.start and self.detector != "yolo9000":
            raise WordTreeError(f"start {self.start!r} for {self.detector!r}, a plug-in's; leave it out")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        check_policy(self)
        check_trunk(self)
        check_options(self)
        stride = self.stride
        own = self.detector == "yolo9000"  # a plug-in's takes what it takes
        for side in (self.size, *self.sizes, *self.classifier_sizes) if own else ():
            if side < stride or side % stride or side > LARGEST:
                raise WordTreeError(
                    f"a size of {side} pixels; this trunk takes multiples of {stride}, pictures go up to {LARGEST}"
                )
        numbers = all(type(share) in (int, float) and 0 < share < math.inf for share in self.shares)
        if len(self.shares) != 2 or not numbers:
            raise WordTreeError(f"shares {self.shares}; give two above 0, boxed : labelled, such as (1, 4)")

    @property
    def stride(self) -> int:
        """Pixels a cell: of a trunk by name what follows its @, else the largest that all sizes are multiples of."""
        if "/" not in self.trunk:
            return 32 if self.trunk == "extraction" else int(2 ** (len(self.widths) - 1))
        _, at, asked = self.trunk.partition("@")
        sides = (self.size, *self.sizes, *self.classifier_sizes)
        return int(asked) if at else next((one for one in STRIDES if not any(side % one for side in sides)), 32)

    @property
    def whole_trunk(self) -> str:
        """The trunk, one by name with its stride."""
        return f"{self.trunk.partition('@')[0]}@{self.stride}" if "/" in self.trunk else self.trunk


FIELDS = {field.name: field for field in dataclasses.fields(Config)}
LARGEST = 640  # pixels of a side
COUNTS = (
    "batch", "classifier_batch", "size", "anchors", "test_scenes", "checkpoint_every",
    "classifier_pictures", "boxed_pictures", "labelled_pictures",
)  # fmt: skip
CHOICES = {
    "precision": ("auto", "float32", "bfloat16"),
    "policy": POLICIES,
    "classifier_policy": POLICIES,
    "optimizer": OPTIMIZERS,
    "network": ("yolo9000", "yolov2"),
    "location": ("direct", "offset", "image"),
    "loss": ("paper", "darknet", "darknet-2018"),
    "image_label": ("", *IMAGE_LABELS),
    "nonfinite": ("stop", "skip"),
}


def check_trunk(config: Config) -> None:
    """Refuse a trunk that none can be, and settings of one by name for another."""
    name, at, asked = config.trunk.partition("@")
    if "/" not in name and config.trunk not in TRUNKS:
        raise unknown("trunk", config.trunk, (*TRUNKS, "torchvision/mobilenet_v3_small", "timm/efficientnet_lite0"))
    if at and asked not in map(str, STRIDES):
        raise WordTreeError(f"trunk {config.trunk!r}; give a stride of {STRIDES} after the @, or none")
    if "/" in name and config.detector != "yolo9000":
        raise WordTreeError(
            f"trunk {config.trunk!r} for {config.detector!r}, a plug-in's, which has its own; leave it out"
        )
    if "/" not in name and (config.trunk_weights or config.trunk_frozen):
        raise WordTreeError(
            f"trunk_weights or trunk_frozen for {config.trunk!r}; give a trunk by name too, or weights to start from"
        )


def check_options(config: Config) -> None:
    """Refuse options of a plug-in's detector where there is none, and those that no file could say."""
    given = config.detector_options
    if given and config.detector == "yolo9000":
        raise WordTreeError(f"detector_options {given} for 'yolo9000'; they are for a plug-in's detector: name it too")
    for name, value in given.items():
        if not isinstance(name, str) or not _is_plain(value):
            raise WordTreeError(
                f"{name}={value!r} of detector_options; give text, a number, true or false, or a list of them"
            )


def is_weight_file(option: str, value: Any) -> bool:
    """Whether an option of a plug-in's detector names a file of weights."""
    return option in WEIGHT_OPTIONS and isinstance(value, str) and value.endswith(WEIGHT_FILES)


def is_weight_path(option: str, value: Any) -> bool:
    """Whether an option of a plug-in's detector names weights by where they lie: a file, or a folder as `./mine`."""
    folder = option in WEIGHT_OPTIONS and isinstance(value, str) and value.startswith(("./", "../"))
    return folder or is_weight_file(option, value)


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, list) else isinstance(value, (str, int, float))


def check_policy(config: Config) -> None:
    """Refuse numbers of a policy that no phase has, or that cannot be."""
    used = {config.policy, config.classifier_policy}
    steps = bool(config.steps_at or config.scales)
    whole = all(type(step) is int for step in config.steps_at)
    if len(config.steps_at) != len(config.scales) or not whole or not all(0 < one < math.inf for one in config.scales):
        raise WordTreeError(
            f"steps_at {config.steps_at} and scales {config.scales}; give a factor above 0 for each update"
        )
    if steps != ("steps" in used):
        raise WordTreeError(f"policy {config.policy} with steps_at {config.steps_at}; give both with policy=steps")
    if config.burn_in < 0 or (config.burn_in and used == {"one-cycle"}):
        raise WordTreeError(
            f"burn_in of {config.burn_in} with policy {config.policy}; give 0 or more to constant, steps or poly "
            "(one-cycle warms up by itself)"
        )
    if not 0 < config.power < math.inf:
        raise WordTreeError(f"power of {config.power}; give a number above 0, such as 4")


def config_of(options: dict[str, Any]) -> Config:
    """A config from keywords; tuples may be given as lists, and text as a path.

    Raises:
        WordTreeError: an unknown key, with the nearest known one; a value of another type.
    """
    ready: dict[str, Any] = {}
    for key, value in options.items():
        if key not in FIELDS:
            raise unknown("training option", key, sorted(FIELDS))
        default = FIELDS[key].default
        if default is MISSING:
            default = {"weights": "DEFAULT"}  # to show
            if isinstance(value, dict):
                value = {name: list(one) if isinstance(one, tuple) else one for name, one in value.items()}
        if isinstance(default, tuple) and isinstance(value, list | tuple):
            value = tuple(value)
        if isinstance(default, str) and isinstance(value, Path):
            value = str(value)
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(default):
            raise WordTreeError(f"{key} of {value!r}; give a {type(default).__name__}, such as {default!r}")
        ready[key] = value
    return Config(**ready)


def parse_settings(pairs: list[str], such: str = "steps=2000") -> dict[str, Any]:
    """`key=value` pairs; values as JSON, or as plain text where they are none."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise WordTreeError(f"setting {pair!r}; give key=value, such as {such}")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options
