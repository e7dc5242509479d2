"""Readers of .ts and .tsv files, two text formats of time series archives."""

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


def read_ts(path: str | pathlib.Path, *, missing: Missing = "error") -> Cases:
    """Read a ``.ts`` file (the format of sktime and aeon).

    Series may have several channels and unequal lengths. Targets are class labels (``@classLabel``) or real
    numbers (``@targetLabel``). Series with time stamps are not supported.

    Every case is validated against the header: number of channels (``@dimensions``, ``@univariate``), number of steps
    (``@seriesLength``, ``@equalLength true``), classes and kind of target. Three header lines are not validated,
    because training and test file share them and they may be true for only one of the two: ``@equalLength false``
    (``@seriesLength`` then has no meaning), ``@missing true``, and a class without cases. Values that are missing in
    spite of ``@missing false`` are handled by `missing`.

    Args:
        path: the file.
        missing: how to handle missing values (``?`` or ``NaN``): ``"error"`` raises; ``"interpolate"`` interpolates
            linearly in time within the channel, and holds the nearest value at the ends.

    Returns:
        The cases of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentTypeError: `path` is not a path.
        ArgumentError: `missing` is unknown, or `path` names no file.
        DataError: the file has another format or time stamps, a case contradicts the header, or values are missing.
            The message has the line number.
    """
    path, missing = as_path("read_ts", "path", path), check_missing("read_ts", missing)
    header = _TsHeader(path)
    in_data = False
    series, labels, gaps = [], [], 0
    for number, line in lines_of(path, comments=("#", "%")):
        where = f"{path}, line {number}"
        if not in_data:
            if not line.startswith("@"):
                raise DataError(f"{where}: expected a header line that begins with @, but found {line[:30]!r}.")
            in_data = line.split()[0].lower() == "@data"
            if in_data:
                header.close()
            else:
                header.add(number, line)
            continue
        *channels, label = line.split(":")
        if any("(" in channel for channel in channels):
            raise DataError(f"{where}: {_NO_TIME_STAMPS}{header.but('@timestamps')}. {_RESAMPLE}")
        if not channels:
            raise DataError(f"{where}: no ':' between series and label; the file may be truncated.")
        case = stack([numbers_of(channel.split(","), where) for channel in channels], where)
        header.check(case, where)
        gaps += int(np.isnan(case).sum())
        series.append(fill(case, missing, where, header.but("@missing")))
        labels.append(label_of(label.strip(), where, header.declared, header.regression))
    if not in_data:
        raise DataError(f"{path}: no @data line; this is not a .ts file, or it is truncated.")
    return cases_of(path, series, labels, header.class_names, header.regression, gaps)


def read_tsv(path: str | pathlib.Path, *, missing: Missing = "error") -> Cases:
    """Read a file of the UCR archive: one case a line, its label first, values separated by tabs.

    As in that archive, missing values (``NaN``) at the end of a line mean that the series is shorter.
    Commas and blanks are accepted in place of tabs (as in older UCR files).

    Args:
        path: the file.
        missing: how to handle missing values within a series, see `read_ts`.

    Returns:
        The cases of the file, with one channel.

    Raises:
        FileNotFoundError: there is no such file.
        ArgumentTypeError: `path` is not a path.
        ArgumentError: `missing` is unknown, or `path` names no file.
        DataError: the file has another format, or values are missing. The message has the line number.
    """
    path, missing = as_path("read_tsv", "path", path), check_missing("read_tsv", missing)
    series, labels, width, gaps = [], [], None, 0
    for number, line in lines_of(path, around=" \r\n"):
        where = f"{path}, line {number}"
        # Two tabs or commas in a row enclose an empty (missing) value; two blanks are a single separator.
        separator = next((mark for mark in "\t," if mark in line), None)
        label, *values = line.rstrip(separator).split(separator)
        if not values:
            raise DataError(f"{where}: a label without values; this is not a file of the UCR archive.")
        width = width or len(values)
        if len(values) != width:
            raise DataError(f"{where}: {len(values)} values, but the first line has {width}. Is the line truncated?")
        case = trim(numbers_of(values, where)[:, None], where)
        gaps += int(np.isnan(case).sum())
        series.append(fill(case, missing, where))
        labels.append(label_of(label.strip(), where, {}))
    return cases_of(path, series, labels, (), regression=False, gaps=gaps)


_NO_TIME_STAMPS = "series with time stamps are not supported"
_RESAMPLE = "Resample them to an even grid first."


class _TsHeader:
    """The header of a .ts file: what it claims about the cases."""

    _FLAGS = ("@timestamps", "@missing", "@univariate", "@equallength", "@classlabel", "@targetlabel")
    _COUNTS = ("@dimensions", "@serieslength")

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._claims: dict[str, tuple[int, str, list[str]]] = {}  # line number, the line, its values
        self._channels: int | None = None
        self._steps: int | None = None
        self._first: int | None = None  # steps of the first case
        self.class_names: tuple[str, ...] = ()
        self.declared: dict[str, str] = {}
        self.regression = False

    def add(self, number: int, line: str) -> None:
        """Add one line, in upper or lower case. Ignore lines that say nothing about the cases."""
        where = f"{self._path}, line {number}"
        word, *values = line.split()
        name = "@dimensions" if word.lower() == "@dimension" else word.lower()  # published files have both
        if name not in self._FLAGS + self._COUNTS:
            return
        values[:1] = [value.lower() for value in values[:1]]
        if name in self._FLAGS and values[:1] not in (["true"], ["false"]):
            raise DataError(f"{where}: {line[:60]!r} says neither true nor false. Write one of them after {word}.")
        if name in self._claims and self._claims[name][2] != values:
            raise DataError(f"{where}: {line[:60]!r}, but {self._said(name)}. Keep the line that is true.")
        self._claims[name] = number, line, values
        if name == "@timestamps" and self._flag(name):
            raise DataError(f"{where}: {_NO_TIME_STAMPS}. {_RESAMPLE}")

    def close(self) -> None:
        """Check the header after its last line."""
        classes, self.regression = self._flag("@classlabel"), self._flag("@targetlabel") is True
        if not classes and not self.regression:
            raise DataError(f"{self._path}: no class labels or targets (@classLabel or @targetLabel true).")
        if classes and self.regression:
            raise DataError(
                f"{self._path}: {self._said('@classlabel')}, but {self._said('@targetlabel')}. The last field of a "
                "case is either a class or a real target; keep the line that is true."
            )
        self.class_names = tuple(self._claims["@classlabel"][2][1:]) if classes else ()
        self.declared = declared_of(self.class_names)
        self._channels = self._count("@dimensions")
        # With @equalLength false, @seriesLength has no meaning; files have 0, -1 or the longest length there.
        self._steps = None if self._flag("@equallength") is False else self._count("@serieslength")

    def check(self, case: np.ndarray, where: str) -> None:
        """Raise if a case of shape (steps, channels) contradicts the header."""
        steps, channels = case.shape
        if self._channels not in (None, channels):
            self._refuse(where, f"{channels} channels", "@dimensions")
        if self._flag("@univariate") not in (None, channels == 1):
            self._refuse(where, f"{channels} channels", "@univariate")
        if self._steps not in (None, steps):
            self._refuse(where, f"{steps} steps", "@serieslength")
        self._first = self._first or steps
        if self._flag("@equallength") and steps != self._first:
            self._refuse(where, f"{steps} steps where the first case has {self._first}", "@equallength")

    def but(self, name: str) -> str:
        """Return an addition to a message if the header contradicts the case."""
        return f" (but {self._said(name)})" if self._flag(name) is False else ""

    def _refuse(self, where: str, found: str, name: str) -> None:
        raise DataError(
            f"{where}: the case has {found}, but {self._said(name)}. Is the line truncated, or a separator missing? If "
            "the data are right, correct that header line or remove it."
        )

    def _said(self, name: str) -> str:
        number, line, _ = self._claims[name]
        return f"line {number} says {line[:60]!r}"

    def _flag(self, name: str) -> bool | None:
        return self._claims[name][2][0] == "true" if name in self._claims else None

    def _count(self, name: str) -> int | None:
        if name not in self._claims:
            return None
        text = (self._claims[name][2] or [""])[0]
        if not re.fullmatch(r"0*[1-9][0-9]{0,17}", text):
            raise DataError(
                f"{self._path}: {self._said(name)}, but the number must be at least 1. Correct the line or remove it."
            )
        return int(text)
