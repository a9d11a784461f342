"""The plug-in manager: our own tables come in by it; a broken plug-in is named and the rest work."""

import subprocess
import sys
import types
import warnings
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import wordtree.plugins as plugins
from wordtree import LabelMap, WordTreeError, hookimpl
from wordtree.taxonomy import WORDNET


class Entry:
    """An entry point that gives what it is told to; the real one is read-only."""

    def __init__(self, name: str, plugin: object) -> None:
        self.name, self.value, self.plugin = name, f"{name}.module", plugin

    def load(self) -> object:
        if isinstance(self.plugin, Exception):
            raise self.plugin
        return self.plugin


def offering(*names: str, label: str = "dog") -> object:
    class Plugin:
        @hookimpl
        def register_label_maps(self) -> list[LabelMap]:
            return [LabelMap(name, (label,), ("n02084071",)) for name in names]

    return Plugin()


def loaded(**given: object) -> tuple[plugins.Plugins, list[str]]:
    """A fresh manager with these plug-ins, and the warnings on the way to it and its label maps."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = plugins.load([Entry(name, plugin) for name, plugin in given.items()])  # type: ignore[misc]
        made.collect("register_label_maps", "label map", LabelMap)
    return made, [str(warning.message) for warning in caught]


def maps(made: plugins.Plugins) -> plugins.Offered[LabelMap]:
    return made.collect("register_label_maps", "label map", LabelMap)


def test_what_is_installed_is_found_by_the_ordinary_door() -> None:
    assert {"coco", "imagenet1k", "voc"} <= set(plugins.label_maps())
    assert plugins.taxonomies()["wordnet"] is WORDNET
    found = {plugin.name: plugin for plugin in plugins.listing()}
    assert found["datasets"].hooks == ("register_label_maps",)
    assert found["wordtree"].hooks == ("register_taxonomies",)
    assert not found["datasets"].fault
    with pytest.raises(WordTreeError, match="no taxonomy 'wordnot'; did you mean 'wordnet'"):
        plugins.taxonomies()["wordnot"]
    with pytest.raises(WordTreeError, match="no detector 'nothing such'"):
        plugins.detectors()["nothing such"]


def broken_hook() -> Any:
    class Plugin:
        @hookimpl
        def register_label_maps(self) -> list[LabelMap]:
            raise RuntimeError("no disk")

    return Plugin()


def wrong_record() -> Any:
    class Plugin:
        @hookimpl
        def register_label_maps(self) -> list[str]:
            return ["coco"]

    return Plugin()


def misspelled() -> Any:
    class Plugin:
        @hookimpl
        def register_label_map(self) -> list[LabelMap]:
            return []

    return Plugin()


def extra_argument() -> Any:
    class Plugin:
        @hookimpl
        def register_label_maps(self, colour: str) -> list[LabelMap]:
            return []

    return Plugin()


@pytest.mark.parametrize(
    ("plugin", "text"),
    [
        (ImportError("no module named 'gone'"), "plug-in 'bad': ImportError: no module named 'gone'"),
        (SyntaxError("what"), "plug-in 'bad': SyntaxError: what"),
        (broken_hook(), "plug-in 'bad': RuntimeError: no disk"),
        (
            wrong_record(),
            "plug-in 'bad': TypeError: register_label_maps returned 'coco'; it returns a list of LabelMap",
        ),
        (misspelled(), "no hook 'register_label_map'; did you mean 'register_label_maps'?"),
        (extra_argument(), "colour"),
    ],
)
def test_a_broken_plugin_is_named_and_the_rest_work(plugin: object, text: str) -> None:
    made, warned = loaded(aa=offering("one"), bad=plugin, zz=offering("two"))
    assert set(maps(made)) == {"one", "two"}
    assert len(warned) == 1
    assert text in warned[0]
    assert "'bad'" in warned[0]
    assert list(made.faults) == ["bad"]


def test_two_plugins_that_work_give_no_warning() -> None:
    """That the test above can fail."""
    made, warned = loaded(aa=offering("one"), zz=offering("two"))
    assert (warned, made.faults) == ([], {})


def test_a_name_offered_twice_is_refused_and_both_are_named() -> None:
    made, warned = loaded(aa=offering("one", "mine"), zz=offering("one", "yours"))
    found = maps(made)
    assert set(found) == {"mine", "yours"}
    with pytest.raises(WordTreeError, match="label map 'one' is offered by the plug-ins 'aa' and 'zz'; remove one"):
        found["one"]
    assert set(made.faults) == {"aa", "zz"}
    assert len(warned) == 2


def test_a_plugin_registered_by_hand_comes_and_goes() -> None:
    module = types.ModuleType("my_birds")
    module.register_label_maps = hookimpl(lambda: [LabelMap("birds", ("crane",), ("n02012849",))])
    assert plugins.register(module) == "my_birds"
    try:
        assert plugins.label_maps()["birds"].labels == ("crane",)
        with pytest.raises(WordTreeError, match="plug-in 'my_birds' is registered already"):
            plugins.register(module)
        assert plugins.label_maps()["birds"].labels == ("crane",)
    finally:
        plugins.unregister("my_birds")
    assert "birds" not in plugins.label_maps()


@pytest.mark.parametrize(
    ("plugin", "text"),
    [
        (offering("coco"), "label map 'coco' is offered by the plug-ins 'datasets' and 'mine'"),
        (misspelled(), "plug-in 'mine' is left out: no hook 'register_label_map'"),
        (broken_hook(), "plug-in 'mine' is left out: RuntimeError: no disk"),
        (extra_argument(), "plug-in 'mine' is left out: .*colour"),
    ],
)
def test_a_bad_plugin_registered_by_hand_is_refused_and_leaves_nothing(plugin: object, text: str) -> None:
    before = {plugin.name: plugin for plugin in plugins.listing()}
    with pytest.raises(WordTreeError, match=text):
        plugins.register(plugin, "mine")
    assert {plugin.name: plugin for plugin in plugins.listing()} == before
    assert len(plugins.label_maps()["coco"]) == 80


def test_a_real_entry_point_that_is_not_there_is_named() -> None:
    with pytest.warns(UserWarning, match="plug-in 'gone': ModuleNotFoundError: No module named 'no_such_module'"):
        made = plugins.load([EntryPoint("gone", "no_such_module", "wordtree")])
    assert "gone" in made.faults


# ---------------------------------------------------------------------- what importing costs

HEAVY = ("torch", "torchvision", "networkx", "nltk", "typer", "rich", "yaml", "PIL")
WAYS = {
    "import": "import wordtree",
    "build": "import wordtree; wordtree.build_tree('imagenet1k')",
    "plug-ins": "import wordtree.plugins as p; p.listing(); p.detectors()",
    "word": "from wordtree.cli import main; main(['show', 'dog'])",
}


def imported(code: str) -> set[str]:
    """The heavy modules that a fresh process has after this code."""
    ask = f"{code}\nimport sys\nprint('HEAVY', *(set({HEAVY}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return set(run.stdout.rsplit("HEAVY", 1)[1].split())


@pytest.mark.parametrize("way", WAYS)
def test_nothing_heavy_is_imported(way: str) -> None:
    assert imported(WAYS[way]) == set()


def test_the_test_above_can_fail() -> None:
    assert imported("import wordtree, networkx") == {"networkx"}
    assert imported("import wordtree; wordtree.WordTree(['a'], [-1]).to_networkx()") == {"networkx"}
