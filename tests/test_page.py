"""The page of `wordtree show --format html`, as a person uses it: in a browser, with keys and mouse."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import PROGRAMS, Browser, find_browser

from wordtree import WordTree, build_tree, label_maps
from wordtree.cli import main
from wordtree.show import picture_of_tree
from wordtree.web import folds, page

NEEDED = "WORDTREE_NEED_BROWSER"  # set where a missing browser is a failure: in CI


def program() -> str:
    """The browser to use; where there is none, a skip that says so, or a failure where one is needed."""
    if found := find_browser():
        return found
    missing = f"no browser on PATH ({', '.join(PROGRAMS)}); Debian's package is chromium"
    if os.environ.get(NEEDED):
        pytest.fail(f"{missing}, and {NEEDED} is set")
    pytest.skip(missing)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(program(), tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(started: Browser) -> Iterator[Browser]:
    started.look(1200, 800)
    yield started
    assert started.errors == []  # no script failed, and the policy had nothing to forbid
    assert [address.split(":")[0] for address in started.requests] == ["file"]  # the page itself and nothing else


def shown(browser: Browser) -> list[str]:
    """The names of the rows that are drawn, top to bottom."""
    names: list[str] = browser.run(
        "[...document.querySelectorAll('[role=treeitem]')].map(r => r.children[0].textContent)"
    )
    return names


def path(browser: Browser) -> list[str]:
    """The path of the selected node, as it is written beside the tree."""
    steps: list[str] = browser.run("[...document.querySelectorAll('#path li')].map(step => step.textContent)")
    return steps


def row(name: str) -> str:
    """JavaScript for the row of a name."""
    return f"[...document.querySelectorAll('[role=treeitem]')].find(r => r.children[0].textContent === {name!r})"


def open_page(browser: Browser, at: Path, made: str) -> None:
    at.write_text(made, encoding="utf-8")
    browser.open(at.as_uri())


@pytest.fixture
def met(browser: Browser, tmp_path: Path) -> Browser:
    """The page of COCO and VOC, opened."""
    main(["show", "coco", "voc", "--format", "html", "-o", str(tmp_path / "met.html")])
    browser.open((tmp_path / "met.html").as_uri())
    return browser


def test_a_word_is_typed_its_path_opens_folds_and_reads_back(met: Browser) -> None:
    tree = build_tree("coco", "voc")
    zebra = tree.path(tree.find("zebra"))
    assert "zebra" not in shown(met)
    met.press("/")  # the search has the focus
    met.type("zeb")
    names = [tree.root_name, *(tree.names[node] for node in zebra)]
    assert shown(met) == path(met) == names
    assert met.run("said.textContent") == "1 found"
    assert met.run("document.querySelector('#node h2').textContent") == "zebra"
    met.press("Enter", "Escape")  # into the tree, where Escape means nothing
    assert met.run("document.activeElement.children[0].textContent") == "zebra"
    met.press("/", "Escape")  # back to the whole tree, its path still open
    assert met.run("search.value") == ""
    assert set(names) < set(shown(met))
    assert path(met) == names

    above = tree.names[zebra[-2]]
    before = shown(met)
    met.click(row(above))  # folds
    siblings = [tree.names[node] for node in tree.children(zebra[-2])]
    assert [name for name in before if name not in shown(met)] == siblings
    assert met.run(f"{row(above)}.getAttribute('aria-expanded')") == "false"
    assert path(met) == names[:-1]
    met.click(row(above))  # and unfolds
    assert shown(met) == before


def test_the_tree_is_walked_with_keys_alone(met: Browser) -> None:
    tree = build_tree("coco", "voc")
    top = [tree.names[node] for node in tree.children()]
    met.click("document.getElementById('fold')")
    assert shown(met) == [tree.root_name, *top]
    met.run("document.querySelector('[role=treeitem]').focus()")
    met.press("ArrowDown", "ArrowRight")  # to the first child, and open it
    below = [tree.names[node] for node in tree.children(0)]
    assert shown(met) == [tree.root_name, top[0], *below, *top[1:]]
    met.press("ArrowRight")  # into it
    assert path(met) == [tree.root_name, top[0], below[0]]
    met.press("ArrowLeft", "ArrowLeft")  # out of it, and close it
    assert shown(met) == [tree.root_name, *top]
    met.press("End")
    assert path(met) == [tree.root_name, top[-1]]
    met.press("Home", "Enter")
    assert shown(met) == [tree.root_name]
    met.press(" ")
    assert shown(met) == [tree.root_name, *top]
    met.press(top[-1][0])  # the first letter of a name
    assert path(met)[-1].startswith(top[-1][0])
    assert met.run("document.querySelectorAll('[role=treeitem][tabindex=\"0\"]').length") == 1  # one stop for Tab


def test_every_node_tells_its_counts_and_whose_labels_stand_on_it(met: Browser) -> None:
    tree = build_tree("coco", "voc")
    maps = [label_maps()["coco"], label_maps()["voc"]]
    met.click("document.getElementById('unfold')")
    rows = met.run(
        "[...document.querySelectorAll('[role=treeitem]')].map(r => [r.querySelector('.id')?.textContent ?? '', "
        "[...r.querySelectorAll('.chip')].map(c => c.textContent), r.ariaLevel, r.ariaPosInSet, r.ariaSetSize])"
    )
    assert [id_ for id_, *_ in rows[1:]] == [row.id for row in picture_of_tree(tree).rows[1:]]
    for id_, chips, level, place, size in rows[1:]:
        node = tree.ids.index(id_)
        wanted = []
        for labels in maps:
            own = [label for label, at in zip(labels.labels, labels.nodes_on(tree), strict=True) if at == node]
            wanted += [labels.name if label == tree.names[node] else f"{labels.name} = {label}" for label in own]
        assert chips == wanted
        siblings = tree.children(int(tree.parents[node]))
        assert [level, place, size] == [
            str(n) for n in (tree.depths[node] + 2, siblings.index(node) + 1, len(siblings))
        ]
    met.click(row("animal"))
    animal = tree.find("animal")
    inside = [node for node in range(len(tree)) if tree.is_ancestor(animal, node)]
    leaves = set(inside) & set(tree.leaves.tolist())
    facts = met.run("[...document.querySelectorAll('dd')].map(d => +d.textContent)")
    assert facts == [len(tree.children(animal)), len(inside), len(leaves)]
    counted = met.run("[...document.querySelectorAll('tbody tr')].map(r => [...r.cells].map(c => c.textContent))")
    assert counted == [[m.name, "–", str(sum(node in inside for node in m.nodes_on(tree)))] for m in maps]


def test_two_data_sets_pressed_show_the_nodes_where_their_labels_meet(met: Browser) -> None:
    tree = build_tree("coco", "voc")
    coco, voc = (set(label_maps()[name].nodes_on(tree).tolist()) for name in ("coco", "voc"))
    both = {tree.names[node] for node in coco & voc}
    for button in (0, 1):
        met.click(f"document.querySelectorAll('#maps button')[{button}]")
    found = met.run("[...document.querySelectorAll('.found')].map(f => f.textContent)")
    assert sorted(found) == sorted(both)
    assert met.run("said.textContent") == f"{len(both)} found"
    met.run("search.focus()")
    met.type("dog")  # a text and data sets narrow together
    assert met.run("[...document.querySelectorAll('.found')].map(f => f.textContent)") == ["dog"]


def test_a_label_is_found_by_what_its_data_set_calls_it(met: Browser) -> None:
    met.run("search.focus()")
    met.type("pottedplant")
    assert path(met)[-1] == "houseplant"
    met.run("search.select()")
    met.type("n02391049")
    assert path(met)[-1] == "zebra"
    met.type("nothing of the kind")
    assert met.run("said.textContent") == "none found"
    assert shown(met) == []
    met.press("Escape")
    assert path(met)[-1] == "zebra"


def test_a_link_to_an_id_opens_the_way_to_it(browser: Browser, tmp_path: Path) -> None:
    open_page(browser, tmp_path / "link.html", page(picture_of_tree(build_tree("coco"))))
    browser.run("location.hash = '#n02391049'")
    browser.run("new Promise(done => setTimeout(done))")
    assert path(browser)[-1] == "zebra"
    assert browser.run("document.querySelector('#node a').hash") == "#n02391049"


def test_a_large_tree_draws_what_is_open_and_finds_the_rest(browser: Browser, tmp_path: Path) -> None:
    wide, deep = 150, 150  # 22,651 nodes: 150 families of 150, and a forest's own root
    parents = [-1] * wide + [family for family in range(wide) for _ in range(deep)]
    tree = WordTree(
        [f"id{node}" for node in range(len(parents))], parents, [f"kind {node}" for node in range(len(parents))]
    )
    open_page(browser, tmp_path / "large.html", page(picture_of_tree(tree)))
    assert len(shown(browser)) == wide + 1  # the families stay folded
    browser.run("search.focus()")
    browser.type("id22000")
    parent = int(tree.parents[22000])
    assert shown(browser) == path(browser) == ["root", f"kind {parent}", "kind 22000"]
    browser.run("search.select()")
    browser.type("kind")
    assert browser.run("said.textContent") == "22,650 found, 200 shown"
    assert len(shown(browser)) == 201
    browser.press("Escape")
    browser.click("document.getElementById('unfold')")
    assert len(shown(browser)) == len(tree) + 1


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (360, "light"), (360, "dark")])
def test_words_can_be_read_at_any_width_in_light_and_dark(met: Browser, width: int, scheme: str) -> None:
    met.look(width, 740, scheme)
    assert met.run("document.documentElement.scrollWidth") <= width  # nothing hangs over the edge
    contrasts = met.run(CONTRASTS)
    assert len(contrasts) > 30
    assert min(contrasts) >= 4.5  # WCAG 2.2, level AA


# The contrast of every text with what lies behind it; a canvas turns each colour into numbers.
CONTRASTS = """(() => {
  const pen = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d');
  const luminance = color => {
    pen.fillStyle = color; pen.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if (color !== 'rgba(0, 0, 0, 0)') return color;
    }
    return 'white';
  };
  const texts = [...document.body.querySelectorAll('*:not(script, noscript)')].filter(e => e.offsetParent &&
    [...e.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  return texts.map(e => [luminance(getComputedStyle(e).color), luminance(behind(e))])
    .map(pair => (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05));
})()"""


def test_two_trees_fold_side_by_side_in_a_notebook(browser: Browser, tmp_path: Path) -> None:
    one, two = folds(picture_of_tree(build_tree("coco"))), label_maps()["voc"]._repr_html_()
    open_page(browser, tmp_path / "book.html", f"<!doctype html><meta charset=utf-8><div>{one}</div><div>{two}</div>")
    folded = "[...document.querySelectorAll('body > div')].map(d => d.querySelectorAll('details:not([open])').length)"
    before = browser.run(folded)
    browser.click("document.querySelectorAll('body > div')[1].querySelector('details:not([open]) > summary')")
    assert browser.run(folded) == [before[0], before[1] - 1]


def test_a_missing_browser_is_a_skip_here_and_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_browser() is None
    monkeypatch.delenv(NEEDED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no browser on PATH"):
        program()
    monkeypatch.setenv(NEEDED, "1")
    with pytest.raises(pytest.fail.Exception, match="no browser on PATH"):
        program()
