"""The floors: imports point down, torch starts on the second, and each of these tests is shown able to fail."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"wordtree", "yolo9000", "wordtree_datasets", "wordtree_torchvision", "wordtree_transformers"}
HOMES = {
    "wordtree": "wordtree",
    "yolo9000": "yolo9000",
    "wordtree_datasets": "plugins/wordtree_datasets",
    "wordtree_torchvision": "plugins/wordtree_torchvision",
    "wordtree_transformers": "plugins/wordtree_transformers",
}
STANDS_ON = {
    "wordtree_datasets": set(),
    "wordtree_torchvision": set(),
    "wordtree_transformers": {"wordtree_torchvision"},
}


def modules() -> list[tuple[str, str, str]]:
    """Every module of the distribution: file, dotted name of the package it stands in, source."""
    found = []
    for package, home in HOMES.items():
        for file in sorted((ROOT / home).rglob("*.py")):
            inside = file.relative_to(ROOT / home).parent.parts
            found.append((str(file.relative_to(ROOT)), ".".join((package, *inside)), file.read_text()))
    return found


def imports(source: str, package: str) -> set[str]:
    """Dotted names that a module imports anywhere in it, relative ones resolved against its package."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - (node.level - 1)]
                base = ".".join([*above, *([node.module] if node.module else [])])
            # `from .x import y` may import a module y: both are named
            names |= {base} if node.module else {f"{base}.{alias.name}" for alias in node.names}
    return names


def top(name: str) -> str:
    return name.split(".")[0]


def wordtree_stands_alone(package: str, name: str) -> bool:
    return top(package) != "wordtree" or top(name) not in OURS - {"wordtree"}


def torch_starts_in_nn(package: str, name: str) -> bool:
    outside = top(package) in ("wordtree", "wordtree_datasets") and not package.startswith("wordtree.nn")
    return not outside or (top(name) not in ("torch", "torchvision") and not f"{name}.".startswith("wordtree.nn."))


def nn_stands_on_the_tree(package: str, name: str) -> bool:
    if not package.startswith("wordtree.nn"):
        return True
    allowed = ("wordtree.tree", "wordtree.errors", "torch", "numpy", "wordtree.nn")
    return top(name) in sys.stdlib_module_names or any(f"{name}.".startswith(f"{one}.") for one in allowed)


def yolo9000_imports_wordtree_only(package: str, name: str) -> bool:
    return top(package) != "yolo9000" or top(name) not in OURS - {"wordtree", "yolo9000"}


def plugins_know_no_detector(package: str, name: str) -> bool:
    allowed = STANDS_ON.get(top(package), OURS) | {top(package), "wordtree"}
    return top(name) not in OURS - allowed


RULES = [
    (wordtree_stands_alone, "wordtree", "import yolo9000", "['yolo9000']"),
    (wordtree_stands_alone, "wordtree.nn", "from wordtree_datasets import NAMES", "['wordtree_datasets']"),
    (torch_starts_in_nn, "wordtree", "def f():\n    from torch import nn", "['torch']"),
    (torch_starts_in_nn, "wordtree", "from .nn import descend", "['wordtree.nn']"),
    (torch_starts_in_nn, "wordtree_datasets", "import torchvision.ops", "['torchvision.ops']"),
    (nn_stands_on_the_tree, "wordtree.nn", "from ..labels import LabelMap", "['wordtree.labels']"),
    (nn_stands_on_the_tree, "wordtree.nn", "from .. import wordnet", "['wordtree.wordnet']"),
    (nn_stands_on_the_tree, "wordtree.nn", "import networkx", "['networkx']"),
    (yolo9000_imports_wordtree_only, "yolo9000.data", "import wordtree_datasets", "['wordtree_datasets']"),
    (plugins_know_no_detector, "wordtree_torchvision", "from yolo9000.loss import assign", "['yolo9000.loss']"),
    (plugins_know_no_detector, "wordtree_transformers", "import yolo9000, wordtree_torchvision", "['yolo9000']"),
]


def broken(rule: Callable[[str, str], bool], files: Iterable[tuple[str, str, str]]) -> list[str]:
    """What breaks a rule, such as `wordtree/tree.py imports ['yolo9000']`."""
    faults = []
    for file, package, source in files:
        wrong = sorted(name for name in imports(source, package) if not rule(package, name))
        if wrong:
            faults.append(f"{file} imports {wrong}")
    return faults


@pytest.mark.parametrize("rule", dict.fromkeys(rule for rule, *_ in RULES), ids=lambda rule: rule.__name__)
def test_imports_point_down(rule):
    assert broken(rule, modules()) == []


@pytest.mark.parametrize(("rule", "package", "source", "named"), RULES)
def test_each_rule_can_fail(rule, package, source, named):
    assert broken(rule, [("some/file.py", package, source)]) == [f"some/file.py imports {named}"]


def test_the_rules_see_every_package():
    names = {package for _, package, _ in modules()}
    assert {
        "wordtree",
        "wordtree.nn",
        "yolo9000",
        "yolo9000.data",
        "wordtree_datasets",
        "wordtree_torchvision",
        "wordtree_transformers",
    } <= names
    seen = set().union(*(imports(source, package) for _, package, source in modules()))
    assert {"torch", "wordtree.tree", "wordtree", "yolo9000.boxes", "numpy"} <= seen


# ---------------------------------------------------------------------- what a process loads


def loaded_by(code: str) -> list[str]:
    """The heavy packages that a fresh process has loaded after running `code`."""
    heavy = ("torch", "torchvision", "transformers", "matplotlib", "PIL", "nltk", "networkx", "rich", "typer", "yaml")
    report = f"import sys; print('LOADED', *[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def command(*words: str) -> str:
    """Code that runs `wordtree ...` in a process and goes on afterwards."""
    return f"""
import sys
from wordtree.cli import main
sys.argv = {["wordtree", *words]!r}
try:
    main()
except SystemExit as end:
    assert not end.code
"""


@pytest.mark.parametrize(
    "code",
    [
        "import wordtree",
        "import yolo9000",
        "import wordtree_datasets, wordtree_torchvision, wordtree_transformers, yolo9000.plugin",
    ],
)
def test_importing_loads_no_torch_and_nothing_else_that_is_heavy(code):
    assert loaded_by(code) == []


@pytest.mark.parametrize("words", [("show", "dog"), ("plugins",), ("labels", "coco")])
def test_the_trees_own_commands_load_no_torch(words):
    assert not {"torch", "torchvision", "matplotlib"} & set(loaded_by(command(*words)))


def test_the_look_into_a_process_can_fail():
    assert "torch" in loaded_by("import wordtree.nn")
    with pytest.raises(AssertionError):
        loaded_by("raise SystemExit(3)")
    with pytest.raises(AssertionError):
        loaded_by(command("no-such-command"))
