"""Recipes by name: what a published network was trained with, each a short file beside this one with its source.

A recipe is the settings of a run without its data. A run.yaml names one (`recipe: yolov2-voc`), or the command line
does; what the run.yaml says wins over the recipe, and options win over both. `without` switches off a step from YOLO to
YOLOv2 (the paper's Table 2), by name.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from wordtree import WordTree, WordTreeError, build_tree, label_maps
from wordtree.errors import unknown

from .config import FIELDS, Config, config_of
from .official import official_maps, official_tree

FOLDER = files(__package__) / "recipes"


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes:
        name: of its file.
        title: what it trains.
        source: the section of the paper, or the cfg and the release.
        figure: what was published of it.
        unsaid: what the source does not say, and where it comes from here.
        data: what it was trained on.
        labels: the label maps of that data, for a plan without data.
        boxed, labelled: images with boxes and with a name of that data; 0 where nobody says.
        ratio: boxed : labelled images of a batch.
        begins: the recipe whose weights it starts from.
        tree: as a run.yaml's; `augment` likewise.
        settings: fields of `Config`.
    """

    name: str
    title: str
    source: str
    figure: str
    unsaid: tuple[str, ...]
    data: str
    settings: dict[str, Any]
    labels: tuple[str, ...] = ()
    boxed: int = 0
    labelled: int = 0
    ratio: tuple[float, ...] = ()
    begins: str = ""
    tree: tuple[str, ...] = ()
    augment: str = "paper"

    def config(self, without: Iterable[str] = (), **options: Any) -> Config:
        """The numbers of a run by this recipe; options win.

        Example:
            >>> recipe("yolov2-voc-2017").config(batch=32).steps_at
            (40000, 60000)
        """
        return config_of(switched({**self.settings, **options}, without))

    def built_tree(self) -> WordTree:
        """The tree of a run on the recipe's own data."""
        maps = [official_maps()[name] if name in official_maps() else label_maps()[name] for name in self.labels]
        if self.tree == ("official",):
            return official_tree()
        if self.tree == ("flat",):
            return flat_tree_of(maps)
        return build_tree(*maps)


def flat_tree_of(maps: Iterable[Any]) -> WordTree:
    """The classes of label maps without a hierarchy: each id once, in order."""
    names = {id_: label for one in maps for label, id_ in zip(one.labels, one.ids, strict=True)}
    return WordTree(tuple(names), [-1] * len(names), tuple(names.values()))


@cache
def recipes() -> tuple[str, ...]:
    """The names of all recipes.

    Example:
        >>> recipes()[:2]
        ('darknet19-imagenet-2016', 'darknet19-imagenet-2017')
    """
    return tuple(sorted(one.name.removesuffix(".yaml") for one in FOLDER.iterdir() if one.name.endswith(".yaml")))


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        WordTreeError: no such recipe, with the nearest one.

    Example:
        >>> recipe("darknet19-imagenet-224").figure
        'ImageNet validation top-1 72.9 %, top-5 91.2 % (section 3)'
    """
    import yaml

    if name not in recipes():
        raise unknown("recipe", name, recipes())
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    settings = {key: content.pop(key) for key in [*content] if key in FIELDS}
    for key in ("unsaid", "labels", "ratio"):
        content[key] = tuple(content.get(key, ()))
    tree = content.get("tree", ())
    content["tree"] = (tree,) if isinstance(tree, str) else tuple(tree)
    return Recipe(name, settings=settings, **content)


# ---------------------------------------------------------------------- the steps from YOLO to YOLOv2


def _size(settings: Mapping[str, Any]) -> dict[str, Any]:
    stride = 2 ** (len(_of(settings, "widths")) - 1) if _of(settings, "trunk") == "darknet19" else 32
    return {"size": max(stride, round(_of(settings, "size") * 13 / 17 / stride) * stride)}


def _of(settings: Mapping[str, Any], name: str) -> Any:
    return settings.get(name, FIELDS[name].default)


HIGH_CLASSIFIER = "high-resolution-classifier"
Switch = Callable[[Mapping[str, Any]], dict[str, Any]]
# In the order of the paper's Table 2, and undone from its end: what each sets in a run's numbers.
ABLATIONS: dict[str, Switch] = {
    "batch-norm": lambda settings: {"normalized": False},
    HIGH_CLASSIFIER: lambda settings: {"classifier_sizes": [min(_of(settings, "classifier_sizes"))]},
    "anchors": lambda settings: {"location": "image", "anchors": 2, "priors": ""},
    "new-network": lambda settings: {"trunk": "extraction"},
    "dimension-priors": lambda settings: {"priors": "hand-picked"},
    "location-prediction": lambda settings: {"location": "offset"},
    "passthrough": lambda settings: {"passthrough": False},
    "multi-scale": lambda settings: {"sizes": [_of(settings, "size")]},
    "high-resolution-detector": _size,
}

CLASSIFIERS = {"batch-norm", HIGH_CLASSIFIER, "new-network"}  # those that a classifier has too


def switched(settings: Mapping[str, Any], without: Iterable[str]) -> dict[str, Any]:
    """Settings with steps from YOLO to YOLOv2 switched off.

    Raises:
        WordTreeError: an unknown step, one that is none of this network's, or two that exclude each other.

    Example:
        >>> switched({"network": "yolov2", "size": 544}, ["passthrough", "high-resolution-detector"])["size"]
        416
    """
    asked = (without,) if isinstance(without, str) else tuple(without)
    for name in asked:
        if name not in ABLATIONS:
            raise unknown("step to go without", name, ABLATIONS)
    changed = dict(settings)
    if "anchors" in asked and (other := {"dimension-priors", "location-prediction"} & {*asked}):
        raise WordTreeError(f"without anchors and {', '.join(sorted(other))}; without anchors there are none of these")
    if not _of(settings, "steps") and (other := {*asked} - CLASSIFIERS):
        raise WordTreeError(
            f"without {', '.join(sorted(other))} in a run of a classifier, which has none; leave it out"
        )
    if "passthrough" in asked and _of(settings, "network") != "yolov2":
        raise WordTreeError("without passthrough: this network has none; leave it out, or give network: yolov2")
    for name in reversed(ABLATIONS):
        if name not in asked:
            continue
        change = ABLATIONS[name](changed)
        if name == HIGH_CLASSIFIER and not _of(settings, "classifier_steps"):
            continue  # it is the start that is another; a run looks at it
        if all(_same(_of(changed, key), value) for key, value in change.items()):
            raise WordTreeError(f"without {name} changes nothing here ({_words(change)}); leave it out")
        changed |= change
    return {**changed, "without": list(asked)} if asked else changed


def _same(one: Any, other: Any) -> bool:
    return bool((list(one) if isinstance(one, tuple) else one) == other)


def _words(change: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value!r}" for key, value in change.items())
