"""Readers of the text formats that time series archives publish: .ts, .tsv and .arff."""

import dataclasses
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float

from ._dataset import Dataset, Split

Missing = Literal["error", "interpolate"]


@dataclasses.dataclass(frozen=True, eq=False)
class Cases:
    """The cases of one file, in the order of the file.

    Attributes:
        series: one float32 array of shape (steps, channels) for every case.
        labels: the class of every case as written in the file, or None for regression.
        targets: the regression target of every case, float32 of shape (cases, 1), or None.
        class_names: the classes in the order the file declares them; empty if it declares none.
    """

    series: tuple[Float[np.ndarray, "_ channels"], ...]
    labels: tuple[str, ...] | None
    targets: Float[np.ndarray, "cases 1"] | None
    class_names: tuple[str, ...]


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
    path = pathlib.Path(path)
    header = _TsHeader(path)
    in_data = False
    series, labels = [], []
    for number, line in _lines(path, comments=("#", "%")):
        where = f"{path}, line {number}"
        if not in_data:
            if not line.startswith("@"):
                raise ValueError(f"{where}: expected a header line that begins with @, found {line[:30]!r}.")
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
            raise ValueError(f"{where}: no ':' between series and label; the file may be cut short.")
        case = _stack([_numbers(channel.split(","), where) for channel in channels], where)
        header.check(case, where)
        series.append(_fill(case, missing, where, header.but("@missing")))
        labels.append(_label(label, where, header.class_names, header.regression))
    if not in_data:
        raise ValueError(f"{path}: no @data line; this is not a .ts file, or it is cut short.")
    return _cases(path, series, labels, header.class_names, header.regression)


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
    path = pathlib.Path(path)
    series, labels, width = [], [], None
    for number, line in _lines(path, around=" \r\n"):
        where = f"{path}, line {number}"
        # Between tabs or commas nothing is a value that is not there; between blanks it is a wider gap.
        separator = next((mark for mark in "\t," if mark in line), None)
        label, *values = line.rstrip(separator).split(separator)
        if not values:
            raise ValueError(f"{where}: a label and no values; this is not a file of the UCR archive.")
        width = width or len(values)
        if len(values) != width:
            raise ValueError(f"{where}: {len(values)} values, the first line has {width}. Cut short?")
        case = _trim(_numbers(values, where)[:, None], where)
        series.append(_fill(case, missing, where))
        labels.append(_label(label, where))
    return _cases(path, series, labels, (), regression=False)


def read_arff(path: str | pathlib.Path, *, missing: Missing = "error") -> Cases:
    r"""Read a Weka ``.arff`` file of the UCR or UEA archive.

    Univariate files have one numeric attribute a step and the class last; multivariate ones have a
    relational attribute (a quoted block with one channel a row, the rows separated by ``\n``) and the class.
    Missing values (``?``) at the end of all channels of a case mean that it is shorter.

    Args:
        path: the file.
        missing: what to do with values missing within a series, see `read_ts`.

    Returns:
        The cases of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not of this format, with the line number; or values are missing.
    """
    path = pathlib.Path(path)
    class_names: tuple[str, ...] = ()
    relational, regression, in_data = False, False, False
    attributes, steps = 0, None
    series, labels = [], []
    for number, line in _lines(path, comments=("%",)):
        where = f"{path}, line {number}"
        if not in_data:
            lowered = line.lower()
            if lowered.startswith("@attribute"):
                if class_names:
                    raise ValueError(
                        f"{where}: an attribute follows the classes {', '.join(class_names)[:60]}. Classes are read "
                        "from the last column only; put theirs there, and leave out columns that are not numbers."
                    )
                attributes += 1
                if re.search(r"\srelational\s*$", lowered):
                    relational, attributes = True, 0
                braces = re.search(r"\{(.*)\}\s*$", line)
                regression = braces is None
                class_names = tuple(_unquote(name) for name in braces[1].split(",")) if braces else ()
            if relational and lowered.startswith("@end"):
                steps = attributes
            in_data = lowered.startswith("@data")
            if not lowered.startswith("@"):
                raise ValueError(f"{where}: expected a header line that begins with @, found {line[:30]!r}.")
            continue
        if relational:
            block = re.fullmatch(r"""(['"])(.*)\1\s*,\s*(.+)""", line)
            if block is None:
                raise ValueError(f"{where}: expected a quoted block, a comma and a label. Cut short?")
            # A published file (SpokenArabicDigits) also ends its last row.
            rows, label = block[2].removesuffix(r"\n").split(r"\n"), block[3]
            for row in rows:
                if steps is not None and row.count(",") + 1 != steps:
                    raise ValueError(
                        f"{where}: a channel has {row.count(',') + 1} values for {steps} attributes. Cut short? What a "
                        "shorter case lacks is written as '?'."
                    )
        else:
            values, comma, label = line.rpartition(",")
            if not comma:
                raise ValueError(f"{where}: expected values and a label, separated by commas. Cut short?")
            rows = [values]
            if values.count(",") + 2 != attributes:
                raise ValueError(
                    f"{where}: {values.count(',') + 2} values and labels for {attributes} attributes. Cut short? What "
                    "a shorter case lacks is written as '?'."
                )
        case = _trim(_stack([_numbers(row.split(","), where) for row in rows], where), where)
        series.append(_fill(case, missing, where))
        labels.append(_label(_unquote(label), where, class_names, regression))
    if not in_data:
        raise ValueError(f"{path}: no @data line; this is not an .arff file, or it is cut short.")
    return _cases(path, series, labels, class_names, regression)


def dataset_from_cases(
    name: str,
    train: Cases,
    test: Cases,
    *,
    sample_rate: float | None = None,
    description: str = "",
    source: str = "",
    licence: str = "",
) -> Dataset:
    """Put the training and the test cases of two files into a data set.

    Cases stay in the order and on the side they are published with. Shorter cases are padded to the
    longest of both files. Classes are those that the training file declares or has, numbered in the order of
    their names (numerical where all are numbers).

    Args:
        name: the data set's name.
        train: cases to learn from.
        test: cases to report on.
        sample_rate: steps per second in Hz, if known.
        description: see `Dataset`.
        source: see `Dataset`.
        licence: see `Dataset`.

    Returns:
        The set, without a validation split.

    Raises:
        ValueError: the files disagree in channels or kind of target, or the test file has a class that
            the training file has not.
    """
    channels = {case.shape[1] for part in (train, test) for case in part.series}
    if len(channels) != 1:
        raise ValueError(f"{name}: the files have cases with {sorted(channels)} channels.")
    if (train.labels is None) != (test.labels is None):
        raise ValueError(f"{name}: one file has class labels, the other real targets.")
    class_names = _ordered(train.class_names or train.labels or ())
    index = {label: number for number, label in enumerate(class_names)}
    length = max(len(case) for part in (train, test) for case in part.series)

    def split(part: Cases) -> Split:
        if part.labels is None:
            assert part.targets is not None
            return Split.from_series(part.series, part.targets, length=length)
        unknown = sorted(set(part.labels) - set(index))
        if unknown:
            raise ValueError(f"{name}: classes {unknown} are in the test file but not among {list(class_names)}.")
        targets = np.array([index[label] for label in part.labels], dtype=np.int32)
        return Split.from_series(part.series, targets, length=length)

    return Dataset(
        name=name,
        train=split(train),
        validation=None,
        test=split(test),
        task="regression" if train.labels is None else "classification",
        class_names=class_names,
        channel_names=tuple(f"channel {i}" for i in range(channels.pop())),
        sample_rate=sample_rate,
        description=description,
        source=source,
        licence=licence,
    )


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
            raise ValueError(f"{where}: {line[:60]!r} says neither true nor false. Write one of them after {word}.")
        if name in self._claims and self._claims[name][2] != values:
            raise ValueError(f"{where}: {line[:60]!r}, but {self._said(name)}. Leave in the one that is true.")
        self._claims[name] = number, line, values
        if name == "@timestamps" and self._flag(name):
            raise NotImplementedError(
                f"{where}: series with time stamps are not read. Resample them on an even grid first."
            )

    def close(self) -> None:
        """Take the header as complete."""
        classes, self.regression = self._flag("@classlabel"), self._flag("@targetlabel") is True
        if not classes and not self.regression:
            raise ValueError(f"{self._path}: no class labels or targets (@classLabel or @targetLabel true).")
        if classes and self.regression:
            raise ValueError(
                f"{self._path}: {self._said('@classlabel')}, but {self._said('@targetlabel')}. The last field of a "
                "case is a class or a real target; leave in the line that is true."
            )
        self.class_names = tuple(self._claims["@classlabel"][2][1:]) if classes else ()
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
        raise ValueError(
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
        if not text.isdecimal() or int(text) == 0:
            raise ValueError(
                f"{self._path}: {self._said(name)}, which is no number of 1 or more. Correct the line or leave it out."
            )
        return int(text)


def _lines(path: pathlib.Path, comments: tuple[str, ...] = (), around: str | None = None) -> Iterator[tuple[int, str]]:
    """Give the lines of a text file that are not blank or a comment, with their numbers, stripped of what is around."""
    # Some published files have a byte order mark or accents in another encoding in their comments.
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            line = line.strip(around)
            if line.strip() and not line.startswith(comments):
                if "\ufffd" in line and not line.startswith("@"):
                    raise ValueError(
                        f"{path}, line {number}: not UTF-8, so that different labels may read as one. Convert the file."
                    )
                yield number, line


def _label(text: str, where: str, declared: tuple[str, ...] = (), regression: bool = False) -> str:
    """Take the label of a case, which is a class that is declared (if any are) or a real target."""
    text = text.strip()
    if text.lower() in ("", "?", "nan"):
        raise ValueError(f"{where}: the case has no label ({text!r} is in its place). Cut short? Leave the case out.")
    if regression and not abs(_number(text, where)) <= float(np.finfo(np.float32).max):
        raise ValueError(f"{where}: {text!r} as a target is not finite in float32. Scale the targets.")
    if declared and text not in declared and _canonical(text) not in map(_canonical, declared):
        raise ValueError(
            f"{where}: the case is of class {text!r}, which the header does not declare: it has "
            f"{', '.join(declared)[:60]}. Cut short? If the case is right, add its class to the header."
        )
    return text


def _number(text: str, where: str) -> float:
    text = text.strip()
    try:
        if "_" not in text:  # which Python would take for a separator: 1_5 for 15
            return math.nan if text == "?" else float(text)
    except ValueError:
        pass
    raise ValueError(f"{where}: {text[:20]!r} is not a number.")


def _numbers(values: list[str], where: str) -> np.ndarray:
    try:
        if "_" not in "".join(values):
            return np.array(list(map(float, values)))  # files have millions of values, hardly any with a "?"
    except ValueError:
        pass
    return np.array([_number(value, where) for value in values])


def _stack(channels: list[np.ndarray], where: str) -> np.ndarray:
    """Put channels side by side: (steps, channels)."""
    lengths = [len(channel) for channel in channels]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"{where}: channels of {min(lengths)} to {max(lengths)} steps in one case. All channels of a "
            "case must have one length; bring them onto one grid first."
        )
    return np.stack(channels, axis=1)


def _trim(case: np.ndarray, where: str) -> np.ndarray:
    """Drop the steps at the end at which all channels are missing."""
    present = np.flatnonzero(~np.isnan(case).all(axis=1))
    if present.size == 0:
        raise ValueError(f"{where}: all values are missing; leave the case out.")
    return case[: present[-1] + 1]


def _fill(case: np.ndarray, missing: Missing, where: str, but: str = "") -> np.ndarray:
    """Refuse or interpolate missing values, and convert to float32."""
    if missing not in ("error", "interpolate"):
        raise ValueError(f"missing must be 'error' or 'interpolate', not {missing!r}.")
    gaps = np.isnan(case)
    if gaps.any() and missing == "error":
        step, channel = np.argwhere(gaps)[0]
        raise ValueError(
            f"{where}: {gaps.sum()} missing values, the first at step {step} of channel {channel}{but}. Pass "
            "missing='interpolate' to fill them linearly in time, or leave the case out."
        )
    if gaps.all(axis=0).any():
        raise ValueError(f"{where}: a channel has no value at all; there is nothing to interpolate.")
    large = np.abs(case) > np.finfo(np.float32).max
    if large.any():
        step, channel = np.argwhere(large)[0]
        raise ValueError(
            f"{where}: {case[step, channel]:g} at step {step} of channel {channel} is not finite in float32, which "
            "series are kept in. Scale the channel, or write '?' where a value is not known."
        )
    steps = np.arange(len(case))
    for channel in np.flatnonzero(gaps.any(axis=0)):
        gap = gaps[:, channel]
        case[gap, channel] = np.interp(steps[gap], steps[~gap], case[~gap, channel])
    return case.astype(np.float32)


def _cases(
    path: pathlib.Path,
    series: list[np.ndarray],
    labels: list[str],
    class_names: tuple[str, ...],
    regression: bool,
) -> Cases:
    if not series:
        raise ValueError(f"{path}: no cases; the file is empty or cut short.")
    channels = {case.shape[1] for case in series}
    if len(channels) > 1:
        raise ValueError(f"{path}: cases with {sorted(channels)} channels in one file. Cut short?")
    if regression:
        targets = np.array([[float(label)] for label in labels], np.float32)
        return Cases(tuple(series), None, targets, ())
    class_names = tuple(_canonical(name) for name in class_names)
    if len(set(class_names)) != len(class_names):
        raise ValueError(f"{path}: the header declares a class twice: {', '.join(sorted(class_names))[:60]}.")
    names = tuple(_canonical(label) for label in labels)
    return Cases(tuple(series), names, None, class_names)


def _canonical(label: str) -> str:
    """Write a numerical label one way: ``1.0`` and ``1`` are one class."""
    try:
        number = float(label)
    except ValueError:
        return label
    # "1_2" is a name, though Python would read 12 there.
    return str(int(number)) if "_" not in label and math.isfinite(number) and number == int(number) else label


def _ordered(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Give each label once, in numerical order if all are numbers, else in alphabetical order."""
    names = set(labels)
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(sorted(names))


def _unquote(text: str) -> str:
    return text.strip().strip("'\"").strip()
