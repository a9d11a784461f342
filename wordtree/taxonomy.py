"""Where trees come from: WordNet's nouns, embedded or a copy of your own, or any networkx.DiGraph.

A taxonomy may give a thing several parents; the tree will have one of them.

A `Taxonomy` is a plain record of functions on ids; whoever has ids, names and "what stands above this" can make one.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from . import wordnet
from .errors import WordTreeError, unknown
from .graphs import SUFFIXES, read_taxonomy
from .hookspecs import hookimpl

if TYPE_CHECKING:
    import networkx

DOG = "n02084071"  # what a WordNet is known by: nearly every id of another version differs


@dataclass(frozen=True)
class Taxonomy:
    """A graph of kinds, as functions on ids.

    Attributes:
        name: what `build_tree(..., taxonomy=name)` calls it.
        root: the id that trees are rooted at by default; None where the parentless ids stand under the root.
        resolve: a label as a person writes it -> its id; raises WordTreeError where it is unknown or ambiguous.
        hypernyms: id -> the ids directly above, in the taxonomy's own order; empty at the top.
        name_of: id -> what a person reads.
        instance_hypernyms: id -> what it is an instance of, as the Sun is of star; None where there is no such thing.
        sort_name: id -> what "first by name" compares; `name_of` where None.
    """

    name: str
    root: str | None
    resolve: Callable[[str], str]
    hypernyms: Callable[[str], Sequence[str]]
    name_of: Callable[[str], str]
    instance_hypernyms: Callable[[str], Sequence[str]] | None = None
    sort_name: Callable[[str], str] | None = None

    def above(self, id_: str, instances: bool = True) -> list[str]:
        """The ids directly above: what it is a kind of, then what it is an instance of, where those are wanted."""
        of = self.instance_hypernyms if instances else None
        return [*self.hypernyms(id_), *(of(id_) if of else ())]


WORDNET = Taxonomy(
    name="wordnet",
    # Of 9k.tree's four roots all are, or collapse to, children of physical entity (YOLO9000's "physical object").
    root=wordnet.PHYSICAL_ENTITY,
    resolve=wordnet.id_of,
    hypernyms=wordnet.hypernyms,
    name_of=wordnet.name_of,
    instance_hypernyms=wordnet.instance_hypernyms,
    sort_name=wordnet.synset_name,
)


@hookimpl
def register_taxonomies() -> list[Taxonomy]:
    return [WORDNET]


def find_taxonomy(taxonomy: str | Path | Taxonomy | networkx.DiGraph[Any] | Any) -> Taxonomy:
    """The record for a registered name, a file, a copy of WordNet 3.0, a graph, or a record itself.

    Args:
        taxonomy: the name of a registered one; a file that `read_taxonomy` reads, by its suffix; another path to
            WordNet's files, or an nltk corpus reader, as `wordnet_from` takes them; a networkx.DiGraph; a Taxonomy.

    Raises:
        FileNotFoundError: no such file.
        WordTreeError: no such name, a file with a fault, no WordNet 3.0, or something that is no directed graph.

    Example:
        >>> find_taxonomy("wordnet").root
        'n00001930'
    """
    if isinstance(taxonomy, Taxonomy):
        return taxonomy
    if isinstance(taxonomy, str | Path) and Path(taxonomy).suffix in SUFFIXES:
        return from_networkx(read_taxonomy(taxonomy), name=str(taxonomy))
    if isinstance(taxonomy, str):
        from .plugins import taxonomies

        offered = taxonomies()
        if taxonomy in offered or not (os.sep in taxonomy or Path(taxonomy).exists()):
            return offered[taxonomy]
        taxonomy = Path(taxonomy)
    if isinstance(taxonomy, Path) or _is_reader(taxonomy):
        return wordnet_from(taxonomy)
    return from_networkx(taxonomy)


# ---------------------------------------------------------------------- a WordNet of your own


def wordnet_from(source: str | Path | Any, version: str | None = "3.0") -> Taxonomy:
    """WordNet's nouns from a copy of your own, as a taxonomy for `build_tree(..., taxonomy=...)`.

    WordNet 3.0 gives the same trees from any copy as from the embedded table.

    Args:
        source: a folder or .zip with `data.noun` and `index.noun`, there or where Princeton (`dict`), Debian
            (`/usr/share/wordnet`) or nltk (`corpora/wordnet`, `corpora/wordnet.zip`) puts them below it; or an nltk
            corpus reader, such as `nltk.corpus.wordnet`, which is asked as a tree needs it.
        version: the WordNet that it must be; None takes any. An id means another thing in another version, so label
            maps, which are written in WordNet 3.0's, fit no other.

    Raises:
        FileNotFoundError: no such folder or file.
        WordTreeError: no WordNet there, another version, or files that are cut short.

    Example:
        >>> wordnet_from("/usr/share/wordnet").resolve("domestic dog")  # doctest: +SKIP
        'n02084071'
    """
    if not isinstance(source, str | os.PathLike):
        return _from_reader(source, version)
    data, index = _noun_files(Path(source))
    found = wordnet.version_of(data)
    nouns = wordnet.read(data, index, f"WordNet {found}".rstrip())
    dog = nouns.name_of(DOG) if nouns.row(DOG) >= 0 else "no noun"
    seen = f"{len(nouns.numbers)} nouns, {DOG} is {dog}"
    _check_version(str(source), found, version, seen)
    if version == "3.0" and (len(nouns.numbers), dog) != (82_115, "dog"):
        raise WordTreeError(f"{source}: {seen}; WordNet 3.0 has 82115 and the dog; give files that are whole")
    return Taxonomy(
        name=_name(found),
        root=_physical_entity(nouns.candidates),
        resolve=nouns.id_of,
        hypernyms=nouns.hypernyms,
        name_of=nouns.name_of,
        instance_hypernyms=nouns.instance_hypernyms,
        sort_name=nouns.synset_name,
    )


def _name(version: str) -> str:
    """What a taxonomy is called; rules that are written in WordNet 3.0's ids hold for "wordnet" alone."""
    return "wordnet" if version == "3.0" else f"wordnet-{version or 'other'}"


def _physical_entity(candidates: Callable[[str], list[str]]) -> str | None:
    found = candidates("physical_entity.n.01")
    return found[0] if found else None


def _check_version(where: str, found: str, version: str | None, seen: str) -> None:
    if version is None or found == version:
        return
    told = f"WordNet {found}" if found else "a WordNet that names no version"
    raise WordTreeError(
        f"{where}: WordNet {version} was asked for, this is {told} ({seen}), whose ids mean other things; give a copy "
        f"of {version}, or say that you want this one: wordnet_from(..., version={found or None!r})"
    )


def _noun_files(path: Path) -> tuple[str, str]:
    """The text of data.noun and of index.noun in or below a folder or .zip."""
    if not path.exists():
        raise FileNotFoundError(f"no folder or file {str(path)!r}; give one that holds WordNet's data.noun")
    if path.is_dir():
        for below in ("", "dict", "wordnet", "corpora/wordnet"):
            if (path / below / "data.noun").exists():
                return _text(path / below / "data.noun"), _text(path / below / "index.noun")
        for below in ("wordnet.zip", "corpora/wordnet.zip"):
            if (path / below).exists():
                return _noun_files(path / below)
        raise WordTreeError(f"{path}: no data.noun in it; give WordNet's folder, such as /usr/share/wordnet")
    if path.name in ("data.noun", "index.noun"):
        return _noun_files(path.parent)
    if not zipfile.is_zipfile(path):
        raise WordTreeError(f"{path}: neither a folder nor a .zip; give one that holds WordNet's data.noun")
    with zipfile.ZipFile(path) as file:
        found = [PurePosixPath(name) for name in file.namelist() if PurePosixPath(name).name == "data.noun"]
        if not found:
            raise WordTreeError(
                f"{path}: no data.noun in it; give a .zip of WordNet's files, such as nltk's wordnet.zip"
            )
        folder = min(found, key=lambda name: len(name.parts)).parent
        try:
            data, index = (file.read(str(folder / name)) for name in ("data.noun", "index.noun"))
        except KeyError:
            raise WordTreeError(f"{path}: {folder / 'index.noun'} is not in it; give both noun files") from None
    return _decoded(path, data), _decoded(path, index)


def _text(path: Path) -> str:
    if not path.exists():
        raise FileNotFoundError(f"no file {str(path)!r}; WordNet's index.noun lies beside its data.noun: give both")
    return _decoded(path, path.read_bytes())


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WordTreeError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); give WordNet's own") from None


def _is_reader(source: Any) -> bool:
    """Whether something answers as nltk's WordNetCorpusReader does; to ask `nltk.corpus.wordnet` is to load it."""
    try:
        return hasattr(source, "synset_from_pos_and_offset")
    except LookupError as error:  # nltk's page-long banner: the corpus is not installed
        raise WordTreeError(
            f"taxonomy={source!r}: nltk finds no such corpus; nltk.download('wordnet') gets it, or give a path to "
            "WordNet's files, or leave taxonomy out: WordNet 3.0 is embedded"
        ) from error


def _from_reader(reader: Any, version: str | None) -> Taxonomy:
    """A taxonomy over an nltk corpus reader. Its hypernyms come from a set, in an order that is another in every
    process; they are sorted here, so that the reader decides nothing but what stands above what."""
    if not _is_reader(reader):
        raise WordTreeError(f"{reader!r} is no WordNet; give a folder or .zip with data.noun, or an nltk corpus reader")

    @cache
    def synset(id_: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nltk warns of an unknown id; the error below says more
            found = reader.synset_from_pos_and_offset("n", int(id_[1:])) if wordnet.ID.fullmatch(id_) else None
        if found is None:
            raise WordTreeError(f"no noun with the id {id_!r} in {name}; give an id, a word or a synset name of it")
        return found

    def ids(synsets: Sequence[Any]) -> list[str]:
        return [f"n{one.offset():08d}" for one in synsets]

    def senses_of(word: str) -> list[str]:
        # nltk takes plurals to their singulars; a label is one only where it is the word itself.
        found = reader.synsets(word, pos="n")
        return ids([one for one in found if word in (lemma.lower() for lemma in one.lemma_names())])

    def candidates(text: str) -> list[str]:
        if wordnet.ID.fullmatch(text):
            return ids([synset(text)])
        word = "_".join(text.lower().split())
        named = wordnet.SYNSET_NAME.fullmatch(word)
        if named:
            return senses_of(named[1])[int(named[2]) - 1 :][:1] if int(named[2]) else []
        return senses_of(word)

    def resolve(text: str) -> str:
        found = candidates(text)
        if len(found) > 1:
            senses = [(synset(id_).name(), id_, synset(id_).lemma_names()) for id_ in found]
            raise wordnet.several_senses(text, senses)
        if not found:
            raise wordnet.no_noun(text, name)
        return found[0]

    found = str(reader.get_version() or "")
    name = f"WordNet {found}".rstrip()
    dogs = ", ".join(ids(reader.synsets("dog", pos="n"))[:1])
    _check_version("the corpus reader", found, version, f"its first dog is {dogs or 'missing'}")
    if version == "3.0" and dogs != DOG:
        raise WordTreeError(f"the corpus reader's first dog is {dogs or 'missing'}; WordNet 3.0's is {DOG}; give that")
    return Taxonomy(
        name=_name(found),
        root=_physical_entity(candidates),
        resolve=resolve,
        hypernyms=lambda id_: sorted(ids(synset(id_).hypernyms())),
        name_of=lambda id_: str(synset(id_).lemma_names()[0]).replace("_", " "),
        instance_hypernyms=lambda id_: sorted(ids(synset(id_).instance_hypernyms())),
        sort_name=lambda id_: str(synset(id_).name()),
    )


# ---------------------------------------------------------------------- any graph


def from_networkx(graph: networkx.DiGraph[Any], name: str = "networkx") -> Taxonomy:
    """A taxonomy over a directed graph, edges parent -> child, read when asked.

    Node keys are the ids (as text); a node's attribute `name`, where it has one, is what people read and may write.
    The root is the one node without a parent; where there are several, they stand under an implicit root.

    Raises:
        WordTreeError: not a directed graph, or two nodes of one text.

    Example:
        >>> import networkx
        >>> graph = networkx.DiGraph([("thing", "animal"), ("thing", "pet"), ("animal", "dog"), ("pet", "dog")])
        >>> kinds = from_networkx(graph)
        >>> kinds.root, list(kinds.hypernyms("dog"))
        ('thing', ['animal', 'pet'])
    """
    if not getattr(graph, "is_directed", lambda: False)():
        raise WordTreeError(
            f"taxonomy={graph!r} is no directed graph; give a networkx.DiGraph with edges parent -> child, a Taxonomy, "
            "the name of a registered one, a path to WordNet's files or an nltk corpus reader"
        )
    node_of = {str(node): node for node in graph.nodes}
    if len(node_of) < len(graph):
        raise WordTreeError(
            f"{len(graph)} nodes of the graph have {len(node_of)} different texts; ids are unique as text"
        )
    if "" in node_of:
        raise WordTreeError("a node of the graph has an empty text; give every node an id")
    names = {id_: str(graph.nodes[node].get("name", id_)) for id_, node in node_of.items()}
    ids_of_name: dict[str, list[str]] = {}
    for id_, own in names.items():
        ids_of_name.setdefault(own.casefold(), []).append(id_)
    tops = [id_ for id_, node in node_of.items() if graph.in_degree(node) == 0]

    def resolve(text: str) -> str:
        if text in node_of:
            return text
        found = ids_of_name.get(text.casefold(), [])
        if len(found) > 1:
            raise WordTreeError(
                f"{text!r} names {len(found)} nodes of the graph; give an id instead: {', '.join(found)}"
            )
        if not found:
            raise unknown("node", text, dict.fromkeys((*names.values(), *node_of)))
        return found[0]

    return Taxonomy(
        name=name,
        root=tops[0] if len(tops) == 1 else None,
        resolve=resolve,
        hypernyms=lambda id_: [str(above) for above in graph.predecessors(node_of[id_])],
        name_of=names.__getitem__,
    )
