"""Readers of .ts and .tsv files, two of the text formats that time series archives publish."""

import pathlib
import re

import numpy as np

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


def read_ts(path: str | pathlib.Path, *, missing: Missing = "error") -> Cases:
    """Read a ``.ts`` file (the format of sktime and aeon).

    Series may have several channels and unequal lengths. Targets are class labels (``@classLabel``) or real
    numbers (``@targetLabel``).

    What the header claims is held against every case: the number of channels (``@dimensions``, ``@univariate``), of
    steps (``@seriesLength``, ``@equalLength true``), the classes and the kind of target. What it does not claim is not
    checked. Three lines are not taken for claims, because a set's training and test file share them and only one may
    bear them out: ``@equalLength false`` (and then ``@seriesLength``, which has no meaning), ``@missing true``, and a
    class without cases. Values missing in spite of ``@missing false`` are dealt with as `missing` says.

    Args:
        path: the file.
        missing: what to do with missing values (``?`` or ``NaN``): refuse them, or interpolate linearly in
            time within the channel (and hold the nearest value at the ends).

    Returns:
        The cases of the file.

    Raises:
        FileNotFoundError: there is no such file.
        NotImplementedError: the file has time stamps.
        ValueError: the file is not of this format, or a case is not what the header claims, with the line number; or
            values are missing.
    """
    path, missing = as_path(path), check_missing(missing)
    header = _TsHeader(path)
    in_data = False
    series, labels = [], []
    for number, line in lines_of(path, comments=("#", "%")):
        where = f"{path}, line {number}"
        if not in_data:
            if not line.startswith("@"):
                raise DataError(f"{where}: expected a header line that begins with @, found {line[:30]!r}.")
            in_data = line.split()[0].lower() == "@data"
            if in_data:
                header.close()
            else:
                header.add(number, line)
            continue
        *channels, label = line.split(":")
        if any("(" in channel for channel in channels):
            raise NotImplementedError(
                f"{where}: series with time stamps are not read{header.but('@timestamps')}. Resample them on an even "
                "grid first."
            )
        if not channels:
            raise DataError(f"{where}: no ':' between series and label; the file may be cut short.")
        case = stack([numbers_of(channel.split(","), where) for channel in channels], where)
        header.check(case, where)
        series.append(fill(case, missing, where, header.but("@missing")))
        labels.append(label_of(label.strip(), where, header.declared, header.regression))
    if not in_data:
        raise DataError(f"{path}: no @data line; this is not a .ts file, or it is cut short.")
    return cases_of(path, series, labels, header.class_names, header.regression)


def read_tsv(path: str | pathlib.Path, *, missing: Missing = "error") -> Cases:
    """Read a file of the UCR archive: one case a line, its label first, values separated by tabs.

    As in that archive, missing values (``NaN``) at the end of a line mean that the series is shorter;
    elsewhere they are missing. Commas and blanks are accepted in place of tabs (as in older UCR files).

    Args:
        path: the file.
        missing: what to do with values missing within a series, see `read_ts`.

    Returns:
        The cases of the file, of one channel.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not of this format, with the line number; or values are missing.
    """
    path, missing = as_path(path), check_missing(missing)
    series, labels, width = [], [], None
    for number, line in lines_of(path, around=" \r\n"):
        where = f"{path}, line {number}"
        # Between tabs or commas nothing is a value that is not there; between blanks it is a wider gap.
        separator = next((mark for mark in "\t," if mark in line), None)
        label, *values = line.rstrip(separator).split(separator)
        if not values:
            raise DataError(f"{where}: a label and no values; this is not a file of the UCR archive.")
        width = width or len(values)
        if len(values) != width:
            raise DataError(f"{where}: {len(values)} values, the first line has {width}. Cut short?")
        case = trim(numbers_of(values, where)[:, None], where)
        series.append(fill(case, missing, where))
        labels.append(label_of(label.strip(), where, {}))
    return cases_of(path, series, labels, (), regression=False)


class _TsHeader:
    """What the header of a .ts file claims of its cases."""

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
        """Take one line, in whatever case it is spelled. Lines that claim nothing of the cases are passed over."""
        where = f"{self._path}, line {number}"
        word, *values = line.split()
        name = "@dimensions" if word.lower() == "@dimension" else word.lower()  # both are in published files
        if name not in self._FLAGS + self._COUNTS:
            return
        values[:1] = [value.lower() for value in values[:1]]
        if name in self._FLAGS and values[:1] not in (["true"], ["false"]):
            raise DataError(f"{where}: {line[:60]!r} says neither true nor false. Write one of them after {word}.")
        if name in self._claims and self._claims[name][2] != values:
            raise DataError(f"{where}: {line[:60]!r}, but {self._said(name)}. Leave in the one that is true.")
        self._claims[name] = number, line, values
        if name == "@timestamps" and self._flag(name):
            raise NotImplementedError(
                f"{where}: series with time stamps are not read. Resample them on an even grid first."
            )

    def close(self) -> None:
        """Take the header as complete."""
        classes, self.regression = self._flag("@classlabel"), self._flag("@targetlabel") is True
        if not classes and not self.regression:
            raise DataError(f"{self._path}: no class labels or targets (@classLabel or @targetLabel true).")
        if classes and self.regression:
            raise DataError(
                f"{self._path}: {self._said('@classlabel')}, but {self._said('@targetlabel')}. The last field of a "
                "case is a class or a real target; leave in the line that is true."
            )
        self.class_names = tuple(self._claims["@classlabel"][2][1:]) if classes else ()
        self.declared = declared_of(self.class_names)
        self._channels = self._count("@dimensions")
        # Beside @equalLength false the format has no @seriesLength; files have 0, -1 or the longest there.
        self._steps = None if self._flag("@equallength") is False else self._count("@serieslength")

    def check(self, case: np.ndarray, where: str) -> None:
        """Hold a case of shape (steps, channels) against the claims."""
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
        """What to add to a refusal where the header denied what was found."""
        return f" (but {self._said(name)})" if self._flag(name) is False else ""

    def _refuse(self, where: str, found: str, name: str) -> None:
        raise DataError(
            f"{where}: the case has {found}, but {self._said(name)}. Cut short, or a separator lost? If the data are "
            "right, correct that line or leave it out."
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
                f"{self._path}: {self._said(name)}, which is no number of 1 or more. Correct the line or leave it out."
            )
        return int(text)
