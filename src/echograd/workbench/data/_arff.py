"""Reader of Weka's .arff files, as the UCR and UEA archives publish them."""

import dataclasses
import pathlib
import re

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
from ._checks import as_path
from ._errors import DataError

# Possessive quantifiers (*+, ++) never go back, so that no line takes more than linear time.
_QUOTED = r"""(?:'[^'\\]*+(?:\\.[^'\\]*+)*+'|"[^"\\]*+(?:\\.[^"\\]*+)*+")"""
_ATTRIBUTE = re.compile(rf"@attribute\s++({_QUOTED}|[^\s{{}}%,'\"]++)\s*+(.*)", re.IGNORECASE)
_COMMENT = re.compile(rf"{_QUOTED}|['\"].*|%")
_NAME = re.compile(rf"\s*+({_QUOTED}|[^\s,'\"{{}}]++)\s*+(,|$)")
_ROW = re.compile(rf"(.*),\s*+({_QUOTED}|[^,'\"]*+)")
_BLOCK = re.compile(rf"({_QUOTED})\s*+,\s*+({_QUOTED}|[^,'\"]*+)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def read_arff(path: str | pathlib.Path, *, missing: Missing = "error") -> Cases:
    r"""Read a Weka ``.arff`` file of the UCR or UEA archive.

    Univariate files have one numeric attribute a step and the class last; multivariate ones have a
    relational attribute (a quoted block with one channel a row, the rows separated by ``\n``) and the class.
    Missing values (``?``) at the end of all channels of a case mean that it is shorter. A numeric attribute in
    place of the class is a regression target.

    Args:
        path: the file.
        missing: what to do with values missing within a series, see `read_ts`.

    Returns:
        The cases of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not of this format, has an attribute that is no number (a string, a date, classes that
            are not last), or a row that is not what the header declares, with the line number; or values are missing.
    """
    path, missing = as_path(path), check_missing(missing)
    header = _Header()
    in_data = False
    series, labels = [], []
    for number, line in lines_of(path, comments=("%",)):
        where = f"{path}, line {number}"
        line = _without_comment(line)
        if not in_data:
            in_data = header.add(line, where)
            continue
        if line.startswith("{"):
            raise DataError(f"{where}: a sparse row (in braces). Write every value, separated by commas.")
        rows, label = header.fields(line, where)
        case = trim(stack([numbers_of(row.split(","), where) for row in rows], where), where)
        series.append(fill(case, missing, where))
        labels.append(label_of(label, where, header.declared, header.regression))
    if not in_data:
        raise DataError(f"{path}: no @data line; this is not an .arff file, or it is cut short.")
    return cases_of(path, series, labels, header.class_names, header.regression)


@dataclasses.dataclass
class _Header:
    """The attributes of a file: numbers, or one block of numbers, and the class or target last."""

    numbers: int = 0  # numeric attributes, but for those in the block
    block: int | None = None  # numeric attributes in the block
    in_block: bool = False
    class_names: tuple[str, ...] = ()
    declared: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def regression(self) -> bool:
        return not self.class_names

    def add(self, line: str, where: str) -> bool:
        """Take one line of the header, and tell whether it is the last."""
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
                f"{where}: expected a header line that begins with @relation, @attribute or @data, found {line[:30]!r}."
            )
        return False

    def _attribute(self, line: str, where: str) -> None:
        found = _ATTRIBUTE.fullmatch(line)
        if found is None:
            raise DataError(f"{where}: {line[:60]!r} has no name and type. Put quotes around a name with blanks in it.")
        name, kind = found[1], found[2].strip()
        if self.class_names or (self.block is not None and not self.in_block and self.numbers):
            last = f"the classes {', '.join(self.class_names)[:60]}" if self.class_names else "the target"
            raise DataError(
                f"{where}: an attribute follows {last}. Classes and targets are read "
                "from the last column only; put theirs there, and leave out columns that are not numbers."
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
                f"{where}: attribute {name[:40]} is of type {kind[:40]!r}. Only numbers are read (numeric, real, "
                "integer), in one relational block or none, and last a list of classes in braces. Leave the column "
                "out, or write its values as numbers or its classes in braces."
            )

    def fields(self, line: str, where: str) -> tuple[list[str], str]:
        """Return the channels of a row, each with its values still in one text, and the label."""
        found = (_ROW if self.block is None else _BLOCK).fullmatch(line)
        if found is None:
            parts = "values, a comma" if self.block is None else "a quoted block, a comma"
            raise DataError(f"{where}: expected {parts} and a label. Cut short?")
        if self.block is None:
            rows, more, wanted = [found[1]], 1, self.numbers + 1 - self.regression
        else:
            # A published file (SpokenArabicDigits) also ends its last row.
            rows, more, wanted = found[1][1:-1].removesuffix(r"\n").split(r"\n"), 0, self.block
        for row in rows:
            count = row.count(",") + 1 + more
            if count != wanted:
                said = f"{count} values and labels" if more else f"a channel has {count} values"
                raise DataError(
                    f"{where}: {said} for {wanted} attributes. Cut short? What a shorter case lacks is written as '?'."
                )
        return rows, _unquoted(found[2])


def _without_comment(line: str) -> str:
    """Leave out what follows a percent sign that is not in quotes."""
    if "%" in line:
        for found in _COMMENT.finditer(line):
            if found[0] == "%":
                return line[: found.start()].rstrip()
    return line


def _names(text: str, where: str) -> tuple[str, ...]:
    """Return the classes that are declared, such as ``{1, 'two words'}``."""
    names, at, inner = [], 0, text[1:-1]
    while text.endswith("}") and (found := _NAME.match(inner, at)):
        names.append(_unquoted(found[1]))
        at = found.end()
        if not found[2]:
            return tuple(names)
    raise DataError(
        f"{where}: {text[:60]!r} is no list of classes such as {{1,2,'two words'}}. Put commas between classes, and "
        "quotes around those with blanks or commas in them."
    )


def _unquoted(text: str) -> str:
    """Return a name without its quotes, with what is escaped in them."""
    text = text.strip()
    if text[:1] not in ("'", '"'):
        return text
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text[1:-1])
