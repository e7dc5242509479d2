"""Tables of results in plain text."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass


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
    """A result that prints as a table."""

    @abc.abstractmethod
    def cells(self) -> Table:
        """Return the rows as texts in columns."""

    def table(self) -> str:
        """Return the rows as a table in plain text."""
        return str(self.cells())

    def __str__(self) -> str:
        return self.table()
