"""HTML elements; text is escaped unless it is `Html`."""

import base64
import html
from collections.abc import Iterable


class Html(str):
    """HTML source. Every other string is escaped when it goes into an element."""

    __slots__ = ()


_VOID = {"img", "meta", "source", "br"}


def tag(name: str, /, *children: str | Iterable[str], **attributes: str | int) -> Html:
    """Return an element. In names of attributes, _ becomes -, and a trailing _ is dropped. Lists of children join."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for key, value in attributes.items()
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: str | Iterable[str]) -> Html:
    """Return the concatenated children; escape those that are not `Html`."""
    parts = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(html.escape(child))
        else:
            parts.append(join(*child))
    return Html("".join(parts))


def isolated(text: str) -> Html:
    """Return foreign text whose writing direction does not affect the text around it."""
    return tag("bdi", text)


def table(head: Iterable[str], rows: Iterable[Iterable[str]], *, text: int = 1) -> Html:
    """Return a table that scrolls horizontally if it is too wide. The first `text` columns are words, not numbers."""

    def row(cells: Iterable[str], kind: str) -> Html:
        return tag(
            "tr",
            [
                tag(kind, isolated(cell)) if i < text else tag(kind, cell, class_="number")
                for i, cell in enumerate(cells)
            ],
        )

    body = [row(cells, "td") for cells in rows]
    return tag("div", tag("table", tag("thead", row(head, "th")), tag("tbody", body)), class_="scroll")


def picture(light: bytes, dark: bytes, size: tuple[float, float], alt: str) -> Html:
    """Return an embedded picture in two themes, of a size in inches. Print uses the light theme."""
    width, height = (round(96 * x) for x in size)
    return tag(
        "picture",
        tag("source", media="screen and (prefers-color-scheme: dark)", srcset=_data(dark)),
        tag("img", src=_data(light), alt=alt, width=width, height=height),
    )


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
