"""Where trees come from: WordNet's nouns, or any networkx.DiGraph. A taxonomy may give a thing several parents.

A `Taxonomy` is a plain record of functions on ids; whoever has ids, names and "what stands above this" can make one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import wordnet
from .errors import WordTreeError, unknown
from .hookspecs import hookimpl

if TYPE_CHECKING:
    import networkx


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


def find_taxonomy(taxonomy: str | Taxonomy | networkx.DiGraph[Any]) -> Taxonomy:
    """The record for a registered name, a graph, or a record itself.

    Raises:
        WordTreeError: no such name, or something that is no directed graph.

    Example:
        >>> find_taxonomy("wordnet").root
        'n00001930'
    """
    if isinstance(taxonomy, Taxonomy):
        return taxonomy
    if isinstance(taxonomy, str):
        from .plugins import taxonomies

        return taxonomies()[taxonomy]
    return from_networkx(taxonomy)


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
            "or the name of a registered one"
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
