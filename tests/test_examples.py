"""The stranger's plug-in of examples/garden: installed beside ours in a fresh environment, and used there."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from PIL import Image

from wordtree import LabelMap, WordTree, build_tree

ROOT = Path(__file__).parent.parent
GARDEN = ROOT / "examples" / "garden"
SPECIES = GARDEN / "wordtree_garden" / "species.csv"
PAGE = (ROOT / "docs" / "plug-ins.md").read_text()
UV = Path(sys.executable).with_name("uv")

pytestmark = pytest.mark.skipif(not UV.exists(), reason="no uv beside python to install with; `make venv` brings it")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a fresh environment with both distributions, built from their sources.

    What they need, torch and the like, is taken from the environment that runs the tests: no registry is asked.
    """
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    home = subprocess.run([python, "-I", "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    (Path(home) / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for part in ("wordtree", "yolo9000", "plugins"):
        shutil.copytree(ROOT / part, folder / "ours" / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, folder / "ours")
    shutil.copytree(GARDEN, folder / "garden", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    words = ["pip", "install", "--offline", "--no-deps", "--no-build-isolation", "--python", python]
    environment = {**alone(), "UV_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(
        [UV, *words, folder / "ours", folder / "garden"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return python.parent


def alone() -> dict[str, str]:
    """The environment without a way to the sources."""
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, "OMP_NUM_THREADS": "1"}


def run(programs: Path, folder: Path, program: str, *words: str) -> str:
    """What a program of the fresh environment prints; it must succeed and say nothing on stderr."""
    done = subprocess.run([programs / program, *words], capture_output=True, text=True, env=alone(), cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_both_are_installed_and_not_taken_from_the_sources(programs: Path, tmp_path: Path) -> None:
    code = "import wordtree, wordtree_datasets, wordtree_garden as g; print(wordtree.__file__, g.__file__)"
    places = run(programs, tmp_path, "python", "-c", code).split()
    assert all(place.startswith(str(programs.parent)) for place in places)


def test_the_commands_find_it(programs: Path, tmp_path: Path) -> None:
    lines = run(programs, tmp_path, "wordtree", "plugins").splitlines()
    hooks = "register_detectors, register_label_maps, register_taxonomies"
    assert f"garden          wordtree-garden 0.1         {hooks}" in lines
    assert any(line.startswith("detectors: garden/tiny, ") for line in lines)
    assert "taxonomies: garden, wordnet" in lines
    assert ["garden", "44", "labels"] in [
        line.split() for line in run(programs, tmp_path, "wordtree", "labels").splitlines()
    ]
    shown = run(programs, tmp_path, "wordtree", "show", "garden", "--taxonomy", "garden")
    assert shown.startswith("garden: 44 labels\n")
    assert "European robin  Erithacus rubecula" in shown
    told = run(programs, tmp_path, "wordtree", "build", "garden", "--taxonomy", "garden", "-o", "garden.json")
    tree = WordTree.load(tmp_path / "garden.json")
    assert told.startswith(f"garden.json: {len(tree)} nodes")
    assert f"garden.json: {len(tree)} nodes, " in PAGE
    assert tree == build_tree(LabelMap.read(SPECIES), taxonomy=SPECIES)
    assert {"Prunella modularis", "Prunella vulgaris", "Turdus"} <= set(tree.ids)


def test_to_list_it_loads_no_torch(programs: Path, tmp_path: Path) -> None:
    loaded = "print(sorted({'torch', 'wordtree_garden'} & set(sys.modules)))"
    code = f"import sys; from wordtree.cli import main; main(['plugins']); {loaded}"
    assert run(programs, tmp_path, "python", "-c", code).splitlines()[-1] == "['wordtree_garden']"


def test_to_show_a_word_loads_no_detectors(programs: Path, tmp_path: Path) -> None:
    """Our own entry point names its hook, and so waits until detectors are asked for."""
    loaded = "print('wordtree_datasets' in sys.modules, 'wordtree_torchvision' in sys.modules)"
    for words, seen in ((["show", "dog"], "True False"), (["show", "dog.n.01"], "False False")):
        code = f"import sys; from wordtree.cli import main; main({words}); {loaded}"
        assert run(programs, tmp_path, "python", "-c", code).splitlines()[-1] == seen


def test_the_detectors_commands_train_and_detect_with_it(programs: Path, tmp_path: Path) -> None:
    small = ["size=64", "sizes=[64]", "boxed_pictures=8", "labelled_pictures=8", "steps=2", "batch=4", "workers=0"]
    sets = [word for one in [*small, "test_scenes=2", "precision=float32"] for word in ("--set", one)]
    Image.new("RGB", (90, 60), "grey").save(tmp_path / "grey.png")
    done = [
        subprocess.run([programs / "yolo9000", *words], capture_output=True, text=True, env=alone(), cwd=tmp_path)
        for words in (
            ("train", "--joint", "--detector", "garden/tiny", "--out", "run", *sets),
            ("detect", "grey.png", "--weights", "run", "--threshold", "0", "--tree-threshold", "0.1", "--json"),
        )
    ]
    assert [one.returncode for one in done] == [0, 0], done[0].stderr + done[1].stderr
    assert "unseen/fine_under_boxed" in (tmp_path / "run" / "metrics.json").read_text()
    found = json.loads(done[1].stdout)["detections"]
    assert found
    assert all({"objectness", "path"} <= one.keys() for one in found)


def test_the_tutorials_program_trains_and_detects(programs: Path, tmp_path: Path) -> None:
    (code,) = re.findall(r"tests/test_examples.py runs it[^\n]*\n```python\n(.*?)```", PAGE, re.DOTALL)
    robin, *found = run(programs, tmp_path, "python", "-c", code).splitlines()
    assert robin == "Erithacus rubecula"
    assert len(found) == 3
    assert found[0] == "['European robin'] [[12.0, 8.0, 36.0, 24.0]]"
    assert re.match(r"\['(Paridae|great tit)'\] \[\[60\.0, 40\.0, 84\.0, 56\.0\]\]", found[1])


# ---------------------------------------------------------------------- the page


def test_the_tutorial_shows_the_files_as_they_are() -> None:
    shown = re.findall(r"<!-- not run in tests: it is (\S+) -->\n```\w*\n(.*?)```", PAGE, re.DOTALL)
    for file, text in shown:
        assert text in (ROOT / file).read_text(), file
    files = {str(file.relative_to(ROOT)) for file in GARDEN.rglob("*") if file.suffix in (".py", ".csv", ".toml")}
    assert {file for file, _ in shown} == {file for file in files if "build" not in Path(file).parts}


def test_the_species_are_sound() -> None:
    rows = [line.split(",") for line in SPECIES.read_text().splitlines()[1:]]
    assert all(row[6].split()[0] == row[5] and len(row[6].split()) == 2 for row in rows)
    assert len({row[6] for row in rows}) == len({row[7] for row in rows}) == len(rows) == 44
    genera = {(row[0], row[5]) for row in rows}
    assert {genus for kingdom, genus in genera if kingdom == "Plantae"} & {
        genus for kingdom, genus in genera if kingdom == "Animalia"
    } == {"Prunella", "Pieris"}
