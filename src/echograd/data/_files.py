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

    Args:
        path: the file.
        missing: what to do with missing values (``?`` or ``NaN``): refuse them, or interpolate linearly in
            time within the channel (and hold the nearest value at the ends).

    Returns:
        The cases of the file.

    Raises:
        FileNotFoundError: there is no such file.
        NotImplementedError: the file has time stamps.
        ValueError: the file is not of this format, with the line number; or values are missing.
    """
    path = pathlib.Path(path)
    class_names: tuple[str, ...] = ()
    has_target, regression, in_data = False, False, False
    series, labels = [], []
    for number, line in _lines(path, comments=("#", "%")):
        where = f"{path}, line {number}"
        if not in_data:
            word, *rest = line.split()
            word = word.lower()
            if word == "@timestamps" and rest[:1] and rest[0].lower() == "true":
                raise NotImplementedError(
                    f"{where}: series with time stamps are not read. Resample them on an even grid first."
                )
            if word in ("@classlabel", "@targetlabel"):
                has_target = rest[:1] != [] and rest[0].lower() == "true"
                regression = word == "@targetlabel"
                class_names = tuple(rest[1:]) if has_target and not regression else ()
            if word == "@data":
                if not has_target:
                    raise ValueError(f"{path}: no class labels or targets (@classLabel or @targetLabel true).")
                in_data = True
            elif not word.startswith("@"):
                raise ValueError(f"{where}: expected a header line that begins with @, found {line[:30]!r}.")
            continue
        if "(" in line:
            raise NotImplementedError(
                f"{where}: series with time stamps are not read. Resample them on an even grid first."
            )
        *channels, label = line.split(":")
        if not channels:
            raise ValueError(f"{where}: no ':' between series and label; the file may be cut short.")
        case = _stack([_numbers(channel.split(","), where) for channel in channels], where)
        series.append(_fill(case, missing, where))
        labels.append(_label(label, where))
    if not in_data:
        raise ValueError(f"{path}: no @data line; this is not a .ts file, or it is cut short.")
    return _cases(path, series, labels, class_names, regression)


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
    attributes = 0
    series, labels = [], []
    for number, line in _lines(path, comments=("%",)):
        where = f"{path}, line {number}"
        if not in_data:
            lowered = line.lower()
            if lowered.startswith("@attribute"):
                attributes += 1
                relational |= re.search(r"\srelational\s*$", lowered) is not None
                braces = re.search(r"\{(.*)\}\s*$", line)
                # The class is the last attribute, so the last declaration stands.
                regression = braces is None
                class_names = tuple(_unquote(name) for name in braces[1].split(",")) if braces else ()
            in_data = lowered.startswith("@data")
            if not lowered.startswith("@"):
                raise ValueError(f"{where}: expected a header line that begins with @, found {line[:30]!r}.")
            continue
        if relational:
            block = re.fullmatch(r"""(['"])(.*)\1\s*,\s*(.+)""", line)
            if block is None:
                raise ValueError(f"{where}: expected a quoted block, a comma and a label. Cut short?")
            rows, label = block[2].split(r"\n"), block[3]
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
        labels.append(_label(_unquote(label), where))
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


def _lines(path: pathlib.Path, comments: tuple[str, ...] = (), around: str | None = None) -> Iterator[tuple[int, str]]:
    """Give the lines of a text file that are not blank or a comment, with their numbers, stripped of what is around."""
    # Some published files have a byte order mark or accents in another encoding in their comments.
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            line = line.strip(around)
            if line.strip() and not line.startswith(comments):
                yield number, line


def _label(text: str, where: str) -> str:
    text = text.strip()
    if text.lower() in ("", "?", "nan"):
        raise ValueError(f"{where}: the case has no label ({text!r} is in its place). Cut short? Leave the case out.")
    return text


def _number(text: str, where: str) -> float:
    text = text.strip()
    try:
        return math.nan if text == "?" else float(text)
    except ValueError:
        raise ValueError(f"{where}: {text[:20]!r} is not a number.") from None


def _numbers(values: list[str], where: str) -> np.ndarray:
    try:
        return np.array(list(map(float, values)))  # files have millions of values, hardly any with a "?"
    except ValueError:
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


def _fill(case: np.ndarray, missing: Missing, where: str) -> np.ndarray:
    """Refuse or interpolate missing values, and convert to float32."""
    if missing not in ("error", "interpolate"):
        raise ValueError(f"missing must be 'error' or 'interpolate', not {missing!r}.")
    gaps = np.isnan(case)
    if gaps.any() and missing == "error":
        step, channel = np.argwhere(gaps)[0]
        raise ValueError(
            f"{where}: {gaps.sum()} missing values, the first at step {step} of channel {channel}. Pass "
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
        targets = np.array([[_number(label, str(path))] for label in labels])
        if not (np.abs(targets) <= np.finfo(np.float32).max).all():
            raise ValueError(f"{path}: a target is not finite in float32.")
        return Cases(tuple(series), None, targets.astype(np.float32), ())
    class_names = tuple(_canonical(name) for name in class_names)
    names = tuple(_canonical(label) for label in labels)
    undeclared = sorted(set(names) - set(class_names))
    if class_names and undeclared:
        raise ValueError(f"{path}: cases of classes {undeclared}, which the header does not declare. Cut short?")
    return Cases(tuple(series), names, None, class_names)


def _canonical(label: str) -> str:
    """Write a numerical label one way: ``1.0`` and ``1`` are one class."""
    try:
        number = float(label)
    except ValueError:
        return label
    return str(int(number)) if math.isfinite(number) and number == int(number) else label


def _ordered(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Give each label once, in numerical order if all are numbers, else in alphabetical order."""
    names = set(labels)
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(sorted(names))


def _unquote(text: str) -> str:
    return text.strip().strip("'\"").strip()
