"""run.yaml: the sources of a run, its tree, and every number of its training, in one flat file.

Keys at the top are `sources`, `recipe`, `tree`, `model`, `augment`, `bad_share`, and any field of
`yolo9000.config.Config`; what the file says wins over the recipe. Paths are relative to the file. Every key is checked
against the known ones before anything is read.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wordtree import LabelMap, WordTree, WordTreeError, build_tree, label_maps
from wordtree.errors import unknown

from .config import FIELDS, Config, config_of, is_weight_path
from .darknet19 import COUNTS, WIDTHS
from .data.augment import find_augmentation
from .data.coco import read_coco
from .data.folders import read_csv, read_folder, read_tars
from .data.openimages import read_openimages
from .data.records import FAULTS, Records
from .data.shards import read_shards
from .data.voc import read_imagenet_xml, read_voc
from .data.yolo import read_darknet, read_yolo
from .official import official_maps, official_tree
from .recipes import Recipe, flat_tree_of, switched
from .recipes import recipe as find_recipe
from .trunks import DEFAULT

MODELS: dict[str, dict[str, Any]] = {"small": {}, "yolo9000": {"widths": WIDTHS, "counts": COUNTS}}
USES = ("train", "test")
FLAGGED = ("ignored", "background")
MAP_FILES = (".csv", ".tsv", ".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Source:
    """One data set of a run, as run.yaml has it.

    Attributes:
        kind: which reader, see `KINDS`.
        path: its annotations, list, folder or shards.
        images: the folder of its images, where they do not lie beside.
        labels: a label map's name or file; the data set's own where it brings one.
        name: in messages and tables; the kind where left out.
        use: "train" or "test".
        split: of VOC, a list of ImageSets/Main; of a data YAML, one of its keys.
        knows: what it annotates exhaustively: "labels", "all", or a list of names or ids; see `known`.
        ratio: its share of the pictures drawn, as one of several numbers such as 1 and 4.
        share: its share of every batch, 0 to 1; the other sources divide what is left, by ratio.
        size: pixels that its pictures are made at, where that is not the batch's.
        limit: at most so many pictures, the first.
        skip: kinds of faults to leave out and list: labels, boxes, images, files.
        flagged: what boxes are that the source flags, a crowd, a difficult one, a group: "ignored", regions in which
            nothing is pushed down; or "background", left out as Darknet's lists leave out VOC's difficult ones.
        subset: the label map is meant to have a part of the data set's classes: the others are no faults.
        verified, classes: of Open Images, the CSVs of verified image labels and of class descriptions.
    """

    kind: str
    path: Path
    images: Path | None = None
    labels: str = ""
    name: str = ""
    use: str = "train"
    split: str = ""
    knows: str | tuple[str, ...] = ""
    ratio: float = 1.0
    share: float = 0.0
    size: int = 0
    limit: int = 0
    skip: tuple[str, ...] = ()
    flagged: str = "ignored"
    subset: bool = False
    verified: Path | None = None
    classes: Path | None = None

    def read(self, labels: LabelMap, tree: WordTree) -> Records:
        """The data set, faults and all."""
        records = KINDS[self.kind](self, labels, tree)
        if self.subset:
            wanted = tuple(fault for fault in records.faults if fault.kind != "labels")
            records = dataclasses.replace(records, faults=wanted)
        if self.flagged == "background":
            records = records.unflagged()
        return records.take(np.arange(self.limit)) if 0 < self.limit < len(records) else records

    def own_labels(self) -> LabelMap:
        """The label map: as named, or the data set's own.

        Raises:
            WordTreeError: no label map of that name, or a data set that brings none.
        """
        if self.labels:
            return _labels(self.labels, Path())
        if self.kind in ("coco", "lvis"):
            return LabelMap.read(self.path, self.name)
        if self.kind in ("folder", "tars") and self.path.is_dir():
            ids = sorted(one.stem for one in self.path.iterdir() if one.is_dir() or one.suffix == ".tar")
            if ids and all(_is_wnid(one) for one in ids):
                return LabelMap(self.name, tuple(ids), tuple(ids))
        raise WordTreeError(
            f"source {self.name!r} of kind {self.kind!r} has no labels; give `labels:`, a label map's name or file"
        )


def _is_wnid(text: str) -> bool:
    return len(text) == 9 and text[0] == "n" and text[1:].isdigit()


Reader = Callable[[Source, LabelMap, WordTree], Records]
KINDS: dict[str, Reader] = {
    "coco": lambda s, labels, tree: read_coco(s.path, s.images, labels, tree, s.name),
    "lvis": lambda s, labels, tree: read_coco(s.path, s.images, labels, tree, s.name),
    "voc": lambda s, labels, tree: read_voc(s.path, s.images, labels, tree, s.split, s.name),
    "imagenet-det": lambda s, labels, tree: read_imagenet_xml(s.path, s.images, labels, tree, s.name),
    "yolo": lambda s, labels, tree: read_yolo(s.path, labels, tree, s.split or "train", s.name),
    "openimages": lambda s, labels, tree: read_openimages(
        s.path, s.images, labels, tree, s.verified, s.classes, s.name
    ),
    "darknet": lambda s, labels, tree: read_darknet(s.path, labels, tree, name=s.name),
    "folder": lambda s, labels, tree: read_folder(s.path, labels, tree, s.name),
    "tars": lambda s, labels, tree: read_tars(s.path, labels, tree, s.name),
    "csv": lambda s, labels, tree: read_csv(s.path, s.images, labels, tree, s.name),
    "shards": lambda s, labels, tree: read_shards(s.path, labels, tree, s.name),
}
SOURCE_FIELDS = {field.name: field for field in dataclasses.fields(Source)}
EMBEDDED = (
    "joint", "oracle", "shares", "boxed_pictures", "labelled_pictures", "classifier_pictures", "test_scenes",
    "held_out",
)  # fmt: skip
RUN_KEYS = ("sources", "recipe", "tree", "model", "augment", "bad_share")
NAMED = ("folder", "tars", "csv")  # kinds with image labels alone; two may hold either


@dataclass(frozen=True)
class RunFile:
    """A run.yaml, read and checked; nothing of its data sets is read yet.

    Attributes:
        path: the file.
        sources: its data sets, in order.
        tree: label maps' names, or a tree file, "official", or "flat" for the sources' labels without a hierarchy; ()
            for the sources' own label maps.
        augment: the name of an augmentation, see `data.augment`.
        bad_share: the share of a source's pictures that may be damaged before a run stops.
        settings: fields of `Config` that the file gives, and its recipe.
        recipe: the recipe that they stand on, see `yolo9000.recipes`; "" for none.
    """

    path: Path
    sources: tuple[Source, ...]
    tree: tuple[str, ...]
    augment: str
    bad_share: float
    settings: dict[str, Any]
    recipe: str = ""

    def config(self, **options: Any) -> Config:
        """The numbers of the run; options win over the file's.

        Raises:
            WordTreeError: an unknown one, a value that cannot be, or one that is the embedded set's alone.
        """
        given = {**self.settings, **options}
        for key in ("start", "trunk_weights"):
            if given.get(key, DEFAULT) not in ("", DEFAULT) and key not in options:
                given[key] = str(self.path.parent / str(given[key]))
        own, over = self.settings.get("detector_options"), options.get("detector_options", {})
        if isinstance(own, dict) and isinstance(over, dict):  # of the detector that the file names; those given win
            mine = given.get("detector") == self.settings.get("detector")
            given["detector_options"] = {**(self._placed(own) if mine else {}), **over}
        for key in EMBEDDED:
            if key in given:
                raise WordTreeError(f"{key} in a run of {self.path}; it is the embedded set's, here the sources say it")
        return config_of({"joint": True, **switched(given, given.get("without", ()))})

    def _placed(self, options: dict[str, Any]) -> dict[str, Any]:
        """A detector's options, with files and folders of weights where they lie from here."""
        paths = {key: value for key, value in options.items() if is_weight_path(key, value)}
        return {**options, **{key: str(self.path.parent / value) for key, value in paths.items()}}

    def used(self, use: str) -> tuple[Source, ...]:
        """The sources of one use, "train" or "test"."""
        return tuple(source for source in self.sources if source.use == use)

    def labels(self) -> tuple[LabelMap, ...]:
        """The label map of each source."""
        return tuple(source.own_labels() for source in self.sources)

    def built_tree(self, labels: Sequence[LabelMap]) -> WordTree:
        """The tree that the file names, or that of the sources' label maps."""
        if not self.tree:
            return build_tree(*{one.ids: one for one in labels}.values())
        if self.tree == ("official",):
            return official_tree()
        if self.tree == ("flat",):
            return flat_tree_of(labels)
        files = [name for name in self.tree if Path(name).suffix in (".tree", ".json", ".tsv")]
        if files:
            if len(self.tree) > 1:
                raise WordTreeError(f"tree {', '.join(self.tree)}; give one tree file, or names of label maps")
            return WordTree.load(self.path.parent / files[0])
        return build_tree(*(_labels(name, self.path.parent) for name in self.tree))


def run_of(data: str | Path, recipe: str = "") -> RunFile:
    """The run.yaml that the argument `data` names, by a recipe where one is given.

    Raises:
        WordTreeError: neither that nor "embedded".
    """
    if Path(data).suffix not in (".yaml", ".yml"):
        raise WordTreeError(f"no data set {str(data)!r}; known: embedded, or a run.yaml")
    return read_run(data, recipe)


def read_run(path: str | Path, recipe: str = "") -> RunFile:
    """Read a run.yaml; `recipe` wins over the one that it names.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: no YAML, an unknown key with the nearest known one, or a value that cannot be.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no run file {str(path)!r}; give a .yaml with sources")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise WordTreeError(f"{path}: not YAML ({fault}); give `sources:` and settings") from None
    if not isinstance(content, dict) or not isinstance(content.get("sources"), list) or not content["sources"]:
        raise WordTreeError(f"{path}: no list of `sources`; give at least one with kind and path")
    for key in content:
        if key not in RUN_KEYS and key not in FIELDS:
            raise unknown(f"key of {path.name}", str(key), [*RUN_KEYS, *FIELDS])
    recipe = recipe or str(content.get("recipe") or "")
    base = find_recipe(recipe) if recipe else None
    model = str(content.get("model", "small"))
    if model not in MODELS:
        raise unknown("model", model, MODELS)
    tree = content.get("tree") or (base.tree if base else ())
    bad_share = _number(path, "bad_share", content.get("bad_share", 0.01), 0, 1)
    augment = str(content.get("augment", base.augment if base else "paper"))
    find_augmentation(augment)
    settings = (
        (base.settings if base else {})
        | MODELS[model]
        | {key: value for key, value in content.items() if key in FIELDS}
    )
    if base and base.ratio and not any("ratio" in one or "share" in one for one in map(_keys, content["sources"])):
        content["sources"] = _by_ratio(path, content["sources"], base)
    run = RunFile(
        path, _named([_source(path, one, number) for number, one in enumerate(content["sources"], 1)]),
        (tree,) if isinstance(tree, str) else tuple(map(str, tree)), augment, bad_share, settings, recipe,
    )  # fmt: skip
    run.config()
    return run


def _keys(given: Any) -> Any:
    return given if isinstance(given, dict) else {}


def _by_ratio(path: Path, given: list[Any], base: Recipe) -> list[Any]:
    """Training sources with the recipe's ratio of images with boxes to images with a name."""
    sides: list[list[int]] = [[], []]
    for number, one in enumerate(given):
        if _keys(one).get("use", "train") != "train":
            continue
        if _keys(one).get("kind") in ("shards", "darknet"):
            raise WordTreeError(
                f"{path}: source {number + 1} of kind {one['kind']!r} may hold boxes or names; recipe {base.name} has "
                f"{base.ratio[0]:g} : {base.ratio[1]:g} of them: give each source a ratio"
            )
        sides[_keys(one).get("kind") in NAMED].append(number)
    if not all(sides):
        return given
    ratio = {number: part / len(side) for part, side in zip(base.ratio, sides, strict=True) for number in side}
    return [{**one, "ratio": ratio[number]} if number in ratio else one for number, one in enumerate(given)]


def _source(path: Path, given: Any, number: int) -> Source:
    if not isinstance(given, dict):
        raise WordTreeError(f"{path}: source {number} is {given!r}; give keys such as kind and path")
    for key in given:
        if key not in SOURCE_FIELDS:
            raise unknown(f"key of source {number}", str(key), SOURCE_FIELDS)
    for key in ("kind", "path"):
        if key not in given:
            raise WordTreeError(f"{path}: source {number} has {', '.join(given)} and no {key!r}; give one")
    if given["kind"] not in KINDS:
        raise unknown(f"kind of source {number}", str(given["kind"]), KINDS)
    ready = {key: value for key, value in given.items() if value is not None}
    for key in ("path", "images", "verified", "classes"):
        if key in ready:
            ready[key] = path.parent / str(ready[key])
    for key in ("knows", "skip"):
        if isinstance(ready.get(key), list):
            ready[key] = tuple(map(str, ready[key]))
    if isinstance(ready.get("skip"), str):
        ready["skip"] = (ready["skip"],)
    for key in ("kind", "labels", "name", "use", "split"):
        if key in ready:
            ready[key] = str(ready[key])
    if Path(ready.get("labels", "")).suffix in MAP_FILES:
        ready["labels"] = str(path.parent / ready["labels"])
    for key, most in (("ratio", math.inf), ("share", 1.0), ("size", math.inf), ("limit", math.inf)):
        if key in ready:
            ready[key] = _number(
                path, f"{key} of source {number}", ready[key], 0, most, type(SOURCE_FIELDS[key].default)
            )
    for kind in ready.get("skip", ()):
        if kind not in FAULTS:
            raise unknown("kind of fault to skip", kind, FAULTS)
    if ready.get("flagged", "ignored") not in FLAGGED:
        raise unknown(f"way with flagged boxes of source {number}", str(ready["flagged"]), FLAGGED)
    if "flagged" in ready and ready.get("use") == "test":
        raise WordTreeError(f"{path}: flagged of source {number}, a test; flagged boxes count neither way there")
    if type(ready.get("subset", False)) is not bool:
        raise WordTreeError(f"{path}: subset of source {number} is {ready['subset']!r}; give true or false")
    if ready.get("use", "train") not in USES:
        raise unknown(f"use of source {number}", ready["use"], USES)
    if isinstance(ready.get("knows"), str) and ready["knows"] not in ("labels", "all"):
        raise WordTreeError(f"{path}: source {number} knows {ready['knows']!r}; give labels, all, or a list of names")
    if "ratio" in ready and "share" in ready:
        raise WordTreeError(f"{path}: source {number} has a ratio and a share; give one of them")
    return Source(**{"name": ready["kind"], **ready})


def _named(sources: list[Source]) -> tuple[Source, ...]:
    """Sources of one name told apart by their number."""
    names = [source.name for source in sources]
    return tuple(
        dataclasses.replace(source, name=f"{source.name}-{number}") if names.count(source.name) > 1 else source
        for number, source in enumerate(sources, 1)
    )


def _number(path: Path, what: str, value: Any, low: float, high: float, kind: type = float) -> Any:
    good = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if not good or not low <= value <= high or value == math.inf:
        most = "" if high == math.inf else f" to {high:g}"
        raise WordTreeError(f"{path}: {what} is {value!r}; give a number from {low:g}{most or ' up'}")
    return kind(value)


def _labels(name: str, folder: Path) -> LabelMap:
    """A label map by name, Darknet's two among them, or from a file."""
    if Path(name).suffix in MAP_FILES:
        return LabelMap.read(folder / name)
    return official_maps()[name] if name in official_maps() else label_maps()[name]


# ---------------------------------------------------------------------- what the sampler and the loss are told


def shares(sources: Sequence[Source]) -> list[Fraction]:
    """The part of each batch that each source gives: a `share` first, what is left by `ratio`.

    Raises:
        WordTreeError: shares above 1 together, or nothing left for those with a ratio.

    Example:
        >>> one, four = Source("coco", Path("a"), ratio=1), Source("folder", Path("b"), ratio=4)
        >>> [float(part) for part in shares([one, four, Source("csv", Path("c"), share=0.5)])]
        [0.1, 0.4, 0.5]
    """
    part, ratio = ([Fraction(str(one)) for one in some] for some in zip(*[(s.share, s.ratio) for s in sources]))
    fixed, rest = sum(part), sum(one for one, given in zip(ratio, part) if not given)
    if not all(one or given for one, given in zip(ratio, part)):
        raise WordTreeError("a source with ratio 0; leave it out, or give it a ratio above 0")
    if fixed > 1 or (fixed == 1) == (rest > 0):
        given = ", ".join(f"{source.name} {source.share or source.ratio:g}" for source in sources)
        raise WordTreeError(
            f"batch shares of {float(fixed):g} in all ({given}); shares come to 1, or leave some of it to ratios"
        )
    return [given or (1 - fixed) * one / rest for one, given in zip(ratio, part)]


def known(source: Source, labels: LabelMap, tree: WordTree) -> NDArray[np.bool_] | None:
    """bool [nodes]: what a source annotates exhaustively; None where that is everything.

    "labels" is the label map's labels and all above them, the default for boxes; a list of names or ids stands for
    itself and all above it. Of a label that has another below it all is known: COCO, which marks clocks and says which
    of them are parking meters, knows of each other clock that it is one.
    """
    if source.knows == "all":
        return None
    listed = isinstance(source.knows, tuple)
    nodes = [tree.find(name) for name in source.knows] if listed else labels.nodes_on(tree)
    own, above, parents = np.zeros(len(tree), dtype=bool), np.zeros(len(tree), dtype=bool), tree.parents
    own[nodes] = True
    for _ in range(int(tree.depths.max()) + 1):  # one level at a time, all nodes at once
        above[parents[(own | above) & (parents >= 0)]] = True
    whole = own & above  # labels with a label below them
    for _ in range(int(tree.depths.max())):
        whole |= whole[parents] & (parents >= 0)
    marks: NDArray[np.bool_] = own | above | whole
    return None if marks.all() else marks
