"""What the pages and docstrings show is what happens: every example runs."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import wordtree
import yolo9000

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = sorted(
    module.name
    for package in (wordtree, yolo9000)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
)
NOT_RUN = "<!-- not run in tests:"


def blocks(page: str) -> list[str]:
    """The python blocks of a page that are to run: all but those that say why they are not."""
    found = re.findall(r"(<!--[^\n]*-->\n)?```python\n(.*?)```", page, re.DOTALL)
    return [code for comment, code in found if not comment.startswith(NOT_RUN)]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_every_docstring_run(name):
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    module = importlib.import_module(name)
    import torch

    torch.manual_seed(0)
    result = doctest.testmod(module, optionflags=options, extraglobs={"torch": torch, "WordTree": wordtree.WordTree})
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_every_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in blocks(page.read_text()):
        exec(compile(code, page.name, "exec"), names)


def test_a_page_whose_code_fails_is_caught():
    (code,) = blocks("text\n```python\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError):
        exec(code, {})
    assert blocks(f"{NOT_RUN} it trains -->\n```python\n1 / 0\n```\n") == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
