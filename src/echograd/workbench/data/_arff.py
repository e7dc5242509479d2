"""Reader of Weka's .arff files, a format of the UCR and UEA archives."""

import dataclasses
import pathlib
import re

import numpy as np

from .._paths import as_path
from ._cases import (
    Cases,
    Missing,
    cases_of,
    check_missing,
    declared_of,
    fill,
    label_of,
    lines_of,
    numbers_of,
    stack,
    trim,
)
from ._errors import DataError

# Possessive quantifiers (*+, ++) never backtrack, so matching takes linear time.
_QUOTED = r"""(?:'[^'\\]*+(?:\\.[^'\\]*+)*+'|"[^"\\]*+(?:\\.[^"\\]*+)*+")"""
_ATTRIBUTE = re.compile(rf"@attribute\s++({_QUOTED}|[^\s{{}}%,'\"]++)\s*+(.*)", re.IGNORECASE)
_COMMENT = re.compile(rf"{_QUOTED}|['\"].*|%")
_NAME = re.compile(rf"\s*+({_QUOTED}|[^\s,'\"{{}}]++)\s*+(,|$)")
_ROW = re.compile(rf"(.*),\s*+({_QUOTED}|[^,'\"]*+)")
_BLOCK = re.compile(rf"({_QUOTED})\s*+,\s*+({_QUOTED}|[^,'\"]*+)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def read_arff(path: str | pathlib.Path, *, missing: Missing = "error") -> Cases:
    r"""Read a Weka ``.arff`` file of the UCR or UEA archive.

    Univariate files have one numeric attribute a step, and the class as the last attribute. Multivariate files have a
    relational attribute (a quoted block with one channel a row, rows separated by ``\n``) and the class.
    Missing values (``?``) at the end of all channels of a case mean that it is shorter. If the last attribute is
    numeric, it is a regression target.

    Args:
        path: the file.
        missing: how to handle missing values within a series, see `read_ts`.

    Returns:
        The cases of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentTypeError: `path` is not a path.
        ArgumentError: `missing` is unknown, or `path` names no file.
        DataError: the file has another format, an attribute is not a number (a string, a date, classes that are not
            last), a row contradicts the header, or values are missing. The message has the line number.
    """
    path, missing = as_path("read_arff", "path", path), check_missing("read_arff", missing)
    header = _Header()
    in_data = False
    series, labels, gaps = [], [], 0
    for number, line in lines_of(path, comments=("%",)):
        where = f"{path}, line {number}"
        line = _without_comment(line)
        if not in_data:
            in_data = header.add(line, where)
            continue
        if line.startswith("{"):
            raise DataError(f"{where}: a sparse row (in braces) is not supported. Write every value, with commas.")
        rows, label = header.fields(line, where)
        case = trim(stack([numbers_of(row.split(","), where) for row in rows], where), where)
        gaps += int(np.isnan(case).sum())
        series.append(fill(case, missing, where))
        labels.append(label_of(label, where, header.declared, header.regression))
    if not in_data:
        raise DataError(f"{path}: no @data line; this is not an .arff file, or it is truncated.")
    return cases_of(path, series, labels, header.class_names, header.regression, gaps)


@dataclasses.dataclass
class _Header:
    """The attributes of a file: numbers, or one block of numbers; then the class or target."""

    numbers: int = 0  # numeric attributes outside the block
    block: int | None = None  # numeric attributes in the block
    in_block: bool = False
    class_names: tuple[str, ...] = ()
    declared: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def regression(self) -> bool:
        return not self.class_names

    def add(self, line: str, where: str) -> bool:
        """Add one line of the header; return whether it is the last."""
        word = line.split()[0].lower()
        if word == "@attribute":
            self._attribute(line, where)
        elif word == "@end" and self.in_block:
            self.in_block = False
        elif word == "@data":
            values = self.numbers - self.regression if self.block is None else self.block
            if self.in_block or values < 1 or not (self.class_names or self.numbers):
                raise DataError(f"{where}: the header declares no values, or no class or target after them.")
            return True
        elif word != "@relation":
            raise DataError(
                f"{where}: expected a header line that begins with @relation, @attribute or @data, but found "
                f"{line[:30]!r}."
            )
        return False

    def _attribute(self, line: str, where: str) -> None:
        found = _ATTRIBUTE.fullmatch(line)
        if found is None:
            raise DataError(f"{where}: {line[:60]!r} has no name and type. Put quotes around a name with blanks.")
        name, kind = found[1], found[2].strip()
        if self.class_names or (self.block is not None and not self.in_block and self.numbers):
            last = f"the classes {', '.join(self.class_names)[:60]}" if self.class_names else "the target"
            raise DataError(
                f"{where}: an attribute follows {last}. Classes and targets must be in the last column. Move them "
                "there, and remove columns that are not numbers."
            )
        if kind.lower() in ("numeric", "real", "integer"):
            if self.in_block:
                self.block = (self.block or 0) + 1
            else:
                self.numbers += 1
        elif kind.startswith("{") and not self.in_block:
            self.class_names = _names(kind, where)
            self.declared = declared_of(self.class_names)
        elif kind.lower() == "relational" and self.block is None and not self.numbers:
            self.block, self.in_block = 0, True
        else:
            raise DataError(
                f"{where}: attribute {name[:40]} is of type {kind[:40]!r}. Supported are numbers (numeric, real, "
                "integer), at most one relational block of numbers, and a list of classes in braces as the last "
                "attribute. Remove the column, write its values as numbers, or list its classes in braces."
            )

    def fields(self, line: str, where: str) -> tuple[list[str], str]:
        """Return the channels of a row, each as unparsed text, and the label."""
        found = (_ROW if self.block is None else _BLOCK).fullmatch(line)
        if found is None:
            parts = "values, a comma" if self.block is None else "a quoted block, a comma"
            raise DataError(f"{where}: expected {parts} and a label. Is the line truncated?")
        if self.block is None:
            rows, more, wanted = [found[1]], 1, self.numbers + 1 - self.regression
        else:
            # A published file (SpokenArabicDigits) has a separator after the last row, too.
            rows, more, wanted = found[1][1:-1].removesuffix(r"\n").split(r"\n"), 0, self.block
        for row in rows:
            count = row.count(",") + 1 + more
            if count != wanted:
                has = f"{count} values and labels" if more else f"a channel has {count} values"
                raise DataError(
                    f"{where}: {has} for {wanted} attributes. Is the line truncated? Fill up shorter cases with '?'."
                )
        return rows, _unquoted(found[2])


def _without_comment(line: str) -> str:
    """Remove the text after a percent sign outside of quotes."""
    if "%" in line:
        for found in _COMMENT.finditer(line):
            if found[0] == "%":
                return line[: found.start()].rstrip()
    return line


def _names(text: str, where: str) -> tuple[str, ...]:
    """Return the classes of a declaration such as ``{1, 'two words'}``."""
    names, at, inner = [], 0, text[1:-1]
    while text.endswith("}") and (found := _NAME.match(inner, at)):
        names.append(_unquoted(found[1]))
        at = found.end()
        if not found[2]:
            return tuple(names)
    raise DataError(
        f"{where}: {text[:60]!r} is not a list of classes such as {{1,2,'two words'}}. Put commas between classes, and "
        "quotes around names with blanks or commas."
    )


def _unquoted(text: str) -> str:
    """Return a name without quotes, with its escapes resolved."""
    text = text.strip()
    if text[:1] not in ("'", '"'):
        return text
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text[1:-1])
