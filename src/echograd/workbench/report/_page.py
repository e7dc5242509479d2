"""A page of paragraphs, tables and figures."""

import base64
import dataclasses
import hashlib
import importlib.metadata
import importlib.resources
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from echograd import plot
from echograd._internal._files import make_folder, write_atomically

from ._html import Html, isolated, join, picture, table, tag

# At this width, in inches, labels are as large as the text of the page, and legible on a phone.
_WIDTH = 4.2
_GENERATOR = "echograd"
REMEDY = "Choose another folder (--out), or remove the obstacle."


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One figure.

    Attributes:
        name: name of the PNG file, without its ending.
        caption: text below the figure.
        alt: description for readers who cannot see the figure.
        size: width and height in inches.
        light: PNG image of the light theme.
        dark: PNG image of the dark theme.
    """

    name: str
    caption: str | Html
    alt: str
    size: tuple[float, float]
    light: bytes
    dark: bytes


def draw(
    name: str,
    paint: Callable[[Any, plot.Theme], Any],
    *,
    caption: str | Html,
    alt: str,
    height: float,
    rows: int = 1,
    **grid: Any,
) -> Drawing:
    """Draw a figure in both themes. `paint` gets the axes (one, or an array for several rows) and the colours."""

    def render(theme: Any) -> bytes:
        with plot.style(theme) as colours:
            fig, axes = plot.figure(_WIDTH, height, rows=rows, **grid)
            paint(axes, colours)
            return plot.png(fig)

    return Drawing(name, caption, alt, (_WIDTH, height), render("light"), render("dark"))


class Page:
    """A page, built part by part.

    Args:
        title: title of the page.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.drawings: list[Drawing] = []
        self._parts: list[Html] = []

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._parts.append(tag("h2", text))

    def text(self, *children: str, kind: str = "") -> None:
        """Add a paragraph."""
        self._parts.append(tag("p", *children, class_=kind) if kind else tag("p", *children))

    def code(self, text: str) -> None:
        """Add a block of code."""
        self._parts.append(tag("pre", tag("code", _visible(text)), dir="ltr"))

    def tiles(self, tiles: Sequence[tuple[str, str]]) -> None:
        """Add a row of large numbers with their names, the most important number first."""
        made = [
            tag("div", tag("dt", name), tag("dd", value), **({"class_": "lead"} if i == 0 else {}))
            for i, (name, value) in enumerate(tiles)
        ]
        self._parts.append(tag("dl", made, class_="tiles"))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, text: int = 1) -> None:
        """Add a table whose first `text` columns are words."""
        self._parts.append(table(head, rows, text=text))

    def figures(self, *drawings: Drawing) -> None:
        """Add figures side by side, or one below the other on a narrow screen."""
        self.drawings += drawings
        made = [tag("figure", picture(d.light, d.dark, d.size, d.alt), tag("figcaption", d.caption)) for d in drawings]
        self._parts.append(tag("div", made, class_="figures"))

    def html(self) -> str:
        """Return the whole document."""
        css = importlib.resources.files("echograd.workbench.report").joinpath("_page.css").read_text(encoding="utf-8")
        version = importlib.metadata.version("echograd")
        # The policy forbids scripts, external content and other styles, whatever a name contains.
        digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
        policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        head = join(
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=policy),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="generator", content=f"{_GENERATOR} {version}"),
            tag("title", self.title),
            tag("style", Html(css)),
        )
        body = join(tag("header", tag("h1", isolated(self.title))), tag("main", self._parts))
        return "<!doctype html>\n" + tag("html", tag("head", head), "\n", tag("body", body), lang="en") + "\n"

    def write(self, path: pathlib.Path) -> None:
        """Write the page atomically, and its figures as PNG files into `figures/` beside it.

        Raises:
            FileExistsError: another file has that name.
        """
        check_ours(path)
        figures = path.parent / "figures"
        make_folder(figures, REMEDY)
        for drawing in self.drawings:
            write_atomically(figures / f"{drawing.name}.png", lambda file, image=drawing.light: file.write(image))
        write_atomically(path, lambda file: file.write(self.html().encode()))


def _visible(text: str) -> str:
    """Return code with escapes in place of invisible characters, which could change the writing direction."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def check_ours(path: pathlib.Path) -> None:
    """Raise if the path is a file that is not a report of echograd."""
    if path.exists() and f'content="{_GENERATOR} ' not in path.read_text(encoding="utf-8", errors="replace")[:1000]:
        raise FileExistsError(
            f"{path} was not written by echograd and is not overwritten. Choose another folder (--out)."
        )
