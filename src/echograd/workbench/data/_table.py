"""Tables in text files: separators, headers, decimal commas, and clear errors for what is wrong with them."""

import csv
import dataclasses
import difflib
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from . import _reading
from ._cases import number_of, numbers_of
from ._errors import DataError

MISSING = ("", "?", "na", "n/a", "nan", "null", "none")
_SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "bars"}
_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_NAMED_HERE = 12  # columns that a message lists


@dataclasses.dataclass
class Table:
    """The rows of a text file as stripped text, all of the same width.

    Attributes:
        path: the file.
        header: the names of the columns; () if the file has none.
        rows: the number of the line and the cells of every row.
        notes: sentences about how the file was read.
    """

    path: pathlib.Path
    header: tuple[str, ...]
    rows: list[tuple[int, list[str]]]
    notes: list[str]

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.header) or len(self.rows[0][1])

    def name(self, column: int) -> str:
        """Return the name of a column for a message."""
        return repr(self.header[column]) if self.header else f"number {column + 1}"

    def find(self, name: str, option: str) -> int:
        """Return the index of the column with a name, or a number from 1, or "last"; or raise."""
        if name in self.header:
            return self.header.index(name)
        folded = [other.casefold() for other in self.header]
        if folded.count(name.casefold()) == 1:
            return folded.index(name.casefold())
        if not self.header and (name == "last" or (name.isdigit() and 1 <= int(name) <= self.width)):
            return self.width - 1 if name == "last" else int(name) - 1
        if not self.header:
            raise DataError(
                f"{self.path} has no header, so {option}={name!r} must be the number of a column, from 1 to "
                f"{self.width}, or 'last'. Or write a first line with names."
            )
        close = difflib.get_close_matches(name, self.header, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise DataError(f"{self.path} has no column {name!r} ({option}).{hint} It has {self.listed()}.")

    def among(self, names: tuple[str, ...]) -> list[int]:
        """Return the columns whose names are among `names`, in upper or lower case."""
        return [i for i, name in enumerate(self.header) if name.casefold() in names]

    def listed(self) -> str:
        """Return the names of the columns for a message."""
        more = f" and {len(self.header) - _NAMED_HERE} more" if len(self.header) > _NAMED_HERE else ""
        return ", ".join(map(repr, self.header[:_NAMED_HERE])) + more

    def numbers(self, line: int, cells: list[str], columns: list[int]) -> np.ndarray:
        """Return cells of a row as float64, missing ones as NaN; or raise with the line and the column."""
        try:
            return numbers_of(cells, "")
        except DataError:
            pass
        found = np.empty(len(cells))
        for i, (cell, column) in enumerate(zip(cells, columns, strict=True)):
            try:
                found[i] = np.nan if is_missing(cell) else number_of(cell, "")
            except DataError:
                place = self.header[column] if self.header else column + 1
                raise DataError(
                    f"{self.path}, line {line}: column {self.name(column)} holds {cell[:30]!r}, which is not a number. "
                    f"If it is the label or the group, name it (--label {place}, --group {place}); otherwise remove it."
                ) from None
        return found

    def text_columns(self) -> list[int]:
        """Return the columns that hold anything but numbers and missing values."""
        return [i for i in range(self.width) if not all(_is_number(cells[i]) for _, cells in self.rows)]


def is_missing(cell: str) -> bool:
    """Return whether a cell says that there is no value."""
    return cell.casefold() in MISSING


def _is_number(cell: str) -> bool:
    try:
        return is_missing(cell) or number_of(cell, "") is not None
    except DataError:
        return False


def read_table(path: pathlib.Path, known: tuple[str, ...]) -> Table:
    """Read a table of comma-, semicolon-, tab- or blank-separated values.

    Args:
        path: the file.
        known: names, in lower case, that make the first line a header even if the others look like it.

    Raises:
        OSError: the file cannot be read.
        DataError: the file is empty, not text, or its rows have different numbers of cells.
    """
    with _reading.open_file(path) as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path} is in UTF-16. Save it as UTF-8 (in a spreadsheet: CSV UTF-8).")
    notes: list[str] = []
    rows = _rows(path)
    if not rows:
        raise DataError(f"{path} is empty. A table needs one row for each case or step.")
    rows = _points(path, rows, notes)
    header = _header(rows, known)
    rows = rows[1:] if header else rows
    if not rows:
        raise DataError(f"{path} has a header ({', '.join(header)[:80]}) and no rows below it.")
    table = Table(path, header, rows, notes)
    _even(table)
    _drop_unnamed(table)
    twice = {name for name in table.header if table.header.count(name) > 1}
    if twice:
        name = min(twice)
        at = [i + 1 for i, other in enumerate(table.header) if other == name]
        raise DataError(f"{path}: columns {at[0]} and {at[1]} have the same name {name!r}. Rename or remove one.")
    return table


def _lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file; comments at the beginning are blank."""
    begun = False
    for number, line in _reading.lines(path):
        if "\0" in line:
            raise DataError(
                f"{path}, line {number}: holds a NUL character. The file is not a text file, or is damaged."
            )
        if "\ufffd" in line:
            raise DataError(
                f"{path}, line {number}: not UTF-8, so different names could become equal. Save it as UTF-8."
            )
        begun = begun or not (line.startswith("#") or not line.strip())
        yield number, line if begun else "\n"


def _rows(path: pathlib.Path) -> list[tuple[int, list[str]]]:
    """Return line number and stripped cells of all rows that are not blank."""
    lines = _lines(path)
    skipped, first = 0, ""
    for number, line in lines:
        skipped, first = number - 1, line
        if line.strip():
            break
    named = re.fullmatch(r"sep=(.)\s*", first)  # a spreadsheet's own line
    outside = re.sub(r'"[^"]*"', "", first)
    separator = named[1] if named else next((mark for mark in _SEPARATORS if mark in outside), None)
    if named:
        skipped, first = skipped + 1, ""

    def text() -> Iterator[str]:
        if first:
            yield first
        for _, line in lines:
            yield line

    if separator is None:
        found = [(skipped + i, line.split()) for i, line in enumerate(text(), start=1)]
        return [(number, [cell.strip('"') for cell in cells]) for number, cells in found if cells]
    reader = csv.reader(text(), delimiter=separator, strict=True, skipinitialspace=True)
    rows = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                rows.append((skipped + reader.line_num, cells))
    except csv.Error as error:
        raise DataError(
            f"{path}, line {skipped + reader.line_num}: {error}. Is a quotation mark missing in this line or before it?"
        ) from None
    return rows


def _points(path: pathlib.Path, rows: list[tuple[int, list[str]]], notes: list[str]) -> list[tuple[int, list[str]]]:
    """Return rows with decimal points for decimal commas."""
    first = next(((line, cell) for line, cells in rows for cell in cells if _COMMA.fullmatch(cell)), None)
    if first is None:
        return rows
    for line, cells in rows:
        for cell in cells:
            if "." in cell and _is_number(cell.replace(",", "")):
                raise DataError(
                    f"{path}: line {first[0]} has {first[1]!r} with a comma, and line {line} {cell!r} with a point. "
                    "Write all numbers with decimal points, and no separators of thousands."
                )
    notes.append(f"Commas in numbers are read as decimal points ({first[1]} in line {first[0]}).")
    return [
        (line, [cell.replace(",", ".") if _COMMA.fullmatch(cell) else cell for cell in cells]) for line, cells in rows
    ]


def _header(rows: list[tuple[int, list[str]]], known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the cells of the first row if they are names, or ()."""
    first = rows[0][1]
    below = rows[1][1] if len(rows) > 1 else ["0"] * len(first)
    names = any(cell.casefold() in known for cell in first)
    differ = any(not _is_number(a) and _is_number(b) for a, b in zip(first, below, strict=False))
    return tuple(first) if names or differ else ()


def _even(table: Table) -> None:
    """Give all rows the width of the header, or of the first row; only empty cells at the end may be too many."""
    width = table.width
    while (
        table.header
        and not table.header[-1]
        and all(not any(cells[len(table.header) - 1 :]) for _, cells in table.rows)
    ):
        table.header = table.header[:-1]
        width = len(table.header)
    for line, cells in table.rows:
        while len(cells) > width and not cells[-1]:
            cells.pop()
        if len(cells) != width:
            first = "the header" if table.header else f"line {table.rows[0][0]}"
            raise DataError(
                f"{table.path}, line {line}: {len(cells)} cells, but {first} has {width}. Is the line truncated, or a "
                "separator missing? Fill up shorter series with empty cells at the end."
            )


def _drop_unnamed(table: Table) -> None:
    """Drop a first column without a name that numbers the rows; refuse other columns without a name."""
    if table.header and not table.header[0] and len(table.header) > 1:
        counted = [cells[0] for _, cells in table.rows]
        if counted in ([str(i + start) for i in range(len(counted))] for start in (0, 1)):
            table.header = table.header[1:]
            table.rows = [(line, cells[1:]) for line, cells in table.rows]
            table.notes.append("The first column has no name and numbers the rows; it is left out.")
    if "" in table.header:
        raise DataError(
            f"{table.path}: column {table.header.index('') + 1} has no name in the header. Name it, or remove it."
        )
