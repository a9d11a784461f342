"""YOLO9000's own tree, the one that its released weights were trained on, and its two maps.

The facts are those of Darknet's data/9k.tree, 9k.names, coco9k.map and inet9k.map, kept as tables of our own in
`data/official/` (tools/make_darknet.py makes them). Names are WordNet's first words but for three that are kept too.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from wordtree import LabelMap, WordTree, wordnet

FOLDER = Path(__file__).with_name("data") / "official"


@cache
def official_tree() -> WordTree:
    """The tree of 9418 nodes that YOLO9000 was released with, in Darknet's order: node = class of the weights.

    `official_tree().save("9k.tree")` writes Darknet's 9k.tree and 9k.names to the byte.

    Example:
        >>> tree = official_tree()
        >>> len(tree), [tree.names[node] for node in tree.path(tree.find("Norfolk terrier"))][-3:]
        (9418, ['hunting dog', 'terrier', 'Norfolk terrier'])
    """
    with np.load(FOLDER / "9k.npz", allow_pickle=False) as file:
        numbers, parents, other_names = file["numbers"], file["parents"], file["other_names"]
    other = dict(line.split(" ", 1) for line in other_names.tobytes().decode().split("\n"))
    ids = [f"n{number:08d}" for number in numbers.tolist()]
    names = [other.get(id_) or wordnet.name_of(id_) for id_ in ids]
    return WordTree(ids, parents, names, root_name=wordnet.name_of(wordnet.PHYSICAL_ENTITY))


@cache
def official_maps() -> dict[str, LabelMap]:
    """The label maps that YOLO9000 was released with: `coco9k`, by which COCO's classes were learnt, and `inet9k`, by
    which ImageNet DET's were evaluated.

    `official_maps()["coco9k"].nodes_on(official_tree())` is Darknet's coco9k.map. A class of COCO that the tree lacks
    has the nearest node there: sink is faucet, fire hydrant plumbing fixture. The map `coco` says what they are.

    Example:
        >>> {name: len(labels) for name, labels in official_maps().items()}
        {'coco9k': 80, 'inet9k': 200}
    """
    return {name: LabelMap.read(FOLDER / f"{name}.csv") for name in ("coco9k", "inet9k")}
