"""A picture as HTML: one self-contained page with folds and a search, and a small tree for a notebook.

The page is `data/page.html` with a picture's rows put in as JSON. Its script draws only the rows that are unfolded, so
that a tree of tens of thousands of nodes opens at once. A content policy inside the page forbids it to fetch anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from pathlib import Path

from .show import Picture, beside, some

_PAGE = Path(__file__).with_name("data") / "page.html"


def page(picture: Picture) -> str:
    """The picture as an HTML page: search, fold and unfold, the path, the counts and the labels of a node.

    The way to the marked row is open where one row alone is marked, else the first levels are.

    Example:
        >>> from wordtree.show import Row
        >>> made = page(Picture("pets", (Row(-1, "pet"), Row(0, "dog", marked=True))))
        >>> made.startswith("<!doctype html>"), "http://" in made, "https://" in made
        (True, False, False)
    """
    rows = picture.rows
    marked = [at for at, row in enumerate(rows) if row.marked]
    content = {
        "maps": picture.maps,
        "parents": [row.parent for row in rows],
        "names": [row.name for row in rows],
        "ids": [row.id for row in rows],
        "notes": [row.note for row in rows],
        "marked": [int(row.marked) for row in rows],
        "labels": {at: row.labels for at, row in enumerate(rows) if row.labels},
        "start": marked[0] if len(marked) == 1 else -1,
    }
    template = _PAGE.read_text(encoding="utf-8")
    parts = {
        "policy": _policy(template),
        "title": escape(picture.title),
        "about": escape("".join(picture.notes[:1])),
        "notes": escape("\n".join(picture.notes[1:])),
        "rows": json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return re.sub(r"{{(\w+)}}", lambda part: parts[part[1]], template)


def _policy(template: str) -> str:
    """The page's content policy: its own style and its own script, by their hashes, and nothing else from anywhere."""
    allowed = []
    for kind in ("style", "script"):
        (inside,) = re.findall(rf"<{kind}>(.*?)</{kind}>", template, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        allowed.append(f"{kind}-src 'sha256-{digest}'")
    return "; ".join(["default-src 'none'", *allowed, "base-uri 'none'", "form-action 'none'"])


def folds(picture: Picture, most: int = 200) -> str:
    """The picture as a small foldable tree for a notebook: nested `details`, no script, no style sheet, no ids.

    Args:
        picture: what is drawn; the rest is told in a note where it has more than `most` rows.
        most: rows at most.

    Example:
        >>> from wordtree.show import Row
        >>> folds(Picture("pets", (Row(-1, "pet"), Row(0, "dog")))).count("<details")
        1
    """
    cut = some(picture, most)
    inside = {row.parent for row in cut.rows}
    depth: list[int] = []
    parts: list[str] = []
    for at, row in enumerate(cut.rows):
        before = depth[-1] if depth else 0
        depth.append(depth[row.parent] + 1 if row.parent >= 0 else 0)
        if at and at - 1 != row.parent:
            parts.append("</div></details>" * (before - depth[at]))
        name = f"<b>{escape(row.name)}</b>" if row.marked else escape(row.name)
        words = "&ensp;".join(escape(part) for part in beside(row, cut.maps))
        line = f'{name}&ensp;<small style="opacity:.65">{words}</small>' if words else name
        if at in inside:
            state = " open" if depth[at] < 2 else ""
            parts.append(
                f'<details{state}><summary style="cursor:pointer">{line}</summary>'
                '<div style="margin-left:.45em;padding-left:1em;border-left:1px solid #8885">'
            )
        else:
            parts.append(f'<div style="padding-left:1em">{line}</div>')
    parts.append("</div></details>" * depth[-1])
    notes = "".join(f"<div><small>{escape(note)}</small></div>" for note in cut.notes)
    return f'<div style="line-height:1.5"><div><b>{escape(cut.title)}</b></div>{"".join(parts)}{notes}</div>'
