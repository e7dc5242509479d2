"""What a data set is: cases of one length after padding, in splits that are never mixed."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped

from echograd import ArgumentError, ArgumentTypeError

from . import _checks

Task = Literal["classification", "regression"]

_PADDING, _SMALL = 16, 1 << 26  # padded values: up to 16 a value, or 256 MiB of float32 in all


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Cases for one purpose (training, validation or test), as arrays in host memory.

    Attributes:
        inputs: float32, shape (cases, length, channels). Cases shorter than `length` are padded with
            zeros at the end.
        targets: class indices, int32 of shape (cases,), or regression targets, float32 of shape
            (cases, ...).
        lengths: number of valid steps of every case, int32 of shape (cases,).
        groups: whom every case is from (a patient, a subject), shape (cases,), or None if unknown.

    Raises:
        TypeError: an array has another dtype.
        ValueError: shapes disagree, a length is out of range, a value is not finite, or the padding is
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
            _checks.array(name, column)
        if self.inputs.dtype != np.float32 or self.lengths.dtype != np.int32:
            raise ArgumentTypeError(
                f"inputs and lengths must be float32 and int32, not {self.inputs.dtype} and "
                f"{self.lengths.dtype}. `Split.from_series` converts."
            )
        if self.targets.dtype not in (np.int32, np.float32):
            raise ArgumentTypeError(
                f"targets must be int32 (class indices) or float32 (regression), not {self.targets.dtype}."
            )
        if self.inputs.ndim != 3 or 0 in self.inputs.shape:
            raise ArgumentError(f"inputs must be (cases, length, channels), none of them 0, not {self.inputs.shape}.")
        cases, length, _ = self.inputs.shape
        for name, column in columns.items():
            if column.shape[:1] != (cases,):
                raise ArgumentError(f"{cases} cases in inputs, but {name} has shape {column.shape}.")
        if self.lengths.ndim != 1 or self.lengths.min() < 1 or self.lengths.max() > length:
            raise ArgumentError(f"lengths must be (cases,) and from 1 to {length}; they go up to {self.lengths.max()}.")
        if not np.isfinite(self.inputs).all():
            case, step, channel = np.argwhere(~np.isfinite(self.inputs))[0]
            raise ArgumentError(
                f"inputs of case {case} are {self.inputs[case, step, channel]} at step {step}, channel "
                f"{channel}. Fill missing values first (the readers do, with missing='interpolate') or leave "
                "the case out."
            )
        if not np.isfinite(self.targets).all():
            raise ArgumentError(f"the target of case {np.argwhere(~np.isfinite(self.targets))[0][0]} is not finite.")
        if self.targets.dtype == np.int32 and self.targets.size and self.targets.min() < 0:
            raise ArgumentError(f"class indices must be 0 or more; the smallest target is {self.targets.min()}.")
        if not self.equal_length and np.any(self.inputs[~self.mask]):
            raise ArgumentError("inputs after a case's length must be 0: nothing may be hidden in the padding.")

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
            groups: whom every case is from.
            length: length to pad to; by default the longest series'.

        Raises:
            TypeError: series or targets are no arrays of real numbers.
            ValueError: they do not fit together, or nearly all of the padded array would be padding.
        """
        if not isinstance(series, Sequence | np.ndarray):
            raise ArgumentTypeError(f"series must be a sequence of arrays, not {_checks.shown(series)}.")
        if len(series) == 0:
            raise ArgumentError("series is empty. A split has at least one case.")
        for number, case in enumerate(series):
            _numbers(f"series {number}", case)
        channels = {case.shape[1] if case.ndim == 2 and len(case) else 0 for case in series}
        if len(channels) != 1 or 0 in channels:
            raise ArgumentError(
                "every series must be (steps, channels), none of them 0, with the same number of channels."
            )
        longest = max(len(case) for case in series)
        length = longest if length is None else _checks.integer("length", length, 1)
        if length < longest:
            raise ArgumentError(f"a series has {longest} steps, more than length={length}.")
        shape = len(series), length, channels.pop()
        values = sum(case.size for case in series)
        if math.prod(shape) > max(_PADDING * values, _SMALL):
            raise ArgumentError(
                f"series of {min(map(len, series))} to {longest} steps, padded to {length}, would be an array of shape "
                f"{shape} and {4 * math.prod(shape)} bytes for {values} values. Cut the long series into shorter ones, "
                "or leave them out."
            )
        inputs = np.zeros(shape, dtype=np.float32)
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
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
        """Whether all cases fill the whole length, so that no mask is needed."""
        return bool((self.lengths == self.length).all())

    @property
    def mask(self) -> Bool[np.ndarray, "cases length"]:
        """True at valid steps, False in the padding."""
        return np.arange(self.length) < self.lengths[:, None]

    def take(self, indices: Int[np.ndarray, " _"] | Sequence[int]) -> "Split":
        """Choose cases by index, in the order given.

        Args:
            indices: from 0 to the number of cases - 1, shape (chosen,); a case may come several times.

        Raises:
            TypeError: they are no integers. (`np.flatnonzero` makes indices of a mask.)
            IndexError: there is no case of that number.
            ValueError: there is none, or they have another shape.
        """
        indices = _indices(indices, len(self))
        groups = None if self.groups is None else self.groups[indices]
        return Split(self.inputs[indices], self.targets[indices], self.lengths[indices], groups)

    def class_counts(self, classes: int) -> Int[np.ndarray, " classes"]:
        """Count the cases of each class.

        Args:
            classes: number of classes.

        Raises:
            TypeError: the targets are no class indices.
            ValueError: there are cases of classes beyond.
        """
        classes = _checks.integer("classes", classes, 1)
        if self.targets.dtype != np.int32:
            raise ArgumentTypeError("regression targets have no classes to count.")
        if self.targets.ndim != 1 or self.targets.max() >= classes:
            raise ArgumentError(f"classes={classes}, but there are targets up to {self.targets.max()}.")
        return np.bincount(self.targets, minlength=classes)

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        cases, length, channels = self.inputs.shape
        return f"Split({cases} cases × {length} steps × {channels} channels)"


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with the splits it is published with.

    Attributes:
        name: the name it is loaded by.
        train: the cases to learn from.
        validation: the cases to choose a model with, or None (see `with_validation`).
        test: the cases to report on, and nothing else.
        task: whether targets are class indices or real numbers.
        class_names: one name for each class index; empty for regression.
        channel_names: one name for each input channel.
        sample_rate: steps per second in Hz, or None if unknown.
        description: what the cases are and how they were split.
        source: where the data is from, and whom to cite.
        licence: what the source says about use.

    Raises:
        TypeError: a split is no `Split`, or names are no tuple of strings.
        ValueError: the splits disagree in length, channels, kind of target or with the names.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    task: Task
    class_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    sample_rate: float | None
    description: str = dataclasses.field(repr=False)
    source: str = dataclasses.field(repr=False)
    licence: str = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        remedy = "`Split.from_series` makes one of arrays."
        for side, split in (("train", self.train), ("test", self.test), ("validation", self.validation)):
            if side != "validation" or split is not None:
                _checks.instance(f"{side} of a data set", split, Split, remedy)
        for name, texts in (("class_names", self.class_names), ("channel_names", self.channel_names)):
            if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
                raise ArgumentTypeError(f"{name} must be a tuple of strings, not {_checks.shown(texts)}.")
        if self.task not in ("classification", "regression"):
            raise ArgumentError(f"task must be 'classification' or 'regression', not {_checks.shown(self.task)}.")
        if self.sample_rate is not None and _checks.real("sample_rate", self.sample_rate) <= 0:
            raise ArgumentError(f"sample_rate must be positive or None, not {self.sample_rate:g} Hz.")
        if (self.task == "regression") != (self.class_names == ()):
            raise ArgumentError(f"{self.name}: class_names must be there for classification, and only for it.")
        for side, split in self.splits.items():
            where = f"{self.name}, {side}"
            if split.inputs.shape[1:] != (self.length, self.inputs_dim):
                raise ArgumentError(
                    f"{where}: cases of shape {split.inputs.shape[1:]}, but in train {(self.length, self.inputs_dim)}."
                )
            if split.targets.dtype != (np.int32 if self.task == "classification" else np.float32):
                raise ArgumentError(f"{where}: {split.targets.dtype} targets do not fit {self.task}.")
            if split.targets.shape[1:] != self.train.targets.shape[1:]:
                raise ArgumentError(f"{where}: targets of shape {split.targets.shape[1:]} differ from those of train.")
            if self.task == "classification" and (
                split.targets.ndim != 1 or split.targets.min() < 0 or split.targets.max() >= self.classes
            ):
                raise ArgumentError(
                    f"{where}: class indices must be (cases,) and from 0 to {self.classes - 1}; they go from "
                    f"{split.targets.min()} to {split.targets.max()}."
                )
        if len(self.channel_names) != self.inputs_dim:
            raise ArgumentError(f"{self.name}: {len(self.channel_names)} names for {self.inputs_dim} channels.")

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that are there, by name."""
        sides = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in sides.items() if split is not None}

    @property
    def inputs_dim(self) -> int:
        """Number of input channels."""
        return self.train.inputs.shape[2]

    @property
    def length(self) -> int:
        """Number of steps of every case after padding."""
        return self.train.length

    @property
    def classes(self) -> int:
        """Number of classes; 0 for regression."""
        return len(self.class_names)

    def class_weights(self) -> Float[np.ndarray, " classes"]:
        """Weights that make every class count the same in a mean over the training cases.

        Returns:
            cases / (classes × cases of the class), float32; their mean over the training cases is 1.

        Raises:
            ValueError: a class has no training case.
        """
        counts = self.train.class_counts(self.classes)
        if not counts.all():
            raise ArgumentError(
                f"{self.name}: no training case of class {self.class_names[int(np.argmin(counts))]!r}, so "
                "its weight would be infinite. Leave the class out, or train without class weights."
            )
        return (len(self.train) / (self.classes * counts)).astype(np.float32)

    def standardised(self, *, targets: bool = False) -> "Dataset":
        """Scale every channel to mean 0 and standard deviation 1 on the training cases.

        Mean and standard deviation come from the valid steps of the training split alone and are applied
        to all splits, so nothing of the test cases leaks into what the model sees. Padding stays 0. A
        channel that is constant in training is only centred.

        Args:
            targets: also scale regression targets, by the training targets' mean and deviation over all
                of their elements. (`target_scale` of the original set gives the numbers to undo it.)

        Returns:
            The same set with scaled inputs.
        """
        targets = _checks.flag("targets", targets)
        valid = self.train.inputs[self.train.mask]
        mean, std = _mean_and_std(valid)
        shift, scale = self.target_scale() if targets else (0.0, 1.0)

        def scaled(split: Split) -> Split:
            inputs = ((split.inputs - mean) / std).astype(np.float32)
            inputs[~split.mask] = 0.0
            new = ((split.targets - shift) / scale).astype(np.float32) if targets else split.targets
            return dataclasses.replace(split, inputs=inputs, targets=new)

        return self._with(**{side: scaled(split) for side, split in self.splits.items()})

    def target_scale(self) -> tuple[float, float]:
        """Give mean and standard deviation of the training targets (regression only)."""
        if self.task != "regression":
            raise ArgumentError(f"{self.name}: class indices have no scale.")
        mean, std = _mean_and_std(self.train.targets.reshape(-1, 1))
        return float(mean[0]), float(std[0])

    def with_validation(self, fraction: float = 0.2, seed: int = 0) -> "Dataset":
        """Split validation cases off the training cases; the test cases stay as they are.

        Where the groups are known whole groups move, so that nobody is on both sides; the groups are drawn
        so that the classes are shared out as evenly as whole groups allow. Otherwise, the cases of each
        class are drawn in proportion. The same seed gives the same split.

        Args:
            fraction: share of the training cases to split off, between 0 and 1.
            seed: of the draw.

        Raises:
            ValueError: there is a validation split already, or a class would be left without training cases.
        """
        if self.validation is not None:
            raise ArgumentError(f"{self.name} has a validation split of its own ({len(self.validation)} cases).")
        fraction, seed = _checks.real("fraction", fraction), _checks.integer("seed", seed, 0)
        if not 0 < fraction < 1:
            raise ArgumentError(f"fraction must be between 0 and 1, not {fraction:g}.")
        # Regression is one class to draw from.
        labels = self.train.targets if self.task == "classification" else np.zeros(len(self.train), np.int32)
        rng = np.random.default_rng(seed)
        if self.train.groups is None:
            chosen = _draw_stratified(labels, fraction, rng)
        else:
            chosen = _draw_groups(labels, self.train.groups, fraction, rng)
        if chosen is None:
            raise ArgumentError(
                f"{self.name}: no validation split of {fraction:g} of the cases leaves every class in "
                "training. Ask for another fraction, or give a validation split of your own."
            )
        everything = np.arange(len(self.train))
        return self._with(train=self.train.take(everything[~chosen]), validation=self.train.take(everything[chosen]))

    def _with(self, **splits: Split) -> "Dataset":
        return dataclasses.replace(self, **splits)  # pyright: ignore[reportArgumentType]


def _mean_and_std(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give mean and standard deviation over the first axis; a deviation of 0 becomes 1."""
    mean, std = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    # Rounding leaves a constant channel a deviation of the order of its last digit. Below the least normal float32, a
    # deviation is too small to divide by.
    constant = std <= np.maximum(1e-6 * np.abs(mean), np.finfo(np.float32).tiny)
    return mean.astype(np.float32), np.where(constant, 1.0, std).astype(np.float32)


def _numbers(name: str, value: Any) -> None:
    """Check that a value is an array of real numbers."""
    _checks.array(name, value)
    if value.dtype.kind not in "iuf":
        raise ArgumentTypeError(f"{name} must hold real numbers, not {value.dtype}.")


def _targets(targets: Any) -> np.ndarray:
    """Convert integers to int32 and floats to float32."""
    _numbers("targets", targets)
    if targets.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
            return targets.astype(np.float32)
    if targets.size and not -(1 << 31) <= int(targets.min()) <= int(targets.max()) < 1 << 31:
        raise ArgumentError(f"class indices go from {targets.min()} to {targets.max()}, which int32 does not hold.")
    return targets.astype(np.int32)


def _indices(indices: Any, cases: int) -> np.ndarray:
    """Return indices of cases as an array, shape (chosen,)."""
    try:
        found = np.asarray(indices)
    except ValueError:  # of a ragged list
        found = np.asarray(None)
    if found.size == 0 and isinstance(indices, Sequence | np.ndarray) and not isinstance(indices, str):
        raise ArgumentError("indices is empty. A split has at least one case.")
    if found.dtype.kind not in "iu":
        hint = " `np.flatnonzero` makes indices of a mask." if found.dtype == bool else ""
        raise ArgumentTypeError(f"indices must be integers, not {_checks.shown(indices)}.{hint}")
    if found.ndim != 1:
        raise ArgumentError(f"indices must have shape (chosen,), not {found.shape}.")
    wrong = found[(found < 0) | (found >= cases)]
    if wrong.size:
        raise IndexError(f"there is no case {wrong[0]}: the split has {cases}, from 0 to {cases - 1}.")
    return found.astype(np.int64)


def _draw_stratified(labels: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray | None:
    """Choose the same fraction of every class, at least one case and at most all but one."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        cases = rng.permutation(np.flatnonzero(labels == label))
        if len(cases) > 1:
            chosen[cases[: min(max(round(fraction * len(cases)), 1), len(cases) - 1)]] = True
    return chosen if chosen.any() else None


def _draw_groups(
    labels: np.ndarray, groups: np.ndarray, fraction: float, rng: np.random.Generator
) -> np.ndarray | None:
    """Choose whole groups: of many draws, the one whose share of every class is closest to the fraction."""
    names, index = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(counts, (index, labels), 1)
    total = counts.sum(axis=0)
    present = total > 0
    best, best_error = None, np.inf
    for _ in range(500):
        order = rng.permutation(len(names))
        for count in range(1, len(names)):
            share = counts[order[:count]].sum(axis=0)[present] / total[present]
            error = np.abs(share - fraction).sum()
            if (share < 1).all() and error < best_error:
                best, best_error = order[:count], error
    return None if best is None else np.isin(index, best)
