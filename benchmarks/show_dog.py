"""How long `wordtree show dog` takes as a whole process, and what the tree itself takes inside one.

    python benchmarks/show_dog.py

Prints the median of several runs beside that of `python -c pass`, and the load average.
"""

import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

RUNS = 9


def seconds(command: Sequence[str]) -> float:
    """The median wall time of a command, after one run that is not counted."""
    taken = []
    for run in range(RUNS + 1):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if run:
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    """Measure and print."""
    wordtree = str(Path(sys.executable).with_name("wordtree"))
    print(f"load average {os.getloadavg()[0]:.2f}, Python {sys.version.split()[0]}, median of {RUNS}")
    print(f"python -c pass              {seconds([sys.executable, '-c', 'pass']):.3f} s")
    print(f"python -c 'import numpy'    {seconds([sys.executable, '-c', 'import numpy']):.3f} s")
    print(f"wordtree show dog           {seconds([wordtree, 'show', 'dog']):.3f} s")

    from wordtree import build_tree, wordnet

    began = time.perf_counter()
    wordnet.hypernyms("n02084071")
    ready = time.perf_counter()
    tree = build_tree("imagenet1k")
    print(f"WordNet's table ready       {ready - began:.3f} s")
    built = time.perf_counter()
    print(f"build_tree('imagenet1k')    {built - ready:.3f} s, {len(tree)} nodes, the first call")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its root has hundreds of children
        tree = build_tree("imagenet21k")
    print(f"build_tree('imagenet21k')   {time.perf_counter() - built:.3f} s, {len(tree)} nodes")


if __name__ == "__main__":
    main()
