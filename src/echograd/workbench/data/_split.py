"""A split: cases of one length after padding, as arrays in host memory."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped

from echograd import ArgumentError, ArgumentTypeError
from echograd._internal import _checks
from echograd._internal._checks import shown

from ._errors import CaseIndexError

# The padded array has at most 16 times as many values as the series, or 2**26 (256 MiB of float32) in all.
_PADDING, _SMALL = 16, 1 << 26


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Cases for one purpose (training, validation or test), as arrays in host memory.

    Attributes:
        inputs: float32, shape (cases, length, channels). Cases shorter than `length` are padded with
            zeros at the end.
        targets: class indices, int32 of shape (cases,), or regression targets, float32 of shape
            (cases, ...).
        lengths: number of valid steps of every case, int32 of shape (cases,).
        groups: the source of every case (a patient, a subject), shape (cases,), or None if unknown.

    Raises:
        ArgumentTypeError: a column is not a NumPy array, or has another dtype.
        ArgumentError: shapes disagree, a length is out of range, a value is not finite, or the padding is
            not zero.

    Example:
        ```python
        split = Split.from_series([np.ones((5, 2)), np.ones((3, 2))], targets=np.array([0, 1], np.int32))
        split.inputs.shape, split.lengths  # ((2, 5, 2), array([5, 3], dtype=int32))
        ```
    """

    inputs: Float[np.ndarray, "cases length channels"]
    targets: Num[np.ndarray, "cases ..."]
    lengths: Int[np.ndarray, " cases"]
    groups: Shaped[np.ndarray, " cases"] | None = None

    def __post_init__(self) -> None:
        columns = {"targets": self.targets, "lengths": self.lengths}
        columns |= {} if self.groups is None else {"groups": self.groups}
        for name, column in {"inputs": self.inputs, **columns}.items():
            _checks.instance("Split", name, column, np.ndarray, _ARRAY)
        if self.inputs.dtype != np.float32 or self.lengths.dtype != np.int32:
            raise ArgumentTypeError(
                f"Split: inputs must be float32 and lengths int32, not {self.inputs.dtype} and {self.lengths.dtype}. "
                "`Split.from_series` converts them."
            )
        if self.targets.dtype not in (np.int32, np.float32):
            raise ArgumentTypeError(
                f"Split: targets must be int32 (class indices) or float32 (regression), not {self.targets.dtype}."
            )
        if self.inputs.ndim != 3 or 0 in self.inputs.shape:
            raise ArgumentError(
                f"Split: inputs must have a shape (cases, length, channels) without 0, not {self.inputs.shape}."
            )
        cases, length, _ = self.inputs.shape
        for name, column in columns.items():
            if column.shape[:1] != (cases,):
                raise ArgumentError(f"Split: inputs has {cases} cases, but {name} has shape {column.shape}.")
        if self.lengths.ndim != 1 or self.lengths.min() < 1 or self.lengths.max() > length:
            raise ArgumentError(
                f"Split: lengths must have shape (cases,) and go from 1 to {length}; they go from "
                f"{self.lengths.min()} to {self.lengths.max()} in shape {self.lengths.shape}."
            )
        if not np.isfinite(self.inputs).all():
            case, step, channel = np.argwhere(~np.isfinite(self.inputs))[0]
            raise ArgumentError(
                f"Split: inputs of case {case} are {self.inputs[case, step, channel]} at step {step}, channel "
                f"{channel}. Fill missing values first (the readers do, with missing='interpolate'), or leave "
                "the case out."
            )
        if not np.isfinite(self.targets).all():
            case = np.argwhere(~np.isfinite(self.targets))[0][0]
            raise ArgumentError(f"Split: the target of case {case} is not finite. Leave the case out.")
        if self.targets.dtype == np.int32 and self.targets.size and self.targets.min() < 0:
            raise ArgumentError(
                f"Split: class indices must be at least 0; the smallest target is {self.targets.min()}."
            )
        if not self.equal_length and np.any(self.inputs[~self.mask]):
            raise ArgumentError("Split: inputs after the length of a case (its padding) must be 0.")

    @staticmethod
    def from_series(
        series: Sequence[Num[np.ndarray, "_ channels"]],
        targets: Num[np.ndarray, "cases ..."],
        groups: Shaped[np.ndarray, " cases"] | None = None,
        *,
        length: int | None = None,
    ) -> "Split":
        """Put series of any lengths into one array, padded with zeros at the end.

        Args:
            series: one array of shape (steps, channels) for every case.
            targets: class indices (any integer dtype) or regression targets (any float dtype).
            groups: the source of every case.
            length: length to pad to; by default that of the longest series.

        Raises:
            ArgumentTypeError: series or targets are not arrays of real numbers.
            ArgumentError: they do not fit together, `length` is not an integer or too small, or nearly all of the
                padded array would be padding.
        """
        _checks.instance("Split.from_series", "series", series, (Sequence, np.ndarray), "a sequence of arrays")
        if len(series) == 0:
            raise ArgumentError("Split.from_series: series is empty. A split has at least one case.")
        for number, case in enumerate(series):
            _check_numbers(f"series[{number}]", case)
        channels = {case.shape[1] if case.ndim == 2 and len(case) else 0 for case in series}
        if len(channels) != 1 or 0 in channels:
            raise ArgumentError(
                "Split.from_series: every series must have a shape (steps, channels) without 0, with the same number "
                "of channels."
            )
        longest = max(len(case) for case in series)
        if length is None:
            length = longest
        length = _checks.integer("Split.from_series", "length", length, longest, 2**63, "the padded length")
        shape = len(series), length, channels.pop()
        values = sum(case.size for case in series)
        if math.prod(shape) > max(_PADDING * values, _SMALL):
            raise ArgumentError(
                f"Split.from_series: series of {min(map(len, series))} to {longest} steps, padded to {length}, would "
                f"be an array of shape {shape} and {4 * math.prod(shape)} bytes for {values} values. Cut the long "
                "series into shorter ones, or leave them out."
            )
        inputs = np.zeros(shape, dtype=np.float32)
        with np.errstate(over="ignore"):  # overflow gives infinities, which __post_init__ refuses
            for row, case in zip(inputs, series, strict=True):
                row[: len(case)] = case
        lengths = np.array([len(case) for case in series], dtype=np.int32)
        return Split(inputs, _targets(targets), lengths, groups)

    @property
    def length(self) -> int:
        """Number of steps after padding."""
        return self.inputs.shape[1]

    @property
    def equal_length(self) -> bool:
        """Whether no case is padded, so that no mask is needed."""
        return bool((self.lengths == self.length).all())

    @property
    def mask(self) -> Bool[np.ndarray, "cases length"]:
        """True at valid steps, False in the padding."""
        return np.arange(self.length) < self.lengths[:, None]

    def take(self, indices: Int[np.ndarray, " _"] | Sequence[int]) -> "Split":
        """Choose cases by index, in the given order.

        Args:
            indices: integers from 0 to the number of cases - 1, shape (chosen,); repeated indices are allowed.

        Raises:
            ArgumentTypeError: the indices are not integers. (`np.flatnonzero` converts a mask.)
            ArgumentError: they are empty, have another shape, or are out of range (then also an `IndexError`).
        """
        indices = _indices(indices, len(self))
        groups = None if self.groups is None else self.groups[indices]
        return Split(self.inputs[indices], self.targets[indices], self.lengths[indices], groups)

    def class_counts(self, classes: int) -> Int[np.ndarray, " classes"]:
        """Count the cases of each class.

        Args:
            classes: number of classes.

        Raises:
            ArgumentTypeError: the targets are not class indices.
            ArgumentError: `classes` is not an integer of at least 1, or a target is not below it.
        """
        classes = _checks.integer("class_counts", "classes", classes)
        if self.targets.dtype != np.int32:
            raise ArgumentTypeError("class_counts: regression targets have no classes to count.")
        if self.targets.ndim != 1 or self.targets.max() >= classes:
            raise ArgumentError(f"class_counts: classes={classes}, but the targets go up to {self.targets.max()}.")
        return np.bincount(self.targets, minlength=classes)

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        cases, length, channels = self.inputs.shape
        return f"Split({cases} cases × {length} steps × {channels} channels)"


_ARRAY = "a NumPy array; np.asarray converts it"


def _check_numbers(name: str, value: Any) -> None:
    """Raise unless a value is a NumPy array of real numbers."""
    _checks.instance("Split.from_series", name, value, np.ndarray, _ARRAY)
    if value.dtype.kind not in "iuf":
        raise ArgumentTypeError(f"Split.from_series: {name} must hold real numbers, not {value.dtype}.")


def _targets(targets: Any) -> np.ndarray:
    """Convert integers to int32 and floats to float32."""
    _check_numbers("targets", targets)
    if targets.dtype.kind == "f":
        with np.errstate(over="ignore"):  # overflow gives infinities, which __post_init__ refuses
            return targets.astype(np.float32)
    if targets.size and not -(1 << 31) <= int(targets.min()) <= int(targets.max()) < 1 << 31:
        raise ArgumentError(
            f"Split.from_series: class indices go from {targets.min()} to {targets.max()} and overflow int32."
        )
    return targets.astype(np.int32)


def _indices(indices: Any, cases: int) -> np.ndarray:
    """Return indices of cases as an array, shape (chosen,)."""
    try:
        found = np.asarray(indices)
    except ValueError:  # a ragged list
        found = np.asarray(None)
    if found.size == 0 and isinstance(indices, Sequence | np.ndarray) and not isinstance(indices, str):
        raise ArgumentError("take: indices is empty. A split has at least one case.")
    if found.dtype.kind not in "iu":
        hint = " `np.flatnonzero` converts a mask to indices." if found.dtype == bool else ""
        raise ArgumentTypeError(f"take: indices must be integers, not {shown(indices)}.{hint}")
    if found.ndim != 1:
        raise ArgumentError(f"take: indices must have shape (chosen,), not {found.shape}.")
    wrong = found[(found < 0) | (found >= cases)]
    if wrong.size:
        raise CaseIndexError(f"take: there is no case {wrong[0]}; the {cases} cases go from 0 to {cases - 1}.")
    return found.astype(np.int64)
