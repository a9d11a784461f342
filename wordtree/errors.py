"""The one exception users meet, shown under its public name."""

import difflib
from collections.abc import Iterable


class WordTreeError(ValueError):
    """Something asked for cannot be had. The message says what was asked, what was given, and what would do.

    Example:
        >>> from wordtree import label_maps
        >>> label_maps()["coc"]  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        wordtree.WordTreeError: no label map 'coc'; did you mean 'coco'? known: coco, imagenet1k, voc...
    """

    __module__ = "wordtree"


def unknown(kind: str, asked: str, known: Iterable[str]) -> WordTreeError:
    """The error for a name that is not among the known ones: names the nearest, lists up to twelve.

    Example:
        >>> str(unknown("mode", "papr", ["darknet", "paper"]))
        "no mode 'papr'; did you mean 'paper'? known: darknet, paper"
    """
    names = list(known)
    near = difflib.get_close_matches(asked, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return WordTreeError(f"no {kind} {asked!r}; {hint}known: {shown or 'none'}")
