"""The plug-in manager: our own tables come in by it; a broken plug-in is named and the rest work."""

import inspect
import os
import re
import subprocess
import sys
import types
import warnings
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import Any

import pytest

import wordtree.plugins as plugins
from wordtree import LabelMap, WordTreeError, build_tree, hookimpl, hookspecs
from wordtree.taxonomy import WORDNET, Taxonomy

ROOT = Path(__file__).parent.parent


class Entry:
    """An entry point that gives what it is told to; the real one is read-only."""

    dist = None

    def __init__(self, name: str, plugin: object) -> None:
        self.name, self.value, self.plugin = name, f"{name}.module", plugin

    def load(self) -> object:
        if isinstance(self.plugin, BaseException):
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


def unmarked() -> Any:
    class Plugin:
        def register_label_maps(self) -> list[LabelMap]:
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
        (SystemExit("no licence"), "plug-in 'bad': SystemExit: no licence"),
        (broken_hook(), "plug-in 'bad': RuntimeError: no disk"),
        (
            wrong_record(),
            "plug-in 'bad': TypeError: register_label_maps returned 'coco'; it returns a list of LabelMap",
        ),
        (misspelled(), "no hook 'register_label_map'; did you mean 'register_label_maps'?"),
        (unmarked(), "plug-in 'bad': register_label_maps is not marked with @hookimpl; the hooks are register_"),
        (types.ModuleType("empty"), "plug-in 'bad': no function of it is marked with @hookimpl"),
        (extra_argument(), "colour"),
    ],
)
def test_a_broken_plugin_is_named_and_the_rest_work(plugin: object, text: str) -> None:
    made, warned = loaded(aa=offering("one"), bad=plugin, zz=offering("two"))
    assert set(maps(made)) == {"one", "two"}
    assert len(warned) == 1
    assert text in warned[0]
    assert "'bad'" in warned[0]
    assert warned[0].endswith("; it is left out, and the others work; mend it, or uninstall what it came with")
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
        (
            offering("coco"),
            r"label map 'coco' is offered by the plug-ins 'datasets' \(wordtree-yolo9000 .*\) and 'mine'",
        ),
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
    made = plugins.load([EntryPoint("gone", "no_such_module", "wordtree")])
    with pytest.warns(UserWarning, match="plug-in 'gone': ModuleNotFoundError: No module named 'no_such_module'"):
        made.ask()
    assert "gone" in made.faults


# ---------------------------------------------------------------------- distributions


def distribution(folder: Path, name: str, modules: dict[str, str], entries: dict[str, str]) -> None:
    """What an installer leaves behind: modules, and metadata with entry points of the group `wordtree`."""
    for module, code in modules.items():
        (folder / f"{module}.py").write_text(code)
    info = folder / f"{name}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    lines = [f"{entry} = {value}" for entry, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[wordtree]", *lines, ""]))


MAPS = """
from wordtree import LabelMap, hookimpl

@hookimpl
def register_label_maps():
    return [LabelMap({name!r}, ("dog",), ("n02084071",))]
"""
DETECTOR = """
from wordtree import hookimpl
from wordtree.plugins import Detector

@hookimpl
def register_detectors():
    return [Detector("tiny", dict)]
"""


def entries_of(folder: Path) -> list[EntryPoint]:
    return [entry for one in Distribution.discover(path=[str(folder)]) for entry in one.entry_points]


def test_a_fault_is_named_with_its_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    code = {"birds_a": MAPS.format(name="birds"), "birds_b": MAPS.format(name="birds"), "hawks": "1 / 0"}
    distribution(tmp_path, "Aviary", {"birds_a": code["birds_a"]}, {"birds": "birds_a"})
    distribution(tmp_path, "rookery", {"birds_b": code["birds_b"]}, {"nests": "birds_b"})
    distribution(tmp_path, "mews", {"hawks": code["hawks"]}, {"hawks": "hawks", "typing": "two words"})
    made = plugins.load(entries_of(tmp_path))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = maps(made)
    told = sorted(str(warning.message) for warning in caught)
    both = "label map 'birds' is offered by the plug-ins 'birds' (Aviary 0.1) and 'nests' (rookery 0.1); remove one"
    assert told[0].startswith(f"plug-in 'birds' (Aviary 0.1): {both}")
    assert told[1] == f"plug-in 'hawks' (mews 0.1): ZeroDivisionError: division by zero{plugins.LEFT_OUT}"
    assert told[2].startswith(f"plug-in 'nests' (rookery 0.1): {both}")
    assert told[3].startswith("plug-in 'typing' (mews 0.1): 'two words' is no module")
    with pytest.raises(WordTreeError, match=r"'birds' \(Aviary 0.1\) and 'nests' \(rookery 0.1\)"):
        found["birds"]


def test_two_distributions_may_use_one_name_for_their_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    distribution(tmp_path, "one", {"maps_one": MAPS.format(name="first")}, {"maps": "maps_one"})
    distribution(tmp_path, "two", {"maps_two": MAPS.format(name="second")}, {"maps": "maps_two", "wordtree": "maps_3"})
    (tmp_path / "maps_3.py").write_text(MAPS.format(name="third"))
    made = plugins.load(entries_of(tmp_path))
    assert set(maps(made)) == {"first", "second", "third"}
    assert {name for name, _ in made.manager.list_name_plugin()} == {"wordtree", "one:maps", "two:maps", "two:wordtree"}
    assert made.faults == {}


def test_one_hook_named_by_its_function_is_loaded_when_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    modules = {"lazy_maps": MAPS.format(name="birds"), "lazy_nets": DETECTOR}
    values = {"maps": "lazy_maps:register_label_maps", "nets": "lazy_nets:register_detectors"}
    distribution(tmp_path, "lazy", modules, values)
    made = plugins.load(entries_of(tmp_path))
    assert not {"lazy_maps", "lazy_nets"} & set(sys.modules)  # found, and nothing loaded
    assert set(maps(made)) == {"birds"}
    assert {"lazy_maps", "lazy_nets"} & set(sys.modules) == {"lazy_maps"}
    assert set(made.collect("register_detectors", "detector", plugins.Detector)) == {"tiny"}
    assert "lazy_nets" in sys.modules
    assert set(maps(made)) == {"birds"}
    assert made.faults == {}


def run(code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A fresh process that sees the distributions of a folder, and prints which of their modules it has loaded."""
    names = sorted(file.stem for file in folder.glob("*.py"))
    code += f"\nimport sys; print('LOADED', *(name for name in {names} if name in sys.modules))"
    path = os.pathsep.join([str(folder), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )


@pytest.mark.parametrize(
    ("words", "loaded"),
    [
        (["show", "dog.n.01"], []),
        (["show", "n02084071"], []),
        (["show", "mine.csv"], []),
        (["show", "--tree", "t.json"], []),
        (["build", "mine.csv", "zebra.n.01"], []),
        (["check", "mine.csv"], []),
        (["show", "dog"], ["maps_dogs"]),  # a label map might be called so
        (["labels"], ["maps_dogs"]),
        (["plugins"], ["maps_dogs", "nets"]),
    ],
)
def test_a_command_loads_the_plugins_that_it_needs(words: list[str], loaded: list[str], tmp_path: Path) -> None:
    values = {"dogs": "maps_dogs:register_label_maps", "nets": "nets:register_detectors"}
    distribution(tmp_path, "lazy", {"maps_dogs": MAPS.format(name="dogs"), "nets": DETECTOR}, values)
    (tmp_path / "mine.csv").write_text("label,id\ndog,dog.n.01\n")
    build_tree(["dog.n.01", "cat.n.01"]).save(tmp_path / "t.json")
    done = run(f"import os; os.chdir({str(tmp_path)!r}); from wordtree.cli import main; main({words})", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].split()[1:] == loaded


def test_the_command_lists_what_is_there_from_where_and_what_failed(tmp_path: Path) -> None:
    distribution(tmp_path, "good", {"good_maps": MAPS.format(name="dogs")}, {"dogs": "good_maps"})
    distribution(tmp_path, "bad", {"bad_maps": "import no_such_module"}, {"cats": "bad_maps"})
    done = run("from wordtree.cli import main; main(['plugins'])", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split(None, 3) for line in done.stdout.splitlines()]
    assert ["dogs", "good", "0.1", "register_label_maps"] in lines
    assert ["cats", "bad", "0.1", "FAULT: ModuleNotFoundError: No module named 'no_such_module'"] in lines
    assert ["wordtree", "built", "in", "register_taxonomies"] in lines
    show = run("from wordtree.cli import main; main(['show', 'dogs'])", tmp_path)
    assert show.stdout.startswith("dogs: 1 labels")
    fault = "plug-in 'cats' (bad 0.1): ModuleNotFoundError: No module named 'no_such_module'"
    assert show.stderr == f"warning: {fault}{plugins.LEFT_OUT}\n"


def test_a_plugin_that_imports_torch_to_be_listed_works_and_is_told(tmp_path: Path) -> None:
    """A file called torch.py stands for torch: what counts is that it was imported."""
    modules = {"slow": f"import torch\n{DETECTOR}", "torch": ""}
    distribution(tmp_path, "slow", modules, {"slow": "slow"})
    done = run("from wordtree.cli import main; main(['plugins'])", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "register_detectors; FAULT: imports torch to be listed; import it inside `build`\n" in done.stdout
    assert re.search("^detectors: tiny, ", done.stdout, re.MULTILINE)
    shown = run("from wordtree.cli import main; main(['show', 'dog'])", tmp_path)
    assert shown.stderr == ""


def test_a_map_that_two_offer_is_not_shown_as_the_word_of_that_name(tmp_path: Path) -> None:
    """`coco` is a noun too: a palm."""
    distribution(tmp_path, "mine", {"my_maps": MAPS.format(name="coco")}, {"mine": "my_maps"})
    done = run("from wordtree.cli import main; main(['show', 'coco'])", tmp_path)
    assert done.returncode == 2
    assert "error: label map 'coco' is offered by the plug-ins" in done.stderr
    assert "'mine' (mine 0.1)" in done.stderr


# ---------------------------------------------------------------------- each hook

ZOO = LabelMap("hook_zoo", ("dog",), ("n02084071",))
PETS = Taxonomy("hook_pets", None, resolve=str, hypernyms=lambda id_: ["pet"] if id_ == "dog" else [], name_of=str)
NET = plugins.Detector("hook_net", lambda tree, **options: (len(tree), options))


def of_one_hook(name: str, *records: object) -> str:
    """Register a plug-in with one hook, which returns these records."""
    module = types.ModuleType(f"only_{name}")
    setattr(module, name, hookimpl(lambda: list(records)))
    return plugins.register(module)


def test_register_label_maps() -> None:
    added = of_one_hook("register_label_maps", ZOO)
    assert build_tree("hook_zoo").ids == ("n02084071",)
    plugins.unregister(added)


def test_register_taxonomies() -> None:
    added = of_one_hook("register_taxonomies", PETS)
    assert build_tree(["dog", "cat"], taxonomy="hook_pets", collapse=False).ids == ("cat", "pet", "dog")
    plugins.unregister(added)


def test_register_detectors() -> None:
    added = of_one_hook("register_detectors", NET)
    assert plugins.detectors()["hook_net"].build(build_tree(["dog.n.01"]), size=3) == (1, {"size": 3})
    plugins.unregister(added)


def test_every_hook_is_documented_tested_and_used_by_a_plugin_of_ours() -> None:
    specified = {name for name, spec in vars(hookspecs).items() if hasattr(spec, "wordtree_spec")}
    assert specified == set(plugins.HOOKS)
    page = (ROOT / "docs" / "plug-ins.md").read_text()
    ours = {hook for found in plugins.listing() for hook in found.hooks if found.source.startswith(("built", "wordt"))}
    for hook in specified:
        assert inspect.getdoc(getattr(hookspecs, hook))
        assert f"## `{hook}" in page
        assert f"test_{hook}" in globals()
        assert hook in ours


def test_an_unknown_plugin_cannot_be_taken_out() -> None:
    with pytest.raises(WordTreeError, match="no plug-in 'wordtre'; did you mean 'wordtree'"):
        plugins.unregister("wordtre")


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
