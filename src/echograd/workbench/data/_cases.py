"""Cases of text files, and the parts that all readers share: lines, numbers, labels and missing values."""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from echograd._internal import _checks

from . import _reading
from ._dataset import Dataset
from ._errors import DataError
from ._split import Split

Missing = Literal["error", "interpolate"]


@dataclasses.dataclass(frozen=True, eq=False)
class Cases:
    """The cases of one file, in the order of the file.

    Attributes:
        series: one float32 array of shape (steps, channels) for every case.
        labels: the class of every case as written in the file; None for regression.
        targets: the regression target of every case, float32 of shape (cases, 1); None for classification.
        class_names: the classes in the order of their declaration in the file; empty if it declares none.
        groups: the source of every case, such as a patient; None if unknown.
        channel_names: one name for each channel; empty if the file has none.
        sample_rate: steps per second in Hz, or None if unknown.
        notes: sentences about how the file was read.
    """

    series: tuple[Float[np.ndarray, "_ channels"], ...]
    labels: tuple[str, ...] | None
    targets: Float[np.ndarray, "cases 1"] | None
    class_names: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    channel_names: tuple[str, ...] = ()
    sample_rate: float | None = None
    notes: tuple[str, ...] = ()


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

    Cases stay in their published order and split. Shorter cases are padded to the longest of both files. The classes
    are those that the training file declares, or else contains, sorted by name (by value if all names are numbers).

    Args:
        name: name of the data set.
        train: training cases.
        test: test cases.
        sample_rate: steps per second in Hz, if known.
        description: see `Dataset`.
        source: see `Dataset`.
        licence: see `Dataset`.

    Returns:
        The data set, without a validation split.

    Raises:
        ArgumentTypeError: `train` or `test` are not `Cases`.
        DataError: the files disagree in channels or kind of target, or the test file has a class that the training
            file does not have.
    """
    for side, part in (("train", train), ("test", test)):
        _checks.instance("dataset_from_cases", side, part, Cases, "a Cases; read_ts, read_tsv and read_arff return one")
    channels = {case.shape[1] for part in (train, test) for case in part.series}
    if len(channels) != 1:
        raise DataError(
            f"{name}: the files have cases with {sorted(channels)} channels; all must have the same number."
        )
    if train.channel_names and test.channel_names and train.channel_names != test.channel_names:
        raise DataError(
            f"{name}: the training cases have the channels {', '.join(train.channel_names)[:100]}, the test cases "
            f"{', '.join(test.channel_names)[:100]}. Give both files the same columns in the same order."
        )
    for side, part in (("training", train), ("test", test)):
        if part.labels is None and part.targets is None:
            raise DataError(f"{name}: the {side} cases have no labels.")
    if (train.labels is None) != (test.labels is None):
        raise DataError(f"{name}: one file has class labels, the other has real targets.")
    class_names = _ordered(train.class_names or train.labels or ())
    index = {label: number for number, label in enumerate(class_names)}
    length = max(len(case) for part in (train, test) for case in part.series)

    def split(part: Cases) -> Split:
        groups = None if part.groups is None else np.array(part.groups)
        if part.labels is None:
            assert part.targets is not None
            return Split.from_series(part.series, part.targets, groups, length=length)
        unknown = sorted(set(part.labels) - set(index))
        if unknown:
            raise DataError(f"{name}: classes {unknown} are in the test file but not among {list(class_names)}.")
        targets = np.array([index[label] for label in part.labels], dtype=np.int32)
        return Split.from_series(part.series, targets, groups, length=length)

    return Dataset(
        name=name,
        train=split(train),
        validation=None,
        test=split(test),
        task="regression" if train.labels is None else "classification",
        class_names=class_names,
        channel_names=train.channel_names or tuple(f"channel {i}" for i in range(channels.pop())),
        sample_rate=sample_rate or train.sample_rate,
        description=description,
        source=source,
        licence=licence,
    )


def lines_of(
    path: pathlib.Path, comments: tuple[str, ...] = (), around: str | None = None
) -> Iterator[tuple[int, str]]:
    """Yield number and stripped text of the lines of a file, without blank lines and comments.

    `around` are the characters to strip, white space by default.
    """
    for number, line in _reading.lines(path):
        line = line.strip(around)
        if line.strip() and not line.startswith(comments):
            if "\0" in line:
                raise DataError(
                    f"{path}, line {number}: holds a NUL character. The file is not a text file, or it is damaged."
                )
            if "\ufffd" in line and not line.startswith("@"):
                raise DataError(
                    f"{path}, line {number}: not UTF-8, so different labels could become equal. Convert the file."
                )
            yield number, line


def check_missing(owner: str, missing: Any) -> Missing:
    """Return the policy for missing values, or raise."""
    return _checks.choice(owner, "missing", missing, ("error", "interpolate"))


def declared_of(class_names: tuple[str, ...]) -> dict[str, str]:
    """Return the declared classes by their canonical names."""
    return {canonical(name): name for name in class_names}


def label_of(text: str, where: str, declared: Mapping[str, str], regression: bool = False) -> str:
    """Return the label of a case, or raise unless it is a declared class (if any are declared) or a real target."""
    if text.strip().lower() in ("", "?", "nan"):
        raise DataError(f"{where}: the case has no label, but {text!r}. Is the line truncated? Leave the case out.")
    if regression and not abs(number_of(text, where)) <= float(np.finfo(np.float32).max):
        raise DataError(f"{where}: the target {text[:60]!r} is not finite in float32. Scale the targets.")
    if declared and canonical(text) not in declared:
        raise DataError(
            f"{where}: the case has the class {text[:60]!r}, which the header does not declare: it has "
            f"{', '.join(declared.values())[:60]}. Is the line truncated? If the case is right, add its class to the "
            "header."
        )
    return text


def number_of(text: str, where: str) -> float:
    """Return a number; `?` is NaN."""
    text = text.strip()
    try:
        if "_" not in text:  # Python would read 1_5 as 15
            return math.nan if text == "?" else float(text)
    except ValueError:
        pass
    raise DataError(f"{where}: {text[:20]!r} is not a number.")


def numbers_of(values: list[str], where: str) -> np.ndarray:
    """Return numbers as an array. The fast path is for files with millions of values and few `?`."""
    try:
        if "_" not in "".join(values):
            return np.fromiter(map(float, values), np.float64, len(values))
    except ValueError:
        pass
    return np.array([number_of(value, where) for value in values])


def stack(channels: list[np.ndarray], where: str) -> np.ndarray:
    """Stack channels to an array of shape (steps, channels)."""
    lengths = [len(channel) for channel in channels]
    if len(set(lengths)) > 1:
        raise DataError(
            f"{where}: the channels of this case have {min(lengths)} to {max(lengths)} steps. All channels of a case "
            "must have the same length; resample them to one grid first."
        )
    return np.stack(channels, axis=1)


def trim(case: np.ndarray, where: str) -> np.ndarray:
    """Drop the last steps if all channels are missing there."""
    present = np.flatnonzero(~np.isnan(case).all(axis=1))
    if present.size == 0:
        raise DataError(f"{where}: all values are missing; leave the case out.")
    return case[: present[-1] + 1]


def fill(case: np.ndarray, missing: Missing, where: str, but: str = "") -> np.ndarray:
    """Raise for missing values or interpolate them, and convert to float32."""
    gaps = np.isnan(case)
    if gaps.any() and missing == "error":
        step, channel = np.argwhere(gaps)[0]
        raise DataError(
            f"{where}: {gaps.sum()} missing values, the first at step {step} of channel {channel}{but}. Pass "
            "missing='interpolate' to interpolate linearly in time, or leave the case out."
        )
    if gaps.all(axis=0).any():
        raise DataError(f"{where}: all values of a channel are missing. Leave the case out.")
    large = np.abs(case) > np.finfo(np.float32).max
    if large.any():
        step, channel = np.argwhere(large)[0]
        raise DataError(
            f"{where}: {case[step, channel]:g} at step {step} of channel {channel} is not finite in float32, the dtype "
            "of series. Scale the channel, or write '?' for an unknown value."
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
    """Return the cases of a file, with canonical class names."""
    if not series:
        raise DataError(f"{path}: no cases; the file is empty or truncated.")
    channels = {case.shape[1] for case in series}
    if len(channels) > 1:
        raise DataError(f"{path}: cases with {sorted(channels)} channels in one file. Is the file truncated?")
    if regression:
        targets = np.array([[float(label)] for label in labels], np.float32)
        return Cases(tuple(series), None, targets, ())
    class_names = tuple(canonical(name) for name in class_names)
    if len(set(class_names)) != len(class_names):
        raise DataError(
            f"{path}: the header declares a class twice: {', '.join(sorted(class_names))[:60]}. Correct it."
        )
    names = tuple(canonical(label) for label in labels)
    return Cases(tuple(series), names, None, class_names)


def canonical(label: str) -> str:
    """Return the canonical form of a label: ``1.0`` and ``1`` are the same class."""
    try:
        number = float(label)
    except ValueError:
        return label
    # Python would read "1_2" as 12, but it is a name. Above 2**53 floats cannot distinguish integers.
    return str(int(number)) if "_" not in label and abs(number) < 1 << 53 and number == int(number) else label


def _ordered(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return each label once, in numerical order if all are numbers, else in alphabetical order."""
    names = set(labels)
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(sorted(names))
