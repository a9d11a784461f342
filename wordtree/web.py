"""A picture as one self-contained HTML page: nested folds and a search box; nothing is fetched from anywhere."""

from __future__ import annotations

from html import escape

from .show import Picture

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, Helvetica, Arial, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
input { font: inherit; padding: .3rem .6rem; width: 20rem; max-width: 100% }
ul { list-style: none; margin: 0; padding-left: 1.3rem; border-left: 1px solid #8884 }
main > ul { padding-left: 0; border: 0 }
li.leaf { padding-left: 1.05rem }
summary { cursor: pointer }
small { color: #808790; margin-left: .5rem }
.marked { font-weight: 600; color: #0b8a5f }
.found { background: #ffd54f66; border-radius: .2rem }
.hidden { display: none }
"""

# Search: a row stays where its name, id or note holds the text; so does all above it, opened, and all below, folded.
_SCRIPT = """
const rows = [...document.querySelectorAll("li")];
const box = document.querySelector("input"), count = document.querySelector("output");
const folds = [...document.querySelectorAll("details")], open = folds.map(fold => fold.open);
box.addEventListener("input", () => {
  const text = box.value.trim().toLowerCase().replaceAll("_", " ");
  let found = 0;
  folds.forEach((fold, at) => fold.open = text ? false : open[at]);
  for (const row of rows) {
    row.classList.toggle("hidden", Boolean(text));
    row.querySelector("span").classList.remove("found");
  }
  if (text) for (const row of rows) {
    if (!row.dataset.text.includes(text)) continue;
    found += 1;
    row.querySelector("span").classList.add("found");
    row.querySelectorAll("li").forEach(below => below.classList.remove("hidden"));
    for (let up = row; up; up = up.parentElement.closest("li")) {
      up.classList.remove("hidden");
      const fold = up.parentElement.closest("details");
      if (fold) fold.open = true;
    }
  }
  count.textContent = text ? `${found} found` : "";
});
"""


def page(picture: Picture) -> str:
    """The picture as an HTML page; the rows above a marked one are open, and the first two levels.

    Example:
        >>> from wordtree.show import Row
        >>> "<summary>" in page(Picture("pets", (Row(-1, "pet"), Row(0, "dog", marked=True))))
        True
    """
    rows = picture.rows
    depth: list[int] = []
    children = [0] * len(rows)
    opened = [False] * len(rows)
    for at, row in enumerate(rows):
        depth.append(0 if row.parent < 0 else depth[row.parent] + 1)
        if row.parent >= 0:
            children[row.parent] += 1
        opened[at] = depth[at] < 2
    few = sum(row.marked for row in rows) == 1  # one node was asked for: open the way to it
    for row in rows:
        if row.marked and few:
            up = row.parent
            while up >= 0:
                opened[up] = True
                up = rows[up].parent

    parts: list[str] = []
    unclosed: list[int] = []  # depths of the folds that are open so far

    def close(down_to: int) -> None:
        while unclosed and unclosed[-1] >= down_to:
            unclosed.pop()
            parts.append("</ul></details></li>")

    for at, row in enumerate(rows):
        close(depth[at])
        name = f'<span class="marked">{escape(row.name)}</span>' if row.marked else f"<span>{escape(row.name)}</span>"
        beside = "".join(f"<small>{escape(part)}</small>" for part in (row.id, row.note) if part)
        text = escape(f"{row.name} {row.id} {row.note}".lower(), quote=True)
        if children[at]:
            state = " open" if opened[at] else ""
            parts.append(f'<li data-text="{text}"><details{state}><summary>{name}{beside}</summary><ul>')
            unclosed.append(depth[at])
        else:
            parts.append(f'<li class="leaf" data-text="{text}">{name}{beside}</li>')
    close(0)
    notes = "".join(f"<p>{escape(note)}</p>\n" for note in picture.notes)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(picture.title)}</title>\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<style>{_STYLE}</style>\n<h1>{escape(picture.title)}</h1>\n"
        '<p><input type="search" placeholder="search names and ids" aria-label="search"> <output></output></p>\n'
        "<main><ul>\n" + "\n".join(parts) + f"\n</ul></main>\n{notes}<script>{_SCRIPT}</script>\n</html>\n"
    )
