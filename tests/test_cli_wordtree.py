"""The command `wordtree`, as users type it."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from wordtree import LabelMap, WordTree, __version__, build_tree
from wordtree.cli import main

COMMANDS = ("show", "build", "merge", "check", "labels", "plugins")


def wordtree(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What a command prints, run in this process; it must succeed, and say nothing on stderr."""
    main([str(argument) for argument in arguments])
    out, error = capsys.readouterr()
    assert error == ""
    return out


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line on stderr of a command that fails with exit code 2 and prints nothing else."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    out, error = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def process(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """The installed program."""
    program = Path(sys.executable).with_name("wordtree")
    return subprocess.run([program, *arguments], capture_output=True, text=True, **options)


def test_the_program_is_installed_and_has_a_version() -> None:
    run = process("--version")
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, __version__, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: wordtree {command}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    assert f"    {command} " in capsys.readouterr().out


def test_a_command_leaves_the_process_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = warnings.formatwarning
    wordtree(capsys, "labels", "voc")
    fails(capsys, "labels", tmp_path / "gone.csv")
    assert warnings.formatwarning is before


def test_show_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    out = wordtree(capsys, "show", "dog")
    assert "└─ dog  n02084071" in out
    assert "'dog' has 7 senses" in out


def test_show_a_map_and_a_node_of_a_tree(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = wordtree(capsys, "show", "coco")
    assert out.startswith("coco: 80 labels\n\nphysical entity\n")
    assert "cattle  n02402425  = cow\n" in out
    tree = build_tree("coco", "voc", ["penguin.n.01"])
    tree.save(tmp_path / "t.json")
    on = wordtree(capsys, "show", "coco", "--tree", tmp_path / "t.json")
    assert "zebra" in on
    assert "penguin" not in on  # on the tree, but not what COCO knows
    node = wordtree(capsys, "show", "penguin", "--tree", tmp_path / "t.json")
    assert f"node {tree.find('penguin')}\n" in node
    assert "bird  n01503061\n" in node
    assert "no node 'quark'" in fails(capsys, "show", "quark", "--tree", tmp_path / "t.json")


@pytest.mark.parametrize(("format", "head"), [("svg", "<svg "), ("html", "<!doctype html>")])
def test_show_as_a_picture(format: str, head: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert wordtree(capsys, "show", "dog", "--format", format).startswith(head)
    assert wordtree(capsys, "show", "coco", "--format", format, "-o", tmp_path / "out") == ""
    assert (tmp_path / "out").read_text().startswith(head)


def test_build_writes_a_tree(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("label,id\nstork,stork.n.01\n")
    out = wordtree(capsys, "build", "coco", tmp_path / "mine.csv", "penguin.n.01", "-o", tmp_path / "t.json")
    tree = WordTree.load(tmp_path / "t.json")
    assert tree == build_tree("coco", ["stork.n.01", "penguin.n.01"])
    assert (
        out == f"{tmp_path / 't.json'}: {len(tree)} nodes, {len(tree.group_start)} groups, " + out.split("groups, ")[1]
    )
    assert "1369 nodes" in wordtree(capsys, "build", "imagenet1k")
    wordtree(capsys, "build", "imagenet1k", "--rules", "darknet", "-o", tmp_path / "d.tree")
    assert WordTree.load(tmp_path / "d.tree") == build_tree("imagenet1k", rules="darknet")
    told = wordtree(capsys, "build", "coco", "--root", "entity", "--report")
    assert told.startswith("80 labels, taxonomy 'wordnet', rules 'paper', root entity (n00001740)\n")


def test_merge_and_labels(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = wordtree(capsys, "merge", "coco", "voc", "-o", tmp_path / "both.csv")
    both = LabelMap.read(tmp_path / "both.csv")
    assert out == f"{tmp_path / 'both.csv'}: {len(both)} labels, {len(set(both.ids))} different ids\n"
    assert {"tv", "tvmonitor", "person"} <= set(both.labels)
    assert wordtree(capsys, "merge", "coco", "voc") == (tmp_path / "both.csv").read_text()
    listed = [line.split() for line in wordtree(capsys, "labels").splitlines()]
    assert ["coco", "80", "labels"] in listed
    assert wordtree(capsys, "labels", "voc").splitlines()[:2] == ["label,id", "aeroplane,n02691156"]
    assert "no label map 'coc'; did you mean 'coco'" in fails(capsys, "labels", "coc")


def test_build_takes_each_part_of_a_rule(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    parts = ("--tie", "by name", "--hoist", "--no-collapse", "--no-instances")
    wordtree(capsys, "build", "coco", "voc", *parts, "-o", tmp_path / "tree.csv")
    whole = build_tree("coco", "voc", tie="by name", hoist=True, collapse=False, instances=False)
    assert WordTree.load(tmp_path / "tree.csv") == whole
    assert "no tie 'longer'; known: by name, shorter" in fails(capsys, "build", "coco", "--tie", "longer")


def test_build_reports_what_several_maps_share(capsys: pytest.CaptureFixture[str]) -> None:
    told = wordtree(capsys, "build", "coco", "voc", "--report")
    assert "nodes with labels of several maps: 19" in told
    assert "voc: 20 labels on 20 nodes, knows" in told
    assert "nodes with labels" not in wordtree(capsys, "build", "coco", "--report")


def test_merge_reports_where_maps_meet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    told = wordtree(capsys, "merge", "coco", "imagenet1k", "--report")
    assert told.startswith("coco: 80 labels on 80 nodes, knows ")
    assert "  coco/dog above 118 of imagenet1k: Chihuahua" in told
    assert "  kite: n03621473 (plaything > kite) in coco, n01608432 (bird of prey > kite) in imagenet1k\n" in told
    both = wordtree(capsys, "merge", "coco", "imagenet1k", "--report", "-o", tmp_path / "both.yaml")
    merged = LabelMap.read(tmp_path / "both.yaml")
    assert both == f"{told}{tmp_path / 'both.yaml'}: {len(merged)} labels, {len(set(merged.ids))} different ids\n"
    assert "give two or more" in fails(capsys, "merge", "coco", "--report")


def test_labels_are_saved_by_suffix(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for suffix in ("csv", "tsv", "yaml", "json"):
        path = tmp_path / f"coco.{suffix}"
        assert wordtree(capsys, "labels", "coco", "-o", path) == f"{path}: 80 labels\n"
        assert wordtree(capsys, "labels", path) == wordtree(capsys, "labels", "coco")


def test_names_are_guessed_reviewed_and_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names, review = tmp_path / "names.txt", tmp_path / "review.csv"
    names.write_text("zebra\nharbour crane\n")
    assert (
        wordtree(capsys, "labels", "--guess", names, "-o", review)
        == f"{review}: 2 names: 1 filled in, 1 left for you to decide\n"
    )
    assert wordtree(capsys, "labels", "--guess", names) == review.read_text()
    assert "line 3 (harbour crane)" in fails(capsys, "labels", review)
    assert "there already" in fails(capsys, "labels", "--guess", names, "-o", review)
    review.write_text(review.read_text().replace("\nharbour crane,,", "\nharbour crane,crane.n.04,"))
    assert wordtree(capsys, "labels", review) == "label,id\nzebra,n02391049\nharbour crane,n03126707\n"
    assert "give one of the two" in fails(capsys, "labels", "coco", "--guess", names)
    assert "no list of names" in fails(capsys, "labels", "--guess", tmp_path / "gone.txt")


def test_check_tells_what_a_file_holds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("t.tree", "t.json", "t.csv"):
        build_tree("coco").save(tmp_path / name)
        assert "a tree of " in wordtree(capsys, "check", tmp_path / name)
    (tmp_path / "m.csv").write_text("label,id\na,n02084071\nb,n02084071\n")
    assert wordtree(capsys, "check", tmp_path / "m.csv").endswith("a label map of 2 labels, 1 different ids\n")


def test_plugins_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = wordtree(capsys, "plugins").splitlines()
    assert any(line.split()[::3] == ["datasets", "register_label_maps"] for line in lines)
    assert any(line.startswith("label maps: coco, imagenet1k, ") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["show", "dgo"], "no label map 'dgo'"),
        (["show", "dgo"], "no noun 'dgo' in WordNet 3.0; did you mean"),
        (["show", "dog", "--tree", "gone.json"], "no file 'gone.json'"),
        (["show", "gone.csv"], "no label map 'gone.csv'"),
        (["build", "coc", "-o", "t.json"], "no label map 'coc'; did you mean 'coco'?"),
        (["build", "dog", "-o", "t.json"], "'dog' has 7 senses"),
        (["build", "coco", "-o", "t.xml"], "no tree format '.xml'"),
        (["build", "coco", "-o", "gone/t.json"], "no folder 'gone'"),
        (["build", "coco", "--rules", "papr", "-o", "t.json"], "no rules 'papr'; did you mean 'paper'?"),
        (["build", "coco", "--taxonomy", "wordnt", "-o", "t.json"], "no taxonomy 'wordnt'"),
        (["merge", "coco", "nothing", "-o", "t.csv"], "no label map 'nothing'"),
        (["check", "gone.json"], "no file 'gone.json'"),
    ],
)
def test_an_error_is_one_line_and_nothing_is_written(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert text in fails(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_process_itself_ends_with_two_and_no_traceback() -> None:
    run = process("build", "coc")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("error: no label map 'coc'")
    run = process("show", "dog", "--format", "pdf")
    assert run.returncode == 2
    assert "invalid choice: 'pdf'" in run.stderr


def test_a_terminal_without_unicode_gets_plain_lines() -> None:
    run = process("show", "zebra", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert run.returncode == 0
    assert "`- physical entity" in run.stdout


def test_a_reader_that_stops_early_is_no_fault() -> None:
    program = Path(sys.executable).with_name("wordtree")
    code = f"{program} show imagenet1k | head -n 1"
    run = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("imagenet1k: 1000 labels\n", "")
