"""A garden's species, their places in Linnaeus' system, and a detector small enough to read."""

from pathlib import Path

from wordtree import LabelMap, hookimpl, read_taxonomy
from wordtree.plugins import Detector
from wordtree.taxonomy import from_networkx

SPECIES = Path(__file__).with_name("species.csv")


@hookimpl
def register_label_maps():
    return [LabelMap.read(SPECIES, "garden")]


@hookimpl
def register_taxonomies():
    return [from_networkx(read_taxonomy(SPECIES), "garden")]


@hookimpl
def register_detectors():
    return [Detector("garden/tiny", build, "one box a cell, three convolutions")]


def build(tree, **options):
    from .detector import Tiny  # torch is imported here: to be listed must not cost it

    return Tiny(tree, **options)
