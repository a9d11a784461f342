"""How often `LabelMap.guess` finds the synset that a person chose, on the label maps whose labels are a data set's own.

    python benchmarks/guess.py

The map that is guessed at is left out of what the guess may ask, and so is the map whose table was made with it (COCO's
and VOC's ids were chosen together). Maps that are not registered are left out. Every figure is of this command.
"""

from collections import defaultdict

from wordtree import LabelMap, label_maps
from wordtree.guess import MOST_SHOWN, WAYS, Guess, guess

MEASURED = ("coco", "voc", "imagenet_det", "lvis", "openimages", "objects365")
TOGETHER = {"coco": {"coco", "voc"}, "voc": {"coco", "voc"}}


def guessed(labels: LabelMap) -> list[tuple[Guess, str]]:
    """Each guess at a map's labels, made without that map, and the id that the map has."""
    hidden = TOGETHER.get(labels.name, {labels.name})
    maps = [one for name, one in label_maps().items() if name not in hidden]
    return list(zip(guess(labels.labels, maps), labels.ids, strict=True))


def share(right: int, of: int) -> str:
    return f"{right / of:6.1%}" if of else "     -"


def main() -> None:
    """Measure and print."""
    offered = label_maps()
    by_way: dict[str, list[bool]] = defaultdict(list)
    print(f"registered: {', '.join(sorted(offered))}")
    print("                 names   right   filled in, right   among those shown")
    for name in MEASURED:
        if name not in offered:
            continue
        pairs = guessed(offered[name])
        right = [one.ids[:1] == (id_,) for one, id_ in pairs]
        filled = [hit for hit, (one, _) in zip(right, pairs, strict=True) if one.id]
        shown = sum(id_ in one.ids[: MOST_SHOWN + 1] for one, id_ in pairs)
        print(
            f"{name:<14}{len(pairs):>8}  {share(sum(right), len(pairs))}   {len(filled):>9}  "
            f"{share(sum(filled), len(filled))}              {share(shown, len(pairs))}"
        )
        for hit, (one, _) in zip(right, pairs, strict=True):
            way = next((way for way in WAYS if one.why == way), "any of these, of the name in another spelling")
            by_way[way].append(hit)
    print("\nright by way, all maps together")
    for way in (*WAYS, *sorted(by_way.keys() - WAYS)):
        if by_way[way]:
            sure = f"confidence {WAYS[way]:.2f}" if way in WAYS else ""
            print(f"{way:<48}{len(by_way[way]):>5}  {share(sum(by_way[way]), len(by_way[way]))}  {sure}")


if __name__ == "__main__":
    main()
