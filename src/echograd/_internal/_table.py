"""Tables of results in plain text."""

import abc
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx

from ._files import finite


@dataclass(frozen=True)
class Table:
    """Texts in columns.

    Attributes:
        head: titles of the columns.
        rows: texts of every row.
        sides: `<` (flush left) or `>` (flush right) for each column; columns beyond the text are flush right.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    sides: str = "<"

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        sides = self.sides.ljust(len(widths), ">")
        line = "  ".join(f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True))
        rule = ["-" * width for width in widths]
        return "\n".join(line.format(*cells).rstrip() for cells in (self.head, rule, *self.rows))


class Tabled(abc.ABC):
    """A result that is read as a table. Its rows are dictionaries or dataclasses."""

    @abc.abstractmethod
    def cells(self) -> Table:
        """Return the rows as texts in columns."""

    def table(self) -> str:
        """Return the rows as a table in plain text."""
        return str(self.cells())

    def json(self) -> str:
        """Return all attributes as JSON. NaN and infinities become null."""
        return json.dumps(finite(vars(self)), indent=1, allow_nan=False, default=_plain)

    def __str__(self) -> str:
        return self.table()


def _plain(x: Any) -> Any:
    """Return an array as a list, a row as a dictionary, and a module as text."""
    if hasattr(x, "tolist"):
        return finite(x.tolist())
    return repr(x) if isinstance(x, eqx.Module) else finite(vars(x))
