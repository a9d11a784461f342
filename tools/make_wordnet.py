"""Make the noun table that wordtree carries, from Princeton's own WordNet 3.0 files.

    python tools/make_wordnet.py path/to/data.noun

`index.noun` is read from beside `data.noun`: it alone knows the sense numbers. Both must be Princeton's to the byte.
Writes `wordtree/data/wordnet-3.0-nouns.npz` and, from the notice that heads the file, `LICENSE-WordNet-3.0`
beside it. The same input gives the same bytes: the archive carries no clock time.

What a line of data.noun holds is described in WordNet's own manual page wndb(5WN); `wordtree.wordnet.read` reads it.
"""

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wordtree import wordnet
from wordtree.wordnet import Nouns

SHA256 = {
    "data.noun": "489f145e0f68877c0be5bd0eb4117adaaac52f38f6204eb8d85dbe2158b614cc",
    "index.noun": "a490d99d93d017bf4822fe2f0ffa51fd73911ce271dc7535fade21f8814b5a04",
}
OUT = Path(__file__).resolve().parent.parent / "wordtree" / "data"


def read(path: Path) -> str:
    """The text of a WordNet file, refused unless the bytes are Princeton's."""
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256[path.name]:
        raise SystemExit(f"{path}: sha256 {found} is not WordNet 3.0's {SHA256[path.name]}; give Princeton's own file")
    return data.decode("ascii")


def licence(data: str) -> str:
    """The notice at the head of data.noun, without its line numbers."""
    head = [line for line in data.splitlines() if line.startswith("  ")]
    return "\n".join(line.split(maxsplit=1)[1].rstrip() if len(line.split()) > 1 else "" for line in head) + "\n"


def table(nouns: Nouns) -> dict[str, NDArray[np.generic]]:
    """The arrays of the archive, a row a synset in ascending order of id; ids and hypernyms as small steps."""
    counts = np.diff(nouns.parent_starts)
    return {
        "id_steps": np.diff(nouns.numbers, prepend=0).astype(np.uint16),
        "lemmas": np.frombuffer("\n".join(nouns.texts).encode("ascii"), dtype=np.uint8),
        "senses": nouns.senses.astype(np.uint8),
        "parent_counts": counts.astype(np.uint8),
        "parent_steps": (np.repeat(np.arange(len(counts)), counts) - nouns.parents).astype(np.int32),
        "instance": np.packbits(nouns.instance),
    }


def archive(arrays: dict[str, NDArray[np.generic]]) -> bytes:
    """An .npz of the arrays with a fixed date in every entry (numpy's own writer stamps the clock)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type, info.create_system = zipfile.ZIP_DEFLATED, 3
            file.writestr(info, entry.getvalue(), compresslevel=9)
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_noun", type=Path, help="Princeton's data.noun; index.noun lies beside it")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write to (default: wordtree/data)")
    given = parser.parse_args()
    data, index = read(given.data_noun), read(given.data_noun.with_name("index.noun"))
    written = archive(table(wordnet.read(data, index)))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "wordnet-3.0-nouns.npz").write_bytes(written)
    (given.out / "LICENSE-WordNet-3.0").write_text(licence(data))
    print(f"wordnet-3.0-nouns.npz: {len(written)} bytes, sha256 {hashlib.sha256(written).hexdigest()}")


if __name__ == "__main__":
    main()
