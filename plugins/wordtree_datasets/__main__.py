"""`python -m wordtree_datasets lvis lvis_v1_val.json -o lvis.csv`: a data set's own files -> a label map, or a tree."""

import argparse
import os
import sys
import warnings
from pathlib import Path

from wordtree import WordTreeError, build_tree

from . import published

READERS = ("lvis", "objects365", "openimages", "v3det", "inaturalist")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m wordtree_datasets", description=__doc__)
    parser.add_argument("data_set", choices=READERS)
    parser.add_argument("files", nargs="+", type=Path, help="the data set's own; openimages takes its hierarchy too")
    parser.add_argument("-o", "--out", type=Path, help="the label map to write: .csv, .tsv, .yaml or .json")
    parser.add_argument("--tree", type=Path, help="the tree over its labels to write: .json, .csv or .tree")
    parser.add_argument(
        "--on-wordnet", action="store_true", help="inaturalist: joined to WordNet, to merge with others"
    )
    given = parser.parse_args()
    if len(given.files) > 1 + (given.data_set == "openimages"):
        parser.error(f"{given.data_set} is read from one file")
    if given.on_wordnet and given.data_set != "inaturalist":
        parser.error(f"{given.data_set} has no --on-wordnet; inaturalist has")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # all of it is in the list
            options = {"on_wordnet": True} if given.on_wordnet else {}
            found = getattr(published, given.data_set)(*given.files, **options)
        print(found)
        if given.out is not None:
            print(f"{found.labels.save(given.out)}: {len(found.labels)} labels")
        if given.tree is not None:
            tree = build_tree(found.labels, taxonomy=found.taxonomy)
            print(f"{tree.save(given.tree)}: {len(tree)} nodes")
        sys.stdout.flush()
    except BrokenPipeError:  # `... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (WordTreeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
