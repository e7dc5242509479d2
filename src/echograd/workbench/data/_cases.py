"""The cases of text files, and the parts that their readers share: lines, numbers, labels and missing values."""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from . import _checks, _reading
from ._dataset import Dataset, Split
from ._errors import DataError

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
    for side, part in (("train", train), ("test", test)):
        _checks.instance(side, part, Cases, "`read_ts`, `read_tsv` and `read_arff` return one.")
    channels = {case.shape[1] for part in (train, test) for case in part.series}
    if len(channels) != 1:
        raise DataError(f"{name}: the files have cases with {sorted(channels)} channels.")
    if (train.labels is None) != (test.labels is None):
        raise DataError(f"{name}: one file has class labels, the other real targets.")
    class_names = _ordered(train.class_names or train.labels or ())
    index = {label: number for number, label in enumerate(class_names)}
    length = max(len(case) for part in (train, test) for case in part.series)

    def split(part: Cases) -> Split:
        if part.labels is None:
            assert part.targets is not None
            return Split.from_series(part.series, part.targets, length=length)
        unknown = sorted(set(part.labels) - set(index))
        if unknown:
            raise DataError(f"{name}: classes {unknown} are in the test file but not among {list(class_names)}.")
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


def lines_of(
    path: pathlib.Path, comments: tuple[str, ...] = (), around: str | None = None
) -> Iterator[tuple[int, str]]:
    """Give the lines of a text file that are not blank or a comment, with their numbers, stripped of what is around."""
    for number, line in _reading.lines(path):
        line = line.strip(around)
        if line.strip() and not line.startswith(comments):
            if "\0" in line:
                raise DataError(
                    f"{path}, line {number}: holds a NUL character. This is no text file, or it is damaged."
                )
            if "\ufffd" in line and not line.startswith("@"):
                raise DataError(
                    f"{path}, line {number}: not UTF-8, so that different labels may read as one. Convert the file."
                )
            yield number, line


def check_missing(missing: Any) -> Missing:
    """Return the policy for missing values.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(missing, str) or missing not in ("error", "interpolate"):
        raise DataError(f"missing must be 'error' or 'interpolate', not {_checks.shown(missing)}.")
    return missing  # pyright: ignore[reportReturnType]


def declared_of(class_names: tuple[str, ...]) -> dict[str, str]:
    """Return the classes that a header declares, to look them up by their canonical names."""
    return {_canonical(name): name for name in class_names}


def label_of(text: str, where: str, declared: Mapping[str, str], regression: bool = False) -> str:
    """Take the label of a case, which is a class that is declared (if any are) or a real target."""
    if text.strip().lower() in ("", "?", "nan"):
        raise DataError(f"{where}: the case has no label ({text!r} is in its place). Cut short? Leave the case out.")
    if regression and not abs(number_of(text, where)) <= float(np.finfo(np.float32).max):
        raise DataError(f"{where}: {text[:60]!r} as a target is not finite in float32. Scale the targets.")
    if declared and _canonical(text) not in declared:
        raise DataError(
            f"{where}: the case is of class {text[:60]!r}, which the header does not declare: it has "
            f"{', '.join(declared.values())[:60]}. Cut short? If the case is right, add its class to the header."
        )
    return text


def number_of(text: str, where: str) -> float:
    text = text.strip()
    try:
        if "_" not in text:  # which Python would take for a separator: 1_5 for 15
            return math.nan if text == "?" else float(text)
    except ValueError:
        pass
    raise DataError(f"{where}: {text[:20]!r} is not a number.")


def numbers_of(values: list[str], where: str) -> np.ndarray:
    try:
        if "_" not in "".join(values):
            return np.fromiter(
                map(float, values), np.float64, len(values)
            )  # files have millions of values, hardly any with a "?"
    except ValueError:
        pass
    return np.array([number_of(value, where) for value in values])


def stack(channels: list[np.ndarray], where: str) -> np.ndarray:
    """Put channels side by side: (steps, channels)."""
    lengths = [len(channel) for channel in channels]
    if len(set(lengths)) > 1:
        raise DataError(
            f"{where}: channels of {min(lengths)} to {max(lengths)} steps in one case. All channels of a "
            "case must have one length; bring them onto one grid first."
        )
    return np.stack(channels, axis=1)


def trim(case: np.ndarray, where: str) -> np.ndarray:
    """Drop the steps at the end at which all channels are missing."""
    present = np.flatnonzero(~np.isnan(case).all(axis=1))
    if present.size == 0:
        raise DataError(f"{where}: all values are missing; leave the case out.")
    return case[: present[-1] + 1]


def fill(case: np.ndarray, missing: Missing, where: str, but: str = "") -> np.ndarray:
    """Refuse or interpolate missing values, and convert to float32."""
    gaps = np.isnan(case)
    if gaps.any() and missing == "error":
        step, channel = np.argwhere(gaps)[0]
        raise DataError(
            f"{where}: {gaps.sum()} missing values, the first at step {step} of channel {channel}{but}. Pass "
            "missing='interpolate' to fill them linearly in time, or leave the case out."
        )
    if gaps.all(axis=0).any():
        raise DataError(f"{where}: a channel has no value at all; there is nothing to interpolate.")
    large = np.abs(case) > np.finfo(np.float32).max
    if large.any():
        step, channel = np.argwhere(large)[0]
        raise DataError(
            f"{where}: {case[step, channel]:g} at step {step} of channel {channel} is not finite in float32, which "
            "series are kept in. Scale the channel, or write '?' where a value is not known."
        )
    steps = np.arange(len(case))
    for channel in np.flatnonzero(gaps.any(axis=0)):
        gap = gaps[:, channel]
        case[gap, channel] = np.interp(steps[gap], steps[~gap], case[~gap, channel])
    return case.astype(np.float32)


def cases_of(
    path: pathlib.Path,
    series: list[np.ndarray],
    labels: list[str],
    class_names: tuple[str, ...],
    regression: bool,
) -> Cases:
    if not series:
        raise DataError(f"{path}: no cases; the file is empty or cut short.")
    channels = {case.shape[1] for case in series}
    if len(channels) > 1:
        raise DataError(f"{path}: cases with {sorted(channels)} channels in one file. Cut short?")
    if regression:
        targets = np.array([[float(label)] for label in labels], np.float32)
        return Cases(tuple(series), None, targets, ())
    class_names = tuple(_canonical(name) for name in class_names)
    if len(set(class_names)) != len(class_names):
        raise DataError(f"{path}: the header declares a class twice: {', '.join(sorted(class_names))[:60]}.")
    names = tuple(_canonical(label) for label in labels)
    return Cases(tuple(series), names, None, class_names)


def _canonical(label: str) -> str:
    """Write a numerical label one way: ``1.0`` and ``1`` are one class."""
    try:
        number = float(label)
    except ValueError:
        return label
    # "1_2" is a name, though Python would read 12 there, and above 2**53 floats cannot tell numbers apart.
    return str(int(number)) if "_" not in label and abs(number) < 1 << 53 and number == int(number) else label


def _ordered(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Give each label once, in numerical order if all are numbers, else in alphabetical order."""
    names = set(labels)
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(sorted(names))
